"""Addresses of servers: known servers by name, and base URLs pasted by users."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote_plus, urlsplit, urlunsplit

from promptkit_nb.errors import InvalidArgumentError
from promptkit_nb.secret import Secret

OPENAI_BASE_URL = "https://api.openai.com/v1"
DEFAULT_MODEL = "gpt-5.4-mini"
"""The model for OpenAI's own server if neither an argument nor ``PROMPTKIT_MODEL`` names one."""

_AZURE_PATH = "/openai/v1"
_METHODS = re.compile(r"/(?:chat/completions|completions|responses|models|embeddings)$")
_SECRET_NAME = re.compile(r"auth|key|token|secret|passw|cookie|credential|signature", re.IGNORECASE)
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", re.ASCII)
_OURS = frozenset({"content-type", "content-length", "host", "accept", "connection", "transfer-encoding"})


@dataclass(frozen=True, slots=True)
class Vendor:
    """A kind of server: its base URL, and the environment variable of its key.

    ``is_local`` is set if its models run on the user's own machine; they are not in the price list.
    """

    base_url: str
    key_variable: str
    needs_key: bool = True
    is_local: bool = False


VENDORS: Mapping[str, Vendor] = {
    "openai": Vendor(OPENAI_BASE_URL, "OPENAI_API_KEY"),
    "ollama": Vendor("http://localhost:11434/v1", "OLLAMA_API_KEY", needs_key=False, is_local=True),
    "lmstudio": Vendor("http://localhost:1234/v1", "LM_API_TOKEN", needs_key=False, is_local=True),
    "vllm": Vendor("http://localhost:8000/v1", "VLLM_API_KEY", needs_key=False, is_local=True),
    "llamacpp": Vendor("http://localhost:8080/v1", "LLAMA_API_KEY", needs_key=False, is_local=True),
    "openrouter": Vendor("https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
    "groq": Vendor("https://api.groq.com/openai/v1", "GROQ_API_KEY"),
    "gemini": Vendor("https://generativelanguage.googleapis.com/v1beta/openai", "GEMINI_API_KEY"),
    "azure": Vendor("", "AZURE_OPENAI_API_KEY"),
    "anthropic": Vendor("https://api.anthropic.com/v1", "ANTHROPIC_API_KEY"),
}


def environment_key(vendor: str) -> Secret:
    """Return the key of a vendor from the environment; empty if it is not set."""
    return Secret(os.environ.get(VENDORS[vendor].key_variable, ""))


KEY_VARIABLES = tuple(vendor.key_variable for vendor in VENDORS.values())
"""The environment variables of keys."""

AZURE_VARIABLE = "AZURE_OPENAI_ENDPOINT"


def default_base_url(vendor: str) -> str:
    """Return the base URL of a vendor; for Azure and OpenAI, environment variables can set it.

    >>> default_base_url("ollama")
    'http://localhost:11434/v1'
    """
    if vendor == "openai":
        return os.environ.get("OPENAI_BASE_URL") or OPENAI_BASE_URL
    if vendor != "azure":
        return VENDORS[vendor].base_url
    resource = os.environ.get(AZURE_VARIABLE, "").strip()
    if not resource:
        raise InvalidArgumentError(
            f"Azure has no default base URL: set {AZURE_VARIABLE}, or give that of your resource, as in --base-url "
            "https://YOUR-RESOURCE.openai.azure.com/openai/v1"
        )
    return resource


@dataclass(frozen=True, slots=True)
class BaseUrl:
    """A valid base URL without its query, and a description of what was repaired (empty if nothing was)."""

    url: str
    query: Mapping[str, Secret]
    repair: str = ""


def base_url_of(given: Secret) -> BaseUrl:
    """Return a pasted base URL without spaces around it, doubled slashes, and the path of a method.

    Raises ``InvalidArgumentError`` if it is not a complete URL, or has a user name or password.

    >>> base_url_of(Secret(" http://localhost:11434//v1/chat/completions ")).url
    'http://localhost:11434/v1'
    """
    if "@" in given.reveal():
        raise InvalidArgumentError("base_url contains a user name or password; pass a key as api_key= instead.")
    query, text = _query_of(given), given.reveal().partition("?")[0]
    try:
        parts = urlsplit(text)
        is_complete = parts.scheme.lower() in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # unclosed brackets, or a port that is not a number
        is_complete = False
    if not is_complete or not text.isprintable() or " " in text:
        raise InvalidArgumentError(f"base_url is {text!r}; give a complete URL, such as http://localhost:11434/v1.")
    path = _METHODS.sub("", re.sub(r"/{2,}", "/", parts.path).rstrip("/"))
    if (parts.hostname or "").endswith(".azure.com") and not path:
        path = _AZURE_PATH
    url = urlunsplit((parts.scheme, parts.netloc, path, "", ""))
    is_repaired = url != urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/"), "", ""))
    return BaseUrl(url, query, f"base_url was corrected to {url}" if is_repaired else "")


def _query_of(url: Secret) -> dict[str, Secret]:
    """Return the parameters of a URL, which may be keys; invalid ones are left out."""
    pairs = (pair.partition("=") for pair in url.reveal().partition("?")[2].split("&"))
    return {unquote_plus(name): Secret(unquote_plus(value)) for name, _, value in pairs if name}


def is_secret_name(name: str) -> bool:
    """Whether a header of this name carries a secret.

    >>> is_secret_name("X-Api-Key"), is_secret_name("X-Title")
    (True, False)
    """
    return _SECRET_NAME.search(name) is not None


HiddenHeaders = Mapping[object, Secret | None]
"""Headers with hidden values; ``None`` for values that are not text."""


def hidden_headers(headers: object) -> HiddenHeaders | None:
    """Hide the values of headers, unchecked so that no error shows one; return ``None`` if it is not a mapping."""
    if headers is None:
        return {}
    return {name: Secret.of(headers[name]) for name in headers} if isinstance(headers, Mapping) else None


def checked_headers(headers: HiddenHeaders | None) -> dict[str, Secret | str]:
    """Return headers, with secrets hidden; raise ``InvalidArgumentError`` that names a header if it cannot be sent."""
    if headers is None:
        raise InvalidArgumentError('headers is not a mapping; give names and values, as in {"X-Title": "notebook"}.')
    checked: dict[str, Secret | str] = {}
    for name, value in headers.items():
        if not isinstance(name, str) or not _HEADER_NAME.fullmatch(name):
            raise InvalidArgumentError(f"headers has the name {name!r:.80}; give letters, digits and dashes.")
        if name.lower() in _OURS:
            raise InvalidArgumentError(f"The header {name} is set by the request itself; leave it out of headers.")
        if value is None or not (value.reveal().isascii() and value.reveal().isprintable()):
            raise InvalidArgumentError(f"headers[{name!r}] is not a valid header value: give printable ASCII text.")
        checked[str.__str__(name)] = value if is_secret_name(name) else value.reveal()
    return checked


def parse_headers(text: str) -> dict[str, str]:
    """Parse the headers of a magic's options, one ``NAME=VALUE`` a line; names that carry secrets are refused.

    >>> parse_headers("X-Title=My notebook")
    {'X-Title': 'My notebook'}
    """
    headers = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        name, equals, value = line.partition("=")
        name = name.strip()
        if is_secret_name(name):
            raise InvalidArgumentError(
                f"The header {name} carries a secret, which the notebook would save. Set "
                f'OPENAI_CUSTOM_HEADERS="{name}: …" before the kernel starts.'
            )
        if not equals or not name:
            raise InvalidArgumentError(f"{name!r:.40} is not a header: give NAME=VALUE, as in X-Title=notebook.")
        headers[name] = value.strip()
    return headers
