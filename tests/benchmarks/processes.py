"""Memory of processes, as Linux accounts for it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import psutil

_AREA = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S{4}) \S+ \S+ \S+ *(.*)")


@dataclass
class Area:
    """One mapping of a process.

    Attributes:
        start: Its first address.
        end: That behind it.
        mode: As in "rw-p".
        name: The file, if it is of one.
        private: Bytes in memory that no other process has.
    """

    start: int
    end: int
    mode: str
    name: str
    private: int = 0


def areas(pid: int) -> list[Area]:
    """A process's mappings, by address."""
    found: list[Area] = []
    for line in Path(f"/proc/{pid}/smaps").read_text(encoding="utf-8").splitlines():
        if m := _AREA.fullmatch(line):
            found.append(Area(int(m[1], 16), int(m[2], 16), m[3], m[4]))
        elif line.startswith(("Private_Clean:", "Private_Dirty:")):
            found[-1].private += 1024 * int(line.split()[1])
    return found


def linear_memory_private(pid: int) -> int:
    """Bytes of a guest's linear memory that no other process has.

    It is the block of mappings, one right after another and all to be written, in which the base
    image is.
    """
    blocks: list[list[Area]] = []
    for area in areas(pid):
        if area.mode != "rw-p":
            continue
        if blocks and blocks[-1][-1].end == area.start:
            blocks[-1].append(area)
        else:
            blocks.append([area])
    return sum(
        area.private
        for block in blocks
        if any(area.name.endswith(".image") for area in block)
        for area in block
    )


def descendants() -> set[int]:
    """The processes that this one has started, and theirs."""
    return {p.pid for p in psutil.Process().children(recursive=True)}


def private(pid: int) -> int:
    """Bytes in memory that no other process has."""
    return int(psutil.Process(pid).memory_full_info().uss)
