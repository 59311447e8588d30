"""Every request of Jupyter's protocol is answered as the protocol and ipykernel say.

What is published, in which order and with which parent; execution counts; queues; payloads; what
the kernel says of itself; and what is refused.
"""

from __future__ import annotations

import itertools
from datetime import datetime

import pytest

import wasi_kernel
from wasi_kernel.frontend import MARK

# -- execute: order and parents --------------------------------------------------------------


def test_order(kernel):
    code = "import sys\nprint('a')\nprint('b', file=sys.stderr)\ndisplay(1)\n2"
    answer = kernel.run(code)
    assert answer.kinds == [
        "busy", "execute_input", "stream", "stream", "display_data", "execute_result", "idle",
    ]  # fmt: skip
    assert {m["parent_header"]["msg_type"] for m in answer.published} == {"execute_request"}
    assert {m["parent_header"]["session"] for m in answer.published} == {
        kernel.client.session.session
    }
    assert answer.reply["msg_type"] == "execute_reply"


def test_reply_comes_after_all_output_and_before_idle(kernel):
    answer = kernel.run("for k in range(300):\n    print(k)\n    display(k)")
    *outputs, idle = answer.published
    assert len(outputs) > 300
    said = [m["header"]["date"] for m in outputs]
    assert said == sorted(said)
    assert said[-1] <= answer.reply["header"]["date"] <= idle["header"]["date"]


def test_error_is_published_once_before_the_reply(kernel):
    answer = kernel.run("x = 1\n1/0")
    assert answer.kinds == ["busy", "execute_input", "error", "idle"]
    (error,) = answer.of("error")
    assert error["ename"] == "ZeroDivisionError"
    assert error["evalue"] == "division by zero"
    assert any("\x1b[" in line and "1" in line for line in error["traceback"])
    assert {k: answer.content[k] for k in error} == error
    assert answer.content["status"] == "error"


@pytest.mark.parametrize(
    ("code", "ename"),
    [("1 +", "SyntaxError"), (" x\ny", "IndentationError"), ("%no_such_magic", "UsageError")],
)
def test_error_before_the_code_runs(kernel, code, ename):
    answer = kernel.run(code)
    assert answer.content["status"] == "error"
    assert answer.content["ename"] == ename


def test_many_requests_are_answered_in_order(kernel):
    kernel.run("n = 0")
    sent = [kernel.execute("n += 1\nn") for _ in range(100)]
    answers = [kernel.answer(msg_id) for msg_id in sent]
    assert [a.result for a in answers] == [str(k) for k in range(1, 101)]
    counts = [a.content["execution_count"] for a in answers]
    assert counts == list(range(counts[0], counts[0] + 100))
    ends = [m["header"]["date"] for a in answers for m in a.published]
    assert ends == sorted(ends)


def test_nothing_is_published_after_idle(kernel):
    first = kernel.run("print('x' * 100_000)")
    known = len(first.published)
    kernel.run("pass")
    assert len(first.published) == known


# -- execute: options ------------------------------------------------------------------------


def test_execution_count_grows_by_one(kernel):
    counts = []
    for code in ("1", "x = 1", "1/0", "1 +"):
        answer = kernel.run(code)
        (shown,) = answer.of("execute_input")
        assert shown == {"code": code, "execution_count": answer.content["execution_count"]}
        counts.append(answer.content["execution_count"])
    assert [b - a for a, b in itertools.pairwise(counts)] == [1, 1, 1]
    answer = kernel.run("7")
    (result,) = answer.of("execute_result")
    assert result["execution_count"] == answer.content["execution_count"]
    assert kernel.run(f"Out[{answer.content['execution_count']}], _").result == "(7, 7)"
    assert kernel.run("In[-1]").result == repr("In[-1]")


def test_silent(kernel):
    before = kernel.run("kept = 1").content["execution_count"]
    answer = kernel.run("kept += 1\nkept", silent=True)
    assert answer.kinds == ["busy", "idle"]
    assert answer.content["status"] == "ok"
    assert answer.content["execution_count"] == before
    after = kernel.run("kept")
    assert after.content["execution_count"] == before + 1
    assert after.result == "2"
    tail = kernel.ask(
        "history_request", {"hist_access_type": "tail", "output": False, "raw": True, "n": 2}
    )
    assert [row[2] for row in tail["history"]] == ["kept = 1", "kept"]


def test_silent_error_is_in_the_reply_and_aborts_nothing(kernel):
    first = kernel.execute("1/0", silent=True)
    second = kernel.execute("5")
    answer = kernel.answer(first)
    assert (answer.content["status"], answer.content["ename"]) == ("error", "ZeroDivisionError")
    assert "execute_input" not in answer.kinds
    assert kernel.answer(second).result == "5"


def test_empty_silent_request_asks_for_the_count(kernel):
    count = kernel.run("1").content["execution_count"]
    assert kernel.run("", silent=True).content["execution_count"] == count


def test_store_history_false(kernel):
    before = kernel.run("1").content["execution_count"]
    answer = kernel.run("'not stored'", store_history=False)
    assert answer.result == "'not stored'"
    assert answer.content["execution_count"] == before
    assert kernel.run("1").content["execution_count"] == before + 1
    found = kernel.ask(
        "history_request",
        {"hist_access_type": "search", "output": False, "raw": True, "pattern": "'not stored*"},
    )
    assert found["history"] == []


def test_user_expressions(kernel):
    answer = kernel.run(
        "x = 1", user_expressions={"sum": "x + 1", "bad": "no_such_name", "worse": "x +"}
    )
    said = answer.content["user_expressions"]
    assert answer.content["status"] == "ok"
    assert said["sum"] == {"status": "ok", "data": {"text/plain": "2"}, "metadata": {}}
    assert (said["bad"]["status"], said["bad"]["ename"]) == ("error", "NameError")
    assert "no_such_name" in said["bad"]["evalue"]
    assert said["bad"]["traceback"]
    assert said["worse"]["ename"] == "SyntaxError"
    assert answer.kinds == ["busy", "execute_input", "idle"]


def test_user_expressions_are_evaluated_in_silence_too(kernel):
    answer = kernel.run("y = 5", silent=True, user_expressions={"y": "y"})
    assert answer.content["user_expressions"]["y"]["data"] == {"text/plain": "5"}


def test_user_expressions_are_not_evaluated_after_an_error(kernel):
    answer = kernel.run("1/0", user_expressions={"x": "1"})
    assert not answer.content.get("user_expressions")


def test_reply_says_when_the_cell_began(kernel):
    """JupyterLab's timing of cells needs it."""
    answer = kernel.run("1")
    started = datetime.fromisoformat(answer.reply["metadata"]["started"])
    assert answer.published[0]["header"]["date"] <= started <= answer.reply["header"]["date"]


# -- the queue -------------------------------------------------------------------------------


def _queue(kernel, failing, **options):
    """Cells in the queue behind one that fails; it waits for input until all are sent."""
    first = kernel.execute(f"input()\n{failing}", allow_stdin=True, **options)
    kernel.question()
    behind = [kernel.execute(f"ran_{k} = {k}\n{k}") for k in range(4)]
    others = [kernel.send("kernel_info_request"), kernel.send("comm_info_request")]
    kernel.client.input("go on")
    return first, behind, others


def test_error_aborts_the_queue(kernel):
    first, behind, others = _queue(kernel, "raise ValueError('stop')")
    assert kernel.answer(first).content["ename"] == "ValueError"
    answers = [kernel.answer(msg_id) for msg_id in behind]
    assert [a.content["status"] for a in answers] == ["aborted"] * 4
    assert [a.kinds for a in answers] == [["busy", "idle"]] * 4
    assert [kernel.answer(msg_id).content["status"] for msg_id in others] == ["ok", "ok"]
    assert kernel.run("'alive'").result == "'alive'"
    assert kernel.run("[n for n in dir() if n.startswith('ran_')]").result == "[]"


def test_what_is_sent_after_the_error_is_not_aborted(kernel):
    for _ in range(20):
        assert kernel.run("1/0").content["status"] == "error"
        assert kernel.run("1").content["status"] == "ok"


def test_error_does_not_abort_the_queue_without_stop_on_error(kernel):
    first, behind, _ = _queue(kernel, "raise ValueError('go on')", stop_on_error=False)
    assert kernel.answer(first).content["status"] == "error"
    assert [kernel.answer(msg_id).result for msg_id in behind] == ["0", "1", "2", "3"]
    kernel.run("del ran_0, ran_1, ran_2, ran_3")


def test_interrupt_aborts_the_queue(kernel):
    first = kernel.execute("print('on')\nwhile True: pass")
    behind = [kernel.execute(f"{k}") for k in range(3)]
    kernel.until_text(first, "on")
    kernel.interrupt()
    assert kernel.answer(first).content["ename"] == "KeyboardInterrupt"
    assert [kernel.answer(m).content["status"] for m in behind] == ["aborted"] * 3


# -- payloads --------------------------------------------------------------------------------


def test_page_payload(kernel):
    answer = kernel.run("len?")
    (payload,) = answer.content["payload"]
    assert payload["source"] == "page"
    assert payload["start"] == 0
    assert "number of items" in payload["data"]["text/plain"]
    assert kernel.run("1").content["payload"] == []


def test_set_next_input_payload(kernel):
    answer = kernel.run("for k in range(3): get_ipython().set_next_input(f'x = {k}')")
    assert answer.content["payload"] == [
        {"source": "set_next_input", "text": MARK + "x = 2", "replace": False}
    ]
    answer = kernel.run("get_ipython().set_next_input('y', replace=True)")
    assert answer.content["payload"][0]["replace"] is True


def test_load_puts_a_file_into_the_cell(kernel):
    (payload,) = kernel.run("%load numbers.csv").content["payload"]
    assert payload["source"] == "set_next_input"
    assert "a,b\n1,2\n3,4\n" in payload["text"]


# -- the kernel itself -----------------------------------------------------------------------


def test_kernel_info(kernel):
    version = kernel.run("import sys; print(sys.version.split()[0])").text().strip()
    said = kernel.ask("kernel_info_request")
    assert said["status"] == "ok"
    assert said["protocol_version"] == "5.5"
    assert said["implementation"] == "wasi-kernel"
    assert said["implementation_version"] == wasi_kernel.__version__
    assert said["supported_features"] == []
    assert version in said["banner"]
    assert all(set(link) == {"text", "url"} for link in said["help_links"])
    language = said["language_info"]
    assert (language["name"], language["version"]) == ("python", version)
    assert language["mimetype"] == "text/x-python"
    assert language["file_extension"] == ".py"
    assert language["codemirror_mode"] == {"name": "ipython", "version": 3}
    assert (language["pygments_lexer"], language["nbconvert_exporter"]) == ("ipython3", "python")


def test_kernel_info_is_answered_on_control_while_a_cell_runs(kernel):
    cell = kernel.execute("print('on')\nwhile True: pass")
    kernel.until_text(cell, "on")
    assert kernel.ask("kernel_info_request", channel="control")["status"] == "ok"
    kernel.interrupt()
    assert kernel.answer(cell).content["ename"] == "KeyboardInterrupt"


def test_connect_request(kernel):
    said = kernel.ask("connect_request")
    known = kernel.manager.get_connection_info()
    assert {k: v for k, v in said.items() if k.endswith("_port")} == {
        k: v for k, v in known.items() if k.endswith("_port")
    }


@pytest.mark.parametrize("kind", ["create", "delete", "list"])
def test_subshells_are_refused(kernel, kind):
    content = {"subshell_id": "1"} if kind == "delete" else {}
    msg_id = kernel.send(f"{kind}_subshell_request", content, channel="control")
    answer = kernel.answer(msg_id, "control")
    assert answer.reply["msg_type"] == f"{kind}_subshell_reply"
    assert answer.content["status"] == "error"
    assert answer.content["ename"]
    assert answer.content["evalue"]
    assert answer.content["traceback"] == []
    assert answer.kinds == ["busy", "idle"]


def test_request_to_a_subshell_is_refused(kernel):
    msg_id = kernel.send("execute_request", {"code": "1"}, subshell_id="no-such-subshell")
    answer = kernel.answer(msg_id)
    assert answer.content["status"] == "error"
    assert answer.kinds == ["busy", "idle"]
    assert kernel.run("1").result == "1"


def test_debugging_is_refused(kernel):
    msg_id = kernel.send(
        "debug_request",
        {"type": "request", "seq": 5, "command": "initialize", "arguments": {}},
        channel="control",
    )
    answer = kernel.answer(msg_id, "control")
    assert answer.reply["msg_type"] == "debug_reply"
    assert answer.content["type"] == "response"
    assert (answer.content["success"], answer.content["request_seq"]) == (False, 5)
    assert answer.content["command"] == "initialize"
    assert answer.content["message"]


def test_code_that_is_no_text_costs_itself_only(start_kernel):
    """Nobody's front end sends that; the history of the others is written all the same."""
    kernel = start_kernel()
    kernel.run("a = 1")
    odd, after = kernel.execute(5, stop_on_error=False), kernel.execute("'after'")
    assert kernel.answer(odd).content["status"] == "error"
    assert kernel.answer(after).content["status"] == "ok"
    said = kernel.ask(
        "history_request", {"hist_access_type": "tail", "n": 2, "output": True, "raw": True}
    )
    assert [row[2] for row in said["history"]] == [["a = 1", None], ["'after'", "'after'"]]


def test_unknown_request_is_passed_over(kernel):
    msg_id = kernel.send("no_such_request")
    kernel.published(msg_id)
    assert kernel.run("1").result == "1"


# -- await -----------------------------------------------------------------------------------


def test_top_level_await(kernel):
    code = (
        "import asyncio\n"
        "async def double(x):\n"
        "    await asyncio.sleep(0.01)\n"
        "    print('doubled', x)\n"
        "    return x + x\n"
        "await asyncio.gather(double(1), double('a'))"
    )
    answer = kernel.run(code)
    assert answer.result == "[2, 'aa']"
    assert answer.text() == "doubled 1\ndoubled a\n"
    answer = kernel.run("await asyncio.wait_for(asyncio.sleep(60), 0.01)")
    assert answer.content["ename"] == "TimeoutError"
    code = "async for x in double.no_such:\n    pass"
    assert kernel.run(code).content["ename"] == "AttributeError"


def test_task_goes_on_while_later_cells_wait(kernel):
    kernel.run(
        "import asyncio\ndone = []\n"
        "async def work():\n    await asyncio.sleep(0)\n    done.append(1)\n"
        "task = asyncio.create_task(work())"
    )
    assert kernel.run("await task\ndone").result == "[1]"
