"""Plain files: opened and read where something else may lie, without waiting and without surprise.

A FIFO or a device in the place of a file would keep its reader waiting for ever, or feed it without
end. Standard library only.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path
    from typing import BinaryIO

MOST_BYTES = 4 << 20
"""The most that `read` takes, unless it is told otherwise."""

_FLAGS = os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)


def opened(path: str | os.PathLike[str], flags: int = 0) -> BinaryIO:
    """The file at `path`, to be read; `flags` are more of os.open's.

    Raises:
        OSError: It is not there, or no plain file.
    """
    fd = os.open(path, _FLAGS | flags)
    try:
        check(fd, path)
        return open(fd, "rb")
    except BaseException:  # raised again: nothing stays open
        os.close(fd)
        raise


def check(fd: int, path: str | os.PathLike[str]) -> None:
    """Checks what was opened.

    Raises:
        OSError: It is no plain file.
    """
    mode = os.fstat(fd).st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "it is no plain file", os.fspath(path))


def read(path: str | os.PathLike[str], most_bytes: int = MOST_BYTES) -> bytes:
    """What is in the file at `path`.

    Raises:
        OSError: It cannot be read, is no plain file, or larger than that.
    """
    with opened(path) as f:
        data = f.read(most_bytes + 1)
    if len(data) > most_bytes:
        raise OSError(errno.EFBIG, f"it has more than {most_bytes} bytes", os.fspath(path))
    return data


def replace(path: Path, text: str) -> None:
    """Puts a file with `text` at `path`, whole or not at all; a link there is replaced.

    Raises:
        OSError: It cannot be written.
    """
    new = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
    try:
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as f:
            f.write(text)
        new.replace(path)
    except BaseException:  # raised again: nothing half written is left behind
        new.unlink(missing_ok=True)
        raise
