"""Landlock: Linux's way for a process to give up, for good, all files but some.

By raw system calls, since libc has no names for them. What a kernel can restrict grows with the
version of its ABI (https://docs.kernel.org/userspace-api/landlock.html): 1 files, 2 renames between
folders, 3 cutting files, 4 TCP, 5 ioctl on devices, 6 signals and abstract sockets to the outside.
What it does not know is left out; metadata (stat, timestamps, modes) is in no version.

Standard library only.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

CREATE, ADD, RESTRICT = 444, 445, 446  # the same number on every architecture
ASK_VERSION = 1  # LANDLOCK_CREATE_RULESET_VERSION
PATH_BENEATH = 1  # LANDLOCK_RULE_PATH_BENEATH
PR_SET_NO_NEW_PRIVS = 38

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, REMOVE_DIR, REMOVE_FILE = (1 << k for k in range(6))
MAKE_CHAR, MAKE_DIR, MAKE_REG, MAKE_SOCK, MAKE_FIFO, MAKE_BLOCK = (1 << k for k in range(6, 12))
MAKE_SYM, REFER, TRUNCATE, IOCTL_DEV = (1 << k for k in range(12, 16))

READ = READ_FILE | READ_DIR
CHANGE = (
    READ | WRITE_FILE | TRUNCATE | REMOVE_DIR | REMOVE_FILE | MAKE_DIR | MAKE_REG | MAKE_SYM | REFER
    | MAKE_FIFO | MAKE_SOCK
)  # fmt: skip
"""What a writable folder allows: no devices are made, and nothing is executed. A pipe or socket
that lies there can be renamed, which Landlock takes for making it; seccomp refuses to make one."""

KEEP = READ | WRITE_FILE | TRUNCATE | REMOVE_FILE | MAKE_REG
"""What a folder allows that has plain files only, which others read, too: no links lead from it."""

OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
"""Rights that a rule for something else than a folder may name."""

FILES_BY_ABI = {1: (1 << 13) - 1, 2: REFER, 3: TRUNCATE, 5: IOCTL_DEV}
"""Rights on files that each version adds."""

TCP = 0b11  # bind, connect: since 4
OUTSIDE = 0b11  # abstract sockets, signals: since 6

Rule = tuple[str, int]
"""(host path, rights on it and on all beneath it)."""


def abi() -> int:
    """The version that this kernel has; 0: none, or it was switched off when it was booted."""
    if sys.platform != "linux":
        return 0
    return max(0, int(_libc().syscall(CREATE, None, 0, ASK_VERSION)))


def handled(version: int) -> tuple[int, int, int]:
    """(rights on files, on the network, and to the outside) that a version can restrict."""
    files = 0
    for since, rights in FILES_BY_ABI.items():
        files |= rights if version >= since else 0
    return files, TCP if version >= 4 else 0, OUTSIDE if version >= 6 else 0


def attributes(version: int) -> bytes:
    """Struct landlock_ruleset_attr, as long as that version knows it."""
    length = 24 if version >= 6 else 16 if version >= 4 else 8
    return b"".join(part.to_bytes(8, sys.byteorder) for part in handled(version))[:length]


def no_new_privileges() -> None:
    """From here on nothing that is executed gains rights; what Landlock and seccomp demand.

    Raises:
        OSError: It cannot be.
    """
    if _libc().prctl(PR_SET_NO_NEW_PRIVS, *map(ctypes.c_ulong, (1, 0, 0, 0))):
        raise OSError(ctypes.get_errno(), "no_new_privs")


def restrict(rules: Iterable[Rule], version: int) -> None:
    """Restricts the calling thread, and threads that it starts later, to these files, for good.

    TCP, and signals and abstract sockets to other processes, are gone altogether. Files that are
    open stay usable. A path that is not there is left out.

    Args:
        rules: What stays allowed.
        version: `abi()`, 1 or more.

    Raises:
        OSError: It cannot be done; nothing is restricted.
    """
    libc = _libc()
    given = attributes(version)
    ruleset = _checked(libc.syscall(CREATE, given, len(given), 0))
    try:
        for path, rights in rules:
            _add(libc, ruleset, path, rights & handled(version)[0])
        _checked(libc.syscall(RESTRICT, ruleset, 0))
    finally:
        os.close(ruleset)


def _add(libc: Any, ruleset: int, path: str, rights: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError as e:
        if e.errno in (errno.ENOENT, errno.ENOTDIR):  # who wants to use it says so
            return
        raise
    try:
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            rights &= OF_FILES
        # struct landlock_path_beneath_attr, packed: u64 rights, s32 fd
        rule = rights.to_bytes(8, sys.byteorder) + fd.to_bytes(4, sys.byteorder)
        _checked(libc.syscall(ADD, ruleset, PATH_BENEATH, rule, 0))
    finally:
        os.close(fd)


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), "Landlock")
    return result


def _libc() -> Any:
    return ctypes.CDLL(None, use_errno=True)
