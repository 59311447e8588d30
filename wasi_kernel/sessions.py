"""Sessions: those of this user that are running or kept, and session files, for the command line.

What a session has committed is read from its folder while it runs; nothing is asked of it.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wasi_kernel import folders, launch, plainfiles, sessionfile, timeline
from wasi_kernel.errors import SessionFileError, WasiKernelError
from wasi_kernel.pagelog import PageLog
from wasi_kernel.records import PAGE

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Found:
    """One session of this user.

    Attributes:
        id: By which it is named on the command line.
        running: Is it in use? Otherwise it is kept.
        pid: Its process.
        name: Of a fork; else empty.
        folder: Where it works.
        connection_file: Of a kernel; else empty.
        started_s: When it began, in seconds since 1970.
        cell: The execution count that it has reached.
        line: The first line of its last cell.
        checkpoints: How many states it has kept.
        bytes: What they take on disk.
    """

    id: str
    running: bool
    pid: int
    name: str
    folder: str
    connection_file: str
    started_s: float
    cell: int
    line: str
    checkpoints: int
    bytes: int


def listed(cache: Path) -> list[Found]:
    """All sessions, oldest first."""
    found = []
    for path in launch.sessions_folder(cache).iterdir():
        with contextlib.suppress(WasiKernelError, OSError, ValueError, TypeError, AttributeError,
            RecursionError, OverflowError):  # fmt: skip
            found.append(_found(path))
    return sorted(found, key=lambda s: s.started_s)


def _found(path: Path) -> Found:
    about = json.loads(plainfiles.read(path / launch.ABOUT))
    if not isinstance(about, dict):
        raise TypeError("no object")
    base = sessionfile.Base.load(path)
    log = PageLog(path, base.digest, read_only=True)
    try:
        head = log[log.head].notes if log.head else {}
        return Found(
            path.name, folders.in_use(path), int(about.get("pid", 0)),
            plain(str(about.get("name", ""))), plain(str(about.get("folder", ""))),
            str(about.get("connection_file", "")), float(about.get("started_s", 0)),
            int(head.get("cell", 0)), plain(str(head.get("line", ""))), len(log), log.size,
        )  # fmt: skip
    finally:
        log.close()


def plain(text: str) -> str:
    """Text of a cell as a terminal may have it: what cannot be printed is shown as an escape."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def folder_of(cache: Path, ident: str) -> Path:
    """The folder of the session whose id or name begins like that.

    Raises:
        SessionFileError: There is none, or more than one.
    """
    base = launch.sessions_folder(cache)
    named = [s for s in listed(cache) if ident and (s.id.startswith(ident) or ident == s.name)]
    matching = [s.id for s in named]
    if len(matching) != 1:
        what = "there is no such session" if not matching else f"it is one of {', '.join(matching)}"
        raise SessionFileError(ident, f"{what}; see wasi-kernel session list")
    return base / matching[0]


def shown(path: Path) -> dict[str, Any]:
    """What a session file says of itself, as JSON-able data.

    Raises:
        SessionFileError: It is no session file.
    """
    manifest = sessionfile.read_manifest(path)
    return {
        "file": str(path),
        "bytes": path.stat().st_size,
        "memory_bytes": manifest.pages * PAGE,
        "saved_s": manifest.saved_s,
        "saved_by": manifest.kernel,
        "cell": manifest.notes["cell"],
        "cells": manifest.cells,
        "made_of": manifest.made_of,
        "installed": [each for about in manifest.installed.values() for each in about["packages"]],
    }


def states(folder: Path) -> list[dict[str, Any]]:
    """The states that a session has kept; see `timeline.rows`.

    Raises:
        SessionFileError: There is no session.
    """
    base = sessionfile.Base.load(folder)
    log = PageLog(folder, base.digest, read_only=True)
    try:
        return timeline.rows(log)
    finally:
        log.close()
