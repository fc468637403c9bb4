"""Token limits hold by the server's count, even if the server counts differently from OpenAI."""

from __future__ import annotations

import base64
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from promptkit_nb.chat.token_estimates import TokenEstimator, cut_warning, token_estimator_for
from promptkit_nb.chat.window import fit
from promptkit_nb.tokens import count_message_tokens
from promptkit_nb.turns import Message, ToolCall, Turn, Usage

Count = Callable[[Sequence[Message]], int]

WORDS = {
    "english": "the committee agreed that a proposal should be reviewed again before end of month since I am",
    "cyrillic": "комитет согласился что предложение следует рассмотреть ещё раз до конца месяца и в",
}
CHINESE = "委员会同意在月底之前再次审查该提案因为有几位成员还没有读过它然而他们认为这个问题很重要"
SCRIPTS = ("english", "cyrillic", "chinese", "base64", "mixed")


def seeded_random(seed: str) -> random.Random:
    """Return a random generator that is the same in every run."""
    return random.Random(seed)  # noqa: S311 - no secrets


def said(script: str, words: int, chance: random.Random) -> str:
    """Return a text in this script, about as long as this many words."""
    if script == "mixed":
        return " ".join(said(each, max(1, words // 2), chance) for each in ("english", "cyrillic"))
    if script == "chinese":
        return "".join(chance.choices(CHINESE, k=2 * words))
    if script == "base64":
        return base64.b64encode(chance.randbytes(4 * words)).decode()
    return " ".join(chance.choices(WORDS[script].split(), k=words))


def each_message(count: Callable[[str], float]) -> Count:
    """Return a server that counts texts this way, plus 4 tokens per message and 3 for the reply."""
    return lambda messages: 3 + sum(4 + math.ceil(count(message.content)) for message in messages)


SERVERS: dict[str, Count] = {
    "o200k": lambda messages: count_message_tokens(messages, "gpt-4o"),
    "cl100k": lambda messages: count_message_tokens(messages, "gpt-4"),
    "half_of_the_characters": each_message(lambda text: len(text) / 2),
    "one_a_foreign_character": each_message(lambda text: sum(0.25 if char.isascii() else 1 for char in text)),
    "words": each_message(lambda text: 1.3 * len(text.split())),
    "long_frames": lambda messages: 20 + 6 * len(messages) + count_message_tokens(messages, "gpt-4o"),
}


def conversation(count: int, script: str, chance: random.Random) -> list[Turn]:
    """Return turns without counts."""
    lengths = [chance.choice((3, 10, 30, 80)) for _ in range(2 * count)]
    texts = [said(script, length, chance) for length in lengths]
    pairs = zip(texts[::2], texts[1::2], strict=True)
    return [Turn(messages=(Message("user", asked), Message("assistant", answer))) for asked, answer in pairs]


def talk(
    server: Count, model: str, turns: list[Turn], new: Sequence[Turn], *, max_tokens: int
) -> tuple[list[int], list[int]]:
    """Send the questions of the new turns; return our estimate and the server's count of each request."""
    expected, counted = [], []
    for turn in new:
        estimator = token_estimator_for(model, turns, "You help.")
        window = fit("You help.", turns, (), turn.messages[0], estimator=estimator, max_tokens=max_tokens)
        reported = server(window.messages)
        expected.append(window.token_count or 0)
        counted.append(reported)
        turns.append(replace(turn, model=model, usage=Usage(reported, 9), counted_input_tokens=window.counted_tokens))
    return expected, counted


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("server", SERVERS)
def test_limit_holds_on_a_server_with_other_counts(server: str, script: str) -> None:
    """For each of 50 requests after 500 stored turns, from the first one on."""
    chance = seeded_random(script)
    turns = conversation(500, script, chance)
    expected, counted = talk(SERVERS[server], "llama3.2", turns, conversation(50, script, chance), max_tokens=4000)
    assert max(expected) <= 4000
    assert max(counted) <= 4000


@pytest.mark.parametrize("first", SCRIPTS)
@pytest.mark.parametrize("server", SERVERS)
def test_limit_holds_when_the_script_changes(server: str, first: str) -> None:
    """What is learned from one script is not applied to another."""
    chance = seeded_random(first)
    others = [script for script in SCRIPTS if script != first]
    new = [turn for script in (first, *others, first) for turn in conversation(8, script, chance)]
    turns = conversation(100, first, chance)
    _, counted = talk(SERVERS[server], "llama3.2", turns, new, max_tokens=2000)
    assert max(counted) <= 2000


@pytest.mark.parametrize("script", SCRIPTS)
def test_nothing_is_wasted_on_openais_models(script: str) -> None:
    """Their counts are ours, so the window is filled except for less than one turn."""
    chance = seeded_random(script)
    turns = conversation(500, script, chance)
    expected, counted = talk(SERVERS["o200k"], "gpt-4o", turns, conversation(50, script, chance), max_tokens=4000)
    assert expected == counted
    assert min(counted) > 0.85 * 4000


@pytest.mark.parametrize("server", ["o200k", "cl100k", "half_of_the_characters", "one_a_foreign_character"])
@pytest.mark.parametrize("script", ["english", "cyrillic"])
def test_little_is_wasted_once_a_server_was_measured(server: str, script: str) -> None:
    """After a few requests, three quarters of the window are used on average, however the server counts."""
    chance = seeded_random(script)
    turns = conversation(100, script, chance)
    _, counted = talk(SERVERS[server], "llama3.2", turns, conversation(20, script, chance), max_tokens=4000)
    assert sum(counted[5:]) / len(counted[5:]) > 0.75 * 4000


def test_wrong_use_of_openais_name_is_detected() -> None:
    """The name is believed once; after that, the reported counts are used."""
    chance = seeded_random("0")
    turns = conversation(500, "english", chance)
    server = SERVERS["half_of_the_characters"]
    _, counted = talk(server, "gpt-4o", turns, conversation(20, "english", chance), max_tokens=4000)
    assert counted[0] > 4000
    assert max(counted[1:]) <= 4000


def test_openais_models_are_trusted_if_less_was_reported() -> None:
    """An uncounted part of a prompt does not mean another tokenizer."""
    less = measured(requested_model="gpt-4o", usage=Usage(10, 9))
    assert token_estimator_for("gpt-4o", [less]) == TokenEstimator.of("gpt-4o")


def test_openais_models_may_report_a_few_tokens_more() -> None:
    """A constant overhead in a short request does not mean another tokenizer; a small excess is taken into account."""
    short = measured(requested_model="gpt-4o", counted_input_tokens=10, usage=Usage(20, 9))
    assert token_estimator_for("gpt-4o", [short]) == TokenEstimator.of("gpt-4o")
    long = measured(requested_model="gpt-4o", usage=Usage(1030, 9))
    assert token_estimator_for("gpt-4o", [long]) == replace(TokenEstimator.of("gpt-4o"), overall=1.03)
    assert not token_estimator_for("gpt-4o", [measured(requested_model="gpt-4o", usage=Usage(1061, 9))]).is_trusted


def measured(**changes: object) -> Turn:
    """Return a turn for which the server counted 3,000 tokens and we counted 1,000."""
    turn = Turn(
        messages=(Message("user", "word " * 990), Message("assistant", "Yes")),
        usage=Usage(3000, 9),
        model="llama3.2:latest",
        requested_model="llama3.2",
        counted_input_tokens=1000,
    )
    return replace(turn, **changes)  # type: ignore[arg-type]  # fields of a turn


def ratio(*turns: Turn) -> float | None:
    """Return the ratio learned for English from these turns."""
    return token_estimator_for("llama3.2", turns).ratios.get("words")


def test_ratio_comes_from_the_newest_measured_requests() -> None:
    """The highest of the last five, with a wider margin while there are few; other scripts stay unknown."""
    assert ratio(measured()) == pytest.approx(1.2 * (3000 - 7) / 991, rel=0.01)
    assert ratio(*[measured()] * 3) == pytest.approx(1.1 * (3000 - 7) / 991, rel=0.01)
    calmer = measured(usage=Usage(1000, 9))
    assert ratio(measured(), *[calmer] * 5) == pytest.approx(1.1, rel=0.01)
    assert list(token_estimator_for("llama3.2", [measured()]).ratios) == ["words"]


@pytest.mark.parametrize(
    "turn",
    [
        measured(counted_input_tokens=None),
        measured(replayed=True),
        measured(usage=Usage(3000, 9, estimated=True)),
        measured(requested_model="mistral"),
        measured(usage=Usage(500, 9)),
        measured(counted_input_tokens=50),
        measured(
            messages=(Message("user", "word"), Message("assistant", tool_calls=(ToolCall("1", "f"),)), Message("tool"))
        ),
    ],
    ids=["uncounted", "replayed", "estimated", "other model", "cut by the server", "too short", "several requests"],
)
def test_other_turns_are_ignored(turn: Turn) -> None:
    """Turns that were not counted on both sides, or not completely."""
    assert ratio(turn) is None


def test_ratio_is_at_least_one() -> None:
    """The next text may need fewer tokens on the server."""
    assert ratio(measured(usage=Usage(700, 9))) == 1.2


def test_inherited_turns_are_measured() -> None:
    """A fork continues with the same model."""
    assert ratio(measured(inherited=True)) is not None


def test_unmeasured_text_counts_as_in_a_small_vocabulary() -> None:
    """Next to its likely size; tool calls count, too."""
    size = TokenEstimator.of("llama3.2").of_message(Message("user", "Привет, мир"))
    assert (size.counted, size.likely, size.expected) == (8, 8, 18)
    call = Message("assistant", tool_calls=(ToolCall("1", "look", '{"at": 12345}'),))
    assert TokenEstimator.of("llama3.2").of_message(call).expected == 27


def test_half_an_emoji_is_measured() -> None:
    """In the arguments of a call, which are stored as received."""
    call = Message("assistant", tool_calls=(ToolCall("1", "look", '{"at": "\ud83c"}'),))
    assert TokenEstimator.of("llama3.2").of_message(call).expected > 0


def test_measuring_is_done_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A conversation that was counted is not encoded again."""
    turns = conversation(500, "english", seeded_random("7"))
    estimator = TokenEstimator.of("gpt-4o")
    first = [estimator.of_messages(turn.messages) for turn in turns]
    monkeypatch.setattr("promptkit_nb.tokens.count_tokens", None)
    assert [estimator.of_messages(turn.messages) for turn in turns] == first


def test_rewritten_turn_is_measured_again() -> None:
    """Its id is the same, its text is not."""
    estimator = TokenEstimator.of("gpt-4o")
    turn = Turn(id="t", messages=(Message("user", "one"), Message("assistant", "two")))
    longer = replace(turn, messages=(Message("user", "one two three"), turn.messages[1]))
    assert (estimator.of_messages(turn.messages).counted, estimator.of_messages(longer.messages).counted) == (10, 12)


def test_warns_if_the_prompt_was_cut() -> None:
    """If the server read less than 60 % of a thousand tokens or more."""
    assert cut_warning(999, 1) is None
    assert cut_warning(8000, 4800) is None
    assert (cut_warning(8000, 4799) or "").startswith("The server read 4,799 tokens, but about 8,000 were sent")
