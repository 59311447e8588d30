"""Dirty pages: which pages of linear memory differ from the state that the page log has.

Two ways behind one interface. On Linux memory is mapped privately from the base image and the log,
so a page that was written since is an anonymous one, and /proc/self/pagemap says which those are
(bit 61 of an entry is clear; https://docs.kernel.org/admin-guide/mm/pagemap.html). Elsewhere, or
where that file cannot be read, memory is a copy, and is compared with what the log has.
"""

from __future__ import annotations

import contextlib
import functools
import mmap
import os
import sys
from typing import TYPE_CHECKING, Protocol

from wasi_kernel.records import PAGE
from wasi_kernel.worker import images

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from wasi_kernel.pagelog import PageLog
    from wasi_kernel.records import Run
    from wasi_kernel.worker.memory import LinearMemory

Span = tuple[int, int]
"""(first page, pages)."""

GAP = 3
"""So many clean pages between two dirty ones are written with them: a longer run costs less than
two mappings."""

HOT_PAGES = 4096
"""So many pages at most are watched by their content (which takes as much memory again) instead of
being mapped anew."""

COOL = 8
"""Each so many checkpoints, a page that so many found unchanged is mapped again, and it is
forgotten which ones were."""

_WRITTEN = bytes(b >> 5 in (0b100, 0b010) for b in range(256))
"""For the top byte of a pagemap entry: present or swapped (bits 63, 62), and not of a file (61)."""

_ZERO = bytes(images.CHUNK)


@functools.cache
def pagemap() -> int:
    """The process's own page map, opened once: before it is confined, for later it cannot be.

    Raises:
        OSError: There is none.
    """
    return os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)


def written(memory: LinearMemory) -> bytes | None:
    """A mark for each page that was written since it was mapped; None: nobody knows here."""
    size = memory.size()
    try:
        return _marks_of(pagemap(), memory.address(0, size), size // PAGE)
    except OSError:
        return None


def _marks_of(fd: int, address: int, pages: int) -> bytes:
    """Raises OSError if the page map has not as many pages."""
    data = os.pread(fd, 8 * pages, address // PAGE * 8)
    if len(data) != 8 * pages:
        raise OSError("the page map is cut short")
    return (data[7::8] if sys.byteorder == "little" else data[::8]).translate(_WRITTEN)


def regions(marks: bytes | bytearray, start: int = 0, gap: int = 1) -> Iterator[tuple[int, int]]:
    """(start, end) of the marked pages (1, not 0) that are less than `gap` unmarked ones apart."""
    between = bytes(gap)
    at = marks.find(1, start)
    while at >= 0:
        end = marks.find(between, at)
        if end < 0:
            end = marks.rfind(1) + 1
        yield at, end
        at = marks.find(1, end)


def spans(marks: bytes | bytearray) -> list[Span]:
    """The spans that cover the marked pages (1, not 0), and some between them."""
    return [(start, end - start) for start, end in regions(marks, gap=GAP + 1)]


class Tracker(Protocol):
    """How changed pages are found, and how memory becomes what the log has."""

    def begin(self) -> None:
        """The memory is another instance's from here on."""

    def put(self, memory: LinearMemory, run: Run, fd: int, offset: int) -> None:
        """Makes these pages of memory what stands in the file."""

    def changed(self, memory: LinearMemory, log: PageLog) -> bytearray:
        """A mark for each page: 1 if it may differ from the log's head."""

    def glance(self, memory: LinearMemory, log: PageLog) -> bytearray:
        """`changed`, of a guest that may be in the middle of a turn: leaves everything as it is."""

    def settle(self, memory: LinearMemory, log: PageLog) -> None:
        """The log's head is memory as it is now."""


class MappedPages:
    """Linux: the kernel knows which pages of a private mapping were written.

    Mapping a page anew makes it clean, and the next write to it costs a fault. Pages that are
    written again and again (some hundred by nearly every cell: the interpreter's own) are therefore
    left as they are and watched: what the log has of them is kept here, and compared. Most of them
    are what they were, for a reference was only taken and given back.

    Raises:
        OSError: On construction: /proc/self/pagemap cannot be used.
    """

    def __init__(self, image_bytes: int) -> None:
        if sys.platform != "linux" or mmap.PAGESIZE != PAGE:
            raise OSError("no page map of 4 KiB pages here")
        self._image_pages = image_bytes // PAGE
        self.begin()
        self._pagemap = pagemap()
        probe = mmap.mmap(-1, PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        probe[0] = 1
        if not self._written(images.address_of(probe), 1)[0]:
            raise OSError("the page map does not show written pages")

    def _written(self, address: int, pages: int) -> bytes:
        """A mark for each of so many pages."""
        return _marks_of(self._pagemap, address, pages)

    def begin(self) -> None:
        """Forgets what was known of another instance's memory."""
        self._round = 0  # of `settle`
        self._known: dict[int, bytes] = {}  # {watched page: what the log has}
        self._since: dict[int, int] = {}  # {watched page: the round that it last changed in}
        self._waits: dict[int, int] = {}  # {watched page mapped in vain: rounds to the next time}
        self._mapped = bytearray()  # marks the pages that were mapped in the last rounds
        self._found = bytearray()  # marks the pages that were written, at the last `changed`
        self._now: dict[int, bytes] = {}  # {watched page that differs: what it is}

    def put(self, memory: LinearMemory, run: Run, fd: int, offset: int) -> None:
        """Maps the pages from the file."""
        images.map_file(memory, run.page * PAGE, run.count * PAGE, fd, offset)

    def changed(self, memory: LinearMemory, log: PageLog) -> bytearray:
        """The anonymous pages, but for watched ones that are the same, and untouched zeros."""
        marks, self._found, self._now = self._differing(memory, log, images.forget)
        return marks

    def glance(self, memory: LinearMemory, log: PageLog) -> bytearray:
        """The same, and no page is given back."""
        return self._differing(memory, log, lambda *_: None)[0]

    def _differing(
        self, memory: LinearMemory, log: PageLog, forget: Callable[[LinearMemory, int, int], None]
    ) -> tuple[bytearray, bytearray, dict[int, bytes]]:
        """(marks, all that was written, the watched pages of it that differ).

        `forget` gets what is zero again.
        """
        pages = memory.size() // PAGE
        written = bytearray(self._written(memory.address(0, pages * PAGE), pages))
        for start, end in list(regions(written, self._image_pages)):
            self._leave_zeros(memory, log, written, start, end, forget)
        marks, view, now = bytearray(written), memory.view(), {}
        for page, known in self._known.items():
            if marks[page]:
                data = bytes(view[page * PAGE : page * PAGE + PAGE])
                if data == known:
                    marks[page] = 0
                else:
                    now[page] = data
        return marks, written, now

    def settle(self, memory: LinearMemory, log: PageLog) -> None:
        """Maps what has cooled down, and too much to be watched; remembers the rest.

        Follows `changed`, and memory is still what it was then.
        """
        self._round += 1
        known, found = self._known, self._found
        for page in [page for page in known if not found[page]]:  # mapped, and not written since
            del known[page], self._since[page]
            self._waits.pop(page, None)
        known.update(self._now)
        self._since.update(dict.fromkeys(self._now, self._round))
        fresh = bytearray(found)
        for page in known:
            fresh[page] = 0
        cold = self._watch(memory, fresh)
        if self._round % COOL == 0:
            self._mapped = bytearray(len(found))
            self._cool(cold)
        for start, count in spans(cold):
            for run in log.between(start, start + count):
                with contextlib.suppress(OSError):  # stays as it is, and counts as written
                    self.put(memory, run, *log.fileno(run.place))

    def _watch(self, memory: LinearMemory, fresh: bytearray) -> bytearray:
        """Watches from now on the fresh pages that were mapped not long ago; marks the others."""
        view, known, cold = memory.view(), self._known, bytearray(fresh)
        mapped = self._mapped = self._mapped.ljust(len(fresh), b"\0")
        for start, end in regions(fresh):
            page = mapped.find(1, start, end)
            while page >= 0 and len(known) < HOT_PAGES:
                if fresh[page]:
                    known[page] = bytes(view[page * PAGE : page * PAGE + PAGE])
                    self._since[page], cold[page] = self._round, 0
                page = mapped.find(1, page + 1, end)
            mapped[start:end] = fresh[start:end]
        return cold

    def _cool(self, cold: bytearray) -> None:
        """Marks the watched pages that have not changed for long.

        They stay watched until the next round: those that are written again, with what they were,
        were mapped in vain, and are left alone for longer.
        """
        for page, since in self._since.items():
            wait = self._waits.get(page, COOL)
            if self._round - since >= wait:
                cold[page] = 1
                self._waits[page] = wait * COOL
                self._since[page] = self._round

    def _leave_zeros(
        self, memory: LinearMemory, log: PageLog, marks: bytearray, start: int, end: int,
        forget: Callable[[LinearMemory, int, int], None],
    ) -> None:  # fmt: skip
        """Unmarks pages beyond the base image that are zero and never were anything else."""
        step = images.CHUNK // PAGE
        for page in range(start, end, step):
            upto = min(end, page + step)
            length = (upto - page) * PAGE
            if not log.has(page, upto) and memory.read(page * PAGE, length) == _ZERO[:length]:
                forget(memory, page * PAGE, length)
                marks[page:upto] = bytes(upto - page)


class ComparedPages:
    """Anywhere: memory is a copy, and is compared with the base image and the log."""

    def __init__(self, image: Path, image_bytes: int) -> None:
        self._image = os.open(image, os.O_RDONLY | os.O_CLOEXEC)
        self._image_pages = image_bytes // PAGE

    def begin(self) -> None:
        """Nothing: what is compared is the content."""

    def put(self, memory: LinearMemory, run: Run, fd: int, offset: int) -> None:
        """Copies the pages from the file."""
        images.copy_file(memory, run.page * PAGE, run.count * PAGE, fd, offset)

    def settle(self, memory: LinearMemory, log: PageLog) -> None:
        """Nothing: what is compared is the content."""

    def changed(self, memory: LinearMemory, log: PageLog) -> bytearray:
        """The pages whose content differs."""
        return self.glance(memory, log)

    def glance(self, memory: LinearMemory, log: PageLog) -> bytearray:
        """The same: comparing changes nothing."""
        marks = bytearray(memory.size() // PAGE)
        step = images.CHUNK // PAGE
        for page in range(0, len(marks), step):
            upto = min(len(marks), page + step)
            now, before = memory.read(page * PAGE, (upto - page) * PAGE), self._was(log, page, upto)
            if now != before:
                for k in range(upto - page):
                    at = slice(k * PAGE, (k + 1) * PAGE)
                    marks[page + k] = now[at] != before[at]
        return marks

    def _was(self, log: PageLog, start: int, end: int) -> bytes:
        """What these pages are at the log's head."""
        inside = max(0, min(end, self._image_pages) - start)
        data = os.pread(self._image, inside * PAGE, start * PAGE) if inside else b""
        found = bytearray(data.ljust((end - start) * PAGE, b"\0"))
        for run in log.between(start, end):
            at = (run.page - start) * PAGE
            found[at : at + run.count * PAGE] = log.read(run)
        return bytes(found)


def tracker(image: Path, image_bytes: int, *, compare: bool = False) -> Tracker:
    """The better way that works here; `compare` forces the other one."""
    if not compare and images.can_map():
        try:
            return MappedPages(image_bytes)
        except OSError:
            pass
    return ComparedPages(image, image_bytes)
