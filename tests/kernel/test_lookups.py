"""What a front end asks about code: completion, inspection, completeness, history.

Positions count characters, in cells of several lines and beyond the basic multilingual plane.
"""

from __future__ import annotations

import pytest

EXPERIMENTAL = "_jupyter_types_experimental"
SMILE = "\N{GRINNING FACE}"
"""One character, but two UTF-16 units."""


# -- completion ------------------------------------------------------------------------------


def _complete(kernel, code, position=None):
    position = len(code) if position is None else position
    said = kernel.ask("complete_request", {"code": code, "cursor_pos": position})
    assert said["status"] == "ok"
    return said


def _completed(code, said, match):
    """The cell after a match was accepted."""
    assert match in said["matches"]
    return code[: said["cursor_start"]] + match + code[said["cursor_end"] :]


@pytest.mark.parametrize(
    ("code", "position", "match", "completed"),
    [
        ("zi", None, "zip", "zip"),
        ("import os\nos.uran\nf(1)", 17, "urandom", "import os\nos.urandom\nf(1)"),
        (f"x = '{SMILE}{SMILE}'; zi; y", 12, "zip", f"x = '{SMILE}{SMILE}'; zip; y"),
        (f"'{SMILE}'\n# {SMILE}\nisinst", None, "isinstance", f"'{SMILE}'\n# {SMILE}\nisinstance"),
        ("print(zi)", 8, "zip", "print(zip)"),
        ("import js", None, "json", "import json"),
        ("from json import lo", None, "loads", "from json import loads"),
        ("\N{GREEK SMALL LETTER ALPHA}bc = 1; \N{GREEK SMALL LETTER ALPHA}b", None,
         "\N{GREEK SMALL LETTER ALPHA}bc",
         "\N{GREEK SMALL LETTER ALPHA}bc = 1; \N{GREEK SMALL LETTER ALPHA}bc"),
    ],
)  # fmt: skip
def test_completion_replaces_the_right_range(kernel, code, position, match, completed):
    said = _complete(kernel, code, position)
    assert _completed(code, said, match) == completed


def test_completion_of_the_session_s_own_names(kernel):
    kernel.run("alpha = albert = 5\nstore = {'apple': 1, 'pear': 2}")
    assert {"alpha", "albert"} <= set(_complete(kernel, "al")["matches"])
    assert "apple" in "".join(_complete(kernel, "store['ap")["matches"])
    assert any("numbers.csv" in m for m in _complete(kernel, "open('numb")["matches"])
    assert {"%timeit", "%%timeit"} <= set(_complete(kernel, "%timei")["matches"])


def test_completion_types(kernel):
    kernel.run("def measure(length, unit='m'):\n    pass\nmeasured = 3")
    said = _complete(kernel, f"'{SMILE}'; measu")
    typed = {t["text"]: t for t in said["metadata"][EXPERIMENTAL]}
    assert set(typed) == set(said["matches"])
    assert typed["measure"]["type"] == "function"
    assert typed["measure"]["signature"] == "(length, unit='m')"
    assert typed["measured"]["type"] == "instance"
    for found in typed.values():
        assert (found["start"], found["end"]) == (5, 10)


def test_completion_of_nothing(kernel):
    said = _complete(kernel, "x = no_such_name_at_all.attr", 21)
    assert (said["matches"], said["cursor_start"] <= said["cursor_end"]) == ([], True)


# -- inspection ------------------------------------------------------------------------------


def _inspect(kernel, code, position=None, **options):
    content = {"code": code, "cursor_pos": len(code) if position is None else position}
    said = kernel.ask("inspect_request", {"detail_level": 0} | content | options)
    assert said["status"] == "ok"
    return said


CALL = f"'{SMILE}'; zip(range(3), sorted([1]))"


@pytest.mark.parametrize(
    ("word", "offset", "told"),
    [
        ("zip", 0, "zip"), ("zip", 2, "zip"), ("zip", 3, "zip"),
        ("range", 1, "range"), ("range", 6, "range"), (", ", 1, "zip"), ("sorted", 3, "sorted"),
    ],
)  # fmt: skip
def test_inspection_finds_what_the_cursor_is_at(kernel, word, offset, told):
    said = _inspect(kernel, CALL, CALL.index(word) + offset)
    assert said["found"] is True
    text = said["data"]["text/plain"]
    assert f"{told}(" in text


def test_inspection_of_lines_and_attributes(kernel):
    kernel.run("import json")
    code = "x = 1\njson.dumps(x)\ny = 2"
    said = _inspect(kernel, code, code.index("dumps") + 2)
    assert "Serialize" in said["data"]["text/plain"]


def test_inspection_of_a_variable(kernel):
    kernel.run("answer = 42")
    text = _inspect(kernel, "answer")["data"]["text/plain"]
    assert "Type:" in text
    assert "int" in text
    assert "42" in text


def test_inspection_of_nothing(kernel):
    said = _inspect(kernel, "does_not_exist")
    assert (said["found"], said["data"], said["metadata"]) == (False, {}, {})


def test_inspection_with_source(kernel):
    kernel.run("def double(x):\n    '''Twice as much.'''\n    return x + x")
    brief = _inspect(kernel, "double")["data"]["text/plain"]
    full = _inspect(kernel, "double", detail_level=1)["data"]["text/plain"]
    assert "Twice as much." in brief
    assert "return" not in brief
    assert "return" in full
    assert "Source" in full


def test_inspection_leaves_sections_out(kernel):
    kernel.run("def double(x):\n    '''Twice as much.'''\n    return x + x")
    text = _inspect(kernel, "double", omit_sections=["docstring"])["data"]["text/plain"]
    assert "Twice as much." not in text
    assert "double" in text


# -- is_complete -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("2 + 2", {"status": "complete"}),
        ("raise = 2", {"status": "invalid"}),
        ("for x in y:", {"status": "incomplete", "indent": "    "}),
        ("if 1:\n    for x in y:", {"status": "incomplete", "indent": "        "}),
        ("a = [1,\n2,", {"status": "incomplete", "indent": ""}),
        ("%%timeit\na\n\n", {"status": "complete"}),
        ("await x", {"status": "complete"}),
        ("", {"status": "complete"}),
    ],
)
def test_is_complete(kernel, code, said):
    assert kernel.ask("is_complete_request", {"code": code}) == said


# -- history ---------------------------------------------------------------------------------


def _history(kernel, kind, **options):
    content = {"hist_access_type": kind, "output": False, "raw": True} | options
    said = kernel.ask("history_request", content)
    assert said["status"] == "ok"
    return said["history"]


def test_history_tail(kernel):
    first = kernel.run("'tail' * 2").content["execution_count"]
    kernel.run("tail = 1")
    rows = _history(kernel, "tail", n=2)
    session = rows[0][0]
    assert rows == [[session, first, "'tail' * 2"], [session, first + 1, "tail = 1"]]
    assert _history(kernel, "tail", n=2, output=True) == [
        [session, first, ["'tail' * 2", "'tailtail'"]],
        [session, first + 1, ["tail = 1", None]],
    ]
    assert _history(kernel, "tail", n=0) == []


def test_history_range(kernel):
    first = kernel.run("'range 1'").content["execution_count"]
    kernel.run("'range 2'")
    session = _history(kernel, "tail", n=1)[0][0]
    for name in (0, session):
        rows = _history(kernel, "range", session=name, start=first, stop=first + 1)
        assert rows == [[session, first, "'range 1'"]]
        rows = _history(kernel, "range", session=name, start=first)
        assert [row[2] for row in rows] == ["'range 1'", "'range 2'"]
    assert _history(kernel, "range", session=session + 1, start=1) == []


def test_history_search(kernel):
    for code in ("'needle' + 'a'", "'needle' + 'b'", "'needle' + 'a'", "'other'"):
        kernel.run(code)

    def search(**options):
        return [row[2] for row in _history(kernel, "search", **options)]

    found = ["'needle' + 'a'", "'needle' + 'b'", "'needle' + 'a'"]
    assert search(pattern="'needle'*") == found
    assert search(pattern="'needle'*", n=2) == found[1:]
    assert search(pattern="'needle'*", unique=True) == found[1:]
    assert search(pattern="'needle' + '?'", n=1) == found[2:]
    assert search(pattern="*NEEDLE*") == []


def test_history_as_typed_and_as_run(kernel):
    kernel.run("%who int")
    (raw,) = _history(kernel, "tail", n=1, raw=True)
    (run,) = _history(kernel, "tail", n=1, raw=False)
    assert raw[2] == "%who int"
    assert run[2].strip() == "get_ipython().run_line_magic('who', 'int')"


def test_history_is_kept_across_a_restart(start_kernel):
    kernel = start_kernel()
    kernel.run("'before the restart'")
    old = _history(kernel, "tail", n=1)[0]
    kernel.restart()
    assert kernel.run("'after the restart'").content["execution_count"] == 1
    assert _history(kernel, "tail", n=2) == [old, [old[0] + 1, 1, "'after the restart'"]]
    assert _history(kernel, "range", session=-1, start=1, stop=2) == [old]
    assert _history(kernel, "range", session=0) == [[old[0] + 1, 1, "'after the restart'"]]


def test_the_guest_knows_its_own_history_only(kernel):
    kernel.run("'of this session'")
    assert "'of this session'" in kernel.run("%history").text()
    assert "before the restart" not in kernel.run("%history -g").text()
