"""What is measured of kernels, on both in turn (A B A B ...), as samples by row of the table."""

from __future__ import annotations

import contextlib
import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kernels import KernelFailedError, started

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import report
    from kernels import Kernel

Samples = dict[str, dict[str, list[float]]]
"""Row of the table -> column (a kernel's name) -> samples, in the row's unit."""

MS, S, MIB = "ms", "s", "MiB"
LINES = 200_000
DISPLAY_BYTES = 10_000_000
BLOCK = 10
"""Requests in a row to one kernel, then as many to the other."""

RUNNING = "from IPython.display import display; import time; display('running')\n"


LOOP, SLEEP, LATE = "interrupt of a loop", "interrupt of time.sleep", "{}: 95th percentile"


@dataclass(frozen=True)
class Measure:
    """One benchmark.

    Attributes:
        run: Measures `count` times on each of the kernels `names`, working in `folder`.
        count: How often, by default.
        units: Unit of each of its rows.
        aims: Ratio of the last column to the first that is aimed at, for rows that have one; or,
            where there are more than two, to each of the others.
        limits: The most that the last column should be, in the row's unit, for rows that have one.
        quick: How often with `--quick`; None: a fifth of `count`, at least once.
    """

    run: Callable[[tuple[str, ...], int, Path], Samples]
    count: int
    units: dict[str, str]
    aims: Mapping[str, report.Aim]
    limits: dict[str, float] = field(default_factory=dict)
    quick: int | None = None


def add(samples: Samples, row: str, name: str, value: float) -> None:
    """Adds one sample."""
    samples.setdefault(row, {}).setdefault(name, []).append(value)


def pair(stack: contextlib.ExitStack, names: tuple[str, ...], folder: Path) -> dict[str, Kernel]:
    """One kernel of each name, all of them running and listened to."""
    kernels = {name: stack.enter_context(started(name, folder)) for name in names}
    for kernel in kernels.values():
        kernel.evaluate("1")
        kernel.wait_for_iopub()
    return kernels


def _start(names: tuple[str, ...], count: int, folder: Path) -> Samples:
    samples: Samples = {}
    for k in range(-1, count):  # the first of each fills the disk cache and does not count
        for name in names:
            with started(name, folder) as kernel:
                kernel.evaluate("1 + 1")
                result_s = kernel.age_s()
            if k >= 0:
                add(samples, "process start to kernel_info", name, 1000 * kernel.info_s)
                add(samples, "process start to first result", name, 1000 * result_s)
    return samples


def _import(names: tuple[str, ...], count: int, folder: Path) -> Samples:
    samples: Samples = {}
    for k in range(-1, count):
        for name in names:
            with started(name, folder) as kernel:
                kernel.wait_for_iopub()
                cell_s = kernel.execute("import pandas").seconds
            with started(name, folder) as kernel:
                kernel.evaluate("__import__('pandas')")
                start_s = kernel.age_s()
            if k >= 0:
                add(samples, "first cell is `import pandas`", name, 1000 * cell_s)
                add(samples, "process start to pandas imported", name, 1000 * start_s)
    return samples


def _roundtrip(names: tuple[str, ...], count: int, folder: Path) -> Samples:
    samples: Samples = {}
    with contextlib.ExitStack() as stack:
        kernels = pair(stack, names, folder)
        for kernel in kernels.values():
            kernel.execute("x = 1")
            for _ in range(BLOCK):
                kernel.execute("x")
        for done in range(0, count, BLOCK):
            for name, kernel in kernels.items():
                for _ in range(min(BLOCK, count - done)):
                    seconds = kernel.execute("x").seconds
                    add(samples, "`x`, until reply and idle", name, 1000 * seconds)
    return samples


def _lines(names: tuple[str, ...], count: int, folder: Path) -> Samples:
    samples: Samples = {}
    code = f"for i in range({LINES}): print(i)"
    expected = "".join(f"{i}\n" for i in range(LINES))
    with contextlib.ExitStack() as stack:
        kernels = pair(stack, names, folder)
        for _ in range(count):
            for name, kernel in kernels.items():
                done = kernel.execute(code)
                if done.text != expected:
                    raise KernelFailedError(f"{name} lost or changed printed lines")
                add(samples, f"{LINES:,} printed lines", name, done.seconds)
    return samples


def _display(names: tuple[str, ...], count: int, folder: Path) -> Samples:
    samples: Samples = {}
    with contextlib.ExitStack() as stack:
        kernels = pair(stack, names, folder)
        for kernel in kernels.values():
            kernel.execute("from IPython.display import display")
            kernel.execute(f"data = {{'text/plain': 'x' * {DISPLAY_BYTES}}}")
        for _ in range(count):
            for name, kernel in kernels.items():
                done = kernel.execute("display(data, raw=True)")
                (_, content), *_ = done.outputs
                if len(content["data"]["text/plain"]) != DISPLAY_BYTES:
                    raise KernelFailedError(f"{name} did not show all of a display")
                add(samples, "display of 10 MB", name, 1000 * done.seconds)
    return samples


def _interrupt(names: tuple[str, ...], count: int, folder: Path) -> Samples:
    samples: Samples = {}
    cells = {LOOP: RUNNING + "while True: pass", SLEEP: RUNNING + "time.sleep(60)"}
    with contextlib.ExitStack() as stack:
        kernels = pair(stack, names, folder)
        for row, code in cells.items():
            for kernel in kernels.values():
                kernel.interrupt(code)
            for _ in range(count):
                for name, kernel in kernels.items():
                    add(samples, row, name, 1000 * kernel.interrupt(code))
            for name in kernels:
                add(samples, LATE.format(row), name, _percentile(samples[row][name], 95))
    return samples


def _percentile(values: list[float], hundredths: int) -> float:
    """So many of a hundred are at most that."""
    if len(values) < 2:
        return values[0]
    return statistics.quantiles(values, n=100, method="inclusive")[hundredths - 1]


def _help(names: tuple[str, ...], count: int, folder: Path) -> Samples:
    samples: Samples = {}
    with contextlib.ExitStack() as stack:
        kernels = pair(stack, names, folder)
        for kernel in kernels.values():
            kernel.execute("import pandas; table = pandas.DataFrame({'a': [1, 2], 'b': [3, 4]})")
        for _ in range(count):
            for name, kernel in kernels.items():
                seconds = kernel.complete("table.")
                add(samples, "completion of `table.`", name, 1000 * seconds)
            for name, kernel in kernels.items():
                seconds = kernel.inspect("table.groupby")
                add(samples, "inspection of `table.groupby`", name, 1000 * seconds)
    return samples


MEASURES = {
    "start": Measure(
        _start,
        10,
        {"process start to kernel_info": MS, "process start to first result": MS},
        {"process start to first result": 0.5},
    ),
    "import": Measure(
        _import,
        4,
        {"first cell is `import pandas`": MS, "process start to pandas imported": MS},
        {"first cell is `import pandas`": 0.05},
    ),
    "roundtrip": Measure(
        _roundtrip, 300, {"`x`, until reply and idle": MS}, {"`x`, until reply and idle": 1.0}
    ),
    "lines": Measure(_lines, 3, {f"{LINES:,} printed lines": S}, {f"{LINES:,} printed lines": 1.0}),
    "display": Measure(_display, 5, {"display of 10 MB": MS}, {}),
    "interrupt": Measure(
        _interrupt,
        100,
        dict.fromkeys((LOOP, LATE.format(LOOP), SLEEP, LATE.format(SLEEP)), MS),
        {},
        quick=20,
    ),
    "help": Measure(
        _help,
        20,
        {"completion of `table.`": MS, "inspection of `table.groupby`": MS},
        {"completion of `table.`": 1.5},
    ),
}
"""Name on the command line -> benchmark."""
