"""Register the magics with IPython, and unregister them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from promptkit_nb.characters import terminal_text
from promptkit_nb.frontend import is_batch
from promptkit_nb.notebook.cheat_sheet import greeting
from promptkit_nb.notebook.conversation_magics import ConversationMagics
from promptkit_nb.notebook.magic_lines import AssignedChat, ChatLine, MistypedChat, chat_cell
from promptkit_nb.notebook.magics import ChatMagics
from promptkit_nb.notebook.pandas_import import register_with_pandas
from promptkit_nb.notebook.session import ChatSession

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

_MAGICS = (ChatMagics, ConversationMagics)
_TRANSFORMERS = [ChatLine, AssignedChat, MistypedChat]
_META_KEY = "promptkit_nb"  # of the session in shell.meta, where IPython lets extensions keep data


def load(shell: InteractiveShell) -> None:
    """Register the magics, replacing those of an earlier load; options and conversation stay."""
    unload(shell)
    is_first = _META_KEY not in shell.meta
    session: ChatSession = shell.meta.setdefault(_META_KEY, ChatSession(shell))
    session.watch()
    register_with_pandas()
    for magics in _MAGICS:
        shell.register_magics(magics(session))
    shell.input_transformer_manager.cleanup_transforms.insert(0, chat_cell)
    shell.input_transformer_manager.token_transformers += _TRANSFORMERS
    shell.configurables.append(session.options)  # type: ignore[arg-type]  # IPython declares a list of shells
    if is_first and not is_batch():
        print(terminal_text(greeting(session.options)))  # noqa: T201 - a notebook's status line


def unload(shell: InteractiveShell) -> None:
    """Unregister everything that ``load`` registered."""
    registered = shell.magics_manager.registry.get(ChatMagics.__name__)
    if registered is None:
        return
    session = registered.session
    session.stop()
    shell.input_transformer_manager.cleanup_transforms.remove(chat_cell)
    for transformer in _TRANSFORMERS:
        shell.input_transformer_manager.token_transformers.remove(transformer)
    if session.options in shell.configurables:
        shell.configurables.remove(session.options)
    for each in _MAGICS:
        magics = shell.magics_manager.registry.pop(each.__name__)
        for kind, names in magics.magics.items():
            for name in names:
                shell.magics_manager.magics[kind].pop(name, None)
