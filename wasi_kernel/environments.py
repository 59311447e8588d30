"""Environments: the guest's site-packages beside what the runtime brings.

So far one: the agent's bundle, which is the agent itself with IPython and what it needs, copied
from this installation (they are pure Python; a guest needs no network for its first start) and
compiled to bytecode by the guest's own Python. Where what is installed here does not suit the
guest's Python, `prepare` has fetched what does (packages.py), and it is taken from there.

Never imports wasmtime or anything of Jupyter.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from wasi_kernel import plainfiles
from wasi_kernel.errors import AgentMissingError, InstallationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from importlib import metadata

    from wasi_kernel.caches import Cache

BUNDLE = "/usr/lib/wasi-kernel"
"""Guest path of the bundle."""

CONTENTS = "contents.json"
"""The bundle's list of its own files."""

FILE_BYTES = 1 << 28

ROOTS = ("ipython", "matplotlib-inline", "comm", "ipywidgets", "tqdm")

FETCHED = "packages"
"""The cache's folder in which `prepare` notes which set of packages suits a Python."""

_SET = re.compile(r"[0-9a-f]{32}")

HOST_ONLY = frozenset({
    "psutil", "pexpect", "ptyprocess", "prompt-toolkit", "wcwidth", "colorama",
    "jupyterlab-widgets", "widgetsnbextension",
})  # fmt: skip
"""Requirements that serve terminals, processes and browsers, which a guest has none of."""

GUEST_MARKERS = {
    "os_name": "posix",
    "sys_platform": "wasi",
    "platform_system": "wasi",
    "platform_machine": "wasm32",
    "implementation_name": "cpython",
    "platform_python_implementation": "CPython",
    "extra": "",
}

PACKAGE = Path(__file__).parent
AGENT = PACKAGE / "guest" / "wasi_agent"

SHARED = ("alternatives.py", "frames.py")
"""Modules of this package that the agent's has, too."""


def agent_files() -> dict[str, Path]:
    """{path in the agent's package: source file}, with those that both sides share."""
    found = {path.relative_to(AGENT).as_posix(): path for path in sorted(AGENT.rglob("*.py"))}
    return {**found, **{name: PACKAGE / name for name in SHARED}}


def closure(python: str, cache: Cache | None = None) -> dict[str, metadata.Distribution]:
    """The distributions that a guest with Python `python` ("3.15") needs, by name.

    Those that are installed here, if all of them suit that Python; else those of the set that was
    fetched for it, if the cache has one.

    Raises:
        AgentMissingError: Neither; says what of this installation does not suit.
    """
    found, reasons = _closure(python, None)
    if reasons and cache is not None:
        folder = fetched(cache.path, python)
        if folder is not None:
            found, more = _closure(python, folder)
            reasons = more and reasons
    if reasons:
        raise AgentMissingError(python, tuple(reasons))
    return found


def note_path(cache: Path, python: str) -> Path:
    """Where it is noted which set of packages suits the agent in a guest with that Python."""
    return cache / FETCHED / f"agent-{python}.json"


def fetched(cache: Path, python: str) -> Path | None:
    """The folder with that set, None if there is none."""
    try:
        name = json.loads(note_path(cache, python).read_bytes())["folder"]
        there = _SET.fullmatch(name) and (cache / FETCHED / name).is_dir()
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return cache / FETCHED / name if there else None


def _closure(
    python: str, folder: Path | None
) -> tuple[dict[str, metadata.Distribution], list[str]]:
    """(what is needed of what is installed in `folder`, or else here; what does not suit)."""
    from importlib import metadata

    from packaging.markers import default_environment
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    environment = {str(k): str(v) for k, v in default_environment().items()}
    environment |= GUEST_MARKERS
    environment["python_version"], environment["python_full_version"] = python, f"{python}.0"
    places = sys.path if folder is None else [str(folder)]
    found: dict[str, metadata.Distribution] = {}
    reasons: list[str] = []
    wanted = list(ROOTS)
    seen = set(HOST_ONLY)
    while wanted:
        name = wanted.pop()
        if name in seen:
            continue
        seen.add(name)
        dist = next(iter(metadata.distributions(name=name, path=places)), None)
        if dist is None:
            reasons.append(f"{name} is not installed")
            continue
        found[name] = dist
        supported = str(dist.metadata["Requires-Python"] or "")
        if not _supports(supported, python):
            reasons.append(f"{name} {dist.version} needs Python {supported}")
        for text in dist.requires or ():
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({**environment}):
                wanted.append(canonicalize_name(requirement.name))
    return found, reasons


def _supports(specifier: str, python: str) -> bool:
    """Does a Requires-Python allow some release of a Python?"""
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    try:
        return SpecifierSet(specifier).contains(f"{python}.99")
    except InvalidSpecifier:  # as installers have it: what cannot be read forbids nothing
        return True


def _importable(dist: metadata.Distribution) -> Iterator[tuple[Path, str]]:
    """(file, path below site-packages) of what a guest may import or read of a distribution."""
    for entry in dist.files or ():
        parts = entry.parts
        if ".." in parts or "__pycache__" in parts or "tests" in parts or entry.suffix == ".pth":
            continue
        if entry.suffix in {".so", ".pyd", ".dylib"}:
            continue
        path = Path(str(dist.locate_file(entry)))
        if path.is_file():
            yield path, str(entry)


def bundle(
    cache: Cache,
    python: str,
    dists: dict[str, metadata.Distribution],
    compile_all: Callable[[Path], None],
) -> Path:
    """The folder to grant as `BUNDLE`, made if the cache has none.

    Args:
        cache: Where it is kept.
        python: The guest's Python, "3.15".
        dists: What to put into it: the `closure`.
        compile_all: Compiles the .py files of a folder to bytecode, in place, in the guest.

    Raises:
        InstallationError: A distribution has no list of its files.
    """
    import shutil

    h = hashlib.sha256(f"{python}\n".encode())
    for name in sorted(dists):
        h.update(f"{name}=={dists[name].version}\n".encode())
    for name, path in agent_files().items():
        h.update(name.encode() + b"\0" + path.read_bytes())
    folder = cache.folder("bundles") / h.hexdigest()[:32]
    if cache.has_folder(folder) and is_whole(folder):
        return folder

    def fill(new: Path) -> None:
        for name, dist in dists.items():
            copied = 0
            for source, target in _importable(dist):
                (new / target).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, new / target)
                copied += 1
            if not copied:
                raise InstallationError(f"{name} has no list of its files; reinstall it with pip")
        for name, path in agent_files().items():
            (new / "wasi_agent" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, new / "wasi_agent" / name)
        compile_all(new)
        (new / CONTENTS).write_text(json.dumps(_contents(new)))

    cache.make_folder(folder, fill)
    return folder


def is_whole(folder: Path) -> bool:
    """Is a bundle what it was when it was made? Reads all of it."""
    try:
        said = json.loads(plainfiles.read(folder / CONTENTS))
        return bool(said == _contents(folder))
    except (OSError, ValueError, RecursionError):
        return False


def _contents(folder: Path) -> dict[str, str]:
    """{name: SHA-256} of all files below `folder` but the list itself."""
    found = {}
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if name != CONTENTS and not path.is_dir():
            found[name] = hashlib.sha256(plainfiles.read(path, FILE_BYTES)).hexdigest()
    return found


def sites() -> list[str]:
    """The folders on `sys.path` that have installed distributions in them."""
    return [path for path in sys.path if any(Path(path or ".").glob("*.dist-info"))]


def records(dists: dict[str, metadata.Distribution]) -> list[str]:
    """The folders that say that these distributions are installed, at these versions.

    One of them is gone as soon as its distribution is removed, or replaced by another version.
    """
    return [str(dist.locate_file("")) + f"/{_record(dist)}" for dist in dists.values()]


def _record(dist: metadata.Distribution) -> str:
    for entry in dist.files or ():
        if entry.name == "METADATA" and entry.parent.name.endswith(".dist-info"):
            return str(entry.parent)
    return ""
