"""What a user finds out by typing: help, near matches, completion, titles, and who answers, in a real kernel."""

from __future__ import annotations

import re
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from day_in_cells import Day, day
from kernels import kernel
from promptkit_nb.notebook.cheat_sheet import CHEAT_SHEET
from promptkit_nb.notebook.completion import priced_models

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.kernel

LINES = CHEAT_SHEET.splitlines()
WAITS = 600
"""How often to look for what arrives in the background, every 0.05 s or more."""

NO_CHOICE = dict.fromkeys(("OPENAI_API_KEY", "OPENAI_BASE_URL", "PROMPTKIT_PROVIDER", "PROMPTKIT_MODEL"), "")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Day]:
    """The kernel of this file."""
    with day(tmp_path_factory.mktemp("discovery")) as started:
        yield started


@pytest.fixture
def cells(shared: Day) -> Day:
    """A new conversation with the provider of the environment."""
    shared.begin()
    shared.run('%chat_setup --provider openai --model ""')
    return shared


def completed(cells: Day, line: str) -> list[str]:
    """Return what the kernel offers at the end of a line, each as the line would be."""
    reply: dict[str, Any] = cells.kernel.client.complete(line, len(line), reply=True, timeout=120)["content"]
    return [line[: reply["cursor_start"]] + match for match in reply["matches"]]


class TestCheatSheet:
    """``%chat_help`` is one screen."""

    def test_is_printed(self, cells: Day) -> None:
        """As text, which every front end shows."""
        assert cells.printed("%chat_help").startswith(f"{CHEAT_SHEET}\n")

    def test_fits_on_a_screen(self) -> None:
        """It has at most 26 lines of 100 characters."""
        assert len(LINES) <= 26
        assert max(map(len, LINES)) <= 100

    def test_names_every_magic_and_no_other(self, cells: Day) -> None:
        """One that the sheet does not name is in its last line."""
        names = cells.printed(
            "print(*{each for kind in get_ipython().magics_manager.magics.values() for each in kind})"
        )
        registered = {name for name in names.split() if name.startswith("chat")}
        assert set(re.findall(r"%(chat\w*)", cells.printed("%chat_help"))) | {"chat_help"} == registered
        assert set(re.findall(r"%(chat\w*)", CHEAT_SHEET)) <= registered

    def test_the_readme_and_the_first_tutorial_point_to_it(self) -> None:
        """A stranger finds it."""
        root = Path(__file__).parent.parent
        for name in ("README.md", "notebooks/01_first_conversation.ipynb"):
            assert "%chat_help" in (root / name).read_text("utf-8")


class TestAfterLoading:
    """One line says what to type, and who answers."""

    @pytest.mark.parametrize(
        ("environment", "line"),
        [
            ({}, "No model is chosen yet. Try the demo: %chat_setup --provider demo (%chat_help shows more)"),
            (
                {"PROMPTKIT_PROVIDER": "demo"},
                "Type %chat and a message; the built-in demo answers (%chat_help shows more)",
            ),
            (
                {"OPENAI_API_KEY": "sk-none", "PROMPTKIT_MODEL": "gpt-4o"},
                "Type %chat and a message; gpt-4o answers (%chat_help shows more)",
            ),
            (
                {"OPENAI_API_KEY": "sk-none"},
                "Type %chat and a message; gpt-5.4-mini answers (%chat_help shows more)",
            ),
        ],
    )
    def test_is_printed_once(self, tmp_path: Path, environment: dict[str, str], line: str) -> None:
        """``%reload_ext`` does not repeat it, and a batch run has none."""
        own = {"PROMPTKIT_HOME": str(tmp_path / "store"), "IPYTHONDIR": str(tmp_path / "ipython")}
        with kernel("", **(NO_CHOICE | own | environment)) as started:
            assert started.run("%load_ext promptkit_nb").stdout == f"{line}\n"
            assert started.run("%reload_ext promptkit_nb").stdout == ""
        with kernel("", **(NO_CHOICE | own | environment)) as started:
            assert started.run("%load_ext promptkit_nb", allow_stdin=False).stdout == ""


class TestMistypedMagics:
    """A magic that does not exist names the near one."""

    @pytest.mark.parametrize(
        ("cell", "error"),
        [
            ("%chat_hist", "There is no %chat_hist. Did you mean %chat_history? %chat_help lists all."),
            ("x = 1\n%chat_serch invoice", "There is no %chat_serch. Did you mean %chat_search? %chat_help lists all."),
            ("if True:\n    %chat_lst", "There is no %chat_lst. Did you mean %chat_list? %chat_help lists all."),
            ("%%chatt\nHello", "There is no %chatt. Did you mean %chat? %chat_help lists all."),
            ("%chat_xyzzyq", "There is no %chat_xyzzyq. %chat_help lists all."),
        ],
    )
    def test_is_an_error(self, cells: Day, cell: str, error: str) -> None:
        """In one line, and nothing is sent."""
        assert cells.error(cell) == f"InvalidArgumentError: {error}"
        assert cells.asked == []

    def test_other_cells_are_left_alone(self, cells: Day) -> None:
        """Text in Python, messages, and magics that the user defined."""
        text = "x = '''\n%chat_hist\n'''\nprint(x.strip())"
        assert cells.printed(text) == "%chat_hist\n"
        cells.run("%%chat\n%chat_hist is no magic")
        assert cells.asked == ["%chat_hist is no magic"]
        cells.run("get_ipython().register_magic_function(print, magic_name='chat_mine')")
        assert cells.printed("%chat_mine yes") == "yes\n"
        cells.run("del get_ipython().magics_manager.magics['line']['chat_mine']")

    def test_an_empty_cell_explains_itself(self, cells: Day) -> None:
        """It says what to write."""
        assert cells.error("%%chat\n") == (
            "InvalidArgumentError: Say something: %chat and a message, or %%chat and the message below it."
        )


class TestTitles:
    """Conversations are found by their titles."""

    def test_use_takes_a_title(self, cells: Day) -> None:
        """It resumes the conversation instead of creating one of that name."""
        cells.run("%chat_use trip-2026\n%chat Hello\n%chat_title Invoices of May")
        cells.run("%chat_new")
        assert cells.printed("%chat_use Invoices of May").startswith("resumed 'trip-2026'")

    def test_a_batch_run_knows_ids_only(self, cells: Day) -> None:
        """It starts a conversation of that name: titles in the store do not change what it opens."""
        cells.run("%chat_use trip-2027\n%chat Hello\n%chat_title Invoices-of-July")
        ran = cells.run("%chat_use Invoices-of-July", allow_stdin=False)
        assert ran.stdout == "started 'Invoices-of-July'\n"

    def test_a_title_of_several_is_refused(self, cells: Day) -> None:
        """The error lists the ids."""
        for name in ("left", "right"):
            cells.run(f"%chat_use {name}\n%chat Hello\n%chat_title Twins")
        error = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d", "TIME", cells.error("%chat_use Twins"))
        assert error == (
            "InvalidArgumentError: 2 conversations have the title 'Twins'; give the id of one: "
            "'right' (1 turn, last used TIME UTC), 'left' (1 turn, last used TIME UTC)."
        )

    def test_the_list_shows_titles_with_ids_in_tooltips(self, cells: Day) -> None:
        """A title that was set, else the notebook's name, else the first question."""
        cells.run("%chat What is a title?")
        cells.run("%chat_use plain-id\n%chat Hello")
        (shown,) = cells.run("%chat_list").contents("execute_result")
        html = shown["data"]["text/html"]
        assert re.search(r'<td[^>]* title="\d{8}T[^"]+">What is a title\?</td><td[^>]*>1</td>', html)
        assert re.search('title="plain-id">plain-id</td><td[^>]*>1</td>', html)
        assert ">user</th>" not in html
        assert "What is a title?" not in shown["data"]["text/plain"]


class TestCompletion:
    """Completion offers what can be typed."""

    def test_offers_titles(self, cells: Day) -> None:
        """Any part of a title will do, with blanks, in any case."""
        cells.run("%chat_use bills\n%chat Hello\n%chat_title Costs of June")
        assert "%chat_use Costs of June" in completed(cells, "%chat_use Co")
        assert completed(cells, "%chat_use costs OF") == ["%chat_use Costs of June"]
        for magic in ("%chat_history", "%chat_delete"):
            assert completed(cells, f"{magic} of ju") == [f"{magic} Costs of June"]
            assert completed(cells, f"{magic} bil") == [f"{magic} bills"]
        assert "%%chat -c bills" in completed(cells, "%%chat -c bil")

    def test_offers_models_of_the_provider_in_use(self, cells: Day) -> None:
        """From the price list at once, and then those that the server lists."""
        assert "%%chat -m gpt-4o-mini" in completed(cells, "%%chat -m gpt-4o")
        cells.run("%chat_setup --provider groq --model llama-mine")
        offered = completed(cells, "%%chat -m ")
        assert "%%chat -m llama-mine" in offered
        assert "%%chat -m gpt-4o-mini" not in offered

    def test_does_not_wait_for_a_server(self, cells: Day) -> None:
        """A server that never answers is asked in the background."""
        is_asked, may_answer = threading.Event(), threading.Event()

        class Slow(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                is_asked.set()
                may_answer.wait(60)
                body = b'{"object": "list", "data": [{"id": "local-one", "object": "model"}]}'
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        server = HTTPServer(("127.0.0.1", 0), Slow)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            cells.run(
                f"%chat_setup --provider ollama --base-url http://127.0.0.1:{server.server_port}/v1 --model chosen"
            )
            assert completed(cells, "%%chat -m ") == ["%%chat -m chosen"]
            assert is_asked.wait(60)
            may_answer.set()
            for _ in range(WAITS):
                if len(completed(cells, "%%chat -m ")) > 1:
                    break
                cells.run("import time; time.sleep(0.05)")
            assert completed(cells, "%%chat -m ") == ["%%chat -m chosen", "%%chat -m local-one"]
        finally:
            server.shutdown()
            server.server_close()


def test_another_provider_drops_the_model_of_the_previous_one(cells: Day) -> None:
    """A model is kept only if the line names it."""
    cells.run("%chat_setup --provider openai --model gpt-4o --header X-Team=one")
    shown = cells.printed("%chat_setup --provider groq")
    assert "gpt-4o" not in shown.replace("gpt-4o-mini", "")
    assert cells.printed("%config PromptKit.model").strip() in ("", "''")
    assert "llama" in cells.printed("%chat_setup --provider openai --model llama")
    assert "llama" in cells.printed("%chat_setup --provider openai")


def test_prices_name_models_of_each_known_server() -> None:
    """The names of providers in the price list are known; local servers have none there."""
    for name in ("openai", "openrouter", "groq", "gemini", "azure", "anthropic"):
        assert priced_models(name), name
    assert priced_models("ollama") == []
