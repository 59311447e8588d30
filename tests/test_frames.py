"""Shows that frames survive any way of arriving, and that no bytes do anything but `FrameError`."""

from __future__ import annotations

import contextlib
import json
import math
import random
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wasi_kernel import frames
from wasi_kernel.frames import Decoder, Frame, FrameError

TEXT = st.text(max_size=20)  # includes lone surrogates and NUL
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=6,
)  # fmt: skip
FRAME = st.builds(
    Frame,
    st.sampled_from(frames.TYPES),
    st.dictionaries(TEXT, JSON, max_size=4),
    st.integers(0, 2**32 - 1),
    st.dictionaries(TEXT, JSON, max_size=2),
    st.lists(st.binary(max_size=40), max_size=3).map(tuple),
)
QUICK = settings(max_examples=50, deadline=None)


@QUICK
@given(FRAME)
def test_a_frame_is_read_back_as_it_was(frame: Frame):
    data = frames.encode(frame)
    assert frames.decode(data) == frame
    assert frames.decode(memoryview(data)) == frame
    assert frames.peek(data) == (len(data), frame.type, frame.request)


@QUICK
@given(st.lists(FRAME, max_size=4), st.data())
def test_a_stream_may_arrive_in_pieces_of_any_size(sent: list[Frame], data: st.DataObject):
    stream = b"".join(frames.encode(f) for f in sent)
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=10).map(sorted))
    decoder, got = Decoder(), []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        got += decoder.feed(stream[start:end])
    assert got == sent


def test_a_stream_may_arrive_byte_by_byte():
    sent = [Frame("stream", {"text": "é"}, 7), Frame("comm_msg", {}, 0, {}, (b"ab", b""))]
    decoder = Decoder()
    stream = b"".join(frames.encode(f) for f in sent)
    got = [f for k in range(len(stream)) for f in decoder.feed(stream[k : k + 1])]
    assert got == sent


def test_a_frame_is_given_out_with_its_last_byte():
    decoder, data = Decoder(), frames.encode(Frame("stream", {"text": "x"}))
    assert decoder.feed(data[:-1]) == []
    assert decoder.feed(data[-1:]) == [Frame("stream", {"text": "x"})]


# -- bytes from strangers ------------------------------------------------------------------------


def decoded(data: bytes) -> Frame | None:
    """The frame, or None for a FrameError; anything else that is raised fails the test."""
    try:
        return frames.decode(data)
    except FrameError:
        return None


@QUICK
@given(FRAME, st.data())
def test_a_truncated_frame_is_none(frame: Frame, data: st.DataObject):
    whole = frames.encode(frame)
    assert decoded(whole[: data.draw(st.integers(0, len(whole) - 1))]) is None
    assert decoded(whole + b"\0") is None


@QUICK
@given(st.binary(max_size=200))
def test_garbage_raises_frame_error_or_waits(data: bytes):
    decoded(data)
    with contextlib.suppress(FrameError):
        Decoder().feed(data)


def test_damaged_frames_raise_frame_error_only():
    rng = random.Random(20)  # noqa: S311 - a seed, not a secret
    content = {"data": {"text/plain": "é" * 20, "n": [1, 2.5, None]}, "metadata": {}}
    whole = frames.encode(Frame("display_data", content, 9, {"a": 1}, (b"12345", b"6")))
    refused = 0
    for _ in range(5000):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        refused += decoded(bytes(data)) is None
    assert 1000 < refused < 5000  # damage inside the text is still a frame


def head(size: int, kind: int = 0, buffers: int = 0, request: int = 0, header: int = 0) -> bytes:
    return struct.pack("<IHHII", size, kind, buffers, request, header)


@pytest.mark.parametrize(
    "data",
    [
        head(12, kind=len(frames.TYPES)),
        head(12, kind=0xFFFF),
        head(0),
        head(11),
        head(0xFFFFFFFF, header=10),
        head(frames.MAX_FRAME_BYTES + 1),
        head(100_000, buffers=frames.MAX_BUFFERS + 1),
        head(12, buffers=1),
        head(12, header=1),
        head(12, header=0xFFFFFFFF),
        head(frames.MAX_FRAME_BYTES, buffers=0xFFFF, header=0xFFFFFFFF),
    ],
)
def test_a_head_that_cannot_be_is_refused_before_the_rest_arrives(data: bytes):
    with pytest.raises(FrameError):
        frames.peek(data)
    with pytest.raises(FrameError):
        Decoder().feed(data)


def framed(body: bytes, lengths: tuple[int, ...] = (), tail: bytes = b"") -> bytes:
    """A frame with this body, whose outer lengths add up."""
    table = struct.pack(f"<{len(lengths)}I", *lengths)
    size = frames.HEAD_BYTES - 4 + len(table) + len(body) + len(tail)
    return head(size, 19, len(lengths), 1, len(body)) + table + body + tail


@pytest.mark.parametrize(
    "data",
    [
        framed(b""),
        framed(b"{"),
        framed(b"[]"),
        framed(b"1"),
        framed(b"{}"),
        framed(b'{"content": {}}'),
        framed(b'{"content": [], "metadata": {}}'),
        framed(b'{"content": {}, "metadata": null}'),
        framed(b'{"content": {"\xff": 1}, "metadata": {}}'),
        framed(b'{"content": {"n": ' + b"[" * 100_000 + b"]" * 100_000 + b'}, "metadata": {}}'),
        framed(b'{"content": {}, "metadata": {}}', (1,), b""),
        framed(b'{"content": {}, "metadata": {}}', (1,), b"ab"),
        framed(b'{"content": {}, "metadata": {}}', (0xFFFFFFFF, 1), b"ab"),
        framed(b'{"content": {}, "metadata": {}}', (), b"x"),
    ],
)
def test_a_body_that_is_none_is_refused(data: bytes):
    with pytest.raises(FrameError):
        frames.decode(data)


# -- limits --------------------------------------------------------------------------------------


def test_the_largest_frame_passes_and_one_byte_more_does_not():
    empty = len(frames.encode(Frame("comm_msg", {}, 0, {}, (b"",)))) - 4
    room = bytes(frames.MAX_FRAME_BYTES - empty)
    data = frames.encode(Frame("comm_msg", {}, 0, {}, (room,)))
    assert frames.peek(data)[0] == len(data) == frames.MAX_FRAME_BYTES + 4
    with pytest.raises(FrameError, match="at most"):
        frames.encode(Frame("comm_msg", {}, 0, {}, (room, b"")))


def test_as_many_buffers_as_allowed_pass_and_one_more_does_not():
    frame = Frame("comm_msg", {}, 0, {}, (b"x",) * frames.MAX_BUFFERS)
    assert frames.decode(frames.encode(frame)) == frame
    with pytest.raises(FrameError, match="buffers"):
        frames.encode(frame._replace(buffers=(b"x",) * (frames.MAX_BUFFERS + 1)))


def test_buffers_may_be_anything_contiguous():
    words = memoryview(bytearray(8)).cast("I")
    words[0] = 1
    got = frames.decode(frames.encode(Frame("comm_msg", {}, 0, {}, (words, bytearray(b"a")))))
    assert got.buffers == (b"\1\0\0\0\0\0\0\0", b"a")


# -- what JSON cannot say ------------------------------------------------------------------------


class Odd:
    def __repr__(self) -> str:
        return "<odd>"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (math.nan, "nan"),
        (math.inf, "inf"),
        (-math.inf, "-inf"),
        ([1.5, {"x": math.nan}], [1.5, {"x": "nan"}]),
        (Odd(), "<odd>"),
        ((1, 2), [1, 2]),
        ({3}, [3]),
        ({1: 2, None: 3, Odd(): 4}, {"1": 2, "None": 3, "<odd>": 4}),
        (b"\0", "b'\\x00'"),
        ("\ud800", "\ud800"),
    ],
)
def test_what_json_cannot_say_becomes_text(value: object, expected: object):
    data = frames.encode(Frame("stream", {"v": value}))
    json.loads(data[frames.HEAD_BYTES :], parse_constant=pytest.fail)
    assert frames.decode(data).content == {"v": expected}


def test_numbers_of_other_types_stay_numbers():
    class Int(int):
        pass

    class Float(float):
        pass

    got = frames.decode(frames.encode(Frame("stream", {"v": [Int(3), Float(1.5), True, {1}]})))
    assert got.content == {"v": [3, 1.5, True, [1]]}


def test_deep_content_is_cut_not_refused():
    value: list[object] = []
    for _ in range(100_000):
        value = [value]
    got = frames.decode(frames.encode(Frame("stream", {"v": value}))).content["v"]
    depth = 0
    while isinstance(got, list):
        got, depth = got[0] if got else None, depth + 1
    assert depth > 100
    assert isinstance(got, str)
    while value:  # freed from inside out: the interpreter's own recursion is no part of this
        value = value.pop()  # type: ignore[assignment]


def test_what_is_cut_says_so():
    assert frames.jsonable([[{"a": {}}]], depth=3) == [[{"a": "{...}"}]]
    assert frames.jsonable({"a": [[]]}, depth=2) == {"a": ["[...]"]}
    assert frames.jsonable([[], Odd(), "x", 1], depth=1) == ["[...]", "<odd>", "x", 1]


def test_the_same_content_twice_is_no_content_that_contains_itself():
    part = [1]
    assert frames.jsonable([part, part, {"a": part}]) == [[1], [1], {"a": [1]}]


def test_content_that_contains_itself_is_cut():
    value: list[object] = []
    value.append(value)
    assert frames.decode(frames.encode(Frame("stream", {"v": value}))).content["v"]


def test_content_that_contains_itself_twice_does_not_double_at_each_level():
    """At the usual depth of 200 that would never end."""
    value: list[object] = []
    value += [value, value]
    assert len(json.dumps(frames.jsonable(value, depth=14))) < 10_000


def test_what_has_no_text_either_is_a_frame_error():
    with pytest.raises(FrameError, match="not JSON"):
        frames.encode(Frame("stream", {"v": 10**5000}))


def test_names_of_numbers_that_json_does_not_have_are_read_as_text():
    data = framed(b'{"content": {"v": [NaN, Infinity, -Infinity]}, "metadata": {}}')
    assert frames.decode(data).content == {"v": ["NaN", "Infinity", "-Infinity"]}


def test_what_is_read_can_be_written_again():
    """A front end's encoder refuses infinities, so none may come out of a guest's frame."""
    for number in ("1e999", "-1e999", "1E+400", "9" * 400 + ".0"):
        body = f'{{"content": {{"v": [1.5, {{"x": {number}}}]}}, "metadata": {{}}}}'
        content = frames.decode(framed(body.encode())).content
        assert content == {"v": [1.5, {"x": number}]}
        json.dumps(content, allow_nan=False)


def test_the_wire_order_is_append_only():
    assert frames.TYPES[:4] == (
        "boot_request",
        "execute_request",
        "complete_request",
        "inspect_request",
    )
    assert frames.TYPES.index("stream") == 19
    assert frames.TYPES.index("lost") == 32
    assert len(set(frames.TYPES)) == len(frames.TYPES)


def test_an_integer_of_too_many_digits_is_its_text():
    """Python refuses to read it, and a guest may have lifted its own limit before it wrote one."""
    digits = "1" * 5000
    text = f'{{"content":{{"a":[{digits},7,1e999]}},"metadata":{{}}}}'.encode()
    head = struct.pack(
        "<IHHII", frames.HEAD_BYTES - 4 + len(text), frames.INDEX["display_data"], 0, 1, len(text)
    )
    assert frames.decode(head + text).content == {"a": [digits, 7, "1e999"]}
