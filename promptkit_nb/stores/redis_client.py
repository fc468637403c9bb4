"""A client for a Redis server, and its errors as ours, never with the password."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import redis
from redis import exceptions
from redis.backoff import NoBackoff
from redis.retry import Retry

from promptkit_nb.errors import InvalidArgumentError, StoreCorruptedError, StoreUnavailableError
from promptkit_nb.secret import Secret, without_frames

if TYPE_CHECKING:
    from collections.abc import Iterator

    from promptkit_nb.stores.redis_keys import Keys

CONNECT_WITHIN_S = 5.0
C = TypeVar("C", bound="redis.Redis | redis.RedisCluster")

LOST = (exceptions.ConnectionError, exceptions.TimeoutError)
"""What the client raises if it does not know whether the server executed a command."""

MOVING = (exceptions.AskError, exceptions.TryAgainError)
"""Errors of a cluster's node while it moves our keys to another node."""

_DOWN = (*LOST, exceptions.ClusterDownError, exceptions.TryAgainError, exceptions.RedisClusterException)
_ELSEWHERE = (exceptions.ReadOnlyError, exceptions.AskError)  # a replica, or a node of a cluster without our slot


def client_of(url: Secret | None, password: Secret | None, timeout_s: float) -> redis.Redis:
    """Return a client for this URL; options in its query, such as ``?ssl_ca_certs=``, are passed to the client.

    Raises ``InvalidArgumentError`` if it is not a valid URL, without quoting it: it may have a password.
    """
    # A connection that the server has closed is opened once more. A server that does not answer is not asked again,
    # because that would only take several times as long.
    options: dict[str, Any] = {"retry": Retry(NoBackoff(), 1, (exceptions.ConnectionError,))}
    options |= {"socket_connect_timeout": min(CONNECT_WITHIN_S, timeout_s), "socket_timeout": timeout_s}
    try:
        if url is None or not _is_address(url):
            raise _no_address()
        if password is not None:  # revealed in the call, so that no variable holds it
            return checked_client(redis.Redis.from_url(url.reveal(), password=password.reveal(), **options))
        return checked_client(redis.Redis.from_url(url.reveal(), **options))
    except (ValueError, AttributeError, TypeError) as error:
        if isinstance(error, InvalidArgumentError):
            raise
        raise _no_address() from None  # the error may quote a part of the password


def checked_client(client: C) -> C:
    """Return the client; ``InvalidArgumentError`` unless it is a synchronous redis-py client that returns bytes."""
    if not isinstance(client, (redis.Redis, redis.RedisCluster)):
        raise InvalidArgumentError(
            f"client is a {type(client).__name__}; give a redis.Redis, a redis.RedisCluster, or a url."
        )
    if client.get_encoder().decode_responses:
        raise InvalidArgumentError("The client decodes responses; create it without decode_responses=True.")
    return client


class Node:
    """The server that has the keys of a store: in a cluster, the node that serves their slot.

    All commands go to it with a plain client, because a ``RedisCluster`` that loses its connection would repeat a
    transaction without its watched keys.
    """

    def __init__(self, client: redis.Redis | redis.RedisCluster, key: bytes, *, is_ours: bool) -> None:
        """Find the node of this key; a client that ``is_ours`` may be replaced by a client of another node."""
        self._cluster: Any = client if isinstance(client, redis.RedisCluster) else None  # it has no types
        self._first = client if isinstance(client, redis.Redis) else None
        self._key = key
        self._is_ours = is_ours
        self._current = self._first

    @property
    def client(self) -> redis.Redis:
        """The client of the node."""
        if self._current is None:
            self._current = self._cluster.get_redis_connection(self._cluster.get_node_from_key(self._key))
        return self._current

    @property
    def user(self) -> str:
        """The name of the server's user."""
        return str(self.client.connection_pool.connection_kwargs.get("username") or "default")

    def follow(self, moved: exceptions.MovedError) -> bool:
        """Switch to the node that serves the keys now; return False if the caller's client cannot."""
        if self._first is None:
            self.lost()
            return True
        if not self._is_ours:
            return False
        pool = self._first.connection_pool
        options = {**pool.connection_kwargs, "host": moved.host, "port": moved.port}
        self._close_followed()
        self._current = redis.Redis(connection_pool=type(pool)(connection_class=pool.connection_class, **options))
        return True

    def lost(self) -> None:
        """Look up the node again at the next use, because it did not answer."""
        if self._first is None:
            self._cluster.nodes_manager.initialize()
        self._close_followed()
        self._current = self._first

    def close(self) -> None:
        """Close our connections, not those of the caller; other threads may finish their commands."""
        self._close_followed()
        if self._is_ours and self._first is not None:
            self._first.connection_pool.disconnect(inuse_connections=False)

    def _close_followed(self) -> None:
        """Close the connections to a node that was found through a URL."""
        if self._is_ours and self._current is not None and self._current is not self._first:
            self._current.connection_pool.disconnect(inuse_connections=False)


def address_of(client: redis.Redis) -> str:
    """Return ``host:port/db``, or a socket's path instead of host and port."""
    options = client.connection_pool.connection_kwargs
    place = options.get("path") or f"{options.get('host', 'localhost')}:{options.get('port', 6379)}"
    return f"{place}/{options.get('db') or 0}"


@contextmanager
def translated(where: str, node: Node, keys: Keys) -> Iterator[None]:
    """Translate errors of the client to ours; the node's user and the keys are needed to name a missing right."""
    server = f"The Redis server at {where}"
    try:
        yield
    except exceptions.NoPermissionError as error:
        right = _missing_right(_words_of(error), keys)
        raise StoreUnavailableError(
            f"{server} refused a command, because its user {node.user!r} lacks a right ({_words_of(error)}). Grant it: "
            f"ACL SETUSER {node.user} {right}"
        ) from without_frames(error)
    except (exceptions.AuthenticationError, exceptions.AuthorizationError) as error:
        raise StoreUnavailableError(
            f"{server} refused access ({_words_of(error)}); check the password, as in RedisStore(url, password=…)."
        ) from without_frames(error)
    except _DOWN as error:
        raise StoreUnavailableError(
            f"{server} cannot be used: {_words_of(error)}. Acknowledged writes are safe; "
            "check that it is running (redis-cli ping) and try again."
        ) from without_frames(error)
    except exceptions.OutOfMemoryError as error:
        raise StoreUnavailableError(
            f"{server} is full; nothing was changed. Give it more memory (maxmemory)."
        ) from without_frames(error)
    except _ELSEWHERE as error:
        raise StoreUnavailableError(
            f"{server} does not serve these keys ({_words_of(error)}); give the address of the primary, "
            "in a cluster a url of any node or client=RedisCluster(…)."
        ) from without_frames(error)
    except exceptions.ResponseError as error:
        raise _refusal_of(server, error) from without_frames(error)


def _missing_right(words: str, keys: Keys) -> str:
    """Return the right that a user lacks, as ``ACL SETUSER`` takes it."""
    command = re.search(r"run the '([^']+)' command", words)
    if command:
        return f"+{command[1]}"
    return f"{keys.pattern} {keys.old_pattern} (the latter for keys of version 0.1)" if keys.has_old else keys.pattern


def _is_address(url: Secret) -> bool:
    """Return whether the client reads the URL as intended."""
    parts = urlsplit(url.reveal())
    if "@" in f"{parts.path}{parts.query}{parts.fragment}":  # after a password with a "/", "?" or "#" in it
        return False
    database = parts.path.strip("/")
    return parts.scheme == "unix" or not database or database.isdecimal()  # the client would take 0 instead


def _refusal_of(server: str, error: exceptions.ResponseError) -> StoreCorruptedError | StoreUnavailableError:
    words = _words_of(error)
    if "WRONGTYPE" in words:
        return StoreCorruptedError(
            f"{server} has other data under the keys of this store (WRONGTYPE); give a prefix that is not in use."
        )
    return StoreUnavailableError(f"{server} rejected a command: {words}. Check its version (6.2 or newer).")


def _no_address() -> InvalidArgumentError:
    return InvalidArgumentError(
        "url is not the URL of a Redis server; give redis://host:port/db (rediss:// for TLS), such as "
        "redis://localhost:6379/0, with special characters of a password percent-encoded, or the password in password=."
    )


def _words_of(error: Exception) -> str:
    """Return the error's message, without the command that a pipeline quotes: it may have text of a conversation."""
    return str(error).rpartition("caused error: ")[2].strip().rstrip(".") or type(error).__name__
