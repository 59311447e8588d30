"""Shows that `wasi-kernel doctor` finds what is wrong, says what to do, and ends accordingly."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from wasi_kernel import confinement, landlock, seccomp
from wasi_kernel.caches import SEAL, Cache

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
    lacking = confinement.lacking()
    assert found["Landlock"]["state"] == ("ok" if landlock.abi() else "note")
    assert found["seccomp"]["state"] == ("ok" if seccomp.available() else "note")
    assert found["confinement"]["detail"] == ("; ".join(lacking) or "whole")


@pytest.mark.parametrize(
    ("what", "numbers"), [("Landlock", (landlock.CREATE,)), ("seccomp", seccomp.SECCOMP)]
)
def test_a_linux_that_lacks_a_wall_is_told(doctor: Doctor, lacking: Any, what: str, numbers: Any):
    def run() -> None:
        status, found = doctor()
        assert status == 0
        assert found[what]["state"] == found["confinement"]["state"] == "note"
        assert what in found["confinement"]["detail"]

    lacking(numbers, run)


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


def test_a_shared_cache_says_whether_anything_is_taken_from_it(doctor: Doctor, tmp_path: Path):
    common = tmp_path / "common" / "modules"
    common.mkdir(parents=True)
    assert "shared cache" not in doctor()[1]
    status, found = doctor(WASI_KERNEL_SHARED_CACHE=str(common.parent))
    assert status == 1
    assert "nothing in it" in found["shared cache"]["detail"]
    for end in ("", SEAL):
        (common / f"x.cwasm{end}").touch(mode=0o444)
    _, found = doctor(WASI_KERNEL_SHARED_CACHE=str(common.parent))
    assert found["shared cache"]["state"] == "ok"
    assert "compiled modules: 1" in found["shared cache"]["detail"]
    common.chmod(0o777)
    _, found = doctor(WASI_KERNEL_SHARED_CACHE=str(common.parent))
    assert "can be written by others" in found["shared cache"]["detail"]


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


# -- --clean-caches ------------------------------------------------------------------------------


class Done(NamedTuple):
    """A command that has ended."""

    status: int
    out: str
    err: str


@pytest.fixture
def clean(tmp_path: Path) -> Callable[..., Done]:
    """`doctor --clean-caches` on a cache of this test."""

    def run(*options: str, stdin: str = "", cache: Path | None = None) -> Done:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "wasi_kernel", "doctor", "--clean-caches", *options],
            capture_output=True, text=True, check=False, cwd=tmp_path, input=stdin,
            env={**os.environ, "WASI_KERNEL_CACHE": str(cache or tmp_path / "cache"),
                 "JUPYTER_DATA_DIR": str(tmp_path / "jupyter")},
        )  # fmt: skip
        assert "Traceback" not in done.stderr
        return Done(done.returncode, done.stdout, done.stderr)

    return run


def image(tmp_path: Path) -> Path:
    """An image that nobody needs."""
    cache = Cache(tmp_path / "cache")
    path = cache.folder("images") / "one.image"
    cache.store(path, lambda new: {"bytes": new.write_bytes(b"x" * 3_000_000)})
    return path


def test_cleaning_says_what_and_asks(clean: Callable[..., Done], tmp_path: Path):
    path = image(tmp_path)
    done = clean(stdin="n\n")
    assert done.status == 130
    assert "remove  images/one.image  2.9 MiB; not needed" in done.out
    assert path.exists()
    done = clean(stdin="y\n")
    assert (done.status, path.exists()) == (0, False)
    assert "Removed 1, 2.9 MiB." in done.out
    assert "Nothing to remove." in clean().out


def test_cleaning_for_programs(clean: Callable[..., Done], tmp_path: Path):
    assert clean("--json").status == 2  # it could not ask
    path = image(tmp_path)
    said = json.loads(clean("--json", "--yes").out)
    assert [row["name"] for row in said["removed"]] == ["one.image"]
    assert said["removed_bytes"] >= 3_000_000
    assert (said["kept"], said["spared"], path.exists()) == ([], [], False)


def test_what_a_running_process_uses_is_spared_even_with_all(
    clean: Callable[..., Done], tmp_path: Path
):
    path = image(tmp_path)
    holder = Cache(tmp_path / "cache")
    assert holder.hold(path)
    done = clean("--all", "--yes")
    assert (done.status, path.exists()) == (0, True)
    assert "needed by a running kernel" in done.out
    holder.release()
    assert clean("--all", "--yes").status == 0
    assert not path.exists()


def test_a_damaged_cache_is_cleaned(clean: Callable[..., Done], tmp_path: Path):
    image(tmp_path).write_bytes(b"other")
    (tmp_path / "cache" / "bundles").write_text("a file")
    assert clean(stdin="n\n").status == 130
    assert (tmp_path / "cache" / "bundles").exists()
    done = clean("--yes")
    assert done.status == 0
    assert "damaged" in done.out
    assert "bundles, which was no folder" in done.err
    assert "Nothing to remove." in clean("--yes").out


def test_where_there_is_no_cache(clean: Callable[..., Done], tmp_path: Path):
    assert clean("--yes").out == "Removed 0, 0.0 MiB.\n"
    assert not (tmp_path / "cache").exists()
    (tmp_path / "file").touch()
    done = clean("--yes", cache=tmp_path / "file")
    assert done.status == 1
    assert "WASI_KERNEL_CACHE" in done.err


def test_options_that_belong_to_cleaning():
    argv = [sys.executable, "-m", "wasi_kernel", "doctor", "--all"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--clean-caches" in done.stderr
