"""Links in the documents: files and headings exist, and web addresses are complete."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

import nbformat
import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
TUTORIALS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LINK = re.compile(r"\]\(([^()\s]*(?:\([^()\s]*\)[^()\s]*)*)\)")
ADDRESS = re.compile(r"https?://[^\s<>()`'\"|]*")


def prose_of(document: Path) -> str:
    """Return the text of a document without its code blocks."""
    text = document.read_text("utf-8")
    if document.suffix == ".ipynb":
        notebook = nbformat.reads(text, as_version=4)  # type: ignore[no-untyped-call]  # nbformat's has no types
        text = "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors_of(document: Path) -> set[str]:
    """Return the anchors that GitHub, or Jupyter in a notebook, gives to the headings."""
    titles = re.findall(r"^#+ (.*)$", prose_of(document), re.MULTILINE)
    if document.suffix == ".ipynb":
        return {title.replace(" ", "-") for title in titles}
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def has_target(link: str, document: Path) -> bool:
    """Return whether a link within the repository has an existing target."""
    path, _, anchor = link.partition("#")
    target = (document.parent / path).resolve() if path else document
    within = target.is_relative_to(ROOT.resolve()) and target.exists()
    return within and (not anchor or anchor in anchors_of(target))


@pytest.mark.parametrize("document", [*PAGES, *TUTORIALS], ids=lambda path: path.stem)
def test_internal_links_have_targets(document: Path) -> None:
    """A link to a file, a picture or a heading has an existing target, in all documents and tutorials."""
    links = [link for link in LINK.findall(prose_of(document)) if "://" not in link]
    assert [link for link in links if not has_target(link, document)] == []


@pytest.mark.parametrize("document", [*PAGES, *TUTORIALS], ids=lambda path: path.stem)
def test_web_links_are_complete(document: Path) -> None:
    """A web link has a host with a domain, uses TLS, and contains nothing that a browser would cut off."""
    links = [urlsplit(link) for link in LINK.findall(prose_of(document)) if "://" in link]
    assert [link.geturl() for link in links if link.scheme != "https" or "." not in (link.hostname or "")] == []


@pytest.mark.parametrize("document", [*PAGES, *TUTORIALS], ids=lambda path: path.stem)
def test_addresses_in_the_text_can_be_parsed(document: Path) -> None:
    """An address has a host and, optionally, a numeric port."""
    addresses = ADDRESS.findall(prose_of(document))
    assert [address for address in addresses if not re.fullmatch(r"https?://[\w.-]+(:\d+)?(/.*)?", address)] == []


def test_the_patterns_find_links() -> None:
    """The patterns find the links that a reader would click."""
    readme = LINK.findall(prose_of(ROOT / "README.md"))
    assert {"CONTRIBUTING.md", "notebooks/01_first_conversation.ipynb", "https://promptpack.org"} <= set(readme)
    assert not has_target("notebooks/00_no_such.ipynb", ROOT / "README.md")
    assert not has_target("CONTRIBUTING.md#no-such-heading", ROOT / "README.md")
    assert has_target("CONTRIBUTING.md#tutorials", ROOT / "README.md")
