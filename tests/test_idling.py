"""Tasks that cells leave running go on between the cells, and can be stopped in every way.

All through a Sandbox, whose `on_output` hears what they show; tests/kernel/test_background.py has
what a front end sees.
"""

from __future__ import annotations

import asyncio
import math
import threading

import pytest
from waiting import eventually

from wasi_kernel import Policy, Sandbox
from wasi_kernel.errors import GuestLost
from wasi_kernel.frames import Frame
from wasi_kernel.idling import Idling
from wasi_kernel.policy import Limits

TICK = """
import asyncio
async def tick(times, pause_s=0.01):
    for k in range(times):
        print('tick', k)
        await asyncio.sleep(pause_s)
    return times
"""

SPIN = """
async def spin():
    await asyncio.sleep(0.01)  # so that it is in a turn of its own
    print('spins', flush=True)
    while True: pass
"""

BUSY = """
async def busy(text=''):
    while True:
        print(text, end='')
        await asyncio.sleep(0)
"""

DIE = """
x = 1
async def die():
    await asyncio.sleep(0.05)
    import os
    os._exit(3)
"""

COUNT = """
x = 0
async def count():
    global x
    while True:
        x += 1
        await asyncio.sleep(0.01)
"""


class Heard:
    """A sandbox and what it has shown."""

    def __init__(self, **policy):
        self.shown = []
        self.box = Sandbox(Policy(**policy), on_output=self.shown.append)
        self.run = self.box.run
        assert self.run(TICK).status == "ok"

    @property
    def text(self):
        return "".join(output.get("text", "") for output in self.shown)

    def until(self, text):
        return eventually(lambda: text in self.text)


@pytest.fixture
def heard():
    heard = Heard()
    yield heard
    heard.box.close()


def test_a_task_goes_on_after_its_cell(heard):
    heard.run("task = asyncio.create_task(tick(5))")
    heard.until("tick 4\n")
    assert heard.run("await task").text == "5"
    assert heard.text.count("tick") == 5


def test_timers_and_callbacks_as_well(heard):
    heard.run("loop = asyncio.get_running_loop()\nloop.call_later(0.05, print, 'later')")
    heard.until("later\n")
    assert heard.run("None").outputs == []


def test_a_cell_awaits_the_task_of_another(heard):
    heard.run("event = asyncio.Event()\nwaiting = asyncio.create_task(event.wait())")
    heard.run("event.set()")
    assert heard.run("await waiting").text == "True"


def test_without_tasks_there_are_no_turns(heard):
    heard.run("x = 1\nawait asyncio.sleep(0.01)")
    assert not heard.box._session.idling.pending
    assert heard.run("len(asyncio.all_tasks())").text == "1"  # the cell itself


def test_a_task_that_never_waits_leaves_room_for_cells(heard):
    heard.run(BUSY)
    heard.run("task = asyncio.create_task(busy())")
    for k in range(20):
        assert heard.run(f"{k} + 1").text == str(k + 1)
    assert heard.run("task.done()").text == "False"


def test_completion_does_not_end_it(heard):
    heard.run("task = asyncio.create_task(tick(3, 0.1))")
    heard.box.complete("asyn", 4)
    heard.until("tick 2\n")


def test_an_exception_is_the_tasks_own(heard):
    heard.run("async def fail(): return 1 / 0\ntask = asyncio.create_task(fail())")
    eventually(lambda: heard.run("task.done()").text == "True")
    error = heard.run("await task").error
    assert error.ename == "ZeroDivisionError"


def test_an_exit_of_a_task_is_shown(heard):
    heard.run("async def leave(): raise SystemExit('over')\ntask = asyncio.create_task(leave())")
    eventually(lambda: any("SystemExit" in str(output) for output in heard.shown))
    assert heard.run("1 + 1").text == "2"


@pytest.mark.parametrize("code", ["asyncio.sleep(600)", "asyncio.Event().wait()"])
def test_an_interrupt_at_rest_cancels_them(heard, code):
    heard.run(f"tasks = [asyncio.ensure_future({code}) for _ in range(3)]")
    heard.run("ticking = asyncio.create_task(tick(10**6))")
    heard.until("tick 1\n")
    heard.box.interrupt()
    heard.until("[wasi-kernel] 4 background tasks were cancelled: interrupted.\n")
    assert (
        heard.run("all(t.cancelled() for t in tasks), ticking.cancelled()").text == "(True, True)"
    )
    assert not heard.box._session.idling.pending


def test_an_interrupt_at_rest_without_any_is_nothing(heard):
    heard.box.interrupt()
    assert heard.run("1 + 1").text == "2"
    assert "cancelled" not in heard.text


def test_an_interrupt_reaches_a_task_that_computes(heard):
    heard.run(SPIN)
    heard.run("task = asyncio.create_task(spin())\nother = asyncio.create_task(tick(10**6))\nx = 7")
    heard.until("spins\n")
    heard.box.interrupt()
    heard.until("cancelled: interrupted")
    assert heard.run("x, task.done(), other.cancelled()").text == "(7, True, True)"


def test_a_cell_that_is_interrupted_leaves_the_others_alone(heard):
    heard.run("task = asyncio.create_task(tick(10**6))")
    threading.Timer(0.3, heard.box.interrupt).start()
    assert heard.run("await asyncio.sleep(600)").error.ename == "KeyboardInterrupt"
    assert heard.run("task.done()").text == "False"


def test_limits_of_time_count_for_all_turns_after_a_cell():
    heard = Heard(limits=Limits(cell_cpu_s=1.0))
    heard.run(BUSY)
    heard.run("task = asyncio.create_task(busy())")
    heard.until("a background task was cancelled: more than 1 s of processor time")
    assert heard.run("task.cancelled()").text == "True"
    heard.box.close()


def test_what_they_print_is_limited_with_the_cell():
    heard = Heard(limits=Limits(output_bytes=1 << 20))
    heard.run(BUSY)
    heard.run("task = asyncio.create_task(busy('x' * 10_000))")
    heard.until("output")
    eventually(lambda: heard.text.count("x") > 900_000)
    assert heard.text.count("x") < 1 << 20
    assert heard.run("1 + 1").text == "2"
    heard.box.close()


def test_a_death_is_told_and_not_repeated(heard):
    heard.run(DIE)
    heard.run("task = asyncio.create_task(die())")
    heard.until("a background task was cancelled: it ended the guest")
    assert "[wasi-kernel] in the background: " in heard.text
    assert heard.run("x, task.cancelled()").text == "(1, True)"
    assert heard.box._session.generation == 1


def test_undo_takes_them_back(heard):
    heard.run("task = asyncio.create_task(tick(10**6, 0.05))")
    heard.until("tick 1\n")
    heard.run("%undo")
    count = heard.text.count("tick")
    assert heard.run("'task' in dir()").text == "False"
    assert heard.run("await asyncio.sleep(0.2)").outputs == []
    assert heard.text.count("tick") == count


def test_what_they_change_outlives_a_death(heard):
    heard.run("x = []\nloop = asyncio.get_running_loop()")
    heard.run("for k in range(3):\n    loop.call_soon(x.append, k)")
    eventually(lambda: not heard.box._session.idling.pending)
    assert heard.run("x").text == "[0, 1, 2]"
    heard.run("import os; os._exit(1)")
    assert heard.run("x").text == "[0, 1, 2]"


def test_a_fork_goes_on_with_its_own(heard):
    heard.run(COUNT)
    heard.run("task = asyncio.create_task(count())")
    with heard.box.fork() as fork:
        first = int(fork.run("x").text)
        eventually(lambda: int(fork.run("x").text) > first)
        fork.run("task.cancel()")
        first = int(heard.run("x").text)
        eventually(lambda: int(heard.run("x").text) > first)


# -- what a hostile guest says --------------------------------------------------------------------


async def until(wanted):
    await asyncio.to_thread(eventually, wanted)


class Turns:
    """An Idling whose guest gives prepared answers."""

    def __init__(self, *answers):
        self.asked, self.shown, self.answers = [], [], list(answers)
        self.idling = Idling(Limits(), cpu_s=lambda: 0.0, request=self.request, free=lambda: True)
        self.idling.on_output = self.shown.append

    async def request(self, kind, content, *, on_output):
        self.asked.append(content)
        answer = self.answers.pop(0) if self.answers else {}
        if isinstance(answer, Exception):
            raise answer
        self.idling.heard(kind, 9, answer)
        return Frame("idle_reply", answer, 9)


@pytest.mark.parametrize(
    "due", [math.nan, math.inf, -math.inf, "soon", None, [1], {}, "1"], ids=str
)
def test_what_is_no_time_means_never(due):
    async def run():
        turns = Turns()
        turns.idling.heard("execute_request", 1, {"due": due})
        assert not turns.idling.pending

    asyncio.run(run())


@pytest.mark.parametrize("due", [0, 0.0, -5, True, 1e300])
def test_a_time_is_a_time(due):
    async def run():
        turns = Turns()
        turns.idling.heard("execute_request", 1, {"due": due})
        assert turns.idling.pending
        turns.idling.close()

    asyncio.run(run())


def test_a_guest_that_always_says_now_does_not_busy_this_process():
    async def run():
        turns = Turns(*[{"due": 0}] * 10**5)
        turns.idling.heard("execute_request", 1, {"due": 0})
        await asyncio.sleep(0.2)
        assert 1 <= len(turns.asked) <= 101
        turns.idling.close()
        count = len(turns.asked)
        await asyncio.sleep(0.02)
        assert len(turns.asked) <= count + 1  # one may have been on its way

    asyncio.run(run())


def test_output_is_the_last_cells():
    async def run():
        lost = GuestLost("GuestExited", "exit status 1")
        turns = Turns(lost, {"cancelled": 2})
        turns.idling.heard("execute_request", 5, {"due": 0})
        await until(lambda: len(turns.shown) == 2)
        assert [frame.request for frame in turns.shown] == [5, 5]
        assert [content["cancel"] for content in turns.asked] == [False, True]
        turns.idling.close()

    asyncio.run(run())


def test_held_back_means_no_turns():
    async def run():
        turns = Turns({"due": 0}, {})
        turns.idling.hold(1)
        turns.idling.heard("execute_request", 5, {"due": 0})
        await asyncio.sleep(0.02)
        assert turns.asked == []
        turns.idling.hold(-1)
        await until(lambda: not turns.idling.pending)
        assert len(turns.asked) == 2

    asyncio.run(run())
