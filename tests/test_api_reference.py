"""The API reference is built from the docstrings by one command of CONTRIBUTING, completely and without warnings."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from html import unescape
from pathlib import Path

import pytest

import promptkit_nb

ROOT = Path(__file__).parent.parent
COMMAND = re.compile(r"^\.venv/bin/(pdoc .*?)(?: *#.*)?$", re.MULTILINE)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reference, built into a temporary directory with the command in CONTRIBUTING, without warnings."""
    command = COMMAND.findall((ROOT / "CONTRIBUTING.md").read_text("utf-8"))
    assert len(command) == 1
    directory = tmp_path_factory.mktemp("api")
    arguments = shlex.split(command[0].replace(" build/api ", f" {directory} "))
    run = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True, check=True, timeout=120
    )
    assert run.stdout + run.stderr == ""
    return directory


@pytest.fixture(scope="session")
def page(built: Path) -> str:
    """The page of the package."""
    return (built / "promptkit_nb.html").read_text("utf-8")


@pytest.mark.parametrize("name", promptkit_nb.__all__)
def test_every_public_name_has_a_section(page: str, name: str) -> None:
    """Each has a section, although the package imports it lazily."""
    assert f'<section id="{name}">' in page


def test_examples_are_shown_as_code(page: str) -> None:
    """The example of a docstring is on the page."""
    assert "&gt;&gt;&gt; </span>" in page
    assert "manager.get_conversation(" in re.sub(r"<[^>]+>", "", unescape(page))


@pytest.mark.parametrize("view", ["conversations_df", "turns_df", "messages_df", "search", "usage_df"])
def test_tables_of_columns_keep_their_lines(page: str, view: str) -> None:
    """A table in a docstring keeps its lines instead of becoming one paragraph."""
    section = page.partition(f'<section id="{view}">')[2].partition("</section>")[0]
    table = re.findall(r"<code>(.*?)</code>", section, re.DOTALL)
    assert [text.split()[0] for text in table if "Int64" in text] == [
        "turns" if view == "usage_df" else "conversation_id"
    ]


@pytest.mark.parametrize("module", ["testing", "providers/base"])
def test_interfaces_for_extensions_have_pages(built: Path, module: str) -> None:
    """The checks for stores and the protocol of providers have pages of their own."""
    assert (built / "promptkit_nb" / f"{module}.html").is_file()
