"""A prompt over rows, relative to eight threads with a bare ``openai`` client; and its requests and memory.

The server takes 100 ms for an answer. It runs in a separate process, as does each run whose memory is measured.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import openai
import pandas as pd

from chat_server import ChatServer
from promptkit_nb import ConversationManager, DiskStore, OpenAIProvider, ask_rows
from ratio import Ratio, medians_ms
from row_server import AllowsFour
from server import chat_server_url

if TYPE_CHECKING:
    from collections.abc import Callable

ROWS = 400
WORKERS = 8
LATENCY_S = 0.1
ROUNDS = 3
LEAST_THROUGHPUT = 0.85
MOST_REQUESTS = 1.3
MOST_MEMORY = 3.0

_MEMORY = Path(__file__).parent / "row_memory.py"


def measure() -> list[Ratio]:
    """Return the ratios: time against a bare client, requests for each row, and memory against the results."""
    with chat_server_url(LATENCY_S) as url:
        return [_throughput(url), _requests(), _memory()]


def frame_of(rows: int) -> pd.DataFrame:
    """Return a frame of so many different texts."""
    return pd.DataFrame({"text": [f"Text number {at}" for at in range(rows)]})


def _throughput(url: str) -> Ratio:
    with tempfile.TemporaryDirectory() as directory, DiskStore(directory) as store:
        manager = ConversationManager(OpenAIProvider("m", api_key="key", base_url=url, prices={"m": (1, 1)}), store)
        ours_ms, bare_ms = medians_ms(ROUNDS, _run_of(manager), _bare_run_of(url))
    return Ratio(f"{ROWS} rows, {WORKERS} workers, 0.1 s each / bare client", ours_ms, bare_ms, 1 / LEAST_THROUGHPUT)


def _run_of(manager: ConversationManager) -> Callable[[], object]:
    df = frame_of(ROWS)
    return lambda: ask_rows(df, "Classify: {{ text }}", into="a", max_workers=WORKERS, fresh=True, manager=manager)


def _bare_run_of(url: str) -> Callable[[], None]:
    client = openai.OpenAI(api_key="key", base_url=url)
    texts = list(frame_of(ROWS)["text"])

    def ask(text: str) -> str:
        stream = client.chat.completions.create(
            model="m",
            messages=[{"role": "user", "content": f"Classify: {text}"}],
            stream=True,
            stream_options={"include_usage": True},
        )
        return "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)

    def run() -> None:
        with ThreadPoolExecutor(WORKERS) as pool:
            assert len(list(pool.map(ask, texts))) == ROWS

    return run


def _requests() -> Ratio:
    """Return the requests for each row to a server that allows four at once."""
    with ChatServer() as server:
        server.usual = AllowsFour(0.02)
        manager = ConversationManager(OpenAIProvider("m", api_key="key", base_url=server.url))
        ask_rows(frame_of(ROWS), "{{ text }}", into="a", max_workers=WORKERS, manager=manager)
        return Ratio("requests to a server that allows 4 at once / rows", len(server.requests), ROWS, MOST_REQUESTS)


def _memory() -> Ratio:
    """Return the growth of the process's memory beyond the frame, in kB, against the size of the results."""
    run = subprocess.run([sys.executable, _MEMORY], capture_output=True, text=True, check=True)
    peak, results = map(float, run.stdout.split()[-2:])
    return Ratio("memory of 100,000 rows, 10,000 texts / results (kB)", peak / 1000, results / 1000, MOST_MEMORY)
