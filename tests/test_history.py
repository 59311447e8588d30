"""Shows that the history keeps what was run, and does without a file that it cannot use."""

from __future__ import annotations

import sqlite3
import stat
from typing import TYPE_CHECKING

import pytest

from wasi_kernel import history as histories
from wasi_kernel.history import History

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Make = Callable[..., History]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "history.sqlite"


@pytest.fixture
def session(path: Path) -> Iterator[Callable[..., History]]:
    """Opens sessions on one file, each with the cells that it ran."""
    opened = []

    def make(*cells: str) -> History:
        history = History(path)
        opened.append(history)
        for line, source in enumerate(cells, 1):
            history.add(line, source)
        return history

    yield make
    for history in opened:
        history.close()


def test_a_tail_is_the_last_cells_of_all_sessions_oldest_first(session: Make):
    session("a", "b")
    now = session("c", "d")
    assert now.tail(3, output=False) == [(1, 2, "b"), (2, 1, "c"), (2, 2, "d")]
    assert now.tail(None, output=False)[0] == (1, 1, "a")
    assert now.tail(0, output=False) == []


def test_outputs_come_with_their_cells(session: Make):
    now = session("1+1", "x = 2")
    now.add_output(1, "2")
    rows = [(1, 1, ("1+1", "2")), (1, 2, ("x = 2", None))]
    assert now.tail(5, output=True) == rows
    assert now.range(0, 1, None, output=True) == rows
    assert now.search("*", None, output=True, unique=False) == rows


def test_cells_are_given_as_typed_or_as_they_were_run(session: Make):
    now = session("%time 1", "x")
    now.add_run(1, "get_ipython().run_line_magic('time', '1')")
    now.add_run(9, "of no cell")
    now.add_output(1, "1")
    typed, ran = "%time 1", "get_ipython().run_line_magic('time', '1')"
    for raw, first in ((True, typed), (False, ran)):
        rows = [(1, 1, first), (1, 2, "x")]
        assert now.tail(5, output=False, raw=raw) == rows
        assert now.range(0, 1, None, output=False, raw=raw) == rows
        assert now.search("*", None, output=False, unique=False, raw=raw) == rows
        assert now.tail(5, output=True, raw=raw)[0] == (1, 1, (first, "1"))


def test_an_output_of_no_cell_is_no_row(session: Make):
    now = session("a")
    now.add_output(7, "2")
    assert now.tail(5, output=True) == [(1, 1, ("a", None))]


def test_a_cell_that_runs_again_under_its_number_replaces_the_first(session: Make):
    now = session("a")
    now.add(1, "b")
    assert now.tail(5, output=True) == [(1, 1, ("b", None))]


def test_ranges_count_from_this_session_back(session: Make):
    session("a1", "a2")
    session("b1")
    now = session("c1", "c2", "c3")
    assert now.range(0, 2, None, output=False) == [(3, 2, "c2"), (3, 3, "c3")]
    assert now.range(0, 1, 2, output=False) == [(3, 1, "c1")]
    assert now.range(-1, 0, None, output=False) == [(2, 1, "b1")]
    assert now.range(-2, 2, 99, output=False) == [(1, 2, "a2")]
    assert now.range(1, 1, 2, output=False) == [(1, 1, "a1")]
    assert now.range(9, 1, None, output=False) == []
    assert now.range(-9, 1, None, output=False) == []
    assert now.range(0, 3, 1, output=False) == []


def test_a_search_is_a_glob_over_all_sessions(session: Make):
    session("import os", "x = 1")
    now = session("import sys", "import os")
    assert now.search("import*", None, output=False, unique=False) == [
        (1, 1, "import os"), (2, 1, "import sys"), (2, 2, "import os"),
    ]  # fmt: skip
    assert now.search("*os", 1, output=False, unique=False) == [(2, 2, "import os")]
    assert now.search("os", None, output=False, unique=False) == []
    assert now.search("[", None, output=False, unique=False) == []
    assert now.search("'; DROP TABLE history; --", None, output=False, unique=True) == []


def test_a_unique_search_gives_each_text_once_where_it_was_last(session: Make):
    session("import os", "x", "import os")
    now = session("import os", "import sys")
    assert now.search("import*", None, output=False, unique=True) == [
        (2, 1, "import os"), (2, 2, "import sys"),
    ]  # fmt: skip
    assert now.search("import*", 1, output=False, unique=True) == [(2, 2, "import sys")]


@pytest.mark.parametrize(
    "text", ["", "\0", "é\U0001f600", "\ud800", "a\ud800b", "'; --", "x" * 10**5]
)
def test_any_text_is_kept(session: Make, text: str):
    now = session(text)
    now.add_output(1, text)
    kept = text.replace("\ud800", "?")
    assert now.tail(1, output=True) == [(1, 1, (kept, kept))]
    assert now.problem is None


def test_what_a_guest_says_is_kept_as_far_as_it_can_be_read(session: Make, path: Path):
    """The file is the host's, and no limit of the guest's holds for it."""
    history = session("x", "y" * 150_000)
    history.add_output(1, "o" * (32 << 20))
    history.add_run(1, "r" * (32 << 20))
    history.add_run(2, "r" * 250_000)
    (_, _, (_, output)), _ = history.tail(2, output=True)
    assert len(output) < histories.MOST_CHARACTERS + 100
    assert output.startswith("ooo")
    assert output.endswith(f"{(32 << 20) - histories.MOST_CHARACTERS} characters ...]")
    ran = [source for _, _, source in history.tail(2, output=False, raw=False)]
    assert ran == ["x", "r" * 250_000]
    history.close()
    assert path.stat().st_size < 2 << 20


def test_two_sessions_at_once_do_not_mix(session: Make):
    first, second = session("a1"), session("b1")
    first.add(2, "a2")
    second.add(2, "b2")
    assert first.range(0, 0, None, output=False) == [(1, 1, "a1"), (1, 2, "a2")]
    assert second.range(0, 0, None, output=False) == [(2, 1, "b1"), (2, 2, "b2")]
    assert (first.problem, second.problem) == (None, None)


def test_a_closed_history_can_be_closed_again_and_opens_a_new_session(session: Make):
    now = session("a")
    now.close()
    now.close()
    now.add(1, "b")
    assert now.tail(5, output=False) == [(1, 1, "a"), (2, 1, "b")]


def test_only_so_many_sessions_are_kept(session: Make, path: Path):
    session("the first").close()
    last = session("the last that goes")
    db = sqlite3.connect(path)
    db.execute("INSERT INTO sessions VALUES (?)", (histories.KEPT_SESSIONS + 1,))
    db.commit()
    db.close()
    last.close()
    now = session("now")
    assert now.tail(5, output=False) == [(histories.KEPT_SESSIONS + 2, 1, "now")]


def test_a_tail_without_a_number_has_an_end(session: Make):
    now = session(*(str(k) for k in range(histories.TAIL + 3)))
    rows = now.tail(None, output=False)
    assert (len(rows), rows[0], rows[-1]) == (
        histories.TAIL, (1, 4, "3"), (1, histories.TAIL + 3, str(histories.TAIL + 2)),
    )  # fmt: skip


# -- the file ------------------------------------------------------------------------------------


def test_the_file_is_made_at_the_first_use_and_owner_only(path: Path):
    history = History(path)
    assert not path.exists()
    history.add(1, "a")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    history.close()


def test_a_file_that_the_environment_names_is_owner_only_too(
    path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(histories.ENV, str(path))
    history = History()
    history.add(1, "a")
    assert history.problem is None
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    history.close()


def test_where_the_file_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(histories.ENV, ":memory:")
    assert str(histories.default_path()) == ":memory:"
    monkeypatch.delenv(histories.ENV)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "xdg"))
    assert histories.default_path() == tmp_path / "xdg" / "wasi-kernel" / "history.sqlite"
    monkeypatch.setenv("XDG_DATA_HOME", " ")
    assert histories.default_path() == (
        tmp_path / ".local" / "share" / "wasi-kernel" / "history.sqlite"
    )


def test_the_usual_place_is_the_one_that_platformdirs_says(monkeypatch: pytest.MonkeyPatch):
    import platformdirs

    monkeypatch.delenv(histories.ENV, raising=False)
    expected = platformdirs.user_data_path("wasi-kernel") / "history.sqlite"
    assert histories.default_path() == expected


def test_no_file_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(histories.ENV, ":memory:")
    monkeypatch.chdir(tmp_path)
    history = History()
    history.add(1, "a")
    assert history.tail(5, output=False) == [(1, 1, "a")]
    assert history.problem is None
    assert list(tmp_path.iterdir()) == []
    history.close()


def a_folder(path: Path) -> None:
    path.mkdir(parents=True)


def no_folder_above(path: Path) -> None:
    path.parent.touch()


def garbage(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"this is no database" * 100)


def cut_off(path: Path) -> None:
    """A database that ends in the middle of its tables."""
    whole = History(path)
    whole.add(1, "x" * 10_000)
    whole.close()
    path.write_bytes(path.read_bytes()[:4096])


def other_sessions(path: Path) -> None:
    """Somebody else's tables, of the same names."""
    path.parent.mkdir()
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE sessions (session INTEGER PRIMARY KEY, who TEXT NOT NULL)")
    db.commit()
    db.close()


def other_history(path: Path) -> None:
    path.parent.mkdir()
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE history (what TEXT)")
    db.commit()
    db.close()


def fewer_columns(path: Path) -> None:
    path.parent.mkdir()
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE history (session, line, source, output, PRIMARY KEY (session, line))")
    db.execute("INSERT INTO history VALUES (1, 1, 'old', NULL)")
    db.commit()
    db.close()


@pytest.mark.parametrize(
    "make",
    [a_folder, no_folder_above, garbage, cut_off, other_sessions, other_history, fewer_columns],
)
def test_a_file_that_cannot_be_used_is_replaced_by_memory(path: Path, make: Callable[[Path], None]):
    make(path)
    history = History(path)
    history.add(1, "a")
    history.add_output(1, "b")
    assert history.tail(5, output=True) == [(1, 1, ("a", "b"))]
    assert history.range(0, 1, None, output=False) == [(1, 1, "a")]
    assert history.search("*", None, output=False, unique=True) == [(1, 1, "a")]
    assert str(path) in str(history.problem)
    history.close()


@pytest.mark.parametrize("make", [other_sessions, other_history, fewer_columns])
def test_tables_of_somebody_else_are_left_as_they_were(path: Path, make: Callable[[Path], None]):
    make(path)
    before = path.read_bytes()
    history = History(path)
    history.add(1, "a")
    history.close()
    assert path.read_bytes() == before


def test_a_question_that_cannot_be_asked_finds_nothing(session: Make):
    now = session("a")
    assert now.tail(2**70, output=False) == []
    assert now.range(-(2**70), 0, 2**70, output=False) == []
    assert now.search("\ud800", 2**70, output=False, unique=True) == []
    assert "not read" in str(now.problem)
    assert now.tail(5, output=False) == [(1, 1, "a")]


def test_a_file_that_breaks_later_loses_history_not_the_kernel(session: Make, path: Path):
    now = session("a")
    db = sqlite3.connect(path)
    db.execute("DROP TABLE history")
    db.commit()
    db.close()
    now.add(2, "b")
    now.add_output(2, "c")
    assert "not written" in str(now.problem)
    assert now.tail(5, output=False) == []
    assert now.range(0, 1, None, output=False) == []
    assert now.search("*", None, output=False, unique=False) == []
