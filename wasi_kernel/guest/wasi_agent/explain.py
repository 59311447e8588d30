"""One added line under a traceback whose cause is the sandbox, saying so and what to do instead."""

from __future__ import annotations

import errno
import os
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

NETWORK = "there is no network here; put the data into a folder that the policy grants"
PROCESSES = "there are no processes here; use Python instead of other programs"
WORKERS = "there are no processes here; run the work in this process"
THREADS = "there are no threads here; call the function directly, or use asyncio"
NATIVE = "there are no native libraries here; only what the runtime has compiled in"
ALARMS = (
    "there are no timers and no signals from outside here; limits.cell_s in the policy, or "
    "--cell-seconds, ends a cell, and asyncio.timeout ends what awaits"
)
HOST_PERMISSIONS = (
    "the host's own file permissions do not let the kernel's user do that; the policy does"
)
CALLS = "WASI, the system that Python runs on here, has no such call"
USERS = "there are no users here, so nothing has an owner either"


class Cause(NamedTuple):
    """A thing that the sandbox does not have, and what to do instead."""

    what: str
    text: str


# module in whose frames the exception passed -> what is not there
MODULES = {
    "multiprocessing": Cause("processes", WORKERS),
    "concurrent.futures": Cause("threads", (
        "there are no threads or processes here; call the functions directly, or in map()"
    )),
    "threading": Cause("threads", THREADS),
    "subprocess": Cause("processes", PROCESSES),
    "asyncio.subprocess": Cause("processes", PROCESSES),
    "ssl": Cause("network", NETWORK),
    "socket": Cause("network", NETWORK),
    "http.client": Cause("network", NETWORK),
    "urllib.request": Cause("network", NETWORK),
    "ctypes": Cause("native-code", NATIVE),
}  # fmt: skip

# what os and others lack on WASI, as AttributeError.name
ATTRIBUTES = {
    **dict.fromkeys(
        ("fork", "forkpty", "system", "pipe", "posix_spawn", "posix_spawnp", "execv", "execve",
         "kill", "killpg", "wait", "wait3", "wait4", "waitid", "waitpid", "WNOHANG", "getppid",
         "nice", "spawnl", "spawnv", "spawnvp", "openpty", "pthread_kill"),
        Cause("processes", PROCESSES),
    ),
    **dict.fromkeys(
        ("getaddrinfo", "gethostbyname", "gethostname", "AF_UNIX", "socketpair"),
        Cause("network", NETWORK),
    ),
    **dict.fromkeys(
        ("alarm", "setitimer", "getitimer", "pause", "sigwait", "pthread_sigmask"),
        Cause("alarms", ALARMS),
    ),
    **dict.fromkeys(
        ("getlogin", "getuid", "geteuid", "getgid", "getegid", "getgroups", "setuid", "setgid",
         "chown", "lchown", "fchown", "umask"),
        Cause("users", USERS),
    ),
    **dict.fromkeys(
        ("chroot", "confstr", "copy_file_range", "dup", "dup2", "eventfd", "fchdir", "fchmod",
         "fstatvfs", "getloadavg", "getpriority", "getxattr", "listxattr", "lockf", "major",
         "makedev", "memfd_create", "minor", "mkfifo", "mknod", "sched_getaffinity",
         "sched_setaffinity", "sendfile", "setpriority", "setxattr", "splice", "statvfs", "sync",
         "ttyname"),
        Cause("system-call", CALLS),
    ),
}  # fmt: skip

# modules that CPython's WASI builds do not have
MISSING = {
    "_ctypes": NATIVE,
    "ctypes": NATIVE,
    "multiprocessing": WORKERS,
    "_ssl": NETWORK,
    "ssl": NETWORK,
    "_socket": NETWORK,
    "_multiprocessing": WORKERS,
    "_posixsubprocess": PROCESSES,
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

MEMORY_TEXT = "more memory than the limit leaves"
MEMORY = (
    f"[wasi-kernel] {MEMORY_TEXT}; limits.memory_bytes in the policy, or "
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


def limit_of(
    error: BaseException, limits: Callable[[], list[dict[str, Any]]]
) -> dict[str, Any] | None:
    """Which limit was reached, for an OSError; None if none was. A row of what `limits` gives."""
    known = LIMITS.get(error.errno or 0) if isinstance(error, OSError) else None
    if known is None:
        return None
    try:
        rows = limits()
    except (EOFError, OSError):  # of a door that cannot be asked now: the error is shown without
        return None
    return next((row for row in rows if row["limit"] in known and row["refused"]), None)


def explanation(
    error: BaseException,
    reached: dict[str, Any] | None = None,
    granted: Mapping[str, bool] | None = None,
) -> str | None:
    """What to say about `error`, or None if the sandbox has nothing to do with it.

    Args:
        error: The error.
        reached: The limit that it comes of (`limit_of`).
        granted: {guest path: may it be changed?} of the granted folders; None where there are no
            magics to ask for more.
    """
    if isinstance(error, MemoryError):
        return None if str(error).startswith(PARSER) else MEMORY
    if not isinstance(error, CAUSES):
        return None
    if reached is not None and isinstance(error, OSError):
        said = LIMITS[error.errno or 0][reached["limit"]]
        return (
            f"[wasi-kernel] {said}; limits.{reached['limit']} in the policy, or "
            f"{reached['option']}, raises it (now {reached['allowed']:,}), and %wasi limits shows "
            "all limits."
        )
    if (text := _of_path(error, granted or {})) is not None:
        return f"[wasi-kernel] {text}"
    found = cause(error)
    if found is not None:
        return f"[wasi-kernel] {found.text}."
    if granted is None or not isinstance(error, ModuleNotFoundError):
        return None
    if _is_a_package(error.name):
        top = str(error.name).partition(".")[0]
        return f"[wasi-kernel] {top} is not installed here; %wasi why says more."
    return None


def _of_path(error: BaseException, granted: Mapping[str, bool]) -> str | None:
    """What to say of a path that cannot be used."""
    name = error.filename if isinstance(error, OSError) else None
    if not isinstance(name, str):
        return None
    if isinstance(error, PermissionError) and error.errno == errno.EACCES:
        return f"{HOST_PERMISSIONS}."
    path = os.path.join(os.getcwd(), name)
    found = [at for at in granted if path == at or path.startswith(at + "/")]
    if isinstance(error, PermissionError) and found and granted[max(found, key=len)]:
        return "this path leads out of its folder, by a link or by ..; %wasi why says more."
    if isinstance(error, PermissionError):
        return (
            "this folder is granted read-only, or not at all; /tmp and the home folder can be "
            "written, %wasi grants shows all grants, and %wasi why says more."
        )
    if isinstance(error, FileNotFoundError) and granted and not found:
        return "that is in no granted folder; %wasi why says what would grant it."
    return None


def _is_a_package(name: str | None) -> bool:
    """Is it the name of a package of its own, of which nothing is here?"""
    top = str(name).partition(".")[0]
    return bool(name) and top not in sys.modules and top not in sys.stdlib_module_names


def cause(error: BaseException) -> Cause | None:
    """Which thing that is not there lies behind `error`; None if none is known."""
    if not isinstance(error, CAUSES):
        return None
    if isinstance(error, ImportError):
        text = MISSING.get(error.name or "")
        return None if text is None else Cause("module", text)
    if isinstance(error, AttributeError):
        module = getattr(error.obj, "__name__", "")
        if module in ("os", "posix", "socket", "_socket", "signal") and error.name in ATTRIBUTES:
            return ATTRIBUTES[error.name]
    passed = _modules(error.__traceback__)
    for module, found in MODULES.items():
        if any(name == module or name.startswith(module + ".") for name in passed[1:]):
            return found
    return None
