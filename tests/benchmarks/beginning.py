"""Beginnings: each side from its process's start to a result, and to a state that was kept.

A state is kept as a side can: this kernel's guest as a session file, Pyodide as a snapshot of its
memory (an option that it does not document; it cannot be larger than Pyodide's first memory). A
Session keeps none, so it runs the same code again; native Python too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import sides
from kernels import KernelFailedError
from measures import MS, Measure, Samples, add
from sides import OURS, PYODIDE, SIDES

if TYPE_CHECKING:
    from pathlib import Path

FIRST, PANDAS = "process start to `1 + 1`", "process start to pandas imported"
STATE = "process start to a state that was kept"
ONE, IMPORT = "print(1 + 1)", "import pandas; print(pandas.__name__)"
MAKE = """\
class Node:
    def __init__(self, value, rest):
        self.value, self.rest = value, rest
def made(n):
    state = {}
    for i in range(n):
        state[str(i)] = Node(i * i % 1009, sorted(str(i) * 4))
    return state
state = made(20_000)
"""
"""Pure Python, as Pyodide's snapshots hold nothing else; it fits into the memory it starts with."""

CHECK = "print(len(state), state['77'].value)"
EXPECTED = f"20000 {77 * 77 % 1009}"


def _begin(names: tuple[str, ...], count: int, folder: Path) -> Samples:
    del names
    samples: Samples = {}
    kept = _kept(folder)
    for k in range(-1, count):  # the first of each fills the disk cache and does not count
        for name in SIDES:
            rows = {FIRST: ((), ONE, "2")}
            if name != PYODIDE:  # its pandas is not on npm
                rows[PANDAS] = ((), IMPORT, "pandas")
            rows[STATE] = ((kept[name],), CHECK, EXPECTED) if name in kept else (
                (), MAKE + CHECK, EXPECTED,
            )  # fmt: skip
            for row, (more, code, expected) in rows.items():
                value = _begun_ms(name, more, code, expected)
                if k >= 0:
                    add(samples, row, name, value)
    return samples


def _kept(folder: Path) -> dict[str, str]:
    """The file of a state for each side that can keep one."""
    kept = {name: str(folder / f"{name}.state") for name in (OURS, PYODIDE)}
    for name, how in ((PYODIDE, ("keep",)), (OURS, ())):
        with sides.Side(sides.command(name, *how)) as side:
            side.run(MAKE)
            side.ask(save=kept[name])
    return kept


def _begun_ms(name: str, more: tuple[str, ...], code: str, expected: str) -> float:
    with sides.Side(sides.command(name, *more)) as side:
        said = side.ask(sides.FIRST_S, code=code).strip()
        age_s = side.age_s
    if said != expected:
        raise KernelFailedError(f"{name}: {code!r} gave {said!r}")
    return 1000 * age_s


MEASURES = {"begin": Measure(_begin, 4, {FIRST: MS, STATE: MS, PANDAS: MS}, {}, quick=1)}
"""Name on the command line -> benchmark."""
