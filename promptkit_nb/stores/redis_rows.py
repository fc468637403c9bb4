"""The rows of ``RedisStore``: which keys they are, in transactions that begin again where somebody else wrote.

::

    {prefix}format    the format's version
    {prefix}cid       the last conversation number given out
    {prefix}ids       sorted set of all ids, for listing by prefix
    {prefix}u:USER    set of a user's ids
    {prefix}h:ID      record                          {prefix}a:ID      frame
    {prefix}t:CID     hash of turns by place          {prefix}i:CID     hash of places by turn id
    {prefix}l:SCOPE   account of the ledger

Every write to a conversation changes its record, so a transaction watches the records and accounts that it read.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import redis
from redis import exceptions

from promptkit_nb.codec import FORMAT_VERSION, check_format
from promptkit_nb.errors import InvalidArgumentError, PromptKitError, StoreCorruptedError, StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from redis.client import Pipeline

T = TypeVar("T")


class Known(NamedTuple):
    """Record and frame of a conversation as this handle saw them last; they may be out of date."""

    record: bytes
    frame: bytes


CONNECT_WITHIN_S = 5.0
ANSWER_WITHIN_S = 30.0
LISTED_AT_ONCE = 1000
REMEMBERED = 1000
"""Of how many conversations the newest record is remembered, so that the next append is one round trip."""

_UNAVAILABLE = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.ReadOnlyError,
    exceptions.BusyLoadingError,
)

# Appends where the record is still the one that the caller knows and the turn is not there yet; 1 if it did.
_APPEND = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] or redis.call('HEXISTS', KEYS[3], ARGV[4]) == 1 then return 0 end
redis.call('SET', KEYS[1], ARGV[2])
redis.call('HSET', KEYS[2], ARGV[3], ARGV[5])
redis.call('HSET', KEYS[3], ARGV[4], ARGV[3])
if ARGV[6] ~= '0' then for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, ARGV[6]) end end
return 1
"""


# Takes an id out of a list if its record is gone.
_UNLIST = """
if redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call(redis.call('TYPE', KEYS[2]).ok == 'zset' and 'ZREM' or 'SREM', KEYS[2], ARGV[1])
end
"""


class RedisRows:
    """Rows on a Redis server; safe to share between threads."""

    def __init__(self, url: str, *, password: str | None, prefix: str, client: redis.Redis | None) -> None:
        """Connect, and make an empty prefix a store."""
        self._tag = prefix if "{" in prefix else f"{{{prefix}}}"
        self._owns_client = client is None
        # Any: the client types every answer as bytes or text or both, and is asked here for bytes only
        self._client: Any = _client_of(url, password) if client is None else _checked_client(client)
        self.where = _address_of(self._client)
        self._closed = False
        self._local = threading.local()
        self._known: OrderedDict[str, Known] = OrderedDict()
        self._knowing = threading.Lock()
        self._append = self._client.register_script(_APPEND)
        self._unlist = self._client.register_script(_UNLIST)
        with self._translated():
            self._client.setnx(self._key("format"), FORMAT_VERSION)
            stored = self._client.get(self._key("format"))
        check_format(int(stored or FORMAT_VERSION), f"The store in Redis at {self.where}")

    def run(self, work: Callable[[], T], *, write: bool) -> T:  # noqa: ARG002 - Redis makes no difference
        """Run the work, again as often as somebody else wrote what it read."""
        self._check_open()
        while True:
            with self._translated(), self._client.pipeline() as pipeline:
                self._local.pipeline = pipeline
                self._local.writes = []
                self._local.records = {}
                self._local.frames = {}
                try:
                    result = self._worked(work, pipeline)
                except exceptions.WatchError:
                    continue
                self._remember_seen()
                return result

    def known(self, conversation_id: str) -> Known | None:
        """Return the newest that this handle knows of a conversation."""
        return self._known.get(conversation_id)

    def append_to(
        self,
        conversation_id: str,
        known: Known,
        record: bytes,
        *,
        cid: int,
        turn: tuple[int, str, bytes],
        ttl_s: float | None,
    ) -> bool:
        """Append a turn (its place, id and line) in one round trip if the record is still the known one; say if so."""
        self._check_open()
        names = (f"h:{conversation_id}", f"t:{cid}", f"i:{cid}", f"a:{conversation_id}")
        place, turn_id, line = turn
        with self._translated():
            done = self._append(
                keys=[*map(self._key, names)], args=[known.record, record, place, turn_id, line, _ms(ttl_s)]
            )
        if done:
            self._remember(conversation_id, Known(record, known.frame))
        else:
            self._known.pop(conversation_id, None)
        return bool(done)

    def keep_for(self, conversation_id: str, cid: int, ttl_s: float | None) -> None:
        """Let the server forget the conversation when it expires, or keep it."""
        for name in (f"h:{conversation_id}", f"a:{conversation_id}", f"t:{cid}", f"i:{cid}"):
            if ttl_s is None:
                self._write("PERSIST", self._key(name))
            else:
                self._write("PEXPIRE", self._key(name), _ms(ttl_s))

    def record(self, conversation_id: str) -> bytes | None:
        """Return the record of a conversation."""
        value = self._watched(f"h:{conversation_id}")
        if value is not None:
            self._local.records[conversation_id] = value
        return value

    def put_record(self, conversation_id: str, user_id: str, value: bytes) -> None:
        """Write the record of a conversation, findable by its user."""
        self._local.records[conversation_id] = value
        self._write("SET", self._key(f"h:{conversation_id}"), value)
        self._write("ZADD", self._key("ids"), 0, conversation_id)
        self._write("SADD", self._key(f"u:{user_id}"), conversation_id)

    def records(self, prefix: str, user_id: str | None) -> Iterator[tuple[str, bytes]]:
        """Yield id and record of the conversations whose id begins so, of one user or of all."""
        index = self._key("ids" if user_id is None else f"u:{user_id}")
        members = self._ids_with(prefix) if user_id is None else self._client.smembers(index)
        ids = sorted(name for name in (each.decode() for each in members) if name.startswith(prefix))
        for start in range(0, len(ids), LISTED_AT_ONCE):
            part = ids[start : start + LISTED_AT_ONCE]
            for name, value in zip(part, self._client.mget([self._key(f"h:{name}") for name in part]), strict=True):
                if value is not None:
                    yield name, value
                else:  # the server forgot what has expired, but not that it was listed
                    self._unlist(keys=[self._key(f"h:{name}"), index], args=[name])

    def frame(self, conversation_id: str) -> bytes | None:
        """Return the frame of a conversation."""
        value: bytes | None = self._client.get(self._key(f"a:{conversation_id}"))
        if value is not None:
            self._local.frames[conversation_id] = value
        return value

    def put_frame(self, conversation_id: str, value: bytes) -> None:
        """Write the frame of a conversation."""
        self._local.frames[conversation_id] = value
        self._write("SET", self._key(f"a:{conversation_id}"), value)

    def erase(self, conversation_id: str, cid: int, user_id: str) -> None:
        """Delete a conversation: record, frame, turns, and its place in the lists."""
        self._local.records.pop(conversation_id, None)
        self._known.pop(conversation_id, None)
        names = (f"h:{conversation_id}", f"a:{conversation_id}", f"t:{cid}", f"i:{cid}")
        self._write("DEL", *map(self._key, names))
        self._write("ZREM", self._key("ids"), conversation_id)
        self._write("SREM", self._key(f"u:{user_id}"), conversation_id)

    def next_cid(self) -> int:
        """Return a number that no conversation has had."""
        return int(self._client.incr(self._key("cid")))

    def turns(self, cid: int) -> Mapping[int, bytes]:
        """Return all turns by their places."""
        return {int(place): value for place, value in self._client.hgetall(self._key(f"t:{cid}")).items()}

    def turns_at(self, cid: int, places: Iterable[int]) -> list[bytes | None]:
        """Return the turns at these places."""
        wanted = list(places)
        return list(self._client.hmget(self._key(f"t:{cid}"), wanted)) if wanted else []

    def place_of(self, cid: int, turn_id: str) -> int | None:
        """Return the place of the turn with this id."""
        found = self._client.hget(self._key(f"i:{cid}"), turn_id)
        return None if found is None else int(found)

    def put_turn(self, cid: int, place: int, turn_id: str, value: bytes) -> None:
        """Write a turn."""
        self._write("HSET", self._key(f"t:{cid}"), place, value)
        self._write("HSET", self._key(f"i:{cid}"), turn_id, place)

    def copy_turns(self, cid: int, new_cid: int) -> None:
        """Copy all turns to another conversation, places kept."""
        for kind in "ti":
            self._write("COPY", self._key(f"{kind}:{cid}"), self._key(f"{kind}:{new_cid}"))

    def account(self, scope: str) -> bytes | None:
        """Return what the ledger says of a scope."""
        return self._watched(f"l:{scope}")

    def put_account(self, scope: str, value: bytes) -> None:
        """Write what the ledger says of a scope."""
        self._write("SET", self._key(f"l:{scope}"), value)

    def close(self) -> None:
        """Close the connections, unless they are the caller's."""
        self._closed = True
        self._known.clear()
        if self._owns_client:  # and what another thread is using at the moment, it may use to the end
            self._client.connection_pool.disconnect(inuse_connections=False)

    @property
    def closed(self) -> bool:
        """Whether ``close()`` was called."""
        return self._closed

    def _key(self, name: str) -> str:
        return self._tag + name

    def _watched(self, name: str) -> bytes | None:
        self._local.pipeline.watch(self._key(name))
        value: bytes | None = self._client.get(self._key(name))
        return value

    def _write(self, *command: str | bytes | int) -> None:
        self._local.writes.append(command)

    def _worked(self, work: Callable[[], T], pipeline: Pipeline) -> T:
        try:
            result = work()
        except PromptKitError:
            self._local.writes = []
            self._commit(pipeline)  # somebody may have written between two of its readings: then it was a mirage
            raise
        self._commit(pipeline)
        return result

    def _commit(self, pipeline: Pipeline) -> None:
        """Write what the work wrote, or just make sure that what it read was of one moment."""
        if not pipeline.watching and not self._local.writes:
            return
        pipeline.multi()
        for command in self._local.writes or [("PING",)]:
            pipeline.execute_command(*command)  # type: ignore[no-untyped-call]  # the client's has no types
        pipeline.execute()

    def _ids_with(self, prefix: str) -> list[bytes]:
        low = b"[" + prefix.encode() if prefix else b"-"
        high = b"(" + prefix.encode() + b"\xff" if prefix else b"+"
        found: list[bytes] = self._client.zrangebylex(self._key("ids"), low, high)
        return found

    def _remember_seen(self) -> None:
        for conversation_id, frame in self._local.frames.items():
            record = self._local.records.get(conversation_id)
            if record is not None:
                self._remember(conversation_id, Known(record, frame))

    def _remember(self, conversation_id: str, known: Known) -> None:
        with self._knowing:
            self._known[conversation_id] = known
            self._known.move_to_end(conversation_id)
            if len(self._known) > REMEMBERED:
                self._known.popitem(last=False)

    def _check_open(self) -> None:
        if self._closed:
            raise StoreUnavailableError(f"This RedisStore at {self.where} is closed; open it again.")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Raise our errors where the client raises its own; they name host and port, and never the password."""
        where = f"The Redis server at {self.where}"
        try:
            yield
        except exceptions.WatchError:
            raise
        except (exceptions.AuthenticationError, exceptions.NoPermissionError) as error:
            raise StoreUnavailableError(
                f"{where} refuses us ({error}): check the password, as in RedisStore(url, password=…)."
            ) from error
        except (
            exceptions.ConnectionError,
            exceptions.TimeoutError,
            exceptions.ReadOnlyError,
            exceptions.BusyLoadingError,
        ) as error:
            raise StoreUnavailableError(
                f"{where} cannot be used: {_words_of(error)}. Nothing that was acknowledged is lost; "
                "check that it runs (redis-cli ping), then call again."
            ) from error
        except exceptions.OutOfMemoryError as error:
            raise StoreUnavailableError(f"{where} is full ({error}); give it more memory (maxmemory).") from error
        except exceptions.ResponseError as error:
            raise StoreCorruptedError(
                f"{where} has other data under our prefix {self._tag!r} ({error}); choose another prefix."
            ) from error


def _client_of(url: str, password: str | None) -> redis.Redis:
    options: dict[str, Any] = {"socket_connect_timeout": CONNECT_WITHIN_S, "socket_timeout": ANSWER_WITHIN_S}
    if password is not None:
        options["password"] = password
    try:
        return redis.Redis.from_url(url, **options)
    except (ValueError, AttributeError, TypeError) as error:
        raise InvalidArgumentError(
            "url is no address of a Redis server: give redis://host:port/db (rediss:// for TLS), "
            "such as redis://localhost:6379/0."
        ) from error


def _checked_client(client: redis.Redis) -> redis.Redis:
    if not isinstance(client, redis.Redis):
        raise InvalidArgumentError(f"client is a {type(client).__name__}: give a redis.Redis, or a url instead.")
    if client.get_encoder().decode_responses:
        raise InvalidArgumentError("client decodes what it reads: make it without decode_responses=True.")
    return client


def _address_of(client: redis.Redis) -> str:
    options = client.connection_pool.connection_kwargs
    place = options.get("path") or f"{options.get('host', 'localhost')}:{options.get('port', 6379)}"
    return f"{place}/{options.get('db') or 0}"


def _ms(ttl_s: float | None) -> int:
    return 0 if ttl_s is None else max(1, round(ttl_s * 1000))


def _words_of(error: Exception) -> str:
    return str(error).strip().rstrip(".") or type(error).__name__
