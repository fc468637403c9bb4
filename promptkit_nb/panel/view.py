"""What the pages of a panel show: the turns, the answer that streams, errors, the list of conversations, the footer."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Protocol

from promptkit_nb.characters import printable
from promptkit_nb.errors import PromptKitError
from promptkit_nb.panel import conversation_list
from promptkit_nb.panel.transcript import turn_fields
from promptkit_nb.rendering.markdown import to_html
from promptkit_nb.rendering.responses import thinking_html
from promptkit_nb.text.plain_text import counted, one_line
from promptkit_nb.text.receipts import seconds_text, small_usd_text, total_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from promptkit_nb.chat.preview import Context
    from promptkit_nb.chat.stored_conversation import Snapshot
    from promptkit_nb.conversation import Conversation
    from promptkit_nb.panel.search_thread import Search
    from promptkit_nb.panel.threads import AnswerThread
    from promptkit_nb.rendering.responses import ThinkingMode

CHUNK_TURNS = 20
"""How many turns a page gets at a time: the newest ones, then older ones as it scrolls up."""

UPDATE_INTERVAL_S = 0.1
IDLE_PER_UPDATE = 4
"""After an update the view rests this many times as long as it took: long answers are rendered less often."""

ANSWERING = "Answering…"


class Screen(Protocol):
    """Where a view is shown: the widget."""

    def show(self, **changes: object) -> None:
        """Change the ``ChatPanel`` traits of these names."""
        ...

    def notify(self, message: Mapping[str, object]) -> None:
        """Send a message to the open pages."""
        ...

    def save_transcript(self, snapshot: Snapshot) -> None:
        """Save the conversation for readers of the notebook without a kernel."""
        ...


class PanelView:
    """Shows a conversation on a screen. An update carries what changed, never the whole history.

    ``epoch`` counts the changes to anything but the end of the conversation: older turns that a page fetched under
    another epoch are out of date.
    """

    def __init__(self, screen: Screen, snapshot: Snapshot, *, thinking: ThinkingMode = "fold") -> None:
        """Show the newest turns of a conversation; ``thinking`` is how to show the model's thinking."""
        self.snapshot = snapshot
        self._screen = screen
        self._epoch = 0
        self.thinking = thinking
        self._typed: dict[str, str] = {}  # by turn id: messages as they were typed, before values were filled in
        self._calls: dict[str, dict[str, str]] = {}  # by turn id: HTML of its tool calls, with the objects returned
        self._shown_text = ("", "", "", "")
        self._next_update_at = 0.0
        self._error_count = 0
        self._search_result = ""
        self._titles = conversation_list.Titles()
        self._show_turns(None)

    def show_conversation(self, snapshot: Snapshot, answer: AnswerThread | None) -> None:
        """Show the current conversation, and its streaming answer."""
        if _is_changed_above_the_end(self.snapshot, snapshot):
            self._epoch += 1
        self.snapshot = snapshot
        self._show_turns(answer)

    def show_details(self, conversation: Conversation, *, search: Search, model: str | None) -> None:
        """Show what takes longer to compute than the turns: the list, the size of the context, the budgets."""
        self._screen.save_transcript(self.snapshot)
        listed = conversation_list.find(conversation, self._titles, search)
        lines, usage = footer_of(conversation, model=model)
        self._screen.show(
            conversations=listed,
            footer=lines,
            usage=usage,
            model=model or self.snapshot.state.settings.model or conversation.provider.model or "",
        )

    def show_models(self, names: list[str], note: str) -> None:
        """Show the models to choose from; ``note`` says why there are none, in a tooltip."""
        self._screen.show(models=names, models_note=note)

    def show_search(self, conversation: Conversation, search: Search, answer: AnswerThread | None) -> None:
        """Show the matching conversations; their number is not updated while an answer is streaming."""
        listed = conversation_list.find(conversation, self._titles, search)
        self._search_result = _search_result(len(listed), search) if search.text else ""
        self._screen.show(conversations=listed, status=self._status(answer))

    def remember(self, answer: AnswerThread) -> None:
        """Show what was typed in place of what was sent, and what tools returned, as long as this kernel runs."""
        if answer.turn is None:
            return
        if answer.unsent and answer.unsent != answer.turn.user_text:
            self._typed[answer.turn.id] = answer.unsent
        if answer.tools is not None and answer.tools.html:
            self._calls[answer.turn.id] = dict(answer.tools.html)
            for oldest in [*self._calls][:-CHUNK_TURNS]:  # pictures and tables may be large
                del self._calls[oldest]

    def show_question(self, answer: AnswerThread) -> None:
        """Show a question that is being asked."""
        self._shown_text = ("", "", "", "")
        self._screen.show(streaming=self._answer_fields(answer), busy=True, status=ANSWERING, error={})

    def show_progress(self, answer: AnswerThread) -> None:
        """Show the answer so far, unless that was done a moment ago."""
        begin = time.monotonic()
        if begin < self._next_update_at:
            return
        text = answer.text, answer.reasoning, answer.calls_html, answer.question_id
        changes: dict[str, object] = {"status": self._status(answer), "busy": True}
        if text != self._shown_text:
            self._shown_text = text
            changes["streaming"] = self._answer_fields(answer)
        self._screen.show(**changes)
        end = time.monotonic()
        self._next_update_at = end + max(UPDATE_INTERVAL_S, IDLE_PER_UPDATE * (end - begin))

    def show_status(self, text: str) -> None:
        """Show a status line."""
        self._screen.show(status=text)

    def show_error(self, error: Exception, *, unsent: str = "", page: str = "") -> None:
        """Show an error; ``unsent`` goes back to the page where it was typed."""
        self._error_count += 1
        text = str(error) if isinstance(error, PromptKitError) else f"{type(error).__name__}: {error}"
        response = getattr(error, "response", None)
        partial = getattr(error, "partial", "") or ("" if response is None else response.content)
        shown = {"text": one_line(text), "unsent": unsent, "page": page, "n": self._error_count}
        self._screen.show(error={**shown, "partial": to_html(partial) if partial else ""})

    def clear_error(self) -> None:
        """Remove the error."""
        self._screen.show(error={})

    def return_text(self, answer: AnswerThread) -> None:
        """Give the text of a question that was not answered back to the page where it was typed."""
        self._screen.notify({"unsent": answer.unsent, "page": answer.page})

    def send_names(self, names: list[dict[str, object]], page: str) -> None:
        """Tell a page what the expressions in its text stand for."""
        self._screen.notify({"names": names, "page": page})

    def send_older(self, before: int, page: str) -> None:
        """Send a page the turns before a position."""
        stop = max(0, min(before, len(self.snapshot.state.turns)))
        older = self._turn_fields(max(0, stop - CHUNK_TURNS), stop)
        self._screen.notify({"older": older, "epoch": self._epoch, "page": page})

    def clear(self) -> None:
        """Remove the error, the footer, and the search of the conversation that was shown."""
        self._search_result = ""
        self._screen.show(error={}, footer=[], usage={})

    def _show_turns(self, answer: AnswerThread | None) -> None:
        state = self.snapshot.state
        first = _first_shown(self.snapshot)
        stored = None if answer is None else answer.turn
        is_stored = stored is not None and any(turn.id == stored.id for turn in reversed(state.turns))
        self._screen.show(
            conversation_id=state.conversation_id,
            title=conversation_list.title_of_state(state),
            streaming=None if answer is None or is_stored else self._answer_fields(answer),
            busy=answer is not None,
            status=self._status(answer),
            turns=self._turn_fields(first, len(state.turns)),
            first=first,
            epoch=self._epoch,
        )

    def _status(self, answer: AnswerThread | None) -> str:
        return self._search_result if answer is None else answer.waiting or ANSWERING

    def _turn_fields(self, start: int, stop: int) -> list[dict[str, object]]:
        state, stale = self.snapshot.state, self.snapshot.stale
        turns, branches = state.turns, Counter(each.start for each in state.branches if each.kind == "tail")
        return [
            turn_fields(
                turns[index],
                index,
                is_stale=turns[index].id in stale,
                thinking=self.thinking,
                typed=self._typed.get(turns[index].id),
                calls=self._calls.get(turns[index].id, {}),
                versions=state.versions.get(turns[index].id, ()),
                branches=branches[index],
            )
            for index in range(start, stop)
        ]

    def _answer_fields(self, answer: AnswerThread) -> dict[str, object]:
        """Return a streaming answer for the page, which shows the question as plain text."""
        text, thinking_ms = answer.text, answer.thinking_ms
        words = "" if thinking_ms is None else f"{'thought' if text else 'thinking'} {seconds_text(thinking_ms / 1000)}"
        thinking = thinking_html(answer.reasoning, words, self.thinking)
        return {
            "question": printable(answer.question),
            "html": f"{answer.calls_html}{thinking}{to_html(text) if text else ''}",
            "asks": {} if answer.tools is None else answer.tools.question,
            **answer.replaces,
        }


def _search_result(count: int, search: Search) -> str:
    found = f"{counted(count, 'conversation')} found"
    if search.said == "searching":
        return f"{found} by title; searching what was said…"
    if search.said == "too many":
        return f"{found} by title; %chat_search finds what was said."
    return f"{found}: choose one from the list next to the search box." if count else f"{found}."


def footer_of(conversation: Conversation, *, model: str | None = None) -> tuple[list[str], dict[str, object]]:
    """Return the totals, the size of the context, and the budgets, a line each; and the first two at a glance."""
    head = conversation.store.head(conversation.id)
    turns, cost = counted(head.turn_count, "turn"), total_text(head.total_cost, head.unpriced_turns)
    try:
        context = conversation.context(model=model)
    except PromptKitError as error:  # for example: a variable of the prompt has no value yet
        line, short, percent = one_line(f"The next request cannot be built yet: {error}"), "", None
    else:
        shown = (_context_line(context), *_context_at_a_glance(context)) if head.turn_count else ("", "", None)
        line, short, percent = shown
    small_cost = total_text(head.total_cost, head.unpriced_turns, text_of=small_usd_text)
    lines = [f"{turns} · {head.token_count:,} tokens · {cost}", line, *map(one_line, conversation.budget_lines())]
    return lines, {"totals": f"{turns} · {small_cost}", "context": short or line, "percent": percent}


def _context_line(context: Context) -> str:
    about = "~" if context.estimated else ""
    if context.max_tokens is None:
        return f"context {about}{context.token_count:,} tokens"
    left_out = f", {counted(len(context.left_out), 'turn')} left out" if context.left_out else ""
    size = f"{context.token_count:,} of {context.max_tokens:,} tokens"
    return f"context {about}{size} ({_percent(context, context.max_tokens)} %{left_out})"


def _context_at_a_glance(context: Context) -> tuple[str, int | None]:
    """Return the size of the context in a few words, and its part of the window in percent, if that is known."""
    if context.max_tokens is None:
        return f"context {'~' if context.estimated else ''}{context.token_count:,} tokens", None
    percent = _percent(context, context.max_tokens)
    return f"{percent} % of context", percent


def _percent(context: Context, max_tokens: int) -> int:
    return round(100 * context.token_count / max_tokens)


def _is_changed_above_the_end(before: Snapshot, after: Snapshot) -> bool:
    if before.state.conversation_id != after.state.conversation_id or before.stale != after.stale:
        return True
    fetched = min(_first_shown(before), _first_shown(after))
    return before.state.turns[:fetched] != after.state.turns[:fetched]


def _first_shown(snapshot: Snapshot) -> int:
    return max(0, len(snapshot.state.turns) - CHUNK_TURNS)
