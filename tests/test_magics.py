"""The magics in a real shell: requests, outputs, errors and stored turns."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import threading
from typing import TYPE_CHECKING

import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.terminal.interactiveshell import TerminalInteractiveShell

from chat_server import ChatServer, Reply, error_reply
from promptkit_nb import ConversationState, DiskStore, Turn
from promptkit_nb.rendering.markdown import answer_style
from shells import CellResult, Notebook, new_shell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

KEY = "sk-proj-0123456789abcdefSECRET"
BOX = (
    '<div class="promptkit-markdown mathjax_ignore tex2jax_ignore" '
    'style="overflow-wrap:break-word;overflow-x:auto;overflow-y:hidden">'
)
NOTE = (
    '<div class="mathjax_ignore tex2jax_ignore" '
    'style="color:var(--jp-ui-font-color2,#767676);font-size:12px;margin-top:2px">'
)
SCRIPT = "<script>alert(1)</script>"


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The directory of a test's conversations; the developer's environment is ignored."""
    for name in ("PROMPTKIT_PROVIDER", "PROMPTKIT_MODEL", "OPENAI_API_KEY", "OPENAI_BASE_URL", "JPY_SESSION_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PROMPTKIT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


@pytest.fixture
def notebook(home: Path) -> Iterator[Notebook]:
    """A notebook without any settings."""
    yield Notebook(new_shell())
    InteractiveShell.instance().run_line_magic("unload_ext", "promptkit_nb")
    TerminalInteractiveShell.clear_instance()
    InteractiveShell.clear_instance()


@pytest.fixture
def demo(notebook: Notebook) -> Notebook:
    """A notebook with the demo provider, in conversation ``talk``."""
    notebook.run("%chat_setup --provider demo")
    notebook.run("%chat_use talk")
    return notebook


@pytest.fixture
def online(notebook: Notebook, chat_server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> Notebook:
    """A notebook connected to a local server, in conversation ``talk``."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", chat_server.url)
    monkeypatch.setenv("PROMPTKIT_MODEL", "gpt-4o-mini")
    notebook.run("%chat_use talk")
    return notebook


def stored(home: Path, conversation_id: str = "talk") -> tuple[Turn, ...]:
    """Return the turns as stored on disk."""
    with DiskStore(home) as store:
        return store.get(conversation_id).turns


def without_seconds(value: str) -> str:
    """Return a receipt with its seconds replaced by zero."""
    return re.sub(r"\d+\.\d s", "0.0 s", value)


def request_texts(server: ChatServer) -> list[str]:
    """Return the message texts of the last request."""
    return [message["content"] for message in server.requests[-1].body["messages"]]


def without_a_loop(run: Callable[[], CellResult]) -> CellResult:
    """Run without an event loop, as IPython in a terminal does."""
    return run()


def in_a_loop(run: Callable[[], CellResult]) -> CellResult:
    """Run inside a running event loop, as a kernel does."""

    async def main() -> CellResult:
        return run()

    return asyncio.run(main())


class TestAnswer:
    @pytest.mark.parametrize("way", [without_a_loop, in_a_loop])
    def test_is_shown_as_text_and_as_html_with_its_receipt(
        self, online: Notebook, chat_server: ChatServer, way: Callable[[Callable[[], CellResult]], CellResult]
    ) -> None:
        """One output has the text and the receipt, plain and as sanitized HTML."""
        chat_server.reply(Reply(text="**Paris**"))
        ran = way(lambda: online.run("%%chat\nWhat is the capital of France?"))
        receipt = "gpt-4o-mini · 10/5 tokens · $0.0000045 · 0.0 s · talk"
        (bundle,) = ran.bundles
        assert ran.error is None
        assert without_seconds(bundle["text/plain"]) == f"**Paris**\n\n{receipt}"
        html = f'{BOX}<p><strong>Paris</strong></p>\n</div>{NOTE[:-1]} title="{receipt}">'
        short = "gpt-4o-mini · &lt;$0.0001 · 0.0 s</div>"
        assert without_seconds(bundle["text/html"]) == f"{answer_style()}{html}{short}"

    @pytest.mark.parametrize("magic", ["%chat ", "%%chat\n"])
    @pytest.mark.parametrize(
        "text",
        ["{x} {{ not yet", "$HOME $x $$y$$", r"\frac{a}{b} \n $\alpha$", '{"a": {"b": [1, "%s"]}}', "What's my name?"],
    )
    def test_the_model_gets_what_was_typed(
        self, online: Notebook, chat_server: ChatServer, magic: str, text: str
    ) -> None:
        """Braces, dollars, LaTeX, JSON and question marks are sent as typed, whatever variables exist."""
        online.run("x = 5")
        assert online.run(f"{magic}{text}").error is None
        assert request_texts(chat_server) == [text]

    def test_a_cell_keeps_its_lines(self, online: Notebook, chat_server: ChatServer) -> None:
        """Blank lines and indentation inside a cell are kept; blank lines around the message are not."""
        online.run("%%chat\n\nFirst\n\n    indented\n\n")
        assert request_texts(chat_server) == ["First\n\n    indented"]

    def test_a_loop_may_chat(self, online: Notebook, home: Path) -> None:
        """An indented %chat line that ends with a question mark is sent in every iteration."""
        online.run("for _ in range(2):\n    %chat Really?")
        assert [turn.user_text for turn in stored(home)] == ["Really?", "Really?"]

    def test_quiet_shows_nothing_and_keeps_the_answer(self, online: Notebook, chat_server: ChatServer) -> None:
        """With -q nothing is shown; --to stores the response."""
        chat_server.reply(Reply(text="Paris"))
        ran = online.run("%%chat -q -c elsewhere --to answer\nWhere?")
        assert ran.everything == "[]"
        assert online.shell.user_ns["answer"].content == "Paris"

    def test_an_answer_that_breaks_off_is_shown_as_not_stored(
        self, online: Notebook, chat_server: ChatServer, home: Path
    ) -> None:
        """The partial text is shown, the cell fails, and the history does not change."""
        chat_server.reply(Reply(text="one two three", cut_after=3))
        ran = online.run("%%chat\nCount")
        assert ran.bundles[0]["text/plain"] == "one two\n\nnot finished, and not stored"
        assert ran.stdout == (
            f"ProviderUnavailableError: The answer from 127.0.0.1:{chat_server.port} stopped before its end. "
            "Send the message again; the text that arrived is in .partial.\n"
        )
        assert stored(home) == ()

    def test_an_answer_to_a_deleted_conversation_is_shown_with_its_cost(
        self, online: Notebook, chat_server: ChatServer, home: Path
    ) -> None:
        """If the conversation was deleted meanwhile, the paid answer is shown."""
        chat_server.reply(Reply(text="one two three", pause_s=0.1))

        def delete() -> None:
            with DiskStore(home) as store:
                store.delete("talk")

        deleting = threading.Timer(0.25, delete)
        deleting.start()
        ran = online.run("%%chat\nCount")
        deleting.join()
        assert without_seconds(ran.bundles[0]["text/plain"]) == (
            "one two three\n\ngpt-4o-mini · 10/5 tokens · $0.0000045 · 0.0 s · talk · not stored"
        )
        assert ran.stdout.startswith(
            "ConversationNotFoundError: Conversation 'talk' was deleted before the answer arrived"
        )


class TestOptions:
    def test_model_applies_to_one_call(self, online: Notebook, chat_server: ChatServer) -> None:
        """-m selects another model for one call; %config selects it for all calls."""
        online.run("%%chat -m gpt-4o\nHi")
        online.run("%%chat\nHi")
        online.run("%config PromptKit.model = 'llama3.2'")
        online.run("%%chat\nHi")
        assert [request.body["model"] for request in chat_server.requests] == ["gpt-4o", "gpt-4o-mini", "llama3.2"]

    def test_conversation_applies_to_one_cell(self, demo: Notebook, home: Path) -> None:
        """-c opens or creates a conversation and says which; the next cell is back in the previous one."""
        ran = demo.run('%%chat -c "an other"\nHi')
        assert ran.stdout == "started 'an other'\n"
        ran = demo.run("%%chat -c 'an other'\nHi")
        assert ran.stdout == "resumed 'an other', 1 turn, $0.00\n"
        demo.run("%chat back")
        assert [turn.user_text for turn in stored(home)] == ["back"]

    def test_pack_and_prompt_give_the_system_prompt(
        self, online: Notebook, chat_server: ChatServer, tmp_path: Path
    ) -> None:
        """--pack and -p take effect from this request on."""
        write_pack(tmp_path / "two.pack.json")
        online.run("%%chat\nHi")
        online.run("%%chat --pack two.pack.json -p critic\nHi")
        assert request_texts(chat_server)[0] == "You are the critic."
        online.run("%%chat\nHi")
        assert request_texts(chat_server)[0] == "You are the critic."

    def test_setup_pack_is_for_new_conversations(
        self, online: Notebook, chat_server: ChatServer, tmp_path: Path
    ) -> None:
        """The pack of %chat_setup sets the prompt of new conversations; -p selects another of its prompts."""
        write_pack(tmp_path / "two.pack.json")
        online.run("%chat_setup --pack two.pack.json --prompt writer")
        online.run("%chat_new draft")
        online.run("%chat Hi")
        assert request_texts(chat_server)[0] == "You are the writer."
        online.run("%%chat -p critic\nHi")
        assert request_texts(chat_server)[0] == "You are the critic."

    def test_users_have_separate_conversations(self, demo: Notebook, home: Path) -> None:
        """-u uses that user's conversation and does not change the other one."""
        demo.run("%%chat -u bob -c bobs\nHi")
        assert stored(home) == ()
        with DiskStore(home) as store:
            assert store.head("bobs").user_id == "bob"
        for cell in ("%%chat -c bobs\nHi", "%chat_use bobs", "%chat_new bobs"):
            ran = demo.run(cell)
            assert ran.stdout == "ConversationExistsError: The id 'bobs' is taken by another user: choose another id.\n"

    def test_a_conversation_taken_by_another_user_is_not_used(self, demo: Notebook, home: Path) -> None:
        """If the active conversation is deleted and bob takes its id, nothing is added to bob's conversation."""
        demo.run("%chat_use plans\n%chat Hi")
        with DiskStore(home) as store:
            store.delete("plans")
            store.create(ConversationState("plans", "bob"))
        ran = demo.run("%chat Hi")
        assert ran.stdout == "ConversationExistsError: The id 'plans' is taken by another user: choose another id.\n"
        assert demo.run("%chat_new other\n%chat Hi").error is None

    def test_switching_back_to_a_store_finds_its_conversation(self, demo: Notebook) -> None:
        """Each store has its own active conversation; switching back to the memory store finds it."""
        demo.run("%chat_setup --store memory")
        demo.run("%chat_use draft")
        demo.run("%chat in memory")
        demo.run("%chat_setup --store disk")
        demo.run("%chat on disk")
        demo.run("%chat_setup --store memory")
        assert demo.run("%chat_history").stdout.splitlines()[1] == "user       in memory"


class TestConversations:
    def test_new_refuses_an_id_that_exists(self, demo: Notebook) -> None:
        """%chat_new does not open an existing conversation."""
        assert demo.run("%chat_new plans").stdout == "started 'plans'\n"
        assert demo.run("%chat_new plans").stdout == (
            "ConversationExistsError: The conversation 'plans' exists already: choose another id, "
            "or continue it with %chat_use plans\n"
        )

    def test_new_without_an_id_makes_one(self, demo: Notebook) -> None:
        """The id is new, and the next message goes to that conversation."""
        fresh = re.fullmatch(r"started '(\d{8}T[\d.]+-[0-9a-f]{6})'\n", demo.run("%chat_new").stdout)
        assert fresh is not None
        assert demo.run("%chat Hi").bundles[0]["text/plain"].endswith(fresh[1])

    def test_use_opens_or_creates(self, demo: Notebook) -> None:
        """%chat_use says whether it opened or created."""
        assert demo.run("%chat_use plans").stdout == "started 'plans'\n"
        demo.run("%chat Hi")
        demo.run("%chat_use talk")
        assert demo.run("%chat_use plans").stdout == "resumed 'plans', 1 turn, $0.00\n"

    def test_list_shows_the_users_conversations(self, demo: Notebook) -> None:
        """A table of the conversations whose id begins with the prefix."""
        demo.run("%chat_new plans:1")
        demo.run("%chat_new plans:2")
        demo.run("%%chat -q -u bob -c plans:3\nHi")
        lines = demo.run("%chat_list plans:").stdout.split("\n", 1)[1].splitlines()
        assert lines[0] == "conversation  user     turns  tokens  cost   updated (UTC)"
        assert [line.split()[:5] for line in lines[1:]] == [
            ["plans:2", "default", "0", "0", "$0.00"],
            ["plans:1", "default", "0", "0", "$0.00"],
        ]

    def test_history_needs_neither_id_nor_provider(self, notebook: Notebook) -> None:
        """Looking creates nothing and needs no key."""
        assert notebook.run("%chat_history").stdout == "No messages yet. Start with %%chat.\n"
        assert notebook.run("%chat_list").stdout.endswith("no conversations\n")

    def test_history_of_another_conversation(self, demo: Notebook) -> None:
        """%chat_history ID shows that conversation; for an unknown id it suggests a near match."""
        demo.run("%%chat -c plans\nMy name is Alice")
        assert demo.run("%chat_history plans").stdout.splitlines()[1:] == [
            "user       My name is Alice",
            "assistant  [demo] Nice to meet you, Alice! (This is the built-in demo:…",
            "2 messages · 38 tokens · $0.00",
        ]
        assert demo.run("%chat_history plan").stdout == (
            "ConversationNotFoundError: There is no conversation 'plan'. Did you mean 'plans'?\n"
        )

    def test_history_of_another_user_is_not_found(self, demo: Notebook) -> None:
        """%chat_history ID shows only conversations of the notebook's user."""
        demo.run("%%chat -c diary -u bob\nMy name is Bob")
        told = demo.run("%chat_history diary").stdout
        assert told.startswith("ConversationNotFoundError: There is no conversation 'diary'.")
        assert "Bob" not in told

    def test_a_prompt_with_missing_variables_creates_no_conversation(self, demo: Notebook, tmp_path: Path) -> None:
        """A prompt with a missing variable fails before the new conversation is stored."""
        prompt = {"id": "tutor", "system_template": "Teach {{subject}}."}
        (tmp_path / "tutor.pack.json").write_text(json.dumps({"id": "school", "prompts": {"tutor": prompt}}))
        told = demo.run("%%chat --pack tutor.pack.json -c lesson\nHi").stdout
        assert told.startswith("MissingVariableError: ")
        assert "lesson" not in demo.run("%chat_list").stdout

    def test_a_deleted_conversation_is_created_again(self, demo: Notebook, home: Path) -> None:
        """If another process deleted it, the next message creates it again, without the previous turns."""
        demo.run("%chat My name is Alice")
        with DiskStore(home) as store:
            store.delete("talk")
        assert demo.run("%chat Hi").stdout == "started 'talk'\n"
        assert [turn.user_text for turn in stored(home)] == ["Hi"]

    def test_a_notebook_has_its_own_conversation(
        self, notebook: Notebook, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """Its id is made from the notebook's name and path; another kernel resumes it and says so."""
        path = tmp_path / "eda.ipynb"
        monkeypatch.setenv("JPY_SESSION_NAME", str(path))
        own_id = "nb:eda:" + hashlib.sha256(b"default\n" + bytes(path)).hexdigest()[:8]
        notebook.run("%chat_setup --provider demo")
        assert notebook.run("%chat Hi").stdout == f"started '{own_id}'\n"
        assert notebook.run("%chat Hi").stdout == ""
        again = Notebook(new_shell())
        again.run("%chat_setup --provider demo")
        assert again.run("%chat_history").stdout.splitlines()[-1] == "4 messages · 239 tokens · $0.00"
        assert again.run("%chat Hi").stdout == f"resumed '{own_id}', 2 turns, $0.00\n"

    def test_a_notebook_without_a_name_starts_a_new_conversation(self, notebook: Notebook) -> None:
        """If the front end does not provide the name, the line says how to continue later."""
        notebook.run("%chat_setup --provider demo")
        line = notebook.run("%chat Hi").stdout
        assert re.fullmatch(
            r"started '[\w.-]+' \(the notebook's name is unknown here; %chat_use resumes one by its id\)\n", line
        )


class TestSetup:
    def test_shows_the_settings_in_use(self, notebook: Notebook, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without options nothing changes; the provider may come from the environment."""
        assert notebook.run("%chat_setup").stdout == "provider unchosen · store disk · user default\n"
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        monkeypatch.setenv("PROMPTKIT_MODEL", "gpt-4o-mini")
        assert notebook.run("%chat_setup").stdout == "provider openai · model gpt-4o-mini · store disk · user default\n"

    def test_address_is_shown_without_its_query(self, notebook: Notebook) -> None:
        """Some servers expect the key there."""
        ran = notebook.run(f"%chat_setup --base-url http://localhost:1/v1?key={KEY} --model m")
        assert ran.stdout == "provider openai · model m · base_url http://localhost:1/v1 · store disk · user default\n"

    @pytest.mark.parametrize(
        ("options", "problem"),
        [
            (
                "--provider opnai",
                (
                    "There is no provider 'opnai': use one of openai, ollama, lmstudio, vllm, llamacpp, openrouter, "
                    "groq, gemini, azure, anthropic, demo. Did you mean openai?"
                ),
            ),
            (
                "--store redis",
                "Unknown store 'redis': use disk, memory, a directory such as ./chats, or redis://host:port/db",
            ),
            (
                "--store http://:secret@host",
                "The store is not the URL of a Redis server, which begins with redis:// or rediss:// or unix://",
            ),
            (
                "--prompt writer",
                "Which pack does prompt 'writer' belong to? Add --pack FILE, or set it once: %chat_setup --pack FILE",
            ),
        ],
    )
    def test_a_wrong_value_changes_nothing(self, demo: Notebook, options: str, problem: str) -> None:
        """The error is raised at once, and all previous settings stay."""
        ran = demo.run(f"%chat_setup --model other {options}")
        assert ran.stdout == f"InvalidArgumentError: {problem}\n"
        assert demo.run("%chat_setup").stdout == "provider demo · model demo · store disk · user default\n"

    @pytest.mark.parametrize("value", ["5", "None", "'opnai'"])
    def test_config_is_checked_at_use(self, demo: Notebook, value: str) -> None:
        """%config accepts any value; the next message raises the error, and %reload_ext still works."""
        demo.run(f"%config PromptKit.provider = {value}")
        ran = demo.run("%chat Hi")
        assert ran.stdout.count("\n") == 1
        assert ran.error is not None
        assert demo.run("%reload_ext promptkit_nb").error is None

    def test_empty_is_the_default(self, demo: Notebook, home: Path) -> None:
        """Empty options mean the defaults, not an empty name."""
        demo.run("%config PromptKit.store = ''")
        demo.run("%config PromptKit.user = ''")
        assert demo.run("%%chat -q -c plans\nHi").error is None
        with DiskStore(home) as store:
            assert store.head("plans").user_id == "default"


class TestErrors:
    def test_without_key_and_provider_the_error_names_two_ways_on(self, notebook: Notebook, home: Path) -> None:
        """The first message fails and names both ways; nothing is created."""
        ran = notebook.run("%%chat\nHi")
        assert ran.error is not None
        assert ran.stdout == (
            "AuthenticationError: No model is chosen, and there is no key. Two ways to continue: set OPENAI_API_KEY "
            "(and OPENAI_BASE_URL for your own server) before the kernel starts, or chat with the built-in demo: "
            "%chat_setup --provider demo\n"
        )
        with DiskStore(home) as store:
            assert store.list() == []
        notebook.run("%chat_setup --provider demo")
        assert notebook.run("%%chat\nHi").error is None

    @pytest.mark.parametrize(
        ("cell", "line"),
        [
            ("%chat", "Say something: %chat and a message, or %%chat and the message below it."),
            ("%%chat\n\n \n", "Say something: %chat and a message, or %%chat and the message below it."),
            (
                "%%chat Hello\nthere",
                "The %%chat line takes only options: write the message below it, and quote values with spaces.",
            ),
            ("%%chat --modle x\nHi", "Unknown option --modle. Did you mean --model? %chat? lists the options."),
            ("%%chat --bogus\nHi", "Unknown option --bogus. %chat? lists the options."),
            ("%%chat -m\nHi", "argument -m/--model: expected one argument. %chat? lists the options."),
            ('%%chat -c "a b\nHi', "A quote in the options of %chat is not closed."),
            ("%%chat --to 1st\nHi", "--to 1st is not a variable name, such as: --to answer"),
            ("%%chat --to class\nHi", "--to class is not a variable name, such as: --to answer"),
            (
                "%%chat -p tutor\nHi",
                "Which pack does prompt 'tutor' belong to? Add --pack FILE, or set it once: %chat_setup --pack FILE",
            ),
            (
                "%chat_setup demo",
                "%chat_setup takes only options, as in %chat_setup --provider demo; quote values with spaces.",
            ),
            (
                f"%chat_setup --api-key={KEY}",
                (
                    "Unknown option --api-key. Set OPENAI_API_KEY before the kernel starts, "
                    "so that no notebook has the key."
                ),
            ),
            ("%chat_use", "Give a conversation id or title, for example: %chat_use my-chat (%chat_list shows them)."),
            ("%chat_new -c plans", "Expected an id, not an option: -c plans. Quote an id that begins with a dash."),
        ],
    )
    def test_a_typo_is_a_one_line_error(self, demo: Notebook, home: Path, cell: str, line: str) -> None:
        """The cell fails, the line says what to do, and nothing is sent or created."""
        ran = demo.run(cell)
        assert ran.error is not None
        assert ran.everything == f"InvalidArgumentError: {line}\n[]"
        assert stored(home) == ()

    def test_pack_errors_name_the_alternatives(self, demo: Notebook, tmp_path: Path) -> None:
        """For a missing file or prompt, the error names those that exist."""
        write_pack(tmp_path / "two.pack.json")
        ran = demo.run("%%chat --pack tow.pack.json\nHi")
        assert ran.stdout.startswith("PackNotFoundError: There is no pack file at ")
        assert "two.pack.json" in ran.stdout
        ran = demo.run("%%chat --pack two.pack.json -p critc\nHi")
        assert ran.stdout.startswith("PromptNotFoundError: ")
        assert "critic" in ran.stdout
        assert ran.stdout.count("\n") == 1

    def test_a_prompt_with_missing_variables_is_not_switched_to(self, demo: Notebook, tmp_path: Path) -> None:
        """After a switch that failed, the conversation still works, also with -c."""
        prompt = {"id": "tutor", "system_template": "Teach {{subject}}.", "variables": [{"name": "subject"}]}
        (tmp_path / "tutor.pack.json").write_text(json.dumps({"id": "school", "prompts": {"tutor": prompt}}))
        demo.run("%%chat -c here\nMy name is Alice")
        for option in ("", "-c here "):
            demo.run("%chat_use here")
            assert demo.run(f"%%chat {option}--pack tutor.pack.json\nHi").stdout.startswith("MissingVariableError: ")
            assert "Alice" in demo.run("%%chat -c here\nWhat's my name?").everything

    def test_the_key_is_never_shown_or_stored(
        self, online: Notebook, chat_server: ChatServer, home: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Not in an error that quotes it, in an output, in a log, or in any byte of the store."""
        caplog.set_level("DEBUG")
        chat_server.reply(error_reply(401, f"Incorrect API key provided: {KEY}", code="invalid_api_key"))
        refused = online.run("%%chat\nHi")
        assert refused.stdout == (
            f"AuthenticationError: 127.0.0.1:{chat_server.port} answered with HTTP 401: Incorrect API key provided: "
            "[key]. Check OPENAI_API_KEY (or api_key=), and that the key may use this model.\n"
        )
        answered = online.run(f"import os\nos.environ['OPENAI_API_KEY'] = '{KEY}'\n%chat Hi")
        shown = [refused, answered, online.run("%chat_setup"), online.run("%chat_history"), online.run("%chat_list")]
        assert not [ran for ran in shown if KEY in ran.everything]
        assert KEY not in caplog.text
        assert stored(home)[0].cell_source == "import os\nos.environ['OPENAI_API_KEY'] = '[key]'\n%chat Hi"
        assert not [path for path in home.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]


class TestModelText:
    def test_is_inert_wherever_it_is_shown(self, online: Notebook, chat_server: ChatServer) -> None:
        """Answers, histories, lists and model names contain no tag from the model and no formula for MathJax."""
        chat_server.reply(Reply(text=f"{SCRIPT}<img src=x onerror=alert(1)>", model=f"m{SCRIPT}"))
        answer = online.run("%%chat --to answer\nHi")
        online.run(f"%chat_new {SCRIPT}$\\href{{javascript:alert(1)}}{{x}}$")
        kept = online.shell.user_ns["answer"]._repr_html_()
        history = online.run(
            "from IPython.display import display\nx = get_ipython().run_line_magic('chat_history', 'talk')\ndisplay(x)"
        )
        heads = online.run("x = get_ipython().run_line_magic('chat_list', '')\ndisplay(x)")
        pages = [answer.bundles[0]["text/html"], kept, history.bundles[0]["text/html"], heads.bundles[0]["text/html"]]
        for page in pages:
            assert "<script" not in page
            assert "<img" not in page
            assert "mathjax_ignore" in page
        assert '<table class="promptkit-table mathjax_ignore tex2jax_ignore">' in pages[3]

    def test_cannot_steer_a_console(self, online: Notebook, chat_server: ChatServer) -> None:
        """Escape sequences are removed from printed text; the stored text is unchanged."""
        chat_server.reply(Reply(text="\x1b]52;c;ZXZpbA==\x07red\x1b[31m"))
        ran = online.run("%%chat --to answer\nHi")
        assert ran.bundles[0]["text/plain"].startswith("]52;c;ZXZpbA==red[31m\n")
        assert online.shell.user_ns["answer"].content == "\x1b]52;c;ZXZpbA==\x07red\x1b[31m"

    def test_is_one_line_in_an_error(self, online: Notebook, chat_server: ChatServer) -> None:
        """A server's error text adds no lines and no escape sequences."""
        chat_server.reply(error_reply(400, f"no\n\x1b[31m{SCRIPT}\x1b[0m"))
        ran = online.run("%%chat\nHi")
        assert ran.stdout == (
            f"BadRequestError: 127.0.0.1:{chat_server.port} answered with HTTP 400: no [31m{SCRIPT}[0m. "
            "%chat_context, or context() in Python, shows what is sent.\n"
        )


class TestCells:
    def test_a_turn_stores_its_cell(self, demo: Notebook, home: Path) -> None:
        """Each chat call has its index and the cell's source; a plain shell has no cell ids."""
        cell = "%chat one\n%chat two"
        demo.run(cell)
        demo.run("%%chat\nthree")
        turns = [(turn.cell_id, turn.cell_call, turn.cell_source) for turn in stored(home)]
        assert turns == [(None, 0, cell), (None, 1, cell), (None, 0, "%%chat\nthree")]


class TestExtension:
    def test_unloading_leaves_nothing_behind(self, demo: Notebook) -> None:
        """No magic, event, option or transformer is left, and the store's files are closed."""
        shell = demo.shell
        demo.run("%chat Hi")
        magics = shell.magics_manager.registry["ChatMagics"]
        store = magics.session.settings.store
        demo.run("%unload_ext promptkit_nb")
        assert not [name for names in shell.magics_manager.magics.values() for name in names if name.startswith("chat")]
        assert "ChatMagics" not in shell.magics_manager.registry
        assert not [item for item in shell.configurables if type(item).__name__ == "PromptKit"]
        assert not [rule for rule in shell.input_transformer_manager.token_transformers if rule.__name__ == "ChatLine"]
        callbacks = [callback for group in shell.events.callbacks.values() for callback in group]
        assert not [callback for callback in callbacks if callback.__module__.startswith("promptkit_nb")]
        with pytest.raises(Exception, match="closed"):
            store.list()
        demo.run("%load_ext promptkit_nb")

    def test_reloading_registers_once(self, demo: Notebook, home: Path) -> None:
        """After %reload_ext a message is sent once and counted once."""
        for _ in range(3):
            demo.run("%reload_ext promptkit_nb")
        demo.run("%chat_setup --provider demo")
        demo.run("%chat_use talk")
        demo.run("%chat one\n%chat two")
        assert [(turn.user_text, turn.cell_call) for turn in stored(home)] == [("one", 0), ("two", 1)]
        names = [rule.__name__ for rule in demo.shell.input_transformer_manager.token_transformers]
        assert names.count("ChatLine") == 1

    @pytest.mark.parametrize("cell", ["%chat?", "%%chat?"])
    def test_help_shows_examples(self, demo: Notebook, cell: str) -> None:
        """%chat? shows examples and the other options."""
        shown = demo.run(cell).everything
        for words in ("%chat What is the capital of France?", "%%chat -c my-chat", "%chat_setup", "--to VARIABLE"):
            assert words in shown


def test_a_terminal_gets_the_text_as_it_comes(notebook: Notebook, home: Path) -> None:
    """IPython in a terminal prints the text and the receipt; there is no rich output."""
    terminal = Notebook(new_shell(TerminalInteractiveShell, simple_prompt=True))
    terminal.run("%chat_setup --provider demo")
    terminal.run("%chat_use talk")
    ran = terminal.run("%chat My name is Alice")
    assert ran.bundles == []
    assert without_seconds(ran.stdout) == (
        "[demo] Nice to meet you, Alice!\n\n(This is the built-in demo: canned answers, no language model, no cost.)\n"
        "demo · 11/27 tokens · $0.00 · 0.0 s · talk\n"
    )
    assert terminal.run("%chat What's my name?").stdout.startswith("[demo] Your name is Alice.\n")


def write_pack(path: Path) -> None:
    """Write a pack with the prompts ``writer`` and ``critic``."""
    prompts = {
        name: {"id": name, "name": name, "version": "1.0.0", "system_template": f"You are the {name}."}
        for name in ("writer", "critic")
    }
    engine = {"version": "v1", "syntax": "{{variable}}"}
    pack = {"id": "two", "name": "Two", "version": "1.0.0", "template_engine": engine, "prompts": prompts}
    path.write_text(json.dumps(pack), encoding="utf-8")


def test_home_is_expanded_in_magics(demo: Notebook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A recording, a pack, a store and an export."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.pack.json").write_text('{"id": "mine", "prompts": {"a": {"system_template": "Hi"}}}', "utf-8")
    demo.run("%chat_setup --store ~/chats --pack ~/mine.pack.json")
    demo.run("%chat Hello")
    demo.run("%chat_export ~/chat.json")
    ran = demo.run("%chat_setup --recording ~/chat.json --replay strict")
    assert "recording ~/chat.json" in ran.stdout
    assert {path.name for path in tmp_path.iterdir()} >= {"chats", "chat.json"}


def test_user_whose_name_is_typed_in_another_form_goes_on(demo: Notebook) -> None:
    """Accents may be composed or decomposed: it is the same user, and the same conversation."""
    composed, decomposed = "Zo\u00eb", "Zoe\u0308"
    demo.run(f"%chat_setup --user {decomposed}")
    demo.run(f"%chat_use plan-{decomposed}")
    demo.run("%chat Hello")
    demo.run(f"%chat_setup --user {composed}")
    assert demo.run(f"%chat_use plan-{composed}").stdout == f"resumed 'plan-{composed}', 1 turn, $0.00\n"
    assert demo.run("%chat Hello again").error is None
