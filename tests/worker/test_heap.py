"""malloc's record and its chunks are read as they are, and damaged ones are not believed.

The memory here is made by hand, after wasi-libc's dlmalloc; that real guests have it so is shown in
tests/test_inside_memory.py.
"""

from __future__ import annotations

import random
from array import array

import pytest

from wasi_kernel.worker import heap

SIZE = 1 << 20
STATE, BASE = 0x2000, 0x4008
FOOT = 56
TYPE, META, KIND = 0x3000, 0x3100, 0x3200
"""Addresses of `type`, a metaclass, and a class of that metaclass."""


class Made:
    """A memory with a heap of the given chunks: (bytes, used, words of content)."""

    def __init__(self, *chunks: tuple[int, bool, tuple[int, ...]]) -> None:
        self.words = array("I", bytes(SIZE))
        at = BASE
        for size, used, content in chunks:
            self.put(at + 4, size | 1 | 2 * used)
            for k, word in enumerate(content):
                self.put(at + 8 + 4 * k, word)
            at += size
        self.top = at
        self.put(at + 4, SIZE - FOOT - at | 1)
        bin_at = STATE + 40
        for offset, value in (
            (12, SIZE - FOOT - at), (16, BASE), (24, at), (48, bin_at), (52, bin_at),
            (448, BASE), (452, SIZE - BASE),
        ):  # fmt: skip
            self.put(STATE + offset, value)
        for kind, of in ((TYPE, TYPE), (META, TYPE), (KIND, META)):
            self.put(kind, 1)
            self.put(kind + 4, of)
        self.put(META + 84, 1 << 31)

    def put(self, at: int, word: int) -> None:
        self.words[at // 4] = word

    @property
    def view(self) -> memoryview:
        return memoryview(self.words)

    def heap(self) -> heap.Heap:
        found = heap.read(self.view, STATE)
        assert found is not None
        return found


def test_the_record_is_found_and_read():
    made = Made((32, True, ()), (48, False, ()))
    assert heap.find(made.view) == STATE
    assert heap.find(made.view, STATE) == STATE
    found = made.heap()
    assert (found.base, found.top, found.end) == (BASE, BASE + 80, SIZE)


def test_no_record_is_found_where_none_is():
    assert heap.find(memoryview(array("I", bytes(SIZE)))) is None
    made = Made((32, True, ()))
    assert heap.find(made.view, STATE + 0x200) is None


@pytest.mark.parametrize(
    ("offset", "value"),
    [
        (12, 64), (16, SIZE), (24, SIZE - 4), (24, BASE + 4), (48, 0), (448, SIZE), (452, 0),
        (452, SIZE),
    ],
)  # fmt: skip
def test_a_record_that_contradicts_itself_is_not_believed(offset, value):
    made = Made((32, True, ()))
    made.put(STATE + offset, value)
    assert heap.read(made.view, STATE) is None
    assert heap.find(made.view) is None


@pytest.mark.parametrize("state", [0, 2, SIZE - 4, SIZE, 2**32 - 4])
def test_a_record_is_nowhere_else(state):
    assert heap.read(Made((32, True, ())).view, state) is None


def test_blocks_are_added_up_by_what_they_hold():
    made = Made(
        (32, True, (1, KIND)), (48, True, (0, 0, 2, KIND)), (64, True, (0, 0, 0, 0, 3, TYPE)),
        (16, True, (7, 7)), (4096 * 3, True, ()), (160, False, (1, KIND)),
    )  # fmt: skip
    used = heap.usage(made.view, made.heap(), TYPE)
    assert used.blocks == [3, 2, 1]
    assert used.bytes == [144, 16 + 4096 * 3, 160]
    assert used.types == {KIND: [2, 80], TYPE: [1, 64]}
    assert used.known_to == made.top
    assert sum(map(sum, used.pages)) == made.top - BASE
    assert max(used.pages[1]) == 4096


def test_without_the_address_of_type_nothing_is_an_object():
    made = Made((32, True, (1, KIND)))
    assert heap.usage(made.view, made.heap(), 0).blocks == [0, 1, 0]


def test_an_object_whose_class_is_of_type_is_no_type_itself():
    made = Made((112, True, (1, TYPE)), (32, True, (1, BASE + 8)))
    made.put(BASE + 8 + 84, 0)
    used = heap.usage(made.view, made.heap(), TYPE)
    assert used.blocks == [2, 0, 0]
    assert used.types == {TYPE: [1, 112], BASE + 8: [1, 32]}
    plain = Made((112, True, (1, KIND)), (32, True, (1, BASE + 8)))
    plain.put(META + 84, 0)  # so KIND is no type, and what is of it no object
    assert heap.usage(plain.view, plain.heap(), TYPE).blocks == [0, 2, 0]


def test_what_only_looks_like_an_object_is_none():
    """In CPython's free lists a pointer stands where the count was; arrays may hold types."""
    made = Made(
        (32, True, (BASE + 0x80000, KIND)), (32, True, (0, KIND)), (32, True, (1, KIND)),
        (32, True, (0x3FFFFFFF, KIND)),
    )  # fmt: skip
    assert heap.usage(made.view, made.heap(), TYPE).blocks == [2, 2, 0]


@pytest.mark.parametrize("size", [0, 8, SIZE])
def test_a_torn_chunk_ends_what_is_known(size):
    made = Made((32, True, ()), (32, True, ()), (32, True, ()))
    made.put(BASE + 32 + 4, size | 3)
    used = heap.usage(made.view, made.heap(), TYPE)
    assert used.known_to == BASE + 32
    assert used.blocks == [0, 1, 0]
    assert heap.block_at(made.view, made.heap(), BASE + 40, TYPE) is None


def test_the_block_of_an_address():
    made = Made((32, True, ()), (48, True, (0, 0, 2, KIND)), (64, False, ()))
    view, found = made.view, made.heap()
    block = heap.block_at(view, found, BASE + 32 + 20, TYPE)
    assert block == heap.Block(BASE + 40, 44, True, KIND, BASE + 48)
    free = heap.block_at(view, found, BASE + 32 + 48, TYPE)
    assert free is not None
    assert not free.used
    assert heap.block_at(view, found, made.top + 8, TYPE) is None


def test_so_many_blocks_are_read_and_no_more(monkeypatch):
    monkeypatch.setattr(heap, "MAX_BLOCKS", 2)
    made = Made(*[(32, True, ())] * 5)
    used = heap.usage(made.view, made.heap(), TYPE)
    assert used.known_to == BASE + 64
    assert sum(used.blocks) == 2


def test_names_of_types_are_read_from_memory():
    made = Made((32, True, ()))
    made.put(TYPE + 12, 0x3800)
    made.words[0x3800 // 4] = int.from_bytes(b"Box\0", "little")
    assert heap.type_name(made.view, TYPE) == "Box"
    made.put(TYPE + 12, 2**32 - 1)
    assert heap.type_name(made.view, TYPE) == ""
    for at in (3, SIZE, 2**32 - 4):
        assert heap.type_name(made.view, at) == ""


def test_any_words_at_all_are_read_without_an_error():
    chance = random.Random(7)  # noqa: S311 - the same words each time
    for _ in range(200):
        made = Made(*[(32, True, ())] * 20)
        for _ in range(60):
            made.put(chance.randrange(BASE, BASE + 700) & ~3, chance.getrandbits(32))
        made.put(STATE + 4 * chance.randrange(116), chance.choice((0, 4, BASE, SIZE, 2**32 - 1)))
        found = heap.read(made.view, STATE)
        if found is not None:
            used = heap.usage(made.view, found, chance.choice((TYPE, 0, 2**32 - 4, SIZE - 4)))
            assert used.known_to <= SIZE
            heap.block_at(made.view, found, chance.randrange(SIZE), TYPE)
