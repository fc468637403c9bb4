"""Requests made from packs: parameters, overrides, stop sequences and variables on the wire."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from newsroom import NEWSROOM
from promptkit_nb import (
    ConversationManager,
    DemoProvider,
    MemoryStore,
    MissingVariableError,
    OpenAIProvider,
    PackError,
    PackValidationError,
    load_pack,
)
from test_pack_dialect import OLDER, prompt_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chat_server import ChatServer
    from promptkit_nb.providers.base import ChatRequest, StreamEvent


@pytest.fixture
def manager(chat_server: ChatServer) -> ConversationManager:
    """Return a manager whose conversations go to the loopback server."""
    return ConversationManager(OpenAIProvider("gpt-4o-mini", api_key="key", base_url=chat_server.url))


def test_all_parameters_and_the_override_of_the_model_are_sent(
    manager: ConversationManager, chat_server: ChatServer
) -> None:
    """The longest matching pattern applies; null is not sent."""
    conv = manager.new_conversation(manager.load_pack(NEWSROOM, strict=True), prompt_name="draft")
    conv.variables["topic"] = "harbours"
    conv.send("Go.")
    body = chat_server.requests[-1].body
    sent = {key: body[key] for key in ("temperature", "top_p", "frequency_penalty", "presence_penalty", "max_tokens")}
    assert sent == {
        "temperature": 0.4,
        "top_p": 0.95,
        "frequency_penalty": 0.2,
        "presence_penalty": -0.2,
        "max_tokens": 900,
    }
    assert "top_k" not in body
    assert body["messages"][0]["content"].startswith(
        "Think first.\nYou write about harbours for readers, in 300 words."
    )


def test_stop_sequences_of_older_packs_are_sent(manager: ConversationManager, chat_server: ChatServer) -> None:
    """Stop sequences are kept as extras and still sent."""
    conv = manager.new_conversation(manager.load_pack(OLDER), variables={"name": "Ann"})
    conv.send("Hi")
    body = chat_server.requests[-1].body
    assert body["stop"] == ["END"]
    assert body["messages"][0]["content"] == "You are warm to Ann."


def test_misspelled_variable_raises_before_anything_is_sent(
    manager: ConversationManager, chat_server: ChatServer
) -> None:
    """A misspelled variable raises before the request; with the right name the next send works."""
    conv = manager.new_conversation(manager.load_pack(OLDER), variables={"name": "Ann", "tnoe": "cool"})
    with pytest.raises(MissingVariableError, match="no variable 'tnoe'; did you mean 'tone'"):
        conv.send("Hi")
    assert chat_server.requests == []
    assert conv.turns == ()
    del conv.variables["tnoe"]
    conv.variables["tone"] = "cool"
    conv.send("Hi")
    assert chat_server.requests[-1].body["messages"][0]["content"] == "You are cool to Ann."


def test_braces_of_the_user_stay(manager: ConversationManager, chat_server: ChatServer) -> None:
    """User messages are never rendered, neither when sent nor as history."""
    conv = manager.new_conversation(manager.load_pack(OLDER), variables={"name": "Ann"})
    conv.send("Tell me {{name}}.")
    conv.send("Again.")
    assert [message["content"] for message in chat_server.requests[-1].body["messages"]][1] == "Tell me {{name}}."


class RecordingProvider(DemoProvider):
    """Keeps the requests."""

    def __init__(self) -> None:
        """Start without requests."""
        super().__init__()
        self.requests: list[ChatRequest] = []

    def stream(self, request: ChatRequest, **options: Any) -> Iterator[StreamEvent]:
        """Keep the request and answer it."""
        self.requests.append(request)
        return super().stream(request, **options)


def test_unsupported_placeholder_is_refused_before_any_call() -> None:
    """At the start for the conversation's model, at the send for another; ``system_prompt=`` is not a template."""
    provider = RecordingProvider()
    manager = ConversationManager(provider)
    with pytest.raises(PackValidationError, match=r"contains \{\{name \| upper\}\} at line 1, column 4"):
        manager.new_conversation(load_pack(prompt_in(system_template="Hi {{name | upper}}")))
    pack = load_pack(prompt_in(model_overrides={"other": {"system_template": "Hi {{1}}"}}))
    conv = manager.new_conversation(pack)
    conv.send("{{1}}")
    with pytest.raises(PackValidationError, match=r"contains \{\{1\}\}"):
        conv.send("Again.", model="other")
    assert len(provider.requests) == 1
    assert len(conv.turns) == 1
    manager.new_conversation(system_prompt="Hi {{name | upper}}").send("Hi")
    assert provider.requests[-1].messages[0].content == "Hi {{name | upper}}"


def test_conversation_that_began_earlier_goes_on_with_a_warning() -> None:
    """Its stored prompt is sent as before, also if the same pack is given again; a changed pack is checked."""
    provider, store = RecordingProvider(), MemoryStore()
    manager = ConversationManager(provider, store=store)
    data = prompt_in(system_template="Hi {{name | upper}}.")
    conv = manager.new_conversation(system_prompt="Hi", conversation_id="older")
    snapshot = load_pack(data).prompt().snapshot()
    del snapshot["placeholders"]
    state = store.get("older")
    store.set(replace(state, settings=replace(state.settings, prompt=snapshot)), expected_revision=state.revision)
    response = conv.send("Hello")
    assert provider.requests[-1].messages[0].content == "Hi {{name | upper}}."
    assert [warning.split(":")[0] for warning in response.warnings] == [
        "Prompt 'a' contains {{name | upper}} at line 1, column 4, but filters are unsupported"
    ]
    again = manager.get_conversation("older", pack=load_pack(data))
    assert again.send("Hello").warnings == response.warnings
    data["prompts"]["a"]["system_template"] += " Be kind."
    with pytest.raises(PackValidationError, match="filters are unsupported"):
        manager.get_conversation("older", pack=load_pack(data)).send("Hello")
    assert len(provider.requests) == 2


DATA = "«{{data}} ${data} {data}»"
RENDERED = "{{a}} {{fragments.f}} {{fragment:f}} {{f}} {{current_date}} {{{a}}} {{a text} {&} ${a} {a} {b} {%&if&a&%}"
UNSUPPORTED = """
    {{b}} {{&b}} {{fragment:&g}} {{fragments.nope}} {{a&|&upper}} {{user&name}} {{1}} {{persona_{{a}}}} {{#if&a}}
    {{/if}} {{>&part}} {{}} {{&}} {{{{a}}}} {{.a}} {{a.b}} {{&a~&b}} {{ }} ${b} ${fragments.f} ${a&|&b} ${x_${a}}
"""


def texts_of(pieces: str) -> st.SearchStrategy[str]:
    """Return texts of these pieces, in which ``&`` is a blank and ``~`` a line break."""
    written = [piece.replace("&", " ").replace("~", "\n") for piece in pieces.split()]
    return st.lists(st.sampled_from(written), max_size=6).map("".join)


PIECES = texts_of(RENDERED) | texts_of(RENDERED) | texts_of(RENDERED + UNSUPPORTED)


@given(
    template=PIECES,
    fragments=st.fixed_dictionaries({"f": PIECES}, optional={"g": PIECES}),
    default=PIECES,
    prefix=PIECES,
    syntax=st.sampled_from(["{{variable}}", "{{variable}}", "${variable}", "{variable}"]),
)
def test_nothing_unrendered_of_a_pack_reaches_the_provider(
    template: str, fragments: dict[str, str], default: str, prefix: str, syntax: str
) -> None:
    """Any text in any bracket form is rendered, or raises before the call; values of the caller are data."""
    data = prompt_in(
        system_template=template or "Hi",
        variables=[{"name": "b", "type": "string", "required": False, "default": default}],
        model_overrides={"demo": {"system_template_prefix": prefix}},
    )
    data["fragments"] = fragments
    data["template_engine"]["syntax"] = syntax
    provider = RecordingProvider()
    try:
        pack = load_pack(data)
        ConversationManager(provider).new_conversation(pack, variables={"a": DATA}).send(DATA, model="demo")
    except PackError:
        assert provider.requests == []
        return
    assert provider.requests[0].messages[-1].content == DATA
    system_prompt = str(provider.requests[0].messages[0].content).replace(DATA, "\0")
    assert re.search(r"\{\{.*?\}\}", system_prompt, re.DOTALL) is None
    if syntax == "${variable}":
        assert re.search(r"\$\{.*?\}", system_prompt, re.DOTALL) is None
