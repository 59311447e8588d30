"""Two guests in one process, one of which counts what it does with files, and loops in both.

    python -I -S countedworker.py PATH COUNT

PATH is sys.path. -S as in a worker: what was prepared is found by facts of the process, sys.prefix
among them. Prints one line of JSON: {row: {wiring: [microseconds of one call]}}.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

if __name__ == "__main__":
    sys.path[:] = sys.argv[1].split(os.pathsep)

from wasi_kernel import runtimes
from wasi_kernel.caches import Cache, default_path
from wasi_kernel.policy import Policy
from wasi_kernel.worker import THREAD_STACK_EXTRA, counting, images, prepare, switchboard
from wasi_kernel.worker.door import Door
from wasi_kernel.worker.keeper import Parts

if TYPE_CHECKING:
    from wasi_kernel.worker.guest import Guest

PLAIN, COUNTED = "not counted", "counted"
LOOPS = {
    "`os.write` of 16 bytes": (
        "fd = os.open('/tmp/f', os.O_CREAT | os.O_TRUNC | os.O_WRONLY); data = b'x' * 16",
        "os.write(fd, data)", "os.close(fd)", 5000,
    ),
    "`os.pwrite` of 16 bytes": (
        "fd = os.open('/tmp/f', os.O_CREAT | os.O_TRUNC | os.O_WRONLY); data = b'x' * 16",
        "os.pwrite(fd, data, 0)", "os.close(fd)", 5000,
    ),
    "`os.write` of 64 KiB": (
        "fd = os.open('/tmp/f', os.O_CREAT | os.O_TRUNC | os.O_WRONLY); data = bytes(65536)",
        "os.write(fd, data)", "os.close(fd)", 500,
    ),
    "`os.lseek` and `os.write` of 4 KiB": (
        "fd = os.open('/tmp/f', os.O_CREAT | os.O_TRUNC | os.O_WRONLY); data = bytes(4096)",
        "os.lseek(fd, 4096 * (_ % 100), 0); os.write(fd, data)", "os.close(fd)", 3000,
    ),
    "open and close a file that is there": (
        "open('/tmp/f', 'w').close()", "os.close(os.open('/tmp/f', os.O_WRONLY))", "", 2000,
    ),
    "make a file and remove it": (
        "", "os.close(os.open('/tmp/new', os.O_CREAT | os.O_WRONLY)); os.remove('/tmp/new')", "",
        1000,
    ),
}  # fmt: skip
"""Row -> what comes before, what is repeated, what comes after, how often."""

SOURCE = """
import os, time
{before}
start = time.perf_counter()
for _ in range({times}):
    {what}
took = time.perf_counter() - start
{after}
open('/tmp/took', 'w').write(str(took))
"""


class Nowhere:
    """A door's other end, where nobody is."""

    interrupted = False

    def send(self, data: bytes) -> None:
        """Nobody hears it."""

    def receive(self, *, interruptible: bool = False) -> None:
        """Nothing comes."""

    def wait(self, duration_s: float) -> bool:
        """The time has passed."""
        return True


def _guest(parts: Parts, *, counted: bool) -> Guest:
    """A guest woken at the base image, wired as always or without counting."""
    shapes = {k: v for k, v in switchboard._SHAPES.items() if counted or k not in counting.SHAPES}
    switchboard.wiring.cache_clear()
    with mock.patch.dict(switchboard._SHAPES, shapes, clear=True):
        guest = parts.guest(Door(Nowhere(), output_bytes=1 << 20, message_bytes=1 << 20))
    switchboard.wiring.cache_clear()
    base = parts.base
    assert base is not None
    image, size = Path(base.image), base.bytes
    guest.wake(lambda memory: images.restore(memory, image, size), base.notes)
    return guest


def _measure(samples: dict[str, dict[str, list[float]]], count: int, scratch: Path) -> None:
    cache, policy = Cache(default_path()), Policy()
    runtime = runtimes.find(None, cache, None)
    plan = prepare.find_plan(cache, runtime, policy)
    assert plan is not None
    parts = Parts.load(cache, policy, runtime, plan, None, scratch, None)
    assert parts is not None
    guests = {name: _guest(parts, counted=name == COUNTED) for name in (PLAIN, COUNTED)}
    for _ in range(count):
        for row, (before, what, after, times) in LOOPS.items():
            source = SOURCE.format(before=before, what=what, after=after, times=times)
            for name, guest in guests.items():
                guest.turn(source)
                took_s = float((scratch / "tmp" / "took").read_text())
                took = samples.setdefault(row, {}).setdefault(name, [])
                took.append(1e6 * took_s / times)
    for guest in guests.values():
        guest.close()


def main() -> None:
    """Measures as often as the command line says."""
    samples: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        threading.stack_size(Policy().limits.stack_bytes + THREAD_STACK_EXTRA)
        thread = threading.Thread(target=_measure, args=(samples, int(sys.argv[2]), Path(scratch)))
        thread.start()
        thread.join()
    print(json.dumps(samples))


if __name__ == "__main__":
    main()
