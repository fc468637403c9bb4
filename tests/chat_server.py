"""A local chat server in OpenAI's format, scripted reply by reply.

In a test: ``with ChatServer() as server: server.reply(Reply(text="Hi"))``, then inspect ``server.requests``. For tests
with separate kernels, ``python tests/chat_server.py --port 0 --log FILE`` prints its URL on the first line and appends
each request to the file as one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import re
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

from responses_format import named_event, response_events, response_object

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

_STATED_NAME = re.compile(r"\bmy name is (\w+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Request:
    """A received request: ``headers`` with names in lower case, ``body`` as parsed JSON."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """How to answer one request; by default like OpenAI.

    ``text`` defaults to an answer from the history: the name that the user stated, else an echo. ``chunks`` are JSON
    values (or raw strings) to send as events instead; ``body`` is the whole body instead, sent with ``content_type``.
    ``cut_after`` breaks the connection after this many events, ``close_after`` ends the stream there properly.
    ``delay_s`` is the time before the reply, ``pause_s`` the time before each event, from event ``pause_from`` on.
    """

    text: str | None = None
    reasoning: str = ""
    tool_calls: Sequence[dict[str, Any]] = ()
    usage: dict[str, Any] | None = field(
        default_factory=lambda: {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    )
    model: str | None = None
    finish_reason: str | None = "stop"
    chunks: Sequence[object] | None = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    content_type: str | None = None
    cut_after: int | None = None
    close_after: int | None = None
    delay_s: float = 0.0
    pause_s: float = 0.0
    pause_from: int = 0
    no_done: bool = False


def error_reply(status: int, message: str, *, code: str | None = None, headers: dict[str, str] | None = None) -> Reply:
    """Return an error reply in OpenAI's format."""
    body = json.dumps({"error": {"message": message, "type": None, "param": None, "code": code}}).encode()
    return Reply(status=status, body=body, headers=headers or {}, content_type="application/json")


class ChatServer:
    """A threaded HTTP/1.1 server that keeps connections alive; ``url`` is the base URL for a client.

    ``usual`` makes the reply to each request without a scripted one, and ``models`` is what ``GET /models`` lists,
    ``None`` for a server without that list.
    """

    def __init__(self, port: int = 0, *, log: Path | None = None) -> None:
        """Listen locally; port 0 chooses a free one."""
        self.requests: list[Request] = []
        self.dropped = threading.Event()
        self.usual: Callable[[Request], Reply] = lambda _: Reply()
        self.models: list[dict[str, Any]] | None = None
        self._replies: deque[Reply] = deque()
        self._lock = threading.Lock()
        self._log = log
        self._http = _Server(("127.0.0.1", port), _RequestHandler)
        self._http.chat = self
        self.port: int = self._http.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> Self:
        """Serve in the background."""
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Stop listening; threads that are still answering may finish."""
        self._http.shutdown()
        self._http.server_close()

    def reply(self, *replies: Reply) -> None:
        """Script the replies to the next requests, one each; later requests get the usual reply."""
        with self._lock:
            self._replies.extend(replies)

    def serve_forever(self) -> None:
        """Serve in this thread until the process ends."""
        self._http.serve_forever()

    def reply_to(self, request: Request) -> Reply:
        """Record the request and return its reply."""
        with self._lock:
            self.requests.append(request)
            if self._log is not None:
                line = {"path": request.path, "headers": request.headers, "body": request.body}
                with self._log.open("a", encoding="utf-8") as log:
                    log.write(json.dumps(line) + "\n")
            if self._replies:
                return self._replies.popleft()
        return self.usual(request)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64
    chat: ChatServer

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002 - the base class passes it
        """Record that a client disconnected."""
        self.chat.dropped.set()


class _RequestHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 1 << 16
    server: _Server

    def do_GET(self) -> None:
        """List the models."""
        models = self.server.chat.models
        if models is None or not self.path.partition("?")[0].endswith("/models"):
            self._send_body(404, b'{"error": {"message": "no such path"}}', "application/json", {})
            return
        self._send_body(200, json.dumps({"object": "list", "data": models}).encode(), "application/json", {})

    def do_POST(self) -> None:
        """Answer a chat request as scripted."""
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        request = Request(self.path, {name.lower(): value for name, value in self.headers.items()}, json.loads(raw))
        reply = self.server.chat.reply_to(request)
        time.sleep(reply.delay_s)
        path = self.path.partition("?")[0]
        if not path.endswith(("/chat/completions", "/responses")):
            self._send_body(404, b'{"error": {"message": "no such path"}}', "application/json", {})
        elif reply.body is not None:
            self._send_body(reply.status, reply.body, reply.content_type or "text/html", reply.headers)
        elif request.body.get("stream"):
            self._send_events(reply, request.body)
        else:
            whole = response_object if path.endswith("/responses") else completion
            body = json.dumps(whole(reply, request.body)).encode()
            self._send_body(reply.status, body, "application/json", reply.headers)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
        """Print nothing."""

    def _head(self, status: int, content_type: str, headers: dict[str, str]) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        for name, value in headers.items():
            self.send_header(name, value)

    def _send_body(self, status: int, body: bytes, content_type: str, headers: dict[str, str]) -> None:
        self._head(status, content_type, headers)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def _send_events(self, reply: Reply, asked: dict[str, Any]) -> None:
        self._head(reply.status, "text/event-stream", reply.headers)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        make, encode = (response_events, named_event) if "input" in asked else (chunks, _event)
        events = [encode(chunk) for chunk in (reply.chunks if reply.chunks is not None else make(reply, asked))]
        events = events if reply.no_done else [*events, _event("[DONE]")]
        for number, event in enumerate(events):
            if number == reply.cut_after:
                self._break_off()
                return
            if number == reply.close_after:
                break
            if reply.pause_s and number >= reply.pause_from:
                self.wfile.flush()
                time.sleep(reply.pause_s)
            self.wfile.write(b"%x\r\n%b\r\n" % (len(event), event))
        self.wfile.write(b"0\r\n\r\n")
        self.wfile.flush()

    def _break_off(self) -> None:
        self.wfile.flush()
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)


def answer_text(reply: Reply, asked: dict[str, Any]) -> str:
    """Return the scripted text, else an answer from the history."""
    if reply.text is not None:
        return reply.text
    said = [_content_text(message) for message in asked.get("messages", ()) if message.get("role") == "user"]
    names = [match[1] for text in said for match in _STATED_NAME.finditer(text)]
    if names:
        return f"Your name is {names[-1]}."
    return f"You said: {said[-1]}" if said else "Hello."


def completion(reply: Reply, asked: dict[str, Any]) -> dict[str, Any]:
    """Return the whole answer as one object, as for a request without streaming."""
    message: dict[str, Any] = {"role": "assistant", "content": answer_text(reply, asked)}
    if reply.tool_calls:
        message["tool_calls"] = list(reply.tool_calls)
    choice = {"index": 0, "message": message, "finish_reason": reply.finish_reason}
    return _object("chat.completion", reply, asked, [choice]) | ({"usage": reply.usage} if reply.usage else {})


def chunks(reply: Reply, asked: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the answer word by word: role, reasoning, text, tool calls, finish reason, and the usage if requested."""
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    if reply.reasoning:
        deltas.append({"reasoning_content": reply.reasoning})
    if reply.text is not None or not reply.tool_calls:
        deltas += [{"content": word} for word in re.findall(r"\s*\S+\s*$|\s*\S+|\s+", answer_text(reply, asked))]
    deltas += [{"tool_calls": [{"index": index, **call}]} for index, call in enumerate(reply.tool_calls)]
    for delta in deltas:
        yield _chunk(reply, asked, [{"index": 0, "delta": delta, "finish_reason": None}])
    if reply.finish_reason is not None:
        finish_reason = "tool_calls" if reply.tool_calls else reply.finish_reason
        yield _chunk(reply, asked, [{"index": 0, "delta": {}, "finish_reason": finish_reason}])
    if reply.usage is not None and (asked.get("stream_options") or {}).get("include_usage"):
        yield _chunk(reply, asked, []) | {"usage": reply.usage}


def _chunk(reply: Reply, asked: dict[str, Any], choices: list[dict[str, Any]]) -> dict[str, Any]:
    return _object("chat.completion.chunk", reply, asked, choices)


def _object(kind: str, reply: Reply, asked: dict[str, Any], choices: list[dict[str, Any]]) -> dict[str, Any]:
    model = reply.model or asked.get("model")
    return {"id": "chatcmpl-1", "object": kind, "created": 1750000000, "model": model, "choices": choices}


def _event(chunk: object) -> bytes:
    data = chunk if isinstance(chunk, str) else json.dumps(chunk)
    return f"data: {data}\n\n".encode()


def _content_text(message: dict[str, Any]) -> str:
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return " ".join(part.get("text", "") for part in content)


def main() -> None:
    """Serve in a separate process until it is killed."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--log", type=Path)
    parser.add_argument("--latency-s", type=float, default=0.0)
    arguments = parser.parse_args()
    server = ChatServer(arguments.port, log=arguments.log)
    server.usual = lambda _: Reply(delay_s=arguments.latency_s)
    print(server.url, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
