"""Shared by tests of imports: sample files of other tools, logs to write, and invariants of imports."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

DATA = Path(__file__).parent / "data" / "imports"
START = datetime(2026, 3, 2, 9, tzinfo=UTC)
SESSION = "5b1f0c2e-0001-4a11-8a11-00000000000a"


def checksums(directory: Path) -> dict[str, str]:
    """Return path, size, time and hash of everything below a directory."""
    found = {}
    for path in sorted(directory.rglob("*")):
        digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "directory"
        found[str(path)] = f"{path.stat().st_mtime_ns} {digest}"
    return found


@dataclass
class ClaudeLog:
    """A session file of Claude Code, written line by line; each record follows the previous one."""

    path: Path
    session: str = SESSION
    lines: list[str] = field(default_factory=list)
    last: str | None = None

    def add(self, kind: str, **fields: Any) -> str:
        """Add a record; return its id."""
        number = len(self.lines)
        uuid = str(fields.pop("uuid", f"{self.session[-4:]}-{number:04}"))
        record = {
            "parentUuid": fields.pop("parent", self.last),
            "isSidechain": False,
            "cwd": "/home/user/demo",
            "sessionId": self.session,
            "version": "2.1.172",
            "type": kind,
            "uuid": uuid,
            "timestamp": (START + timedelta(seconds=number)).isoformat().replace("+00:00", "Z"),
            **fields,
        }
        self.lines.append(json.dumps(record))
        self.last = uuid
        return uuid

    def ask(self, text: str, **fields: Any) -> str:
        """Add a message that the user typed."""
        return self.add("user", message={"role": "user", "content": text}, **fields)

    def answer(self, text: str, **fields: Any) -> str:
        """Add an answer of 100 tokens in and 10 out."""
        message = {
            "id": fields.pop("message_id", f"msg_{self.session[-4:]}{len(self.lines)}"),
            "role": "assistant",
            "model": fields.pop("model", "claude-sonnet-4-5-20250929"),
            "content": fields.pop("content", [{"type": "text", "text": text}]),
            "stop_reason": "end_turn",
            "usage": {"input_tokens": 100, "output_tokens": 10, **fields.pop("usage", {})},
        }
        return self.add("assistant", message=message, requestId=f"req_{len(self.lines)}", **fields)

    def write(self) -> Path:
        """Write the file; return its directory."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text("\n".join(self.lines) + "\n", encoding="utf-8")
        return self.path.parent


def claude_log(directory: Path, session: str = SESSION) -> ClaudeLog:
    """Return an empty session of a project."""
    return ClaudeLog(directory / "-home-user-demo" / f"{session}.jsonl", session)


def codex_log(path: Path, *records: tuple[str, dict[str, Any]], thread: str = "01a2-thread", **meta: Any) -> Path:
    """Write a rollout of Codex with these records, a second apart; return it."""
    head = {"id": thread, "timestamp": START.isoformat(), "cwd": "/home/user/ws", "cli_version": "0.58.0", **meta}
    lines = [
        json.dumps({"timestamp": (START + timedelta(seconds=at)).isoformat(), "type": kind, "payload": payload})
        for at, (kind, payload) in enumerate([("session_meta", head), *records])
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def codex_message(role: str, text: str) -> tuple[str, dict[str, Any]]:
    """Return the record of a message."""
    kind = "output_text" if role == "assistant" else "input_text"
    return "response_item", {"type": "message", "role": role, "content": [{"type": kind, "text": text}]}


def codex_tokens(total: int, last: int) -> tuple[str, dict[str, Any]]:
    """Return the record of a count of tokens: all of the session, and those of the last call."""
    totals = {"input_tokens": total, "output_tokens": 0}
    return "event_msg", {
        "type": "token_count",
        "info": {"total_token_usage": totals, "last_token_usage": {"input_tokens": last, "output_tokens": 1}},
    }
