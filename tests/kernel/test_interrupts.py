"""The stop button: KeyboardInterrupt in the cell that runs, its variables kept, no other harm."""

from __future__ import annotations

import select
import socket
from typing import TYPE_CHECKING

import pytest

from wasi_kernel.sandbox import Sandbox

if TYPE_CHECKING:
    from wasi_kernel.frames import Frame

RUNNING = {
    "loop": "while True: pass",
    "sleep": "import time; time.sleep(600)",
    "await": "import asyncio; await asyncio.sleep(600)",
    "gather": (
        "import asyncio\n"
        "async def spin():\n    while True: await asyncio.sleep(0)\n"
        "await asyncio.gather(spin(), asyncio.sleep(600))"
    ),
    "regular expression": "import re; re.match('(a+)+$', 'a' * 60 + 'b')",
    "printing": "while True: print('x' * 1000)",
    "displaying": "while True: display('x')",
    "generator": "sum(1 for _ in iter(int, 1))",
}


@pytest.mark.parametrize("name", RUNNING)
def test_running_cell_is_interrupted(kernel, name):
    cell = kernel.execute(f"kept = {name!r}\nprint('begun')\n{RUNNING[name]}")
    kernel.until_text(cell, "begun")
    kernel.interrupt()
    answer = kernel.answer(cell)
    assert answer.content["status"] == "error"
    assert answer.content["ename"] == "KeyboardInterrupt"
    assert [e["ename"] for e in answer.of("error")] == ["KeyboardInterrupt"]
    assert kernel.run("kept").result == repr(name)


def test_at_rest_it_is_harmless(kernel):
    kernel.run("kept = 'at rest'")
    workers = kernel.workers()
    for k in range(10):
        assert kernel.ask("interrupt_request", channel="control") == {"status": "ok"}
        assert kernel.run(f"import time\ntime.sleep(0)\n{k}").result == str(k)
    assert kernel.run("kept").result == "'at rest'"
    assert kernel.workers() == workers


def test_reply_says_that_it_was_heard(kernel):
    cell = kernel.execute("print('begun')\nwhile True: pass")
    kernel.until_text(cell, "begun")
    assert kernel.ask("interrupt_request", channel="control") == {"status": "ok"}
    assert kernel.answer(cell).content["ename"] == "KeyboardInterrupt"


def test_it_can_be_caught(kernel):
    code = (
        "import time\n"
        "try:\n    print('begun')\n    time.sleep(600)\n"
        "except KeyboardInterrupt:\n    print('caught')\n"
        "begin = time.monotonic()\ntime.sleep(0.2)\n"
        "time.monotonic() - begin >= 0.2"
    )
    cell = kernel.execute(code)
    kernel.until_text(cell, "begun")
    kernel.interrupt()
    answer = kernel.answer(cell)
    assert answer.text() == "begun\ncaught\n"
    assert answer.result == "True"  # the sleep after it is a whole one


def test_finally_and_with_blocks_run(kernel):
    cell = kernel.execute(
        "try:\n    print('begun')\n    while True: pass\nfinally:\n    print('end')"
    )
    kernel.until_text(cell, "begun")
    kernel.interrupt()
    answer = kernel.answer(cell)
    assert answer.text() == "begun\nend\n"
    assert answer.content["ename"] == "KeyboardInterrupt"


def test_awaiting_cell_can_catch_it(kernel):
    """As in ipykernel, where the cell's task is cancelled."""
    code = (
        "import asyncio\n"
        "try:\n    print('begun')\n    await asyncio.sleep(600)\n"
        "finally:\n    print('cleaned up')"
    )
    cell = kernel.execute(code)
    kernel.until_text(cell, "begun")
    kernel.interrupt()
    answer = kernel.answer(cell)
    assert answer.text() == "begun\ncleaned up\n"
    assert answer.content["ename"] == "KeyboardInterrupt"


def test_await_works_after_an_interrupt(kernel):
    cell = kernel.execute("import asyncio\nprint('begun')\nawait asyncio.sleep(600)")
    kernel.until_text(cell, "begun")
    kernel.interrupt()
    kernel.answer(cell)
    assert kernel.run("await asyncio.sleep(0, 'slept')").result == "'slept'"


def test_one_press_interrupts_one_cell(kernel):
    for _ in range(5):
        cell = kernel.execute("print('begun')\nwhile True: pass")
        kernel.until_text(cell, "begun")
        kernel.interrupt()
        assert kernel.answer(cell).content["ename"] == "KeyboardInterrupt"
        assert kernel.run("sum(k for k in range(10_000))").result == "49995000"


def test_code_that_does_not_react_is_stopped_by_pressing_again(kernel):
    kernel.run("kept = 1")
    pid = kernel.pid
    (worker,) = kernel.workers()
    cell = kernel.execute("print('begun')\nsum(range(10**13))")
    kernel.until_text(cell, "begun")
    kernel.interrupt_until_reply(cell)
    answer = kernel.answer(cell)
    assert answer.content["ename"] == "KeyboardInterrupt"
    assert [e["ename"] for e in answer.of("error")] == ["KeyboardInterrupt"]
    assert "did not react" in answer.content["evalue"]
    assert "as they were before this cell" in answer.content["evalue"]
    assert kernel.run("1").result == "1"
    assert kernel.pid == pid
    assert kernel.manager.is_alive()
    assert worker not in kernel.workers()
    assert kernel.run("kept").result == "1"


def test_code_that_catches_every_interrupt_is_stopped(kernel):
    code = (
        "print('begun')\n"
        "while True:\n    try:\n        while True: pass\n    except BaseException: pass"
    )
    cell = kernel.execute(code)
    kernel.until_text(cell, "begun")
    assert kernel.interrupt_until_reply(cell)["content"]["ename"] == "KeyboardInterrupt"
    kernel.published(cell)
    assert kernel.run("1").result == "1"


def test_completion_that_hangs_is_interrupted(kernel):
    kernel.run(
        "class Slow:\n"
        "    def __dir__(self):\n        print('begun')\n        while True: pass\n"
        "slow = Slow()"
    )
    asked = kernel.send("complete_request", {"code": "slow.", "cursor_pos": 5})
    kernel.until_text(asked, "begun")
    assert kernel.interrupt_until_reply(asked)["msg_type"] == "complete_reply"
    kernel.published(asked)
    assert kernel.run("1").result == "1"


def test_one_that_is_under_way_when_the_reply_comes_does_not_hit_the_next_cell():
    """It comes while the guest, its cell answered, still makes ready for the next one."""
    linger = (
        "import sys, time\n"
        "agent = sys.modules['wasi_agent.agent']._agent[0]\n"
        "def spin(duration_s):\n"
        "    end = time.monotonic() + duration_s\n"
        "    while time.monotonic() < end: pass\n"
        "rest = agent.rest\n"
        "agent.rest = lambda: (rest(), print('res' + 'ting', flush=True), spin(1))\n"
        "print('begun', flush=True)"
    )
    with Sandbox() as box:
        session = box._session

        def shown(frame: Frame) -> None:
            requests, lying = session._link.worker.requests, b""
            while b"resting" not in lying:  # the reply lies before it
                if not select.select([requests], [], [], 0.5)[0]:
                    break  # all of it came with this output
                lying = requests.recv(1 << 20, socket.MSG_PEEK)
            session.interrupt()

        content = {"code": linger, "execution_count": 1}
        sent = session.request("execute_request", content, on_output=shown)
        reply = box._loop.run(sent)
        assert reply.content["status"] == "ok"
        assert box.run("6 * 7").text == "42"
