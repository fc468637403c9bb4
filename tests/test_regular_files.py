"""Files: only regular ones are read and replaced, symbolic links lead to their targets, and ``~`` is the home."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from promptkit_nb import (
    ConversationManager,
    ConversationState,
    DemoProvider,
    DiskStore,
    MemoryStore,
    export_store,
    import_store,
    load_pack,
    validate_pack,
)
from promptkit_nb.errors import InvalidArgumentError, PackError, PromptKitError, StoreUnavailableError
from promptkit_nb.exports.archives import read_conversation, write_conversation
from promptkit_nb.regular_files import read_file

if TYPE_CHECKING:
    from collections.abc import Callable

    from promptkit_nb.conversation import Conversation

STATE = ConversationState("eda")


@pytest.fixture
def conv() -> Conversation:
    """A conversation to export."""
    return ConversationManager(DemoProvider()).new_conversation(conversation_id="eda", system_prompt="You help.")


@pytest.fixture(params=["pipe", "socket", "device", "directory"])
def special(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A file that is not a regular one, with the suffix of a conversation; devices are reached through a link."""
    path = tmp_path / "chat.json"
    if request.param == "pipe":
        os.mkfifo(path)
    elif request.param == "device":
        path.symlink_to("/dev/zero")
    elif request.param == "directory":
        path.mkdir()
    else:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(path))
    return path


def calls_that_read(path: Path) -> list[Callable[[], object]]:
    """Return the calls that read a file that someone else may have written."""
    return [
        lambda: ConversationManager(DemoProvider()).import_conversation(path),
        lambda: read_conversation(path),
        lambda: import_store(path, MemoryStore()),
        lambda: load_pack(path),
        lambda: load_pack(path, strict=True),
        lambda: validate_pack(path),
    ]


def test_only_regular_files_are_read(special: Path) -> None:
    """A pipe without a writer does not block, and a device is not read until the memory is full."""
    for call in calls_that_read(special):
        with pytest.raises((StoreUnavailableError, PackError), match=special.name):
            call()


def test_only_regular_files_are_replaced(conv: Conversation, special: Path) -> None:
    """An export leaves them as they are."""
    kind = special.lstat().st_mode
    for write in (conv.export, lambda path: export_store(conv.store, path)):
        with pytest.raises(StoreUnavailableError, match=r"cannot be written: it is a \w+( \w+)?, not a regular file"):
            write(special)
    assert special.lstat().st_mode == kind
    assert list(special.parent.iterdir()) == [special]


@pytest.mark.parametrize("name", ["chat.json", "chat.md", "chat.html"])
def test_export_writes_through_a_link(conv: Conversation, tmp_path: Path, name: str) -> None:
    """The link stays, and the file it leads to has the conversation, whether it existed or not."""
    (tmp_path / "elsewhere").mkdir()
    target, link = tmp_path / "elsewhere" / "target", tmp_path / name
    link.symlink_to(Path("elsewhere") / "target")
    for _ in range(2):
        assert conv.export(link) == link
        assert link.is_symlink()
        assert "eda" in target.read_text("utf-8")
    assert list(target.parent.iterdir()) == [target]


def test_link_to_itself_is_refused(conv: Conversation, tmp_path: Path) -> None:
    """The error has the message of the system."""
    link = tmp_path / "chat.json"
    link.symlink_to(link)
    with pytest.raises(StoreUnavailableError, match=r"cannot be written: Too many levels of symbolic links"):
        conv.export(link)
    assert link.is_symlink()


def test_home_is_expanded(conv: Conversation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This holds for every path argument."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert [conv.export(f"~/chat{suffix}") for suffix in (".json", ".md", ".html")] == [
        tmp_path / f"chat{suffix}" for suffix in (".json", ".md", ".html")
    ]
    assert ConversationManager(DemoProvider()).import_conversation("~/chat.json").id == "eda"
    assert export_store(conv.store, Path("~/all.jsonl")) == 1
    assert [head.conversation_id for head in import_store("~/all.jsonl", MemoryStore())] == ["eda"]
    with DiskStore("~/chats") as store:
        assert store.directory == tmp_path / "chats"
    (tmp_path / "mine.pack.json").write_text('{"id": "mine", "prompts": {"a": {"system_template": "Hi"}}}', "utf-8")
    assert load_pack("~/mine.pack.json").id == "mine"
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("~")) == []


@pytest.mark.parametrize("name", ["chat.ipynb", "chat.csv", "chat.parquet", "chat.jsonl", "chat.txt", "chat", "~"])
def test_other_suffixes_are_refused(conv: Conversation, tmp_path: Path, name: str) -> None:
    """JSON is not written under another format's name."""
    with pytest.raises(InvalidArgumentError, match=r"none of the supported suffixes: use \.md .*\.html .*\.json"):
        conv.export(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_huge_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    """By its size, which takes no space on the disk here."""
    path = tmp_path / "huge.json"
    path.touch()
    os.truncate(path, 2**40)
    for call in calls_that_read(path):
        with pytest.raises(PromptKitError, match="huge"):
            call()


def test_file_that_grows_is_read_to_the_limit(tmp_path: Path) -> None:
    """Files of /proc have no size until they are read."""
    path = tmp_path / "a"
    path.write_bytes(b"12345")
    assert read_file(path, 5) == b"12345"
    with pytest.raises(OSError, match="it has more than 4 bytes"):
        read_file(path, 4)
    with pytest.raises(OSError, match="it has more than 3 bytes"):
        read_file(Path("/proc/self/status"), 3)


def test_exported_file_is_replaced_by_the_next_export(tmp_path: Path) -> None:
    """As before."""
    path = write_conversation(STATE, tmp_path / "a.json")
    assert write_conversation(STATE, path) == path
    assert read_conversation(path) == STATE
