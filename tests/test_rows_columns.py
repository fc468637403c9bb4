"""The columns of typed answers: every dtype, and values that have no place in one."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal, Optional

import pandas as pd
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typing_extensions import TypedDict

from promptkit_nb.rows.columns import DoesNotFitError, columns_of
from promptkit_nb.tools.answer_types import AnswerRejectedError, AnswerType


class Mood(Enum):
    """A mood."""

    GOOD = "good"
    BAD = "bad"


class Address(pydantic.BaseModel):
    """An address."""

    city: str
    zip: int | None


class Everything(pydantic.BaseModel):
    """One field of each kind."""

    label: Literal["bug", "idea"]
    mood: Mood
    stars: int | None
    score: float | None
    urgent: bool | None
    text: str | None
    day: date | None
    price: Decimal
    tags: list[str]
    address: Address | None


@dataclass
class Point:
    """A point."""

    x: int
    y: float


class Pair(TypedDict):
    """A pair."""

    a: int
    b: str


def frame_of(schema: Any, *answers: str, into: str | None = None) -> pd.DataFrame:
    """Return the columns of these answers, as a model writes them; an empty one is missing."""
    kind = AnswerType.of(schema)
    values = [kind.read(text) if text else None for text in answers]
    columns = columns_of(schema, into)
    return pd.DataFrame({each.name: each.array_of([each.value_in(value) for value in values]) for each in columns})


def test_every_dtype() -> None:
    """Missing values are missing, whatever the dtype; a nested model is flattened one level."""
    full = {
        "label": "bug",
        "mood": "bad",
        "stars": 3,
        "score": 0.5,
        "urgent": True,
        "text": "Hi",
        "day": "2026-03-01",
        "price": "1.10",
        "tags": ["a"],
        "address": {"city": "Porto", "zip": 4000},
    }
    sparse = full | dict.fromkeys(["stars", "score", "urgent", "text", "day", "address"])
    frame = frame_of(Everything, json.dumps(full), json.dumps(sparse), "")
    assert {name: str(dtype) for name, dtype in frame.dtypes.items()} == {
        "label": "category",
        "mood": "category",
        "stars": "Int64",
        "score": "Float64",
        "urgent": "boolean",
        "text": "str",
        "day": "datetime64[us]",
        "price": "object",
        "tags": "object",
        "address.city": "str",
        "address.zip": "Int64",
    }
    assert frame.iloc[0].to_dict() == {
        "label": "bug",
        "mood": "bad",
        "stars": 3,
        "score": 0.5,
        "urgent": True,
        "text": "Hi",
        "day": pd.Timestamp("2026-03-01"),
        "price": Decimal("1.10"),
        "tags": ["a"],
        "address.city": "Porto",
        "address.zip": 4000,
    }
    assert frame.isna().sum().tolist() == [1, 1, 2, 2, 2, 2, 2, 1, 1, 2, 2]


@pytest.mark.parametrize(
    ("schema", "answers", "dtype", "values"),
    [
        (["b", "a", "c"], ['{"value": "a"}', ""], "category", ["a", None]),
        (Literal["b", "a"], ['{"value": "a"}'], "category", ["a"]),
        (Literal[3, 1], ['{"value": 1}'], "category", [1]),
        (Mood, ['{"value": "good"}'], "category", ["good"]),
        (int, ['{"value": 7}', ""], "Int64", [7, None]),
        (Annotated[int, pydantic.Field(ge=0)], ['{"value": 7}'], "Int64", [7]),
        (Optional[int], ['{"value": null}'], "Int64", [None]),  # noqa: UP045 - people write it
        (float, ['{"value": 7}'], "Float64", [7.0]),
        (bool, ['{"value": false}', ""], "boolean", [False, None]),
        (str, ['{"value": ""}', ""], "str", ["", None]),
        (datetime, ['{"value": "2026-03-01T12:00:00"}'], "datetime64[us]", [pd.Timestamp("2026-03-01 12:00")]),
        (
            datetime,
            ['{"value": "2026-03-01T12:00:00+01:00"}', ""],
            "datetime64[us, UTC]",
            [pd.Timestamp("2026-03-01 11:00", tz="UTC"), None],
        ),
        (date, ['{"value": "0999-12-31"}'], "datetime64[us]", [pd.Timestamp("0999-12-31")]),
        (Decimal, ['{"value": "0.1"}'], "object", [Decimal("0.1")]),
        (list[str], ['{"value": ["a"]}', ""], "object", [["a"], None]),
        (list[Address], ['{"value": [{"city": "A", "zip": 1}]}'], "object", [[{"city": "A", "zip": 1}]]),
        (int | str, ['{"value": 1}', '{"value": "a"}'], "object", [1, "a"]),
    ],
)
def test_plain_types(schema: Any, answers: list[str], dtype: str, values: list[Any]) -> None:
    """One column, with all labels if they are given."""
    column = frame_of(schema, *answers, into="a")["a"]
    assert str(column.dtype) == dtype
    assert [None if pd.api.types.is_scalar(each) and pd.isna(each) else each for each in column] == values


def test_labels_keep_their_order() -> None:
    """All of them are categories, also those that no row has."""
    assert frame_of(["b", "a", "c"], '"a"', into="a")["a"].cat.categories.tolist() == ["b", "a", "c"]


def test_times_with_and_without_a_zone() -> None:
    """They cannot be compared, so they stay objects."""
    column = frame_of(datetime, '{"value": "2026-03-01T12:00:00"}', '{"value": "2026-03-01T12:00:00Z"}', into="a")["a"]
    assert str(column.dtype) == "object"


@pytest.mark.parametrize("schema", [{"a": int, "b": str}, Pair])
def test_dicts(schema: Any) -> None:
    """Of types, as of models."""
    assert frame_of(schema, '{"a": 1, "b": "x"}').to_dict("list") == {"a": [1], "b": ["x"]}


def test_dataclasses() -> None:
    """Their fields are columns, too."""
    assert {name: str(dtype) for name, dtype in frame_of(Point, '{"x": 1, "y": 2}').dtypes.items()} == {
        "x": "Int64",
        "y": "Float64",
    }


def test_the_whole_answers_beside_the_fields() -> None:
    """If a column for them is named."""
    frame = frame_of(Address, '{"city": "Porto", "zip": null}', into="address")
    assert frame.iloc[0].to_dict() == {"city": "Porto", "zip": None, "address": {"city": "Porto", "zip": None}}


def test_a_number_that_is_too_large() -> None:
    """An error, not a rounded number."""
    with pytest.raises(DoesNotFitError, match="a: 9223372036854775808 does not fit into Int64"):
        frame_of(int, '{"value": 9223372036854775808}', into="a")


KINDS: dict[Any, st.SearchStrategy[Any]] = {
    int: st.integers(-(2**63), 2**63 - 1),
    float: st.floats(allow_nan=False, allow_infinity=False),
    bool: st.booleans(),
    str: st.text(),
    Literal["a", "b"]: st.sampled_from(["a", "b"]),
    list[int]: st.lists(st.integers(), max_size=3),
    int | None: st.none() | st.integers(-5, 5),
}
JSON = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5) | st.lists(st.none())
)


@settings(max_examples=60)
@given(st.data(), st.dictionaries(st.sampled_from(["a", "b", "c"]), st.sampled_from([*KINDS]), min_size=1))
def test_valid_answers_round_trip(data: st.DataObject, schema: dict[str, Any]) -> None:
    """Whatever the schema: the columns hold what the answers say."""
    answers = data.draw(
        st.lists(st.fixed_dictionaries({name: KINDS[kind] for name, kind in schema.items()}), max_size=4)
    )
    frame = frame_of(schema, *map(json.dumps, answers))
    for at, answer in enumerate(answers):
        for name, value in answer.items():
            found = frame[name].iloc[at]
            assert (value is None and pd.isna(found)) or found == value


@settings(max_examples=60)
@given(
    st.dictionaries(st.sampled_from(["a", "b"]), st.sampled_from([*KINDS]), min_size=1),
    st.dictionaries(st.sampled_from(["a", "b"]), JSON),
)
def test_a_value_is_valid_or_an_error(schema: dict[str, Any], answer: dict[str, Any]) -> None:
    """Never a guess: what pydantic refuses is no value, and what it accepts is in the columns as it is."""
    fields: dict[str, Any] = {name: (kind, ...) for name, kind in schema.items()}
    model = pydantic.create_model("Model", **fields)
    text = json.dumps(answer)
    try:
        valid = model.model_validate_json(text)
    except pydantic.ValidationError:
        with pytest.raises(AnswerRejectedError):
            frame_of(schema, text)
        return
    try:
        frame = frame_of(schema, text)
    except DoesNotFitError:
        assert any(isinstance(value, int) and abs(value) >= 2**63 - 1 for value in answer.values())
        return
    for name in schema:
        value, found = getattr(valid, name), frame[name].iloc[0]
        assert (value is None and pd.isna(found)) or found == value
