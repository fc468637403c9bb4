"""The rows of ``RedisStore``, and transactions that start over if another client wrote in between.

Names of keys, without the prefix that ``redis_keys`` adds:

::

    format     the format's version; set once all keys of version 0.1 have moved
    ids        sorted set of ID + 0xff + USER, for listing by prefix
    o:TIME     sorted set of the same by their times, TIME is created_at or updated_at
    u:USER     set of a user's ids
    h:ID       record                          a:ID      frame
    t:CID      hash of turns by place          i:CID     hash of places by turn id
    l:SCOPE    account of the ledger           s:NAME    a note of the store itself
    p:CID      log of what its turns cost      paid      set of CID + 0xff + USER that have a log
    k:KEY      sorted set of CID:PLACE:ID, by age: entries of the index
    kept       amounts of deleted turns, by day and user
    counted    hashes of these turns           imported  kept amounts that were added from an export

The field ``of`` in ``t:CID`` holds the conversation's id. CID is random, because a counter that the server evicted
would start again at numbers in use. Every write to a conversation changes its record, so a transaction watches the
records that it read and the accounts that it writes. A conversation with keys of version 0.1 is read from those keys,
and moved in the transaction that first writes it.
"""

from __future__ import annotations

import secrets
import warnings
from functools import partial
from typing import TYPE_CHECKING, Any

from redis import Redis, RedisCluster, exceptions

from promptkit_nb.codec import FORMAT_VERSION, check_format, decode
from promptkit_nb.errors import StoreCorruptedError
from promptkit_nb.stores.checks import incomplete
from promptkit_nb.stores.index import Entry
from promptkit_nb.stores.kept_usage import log_line
from promptkit_nb.stores.layout import sorted_records
from promptkit_nb.stores.redis_client import checked_client, client_of, translated
from promptkit_nb.stores.redis_keys import Numbered
from promptkit_nb.stores.redis_lists import AT_ONCE, SCANNED_AT_ONCE, Listed, literal, time_us
from promptkit_nb.stores.redis_transaction import Owner, Transactions
from promptkit_nb.text.plain_text import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from promptkit_nb.secret import Secret
    from promptkit_nb.stores.backend import Appending, KeptKind
    from promptkit_nb.stores.base import SortKey
    from promptkit_nb.stores.redis_lists import TimeKey


FEW = 50  # as many records more than asked for are read at once
MOST_AT_ONCE = 10_000
_OF = b"of"
_OF_USER = b"\xff"
# Appends a turn if its conversation's record and its accounts (KEYS[7] and following) are unchanged, none of its keys
# is missing (ARGV[7] is the expected value of the field "of"), and the turn is new; returns 1 if it did. ARGV[6] is
# when the server deletes the conversation, 0 for never. KEYS[5] is the turn's key in the index; ARGV[8] and ARGV[9] are
# age and member of its entry, with "" as member if it has no entry. KEYS[6] is the list by time; ARGV[10] and ARGV[11]
# are time and member. From ARGV[12] on, each account has two arguments: the previous value ("" if none) and the new
# one. The last key is the log of what the conversation's turns cost, and the last argument is the line to add to it.
_APPEND = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] or redis.call('HEXISTS', KEYS[4], ARGV[4]) == 1 then return 0 end
if redis.call('HGET', KEYS[3], 'of') ~= ARGV[7] or redis.call('EXISTS', KEYS[2]) == 0 then return 0 end
if ARGV[3] ~= '0' and redis.call('EXISTS', KEYS[4]) == 0 then return 0 end
for i = 7, #KEYS - 1 do if (redis.call('GET', KEYS[i]) or '') ~= ARGV[2 * i - 2] then return 0 end end
redis.call('HSET', KEYS[3], ARGV[3], ARGV[5])
redis.call('HSET', KEYS[4], ARGV[4], ARGV[3])
redis.call('SET', KEYS[1], ARGV[2])
redis.call('ZADD', KEYS[6], ARGV[10], ARGV[11])
if ARGV[6] ~= '0' then for i = 1, 4 do redis.call('PEXPIREAT', KEYS[i], ARGV[6]) end end
for i = 7, #KEYS - 1 do redis.call('SET', KEYS[i], ARGV[2 * i - 1]) end
redis.call('APPEND', KEYS[#KEYS], ARGV[#ARGV])
if ARGV[9] ~= '' then
  redis.call('ZADD', KEYS[5], ARGV[8], ARGV[9])
  if ARGV[6] ~= '0' then redis.call('PEXPIREAT', KEYS[5], ARGV[6]) else redis.call('PERSIST', KEYS[5]) end
end
return 1
"""


class RedisBackend(Transactions):
    """Rows on a Redis server, by key."""

    def __init__(
        self,
        url: Secret | None,
        *,
        password: Secret | None,
        prefix: str,
        client: Redis | RedisCluster | None,
        timeout_s: float,
    ) -> None:
        """Connect, and make an empty prefix a store."""
        given = client_of(url, password, timeout_s) if client is None else checked_client(client)
        super().__init__(given, prefix, timeout_s, is_ours=client is None)
        self._may_script = True
        with translated("the cluster's nodes", self._node, self._keys):
            self._append = self._client.register_script(_APPEND)
        self.run(self._open, write=False)

    def keep(self, conversation_id: str, cid: int, lifetime_s: float | None) -> None:
        """Write the field ``of``, and when the server deletes the conversation (``None`` for never).

        All keys expire at the same moment, so that a conversation is never left in part.
        """
        self._now.writes.append(("HSET", self._keys(f"t:{cid}"), _OF, conversation_id.encode()))
        if lifetime_s is not None:
            at = self._expiry_ms(lifetime_s)
            self._now.expiries += [("PEXPIREAT", key, at) for key in self._keys_of(conversation_id, cid)]

    def change_counter(self) -> None:
        """Return None: this backend has no change counter."""

    def append(self, appending: Appending) -> bool:
        """Append a turn if record and accounts are unchanged and the turn is new, in one round trip.

        If the user may not run scripts, this always returns False.
        """
        if not self._may_script:
            return False
        conversation_id, user_id, previous, record, cid, place, turn_id, line, accounts, lifetime_s, entry = appending
        keys = [*self._keys_of(conversation_id, cid), self._keys(f"k:{entry.key if entry else ''}")]
        at = 0 if lifetime_s is None else self._expiry_ms(lifetime_s)
        args: list[str | bytes | int] = [previous, record, place, turn_id.encode(), line, at, conversation_id.encode()]
        args += (entry.at_us, _member_of(entry)) if entry else (0, "")
        keys.append(self._lists.by_time("updated_at"))
        args += (time_us(record, "updated_at"), Listed(conversation_id, user_id).member)
        for scope, former_account, changed in accounts:
            keys.append(self._keys(f"l:{scope}"))
            args += (former_account or b"", changed)
        keys.append(self._keys(f"p:{cid}"))
        args.append(log_line(user_id, line))
        try:
            return bool(self._append(keys=keys, args=args, client=self._client))
        except exceptions.NoPermissionError:
            self._may_script = False
            return False

    def record(self, conversation_id: str) -> bytes | None:
        """Return the record of a conversation."""
        name = f"h:{conversation_id}"
        keys = self._keys.both([name])
        self._now.pipeline.watch(*keys)
        self._now.watched.add(name)
        value, _ = self._picked(conversation_id, [self._reader.get(key) for key in keys])  # mget hides other types
        if value is None and self._reader.exists(*self._keys.both([f"a:{conversation_id}"])):
            raise incomplete(conversation_id, self.where)
        return value

    def put_record(self, conversation_id: str, user_id: str, value: bytes) -> None:
        """Write the record of a conversation, findable by its user."""
        self._move(conversation_id)
        self._now.changed.add(f"h:{conversation_id}")
        self._write("SET", self._keys(f"h:{conversation_id}"), value)
        listed = Listed(conversation_id, user_id)
        self._now.writes += [*self._lists.added(listed), *self._lists.timed(listed, value)]

    def records(self, prefix: str, user_id: str | None) -> Iterator[tuple[str, bytes]]:
        """Yield id and record of the conversations whose id has the prefix, of one user or of all.

        The record is empty if the server has evicted it, but not the rest of the conversation.
        """
        yield from self._records_of_listed(self._find(prefix, user_id))

    def records_of(self, conversation_ids: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        """Yield id and record of each of these conversations that exists."""
        for start in range(0, len(conversation_ids), AT_ONCE):
            part = conversation_ids[start : start + AT_ONCE]
            names = [f"h:{each}" for each in part]
            found = self._reader.mget(self._keys.both(names))
            width = len(found) // len(names)
            for index, each in enumerate(part):
                record, _ = self._picked(each, found[index * width : (index + 1) * width])
                self._now.unwatched[names[index]] = record
                if record is not None:
                    yield each, record

    def sorted_records(
        self, sort_by: SortKey, prefix: str, user_id: str | None, *, descending: bool, most: int | None
    ) -> Iterator[tuple[str, bytes]]:
        """Yield the same as ``records``, ordered by a key and then by id; about ``most`` of many are read."""
        if most is None or self._keys.has_old or self._lists.are_few(self._reader, prefix, user_id):
            yield from sorted_records(self.records(prefix, user_id), sort_by, descending=descending)
        elif sort_by == "conversation_id":
            listed = sorted(self._find(prefix, user_id), reverse=descending)
            for start in range(0, len(listed), FEW + most):
                yield from self._records_of_listed(listed[start : start + FEW + most])
        else:
            yield from self._by_time(sort_by, prefix, user_id, descending=descending, most=most)

    def _by_time(
        self, key: TimeKey, prefix: str, user_id: str | None, *, descending: bool, most: int
    ) -> Iterator[tuple[str, bytes]]:
        """Yield records in the order of a list by time; if it lacks ids, all records are read instead."""
        done: set[str] = set()
        size = FEW + min(most, MOST_AT_ONCE)  # the server counts with 64 bits
        for page in self._lists.pages(self._client, key, size, prefix, user_id, descending=descending):
            known = len(self._now.gone)
            records = [*self._records_of_listed(page or ())]
            if page is None or not self._lists.include(self._reader, [each for each, _ in self._now.gone[known:]]):
                self._now.lacks_times = True
                everything = sorted_records(self.records(prefix, user_id), key, descending=descending)
                yield from (each for each in everything if each[0] not in done)
                return
            done.update(name for name, _ in records)
            yield from records

    def ids(self, prefix: str = "", user_id: str | None = None) -> list[str]:
        """Return the ids that have the prefix, even if a record cannot be read or has expired."""
        return [each.conversation_id for each in self._find(prefix, user_id)]

    def ids_from(self, conversation_id: str, user_id: str | None = None) -> tuple[list[str], bool]:
        """Return the ids from this one on; there are no more."""
        return [each for each in self.ids("", user_id) if each >= conversation_id], False

    def _find(self, prefix: str, user_id: str | None) -> list[Listed]:
        """Return the ids that have the prefix, of one user or of all, sorted; warn if the server lost their list."""
        found = self._lists.find(self._reader, prefix, user_id)
        lost, is_stale = self._lists.lost(self._reader, user_id)
        self._now.lacks_times |= is_stale
        if not lost:
            return found
        if not self._now.lacks_ids:
            warnings.warn(
                f"The Redis server at {self.where} has lost a list of the conversations of this store: "
                f"{counted(len(lost), 'id')} were found elsewhere, and are listed again unless it still evicts. "
                "It may have lost conversations, too. Change the setting: CONFIG SET maxmemory-policy noeviction",
                stacklevel=2,
            )
        self._now.lacks_ids = True
        return sorted({*found, *(each for each in lost if each.matches(prefix, user_id))})

    def frame(self, conversation_id: str) -> bytes | None:
        """Return the frame of a conversation."""
        frames = self._now.frames
        if conversation_id not in frames:
            (frames[conversation_id],) = self._values([f"a:{conversation_id}"])
        return frames[conversation_id]

    def frames(self, conversation_ids: Sequence[str]) -> Mapping[str, bytes | None]:
        """Return the frames of conversations by id."""
        return {each: self.frame(each) for each in conversation_ids}

    def put_frame(self, conversation_id: str, value: bytes) -> None:
        """Write the frame of a conversation."""
        self._now.frames[conversation_id] = value
        self._write("SET", self._keys(f"a:{conversation_id}"), value)

    def erase(self, conversation_id: str, cid: int, user_id: str) -> None:
        """Delete a conversation: record, frame, turns, and its entries in the lists."""
        self._now.changed.add(f"h:{conversation_id}")
        self._write("UNLINK", *self._keys.both(Numbered(conversation_id, cid).names), self._keys(f"p:{cid}"))
        self._write("SREM", self._keys("paid"), _paid_member(cid, user_id))
        self._now.writes += self._lists.removed(Listed(conversation_id, user_id))

    def erase_rest(self) -> bool:
        """Return False: the server deletes long conversations in the background."""
        return False

    def next_cid(self) -> int:
        """Return a random 62-bit number for a new conversation."""
        return 1 << 62 | secrets.randbits(62)

    def turns(self, cid: int) -> Mapping[int, bytes]:
        """Return all turns by place."""
        found = self._reader.hgetall(self._key_of("t", cid))
        self._check_owner(cid, found.pop(_OF, None))
        return {int(place): value for place, value in found.items()}

    def turns_at(self, cid: int, places: Iterable[int]) -> list[bytes | None]:
        """Return the turns at these places."""
        wanted = list(places)
        if not wanted:
            return []
        found: list[bytes | None] = self._reader.hmget(self._key_of("t", cid), [*wanted, _OF])
        self._check_owner(cid, found.pop())
        return found

    def place_of(self, cid: int, turn_id: str) -> int | None:
        """Return the place of the turn with this id."""
        turns, places = self._key_of("t", cid), self._key_of("i", cid)
        found = self._reader.hget(places, turn_id.encode())
        if found is not None:
            return int(found)
        conversation_id, owner = self._now.owners.get(cid, ("", None))
        if owner is not None and owner.has_turns and self._reader.exists(turns, places) < len((turns, places)):
            raise incomplete(conversation_id, self.where)
        self._check_owner(cid, self._reader.hget(turns, _OF))
        return None

    def put_turn(self, cid: int, place: int, turn_id: str, value: bytes) -> None:
        """Write a turn."""
        self._write("HSET", self._keys(f"t:{cid}"), place, value)
        self._write("HSET", self._keys(f"i:{cid}"), turn_id.encode(), place)

    def log_paid(self, cid: int, user_id: str, line: bytes) -> None:
        """Add what a turn cost to the log of its conversation."""
        self._write("APPEND", self._keys(f"p:{cid}"), log_line(user_id, line))

    def list_paid(self, cid: int, user_id: str) -> None:
        """Register that a conversation has a log of what its turns cost; the log never expires."""
        self._write("SADD", self._keys("paid"), _paid_member(cid, user_id))

    def unlisted_logs(self, user_id: str | None, *, forget: bool) -> list[tuple[str, bytes]]:
        """Return user and log of expired conversations, and delete the logs if ``forget`` is set."""
        logged = [_paid_of(each) for each in self._client.smembers(self._keys("paid"))]  # before the conversations
        logged = [each for each in logged if user_id in (None, each[1])]
        alive = {self._cid_of(each, record) for each, record in (self.records("", user_id) if logged else ())}
        gone = [each for each in logged if each[0] not in alive]
        if not gone:
            return []
        logs = self._reader.mget([self._keys(f"p:{cid}") for cid, _ in gone])
        for cid, owner in gone if forget else ():
            self._now.pipeline.watch(self._keys(f"p:{cid}"))
            self._now.watched.add(f"p:{cid}")
            self._write("UNLINK", self._keys(f"p:{cid}"))
            self._write("SREM", self._keys("paid"), _paid_member(cid, owner))
        return [(owner, log or b"") for (_, owner), log in zip(gone, logs, strict=True)]

    @staticmethod
    def _cid_of(conversation_id: str, record: bytes) -> int | None:
        try:
            return decode(record, Owner, conversation_id).cid
        except StoreCorruptedError:
            return None

    def copy_turns(self, cid: int, new_cid: int) -> None:
        """Copy all turns to another conversation, to the same places."""
        if cid in self._now.owners:
            self._move(self._now.owners[cid][0])
        for kind in "ti":
            self._write("COPY", self._keys(f"{kind}:{cid}"), self._keys(f"{kind}:{new_cid}"))

    def accounts(self, scopes: Sequence[str]) -> list[bytes | None]:
        """Return the accounts of these scopes; those that are written are compared again before the commit."""
        names = [f"l:{scope}" for scope in scopes]
        stored = self._values(names)
        self._now.unwatched.update(zip(names, stored, strict=True))
        return stored

    def put_account(self, scope: str, value: bytes) -> None:
        """Write the account of a scope."""
        self._now.changed.add(f"l:{scope}")
        self._put(f"l:{scope}", value)

    def note(self, name: str) -> bytes | None:
        """Return the store's own note of this name."""
        return self._values([f"s:{name}"])[0]

    def put_note(self, name: str, value: bytes) -> None:
        """Save a note of the store under this name."""
        self._put(f"s:{name}", value)

    def entries(self, key: str) -> list[Entry]:
        """Return the entries of a key of the index, oldest first."""
        found = []
        for member, at_us in self._reader.zrange(self._keys(f"k:{key}"), 0, -1, withscores=True):
            cid, place, conversation_id = member.decode().split(":", 2)
            found.append(Entry(key, int(at_us), int(cid), int(place), conversation_id))
        return found

    def put_entry(self, entry: Entry, lifetime_s: float | None) -> None:
        """Write an entry of the index; all entries of a key expire together with the newest one."""
        key = self._keys(f"k:{entry.key}")
        self._write("ZADD", key, entry.at_us, _member_of(entry))
        at = None if lifetime_s is None else self._expiry_ms(lifetime_s)
        self._now.expiries.append(("PERSIST", key) if at is None else ("PEXPIREAT", key, at))

    def drop_entry(self, entry: Entry) -> None:
        """Delete an entry of the index, if it is there."""
        self._write("ZREM", self._keys(f"k:{entry.key}"), _member_of(entry))

    def move_old(self) -> int:
        """Move all keys of version 0.1; return the number of conversations moved."""
        if not self._keys.has_old:
            return 0
        ids = self.run(lambda: self._lists.find_old(self._reader), write=False)
        moved = sum(self.run(partial(self._move_listed, each), write=True) for each in ids)
        with translated(self.where, self._node, self._keys):
            for kind in "ls":  # accounts and notes have no list
                for key in self._client.scan_iter(
                    match=literal(self._keys.old(f"{kind}:")) + b"*", count=SCANNED_AT_ONCE
                ):
                    self._client.renamenx(key, self._keys.renamed(key))
            rest = self._client.scan_iter(match=literal(self._keys.old("")) + b"*", count=SCANNED_AT_ONCE)
            if {*rest} <= {self._keys.old("format"), self._keys.old("cid")}:
                self._client.setnx(self._keys("format"), FORMAT_VERSION)
                self._client.unlink(self._keys.old("format"), self._keys.old("cid"))
                self._keys.has_old = False
        return moved

    def erase_damaged(self, conversation_id: str, user_id: str | None) -> bool:
        """Delete the rest of a conversation with a missing or damaged record; return False if the id is not listed.

        Its turns are found by their field ``of``, which version 0.1 did not write.
        """
        listed = [each for each in self._find(conversation_id, user_id) if each.conversation_id == conversation_id]
        for each in listed:
            self._now.writes += self._lists.removed(each)
        if listed:
            self._write("UNLINK", *self._keys.both([f"h:{conversation_id}", f"a:{conversation_id}"]))
            for key in self._client.scan_iter(match=literal(self._keys("t:")) + b"*", count=SCANNED_AT_ONCE):
                if self._client.hget(key, _OF) == conversation_id.encode():
                    cid = int(key.rpartition(b":")[2])
                    self._write("UNLINK", key, self._keys(f"i:{cid}"))
        return bool(listed)

    def checkpoint(self) -> bool:
        """Return True: no work is postponed."""
        return True

    def kept_rows(self, kind: KeptKind, names: Sequence[str] | None = None) -> Mapping[str, bytes]:
        """Return the rows of this kind by name, or those with these names."""
        key = self._keys(kind)
        self._now.pipeline.watch(key)
        self._now.watched.add(kind)
        if names is None:
            return {name.decode(): value for name, value in self._reader.hgetall(key).items()}
        found = self._reader.hmget(key, [name.encode() for name in names]) if names else []
        return {name: value for name, value in zip(names, found, strict=True) if value is not None}

    def put_kept_row(self, kind: KeptKind, name: str, value: bytes | None) -> None:
        """Write a row, or delete it if the value is ``None``."""
        if value is None:
            self._write("HDEL", self._keys(kind), name.encode())
        else:
            self._write("HSET", self._keys(kind), name.encode(), value)

    def _open(self) -> None:
        """Make an empty prefix a store; a prefix of version 0.1 keeps its format until all of its keys have moved."""
        client = self._client
        stored, old = client.get(self._keys("format")), None
        try:
            old = client.get(self._keys.old("format"))
        except exceptions.NoPermissionError:
            self._keys.has_old = stored is None and self._sees_old_keys(client)
        if old is not None:
            self._check_format(old, self._keys.old("format"))
            self._keys.has_old = True
        if stored is None and not self._keys.has_old:
            client.setnx(self._keys("format"), FORMAT_VERSION)
            stored = client.get(self._keys("format"))
        if stored is not None or not self._keys.has_old:
            self._check_format(stored, self._keys("format"))
        self._status.now(client)

    def _sees_old_keys(self, client: Redis) -> bool:
        """Return whether there are keys of version 0.1, for a user who may list but not read them."""
        try:
            return any(client.scan_iter(match=literal(self._keys.old("format")), count=SCANNED_AT_ONCE))
        except exceptions.NoPermissionError:
            warnings.warn(
                f"The user {self._node.user!r} of the Redis server at {self.where} can neither read nor find keys of "
                f"version 0.1 ({self._keys.old_pattern}). If this prefix was used with it, call "
                "RedisStore(…).move_old_keys() once, as a user who may.",
                stacklevel=2,
            )
            return False

    def _records_of_listed(self, listed: Sequence[Listed]) -> Iterator[tuple[str, bytes]]:
        for start in range(0, len(listed), AT_ONCE):
            part = listed[start : start + AT_ONCE]
            names = [f"{kind}:{each.conversation_id}" for kind in "ha" for each in part]
            # in one call, so that each record has its own frame
            found = self._reader.mget(self._keys.both(names))
            width = len(found) // len(names)
            frames = self._keys.values(found[width * len(part) :])
            for index, (each, frame) in enumerate(zip(part, frames, strict=True)):
                record, owner = self._picked(each.conversation_id, found[index * width : (index + 1) * width])
                self._now.unwatched[names[index]] = record
                self._now.frames[each.conversation_id] = frame
                if record is None and frame is not None:
                    yield each.conversation_id, b""
                elif record is None or (owner is not None and owner.user_id != each.user_id):
                    self._now.gone.append((each, record))  # it has expired, but is still listed
                else:
                    yield each.conversation_id, record

    def _picked(self, conversation_id: str, found: Sequence[bytes | None]) -> tuple[bytes | None, Owner | None]:
        """Return the record that was found and its owner, and remember which keys the conversation has."""
        (value,) = self._keys.values(found)
        if value is None:
            return None, None
        try:
            owner = decode(value, Owner, conversation_id)
        except StoreCorruptedError:  # reported by the calls that need it
            return value, None
        self._now.owners[owner.cid] = conversation_id, owner
        if found[0] is None:
            self._now.old[conversation_id] = owner.cid
        return value, owner

    def _move(self, conversation_id: str) -> None:
        """Move a conversation that was read from keys of version 0.1."""
        now = self._now
        cid = now.old.get(conversation_id)
        if cid is None or conversation_id in now.moved:
            return
        now.moved.add(conversation_id)
        for name in Numbered(conversation_id, cid).names:
            if self._reader.exists(self._keys.old(name)):
                now.moves.append(("RENAME", self._keys.old(name), self._keys(name)))
        now.moves += self._lists.added(Listed(conversation_id, now.owners[cid][1].user_id))

    def _move_listed(self, listed: Listed) -> bool:
        """Move a listed conversation; if it has expired, remove it from the lists."""
        if self.record(listed.conversation_id) is None:
            self._now.gone.append((listed, None))
            return False
        self._move(listed.conversation_id)
        return listed.conversation_id in self._now.moved

    def _key_of(self, kind: str, cid: int) -> bytes:
        conversation_id, _ = self._now.owners.get(cid, ("", None))
        name = f"{kind}:{cid}"
        return self._keys.old(name) if conversation_id in self._now.old else self._keys(name)

    def _keys_of(self, conversation_id: str, cid: int) -> list[bytes]:
        return [self._keys(name) for name in Numbered(conversation_id, cid).names]

    def _values(self, names: Sequence[str]) -> list[bytes | None]:
        return [*self._keys.values(self._reader.mget(self._keys.both(names)))] if names else []

    def _put(self, name: str, value: bytes) -> None:
        self._write("SET", self._keys(name), value)
        if self._keys.has_old:
            self._write("UNLINK", self._keys.old(name))

    def _check_owner(self, cid: int, stored: bytes | None) -> None:
        """Raise if rows were found that belong to another conversation; version 0.1 did not write the field ``of``."""
        conversation_id, _ = self._now.owners.get(cid, ("", None))
        if stored is not None and conversation_id and stored.decode() != conversation_id:
            raise incomplete(conversation_id, self.where)

    def _expiry_ms(self, lifetime_s: float) -> int:
        return max(1, round((self.now().timestamp() + max(lifetime_s, 0.001)) * 1000))

    def _check_format(self, stored: Any, key: bytes) -> None:
        if stored is None or not stored.isdigit():
            raise StoreCorruptedError(
                f"The Redis server at {self.where} has other data in {key.decode()!r}: {stored!r}. "
                "Nothing was changed; give a prefix that is not in use."
            )
        check_format(int(stored), f"The store in Redis at {self.where}")


def _paid_member(cid: int, user_id: str) -> bytes:
    return str(cid).encode() + _OF_USER + user_id.encode()


def _paid_of(member: Any) -> tuple[int, str]:
    cid, _, user_id = member.partition(_OF_USER)
    return int(cid), user_id.decode()


def _member_of(entry: Entry) -> bytes:
    return f"{entry.cid}:{entry.place}:{entry.conversation_id}".encode()
