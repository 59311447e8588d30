"""Shows that CPython's signal flags are found among everything else that changes, and that they are
set only while the guest is there.

The memories are synthetic: a `Memory` is bytes with the reach of a real one.
"""

from __future__ import annotations

import ctypes
import random
import struct
import threading
from typing import TYPE_CHECKING

import pytest

from wasi_kernel.worker.interrupts import NEAR, UNSET, CalibrationError, Finder, Interrupter
from wasi_kernel.worker.memory import OutOfBoundsError

if TYPE_CHECKING:
    from collections.abc import Callable

    Noise = Callable[["Memory", int], None]

SIZE = 4 << 20
ANCHOR = 1_000_000
TRIPPED, IS_TRIPPED, BREAKER = ANCHOR - 504, ANCHOR + 8, ANCHOR + 90_000
WORDS = {IS_TRIPPED: 1, TRIPPED: 1, BREAKER: 2}


class Memory:
    """A linear memory that belongs to no guest.

    Attributes:
        size_bytes: Its present size, within what it was made with.
    """

    def __init__(self, size: int = SIZE) -> None:
        self._bytes = ctypes.create_string_buffer(size)
        self.size_bytes = size

    def size(self) -> int:
        return self.size_bytes

    def _check(self, at: int, length: int) -> int:
        if not 0 <= at <= at + length <= self.size_bytes:
            raise OutOfBoundsError
        return ctypes.addressof(self._bytes) + at

    def read(self, at: int, length: int) -> bytes:
        return ctypes.string_at(self._check(at, length), length)

    def write(self, at: int, data: bytes) -> None:
        ctypes.memmove(self._check(at, len(data)), data, len(data))

    def u32(self, at: int) -> ctypes.c_uint32:
        return ctypes.c_uint32.from_address(self._check(at, 4))


def put(memory: Memory, words: dict[int, int]) -> None:
    for at, value in words.items():
        memory.write(at, struct.pack("<I", value))


def nothing(memory: Memory, turn: int) -> None:
    """Nothing else changes."""


def calibrate(
    finder: Finder, memory: Memory, rounds: int = 3, noise: Noise = nothing,
    flags: dict[int, int] = WORDS,
) -> None:  # fmt: skip
    """What a guest does: sets its wakeup fd, trips SIGINT, writes the byte, handles the signal."""
    for turn in range(rounds):
        put(memory, {ANCHOR: UNSET})
        finder.flags_are_down(memory)
        put(memory, {ANCHOR: 0, **flags})
        noise(memory, turn)
        finder.flags_are_up(memory)
        put(memory, dict.fromkeys(flags, 0))


# -- finding -------------------------------------------------------------------------------------


def test_the_flags_are_found():
    finder = Finder()
    calibrate(finder, Memory())
    assert finder.found() == WORDS
    assert finder.is_tripped == IS_TRIPPED


def test_what_changes_far_away_does_not_count():
    """The C stack and the heap: a flag written there later would corrupt the guest."""

    def noise(memory: Memory, turn: int) -> None:
        put(memory, {ANCHOR + NEAR + 4: 1, ANCHOR + 2 * NEAR: 2, 4096: 1, SIZE - 4: 1})

    finder = Finder()
    calibrate(finder, Memory(), noise=noise)
    assert finder.found() == WORDS


def test_what_changes_near_by_chance_does_not_count():
    """Words that went up in one round only, or to something that is no flag."""

    def noise(memory: Memory, turn: int) -> None:
        put(memory, {
            ANCHOR + 40 + 4 * turn: 1,  # another one each time
            ANCHOR + 200: 7 + turn, ANCHOR + 204: 3, ANCHOR + 208: 0x80000000,
            ANCHOR + 212: 1 if turn else 2,  # other bits each time
        })  # fmt: skip

    finder = Finder()
    calibrate(finder, Memory(), noise=noise)
    assert finder.found() == WORDS


def test_a_word_that_was_up_before_is_no_flag():
    memory = Memory()
    put(memory, {ANCHOR + 300: 1})
    finder = Finder()
    calibrate(finder, memory, noise=lambda m, turn: put(m, {ANCHOR + 300: 2}))
    assert finder.found() == WORDS


def test_random_noise_everywhere():
    rng = random.Random(5)  # noqa: S311 - a seed, not a secret
    reserved = set(WORDS) | {ANCHOR}

    def noise(memory: Memory, turn: int) -> None:
        for _ in range(500):
            at = 4 * rng.randrange(SIZE // 4)
            if at not in reserved:
                put(memory, {at: rng.choice((1, 2, 3, rng.randrange(2**32)))})

    finder = Finder()
    calibrate(finder, Memory(), rounds=4, noise=noise)
    assert finder.found() == WORDS


def test_memory_that_grows_meanwhile():
    memory = Memory()
    memory.size_bytes = SIZE // 2

    def noise(memory: Memory, turn: int) -> None:
        memory.size_bytes = SIZE

    finder = Finder()
    calibrate(finder, memory, noise=noise)
    assert finder.found() == WORDS


def test_one_round_is_not_enough():
    finder = Finder()
    calibrate(finder, Memory(), rounds=1)
    with pytest.raises(CalibrationError):
        finder.found()


def test_without_any_round_nothing_is_found():
    with pytest.raises(CalibrationError):
        Finder().found()


def test_a_byte_without_a_beginning_finds_nothing():
    finder, memory = Finder(), Memory()
    put(memory, {ANCHOR: 0, **WORDS})
    for _ in range(3):
        finder.flags_are_up(memory)
    with pytest.raises(CalibrationError):
        finder.found()


@pytest.mark.parametrize(
    "flags",
    [
        {},  # nothing is set at all
        {IS_TRIPPED: 1},  # no other flag
        {TRIPPED: 1, BREAKER: 2},  # not the one that the guest clears
        {IS_TRIPPED + 4: 1, TRIPPED: 1},  # another layout
    ],
)
def test_a_build_with_other_flags_is_not_interruptible(flags: dict[int, int]):
    finder = Finder()
    calibrate(finder, Memory(), flags=flags)
    with pytest.raises(CalibrationError):
        finder.found()


def test_two_places_that_look_alike_are_not_guessed_between():
    other = ANCHOR + 5000

    def noise(memory: Memory, turn: int) -> None:
        put(memory, {other: 0, other + 8: 1})

    finder, memory = Finder(), Memory()
    for turn in range(3):
        put(memory, {ANCHOR: UNSET, other: UNSET, other + 8: 0})
        finder.flags_are_down(memory)
        put(memory, {ANCHOR: 0, **WORDS})
        noise(memory, turn)
        finder.flags_are_up(memory)
        put(memory, dict.fromkeys(WORDS, 0))
    with pytest.raises(CalibrationError):
        finder.found()


def test_a_round_that_failed_is_not_forgotten():
    """One round without an anchor, then good ones: the words are still the flags only."""

    def noise(memory: Memory, turn: int) -> None:
        put(memory, {ANCHOR + 44: 1})
        if turn == 1:
            put(memory, {ANCHOR: 5})

    finder = Finder()
    calibrate(finder, Memory(), rounds=2, noise=noise)
    with pytest.raises(CalibrationError):
        finder.found()


# -- interrupting --------------------------------------------------------------------------------


@pytest.fixture
def memory() -> Memory:
    memory = Memory()
    put(memory, {BREAKER: 0x100, ANCHOR: 0xABCD})
    return memory


@pytest.fixture
def interrupter(memory: Memory) -> Interrupter:
    return Interrupter(memory, WORDS, IS_TRIPPED)  # type: ignore[arg-type]


def words(memory: Memory) -> dict[int, int]:
    return {at: memory.u32(at).value for at in WORDS}


def test_tripping_sets_the_flags_and_leaves_other_bits(memory: Memory, interrupter: Interrupter):
    before = memory.read(0, SIZE)
    assert interrupter.seen()
    assert interrupter.trip()
    assert words(memory) == {IS_TRIPPED: 1, TRIPPED: 1, BREAKER: 0x102}
    assert not interrupter.seen()
    assert interrupter.unseen()
    interrupter.withdraw()
    assert memory.read(0, SIZE) == before
    assert interrupter.seen()


def test_an_interrupt_that_is_seen_ends_at_once(memory: Memory, interrupter: Interrupter):
    """The guest takes notice by clearing the flags, here at the first look at the signal's."""

    class Guest(Memory):
        def u32(self, at: int) -> ctypes.c_uint32:
            word = super().u32(at)
            is_tripped = super().u32(IS_TRIPPED)
            if at == TRIPPED and is_tripped.value:
                taken.append(word.value)
                word.value = is_tripped.value = 0
            return word

    taken: list[int] = []
    interrupter = Interrupter(Guest(), WORDS, IS_TRIPPED)  # type: ignore[arg-type]
    assert interrupter.trip()
    assert interrupter.watch(1000, lambda: True)
    assert taken == [1]


def test_an_interrupt_that_is_not_seen_ends_with_its_time(interrupter: Interrupter):
    interrupter.trip()
    assert not interrupter.watch(0.03, lambda: True)


def test_without_an_interrupt_there_is_nothing_to_wait_for(interrupter: Interrupter):
    assert interrupter.watch(1000, lambda: True)
    assert not interrupter.unseen()


def test_an_interrupt_that_is_no_longer_wanted_ends(interrupter: Interrupter):
    asked: list[bool] = []

    def still_wanted() -> bool:
        asked.append(True)
        return len(asked) < 3

    interrupter.trip()
    assert interrupter.watch(1000, still_wanted)
    assert len(asked) == 3


def test_a_lost_breaker_is_set_again(memory: Memory, interrupter: Interrupter):
    """The guest changed the same word at the same moment and our bit was lost."""
    asked: list[int] = []

    def still_wanted() -> bool:
        asked.append(memory.u32(BREAKER).value & 2)
        memory.u32(BREAKER).value = 0x100
        return len(asked) < 3

    interrupter.trip()
    assert interrupter.watch(1000, still_wanted)
    assert asked == [2, 2, 2]


def test_one_interrupt_is_one(memory: Memory, interrupter: Interrupter):
    """A handler that raises has CPython set `is_tripped` again, for the signals behind it."""
    asked: list[int] = []

    def still_wanted() -> bool:
        asked.append(memory.u32(TRIPPED).value)
        put(memory, {TRIPPED: 0, IS_TRIPPED: 1})  # taken, and the handler has raised
        return len(asked) < 3

    interrupter.trip()
    assert interrupter.watch(1000, still_wanted)
    assert asked == [1]
    assert memory.u32(TRIPPED).value == 0


def test_a_signal_that_was_taken_while_it_was_set_is_not_set_again():
    """The guest is quick: it takes the signal as soon as `is_tripped` is set."""

    class Guest(Memory):
        def u32(self, at: int) -> ctypes.c_uint32:
            word = super().u32(at)
            if at == BREAKER and super().u32(IS_TRIPPED).value:
                put(self, {TRIPPED: 0, IS_TRIPPED: 0})
            return word

    guest = Guest()
    interrupter = Interrupter(guest, WORDS, IS_TRIPPED)  # type: ignore[arg-type]
    assert interrupter.trip()
    assert guest.u32(TRIPPED).value == 0
    assert interrupter.watch(1000, lambda: True)


# -- the end -------------------------------------------------------------------------------------


def test_a_closed_interrupter_never_writes(memory: Memory, interrupter: Interrupter):
    interrupter.trip()
    interrupter.close()
    memory.write(0, b"\x5a" * SIZE)
    assert not interrupter.trip()
    interrupter.withdraw()
    assert interrupter.seen()
    assert interrupter.watch(1000, lambda: True)
    assert memory.read(0, SIZE) == b"\x5a" * SIZE


def test_a_closed_interrupter_never_reads():
    """After `close` the memory may be freed: looking at it is as wrong as writing."""

    class Freed(Memory):
        def u32(self, at: int) -> ctypes.c_uint32:
            raise AssertionError("freed memory was touched")

        def size(self) -> int:
            raise AssertionError("freed memory was touched")

    interrupter = Interrupter(Freed(), WORDS, IS_TRIPPED)  # type: ignore[arg-type]
    interrupter.close()
    interrupter.close()
    assert not interrupter.trip()
    assert interrupter.seen()
    interrupter.withdraw()
    assert interrupter.watch(1000, lambda: True)


def test_closing_while_an_interrupt_waits_ends_it(interrupter: Interrupter, memory: Memory):
    waiting = threading.Event()
    done: list[bool] = []

    def still_wanted() -> bool:
        waiting.set()
        return True

    def job() -> None:
        try:
            done.append(interrupter.watch(60, still_wanted))
        finally:
            waiting.set()

    interrupter.trip()
    thread = threading.Thread(target=job)
    thread.start()
    waiting.wait()
    interrupter.close()
    memory.write(0, b"\x5a" * SIZE)
    thread.join()
    assert done == [True]
    assert memory.read(0, SIZE) == b"\x5a" * SIZE


def test_words_outside_memory_are_not_written(memory: Memory):
    """An image's notes that do not fit: nothing worse than no interrupt."""
    wild = Interrupter(memory, {SIZE: 1, SIZE + 8: 1}, SIZE)  # type: ignore[arg-type]
    assert not wild.trip()
    assert wild.seen()
    wild.withdraw()


def test_a_closed_guest_is_not_written(open_guest: Callable):
    """A real one: its memory is gone after `close`."""
    probe = open_guest()
    interrupter = probe.guest.make_interruptible({4096: 1, 4104: 2}, 4096)
    assert interrupter.trip()
    assert (probe.u32(4096), probe.u32(4104)) == (1, 2)
    probe.guest.close()
    assert not interrupter.trip()
    assert interrupter.seen()
