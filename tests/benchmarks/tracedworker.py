"""Two guests in one process: one that was traced and is not any more, one that never can be.

    python -I -S tracedworker.py PATH COUNT

PATH is sys.path; see countedworker.py. Prints one line of JSON: {row: {wiring: [samples]}},
microseconds of one call, and milliseconds of making the switchboard's modules from the cache.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

if __name__ == "__main__":
    sys.path[:] = sys.argv[1].split(os.pathsep)

from countedworker import SOURCE, Nowhere

from wasi_kernel import runtimes
from wasi_kernel.caches import Cache, default_path
from wasi_kernel.policy import Policy
from wasi_kernel.worker import THREAD_STACK_EXTRA, images, prepare, switchboard
from wasi_kernel.worker.door import Door
from wasi_kernel.worker.keeper import Parts
from wasi_kernel.worker.tracer import Tracer

if TYPE_CHECKING:
    from wasi_kernel.worker.guest import Guest

WITHOUT, OFF = "without a tracer", "traced before, off now"
START = "wiring a guest's module, compiled before"
CALLS = {
    "`os.urandom(8)`": ("", "os.urandom(8)", "", 20_000),
    "`time.time()`": ("", "time.time()", "", 50_000),
    "`os.stat('/tmp')`": ("", "os.stat('/tmp')", "", 3000),
    "`os.pread` of 16 bytes": (
        "open('/tmp/f', 'wb').write(bytes(99)); fd = os.open('/tmp/f', os.O_RDONLY)",
        "os.pread(fd, 16, 0)", "os.close(fd)", 10_000,
    ),
}  # fmt: skip
"""Row -> what comes before, what is repeated, what comes after, how often."""


def loops() -> list[str]:
    """The rows of calls."""
    return list(CALLS)


def _texts(types: object) -> tuple[str, ...]:
    """The switchboard's modules, of which the one that tells an observer is empty."""
    return (*_ALL(types)[:-1], "(module)")


_ALL = switchboard._texts


def _forget() -> None:
    """The next guest's wiring is made anew."""
    switchboard.wiring.cache_clear()
    switchboard._described.cache_clear()


def _guest(parts: Parts, *, traced: bool) -> Guest:
    """A guest woken at the base image."""
    _forget()
    with mock.patch.object(switchboard, "_texts", _ALL if traced else _texts):
        guest = parts.guest(Door(Nowhere(), output_bytes=1 << 20, message_bytes=1 << 20))
    _forget()
    base = parts.base
    assert base is not None
    image, size = Path(base.image), base.bytes
    guest.wake(lambda memory: images.restore(memory, image, size), base.notes)
    first = "import os, time; os.urandom(1); time.time(); os.stat('/tmp')"
    if not traced:
        guest.turn(first)
        return guest
    tracer = Tracer(lambda: guest)
    tracer.begin({"file": "x"})
    guest.turn(first)
    assert len(tracer.end({}).content["calls"]) >= 3
    return guest


def _wiring_ms(parts: Parts, cache: Cache, texts: object) -> float:
    """How long it takes to have all modules of the wiring, which are in the cache."""
    _forget()
    with mock.patch.object(switchboard, "_texts", texts):
        begin = time.perf_counter()
        switchboard.wiring(parts.engine, cache, parts.module)
        took = time.perf_counter() - begin
    _forget()
    return 1000 * took


def _measure(samples: dict[str, dict[str, list[float]]], count: int, scratch: Path) -> None:
    cache, policy = Cache(default_path()), Policy()
    runtime = runtimes.find(None, cache, None)
    plan = prepare.find_plan(cache, runtime, policy)
    assert plan is not None
    parts = Parts.load(cache, policy, runtime, plan, None, scratch, None)
    assert parts is not None
    guests = {name: _guest(parts, traced=name == OFF) for name in (WITHOUT, OFF)}
    wirings = {WITHOUT: _texts, OFF: _ALL}
    for k in range(-1, count):  # the first of each specializes the code and does not count
        turns = list(guests)[:: 1 if k % 2 else -1]
        for row, (before, what, after, times) in CALLS.items():
            source = SOURCE.format(before=before, what=what, after=after, times=times)
            for name in turns:
                guests[name].turn(source)
                took_s = float((scratch / "tmp" / "took").read_text())
                if k >= 0:
                    took = samples.setdefault(row, {WITHOUT: [], OFF: []})[name]
                    took.append(1e6 * took_s / times)
        for name in turns:
            took_ms = _wiring_ms(parts, cache, wirings[name])
            if k >= 0:
                samples.setdefault(START, {WITHOUT: [], OFF: []})[name].append(took_ms)
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
