"""What the confinement of the worker costs: with it and without, in turn."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING

import workers
from measures import MS, Measure, Samples, add

from wasi_kernel.policy import Policy

if TYPE_CHECKING:
    from pathlib import Path

HOW = ("off", "auto")
START, ITSELF = "worker's start, until its first answer", "confining, in the worker"
FILES = "1000 files opened and closed"
OPENING = "import os\nfor _ in range(1000): os.close(os.open('/tmp/file', os.O_RDONLY))"

TIMED = """
import os, sys, time
from wasi_kernel.worker import confine, server
reach = confine.Reach(tuple(sys.argv[2:]), (os.getcwd(),))
start = time.perf_counter()
confine.keep_only(())
confine.confine(sys.argv[1], reach)
print(1000 * (time.perf_counter() - start))
"""


def _confine(names: tuple[str, ...], count: int, folder: Path) -> Samples:
    del names
    samples: Samples = {}
    read = [str(folder), "/usr", "/usr/lib", "/usr/bin", "/usr/share"]  # about as many as usual
    for k in range(-1, count):  # the first of each fills the disk cache and does not count
        for how in HOW:
            start = time.perf_counter()
            with workers.started(Policy(confine=how)) as worker:
                worker.run("1")
                started_s = time.perf_counter() - start
                worker.run("open('/tmp/file', 'w').close()")
                opened_s = worker.run(OPENING).seconds
            command = [sys.executable, "-P", "-c", TIMED, how, *read]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
            if k >= 0:
                add(samples, START, how, 1000 * started_s)
                add(samples, ITSELF, how, float(done.stdout))
                add(samples, FILES, how, 1000 * opened_s)
    return samples


MEASURES = {
    "confine": Measure(_confine, 30, {START: MS, ITSELF: MS, FILES: MS}, {}, {ITSELF: 5.0}),
}
"""Name on the command line -> benchmark."""
