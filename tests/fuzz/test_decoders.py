"""Shows that what must hold for any bytes that come to a decoder holds, with hypothesis.

The targets are those that decoders.py gives to atheris. $WASI_KERNEL_FUZZ_EXAMPLES asks for more.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wasi_kernel import frames, records
from wasi_kernel.frames import Frame
from wasi_kernel.records import Checkpoint, Run

SCRIPT = Path(__file__).parent / "decoders.py"
MANY = settings(max_examples=int(os.environ.get("WASI_KERNEL_FUZZ_EXAMPLES", "300")), deadline=None)


def load() -> Any:
    spec = importlib.util.spec_from_file_location("decoders", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


DECODERS = load()

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
OBJECT = st.dictionaries(st.text(max_size=5), JSON, max_size=3)
FRAMES = st.builds(
    Frame, st.sampled_from(frames.TYPES), OBJECT, st.integers(0, 2**32 - 1), OBJECT,
    st.lists(st.binary(max_size=9), max_size=3).map(tuple),
).map(frames.encode)  # fmt: skip
RECORDS = st.builds(
    lambda kind, ident, pages, runs, notes: records.encode(
        kind, Checkpoint(ident, 0, pages, tuple(Run(p, n, 0, 5) for p, n in runs), notes, 1)
    ),
    st.integers(0, 3), st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1),
    st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 99)), max_size=3), OBJECT,
)  # fmt: skip


@st.composite
def damaged(draw: st.DrawFn, whole: st.SearchStrategy[bytes]) -> bytes:
    """One or two of those, cut anywhere, with some bytes changed."""
    data = bytearray(b"".join(draw(st.lists(whole, min_size=1, max_size=2))))
    for _ in range(draw(st.integers(0, 3))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.integers(0, len(data)))]) if draw(st.booleans()) else bytes(data)


@MANY
@given(damaged(FRAMES) | st.binary(max_size=100))
def test_frames(data: bytes):
    DECODERS.check_frames(data)


@MANY
@given(damaged(RECORDS) | st.binary(max_size=200))
def test_records(data: bytes):
    DECODERS.check_records(data)


def test_a_fault_is_found(monkeypatch: pytest.MonkeyPatch):
    """The targets see what they are there to see."""
    whole = frames.encode(Frame("stream", {"a": 1}, 1, {}, (b"12",)))
    record = records.encode(1, Checkpoint(1, 0, 9, (Run(3, 2, 0, 5),), {"a": 1}, 1))
    DECODERS.check_frames(whole)
    DECODERS.check_records(record)
    encode = frames.encode
    monkeypatch.setattr(frames, "encode", lambda frame: encode(frame._replace(buffers=())))
    monkeypatch.setattr(records, "encode", lambda kind, found: record.replace(b"1}", b"2}"))
    with pytest.raises(AssertionError):
        DECODERS.check_frames(whole)
    with pytest.raises(AssertionError):
        DECODERS.check_records(record)
