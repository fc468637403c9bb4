"""Images that ``send`` and ``stream`` take with a message, as the server receives them."""

from __future__ import annotations

from base64 import b64decode, b64encode
from typing import TYPE_CHECKING

import pytest
from matplotlib.figure import Figure
from PIL.Image import new as new_image

from promptkit_nb import ConversationManager, InvalidArgumentError, OpenAIProvider
from promptkit_nb.codec import FORMAT_VERSION, NEWEST_FORMAT, format_of
from promptkit_nb.text.cell_text import fill

if TYPE_CHECKING:
    from pathlib import Path

    from chat_server import ChatServer
    from promptkit_nb import Conversation

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
PNG = b64decode(PIXEL)


@pytest.fixture
def talk(chat_server: ChatServer) -> Conversation:
    """A conversation with a server on the loopback."""
    return ConversationManager(OpenAIProvider("gpt-4o-mini", api_key="k", base_url=chat_server.url)).new_conversation()


def sent(server: ChatServer) -> list[dict[str, object]]:
    """Return the parts of the last message of the last request."""
    parts: list[dict[str, object]] = server.requests[-1].body["messages"][-1]["content"]
    return parts


def test_bytes_and_paths_are_sent_after_the_text(talk: Conversation, chat_server: ChatServer, tmp_path: Path) -> None:
    """As ``data:`` URLs, by ``send`` and by ``stream``; the stored text is what was asked."""
    (tmp_path / "bar.png").write_bytes(PNG)
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}
    talk.send("What is this?", attachments=[PNG, tmp_path / "bar.png", str(tmp_path / "bar.png")])
    assert sent(chat_server) == [{"type": "text", "text": "What is this?"}, image, image, image]
    list(talk.stream("And this?", attachments=[PNG]))
    assert sent(chat_server) == [{"type": "text", "text": "And this?"}, image]
    assert [turn.user_text for turn in talk.turns] == ["What is this?", "And this?"]


@pytest.mark.parametrize(
    "image", [new_image("RGB", (2, 2), "red"), Figure(figsize=(1, 1))], ids=["Pillow", "matplotlib"]
)
def test_images_of_libraries_are_sent(talk: Conversation, chat_server: ChatServer, image: object) -> None:
    """As PNG."""
    talk.send("What is this?", attachments=[image])
    start = b64encode(PNG[:8]).decode()[:10]
    assert str(sent(chat_server)[1]["image_url"]).startswith(f"{{'url': 'data:image/png;base64,{start}")


@pytest.mark.parametrize(
    ("attachments", "why"),
    [
        (["no/such.png"], "the file 'no/such.png' cannot be read: No such file or directory"),
        ([3], "An attachment of the type int is not an image"),
        ([b"text"], "An attachment of the type bytes is not an image"),
        ("bar.png", "attachments is a list"),
    ],
)
def test_anything_else_is_refused(
    talk: Conversation, chat_server: ChatServer, attachments: list[object], why: str
) -> None:
    """Nothing is sent or stored."""
    with pytest.raises(InvalidArgumentError, match=why):
        talk.send("What is this?", attachments=attachments)
    assert chat_server.requests == []
    assert talk.turns == ()


PAGE = b"<< /Type /Page /Parent 1 0 R >>"
PDF = b"%PDF-1.7\n<< /Type /Pages >>" + 3 * PAGE
PDF_URL = f"data:application/pdf;base64,{b64encode(PDF).decode()}"


class TestPdfs:
    """PDFs are sent as files, with their names."""

    def test_by_path_and_as_bytes(self, talk: Conversation, chat_server: ChatServer, tmp_path: Path) -> None:
        """In the format of chat completions."""
        (tmp_path / "report.pdf").write_bytes(PDF)
        talk.send("What is new?", attachments=[tmp_path / "report.pdf", PDF])
        assert sent(chat_server) == [
            {"type": "text", "text": "What is new?"},
            {"type": "file", "file": {"filename": "report.pdf", "file_data": PDF_URL}},
            {"type": "file", "file": {"filename": "document.pdf", "file_data": PDF_URL}},
        ]

    def test_in_the_format_of_responses(self, chat_server: ChatServer) -> None:
        """As ``input_file``."""
        provider = OpenAIProvider("gpt-4o-mini", api_key="k", base_url=chat_server.url, dialect="responses")
        ConversationManager(provider).new_conversation().send("What is new?", attachments=[PDF])
        assert chat_server.requests[-1].body["input"][-1]["content"] == [
            {"type": "input_text", "text": "What is new?"},
            {"type": "input_file", "filename": "document.pdf", "file_data": PDF_URL},
        ]

    def test_in_a_cell(self, tmp_path: Path) -> None:
        """The message says where the file was."""
        (tmp_path / "report.pdf").write_bytes(PDF)
        filled = fill("Compare {{ path }} with last year.", {"path": tmp_path / "report.pdf"})
        assert filled.text == "Compare [file report.pdf] with last year."
        assert [part.type for part in filled.parts] == ["text", "file", "text"]
        with pytest.raises(InvalidArgumentError, match="is a PDF, and only text can be sent here"):
            fill("{{ path }}", {"path": tmp_path / "report.pdf"}, images=False)

    def test_a_file_of_another_kind_is_refused(self, talk: Conversation, tmp_path: Path) -> None:
        """The name alone does not make a PDF."""
        (tmp_path / "fake.pdf").write_text("text")
        with pytest.raises(InvalidArgumentError, match=r"fake\.pdf' is not a PNG, JPEG, GIF or WebP image, or a PDF"):
            talk.send("What is new?", attachments=[tmp_path / "fake.pdf"])

    def test_is_stored_in_a_newer_format(self, chat_server: ChatServer, tmp_path: Path) -> None:
        """Version 0.1 refuses that conversation alone; it is exported, imported, and replayed."""
        provider = OpenAIProvider("gpt-4o-mini", api_key="k", base_url=chat_server.url)
        manager = ConversationManager(provider, replay="auto")
        plain, conv = (manager.new_conversation(conversation_id=each) for each in ("plain", "with-pdf"))
        plain.send("Hello", attachments=[PNG])
        conv.send("What is new?", attachments=[PDF])
        assert [format_of(each.turns) for each in (plain, conv)] == [FORMAT_VERSION, NEWEST_FORMAT]
        path = conv.export(tmp_path / "chat.json")
        manager.delete_conversation("with-pdf")
        again = manager.import_conversation(path)
        asked = len(chat_server.requests)
        assert again.send("What is new?", attachments=[PDF], replay="off").replayed is False
        again.undo()
        assert again.rerun(0, replay="auto").replayed
        assert len(chat_server.requests) == asked + 1

    def test_is_counted_and_named(self, talk: Conversation, tmp_path: Path) -> None:
        """Each page counts; a transcript has the name."""
        talk.send("What is new?", attachments=[PDF])
        assert talk.context().token_count > 3 * 1_500
        text = talk.export(tmp_path / "chat.md").read_text("utf-8")
        assert "document.pdf" in text
        assert "base64" not in text
