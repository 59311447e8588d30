"""The words for WASI's numbers: flags, rights, errno values; arguments that point nowhere."""

from __future__ import annotations

import struct

import pytest
from wasmtime import Config, Engine, Limits, Memory, MemoryType, Store

from wasi_kernel.worker import wasicalls
from wasi_kernel.worker.memory import LinearMemory
from wasi_kernel.worker.wasicalls import RIGHTS, brief, errno_name, flags


@pytest.fixture
def memory():
    store = Store(Engine(Config()))
    yield LinearMemory(store, Memory(store, MemoryType(Limits(1, 1))))
    store.close()


@pytest.mark.parametrize(
    ("number", "name"),
    [(0, "ESUCCESS"), (44, "ENOENT"), (76, "ENOTCAPABLE"), (77, "77"), (-1, "-1")],
)
def test_errors_have_the_names_of_preview_1(number, name):
    assert errno_name(number) == name


def test_bits_have_names_and_those_without_stay_numbers():
    assert flags(0, ["a", "b"]) == "0"
    assert flags(3, ["a", "b"]) == "a|b"
    assert flags(0b1010, ["a", "b"]) == "b|0x8"
    assert flags((1 << len(RIGHTS)) - 1, RIGHTS) == "all"


def test_many_rights_are_counted():
    assert brief("fd_read|fd_seek") == "fd_read|fd_seek"
    assert brief("|".join(RIGHTS)) == f"{len(RIGHTS)} rights (fd_read, fd_write, ...)"
    assert brief("a|b|c|d|fd_read") == "5 rights (fd_read, ...)"


def test_a_path_that_points_nowhere_is_an_address(memory):
    args = (3, 1, 0xFFFFFFF0, 100, 0, 0, 0, 0, 8)
    by_name = {a.name: a.text for a in wasicalls.arguments("path_open", args, memory, {3: "/data"})}
    assert by_name["fd"] == "3</data>"
    assert "0xfffffff0" in by_name["path"]


def test_a_path_is_shown_as_text_whatever_its_bytes(memory):
    memory.write(64, b"caf\xc3\xa9\n\xff")
    args = (3, 1, 64, 7, 0, 0, 0, 0, 8)
    by_name = {a.name: a.text for a in wasicalls.arguments("path_open", args, memory, {})}
    assert by_name["path"] == repr("caf\u00e9\n\\xff")


def test_a_file_is_described_by_its_fields(memory):
    memory.write(64, struct.pack("<QQB7xQQQQQ", 1, 2, 4, 1, 5, 6, 7, 8))
    assert wasicalls.results("fd_filestat_get", (5, 64), memory) == {
        "dev": 1, "ino": 2, "filetype": "regular_file", "nlink": 1, "size": 5, "atim": 6,
        "mtim": 7, "ctim": 8,
    }  # fmt: skip
    memory.write(64, struct.pack("<BxH4xQQ", 3, 1, 1 << 1, 1 << 6 | 1 << 40))
    assert wasicalls.results("fd_fdstat_get", (5, 64), memory) == {
        "filetype": "directory", "fdflags": "append", "rights": "fd_read",
        "inheriting": "fd_write|0x10000000000",
    }  # fmt: skip
    memory.write(64, struct.pack("<B3xI", 0, 5))
    assert wasicalls.results("fd_prestat_get", (3, 64), memory) == {"kind": "dir", "length": 5}
    memory.write(64, struct.pack("<QQB7xQQQQQ", 1, 2, 99, 1, 5, 6, 7, 8))
    assert wasicalls.results("fd_filestat_get", (5, 64), memory)["filetype"] == "99"


def test_a_structure_that_leaves_memory_is_left_out(memory):
    assert wasicalls.results("fd_filestat_get", (5, 65536 - 63), memory) == {}
    assert wasicalls.results("poll_oneoff", (0, 0, 1, 0xFFFFFFFF), memory) == {}
    memory.write(64, struct.pack("<I", 1))
    assert wasicalls.results("poll_oneoff", (0, 65536 - 31, 1, 64), memory) == {"happened": 1}
    said = wasicalls.arguments("poll_oneoff", (65536 - 47, 0, 1, 64), memory, {})
    assert said[0].text == "<bad address 0xffd1, 1>"


def test_a_poll_of_many_is_cut_and_counted(memory):
    fd = struct.pack("<QB7xI28x", 0, 1, 7)
    at = struct.pack("<QB7xI4xQQH6x", 0, 0, 0, 9, 0, 1)
    memory.write(0, at + fd * 99)
    said = wasicalls.arguments("poll_oneoff", (0, 0, 100, 64), memory, {7: "/data/a"})
    assert said[0].text.startswith("[clock realtime at 9 ns; fd_read 7</data/a>; ")
    assert said[0].text.endswith("; 84 more]")
    assert len(said[0].value) == wasicalls.MAX_EVENTS
    happened = struct.pack("<QHB5xQH6x", 0, 8, 1, 0, 0) + struct.pack("<QHB5xQH6x", 0, 0, 9, 0, 0)
    memory.write(8192, happened + struct.pack("<I", 2))
    given = wasicalls.results("poll_oneoff", (0, 8192, 2, 8192 + 64), memory)
    assert given == {"happened": 2, "events": ["fd_read EBADF", "9"]}
