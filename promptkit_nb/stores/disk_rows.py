"""The rows of ``DiskStore`` in their table: the format that users keep for years.

::

    "format"             the format's version, as text
    "c:cid"              the last conversation number given out
    "h:" + id            record: who owns it, counts, totals, times           tag "u:" + user id
    "a:" + id            frame: system prompt, settings, metadata, summaries; which turns are current
    (cid << 24) | place  one turn, written once and never changed             tag "t:" + turn id
    "l:" + scope         account of the ledger; no delete touches it
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from promptkit_nb.codec import FORMAT_VERSION
from promptkit_nb.errors import StoreCorruptedError
from promptkit_nb.stores.disk_errors import DATABASE
from promptkit_nb.stores.disk_table import Row, Table
from promptkit_nb.stores.layout import PLACE_BITS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from promptkit_nb.stores.rows import Appending

T = TypeVar("T")


class DiskRows:
    """Rows in the table of a directory."""

    def __init__(self, directory: Path, timeout_s: float) -> None:
        """Open the table, and make an empty one a store."""
        self.where = str(directory)
        self._table = Table(directory, timeout_s)
        if self._table.run(self._is_empty, write=False):  # else nothing is written, and nobody who writes waited for
            self._table.run(self._begin, write=True)

    def run(self, work: Callable[[], T], *, write: bool) -> T:
        """Run the work as one transaction of SQLite."""
        return self._table.run(work, write=write)

    def version(self) -> object:
        """Return what becomes another as soon as any row does, but by ``append()``."""
        return self._table.version()

    def append(self, appending: Appending) -> bool:
        """Append a turn if the record is still the former one and the turn is not there; say if so."""
        conversation_id, user_id, former, record, cid, place, turn_id, line = appending
        head = Row(f"h:{conversation_id}", record, f"u:{user_id}")
        turn = Row(_key_of(cid, place), line, f"t:{turn_id}")
        return self._table.swap(head, former, turn, *_bounds_of(cid))

    def record(self, conversation_id: str) -> bytes | None:
        """Return the record of a conversation."""
        return self._table.get(f"h:{conversation_id}")

    def put_record(self, conversation_id: str, user_id: str, value: bytes) -> None:
        """Write the record of a conversation, findable by its user."""
        self._table.put(f"h:{conversation_id}", value, tag=f"u:{user_id}")

    def records(self, prefix: str, user_id: str | None) -> Iterator[tuple[str, bytes]]:
        """Yield id and record of the conversations whose id begins so, of one user or of all."""
        if user_id is None:
            rows = self._table.between(f"h:{prefix}", behind_prefix(f"h:{prefix}"))
        else:
            rows = self._table.tagged(f"u:{user_id}")
        for key, value in rows:
            conversation_id = str(key).removeprefix("h:")
            if conversation_id.startswith(prefix):
                yield conversation_id, value

    def ids(self) -> list[str]:
        """Return the ids of all conversations, also where a record cannot be read."""
        return [key.removeprefix("h:") for key in self._table.texts_between("h:", behind_prefix("h:"))]

    def frame(self, conversation_id: str) -> bytes | None:
        """Return the frame of a conversation."""
        return self._table.get(f"a:{conversation_id}")

    def put_frame(self, conversation_id: str, value: bytes) -> None:
        """Write the frame of a conversation."""
        self._table.put(f"a:{conversation_id}", value)

    def erase(self, conversation_id: str, cid: int, user_id: str) -> None:  # noqa: ARG002 - the record says it here
        """Delete a conversation: record, frame and turns."""
        self._table.delete_between(*_bounds_of(cid))
        self._table.delete(f"a:{conversation_id}")
        self._table.delete(f"h:{conversation_id}")

    def next_cid(self) -> int:
        """Return a number that no conversation has had."""
        stored = self._table.get("c:cid")
        if stored is None or not stored.isdigit():  # counting from 1 again would write over what is there
            raise StoreCorruptedError(
                f"The store in {self.where} has lost count of its conversations. Nothing was changed; "
                f"restore {DATABASE} from a backup."
            )
        cid = int(stored) + 1
        self._table.put("c:cid", str(cid).encode())
        return cid

    def turns(self, cid: int) -> Mapping[int, bytes]:
        """Return all turns by their places."""
        low, high = _bounds_of(cid)
        return {int(key) - low: value for key, value in self._table.between(low, high)}

    def turns_at(self, cid: int, places: Iterable[int]) -> list[bytes | None]:
        """Return the turns at these places; many that follow each other are read at once."""
        wanted = list(places)
        first = _key_of(cid, wanted[0]) if wanted else 0
        if wanted == list(range(wanted[0], wanted[-1] + 1) if wanted else ()):
            found = dict(self._table.between(first, first + len(wanted)))
            return [found.get(key) for key in range(first, first + len(wanted))]
        return [self._table.get(_key_of(cid, place)) for place in wanted]

    def place_of(self, cid: int, turn_id: str) -> int | None:
        """Return the place of the turn with this id."""
        low, high = _bounds_of(cid)
        key = self._table.key_of_tag(f"t:{turn_id}", low, high)
        return None if key is None else int(key) - low

    def put_turn(self, cid: int, place: int, turn_id: str, value: bytes) -> None:
        """Write a turn."""
        self._table.add(_key_of(cid, place), value, tag=f"t:{turn_id}")

    def copy_turns(self, cid: int, new_cid: int) -> None:
        """Copy all turns to another conversation, places kept."""
        low, high = _bounds_of(cid)
        self._table.copy_between(low, high, _key_of(new_cid, 0) - low)

    def account(self, scope: str) -> bytes | None:
        """Return what the ledger says of a scope."""
        return self._table.get(f"l:{scope}")

    def put_account(self, scope: str, value: bytes) -> None:
        """Write what the ledger says of a scope."""
        self._table.put(f"l:{scope}", value)

    def close(self) -> None:
        """Let go of the files."""
        self._table.close()

    @property
    def closed(self) -> bool:
        """Whether ``close()`` was called."""
        return self._table.closed

    def _is_empty(self) -> bool:
        return self._table.get("format") is None

    def _begin(self) -> None:
        if self._is_empty():
            self._table.put("format", str(FORMAT_VERSION).encode())
            self._table.put("c:cid", b"0")


def behind_prefix(prefix: str) -> str:
    """Return the first text that sorts behind all those which begin with the prefix.

    >>> behind_prefix("h:user:alice:")
    'h:user:alice;'
    """
    kept = prefix.rstrip(chr(0x10FFFF))
    following = ord(kept[-1]) + 1
    return kept[:-1] + chr(0xE000 if following == 0xD800 else following)  # noqa: PLR2004 - past the surrogates


def _key_of(cid: int, place: int) -> int:
    return (cid << PLACE_BITS) | place


def _bounds_of(cid: int) -> tuple[int, int]:
    """Return the keys between which a conversation's turns stand: the first, and the first behind them."""
    return _key_of(cid, 0), _key_of(cid + 1, 0)
