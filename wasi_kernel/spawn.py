"""Spawn: starts the worker process, with nothing but `os` and `socket` imported.

The imports of the kernel process take longer than the worker's whole start, so the worker goes
first; every millisecond before that is one of the kernel's start.
"""

from __future__ import annotations

import os
import socket
import sys
import time

KEPT = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT")
"""Host variables that a worker's own loader may need; it gets no other."""


class Worker:
    """A worker process and this side's ends of its two sockets.

    Attributes:
        pid: Its process number.
        requests: Requests out; everything that the guest says, in order, in.
        control: Interrupts out; their answers in.
    """

    def __init__(self, pid: int, requests: socket.socket, control: socket.socket) -> None:
        self.pid, self.requests, self.control = pid, requests, control

    def end(self, wait_s: float = 0.0) -> str:
        """Kills the process if it still runs, and frees all of it; how it ended, in words.

        Args:
            wait_s: How long it may take to end by itself: a process that dies closes its sockets
                a moment before it can be waited for.
        """
        self.requests.close()
        self.control.close()
        try:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            end = time.monotonic() + wait_s
            while pid == 0 and time.monotonic() < end:
                time.sleep(0.001)
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid == 0:
                os.kill(self.pid, 9)
                os.waitpid(self.pid, 0)
                return "ended by the kernel"
        except (ChildProcessError, ProcessLookupError):
            return "gone"
        code = os.waitstatus_to_exitcode(status)
        return f"exit status {code}" if code >= 0 else f"killed by signal {-code}"


def spawn() -> Worker:
    """Starts a worker, which waits for its boot frame.

    It gets two sockets and nothing else: no environment, no standard input, no keys. Nothing of
    the user's environment or site configuration runs in it (-I, -S); what it can import is what
    this process can import, but never from the working directory.
    """
    requests, their_requests = socket.socketpair()
    control, their_control = socket.socketpair()
    null = os.open(os.devnull, os.O_RDWR)
    try:
        their_requests.set_inheritable(True)
        their_control.set_inheritable(True)
        here = os.getcwd()
        path = [os.path.dirname(os.path.dirname(os.path.abspath(__file__)))]
        path += [p for p in sys.path if p and os.path.abspath(p) != here]
        code = (
            f"import sys; sys.path[:] = {path!r}; sys.argv[1:] = "
            f"['{their_requests.fileno()}', '{their_control.fileno()}']; "
            "from wasi_kernel.worker.__main__ import main; main()"
        )
        pid = os.posix_spawn(
            sys.executable,
            [sys.executable, "-I", "-S", "-c", code],
            {name: os.environ[name] for name in KEPT if name in os.environ},
            file_actions=[(os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, 2, 1)],
        )
    finally:
        os.close(null)
        their_requests.close()
        their_control.close()
    return Worker(pid, requests, control)
