"""What `%%wasi profile` costs: the same cell with it and without, in turn."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from measures import MS, Measure, Samples, add

from wasi_kernel import Sandbox

if TYPE_CHECKING:
    from pathlib import Path

CELL = "start = time.perf_counter()\nwork(1_500_000)\nspent = time.perf_counter() - start"
WORK = "import time\ndef work(n):\n    t = 0\n    for i in range(n): t += i * i\n    return t"
HOW = {
    "without": "",
    "200 a second": "%%wasi profile\n",
    "1000 a second": "%%wasi profile --hz 1000\n",
}
TIME, LOOKS = "the cell's time", "processor time of the looks"


def _profile(names: tuple[str, ...], count: int, folder: Path) -> Samples:
    del names, folder
    samples: Samples = {}
    with Sandbox() as box:
        box.run(WORK)
        for k in range(-1, count):  # the first of each specializes the code and does not count
            for how, magic in HOW.items():
                box.run(magic + CELL)
                looks = "w.last_profile.to_dict()['sampler_s']" if magic else "0.0"
                box.run("w = get_ipython().magics_manager.registry['WasiMagics']")
                said = ast.literal_eval(box.run(f"print([spent, {looks}])").stdout)
                if k >= 0:
                    add(samples, TIME, how, 1000 * said[0])
                    add(samples, LOOKS, how, 1000 * said[1])
    return samples


MEASURES = {"profile": Measure(_profile, 20, {TIME: MS, LOOKS: MS}, {}, {})}
"""Name on the command line -> benchmark."""
