"""What grows with what: checkpoints and ways back with memory and with what was written, starts
with packages.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import workers
from kernels import KernelFailedError
from measures import MS, Measure, Samples, add

from wasi_kernel import Sandbox
from wasi_kernel.policy import CheckpointLimits, Limits, Policy

if TYPE_CHECKING:
    from pathlib import Path

OURS = "python-wasi"
SIZES_MB = (50, 200, 500, 1000, 2000)
ROOM = Policy(
    limits=Limits(memory_bytes=4096 * 2**20), checkpoints=CheckpointLimits(bytes=8192 * 2**20)
)
"""In the default's 2 GiB of disk for checkpoints there is no room to undo large cells."""

ARRAY = "import numpy; array = numpy.ones({} * 125_000)"
"""So many megabytes."""

CHECKPOINT, UNDO = "checkpoint of `x` with {} MB in use", "undo of `x` with {} MB in use"
DEATH = "`os._exit(1)` to the next result with {} MB in use"

DIRTY_MB = (0, 1, 10, 100, 500)
HELD_MB = 1000
WROTE = "checkpoint after {} of 1000 MB were written"
WENT_BACK = "undo of a cell that wrote {} of 1000 MB"
WRITE = "array[:{} * 125_000] += 1"

PACKAGES = (
    "cachetools", "sortedcontainers", "humanize", "inflection", "boltons",
    "arrow", "click", "pyfiglet", "python-slugify", "marshmallow",
    "itsdangerous", "blinker", "zipp", "termcolor", "colorama",
    "parse", "natsort", "pluggy", "iniconfig", "tomlkit",
)  # fmt: skip
"""Pure Python, of PyPI; what they need comes with them."""

COUNTS = (0, 1, 5, 10, 20)
START = "start to the first result, {} packages"
IMPORTED = "start to the first of {} packages imported"


def _grow(names: tuple[str, ...], count: int, folder: Path) -> Samples:
    del names, folder
    samples: Samples = {}
    for size in SIZES_MB:
        with workers.started(ROOM) as worker:
            worker.settle(ARRAY.format(size))
            for _ in range(count):
                cell = worker.run("x")
                add(samples, CHECKPOINT.format(size), OURS, cell.checkpoint_ms)
            for _ in range(count):
                add(samples, UNDO.format(size), OURS, 1000 * worker.rolled_back("x = 1")[1])
        with Sandbox(ROOM) as box:
            box.run(ARRAY.format(size))
            for _ in range(max(1, count // 3)):
                box.run("1")  # waits until the array is in a checkpoint
                start = time.perf_counter()
                box.run("import os; os._exit(1)")
                there = box.run("int(array[-1])").text == "1"
                add(samples, DEATH.format(size), OURS, 1000 * (time.perf_counter() - start))
                if not there:
                    raise KernelFailedError("the array is not there")
    return samples


def _dirty(names: tuple[str, ...], count: int, folder: Path) -> Samples:
    del names, folder
    samples: Samples = {}
    with workers.started(ROOM) as worker:
        worker.settle(ARRAY.format(HELD_MB))
        for size in DIRTY_MB:
            for _ in range(count):
                cell, undo_s = worker.rolled_back(WRITE.format(size))
                add(samples, WROTE.format(size), OURS, cell.checkpoint_ms)
                add(samples, WENT_BACK.format(size), OURS, 1000 * undo_s)
    return samples


def _packages(names: tuple[str, ...], count: int, folder: Path) -> Samples:
    del names, folder
    samples: Samples = {}
    policies = {k: Policy(packages=PACKAGES[:k]) for k in COUNTS}
    for policy in policies.values():  # fetches them, and makes the base image
        with Sandbox(policy) as box:
            box.run("1")
    for _ in range(count):
        for k, policy in policies.items():
            for row, code in ((START, "1"), (IMPORTED, "import cachetools")):
                if code == "1" or k:
                    start = time.perf_counter()
                    with Sandbox(policy) as box:
                        result = box.run(code)
                        seconds = time.perf_counter() - start
                    if not result.ok:
                        raise KernelFailedError(f"{code!r} gave {result.error}")
                    add(samples, row.format(k), OURS, 1000 * seconds)
    return samples


MEASURES = {
    "grow": Measure(
        _grow,
        10,
        {row.format(size): MS for row in (CHECKPOINT, UNDO, DEATH) for size in SIZES_MB},
        {},
    ),
    "dirty": Measure(
        _dirty,
        5,
        {row.format(size): MS for row in (WROTE, WENT_BACK) for size in DIRTY_MB},
        {},
    ),
    "packages": Measure(
        _packages,
        5,
        {START.format(k): MS for k in COUNTS} | {IMPORTED.format(k): MS for k in COUNTS if k},
        {},
    ),
}
"""Name on the command line -> benchmark."""
