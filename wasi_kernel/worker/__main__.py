"""Entry of the worker process: `main`, with the numbers of two inherited socket descriptors.

Requests and everything the guest says go over the first, in order; interrupts over the second. The
guest has a thread of its own, with a stack larger than the wasm stack; the main thread answers on
the second socket and empties the tray. Before there are two threads, what is needed is loaded and
the process is confined (tasks.py, confine.py).
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import os
import signal
import socket
import sys
import threading
import time
from typing import TYPE_CHECKING

from wasi_kernel import frames, lean
from wasi_kernel.frames import Frame
from wasi_kernel.worker import THREAD_STACK_EXTRA
from wasi_kernel.worker.link import Link, LinkClosedError, readable

if TYPE_CHECKING:
    from collections.abc import Callable

    from wasi_kernel.worker.server import Server
    from wasi_kernel.worker.tasks import ControlPort


class Control:
    """The main thread: serves CONTROL until the guest's thread ends.

    Attributes:
        server: What the guest's thread runs, as soon as there is one.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._decoder = frames.Decoder()
        self._wake_read, self._wake_write = os.pipe()
        self._due_s: float | None = None
        self._ended = False
        self.server: Server | None = None

    def arm(self, due_s: float) -> None:
        """Empty the tray at that monotonic time. From the guest's thread."""
        self._due_s = due_s
        os.write(self._wake_write, b"!")

    def end(self) -> None:
        """The guest's thread is ending."""
        self._ended = True
        os.write(self._wake_write, b"!")

    def run(self) -> None:
        """Serves until the end."""
        while not self._ended:
            due = self._due_s
            timeout = None if due is None else max(0.0, due - time.monotonic())
            ready = readable([self._socket.fileno(), self._wake_read], timeout)
            if self._wake_read in ready:
                os.read(self._wake_read, 4096)
            if due is not None and time.monotonic() >= due:
                self._due_s = None
                if self.server is not None:
                    self.server.drain()
            if self._socket.fileno() in ready:
                data = self._socket.recv(1 << 16)
                if not data:  # the kernel process is gone
                    os._exit(0)
                for frame in self._decoder.feed(data):
                    self._serve(frame)

    def _serve(self, frame: Frame) -> None:
        if frame.type == "interrupt_request" and self.server is not None:
            request = frame.request
            threading.Thread(target=self._interrupt, args=(request,), daemon=True).start()

    def _interrupt(self, request: int) -> None:
        assert self.server is not None  # noqa: S101 - _serve looked
        seen = self.server.running.interrupt(request)
        reply = frames.encode(Frame("interrupt_reply", {"seen": seen}, request))
        with contextlib.suppress(OSError):
            self._socket.sendall(reply)


def main(requests: int, control: int) -> None:
    """Runs a worker on two inherited sockets; ends the process."""
    gc.disable()  # until the guest is there: imports make much and free little
    from wasi_kernel.worker import tasks  # noqa: F401 - while the kernel process is still busy

    lean.leave()
    serve(requests, control)


def serve(requests: int, control: int) -> None:
    """Runs a worker in this process, whose imports are done; ends it."""
    from wasi_kernel.worker import confine, tasks

    confine.keep_only((requests, control))
    faulthandler.enable()  # before the engine exists: it replaces signal handlers that wasm needs
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # interrupts are frames, never signals
    gc.disable()
    link = Link(socket.socket(fileno=requests))
    controlled = Control(socket.socket(fileno=control))
    try:
        boot = link.receive()
    except LinkClosedError:
        return
    assert boot is not None  # noqa: S101 - not interruptible
    try:
        task = tasks.begin(link, boot)
    except LinkClosedError:
        return
    if task is None:
        return
    threading.stack_size(int(boot.content["policy"]["limits"]["stack_bytes"]) + THREAD_STACK_EXTRA)
    thread = threading.Thread(target=_guest_thread, args=(controlled, task), daemon=True)
    thread.start()
    threading.stack_size(0)
    controlled.run()
    thread.join(timeout=5)
    sys.stderr.flush()
    os._exit(0)  # no teardown order between wasmtime's threads and Python's to get wrong


def _guest_thread(control: Control, task: Callable[[ControlPort], None]) -> None:
    try:
        with contextlib.suppress(LinkClosedError):
            task(control)
    finally:
        control.end()
