"""Frames: how the kernel, the worker and the guest talk, one message after another.

Rules of this module: standard library only (it also runs inside python.wasm, CPython 3.11 and
newer), no I/O, no clock, no state outside a `Decoder`. What a frame says is what the Jupyter
message of the same name says (https://jupyter-client.readthedocs.io/en/stable/messaging.html).

Wire format, all integers little-endian::

    u32 size        bytes after this word (0: a door command follows, see worker/door.py)
    u16 type        index into TYPES
    u16 buffers     how many binary buffers
    u32 request     number of the request this belongs to; 0: to none
    u32 header      bytes of JSON
    u32 length      of each buffer, `buffers` times
    JSON            {"content": {...}, "metadata": {...}}
    buffers

Nothing here trusts a length: each is checked before it is used to read or to allocate.
"""

from __future__ import annotations

import json
import math
import struct
from typing import Any, NamedTuple

TYPES = (
    # requests: kernel -> worker -> guest
    "boot_request",
    "execute_request",
    "complete_request",
    "inspect_request",
    "is_complete_request",
    "comm_info_request",
    "comm_open",
    "comm_msg",
    "comm_close",
    "input_reply",
    "shutdown_request",
    # replies: guest -> worker -> kernel
    "boot_reply",
    "execute_reply",
    "complete_reply",
    "inspect_reply",
    "is_complete_reply",
    "comm_info_reply",
    "comm_reply",
    "shutdown_reply",
    # output: guest -> worker -> kernel
    "stream",
    "display_data",
    "update_display_data",
    "execute_result",
    "error",
    "clear_output",
    "input_request",
    # the worker's own
    "interrupt_request",
    "interrupt_reply",
    "info_request",
    "info_reply",
    "progress",
    "unprepared",
    "lost",
    # checkpoints: asked for by the guest or the kernel; written by the worker
    "checkpoint_request",
    "checkpoint_reply",
    "checkpoint",
    # what a nursery says of the workers that it forks
    "worker_born",
    "worker_ended",
    # what the kernel holds back of a guest's output, asked for by the guest
    "frontend_request",
    "frontend_reply",
    # packages that a cell wants, asked for by the guest
    "pip_request",
    "pip_reply",
    # what the worker sees of its guest from outside, asked for by the guest
    "look_request",
    "look_reply",
    # a turn for tasks that cells have left running
    "idle_request",
    "idle_reply",
)
"""Every frame type, in wire order. Append only: the index is the wire form."""

QUESTIONS = {
    "input_request": "input_reply", "frontend_request": "frontend_reply",
    "pip_request": "pip_reply",
}  # fmt: skip
"""What a guest may ask the kernel while a request of the kernel's is in progress."""

INDEX = {name: k for k, name in enumerate(TYPES)}
MAX_FRAME_BYTES = 256 << 20
MAX_BUFFERS = 4096

_HEAD = struct.Struct("<IHHII")
_U32 = struct.Struct("<I")
HEAD_BYTES = _HEAD.size


class FrameError(ValueError):
    """Bytes that are no frame; `.args[0]` says which rule they break."""


class Frame(NamedTuple):
    """One message.

    Attributes:
        type: One of `TYPES`.
        content: The message's content, as Jupyter names its fields.
        request: The number of the request that this answers or belongs to; 0 for none.
        metadata: The message's metadata.
        buffers: Binary attachments (comm messages), each a bytes-like object.
    """

    type: str
    content: dict[str, Any]
    request: int = 0
    metadata: dict[str, Any] = {}  # noqa: RUF012 - a NamedTuple default, never mutated
    buffers: tuple[Any, ...] = ()


def encode(frame: Frame) -> bytes:
    """The bytes of one frame.

    Raises:
        FrameError: The content cannot be written as JSON, or is larger than a frame may be.
    """
    body = {"content": frame.content, "metadata": frame.metadata}
    try:
        text = json.dumps(body, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
        header = text.encode()  # a lone surrogate is a ValueError: escaped below
    except (TypeError, ValueError, RecursionError):
        try:
            header = json.dumps(jsonable(body), separators=(",", ":")).encode()
        except (TypeError, ValueError, RecursionError) as e:
            raise FrameError(f"{frame.type}: not JSON: {e}") from None
    buffers = [memoryview(b).cast("B") for b in frame.buffers]
    if len(buffers) > MAX_BUFFERS:
        raise FrameError(f"{frame.type}: {len(buffers)} buffers, at most {MAX_BUFFERS}")
    lengths = [len(b) for b in buffers]
    size = HEAD_BYTES - 4 + 4 * len(lengths) + len(header) + sum(lengths)
    if size > MAX_FRAME_BYTES:
        raise FrameError(f"{frame.type}: {size} bytes, at most {MAX_FRAME_BYTES}")
    head = _HEAD.pack(size, INDEX[frame.type], len(buffers), frame.request, len(header))
    return b"".join((head, struct.pack(f"<{len(lengths)}I", *lengths), header, *buffers))


def jsonable(value: Any, depth: int = 200) -> Any:
    """`value` with everything that JSON cannot say replaced by its text.

    NaN and the infinities become their names, as ipykernel sends them; other objects become their
    `repr`. A container that lies deeper than `depth` levels, or in itself, becomes "[...]" or
    "{...}".
    """
    return _jsonable(value, depth, set())


def _jsonable(value: Any, depth: int, path: set[int]) -> Any:
    """`jsonable` for what lies in the containers whose ids are in `path`."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else repr(float(value))
    if not isinstance(value, (dict, list, tuple, set, frozenset)):
        return repr(value)
    if depth == 0 or id(value) in path:  # no repr, which may be as deep, or as long, as it likes
        return "{...}" if isinstance(value, dict) else "[...]"
    path.add(id(value))
    found: Any
    if isinstance(value, dict):
        found = {str(k): _jsonable(v, depth - 1, path) for k, v in value.items()}
    else:
        found = [_jsonable(v, depth - 1, path) for v in value]
    path.discard(id(value))
    return found


def peek(head: bytes | memoryview) -> tuple[int, str, int]:
    """(bytes of the whole frame, its type, its request) from a frame's first HEAD_BYTES bytes.

    Raises:
        FrameError: No such type, or a size that no frame can have.
    """
    size, index, buffers, request, header = _HEAD.unpack_from(head)
    if index >= len(TYPES):
        raise FrameError(f"unknown frame type {index}")
    if size > MAX_FRAME_BYTES or buffers > MAX_BUFFERS:
        raise FrameError(f"{TYPES[index]}: {size} bytes, {buffers} buffers: too large")
    if HEAD_BYTES - 4 + 4 * buffers + header > size:
        raise FrameError(f"{TYPES[index]}: lengths do not add up")
    return size + 4, TYPES[index], request


def decode(data: bytes | memoryview) -> Frame:
    """The frame that `data` is, exactly.

    Raises:
        FrameError: `data` is not one whole frame, or its JSON is not what a frame carries.
    """
    if len(data) < HEAD_BYTES:
        raise FrameError("shorter than a frame's head")
    total, kind, request = peek(data)
    if total != len(data):
        raise FrameError(f"{kind}: {len(data)} bytes where its head says {total}")
    _, _, count, _, header = _HEAD.unpack_from(data)
    lengths = struct.unpack_from(f"<{count}I", data, HEAD_BYTES)
    at = HEAD_BYTES + 4 * count
    if at + header + sum(lengths) != total:
        raise FrameError(f"{kind}: lengths do not add up")
    try:
        body = _read(bytes(data[at : at + header]))
    except (ValueError, RecursionError) as e:
        raise FrameError(f"{kind}: not JSON: {e}") from None
    if not isinstance(body, dict):
        raise FrameError(f"{kind}: its JSON is no object")
    content, metadata = body.get("content"), body.get("metadata")
    if not isinstance(content, dict) or not isinstance(metadata, dict):
        raise FrameError(f"{kind}: content and metadata must be objects")
    at += header
    buffers = []
    for length in lengths:
        buffers.append(bytes(data[at : at + length]))
        at += length
    return Frame(kind, content, request, metadata, tuple(buffers))


def _read(text: bytes) -> Any:
    """What the JSON `text` says.

    A number that no float can hold, such as 1e999, is its text; so is an integer of more digits
    than Python reads.
    """
    try:
        body = json.loads(text, parse_constant=str)
    except json.JSONDecodeError:
        raise
    except ValueError:
        body = json.loads(text, parse_constant=str, parse_int=_readable)
    if _has_infinity(body):
        body = json.loads(text, parse_constant=str, parse_float=_finite, parse_int=_readable)
    return body


def _readable(text: str) -> int | str:
    try:
        return int(text)
    except ValueError:
        return text


def _finite(text: str) -> float | str:
    value = float(text)
    return value if math.isfinite(value) else text


def _has_infinity(body: Any) -> bool:
    """Is there an infinity in what was read?

    Measured with 500,000 floats (CPython 3.11): 17 ms, where `_finite` in each reading takes 47.
    """
    pending = [[body]]
    while pending:
        values = pending.pop()
        for value in values.values() if isinstance(values, dict) else values:
            kind = type(value)
            if kind is float:
                if math.isinf(value):
                    return True
            elif kind is dict or kind is list:
                pending.append(value)
    return False


class Decoder:
    """Cuts a byte stream into frames.

    `feed` takes what arrived, in pieces of any size, and returns the frames that are complete.
    """

    def __init__(self) -> None:
        self._pending = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that `data` completes, in order.

        Raises:
            FrameError: The stream is not made of frames; it cannot be followed any further.
        """
        self._pending += data
        frames, at, have = [], 0, len(self._pending)
        with memoryview(self._pending) as view:
            while have - at >= HEAD_BYTES:
                total, _, _ = peek(view[at : at + HEAD_BYTES])
                if have - at < total:
                    break
                frames.append(decode(view[at : at + total]))
                at += total
        del self._pending[:at]
        return frames
