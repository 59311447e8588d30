"""Shows what a log's checkpoints mean to the user: which state undo, redo and a name lead to."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from wasi_kernel import pagelog, timeline
from wasi_kernel.errors import UnknownCheckpointError
from wasi_kernel.pagelog import PageLog
from wasi_kernel.records import PAGE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ALL = 1 << 30


class Session:
    """A log that is made as a session makes it; nothing is executed.

    Attributes:
        log: The log.
    """

    def __init__(self, folder: Path) -> None:
        self.log = PageLog(folder, "00" * 32)
        self.cell = 0

    def ran(self, kind: str, *, line: str = "", pages: int = 1) -> int:
        """A checkpoint of that kind on the head; the next execution count if it is a cell."""
        self.cell += kind == "cell"
        notes = {"kind": kind, "cell": self.cell, "line": line, "time_s": 1.5}
        data = [(0, bytes(pages * PAGE))] if pages else []
        return self.log.append(9, data, notes).id

    def cells(self, count: int) -> list[int]:
        return [self.ran("cell") for _ in range(count)]

    def undo(self, cells: int = 1) -> int:
        self.log.move(timeline.undo(self.log, cells))
        return self.log.head

    def redo(self, cells: int = 1) -> int:
        self.log.move(timeline.redo(self.log, cells))
        return self.log.head

    def where(self) -> dict[int, str]:
        rows = timeline.rows(self.log)
        found = {row["id"]: row["where"] for row in rows}
        assert len(found) == len(rows)
        return found


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    found = Session(tmp_path)
    yield found
    found.log.close()


@pytest.fixture
def mixed(session: Session) -> Session:
    """1 start, 2 cell [1], 3 aside, 4 cell [2], 5 comm, 6 aside, 7 cell [3], 8 aside."""
    for kind in ("start", "cell", "aside", "cell", "comm", "aside", "cell", "aside"):
        session.ran(kind)
    return session


def refusal(text: str) -> Any:
    return pytest.raises(UnknownCheckpointError, match=text)


# -- undo ----------------------------------------------------------------------------------------


def test_undo_goes_to_the_state_before_a_cell(mixed: Session):
    """What happened after the cell goes with it; what happened before it stays."""
    assert [timeline.undo(mixed.log, k) for k in (1, 2, 3)] == [6, 3, 1]


def test_undo_counts_cells_from_where_it_is(mixed: Session):
    assert [mixed.undo(), mixed.undo(), mixed.undo()] == [6, 3, 1]


def test_more_than_there_are_cannot_be_undone(mixed: Session):
    for count in (4, 5, 1000, 10**30):
        with refusal("only the last 3 can be undone"):
            timeline.undo(mixed.log, count)
    mixed.undo(2)
    with refusal("only the last 1 can be undone"):
        timeline.undo(mixed.log, 2)
    mixed.undo()
    with refusal("there is no cell to undo"):
        timeline.undo(mixed.log, 1)
    assert mixed.log.head == 1


def test_without_a_cell_nothing_can_be_undone(session: Session):
    with refusal("there is no cell to undo"):
        timeline.undo(session.log, 1)
    for kind in ("start", "aside", "comm"):
        session.ran(kind)
        with refusal("there is no cell to undo"):
            timeline.undo(session.log, 1)


def test_a_cell_that_stands_on_nothing_cannot_be_undone(session: Session):
    """The first checkpoint was lost, or never written."""
    session.cells(3)
    assert timeline.undo(session.log, 2) == 1
    with refusal("only the last 2"):
        timeline.undo(session.log, 3)


def test_undo_follows_the_branch_that_it_is_on(session: Session):
    session.ran("start")
    session.cells(3)
    session.undo(2)  # to [1]
    assert session.cells(2) == [5, 6]
    assert [timeline.undo(session.log, k) for k in (1, 2, 3)] == [5, 2, 1]


# -- redo ----------------------------------------------------------------------------------------


def test_redo_comes_back_with_what_followed_the_cell(mixed: Session):
    mixed.undo(3)
    assert [timeline.redo(mixed.log, k) for k in (1, 2, 3)] == [3, 6, 8]
    assert [mixed.redo(), mixed.redo(), mixed.redo()] == [3, 6, 8]


def test_more_than_was_undone_cannot_be_done_again(mixed: Session):
    mixed.undo(2)
    for count in (3, 100, 10**30):
        with refusal("only 2 can be done again"):
            timeline.redo(mixed.log, count)


def test_nothing_can_be_done_again_at_the_end(mixed: Session):
    with refusal("nothing to redo"):
        timeline.redo(mixed.log, 1)
    mixed.undo()
    mixed.redo()
    with refusal("nothing to redo"):
        timeline.redo(mixed.log, 1)


def test_an_empty_log_has_nothing_to_redo(session: Session):
    with refusal("nothing to redo"):
        timeline.redo(session.log, 1)
    assert timeline.undone(session.log) == []
    assert timeline.rows(session.log) == []


@pytest.mark.parametrize("kind", ["cell", "comm"])
def test_what_was_undone_is_out_of_reach_of_redo_once_something_has_run(mixed: Session, kind: str):
    mixed.undo(2)
    new = mixed.ran(kind)
    with refusal("nothing to redo"):
        timeline.redo(mixed.log, 1)
    assert mixed.where() == {1: "past", 2: "past", 3: "past", new: "here"}


def test_looking_at_checkpoints_does_not_end_redo(mixed: Session):
    """%undo, then %checkpoints to see where that led, then %redo: nothing new has run."""
    mixed.undo(2)
    mixed.ran("aside")
    assert timeline.redo(mixed.log, 1) == 6
    assert timeline.redo(mixed.log, 2) == 8


def test_redo_after_a_new_branch_was_undone_leads_along_the_new_one(session: Session):
    session.ran("start")
    session.cells(2)
    session.undo(2)
    new = session.cells(2)
    assert session.undo(2) == 1
    assert session.redo(2) == new[1]


def test_going_to_a_branch_that_was_left_is_no_undo(session: Session):
    """The newest state does not stand on it."""
    session.ran("start")
    old = session.cells(2)
    session.undo(1)
    new = session.ran("cell")
    session.log.move(old[1])
    with refusal("nothing to redo"):
        timeline.redo(session.log, 1)
    assert timeline.undo(session.log, 1) == old[0]
    session.log.move(old[0])
    assert timeline.redo(session.log, 1) == new


def test_redo_after_a_restore_of_an_earlier_state(mixed: Session):
    """Going back by name is undone by redo as well, if it was along the same line."""
    mixed.log.move(5)  # after the widgets, before the aside
    assert [c.id for c in timeline.undone(mixed.log)] == [6, 7, 8]
    assert timeline.redo(mixed.log, 1) == 8


KINDS = st.lists(st.sampled_from(["cell", "cell", "aside", "comm"]), min_size=1, max_size=12)


@given(kinds=KINDS, back=st.lists(st.integers(1, 4), max_size=4))
@settings(max_examples=60, deadline=None)
def test_redo_is_the_way_back_of_undo(tmp_path_factory: Any, kinds: list[str], back: list[int]):
    session = Session(tmp_path_factory.mktemp("log"))
    session.ran("start")
    for kind in kinds:
        session.ran(kind)
    newest, done = session.log.head, 0
    for count in back:
        if done + count <= kinds.count("cell"):
            before = session.log.head
            session.undo(count)
            assert timeline.redo(session.log, count) == before
            done += count
    if done:
        assert session.redo(done) == newest
    else:
        with refusal("nothing to redo"):
            timeline.redo(session.log, 1)
    session.log.close()


# -- find ----------------------------------------------------------------------------------------


def test_a_state_is_found_by_its_cells_number(mixed: Session):
    for wanted in ("2", "[2]", " 2 ", " [2]\n", "02", "\N{ARABIC-INDIC DIGIT TWO}"):
        assert timeline.find(mixed.log, wanted) == 4
    assert timeline.find(mixed.log, "3") == 7


def test_a_number_means_the_last_cell_that_had_it(session: Session):
    """Execution counts go on rising, but a worker's death may repeat one."""
    session.ran("start")
    session.cells(3)
    session.undo(2)
    session.cell = 2
    new = session.ran("cell")
    assert timeline.find(session.log, "3") == new
    assert timeline.find(session.log, "2") == 3


def test_a_state_is_found_by_its_name_on_any_branch(session: Session):
    session.ran("start")
    cells = session.cells(3)
    session.log.name("first one", cells[2])
    session.log.name("é ü", cells[0])
    session.undo(3)
    session.cells(1)
    assert timeline.find(session.log, "first one") == cells[2]
    assert timeline.find(session.log, "  é ü ") == cells[0]
    session.log.name("first one", cells[1])
    assert timeline.find(session.log, "first one") == cells[1]
    session.log.name("first one", 0)
    with refusal("names: é ü$"):
        timeline.find(session.log, "first one")


@pytest.mark.parametrize(
    "wanted",
    ["0", "4", "99999999999999999999", "9" * 4000, "", " ", "[]", "[", "x", "-1", "1.0", "1e0",
     "first\nsecond", "\0", "\ud800", "None", "[[2]]", "²", "x" * 4000],
    ids=lambda wanted: ascii(wanted)[:20],
)  # fmt: skip
def test_what_is_not_there_is_refused_with_what_is(mixed: Session, wanted: str):
    mixed.log.name("one", 2)
    with refusal(r"there are: cells 1 to 3; names: one$"):
        timeline.find(mixed.log, wanted)


def test_what_is_asked_of_an_empty_log(session: Session):
    for wanted in ("1", "name", ""):
        with refusal("no cells yet; names: none"):
            timeline.find(session.log, wanted)


def test_asides_are_not_found_by_a_number(session: Session):
    session.ran("start")
    session.ran("aside")
    session.cell = 1
    session.ran("aside")
    with refusal("no cells yet"):
        timeline.find(session.log, "1")


# -- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a", "before the plot", "é", "v1.0", "1a", "x" * 100, "a-b [c]"])
def test_names_that_may_be_given(mixed: Session, name: str):
    timeline.check_name(mixed.log, name)


@pytest.mark.parametrize(
    "name",
    ["", "x" * 101, "a\nb", "\0", "a\x1b[31m", "\ud800", "\u202e", "-a", "--delete", "[1]", "[a",
     "7", "007", "\N{ARABIC-INDIC DIGIT TWO}", "9" * 100, "x" * 100_000],
    ids=lambda name: ascii(name)[:20],
)  # fmt: skip
def test_names_that_may_not_be_given(mixed: Session, name: str):
    with pytest.raises(UnknownCheckpointError) as caught:
        timeline.check_name(mixed.log, name)
    assert len(str(caught.value)) < 1000
    assert "\x1b" not in str(caught.value)


def test_there_are_only_so_many_names(session: Session):
    session.cells(2)
    for k in range(timeline.MAX_NAMED):
        timeline.check_name(session.log, f"n{k}")
        session.log.name(f"n{k}", 1)
    with refusal("20 names already"):
        timeline.check_name(session.log, "one more")
    timeline.check_name(session.log, "n7")  # a name that is given anew
    session.log.name("n7", 0)
    timeline.check_name(session.log, "one more")


@given(name=st.text(max_size=12))
@example(name=" ")
@example(name="a ")
@example(name="\u3000a")
@settings(max_examples=200, deadline=None)
def test_every_name_that_may_be_given_can_be_found(tmp_path_factory: Any, name: str):
    log = Session(tmp_path_factory.mktemp("log"))
    log.cells(2)
    try:
        timeline.check_name(log.log, name)
    except UnknownCheckpointError:
        return
    else:
        log.log.name(name, 1)
        assert timeline.find(log.log, name) == 1
    finally:
        log.log.close()


# -- rows ----------------------------------------------------------------------------------------


def test_rows_say_what_can_be_gone_to(mixed: Session):
    assert mixed.where() == {**dict.fromkeys(range(1, 8), "past"), 8: "here"}
    for name, ident in (("early", 2), ("last", 7)):
        mixed.log.name(name, ident)
    mixed.undo(2)
    assert mixed.where() == {
        1: "past", 2: "past", 3: "here", **dict.fromkeys(range(4, 9), "undone"),
    }  # fmt: skip
    rows = timeline.rows(mixed.log)
    assert [row["kind"] for row in rows] == [
        "start", "cell", "aside", "cell", "comm", "aside", "cell", "aside",
    ]  # fmt: skip
    assert [row["cell"] for row in rows] == [0, 1, 1, 2, 2, 2, 3, 3]


def test_what_was_left_is_shown_if_it_has_a_name(session: Session):
    session.ran("start")
    old = session.cells(3)
    session.undo(2)
    for name in ("z", "a"):
        session.log.name(name, old[1])
    session.log.name("here", session.log.head)
    new = session.ran("cell")
    rows = {row["id"]: row for row in timeline.rows(session.log)}
    assert {k: row["where"] for k, row in rows.items()} == {
        1: "past", old[0]: "past", new: "here", old[1]: "aside",
    }  # fmt: skip
    assert rows[old[1]]["names"] == ["a", "z"]
    assert rows[old[0]]["names"] == ["here"]


def test_a_row_says_all_that_is_known_and_is_json(session: Session):
    session.ran("start", pages=0)
    session.ran("cell", line='x = "é\ud800"', pages=3)
    session.log.append(9, [], {})
    rows = timeline.rows(session.log)
    assert json.loads(json.dumps(rows)) == rows
    assert rows[1] == {
        "id": 2, "kind": "cell", "cell": 1, "line": 'x = "é\ud800"', "time_s": 1.5, "pages": 3,
        "bytes": 3 * PAGE, "names": [], "where": "past",
    }  # fmt: skip
    assert rows[2] == {
        "id": 3, "kind": None, "cell": 0, "line": "", "time_s": None, "pages": 0, "bytes": 0,
        "names": [], "where": "here",
    }  # fmt: skip


# -- after compaction ----------------------------------------------------------------------------


@pytest.fixture
def compacted(session: Session, monkeypatch: pytest.MonkeyPatch) -> Session:
    """Twelve cells, of which the last few are left; [2] and a cell of a left branch have names."""
    monkeypatch.setattr(pagelog, "SEGMENT_CHECKPOINTS", 2)
    session.ran("start")
    for k in range(12):
        ident = session.ran("cell")
        session.ran("aside")
        if k == 1:
            session.log.name("two", ident)
        if k == 3:
            session.log.name("left", ident)
            session.undo(1)
        session.log.compact(3, ALL, timeline.is_cell)
    assert len(session.log) < 16
    return session


def test_as_many_cells_as_are_kept_can_be_undone(compacted: Session):
    chain = list(compacted.log.chain(compacted.log.head))
    most = sum(timeline.is_cell(c) and c.parent != 0 for c in chain)
    assert most >= 3
    assert timeline.undo(compacted.log, most) in compacted.log
    with refusal(f"only the last {most} can be undone"):
        timeline.undo(compacted.log, most + 1)
    compacted.undo(most)
    assert compacted.redo(most) == compacted.log.newest


def test_names_lead_to_states_that_stand_alone(compacted: Session):
    for name, cell in (("two", 2), ("left", 4)):
        found = compacted.log[timeline.find(compacted.log, name)]
        assert (found.parent, timeline.cell_of(found)) == (0, cell)
        assert timeline.find(compacted.log, str(cell)) == found.id
    here = {k: where for k, where in compacted.where().items() if where == "aside"}
    assert set(here) == set(compacted.log.names.values())


def test_a_state_that_stands_alone_has_nothing_to_undo_or_redo(compacted: Session):
    compacted.log.move(timeline.find(compacted.log, "two"))
    with refusal("there is no cell to undo"):
        timeline.undo(compacted.log, 1)
    with refusal("nothing to redo"):
        timeline.redo(compacted.log, 1)
    assert compacted.where()[compacted.log.head] == "here"
    new = compacted.ran("cell")
    assert timeline.undo(compacted.log, 1) == compacted.log[new].parent


def test_cells_that_were_dropped_are_not_found(compacted: Session):
    with refusal("cells 2 to 12; names: left, two"):
        timeline.find(compacted.log, "1")
    there = {timeline.cell_of(c) for c in compacted.log}
    gone = next(k for k in range(5, 12) if k not in there)
    with refusal("no checkpoint"):
        timeline.find(compacted.log, str(gone))


def test_it_means_the_same_when_it_is_opened_again(compacted: Session, tmp_path: Path):
    compacted.undo(2)
    before = timeline.rows(compacted.log)
    again = PageLog(tmp_path, "00" * 32, read_only=True)
    assert timeline.rows(again) == before
    assert timeline.redo(again, 2) == timeline.redo(compacted.log, 2)
    again.close()
