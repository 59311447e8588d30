"""Trees: folders that a guest has filled, copied and removed on the host.

A guest may make what no path can name (thousands of levels) and no list can hold (millions of
files), and may put a link in the place of a folder while somebody looks at it. So nothing here
follows a link, every step is relative to an open folder, and a copy is bounded while it is made.

Never imports wasmtime or anything of Jupyter.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

LEVELS = 100
"""How deep a tree may be that is copied: two descriptors each."""

CHUNK = 1 << 20
AT_ONCE = 10_000
"""So many names of a folder's folders are held in memory."""


class TooLargeError(Exception):
    """A tree that is not copied: larger than allowed, in words for the user."""


# -- removing ------------------------------------------------------------------------------------


def remove(path: Path, *, last: str = "") -> None:
    """Removes the file, link or folder at `path`, however deep.

    Raises nothing: what cannot be removed stays. `last`: a file in it that goes after all others.
    """
    with contextlib.suppress(OSError):
        try:
            top = os.open(path, _FOLDER)
        except FileNotFoundError:
            return
        except OSError:  # no folder
            path.unlink()
            return
        try:
            _Emptying(top, last).run()
            if last:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(last, dir_fd=top)
        finally:
            os.close(top)
        path.rmdir()


class _Emptying:
    """Removes all that is in the folder open as `top`.

    A folder in a folder is first moved up to `top`: so no depth is too deep.
    """

    def __init__(self, top: int, spare: str) -> None:
        self._top, self._spare = top, spare
        self._token, self._moved, self._removed = os.urandom(8).hex(), 0, 0

    def run(self) -> None:
        before = -1
        while before != self._removed:  # until there is nothing more that can be removed
            before = self._removed
            waiting = self._clear(self._top)
            while waiting:
                name = waiting.pop()
                with contextlib.suppress(OSError):
                    fd = os.open(name, _FOLDER, dir_fd=self._top)
                    try:
                        waiting += self._clear(fd)
                    finally:
                        os.close(fd)
                    os.rmdir(name, dir_fd=self._top)
                    self._removed += 1

    def _clear(self, folder: int) -> list[str]:
        """Unlinks the files in an open folder; the names of its folders, which are in `top` now."""
        found: list[str] = []
        with os.scandir(folder) as entries:
            for entry in entries:
                if folder == self._top and entry.name == self._spare:
                    continue
                with contextlib.suppress(OSError):
                    if not entry.is_dir(follow_symlinks=False):
                        os.unlink(entry.name, dir_fd=folder)
                        self._removed += 1
                        continue
                    name = entry.name
                    if folder != self._top:
                        name = f"{self._token}-{self._moved}"
                        self._moved += 1
                        os.rename(entry.name, name, src_dir_fd=folder, dst_dir_fd=self._top)
                    found.append(name)
                if len(found) >= AT_ONCE:
                    break
        return found


# -- copying -------------------------------------------------------------------------------------


def copy(source: Path, target: Path, *, most_bytes: int, most_files: int) -> tuple[int, int]:
    """Copies the folder `source` to `target`, which must not be there; (bytes, files) of it.

    Links are copied as links; what is neither file, folder nor link is left out, and what goes
    away meanwhile.

    Args:
        source: May change while it is copied.
        target: Owner-only.
        most_bytes: The most that all files may have together, holes included.
        most_files: The most files, links and folders.

    Raises:
        TooLargeError: There is more, or it is too deep; a part was copied.
        OSError: `target` cannot be written.
    """
    copying = _Copying(most_bytes, most_files)
    with _folder(source) as here:
        if here is not None:
            copying.folder(here, str(target), None, 0)
    return most_bytes - copying.bytes, most_files - copying.files


@contextlib.contextmanager
def _folder(path: str | Path, parent: int | None = None) -> Iterator[int | None]:
    """The folder, open; None if there is none (any more)."""
    try:
        fd = os.open(path, _FOLDER, dir_fd=parent)
    except (FileNotFoundError, NotADirectoryError):
        yield None
        return
    except OSError as e:
        if e.errno != errno.ELOOP:
            raise
        yield None
        return
    try:
        yield fd
    finally:
        os.close(fd)


class _Copying:
    """What may still be copied: `bytes` and `files`."""

    def __init__(self, most_bytes: int, most_files: int) -> None:
        self.bytes, self.files = most_bytes, most_files

    def folder(self, here: int, target: str, parent: int | None, level: int) -> None:
        if level > LEVELS:
            raise TooLargeError(f"folders are in one another more than {LEVELS} times")
        os.mkdir(target, 0o700, dir_fd=parent)
        there = os.open(target, _FOLDER, dir_fd=parent)
        try:
            with os.scandir(here) as entries:
                for entry in entries:
                    self.files -= 1
                    if self.files < 0:
                        raise TooLargeError("there are too many files")
                    self._entry(entry, here, there, level)
        finally:
            os.close(there)

    def _entry(self, entry: os.DirEntry[str], here: int, there: int, level: int) -> None:
        name = entry.name
        if entry.is_dir(follow_symlinks=False):
            with _folder(name, here) as below:
                if below is not None:
                    self.folder(below, name, there, level + 1)
            return
        try:
            if entry.is_symlink():
                os.symlink(os.readlink(name, dir_fd=here), name, dir_fd=there)
                return
            if not entry.is_file(follow_symlinks=False):
                return
            fd = os.open(name, _FILE, dir_fd=here)
        except OSError as e:
            if e.errno in (errno.ENOENT, errno.EINVAL, errno.ELOOP, errno.ENXIO):
                return  # gone, or another thing now
            raise
        try:
            self._file(fd, name, there)
        finally:
            os.close(fd)

    def _file(self, fd: int, name: str, there: int) -> None:
        state = os.fstat(fd)
        if not stat.S_ISREG(state.st_mode):
            return
        if state.st_size > self.bytes:
            raise TooLargeError("the files are too large")
        mode = stat.S_IMODE(state.st_mode) & 0o777
        new = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode, dir_fd=there)
        with open(new, "wb", buffering=0) as f:
            while data := os.read(fd, CHUNK):
                self.bytes -= len(data)
                if self.bytes < 0:
                    raise TooLargeError("the files are too large")
                f.write(data)
            os.utime(new, ns=(state.st_atime_ns, state.st_mtime_ns))
