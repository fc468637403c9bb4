"""What the notebook's options stand for: a provider, a store, the turns of a recording."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from promptkit_nb.asking.replays import replayable
from promptkit_nb.errors import InvalidArgumentError
from promptkit_nb.exports.archives import read_conversation
from promptkit_nb.providers.unchosen import UnchosenProvider

if TYPE_CHECKING:
    from promptkit_nb.providers.base import Provider
    from promptkit_nb.stores.base import StateStore
    from promptkit_nb.turns import Turn

_REDIS = ("redis://", "rediss://", "unix://")


def provider_of(name: str, model: str, base_url: str) -> Provider:
    """Return the provider of this name; without one, OpenAI's where a key or an address is given, else none yet."""
    chosen = name or os.environ.get("PROMPTKIT_PROVIDER", "")
    if not chosen and (base_url or os.environ.get("OPENAI_API_KEY") or os.environ.get("OPENAI_BASE_URL")):
        chosen = "openai"
    if chosen == "openai":
        from promptkit_nb.providers.openai import OpenAIProvider  # noqa: PLC0415 - heavy, imported when chosen

        return OpenAIProvider(model or None, base_url=base_url or None)
    if chosen == "demo":
        from promptkit_nb.providers.demo import DemoProvider  # noqa: PLC0415 - imported when chosen

        return DemoProvider()
    if chosen:
        raise InvalidArgumentError(
            f"There is no provider {chosen!r}: use openai or demo, as in %chat_setup --provider openai"
        )
    return UnchosenProvider()


def store_of(chosen: str) -> StateStore:
    """Return the store: ``disk`` (the default directory), ``memory``, a directory, or a Redis server."""
    if chosen == "memory":
        from promptkit_nb.stores.memory import MemoryStore  # noqa: PLC0415 - imported when chosen

        return MemoryStore()
    if chosen.startswith(_REDIS):
        from promptkit_nb.stores.redis import RedisStore  # noqa: PLC0415 - imported when chosen

        return RedisStore(chosen)
    from promptkit_nb.stores.disk import DiskStore  # noqa: PLC0415 - heavy, imported when chosen

    if chosen == "disk":
        return DiskStore()
    if "://" in chosen:  # and perhaps a password, so that it is not quoted
        raise InvalidArgumentError(f"The store is no address of a Redis server: begin it with {' or '.join(_REDIS)}")
    if not ("/" in chosen or os.sep in chosen or chosen == "~" or Path(chosen).is_dir()):
        raise InvalidArgumentError(
            f"There is no store {chosen!r}: use disk, memory, a directory such as ./chats, or redis://host:port/db"
        )
    return DiskStore(chosen)


def recorded_in(path: str) -> tuple[Turn, ...]:
    """Return all turns of an exported conversation, to be replayed; none without a path."""
    return tuple(replayable(read_conversation(path))) if path else ()


def file_stamp(path: str) -> tuple[str, int]:
    """Return what changes with a file: its absolute path, and when it was written last in nanoseconds, or -1."""
    if not path:
        return "", -1
    file = Path(path).absolute()
    return str(file), file.stat().st_mtime_ns if file.exists() else -1
