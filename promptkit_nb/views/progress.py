"""A progress bar over what is read, where that takes longer than a moment."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from promptkit_nb.rendering.frontend import is_batch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FEWEST_TURNS = 50_000
"""Fewer are read within a second."""

DELAY_S = 2


@contextmanager
def reading(turns: int) -> Iterator[Callable[[int], object]]:
    """Give what is to be called with each number of turns read; a bar shows after two seconds, and goes at the end.

    In a batch run there is none, as it would be in the saved output.
    """
    if turns < FEWEST_TURNS or is_batch():
        yield lambda _: None
        return
    from tqdm.auto import tqdm  # noqa: PLC0415 - a fifth of a second, which few turns do not need

    with tqdm(total=turns, desc="Reading", unit=" turns", unit_scale=True, delay=DELAY_S, leave=False) as bar:
        yield bar.update
