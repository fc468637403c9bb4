"""One transaction of a store on Redis: its reads and pending writes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from redis import exceptions

from promptkit_nb.stores.layout import ASIDE
from promptkit_nb.stores.redis_lists import Command, Listed

if TYPE_CHECKING:
    from promptkit_nb.stores.redis_keys import Keys


@dataclass(frozen=True, slots=True)
class Owner:
    """The part of a record that identifies its owner and its turns."""

    user_id: str
    cid: int
    next_place: int = 0
    next_aside: int = ASIDE

    @property
    def has_turns(self) -> bool:
        """Whether rows of turns were ever written for this conversation."""
        return self.next_place > 0 or self.next_aside > ASIDE


@dataclass(slots=True)
class Transaction:
    """The reads and pending writes of one attempt of a transaction."""

    # Any: the client types every answer as bytes or text or both; here it returns only bytes
    pipeline: Any
    watched: set[str] = field(default_factory=set)
    moves: list[Command] = field(default_factory=list)
    writes: list[Command] = field(default_factory=list)
    expiries: list[Command] = field(default_factory=list)
    frames: dict[str, bytes | None] = field(default_factory=dict)
    unwatched: dict[str, bytes | None] = field(default_factory=dict)
    changed: set[str] = field(default_factory=set)
    gone: list[tuple[Listed, bytes | None]] = field(default_factory=list)
    owners: dict[int, tuple[str, Owner]] = field(default_factory=dict)
    old: dict[str, int] = field(default_factory=dict)
    moved: set[str] = field(default_factory=set)

    def commit(self, keys: Keys) -> None:
        """Commit the writes; without writes, only check that all reads were valid at one moment."""
        self._watch_changed(keys)
        if not self.watched and not self.writes:
            return
        self.pipeline.multi()
        for command in (*self.moves, *self.writes, *self.expiries):
            self.pipeline.execute_command(*command)
        self.pipeline.execute()

    def _watch_changed(self, keys: Keys) -> None:
        """Start over if a key that will be written was read without watching it, and has changed since."""
        unwatched = self.changed - self.watched
        names = [name for name in self.unwatched if name in unwatched]
        if not names:
            return
        self.watched.update(names)
        self.pipeline.watch(*keys.both(names))
        found = keys.values(self.pipeline.mget(keys.both(names)))
        if [*found] != [self.unwatched[name] for name in names]:
            raise exceptions.WatchError
