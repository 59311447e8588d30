"""Forking: a session's folder for a second one, which begins where the first one is now."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from wasi_kernel import installed, ownfiles, sessionfile
from wasi_kernel.errors import SessionFileError
from wasi_kernel.folders import OwnFolder
from wasi_kernel.launch import sessions_folder
from wasi_kernel.pagelog import PageLog
from wasi_kernel.segments import ORIGIN, SUFFIX

if TYPE_CHECKING:
    from pathlib import Path

    from wasi_kernel.launch import Settings

FORK_ATTEMPTS = 10
"""How often a log is read again whose segments are dropped meanwhile."""


def fork(given: Settings, name: str) -> str:
    """Makes a folder for a session that begins where this one's checkpoints are now; its name.

    No page is copied: both lie over the same files. The session's own files are.

    Raises:
        SessionFileError: There are no checkpoints, or the session's files are too many to copy.
        OSError: There is no room.
    """
    if given.checkpoints is None:
        raise SessionFileError("here", "checkpoints are switched off (checkpoints.enabled)")
    source = given.checkpoints.path
    base = sessionfile.Base.load(source)
    folder = OwnFolder(sessions_folder(given.cache))
    try:
        if base.own:
            os.link(source / sessionfile.IMAGE, folder.path / sessionfile.IMAGE)
        base.store(folder.path)
        _fork_log(source, base.digest, folder.path)
        installed.fork(source, folder.path)
        ownfiles.copy(given.scratch.path, folder.path)
        folder.keep(f"fork {name}")
    finally:
        folder.release()
    return folder.path.name


def _fork_log(source: Path, digest: str, folder: Path) -> None:
    """Makes `folder` a log with the past of the one in `source`, which may be dropping some of it.

    Raises:
        OSError: The folder cannot be written.
    """
    for attempt in range(FORK_ATTEMPTS):
        log = PageLog(source, digest, read_only=True)
        try:
            log.fork(folder)
        except FileNotFoundError:  # a segment was dropped meanwhile
            if attempt == FORK_ATTEMPTS - 1:
                raise
            for path in (folder / ORIGIN, *folder.glob(f"*{SUFFIX}")):
                path.unlink(missing_ok=True)
        else:
            return
        finally:
            log.close()


def forget(given: Settings, name: str) -> None:
    """Removes the folder of a fork that did not begin."""
    with contextlib.suppress(OSError):
        folder = OwnFolder(sessions_folder(given.cache), name=name)
        folder.unkeep()
        folder.release()
