"""The tools of a panel: values of the notebook in messages, the choice of a model, titles."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
import pytest

from panel_page import GatedProvider, PanelPage
from promptkit_nb import ConversationManager, DemoProvider, OpenAIProvider
from promptkit_nb.notebook.panel_values import NotebookValues
from promptkit_nb.rendering.conversations import title_of

if TYPE_CHECKING:
    from chat_server import ChatServer

PNG = bytes.fromhex("89504e470d0a1a0a0000000d4948445200000001000000010806000000")
TEAS = pd.DataFrame({"tea": ["green", "black"], "price": [18, 24]})


def page_with_values(**values: object) -> PanelPage:
    """Return a panel of an empty conversation in a notebook with these values."""
    page = PanelPage(ConversationManager(DemoProvider()).new_conversation(conversation_id="teas"))
    page.controller.values = NotebookValues(values)
    return page


class TestValues:
    """``{{ name }}`` in a message."""

    def test_model_gets_the_value_and_the_reader_sees_what_was_typed(self) -> None:
        """The stored message has the table; the panel, and an edit, have the expression."""
        page = page_with_values(teas=TEAS)
        page.do("send", text="Which of {{ teas }} is cheapest?")
        page.wait(lambda: page.questions == ["Which of {{ teas }} is cheapest?"])
        (turn,) = page.controller.conversation.turns
        assert "| 0 | green | 18 |" in turn.user_text
        assert page.shown["turns"][0]["entries"][0]["text"] == "Which of {{ teas }} is cheapest?"

    def test_retry_sends_the_same_values_again(self) -> None:
        """What was sent once is sent again, whatever the name stands for by now."""
        page = page_with_values(teas=TEAS)
        page.do("send", text="About {{ teas }}")
        page.wait(lambda: page.questions)
        (before,) = page.controller.conversation.turns
        page.controller.values = NotebookValues({})
        page.do("retry", turn=before.id)
        page.wait(lambda: page.controller.conversation.versions(before.id) and not page.shown["busy"])
        assert page.controller.conversation.turns[0].user_text == before.user_text
        assert page.error == ""

    def test_edit_fills_in_the_values_of_today(self) -> None:
        """An edited message is filled in like a new one."""
        page = page_with_values(price=18)
        page.do("send", text="It is {{ price }}")
        page.wait(lambda: page.questions)
        page.controller.values = NotebookValues({"price": 24})
        page.do("edit", turn=page.shown["turns"][0]["id"], text="Now it is {{ price }}")
        page.wait(lambda: page.questions == ["Now it is {{ price }}"])
        assert page.controller.conversation.turns[0].user_text == "Now it is 24"

    def test_unknown_name_sends_nothing(self) -> None:
        """The error names it, and the text goes back to the page."""
        page = page_with_values(teas=TEAS)
        page.do("send", text="About {{ tees }}")
        page.wait(lambda: page.error)
        assert "'tees' is not defined" in page.error
        assert "To send braces as typed, put the text into a variable and use that." in page.error
        assert page.shown["error"]["unsent"] == "About {{ tees }}"
        assert page.controller.conversation.turns == ()

    def test_errors_name_what_works_in_a_panel(self) -> None:
        """Magics that lift a limit, and no argument of Python or option of a cell."""
        manager = ConversationManager(DemoProvider())
        page = PanelPage(manager.new_conversation(max_tokens=20))
        page.do("send", text="word " * 40)
        page.wait(lambda: page.error)
        assert "more than %chat_setup --context-tokens 20; nothing was sent." in page.error
        assert "raise %chat_setup --context-tokens." in page.error

    def test_names_are_described_while_typing(self) -> None:
        """Class and shape, or that the name is unknown; templates that are no expressions are left out."""
        page = page_with_values(teas=TEAS, rate=0.5)
        page.do("names", text="{{ teas }} {{ rate }} {{ rat }} {{ x | upper }} {{ teas.shape }}")
        page.wait(lambda: page.messages)
        assert page.messages[-1]["names"] == [
            {"name": "teas", "kind": "DataFrame 2 \N{MULTIPLICATION SIGN} 2", "known": True},
            {"name": "rate", "kind": "float", "known": True},
            {"name": "rat", "kind": "unknown", "known": False},
            {"name": "teas.shape", "kind": "", "known": True},
        ]

    def test_panel_without_a_notebook_sends_braces_as_typed(self) -> None:
        """There is nothing that they could stand for."""
        page = PanelPage(ConversationManager(DemoProvider()).new_conversation())
        page.say("What is {{ x }}?")
        assert page.controller.conversation.turns[0].user_text == "What is {{ x }}?"


class TestPictures:
    """Pictures that were pasted or dropped."""

    def test_message_carries_them(self) -> None:
        """After its text, whatever the page says that they are; the next message has none."""
        page = page_with_values(teas=TEAS)
        page.do("send", PNG, text="Which of {{ teas }} is this?")
        page.wait(lambda: page.questions)
        page.say("Thanks")
        first, second = page.controller.conversation.turns
        text, picture = first.messages[0].parts
        assert "| 0 | green | 18 |" in text.text
        assert picture.url.startswith("data:image/png;base64,")
        assert second.messages[0].parts == ()

    @pytest.mark.parametrize(
        ("picture", "words"),
        [
            (b"<svg onload=alert(1)>", "is not an image"),
            (PNG + bytes(5_000_000), "A picture is larger than 5 MB: make it smaller."),
        ],
    )
    def test_what_is_not_sent(self, picture: bytes, words: str) -> None:
        """The error says why, and the text goes back to the page."""
        page = page_with_values()
        page.do("send", picture, text="What is this?")
        page.wait(lambda: page.error)
        assert words in page.error
        assert page.shown["error"]["unsent"] == "What is this?"
        assert page.controller.conversation.turns == ()


class TestModels:
    """The choice of a model."""

    def test_chosen_model_answers_the_next_messages(self) -> None:
        """The provider's own model is shown first."""
        provider = GatedProvider("yes")
        page = PanelPage(ConversationManager(provider).new_conversation())
        page.wait(lambda: page.shown.get("model") == "gated-1")
        page.do("model", name="gated-2")
        page.wait(lambda: page.shown["model"] == "gated-2")
        provider.let(2)
        page.say("Hello")
        assert provider.requests[0].model == "gated-2"

    def test_list_is_the_providers(self, chat_server: ChatServer) -> None:
        """It is asked for when the selector is opened, and once."""
        chat_server.models = [{"id": "gpt-5.4"}, {"id": "gpt-4o-mini"}]
        provider = OpenAIProvider("gpt-4o-mini", api_key="k", base_url=chat_server.url)
        page = PanelPage(ConversationManager(provider).new_conversation())
        page.do("models")
        page.wait(lambda: page.shown.get("models") == ["gpt-4o-mini", "gpt-5.4"])

    def test_server_that_does_not_answer_is_a_tooltip(self) -> None:
        """The panel goes on with the model it has, and asks again later."""
        provider = OpenAIProvider("gpt-4o-mini", api_key="k", base_url="http://127.0.0.1:9", max_retries=0)
        page = PanelPage(ConversationManager(provider).new_conversation())
        page.do("models")
        page.wait(lambda: "127.0.0.1:9" in page.shown.get("models_note", ""))
        assert (page.shown["models"], page.shown["status"], page.error) == ([], "", "")

    def test_server_without_a_list_is_a_tooltip(self, chat_server: ChatServer) -> None:
        """It says what to do; once the server lists models, they are offered."""
        provider = OpenAIProvider("gpt-4o-mini", api_key="k", base_url=chat_server.url)
        page = PanelPage(ConversationManager(provider).new_conversation())
        page.do("models")
        page.wait(lambda: "does not list its models" in page.shown.get("models_note", ""))
        chat_server.models = []
        page.do("models")
        page.wait(lambda: page.shown["models_note"] == "The server lists no models.")
        chat_server.models = [{"id": "gpt-5.4"}]
        page.do("models")
        page.wait(lambda: (page.shown["models"], page.shown["models_note"]) == (["gpt-5.4"], ""))

    def test_list_follows_the_provider(self, chat_server: ChatServer) -> None:
        """After ``%chat_setup`` it is the new server's, if a list was asked for before."""
        chat_server.models = [{"id": "gpt-5.4"}]
        conversation = ConversationManager(DemoProvider()).new_conversation(conversation_id="c")
        page = PanelPage(conversation)
        page.do("models")
        page.wait(lambda: page.shown.get("models") == ["demo"])
        provider = OpenAIProvider("gpt-4o-mini", api_key="k", base_url=chat_server.url)
        other = ConversationManager(provider, conversation.store).get_conversation("c")
        page.controller.follow(other, model=None, thinking="fold")
        page.wait(lambda: page.shown["models"] == ["gpt-5.4"])


def test_usage_at_a_glance() -> None:
    """Turns and cost, and how full the window is."""
    page = PanelPage(ConversationManager(DemoProvider()).new_conversation(max_tokens=400))
    page.say("My name is Alice")
    page.wait(lambda: page.shown["usage"].get("totals") == "1 turn · $0.00")
    percent = page.shown["usage"]["percent"]
    assert page.shown["usage"]["context"] == f"{percent} % of context"
    assert 5 < percent < 20


def test_title_of_a_notebooks_conversation_is_its_file() -> None:
    """A title that was given comes first; other ids are shown as they are."""
    assert title_of("nb:analysis:1c9353f9", {}) == "analysis.ipynb"
    assert title_of("nb:my: notes:1c9353f9-2", {}) == "my: notes.ipynb"
    assert title_of("nb:analysis:1c9353f9", {"title": "Sales"}) == "Sales"
    assert title_of("nb:analysis", {}) == "nb:analysis"
