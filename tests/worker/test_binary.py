"""What a module's file says of its memory is read from its sections; what is none says nothing."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from wasmtime import wat2wasm

from wasi_kernel.worker import binary
from wasi_kernel.worker.binary import NOTHING, Binary

if TYPE_CHECKING:
    from pathlib import Path

MODULE = """(module (memory 2)
  (global $__stack_pointer (mut i32) (i32.const 65536))
  (global $other (mut i32) (i32.const 8)) (global $base i32 (i32.const 9))
  (data (i32.const 65600) "abc") (data (i32.const 65536) "xyz") (data "passive"))"""


def look(folder: Path, data: bytes) -> Binary:
    path = folder / "some.wasm"
    path.write_bytes(data)
    return binary.look(os.open(path, os.O_RDONLY))


def test_stack_and_data(tmp_path):
    found = look(tmp_path, wat2wasm(MODULE))
    assert found == Binary(65536, stack_named=True, data=(65536, 65603))


def test_without_names_the_only_mutable_global_is_taken(tmp_path):
    text = "(module (memory 1) (global (mut i32) (i32.const 1024)) (global i32 (i32.const 5)))"
    assert look(tmp_path, wat2wasm(text)) == Binary(1024, stack_named=False, data=None)
    two = text.replace("(global i32", "(global (mut i32)")
    assert look(tmp_path, wat2wasm(two)).stack_top is None


def test_addresses_above_the_middle_are_no_negative_numbers(tmp_path):
    text = "(module (memory 1) (global (mut i32) (i32.const 0xfffffff0)))"
    assert look(tmp_path, wat2wasm(text)).stack_top == 0xFFFFFFF0


@pytest.mark.parametrize(
    "data", [b"", b"\0asm", b"#!/bin/sh\n" * 9, b"\0asm\1\0\0\0\6\xff\xff\xff"]
)
def test_what_is_no_module_says_nothing(tmp_path, data):
    assert look(tmp_path, data) == NOTHING


def test_a_file_that_is_cut_short_says_no_more_than_it_has(tmp_path):
    whole = wat2wasm(MODULE)
    for length in range(len(whole)):
        found = look(tmp_path, whole[:length])
        assert found.stack_top in (None, 65536)


def test_what_cannot_be_opened_says_nothing(tmp_path):
    assert binary.opened(tmp_path / "nothing") is None
    assert binary.look(None) == NOTHING
