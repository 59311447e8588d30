"""The profiler: looks at a running guest's stack many times a second, from a thread of its own.

The guest does not notice: nothing in it is changed (pyframes.py). What is seen is counted in a tree
of calls, whose size is bounded whatever the guest does. A look that does not hold together is
dropped and counted. Nothing takes the thread past the request it was begun in: the server stops it
at that request's end, and before an instance is freed.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from wasi_kernel.worker import looks
from wasi_kernel.worker.looks import Refusal, Sight
from wasi_kernel.worker.pyframes import FrameReader, Place, TornError, UnreadableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from wasi_kernel.worker.memory import LinearMemory

MAX_HZ = 1000
DEFAULT_HZ = 200

MAX_NODES = 50_000
"""Nodes of the tree; what would need more is counted as `unkept`."""
MAX_SAMPLES = 5_000_000

DUTY = 0.2
"""The part of one processor that the thread takes, at most: it looks less often at deep stacks."""

BUSY = 0.5
"""Of the time since the last look, at least this part on a processor: then the guest computes."""

Function = tuple[str, str, int]


class Samples:
    """A tree of calls, and how often each node was the innermost one.

    A node is [parent, function, line, samples, of these waiting]; parent -1 is none. What calls
    stands before what is called.
    """

    def __init__(self) -> None:
        self._functions: dict[Function, int] = {}
        self._nodes: list[list[int]] = []
        self._known: dict[tuple[int, int, int], int] = {}
        self.count = self.unkept = 0

    def add(self, stack: list[Place], *, waiting: bool) -> None:
        """Counts one stack, innermost frame first."""
        self.count += 1
        parent = -1
        for place in reversed(stack):
            found = self._child(parent, place)
            if found is None:
                self.unkept += 1
                return
            parent = found
        if parent >= 0:
            self._nodes[parent][3] += 1
            self._nodes[parent][4] += waiting

    def _child(self, parent: int, place: Place) -> int | None:
        named = (place.file, place.function, place.first_line)
        function = self._functions.get(named, len(self._functions))
        key = (parent, function, place.line)
        found = self._known.get(key)
        if found is None and len(self._nodes) < MAX_NODES:
            self._functions[named] = function
            found = self._known[key] = len(self._nodes)
            self._nodes.append([parent, function, place.line, 0, 0])
        return found

    def to_dict(self) -> dict[str, Any]:
        """The tree as plain data."""
        return {
            "functions": [list(f) for f in self._functions],
            "nodes": self._nodes,
            "samples": self.count,
            "unkept": self.unkept,
        }


class Sampler:
    """Looks at one guest from now until `stop`.

    Args:
        reader: Of its frames.
        hz: How often in a second.
        clock_id: Of the guest's thread, its processor time.
    """

    def __init__(self, reader: FrameReader, hz: int, clock_id: int) -> None:
        self._reader, self._period_s, self._clock_id = reader, 1 / hz, clock_id
        self._samples = Samples()
        self._torn = 0
        self._busy_s = 0.0
        self._stopped = threading.Event()
        self._began_s, self._began_cpu_s = time.monotonic(), time.clock_gettime(clock_id)
        self._thread = threading.Thread(target=self._run, name="profiler", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        due_s = self._began_s + self._period_s
        last_s, last_cpu_s = self._began_s, self._began_cpu_s
        while not self._stopped.wait(max(0.0, due_s - time.monotonic())):
            began_cpu_s = time.thread_time()
            cpu_s, now_s = time.clock_gettime(self._clock_id), time.monotonic()
            waiting = cpu_s - last_cpu_s < BUSY * (now_s - last_s)
            last_s, last_cpu_s = now_s, cpu_s
            try:
                self._samples.add(self._reader.stack(), waiting=waiting)
            except TornError:
                self._torn += 1
            spent_s = time.thread_time() - began_cpu_s
            self._busy_s += spent_s
            due_s = max(due_s + self._period_s, now_s + spent_s / DUTY)
            if self._samples.count >= MAX_SAMPLES:
                return

    def stop(self) -> dict[str, Any]:
        """Ends it; what was seen. The thread is over when this returns.

        Returns:
            `Samples.to_dict`, with `torn` (looks that were dropped), `wall_s`, `cpu_s` (of the
            guest) and `sampler_s` (processor time of the looks).
        """
        wall_s = time.monotonic() - self._began_s
        cpu_s = time.clock_gettime(self._clock_id) - self._began_cpu_s
        self._stopped.set()
        self._thread.join()
        return {
            **self._samples.to_dict(), "torn": self._torn, "wall_s": wall_s, "cpu_s": cpu_s,
            "sampler_s": self._busy_s,
        }  # fmt: skip


class Profiler:
    """At most one sampler of the present guest; answers `%wasi profile`.

    Args:
        memory: Gives the present guest's.
    """

    def __init__(self, memory: Callable[[], LinearMemory]) -> None:
        self._memory = memory
        self._runtime: int | None = None
        self._sampler: Sampler | None = None

    def begin(self, question: dict[str, Any]) -> Sight:
        """Looks at the guest from now on, `hz` times a second. On the guest's thread."""
        hz = looks.number(question, "hz", least=1, most=MAX_HZ, default=DEFAULT_HZ)
        if self._sampler is not None:
            raise Refusal("this cell is being profiled already")
        reader = self.reader()
        clock_id = time.pthread_getcpuclockid(threading.get_ident())
        self._sampler = Sampler(reader, hz, clock_id)
        return Sight({"hz": hz})

    def end(self, question: dict[str, Any]) -> Sight:
        """What was seen."""
        del question
        if self._sampler is None:
            raise Refusal("nothing is being profiled")
        sampler, self._sampler = self._sampler, None
        return Sight(sampler.stop())

    def reader(self) -> FrameReader:
        """Reads the present guest's frames.

        Raises:
            Refusal: They cannot be read in this build.
        """
        try:
            reader = FrameReader(self._memory(), self._runtime)
        except UnreadableError as e:
            raise Refusal(str(e)) from None
        self._runtime = reader.runtime
        return reader

    def stop(self) -> None:
        """Ends what a request has begun and not ended."""
        sampler, self._sampler = self._sampler, None
        if sampler is not None:
            sampler.stop()
