"""The way to a Redis server: a client from an address, and its errors in our words, never with the password."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import redis
from redis import exceptions
from redis.backoff import NoBackoff
from redis.retry import Retry

from promptkit_nb.errors import InvalidArgumentError, StoreCorruptedError, StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator

CONNECT_WITHIN_S = 5.0
LOST = (exceptions.ConnectionError, exceptions.TimeoutError)
"""What the client raises where it does not know whether the server did what it was told."""

_DOWN = (*LOST, exceptions.ClusterDownError, exceptions.TryAgainError)
_ELSEWHERE = (exceptions.ReadOnlyError, exceptions.AskError)  # a replica, or a node of a cluster without our slot


def client_of(url: str, password: str | None, timeout_s: float) -> redis.Redis:
    """Return a client of this address; options in the address's query, such as ``?ssl_ca_certs=``, are the client's.

    Raises ``InvalidArgumentError`` where that is no address, without quoting it: it may hold a password.
    """
    # A connection that the server closed meanwhile is opened once more; a server that does not answer is not asked
    # again, which would only take several times as long.
    options: dict[str, Any] = {"retry": Retry(NoBackoff(), 1, (exceptions.ConnectionError,))}
    options |= {"socket_connect_timeout": min(CONNECT_WITHIN_S, timeout_s), "socket_timeout": timeout_s}
    if password is not None:
        options["password"] = password
    try:
        _check_address(url)
        return checked_client(redis.Redis.from_url(url, **options))
    except (ValueError, AttributeError, TypeError) as error:
        if isinstance(error, InvalidArgumentError):
            raise
        raise _no_address() from None  # what the error quotes may be a part of the password


def checked_client(client: redis.Redis) -> redis.Redis:
    """Return the client; ``InvalidArgumentError`` unless it is a ``redis.Redis`` that leaves bytes as they are.

    A ``RedisCluster`` is none: where it loses a connection, it repeats a transaction without what that watched.
    """
    if not isinstance(client, redis.Redis):
        raise InvalidArgumentError(
            f"client is a {type(client).__name__}: give a redis.Redis, or a url instead; "
            "in a cluster that of the node that serves the prefix's slot."
        )
    if client.get_encoder().decode_responses:
        raise InvalidArgumentError("The client decodes what it reads: make it without decode_responses=True.")
    return client


def address_of(client: redis.Redis) -> str:
    """Return ``host:port/db``, or a socket's path instead of host and port."""
    options = client.connection_pool.connection_kwargs
    place = options.get("path") or f"{options.get('host', 'localhost')}:{options.get('port', 6379)}"
    return f"{place}/{options.get('db') or 0}"


@contextmanager
def translated(where: str) -> Iterator[None]:
    """Raise our errors where the client raises its own."""
    server = f"The Redis server at {where}"
    try:
        yield
    except (exceptions.AuthenticationError, exceptions.AuthorizationError, exceptions.NoPermissionError) as error:
        raise StoreUnavailableError(
            f"{server} refuses us ({_words_of(error)}): check the password, as in RedisStore(url, password=…)."
        ) from error
    except _DOWN as error:
        raise StoreUnavailableError(
            f"{server} cannot be used: {_words_of(error)}. Nothing that was acknowledged is lost; "
            "check that it runs (redis-cli ping), then call again."
        ) from error
    except exceptions.OutOfMemoryError as error:
        raise StoreUnavailableError(
            f"{server} is full; nothing was changed. Give it more memory (maxmemory)."
        ) from error
    except _ELSEWHERE as error:
        raise StoreUnavailableError(
            f"{server} is not the one that holds these keys ({_words_of(error)}): give the address of the primary, "
            "in a cluster of the one that serves the prefix's slot."
        ) from error
    except exceptions.ResponseError as error:
        raise _refusal_of(server, error) from error


def _check_address(url: str) -> None:
    """Raise ``InvalidArgumentError`` for an address that the client would misread without a word."""
    parts = urlsplit(url)
    if "@" in f"{parts.path}{parts.query}{parts.fragment}":  # behind a password with a "/", "?" or "#" in it
        raise _no_address()
    database = parts.path.strip("/")
    if parts.scheme != "unix" and database and not database.isdecimal():  # the client would take 0 instead
        raise _no_address()


def _refusal_of(server: str, error: exceptions.ResponseError) -> StoreCorruptedError | StoreUnavailableError:
    words = _words_of(error)
    if "WRONGTYPE" in words:
        return StoreCorruptedError(
            f"{server} has other data where RedisStore keeps its own (WRONGTYPE); give a prefix that nobody else uses."
        )
    return StoreUnavailableError(f"{server} cannot do what a store needs: {words}. Check its version (6.2 or newer).")


def _no_address() -> InvalidArgumentError:
    return InvalidArgumentError(
        "url is no address of a Redis server: give redis://host:port/db (rediss:// for TLS), such as "
        "redis://localhost:6379/0, with a password's special characters percent-encoded, or in password=."
    )


def _words_of(error: Exception) -> str:
    """Return the error's words, without the command that a pipeline quotes: it may hold what was said."""
    return str(error).rpartition("caused error: ")[2].strip().rstrip(".") or type(error).__name__
