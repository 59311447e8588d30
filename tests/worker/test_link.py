"""Shows that the worker's link carries frames in order and that an interrupt ends every wait.

The other end is a real socket. Nothing here sleeps: a wait that must end is ended by something that
has happened before, or by another thread whose only act that is.
"""

from __future__ import annotations

import fcntl
import resource
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest

from wasi_kernel import frames
from wasi_kernel.frames import Frame
from wasi_kernel.worker.link import Link, LinkClosedError

if TYPE_CHECKING:
    from collections.abc import Iterator

FRAME = Frame("execute_request", {"code": "é"}, 5)
NEVER_S = 10_000.0
"""A wait that only an interrupt can end in time."""


@pytest.fixture
def ends() -> Iterator[tuple[Link, socket.socket]]:
    """A link and the kernel's end of it."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Link(ours), theirs


def test_frames_arrive_in_order_however_they_were_cut(ends: tuple[Link, socket.socket]):
    link, kernel = ends
    sent = [FRAME, FRAME._replace(request=6, content={"code": "x" * 5000})]
    stream = b"".join(frames.encode(f) for f in sent)
    kernel.sendall(stream)
    assert [link.receive(), link.receive()] == sent
    for k in range(0, len(stream), 1000):
        kernel.sendall(stream[k : k + 1000])
    assert [link.receive(interruptible=True), link.receive()] == sent


def test_what_is_sent_arrives(ends: tuple[Link, socket.socket]):
    link, kernel = ends
    link.send_frame(FRAME)
    link.send(frames.encode(FRAME))
    assert frames.Decoder().feed(kernel.recv(1 << 16)) == [FRAME, FRAME]


def test_threads_that_send_do_not_mix_their_frames(ends: tuple[Link, socket.socket]):
    """Each frame is larger than the socket takes at once."""
    link, kernel = ends
    count, decoder, got = 8, frames.Decoder(), []
    threads = [
        threading.Thread(
            target=link.send_frame, args=(Frame("stream", {"text": str(k) * 300_000}),)
        )
        for k in range(count)
    ]
    for thread in threads:
        thread.start()
    while len(got) < count:
        got += decoder.feed(kernel.recv(1 << 20))
    for thread in threads:
        thread.join()
    assert {f.content["text"] for f in got} == {str(k) * 300_000 for k in range(count)}


def test_a_kernel_that_is_gone_closes_the_link(ends: tuple[Link, socket.socket]):
    link, kernel = ends
    kernel.close()
    for interruptible in (False, True):
        with pytest.raises(LinkClosedError):
            link.receive(interruptible=interruptible)
    with pytest.raises(LinkClosedError):
        link.send_frame(FRAME)


def test_what_came_before_the_end_is_still_given(ends: tuple[Link, socket.socket]):
    link, kernel = ends
    kernel.sendall(frames.encode(FRAME) * 2)
    kernel.close()
    assert [link.receive(), link.receive()] == [FRAME, FRAME]
    with pytest.raises(LinkClosedError):
        link.receive()


def test_a_connection_that_was_reset_closes_the_link(ends: tuple[Link, socket.socket]):
    link, kernel = ends
    link.send_frame(FRAME)
    kernel.close()  # with unread bytes in its buffer: our end gets ECONNRESET
    with pytest.raises(LinkClosedError):
        link.receive()


def test_an_interrupt_ends_an_interruptible_receive(ends: tuple[Link, socket.socket]):
    link, kernel = ends
    thread = threading.Thread(target=link.wake)
    thread.start()
    assert link.receive(interruptible=True) is None
    thread.join()
    assert link.receive(interruptible=True) is None  # and those that follow, until `rest`
    kernel.sendall(frames.encode(FRAME))
    assert link.receive() == FRAME
    link.rest()
    kernel.sendall(frames.encode(FRAME))
    assert link.receive(interruptible=True) == FRAME


def test_a_frame_that_has_arrived_is_given_in_spite_of_an_interrupt(
    ends: tuple[Link, socket.socket],
):
    link, kernel = ends
    kernel.sendall(frames.encode(FRAME) * 2)
    assert link.receive() == FRAME
    link.wake()
    assert link.receive(interruptible=True) == FRAME


def test_a_wait_ends_when_its_time_has_passed(ends: tuple[Link, socket.socket]):
    link, _ = ends
    before = time.monotonic()
    assert link.wait(0.02)
    assert time.monotonic() - before >= 0.02
    for nothing in (0, -1):
        assert link.wait(nothing)


def test_an_interrupt_ends_a_wait(ends: tuple[Link, socket.socket]):
    link, _ = ends
    thread = threading.Thread(target=link.wake)
    thread.start()
    assert not link.wait(NEVER_S)
    thread.join()
    assert not link.wait(NEVER_S)
    assert not link.wait(float("inf"))
    link.rest()
    assert link.wait(0.001)


def test_an_interrupt_that_the_guest_has_seen_ends_no_further_wait(
    ends: tuple[Link, socket.socket],
):
    """A cell that caught KeyboardInterrupt sleeps and asks for input as before."""
    link, kernel = ends
    seen = False
    link.unseen = lambda: not seen
    link.wake()
    assert not link.wait(NEVER_S)
    assert link.interrupted
    seen = True
    before = time.monotonic()
    assert link.wait(0.02)
    assert time.monotonic() - before >= 0.02
    kernel.sendall(frames.encode(FRAME))
    assert link.receive(interruptible=True) == FRAME
    seen = False  # the next interrupt is seen anew
    assert not link.interrupted
    link.wake()
    assert not link.wait(NEVER_S)


def test_no_number_of_interrupts_blocks_who_sends_them(ends: tuple[Link, socket.socket]):
    link, _ = ends
    for _ in range(100_000):  # more than a pipe holds
        link.wake()
    assert not link.wait(NEVER_S)
    link.rest()
    assert not link.interrupted
    assert link.wait(0.001)


def test_descriptors_of_any_number_are_served():
    """A program with a thousand open files starts workers too; they inherit its numbers."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    ours, theirs = socket.socketpair()
    try:
        with ours, theirs, socket.socket(fileno=fcntl.fcntl(ours, fcntl.F_DUPFD, 1100)) as high:
            link = Link(high)
            theirs.sendall(frames.encode(FRAME))
            assert link.receive(interruptible=True) == FRAME
            assert link.wait(0.001)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
