"""The page log: every state that a session's linear memory had, as the pages that changed.

A folder of segments, files of records that are only ever appended to (segments.py).

A checkpoint is the state of its parent with its runs over it; without a parent, that of the base
image. Checkpoints form a tree: going back and on from there begins a branch. Old segments are
dropped whole, after the oldest state that stays has been written once more, complete, and what
stands on it in dropped segments once more as it was (both WHOLE).

The log reads and writes files and decides nothing: which pages changed is the worker's business,
and what a checkpoint is called that of its notes. Standard library only. It is long because
reading, writing and dropping keep one index of what stands where.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from typing import TYPE_CHECKING, Any

from wasi_kernel import records
from wasi_kernel.errors import PageLogError
from wasi_kernel.records import CHECKPOINT, HEAD, NAME, PAGE, WHOLE, Checkpoint, Run, Table
from wasi_kernel.segments import SUFFIX, Disk, Segment, bequeath, inherited, number_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

SEGMENT_CHECKPOINTS = 50
SEGMENT_PART = 8
"""A segment that has this part of all the bytes allowed is the last one no longer."""

PIECE_PAGES = 256


class PageLog:
    """The log in one folder, which one process at a time may append to.

    Attributes:
        image: Digest of the base image that states without a parent are made of.
        head: The checkpoint that memory is at, or 0.
        head_notes: The notes of what made it the head: of the checkpoint itself, or of `move`.
        names: {name: checkpoint id}.
        damage: What was found damaged when the folder was opened, one line each.
    """

    def __init__(
        self, folder: Path, image: str, disk: Disk | None = None, *, read_only: bool = False
    ) -> None:
        """Opens the log in `folder`, or begins one there.

        Args:
            folder: Where its segments are.
            image: Digest of the base image.
            disk: What writes.
            read_only: Another process may be appending to it: nothing is cut or removed.

        Raises:
            PageLogError: The log there belongs to another base image.
            OSError: The folder cannot be read or written.
        """
        self._folder, self.image = folder, image
        self._disk = Disk() if disk is None else disk
        self._read_only = read_only
        self._segments: dict[int, Segment] = {}
        self._checkpoints: dict[int, Checkpoint] = {}
        self._table, self._at = Table(), 0
        self._last = 0
        self.head = 0
        self.head_notes: dict[str, Any] = {}
        self.names: dict[str, int] = {}
        self.damage: list[str] = []
        try:
            self._open()
        except BaseException:  # raised again: nothing stays open
            self.close()
            raise

    def close(self) -> None:
        """Closes the segments; memory that is mapped from them stays."""
        for segment in self._segments.values():
            segment.close()
        self._segments = {}

    # -- reading the folder ------------------------------------------------------------------

    def _open(self) -> None:
        limits = inherited(self._folder)
        while not self._open_all(limits):
            self.close()
            self._checkpoints, self.names, self.damage = {}, {}, []
            self.head, self.head_notes = 0, {}
        self._sort_out()

    def _open_all(self, limits: dict[int, int]) -> bool:
        """Reads all segments; False: one was dropped meanwhile, so that it must be done again.

        Raises:
            PageLogError: They all belong to another base image.
        """
        others: list[PageLogError] = []
        for path in sorted(self._folder.glob(f"*{SUFFIX}")):
            number = number_of(path)
            if number is None:
                continue  # no file of ours
            limit = limits.get(number)
            try:
                segment = Segment.open(number, path, self._disk, limit, read_only=self._read_only)
            except FileNotFoundError:  # dropped just now, by the process that writes
                return False
            self._segments[number] = segment
            try:
                begun = segment.is_begun(self.image)
            except PageLogError as e:
                others.append(e)
                self._segments.pop(number).close()
                continue
            if begun:
                self._scan(segment)
            else:  # killed while it was begun
                if segment.size > PAGE:
                    self.damage.append(f"the head of {path.name} is damaged")
                self._segments.pop(number).close()
                if not self._read_only:
                    self._disk.remove(path)
        if others and not self._segments:
            raise others[0]
        self.damage += map(str, others)
        return True

    def _sort_out(self) -> None:
        """Forgets what does not stand on anything."""
        kept: dict[int, Checkpoint] = {}
        for each in sorted(self._checkpoints.values(), key=lambda c: c.id):
            if each.parent == 0 or each.parent in kept:
                kept[each.id] = each
        for n, k in self.names.items():
            if k not in kept:
                self.damage.append(f"checkpoint {k}, named {n}, is damaged")
        self._checkpoints = kept  # without those whose segment was dropped, or is damaged
        self.names = {n: k for n, k in self.names.items() if k in kept}
        if self.head and self.head not in kept:
            self.damage.append(f"checkpoint {self.head} stands on one that is damaged")
            self.head = max((k for k in kept if k < self.head), default=0)
            self.head_notes = kept[self.head].notes if self.head else {}

    def _scan(self, segment: Segment) -> None:
        for kind, found in segment.scan():
            self._take(segment, kind, found)
        if segment.is_damaged():
            self.damage.append(f"a record is damaged in {segment.path.name} at {segment.end}")
        if segment.limit is None and not self._read_only:
            segment.trim()  # or it could be taken for records one day

    def _take(self, segment: Segment, kind: int, found: Checkpoint) -> None:
        self._last = max(self._last, found.id, found.parent)
        if kind in (CHECKPOINT, WHOLE):
            self._checkpoints[found.id] = found
            segment.checkpoints += 1
            if kind == CHECKPOINT:
                self.head, self.head_notes = found.id, found.notes
        elif kind == HEAD:
            self.head, self.head_notes = found.id, found.notes
        elif found.id:
            self.names[str(found.notes.get("name"))] = found.id
        else:
            self.names.pop(str(found.notes.get("name")), None)

    # -- looking -----------------------------------------------------------------------------

    @property
    def size(self) -> int:
        """Bytes of all segments."""
        return sum(s.end for s in self._segments.values())

    def __len__(self) -> int:
        return len(self._checkpoints)

    def __iter__(self) -> Iterator[Checkpoint]:
        return iter(self._checkpoints.values())

    @property
    def newest(self) -> int:
        """The last checkpoint that was added, 0 if it is not there any more."""
        return self._last if self._last in self._checkpoints else 0

    def __contains__(self, ident: int) -> bool:
        return ident in self._checkpoints

    def __getitem__(self, ident: int) -> Checkpoint:
        return self._checkpoints[ident]

    def chain(self, ident: int) -> Iterator[Checkpoint]:
        """That checkpoint, its parent, and so on to the oldest."""
        while ident:
            found = self._checkpoints[ident]
            yield found
            ident = found.parent

    def children(self, ident: int) -> list[int]:
        """The checkpoints that stand on that one, oldest first."""
        return sorted(c.id for c in self._checkpoints.values() if c.parent == ident)

    def fileno(self, place: int) -> tuple[int, int]:
        """(descriptor, offset) of a run's place."""
        return self._segments[(place ^ records.PRESENT) >> 32].fd, (place & 0xFFFFFFFF) * PAGE

    def read(self, run: Run) -> bytes:
        """The run's pages."""
        fd, offset = self.fileno(run.place)
        return os.pread(fd, run.count * PAGE, offset)

    def pieces(self, runs: Iterable[Run]) -> Iterator[bytes]:
        """The bytes of runs, at most a megabyte at once."""
        for run in runs:
            for at in range(0, run.count, PIECE_PAGES):
                some = min(PIECE_PAGES, run.count - at)
                yield self.read(Run(run.page + at, some, run.place + at))

    def state(self, ident: int) -> list[Run]:
        """Where each page of that state lies, in runs by page; the base image has all others."""
        self._go(ident)
        return self._table.runs()

    def between(self, start: int, end: int) -> list[Run]:
        """`state` of the head, for the pages from `start` to before `end`."""
        self._go(self.head)
        return self._table.runs(start, end)

    def has(self, start: int, end: int) -> bool:
        """Is any of these pages of the head's state in the log?"""
        self._go(self.head)
        return self._table.has(start, end)

    def _go(self, ident: int) -> None:
        """Makes the table that of checkpoint `ident`."""
        if ident == self._at:
            return
        wanted = [c.id for c in self.chain(ident)]
        known = set(wanted)
        back = []
        at = self._at
        while at and at not in known and self._table.can_revert(at):
            back.append(at)
            at = self._checkpoints[at].parent
        if at not in known:
            self._table, back, at = Table(), [], 0
        for each in back:
            parent = self._checkpoints[each].parent
            pages = self._checkpoints[parent].pages if parent else 0
            self._table.revert(self._checkpoints[each], pages)
        for each in reversed(wanted[: wanted.index(at)] if at else wanted):
            self._table.apply(self._checkpoints[each])
        self._at = ident

    def verify(self, ident: int) -> int:
        """Checks the pages that the state of `ident` is made of, those not checked before.

        Those of a segment that somebody else has written to meanwhile are checked again.

        Returns:
            0 if they are what was written, else the checkpoint that one of them is of.
        """
        for segment in self._segments.values():
            stamp = segment.changed_ns
            if stamp != segment.stamp:
                segment.stamp = stamp
                segment.verified.clear()
        self._go(ident)
        for found in self.chain(ident):
            verified = self._segments[found.segment].verified
            for run in found.runs:
                if run.place in verified or not self._table.uses(run):
                    continue
                crc = 0
                for data in self.pieces([run]):
                    crc = zlib.crc32(data, crc)
                if crc != run.crc:
                    self.damage.append(f"pages of checkpoint {found.id} are damaged")
                    return found.id
                verified.add(run.place)
        return 0

    def newest_sound(self) -> int:
        """The head, or the newest state before it that is undamaged; 0 if there is none."""
        ident = self.head
        while ident and (bad := self.verify(ident)):
            ident = self._checkpoints[bad].parent
        return ident

    # -- writing -----------------------------------------------------------------------------

    def append(
        self, pages: int, changed: Iterable[tuple[int, Any]], notes: dict[str, Any]
    ) -> Checkpoint:
        """Commits a checkpoint on the head, which it becomes.

        Args:
            pages: How many pages memory has.
            changed: (first page, buffer of whole pages) of what differs from the head's state.
            notes: What to keep with it.

        Raises:
            OSError: It could not be written; the log is as it was.
        """
        return self._add(self._last + 1, self.head, pages, changed, notes)

    def _add(
        self, ident: int, parent: int, pages: int, changed: Iterable[tuple[int, Any]],
        notes: dict[str, Any],
    ) -> Checkpoint:  # fmt: skip
        segment = self._open_segment()
        spans = [(page, memoryview(data).cast("B")) for page, data in changed]
        first = segment.end + records.head_bytes(len(spans), notes)
        place, runs = records.place_in(segment.number, first), []
        for page, data in spans:
            runs.append(Run(page, len(data) // PAGE, place, zlib.crc32(data)))
            place += len(data) // PAGE
        found = Checkpoint(ident, parent, pages, tuple(runs), notes, segment.number)
        segment.commit(CHECKPOINT, found, [data for _, data in spans])
        self._take(segment, CHECKPOINT, found)
        segment.verified.update(run.place for run in runs)
        if self._at == parent != ident:
            self._table.apply(found)
            self._at = ident
        return found

    def move(self, ident: int, notes: dict[str, Any] | None = None) -> None:
        """Makes that checkpoint the head: memory is there again."""
        self._note(HEAD, ident, notes or {})

    def name(self, name: str, ident: int) -> None:
        """Names a checkpoint; 0 takes the name away."""
        self._note(NAME, ident, {"name": name})

    def _note(self, kind: int, ident: int, notes: dict[str, Any]) -> None:
        segment = self._open_segment()
        found = Checkpoint(ident, 0, 0, (), notes, segment.number)
        segment.commit(kind, found, [])
        self._take(segment, kind, found)

    def _open_segment(self) -> Segment:
        """The segment to append to: the last one if it is our own, else a new one."""
        if self._read_only:
            raise PageLogError(self._folder.name, "it was opened to be read only")
        if self._segments:
            last = self._segments[max(self._segments)]
            if last.limit is None:
                last.trim()
                return last
        return self._begin()

    def _begin(self) -> Segment:
        number = max(self._segments, default=0) + 1
        self._segments[number] = Segment.begin(number, self._folder, self.image, self._disk)
        return self._segments[number]

    # -- bounds ------------------------------------------------------------------------------

    def compact(self, keep: int, limit_bytes: int, is_cell: Callable[[Checkpoint], bool]) -> bool:
        """Drops the oldest segments while there is more than asked for; did it drop one?

        What the head and the named checkpoints need is written once more, complete, before. If that
        is the head itself, the newest cells are taken along as far as there is room for them: a
        user can always undo the last one, unless the present state alone is too large.

        Args:
            keep: So many cells before the head stay; up to a segment's more do.
            limit_bytes: The size of all segments, as far as the head's own state allows.
            is_cell: Which checkpoints count as cells.

        Raises:
            OSError: The disk is full; what is there stays.
            PageLogError: What is needed is damaged; what is there stays.
        """
        last = self._open_segment()
        if last.checkpoints >= SEGMENT_CHECKPOINTS or last.end >= limit_bytes // SEGMENT_PART:
            self._begin()
        victims = self._victims(keep, limit_bytes, is_cell)
        if victims:
            self._drop(victims, keep, limit_bytes)
        return bool(victims)

    def _victims(
        self, keep: int, limit_bytes: int, is_cell: Callable[[Checkpoint], bool]
    ) -> list[Segment]:
        """The oldest segments that are to go."""
        oldest = [self._segments[number] for number in sorted(self._segments)[:-1]]
        cells, low = [], self._open_segment().number
        for c in self.chain(self.head):
            low = min(low, c.segment)  # what is written once more does not last longer for it
            if is_cell(c) and c.parent:
                cells.append(low)
        enough = 0  # so many of the oldest can go for the number of cells after them
        for segment in oldest:
            enough += sum(low > segment.number for low in cells) >= keep
        if self.size <= limit_bytes or not oldest:
            return oldest[:enough]
        after = self.size + self._needed_bytes()
        for k, segment in enumerate(oldest):
            after -= segment.end
            if k + 1 >= enough and after <= limit_bytes:
                return oldest[: k + 1]
        return oldest if after < self.size else oldest[:enough]

    def _needed_bytes(self) -> int:
        """About what it takes to write the head and the named states once more."""
        states = [self.state(ident) for ident in {self.head, *self.names.values()}]
        return PAGE * sum(run.count for state in states for run in state)

    def _tail(self, keep: int, left_bytes: int, limit_bytes: int) -> list[Checkpoint]:
        """The newest checkpoints, the head last, that fit into the log beside `left_bytes`.

        They and the state that they stand on, which is taken to be as large as the head's, are to
        be written once more; they take no more than a segment does. None of them is damaged.
        """
        found: list[Checkpoint] = []
        room = min(limit_bytes - left_bytes - self._needed_bytes(), limit_bytes // SEGMENT_PART)
        for each in self.chain(self.head):
            room -= records.head_bytes(len(each.runs), each.notes) + PAGE * each.written
            if not each.parent or room < 0 or len(found) == keep:
                break
            if self.verify(each.id) or self.verify(each.parent):
                break
            found.append(each)
        return found[::-1]

    def _drop(self, victims: list[Segment], keep: int, limit_bytes: int) -> None:
        """Drops segments, after what is needed of them has been written elsewhere.

        Raises:
            OSError: It could not be written; all is as it was.
            PageLogError: It is damaged, and would get a new checksum.
        """
        numbers = {segment.number for segment in victims}
        needed: list[int] = []
        for kept in (self.head, *self.names.values()):
            needed += [c.id for c in self.chain(kept) if c.segment in numbers][:1]
        tail: list[Checkpoint] = []
        if self.head and self._checkpoints[self.head].segment in numbers:
            left_bytes = self.size - sum(segment.end for segment in victims)
            tail = self._tail(keep, left_bytes, limit_bytes)
            needed[0] = tail[0].parent if tail else self.head
        for ident in needed:
            if self.verify(ident):
                raise PageLogError(self._folder.name, self.damage[-1])
        last = self._open_segment()
        was = last.end, last.checkpoints, dict(self._checkpoints)
        try:
            self._rewrite(needed, tail)
        except OSError:
            last.end, last.checkpoints, self._checkpoints = was
            self._forget_tables()
            with contextlib.suppress(OSError):
                self._disk.truncate(last.fd, last.end)
            raise
        for ident in [k for k, c in self._checkpoints.items() if c.segment in numbers]:
            del self._checkpoints[ident]
        self._prune()
        for segment in victims:
            self._disk.remove(segment.path)
            self._segments.pop(segment.number).close()

    def _rewrite(self, needed: list[int], tail: list[Checkpoint]) -> None:
        for ident in dict.fromkeys(needed):
            self._write_whole(ident)
        for found in tail:
            self._write_again(found)
        for name, ident in self.names.items():  # what says so may stand in what is dropped
            self._note(NAME, ident, {"name": name})
        if self.head or self.head_notes:
            self._note(HEAD, self.head, self.head_notes)

    def _write_whole(self, ident: int) -> None:
        """Writes a checkpoint once more, with everything that differs from the base image."""
        found = self._checkpoints[ident]
        self._copy(found, 0, records.joined(self.state(ident)))

    def _write_again(self, found: Checkpoint) -> None:
        """Writes a checkpoint once more, with what differs from its parent."""
        self._copy(found, found.parent, [[run] for run in found.runs])

    def _copy(self, found: Checkpoint, parent: int, spans: list[list[Run]]) -> None:
        """Writes a checkpoint once more, on that parent; `spans`: what lies together in memory."""
        segment = self._open_segment()
        first = segment.end + records.head_bytes(len(spans), found.notes)
        place, runs, offset = records.place_in(segment.number, first), [], first
        try:
            for parts in spans:
                crc, count = 0, sum(part.count for part in parts)
                for data in self.pieces(parts):
                    self._disk.write(segment.fd, [data], offset)
                    crc, offset = zlib.crc32(data, crc), offset + len(data)
                runs.append(Run(parts[0].page, count, place, crc))
                place += count
            number, notes = segment.number, found.notes
            whole = Checkpoint(found.id, parent, found.pages, tuple(runs), notes, number)
            self._disk.write(segment.fd, [records.encode(WHOLE, whole)], segment.end)
        except OSError:
            with contextlib.suppress(OSError):
                self._disk.truncate(segment.fd, segment.end)
            raise
        segment.end = offset
        self._take(segment, WHOLE, whole)
        segment.verified.update(run.place for run in runs)
        self._forget_tables()

    def _prune(self) -> None:
        """Forgets checkpoints whose parents are gone."""
        for ident in sorted(self._checkpoints):
            parent = self._checkpoints[ident].parent
            if parent and parent not in self._checkpoints:
                del self._checkpoints[ident]
        self.names = {n: k for n, k in self.names.items() if k in self._checkpoints}
        self._forget_tables()

    def _forget_tables(self) -> None:
        self._table, self._at = Table(), 0

    # -- forks -------------------------------------------------------------------------------

    def fork(self, folder: Path) -> None:
        """Makes `folder`, which is empty, a log with this one's past; no page is copied.

        Raises:
            OSError: The folder is on another file system.
        """
        bequeath(self._segments.values(), folder)
