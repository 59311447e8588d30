"""Installed sets: what the cells of a session have installed, as its guest sees it.

Each `%pip install` that brings something new adds a set (packages.py), which never changes: a
folder named by its content, below the one that the guest has as /opt/installed. Which of them are
on the guest's `sys.path` is a matter of its memory, so that undo needs nothing of this.

    <session's folder>/installed/<key>/     hard links to a set in the cache
    <session's folder>/installed.json       {key: {"bytes": ..., "packages": [[name, version]]}}

Pure bookkeeping.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wasi_kernel import plainfiles

if TYPE_CHECKING:
    from collections.abc import Iterable

FOLDER, NOTE = "installed", "installed.json"
"""Names in a session's folder."""

SETS = 200
"""So many sets a session may have."""

BYTES = 1 << 30
"""What all of them may have together."""

PACKAGES = 2000
NOTE_BYTES = 1 << 20

_KEY = re.compile(r"[0-9a-f]{32}")  # Resolution.key
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,198}[a-z0-9])?")
_VERSION = re.compile(r"[0-9a-z][0-9a-z.+!_-]{0,98}")


def load(base: Path) -> dict[str, dict[str, Any]]:
    """The note of the session in `base`; empty if it has installed nothing."""
    try:
        found = json.loads(plainfiles.read(base / NOTE, NOTE_BYTES))
        check(found)
    except (OSError, ValueError, RecursionError):
        return {}
    return dict(found)


def check(note: Any) -> None:
    """Checks a note, which may come from a session file, and so from anyone.

    Raises:
        ValueError: It cannot have been written by `store`.
    """
    if not isinstance(note, dict) or len(note) > SETS:
        raise ValueError("what was installed is no object, or too much")
    for key, about in note.items():
        if not _KEY.fullmatch(key) or not isinstance(about, dict):
            raise ValueError("what was installed has no such key")
        size, named = about.get("bytes"), about.get("packages")
        if type(size) is not int or not 0 <= size <= BYTES:
            raise ValueError("what was installed has no such size")
        if not isinstance(named, list) or len(named) > PACKAGES:
            raise ValueError("what was installed names no packages")
        for each in named:
            if not isinstance(each, list) or [type(part) for part in each] != [str, str]:
                raise ValueError("what was installed names no packages")
            if not _NAME.fullmatch(each[0]) or not _VERSION.fullmatch(each[1]):
                raise ValueError("what was installed has no such name or version")


def store(base: Path, note: dict[str, dict[str, Any]]) -> None:
    """Writes the note of the session in `base`.

    Raises:
        OSError: It cannot be written.
    """
    new = base / f"{NOTE}.new"
    new.write_text(json.dumps(note))
    new.replace(base / NOTE)


def has(base: Path, key: str) -> bool:
    """Is the set there for the guest?"""
    return (base / FOLDER / key).is_dir()


def size(folder: Path) -> int:
    """The bytes of a set's files, without bytecode that was added later."""
    return sum(
        path.lstat().st_size
        for path in folder.rglob("*")
        if path.is_file() and path.parent.name != "__pycache__"
    )


def show(source: Path, base: Path, key: str) -> None:
    """Makes the set at `source` one that the guest of the session in `base` sees, at once or not.

    Raises:
        OSError: There is no room.
    """
    from tempfile import TemporaryDirectory

    (base / FOLDER).mkdir(mode=0o700, exist_ok=True)
    if has(base, key):
        return
    with TemporaryDirectory(prefix="installing-", dir=base) as scratch:
        new = Path(scratch) / key
        link_tree(source, new)
        new.rename(base / FOLDER / key)


def link_tree(source: Path, target: Path) -> None:
    """Makes `target` a folder with the files of `source`: links where that works, else copies.

    Raises:
        OSError: There is no room.
    """
    import shutil

    shutil.copytree(source, target, copy_function=_link, symlinks=True)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:  # another file system, or too many links
        import shutil

        shutil.copyfile(source, target, follow_symlinks=False)
    os.chmod(target, 0o400)  # the session's worker may write in its folder, and must not change
    # what others have as well; a confined one changes no modes


def fork(source: Path, base: Path) -> None:
    """Gives the new session in `base` what the one in `source` has.

    Raises:
        OSError: There is no room.
    """
    note = load(source)
    for key in note:
        if has(source, key):
            show(source / FOLDER / key, base, key)
    if note:
        store(base, note)


def bring(base: Path, sets: Path) -> list[str]:
    """Shows what the session in `base` notes and the cache's folder `sets` still has.

    Returns:
        For each set that is gone, the requirements that bring it back, in the order of the note.
    """
    missing = []
    for key, about in load(base).items():
        try:
            if not has(base, key):
                show(sets / key, base, key)
        except OSError:  # it is not in the cache, or there is no room
            missing.append(pins(about["packages"]))
    return missing


def pins(packages: Iterable[Iterable[str]]) -> str:
    """Requirements for exactly these versions, in one line."""
    return " ".join(f"{name}=={version}" for name, version in packages)
