"""What a store keeps of a conversation, as frozen values: the state, its head, summaries and branches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from typing import Literal

from msgspec import UNSET, UnsetType

from promptkit_nb.turns import NO_USAGE, OWN_SOURCE, Message, Turn, Usage, utc_now

MOST_ACTS = 500
"""The newest changes by cells that a conversation keeps."""

ContextPolicy = Literal["truncate", "summarize", "error"]
ConversationKind = Literal["chat", "rows", "imported"]


@dataclass(frozen=True, slots=True)
class Totals:
    """Totals: tokens, known costs in US dollars, and the numbers of calls with and without a price."""

    tokens: int = 0
    cost: Decimal = Decimal(0)
    priced: int = 0
    unpriced: int = 0

    def plus(self, usage: Usage, cost: Decimal | None) -> Totals:
        """Return the totals with one more call."""
        if cost is None:
            return Totals(self.tokens + usage.total_tokens, self.cost, self.priced, self.unpriced + 1)
        return Totals(self.tokens + usage.total_tokens, self.cost + cost, self.priced + 1, self.unpriced)

    def plus_paid(self, calls: Iterable[Turn | Summary]) -> Totals:
        """Return the totals with these turns or summaries, except those that this conversation did not pay for."""
        totals = self
        for call in calls:
            if call.counts:
                totals = totals.plus(call.usage, call.cost)
        return totals

    @property
    def known_cost(self) -> Decimal | None:
        """The sum of the known costs in US dollars; ``None`` if there were calls, and none of them had a price."""
        return None if self.unpriced and not self.priced else self.cost


@dataclass(frozen=True, slots=True)
class Summary:
    """A summary of the turns from ``first_turn`` to ``last_turn``, both included.

    They are turn ids; a summary made by hand may have positions instead, counted from 0. ``context_hash`` is the hash
    of the context up to ``last_turn`` when the summary was made, ``request_hash`` that of the request and its provider;
    one made by hand has none. A summary that was reused has no usage and cost 0.

    >>> from promptkit_nb import Summary
    >>> Summary(0, 7, "Days 1 to 8 were all sunny.").counts
    False
    """

    first_turn: str | int
    last_turn: str | int
    text: str
    usage: Usage = NO_USAGE
    cost: Decimal | None = None
    model: str = ""
    created_at: datetime = field(default_factory=utc_now)
    context_hash: str | UnsetType = field(default=UNSET, repr=False)
    request_hash: str | UnsetType = field(default=UNSET, repr=False)

    @property
    def counts(self) -> bool:
        """Whether this conversation paid for it; summaries made by hand, reused, or copied by a fork, cost nothing."""
        return self.usage != NO_USAGE or bool(self.cost)


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """Turns that were once in the conversation, from position ``start``: its head or its tail at that time.

    ``context_hash`` is the hash of the context before position 0. Both are updated when turns are removed or restored
    at the front; ``start`` is negative if turns before the branch have been removed since.
    """

    id: str
    turns: tuple[Turn, ...]
    start: int
    kind: Literal["head", "tail"] = "tail"
    context_hash: str | None = None
    created_at: datetime = field(default_factory=utc_now)


@dataclass(frozen=True, slots=True)
class NotebookNote:
    """The last known notebook of a conversation.

    ``path`` is its absolute path, and ``host`` the machine; ``kernel`` is the name of the kernel, which survives
    restarts. ``path`` is empty if the front end did not report it, and in a batch run. The note of a conversation that
    ``%chat_new`` began without an id is empty: no notebook finds it as its own.
    """

    path: str = ""
    host: str = ""
    kernel: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CellAct:
    """A change that a magic in a cell made: ``"undo"``, ``"restore NAME"``, or ``"edit N"``, which is not made twice.

    ``cell_id`` is the id of the cell, ``source_hash`` the hash of its source, and ``call`` the index of the change
    within the cell run. ``reached`` is the id of the last turn that the kernel had then, ``next_reached`` the last one
    after the change. ``line`` is what the magic said, and ``turn`` the id of the turn that was undone, of the first one
    that was restored, or of the edited one.
    """

    what: str
    cell_id: str = ""
    source_hash: str = ""
    call: int = 0
    reached: str = ""
    next_reached: str = ""
    line: str = ""
    turn: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of a conversation, stored so that it can be resumed without the pack file.

    ``prompt`` is the pack's prompt when it was chosen (``Prompt.snapshot()``), ``variables`` the values that the user
    set, ``max_tokens`` the context window in tokens. A conversation of the kind ``"imported"`` comes from another tool,
    ``source``; it cannot be continued, but forked. ``acts`` are the changes that cells made, oldest first.
    """

    model: str | None = None
    parameters: Mapping[str, object] = field(default_factory=dict)
    max_tokens: int | None = None
    context_policy: ContextPolicy = "truncate"
    prompt: Mapping[str, object] | None = None
    variables: Mapping[str, object] = field(default_factory=dict)
    kind: ConversationKind = "chat"
    source: str = OWN_SOURCE
    acts: tuple[CellAct, ...] = ()

    def as_own(self) -> Settings:
        """Return the settings for a fork of the conversation, which can be continued."""
        return self if self.kind != "imported" else replace(self, kind="chat", source=OWN_SOURCE)

    def with_act(self, act: CellAct) -> Settings:
        """Return the settings with one more change by a cell; one that is among them becomes the newest."""
        others = tuple(each for each in self.acts if each != act)
        return replace(self, acts=(*others, act)[-MOST_ACTS:])


@dataclass(frozen=True, slots=True)
class ConversationState:
    """A whole conversation.

    ``turns`` are the current ones; ``versions`` maps the id of a turn to its previous versions, oldest first.
    ``context_hash`` is the hash of the turns that were removed at the front. ``metadata`` has JSON values; times are in
    UTC. Three fields belong to the store and are not compared: ``dropped``, the totals of turns that were deleted from
    the state (totals never fall), ``revision``, the number of writes, and ``notebook``.

    >>> from promptkit_nb import ConversationState
    >>> state = ConversationState("persistent-chat", "alice", system_prompt="You help.")
    >>> [message.role for message in state.messages], state.total_cost
    (['system'], Decimal('0'))
    """

    conversation_id: str
    user_id: str = "default"
    turns: tuple[Turn, ...] = ()
    system_prompt: str | None = None
    summaries: tuple[Summary, ...] = ()
    versions: Mapping[str, tuple[Turn, ...]] = field(default_factory=dict)
    branches: tuple[Branch, ...] = ()
    settings: Settings = field(default_factory=Settings)
    metadata: Mapping[str, object] = field(default_factory=dict)
    created_at: datetime = field(default_factory=utc_now)
    updated_at: datetime = field(default_factory=utc_now)
    dropped: Totals = field(default_factory=Totals, compare=False)
    context_hash: str | None = None
    revision: int = field(default=0, compare=False)
    notebook: NotebookNote | None = field(default=None, compare=False, repr=False)

    @property
    def messages(self) -> tuple[Message, ...]:
        """The system message first, if there is one, then those of the turns."""
        said = tuple(message for turn in self.turns for message in turn.messages)
        return said if self.system_prompt is None else (Message("system", self.system_prompt), *said)

    @property
    def stored_turns(self) -> Iterable[Turn]:
        """Every stored turn: the current ones, previous versions, branches."""
        yield from self.turns
        for versions in self.versions.values():
            yield from versions
        for branch in self.branches:
            yield from branch.turns

    @property
    def totals(self) -> Totals:
        """Everything ever spent in this conversation, including summaries and replaced turns."""
        return self.dropped.plus_paid(self.stored_turns).plus_paid(self.summaries)

    @property
    def token_count(self) -> int:
        """All tokens ever spent."""
        return self.totals.tokens

    @property
    def total_cost(self) -> Decimal | None:
        """All known costs in US dollars; ``None`` if no turn has a price."""
        return self.totals.known_cost

    @property
    def unpriced_turns(self) -> int:
        """The number of turns that ``total_cost`` lacks because their price is unknown."""
        return self.totals.unpriced


def carry_totals(state: ConversationState, previous: ConversationState) -> ConversationState:
    """Return the state, with ``dropped`` set so that its totals include everything that was spent in ``previous``."""
    kept = {turn.id for turn in state.stored_turns}
    dropped = previous.dropped.plus_paid(turn for turn in previous.stored_turns if turn.id not in kept)
    dropped = dropped.plus_paid(summary for summary in previous.summaries if summary not in state.summaries)
    return replace(state, dropped=dropped)


@dataclass(frozen=True, slots=True)
class Head:
    """A conversation without its turns; ``total_cost`` is in US dollars, ``None`` if no turn has a price.

    ``kind`` is ``"imported"`` for a conversation from another tool, ``source``.

    >>> from promptkit_nb import ConversationManager, DemoProvider
    >>> manager = ConversationManager(DemoProvider())
    >>> _ = manager.new_conversation(conversation_id="hello").send("My name is Alice")
    >>> head = manager.list_conversations()[0]
    >>> head.conversation_id, head.turn_count, head.token_count, head.total_cost
    ('hello', 1, 38, Decimal('0'))
    """

    conversation_id: str
    user_id: str
    turn_count: int
    token_count: int
    total_cost: Decimal | None
    unpriced_turns: int
    created_at: datetime
    updated_at: datetime
    metadata: Mapping[str, object]
    revision: int
    notebook: NotebookNote | None = field(default=None, compare=False, repr=False)
    kind: ConversationKind = "chat"
    source: str = OWN_SOURCE
