"""JupyterLab in headless Chromium: a real server, a real kernel, a real page.

::

    def test_adds(lab: LabServer, page: Page) -> None:
        notebook = lab.open_notebook(page, ["1 + 1"])
        notebook.run_all()
        assert notebook.outputs(0)[0]["data"]["text/plain"] == "2"
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from http import HTTPStatus
from http.client import HTTPConnection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Self

import nbformat
from nbformat.v4 import new_code_cell, new_notebook
from playwright.sync_api import sync_playwright

from ports import free_port
from programs import require_program

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from playwright.sync_api import Locator, Page

PROJECT = Path(__file__).parents[2]
# Guards against waiting forever, which a busy machine does not come near.
START_TIMEOUT_S = 180
RUN_TIMEOUT_S = 180
STOP_TIMEOUT_S = 60
WAIT_TIMEOUT_S = 90

CHROMIUM_OPTIONS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

# No dialog may interrupt a test, and every cell and output is in the page, even outside the viewport.
LAB_SETTINGS: dict[str, dict[str, object]] = {
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyterlab/apputils-extension/sessionDialogs": {"skipKernelRestartDialog": True},
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none", "maxNumberOutputs": 1000},
}


# The tab of a notebook, by the name of its file; the current tab, if the file was renamed.
_FIND = """
    const tabs = [...window.jupyterapp?.shell?.widgets('main') ?? []];
    const isIt = ({context}) => context?.path.split('/').at(-1) === name;
    const notebook = tabs.find(isIt) ?? window.jupyterapp?.shell?.currentWidget;
"""
_CLOSE_ALL = """async () => {
    for (const dialog of document.querySelectorAll('.jp-Dialog')) dialog.remove();
    for (const tab of [...jupyterapp.shell.widgets('main')]) {
        await tab.context?.sessionContext.shutdown();
        if (tab.context) tab.context.model.dirty = false;
        tab.dispose();
    }
    sessionStorage.clear();
}"""


class LabServer:
    """A JupyterLab server on a free port of 127.0.0.1, isolated from the user's settings and data.

    ``directory`` has its notebooks and is the working directory of its kernels; the only kernel spec is the running
    interpreter. ``environment`` is added to the environment of server and kernels.
    """

    application = "jupyterlab"
    probe = "/api/status"

    def __init__(self, home: Path, environment: dict[str, str] | None = None) -> None:
        """Prepare the directories under ``home``; the server starts on entering the context."""
        self.directory = home / "notebooks"
        self.directory.mkdir()
        self._log = home / "server.log"
        self._sockets = TemporaryDirectory(prefix="lab-")  # whose paths have to be short
        self._environment = _isolated_environment(home, self._sockets.name) | (environment or {})
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"http://127.0.0.1:{free_port()}"

    def __enter__(self) -> Self:
        """Start the server and wait until it answers."""
        command = [sys.executable, "-m", self.application, "--no-browser", *self.options(self.url.rpartition(":")[2])]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, env=self._environment, stdout=log, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.__exit__()
                raise RuntimeError(f"{self.application} did not start:\n{self._log.read_text()[-2000:]}")
            time.sleep(0.1)
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the server, which stops its kernels."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(timeout=STOP_TIMEOUT_S)
        self._sockets.cleanup()

    def options(self, port: str) -> list[str]:
        """Return the options that make the application listen on this port."""
        options = ["--expose-app-in-browser", "--allow-root", "--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}"]
        options += ["--ServerApp.port_retries=0", "--IdentityProvider.token=", f"--ServerApp.root_dir={self.directory}"]
        return options

    def _answers(self) -> bool:
        try:
            connection = HTTPConnection(self.url.removeprefix("http://"), timeout=2)
            connection.request("GET", self.probe)
            return connection.getresponse().status == HTTPStatus.OK
        except OSError:
            return False

    def open_notebook(
        self, page: Page, cells: Sequence[str], name: str = "test.ipynb", mode: str = "doc"
    ) -> LabNotebook:
        """Write a notebook of these code cells (ids ``cell-0``, ``cell-1`` …), open it and wait for its kernel.

        ``mode`` is ``"doc"`` for JupyterLab with one document, ``"lab"`` with tabs, in a workspace of its own, or
        ``"tab"`` for a further tab of the page, if it shows JupyterLab already: that takes a fifth of the time.
        """
        metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        notebook = new_notebook(metadata=metadata)  # type: ignore[no-untyped-call]  # nbformat has no annotations
        for number, source in enumerate(cells):
            cell = new_code_cell(source, id=f"cell-{number}")  # type: ignore[no-untyped-call]  # same
            notebook.cells.append(cell)
        nbformat.write(notebook, self.directory / name)  # type: ignore[no-untyped-call]  # same
        return self.reopen_notebook(page, name, mode)

    def reopen_notebook(self, page: Page, name: str = "test.ipynb", mode: str = "doc") -> LabNotebook:
        """Open a saved notebook and wait for its kernel."""
        if mode == "tab" and page.evaluate("() => Boolean(window.jupyterapp?.shell.widgets)"):
            page.evaluate("path => jupyterapp.commands.execute('docmanager:open', {path}).then(() => {})", name)
        else:
            workspace = mode if mode == "doc" else f"lab/workspaces/{Path(name).stem}"
            page.goto(f"{self.url}/{workspace}/tree/{name}")
        notebook = LabNotebook(page, self.directory / name)
        page.wait_for_function(
            f"name => {{ {_FIND} return notebook?.context?.sessionContext?.session?.kernel; }}",
            arg=notebook.path.name,
            timeout=START_TIMEOUT_S * 1000,
        )
        notebook.wait_until_idle()
        return notebook


class LabNotebook:
    """An open notebook: ``page`` is Playwright's page, ``path`` the file."""

    def __init__(self, page: Page, path: Path) -> None:
        """Use the notebook with this file name, which the page shows."""
        self.page = page
        self.path = path

    def activate(self) -> None:
        """Make its tab the current one, as a click into it does."""
        self.in_page("jupyterapp.shell.activateById(notebook.id)")
        self._await("while (jupyterapp.shell.currentWidget !== notebook) await new Promise(requestAnimationFrame)")

    def run_all(self) -> None:
        """Run all cells and wait for their end; a failing cell stops the run."""
        self.command("notebook:run-all-cells")

    def restart_and_run_all(self) -> None:
        """Restart the kernel, run all cells and wait for their end."""
        self.command("notebook:restart-run-all")
        self.wait_until_idle()

    def run_cell(self, index: int) -> None:
        """Run one cell, as Ctrl+Enter does, and wait for its end."""
        self.select(index)
        self.command("notebook:run-cell")

    def start(self, command: str) -> None:
        """Execute a JupyterLab command without waiting for its end."""
        self.activate()
        self.page.evaluate("name => { jupyterapp.commands.execute(name); }", command)

    def start_cell(self, index: int) -> None:
        """Run one cell without waiting for it."""
        self.select(index)
        self.start("notebook:run-cell")

    def select(self, index: int) -> None:
        """Make this the active cell."""
        self.in_page("notebook.content.activeCellIndex = argument", index)

    def source(self, index: int) -> str:
        """Return the source of the cell."""
        source: str = self.in_page("notebook.content.widgets[argument].model.sharedModel.getSource()", index)
        return source

    def set_source(self, index: int, source: str) -> None:
        """Set the source of the cell."""
        self.in_page("notebook.content.widgets[argument[0]].model.sharedModel.setSource(argument[1])", [index, source])

    def wait_until_idle(self) -> None:
        """Wait until the kernel is ready and idle."""
        self._await("""
            const session = notebook.context.sessionContext;
            await session.ready;
            await session.session.kernel.info;
            while (session.session?.kernel?.status !== 'idle') await new Promise(done => setTimeout(done, 50));
        """)

    def shut_down_kernel(self) -> None:
        """Shut its kernel down."""
        self._await("await notebook.context.sessionContext.shutdown()")

    def outputs(self, index: int) -> list[dict[str, Any]]:
        """Return the outputs of the cell in the notebook format."""
        outputs: list[dict[str, Any]] = self.in_page("notebook.content.widgets[argument].model.outputs.toJSON()", index)
        return outputs

    def output_area(self, index: int) -> Locator:
        """Return the element with the outputs of the cell."""
        return self.page.locator(".jp-Notebook-cell").nth(index).locator(".jp-OutputArea-output")

    def save(self) -> nbformat.NotebookNode:
        """Save the notebook and return the file's content."""
        self.command("docmanager:save")
        notebook: nbformat.NotebookNode = nbformat.read(self.path, as_version=4)  # type: ignore[no-untyped-call]  # same
        return notebook

    def close(self) -> None:
        """Close its tab, and leave the kernel alone."""
        self.in_page("notebook.context.model.dirty = false, notebook.dispose()")

    def screenshot(self, path: Path, *, theme: str | None = None) -> None:
        """Write a PNG of the page, after switching to the theme (``"JupyterLab Dark"``) if one is given."""
        if theme is not None:
            self.command("apputils:change-theme", {"theme": theme})
            self.page.wait_for_selector(f"body[data-jp-theme-name='{theme}']", state="attached")
            self.page.wait_for_selector("#jupyterlab-splash", state="detached")
        self.page.screenshot(path=path)

    def command(self, name: str, arguments: dict[str, object] | None = None) -> None:
        """Execute a JupyterLab command in its tab and wait for its end."""
        self.activate()
        self._await("await jupyterapp.commands.execute(argument[0], argument[1])", [name, arguments or {}])

    def in_page(self, expression: str, argument: object = None) -> Any:  # any JSON
        """Return the value of JavaScript that may use ``notebook``, the widget, and ``argument``."""
        return self.page.evaluate(
            f"([name, argument]) => {{ {_FIND} return ({expression}); }}", [self.path.name, argument]
        )

    def _await(self, statements: str, argument: object = None) -> None:
        """Await JavaScript with a timeout, which ``page.evaluate`` does not have."""
        self.page.evaluate(
            f"""([name, argument]) => {{
                {_FIND}
                return Promise.race([
                    (async () => {{ {statements} }})(),
                    new Promise((_, fail) => setTimeout(() => fail(new Error('timeout')), {RUN_TIMEOUT_S * 1000})),
                ]);
            }}""",
            [self.path.name, argument],
        )


def close_all(page: Page) -> None:
    """Close all tabs of JupyterLab, shut down their kernels, and forget what the page stored."""
    if page.evaluate("() => Boolean(window.jupyterapp)"):
        page.evaluate(_CLOSE_ALL)


def reload_widgets(page: Page, widgets: Locator) -> None:
    """Reload the page and wait for the first of these widgets, as often as JupyterLab has given up on one.

    It looks for a widget for two seconds, but not at their end: on a busy machine it misses one that arrives just then,
    and says so for good. Its users reload the page.
    """
    given_up = page.get_by_text("Error displaying widget: model not found")
    for _ in range(3):
        page.reload()
        given_up.or_(widgets).first.wait_for()
        if not given_up.count():
            return


@contextmanager
def chromium_page(profile: Path) -> Iterator[Page]:
    """Open a page in its own Chromium.

    While it is open, Playwright's event loop counts as running in this thread, and any ``asyncio.run`` fails: keep it
    open for one test or one file of browser tests, not for the session.
    """
    program = require_program("chromium")
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            profile, executable_path=program, args=list(CHROMIUM_OPTIONS), viewport={"width": 1200, "height": 900}
        )
        context.set_default_timeout(WAIT_TIMEOUT_S * 1000)
        try:
            yield context.pages[0]
        finally:
            context.close()


def _isolated_environment(home: Path, runtime: str) -> dict[str, str]:
    """Return an environment in which every directory of Jupyter's is new, most below ``home``, and no key is set.

    Kernels have sockets in ``runtime``, no ports: a port that is free when the server chooses it may be taken when the
    kernel starts.
    """
    kernel = home / "data" / "kernels" / "python3" / "kernel.json"
    kernel.parent.mkdir(parents=True)
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    kernel.write_text(json.dumps({"argv": argv, "display_name": "Python 3", "language": "python"}))
    for name, values in LAB_SETTINGS.items():
        settings = home / "settings" / f"{name}.jupyterlab-settings"
        settings.parent.mkdir(parents=True, exist_ok=True)
        settings.write_text(json.dumps(values))
    config = home / "config" / "jupyter_config.json"
    config.parent.mkdir()
    config.write_text(json.dumps({"KernelManager": {"transport": "ipc"}}))
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("JUPYTER", "IPYTHON", "PROMPTKIT", "OPENAI", "XDG_"))
    }
    return inherited | {
        "HOME": str(home),
        "IPYTHONDIR": str(home / "ipython"),
        "JUPYTER_CONFIG_DIR": str(config.parent),
        "JUPYTER_DATA_DIR": str(home / "data"),
        "JUPYTER_RUNTIME_DIR": runtime,
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
        "PROMPTKIT_HOME": str(home / "promptkit"),
        "PYTHONPATH": str(PROJECT),
    }
