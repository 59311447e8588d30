"""Link: a worker's two sockets in the kernel process's event loop.

What is read is hostile: frames only, within the codec's limits. What they mean is not known here.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from wasi_kernel import frames

if TYPE_CHECKING:
    from collections.abc import Callable

    from wasi_kernel.frames import Frame
    from wasi_kernel.spawn import Worker

RECEIVED_BYTES = 1 << 20
"""At most so much is read at once."""


class Link:
    """The kernel process's end of one worker, from `listen` to `silence`.

    Must be made where an event loop runs.

    Args:
        worker: The worker.
        received: Called with each frame, those of one socket in order.
        ended: Called once, when the worker has closed a socket.
        failed: Called with what is wrong, when it has sent something that is no frame.
    """

    def __init__(
        self, worker: Worker, received: Callable[[Frame], None], ended: Callable[[], None],
        failed: Callable[[str], None],
    ) -> None:  # fmt: skip
        self.worker = worker
        self._received, self._ended, self._failed = received, ended, failed
        self._loop = asyncio.get_running_loop()
        self._sockets = (worker.requests, worker.control)
        self._decoders = (frames.Decoder(), frames.Decoder())
        self._listening = False

    def listen(self) -> None:
        """Begins to hear the worker."""
        self._listening = True
        for k, sock in enumerate(self._sockets):
            sock.setblocking(False)
            self._loop.add_reader(sock.fileno(), self._readable, k)

    def silence(self) -> None:
        """Nothing of this worker is heard any more, not even what has arrived."""
        self._listening = False
        for sock in self._sockets:
            if sock.fileno() >= 0:
                self._loop.remove_reader(sock.fileno())
                self._loop.remove_writer(sock.fileno())  # of a send that is still under way

    def send_some(self, data: bytes) -> bytes:
        """Sends as much of a frame as the worker takes at once; what is left is to be sent."""
        try:
            return data[self.worker.requests.send(data) :]
        except (OSError, ValueError):  # full, or gone: `send` waits, or leaves it
            return data

    async def send(self, data: bytes) -> None:
        """Sends a frame; a worker that is gone is noticed by the end of its stream."""
        with contextlib.suppress(OSError, ValueError):
            await self._loop.sock_sendall(self.worker.requests, data)

    def send_control(self, data: bytes) -> None:
        """Sends a frame past those that wait; it may be lost if there are too many."""
        with contextlib.suppress(OSError):
            self.worker.control.send(data)

    def _readable(self, channel: int) -> None:
        if not self._listening:
            return
        try:
            data = self._sockets[channel].recv(RECEIVED_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.silence()
            self._ended()
            return
        try:
            for frame in self._decoders[channel].feed(data):
                self._received(frame)
                if not self._listening:
                    return
        except frames.FrameError as e:
            self._failed(str(e))
