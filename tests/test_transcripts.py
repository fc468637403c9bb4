"""Conversations as files to read: what they contain, and that they execute and fetch nothing."""

from __future__ import annotations

import re
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from browser.attacks import ATTACKS, SCRIPT
from browser.jupyter_lab import chromium_page
from promptkit_nb import InvalidArgumentError, StoreUnavailableError
from promptkit_nb.exports.archives import read_conversation
from promptkit_nb.exports.transcripts import transcript_html, transcript_markdown, write_transcript
from promptkit_nb.state import ConversationState, Summary
from promptkit_nb.turns import ContentPart, Message, ToolCall, Turn, Usage
from storing import START, rich_state, said

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Page

PIXEL = "data:image/png;base64,iVBORw0KGgo="
RECEIPT = {"model": "gpt-4o-mini", "latency_ms": 812.0, "finish_reason": "stop"}
TOUCH_EVERYTHING = """() => {
    for (const element of document.querySelectorAll('main *')) {
        for (const kind of ['mouseover', 'mouseenter', 'focus', 'toggle', 'click']) {
            if (kind === 'click' && /^http:..(link|x)[.]invalid/.test(element.closest('a')?.href)) continue;
            element.dispatchEvent(new MouseEvent(kind, {bubbles: true, cancelable: true}));
        }
    }
}"""


def talk(*turns: Turn, **fields: object) -> ConversationState:
    """Return a conversation of alice with these turns."""
    state = ConversationState("eda", "alice", turns=turns, created_at=START, updated_at=START)
    return replace(state, **fields)  # type: ignore[arg-type]  # the test says which


def answered(question: str, *messages: Message) -> Turn:
    """Return a turn with these messages after the question."""
    return Turn(messages=(Message("user", question), *messages), usage=Usage(8, 2), created_at=START, model="m")


def attacked(*attacks: str) -> ConversationState:
    """Return a conversation with the attacks in every field."""
    everything = " ".join(attacks)
    return ConversationState(
        everything,
        everything,
        turns=tuple(map(attacked_turn, attacks)),
        system_prompt=attacks[0],
        summaries=tuple(Summary(0, 0, attack, Usage(1, 1), model=attack) for attack in attacks),
        metadata={"title": everything, everything: everything},
    )


def attacked_turn(attack: str) -> Turn:
    """Return a turn with the attack in every field."""
    return Turn(
        messages=(
            Message("user", attack, parts=(ContentPart("image_url", url=attack), ContentPart("text", text=attack))),
            Message("assistant", tool_calls=(ToolCall("1", attack, attack),), reasoning=attack),
            Message("tool", attack, tool_call_id="1", name=attack),
            Message("assistant", attack, name=attack),
        ),
        model=attack,
        finish_reason=attack,
        warnings=(attack,),
    )


def test_markdown_has_the_whole_conversation() -> None:
    """User, times, models, tokens and cost; then each turn with its receipt."""
    state = talk(said("Hello", **RECEIPT), system_prompt="You help.", metadata={"title": "First steps"})
    assert transcript_markdown(state).splitlines() == [
        "# `First steps`",
        "",
        "- **Conversation:** `eda`",
        "- **User:** `alice`",
        "- **From:** `2026-03-01 12:00 UTC to 2026-03-01 12:00 UTC`",
        "- **Model:** `gpt-4o-mini`",
        "- **Turns:** `1`",
        "- **Spent:** `10 tokens · $0.0010`",
        "",
        "## System prompt",
        "",
        "**System**",
        "",
        "> You help.",
        "",
        "## Turn 1 · 2026-03-01 12:00 UTC",
        "",
        "**You**",
        "",
        "> Hello",
        "",
        "**`gpt-4o-mini`**",
        "",
        "> You said Hello.",
        "",
        "`gpt-4o-mini · 8/2 tokens · $0.0010 · 0.8 s`",
    ]


def test_what_goes_without_saying_is_left_out() -> None:
    """The only user there is, an id that is the title, and a title among the metadata."""
    state = ConversationState("eda", created_at=START, updated_at=START, metadata={"title": "eda", "team": "a"})
    assert transcript_markdown(state).splitlines()[2:] == [
        "- **From:** `2026-03-01 12:00 UTC to 2026-03-01 12:00 UTC`",
        "- **Turns:** `0`",
        "- **Spent:** `0 tokens · $0.00`",
        '- **Metadata:** `{"team": "a"}`',
    ]


def test_page_has_short_receipts() -> None:
    """The tokens are in the tooltip."""
    page = transcript_html(talk(said("Hello", **RECEIPT)))
    assert 'title="gpt-4o-mini · 8/2 tokens · $0.0010 · 0.8 s">gpt-4o-mini · $0.0010 · 0.8 s</div>' in page


def test_without_turns_there_are_only_the_facts() -> None:
    """There is no model and no section."""
    assert transcript_markdown(talk()).splitlines()[2:] == [
        "- **User:** `alice`",
        "- **From:** `2026-03-01 12:00 UTC to 2026-03-01 12:00 UTC`",
        "- **Turns:** `0`",
        "- **Spent:** `0 tokens · $0.00`",
    ]


@pytest.mark.parametrize("write", [transcript_markdown, transcript_html])
def test_receipt_has_the_flags_of_a_turn(write: object) -> None:
    """Replayed with what it saved, interrupted, inherited, and stale if the caller says so."""
    assert callable(write)
    state = talk(
        said("a", **RECEIPT | {"replayed": True, "cost": Decimal(0), "saved": Decimal("0.0019")}),
        said("b", id="b", **RECEIPT | {"finish_reason": "interrupted"}),
        said("c", **RECEIPT | {"inherited": True, "cost": None}),
        said("d", warnings=("Slow.",)),
    )
    text = write(state, stale={"b"})
    assert "gpt-4o-mini · 8/2 tokens · replayed · $0.00 (saved $0.0019) · 0.8 s" in text
    assert "gpt-4o-mini · 8/2 tokens · $0.0010 · 0.8 s · interrupted · stale" in text
    assert "gpt-4o-mini · 8/2 tokens · price unknown · 0.8 s · inherited" in text
    assert "⚠ Slow." in text
    assert "not answered by a model" in text
    assert re.sub("<[^>]*>", "", text).count("stale") == 1


def test_summary_follows_what_it_summarizes() -> None:
    """It names its turns, by id or position; a summary of removed turns comes first."""
    summaries = (
        Summary("a", "b", "They met.", Usage(5, 1), Decimal("0.002"), "m", START),
        Summary(2, 2, "By hand.", created_at=START),
        Summary("gone", "gone", "Long ago.", created_at=START),
    )
    state = talk(said("x", id="a"), said("y", id="b"), said("z", id="c"), summaries=summaries)
    text = transcript_markdown(state)
    assert re.findall("^## (.*) · 2026-03-01 12:00 UTC$", text, re.MULTILINE) == [
        "Summary of earlier turns",
        "Turn 1",
        "Turn 2",
        "Summary of turns 1 to 2",
        "Turn 3",
        "Summary of turn 3",
    ]
    assert "**Summary**\n\n> They met.\n\n`m · 6 tokens · $0.0020`\n" in text


def test_tools_and_images_are_included() -> None:
    """Calls and results are code, reasoning is labeled; images are counted in Markdown and shown on the page."""
    turn = answered(
        "Look",
        Message("assistant", tool_calls=(ToolCall("1", "weather", '{"city": "Bern"}'),), reasoning="Hm."),
        Message("tool", "# 3 ```", tool_call_id="1", name="weather"),
        Message("assistant", "Cold."),
    )
    picture = replace(turn.messages[0], parts=(ContentPart("image_url", url=PIXEL),))
    state = talk(replace(turn, messages=(picture, *turn.messages[1:])))
    assert (
        "**You**\n\n> Look\n\n*1 image*\n\n**m, thinking**\n\n> Hm.\n\n"
        '**m, calling a tool**\n\n```text\nweather({"city": "Bern"})\n```\n\n'
        "**`Tool · weather`**\n\n````text\n# 3 ```\n````\n\n**m**\n\n> Cold.\n"
    ) in transcript_markdown(state)
    page = transcript_html(state)
    assert f'<p><img src="{PIXEL}" alt="image"></p>' in page
    assert '<div class="label">Tool · weather</div><pre># 3 ```</pre>' in page


@pytest.mark.parametrize(
    "text",
    [
        "# Heading\n\n```python\nunclosed",
        "~~~\n## Turn 9",
        "Setext\n===\n\n---\n\n1. a\n\n   b",
        "> quote\nlazy\n\n    indented",
        "a\r\nb\n\n\nc  \nd",
        "<!-- unclosed",
        "<pre>\n# x",
        "[x]: http://x.invalid",
        "```` ``` `````",
    ],
)
def test_messages_do_not_break_the_markdown(text: str) -> None:
    """Headings and unclosed code stay inside their quote: the headings outside are ours."""
    state = talk(answered(text, Message("assistant", text)), answered("Next", Message("assistant", text)))
    assert headings(transcript_markdown(state)) == [
        ("h1", "eda"),
        ("h2", "Turn 1 · 2026-03-01 12:00 UTC"),
        ("h2", "Turn 2 · 2026-03-01 12:00 UTC"),
    ]


def headings(markdown: str) -> list[tuple[str, str]]:
    """Return the headings of the document, without those in quotes and code."""
    tokens = MarkdownIt("commonmark").parse(markdown)
    return [
        (token.tag, tokens[place + 1].content.strip("` "))
        for place, token in enumerate(tokens)
        if token.type == "heading_open" and token.level == 0
    ]


@given(st.text(st.sampled_from("`~#>- <!=|[]:\\\n\r\t a1.*_")))
def test_no_text_leaves_its_quote(text: str) -> None:
    """Any text in an answer, a title or a tool result leaves the headings unchanged."""
    state = talk(answered(text, Message("tool", text, name=text), Message("assistant", text)), metadata={"title": text})
    assert [tag for tag, _ in headings(transcript_markdown(state))] == ["h1", "h2"]


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_attack_is_code_in_markdown(attack: str) -> None:
    """A parser finds no HTML, no image, and no link that does not lead to the web."""
    tokens = MarkdownIt("commonmark").parse(transcript_markdown(attacked(attack)))
    found = [each for token in tokens for each in (token, *(token.children or ()))]
    assert {token.type for token in found}.isdisjoint({"html_block", "html_inline", "image"})
    assert all(str(token.attrs["href"]).startswith("http") for token in found if token.type == "link_open")
    assert all(re.fullmatch(r"[\w+-]*", token.info) for token in found if token.type == "fence")


def test_control_character_cannot_hide_an_attack() -> None:
    """The check runs on the text that is written."""
    text = transcript_markdown(talk(answered("<\x01img src=x>", Message("assistant", "!\x1b[x](http://x.invalid)"))))
    assert "```text\n<img src=x>\n```" in text
    assert "```text\n![x](http://x.invalid)\n```" in text


@pytest.mark.browser
def test_the_page_runs_and_fetches_nothing(tmp_path: Path) -> None:
    """No attack in any field runs or fetches, with and without the page's policy; shown raw, they do both."""
    attacks = list(ATTACKS.values())
    pages = {
        f"{start}.html": re.sub("<meta http-equiv.*>", "", transcript_html(attacked(*attacks[start : start + 10])))
        for start in range(0, len(attacks), 10)
    }
    pages["policy.html"] = transcript_html(attacked(*attacks))
    pages["raw.html"] = f"<main>{ATTACKS['img onerror']}{ATTACKS['remote image, HTML']}</main>"
    assert "Content-Security-Policy" not in pages["0.html"]
    assert "Content-Security-Policy" in pages["policy.html"]
    for name, text in pages.items():
        (tmp_path / name).write_text(text, "utf-8")
    with chromium_page(tmp_path / "profile") as page:
        addresses: list[str] = []
        page.context.on("request", lambda request: addresses.append(request.url))
        for name in pages:
            if name != "raw.html":
                assert not runs(page, tmp_path / name), name
                assert page.url == (tmp_path / name).as_uri()
        assert [url for url in addresses if not url.startswith((tmp_path.as_uri(), "data:image/"))] == []
        assert page.context.pages == [page]
        assert runs(page, tmp_path / "raw.html")
        assert "http://canary.invalid/html.png" in addresses


def runs(page: Page, path: Path) -> bool:
    """Open the page, touch everything on it, and return whether a script ran."""
    page.goto(path.as_uri())
    page.evaluate(TOUCH_EVERYTHING)
    page.wait_for_timeout(200)
    return bool(page.evaluate(f"() => '{SCRIPT.partition('=')[0].partition('.')[2]}' in window"))


def test_page_has_what_the_markdown_has() -> None:
    """It is escaped, formats answers, and has a light and a dark theme."""
    page = transcript_html(talk(answered("a < b", Message("assistant", "**yes**")), metadata={"title": "a & b"}))
    assert "<title>a &amp; b</title>" in page
    assert '<h1 dir="auto">a &amp; b</h1>' in page
    assert "<dt>User</dt><dd>alice</dd>" in page
    assert "<strong>yes</strong>" in page
    assert "a &lt; b" in page
    assert "prefers-color-scheme: dark" in page


def test_suffix_selects_the_format(tmp_path: Path) -> None:
    """Markdown, a web page, or everything as JSON."""
    state = rich_state()
    assert write_transcript(state, tmp_path / "a.md") == tmp_path / "a.md"
    assert (tmp_path / "a.md").read_text("utf-8") == transcript_markdown(state)
    write_transcript(state, str(tmp_path / "a.HTML"), stale={state.turns[0].id})
    assert (tmp_path / "a.HTML").read_text("utf-8") == transcript_html(state, stale={state.turns[0].id})
    write_transcript(state, tmp_path / "a.json")
    assert read_conversation(tmp_path / "a.json") == state


def test_other_suffix_is_refused(tmp_path: Path) -> None:
    """The error names the three suffixes, and nothing is written."""
    for name in ("chat.txt", "chat"):
        with pytest.raises(InvalidArgumentError) as caught:
            write_transcript(talk(), tmp_path / name)
        assert str(caught.value) == (
            f"'{name}' has none of the supported suffixes: use "
            ".md (to read), .html (a web page) or .json (to import again)."
        )
    assert list(tmp_path.iterdir()) == []


def test_file_is_replaced_atomically(tmp_path: Path) -> None:
    """No temporary file is left, and a directory of that name is not replaced."""
    path = tmp_path / "chat.md"
    path.write_text("before")
    write_transcript(talk(), path)
    assert path.read_text("utf-8").startswith("# `eda`")
    (tmp_path / "taken.md").mkdir()
    with pytest.raises(StoreUnavailableError, match="cannot be written"):
        write_transcript(talk(), tmp_path / "taken.md")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["chat.md", "taken.md"]


def test_same_conversation_gives_the_same_file() -> None:
    """The file does not depend on when it was written."""
    state = rich_state()
    assert transcript_html(state) == transcript_html(state)
    assert transcript_markdown(state) == transcript_markdown(state)
