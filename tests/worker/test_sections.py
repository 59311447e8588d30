"""A module's parts are those that its text has; a file that is cut short or wrong is refused."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from wasmtime import wat2wasm

from wasi_kernel.worker import sections
from wasi_kernel.worker.cursor import Cursor, MalformedError
from wasi_kernel.worker.sections import Export, FuncType, Global, Import

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OPENED: list[int] = []

TEXT = """(module $some
  (type $pair (func (param i32 i64) (result f32)))
  (type $none (func))
  (import "env" "f" (func $f (type $pair)))
  (import "env" "t" (table $t 1 2 externref))
  (import "env" "m" (memory 1 9))
  (import "env" "g" (global $outside (mut f64)))
  (import "env" "e" (tag (type $none)))
  (table $calls 10 funcref)
  (memory 3)
  (tag (param i32 i32))
  (global $__stack_pointer (mut i32) (i32.const -8))
  (global $sum i32 (i32.add (i32.const 1) (i32.const 2)))
  (global $half f64 (f64.const 0.5))
  (global $long i64 (i64.const -5))
  (export "go" (func $go))
  (export "memory" (memory 0))
  (start $go)
  (elem (table $calls) (i32.const 3) func $go $f $big)
  (func $go (type $none))
  (func $big (type $pair) (local i64) (f32.const 1))
  (func (export "unnamed") (result i32) (i32.const 300000))
  (data (i32.const 5) "abc"))"""


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    """Closes what `read` has opened."""
    yield
    while OPENED:
        os.close(OPENED.pop())


def read(folder: Path, data: bytes) -> sections.Module:
    path = folder / "some.wasm"
    path.write_bytes(data)
    OPENED.append(os.open(path, os.O_RDONLY))
    return sections.Module(OPENED[-1])


def survives(folder: Path, data: bytes) -> bool:
    """Can it be read? All that it says is asked for."""
    try:
        module = read(folder, data)
        list(module.names())
        assert all(s.at + s.bytes <= len(data) for s in module.sections)
        assert len(module.biggest(3)) <= 3
        assert len(module.slots) + len(module.global_names) < 99
    except MalformedError:
        return False
    finally:
        os.close(OPENED.pop())
    return True


def custom(name: str, content: bytes) -> bytes:
    inside = bytes([len(name)]) + name.encode() + content
    return bytes([0, len(inside)]) + inside


@pytest.fixture
def module(tmp_path: Path) -> sections.Module:
    return read(tmp_path, wat2wasm(TEXT))


def test_what_comes_in_and_goes_out(module):
    assert module.imports == [
        Import("env", "f", "function", "(param i32 i64) (result f32)"),
        Import("env", "t", "table", "externref 1 2"),
        Import("env", "m", "memory", "1 9"),
        Import("env", "g", "global", "(mut f64)"),
        Import("env", "e", "tag", ""),
    ]
    assert module.exports == [
        Export("go", "function", 1), Export("memory", "memory", 0),
        Export("unnamed", "function", 3),
    ]  # fmt: skip
    assert module.start == 1


def test_what_it_has(module):
    assert module.types[:2] == [FuncType(("i32", "i64"), ("f32",)), FuncType((), ())]
    assert module.tables == ["externref 1 2", "funcref 10"]
    assert module.memories == ["1 9", "3"]
    assert module.tags == ["", "(param i32 i32)"]
    assert module.globals == [
        Global("f64", True, None), Global("i32", True, "-8"), Global("i32", False, None),
        Global("f64", False, None), Global("i64", False, "-5"),
    ]  # fmt: skip
    assert module.global_names[1] == "__stack_pointer"


def test_what_the_table_holds(tmp_path):
    text = """(module (table 9 funcref) (func $f) (func $g)
      (elem (i32.const 3) func $g $f) (elem (i32.const 7) func $f))"""
    assert read(tmp_path, wat2wasm(text)).slots == {3: 1, 4: 0, 7: 0}


def test_its_functions(module):
    assert (module.functions, module.imported) == (4, 1)
    assert [module.name(k) for k in range(5)] == ["env.f", "go", "big", "unnamed", ""]
    assert list(module.names()) == [(0, "env.f"), (1, "go"), (2, "big"), (3, "unnamed")]
    assert [module.named(name) for name in ("go", "big", "unnamed", "env.f", "f", "")] == [
        [1], [2], [3], [0], [], [],
    ]  # fmt: skip
    assert module.type(module.type_index(2)) == FuncType(("i32", "i64"), ("f32",))
    assert module.type(99) is None
    assert module.body(1) == b"\x00\x0b"
    assert module.size(0) == 0
    assert module.biggest(2) == [2, 3]
    assert module.size(2) == len(module.body(2)) > module.size(3)


def test_its_sections_are_all_of_the_file(module):
    names = [s.name for s in module.sections]
    assert names == ["type", "import", "function", "table", "memory", "tag", "global", "export",
                     "start", "element", "code", "data", "name"]  # fmt: skip
    counts = {s.name: s.entries for s in module.sections}
    assert (counts["import"], counts["code"], counts["name"]) == (5, 3, None)
    last = module.sections[-1]
    assert last.at + last.bytes == module.bytes


def test_what_tools_have_written_into_it(tmp_path):
    data = wat2wasm("(module)")
    data += custom("producers", b"\1\x08language\2\3C11\0\4Rust\x041.69")
    data += custom("target_features", b"\2+\7simd128-\x07atomics")
    module = read(tmp_path, data)
    assert sections.producers(module) == {"language": ["C11", "Rust 1.69"]}
    assert sections.features(module) == ["simd128", "-atomics"]
    assert module.custom("producers") is not None
    assert module.custom("nothing") is None
    bare = read(tmp_path, wat2wasm("(module)"))
    assert (sections.producers(bare), sections.features(bare)) == ({}, [])


def test_a_module_without_names(tmp_path):
    module = read(tmp_path, wat2wasm('(module (func) (func (export "f")))'))
    assert module.named_functions == 0
    assert list(module.names()) == [(1, "f")]
    assert module.global_names == {}


@pytest.mark.parametrize("data", [b"", b"\0asm", b"#!/bin/sh\n" * 9, b"\0asm\x0d\0\1\0\0\0\0\0"])
def test_what_is_no_module_is_refused(tmp_path, data):
    with pytest.raises(MalformedError, match="does not begin as a module of version 1"):
        read(tmp_path, data)


def test_a_file_that_is_cut_short_is_refused_or_whole_up_to_a_section(tmp_path):
    whole = bytes(wat2wasm(TEXT))
    read_to = [length for length in range(8, len(whole)) if survives(tmp_path, whole[:length])]
    assert 0 < len(read_to) < len(whole) // 2


def test_bytes_that_are_wrong_never_do_more_than_be_refused(tmp_path):
    whole = bytes(wat2wasm(TEXT))
    changed = [
        survives(tmp_path, whole[:at] + bytes([value]) + whole[at + 1 :])
        for at in range(8, len(whole))
        for value in (0, 0x80, 0xFF)
    ]
    assert 0 < changed.count(False) < len(changed)


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"\x00", 0),
        (b"\x7f", -1),
        (b"\x3f", 63),
        (b"\x80\x7f", -128),
        (b"\xff\xff\xff\xff\x07", (1 << 31) - 1),
    ],
)
def test_signed_numbers(data, value):
    assert Cursor(data).signed(32) == value


def test_numbers_that_are_too_long_and_types_that_are_none_are_refused():
    with pytest.raises(MalformedError, match="more than 32 bits"):
        Cursor(b"\xff" * 9).number()
    with pytest.raises(MalformedError, match="ends too early"):
        Cursor(b"\xff").number()
    with pytest.raises(MalformedError, match="0x11 is no type"):
        Cursor(b"\x11").value_type()
    assert Cursor(b"\x63\x70").value_type() == "(ref null func)"
    assert Cursor(b"\x64\x05").value_type() == "(ref 5)"
