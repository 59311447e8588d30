"""The map of a guest's linear memory: what lies where, what was written since when, how it grew.

Answers the looks `memory`, `peek` and `place` (looks.py). Reads only: the module's file
(binary.py), malloc's own records in memory (heap.py), the kernel's page map and the page log
(dirty.py, pagelog.py). What cannot be known is None, and `notes` say why. What is asked and what
stands in memory is the guest's word: wrong addresses make a wrong map for that guest, and nothing
else.

How memory grew is read out of the page log: each checkpoint says how large memory was, and the page
with malloc's record in it how much of the heap was given out. So no cell pays for it, and after an
undo it is the past of the state that holds.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, NamedTuple

from wasi_kernel import timeline
from wasi_kernel.records import PAGE, Run
from wasi_kernel.worker import binary, dirty, heap
from wasi_kernel.worker.looks import Refusal, Sight, number
from wasi_kernel.worker.memory import WASM_PAGE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from wasi_kernel.records import Checkpoint
    from wasi_kernel.worker.heap import Heap
    from wasi_kernel.worker.keeper import Keeper

KINDS = ("unknown", "stack", "static", "objects", "blocks", "free", "unused")
"""What may lie in a piece of the map; the answer has an index of this for each."""

SINCE = ("image", "differs", "now", "last")
"""Who wrote a page of a piece: nobody since the base image, some cell, the present one, the last
one. The higher one counts where there are several."""

MAX_PIECES = 16_384
MAX_PEEK = 1 << 20
MAX_CELLS = 1000
MAX_TYPES = 1000
MOST_ADDRESS = (1 << 32) - 1


class Region(NamedTuple):
    """A part of memory: from `start` to before `end`."""

    name: str
    start: int
    end: int


class MemoryMap:
    """Answers for the present guest of one keeper."""

    def __init__(self, keeper: Keeper, wasm: Path) -> None:
        """`wasm`: the module's file, which `binary.opened` has been called for before."""
        self._keeper, self._wasm = keeper, wasm

    @property
    def ops(self) -> dict[str, Callable[[dict[str, Any]], Sight]]:
        """The looks, by name."""
        return {"memory": self.map, "peek": self.peek, "place": self.place}

    def peek(self, content: dict[str, Any]) -> Sight:
        """`length` bytes at address `at`, as a buffer."""
        at = number(content, "at", most=MOST_ADDRESS)
        length = number(content, "length", most=MAX_PEEK)
        memory = self._keeper.guest.memory
        size = memory.size()
        if at + length > size:
            raise Refusal(
                f"{at:#x} and {length:,} bytes from there are outside of memory, which ends at "
                f"{size:#x}"
            )
        return Sight({"bytes": size}, (memory.read(at, length),))

    def place(self, content: dict[str, Any]) -> Sight:
        """Where address `at` lies: its region, and with `block` the block of malloc's.

        `type` is id(type), by which objects are known.
        """
        at = number(content, "at", most=MOST_ADDRESS)
        kind = number(content, "type", most=MOST_ADDRESS, default=0)
        words = self._words()
        found = self._heap(words)
        region = next((r for r in self._regions(words, found)[0] if r.start <= at < r.end), None)
        block = None
        wanted = content.get("block") is True and region is not None and region.name == "heap"
        if found is not None and wanted:
            block = heap.block_at(words, found, at, kind)
        said: dict[str, Any] = {"region": region.name if region else None, "block": None}
        if block is not None:
            name = heap.type_name(words, block.type) if block.type else ""
            said["block"] = {**block._asdict(), "type_name": name}
        return Sight(said)

    def map(self, content: dict[str, Any]) -> Sight:
        """The map, in at most `pieces` pieces; growth over `cells`; the first `types`.

        `type` is id(type), by which objects are known. Buffers: for each piece an index of KINDS,
        and one of SINCE.
        """
        pieces = number(content, "pieces", least=1, most=MAX_PIECES, default=1024)
        cells = number(content, "cells", most=MAX_CELLS, default=10)
        types = number(content, "types", most=MAX_TYPES, default=10)
        kind = number(content, "type", most=MOST_ADDRESS, default=0)
        words = self._words()
        pages = len(words) // (PAGE // 4)
        found = self._heap(words)
        regions, notes = self._regions(words, found)
        used = heap.usage(words, found, kind) if found else None
        step = -(-pages // pieces)
        since, said = self._since(pages)
        kinds = _kinds(pages, step, regions, used, found)
        return Sight({
            "bytes": 4 * len(words), "page_bytes": PAGE, "pages_per_piece": step,
            "regions": [{"name": r.name, "start": r.start, "bytes": r.end - r.start}
                        for r in regions],
            "stack_reached": _reached(words, regions),
            "heap": None if found is None or used is None else _heap_said(
                words, found, used, types),
            "pages": {"all": pages, **said},
            "growth": self._growth(found, cells),
            "notes": notes,
        }, (kinds, _pieces(since, step)))  # fmt: skip

    # -- what lies where ---------------------------------------------------------------------

    def _words(self) -> memoryview:
        return self._keeper.guest.memory.view().cast("I")

    @property
    def _binary(self) -> binary.Binary:
        return binary.look(binary.opened(self._wasm))

    @functools.cached_property
    def _state(self) -> int | None:
        """Where malloc's record is: the same in every instance of a module."""
        words, known = self._words(), self._binary
        top, data = known.stack_top or 0, known.data
        if data is not None and data[0] >= top:  # it begins as zeros: behind the data
            found = heap.find(words, data[1])
            if found is not None:
                return found
        found = heap.find(words, top)
        return heap.find(words) if found is None else found

    def _heap(self, words: memoryview) -> Heap | None:
        return None if self._state is None else heap.read(words, self._state)

    def _regions(self, words: memoryview, found: Heap | None) -> tuple[list[Region], list[str]]:
        """All of memory, by region, and what is not known of it."""
        size, known = 4 * len(words), self._binary
        notes = []
        below = found.base if found else size
        regions = [Region("unknown", 0, below)]
        top, data = known.stack_top, known.data
        if top is None:
            notes.append(
                "where the C stack is, is not known: the module's file cannot be read, or has "
                "several mutable globals and no names for them"
            )
        elif top + WASM_PAGE < below or (data is not None and data[0] >= top):
            # linked with --stack-first: the stack is below all data, or no data would be there
            regions = [Region("stack", 0, top), Region("static", top, below)]
            if data is not None and data[0] >= top and data[1] < below:
                regions[1:] = [Region("static", top, data[1]), Region("zeros", data[1], below)]
        else:
            notes.append("the C stack and static data share what is below the heap")
        if top is not None and not known.stack_named:
            notes.append(
                "the module names no __stack_pointer; its only mutable global is taken for it"
            )
        if found is None:
            notes.append(
                "the heap cannot be read: there is no record of the malloc that is known here"
            )
            regions[-1] = regions[-1]._replace(name="unknown")
            return regions, notes
        regions.append(Region("heap", found.base, found.top))
        regions.append(Region("top", found.top, found.end))
        if found.end < size:
            regions.append(Region("unused", found.end, size))
        notes.append(
            "the module exports no __heap_base, and not what its stack pointer is now: where the "
            "heap begins is malloc's own record, how deep the stack ever was its lowest word that "
            "is not zero"
        )
        return [r for r in regions if r.end > r.start], notes

    # -- what was written --------------------------------------------------------------------

    def _since(self, pages: int) -> tuple[bytearray, dict[str, Any]]:
        """For each page an index of SINCE, and their numbers; None for what is not known."""
        keeper, memory = self._keeper, self._keeper.guest.memory
        marks = bytearray(pages)
        said: dict[str, Any] = dict.fromkeys(("differ", "last", "now", "cell"))
        checkpoints = keeper.checkpoints
        if checkpoints is None:
            said["problem"] = keeper.problem
            found = dirty.written(memory) if keeper.has_image else None
            if found is not None:
                marks[:] = found
                said["differ"] = sum(marks)
            return marks, said
        log = checkpoints.log
        for run in log.state(log.head):
            marks[run.page : run.page + run.count] = b"\1" * run.count
        last = _last_cell(log.chain(log.head))
        if last is not None:
            said["last"], said["cell"] = last.written, timeline.cell_of(last)
        now = checkpoints.since(memory)
        for page, mark in enumerate(now):
            if mark:
                marks[page] = 2
        for run in last.runs if last is not None else ():
            marks[run.page : run.page + run.count] = b"\3" * run.count
        said["now"] = sum(now)
        said["differ"] = pages - marks.count(0)
        said["problem"] = keeper.travel.problem
        return marks, said

    # -- how it grew -------------------------------------------------------------------------

    def _growth(self, found: Heap | None, cells: int) -> list[dict[str, Any]]:
        """The last so many cells and the start, oldest first: sizes after each, and now."""
        checkpoints, rows = self._keeper.checkpoints, []
        if checkpoints is not None:
            log = checkpoints.log
            place = None if found is None else found.state + heap.TOP_AT
            top: int | None = None
            for each in reversed(list(log.chain(log.head))):
                for run in each.runs:
                    if place is not None and run.page <= place // PAGE < run.page + run.count:
                        top = self._word(run, place)
                if timeline.is_cell(each) or each.notes.get("kind") == "start":
                    rows.append({
                        "cell": timeline.cell_of(each), "line": str(each.notes.get("line", "")),
                        "bytes": each.pages * PAGE, "pages": each.written,
                        "heap": top - found.base if top and found else None,
                    })  # fmt: skip
        rows = rows[-cells:] if cells else []
        heap_bytes = found.top - found.base if found else None
        size = self._keeper.guest.memory.size()
        return [*rows, {"cell": None, "line": "", "bytes": size, "pages": None, "heap": heap_bytes}]

    def _word(self, run: Run, place: int) -> int | None:
        """The word at this address, as a run of the log has it."""
        checkpoints = self._keeper.checkpoints
        if checkpoints is None:
            return None
        skipped = place // PAGE - run.page
        page = checkpoints.log.read(Run(run.page + skipped, 1, run.place + skipped))
        at = place % PAGE
        return int.from_bytes(page[at : at + 4], "little") if len(page) == PAGE else None


def _last_cell(chain: Any) -> Checkpoint | None:
    """The newest cell; None if what it wrote is not known any more (or there is none)."""
    for found in chain:
        if timeline.is_cell(found):
            return found if found.parent else None
    return None


def _kinds(
    pages: int, step: int, regions: list[Region], used: heap.Usage | None, found: Heap | None
) -> bytes:
    """For each piece of so many pages what most of it is."""
    shares: list[list[int]] = [[0] * len(KINDS) for _ in range(-(-pages // step))]
    names = {
        "stack": "stack", "static": "static", "zeros": "static", "top": "unused",
        "unused": "unused", "unknown": "unknown",
    }  # fmt: skip
    width = step * PAGE
    for region in regions:
        if region.name not in names:
            continue
        kind = KINDS.index(names[region.name])
        for piece in range(region.start // width, -(-region.end // width)):
            inside = min(region.end, (piece + 1) * width) - max(region.start, piece * width)
            shares[piece][kind] += inside
    if used is not None and found is not None:
        for name, amounts in zip(("objects", "blocks", "free"), used.pages, strict=True):
            kind = KINDS.index(name)
            for piece, share in enumerate(shares):
                share[kind] += sum(amounts[piece * step : (piece + 1) * step])
        if used.known_to < found.top:
            for piece in range(used.known_to // width, -(-found.top // width)):
                shares[piece][0] += width // 2
    return bytes(share.index(max(share)) for share in shares)


def _pieces(marks: bytearray, step: int) -> bytes:
    """The highest mark of each piece."""
    return bytes(max(marks[at : at + step]) for at in range(0, len(marks), step))


def _reached(words: memoryview, regions: list[Region]) -> int | None:
    """How far down the stack was ever used: its lowest word that is not zero."""
    stack = next((r for r in regions if r.name == "stack"), None)
    if stack is None:
        return None
    data = words[: stack.end // 4].tobytes()
    left = data[heap.PAGE :].lstrip(b"\0")  # the first page has the host's scratch words
    return stack.end - len(left)


def _heap_said(words: memoryview, found: Heap, used: heap.Usage, most_types: int) -> dict[str, Any]:
    """What is told of the heap."""
    largest = sorted(used.types.items(), key=lambda item: -item[1][1])[:most_types]
    names = ("objects", "blocks", "free")
    return {
        "base": found.base, "top": found.top, "end": found.end, "known_to": used.known_to,
        **{name: {"count": n, "bytes": size} for name, n, size in zip(
            names, used.blocks, used.bytes, strict=True)},
        "types": [
            {"name": heap.type_name(words, at), "address": at, "count": n, "bytes": size}
            for at, (n, size) in largest
        ],
        "all_types": len(used.types),
    }  # fmt: skip
