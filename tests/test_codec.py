"""The stored form: pinned, so that it never changes by accident, and read back exactly or rejected."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from enum import IntEnum, StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptkit_nb.codec import (
    check_format,
    checked,
    decode,
    decode_turn,
    encode,
    encode_turn,
    turn_and_line,
)
from promptkit_nb.errors import InvalidArgumentError, StoreCorruptedError, StoreUnavailableError
from promptkit_nb.json_values import json_copy
from promptkit_nb.state import Settings, Summary, Totals
from promptkit_nb.stores.layout import BranchRecord, Frame, Record
from promptkit_nb.turns import ContentPart, Message, ToolCall, Turn, Usage


class Colour(StrEnum):
    """A text with a name."""

    RED = "red"


class Level(IntEnum):
    """A number with a name."""

    HIGH = 3


AT = datetime(2026, 3, 1, 12, 0, 0, 250000, tzinfo=UTC)
GOLDEN = Path(__file__).parent / "data" / "turn.format1.jsonl"

TEXT = st.text(max_size=20)
NAME = st.text(max_size=8)
TIMES = st.datetimes(datetime(1970, 1, 1), datetime(9999, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - hypothesis adds the zone
MONEY = st.decimals(0, 10**9, places=18)
USAGES = st.builds(Usage, *[st.integers(0, 10**12)] * 4, st.booleans())
MESSAGES = st.builds(
    Message,
    st.sampled_from(["system", "user", "assistant", "tool"]),
    TEXT,
    timestamp=st.none() | TIMES,
    parts=st.lists(
        st.builds(
            ContentPart,
            st.sampled_from(["text", "image_url"]),
            TEXT,
            TEXT,
            st.sampled_from([None, "auto", "low", "high"]),
        ),
        max_size=2,
    ).map(tuple),
    tool_calls=st.lists(st.builds(ToolCall, NAME, NAME, TEXT), max_size=2).map(tuple),
    tool_call_id=st.none() | NAME,
    name=st.none() | NAME,
    reasoning=st.none() | TEXT,
)
TURNS = st.builds(
    Turn,
    messages=st.lists(MESSAGES, max_size=4).map(tuple),
    usage=USAGES,
    cost=st.none() | MONEY,
    model=NAME,
    provider=NAME,
    latency_ms=st.none() | st.floats(0, 1e9),
    finish_reason=st.none() | NAME,
    id=NAME.filter(lambda text: text.strip()),
    created_at=TIMES,
    requested_model=st.none() | NAME,
    price_source=st.none() | NAME,
    truncated=st.integers(0, 100),
    cell_id=st.none() | NAME,
    cell_call=st.integers(0, 100),
    cell_source=st.none() | TEXT,
    context_hash=st.none() | NAME,
    replay_key=st.none() | NAME,
    replayed=st.booleans(),
    inherited=st.booleans(),
    warnings=st.lists(NAME, max_size=2).map(tuple),
)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAME, inner, max_size=3),
    max_leaves=10,
)


PLAIN = Turn(
    messages=(Message("user", "My name is Alice"), Message("assistant", "Hello Alice!")),
    usage=Usage(12, 4),
    cost=Decimal("0.0019"),
    model="gpt-4o-mini",
    provider="openai",
    latency_ms=812.0,
    finish_reason="stop",
    id="18ea7851d2244c96be385cdae09d0f8e",
    created_at=AT,
)
FULL = Turn(
    messages=(
        Message(
            "user",
            "line\r\nbreak 🙂 \u2028",
            timestamp=AT,
            parts=(ContentPart("text", "t"), ContentPart("image_url", url="data:,x", detail="low")),
        ),
        Message("assistant", "", tool_calls=(ToolCall("call_1", "weather", '{"city": "Bern"}'),), reasoning="Hm."),
        Message("tool", "9 °C", tool_call_id="call_1", name="weather"),
        Message("assistant", "Nine degrees.", timestamp=AT + timedelta(seconds=2)),
    ),
    usage=Usage(1000, 500, 400, 300, estimated=True),
    cost=None,
    model="gpt-4o-mini-2024-07-18",
    provider="openai",
    latency_ms=1234.5,
    finish_reason="interrupted",
    id="0" * 32,
    created_at=AT,
    requested_model="gpt-4o-mini",
    price_source="genai-prices 0.2.3",
    truncated=3,
    cell_id="ab12cd34",
    cell_call=1,
    cell_source="%%chat\nHow warm is it?",
    context_hash="c" * 64,
    replay_key="d" * 64,
    replayed=True,
    inherited=True,
    warnings=("The context was cut.",),
)


@pytest.mark.parametrize(("place", "turn"), [(0, PLAIN), (1, FULL)])
def test_stored_form_of_a_turn_never_changes(place: int, turn: Turn) -> None:
    """Users keep these lines for years: format 1 is this, byte for byte, and is read as this."""
    line = GOLDEN.read_bytes().splitlines()[place]
    assert encode_turn(turn) == line
    assert decode_turn(line) == turn


RECORD = Record(
    cid=7,
    user_id="alice",
    created_at=AT,
    updated_at=AT,
    revision=3,
    turn_count=2,
    next_place=2,
    totals=Totals(16, Decimal("0.0019"), 1, 1),
)
FRAME = Frame(
    system_prompt="You help.",
    settings=Settings(model="gpt-4o-mini", parameters={"temperature": 0.5}),
    metadata={"topic": "travel"},
    summaries=(Summary("a", "b", "They met.", Usage(5, 1), None, "m", AT),),
    order=((0, 1), (3, None)),
    versions={"0": (8388608, 0)},
    branches=(BranchRecord(id="b1", ranges=((1, 3),), start=1, created_at=AT),),
)


@pytest.mark.parametrize(
    ("record", "stored"),
    [
        (
            RECORD,
            (
                b'{"cid":7,"user_id":"alice","created_at":"2026-03-01T12:00:00.250000Z",'
                b'"updated_at":"2026-03-01T12:00:00.250000Z","revision":3,"turn_count":2,"next_place":2,'
                b'"totals":{"tokens":16,"cost":"0.0019","priced":1,"unpriced":1}}'
            ),
        ),
        (
            FRAME,
            (
                b'{"system_prompt":"You help.","settings":{"model":"gpt-4o-mini","parameters":{"temperature":0.5},'
                b'"max_tokens":null,"context_policy":"truncate","prompt":null,"variables":{}},"metadata":{"topic":"travel"},'
                b'"summaries":[{"first_turn":"a","last_turn":"b","text":"They met.","usage":{"input_tokens":5,'
                b'"output_tokens":1,"cached_tokens":0,"reasoning_tokens":0,"estimated":false},"cost":null,"model":"m",'
                b'"created_at":"2026-03-01T12:00:00.250000Z"}],"dropped":{"tokens":0,"cost":"0","priced":0,"unpriced":0},'
                b'"order":[[0,1],[3,null]],"versions":{"0":[8388608,0]},"branches":[{"id":"b1","ranges":[[1,3]],"start":1,'
                b'"kind":"tail","context_hash":null,"created_at":"2026-03-01T12:00:00.250000Z"}]}'
            ),
        ),
    ],
    ids=["record", "frame"],
)
def test_stored_form_of_a_conversation_never_changes(record: Any, stored: bytes) -> None:
    """The other rows, byte for byte."""
    assert encode(record) == stored
    assert decode(stored, type(record)) == record


@given(TURNS)
def test_every_turn_comes_back_as_one_line(turn: Turn) -> None:
    """Equal in every field, money to the last digit; the line is valid JSON."""
    line = encode_turn(turn)
    assert decode_turn(line) == turn == turn_and_line(turn)[0]
    assert b"\n" not in line
    assert str(decode_turn(line).cost) == str(turn.cost)
    assert json.loads(line)["id"] == turn.id


@given(st.builds(Settings, model=st.none() | NAME, parameters=st.dictionaries(NAME, JSON, max_size=3)))
def test_every_setting_comes_back(settings: Settings) -> None:
    """With the types of JSON."""
    assert decode(encode(settings), Settings) == settings


@pytest.mark.parametrize("zone", [UTC, timezone(timedelta(hours=9)), timezone(timedelta(hours=-3, minutes=-30))])
def test_time_of_any_zone_is_the_same_moment(zone: timezone) -> None:
    """To the microsecond."""
    turn = Turn(messages=(), created_at=AT.astimezone(zone))
    assert decode_turn(encode_turn(turn)).created_at == AT


def test_unknown_fields_are_passed_over() -> None:
    """A later release of the same format may add fields."""
    assert decode_turn(encode_turn(PLAIN)[:-1] + b',"mood":"good"}') == PLAIN


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"{",
        b'"text"',
        b"\xff",
        b"\x00",
        encode_turn(PLAIN)[:-1],
        encode_turn(PLAIN) + b"{}",
    ],
)
def test_invalid_turn_is_corrupt(data: bytes) -> None:
    """Truncated, doubled, empty or other data: an error that shows how it begins, never a partial turn."""
    with pytest.raises(StoreCorruptedError, match="A stored Turn cannot be read"):
        decode_turn(data)


def test_error_of_a_corrupt_turn_shows_only_its_beginning() -> None:
    """Conversations are private and must not appear in error logs."""
    with pytest.raises(StoreCorruptedError) as caught:
        decode_turn(b'{"messages": 5, "secret": "' + b"x" * 10_000)
    assert len(str(caught.value)) < 400


def test_newer_format_is_refused_and_older_is_read() -> None:
    """The error says to update; nothing is partially read."""
    check_format(1, "The store")
    with pytest.raises(StoreUnavailableError, match=r"The store has format 2.*pip install -U promptkit-nb"):
        check_format(2, "The store")


@pytest.mark.parametrize(
    ("field", "given", "stored"),
    [
        ("model", "a\ud83db", "a\ufffdb"),
        ("cell_source", "\ud83d\ude42", "🙂"),
        ("warnings", ("ok", "\udc00"), ("ok", "\ufffd")),
        ("id", "\ud83d", "\ufffd"),
    ],
)
def test_half_emojis_are_cleaned_wherever_they_stand(field: str, given: object, stored: object) -> None:
    """Matching halves are joined; a lone one becomes U+FFFD; the turn is stored."""
    fields: dict[str, Any] = {field: given}
    assert getattr(decode_turn(encode_turn(Turn(messages=(), **fields))), field) == stored


def test_half_emojis_within_messages_are_cleaned() -> None:
    """In content, reasoning, parts and tool calls."""
    message = Message(
        "assistant",
        "\ud83d",
        reasoning="\ude42",
        tool_calls=(ToolCall("1", "f", '"\ud83d"'),),
        parts=(ContentPart("text", "\ud83d"),),
    )
    (found,) = turn_and_line(Turn(messages=(message,)))[0].messages
    assert (found.content, found.reasoning) == ("\ufffd", "\ufffd")
    assert (found.tool_calls[0].arguments, found.parts[0].text) == ('"\ufffd"', "\ufffd")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"cost": "free"}, r"Invalid decimal.*\$\.cost"),
        ({"cost": Decimal("NaN")}, "cost cannot be NaN"),
        ({"cost": Decimal("-Infinity")}, "cost cannot be -Infinity"),
        ({"cost": Decimal("-0.01")}, "cost cannot be -0.01; give US dollars from 0"),
        ({"usage": Usage(-1, 5)}, r"usage cannot be Usage\(input_tokens=-1"),
        ({"id": " "}, "id is blank"),
        ({"messages": (Message("assistant", None),)}, "Expected `str`, got `null` - at `\\$.messages"),  # type: ignore[arg-type]  # OpenAI's name for it
        ({"id": "a\ud83d"}, "id is 'a.ud83d', which has half of a character"),
        ({"usage": Usage(1.5, 0)}, "input_tokens"),  # type: ignore[arg-type]  # a mistake of the caller
        ({"usage": None}, "usage"),
        ({"messages": (Message("robot", "x"),)}, "robot"),  # type: ignore[arg-type]  # same
        ({"messages": "hello"}, "This Turn cannot be stored"),
        ({"model": None}, "model"),
        ({"latency_ms": "fast"}, "latency_ms"),
        ({"created_at": datetime(2026, 3, 1)}, "no time zone"),  # noqa: DTZ001 - on purpose
        ({"messages": (Message("user", "x", timestamp=datetime(2026, 3, 1)),)}, "no time zone"),  # noqa: DTZ001 - same
        ({"cell_source": object()}, "object"),
    ],
)
def test_turn_that_could_not_be_read_back_is_refused(fields: dict[str, Any], words: str) -> None:
    """Before it is written; the error names the field."""
    with pytest.raises(InvalidArgumentError, match=words):
        turn_and_line(Turn(**{"messages": (), **fields}))


@given(TURNS, TURNS)
def test_what_is_appended_is_what_is_read_back(one: Turn, other: Turn) -> None:
    """Also if a turn of the same types was stored before and is not read back again."""
    for turn in (one, other, one, other):
        kept, line = turn_and_line(turn)
        assert decode_turn(line) == kept == turn


@pytest.mark.parametrize(
    ("field", "given", "kept"),
    [
        ("latency_ms", float("nan"), None),
        ("latency_ms", 5, 5.0),
        ("cost", 0.25, Decimal("0.25")),
        ("model", Colour.RED, "red"),
        ("model", "half\ud83d", "half\ufffd"),
        ("messages", [Message("user", "Hi")], (Message("user", "Hi"),)),
        ("usage", {"input_tokens": 1, "output_tokens": 2}, Usage(1, 2)),
    ],
)
def test_value_that_is_kept_as_another_is_so_each_time(field: str, given: Any, kept: object) -> None:
    """However many turns with plain values were stored before it."""
    plain = Turn(messages=(Message("user", "Hi"),), model="m", cost=Decimal("0.25"), latency_ms=5.0, usage=Usage(1, 2))
    for turn in (plain, plain, replace(plain, **{field: given}), replace(plain, **{field: given})):
        found, line = turn_and_line(turn)
        assert found == decode_turn(line)
    assert (getattr(found, field), type(getattr(found, field))) == (kept, type(kept))


@pytest.mark.parametrize(
    "wrong",
    [
        {"messages": (Message("robot", "Hi"),)},  # type: ignore[arg-type]  # a mistake of the caller
        {"messages": (ContentPart("text", "Hi"),)},
        {"cost": Decimal("NaN")},
        {"usage": Usage(-1, 2)},
        {"created_at": datetime(2026, 3, 1)},  # noqa: DTZ001 - on purpose
    ],
)
def test_turn_of_known_types_is_checked_all_the_same(wrong: dict[str, Any]) -> None:
    """Its role, its messages, its cost, its tokens and its times."""
    plain = Turn(messages=(Message("user", "Hi"),), usage=Usage(1, 2), cost=Decimal(1))
    turn_and_line(plain)
    with pytest.raises(InvalidArgumentError):
        turn_and_line(replace(plain, **wrong))


def test_decoders_are_made_one_at_a_time() -> None:
    """A thread that stores its first turn while another one does waits for it; msgspec would crash the process."""
    program = """
import threading
from msgspec import _utils
from promptkit_nb import MemoryStore, Message, Turn

annotations = _utils.get_class_annotations
building, never = threading.Event(), threading.Event()

def slow(kind):
    if kind is Message and not building.is_set():
        building.set()
        never.wait(0.3)
    return annotations(kind)

_utils.get_class_annotations = slow
store = MemoryStore()
turns = [Turn(messages=(Message("user", text),)) for text in "xy"]
threads = [threading.Thread(target=store.append, args=("a", turn)) for turn in turns]
threads[0].start()
building.wait()
threads[1].start()
for thread in threads:
    thread.join()
print(len(store.get("a").turns))
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (0, "2\n"), run.stderr


@pytest.mark.parametrize("wrong", [None, {}, "turn", Usage(1, 1)])
def test_only_turns_are_turns(wrong: Any) -> None:
    """The error names other types."""
    with pytest.raises(InvalidArgumentError, match=f"A {type(wrong).__name__} is not a Turn"):
        turn_and_line(wrong)


def test_record_that_could_not_be_read_back_is_refused() -> None:
    """Settings that JSON cannot hold, for example."""
    with pytest.raises(InvalidArgumentError, match="This Settings cannot be stored"):
        checked(Settings(parameters={"stop": object()}))


@given(JSON)
def test_json_copies_are_equal_and_apart(value: object) -> None:
    """Changes to the copy do not change the original."""
    copied = json_copy({"value": value}, "metadata")
    assert copied == {"value": value}
    assert json.dumps(copied) == json.dumps({"value": value})
    copied["value"] = "changed"
    assert value != "changed" or copied == {"value": "changed"}


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (np.float64(1.5), 1.5),
        (np.float32(0.5), 0.5),
        (np.int64(1), 1),
        (np.bool_(True), True),  # noqa: FBT003 - its constructor
        (np.str_("text"), "text"),
        (Colour.RED, "red"),
        (Level.HIGH, 3),
        ((1, (2,)), [1, [2]]),
        (MappingProxyType({"a": 1}), {"a": 1}),
        (-0.0, -0.0),
        (2**64 - 1, 2**64 - 1),
    ],
)
def test_json_copy_keeps_the_value_of_what_is_nearly_plain(value: object, plain: object) -> None:
    """NumPy floats, enumerations and tuples become plain values."""
    copied = json_copy({"value": value}, "metadata")["value"]
    assert (copied, type(copied)) == (plain, type(plain))


@pytest.mark.parametrize("value", [np.array([1]), {1, 2}, b"x", object(), Decimal(1), AT, 1j, range(3)])
def test_json_copy_refuses_what_json_lacks(value: object) -> None:
    """With its type and position."""
    name = type(value).__name__
    with pytest.raises(InvalidArgumentError, match=rf"metadata\['a'\]\[1\] is .*{name}, which is not JSON"):
        json_copy({"a": [0, value]}, "metadata")
