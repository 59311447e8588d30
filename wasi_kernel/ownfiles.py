"""A session's own files: its guest's /tmp and home, and the counts of what it has used.

They lie in a folder of the session's; they wait in another one, or are copied to a fork's. The
guest has made them and may change them meanwhile. Imported on the start path.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING

from wasi_kernel import trees
from wasi_kernel.errors import SessionFileError

if TYPE_CHECKING:
    from pathlib import Path

OWN_FILES = ("tmp", "home")
"""Where in a session's folder the guest's /tmp and home are."""

USAGE = "usage"
"""Where in it the counts are of what the session has used of its limits: worker/usage.py's FILE."""

FORKED_FILES_BYTES, FORKED_FILES = 1 << 30, 100_000
"""The most that a fork copies of a session's /tmp and home: bytes; files, links and folders."""


def move(source: Path, target: Path) -> None:
    """Moves a session's own files to where they wait, or from there to where they belong."""
    for name in (USAGE, *OWN_FILES):
        with contextlib.suppress(FileNotFoundError):
            kind = stat.S_IFREG if name == USAGE else stat.S_IFDIR
            if stat.S_IFMT((source / name).lstat().st_mode) == kind:
                os.rename(source / name, target / name)


def copy(scratch: Path, folder: Path) -> None:
    """Copies the session's own files into a fork's folder, and what it has used of its limits.

    Its guest may change them meanwhile.

    Raises:
        SessionFileError: They are too many.
    """
    import shutil

    with contextlib.suppress(FileNotFoundError):  # of a session whose guest has not started
        shutil.copy2(scratch / USAGE, folder / USAGE)
    left_bytes, left = FORKED_FILES_BYTES, FORKED_FILES
    for name in OWN_FILES:
        try:
            done = trees.copy(scratch / name, folder / name, most_bytes=left_bytes, most_files=left)
        except trees.TooLargeError as e:
            most = f"{FORKED_FILES_BYTES >> 20} MiB in {FORKED_FILES} files"
            why = f"its /tmp and home are too much to copy ({most} at most): {e}"
            raise SessionFileError("here", why) from None
        left_bytes, left = left_bytes - done[0], left - done[1]
