"""Charts of cost and tokens: their bars equal the figures of ``usage_df``."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from promptkit_nb import InvalidArgumentError, MemoryStore, MissingDependencyError, Usage, plot_cost, plot_tokens
from storing import said

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@pytest.fixture
def store() -> MemoryStore:
    """A memory store with turns on two days by three models, one of them without a price."""
    store = MemoryStore()
    for day, model, cost in ((1, "small", "0.5"), (1, "large", "2"), (2, "large", "1"), (2, "mine", None)):
        turn = said(
            "x",
            created_at=datetime(2026, 3, day, 12, tzinfo=UTC),
            model=model,
            cost=None if cost is None else Decimal(cost),
            usage=Usage(100, 30, cached_tokens=40, reasoning_tokens=10),
        )
        store.append(model, turn)
    return store


def legend(figure: Figure) -> list[str]:
    """Return the texts of the legend."""
    (axes,) = figure.axes
    found = axes.get_legend()
    return [] if found is None else [text.get_text().strip() for text in found.get_texts()]


def bars(figure: Figure) -> dict[str, list[float]]:
    """Return the heights of the bars of each series."""
    (axes,) = figure.axes
    containers: Any = axes.containers  # of bars alone
    return {bar.get_label(): [float(patch.get_height()) for patch in bar.patches] for bar in containers}


def png(figure: Any) -> bytes:
    """Return the image as a notebook shows it."""
    picture: bytes = figure._repr_png_()
    assert picture.startswith(b"\x89PNG")
    return picture


def test_bars_are_costs_by_day_and_model(store: MemoryStore) -> None:
    """The most expensive series is first; turns without a price are only in the title."""
    figure = plot_cost(store)
    assert bars(figure) == {"large": [2.0, 1.0], "small": [0.5, 0.0]}
    assert figure.axes[0].get_title(loc="left") == "Cost: $3.5000, and 1 turn without a price"


def test_bars_without_series_are_totals(store: MemoryStore) -> None:
    """Filters apply as in ``usage_df``."""
    assert bars(plot_cost(store, by="day")) == {"cost_usd": [2.5, 1.0]}
    assert bars(plot_cost(store, by="month", model="large")) == {"cost_usd": [3.0]}


def test_token_bars_are_parts_of_a_whole(store: MemoryStore) -> None:
    """Cached input and reasoning are separate series, and no token is drawn twice."""
    figure = plot_tokens(store)
    assert bars(figure) == {
        "input": [120.0, 120.0],
        "cached": [80.0, 80.0],
        "output": [40.0, 40.0],
        "reasoning": [20.0, 20.0],
    }
    assert figure.axes[0].get_title(loc="left") == "Tokens: 520"


def test_smallest_of_many_series_are_merged() -> None:
    """With more than eight series, the smallest become one."""
    store = MemoryStore()
    for number in range(1, 13):
        store.append("a", said("x", model=f"m{number:02}", cost=Decimal(number)))
    found = bars(plot_cost(store))
    assert list(found) == ["m12", "m11", "m10", "m09", "m08", "m07", "m06", "others"]
    assert found["others"] == [15.0]


def test_model_named_others_is_counted_once() -> None:
    """A model named ``others`` is added to the bar of the rest."""
    store = MemoryStore()
    for number in range(1, 13):
        name = "others" if number == 12 else f"m{number:02}"
        store.append("a", said("x", model=name, cost=Decimal(number)))
    found = bars(plot_cost(store))
    assert sum(height for heights in found.values() for height in heights) == 78.0


def test_names_are_shown_as_they_are() -> None:
    """Dollar signs are not formulas, a leading underscore hides nothing, and long names are cut."""
    store = MemoryStore()
    names = ["_hidden", "$x$ and $\\bad{", "<b>bold</b>", "long " * 20]
    for number, name in enumerate(names):
        store.append("a", said("x", model=name, cost=Decimal(4 - number)))
    figure = plot_cost(store)
    assert legend(figure) == ["_hidden", "$x$ and $\\bad{", "<b>bold</b>", "long long long long long lo…"]
    assert png(figure)


def test_chart_is_readable_on_white_and_on_black(store: MemoryStore) -> None:
    """Its background is transparent, and its text is gray."""
    figure = plot_cost(store)
    (axes,) = figure.axes
    assert (figure.patch.get_alpha(), axes.patch.get_alpha()) == (0, 0)
    words = [axes.yaxis.label, *axes.get_xticklabels(), *axes.get_yticklabels()]
    assert {text.get_color() for text in words} == {"#7f7f7f"}


@pytest.mark.parametrize("plot", [plot_cost, plot_tokens], ids=lambda plot: plot.__name__)
def test_empty_store_has_a_chart(plot: Any) -> None:
    """An empty store's chart says that nothing was paid."""
    figure = plot(MemoryStore(), by="day")
    assert [text.get_text() for text in figure.axes[0].texts] == ["nothing was paid"]
    assert png(figure)


@pytest.mark.parametrize("plot", [plot_cost, plot_tokens], ids=lambda plot: plot.__name__)
def test_same_store_gives_the_same_image(plot: Any, store: MemoryStore) -> None:
    """The images are equal, byte for byte."""
    first = png(plot(store))
    assert png(plot(store)) == first


@pytest.mark.parametrize("by", ["model", "day,week", "day,model,user_id", [], "year"])
def test_other_keys_are_refused(by: Any, store: MemoryStore) -> None:
    """The keys need exactly one period."""
    with pytest.raises(InvalidArgumentError, match=r"by=.* cannot be drawn: give one of hour, day, week, month"):
        plot_cost(store, by=by)


def test_tokens_are_drawn_by_period_alone(store: MemoryStore) -> None:
    """The series are the four kinds of tokens."""
    with pytest.raises(InvalidArgumentError, match="by='day,model' is not a single period"):
        plot_tokens(store, by="day,model")


def test_pyplot_is_not_imported(store: MemoryStore) -> None:
    """A chart does not import pyplot, so no figure stays open and no backend is chosen."""
    script = (
        "import sys; from promptkit_nb import MemoryStore, plot_cost; plot_cost(MemoryStore())._repr_png_(); "
        "print('matplotlib.pyplot' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout == "False\n"


def test_without_matplotlib_the_error_says_what_to_install(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the extra."""
    monkeypatch.delitem(sys.modules, "promptkit_nb.views.pictures", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'promptkit-nb\[plots\]'"):
        plot_cost(store)
