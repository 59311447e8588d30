"""The words for WASI's numbers: flags, rights, errno values; arguments that point nowhere."""

from __future__ import annotations

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
