"""Errors around a call: proxies, certificates, base URLs, and refusals, each with what to do about it."""

from __future__ import annotations

import json
import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from chat_server import ChatServer, Reply, error_reply
from promptkit_nb import ConversationManager, MissingDependencyError, OpenAIProvider, PromptKitError
from promptkit_nb.errors import (
    AuthenticationError,
    BadRequestError,
    ContextWindowExceededError,
    InvalidArgumentError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    RateLimitError,
)
from promptkit_nb.frontend import TYPED_IN
from promptkit_nb.providers.openai_client import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Iterator

KEY = "local-0123456789-SECRET"
ELSEWHERE = "http://models.example/v1"


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the developer's own settings out of the tests."""
    names = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "OPENAI_BASE_URL", "OPENAI_ORG_ID")
    for name in names:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def ask(base_url: str, *, text: str = "Hi", model: str = "gpt-4o-mini", **options: Any) -> Any:
    """Send one message and return the response."""
    provider = OpenAIProvider(model, api_key=KEY, base_url=base_url, max_retries=0, timeout=10)
    return ConversationManager(provider).new_conversation().send(text, **options)


def failure(base_url: str, **options: Any) -> PromptKitError:
    """Send one message and return the error, which is one of ours, without the key, and has the unsent message."""
    with pytest.raises(PromptKitError) as caught:
        ask(base_url, **options)
    assert KEY not in str(caught.value)
    return caught.value


@contextmanager
def raw_server(reply: bytes) -> Iterator[int]:
    """Answer every connection with the same bytes; yield the port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(1 << 16)
                    connection.sendall(reply)

        threading.Thread(target=serve, daemon=True).start()
        yield listening.getsockname()[1]


# The environment


def test_socks_proxy_needs_a_package(chat_server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the variable, the package, and the way around; a password in the address is not shown."""
    monkeypatch.setenv("ALL_PROXY", "socks5://me:pa55w0rd@127.0.0.1:9")
    error = failure(chat_server.url)
    assert isinstance(error, MissingDependencyError)
    assert str(error) == (
        "The environment variable ALL_PROXY is socks5://127.0.0.1:9, and a SOCKS proxy needs the package socksio: "
        "pip install socksio. Or set NO_PROXY for this server."
    )


def test_unknown_proxy_scheme_names_the_variable(chat_server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client cannot be created, for any server."""
    monkeypatch.setenv("HTTP_PROXY", "ftp://proxy")
    error = failure(chat_server.url)
    assert isinstance(error, ProviderUnavailableError)
    assert "URL('ftp://proxy'). Check HTTP_PROXY" in str(error)


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
def test_missing_certificates_name_file_and_variable(
    chat_server: ChatServer, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The client's own error would only say "No such file or directory"."""
    monkeypatch.setenv(name, "/no/such/certificates")
    error = failure(chat_server.url)
    assert isinstance(error, ProviderUnavailableError)
    assert f"The environment variable {name} names '/no/such/certificates', which does not exist." in str(error)


@pytest.mark.parametrize("name", ["OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_CUSTOM_HEADERS"])
def test_header_variable_that_cannot_be_sent_is_named(
    chat_server: ChatServer, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Its value is not shown: a header may carry a secret."""
    monkeypatch.setenv(name, "X-Größe: 0815")
    error = failure(chat_server.url)
    assert isinstance(error, AuthenticationError)
    assert f"The environment variable {name} contains non-ASCII characters" in str(error)
    assert "0815" not in str(error)


@pytest.mark.parametrize("base_url", [ELSEWHERE, "https://models.example/v1"])
def test_dead_proxy_is_named(monkeypatch: pytest.MonkeyPatch, base_url: str) -> None:
    """So is the variable that leads there, and the one that leads around it."""
    scheme = base_url.partition(":")[0].upper()
    monkeypatch.setenv(f"{scheme}_PROXY", "http://me:pa55w0rd@127.0.0.1:9")
    error = failure(base_url)
    assert isinstance(error, ProviderUnavailableError)
    assert str(error) == (
        "models.example cannot be reached ([Errno 111] Connection refused). The request uses the proxy "
        f"http://127.0.0.1:9 from {scheme}_PROXY: correct it, or set NO_PROXY=models.example."
    )


@pytest.mark.parametrize("status", [403, 407])
def test_refusal_of_a_proxy_is_not_the_keys(
    chat_server: ChatServer, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """The page of a proxy is shortened to its title, and the key is not blamed."""
    monkeypatch.setenv("HTTP_PROXY", chat_server.url.removesuffix("/v1"))
    page = b"<!DOCTYPE html><html><head><title>Access denied</title></head><body>" + b"<p>x</p>" * 99
    chat_server.reply(Reply(status=status, body=page))
    error = failure(ELSEWHERE)
    assert isinstance(error, ProviderUnavailableError)
    assert str(error) == (
        f"models.example answered with HTTP {status}: the page 'Access denied'. This answer came from the proxy "
        f"http://127.0.0.1:{chat_server.port} of HTTP_PROXY, not from the server: correct HTTP_PROXY and HTTPS_PROXY, "
        "or set NO_PROXY=models.example."
    )


def test_refusal_of_a_server_behind_a_proxy_is_the_servers(
    chat_server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A 403 in JSON is about the key."""
    monkeypatch.setenv("HTTP_PROXY", chat_server.url.removesuffix("/v1"))
    chat_server.reply(error_reply(403, "Not with this key."))
    assert isinstance(failure(ELSEWHERE), AuthenticationError)


def test_proxy_that_denies_the_tunnel_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """For https the proxy refuses before the server is asked."""
    with raw_server(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n") as port:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
        error = failure("https://models.example/v1")
    assert isinstance(error, ProviderUnavailableError)
    assert str(error).startswith("models.example cannot be reached (403 Forbidden). The request uses the proxy")


# Base URLs


@pytest.mark.parametrize(
    ("pasted", "is_said"),
    [
        ("{url}", False),
        ("{url}/", False),
        (" {url}\n", False),
        ("{url}/chat/completions", True),
        ("{url}/chat/completions/", True),
        ("{url}/completions", True),
        ("{url}/models", True),
        ("{host}//v1", True),
        ("{host}//v1//chat/completions", True),
    ],
)
def test_base_url_is_taken_as_it_is_pasted(chat_server: ChatServer, pasted: str, *, is_said: bool) -> None:
    """The first answer reports once what was corrected."""
    base_url = pasted.format(url=chat_server.url, host=chat_server.url.removesuffix("/v1"))
    provider = OpenAIProvider("m", api_key="unused", base_url=base_url)
    conversation = ConversationManager(provider).new_conversation()
    said = (f"The base_url was corrected to {chat_server.url}.",) if is_said else ()
    assert [conversation.send("Hi").warnings, conversation.send("Again").warnings] == [said, ()]
    assert {request.path for request in chat_server.requests} == {"/v1/chat/completions"}
    assert provider.base_url == chat_server.url


def test_query_of_a_base_url_goes_with_each_request(chat_server: ChatServer) -> None:
    """Some servers want a version or a key there; it is in no repr and no attribute."""
    provider = OpenAIProvider("m", api_key="unused", base_url=f"{chat_server.url}?api-version=preview&key={KEY}")
    ConversationManager(provider).new_conversation().send("Hi")
    assert chat_server.requests[0].path == f"/v1/chat/completions?api-version=preview&key={KEY}"
    assert KEY not in f"{provider!r} {vars(provider)!r}"


def test_azure_resource_gets_its_path() -> None:
    """The portal shows the address of the resource without it."""
    provider = OpenAIProvider("m", base_url="https://mine.openai.azure.com/")
    assert provider.base_url == "https://mine.openai.azure.com/openai/v1"


@pytest.mark.parametrize(
    "base_url", ["http://host/v1 v2", "http://ho\nst/v1", "host:11434/v1", "http://", "http:///v1"]
)
def test_base_url_that_is_none_is_refused(base_url: str) -> None:
    """The error shows it, and an example of a complete one."""
    with pytest.raises(InvalidArgumentError, match="give a complete URL, such as http://localhost:11434/v1"):
        OpenAIProvider("m", base_url=base_url)


def test_missing_version_in_the_path_is_noticed(chat_server: ChatServer) -> None:
    """A 404 without /v1 in the base URL says so; with it, it does not."""
    chat_server.reply(*[error_reply(404, "Not Found")] * 2)
    without = chat_server.url.removesuffix("/v1")
    assert f"base_url ({without}) does not end in /v1, as most do." in str(failure(without))
    assert "/v1, with which" not in str(failure(chat_server.url))


def test_https_to_a_server_without_it_is_noticed(chat_server: ChatServer) -> None:
    """The client's words are about record layers and versions."""
    base_url = chat_server.url.replace("http:", "https:")
    assert f"Check whether base_url ({base_url}) begins with http:// instead." in str(failure(base_url))


@pytest.mark.parametrize(
    "reply",
    [
        b"\x15\x03\x03\x00\x02\x02\x46",
        b"\x15\x03\x01\x00\x02\x02\x28",
    ],
)
def test_http_to_a_server_with_tls_is_noticed(reply: bytes) -> None:
    """It answers with a TLS alert instead of HTTP."""
    with raw_server(reply) as port:
        base_url = f"http://127.0.0.1:{port}/v1"
        assert f"Check whether base_url ({base_url}) begins with https:// instead." in str(failure(base_url))


def test_page_about_plain_http_is_understood(chat_server: ChatServer) -> None:
    """This is how nginx reports that it expects https."""
    page = b"<html><head><title>400 The plain HTTP request was sent to HTTPS port</title></head></html>"
    chat_server.reply(Reply(status=400, body=page))
    error = str(failure(chat_server.url))
    assert "HTTP 400: the page '400 The plain HTTP request was sent to HTTPS port'." in error
    assert error.endswith(f"base_url ({chat_server.url}) may have to begin with https://.")


# Replies


@pytest.mark.parametrize("status", [200, 502, 503])
def test_page_is_shortened_to_its_title(chat_server: ChatServer, status: int) -> None:
    """Scripts and styles are left out."""
    page = b"<!doctype html>\n<html><head><style>a{}</style><title>\n502 Bad Gateway </title></head>" + b"<p>x</p>" * 99
    chat_server.reply(Reply(status=status, body=page))
    error = str(failure(chat_server.url))
    assert "the page '502 Bad Gateway'" in error
    assert "<" not in error


@pytest.mark.parametrize(
    "reply",
    [
        Reply(body=b"not gzip", headers={"Content-Encoding": "gzip"}),
        Reply(body=b"[" * 100_000, content_type="application/json"),
        Reply(body=b'{"choices": ' + b"[" * 100_000, content_type="application/json"),
        Reply(status=302, body=b"", headers={}),
        Reply(status=302, body=b"", headers={"Location": "http://[::1"}),
        Reply(status=500, body=b"\xff\xfe\x00" * 50),
        Reply(chunks=["[" * 100_000]),
    ],
)
def test_reply_that_nobody_can_read_is_one_of_our_errors(chat_server: ChatServer, reply: Reply) -> None:
    """This includes errors that the client or Python raises."""
    chat_server.reply(reply)
    assert len(str(failure(chat_server.url))) < 500


@pytest.mark.parametrize("reply", [b"", b"SSH-2.0-OpenSSH_9.6\r\n", b"HTTP/1.1 2000 No\r\n\r\n", b"\x00" * 40])
def test_server_that_speaks_no_http_is_one_of_our_errors(reply: bytes) -> None:
    """The port may belong to another program."""
    with raw_server(reply) as port:
        assert isinstance(failure(f"http://127.0.0.1:{port}/v1"), ProviderUnavailableError)


def test_silence_names_the_option(chat_server: ChatServer) -> None:
    """A longer timeout is for cells and for Python."""
    chat_server.reply(Reply(delay_s=1))
    provider = OpenAIProvider("m", api_key="unused", base_url=chat_server.url, timeout=0.1, max_retries=0)
    with pytest.raises(ProviderTimeoutError, match=r"%chat_setup --timeout 600, or timeout= in Python"):
        ConversationManager(provider).new_conversation().send("Hi")


# Refusals


@pytest.mark.parametrize(
    ("status", "message", "code"),
    [
        (404, "The model `gpt-4o-mimi` does not exist or you do not have access to it.", "model_not_found"),
        (404, 'model "gpt-4o-mimi" not found, try pulling it first', None),
        (400, "gpt-4o-mimi is not a valid model ID", None),
        (400, "Invalid model name passed in model=gpt-4o-mimi. Call `/v1/models` to view available models.", None),
        (404, "The model `gpt-4o-mimi` does not exist.", "404"),
    ],
)
def test_wrong_model_lists_near_matches(chat_server: ChatServer, status: int, message: str, code: str | None) -> None:
    """They are among the models that the server offers."""
    chat_server.models = [{"id": name} for name in ("gpt-4o", "gpt-4o-mini", "whisper")]
    chat_server.reply(error_reply(status, message, code=code))
    error = failure(chat_server.url, model="gpt-4o-mimi")
    assert isinstance(error, BadRequestError)
    assert str(error).endswith("Did you mean 'gpt-4o-mini' or 'gpt-4o'?")


@pytest.mark.parametrize(
    ("offered", "hint"),
    [("gpt-4o-mini", " %chat_setup --model gpt-4o-mini chooses it."), ("gpt-4o-mini {{ x }}", "")],
)
def test_wrong_model_in_a_cell_names_the_command(chat_server: ChatServer, offered: str, hint: str) -> None:
    """Unless the server's name for the model would need quotes."""
    chat_server.models = [{"id": offered}]
    chat_server.reply(error_reply(404, "model not found", code="model_not_found"))
    before = TYPED_IN.set("cell")
    try:
        error = failure(chat_server.url, model="gpt-4o-mimi")
    finally:
        TYPED_IN.reset(before)
    assert str(error).endswith(f"Did you mean {offered!r}?{hint}")


def test_wrong_model_without_a_list_is_named(chat_server: ChatServer) -> None:
    """A server need not list its models."""
    chat_server.reply(error_reply(404, "No such model", code="model_not_found"))
    assert "Check the model's name ('gpt-4o-mimi')" in str(failure(chat_server.url, model="gpt-4o-mimi"))


@pytest.mark.parametrize(
    ("parameters", "message", "remedy"),
    [
        (
            {"temperature": 0.2},
            "Unsupported value: 'temperature' does not support 0.2 with this model. Only the default (1) is supported.",
            "Remove 'temperature' from parameters={…} and from the pack (in a cell: leave out -t).",
        ),
        ({"top_p": 0.5}, "`top_p` is not supported by this model", "Remove 'top_p' from parameters={…}"),
        (
            {},
            "max_tokens is too large: 100000. This model supports at most 4096 completion tokens.",
            "Lower or remove the output limit: --max-output-tokens N, or max_output_tokens= in Python.",
        ),
    ],
)
def test_refused_parameter_is_named(
    chat_server: ChatServer, parameters: dict[str, object], message: str, remedy: str
) -> None:
    """The error says how to remove it."""
    chat_server.reply(error_reply(400, message))
    error = failure(chat_server.url, parameters=parameters)
    assert isinstance(error, BadRequestError)
    assert remedy in str(error)


KEY_REFUSED = "API key not valid. Please pass a valid API key."
NOT_ENOUGH = "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing."
BUDGET = "Budget has been exceeded! Current cost: 10.0, Max budget: 5.0"


@pytest.mark.parametrize(
    ("status", "body", "kind", "remedy"),
    [
        (400, [{"error": {"code": 400, "message": KEY_REFUSED}}], AuthenticationError, "Check OPENAI_API_KEY"),
        (400, {"error": "Incorrect API key provided: xa***34."}, AuthenticationError, "Check OPENAI_API_KEY"),
        (400, {"type": "error", "error": {"message": NOT_ENOUGH}}, RateLimitError, "waiting does not help"),
        (400, {"error": {"message": BUDGET, "type": "budget_exceeded"}}, RateLimitError, "waiting does not help"),
        (429, {"error": {"code": "1113", "message": "Insufficient balance."}}, RateLimitError, "waiting does not help"),
        (503, [{"error": {"message": "The model is overloaded."}}], ProviderUnavailableError, "overloaded. Try again"),
        (400, {"error": {"message": "Unknown model: gpt-4o-mini"}}, BadRequestError, "Check the model's name"),
        (400, {"error": "No models loaded. Please load one!"}, BadRequestError, "load one! Check the model's name"),
        (400, {"error": "Your request exceeded model token limit: 8"}, ContextWindowExceededError, "message alone"),
        (400, {"error": {"message": "Bad roles"}}, BadRequestError, "%chat_context, or context() in Python"),
    ],
)  # fmt: skip
def test_refusal_is_what_its_words_say(
    chat_server: ChatServer, status: int, body: object, kind: type[Exception], remedy: str
) -> None:
    """Gemini, xAI, Anthropic, LiteLLM, Z.ai, GitHub, LM Studio and Moonshot: the HTTP status alone does not tell."""
    chat_server.usual = lambda _: Reply(status=status, body=json.dumps(body).encode(), content_type="application/json")
    provider = OpenAIProvider("gpt-4o-mini", api_key=KEY, base_url=chat_server.url)
    provider.retries = RetryPolicy(1 if status == 429 else 0, sleep=lambda _: None)
    with pytest.raises(kind) as caught:
        ConversationManager(provider).new_conversation().send("Hi")
    assert remedy in str(caught.value)
    assert len(chat_server.requests) == 1


def test_parameters_are_named_if_the_words_name_none(chat_server: ChatServer) -> None:
    """The server may refuse one of them."""
    chat_server.reply(error_reply(400, "Extra inputs are not permitted"))
    error = failure(chat_server.url, parameters={"seed": 1, "top_k": 4})
    assert str(error).endswith("The request has the parameters seed, top_k: remove the unsupported ones.")


def test_message_that_alone_is_too_long_is_told_so(chat_server: ChatServer) -> None:
    """Shortening the history cannot help; with a history, it can."""
    too_long = error_reply(400, "This model's maximum context length is 10 tokens.", code="context_length_exceeded")
    chat_server.reply(too_long)
    error = failure(chat_server.url)
    assert isinstance(error, ContextWindowExceededError)
    assert "This message alone is too long for 'gpt-4o-mini', so truncate() and summarize() cannot help" in str(error)


def test_error_names_the_variable_of_the_vendors_key(chat_server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each vendor has its own."""
    monkeypatch.setenv("GROQ_API_KEY", "gsk-wrong-0123456")
    chat_server.reply(error_reply(401, "Invalid API Key gsk-wrong-0123456"))
    provider = OpenAIProvider.of_vendor("groq", "m", base_url=chat_server.url)
    with pytest.raises(AuthenticationError, match=r"Invalid API Key \[key\]\. Check GROQ_API_KEY"):
        ConversationManager(provider).new_conversation().send("Hi")
    assert chat_server.requests[0].headers["authorization"] == "Bearer gsk-wrong-0123456"


def test_error_in_mid_answer_is_hidden_too(chat_server: ChatServer) -> None:
    """The server may quote the key in a chunk."""
    chunk = {"choices": [{"index": 0, "delta": {"content": "Half"}, "finish_reason": None}]}
    chat_server.reply(Reply(chunks=[json.dumps(chunk), {"error": {"message": f"Bad key {KEY}", "code": 401}}]))
    assert "Bad key [key]" in str(failure(chat_server.url))
