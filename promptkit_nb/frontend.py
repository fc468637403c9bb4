"""What shows our output: a person's notebook, a batch run, or a terminal."""

from __future__ import annotations

import os
import sys
from typing import Any

from promptkit_nb.ids import is_generated_id


def running_shell() -> Any:  # an InteractiveShell, which only IPython itself may import
    """Return IPython's shell, or ``None`` where none runs; never imports IPython."""
    ipython = sys.modules.get("IPython")
    return None if ipython is None else ipython.get_ipython()


def is_terminal() -> bool:
    """Return whether IPython runs in a terminal, which prints text as it comes and cannot change it afterwards."""
    terminal = sys.modules.get("IPython.terminal.interactiveshell")
    return terminal is not None and isinstance(running_shell(), terminal.TerminalInteractiveShell)


def can_update() -> bool:
    """Return whether an output may be changed after it was shown: in a person's notebook only."""
    return getattr(running_shell(), "kernel", None) is not None and not is_batch()


WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
"""The type of an output in which a widget is shown."""


def can_use_widgets() -> bool:
    """Return whether somebody can use a widget: Voilà runs notebooks as a batch does, and then shows them."""
    return can_update() or os.environ.get("SERVER_SOFTWARE", "").startswith("voila")


def widget_view(model_id: str) -> dict[str, object]:
    """Return what an output of the type ``WIDGET_VIEW`` holds."""
    return {"version_major": 2, "version_minor": 0, "model_id": model_id}


def parent_message() -> dict[str, Any]:
    """Return the Jupyter message that this kernel is working on, ``{}`` outside a kernel."""
    kernel = getattr(running_shell(), "kernel", None)
    return {} if kernel is None else kernel.get_parent("shell") or {}


def is_batch() -> bool:
    """Return whether a notebook is being executed by a program (nbclient, nbval, papermill), with nobody to ask.

    Its outputs are compared with saved ones, so they carry no times, ids or random values.
    """
    message = parent_message()
    return bool(message) and not message.get("content", {}).get("allow_stdin", True)


def shown_id(conversation_id: str) -> str:
    """Return a conversation's id for reading; in a batch run no id that was made up, which is another in each run."""
    return "(no name)" if is_batch() and is_generated_id(conversation_id) else conversation_id


def cell_id() -> str | None:
    """Return the id of the notebook cell that is running, or ``None`` where the front end does not tell."""
    found = parent_message().get("metadata", {}).get("cellId")
    return found if isinstance(found, str) else None


def cell_code() -> str | None:
    """Return the source of the notebook cell that is running, as it was sent, or ``None`` outside a kernel."""
    found = parent_message().get("content", {}).get("code")
    return found if isinstance(found, str) else None
