"""The display of the next request's context."""

from __future__ import annotations

import re

from promptkit_nb.chat.preview import Context, ContextLine
from promptkit_nb.chat.summaries import find_applied_summaries
from promptkit_nb.chat.token_estimates import TokenEstimator
from promptkit_nb.chat.window import fit
from promptkit_nb.state import ConversationState, Summary
from promptkit_nb.turns import Message, ToolCall, Turn

SCRIPT = "<script>alert(1)</script>"
SMALL = 'class="mathjax_ignore tex2jax_ignore" style="color:var(--jp-ui-font-color2,#767676);font-size:12px'
EXACT = TokenEstimator.of("gpt-4o")


def turns(*answers: str) -> tuple[Turn, ...]:
    """Return one turn per answer."""
    said = [(Message("user", "Hi"), Message("assistant", answer)) for answer in answers]
    return tuple(Turn(id=f"t{at}", messages=each) for at, each in enumerate(said))


def context(max_tokens: int | None = None, estimator: TokenEstimator = EXACT) -> Context:
    """Return the context of a conversation with four turns and a summary of one of them."""
    talk = turns("Hello", "One", "Two", "x" * 61)
    state = ConversationState("c", turns=talk, summaries=(Summary("t0", "t0", "A greeting."),))
    window = fit("You help.", talk, find_applied_summaries(state), None, estimator=estimator, max_tokens=max_tokens)
    return Context.of(window, talk, estimator=estimator)


def test_text_has_a_line_a_message_and_the_total() -> None:
    """Role, content and tokens; then the size, the limit, and the number of turns left out."""
    assert str(context(max_tokens=50)).splitlines() == [
        f"{'system':<9}  You help.",
        f"{'summary':<9}  {'Summary of 1 earlier turn of this conversation: A greeting.':<60}  20",
        f"{'user':<9}  {'Hi':<60}   5",
        f"{'assistant':<9}  {'x' * 59}…  12",
        "40 of 50 tokens · 2 turns left out",
    ]


def test_without_a_limit_everything_is_there() -> None:
    """Its size counts nevertheless."""
    whole = context()
    assert (len(whole), whole.max_tokens, whole.left_out) == (7, None, ())
    assert whole.token_count == 3 + sum(line.tokens for line in whole)
    assert str(whole).endswith(f"\n{whole.token_count} tokens")


def test_lines_have_a_kind() -> None:
    """The system prompt, a summary, a turn with its index in the conversation, or the question."""
    talk = turns("Hello")
    window = fit("You help.", talk, [], Message("user", "Bye"), estimator=EXACT)
    lines = Context.of(window, talk, estimator=EXACT, has_question=True)
    assert [(line.role, line.kind, line.turn) for line in lines] == [
        ("system", "system", None),
        ("user", "turn", 0),
        ("assistant", "turn", 0),
        ("user", "question", None),
    ]
    assert (lines[3], lines[3:]) == (lines.lines[3], lines.lines[3:])
    note = "Summary of 1 earlier turn of this conversation:\n\nA greeting."
    assert context()[0] == ContextLine("system", "summary", f"You help.\n\n{note}", 20, prompt="You help.")


def test_other_models_counts_are_estimates() -> None:
    """It is marked as an estimate, with the upper limit that is assumed until the server reports its own count."""
    whole = context(estimator=TokenEstimator.of("llama3.2"))
    assert (whole.estimated, whole.token_count, whole.most_tokens) == (True, 60, 133)
    assert str(whole).endswith("\n60 tokens (estimate, 133 at most)")
    cut = context(max_tokens=120, estimator=TokenEstimator.of("llama3.2"))
    assert str(cut).endswith("\n40 of 120 tokens · 2 turns left out (estimate, 95 at most)")


def test_an_empty_context_has_only_a_total() -> None:
    """Only the opening of the answer."""
    assert str(Context.of(fit(None, [], [], None, estimator=EXACT), [], estimator=EXACT)) == "3 tokens"


def test_tool_calls_are_shown() -> None:
    """With their arguments."""
    call = Message("assistant", tool_calls=(ToolCall("1", "weather", '{"city": "Paris"}'),))
    result = Message("tool", "Rain", tool_call_id="1")
    talk = (Turn(messages=(Message("user", "Hi"), call, result, Message("assistant", "It rains."))),)
    line = Context.of(fit(None, talk, [], None, estimator=EXACT), talk, estimator=EXACT)[1]
    assert isinstance(line, ContextLine)
    assert line.content == 'weather({"city": "Paris"})'


def test_html_has_a_bar_and_unfolds_the_messages() -> None:
    """A bar for the window, and each message below its first words; no script runs."""
    talk = turns(f"**bold** {SCRIPT}")
    window = fit(SCRIPT, talk, [], None, estimator=EXACT, max_tokens=100)
    html = Context.of(window, talk, estimator=EXACT)._repr_html_()
    assert 'aria-label="34 % of the context window"' in html
    assert "width:34%" in html
    assert re.findall(">([^<]+)</span>", html.split("</summary>")[1]) == ["5", "You", "Hi"]
    assert "<strong>bold</strong>" in html
    assert "<script" not in html
    assert f'</style><div {SMALL}">34 of 100 tokens</div><div style="height:4px' in html
