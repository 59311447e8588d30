"""%%wasi trace: the calls of known programs, one by one; off again whatever ends the cell."""

from __future__ import annotations

import ast

import pytest

from wasi_kernel import Sandbox
from wasi_kernel.frames import Frame
from wasi_kernel.frontend import Frontend
from wasi_kernel.policy import Limits, Policy


@pytest.fixture(scope="module")
def box():
    with Sandbox() as box:
        assert box.run("import os, time").ok
        yield box


def calls(box):
    """The last trace's calls."""
    code = "t = get_ipython().run_line_magic('wasi', 'trace')\nprint(repr(t.calls))"
    return ast.literal_eval(box.run(code).stdout)


def is_off(box):
    code = "try: get_ipython().door.look('trace_end')\nexcept ValueError as e: print(e)"
    return "nothing is being traced" in box.run(code).stdout


def test_a_file_is_written_closed_and_read(box):
    code = (
        "%%wasi trace\n"
        "fd = os.open('/tmp/a', os.O_CREAT | os.O_RDWR)\n"
        "os.write(fd, b'hello')\n"
        "os.lseek(fd, 1, os.SEEK_SET)\n"
        "\n"
        "os.read(fd, 9)\n"
        "os.close(fd)"
    )
    assert box.run(code).error is None
    assert is_off(box)
    found = [c for c in calls(box) if c["call"] != "fd_fdstat_get"]
    assert [(c["call"], c["line"], c["file"]) for c in found] == [
        ("path_open", 2, found[0]["file"]),
        ("fd_write", 3, found[0]["file"]),
        ("fd_seek", 4, found[0]["file"]),
        ("fd_read", 6, found[0]["file"]),
        ("fd_close", 7, found[0]["file"]),
    ]
    opened, wrote, sought, read, closed = found
    assert opened["args"]["path"] == "a"
    assert opened["args"]["oflags"] == "creat"
    assert "<" in opened["text"]
    fd = opened["result"]["opened"]
    assert wrote["text"].startswith(f"{fd}</tmp/a>, iovs=[1 buffer, 5 bytes]")
    assert wrote["result"] == {"written": 5}
    assert sought["args"] == {"fd": fd, "offset": 1, "whence": "set"}
    assert sought["result"] == {"position": 1}
    assert read["result"] == {"read": 4}
    assert closed["errno"] == 0


def test_a_denied_open_has_its_errors_name(box):
    box.run("%%wasi trace --filter path_open\ntry: open('/etc/passwd')\nexcept OSError: pass")
    (call,) = calls(box)
    code = "try: open('/etc/passwd')\nexcept OSError as e: print((e.errno, e.strerror))"
    assert (call["errno"], call["meaning"]) == ast.literal_eval(box.run(code).stdout)
    assert call["error"].startswith("E")


def test_more_calls_than_are_kept_are_counted(box):
    box.run("%%wasi trace --most 10\nfor _ in range(5000): os.urandom(3)")
    assert len(calls(box)) == 10
    said = ast.literal_eval(box.run("d = t.to_dict(); del d['calls']; print(d)").stdout)
    assert said["dropped"] == 4990
    assert said["summary"]["random_get"]["count"] == 5000


def test_an_error_keeps_the_trace(box):
    assert box.run("%%wasi trace\nos.urandom(1)\n1 / 0").error.ename == "ZeroDivisionError"
    assert [c["call"] for c in calls(box)] == ["random_get"]
    assert is_off(box)


def test_it_ends_with_death_undo_and_the_time_limit():
    with Sandbox(Policy(limits=Limits(cell_s=1.0))) as box:
        assert box.run("%%wasi trace\nimport os\nos._exit(3)").error.lost
        assert is_off(box)
        box.run("get_ipython().door.look('trace_begin', file='x'); z = 1")
        assert is_off(box)
        box.run("x = 1")
        box.run("%%wasi trace\n%undo")
        assert is_off(box)
        error = box.run("%%wasi trace\nimport os\nwhile True: os.urandom(1)").error
        assert error.ename == "TimeLimitExceeded"
        assert is_off(box)


def test_it_passes_the_default_policy_unchanged(box):
    box.run("%%wasi trace\nopen('/tmp/<b>', 'w').close()")
    html = ast.literal_eval(box.run("t = %wasi trace\nprint(repr(t._repr_html_()))").stdout)
    assert "&lt;b&gt;" in html
    frame = Frame("display_data", {"data": {"text/html": html}, "metadata": {}, "transient": {}}, 1)
    assert html in Frontend().output(frame, 1)["data"]["text/html"]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("%%wasi trace\n%wasi trace --filter fd", "belong above a cell"),
        ("%%wasi trace --filter nope\n1", "no call of this guest is named 'nope'"),
        ("%%wasi trace --most 0\n1", "most is 0, not a number from 1 to 20000"),
        ("%%wasi trace\nget_ipython().run_cell_magic('wasi', 'trace', '1')", "traced already"),
    ],
)
def test_wrong_use_is_said(box, code, words):
    error = box.run(code).error
    assert error.ename == "UsageError"
    assert words in error.evalue
    assert is_off(box)
