"""Shows where each WASI call goes, and that the native WASI's known faults are closed.

Some tests put a small module in the place of wasmtime's own WASI, so that a fault is surely there.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import pytest
from wasmtime import Linker, Store

from wasi_kernel.worker import engine as engines
from wasi_kernel.worker import switchboard
from wasi_kernel.worker.memory import WASM_PAGE
from wasi_kernel.worker.switchboard import READ_BYTES, Switchboard

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


def test_signatures(engine: Engine):
    from wasmtime import FuncType, ValType

    i32, i64 = ValType.i32(), ValType.i64()
    assert switchboard.signature(FuncType([], [])) == ""
    assert switchboard.signature(FuncType([i32, i64], [i32])) == " (param i32 i64) (result i32)"
    assert switchboard.signature(FuncType([], [i64])) == " (result i64)"


# -- a native WASI with its faults ---------------------------------------------------------------


def routed(
    engine: Engine, cache: Cache, name: str, parameters: str, native: str
) -> tuple[Callable[..., Any], Any]:
    """(caller, memory) of one WASI call, routed to `native`, a body in WebAssembly text.

    The body may read and write the guest's memory, of 2 pages.
    """
    sig = f" (param {parameters}) (result i32)"
    store, linker = Store(engine), Linker(engine)
    memory = linker.instantiate(
        store, engines.small_module(engine, cache, '(module (memory (export "memory") 2))')
    ).exports(store)["memory"]
    linker.define(store, "guest", "memory", memory)
    faulty = f'(module (import "guest" "memory" (memory 1)) (func (export "{name}"){sig} {native}))'
    func = linker.instantiate(store, engines.small_module(engine, cache, faulty)).exports(store)
    linker.define(store, switchboard.WASI, name, func[name])
    linker.define(store, "host", name, func[name])
    files = """(module (func (export "size") (export "next") (param i32) (result i64) (i64.const 0))
      (func (export "place") (param i32 i64) (result i64) (local.get 1)))"""
    files = linker.instantiate(store, engines.small_module(engine, cache, files)).exports(store)
    for each in ("size", "next", "place"):
        linker.define(store, "files", each, files[each])
    room = '(module (func (export "make_room") (result i32) (i32.const 0)))'
    room = linker.instantiate(store, engines.small_module(engine, cache, room)).exports(store)
    linker.define(store, "host", "make_room", room["make_room"])
    text = switchboard.routes_wat([(name, sig, len(parameters.split()))])
    routes = linker.instantiate(store, engines.small_module(engine, cache, text)).exports(store)
    return lambda *args: routes[name](store, *args), _Bytes(store, memory)


class _Bytes:
    """A memory as bytes."""

    def __init__(self, store: Store, memory: Any) -> None:
        self._store, self._memory = store, memory

    def __getitem__(self, where: slice) -> bytes:
        return bytes(self._memory.read(self._store, where.start, where.stop))

    def put(self, at: int, data: bytes) -> None:
        self._memory.write(self._store, data, at)


DIRENT = struct.Struct("<QQIBxxx")


def entries(*names: bytes, padding: bytes = b"\xaa\xbb\xcc") -> bytes:
    """Directory entries with something in their padding."""
    whole = b""
    for k, name in enumerate(names):
        head = DIRENT.pack(k + 1, 1000 + k, len(name), 4)
        whole += head[:21] + padding + name
    return whole


FULL = """(memory.copy (local.get 1) (i32.const 4096) (local.get 2))
  (i32.store (local.get 4) (local.get 2)) (i32.const 0)"""
"""An fd_readdir that fills the buffer with what lies at 4096."""


def test_padding_of_directory_entries_is_zeroed_wherever_the_buffer_ends(
    engine: Engine, cache: Cache
):
    """GHSA-96f6: it held bytes of the host's stack. The last entry may be cut off anywhere."""
    names = (b"a", b"", b"some-name", b"x" * 7)
    given, clean = entries(*names), entries(*names, padding=b"\0\0\0")
    call, memory = routed(engine, cache, "fd_readdir", "i32 i32 i32 i64 i32", FULL)
    memory.put(4096, given)
    wrong = []
    for cut in range(len(given) + 1):
        memory.put(8192, b"\xee" * 200)
        assert call(3, 8192, cut, 0, 64) == 0
        if memory[8192:8392] != clean[:cut].ljust(200, b"\xee"):
            wrong.append(cut)
    assert wrong == []


def test_a_directory_that_could_not_be_read_is_left_alone(engine: Engine, cache: Cache):
    call, memory = routed(engine, cache, "fd_readdir", "i32 i32 i32 i64 i32", "(i32.const 8)")
    memory.put(8192, b"\xee" * 100)
    memory.put(64, struct.pack("<I", 100))
    assert call(3, 8192, 100, 0, 64) == EBADF
    assert memory[8192:8292] == b"\xee" * 100


@pytest.mark.parametrize("length", [0, 23, 24, 25, 2**31, 2**32 - 48, 2**32 - 1])
def test_an_entry_with_an_impossible_name_length_ends_the_cleaning(
    engine: Engine, cache: Cache, length: int
):
    native = "(i32.store (local.get 4) (i32.const 48)) (i32.const 0)"
    call, memory = routed(engine, cache, "fd_readdir", "i32 i32 i32 i64 i32", native)
    memory.put(8192, DIRENT.pack(1, 2, length, 4) * 2)
    assert call(3, 8192, 48, 0, 64) == 0


READ = """(i32.store (i32.const 256) (local.get 2))
  (i32.store (i32.const 260) (i32.load offset=4 (local.get 1)))
  (i32.store (i32.const 264) (i32.load offset=12 (local.get 1)))
  (i32.store (local.get 3) (i32.const 77)) (i32.const 0)"""
"""An fd_read that notes its count and the lengths of its first two buffers."""


@pytest.mark.parametrize(
    ("lengths", "seen"),
    [
        ((10, 20), (2, 10, 20)),
        ((READ_BYTES, 20), (2, READ_BYTES, 20)),
        ((READ_BYTES + 1, 20), (1, READ_BYTES, 20)),
        ((2**32 - 1, 20), (1, READ_BYTES, 20)),
    ],
)
def test_a_very_large_read_is_cut(
    engine: Engine, cache: Cache, lengths: tuple[int, int], seen: tuple[int, int, int]
):
    call, memory = routed(engine, cache, "fd_read", "i32 i32 i32 i32", READ)
    given = struct.pack("<IIII", 4096, lengths[0], 8192, lengths[1])
    memory.put(512, given)
    assert call(5, 512, 2, 64) == 0
    assert struct.unpack("<III", memory[256:268]) == seen
    assert memory[64:68] == struct.pack("<I", 77)
    assert memory[512:528] == given  # what the guest wrote there is as it was


def test_a_read_of_no_buffers_is_the_natives_to_answer(engine: Engine, cache: Cache):
    native = "(i32.store (i32.const 256) (local.get 2)) (i32.const 28)"
    call, memory = routed(engine, cache, "fd_read", "i32 i32 i32 i32", native)
    memory.put(256, b"\xff" * 4)
    assert call(5, 2 * WASM_PAGE, 0, 64) == 28
    assert memory[256:260] == b"\0" * 4


# -- the real one --------------------------------------------------------------------------------


def open_file(probe: Any, name: bytes) -> int:
    """The descriptor of a file below the first preopen, for reading."""
    probe.memory.write(512, name)
    rights = 1 << 1 | 1 << 2 | 1 << 5  # fd_read, fd_seek, fd_tell
    errno = probe.call("path_open", DIRECTORY, 0, 512, len(name), 0, rights, 0, 0, 768)
    assert errno == 0
    return probe.u32(768)


def test_a_read_of_more_than_64_mib_is_short_and_right(
    open_guest: Callable, wat: Callable, tmp_path: Path
):
    size = READ_BYTES + 6 * (1 << 20)
    with (tmp_path / "big").open("wb") as f:
        f.truncate(size)
        for at, mark in ((0, b"first"), (READ_BYTES - 4, b"lastNEXT"), (size - 3, b"end")):
            f.seek(at)
            f.write(mark)
    probe = open_guest(wat(pages=READ_BYTES // WASM_PAGE + 200), preopens=[(tmp_path, "/d", False)])
    fd, at = open_file(probe, b"big"), 1 << 20
    vectors = probe.iovecs((at, size))
    assert probe.call("fd_read", fd, *vectors, probe.OUT) == 0
    assert probe.u32(probe.OUT) == READ_BYTES
    assert probe.memory.read(at, 5) == b"first"
    assert probe.memory.read(at + READ_BYTES - 4, 8) == b"last\0\0\0\0"
    assert probe.u32(vectors[0] + 4) == size
    assert probe.call("fd_read", fd, *vectors, probe.OUT) == 0
    assert probe.u32(probe.OUT) == size - READ_BYTES
    assert probe.memory.read(at, 4) == b"NEXT"
    assert probe.memory.read(at + size - READ_BYTES - 3, 3) == b"end"


def test_a_very_large_buffer_after_an_empty_one_is_cut_too(
    open_guest: Callable, wat: Callable, tmp_path: Path
):
    """The native call passes over empty buffers; 200 MiB after one gave ENOMEM."""
    size = 200 << 20
    with (tmp_path / "big").open("wb") as f:
        f.truncate(size)
    probe = open_guest(wat(pages=size // WASM_PAGE + 100), preopens=[(tmp_path, "/d", False)])
    vectors = probe.iovecs((1 << 20, 0), (1 << 20, size))
    assert probe.call("fd_read", open_file(probe, b"big"), *vectors, probe.OUT) == 0
    assert 0 < probe.u32(probe.OUT) <= size


def test_a_real_folder_is_listed_with_clean_padding(open_guest: Callable, tmp_path: Path):
    for k in range(20):
        (tmp_path / f"file-{k}-{'x' * k}").touch()
    probe = open_guest(preopens=[(tmp_path, "/d", False)])
    probe.memory.write(8192, b"\xee" * 4096)
    assert probe.call("fd_readdir", DIRECTORY, 8192, 4096, 0, 64) == 0
    used, at, names = probe.u32(64), 0, []
    assert used < 4096
    data = probe.memory.read(8192, 4096)
    while at < used:
        _, _, length, _ = DIRENT.unpack_from(data, at)
        assert data[at + 21 : at + 24] == b"\0\0\0"
        names.append(data[at + 24 : at + 24 + length])
        at += 24 + length
    assert at == used
    assert data[used:] == b"\xee" * (4096 - used)
    expected = {f"file-{k}-{'x' * k}".encode() for k in range(20)}
    assert set(names) - {b".", b".."} == expected


def test_files_are_read_natively_and_folders_granted_to_read_cannot_be_written(
    open_guest: Callable, tmp_path: Path
):
    (tmp_path / "file").write_text("content")
    probe = open_guest(preopens=[(tmp_path, "/d", False)])
    assert probe.read(open_file(probe, b"file"), 100) == (0, b"content")
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
