"""A store on a Redis server, for conversations that several machines share."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from promptkit_nb.characters import without_lone_surrogates
from promptkit_nb.errors import InvalidArgumentError, MissingDependencyError, StoreCorruptedError
from promptkit_nb.secret import Secret
from promptkit_nb.stores.checks import seconds_of, ttl_s_of
from promptkit_nb.stores.kept_usage import PaidCall, PaidCalls
from promptkit_nb.stores.row_access import Reopening, reopened
from promptkit_nb.stores.row_store import RowStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from redis import Redis, RedisCluster

    from promptkit_nb.stores.base import Duration
    from promptkit_nb.stores.layout import Record
    from promptkit_nb.stores.redis_backend import RedisBackend
    from promptkit_nb.turns import Turn


class RedisStore(RowStore):
    """Keeps conversations on a Redis server (6.2 or newer).

    Args:
        url: ``redis://host:port/db``, or ``rediss://`` for TLS.
        password: The password, if it is not in the URL.
        prefix: The prefix of all keys; stores with different prefixes are separate.
        ttl: A ``timedelta`` or seconds; a conversation that was neither read nor written for that long expires, and the
            server deletes it. ``None`` or 0 keeps it.
        client: Your own ``redis.Redis`` or ``redis.RedisCluster`` instead of the URL; ``close()`` leaves it open.
        clock: Returns the current time; by default the server's, because the clocks of several machines differ.
        timeout_s: How long to wait for the server's answer, in seconds.

    Raises ``MissingDependencyError`` without the package ``redis``, and ``StoreUnavailableError``, naming host and
    port, if the server cannot be used; calls work again once the server does. A turn that was not acknowledged may be
    appended again: it is stored once.

    All keys begin with the prefix, so a user of the server needs only these rights:

        ACL SETUSER notebooks on >secret ~team:* -@all +@read +@write +@transaction +@connection +time +info

    ``+evalsha +script|load`` makes an append one round trip instead of several. Without ``+info`` a warning says that
    the eviction policy could not be checked. Keys of version 0.1 are still read, and are moved on the first write; see
    ``move_old_keys``.

    Each key repeats the prefix in braces, which Redis calls a hash tag. In a cluster, all keys of a prefix are
    therefore in one slot, on one node, and calls are atomic; the URL may name any node. A prefix cannot outgrow its
    node: allow 0.6 kB per turn in addition to its text, and 1 kB per conversation; a fork copies its turns. To use
    several nodes, spread users over several prefixes, each with its own store:

        stores = [RedisStore(url, prefix=f"promptkit-{number}:") for number in range(16)]
        store = stores[crc32(user_id.encode()) % 16]

    Durability is set on the server: ``appendonly yes`` with ``appendfsync always`` loses nothing, with ``everysec`` up
    to a second of turns if the machine fails. With ``maxmemory``, use ``maxmemory-policy noeviction``. If the server
    may evict keys of the store (``allkeys-*``, or ``volatile-*`` with a TTL), reading, exporting and deleting work,
    and every other write is refused. Deleted text is gone from the server's memory at once, and from its files after it
    next rewrites them (``BGREWRITEAOF``, ``BGSAVE``).

    >>> from promptkit_nb import RedisStore
    >>> RedisStore("redis://127.0.0.1:1/0", prefix="team:", ttl=24 * 3600)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    promptkit_nb.errors.StoreUnavailableError: The Redis server at 127.0.0.1:1/0 cannot be used: ...
    """

    backend: RedisBackend

    def __init__(
        self,
        url: str = "redis://localhost:6379/0",
        *,
        password: str | None = None,
        prefix: str = "promptkit:",
        ttl: Duration | None = None,
        client: Redis | RedisCluster | None = None,
        clock: Callable[[], datetime] | None = None,
        timeout_s: float = 10,
    ) -> None:
        """Connect, and make an empty prefix a store."""
        address, is_password = Secret.of(url, strips=False), password is not None
        key = Secret.of(password, strips=False)
        url = password = ""  # tracebacks may show arguments
        try:
            from promptkit_nb.stores.redis_backend import RedisBackend  # noqa: PLC0415 - an extra, imported when chosen
        except ImportError as error:
            raise MissingDependencyError("RedisStore needs redis: pip install 'promptkit-nb[redis]'") from error
        _check_prefix(prefix)
        within_s = seconds_of("timeout_s", timeout_s)
        ttl_s = ttl_s_of(ttl)
        if is_password and key is None:
            raise InvalidArgumentError("password is not text; give a string, or leave it out.")
        rows = RedisBackend(address, password=key, prefix=prefix, client=client, timeout_s=within_s)
        is_public = not is_password and client is None and clock is None and _is_public(address)
        shown = "" if address is None or not is_public else address.reveal()
        self._reopen = partial(type(self), shown, prefix=prefix, ttl=ttl_s, timeout_s=within_s) if is_public else None
        super().__init__(rows, ttl_s, clock or rows.now)

    def __reduce__(self) -> Reopening[RedisStore]:
        """Return how another process opens the same store; passwords are never pickled."""
        if self._reopen is None:
            raise InvalidArgumentError(
                "A RedisStore with a password, or with its own client or clock, cannot be pickled; open it in each "
                "process, as in RedisStore(url, password=…)."
            )
        return reopened, (self._reopen, self.user_id)

    def __repr__(self) -> str:
        """Return where it is, without the password."""
        return self._described(self.backend.where)

    def delete(self, conversation_id: str, *, keep_spending: bool = True, expected_revision: int | None = None) -> None:
        """Delete the conversation permanently, including the rest of one that the server evicted in part."""
        try:
            super().delete(conversation_id, keep_spending=keep_spending, expected_revision=expected_revision)
        except StoreCorruptedError:
            erase = partial(self.backend.erase_damaged, conversation_id, self.user_id)
            if not self.backend.run(erase, write=True):
                raise

    def check_keeps(self) -> None:
        """Raise ``StoreUnavailableError`` if the server may evict new turns; called before a call is paid for.

        >>> from promptkit_nb import RedisStore
        >>> def check(url: str) -> None:
        ...     with RedisStore(url, prefix="team:") as store:
        ...         store.check_keeps()
        """
        self.backend.run(self._check_keeps, write=False)

    def move_old_keys(self) -> int:
        """Move all keys of version 0.1; return the number of conversations moved.

        Conversations are also moved when they are first written. Call this once, as a server user who may use the old
        keys, so that users who are limited to ``~prefix*`` see all conversations.

        >>> from promptkit_nb import RedisStore
        >>> def move(url: str) -> int:
        ...     with RedisStore(url, prefix="team:") as store:
        ...         return store.move_old_keys()
        """
        return self.backend.move_old()

    def _put_record(self, conversation_id: str, record: Record) -> bytes:
        stored = super()._put_record(conversation_id, record)
        self.backend.keep(conversation_id, record.cid, self._lifetime_s(record))
        self.backend.list_paid(record.cid, record.user_id)
        return stored

    def _put_turn(self, conversation_id: str, record: Record, place: int, turn: Turn, line: bytes) -> None:
        super()._put_turn(conversation_id, record, place, turn, line)
        self.backend.log_paid(record.cid, record.user_id, line)

    def _dropped_calls(self, user_id: str | None, *, forget: bool) -> list[PaidCall]:
        logs = self.backend.unlisted_logs(user_id, forget=forget)
        return [call for owner, log in logs for call in PaidCalls.of_log(owner, log).calls]

    def _used(self, conversation_id: str, record: Record) -> Record:
        record = super()._used(conversation_id, record)
        if record.expires_at is not None:
            self.backend.check_keeps(expiring=True)
        return record

    def _check_keeps(self) -> None:
        self.backend.check_keeps(expiring=self.ttl_s is not None)

    def _may_touch(self) -> bool:
        return self.backend.keeps(expiring=True)


def _is_public(address: Secret | None) -> bool:
    """Return whether a URL has no password, before its host or in its query."""
    return address is not None and "@" not in address.reveal() and "password" not in address.reveal()


def _check_prefix(prefix: str) -> None:
    if isinstance(prefix, str) and prefix and without_lone_surrogates(prefix) == prefix and not {*"{}"} & {*prefix}:
        return
    raise InvalidArgumentError(f'prefix={prefix!a} is not valid; give text without braces, such as "promptkit:".')
