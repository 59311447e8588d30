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

    def cpu_s(self) -> float:
        """Seconds of processor time that it has used; 0 if it is gone, or cannot be asked.

        By Linux's clock of another process (MAKE_PROCESS_CPUCLOCK in posix-timers.h).
        """
        try:
            return time.clock_gettime((~self.pid << 3) | 2)
        except OSError:
            return 0.0

    def end(self, wait_s: float = 0.0) -> str:
        """Kills the process if it still runs, and frees all of it; how it ended, in words.

        Args:
            wait_s: How long it may take to end by itself: a process that dies closes its sockets
                a moment before it can be waited for.
        """
        self.requests.close()
        self.control.close()
        try:
            status = self._ended()
            end = time.monotonic() + wait_s
            while status is None and time.monotonic() < end:
                time.sleep(0.001)
                status = self._ended()
            if status is None:
                os.kill(self.pid, 9)
                self._reap()
                return "ended by the kernel"
        except (ChildProcessError, ProcessLookupError):
            return "gone"
        code = os.waitstatus_to_exitcode(status)
        return f"exit status {code}" if code >= 0 else f"killed by signal {-code}"

    def _ended(self) -> int | None:
        """Its wait status, None while it runs."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        return status if pid else None

    def _reap(self) -> None:
        os.waitpid(self.pid, 0)


class Nursery:
    """A process that forks workers from itself (worker/nursery.py), sooner than they are started.

    The first worker of a nursery waits for the nursery's own start. All methods on one thread at
    a time; a lock sees to it.
    """

    def __init__(self) -> None:
        import threading

        from wasi_kernel import frames

        self._lock, self._decoder = threading.Lock(), frames.Decoder()
        self._born: list[int] = []
        self._socket, theirs = socket.socketpair()
        self._ends: dict[int, int] = {}
        with theirs:
            theirs.set_inheritable(True)
            self._pid = _python(
                f"from wasi_kernel.worker.nursery import main; main({theirs.fileno()})"
            )

    def spawn(self) -> Worker:
        """A worker, which waits for its boot frame.

        Raises:
            OSError: The nursery is gone.
        """
        requests, their_requests = socket.socketpair()
        control, their_control = socket.socketpair()
        try:
            with self._lock, their_requests, their_control:
                fds = [their_requests.fileno(), their_control.fileno()]
                socket.send_fds(self._socket, [b"!"], fds)
                while not self._born:
                    self._hear()
                return _Born(self, self._born.pop(), requests, control)
        except BaseException:  # raised again: nothing stays open
            requests.close()
            control.close()
            raise

    def ended(self, pid: int) -> int | None:
        """The wait status of one of its workers, None while it runs."""
        with self._lock:
            if self._socket.fileno() < 0:
                raise ConnectionError("the nursery is closed")
            while pid not in self._ends and _readable(self._socket):
                self._hear()
            return self._ends.get(pid)

    def _hear(self) -> None:
        data = self._socket.recv(4096)
        if not data:
            raise ConnectionError("the nursery is gone")
        for frame in self._decoder.feed(data):
            if frame.type == "worker_born":
                self._born.append(frame.content["pid"])
            else:
                self._ends[frame.content["pid"]] = frame.content["status"]

    def close(self) -> None:
        """Ends the nursery; its workers live on."""
        with self._lock:
            self._socket.close()
        try:
            os.waitpid(self._pid, 0)
        except ChildProcessError:
            return


class _Born(Worker):
    """A worker whose parent is a nursery."""

    def __init__(
        self, nursery: Nursery, pid: int, requests: socket.socket, control: socket.socket
    ) -> None:
        super().__init__(pid, requests, control)
        self._nursery = nursery

    def _ended(self) -> int | None:
        try:
            return self._nursery.ended(self.pid)
        except OSError:  # a nursery that is closed: whoever adopts the worker waits for it
            os.kill(self.pid, 0)
            return None

    def _reap(self) -> None:
        """Its parent does."""


def _readable(sock: socket.socket) -> bool:
    import select

    return bool(select.select([sock], [], [], 0)[0])


def spawn() -> Worker:
    """Starts a worker, which waits for its boot frame.

    It gets two sockets and nothing else: no environment, no standard input, no keys. Nothing of
    the user's environment or site configuration runs in it (-I, -S); what it can import is what
    this process can import, but never from the working directory.
    """
    requests, their_requests = socket.socketpair()
    control, their_control = socket.socketpair()
    with their_requests, their_control:
        their_requests.set_inheritable(True)
        their_control.set_inheritable(True)
        pid = _python(
            "from wasi_kernel import lean; lean.stand(); "
            "from wasi_kernel.worker.__main__ import main; "
            f"main({their_requests.fileno()}, {their_control.fileno()})"
        )
    return Worker(pid, requests, control)


def _python(code: str) -> int:
    """Starts Python on `code`, with what this process can import and nothing else of it."""
    here = os.getcwd()
    path = [os.path.dirname(os.path.dirname(os.path.abspath(__file__)))]
    path += [p for p in sys.path if p and os.path.abspath(p) != here]
    null = os.open(os.devnull, os.O_RDWR)
    try:
        return os.posix_spawn(
            sys.executable,
            [sys.executable, "-I", "-S", "-c", f"import sys; sys.path[:] = {path!r}; {code}"],
            {name: os.environ[name] for name in KEPT if name in os.environ},
            file_actions=[(os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, 2, 1)],
        )
    finally:
        os.close(null)
