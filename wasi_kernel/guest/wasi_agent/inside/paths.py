"""Paths: why a path cannot be used, by the folders that are granted.

WASI has no paths from a root: a program has folders open, and asks for what lies below one of
them. wasi-libc takes the folder whose name the path begins with, as it is written; the host then
follows the rest, and refuses whatever leads out (`..`, links). So the same is done here.
"""

from __future__ import annotations

import difflib
import errno
import itertools
import os
import posixpath
import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wasi_agent.inside.grants import Folder

MOST_NAMES = 10_000
"""Names of a folder that are compared with one that is not there."""

MOST_LINKS = 40
"""Links that are followed on the way to a file: as many as Linux follows."""

OWN = (
    "/tmp", "/home/wasi", "/usr/local/lib", "/usr/lib/wasi-kernel",  # noqa: S108 - guest paths
    "/opt/packages", "/opt/installed",
)  # fmt: skip
"""Guest paths at which nothing can be granted, since sessions have folders of their own there."""

SYSTEM = ("/proc", "/sys", "/dev", "/run")
"""Folders of an operating system's own, which the host refuses to grant."""

_WINDOWS = re.compile(r"[A-Za-z]:[\\/]|\\\\")


class Reason(NamedTuple):
    """Why something cannot be had.

    Attributes:
        code: The kind, for programs.
        text: What is the matter.
        do: What to do here, without another policy; may be empty.
        line: The policy's line that would allow it; empty if none does.
        option: The same as an option of `install` and `run`.
        exists: The deepest part of the path that is there; empty if not looked for.
        nearest: Names there that are alike.
        limit: Which limit was reached; empty if none was.
    """

    code: str
    text: str
    do: str = ""
    line: str = ""
    option: str = ""
    exists: str = ""
    nearest: tuple[str, ...] = ()
    limit: str = ""


def grant(guest_path: str, *, writable: bool) -> tuple[str, str]:
    """(line of a policy, option) that grants a folder at `guest_path`; empty if none can.

    Nothing can be granted at /, nor at, in or around the folders that every session has.
    """
    import json
    import shlex

    apart = all(
        not (guest_path + "/").startswith(own + "/") and not own.startswith(guest_path + "/")
        for own in OWN
    )
    if guest_path == "/" or not apart:
        return "", ""
    text = f"HOST:{guest_path}{':rw' * writable}"
    return f"grants = [{json.dumps(text, ensure_ascii=False)}]", f"--grant {shlex.quote(text)}"


def folder_of(path: str, folders: Sequence[Folder]) -> Folder | None:
    """The folder that an absolute path begins with, as it is written; the deepest one."""
    inside = [f for f in folders if path == f.guest_path or path.startswith(f.guest_path + "/")]
    return max(inside, key=lambda f: len(f.guest_path), default=None)


def why(path: str, folders: Sequence[Folder], number: int | None = None) -> Reason:
    """Why `path` could not be used; `number` is the errno that came of it, None if not known."""
    if (misread := _misread(path)) is not None:
        return misread
    absolute = posixpath.join(os.getcwd(), path)
    writing = number in (errno.EPERM, errno.EROFS)
    folder = folder_of(absolute, folders)
    if folder is None:
        return _nowhere(absolute, folders, writable=writing)
    parts = [p for p in absolute[len(folder.guest_path) :].split("/") if p not in ("", ".")]
    if _climbs(parts):
        return _climbed(absolute, folder, folders)
    reason = _walk(absolute, folder, parts)
    if reason.code in ("link-outside", "link-loop"):
        return reason
    if not folder.there:
        return Reason(
            "gone", f"the host's folder for {folder.guest_path} was moved or replaced",
            "it is empty until the kernel is restarted",
        )  # fmt: skip
    if writing and not folder.writable:
        return _read_only(absolute, folder)
    return reason


def _misread(path: str) -> Reason | None:
    """Is it written in a way that means something else here?"""
    if not path:
        return Reason("empty", "an empty path names no file")
    if _WINDOWS.match(path):
        line, option = grant("/data", writable=False)
        return Reason(
            "windows", f"{path} is a path of Windows; paths of the sandbox begin with /, and \\ "
            "is a part of a name", "grant the folder, and use its path here: /data/...",
            line, option,
        )  # fmt: skip
    if path.startswith("~"):
        expanded = os.path.expanduser(path)
        return Reason(
            "tilde", f"Python takes ~ for a name; os.path.expanduser makes {expanded} of it",
            f"the home folder here is {os.path.expanduser('~')}, not that of the host",
        )  # fmt: skip
    return None


def _climbs(parts: Sequence[str]) -> bool:
    """Does the way lead above where it begins?"""
    depth = 0
    for part in parts:
        depth += -1 if part == ".." else 1
        if depth < 0:
            return True
    return False


def _climbed(absolute: str, folder: Folder, folders: Sequence[Folder]) -> Reason:
    plain = posixpath.normpath(absolute)
    said = f"{absolute} leads up out of {folder.guest_path}, and no granted folder has a way up"
    target = folder_of(plain, folders)
    if target is not None:
        return Reason("climbs", said, f"write it as {plain}, which lies in {target.guest_path}")
    other = _nowhere(plain, folders, writable=False)
    return other._replace(code="climbs", text=f"{said}; {other.text}")


def _nowhere(absolute: str, folders: Sequence[Folder], *, writable: bool) -> Reason:
    plain = posixpath.normpath("/" + absolute.lstrip("/"))
    if any((plain + "/").startswith(system + "/") for system in SYSTEM):
        return Reason(
            "system", f"{plain} would be a part of the operating system's own, and there is none "
            "in the sandbox; the host's is never granted", "Python has much of what is in there: "
            "os.urandom, os.devnull, sys, platform",
        )  # fmt: skip
    above = posixpath.dirname(plain)
    at = plain if above == "/" else above
    line, option = ("", "") if plain == "/" else grant(at, writable=writable)
    if not line and plain != "/":  # a place of its own, apart from those that are taken
        line, option = grant("/data", writable=writable)
    if plain == "/" or any(f.guest_path.startswith(plain + "/") for f in folders):
        return Reason(
            "not-granted", f"{plain} only shows where the granted folders are; nothing else can "
            "be in it", "write into a granted folder, such as /tmp", line, option, plain,
        )  # fmt: skip
    exists = plain
    while exists != "/" and not os.path.lexists(exists):
        exists = posixpath.dirname(exists)
    tops = [f.guest_path for f in folders]
    near = difflib.get_close_matches(plain, tops, 3, 0.75) + difflib.get_close_matches(
        at, tops, 3, 0.75
    )
    return Reason(
        "not-granted", f"{plain} is in no granted folder, so here it does not exist, whatever "
        "the host has there", "put the file into a granted folder; own files can be in /tmp",
        line, option, exists, tuple(dict.fromkeys(near)),
    )  # fmt: skip


def _read_only(absolute: str, folder: Folder) -> Reason:
    path = folder.guest_path
    line, option = grant(path, writable=True)
    if line and folder.line == "work = true":
        line, option = 'grants = [".:/work:rw"]', "--grant .:/work:rw"
    if not line:
        return Reason(
            "read-only", f"{absolute} is in {path} ({folder.what}), which no policy lets cells "
            "change", "write to /tmp or the home folder", exists=path,
        )  # fmt: skip
    return Reason(
        "read-only", f"{absolute} is in {path}, which is granted read-only",
        "write to /tmp or the home folder; or have it granted with :rw, in place of the grant "
        "that there is", line, option, path,
    )  # fmt: skip


def _walk(absolute: str, folder: Folder, parts: list[str]) -> Reason:
    """What is found on the way from a folder to a path in it."""
    links = 0
    done: list[str] = []
    todo = list(parts)
    while todo:
        part = todo.pop(0)
        if part == "..":
            done.pop()
            continue
        here = posixpath.join(folder.guest_path, *done)
        at = posixpath.join(here, part)
        try:
            is_link = os.path.islink(at)
            os.lstat(at)
        except FileNotFoundError:
            return _missing(at, here, folder, linked=links > 0)
        except NotADirectoryError:
            return Reason("not-a-folder", f"{here} is a file, so nothing can be in it", exists=here)
        except OSError as e:
            return Reason("refused", f"{at}: the host's own file system says: {e.strerror}")
        if not is_link:
            done.append(part)
            continue
        links += 1
        if links > MOST_LINKS:
            return Reason("link-loop", f"the symbolic link {at} leads in a circle", exists=here)
        target = _target(at)
        steps = [p for p in (target or "").split("/") if p not in ("", ".")]
        if target is None or target.startswith("/") or _climbs([*done, *steps]):
            whereto = "whose target begins with /" if target is None else f"to {target}"
            return Reason(
                "link-outside", f"{at} is a symbolic link {whereto}, which leads out of the "
                f"folder {folder.guest_path}; links are followed inside of one granted folder "
                "only, also where the target is granted",
                "use the target's own path, if it is granted", exists=here,
            )  # fmt: skip
        todo = steps + todo
    found = posixpath.join(folder.guest_path, *done)
    kind = "a folder" if os.path.isdir(found) else "a file"
    may = "can be read and written" if folder.writable else "can be read, not written"
    return Reason(
        "there", f"{absolute} is there: {kind} in {folder.guest_path}, which {may}", exists=found
    )


def _target(at: str) -> str | None:
    """Where a link leads; None if the host does not tell, as of one whose target begins with /."""
    try:
        return os.readlink(at)
    except OSError:
        return None


def _missing(at: str, here: str, folder: Folder, *, linked: bool) -> Reason:
    name = posixpath.basename(at)
    try:
        with os.scandir(here) as found:
            names = [e.name for e in itertools.islice(found, MOST_NAMES)]
    except OSError:
        names = []
    same = [n for n in names if n.casefold() == name.casefold()]
    near = tuple(dict.fromkeys([*same, *difflib.get_close_matches(name, names, 3)]))
    text = f"{folder.guest_path} is granted, but there is no {name!r} in {here}"
    if linked:
        return Reason("link-dangling", f"a symbolic link leads to {at}, which is not there",
                      exists=here, nearest=near)  # fmt: skip
    if not names:
        text += f"; {here} is empty"
    return Reason("missing", text, exists=here, nearest=near)
