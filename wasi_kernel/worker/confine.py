"""Confinement: what this worker gives up, for good, before it runs guest code.

WebAssembly is the wall between a guest and this process; this is the wall behind it. Native code
that got through wasmtime finds itself where only the session's own files can be opened (Landlock),
and where no program, socket, debugger, namespace or new machine code is to be had (seccomp).

`confine` is called while the process has one thread: Landlock holds for the calling thread and for
those that it starts. All that must be loaded as machine code is loaded before.
"""

from __future__ import annotations

import ctypes
import os
import resource
import struct
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import wasmtime

from wasi_kernel import confinement, landlock, seccomp
from wasi_kernel.errors import ConfinementError

if TYPE_CHECKING:
    from collections.abc import Iterable

OPEN_FILES = 1 << 16
"""The most descriptors that a worker may have; `limits.open_files` needs less."""

KEPT_CAPABILITIES = 1 << 1 | 1 << 2 | 1 << 3
"""CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER: root's folders are granted like any other's. A
worker of root's has no more than these (include/uapi/linux/capability.h)."""

CAPABILITY_VERSION = 0x20080522  # _LINUX_CAPABILITY_VERSION_3: two words of each set

TASKS = "/proc/self/task"

CODE = (
    os.path.dirname(os.__file__),
    str(Path(__file__).parent.parent),
    os.path.dirname(wasmtime.__file__),
)
"""Folders of modules that may be imported late: Python's own, ours, wasmtime's."""


class Reach(NamedTuple):
    """The host files that a task still needs when it is confined; paths of folders or files.

    Attributes:
        read: May be read.
        change: May be changed, and what is in them.
        keep: Folders of plain files that may be made and changed. The kernel process reads them,
            too, so no symlinks are made there that could lead it elsewhere.
    """

    read: tuple[str, ...] = ()
    change: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()


class Confinement(NamedTuple):
    """What holds for this process.

    Attributes:
        wanted: What the policy says: "auto", "require" or "off".
        landlock: The version of Landlock that restricts it; 0: none does.
        seccomp: Does a filter of system calls?
        missing: What this machine lacks, one line each.
    """

    wanted: str
    landlock: int = 0
    seccomp: bool = False
    missing: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """What `%wasi` shows of it."""
        return {
            "wanted": self.wanted, "landlock": self.landlock, "seccomp": self.seccomp,
            "missing": list(self.missing),
        }  # fmt: skip


def keep_only(fds: Iterable[int]) -> None:
    """Closes all descriptors but the standard ones and these, whoever left them open."""
    low = 3
    for fd in sorted(fds):
        os.closerange(low, fd)
        low = fd + 1
    os.closerange(low, _most_files())


def _most_files() -> int:
    try:
        return max(map(int, os.listdir("/proc/self/fd"))) + 1
    except (OSError, ValueError):
        return os.sysconf("SC_OPEN_MAX")


def limit() -> None:
    """Bounds what this process may use, whatever the policy says: no core file, few descriptors.

    Not the number of processes: that limit counts all of the user's, and seccomp allows none.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)  # what usage.py has made room for
    most = OPEN_FILES if soft == resource.RLIM_INFINITY else min(soft, OPEN_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def confine(wanted: str, reach: Reach) -> Confinement:
    """Confines this process to `reach`, as far as this machine can.

    Args:
        wanted: "auto", "require" or "off", see `Policy.confine`.
        reach: What it still needs.

    Raises:
        ConfinementError: "require", and something is lacking; or what is there does not work.
    """
    if wanted == "require":
        confinement.require()
    limit()
    if wanted == "off":
        return Confinement(wanted)
    missing = confinement.lacking()
    if sys.platform != "linux":
        return Confinement(wanted, missing=missing)
    try:
        landlock.no_new_privileges()
        _drop_capabilities()
        version = landlock.abi()
        if version:
            _one_thread()
            landlock.restrict(_rules(reach), version)
        filtered = (on := seccomp.machine()) is not None and seccomp.available()
        if on is not None and filtered:
            seccomp.install(seccomp.program(on, os.getpid()))
    except OSError as e:
        raise ConfinementError(
            (f"{e.strerror or e} is there, but failed (errno {e.errno})",)
        ) from e
    return Confinement(wanted, version, filtered, missing)


def _rules(reach: Reach) -> list[landlock.Rule]:
    rules = [(path, landlock.READ) for path in (*CODE, *reach.read)]
    rules += [(path, landlock.CHANGE) for path in reach.change]
    return [*rules, *((path, landlock.KEEP) for path in reach.keep)]


def _drop_capabilities() -> None:
    """Gives up root's powers but for those over files. To others it is nothing.

    Raises:
        OSError: It cannot be done.
    """
    libc: Any = ctypes.CDLL(None, use_errno=True)
    header = struct.pack("=Ii", CAPABILITY_VERSION, 0)
    sets = ctypes.create_string_buffer(24)
    if libc.capget(header, sets):
        raise OSError(ctypes.get_errno(), "capget")
    effective, permitted, _, *_ = struct.unpack("=6I", sets.raw)
    fewer = struct.pack(
        "=6I", effective & KEPT_CAPABILITIES, permitted & KEPT_CAPABILITIES, 0, 0, 0, 0
    )
    if libc.capset(header, fewer):
        raise OSError(ctypes.get_errno(), "capset")


def _one_thread() -> None:
    """Nobody else may be there: Landlock would not hold for them."""
    try:
        count = len(os.listdir(TASKS))
    except OSError:  # no /proc
        return
    if count != 1:
        raise ConfinementError((f"{count} threads run already",))
