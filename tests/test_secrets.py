"""Keys and passwords never appear in outputs, tracebacks, stores, logs, copies, or pickles."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from IPython.core.interactiveshell import InteractiveShell

from chat_server import ChatServer, Reply, error_reply
from promptkit_nb import ConversationManager, DiskStore, OpenAIProvider, PromptKitError
from promptkit_nb.secret import SHOWN, Secret, StreamHider
from shells import Notebook, new_shell

if TYPE_CHECKING:
    from collections.abc import Iterator

KEY = "local-0123456789abcdef-SECRET"
WORD = "ollama"
MODES = ("Plain", "Context", "Minimal", "Verbose")


@pytest.fixture
def notebook(chat_server: ChatServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Notebook]:
    """A notebook whose environment has the key, connected to a local server that does not know it."""
    for name in ("PROMPTKIT_PROVIDER", "PROMPTKIT_MODEL", "JPY_SESSION_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PROMPTKIT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", chat_server.url)
    yield Notebook(new_shell())
    InteractiveShell.instance().run_line_magic("unload_ext", "promptkit_nb")
    InteractiveShell.clear_instance()


def replies_that_quote_the_key() -> list[Reply]:
    """Return what servers answer, with the key in it."""
    half = {"choices": [{"index": 0, "delta": {"content": "Half"}, "finish_reason": None}]}
    return [
        error_reply(401, f"Incorrect API key provided: {KEY}."),
        error_reply(404, f"No model for {KEY}", code="model_not_found"),
        Reply(status=500, body=f"<html><title>{KEY}</title></html>".encode()),
        Reply(body=f"<p>{KEY}</p>".encode()),
        Reply(chunks=[half, {"error": {"message": f"Bad {KEY}"}}]),
        Reply(chunks=[half, f"{{{KEY}"]),
        Reply(chunks=[half, {"choices": [{"delta": {"content": KEY}}]}, half], cut_after=2),
        Reply(status=400, body=b"", headers={"X-Echo": KEY}),
    ]


SETUP = """
from promptkit_nb import ConversationManager, OpenAIProvider, RedisStore
provider = OpenAIProvider("m", max_retries=0)
conv = ConversationManager(provider).new_conversation()
"""


def tracebacks(notebook: Notebook, cell: str) -> dict[str, str]:
    """Run a cell that fails, and return its traceback in each mode of IPython."""
    notebook.run("%xmode Verbose")
    ran = notebook.run(cell)
    assert isinstance(ran.error, PromptKitError), cell
    return {"Verbose": ran.everything} | {mode: notebook.run(f"%tb {mode}").everything for mode in MODES[:-1]}


def test_no_traceback_shows_the_key(notebook: Notebook, chat_server: ChatServer) -> None:
    """Whatever the server answers: neither values of variables nor causes have it, in any mode of IPython."""
    notebook.run(SETUP)
    for reply in replies_that_quote_the_key():
        chat_server.reply(reply)
        for mode, traceback in tracebacks(notebook, "conv.send('Hi')").items():
            assert "127.0.0.1:" in traceback
            assert ("conv = <Conversation" in traceback) == (mode == "Verbose")
            assert KEY not in traceback


WRONG_CELLS: list[tuple[str, dict[str, str]]] = [
    ("OpenAIProvider('m', timeout=-1)", {}),
    ("OpenAIProvider('m', api_key=key(), timeout=-1)", {}),
    ("OpenAIProvider('m', api_key=key().encode())", {}),
    ("OpenAIProvider('m', base_url='http://[::1/v1?key=' + key())", {}),
    ("OpenAIProvider('m', base_url='ftp://x?key=' + key())", {}),
    ("OpenAIProvider('m', base_url='http://me:' + key() + '@host/v1')", {}),
    ("OpenAIProvider('m', headers={'X-Token': key(), 'bad name': 'x'})", {}),
    ("OpenAIProvider('m', headers={'X-Token': key() + chr(10) + 'x'})", {}),
    ("ask(OpenAIProvider('m', api_key=key() + ' x'))", {}),
    ("ask(OpenAIProvider('m', base_url='http://127.0.0.1:1/v1', max_retries=0))", {}),
    ("ask(OpenAIProvider('m'))", {"ALL_PROXY": "socks5://127.0.0.1:9"}),
    ("ask(OpenAIProvider('m'))", {"HTTP_PROXY": "ftp://127.0.0.1:9"}),
    ("ask(OpenAIProvider('m'))", {"SSL_CERT_FILE": "/no/such/file"}),
    ("ask(OpenAIProvider('m'))", {"OPENAI_CUSTOM_HEADERS": f"X-Token: {KEY}ü"}),
    ("ask(OpenAIProvider('m'))", {"OPENAI_BASE_URL": f"http://[::1/v1?key={KEY}"}),
    ("OpenAIProvider('m').models()", {}),
    ("RedisStore('redis://127.0.0.1:1/0', password=key())", {}),
    ("RedisStore('redis://:' + key() + '@127.0.0.1:1/0')", {}),
    ("RedisStore('redis://:' + key() + '@host/zero')", {}),
    ("RedisStore('redis://:' + key() + '@host:port/0')", {}),
    ("RedisStore(password=key(), timeout_s=-1)", {}),
    ("RedisStore(password=key().encode())", {}),
]


def test_no_traceback_of_a_wrong_argument_shows_it(notebook: Notebook, monkeypatch: pytest.MonkeyPatch) -> None:
    """As argument, in a header or a URL, and in the environment. Verbose shows the values of what a line uses."""
    notebook.run(SETUP)
    notebook.run("def ask(provider):\n    ConversationManager(provider).new_conversation().send('Hi')")
    notebook.run("def key():\n    import os\n    return os.environ['OPENAI_API_KEY']")
    for cell, variables in WRONG_CELLS:
        with monkeypatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, value)
            shown = tracebacks(notebook, cell)
        assert KEY not in "".join(shown.values()), cell


def test_no_magic_shows_it(notebook: Notebook, chat_server: ChatServer) -> None:
    """Their errors are one line in every mode; outputs and settings do not have it, either."""
    notebook.run("%load_ext promptkit_nb")
    shown = [notebook.run("%chat_setup --model m --retries 0").everything]
    for mode in MODES:
        notebook.run(f"%xmode {mode}")
        for reply in replies_that_quote_the_key():
            chat_server.reply(reply)
            shown.append(notebook.run("%chat Hi").everything)
    shown += [notebook.run(line).everything for line in ("%chat_models", "%chat_history", "%config PromptKit", "%tb")]
    assert KEY not in "".join(shown)


def test_echoed_key_is_in_no_answer_and_no_store(notebook: Notebook, chat_server: ChatServer, tmp_path: Path) -> None:
    """A server that repeats it, even in pieces, gets it replaced in the text, in reasoning, and in tool calls."""
    notebook.run("%load_ext promptkit_nb")
    notebook.run("%chat_setup --model m")
    pieces = ["You sent ", KEY[:2], KEY[2:11], KEY[11:], f" and {KEY}, ", KEY[:9]]
    deltas: list[dict[str, Any]] = [{"content": piece} for piece in pieces]
    deltas += [{"reasoning_content": f"Hm, {KEY}"}]
    events: list[dict[str, Any]] = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    chat_server.reply(Reply(chunks=[*events, {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}]))
    ran = notebook.run("%%chat --to answer\nWhat did I send?")
    assert notebook.shell.user_ns["answer"].content == f"You sent {SHOWN} and {SHOWN}, {KEY[:9]}"
    assert KEY not in ran.everything
    notebook.run("%chat_export " + str(tmp_path / "chat.json"))
    stored = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(stored) > 2
    assert KEY.encode() not in b"".join(stored)


def test_word_that_serves_as_a_key_stays_a_word(chat_server: ChatServer) -> None:
    """Local servers get any key; an answer about it is not changed."""
    provider = OpenAIProvider("m", api_key=WORD, base_url=chat_server.url)
    chat_server.reply(Reply(text="I run in ollama."))
    assert ConversationManager(provider).new_conversation().send("Where?").content == "I run in ollama."


def test_no_log_shows_it(chat_server: ChatServer, caplog: pytest.LogCaptureFixture) -> None:
    """Not at DEBUG of any library, with keys in the URL and in headers, and a server that sends them back."""
    caplog.set_level(logging.DEBUG)
    for name in ("openai", "httpx2", "httpcore2"):
        caplog.set_level(logging.DEBUG, logger=name)
    provider = OpenAIProvider(
        "m",
        api_key=KEY,
        base_url=f"{chat_server.url}?key=url-{KEY}",
        headers={"X-Auth-Token": f"header-{KEY}", "X-Title": "notebook"},
        max_retries=0,
    )
    conversation = ConversationManager(provider).new_conversation()
    chat_server.reply(Reply(text="Fine.", headers={"X-Echo": KEY}), *replies_that_quote_the_key())
    conversation.send("Hi")
    sent = chat_server.requests[0]
    assert sent.path.endswith(f"?key=url-{KEY}")
    assert (sent.headers["x-auth-token"], sent.headers["x-title"]) == (f"header-{KEY}", "notebook")
    for _ in replies_that_quote_the_key():
        with pytest.raises(PromptKitError):
            conversation.send("Hi")
    assert len(caplog.records) > 20
    assert "X-Echo" in caplog.text
    assert KEY not in caplog.text + repr([vars(record) for record in caplog.records])


def test_header_may_replace_the_clients_own(chat_server: ChatServer) -> None:
    """A gateway may want another scheme than a bearer's."""
    provider = OpenAIProvider(
        "m", api_key="unused", base_url=chat_server.url, headers={"Authorization": f"Basic {KEY}"}
    )
    ConversationManager(provider).new_conversation().send("Hi")
    assert chat_server.requests[0].headers["authorization"] == f"Basic {KEY}"


def test_provider_shows_it_in_no_attribute(chat_server: ChatServer) -> None:
    """Nor does its connection, nor a copy."""
    provider = OpenAIProvider(
        "m", api_key=KEY, base_url=f"{chat_server.url}?key={KEY}", headers={"X-Api-Key": KEY, "X-Title": "mine"}
    )
    ConversationManager(provider).new_conversation().send("Hi")
    duplicate = copy.deepcopy(provider)
    for each in (provider, duplicate, copy.copy(provider), provider._connect()):
        assert KEY not in f"{each!r} {vars(each)!r}"
    ConversationManager(duplicate).new_conversation().send("Hi")
    first, second = chat_server.requests
    assert (first.path, first.headers) == (second.path, second.headers)


def test_pickle_has_no_key(chat_server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process takes it from the environment; other headers go along."""
    provider = OpenAIProvider("m", api_key=KEY, base_url=chat_server.url, headers={"X-Token": KEY, "X-Title": "mine"})
    pickled = pickle.dumps(provider)
    assert KEY.encode() not in pickled
    monkeypatch.setenv("OPENAI_API_KEY", "of-the-other-process")
    loaded = pickle.loads(pickled)  # noqa: S301 - made above
    ConversationManager(loaded).new_conversation().send("Hi")
    headers = chat_server.requests[0].headers
    assert headers["authorization"] == "Bearer of-the-other-process"
    assert (headers.get("x-token"), headers["x-title"]) == (None, "mine")


def test_pytest_shows_it_in_no_local_variable(tmp_path: Path, chat_server: ChatServer) -> None:
    """``--showlocals`` prints every variable of every frame."""
    (tmp_path / "test_it.py").write_text(
        f"""
import promptkit_nb as pk

def ask(provider):
    return pk.ConversationManager(provider).new_conversation().send("Hi")

def test_server_quotes_it():
    ask(pk.OpenAIProvider("m", base_url={chat_server.url!r}, max_retries=0))

def test_server_breaks_off():
    ask(pk.OpenAIProvider("m", base_url={chat_server.url!r}, max_retries=0))

def test_redis_is_down():
    pk.RedisStore("redis://:" + pk.load_pack.__globals__["os"].environ["OPENAI_API_KEY"] + "@127.0.0.1:1/0")

def test_argument_is_wrong():
    pk.OpenAIProvider("m", headers={{"X-Token": pk.load_pack.__globals__["os"].environ["OPENAI_API_KEY"]}}, timeout=-1)
""",
        encoding="utf-8",
    )
    half = {"choices": [{"index": 0, "delta": {"content": KEY}}]}
    chat_server.reply(error_reply(401, f"Bad key {KEY}"), Reply(chunks=[half, half, half], cut_after=2))
    command = [sys.executable, "-m", "pytest", "--showlocals", "-p", "no:cacheprovider", "--tb=long", "test_it.py"]
    environment = {
        "OPENAI_API_KEY": KEY,
        "PATH": "/usr/bin:/bin",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # they take seconds to import
        "PYTHONPATH": str(Path(__file__).parent.parent),
    }
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert "4 failed" in ran.stdout
    assert "stopped before its end" in ran.stdout
    assert KEY not in ran.stdout


def test_disk_store_has_no_key(chat_server: ChatServer, tmp_path: Path) -> None:
    """Neither the turns nor the settings of a conversation."""
    with DiskStore(tmp_path) as store:
        provider = OpenAIProvider("m", api_key=KEY, base_url=f"{chat_server.url}?key={KEY}", headers={"X-Token": KEY})
        ConversationManager(provider, store).new_conversation(conversation_id="hello").send("Hi")
    assert KEY.encode() not in b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_password_that_redis_refuses_is_not_shown(notebook: Notebook, redis_url: str) -> None:
    """Not by the frames of the client, either, which hold what it sent."""
    notebook.run(SETUP)
    notebook.run("def key():\n    import os\n    return os.environ['OPENAI_API_KEY']")
    for traceback in tracebacks(
        notebook, f"RedisStore({redis_url.replace('//', '//nobody@')!r}, password=key())"
    ).values():
        assert "check the password" in traceback
        assert KEY not in traceback


@pytest.mark.parametrize("cut", range(1, len(KEY)))
def test_secret_is_hidden_wherever_it_is_cut(cut: int) -> None:
    """In text and in bytes; what only begins like it comes out in the end."""
    hide = StreamHider([Secret(KEY)], "")
    text = f"a {KEY} b {KEY[:cut]}"
    middle = 2 + cut
    assert hide(text[:middle]) + hide(text[middle:]) + hide.rest() == f"a {SHOWN} b {KEY[:cut]}"
    hide_bytes = StreamHider([Secret(KEY)], b"")
    data = text.encode()
    assert hide_bytes(data[:middle]) + hide_bytes(data[middle:]) + hide_bytes.rest() == (
        f"a {SHOWN} b {KEY[:cut]}".encode()
    )


def test_secret_shows_nothing() -> None:
    """Only ``reveal()`` returns it."""
    secret = Secret(f" {KEY}\n")
    assert secret.reveal() == KEY
    assert KEY not in f"{secret!r} {secret!s} {dir(secret)} {json.dumps([repr(secret)])}"
    assert not re.search(KEY, repr(copy.deepcopy([secret])))
    assert not pickle.loads(pickle.dumps(secret))  # noqa: S301 - made here
