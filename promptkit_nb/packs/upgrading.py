"""Writing any pack that could be loaded as one that strict loading accepts, without losing what it says.

What the format has no place for, or refuses, goes to ``metadata.x_extras``, each value under the JSON pointer at which
it stood. What the format asks for and the pack lacks is made up from its names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from promptkit_nb.json_values import json_copy
from promptkit_nb.packs.names import EXTRAS, free_name, slug_of
from promptkit_nb.packs.schema import keys_of, pointer_to
from promptkit_nb.packs.validation import errors_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from promptkit_nb.packs.findings import Finding

_ROUNDS = 12  # after so many, whole sections are moved, so that it ends
_ENGINE = {"version": "v1", "syntax": "{{variable}}"}


def upgraded(data: Mapping[str, Any], extras: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of the pack that has no errors, with the extras in its metadata.

    >>> pack = upgraded({"id": "a", "name": "A", "version": "1.0.0", "prompts": {"chat": {"id": "chat", "name": "Chat",
    ...                  "version": "1.0.0", "system_template": "Hi", "parameters": {"temperature": 7}}}}, {})
    >>> pack["metadata"]
    {'x_extras': {'/prompts/chat/parameters/temperature': 7}}
    """
    pack: dict[str, Any] = json_copy(data, "pack")
    kept = dict(extras)
    for tried in range(2 * _ROUNDS):
        errors = [finding for finding in errors_of(pack) if finding.severity == "error"]
        if not errors:
            break
        _repair(pack, errors, kept, whole_sections=tried >= _ROUNDS)
    if kept:
        metadata = pack.setdefault("metadata", {})
        former = metadata.get(EXTRAS, {})
        metadata[EXTRAS] = kept if isinstance(former, dict) else {**kept, f"/metadata/{EXTRAS}": former}
    return pack


def _repair(pack: dict[str, Any], errors: Iterable[Finding], kept: dict[str, Any], *, whole_sections: bool) -> None:
    """Make up what is missing, and move out the rest, from the end, so that the items before keep their places."""
    places: set[tuple[str, ...]] = set()
    for finding in errors:
        keys = tuple(keys_of(finding.pointer))
        if finding.code == "PP101" and _make_up(pack, keys, finding.expected):
            continue
        places.add(_section_of(keys) if whole_sections else keys)
    for keys in sorted(places, key=_order, reverse=True):
        _move_out(pack, keys, kept)


def _make_up(pack: dict[str, Any], keys: tuple[str, ...], missing: str) -> bool:
    """Give the pack, its template engine or a prompt what it lacks; return whether that was it."""
    is_prompt = len(keys) == 2 and keys[0] == "prompts"  # noqa: PLR2004 - and its name
    if keys and not is_prompt and keys != ("template_engine",):
        return False
    holder: dict[str, Any] = pack
    for key in keys:
        holder = holder[key]
    name = keys[1] if is_prompt else str(pack.get("name") or "pack")
    slug = slug_of(name, also="_" if is_prompt else "")
    made_up = {"id": slug, "name": name[:200] or "prompt", "version": "1.0.0", "template_engine": dict(_ENGINE)}
    holder[missing] = (_ENGINE if keys == ("template_engine",) else made_up)[missing]
    return True


def _section_of(keys: tuple[str, ...]) -> tuple[str, ...]:
    return keys[:3] if keys[0] == "prompts" else keys[:1]


def _order(keys: tuple[str, ...]) -> tuple[tuple[bool, int, str], ...]:
    """Sort indices as numbers."""
    return tuple((key.isdecimal(), int(key) if key.isdecimal() else 0, key) for key in keys)


def _move_out(pack: dict[str, Any], keys: tuple[str, ...], kept: dict[str, Any]) -> None:
    holder: Any = pack
    for key in keys[:-1]:
        holder = holder[int(key)] if isinstance(holder, list) else holder[key]
    value = holder.pop(int(keys[-1]) if isinstance(holder, list) else keys[-1])
    kept[free_name(pointer_to("", *keys), kept)] = value
