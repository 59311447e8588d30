"""Compiled runtimes that an administrator has made for all users, taken over by copying them.

A compiled module is native code: what is wrong with it, no wall of the sandbox's can mend. So one
is taken only where none but root, or this very user, can have put it: the file, its seal and every
folder above them belong to one of the two, and nobody else may write them. Then its content must be
what its seal says, which is against damage, not against attackers. What was taken lies in the
user's own cache, owner-only, with a seal of its own, and is like what the user has compiled.

Never imports wasmtime or anything of Jupyter.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wasi_kernel.caches import SEAL

if TYPE_CHECKING:
    from wasi_kernel.caches import Cache

ENV = "WASI_KERNEL_SHARED_CACHE"
"""Environment variable that names the folder; in its `modules` lie compiled modules and seals."""

FOLDER = "modules"
"""What is shared, as the folder of a cache is called; other entries are made in a few seconds."""

MAX_SEAL_BYTES = 1 << 20
_CHUNK_BYTES = 1 << 20


def default_path() -> Path | None:
    """The folder that the environment names, None if it names none."""
    named = os.environ.get(ENV)
    return Path(os.path.expanduser(named)).absolute() if named else None


def refusal(path: Path) -> str | None:
    """Why nothing is taken from `path`, a file or folder; None: it is root's or this user's alone.

    Links are followed first: it is the real way that counts.
    """
    try:
        real = path.resolve(strict=True)
        ways = [(each, each.lstat()) for each in (real, *real.parents)]
    except (OSError, RuntimeError) as e:
        return f"{path} cannot be reached: {getattr(e, 'strerror', None) or e}"
    for each, state in ways:
        if state.st_uid not in (0, os.getuid()):
            return f"{each} belongs to another user"
        # where a folder has the sticky bit, nobody can put a thing in the place of root's
        sticky = each != real and state.st_mode & stat.S_ISVTX
        if state.st_mode & 0o022 and not sticky:
            return f"{each} can be written by others"
    return None


def modules(home: Path) -> list[Path]:
    """The modules there that could be taken, whatever they are compiled from.

    Raises:
        OSError: The folder cannot be read.
    """
    found = [path for path in (home / FOLDER).iterdir() if not path.name.endswith(SEAL)]
    seals = {path: path.with_name(path.name + SEAL) for path in found}
    return [path for path in found if refusal(path) is None and refusal(seals[path]) is None]


def take(cache: Cache, path: Path) -> bool:
    """Takes what belongs at `path`, a module in `cache`, from the shared folder; was it there?"""
    home = cache.shared
    if home is None or path.parent.name != FOLDER:
        return False
    source = home / FOLDER / path.name
    try:
        notes, digest = _sealed(source)
        cache.store(path, lambda new: _copied(source, new, notes, digest))
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return False
    return True


def _trusted(path: Path) -> int:
    """A descriptor of a plain file that is to be trusted; the caller closes it.

    Raises:
        ValueError: It is not.
    """
    if (reason := refusal(path)) is not None:
        raise ValueError(reason)
    fd = os.open(path.resolve(strict=True), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise ValueError(f"{path} is no plain file")
    return fd


def _sealed(source: Path) -> tuple[dict[str, Any], str]:
    """(notes, SHA-256) that the file at `source` was sealed with."""
    with os.fdopen(_trusted(source.with_name(source.name + SEAL)), "rb") as f:
        seal = json.loads(f.read(MAX_SEAL_BYTES))
    if seal["name"] != f"{FOLDER}/{source.name}" or not isinstance(seal["notes"], dict):
        raise ValueError(f"the seal of {source} is another file's")
    return seal["notes"], str(seal["sha256"])


def _copied(source: Path, new: Path, notes: dict[str, Any], digest: str) -> dict[str, Any]:
    """Copies a file; its notes.

    Raises:
        ValueError: It is not what its seal says.
    """
    h = hashlib.sha256()
    with os.fdopen(_trusted(source), "rb") as read, new.open("wb") as write:
        while chunk := read.read(_CHUNK_BYTES):
            h.update(chunk)
            write.write(chunk)
    if h.hexdigest() != digest:
        raise ValueError(f"{source} differs from its seal")
    return notes
