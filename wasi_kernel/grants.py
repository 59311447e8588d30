"""Grants: which host folders must never be given to a guest.

Decided by identity (device and inode), never by name, so that a symlink or a bind mount does not
help. A folder is refused if it is, contains, or lies in a protected place.

Never imports wasmtime or anything of Jupyter.
"""

from __future__ import annotations

import os
from pathlib import Path

SYSTEM = ("/proc", "/sys", "/dev", "/run")
KEYS = (".ssh", ".aws", ".gnupg", ".kube", ".docker", ".config", ".jupyter", ".local/share/jupyter")
"""Places in a home that hold keys and tokens; Jupyter's own hold the way to its server."""


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_dev, state.st_ino


def _ancestry(path: Path) -> set[tuple[int, int]]:
    """Identities of `path` and everything above it."""
    real = Path(os.path.realpath(path))
    return {i for p in (real, *real.parents) if (i := _identity(p)) is not None}


def refusal(folder: Path, cache: Path) -> str | None:
    """Why `folder` must not be granted, in a few words; None if it may be.

    Args:
        folder: The host folder, which need not exist.
        cache: The cache folder of this project.
    """
    own = _identity(folder)
    if own is None:
        return "it does not exist"
    if own == _identity(Path("/")):
        return "it is the root of the file system"
    above = _ancestry(folder)
    home = Path.home()
    protected = [(Path(p), f"a system folder ({p})") for p in SYSTEM]
    protected.append((cache, "this project's cache"))
    runtime = os.environ.get("JUPYTER_RUNTIME_DIR")
    if runtime:
        protected.append((Path(runtime), "Jupyter's runtime folder"))
    protected += [(home / name, f"keys (~/{name})") for name in KEYS]
    for path, what in protected:
        identity = _identity(path)
        if identity is None:
            continue
        if identity in above:
            return f"it lies in {what}" if identity != own else f"it is {what}"
        if own in _ancestry(path):
            return f"it contains {what}"
    if own == _identity(home):
        return "it is the home folder"
    return None
