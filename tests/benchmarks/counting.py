"""What it costs that a guest's writes and files are counted: the same loops in the same Python,
in one guest that is wired as always and in one whose calls go straight to wasmtime's WASI.

Both are in one process and take turns; see countedworker.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from countedworker import LOOPS
from measures import Measure

from wasi_kernel import Sandbox

if TYPE_CHECKING:
    from measures import Samples

WORKER = str(Path(__file__).with_name("countedworker.py"))


def _counting(names: tuple[str, ...], count: int, folder: Path) -> Samples:
    with Sandbox():  # so that all is prepared
        pass
    done = subprocess.run(
        [sys.executable, "-I", "-S", WORKER, os.pathsep.join(sys.path), str(count)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    samples: Samples = json.loads(done.stdout)
    return samples


MEASURES = {"counting": Measure(_counting, 20, dict.fromkeys(LOOPS, "us"), {})}
