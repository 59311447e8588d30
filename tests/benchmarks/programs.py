"""Python at work: pyperformance's programs, and kernels of numpy and pandas, on four sides in turn.

The programs are taken as they are from pyperformance's wheel, with their own default sizes; each
side runs the same text and the same number of loops, and measures itself (pyperfstandin.py).
"""

from __future__ import annotations

import contextlib
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING

import fetched
import sides
from kernels import KernelFailedError
from measures import MS, Measure, Samples, add
from sides import NATIVE, PYODIDE, SESSION

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

STANDIN = Path(__file__).with_name("pyperfstandin.py")

PROGRAMS = {
    "chaos": 1,
    "comprehensions": 2000,
    "coroutines": 3,
    "deepcopy": 200,
    "deltablue": 15,
    "fannkuch": 1,
    "float": 1,
    "generators": 2,
    "go": 1,
    "hexiom": 8,
    "logging_format": 2000,
    "meteor_contest": 1,
    "nbody": 1,
    "nqueens": 1,
    "raytrace": 1,
    "regex_compile": 1,
    "richards": 2,
    "scimark_fft": 1,
    "scimark_lu": 1,
    "scimark_monte_carlo": 1,
    "scimark_sor": 1,
    "spectral_norm": 1,
    "unpack_sequence": 2000,
}
"""Name of a benchmark -> loops, so that one sample takes about 20 to 400 ms natively."""

FOLDERS = {"logging_format": "logging"} | {
    f"scimark_{part}": "scimark" for part in ("fft", "lu", "monte_carlo", "sor")
}
"""Name of a benchmark -> its folder's, where that is another."""

HELPERS = {"regex_compile": ("bm_regex_effbot", "bm_regex_v8")}
MEAN = "geometric mean of the programs"
SETTLE_S = 0.02
"""What a side does on its own after its answer (a checkpoint) is over by then, or nearly."""

SLOWER_THAN_NATIVE, FASTER_THAN_OTHERS = 1.8, 1 / 1.2
"""The aims of issue 8: at most 1.8x slower than native, at least 1.2x faster than the others."""

ARRAYS = """\
import time
import numpy as np
import pandas as pd
random = np.random.default_rng(0)
a, b = random.random(1_000_000), random.random(1_000_000)
m = random.random((200, 200))
words = np.array(["alpha", "beta", "gamma", "delta"])
table = pd.DataFrame({"key": words[random.integers(0, 4, 200_000)],
                      "n": random.integers(0, 1000, 200_000), "value": random.random(200_000)})
small = pd.DataFrame({"n": np.arange(1000), "more": random.random(1000)})
csv = table.head(20_000).to_csv(index=False)
import io
def timed(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
"""
KERNELS = {
    "numpy: a * b + a, 10^6": "a * b + a",
    "numpy: sort of 10^6": "np.sort(a)",
    "numpy: sin of 10^6": "np.sin(a)",
    "numpy: product of 200 x 200": "m @ m",
    "numpy: FFT of 10^6": "np.fft.fft(a)",
    "pandas: groupby of 200,000 rows": "table.groupby('key').value.mean()",
    "pandas: sort of 200,000 rows": "table.sort_values('value')",
    "pandas: merge with 1000 rows": "table.merge(small, on='n')",
    "pandas: 20,000 rows of CSV": "pd.read_csv(io.StringIO(csv))",
}
ARRAYS_MEAN = "geometric mean of the kernels"
FASTEST = "{}, of the fastest samples"
"""What other programs on the machine disturb least."""


def program(name: str) -> str:
    """The code that makes a side ready to measure the benchmark `name`."""
    folder = fetched.programs() / f"bm_{FOLDERS.get(name, name)}"
    source = (folder / "run_benchmark.py").read_text(encoding="utf-8")
    helpers = {
        helper: (folder / f"{helper}.py").read_text(encoding="utf-8")
        for helper in HELPERS.get(name, ())
    }
    return f"load({source!r}, {helpers!r})"


def seconds(side: sides.Side, expression: str) -> float:
    """An expression's value on a side, after a moment's rest."""
    time.sleep(SETTLE_S)
    return float(side.run(f"print({expression})"))


def in_turn(
    running: Mapping[str, sides.Side], rows: Mapping[str, str], count: int, mean: str,
    ready: Callable[[str], str] | None = None,
) -> Samples:  # fmt: skip
    """Milliseconds of each row's expression on each side, one after another, `count` times.

    Args:
        running: The sides.
        rows: Row -> an expression whose value is seconds.
        count: So many samples; one before them fills caches and does not count.
        mean: Row of the geometric mean of all rows, which is taken of each round.
        ready: What is to run before a row.
    """
    samples: Samples = {}
    for row, expression in rows.items():
        for side in running.values() if ready else ():
            side.run(ready(row) if ready else "")
        for k in range(-1, count):
            for name, side in running.items():
                value = 1000 * seconds(side, expression)
                if k >= 0:
                    add(samples, row, name, value)
    for name in running:
        for k in range(count):
            logs = [math.log(samples[row][name][k]) for row in rows]
            add(samples, mean, name, math.exp(sum(logs) / len(logs)))
        logs = [math.log(min(samples[row][name])) for row in rows]
        add(samples, FASTEST.format(mean), name, math.exp(sum(logs) / len(logs)))
    return samples


def _programs(names: tuple[str, ...], count: int, folder: Path) -> Samples:
    del names, folder
    with contextlib.ExitStack() as stack:
        running = sides.all_of(stack)
        standin = STANDIN.read_text(encoding="utf-8")
        for side in running.values():
            side.run(standin)
        rows = {name: f"measure({name!r}, {loops})" for name, loops in PROGRAMS.items()}
        return in_turn(running, rows, count, MEAN, program)


def _arrays(names: tuple[str, ...], count: int, folder: Path) -> Samples:
    del names, folder
    with contextlib.ExitStack() as stack:
        running = sides.all_of(stack)
        try:
            running[PYODIDE].ask(packages=["numpy", "pandas"])
        except KernelFailedError:  # npm has Pyodide but not its packages
            del running[PYODIDE]
        for side in running.values():
            side.run(ARRAYS)
        rows = {row: f"timed(lambda: {work})" for row, work in KERNELS.items()}
        return in_turn(running, rows, count, ARRAYS_MEAN)


MEASURES = {
    "programs": Measure(
        _programs,
        5,
        dict.fromkeys((*PROGRAMS, MEAN, FASTEST.format(MEAN)), MS),
        {
            MEAN: {
                NATIVE: SLOWER_THAN_NATIVE,
                SESSION: FASTER_THAN_OTHERS,
                PYODIDE: FASTER_THAN_OTHERS,
            }
        },
        quick=2,
    ),
    "arrays": Measure(
        _arrays,
        10,
        dict.fromkeys((*KERNELS, ARRAYS_MEAN, FASTEST.format(ARRAYS_MEAN)), MS),
        {},
        quick=3,
    ),
}
"""Name on the command line -> benchmark."""
