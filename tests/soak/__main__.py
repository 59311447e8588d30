"""The soak: kernels for a very long time, many of them, and kills at random moments.

    python tests/soak [cells] [worker] [kernels] [kills] [filling]
                      [--size nightly|ci|N] [--time-s T] [--json FILE]

- cells: in one kernel 10,000 cells, one in twenty of which ends the interpreter and one in twenty
  of which is interrupted. Printed: the slopes, over the second half, of memory, descriptors,
  threads and disk.
- worker: the same for 5,000 cells in one worker, with steps back (`%undo`) instead of deaths: what
  a worker gathers in its life is seen only where it does not end.
- kernels: 50 kernels are started, used and shut down; what is left of processes, files and locks.
- kills: 200 times SIGKILL to the worker, and 200 times to the kernel process, which Jupyter's
  restarter starts again, each at a random moment; orphans, stale locks, what the dead had on the
  disk, the cache's files.
- filling: 20 kills of the worker that fills an empty cache (but for compiled modules), and of its
  kernel process: what is in the cache afterwards is whole, and is not made again.

`--size` scales all of them (nightly is the size above; a number is a factor of it), `--time-s` ends
each part after that time and says how far it came. Status 1 means that something is not as it
should be. Nothing else should use the cache meanwhile: its new files count as left behind.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

from parts import PARTS

SIZES = {"nightly": 1.0, "ci": 0.01}


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
    try:
        factor = SIZES.get(given.size) or float(given.size)
    except ValueError:
        parser.error(f"no size {given.size}; there are {', '.join(SIZES)}, and numbers")
    reports = []
    for part in given.parts or PARTS:
        nightly, run = PARTS[part]
        begin = time.monotonic()
        report = run(max(2, round(factor * nightly)), begin + given.time_s)
        report.facts["seconds"] = round(time.monotonic() - begin, 1)
        reports.append(report)
        print(f"{report.part}:")
        for name, value in report.facts.items():
            print(f"  {name}: {value}")
        for line in report.wrong[:50]:
            print(f"  WRONG: {line}")
        sys.stdout.flush()
    if given.json:
        said = json.dumps([asdict(report) for report in reports], indent=1)
        Path(given.json).write_text(said, encoding="utf-8")
    return int(any(report.wrong for report in reports))


if __name__ == "__main__":
    sys.exit(main())
