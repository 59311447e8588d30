"""Environments: the guest's site-packages beside what the runtime brings.

So far one: the agent's bundle, which is the agent itself with IPython and what it needs, copied
from this installation (they are pure Python; a guest needs no network for its first start) and
compiled to bytecode by the guest's own Python.

Never imports wasmtime or anything of Jupyter.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from wasi_kernel.errors import InstallationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from importlib import metadata

    from wasi_kernel.caches import Cache

BUNDLE = "/usr/lib/wasi-kernel"
"""Guest path of the bundle."""

ROOTS = ("ipython", "matplotlib-inline", "comm", "ipywidgets", "tqdm")

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


def agent_files() -> list[Path]:
    """The agent's source files on the host; frames.py is the one that both sides share."""
    return [*sorted(AGENT.glob("*.py")), PACKAGE / "frames.py"]


def closure(python: str) -> dict[str, metadata.Distribution]:
    """The installed distributions that a guest with Python `python` ("3.15") needs, by name.

    Raises:
        InstallationError: One of them is not installed here.
    """
    from importlib import metadata

    from packaging.markers import default_environment
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    environment = {str(k): str(v) for k, v in default_environment().items()}
    environment |= GUEST_MARKERS
    environment["python_version"], environment["python_full_version"] = python, f"{python}.0"
    found: dict[str, metadata.Distribution] = {}
    wanted = list(ROOTS)
    while wanted:
        name = wanted.pop()
        if name in found or name in HOST_ONLY:
            continue
        try:
            found[name] = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            raise InstallationError(
                f"{name}, which the guest needs, is not installed; run: pip install {name}"
            ) from None
        for text in found[name].requires or ():
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({**environment}):
                wanted.append(canonicalize_name(requirement.name))
    return found


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
    for path in agent_files():
        h.update(path.name.encode() + b"\0" + path.read_bytes())
    folder = cache.folder("bundles") / h.hexdigest()[:32]
    if folder.is_dir():
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
        (new / "wasi_agent").mkdir()
        for path in agent_files():
            shutil.copyfile(path, new / "wasi_agent" / path.name)
        compile_all(new)

    cache.make_folder(folder, fill)
    return folder


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
