"""Idle turns: what cells have left running goes on while no request is in progress.

Tasks of asyncio and its timers live in the guest, which computes only in turns. So each reply of
the guest says in how many seconds something of it is due (`due`), and when that time has come and
nobody wants anything else, the guest gets a turn of at most SLICE_S for it. Between these turns
nothing computes, and without such tasks there are none.
"""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING, Any

from wasi_kernel.errors import GuestLost, WasiKernelError
from wasi_kernel.frames import Frame
from wasi_kernel.policy import raising

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from wasi_kernel.policy import Limits

KIND = "idle_request"

SLICE_S = 0.05
"""How long a turn goes on when there is always something due: so long a cell has to wait."""

LEAST_S = 0.002
"""The shortest pause between two turns: a guest that always says "now" would busy this process."""

MOST_S = 1e6
"""As good as never; what is due later than that is looked at anew then."""


class Idling:
    """Gives one session's guest its idle turns.

    Args:
        limits: `cell_s` and `cell_cpu_s` count for all idle turns after a cell together.
        cpu_s: Gives the seconds of processor time that the worker has used.
        request: The session's own, with the type, the content and `on_output`.
        free: Is the guest ready, and no request in progress?

    Attributes:
        on_output: Called with each frame that the guest shows in such a turn.
    """

    def __init__(
        self,
        limits: Limits,
        *,
        cpu_s: Callable[[], float],
        request: Callable[..., Coroutine[Any, Any, Frame]],
        free: Callable[[], bool],
    ) -> None:
        self._limits, self._cpu_s, self._request, self._free = limits, cpu_s, request, free
        self._due_at: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._why = ""  # to cancel what is running, and why; empty: to go on
        self._spent_s = self._spent_cpu_s = 0.0
        self._held = 0
        self._cell = 0  # the number of the last execute_request
        self.on_output: Callable[[Frame], None] = lambda _frame: None

    @property
    def pending(self) -> bool:
        """Has the guest something that is due, now or later?"""
        return self._due_at is not None

    def heard(self, kind: str, request: int, content: dict[str, Any]) -> None:
        """A request has ended with that reply, which may say when something is due.

        Replies to requests that run no code of the user's say nothing; then what was said counts.
        """
        if kind == "execute_request":
            self._cell = request
            self._spent_s = self._spent_cpu_s = 0.0
        if kind in ("execute_request", "comm_open", "comm_msg", "comm_close", KIND):
            due: Any = content.get("due")
            self._due_at = None
            if isinstance(due, (int, float)) and math.isfinite(due):
                wait_s = 0.0 if self._why else max(0.0, min(due, MOST_S))
                self._due_at = time.monotonic() + wait_s
            else:
                self._why = ""
        self.plan()

    def cancel(self, why: str) -> None:
        """The guest is to cancel all of it; `why` is shown."""
        if self.pending:
            self._why, self._due_at = why, 0.0
            self.plan()

    def lost(self) -> None:
        """The guest is gone: whatever was due, the next one says so itself."""
        self._due_at = None
        self._stop_timer()

    def hold(self, more: int) -> None:
        """Adds to what holds them back: there are no turns from 1 until -1 is added."""
        self._held += more
        self.plan()

    def close(self) -> None:
        """The end: no more turns."""
        self._held += 1
        self._stop_timer()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def plan(self) -> None:
        """Sets the timer anew, as is right now."""
        self._stop_timer()
        if self._due_at is None or self._held:
            return
        delay_s = max(LEAST_S, self._due_at - time.monotonic())
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._begin)

    def _begin(self) -> None:
        """The time has come; if a request is in progress, its end plans anew."""
        self._timer = None
        if self._free() and (self._task is None or self._task.done()):
            self._task = asyncio.get_running_loop().create_task(self._turn())

    async def _turn(self) -> None:
        why, self._why = self._why, ""
        begin_s, begin_cpu_s = time.monotonic(), self._cpu_s()
        content = {"slice_s": SLICE_S, "cancel": bool(why)}
        try:
            reply = await self._request(KIND, content, on_output=self._show)
        except GuestLost as e:
            e.in_cell = False
            self._say(f"in the background: {e.explanation}")
            self._why, self._due_at = "it ended the guest", 0.0  # or it would do so again
            self.plan()
            return
        except (WasiKernelError, KeyboardInterrupt):
            return  # there is no guest: a cell will say so
        self._spent_s += time.monotonic() - begin_s
        self._spent_cpu_s += max(0.0, self._cpu_s() - begin_cpu_s)
        count = reply.content.get("cancelled")
        if why and isinstance(count, int) and count > 0:
            tasks = "a background task was" if count == 1 else f"{count} background tasks were"
            self._say(f"{tasks} cancelled: {why}")
        if reply.content.get("interrupted") is True and not why:
            self.cancel("interrupted")
        elif passed := self._passed():
            self.cancel(passed)

    def _passed(self) -> str:
        """Which limit all idle turns since the last cell have passed; empty if none."""
        for spent, key, what in (
            (self._spent_s, "cell_s", ""),
            (self._spent_cpu_s, "cell_cpu_s", " of processor time"),
        ):
            most: float | None = getattr(self._limits, key)
            if most is not None and spent > most:
                self._spent_s = self._spent_cpu_s = 0.0
                return f"more than {most:g} s{what}; {raising(key)}"
        return ""

    def _show(self, frame: Frame) -> None:
        """Shows it as output of the last cell, whose allowance it uses up."""
        self.on_output(frame._replace(request=self._cell))

    def _say(self, text: str) -> None:
        content = {"name": "stderr", "text": f"[wasi-kernel] {text}.\n"}
        self._show(Frame("stream", content, self._cell))
