"""Images that ``send`` and ``stream`` take with a message, as the server receives them."""

from __future__ import annotations

from base64 import b64decode, b64encode
from typing import TYPE_CHECKING

import pytest
from matplotlib.figure import Figure
from PIL.Image import new as new_image

from promptkit_nb import ConversationManager, InvalidArgumentError, OpenAIProvider

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
