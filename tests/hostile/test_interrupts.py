"""The stop button works at any moment and against any code, and never takes more than the cell.

Cases that need a certain moment have an act here; the rest of them are data alone.
"""

from __future__ import annotations

import pytest

GROUPS = ("interrupts",)


def while_asking(stage, case):
    sent = stage.execute("input('who?')", allow_stdin=True)
    stage.client.get_stdin_msg(timeout=30)
    stage.interrupt()
    return stage.answer(sent)


def at_rest(stage, case):
    for _ in range(50):
        stage.interrupt()
    return stage.run("sum(range(1000))")


def between_cells(stage, case):
    sent = []
    for _ in range(20):
        stage.interrupt(heard=False)
        sent.append(stage.execute("sum(range(20_000))", stop_on_error=False))
        stage.interrupt(heard=False)
    stage.interrupt()
    # each is interrupted or not, as it may be
    assert {stage.answer(one).ename for one in sent} <= {"ok", "KeyboardInterrupt"}
    return stage.run("sum(range(20_000))")


def during_checkpoint(stage, case):
    answer = stage.run("grown = bytearray(b'x') * (100 << 20)")
    for _ in range(20):
        stage.interrupt()
    assert stage.run("grown.count(b'x')").result == str(100 << 20)
    assert stage.run("del grown").ename == "ok"
    return answer


def during_undo(stage, case):
    assert stage.run("undone = 1").ename == "ok"
    sent = stage.execute("%undo")
    stage.recorder.until_text(sent, "Undone")
    for _ in range(20):
        stage.interrupt()
    answer = stage.answer(sent)
    assert stage.run("'undone' in globals()").result == "False"
    return answer


def during_restore(stage, case):
    (worker,) = stage.workers()
    worker.kill()
    worker.wait(30)
    sent = stage.execute("while True: pass")  # where the new guest is quick, it is interrupted too
    for _ in range(20):
        stage.interrupt()
    for _ in range(20):
        if stage.replied(sent, 1.2):
            break
        stage.interrupt()
    return stage.answer(sent)


_ACTS = (while_asking, at_rest, between_cells, during_checkpoint, during_undo, during_restore)
ACTS = {act.__name__: act for act in _ACTS}


def test_case(hostile, case):
    hostile.check(case, ACTS)


@pytest.mark.parametrize("moment", ["start", "shutdown"])
def test_at_the_ends_of_a_kernel(hostile, moment):
    """Interrupts before the sandbox is there, and while it is being ended."""
    stage = hostile.new_stage({}, ready=False)
    if moment == "start":
        for _ in range(50):
            stage.interrupt(heard=False)
        stage.interrupt()  # and so are those before it
        for _ in range(3):  # what was interrupted while it waited for the sandbox says so
            assert stage.run("1").ename in ("ok", "KeyboardInterrupt")
        assert stage.run("6 * 7").result == "42"
    else:
        sent = stage.execute("print('begun')\nwhile True: pass")
        stage.recorder.until_text(sent, "begun")
        for _ in range(50):
            stage.interrupt(heard=False)
        stage.end_politely()
        for _ in range(50):
            stage.interrupt(heard=False)
    stage.close()
