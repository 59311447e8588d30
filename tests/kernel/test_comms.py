"""Comms: messages between code in the guest and code in the front end, both ways, with buffers.

With `frontend = trusted`, as these comms are of no known kind; for widgets see test_widgets.py.
"""

from __future__ import annotations

import uuid

import pytest

ECHO = """\
from comm import get_comm_manager
log = []
def opened(comm, message):
    global latest
    latest = comm
    def answer(message):
        log.append(("msg", message["content"]["data"]))
        print("got", message["content"]["data"])
        data = {"echo": message["content"]["data"], "was": message["metadata"]}
        buffers = [bytes(b)[::-1] for b in message["buffers"]]
        comm.send(data, metadata={"m": 1}, buffers=buffers)
    comm.on_msg(answer)
    comm.on_close(lambda message: log.append(("close", message["content"]["data"])))
    buffers = [bytes(b)[::-1] for b in message["buffers"]]
    comm.send({"hello": message["content"]["data"]}, buffers=buffers)
get_comm_manager().register_target("echo", opened)
"""


@pytest.fixture(scope="module")
def options():
    return ["--frontend", "trusted"]


@pytest.fixture
def echo(kernel):
    """Opens a comm that answers; gives its id and what the opening brought."""
    kernel.run(ECHO)
    comm_id = uuid.uuid4().hex
    content = {"comm_id": comm_id, "target_name": "echo", "data": {"a": 1}}
    published = kernel.published(kernel.send("comm_open", content, buffers=[b"abc", b""]))
    yield comm_id, published
    kernel.run("if latest is not None: latest.close()\nlatest = None")


def _shown(published, kind):
    return [m for m in published if m["msg_type"] == kind]


def _states(published):
    return [m["content"].get("execution_state") for m in (published[0], published[-1])]


def test_front_end_opens(kernel, echo):
    comm_id, published = echo
    assert _states(published) == ["busy", "idle"]
    (answer,) = _shown(published, "comm_msg")
    assert answer["content"] == {"comm_id": comm_id, "data": {"hello": {"a": 1}}}
    assert [bytes(b) for b in answer["buffers"]] == [b"cba", b""]


def test_front_end_sends(kernel, echo):
    comm_id, _ = echo
    big = bytes(range(256)) * 4096
    msg_id = kernel.send(
        "comm_msg", {"comm_id": comm_id, "data": {"n": [1, "\N{SNOWMAN}"]}},
        buffers=[b"123", big], metadata={"k": "v"},
    )  # fmt: skip
    published = kernel.published(msg_id)
    assert _states(published) == ["busy", "idle"]
    assert {m["parent_header"]["msg_id"] for m in published} == {msg_id}
    (printed,) = _shown(published, "stream")
    assert printed["content"]["text"] == "got {'n': [1, '\N{SNOWMAN}']}\n"
    (answer,) = _shown(published, "comm_msg")
    assert answer["content"]["data"] == {"echo": {"n": [1, "\N{SNOWMAN}"]}, "was": {"k": "v"}}
    assert answer["metadata"] == {"m": 1}
    assert [bytes(b) for b in answer["buffers"]] == [b"321", big[::-1]]


def test_comm_info(kernel, echo):
    comm_id, _ = echo
    assert kernel.ask("comm_info_request")["comms"][comm_id] == {"target_name": "echo"}
    assert comm_id in kernel.ask("comm_info_request", {"target_name": "echo"})["comms"]
    said = kernel.ask("comm_info_request", {"target_name": "another"})
    assert said == {"status": "ok", "comms": {}}


def test_front_end_closes(kernel, echo):
    comm_id, _ = echo
    published = kernel.published(
        kernel.send("comm_close", {"comm_id": comm_id, "data": {"bye": 1}})
    )
    assert _states(published) == ["busy", "idle"]
    assert kernel.run("log[-1]").result == "('close', {'bye': 1})"
    assert comm_id not in kernel.ask("comm_info_request")["comms"]


def test_guest_opens_sends_and_closes(kernel):
    answer = kernel.run(
        "from comm import create_comm\n"
        "own = create_comm(\n"
        "    target_name='front', data={'d': 1}, metadata={'m': 2}, buffers=[b'xyz'])\n"
        "print('between')\nown.send({'d': 2})\nown.close({'d': 3})"
    )
    assert answer.kinds == [
        "busy", "execute_input", "comm_open", "stream", "comm_msg", "comm_close", "idle",
    ]  # fmt: skip
    (opened,) = _shown(answer.published, "comm_open")
    assert opened["content"]["target_name"] == "front"
    assert opened["content"]["data"] == {"d": 1}
    assert opened["metadata"] == {"m": 2}
    assert [bytes(b) for b in opened["buffers"]] == [b"xyz"]
    assert answer.of("comm_msg")[0]["data"] == {"d": 2}
    assert answer.of("comm_close")[0]["data"] == {"d": 3}
    ids = {m["content"]["comm_id"] for m in answer.published if m["msg_type"].startswith("comm")}
    assert len(ids) == 1


def test_front_end_answers_a_comm_of_the_guest(kernel):
    kernel.run(
        "from comm import create_comm\nheard = []\n"
        "own = create_comm(target_name='front')\n"
        "own.on_msg(lambda message: heard.append(message['content']['data']))"
    )
    comm_id = kernel.run("own.comm_id").result.strip("'")
    kernel.published(kernel.send("comm_msg", {"comm_id": comm_id, "data": {"x": 5}}))
    assert kernel.run("heard").result == "[{'x': 5}]"
    kernel.run("own.close()")


def test_unknown_target_is_closed(kernel):
    comm_id = uuid.uuid4().hex
    content = {"comm_id": comm_id, "target_name": "no such target", "data": {}}
    published = kernel.published(kernel.send("comm_open", content))
    (closed,) = _shown(published, "comm_close")
    assert closed["content"]["comm_id"] == comm_id
    assert kernel.ask("comm_info_request")["comms"].get(comm_id) is None


def test_failing_callback_harms_nothing(kernel, echo):
    comm_id, _ = echo
    kernel.run("latest.on_msg(lambda message: 1/0)")
    published = kernel.published(kernel.send("comm_msg", {"comm_id": comm_id, "data": {}}))
    assert "ZeroDivisionError" in "".join(m["content"]["text"] for m in _shown(published, "stream"))
    assert kernel.run("1").result == "1"


def test_message_for_an_unknown_comm_is_passed_over(kernel):
    published = kernel.published(kernel.send("comm_msg", {"comm_id": "no such", "data": {}}))
    assert _states(published) == ["busy", "idle"]
    assert kernel.run("1").result == "1"


def test_comm_message_waits_for_the_cell(kernel, echo):
    """The guest has one thread: what comes while a cell runs is delivered after it."""
    comm_id, _ = echo
    kernel.run("log.clear()")
    cell = kernel.execute("input()\nseen = list(log)", allow_stdin=True)
    kernel.question()
    kernel.send("comm_msg", {"comm_id": comm_id, "data": {"late": 1}})
    kernel.client.input("")
    assert kernel.answer(cell).content["status"] == "ok"
    assert kernel.run("seen, log").result == "([], [('msg', {'late': 1})])"


def test_a_question_in_a_comm_handler_ends_at_once(kernel):
    """Nobody is there to be asked; the next cell must not wait for it."""
    kernel.run(
        "import comm\nsaid = []\n"
        "def target(c, message):\n"
        "    @c.on_msg\n"
        "    def answer(m):\n"
        "        try: input('?')\n"
        "        except Exception as e: said.append(type(e).__name__)\n"
        "comm.get_comm_manager().register_target('asks', target)"
    )
    kernel.send("comm_open", {"comm_id": "asks", "target_name": "asks", "data": {}})
    kernel.send("comm_msg", {"comm_id": "asks", "data": {}})
    assert kernel.run("said").result == "['StdinNotImplementedError']"
