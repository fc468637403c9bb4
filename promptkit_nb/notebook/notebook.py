"""What all magics of one notebook share: its options, the cell that is running, and the session."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from promptkit_nb.asking.running_cell import RunningCell
from promptkit_nb.notebook.completions import chat_matcher
from promptkit_nb.notebook.options import PromptKit

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from promptkit_nb.notebook.session import NotebookSession


class Notebook:
    """One notebook, as the magics know it."""

    def __init__(self, shell: InteractiveShell) -> None:
        """Begin with the options of IPython's configuration."""
        self.shell = shell
        self.options = PromptKit(parent=shell)
        self.cell = RunningCell(shell)
        self._complete = chat_matcher(self)

    @cached_property
    def session(self) -> NotebookSession:
        """The session, imported and made at the first chat, so that loading the extension takes no time."""
        from promptkit_nb.notebook.session import NotebookSession  # noqa: PLC0415 - a tenth of a second

        return NotebookSession(self.options)

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
