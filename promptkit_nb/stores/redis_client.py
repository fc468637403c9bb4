"""A client for a Redis server, and its errors as ours, never with the password."""

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
"""What the client raises if it does not know whether the server executed a command."""

_DOWN = (*LOST, exceptions.ClusterDownError, exceptions.TryAgainError)
_ELSEWHERE = (exceptions.ReadOnlyError, exceptions.AskError)  # a replica, or a node of a cluster without our slot


def client_of(url: str, password: str | None, timeout_s: float) -> redis.Redis:
    """Return a client for this URL; options in its query, such as ``?ssl_ca_certs=``, are passed to the client.

    Raises ``InvalidArgumentError`` if it is not a valid URL, without quoting it: it may have a password.
    """
    # A connection that the server has closed is opened once more. A server that does not answer is not asked again,
    # because that would only take several times as long.
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
        raise _no_address() from None  # the error may quote a part of the password


def checked_client(client: redis.Redis) -> redis.Redis:
    """Return the client; ``InvalidArgumentError`` unless it is a ``redis.Redis`` that returns bytes.

    A ``RedisCluster`` is refused: if it loses a connection, it repeats a transaction without its watched keys.
    """
    if not isinstance(client, redis.Redis):
        raise InvalidArgumentError(
            f"client is a {type(client).__name__}; give a redis.Redis or a url, "
            "in a cluster that of the node that serves the prefix's slot."
        )
    if client.get_encoder().decode_responses:
        raise InvalidArgumentError("The client decodes responses; create it without decode_responses=True.")
    return client


def address_of(client: redis.Redis) -> str:
    """Return ``host:port/db``, or a socket's path instead of host and port."""
    options = client.connection_pool.connection_kwargs
    place = options.get("path") or f"{options.get('host', 'localhost')}:{options.get('port', 6379)}"
    return f"{place}/{options.get('db') or 0}"


@contextmanager
def translated(where: str) -> Iterator[None]:
    """Raise our errors for those of the client."""
    server = f"The Redis server at {where}"
    try:
        yield
    except (exceptions.AuthenticationError, exceptions.AuthorizationError, exceptions.NoPermissionError) as error:
        raise StoreUnavailableError(
            f"{server} refused access ({_words_of(error)}); check the password, as in RedisStore(url, password=…)."
        ) from error
    except _DOWN as error:
        raise StoreUnavailableError(
            f"{server} cannot be used: {_words_of(error)}. Acknowledged writes are safe; "
            "check that it is running (redis-cli ping) and try again."
        ) from error
    except exceptions.OutOfMemoryError as error:
        raise StoreUnavailableError(
            f"{server} is full; nothing was changed. Give it more memory (maxmemory)."
        ) from error
    except _ELSEWHERE as error:
        raise StoreUnavailableError(
            f"{server} does not serve these keys ({_words_of(error)}); give the address of the primary, "
            "in a cluster that of the node that serves the prefix's slot."
        ) from error
    except exceptions.ResponseError as error:
        raise _refusal_of(server, error) from error


def _check_address(url: str) -> None:
    """Raise ``InvalidArgumentError`` for a URL that the client would silently misread."""
    parts = urlsplit(url)
    if "@" in f"{parts.path}{parts.query}{parts.fragment}":  # after a password with a "/", "?" or "#" in it
        raise _no_address()
    database = parts.path.strip("/")
    if parts.scheme != "unix" and database and not database.isdecimal():  # the client would take 0 instead
        raise _no_address()


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
