"""What is told of a module is what stands in its file; every question is checked and bounded."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from wasmtime import wat2wasm

from wasi_kernel import runtimes
from wasi_kernel.caches import Cache
from wasi_kernel.frames import Frame
from wasi_kernel.worker import anatomy, binary
from wasi_kernel.worker.anatomy import Anatomy
from wasi_kernel.worker.looks import Looks, Refusal

if TYPE_CHECKING:
    from pathlib import Path

TEXT = """(module
  (import "env" "log" (func (param i32)))
  (table 4 funcref) (memory (export "memory") 2 10)
  (global $__stack_pointer (mut i32) (i32.const 65536))
  (elem (i32.const 1) func $list_append $twice $"twice")
  (func $list_append (export "run") (param i32 i32) (result i32) (local i64)
    (call 0 (i32.const 1)) (call 0 (i32.const 2)) (call $list_pop) (i32.const 7))
  (func $list_pop)
  (func $dict_pop (i32.const 1) (drop)))"""


@pytest.fixture
def made(tmp_path: Path) -> Anatomy:
    """Of a small module in which two functions are called the same."""
    path = tmp_path / "module.wasm"
    text = TEXT.replace('$twice $"twice"', "$list_pop")
    path.write_bytes(wat2wasm(text).replace(b"\x08dict_pop", b"\x08list_pop"))
    return Anatomy(path)


@pytest.fixture(scope="module")
def runtime() -> Anatomy:
    return Anatomy(runtimes.find(None, Cache()).wasm)


def refusal(of: Anatomy, op: str, **content: Any) -> str:
    with pytest.raises(Refusal) as caught:
        of.ops[op](content)
    return str(caught.value)


def test_a_module(made, tmp_path):
    said = made.module({"biggest": 2, "find": "POP"}).content
    assert said["bytes"] == (tmp_path / "module.wasm").stat().st_size
    assert said["imports"] == [
        {"module": "env", "name": "log", "kind": "function", "type": "(param i32)"}
    ]
    assert {"name": "run", "kind": "function", "index": 1,
            "type": "(param i32 i32) (result i32)"} in said["exports"]  # fmt: skip
    assert {"name": "memory", "kind": "memory", "index": 0, "type": "2 10"} in said["exports"]
    assert (said["functions"], said["imported_functions"]) == (4, 1)
    assert said["globals"][0]["name"] == "__stack_pointer"
    assert [each["index"] for each in said["biggest"]] == [1, 3]
    assert [each["index"] for each in said["found"]] == [2, 3]
    assert said["all_found"] == 2


def test_nothing_of_the_host_is_told(made, tmp_path):
    told = json.dumps(made.module({"biggest": 9}).content)
    assert "module.wasm" not in told
    assert str(tmp_path) not in told


def test_a_function_by_name_by_index_and_by_slot_is_the_same(made):
    by_name = made.function({"name": "list_append"})
    assert by_name == made.function({"index": 1}) == made.function({"slot": 1})
    assert by_name == made.function({"name": "run"})
    assert made.functions({"prefix": "r"}).content == {"names": ["run"]}
    said = by_name.content
    assert (said["params"], said["results"]) == (("i32", "i32"), ("i32",))
    assert said["locals"] == [(1, "i64")]
    assert said["calls"] == [
        {"index": 0, "name": "env.log", "count": 2}, {"index": 2, "name": "list_pop", "count": 1},
    ]  # fmt: skip
    assert b"call 2 (;list_pop;)" in by_name.buffers[0]


def test_it_is_cut_where_that_is_wanted(made):
    said = made.function({"index": 1, "most": 2})
    assert said.content["instructions"] == 2
    assert said.content["left"] > 0
    assert len(said.buffers[0].splitlines()) == 6


def test_names_are_completed(made):
    assert made.functions({"prefix": "list_"}).content == {"names": ["list_append", "list_pop"]}
    assert made.functions({"prefix": "", "most": 1}).content == {"names": ["env.log"]}
    assert made.functions({"prefix": "zzz"}).content == {"names": []}


def test_what_is_not_one_function_is_refused_with_advice(made):
    assert refusal(made, "function", name="list_pop") == (
        "2 functions are called list_pop: give an index, 2, 3"
    )
    assert refusal(made, "function", name="List_apend") == (
        "there is no function 'List_apend'; similar: list_append, list_pop"
    )
    assert refusal(made, "function", name="quux").endswith("no function 'quux'")
    assert refusal(made, "function", index=4) == (
        "there is no function 4; they are numbered from 0 to 3"
    )
    assert refusal(made, "function", index=0) == (
        "function 0 is imported (env.log): its code is not in the module"
    )
    assert refusal(made, "function", slot=0) == "slot 0 of the table holds no function at the start"


@pytest.mark.parametrize(
    ("op", "content", "words"),
    [
        ("module", {"biggest": 10**6}, "biggest is 1000000, not a number"),
        ("module", {"biggest": True}, "biggest is True, not a number"),
        ("module", {"find": 3}, "find is no text"),
        ("module", {"find": "x" * 10**6}, "find has 1,000,000 characters"),
        ("function", {}, "index is None, not a number"),
        ("function", {"index": -1}, "index is -1, not a number"),
        ("function", {"index": 2**70}, "not a number from 0"),
        ("function", {"name": None}, "name is no text"),
        ("function", {"name": "x" * 1001}, "name has 1,001 characters"),
        ("function", {"name": "run", "most": 0}, "most is 0, not a number"),
        ("function", {"slot": "1"}, "slot is '1', not a number"),
        ("functions", {}, "prefix is no text"),
        ("functions", {"prefix": "a", "most": 10**9}, "most is 1000000000, not a number"),
    ],
)
def test_every_question_is_checked(made, op, content, words):
    assert words in refusal(made, op, **content)


def test_a_module_without_names_says_so(tmp_path):
    path = tmp_path / "bare.wasm"
    path.write_bytes(wat2wasm('(module (func (export "f")) (func))'))
    bare = Anatomy(path)
    assert bare.function({"name": "f"}).content["index"] == 0
    assert "has no names for its functions" in refusal(bare, "function", name="g")


@pytest.mark.parametrize("data", [b"", b"MZ" * 50, b"\0asm\1\0\0\0\1\x7f"])
def test_a_file_that_cannot_be_read_is_refused(tmp_path, data):
    path = tmp_path / "broken.wasm"
    path.write_bytes(data)
    of = Anatomy(path)
    for op, content in (("module", {}), ("function", {"index": 0}), ("functions", {"prefix": ""})):
        assert "cannot be read as WebAssembly" in refusal(of, op, **content)


def test_a_file_that_could_not_be_opened_is_refused(tmp_path):
    assert binary.opened(tmp_path / "nothing") is None
    assert refusal(Anatomy(tmp_path / "nothing"), "module") == "the runtime's file cannot be read"


def test_answers_about_the_runtime_are_bounded(runtime):
    largest = runtime.module({"biggest": 1}).content["biggest"][0]["index"]
    said = runtime.function({"index": largest})
    assert len(said.buffers[0]) < 1.1 * anatomy.MAX_TEXT
    assert len(runtime.functions({"prefix": ""}).content["names"]) == anatomy.MAX_LISTED
    found = runtime.module({"find": "e", "biggest": anatomy.MAX_LISTED}).content
    assert len(found["found"]) == anatomy.MAX_LISTED < found["all_found"]
    question = Frame(
        "look_request", {"op": "module", "biggest": anatomy.MAX_LISTED, "find": "e"}, 1
    )
    assert Looks(runtime.ops).answer(question).content["status"] == "ok"


def test_cpythons_functions_are_there(runtime):
    said = runtime.function({"name": "PyList_Append"})
    assert said.content["type"] == "(param i32 i32) (result i32)"
    assert "similar: PyList_Append" in refusal(runtime, "function", name="PyList_Apend")
    assert "PyList_Append" in runtime.functions({"prefix": "PyList_A"}).content["names"]


def test_a_worker_that_is_not_asked_does_not_load_what_reads_modules():
    late = {
        f"wasi_kernel.worker.{name}" for name in ("cursor", "disassembly", "opcodes", "sections")
    }
    code = "import sys, wasi_kernel.worker.server; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert late & set(done.stdout.split()) == set()
