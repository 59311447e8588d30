"""%%wat: modules of WebAssembly text, calls both ways, memory, and what is said of wrong use."""

from __future__ import annotations

import ast
import math
import re

import pytest

from wasi_kernel import Policy, Sandbox
from wasi_kernel.frames import Frame
from wasi_kernel.frontend import Frontend

MODULE = r"""%%wat m
(module
  (import "python" "f" (func $f (param i32) (result i32)))
  (memory (export "memory") 1 3)
  (global (export "g") (mut i64) (i64.const -5))
  (global (export "fixed") f32 (f32.const 1.5))
  (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1)))
  (func (export "call") (param i32) (result i32) (call $f (local.get 0)))
  (func (export "swap") (param f64 f32) (result f32 f64) (local.get 1) (local.get 0))
  (func (export "div") (param i64 i64) (result i64) (i64.div_s (local.get 0) (local.get 1)))
  (func (export "forever") (loop (br 0)))
  (func $deep (export "deep") (call $deep))
  (func (export "a name") (result i32) (i32.const 7))
  (func (export "nothing"))
  (func (export "ref") (param funcref)))
"""


UNGRANTED = """%%wat
(module (import "wasi_snapshot_preview1" "fd_write"
  (func (param i32 i32 i32 i32) (result i32))))"""


@pytest.fixture(scope="module")
def box():
    with Sandbox() as box:
        box.run("def f(x): return action(x)\naction = lambda x: 10 * x")
        assert box.run(MODULE).error is None
        yield box


@pytest.mark.parametrize(
    ("code", "shown"),
    [
        ("m.add(2, 3)", "5"),
        ("m.add(2**32 - 1, 0), m.add(2**31 - 1, 1)", "(-1, -2147483648)"),
        ("m.swap(0.1, 0.5)", "(0.5, 0.1)"),
        ("m.swap(float('-inf'), float('nan'))", f"({math.nan}, {-math.inf})"),
        ("m['a name']()", "7"),
        ("m.nothing() is None", "True"),
        ("m.g.value, m.fixed.value", "(-5, 1.5)"),
        ("m.add", "func add(i32, i32) -> i32"),
        ("m.call(4)", "40"),
        ("'add' in dir(m), len(m.to_dict()['imports'])", "(True, 1)"),
    ],
)
def test_exports_are_used_from_python(box, code, shown):
    result = box.run(code)
    assert (result.error, result.text) == (None, shown)


def test_memory_is_bytes(box):
    box.run("m.memory[0:4] = b'abcd'; m.memory[-1] = 9; m.memory.pack('<hd', 8, -2, 0.25)")
    assert box.run("m.memory[:5], m.memory[1], m.memory[-1]").text == r"(b'abcd\x00', 98, 9)"
    assert box.run("m.memory.unpack('<hd', 8)").text == "(-2, 0.25)"
    assert box.run("m.memory.grow(1), len(m.memory)").text == "(65536, 131072)"


def test_a_callback_may_call_the_module(box):
    box.run("action = lambda x: 1 if x == 0 else m.add(m.call(x - 1), x)")
    assert box.run("m.call(10)").text == "56"
    error = box.run("m.call(1000)").error
    assert "calls back and forth lie in one another" in error.evalue
    assert box.run("action = lambda x: 10 * x; m.call(1)").error is None


@pytest.mark.parametrize(
    ("code", "ename", "part"),
    [
        ("m.div(1, 0)", "WasmTrap", "integer divide by zero\nwasm backtrace:"),
        ("m.deep()", "WasmTrap", "call stack exhausted"),
        ("m.add(1)", "TypeError", "add(i32, i32) -> i32 takes 2 arguments, not 1"),
        ("m.add('a', 1)", "TypeError", "'a' is no integer, and i32 is wanted"),
        ("m.add(2**32, 1)", "OverflowError", "4294967296 does not fit in i32"),
        ("m.ref(None)", "TypeError", "funcref does not travel"),
        ("m.nope", "AttributeError", "the module exports no 'nope'; it exports memory, g"),
        ("m.memory[1 << 30]", "IndexError", "outside of the memory"),
        ("m.memory[0:2] = b'abc'", "ValueError", "as many bytes as the slice has"),
        ("m.memory.grow(9)", "WatError", "memory"),
        ("m.fixed.value = 1", "AttributeError", "the global fixed is not mutable"),
        ("import copy; copy.copy(m)", "TypeError", "run its cell again"),
    ],
)
def test_wrong_use_is_said(box, code, ename, part):
    error = box.run(code).error
    assert error.ename == ename
    assert part in error.evalue


def test_an_exception_of_a_callback_comes_out(box):
    box.run("def fails(x): raise KeyError('mine')\naction = fails")
    assert box.run("m.call(1)").error.ename == "KeyError"
    box.run("action = lambda x: 'text'")
    assert box.run("m.call(1)").error.ename == "TypeError"
    assert box.run("action = lambda x: 10 * x; m.call(2)").error is None
    assert box.run("m.add(1, 1)").text == "2"


@pytest.mark.parametrize(
    ("cell", "part"),
    [
        ("%%wat\n(module\n  (func (i32.ad)))", "<anon>:2:10\n      |\n    2 |   (func (i32.ad)))"),
        ("%%wat\n(module (func (result i32)))", "type mismatch"),
        ('%%wat\n(module (import "python" "nof" (func)))', "has no function 'nof'"),
        ('%%wat\n(module (import "env" "f" (func)))', 'functions come from "python"'),
        ('%%wat\n(module (import "python" "f" (memory 1)))', "only functions can be imported"),
                (UNGRANTED, "%%wat --wasi gives"),
        ('%%wat --wasi\n(module (import "wasi_snapshot_preview1" "path_open" (func)))',
         "of WASI there is fd_write"),
        ("%%wat\n(module (memory 60000))", "exceeds memory limits"),
        ("%%wat\n(module (memory 1 1 shared))", "threads"),
        ("%%wat\n(module (table 10000000 funcref))", "exceeds table limits"),
        ("%%wat\n" + ";" * (1 << 20) + "\n(module)", "at most 1,048,576"),
        ("%%wat 1a\n(module)", "'1a' is no name"),
    ],
)  # fmt: skip
def test_what_may_not_be_is_refused(box, cell, part):
    assert part in box.run(cell).error.evalue


def test_an_endless_call_is_interrupted_and_the_module_lives(box):
    box.run("action = lambda x: 10 * x")
    for code in ("m.forever()", "action = lambda x: m.forever() or 0\nm.call(1)"):
        result = box.run(code, deadline_s=1)
        assert result.error is not None
        assert result.error.ename == "KeyboardInterrupt"
        assert not result.error.lost
    assert box.run("action = lambda x: 10 * x; m.call(2), m.add(1, 1)").text == "(20, 2)"


def test_wasi_prints_into_the_cell(box):
    box.run(r"""%%wat --wasi h
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $w (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "\10\00\00\00\06\00\00\00") (data (i32.const 16) "hello\n")
  (func (export "go") (param i32) (result i32)
    (call $w (local.get 0) (i32.const 0) (i32.const 1) (i32.const 12))))
""")
    assert box.run("print('a'); n = h.go(1); print('b')").stdout == "a\nhello\nb\n"
    assert box.run("n, h.go(0), h.memory.unpack('<I', 12), h.close()").text == "(0, 8, (6,), None)"


def test_a_start_function_runs_and_may_trap(box):
    cell = (
        '%%wat s\n(module (import "python" "f" (func $f (param i32) (result i32)))\n'
        "(func $s {}) (start $s))"
    )
    box.run("seen = []; action = lambda x: seen.append(x) or 0")
    assert box.run(cell.format("(drop (call $f (i32.const 3)))")).error is None
    assert box.run("action = lambda x: 10 * x; s.close(); seen").text == "[3]"
    assert box.run(cell.format("unreachable")).error.ename == "WasmTrap"


def test_modules_are_counted_and_closed_ones_are_gone(box):
    box.run("run = get_ipython().run_cell_magic\nkept = []")
    error = box.run(
        "while True: kept.append(run('wat', '', '(module (func (export \"x\")))'))"
    ).error
    assert "there are 8 modules already" in error.evalue
    box.run("first = kept[0]; [each.close() for each in kept]; kept.clear()")
    assert box.run("first.x()").error.ename == "WatGoneError"
    assert box.run("for _ in range(30): run('wat', '', '(module)').close()").error is None


def test_a_module_that_nobody_has_makes_room(box):
    box.run("import gc; gc.disable()")
    for _ in range(10):  # a name that is given again, `del`, and what the last traceback holds
        assert box.run('%%wat again\n(module (func (export "x") unreachable))').error is None
        assert box.run("again.x()").error.ename == "WasmTrap"
        assert box.run("del again").error is None
    made = "for _ in range(10): other = run('wat', '', TEXT)"
    box.run("""TEXT = '(module (func (export "x")) (memory (export "memory") 1))'""")
    assert box.run(made).error is None
    box.run("def cycle():\n    m = run('wat', '', TEXT)\n    kept = [m]\n    kept.append(kept)")
    assert box.run("for _ in range(10): cycle()").error is None
    assert box.run("gc.enable(); other.close()").error is None


def test_undo_leaves_a_module_behind():
    with Sandbox() as box:
        box.run('%%wat m\n(module (func (export "x") (result i32) (i32.const 1)))')
        box.run("y = m.x()")
        box.run("%undo")
        error = box.run("m.x()").error
        assert (error.ename, "run its %%wat cell again" in error.evalue) == ("WatGoneError", True)


ONE = '%%wat m\n(module (func (export "x") (result i32) (i32.const 1)))'
GONE = "WebAssembly module m (gone: run its %%wat cell again)\n  export func x() -> i32"


def is_gone(box):
    error = box.run("m.x()").error
    assert (error.ename, "run its %%wat cell again" in error.evalue) == ("WatGoneError", True)
    assert box.run("m").text == GONE
    return True


def test_a_death_takes_the_module_and_the_handle_says_so():
    with Sandbox() as box:
        assert box.run(ONE).error is None
        assert box.run("m").text == "WebAssembly module m\n  export func x() -> i32"
        assert box.run("import os; os._exit(1)").error.lost
        assert is_gone(box)
        assert box.run("m.to_dict()['exports'][0]['name'], m.close()").text == "('x', None)"
        assert box.run(ONE).error is None
        assert box.run("m.x()").text == "1"


def test_undo_to_a_state_in_which_it_was_there():
    with Sandbox() as box:
        box.run(ONE)
        box.run("y = 1")
        box.run("z = m.x()")
        box.run("%undo")
        assert is_gone(box)
        assert "NameError" in box.run("z").error.ename
        assert box.run(ONE).error is None
        assert box.run("m.x()").text == "1"


def test_a_fork_has_the_handle_and_not_the_module():
    with Sandbox() as box:
        box.run(ONE)
        with box.fork() as fork:
            assert is_gone(fork)
            fork.run("m.close(); del m")
            assert fork.run(ONE).error is None
            assert fork.run("m.x()").text == "1"
        assert box.run("m.x()").text == "1"


def test_on_a_plain_build(plain_build):
    with Sandbox(Policy(runtime=str(plain_build), preload=())) as box:
        box.run("def f(x): return action(x)\naction = lambda x: 10 * x")
        assert box.run(MODULE).error is None
        assert box.run("m.add(2, 3), m.call(4), m.g.value").text == "(5, 40, -5)"
        box.run("m.memory[0:4] = b'abcd'")
        assert box.run("m.memory[:5]").text == r"b'abcd\x00'"
        assert box.run("m.forever()", deadline_s=1).error.ename == "KeyboardInterrupt"
        assert box.run("action = lambda x: m.add(x, 1); m.call(1)").text == "2"


def test_a_handle_is_shown_as_a_table(box):
    box.run("""%%wat shown
(module (import "python" "f" (func (param i32) (result i32))) (memory (export "m<e>m") 1)
  (global (export "g's") (mut f64) (f64.const 1)) (table (export "t") 1 funcref)
  (func (export "two") (param i32 i64) (result i32 i64) (local.get 0) (local.get 1)))
""")
    html = ast.literal_eval(box.run("print(repr(shown._repr_html_()))").stdout)
    rows = [
        re.sub(r"</t[hd]>", "|", row).replace("&lt;", "<").replace("&gt;", ">")
        for row in re.findall(r"<tr>(.*?)</tr>", re.sub(r"<t[hd] [^>]*>", "", html))
    ]
    assert rows == [
        "|kind|name|type|",
        "import|func|f|(i32) -> i32|",
        "export|memory|m<e>m||",
        "export|global|g's|mut f64|",
        "export|table|t||",
        "export|func|two|(i32, i64) -> (i32, i64)|",
    ]
    frame = Frame("display_data", {"data": {"text/html": html}, "metadata": {}, "transient": {}}, 1)
    assert html in Frontend().output(frame, 1)["data"]["text/html"]
    box.run("shown.close()")


@pytest.mark.parametrize(
    ("text", "column", "what"),
    [("'(' * 1_000_000", 2, "((("), ("'(module ' + '(func)' * 50 + '(fun)' * 9000", 310, "fun)")],
)
def test_an_error_in_a_long_line_shows_what_is_near(box, text, column, what):
    error = box.run(f"get_ipython().run_cell_magic('wat', '', {text})").error
    said, place, _, line, caret = error.evalue.splitlines()
    assert (said, place.strip()) == ("expected valid module field", f"--> <anon>:1:{column}")
    assert max(len(line), len(caret)) < 200
    assert line.startswith("    1 | ")
    assert line[caret.index("^") :].startswith(what)


def test_a_huge_text_is_refused_at_once(box):
    error = box.run("get_ipython().run_cell_magic('wat', '', ';' * (100 << 20))").error
    assert error.evalue.startswith(
        "the text of a module has at most 1,048,576 characters, and this one 104,857,600; "
    )
    assert box.run("1 + 1").text == "2"


def test_a_text_that_takes_long_to_compile_can_be_interrupted(box):
    code = "get_ipython().run_cell_magic('wat', '', '(module ' + '(func)' * 170_000 + ')')"
    assert box.run(code, deadline_s=0.2).error.ename == "KeyboardInterrupt"
    assert box.run("1 + 1").text == "2"


def test_pythons_own_functions_can_be_imported(box):
    cell = (
        '%%wat own\n(module (import "python" "print" (func $p (param i32 f64)))'
        ' (import "python" "abs" (func $abs (param i32) (result i32)))'
        ' (func (export "go") (call $p (call $abs (i32.const -3)) (f64.const 0.5))))'
    )
    assert box.run(cell).error is None
    assert box.run("own.go(); own.close()").stdout == "3 0.5\n"
    error = box.run('%%wat\n(module (import "python" "Ellipsis" (func)))').error
    assert "is no function but of type ellipsis" in error.evalue


def test_help(box):
    assert box.run("%wasi help %%wat").stdout.startswith("%%wat: Compile WebAssembly text")
