"""When to retry, and how long to wait."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from promptkit_nb.providers.openai_client import RetryPolicy, rate_limit_wait_s, retry_after_s

NOW = datetime(2026, 7, 1, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Wed, 01 Jul 2026 12:00:30 GMT"}, 30.0),
        ({"retry-after": "Wed, 01 Jul 2026 12:00:30 -0000"}, 30.0),
        ({"retry-after": "Wed, 01 Jul 2026 11:00:00 GMT"}, 0.0),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after-ms": "later", "retry-after": "9"}, 9.0),
    ],
)
def test_wait_that_the_server_asks_for(headers: dict[str, str], wait_s: float | None) -> None:
    """Milliseconds, seconds or a date; times in the past and invalid values mean no wait."""
    assert retry_after_s(headers, NOW) == wait_s


def test_backoff_doubles_up_to_eight_seconds() -> None:
    """Without a wait requested by the server, starting at half a second."""
    policy = RetryPolicy(6, random=lambda: 0.0)
    assert [policy.wait_s(retry) for retry in range(7)] == [0.5, 1.0, 2.0, 4.0, 8.0, 8.0, None]


def test_jitter_shortens_by_up_to_a_quarter() -> None:
    """So that many clients do not retry at the same time."""
    assert RetryPolicy(random=lambda: 1.0).wait_s(0) == 0.375


@pytest.mark.parametrize(("asked_s", "wait_s"), [(0.0, 0.0), (60.0, 60.0), (60.1, None)])
def test_wait_that_the_server_asks_for_is_kept_up_to_a_minute(asked_s: float, wait_s: float | None) -> None:
    """With a longer one the error is raised at once."""
    assert RetryPolicy().wait_s(0, asked_s) == wait_s


def test_without_retries_there_is_no_wait() -> None:
    """With max_retries=0 the error is raised at once, whatever wait the server asks for."""
    assert RetryPolicy(0).wait_s(0, 1.0) is None


@pytest.mark.parametrize(
    ("headers", "message", "wait_s"),
    [
        ({}, "Rate limit reached for gpt-4o. Please try again in 8.71s. Visit the page.", 8.71),
        ({}, "Please retry after 6m0s.", 360.0),
        ({}, "Please try again in 172ms.", 0.172),
        ({}, "Please try again later.", None),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "6s"}, "Slow down", 6.0),
        ({"x-ratelimit-remaining-requests": "3", "x-ratelimit-reset-requests": "6s"}, "Slow down", None),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "-1"}, "Slow down", None),
        (
            {
                "x-ratelimit-remaining-requests": "0",
                "x-ratelimit-reset-requests": "1h0m2s",
                "x-ratelimit-remaining-tokens": "0",
                "x-ratelimit-reset-tokens": "6s",
            },
            "Slow down",
            3602.0,
        ),
    ],
)
def test_waits_that_a_rate_limit_names_otherwise(headers: dict[str, str], message: str, wait_s: float | None) -> None:
    """In the message, or as the reset of a limit of which nothing is left."""
    assert rate_limit_wait_s(headers, message) == wait_s
