"""What WASI's calls say: parameters, flags, rights and errno values by name.

The tables are of WASI preview 1 (its witx/typenames.witx and wasi_snapshot_preview1.witx). What a
call points at is the guest's and hostile: read through checked memory, cut, and never a fault here.
Imports nothing that runs the guest.
"""

from __future__ import annotations

import contextlib
import struct
from typing import TYPE_CHECKING, Any, NamedTuple

from wasi_kernel.worker.memory import OutOfBoundsError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from wasi_kernel.worker.memory import LinearMemory

SHOWN_RIGHTS = 4
MAX_PATH = 256
"""Bytes of a path that are shown; a longer one ends with an ellipsis."""
MAX_IOVECS = 1024
MAX_EVENTS = 16
"""Subscriptions and events of one poll_oneoff that are looked at."""
MASK = (1 << 64) - 1

_ERRNO = (
    "SUCCESS 2BIG ACCES ADDRINUSE ADDRNOTAVAIL AFNOSUPPORT AGAIN ALREADY BADF BADMSG BUSY "
    "CANCELED CHILD CONNABORTED CONNREFUSED CONNRESET DEADLK DESTADDRREQ DOM DQUOT EXIST FAULT "
    "FBIG HOSTUNREACH IDRM ILSEQ INPROGRESS INTR INVAL IO ISCONN ISDIR LOOP MFILE MLINK "
    "MSGSIZE MULTIHOP NAMETOOLONG NETDOWN NETRESET NETUNREACH NFILE NOBUFS NODEV NOENT NOEXEC "
    "NOLCK NOLINK NOMEM NOMSG NOPROTOOPT NOSPC NOSYS NOTCONN NOTDIR NOTEMPTY NOTRECOVERABLE "
    "NOTSOCK NOTSUP NOTTY NXIO OVERFLOW OWNERDEAD PERM PIPE PROTO PROTONOSUPPORT PROTOTYPE "
    "RANGE ROFS SPIPE SRCH STALE TIMEDOUT TXTBSY XDEV NOTCAPABLE"
)
ERRNO = _ERRNO.split()

_RIGHTS = (
    "fd_datasync fd_read fd_seek fd_fdstat_set_flags fd_sync fd_tell fd_write fd_advise "
    "fd_allocate path_create_directory path_create_file path_link_source path_link_target "
    "path_open fd_readdir path_readlink path_rename_source path_rename_target "
    "path_filestat_get path_filestat_set_size path_filestat_set_times fd_filestat_get "
    "fd_filestat_set_size fd_filestat_set_times path_symlink path_remove_directory "
    "path_unlink_file poll_fd_readwrite sock_shutdown sock_accept"
)
RIGHTS = _RIGHTS.split()

_FLAGS = {
    "oflags": ["creat", "directory", "excl", "trunc"],
    "fdflags": ["append", "dsync", "nonblock", "rsync", "sync"],
    "lookup": ["symlink_follow"],
    "fstflags": ["atim", "atim_now", "mtim", "mtim_now"],
    "rights": RIGHTS,
    "riflags": ["recv_peek", "recv_waitall"],
    "sdflags": ["rd", "wr"],
}
_NAMES = {
    "whence": ["set", "cur", "end"],
    "clock": ["realtime", "monotonic", "process_cputime_id", "thread_cputime_id"],
    "filetype": [
        "unknown",
        "block_device",
        "character_device",
        "directory",
        "regular_file",
        "socket_dgram",
        "socket_stream",
        "symbolic_link",
    ],
    "eventtype": ["clock", "fd_read", "fd_write"],
    "advice": ["normal", "sequential", "random", "willneed", "dontneed", "noreuse"],
}
_WIDE = {"path": 2, "iovs": 2}
"""Kinds of more than one parameter: an address and a length."""

_OUT = {"out_size": "<I", "out_fd": "<I", "out_u64": "<Q"}
"""Kinds that say where a result goes, and its form."""

_STRUCTS = {
    "filestat": (
        "<QQB7xQQQQQ",
        ("dev", "ino", "filetype", "nlink", "size", "atim", "mtim", "ctim"),
    ),
    "fdstat": ("<BxH4xQQ", ("filetype", "fdflags", "rights", "inheriting")),
    "prestat": ("<B3xI", ("kind", "length")),
}
"""Kinds that say where a structure of results goes: its form, its fields in order."""

SUBSCRIPTION, EVENT = struct.Struct("<QB7xI4xQQH6x"), struct.Struct("<QHB5xQH6x")
"""(userdata, kind, clock or fd, ns, precision, flags); (userdata, errno, kind, bytes, flags)."""


_CALLS = {
    "args_get": "argv:addr buffer:addr",
    "args_sizes_get": "count:out_size bytes:out_size",
    "environ_get": "environ:addr buffer:addr",
    "environ_sizes_get": "count:out_size bytes:out_size",
    "clock_res_get": "id:clock ns:out_u64",
    "clock_time_get": "id:clock precision:num ns:out_u64",
    "fd_advise": "fd:fd offset:num length:num advice:advice",
    "fd_allocate": "fd:fd offset:num length:num",
    "fd_close": "fd:fd",
    "fd_datasync": "fd:fd",
    "fd_fdstat_get": "fd:fd stat:fdstat",
    "fd_fdstat_set_flags": "fd:fd flags:fdflags",
    "fd_fdstat_set_rights": "fd:fd base:rights inheriting:rights",
    "fd_filestat_get": "fd:fd stat:filestat",
    "fd_filestat_set_size": "fd:fd size:num",
    "fd_filestat_set_times": "fd:fd atim:num mtim:num flags:fstflags",
    "fd_pread": "fd:fd iovs:iovs offset:num read:out_size",
    "fd_prestat_get": "fd:fd stat:prestat",
    "fd_prestat_dir_name": "fd:fd buffer:addr length:num",
    "fd_pwrite": "fd:fd iovs:iovs offset:num written:out_size",
    "fd_read": "fd:fd iovs:iovs read:out_size",
    "fd_readdir": "fd:fd buffer:addr length:num cookie:num used:out_size",
    "fd_renumber": "fd:fd to:fd",
    "fd_seek": "fd:fd offset:signed whence:whence position:out_u64",
    "fd_sync": "fd:fd",
    "fd_tell": "fd:fd position:out_u64",
    "fd_write": "fd:fd iovs:iovs written:out_size",
    "path_create_directory": "fd:fd path:path",
    "path_filestat_get": "fd:fd flags:lookup path:path stat:filestat",
    "path_filestat_set_times": "fd:fd flags:lookup path:path atim:num mtim:num set:fstflags",
    "path_link": "fd:fd flags:lookup path:path new_fd:fd new_path:path",
    "path_open": (
        "fd:fd lookup:lookup path:path oflags:oflags rights:rights inheriting:rights"
        " fdflags:fdflags opened:out_fd"
    ),
    "path_readlink": "fd:fd path:path buffer:addr length:num used:out_size",
    "path_remove_directory": "fd:fd path:path",
    "path_rename": "fd:fd path:path new_fd:fd new_path:path",
    "path_symlink": "target:path fd:fd path:path",
    "path_unlink_file": "fd:fd path:path",
    "poll_oneoff": "subscriptions:polled events:events count:num happened:out_size",
    "proc_exit": "status:num",
    "proc_raise": "signal:num",
    "random_get": "buffer:addr length:num",
    "sched_yield": "",
    "sock_accept": "fd:fd flags:fdflags opened:out_fd",
    "sock_recv": "fd:fd iovs:iovs flags:riflags read:out_size out_flags:addr",
    "sock_send": "fd:fd iovs:iovs flags:num written:out_size",
    "sock_shutdown": "fd:fd how:sdflags",
}
"""Name -> its parameters in order, as name:kind."""


def _parsed(text: str) -> tuple[tuple[str, str, int], ...]:
    found, at = [], 0
    for word in text.split():
        name, _, kind = word.partition(":")
        found.append((name, kind, at))
        at += _WIDE.get(kind, 1)
    return tuple(found)


CALLS = {name: _parsed(text) for name, text in _CALLS.items()}
"""Name -> its parameters, each as (name, kind, place among the WebAssembly ones)."""


class Argument(NamedTuple):
    """One argument: its value for programs, and as text."""

    name: str
    value: Any
    text: str


def errno_name(errno: int) -> str:
    """`ENOENT` for 44; a number that WASI does not know as it is."""
    return f"E{ERRNO[errno]}" if 0 <= errno < len(ERRNO) else str(errno)


def flags(value: int, names: Sequence[str]) -> str:
    """The bits of `value` by name, `0` for none; bits without a name as a number."""
    found = [name for bit, name in enumerate(names) if value >> bit & 1]
    rest = value >> len(names) << len(names)
    if names is RIGHTS and value & (1 << len(names)) - 1 == (1 << len(names)) - 1:
        found = ["all"]
    return "|".join([*found, *[hex(rest)] * bool(rest)]) or "0"


def brief(rights: str) -> str:
    """Rights for a line: C libraries ask for some twenty, of which two say most."""
    names = rights.split("|")
    if len(names) <= SHOWN_RIGHTS:
        return rights
    told = [name for name in ("fd_read", "fd_write") if name in names]
    return f"{len(names)} rights ({', '.join([*told, '...'])})"


def arguments(
    name: str, args: Sequence[int], memory: LinearMemory, paths: Mapping[int, str]
) -> list[Argument]:
    """What goes into a call, before it is made. A bad pointer is shown as its address.

    Args:
        name: Of the call.
        args: Its WebAssembly arguments, of any sign.
        memory: The guest's.
        paths: What fds stand for, as far as it is known.
    """
    found = []
    for label, kind, at in CALLS.get(name, ()):
        if kind in _OUT or kind in _STRUCTS or kind == "events":
            continue
        value = args[at] & MASK
        small = value & 0xFFFFFFFF
        if kind == "signed":
            value = value - (1 << 64) if value >> 63 else value
            found.append(Argument(label, value, str(value)))
        elif kind == "fd":
            known = paths.get(small)
            text = f"{small}<{known}>" if known is not None else str(small)
            found.append(Argument(label, small, text))
        elif kind == "polled":
            found.append(_polled(label, small, args[2] & 0xFFFFFFFF, memory, paths))
        elif kind in _WIDE:
            found.append(_pointed(label, kind, small, args[at + 1] & 0xFFFFFFFF, memory))
        elif kind in _FLAGS:
            text = flags(value if kind == "rights" else small, _FLAGS[kind])
            found.append(Argument(label, text, brief(text) if kind == "rights" else text))
        elif kind in _NAMES:
            names = _NAMES[kind]
            text = names[small] if small < len(names) else str(small)
            found.append(Argument(label, text, text))
        elif kind == "addr":
            found.append(Argument(label, small, hex(small)))
        else:
            found.append(Argument(label, value, str(value)))
    return found


def _pointed(label: str, kind: str, at: int, length: int, memory: LinearMemory) -> Argument:
    try:
        if kind == "path":
            data = memory.read(at, min(length, MAX_PATH))
            path = data.decode("utf-8", "backslashreplace") + "\u2026" * (length > MAX_PATH)
            return Argument(label, path, repr(path))
        count = min(length, MAX_IOVECS)
        words = struct.unpack(f"<{2 * count}I", memory.read(at, 8 * count))
        total = sum(words[1::2])
        more = "+" if length > count else ""
        buffers = f"{length} buffer{'s' * (length != 1)}"
        return Argument(label, total, f"[{buffers}, {total}{more} bytes]")
    except OutOfBoundsError:
        return Argument(label, None, f"<bad address {at:#x}, {length}>")


def _polled(
    label: str, at: int, count: int, memory: LinearMemory, paths: Mapping[int, str]
) -> Argument:
    """What a poll_oneoff waits for: a duration, a moment of a clock, an fd."""
    value: list[dict[str, Any]] = []
    texts = []
    try:
        data = memory.read(at, SUBSCRIPTION.size * min(count, MAX_EVENTS))
    except OutOfBoundsError:
        return Argument(label, None, f"<bad address {at:#x}, {count}>")
    for _, tag, which, ns, _, how in SUBSCRIPTION.iter_unpack(data):
        kind = _named("eventtype", tag)
        if kind == "clock":
            clock, absolute = _named("clock", which), bool(how & 1)
            value.append({"kind": kind, "clock": clock, "ns": ns, "absolute": absolute})
            texts.append(f"clock {clock} {'at' if absolute else 'in'} {ns} ns")
        else:
            value.append({"kind": kind, "fd": which})
            texts.append(f"{kind} {which}" + (f"<{paths[which]}>" if which in paths else ""))
    more = count - len(value)
    return Argument(label, value, f"[{'; '.join(texts)}{f'; {more:,} more' if more else ''}]")


def _named(kind: str, value: int) -> str:
    names = _NAMES[kind]
    return names[value] if value < len(names) else str(value)


def results(name: str, args: Sequence[int], memory: LinearMemory) -> dict[str, Any]:
    """What a call that succeeded has given, by name; a structure by its fields."""
    found: dict[str, Any] = {}
    for label, kind, at in CALLS.get(name, ()):
        place = args[at] & 0xFFFFFFFF
        try:
            if kind in _OUT:
                data = memory.read(place, struct.calcsize(_OUT[kind]))
                found[label] = struct.unpack(_OUT[kind], data)[0]
            elif kind in _STRUCTS:
                found |= _fields(kind, place, memory)
        except OutOfBoundsError:
            continue
    if "happened" in found:
        with contextlib.suppress(OutOfBoundsError):
            found["events"] = _events(args[1] & 0xFFFFFFFF, found["happened"], memory)
    return found


def _fields(kind: str, at: int, memory: LinearMemory) -> dict[str, Any]:
    form, names = _STRUCTS[kind]
    found: dict[str, Any] = {}
    values = struct.unpack(form, memory.read(at, struct.calcsize(form)))
    for name, value in zip(names, values, strict=True):
        if name == "filetype":
            found[name] = _named("filetype", value)
        elif name in ("rights", "inheriting"):
            found[name] = flags(value, RIGHTS)
        elif name == "fdflags":
            found[name] = flags(value, _FLAGS["fdflags"])
        elif name == "kind":
            found[name] = "dir" if value == 0 else str(value)
        else:
            found[name] = value
    return found


def _events(at: int, count: int, memory: LinearMemory) -> list[str]:
    """What has happened, by kind; with the error if it is one."""
    data = memory.read(at, EVENT.size * min(count, MAX_EVENTS))
    return [
        _named("eventtype", kind) + (f" {errno_name(errno)}" if errno else "")
        for _, errno, kind, _, _ in EVENT.iter_unpack(data)
    ]


def opened_fd(name: str, given: Mapping[str, Any]) -> int | None:
    """The fd that a call has made, of those that make one."""
    return given.get("opened") if name in ("path_open", "sock_accept") else None
