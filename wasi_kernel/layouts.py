"""Layouts: where in a folder a CPython build for WASI has its module and its library.

Known are those of CPython's own builds and of what is published of them:

- `python.wasm` and `lib/python3.N/` (releases of brettcannon/cpython-wasi-build; an unpacked
  installation, `bin/python3.N.wasm` and `lib/python3.N/`);
- `python.wasm` and `usr/local/lib/python3N.zip` (CPython's `make wasm_stdlib`, of 3.11 to 3.13);
- `bin/python-3.N.M.wasm` and `usr/local/lib/...` (VMware's webassembly-language-runtimes);
- a module alone, which has its library inside (wasi-vfs);

each also inside one folder of its own, as archives often are. Looks at names only; never imports
wasmtime or anything of Jupyter.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

_WASM = re.compile(r"python([-.0-9a-z]*)\.wasm")
_LIBRARIES = ("lib", "usr/local/lib", "usr/lib")
_PLACES = ("", "bin", "usr/local/bin", "usr/bin", "dist", "package/dist")
"""Where modules lie, below the top of a build; the last two are those of npm packages."""


class Layout(NamedTuple):
    """One build, found.

    Attributes:
        wasm: Its module.
        library: The folder that has `python3.N/` or `python3N.zip`; None: it is in the module.
    """

    wasm: Path
    library: Path | None


def look(folder: Path) -> Layout | str:
    """The build in a folder, or why there is none: a few words."""
    found = _modules(folder)
    if not found:
        tops = [p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")]
        if len(tops) != 1 or not (found := _modules(tops[0])):
            return "the folder has no python.wasm"
        folder = tops[0]
    if len(found) > 1:
        names = ", ".join(sorted(str(p.relative_to(folder)) for p in found))
        return f"the folder has several modules ({names}); name one of them"
    (wasm,) = found
    return Layout(wasm, _library(folder) or beside(wasm))


def beside(wasm: Path) -> Path | None:
    """The library that lies beside a module, or beside the folder `bin` that it is in."""
    found = _library(wasm.parent)
    return _library(wasm.parent.parent) if found is None and wasm.parent.name == "bin" else found


def is_library(folder: Path) -> bool:
    """Is this what a guest can have as its /usr/local/lib?"""
    return any(folder.glob("python3.*/os.py")) or any(folder.glob("python3[0-9]*.zip"))


def _modules(top: Path) -> list[Path]:
    for place in _PLACES:
        folder = top / place
        if (plain := folder / "python.wasm").is_file():
            return [plain]
        found = [p for p in folder.glob("python*.wasm") if _WASM.fullmatch(p.name)]
        if found := [p for p in found if p.is_file()]:
            return found
    return []


def _library(top: Path) -> Path | None:
    return next((top / name for name in _LIBRARIES if is_library(top / name)), None)
