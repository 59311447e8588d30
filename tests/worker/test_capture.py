"""Shows that what a guest says is kept when no kernel hears it."""

from __future__ import annotations

from wasi_kernel import frames
from wasi_kernel.frames import Frame
from wasi_kernel.worker.capture import Capture


def test_a_capture_keeps_what_is_said():
    capture = Capture()
    assert (capture.text(), capture.reply()) == ("", {})
    for frame in (
        Frame("stream", {"name": "stdout", "text": "a"}), Frame("boot_reply", {"n": 1}),
        Frame("stream", {"name": "stderr", "text": "b"}), Frame("boot_reply", {"n": 2}),
    ):  # fmt: skip
        capture.send(frames.encode(frame))
    assert (capture.text(), capture.reply()) == ("ab", {"n": 2})
    assert capture.receive() is capture.receive(interruptible=True) is None
    assert capture.wait(0)
