"""input() and its relatives ask the front end; the answer, or an interrupt, ends the wait."""

from __future__ import annotations

import pytest


def test_input(kernel):
    cell = kernel.execute("print('before')\ninput('name> ')", allow_stdin=True)
    asked = kernel.question()
    assert asked["msg_type"] == "input_request"
    assert asked["content"] == {"prompt": "name> ", "password": False}
    assert asked["parent_header"]["msg_id"] == cell
    kernel.client.input("J\N{LATIN SMALL LETTER O WITH DIAERESIS}rg \N{GRINNING FACE}")
    answer = kernel.answer(cell)
    assert answer.result == "'J\N{LATIN SMALL LETTER O WITH DIAERESIS}rg \N{GRINNING FACE}'"
    (printed,) = (m for m in answer.published if m["msg_type"] == "stream")
    assert printed["header"]["date"] <= asked["header"]["date"]


def test_getpass(kernel):
    cell = kernel.execute("import getpass\ngetpass.getpass('secret> ')", allow_stdin=True)
    assert kernel.question()["content"] == {"prompt": "secret> ", "password": True}
    kernel.client.input("swordfish")
    assert kernel.answer(cell).result == "'swordfish'"


def test_several_questions(kernel):
    cell = kernel.execute("[input(k) for k in range(3)]", allow_stdin=True)
    for k in range(3):
        assert kernel.question()["content"]["prompt"] == str(k)
        kernel.client.input("x" * k)
    assert kernel.answer(cell).result == "['', 'x', 'xx']"


@pytest.mark.parametrize("call", ["input()", "__import__('getpass').getpass()"])
def test_refused_where_the_front_end_cannot_answer(kernel, call):
    answer = kernel.run(call, allow_stdin=False)
    assert answer.content["ename"] == "StdinNotImplementedError"
    assert "does not support input" in answer.content["evalue"]


def test_sys_stdin(kernel):
    cell = kernel.execute("import sys\nsys.stdin.readline()", allow_stdin=True)
    kernel.question()
    kernel.client.input("a line")
    assert kernel.answer(cell).result == r"'a line\n'"


def test_end_of_file(kernel):
    cell = kernel.execute("input()", allow_stdin=True)
    kernel.question()
    kernel.client.input("\x04")
    assert kernel.answer(cell).content["ename"] == "EOFError"


def test_interrupted(kernel):
    cell = kernel.execute("kept = 1\ninput()", allow_stdin=True)
    kernel.question()
    kernel.interrupt()
    answer = kernel.answer(cell)
    assert answer.content["ename"] == "KeyboardInterrupt"
    assert len(answer.of("error")) == 1
    assert kernel.run("kept").result == "1"


def test_interrupted_in_the_moment_of_the_question(kernel):
    """The guest is on its way from asking to waiting, where it cannot take the interrupt yet."""
    for _ in range(40):
        cell = kernel.execute("input()", allow_stdin=True)
        kernel.question()
        kernel.interrupt()
        assert kernel.answer(cell).content["ename"] == "KeyboardInterrupt"


def test_answer_that_comes_too_late_answers_nothing(kernel):
    cell = kernel.execute("input('first')", allow_stdin=True)
    kernel.question()
    kernel.interrupt()
    kernel.answer(cell)
    kernel.client.input("too late")
    cell = kernel.execute("input('second')", allow_stdin=True)
    assert kernel.question()["content"]["prompt"] == "second"
    kernel.client.input("in time")
    assert kernel.answer(cell).result == "'in time'"


def test_question_after_a_caught_interrupt(kernel):
    code = "try: input('first')\nexcept KeyboardInterrupt: print('caught')\ninput('second')"
    cell = kernel.execute(code, allow_stdin=True)
    kernel.question()
    kernel.interrupt()
    kernel.until_text(cell, "caught")
    assert kernel.question()["content"]["prompt"] == "second"
    kernel.client.input("answer")
    assert kernel.answer(cell).result == "'answer'"


def test_debugger(kernel):
    cell = kernel.execute("x = 41\nimport pdb\npdb.set_trace()\nx + 1", allow_stdin=True)
    for said in ("p x + 100", "c"):
        assert "db" in kernel.question()["content"]["prompt"]
        kernel.client.input(said)
    answer = kernel.answer(cell)
    assert "141" in answer.text()
    assert answer.result == "42"


def test_debugger_is_interrupted(kernel):
    cell = kernel.execute("import pdb\npdb.set_trace()\nx = 1", allow_stdin=True)
    kernel.question()
    kernel.interrupt()
    assert "KeyboardInterrupt" in str(kernel.answer(cell))  # no second question
    assert kernel.run("2").result == "2"


def test_post_mortem(kernel):
    kernel.run("def fail(y):\n    return y / 0")
    kernel.run("fail(17)")
    cell = kernel.execute("%debug", allow_stdin=True)
    for said in ("p y", "q"):
        kernel.question()
        kernel.client.input(said)
    assert "17" in kernel.answer(cell).text()
