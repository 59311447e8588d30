"""A session's own folders: private, locked while in use, swept away when whoever used them is gone.

A lock (flock) on a file in the folder says that it is in use. It ends with its process, however
that ends.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING

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

    def unkeep(self) -> None:
        """It is removed again with this process."""
        (self.path / KEEP).unlink(missing_ok=True)

    def clear(self, spare: tuple[str, ...] = ()) -> None:
        """Removes what is in it, but for what has one of the names in `spare`."""
        for each in self.path.iterdir():
            if each.name not in (LOCK, *spare):
                _remove(each)

    def release(self) -> None:
        """Lets others have it: removes it, unless it is to be kept."""
        if self._lock < 0:
            return
        if not (self.path / KEEP).exists():
            _remove(self.path)
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
                    _remove(path)
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


def _remove(path: Path) -> None:
    """Removes a file, or a folder with all that is in it, however deep that goes.

    A guest can nest folders deeper than any path or stack goes: its subfolders are moved up first,
    so that no path has more than two names and nothing calls itself.
    """
    if not path.is_dir() or path.is_symlink():
        path.unlink(missing_ok=True)
        return
    with contextlib.suppress(OSError):  # what is left is swept away later, or is not ours
        top = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            while _empty(top):
                pass
        finally:
            os.close(top)
        path.rmdir()


def _empty(top: int) -> bool:
    """One round of removing all that is in the folder `top`; was there any progress, and more?"""
    done = 0
    for name in os.listdir(top):
        with contextlib.suppress(OSError):
            try:
                os.unlink(name, dir_fd=top)
            except (IsADirectoryError, PermissionError):  # on Linux and on macOS
                _flatten(top, name)
                os.rmdir(name, dir_fd=top)
            done += 1
    return done > 0 and bool(os.listdir(top))


def _flatten(top: int, name: str) -> None:
    """Empties the folder `name` in `top`: its files go, its folders move up into `top`."""
    inside = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=top)
    try:
        for each in os.listdir(inside):
            try:
                os.unlink(each, dir_fd=inside)
            except (IsADirectoryError, PermissionError):
                os.rename(each, os.urandom(16).hex(), src_dir_fd=inside, dst_dir_fd=top)
    finally:
        os.close(inside)
