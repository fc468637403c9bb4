"""Environment variables of the HTTP client: proxies, certificates, and headers, and errors caused by them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import (  # type: ignore[attr-defined]  # not documented, but part of every Python
    getproxies_environment,
    proxy_bypass_environment,
)

from promptkit_nb import errors
from promptkit_nb.providers.endpoints import is_secret_name
from promptkit_nb.secret import Secret
from promptkit_nb.text.plain_text import preview

if TYPE_CHECKING:
    from collections.abc import Iterator

_HEADER_VARIABLES = ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_CUSTOM_HEADERS")
_PROXY_VARIABLES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY")
_CERTIFICATE_VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
_REASON_CHARACTERS = 120


def check_environment() -> None:
    """Raise a ``ProviderError`` that names the variable if one of them makes every request fail."""
    for name in _HEADER_VARIABLES:
        if not Secret(_variable(name)).reveal().isascii():
            raise errors.AuthenticationError(
                f"The environment variable {name} contains non-ASCII characters, which are invalid in headers. Correct "
                "or remove it, and restart the kernel."
            )
    for name in _CERTIFICATE_VARIABLES:
        path = _variable(name)
        if path and not Path(path).exists():
            raise errors.ProviderUnavailableError(
                f"The environment variable {name} names {path!r}, which does not exist. Correct or remove it, and "
                "restart the kernel."
            )


def client_error(error: BaseException) -> errors.PromptKitError:
    """Return the error for a client that cannot be created."""
    for name, proxy in _proxies():
        if proxy.startswith("socks") and isinstance(error, ImportError):
            return errors.MissingDependencyError(
                f"The environment variable {name} is {shown_proxy(proxy)}, and a SOCKS proxy needs the package "
                "socksio: pip install socksio. Or set NO_PROXY for this server."
            )
    set_here = [name for name, _ in _proxies()] + [name for name in _CERTIFICATE_VARIABLES if _variable(name)]
    check = f" Check {', '.join(set_here)}." if set_here else ""
    reason = preview(str(error) or type(error).__name__, _REASON_CHARACTERS)
    return errors.ProviderUnavailableError(f"The HTTP client cannot be created: {reason}.{check}")


def proxy_for(base_url: str) -> tuple[str, str] | None:
    """Return the variable and the address of the proxy for requests to this server; ``None`` without a proxy."""
    parts = urlsplit(base_url)
    proxies = getproxies_environment()
    if proxy_bypass_environment(parts.netloc, proxies):
        return None
    for scheme in (parts.scheme, "all"):
        if proxies.get(scheme):
            return f"{scheme.upper()}_PROXY", shown_proxy(proxies[scheme])
    return None


def shown_proxy(proxy: str) -> str:
    """Return the address of a proxy without user name and password.

    >>> shown_proxy("http://alice:secret@proxy:3128/")
    'http://proxy:3128'
    """
    scheme, separator, rest = proxy.rpartition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2].partition('/')[0]}"


def secret_headers() -> Iterator[Secret]:
    """Yield the secrets in ``OPENAI_CUSTOM_HEADERS``, whose headers the client sends."""
    for line in _variable("OPENAI_CUSTOM_HEADERS").splitlines():
        name, _, value = line.partition(":")
        if is_secret_name(name):
            yield Secret(value)


def _proxies() -> list[tuple[str, str]]:
    found = ((name, _variable(name) or _variable(name.lower())) for name in _PROXY_VARIABLES)
    return [(name, proxy) for name, proxy in found if proxy]


def _variable(name: str) -> str:
    return os.environ.get(name, "")
