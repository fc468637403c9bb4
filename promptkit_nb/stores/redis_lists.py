"""The lists of a store on Redis: the ids of all conversations, those of each user, and all by time and by user.

The lists by time make reading faster. If one does not have as many ids as there are, because a server evicted it or an
earlier version wrote, it is not used, and written anew. If one has more, the server evicted the list of all ids, which
then gets back those of stored conversations. The list by user shows whether the server evicted that of a user.

The list of all ids has a mark. If it is missing, the server may have evicted all lists, or an earlier version wrote:
then, once, all conversations are looked for by their keys.
"""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

import msgspec
from redis import exceptions

from promptkit_nb.stores.layout import stored_time, time_mark

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from promptkit_nb.stores.redis_keys import Keys

T = TypeVar("T")

Command = tuple[str | bytes | int, ...]

AT_ONCE = 1000
SCANNED_AT_ONCE = 10_000
_OF_USER = b"\xff"  # never part of UTF-8 text, and sorted after all of it
_MARK = _OF_USER
_ALL = b"-", b"(" + _MARK
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

TimeKey = Literal["updated_at", "created_at"]
TIME_KEYS: tuple[TimeKey, ...] = ("updated_at", "created_at")


class Listed(NamedTuple):
    """An id in the lists of its user."""

    conversation_id: str
    user_id: str

    @property
    def member(self) -> bytes:
        """The member of the sorted set: the id first, so that ids with a common prefix are adjacent."""
        return self.conversation_id.encode() + _OF_USER + self.user_id.encode()

    @property
    def member_by_user(self) -> bytes:
        """The same with the user first, so that the ids of a user are adjacent."""
        return self.user_id.encode() + _OF_USER + self.conversation_id.encode()

    def matches(self, prefix: str, user_id: str | None) -> bool:
        """Return whether the id has the prefix, and belongs to the user (``None``: any)."""
        return user_id in (None, self.user_id) and self.conversation_id.startswith(prefix)

    @classmethod
    def of(cls, member: bytes) -> Listed:
        """Return the entry of a member of a sorted set."""
        name, _, owner = member.partition(_OF_USER)
        return cls(name.decode(), owner.decode())

    @classmethod
    def of_user(cls, member: bytes) -> Listed:
        """Return the entry of a member of the list by user."""
        owner, _, name = member.partition(_OF_USER)
        return cls(name.decode(), owner.decode())


class Lost(NamedTuple):
    """The ids of stored conversations that a list lacks, and whether the lists should be written anew."""

    ids: list[Listed]
    is_stale: bool


class _Owned(msgspec.Struct):
    """The owner in a record."""

    user_id: str = ""


def time_us(record: bytes, key: TimeKey) -> int:
    """Return a time of a stored record in microseconds; 0 if it cannot be read."""
    text = stored_time(record, time_mark(key)).partition(b'"')[0]
    with suppress(ValueError):
        return (datetime.fromisoformat(text.decode("ascii", "replace")).replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND
    return 0


class RedisLists:
    """The sorted set of all ids, the set of each user's, and the sorted sets of all ids by time and by user."""

    def __init__(self, keys: Keys) -> None:
        """Keep the lists under these keys."""
        self._keys = keys

    def added(self, listed: Listed) -> list[Command]:
        """Return the commands that list an id, and remove it from the lists of version 0.1."""
        return [
            ("ZADD", self._keys("ids"), 0, listed.member),
            *self._of_user(listed),
            *(self._removed(listed, self._keys.old) if self._keys.has_old else ()),
        ]

    def _of_user(self, listed: Listed) -> list[Command]:
        return [
            ("SADD", self._keys(f"u:{listed.user_id}"), listed.conversation_id.encode()),
            ("ZADD", self._by_user, 0, listed.member_by_user),
        ]

    def removed(self, listed: Listed) -> list[Command]:
        """Return the commands that remove an id from the lists."""
        old = self._removed(listed, self._keys.old) if self._keys.has_old else []
        timed: list[Command] = [("ZREM", self.by_time(key), listed.member) for key in TIME_KEYS]
        return [*self._removed(listed, self._keys), ("ZREM", self._by_user, listed.member_by_user), *timed, *old]

    def timed(self, listed: Listed, record: bytes) -> list[Command]:
        """Return the commands that list an id by the times of its record."""
        return [("ZADD", self.by_time(key), time_us(record, key), listed.member) for key in TIME_KEYS]

    def by_time(self, key: TimeKey) -> bytes:
        """Return the key of the sorted set of all ids by this time."""
        return self._keys(f"o:{key}")

    @property
    def _by_user(self) -> bytes:
        """The key of the sorted set of all ids by user."""
        return self._keys("o:user_id")

    def pages(
        self, client: Any, key: TimeKey, size: int, prefix: str, user_id: str | None, *, descending: bool
    ) -> Iterator[list[Listed] | None]:
        """Yield the ids that have the prefix, by time and then by id; ``None`` at the end if this list lacks ids.

        It is read from its beginning each time, so no id that moves in it meanwhile is missed.
        """
        done: set[Listed] = set()
        count = size
        while (found := self._first(client, key, count, descending=descending)) is not None:
            end = found[-1][1] if len(found) == count else None  # ids of the same time may follow
            wanted = [
                (at, *each) for each, at in found if at != end and each not in done and each.matches(prefix, user_id)
            ]
            listed = [Listed(*names) for _, *names in sorted(wanted, reverse=descending)]
            yield from (listed[start : start + size] for start in range(0, len(listed), size))
            if len(found) < count:
                return
            done.update(listed)
            count *= 4
        yield None

    def _first(self, client: Any, key: TimeKey, count: int, *, descending: bool) -> list[tuple[Listed, float]] | None:
        """Return the first ids by a time, each with the time; ``None`` if this list does not have all ids."""
        with client.pipeline() as pipeline:
            pipeline.zscore(self._keys("ids"), _MARK)
            pipeline.zlexcount(self._keys("ids"), *_ALL)
            for each in TIME_KEYS:
                pipeline.zcard(self.by_time(each))
            pipeline.zrange(self.by_time(key), 0, count - 1, desc=descending, withscores=True)
            mark, all_ids, *timed, found = pipeline.execute()
        is_whole = mark is not None and all_ids == timed[TIME_KEYS.index(key)] == max(all_ids, *timed)
        return [(Listed.of(member), score) for member, score in found] if is_whole else None

    def are_few(self, reader: Any, prefix: str, user_id: str | None) -> bool:
        """Return whether a user has few ids, or few ids have this prefix, so that reading all of them is fast."""
        if user_id is not None:
            return int(reader.scard(self._keys(f"u:{user_id}"))) <= AT_ONCE
        return bool(prefix) and int(reader.zlexcount(self._keys("ids"), *_range_of(prefix))) <= AT_ONCE

    def include(self, reader: Any, listed: Sequence[Listed]) -> bool:
        """Return whether all of these are in the list of all ids."""
        return not listed or None not in reader.zmscore(self._keys("ids"), [each.member for each in listed])

    def write_anew(self, client: Any) -> None:
        """Write the lists by time and by user anew, and complete the others.

        Ids that are written meanwhile are left to that writer, or to the next time.
        """
        with suppress(exceptions.WatchError, exceptions.NoPermissionError):
            timed = {key: {*client.zrange(self.by_time(key), 0, -1)} for key in TIME_KEYS}
            by_user = {*client.zrange(self._by_user, 0, -1)}
            members = client.zrangebylex(self._keys("ids"), *_ALL)
            others = set().union(*timed.values(), (Listed.of_user(each).member for each in by_user))
            scanned = set() if (is_marked := self._is_marked(client)) else self._scanned(client)
            others.update(each.member for each in scanned or ())
            members += self._list_again(client, sorted(others.difference(members)))
            for key, found in timed.items():
                if unknown := found.difference(members):
                    client.zrem(self.by_time(key), *unknown)
            if unknown := by_user.difference(Listed.of(member).member_by_user for member in members):
                client.zrem(self._by_user, *unknown)
            for start in range(0, len(members), AT_ONCE):
                self._write_part(client, [Listed.of(member) for member in members[start : start + AT_ONCE]])
            if not is_marked and scanned is not None:
                client.zadd(self._keys("ids"), {_MARK: 0})

    def lost(self, reader: Any, user_id: str | None) -> Lost:
        """Return the ids of stored conversations that the list of all ids, or that of this user, lacks.

        An earlier version leaves ids of deleted conversations in the lists by time and by user.
        """
        if not self._is_marked(reader) and (scanned := self._scanned(reader)) is not None:
            return Lost(sorted(scanned | self._lost_of_user(reader, user_id)), is_stale=True)
        count, by_user = reader.zlexcount(self._keys("ids"), *_ALL), reader.zcard(self._by_user)
        lost = set()
        for key in TIME_KEYS:
            if reader.zcard(self.by_time(key)) > count:
                lost |= self._unlisted(reader, map(Listed.of, reader.zrange(self.by_time(key), 0, -1)))
        if by_user > count:
            lost |= self._unlisted(reader, map(Listed.of_user, reader.zrange(self._by_user, 0, -1)))
        is_stale = by_user != count and not self._keys.has_old
        if is_stale or (user_id is not None and self._lacks_some(reader, user_id)):
            lost |= self._lost_of_user(reader, user_id)
        return Lost(sorted(lost), is_stale or bool(lost))

    def _is_marked(self, reader: Any) -> bool:
        """Return whether the list of all ids was complete when it was begun; with keys of version 0.1, it cannot be."""
        return self._keys.has_old or reader.zscore(self._keys("ids"), _MARK) is not None

    def _lacks_some(self, reader: Any, user_id: str) -> bool:
        """Return whether a user's list has other ids than the list by user."""
        start = user_id.encode() + _OF_USER
        by_user = reader.zlexcount(self._by_user, b"[" + start, b"(" + start + _OF_USER)
        return bool(reader.scard(self._keys(f"u:{user_id}")) != by_user)

    def _lost_of_user(self, reader: Any, user_id: str | None) -> set[Listed]:
        """Return a user's ids that only the list of all ids has."""
        if user_id is None:
            return set()
        everyone = map(Listed.of, reader.zrangebylex(self._keys("ids"), *_ALL))
        known = {member.decode() for member in reader.smembers(self._keys(f"u:{user_id}"))}
        lost = [each for each in everyone if each.user_id == user_id and each.conversation_id not in known]
        return {*chain.from_iterable(self._stored(reader, part) for part in _parts(lost))}

    def _unlisted(self, reader: Any, listed: Iterable[Listed]) -> set[Listed]:
        """Return those of these ids that are not in the list of all ids, and whose conversations are stored."""
        unlisted: set[Listed] = set()
        for part in _parts([*listed]):
            scores = reader.zmscore(self._keys("ids"), [each.member for each in part])
            unlisted.update(
                self._stored(reader, [each for each, score in zip(part, scores, strict=True) if score is None])
            )
        return unlisted

    def _scanned(self, reader: Any) -> set[Listed] | None:
        """Return the ids that only the keys of conversations have, or ``None`` if the user must not look for keys.

        A damaged conversation has no user.
        """
        start = self._keys("")
        names: set[str] = set()
        try:
            for key in reader.scan_iter(match=literal(start) + b"[ah]:*", count=SCANNED_AT_ONCE):
                names.add(key[len(start) + 2 :].decode())
        except exceptions.NoPermissionError:
            return None
        known = reader.zrangebylex(self._keys("ids"), *_ALL)
        names.difference_update(Listed.of(each).conversation_id for each in known)
        found: set[Listed] = set()
        for part in _parts(sorted(names)):
            for name, record in zip(part, reader.mget([self._keys(f"h:{each}") for each in part]), strict=True):
                owned = _Owned()
                with suppress(msgspec.MsgspecError, UnicodeDecodeError):
                    owned = msgspec.json.decode(record or b"{}", type=_Owned)
                found.add(Listed(name, owned.user_id))
        return found

    def _list_again(self, client: Any, members: Sequence[bytes]) -> list[bytes]:
        """List those of these ids whose conversations are stored; return their members."""
        listed: list[bytes] = []
        for part in _parts(members):
            stored = self._stored(client, [Listed.of(member) for member in part])
            with client.pipeline() as pipeline:
                for command in (command for each in stored for command in self.added(each)):
                    pipeline.execute_command(*command)
                pipeline.execute()
            listed += [each.member for each in stored]
        return listed

    def _stored(self, reader: Any, listed: Sequence[Listed]) -> list[Listed]:
        """Return those of some ids whose conversations are stored, at least in part."""
        names = [self._keys(f"{kind}:{each.conversation_id}") for kind in "ha" for each in listed]
        found = reader.mget(names) if names else []
        return [each for at, each in enumerate(listed) if found[at] is not None or found[at + len(listed)] is not None]

    def _write_part(self, client: Any, part: Sequence[Listed]) -> None:
        names = [self._keys(f"h:{each.conversation_id}") for each in part]
        with client.pipeline() as pipeline:
            pipeline.watch(*names)
            records = pipeline.mget(names)
            pipeline.multi()
            for listed, record in zip(part, records, strict=True):
                for command in (*self._of_user(listed), *self.timed(listed, record or b"")):
                    pipeline.execute_command(*command)
            pipeline.execute()

    def find(self, reader: Any, prefix: str, user_id: str | None) -> list[Listed]:
        """Return the ids that have the prefix, of one user or of all, sorted."""
        if not self._keys.has_old:
            return self._find(reader, self._keys, prefix, user_id)
        # the old lists first, so that an id that is moved in between is not missed
        found = {*self._find(reader, self._keys.old, prefix, user_id)}
        return sorted(found.union(self._find(reader, self._keys, prefix, user_id)))

    def find_old(self, reader: Any) -> list[Listed]:
        """Return all ids in the lists of version 0.1."""
        return self._find(reader, self._keys.old, "", None)

    def forget(self, client: Any, gone: Sequence[tuple[Listed, bytes | None]]) -> None:
        """Remove ids of deleted conversations from the lists; each comes with the record that was found instead.

        If one of these records is written meanwhile, its group of ids stays listed until the next attempt.
        """
        for start in range(0, len(gone), AT_ONCE):
            part = gone[start : start + AT_ONCE]
            names = [f"h:{listed.conversation_id}" for listed, _ in part]
            with suppress(exceptions.WatchError, exceptions.NoPermissionError), client.pipeline() as pipeline:
                pipeline.watch(*self._keys.both(names))
                found = [*self._keys.values(pipeline.mget(self._keys.both(names)))]
                pipeline.multi()
                for (listed, before), now in zip(part, found, strict=True):
                    for command in self.removed(listed) if now == before else ():
                        pipeline.execute_command(*command)
                pipeline.execute()

    @staticmethod
    def _find(reader: Any, key: Callable[[str], bytes], prefix: str, user_id: str | None) -> list[Listed]:
        if user_id is not None:
            members = (member.decode() for member in reader.smembers(key(f"u:{user_id}")))
            return [Listed(name, user_id) for name in sorted(members) if name.startswith(prefix)]
        return [Listed.of(member) for member in reader.zrangebylex(key("ids"), *_range_of(prefix))]

    @staticmethod
    def _removed(listed: Listed, key: Callable[[str], bytes]) -> list[Command]:
        return [
            ("ZREM", key("ids"), listed.member),
            ("SREM", key(f"u:{listed.user_id}"), listed.conversation_id.encode()),
        ]


def _range_of(prefix: str) -> tuple[bytes, bytes]:
    """Return the range of the members whose id has this prefix."""
    return (b"[" + prefix.encode(), b"(" + prefix.encode() + 2 * _OF_USER) if prefix else _ALL


def _parts(items: Sequence[T]) -> Iterator[Sequence[T]]:
    return (items[start : start + AT_ONCE] for start in range(0, len(items), AT_ONCE))


def literal(key: bytes) -> bytes:
    """Return a pattern that matches only this key."""
    return re.sub(rb"([*?\[\]\\])", rb"\\\1", key)
