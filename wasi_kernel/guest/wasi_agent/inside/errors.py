"""Errors: what the sandbox has to do with one, or with those that led to it."""

from __future__ import annotations

import errno
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from wasi_agent import explain
from wasi_agent.alternatives import DISTRIBUTIONS, INSTEAD
from wasi_agent.inside import paths
from wasi_agent.inside.paths import Reason
from wasi_agent.tracebacks import LONG_CHAIN, name_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from wasi_agent.inside.grants import Folder
    from wasi_agent.shell import ZMQInteractiveShell

PLAIN = {
    errno.EEXIST: ("exists", "there is a file or folder of that name already"),
    errno.ENOTEMPTY: ("not-empty", "the folder is not empty"),
    errno.EISDIR: ("is-a-folder", "that is a folder, and a file is wanted"),
    errno.ENOTDIR: ("not-a-folder", "a folder is wanted, and that is a file, or leads through one"),
    errno.ELOOP: ("link-loop", "symbolic links lead in a circle"),
    errno.ENAMETOOLONG: ("name-too-long", "the host's file system takes no name that long"),
    errno.EXDEV: ("across-grants", ("nothing is moved or linked from one granted folder to another "
                  "by its name; shutil.move copies it")),
    errno.EBADF: ("closed", ("that file is not open: it was closed, or it was open in a state that "
                  "came back (%undo, the death of a guest), which no file survives")),
    errno.EACCES: ("host-permissions", explain.HOST_PERMISSIONS),
    errno.ENOTSUP: ("not-supported", "WASI has no such operation"),
    errno.ENOSYS: ("not-supported", "this runtime has no such operation"),
}  # fmt: skip
"""errno -> (code, what it means), of errors that no line of a policy is about."""

FULL = "the host's disk is full, or its user's quota: none of the session's own limits is reached"

SQLITE = (
    "SQLite does not say which file; %wasi why PATH explains it. A database is opened for writing, "
    "with a journal beside it, so its folder must be writable"
)

LARGEST = {"memory_bytes": 4 << 30, "stack_bytes": 512 << 20, "open_files": 60_000}
"""What policy.py allows at most, of limits that are reached by errors."""


class Surroundings(NamedTuple):
    """What an error is explained by.

    Attributes:
        folders: Those that the guest has.
        facts: What the host said of the session.
        limits: Asks the host what is used of each.
        reached: The limit that was reached when the error was shown; None: none was, or not known.
    """

    folders: list[Folder]
    facts: dict[str, Any]
    limits: Callable[[], list[dict[str, Any]]]
    reached: dict[str, Any] | None


def reached_by(shell: ZMQInteractiveShell, error: BaseException) -> dict[str, Any] | None:
    """The limit that was reached when this error was shown."""
    return shell.reached if error is shell.last_shown else None


def why(error: BaseException, given: Surroundings) -> tuple[BaseException, Reason]:
    """(the error that the sandbox has to do with, why): this one, or one that led to it."""
    for one in _chain(error):
        reason = _of(one, given)
        if reason is not None:
            return one, reason
    text = f"no rule of the sandbox is known to be behind this {name_of(type(error))}"
    return error, Reason("not-the-sandbox", text)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error, what is in it if it is a group, and what led to it; each once, and few."""
    seen: set[int] = set()
    pending = [error]
    while pending and len(seen) < LONG_CHAIN:
        one = pending.pop(0)
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        if isinstance(one, BaseExceptionGroup):
            pending += one.exceptions
        led = one.__context__ if one.__cause__ is None else one.__cause__
        pending += [] if led is None else [led]


def path_of(error: BaseException) -> str:
    """The path that an error names, empty if it names none."""
    name = error.filename if isinstance(error, OSError) else None
    if isinstance(name, bytes):
        name = name.decode("utf-8", "replace")
    return name if isinstance(name, str) else ""


def _of(error: BaseException, given: Surroundings) -> Reason | None:
    if isinstance(error, MemoryError):
        too_deep = str(error).startswith(explain.PARSER)
        return None if too_deep else _limit(_row("memory_bytes", given), explain.MEMORY_TEXT)
    if isinstance(error, KeyboardInterrupt):
        return _interrupt(given)
    if isinstance(error, ModuleNotFoundError) and error.name:
        return _module(error.name, given)
    if isinstance(error, OSError) and (reason := _os_error(error, given)) is not None:
        return reason
    if name_of(type(error)) == "OperationalError" and "unable to open" in str(error):
        return Reason("sqlite", SQLITE, "look at its folder with %wasi grants")
    found = explain.cause(error)
    if found is not None:
        return Reason(f"no-{found.what}", found.text, "no line of a policy allows it")
    return None


def _os_error(error: OSError, given: Surroundings) -> Reason | None:
    number = error.errno
    if number in explain.LIMITS:
        return _file_limit(error, given)
    path, second = path_of(error), error.filename2
    if number == errno.EPERM and isinstance(second, str):
        return _two_paths(path, second, given)
    if number in (errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.ELOOP) and path:
        reason = paths.why(path, given.folders, number)
        if reason.code != "there":
            return reason
        if number == errno.ENOENT:
            text = f"{path} is there now; it was not when the error came"
            return reason._replace(code="there-now", text=text)
        if number == errno.EPERM:
            return reason._replace(
                code="refused", text=f"{reason.text}; the host refuses this operation itself"
            )
    if explain.cause(error) is not None:  # of a socket, and the like
        return None
    if number in PLAIN:
        return Reason(*PLAIN[number])
    return None


def _two_paths(source: str, target: str, given: Surroundings) -> Reason:
    """Why a file was not renamed, or a link not made."""
    problems = [paths.why(path, given.folders, errno.EPERM) for path in (target, source)]
    usable = ("there", "missing", "link-dangling")
    if problems[0].code not in usable:
        return problems[0]
    reason = problems[1]
    if source.startswith("/") and reason.code != "read-only":
        return Reason(
            "absolute-link", f"a symbolic link to {source} is not made: one whose target begins "
            "with / would mean another file on the host",
            "make the link relative, inside of one granted folder",
        )  # fmt: skip
    if source.startswith("/"):
        text = "; and a symbolic link whose target begins with / is never made"
        return reason._replace(text=reason.text + text)
    if reason.code in usable:
        return Reason("refused", f"the host refuses to do this with {source} and {target}")
    return reason


def _row(limit: str, given: Surroundings) -> dict[str, Any]:
    return next(row for row in given.limits() if row["limit"] == limit)


def _file_limit(error: OSError, given: Surroundings) -> Reason | None:
    known = explain.LIMITS.get(error.errno or 0, {})
    row = given.reached
    if row is None or row["limit"] not in known:  # not shown by IPython: is one reached now?
        rows = [r for r in given.limits() if r["limit"] in known]
        row = next((r for r in rows if r["refused"] or _is_full(r)), None)
    if row is None:
        if error.errno == errno.ENOSPC:
            return Reason("disk-full", FULL, "make room on the host")
        return _limit(_row("open_files", given), "so many files were open at a time")
    return _limit(row, known[row["limit"]])


def _is_full(row: dict[str, Any]) -> bool:
    return row["used"] is not None and row["used"] >= row["allowed"]


def _limit(row: dict[str, Any], text: str) -> Reason:
    """A limit was reached: what raises it to twice as much, or to what is possible."""
    name, allowed = row["limit"], row["allowed"]
    more = min(2 * allowed or 1024, LARGEST.get(name, 2 * allowed or 1024))
    said = f"{text} (limits.{name} = {_size(name, allowed)})"
    if more <= allowed:
        return Reason(
            "limit", f"{said}; there cannot be more", "%wasi limits shows all", limit=name
        )
    return Reason(
        "limit", said, "%wasi limits shows what is used of all limits",
        f"[limits]\n{name} = {_toml(name, more)}", f"{row['option']} {_size(name, more)}",
        limit=name,
    )  # fmt: skip


def _size(name: str, value: int) -> str:
    if name.endswith("_bytes"):
        for unit, text in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
            if value >= unit and value % unit == 0:
                return f"{value // unit}{text}"
    return str(value)


def _toml(name: str, value: int) -> str:
    text = _size(name, value)
    return text if text.isdecimal() else f'"{text}"'


def _interrupt(given: Surroundings) -> Reason:
    limits = given.facts.get("limits", {})
    set_ones = [name for name in ("cell_s", "cell_cpu_s") if limits.get(name)]
    if not set_ones:
        return Reason(
            "interrupted", "the cell was interrupted by the user; no limit of time is set"
        )
    name = set_ones[0]
    row = _row(name, given)
    text = f"the cell was interrupted by the user, or by a limit of time, limits.{name}"
    reason = _limit({**row, "allowed": limits[name]}, text)
    return reason._replace(code="interrupted")


# -- modules --------------------------------------------------------------------------------------


def is_known_module(name: str) -> bool:
    """Is this the name of a module that is not here, and of which something is known?"""
    return name in explain.MISSING or _distribution(name) in INSTEAD


def _distribution(module: str) -> str:
    top = module.partition(".")[0]
    return DISTRIBUTIONS.get(top, top.replace("_", "-"))


def _module(name: str, given: Surroundings) -> Reason:
    top = name.partition(".")[0]
    if name in explain.MISSING or top in explain.MISSING:
        text = explain.MISSING.get(name) or explain.MISSING[top]
        return Reason("no-module", f"this Python has no {top}: {text}", "no policy brings it")
    if top in sys.stdlib_module_names:
        return Reason(
            "no-module", f"{name} belongs to Python's library, but this build of it is without",
            "another runtime may have it: runtime in the policy, --runtime",
        )  # fmt: skip
    if top in sys.modules:
        text = f"{top} is here, but it has no part {name}"
        return Reason("no-part", text, f"{top} {_version(top)}".strip() + " is what is installed")
    nearest = _modules_like(top)
    package = _distribution(name)
    line, option = f'packages = ["{package}"]', f"--package {package}"
    instead = INSTEAD.get(package.lower())
    if instead is not None:
        return Reason(
            "native", f"{top} is not here: {package} consists of native code, which WebAssembly "
            "cannot load; no policy brings it", f"there is: {instead}", nearest=nearest,
        )  # fmt: skip
    return Reason(
        "not-installed", f"{top} is not installed; packages of pure Python can be",
        _pip(package, given), line, option, nearest=nearest,
    )  # fmt: skip


def _pip(package: str, given: Surroundings) -> str:
    allowed = given.facts.get("pip")
    if allowed is True or (isinstance(allowed, (list, tuple)) and package in allowed):
        return f"%pip install {package}"
    if allowed:
        return f"the policy lets cells install {', '.join(allowed)} only (pip)"
    return "cells may not install packages here; pip = true in the policy, or --pip, lets them"


def _version(module: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(_distribution(module))
    except PackageNotFoundError:
        return ""


def _modules_like(name: str) -> tuple[str, ...]:
    import difflib
    import pkgutil

    names = {module.name for module in pkgutil.iter_modules()} | set(sys.builtin_module_names)
    return tuple(difflib.get_close_matches(name, sorted(names), 3, 0.75))
