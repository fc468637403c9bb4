"""How a magic fails: with one line that says what to do, instead of a page of traceback."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from promptkit_nb.asking.stopping import StoppedByUser
from promptkit_nb.errors import PromptKitError
from promptkit_nb.rendering.plain_text import one_line

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
R = TypeVar("R")


def fails_in_one_line(magic: Callable[P, R]) -> Callable[P, R]:
    """Make our errors fail the cell with one line that says what to do, instead of a page of traceback."""

    @wraps(magic)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return magic(*args, **kwargs)
        except PromptKitError as error:
            line = one_line(f"{type(error).__name__}: {error}")
            error._render_traceback_ = lambda: [line]  # type: ignore[attr-defined]
            raise
        except KeyboardInterrupt as stop:
            raise stop if isinstance(stop, StoppedByUser) else StoppedByUser("Stopped.") from None

    return run
