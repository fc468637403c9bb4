"""The contract of stores as checks that any store can run, without a test framework.

>>> from promptkit_nb import MemoryStore
>>> from promptkit_nb.testing import check_state_store
>>> def test_my_store():
...     check_state_store(MemoryStore)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from promptkit_nb.testing import (
    conversation_checks,
    history_checks,
    listing_checks,
    notebook_checks,
    spending_checks,
    turn_checks,
    user_checks,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from promptkit_nb.stores.base import StateStore

    Check = Callable[[StateStore], None]

__all__ = ["CHECKS", "check_state_store"]

CHECKS: tuple[Check, ...] = (
    *conversation_checks.CHECKS,
    *turn_checks.CHECKS,
    *listing_checks.CHECKS,
    *history_checks.CHECKS,
    *spending_checks.CHECKS,
    *notebook_checks.CHECKS,
    *user_checks.CHECKS,
)


def check_state_store(open_store: Callable[[], StateStore]) -> None:
    """Hold a store to the contract of ``StateStore``.

    ``open_store`` returns a new, empty store. It is called once for each of ``CHECKS``, and closed after the check.
    All checks run; an ``AssertionError`` names each that failed, what it is about, and what was expected and found. A
    TTL is not checked, because each store is given one differently.

    >>> from promptkit_nb import MemoryStore
    >>> check_state_store(MemoryStore)
    """
    failures = [failure for check in CHECKS if (failure := _failure_of(check, open_store)) is not None]
    if failures:
        raise AssertionError(
            f"The store fails {len(failures)} of {len(CHECKS)} checks of the contract:\n\n" + "\n\n".join(failures)
        )


def _failure_of(check: Check, open_store: Callable[[], StateStore]) -> str | None:
    try:
        with open_store() as store:
            check(store)
    except Exception as error:  # noqa: BLE001 - a broken store may raise anything, and the other checks run on
        found = str(error) if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"
        return f"{check.__name__}: {check.__doc__}\n    {found}"
    return None
