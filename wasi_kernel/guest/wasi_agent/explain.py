"""One added line under a traceback whose cause is the sandbox, saying so and what to do instead."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

# module in whose frames the exception passed -> what to say
MODULES = {
    "multiprocessing": "there are no processes here; run the work in this process",
    "concurrent.futures": (
        "there are no threads or processes here; call the functions directly, or in map()"
    ),
    "threading": "there are no threads here; call the function directly, or use asyncio",
    "subprocess": "there are no processes here; use Python instead of other programs",
    "ssl": "there is no network here; put the data into a folder that the policy grants",
    "socket": "there is no network here; put the data into a folder that the policy grants",
    "http.client": "there is no network here; put the data into a folder that the policy grants",
    "urllib.request": (
        "there is no network here; put the data into a folder that the policy grants"
    ),
    "ctypes": "there are no native libraries here; only what the runtime has compiled in",
}

# what os and others lack on WASI, as AttributeError.name
ATTRIBUTES = {
    **dict.fromkeys(
        ("fork", "system", "pipe", "posix_spawn", "execv", "execve", "kill", "waitpid", "WNOHANG"),
        MODULES["subprocess"],
    ),
    **dict.fromkeys(
        ("getaddrinfo", "gethostbyname", "gethostname", "AF_UNIX", "socketpair"), MODULES["socket"]
    ),
}

# modules that CPython's WASI builds do not have
MISSING = {
    "_ctypes": MODULES["ctypes"],
    "ctypes": MODULES["ctypes"],
    "multiprocessing": MODULES["multiprocessing"],
    "_ssl": MODULES["ssl"],
    "ssl": MODULES["ssl"],
    "_socket": MODULES["socket"],
    "_multiprocessing": MODULES["multiprocessing"],
    "_posixsubprocess": MODULES["subprocess"],
    **dict.fromkeys(
        ("tkinter", "_tkinter", "curses", "_curses", "termios", "readline"),
        "there is no terminal or screen here; input() and plots work",
    ),
    **dict.fromkeys(
        ("fcntl", "pwd", "grp", "resource", "syslog", "mmap"),
        "WASI has no such system service",
    ),
}

# errno -> the limits that may be behind it, and what to say of each
LIMITS = {
    errno.ENOSPC: {
        "written_bytes": "the files of this session have grown by all that they may; delete some",
        "created_files": "this session has as many files as it may; delete some",
    },
    errno.EMFILE: {"open_files": "as many files are open as may be at a time; close some"},
}

MEMORY = (
    "[wasi-kernel] more memory than the limit leaves; limits.memory_bytes in the policy, or "
    "--memory, raises it, and %wasi limits shows all limits."
)
PARSER = "Parser stack overflowed"
"""How CPython's MemoryError of another kind begins: of a text that is nested too deep."""

CAUSES = (RuntimeError, OSError, AttributeError, ImportError, NotImplementedError)


def _modules(tb: TracebackType | None) -> list[str]:
    names = []
    while tb is not None:
        names.append(str(tb.tb_frame.f_globals.get("__name__", "")))
        tb = tb.tb_next
    return names


def _limit_of(number: object, limits: Callable[[], list[dict[str, Any]]]) -> str | None:
    """Which limit was reached, for an OSError with this errno; None if none was."""
    known = LIMITS.get(number) if isinstance(number, int) else None
    if known is None:
        return None
    try:
        rows = limits()
    except (EOFError, OSError):  # of a door that cannot be asked now: the error is shown without
        return None
    for row in rows:
        said = known.get(row["limit"])
        if said is not None and row["refused"]:
            return (
                f"[wasi-kernel] {said}; limits.{row['limit']} in the policy, or {row['option']}, "
                f"raises it (now {row['allowed']:,}), and %wasi limits shows all limits."
            )
    return None


def explanation(
    error: BaseException, limits: Callable[[], list[dict[str, Any]]] = list
) -> str | None:
    """What to say about `error`, or None if the sandbox has nothing to do with it.

    `limits` asks the host what is used of each.
    """
    if isinstance(error, MemoryError):
        return None if str(error).startswith(PARSER) else MEMORY
    if not isinstance(error, CAUSES):
        return None
    if isinstance(error, OSError) and (said := _limit_of(error.errno, limits)) is not None:
        return said
    if isinstance(error, PermissionError) and isinstance(error.filename, str):
        return (
            "[wasi-kernel] this folder is granted read-only, or not at all; /tmp and the home "
            "folder can be written, and %wasi shows all grants."
        )
    said = _missing(error)
    return None if said is None else f"[wasi-kernel] {said}."


def _missing(error: BaseException) -> str | None:
    """Which thing that is not there lies behind `error`."""
    said = None
    if isinstance(error, ImportError) and error.name in MISSING:
        said = MISSING[error.name]
    elif isinstance(error, AttributeError):
        module = getattr(error.obj, "__name__", "")
        if module in ("os", "posix", "socket", "_socket", "signal"):
            said = ATTRIBUTES.get(error.name or "")
    if said is None and not isinstance(error, ImportError):
        passed = _modules(error.__traceback__)
        for module, text in MODULES.items():
            if any(name == module or name.startswith(module + ".") for name in passed[1:]):
                said = text
                break
    return said
