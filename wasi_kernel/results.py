"""Results: what one run of a sandbox gave.

Pure; the outputs are what the front end's filter has let through.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from wasi_kernel.errors import GuestLost, WasiKernelError


@dataclass(frozen=True)
class Error:
    """An exception that the code raised, or the loss of its guest.

    Attributes:
        ename: The exception's class name.
        evalue: Its text.
        traceback: Lines, coloured as in a terminal.
        lost: Did the guest end? `evalue` says what is left; usually all but what this run did.
    """

    ename: str
    evalue: str
    traceback: list[str] = field(default_factory=list)
    lost: bool = False


@dataclass
class Result:
    """What one run gave, as the policy's `frontend` lets it be shown.

    Attributes:
        status: "ok" or "error".
        outputs: Everything shown, in order: {"type": ..., **content}, as in Jupyter's messages.
        error: What went wrong, or None.
        execution_count: The run's number.
    """

    status: str = "ok"
    outputs: list[dict[str, Any]] = field(default_factory=list)
    error: Error | None = None
    execution_count: int = 0

    @property
    def ok(self) -> bool:
        """Did it end without an error?"""
        return self.status == "ok"

    def _text_of(self, name: str) -> str:
        return "".join(
            o["text"] for o in self.outputs if o["type"] == "stream" and o["name"] == name
        )

    @property
    def stdout(self) -> str:
        """What was printed."""
        return self._text_of("stdout")

    @property
    def stderr(self) -> str:
        """What was printed to standard error."""
        return self._text_of("stderr")

    @property
    def data(self) -> dict[str, Any]:
        """The last expression's value by mime type; binary types in base64. Empty if None."""
        for output in reversed(self.outputs):
            if output["type"] == "execute_result":
                return dict(output["data"])
        return {}

    @property
    def text(self) -> str | None:
        """The last expression's value as plain text, None if there was none."""
        return self.data.get("text/plain")

    @property
    def displays(self) -> list[dict[str, Any]]:
        """The mime bundles that were displayed, plots among them."""
        return [o["data"] for o in self.outputs if o["type"] == "display_data"]


def line(text: str) -> dict[str, Any]:
    """A line of our own in a run's standard error."""
    return {"type": "stream", "name": "stderr", "text": f"[wasi-kernel] {text}\n"}


def failure(error: WasiKernelError) -> Error:
    """What went wrong with a run that the guest could not answer for."""
    if isinstance(error, GuestLost):
        evalue = error.explanation
        return Error(error.ename, evalue, [], lost=True)
    return Error(type(error).__name__, str(error))
