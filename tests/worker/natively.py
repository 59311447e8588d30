"""Native code in a confined worker: what `test_confine.py` has tried there, never imported by it.

`main` is the worker's own entry with one thing changed: where the guest would be served, each of
`ATTEMPTS` is made, in the same thread, behind what the product put up for this boot frame.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import mmap
import os
import platform
import resource
import signal
import socket
import struct
import threading
from pathlib import Path
from typing import Any

from wasi_kernel import seccomp
from wasi_kernel.frames import Frame
from wasi_kernel.worker import __main__ as worker
from wasi_kernel.worker import tasks

LIBC: Any = ctypes.CDLL(None, use_errno=True)
NEW_USER, NEW_NET, NEW_MOUNTS = 0x10000000, 0x40000000, 0x00020000
X86 = platform.machine() == "x86_64"

UNTRIED = ("vhangup", "fork", "vfork")
"""Calls that would do something even with nothing but zeros for arguments."""


def call(name: str, *args: Any) -> int:
    """A function of libc's, whose failure is an OSError."""
    found = int(getattr(LIBC, name)(*args))
    if found == -1:
        raise OSError(ctypes.get_errno(), name)
    return found


def syscall(number: int, *args: int) -> int:
    return call("syscall", *map(ctypes.c_long, (number, *args)))


class Attempts:
    """One method for each; `given` are the host paths that the test made."""

    def __init__(self, given: dict[str, str]) -> None:
        self._given = given

    def path(self, name: str) -> Path:
        return Path(self._given[name])

    # -- what must go on ---------------------------------------------------------------------

    def read_granted(self) -> None:
        (self.path("read_only") / "file").read_bytes()

    def write_granted(self) -> None:
        folder = self.path("writable")
        (folder / "one").mkdir()
        (folder / "new").write_text("new")
        (folder / "new").rename(folder / "one" / "moved")
        (folder / "one" / "moved").unlink()
        (folder / "one").rmdir()

    def write_own_tmp(self) -> None:
        (self.path("scratch") / "tmp" / "file").write_text("own")

    def start_thread(self) -> None:
        thread = threading.Thread(target=os.getpid)
        thread.start()
        thread.join()

    def import_late(self) -> None:
        for name in ("traceback", "shutil", "wasi_kernel.timeline"):
            __import__(name)

    def map_memory(self) -> None:
        mmap.mmap(-1, 1 << 20).close()

    def signal_itself(self) -> None:
        os.kill(os.getpid(), 0)

    def dump_own_stack(self) -> None:
        call("raise", int(signal.SIGWINCH))

    def write_own_log(self) -> None:
        folder = self.path("session")
        (folder / "new").write_bytes(b"new")
        (folder / "new").rename(folder / "newer")
        os.truncate(os.open(folder / "newer", os.O_RDWR), 1)
        (folder / "newer").unlink()

    # -- files -------------------------------------------------------------------------------

    def read_passwd(self) -> None:
        Path("/etc/passwd").read_bytes()

    def list_home(self) -> None:
        os.listdir(self.path("home"))

    def list_root(self) -> None:
        os.listdir("/")

    def read_canary(self) -> None:
        (self.path("outside") / "canary").read_bytes()

    def read_canary_from_below(self) -> None:
        (self.path("read_only") / ".." / "outside" / "canary").read_bytes()

    def read_canary_through_symlink(self) -> None:
        link = self.path("writable") / "link"
        link.symlink_to(self.path("outside") / "canary")
        link.read_bytes()

    def read_other_session(self) -> None:
        (self.path("other_session") / "000001.pages").read_bytes()

    def list_cache(self) -> None:
        os.listdir(self.path("cache"))

    def list_modules(self) -> None:
        os.listdir(self.path("cache") / "modules")

    def write_image(self) -> None:
        os.open(self.path("image"), os.O_RDWR)

    def write_product(self) -> None:
        os.open(seccomp.__file__, os.O_RDWR)

    def make_outside(self) -> None:
        (self.path("outside") / "new").write_text("new")

    def make_in_read_only(self) -> None:
        (self.path("read_only") / "new").write_text("new")

    def write_in_read_only(self) -> None:
        os.open(self.path("read_only") / "file", os.O_RDWR)

    def empty_in_read_only(self) -> None:
        os.open(self.path("read_only") / "file", os.O_RDONLY | os.O_TRUNC)

    def remove_in_read_only(self) -> None:
        (self.path("read_only") / "file").unlink()

    def move_out(self) -> None:
        (self.path("writable") / "file").rename(self.path("outside") / "file")

    def link_in(self) -> None:
        os.link(self.path("outside") / "canary", self.path("writable") / "linked")

    def link_from_log(self) -> None:
        (self.path("session") / "link").symlink_to("/etc/passwd")

    def link_into_log(self) -> None:
        os.link(self.path("writable") / "file", self.path("session") / "linked")

    def make_shared_memory(self) -> None:
        os.open("/dev/shm/wasi-kernel-attempt", os.O_RDWR | os.O_CREAT)  # noqa: S108 - refused

    def truncate_canary(self) -> None:
        call("truncate", str(self.path("outside") / "canary").encode(), ctypes.c_long(0))

    def change_mode(self) -> None:
        (self.path("outside") / "canary").chmod(0o777)

    def change_mode_newly(self) -> None:
        path = str(self.path("outside") / "canary").encode()
        syscall(452, -100, ctypes.addressof(ctypes.create_string_buffer(path)), 0o777, 0)

    def change_owner(self) -> None:
        os.chown(self.path("outside") / "canary", os.getuid(), os.getgid())

    def set_attribute(self) -> None:
        os.setxattr(self.path("outside") / "canary", "user.wasi", b"1")

    def make_fifo(self) -> None:
        os.mkfifo(self.path("writable") / "fifo")

    def make_device(self) -> None:
        os.mknod(self.path("writable") / "null", 0o020666, os.makedev(1, 3))

    def read_by_handle(self) -> None:
        syscall(seccomp.CALLS["open_by_handle_at"][0 if X86 else 1] or 0, -100, 0, 0)

    def watch_files(self) -> None:
        call("inotify_init")

    # -- programs and machine code -----------------------------------------------------------

    def execute(self) -> None:
        os.execv("/bin/sh", ["sh", "-c", "exit 77"])  # noqa: S606 - refused

    def fork(self) -> None:
        if os.fork() == 0:
            os._exit(0)

    def fork_and_execute(self) -> None:
        os.posix_spawn("/bin/sh", ["sh", "-c", "exit 77"], {})

    def execute_from_memory(self) -> None:
        fd = os.memfd_create("program")
        os.write(fd, b"#!/bin/sh\n")
        os.execve(fd, ["program"], {})  # noqa: S606 - refused

    def load_library(self) -> None:
        ctypes.CDLL(str(self.path("read_only") / "library.so"))

    def load_own_library(self) -> None:
        target = self.path("writable") / "library.so"
        target.write_bytes((self.path("read_only") / "library.so").read_bytes())
        ctypes.CDLL(str(target))

    def map_code(self) -> None:
        mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)

    def make_memory_code(self) -> None:
        memory = mmap.mmap(-1, 4096)
        at = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        call("mprotect", ctypes.c_void_p(at), ctypes.c_size_t(4096), 5)

    def write_own_code(self) -> None:
        os.open("/proc/self/mem", os.O_RDWR)

    def make_memory_code_by_personality(self) -> None:
        call("personality", ctypes.c_ulong(0x0400000))  # READ_IMPLIES_EXEC

    # -- ways out ----------------------------------------------------------------------------

    def open_tcp(self) -> None:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM).connect(("127.0.0.1", 9))

    def open_udp(self) -> None:
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)

    def open_unix(self) -> None:
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)

    def open_netlink(self) -> None:
        socket.socket(16, socket.SOCK_RAW, 0)

    def open_pair(self) -> None:
        socket.socketpair()

    def use_io_uring(self) -> None:
        syscall(425, 1, 0)

    def share_memory(self) -> None:
        call("shmget", 0, ctypes.c_size_t(4096), 0o1600)

    def type_into_terminal(self) -> None:
        fcntl.ioctl(2, 0x5412, b"x")  # TIOCSTI

    # -- other processes ---------------------------------------------------------------------

    def trace_parent(self) -> None:
        call("ptrace", 16, os.getppid(), None, None)  # PTRACE_ATTACH

    def be_traced(self) -> None:
        call("ptrace", 0, 0, None, None)  # PTRACE_TRACEME

    def read_parents_memory(self) -> None:
        call("process_vm_readv", os.getppid(), None, ctypes.c_ulong(0), None, ctypes.c_ulong(0), 0)

    def open_parents_memory(self) -> None:
        os.open(f"/proc/{os.getppid()}/mem", os.O_RDONLY)

    def read_parents_environment(self) -> None:
        Path(f"/proc/{os.getppid()}/environ").read_bytes()

    def list_parents_files(self) -> None:
        os.listdir(f"/proc/{os.getppid()}/fd")

    def read_through_parent(self) -> None:
        Path(f"/proc/{os.getppid()}/root/etc/passwd").read_bytes()

    def signal_parent(self) -> None:
        os.kill(os.getppid(), 0)

    def signal_group(self) -> None:
        os.kill(0, 0)

    def signal_all(self) -> None:
        os.kill(-1, 0)

    def signal_by_descriptor(self) -> None:
        os.pidfd_open(os.getppid())

    def signal_by_owner(self) -> None:
        fcntl.fcntl(0, fcntl.F_SETOWN, os.getppid())

    def limit_parent(self) -> None:
        resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE)

    def slow_parent(self) -> None:
        os.setpriority(os.PRIO_PROCESS, os.getppid(), 19)

    # -- namespaces and the machine ----------------------------------------------------------

    def unshare_user(self) -> None:
        call("unshare", NEW_USER)

    def unshare_network(self) -> None:
        call("unshare", NEW_NET)

    def clone_user(self) -> None:
        number = seccomp.CLONE[0 if X86 else 1]
        if syscall(number, NEW_USER | int(signal.SIGCHLD), 0, 0, 0, 0) == 0:
            os._exit(0)

    def clone_newly(self) -> None:
        syscall(435, 0, 0)

    def enter_namespace(self) -> None:
        call("setns", 0, 0)

    def mount(self) -> None:
        call("mount", b"none", b"/mnt", b"tmpfs", ctypes.c_ulong(0), None)

    def change_root(self) -> None:
        os.chroot("/")

    def become_somebody(self) -> None:
        os.setuid(os.getuid() + 1)

    def raise_limit(self) -> None:
        call("setrlimit", int(resource.RLIMIT_CORE), struct.pack("=2Q", 1 << 30, 1 << 30))

    def call_by_x32(self) -> None:
        syscall(0x40000000 + 39)

    def call_the_future(self) -> None:
        syscall(470, 0, 0)


def outcome(attempt: Any) -> int | str | None:
    """None if it succeeded, else its errno; a failure without one in words."""
    try:
        attempt()
    except OSError as e:
        return e.errno if e.errno is not None else "OSError"
    except BaseException as e:  # noqa: BLE001 - the test shows whatever it was
        return repr(e)
    return None


def numbers() -> dict[str, int | None]:
    """What each call that the filter denies comes to, with zeros for arguments."""
    found: dict[str, int | None] = {}
    for name, both in (seccomp.CALLS | seccomp.ABSENT).items():
        number = both[0 if X86 else 1]
        if number is not None and name not in UNTRIED:
            found[name] = outcome(lambda number=number: syscall(number, 0, 0, 0, 0, 0, 0))
    return found


class Native:
    """Stands where `tasks.Server` does."""

    def __init__(self, link: Any, _door: Any, _parts: Any, boot: Frame, confined: Any) -> None:
        self._link, self._given, self._confined = link, boot.content["given"], confined

    def serve(self) -> None:
        attempts, walled = Attempts(self._given), self._confined.seccomp
        names = [n for n in vars(Attempts) if not n.startswith("_") and n != "path"]
        only = names if walled else self._given["only"]
        said: dict[str, Any] = {
            "outcomes": {name: outcome(getattr(attempts, name)) for name in only},
            "numbers": numbers() if walled else {},
            "confined": self._confined.to_dict(),
        }
        content = {"name": "stdout", "text": json.dumps(said)}
        self._link.send_frame(Frame("stream", content, 1))


def main(requests: int, control: int) -> None:
    """A worker, on its two sockets."""
    tasks.Server = Native  # type: ignore[assignment,misc]
    worker.main(requests, control)
