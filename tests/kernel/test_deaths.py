"""No cell takes the session down: a death is one error with a stable name, and the next cell runs.

And the ends that are wanted: exit, shutdown and restart leave no process and no file behind.
"""

from __future__ import annotations

import os
import signal

import psutil
import pytest

from wasi_kernel.caches import Cache
from wasi_kernel.errors import LOSSES
from wasi_kernel.launch import SCRATCH


def _assert_works(kernel, pid):
    assert kernel.run("'alive'").result == "'alive'"
    assert kernel.pid == pid
    assert kernel.manager.is_alive()
    assert len(kernel.workers()) == 1


def _assert_one_loss(answer, ename):
    assert answer.content["status"] == "error"
    assert answer.content["ename"] == ename
    assert ename in LOSSES
    (error,) = answer.of("error")
    assert error == {k: answer.content[k] for k in ("ename", "evalue", "traceback")}
    assert LOSSES[ename] in error["evalue"]
    assert "as they were before this cell" in error["evalue"]
    assert answer.kinds[0] == "busy"
    assert answer.kinds[-1] == "idle"


@pytest.mark.parametrize(
    ("code", "ename"),
    [
        ("import os; os._exit(3)", "GuestExited"),
        ("import os; os._exit(0)", "GuestExited"),
        ("import os; os._exit(134)", "GuestExited"),
        ("import os; os.abort()", "GuestAborted"),
    ],
)
def test_death(kernel, code, ename):
    pid, count = kernel.pid, kernel.run("kept = 1").content["execution_count"]
    answer = kernel.run(f"print('begun')\n{code}")
    _assert_one_loss(answer, ename)
    assert answer.text() == "begun\n"
    assert answer.content["execution_count"] == count + 1
    _assert_works(kernel, pid)
    assert kernel.run("kept").result == "1"


def test_nested_list(kernel):
    """Its deallocation recurses in C; CPython limits the depth, or the guest dies of it."""
    pid = kernel.pid
    answer = kernel.run("t = []\nfor _ in range(100_000): t = [t]\ndel t\n'survived'")
    if answer.content["status"] == "error":
        _assert_one_loss(answer, "StackExhausted")
    else:
        assert answer.result == "'survived'"
    _assert_works(kernel, pid)


@pytest.mark.parametrize(
    "code",
    [
        "t = []\nfor _ in range(100_000): t = [t]\nrepr(t)",
        "t = []\nfor _ in range(100_000): t = [t]\nt == [t]",
        "def f(): f()\nf()",
        "import sys\nsys.setrecursionlimit(10**8)\ndef f(): f()\nf()",
        "class A:\n    def __getattr__(self, name): return getattr(self, name)\nA().x",
        "eval('(' * 100_000 + ')' * 100_000)",
        "import json\njson.loads('[' * 1_000_000)",
        "import pickle\nt = []\nfor _ in range(100_000): t = [t]\npickle.dumps(t)",
        "import re\nre.match('(' * 50_000 + ')' * 50_000, '')",
    ],
)
def test_recursion_ends_in_one_error(kernel, code):
    pid = kernel.pid
    answer = kernel.run(code)
    assert answer.content["status"] == "error"
    ename = answer.content["ename"]
    if ename == "StackExhausted":
        _assert_one_loss(answer, ename)
    else:
        assert ename in ("RecursionError", "MemoryError", "SyntaxError")
        assert len(answer.of("error")) == 1
    _assert_works(kernel, pid)


def test_worker_is_killed_while_a_cell_runs(kernel):
    pid = kernel.pid
    cell = kernel.execute("print('begun')\nwhile True: pass")
    kernel.until_text(cell, "begun")
    (worker,) = kernel.workers()
    worker.kill()
    _assert_one_loss(kernel.answer(cell), "WorkerKilled")
    _assert_works(kernel, pid)


def test_worker_is_killed_while_a_cell_waits_for_input(kernel):
    pid = kernel.pid
    cell = kernel.execute("input()", allow_stdin=True)
    kernel.question()
    (worker,) = kernel.workers()
    worker.kill()
    _assert_one_loss(kernel.answer(cell), "WorkerKilled")
    kernel.client.input("for nobody")
    _assert_works(kernel, pid)


def test_worker_is_killed_at_rest(kernel):
    """The user is told with the next cell; nothing is lost whose checkpoint was written."""
    pid = kernel.pid
    kernel.run("kept = 1")
    kernel.run("'begins when the checkpoint of the cell before is written'")
    (worker,) = kernel.workers()
    worker.kill()
    worker.wait(30)
    answer = kernel.run("'next'")
    said = answer.text("stderr") + str(answer.content.get("evalue"))
    assert "killed" in said
    assert "Variables are as they were" in said
    assert kernel.run("kept").result == "1"
    _assert_works(kernel, pid)
    assert kernel.run("'after that'").text("stderr") == ""


def test_death_aborts_the_queue(kernel):
    first = kernel.execute("input()\nimport os; os._exit(1)", allow_stdin=True)
    kernel.question()
    behind = [kernel.execute("'behind'") for _ in range(3)]
    kernel.client.input("")
    _assert_one_loss(kernel.answer(first), "GuestExited")
    assert [kernel.answer(m).content["status"] for m in behind] == ["aborted"] * 3
    assert kernel.run("'alive'").result == "'alive'"


def test_death_one_after_the_other(kernel):
    pid = kernel.pid
    for _ in range(4):
        _assert_one_loss(kernel.run("import os; os._exit(1)"), "GuestExited")
    _assert_works(kernel, pid)


def test_death_while_a_comm_message_is_handled(kernel):
    pid = kernel.pid
    kernel.run(
        "from comm import create_comm\nimport os\nown = create_comm(target_name='t')\n"
        "own.on_msg(lambda message: os._exit(1))"
    )
    comm_id = kernel.run("own.comm_id").result.strip("'")
    published = kernel.published(kernel.send("comm_msg", {"comm_id": comm_id, "data": {}}))
    (error,) = (m["content"] for m in published if m["msg_type"] == "error")
    assert error["ename"] == "GuestExited"
    _assert_works(kernel, pid)
    known = kernel.run("import comm; list(comm.get_comm_manager().comms)").result
    assert known == f"['{comm_id}']"


def test_files_outlive_a_death(kernel):
    kernel.run("open('/tmp/note', 'w').write('kept')")
    kernel.run("import os; os._exit(1)")
    assert kernel.run("open('/tmp/note').read()").result == "'kept'"


# -- exit ------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["exit", "quit", "exit()", "quit()"])
def test_exit_ends_the_kernel(start_kernel, code):
    kernel = start_kernel()
    workers = kernel.workers()
    process = psutil.Process(kernel.pid)
    answer = kernel.run(code)
    assert answer.content["status"] == "ok"
    assert answer.content["payload"] == [{"source": "ask_exit", "keepkernel": False}]
    process.wait(30)
    assert psutil.wait_procs(workers, 30)[1] == []


def test_exit_may_keep_the_kernel(kernel):
    pid = kernel.pid
    answer = kernel.run("exit(keep_kernel=True)")
    assert answer.content["payload"] == [{"source": "ask_exit", "keepkernel": True}]
    _assert_works(kernel, pid)


@pytest.mark.parametrize("code", ["import sys; sys.exit(3)", "raise SystemExit(3)"])
def test_sys_exit_is_the_cell_s_error(kernel, code):
    pid = kernel.pid
    kernel.run("kept = 1")
    answer = kernel.run(code)
    assert answer.content["status"] == "error"
    assert (answer.content["ename"], answer.content["evalue"]) == ("SystemExit", "3")
    assert [e["ename"] for e in answer.of("error")] == ["SystemExit"]
    assert kernel.run("kept").result == "1"
    _assert_works(kernel, pid)


# -- shutdown and restart --------------------------------------------------------------------


@pytest.fixture
def scratch():
    """Lists the folders of sessions that began within this test."""
    folder = Cache().folder(SCRATCH)
    before = set(folder.iterdir())
    return lambda: set(folder.iterdir()) - before


def _processes(kernel):
    found = [psutil.Process(kernel.pid), *kernel.workers()]
    assert len(found) == 2
    return found


@pytest.mark.parametrize("restart", [True, False])
def test_shutdown_leaves_nothing(start_kernel, scratch, restart):
    kernel = start_kernel()
    processes = _processes(kernel)
    assert scratch()
    asked = kernel.send("shutdown_request", {"restart": restart}, channel="control")
    assert kernel.reply(asked, "control")["content"] == {"status": "ok", "restart": restart}
    shown = kernel.until(asked, lambda m: m["msg_type"] == "shutdown_reply")
    assert shown["content"] == {"status": "ok", "restart": restart}
    assert psutil.wait_procs(processes, 30)[1] == []
    assert scratch() == set()


def test_shutdown_while_a_cell_runs(start_kernel, scratch):
    kernel = start_kernel()
    processes = _processes(kernel)
    cell = kernel.execute("print('begun')\nsum(range(10**13))")
    kernel.until_text(cell, "begun")
    asked = kernel.send("shutdown_request", {"restart": False}, channel="control")
    assert kernel.reply(asked, "control")["content"]["status"] == "ok"
    assert psutil.wait_procs(processes, 30)[1] == []
    assert scratch() == set()


def test_restart_begins_anew(start_kernel, scratch):
    kernel = start_kernel()
    processes = _processes(kernel)
    kernel.run("kept = 1\nopen('/tmp/note', 'w').write('old')")
    kernel.restart()
    assert psutil.wait_procs(processes, 30)[1] == []
    answer = kernel.run("import os\n'kept' in dir(), os.path.exists('/tmp/note')")
    assert answer.result == "(False, False)"
    assert answer.content["execution_count"] == 1
    assert len(scratch()) == 1


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_worker_does_not_outlive_the_kernel(start_kernel, number):
    kernel = start_kernel()
    processes = _processes(kernel)
    cell = kernel.execute("print('begun')\nwhile True: pass")
    kernel.until_text(cell, "begun")
    os.kill(kernel.pid, number)
    assert psutil.wait_procs(processes, 30)[1] == []


def test_sigint_is_no_way_to_interrupt(kernel):
    """Jupyter's interrupt is a message; a stray Ctrl-C in a terminal ends nothing."""
    pid = kernel.pid
    os.kill(pid, signal.SIGINT)
    for worker in kernel.workers():
        worker.send_signal(signal.SIGINT)
    _assert_works(kernel, pid)
