"""Shows that a record is read back as it was or not at all, and that tables add up.

Tables are compared with a plain dict of pages.
"""

from __future__ import annotations

import struct
import zlib
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wasi_kernel import records
from wasi_kernel.records import CHECKPOINT, PAGE, PRESENT, Checkpoint, Run, Table

QUICK = settings(max_examples=100, deadline=None, derandomize=True)

U32 = 2**32 - 1
NUMBER, LONG = st.integers(0, U32), st.integers(0, 2**64 - 1)
NOTES = st.dictionaries(
    st.text(max_size=10),
    st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.lists(st.integers()),
    max_size=4,
)
SPANS = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 4)), max_size=6)
"""Runs in memory, each as (pages that are left out before it, pages)."""


def checkpoint(
    pages: int = 0,
    runs: tuple[Run, ...] = (),
    notes: dict[str, Any] | None = None,
    ident: int = 1,
    parent: int = 0,
) -> Checkpoint:
    return Checkpoint(ident, parent, pages, runs, notes or {}, 1)


def laid(spans: list[tuple[int, int]], place: int, crc: int = 0) -> tuple[Run, ...]:
    """The runs of `SPANS`, whose data lie one after the other from `place` on."""
    runs, page = [], 0
    for gap, count in spans:
        runs.append(Run(page + gap, count, place, crc))
        page, place = page + gap + count, place + count
    return tuple(runs)


def read(data: bytes, segment: int = 1, at: int = 0) -> tuple[int, Checkpoint] | None:
    """The record that begins a file's `data`, as the log reads one."""
    size = records.measure(data[: records.RECORD_BYTES])
    if size is None or size[0] > len(data):
        return None
    return records.decode(data[: size[0]], segment, at + records.whole(size[0]))


def sealed(
    runs: list[tuple[int, int, int]],
    notes: bytes = b"{}",
    *,
    pages: int = 100,
    data: int | None = None,
    **fields: int,
) -> bytes:
    """A record with a right checksum, whatever it says; packed as the module's head has it."""
    written = sum(count for _, count, _ in runs) if data is None else data
    head = struct.pack(
        "<IIQQIIII", fields.get("magic", records.MAGIC), fields.get("kind", CHECKPOINT),
        fields.get("ident", 1), fields.get("parent", 0), pages,
        fields.get("count", len(runs)), written, len(notes),
    )  # fmt: skip
    body = b"".join(struct.pack("<III", *run) for run in runs) + notes
    return head + struct.pack("<I", zlib.crc32(head + bytes(4) + body)) + body


# -- records -------------------------------------------------------------------------------------


@QUICK
@given(NUMBER, LONG, LONG, SPANS, NUMBER, NOTES, st.integers(1, 2**23), st.integers(0, 2**20))
def test_a_record_is_read_back_as_it_was(
    kind: int, ident: int, parent: int, spans: list, crc: int, notes: dict, segment: int, at: int
):
    at *= PAGE
    first = at + records.head_bytes(len(spans), notes)
    runs = laid(spans, records.place_in(segment, first), crc)
    pages = runs[-1].page + runs[-1].count if runs else 0
    given_ = Checkpoint(ident, parent, pages, runs, notes, segment)
    data = records.encode(kind, given_)
    assert len(data) == first - at == records.whole(len(data))
    size = records.measure(data)
    assert size is not None
    assert records.whole(size[0]) == len(data)
    assert size[1] == given_.written == sum(count for _, count in spans)
    assert read(data, segment, at) == (kind, given_)


def test_a_record_is_packed_as_documented():
    runs = (Run(3, 2, 0, 0xABCD), Run(7, 1, 2, 5))
    found = checkpoint(9, runs, {"cell": 1}, ident=2**40, parent=2**33)
    expected = sealed(
        [(3, 2, 0xABCD), (7, 1, 5)], b'{"cell":1}', pages=9, ident=2**40, parent=2**33
    )
    assert records.encode(CHECKPOINT, found) == expected.ljust(PAGE, b"\0")
    assert records.measure(expected) == (len(expected), 3)


def test_a_record_of_many_runs_takes_many_pages():
    runs = laid([(1, 1)] * 1000, records.place_in(1, 3 * PAGE))
    found = checkpoint(2000, runs, {"code": "x" * 100})
    data = records.encode(CHECKPOINT, found)
    assert len(data) == 3 * PAGE == records.head_bytes(1000, found.notes)
    assert read(data) == (CHECKPOINT, found)


def test_any_flipped_bit_is_seen_or_harmless():
    runs = laid([(0, 2), (1, 3), (5, 1)], records.place_in(1, PAGE), crc=7)
    found = checkpoint(40, runs, {"cell": 3}, ident=6, parent=5)
    data = records.encode(CHECKPOINT, found)
    text = records.measure(data)[0]
    behind = bytes(100 * PAGE)  # what flipped lengths reach into
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        expected = None if bit < 8 * text else (CHECKPOINT, found)
        assert read(bytes(flipped) + behind) == expected, bit


@QUICK
@given(st.binary(max_size=300))
def test_garbage_is_no_record(data: bytes):
    magic = records.MAGIC.to_bytes(4, "little")
    for garbage in (data, magic + data):
        assert read(garbage + bytes(PAGE)) is None


@pytest.mark.parametrize("length", [0, 1, 4, 43])
def test_what_is_shorter_than_any_record_is_none(length: int):
    whole = records.encode(CHECKPOINT, checkpoint())
    assert records.measure(whole[:length]) is None
    assert records.measure(whole[: records.RECORD_BYTES]) == (44 + 2, 0)


def test_the_head_says_no_more_notes_than_allowed():
    most = sealed([], b'"' + b"x" * (records.MAX_NOTES - 2) + b'"')
    assert records.measure(most) == (44 + records.MAX_NOTES, 0)
    assert records.measure(sealed([], b" " * (records.MAX_NOTES + 1))) is None


@pytest.mark.parametrize(
    "notes",
    [
        b"", b"[]", b"1", b"null", b'"text"', b"[{}]", b"{", b"{} {}", b"{}\0", b"\xff",
        b'{"\xff": 1}', b"{1: 2}", b"[" * 100_000, b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    ],
    ids=lambda notes: repr(notes[:10]),
)  # fmt: skip
def test_notes_that_are_no_json_object_make_no_record(notes: bytes):
    assert read(sealed([], notes)) is None


def test_what_the_other_tests_seal_is_a_record():
    found = checkpoint(100, (Run(3, 2, records.place_in(1, PAGE), 9),))
    assert read(sealed([(3, 2, 9)])) == (CHECKPOINT, found)


@pytest.mark.parametrize(
    ("runs", "pages"),
    [
        ([(100, 1, 0)], 100),
        ([(99, 2, 0)], 100),
        ([(0, 101, 0)], 100),
        ([(0, 1, 0), (100, 1, 0), (1, 1, 0)], 100),
        ([(0, 1, 0)], 0),
        ([(U32, 1, 0)], U32),
        ([(1, U32, 0)], U32),
        ([(U32, U32, 0)], U32),
    ],
)
def test_runs_that_leave_memory_make_no_record(runs: list, pages: int):
    written = sum(count for _, count, _ in runs)
    if written <= U32:
        assert read(sealed(runs, pages=pages)) is None
    else:
        assert read(sealed(runs, pages=pages, data=written & U32)) is None


@pytest.mark.parametrize("fields", [{"data": 1}, {"data": 3}, {"count": 0}, {"count": 2}])
def test_sums_that_are_wrong_make_no_record(fields: dict):
    assert read(sealed([(3, 2, 9)], **fields) + bytes(PAGE)) is None


# -- small arithmetic ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("length", "expected"), [(0, 0), (1, PAGE), (PAGE, PAGE), (PAGE + 1, 2 * PAGE)]
)
def test_whole_pages(length: int, expected: int):
    assert records.whole(length) == expected


def test_places_are_apart_and_never_zero():
    assert records.place_in(0, 0) == PRESENT
    assert records.place_in(1, 5 * PAGE) == PRESENT + 2**32 + 5
    assert records.place_in(2**24 - 1, (2**32 - 1) * PAGE) < 2 * PRESENT


@QUICK
@given(SPANS)
def test_runs_that_touch_in_memory_are_joined(spans: list):
    runs = list(laid(spans, PRESENT))
    groups = records.joined(runs)
    assert [run for group in groups for run in group] == runs
    for group in groups:
        assert all(a.page + a.count == b.page for a, b in pairwise(group))
    for group, following in pairwise(groups):
        assert group[-1].page + group[-1].count < following[0].page


# -- tables --------------------------------------------------------------------------------------

STEPS = st.lists(
    st.tuples(SPANS, st.integers(0, 3), st.integers(1, 2)), min_size=1, max_size=5
)  # (runs, pages that memory grows by, segment)


def checkpoints(steps: list) -> list[Checkpoint]:
    """One on the other; what two of them write may be neighbours in a segment."""
    found, pages, ends = [], 0, {1: PAGE, 2: PAGE}
    for ident, (spans, growth, segment) in enumerate(steps, 1):
        runs = laid(spans, records.place_in(segment, ends[segment]))
        ends[segment] += PAGE * sum(run.count for run in runs)
        pages = max([pages, *(run.page + run.count for run in runs)]) + growth
        found.append(Checkpoint(ident, ident - 1, pages, runs, {}, segment))
    return found


def over(state: dict[int, int], found: Checkpoint) -> dict[int, int]:
    """{page: place} with that checkpoint over it."""
    written = {run.page + k: run.place + k for run in found.runs for k in range(run.count)}
    return {**state, **written}


def naive_runs(state: dict[int, int], start: int, end: int) -> list[Run]:
    found: list[Run] = []
    for page in range(start, end):
        place = state.get(page, 0)
        last = found[-1] if found else Run(-1, 0, 0)
        if place and last.page + last.count == page and last.place + last.count == place:
            found[-1] = Run(last.page, last.count + 1, last.place)
        elif place:
            found.append(Run(page, 1, place))
    return found


@QUICK
@given(STEPS)
def test_going_back_undoes_going_on(steps: list):
    table, states, sizes = Table(), [{}], [0]
    found = checkpoints(steps)
    for each in found:
        assert not table.can_revert(each.id)
        table.apply(each)
        states.append(over(states[-1], each))
        sizes.append(each.pages)
        assert table.can_revert(each.id)
    for _ in range(2):
        for k in range(len(found), 0, -1):
            assert table.runs() == naive_runs(states[k], 0, sizes[k])
            assert len(table) == sizes[k]
            table.revert(found[k - 1], sizes[k - 1])
        assert (table.runs(), len(table)) == ([], 0)
        for each in found:
            table.apply(each)


@QUICK
@given(STEPS, st.integers(0, 30), st.integers(0, 30))
def test_a_table_says_what_a_dict_of_pages_says(steps: list, start: int, length: int):
    table, state = Table(), {}
    found = checkpoints(steps)
    for each in found:
        table.apply(each)
        state = over(state, each)
    end = start + length
    assert table.runs(start, end) == naive_runs(state, start, end)
    assert table.runs(start) == naive_runs(state, start, len(table))
    assert table.has(start, end) == any(page in state for page in range(start, end))
    for each in found:
        for run in each.runs:
            used = any(state.get(run.page + k) == run.place + k for k in range(run.count))
            assert table.uses(run) == used


def test_pages_that_are_neighbours_in_memory_only_are_two_runs():
    table = Table()
    table.apply(checkpoint(9, (Run(2, 2, PRESENT + 10), Run(4, 1, PRESENT + 20))))
    assert table.runs() == [Run(2, 2, PRESENT + 10), Run(4, 1, PRESENT + 20)]
    table.apply(checkpoint(9, (Run(4, 1, PRESENT + 12),), ident=2, parent=1))
    assert table.runs() == [Run(2, 3, PRESENT + 10)]
    assert table.runs(3, 4) == [Run(3, 1, PRESENT + 11)]


def test_runs_of_one_checkpoint_may_overlap():
    table = Table()
    table.apply(checkpoint(9, (Run(2, 3, PRESENT + 10),)))
    found = checkpoint(9, (Run(1, 3, PRESENT + 20), Run(3, 2, PRESENT + 30)), ident=2, parent=1)
    table.apply(found)
    assert table.runs() == [Run(1, 2, PRESENT + 20), Run(3, 2, PRESENT + 30)]
    table.revert(found, 9)
    assert table.runs() == [Run(2, 3, PRESENT + 10)]
