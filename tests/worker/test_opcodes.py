"""Every instruction of the table is what wasmtime's own compiler of text makes of its name."""

from __future__ import annotations

import pytest
from wasmtime import wat2wasm

from wasi_kernel.worker.cursor import Cursor
from wasi_kernel.worker.opcodes import PREFIXES, opcodes

FOLLOWS = {
    "": "", "label": "1", "labels": "1 1 1", "function": "1", "indirect": "(type 1)", "type": "1",
    "types": "(result i32)", "local": "1", "global": "1", "table": "1", "tag": "1", "memory": "1",
    "data": "1", "element": "1", "memarg": "", "memarg_lane": "1", "memory_init": "1 1",
    "table_init": "1 1", "memories": "1 1", "tables": "1 1", "i32": "1", "i64": "1", "f32": "1",
    "f64": "1", "v128": "i32x4 1 1 1 1", "lanes": "1 " * 16, "lane": "1", "heap": "func",
    "fence": "",
}  # fmt: skip
"""Something to write behind each instruction, by what follows it."""

WRAPPED = {
    "end": "block end", "else": "if else end", "if": "if end", "block": "block end",
    "loop": "loop end", "try": "try end", "catch": "try catch 1 end", "delegate": "try delegate 1",
    "catch_all": "try catch_all end", "try_table": "try_table end", "rethrow": "rethrow 1",
}  # fmt: skip
BEFORE = {"end": 2, "else": 2, "catch": 2, "catch_all": 2, "delegate": 2}
"""The bytes of what has to stand before it."""


def code(text: str) -> bytes:
    """The bytes of instructions, without the function's end."""
    binary = bytes(wat2wasm(f"(module (type (func)) (type (func)) (func (type 0) {text}))"))
    cursor = Cursor(binary, 8)
    while (section := cursor.byte()) != 10:
        cursor.take(cursor.number())
    assert section == 10
    cursor.number()
    assert cursor.number() == 1
    body = cursor.take(cursor.number())
    assert (body[0], body[-1]) == (0, 0x0B)
    return body[1:-1]


@pytest.mark.parametrize("prefix", [0, *PREFIXES])
def test_each_name_gives_its_code(prefix):
    wrong = []
    for (before, number), found in opcodes().items():
        if before == prefix:
            text = WRAPPED.get(found.name) or f"{found.name} {FOLLOWS[found.follows]}"
            cursor = Cursor(code(text), BEFORE.get(found.name, 0))
            first = cursor.byte()
            got = (first, cursor.number()) if first in PREFIXES else (0, first)
            if got != (prefix, number):
                wrong.append((found.name, (prefix, number), got))
    assert not wrong


def test_the_natural_alignment_is_the_one_that_the_text_leaves_out():
    seen = 0
    for found in opcodes().values():
        if found.follows == "memarg":
            cursor = Cursor(code(found.name))
            if cursor.byte() in PREFIXES:
                cursor.number()
            assert cursor.number() == found.natural, found.name
            seen += 1
    assert seen > 100


def test_no_name_is_there_twice():
    names = [found.name for found in opcodes().values() if found.name != "select"]
    assert len(names) == len(set(names)) > 500
