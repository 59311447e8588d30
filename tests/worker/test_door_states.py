"""Shows that the door keeps its promises whatever the guest, the kernel and interrupts do in turn.

A model says, step by step, what each write and each read must answer, and what the kernel must
receive. The door is the real one, over a real link whose other end is a socket; hypothesis makes up
the sequences. A step that would wait for ever (reading an answer that nobody gives) is not taken.
"""

from __future__ import annotations

import os
import socket
import struct
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from wasmtime import Limits, Memory, MemoryType, Store

from wasi_kernel import frames
from wasi_kernel.frames import QUESTIONS, Frame
from wasi_kernel.worker import door as doors
from wasi_kernel.worker import looks
from wasi_kernel.worker.door import EFAULT, EINTR, EINVAL, SUCCESS, Door
from wasi_kernel.worker.link import Link, LinkClosedError
from wasi_kernel.worker.memory import LinearMemory

OUTPUT_BYTES, MESSAGE_BYTES = 600, 400
IOVS, OUT, DATA, SIZE = 1024, 2048, 4096, 65536
INFO = {"memory_bytes": 3}
NOTICE = Frame("notice", {})
"""Stands for the one notice of a turn in what the kernel must receive."""

STEPS = settings(
    max_examples=int(os.environ.get("WASI_KERNEL_FUZZ_EXAMPLES", "60")), stateful_step_count=50,
    deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)  # fmt: skip

live = precondition(lambda self: not self.ended)
"""Most steps: the kernel is there."""

ASKABLE = sorted(set(doors.ANSWERS) - set(QUESTIONS) - {
    "interrupt_request", "info_request", "checkpoint_request", "look_request",
})  # fmt: skip


class DoorMachine(RuleBasedStateMachine):
    """The door beside a model of it."""

    def __init__(self) -> None:
        super().__init__()
        self.ours, self.kernel = socket.socketpair()
        self.link = Link(self.ours)
        self.store = Store()
        self.memory = LinearMemory(self.store, Memory(self.store, MemoryType(Limits(1, 1))))
        self.door = Door(self.link, output_bytes=OUTPUT_BYTES, message_bytes=MESSAGE_BYTES)
        self.door.info = lambda: INFO
        self.door.attach(self.memory)
        self.decoder = frames.Decoder()
        self.kernel.setblocking(False)
        # the model
        self.request, self.answer, self.answered = 0, "", True
        self.inbound, self.awaited, self.given_up = b"", "", False
        self.sent, self.noticed, self.interrupted = 0, False, False
        self.on_the_way: list[Frame] = []  # in the socket
        self.arrived: list[Frame] = []  # in the link
        self.expected: list[Frame] = []
        self.got: list[Frame] = []
        self.ended = False

    # -- what the guest does -----------------------------------------------------------------

    def write(self, data: bytes, fd: int = 0, pieces: int = 1, **wrong: int) -> int:
        """fd_write of `data` in that many buffers."""
        self.memory.write(DATA, data)
        self.memory.u32(OUT).value = 0xDEAD
        cuts = [len(data) * k // pieces for k in range(pieces + 1)]
        vectors = [(DATA + a, b - a) for a, b in pairwise(cuts)]
        self.memory.write(IOVS, b"".join(struct.pack("<II", *v) for v in vectors))
        errno = self.door.door_write(fd, wrong.get("iovs", IOVS), pieces, wrong.get("out", OUT))
        if not wrong:
            assert self.memory.u32(OUT).value == (len(data) if errno == SUCCESS else 0xDEAD)
        return errno

    def shows(self, frame: Frame, size: int) -> None:
        """The model of output: within the allowance, an error (few here), or one notice."""
        self.sent += size
        if self.sent <= OUTPUT_BYTES or frame.type == "error":
            self.expected.append(frame)
        else:
            self.notice()

    def notice(self) -> None:
        if not self.noticed:
            self.noticed = True
            self.expected.append(NOTICE)

    @live
    @rule(kind=st.sampled_from(sorted(doors.OUTPUT)), length=st.integers(0, 150),
          number=st.sampled_from([0, 7, 8]), pieces=st.integers(1, 4))  # fmt: skip
    def show(self, kind: str, length: int, number: int, pieces: int) -> None:
        frame = Frame(kind, {"text": "x" * length, "name": "stdout"}, number, {}, (b"\0\1",))
        data = frames.encode(frame)
        assert self.write(data, pieces=pieces) == SUCCESS
        self.shows(frame, len(data))

    @live
    @rule(fd=st.sampled_from([1, 2]), text=st.text(st.characters(codec="ascii"), max_size=40))
    def print(self, fd: int, text: str) -> None:
        assert self.write(text.encode(), fd) == SUCCESS
        if text:
            said = {"name": "stdout" if fd == 1 else "stderr", "text": text}
            frame = Frame("stream", said, self.request)
            self.shows(frame, len(frames.encode(frame)))

    @live
    @rule(kind=st.sampled_from(sorted(frames.TYPES)), number=st.sampled_from([0, 7, 8, 2**32 - 1]))
    def say_anything(self, kind: str, number: int) -> None:
        """A frame of any type: each is taken when it may be said, and only then."""
        if kind in doors.OUTPUT:
            return
        frame = Frame(kind, {"value": 1}, number)
        data, mine = frames.encode(frame), not self.answered and number == self.request
        if kind == "info_request":
            self.inbound = frames.encode(Frame("info_reply", INFO, number))
            allowed = True
        elif kind == "checkpoint_request":
            self.inbound = frames.encode(Frame("checkpoint_reply", {}, number))
            allowed = True
        elif kind == "look_request":
            self.inbound = frames.encode(looks.NONE.answer(frame))
            allowed = True
        elif kind in QUESTIONS and mine and (not self.awaited or self.given_up):
            self._asks(kind, frame, len(data))
            allowed = True
        elif kind == self.answer and mine and kind in doors.REPLIES:
            self.answered, self.awaited = True, ""
            self.expected.append(frame)
            allowed = True
        else:
            allowed = False
        assert self.write(data) == (SUCCESS if allowed else EINVAL)

    @precondition(lambda self: self.request and not self.ended)
    @rule(kind=st.sampled_from(sorted(QUESTIONS)))
    def ask(self, kind: str) -> None:
        self.say_anything(kind, 7)

    @precondition(lambda self: self.request and not self.ended)
    @rule()
    def reply(self) -> None:
        self.say_anything(self.answer, 7)

    @precondition(lambda self: self.request and not self.answered and not self.ended)
    @rule(kinds=st.permutations(sorted(QUESTIONS)), late=st.booleans())
    def ask_and_give_up(self, kinds: list[str], late: bool) -> None:
        """A question that is not waited for after all; its answer may come before another one's."""
        kind, other, *_ = kinds
        if self.inbound:
            self.read(5000)
        self.say_anything(kind, 7)
        self.interrupt()
        self.read(16)
        self.forget_interrupts()
        if late:
            self.answers(QUESTIONS[kind], "late")
            self.say_anything(other, 7)
            self.answers(QUESTIONS[other], "in time")
            self.read(5000)

    def _asks(self, kind: str, frame: Frame, size: int) -> None:
        self.awaited, self.given_up = QUESTIONS[kind], False
        self.sent += size
        if self.sent <= OUTPUT_BYTES:
            self.expected.append(frame)
        else:  # asking without end: the answer is that there is none
            reply = Frame(self.awaited, {"value": "\x04"}, self.request)
            self.inbound, self.awaited = frames.encode(reply), ""

    @live
    @rule(cut=st.integers(1, 30), more=st.binary(max_size=3), kind=st.sampled_from(frames.TYPES))
    def say_a_part(self, cut: int, more: bytes, kind: str) -> None:
        """A frame without its end, or with something behind it."""
        data = frames.encode(Frame(kind, {"a": "b"}, self.request))
        assert self.write(data[:-cut]) == EINVAL
        if more:
            assert self.write(data + more) == EINVAL

    @live
    @rule(at=st.integers(0, 11), byte=st.sampled_from([1, 0x7F, 0xFF]))
    def say_a_damaged_head(self, at: int, byte: int) -> None:
        """Other lengths, an unknown type, buffers that are not there."""
        data = bytearray(frames.encode(Frame("info_reply", {"a": "b"}, self.request)))
        data[at] ^= byte
        if at in {4, 5} and int.from_bytes(data[4:6], "little") < len(frames.TYPES):
            return  # another type, which is what `say_anything` is for
        if at >= 8:
            return  # the request's number
        assert self.write(bytes(data)) == EINVAL

    @live
    @rule(fd=st.sampled_from([0, 0, 1, 2]), more=st.integers(1, 2000))
    def say_too_much(self, fd: int, more: int) -> None:
        """A message above the limit is dropped, with one notice in a turn; text is not one."""
        if fd == 0:
            assert self.write(b"\1" * (MESSAGE_BYTES + more)) == SUCCESS
            self.notice()
        else:
            self.print(fd, "x" * (MESSAGE_BYTES + more))

    @live
    @rule(where=st.sampled_from(["iovs", "out"]), at=st.sampled_from([SIZE - 3, SIZE, 2**32 - 1]))
    def point_nowhere(self, where: str, at: int) -> None:
        """Garbage, so that nothing is said before the wrong pointer is met."""
        assert self.write(b"\1\2", **{where: at}) in {EFAULT, EINVAL}

    def _would_wait(self) -> bool:
        """Would reading now wait for something that nobody has sent?"""
        if self.inbound or not self.awaited or self.interrupted:
            return False
        return all(f.type != self.awaited for f in [*self.arrived, *self.on_the_way])

    @precondition(lambda self: not self._would_wait())
    @live
    @rule(length=st.sampled_from([0, 1, 16, 100, 5000]))
    def read(self, length: int) -> None:
        """fd_read: what is left of a request or an answer, EINTR, or the end."""
        interrupted = False
        if not self.inbound and self.awaited:
            interrupted = self._receives()
        self.memory.write(IOVS, struct.pack("<II", DATA, length))
        errno = self.door.door_read(0, IOVS, 1, OUT)
        if interrupted:
            assert errno == EINTR
            return
        assert errno == SUCCESS
        expected, self.inbound = self.inbound[:length], self.inbound[length:]
        assert self.memory.read(DATA, self.memory.u32(OUT).value) == expected

    def _receives(self) -> bool:
        """The model of waiting for an answer; True if an interrupt ends that."""
        while True:
            if not self.arrived:
                if self.interrupted:
                    self.given_up = True
                    return True
                self.arrived, self.on_the_way = self.on_the_way, []
            frame = self.arrived.pop(0)
            if frame.type == self.awaited:
                self.inbound, self.awaited = frames.encode(frame), ""
                return False

    # -- what the host does ------------------------------------------------------------------

    @precondition(lambda self: self.request == 0)
    @live
    @rule(kind=st.sampled_from(ASKABLE))
    def begin(self, kind: str) -> None:
        frame = Frame(kind, {"code": "é"}, 7)
        self.door.begin(frame)
        self.request, self.answer, self.answered = 7, doors.ANSWERS[kind], False
        self.inbound, self.awaited, self.given_up = frames.encode(frame), "", False
        if kind != "idle_request":  # it goes on using up what the cell before may show
            self.sent, self.noticed = 0, False

    @precondition(lambda self: self.request)
    @live
    @rule()
    def end(self) -> None:
        self.door.end()
        self.inbound, self.request = b"", 0

    @live
    @rule(kind=st.sampled_from(sorted(QUESTIONS.values())), value=st.text(max_size=5))
    def answers(self, kind: str, value: str) -> None:
        frame = Frame(kind, {"value": value}, 7)
        self.kernel.sendall(frames.encode(frame))
        self.on_the_way.append(frame)

    @live
    @rule()
    def interrupt(self) -> None:
        self.link.wake()
        self.interrupted = True

    @live
    @rule()
    def forget_interrupts(self) -> None:
        self.link.rest()
        self.interrupted = False

    @live
    @rule(odds=st.integers(0, 9), showing=st.booleans())
    def close(self, odds: int, showing: bool) -> None:
        """The kernel goes, now and then: what needs it then fails, and with one error only."""
        if odds:
            return
        self.the_kernel_received_what_it_should()
        self.kernel.close()
        self.ended = True
        self.door.begin(Frame("execute_request", {}, 7))
        kind = "display_data" if showing else "input_request"
        with pytest.raises(LinkClosedError):
            self.write(frames.encode(Frame(kind, {}, 7)))

    @precondition(lambda self: self.ended)
    @rule()
    def over(self) -> None:
        """What needs nobody goes on."""
        self.door.end()
        self.door.drain()
        assert self.write(frames.encode(Frame("info_request", {}, 0))) == SUCCESS

    def receive(self) -> None:
        """What has come to the kernel since."""
        while True:
            try:
                data = self.kernel.recv(1 << 16)
            except BlockingIOError:
                return
            self.got += self.decoder.feed(data)

    # -- what always holds -------------------------------------------------------------------

    @invariant()
    def the_kernel_received_what_it_should(self) -> None:
        if self.ended:
            return
        self.receive()
        assert not self.decoder._pending
        assert len(self.got) == len(self.expected)
        for got, expected in zip(self.got, self.expected, strict=True):
            if expected is NOTICE:
                assert got.content["name"] == "stderr"
                assert "[wasi-kernel]" in got.content["text"]
            else:
                assert got == expected

    @invariant()
    def the_door_knows_what_the_model_knows(self) -> None:
        if self.ended:
            return
        assert self.door.answered == self.answered
        assert self.door.request == self.request

    def teardown(self) -> None:
        self.door.detach()
        assert self.door.door_write(0, IOVS, 1, OUT) != SUCCESS
        self.ours.close()
        self.kernel.close()
        self.store.close()


TestDoor = DoorMachine.TestCase
TestDoor.settings = STEPS
