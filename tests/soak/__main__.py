"""The soak: one kernel for a very long time, many kernels, and kills at random moments.

    python tests/soak [cells] [kernels] [kills] [--size nightly|ci|N] [--time-s T] [--json FILE]

- cells: in one kernel 10,000 cells, one in twenty of which ends the interpreter and one in twenty
  of which is interrupted. Printed: the slopes, by least squares over the second half of the
  samples, of resident memory (kernel and worker), descriptors, threads and disk.
- kernels: 50 kernels are started, used and shut down; what is left of processes, files and locks.
- kills: 200 times SIGKILL to the worker, and 200 times to the kernel process, which is then
  restarted as Jupyter does, each at a random moment; orphans, stale locks, the cache's seals.

`--size` scales all three (nightly is the size above; a number is a factor of it), `--time-s` ends
each part after that time and says how far it came. Status 1 means that something is not as it
should be. Imports nothing of wasi_kernel but where its cache is.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty
from typing import TYPE_CHECKING, Any

import psutil
from jupyter_client.manager import KernelManager

from wasi_kernel import caches, launch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MIB = 1 << 20
NIGHTLY = {"cells": 10_000, "kernels": 50, "kills": 200}
CI = 0.01
TIMEOUT_S = 60.0

SLOPES = {"kernel": 4.0, "worker": 8.0, "descriptors": 1.0, "threads": 0.5, "disk": 16.0}
"""What 1000 cells may add, at most: MiB, but for descriptors and threads. Twice what allocators
and the checkpoints' bound alone were seen to make of it in runs of 500 cells."""
POLICY = '[limits]\nmemory_bytes = "256 MiB"\n[checkpoints]\nbytes = "64 MiB"\ncells = 20\n'


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


class Kernel:
    """A kernel in folders of its own, reached by Jupyter's messages.

    Args:
        folder: Where its working, scratch and history files are.
    """

    def __init__(self, folder: Path) -> None:
        self.scratch = folder / "scratch"
        self.scratch.mkdir(exist_ok=True)
        policy = folder / "policy.toml"
        policy.write_text(POLICY)
        self.manager = KernelManager(kernel_name="python-wasi")
        env = os.environ | {"TMPDIR": str(self.scratch)}
        self._log = (folder / "log").open("ab")  # open to the end: restarts use it again
        self.manager.start_kernel(
            env=env, cwd=str(folder), extra_arguments=["--policy", str(policy)],
            stdout=self._log, stderr=self._log,
        )  # fmt: skip
        self.seen: set[psutil.Process] = set()
        self._connect()

    def _connect(self) -> None:
        self.client: Any = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=TIMEOUT_S)

    @property
    def process(self) -> psutil.Process:
        """The kernel process."""
        return psutil.Process(self.manager.provisioner.pid)

    def workers(self) -> list[psutil.Process]:
        """Its worker, and whatever else it has started."""
        found = self.process.children(recursive=True)
        self.seen |= {self.process, *found}
        return found

    def send(self, code: str) -> str:
        """Sends a cell; the message's id."""
        return str(self.client.execute(code, stop_on_error=False))

    def reply(self, msg_id: str) -> dict[str, Any]:
        """The content of a cell's reply; reads what was published, too."""
        end = time.monotonic() + TIMEOUT_S
        while time.monotonic() < end:
            self._read_published()
            try:
                message = self.client.get_shell_msg(timeout=1)
            except Empty:
                continue
            if message["parent_header"].get("msg_id") == msg_id:
                return dict(message["content"])
        raise TimeoutError(f"no reply in {TIMEOUT_S:g} s")

    def _read_published(self) -> None:
        with contextlib.suppress(Empty):
            while True:
                self.client.get_iopub_msg(timeout=0)

    def run(self, code: str) -> dict[str, Any]:
        """Runs a cell."""
        return self.reply(self.send(code))

    def until_begun(self) -> None:
        """Waits until a cell prints that it has begun."""
        end = time.monotonic() + TIMEOUT_S
        while time.monotonic() < end:
            with contextlib.suppress(Empty):
                message = self.client.get_iopub_msg(timeout=1)
                if "begun" in str(message["content"].get("text")):
                    return
        raise TimeoutError("the cell did not begin")

    def interrupt(self) -> None:
        """The stop button."""
        self.client.control_channel.send(self.client.session.msg("interrupt_request", {}))

    def restart(self) -> None:
        """What Jupyter does with a kernel that has died."""
        self.client.stop_channels()
        self.manager.restart_kernel(now=True)
        self._connect()

    def measure(self) -> dict[str, float]:
        """Resident MiB of kernel and worker; descriptors and threads of the kernel; MiB of disk."""
        (worker,) = self.workers()
        return {
            "kernel": self.process.memory_info().rss / MIB,
            "worker": worker.memory_info().rss / MIB,
            "descriptors": self.process.num_fds() + worker.num_fds(),
            "threads": self.process.num_threads() + worker.num_threads(),
            "disk": sum(map(disk_bytes, [self.scratch, *self.own_sessions()])) / MIB,
        }

    def own_sessions(self) -> list[Path]:
        """Its own among the sessions in the cache: those that name its connection file."""
        found = []
        for path in sessions():
            with contextlib.suppress(OSError, ValueError):
                about = json.loads((path / launch.ABOUT).read_bytes())
                if about.get("connection_file") == self.manager.connection_file:
                    found.append(path)
        return found

    def close(self) -> None:
        """Shuts it down politely."""
        self.client.stop_channels()
        self.manager.shutdown_kernel()
        self._log.close()

    def outliving(self) -> list[psutil.Process]:
        """Those of all its processes that have been seen that are still there, after 10 s."""
        return list(psutil.wait_procs(self.seen, 10)[1])


def sessions() -> list[Path]:
    """The folders of all sessions in the cache."""
    folder = launch.sessions_folder(caches.default_path())
    return list(folder.iterdir()) if folder.is_dir() else []


def disk_bytes(folder: Path) -> int:
    """What a folder takes on the disk."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += 512 * os.lstat(os.path.join(root, name)).st_blocks
    return total


def seals() -> dict[str, str]:
    """{path: SHA-256} of what is in the cache but for the sessions."""
    root = caches.default_path()
    found = {}
    for path in sorted(root.rglob("*")):
        if path.is_file() and "sessions" not in path.parts and path.suffix != ".lock":
            digest = hashlib.sha256()
            with path.open("rb") as f:
                while piece := f.read(MIB):
                    digest.update(piece)
            found[str(path.relative_to(root))] = digest.hexdigest()
    return found


@contextlib.contextmanager
def kernel() -> Iterator[Kernel]:
    """A kernel in a temporary folder; it is ended, and the folder removed."""
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        found = Kernel(Path(folder))
        try:
            yield found
        finally:
            found.close()


def slope(values: list[tuple[int, float]]) -> float:
    """By how much the value grows in 1000 cells, in the second half of the samples."""
    late = values[len(values) // 2 :]
    if len({n for n, _ in late}) < 2:
        return 0.0
    fit = statistics.linear_regression([n for n, _ in late], [v for _, v in late])
    return 1000 * fit.slope


def one_cell(one: Kernel, n: int, kind: str) -> str:
    """Runs the `n`th cell; what is wrong about its reply, empty if nothing."""
    if kind == "death":
        said, wanted = one.run("import os; os._exit(1)"), "GuestExited"
    elif kind == "interrupt":
        sent = one.send("print('begun')\nwhile True: pass")
        one.until_begun()
        one.interrupt()
        said, wanted = one.reply(sent), "KeyboardInterrupt"
    else:
        said = one.run(f"total += 1\nprint('x' * {n % 300})\n[total] * {n % 50}")
        wanted = "ok"
    ename = said.get("ename", said["status"])
    return "" if ename == wanted else f"cell {n}: {ename} instead of {wanted}"


def soak_cells(count: int, end_s: float) -> Report:
    """One kernel, many cells, deaths and interrupts."""
    report, rng = Report("cells"), random.Random(1)  # noqa: S311 - no secret
    samples: dict[str, list[tuple[int, float]]] = {name: [] for name in SLOPES}
    kinds = {"cell": 0, "death": 0, "interrupt": 0}
    with kernel() as one:
        pid = one.process.pid
        one.run("total = 0")
        while (n := sum(kinds.values()) + 1) <= count and time.monotonic() < end_s:
            kind = {0: "death", 1: "interrupt"}.get(rng.randrange(20), "cell")
            kinds[kind] += 1
            report.wrong += filter(None, [one_cell(one, n, kind)])
            if n % max(5, count // 100) == 0:
                for name, value in one.measure().items():
                    samples[name].append((n, value))
        said = one.run(f"assert total == {kinds['cell']}, total")
        if said["status"] != "ok":
            report.wrong.append(f"the session forgot cells: {said.get('evalue')}")
        if one.process.pid != pid:
            report.wrong.append("the kernel process is another")
    report.facts = {"cells": f"{sum(kinds.values())} of {count}", **kinds}
    for name, values in samples.items():
        grown = slope(values)
        report.facts[name] = (
            f"{values[0][1]:.1f} -> {values[-1][1]:.1f}, {grown:+.2f} per 1000 cells"
        )
        if sum(kinds.values()) >= 2000 and grown > SLOPES[name]:  # fewer say nothing about a slope
            report.wrong.append(f"{name} grows by {grown:.2f} in 1000 cells")
    return report


def soak_kernels(count: int, end_s: float) -> Report:
    """Kernels that come and go."""
    report = Report("kernels")
    left, done, alive = 0, 0, 0
    for n in range(count):
        if time.monotonic() > end_s:
            break
        with tempfile.TemporaryDirectory(prefix="soak-") as folder:
            one = Kernel(Path(folder))
            one.workers()
            mine = one.own_sessions()
            if one.run("import os; open('/tmp/note', 'w').write('x')")["status"] != "ok":
                report.wrong.append(f"kernel {n} does not work")
            files = Path(one.manager.connection_file)
            one.close()
            outliving = one.outliving()
            alive += len(outliving)
            report.wrong += [f"kernel {n} left process {p.pid}" for p in outliving]
            report.wrong += [f"kernel {n} left {path}" for path in one.scratch.rglob("*")]
            mine = [path for path in mine if path.exists()]
            left += len(mine)
            report.wrong += [f"kernel {n} left its session {path.name}" for path in mine]
            if files.exists():
                report.wrong.append(f"kernel {n} left its connection file")
        done = n + 1
    report.facts = {"kernels": f"{done} of {count}", "processes left": alive,
                    "sessions left": left}  # fmt: skip
    return report


BUSY = (
    "None", "print('x' * 10000)", "grown = bytearray(30 << 20)", "sum(range(10**7))",
    "import os; os._exit(1)", "open('/tmp/a', 'w').write('a' * 10**6)", "%undo",
)  # fmt: skip


def soak_kills(count: int, end_s: float) -> Report:
    """SIGKILL at random moments: to the worker, and to the kernel process."""
    report, rng = Report("kills"), random.Random(2)  # noqa: S311 - no secret
    before = seals()
    done = {"worker": 0, "kernel": 0}
    with kernel() as one:
        for victim in done:
            share_s = end_s if victim == "kernel" else (time.monotonic() + end_s) / 2
            for n in range(count):
                if time.monotonic() > share_s:
                    break
                problem = _kill(one, victim, rng)
                if problem:
                    report.wrong.append(f"{victim} {n}: {problem}")
                done[victim] = n + 1
    gone = one.outliving()
    report.wrong += [f"process {p.pid} is an orphan" for p in gone]
    after = seals()
    changed = {path for path, digest in before.items() if after.get(path) != digest}
    report.wrong += [f"the cache's {path} has changed" for path in sorted(changed)]
    report.facts = {f"kills of the {k}": f"{n} of {count}" for k, n in done.items()}
    report.facts |= {"orphans": len(gone), "files of the cache changed": len(changed)}
    return report


def _kill(one: Kernel, victim: str, rng: random.Random) -> str:
    """Kills in the middle of something; what is wrong afterwards, empty if nothing."""
    sent = one.send(rng.choice(BUSY))
    time.sleep(rng.random() * 0.15)  # the random moment
    if victim == "worker":
        for worker in one.workers():
            with contextlib.suppress(psutil.NoSuchProcess):
                worker.kill()
        one.reply(sent)  # whatever it says: it must come
    else:
        orphans = one.workers()
        one.process.kill()
        alive = psutil.wait_procs(orphans, 10)[1]
        if alive:
            return f"{len(alive)} workers outlive their kernel"
        one.restart()
    for _ in range(3):  # the first may be told of the death between cells
        said = one.run("6 * 7")
        if said["status"] == "ok":
            break
    if said["status"] != "ok":
        return f"it does not work afterwards: {said.get('ename')}: {said.get('evalue')}"
    if len(one.workers()) != 1:
        return f"{len(one.workers())} workers"
    return ""


PARTS: dict[str, Callable[[int, float], Report]] = {
    "cells": soak_cells, "kernels": soak_kernels, "kills": soak_kills,
}  # fmt: skip


def main() -> int:
    """Runs the parts that are asked for, prints what they found."""
    parser = argparse.ArgumentParser(prog="soak", description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; default: all")
    parser.add_argument("--size", default="nightly", help="nightly, ci, or a factor of nightly")
    parser.add_argument("--time-s", type=float, default=1e9, help="the most seconds for each part")
    parser.add_argument("--json", help="write the reports to this file as well")
    given = parser.parse_args()
    if unknown := set(given.parts) - set(PARTS):
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    factor = {"nightly": 1.0, "ci": CI}.get(given.size) or float(given.size)
    reports = []
    for part in given.parts or PARTS:
        count = max(2, round(factor * NIGHTLY[part]))
        begin = time.monotonic()
        report = PARTS[part](count, begin + given.time_s)
        report.facts["seconds"] = round(time.monotonic() - begin, 1)
        reports.append(report)
        print(f"{report.part}:", flush=True)
        for name, value in report.facts.items():
            print(f"  {name}: {value}")
        for line in report.wrong[:50]:
            print(f"  WRONG: {line}")
    if given.json:
        said = [{"part": r.part, "facts": r.facts, "wrong": r.wrong} for r in reports]
        Path(given.json).write_text(json.dumps(said, indent=1))
    return int(any(report.wrong for report in reports))


if __name__ == "__main__":
    sys.exit(main())
