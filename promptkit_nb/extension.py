"""Registering the magics with IPython, and taking them away again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from promptkit_nb.chat_line import ChatLine
from promptkit_nb.magics import ChatMagics

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell


def load(shell: InteractiveShell) -> None:
    """Register the magics, in place of those of an earlier load."""
    unload(shell)
    magics = ChatMagics(shell)
    shell.register_magics(magics)
    shell.input_transformer_manager.token_transformers.append(ChatLine)
    shell.configurables.append(magics.options)  # type: ignore[arg-type]  # IPython declares a list of shells


def unload(shell: InteractiveShell) -> None:
    """Take away everything that ``load`` registered."""
    registry = shell.magics_manager.registry
    magics = registry.pop(ChatMagics.__name__, None)
    if magics is None:
        return
    magics.stop()
    shell.input_transformer_manager.token_transformers.remove(ChatLine)
    if magics.options in shell.configurables:
        shell.configurables.remove(magics.options)
    for kind, names in magics.magics.items():
        for name in names:
            shell.magics_manager.magics[kind].pop(name, None)
