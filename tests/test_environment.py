"""``environment.yml`` and CONTRIBUTING list the same packages as ``pyproject.toml``."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
LINES = (ROOT / "environment.yml").read_text("utf-8").splitlines()

# Packages that have a different name on conda-forge.
CONDA_NAMES = {"redis": "redis-py", "types-Pygments": "types-pygments"}


def test_lists_the_requirements_of_the_package() -> None:
    """It has every requirement of the package and its extras, with the same versions, and no others."""
    extras = [text for each in PROJECT["optional-dependencies"].values() for text in each]
    required = [Requirement(text) for text in [*PROJECT["dependencies"], *extras]]
    wanted = [
        f"{CONDA_NAMES.get(each.name, each.name)}{each.specifier}" for each in required if each.name != PROJECT["name"]
    ]
    listed = [Requirement(line) for line in _packages("  - ") + _packages("      - ")]
    assert sorted(f"{each.name}{each.specifier}" for each in listed) == sorted(wanted)


def test_begins_with_the_required_python() -> None:
    """Python has the package's required version, and pip installs the rest."""
    assert [line.strip() for line in LINES if line.startswith("  - p")][:2] == [
        f"- python{PROJECT['requires-python']}",
        "- pip",
    ]


def test_ends_with_the_package_itself() -> None:
    """The last line installs this clone with all extras."""
    assert LINES[-1] == '      - -e ".[all,test]"'


def test_contributing_gives_the_reason_for_each_dependency() -> None:
    """Its table has a row for each package that users install, and no other."""
    table = (ROOT / "CONTRIBUTING.md").read_text("utf-8").partition("| package | why |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| ([\w, -]+?)(?: \(an extra\))? \|", table, re.MULTILINE)
    extras = PROJECT["optional-dependencies"]
    of_extras = [text for name in ("redis", "plots", "arrow", "excel") for text in extras[name]]
    required = [Requirement(text).name for text in [*PROJECT["dependencies"], *of_extras]]
    assert sorted(name for row in rows if row != "---" for name in row.split(", ")) == sorted(required)


def _packages(indent: str) -> list[str]:
    """Return the packages with this indent, without Python, pip, and this clone."""
    after = LINES[LINES.index("dependencies:") + 1 :]
    found = [line.removeprefix(indent) for line in after if line.startswith(indent)]
    others = ("python>", "pip", "-e ")
    return [text for text in found if not text.startswith(others)]
