"""Shows that the faults of wasmtime's own WASI are closed before a guest can meet them.

Most tests put a small module in the place of the native WASI, so that the fault is surely there,
on this platform and with this version of wasmtime too.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, Any

import pytest
from wasmtime import Linker, Store, Trap

from wasi_kernel.errors import InstallationError
from wasi_kernel.worker import engine as engines
from wasi_kernel.worker import natives
from wasi_kernel.worker.memory import WASM_PAGE
from wasi_kernel.worker.natives import CUT_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from wasmtime import Engine

    from wasi_kernel.caches import Cache

EBADF = 8  # errno, WASI preview 1
DIRECTORY = 3  # the first preopen's descriptor


# -- a native WASI with its faults ---------------------------------------------------------------


def closed(
    engine: Engine, cache: Cache, name: str, parameters: str, native: str, *, pages: int = 2
) -> tuple[Callable[..., Any], Any]:
    """(caller, memory) of what stands before one native function: `native`, a body in text.

    The body may read and write the guest's memory. Of `path_filestat_get` every name ends in "f"
    if it is a file and is a folder otherwise; it notes how long the name was at address 128.
    """
    sig = f" (param {parameters}) (result i32)"
    n = len(parameters.split())
    store, linker = Store(engine), Linker(engine)

    def instance(text: str) -> Any:
        return linker.instantiate(store, engines.small_module(engine, cache, text)).exports(store)

    memory = instance(f'(module (memory (export "memory") {pages}))')["memory"]
    linker.define(store, "guest", "memory", memory)
    head = '(import "guest" "memory" (memory 1))'
    filestat = """(func (export "f") (param i32 i32 i32 i32 i32) (result i32)
      (memory.fill (local.get 4) (i32.const 0xdd) (i32.const 64))
      (i32.store8 offset=16 (local.get 4) (select (i32.const 4) (i32.const 3) (i32.eq
        (i32.const 0x66) (i32.load8_u (i32.sub (i32.add (local.get 2) (local.get 3))
                                               (i32.const 1))))))
      (i32.store (i32.const 128) (local.get 3)) (i32.const 0))"""
    for each, text in (
        (name, f'(func (export "f"){sig} {native})'),
        ("path_filestat_get", filestat),
    ):
        linker.define(store, natives.WASI, each, instance(f"(module {head} {text})")["f"])
    func = instance(f"""(module {natives.imports({name})}
      (import "{natives.WASI}" "{name}" (func ${name}{sig})) {head}
      {natives.functions({name: sig})} (func (export "f"){sig} {natives.call(name, n)}))""")["f"]
    return lambda *args: func(store, *args), _Bytes(store, memory)


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
    call, memory = closed(engine, cache, "fd_readdir", "i32 i32 i32 i64 i32", FULL)
    memory.put(4096, given)
    wrong = []
    for cut in range(len(given) + 1):
        memory.put(8192, b"\xee" * 200)
        assert call(3, 8192, cut, 0, 64) == 0
        if memory[8192:8392] != clean[:cut].ljust(200, b"\xee"):
            wrong.append(cut)
    assert wrong == []


def test_a_directory_that_could_not_be_read_is_left_alone(engine: Engine, cache: Cache):
    call, memory = closed(engine, cache, "fd_readdir", "i32 i32 i32 i64 i32", "(i32.const 8)")
    memory.put(8192, b"\xee" * 100)
    memory.put(64, struct.pack("<I", 100))
    assert call(3, 8192, 100, 0, 64) == EBADF
    assert memory[8192:8292] == b"\xee" * 100


@pytest.mark.parametrize("length", [0, 23, 24, 25, 2**31, 2**32 - 48, 2**32 - 1])
def test_an_entry_with_an_impossible_name_length_ends_the_cleaning(
    engine: Engine, cache: Cache, length: int
):
    native = "(i32.store (local.get 4) (i32.const 48)) (i32.const 0)"
    call, memory = closed(engine, cache, "fd_readdir", "i32 i32 i32 i64 i32", native)
    memory.put(8192, DIRENT.pack(1, 2, length, 4) * 2)
    assert call(3, 8192, 48, 0, 64) == 0


def test_padding_is_zeroed_at_the_very_end_of_4_gib(engine: Engine, cache: Cache):
    """Where the buffer's end, in 32 bits, is 0: such entries kept their padding."""
    names = (b"a", b"some-name")
    given, clean = entries(*names), entries(*names, padding=b"\0\0\0")
    call, memory = closed(engine, cache, "fd_readdir", "i32 i32 i32 i64 i32", FULL, pages=65536)
    memory.put(4096, given)
    at = (1 << 32) - len(given)
    assert call(3, at, len(given), 0, 64) == 0
    assert memory[at : 1 << 32] == clean


NOTES = """(i32.store (i32.const 256) (local.get 2))
  (i32.store (i32.const 260) (i32.load offset=4 (local.get 1)))
  (i32.store (i32.const 264) (i32.load offset=12 (local.get 1)))
  (i32.store (local.get 3) (i32.const 77)) (i32.const 0)"""
"""A read or a write that notes its count and the lengths of its first two buffers."""


CALLS = {
    "fd_read": "i32 i32 i32 i32", "fd_write": "i32 i32 i32 i32",
    "fd_pread": "i32 i32 i32 i64 i32", "fd_pwrite": "i32 i32 i32 i64 i32",
}  # fmt: skip


def arguments(name: str, iovs: int, count: int) -> tuple[int, ...]:
    """Those of a call on fd 5 whose result goes to 64."""
    return (5, iovs, count, 64) if len(CALLS[name].split()) == 4 else (5, iovs, count, 1 << 40, 64)


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize(
    ("lengths", "seen"),
    [
        ((10, 20), (2, 10, 20)),
        ((CUT_BYTES, 20), (2, CUT_BYTES, 20)),
        ((CUT_BYTES + 1, 20), (1, CUT_BYTES, 20)),
        ((2**32 - 1, 20), (1, CUT_BYTES, 20)),
        ((0, 20), (1, 20)),
        ((0, CUT_BYTES + 1), (1, CUT_BYTES)),
        ((0, 0), (1, 0)),
    ],
)
def test_a_very_large_buffer_is_cut(
    engine: Engine, cache: Cache, name: str, lengths: tuple[int, int], seen: tuple[int, ...]
):
    native = NOTES.replace("(local.get 3)", f"(local.get {len(CALLS[name].split()) - 1})")
    call, memory = closed(engine, cache, name, CALLS[name], native)
    given = struct.pack("<IIII", 4096, lengths[0], 8192, lengths[1])
    memory.put(513, given)
    assert call(*arguments(name, 513, 2)) == 0
    assert struct.unpack("<III", memory[256:268])[: len(seen)] == seen
    assert memory[64:68] == struct.pack("<I", 77)
    assert memory[513:529] == given  # what the guest wrote there is as it was


@pytest.mark.parametrize("name", CALLS)
def test_a_call_with_no_buffers_is_the_natives_to_answer(engine: Engine, cache: Cache, name: str):
    native = "(i32.store (i32.const 256) (local.get 2)) (i32.const 28)"
    call, memory = closed(engine, cache, name, CALLS[name], native)
    memory.put(256, b"\xff" * 4)
    assert call(*arguments(name, 2 * WASM_PAGE, 0)) == 28
    assert memory[256:260] == b"\0" * 4


@pytest.mark.parametrize("name", CALLS)
def test_buffers_that_begin_at_the_end_of_32_bits_are_not_looked_for_at_0(
    engine: Engine, cache: Cache, name: str
):
    """The length was looked for there, cut, and never put back. Found by tests/fuzz."""
    call, memory = closed(engine, cache, name, CALLS[name], "unreachable")
    memory.put(0, b"\xee" * 64)
    for iovs in range(2**32 - 8, 2**32):
        with pytest.raises(Trap):
            call(*arguments(name, iovs, 1))
    assert memory[0:64] == b"\xee" * 64


# -- renaming ------------------------------------------------------------------------------------

ENOTDIR = 54
SIX = "i32 i32 i32 i32 i32 i32"
RENAME = """(i32.store (i32.const 256) (local.get 2)) (i32.store (i32.const 260) (local.get 5))
  (i32.const 7)"""
"""A path_rename that notes the lengths of its two names."""


@pytest.mark.parametrize(
    ("old", "new", "seen"),
    [
        (b"a", b"b", (1, 1)), (b"link/", b"b", (4, 1)), (b"a", b"link/", (1, 4)),
        (b"a/b///", b"c/d//", (3, 3)), (b"/", b"b", (1, 1)), (b"///", b"b", (1, 1)),
        (b"", b"", (0, 0)), (b"a/.", b"b/..", (3, 4)),
    ],
)  # fmt: skip
def test_no_name_that_is_renamed_ends_in_a_slash(
    engine: Engine, cache: Cache, old: bytes, new: bytes, seen: tuple[int, int]
):
    """GHSA-m9f7-9w4p-gv38: with one, the host's call may follow a symlink out of the folder."""
    call, memory = closed(engine, cache, "path_rename", SIX, RENAME)
    memory.put(4096, old)
    memory.put(8192, new)
    memory.put(0, bytes(range(1, 65)))
    assert call(3, 4096, len(old), 4, 8192, len(new)) == 7
    assert struct.unpack("<II", memory[256:264]) == seen
    assert memory[0:64] == bytes(range(1, 65))  # it has been used, and put back


@pytest.mark.parametrize(("old", "new"), [(b"file-f/", b"b"), (b"file-f", b"b/")])
def test_what_is_no_folder_cannot_be_named_with_a_slash(
    engine: Engine, cache: Cache, old: bytes, new: bytes
):
    call, memory = closed(engine, cache, "path_rename", SIX, RENAME)
    memory.put(4096, old)
    memory.put(8192, new)
    assert call(3, 4096, len(old), 4, 8192, len(new)) == ENOTDIR
    assert struct.unpack("<I", memory[128:132]) == (len(old.rstrip(b"/")),)
    assert memory[256:264] == bytes(8)


@pytest.mark.parametrize(
    ("at", "length"),
    [(2 * WASM_PAGE, 1), (2 * WASM_PAGE - 3, 4), (2**32 - 1, 2**32 - 1), (64, 2**31)],
)
def test_a_name_that_is_not_in_memory_is_the_natives_to_refuse(
    engine: Engine, cache: Cache, at: int, length: int
):
    call, memory = closed(engine, cache, "path_rename", SIX, RENAME)
    assert call(3, at, length, 3, at, length) == 7
    assert struct.unpack("<II", memory[256:264]) == (length, length)


# -- the real one --------------------------------------------------------------------------------


def test_a_read_of_more_than_64_mib_is_short_and_right(
    open_guest: Callable, wat: Callable, tmp_path: Path
):
    size = CUT_BYTES + 6 * (1 << 20)
    with (tmp_path / "big").open("wb") as f:
        f.truncate(size)
        for at, mark in ((0, b"first"), (CUT_BYTES - 4, b"lastNEXT"), (size - 3, b"end")):
            f.seek(at)
            f.write(mark)
    probe = open_guest(wat(pages=CUT_BYTES // WASM_PAGE + 200), preopens=[(tmp_path, "/d", False)])
    fd, at = probe.open_file(b"big"), 1 << 20
    vectors = probe.iovecs((at, size))
    assert probe.call("fd_read", fd, *vectors, probe.OUT) == 0
    assert probe.u32(probe.OUT) == CUT_BYTES
    assert probe.memory.read(at, 5) == b"first"
    assert probe.memory.read(at + CUT_BYTES - 4, 8) == b"last\0\0\0\0"
    assert probe.u32(vectors[0] + 4) == size
    assert probe.call("fd_read", fd, *vectors, probe.OUT) == 0
    assert probe.u32(probe.OUT) == size - CUT_BYTES
    assert probe.memory.read(at, 4) == b"NEXT"
    assert probe.memory.read(at + size - CUT_BYTES - 3, 3) == b"end"


def test_a_very_large_buffer_after_an_empty_one_is_cut_too(
    open_guest: Callable, wat: Callable, tmp_path: Path
):
    """The native call passes over empty buffers; 200 MiB after one gave ENOMEM."""
    size = 200 << 20
    with (tmp_path / "big").open("wb") as f:
        f.truncate(size)
    probe = open_guest(wat(pages=size // WASM_PAGE + 100), preopens=[(tmp_path, "/d", False)])
    vectors = probe.iovecs((1 << 20, 0), (1 << 20, size))
    assert probe.call("fd_read", probe.open_file(b"big"), *vectors, probe.OUT) == 0
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


@pytest.mark.parametrize("name", ["fd_write", "fd_pwrite", "fd_pread"])
def test_200_mib_go_in_several_calls(
    open_guest: Callable, wat: Callable, tmp_path: Path, name: str
):
    """The native call gave ENOMEM: `open(..., "wb").write(bytes(200 << 20))` failed."""
    size = 200 << 20
    (tmp_path / "big").touch()
    with (tmp_path / "big").open("wb") as f:
        f.truncate(size if name == "fd_pread" else 0)
    probe = open_guest(wat(pages=size // WASM_PAGE + 100), preopens=[(tmp_path, "/d", True)])
    probe.memory.write(512, b"big")
    rights = 1 << 1 | 1 << 2 | 1 << 5 | 1 << 6  # fd_read, fd_seek, fd_tell, fd_write
    assert probe.call("path_open", DIRECTORY, 0, 512, 3, 0, rights, 0, 0, 768) == 0
    vectors, place = probe.iovecs((1 << 20, size)), (() if name == "fd_write" else (0,))
    assert probe.call(name, probe.u32(768), *vectors, *place, probe.OUT) == 0
    if name == "fd_pread":  # the native one gives 64 KiB at a time
        assert 0 < probe.u32(probe.OUT) <= CUT_BYTES
    else:
        assert probe.u32(probe.OUT) == (tmp_path / "big").stat().st_size == CUT_BYTES


def test_a_module_that_imports_a_tag_is_refused(open_guest: Callable, wat: Callable):
    """GHSA-cfhf-m2cr-62wj: no host gives a tag, so none can have the wrong type."""
    text = wat().replace("(module ", '(module (import "env" "thrown" (tag (param i32))) ', 1)
    with pytest.raises(InstallationError, match="env::thrown"):
        open_guest(text)


def test_a_file_from_before_1970_is_looked_at(open_guest: Callable, wat: Callable, tmp_path: Path):
    """GHSA-mr2v-56j5-cmfc is about preview 3, where such a time ended the process."""
    (tmp_path / "old").touch()
    os.utime(tmp_path / "old", (-(10**9), -(10**9)))
    probe = open_guest(
        wat(calls=("clock_time_get", "path_filestat_get")), preopens=[(tmp_path, "/d", False)]
    )
    probe.memory.write(512, b"old")
    assert 0 <= probe.call("path_filestat_get", DIRECTORY, 0, 512, 3, 1024) <= 76


def test_folders_are_renamed_with_and_without_slashes(
    open_guest: Callable, wat: Callable, tmp_path: Path
):
    inside, outside = tmp_path / "granted", tmp_path / "outside"
    for folder in (inside / "a", inside / "b", outside):
        folder.mkdir(parents=True)
    (outside / "secret").write_text("secret")
    (inside / "link").symlink_to(outside)
    (inside / "file").write_text("x")
    calls = ("clock_time_get", "path_rename")
    probe = open_guest(wat(calls=calls), preopens=[(inside, "/d", True)])

    def rename(old: bytes, new: bytes) -> int:
        probe.memory.write(4096, old)
        probe.memory.write(8192, new)
        return probe.call("path_rename", DIRECTORY, 4096, len(old), DIRECTORY, 8192, len(new))

    assert rename(b"a/", b"c//") == 0
    assert rename(b"c", b"a/") == 0
    for old, new in ((b"link/", b"x"), (b"file/", b"x"), (b"file", b"x/"), (b"link//", b"x/")):
        assert rename(old, new) == ENOTDIR
    assert rename(b"a", b"link/") != 0
    assert sorted(p.name for p in inside.iterdir()) == ["a", "b", "file", "link"]
    assert rename(b"link", b"elsewhere") == 0
    assert [p.name for p in outside.iterdir()] == ["secret"]
    assert (inside / "elsewhere").is_symlink()
