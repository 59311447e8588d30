"""Limits of time: watches how long one request takes, and gives an interrupt the limit's name.

What is done when a limit is passed is the session's business. Needs a running event loop.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from wasi_kernel.errors import GuestLost
from wasi_kernel.policy import raising

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from wasi_kernel.frames import Frame
    from wasi_kernel.policy import Limits

T = TypeVar("T")

LEAST_S = 0.02
"""How soon the processor time is looked at again, at the earliest."""


class Watch:
    """Watches one request, from its making to `cancel`.

    Args:
        limits: `cell_s` and `cell_cpu_s` of these count.
        cpu_s: Gives the seconds of processor time that the worker has used.
        interrupt: Called once, when a limit is passed.
        stop: Called with what happened, if the request goes on for `grace_s` after that.

    Attributes:
        passed: Which limit was passed, as what a guest that is stopped for it ends with; or None.
    """

    def __init__(
        self, limits: Limits, cpu_s: Callable[[], float], interrupt: Callable[[], None],
        stop: Callable[[GuestLost], None],
    ) -> None:  # fmt: skip
        self._limits, self._cpu_s = limits, cpu_s
        self._interrupt, self._stop = interrupt, stop
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self.passed: GuestLost | None = None
        if limits.cell_s is not None:
            what = f"more than {limits.cell_s:g} s; {raising('cell_s')}"
            self._later("wall", limits.cell_s, self._pass, what)
        if limits.cell_cpu_s is not None:
            self._begin_s = cpu_s()
            self._look(limits.cell_cpu_s)

    def _later(self, name: str, delay_s: float, act: Callable[..., None], *args: Any) -> None:
        loop = asyncio.get_running_loop()
        self._timers[name] = loop.call_later(delay_s, act, *args)

    def _look(self, most_s: float) -> None:
        left_s = most_s - (self._cpu_s() - self._begin_s)
        if left_s <= 0:
            self._pass(f"more than {most_s:g} s of processor time; {raising('cell_cpu_s')}")
        else:  # one thread cannot use more than passes
            self._later("cpu", max(left_s, LEAST_S), self._look, most_s)

    def _pass(self, what: str) -> None:
        if self.passed is None:
            self.passed = GuestLost("TimeLimitExceeded", what)
            self._interrupt()
            self._later("grace", self._limits.grace_s, self._stop, self.passed)

    def cancel(self) -> None:
        """The request is over."""
        for timer in self._timers.values():
            timer.cancel()

    def named(self, frame: Frame) -> Frame:
        """A frame in which an interrupt has the name of the limit that was passed, if one was."""
        if self.passed is None:
            return frame
        content = _named(frame.content, self.passed)
        expressions = content.get("user_expressions")
        if isinstance(expressions, dict):
            values = {name: _named(value, self.passed) for name, value in expressions.items()}
            content = {**content, "user_expressions": values}
        return frame._replace(content=content)


class Stoppable(Protocol):
    """What `within` asks of a session."""

    def interrupt(self) -> None:
        """Interrupts the request in progress."""

    def stop(self, loss: GuestLost) -> None:
        """Stops the guest."""


async def within(
    deadline_s: float | None, request: Coroutine[Any, Any, T], session: Stoppable, grace_s: float
) -> T:
    """The request's result; when its time is over, the session is interrupted, then stopped.

    Args:
        deadline_s: How long it may take, None for ever.
        request: What is waited for.
        session: Whose request it is.
        grace_s: How long after the interrupt it is stopped.
    """
    loop = asyncio.get_running_loop()
    timers: list[asyncio.TimerHandle] = []

    def over() -> None:
        session.interrupt()
        what = f"and did not react to the interrupt in {grace_s:g} s"
        loss = GuestLost("DeadlineExceeded", what)
        timers.append(loop.call_later(grace_s, session.stop, loss))

    if deadline_s is not None:
        timers.append(loop.call_later(deadline_s, over))
    try:
        return await request
    finally:
        for timer in timers:
            timer.cancel()


def _named(error: Any, loss: GuestLost) -> Any:
    if not isinstance(error, dict) or error.get("ename") != "KeyboardInterrupt":
        return error
    lines = error.get("traceback")
    lines = lines[:-1] if isinstance(lines, list) else []
    return error | {
        "ename": loss.ename, "evalue": loss.detail,
        "traceback": [*lines, f"\x1b[31m{loss.ename}\x1b[39m: {loss.detail}"],
    }  # fmt: skip
