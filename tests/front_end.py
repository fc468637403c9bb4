"""A front end for notebooks: it keeps a document, sends its cells to a real kernel, and saves the outputs."""

from __future__ import annotations

import os
import re
import subprocess
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import nbformat
from jupyter_client.manager import KernelManager
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook, new_output, output_from_msg

from kernels import PATIENCE_S, CellResult, Kernel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

LOAD = "%load_ext promptkit_nb"
PYTHON = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}


@dataclass
class Cell:
    """A cell of the open document; a cell that is copied gets another id."""

    source: str
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    outputs: list[NotebookNode] = field(default_factory=list)


class FrontEnd:
    """An open notebook and its kernel, which is started when the first cell runs.

    ``send_id`` makes the id that is sent of the cell's id and position. ``minor`` is the minor version of the file's
    format: below 5 it keeps no ids.
    """

    def __init__(
        self,
        path: Path,
        cells: Iterable[str | Cell] = (),
        *,
        minor: int = 5,
        send_id: Callable[[str, int], str | None] = lambda cell_id, _: cell_id,
        **environment: str,
    ) -> None:
        """Open a new document; ``path`` is what the server tells the kernel."""
        self.path = path
        self.cells = [cell if isinstance(cell, Cell) else Cell(cell) for cell in cells]
        self._minor = minor
        self._send_id = send_id
        self._environment = environment
        self._manager: KernelManager | None = None
        self._kernel: Kernel | None = None
        self._displays: dict[str, NotebookNode] = {}

    @classmethod
    def opened(cls, path: Path, **options: Any) -> Self:
        """Open a saved notebook, without its kernel; cells without an id get a new one, as in JupyterLab."""
        notebook = nbformat.read(path, as_version=nbformat.NO_CONVERT)  # type: ignore[no-untyped-call]  # nbformat has no annotations
        cells = [Cell(cell.source, cell.get("id", str(uuid.uuid4())), cell.outputs) for cell in notebook.cells]
        return cls(path, cells, minor=notebook.nbformat_minor, **options)

    def __enter__(self) -> Self:
        """Return it; its kernel is killed at the end."""
        return self

    def __exit__(self, *_: object) -> None:
        """Kill the kernel."""
        self.shut_down()

    def save(self) -> Self:
        """Save the document, as JupyterLab does: with the outputs that are shown."""
        notebook = new_notebook(metadata=PYTHON, nbformat_minor=self._minor)  # type: ignore[no-untyped-call]  # same
        for cell in self.cells:
            saved = new_code_cell(cell.source, id=cell.id, outputs=cell.outputs)  # type: ignore[no-untyped-call]  # same
            if self._minor < 5:
                del saved["id"]
            notebook.cells.append(saved)
        nbformat.write(notebook, self.path)  # type: ignore[no-untyped-call]  # same
        return self

    def run(self, *positions: int) -> list[CellResult]:
        """Run these cells, by default all, after the extension is loaded in a new kernel; each has to succeed."""
        kernel = self._kernel or self._started()
        results = []
        for at in positions or range(len(self.cells)):
            cell = self.cells[at]
            result = kernel.run(cell.source, cell_id=self._send_id(cell.id, at))
            assert result.status == "ok", result.traceback
            cell.outputs = self._outputs_of(result)
            results.append(result)
        return results

    def _outputs_of(self, result: CellResult) -> list[NotebookNode]:
        """Return the outputs as a front end keeps them: an update changes the output that it belongs to."""
        outputs: list[NotebookNode] = []
        for _, message in result.messages:
            kind, content = message["msg_type"], message["content"]
            if kind == "stream" and outputs and outputs[-1].get("name") == content["name"]:
                outputs[-1].text += content["text"]
            elif kind in {"stream", "display_data", "execute_result", "error"}:
                outputs.append(output_from_msg(message))  # type: ignore[no-untyped-call]  # same
                display_id = content.get("transient", {}).get("display_id")
                if display_id is not None:
                    self._displays[display_id] = outputs[-1]
            elif kind == "update_display_data":
                shown = self._displays[content["transient"]["display_id"]]
                new = new_output("display_data", content["data"], metadata=content["metadata"])  # type: ignore[no-untyped-call]  # same
                shown.data, shown.metadata = new.data, new.metadata
        return outputs

    def shown(self, at: int) -> str:
        """Return the text of the answer that a cell shows, without its receipt."""
        (output,) = [output for output in self.cells[at].outputs if output.output_type == "display_data"]
        text: str = output.data["text/plain"]
        return text.rpartition("\n\n")[0]

    def receipt(self, at: int) -> str:
        """Return the receipt that a cell shows, without its seconds."""
        (output,) = [output for output in self.cells[at].outputs if output.output_type == "display_data"]
        return re.sub(r"\d+\.\d s", "0.0 s", output.data["text/plain"].splitlines()[-1])

    def restart(self, path: Path | None = None) -> Self:
        """Restart the kernel, which keeps its connection file; the server tells it the present path."""
        self.path = path or self.path
        if self._manager is not None and self._kernel is not None:
            launch: Any = self._manager._launch_args
            launch["env"]["JPY_SESSION_NAME"] = str(self.path)  # as jupyter_server does
            self._manager.restart_kernel(now=True)
            self._kernel.client.wait_for_ready(timeout=PATIENCE_S)
            self._kernel.run(LOAD)
        return self

    def shut_down(self) -> Self:
        """Shut the kernel down; the next cell starts another one."""
        if self._manager is not None and self._kernel is not None:
            self._kernel.client.stop_channels()
            self._manager.shutdown_kernel(now=True)
        self._manager = self._kernel = None
        return self

    def _started(self) -> Kernel:
        self._manager = KernelManager(kernel_name="python3")
        environment = {**os.environ, "JPY_SESSION_NAME": str(self.path), **self._environment}
        self._manager.start_kernel(env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        client = self._manager.client()
        client.start_channels()
        client.wait_for_ready(timeout=PATIENCE_S)
        self._kernel = Kernel(self._manager, client)
        self._kernel.run(LOAD)
        return self._kernel
