"""The time to the first answer of a process, relative to a bare openai client with the same instant server.

The client takes most of the time. It is imported in the background as soon as there is a provider, so later messages do
not wait for it.
"""

from __future__ import annotations

import time
from statistics import median
from typing import TYPE_CHECKING

from chat_server import ChatServer, Reply
from fresh_process import fresh_process
from ratio import Ratio

if TYPE_CHECKING:
    from collections.abc import Callable

    from chat_server import Request

ROUNDS = 9

_CLIENT = """
import sys
from openai import OpenAI

client = OpenAI(api_key="key", base_url=sys.argv[1])
messages = [{"role": "user", "content": "Hi"}]
for chunk in client.chat.completions.create(model="gpt-4o-mini", messages=messages, stream=True):
    if chunk.choices and chunk.choices[0].delta.content:
        print(chunk.choices[0].delta.content, flush=True)
        break
"""

_OURS = """
import sys, tempfile
from promptkit_nb import ConversationManager, DiskStore, OpenAIProvider

with tempfile.TemporaryDirectory() as directory, DiskStore(directory) as store:
    manager = ConversationManager(OpenAIProvider("gpt-4o-mini", api_key="key", base_url=sys.argv[1]), store)
    stream = manager.new_conversation().stream("Hi")
    print(next(stream), flush=True)
    list(stream)
"""

_IMPORT = """
import time
started = time.perf_counter()
import openai
print(time.perf_counter() - started)
"""

# The clock shared by all processes: the server writes the arrival time of each request.
_SEND = """
import sys, tempfile, threading, time
from promptkit_nb import ConversationManager, DiskStore, OpenAIProvider

with tempfile.TemporaryDirectory() as directory, DiskStore(directory) as store:
    manager = ConversationManager(OpenAIProvider("gpt-4o-mini", api_key="key", base_url=sys.argv[1]), store)
    conversation = manager.new_conversation()
    for thread in threading.enumerate():
        if thread is not threading.current_thread():
            thread.join()
    print(time.monotonic())
    conversation.send("Hi")
"""


def measure() -> list[Ratio]:
    """Return the ratios from process start to the first text, and from ``send`` to the request's arrival."""
    with ChatServer() as server:
        arrivals: list[float] = []

        def answered(_: Request) -> Reply:
            arrivals.append(time.monotonic())
            return Reply()

        server.usual = answered
        client_ms, ours_ms = _interleaved_medians(
            lambda: _first_text_ms(_CLIENT, server.url), lambda: _first_text_ms(_OURS, server.url)
        )
        import_ms, send_ms = _interleaved_medians(_import_ms, lambda: _send_ms(server.url, arrivals))
    return [
        Ratio("process start to first text / bare openai client", ours_ms, client_ms, 1.4),
        Ratio("send to request, client imported / import openai", send_ms, import_ms, 0.25),
    ]


def _interleaved_medians(*tasks: Callable[[], float]) -> list[float]:
    """Return the medians of what the tasks measure, without a first round, which compiles."""
    rounds = [[task() for task in tasks] for _ in range(ROUNDS + 1)]
    return [median(measured) for measured in zip(*rounds[1:], strict=True)]


def _first_text_ms(script: str, url: str) -> float:
    started = time.monotonic()
    with fresh_process(script, url) as lines:
        next(lines)
        return (time.monotonic() - started) * 1000


def _import_ms() -> float:
    with fresh_process(_IMPORT) as lines:
        return float(next(lines)) * 1000


def _send_ms(url: str, arrivals: list[float]) -> float:
    with fresh_process(_SEND, url) as lines:
        sent = float(next(lines))
    return (arrivals[-1] - sent) * 1000
