"""The options of one chat call: one frozen value from the magic to the request."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING, Literal, cast, get_args

from promptkit_nb.errors import InvalidArgumentError
from promptkit_nb.frontend import typed_value

if TYPE_CHECKING:
    from promptkit_nb.tools.answer_types import AnswerType  # noqa: TC004 - as below
    from promptkit_nb.tools.calls import ToolRun  # noqa: TC004 - pydantic, imported when tools are used
    from promptkit_nb.tools.tool import Tool  # noqa: TC004 - as above
    from promptkit_nb.tools.tool_host import ToolHost  # noqa: TC004 - as above
    from promptkit_nb.tools.toolbox import Toolbox  # noqa: TC004 - as above
    from promptkit_nb.turns import ContentPart, Turn  # noqa: TC004 - %load_ext takes no time for it

ReplayMode = Literal["off", "auto", "strict"]

_POSITION = re.compile(r"\d{1,4}|vscode-notebook-cell:.*", re.DOTALL)


def is_position(cell_id: str) -> bool:
    """Return whether a cell id is only a position, so that another cell gets it if cells move.

    >>> [is_position(each) for each in ("0", "12", "vscode-notebook-cell:/eda.ipynb#W0", "3f2a9c01", "setup")]
    [True, True, True, False, False]
    """
    return _POSITION.fullmatch(cell_id) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class CellCall:
    """A chat call of a notebook cell: the cell's id, the index of the call within the cell run, the cell's source."""

    cell_id: str | None
    cell_call: int = 0
    cell_source: str | None = None

    def made(self, turn: Turn) -> bool:
        """Return whether this call made the turn, judged by the cell's id."""
        return self.cell_id is not None and (self.cell_id, self.cell_call) == (turn.cell_id, turn.cell_call)

    def has_source_of(self, turn: Turn) -> bool:
        """Return whether the same call of a cell with this source made the turn."""
        return self.cell_source is not None and (self.cell_source, self.cell_call) == (turn.cell_source, turn.cell_call)

    @property
    def has_lasting_id(self) -> bool:
        """Whether the cell keeps its id if cells move; numeric ids and those of VS Code are positions."""
        return self.cell_id is not None and not is_position(self.cell_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where an answer goes: at the end, in place of a turn, or at a position from which on the turns become a branch.

    ``archived`` is this cell's turn on a branch: it answers the same question again, and nothing is written. With
    ``as_version``, the answer becomes a version of ``in_place_of``, which stays the current turn.
    """

    in_place_of: Turn | None = None
    as_version: bool = False
    branch_from: int | None = None
    archived: Turn | None = None


AT_THE_END = Target()


@dataclass(frozen=True, slots=True, kw_only=True)
class CallOptions:
    """The options of one call; ``None`` means the default of the notebook, the conversation or the provider.

    ``conversation_id``, ``user_id``, ``pack`` and ``prompt`` choose the conversation of a chat cell; ``quiet``
    shows nothing. ``max_tokens`` is the context window and ``max_output_tokens`` the longest answer, in tokens.
    ``parts`` is what the message carries besides text. ``asked_before`` lets another notebook's answer to the same
    request be replayed. ``on_waiting`` is called with seconds and a reason before each retry. ``tools`` are
    functions that the model may call, ``None`` for those of the manager; ``toolbox`` is made of them for the
    conversation. ``schema`` is what the answer must be, and ``answer_type`` is made of it. ``on_tool`` is called at
    the beginning and at the end of each call, and ``tool_host`` runs the calls, by default the thread that asks.
    ``row_index`` is the index label of the row of a DataFrame that asks.
    """

    conversation_id: str | None = None
    user_id: str | None = None
    pack: str | None = None
    prompt: str | None = None
    quiet: bool = False
    model: str | None = None
    parameters: Mapping[str, object] | None = None
    max_tokens: int | None = None
    max_output_tokens: int | None = None
    replay: ReplayMode | None = None
    fresh: bool = False
    parts: tuple[ContentPart, ...] = ()
    target: Target = AT_THE_END
    cell: CellCall | None = None
    asked_before: bool = False
    on_waiting: Callable[[float, str], None] | None = None
    tools: Sequence[Callable[..., object] | Tool] | None = None
    toolbox: Toolbox | None = None
    schema: object = None
    answer_type: AnswerType | None = None
    on_tool: Callable[[ToolRun], None] | None = None
    tool_host: ToolHost | None = None
    row_index: str | None = None

    def __post_init__(self) -> None:
        """Raise ``InvalidArgumentError`` for a model that is not a name; the request checks the rest."""
        object.__setattr__(self, "model", check_model(self.model))


def check_text(text: str) -> None:
    """Raise ``InvalidArgumentError`` unless the message is text that is not blank."""
    if not isinstance(text, str):
        raise InvalidArgumentError(f"A message is text, not {type(text).__name__}: {text!r:.60}.")
    if not text.strip():
        raise InvalidArgumentError("The message is empty: say something.")


def check_model(model: object) -> str | None:
    """Return the name of a model, or ``None``; raise ``InvalidArgumentError`` for anything else."""
    if model is None:
        return None
    if isinstance(model, str) and model.strip():
        return str.__str__(model)  # plain text, even for a subclass
    raise InvalidArgumentError(
        f'{typed_value("model", model):.80} is not a model name: give one, such as "gpt-4o-mini", or leave it out.'
    )


def check_tokens(name: str, tokens: object) -> int | None:
    """Return a limit in tokens, or raise ``InvalidArgumentError`` unless it is a whole number from 1, or ``None``."""
    if tokens is None:
        return None
    if isinstance(tokens, Integral) and not isinstance(tokens, bool) and int(tokens) >= 1:
        return int(tokens)
    raise InvalidArgumentError(f"{typed_value(name, tokens)} is out of range: give a whole number from 1.")


def check_replay(mode: object) -> ReplayMode:
    """Return the mode, or raise ``InvalidArgumentError`` if it is unknown.

    >>> check_replay("auto")
    'auto'
    """
    if mode not in get_args(ReplayMode):
        raise InvalidArgumentError(f"{typed_value('replay', mode)} is unknown: use 'off', 'auto' or 'strict'.")
    return cast("ReplayMode", str.__str__(cast("str", mode)))
