"""The soak runs and finds nothing wrong in its smallest size; the nightly one is a command."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SOAK = Path(__file__).parent


@pytest.mark.parametrize("part", ["cells", "kernels", "kills"])
def test_the_smallest_size(own_folders: None, tmp_path: Path, part: str) -> None:
    path = tmp_path / "report.json"
    done = subprocess.run(
        [sys.executable, str(SOAK), part, "--size", "ci", "--json", str(path)],
        capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    (report,) = json.loads(path.read_text(encoding="utf-8"))
    assert report["wrong"] == []
    assert report["facts"]


def test_an_unknown_part_is_named() -> None:
    done = subprocess.run(
        [sys.executable, str(SOAK), "cell"], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 2
    assert "no part cell; there are cells, kernels, kills" in done.stderr
