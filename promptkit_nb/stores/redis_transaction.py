"""Transactions of a store on Redis: the reads and pending writes of one, and how work is run in them."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from redis import exceptions

from promptkit_nb.errors import PromptKitError, StoreUnavailableError
from promptkit_nb.stores.layout import ASIDE
from promptkit_nb.stores.redis_client import LOST, MOVING, Node, address_of, translated
from promptkit_nb.stores.redis_keys import Keys
from promptkit_nb.stores.redis_lists import Command, Listed, RedisLists
from promptkit_nb.stores.redis_status import ServerStatus

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from redis import Redis, RedisCluster

T = TypeVar("T")

MOST_MOVES = 5  # moves of the slot to another node, during one call
PAUSE_S = 0.02  # between attempts while the slot is being moved


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
    lacks_times: bool = False  # whether a list by time or by user was found to lack ids
    lacks_ids: bool = False  # whether another list was found to lack some

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


class Transactions:
    """Runs work as transactions on a Redis server; safe to share between threads, and with a forked child."""

    def __init__(self, client: Redis | RedisCluster, prefix: str, timeout_s: float, *, is_ours: bool) -> None:
        """Find the node that has the keys of the prefix; a client that ``is_ours`` may be closed."""
        self._keys = Keys(prefix)
        self._node = Node(client, self._keys("format"), is_ours=is_ours)
        self._timeout_s = timeout_s
        self._closed = False
        self._local = threading.local()
        self._lists = RedisLists(self._keys)
        with translated("the cluster's nodes", self._node, self._keys):
            self.where = address_of(self._client)
        self._status = ServerStatus(self.where)

    def run(self, work: Callable[[], T], *, write: bool) -> T:  # noqa: ARG002 - it makes no difference here
        """Run the work, and run it again whenever another client wrote keys that it had read."""
        moves, until = 0, time.monotonic() + self._timeout_s
        while True:
            self._check_open()
            with translated(self.where, self._node, self._keys):
                try:
                    return self._run_once(work)
                except exceptions.WatchError as error:
                    if isinstance(error.__context__, LOST):  # a lost connection: it may have been written or not
                        self._node.lost()
                        raise error.__context__ from None
                except exceptions.MovedError as moved:
                    moves += 1
                    if moves > MOST_MOVES or not self._node.follow(moved):
                        raise
                    self.where = address_of(self._client)
                except MOVING:
                    if time.monotonic() > until:
                        raise
                    time.sleep(PAUSE_S)
                except LOST:
                    self._node.lost()
                    raise

    def now(self) -> datetime:
        """Return the server's time."""
        if getattr(self._local, "transaction", None) is not None:
            return self._status.now(self._reader)
        return self.run(self.now, write=False)

    def check_keeps(self, *, expiring: bool) -> None:
        """Raise ``StoreUnavailableError`` if the server may evict what is about to be written."""
        self._status.check_keeps(self._reader, expiring=expiring)

    def keeps(self, *, expiring: bool) -> bool:
        """Return whether the server keeps keys with this expiry, or is not known to evict them."""
        return self._status.keeps(self._reader, expiring=expiring)

    def close(self) -> None:
        """Close the connections, unless they are the caller's."""
        self._closed = True
        self._node.close()

    @property
    def closed(self) -> bool:
        """Whether ``close()`` was called."""
        return self._closed

    @property
    def _client(self) -> Redis:
        return self._node.client

    @property
    def _now(self) -> Transaction:
        """The transaction of this thread."""
        transaction: Transaction = self._local.transaction
        return transaction

    @property
    def _reader(self) -> Any:
        """What to read with: the watching connection if there is one, so that a run needs only one connection."""
        return self._now.pipeline if self._now.watched else self._client

    def _run_once(self, work: Callable[[], T]) -> T:
        client = self._client
        with client.pipeline() as pipeline:
            self._local.transaction = now = Transaction(pipeline)
            try:
                result = self._worked(work)
            except LOST:
                pipeline.watching = False  # the connection is gone, so there is nothing to unwatch
                raise
            finally:
                self._local.transaction = None
        if now.gone:
            self._lists.forget(client, now.gone)
        if now.lacks_times and self._status.keeps(client, expiring=False):
            self._lists.write_anew(client)
        return result

    def _worked(self, work: Callable[[], T]) -> T:
        try:
            result = work()
        except PromptKitError:
            for commands in (self._now.moves, self._now.writes, self._now.expiries):
                commands.clear()
            self._now.commit(self._keys)  # the error may come from a change between two reads; then start over
            raise
        self._now.commit(self._keys)
        return result

    def _write(self, *command: str | bytes | int) -> None:
        self._now.writes.append(command)

    def _check_open(self) -> None:
        if self._closed:
            raise StoreUnavailableError(f"This RedisStore at {self.where} is closed; open it again.")
