"""Plotly's figures: `figure.show()`, and a figure at the end of a cell, where plotly is installed.

plotly (its `plotly.io._renderers`, seen with 7.1) shows nothing in a notebook unless `nbformat` can
be imported, of which it only looks at the version; nbformat needs native code. And its default for
notebooks shows plotly.js once, for all figures, which no frame of an isolated output shares. So
when that module is imported it is told that the front end takes mime bundles, and gets a default
that shows each figure by itself.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import PathFinder
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

MODULE, BASE = "plotly.io._renderers", "plotly.io._base_renderers"
NBFORMAT = "5.0.0"
"""As new as any plotly asks for."""

RENDERER = "wasi"
"""Our renderer's name: HTML with all that it needs in it."""

AS_DATA = "plotly_mimetype"


class Finder:
    """Finds plotly's module as usual, and has it told once it is there."""

    def __init__(self, facts: Callable[[], dict[str, Any]]) -> None:
        self._facts = facts

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """What the usual finder gives, with a loader that comes back here."""
        spec = PathFinder.find_spec(name, path, target) if name == MODULE else None
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, self._facts)  # type: ignore[assignment]
        return spec


class _Loader:
    """A loader that does something more at its end."""

    def __init__(self, loader: Any, facts: Callable[[], dict[str, Any]]) -> None:
        self._loader, self._facts = loader, facts

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """As the loader does."""
        made: ModuleType | None = self._loader.create_module(spec)
        return made

    def exec_module(self, module: ModuleType) -> None:
        """As the loader does; then the rest."""
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        settle(self._facts())


def install(facts: Callable[[], dict[str, Any]]) -> None:
    """From now on plotly is told; `facts` gives what the host says of this session."""
    finder: Any = Finder(facts)
    sys.meta_path.insert(0, finder)


def settle(facts: dict[str, Any]) -> None:
    """Tells plotly, if it is imported, what this front end takes, and what a figure is to be."""
    module: Any = sys.modules.get(MODULE)
    if module is None:
        return
    try:
        if module.nbformat is None:
            module.nbformat = SimpleNamespace(__version__=NBFORMAT)
        base: Any = sys.modules[BASE]
        module.renderers[RENDERER] = base.HtmlRenderer()
        default = AS_DATA if facts.get("draws_plotly") else f"{AS_DATA}+{RENDERER}"
        module.renderers.default = os.environ.get("PLOTLY_RENDERER") or default
    except (
        AttributeError,
        KeyError,
        TypeError,
        ValueError,
    ):  # another plotly: it keeps its own ways
        return
