"""History: what was run, kept by the kernel process across guests and restarts.

A SQLite file of this user's. The guest has no part in it: it cannot read what other sessions ran.
Never imports wasmtime or anything of Jupyter.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import sys
from pathlib import Path
from typing import Any

ENV = "WASI_KERNEL_HISTORY"
"""Environment variable that names another file, or ":memory:" for none."""

MEMORY = ":memory:"
"""SQLite's name for a database that is no file."""

KEPT_SESSIONS = 1000
MOST_CHARACTERS = 100_000
"""Of what a guest says that a cell became, or gave: this file lies outside of all its limits."""
TAIL = 1000

_COLUMNS = {
    "sessions": ("session",),
    "history": ("session", "line", "source", "output", "ran"),
}

Row = tuple[int, int, Any]
"""(session, line, source) or (session, line, (source, output)), as history_reply lists them."""


def default_path() -> Path | str:
    """Where the history is kept: `$WASI_KERNEL_HISTORY`, else the platform's own place."""
    named = os.environ.get(ENV)
    if named:
        return named if named == MEMORY else Path(os.path.expanduser(named))
    if sys.platform == "linux":  # the same place, without 20 ms of imports
        base = os.environ.get("XDG_DATA_HOME", "").strip() or os.path.expanduser("~/.local/share")
        return Path(base) / "wasi-kernel" / "history.sqlite"
    import platformdirs

    return Path(platformdirs.user_data_path("wasi-kernel")) / "history.sqlite"


class History:
    """One session's view of the history; opened at its first use.

    A file that cannot be used is replaced by one in memory: a kernel runs without its history.

    Attributes:
        problem: Why the file is not used, or None.
    """

    def __init__(self, path: Path | str | None = None) -> None:
        self._path = path
        self._db: sqlite3.Connection | None = None
        self._session = 0
        self.problem: str | None = None

    def _open(self) -> sqlite3.Connection:
        if self._db is not None:
            return self._db
        path = default_path() if self._path is None else self._path
        try:
            self._db, self._session = _begin(path)
        except (sqlite3.Error, OSError) as e:
            self.problem = f"the history at {path} cannot be used: {e}"
            self._db, self._session = _begin(MEMORY)
        return self._db

    def add(self, line: int, source: str) -> None:
        """Records a cell under its execution count."""
        self._write("INSERT OR REPLACE INTO history VALUES (?, ?, ?, NULL, NULL)", line, source)

    def add_run(self, line: int, source: str) -> None:
        """Records what a cell became before it ran (magics as calls), where that differs.

        What is longer than `MOST_CHARACTERS`, and than twice the cell itself, is not recorded.
        """
        if len(source) > MOST_CHARACTERS and len(source) > 2 * self._length(line):
            return
        self._write("UPDATE history SET ran = ?3 WHERE session = ?1 AND line = ?2", line, source)

    def add_output(self, line: int, output: str) -> None:
        """Records the plain text of a cell's result; the beginning of a long one."""
        if len(output) > MOST_CHARACTERS:
            left_out = len(output) - MOST_CHARACTERS
            output = f"{output[:MOST_CHARACTERS]}\n[... {left_out} characters ...]"
        self._write("UPDATE history SET output = ?3 WHERE session = ?1 AND line = ?2", line, output)

    def _length(self, line: int) -> int:
        """Characters of a cell of this session."""
        statement = "SELECT length(source) FROM history WHERE session = ?1 AND line = ?2"
        return int((self._read(statement, self._session, line) or [(0,)])[0][0])

    def _write(self, statement: str, line: int, text: str) -> None:
        db = self._open()
        try:
            with db:
                db.execute(statement, (self._session, line, _storable(text)))
        except sqlite3.Error as e:
            self.problem = f"the history was not written: {e}"

    def _read(self, statement: str, *values: int | str | None) -> list[Any]:
        try:
            return self._open().execute(statement, values).fetchall()
        except (sqlite3.Error, OverflowError) as e:  # Overflow: a number that SQLite has none for
            self.problem = f"the history was not read: {e}"
            return []

    def tail(self, n: int | None, *, output: bool, raw: bool = True) -> list[Row]:
        """The last `n` cells of all sessions, oldest first.

        `raw`: as they were typed; else as they were run.
        """
        rows = self._read(
            "SELECT * FROM history ORDER BY session DESC, line DESC LIMIT ?",
            TAIL if n is None else n,
        )
        return _rows(reversed(rows), output=output, raw=raw)

    def range(
        self, session: int, start: int, stop: int | None, *, output: bool, raw: bool = True
    ) -> list[Row]:
        """Lines `start` to before `stop` of a session; 0 is this one, -1 the one before it."""
        self._open()  # tells the number of this session
        if session <= 0:
            session += self._session
        rows = self._read(
            "SELECT * FROM history WHERE session = ?1 AND line >= ?2"
            " AND (?3 IS NULL OR line < ?3) ORDER BY line",
            session, start, stop,
        )  # fmt: skip
        return _rows(rows, output=output, raw=raw)

    def search(
        self, pattern: str, n: int | None, *, output: bool, unique: bool, raw: bool = True
    ) -> list[Row]:
        """The last `n` cells that match a glob pattern, oldest first; `unique`: no text twice."""
        group = "GROUP BY source HAVING max(session * 1000000000 + line)" if unique else ""
        rows = self._read(
            f"SELECT * FROM history WHERE source GLOB ? {group}"  # noqa: S608 - a constant
            " ORDER BY session DESC, line DESC LIMIT ?",
            _storable(pattern),
            -1 if n is None else n,
        )
        return _rows(reversed(rows), output=output, raw=raw)

    def close(self) -> None:
        """Closes the file."""
        if self._db is not None:
            with contextlib.suppress(sqlite3.Error):
                self._db.close()
            self._db = None


def _begin(path: Path | str) -> tuple[sqlite3.Connection, int]:
    """The database at `path`, made owner-only if it is not there, and a new session's number."""
    if path != MEMORY:
        file = Path(path)
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not file.exists():
            os.close(os.open(file, os.O_CREAT | os.O_WRONLY, 0o600))
    db = sqlite3.connect(path, timeout=5, check_same_thread=False)
    try:
        _make_tables(db)
        with db:
            return db, _new_session(db)
    except sqlite3.Error:
        db.close()
        raise


def _make_tables(db: sqlite3.Connection) -> None:
    """Makes the tables that are not there; leaves alone a database whose tables are others."""
    for table, columns in _COLUMNS.items():
        names = tuple(row[1] for row in db.execute(f"PRAGMA table_info({table})"))
        if names not in ((), columns):
            raise sqlite3.DatabaseError(f"its table {table} is not this version's")
    db.executescript(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;"
        "CREATE TABLE IF NOT EXISTS sessions (session INTEGER PRIMARY KEY AUTOINCREMENT);"
        "CREATE TABLE IF NOT EXISTS history (session INTEGER, line INTEGER, source TEXT,"
        " output TEXT, ran TEXT, PRIMARY KEY (session, line));"
    )


def _new_session(db: sqlite3.Connection) -> int:
    session = int(db.execute("INSERT INTO sessions DEFAULT VALUES").lastrowid or 0)
    oldest = session - KEPT_SESSIONS
    db.execute("DELETE FROM history WHERE session <= ?", (oldest,))
    db.execute("DELETE FROM sessions WHERE session <= ?", (oldest,))
    return session


def _storable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def _rows(rows: Any, *, output: bool, raw: bool) -> list[Row]:
    found = []
    for session, line, typed, shown, ran in rows:
        source = typed if raw or ran is None else ran
        found.append((session, line, (source, shown) if output else source))
    return found
