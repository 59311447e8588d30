"""What checkpoints cost, and what going back does: with them and without, or as figures alone."""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import workers
from kernels import specify
from measures import BLOCK, MIB, MS, Measure, Samples, add, pair

from wasi_kernel.policy import CheckpointLimits, Policy

if TYPE_CHECKING:
    from workers import Worker

SCRIPT = str(Path(__file__).with_name("switched.py"))
OURS, OFF, ON = "python-wasi", "checkpoints-off", "checkpoints-on"
SECONDS_APART = 1.0
PAGES = "pages"
CELLS = 100
TYPED, BACK_TO_BACK = "`x`, one a second", "`x`, back to back"

WRITING = {
    "`x`": ("x = 1", "x"),
    "`gc.collect()`": ("import gc", "gc.collect()"),
    "a DataFrame of 100,000 rows": (
        "import numpy, pandas; data = numpy.random.default_rng(0)",
        "table = pandas.DataFrame(data.random((100_000, 4)))",
    ),
    "an array of 100 MB": ("import numpy; k = 0", "k += 1; array = numpy.full(12_500_000, k / 7)"),
}
"""What a checkpoint is measured of: cell before it, cell."""

HEAVY, FEW = ("an array of 100 MB", "a DataFrame of 100,000 rows"), 5
HISTORIES = (1, 50, 200)


def _typed(names: tuple[str, ...], count: int, folder: Path) -> Samples:
    samples: Samples = {}
    for name in (OFF, ON):
        switch = name.rpartition("-")[2]
        specify(name, [sys.executable, "-P", SCRIPT, switch, "-f", "{connection_file}"])
    with contextlib.ExitStack() as stack:
        kernels = pair(stack, (OFF, ON), folder)
        for kernel in kernels.values():
            for _ in range(workers.WARM):
                kernel.execute("x = 1")
        for _ in range(count):
            for name, kernel in kernels.items():
                time.sleep(SECONDS_APART / len(kernels))
                add(samples, TYPED, name, 1000 * kernel.execute("x").seconds)
        for done in range(0, count, BLOCK):
            for name, kernel in kernels.items():
                for _ in range(min(BLOCK, count - done)):
                    add(samples, BACK_TO_BACK, name, 1000 * kernel.execute("x").seconds)
    return samples


def _checkpoint(names: tuple[str, ...], count: int, folder: Path) -> Samples:
    samples: Samples = {}
    for what, (before, code) in WRITING.items():
        with workers.started() as worker:
            worker.settle(before)
            for _ in range(min(count, FEW) if what in HEAVY else count):
                cell = worker.run(code)
                add(samples, f"checkpoint of {what}", OURS, cell.checkpoint_ms)
                add(samples, f"{what}: what it wrote", OURS, cell.pages)
    return samples


def _undo(names: tuple[str, ...], count: int, folder: Path) -> Samples:
    samples: Samples = {}
    with workers.started(timed=True) as worker:
        cells = 0
        for history in HISTORIES:
            for k in range(cells, history):
                worker.run(f"x{k} = {k}")
            cells = history
            _undo_some(samples, worker, count, f"undo, {history} cells before it")
    return samples


def _undo_some(samples: Samples, worker: Worker, count: int, row: str) -> None:
    for _ in range(count):
        _, undone = worker.rollback("x = 1")
        back_s = undone.seconds - undone.fresh_s
        add(samples, row, OURS, 1000 * undone.seconds)
        add(samples, f"{row}, without the fresh instance", OURS, 1000 * back_s)


def _footprint(names: tuple[str, ...], count: int, folder: Path) -> Samples:
    samples: Samples = {}
    policies = {
        name: Policy(checkpoints=CheckpointLimits(enabled=name == ON)) for name in (OFF, ON)
    }
    for _ in range(count):
        for name, policy in policies.items():
            with workers.started(policy) as worker:
                for k in range(CELLS):
                    worker.run(f"x{k} = {k}")
                memory = worker.memory
                add(samples, f"USS of a worker after {CELLS} cells", name, memory.uss / 2**20)
                add(samples, f"RSS of a worker after {CELLS} cells", name, memory.rss / 2**20)
                per_cell = worker.disk_bytes / CELLS / 2**20
                if name == ON:
                    add(samples, "on disk, for each cell", name, per_cell)
    return samples


def _with_return(rows: tuple[str, ...]) -> dict[str, str]:
    """Units of `_undo_some`'s rows."""
    return {f"{row}{more}": MS for row in rows for more in ("", ", without the fresh instance")}


_UNDO_ROWS = tuple(f"undo, {history} cells before it" for history in HISTORIES)

MEASURES = {
    "typed": Measure(_typed, 30, {TYPED: MS, BACK_TO_BACK: MS}, {TYPED: 1.1}),
    "checkpoint": Measure(
        _checkpoint,
        30,
        {
            row: unit
            for what in WRITING
            for row, unit in ((f"checkpoint of {what}", MS), (f"{what}: what it wrote", PAGES))
        },
        {},
        {"checkpoint of `x`": 10.0},
    ),
    "undo": Measure(
        _undo,
        20,
        _with_return(_UNDO_ROWS),
        {},
        {f"{row}, without the fresh instance": 5.0 for row in _UNDO_ROWS},
    ),
    "footprint": Measure(
        _footprint,
        3,
        {
            f"USS of a worker after {CELLS} cells": MIB,
            f"RSS of a worker after {CELLS} cells": MIB,
            "on disk, for each cell": MIB,
        },
        {},
    ),
}
"""Name on the command line -> benchmark."""
