"""Usage: what a session has used of its limits on files.

The counters are words in a page of a file in the session's own folder on the host, outside of what
the guest sees. The page is mapped, shared, over the switchboard's memory, whose WebAssembly code
counts (switchboard.py): so counting costs no host call, and a count is there at once, whatever
becomes of the instance, the worker or the machine's patience with it. The next guest goes on where
the last one stopped, be it after an undo, a trap or a SIGKILL in the middle of a write.

What counts:

- `written_bytes`: the bytes by which files grow. Each write counts in full, also one over what is
  there already, as long as there is room for that. A gap that a write or a new size leaves in a
  file counts like written bytes (the file's length, not its blocks: tools that copy a sparse file
  write its zeros). So the lengths of all that the session has made are never more than the count.
- `created_files`: files, folders and links that were made, less those that were removed.

So far the count only says how much there may be at most. When it reaches the limit, what is really
there is measured (`Usage.make_room`), and the lower of the two numbers is the new count. A session
that writes and deletes temporary files for weeks never fails, one that keeps them does. Measured
is all that the guest may write: its /tmp and home, and of writable grants the files that have
changed since the session began, by their change time, which no guest can set (on a file system
that does not keep one, such as FAT, files there can be missed); and files that are deleted and
still open. What the host's own programs write there at the same time is measured with it, but
cannot raise the count. What cannot be measured (an unreadable folder, too many files) is not given
back.

A fork begins with its parent's counts, a saved session with those of its saving; both are sessions
of their own from there on, and what the first one has changed in grants is theirs, too.

Never imports wasmtime.
"""

from __future__ import annotations

import contextlib
import functools
import mmap
import os
import resource
import stat
import struct
import sys
from typing import TYPE_CHECKING, Any

from wasi_kernel.worker import images

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from wasi_kernel.policy import Limits
    from wasi_kernel.worker.memory import LinearMemory

FILE = "usage"
"""Name of the file in the session's own folder."""

WRITTEN, CREATED, OPEN = 0, 8, 16
"""Where each limit's words are: its count (of open files: unused) here, and from here on:"""

REFUSED, MOST = 24, 48
"""... how often the present request was refused more, and the limit itself. All are u64."""

LOOSENED = 72
"""Set when something may have become free, though nothing was counted since the last measure."""

BEGAN = 80
"""When the session began: the file's own change time then, in nanoseconds."""

SKEW_NS = 60 * 10**9
"""By so much the clock of another file system (on the network) may be behind that."""

MAX_ENTRIES = 200_000
"""More entries than these are not measured: 50,000 took 0.13 s (Linux, Python 3.11, x86-64)."""

RESERVED_FDS = 256
"""Descriptors that a worker needs beside its guest's files: sockets, granted folders, its log."""

LEAST_FILES = 16

NAMES = {"written_bytes": WRITTEN, "created_files": CREATED, "open_files": OPEN}
"""Key of `Limits` -> where its words are."""


class Usage:
    """The counts of one session.

    Attributes:
        fresh: Has nothing been counted before?
        open_files: How many files the guest may have open: the limit, or less if this process
            cannot have so many.
    """

    def __init__(self, limits: Limits, folders: Iterable[str], path: Path | None = None) -> None:
        """Takes the host paths of all folders that the guest may write to.

        Without `path` nothing is kept: for guests that belong to no session.

        Raises:
            OSError: The file cannot be made.
        """
        self._folders = tuple(folders)
        self._fd = _anonymous() if path is None else _opened(path)
        size = os.fstat(self._fd).st_size
        self.fresh = size < mmap.PAGESIZE
        if (
            self.fresh
        ):  # written, not only lengthened: a hole would need a block when it is too late
            os.pwrite(self._fd, bytes(mmap.PAGESIZE), 0)
        self._page = mmap.mmap(self._fd, mmap.PAGESIZE)
        if not self._get(BEGAN):
            self._set(BEGAN, os.fstat(self._fd).st_ctime_ns)
        self._measured: dict[str, int] = {}
        self.open_files = _room_for(limits.open_files)
        for name, at in NAMES.items():
            self._set(at + MOST, getattr(limits, name))
        self._set(OPEN + MOST, self.open_files)
        self.begin()

    def close(self) -> None:
        """Lets go of the file. A page that is mapped stays so."""
        if not self._page.closed:
            self._page.close()
            os.close(self._fd)

    def _get(self, at: int) -> int:
        return int(struct.unpack_from("<Q", self._page, at)[0])

    def _set(self, at: int, value: int) -> None:
        struct.pack_into("<Q", self._page, at, value)

    def count_at(self, memory: LinearMemory, at: int) -> None:
        """Has an instance count here, by the words at `at` of this memory of its.

        Where nothing can be mapped they are only copied: each guest begins with the same counts.

        Raises:
            OSError: The page cannot be mapped.
        """
        if images.can_map():
            images.share_page(memory, at, self._fd)
        else:
            memory.write(at, self._page[:])

    def begin(self) -> None:
        """A request begins: nothing was refused yet, and the user may have made room."""
        for at in NAMES.values():
            self._set(at + REFUSED, 0)
        self._set(LOOSENED, 1)

    @contextlib.contextmanager
    def unlimited(self) -> Any:
        """While its body runs, any number of files may be open."""
        self._set(OPEN + MOST, 1 << 32)
        try:
            yield
        finally:
            self._set(OPEN + MOST, self.open_files)

    def counts(self) -> dict[str, int]:
        """{limit: its count} of those that are kept."""
        return {"written_bytes": self._get(WRITTEN), "created_files": self._get(CREATED)}

    def notes(self) -> dict[str, int]:
        """What a saved session takes with it, for `adopt`."""
        return {**self.counts(), "began_ns": self._get(BEGAN)}

    def adopt(self, notes: Any) -> None:
        """Goes on from `notes` that were saved, if nothing was counted before.

        They come out of a file that anybody may have made: what is no count is left out, and the
        session did not begin later than it did.
        """
        fresh, self.fresh = self.fresh, False
        if not fresh or not isinstance(notes, dict):
            return
        for name, at, better in (
            ("written_bytes", WRITTEN, max), ("created_files", CREATED, max),
            ("began_ns", BEGAN, min),
        ):  # fmt: skip
            value = notes.get(name)
            if type(value) is int and 0 <= value < 1 << 62:
                self._set(at, better(value, self._get(at)))

    def refused(self, name: str) -> int:
        """How often the present request was refused something for this limit."""
        return self._get(NAMES[name] + REFUSED)

    def make_room(self) -> bool:
        """Measures what is really there, if that may have become less; is the count lower now?

        Called on the guest's thread, in the middle of a call that found too little room.
        """
        if not self._get(LOOSENED) and self.counts() == self._measured:
            return False
        self._set(LOOSENED, 0)
        return self.measure()

    def changed_in(self, folder: str) -> tuple[int, int] | None:
        """(bytes, entries) in one of the folders that have changed since the session began.

        None: that cannot be known.
        """
        return changed((folder,), self._get(BEGAN), os.fstat(self._fd).st_dev)

    def measure(self) -> bool:
        """Measures what is really there; is the count lower now?"""
        device = os.fstat(self._fd).st_dev
        found = measured(self._folders, self._get(BEGAN), device)
        before = self.counts()
        if found is not None:
            for at, value in zip((WRITTEN, CREATED), found, strict=True):
                self._set(at, min(self._get(at), value))
        self._measured = self.counts()
        return self._measured != before


def measured(folders: Iterable[str], since_ns: int, device: int) -> tuple[int, int] | None:
    """The same as `changed`, with the bytes of files that are deleted and still open."""
    folders = list(folders)
    try:
        found = changed(folders, since_ns, device)
        if found is None:
            return None
        size, entries = found
        return size + _unlinked({os.stat(folder).st_dev for folder in folders}), entries
    except OSError:
        return None


def changed(folders: Iterable[str], since_ns: int, device: int) -> tuple[int, int] | None:
    """(bytes, entries) of what has changed since then in these folders; None: that is not known.

    `since_ns` is a time of that device. A file with several names counts once. Symbolic links are
    not followed.
    """
    seen = set()
    size = entries = 0
    try:
        for visited, about in enumerate(_all_in(list(folders))):
            if visited == MAX_ENTRIES:
                return None
            if about.st_ctime_ns < since_ns - SKEW_NS * (about.st_dev != device):
                continue
            entries += 1
            if stat.S_ISREG(about.st_mode) and (about.st_dev, about.st_ino) not in seen:
                size += about.st_size
                if about.st_nlink > 1:
                    seen.add((about.st_dev, about.st_ino))
    except OSError:  # what cannot be looked at may hold anything
        return None
    return size, entries


def _all_in(folders: list[str]) -> Iterator[os.stat_result]:
    """What is in these folders and below; without what is removed meanwhile.

    Raises:
        OSError: A folder cannot be read: it is not the user's own, or lies too deep for a path.
    """
    todo = list(folders)
    while todo:
        with contextlib.suppress(FileNotFoundError), os.scandir(todo.pop()) as found:
            for entry in found:
                with contextlib.suppress(FileNotFoundError):
                    about = entry.stat(follow_symlinks=False)
                    if stat.S_ISDIR(about.st_mode):
                        todo.append(entry.path)
                    yield about


def _unlinked(devices: set[int]) -> int:
    """Bytes of the files on these devices that this process has open, and that have no name."""
    found = {}
    for name in os.listdir(own_files()):
        with contextlib.suppress(OSError):  # the listing's own is closed by now
            about = os.fstat(int(name))
            if stat.S_ISREG(about.st_mode) and about.st_nlink == 0 and about.st_dev in devices:
                found[about.st_dev, about.st_ino] = about.st_size
    return sum(found.values())


@functools.cache
def own_files() -> int | str:
    """What lists the process's own descriptors.

    Opened before it is confined, since later it cannot be; a name where there is no confinement.
    """
    if sys.platform != "linux":
        return "/dev/fd"
    return os.open("/proc/self/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _opened(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def _anonymous() -> int:
    if sys.platform == "linux":
        return os.memfd_create("usage")
    import tempfile

    fd, name = tempfile.mkstemp()
    os.unlink(name)
    return fd


def _room_for(open_files: int) -> int:
    """Lets this process have that many files beside its own; how many it may have then.

    So the guest is refused one (EMFILE) before this process lacks a descriptor for itself.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = open_files + RESERVED_FDS
    if soft == resource.RLIM_INFINITY:
        return open_files
    if soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(open_files, max(LEAST_FILES, soft - RESERVED_FDS))
