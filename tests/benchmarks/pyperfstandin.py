"""Runs pyperformance's programs without pyperf: the same text on every side of a comparison.

A program says to `pyperf.Runner` what it would measure; the stand-in notes it, and `measure` calls
it so many times and returns what it took by the side's own clock. This file is sent to each side as
text, so it stands alone.
"""

from __future__ import annotations

import argparse
import sys
import time
import types

NOTED: dict = {}
"""Name of a benchmark -> a function from loops to seconds."""


class Runner:
    """As much of pyperf's as the programs use."""

    def __init__(self, **options) -> None:
        self.argparser = argparse.ArgumentParser()
        self.metadata = {}
        self.args = None

    def parse_args(self, args=None):
        """The defaults of what the program has added."""
        self.args = self.argparser.parse_args([])
        return self.args

    def bench_func(self, name, func, *args, inner_loops=None) -> None:
        """`func(*args)` is what is measured."""

        def timed(loops):
            start = time.perf_counter()
            for _ in range(loops):
                func(*args)
            return time.perf_counter() - start

        NOTED[name] = timed

    def bench_time_func(self, name, func, *args, inner_loops=None) -> None:
        """`func(loops, *args)` measures itself."""
        NOTED[name] = lambda loops: func(loops, *args)


def load(source, helpers) -> None:
    """Runs a program up to what it would measure.

    Args:
        source: Its text.
        helpers: The texts of modules that it imports, by name.
    """
    pyperf = types.ModuleType("pyperf")
    pyperf.Runner, pyperf.perf_counter = Runner, time.perf_counter
    modules = {"pyperf": pyperf, "__main__": types.ModuleType("__main__")}
    before = {name: sys.modules.get(name) for name in (*modules, *helpers)}
    argv = sys.argv
    sys.modules.update(modules)
    sys.argv = ["program"]
    try:
        for name, text in helpers.items():
            sys.modules[name] = types.ModuleType(name)
            exec(compile(text, name, "exec"), vars(sys.modules[name]))  # noqa: S102 - it is a program
        exec(compile(source, "program", "exec"), vars(modules["__main__"]))  # noqa: S102 - the same
    finally:
        sys.argv = argv
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def measure(name, loops):
    """Seconds that `loops` times the benchmark `name` take."""
    return NOTED[name](loops)
