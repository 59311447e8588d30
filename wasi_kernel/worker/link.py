"""The link: this worker's socket to the kernel process, as frames.

The thread that owns the guest reads it, between turns and while the guest waits for input; any
thread may send. A wait ends early when `wake` is called, which is how an interrupt reaches a
guest that waits.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import threading
import time
from typing import TYPE_CHECKING

from wasi_kernel import frames

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable


class LinkClosedError(Exception):
    """The kernel process is gone or wants this worker gone: end."""


def readable(fds: list[int], timeout_s: float | None) -> list[int]:
    """Which of the descriptors can be read without waiting; waits that long for the first.

    poll, not select: this process may have inherited numbers of 1024 and more.
    """
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    timeout_ms = None if timeout_s is None else math.ceil(1000 * timeout_s)
    return [fd for fd, _ in poll.poll(timeout_ms)]


class Link:
    """Frames over one socket, with waits that another thread can end.

    Attributes:
        unseen: Says whether the guest has still to see an interrupt. Once it has, what it waits
            for next is not interrupted.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._send_lock = threading.Lock()
        self._decoder = frames.Decoder()
        self._received: list[frames.Frame] = []
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self._interrupted = False
        self.unseen: Callable[[], bool] = lambda: True

    @property
    def interrupted(self) -> bool:
        """Is there an interrupt that ends waits?"""
        if self._interrupted and not self.unseen():
            self._interrupted = False
        return self._interrupted

    def send(self, data: bytes) -> None:
        """Sends bytes that are whole frames.

        Raises:
            LinkClosedError: Nobody is there any more.
        """
        with self._send_lock:
            try:
                self._socket.sendall(data)
            except OSError as e:
                raise LinkClosedError(str(e)) from e

    def send_frame(self, frame: frames.Frame) -> None:
        """Sends one frame."""
        self.send(frames.encode(frame))

    def receive(self, *, interruptible: bool = False) -> frames.Frame | None:
        """The next frame from the kernel; None if `interruptible` and an interrupt came first.

        Raises:
            LinkClosedError: There will be none.
        """
        while not self._received:
            if interruptible:
                if self.interrupted:
                    return None
                ready = readable([self._socket.fileno(), self._wake_read], None)
                if self._wake_read in ready:
                    self._drain_wake()
                    continue
            try:
                data = self._socket.recv(1 << 18)
            except OSError as e:
                raise LinkClosedError(str(e)) from e
            if not data:
                raise LinkClosedError("end of stream")
            self._received += self._decoder.feed(data)
        return self._received.pop(0)

    def comes(self, duration_s: float) -> bool:
        """Is there a frame from the kernel, or its end, within that time?"""
        return bool(self._received) or bool(readable([self._socket.fileno()], duration_s))

    def wait(self, duration_s: float) -> bool:
        """Waits that long, or until an interrupt; True if the time has passed."""
        end = time.monotonic() + duration_s
        while not self.interrupted:
            left = end - time.monotonic()
            if left <= 0:
                return True
            if readable([self._wake_read], min(left, 3600)):
                self._drain_wake()
        return False

    def wake(self) -> None:
        """Ends the current wait, from any thread, and those that follow until `rest`."""
        self._interrupted = True
        with contextlib.suppress(BlockingIOError):  # a pipe full of wakes wakes as well
            os.write(self._wake_write, b"!")

    def rest(self) -> None:
        """Forgets an interrupt: a new turn begins."""
        self._interrupted = False
        self._drain_wake()

    def _drain_wake(self) -> None:
        try:
            while os.read(self._wake_read, 4096):
                pass
        except BlockingIOError:
            return
