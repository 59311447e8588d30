"""Compares two installed kernels, side by side in one run: `python tests/benchmarks`.

    python tests/benchmarks                         # all, about eight minutes
    python tests/benchmarks start roundtrip -n 20   # two of them, 20 samples each
    python tests/benchmarks --json result.json

Prints Markdown tables: medians, the 10th to the 90th percentile, and the ratio of the second column
to the first. What only this kernel has (time travel, sessions) is compared with doing without, or
with what comes nearest natively, or stands alone. Run it on a machine that does nothing else;
compare ratios, not times. The cache must be warm (`wasi-kernel prepare`); `save` needs dill.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from importlib import metadata
from pathlib import Path

import checkpointing
import confining
import counting
import keeping
import measures
import profiling
import publishing
import report
from kernels import own_folders

MEASURES = measures.MEASURES | checkpointing.MEASURES | keeping.MEASURES | publishing.MEASURES
MEASURES |= counting.MEASURES | confining.MEASURES | profiling.MEASURES
"""Name on the command line -> benchmark."""

PACKAGES = ("wasi-kernel", "ipykernel", "ipython", "jupyter_client", "pyzmq", "wasmtime")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python tests/benchmarks", description="Compares two installed kernels."
    )
    parser.add_argument(
        "names", nargs="*", metavar="benchmark", help=f"all by default: {', '.join(MEASURES)}"
    )
    parser.add_argument("-n", "--count", type=int, help="samples of each, instead of the default")
    parser.add_argument("--json", type=Path, metavar="FILE", help="writes every sample there")
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
    return given


def _about() -> dict[str, str]:
    about = {"python": platform.python_version(), "machine": platform.machine()}
    about |= {"cores": str(os.cpu_count()), "load": f"{os.getloadavg()[0]:.1f}"}
    return about | {name: metadata.version(name) for name in PACKAGES}


def main() -> None:
    """Runs what the command line says."""
    given = _arguments()
    about, rows = _about(), []
    with own_folders() as folder:
        for name in given.names or MEASURES:
            measure = MEASURES[name]
            print(f"{name} ...", file=sys.stderr, flush=True)
            samples = measure.run(tuple(given.kernels), given.count or measure.count, folder)
            rows += [
                report.Row(row, unit, samples[row], measure.aims.get(row), measure.limits.get(row))
                for row, unit in measure.units.items()
            ]
    print(report.table(rows))
    print("\n" + ", ".join(f"{name} {value}" for name, value in about.items()))
    if given.json is not None:
        result = {"about": about, "rows": report.data(rows)}
        given.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
