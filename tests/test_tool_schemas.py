"""What a model is told of a Python function, and the functions that cannot be tools."""

from __future__ import annotations

import functools
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from enum import Enum
from typing import Annotated, Any, Literal

import pandas as pd
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptkit_nb import InvalidArgumentError
from promptkit_nb.tools.arguments import ArgumentsRejectedError, read_arguments
from promptkit_nb.tools.results import MAX_CHARACTERS, result_text, shape_text
from promptkit_nb.tools.tool import Tool


class Size(Enum):
    """A size."""

    SMALL = "s"
    LARGE = "l"


class Address(pydantic.BaseModel):
    """An address."""

    city: str
    zip: int | None = None


@dataclass
class Shop:
    """An object with methods."""

    name: str

    def stock(self, item: str) -> int:
        """Return how many there are."""
        return len(self.name + item)

    def __call__(self, item: str) -> int:
        """Order one."""
        return self.stock(item)


def properties(function: Any) -> dict[str, Any]:
    """Return the properties of the schema of a function."""
    found: dict[str, Any] = Tool.of(function).schema["properties"]
    return found


def test_types_that_models_know() -> None:
    """Texts, numbers, choices, lists, dates, models; a hint's own description is kept."""

    def search(  # type: ignore[no-untyped-def]  # noqa: PLR0917 - one has no hint
        text: str,
        kind: Literal["a", "b"],
        size: Size,
        days: list[date],
        where: Address,
        ratio: float = 0.5,
        note: Annotated[str | None, pydantic.Field(description="Anything else.")] = None,
        free=None,  # noqa: ANN001 - without a hint, on purpose
    ) -> None:
        """Search."""

    found = properties(search)
    assert found["text"] == {"type": "string"}
    assert found["kind"] == {"type": "string", "enum": ["a", "b"]}
    assert found["days"] == {"type": "array", "items": {"type": "string", "format": "date"}}
    assert found["ratio"] == {"type": "number", "default": 0.5}
    assert found["note"]["description"] == "Anything else."
    assert found["free"] == {"default": None}
    assert Tool.of(search).schema["required"] == ["text", "kind", "size", "days", "where"]


def test_arguments_arrive_as_the_types_of_the_hints() -> None:
    """Models, enums and dates are objects; what the model leaves out is left to the function."""

    def visit(where: Address, size: Size, day: date, limit: int = 3) -> None:
        """Visit."""

    given_json = {"where": {"city": "Bern"}, "size": "l", "day": "2026-11-28"}
    assert Tool.of(visit).arguments(given_json) == {
        "where": Address(city="Bern"),
        "size": Size.LARGE,
        "day": date(2026, 11, 28),
    }


def test_parameters_may_have_any_name() -> None:
    """Those of pydantic's own models, too."""

    def odd(  # noqa: PLR0917 - as above
        json: str, copy: int, model_config: str, schema: str, title: str, self_: int = 0
    ) -> None:
        """Be odd."""

    tool = Tool.of(odd)
    assert list(tool.schema["properties"]) == ["json", "copy", "model_config", "schema", "title", "self_"]
    arguments = {"json": "a", "copy": 1, "model_config": "b", "schema": "c", "title": "d"}
    assert tool.arguments(arguments) == arguments


def test_methods_and_partials() -> None:
    """What is bound is not a parameter."""
    shop = Shop("ACME")
    assert (Tool.of(shop.stock).name, list(properties(shop.stock))) == ("stock", ["item"])
    assert Tool.of(shop, name="order").description.startswith("An object with methods")
    partial = functools.partial(lambda a, b: a + b, 1)
    assert Tool.of(partial, name="add").arguments({"b": 2}) == {"b": 2}


def test_a_result_of_an_undefined_type_does_not_matter() -> None:
    """Only parameters are read."""

    def make(n: int) -> Undefined:  # type: ignore[name-defined]  # noqa: F821 - on purpose
        """Make it."""

    assert list(properties(make)) == ["n"]


def test_a_decorated_function_keeps_its_parameters() -> None:
    """As functools.wraps promises."""

    def plain(n: int) -> int:
        """Return it."""
        return n

    @functools.wraps(plain)
    def decorated(*args: Any, **kwargs: Any) -> int:
        return plain(*args, **kwargs)

    assert (Tool.of(decorated).name, list(properties(decorated))) == ("plain", ["n"])


def test_a_long_docstring_is_cut() -> None:
    """OpenAI refuses a description of more than 1,024 characters."""

    def wordy() -> None: ...

    wordy.__doc__ = "word " * 1000
    assert len(Tool.of(wordy).description) == 1_024


def takes_a_frame(frame: pd.DataFrame) -> None: ...
def takes_more(*rest: int) -> None: ...
def takes_options(**options: int) -> None: ...
def takes_a_place(at: int, /) -> None: ...
def takes_the_unknown(at: Unknown) -> None: ...  # type: ignore[name-defined]  # noqa: F821 - on purpose


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (takes_a_frame, "let it read a DataFrame from the notebook instead"),
        (takes_more, r"Tool 'takes_more' takes \*rest: a model has to know each parameter"),
        (takes_options, r"Tool 'takes_options' takes \*\*options"),
        (takes_a_place, "positional-only parameter 'at', which a model cannot name: remove the slash"),
        (takes_the_unknown, "type of parameter 'at' of tool 'takes_the_unknown' is unknown .*define or import it"),
        (lambda: 1, 'has no name that a model can use: give one, with name="…"'),
        (functools.partial(print), "The parameters of 'print' are unknown|takes \\*args"),
        ("orders", "'orders' is not a function"),
    ],
)
def test_functions_that_cannot_be_tools(function: Any, words: str) -> None:
    """The error says what to change."""
    with pytest.raises(InvalidArgumentError, match=words):
        Tool.of(function)


@pytest.mark.parametrize("name", ["a b", "ü", "", "x" * 65, "a.b"])
def test_names_that_servers_refuse(name: str) -> None:
    """Letters, digits, underscores and dashes are allowed, up to 64."""
    with pytest.raises(InvalidArgumentError, match="A tool cannot be named"):
        Tool(name, "", {}, print)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"timeout": 0}, "timeout=0 is out of range"),
        ({"timeout": "1"}, "timeout='1' is not a number of seconds"),
        ({"approve": "always"}, "approve='always' is unknown"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], words: str) -> None:
    """The error names the value."""
    with pytest.raises(InvalidArgumentError, match=words):
        Tool.of(Shop("ACME").stock, **options)


@settings(max_examples=50)
@given(st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | st.text(), max_size=3))
def test_json_objects_are_read_back(value: dict[str, Any]) -> None:
    """As written, in a fence, and written as JSON twice."""
    text = pydantic.TypeAdapter(dict[str, Any]).dump_json(value).decode()
    for written in (text, f"```json\n{text}\n```", f"{text}</tool_call>", pydantic.TypeAdapter(str).dump_json(text)):
        assert read_arguments(written if isinstance(written, str) else written.decode()) == value


@settings(max_examples=50)
@given(st.text())
def test_arguments_are_an_object_or_an_error(text: str) -> None:
    """Whatever a model writes."""
    with suppress(ArgumentsRejectedError):
        assert isinstance(read_arguments(text), dict)


def test_nested_without_end() -> None:
    """Thousands of brackets are an error, not a crash."""
    with pytest.raises(ArgumentsRejectedError):
        read_arguments('{"a":' + "[" * 50_000)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "Done; nothing was returned."),
        ("Two.", "Two."),
        ([1, None, "a"], '[1, null, "a"]'),
        (Address(city="Bern"), '{"city": "Bern", "zip": null}'),
        (b"\x00\x01", "b'\\x00\\x01'"),
        (pd.Series([1], name="n"), "Series, 1 value, name n, dtype int64\n\n|  | n |\n| --- | --- |\n| 0 | 1 |"),
        (b"\x89PNG\r\n\x1a\n", "An image, shown to the user."),
    ],
)  # fmt: skip
def test_results_as_the_model_reads_them(value: object, text: str) -> None:
    """Short, and as in chat cells."""
    assert result_text(value) == text


def test_long_results_are_cut_and_say_so() -> None:
    """The last line has the whole length."""
    told = result_text("x" * 10_000)
    assert (
        told == "x" * MAX_CHARACTERS + "\n(The first 4,000 of 10,000 characters; ask for less, filtered or aggregated.)"
    )


def test_a_result_that_cannot_be_shown() -> None:
    """Its type is told."""

    class Silent:
        def __repr__(self) -> str:
            raise RuntimeError

        __str__ = __repr__

    assert result_text(Silent()) == "<Silent, whose repr raises RuntimeError>"


def test_figures_are_named_with_their_titles() -> None:
    """A chat request has no pictures in results."""
    pyplot = pytest.importorskip("matplotlib.pyplot")
    figure, axes = pyplot.subplots()
    axes.set_title("Sales")
    assert result_text(figure) == "A figure, shown to the user: Sales."
    assert result_text(axes) == "A figure, shown to the user: Sales."
    pyplot.close(figure)


def test_shapes_for_the_line_of_a_call() -> None:
    """A few words for each kind."""
    frame = pd.DataFrame({"a": [1, 2]})
    shown = [shape_text(value) for value in (frame, {"a": 1}, (1, 2), 3.5, "", object())]
    assert shown == ["DataFrame 2 × 1", "dict of 1", "tuple of 2", "3.5", "empty text", "object"]  # noqa: RUF001 - as shown
