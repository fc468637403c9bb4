"""Registers ``df.promptkit`` once a notebook imports pandas, so that loading the extension need not import it."""

from __future__ import annotations

import sys
from importlib.abc import Loader, MetaPathFinder
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType


def register_with_pandas() -> None:
    """Register ``df.promptkit``: now if pandas is imported, else when it will be."""
    if "pandas" in sys.modules:
        _register()
    elif not any(isinstance(each, _PandasFinder) for each in sys.meta_path):
        sys.meta_path.insert(0, _PandasFinder())


def _register() -> None:
    from promptkit_nb import frames  # noqa: F401, PLC0415 - it imports pandas


class _PandasFinder(MetaPathFinder):
    """Finds pandas with a loader that registers the accessor after the import, and then removes this finder."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec that the other finders find, for pandas only."""
        if fullname != "pandas":
            return None
        others = (each for each in [*sys.meta_path] if each is not self and hasattr(each, "find_spec"))
        found = (each.find_spec(fullname, path, target) for each in others)
        spec = next((each for each in found if each is not None), None)
        if spec is not None and spec.loader is not None:
            spec.loader = _PandasLoader(spec.loader, self)
        return spec


class _PandasLoader(Loader):
    """Loads pandas with its own loader, then registers the accessor."""

    def __init__(self, loader: Loader, finder: _PandasFinder) -> None:
        """Wrap the loader that the other finders of ``finder`` have found."""
        self._loader = loader
        self._finder = finder

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Return what the loader makes."""
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Import pandas as usual, then register."""
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        sys.meta_path[:] = [each for each in sys.meta_path if each is not self._finder]
        _register()
