"""A model's thinking: read from every server, shown folded, and never part of the text."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat_server import ChatServer, Reply
from kernels import kernel
from panel_page import GatedProvider, PanelPage
from promptkit_nb import ChatPanel, ConversationManager, MemoryStore, OpenAIProvider, messages_df, search, turns_df
from promptkit_nb.chat.preview import ContextLine
from promptkit_nb.codec import decode_turn, encode_turn
from promptkit_nb.context_hash import context_hashes_of
from promptkit_nb.errors import InvalidArgumentError
from promptkit_nb.exports.transcripts import transcript_html, transcript_markdown
from promptkit_nb.panel.transcript import turn_fields
from promptkit_nb.providers.base import ChatRequest, ReasoningDelta, TextDelta
from promptkit_nb.rendering.markdown import answer_style
from promptkit_nb.rendering.responses import Response
from promptkit_nb.state import Summary
from promptkit_nb.thinking import ThinkingSplitter, split_thinking
from promptkit_nb.turns import Message, Turn, Usage
from shells import Notebook, new_shell

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from promptkit_nb.conversation import Conversation

THOUGHT = "6 times 7 is 42."
OLD = f"<think>\n{THOUGHT}\n</think>\n\nIt is **42**."


@pytest.fixture
def conv(chat_server: ChatServer) -> Conversation:
    """A conversation with the loopback server."""
    provider = OpenAIProvider("m", base_url=chat_server.url, max_retries=0)
    return ConversationManager(provider, MemoryStore()).new_conversation(conversation_id="c")


def chunk(delta: object = None, **fields: Any) -> dict[str, Any]:
    """Return one event with this delta; further fields belong to the choice."""
    return {"id": "c", "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": None, **fields}]}


STOP = chunk({}, finish_reason="stop")


def streamed(*deltas: Mapping[str, object]) -> Reply:
    """Return a whole streamed answer."""
    return Reply(chunks=[*map(chunk, deltas), STOP])


def whole(**message: object) -> Reply:
    """Return an answer in one piece."""
    choice = {"message": {"role": "assistant", **message}, "finish_reason": "stop"}
    return Reply(body=json.dumps({"choices": [choice]}).encode(), content_type="application/json")


def detail(text: str, name: str = "text") -> dict[str, object]:
    """Return one of OpenRouter's details."""
    return {"type": f"reasoning.{name}", name: text, "index": 0}


FORMS = {
    "DeepSeek, vLLM, llama.cpp: reasoning_content": streamed(
        {"reasoning_content": "6 times 7"}, {"reasoning_content": " is 42."}, {"content": "It is 42."}
    ),
    "Groq, Ollama, OpenRouter: reasoning": streamed({"reasoning": THOUGHT}, {"content": "It is 42."}),
    "vLLM for a while: both names": streamed(
        {"reasoning": THOUGHT, "reasoning_content": THOUGHT}, {"content": "It is 42."}
    ),
    "GitHub: reasoning_text": streamed({"reasoning_text": THOUGHT}, {"content": "It is 42."}),
    "OpenRouter: reasoning beside its details": streamed(
        {"reasoning": THOUGHT, "reasoning_details": [detail(THOUGHT)]}, {"content": "It is 42."}
    ),
    "OpenRouter: details alone": streamed(
        {"reasoning_details": [detail(THOUGHT, "summary")]}, {"content": "It is 42."}
    ),
    "Mistral: parts of the content": streamed(
        {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "6 times 7"}]}]},
        {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": " is 42."}]}]},
        {"content": [{"type": "text", "text": "It is 42."}]},
    ),
    "a think block in one piece": streamed({"content": f"<think>{THOUGHT}</think>It is 42."}),
    "a think block in small pieces": streamed(
        *({"content": piece} for piece in ("<", "thi", "nk>\n", THOUGHT, "\n</", "think", ">\n\n", "It ", "is 42."))
    ),
    "MiniMax: a block after line breaks": streamed(
        {"content": "\n\n<think>\n"}, {"content": f"{THOUGHT}</think>\nIt is 42."}
    ),
    "Magistral: [THINK]": streamed({"content": f"[THINK]{THOUGHT}[/THINK]It is 42."}),
    "Gemini's layer: thought": streamed({"content": f"<thought>{THOUGHT}</thought>It is 42."}),
    "a closing tag left over": streamed({"reasoning_content": THOUGHT}, {"content": "</think>\n\nIt is 42."}),
    "in one piece: reasoning_content": whole(content="It is 42.", reasoning_content=THOUGHT),
    "in one piece: a block": whole(content=f"<think>{THOUGHT}</think>\nIt is 42."),
    "the whole message once more": Reply(
        chunks=[
            chunk({"reasoning_content": THOUGHT}),
            chunk({"content": "It is 42."}),
            chunk({}, message={"content": "It is 42.", "reasoning_content": THOUGHT}, finish_reason="stop"),
        ]
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_thinking_is_kept_apart_from_the_text(conv: Conversation, chat_server: ChatServer, name: str) -> None:
    """Whatever the server calls it; it is stored with the turn, and no later request has it."""
    chat_server.reply(FORMS[name])
    answer = conv.send("6 times 7?")
    assert (answer.content, answer.reasoning) == ("It is 42.", THOUGHT)
    assert str(answer) == "It is 42."
    stored = decode_turn(encode_turn(conv.turns[0])).messages[1]
    assert (stored.content, stored.reasoning) == ("It is 42.", THOUGHT)
    conv.send("Sure?")
    assert "6 times 7 is" not in json.dumps(chat_server.requests[-1].body)


def test_thinking_of_qwen_without_thinking_is_none(conv: Conversation, chat_server: ChatServer) -> None:
    """Some templates write an empty block if thinking is off."""
    chat_server.reply(streamed({"content": "<think>\n\n</think>\n\nHello."}))
    answer = conv.send("Hi")
    assert (answer.content, answer.reasoning, answer.thinking_ms) == ("Hello.", None, None)


def test_tags_within_a_text_are_text(conv: Conversation, chat_server: ChatServer) -> None:
    """Only the beginning of an answer can be thinking."""
    text = "Models write <think>like this</think> and [THINK] so."
    chat_server.reply(streamed(*({"content": piece} for piece in re.findall(r"\S+\s*", text))))
    answer = conv.send("How?")
    assert (answer.content, answer.reasoning) == (text, None)


@pytest.mark.parametrize("text", ["<thi", "<b>bold</b>", "[draft] yes", "  indented", "<", "1 < 2", ""])
def test_text_that_only_begins_like_a_tag_is_text(conv: Conversation, chat_server: ChatServer, text: str) -> None:
    """What was held back as the beginning of a tag is not lost."""
    chat_server.reply(streamed(*({"content": character} for character in text)))
    assert conv.send("Hi").content == text


def test_block_that_is_not_closed_is_thinking_without_an_answer(conv: Conversation, chat_server: ChatServer) -> None:
    """As when the output limit was reached in it."""
    chat_server.reply(Reply(chunks=[chunk({"content": "<think>Hmm, wh"}), chunk({}, finish_reason="length")]))
    answer = conv.send("Hi")
    assert (answer.content, answer.reasoning) == ("", "Hmm, wh")
    assert answer.warnings[1] == "The model answered without any text. Later requests leave this turn out."


@given(st.text(alphabet="<>/[]thinkTHINK \n4", max_size=40), st.integers(1, 5))
def test_pieces_give_the_same_as_the_whole(text: str, size: int) -> None:
    """However an answer is cut, the thinking and the text are those of the whole, and no other character is lost."""
    splitter = ThinkingSplitter()
    pieces = [splitter.feed(text[at : at + size]) for at in range(0, len(text), size)] + [splitter.flush()]
    thinking, rest = ("".join(each) for each in zip(*pieces, strict=True))
    assert (thinking.strip(), rest) == split_thinking(text)
    assert text.endswith(rest)
    assert thinking in text


def test_time_and_tokens_of_thinking(conv: Conversation, chat_server: ChatServer) -> None:
    """The time until the text is stored with the turn; the tokens are those of the usage."""
    usage = {"prompt_tokens": 9, "completion_tokens": 1209, "completion_tokens_details": {"reasoning_tokens": 1204}}
    chat_server.reply(replace(streamed({"reasoning": THOUGHT}, {"content": "42."}), chunks=[
        chunk({"reasoning": THOUGHT}), chunk({"content": "It is 42."}), STOP, {"choices": [], "usage": usage},
    ]))  # fmt: skip
    answer = conv.send("6 times 7?")
    assert answer.thinking_ms == conv.turns[0].thinking_ms
    assert 0 <= (answer.thinking_ms or 0) <= answer.latency_ms
    html = replace(answer, thinking_ms=12_345.0)._repr_html_()
    summary = '<summary class="mathjax_ignore tex2jax_ignore">thought 12 s · 1,204 tokens</summary>'
    assert html.startswith('<details class="promptkit-thinking"', len(answer_style()))
    assert summary in html
    thinking, _, text = html.partition("</details>")
    assert THOUGHT in thinking
    assert "It is 42." in text


def test_replay_has_the_thinking_of_then(conv: Conversation, chat_server: ChatServer) -> None:
    """A replayed answer is shown with its recorded thinking and time."""
    chat_server.reply(streamed({"reasoning": THOUGHT}, {"content": "42."}))
    first, again = conv.send("6 times 7?"), conv.rerun(0, replay="auto")
    assert again.replayed
    assert (again.reasoning, again.thinking_ms) == (THOUGHT, first.thinking_ms)


def test_interrupted_thinking_is_estimated_as_output(conv: Conversation, chat_server: ChatServer) -> None:
    """Thinking before Ctrl-C is billed as output."""
    chat_server.reply(Reply(chunks=[chunk({"reasoning": "word " * 20}), chunk({"content": "One"}), STOP]))
    stream = conv.stream("Hi")
    next(stream)
    stream.close()
    assert stream.response is not None
    usage = stream.response.usage
    assert (usage.estimated, usage.reasoning_tokens, usage.output_tokens) == (True, 20, 21)


# Turns of version 0.1


@pytest.fixture
def old(conv: Conversation) -> Conversation:
    """A conversation with a turn that has its thinking in the text."""
    said = (Message("user", "6 times 7?"), Message("assistant", OLD))
    conv.store.append("c", Turn(id="t", messages=said, usage=Usage(5, 9), model="m", finish_reason="stop"))
    return conv


def test_old_turns_are_shown_without_thinking(old: Conversation) -> None:
    """As text, in the history, in the tree, in views, and in transcripts, where it is apart."""
    assert (old.turns[0].text, old.turns[0].reasoning) == ("It is **42**.", THOUGHT)
    assert str(old.history()).splitlines()[1] == "assistant  It is **42**."
    assert THOUGHT in old.history()._repr_html_()
    assert list(turns_df(old.store)["text"]) == ["It is **42**."]
    frame = messages_df(old.store)
    assert list(frame["content"]) == ["6 times 7?", "It is **42**."]
    assert frame["reasoning"][1] == THOUGHT
    state = old.store.get("c")
    assert f"**m, thinking**\n\n> {THOUGHT}" in transcript_markdown(state)
    assert '<details class="entry"><summary class="label">m, thinking</summary>' in transcript_html(state)


def test_old_turns_are_sent_searched_and_summarized_without_thinking(
    old: Conversation, chat_server: ChatServer
) -> None:
    """The context is exactly what is sent, and counts what is sent."""
    context = old.context()
    assert [line.content for line in context] == ["6 times 7?", "It is **42**."]
    old.send("Sure?")
    sent = chat_server.requests[-1].body["messages"]
    assert [message["content"] for message in sent] == ["6 times 7?", "It is **42**.", "Sure?"]
    assert len(search(old.store, "is 42.")) == 0
    assert len(search(old.store, "42")) == 1
    chat_server.reply(Reply(text="They computed."))
    old.summarize(keep_last=0)
    assert THOUGHT not in json.dumps(chat_server.requests[-1].body)


def test_old_summaries_are_sent_without_thinking(old: Conversation, chat_server: ChatServer) -> None:
    """Nor does a new summary get to read it."""
    old.store.add_summary("c", Summary("t", "t", f"<think>{THOUGHT}</think>They computed."))
    old.send("Sure?")
    assert old.context()[0] == ContextLine(
        "system", "summary", "Summary of 1 earlier turn of this conversation:\n\nThey computed.", 17
    )
    old.summarize(keep_last=0)
    assert [THOUGHT in json.dumps(request.body) for request in chat_server.requests] == [False, False]


def test_old_turns_stay_as_they_are(old: Conversation) -> None:
    """Their stored text and hashes do not change, so nothing becomes stale."""
    before = [*context_hashes_of(old.turns)]
    assert old.turns[0].messages[1].content == OLD
    assert before == [*context_hashes_of([Turn(messages=(Message("user", "6 times 7?"), Message("assistant", OLD)))])]
    assert old.stale_turns == ()


# In cells


@pytest.fixture
def notebook(tmp_path: Path, chat_server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Notebook]:
    """A notebook connected to the loopback server."""
    for name in ("PROMPTKIT_PROVIDER", "PROMPTKIT_MODEL", "OPENAI_API_KEY", "JPY_SESSION_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PROMPTKIT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OPENAI_BASE_URL", chat_server.url)
    monkeypatch.chdir(tmp_path)
    shell = new_shell()
    yield Notebook(shell)
    shell.run_line_magic("unload_ext", "promptkit_nb")
    type(shell).clear_instance()


CODE = "```python\nprint(42)\n```"


@pytest.mark.parametrize(
    ("mode", "opening"), [("fold", "<details class="), ("show", "<details class="), ("hide", "<div class=")]
)
def test_cells_show_thinking_as_chosen(notebook: Notebook, chat_server: ChatServer, mode: str, opening: str) -> None:
    """As one line that unfolds, unfolded, or not at all; the text is the same."""
    notebook.run(f"%chat_setup --thinking {mode}")
    chat_server.reply(streamed({"reasoning": f"{THOUGHT} <script>alert(1)</script>"}, {"content": "It is 42."}))
    (bundle,) = notebook.run("%%chat --to answer\n6 times 7?").bundles
    assert bundle["text/html"].startswith(opening, len(answer_style()))
    assert (" open><summary" in bundle["text/html"]) == (mode == "show")
    assert "<script" not in bundle["text/html"]
    assert THOUGHT not in bundle["text/plain"]
    text = re.sub(r"\d\.\d s", "0.0 s", bundle["text/plain"])
    assert text.startswith("It is 42." if mode == "hide" else "thought 0.0 s · ~16 tokens\n\nIt is 42.")
    assert str(notebook.shell.user_ns["answer"]) == "It is 42."


def test_code_is_not_taken_from_thinking(notebook: Notebook, chat_server: ChatServer) -> None:
    """Nor from an answer that was cut; the cell says so."""
    chat_server.reply(
        streamed({"content": f"<think>{CODE}</think>No code."}),
        Reply(chunks=[chunk({"content": CODE}), chunk({}, finish_reason="length")]),
    )
    assert "There is no Python code in the answer." in notebook.run("%%chat --code\nCode?").stdout
    cut = notebook.run("%%chat --code\nMore code?")
    assert "The answer is not whole (cut at the output limit): no code was taken from it." in cut.stdout
    assert not hasattr(notebook.shell, "rl_next_input")


def test_unknown_way_to_show_thinking_is_refused(notebook: Notebook) -> None:
    """The error names the three."""
    result = notebook.run("%chat_setup --thinking maybe")
    assert isinstance(result.error, Exception)
    assert "thinking='maybe' is unknown: use 'fold', 'show' or 'hide'." in str(result.error)


# Live, in a real kernel


WAITING = re.compile(r"waiting \d+ s")
THINKING = re.compile(r"thinking \d+ s")
FASTER = "import promptkit_nb.notebook.display as display; display.TICK_EVERY_S = 0.05"


@pytest.mark.kernel
def test_waiting_and_thinking_are_visible_in_a_cell(
    tmp_path: Path, chat_server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line counts the seconds until the first text, then those of the thinking; the final output has the answer."""
    monkeypatch.delenv("PROMPTKIT_PROVIDER", raising=False)
    environment = {
        "PROMPTKIT_HOME": str(tmp_path / "home"),
        "IPYTHONDIR": str(tmp_path / "ipython"),
        "OPENAI_BASE_URL": chat_server.url,
        "PROMPTKIT_MODEL": "m",
    }
    chat_server.reply(
        Reply(
            chunks=[chunk({"reasoning": THOUGHT}), chunk({"reasoning": " So it is."}), chunk({"content": "42."}), STOP],
            delay_s=1.0,
            pause_s=1.0,
            pause_from=1,
        )
    )
    with kernel("%load_ext promptkit_nb", FASTER, **environment) as each:
        result = each.run("%%chat\n6 times 7?")
        batch = each.run("%%chat\nAnd 6 times 8?", allow_stdin=False)
    shown = [*result.contents("display_data"), *result.contents("update_display_data")]
    texts = [content["data"]["text/plain"] for content in shown]
    assert any(WAITING.fullmatch(text) for text in texts)
    assert any(THINKING.fullmatch(text) for text in texts)
    assert any(THOUGHT in content["data"]["text/html"] for content in shown[:-1])
    assert texts[-1].startswith("thought ")
    assert "42." in texts[-1]
    assert len(result.contents("display_data")) == 1
    assert len(batch.contents("display_data")) == 1
    assert batch.contents("update_display_data") == []
    assert not re.search(r"waiting|\d s", batch.last_bundle["text/plain"])


# In the panel


def test_panel_shows_thinking_folded(conv: Conversation, chat_server: ChatServer) -> None:
    """With its time and tokens; it is not copied with the answer."""
    usage = {"prompt_tokens": 9, "completion_tokens": 12, "completion_tokens_details": {"reasoning_tokens": 8}}
    deltas = [chunk({"reasoning": THOUGHT}), chunk({"content": "42."})]
    chat_server.reply(Reply(chunks=[*deltas, STOP, {"choices": [], "usage": usage}]))
    page = PanelPage(conv)
    page.say("6 times 7?")
    (turn,) = page.shown["turns"]
    question, thinking, answer = turn["entries"]
    assert (question["label"], answer["label"], answer["text"]) == ("user", "assistant", "42.")
    assert re.fullmatch(r"thought \d+\.\d s · 8 tokens", thinking["label"])
    assert (thinking["text"], thinking["fold"], answer["fold"]) == (THOUGHT, "closed", "")


@pytest.mark.parametrize(("mode", "folds"), [("fold", ["closed"]), ("show", ["open"]), ("hide", [])])
def test_panel_shows_thinking_as_chosen(mode: Any, folds: list[str]) -> None:
    """As one line that unfolds, unfolded, or not at all."""
    said = (Message("user", "Hi"), Message("assistant", "42.", reasoning=THOUGHT))
    entries: Any = turn_fields(Turn(messages=said), 0, is_stale=False, thinking=mode)["entries"]
    assert [entry["fold"] for entry in entries if entry["label"] == "thought"] == folds


def test_panel_shows_thinking_while_it_lasts() -> None:
    """Above the text that arrives; the status says for how long."""

    class Thinking(GatedProvider):
        def stream(self, request: ChatRequest) -> Iterator[Any]:
            yield ReasoningDelta(THOUGHT)
            yield from super().stream(request)

    provider = Thinking("42.")
    page = PanelPage(ConversationManager(provider).new_conversation(conversation_id="c"))
    page.do("send", text="6 times 7?")
    page.wait_for_streamed(THOUGHT)
    assert ">thinking 0." in page.shown["streaming"]["html"]
    provider.let(2)
    page.wait(lambda: page.answers == ["42."])


def test_mode_of_a_panel_is_checked(conv: Conversation) -> None:
    """An unknown one is an error at once."""
    with pytest.raises(InvalidArgumentError, match="use 'fold', 'show' or 'hide'"):
        ChatPanel(conv, thinking="maybe")  # type: ignore[arg-type]  # on purpose


def test_response_of_a_turn_has_its_reasoning() -> None:
    """Of all its messages, as after tool calls."""
    messages = (
        Message("user", "Hi"),
        Message("assistant", "Let me look.", reasoning="One."),
        Message("assistant", "42.", reasoning="Two."),
    )
    response = Response.of(Turn(messages=messages), "c")
    assert (response.content, response.reasoning) == ("42.", "One.\n\nTwo.")
    assert TextDelta(response.content).text == "42."
