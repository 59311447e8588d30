"""What `%%wasi trace` costs when it is off: the same calls in a guest that has been traced, and in
one whose switchboard has no tracer at all; and what the tracer adds to a start.

Both are in one process and take turns; see tracedworker.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from measures import Measure
from tracedworker import OFF, START, WITHOUT, loops

from wasi_kernel import Sandbox

if TYPE_CHECKING:
    from measures import Samples

WORKER = str(Path(__file__).with_name("tracedworker.py"))
PAIRS = "off to without, pair by pair"


def _tracing(names: tuple[str, ...], count: int, folder: Path) -> Samples:
    del names, folder
    with Sandbox():  # so that all is prepared
        pass
    done = subprocess.run(
        [sys.executable, "-I", "-S", WORKER, os.pathsep.join(sys.path), str(count)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    samples: Samples = json.loads(done.stdout)
    for row, both in list(samples.items()):
        pairs = zip(both[WITHOUT], both[OFF], strict=True)
        samples[_ratio(row)] = {PAIRS: [off / without for without, off in pairs]}
    return samples


def _ratio(row: str) -> str:
    return f"{row}, ratio"


UNITS = dict.fromkeys(loops(), "us") | {START: "ms"}
MEASURES = {
    "tracing": Measure(
        _tracing, 30, UNITS | {_ratio(row): "x" for row in UNITS}, dict.fromkeys(loops(), 1.05)
    )
}
"""Name on the command line -> benchmark."""
