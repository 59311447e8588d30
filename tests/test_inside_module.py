"""%wasi module and %wasi wat: they say what is in the running module, and Python agrees with it.

What a C function does is known from Python: the functions behind `len` and its like are found by
their names and through their pointers alike, and what their text calls is what CPython's source
calls. Both pass the default policy for outputs unchanged.
"""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING, Any

import pytest

from wasi_kernel import Policy, Sandbox, runtimes
from wasi_kernel.caches import Cache

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BOX = re.compile(r'<div id="[-\w]+" style="contain:content;overflow:auto">')
"""What is put around HTML that has styles, so that it stays in its place."""

SMALL = Policy(preload=())


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    """A sandbox that starts quickly."""
    with Sandbox(SMALL) as sandbox:
        yield sandbox


def ok(box: Sandbox, code: str) -> str:
    """What code prints that has to work."""
    result = box.run(code)
    assert result.error is None, (code, result.error)
    return result.stdout


def facts(box: Sandbox, options: str = "") -> dict[str, Any]:
    """What `%wasi module` gives a program."""
    code = f"m = %wasi module {options}\nprint(m.to_dict())"
    found: dict[str, Any] = ast.literal_eval(ok(box, code))
    return found


def function(box: Sandbox, options: str) -> dict[str, Any]:
    """What `%wasi wat` gives a program."""
    found: dict[str, Any] = ast.literal_eval(
        ok(box, f"f = %wasi wat {options}\nprint(f.to_dict())")
    )
    return found


def usage_error(box: Sandbox, code: str) -> str:
    error = box.run(code).error
    assert error is not None
    assert error.ename == "UsageError", error.evalue
    text: str = error.evalue
    return text


# -- %wasi module --------------------------------------------------------------------------------


def test_the_module_is_the_one_that_runs(box):
    said = facts(box)
    path = runtimes.find(None, Cache()).wasm
    assert said["bytes"] == path.stat().st_size
    assert sum(s["bytes"] for s in said["sections"]) <= said["bytes"]
    names = {each["name"] for each in said["imports"]}
    assert {"fd_read", "fd_write", "path_open", "clock_time_get"} <= names
    assert {"memory", "turn"} <= {each["name"] for each in said["exports"]}
    assert "simd128" in said["features"]


def test_a_plain_build(plain_build: Path):
    with Sandbox(Policy(runtime=str(plain_build), preload=())) as box:
        said = facts(box)
        assert said["named_functions"] == 0
        assert "names         of none" in ok(box, "print(m)")
        assert "--of" in usage_error(box, "%wasi wat")
        assert function(box, "_start")["index"] > 0
        assert "no names for its functions" in usage_error(box, "%wasi wat PyList_Append")
        assert function(box, "--of len")["params"] == ["i32", "i32"]


def test_the_text_says_the_same_as_the_data(box):
    said = facts(box, "--biggest 3")
    text = ok(box, "print(m)")
    assert text.startswith("python.wasm: ")
    assert f"{said['functions']:,} functions" in text
    assert len(said["biggest"]) == 3
    for each in said["biggest"]:
        assert f"{each['bytes']:,}" in text
    assert "custom: name" in text
    assert "path_open" not in text
    assert "path_open" in ok(box, "m = %wasi module --imports\nprint(m)")


def test_functions_are_found_by_a_part_of_their_name(box):
    said = facts(box, "--find frozenset_")
    text = ok(box, "print(m)")
    assert text.startswith(f"Functions with 'frozenset_' in their name: {said['all_found']}\n")
    assert len(text.splitlines()) == 3 + said["all_found"] > 4
    assert all("frozenset_" in each["name"].lower() for each in said["found"])
    assert "path_open" in ok(box, "m = %wasi module --imports --find frozenset_\nprint(m)")
    assert facts(box, "--find nothing_is_called_so")["found"] == []
    many = facts(box, "--find e")
    assert f"{many['all_found']:,}, the first 1,000 of them" in ok(box, "print(m)")


def test_parts_by_name(box):
    assert ok(box, "m = %wasi module\nprint(m['memories'] == m.to_dict()['memories'])") == "True\n"
    error = box.run("m['nothing']").error
    assert error.ename == "KeyError"
    assert "there are bytes, sections" in error.evalue


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--biggest -1", "--biggest is a number from 0 to 1,000; usage: %wasi module"),
        ("--biggest 1001", "--biggest is a number from 0 to 1,000"),
        ("--biggest many", "invalid int value: 'many'"),
        ("--find ''", "--find wants a part of a name"),
        (f"--find {'x' * 1001}", "find has 1,001 characters, at most 1,000"),
        ("sections", "unrecognized arguments: sections"),
    ],
)
def test_wrong_use_of_module(box, options, words):
    assert words in usage_error(box, f"%wasi module {options}")


# -- %wasi wat -----------------------------------------------------------------------------------


def test_a_function_by_name(box):
    said = function(box, "builtin_len")
    assert (said["name"], said["params"], said["results"]) == (
        "builtin_len", ["i32", "i32"], ["i32"],
    )  # fmt: skip
    assert {"PyObject_Size", "PyLong_FromSsize_t"} <= {each["name"] for each in said["calls"]}
    assert said["text"].startswith(f"(func $builtin_len (;{said['index']};) (type ")
    assert function(box, str(said["index"])) == said


@pytest.mark.parametrize(
    ("expression", "name"),
    [
        ("len", "builtin_len"),
        ("list.append", "list_append"),
        ("[].append", "list_append"),
        ("int.__add__", "long_add_method"),
        ("(1).__add__", "long_add_method"),
        ("dict.fromkeys", "dict_fromkeys"),
        ('" , ".join', "unicode_join"),
        ("__import__('math').sin", "math_sin"),
    ],
)
def test_what_is_written_in_c_is_found_through_its_pointer(box, expression, name):
    assert function(box, f"--of {expression}")["name"] == name
    assert function(box, f"--lines 3 --of {expression}")["name"] == name
    assert function(box, f"--of {expression} --lines 3")["name"] == name


def test_what_has_been_made_from_a_function_can_be_compiled_again(box):
    found = ok(
        box,
        "f = %wasi wat builtin_len\nm = %wasi module\n"
        "print(f.text.splitlines()[0], f.calls['PyObject_Size'], f.index == f.to_dict()['index'])",
    )
    assert found.startswith("(func $builtin_len")
    assert found.endswith(" 1 True\n")


def test_long_functions_are_shown_in_part(box):
    text = box.run("%wasi wat _PyEval_EvalFrameDefault").data["text/plain"]
    assert len(text.splitlines()) == 301
    assert "lines more: --lines" in text.splitlines()[-1]
    assert len(ok(box, "f = %wasi wat list_append --lines 2\nprint(f)").splitlines()) == 3
    assert len(ok(box, "print(f.text)").splitlines()) > 20


def test_names_of_functions_are_completed(box):
    def found(line: str) -> list[str]:
        matches: list[str] = box.complete(line, len(line))["matches"]
        return matches

    assert "PyList_Append" in found("%wasi wat PyList_A")
    assert "--lines" in found("%wasi wat --li")
    assert "--of" in found("%wasi wat ")
    assert "length_of_all" not in found("%wasi wat length_")
    ok(box, "length_of_all = 3")
    assert "length_of_all" in found("%wasi wat --of length_")
    assert "list.append" in found("%wasi wat --of list.app")
    assert "module" in found("%wasi mod")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("", "say which function: a C function's name, an index, or --of len; usage: %wasi wat"),
        ("--of", "say which function"),
        ("len --of len", "say which function"),
        ("--lines 0 builtin_len", "--lines is a number from 1 to 1,000,000"),
        ("--lines x builtin_len", "invalid int value: 'x'"),
        ("PyList_Apend", "there is no function 'PyList_Apend'; similar: PyList_Append"),
        ("0", "is imported ("),
        ("999999999", "there is no function 999,999,999; they are numbered from 0 to"),
        ("99999999999", "not a number from 0"),
        ("Py_XDECREF", "functions are called Py_XDECREF: give an index, "),
        ("--of (", "'(' is no expression ("),
        ("--of (lambda: 0)", "is a function, which is not one C function; its code is Python's"),
        ("--of int", "int is a type, which is not one C function"),
        ("--of 3", "3 is a int, which is not one C function; take one like len"),
        ("--frob", "unrecognized arguments: --frob"),
    ],
)
def test_wrong_use_of_wat(box, options, words):
    assert words in usage_error(box, f"%wasi wat {options}")


def test_an_expression_that_fails_says_how(box):
    assert box.run("%wasi wat --of nothing_here").error.ename == "NameError"


def test_a_pointer_that_leads_elsewhere_is_refused(box):
    code = """class method_descriptor:
    __slots__ = tuple("abcdef")
    __name__ = "x"
bent = method_descriptor()
for name in "abcdef":
    setattr(bent, name, 7)"""
    ok(box, code)
    assert "is not where it should be" in usage_error(box, "%wasi wat --of bent")


HOSTILE = ("{'index': -1}", "{'index': True}", "{'slot': 10**9}", "{'name': 'x' * 10**6}",
           "{'index': 99, 'most': 0}", "{}")  # fmt: skip


@pytest.mark.parametrize("asked", HOSTILE)
def test_the_host_checks_what_is_asked(box, asked):
    error = box.run(f"get_ipython().door.look('function', **{asked})").error
    assert error.ename == "ValueError"


# -- how it is shown, and when -------------------------------------------------------------------


@pytest.mark.parametrize(
    "magic", ["%wasi module --imports --find list", "%wasi wat list_append", "%wasi wat 40048"]
)
def test_they_pass_the_default_policy_unchanged(box, magic):
    shown = box.run(magic)
    assert shown.error is None
    sent = ok(box, f"x = {magic}\nprint(x._repr_html_())").rstrip("\n")
    passed = shown.data["text/html"]
    assert passed == sent or BOX.sub("", passed).removesuffix("</div>") == sent
    assert "<b>" in sent or "</th>" in sent
    assert shown.data["text/plain"] == ok(box, "print(repr(x))").rstrip("\n")


def test_they_work_after_an_undo_a_death_and_in_a_fork(box):
    wanted = function(box, "list_append")
    ok(box, "%undo")
    assert function(box, "list_append") == wanted
    assert box.run("import os; os._exit(1)").error is not None
    assert function(box, "--of list.append") == wanted
    with box.fork() as fork:
        assert function(fork, "list_append") == wanted
        assert facts(fork)["functions"] > 1000
