"""A transcript as a web page that stands alone: it fetches and runs nothing, and is light or dark as the reader is."""

from __future__ import annotations

import re
from html import escape
from typing import TYPE_CHECKING

from promptkit_nb.rendering.markdown import to_html
from promptkit_nb.rendering.note_html import note_html
from promptkit_nb.rendering.plain_text import printable

if TYPE_CHECKING:
    from promptkit_nb.exports.transcript_sections import Outline, Said, Section

# The second wall: should anything get past the escaping, the browser neither runs nor fetches it.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"

_PICTURE = re.compile(r"data:image/(?:png|jpeg|gif|webp);base64,[A-Za-z0-9+/=]+")

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #57606a; --paper: #fff; --card: #f5f7f9; --line: #d4dae0;
  --link: #0550ae; --jp-ui-font-color2: var(--soft); }
@media (prefers-color-scheme: dark) { :root { --ink: #e3e7eb; --soft: #9aa4ae; --paper: #14171a; --card: #1e2328;
  --line: #363d44; --link: #79b8ff; } }
body { max-width: 50rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.55 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 1rem; }
h2 { font-size: 0.9rem; font-weight: 600; color: var(--soft); margin: 0 0 0.5rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0.15rem 1rem; margin: 0 0 2rem; }
dt { color: var(--soft); }
dd { margin: 0; }
section { border-top: 1px solid var(--line); padding: 1rem 0 1.2rem; }
.said { margin: 0 0 0.8rem; }
.user { background: var(--card); border-radius: 0.5rem; padding: 0.6rem 0.9rem 0.1rem; }
.role { font-size: 0.8rem; font-weight: 600; color: var(--soft); }
.said :is(h1, h2, h3, h4, h5, h6) { font-size: 1.1rem; color: inherit; margin: 0.6rem 0 0.3rem; }
.said p { margin: 0.3rem 0 0.8rem; }
pre { white-space: pre-wrap; background: var(--card); border-radius: 0.3rem; padding: 0.5rem; margin: 0.3rem 0 0.8rem; }
pre, code { font: 0.875rem/1.5 ui-monospace, monospace; }
a { color: var(--link); }
table { border-collapse: collapse; margin: 0.3rem 0 0.8rem; }
th, td { border: 1px solid var(--line); padding: 0.2rem 0.6rem; }
blockquote { border-left: 3px solid var(--line); margin: 0.3rem 0 0.8rem; padding: 0 1rem; }
math { font-size: 1.2em; }
img { max-width: 100%; }
"""


def transcript_page(outline: Outline) -> str:
    """Return the page. Markdown is shown by ``to_html``, everything else as the text that it is.

    Of images those in the text itself (``data:``; png, jpeg, gif, webp) are shown, others by their address.
    """
    facts = "".join(f"<dt>{escape(label)}</dt><dd>{escape(fact)}</dd>\n" for label, fact in outline.facts)
    title = escape(outline.title)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="referrer" content="no-referrer">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        f'<h1 dir="auto">{title}</h1>\n<dl>\n{facts}</dl>\n'
        f"{''.join(map(_section_html, outline.sections))}</main>\n</body>\n</html>\n"
    )


def _section_html(section: Section) -> str:
    said = "".join(map(_said_html, section.said))
    notes = "".join(f"{note_html(note)}\n" for note in section.notes)
    return f"<section>\n<h2>{escape(section.heading)}</h2>\n{said}{notes}</section>\n"


def _said_html(said: Said) -> str:
    text = f"<pre>{escape(printable(said.text))}</pre>" if said.is_data else to_html(said.text)
    kind = "said user" if said.role == "user" else "said"
    images = "".join(map(_image_html, said.images))
    return f'<div class="{kind}"><div class="role">{escape(said.role)}</div>{text}{images}</div>\n'


def _image_html(url: str) -> str:
    if _PICTURE.fullmatch(url):
        return f'<p><img src="{url}" alt="image"></p>'
    return f"<p>{escape(printable(url))}</p>"
