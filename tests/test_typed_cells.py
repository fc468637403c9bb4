"""Typed answers in chat cells, and ``%chat_rows``, in a shell with the demo provider."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from IPython.core.interactiveshell import InteractiveShell

from promptkit_nb import ConversationManager, DemoProvider, DiskStore, turns_df
from promptkit_nb.rendering.typed_values import stored_table, value_json, value_table
from shells import Notebook, new_shell

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ASK = """
import pandas as pd
df = pd.DataFrame({"text": ["a bug", "an idea", "a bug"]}, index=["x", "y", "z"])
out = df.promptkit.ask("Classify: {{ text }}", into="label", name="labels", schema=["bug", "idea"])
"""


@pytest.fixture
def notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Notebook]:
    """A notebook with the demo provider and a few schemas."""
    for name in ("PROMPTKIT_PROVIDER", "PROMPTKIT_MODEL", "JPY_SESSION_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PROMPTKIT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.chdir(tmp_path)
    opened = Notebook(new_shell())
    opened.run("%chat_setup --provider demo")
    opened.run("%chat_use talk")
    opened.run(
        "import pydantic\nlabels = ['bug', 'idea']\nclass Review(pydantic.BaseModel):\n  label: str\n  stars: int"
    )
    yield opened
    opened.shell.run_line_magic("unload_ext", "promptkit_nb")
    InteractiveShell.clear_instance()


class TestSchema:
    def test_the_value_is_in_the_variable(self, notebook: Notebook) -> None:
        """``--schema NAME --to VARIABLE``."""
        assert notebook.run("%%chat --schema labels --to answer\nIs this a bug?").error is None
        assert notebook.shell.user_ns["answer"].value == "bug"

    def test_it_is_shown_as_a_table(self, notebook: Notebook) -> None:
        """One row for each field, instead of JSON."""
        (bundle,) = notebook.run("%%chat --schema Review\nMy label is good <b>, 4 stars").bundles
        assert bundle["text/plain"].splitlines()[:2] == ["label  good <b>", "stars  4"]
        cells = re.findall("<td[^>]*>(.*?)</td>", bundle["text/html"])
        assert cells == ["label", "good &lt;b&gt;", "stars", "4"]
        assert "{" not in bundle["text/plain"]

    def test_a_built_in_type(self, notebook: Notebook) -> None:
        """By its name."""
        notebook.run("%chat --schema int --to answer It took 3 days.")
        assert notebook.shell.user_ns["answer"].value == 3

    def test_an_unknown_name(self, notebook: Notebook) -> None:
        """With a near match; nothing is sent."""
        result = notebook.run("%%chat --schema Reveiw\nHello")
        assert "--schema Reveiw: there is no type or list of labels of this name. Did you mean Review?" in str(
            result.error
        )

    def test_something_that_is_no_schema(self, notebook: Notebook) -> None:
        """The error says what is."""
        notebook.run("f = print")
        assert "cannot be an answer" in str(notebook.run("%%chat --schema f\nHello").error)

    def test_a_dry_run_sends_nothing(self, notebook: Notebook) -> None:
        """As without a schema."""
        assert notebook.run("%%chat --schema labels --dry-run\nHello").error is None
        with DiskStore() as store:
            assert [head.turn_count for head in store.list()] in ([], [0])


def test_a_response_is_a_table_in_html() -> None:
    """Elsewhere it is its text."""
    conv = ConversationManager(DemoProvider()).new_conversation()
    response = conv.send("A bug", schema=["bug", "idea"])
    assert ">bug</td>" in response._repr_html_()
    assert str(response) == '{"value": "bug"}'


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": None, "b": [1, {"c": 2}]}, 'a  none\nb  [1, {"c": 2}]'),
        ("one", "one"),
        (0.5, "0.5"),
        (["x", "y"], '["x", "y"]'),
        ({}, ""),
        ("a\x1b[31m", "a[31m"),
    ],
)
def test_values_as_tables(value: object, text: str) -> None:
    """Nested values are JSON, and control characters are left out."""
    assert value_table(value)[0] == text


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8) | st.decimals(0, 9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_the_stored_value_is_the_same_table(value: object) -> None:
    """Of any value."""
    assert stored_table(value_json(value)) == value_table(value)


@pytest.mark.parametrize("text", [None, "", "{", "[" * 100_000])
def test_what_is_not_stored_as_json_is_no_table(text: str | None) -> None:
    """Then the text of the answer is shown."""
    assert stored_table(text) is None


def test_history_and_exports_show_the_table(tmp_path: Path) -> None:
    """In HTML, where no markup in keys or values is active; Markdown has the JSON as code."""
    conv = ConversationManager(DemoProvider()).new_conversation()
    conv.send("A bug", schema={"<i>label</i>": str})
    page, markdown = (conv.export(tmp_path / f"chat.{suffix}").read_text("utf-8") for suffix in ("html", "md"))
    for html in (page, conv.history()._repr_html_()):
        assert "&lt;i&gt;label&lt;/i&gt;</td>" in html
        assert "<i>" not in html
        assert "{" not in html.partition("<tbody>")[2].partition("</table>")[0]
    assert '```text\n{"<i>label</i>": ' in markdown


class TestRows:
    def test_named_runs_are_listed(self, notebook: Notebook) -> None:
        """With their answers and cost; other conversations are not."""
        assert "no conversations" in repr(notebook.shell.run_line_magic("chat_rows", ""))
        notebook.run("%chat Hello")
        assert notebook.run(ASK).error is None
        listed = notebook.shell.run_line_magic("chat_rows", "")
        assert [(head.conversation_id, head.turn_count, head.total_cost) for head in listed] == [("rows:labels", 2, 0)]

    def test_deleting_one_deletes_its_answers(self, notebook: Notebook) -> None:
        """The same call asks again."""
        notebook.run(ASK)
        notebook.run("%chat_delete rows:labels")
        assert notebook.shell.run_line_magic("chat_rows", "") == []
        notebook.run(ASK)
        assert notebook.shell.user_ns["out"]["labels_replayed"].sum() == 0

    def test_turns_df_has_the_index_of_the_rows(self, notebook: Notebook) -> None:
        """Of the first row with each text; turns of chats have none."""
        notebook.run("%chat Hello")
        notebook.run(ASK)
        with DiskStore() as store:
            turns = turns_df(store, prefix="rows:")
            assert dict(zip(turns["row_index"], turns["text"], strict=True)) == {
                "x": '{"value": "bug"}',
                "y": '{"value": "idea"}',
            }
            assert turns_df(store, prefix="talk")["row_index"].isna().all()
