"""Talk to language models in Jupyter, close the kernel, come back and continue.

>>> from promptkit_nb import ConversationManager, DemoProvider
>>> manager = ConversationManager(provider=DemoProvider())
>>> conv = manager.new_conversation(conversation_id="hello")
>>> conv.send("My name is Alice").finish_reason
'stop'

In a notebook: ``%load_ext promptkit_nb``, then ``%%chat``. ``import promptkit_nb`` loads this file only; each public
name is imported when it is first used. To write a store, see ``promptkit_nb.testing``; to write a provider,
``promptkit_nb.providers.base``.
"""

from __future__ import annotations

import ast
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__version__ = "0.1.0"

# __init__.pyi lists the public names, once for type checkers and for us.
_MODULES = {
    alias.name: statement.module
    for statement in ast.parse(__loader__.get_data(f"{__file__}i")).body
    if isinstance(statement, ast.ImportFrom) and statement.level
    for alias in statement.names
}

__all__ = sorted(_MODULES)  # noqa: PLE0605 - from the stub


def __getattr__(name: str) -> object:
    """Import a public name when it is first used."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    return value


def __dir__() -> list[str]:
    """Return the public names."""
    return sorted([*__all__, "__version__"])


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Register the magics: ``%load_ext promptkit_nb``."""
    import_module("promptkit_nb.notebook.extension").load(shell)


def unload_ipython_extension(shell: InteractiveShell) -> None:
    """Remove the magics: ``%unload_ext promptkit_nb``."""
    import_module("promptkit_nb.notebook.extension").unload(shell)
