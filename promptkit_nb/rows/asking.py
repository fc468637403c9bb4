"""``ask_rows``: a prompt over the rows of a DataFrame, whose answers become columns."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
import pandas as pd

from promptkit_nb import errors
from promptkit_nb.chat.options import CallOptions
from promptkit_nb.frontend import running_shell
from promptkit_nb.manager import ConversationManager
from promptkit_nb.plain import plain
from promptkit_nb.rows.columns import AnswerColumn, columns_of
from promptkit_nb.rows.estimate import RECENT_ANSWERS, RowsEstimate, estimate_of
from promptkit_nb.rows.following import Following
from promptkit_nb.rows.lease import LASTS_S, LeaseLostError, RunLease
from promptkit_nb.rows.plan import RowAnswers, RowPlan
from promptkit_nb.rows.progress import Progress, closing_line, show
from promptkit_nb.rows.stored_rows import RowConversation, replayable_answers
from promptkit_nb.rows.template import RowTemplate
from promptkit_nb.rows.workers import Workers
from promptkit_nb.stores.ledger import scopes_of
from promptkit_nb.text.plain_text import counted
from promptkit_nb.text.text_frame import TextFrame
from promptkit_nb.turns import Turn, utc_now

if TYPE_CHECKING:
    from collections.abc import Mapping

    from promptkit_nb.chat.stream import ResponseStream
    from promptkit_nb.state import Head

MOST_WORKERS = 256


@overload
def ask_rows(
    df: pd.DataFrame,
    template: str,
    *,
    into: str | None = None,
    name: str | None = None,
    schema: object = None,
    max_workers: int = 4,
    estimate: Literal[False] = False,
    limit: int | None = None,
    manager: ConversationManager | None = None,
    model: str | None = None,
    parameters: Mapping[str, object] | None = None,
    max_output_tokens: int | None = None,
    system_prompt: str | None = None,
    fresh: bool = False,
) -> pd.DataFrame: ...


@overload
def ask_rows(
    df: pd.DataFrame,
    template: str,
    *,
    into: str | None = None,
    name: str | None = None,
    schema: object = None,
    max_workers: int = 4,
    estimate: Literal[True],
    limit: int | None = None,
    manager: ConversationManager | None = None,
    model: str | None = None,
    parameters: Mapping[str, object] | None = None,
    max_output_tokens: int | None = None,
    system_prompt: str | None = None,
    fresh: bool = False,
) -> RowsEstimate: ...


def ask_rows(
    df: pd.DataFrame,
    template: str,
    *,
    into: str | None = None,
    name: str | None = None,
    schema: object = None,
    max_workers: int = 4,
    estimate: bool = False,
    limit: int | None = None,
    manager: ConversationManager | None = None,
    model: str | None = None,
    parameters: Mapping[str, object] | None = None,
    max_output_tokens: int | None = None,
    system_prompt: str | None = None,
    fresh: bool = False,
) -> pd.DataFrame | RowsEstimate:
    """Ask a model about each row of a DataFrame, and return a copy with the answers as columns.

    One request is sent for each distinct question. Every answer is stored at once, in the conversation ``rows:NAME``:
    the same call, in this kernel or another, sends only what is missing, so a run that was stopped, or whose budget was
    used up, goes on where it stopped. Of two kernels that ask under one name, the second waits for the first. Only
    requests under way can be sent twice: those of a process that was killed, or slept on another machine.

    The copy has the index of the frame, the columns of the answers, and ``NAME_error`` (why a row has no answer),
    ``NAME_cost_usd`` (what it cost in this run: 0 if the answer was stored, or belongs to an earlier row with the same
    question; missing if unknown), and ``NAME_replayed`` (whether the answer was stored before this run).

    Args:
        df: The frame, which is not changed.
        template: The question, such as ``"Classify: {{ text }}"``. ``{{ … }}`` takes what it takes in a chat
            cell: columns, ``{{ row["Unit price"] }}``, attributes, items, calls that only read, and pictures, as in
            ``{{ Path(photo) }}``. A missing value is left out; rows without any value are not asked.
        into: The column of the answers; by default ``name``. If the schema has fields, a column with the whole answers.
        name: The name of the run; by default ``into``.
        schema: What an answer must be, as in ``Conversation.send``. The fields of a model or of a dict of types are
            columns, those of nested models are flattened one level. Dtypes are ``category`` (labels), ``Int64``,
            ``Float64``, ``boolean``, ``str``, ``datetime64[us]`` and, for all else, ``object``.
        max_workers: How many requests may be under way at once. If the server limits the rate, all wait, and it is
            halved for a while.
        estimate: Return a ``RowsEstimate`` (rows, distinct texts, tokens, a range of the cost), and send nothing.
        limit: Only the first rows, to look at them.
        manager: What asks, and stores; by default that of the notebook.
        model: The model; by default the manager's.
        parameters: Such as ``{"temperature": 0}``.
        max_output_tokens: The longest answer, in tokens.
        system_prompt: The system prompt.
        fresh: Ask again what is stored. Later calls use the newest answers, including those of a fresh run that was
            stopped.

    Raises:
        InvalidArgumentError: An argument is wrong, or a column exists already; nothing was sent.
        BudgetExceededError, AuthenticationError, RateLimitError, ProviderError, SchemaError, StoreError: The run was
            stopped by the budget, by a wrong key, an exhausted quota, or ten questions in a row that failed. ``frame``
            of the error is what would have been returned, as far as it is answered.

    >>> import pandas as pd
    >>> from promptkit_nb import ConversationManager, DemoProvider, ask_rows
    >>> df = pd.DataFrame({"text": ["A bug: it crashes.", "An idea: dark mode.", "A bug: it crashes."]})
    >>> manager = ConversationManager(DemoProvider())
    >>> labeled = ask_rows(df, "Classify: {{ text }}", into="label", schema=["bug", "idea"], manager=manager)
    label: 3 rows · 2 distinct texts · 2 to send · about 112 tokens in · $0.00
    3 ok · $0.00
    >>> labeled["label"].tolist()
    ['bug', 'idea', 'bug']
    """
    options = CallOptions(
        model=model, parameters=parameters, max_output_tokens=max_output_tokens, schema=schema, fresh=fresh
    )
    run = RowsRun.of(
        df if limit is None else _first(df, limit),
        template,
        into=into,
        name=name,
        options=options,
        manager=_manager_of(manager),
        system_prompt=system_prompt,
    )
    workers = _checked_workers(max_workers)
    return run.estimate() if estimate else run.frame(workers)


@dataclass(slots=True)
class RowsRun:
    """One call of ``ask_rows``: what it asks, and what is answered."""

    df: pd.DataFrame
    name: str
    text: str
    template: RowTemplate
    conversation: RowConversation
    answers: RowAnswers
    manager: ConversationManager
    fresh: bool
    spent_usd: Decimal = Decimal(0)
    unpriced: int = 0

    @classmethod
    def of(
        cls,
        df: pd.DataFrame,
        template: str,
        *,
        into: str | None,
        name: str | None,
        options: CallOptions,
        manager: ConversationManager,
        system_prompt: str | None,
    ) -> RowsRun:
        """Check the arguments, and read the rows once; nothing is sent or stored."""
        if not isinstance(df, pd.DataFrame):
            raise errors.InvalidArgumentError(f"df={df!r:.80} is not a pandas DataFrame.")
        name = _checked_name(name, into)
        conversation = RowConversation.of(manager, name, system_prompt=system_prompt, options=options)
        columns = _columns_of(options.schema, into, name)
        _check_new(df, name, columns)
        parsed = RowTemplate(template, df)
        answers = RowAnswers(RowPlan(parsed, conversation, len(df)), columns, conversation.answer_type)
        return cls(df, name, template, parsed, conversation, answers, manager, options.fresh)

    def estimate(self) -> RowsEstimate:
        """Return what would be sent."""
        self._read_stored(self.conversation.stored_head())
        return self._estimated()

    def frame(self, max_workers: int) -> pd.DataFrame:
        """Send what is missing, and return the frame with the answers."""
        head = self.conversation.stored_head()
        self._read_stored(head)
        if not self.answers.missing:
            show(str(self._estimated()))
        elif self.manager.factory.replay == "strict":
            raise errors.ReplayMissError(
                f"{counted(len(self.answers.missing), 'distinct text')} of {self.name!r} have no recorded answer. "
                "Nothing was sent; record them once with replay='auto', or turn replay off."
            )
        else:
            self._run(head, max_workers)
        show(self._closing_line())
        if self.answers.errors:
            show(f"{self.name}_error says why; {self._same_call} asks only the failed rows again.")
        return self._framed()

    def _run(self, head: Head | None, max_workers: int) -> None:
        """Send what is missing, one kernel at a time; whoever waited reads what the other one stored."""
        conversation = self.conversation
        if head is None:
            conversation.start(self.text)
        lease = RunLease(conversation.store, conversation.id, conversation.user_id, lock=conversation.machine_lock())
        is_first = True
        while self.answers.missing:
            with lease.held(self._say_waiting):
                now = conversation.stored_head()
                if now is not None and (head is None or now.revision != head.revision):
                    self._read_stored(now)
                estimate = self._estimated()
                if is_first:
                    show(str(estimate))
                    for change in conversation.changes(self.text, now):
                        show(f"changed since the last run of {self.name!r}: {change}")
                conversation.start(self.text)
                self._send(lease, estimate, max_workers)
            head, is_first = None, False

    def _say_waiting(self) -> None:
        show(
            f"another kernel is asking the rows of {self.name!r}: waiting for its answers (if it has ended, this "
            f"continues within {LASTS_S:g} s; if it hangs, restart it)"
        )

    def _send(self, lease: RunLease, estimate: RowsEstimate, max_workers: int) -> None:
        """Send what is missing; return early if the lease is lost."""
        missing = self.answers.missing
        if not missing:
            return
        before_usd = self._ledger_usd()
        progress = Progress(estimate)
        workers = Workers(partial(self._ask, lease), missing, min(max_workers, len(missing)))
        following = Following(workers, self.answers, progress)
        try:
            with progress:
                following.to_the_end()
        except KeyboardInterrupt:
            self._count(following, estimate, before_usd)
            show(f"{self._closing_line()}: stopped; {self._same_call} sends only the rest")
            raise
        self._count(following, estimate, before_usd)
        stopped_by = following.stopped_by
        if stopped_by is not None and self.answers.missing and not isinstance(stopped_by, LeaseLostError):
            raise self._stopped(stopped_by)

    def _count(self, following: Following, estimate: RowsEstimate, before_usd: Decimal) -> None:
        """Count what the run cost: all that the ledger has, failed and repeated requests included."""
        self.spent_usd += self._ledger_usd() - before_usd
        self.unpriced += following.unpriced + (following.failed if estimate.low_usd is None else 0)

    def _closing_line(self) -> str:
        return closing_line(self.answers, self.spent_usd, self.unpriced)

    @property
    def _same_call(self) -> str:
        return "the same call without fresh=True" if self.fresh else "the same call"

    def _ask(self, lease: RunLease, number: int) -> ResponseStream:
        lease.check()
        position = self.answers.plan.first_rows[number]
        return self.conversation.ask_row(self.template.text_of(position), str(self.df.index[position]))

    def _stopped(self, error: BaseException) -> BaseException:
        """Return the error that stopped the run, with what is answered and how to go on."""
        show(self._closing_line())
        if isinstance(error, errors.PromptKitError):
            error.args = (f"{error} The answers so far are stored; {self._same_call} sends only the rest.",)
            error.frame = self._framed()
        return error

    def _read_stored(self, head: Head | None) -> None:
        if self.fresh:
            return
        if head is not None:
            self.answers.take_stored(self.conversation.stored_answers())
        recording = sorted(self.manager.factory.recording, key=lambda turn: turn.created_at)
        self.answers.take_stored(replayable_answers(recording))  # after the store, whose answers it replaces

    def _estimated(self) -> RowsEstimate:
        return estimate_of(self.name, self.answers, self.conversation, self.template, self._recent_turns())

    def _recent_turns(self) -> tuple[Turn, ...]:
        try:
            return self.conversation.store.recent(self.conversation.id, RECENT_ANSWERS)
        except errors.ConversationNotFoundError:
            return ()

    def _ledger_usd(self) -> Decimal:
        scopes = scopes_of(self.conversation.id, self.conversation.user_id, utc_now())
        return self.conversation.store.spending(scopes["conversation"]).spent

    def _framed(self) -> pd.DataFrame:
        """Return a copy of the frame with the answers."""
        answers, plan = self.answers, self.answers.plan
        rows = np.frombuffer(plan.questions, np.int64) if len(plan.questions) else np.empty(0, np.int64)
        added: dict[str, Any] = {}
        for at, column in enumerate(answers.columns):
            values = column.array_of(answers.values_of(at))
            added[column.name] = (
                values.take(rows, allow_fill=True) if len(plan) else column.array_of([None] * len(rows))
            )
        why = [plan.not_asked.get(at) or answers.errors.get(number) for at, number in enumerate(rows.tolist())]
        is_replayed = np.array([source == "replayed" for source in answers.sources] + [False], bool)
        added[f"{self.name}_error"] = pd.array(why, dtype="str")
        added[f"{self.name}_cost_usd"] = self._costs(rows)
        added[f"{self.name}_replayed"] = is_replayed[rows]
        series = {label: pd.Series(values, index=self.df.index) for label, values in added.items()}
        framed = self.df.assign(**series)
        return TextFrame(framed) if type(framed) is pd.DataFrame else framed

    def _costs(self, rows: Any) -> Any:
        """Return what each row cost in this run; only the first of several with the same question cost anything."""
        plan = self.answers.plan
        costs = np.zeros(len(rows))
        first = np.frombuffer(plan.first_rows, np.int64) if len(plan) else np.empty(0, np.int64)
        costs[first] = np.frombuffer(self.answers.costs_usd, np.float64) if len(plan) else 0.0
        is_unknown = np.isnan(costs)
        return pd.arrays.FloatingArray(np.where(is_unknown, 0.0, costs), is_unknown)


def _manager_of(manager: ConversationManager | None) -> ConversationManager:
    """Return the manager, by default that of the notebook, for its user."""
    if isinstance(manager, ConversationManager):
        return manager
    if manager is not None:
        raise errors.InvalidArgumentError(f"manager={manager!r:.80} is not a ConversationManager.")
    session = getattr(running_shell(), "meta", {}).get("promptkit_nb")
    if session is None:
        raise errors.InvalidArgumentError(
            "There is no manager to ask: give manager=ConversationManager(OpenAIProvider(…), store=DiskStore()), or "
            "run %load_ext promptkit_nb in the notebook first."
        )
    found: ConversationManager = session.settings.manager.for_user(session.settings.user_id)
    return found


def _first(df: pd.DataFrame, limit: object) -> pd.DataFrame:
    limit = plain(limit)
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
        raise errors.InvalidArgumentError(f"limit={limit!r:.40} is out of range: give a number of rows, from 1.")
    return df.iloc[:limit] if isinstance(df, pd.DataFrame) else df


def _checked_workers(count: object) -> int:
    count = plain(count)
    if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= MOST_WORKERS:
        raise errors.InvalidArgumentError(
            f"max_workers={count!r:.40} is out of range: give a whole number from 1 to {MOST_WORKERS}."
        )
    return count


def _checked_name(name: str | None, into: str | None) -> str:
    for argument, value in (("name", name), ("into", into)):
        if value is not None and not (isinstance(value, str) and value.strip()):
            raise errors.InvalidArgumentError(f'{argument}={value!r:.80} is not a name: give text, such as "label".')
    found = name or into
    if found is None:
        raise errors.InvalidArgumentError(
            'Name the column of the answers, as in into="label", or the run: name="labels".'
        )
    return found


def _columns_of(schema: object, into: str | None, name: str) -> tuple[AnswerColumn, ...]:
    return columns_of(schema, into) or columns_of(schema, name)


def _check_new(df: pd.DataFrame, name: str, columns: tuple[AnswerColumn, ...]) -> None:
    """Raise ``InvalidArgumentError`` if a column exists already."""
    names = [*(column.name for column in columns), *(f"{name}_{each}" for each in ("error", "cost_usd", "replayed"))]
    taken = [each for each in dict.fromkeys(names) if each in df.columns or names.count(each) > 1]
    if taken:
        raise errors.InvalidArgumentError(
            f"The column {taken[0]!r} exists already, so nothing was sent: drop it with df.drop(columns={taken!r}), or "
            "choose another into= or name=."
        )
