"""Records of the page log, as bytes and as data: pure, no I/O.

Integers are little-endian. What stands before a record's data, padded with zeros to whole pages::

    u32 magic, u32 kind, u64 id, u64 parent (0: none), u32 memory pages,
    u32 runs, u32 data pages, u32 bytes of notes, u32 crc of all this (itself as 0) up to the data
    per run: u32 first page, u32 pages, u32 crc of them
    notes   JSON
"""

from __future__ import annotations

import json
import re
import struct
import sys
import zlib
from array import array
from itertools import chain, groupby
from itertools import count as counter
from operator import eq, sub
from typing import Any, NamedTuple

PAGE = 4096
MAGIC = 0x504B4357
CHECKPOINT, HEAD, NAME, WHOLE = 1, 2, 3, 4  # kinds of records
MAX_NOTES = 1 << 20
PRESENT = 1 << 56
"""Bit of every place: a table's entry of 0 means the base image."""

_RECORD = struct.Struct("<IIQQIIIII")
_RUN = struct.Struct("<III")
_MARKED = re.compile(rb"\x01+")
RECORD_BYTES = _RECORD.size


class Run(NamedTuple):
    """Pages that follow one another, in memory and in a segment.

    Attributes:
        page: The first one's number in linear memory.
        count: How many.
        place: Where the first one lies: PRESENT | the segment's number << 32 | the page in it.
        crc: CRC-32 of all of them.
    """

    page: int
    count: int  # type: ignore[assignment]  # tuple.count is not used
    place: int
    crc: int = 0


class Checkpoint(NamedTuple):
    """One state of memory.

    Attributes:
        id: Its number; later ones are greater.
        parent: The checkpoint that its runs lie over; 0 for the base image.
        pages: How many pages memory had.
        runs: What differs from the parent.
        notes: What the worker keeps with it, JSON-able.
        segment: The segment that it stands in.
    """

    id: int
    parent: int
    pages: int
    runs: tuple[Run, ...]
    notes: dict[str, Any]
    segment: int

    @property
    def written(self) -> int:
        """How many pages it wrote."""
        return sum(run.count for run in self.runs)


def place_in(segment: int, offset: int) -> int:
    """The place of the page at `offset` of a segment."""
    return PRESENT | segment << 32 | offset // PAGE


def encode(kind: int, found: Checkpoint) -> bytes:
    """What stands before a record's data, whole pages.

    Raises:
        ValueError: The notes are longer than MAX_NOTES.
    """
    notes = json.dumps(found.notes, separators=(",", ":")).encode()
    if len(notes) > MAX_NOTES:
        raise ValueError(f"notes of {len(notes)} bytes, at most {MAX_NOTES}")
    runs = b"".join(_RUN.pack(r.page, r.count, r.crc) for r in found.runs)
    fields = (
        MAGIC, kind, found.id, found.parent, found.pages, len(found.runs), found.written,
        len(notes),
    )  # fmt: skip
    crc = zlib.crc32(_RECORD.pack(*fields, 0) + runs + notes)
    data = _RECORD.pack(*fields, crc) + runs + notes
    return data.ljust(whole(len(data)), b"\0")


def head_bytes(runs: int, notes: dict[str, Any]) -> int:
    """How long `encode`'s result is for so many runs and these notes."""
    text = json.dumps(notes, separators=(",", ":")).encode()
    return whole(_RECORD.size + _RUN.size * runs + len(text))


def measure(head: bytes) -> tuple[int, int] | None:
    """(bytes of text, pages of data) of the record that begins like that; None: it is none."""
    if len(head) < _RECORD.size:
        return None
    magic, _, _, _, _, runs, data, notes, _ = _RECORD.unpack_from(head)
    if magic != MAGIC or notes > MAX_NOTES:
        return None
    return _RECORD.size + _RUN.size * runs + notes, data


def decode(text: bytes, segment: int, offset: int) -> tuple[int, Checkpoint] | None:
    """(kind, content) of a record.

    Args:
        text: As many of its bytes as `measure` said.
        segment: The number of its segment.
        offset: Where in it the data begins.

    Returns:
        None if it is damaged.
    """
    _, kind, ident, parent, pages, count, data, notes, crc = _RECORD.unpack_from(text)
    blank = bytearray(text)
    blank[_RECORD.size - 4 : _RECORD.size] = bytes(4)
    if zlib.crc32(blank) != crc or len(text) != _RECORD.size + _RUN.size * count + notes:
        return None
    runs, place = [], place_in(segment, offset)
    for page, n, crc in _RUN.iter_unpack(text[_RECORD.size : len(text) - notes]):
        runs.append(Run(page, n, place, crc))
        place += n
    if place != place_in(segment, offset) + data or any(r.page + r.count > pages for r in runs):
        return None
    try:
        said = json.loads(text[len(text) - notes :])
    except (ValueError, RecursionError):
        return None
    if not isinstance(said, dict):
        return None
    return kind, Checkpoint(ident, parent, pages, tuple(runs), said, segment)


def whole(length: int) -> int:
    """`length`, up to the next whole page."""
    return -(-length // PAGE) * PAGE


def joined(runs: list[Run]) -> list[list[Run]]:
    """The runs, those that touch in memory together."""
    found: list[list[Run]] = []
    for run in runs:
        if found and found[-1][-1].page + found[-1][-1].count == run.page:
            found[-1].append(run)
        else:
            found.append([run])
    return found


class Table:
    """Where each page of one state lies: a place for what is in the log, 0 for the base image.

    Going from a state to one on it and back costs what differs between them.
    """

    def __init__(self) -> None:
        self._places = array("Q")
        self._before: dict[int, list[array[int]]] = {}

    def __len__(self) -> int:
        return len(self._places)

    def can_revert(self, ident: int) -> bool:
        """Is it known what that checkpoint lies over?"""
        return ident in self._before

    def apply(self, found: Checkpoint) -> None:
        """Takes the state of its parent to that of `found`."""
        table = self._places
        table.extend(array("Q", bytes(8 * max(0, found.pages - len(table)))))
        before, at = [], 0
        ranges = (range(place, place + n) for _, n, place, _ in found.runs)
        places = array("Q", chain.from_iterable(ranges))
        for page, n, _, _ in found.runs:
            before.append(table[page : page + n])
            table[page : page + n] = places[at : at + n]
            at += n
        self._before[found.id] = before

    def revert(self, found: Checkpoint, parent_pages: int) -> None:
        """Takes the state of `found` back to that of its parent, which had so many pages."""
        for run, before in zip(reversed(found.runs), reversed(self._before[found.id]), strict=True):
            self._places[run.page : run.page + run.count] = before
        del self._places[parent_pages:]

    def uses(self, run: Run) -> bool:
        """Is any of the run's pages part of this state?"""
        places = self._places[run.page : run.page + run.count]
        return any(map(eq, places, range(run.place, run.place + run.count)))

    def has(self, start: int, end: int) -> bool:
        """Is any of these pages in the log?"""
        return any(self._places[start:end])

    def runs(self, start: int = 0, end: int | None = None) -> list[Run]:
        """What of the pages from `start` to before `end` is in the log, in runs by page."""
        places = self._places[start:end]
        marks = places.tobytes()[7 if sys.byteorder == "little" else 0 :: 8]
        found = []
        for region in _MARKED.finditer(marks):
            at, stop = region.span()
            for _, group in groupby(map(sub, places[at:stop], counter())):
                n = sum(1 for _ in group)
                found.append(Run(start + at, n, places[at]))
                at += n
        return found
