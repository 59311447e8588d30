"""Shows that a program that uses WASI fares with our switchboard as it does with wasmtime alone.

The programs are those of the public WASI test suite (WebAssembly/wasi-testsuite, branch
prod/testsuite-base: folders `tests/*/testsuite/wasm32-wasip1`), which are not part of this project:
$WASI_KERNEL_WASI_TESTSUITE names a checkout of that branch, and without it these tests are skipped.
How a program is started, and what it must do, stands in the JSON file beside it (the suite's
doc/specification.md). Each runs twice, in a fresh copy of the folder that it is granted, and the
verdicts are compared. docs/conformance.md has the figures of a run and says why what differs does.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from wasmtime import ExitTrap, Linker, Module, Store, Trap, WasiConfig, WasmtimeError

from wasi_kernel.errors import GuestLost
from wasi_kernel.policy import MIB, Limits
from wasi_kernel.worker.door import Door
from wasi_kernel.worker.guest import Guest, Preopen
from wasi_kernel.worker.memory import OutOfBoundsError

if TYPE_CHECKING:
    from collections.abc import Callable

    from wasmtime import Engine

    from wasi_kernel.caches import Cache

VARIABLE = "WASI_KERNEL_WASI_TESTSUITE"
SUITE = os.environ.get(VARIABLE, "")
PROGRAMS = sorted(Path(SUITE).glob("tests/*/testsuite/wasm32-wasip1/*.wasm")) if SUITE else []
FEWEST = 72
"""Programs that the branch had at commit 9f80ca35 (2026-08-18); later ones may have more."""

DIFFERENT = {"rust/stdio": ("pass", "trap")}
"""{program: (verdict of wasmtime alone, of the switchboard)} where they are not the same."""

DOCUMENT = Path(__file__).parents[2] / "docs" / "conformance.md"
STACK_BYTES = MIB

needs_suite = pytest.mark.skipif(
    not SUITE, reason=f"${VARIABLE} names no checkout of WebAssembly/wasi-testsuite"
)


class Spec(NamedTuple):
    """What a program is given, and what it must do."""

    args: list[str]
    env: dict[str, str]
    root: Path | None
    exit_code: int
    stdout: str | None
    stderr: str | None


class Outcome(NamedTuple):
    """What a program did; `status` is None if it trapped."""

    status: int | None
    stdout: str
    stderr: str


def spec_of(program: Path) -> Spec:
    """The specification beside a program, with the defaults that the suite's own runner has.

    Output that is not specified is not looked at (its doc/specification.md says otherwise).
    """
    path = program.with_suffix(".json")
    said: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    unknown = set(said) - {"args", "env", "root", "exit_code", "stdout", "stderr"}
    assert not unknown, f"{path} has fields that this test does not know: {unknown}"
    root = said.get("root")
    return Spec(
        said.get("args", []), said.get("env", {}), None if root is None else program.parent / root,
        said.get("exit_code", 0), said.get("stdout"), said.get("stderr"),
    )  # fmt: skip


def verdict(spec: Spec, outcome: Outcome) -> str:
    """ "pass", or the first thing that is not as specified."""
    if outcome.status is None:
        return "trap"
    if outcome.status != spec.exit_code:
        return f"exit {outcome.status}"
    if spec.stdout is not None and outcome.stdout != spec.stdout:
        return "stdout"
    if spec.stderr is not None and outcome.stderr != spec.stderr:
        return "stderr"
    return "pass"


class Link:
    """The door's link: keeps what the program prints, and really waits."""

    interrupted = False

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def send(self, data: bytes) -> None:
        self.sent.append(bytes(data))

    def receive(self, *, interruptible: bool = False) -> None:
        """No kernel has anything to say."""

    def wait(self, duration_s: float) -> bool:
        return not threading.Event().wait(duration_s)

    def text(self, name: str) -> str:
        from wasi_kernel import frames

        said = [f.content for data in self.sent for f in frames.Decoder().feed(data)]
        return "".join(c["text"] for c in said if c["name"] == name)


class Program(Guest):
    """A guest that may have no clock and no memory, which every CPython has."""

    def _calibrate_clock(self) -> int:
        try:
            return super()._calibrate_clock()
        except (KeyError, OutOfBoundsError):
            return 0


def copied(spec: Spec, folder: Path) -> Path | None:
    """A fresh copy of the folder that the program is granted."""
    if spec.root is None:
        return None
    shutil.copytree(spec.root, folder / "root", symlinks=True)
    return folder / "root"


def run_switched(
    engine: Engine, cache: Cache, module: Module, name: str, spec: Spec, folder: Path
) -> Outcome:
    """Runs a program as a guest of ours."""
    link, root = Link(), copied(spec, folder)
    guest = Program(
        engine, cache, module, Door(link, output_bytes=MIB, message_bytes=MIB),
        preopens=[] if root is None else [Preopen(str(root), "/", writable=True)],
        env=spec.env, argv=[name, *spec.args], limits=Limits(stack_bytes=STACK_BYTES),
    )  # fmt: skip
    try:
        status: int | None = guest.run_command()
    except GuestLost:
        status = None
    finally:
        guest.door.end()
        guest.close()
    return Outcome(status, link.text("stdout"), link.text("stderr"))


def run_alone(engine: Engine, module: Module, name: str, spec: Spec, folder: Path) -> Outcome:
    """Runs a program with wasmtime's own WASI and nothing of ours."""
    store, linker, root = Store(engine), Linker(engine), copied(spec, folder)
    out, err = folder / "stdout", folder / "stderr"
    wasi = WasiConfig()
    wasi.argv, wasi.env = [name, *spec.args], list(spec.env.items())
    wasi.stdin_file = os.devnull
    wasi.stdout_file, wasi.stderr_file = str(out), str(err)
    if root is not None:
        wasi.preopen_dir(str(root), "/", True)
    try:
        store.set_wasi(wasi)
        linker.define_wasi()
        start: Any = linker.instantiate(store, module).exports(store)["_start"]
        status: int | None = 0
        try:
            start(store)
        except ExitTrap as e:
            status = e.code
        except (Trap, WasmtimeError) as e:
            # a status of 126 and more is no ExitTrap
            found = re.search(r"invalid exit status (\d+)|exit status (\d+)", str(e))
            status = int(found[1] or found[2]) if found else None
    finally:
        store.close()
    return Outcome(status, out.read_text(), err.read_text())


@pytest.fixture
def both(engine: Engine, cache: Cache, tmp_path: Path) -> Callable[..., tuple[Outcome, Outcome]]:
    """Runs a program both ways: what it did with wasmtime alone, and with the switchboard."""

    def run(module: Module, spec: Spec, name: str = "program.wasm") -> tuple[Outcome, Outcome]:
        for way in ("alone", "switched"):
            (tmp_path / way).mkdir()
        return (
            run_alone(engine, module, name, spec, tmp_path / "alone"),
            run_switched(engine, cache, module, name, spec, tmp_path / "switched"),
        )

    return run


@needs_suite
def test_the_suite_is_all_there():
    assert len(PROGRAMS) >= FEWEST, f"{SUITE} has {len(PROGRAMS)} programs for preview 1"


@needs_suite
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: f"{p.parts[-4]}/{p.stem}")
def test_a_program_of_the_suite(program: Path, engine: Engine, both: Callable):
    spec = spec_of(program)
    alone, switched = both(Module.from_file(engine, str(program)), spec, program.name)
    found = verdict(spec, alone), verdict(spec, switched)
    print(*found)
    expected = DIFFERENT.get(f"{program.parts[-4]}/{program.stem}")
    if expected is None:
        assert found[1] == found[0], f"alone: {alone}, with the switchboard: {switched}"
        # sorted: rust/poll_oneoff_stdio prints a hash map, whose order is random
        assert sorted(switched.stdout) == sorted(alone.stdout)
    else:
        assert found == expected


def test_every_difference_is_explained():
    text = DOCUMENT.read_text()
    assert re.findall(r"^\| `(\w+/[\w-]+)` \|", text, re.MULTILINE) == sorted(DIFFERENT)


# -- the test itself -----------------------------------------------------------------------------

EXITS = """(module
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $w (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "\\10\\00\\00\\00\\05\\00\\00\\00") (data (i32.const 16) "hello")
  (func (export "_start")
    (drop (call $w (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
    %s))"""


@pytest.mark.parametrize(
    ("ending", "expected"),
    [
        ("", "pass"), ("(call $exit (i32.const 0))", "pass"),
        ("(call $exit (i32.const 7))", "exit 7"), ("unreachable", "trap"),
        ("(drop (call $w (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))", "stdout"),
    ],
)  # fmt: skip
def test_both_ways_tell_verdicts_apart(engine: Engine, both: Callable, ending: str, expected: str):
    """So that two verdicts that are the same are not just two that cannot differ."""
    spec = Spec([], {}, None, 0, "hello", "")
    outcomes = both(Module(engine, EXITS % ending), spec)
    assert [verdict(spec, outcome) for outcome in outcomes] == [expected, expected]
