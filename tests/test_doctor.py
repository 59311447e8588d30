"""Shows that `wasi-kernel doctor` finds what is wrong, says what to do, and ends accordingly."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Doctor = Callable[..., tuple[int, dict[str, dict[str, Any]]]]


@pytest.fixture
def doctor(tmp_path: Path) -> Doctor:
    """Runs it with these environment variables; its status, and its findings by their subject."""

    def run(*options: str, **env: str) -> tuple[int, dict[str, dict[str, Any]]]:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "wasi_kernel", "doctor", "--json", *options],
            capture_output=True, text=True, check=False, cwd=tmp_path, stdin=subprocess.DEVNULL,
            env={**os.environ, "JUPYTER_DATA_DIR": str(tmp_path / "jupyter"), **env},
        )  # fmt: skip
        assert done.stderr == ""
        return done.returncode, {f["what"]: f for f in json.loads(done.stdout)}

    return run


def test_all_is_well(doctor: Doctor):
    status, found = doctor()
    assert status == 0
    assert {f["state"] for f in found.values()} <= {"ok", "note"}
    assert found["wasmtime"]["detail"]
    assert "CPython" in found["runtime"]["detail"]
    assert found["guest"]["state"] == "ok"
    assert found["base image"]["state"] == "ok"
    assert found["checkpoints"]["detail"] == "%undo works"
    assert found["kernelspec python-wasi"]["state"] == "ok"
    assert found["pagemap"]["state"] in ("ok", "note")


def test_for_people(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-P", "-m", "wasi_kernel", "doctor", "--no-start"], capture_output=True,
        text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0
    assert "ok       wasmtime: " in done.stdout
    assert "advisories of wasmtime " in done.stdout
    assert "  guest: " not in done.stdout


def test_a_cache_that_is_empty_is_no_problem_and_stays_so(doctor: Doctor, tmp_path: Path):
    status, found = doctor(WASI_KERNEL_CACHE=str(tmp_path / "cache"))
    assert status == 0
    assert found["prepared"]["state"] == "note"
    assert "wasi-kernel prepare" in found["prepared"]["advice"]
    assert "guest" not in found


def test_a_cache_that_cannot_be_used(doctor: Doctor, tmp_path: Path):
    (tmp_path / "file").write_text("")
    status, found = doctor("--no-start", WASI_KERNEL_CACHE=str(tmp_path / "file"))
    assert status == 1
    assert found["cache"]["state"] == "problem"
    assert "WASI_KERNEL_CACHE" in found["cache"]["advice"]


def test_a_runtime_that_is_not_there(doctor: Doctor, tmp_path: Path):
    status, found = doctor("--no-start", WASI_KERNEL_RUNTIME=str(tmp_path / "none.wasm"))
    assert status == 1
    assert "none.wasm" in found["runtime"]["detail"]
    assert "unset WASI_KERNEL_RUNTIME" in found["runtime"]["advice"]


def test_kernelspecs_that_do_not_start(doctor: Doctor, tmp_path: Path):
    def write(name: str, python: str, policy: str) -> None:
        folder = tmp_path / "jupyter" / "kernels" / name
        folder.mkdir(parents=True)
        argv = [python, "-m", "wasi_kernel", "kernel", "-f", "{connection_file}", "--policy",
                "{resource_dir}/policy.toml"]  # fmt: skip
        (folder / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": name}))
        (folder / "policy.toml").write_text(policy)

    write("gone", "/no/such/python", "")
    write("wrong", sys.executable, "frontend = 'open'")
    write("keys", sys.executable, "grants = ['/proc:/p']")
    write("later", sys.executable, "grants = ['./not-here:/p']")
    status, found = doctor("--no-start")
    assert status == 1
    assert "/no/such/python" in found["kernelspec gone"]["detail"]
    assert "frontend = 'open'" in found["kernelspec wrong"]["detail"]
    assert "policy.toml" in found["kernelspec wrong"]["advice"]
    assert "system folder" in found["kernelspec keys"]["detail"]
    assert found["kernelspec later"]["state"] == "ok"
