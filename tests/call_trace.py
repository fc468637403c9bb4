"""Records which functions of the package a call runs, in all threads, and how often it asks the store.

Run ``install()`` before the package is loaded, so that its long-lived threads are traced too.
"""

from __future__ import annotations

import sys
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import CodeType, FrameType

PACKAGE = "/promptkit_nb/"

Frames = list[tuple[str, str]]
"""Frames of the package, outermost first: file within the package, and qualified name of the function."""


@dataclass
class CallTrace:
    """What ran between ``start()`` and ``stop()``; depths count the package's frames only.

    ``append_frames`` are the frames on the stack when the backend's ``append()`` was called.
    """

    files: list[str] = field(default_factory=list)
    deepest: Frames = field(default_factory=list)
    append_frames: Frames = field(default_factory=list)
    reads: int = 0
    writes: int = 0

    def record(self, frame: FrameType) -> None:
        """Record one call of a function of the package."""
        path, function = _name_of(frame.f_code)
        if path not in self.files:
            self.files.append(path)
        frames = _frames_of(frame)
        if len(frames) > len(self.deepest):
            self.deepest = frames
        if function == "Table.run":  # the backend on disk runs its transactions there
            self.writes += frame.f_locals["write"]
            self.reads += not frame.f_locals["write"]
        if path.startswith("stores/") and function.endswith("Backend.append"):
            self.append_frames = frames


_current: CallTrace | None = None


def install() -> None:
    """Trace this thread, and all threads that start from now on."""
    threading.setprofile(_profile)
    sys.setprofile(_profile)


def start() -> CallTrace:
    """Start to record."""
    global _current  # noqa: PLW0603 - a profile function belongs to the whole process
    _current = CallTrace()
    return _current


def stop() -> None:
    """Stop recording."""
    global _current  # noqa: PLW0603 - as above
    _current = None


def _profile(frame: FrameType, event: str, _: object) -> None:
    if _current is not None and event == "call" and PACKAGE in frame.f_code.co_filename:
        _current.record(frame)


def _name_of(code: CodeType) -> tuple[str, str]:
    return code.co_filename.rpartition(PACKAGE)[2], code.co_qualname.replace(".<locals>", "")


def _frames_of(frame: FrameType | None) -> Frames:
    frames = []
    while frame is not None:
        if PACKAGE in frame.f_code.co_filename:
            frames.append(_name_of(frame.f_code))
        frame = frame.f_back
    return frames[::-1]
