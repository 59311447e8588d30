"""Sessions that outlive their process: recovery from a death, saving and resuming, forks."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

import native
import processes
from kernels import KernelFailedError
from measures import MIB, MS, Measure, S, Samples, add, pair
from report import KEPT

from wasi_kernel import Sandbox

if TYPE_CHECKING:
    from pathlib import Path

DILL, OURS = "dill", "python-wasi"
SETUP = "import numpy, pandas\nx = 1\ntable = pandas.DataFrame({'a': range(1000)})"
DEATH, ALL_BACK = "`os._exit(1)`, until cells can run", "`os._exit(1)`, until `x` is there"
SIZES_MB = (10, 100)
SAVE, RESUME, FILE = "save {} MB", "resume {} MB, from the process's start", "file of {} MB"
DATA = """\
import numpy, pandas
random = numpy.random.default_rng(0)
array = random.random({0} * 62_500)
table = pandas.DataFrame(random.random(({0} * 15_625, 4)), columns=list("abcd"))
"""
"""So many megabytes, half of them in an array and half in a DataFrame."""

CHECK = "len(array) > 4 * len(table) - 4"
FIRST, LATER = "fork, the first one", "fork, until it is ready"
USS, LINEAR = "a fork's private memory", "a fork's private memory, guest only"
BUSY = "def busy(n):\n    for _ in range(n): pass\n"
LOOPS, ITEMS = 30_000_000, 4
MAP = f"map of {ITEMS} busy calls"

STATE = {
    "array and DataFrame": (
        "import numpy, pandas\na = numpy.arange(5)\ntable = pandas.DataFrame({'a': a})",
        "table.a.sum() == 10",
    ),
    "closure": (
        "def adder(n):\n    return lambda x: x + n\nf = adder(2)",
        "f(1) == 3",
    ),
    "class and its instance": (
        "class Point:\n    def __init__(self, x): self.x = x\np = Point(3)",
        "type(p) is Point and p.x == 3",
    ),
    "generator, half way": (
        "def count():\n    yield from range(5)\ng = count()\nnext(g)",
        "next(g) == 1",
    ),
    "SQLite database in memory": (
        "import sqlite3 as s\ndb = s.connect(':memory:')\ndb.execute('create table t as select 7')",
        "db.execute('select * from t').fetchone() == (7,)",
    ),
    "random state": (
        "import random, copy\nrandom.seed(1)\nr = random.Random()\nr.setstate(random.getstate())",
        "random.random() == r.random()",
    ),
    "a module's changed attribute": ("import json\njson.answer = 42", "json.answer == 42"),
    "logging configuration": (
        "import logging\nlogging.getLogger('a').setLevel(10)",
        "logging.getLogger('a').level == 10",
    ),
    "what an lru_cache holds": (
        "import functools\n@functools.lru_cache\ndef f(x): return x\nf(1)",
        "f.cache_info().currsize == 1",
    ),
    "match of a regular expression": ("import re\nm = re.match('(a)b', 'ab')", "m[1] == 'a'"),
    "hash object": (
        "import hashlib\nh = hashlib.sha256(b'a')",
        "h.digest() == hashlib.sha256(b'a').digest()",
    ),
    "memoryview": ("v = memoryview(bytearray(b'abc'))", "v[1] == 98"),
    "exception with its traceback": (
        "try: 1 / 0\nexcept ZeroDivisionError as e: error = e",
        "error.__traceback__ is not None",
    ),
    "file, open for reading": ("f = open('letters')\nf.read(1)", "f.read() == 'bc'"),
}
"""What a session may hold: code that makes it, and an expression that is true if it is there."""


def _death(names: tuple[str, ...], count: int, folder: Path) -> Samples:
    samples: Samples = {}
    with contextlib.ExitStack() as stack:
        kernels = pair(stack, names, folder)
        for kernel in kernels.values():
            kernel.execute(SETUP)
        for _ in range(count):
            for name, kernel in kernels.items():
                seconds = kernel.die("import os; os._exit(1)")
                add(samples, DEATH, name, 1000 * seconds)
                start = time.perf_counter()
                try:
                    kernel.evaluate("table.a.sum() + x")
                except KernelFailedError:
                    kernel.execute(SETUP)
                    kernel.evaluate("table.a.sum() + x")
                seconds += time.perf_counter() - start
                add(samples, ALL_BACK, name, 1000 * seconds)
    return samples


def _save(names: tuple[str, ...], count: int, folder: Path) -> Samples:
    native.check_dill()
    samples: Samples = {}
    for size in SIZES_MB:
        rows = SAVE.format(size), RESUME.format(size), FILE.format(size)
        for _ in range(count):
            for name, kept in ((DILL, _by_dill), (OURS, _by_us)):
                for row, value in zip(rows, kept(folder, DATA.format(size)), strict=True):
                    add(samples, row, name, value)
    (folder / "letters").write_text("abc", encoding="ascii")
    for what, (code, check) in STATE.items():
        add(samples, what, DILL, float(native.keeps(folder, code, check)))
        add(samples, what, OURS, float(_we_keep(folder, code, check)))
    return samples


def _by_dill(folder: Path, code: str) -> tuple[float, float, float]:
    """Milliseconds to save and to resume what `code` makes, and the file's MiB."""
    path = folder / "dill.session"
    save_s = native.saved_s(folder, code, path)
    resume_s = native.resumed_s(folder, CHECK, path)
    return 1000 * save_s, 1000 * resume_s, path.stat().st_size / 2**20


def _by_us(folder: Path, code: str) -> tuple[float, float, float]:
    path = folder / "ours.session"
    with Sandbox(work=folder) as box:
        _run(box, code)
        start = time.perf_counter()
        box.save(path)
        save_s = time.perf_counter() - start
    start = time.perf_counter()
    with Sandbox(work=folder, resume=path) as box:
        _run(box, f"assert {CHECK}")
        resume_s = time.perf_counter() - start
    return 1000 * save_s, 1000 * resume_s, path.stat().st_size / 2**20


def _we_keep(folder: Path, code: str, check: str) -> bool:
    path = folder / "ours.session"
    with Sandbox(work=folder) as box:
        _run(box, code)
        box.save(path)
    with Sandbox(work=folder, resume=path) as box:
        return box.run(f"bool({check})").text == "True"


def _run(box: Sandbox, code: str) -> None:
    result = box.run(code)
    if not result.ok:
        raise KernelFailedError(f"{code!r} gave {result.error}")


def _fork(names: tuple[str, ...], count: int, folder: Path) -> Samples:
    samples: Samples = {}
    for _ in range(max(1, count // 5)):
        with Sandbox() as box:
            _run(box, SETUP)
            add(samples, FIRST, OURS, 1000 * _forked(box)[0])
            for _ in range(5):
                seconds, uss, linear = _forked(box)
                add(samples, LATER, OURS, 1000 * seconds)
                add(samples, USS, OURS, uss / 2**20)
                add(samples, LINEAR, OURS, linear / 2**20)
    with Sandbox() as box:
        _run(box, BUSY)
        for _ in range(max(1, count // 5)):
            for workers, name in ((1, "1 worker"), (2, "2 workers")):
                start = time.perf_counter()
                box.map("busy", [LOOPS] * ITEMS, workers=workers)
                add(samples, MAP, name, time.perf_counter() - start)
    return samples


def _forked(box: Sandbox) -> tuple[float, int, int]:
    """Seconds until a fork was ready, its private bytes and those of its guest's memory."""
    before = processes.descendants()
    start = time.perf_counter()
    with box.fork():
        seconds = time.perf_counter() - start
        worker = max(processes.descendants() - before)  # the nursery, too, if it is the first one
        return seconds, processes.private(worker), processes.linear_memory_private(worker)


MEASURES = {
    "death": Measure(_death, 6, {DEATH: MS, ALL_BACK: MS}, {}),
    "save": Measure(
        _save,
        2,
        {
            row.format(size): unit
            for size in SIZES_MB
            for row, unit in ((SAVE, MS), (RESUME, MS), (FILE, MIB))
        }
        | dict.fromkeys(STATE, KEPT),
        {},
    ),
    "fork": Measure(
        _fork,
        15,
        {FIRST: MS, LATER: MS, USS: MIB, LINEAR: MIB, MAP: S},
        {},
        {LATER: 20.0, USS: 3.0},
    ),
}
"""Name on the command line -> benchmark."""
