"""Charts of cost and tokens: their bars equal the figures of ``usage_df``."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from decimal import Decimal
from io import BytesIO
from typing import TYPE_CHECKING, Any

import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager

from promptkit_nb import InvalidArgumentError, MemoryStore, MissingDependencyError, Usage, plot_cost, plot_tokens
from promptkit_nb.views.fonts import _family_with
from promptkit_nb.views.zones import PERIODS as BY
from storing import said

if TYPE_CHECKING:
    from pathlib import Path

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


def test_chart_is_readable_in_any_theme(store: MemoryStore) -> None:
    """Its dark gray text, 8.4:1, is on white of its own, and pages in a dark theme invert it."""
    figure = plot_cost(store)
    (axes,) = figure.axes
    assert (figure.get_facecolor(), axes.patch.get_alpha()) == ((1, 1, 1, 1), 0)
    words = [axes.yaxis.label, *axes.get_xticklabels(), *axes.get_yticklabels()]
    assert {text.get_color() for text in words} == {"#4d4d4d"}
    assert 'body[data-jp-theme-light="false"]' in figure.html()


def test_chart_has_alternative_text(store: MemoryStore) -> None:
    """Its title, which is also its text."""
    bundle: Any = plot_cost(store)._repr_mimebundle_()
    assert bundle["text/plain"] == "Cost: $3.5000, and 1 turn without a price"
    assert 'alt="Cost: $3.5000, and 1 turn without a price" src="data:image/png;base64,' in bundle["text/html"]


def test_one_day_is_a_bar_among_seven() -> None:
    """The days before it are on the axis, too, and the amounts are round."""
    store = MemoryStore()
    store.append("a", said("x", created_at=datetime(2026, 11, 27, 12, tzinfo=UTC), cost=Decimal("0.0082")))
    (axes,) = plot_cost(store).axes
    assert [text.get_text() for text in axes.get_xticklabels()] == [f"{day} Nov" for day in range(27, 20, -1)]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["$0", "$0.0025", "$0.005", "$0.0075", "$0.01"]
    patches: Any = axes.patches
    assert [(round(bar.get_x(), 2), round(bar.get_width(), 2)) for bar in patches] == [(5.69, 0.62)]


def test_a_year_has_room_for_its_labels() -> None:
    """Seven at most, with the year where it is another; months and hours as short as they are clear."""
    store = MemoryStore()
    for day in (datetime(2025, 11, 28, 12, tzinfo=UTC), datetime(2026, 11, 27, 12, tzinfo=UTC)):
        store.append("a", said("x", created_at=day))
    labels = {by: [text.get_text() for text in plot_cost(store, by=by).axes[0].get_xticklabels()] for by in BY}
    assert labels["day"] == ["27 Nov", "5 Oct", "13 Aug", "21 Jun", "29 Apr", "7 Mar", "13 Jan"]
    assert (labels["week"][0], labels["week"][-1]) == ("23 Nov", "22 Dec 2025")
    assert labels["month"] == ["Nov 2026", "Sep", "Jul", "May", "Mar", "Jan 2026", "Nov"]
    assert labels["hour"][0] == "27 Nov 12:00"


def test_series_of_zeros_are_not_drawn() -> None:
    """Tokens that nobody used and models that cost nothing are in neither bars nor legend."""
    store = MemoryStore()
    for model, cost in (("free", "0"), ("small", "1"), ("large", "2")):
        store.append("a", said("x", model=model, cost=Decimal(cost)))
    assert legend(plot_cost(store)) == ["large", "small"]
    assert legend(plot_tokens(store)) == ["input", "output"]


@pytest.mark.filterwarnings("error")
def test_names_in_other_scripts_have_no_boxes(tmp_path: Path) -> None:
    """A font that has the characters draws them; without one, their codes are shown, as in a poor terminal."""
    store = MemoryStore()
    for name in ("通义千问", "さくら", "한국어"):
        store.append("a", said("x", model=name, cost=Decimal(1)))
    path = tmp_path / "three.ttf"
    path.write_bytes(font_with("通义千问さくら"))
    font_manager.fontManager.addfont(path)
    _family_with.cache_clear()
    try:
        figure = plot_cost(store)
        assert png(figure)
    finally:
        font_manager.fontManager.ttflist = [f for f in font_manager.fontManager.ttflist if f.fname != str(path)]
        _family_with.cache_clear()
    drawn: Any = figure.axes[0].get_legend()
    names = {text.get_text().strip(): text.get_fontfamily() for text in drawn.get_texts()}
    assert names == {
        "通义千问": ["sans-serif", "Three Scripts"],
        "さくら": ["sans-serif", "Three Scripts"],
        r"\ud55c\uad6d\uc5b4": ["sans-serif"],
    }


def font_with(characters: str) -> bytes:
    """Return a font that has only these characters, each as a square."""
    glyphs = {f"uni{ord(each):04X}": each for each in characters}
    pen = TTGlyphPen(None)
    for corner in ((0, 0), (0, 700), (700, 700), (700, 0)):
        (pen.moveTo if corner == (0, 0) else pen.lineTo)(corner)
    pen.closePath()
    square = pen.glyph()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", *glyphs])
    builder.setupCharacterMap({ord(each): name for name, each in glyphs.items()})
    builder.setupGlyf(dict.fromkeys([".notdef", *glyphs], square))
    builder.setupHorizontalMetrics(dict.fromkeys([".notdef", *glyphs], (800, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Three Scripts", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    file = BytesIO()
    builder.save(file)
    return file.getvalue()


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
