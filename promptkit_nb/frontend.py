"""The front end that shows our output: an interactive notebook, a batch run or a terminal."""

from __future__ import annotations

import os
import sys
from contextvars import ContextVar
from typing import Any, Literal

from promptkit_nb.ids import is_generated_id

TYPED_IN: ContextVar[Literal["python", "cell", "panel"]] = ContextVar("promptkit_typed_in", default="python")
"""Where the user types: errors name arguments in Python, options in a cell, and magics in a panel."""

_TYPED = {
    "python": {"raw": "add --raw"},
    "cell": {
        "max_tokens": "--context-tokens",
        "max_output_tokens": "--max-output-tokens",
        "model": "--model",
        "replay": "--replay",
        "truncate()": "%chat_truncate",
        "summarize()": "%chat_summarize",
        "budget=None": "%chat_setup --budget none",
        "list_conversations()": "%chat_list",
        "get_conversation()": "%chat_use",
        "get()": "%chat_tree and %chat_history --versions",
        "get() it again and repeat the change": "run the cell again",
        "raw": "add --raw",
    },
    "panel": {
        "max_tokens": "%chat_setup --context-tokens",
        "max_output_tokens": "%%chat --max-output-tokens in a cell",
        "model": "the model",
        "replay": "%chat_setup --replay",
        "truncate()": "%chat_truncate",
        "summarize()": "%chat_summarize",
        "budget=None": "%chat_setup --budget none",
        "list_conversations()": "%chat_list",
        "get_conversation()": "%chat_use",
        "get()": "%chat_tree and %chat_history --versions",
        "get() it again and repeat the change": "run the cell again",
        "raw": "put the text into a variable and use that",
    },
}


def typed(name: str) -> str:
    """Return what to type for an argument or a method: the name itself in Python, the option or magic elsewhere.

    >>> typed("max_tokens")
    'max_tokens'
    """
    return _TYPED[TYPED_IN.get()].get(name, name)


def chosen_by(model: str) -> str:
    """Return a sentence that says how to choose a model, if the user types in a notebook.

    >>> chosen_by("gpt-4o-mini")
    ''
    """
    is_typed = TYPED_IN.get() != "python" and model.isascii() and not set(model) & set(" \"'{}$\n")
    return f" %chat_setup --model {model} chooses it." if is_typed else ""


def typed_value(name: str, value: object) -> str:
    """Return an argument with its value as it was typed.

    >>> typed_value("max_tokens", 70)
    'max_tokens=70'
    """
    return f"{name}={value!r}" if typed(name) == name else f"{typed(name)} {value}"


def running_shell() -> Any:  # an InteractiveShell; only IPython itself imports IPython
    """Return IPython's shell, or None if none is running."""
    ipython = sys.modules.get("IPython")
    return None if ipython is None else ipython.get_ipython()


def is_terminal() -> bool:
    """Return whether IPython runs in a terminal, where printed text cannot be changed afterwards."""
    terminal = sys.modules.get("IPython.terminal.interactiveshell")
    return terminal is not None and isinstance(running_shell(), terminal.TerminalInteractiveShell)


def is_batch() -> bool:
    """Return whether a program such as nbclient, nbval or papermill executes the notebook.

    Its outputs are compared with saved ones, so they have no times, generated ids or random values.
    """
    message = parent_message()
    return bool(message) and not message.get("content", {}).get("allow_stdin", True)


def can_update() -> bool:
    """Return whether an output can be changed after it is shown: only in an interactive notebook."""
    return getattr(running_shell(), "kernel", None) is not None and not is_batch()


def can_use_widgets() -> bool:
    """Return whether the reader can use widgets. Voilà executes notebooks as a batch run does, but then shows them."""
    return can_update() or os.environ.get("SERVER_SOFTWARE", "").startswith("voila")


def kernel_loop() -> Any:  # a tornado IOLoop, which only ipykernel imports
    """Return the event loop of the kernel's main thread, which runs callbacks between cells, or None without one."""
    return getattr(getattr(running_shell(), "kernel", None), "io_loop", None)


def parent_message() -> dict[str, Any]:
    """Return the Jupyter message that the kernel is processing, or ``{}`` outside a kernel."""
    kernel = getattr(running_shell(), "kernel", None)
    return {} if kernel is None else kernel.get_parent("shell") or {}


def connection_file() -> str | None:
    """Return the path of the kernel's connection file, or None outside a kernel; a restarted kernel keeps it."""
    application = sys.modules.get("ipykernel.kernelapp")
    if application is None or not application.IPKernelApp.initialized():
        return None
    found = application.IPKernelApp.instance().connection_file
    return found if isinstance(found, str) else None


def cell_id() -> str | None:
    """Return the id of the running notebook cell, or None if the front end does not send it."""
    found = parent_message().get("metadata", {}).get("cellId")
    return found if isinstance(found, str) else None


def cell_code() -> str | None:
    """Return the source of the running notebook cell as it was sent, or None outside a kernel."""
    found = parent_message().get("content", {}).get("code")
    return found if isinstance(found, str) else None


def shown_id(conversation_id: str) -> str:
    """Return a conversation's id to show; a batch run hides generated ids, which differ from run to run."""
    return "(no name)" if is_batch() and is_generated_id(conversation_id) else conversation_id
