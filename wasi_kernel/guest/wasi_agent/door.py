"""The guest's end of the door (fd 0): frames out, requests in, and the tray for text.

One `os.write` is one frame or one command; the host refuses anything else. See the host's
worker/door.py for the other end and the tray's layout.
"""

from __future__ import annotations

import os
from typing import Any

from wasi_agent import frames
from wasi_agent.frames import Frame

FD = 0
TRAY, NUDGE, TAKE_STDOUT, TAKE_STDERR, AGAIN = 1, 2, 3, 4, 5
CAPACITY = 1 << 20
TRAY_HEAD = 32
_NUDGE = b"\0\0\0\0" + NUDGE.to_bytes(4, "little")
_AGAIN = b"\0\0\0\0" + AGAIN.to_bytes(4, "little")
_TAKE = {
    "stdout": b"\0\0\0\0" + TAKE_STDOUT.to_bytes(4, "little"),
    "stderr": b"\0\0\0\0" + TAKE_STDERR.to_bytes(4, "little"),
}


class Door:
    """Talks to the host; one per guest.

    Attributes:
        request: Number of the request that frames belong to.
        waiting: Does the guest wait for an answer, which an interrupt may end?
        looking: Is it in a look, whose answer is to be read first?
        interrupted: Did an interrupt come meanwhile?
        message_bytes: The largest frame that the host takes.
    """

    def __init__(self) -> None:
        self.request = 0
        self.waiting = self.looking = self.interrupted = False
        self.message_bytes = frames.MAX_FRAME_BYTES
        self._write = os.write
        self._read = os.read
        memory = bytearray(TRAY_HEAD + CAPACITY)
        memory[4:8] = TRAY.to_bytes(4, "little")
        memory[8:12] = CAPACITY.to_bytes(4, "little")
        view = memoryview(memory)  # pins the bytearray: it can never move
        self._words = view[:TRAY_HEAD].cast("I")
        self._data = view[TRAY_HEAD:]
        self._written = self._sent = 0
        self._stream = "stdout"
        self._cleared: tuple[int, int, int] | None = None
        self._clears_later = False
        self._write(FD, view)  # the host sees where it lies

    # -- text --------------------------------------------------------------------------------

    def put(self, stream: str, data: bytes) -> None:
        """Shows bytes of UTF-8 text on a stream; costs no host call unless the host is idle."""
        if stream is not self._stream:
            self._take(stream)
        start = self._written
        end = start + len(data)
        if end > CAPACITY:
            self._put_large(stream, data)
            return
        self._data[start:end] = data
        words = self._words
        words[3] = self._written = end
        if not words[4]:
            words[4] = 1
            self._write(FD, _NUDGE)

    def _put_large(self, stream: str, data: bytes) -> None:
        for at in range(0, len(data), CAPACITY):
            self._take(stream)
            piece = data[at : at + CAPACITY]
            self._data[: len(piece)] = piece
            self._words[3] = self._written = len(piece)
        self._take(stream)

    def _take(self, stream: str) -> None:
        """The host takes all text now; what follows is for `stream`."""
        self._write(FD, _TAKE[stream])
        self._written = 0
        self._sent += 1
        self._stream = stream

    def interrupt_again(self) -> None:
        """Has the host repeat an interrupt that came while this door was at work."""
        self._write(FD, _AGAIN)

    # -- frames ------------------------------------------------------------------------------

    def send(
        self,
        kind: str,
        content: dict[str, Any],
        metadata: dict[str, Any] | None = None,
        buffers: tuple[Any, ...] = (),
    ) -> None:
        """Sends one frame that belongs to the current request."""
        data = frames.encode(Frame(kind, content, self.request, metadata or {}, buffers))
        self._sent += 1
        self._write(FD, data)

    def clear(self, *, wait: bool) -> None:
        """Clears what the cell shows, now or (`wait`) when more is shown.

        Sends nothing if there is nothing to clear since the last time, so that a million of these
        are no flood.
        """
        words = self._words
        if (
            self._cleared == (self._sent, self._written, self.request)
            and not words[5]
            and (wait or not self._clears_later)
        ):
            return
        words[5] = 0
        self.send("clear_output", {"wait": wait})
        self._cleared = self._sent, self._written, self.request
        self._clears_later = wait

    def reply(self, kind: str, content: dict[str, Any]) -> None:
        """Answers the current request; with an error if the answer is too large to send."""
        data = frames.encode(Frame(kind, content, self.request))
        if len(data) > self.message_bytes:
            text = (
                f"the reply has {len(data)} bytes, at most {self.message_bytes}; "
                "limits.message_bytes in the policy, or --message, raises it"
            )
            error: dict[str, Any] = {
                "status": "error", "ename": "MessageTooLarge", "evalue": text, "traceback": [],
                "execution_count": content.get("execution_count"), "user_expressions": {},
                "payload": [],
            }  # fmt: skip
            data = frames.encode(Frame(kind, error, self.request))
        self._write(FD, data)

    def receive(self) -> Frame | None:
        """The frame that lies before the door; None at the end of all frames."""
        head = self._exactly(frames.HEAD_BYTES)
        if len(head) < frames.HEAD_BYTES:
            return None
        total, _, _ = frames.peek(head)
        return frames.decode(head + self._exactly(total - len(head)))

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = self._read(FD, count - len(data))
            if not piece:
                break
            data = data + piece if data else piece
        return data

    def ask(self, kind: str, content: dict[str, Any]) -> Frame:
        """Asks the host and waits for the answer; an interrupt ends the wait."""
        self.send(kind, content)
        self.waiting = True
        try:
            frame = self.receive()
        finally:
            self.waiting = False
        if frame is None:
            raise EOFError(f"no answer to {kind}")
        return frame

    def look(self, op: str, **content: Any) -> Frame:
        """What the host sees of this guest from outside; `op` is one of its worker/looks.py.

        Raises:
            ValueError: The host refuses; its words.
        """
        self.looking = True
        try:
            said = self.ask("look_request", {"op": op, **content})
        finally:
            self.looking = False
            interrupted, self.interrupted = self.interrupted, False
        if interrupted:
            raise KeyboardInterrupt
        if said.content.get("status") != "ok":
            raise ValueError(said.content.get("evalue", "the host gives no reason"))
        return said

    def limits(self) -> list[dict[str, Any]]:
        """What is used and allowed of each limit; see the host's worker/server.py."""
        return list(self.ask("info_request", {}).content["limits"])
