"""The Python in an answer, without its shell commands, JSON, outputs and diffs."""

from __future__ import annotations

import ast

from promptkit_nb.rendering.markdown import fenced_blocks

_PYTHON = ("python", "py", "python3", "ipython", "ipython3", "jupyter-python")


def python_blocks(text: str) -> list[str]:
    r"""Return the fenced blocks of Python in a Markdown text, without their last line break.

    If no block is marked as Python, blocks without a language are returned if they consist of Python statements.

    >>> python_blocks("Try:\n```python\nprint(1)\n```\nIt prints:\n```\n1\n```\n```sh\nls\n```")
    ['print(1)']
    """
    blocks = fenced_blocks(text)
    marked = [code for language, code in blocks if language.strip("{}.").lower() in _PYTHON]
    return marked or [code for language, code in blocks if not language and _is_python(code)]


def _is_python(code: str) -> bool:
    """Return whether a text consists of Python statements, unlike JSON or the output of a program."""
    lines = [line for line in code.splitlines() if not line.startswith(("%", "!"))]  # of IPython
    try:
        statements = ast.parse("\n".join(lines)).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return any(not isinstance(each, ast.Expr) or _calls(each) for each in statements)


def _calls(statement: ast.Expr) -> bool:
    return any(isinstance(node, ast.Call) for node in ast.walk(statement))
