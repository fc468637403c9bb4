"""The package's public names: what is imported, no side effects, and examples that run."""

from __future__ import annotations

import builtins
import doctest
import inspect
import pkgutil
import subprocess
import sys
from importlib import import_module
from importlib.resources import files
from typing import TYPE_CHECKING

import pytest

import promptkit_nb
from promptkit_nb import Conversation, ConversationManager, StateStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PUBLIC = [
    "AuthenticationError",
    "BadRequestError",
    "Budget",
    "BudgetExceededError",
    "ChatPanel",
    "ContentFilteredError",
    "ContentPart",
    "ContextWindowExceededError",
    "Conversation",
    "ConversationChangedError",
    "ConversationExistsError",
    "ConversationManager",
    "ConversationNotFoundError",
    "ConversationState",
    "DemoProvider",
    "DiskStore",
    "Head",
    "ImportReport",
    "ImportSourceError",
    "InvalidArgumentError",
    "InvalidConversationIdError",
    "MemoryStore",
    "Message",
    "MissingDependencyError",
    "MissingVariableError",
    "OpenAIProvider",
    "Pack",
    "PackError",
    "PackNotFoundError",
    "PackValidationError",
    "Price",
    "Prompt",
    "PromptKitError",
    "PromptNotFoundError",
    "ProviderError",
    "ProviderTimeoutError",
    "ProviderUnavailableError",
    "RateLimitError",
    "RedisStore",
    "ReplayMissError",
    "Response",
    "SchemaError",
    "StateStore",
    "StoreCorruptedError",
    "StoreError",
    "StoreUnavailableError",
    "Summary",
    "ToolError",
    "Turn",
    "Usage",
    "ask_rows",
    "conversations_df",
    "export_parquet",
    "export_store",
    "import_chats",
    "import_store",
    "load_pack",
    "messages_df",
    "plot_cost",
    "plot_tokens",
    "scoped_id",
    "search",
    "turns_df",
    "usage_dashboard",
    "usage_df",
    "validate_pack",
]

MODULES = sorted(
    ["promptkit_nb", *(found.name for found in pkgutil.walk_packages(promptkit_nb.__path__, "promptkit_nb."))]
)

METHODS = [
    method
    for kind in (Conversation, ConversationManager, StateStore)
    for name, method in inspect.getmembers(kind, inspect.isfunction)
    if not name.startswith("_")
]

IMPORT = """
import logging, os, signal, sys, threading
before = set(sys.modules), dict(os.environ), signal.getsignal(signal.SIGINT), threading.active_count()
import promptkit_nb
assert dict(os.environ) == before[1]
assert signal.getsignal(signal.SIGINT) is before[2]
assert threading.active_count() == before[3]
assert not logging.getLogger().handlers and not logging.getLogger("promptkit_nb").handlers
print(sorted(name for name in set(sys.modules) - before[0] if name.split(".")[0] not in sys.stdlib_module_names))
"""

IMPORT_MOST = """
import sys, threading
from promptkit_nb import ConversationManager, MemoryStore, OpenAIProvider, Response, load_pack
heavy = {"openai", "pandas", "pyarrow", "ipywidgets", "redis", "diskcache", "tiktoken", "genai_prices", "IPython"}
print(sorted(heavy & set(sys.modules)))
OpenAIProvider("gpt-4o-mini")
for thread in threading.enumerate():
    if thread is not threading.current_thread():
        thread.join()
print(sorted(heavy & set(sys.modules)))
"""


def test_public_names_are_these() -> None:
    """Names are added or removed on purpose, and the list is sorted."""
    assert promptkit_nb.__all__ == PUBLIC
    assert sorted(PUBLIC) == PUBLIC


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_resolves(name: str) -> None:
    """Each can be imported and has its own name."""
    assert getattr(promptkit_nb, name).__name__ == name


def test_dir_shows_the_public_names() -> None:
    """Tab completion offers the public names and nothing else."""
    assert dir(promptkit_nb) == sorted([*PUBLIC, "__version__"])


def test_unknown_name_is_an_attribute_error() -> None:
    """A misspelled name raises AttributeError, as in any module."""
    with pytest.raises(AttributeError, match="module 'promptkit_nb' has no attribute 'Converzation'"):
        _ = promptkit_nb.Converzation  # type: ignore[attr-defined]  # on purpose


def test_no_module_carries_the_name_of_a_public_name() -> None:
    """``from promptkit_nb import load_pack`` can never import a module."""
    assert not {name.rpartition(".")[2] for name in MODULES} & set(PUBLIC)


def test_type_checkers_read_our_annotations() -> None:
    """The package has the marker that type checkers look for."""
    assert (files(promptkit_nb) / "py.typed").is_file()


def test_importing_the_package_loads_only_the_package(tmp_path: object) -> None:
    """No third-party module, environment variable, signal handler, thread or log handler changes."""
    run = subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True, check=True, cwd=str(tmp_path))
    assert run.stdout == "['promptkit_nb']\n"
    assert run.stderr == ""


def test_heavy_libraries_wait_until_they_are_used() -> None:
    """Importing the classes loads no library; an OpenAIProvider loads only its client, in the background."""
    run = subprocess.run([sys.executable, "-c", IMPORT_MOST], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n['openai']\n"


@pytest.fixture(autouse=True)
def builtins_as_before() -> Iterator[None]:
    """Examples set ``_``, for which IPython would no longer set its own."""
    yield
    vars(builtins).pop("_", None)


def test_package_example_runs() -> None:
    """The first example of the documentation is correct."""
    assert doctest.testmod(promptkit_nb).attempted >= 4


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_run(name: str, tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each example prints its expected output."""
    monkeypatch.setenv("PROMPTKIT_HOME", str(tmp_path))
    monkeypatch.delenv("PROMPTKIT_MODEL", raising=False)
    assert doctest.testmod(import_module(name)).failed == 0


@pytest.fixture
def pasted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[object], doctest.TestResults]:
    """Run the examples of a docstring as if pasted into a new notebook."""
    monkeypatch.setenv("PROMPTKIT_HOME", str(tmp_path))
    monkeypatch.delenv("PROMPTKIT_MODEL", raising=False)

    def run(thing: object) -> doctest.TestResults:
        examples = doctest.DocTestParser().get_doctest(thing.__doc__ or "", {}, "pasted", None, None)
        return doctest.DocTestRunner(verbose=False).run(examples)

    return run


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_has_an_example(name: str, pasted: Callable[[object], doctest.TestResults]) -> None:
    """``help`` shows an example that can be pasted."""
    results = pasted(getattr(promptkit_nb, name))
    assert results.attempted >= 1
    assert results.failed == 0


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.__qualname__)
def test_every_method_has_an_example(method: object, pasted: Callable[[object], doctest.TestResults]) -> None:
    """The methods of a manager, a conversation and a store have examples, too."""
    results = pasted(method)
    assert results.attempted >= 1
    assert results.failed == 0


@pytest.mark.parametrize("name", MODULES)
def test_every_module_has_a_docstring(name: str) -> None:
    """It says what the module is for."""
    assert (import_module(name).__doc__ or "").strip()
