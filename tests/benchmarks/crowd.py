"""Kernels side by side: what they take of the machine's memory together, and their starts.

All of a kernel's processes count. PSS shares out what several processes have, so the sum over all
kernels is what they take together; USS is what no other process has.
"""

from __future__ import annotations

import contextlib
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from kernels import started
from measures import MIB, MS, Measure, S, Samples, add

if TYPE_CHECKING:
    from pathlib import Path

SIZES = (1, 2, 5, 10, 20)
SETTLE_S = 1.0
"""What a kernel does on its own after its last cell is over by then."""

PSS, USS = "{} idle kernels with pandas: PSS", "{} idle kernels with pandas: USS"
OTHERS = "{} idle kernels with pandas: PSS of all but their first processes"
NEXT = "start of kernel number {} until pandas is imported, the others idle"
AT_ONCE = "{} kernels started at once, until all have answered"
STARTED_AT_ONCE = (2, 5, 10, 20)


def _memory(names: tuple[str, ...], count: int, folder: Path) -> Samples:
    samples: Samples = {}
    for _ in range(count):
        for name in names:
            with contextlib.ExitStack() as stack:
                kernels = []
                for k in range(1, max(SIZES) + 1):
                    kernel = stack.enter_context(started(name, folder))
                    kernels.append(kernel)
                    kernel.evaluate("__import__('pandas')")
                    if k in SIZES:
                        add(samples, NEXT.format(k), name, 1000 * kernel.age_s())
                        time.sleep(SETTLE_S)
                        uses = [kernel.memory() for kernel in kernels]
                        pss = sum(use.pss for use in uses)
                        add(samples, PSS.format(k), name, pss / 2**20)
                        add(samples, USS.format(k), name, sum(use.uss for use in uses) / 2**20)
                        others = pss - sum(use.first_pss for use in uses)
                        add(samples, OTHERS.format(k), name, others / 2**20)
    return samples


def _crowd(names: tuple[str, ...], count: int, folder: Path) -> Samples:
    samples: Samples = {}
    for _ in range(count):
        for size in STARTED_AT_ONCE:
            for name in names:
                add(samples, AT_ONCE.format(size), name, _all_answer_s(name, size, folder))
    return samples


def _all_answer_s(name: str, size: int, folder: Path) -> float:
    """Seconds from before the first of so many kernels is made until each has given a result."""
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(size) as threads:
        begun = time.perf_counter()

        def one(k: int) -> contextlib.ExitStack:
            sockets = str(folder / f"s{k}")
            with contextlib.ExitStack() as its_own:
                its_own.enter_context(started(name, folder, sockets)).evaluate("1 + 1")
                return its_own.pop_all()

        for its_own in list(threads.map(one, range(size))):
            stack.enter_context(its_own)
        return time.perf_counter() - begun


MEASURES = {
    "memory": Measure(
        _memory,
        1,
        {row.format(k): MIB for row in (PSS, USS, OTHERS) for k in SIZES}
        | {NEXT.format(k): MS for k in SIZES},
        {PSS.format(20): 1.0},
    ),
    "crowd": Measure(_crowd, 1, {AT_ONCE.format(k): S for k in STARTED_AT_ONCE}, {}),
}
"""Name on the command line -> benchmark."""
