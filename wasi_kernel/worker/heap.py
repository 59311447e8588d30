"""The heap inside linear memory: the blocks that malloc has given out, read from its own records.

WASI's C library has Doug Lea's malloc (wasi-libc: dlmalloc/src/malloc.c; the field names here are
that file's). All memory that it manages is a row of chunks without gaps, and each says in its
second word how long it is and whether it is in use. Where the row begins and ends stands in one
record, `_gm_`, in the static data. No name leads there, so it is found by what must be true of it
(`find`), and what is found is only believed if the row of chunks really ends where it says.

CPython builds for WASI have no allocator of their own in between (`WITH_PYMALLOC` is 0, so there
are no arenas): each Python object is one block. Which blocks are objects is told by their type
pointers: a word that points to a type, which in turn is of type `type` or of a metaclass.

Pure: reads words of memory, which are hostile, and writes nothing. Sizes and addresses in bytes.
"""

from __future__ import annotations

from itertools import count
from operator import eq
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PAGE = 4096
SEARCHED_BYTES = 64 << 20
"""`_gm_` is looked for below this address: static data stands at the beginning of memory."""

MAX_BLOCKS = 4_000_000
"""So many blocks at most are read: about two seconds' work. What lies behind them is not known."""

MAX_SEGMENTS = 64

MOST_REFERENCES, IMMORTAL = 1 << 19, 0x3FFFFFFF
"""A count of references between these is none but an address: of the next one, in an object that
CPython keeps for later (its free lists), or of an item, in an array that holds types."""

# struct malloc_state, in words
_TOPSIZE, _LEAST_ADDR, _TOP, _BINS, _SEG = 3, 4, 6, 10, 112
TOP_AT = 4 * _TOP
"""Where in malloc's record the address of the last chunk stands, in bytes."""

# struct malloc_chunk: word 1 is the size, with these bits
_IN_USE, _FLAGS = 2, 7
_FENCEPOST = 7
"""The head of the last chunk of a segment that is not the last one."""
_TOP_FOOT_MOST = 128
"""What malloc keeps for itself behind the last chunk is shorter than this."""

# words of an object, and of a type (struct _typeobject, without threads of its own)
_TYPE, _TP_NAME, _TP_FLAGS = 1, 3, 21
_TYPE_SUBCLASS = 1 << 31  # Py_TPFLAGS_TYPE_SUBCLASS
_HEADS = (0, 2, 4)
"""How many words may stand before an object in its block: none, the collector's two, and two more
before those (managed dict and weak references; CPython's pycore_object.h)."""


class Heap(NamedTuple):
    """Where malloc's memory is.

    Attributes:
        state: The address of malloc's record.
        base: Where the first chunk begins.
        top: Where the last chunk begins, which is free: memory not yet given out.
        top_bytes: How long that one is.
        end: Where malloc's memory ends.
        segments: Its parts (first chunk, end); more than one if others have grown memory as well.
    """

    state: int
    base: int
    top: int
    top_bytes: int
    end: int
    segments: tuple[tuple[int, int], ...]


class Block(NamedTuple):
    """One chunk.

    Attributes:
        address: What malloc has returned for it.
        length: How many bytes its user has.
        used: Is it in use?
        type: The address of the type of the Python object in it; 0: no object.
        object: The address of that object.
    """

    address: int
    length: int
    used: bool
    type: int
    object: int


class Usage:
    """What a heap's blocks add up to.

    Attributes:
        blocks: (objects, other blocks in use, free blocks), how many.
        bytes: The same, in bytes with their heads.
        pages: The same for each page of memory, in bytes; a short block counts where it begins.
        types: {type's address: [objects, bytes]}.
        known_to: Up to which address blocks were read.
    """

    def __init__(self, pages: int) -> None:
        """Nothing yet, of a memory of so many pages."""
        self.blocks, self.bytes = [0, 0, 0], [0, 0, 0]
        self.pages = [[0] * (pages + 1) for _ in range(3)]
        self.types: dict[int, list[int]] = {}
        self.known_to = 0


def find(words: memoryview, start: int = 0) -> int | None:
    """The address of malloc's record, None if there is none: another malloc, or none at all.

    Its first bin is never used, so both its links point to itself for good.
    `start`: the address from which on it is looked for.
    """
    first = max(0, start >> 2)
    searched = words[first : SEARCHED_BYTES // 4]
    # a bin's links stand two words behind its place
    selves = bytes(map(eq, searched, count(4 * first - 8, 4)))
    at = -1
    while (at := selves.find(b"\1", at + 1)) >= 0:
        state = 4 * (first + at - _BINS - 2)
        if state > 0 and read(words, state) is not None:
            return state
    return None


def read(words: memoryview, state: int) -> Heap | None:
    """What malloc's record at that address says, None if it is none."""
    at, size = state >> 2, 4 * len(words)
    if state & 3 or not 0 <= at <= len(words) - _SEG - 4:
        return None
    bin_at = state + 4 * _BINS
    top, top_bytes, least = words[at + _TOP], words[at + _TOPSIZE], words[at + _LEAST_ADDR]
    if words[at + _BINS + 2] != bin_at or words[at + _BINS + 3] != bin_at:
        return None
    if top & 7 or not state < least < top <= size - 8 or top + top_bytes > size:
        return None
    if words[(top >> 2) + 1] & ~_FLAGS != top_bytes:
        return None
    segments = []
    link = at + _SEG
    for _ in range(MAX_SEGMENTS):
        base, length = words[link], words[link + 1]
        if base >= size or base + length > size or not length:
            return None
        segments.append((_first_chunk(base), base + length))
        link = words[link + 2] >> 2
        if not link or link > len(words) - 4:
            break
    segments.sort()
    last = [s for s in segments if s[0] <= top < s[1]]
    if len(last) != 1 or not 0 <= last[0][1] - top - top_bytes <= _TOP_FOOT_MOST:
        return None
    return Heap(state, segments[0][0], top, top_bytes, segments[-1][1], tuple(segments))


def _first_chunk(base: int) -> int:
    """`align_as_chunk`: what is behind a chunk's two words is aligned to 16 bytes."""
    return base + (-(base + 8) & 15)


def usage(words: memoryview, heap: Heap, type_type: int) -> Usage:
    """Reads all blocks; `type_type` is the address of the object `type`, 0 if it is not known."""
    found = Usage(4 * len(words) // PAGE)
    blocks, sizes, pages, types = found.blocks, found.bytes, found.pages, found.types
    kind_of = _kinds(words, types, _types(words, type_type))
    for p, size, used in _chunks(words, heap):
        kind = 2
        if used:
            t = words[(p >> 2) + 3]
            if t not in types or words[(p >> 2) + 2] >= MOST_REFERENCES:
                t = kind_of((p >> 2) + 2, size)
            kind = 1
            if t:
                kind = 0
                counts = types[t]
                counts[0] += 1
                counts[1] += size
        blocks[kind] += 1
        sizes[kind] += size
        if size <= PAGE:
            pages[kind][p >> 12] += size
        else:
            _spread(pages[kind], p, size)
        found.known_to = p + size
    return found


def _chunks(words: memoryview, heap: Heap) -> Iterator[tuple[int, int, int]]:
    """(address, size, is it in use?) of each chunk, until one makes no sense."""
    left = MAX_BLOCKS
    for start, end in heap.segments:
        p = start
        stop = min(heap.top if start <= heap.top < end else end, 4 * len(words) - 8)
        while p < stop and left:
            head = words[(p >> 2) + 1]
            size = head & ~_FLAGS
            if head == _FENCEPOST or size < 16 or size > stop - p:
                break
            yield p, size, head & _IN_USE
            left -= 1
            p += size


def _kinds(
    words: memoryview, types: dict[int, list[int]], is_type: _types
) -> Callable[[int, int], int]:
    """Finds the type of the object in a block, given its first word's index and the chunk's size.

    The type is in `types` from then on; 0: there is no object.
    """

    def kind_of(i: int, size: int) -> int:
        for skipped in _HEADS:
            if 4 * skipped + 16 > size:
                break
            t, references = words[i + skipped + _TYPE], words[i + skipped]
            counted = 0 < references < MOST_REFERENCES or references >= IMMORTAL
            if counted and (t in types or is_type(t)):
                types.setdefault(t, [0, 0])
                return t
        return 0

    return kind_of


def _spread(pages: list[int], at: int, size: int) -> None:
    """Counts a long block in each page that it lies in."""
    end = at + size
    while at < end:
        upto = min(end, (at // PAGE + 1) * PAGE)
        pages[at // PAGE] += upto - at
        at = upto


def block_at(words: memoryview, heap: Heap, address: int, type_type: int) -> Block | None:
    """The block that this address lies in; None: in none, or behind what can be read."""
    for p, size, used in _chunks(words, heap):
        if p <= address < p + size:
            kind, at = 0, (p >> 2) + 2
            if used:
                kind = _kinds(words, {}, _types(words, type_type))(at, size)
            skipped = next((k for k in _HEADS if kind and words[at + k + _TYPE] == kind), 0)
            return Block(p + 8, size - 4, bool(used), kind, 4 * (at + skipped) if kind else 0)
    return None


class _types:  # noqa: N801 - a function with a memory
    """Is there a type at an address? Its type is `type`, or a subclass of that."""

    def __init__(self, words: memoryview, type_type: int) -> None:
        self._words, self._type = words, type_type
        self._most = 4 * (len(words) - _TP_FLAGS - 1)
        self._metas = {type_type} if type_type else set()

    def __call__(self, t: int) -> bool:
        if t & 3 or not 0 < t < self._most:
            return False
        words = self._words
        meta = words[(t >> 2) + _TYPE]
        if meta in self._metas:
            return True
        if meta & 3 or not 0 < meta < self._most or not self._type:
            return False
        if words[(meta >> 2) + _TYPE] != self._type:
            return False
        if not words[(meta >> 2) + _TP_FLAGS] & _TYPE_SUBCLASS:
            return False
        self._metas.add(meta)
        return True


def type_name(words: memoryview, address: int) -> str:
    """The name of the type at that address, as it stands in memory; "" if there is none."""
    at = address >> 2
    if address & 3 or at > len(words) - _TP_FLAGS - 1:
        return ""
    start = words[at + _TP_NAME]
    text = words.cast("B")[start : start + 100].tobytes().split(b"\0")[0]
    name = text.decode("utf-8", "replace")
    return name if name.isprintable() else ""
