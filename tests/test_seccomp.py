"""Shows what the filter of system calls decides, for both architectures, and that it holds.

The filter is interpreted here, by a few lines that know classic BPF (the kernel's
Documentation/networking/filter.rst), so the one for another machine is tried as well.
"""

from __future__ import annotations

import errno
import platform
import subprocess
import sys
from typing import Any

import pytest

from wasi_kernel import seccomp
from wasi_kernel.seccomp import AARCH64, ALLOW, ERRNO, KILL, X86_64

PID = 4242
EPERM, ENOSYS, ENOTTY = (ERRNO | e for e in (errno.EPERM, errno.ENOSYS, errno.ENOTTY))
ON = {"x86-64": X86_64, "aarch64": AARCH64}
COLUMN = {X86_64: 0, AARCH64: 1}

THREAD = 0x3D0F00  # glibc's: VM, FS, FILES, SIGHAND, THREAD, SYSVSEM, SETTLS, *_SETTID, CLEARTID

NEEDED = {
    "read": (0, 63), "write": (1, 64), "openat": (257, 56), "close": (3, 57), "munmap": (11, 215),
    "madvise": (28, 233), "futex": (202, 98), "rt_sigaction": (13, 134), "sigaltstack": (131, 132),
    "rt_sigprocmask": (14, 135), "sendto": (44, 206), "recvfrom": (45, 207), "ppoll": (271, 73),
    "pwritev": (296, 70), "pread64": (17, 67), "ftruncate": (77, 46), "renameat2": (316, 276),
    "utimensat": (280, 88), "openat2": (437, 437), "getrandom": (318, 278), "exit": (60, 93),
    "exit_group": (231, 94), "memfd_create": (319, 279), "set_robust_list": (273, 99),
    "clock_nanosleep": (230, 115), "rseq": (334, 293), "mremap": (25, 216), "getdents64": (217, 61),
}  # fmt: skip


def decide(on: int, number: int, *args: int, machine: int | None = None) -> int:
    """What the filter for `on` returns for a call."""
    full = [number & 0xFFFFFFFF, on if machine is None else machine, 0, 0]
    for arg in (*args, *[0] * (6 - len(args))):
        full += [arg & 0xFFFFFFFF, arg >> 32 & 0xFFFFFFFF]
    given, at, accumulator = seccomp.program(on, PID), 0, 0
    while True:
        code, true, false, operand = given[at]
        at += 1
        if code == 0x20:
            accumulator = full[operand // 4]
        elif code == 0x54:
            accumulator &= operand
        elif code == 0x06:
            return operand
        else:
            tests: dict[int, bool] = {
                0x15: accumulator == operand,
                0x25: accumulator > operand,
                0x45: bool(accumulator & operand),
            }
            at += true if tests[code] else false


@pytest.fixture(params=ON, name="on")
def _on(request: pytest.FixtureRequest) -> int:
    return ON[request.param]


def test_another_architectures_calls_end_the_process(on: int):
    assert decide(on, 1, machine=0x40000003) == KILL  # int 0x80


def test_what_is_needed_is_allowed(on: int):
    for name, numbers in NEEDED.items():
        assert decide(on, numbers[COLUMN[on]]) == ALLOW, name


def test_what_is_listed_is_denied(on: int):
    for calls, expected in ((seccomp.CALLS, EPERM), (seccomp.ABSENT, ENOSYS)):
        for name, numbers in calls.items():
            number = numbers[COLUMN[on]]
            if number is not None:
                assert decide(on, number) == expected, name


def test_no_number_is_listed_twice(on: int):
    one = (seccomp.CLONE, seccomp.FCNTL, seccomp.IOCTL, *seccomp.CODE)
    tables = (seccomp.CALLS, seccomp.ABSENT, seccomp.TO_ITSELF)
    listed = [*one, *(n for table in tables for n in table.values()), *NEEDED.values()]
    numbers = [n[COLUMN[on]] for n in listed if n[COLUMN[on]] is not None]
    assert len(numbers) == len(set(numbers))


@pytest.mark.parametrize("number", [451, 470, 1 << 20, 0x40000001, 0xFFFFFFFF])
def test_numbers_that_nobody_knew_do_not_exist(on: int, number: int):
    assert decide(on, number) == ENOSYS


def test_threads_are_started_and_nothing_else(on: int):
    clone = seccomp.CLONE[COLUMN[on]]
    assert decide(on, clone, THREAD) == ALLOW
    assert decide(on, clone, 17) == EPERM  # fork: SIGCHLD
    assert decide(on, clone, 0x4111) == EPERM  # posix_spawn: VM, VFORK
    for namespace in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):
        assert decide(on, clone, THREAD | namespace) == EPERM
        assert decide(on, clone, namespace | 17) == EPERM
    assert decide(on, clone, 17 | THREAD << 32) == EPERM  # what the kernel does not look at


def test_signals_go_to_the_process_itself(on: int):
    for name in ("kill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo"):
        number = seccomp.TO_ITSELF[name][COLUMN[on]]
        assert number is not None
        assert decide(on, number, PID, 6) == ALLOW
        for other in (0, 1, PID + 1, -1, -PID):
            assert decide(on, number, other, 6) == EPERM, (name, other)


def test_limits_are_asked_of_the_process_itself(on: int):
    number = seccomp.TO_ITSELF["prlimit64"][COLUMN[on]]
    assert number is not None
    assert [decide(on, number, pid) for pid in (0, PID, 1)] == [ALLOW, ALLOW, EPERM]


def test_no_memory_becomes_code(on: int):
    for numbers in seccomp.CODE:
        assert decide(on, numbers[COLUMN[on]], 0, 4096, 3) == ALLOW
        for prot in (4, 5, 7):
            assert decide(on, numbers[COLUMN[on]], 0, 4096, prot) == EPERM


def test_only_what_isatty_and_descriptors_need_of_ioctl(on: int):
    ioctl = seccomp.IOCTL[COLUMN[on]]
    assert {decide(on, ioctl, 2, asked) for asked in seccomp.IOCTLS} == {ALLOW}
    for asked in (0x5412, 0x541C, 0x40049409, 0x8901, 0):  # TIOCSTI, TIOCLINUX, FICLONE, FIOSETOWN
        assert decide(on, ioctl, 2, asked) == ENOTTY


def test_no_descriptor_is_made_to_signal_others(on: int):
    fcntl = seccomp.FCNTL[COLUMN[on]]
    assert {decide(on, fcntl, 2, asked) for asked in range(8)} == {ALLOW}
    assert decide(on, fcntl, 2, 1030) == ALLOW  # F_DUPFD_CLOEXEC
    assert {decide(on, fcntl, 2, asked) for asked in seccomp.FCNTL_DENIED} == {EPERM}


HOLDS = """
import errno, os, socket, threading
from wasi_kernel import landlock, seccomp
found, go = [], threading.Event()
def later():
    go.wait()
    try:
        socket.socket()
    except OSError as e:
        found.append(errno.errorcode[e.errno])
thread = threading.Thread(target=later)
thread.start()
landlock.no_new_privileges()
seccomp.install(seccomp.program(seccomp.machine(), os.getpid()))
go.set()
thread.join()
print(found, os.read(os.open("/dev/zero", os.O_RDONLY), 1))
"""


@pytest.mark.skipif(not seccomp.available(), reason="this machine's kernel has no filters")
def test_it_holds_for_threads_that_run_already():
    done = subprocess.run(
        [sys.executable, "-P", "-c", HOLDS], capture_output=True, text=True, check=True
    )
    assert done.stdout == "['EPERM'] b'\\x00'\n"


def test_where_the_machine_is_unknown_there_are_no_filters(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    assert seccomp.machine() is None
    assert not seccomp.available()
    with pytest.raises(OSError, match="seccomp"):
        seccomp.install([])


def test_a_kernel_without_them_is_recognized(lacking: Any):
    found = []
    lacking(seccomp.SECCOMP, lambda: found.append(seccomp.available()))
    assert found == [False]
