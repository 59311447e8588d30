"""What must hold for any bytes that come to a decoder, as targets for a fuzzer.

With atheris (from PyPI, no dependency of this project), for as long as wanted:

    python tests/fuzz/decoders.py frames -max_total_time=300
    python tests/fuzz/decoders.py records -max_total_time=300

What follows the target's name is libFuzzer's: options, and folders of inputs to begin with. Without
atheris, test_decoders.py gives the same targets to hypothesis.
"""

from __future__ import annotations

import struct
import sys
import zlib
from typing import TYPE_CHECKING, Any

from wasi_kernel import frames, records

if TYPE_CHECKING:
    from collections.abc import Callable

CRC_AT = records.RECORD_BYTES - 4


def fed(pieces: list[bytes]) -> tuple[list[frames.Frame], bool]:
    """(what a decoder makes of these pieces, did it refuse?)"""
    decoder, found = frames.Decoder(), []
    try:
        for piece in pieces:
            found += decoder.feed(piece)
    except frames.FrameError:
        return found, True
    return found, False


def check_frames(data: bytes) -> None:
    """A stream is made of frames or refused, however it arrives; a frame read can be written."""
    whole, refused = fed([data])
    cut = data[0] % (len(data) + 1) if data else 0
    pieces, refused_too = fed([data[:cut], data[cut:]])
    single, refused_singly = fed([data[k : k + 1] for k in range(len(data))])
    assert refused == refused_too == refused_singly
    assert same(single[: len(whole)], whole)
    assert same(single[: len(pieces)], pieces)
    for frame in single:
        again = frames.decode(frames.encode(frame))
        assert same(again, frames.decode(frames.encode(again)))
        assert again.type == frame.type
        assert again.buffers == frame.buffers


def check_records(data: bytes) -> None:
    """A record is one or None; what is one can be written, and is read back the same.

    The checksum is put right first, or no other input would ever get past it.
    """
    assert records.measure(data) is None or len(data) >= records.RECORD_BYTES
    head = struct.pack("<I", records.MAGIC) + data[4:]
    size = records.measure(head)
    if size is None or size[0] > len(head):
        return
    text = bytearray(head[: size[0]])
    text[CRC_AT : CRC_AT + 4] = bytes(4)
    text[CRC_AT : CRC_AT + 4] = struct.pack("<I", zlib.crc32(text))
    found = records.decode(bytes(text), 1, records.PAGE)
    if found is None:
        return
    kind, checkpoint = found
    assert all(run.page + run.count <= checkpoint.pages for run in checkpoint.runs)
    try:
        again = records.encode(kind, checkpoint)
    except ValueError:  # its text is longer than it was: escapes
        return
    size = records.measure(again)
    assert size is not None
    assert same(records.decode(again[: size[0]], 1, records.PAGE), found)


def same(a: Any, b: Any) -> bool:
    """Are they equal? NaN, which JSON has here, is equal to itself."""
    return a == b or repr(a) == repr(b)


TARGETS: dict[str, Callable[[bytes], None]] = {"frames": check_frames, "records": check_records}


def main() -> None:
    import atheris

    target = TARGETS[sys.argv[1]]
    for each in (frames, records):
        for name, value in vars(each).copy().items():
            if callable(value) and getattr(value, "__module__", "") == each.__name__:
                if isinstance(value, type):
                    continue
                setattr(each, name, atheris.instrument_func(value))
    frames.Decoder.feed = atheris.instrument_func(frames.Decoder.feed)
    atheris.Setup([sys.argv[0], *sys.argv[2:]], target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
