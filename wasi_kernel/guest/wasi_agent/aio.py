"""An asyncio event loop for a guest without sockets: timers and callbacks, no selector.

asyncio's own loop wakes itself through a socket pair, which WASI cannot make. With one thread and
no sockets nothing can become ready while the loop waits, so waiting is sleeping.
"""

from __future__ import annotations

import asyncio
import asyncio.base_events
import contextlib
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable


class _Sleeper:
    """What BaseEventLoop expects of its selector: `select` waits, nothing is ever ready.

    Attributes:
        until: In an idle turn, when it ends (monotonic seconds): then it does not wait, but stops
            the loop.
    """

    def __init__(self, stop: Callable[[], None]) -> None:
        self._stop = stop
        self.until: float | None = None

    def select(self, timeout: float | None) -> list[Any]:
        if self.until is not None:
            if timeout is None or timeout > 0 or time.monotonic() >= self.until:
                self._stop()
            return []
        if timeout is None:
            raise RuntimeError(
                "deadlock: every task waits for something that can never happen here "
                "(the sandbox has no sockets, threads or processes)"
            )
        if timeout > 0:
            time.sleep(timeout)
        return []


class GuestEventLoop(asyncio.base_events.BaseEventLoop):
    """Runs coroutines, timers and callbacks; has no transports."""

    _ready: deque[asyncio.Handle]  # BaseEventLoop's own
    _scheduled: list[asyncio.TimerHandle]

    def __init__(self) -> None:
        super().__init__()
        self._selector = _Sleeper(self.stop)

    def _process_events(self, event_list: list[Any]) -> None:
        """There are no events."""

    def _write_to_self(self) -> None:
        """There is no other thread to be woken by."""

    def close(self) -> None:
        """Closes the loop; its executor never ran."""
        self._default_executor = None
        super().close()

    def reset(self) -> None:
        """Makes a loop usable again whose run was torn by an exception from outside."""
        self._thread_id = None
        self._stopping = False
        leave: Any = getattr(asyncio.tasks, "_swap_current_task", None)  # from CPython 3.12 on
        if leave is not None:  # a task that was left without its end would stay the current one
            asyncio._set_running_loop(self)  # noqa: SLF001 - asyncio's port for loops
            if asyncio.current_task(self) is not None:  # 3.12 raises where there is none
                leave(self, None)
        asyncio._set_running_loop(None)  # noqa: SLF001 - the same

    def due_s(self) -> float | None:
        """Seconds until something is to be run; None if nothing is. None of it runs by itself."""
        if self._ready:
            return 0.0
        times = [handle.when() for handle in self._scheduled if not handle.cancelled()]
        return max(0.0, min(times) - self.time()) if times else None

    def idle(self, duration_s: float) -> None:
        """Runs what is due now; what becomes due meanwhile too, but begins nothing later."""
        self.reset()
        self._selector.until = time.monotonic() + duration_s
        try:
            self.run_forever()
        finally:
            self._selector.until = None

    def cancel_all(self) -> int:
        """Cancels all timers, and tasks, which see it when they run next; how many of these."""
        tasks = asyncio.all_tasks(self)
        for handle in self._scheduled:
            handle.cancel()
        for task in tasks:
            task.cancel()
        return len(tasks)

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:  # type: ignore[override]
        """Runs the function at once, in this thread: there is no other."""
        del executor
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as e:  # noqa: BLE001 - what an executor does: it goes where the result would
            future.set_exception(e)
        return future


def install() -> GuestEventLoop:
    """Makes GuestEventLoop what asyncio uses, and returns the loop that cells run in."""
    from asyncio import unix_events

    for name in ("_UnixDefaultEventLoopPolicy", "_DefaultEventLoopPolicy"):
        policy = getattr(unix_events, name, None)
        if policy is not None:
            policy._loop_factory = GuestEventLoop  # noqa: SLF001 - there is no other way
    for module in (asyncio, unix_events):
        for name in ("SelectorEventLoop", "EventLoop"):
            if hasattr(module, name):
                setattr(module, name, GuestEventLoop)
    loop = GuestEventLoop()
    with contextlib.suppress(Exception):  # deprecated in 3.14, gone later
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            asyncio.set_event_loop(loop)
    return loop
