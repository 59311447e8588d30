"""Shows that each limit of time has its effect and its name, and lets be what keeps to it."""

from __future__ import annotations

import pytest

from wasi_kernel import Limits, Policy, Sandbox
from wasi_kernel.errors import CallError

WALL = Limits(cell_s=0.5, grace_s=1)
CPU = Limits(cell_cpu_s=0.5, grace_s=1)


@pytest.fixture(scope="module")
def wall():
    with Sandbox(Policy(limits=WALL)) as box:
        yield box


@pytest.fixture(scope="module")
def cpu():
    with Sandbox(Policy(limits=CPU)) as box:
        yield box


@pytest.mark.parametrize("code", ["while True: pass", "import time; time.sleep(60)"])
def test_a_cell_that_takes_too_long_is_interrupted(wall, code):
    wall.run("x = 1")
    result = wall.run(code)
    assert result.error is not None
    assert result.error.ename == "TimeLimitExceeded"
    assert result.error.evalue == "more than 0.5 s (limits.cell_s)"
    assert "TimeLimitExceeded" in result.error.traceback[-1]
    assert not result.error.lost
    assert [o["ename"] for o in result.outputs if o["type"] == "error"] == ["TimeLimitExceeded"]
    assert wall.run("x").text == "1"


@pytest.mark.parametrize("limits", ["wall", "cpu"])
def test_a_cell_that_does_not_react_is_stopped(limits, request):
    box = request.getfixturevalue(limits)
    box.run("x = 1")
    result = box.run(
        "x = 2\nwhile True:\n    try:\n        while True: pass\n    except KeyboardInterrupt: pass"
    )
    assert result.error is not None
    assert result.error.ename == "TimeLimitExceeded"
    assert result.error.lost
    assert "limits.cell_" in result.error.evalue
    assert "Variables are as they were before this cell" in result.error.evalue
    assert box.run("x").text == "1"


def test_processor_time_is_not_the_clocks(cpu):
    """Sleeping costs nothing, and each cell has its own."""
    assert cpu.run("import time; time.sleep(0.8)").ok
    for _ in range(4):
        assert cpu.run("end = time.process_time() + 0.2\nwhile time.process_time() < end: pass").ok
    result = cpu.run("while True: pass")
    assert result.error is not None
    assert result.error.ename == "TimeLimitExceeded"
    assert result.error.evalue == "more than 0.5 s of processor time (limits.cell_cpu_s)"


def test_an_interrupt_that_is_the_users_stays_one():
    def stop(output):
        if output["type"] == "stream":
            box.interrupt()

    with Sandbox(Policy(limits=Limits(cell_s=60, cell_cpu_s=60)), on_output=stop) as box:
        result = box.run("print('started')\nwhile True: pass")
        assert result.error is not None
        assert result.error.ename == "KeyboardInterrupt"


def test_calls_are_limited_too(wall):
    wall.run("def forever():\n    while True: pass")
    with pytest.raises(CallError, match="TimeLimitExceeded: more than"):
        wall.call("forever")
    assert wall.run("1").text == "1"
