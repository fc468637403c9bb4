"""Validation of a pack of 5 MB against one of 0.5 MB: about ten times the time.

Measured for packs without errors and for packs with errors in every prompt, whose findings all need positions.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from promptkit_nb import validate_pack
from ratio import Ratio, medians_ms

PROMPTS = 420  # half a megabyte
ROUNDS = 3


def measure() -> list[Ratio]:
    """Return the ratios for valid and for invalid packs."""
    with tempfile.TemporaryDirectory() as directory:
        return [
            _ratio("validate_pack, 5 MB / 0.5 MB, no findings", Path(directory), wrong=False),
            _ratio("validate_pack, 5 MB / 0.5 MB, wrong throughout", Path(directory), wrong=True),
        ]


def _ratio(name: str, directory: Path, *, wrong: bool) -> Ratio:
    small, large = directory / "small.pack.json", directory / "large.pack.json"
    small.write_text(json.dumps(_pack(PROMPTS, wrong=wrong), indent=1), encoding="utf-8")
    large.write_text(json.dumps(_pack(10 * PROMPTS, wrong=wrong), indent=1), encoding="utf-8")
    small_ms, large_ms = medians_ms(ROUNDS, lambda: validate_pack(small), lambda: validate_pack(large))
    return Ratio(name, large_ms, small_ms, 12)


def _pack(prompts: int, *, wrong: bool) -> dict[str, object]:
    typo = "x" if wrong else ""
    states = {
        f"state-{number}": {"prompt_task": f"prompt-{number}", "on_event": {"Next": f"state-{number + 1}"}}
        for number in range(prompts - 1)
    }
    tool = {"description": "Does it.", "parameters": {"type": "object", "properties": {"a": {"type": "string"}}}}
    return {
        "id": "large",
        "name": "Large",
        "version": "1.0.0",
        "template_engine": {"version": "v1", "syntax": "{{variable}}"},
        "fragments": {f"fragment_{number}": "Be kind. " * 5 for number in range(prompts)},
        "prompts": {f"prompt-{number}": _prompt(number, typo) for number in range(prompts)},
        "tools": {f"tool_{number}": {"name": f"tool_{number}", **tool} for number in range(prompts)},
        "skills": [{f"path{typo}": "skills"} for _ in range(prompts)],
        "workflow": {
            "version": 1,
            "entry": "state-0",
            "states": {**states, f"state-{prompts - 1}": {"prompt_task": "prompt-0", "terminal": True}},
        },
    }


def _prompt(number: int, typo: str) -> dict[str, object]:
    return {
        "id": f"prompt-{number}",
        "name": "Prompt",
        "version": "1.0.0",
        "system_template": f"You help {{{{name}}}} with {{{{topic}}}}. {{{{fragment_{number}}}}}" + "Be brief. " * 20,
        "variables": [
            {"name": "name", "type": "string", "required": True},
            {"name": f"topic{typo}", "type": "string", "required": False, "default": "all"},
        ],
        "tools": [f"tool_{number}{typo}"],
        "parameters": {f"temperature{typo}": 0.2},
        "validators": [{"type": f"max_length{typo}", "enabled": True, "params": {"max": 900}}],
    }
