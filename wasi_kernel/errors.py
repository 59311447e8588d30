"""The project's exceptions, one tree, each named for whose fault it is.

An exception that a cell raises is not among them: it is data in a reply. Nobody matches on
message text; what a program may want to know is a field.
"""

from __future__ import annotations


class WasiKernelError(Exception):
    """Any error of wasi-kernel itself."""


class PolicyError(WasiKernelError):
    """The policy asks for something that cannot be granted.

    Attributes:
        key: Which key of the policy, such as `grants[0].host_path`.
        value: What it says.
        allowed: What it may say.
    """

    def __init__(self, key: str, value: object, allowed: str) -> None:
        super().__init__(f"policy: {key} = {value!r}: {allowed}")
        self.key, self.value, self.allowed = key, value, allowed


class InstallationError(WasiKernelError):
    """Something this installation needs is missing, damaged or not usable."""


class RuntimeNotFoundError(InstallationError):
    """There is no usable CPython WASI build where one was named.

    Attributes:
        where: The path or name that was looked at.
    """

    def __init__(self, where: str, advice: str) -> None:
        super().__init__(f"no CPython WASI build at {where}: {advice}")
        self.where = where


class ProtocolError(WasiKernelError):
    """The other side of a socket of ours said something that the protocol does not allow."""


class GuestLost(WasiKernelError):  # noqa: N818 - an event, nobody's error
    """The guest, or the worker that ran it, is gone; its variables went with it.

    Attributes:
        ename: A stable name of what happened, one of `LOSSES`, as it stands in a cell's error.
        detail: What was seen, in one line.
    """

    def __init__(self, ename: str, detail: str) -> None:
        super().__init__(f"{ename}: {detail}")
        self.ename, self.detail = ename, detail

    @property
    def explanation(self) -> str:
        """What happened and what is lost, for the user."""
        what = LOSSES.get(self.ename, "the sandbox was lost")
        return (
            f"{what} ({self.detail}). All variables are lost; files that cells wrote stay. "
            "A new sandbox is started: run the cells above again"
        )


LOSSES = {
    "StackExhausted": "the cell used up the call stack",
    "MemoryLimitExceeded": "the cell reached the memory limit",
    "GuestExited": "the cell ended the interpreter",
    "GuestAborted": "the interpreter aborted",
    "GuestTrapped": "the WebAssembly code trapped",
    "GuestDesynchronized": "the interpreter stopped without an answer",
    "KeyboardInterrupt": "the cell did not react to the interrupt and was stopped from outside",
    "DeadlineExceeded": "the cell did not end within its deadline and was stopped from outside",
    "WorkerKilled": "the worker process was killed from outside",
    "WorkerFailed": "the worker process failed",
}
"""Each way to lose a guest (the `ename` that a cell's error carries) and what it means."""
