"""The benchmark runner runs and reports; how fast anything is, is not tested."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

RUNNER = Path(__file__).parent


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(RUNNER), *arguments],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_one_sample_of_two_benchmarks(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    done = _run("start", "roundtrip", "-n", "1", "--json", str(path))
    assert done.returncode == 0, done.stderr
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    assert [row["what"] for row in rows] == [
        "process start to kernel_info",
        "process start to first result",
        "`x`, until reply and idle",
    ]
    for row in rows:
        assert list(row["samples"]) == ["python3", "python-wasi"]
        (native,), (wasi,) = row["samples"].values()
        assert native > 0
        assert row["ratio"] == wasi / native
        assert f"| {row['what']} | " in done.stdout
    info, result, _ = (row["median"]["python-wasi"] for row in rows)
    assert info < result


def test_what_this_kernel_alone_has(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    done = _run("checkpoint", "fork", "-n", "1", "--json", str(path))
    assert done.returncode == 0, done.stderr
    rows = {row["what"]: row for row in json.loads(path.read_text(encoding="utf-8"))["rows"]}
    array, table = (
        rows[f"{what}: what it wrote"]["median"]["python-wasi"]
        for what in ("an array of 100 MB", "a DataFrame of 100,000 rows")
    )
    assert array > 100_000_000 / 4096 > table > 3_200_000 / 4096
    assert rows["checkpoint of `x`"]["limit"] == 10
    assert 0 < rows["a fork's private memory, guest only"]["median"]["python-wasi"] < 10
    assert list(rows["map of 4 busy calls"]["samples"]) == ["1 worker", "2 workers"]


def test_an_unknown_benchmark_is_named() -> None:
    done = _run("stat")
    assert done.returncode == 2
    assert "no benchmark stat; there are start, import" in done.stderr


def test_table_and_spread() -> None:
    code = (
        "import report\n"
        "row = report.Row('w', 'ms', {'a': [10.0, 30.0, 20.0], 'b': [10.0]}, 0.5)\n"
        "print(report.table([row]))\n"
        "print(report.spread([3.0]), report.spread([float(i) for i in range(11)]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, timeout=30, check=True, cwd=RUNNER,
    )  # fmt: skip
    assert done.stdout.splitlines() == [
        "|  | a | b | ratio | aim | samples |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        "| w | 20.0 ms (12.0 to 28.0) | 10.0 ms | 0.50x | 0.5x | 3 |",
        "(3.0, 3.0) (1.0, 9.0)",
    ]


def test_other_columns_begin_a_new_table() -> None:
    code = (
        "import report\n"
        "row = report.Row('w', 'ms', {'a': [2.0]}, None, 5.0)\n"
        "kept = report.Row('k', report.KEPT, {'a': [1.0, 0.0], 'b': [1.0, 1.0]}, None)\n"
        "print(report.table([row, kept]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, timeout=30, check=True, cwd=RUNNER,
    )  # fmt: skip
    assert done.stdout.splitlines() == [
        "|  | a | ratio | aim | samples |",
        "| --- | ---: | ---: | ---: | ---: |",
        "| w | 2.00 ms |  | 5 ms | 1 |",
        "",
        "|  | a | b | ratio | aim | samples |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        "| k | no | yes |  |  | 2 |",
    ]
