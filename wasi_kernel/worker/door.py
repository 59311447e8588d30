"""The door: fd 0 of the guest, over which the agent and the kernel talk.

One `fd_write` carries either one whole frame (frames.py), which is forwarded, or one door command
(first word 0). Anything else is refused with EINVAL and changes nothing, so that user code that
writes to fd 0 cannot tear the stream. Reading gives the bytes of the current request, then, while
a question (`frames.QUESTIONS`) is unanswered, those of its answer; otherwise end of file.

Text does not travel in frames. The agent's sys.stdout appends it to a buffer in linear memory
(the "tray") that the host empties: at once when the guest says that there is something and nothing
went out for a while, else at most INTERVAL_S later from another thread, and before every frame.
So printing costs no host call, and what was printed before a long computation in C is seen.

Tray layout (u32 little-endian): 0, 1 (TRAY), capacity, written, armed, printed, then data at byte
32. `written` is set by the guest only; `armed` is set by the guest when it has told the host, and
cleared by the host *before* it reads `written`, so no text is left behind. `printed` is set by the
host when C code prints, past the agent: it is how the agent knows that there is something to clear.

This module is long because text and frames share one order: all of one lock's business is here.
"""

from __future__ import annotations

import codecs
import contextlib
import struct
import threading
import time
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from wasi_kernel import frames
from wasi_kernel.frames import Frame
from wasi_kernel.policy import raising
from wasi_kernel.worker import looks
from wasi_kernel.worker.memory import LinearMemory, OutOfBoundsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SUCCESS, EFAULT, EINTR, EINVAL, EIO, ENOTSUP = 0, 21, 27, 28, 29, 58  # WASI preview 1
TRAY, NUDGE, TAKE_STDOUT, TAKE_STDERR, AGAIN = 1, 2, 3, 4, 5  # door commands
TRAY_HEAD = 32
TRAY_MARK = struct.pack("<II", 0, TRAY)

PIECE_BYTES = 1 << 20
"""The most text that one stream frame carries."""

ERRORS_BYTES = 4 << 20
"""What a cell's errors may take beyond the cell's allowance; the agent's own take less."""

WRITE_BYTES = 16 << 20
"""The most text that one fd_write takes: the worker holds no more of it at once. The rest is the
guest's to write again, as WASI has it."""

INTERVAL_S, LINE_S = 0.05, 0.01
MAX_IOVECS = 1024
MAX_SUBSCRIPTIONS = 4096

ANSWERS = {
    **{t: t.replace("_request", "_reply") for t in frames.TYPES if t.endswith("_request")},
    **dict.fromkeys(("comm_open", "comm_msg", "comm_close"), "comm_reply"),
}
"""Which reply a guest may give to which request."""

REPLIES = frozenset(ANSWERS.values()) - {
    *frames.QUESTIONS.values(), "interrupt_reply", "info_reply", "checkpoint_reply", "look_reply",
}  # fmt: skip
"""The replies that a guest may give at all."""

OUTPUT = frozenset({
    "stream", "display_data", "update_display_data", "execute_result", "error", "clear_output",
    "comm_open", "comm_msg", "comm_close",
})  # fmt: skip


class Port(Protocol):
    """What the door needs of the link to the kernel."""

    @property
    def interrupted(self) -> bool: ...  # noqa: D102
    def send(self, data: bytes) -> None: ...  # noqa: D102
    def receive(self, *, interruptible: bool = False) -> Frame | None: ...  # noqa: D102
    def wait(self, duration_s: float) -> bool: ...  # noqa: D102


class Calibration(Protocol):
    """Watches memory while the guest trips its own SIGINT (see interrupts.py)."""

    def flags_are_down(self, memory: LinearMemory) -> None: ...  # noqa: D102
    def flags_are_up(self, memory: LinearMemory) -> None: ...  # noqa: D102


class Door:
    """Both directions of fd 0 of one guest, and what fds 1 and 2 print.

    The methods that serve WASI calls run on the guest's thread; `drain` also on another.

    Attributes:
        tray: Guest address of the tray, 0 while the agent has not named it.
        request: Number of the request in progress, 0 at rest.
        answered: Has the guest answered it?
        calibration: While interrupts.py looks for CPython's signal flags, who is told that a
            wakeup fd is being set, and that a wakeup byte (a write of one byte) was written.
        again: Called when the guest wants an interrupt repeated in a moment.
        info: Gives what the guest is told about its own sandbox, when it asks.
        look: Answers what a guest asks about itself as seen from outside (looks.py).
        checkpoint: Does what a guest asks about its checkpoints; gives the reply's content.
        outgoing: A file that the guest is to have, read from where it stands; None: there is none.
        holds: Is asked about each reply of the guest, as (type, content): should it be kept back?
        next_request: Called when a command build's agent reads at rest; gives its next frame.
    """

    def __init__(self, link: Port, *, output_bytes: int, message_bytes: int) -> None:
        self._link = link
        self._output_bytes, self._message_bytes = output_bytes, message_bytes
        self._memory: LinearMemory | None = None
        self._inbound = b""
        self._awaited, self._given_up = "", False
        self._lock = threading.Lock()
        self._taken = self._capacity = 0
        self._stream = "stdout"
        self._decoders: dict[str, codecs.IncrementalDecoder] = {}
        self._sent = self._errors = self._largest = 0
        self._noticed = False
        self._answer = ""
        self._raw: list[bool] | None = None
        self._last_s = 0.0
        self.tray = 0
        self.request = 0
        self.answered = True
        self.calibration: Calibration | None = None
        self.arm: Callable[[float], None] = lambda _at: None
        self.again: Callable[[], None] = lambda: None
        self.info: Callable[[], dict[str, Any]] = dict
        self.look: Callable[[Frame], Frame] = looks.NONE.answer
        self.checkpoint: Callable[[dict[str, Any]], dict[str, Any]] = lambda _content: {}
        self.outgoing: BinaryIO | None = None
        self.holds: Callable[[str, dict[str, Any]], bool] = lambda _type, _content: False
        self.next_request: Callable[[], Frame | None] | None = None
        self.monotonic_ns: Callable[[], int] = time.monotonic_ns

    def attach(self, memory: LinearMemory) -> None:
        """Names the memory that pointers mean."""
        self._memory = memory

    def detach(self) -> None:
        """The memory is about to be freed: nothing reads or writes it from here on."""
        with self._lock:
            self._memory, self.tray = None, 0

    def adopt(self, tray: int, stream: str) -> None:
        """Names the tray of a guest that comes from an image, and the stream that it fills."""
        with self._lock:
            if self._memory is not None and tray:
                self.tray, self._stream = tray, stream
                self._capacity = self._memory.u32(tray + 8).value
                self._taken = self._memory.u32(tray + 12).value

    @contextlib.contextmanager
    def still(self) -> Iterator[None]:
        """While its body runs, no other thread reads or writes the guest's memory through here."""
        with self._lock:
            yield

    @property
    def sent_bytes(self) -> int:
        """What the present request has shown so far."""
        return self._sent

    @property
    def largest_bytes(self) -> int:
        """Its largest single message so far."""
        return self._largest

    @property
    def stream(self) -> str:
        """The stream that the guest's tray is filled for."""
        return self._stream

    def begin(self, frame: Frame) -> None:
        """Puts a request before the guest; a new turn begins."""
        self._inbound = frames.encode(frame)
        self.request, self.answered = frame.request, False
        self._answer = ANSWERS[frame.type]
        if frame.type != "idle_request":  # what is shown then belongs to the cell before
            self._sent, self._errors, self._largest, self._noticed = 0, 0, 0, False
        self._awaited, self._given_up = "", False
        self._raw = frame.content.get("raw")

    def end(self) -> None:
        """The turn is over: the rest of its text goes out, unread input is forgotten."""
        with self._lock:
            self._drain()
            for name in ("stdout", "stderr"):
                self._text(name, b"", final=True)
        self._inbound, self.request = b"", 0

    # -- text --------------------------------------------------------------------------------

    def drain(self) -> None:
        """Sends what lies in the tray. Any thread."""
        with self._lock:
            self._drain()

    def _drain(self) -> None:
        memory, tray = self._memory, self.tray
        if memory is None or not tray:
            return
        try:
            memory.u32(tray + 16).value = 0
            written = memory.u32(tray + 12).value
            if written > self._capacity or written < self._taken:
                self._taken = min(written, self._capacity)  # a guest that plays with its tray
                return
            if written == self._taken:
                return
            data = memory.read(tray + TRAY_HEAD + self._taken, written - self._taken)
        except OutOfBoundsError:
            self.tray = 0
            return
        self._taken = written
        self._text(self._stream, data)

    def _text(self, name: str, data: bytes, *, final: bool = False) -> None:
        """Sends text; of a request that has `raw` (is a terminal?, for fds 0 to 2), as bytes."""
        if self._raw is not None:
            for at in range(0, len(data), PIECE_BYTES):
                self._last_s = time.monotonic()
                said, piece = {"name": name, "text": ""}, data[at : at + PIECE_BYTES]
                self._output(frames.encode(Frame("stream", said, self.request, {}, (piece,))))
            return
        decoder = self._decoders.get(name)
        if decoder is None:
            decoder = self._decoders[name] = codecs.getincrementaldecoder("utf-8")("replace")
        for at in range(0, max(len(data), 1), PIECE_BYTES):
            piece = data[at : at + PIECE_BYTES]
            text = decoder.decode(piece, final and at + PIECE_BYTES >= len(data))
            if text:
                self._last_s = time.monotonic()
                frame = Frame("stream", {"name": name, "text": text}, self.request)
                self._output(frames.encode(frame))

    def _output(self, data: bytes, kind: str = "") -> None:
        """Sends a frame that shows something, within the cell's allowance.

        Errors have one of their own: after a flood, why the cell ended is still shown.
        """
        self._sent += len(data)
        if kind == "error":
            self._errors += len(data)
        if self._sent <= self._output_bytes or (kind == "error" and self._errors <= ERRORS_BYTES):
            self._link.send(data)
        else:
            self._notice(
                f"output limit reached: this cell sent more than {self._output_bytes >> 20} MiB; "
                "it goes on, but what it shows from here on is dropped; " + raising("output_bytes")
            )

    def _notice(self, text: str) -> None:
        """Says once in a turn that something is dropped."""
        if self._noticed:
            return
        self._noticed = True
        content = {"name": "stderr", "text": f"\n[wasi-kernel] {text}\n"}
        self._link.send(frames.encode(Frame("stream", content, self.request)))

    # -- WASI calls on fds 0, 1, 2 -----------------------------------------------------------

    def door_write(self, fd: int, iovs: int, count: int, out: int) -> int:
        """fd_write on 0 (a frame or a command), 1 or 2 (text from C)."""
        memory = self._memory
        if memory is None:
            return EIO
        try:
            if count == 0 or count > MAX_IOVECS:
                return EINVAL
            vectors = struct.unpack(f"<{2 * count}I", memory.read(iovs, 8 * count))
            total = sum(vectors[1::2])
            if fd == 0:
                self._largest = max(self._largest, total)
            if fd == 0 and self._names_tray(memory, *vectors[:2]):
                memory.u32(out).value = total
                return SUCCESS
            if fd == 0 and total > self._message_bytes:
                return self._too_large(memory, total, out)
            if total > memory.size():
                return EINVAL
            data = _gathered(memory, vectors, total if fd == 0 else WRITE_BYTES)
            with self._lock:
                if fd != 0:
                    self._print(memory, "stdout" if fd == 1 else "stderr", data)
                elif not self._from_guest(memory, data):
                    return EINVAL
            memory.u32(out).value = len(data)
        except OutOfBoundsError:
            return EFAULT
        return SUCCESS

    def _print(self, memory: LinearMemory, name: str, data: bytes) -> None:
        """Sends text that C code has printed, after what lies in the tray."""
        self._drain()
        if self.tray:
            memory.u32(self.tray + 20).value = 1
        self._text(name, data)

    def _too_large(self, memory: LinearMemory, total: int, out: int) -> int:
        with self._lock:
            self._drain()
        self._notice(
            f"a message of {total >> 20} MiB was dropped: at most {self._message_bytes >> 20} MiB; "
            + raising("message_bytes")
        )
        memory.u32(out).value = total
        return SUCCESS

    def _from_guest(self, memory: LinearMemory, data: bytes) -> bool:
        """Handles one write on fd 0; False if it is neither a frame nor a command."""
        if len(data) == 1:
            if self.calibration is None:
                return False
            self.calibration.flags_are_up(memory)
            return True
        if len(data) >= 8 and data[:4] == b"\0\0\0\0":
            return self._command(memory, data)
        if len(data) < frames.HEAD_BYTES:
            return False
        try:
            size, kind, request = frames.peek(data)
        except frames.FrameError:
            return False
        if size != len(data):
            return False
        try:
            frame = frames.decode(data)  # what the kernel could not read would end the session
        except frames.FrameError:
            return False
        self._drain()
        if kind in OUTPUT:
            self._output(data, kind)
            return True
        return self._wants_or_answers(kind, request, frame.content, data)

    def _wants_or_answers(
        self, kind: str, request: int, content: dict[str, Any], data: bytes
    ) -> bool:
        """Handles a frame that asks for something or answers the request in progress."""
        if kind == "info_request":
            self._inbound = frames.encode(Frame("info_reply", self.info(), request))
            return True
        if kind == "look_request":
            self._inbound = frames.encode(self.look(Frame(kind, content, request)))
            return True
        if kind == "checkpoint_request":
            self._inbound = frames.encode(self._about_checkpoints(content, request))
            return True
        if self.answered or request != self.request:
            return False
        if kind in frames.QUESTIONS and self._awaited and not self._given_up:
            return False  # one question at a time
        if kind in frames.QUESTIONS:
            self._awaited, self._given_up = frames.QUESTIONS[kind], False
            self._sent += len(data)
            if self._sent > self._output_bytes:
                self._inbound = frames.encode(Frame(self._awaited, {"value": "\x04"}, request))
                self._awaited = ""
                return True
        elif kind == self._answer and kind in REPLIES:
            self.answered, self._awaited = True, ""
            if self.holds(kind, content):
                return True
        else:
            return False
        self._link.send(data)
        return True

    def _about_checkpoints(self, content: dict[str, Any], request: int) -> Frame:
        """The answer to a checkpoint_request; to "take" the next piece of what is handed over."""
        if content.get("op") != "take":
            return Frame("checkpoint_reply", self.checkpoint(content), request)
        data = b"" if self.outgoing is None else self.outgoing.read(PIECE_BYTES)
        return Frame("checkpoint_reply", {"status": "ok"}, request, {}, (data,))

    def _names_tray(self, memory: LinearMemory, at: int, length: int) -> bool:
        """Is this write the agent's tray, which is thereby known? Nothing of it is copied."""
        if length <= TRAY_HEAD or memory.read(at, 8) != TRAY_MARK:
            return False
        memory.address(at, length)
        if memory.u32(at + 8).value != length - TRAY_HEAD:
            return False
        with self._lock:
            self.tray, self._taken, self._capacity = at, 0, length - TRAY_HEAD
        return True

    def _command(self, memory: LinearMemory, data: bytes) -> bool:
        command = int.from_bytes(data[4:8], "little")
        if command == NUDGE:
            # A line's newline is often a write of its own: wait a moment for the rest.
            due = max(self._last_s + INTERVAL_S, time.monotonic() + LINE_S)
            self.arm(due)
        elif command == AGAIN:
            self.again()
        elif command in (TAKE_STDOUT, TAKE_STDERR):
            self._drain()
            self._stream = "stdout" if command == TAKE_STDOUT else "stderr"
            self._taken = 0
            if self.tray:
                memory.u32(self.tray + 12).value = 0
        else:
            return False
        return True

    @property
    def is_read(self) -> bool:
        """Has the guest read to its end what it has begun to read, or what answers it?"""
        return not self._inbound

    def door_read(self, fd: int, iovs: int, count: int, out: int) -> int:
        """fd_read on 0; 1 and 2 are not readable."""
        memory = self._memory
        if memory is None or fd != 0:
            return ENOTSUP
        try:
            if count == 0 or count > MAX_IOVECS:
                return EINVAL
            if not self._inbound:
                frame = self._next()
                if frame is None and self._link.interrupted and self._awaited:
                    self._given_up = True
                    return EINTR
                self._inbound = b"" if frame is None else frames.encode(frame)
            at, length = memory.u32(iovs).value, memory.u32(iovs + 4).value
            data = self._inbound[:length]
            memory.write(at, data)
            memory.u32(out).value = len(data)
        except OutOfBoundsError:
            return EFAULT
        self._inbound = self._inbound[len(data) :]
        return SUCCESS

    def _next(self) -> Frame | None:
        """What comes after the bytes read so far: an awaited answer, or at rest a request."""
        if self._awaited:
            frame = self._link.receive(interruptible=True)
            while frame is not None and frame.type != self._awaited:  # of one that was given up
                frame = self._link.receive(interruptible=True)
            if frame is not None:
                self._awaited = ""
            return frame
        if self.answered and self.next_request is not None:
            return self.next_request()
        return None

    def fdstat_get(self, fd: int, out: int) -> int:
        """A character device that may be read and written, and does not block.

        Not blocking is what signal.set_wakeup_fd demands. If a program's streams are the host's,
        those that are no terminal are of unknown type, so that isatty says what is so.
        """
        if self._memory is None:
            return EIO
        if fd == 0 and self.calibration is not None:
            self.calibration.flags_are_down(self._memory)
        rights = 1 << 1 | 1 << 6 | 1 << 21 | 1 << 27  # fd_read, fd_write, filestat_get, poll
        device = 2 if self._raw is None or fd == 0 or self._raw[fd] else 0
        try:
            # fs_filetype 2 (character device), fs_flags 4 (nonblock)
            self._memory.write(out, struct.pack("<BxHxxxxQQ", device, 4, rights, 0))
        except OutOfBoundsError:
            return EFAULT
        return SUCCESS

    def filestat_get(self, fd: int, out: int) -> int:
        """dev, ino, filetype (character device), nlink, size and three times: all else zero."""
        if self._memory is None:
            return EIO
        try:
            self._memory.write(out, struct.pack("<QQBxxxxxxxQQQQQ", 0, fd, 2, 1, 0, 0, 0, 0))
        except OutOfBoundsError:
            return EFAULT
        return SUCCESS

    # -- waiting -----------------------------------------------------------------------------

    def poll_oneoff(self, subscriptions: int, out: int, count: int, events: int) -> int:
        """Waits for the earliest of the subscribed clocks; files are always ready."""
        memory = self._memory
        if memory is None:
            return EIO
        if count == 0 or count > MAX_SUBSCRIPTIONS:
            return EINVAL
        try:
            wanted = memory.read(subscriptions, 48 * count)
            ready, clocks = [], []
            for k in range(count):
                userdata, kind = struct.unpack_from("<QB", wanted, 48 * k)
                if kind == 0:
                    clock, timeout, _, flags = struct.unpack_from("<IxxxxQQH", wanted, 48 * k + 16)
                    clocks.append((self._wait_s(clock, timeout, flags), userdata))
                else:
                    ready.append(struct.pack("<QHBxxxxxQHxxxxxx", userdata, 0, kind, 1, 0))
            if clocks and not ready:
                wait_s, userdata = min(clocks)
                # An interrupt looks like the clock's time: wasi-libc makes ENOTSUP of any errno
                # here. CPython looks at its signal flags when the call is over.
                self._link.wait(wait_s)
                ready.append(struct.pack("<QHBxxxxxQHxxxxxx", userdata, 0, 0, 0, 0))
            memory.write(out, b"".join(ready))
            memory.u32(events).value = len(ready)
        except OutOfBoundsError:
            return EFAULT
        return SUCCESS

    def _wait_s(self, clock: int, timeout: int, flags: int) -> float:
        """Seconds until a clock subscription is due; `timeout` is in nanoseconds."""
        if flags & 1:  # an absolute time of that clock: 0 is the wall clock, 1 the monotonic
            now = time.time_ns() if clock == 0 else self.monotonic_ns()
            timeout = max(0, timeout - now)
        return timeout / 1e9


def _gathered(memory: LinearMemory, vectors: tuple[int, ...], most: int) -> bytes:
    """The first `most` bytes of buffers that are given as address, length, address, ..."""
    pieces = []
    for at, length in zip(vectors[::2], vectors[1::2], strict=True):
        memory.address(at, length)
        pieces.append(memory.read(at, min(length, most)))
        most -= len(pieces[-1])
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
