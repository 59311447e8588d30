"""Shows that a page log gives back every state that was committed, whatever happens to it.

It is compared with a dict of pages after each operation, after a kill in the middle of each, after
each failure of the disk, and after damage. Every page that is stored looks like a record itself:
whoever takes data for records shows checkpoints that never were.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import random
import resource
import shutil
import stat
import tempfile
import tracemalloc
from dataclasses import dataclass, field, replace
from itertools import count, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from wasi_kernel import pagelog, records
from wasi_kernel.errors import PageLogError
from wasi_kernel.pagelog import PageLog
from wasi_kernel.records import CHECKPOINT, PAGE, Checkpoint, Run
from wasi_kernel.segments import ORIGIN, SEGMENT_MAGIC, Disk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

IMAGE = "5e" * 32
SMALL = 3
"""Checkpoints of a segment in these tests."""

FORGED = 10**6
ALL = 1 << 30
PARTS = (0, 3, 60, PAGE, PAGE + 60, -1, ALL)
"""How much of the write that a kill cuts short reaches the file, as the end of a slice."""


@pytest.fixture(autouse=True)
def small_segments(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pagelog, "SEGMENT_CHECKPOINTS", SMALL)


# -- pages, and what a log shows of them -----------------------------------------------------------


@functools.cache
def page(tag: int) -> bytes:
    """A page of memory unlike any other; it reads as a record of a checkpoint that never was."""
    forged = Checkpoint(FORGED + tag, 0, 0, (), {"forged": tag}, 0)
    return records.encode(CHECKPOINT, forged)


@functools.cache
def _tag(content: bytes) -> int:
    """The number of a page; 0 for anything that no test has written."""
    size = records.measure(content)
    found = size and records.decode(content[: size[0]], 0, 0)
    tag = found[1].notes.get("forged", 0) if found else 0
    return tag if page(tag) == content else 0


def tagged(spans: Sequence[tuple[int, Sequence[int]]]) -> list[tuple[int, bytes]]:
    """What `append` takes, of (first page, tags)."""
    return [(first, b"".join(map(page, tags))) for first, tags in spans]


def content(log: PageLog, ident: int) -> dict[int, int]:
    """{page: tag} of a state."""
    found = {}
    for run in log.state(ident):
        data = log.read(run)
        assert len(data) == run.count * PAGE
        for k in range(run.count):
            found[run.page + k] = _tag(data[k * PAGE : (k + 1) * PAGE])
    return found


@dataclass(frozen=True)
class State:
    """What is to be known of one checkpoint."""

    parent: int
    pages: int
    notes: dict[str, Any]
    content: dict[int, int]


@dataclass(frozen=True)
class Seen:
    """Everything that a log shows."""

    head: int = 0
    head_notes: dict[str, Any] = field(default_factory=dict)
    names: dict[str, int] = field(default_factory=dict)
    states: dict[int, State] = field(default_factory=dict)

    def undoable(self, is_cell: Callable[[State], bool]) -> int:
        """How many cells have what they stand on, from the head back."""
        found, ident = 0, self.head
        while ident and self.states[ident].parent:
            found += is_cell(self.states[ident])
            ident = self.states[ident].parent
        return found


def seen(log: PageLog) -> Seen:
    states = {}
    for each in sorted(log, key=lambda c: c.id):
        assert log.verify(each.id) == 0
        states[each.id] = State(each.parent, each.pages, each.notes, content(log, each.id))
    return Seen(log.head, log.head_notes, dict(log.names), states)


def shown(folder: Path) -> Seen:
    """What another process sees in the folder."""
    with opened(folder, read_only=True) as log:
        return seen(log)


@contextlib.contextmanager
def opened(folder: Path, disk: Disk | None = None, *, read_only: bool = False) -> Iterator[PageLog]:
    log = PageLog(folder, IMAGE, disk, read_only=read_only)
    try:
        yield log
    finally:
        log.close()


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# -- what an operation may lead to -----------------------------------------------------------------


def appended(
    before: Seen, now: Seen, pages: int, spans: Sequence[tuple[int, Sequence[int]]], notes: dict
) -> Seen:
    """`before` with that checkpoint on its head, under the number that it has got."""
    assert now.head > max(before.states, default=0)
    below = before.states[before.head].content if before.head else {}
    written = {first + k: tag for first, tags in spans for k, tag in enumerate(tags)}
    state = State(before.head, pages, notes, {**below, **written})
    return Seen(now.head, notes, before.names, {**before.states, now.head: state})


def named(before: Seen, name: str, ident: int) -> Seen:
    names = {k: v for k, v in before.names.items() if k != name}
    return replace(before, names={**names, name: ident} if ident else names)


def compacted(before: Seen, now: Seen) -> Seen:
    """`before` without the checkpoints that `now` lacks, but all that must stay.

    What stands on nothing in `now` has been written once more.
    """
    assert {now.head, *now.names.values()} <= {0, *now.states}
    states = {}
    for ident in now.states:
        state = before.states[ident]
        states[ident] = state if now.states[ident].parent else replace(state, parent=0)
    return replace(before, states=states)


# -- disks -----------------------------------------------------------------------------------------


class Killed(BaseException):
    """The process is dead from here on."""


class KillingDisk(Disk):
    """A disk whose process is killed in the middle of an operation, when told to.

    Attributes:
        operations: How many it has begun.
    """

    def __init__(self) -> None:
        self.operations = 0
        self._left: int | None = None
        self._part = 0

    def kill(self, left: int, part: int) -> None:
        """After so many operations, with that part of the next one done; any other: all of it."""
        self._left, self._part = left, part

    def spare(self) -> None:
        """No kill, or a new process."""
        self._left = None

    def _dies(self) -> bool:
        self.operations += 1
        if self._left:
            self._left -= 1
            return False
        return self._left is not None

    def _last_part(self) -> int:
        part, self._part = self._part, 0  # who is dead does nothing more
        return part

    def write(self, fd: int, buffers: Sequence[Any], offset: int) -> None:
        if self._dies():
            data = b"".join(buffers)
            super().write(fd, [data[: self._last_part()]], offset)
            raise Killed
        super().write(fd, buffers, offset)

    def truncate(self, fd: int, size: int) -> None:
        if self._dies():
            if self._last_part():
                super().truncate(fd, size)
            raise Killed
        super().truncate(fd, size)

    def create(self, path: Path) -> int:
        if self._dies():
            if self._last_part():
                os.close(super().create(path))
            raise Killed
        return super().create(path)

    def remove(self, path: Path) -> None:
        if self._dies():
            if self._last_part():
                super().remove(path)
            raise Killed
        super().remove(path)


class FullDisk(Disk):
    """A disk that takes so many more writes and files, and of the next write a part.

    Attributes:
        writes: How many writes and files were begun.
        room: How many more it takes; None: all.
        part: How much of the write that fails is written, as the end of a slice.
        can_truncate: Can files still be cut?
    """

    def __init__(self) -> None:
        self.writes = 0
        self.room: int | None = None
        self.part = 0
        self.can_truncate = True

    def write(self, fd: int, buffers: Sequence[Any], offset: int) -> None:
        self.writes += 1
        if self.room == 0:
            super().write(fd, [b"".join(buffers)[: self.part]], offset)
            raise OSError(errno.ENOSPC, "no space left")
        if self.room is not None:
            self.room -= 1
        super().write(fd, buffers, offset)

    def create(self, path: Path) -> int:
        self.writes += 1
        if self.room == 0:
            raise OSError(errno.ENOSPC, "no space left")
        if self.room is not None:
            self.room -= 1
        return super().create(path)

    def truncate(self, fd: int, size: int) -> None:
        if not self.can_truncate:
            raise OSError(errno.EIO, "input/output error")
        super().truncate(fd, size)


class WatchedDisk(Disk):
    """A disk of a process that is looked at before and after each of its operations."""

    def __init__(self, look: Callable[[], None]) -> None:
        self._look = look

    def write(self, fd: int, buffers: Sequence[Any], offset: int) -> None:
        self._look()
        data = b"".join(buffers)
        for part in PARTS:
            super().write(fd, [data[:part]], offset)
            self._look()
        super().write(fd, buffers, offset)
        self._look()

    def truncate(self, fd: int, size: int) -> None:
        self._look()
        super().truncate(fd, size)
        self._look()

    def create(self, path: Path) -> int:
        self._look()
        fd = super().create(path)
        self._look()
        return fd

    def remove(self, path: Path) -> None:
        self._look()
        super().remove(path)
        self._look()


# -- any sequence of operations --------------------------------------------------------------------


class Kept:
    """One log, and what it is to show."""

    def __init__(self, folder: Path, expected: Seen) -> None:
        self.folder, self.expected = folder, expected
        self.disk = KillingDisk()
        self.log = PageLog(folder, IMAGE, self.disk)

    def reopen(self) -> None:
        self.log.close()
        self.log = PageLog(self.folder, IMAGE, self.disk)


WHICH = st.integers(0, 2)
PICK = st.integers(0, 1000)
KILL = st.none() | st.tuples(st.integers(0, 9), st.sampled_from(PARTS))
SPANS = st.lists(st.tuples(st.integers(0, 4), st.integers(1, 3)), max_size=5)


class Logs(RuleBasedStateMachine):
    """A log and its forks, each beside what it is to show; any operation may be the last."""

    def __init__(self) -> None:
        super().__init__()
        self.root = tempfile.TemporaryDirectory()
        self.tags = count(1)
        self.kept: list[Kept] = []
        self._begin(Seen())

    def teardown(self) -> None:
        for each in self.kept:
            each.log.close()
        self.root.cleanup()

    def _begin(self, expected: Seen) -> None:
        self.kept.append(Kept(self._folder(), expected))

    def _folder(self) -> Path:
        folder = Path(self.root.name) / str(len(self.kept))
        folder.mkdir(exist_ok=True)
        return folder

    def _at(self, which: int) -> Kept:
        return self.kept[which % len(self.kept)]

    def _do(
        self, kept: Kept, kill: tuple[int, int] | None, operation: Callable[[], object],
        after: Callable[[Seen, Seen], Seen],
    ) -> None:  # fmt: skip
        """Does it, or what a kill leaves of it: all or nothing. `after` gets before and now."""
        before = kept.expected
        if kill is not None:
            kept.disk.kill(*kill)
        try:
            operation()
        except Killed:
            kept.disk.spare()
            kept.reopen()
            if seen(kept.log) == before:
                return
        kept.disk.spare()
        now = seen(kept.log)
        assert now == after(before, now)
        kept.expected = now

    @rule(which=WHICH, spans=SPANS, growth=st.integers(0, 3), kill=KILL)
    def append(self, which: int, spans: list, growth: int, kill: tuple | None) -> None:
        kept = self._at(which)
        changed, end = [], 0
        for gap, length in spans:
            changed.append((end + gap, [next(self.tags) for _ in range(length)]))
            end += gap + length
        head = kept.expected.states.get(kept.expected.head)
        pages = max(end, head.pages if head else 0) + growth
        notes = {"cell": next(self.tags)}
        self._do(
            kept, kill, lambda: kept.log.append(pages, tagged(changed), notes),
            lambda before, now: appended(before, now, pages, changed, notes),
        )  # fmt: skip

    @rule(which=WHICH, pick=PICK, kill=KILL)
    def move(self, which: int, pick: int, kill: tuple | None) -> None:
        kept, notes = self._at(which), {"request": next(self.tags)}
        ident = self._one_of(kept, pick)
        self._do(
            kept, kill, lambda: kept.log.move(ident, notes),
            lambda before, _: replace(before, head=ident, head_notes=notes),
        )  # fmt: skip

    @rule(which=WHICH, pick=PICK, name=st.sampled_from(["a", "b é"]), kill=KILL)
    def name(self, which: int, pick: int, name: str, kill: tuple | None) -> None:
        kept = self._at(which)
        ident = self._one_of(kept, pick)
        self._do(
            kept, kill, lambda: kept.log.name(name, ident),
            lambda before, _: named(before, name, ident),
        )  # fmt: skip

    @staticmethod
    def _one_of(kept: Kept, pick: int) -> int:
        known = [0, *kept.expected.states]
        return known[pick % len(known)]

    @rule(
        which=WHICH, keep=st.integers(0, 4), limit=st.sampled_from([1, 10, 40, ALL]),
        kill=KILL,
    )  # fmt: skip
    def compact(self, which: int, keep: int, limit: int, kill: tuple | None) -> None:
        kept = self._at(which)
        self._do(
            kept, kill, lambda: kept.log.compact(keep, limit * PAGE, lambda _: True), compacted
        )

    @rule(which=WHICH, kill=KILL)
    def reopen(self, which: int, kill: tuple | None) -> None:
        kept = self._at(which)
        self._do(kept, kill, kept.reopen, lambda before, _: before)
        kept.reopen()
        assert kept.log.damage == []

    @precondition(lambda self: len(self.kept) < 3)
    @rule(which=WHICH)
    def fork(self, which: int) -> None:
        kept = self._at(which)
        kept.log.fork(self._folder())
        self._begin(kept.expected)

    @invariant()
    def all_logs_show_what_they_are_to_show(self) -> None:
        for kept in self.kept:
            assert seen(kept.log) == shown(kept.folder) == kept.expected


def test_a_log_is_a_dict_of_states_whatever_is_done_and_cut_short():
    few = settings(max_examples=200, stateful_step_count=40, deadline=None, derandomize=True)
    run_state_machine_as_test(Logs, settings=few)


# -- one sequence of operations, cut short everywhere ----------------------------------------------

Step = tuple[str, "Callable[[PageLog], object]"]


def added(pages: int, *spans: tuple[int, Sequence[int]]) -> Step:
    notes = {"cell": pages}
    return "append", lambda log: log.append(pages, tagged(spans), notes)


def packed(keep: int, pages: int) -> Step:
    return "compact", lambda log: log.compact(keep, pages * PAGE, lambda _: True)


SCENARIO: list[Step] = [
    added(9, (0, [1, 2]), (5, [3])),
    added(12, (1, [4, 5]), (8, [6, 7, 8])),
    ("move", lambda log: log.move(1, {"request": 1})),
    ("name", lambda log: log.name("a", 2)),
    added(10, (5, [9])),
    packed(9, 1000),
    added(14, (0, [10]), (2, [11]), (13, [12])),
    ("name", lambda log: log.name("b", 4)),
    added(14),
    added(14, (2, range(13, 20))),
    packed(2, 1000),
    added(15, (14, [20])),
    ("name", lambda log: log.name("a", 0)),
    packed(1, 30),
    ("move", lambda log: log.move(4, {"request": 2})),
    added(15, (0, [21])),
    packed(0, 1),
]


def rehearsed(folder: Path, disk: Disk) -> list[Seen]:
    """What is to be seen before the first and after each step."""
    with opened(folder, disk) as log:
        found = [seen(log)]
        for _, step in SCENARIO:
            step(log)
            found.append(seen(log))
    return found


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Callable[[], Path]]:
    """Gives a fresh folder each time; the one before is gone."""
    folder = tmp_path / "log"

    def fresh() -> Path:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return folder

    return fresh


def test_the_scenario_has_all_there_is(room: Callable[[], Path]):
    stages = rehearsed(room(), Disk())
    assert stages[11].states.keys() < stages[10].states.keys()  # a compaction that drops some
    assert stages[14].states.keys() < stages[13].states.keys()
    assert stages[13].names == {"b": 4}
    assert stages[-1].head == 8
    assert stages[-1].states[8].content[0] == 21


@pytest.mark.parametrize("part", PARTS)
def test_a_kill_at_any_operation_leaves_what_was_or_what_was_to_be(
    room: Callable[[], Path], part: int
):
    spared = KillingDisk()
    stages = rehearsed(room(), spared)
    assert spared.operations > 40
    done = set()
    for left in range(spared.operations):
        folder, disk = room(), KillingDisk()
        disk.kill(left, part)
        k = 0
        with contextlib.suppress(Killed), opened(folder, disk) as log:
            for k, (_, step) in enumerate(SCENARIO):  # noqa: B007 - which one was cut short
                step(log)
        before, after = stages[k], stages[k + 1]
        with opened(folder) as log:
            now = seen(log)
            assert part or log.damage == []
            if SCENARIO[k][0] == "compact":
                assert now == compacted(before, now)
                assert after.states.keys() <= now.states.keys() <= before.states.keys()
            else:
                assert now in (before, after)
            done.add(now == after != before)
            log.append(20, tagged([(19, [99])]), {})
            expected = appended(now, seen(log), 20, [(19, [99])], {})
        assert shown(folder) == expected
    assert (part == ALL) in done


def test_a_name_that_was_taken_away_does_not_come_back(room: Callable[[], Path]):
    """Wherever a kill stops a compaction that drops what gave it and what took it away."""
    for left in count():
        folder, disk = room(), KillingDisk()
        with contextlib.suppress(Killed), opened(folder, disk) as log:
            for ident in (1, 0):
                for _ in range(SMALL):
                    log.append(9, [], {})
                log.name("gone", ident)
                assert not log.compact(100, ALL, lambda _: True)
            before = seen(log)
            disk.kill(left, ALL)
            assert log.compact(0, PAGE, lambda _: True)
            disk.spare()
        with opened(folder) as log:
            assert log.names == {}
            assert seen(log) == compacted(before, seen(log))
            if len(log) == 1:
                break
    assert left > 2


@pytest.mark.parametrize("part", [0, 60, PAGE, -1, ALL])
def test_a_full_disk_leaves_the_log_as_it_was_and_usable(room: Callable[[], Path], part: int):
    enough = FullDisk()
    stages = rehearsed(room(), enough)
    for writes in range(enough.writes):
        folder, disk = room(), FullDisk()
        disk.room, disk.part = writes, part
        with opened(folder, disk) as log:
            for k, (kind, step) in enumerate(SCENARIO):
                try:
                    step(log)
                except OSError as e:
                    assert e.errno == errno.ENOSPC  # noqa: PT017 - the rest of the loop goes on
                    now = seen(log)
                    assert now == stages[k], kind
                    assert shown(folder) == now
                    disk.room = None
                    step(log)
            assert disk.room is None
            now = seen(log)
        assert (now.head, now.names) == (stages[-1].head, stages[-1].names)
        assert now.states[now.head].content == stages[-1].states[now.head].content
        assert shown(folder) == now


@pytest.mark.parametrize("part", [0, PAGE])
def test_what_a_full_disk_left_behind_is_never_taken_for_a_record(
    room: Callable[[], Path], part: int
):
    """Also if it could not be cut off: what comes next ends just before a page like a record."""
    disk = FullDisk()
    with opened(room(), disk) as log:
        log.append(9, tagged([(0, [1])]), {})
        disk.room, disk.part, disk.can_truncate = 1, part, False
        before = seen(log)
        with pytest.raises(OSError, match="space"):
            log.append(9, tagged([(0, [2]), (4, [3, 4])]), {})
        assert seen(log) == before
        disk.room, disk.can_truncate = None, True
        log.move(1, {"request": 5})
        expected = replace(before, head_notes={"request": 5})
        assert seen(log) == expected
        assert shown(log_folder(log)) == expected


def test_a_file_that_may_not_grow_is_a_full_disk(tmp_path: Path):
    """The real thing: writes come short, then fail."""
    with opened(tmp_path) as log:
        log.append(9, tagged([(0, [1])]), {})
        before, size = seen(log), log.size
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        for room in (0, 1, PAGE, PAGE + 1, 2 * PAGE + 100, 3 * PAGE):
            resource.setrlimit(resource.RLIMIT_FSIZE, (size + room, hard))
            try:
                with pytest.raises(OSError, match="large"):
                    log.append(9, tagged([(2, [2, 3]), (5, [4])]), {})
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            assert seen(log) == shown(tmp_path) == before
            assert os.path.getsize(segment(tmp_path, 1)) == size
        log.append(9, tagged([(2, [2, 3]), (5, [4])]), {})
        after = appended(before, seen(log), 9, [(2, [2, 3]), (5, [4])], {})
        assert seen(log) == shown(tmp_path) == after


# -- damage ----------------------------------------------------------------------------------------


def log_folder(log: PageLog) -> Path:
    return Path(os.readlink(f"/proc/self/fd/{log.fileno(records.place_in(1, 0))[0]}")).parent


def segment(folder: Path, number: int) -> Path:
    return folder / f"{number:06}.pages"


def flip(path: Path, offset: int) -> None:
    """Another byte at `offset`."""
    with path.open("r+b") as f:
        f.seek(offset)
        old = f.read(1)[0]
        f.seek(offset)
        f.write(bytes([old ^ 0x10]))


def three(folder: Path) -> list[Seen]:
    """Three checkpoints that all write pages 0 and 1, and one page of their own: 4, 5, 6."""
    stages = [Seen()]
    with opened(folder) as log:
        for k in (1, 2, 3):
            spans = [(0, [10 * k, 10 * k + 1]), (3 + k, [10 * k + 2])]
            log.append(10, tagged(spans), {"cell": k})
            stages.append(seen(log))
    return stages


def long(folder: Path) -> tuple[Seen, PageLog]:
    """Eight checkpoints, one on the other, in three segments, and the log."""
    log = PageLog(folder, IMAGE)
    for k in range(1, 9):
        log.append(10, tagged([(k, [k, 10 + k])]), {"cell": k})
        assert not log.compact(100, ALL, lambda _: True)
    assert {p.name for p in folder.iterdir()} == {f"00000{k}.pages" for k in (1, 2, 3)}
    return seen(log), log


def goes_on(folder: Path) -> None:
    """Shows that what is there is used as if nothing had happened."""
    with opened(folder) as log:
        before = seen(log)
        log.append(12, tagged([(3, [90, 91])]), {"cell": 90})
        after = appended(before, seen(log), 12, [(3, [90, 91])], {"cell": 90})
        assert seen(log) == after
    with opened(folder) as log:
        assert seen(log) == after


@pytest.mark.parametrize(
    ("ident", "run", "offset", "sound"),
    [
        (3, 0, 0, 2), (3, 0, 2 * PAGE - 1, 2), (3, 1, 1000, 2),  # the newest one's own pages
        (2, 1, 0, 1), (1, 1, PAGE - 1, 0),  # pages that later states have too
        (2, 0, 0, 3), (1, 0, PAGE, 3),  # pages that were written again since
    ],
)  # fmt: skip
def test_a_state_with_a_damaged_page_is_not_used(
    tmp_path: Path, ident: int, run: int, offset: int, sound: int
):
    stages = three(tmp_path)
    with opened(tmp_path) as log:
        place = log[ident].runs[run].place
        flip(segment(tmp_path, 1), log.fileno(place)[1] + offset)
        assert log.head == 3
    with opened(tmp_path) as log:
        assert log.newest_sound() == sound
        assert (log.damage == []) == (sound == 3)
        assert content(log, sound) == (stages[sound].states[sound].content if sound else {})
        assert log.verify(ident) == ident
        if sound:
            log.move(sound)
            log.append(10, tagged([(8, [80])]), {})
    with opened(tmp_path) as log:
        if sound:
            assert log.newest_sound() == 4
            assert content(log, 4) == {**stages[sound].states[sound].content, 8: 80}


def test_of_many_states_with_damaged_pages_the_one_before_is_used(tmp_path: Path):
    three(tmp_path)
    with opened(tmp_path) as log:
        for ident in (2, 3):
            flip(segment(tmp_path, 1), log.fileno(log[ident].runs[1].place)[1])
    with opened(tmp_path) as log:
        assert log.newest_sound() == 1
        assert log.damage


def test_the_state_before_a_damaged_one_is_what_it_stands_on(tmp_path: Path):
    """And not the one that was written before it, which has been undone."""
    three(tmp_path)
    with opened(tmp_path) as log:
        log.move(1)
        log.append(10, tagged([(9, [40])]), {})
        flip(segment(tmp_path, 1), log.fileno(log[4].runs[0].place)[1])
    with opened(tmp_path) as log:
        assert (log.newest_sound(), log.head) == (1, 4)


def test_a_damaged_page_is_not_sealed_again(tmp_path: Path):
    """A compaction copies pages, but does not call right what it found wrong."""
    stages = three(tmp_path)
    with opened(tmp_path) as log:
        flip(segment(tmp_path, 1), log.fileno(log[1].runs[1].place)[1])
    with opened(tmp_path) as log:
        for _ in range(2):
            with pytest.raises(PageLogError, match="damaged"):
                log.compact(0, 1, lambda _: True)
    with opened(tmp_path) as log:
        for each in log:
            if log.verify(each.id) == 0:
                assert content(log, each.id) == stages[3].states[each.id].content
        sound = log.newest_sound()
        assert content(log, sound) == (stages[3].states[sound].content if sound else {})


STEPS: list[Callable[[PageLog], object]] = [
    lambda log: log.append(9, tagged([(0, [1, 2])]), {"cell": 1}),
    lambda log: log.append(9, tagged([(1, [3]), (5, [4])]), {"cell": 2}),
    lambda log: log.move(1, {"request": 3}),
    lambda log: log.name("a", 2),
    lambda log: log.append(9, [], {"cell": 5}),
]
"""One record each, in one segment."""


def recorded(folder: Path) -> tuple[list[Seen], list[int]]:
    """What is to be seen before the first and after each of STEPS, and where each record begins."""
    with opened(folder) as log:
        stages, begins = [Seen()], [PAGE]
        for step in STEPS:
            step(log)
            stages.append(seen(log))
            begins.append(log.size)
    return stages, begins


def text_of(path: Path, at: int) -> int:
    """How long the text of the record at `at` is."""
    with path.open("rb") as f:
        f.seek(at)
        found = records.measure(f.read(PAGE))
    assert found is not None
    return found[0]


@pytest.mark.parametrize("what", ["magic", "fields", "runs and notes"])
@pytest.mark.parametrize("k", range(len(STEPS)))
def test_a_damaged_record_ends_the_log_and_is_told(room: Callable[[], Path], k: int, what: str):
    stages, begins = recorded(room())
    folder = room()
    recorded(folder)
    path = segment(folder, 1)
    whole, text = path.read_bytes(), text_of(path, begins[k])
    start, end = {"magic": (0, 4), "fields": (4, 44), "runs and notes": (44, text)}[what]
    for offset in range(start, end):
        path.write_bytes(whole)
        flip(path, begins[k] + offset)
        with opened(folder) as log:
            assert seen(log) == stages[k]
            assert log.damage != []
    goes_on(folder)


def test_damage_of_padding_is_harmless(tmp_path: Path):
    stages, begins = recorded(tmp_path)
    path = segment(tmp_path, 1)
    for at in begins[:-1]:
        flip(path, at + text_of(path, at))
        flip(path, at + PAGE - 1)
    with opened(tmp_path) as log:
        assert seen(log) == stages[-1]
        assert log.damage == []


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("offset", [0, 10, 19, 20, 83])
def test_damage_of_a_segments_head_is_told(tmp_path: Path, number: int, offset: int):
    """The first 20 bytes say what it is, then comes the base image's digest."""
    whole, log = long(tmp_path)
    log.close()
    flip(segment(tmp_path, number), offset)
    try:
        with opened(tmp_path) as log:
            assert log.damage != []
            assert seen(log).states.items() <= whole.states.items()
    except PageLogError as e:
        assert e.where == segment(tmp_path, number).name  # noqa: PT017 - either is right
    else:
        goes_on(tmp_path)


def test_a_truncated_segment_is_what_it_was_when_it_was_so_long(room: Callable[[], Path]):
    stages, begins = recorded(room())
    lengths = {end + more for end in begins for more in (-1, 0, 1)} | {0, 1, PAGE // 2}
    lengths |= {end - PAGE for end in begins[1:]} | {at + PAGE for at in begins[:-1]}
    for length in sorted(lengths):
        folder = room()
        recorded(folder)
        os.truncate(segment(folder, 1), min(length, begins[-1]))
        done = sum(end <= length for end in begins[1:])
        assert shown(folder) == stages[done]
        goes_on(folder)


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("half", [True, False])
def test_a_segment_that_is_missing_or_cut_is_told(tmp_path: Path, number: int, half: bool):
    whole, log = long(tmp_path)
    log.close()
    path = segment(tmp_path, number)
    if half:
        os.truncate(path, path.stat().st_size // 2)
    else:
        path.unlink()
    with opened(tmp_path) as log:
        now = seen(log)
        assert log.damage != []
        assert now.states.items() <= whole.states.items()
        first = 3 * number - 2  # the segment's first checkpoint
        assert now.states.keys() == set(range(1, first + half))
        assert now.head == max(now.states, default=0)
        assert now.head_notes == (now.states[now.head].notes if now.head else {})
    goes_on(tmp_path)


def test_a_name_whose_checkpoint_is_missing_is_told(tmp_path: Path):
    _, log = long(tmp_path)
    log.name("mine", 5)
    log.move(2)
    log.close()
    segment(tmp_path, 2).unlink()
    with opened(tmp_path) as log:
        assert (log.head, log.names) == (2, {})
        assert log.damage != []


def test_a_name_whose_checkpoint_is_missing_never_means_another(tmp_path: Path):
    _, log = long(tmp_path)
    log.compact(100, 1000 * PAGE, lambda _: True)
    log.append(10, [], {"cell": 9})
    log.compact(100, 1000 * PAGE, lambda _: True)
    log.name("mine", 9)
    log.close()
    assert segment(tmp_path, 4).exists()
    os.truncate(segment(tmp_path, 3), PAGE)
    with opened(tmp_path) as log:
        assert log.head == 6
        for k in range(7, 11):
            log.append(10, [], {"cell": f"another {k}"})
        assert "mine" not in log.names
    with opened(tmp_path) as log:
        assert "mine" not in log.names


def test_what_is_crafted_to_be_a_record_counts_only_where_one_is_due(tmp_path: Path):
    """A torn tail full of records, at page boundaries: none of them is one."""
    stages = three(tmp_path)
    with segment(tmp_path, 1).open("ab") as f:
        f.write(bytes(PAGE) + b"".join(page(k) for k in range(1, 20)))
    assert shown(tmp_path) == stages[3]
    with opened(tmp_path) as log:
        assert seen(log) == stages[3]
        assert log.damage == []
        assert segment(tmp_path, 1).stat().st_size == log.size
        log.move(2)
    assert shown(tmp_path) == replace(stages[3], head=2, head_notes={})


def test_notes_that_are_no_object_end_the_log(tmp_path: Path):
    stages = three(tmp_path)
    with opened(tmp_path) as log:
        log.append(10, [], {"n": 10**6})
    path = segment(tmp_path, 1)
    data = path.read_bytes()
    head, text = data[:-PAGE], data[-PAGE:]
    listed = records.encode(CHECKPOINT, Checkpoint(4, 3, 10, (), [10**6], 1))  # type: ignore[arg-type]
    assert len(listed) == len(text)
    path.write_bytes(head + listed)
    with opened(tmp_path) as log:
        assert seen(log) == stages[3]
        assert log.damage != []


def test_a_checkpoint_whose_notes_are_too_long_is_refused_or_kept(tmp_path: Path):
    stages = three(tmp_path)
    with opened(tmp_path) as log:
        with contextlib.suppress(ValueError, PageLogError):
            log.append(10, [], {"line": "x" * records.MAX_NOTES})
            stages.append(seen(log))
        log.append(10, [], {"line": "short"})
        after = appended(stages[-1], seen(log), 10, [], {"line": "short"})
    assert shown(tmp_path) == after


# -- who may open it -------------------------------------------------------------------------------


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("read_only", [True, False])
def test_the_log_of_another_image_is_refused_and_left_alone(tmp_path: Path, read_only: bool):
    three(tmp_path)
    before, open_ones = files(tmp_path), descriptors()
    with pytest.raises(PageLogError) as caught:
        PageLog(tmp_path, "6f" * 32, read_only=read_only)
    assert caught.value.where == segment(tmp_path, 1).name
    assert files(tmp_path) == before
    assert descriptors() == open_ones


@pytest.mark.parametrize("read_only", [True, False])
def test_a_segment_that_is_a_link_is_not_followed(tmp_path: Path, read_only: bool):
    folder, other = tmp_path / "log", tmp_path / "other"
    folder.mkdir()
    other.mkdir()
    three(other)
    with segment(other, 1).open("ab") as f:
        f.write(b"torn")
    segment(folder, 1).symlink_to(segment(other, 1))
    before, open_ones = files(other), descriptors()
    with pytest.raises(OSError, match=r"symbolic|symlink"):
        PageLog(folder, IMAGE, read_only=read_only)
    assert files(other) == before
    assert descriptors() == open_ones


def test_files_are_this_users_only(tmp_path: Path):
    folder, fork = tmp_path / "log", tmp_path / "fork"
    folder.mkdir()
    fork.mkdir()
    before = os.umask(0)
    try:
        _, log = long(folder)
        log.fork(fork)
        log.close()
        with opened(fork) as log:
            log.append(10, [], {})
    finally:
        os.umask(before)
    found = [*folder.iterdir(), *fork.iterdir()]
    assert len(found) == 3 + 3 + 1 + 1
    assert {p.name: stat.S_IMODE(p.stat().st_mode) for p in found} == {p.name: 0o600 for p in found}


def test_nothing_stays_open(tmp_path: Path):
    before = descriptors()
    _, log = long(tmp_path)
    assert descriptors() == before + 3
    assert log.compact(0, PAGE, lambda _: True)
    assert descriptors() == before + len(files(tmp_path))
    log.close()
    log.close()
    assert descriptors() == before


# -- readers ---------------------------------------------------------------------------------------


def test_a_reader_leaves_what_a_kill_left(tmp_path: Path):
    stages = three(tmp_path)
    with segment(tmp_path, 1).open("ab") as f:
        f.write(bytes(PAGE) + page(7))
    segment(tmp_path, 2).write_bytes(SEGMENT_MAGIC)
    before = files(tmp_path)
    assert shown(tmp_path) == stages[3]
    assert files(tmp_path) == before
    with opened(tmp_path) as log:
        assert seen(log) == stages[3]
    assert files(tmp_path) == {"000001.pages": before["000001.pages"][: -2 * PAGE]}


@pytest.mark.parametrize("head", [0, 8])
def test_a_reader_cannot_write(tmp_path: Path, head: int):
    _, log = long(tmp_path)
    log.move(head)
    log.close()
    before = files(tmp_path)
    attempts: list[Callable[[PageLog], object]] = [
        lambda log: log.append(10, tagged([(0, [1])]), {}),
        lambda log: log.move(1),
        lambda log: log.name("a", 1),
        lambda log: log.compact(0, 1, lambda _: True),
    ]
    for attempt in attempts:
        with opened(tmp_path, read_only=True) as log:
            now = seen(log)
            with contextlib.suppress(OSError, PageLogError):
                attempt(log)
            assert files(tmp_path) == before
            assert seen(log) == now


def test_a_reader_of_nothing_begins_nothing(tmp_path: Path):
    with opened(tmp_path, read_only=True) as log:
        assert seen(log) == Seen()
        with contextlib.suppress(OSError, PageLogError):
            log.compact(1, PAGE, lambda _: True)
    assert files(tmp_path) == {}


def test_readers_see_what_was_or_what_is_to_be_at_any_operation(room: Callable[[], Path]):
    stages = rehearsed(room(), Disk())
    folder, looks = room(), 0

    def look() -> None:
        nonlocal looks
        looks += 1
        before = files(folder)
        now = shown(folder)
        assert files(folder) == before
        if SCENARIO[k][0] == "compact":
            assert now == compacted(stages[k], now)
            assert stages[k + 1].states.keys() <= now.states.keys() <= stages[k].states.keys()
        else:
            assert now in (stages[k], stages[k + 1])

    with opened(folder, WatchedDisk(look)) as log:
        for k in range(len(SCENARIO)):
            SCENARIO[k][1](log)
    assert looks > 300


def test_a_reader_keeps_what_it_has_seen(tmp_path: Path):
    before, log = long(tmp_path)
    with opened(tmp_path, read_only=True) as reader:
        log.compact(0, 1, lambda _: True)
        log.compact(0, 1, lambda _: True)
        assert len(log) == 1
        assert seen(reader) == before
    log.close()


class ListedEarlier(type(Path())):  # type: ignore[misc]
    """A folder that changes right after its files were listed."""

    meanwhile: Callable[[], object]

    def glob(self, pattern: str, **options: Any) -> Iterator[Path]:
        found = list(super().glob(pattern, **options))
        meanwhile, self.meanwhile = self.meanwhile, lambda: None
        meanwhile()
        yield from found


def test_a_reader_that_comes_while_segments_are_dropped_sees_the_state(tmp_path: Path):
    before, log = long(tmp_path)
    folder = ListedEarlier(tmp_path)
    folder.meanwhile = lambda: log.compact(0, 1, lambda _: True)
    with opened(folder, read_only=True) as reader:
        now = seen(reader)
        assert now == compacted(before, now)
        assert reader.damage == []
    assert len(log) == 1
    log.close()


# -- forks -----------------------------------------------------------------------------------------


@pytest.fixture
def fork(tmp_path: Path) -> Path:
    """An empty folder beside the log's."""
    folder = tmp_path / "fork"
    folder.mkdir()
    return folder


@pytest.fixture
def own(tmp_path: Path) -> Path:
    folder = tmp_path / "own"
    folder.mkdir()
    return folder


def test_a_fork_shares_its_past_and_nothing_else(own: Path, fork: Path):
    past, log = long(own)
    log.name("mine", 4)
    past = named(past, "mine", 4)
    log.fork(fork)
    for path in own.iterdir():
        assert path.samefile(fork / path.name)
    with opened(fork) as other:
        assert seen(other) == past
        log.append(10, tagged([(1, [50])]), {"cell": "own"})
        other.append(10, tagged([(1, [60])]), {"cell": "fork"})
        mine, theirs = seen(log), seen(other)
        assert mine == appended(past, mine, 10, [(1, [50])], {"cell": "own"})
        assert theirs == appended(past, theirs, 10, [(1, [60])], {"cell": "fork"})
        assert log.compact(0, 1, lambda _: True)
        assert seen(other) == shown(fork) == theirs
        assert other.compact(0, 1, lambda _: True)
        assert shown(own) == seen(log) == compacted(mine, seen(log))
        assert shown(fork) == seen(other) == compacted(theirs, seen(other))
    log.close()


def test_a_fork_of_a_fork(own: Path, fork: Path, tmp_path: Path):
    past, log = long(own)
    log.fork(fork)
    last = tmp_path / "last"
    last.mkdir()
    with opened(fork) as other:
        other.append(11, tagged([(1, [60])]), {})
        log.append(10, tagged([(1, [50])]), {})
        other.fork(last)
        expected = seen(other)
        other.move(1)
    log.close()
    assert shown(last) == expected == appended(past, expected, 11, [(1, [60])], {})
    goes_on(last)
    assert shown(own).states.keys() == set(range(1, 10))


def test_a_fork_of_nothing_is_nothing(own: Path, fork: Path):
    with opened(own) as log:
        log.fork(fork)
    assert shown(fork) == Seen()
    goes_on(fork)


def test_a_fork_into_nowhere_is_an_os_error(own: Path, tmp_path: Path):
    _, log = long(own)
    with pytest.raises(FileNotFoundError):
        log.fork(tmp_path / "nowhere")
    log.close()


@pytest.mark.parametrize("name", ["000003.pages", ORIGIN])
def test_a_fork_that_failed_half_way_cannot_harm_the_log(own: Path, fork: Path, name: str):
    past, log = long(own)
    before = files(own)
    (fork / name).mkdir()
    with pytest.raises(OSError, match=name):
        log.fork(fork)
    (fork / name).rmdir()
    with contextlib.suppress(OSError, PageLogError), opened(fork) as other:
        other.append(10, tagged([(1, [60])]), {"cell": "fork"})
    assert files(own) == before
    assert shown(own) == seen(log) == past
    log.close()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "1", '{"1": null}', '{"1": "x"}', '{"1": [4096]}', "\xff"]
)
def test_a_damaged_origin_is_a_page_log_error(own: Path, fork: Path, text: str):
    past, log = long(own)
    log.fork(fork)
    (fork / ORIGIN).write_text(text, encoding="latin-1")
    with pytest.raises(PageLogError) as caught:
        PageLog(fork, IMAGE)
    assert caught.value.where == ORIGIN
    assert shown(own) == seen(log) == past
    log.close()


# -- bounds ----------------------------------------------------------------------------------------

MEMORY = 30
OVERHEAD = 4 * PAGE
"""A segment's head, and what stands before a state and the notes after it."""


def is_cell(found: Checkpoint | State) -> bool:
    return found.notes["kind"] == "cell"


@pytest.mark.parametrize(
    ("keep", "limit"),
    [(0, ALL), (1, ALL), (7, ALL), (10**6, 200), (10**6, 60), (10**6, 1), (9, 120)],
)
@pytest.mark.parametrize("names", [0, 3])
def test_a_log_keeps_within_its_bounds(tmp_path: Path, keep: int, limit: int, names: int):
    rng, tags = random.Random(keep + limit), count(1)  # noqa: S311 - a seed, not a secret
    limit, dropped, past = limit * PAGE, 0, Seen()
    with opened(tmp_path) as log:
        for k in range(120):
            spans = [
                (first, [next(tags) for _ in range(rng.randint(1, 4))])
                for first in range(0, MEMORY - 4, 5)
                if rng.random() < 0.3
            ]
            notes = {"kind": rng.choice(["cell", "cell", "comm"]), "k": k}
            log.append(MEMORY, tagged(spans), notes)
            past = appended(past, seen(log), MEMORY, spans, notes)
            if k % 40 < names:
                log.name(f"name {k % 40}", log.head)
                past = named(past, f"name {k % 40}", log.head)
            if k % 25 == 24:
                back = rng.choice([c.id for c in log.chain(log.head)][:5])
                log.move(back)
                past = replace(past, head=back, head_notes={})
            before, reached = past, past.undoable(is_cell)
            dropped += log.compact(keep, limit, is_cell)
            past = seen(log)
            assert past == compacted(before, past)
            whole = PAGE * len(past.states[past.head].content)
            states = {past.head, *past.names.values()}
            assert log.size <= limit + len(states) * (PAGE * MEMORY + PAGE) + OVERHEAD
            if not names:
                assert log.size <= limit + whole + OVERHEAD
            assert log.size == sum(p.stat().st_size for p in tmp_path.iterdir())
            if limit == ALL * PAGE:
                assert past.undoable(is_cell) >= min(keep, reached)
                cells = [c for c in log.chain(log.head) if is_cell(c)]
                assert len(cells) <= keep + SMALL + 1 + names
        assert dropped > 3
    assert shown(tmp_path) == past


def test_a_log_does_not_remember_what_it_has_dropped(tmp_path: Path):
    """Memory stays what it is, however many checkpoints there have been."""
    kept, runs = 4, 200

    def step(log: PageLog) -> None:
        log.append(2 * runs, [(2 * k, page(1)) for k in range(runs)], {})
        log.compact(kept, ALL, lambda _: True)

    tracemalloc.start()
    try:
        with contextlib.closing(PageLog(tmp_path, IMAGE)) as log:
            peaks = []
            for _ in range(4):
                tracemalloc.reset_peak()
                for _ in range(30):
                    step(log)
                peaks.append(tracemalloc.get_traced_memory()[1])
    finally:
        tracemalloc.stop()
    assert peaks[-1] - peaks[1] < runs * 30 * 8  # 8 bytes of each run would be noticed


@pytest.mark.parametrize("limit", [150, 175, 200, 250, 400])
def test_the_newest_cell_can_be_undone_if_there_is_room_for_it(tmp_path: Path, limit: int):
    """Also right after old checkpoints were dropped, when the head's own segment had to go."""
    whole, tags, dropped = 100, count(1), 0
    with opened(tmp_path) as log:
        log.append(whole, tagged([(0, [next(tags) for _ in range(whole)])]), {"kind": "start"})
        past = seen(log)
        for k in range(200):
            first, pages = k * 7 % (whole - 6), 1 + k % 5
            spans, notes = [(first, [next(tags) for _ in range(pages)])], {"kind": "cell", "k": k}
            log.append(whole, tagged(spans), notes)
            before = appended(past, seen(log), whole, spans, notes)
            dropped += log.compact(100, limit * PAGE, is_cell)
            past = seen(log)
            assert past == compacted(before, past)
            assert past.undoable(is_cell) >= 1
            assert log.size <= limit * PAGE + OVERHEAD
    assert dropped > 3
    assert shown(tmp_path) == past


def test_what_is_within_the_bounds_stays(tmp_path: Path):
    before, log = long(tmp_path)
    for _ in range(3):
        assert not log.compact(8, log.size + PAGE, lambda _: True)
    assert seen(log) == before
    log.close()


def test_a_log_of_nothing_is_compact(tmp_path: Path):
    with opened(tmp_path) as log:
        assert not log.compact(1, 16 * PAGE, lambda _: True)
        assert seen(log) == Seen()
    goes_on(tmp_path)


# -- looking ---------------------------------------------------------------------------------------


def test_more_runs_and_longer_ones_than_one_call_takes(tmp_path: Path):
    """Twice: as they are appended, and as they are written once more, complete."""
    spans = [(2 * k, [k + 1]) for k in range(1300)] + [(3000, range(1, 700)), (3699, [5])]
    with opened(tmp_path) as log:
        log.append(4000, tagged(spans), {})
        now = seen(log)
        assert now == appended(Seen(), now, 4000, spans, {})
        assert shown(tmp_path) == now
        assert log.compact(0, 1, lambda _: True)
        assert seen(log) == shown(tmp_path) == now
        assert [(r.page, r.count) for r in log[1].runs][-2:] == [(2598, 1), (3000, 700)]


def test_buffers_may_be_anything_contiguous(tmp_path: Path):
    with opened(tmp_path) as log:
        words = memoryview(bytearray(page(1) + page(2))).cast("I")
        log.append(9, iter([(0, words), (5, bytearray(page(3)))]), {})
        assert content(log, 1) == {0: 1, 1: 2, 5: 3}


def test_parts_of_the_heads_state(tmp_path: Path):
    _, log = long(tmp_path)
    log.move(3)
    assert content(log, 3) == {1: 1, 2: 2, 3: 3, 4: 13}
    for start in range(11):
        for end in range(start, 11):
            found = {
                run.page + k: _tag(log.read(Run(run.page + k, 1, run.place + k)))
                for run in log.between(start, end)
                for k in range(run.count)
            }
            assert found == {p: t for p, t in content(log, 3).items() if start <= p < end}
            assert log.has(start, end) == bool(found)
    log.close()


def test_checkpoints_are_found_by_what_they_stand_on(tmp_path: Path):
    with opened(tmp_path) as log:
        assert (list(log), len(log), log.newest, list(log.chain(0))) == ([], 0, 0, [])
        for parent in (0, 1, 2, 1, 4):
            log.move(parent)
            log.append(9, [], {})
        assert [c.id for c in log.chain(5)] == [5, 4, 1]
        assert (log.children(0), log.children(1), log.children(5)) == ([1], [2, 4], [])
        assert sorted(c.id for c in log) == [1, 2, 3, 4, 5]
        assert (len(log), log.newest, 5 in log, 6 in log, 0 in log) == (5, 5, True, False, False)
        log.move(3)
        assert log.newest == 5
        assert log[5].parent == 4
        assert all(a.parent == b.id for a, b in pairwise(log.chain(3)))
    with opened(tmp_path) as log:
        assert log.newest == 5
        with pytest.raises(KeyError):
            log[6]
