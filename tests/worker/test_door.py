"""Shows that the door takes frames, commands and text, and that nothing else gets through it.

Most tests make the WASI calls from inside WebAssembly, as a guest does.
"""

from __future__ import annotations

import random
import struct
import subprocess
import sys
import time
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest

from wasi_kernel import frames
from wasi_kernel.frames import Frame
from wasi_kernel.policy import MIB
from wasi_kernel.worker import door as doors
from wasi_kernel.worker.door import (
    EFAULT,
    EINTR,
    EINVAL,
    EIO,
    ENOTSUP,
    NUDGE,
    SUCCESS,
    TAKE_STDERR,
    TAKE_STDOUT,
    TRAY,
    TRAY_HEAD,
    Door,
)
from wasi_kernel.worker.memory import WASM_PAGE

if TYPE_CHECKING:
    from collections.abc import Callable

SIZE = 4 * WASM_PAGE
TRAY_AT, CAPACITY = 65536, 4096
REQUEST = Frame("execute_request", {"code": "x"}, 9)


def lay_tray(probe: Any, capacity: int = CAPACITY, at: int = TRAY_AT) -> int:
    """Writes an empty tray into memory and names it; fd_write's errno."""
    head = struct.pack("<IIIII", 0, TRAY, capacity, 0, 0).ljust(TRAY_HEAD, b"\0")
    probe.memory.write(at, head)
    return probe.call("fd_write", 0, *probe.iovecs((at, TRAY_HEAD + capacity)), probe.OUT)


def put_text(probe: Any, data: bytes, *, written: int | None = None) -> None:
    """Appends text to the tray, as the guest's sys.stdout does."""
    start = probe.u32(TRAY_AT + 12)
    probe.memory.write(TRAY_AT + TRAY_HEAD + start, data)
    probe.memory.u32(TRAY_AT + 12).value = start + len(data) if written is None else written


# -- reading -------------------------------------------------------------------------------------


def test_a_request_is_read_in_any_pieces_and_then_comes_the_end(open_guest: Callable):
    probe = open_guest()
    probe.door.begin(REQUEST)
    data = frames.encode(REQUEST)
    assert probe.read(0, 16) == (SUCCESS, data[:16])
    assert probe.read(0, 0) == (SUCCESS, b"")
    assert probe.read(0, 3) == (SUCCESS, data[16:19])
    assert probe.read(0, 100_000) == (SUCCESS, data[19:])
    assert probe.read(0, 10) == (SUCCESS, b"")


def test_unread_input_is_forgotten_with_its_turn(open_guest: Callable):
    probe = open_guest()
    probe.door.begin(REQUEST)
    probe.read(0, 5)
    probe.door.end()
    assert probe.read(0, 10) == (SUCCESS, b"")
    second = REQUEST._replace(request=10)
    probe.door.begin(second)
    assert probe.read(0, 1000) == (SUCCESS, frames.encode(second))


def test_a_pointer_that_fails_loses_no_input(open_guest: Callable):
    probe = open_guest()
    probe.door.begin(REQUEST)
    for at, length, out in ((SIZE, 8, 0), (SIZE - 4, 8, 0), (0, 8, SIZE - 2), (2**32 - 1, 8, 0)):
        assert probe.call("fd_read", 0, *probe.iovecs((at, length)), out) == EFAULT
    for iovs in (SIZE, SIZE - 4, 2**32 - 8):
        assert probe.call("fd_read", 0, iovs, 1, probe.OUT) == EFAULT
    assert probe.read(0, 1000) == (SUCCESS, frames.encode(REQUEST))


def test_a_length_beyond_memory_reads_what_there_is(open_guest: Callable):
    probe = open_guest()
    probe.door.begin(REQUEST)
    assert probe.read(0, 2**32 - 1) == (SUCCESS, frames.encode(REQUEST))


@pytest.mark.parametrize("count", [0, doors.MAX_IOVECS + 1, 2**31, 2**32 - 1])
def test_a_count_of_buffers_that_cannot_be(open_guest: Callable, count: int):
    probe = open_guest()
    probe.door.begin(REQUEST)
    assert probe.call("fd_read", 0, probe.IOVS, count, probe.OUT) == EINVAL
    for fd in (0, 1, 2):
        assert probe.call("fd_write", fd, probe.IOVS, count, probe.OUT) == EINVAL


def test_the_streams_cannot_be_read(open_guest: Callable):
    probe = open_guest()
    probe.door.begin(REQUEST)
    for fd in (1, 2):
        assert probe.read(fd, 10) == (ENOTSUP, b"")


# -- input ---------------------------------------------------------------------------------------

ANSWER = Frame("input_reply", {"value": "é"}, 9)


def test_an_answer_is_read_after_its_question(open_guest: Callable):
    probe = open_guest()
    probe.door.begin(REQUEST)
    probe.read(0, 1000)
    assert probe.send("input_request", {"prompt": "?"}, 9) == SUCCESS
    probe.kernel.coming.append(ANSWER)
    data = frames.encode(ANSWER)
    assert probe.read(0, 16) == (SUCCESS, data[:16])
    assert probe.read(0, 1000) == (SUCCESS, data[16:])
    assert probe.read(0, 1000) == (SUCCESS, b"")  # one question, one answer
    assert [f.type for f in probe.kernel.frames()] == ["input_request"]


def test_an_interrupt_ends_the_wait_for_an_answer_and_only_that(open_guest: Callable):
    probe = open_guest()
    probe.door.begin(REQUEST)
    probe.kernel.interrupted = True
    assert probe.read(0, 1000) == (SUCCESS, frames.encode(REQUEST))
    assert probe.read(0, 1000) == (SUCCESS, b"")
    assert probe.send("input_request", {"prompt": "?"}, 9) == SUCCESS
    assert probe.read(0, 16) == (EINTR, b"")


def test_an_unanswered_question_is_forgotten_with_its_turn(open_guest: Callable):
    probe = open_guest()
    probe.door.begin(REQUEST)
    assert probe.send("input_request", {"prompt": "?"}, 9) == SUCCESS
    probe.door.end()
    probe.door.begin(REQUEST)
    assert probe.read(0, 1000) == (SUCCESS, frames.encode(REQUEST))
    assert probe.read(0, 1000) == (SUCCESS, b"")


def test_an_answer_to_a_question_that_was_given_up_answers_no_other(open_guest: Callable):
    probe = open_guest()
    probe.door.begin(REQUEST)
    probe.read(0, 1000)
    assert probe.send("frontend_request", {}, 9) == SUCCESS
    probe.kernel.interrupted = True
    assert probe.read(0, 16) == (EINTR, b"")
    probe.kernel.interrupted = False
    assert probe.send("input_request", {"prompt": "?"}, 9) == SUCCESS
    probe.kernel.coming += [Frame("frontend_reply", {"mode": "text"}, 9), ANSWER]
    assert probe.read(0, 1000) == (SUCCESS, frames.encode(ANSWER))


@pytest.mark.parametrize("kind", frames.QUESTIONS)
def test_a_question_at_rest_is_refused(open_guest: Callable, kind: str):
    probe = open_guest()
    assert probe.send(kind, {"prompt": "?"}) == EINVAL
    assert probe.kernel.sent == []


def test_what_a_guest_asks_about_its_sandbox_is_answered_at_once(open_guest: Callable):
    probe = open_guest()
    probe.door.info = lambda: {"memory_bytes": 3}
    probe.door.begin(REQUEST)
    probe.read(0, 1000)
    assert probe.send("info_request", {}, 9) == SUCCESS
    errno, data = probe.read(0, 1000)
    assert (errno, frames.decode(data)) == (SUCCESS, Frame("info_reply", {"memory_bytes": 3}, 9))
    assert probe.kernel.sent == []


def test_a_command_builds_agent_is_given_its_next_request(open_guest: Callable):
    probe = open_guest()
    coming = [REQUEST, None]
    probe.door.next_request = lambda: coming.pop(0)
    assert probe.read(0, 1000) == (SUCCESS, frames.encode(REQUEST))
    assert probe.read(0, 1000) == (SUCCESS, b"")
    probe.door.begin(REQUEST)
    probe.read(0, 1000)
    assert probe.read(0, 10) == (SUCCESS, b"")  # not while a request is unanswered
    assert coming == []


# -- frames --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", sorted(doors.OUTPUT))
def test_output_is_forwarded_as_it_is(open_guest: Callable, kind: str):
    probe = open_guest()
    probe.door.begin(REQUEST)
    frame = Frame(kind, {"a": "é"}, 9, {"m": 1}, (b"12", b""))
    assert probe.write(0, frames.encode(frame)) == SUCCESS
    assert probe.u32(probe.OUT) == len(frames.encode(frame))
    assert probe.kernel.sent == [frames.encode(frame)]


def test_a_frame_in_many_pieces_is_one_write(open_guest: Callable):
    probe = open_guest()
    data = frames.encode(Frame("stream", {"name": "stdout", "text": "x" * 1000}, 9))
    probe.memory.write(probe.DATA, data)
    pieces = [(probe.DATA + k, min(7, len(data) - k)) for k in range(0, len(data), 7)]
    assert probe.call("fd_write", 0, *probe.iovecs(*pieces), probe.OUT) == SUCCESS
    assert probe.u32(probe.OUT) == len(data)
    assert probe.kernel.sent == [data]


def test_a_request_is_answered_once(open_guest: Callable):
    probe = open_guest()
    probe.door.begin(REQUEST)
    for other in (0, 8, 10, 2**32 - 1):
        assert probe.send("execute_reply", {"status": "ok"}, other) == EINVAL
    assert not probe.door.answered
    assert probe.send("execute_reply", {"status": "ok"}, 9) == SUCCESS
    assert probe.door.answered
    assert probe.send("execute_reply", {"status": "ok"}, 9) == EINVAL
    assert [f.type for f in probe.kernel.frames()] == ["execute_reply"]
    probe.door.end()
    assert probe.send("execute_reply", {"status": "ok"}, 0) == EINVAL


@pytest.mark.parametrize("kind", sorted(doors.REPLIES - {"execute_reply"}))
def test_a_reply_of_another_type_is_no_answer(open_guest: Callable, kind: str):
    """The kernel would wait for the real one for ever: it passes over a boot_reply, for one."""
    probe = open_guest()
    probe.door.begin(REQUEST)
    assert probe.send(kind, {"status": "ok"}, 9) == EINVAL
    assert not probe.door.answered
    assert probe.send("execute_reply", {"status": "ok"}, 9) == SUCCESS


@pytest.mark.parametrize("kind", [t for t in frames.TYPES if t.endswith("_request")])
def test_each_request_has_its_reply(open_guest: Callable, kind: str):
    reply = kind.replace("_request", "_reply")
    if reply not in doors.REPLIES:
        assert kind in {
            "interrupt_request", "info_request", "checkpoint_request", "look_request",
            *frames.QUESTIONS,
        }  # fmt: skip
        return
    probe = open_guest()
    probe.door.begin(Frame(kind, {}, 4))
    assert probe.send(reply, {}, 4) == SUCCESS
    assert probe.door.answered


@pytest.mark.parametrize("kind", ["comm_open", "comm_msg", "comm_close"])
def test_a_comm_message_of_the_front_end_is_answered_too(open_guest: Callable, kind: str):
    probe = open_guest()
    probe.door.begin(Frame(kind, {}, 4))
    assert probe.send("comm_reply", {}, 4) == SUCCESS


SAID_BY_OTHERS = sorted(
    set(frames.TYPES)
    - doors.OUTPUT
    - doors.REPLIES
    - {*frames.QUESTIONS, "info_request", "checkpoint_request", "look_request"}
)


@pytest.mark.parametrize("kind", SAID_BY_OTHERS)
def test_what_only_the_kernel_or_the_worker_says_is_refused(open_guest: Callable, kind: str):
    probe = open_guest()
    probe.door.begin(REQUEST)
    assert probe.send(kind, {"ename": "x", "fatal": True}, 9) == EINVAL
    assert probe.kernel.sent == []


def patched(data: bytes, at: int, replacement: bytes) -> bytes:
    return data[:at] + replacement + data[at + len(replacement) :]


STREAM = frames.encode(Frame("comm_msg", {"comm_id": "x"}, 9, {}, (b"1234", b"56")))
DEEP = b"[" * 100_000 + b"]" * 100_000


def framed(body: bytes) -> bytes:
    kind = frames.INDEX["display_data"]
    return struct.pack("<IHHII", len(body) + 12, kind, 0, 9, len(body)) + body


@pytest.mark.parametrize(
    "data",
    [
        b"x", b"\n", b"text\n", b"\0", b"\0" * 4, b"\0" * 7, b"\0" * 8, b"\xff" * 64,
        struct.pack("<II", 0, 6), struct.pack("<II", 0, 0xFFFFFFFF), struct.pack("<II", 0, TRAY),
        STREAM[:-1], STREAM + b"\0", STREAM * 2, STREAM[:16], STREAM[:15], STREAM[:5],
        patched(STREAM, 4, b"\xff\xff"), patched(STREAM, 6, b"\xff\xff"),
        patched(STREAM, 12, b"\xff\xff\xff\xff"), patched(STREAM, 0, b"\xff\xff\xff\xff"),
    ],
)  # fmt: skip
def test_what_is_neither_a_frame_nor_a_command_is_refused(open_guest: Callable, data: bytes):
    probe = open_guest()
    lay_tray(probe)
    probe.door.begin(REQUEST)
    assert probe.write(0, data) == EINVAL
    assert probe.kernel.sent == []
    assert not probe.door.answered
    assert probe.read(0, 1000) == (SUCCESS, frames.encode(REQUEST))


@pytest.mark.parametrize(
    "data",
    [
        framed(b""), framed(b"{}"), framed(b"[]"), framed(b"\xff" * 20), framed(b'{"content": 1}'),
        framed(b'{"content":{"data":' + DEEP + b'},"metadata":{}}'),
        patched(STREAM, 16, b"\xff\xff\xff\xff"), patched(STREAM, 16, b"\0"),
    ],
)  # fmt: skip
def test_a_frame_that_the_kernel_could_not_read_is_refused(open_guest: Callable, data: bytes):
    """Its head is right; forwarded, it would end the kernel's stream and with it the session."""
    probe = open_guest()
    probe.door.begin(REQUEST)
    assert probe.write(0, data) == EINVAL
    assert probe.kernel.sent == []


def test_an_empty_write(open_guest: Callable):
    probe = open_guest()
    assert probe.write(0, b"") == EINVAL
    for fd in (1, 2):
        assert probe.write(fd, b"") == SUCCESS
        assert probe.u32(probe.OUT) == 0
    assert probe.kernel.sent == []


# -- text ----------------------------------------------------------------------------------------


def test_text_from_c_is_a_stream(open_guest: Callable):
    probe = open_guest()
    probe.door.begin(REQUEST)
    probe.write(1, b"out\xc3")
    probe.write(2, b"err\n")
    probe.write(1, b"\xa9!\n")
    said = [(f.content["name"], f.content["text"], f.request) for f in probe.kernel.frames()]
    assert said == [("stdout", "out", 9), ("stderr", "err\n", 9), ("stdout", "é!\n", 9)]


def test_bytes_that_are_no_text_are_replaced(open_guest: Callable):
    probe = open_guest()
    probe.write(1, b"a\xffb\xed\xa0\x80c")
    text = probe.kernel.text()
    assert text.startswith("a\ufffdb\ufffd")
    assert text.endswith("c")


def test_half_a_character_stays_in_its_cell(open_guest: Callable):
    probe = open_guest()
    probe.door.begin(REQUEST)
    probe.write(1, b"a\xc3")
    probe.door.end()
    assert probe.kernel.text() == "a\ufffd"
    probe.door.begin(REQUEST._replace(request=10))
    probe.write(1, b"b")
    probe.door.end()
    assert probe.kernel.text() == "a\ufffdb"


@pytest.mark.parametrize("fd", [1, 2])
def test_the_agent_can_see_that_c_code_has_printed(open_guest: Callable, fd: int):
    probe = open_guest()
    probe.write(fd, b"before there is a tray")
    lay_tray(probe)
    put_text(probe, b"the agent's own")
    probe.door.drain()
    assert probe.u32(TRAY_AT + 20) == 0
    probe.write(fd, b"x")
    assert probe.u32(TRAY_AT + 20) == 1


def test_the_tray_is_emptied_by_a_drain_and_by_the_end(open_guest: Callable):
    probe = open_guest()
    assert lay_tray(probe) == SUCCESS
    probe.door.begin(REQUEST)
    probe.door.drain()
    assert probe.kernel.sent == []
    put_text(probe, b"one\n")
    probe.door.drain()
    probe.door.drain()
    put_text(probe, b"two\n")
    put_text(probe, b"three\n")
    probe.door.end()
    assert [f.content["text"] for f in probe.kernel.frames()] == ["one\n", "two\nthree\n"]
    assert {f.request for f in probe.kernel.frames()} == {9}


def test_the_tray_may_be_full_to_its_last_byte(open_guest: Callable):
    probe = open_guest()
    lay_tray(probe)
    put_text(probe, b"x" * CAPACITY)
    probe.door.drain()
    assert probe.kernel.text() == "x" * CAPACITY


def test_text_comes_before_the_frame_that_follows_it(open_guest: Callable):
    probe = open_guest()
    lay_tray(probe)
    probe.door.begin(REQUEST)
    put_text(probe, b"printed")
    probe.send("display_data", {"data": {}}, 9)
    put_text(probe, b"later")
    probe.write(2, b"from C")
    put_text(probe, b"last")
    probe.send("execute_reply", {}, 9)
    kinds = [(f.type, f.content.get("text")) for f in probe.kernel.frames()]
    assert kinds == [
        ("stream", "printed"), ("display_data", None), ("stream", "later"), ("stream", "from C"),
        ("stream", "last"), ("execute_reply", None),
    ]  # fmt: skip


def test_taking_text_switches_the_stream_and_empties_the_tray(open_guest: Callable):
    probe = open_guest()
    lay_tray(probe)
    put_text(probe, b"out")
    assert probe.command(TAKE_STDERR) == SUCCESS
    assert probe.u32(TRAY_AT + 12) == 0
    put_text(probe, b"err")
    assert probe.command(TAKE_STDOUT) == SUCCESS
    put_text(probe, b"out")
    probe.door.drain()
    assert (probe.kernel.text("stdout"), probe.kernel.text("stderr")) == ("outout", "err")


def test_a_nudge_asks_to_be_emptied_soon_and_not_more_often_than_that(open_guest: Callable):
    probe = open_guest()
    lay_tray(probe)
    due: list[float] = []
    probe.door.arm = due.append
    put_text(probe, b"a")
    before = time.monotonic()
    assert probe.command(NUDGE) == SUCCESS
    assert due[0] - before >= doors.LINE_S
    assert due[0] - before < doors.INTERVAL_S
    probe.door.drain()  # something went out just now
    after = time.monotonic()
    assert probe.command(NUDGE) == SUCCESS
    assert due[1] - after > doors.LINE_S
    assert due[1] - after <= doors.INTERVAL_S
    assert probe.kernel.text() == "a"


def test_a_drain_lets_the_guest_nudge_again(open_guest: Callable):
    probe = open_guest()
    lay_tray(probe)
    probe.memory.u32(TRAY_AT + 16).value = 1
    probe.door.drain()
    assert probe.u32(TRAY_AT + 16) == 0


def test_a_guest_from_an_image_goes_on_where_its_tray_was(open_guest: Callable):
    probe = open_guest()
    lay_tray(probe)
    put_text(probe, b"before")
    probe.door.tray = 0
    probe.door.adopt(TRAY_AT, "stdout")
    put_text(probe, b"after")
    probe.door.drain()
    assert probe.kernel.text() == "after"


@pytest.mark.parametrize(
    ("word", "value"),
    [
        (3, CAPACITY + 1), (3, 2**32 - 1), (3, 2**31), (2, 2**32 - 1), (2, 0), (3, SIZE),
        (0, 1), (1, 0), (4, 2**32 - 1),
    ],
)  # fmt: skip
def test_a_guest_that_plays_with_its_tray_harms_itself_only(
    open_guest: Callable, word: int, value: int
):
    probe = open_guest()
    lay_tray(probe)
    put_text(probe, b"first")
    probe.door.drain()
    probe.memory.u32(TRAY_AT + 4 * word).value = value
    probe.door.drain()
    probe.door.drain()
    assert sum(map(len, probe.kernel.sent)) < 1000
    # the next frame still gets through
    assert probe.send("clear_output", {"wait": False}) == SUCCESS
    assert probe.kernel.frames()[-1].type == "clear_output"


def test_a_guest_that_moves_its_counters_at_random(open_guest: Callable):
    probe = open_guest()
    lay_tray(probe)
    rng = random.Random(3)  # noqa: S311 - a seed, not a secret
    numbers = [0, 1, 5, CAPACITY - 1, CAPACITY, CAPACITY + 1, SIZE, 2**31, 2**32 - 1]
    for _ in range(3000):
        probe.memory.u32(TRAY_AT + 4 * rng.randrange(5)).value = rng.choice(numbers)
        rng.choice((probe.door.drain, lambda: probe.command(TAKE_STDOUT)))()
    sent = [f for f in probe.kernel.frames() if "[wasi-kernel]" not in f.content["text"]]
    assert max((len(f.content["text"]) for f in sent), default=0) <= CAPACITY


def test_a_capacity_that_grew_later_does_not_count(open_guest: Callable, wat: Callable):
    """Else a guest makes the host copy, decode and encode all its memory at once."""
    probe = open_guest(wat(pages=1024))
    lay_tray(probe)
    probe.memory.u32(TRAY_AT + 8).value = 50 * MIB
    probe.memory.u32(TRAY_AT + 12).value = 50 * MIB
    probe.door.drain()
    assert sum(map(len, probe.kernel.sent)) < 10_000


@pytest.mark.parametrize(
    ("at", "length", "capacity"),
    [
        (SIZE - TRAY_HEAD, TRAY_HEAD + 100, 100),  # its end lies outside
        (TRAY_AT, TRAY_HEAD + 100, 99), (TRAY_AT, TRAY_HEAD + 100, 2**32 - 1),
        (TRAY_AT, TRAY_HEAD, 0), (TRAY_AT, 8, 0),
    ],
)  # fmt: skip
def test_a_tray_that_cannot_be_is_refused(
    open_guest: Callable, at: int, length: int, capacity: int
):
    probe = open_guest()
    probe.memory.write(at, struct.pack("<IIIII", 0, TRAY, capacity, 0, 0))
    errno = probe.call("fd_write", 0, *probe.iovecs((at, length)), probe.OUT)
    assert errno in (EINVAL, EFAULT)
    assert probe.door.tray == 0


def test_a_tray_made_of_pieces_that_lie_apart_reaches_no_further_than_memory(open_guest: Callable):
    probe = open_guest()
    head = struct.pack("<IIIII", 0, TRAY, 1000, 900, 0).ljust(TRAY_HEAD, b"\0")
    at = SIZE - TRAY_HEAD
    probe.memory.write(at, head)
    probe.call("fd_write", 0, *probe.iovecs((at, TRAY_HEAD), (0, 1000)), probe.OUT)
    probe.door.drain()
    assert probe.kernel.sent == []


# -- limits --------------------------------------------------------------------------------------


def notices(probe: Any) -> list[str]:
    said = [f.content.get("text", "") for f in probe.kernel.frames() if f.type == "stream"]
    return [text for text in said if "[wasi-kernel]" in text]


def test_output_has_a_cap_with_one_notice(open_guest: Callable):
    probe = open_guest(output_bytes=10_000)
    lay_tray(probe)
    probe.door.begin(REQUEST)
    for _ in range(50):
        put_text(probe, b"x" * 500)
        probe.command(TAKE_STDOUT)
        assert probe.write(2, b"y" * 500) == SUCCESS
        assert probe.send("display_data", {"data": "z" * 500}, 9) == SUCCESS
    (notice,) = notices(probe)
    assert "output_bytes" in notice
    shown = sum(map(len, probe.kernel.sent))
    assert 9000 < shown < 10_000 + len(notice) + 200
    assert probe.send("execute_reply", {"status": "ok"}, 9) == SUCCESS  # the reply always passes
    probe.door.end()
    probe.door.begin(REQUEST)
    probe.write(1, b"next cell")
    assert probe.kernel.frames()[-1].content["text"] == "next cell"


def test_a_message_too_large_is_dropped_with_a_notice(open_guest: Callable):
    probe = open_guest(message_bytes=2000)
    probe.door.begin(REQUEST)
    fits = {"data": "x" * 1900}
    assert probe.send("display_data", fits, 9) == SUCCESS
    assert probe.kernel.frames()[0].content == fits
    assert probe.send("display_data", {"data": "x" * 2000}, 9) == SUCCESS
    assert probe.u32(probe.OUT) > 2000  # all of it was taken, so that the agent goes on
    (notice,) = notices(probe)
    assert "message_bytes" in notice
    assert len(probe.kernel.sent) == 2


def test_a_reply_too_large_does_not_count_as_an_answer(open_guest: Callable):
    probe = open_guest(message_bytes=2000)
    probe.door.begin(REQUEST)
    probe.send("execute_reply", {"data": "x" * 3000}, 9)
    assert not probe.door.answered


def test_text_comes_before_the_notice_about_what_followed_it(open_guest: Callable):
    probe = open_guest(message_bytes=2000)
    lay_tray(probe, capacity=1000)
    put_text(probe, b"before")
    probe.send("display_data", {"data": "x" * 3000})
    first, second = [f.content["text"] for f in probe.kernel.frames()]
    assert first == "before"
    assert "message_bytes" in second


def test_a_tray_is_no_message(open_guest: Callable):
    """Its text goes out in pieces; how large one message may be does not matter to it."""
    probe = open_guest(message_bytes=2000)
    assert lay_tray(probe) == SUCCESS
    put_text(probe, b"text")
    probe.door.drain()
    assert probe.kernel.text() == "text"


def test_messages_too_large_without_end_fill_nothing(open_guest: Callable):
    probe = open_guest(message_bytes=2000, output_bytes=5000)
    probe.door.begin(REQUEST)
    probe.memory.write(probe.DATA, bytes(3000))
    vectors = probe.iovecs((probe.DATA, 3000))
    for _ in range(1000):
        assert probe.call("fd_write", 0, *vectors, probe.OUT) == SUCCESS
    assert sum(map(len, probe.kernel.sent)) < 10_000


@pytest.mark.parametrize("kind", frames.QUESTIONS)
def test_questions_without_end_fill_nothing(open_guest: Callable, kind: str):
    """Each may be as large as a message, and none needs to be read by the guest."""
    probe = open_guest(message_bytes=2000, output_bytes=5000)
    probe.door.begin(REQUEST)
    for _ in range(100):
        probe.send(kind, {"prompt": "x" * 1500}, 9)
    assert sum(map(len, probe.kernel.sent)) < 10_000


def test_one_large_write_from_c_is_within_the_cap(open_guest: Callable, wat: Callable):
    """Every NUL takes six bytes of JSON: a frame would be larger than any frame may be."""
    probe = open_guest(wat(pages=1024))
    probe.door.begin(REQUEST)
    for fd in (1, 2):
        vectors = probe.iovecs((1 << 20, 50 * MIB))
        assert probe.call("fd_write", fd, *vectors, probe.OUT) == SUCCESS
    assert sum(map(len, probe.kernel.sent)) < 2 * MIB


def test_the_worker_holds_little_of_a_large_write_from_c(open_guest: Callable, wat: Callable):
    """It copied all of it, twice: as much memory as the guest may have, and as much again."""
    probe = open_guest(wat(pages=3200))
    probe.door.begin(REQUEST)
    vectors = probe.iovecs((1 << 20, 90 * MIB), (1 << 20, 90 * MIB))
    tracemalloc.start()
    try:
        assert probe.call("fd_write", 1, *vectors, probe.OUT) == SUCCESS
        assert tracemalloc.get_traced_memory()[1] < 4 * doors.WRITE_BYTES
    finally:
        tracemalloc.stop()
    assert probe.u32(probe.OUT) == doors.WRITE_BYTES


def test_a_write_from_c_that_is_cut_can_be_gone_on_with(open_guest: Callable, wat: Callable):
    size = doors.WRITE_BYTES + 3
    probe = open_guest(wat(pages=600), output_bytes=2 * size)
    probe.door.begin(REQUEST)
    probe.memory.write(1 << 20, b"a" * doors.WRITE_BYTES + b"end")
    vectors = probe.iovecs((1 << 20, 5), (0, 0), ((1 << 20) + 5, size - 5))
    assert probe.call("fd_write", 2, *vectors, probe.OUT) == SUCCESS
    assert probe.u32(probe.OUT) == doors.WRITE_BYTES
    vectors = probe.iovecs(((1 << 20) + doors.WRITE_BYTES, 3))
    assert probe.call("fd_write", 2, *vectors, probe.OUT) == SUCCESS
    assert probe.u32(probe.OUT) == 3
    assert probe.kernel.text("stderr") == "a" * doors.WRITE_BYTES + "end"


# -- pointers, lengths and counts of a hostile guest ---------------------------------------------

ERRNOS = {SUCCESS, EFAULT, EINTR, EINVAL, EIO, ENOTSUP}


def hostile_numbers(rng: random.Random) -> Callable[[], int]:
    """Numbers that hurt: around every edge of memory and of 32 bits."""
    edges = [
        0, 1, 3, 4, 7, 8, 31, 32, 2040, 2048, 8192, TRAY_AT, SIZE, SIZE - 1, SIZE - 4, SIZE - 8,
        SIZE - 48, SIZE + 1, 1 << 20, 2**31 - 1, 2**31, 2**31 + 8, 2**32 - 1, 2**32 - 4, 2**32 - 8,
    ]  # fmt: skip
    return lambda: rng.choice(edges) if rng.random() < 0.8 else rng.randrange(2**32)


def test_hostile_arguments_get_an_errno(open_guest: Callable):
    """Beyond memory lie guard pages: a single byte touched there ends this process."""
    probe = open_guest(output_bytes=10_000, message_bytes=2000)
    lay_tray(probe, capacity=1000)
    rng = random.Random(11)  # noqa: S311 - a seed, not a secret
    number, seen = hostile_numbers(rng), set()
    probe.door.begin(REQUEST)
    calls = ("fd_read", "fd_write", "fd_write", "poll_oneoff", "fd_fdstat_get", "fd_filestat_get")
    for k in range(10_000):
        if k % 10 == 0:
            vectors = [(number(), number()) for _ in range(3)]
            probe.memory.write(probe.IOVS, b"".join(struct.pack("<II", *v) for v in vectors))
        name, iovs = rng.choice(calls), rng.choice((probe.IOVS, number()))
        count = rng.choice((1, 2, 3, doors.MAX_IOVECS, number()))
        if name == "poll_oneoff":
            errno = probe.call(name, iovs, number(), count, number())
        elif name in ("fd_read", "fd_write"):
            fd = 0 if name == "fd_read" else rng.randrange(3)
            errno = probe.call(name, fd, iovs, count, number())
        else:
            errno = probe.call(name, rng.randrange(3), number())
        seen.add(errno)
    assert seen <= ERRNOS
    assert {SUCCESS, EFAULT, EINVAL} <= seen
    assert probe.guest._host.failure is None


def test_hostile_frames_get_an_errno(open_guest: Callable):
    """Damaged frames: what is forwarded is a frame, and all of it together keeps to the limits."""
    probe = open_guest(output_bytes=20_000, message_bytes=2000)
    lay_tray(probe, capacity=1000)
    rng = random.Random(12)  # noqa: S311 - a seed, not a secret
    probe.door.begin(REQUEST)
    seen = set()
    for _ in range(3000):
        kind = rng.choice([t for t in frames.TYPES if t not in frames.QUESTIONS])
        data = bytearray(frames.encode(Frame(kind, {"a": "b"}, rng.choice((0, 9)), {}, (b"xyz",))))
        for _ in range(rng.randrange(3)):
            data[rng.randrange(len(data))] = rng.choice((0, 1, 0x7F, 0xFF))
        seen.add(probe.write(0, bytes(data)))
    assert seen == {SUCCESS, EINVAL}
    assert probe.guest._host.failure is None
    assert sum(map(len, probe.kernel.sent)) < 25_000
    assert probe.kernel.frames()


def test_results_are_written_only_where_they_belong(open_guest: Callable):
    """A successful call changes the bytes that WASI says, and no other byte of memory."""
    probe = open_guest()
    pattern = bytes(range(1, 252)) * (SIZE // 251 + 1)
    sizes = {"fd_fdstat_get": 24, "fd_filestat_get": 64}
    for name, size in sizes.items():
        for fd in (0, 1, 2):
            probe.memory.write(0, pattern[:SIZE])
            assert probe.call(name, fd, 4096) == SUCCESS
            got = probe.memory.read(0, SIZE)
            assert got[:4096] == pattern[:4096]
            assert got[4096 + size :] == pattern[4096 + size : SIZE]
            assert got[4096 : 4096 + size] != pattern[4096 : 4096 + size]
    for at in (SIZE - 63, SIZE, 2**32 - 1):
        for name, size in sizes.items():
            assert probe.call(name, 0, at) == (SUCCESS if at + size <= SIZE else EFAULT)


def test_a_door_without_memory_answers_with_an_errno(kernel: Any):
    door = Door(kernel, output_bytes=MIB, message_bytes=MIB)
    assert door.door_write(0, 0, 1, 8) == EIO
    assert door.door_read(0, 0, 1, 8) in (EIO, ENOTSUP)
    assert door.fdstat_get(0, 0) == door.filestat_get(0, 0) == EIO
    assert door.poll_oneoff(0, 48, 1, 100) == EIO
    door.drain()


def test_a_standard_fd_is_a_character_device(open_guest: Callable):
    probe = open_guest()
    for fd in (0, 1, 2):
        assert probe.call("fd_fdstat_get", fd, 4096) == SUCCESS
        filetype, flags = struct.unpack_from("<BxH", probe.memory.read(4096, 24))
        assert (filetype, flags & 4) == (2, 4)  # character device, nonblock
        assert probe.call("fd_filestat_get", fd, 4096) == SUCCESS
        dev, ino, filetype, nlink, size = struct.unpack_from(
            "<QQB7xQQ", probe.memory.read(4096, 64)
        )
        assert (dev, ino, filetype, nlink, size) == (0, fd, 2, 1, 0)


# -- calibration ---------------------------------------------------------------------------------


class Watcher:
    """A calibration that notes what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def flags_are_down(self, memory: Any) -> None:
        self.told.append("down")

    def flags_are_up(self, memory: Any) -> None:
        self.told.append("up")


def test_only_a_calibration_takes_single_bytes(open_guest: Callable):
    probe = open_guest()
    assert probe.write(0, b"\2") == EINVAL
    watcher = probe.door.calibration = Watcher()
    assert probe.call("fd_fdstat_get", 1, 4096) == SUCCESS
    assert watcher.told == []
    assert probe.call("fd_fdstat_get", 0, 4096) == SUCCESS
    assert probe.write(0, b"\2") == SUCCESS
    assert watcher.told == ["down", "up"]
    assert probe.kernel.sent == []


# -- waiting -------------------------------------------------------------------------------------

CLOCK, FD_READ, FD_WRITE = 0, 1, 2  # eventtype, WASI preview 1
REALTIME, MONOTONIC = 0, 1
ABSTIME = 1


def clock(userdata: int, timeout_ns: int, which: int = MONOTONIC, flags: int = 0) -> bytes:
    return struct.pack("<QB7xI4xQQH6x", userdata, CLOCK, which, timeout_ns, 0, flags)


def descriptor(userdata: int, kind: int, fd: int) -> bytes:
    return struct.pack("<QB7xI", userdata, kind, fd).ljust(48, b"\0")


def poll(probe: Any, *subscriptions: bytes) -> tuple[int, list[tuple[int, int, int]]]:
    """(errno, [(userdata, error, type) of each event])."""
    probe.memory.write(16_384, b"".join(subscriptions))
    probe.memory.write(32_768, b"\xff" * 32 * len(subscriptions))
    errno = probe.call("poll_oneoff", 16_384, 32_768, len(subscriptions), probe.OUT)
    count = probe.u32(probe.OUT) if errno == SUCCESS else 0
    events = [
        struct.unpack("<QHB5xQH6x", probe.memory.read(32_768 + 32 * k, 32)) for k in range(count)
    ]
    return errno, [(userdata, error, kind) for userdata, error, kind, _, _ in events]


@pytest.mark.parametrize(
    ("timeout_ns", "wait_s"), [(0, 0), (1, 1e-9), (2_500_000_000, 2.5), (2**64 - 1, 1.8446744e10)]
)
def test_a_relative_clock_waits_that_long(open_guest: Callable, timeout_ns: int, wait_s: float):
    probe = open_guest()
    assert poll(probe, clock(7, timeout_ns)) == (SUCCESS, [(7, 0, CLOCK)])
    assert probe.kernel.waited == [pytest.approx(wait_s)]


def test_an_absolute_clock_waits_until_then(open_guest: Callable):
    probe = open_guest()
    then = probe.guest.monotonic_ns() + 3_600 * 10**9
    assert poll(probe, clock(7, then, MONOTONIC, ABSTIME)) == (SUCCESS, [(7, 0, CLOCK)])
    then = time.time_ns() + 7_200 * 10**9
    assert poll(probe, clock(8, then, REALTIME, ABSTIME)) == (SUCCESS, [(8, 0, CLOCK)])
    for past in (0, 1, probe.guest.monotonic_ns() - 1):
        poll(probe, clock(9, past, MONOTONIC, ABSTIME))
    assert probe.kernel.waited[:2] == [pytest.approx(3600, abs=60), pytest.approx(7200, abs=60)]
    assert probe.kernel.waited[2:] == [0, 0, 0]


def test_the_clock_that_an_absolute_time_means_is_the_guests_own(open_guest: Callable):
    """It starts near zero with the guest; the host's has run since the machine started."""
    probe = open_guest()
    assert probe.call("clock_time_get", MONOTONIC, 1, 4096) == SUCCESS
    now = int.from_bytes(probe.memory.read(4096, 8), "little")
    poll(probe, clock(7, now + 3_600 * 10**9, MONOTONIC, ABSTIME))
    assert probe.kernel.waited == [pytest.approx(3600, abs=60)]


def test_the_earliest_of_several_clocks_ends_the_wait(open_guest: Callable):
    probe = open_guest()
    assert poll(probe, clock(1, 5 * 10**9), clock(2, 10**9), clock(3, 9 * 10**9)) == (
        SUCCESS, [(2, 0, CLOCK)],
    )  # fmt: skip
    assert probe.kernel.waited == [1.0]


def test_descriptors_are_ready_at_once(open_guest: Callable):
    probe = open_guest()
    errno, events = poll(
        probe, clock(1, 10**12), descriptor(2, FD_READ, 0), descriptor(3, FD_WRITE, 5)
    )
    assert (errno, events) == (SUCCESS, [(2, 0, FD_READ), (3, 0, FD_WRITE)])
    assert probe.kernel.waited == []


def test_an_interrupt_ends_a_wait_as_if_its_time_had_come(open_guest: Callable):
    probe = open_guest()
    probe.kernel.interrupted = True
    assert poll(probe, clock(7, 10**12)) == (SUCCESS, [(7, 0, CLOCK)])


@pytest.mark.parametrize("count", [0, doors.MAX_SUBSCRIPTIONS + 1, 2**31, 2**32 - 1])
def test_a_count_of_subscriptions_that_cannot_be(open_guest: Callable, count: int):
    probe = open_guest()
    assert probe.call("poll_oneoff", 16_384, 32_768, count, probe.OUT) == EINVAL


def test_pointers_of_a_wait_are_checked(open_guest: Callable):
    probe = open_guest()
    probe.memory.write(16_384, clock(7, 0))
    for arguments in (
        (SIZE - 47, 32_768, 1, 8), (2**32 - 1, 32_768, 1, 8), (16_384, SIZE - 31, 1, 8),
        (16_384, 2**32 - 1, 1, 8), (16_384, 32_768, 1, SIZE - 3),
        (16_384, 0, doors.MAX_SUBSCRIPTIONS, 2**31),
    ):  # fmt: skip
        assert probe.call("poll_oneoff", *arguments) == EFAULT


# -- the end -------------------------------------------------------------------------------------

DRAIN_LATE = """
import sys
from pathlib import Path
from wasi_kernel.caches import Cache
from wasi_kernel.policy import Limits
from wasi_kernel.worker import engine as engines
from wasi_kernel.worker.door import Door
from wasi_kernel.worker.guest import Guest
from wasi_kernel.worker.capture import Capture

cache, engine, capture = Cache(Path(sys.argv[1])), engines.make_engine(1 << 20), Capture()
door = Door(capture, output_bytes=1 << 20, message_bytes=1 << 20)
module = engines.small_module(engine, cache, sys.argv[2])
guest = Guest(engine, cache, module, door, preopens=[], env={}, argv=[], limits=Limits())
guest.memory.write(65536, b"".join(n.to_bytes(4, "little") for n in (0, 1, 100, 5, 1)))
guest.memory.write(65536 + 32, b"hello")
door.tray = 65536
guest.close()
guest.close()
door.drain()
door.end()
print([f.content for f in capture.frames])
"""


def test_a_drain_after_the_guest_is_closed_touches_nothing(
    cache: Any, wat: Callable, tmp_path: Any
):
    """The worker's main thread drains when it is due, also when the guest has just died.

    In a process of its own: what is shown is that it lives.
    """
    done = subprocess.run(
        [sys.executable, "-c", DRAIN_LATE, str(cache.path), wat()],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr[-1000:]
