"""Shows that linear memory is reached within its size and nowhere else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from wasi_kernel.worker.memory import WASM_PAGE, OutOfBoundsError

if TYPE_CHECKING:
    from collections.abc import Callable

SIZE = 4 * WASM_PAGE


def test_what_is_written_is_read(open_guest: Callable):
    memory = open_guest().memory
    memory.write(100, b"hello")
    assert memory.read(99, 7) == b"\0hello\0"
    memory.u32(200).value = 0xFFFFFFFF
    memory.u32(204).value += 1
    assert memory.read(200, 8) == b"\xff\xff\xff\xff\1\0\0\0"
    assert memory.read(SIZE, 0) == b""
    memory.write(SIZE, b"")


def test_the_guest_sees_what_is_written(open_guest: Callable):
    probe = open_guest()
    probe.memory.write(8192, b"text")
    probe.memory.write(2048, (8192).to_bytes(4, "little") + (4).to_bytes(4, "little"))
    assert probe.call("fd_write", 1, 2048, 1, 2040) == 0
    assert probe.kernel.text() == "text"
    assert probe.u32(2040) == 4


@pytest.mark.parametrize(
    ("at", "length"),
    [
        (SIZE, 1), (SIZE - 1, 2), (SIZE + 1, 0), (0, SIZE + 1), (2**32 - 1, 1), (2**32 - 4, 4),
        (0, 2**32 - 1), (2**32 - 1, 2**32 - 1), (2**63, 8),
        (-1, 1), (-8, 8), (-SIZE, SIZE), (-1, 2), (-(2**31), 4), (8, -4),
    ],
)  # fmt: skip
def test_what_leaves_memory_is_refused(open_guest: Callable, at: int, length: int):
    memory = open_guest().memory
    with pytest.raises(OutOfBoundsError):
        memory.address(at, length)
    with pytest.raises(OutOfBoundsError):
        memory.read(at, length)


@pytest.mark.parametrize("at", [SIZE, SIZE - 3, SIZE - 1, 2**32 - 4, 2**32, -4, -1])
def test_a_word_or_bytes_beyond_the_end_are_not_touched(open_guest: Callable, at: int):
    memory = open_guest().memory
    with pytest.raises(OutOfBoundsError):
        memory.u32(at)
    with pytest.raises(OutOfBoundsError):
        memory.write(at, b"text")


def test_a_memory_that_has_grown_is_reached_to_its_new_end(open_guest: Callable, wat: Callable):
    grow = '(func (export "grow") (param i32) (result i32) (memory.grow (local.get 0)))'
    probe = open_guest(wat(grow))
    base = probe.memory.base
    assert probe.call("grow", 2) == 4
    probe.memory.write(SIZE + WASM_PAGE, b"x")
    assert probe.memory.read(SIZE + WASM_PAGE, 1) == b"x"
    assert probe.memory.size() == 6 * WASM_PAGE
    assert probe.memory.base == base
    with pytest.raises(OutOfBoundsError):
        probe.memory.u32(6 * WASM_PAGE)


def test_growing_from_the_host(open_guest: Callable):
    memory = open_guest().memory
    base = memory.base
    memory.grow_to(100 * WASM_PAGE)
    assert memory.size() == 100 * WASM_PAGE
    assert memory.read(99 * WASM_PAGE, WASM_PAGE) == bytes(WASM_PAGE)
    memory.grow_to(WASM_PAGE)  # it cannot shrink
    assert memory.size() == 100 * WASM_PAGE
    assert memory.base == base
