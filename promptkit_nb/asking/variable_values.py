"""The values of a conversation's variables, as a mapping that writes through to the store."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import replace
from typing import TYPE_CHECKING

from promptkit_nb.json_values import json_copy

if TYPE_CHECKING:
    from promptkit_nb.state import Settings

Change = Callable[[Mapping[str, object]], Mapping[str, object]]


class VariableValues(MutableMapping[str, object]):
    """The values of a prompt's variables, as the store holds them; every change is stored at once.

    ``settings`` reads the conversation's settings, ``change_settings`` writes them.
    """

    def __init__(
        self, settings: Callable[[], Settings], change_settings: Callable[[Callable[[Settings], Settings]], None]
    ) -> None:
        """Look at the variables of a conversation."""
        self._settings = settings
        self._change_settings = change_settings

    def __getitem__(self, name: str) -> object:
        """Return the value of one variable."""
        return self._values()[name]

    def __setitem__(self, name: str, value: object) -> None:
        """Set one variable: stored at once, effective at the next send."""
        self.update({name: value})

    def update(self, *changes: Mapping[str, object], **more: object) -> None:  # type: ignore[override]  # mappings only
        """Set several variables at once."""
        changed = json_copy({key: value for each in (*changes, more) for key, value in each.items()}, "variables")
        self._change(lambda values: {**values, **changed})

    def __delitem__(self, name: str) -> None:
        """Let a variable fall back to its default."""
        if name not in self._values():
            raise KeyError(name)
        self._change(lambda values: {key: value for key, value in values.items() if key != name})

    def __iter__(self) -> Iterator[str]:
        """Yield the names."""
        return iter(self._values())

    def __len__(self) -> int:
        """Return how many are set."""
        return len(self._values())

    def __repr__(self) -> str:
        """Show them as a dict."""
        return repr(dict(self._values()))

    def _values(self) -> Mapping[str, object]:
        return self._settings().variables

    def _change(self, change: Change) -> None:
        self._change_settings(lambda settings: replace(settings, variables=change(settings.variables)))
