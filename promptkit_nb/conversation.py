"""A conversation: its turns and cost, and the methods that add, replace, and archive turns."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from types import MappingProxyType
from typing import TYPE_CHECKING

from promptkit_nb.characters import terminal_text
from promptkit_nb.chat.budgets import Budget, Spending
from promptkit_nb.chat.options import AT_THE_END, CallOptions, CellCall, ReplayMode, Target, check_replay, check_text
from promptkit_nb.chat.pending_turn import ChatServices, PendingTurn
from promptkit_nb.chat.preview import Context, DryRun, context_and_cost
from promptkit_nb.chat.request import check_can_continue
from promptkit_nb.chat.stored_conversation import UNDONE, Snapshot, StoredConversation, VariableValues, stale_turns
from promptkit_nb.chat.stream import ResponseStream
from promptkit_nb.chat.summaries import find_applied_summaries, plan_summary
from promptkit_nb.chat.summarizer import make_summary
from promptkit_nb.chat.token_estimates import token_estimator_for
from promptkit_nb.chat.window import check_keep_last, newest_turn, older_turns, turns_until
from promptkit_nb.errors import InvalidArgumentError
from promptkit_nb.exports.transcripts import export_path, write_transcript
from promptkit_nb.frontend import shown_id
from promptkit_nb.packs.prompt import Prompt, is_stored
from promptkit_nb.providers.base import Provider
from promptkit_nb.rendering.conversations import BranchTree, noted_title
from promptkit_nb.rendering.history import History
from promptkit_nb.stores.base import StateStore, clock_of
from promptkit_nb.stores.checks import not_found
from promptkit_nb.text.plain_text import counted, preview
from promptkit_nb.turns import ContentPart, Message, Turn, utc_now

if TYPE_CHECKING:
    import os
    from decimal import Decimal
    from pathlib import Path

    import pandas as pd

    from promptkit_nb.chat.comparison import ModelComparison
    from promptkit_nb.rendering.comparisons import Comparison
    from promptkit_nb.rendering.responses import Response
    from promptkit_nb.state import Branch, CellAct, ConversationState, Summary
    from promptkit_nb.tools.calls import ToolRun
    from promptkit_nb.tools.tool import Tool  # noqa: TC004 - pydantic, imported when tools are used


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationFactory:
    """Opens the conversations of one store, to be answered by one provider; ``recording`` holds turns to replay.

    ``tools`` are those that are registered, by name; a copy in another process has none.
    """

    provider: Provider
    store: StateStore
    budgets: tuple[Budget, ...] = ()
    replay: ReplayMode = "off"
    recording: tuple[Turn, ...] = ()
    clock: Callable[[], datetime] = utc_now
    tools: Mapping[str, Tool] = field(default_factory=dict)

    def open(self, conversation_id: str) -> Conversation:
        """Return the stored conversation with this id."""
        return Conversation(self.store.get(conversation_id), self)

    def __getstate__(self) -> dict[str, object]:
        """Return what another process gets: no tools, which are functions of this one."""
        return {each.name: getattr(self, each.name) for each in fields(self)} | {"tools": {}}

    def __setstate__(self, state: Mapping[str, object]) -> None:
        """Restore the fields."""
        for name, value in state.items():
            object.__setattr__(self, name, value)


class Conversation:
    """One user's conversation, from a ``ConversationManager``.

    What it returns is what the store holds now, whoever wrote it. Several threads may use one object: their ``send``
    calls run one after the other.

    >>> from promptkit_nb import ConversationManager, DemoProvider
    >>> conv = ConversationManager(DemoProvider()).new_conversation(system_prompt="You help.", user_id="alice")
    >>> conv.send("My name is Alice").cost
    Decimal('0')
    >>> [message.role for message in conv.messages]
    ['system', 'user', 'assistant']
    >>> conv.user_id, len(conv.turns), conv.total_cost, conv.unpriced_turns
    ('alice', 1, Decimal('0'), 0)
    """

    def __init__(self, state: ConversationState, factory: ConversationFactory) -> None:
        """Wrap a stored conversation."""
        self._factory = factory
        self._stored = StoredConversation(state, factory.store)
        clock = clock_of(factory.store, factory.clock)
        self._spending = Spending(factory.store, factory.budgets, clock=clock)
        self._services = ChatServices(
            stored=self._stored,
            provider=factory.provider,
            spending=self._spending,
            replay=check_replay(factory.replay),
            recording=factory.recording,
            clock=factory.clock,
        )
        self._sending = threading.RLock()

    @property
    def id(self) -> str:
        """The conversation's id."""
        return self._stored.id

    @property
    def user_id(self) -> str:
        """The user that the conversation belongs to."""
        return self._stored.last_read.user_id

    @property
    def store(self) -> StateStore:
        """The store that holds it."""
        return self._factory.store

    @property
    def turns(self) -> tuple[Turn, ...]:
        """The current turns, oldest first."""
        return self._stored.read().state.turns

    @property
    def stale_turns(self) -> tuple[Turn, ...]:
        """The current turns that are stale: earlier turns changed after they were answered."""
        snapshot = self._stored.refresh()
        stale = snapshot.stale
        return tuple(turn for turn in snapshot.state.turns if turn.id in stale)

    @property
    def messages(self) -> tuple[Message, ...]:
        """The system message, if there is one, then the messages of the turns."""
        return self._stored.read().state.messages

    @property
    def summaries(self) -> tuple[Summary, ...]:
        """The summaries of earlier turns."""
        return self._stored.read().state.summaries

    @property
    def title(self) -> str:
        """The title that was set, else the notebook's name, else the first question; without any, the id.

        ``store.update_metadata(id, title="…")`` sets one.
        """
        if (noted := noted_title(self._stored.head())) is not None:
            return noted
        return next((preview(turn.user_text) for turn in self.turns if turn.user_text.strip()), self.id)

    @property
    def metadata(self) -> Mapping[str, object]:
        """JSON values stored with the conversation; ``store.update_metadata(id, …)`` changes them."""
        return MappingProxyType(dict(self._stored.head().metadata))

    @property
    def variables(self) -> VariableValues:
        """The values of the prompt's variables; a change is stored at once and takes effect at the next send."""
        return VariableValues(self._stored)

    @property
    def token_count(self) -> int:
        """All tokens ever spent; never falls."""
        return self._stored.head().token_count

    @property
    def total_cost(self) -> Decimal | None:
        """All known costs in US dollars; ``None`` if no turn has a price."""
        return self._stored.head().total_cost

    @property
    def unpriced_turns(self) -> int:
        """How many turns are not in ``total_cost`` because their price is unknown."""
        return self._stored.head().unpriced_turns

    @property
    def forked_from(self) -> str | None:
        """The id of the conversation that this one was forked from, if it was."""
        parent = self.metadata.get("forked_from")
        return parent if isinstance(parent, str) else None

    @property
    def provider(self) -> Provider:
        """What answers this conversation.

        >>> from promptkit_nb import ConversationManager, DemoProvider
        >>> ConversationManager(DemoProvider()).new_conversation().provider.name
        'demo'
        """
        return self._factory.provider

    def snapshot(self) -> Snapshot:
        """Return the whole state with the hashes of its context.

        >>> from promptkit_nb import ConversationManager, DemoProvider
        >>> conv = ConversationManager(DemoProvider()).new_conversation()
        >>> conv.snapshot().state.turns
        ()
        """
        return self._stored.refresh()

    def history(self, *, versions: bool = False) -> History:
        """Return the messages: rich in a notebook; in text the role, the first 60 characters, and the totals.

        Stale turns are marked; ``versions`` shows previous answers before the current ones.

        >>> from promptkit_nb import ConversationManager, DemoProvider
        >>> conv = ConversationManager(DemoProvider()).new_conversation()
        >>> _ = conv.send("My name is Alice")
        >>> conv.history()
        user       My name is Alice
        assistant  [demo] Nice to meet you, Alice! (This is the built-in demo:…
        2 messages · 38 tokens · $0.00
        """
        snapshot = self._stored.read()
        return History.of(snapshot.state, stale=snapshot.stale, versions=versions)

    def context(self, *, model: str | None = None, max_tokens: int | None = None) -> Context:
        """Return exactly what the next request carries before the new message, with its tokens, and what is left out.

        ``.token_count`` is the size of all of it. ``model`` and ``max_tokens`` are as in ``stream``.

        >>> from promptkit_nb import ConversationManager, DemoProvider
        >>> conv = ConversationManager(DemoProvider()).new_conversation(system_prompt="You help.", max_tokens=4000)
        >>> conv.context()
        system     You help.                                                     7
        10 of 4,000 tokens
        """
        return context_and_cost(self._services, None, CallOptions(model=model, max_tokens=max_tokens))[0]

    def dry_run(
        self,
        text: str,
        *,
        model: str | None = None,
        parameters: Mapping[str, object] | None = None,
        max_tokens: int | None = None,
        max_output_tokens: int | None = None,
        parts: Sequence[ContentPart] = (),
        target: Target = AT_THE_END,
        tools: Sequence[Callable[..., object] | Tool] | None = None,
    ) -> DryRun:
        """Return the next request and its possible cost; nothing is sent or stored.

        The arguments are those of ``stream``.

        >>> from promptkit_nb import ConversationManager, DemoProvider
        >>> conv = ConversationManager(DemoProvider()).new_conversation()
        >>> conv.dry_run("My name is Alice")
        user       My name is Alice                                              8
        11 tokens
        dry run, nothing was sent · $0.00 (11 tokens in, usually at most 1,000 out)
        """
        options = CallOptions(
            model=model,
            parameters=parameters,
            max_tokens=max_tokens,
            max_output_tokens=max_output_tokens,
            parts=tuple(parts),
            target=target,
            tools=tools,
        )
        return self.preview(text, options)

    def preview(self, text: str, options: CallOptions) -> DryRun:
        """Do what ``dry_run`` does, with the options of a call.

        >>> from promptkit_nb import ConversationManager, DemoProvider
        >>> from promptkit_nb.chat.options import CallOptions
        >>> conv = ConversationManager(DemoProvider()).new_conversation()
        >>> conv.preview("Hello", CallOptions(max_output_tokens=100)).cost.output_tokens
        100
        """
        options = self._with_toolbox(options, self._stored.refresh())
        context, cost = context_and_cost(self._services, self._question(text, options.parts), options)
        tools = () if options.toolbox is None else tuple(options.toolbox.tools)
        return DryRun(context, cost, self._spending.lines(self.id, self.user_id), tools)

    def budget_lines(self) -> tuple[str, ...]:
        """Return one line for each budget, with the spent and reserved amounts.

        >>> from promptkit_nb import Budget, ConversationManager, DemoProvider
        >>> manager = ConversationManager(DemoProvider(), budget=Budget(5, per="day"))
        >>> manager.new_conversation().budget_lines()
        ('budget $0.00 of $5.00 today (UTC)',)
        """
        return self._spending.lines(self.id, self.user_id, unpriced_turns=self.unpriced_turns)

    def tree(self) -> BranchTree:
        """Return the turns with branches and previous versions, as a small tree.

        >>> from promptkit_nb import ConversationManager, DemoProvider
        >>> conv = ConversationManager(DemoProvider()).new_conversation(conversation_id="trip")
        >>> _ = conv.send("My city is Lisbon"), conv.rerun(0, "My city is Porto")
        >>> conv.tree()
        trip · 1 turn
        └─ 1  My city is Porto · ✎ 1 previous version
        """
        snapshot = self._stored.refresh()
        return BranchTree(snapshot.state, snapshot.stale)

    def send(
        self,
        text: str,
        *,
        model: str | None = None,
        parameters: Mapping[str, object] | None = None,
        max_output_tokens: int | None = None,
        replay: ReplayMode | None = None,
        fresh: bool = False,
        tools: Sequence[Callable[..., object] | Tool] | None = None,
        schema: object = None,
        attachments: Sequence[object] | None = None,
    ) -> Response:
        """Send a message, wait for the answer, and store both as a new turn.

        A failed call raises a ``ProviderError`` and stores nothing. Ctrl-C after some text stores the partial answer.

        Args:
            text: The user's message; it is never treated as a template.
            model: The model of this call; by default the conversation's, else the provider's.
            parameters: Such as ``{"temperature": 0.2}``; they override those of the conversation and its prompt.
            max_output_tokens: The longest answer, in tokens.
            replay: ``"auto"`` answers from a stored turn with exactly the same request, without sending one;
                ``"strict"`` raises ``ReplayMissError`` if there is none; ``"off"`` asks. By default the manager's mode.
            fresh: Ask even if a stored answer could be replayed; has no effect with ``"strict"``, which never asks.
            tools: Functions that the model may call, by default those registered with the manager; ``[]`` for none.
                They run in this thread, one after the other, until the model answers without calling any. What they
                raise is told to the model. ``ToolError`` is raised if the model does not stop calling.
            schema: What the answer must be: a pydantic model, a dict of types, a list of labels, or a type. ``value``
                of the response is the validated answer; the model is asked a second time if the first does not fit,
                and then ``SchemaError`` is raised.
            attachments: Images and PDFs to send after the text: paths, the bytes of such files, Pillow images, and
                matplotlib figures. Other values raise ``InvalidArgumentError``.

        >>> from promptkit_nb import ConversationManager, DemoProvider
        >>> conv = ConversationManager(DemoProvider()).new_conversation()
        >>> answer = conv.send("My name is Alice")
        >>> answer.content.splitlines()[0], answer.usage.total_tokens, answer.cost
        ('[demo] Nice to meet you, Alice!', 38, Decimal('0'))
        """
        options = CallOptions(
            model=model,
            parameters=parameters,
            max_output_tokens=max_output_tokens,
            replay=replay,
            fresh=fresh,
            tools=tools,
            schema=schema,
        )
        return self._answer(self._question(text, _parts_of(text, attachments)), options)

    def stream(
        self,
        text: str,
        *,
        model: str | None = None,
        parameters: Mapping[str, object] | None = None,
        max_tokens: int | None = None,
        max_output_tokens: int | None = None,
        replay: ReplayMode | None = None,
        fresh: bool = False,
        parts: Sequence[ContentPart] = (),
        target: Target = AT_THE_END,
        cell: CellCall | None = None,
        on_waiting: Callable[[float, str], None] | None = None,
        tools: Sequence[Callable[..., object] | Tool] | None = None,
        on_tool: Callable[[ToolRun], None] | None = None,
        schema: object = None,
        attachments: Sequence[object] | None = None,
    ) -> ResponseStream:
        """Send a message and iterate over the answer as it arrives; the arguments are those of ``send``.

        ``max_tokens`` is the context window of this call. ``parts`` are what the message carries besides its text,
        ``target`` is where the turn goes, ``cell`` the call of a notebook cell. ``on_waiting`` is called with seconds
        and a reason whenever the provider waits before a retry, ``on_tool`` at the beginning and end of each tool call.

        >>> from promptkit_nb import ConversationManager, DemoProvider
        >>> conv = ConversationManager(DemoProvider()).new_conversation()
        >>> stream = conv.stream("My name is Alice")
        >>> pieces = list(stream)
        >>> pieces[:4], stream.response.finish_reason
        (['[demo]', ' Nice', ' to', ' meet'], 'stop')
        """
        options = CallOptions(
            model=model,
            parameters=parameters,
            max_tokens=max_tokens,
            max_output_tokens=max_output_tokens,
            replay=replay,
            fresh=fresh,
            parts=tuple(parts) or _parts_of(text, attachments),
            target=target,
            cell=cell,
            on_waiting=on_waiting,
            tools=tools,
            on_tool=on_tool,
            schema=schema,
        )
        return self.ask(text, options)

    def ask(self, text: str, options: CallOptions, *, snapshot: Snapshot | None = None) -> ResponseStream:
        """Do what ``stream`` does, with the options of a call; ``snapshot`` is the state, if it was just read.

        >>> from promptkit_nb import ConversationManager, DemoProvider
        >>> from promptkit_nb.chat.options import CallOptions
        >>> conv = ConversationManager(DemoProvider()).new_conversation()
        >>> "".join(conv.ask("My city is Porto", CallOptions())).splitlines()[0]
        '[demo] Noted: your city is Porto.'
        """
        return self._stream(self._question(text, options.parts), options, snapshot)

    def compare(
        self,
        text: str,
        models: Sequence[str],
        *,
        parameters: Mapping[str, object] | None = None,
        max_output_tokens: int | None = None,
        replay: ReplayMode | None = None,
        fresh: bool = False,
        attachments: Sequence[object] | None = None,
    ) -> Comparison:
        """Ask several models the same question in the same context, one after the other; return their responses.

        The first that answers is the turn; the others are its versions, and ``restore`` picks one. All are paid for,
        counted, and replayed. Budgets reserve for all of them before the first is sent. A model that fails shows its
        error in its column; if none answers, the first error is raised. The other arguments are those of ``send``.

        >>> from promptkit_nb import ConversationManager, DemoProvider
        >>> conv = ConversationManager(DemoProvider()).new_conversation()
        >>> answers = conv.compare("My city is Porto", models=["demo", "demo-2"])
        >>> len(answers), len(conv.turns), len(conv.versions(0))
        (2, 1, 1)
        """
        options = CallOptions(
            parameters=parameters,
            max_output_tokens=max_output_tokens,
            replay=replay,
            fresh=fresh,
            parts=_parts_of(text, attachments),
        )
        with self._sending:
            comparison = self.ask_models(text, models, options)
            return comparison.answers(lambda _, stream: [*stream])

    def ask_models(self, text: str, models: Sequence[str], options: CallOptions) -> ModelComparison:
        """Do what ``compare`` does, with the options of a call; nothing is sent yet.

        >>> from promptkit_nb import ConversationManager, DemoProvider
        >>> from promptkit_nb.chat.options import CallOptions
        >>> conv = ConversationManager(DemoProvider()).new_conversation()
        >>> comparison = conv.ask_models("My city is Porto", ["demo", "demo-2"], CallOptions())
        >>> len(comparison.answers(lambda model, stream: list(stream)))
        2
        """
        from promptkit_nb.chat.comparison import ModelComparison  # noqa: PLC0415 - imported when models are compared

        question = self._question(text, options.parts)
        return ModelComparison(
            models, lambda model: self._pending(question, replace(options, model=model), self._stored.refresh())
        )

    def rerun(
        self,
        turn: Turn | str | int,
        text: str | None = None,
        *,
        model: str | None = None,
        parameters: Mapping[str, object] | None = None,
        max_output_tokens: int | None = None,
        replay: ReplayMode | None = None,
        fresh: bool = False,
        tools: Sequence[Callable[..., object] | Tool] | None = None,
        schema: object = None,
    ) -> Response:
        """Answer a turn again, in place: with another text, or with its own.

        The previous answer is kept in ``versions(turn)``. Later turns stay where they are; they are stale until their
        context is what it was again. ``turn`` is one of ``turns``, its id or its position; the other arguments are
        those of ``send``.

        >>> from promptkit_nb import ConversationManager, DemoProvider
        >>> conv = ConversationManager(DemoProvider()).new_conversation()
        >>> _ = conv.send("My city is Lisbon")
        >>> conv.rerun(0, "My city is Porto").content.splitlines()[0]
        '[demo] Noted: your city is Porto.'
        >>> len(conv.turns), len(conv.versions(0))
        (1, 1)
        """
        snapshot = self._stored.refresh()
        previous = snapshot.state.turns[snapshot.position_of(turn)]
        options = CallOptions(
            model=model,
            parameters=parameters,
            max_output_tokens=max_output_tokens,
            replay=replay,
            fresh=fresh,
            target=Target(in_place_of=previous),
            tools=tools,
            schema=schema,
        )
        return self._answer(self._question_of(previous) if text is None else self._question(text), options)

    def edit(
        self,
        i: int,
        text: str,
        *,
        model: str | None = None,
        parameters: Mapping[str, object] | None = None,
        max_output_tokens: int | None = None,
    ) -> Response:
        """Continue differently from turn ``i``: that turn and all after it become a branch, then ``text`` is sent.

        If the call fails, nothing changes. The other arguments are those of ``send``.

        >>> from promptkit_nb import ConversationManager, DemoProvider
        >>> conv = ConversationManager(DemoProvider()).new_conversation()
        >>> _ = conv.send("My city is Lisbon"), conv.send("What's my city?")
        >>> _ = conv.edit(0, "My city is Porto")
        >>> [turn.user_text for turn in conv.turns], len(conv.branches())
        (['My city is Porto'], 1)
        """
        start = self._stored.refresh().position_of(i)
        options = CallOptions(
            model=model, parameters=parameters, max_output_tokens=max_output_tokens, target=Target(branch_from=start)
        )
        return self._answer(self._question(text), options)

    def truncate(self, keep_last: int = 20, *, as_of: str | None = None) -> int:
        """Move older turns to a branch; return how many.

        ``keep_last`` counts messages without the system message: the fewest newest turns that reach it are kept. The
        totals keep what the others cost, and the kept turns do not become stale. With ``as_of``, the id of a turn, the
        turns after that one are ignored.

        >>> from promptkit_nb import ConversationManager, DemoProvider
        >>> conv = ConversationManager(DemoProvider()).new_conversation()
        >>> for day in range(1, 16):
        ...     _ = conv.send(f"My day {day} is sunny")
        >>> conv.truncate(keep_last=20), len(conv.turns)
        (5, 10)
        """
        check_keep_last(keep_last)
        return self._stored.archive(lambda state: (0, older_turns(turns_until(state.turns, as_of), keep_last)))

    def summarize(
        self,
        keep_last: int = 10,
        *,
        model: str | None = None,
        as_of: str | None = None,
        asked_before: bool = False,
    ) -> Summary | None:
        """Let the model summarize the older turns; return ``None`` if all of them are summarized already.

        From then on requests carry the system prompt, the summary and the later turns. The turns stay in ``turns``; the
        summary, with its cost, is in ``summaries`` and includes a previous one. ``keep_last`` counts messages as in
        ``truncate``. A call that fails changes nothing. Unless replay is off, the summary of exactly the same request
        is used again and costs nothing; with ``asked_before``, also that of another conversation without a name.

        >>> from promptkit_nb import ConversationManager, DemoProvider
        >>> conv = ConversationManager(DemoProvider()).new_conversation()
        >>> for day in range(1, 16):
        ...     _ = conv.send(f"My day {day} is sunny")
        >>> before, _ = conv.context().token_count, conv.summarize(keep_last=10)
        >>> before, conv.context().token_count, len(conv.turns), len(conv.summaries)
        (425, 242, 15, 1)
        """
        check_keep_last(keep_last)
        with self._sending:
            snapshot = self._stored.refresh()
            state, hashes = snapshot.state, snapshot.context_hashes
            check_can_continue(state)
            turns = turns_until(state.turns, as_of)
            applied = find_applied_summaries(state, len(turns), hashes)
            plan = plan_summary(turns, applied, older_turns(turns, keep_last), hashes)
            if plan is None:
                return None
            settings = self._services.settings(state, CallOptions(model=model))
            estimator = token_estimator_for(settings.model, state.turns, settings.system_prompt)
            return make_summary(
                self._services,
                plan,
                estimator=estimator,
                max_tokens=settings.max_tokens,
                asked_before=asked_before,
            )

    def edit_reply(self, turn: Turn | str | int, text: str) -> Turn:
        """Replace the answer of a turn by your own text, and return the turn; nothing is sent.

        The model's answer is kept in ``versions(turn)``, and its cost in the totals; ``restore`` brings it back. Later
        turns are stale until they are answered again. If the answer has this text already, nothing changes. ``turn`` is
        one of ``turns``, its id or its position, or the id of a turn on a branch.

        >>> from promptkit_nb import ConversationManager, DemoProvider
        >>> conv = ConversationManager(DemoProvider()).new_conversation()
        >>> _ = conv.send("My city is Lisbon")
        >>> conv.edit_reply(0, "Noted.").text, len(conv.versions(0))
        ('Noted.', 1)
        """
        check_text(text)
        with self._sending:
            snapshot = self._stored.refresh()
            check_can_continue(snapshot.state)
            previous = snapshot.turn_of(turn)
            if previous.text == text:
                return previous
            written = snapshot.edited_version_of(previous, text)
            if written is not None:
                self._stored.own_store.restore(self.id, written)
                return written
            edited = previous.with_answer(text, at=self._factory.clock())
            self._stored.replace(previous.id, edited, since=snapshot.state, charge=None)
            return edited

    def clear(self) -> int:
        """Move all turns to a branch, and start over; return how many.

        >>> from promptkit_nb import ConversationManager, DemoProvider
        >>> conv = ConversationManager(DemoProvider()).new_conversation()
        >>> _ = conv.send("My name is Alice")
        >>> conv.clear(), conv.turns
        (1, ())
        """
        return self._stored.archive(lambda state: (0, len(state.turns)))

    def undo(self, *, as_of: str | None = None) -> int:
        """Move the newest turn to a branch, such as ``undone-1``; return how many, 0 or 1.

        With ``as_of``, the id of a turn, nothing happens if that turn is not current any more.

        >>> from promptkit_nb import ConversationManager, DemoProvider
        >>> conv = ConversationManager(DemoProvider()).new_conversation()
        >>> _ = conv.send("My name is Alice"), conv.send("My name is Bob")
        >>> conv.undo(), [turn.user_text for turn in conv.turns]
        (1, ['My name is Alice'])
        """
        return self._stored.archive(lambda state: newest_turn(state.turns, as_of), name=UNDONE)

    def branches(self) -> tuple[Branch, ...]:
        """Return the branches: turns that were moved out of the conversation; ``restore`` restores one.

        >>> from promptkit_nb import ConversationManager, DemoProvider
        >>> conv = ConversationManager(DemoProvider()).new_conversation()
        >>> _ = conv.send("My name is Alice"), conv.undo()
        >>> [(branch.id, len(branch.turns)) for branch in conv.branches()]
        [('undone-1', 1)]
        """
        return self._stored.refresh().state.branches

    def versions(self, turn: Turn | str | int) -> tuple[Turn, ...]:
        """Return the previous versions of a turn, oldest first; ``restore`` restores one.

        >>> from promptkit_nb import ConversationManager, DemoProvider
        >>> conv = ConversationManager(DemoProvider()).new_conversation()
        >>> _ = conv.send("My city is Lisbon"), conv.rerun(0, "My city is Porto")
        >>> [turn.user_text for turn in conv.versions(0)]
        ['My city is Lisbon']
        """
        snapshot = self._stored.refresh()
        current = snapshot.state.turns[snapshot.position_of(turn)]
        return snapshot.state.versions.get(current.id, ())

    def restore(self, version_or_branch: Turn | Branch | str) -> None:
        """Restore a previous version or a branch, given as a value or by its id; what it replaces is kept.

        Raises ``InvalidArgumentError`` if the conversation does not have it.

        >>> from promptkit_nb import ConversationManager, DemoProvider
        >>> conv = ConversationManager(DemoProvider()).new_conversation()
        >>> _ = conv.send("My name is Alice"), conv.undo()
        >>> conv.restore("undone-1")
        >>> [turn.user_text for turn in conv.turns]
        ['My name is Alice']
        """
        self._stored.own_store.restore(self.id, version_or_branch)

    def record_act(self, act: CellAct) -> None:
        """Record a change that a cell made, so that it is not made again when its notebook runs again.

        >>> from promptkit_nb import ConversationManager, DemoProvider
        >>> from promptkit_nb.state import CellAct
        >>> conv = ConversationManager(DemoProvider()).new_conversation()
        >>> conv.record_act(CellAct(what="undo", cell_id="3f2a9c01"))
        >>> len(conv.snapshot().state.settings.acts)
        1
        """
        self._stored.change_settings(lambda settings: settings.with_act(act))

    def use_prompt(self, prompt: Prompt) -> None:
        """Use this prompt of a pack from the next request on.

        >>> from promptkit_nb import ConversationManager, DemoProvider, load_pack
        >>> conv = ConversationManager(DemoProvider()).new_conversation()
        >>> pack = load_pack({"id": "mine", "prompts": {"tutor": {"system_template": "You teach algebra."}}})
        >>> conv.use_prompt(pack.prompt("tutor"))
        >>> conv.context()[0].content
        'You teach algebra.'
        """
        if not is_stored(prompt, self._stored.refresh().state.settings.prompt):
            self._stored.change_settings(lambda settings: replace(settings, prompt=prompt.snapshot()))

    def fork(self, new_id: str) -> Conversation:
        """Copy the conversation under a new id, and return the copy, which is independent.

        The copied turns are ``inherited``: they count in no total of the copy. Raises ``ConversationExistsError`` if
        the id is taken; nothing is overwritten. The copy's ``metadata`` has the original's id in ``forked_from``.

        >>> from promptkit_nb import ConversationManager, DemoProvider
        >>> conv = ConversationManager(DemoProvider()).new_conversation()
        >>> _ = conv.send("My name is Alice")
        >>> copy = conv.fork("another-try")
        >>> copy.send("What's my name?").content, len(copy.turns), len(conv.turns)
        ('[demo] Your name is Alice.', 2, 1)
        """
        self._stored.fork(new_id)
        return self.neighbor(new_id)

    def neighbor(self, conversation_id: str) -> Conversation:
        """Open another conversation of the same store and user, with the same provider and budgets.

        Raises ``ConversationNotFoundError`` for an unknown id, and for another user's.

        >>> from promptkit_nb import ConversationManager, DemoProvider
        >>> manager = ConversationManager(DemoProvider())
        >>> conv, other = manager.new_conversation(), manager.new_conversation(conversation_id="other")
        >>> conv.neighbor("other").id
        'other'
        """
        other = self._factory.open(conversation_id)
        if other.user_id != self.user_id:
            raise not_found(conversation_id)
        return other

    def to_df(self) -> pd.DataFrame:
        """Return one row per message of the current turns; the columns are those of ``messages_df``.

        >>> from promptkit_nb import ConversationManager, DemoProvider
        >>> conv = ConversationManager(DemoProvider()).new_conversation()
        >>> _ = conv.send("My name is Alice")
        >>> list(conv.to_df()["role"])
        ['user', 'assistant']
        """
        from promptkit_nb.views.messages import current_messages_df  # noqa: PLC0415 - pandas, half a second

        return current_messages_df(self._stored.refresh().state)

    def export(self, path: str | os.PathLike[str]) -> Path:
        """Write the conversation to a file, and return its absolute path.

        ``.json`` holds versions, branches and summaries, too: ``import_conversation`` reads it, and it is a recording
        for replay. ``.md`` and ``.html`` are transcripts. Raises ``InvalidArgumentError`` for another suffix, and
        ``StoreUnavailableError`` if the file cannot be written; an existing file then stays as it was.

        >>> import tempfile
        >>> from promptkit_nb import ConversationManager, DemoProvider
        >>> conv = ConversationManager(DemoProvider()).new_conversation()
        >>> path = conv.export(f"{tempfile.mkdtemp()}/hello.json")
        >>> ConversationManager(DemoProvider()).import_conversation(path).id == conv.id
        True
        """
        file = export_path(path)
        state = self._stored.get()
        return write_transcript(state, file, stale=stale_turns(state))

    def __reduce__(self) -> tuple[Callable[[ConversationFactory, str], Conversation], tuple[ConversationFactory, str]]:
        """Return how another process opens the same conversation."""
        return ConversationFactory.open, (self._factory, self.id)

    def __repr__(self) -> str:
        """Return the id, the user and the number of turns."""
        count = len(self._stored.last_read.turns)
        return terminal_text(f"<Conversation {shown_id(self.id)!r} of {self.user_id!r}, {counted(count, 'turn')}>")

    def _repr_html_(self) -> str:
        return self.history()._repr_html_()

    def _question(self, text: str, parts: Sequence[ContentPart] = ()) -> Message:
        check_text(text)
        return Message("user", text, timestamp=self._factory.clock(), parts=tuple(parts))

    def _question_of(self, turn: Turn) -> Message:
        asked = next((message for message in turn.messages if message.role == "user"), None)
        if asked is None:
            raise InvalidArgumentError(f"The turn {turn.id!r} has no message of a user: give the text to ask.")
        return replace(asked, timestamp=self._factory.clock())

    def _stream(self, question: Message, options: CallOptions, snapshot: Snapshot | None = None) -> ResponseStream:
        """Return the answer as it will arrive; raise early if the request cannot be answered."""
        return ResponseStream(self._pending(question, options, snapshot or self._stored.refresh()))

    def _pending(self, question: Message, options: CallOptions, snapshot: Snapshot) -> PendingTurn:
        options = self._with_toolbox(options, snapshot)
        if options.toolbox is None:
            return PendingTurn(self._services, snapshot, question, options)
        from promptkit_nb.chat.tool_turn import ToolTurn  # noqa: PLC0415 - pydantic, imported when tools are used

        return ToolTurn(self._services, snapshot, question, options, options.toolbox)

    def _with_toolbox(self, options: CallOptions, snapshot: Snapshot) -> CallOptions:
        """Return the options with the type of the answer, and the tools of the call: those given, else registered."""
        if options.schema is None and not (self._factory.tools if options.tools is None else options.tools):
            return options
        from promptkit_nb.tools.answer_types import AnswerType  # noqa: PLC0415 - as above
        from promptkit_nb.tools.toolbox import Toolbox  # noqa: PLC0415 - as above

        stored = snapshot.state.settings.prompt
        prompt = None if stored is None else Prompt.from_snapshot(stored)
        toolbox = Toolbox.of(options.tools, self._factory.tools, prompt)
        if options.schema is not None:
            return replace(options, toolbox=toolbox, answer_type=AnswerType.of(options.schema))
        return replace(options, toolbox=toolbox) if toolbox.tools else options

    def _answer(self, question: Message, options: CallOptions) -> Response:
        with self._sending:
            stream = self._stream(question, options)
            for _ in stream:
                pass
        if stream.response is None:  # a custom provider sent neither text nor a Completion
            raise InvalidArgumentError(
                f"The provider {self._factory.provider.name!r} ended its stream without a Completion; nothing was "
                "stored."
            )
        return stream.response


def _parts_of(text: str, attachments: Sequence[object] | None) -> tuple[ContentPart, ...]:
    """Return the parts of a message with attachments, ``()`` without."""
    if attachments is None:
        return ()
    from promptkit_nb.text.values import with_attachments  # noqa: PLC0415 - imported when used

    return with_attachments(text, attachments)
