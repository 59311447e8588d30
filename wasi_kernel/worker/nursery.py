"""The nursery: a process that has imported all that a worker needs, and forks workers from itself.

`python -m` style entry `main(SOCKET)`. For each message with two descriptors it forks a worker that
serves them, and answers with the worker's process number; how each one ended is told on the same
socket. A fork shares what was imported, so it is there sooner and has little memory of its own.

No engine exists here, ever: a process that has one must not be forked. There is one thread.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import socket

from wasi_kernel import frames
from wasi_kernel.frames import Frame
from wasi_kernel.worker import (  # noqa: F401 - so that forks have it
    __main__,
    tasks,
)


def main(number: int) -> None:
    """Forks workers until the other side of the socket is closed."""
    sock = socket.socket(fileno=number)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    wake, woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    gc.collect()
    gc.freeze()  # collections in the forks leave these pages alone
    poll = select.poll()
    for fd in (sock.fileno(), wake):
        poll.register(fd, select.POLLIN)
    while True:
        ready = dict(poll.poll())
        if wake in ready:
            os.read(wake, 4096)
            _tell_ends(sock)
        if sock.fileno() in ready:
            try:
                data, fds, _, _ = socket.recv_fds(sock, 1, 2)
            except ConnectionResetError:  # closed with something unread
                return
            if not data:
                return
            _bear(sock, fds)


def _bear(sock: socket.socket, fds: list[int]) -> None:
    pid = os.fork()
    if pid == 0:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        sock.close()
        __main__.serve(*fds)
        os._exit(0)
    for fd in fds:
        os.close(fd)
    sock.sendall(frames.encode(Frame("worker_born", {"pid": pid})))


def _tell_ends(sock: socket.socket) -> None:
    """Says how those ended that have."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        with contextlib.suppress(OSError):  # closed just now: nobody wants to know
            sock.sendall(frames.encode(Frame("worker_ended", {"pid": pid, "status": status})))
