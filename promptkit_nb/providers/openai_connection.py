"""The ``openai`` client at work: one post, and either a reply to read or the reason why there is none.

The only module that imports the client, and only when a connection is made: the import takes half a second.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from promptkit_nb.providers.openai_errors import Refusal, Refused, body_of
from promptkit_nb.providers.retries import asked_wait_s, is_passing

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx2
    import openai

    from promptkit_nb.providers.openai_errors import Endpoint

_NO_KEY = "no-key"  # for servers that want none: the client refuses to send nothing


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a post brought no reply to read.

    ``error`` is what to raise, ``reason`` a few words for who waits, ``is_passing`` whether sending the same again may
    help, ``asked_wait_s`` the wait that the server asked for, ``refusal`` its words, if it was the server that spoke.
    """

    error: Refused
    reason: str
    is_passing: bool
    asked_wait_s: float | None = None
    refusal: Refusal | None = None


class Connection:
    """A client of one server; safe to share between threads, and not between processes."""

    def __init__(self, endpoint: Endpoint, *, timeout_s: float) -> None:
        """Build the client; nothing is sent yet."""
        import openai  # noqa: PLC0415 - half a second, and not needed to look at old answers

        self.endpoint = endpoint
        self._process_id = os.getpid()
        self._timeout_s = timeout_s
        self._client = openai.OpenAI(
            api_key=endpoint.key or _NO_KEY,
            base_url=endpoint.base_url,
            timeout=timeout_s,
            max_retries=0,  # its waits are silent, and it sends an exhausted quota again
        )

    @property
    def is_inherited(self) -> bool:
        """Whether this process was forked since: on its parent's sockets it would read the parent's answers."""
        return self._process_id != os.getpid()

    def post(self, body: bytes, *, model: str) -> httpx2.Response | Failure:
        """Send a chat request; return the reply with its body still to come, or why there is none."""
        import httpx2  # noqa: PLC0415 - it comes with the client
        import openai  # noqa: PLC0415 - imported already, with the client

        try:
            # Asked for a response the client gives it as it is, though its types say Stream.
            reply = self._client.post(
                "/chat/completions",
                cast_to=httpx2.Response,
                content=body,
                stream=True,
                stream_cls=openai.Stream[object],
            )
            return cast("httpx2.Response", reply)
        except openai.APIStatusError as error:
            return self._refused(error, model)
        except (openai.APITimeoutError, httpx2.TimeoutException) as error:
            return self._timed_out(error)
        except (openai.APIError, httpx2.HTTPError, OSError) as error:
            return self._unreachable(error)

    def received(self, reply: httpx2.Response) -> Iterator[bytes]:
        """Yield the bytes of the reply; raises a ``ProviderError`` where the connection fails meanwhile."""
        import httpx2  # noqa: PLC0415 - it comes with the client

        try:
            yield from reply.iter_bytes()
        except httpx2.TimeoutException as error:
            raise self.endpoint.timed_out(self._timeout_s) from error
        except (httpx2.HTTPError, OSError) as error:
            raise self.endpoint.cut() from error

    def _refused(self, error: openai.APIStatusError, model: str) -> Failure:
        refusal = Refusal.of_body(body_of(error.response.text), status=error.status_code)
        wait_s = asked_wait_s(error.response.headers)
        return Failure(
            self.endpoint.chained(self.endpoint.refused(refusal, model=model, wait_s=wait_s), error),
            reason=f"{self.endpoint.host} answered with HTTP {refusal.status}",
            is_passing=is_passing(refusal.status) and not (refusal.is_used_up or refusal.is_too_long),
            asked_wait_s=wait_s,
            refusal=refusal,
        )

    def _timed_out(self, error: Exception) -> Failure:
        # Waiting as long as the timeout was enough: it is not sent again.
        reason = f"{self.endpoint.host} was silent for {self._timeout_s:g} s"
        return Failure(self.endpoint.chained(self.endpoint.timed_out(self._timeout_s), error), reason, is_passing=False)

    def _unreachable(self, error: Exception) -> Failure:
        reason = f"{self.endpoint.host} cannot be reached"
        failure = self.endpoint.unreachable(_bottom(error))
        return Failure(self.endpoint.chained(failure, error), reason, is_passing=True)


def _bottom(error: BaseException) -> str:
    """The words of what lies at the bottom: the client itself says just "Connection error."."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error) or type(error).__name__
