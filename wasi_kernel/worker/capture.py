"""Capture: what a guest says when there is no kernel to hear it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from wasi_kernel import frames

if TYPE_CHECKING:
    from wasi_kernel.frames import Frame


class Capture:
    """A link without a kernel: keeps what the guest sends."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.interrupted = False

    def send(self, data: bytes) -> None:
        """Keeps one frame."""
        self.frames.append(frames.decode(data))

    def receive(self, *, interruptible: bool = False) -> Frame | None:
        """Nothing ever comes."""
        del interruptible
        return None

    def wait(self, duration_s: float) -> bool:
        """Waits that long."""
        time.sleep(duration_s)
        return True

    def text(self) -> str:
        """All text that was printed."""
        return "".join(f.content["text"] for f in self.frames if f.type == "stream")

    def reply(self) -> dict[str, Any]:
        """The content of the last reply, empty if there was none."""
        replies = [f.content for f in self.frames if f.type.endswith("_reply")]
        return replies[-1] if replies else {}
