"""The openai client is imported in the background as soon as there is an OpenAIProvider, and nothing breaks for it.

Each test runs a process of its own, most of them with a stand-in for the client whose import is slow or fails.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from chat_server import ChatServer

ANSWER = """
import sys
from promptkit_nb import ConversationManager, OpenAIProvider
conversation = ConversationManager(OpenAIProvider("m", api_key="key", base_url=sys.argv[1])).new_conversation()
print(conversation.send("My name is Alice").content)
"""


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a script in a fresh interpreter, with ``client`` as the source of its openai package, if given."""

    def run(script: str, *arguments: str, client: str | None = None) -> subprocess.CompletedProcess[str]:
        path = os.environ.get("PYTHONPATH", "")
        if client is not None:
            (tmp_path / "openai.py").write_text(client)
            path = os.pathsep.join([str(tmp_path), path])
        environment = {**os.environ, "PYTHONPATH": path}
        command = [sys.executable, "-W", "error", "-c", script, *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)

    return run


@pytest.fixture
def output_of(run: Callable[..., subprocess.CompletedProcess[str]]) -> Callable[..., str]:
    """Run a script that has to succeed without a word on stderr; return what it prints."""

    def output_of(script: str, *arguments: str, client: str | None = None) -> str:
        ended = run(script, *arguments, client=client)
        assert (ended.returncode, ended.stderr) == (0, "")
        return ended.stdout

    return output_of


def test_client_is_imported_in_the_background(output_of: Callable[..., str]) -> None:
    """Making a provider starts one daemon thread, however many providers follow, and the thread imports the client."""
    script = """
import sys, threading
from promptkit_nb import OpenAIProvider
providers = [OpenAIProvider(f"model-{number}") for number in range(3)]
threads = [thread for thread in threading.enumerate() if thread is not threading.main_thread()]
for thread in threads:
    thread.join()
print([thread.daemon for thread in threads], {"openai", "httpcore2"} <= set(sys.modules))
"""
    assert output_of(script) == "[True] True\n"


def test_demo_imports_no_client(output_of: Callable[..., str]) -> None:
    """Neither making a DemoProvider nor its answer starts a thread or imports the client."""
    script = """
import sys, threading
from promptkit_nb import ConversationManager, DemoProvider
ConversationManager(DemoProvider()).new_conversation().send("Hi")
print(threading.active_count(), "openai" in sys.modules)
"""
    assert output_of(script) == "1 False\n"


def test_first_answer_waits_for_the_import(output_of: Callable[..., str], chat_server: ChatServer) -> None:
    """A message sent while the client is being imported is answered, also where warnings are errors."""
    assert output_of(ANSWER, chat_server.url) == "Your name is Alice.\n"


def test_failed_import_is_raised_at_first_use(run: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """The background thread is silent; the first request raises an error of ours with the words of the import's."""
    script = """
import threading
from promptkit_nb import ConversationManager, OpenAIProvider, ProviderUnavailableError
conversation = ConversationManager(OpenAIProvider("m", api_key="key")).new_conversation()
for thread in threading.enumerate():
    if thread is not threading.main_thread():
        thread.join()
try:
    conversation.send("Hi")
except ProviderUnavailableError as error:
    print(str(error).partition(" Check ")[0])  # names variables of the environment, if any is set
    print(repr(error.__cause__))
"""
    ended = run(script, client='raise ImportError("libssl is missing")')
    words = "The HTTP client cannot be created: libssl is missing.\nImportError('libssl is missing')\n"
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, words, "")


def test_exit_does_not_wait_for_the_import(output_of: Callable[..., str]) -> None:
    """A process may end while the client is being imported."""
    script = 'from promptkit_nb import OpenAIProvider; OpenAIProvider("m"); print("done")'
    assert output_of(script, client="import time; time.sleep(600)") == "done\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform does not fork")
def test_fork_waits_for_the_import(output_of: Callable[..., str]) -> None:
    """A child process finds the client imported, and every import lock released."""
    script = """
import os, sys
from promptkit_nb import OpenAIProvider
OpenAIProvider("m")
child = os.fork()
if child == 0:
    import openai
    os._exit(0 if openai.is_whole else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert output_of(script, client="import time; time.sleep(0.5); is_whole = True") == "0\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform does not fork")
def test_forked_process_imports_no_more(output_of: Callable[..., str]) -> None:
    """A provider made in a child process needs no thread of its own."""
    script = """
import os, threading
from promptkit_nb import OpenAIProvider
OpenAIProvider("m")
child = os.fork()
if child == 0:
    OpenAIProvider("m")
    os._exit(threading.active_count())
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert output_of(script) == "1\n"


def test_process_without_threads_imports_the_client_when_it_is_used(
    output_of: Callable[..., str], chat_server: ChatServer
) -> None:
    """Where no thread can be started, the first request imports the client."""
    script = f"""
import threading
def refuse(thread):
    raise RuntimeError("can't start new thread")
threading.Thread.start = refuse
{ANSWER}"""
    assert output_of(script, chat_server.url) == "Your name is Alice.\n"
