"""Registering the magics with IPython, and taking them away again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from promptkit_nb.notebook.chat_line import ChatLine, chat_cell
from promptkit_nb.notebook.conversation_magics import ConversationMagics
from promptkit_nb.notebook.magics import ChatMagics
from promptkit_nb.notebook.notebook import Notebook

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

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
