"""Packs and prompts as HTML for a notebook."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from promptkit_nb.text.plain_text import counted
from promptkit_nb.text.receipts import MATH_OFF

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from promptkit_nb.packs.pack import Pack
    from promptkit_nb.packs.prompt import Prompt
    from promptkit_nb.packs.variables import Variable

_GREY = "color:var(--jp-ui-font-color2,#777)"
_LEFT = 'style="text-align:left;vertical-align:top"'
_TEXT = (
    "white-space:pre-wrap;overflow-wrap:anywhere;margin:.4em 0;padding:.5em .7em;border-radius:4px;max-height:24em;"
    "overflow:auto;background:var(--jp-layout-color2,rgba(127,127,127,.12));color:var(--jp-content-font-color1,inherit)"
)
_SHOWN_WARNINGS = 20
_SHOWN_NAMES = 50


def pack_html(pack: Pack) -> str:
    """Return the pack as HTML with collapsible prompts; a single prompt is open."""
    sections: list[tuple[str, Collection[object]]] = [
        ("fragments", pack.fragments),
        ("tools", pack.tools),
        ("evals", [str(each.get("id")) for each in pack.evals]),
        ("workflow states", (pack.workflow or {}).get("states", {})),
        ("agents", (pack.agents or {}).get("members", {})),
        ("compositions", pack.compositions),
    ]
    facts = "".join(_fact(label, _listed(names)) for label, names in sections if names)
    opened = " open" if len(pack.prompts) == 1 else ""
    prompts = "".join(
        f"<details{opened}><summary><strong>{escape(name)}</strong> "
        f'<span style="{_GREY}">{escape(prompt.description)}</span></summary>'
        f'<div style="margin-left:1.2em">{_prompt_body(prompt)}</div></details>'
        for name, prompt in list(pack.prompts.items())[:_SHOWN_NAMES]
    )
    more = len(pack.prompts) - _SHOWN_NAMES
    prompts += f"<div>… and {more:,} more in pack.prompts</div>" if more > 0 else ""
    title = (
        f'<strong>{escape(pack.name)}</strong> <span style="{_GREY}">{escape(pack.id)} {escape(pack.version)}</span>'
    )
    described = f"<div>{escape(pack.description)}</div>" if pack.description else ""
    return f"<div {MATH_OFF}><div>{title}</div>{described}{facts}{_warnings_html(pack.warnings)}{prompts}</div>"


def prompt_html(prompt: Prompt) -> str:
    """Return the prompt as HTML: a table of its variables, request settings and the system prompt."""
    described = f' <span style="{_GREY}">{escape(prompt.description)}</span>' if prompt.description else ""
    return f"<div {MATH_OFF}><div><strong>{escape(prompt.name)}</strong>{described}</div>{_prompt_body(prompt)}</div>"


def shown_variable(variable: Variable) -> str:
    """Return a short description of a variable as plain text.

    >>> from promptkit_nb.packs.variables import Variable
    >>> shown_variable(Variable("topic", required=True)), shown_variable(Variable("tone", default="warm"))
    ('topic (required)', "tone='warm'")
    """
    if variable.default is not None:
        return f"{variable.name}={variable.default!r:.40}"
    return f"{variable.name} (required)" if variable.required else variable.name


def _prompt_body(prompt: Prompt) -> str:
    facts = [
        ("parameters", _pairs(prompt.parameters)),
        ("tools", ", ".join(prompt.tools)),
        ("tool policy", _pairs(prompt.tool_policy)),
        ("fragments", ", ".join(prompt.fragments)),
        ("overrides for", ", ".join(prompt.model_overrides)),
    ]
    lines = "".join(_fact(label, text) for label, text in facts if text)
    return f'{_variables_table(prompt.variables)}{lines}<pre style="{_TEXT}">{escape(prompt.system_template)}</pre>'


def _variables_table(variables: Iterable[Variable]) -> str:
    rows = "".join(
        f"<tr><td {_LEFT}><code>{escape(variable.name)}</code></td><td {_LEFT}>{escape(variable.type or 'any')}</td>"
        f"<td {_LEFT}>{escape(_default_text(variable))}</td><td {_LEFT}>{escape(_rules_text(variable))}</td></tr>"
        for variable in variables
    )
    if not rows:
        return ""
    names = ("variable", "type", "default", "")
    heading = "".join(f"<th {_LEFT}>{name}</th>" for name in names)
    return f"<table><thead><tr>{heading}</tr></thead><tbody>{rows}</tbody></table>"


def _default_text(variable: Variable) -> str:
    if variable.default is None:
        return "required" if variable.required else "—"
    return f"{variable.default!r:.80}"


def _rules_text(variable: Variable) -> str:
    rules = _pairs(variable.validation)
    return " · ".join(text for text in (variable.description, rules) if text)


def _pairs(values: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items() if value is not None)


def _listed(names: Collection[object]) -> str:
    more = len(names) - _SHOWN_NAMES
    shown = ", ".join(map(str, list(names)[:_SHOWN_NAMES]))
    return f"{shown} … and {more:,} more" if more > 0 else shown


def _fact(label: str, text: str) -> str:
    return f'<div><span style="{_GREY}">{label}:</span> {escape(text)}</div>'


def _warnings_html(warnings: tuple[str, ...]) -> str:
    if not warnings:
        return ""
    more = len(warnings) - _SHOWN_WARNINGS
    lines = [*warnings[:_SHOWN_WARNINGS], *([f"… and {more} more in pack.warnings"] if more > 0 else [])]
    listed = "".join(f"<div>⚠ {escape(line)}</div>" for line in lines)
    return f"<details><summary>⚠ {counted(len(warnings), 'warning')}</summary>{listed}</details>"
