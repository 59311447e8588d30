"""Progress of what takes long and says nothing itself, such as the compiler."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from wasi_kernel.worker.engine import cores

if TYPE_CHECKING:
    from collections.abc import Callable

    Progress = Callable[[str, float | None, float | None], None]
    """(what is being done, fraction done or None, seconds left or None)"""

EVERY_S = 0.5


class report_while:  # noqa: N801 - a context manager, used like a function
    """Reports progress while its body runs, from the CPU time that this process spends.

    Args:
        progress: Called on a thread of its own, twice a second.
        what: What is being done.
        total_cpu_s: How much processor time it takes, about.
    """

    def __init__(self, progress: Progress, what: str, total_cpu_s: float) -> None:
        self._progress, self._what, self._total = progress, what, total_cpu_s
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._report, daemon=True)

    def __enter__(self) -> None:
        self._cpu, self._wall = time.process_time(), time.monotonic()
        self._progress(self._what, 0.0, self._total / cores())
        self._thread.start()

    def __exit__(self, *exc: object) -> None:
        self._done.set()
        self._thread.join()

    def _report(self) -> None:
        while not self._done.wait(EVERY_S):
            spent = time.process_time() - self._cpu
            wall = time.monotonic() - self._wall
            fraction = min(spent / self._total, 0.99)
            rate = spent / wall if wall > 0 and spent > 0 else cores()
            left = (self._total - spent) / rate
            self._progress(self._what, fraction, left if left > 0 else None)
