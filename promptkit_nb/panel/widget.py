"""``ChatPanel``: a conversation as a widget, to keep open beside the notebook."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import anywidget
from IPython.display import display
from traitlets import Bool, Dict, Int, List, Unicode

from promptkit_nb.conversation import Conversation
from promptkit_nb.errors import InvalidArgumentError
from promptkit_nb.frontend import WIDGET_VIEW, can_use_widgets, widget_view
from promptkit_nb.panel.controller import PanelController
from promptkit_nb.panel.transcript import static_html, static_text
from promptkit_nb.rendering.widget_page import script_of, style_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from promptkit_nb.chat.snapshot import Snapshot

_HERE = Path(__file__).parent


class ChatPanel(anywidget.AnyWidget):
    """A panel to talk in: it streams while the kernel stays usable, and shows what others add to the conversation.

    Displayed in a notebook, it leaves a transcript beside it that is readable where no widget runs. A batch run gets
    that transcript alone.

    Args:
        conversation: Where it begins; another one of the same user can be chosen in the panel.
        model: The model of every call; else the conversation's, else the provider's.

    >>> from promptkit_nb import ChatPanel, ConversationManager, DemoProvider
    >>> panel = ChatPanel(ConversationManager(DemoProvider()).new_conversation(conversation_id="hello"))
    >>> panel
    ChatPanel('hello')
    """

    _esm = script_of(*(_HERE / name for name in ("parts.js", "scrolling.js", "drafts.js", "panel.js")))
    _css = style_of(_HERE / "panel.css")

    panel_id = Unicode().tag(sync=True)
    conversation_id = Unicode().tag(sync=True)
    title = Unicode().tag(sync=True)
    turns = List(Dict()).tag(sync=True)
    first = Int().tag(sync=True)
    epoch = Int().tag(sync=True)
    growing = Dict(allow_none=True, default_value=None).tag(sync=True)
    busy = Bool().tag(sync=True)
    status = Unicode().tag(sync=True)
    problem = Dict().tag(sync=True)
    footer = List(Unicode()).tag(sync=True)
    conversations = List(Dict()).tag(sync=True)

    def __init__(self, conversation: Conversation, *, model: str | None = None) -> None:
        """Show a conversation."""
        if not isinstance(conversation, Conversation):
            raise InvalidArgumentError(
                f"conversation={conversation!r:.80} is no conversation: give one of ConversationManager's."
            )
        super().__init__()
        self.panel_id = "" if self.comm is None else self.model_id
        self._transcript: Any = None  # IPython's DisplayHandle
        self._engine = PanelController(conversation, self, model=model)
        self.on_msg(self._received)

    @property
    def conversation(self) -> Conversation:
        """The conversation that is shown now."""
        return self._engine.conversation

    def show(self, **changes: object) -> None:
        """Change what the pages show, in one message."""
        with self.hold_sync():
            for name, value in changes.items():
                setattr(self, name, value)

    def tell(self, message: Mapping[str, object]) -> None:
        """Send something to the pages that are open now."""
        self.send(dict(message))

    def keep(self, snapshot: Snapshot) -> None:
        """Let the saved notebook have the conversation as it is now."""
        if self._transcript is not None:
            self._transcript.update(_static(snapshot), raw=True)

    def open(self) -> None:
        """Connect with the pages; a batch run has none, and would save what is here in the notebook's metadata."""
        if can_use_widgets():
            super().open()

    def close(self) -> None:
        """Take the panel away; an answer under way is still stored."""
        engine = getattr(self, "_engine", None)  # there is none where making the panel failed
        if engine is not None:
            engine.close()
        super().close()

    def __repr__(self) -> str:
        """Say which conversation is shown."""
        return f"ChatPanel({self.conversation_id!r})"

    def _repr_mimebundle_(self, **_: object) -> tuple[dict[str, object], dict[str, object]]:
        static = _static(self.conversation.snapshot())
        if not can_use_widgets():
            return static, {}
        return {**static, WIDGET_VIEW: widget_view(self.model_id)}, {}

    def _ipython_display_(self, **_: object) -> None:
        static = _static(self.conversation.snapshot())
        if not can_use_widgets():
            display(static, raw=True)  # type: ignore[no-untyped-call]  # IPython's has no types
            return
        hint = f"{self!r} needs a running kernel: run this cell again to go on."
        display({"text/plain": hint, WIDGET_VIEW: widget_view(self.model_id)}, raw=True)  # type: ignore[no-untyped-call]  # as above
        self._transcript = display(static, raw=True, display_id=True)  # type: ignore[no-untyped-call]  # as above

    def _received(self, _: object, content: object, __: object) -> None:
        """Take what a page asks for. Answering at once tells the page that the kernel reads what it sends.

        It is also what makes later messages come while a cell runs: on a subshell's thread.
        """
        if not isinstance(content, dict):
            return
        command = {str(name): str(value) for name, value in content.items()}
        self.send({"taken": command.get("n", ""), "view": command.get("view", "")})
        self._engine.post(command)


def _static(snapshot: Snapshot) -> dict[str, object]:
    return {
        "text/plain": static_text(snapshot.state),
        "text/html": static_html(snapshot.state, stale=snapshot.stale),
    }
