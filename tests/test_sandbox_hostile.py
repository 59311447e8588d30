"""Sequences that once hung a session, lost an interrupt, or tore a stream."""

from __future__ import annotations

import threading

import pytest

from wasi_kernel import Limits, Policy, Sandbox


def test_an_interrupt_while_printing_leaves_the_streams_whole(box):
    both = (
        "import sys\ni = 0\nwhile True:\n    i += 1\n"
        "    sys.stdout.write(f'o{i}\\n'); sys.stderr.write(f'e{i}\\n')"
    )
    for _ in range(10):
        timer = threading.Timer(0.1, box.interrupt)
        timer.start()
        stopped = box.run(both)
        assert stopped.error is not None
        assert stopped.error.ename == "KeyboardInterrupt"
        for line, letter in [(stopped.stdout, "o"), (stopped.stderr, "e")]:
            assert {text[0] for text in line.split()} == {letter}
        after = box.run("print('fresh'); print('err', file=sys.stderr)")
        assert (after.stdout, after.stderr) == ("fresh\n", "err\n")


def test_an_interrupt_of_a_cell_that_is_still_being_read_is_not_lost():
    with Sandbox() as box:
        big = "import time\nend = time.monotonic() + 30\nwhile time.monotonic() < end: pass\n#"
        started = threading.Thread(target=lambda: results.append(box.run(big + "#" * (8 << 20))))
        results: list = []
        started.start()
        timer = threading.Timer(0.01, box.interrupt)
        timer.start()
        started.join(20)
        if not results:  # it came even before the request: as a user, press again
            box.interrupt()
            started.join(20)
        assert results[0].error.ename == "KeyboardInterrupt"
        assert not results[0].error.lost


def test_a_guest_that_does_not_read_is_stopped_and_replaced():
    policy = Policy(limits=Limits(grace_s=0.2))
    with Sandbox(policy) as box:
        code = (
            "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
            "import os, wasi_agent.agent as a\nfrom wasi_agent import frames\n"
            "frame = frames.Frame('input_request', {'prompt': '', 'password': False}, "
            "a._door.request)\n"
            "os.write(0, frames.encode(frame))\nsum(range(10**11))"
        )
        stopped = box.run(code, input=lambda prompt, hidden: "x" * (4 << 20), deadline_s=0.5)
        assert stopped.error is not None
        assert stopped.error.lost
        assert box.run("1 + 1").text == "2"


def test_a_request_too_large_to_send_is_an_error_and_nothing_is_lost(box):
    box.run("kept = 1")
    refused = box.run("#" * (257 << 20))
    assert refused.error is not None
    assert refused.error.ename == "ProtocolError"
    answered = box.run("input()", input=lambda prompt, hidden: "x" * (257 << 20))
    assert answered.error is not None
    assert answered.error.ename == "EOFError"
    assert box.run("kept").text == "1"


def test_a_callers_callback_that_raises_raises_there_and_loses_nothing():
    raised = []

    def on_output(output: dict) -> None:
        if output["type"] == "display_data":
            raised.append(output)
            raise LookupError("mine")

    with Sandbox(on_output=on_output) as box:
        for _ in range(5):
            with pytest.raises(LookupError, match="mine"):
                box.run("kept = 1; display(1); display(2); 3")
        assert len(raised) == 10

        def answer(prompt: str, hidden: bool) -> str:
            raise LookupError("no answer")

        with pytest.raises(LookupError, match="no answer"):
            box.run("input()", input=answer)
        assert box.run("kept").text == "1"


def test_questions_that_nobody_answers_do_not_pile_up(box):
    code = (
        "import os, wasi_agent.agent as a\nfrom wasi_agent import frames\n"
        "frame = frames.encode(frames.Frame('input_request', {}, a._door.request))\n"
        "refused = 0\n"
        "for _ in range(1000):\n"
        "    try: os.write(0, frame)\n"
        "    except OSError: refused += 1\n"
        "refused"
    )
    asked = []
    r = box.run(code, input=lambda prompt, hidden: (asked.append(1), "")[1])
    assert r.text == "999"
    assert len(asked) <= 1  # none if the run was over before the caller was asked


def test_an_error_whose_text_cannot_be_made_is_shown(box):
    r = box.run("class E(BaseException):\n    def __str__(self): raise SystemExit\nraise E")
    assert r.error is not None
    assert any("cannot be made" in o.get("evalue", "") for o in r.outputs)
    assert box.run("1").text == "1"
