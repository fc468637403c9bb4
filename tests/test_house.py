"""Rules that tools can check: style, types, and the direction of imports."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

CHECKS = {
    "ruff finds nothing": ["-m", "ruff", "check", "--no-cache", "."],
    "ruff would format nothing": ["-m", "ruff", "format", "--no-cache", "--check", "."],
    "mypy --strict finds nothing": ["-m", "mypy"],
    "imports go one way": ["-c", "from importlinter.cli import lint_imports_command as run; run(['--no-cache'])"],
}


@pytest.mark.parametrize("check", CHECKS)
def test_house_rule_holds(check: str) -> None:
    """Each tool, run on the whole tree, reports nothing."""
    run = subprocess.run([sys.executable, *CHECKS[check]], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def test_contributing_lists_the_layers() -> None:
    """Its table names each module and package, in the order of the layers that imports follow."""
    table = (ROOT / "CONTRIBUTING.md").read_text("utf-8").partition("| where | what |")[2].partition("\n\n")[0]
    listed = [
        name.rstrip("/") for row in table.splitlines()[2:] for name in re.findall(r"`([\w/]+)`", row.split("|")[1])
    ]
    (contract, *_) = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    layer_of = {name: -index for index, layer in enumerate(contract["layers"]) for name in layer.split(" | ")}
    assert sorted(listed) == sorted(layer_of)
    assert [layer_of[name] for name in listed] == sorted(layer_of.values())


def test_every_test_states_a_behavior() -> None:
    """Each test function has a docstring."""
    silent = [
        f"{path.name}:{node.lineno} {node.name}"
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_") and not ast.get_docstring(node)
    ]
    assert silent == []
