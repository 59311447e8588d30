"""Shows how a worker is heard: frames in order, its end, what is no frame, silence.

A pair of real sockets has this test at its other end instead of a worker process.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import pytest

from wasi_kernel import frames
from wasi_kernel.frames import Frame
from wasi_kernel.link import Link
from wasi_kernel.spawn import Worker

if TYPE_CHECKING:
    from collections.abc import Iterator

WAIT_S = 20


class Ends:
    """A link, the worker's ends of its sockets, and what the link has told."""

    def __init__(self) -> None:
        requests, self.requests = socket.socketpair()
        control, self.control = socket.socketpair()
        self.worker = Worker(0, requests, control)
        self.heard: list[object] = []
        self.told: asyncio.Queue[object] = asyncio.Queue()
        self.link = Link(self.worker, self.tell, lambda: self.tell("ended"), self.tell)

    def tell(self, what: object) -> None:
        self.heard.append(what)
        self.told.put_nowait(what)

    async def next(self) -> object:
        return await asyncio.wait_for(self.told.get(), WAIT_S)

    def close(self) -> None:
        self.link.silence()
        for sock in (self.requests, self.control, self.worker.requests, self.worker.control):
            sock.close()


@pytest.fixture
def loop() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture
def ends(loop: asyncio.Runner) -> Iterator[Ends]:
    async def make() -> Ends:
        return Ends()

    found = loop.run(make())
    found.link.listen()
    yield found
    found.close()


def stream(text: str) -> Frame:
    return Frame("stream", {"name": "stdout", "text": text}, 2)


def test_frames_arrive_in_order_in_whatever_pieces(loop: asyncio.Runner, ends: Ends):
    async def talk() -> None:
        data = frames.encode(stream("a")) + frames.encode(stream("b"))
        ends.requests.sendall(data[:7])
        ends.control.sendall(frames.encode(stream("past them")))
        assert await ends.next() == stream("past them")
        ends.requests.sendall(data[7:])
        assert [await ends.next(), await ends.next()] == [stream("a"), stream("b")]

    loop.run(talk())


def test_what_is_sent_arrives(loop: asyncio.Runner, ends: Ends):
    data = frames.encode(stream("x" * 10_000))
    loop.run(ends.link.send(data))
    ends.link.send_control(data)
    for sock in (ends.requests, ends.control):
        sock.settimeout(WAIT_S)
        assert sock.recv(len(data), socket.MSG_WAITALL) == data


@pytest.mark.parametrize("which", ["requests", "control"])
def test_the_end_of_either_socket_is_told_once(loop: asyncio.Runner, ends: Ends, which: str):
    async def talk() -> None:
        getattr(ends, which).close()
        assert await ends.next() == "ended"
        ends.requests.close()
        ends.control.close()
        await asyncio.sleep(0)

    loop.run(talk())
    assert ends.heard == ["ended"]


def test_sending_to_a_worker_that_is_gone_says_nothing(loop: asyncio.Runner, ends: Ends):
    ends.close()
    loop.run(ends.link.send(b"data"))
    ends.link.send_control(b"data")
    assert ends.heard == []


def test_what_a_worker_does_not_take_at_once_is_left_to_be_sent(loop: asyncio.Runner, ends: Ends):
    data = bytes(range(256)) * (1 << 14)

    async def talk() -> bytes:
        ends.link.listen()
        rest = ends.link.send_some(data)
        assert 0 < len(rest) < len(data)
        received = asyncio.ensure_future(asyncio.to_thread(_all, ends.requests, len(data)))
        await ends.link.send(rest)
        return await received

    assert loop.run(talk()) == data
    assert ends.link.send_some(b"one more") == b""
    assert ends.requests.recv(100) == b"one more"
    ends.close()
    assert ends.link.send_some(b"to nobody") == b"to nobody"


def _all(sock: socket.socket, length: int) -> bytes:
    found = b""
    while len(found) < length:
        found += sock.recv(1 << 20)
    return found


def test_what_is_no_frame_is_told_with_what_is_wrong(loop: asyncio.Runner, ends: Ends):
    async def talk() -> object:
        ends.requests.sendall(b"\xff" * 64)
        return await ends.next()

    with pytest.raises(frames.FrameError) as raised:
        list(frames.Decoder().feed(b"\xff" * 64))
    assert loop.run(talk()) == str(raised.value)


def test_after_silence_nothing_is_heard_not_even_what_has_arrived(loop: asyncio.Runner, ends: Ends):
    told = ends.tell

    def tell_and_silence(what: object) -> None:
        told(what)
        ends.link.silence()

    async def talk() -> None:
        ends.link = Link(ends.worker, tell_and_silence, lambda: told("ended"), told)
        ends.link.listen()
        ends.requests.sendall(frames.encode(stream("a")) + frames.encode(stream("b")))
        assert await ends.next() == stream("a")
        ends.requests.close()
        await asyncio.sleep(0)

    loop.run(talk())
    assert ends.heard == [stream("a")]
