"""The keys of a store on Redis: the current ones and those of version 0.1.

A key is the prefix, then the prefix in braces, then a name: ``team:{team:}h:ID``. It begins with the prefix, so that
users of the server can be limited to ``~team:*``. The braces are a hash tag: in a cluster, all keys are in one slot.
Version 0.1 left out the first prefix: ``{team:}h:ID``, which is in the same slot.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

CONVERSATION = ("h", "a", "t", "i")
"""The kinds of keys that a conversation has."""


class Numbered(NamedTuple):
    """A conversation, and the number under which its turns are stored."""

    conversation_id: str
    cid: int

    @property
    def names(self) -> tuple[str, str, str, str]:
        """The names of its keys, in the order of ``CONVERSATION``."""
        return (f"h:{self.conversation_id}", f"a:{self.conversation_id}", f"t:{self.cid}", f"i:{self.cid}")


class Keys:
    """The keys of one prefix."""

    def __init__(self, prefix: str) -> None:
        """Name the keys of this prefix; ``has_old`` is set if keys of version 0.1 may exist."""
        self._old = f"{{{prefix}}}".encode()
        self._new = prefix.encode() + self._old
        self.has_old = False
        self.pattern = f"~{prefix}*"
        self.old_pattern = f"~{{{prefix}}}*"

    def __call__(self, name: str) -> bytes:
        """Return the current key of this name."""
        return self._new + name.encode()

    def old(self, name: str) -> bytes:
        """Return the key that version 0.1 gave this name."""
        return self._old + name.encode()

    def renamed(self, old: bytes) -> bytes:
        """Return the current key for an old one."""
        return self._new + old.removeprefix(self._old)

    def both(self, names: Iterable[str]) -> list[bytes]:
        """Return the current keys of these names, and those of version 0.1."""
        return [key for name in names for key in ((self(name), self.old(name)) if self.has_old else (self(name),))]

    def values(self, found: Iterable[bytes | None]) -> Iterator[bytes | None]:
        """Yield one value per name from the values of ``both``; old keys are used if the current ones are missing."""
        each = iter(found)
        for value in each:
            old = next(each) if self.has_old else None
            yield old if value is None else value
