"""A pack with every section, for tests that change one value."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from promptkit_nb.packs.schema import keys_of

NEWSROOM = Path(__file__).parent / "data" / "newsroom.pack.json"
LEFT_OUT = object()


def newsroom(**changes: object) -> dict[str, Any]:
    """Return the pack's JSON with other top-level sections; ``LEFT_OUT`` removes one."""
    pack: dict[str, Any] = json.loads(NEWSROOM.read_text(encoding="utf-8"))
    for key, value in changes.items():
        _put(pack, key, value)
    return pack


def newsroom_with(pointer: str, value: object) -> dict[str, Any]:
    """Return the pack's JSON with another value at this pointer; ``LEFT_OUT`` removes it."""
    pack = newsroom()
    holder: Any = pack
    *above, last = keys_of(pointer)
    for key in above:
        holder = holder[int(key) if isinstance(holder, list) else key]
    _put(holder, last, value)
    return pack


def _put(holder: Any, key: str, value: object) -> None:
    place: int | str = int(key) if isinstance(holder, list) and key != "-" else key
    if value is LEFT_OUT:
        del holder[place]
    elif place == "-":
        holder.append(value)
    else:
        holder[place] = value
