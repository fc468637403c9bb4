"""Reads PromptKit's conversations in Redis, with SCAN and pipelines; it changes no keys and renews no expiries."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar

from promptkit_nb.errors import ImportSourceError, MissingDependencyError
from promptkit_nb.imports.promptkit_messages import (
    DEFAULT_PREFIX,
    SOURCE,
    StoredConversation,
    messages_of,
    object_of,
    summaries_of,
)
from promptkit_nb.imports.reader import Unit
from promptkit_nb.imports.records import BROKEN, decoded_value
from promptkit_nb.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from redis import Redis

    from promptkit_nb.imports.building import Reading
    from promptkit_nb.imports.reader import Source
    from promptkit_nb.state import ConversationState, Head

MOST_AT_ONCE = 200
MOST_MESSAGES_AT_ONCE = 10_000
"""The most that one pipeline fetches, which bounds memory unless a single conversation is larger."""

SCAN_COUNT = 1000
USER_FIELD = b"user."

_GLOB = re.compile(r"([\\*?\[\]])")
_PART = re.compile(rb"(.*):(?:messages|summaries|metadata|lists|list:[^:]*)", re.DOTALL)


class PromptKitRedis:
    """Reads the conversations under one prefix of a server."""

    source: ClassVar[str] = SOURCE

    def __init__(self, client: Redis, where: str, prefix: str, reading: Reading) -> None:
        """Read with this client."""
        self._client = client
        self._where = where
        self._prefix = prefix
        self._start = f"{prefix}:conversation:".encode()
        self._reading = reading

    def units(self) -> list[Unit]:
        """Return one unit for the server, which does not report what has changed."""
        return [Unit(f"{self._where} {self._prefix}", f"redis://{self._where}#{self._prefix}")]

    def ordered(self, changed: Sequence[Unit], unchanged: Mapping[Unit, Sequence[Head]]) -> list[Unit]:
        """Return the unit."""
        del unchanged
        return list(changed)

    def read(self, unit: Unit, advance: Callable[[int], object]) -> Iterator[ConversationState]:
        """Yield the conversations, in the order of their ids."""
        del unit
        with self._translated():
            ids = self._conversation_ids()
            if not ids:
                raise self._nothing()
            for group in self._groups(ids):
                yield from self._conversations(group, advance)

    def _conversation_ids(self) -> list[bytes]:
        """Return the ids found in keys, because no index has all of them; note parts without a conversation."""
        ids: set[bytes] = set()
        parts: set[bytes] = set()
        pattern = _GLOB.sub(r"\\\1", self._start.decode()) + "*"
        for key in self._client.scan_iter(match=pattern, count=SCAN_COUNT):
            rest = key[len(self._start) :]
            part = _PART.fullmatch(rest)
            if part is None:
                ids.add(rest.removesuffix(b":meta"))
            elif not rest.endswith(b":lists"):
                parts.add(part[1])
                if b":list:" in rest:
                    self._reading.notes.add_omission("lists of bytes")
        for orphan in sorted(parts - ids):
            self._reading.notes.add_damaged(orphan.decode("utf-8", "replace"), "has messages or metadata, but no :meta")
        return sorted(ids)

    def _groups(self, ids: Sequence[bytes]) -> Iterator[list[bytes]]:
        """Yield groups of ids to fetch together."""
        for start in range(0, len(ids), MOST_AT_ONCE):
            some = ids[start : start + MOST_AT_ONCE]
            pipe = self._client.pipeline(transaction=False)
            for each in some:
                pipe.llen(self._start + each + b":messages")
            group: list[bytes] = []
            total = 0
            for each, answer in zip(some, pipe.execute(raise_on_error=False), strict=True):
                count = answer if isinstance(answer, int) else 0
                if group and total + count > MOST_MESSAGES_AT_ONCE:
                    yield group
                    group, total = [], 0
                group.append(each)
                total += count
            yield group

    def _conversations(self, group: Sequence[bytes], advance: Callable[[int], object]) -> Iterator[ConversationState]:
        pipe = self._client.pipeline(transaction=False)
        for each in group:
            key = self._start + each
            pipe.get(key + b":meta")
            pipe.lrange(key + b":messages", 0, -1)
            pipe.lrange(key + b":summaries", 0, -1)
            pipe.hgetall(key + b":metadata")
            pipe.get(key)
        answers = iter(pipe.execute(raise_on_error=False))
        for each in group:
            found = [next(answers) for _ in range(5)]
            name = each.decode("utf-8", "replace")
            wrong = next((answer for answer in found if isinstance(answer, Exception)), None)
            if wrong is not None:
                self._reading.notes.add_damaged(name, f"a key of another type ({type(wrong).__name__})")
                continue
            advance(sum(map(len, found[1])))
            try:
                state = self._stored(name, *found).conversation(self._reading)
            except BROKEN as error:
                self._reading.notes.add_damaged(name, f"{type(error).__name__}: {error}")
                continue
            if state is None:
                self._reading.notes.add_omission("conversations without messages")
            else:
                yield state

    def _stored(  # noqa: PLR0917 - the answers of a pipeline, in their order
        self,
        name: str,
        meta: bytes | None,
        messages: Sequence[bytes],
        summaries: Sequence[bytes],
        fields: Mapping[bytes, bytes],
        document: bytes | None,
    ) -> StoredConversation:
        notes = self._reading.notes
        state = object_of(meta, f"{name}:meta", notes)
        if "ID" in state and document is None:  # a document whose id ends with ":meta"
            state, document, name = {}, meta, f"{name}:meta"
        metadata = {
            field.decode("utf-8", "replace").removeprefix("user."): decoded_value(value)
            for field, value in fields.items()
        }
        return StoredConversation(
            name,
            state,
            messages_of(messages, f"{name}:messages", notes),
            summaries_of(summaries, f"{name}:summaries", notes),
            metadata,
            document,
            self._prefix,
        )

    def _nothing(self) -> ImportSourceError:
        """Return the error for a prefix without conversations, which names prefixes that have some."""
        others = set()
        for key in self._client.scan_iter(match="*:conversation:*:meta", count=SCAN_COUNT):
            others.add(key.partition(b":conversation:")[0].decode("utf-8", "replace"))
        hint = f"Some have prefix={', '.join(map(repr, sorted(others)[:5]))}." if others else "Check prefix=."
        return ImportSourceError(
            f"The Redis server at {self._where} has no conversations of PromptKit under prefix={self._prefix!r}. {hint}"
        )

    @contextmanager
    def _translated(self) -> Iterator[None]:
        import redis  # noqa: PLC0415 - an extra, imported already

        try:
            yield
        except redis.RedisError as error:
            raise ImportSourceError(
                f"The Redis server at {self._where} cannot be read: {type(error).__name__}: {error}. "
                "Check the address and the password, and that it is running."
            ) from error


def open_reader(source: Source, reading: Reading) -> PromptKitRedis:
    """Return a reader for a URL or a client."""
    try:
        from promptkit_nb.stores.redis_client import address_of, checked_client, client_of  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise MissingDependencyError("Reading from Redis needs redis: pip install 'promptkit-nb[redis]'") from error
    location = source.location
    address = Secret.of(location, strips=False)  # a URL may have a password
    client = checked_client(location) if address is None else client_of(address, None, 60)
    return PromptKitRedis(client, address_of(client), source.prefix or DEFAULT_PREFIX, reading)
