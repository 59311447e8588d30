"""Shows that the pages a guest has written are found, both ways, and that no other byte is lost.

What the kernel says of a page is read here from /proc/self/pagemap as well, by other code.
"""

from __future__ import annotations

import mmap
import os
import random
import sys
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from wasi_kernel import pagelog
from wasi_kernel.pagelog import PageLog
from wasi_kernel.policy import CheckpointLimits
from wasi_kernel.records import PAGE
from wasi_kernel.worker import checkpoints, dirty, images
from wasi_kernel.worker.checkpoints import Checkpoints
from wasi_kernel.worker.dirty import ComparedPages, MappedPages
from wasi_kernel.worker.memory import WASM_PAGE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

IMAGE_PAGES = 64
"""Of 4 KiB, in the base image of these tests."""

STEP = images.CHUNK // PAGE
DIGEST = "d1" * 32

EXPORTS = """(func (export "grow") (param i32) (result i32) (memory.grow (local.get 0)))
  (func (export "fill") (param i32 i32 i32)
    (memory.fill (local.get 0) (local.get 1) (local.get 2)))
  (func (export "load") (param i32) (result i32) (i32.load8_u (local.get 0)))"""


class Watched:
    """A guest over a base image, and a tracker of its memory over a page log.

    Attributes:
        image: What the base image is.
        last: The checkpoint that `commit` made.
    """

    def __init__(self, folder: Path, new_guest: Callable[[], Any], *, compare: bool) -> None:
        self._new_guest = new_guest
        maker = new_guest()
        maker.memory.write(0, random.Random(1).randbytes(IMAGE_PAGES // 2 * PAGE))  # noqa: S311
        path = folder / "image"
        path.touch()
        size = images.save(maker.memory, path)
        assert size == IMAGE_PAGES * PAGE
        self.image = path.read_bytes()
        (folder / "log").mkdir()
        limits = CheckpointLimits(compare=compare)
        self.checkpoints = Checkpoints(folder / "log", path, DIGEST, size, limits)
        self.tracker: Any = self.checkpoints._tracker
        self.probe = self.fresh(0)
        self.last: Any = None

    @property
    def log(self) -> PageLog:
        return self.checkpoints.log

    @property
    def memory(self) -> Any:
        return self.probe.memory

    def fresh(self, ident: int) -> Any:
        """Another guest, at that checkpoint."""
        probe = self._new_guest()
        self.checkpoints.fill(probe.memory, ident)
        return probe

    def shown(self, ident: int) -> bytes:
        """All memory at that checkpoint."""
        probe = self._new_guest()
        self.checkpoints.show(probe.memory, ident)
        content = probe.memory.read(0, probe.memory.size())
        probe.guest.close()
        return content

    def all(self) -> bytes:
        return self.memory.read(0, self.memory.size())

    def write(self, *pages: int, value: int = 1) -> None:
        """The guest writes one byte in the middle of each of these pages."""
        for page in pages:
            self.probe.call("fill", page * PAGE + 1000, value, 1)

    def fill(self, page: int, count: int, value: int) -> None:
        """The guest writes all of these pages."""
        self.probe.call("fill", page * PAGE, value, count * PAGE)

    def grow(self, pages: int) -> None:
        assert self.probe.call("grow", pages * PAGE // WASM_PAGE) > 0

    def changed(self) -> set[int]:
        """The pages that the tracker marks."""
        marks = self.tracker.changed(self.memory, self.log)
        assert len(marks) == self.memory.size() // PAGE
        assert set(marks) <= {0, 1}
        return {k for k, mark in enumerate(marks) if mark}

    def commit(self) -> set[int]:
        """Commits, shows that nothing was lost, and gives the pages that were written."""
        self.last = self.checkpoints.commit(self.memory, {})
        assert self.shown(self.last.id) == self.all()
        return {run.page + k for run in self.last.runs for k in range(run.count)}

    def anonymous(self) -> set[int]:
        """Pages that the kernel says are this process's own, not a file's."""
        return {k for k, (present, of_file) in enumerate(self._states()) if present and not of_file}

    def resident(self) -> set[int]:
        """Pages that there is any memory for."""
        return {k for k, (present, _) in enumerate(self._states()) if present}

    def _states(self) -> list[tuple[bool, bool]]:
        """(in memory or swap, of a file) of each page."""
        found = []
        with open("/proc/self/pagemap", "rb", buffering=0) as f:
            for page in range(self.memory.size() // PAGE):
                data = os.pread(f.fileno(), 8, (self.memory.base // PAGE + page) * 8)
                entry = int.from_bytes(data, sys.byteorder)
                found.append((entry >> 62 != 0, bool(entry >> 61 & 1)))
        return found


@pytest.fixture
def new_guest(open_guest: Callable, wat: Callable) -> Callable[[], Any]:
    text = wat(EXPORTS, pages=IMAGE_PAGES * PAGE // WASM_PAGE, calls=("clock_time_get",))
    return lambda: open_guest(text)


@pytest.fixture(params=["mapped", "compared"])
def watched(request: pytest.FixtureRequest, tmp_path: Path, new_guest: Callable) -> Watched:
    """Both ways to find what has changed; the second is what other systems do."""
    found = Watched(tmp_path, new_guest, compare=request.param == "compared")
    kinds = {"mapped": MappedPages, "compared": ComparedPages}
    assert type(found.tracker) is kinds[request.param]
    return found


@pytest.fixture
def mapped(tmp_path: Path, new_guest: Callable) -> Watched:
    """Only Linux's way."""
    return Watched(tmp_path, new_guest, compare=False)


# -- which pages ---------------------------------------------------------------------------------


def test_nothing_is_marked_in_a_fresh_guest(watched: Watched):
    assert watched.all() == watched.image
    assert watched.changed() == set()
    assert watched.commit() == set()


@pytest.mark.parametrize(
    "pages",
    [{0}, {IMAGE_PAGES - 1}, {0, 1, 2, 3}, {5, 7, 9, 40, 63}, {31, 32}, set(range(IMAGE_PAGES))],
)
def test_just_the_written_pages_of_an_image_are_marked(watched: Watched, pages: set[int]):
    watched.write(*pages)
    assert watched.changed() == pages
    assert watched.changed() == pages  # asking changes nothing
    watched.commit()
    assert watched.changed() == set()


def test_pages_that_are_only_read_are_not_marked(watched: Watched):
    for page in range(IMAGE_PAGES):
        watched.probe.call("load", page * PAGE + 77)
    watched.all()
    assert watched.changed() == set()


def test_what_the_host_writes_is_seen_as_well(watched: Watched):
    watched.memory.write(20 * PAGE - 1, b"ab")
    watched.memory.u32(50 * PAGE).value = 1
    assert watched.changed() == {19, 20, 50}


def test_a_write_over_a_border_marks_both_pages(watched: Watched):
    watched.probe.call("fill", 9 * PAGE - 1, 7, 2)
    watched.probe.call("fill", 30 * PAGE - 1, 7, PAGE + 2)
    assert watched.changed() == {8, 9, 29, 30, 31}


def test_the_state_to_compare_with_is_the_head_and_not_the_image(watched: Watched):
    watched.fill(3, 2, 9)
    watched.commit()
    watched.memory.write(3 * PAGE, watched.image[3 * PAGE : 4 * PAGE])
    watched.fill(10, 1, 9)
    assert watched.changed() == {3, 10}
    assert watched.commit() >= {3, 10}
    assert watched.shown(1)[3 * PAGE : 5 * PAGE] == b"\x09" * 2 * PAGE


def test_a_page_that_gets_the_content_that_it_has_is_not_written_again(watched: Watched):
    """Once it has been written again: before, Linux only knows that it was."""
    for _ in range(2):
        watched.write(4, 12, value=5)
        assert watched.commit() <= {4, 12}
    for value, expected in ((5, set()), (6, {4}), (6, set()), (5, {4})):
        watched.write(4, value=value)
        assert watched.changed() == expected
        assert watched.commit() == expected


def test_a_glance_sees_what_has_changed(watched: Watched):
    for _ in range(2):
        watched.write(4, 12, value=5)
        watched.commit()
    watched.write(4, value=5)
    watched.write(30, value=6)
    for _ in range(2):
        marks = watched.checkpoints.since(watched.memory)
        assert {k for k, mark in enumerate(marks) if mark} == {30}
    assert watched.changed() == {30}
    assert watched.commit() == {30}


def test_a_glance_gives_no_page_back(mapped: Watched):
    mapped.grow(STEP)
    mapped.fill(IMAGE_PAGES, 4, 0)
    before = mapped.resident()
    assert not any(mapped.checkpoints.since(mapped.memory))
    assert mapped.resident() == before
    assert mapped.changed() == set()
    assert mapped.resident() < before  # that is what asking for a commit does


def test_without_a_log_it_is_known_what_was_written_since_the_image(mapped: Watched):
    mapped.write(7, 40)
    marks = dirty.written(mapped.memory)
    assert marks is not None
    assert {k for k, mark in enumerate(marks) if mark} == mapped.anonymous() == {7, 40}


# -- grown memory --------------------------------------------------------------------------------


def around(pages: set[int]) -> set[int]:
    """All pages of the 64 KiB that these lie in.

    Grown memory is looked at in such pieces, and a page of it that was only read looks written.
    """
    return {k for page in pages for k in range(page - page % STEP, page - page % STEP + STEP)}


def test_memory_that_has_grown_is_not_marked(watched: Watched):
    watched.grow(4 * STEP)
    assert watched.changed() == set()
    assert watched.commit() == set()
    assert watched.last.pages == IMAGE_PAGES + 4 * STEP


@pytest.mark.parametrize(
    "pages",
    [{IMAGE_PAGES}, {IMAGE_PAGES + 4 * STEP - 1}, {IMAGE_PAGES - 1, IMAGE_PAGES, IMAGE_PAGES + 50}],
)
def test_written_pages_of_grown_memory_are_marked(watched: Watched, pages: set[int]):
    watched.grow(4 * STEP)
    watched.write(*pages)
    assert pages <= watched.changed() <= around(pages)
    assert watched.commit() >= pages
    watched.write(*pages, value=2)
    assert pages <= watched.changed() <= around(pages)


def test_zeros_in_grown_memory_are_left_out_and_freed(mapped: Watched):
    start = IMAGE_PAGES + STEP
    mapped.grow(20 * STEP)
    mapped.fill(start, 18 * STEP, 1)
    mapped.fill(start, 18 * STEP, 0)
    mapped.write(start + 5 * STEP + 3)
    touched = set(range(start, start + 18 * STEP))
    assert mapped.resident() >= touched
    kept = around({start + 5 * STEP + 3})
    assert start + 5 * STEP + 3 in mapped.changed() <= kept
    assert mapped.resident() & touched <= kept
    assert mapped.commit() <= kept
    assert mapped.log.size < 100 * PAGE
    mapped.write(start, start + 18 * STEP - 1)
    assert mapped.changed() >= {start, start + 18 * STEP - 1}


def test_zeros_that_were_something_else_are_written(watched: Watched):
    """In grown memory and in the image."""
    watched.grow(8 * STEP)
    pages = {3, 40, IMAGE_PAGES + STEP, IMAGE_PAGES + 6 * STEP}
    watched.write(*pages, value=9)
    watched.commit()
    for page in pages:
        watched.fill(page, 1, 0)
    assert pages <= watched.changed() <= {3, 40} | around(pages - {3, 40})
    watched.commit()
    assert not any(watched.shown(watched.last.id)[page * PAGE + 1000] for page in pages)
    assert all(watched.shown(1)[page * PAGE + 1000] == 9 for page in pages)


def test_zeros_of_an_image_are_pages_like_others(watched: Watched):
    page = IMAGE_PAGES - 2
    assert watched.image[page * PAGE :] == bytes(2 * PAGE)
    watched.write(page, value=1)
    watched.commit()
    watched.write(page, value=0)
    assert watched.changed() == {page}


def test_growth_between_checkpoints_keeps_what_was_before(watched: Watched):
    for k in range(1, 5):
        before = watched.memory.size() // PAGE
        watched.write(k, before - 1, value=k)
        watched.grow(STEP)
        watched.write(before, before + STEP - 1, value=10 + k)
        watched.commit()
        assert watched.last.pages == before + STEP
    sizes = [len(watched.shown(ident)) // PAGE for ident in range(1, 5)]
    assert sizes == [IMAGE_PAGES + k * STEP for k in range(1, 5)]


def test_an_image_that_ends_within_a_piece_and_memory_behind_it(tmp_path: Path, new_guest: Any):
    """The base image of a guest whose memory has grown is as long as that."""
    for compare in (False, True):
        folder = tmp_path / str(compare)
        folder.mkdir()
        first = new_guest()
        first.call("grow", 3)
        first.memory.write(first.memory.size() - 3, b"end")
        (folder / "image").touch()
        size = images.save(first.memory, folder / "image")
        log = PageLog(folder, DIGEST)
        tracker = dirty.tracker(folder / "image", size, compare=compare)
        probe = new_guest()
        images.restore(probe.memory, folder / "image", size)
        probe.call("grow", 1)
        probe.call("fill", size - 1, 1, 2)
        marks = tracker.changed(probe.memory, log)
        last = size // PAGE
        found = {k for k, mark in enumerate(marks) if mark}
        assert {last - 1, last} <= found <= {last - 1} | set(range(last, last + STEP))
        log.close()


# -- hot pages -----------------------------------------------------------------------------------


def test_a_page_that_was_written_once_is_mapped_at_once(mapped: Watched):
    mapped.write(7, 30)
    assert mapped.commit() == {7, 30}
    assert mapped.anonymous() == set()
    assert mapped.all()[30 * PAGE + 1000] == 1


def test_a_page_that_is_written_again_is_left_as_it_is_and_cools_down(mapped: Watched):
    for _ in range(2):
        mapped.write(7, 30)
        mapped.commit()
    assert mapped.anonymous() == {7, 30}
    for k in range(2 * dirty.COOL):
        assert k >= dirty.COOL - 2 or mapped.anonymous() == {7, 30}
        mapped.write(7, value=2 + k)
        assert mapped.commit() == {7}
    assert mapped.anonymous() == {7}
    assert mapped.all()[30 * PAGE + 1000] == 1
    mapped.write(30, value=3)
    assert mapped.changed() == {30}
    mapped.commit()


def test_a_page_that_is_written_now_and_then_is_never_watched(mapped: Watched):
    for k in range(6):
        mapped.write(7, value=k + 1)
        assert mapped.commit() == {7}
        assert mapped.anonymous() == set()
        for _ in range(dirty.COOL):
            mapped.commit()


def test_a_page_that_cooled_down_in_grown_memory_is_mapped_from_the_log(mapped: Watched):
    page = IMAGE_PAGES + STEP + 2
    mapped.grow(3 * STEP)
    for _ in range(2):
        mapped.write(page, value=8)
        mapped.commit()
    for _ in range(2 * dirty.COOL):
        mapped.commit()
    assert page not in mapped.anonymous()
    assert mapped.all()[page * PAGE + 1000] == 8
    mapped.write(page, value=0)
    assert page in mapped.changed()
    assert page in mapped.commit()


def test_a_page_that_is_written_with_what_it_has_is_written_to_the_log_once(mapped: Watched):
    """It is mapped again when it seems to have cooled down, in vain, and more and more rarely."""
    counts, cooled = [], []
    for k in range(16 * dirty.COOL):
        mapped.write(7, value=1)
        counts.append(len(mapped.commit()))
        if not mapped.anonymous():
            cooled.append(k)
    assert counts[:2] == [1, 1]
    assert sum(counts) == 2
    assert cooled[0] == 0  # mapped after the first time
    assert len(cooled) == 3
    mapped.write(7, value=2)
    assert mapped.commit() == {7}


def test_a_page_that_stays_cold_is_watched_no_longer(mapped: Watched):
    """What the log has of it is not kept in memory, and is compared with nothing."""
    for _ in range(2):
        mapped.write(7, 30)
        mapped.commit()
    for _ in range(2 * dirty.COOL + 1):
        mapped.write(7, value=1)
        mapped.commit()
    assert mapped.anonymous() == {7}
    mapped.write(30, value=1)  # the same, but nobody knows any more
    assert mapped.changed() == {30}


def test_no_more_pages_are_watched_than_the_limit(mapped: Watched, monkeypatch: Any):
    monkeypatch.setattr(dirty, "HOT_PAGES", 8)
    pages = set(range(0, IMAGE_PAGES, 3))  # single ones, never two in a row
    mapped.write(*pages)
    assert mapped.commit() >= pages
    assert len(mapped.anonymous()) <= 8
    mapped.write(*pages, value=2)
    assert mapped.changed() == pages
    mapped.commit()
    mapped.write(*pages, value=3)
    assert mapped.commit() >= pages


def test_pages_of_a_long_run_that_are_written_again_and_again_are_watched(mapped: Watched):
    for value in (1, 2):
        mapped.fill(0, 30, value)
        assert mapped.commit() == set(range(30))
        assert mapped.anonymous() == (set(range(30)) if value == 2 else set())
    mapped.fill(0, 30, 2)
    assert mapped.changed() == set()
    mapped.write(7, 8, value=3)
    assert mapped.commit() == {7, 8}


def test_of_long_runs_no_more_pages_are_watched_than_the_limit(mapped: Watched, monkeypatch: Any):
    monkeypatch.setattr(dirty, "HOT_PAGES", 8)
    for k in range(4):
        mapped.fill(0, IMAGE_PAGES, 4 + k)
        assert mapped.commit() == set(range(IMAGE_PAGES))
        assert len(mapped.anonymous()) == (8 if k else 0)


def test_what_was_watched_in_another_instance_means_nothing(watched: Watched):
    """The same cell after an undo writes the same bytes to the same pages."""
    watched.commit()
    watched.write(5, 33, value=4)
    watched.commit()
    watched.probe = watched.fresh(1)
    watched.log.move(1)
    assert watched.all() == watched.image
    watched.write(5, 33, value=4)
    assert watched.changed() == {5, 33}
    assert watched.commit() == {5, 33}


def test_looking_at_another_state_changes_nothing(watched: Watched):
    watched.write(5, 33, value=4)
    watched.commit()
    watched.write(5, value=6)
    watched.shown(1)
    watched.shown(0)
    assert watched.changed() == {5}
    watched.commit()
    watched.write(5, value=4)
    watched.shown(1)
    assert watched.commit() == {5}


# -- spans ---------------------------------------------------------------------------------------


@given(st.lists(st.booleans(), max_size=200))
@settings(max_examples=300, deadline=None)
def test_spans_cover_the_marks_and_small_gaps(marks: list[bool]):
    found = dirty.spans(bytes(marks))
    covered = {k for page, count in found for k in range(page, page + count)}
    assert {k for k, mark in enumerate(marks) if mark} <= covered
    for page, count in found:
        assert count > 0
        assert marks[page]
        assert marks[page + count - 1]
        gap = longest = 0
        for mark in marks[page : page + count]:
            gap = 0 if mark else gap + 1
            longest = max(longest, gap)
        assert longest <= dirty.GAP
    for (page, count), (after, _) in pairwise(found):
        assert after - (page + count) > dirty.GAP


# -- which way -----------------------------------------------------------------------------------


def test_copies_are_the_way_when_asked_for_and_where_files_cannot_be_mapped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "image").write_bytes(bytes(PAGE))
    assert type(dirty.tracker(tmp_path / "image", PAGE)) is MappedPages
    assert type(dirty.tracker(tmp_path / "image", PAGE, compare=True)) is ComparedPages
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(images, "can_map", lambda: False)
        assert type(dirty.tracker(tmp_path / "image", PAGE)) is ComparedPages
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(sys, "platform", "darwin")
        assert type(dirty.tracker(tmp_path / "image", PAGE)) is ComparedPages
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(mmap, "PAGESIZE", 16384)
        assert type(dirty.tracker(tmp_path / "image", PAGE)) is ComparedPages


# -- anything, in any order ----------------------------------------------------------------------

MOST_PAGES = IMAGE_PAGES + 6 * STEP
SOME_PAGE = st.integers(0, MOST_PAGES - 1)
LENGTH = st.sampled_from([1, 3, PAGE - 1, PAGE, PAGE + 1, 5 * PAGE, 20 * PAGE])


class Sessions(RuleBasedStateMachine):
    """The same done to two guests, one watched each way, beside the bytes that they are to have."""

    folder: Path
    new_guest: Callable[[], Any]
    count = 0

    def __init__(self) -> None:
        super().__init__()
        Sessions.count += 1
        self.both: list[Watched] = []
        self.model = bytearray()
        self.states: dict[int, bytes] = {}

    def teardown(self) -> None:
        for each in self.both:
            each.probe.guest.close()
            each.checkpoints.close()

    @initialize()
    def begin(self) -> None:
        for compare in (False, True):
            folder = self.folder / f"{Sessions.count}-{compare}"
            folder.mkdir()
            self.both.append(Watched(folder, type(self).new_guest, compare=compare))
        self.model = bytearray(self.both[0].image)
        self.states = {0: bytes(self.model)}

    @rule(page=SOME_PAGE, offset=st.integers(-2, 4000), length=LENGTH, value=st.integers(0, 2))
    def write(self, page: int, offset: int, length: int, value: int) -> None:
        at = max(0, page * PAGE + offset) % len(self.model)
        length = min(length, len(self.model) - at)
        self.model[at : at + length] = bytes([value]) * length
        for each in self.both:
            each.probe.call("fill", at, value, length)

    @rule(start=st.integers(0, 8), step=st.integers(2, 9), value=st.integers(0, 2))
    def scatter(self, start: int, step: int, value: int) -> None:
        for page in range(start, len(self.model) // PAGE, step):
            self.model[page * PAGE + 1000] = value
        for each in self.both:
            each.write(*range(start, len(self.model) // PAGE, step), value=value)

    @precondition(lambda self: len(self.model) < MOST_PAGES * PAGE)
    @rule(pages=st.integers(1, 2))
    def grow(self, pages: int) -> None:
        pages = min(pages * STEP, MOST_PAGES - len(self.model) // PAGE)
        self.model += bytes(pages * PAGE)
        for each in self.both:
            each.grow(pages)

    @rule(times=st.integers(1, 4))
    def commit(self, times: int) -> None:
        for _ in range(times):
            idents = {each.checkpoints.commit(each.memory, {"kind": "cell"}).id
                      for each in self.both}  # fmt: skip
            assert len(idents) == 1
            ident = idents.pop()
            self.states[ident] = bytes(self.model)
            for each in self.both:
                assert each.all() == self.model
                assert each.shown(ident) == self.model

    @rule()
    def tidy(self) -> None:
        """Memory must be at the head: a commit comes before, as in the keeper."""
        self.commit(1)
        for each in self.both:
            each.checkpoints.tidy(each.memory)
            assert each.all() == self.model

    @rule(pick=st.integers(0, 1000))
    def go_back(self, pick: int) -> None:
        known = [k for k in self.states if all(k == 0 or k in each.log for each in self.both)]
        ident = known[pick % len(known)]
        self.model = bytearray(self.states[ident])
        for each in self.both:
            each.probe.guest.close()
            each.probe = each.fresh(ident)
            each.log.move(ident)
            assert each.all() == self.model


def test_both_ways_lead_to_the_bytes_that_were_there_whatever_was_done(
    tmp_path: Path, new_guest: Callable, monkeypatch: pytest.MonkeyPatch
):
    """With limits so small that every one of them is reached."""
    monkeypatch.setattr(dirty, "HOT_PAGES", 20)
    monkeypatch.setattr(dirty, "COOL", 3)
    monkeypatch.setattr(checkpoints, "MANY", 6)
    monkeypatch.setattr(checkpoints, "MANY_MAPPINGS", 60)
    monkeypatch.setattr(pagelog, "SEGMENT_CHECKPOINTS", 3)
    monkeypatch.setattr(Sessions, "folder", tmp_path, raising=False)
    monkeypatch.setattr(Sessions, "new_guest", staticmethod(new_guest), raising=False)
    few = settings(max_examples=25, stateful_step_count=40, deadline=None, derandomize=True)
    run_state_machine_as_test(Sessions, settings=few)


def test_both_ways_agree_over_many_rounds_with_the_limits_as_they_are(watched: Watched):
    rng = random.Random(5)  # noqa: S311 - a seed, not a secret
    states = [watched.image]
    for k in range(120):
        pages = watched.memory.size() // PAGE
        if k % 30 == 29:
            watched.grow(STEP)
        if k % 25 == 24:
            ident = rng.randrange(len(states))
            watched.probe.guest.close()
            watched.probe = watched.fresh(ident)
            watched.log.move(ident)
            assert watched.all() == states[ident]
            pages = watched.memory.size() // PAGE
        for _ in range(rng.randrange(12)):
            watched.write(rng.randrange(pages), value=rng.randrange(3))
        watched.commit()
        states.append(watched.all())
