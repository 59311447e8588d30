"""Segments: the files of a page log, which are only ever appended to.

A segment is a page of head, then records (records.py), each beginning at a page boundary: what it
is, then its pages of data.

A record's data is written first and what stands before it last, in one write: the commit. What is
cut short at the end of a segment is no record (its checksum says so) and is cut off. A killed
process loses nothing that it committed; nothing here waits for a disk to be safe from power cuts.

What records mean to each other is the log's business (pagelog.py). Standard library only.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from typing import TYPE_CHECKING, Any, Self

from wasi_kernel import plainfiles, records
from wasi_kernel.errors import PageLogError
from wasi_kernel.records import PAGE, Checkpoint

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from pathlib import Path

SEGMENT_MAGIC = b"wasi-kernel pages 1\n"
SUFFIX = ".pages"
ORIGIN = "origin.json"
"""File of a fork's folder: how much of its first segments is its own past."""

_NUMBER = re.compile(r"[0-9]{1,9}")
MAX_IOVECS = 512  # IOV_MAX is 1024 on Linux and macOS


class Disk:
    """The writing calls of the log; tests put one there that fails, or stops in the middle."""

    def write(self, fd: int, buffers: Sequence[Any], offset: int) -> None:
        """Writes all buffers at `offset`."""
        for k in range(0, len(buffers), MAX_IOVECS):
            some = [memoryview(b).cast("B") for b in buffers[k : k + MAX_IOVECS]]
            while some:
                done = os.pwritev(fd, some, offset)
                offset += done
                while some and done >= len(some[0]):
                    done -= len(some.pop(0))
                if some and done:
                    some[0] = some[0][done:]

    def truncate(self, fd: int, size: int) -> None:
        """Cuts a file."""
        os.ftruncate(fd, size)

    def create(self, path: Path) -> int:
        """A new file, this user's only."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def remove(self, path: Path) -> None:
        """Removes a file."""
        path.unlink(missing_ok=True)


def number_of(path: Path) -> int | None:
    """The number of the segment in that file, None if its name is no segment's."""
    return int(path.stem) if _NUMBER.fullmatch(path.stem) else None


def inherited(folder: Path) -> dict[int, int]:
    """{number: bytes} of the segments in a fork's folder that hold its past; empty if it is none.

    Raises:
        PageLogError: The note that says so is damaged.
    """
    try:
        data = json.loads(plainfiles.read(folder / ORIGIN))
    except FileNotFoundError:
        return {}
    except OSError as e:
        raise PageLogError(ORIGIN, f"damaged: {e.strerror}") from None
    except (ValueError, RecursionError) as e:
        raise PageLogError(ORIGIN, f"damaged: {e}") from None
    if not isinstance(data, dict) or not all(type(v) is int for v in data.values()):
        raise PageLogError(ORIGIN, "damaged: it is no object of numbers")
    return {int(k): v for k, v in data.items() if _NUMBER.fullmatch(k)}


def bequeath(segments: Collection[Segment], folder: Path) -> None:
    """Makes what is committed in segments the past of a log in `folder`; no page is copied.

    Raises:
        OSError: The folder is on another file system, or a segment was dropped meanwhile.
    """
    limits = {str(segment.number): segment.end for segment in segments}
    fd = os.open(folder / ORIGIN, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, "w") as f:
        json.dump(limits, f)
    for segment in segments:
        os.link(segment.path, folder / segment.path.name)


class Segment:
    """One file of a log, open until `close`.

    Attributes:
        number: Its number, from 1.
        path: Its file.
        fd: Its descriptor.
        limit: The end of what may be looked at, in bytes, if it is another log's as well; nothing
            is written to it then.
        end: The end of what is committed in it, in bytes.
        checkpoints: How many checkpoints were committed to it.
        stamp: When it was last written (`changed_ns`), as far as is known here.
        verified: The places of those of its runs that are known to be what was written.
    """

    def __init__(
        self, number: int, path: Path, fd: int, disk: Disk, limit: int | None = None
    ) -> None:
        self.number, self.path, self.fd, self.limit = number, path, fd, limit
        self._disk = disk
        self._visible_bytes = self.end = PAGE
        self.checkpoints = 0
        self.stamp = 0
        self.verified: set[int] = set()

    @classmethod
    def open(
        cls, number: int, path: Path, disk: Disk, limit: int | None, *, read_only: bool
    ) -> Self:
        """Opens a segment that is there; it may be damaged.

        Raises:
            OSError: It cannot be opened, or is a link.
        """
        flags = os.O_RDONLY if read_only or limit is not None else os.O_RDWR
        fd = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        return cls(number, path, fd, disk, limit)

    @classmethod
    def begin(cls, number: int, folder: Path, image: str, disk: Disk) -> Self:
        """A new segment, of the base image with that digest.

        Raises:
            OSError: It cannot be written; there is none then.
        """
        path = folder / f"{number:06}{SUFFIX}"
        fd = disk.create(path)
        try:
            head = SEGMENT_MAGIC + image.encode()
            disk.write(fd, [head.ljust(PAGE, b"\0")], 0)
        except BaseException:  # raised again: no half segment stays
            os.close(fd)
            with contextlib.suppress(OSError):
                disk.remove(path)
            raise
        return cls(number, path, fd, disk)

    def close(self) -> None:
        """Closes the file."""
        os.close(self.fd)

    @property
    def size(self) -> int:
        """Bytes of the file, whatever they are."""
        return os.fstat(self.fd).st_size

    @property
    def changed_ns(self) -> int:
        """When the file was last written, by anybody."""
        return os.fstat(self.fd).st_mtime_ns

    def is_begun(self, image: str) -> bool:
        """Is its head there?

        Raises:
            PageLogError: It is of another base image.
        """
        head = os.pread(self.fd, PAGE, 0)
        if len(head) < PAGE or not head.startswith(SEGMENT_MAGIC):
            return False
        found = head[len(SEGMENT_MAGIC) :].rstrip(b"\0").decode("ascii", "replace")
        if found != image:
            raise PageLogError(self.path.name, f"of base image {found}, not {image}")
        return True

    def scan(self) -> Iterator[tuple[int, Checkpoint]]:
        """(kind, content) of the records that are whole; afterwards `end` is where they end."""
        self._visible_bytes = self.size if self.limit is None else min(self.size, self.limit)
        self.end = PAGE
        while (found := self._record()) is not None:
            kind, checkpoint, self.end = found
            yield kind, checkpoint

    def _record(self) -> tuple[int, Checkpoint, int] | None:
        """(kind, its content, where the next one begins) of the record at `end`, if one is."""
        measured = records.measure(os.pread(self.fd, records.RECORD_BYTES, self.end))
        if measured is None:
            return None
        length, data = measured
        first = self.end + records.whole(length)
        end = first + PAGE * data
        if end > self._visible_bytes:
            return None
        found = records.decode(os.pread(self.fd, length, self.end), self.number, first)
        return None if found is None else (*found, end)

    def is_damaged(self) -> bool:
        """Did `scan` end before something that was a record?

        Of what another process has written since nothing is said.
        """
        return self._visible_bytes > self.end and any(os.pread(self.fd, 4, self.end))

    def trim(self) -> None:
        """Cuts off what stands after the end.

        Raises:
            OSError: It cannot be.
        """
        if self.size > self.end:
            self._disk.truncate(self.fd, self.end)

    def commit(self, kind: int, found: Checkpoint, data: Sequence[Any]) -> None:
        """Appends a record.

        Args:
            kind: One of records.py's.
            found: What it says.
            data: Its pages, as buffers.

        Raises:
            OSError: It cannot be written; the segment is as it was.
        """
        head = records.encode(kind, found)
        try:
            if data:
                self._disk.write(self.fd, data, self.end + len(head))
            self._disk.write(self.fd, [head], self.end)
        except OSError:
            with contextlib.suppress(OSError):
                self._disk.truncate(self.fd, self.end)
            raise
        self.end += len(head) + PAGE * found.written
        self.stamp = self.changed_ns
