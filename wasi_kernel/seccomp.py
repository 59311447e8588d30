"""Seccomp: which system calls a process may make, as a filter that Linux runs before each.

`program` is pure: a classic BPF program for one architecture and process. What is denied are calls
that start something, reach other processes, make new ways out or change the machine; a number that
was not assigned when this was written does not exist (ENOSYS), so that libc does without. Files are
Landlock's business, except what it does not see (modes, owners, extended attributes).

Numbers: arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h of Linux.
Standard library only.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct
import sys
from typing import Any, NamedTuple

X86_64, AARCH64 = 0xC000003E, 0xC00000B7  # AUDIT_ARCH_*: ELF machine, 64 bits, little-endian
MACHINES = {"x86_64": X86_64, "aarch64": AARCH64}
X32 = 0x40000000  # bit of the x32 interface's numbers, which x86-64 kernels serve as well
NEWEST = 450
"""The highest number that is let through: set_mempolicy_home_node, of Linux 5.17."""

CALLS: dict[str, tuple[int | None, int | None]] = {
    # programs and processes
    "execve": (59, 221), "execveat": (322, 281), "fork": (57, None), "vfork": (58, None),
    "uselib": (134, None), "acct": (163, 89),
    # other processes
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "process_madvise": (440, 440), "process_mrelease": (448, 448), "kcmp": (312, 272),
    "pidfd_open": (434, 434), "pidfd_getfd": (438, 438), "pidfd_send_signal": (424, 424),
    "tkill": (200, 130), "migrate_pages": (256, 238), "move_pages": (279, 239),
    "setpriority": (141, 140), "sched_setscheduler": (144, 119), "sched_setparam": (142, 118),
    "sched_setattr": (314, 274), "sched_setaffinity": (203, 122), "ioprio_set": (251, 30),
    "setpgid": (109, 154), "setsid": (112, 157), "perf_event_open": (298, 241),
    # new ways out: sockets (those that are there go on), System V's and POSIX's queues and memory
    "socket": (41, 198), "socketpair": (53, 199), "connect": (42, 203), "bind": (49, 200),
    "listen": (50, 201), "accept": (43, 202), "accept4": (288, 242), "sendmsg": (46, 211),
    "recvmsg": (47, 212), "sendmmsg": (307, 269), "recvmmsg": (299, 243),
    "shmget": (29, 194), "shmat": (30, 196), "shmctl": (31, 195), "shmdt": (67, 197),
    "semget": (64, 190), "semop": (65, 193), "semctl": (66, 191), "semtimedop": (220, 192),
    "msgget": (68, 186), "msgsnd": (69, 189), "msgrcv": (70, 188), "msgctl": (71, 187),
    "mq_open": (240, 180), "mq_unlink": (241, 181), "mq_timedsend": (242, 182),
    "mq_timedreceive": (243, 183), "mq_notify": (244, 184), "mq_getsetattr": (245, 185),
    # namespaces and mounts
    "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39),
    "pivot_root": (155, 41), "chroot": (161, 51), "move_mount": (429, 429),
    "open_tree": (428, 428), "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432),
    "fspick": (433, 433), "mount_setattr": (442, 442), "swapon": (167, 224),
    "swapoff": (168, 225), "quotactl": (179, 60), "quotactl_fd": (443, 443),
    # the kernel and the machine
    "bpf": (321, 280), "kexec_load": (246, 104), "kexec_file_load": (320, 294),
    "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106),
    "create_module": (174, None), "query_module": (178, None), "get_kernel_syms": (177, None),
    "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    "userfaultfd": (323, 282), "personality": (135, 92), "reboot": (169, 142),
    "sethostname": (170, 161), "setdomainname": (171, 162), "iopl": (172, None),
    "ioperm": (173, None), "syslog": (103, 116), "settimeofday": (164, 170),
    "clock_settime": (227, 112), "clock_adjtime": (305, 266), "adjtimex": (159, 171),
    "vhangup": (153, 58), "modify_ldt": (154, None), "_sysctl": (156, None),
    "sysfs": (139, None), "lookup_dcookie": (212, 18), "nfsservctl": (180, 42),
    "mbind": (237, 235), "set_mempolicy": (238, 237), "remap_file_pages": (216, 234),
    "memfd_secret": (447, 447),
    # files, past what Landlock sees
    "open_by_handle_at": (304, 265), "name_to_handle_at": (303, 264),
    "fanotify_init": (300, 262), "fanotify_mark": (301, 263), "inotify_init": (253, None),
    "inotify_init1": (294, 26), "inotify_add_watch": (254, 27), "truncate": (76, 45),
    "mknod": (133, None), "mknodat": (259, 33), "chmod": (90, None), "fchmod": (91, 52),
    "fchmodat": (268, 53), "chown": (92, None), "lchown": (94, None), "fchown": (93, 55),
    "fchownat": (260, 54), "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7),
    "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16),
    "utime": (132, None), "utimes": (235, None), "futimesat": (261, None),
    # who this is
    "setuid": (105, 146), "setgid": (106, 144), "setreuid": (113, 145), "setregid": (114, 143),
    "setresuid": (117, 147), "setresgid": (119, 149), "setfsuid": (122, 151),
    "setfsgid": (123, 152), "setgroups": (116, 159), "capset": (126, 91),
    "setrlimit": (160, 164),
}  # fmt: skip
"""Denied with EPERM: {name: number on (x86-64, aarch64)}, None where the call is unknown."""

ABSENT: dict[str, tuple[int | None, int | None]] = {
    "clone3": (435, 435), "io_uring_setup": (425, 425), "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427), "io_setup": (206, 0), "io_submit": (209, 2),
}  # fmt: skip
"""Denied with ENOSYS, as if the kernel were older: clone3's flags lie where no filter can look."""

TO_ITSELF: dict[str, tuple[int | None, int | None]] = {
    "kill": (62, 129), "tgkill": (234, 131), "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240), "prlimit64": (302, 261),
}  # fmt: skip
"""Allowed if their first argument is this process. prlimit64 takes 0 for that, too."""

CLONE, FCNTL, IOCTL = (56, 220), (72, 25), (16, 29)
CODE = ((9, 222), (10, 226), (329, 288))
"""mmap, mprotect, pkey_mprotect: their third argument says whether the memory is to be executed."""

CLONE_THREAD = 0x00010000
CLONE_NEW = 0x7E020080  # CLONE_NEW{TIME,NS,CGROUP,UTS,IPC,USER,PID,NET}
PROT_EXEC = 4
FCNTL_DENIED = (8, 10, 15, 1024, 1026)
"""F_SETOWN, F_SETSIG, F_SETOWN_EX: signals to others; F_SETLEASE, F_NOTIFY: of others' files."""

IOCTLS = (0x5401, 0x802C542A, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
"""TCGETS, TCGETS2, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX: what isatty and descriptors
need. All others fail as they do on a file (ENOTTY): among them the one that types into a terminal
(TIOCSTI), which standard error may be."""

KILL, ERRNO, ALLOW = 0x80000000, 0x00050000, 0x7FFF0000  # SECCOMP_RET_*; the first: the process
_LOAD, _EQUAL, _GREATER, _ANY, _AND, _RETURN = 0x20, 0x15, 0x25, 0x45, 0x54, 0x06
_NUMBER, _MACHINE, _FIRST, _SECOND, _THIRD = 0, 4, 16, 24, 32  # struct seccomp_data; low halves

SET_FILTER, ACTION_AVAILABLE = 1, 2  # operations of seccomp(2)
TO_ALL_THREADS = 1  # SECCOMP_FILTER_FLAG_TSYNC
SECCOMP = (317, 277)


class Instruction(NamedTuple):
    """struct sock_filter: operation, how many to skip if true, and if false, operand."""

    code: int
    true: int
    false: int
    operand: int


def machine() -> int | None:
    """The architecture that filters are made for here; None if there are none."""
    return MACHINES.get(platform.machine()) if sys.platform == "linux" else None


def available() -> bool:
    """Does this kernel take filters, on an architecture that is known here?"""
    on = machine()
    if on is None:
        return False
    action = ctypes.c_uint32(ERRNO)
    asked = _libc().syscall(_column(SECCOMP, on), ACTION_AVAILABLE, 0, ctypes.byref(action))
    return bool(asked == 0)


def program(on: int, pid: int) -> list[Instruction]:
    """The filter for a process on an architecture.

    Args:
        on: X86_64 or AARCH64.
        pid: The process's own number.
    """
    denied = [*_answer(CALLS, on, errno.EPERM), *_answer(ABSENT, on, errno.ENOSYS)]
    found = [
        _load(_MACHINE), Instruction(_EQUAL, 1, 0, on), _return(KILL),
        _load(_NUMBER),
        # x32's numbers are large ones, too; and 4294967295 is none
        Instruction(_GREATER, 0, 1, NEWEST), _return(ERRNO | errno.ENOSYS), *denied,
    ]  # fmt: skip
    for name, numbers in TO_ITSELF.items():
        own = (0, pid) if name == "prlimit64" else (pid,)
        found += _case(numbers, on, _among(_FIRST, own, errno.EPERM))
    found += _case(CLONE, on, _thread())
    found += _case(FCNTL, on, _not_among(_SECOND, FCNTL_DENIED, errno.EPERM))
    found += _case(IOCTL, on, _among(_SECOND, IOCTLS, errno.ENOTTY))
    for numbers in CODE:
        executable = Instruction(_ANY, 0, 1, PROT_EXEC)
        refused = _return(ERRNO | errno.EPERM)
        found += _case(numbers, on, [_load(_THIRD), executable, refused, _return(ALLOW)])
    return [*found, _return(ALLOW)]


def install(given: list[Instruction], *, all_threads: bool = True) -> None:
    """Filters this thread and what it starts from here on, for good; by default all threads.

    Raises:
        OSError: It cannot be done.
    """
    code = b"".join(struct.pack("=HBBI", *each) for each in given)
    data = ctypes.create_string_buffer(code, len(code))
    # struct sock_fprog: u16 length, padding, pointer
    prog = struct.pack("@HP", len(given), ctypes.addressof(data))
    on = machine()
    if on is None:
        raise OSError(errno.ENOSYS, "seccomp")
    flags = TO_ALL_THREADS if all_threads else 0
    failed = _libc().syscall(_column(SECCOMP, on), SET_FILTER, flags, prog)
    if failed:  # a positive one is a thread that does not follow
        raise OSError(ctypes.get_errno() if failed < 0 else errno.ESRCH, "seccomp")


def _column(numbers: tuple[Any, Any], on: int) -> Any:
    return numbers[0 if on == X86_64 else 1]


def _load(at: int) -> Instruction:
    return Instruction(_LOAD, 0, 0, at)


def _return(what: int) -> Instruction:
    return Instruction(_RETURN, 0, 0, what)


def _answer(
    calls: dict[str, tuple[int | None, int | None]], on: int, code: int
) -> list[Instruction]:
    """Fails each of these calls with that errno."""
    numbers = sorted(n for both in calls.values() if (n := _column(both, on)) is not None)
    return [each for n in numbers for each in (Instruction(_EQUAL, 0, 1, n), _return(ERRNO | code))]


def _case(
    numbers: tuple[int | None, int | None], on: int, body: list[Instruction]
) -> list[Instruction]:
    """What decides on one call; `body` ends in a return on every way."""
    return [Instruction(_EQUAL, 0, len(body), _column(numbers, on)), *body]


def _among(at: int, values: tuple[int, ...], code: int) -> list[Instruction]:
    """Allows the call if an argument is one of the values.

    Only its low half is looked at: the kernel takes these arguments as 32-bit numbers.
    """
    last = len(values)
    tests = [Instruction(_EQUAL, last - k, 0, v) for k, v in enumerate(values)]
    return [_load(at), *tests, _return(ERRNO | code), _return(ALLOW)]


def _not_among(at: int, values: tuple[int, ...], code: int) -> list[Instruction]:
    last = len(values)
    tests = [Instruction(_EQUAL, last - k, 0, v) for k, v in enumerate(values)]
    return [_load(at), *tests, _return(ALLOW), _return(ERRNO | code)]


def _thread() -> list[Instruction]:
    """Allows a thread of this process: no new process, no namespace."""
    return [
        _load(_FIRST), Instruction(_AND, 0, 0, CLONE_THREAD | CLONE_NEW),
        Instruction(_EQUAL, 1, 0, CLONE_THREAD), _return(ERRNO | errno.EPERM), _return(ALLOW),
    ]  # fmt: skip


def _libc() -> Any:
    return ctypes.CDLL(None, use_errno=True)
