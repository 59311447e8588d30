"""Checkpoints as a front end has them: magics, widgets, a worker that dies, a kernel that ends."""

from __future__ import annotations

import re
import resource
import signal
import time
import uuid

import psutil
import pytest

from wasi_kernel import Policy, Sandbox, caches, launch, sessions
from wasi_kernel.segments import SUFFIX

MAGICS = ("undo", "redo", "restore", "checkpoint", "checkpoints", "diff")
SWEPT_S = 30.0


def _ok(kernel, code):
    answer = kernel.run(code)
    assert answer.content["status"] == "ok", answer.content
    return answer


def _count(answer):
    return answer.content["execution_count"]


def _said(answer):
    """What the kernel itself says: in the cell's standard error, and as its error."""
    notes = [line for line in answer.text("stderr").splitlines() if "[wasi-kernel]" in line]
    return "\n".join([*notes, answer.content.get("evalue", "")])


def _worker(kernel):
    (worker,) = kernel.workers()
    return worker


def _folder(kernel):
    """Where the kernel's checkpoints are."""
    cache = caches.default_path()
    (found,) = (each for each in sessions.listed(cache) if each.pid == kernel.pid)
    return launch.sessions_folder(cache) / found.id


def _written(kernel):
    """Waits until what has run is kept: other requests are answered after that."""
    kernel.ask("is_complete_request", {"code": "x"})


# -- magics ----------------------------------------------------------------------------------


def test_undo_is_a_cell_like_any_other(kernel):
    first = _ok(kernel, "x = 'first'")
    second = _ok(kernel, "x = 'second'")
    answer = _ok(kernel, "print('shown')\n%undo\nprint('not run')")
    assert answer.kinds[:2] == ["busy", "execute_input"]
    assert answer.kinds[-1] == "idle"
    assert answer.text() == (
        f"shown\nUndone: cell [{_count(second)}]. Now after cell [{_count(first)}]: x = 'first'\n"
    )
    assert "what follows in this cell was not run" in answer.text("stderr")
    assert answer.content["user_expressions"] == {}
    assert answer.content["payload"] == []
    assert _count(answer) == _count(second) + 1
    after = _ok(kernel, "x")
    assert after.result == "'first'"
    assert _count(after) == _count(second) + 2
    assert after.of("execute_result")[0]["execution_count"] == _count(after)


def test_cells_behind_an_undo_run(kernel):
    _ok(kernel, "x = 1")
    _ok(kernel, "x = 2")
    queued = [kernel.execute(code) for code in ("%undo", "x", "x += 10", "%undo", "x")]
    answers = [kernel.answer(msg_id) for msg_id in queued]
    assert [a.content["status"] for a in answers] == ["ok"] * 5
    assert [answers[k].result for k in (1, 4)] == ["1", "1"]


@pytest.mark.parametrize("magic", MAGICS)
def test_help(kernel, magic):
    answer = _ok(kernel, f"%{magic}?")
    (page,) = answer.content["payload"]
    assert page["source"] == "page"
    text = page["data"]["text/plain"]
    assert f"%{magic}" in text
    assert len(text.splitlines()) > 3
    said = kernel.ask("inspect_request", {"code": f"%{magic}", "cursor_pos": 3, "detail_level": 0})
    assert said["found"]
    assert f"%{magic}" in said["data"]["text/plain"]


def _completed(kernel, code):
    """The cells that accepting each match would make of `code`."""
    said = kernel.ask("complete_request", {"code": code, "cursor_pos": len(code)})
    assert said["status"] == "ok"
    start, end = said["cursor_start"], said["cursor_end"]
    return {code[:start] + match + code[end:] for match in said["matches"]}


def test_completion(kernel):
    cell = _count(_ok(kernel, "x = 1\n%checkpoint named here"))
    _ok(kernel, "x = 2\n%checkpoint other")
    assert {f"%{magic}" for magic in MAGICS} <= set().union(
        *(_completed(kernel, f"%{magic[:3]}") for magic in MAGICS)
    )
    for code in ("%undo -", "%undo --", "%undo --on"):
        assert "%undo --on-error" in _completed(kernel, code), code
    assert {"%undo --on-error on", "%undo --on-error off"} <= _completed(
        kernel, "%undo --on-error "
    )
    assert _completed(kernel, "%undo --on-error of") == {"%undo --on-error off"}
    for magic in ("restore", "diff"):
        found = _completed(kernel, f"%{magic} ")
        assert {f"%{magic} other", f"%{magic} named here", f"%{magic} {cell}"} <= found
        assert _completed(kernel, f"%{magic} oth") == {f"%{magic} other"}
    assert "%checkpoint --delete" in _completed(kernel, "%checkpoint --")
    assert "%checkpoint --delete other" in _completed(kernel, "%checkpoint --delete ")
    _ok(kernel, "%checkpoint --delete other")
    _ok(kernel, "%checkpoint --delete named here")


def test_what_is_not_stored_is_no_step(kernel):
    _ok(kernel, "x = 1")
    _ok(kernel, "x = 2")
    kernel.run("silent = 1", silent=True)
    kernel.run("unstored = 1", store_history=False)
    _ok(kernel, "%undo")
    assert kernel.run("x, {'silent', 'unstored'} & set(dir())").result == "(1, set())"


def test_a_pause_ends_no_redo(kernel):
    _ok(kernel, "x = 1")
    _ok(kernel, "x = 2")
    _ok(kernel, "%undo")
    time.sleep(1)  # the turn in which the target's tasks would go on, and its checkpoint, pass
    _ok(kernel, "%redo")
    assert kernel.run("x").result == "2"


def test_questions_of_the_front_end_end_no_redo(kernel):
    _ok(kernel, "x = 1")
    _ok(kernel, "x = 2")
    _ok(kernel, "%undo")
    kernel.ask("complete_request", {"code": "x.re", "cursor_pos": 4})
    kernel.ask("inspect_request", {"code": "x", "cursor_pos": 1, "detail_level": 0})
    kernel.ask("is_complete_request", {"code": "x"})
    kernel.ask("comm_info_request")
    _ok(kernel, "%redo")
    assert kernel.run("x").result == "2"


def test_misuse_is_one_error(kernel):
    answer = kernel.run("%undo x")
    assert answer.content["status"] == "error"
    assert answer.content["ename"] == "UsageError"
    assert answer.text("stderr") == f"UsageError: {answer.content['evalue']}\n"
    answer = kernel.run("%undo 100000")
    assert re.fullmatch(r"only the last \d+ can be undone", answer.content["evalue"])


def test_a_failing_cell_without_a_trace_stops_the_queue(kernel):
    _ok(kernel, "x = 1; held = open('/tmp/held', 'w')")
    _ok(kernel, "%undo --on-error on")
    queued = [kernel.execute(code) for code in ("x = 2; 1/0", "x = 3")]
    first, second = (kernel.answer(msg_id) for msg_id in queued)
    assert first.content["status"] == "error"
    assert first.content["ename"] == "ZeroDivisionError"
    assert len(first.of("error")) == 1
    assert second.content["status"] == "aborted"
    assert "leaves no trace" in first.text("stderr")
    assert "no longer open: /tmp/held" in first.text("stderr")
    _ok(kernel, "%undo --on-error off")
    assert kernel.run("x").result == "1"


def test_interrupts_and_questions_work_after_an_undo(kernel):
    _ok(kernel, "x = 1")
    _ok(kernel, "x = 2")
    _ok(kernel, "%undo")
    cell = kernel.execute("print('begun')\nwhile True: pass")
    kernel.until_text(cell, "begun")
    kernel.interrupt()
    answer = kernel.answer(cell)
    assert answer.content["ename"] == "KeyboardInterrupt"
    assert answer.content["evalue"] == ""
    cell = kernel.execute("input('? ')", allow_stdin=True)
    assert kernel.question()["content"]["prompt"] == "? "
    kernel.client.input("answer")
    assert kernel.answer(cell).result == "'answer'"
    assert kernel.run("x").result == "1"


# -- widgets ---------------------------------------------------------------------------------


@pytest.fixture
def widget(kernel):
    """The id of a comm whose messages set `shown`."""
    _ok(
        kernel,
        "import comm\nshown = 0\ndef opened(c, message):\n"
        "    def said(message):\n        global shown\n"
        "        shown = message['content']['data']['value']\n"
        "    c.on_msg(said)\n"
        "comm.get_comm_manager().register_target('widget', opened)",
    )
    comm_id = uuid.uuid4().hex
    content = {"comm_id": comm_id, "target_name": "widget", "data": {}}
    kernel.published(kernel.send("comm_open", content))
    return comm_id


def _set(kernel, widget, value):
    kernel.published(kernel.send("comm_msg", {"comm_id": widget, "data": {"value": value}}))


def test_what_widgets_changed_outlives_a_death_in_the_next_cell(kernel, widget):
    _set(kernel, widget, 5)
    answer = kernel.run("shown = 'dead'; import os; os._exit(1)")
    assert answer.content["ename"] == "GuestExited"
    assert "as they were before this cell" in answer.content["evalue"]
    assert kernel.run("shown").result == "5"
    _set(kernel, widget, 6)  # and the comm is still there
    assert kernel.run("shown").result == "6"


def test_what_widgets_changed_is_not_undone_with_the_next_cell(kernel, widget):
    _set(kernel, widget, 5)
    _ok(kernel, "later = 1")
    _ok(kernel, "%undo")
    assert kernel.run("shown, 'later' in dir()").result == "(5, False)"
    _ok(kernel, "shown = 0")
    _set(kernel, widget, 7)
    _ok(kernel, "%undo")
    assert kernel.run("shown").result == "5"


def test_what_widgets_changed_is_kept_or_named_as_lost(kernel, widget):
    """When the worker is killed right after: never silently older state."""
    _set(kernel, widget, 5)
    worker = _worker(kernel)
    worker.kill()
    worker.wait(30)
    said = _said(kernel.run("'next'"))
    assert "killed" in said
    assert kernel.run("shown").result == "5" or "LOST" in said


# -- a worker that dies ----------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_the_worker_is_killed_at_rest(kernel, number):
    _ok(kernel, "kept = [1]; it = iter(range(5)); next(it); held = open('/tmp/held', 'w')")
    _written(kernel)
    worker = _worker(kernel)
    worker.send_signal(number)
    worker.wait(30)
    said = _said(kernel.run("'next'"))
    assert "Variables are as they were before" in said
    assert "No longer open: /tmp/held" in said
    assert "LOST" not in said
    assert kernel.run("kept, next(it), held.closed").result == "([1], 1, True)"
    assert _said(kernel.run("1")) == ""


def test_a_cell_that_was_answered_is_kept_or_named_as_lost(kernel):
    _ok(kernel, "import os; n = 0")
    for k in range(1, 4):
        _ok(kernel, f"n = {k}")
        _written(kernel)
        cell = _count(_ok(kernel, f"n = -{k}; junk = os.urandom(40 << 20)"))
        _worker(kernel).kill()
        said = _said(kernel.run("'next'"))
        lost = re.search(r"LOST as well: what (.*) did", said)
        assert kernel.run("n").result == (str(k) if lost else f"-{k}")
        assert lost is None or lost[1] == f"[{cell}]"


def test_a_full_disk_is_told_once(start_kernel):
    kernel = start_kernel()

    def room(size):
        limit = (size, resource.RLIM_INFINITY)
        resource.prlimit(_worker(kernel).pid, resource.RLIMIT_FSIZE, limit)

    cell = _count(_ok(kernel, "kept = [1]"))
    _written(kernel)
    room(sum(path.stat().st_size for path in _folder(kernel).glob(f"*{SUFFIX}")))
    lost = [_count(_ok(kernel, "kept.append(2)"))]
    told = []
    for n in range(3, 6):
        answer = _ok(kernel, f"kept.append({n})")
        lost.append(_count(answer))
        told.append(_said(answer))
    assert sum("could not be written" in text for text in told) == 1
    assert "".join(told).count("[wasi-kernel]") == 1
    assert "could not be written" in kernel.run("%undo").content["evalue"]
    answer = kernel.run("import os; os._exit(1)")
    assert f"after cell [{cell}]" in answer.content["evalue"]
    named = re.search(r"LOST as well: what (.*) did", answer.content["evalue"])
    assert named is not None
    assert {f"[{n}]" for n in lost} <= set(named[1].split(", "))
    assert kernel.run("kept").result == "[1]"
    assert _said(kernel.run("1")) == ""


@pytest.mark.parametrize(
    "poison",
    [
        "get_ipython().run_cell = None",
        "import wasi_agent.agent as a; a._agent.clear()",
        "import json; json.loads = None",
        "import sys; sys.modules.clear()",
    ],
)
def test_a_poisoned_session_is_not_lost(start_kernel, poison):
    """What the user of a notebook can do is to run cells: one of them brings it back."""
    kernel = start_kernel()
    cell = _count(_ok(kernel, "kept = [1]"))
    kernel.run(poison)
    kernel.run("kept.append(2)")
    if kernel.run("kept").result is None:
        kernel.run(f"%restore {cell}")
    assert kernel.run("kept[0]").result == "1"


# -- what is left ----------------------------------------------------------------------------


def test_shutdown_leaves_no_checkpoints(start_kernel):
    kernel = start_kernel()
    _ok(kernel, "x = 1")
    folder = _folder(kernel)
    assert list(folder.glob(f"*{SUFFIX}"))
    assert folder.stat().st_mode & 0o777 == 0o700
    asked = kernel.send("shutdown_request", {"restart": False}, channel="control")
    assert kernel.reply(asked, "control")["content"]["status"] == "ok"
    assert not folder.exists()


def test_restart_begins_without_checkpoints(start_kernel):
    kernel = start_kernel()
    _ok(kernel, "kept = 1\n%checkpoint name")
    folder = _folder(kernel)
    kernel.restart()
    assert kernel.run("'kept' in dir()").result == "False"
    assert not folder.exists()
    assert "no checkpoint 'name'" in kernel.run("%restore name").content["evalue"]
    assert "as they were before" in kernel.run("import os; os._exit(1)").content["evalue"]
    assert kernel.run("'kept' in dir()").result == "False"


def test_what_a_killed_kernel_leaves_is_swept_by_the_next(start_kernel):
    killed = start_kernel()
    _ok(killed, "x = 1")
    folder = _folder(killed)
    workers = killed.workers()
    psutil.Process(killed.pid).kill()
    assert psutil.wait_procs(workers, 30)[1] == []
    assert folder.exists()
    kernel = start_kernel()
    end = time.monotonic() + SWEPT_S
    while folder.exists() and time.monotonic() < end:
        kernel.run("1")
    assert not folder.exists()
    assert _folder(kernel).exists()


# -- a command build -------------------------------------------------------------------------


def test_a_command_build_has_no_checkpoints_and_says_so(plain_build):
    with Sandbox(Policy(runtime=str(plain_build), preload=())) as box:
        assert box.run("x = 1").ok
        for code in ("%undo", "%restore 1", "%checkpoints", "%checkpoint a", "%diff"):
            r = box.run(code)
            assert r.error is not None
            assert r.error.ename == "UsageError"
            assert "command build" in r.error.evalue
            assert "there are no checkpoints" in r.error.evalue
        assert box.run("x").text == "1"
