"""Preopens: the folders that a guest has from its start, opened as the very ones that are meant.

A session makes several guests, and between two of them a guest may have changed what a path leads
to: with one folder granted in another, writable one, it can put a link in its place. So a granted
folder is opened first, compared with what it was when the session began (device and inode), and
handed on by its descriptor, never by its path again. One that is gone, or another one now, is
replaced by an empty folder: the session goes on and says so.
"""

from __future__ import annotations

import contextlib
import errno
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_DESCRIPTORS = "/proc/self/fd"
_FOLDER = os.O_DIRECTORY | os.O_CLOEXEC | getattr(os, "O_PATH", os.O_RDONLY)


@dataclass(frozen=True)
class Preopen:
    """A folder that the guest has open from its start, in the order of the guest's fds.

    Attributes:
        host_path: Where it is.
        guest_path: Where the guest sees it.
        writable: May the guest change what is in it?
        identity: (device, inode) of the folder that is meant; None: whatever is there.
        instead: An empty folder that is shown if that one is not there.
    """

    host_path: str
    guest_path: str
    writable: bool
    identity: tuple[int, int] | None = None
    instead: str = ""

    def is_there(self) -> bool:
        """Is the folder that is meant there now?"""
        try:
            state = os.stat(self.host_path)
        except OSError:
            return False
        return self.identity in (None, (state.st_dev, state.st_ino))


@contextlib.contextmanager
def opened(
    preopens: Iterable[Preopen],
) -> Iterator[tuple[list[tuple[str, Preopen]], tuple[str, ...]]]:
    """((path that leads to the folder while the body runs, what to show there), what is missing).

    What is missing are guest paths; an empty folder stands there.

    Raises:
        OSError: No descriptor is left, or a folder without an identity is not there.
    """
    with contextlib.ExitStack() as stack:
        found, missing = [], []
        for each in preopens:
            path = _path(each, stack)
            if path is None:
                missing.append(each.guest_path)
                each = Preopen(each.instead, each.guest_path, writable=False)  # noqa: PLW2901
            found.append((path or each.host_path, each))
        yield found, tuple(missing)


def _path(each: Preopen, stack: contextlib.ExitStack) -> str | None:
    """A path to the very folder that is meant; None if that one is not there."""
    if each.identity is None:
        return each.host_path
    try:
        fd = os.open(each.host_path, _FOLDER)
    except OSError as e:
        if e.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
            raise
        return None  # gone, a file, a loop of links, or out of reach
    stack.callback(os.close, fd)
    state = os.fstat(fd)
    if (state.st_dev, state.st_ino) != each.identity:
        return None
    by_number = f"{_DESCRIPTORS}/{fd}"
    # Without /proc (macOS) it is opened by its path once more, right after it was compared.
    return by_number if os.path.isdir(by_number) else each.host_path
