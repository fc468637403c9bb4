"""The rows of ``RedisStore``: their keys, and transactions that start over if someone else wrote in between.

::

    {prefix}format    the format's version
    {prefix}cid       the last conversation number given out
    {prefix}ids       sorted set of ID + 0xff + USER, for listing by prefix
    {prefix}u:USER    set of a user's ids
    {prefix}h:ID      record                          {prefix}a:ID      frame
    {prefix}t:CID     hash of turns by place          {prefix}i:CID     hash of places by turn id
    {prefix}l:SCOPE   account of the ledger

The braces belong to the keys: they decide the slot of a cluster, so all keys of a prefix are in one slot. Every write
to a conversation changes its record, so a transaction watches the records that it read and the accounts it writes.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from redis import Redis, exceptions

from promptkit_nb.codec import FORMAT_VERSION, check_format, decode
from promptkit_nb.errors import PromptKitError, StoreCorruptedError, StoreUnavailableError
from promptkit_nb.stores.redis_client import LOST, address_of, checked_client, client_of, translated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from promptkit_nb.stores.backend import Appending

Command = tuple[str | bytes | int, ...]

_OF_USER = b"\xff"  # never part of UTF-8 text, and sorted after all of it

# Removes an id from the lists of a user who no longer has it, unless its record was written since.
_UNLIST = """
if (redis.call('GET', KEYS[1]) or '') == ARGV[1] then
  redis.call('ZREM', KEYS[2], ARGV[2])
  redis.call('SREM', KEYS[3], ARGV[3])
end
"""


class Listed(NamedTuple):
    """An id in the lists of its user."""

    conversation_id: str
    user_id: str

    @property
    def member(self) -> bytes:
        """The member of the sorted set: the id first, so that ids with a common prefix are adjacent."""
        return self.conversation_id.encode() + _OF_USER + self.user_id.encode()


class RedisLists:
    """The sorted set of all ids, and the set of each user's."""

    def __init__(self, client: Any, key: Callable[[str], bytes]) -> None:
        """Keep the lists under these keys."""
        self._client = client
        self._key = key
        self._unlist = client.register_script(_UNLIST)

    def added(self, listed: Listed) -> list[Command]:
        """Return the commands that list an id."""
        return [
            ("ZADD", self._key("ids"), 0, listed.member),
            ("SADD", self._key(f"u:{listed.user_id}"), listed.conversation_id.encode()),
        ]

    def removed(self, listed: Listed) -> list[Command]:
        """Return the commands that take an id off the lists."""
        return [
            ("ZREM", self._key("ids"), listed.member),
            ("SREM", self._key(f"u:{listed.user_id}"), listed.conversation_id.encode()),
        ]

    def find(self, reader: Any, prefix: str, user_id: str | None) -> list[Listed]:
        """Return the ids that have the prefix, of one user or of all, sorted."""
        if user_id is not None:
            members = (member.decode() for member in reader.smembers(self._key(f"u:{user_id}")))
            return [Listed(name, user_id) for name in sorted(members) if name.startswith(prefix)]
        low = b"[" + prefix.encode() if prefix else b"-"
        high = b"(" + prefix.encode() + 2 * _OF_USER if prefix else b"+"
        found = (member.partition(_OF_USER) for member in reader.zrangebylex(self._key("ids"), low, high))
        return [Listed(name.decode(), owner.decode()) for name, _, owner in found]

    def forget(self, expired: Iterable[tuple[Listed, bytes]]) -> None:
        """Take ids off the lists whose conversation is gone, each given with the record that was found instead."""
        with self._client.pipeline(transaction=False) as pipeline:
            for listed, found in expired:
                keys = [self._key(name) for name in (f"h:{listed.conversation_id}", "ids", f"u:{listed.user_id}")]
                args = [found, listed.member, listed.conversation_id.encode()]
                self._unlist(keys=keys, args=args, client=pipeline)
            pipeline.execute()


@dataclass(slots=True)
class Transaction:
    """What one run of some work has read, and what it is going to write."""

    # Any: the client types every answer as bytes or text or both; here it returns only bytes
    pipeline: Any
    watched: set[bytes] = field(default_factory=set)
    writes: list[Command] = field(default_factory=list)
    expiries: list[Command] = field(default_factory=list)
    frames: dict[str, bytes | None] = field(default_factory=dict)
    unwatched: dict[bytes, bytes | None] = field(default_factory=dict)
    changed: set[bytes] = field(default_factory=set)
    expired: list[tuple[Listed, bytes]] = field(default_factory=list)

    def commit(self) -> None:
        """Write what the work wrote; without writes, just check that all it read was valid at one moment."""
        self._watch_changed()
        if not self.watched and not self.writes:
            return
        self.pipeline.multi()
        for command in (*self.writes, *self.expiries):
            self.pipeline.execute_command(*command)
        self.pipeline.execute()

    def _watch_changed(self) -> None:
        """Start over if a key that is about to change was read without watching it, and has changed since."""
        unwatched = self.changed - self.watched
        keys = [key for key in self.unwatched if key in unwatched]
        if not keys:
            return
        self.watched.update(keys)
        self.pipeline.watch(*keys)
        if self.pipeline.mget(keys) != [self.unwatched[key] for key in keys]:
            raise exceptions.WatchError


T = TypeVar("T")

LISTED_AT_ONCE = 1000
# Appends a turn if record and accounts (KEYS[5] and following) have their former values and the turn is new; returns 1
# if it did. An account's former and new value are two arguments, from ARGV[7] on; it is "" if there is none.
_APPEND = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] or redis.call('HEXISTS', KEYS[3], ARGV[4]) == 1 then return 0 end
for i = 5, #KEYS do if (redis.call('GET', KEYS[i]) or '') ~= ARGV[2 * i - 3] then return 0 end end
redis.call('HSET', KEYS[2], ARGV[3], ARGV[5])
redis.call('HSET', KEYS[3], ARGV[4], ARGV[3])
redis.call('SET', KEYS[1], ARGV[2])
if ARGV[6] ~= '0' then for i = 1, 4 do redis.call('PEXPIRE', KEYS[i], ARGV[6]) end end
for i = 5, #KEYS do redis.call('SET', KEYS[i], ARGV[2 * i - 2]) end
return 1
"""


@dataclass(frozen=True, slots=True)
class Owner:
    """The part of a record that tells whose it is."""

    user_id: str


class RedisBackend:
    """Rows on a Redis server; safe to share between threads, and with a forked child."""

    def __init__(
        self,
        url: str,
        *,
        password: str | None,
        prefix: str,
        client: Redis | None,
        timeout_s: float,
        ttl_s: float | None,
    ) -> None:
        """Connect, and make an empty prefix a store; the server forgets a conversation after ``ttl_s``."""
        self._ttl_s = ttl_s
        self._tag = f"{{{prefix}}}".encode()
        self._owns_client = client is None
        # Any: as above
        self._client: Any = client_of(url, password, timeout_s) if client is None else checked_client(client)
        self.where = address_of(self._client)
        self._closed = False
        self._local = threading.local()
        self._append = self._client.register_script(_APPEND)
        self._lists = RedisLists(self._client, self._key)
        with translated(self.where):
            self._client.setnx(self._key("format"), FORMAT_VERSION)
            self._check_format(self._client.get(self._key("format")))

    def run(self, work: Callable[[], T], *, write: bool) -> T:  # noqa: ARG002 - it makes no difference here
        """Run the work, and run it again whenever someone else wrote what it had read."""
        while True:
            self._check_open()
            with translated(self.where):
                try:
                    return self._run_once(work)
                except exceptions.WatchError as error:
                    if isinstance(error.__context__, LOST):  # a lost connection: it may have been written or not
                        raise error.__context__ from None

    def keep(self, conversation_id: str, cid: int) -> None:
        """Set when the server drops the conversation, or that it never does."""
        for key in self._keys_of(conversation_id, cid):
            expiry = ("PERSIST", key) if self._ttl_s is None else ("PEXPIRE", key, _ms(self._ttl_s))
            self._now.expiries.append(expiry)

    def change_counter(self) -> None:
        """Return None: this backend has no change counter."""

    def append(self, appending: Appending) -> bool:
        """Append a turn if record and accounts are unchanged and the turn is new, in one round trip."""
        conversation_id, _, former, record, cid, place, turn_id, line, accounts = appending
        keys = self._keys_of(conversation_id, cid)
        args: list[str | bytes | int] = [former, record, place, turn_id.encode(), line, _ms(self._ttl_s)]
        for scope, former_account, changed in accounts:
            keys.append(self._key(f"l:{scope}"))
            args += (former_account or b"", changed)
        return bool(self._append(keys=keys, args=args))

    def record(self, conversation_id: str) -> bytes | None:
        """Return the record of a conversation."""
        return self._watched(f"h:{conversation_id}")

    def put_record(self, conversation_id: str, user_id: str, value: bytes) -> None:
        """Write the record of a conversation, findable by its user."""
        self._write("SET", self._key(f"h:{conversation_id}"), value)
        self._now.writes += self._lists.added(Listed(conversation_id, user_id))

    def records(self, prefix: str, user_id: str | None) -> Iterator[tuple[str, bytes]]:
        """Yield id and record of the conversations whose id has the prefix, of one user or of all."""
        listed = self._lists.find(self._reader, prefix, user_id)
        for start in range(0, len(listed), LISTED_AT_ONCE):
            part = listed[start : start + LISTED_AT_ONCE]
            records = [self._key(f"h:{each.conversation_id}") for each in part]
            frames = [self._key(f"a:{each.conversation_id}") for each in part]
            values = self._reader.mget(records + frames)  # in one call, so that each record has its own frame
            for index, each in enumerate(part):
                record, frame = values[index], values[index + len(part)]
                if (
                    record is None or decode(record, Owner, each.conversation_id).user_id != each.user_id
                ):  # it has expired, but is still listed
                    self._now.expired.append((each, record or b""))
                    continue
                self._now.unwatched[records[index]] = record
                self._now.frames[each.conversation_id] = frame
                yield each.conversation_id, record

    def ids(self) -> list[str]:
        """Return the ids of all conversations, even if a record cannot be read or has expired."""
        return [each.conversation_id for each in self._lists.find(self._reader, "", None)]

    def frame(self, conversation_id: str) -> bytes | None:
        """Return the frame of a conversation."""
        frames = self._now.frames
        if conversation_id not in frames:
            frames[conversation_id] = self._reader.get(self._key(f"a:{conversation_id}"))
        return frames[conversation_id]

    def put_frame(self, conversation_id: str, value: bytes) -> None:
        """Write the frame of a conversation."""
        self._now.frames[conversation_id] = value
        self._write("SET", self._key(f"a:{conversation_id}"), value)

    def erase(self, conversation_id: str, cid: int, user_id: str) -> None:
        """Delete a conversation: record, frame, turns, and its entries in the lists."""
        self._now.changed.add(self._key(f"h:{conversation_id}"))
        self._write("UNLINK", *self._keys_of(conversation_id, cid))
        self._now.writes += self._lists.removed(Listed(conversation_id, user_id))

    def next_cid(self) -> int:
        """Return a number that was never used for a conversation."""
        return int(self._reader.incr(self._key("cid")))

    def turns(self, cid: int) -> Mapping[int, bytes]:
        """Return all turns by place."""
        return {int(place): value for place, value in self._reader.hgetall(self._key(f"t:{cid}")).items()}

    def turns_at(self, cid: int, places: Iterable[int]) -> list[bytes | None]:
        """Return the turns at these places."""
        wanted = list(places)
        return list(self._reader.hmget(self._key(f"t:{cid}"), wanted)) if wanted else []

    def place_of(self, cid: int, turn_id: str) -> int | None:
        """Return the place of the turn with this id."""
        found = self._reader.hget(self._key(f"i:{cid}"), turn_id.encode())
        return None if found is None else int(found)

    def put_turn(self, cid: int, place: int, turn_id: str, value: bytes) -> None:
        """Write a turn."""
        self._write("HSET", self._key(f"t:{cid}"), place, value)
        self._write("HSET", self._key(f"i:{cid}"), turn_id.encode(), place)

    def copy_turns(self, cid: int, new_cid: int) -> None:
        """Copy all turns to another conversation, to the same places."""
        for kind in "ti":
            self._write("COPY", self._key(f"{kind}:{cid}"), self._key(f"{kind}:{new_cid}"))

    def accounts(self, scopes: Sequence[str]) -> list[bytes | None]:
        """Return the accounts of these scopes; those that are written are compared again before the commit."""
        keys = [self._key(f"l:{scope}") for scope in scopes]
        stored: list[bytes | None] = self._reader.mget(keys) if keys else []
        self._now.unwatched.update(zip(keys, stored, strict=True))
        return stored

    def put_account(self, scope: str, value: bytes) -> None:
        """Write the account of a scope."""
        key = self._key(f"l:{scope}")
        self._now.changed.add(key)
        self._write("SET", key, value)

    def close(self) -> None:
        """Close the connections, unless they are the caller's."""
        self._closed = True
        if self._owns_client:  # other threads may finish what they are doing
            self._client.connection_pool.disconnect(inuse_connections=False)

    @property
    def closed(self) -> bool:
        """Whether ``close()`` was called."""
        return self._closed

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
        with self._client.pipeline() as pipeline:
            self._local.transaction = now = Transaction(pipeline)
            try:
                result = self._worked(work)
            except LOST:
                pipeline.watching = False  # the connection is gone, so there is nothing to unwatch
                raise
        if now.expired:
            self._lists.forget(now.expired)
        return result

    def _worked(self, work: Callable[[], T]) -> T:
        try:
            result = work()
        except PromptKitError:
            self._now.writes.clear()
            self._now.expiries.clear()
            self._now.commit()  # the error counts only if nothing changed between two reads
            raise
        self._now.commit()
        return result

    def _key(self, name: str) -> bytes:
        return self._tag + name.encode()

    def _keys_of(self, conversation_id: str, cid: int) -> list[bytes]:
        return [self._key(name) for name in (f"h:{conversation_id}", f"t:{cid}", f"i:{cid}", f"a:{conversation_id}")]

    def _watched(self, name: str) -> bytes | None:
        key = self._key(name)
        self._now.pipeline.watch(key)
        self._now.watched.add(key)
        value: bytes | None = self._reader.get(key)
        return value

    def _write(self, *command: str | bytes | int) -> None:
        self._now.writes.append(command)

    def _check_open(self) -> None:
        if self._closed:
            raise StoreUnavailableError(f"This RedisStore at {self.where} is closed; open it again.")

    def _check_format(self, stored: Any) -> None:
        if stored is None or not stored.isdigit():
            raise StoreCorruptedError(
                f"The Redis server at {self.where} has other data in {self._key('format').decode()!r}: {stored!r}. "
                "Nothing was changed; give a prefix that is not in use."
            )
        check_format(int(stored), f"The store in Redis at {self.where}")


def _ms(ttl_s: float | None) -> int:
    return 0 if ttl_s is None else max(1, round(ttl_s * 1000))
