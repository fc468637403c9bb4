"""What a panel's message takes from the notebook: the values of ``{{ name }}``, and functions as tools."""

from __future__ import annotations

from typing import TYPE_CHECKING

from promptkit_nb.errors import InvalidArgumentError
from promptkit_nb.text.cell_text import expressions, fill

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from promptkit_nb.text.cell_text import CellText
    from promptkit_nb.tools.tool import Tool


class NotebookValues:
    """Fills in a panel's messages from a notebook's namespace."""

    def __init__(self, namespace: Mapping[str, object], tools: str = "") -> None:
        """Use this namespace, as it is whenever a message is sent; ``tools`` are names of functions, with commas.

        Raises ``InvalidArgumentError`` for a name that is not one of a function.
        """
        self._namespace = namespace
        self._tools = tools
        self.tools()

    def fill(self, text: str) -> CellText:
        """Return the message with its values; raise ``InvalidArgumentError`` for an unknown name."""
        return fill(text, self._namespace)

    def tools(self) -> Sequence[Callable[..., object] | Tool] | None:
        """Return the functions that the model may call, ``None`` for those registered with the manager."""
        if not self._tools.strip():
            return None
        from promptkit_nb.tools.toolbox import named  # noqa: PLC0415 - pydantic, imported when used

        return named(self._tools, self._namespace)

    def names(self, text: str) -> list[dict[str, object]]:
        """Return ``{"name", "kind", "known"}`` for each expression; ``kind`` describes its value in a few words."""
        found: list[dict[str, object]] = []
        for source in expressions(text):
            try:
                value = fill(f"{{{{ {source} }}}}", self._namespace)
            except InvalidArgumentError:
                found.append({"name": source, "kind": "unknown", "known": False})
            else:
                kind = "image" if value.parts else _kind(self._namespace.get(source))
                found.append({"name": source, "kind": kind, "known": True})
        return found


def _kind(value: object) -> str:
    """Return the class of a value and its shape, as in ``DataFrame 3 x 2``."""
    if value is None:
        return ""
    shape = getattr(value, "shape", None)
    sizes = " \N{MULTIPLICATION SIGN} ".join(map(str, shape)) if isinstance(shape, tuple) else ""
    return f"{type(value).__name__} {sizes}".strip()
