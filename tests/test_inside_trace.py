"""%%wasi trace: the calls of known programs, one by one; off again whatever ends the cell."""

from __future__ import annotations

import ast
import re

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
    error = box.run("%%wasi trace\nos.urandom(1)\n1 / 0").error
    assert error.ename == "ZeroDivisionError"
    assert "wasi_agent" not in "".join(error.traceback)
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


# -- programs ------------------------------------------------------------------------------------


def shown(text):
    """A trace's text without what differs from run to run: times, sizes, addresses, inodes."""
    text = re.sub(r"<?[\d,.]+ (µs|ms|s)\b>?", "T", text)
    text = re.sub(r"\b(atim|mtim|ctim|ino|dev|nlink|size|ns) \d+", r"\1 N", text)
    return re.sub(r"0x[0-9a-f]+|(?<=In\[)\d+", "N", text)


LOOK = "%%wasi trace\nos.stat('/tmp/seen')\nos.urandom(4)\nos.path.exists('/nowhere');"


def test_what_it_looks_like(box):
    box.run("os.makedirs('/tmp/seen', exist_ok=True)")
    result = box.run(LOOK)
    assert shown(result.text) == (
        "Trace: 3 WASI calls, 1 with an error, T\n"
        "path_filestat_get(6</tmp>, flags=symlink_follow, path='seen') = dev N, ino N, "
        "filetype directory, nlink N, size N, atim N, mtim N, ctim N T  # In[N]:2\n"
        "random_get(buffer=N, length=4) = ok T  # In[N]:3\n"
        "path_filestat_get(9</>, flags=symlink_follow, path='nowhere') = "
        "ENOENT (No such file or directory) T  # In[N]:4, in <frozen genericpath>:20"
    )
    data = result.data
    assert shown(data["text/html"]).count("<tr>") == 4
    assert "<summary>Trace: 3 WASI calls, 1 with an error, T</summary>" in shown(data["text/html"])
    lines = shown(box.run("%wasi trace --summary").text).splitlines()
    assert lines[0] == "Trace: 3 WASI calls, 1 with an error, T"
    assert sorted(line.split() for line in lines[2:]) == [
        ["call", "count", "errors", "time", "each"],
        ["path_filestat_get", "2", "1", "T", "T"],
        ["random_get", "1", "0", "T", "T"],
    ]


def test_one_call_is_one_call(box):
    assert "Trace: 1 WASI call, 0" in box.run("%%wasi trace\nos.urandom(1);").text


def test_a_files_description_is_what_python_says_of_it(box):
    code = "open('/tmp/five', 'w').write('12345')\ns = os.stat('/tmp/five')\nprint("
    code += "[s.st_size, s.st_nlink, s.st_ino, s.st_dev, s.st_mtime_ns, s.st_atime_ns])"
    said = ast.literal_eval(box.run(code).stdout)
    box.run("%%wasi trace\ns = os.stat('/tmp/five')")
    (call,) = calls(box)
    found = call["result"]
    names = ("size", "nlink", "ino", "dev", "mtim", "atim")
    assert [found[name] for name in names] == said
    assert found["filetype"] == "regular_file"


def test_what_is_waited_for_is_told(box):
    box.run("%%wasi trace --filter poll\ntime.sleep(0.002)")
    (call,) = calls(box)
    (waits,) = call["args"]["subscriptions"]
    assert (waits["kind"], waits["clock"]) == ("clock", "monotonic")
    assert call["result"] == {"happened": 1, "events": ["clock"]}


def test_pandas_reads_a_file(box):
    box.run("import pandas\nopen('/tmp/t.csv', 'w').write('a,b\\n' + '1,2\\n' * 9)")
    assert box.run("%%wasi trace\ndf = pandas.read_csv('/tmp/t.csv')").error is None
    found = calls(box)
    opened = next(c for c in found if c["call"] == "path_open" and c["args"]["path"] == "t.csv")
    assert opened["error"] is None
    assert opened["cell_line"] == 2
    assert "pandas" in opened["file"]
    fd = opened["result"]["opened"]
    read = [c for c in found if c["call"] == "fd_read" and c["args"]["fd"] == fd]
    assert sum(c["result"]["read"] for c in read) == 4 + 9 * 4
    assert all("</tmp/t.csv>" in c["text"] for c in read)
    assert [c for c in found if c["call"] == "fd_close" and c["args"]["fd"] == fd]


def test_imports_are_seen_where_they_happen(box):
    """A module of the library is read from its archive; one of native code is in python.wasm."""
    code = "%%wasi trace\nimport sys\nnative, pure = '_lsprof', 'cProfile'\n"
    code += (
        "was = [name in sys.modules for name in (native, pure)]\nimport _lsprof\nimport cProfile"
    )
    assert box.run(code).error is None
    assert box.run("print(was)").stdout == "[False, False]\n"
    found = calls(box)
    assert [c for c in found if c["cell_line"] == 5 and "python3" in c["text"]] == []
    assert [c for c in found if c["cell_line"] == 6 and c["call"] == "fd_read"]


def test_input_is_a_talk_at_the_door(box):
    code = "%%wasi trace --filter fd\nsaid = input('name? ')\nos.urandom(1)"
    assert box.run(code, input=lambda prompt, hidden: "Ada").error is None
    found = calls(box)
    assert {c["args"]["fd"] for c in found} == {0}
    assert {c["cell_line"] for c in found} == {2}
    assert {"fd_write", "fd_read"} <= {c["call"] for c in found}
    assert box.run("said").text == "'Ada'"


def test_an_interrupt_keeps_the_trace(box):
    def interrupting(prompt, hidden):
        box.interrupt()
        return "x"

    code = "%%wasi trace\nos.urandom(1)\ninput()\nwhile True: os.urandom(1)"
    result = box.run(code, input=interrupting)
    assert result.error.ename == "KeyboardInterrupt"
    assert any("Trace: " in o["data"]["text/plain"] for o in result.outputs if "data" in o)
    assert calls(box)[0]["call"] == "random_get"
    assert is_off(box)


def test_a_million_calls_are_counted_and_few_are_shown(box):
    result = box.run("%%wasi trace\nfor _ in range(1_000_000): os.urandom(1)")
    lines = result.text.splitlines()
    assert "Trace: 1,000,000 WASI calls" in lines[0]
    assert "995,000 were only counted (--most)" in lines[0]
    assert lines[-1] == "... 4,800 more in .calls"
    assert len(result.text) < 100_000
    assert len(calls(box)) == 5000


def test_a_cell_that_ends_the_guest_shows_its_last_calls():
    with Sandbox() as box:
        result = box.run("%%wasi trace\nimport os\nos.urandom(3)\n\nos._exit(3)")
        assert result.error.lost
        said = re.sub(r"0x[0-9a-f]+", "N", result.stderr)
        assert said == (
            "[wasi-kernel] the trace of this cell ends here, after 2 calls; the last:\n"
            "random_get(buffer=N, length=3) = ok  # line 3 of the cell\n"
            "proc_exit(status=3) = ?  # line 5 of the cell\n"
        )
        assert box.run("import os\nos._exit(3)").stderr == ""


def test_forks_trace_for_themselves(box):
    box.run("%%wasi trace\nos.urandom(2)")
    with box.fork() as fork:
        (before,) = calls(fork)
        assert before["args"]["length"] == 2
        box.run("get_ipython().door.look('trace_begin', file='x'); z = 1")
        fork.run("%%wasi trace --filter path\nopen('/tmp/of the fork', 'w').close()")
        (call,) = calls(fork)
        assert call["args"]["path"] == "of the fork"
        assert is_off(fork)
    (call,) = calls(box)
    assert call["args"]["length"] == 2


def test_a_plain_build_is_traced_without_lines(plain_build):
    """CPython 3.12 does not say where its frames are."""
    with Sandbox(Policy(runtime=str(plain_build), preload=())) as box:
        result = box.run("%%wasi trace\nimport os\nopen('/tmp/a', 'w').close()")
        assert "this build does not say which line it runs" in result.text
        found = calls(box)
        assert [c["text"] for c in found if c["args"].get("fd") == 0] == []  # the magic's own talk
        (opened,) = (c for c in found if c["call"] == "path_open")
        assert (opened["args"]["path"], opened["file"], opened["line"]) == ("a", None, None)
        assert is_off(box)
        died = box.run("%%wasi trace\nos._exit(3)")
        assert died.error.lost
        assert died.stderr.splitlines()[-1] == "proc_exit(status=3) = ?"
        assert is_off(box)
