"""Setting up a server in a notebook: names, keys, timeouts, prices, headers, and the list of models."""

from __future__ import annotations

import time
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
from IPython.core.interactiveshell import InteractiveShell

from chat_server import ChatServer, Reply
from promptkit_nb import ChatPanel, InvalidArgumentError, OpenAIProvider, PromptKitError
from promptkit_nb.errors import AuthenticationError, ProviderTimeoutError, ProviderUnavailableError
from promptkit_nb.providers.endpoints import VENDORS
from shells import Notebook, new_shell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Notebook]:
    """A notebook without any setting."""
    names = ("PROMPTKIT_PROVIDER", "PROMPTKIT_MODEL", "OPENAI_BASE_URL", "JPY_SESSION_NAME", "AZURE_OPENAI_ENDPOINT")
    for name in (*names, *(vendor.key_variable for vendor in VENDORS.values())):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PROMPTKIT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    yield Notebook(new_shell())
    InteractiveShell.instance().run_line_magic("unload_ext", "promptkit_nb")
    InteractiveShell.clear_instance()


@pytest.mark.parametrize(
    ("name", "base_url"),
    [
        ("openai", "https://api.openai.com/v1"),
        ("ollama", "http://localhost:11434/v1"),
        ("lmstudio", "http://localhost:1234/v1"),
        ("vllm", "http://localhost:8000/v1"),
        ("llamacpp", "http://localhost:8080/v1"),
        ("openrouter", "https://openrouter.ai/api/v1"),
        ("groq", "https://api.groq.com/openai/v1"),
        ("gemini", "https://generativelanguage.googleapis.com/v1beta/openai"),
        ("anthropic", "https://api.anthropic.com/v1"),
    ],
)
def test_vendor_has_an_address(monkeypatch: pytest.MonkeyPatch, name: str, base_url: str) -> None:
    """The provider is named after it, which usage by provider shows."""
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    provider = OpenAIProvider.of_vendor(name, "m")
    assert (provider.name, provider.base_url) == (name, base_url)


def test_azure_has_the_users_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """From its variable; without it, the error says where to get it."""
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", "https://mine.openai.azure.com/")
    assert OpenAIProvider.of_vendor("azure", "m").base_url == "https://mine.openai.azure.com/openai/v1"
    monkeypatch.delenv("AZURE_OPENAI_ENDPOINT")
    with pytest.raises(InvalidArgumentError, match="set AZURE_OPENAI_ENDPOINT, or give that of your resource"):
        OpenAIProvider.of_vendor("azure", "m")


def test_each_vendor_gets_its_own_key(
    notebook: Notebook, chat_server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenAI's key is only sent to OpenAI."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-openai-0123")
    monkeypatch.setenv("GROQ_API_KEY", "gsk-of-groq-0123")
    for name in ("groq", "ollama", "openai"):
        notebook.run(f"%chat_setup --provider {name} --base-url {chat_server.url} --model m")
        assert notebook.run("%chat Hello").error is None
    assert [request.headers["authorization"] for request in chat_server.requests] == [
        "Bearer gsk-of-groq-0123",
        "Bearer no-key",
        "Bearer sk-of-openai-0123",
    ]


def test_missing_key_names_its_variable(notebook: Notebook) -> None:
    """Nothing is sent."""
    notebook.run("%chat_setup --provider anthropic --model claude-sonnet-4-5")
    ran = notebook.run("%chat Hello")
    assert isinstance(ran.error, AuthenticationError)
    assert "There is no API key for anthropic. Set ANTHROPIC_API_KEY" in str(ran.error)


def test_setup_without_a_model_says_how_to_choose_one(notebook: Notebook, chat_server: ChatServer) -> None:
    """No other server has OpenAI's default."""
    assert "provider ollama" in notebook.run(f"%chat_setup --provider ollama --base-url {chat_server.url}").stdout
    ran = notebook.run("%chat Hello")
    assert isinstance(ran.error, InvalidArgumentError)
    assert "No model is chosen for ollama: %chat_models lists its models" in str(ran.error)
    assert chat_server.requests == []


def test_models_are_listed_with_known_prices(notebook: Notebook, chat_server: ChatServer) -> None:
    """In the order of their names, and only those with a text; unknown prices are unknown."""
    chat_server.models = [{"id": name} for name in ("llama3.2", "gpt-4o-mini", "gpt-4o")]
    notebook.run(f"%chat_setup --base-url {chat_server.url} --model llama3.2 --price 0.1/0.2")
    assert notebook.run("%chat_models").stdout.splitlines()[-4:] == [
        "model        in, $ per million  out, $ per million",
        "gpt-4o       $2.50              $10.00",
        "gpt-4o-mini  $0.15              $0.60",
        "llama3.2     $0.10              $0.20",
    ]
    assert [line.split()[0] for line in notebook.run("%chat_models MINI").stdout.splitlines()[-1:]] == ["gpt-4o-mini"]
    assert "no models" in notebook.run("%chat_models none").stdout
    notebook.run("%chat_setup --provider vllm --base-url " + chat_server.url)
    assert "gpt-4o       unknown" in notebook.run("%chat_models").stdout


def test_models_of_a_server_without_a_list(notebook: Notebook, chat_server: ChatServer) -> None:
    """The error says what to do; the demo has one model, and without a provider there are the two ways on."""
    assert isinstance(notebook.run("%chat_models").error, AuthenticationError)
    notebook.run(f"%chat_setup --base-url {chat_server.url} --model m")
    ran = notebook.run("%chat_models")
    assert isinstance(ran.error, ProviderUnavailableError)
    assert "does not list its models" in str(ran.error)
    notebook.run("%chat_setup --provider demo")
    assert notebook.run("%chat_models").stdout.splitlines()[-1].split() == ["demo", "$0.00", "$0.00"]


def test_timeout_and_retries_are_set(notebook: Notebook, chat_server: ChatServer) -> None:
    """They hold for the next message."""
    notebook.run(f"%chat_setup --base-url {chat_server.url} --model m --timeout 0.1 --retries 0")
    chat_server.reply(Reply(delay_s=1))
    assert isinstance(notebook.run("%chat Hello").error, ProviderTimeoutError)
    chat_server.reply(Reply(status=503, body=b""))
    assert isinstance(notebook.run("%chat Hello").error, ProviderUnavailableError)
    assert len(chat_server.requests) == 2


@pytest.mark.parametrize(
    ("option", "problem"),
    [
        ("--timeout soon", "--timeout 'soon' is not a number of seconds, such as 60."),
        ("--timeout 0", "timeout is 0.0; give a number of seconds above 0."),
        ("--retries 1.5", "--retries '1.5' is not a whole number, such as 2."),
        ("--retries nan", "--retries 'nan' is not a whole number, such as 2."),
        ("--retries=-1", "max_retries is -1; give a whole number, 0 or more."),
        ("--price 1", "'1' is not a price: give US dollars per million tokens, in and out, such as 0.15/0.60"),
        ("--price 1/x", "'1/x' is not a price"),
        ("--price=-1/2", "'-1/2' is not a price"),
        ("--header X-Title", "'X-Title' is not a header: give NAME=VALUE"),
        ("--header 'X Title=a'", "headers has the name 'X Title'"),
        ("--header Host=a", "The header Host is set by the request itself"),
        ("--header X-Api-Key=0123", 'Set OPENAI_CUSTOM_HEADERS="X-Api-Key: …" before the kernel starts.'),
        ("--header Authorization=0123", "The header Authorization carries a secret"),
        ("--header my_token=0123", "The header my_token carries a secret"),
        ("--provider opnrouter", "Did you mean openrouter?"),
    ],
)
def test_wrong_option_changes_nothing(notebook: Notebook, option: str, problem: str) -> None:
    """The error names it, a secret is not repeated, and the previous settings stay."""
    notebook.run("%chat_setup --provider ollama --model m")
    before = notebook.run("%chat_setup").stdout
    ran = notebook.run(f"%chat_setup {option}")
    assert isinstance(ran.error, InvalidArgumentError)
    assert problem in str(ran.error)
    assert "0123" not in str(ran.error)
    assert notebook.run("%chat_setup").stdout == before


def test_price_belongs_to_its_model(notebook: Notebook, chat_server: ChatServer) -> None:
    """It counts under a budget, and not for another model that is chosen later."""
    notebook.run(f"%chat_setup --base-url {chat_server.url} --budget 1 --model mine --price 100/200")
    notebook.run("%chat_setup --price other=1/2/0.5/1.25")
    assert notebook.run("%%chat --to answer\nHello").error is None
    assert notebook.shell.user_ns["answer"].cost == Decimal("0.002")
    notebook.run("%chat_setup --model other")
    assert notebook.run("%%chat --to answer\nHello").error is None
    assert notebook.shell.user_ns["answer"].cost == Decimal("0.00002")
    notebook.run("%chat_setup --model third")
    ran = notebook.run("%chat Hello")
    assert isinstance(ran.error, InvalidArgumentError)
    assert "in a cell %chat_setup --price third=0.15/0.60, in Python OpenAIProvider(prices={'third'" in str(ran.error)


def test_headers_go_with_each_request(notebook: Notebook, chat_server: ChatServer) -> None:
    """Several, with blanks in their values; an empty one resets them."""
    notebook.run(
        f"%chat_setup --base-url {chat_server.url} --model m --header X-Title=mine --header 'X-Team=A b' --retries 0"
    )
    notebook.run("%chat Hello")
    notebook.run('%chat_setup --header ""')
    notebook.run("%chat Hello again")
    first, second = (request.headers for request in chat_server.requests)
    assert (first["x-title"], first["x-team"]) == ("mine", "A b")
    assert "x-title" not in second


def test_secret_header_comes_from_the_environment(
    notebook: Notebook, chat_server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the error for one in a cell says."""
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Api-Key: local-0123456789")
    notebook.run(f"%chat_setup --base-url {chat_server.url} --model m --retries 0")
    chat_server.reply(Reply(status=401, body=b"Wrong key: local-0123456789"))
    ran = notebook.run("%chat Hello")
    assert chat_server.requests[0].headers["x-api-key"] == "local-0123456789"
    assert "Wrong key: [key]" in ran.everything


def test_pasted_url_is_repaired_and_said(notebook: Notebook, chat_server: ChatServer) -> None:
    """By the setup, before the first message."""
    said = notebook.run(f"%chat_setup --base-url {chat_server.url}/chat/completions --model m").stdout
    assert f"base_url {chat_server.url} · " in said
    assert f"base_url was corrected to {chat_server.url}" in said
    assert notebook.run("%chat Hello").error is None


def test_another_provider_does_not_keep_the_address(notebook: Notebook, chat_server: ChatServer) -> None:
    """The address of one server is not that of another."""
    notebook.run(f"%chat_setup --provider vllm --base-url {chat_server.url} --model m")
    notebook.run("%chat_setup --provider ollama")
    assert "base_url" not in notebook.run("%chat_setup").stdout


def test_open_panel_follows(notebook: Notebook, chat_server: ChatServer) -> None:
    """It asks the server and the model that are set while it is open."""
    notebook.run("%chat_setup --provider demo")
    notebook.run("panel = get_ipython().run_line_magic('chat_panel', '')")
    panel = notebook.shell.user_ns["panel"]
    assert isinstance(panel, ChatPanel)
    notebook.run(f"%chat_setup --provider vllm --base-url {chat_server.url} --model mine")
    panel._controller.post({"do": "send", "text": "Hello", "n": "1", "page": "p"})
    wait_for(lambda: len(panel.conversation.turns) == 1)
    assert chat_server.requests[0].body["model"] == "mine"
    assert panel.conversation.turns[0].provider == "vllm"
    panel.close()


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_key_in_a_cell_is_refused(notebook: Notebook) -> None:
    """It would be saved with the notebook."""
    ran = notebook.run("%chat_setup --api-key 0123")
    assert isinstance(ran.error, PromptKitError)
    assert "0123" not in str(ran.error)
