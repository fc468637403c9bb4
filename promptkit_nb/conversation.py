"""A conversation to talk in: what was said, what it cost, and the verbs that add, change and set aside turns."""

from __future__ import annotations

import threading
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from promptkit_nb.chat.budgets import Spending
from promptkit_nb.chat.options import AT_THE_END, Options, Target, check_replay, check_text
from promptkit_nb.chat.pending_turn import Asking, Preparation
from promptkit_nb.chat.preview import DryRun
from promptkit_nb.chat.snapshot import UNDONE
from promptkit_nb.chat.stored_conversation import StoredConversation, VariableValues
from promptkit_nb.chat.summarizer import Summarizer
from promptkit_nb.chat.window import check_keep_last, newest_turn, older_turns, turns_until
from promptkit_nb.errors import InvalidArgumentError
from promptkit_nb.exports.archives import write_conversation
from promptkit_nb.exports.transcripts import write_transcript
from promptkit_nb.frontend import shown_id
from promptkit_nb.packs.prompt import Prompt, is_stored
from promptkit_nb.rendering.conversations import BranchTree, History
from promptkit_nb.stores.checks import not_found, path_of
from promptkit_nb.text.plain_text import counted
from promptkit_nb.turns import Message, utc_now

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime
    from decimal import Decimal
    from pathlib import Path

    import pandas as pd

    from promptkit_nb.chat.budgets import Budget
    from promptkit_nb.chat.options import CellCall, ReplayMode
    from promptkit_nb.chat.preview import Context
    from promptkit_nb.chat.snapshot import Snapshot
    from promptkit_nb.chat.stream import ResponseStream
    from promptkit_nb.providers.base import Provider
    from promptkit_nb.rendering.responses import Response
    from promptkit_nb.state import Branch, ConversationState, Summary
    from promptkit_nb.stores.base import StateStore
    from promptkit_nb.turns import ContentPart, Turn


class Conversation:
    """One user's conversation; got from a ``ConversationManager``.

    Everything it tells is what the store holds now, whoever wrote it. A handle may be used by several threads: their
    ``send`` calls follow each other.

    >>> from promptkit_nb import ConversationManager, DemoProvider
    >>> conv = ConversationManager(DemoProvider()).new_conversation(system_prompt="You help.", user_id="alice")
    >>> conv.send("My name is Alice").cost
    Decimal('0')
    >>> [message.role for message in conv.messages]
    ['system', 'user', 'assistant']
    >>> conv.user_id, len(conv.turns), conv.total_cost, conv.unpriced_turns
    ('alice', 1, Decimal('0'), 0)
    """

    def __init__(
        self,
        state: ConversationState,
        store: StateStore,
        provider: Provider,
        *,
        budgets: Sequence[Budget] = (),
        replay: ReplayMode = "off",
        recording: Sequence[Turn] = (),
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        """Stand for a conversation that the store holds; ``recording`` are turns from elsewhere to replay, too."""
        self._store = store
        self._provider = provider
        self._clock = clock
        self._budgets = tuple(budgets)
        self._log = StoredConversation(state, store)
        self._spending = spending = Spending(store, self._budgets, clock=clock)
        summarizer = Summarizer(log=self._log, provider=provider, spending=spending, clock=clock)
        self._asking = Asking(
            log=self._log,
            provider=provider,
            preparation=Preparation(provider=provider, spending=spending, summarizer=summarizer, clock=clock),
            replay=check_replay(replay),
            recording=tuple(recording),
            clock=clock,
        )
        self._sending = threading.RLock()

    @property
    def id(self) -> str:
        """The conversation's id."""
        return self._log.id

    @property
    def user_id(self) -> str:
        """Whose conversation it is."""
        return self._log.last_read.user_id

    @property
    def store(self) -> StateStore:
        """Where it is kept, with its neighbours."""
        return self._store

    @property
    def turns(self) -> tuple[Turn, ...]:
        """The current turns, oldest first."""
        return self._log.read().state.turns

    @property
    def stale_turns(self) -> tuple[Turn, ...]:
        """The current turns whose context today is another than the one they were answered in, oldest first."""
        snapshot = self._log.fresh()
        stale = snapshot.stale
        return tuple(turn for turn in snapshot.state.turns if turn.id in stale)

    @property
    def messages(self) -> tuple[Message, ...]:
        """The system message first, if there is one, then those of the turns."""
        return self._log.read().state.messages

    @property
    def summaries(self) -> tuple[Summary, ...]:
        """The summaries that were made of earlier turns."""
        return self._log.read().state.summaries

    @property
    def metadata(self) -> Mapping[str, object]:
        """JSON values that belong to the conversation; ``store.update_metadata(id, …)`` changes them."""
        return MappingProxyType(dict(self._log.head().metadata))

    @property
    def variables(self) -> VariableValues:
        """The values of the prompt's variables; a change is stored at once and effective at the next send."""
        return VariableValues(lambda: self._log.fresh().state.settings, self._log.change_settings)

    @property
    def token_count(self) -> int:
        """All tokens ever spent here; it never falls."""
        return self._log.head().token_count

    @property
    def total_cost(self) -> Decimal | None:
        """All known costs ever spent here in US dollars; ``None`` if no turn has a price."""
        return self._log.head().total_cost

    @property
    def unpriced_turns(self) -> int:
        """How many turns are missing in ``total_cost``, because their price is unknown."""
        return self._log.head().unpriced_turns

    @property
    def forked_from(self) -> str | None:
        """The id of the conversation that this one is a copy of, if it is one."""
        parent = self.metadata.get("forked_from")
        return parent if isinstance(parent, str) else None

    def snapshot(self) -> Snapshot:
        """Return the whole state as it is now, with the hashes of its context.

        >>> from promptkit_nb import ConversationManager, DemoProvider
        >>> conv = ConversationManager(DemoProvider()).new_conversation()
        >>> conv.snapshot().state.turns
        ()
        """
        return self._log.fresh()

    def history(self, *, versions: bool = False) -> History:
        """Return what was said: rich in a notebook; in text the role, the first 60 characters, and the totals.

        Stale turns are marked; with ``versions`` former answers are shown before the current ones.

        >>> from promptkit_nb import ConversationManager, DemoProvider
        >>> conv = ConversationManager(DemoProvider()).new_conversation()
        >>> _ = conv.send("My name is Alice")
        >>> conv.history()
        user       My name is Alice
        assistant  [demo] Nice to meet you, Alice! (This is the built-in demo:…
        2 messages · 38 tokens · $0.00
        """
        snapshot = self._log.read()
        return History.of(snapshot.state, stale=snapshot.stale, versions=versions)

    def context(self, *, model: str | None = None, max_tokens: int | None = None) -> Context:
        """Return exactly what the next request carries beside the new message, with its tokens, and what is left out.

        ``.token_count`` is the size of the whole. ``model`` and ``max_tokens`` are as in ``stream``.

        >>> from promptkit_nb import ConversationManager, DemoProvider
        >>> conv = ConversationManager(DemoProvider()).new_conversation(system_prompt="You help.", max_tokens=4000)
        >>> conv.context()
        system     You help.                                                     7
        10 of 4,000 tokens
        """
        return self._asking.context(None, Options(model=model, max_tokens=max_tokens))[0]

    def dry_run(
        self,
        text: str,
        *,
        model: str | None = None,
        parameters: Mapping[str, object] | None = None,
        max_tokens: int | None = None,
        max_output_tokens: int | None = None,
        parts: Sequence[ContentPart] = (),
        place: Target = AT_THE_END,
    ) -> DryRun:
        """Return what would be sent and what it may cost; nothing is sent, and nothing stored.

        The arguments are those of ``stream``.

        >>> from promptkit_nb import ConversationManager, DemoProvider
        >>> conv = ConversationManager(DemoProvider()).new_conversation()
        >>> conv.dry_run("My name is Alice")
        user       My name is Alice                                              8
        11 tokens
        dry run, nothing was sent · $0.00 (11 tokens in, usually at most 1,000 out)
        """
        options = Options(
            model=model, parameters=parameters, max_tokens=max_tokens, max_output_tokens=max_output_tokens
        )
        context, cost = self._asking.context(self._question(text, parts), options, place)
        return DryRun(context, cost, self._spending.lines(self.id, self.user_id))

    def budget_lines(self) -> tuple[str, ...]:
        """Return one line for each budget: what was spent of it, and what is reserved.

        >>> from promptkit_nb import Budget, ConversationManager, DemoProvider
        >>> manager = ConversationManager(DemoProvider(), budget=Budget(5, per="day"))
        >>> manager.new_conversation().budget_lines()
        ('budget $0.00 of $5.00 today (UTC)',)
        """
        return self._spending.lines(self.id, self.user_id, unpriced_turns=self.unpriced_turns)

    def tree(self) -> BranchTree:
        """Return the turns with the branches and former versions, as a small tree.

        >>> from promptkit_nb import ConversationManager, DemoProvider
        >>> conv = ConversationManager(DemoProvider()).new_conversation(conversation_id="trip")
        >>> _ = conv.send("My city is Lisbon"), conv.rerun(0, "My city is Porto")
        >>> conv.tree()
        trip · 1 turn
        └─ 1  My city is Porto · ✎ 1 former version
        """
        snapshot = self._log.fresh()
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
    ) -> Response:
        """Say something, wait for the answer, and keep both as a new turn.

        A failed call raises a ``ProviderError`` and stores nothing. Ctrl-C after some text keeps the partial answer.

        Args:
            text: What the user says; it is never treated as a template.
            model: The model of this call; else the conversation's, else the provider's.
            parameters: Such as ``{"temperature": 0.2}``, over those of the conversation and its prompt.
            max_output_tokens: The most the answer may have, in tokens.
            replay: ``"auto"`` answers from a stored turn that was asked exactly the same, without a request;
                ``"strict"`` raises ``ReplayMissError`` where there is none; ``"off"`` asks. Else as the manager says.
            fresh: Ask even where a stored answer could be replayed; with ``"strict"``, which asks nothing, no matter.

        >>> from promptkit_nb import ConversationManager, DemoProvider
        >>> conv = ConversationManager(DemoProvider()).new_conversation()
        >>> answer = conv.send("My name is Alice")
        >>> answer.content.splitlines()[0], answer.usage.total_tokens, answer.cost
        ('[demo] Nice to meet you, Alice!', 38, Decimal('0'))
        """
        options = Options(
            model=model, parameters=parameters, max_output_tokens=max_output_tokens, replay=replay, fresh=fresh
        )
        return self._answer(self._question(text), options)

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
        place: Target = AT_THE_END,
        cell: CellCall | None = None,
        on_waiting: Callable[[float, str], None] | None = None,
    ) -> ResponseStream:
        """Say something and iterate over the answer as it comes; the arguments are those of ``send``.

        ``max_tokens`` is the context window of this call. ``parts`` are what the message carries beside its text,
        ``place`` where the turn goes, ``cell`` the notebook cell that asks. ``on_waiting`` is called with seconds and a
        reason whenever the provider waits before trying again.

        >>> from promptkit_nb import ConversationManager, DemoProvider
        >>> conv = ConversationManager(DemoProvider()).new_conversation()
        >>> stream = conv.stream("My name is Alice")
        >>> pieces = list(stream)
        >>> pieces[:4], stream.response.finish_reason
        (['[demo]', ' Nice', ' to', ' meet'], 'stop')
        """
        options = Options(
            model=model,
            parameters=parameters,
            max_tokens=max_tokens,
            max_output_tokens=max_output_tokens,
            replay=replay,
            fresh=fresh,
        )
        return self._asking.stream(self._question(text, parts), options, place, cell=cell, on_waiting=on_waiting)

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
    ) -> Response:
        """Answer a turn again, in place: with another text, or with its own.

        The former answer is kept in ``versions(turn)``. Later turns stay where they are; they are stale as long as what
        stands before them is not what they were answered to. ``turn`` is one of ``turns``, its id or its position; the
        other arguments are those of ``send``.

        >>> from promptkit_nb import ConversationManager, DemoProvider
        >>> conv = ConversationManager(DemoProvider()).new_conversation()
        >>> _ = conv.send("My city is Lisbon")
        >>> conv.rerun(0, "My city is Porto").content.splitlines()[0]
        '[demo] Noted: your city is Porto.'
        >>> len(conv.turns), len(conv.versions(0))
        (1, 1)
        """
        snapshot = self._log.fresh()
        former = snapshot.state.turns[snapshot.place_of(turn)]
        options = Options(
            model=model, parameters=parameters, max_output_tokens=max_output_tokens, replay=replay, fresh=fresh
        )
        question = self._again(former) if text is None else self._question(text)
        return self._answer(question, options, Target(in_place_of=former))

    def edit(
        self,
        i: int,
        text: str,
        *,
        model: str | None = None,
        parameters: Mapping[str, object] | None = None,
        max_output_tokens: int | None = None,
    ) -> Response:
        """Say something else from turn ``i`` on: that turn and all after it become a branch.

        Where the call fails, everything is as it was. The other arguments are those of ``send``.

        >>> from promptkit_nb import ConversationManager, DemoProvider
        >>> conv = ConversationManager(DemoProvider()).new_conversation()
        >>> _ = conv.send("My city is Lisbon"), conv.send("What's my city?")
        >>> _ = conv.edit(0, "My city is Porto")
        >>> [turn.user_text for turn in conv.turns], len(conv.branches())
        (['My city is Porto'], 1)
        """
        options = Options(model=model, parameters=parameters, max_output_tokens=max_output_tokens)
        start = self._log.fresh().place_of(i)
        return self._answer(self._question(text), options, Target(branch_from=start))

    def truncate(self, keep_last: int = 20, *, as_of: str | None = None) -> int:
        """Let the older turns leave the conversation as a branch; return how many left.

        ``keep_last`` counts messages, without the system message: as few whole newest turns stay as reach it. What the
        others cost stays in the totals, and the turns that stay are not stale for it. With ``as_of``, the id of a turn,
        it is done as if the turns behind that one were not there yet.

        >>> from promptkit_nb import ConversationManager, DemoProvider
        >>> conv = ConversationManager(DemoProvider()).new_conversation()
        >>> for day in range(1, 16):
        ...     _ = conv.send(f"My day {day} is sunny")
        >>> conv.truncate(keep_last=20), len(conv.turns)
        (5, 10)
        """
        check_keep_last(keep_last)
        return self._log.archive(lambda state: (0, older_turns(turns_until(state.turns, as_of), keep_last)))

    def summarize(self, keep_last: int = 10, *, model: str | None = None, as_of: str | None = None) -> Summary | None:
        """Let the model sum up the older turns; ``None`` where all of them are summed up already.

        From then on requests carry the system prompt, the summary and the later turns. The turns stay in ``turns``, and
        the summary with its cost in ``summaries``; a former summary is folded in. ``keep_last`` counts messages as in
        ``truncate``. A call that fails changes nothing.

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
            return self._asking.summarize(keep_last, Options(model=model), as_of=as_of)

    def clear(self) -> int:
        """Let all turns leave the conversation as a branch, and begin anew; return how many left.

        >>> from promptkit_nb import ConversationManager, DemoProvider
        >>> conv = ConversationManager(DemoProvider()).new_conversation()
        >>> _ = conv.send("My name is Alice")
        >>> conv.clear(), conv.turns
        (1, ())
        """
        return self._log.archive(lambda state: (0, len(state.turns)))

    def undo(self, *, as_of: str | None = None) -> int:
        """Let the newest turn become a branch, ``undone-1`` or so; return how many left, 0 or 1.

        With ``as_of``, the id of a turn, nothing happens where that turn left already.

        >>> from promptkit_nb import ConversationManager, DemoProvider
        >>> conv = ConversationManager(DemoProvider()).new_conversation()
        >>> _ = conv.send("My name is Alice"), conv.send("My name is Bob")
        >>> conv.undo(), [turn.user_text for turn in conv.turns]
        (1, ['My name is Alice'])
        """
        return self._log.archive(lambda state: newest_turn(state.turns, as_of), name=UNDONE)

    def branches(self) -> tuple[Branch, ...]:
        """Return the former tails and heads of the conversation; ``restore`` brings one back.

        >>> from promptkit_nb import ConversationManager, DemoProvider
        >>> conv = ConversationManager(DemoProvider()).new_conversation()
        >>> _ = conv.send("My name is Alice"), conv.undo()
        >>> [(branch.id, len(branch.turns)) for branch in conv.branches()]
        [('undone-1', 1)]
        """
        return self._log.fresh().state.branches

    def versions(self, turn: Turn | str | int) -> tuple[Turn, ...]:
        """Return what stood in the place of a turn before, oldest first; ``restore`` brings one back.

        >>> from promptkit_nb import ConversationManager, DemoProvider
        >>> conv = ConversationManager(DemoProvider()).new_conversation()
        >>> _ = conv.send("My city is Lisbon"), conv.rerun(0, "My city is Porto")
        >>> [turn.user_text for turn in conv.versions(0)]
        ['My city is Lisbon']
        """
        snapshot = self._log.fresh()
        current = snapshot.state.turns[snapshot.place_of(turn)]
        return snapshot.state.versions.get(current.id, ())

    def restore(self, version_or_branch: Turn | Branch | str) -> None:
        """Bring back a former version or a branch, given as such or by its id; what it displaces is kept.

        Raises ``InvalidArgumentError`` where the conversation has none such.

        >>> from promptkit_nb import ConversationManager, DemoProvider
        >>> conv = ConversationManager(DemoProvider()).new_conversation()
        >>> _ = conv.send("My name is Alice"), conv.undo()
        >>> conv.restore("undone-1")
        >>> [turn.user_text for turn in conv.turns]
        ['My name is Alice']
        """
        self._store.restore(self._log.head().conversation_id, version_or_branch)

    def use_prompt(self, prompt: Prompt) -> None:
        """Talk with this prompt of a pack from the next request on.

        >>> from promptkit_nb import ConversationManager, DemoProvider, load_pack
        >>> conv = ConversationManager(DemoProvider()).new_conversation()
        >>> pack = load_pack({"id": "mine", "prompts": {"tutor": {"system_template": "You teach algebra."}}})
        >>> conv.use_prompt(pack.prompt("tutor"))
        >>> conv.context()[0].content
        'You teach algebra.'
        """
        if not is_stored(prompt, self._log.fresh().state.settings.prompt):
            self._log.change_settings(lambda settings: replace(settings, prompt=prompt.snapshot()))

    def fork(self, new_id: str) -> Conversation:
        """Copy the conversation and go on in the copy, which is independent from then on.

        The copied turns are ``inherited``: in no total of the copy. Raises ``ConversationExistsError`` if the id is
        taken; nothing is overwritten. The copy's ``metadata`` says what it is ``forked_from``.

        >>> from promptkit_nb import ConversationManager, DemoProvider
        >>> conv = ConversationManager(DemoProvider()).new_conversation()
        >>> _ = conv.send("My name is Alice")
        >>> copy = conv.fork("another-try")
        >>> copy.send("What's my name?").content, len(copy.turns), len(conv.turns)
        ('[demo] Your name is Alice.', 2, 1)
        """
        self._store.fork(self._log.head().conversation_id, new_id)
        self._store.update_metadata(new_id, forked_from=self.id)
        return self.neighbour(new_id)

    def neighbour(self, conversation_id: str) -> Conversation:
        """Open another conversation of the same store, to be answered as this one is.

        Raises ``ConversationNotFoundError`` for an unknown id, and for another user's.

        >>> from promptkit_nb import ConversationManager, DemoProvider
        >>> manager = ConversationManager(DemoProvider())
        >>> conv, other = manager.new_conversation(), manager.new_conversation(conversation_id="other")
        >>> conv.neighbour("other").id
        'other'
        """
        state = self._store.get(conversation_id)
        if state.user_id != self.user_id:
            raise not_found(conversation_id)
        return Conversation(
            state,
            self._store,
            self._provider,
            budgets=self._budgets,
            replay=self._asking.replay,
            recording=self._asking.recording,
            clock=self._clock,
        )

    def to_df(self) -> pd.DataFrame:
        """Return one row a message of the turns that stand here now; the columns are those of ``messages_df``.

        >>> from promptkit_nb import ConversationManager, DemoProvider
        >>> conv = ConversationManager(DemoProvider()).new_conversation()
        >>> _ = conv.send("My name is Alice")
        >>> list(conv.to_df()["role"])
        ['user', 'assistant']
        """
        from promptkit_nb.views.messages import current_messages_df  # noqa: PLC0415 - pandas, half a second

        return current_messages_df(self._log.fresh().state)

    def export(self, path: str | os.PathLike[str]) -> Path:
        """Write the conversation to a file, and return its absolute path.

        JSON holds versions, branches and summaries, too: it is what ``import_conversation`` reads, and a recording for
        replay. A path that ends with ``.md`` or ``.html`` gets a transcript to read instead. Raises
        ``StoreUnavailableError`` where the file cannot be written; what stood there before stays.

        >>> import tempfile
        >>> from promptkit_nb import ConversationManager, DemoProvider
        >>> conv = ConversationManager(DemoProvider()).new_conversation()
        >>> path = conv.export(f"{tempfile.mkdtemp()}/hello.json")
        >>> ConversationManager(DemoProvider()).import_conversation(path).id == conv.id
        True
        """
        file = path_of("path", path)
        state = self._store.get(self._log.head().conversation_id)
        if file.suffix.lower() in {".md", ".html"}:
            return write_transcript(state, file, stale=self._log.fresh().stale)
        return write_conversation(state, file)

    def __repr__(self) -> str:
        """Say which conversation it is."""
        count = len(self._log.last_read.turns)
        return f"<Conversation {shown_id(self.id)!r} of {self.user_id!r}, {counted(count, 'turn')}>"

    def _repr_html_(self) -> str:
        return self.history()._repr_html_()

    def _question(self, text: str, parts: Sequence[ContentPart] = ()) -> Message:
        check_text(text)
        return Message("user", text, timestamp=self._clock(), parts=tuple(parts))

    def _again(self, turn: Turn) -> Message:
        asked = next((message for message in turn.messages if message.role == "user"), None)
        if asked is None:
            raise InvalidArgumentError(f"The turn {turn.id!r} has no message of a user: give the text to ask.")
        return replace(asked, timestamp=self._clock())

    def _answer(self, question: Message, options: Options, place: Target = AT_THE_END) -> Response:
        with self._sending:
            stream = self._asking.stream(question, options, place)
            for _ in stream:
                pass
        if stream.response is None:  # a provider of somebody's own ended without saying so
            raise InvalidArgumentError(
                f"The provider {self._provider.name!r} ended its stream without a Completion; nothing was stored."
            )
        return stream.response
