"""Registering the magics with IPython, and unregistering them."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from promptkit_nb.notebook.cells import RunningCell
from promptkit_nb.notebook.completion import chat_matcher
from promptkit_nb.notebook.conversation_magics import ConversationMagics
from promptkit_nb.notebook.magic_lines import ChatLine, chat_cell
from promptkit_nb.notebook.magics import ChatMagics
from promptkit_nb.notebook.options import PromptKit

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from promptkit_nb.notebook.session import ChatSession


class Notebook:
    """One notebook, as the magics know it."""

    def __init__(self, shell: InteractiveShell) -> None:
        """Begin with the options of IPython's configuration."""
        self.shell = shell
        self.options = PromptKit(parent=shell)
        self.cell = RunningCell(shell)
        self._complete = chat_matcher(self)

    @cached_property
    def session(self) -> ChatSession:
        """The session, imported and made at the first chat, so that loading the extension takes no time."""
        from promptkit_nb.notebook.session import ChatSession  # noqa: PLC0415 - a tenth of a second

        return ChatSession(self.options)

    def watch(self) -> None:
        """Follow the cells, and complete the lines of chat magics, from now on."""
        self.cell.watch()
        if self.shell.Completer is not None:
            self.shell.Completer.custom_matchers.append(self._complete)

    def stop(self) -> None:
        """Let go of the store and of the shell."""
        self.cell.stop()
        if self.shell.Completer is not None and self._complete in self.shell.Completer.custom_matchers:
            self.shell.Completer.custom_matchers.remove(self._complete)
        if "session" in vars(self):
            self.session.chosen.close()


_MAGICS = (ChatMagics, ConversationMagics)
_KEPT = "promptkit_nb"  # the name under which IPython's place for extensions keeps the notebook


def load(shell: InteractiveShell) -> None:
    """Register the magics, in place of those of an earlier load, whose choices and conversation stay."""
    unload(shell)
    notebook: Notebook = shell.meta.setdefault(_KEPT, Notebook(shell))
    notebook.watch()
    for magics in _MAGICS:
        shell.register_magics(magics(notebook))
    shell.input_transformer_manager.cleanup_transforms.insert(0, chat_cell)
    shell.input_transformer_manager.token_transformers.append(ChatLine)
    shell.configurables.append(notebook.options)  # type: ignore[arg-type]  # IPython declares a list of shells


def unload(shell: InteractiveShell) -> None:
    """Take away everything that ``load`` registered."""
    registered = shell.magics_manager.registry.get(ChatMagics.__name__)
    if registered is None:
        return
    notebook = registered.notebook
    notebook.stop()
    shell.input_transformer_manager.cleanup_transforms.remove(chat_cell)
    shell.input_transformer_manager.token_transformers.remove(ChatLine)
    if notebook.options in shell.configurables:
        shell.configurables.remove(notebook.options)
    for each in _MAGICS:
        magics = shell.magics_manager.registry.pop(each.__name__)
        for kind, names in magics.magics.items():
            for name in names:
                shell.magics_manager.magics[kind].pop(name, None)
