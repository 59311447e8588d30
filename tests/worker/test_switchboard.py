"""Shows where each WASI call goes, and that the native WASI's known faults are closed.

Some tests put a small module in the place of wasmtime's own WASI, so that a fault is surely there.
"""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING, Any

import pytest
from wasmtime import Store

from wasi_kernel.worker import engine as engines
from wasi_kernel.worker import switchboard
from wasi_kernel.worker.switchboard import Switchboard

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from wasmtime import Engine

    from wasi_kernel.caches import Cache

EBADF, EIO, EPERM = 8, 29, 63  # errno, WASI preview 1
DIRECTORY = 3  # the first preopen's descriptor


class Host:
    """What the switchboard calls: notes each call, and gives or raises what it was told to."""

    def __init__(self, outcome: Any = 0) -> None:
        self.outcome = outcome
        self.called: list[tuple[Any, ...]] = []
        self.failures: list[BaseException] = []

    def _note(self, *call: Any) -> Any:
        self.called.append(call)
        if isinstance(self.outcome, type):
            raise self.outcome("on purpose")
        return self.outcome

    def door_read(self, *args: int) -> int:
        return self._note("door_read", *args)

    def door_write(self, *args: int) -> int:
        return self._note("door_write", *args)

    def fdstat_get(self, *args: int) -> int:
        return self._note("fdstat_get", *args)

    def filestat_get(self, *args: int) -> int:
        return self._note("filestat_get", *args)

    def poll_oneoff(self, *args: int) -> int:
        return self._note("poll_oneoff", *args)

    def proc_exit(self, status: int) -> None:
        self._note("proc_exit", status)

    def make_room(self) -> int:
        return self._note("make_room")

    def failed(self, error: BaseException) -> None:
        self.failures.append(error)


@pytest.fixture
def board(engine: Engine, cache: Cache, wat: Callable) -> Callable[..., Any]:
    """Instantiates a module between the host given and wasmtime's own WASI."""

    def make(host: Host, text: str | None = None) -> Callable[..., Any]:
        from wasmtime import WasiConfig

        store = Store(engine)
        store.set_wasi(WasiConfig())
        module = engines.small_module(engine, cache, wat() if text is None else text)
        routed = Switchboard(engine, cache, store, module, host)
        return lambda export, *args: routed.exports[export](store, *args)

    return make


# -- routing -------------------------------------------------------------------------------------

ROUTES = {
    "fd_read": ("door_read", (0, 8, 1, 12)),
    "fd_write": ("door_write", (0, 8, 1, 12)),
    "fd_fdstat_get": ("fdstat_get", (0, 64)),
    "fd_filestat_get": ("filestat_get", (0, 64)),
}


@pytest.mark.parametrize("name", ROUTES)
def test_the_standard_descriptors_go_to_the_host_and_others_do_not(board: Callable, name: str):
    host = Host(outcome=42)
    call = board(host)
    served, args = ROUTES[name]
    for fd in (0, 1, 2):
        assert call(name, fd, *args[1:]) == 42
    for fd in (3, 4, 1000, 2**31 - 1, 2**32 - 1):
        assert call(name, fd, *args[1:]) == EBADF
    assert host.called == [(served, fd, *args[1:]) for fd in (0, 1, 2)]


def test_waiting_and_ending_go_to_the_host(board: Callable):
    host = Host(outcome=5)
    call = board(host)
    assert call("poll_oneoff", 0, 64, 1, 128) == 5
    assert host.called == [("poll_oneoff", 0, 64, 1, 128)]


def test_the_host_is_given_unsigned_numbers(board: Callable):
    host = Host()
    call = board(host)
    call("fd_write", 1, -1, -(2**31), 2**31)
    call("poll_oneoff", 2**32 - 1, 0, 2**31 - 1, -2)
    assert host.called == [
        ("door_write", 1, 2**32 - 1, 2**31, 2**31),
        ("poll_oneoff", 2**32 - 1, 0, 2**31 - 1, 2**32 - 2),
    ]


@pytest.mark.parametrize(
    "error", [ValueError, MemoryError, KeyboardInterrupt, SystemExit, GeneratorExit, BaseException]
)
def test_nothing_that_a_host_function_raises_goes_through_wasm(
    board: Callable, error: type[BaseException]
):
    host = Host(outcome=error)
    call = board(host)
    for name, (_, args) in ROUTES.items():
        assert call(name, *args) == EIO
    assert call("poll_oneoff", 0, 64, 1, 128) == EIO
    assert [type(e) for e in host.failures] == [error] * 5
    host.outcome = 0
    assert call("fd_read", *ROUTES["fd_read"][1]) == 0


def test_proc_exit_does_not_return(board: Callable):
    from wasmtime import Trap

    for outcome in (None, ValueError):
        host = Host(outcome=outcome)
        with pytest.raises(Trap):
            board(host)("proc_exit", 3)
        assert host.called == [("proc_exit", 3)]


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("fd_close", ()), ("fd_renumber", (5,)), ("fd_pread", (8, 1, 0, 12)),
        ("fd_pwrite", (8, 1, 0, 12)), ("fd_fdstat_set_flags", (0,)),
    ],
)  # fmt: skip
def test_the_standard_descriptors_cannot_be_closed_or_moved(
    board: Callable, name: str, args: tuple[int, ...]
):
    call = board(Host())
    for fd in (0, 1, 2):
        assert call(name, fd, *args) == EPERM
    assert call(name, 77, *args) == EBADF


def test_nothing_takes_a_standard_descriptors_number(open_guest: Callable, tmp_path: Path):
    """fd_renumber closes what had the number: as good as closing it first."""
    probe = open_guest(preopens=[(tmp_path, "/d", False)])
    for fd in (0, 1, 2):
        assert probe.call("fd_renumber", DIRECTORY, fd) == EPERM
    assert probe.call("fd_prestat_get", DIRECTORY, 64) == 0


def test_functions_that_are_not_wasi_are_refused(board: Callable):
    text = """(module
      (import "tools" "none" (func $none (param i32)))
      (import "tools" "one" (func $one (param i32 i64) (result i32)))
      (import "tools" "two" (func $two (result i32 i64)))
      (memory (export "memory") 1)
      (func (export "none") (call $none (i32.const 1)))
      (func (export "one") (result i32) (call $one (i32.const 1) (i64.const 2)))
      (func (export "two") (result i32 i64) (call $two)))"""
    call = board(Host(), text)
    assert (call("none"), call("one"), call("two")) == (None, -1, [-1, -1])


def test_calls_that_the_guest_does_not_import_are_not_needed(board: Callable):
    assert board(Host(), '(module (memory (export "memory") 1))')


# -- texts ---------------------------------------------------------------------------------------


def test_modules_that_are_gone_are_not_held(engine: Engine, cache: Cache):
    """Each has its file open for as long as anybody knows it."""
    text = '(module (import "wasi_snapshot_preview1" "sched_yield" (func (result i32))))'
    engines.small_module(engine, cache, text)
    known = []
    for _ in range(20):
        module = engines.load(engine, cache, engines.small_path(cache, text))
        assert module is not None
        switchboard.is_wired(cache, module)
        known.append(weakref.ref(module))
        del module
    gc.collect()
    assert sum(one() is not None for one in known) <= 4


def test_signatures(engine: Engine):
    from wasmtime import FuncType, ValType

    i32, i64 = ValType.i32(), ValType.i64()
    assert switchboard.signature(FuncType([], [])) == ""
    assert switchboard.signature(FuncType([i32, i64], [i32])) == " (param i32 i64) (result i32)"
    assert switchboard.signature(FuncType([], [i64])) == " (result i64)"


# -- the real one --------------------------------------------------------------------------------


def test_files_are_read_natively_and_folders_granted_to_read_cannot_be_written(
    open_guest: Callable, tmp_path: Path
):
    (tmp_path / "file").write_text("content")
    probe = open_guest(preopens=[(tmp_path, "/d", False)])
    assert probe.read(probe.open_file(b"file"), 100) == (0, b"content")
    probe.memory.write(512, b"new")
    rights, create = 1 << 6, 1  # fd_write, oflags.creat
    assert probe.call("path_open", DIRECTORY, 0, 512, 3, create, rights, 0, 0, 768) == EPERM
    for name in (b"../cache", b"/etc/passwd", b"file/../../x"):
        probe.memory.write(512, name)
        assert probe.call("path_open", DIRECTORY, 0, 512, len(name), 0, 2, 0, 0, 768) != 0
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_link_out_of_a_granted_folder_leads_nowhere(open_guest: Callable, tmp_path: Path):
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "granted").mkdir()
    (tmp_path / "granted" / "link").symlink_to(tmp_path / "secret")
    (tmp_path / "granted" / "up").symlink_to("..")
    probe = open_guest(preopens=[(tmp_path / "granted", "/d", True)])
    for name in (b"link", b"up/secret"):
        probe.memory.write(512, name)
        for follow in (0, 1):
            assert probe.call("path_open", DIRECTORY, follow, 512, len(name), 0, 2, 0, 0, 768) != 0
