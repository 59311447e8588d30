"""Shows that a checkpoint is a guest's memory, to the byte, whatever the log and the disk do.

Fresh guests are woken at every state, on Linux's way and on the one that other systems take.
"""

from __future__ import annotations

import contextlib
import mmap
import random
import resource
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from fulldisk import files_of_at_most
from hypothesis import example, given, settings
from hypothesis import strategies as st

from wasi_kernel import pagelog
from wasi_kernel.errors import PageLogError
from wasi_kernel.policy import MIB, CheckpointLimits
from wasi_kernel.records import PAGE
from wasi_kernel.worker import checkpoints, dirty, images
from wasi_kernel.worker.checkpoints import Checkpoints
from wasi_kernel.worker.dirty import ComparedPages, MappedPages
from wasi_kernel.worker.memory import WASM_PAGE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

DIGEST = "c4" * 32
CELL = {"kind": "cell"}

EXPORTS = """(func (export "grow") (param i32) (result i32) (memory.grow (local.get 0)))
  (func (export "fill") (param i32 i32 i32)
    (memory.fill (local.get 0) (local.get 1) (local.get 2)))
  (func (export "stride") (param $at i32) (param $step i32) (param $value i32)
    (block $done (loop $next
      (br_if $done (i32.ge_u (local.get $at) (i32.shl (memory.size) (i32.const 16))))
      (i32.store8 (local.get $at) (local.get $value))
      (local.set $at (i32.add (local.get $at) (local.get $step)))
      (br $next))))"""


class Session:
    """A guest and its checkpoints, in a folder with the base image.

    Attributes:
        states: {checkpoint: what memory was when it was made}.
    """

    def __init__(
        self, folder: Path, wat: Callable, open_guest: Callable, *, compare: bool, cells: int = 200
    ) -> None:
        self._folder, self._wat, self._open = folder, wat, open_guest
        self.limits = CheckpointLimits(compare=compare, cells=cells)
        self.states: dict[int, bytes] = {}

    def begin(self, pages: int) -> Session:
        """Makes the image, of so many pages of 64 KiB, and the first guest."""
        self._text = self._wat(EXPORTS, pages=pages, calls=("clock_time_get",))
        maker = self._open(self._text)
        noise = random.Random(2).randbytes(WASM_PAGE)  # noqa: S311 - a seed, not a secret
        maker.memory.write(WASM_PAGE // 2, noise)
        self.image = self._folder / "image"
        self.image.touch()
        self.image_bytes = images.save(maker.memory, self.image)
        maker.guest.close()
        (self._folder / "log").mkdir()
        self.open()
        self.wake(0)
        return self

    def open(self) -> None:
        """Opens the log, as a new worker does."""
        self.checkpoints = Checkpoints(
            self._folder / "log", self.image, DIGEST, self.image_bytes, self.limits
        )

    def wake(self, ident: int) -> None:
        """The guest from here on is a fresh one at that checkpoint."""
        self.probe = self._open(self._text)
        self.checkpoints.fill(self.probe.memory, ident)

    @property
    def memory(self) -> Any:
        return self.probe.memory

    @property
    def log(self) -> Any:
        return self.checkpoints.log

    def all(self) -> bytes:
        return self.memory.read(0, self.memory.size())

    def commit(self) -> Any:
        found = self.checkpoints.commit(self.memory, CELL)
        self.states[found.id] = self.all()
        return found

    def show(self, ident: int) -> bytes:
        probe = self._open(self._text)
        self.checkpoints.show(probe.memory, ident)
        content = probe.memory.read(0, probe.memory.size())
        probe.guest.close()
        return content

    def sound(self) -> None:
        """Every state that the log has is what memory was."""
        assert self.log.newest_sound() == self.log.head
        wrong = [c.id for c in self.log if self.show(c.id) != self.states[c.id]]
        assert wrong == []

    def mappings(self) -> int:
        """Into how many pieces the kernel has cut the guest's memory."""
        end = self.memory.base + self.memory.size()
        with open("/proc/self/maps") as f:
            starts = [int(line.partition("-")[0], 16) for line in f]
        return sum(self.memory.base <= start < end for start in starts)

    def scribble(self, rng: random.Random, times: int = 8) -> None:
        """The guest writes here and there."""
        size = self.memory.size()
        for _ in range(times):
            at = rng.randrange(size - 9000)
            self.probe.call("fill", at, rng.randrange(3), rng.randrange(1, 9000))


@pytest.fixture(params=[False, True], ids=["mapped", "compared"])
def make(
    request: pytest.FixtureRequest, tmp_path: Path, wat: Callable, open_guest: Callable
) -> Iterator[Callable[..., Session]]:
    """Makes a session, on both ways."""
    made = []

    def new(pages: int = 8, cells: int = 200) -> Session:
        session = Session(tmp_path, wat, open_guest, compare=request.param, cells=cells)
        made.append(session)
        session.begin(pages)
        kind = ComparedPages if request.param else MappedPages
        assert type(session.checkpoints._tracker) is kind
        return session

    yield new
    for session in made:
        session.checkpoints.close()


# -- there and back ------------------------------------------------------------------------------


def test_every_state_comes_back_in_a_fresh_guest(make: Callable):
    session, rng = make(), random.Random(1)  # noqa: S311
    for k in range(30):
        if k % 10 == 9:
            session.probe.call("grow", 2)
        session.scribble(rng)
        session.commit()
    session.sound()
    for ident in (17, 30, 3):
        session.wake(ident)
        assert session.all() == session.states[ident]
        assert session.memory.size() == session.log[ident].pages * PAGE


def test_the_base_image_comes_back_as_well(make: Callable):
    session = make()
    session.scribble(random.Random(1))  # noqa: S311
    session.commit()
    session.wake(0)
    assert session.all() == session.image.read_bytes()


def test_it_goes_on_from_where_it_went_back_to(make: Callable):
    session, rng = make(), random.Random(2)  # noqa: S311
    for k in range(24):
        session.scribble(rng)
        session.commit()
        if k % 6 == 5:
            ident = rng.randrange(1, k)
            session.wake(ident)
            session.log.move(ident)
            session.scribble(rng)
            assert session.commit().parent == ident
    session.sound()


def test_another_worker_goes_on(make: Callable):
    """The log is opened again; nothing else is known of what was."""
    session, rng = make(), random.Random(3)  # noqa: S311
    for _ in range(6):
        session.probe.call("grow", 1)
        session.scribble(rng)
        session.commit()
        session.probe.guest.close()
        session.checkpoints.close()
        session.open()
        session.wake(session.log.head)
        assert session.all() == session.states[session.log.head]
    session.sound()


def test_both_ways_read_what_the_other_has_written(make: Callable):
    session, rng = make(), random.Random(4)  # noqa: S311
    for _ in range(6):
        session.scribble(rng)
        session.commit()
        session.checkpoints.close()
        session.limits = CheckpointLimits(compare=not session.limits.compare)
        session.open()
        session.wake(session.log.head)
        assert session.all() == session.states[session.log.head]
    session.sound()


def test_a_guest_that_writes_does_not_write_to_the_log(make: Callable):
    session = make()
    session.probe.call("fill", 0, 7, 5 * PAGE)
    session.commit()
    session.wake(1)
    shown = session.show(1)
    session.probe.call("fill", 0, 9, session.memory.size())
    assert session.show(1) == shown
    assert session.show(0) == session.image.read_bytes()


def test_what_cannot_shrink_is_refused(make: Callable):
    session = make()
    session.commit()
    session.probe.call("grow", 1)
    with pytest.raises(ValueError, match="image of"):
        session.checkpoints.fill(session.memory, 1)


def test_the_log_of_another_image_is_refused(make: Callable):
    session = make()
    session.commit()
    with pytest.raises(PageLogError):
        Checkpoints(
            session.image.parent / "log", session.image, "00" * 32, session.image_bytes,
            session.limits,
        )  # fmt: skip


def test_a_large_memory_with_few_changes(make: Callable):
    """1 GiB, of which what was never touched is neither written nor used."""
    session = make()
    session.probe.call("grow", (1 << 30) // WASM_PAGE)
    for at in (0, 3 * PAGE, 500 * MIB, 1000 * MIB):
        session.probe.call("fill", at, 7, 100)
    found = session.checkpoints.commit(session.memory, CELL)
    assert found.written < 100
    session.probe.call("fill", 500 * MIB, 8, 100)
    assert session.checkpoints.commit(session.memory, CELL).written < 100
    session.probe.guest.close()
    session.wake(1)
    assert session.memory.size() == found.pages * PAGE > 1 << 30
    for at in (0, 3 * PAGE, 500 * MIB, 1000 * MIB):
        assert session.memory.read(at, 101) == b"\7" * 100 + session.memory.read(at + 100, 1)
    assert session.memory.read(500 * MIB + 100, 1 << 16) == bytes(1 << 16)


# -- pieces --------------------------------------------------------------------------------------


@pytest.fixture
def few_pieces(monkeypatch: pytest.MonkeyPatch) -> int:
    """The most pieces that memory may be cut into, small."""
    monkeypatch.setattr(checkpoints, "MANY", 40)
    monkeypatch.setattr(checkpoints, "MANY_MAPPINGS", 300)
    monkeypatch.setattr(dirty, "HOT_PAGES", 20)
    return 300


STRAY = 8
"""Pieces that memory is in without any checkpoint: the image, what has grown, and the like."""


@pytest.mark.parametrize("step", [2, 5, 33])
def test_pieces_stay_few_however_pages_are_scattered(make: Callable, few_pieces: int, step: int):
    """Every second, fifth... page, from another one on each time, many times."""
    session = make(pages=8)
    session.probe.call("grow", 24)
    most = 0
    for k in range(200):
        at = (k % (2 * step)) * PAGE + k
        session.probe.call("stride", at, step * PAGE, k % 250 + 1)
        session.checkpoints.commit(session.memory, CELL)
        most = max(most, session.mappings())
        if k % 40 == 39:
            assert session.show(session.log.head) == session.all()
    assert most <= few_pieces + STRAY


def test_pieces_stay_few_when_single_pages_cool_down(make: Callable, few_pieces: int, monkeypatch):
    monkeypatch.setattr(dirty, "HOT_PAGES", 4096)
    monkeypatch.setattr(dirty, "COOL", 2)
    session, rng = make(pages=32), random.Random(6)  # noqa: S311
    most = 0
    for k in range(200):
        for _ in range(12):
            session.probe.call("fill", rng.randrange(512) * PAGE + 8, rng.randrange(256), 1)
        session.checkpoints.commit(session.memory, CELL)
        most = max(most, session.mappings())
        if k % 50 == 49:
            assert session.show(session.log.head) == session.all()
    assert most <= few_pieces + STRAY


def test_states_before_and_after_memory_was_put_together_come_back(make: Callable, few_pieces: int):
    session = make(pages=32)
    together = 0
    for k in range(12):
        session.probe.call("stride", (k % 6) * PAGE, 6 * PAGE, k + 1)
        together += session.commit().written > 400
    assert together >= 2
    session.sound()


SPANS = st.lists(st.tuples(st.integers(0, 3000), st.integers(1, 30)), min_size=1, max_size=60)


@given(spans=SPANS, many=st.integers(1, 20))
@example(spans=[(10 * k, 1) for k in range(50)], many=5)
@settings(max_examples=300, deadline=None)
def test_few_spans_cover_many_and_fill_the_smallest_gaps(spans: list, many: int):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "MANY", many)
        found = checkpoints._fewer(spans)
    wanted = {k for page, count in spans for k in range(page, page + count)}
    covered = [k for page, count in found for k in range(page, page + count)]
    assert len(found) <= many + 1
    assert covered == sorted(set(covered))
    assert wanted <= set(covered)
    assert {page for page, _ in found} <= wanted
    assert {page + count - 1 for page, count in found} <= wanted
    left = [after - page - count for (page, count), (after, _) in pairwise(found)]
    there = sorted(wanted)
    filled = [b - a - 1 for a, b in pairwise(there) if a + 1 < b and a + 1 in set(covered)]
    assert max(filled, default=0) <= min(left, default=1 << 30)


def test_spans_that_are_few_stay_as_they_are():
    spans = [(40, 2), (3, 4), (100, 1)]
    assert checkpoints._fewer(spans) == [(3, 4), (40, 2), (100, 1)]
    assert checkpoints._fewer([(3, 4), (7, 1), (2, 9)]) == [(2, 9)]


# -- a full disk ---------------------------------------------------------------------------------


def test_a_commit_that_failed_is_made_up_for_by_the_next(make: Callable):
    session, rng = make(), random.Random(7)  # noqa: S311
    session.scribble(rng)
    session.commit()
    for k in range(20):
        session.scribble(rng)
        if k % 5 == 4:
            session.probe.call("grow", 1)
        size = session.log.size
        for room in (1, size, size + 1, size + PAGE, size + 2 * PAGE):
            with files_of_at_most(room), pytest.raises(OSError, match="large"):
                session.checkpoints.commit(session.memory, CELL)
            assert session.log.head == max(session.states)
            session.scribble(rng, times=1)
        assert session.show(session.log.head) == session.states[session.log.head]
        session.commit()
        assert session.show(session.log.head) == session.all()
    session.sound()


@pytest.mark.parametrize("before", ["hot", "cold", "new"])
@pytest.mark.parametrize("back", [False, True])
def test_what_a_page_has_after_a_commit_that_failed(make: Callable, before: str, *, back: bool):
    """It may have been watched or mapped before, and may become again what it was."""
    session, at = make(), 9 * PAGE
    if before != "new":
        session.probe.call("fill", at, 1, 50)
        session.commit()
    for _ in range(2 * dirty.COOL if before == "cold" else 0):
        session.commit()
    was = session.memory.read(at, 50)
    session.probe.call("fill", at, 2, 50)
    for _ in range(3):
        with files_of_at_most(1), pytest.raises(OSError, match="large"):
            session.checkpoints.commit(session.memory, CELL)
    if back:
        session.memory.write(at, was)
    session.commit()
    session.sound()
    session.probe.call("fill", at, 3, 50)
    session.commit()
    session.sound()


def test_zeros_that_were_freed_in_a_commit_that_failed(make: Callable):
    session = make()
    session.probe.call("grow", 20)
    start = 8 * WASM_PAGE
    session.probe.call("fill", start, 1, 10 * WASM_PAGE)
    session.probe.call("fill", start, 0, 10 * WASM_PAGE)
    session.probe.call("fill", start + 12 * WASM_PAGE, 5, 100)
    with files_of_at_most(1), pytest.raises(OSError, match="large"):
        session.checkpoints.commit(session.memory, CELL)
    session.probe.call("fill", start + 3 * WASM_PAGE, 4, 100)
    session.commit()
    session.sound()


def test_a_full_disk_while_memory_is_put_together(make: Callable, few_pieces: int):
    session = make(pages=32)
    for k in range(12):
        session.probe.call("stride", (k % 6) * PAGE, 6 * PAGE, k + 1)
        with files_of_at_most(1), pytest.raises(OSError, match="large"):
            session.checkpoints.commit(session.memory, CELL)
        session.commit()
        assert session.show(session.log.head) == session.all()
    assert session.mappings() <= few_pieces + STRAY
    session.sound()


@contextlib.contextmanager
def no_mapping() -> Iterator[None]:
    """The kernel maps no more private memory."""
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (PAGE, hard))
    try:
        with pytest.raises(OSError, match="memory"):
            mmap.mmap(-1, PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


@pytest.mark.parametrize("many", [0, 16_000])
def test_what_cannot_be_mapped_again_is_kept_as_it_is(
    make: Callable, monkeypatch: pytest.MonkeyPatch, many: int
):
    """Pages that cooled down, and memory that is put together anew."""
    monkeypatch.setattr(dirty, "COOL", 2)
    session, at = make(), 9 * PAGE
    session.probe.call("fill", at, 1, 50)
    session.probe.call("fill", 20 * PAGE, 1, 50)
    session.commit()
    with monkeypatch.context() as together:
        together.setattr(checkpoints, "MANY_MAPPINGS", many)
        for k in range(8):
            session.probe.call("fill", at, k // 3, 50)
            with no_mapping():
                session.checkpoints.commit(session.memory, CELL)
            assert session.show(session.log.head) == session.all()
    for value in (1, 2, 1):
        session.probe.call("fill", at, value, 50)
        session.probe.call("fill", 20 * PAGE, 1 - value, 50)
        session.checkpoints.commit(session.memory, CELL)
        assert session.show(session.log.head) == session.all()


# -- compaction ----------------------------------------------------------------------------------


def test_memory_stays_what_it_is_when_its_files_are_dropped(
    make: Callable, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(pagelog, "SEGMENT_CHECKPOINTS", 3)
    session, rng = make(cells=4), random.Random(8)  # noqa: S311
    folder, dropped = session.image.parent / "log", 0
    for k in range(40):
        session.scribble(rng, times=4)
        if k % 10 == 9:
            session.probe.call("grow", 1)
        session.commit()
        if k == 4:
            session.log.name("early", session.log.head)
        dropped += session.checkpoints.tidy(session.memory)
        assert session.all() == session.states[session.log.head]
        assert sum(1 for _ in session.log.chain(session.log.head)) >= min(k + 1, 4)
    assert dropped > 5
    assert len(list(folder.iterdir())) < 10
    assert session.log.names["early"] in session.log
    with open("/proc/self/maps") as f:
        assert not [line for line in f if str(folder) in line and "(deleted)" in line]
    session.sound()


def test_a_guest_at_an_old_state_outlives_the_files_that_it_is_mapped_from(
    make: Callable, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(pagelog, "SEGMENT_CHECKPOINTS", 2)
    session, rng = make(cells=1), random.Random(9)  # noqa: S311
    session.scribble(rng)
    session.commit()
    other = session._open(session._text)
    session.checkpoints.show(other.memory, 1)
    for _ in range(12):
        session.scribble(rng)
        session.commit()
        session.checkpoints.tidy(session.memory)
    assert 1 not in session.log
    assert other.memory.read(0, other.memory.size()) == session.states[1]


def test_a_full_disk_while_old_states_are_dropped_loses_nothing(
    make: Callable, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(pagelog, "SEGMENT_CHECKPOINTS", 2)
    session, rng = make(cells=2), random.Random(10)  # noqa: S311
    failures = 0
    for _ in range(20):
        session.scribble(rng, times=3)
        session.commit()
        try:
            with files_of_at_most(PAGE + 100):
                session.checkpoints.tidy(session.memory)
        except OSError:
            failures += 1
        assert session.all() == session.states[session.log.head]
        assert session.show(session.log.head) == session.all()
    assert failures > 0
    session.sound()
    session.checkpoints.tidy(session.memory)
    session.scribble(rng)
    session.commit()
    session.sound()
