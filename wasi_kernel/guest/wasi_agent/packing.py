"""Packing: closes the holes in a base image's heap.

What the image's making has freed are small blocks, all over its hundred megabytes. A cell that gets
its memory from there changes a few bytes in each of some hundred pages, and its checkpoint has to
write all of them: 600 for a cell that does nothing, in 225 runs. With the holes taken, new objects
lie side by side: 340 pages, in 140 runs, and a third less processor time for a cell.

The holes were also what was left to cells when large arrays had filled the memory. A few large ones
are that now: too small for such arrays, and the first that small objects are put into.
"""

from __future__ import annotations

PROBE_BYTES = 1 << 20
"""Larger than any hole: comes from the top of the heap."""

HEADER_BYTES = 17
"""Of a bytes object, with the zero at its end, on wasm32 (Include/cpython/bytesobject.h)."""

STEP_BYTES = 8
"""Blocks differ in size by so much (dlmalloc's alignment)."""

SMALL_BYTES = 256

SPARE, SPARE_BYTES, PIN_BYTES = 8, 1 << 19, 64
"""So many free blocks of such a size are left, with a small block that stays behind each."""

_filling: list[bytes | object] = []


def pack() -> int:
    """Takes all free blocks below the top of the heap, for good; returns how many there were."""
    top = id(bytes(PROBE_BYTES))
    size = PROBE_BYTES
    while size >= HEADER_BYTES:
        _take(top, size - HEADER_BYTES)
        size -= max(STEP_BYTES, size // 8 // STEP_BYTES * STEP_BYTES if size > SMALL_BYTES else 0)
    while id(one := object()) < top:  # the smallest block that there is
        _filling.append(one)
    spare = []
    for _ in range(SPARE):
        spare.append(bytes(SPARE_BYTES))
        _filling.append(bytes(PIN_BYTES))
    return len(_filling)


def _take(top: int, length: int) -> None:
    while id(one := bytes(length)) < top:
        _filling.append(one)
