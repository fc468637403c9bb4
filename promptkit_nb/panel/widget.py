"""``ChatPanel``: a conversation as a widget, to keep open next to the notebook."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from traitlets import Bool, Dict, Int, List, Unicode

from promptkit_nb.conversation import Conversation
from promptkit_nb.errors import InvalidArgumentError
from promptkit_nb.panel.controller import PanelController
from promptkit_nb.panel.transcript import static_html, static_text
from promptkit_nb.rendering.markdown import answer_css
from promptkit_nb.rendering.responses import ThinkingMode, check_thinking
from promptkit_nb.rendering.widgets import NotebookWidget, script_of, style_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from promptkit_nb.chat.stored_conversation import Snapshot
    from promptkit_nb.panel.controller import PanelValues

_HERE = Path(__file__).parent


class ChatPanel(NotebookWidget):
    """A panel to chat in. It streams while the kernel stays usable, and shows turns that are added elsewhere.

    Displayed in a notebook, it leaves a transcript below it for front ends without widgets. A batch run gets the
    transcript alone.

    Args:
        conversation: The conversation to show first; the panel can switch to others of the same user.
        model: The model of every call; by default the conversation's, else the provider's.
        thinking: How to show the model's thinking: ``"fold"`` (one line that unfolds), ``"show"``, or ``"hide"``.
        docked: Whether to open it as a tab beside the notebook, in JupyterLab; elsewhere it stays in its output.

    Raises:
        InvalidArgumentError: ``conversation`` is not a ``Conversation``, or ``thinking`` is unknown.

    >>> from promptkit_nb import ChatPanel, ConversationManager, DemoProvider
    >>> panel = ChatPanel(ConversationManager(DemoProvider()).new_conversation(conversation_id="hello"))
    >>> panel
    ChatPanel('hello')
    """

    _esm = script_of(*(_HERE / name for name in ("parts.js", "scrolling.js", "drafts.js", "docking.js", "panel.js")))
    _css = f"{style_of(_HERE / 'panel.css')}\n{answer_css()}"

    panel_id = Unicode().tag(sync=True)
    conversation_id = Unicode().tag(sync=True)
    title = Unicode().tag(sync=True)
    turns = List(Dict()).tag(sync=True)
    first = Int().tag(sync=True)
    epoch = Int().tag(sync=True)
    streaming = Dict(allow_none=True, default_value=None).tag(sync=True)
    busy = Bool().tag(sync=True)
    status = Unicode().tag(sync=True)
    error = Dict().tag(sync=True)
    footer = List(Unicode()).tag(sync=True)
    usage = Dict().tag(sync=True)
    model = Unicode().tag(sync=True)
    models = List(Unicode()).tag(sync=True)
    models_note = Unicode().tag(sync=True)
    docked = Bool().tag(sync=True)
    conversations = List(Dict()).tag(sync=True)

    def __init__(
        self,
        conversation: Conversation,
        *,
        model: str | None = None,
        thinking: ThinkingMode = "fold",
        docked: bool = False,
    ) -> None:
        """Show a conversation."""
        if not isinstance(conversation, Conversation):
            raise InvalidArgumentError(
                f"conversation={conversation!r:.80} is not a Conversation: pass one from a ConversationManager."
            )
        mode = check_thinking(thinking)
        super().__init__()
        self.panel_id = "" if self.comm is None else self.model_id
        self.docked = docked
        self._controller = PanelController(conversation, self, model=model, thinking=mode)
        self.on_msg(self._on_message)

    @property
    def conversation(self) -> Conversation:
        """The conversation that is shown."""
        return self._controller.conversation

    def follow(self, conversation: Conversation, *, model: str | None = None, thinking: ThinkingMode = "fold") -> None:
        """Use the provider of this conversation, which must be the one shown, from the next message on."""
        self._controller.follow(conversation, model=model, thinking=check_thinking(thinking))

    def use_values(self, values: PanelValues) -> None:
        """Fill in ``{{ name }}`` in messages with these values, from the next message on."""
        self._controller.values = values

    def show(self, **changes: object) -> None:
        """Change these traits in one message to the pages."""
        with self.hold_sync():
            for name, value in changes.items():
                setattr(self, name, value)

    def notify(self, message: Mapping[str, object]) -> None:
        """Send a message to the open pages."""
        self.send(dict(message))

    def save_transcript(self, snapshot: Snapshot) -> None:
        """Update the transcript in the saved notebook."""
        if self._saved is not None:
            self._saved.update(_static_output(snapshot), metadata=self.output_metadata, raw=True)

    def close(self) -> None:
        """Remove the panel; an answer that is still streaming is stored."""
        controller = getattr(self, "_controller", None)  # missing if __init__ failed
        if controller is not None:
            controller.close()
        super().close()

    def __repr__(self) -> str:
        """Return the class with the id of the shown conversation."""
        return f"ChatPanel({self.conversation_id!r})"

    def _static_output(self) -> dict[str, object]:
        return _static_output(self.conversation.snapshot())

    def _on_message(self, _: object, content: object, buffers: Sequence[memoryview]) -> None:
        """Post a page's command, and confirm it at once: the page then knows that the kernel reads its messages."""
        if not isinstance(content, dict):
            return
        command = {str(name): str(value) for name, value in content.items()}
        self.send({"received": command.get("n", ""), "page": command.get("page", "")})
        self._controller.post(command, [bytes(buffer) for buffer in buffers or ()])


def _static_output(snapshot: Snapshot) -> dict[str, object]:
    return {"text/plain": static_text(snapshot.state), "text/html": static_html(snapshot.state, stale=snapshot.stale)}
