"""One transaction of ``RedisRows``: what it saw, what it is going to write, and how that lands together."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from redis import exceptions

from promptkit_nb.stores.redis_lists import Command, Listed


@dataclass(slots=True)
class Transaction:
    """What one run of some work saw, and what it is going to write."""

    # Any: the client types every answer as bytes or text or both, and is asked here for bytes only
    pipeline: Any
    watched: set[bytes] = field(default_factory=set)
    writes: list[Command] = field(default_factory=list)
    expiries: list[Command] = field(default_factory=list)
    frames: dict[str, bytes | None] = field(default_factory=dict)
    listed: dict[bytes, bytes] = field(default_factory=dict)
    erased: set[bytes] = field(default_factory=set)
    ghosts: list[tuple[Listed, bytes]] = field(default_factory=list)

    def commit(self) -> None:
        """Write what the work wrote, or just make sure that what it read was of one moment."""
        self._watch_erased()
        if not self.watched and not self.writes:
            return
        self.pipeline.multi()
        for command in (*self.writes, *self.expiries):
            self.pipeline.execute_command(*command)
        self.pipeline.execute()

    def _watch_erased(self) -> None:
        """Begin again if what was erased after a look at the list has changed since that look."""
        unwatched = self.erased - self.watched
        keys = [key for key in self.listed if key in unwatched]
        if not keys:
            return
        self.watched.update(keys)
        self.pipeline.watch(*keys)
        if self.pipeline.mget(keys) != [self.listed[key] for key in keys]:
            raise exceptions.WatchError
