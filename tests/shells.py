"""An IPython shell in this process, for testing magics: run cells and inspect their outputs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from traitlets.config import Config


@dataclass(frozen=True)
class CellResult:
    """The outputs of a cell; ``bundles`` are the rich ones."""

    stdout: str
    stderr: str
    bundles: list[dict[str, Any]]
    error: BaseException | None

    @property
    def everything(self) -> str:
        """Everything that the user sees."""
        return self.stdout + self.stderr + json.dumps(self.bundles)


class Notebook:
    """A shell that runs cells like a kernel."""

    def __init__(self, shell: InteractiveShell) -> None:
        """Load the extension into the shell."""
        self.shell = shell
        self.run("%load_ext promptkit_nb")

    def run(self, cell: str) -> CellResult:
        """Run a cell; an error becomes part of the result."""
        with capture_output() as captured:
            result = self.shell.run_cell(cell, store_history=True)  # type: ignore[no-untyped-call]  # IPython's has no types
        bundles = [output.data for output in captured.outputs]
        return CellResult(captured.stdout, captured.stderr, bundles, result.error_before_exec or result.error_in_exec)


def new_shell(kind: type[InteractiveShell] = InteractiveShell, **options: object) -> InteractiveShell:
    """Return a new shell in place of the previous one."""
    InteractiveShell.clear_instance()
    config = Config()
    config.HistoryManager.enabled = False
    config.InteractiveShell.colors = "nocolor"
    return kind.instance(config=config, **options)
