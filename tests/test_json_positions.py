"""Positions of JSON pointers in a file."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from promptkit_nb.packs.files import positions_of, repeated_keys
from promptkit_nb.packs.schema import keys_of, pointer_to

TEXT = """{
  "a": [10, {"b~c/d": "}],:\\"" }, []],
  "\\u0061\\u0062": {"x": null}
}"""


def place(pointer: str) -> str:
    """Return line and column of a pointer in the text."""
    found = positions_of(TEXT, [pointer])[pointer]
    return f"{found.line}:{found.column}"


def test_members_are_at_their_keys_and_items_at_their_values() -> None:
    """Escaped keys, punctuation in strings and empty arrays are handled."""
    assert place("") == "1:1"
    assert place("/a") == "2:3"
    assert place("/a/0") == "2:9"
    assert place("/a/1") == "2:13"
    assert place("/a/1/b~0c~1d") == "2:14"
    assert place("/a/2") == "2:35"
    assert place("/ab/x") == "3:20"


def test_missing_values_have_the_position_of_what_is_around_them() -> None:
    """A missing value has the position of the object around it."""
    assert place("/ab/missing/deep") == "3:3"
    assert place("/zzz") == "1:1"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=10,
)


def pointers_in(value: Any, pointer: str = "") -> list[tuple[str, str]]:
    """Return all pointers in the value with the JSON at their positions."""
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = []
    for key, item in members:
        inner = pointer_to(pointer, key)
        found += [(inner, json.dumps(key if isinstance(value, dict) else item)), *pointers_in(item, inner)]
    return found


@given(data=st.dictionaries(st.text(max_size=4), JSON, max_size=4), indent=st.sampled_from([None, 0, 2]))
def test_any_pointer_leads_to_its_position(data: dict[str, Any], indent: int | None) -> None:
    """Positions are right for any layout of the JSON."""
    text = json.dumps(data, indent=indent)
    lines = text.split("\n")
    expected = pointers_in(data)
    found = positions_of(text, [pointer for pointer, _ in expected])
    for pointer, written in expected:
        position = found[pointer]
        assert text[position.offset :].startswith(written[:1])
        assert lines[position.line - 1][position.column - 1] == text[position.offset]
        assert keys_of(pointer_to("", *keys_of(pointer))) == keys_of(pointer)
    assert list(repeated_keys(text)) == []


def test_repeated_keys_are_found_at_every_depth() -> None:
    """Repeated keys are found with pointer and both positions."""
    found = [
        (pointer, str(first), str(second))
        for pointer, _, first, second in repeated_keys('{"a": {"b": 1,\n "b": [{"c": 1}, {"c": 2, "c": 3}]}}')
    ]
    assert found == [
        ("/a/b", "line 1, column 8", "line 2, column 2"),
        ("/a/b/1/c", "line 2, column 19", "line 2, column 27"),
    ]
