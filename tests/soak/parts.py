"""The parts of the soak: what is done to the kernels, and what is looked at."""

from __future__ import annotations

import contextlib
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import driven
import leftovers
import psutil
import slopes

if TYPE_CHECKING:
    from collections.abc import Callable

    from driven import Kernel

SAMPLES = 500
"""So many times in a part is measured."""

SLOPES = {
    "kernel resident": 1.0, "kernel anonymous": 1.0,
    "kernel descriptors": 0.1, "kernel threads": 0.1,
    "worker resident": 4.0, "worker anonymous": 1.0,
    "worker descriptors": 0.1, "worker threads": 0.1,
    "worker mappings": 100.0, "gone files mapped": 0.1,
    "disk": 1.0, "history": 0.5,
}  # fmt: skip
"""What 1000 cells may add at most: MiB, or a number. In the kernel process Jupyter remembers 65,536
signatures, in a set that grows by steps, and SQLite keeps 2 MB of pages (docs/soak.md). Of the
worker's resident memory most are pages of its base image, each of which the guest reads for the
first time one day; the history is what was typed."""

ENOUGH = 2000
"""Fewer cells say nothing about a slope."""


@dataclass
class Report:
    """What one part of the soak has found.

    Attributes:
        part: Its name.
        facts: What was done and measured.
        wrong: What is not as it should be, one line each.
    """

    part: str
    facts: dict[str, Any] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)


# -- many cells ------------------------------------------------------------------------------------


class Steps:
    """The cells of a session, of several kinds, each with the only reply that is right.

    Attributes:
        total: How many ordinary cells there were: what the session's own count must be.
    """

    def __init__(self, one: Kernel) -> None:
        self._one, self.total = one, 0

    def cell(self) -> str:
        self.total += 1
        n = self.total
        return self._one.outcome(f"total += 1\nprint('x' * {n % 300})\n[total] * {n % 50}")

    def death(self) -> str:
        return self._one.outcome("import os; os._exit(1)")

    def interrupt(self) -> str:
        return self._one.interrupted("print('begun')\nwhile True: pass")

    def undo(self) -> str:
        """A cell, and back: the guest is made anew in the same worker."""
        said = self._one.outcome("total += 1000")
        return self._one.outcome("%undo") if said == "ok" else said


RIGHT = {"cell": "ok", "death": "GuestExited", "interrupt": "KeyboardInterrupt", "undo": "ok"}


def _many(report: Report, one: Kernel, kinds: list[str], end_s: float) -> None:
    """Runs cells of these kinds, and measures between them."""
    samples: dict[str, list[tuple[int, float]]] = {}
    done: Counter[str] = Counter()
    steps, pid = Steps(one), one.process.pid
    one.run("total = 0")
    for n, kind in enumerate(kinds, 1):
        if time.monotonic() > end_s:
            break
        said = getattr(steps, kind)()
        done[kind] += 1
        if said != RIGHT[kind]:
            report.wrong.append(f"{kind} {n}: {said} instead of {RIGHT[kind]}")
        if n % max(1, len(kinds) // SAMPLES) == 0:
            for name, value in one.measure().items():
                samples.setdefault(name, []).append((n, value))
    said = one.run(f"assert total == {steps.total}, total")
    if said["status"] != "ok":
        report.wrong.append(f"the session's count is wrong: {said.get('evalue')}")
    if one.process.pid != pid:
        report.wrong.append("the kernel process is another")
    report.facts |= {"cells": f"{done.total()} of {len(kinds)}", **done}
    for name, limit in SLOPES.items():
        found = slopes.slope(samples.get(name, []))
        report.facts[name] = "not measured" if found is None else str(found)
        if found is not None and done.total() >= ENOUGH and found.exceeds(limit):
            report.wrong.append(f"{name} grows: {found}, at most {limit:g}")


def cells(count: int, end_s: float) -> Report:
    """One kernel, many cells, deaths and interrupts."""
    report, few = Report("cells"), max(1, count // 20)
    kinds = ["death"] * few + ["interrupt"] * few + ["cell"] * (count - 2 * few)
    random.Random(1).shuffle(kinds)  # noqa: S311 - a seed, no secret
    with driven.kernel(report.wrong) as one:
        _many(report, one, kinds, end_s)
    return report


def worker(count: int, end_s: float) -> Report:
    """One worker, many cells, interrupts and steps back: nothing of it dies."""
    report, few = Report("worker"), max(1, count // 20)
    kinds = ["undo"] * few + ["interrupt"] * few + ["cell"] * (count - 2 * few)
    random.Random(2).shuffle(kinds)  # noqa: S311 - a seed, no secret
    with driven.kernel(report.wrong) as one:
        one.run("None")  # what must be prepared is made by other workers
        (first,) = one.workers()
        _many(report, one, kinds, end_s)
        if one.workers() != [first]:
            report.wrong.append("the worker is another")
    return report


# -- many kernels ----------------------------------------------------------------------------------

USED = "import os\nopen('/tmp/note', 'w').write('x')\nopen(os.path.expanduser('~/n'), 'w').close()"


def kernels(count: int, end_s: float) -> Report:
    """Kernels that come and go."""
    report, done, processes, folders = Report("kernels"), 0, 0, 0
    with driven.kernel(report.wrong) as one:  # what must be prepared is made by this one
        one.run("None")
    before = leftovers.seals()
    while done < count and time.monotonic() < end_s:
        wrong: list[str] = []
        with driven.kernel(wrong) as one:
            if one.outcome(USED) != "ok":
                wrong.append("it does not work")
        processes, folders = processes + len(one.seen), folders + len(one.folders)
        report.wrong += [f"kernel {done}: {line}" for line in wrong]
        done += 1
    report.facts = {"kernels": f"{done} of {count}", "processes they had": processes,
                    "folders they had": folders}  # fmt: skip
    _look_at_cache(report, before)
    return report


def _look_at_cache(report: Report, before: dict[str, str]) -> None:
    """Is it what it was before, and is nothing in it locked by the dead, or half made?"""
    changed = leftovers.changed(before)
    more = sorted(leftovers.seals().keys() - before.keys())
    locks = leftovers.stale_locks()
    report.facts |= {"files of the cache": len(before), "of these changed or gone": len(changed),
                     "new ones": len(more), "stale locks": len(locks)}  # fmt: skip
    report.wrong += [f"the cache's {name} has changed or is gone" for name in changed]
    report.wrong += [f"the cache's {name} is new" for name in more]
    report.wrong += [f"the cache's {name} is locked by a process that is gone" for name in locks]


# -- many kills ------------------------------------------------------------------------------------

BUSY = (
    "None", "print('x' * 10000)", "grown = bytearray(30 << 20)", "sum(range(10**7))",
    "import os; os._exit(1)", "open('/tmp/a', 'w').write('a' * 10**6)", "%undo",
)  # fmt: skip
MOMENT_S = 0.15
"""The kill comes at most so long after the cell was sent: in it, its checkpoint, or after that."""

START_S = 0.8
"""A kernel that is killed while it starts is killed at most so long after that."""

SWEPT_S = 30.0
"""Within so long the kernel that lives must have removed what killed ones had: it begins 2 s after
its start."""


def kills(count: int, end_s: float) -> Report:
    """SIGKILL at random moments: to the worker, and to the kernel process."""
    report, rng = Report("kills"), random.Random(3)  # noqa: S311 - a seed, no secret
    facts: Counter[str] = Counter()
    with driven.kernel(report.wrong) as one:
        marks = Marks(one)
        before = leftovers.seals()
        half_s = (time.monotonic() + end_s) / 2
        for kill, until_s in ((_kill_worker, half_s), (_kill_kernel, end_s)):
            victim = kill.__name__.removeprefix("_kill_")
            n = 0
            while n < count and time.monotonic() < until_s:
                n += 1
                problem = kill(one, n, rng, facts, marks)
                if problem:
                    report.wrong.append(f"{victim} {n}: {problem}")
            report.facts[f"kills of the {victim}"] = f"{n} of {count}"
        one.workers()
        report.wrong += _unswept(one)
    report.facts |= {**dict(facts), "folders they had": len(one.folders)}
    _look_at_cache(report, before)
    return report


def _unswept(one: Kernel) -> list[str]:
    """What killed kernels had and the living one has not removed in time, one line each."""
    mine, end_s = leftovers.own_folders(one.process), time.monotonic() + SWEPT_S
    while (left := leftovers.still_there(one.folders - mine)) and time.monotonic() < end_s:
        one.run("None")
    return [f"{name} of a killed kernel is left" for name in left]


class Marks:
    """A variable of the session that is set before each kill, and what it may be afterwards.

    It is what it was set to, unless the cell that was killed was `%undo`, or a cell's error says
    that what the setting cell did is lost: its checkpoint was not written yet. Then it is what it
    was before.
    """

    def __init__(self, one: Kernel) -> None:
        self._one, self.value = one, 0
        self._one.run("mark = 0")

    def set(self, n: int) -> str:
        """Sets it; what is wrong, empty if nothing."""
        said = self._one.run(f"mark = {n}")
        self._new, self._cell, self.told = n, said["execution_count"], ""
        return "" if said["status"] == "ok" else f"it does not work before: {said}"

    def check(self, busy: str) -> str:
        """Looks at it; what is wrong, empty if nothing."""
        for _ in range(2):  # a death between cells is told to the first that comes
            said = self._one.run(f"assert mark == {self._new}, mark")
            self.told += said.get("evalue", "")
            if said.get("ename") != "WorkerKilled":
                break
        if said["status"] == "ok":
            self.value = self._new
            return ""
        if said.get("evalue") != str(self.value):
            return f"the mark was set to {self._new}, was {self.value}, and now: {said}"
        if busy != "%undo" and f"[{self._cell}]" not in self.told:
            return f"what cell {self._cell} did is lost, and nobody was told: {self.told}"
        return ""


def _kill_worker(one: Kernel, n: int, rng: random.Random, facts: Counter[str], marks: Marks) -> str:
    """Kills the worker in the middle of something; what is wrong afterwards, empty if nothing."""
    if problem := marks.set(n):
        return problem
    busy = rng.choice(BUSY)
    sent = one.send(busy)
    time.sleep(rng.random() * MOMENT_S)  # the random moment
    for process in one.workers():
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    said = one.reply(sent)
    marks.told = said.get("evalue", "")
    facts[f"worker's cells ended {said.get('ename', 'ok')}"] += 1
    problem = marks.check(busy)
    facts["cells that were lost, as was told"] += "LOST as well" in marks.told
    return problem or _after(one, "ok")


def _kill_kernel(
    one: Kernel, n: int, rng: random.Random, facts: Counter[str], _marks: Marks
) -> str:
    """Kills the kernel process, every fourth one once more while it starts."""
    one.send(rng.choice(BUSY))
    time.sleep(rng.random() * MOMENT_S)
    orphans = one.kill()
    one.restart()
    if n % 4 == 0:
        time.sleep(rng.random() * START_S)
        orphans += one.kill()
        one.restart()
        facts["kernels killed while they started"] += 1
    one.ready()
    if orphans:
        return f"{len(orphans)} processes outlive their kernel"
    return _after(one, one.outcome("6 * 7"))


def _after(one: Kernel, said: str) -> str:
    found = one.workers()
    if said != "ok":
        return f"it does not work afterwards: {said}"
    return "" if len(found) == 1 else f"{len(found)} workers"


# -- kills while the cache is filled ---------------------------------------------------------------

FILLED_S = 8.0
"""The kills come within so long: a little longer than it takes to make what a start needs, if all
is compiled."""


def filling(count: int, end_s: float) -> Report:
    """SIGKILL to the worker that fills a cache, then to the kernel process that has it filled."""
    report, rng = Report("filling"), random.Random(4)  # noqa: S311 - a seed, no secret
    facts: Counter[str] = Counter()
    n = 0
    while n < count and time.monotonic() < end_s:
        n += 2
        with leftovers.another_cache():
            wrong = _fill(rng, facts)
            wrong += [f"the cache's {name} is not whole" for name in leftovers.not_whole()]
            facts["half made, for a sweep"] += len(leftovers.half_made())
            before = leftovers.seals()
            with driven.kernel(wrong) as one:
                one.run("None")
            if leftovers.seals() != before:
                wrong.append("what was made had to be made again")
        report.wrong += [f"kill {n}: {line}" for line in wrong]
    report.facts = {"kills": f"{n} of {count}", **facts}
    return report


def _fill(rng: random.Random, facts: Counter[str]) -> list[str]:
    """Two kills, and then it is left in peace; what is wrong, one line each."""
    wrong: list[str] = []
    with driven.kernel(wrong) as one:
        half = leftovers.half_made()
        begun = {k: v for k, v in leftovers.seals().items() if not k.startswith(tuple(half))}
        time.sleep(rng.random() * FILLED_S)
        facts["kills before all was made"] += not leftovers.prepared()
        for process in one.workers():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        time.sleep(rng.random() * FILLED_S)
        facts["kills before all was made"] += not leftovers.prepared()
        wrong += [f"process {p.pid} outlives its kernel" for p in one.kill()]
        one.restart()
        one.ready()
        said = one.outcome("6 * 7")
        if said == "WorkerKilled":
            said = one.outcome("6 * 7")
        if problem := _after(one, said):
            wrong.append(problem)
        wrong += _unswept(one)
        wrong += [f"{name} has changed" for name in leftovers.changed(begun)]
    return wrong


PARTS: dict[str, tuple[int, Callable[[int, float], Report]]] = {
    "cells": (10_000, cells), "worker": (5_000, worker), "kernels": (50, kernels),
    "kills": (200, kills), "filling": (20, filling),
}  # fmt: skip
"""Each part with its nightly size."""
