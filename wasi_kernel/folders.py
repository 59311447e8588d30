"""A session's own folders: private, locked while in use, swept away when whoever used them is gone.

A lock (flock) on a file in the folder says that it is in use. It ends with its process, however
that ends.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING

from wasi_kernel import trees

if TYPE_CHECKING:
    from pathlib import Path

LOCK = "lock"
KEEP = "keep"
"""File that says that a folder is to stay when its process is gone."""

KEEP_S = 7 * 24 * 3600
"""How long a folder stays that is kept and not taken up again."""


class OwnFolder:
    """A folder that this process uses; only this user can look into it.

    Attributes:
        path: Where it is.
    """

    def __init__(self, base: Path, prefix: str = "", name: str | None = None) -> None:
        """Makes a new folder in `base`, or takes up the one called `name`.

        Raises:
            BlockingIOError: Another process uses it.
            OSError: It cannot be made, or is not there.
        """
        self.path = base / (name or "")
        while name is None:
            self.path = base / f"{prefix}{os.urandom(8).hex()}"
            self.path.mkdir(mode=0o700)
            with contextlib.suppress(BlockingIOError, FileNotFoundError):  # a sweep was quicker
                self._lock = _locked(self.path / LOCK, os.O_CREAT)
                return
        self._lock = _locked(self.path / LOCK, os.O_CREAT)

    def keep(self, why: str) -> None:
        """It stays when this process is gone; `why` tells who may take it up."""
        new = self.path / f"{KEEP}.new"
        new.write_text(why)
        new.replace(self.path / KEEP)

    @property
    def kept(self) -> str:
        """Why it is to stay, "" if it is not."""
        try:
            return (self.path / KEEP).read_text()
        except OSError:
            return ""

    def unkeep(self) -> None:
        """It is removed again with this process."""
        (self.path / KEEP).unlink(missing_ok=True)

    def clear(self, spare: tuple[str, ...] = ()) -> None:
        """Removes what is in it, but for what has one of the names in `spare`."""
        for each in self.path.iterdir():
            if each.name not in (LOCK, *spare):
                trees.remove(each)

    def release(self) -> None:
        """Lets others have it: removes it, unless it is to be kept."""
        if self._lock < 0:
            return
        if not (self.path / KEEP).exists():
            trees.remove(self.path, last=LOCK)
        os.close(self._lock)
        self._lock = -1


def sweep(base: Path, prefix: str = "") -> None:
    """Removes the folders in `base` that nobody uses and nobody keeps."""
    for path in base.glob(f"{prefix}*"):
        with contextlib.suppress(OSError):
            if path.lstat().st_uid != os.getuid() or _kept(path):
                continue
            fd = _locked(path / LOCK)
            try:
                if not _kept(path):  # it may have been released, to be kept, just now
                    trees.remove(path, last=LOCK)  # else it would never be swept, if killed
            finally:
                os.close(fd)


def in_use(path: Path) -> bool:
    """Does a process use this folder?"""
    try:
        os.close(_locked(path / LOCK))
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _kept(path: Path) -> bool:
    try:
        return time.time() - (path / KEEP).stat().st_mtime < KEEP_S
    except OSError:
        return False


def _locked(path: Path, flags: int = 0) -> int:
    import fcntl

    fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | flags, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        there, here = path.lstat(), os.fstat(fd)
        if (there.st_dev, there.st_ino) != (here.st_dev, here.st_ino):
            raise FileNotFoundError(f"{path} was removed meanwhile")
    except OSError:
        os.close(fd)
        raise
    return fd
