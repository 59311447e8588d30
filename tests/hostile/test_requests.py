"""No request of a front end takes the session down, whatever the guest has laid in its way.

The cases are data (cases/requests.toml); here is what asks.
"""

from __future__ import annotations

GROUPS = ("requests",)

STRANGE = (
    "", "\0", "\ud800", "(" * 5000, "x." * 100, "\n" * 10_000, "'" * 9_999, "%" * 1000,
    "\x1b[2J", "get_ipython().", "{}.", "import " * 1000, "\N{GRINNING FACE}" * 1000,
    "lambda: " * 100,
)  # fmt: skip


def until_replied(stage, msg_id):
    """Interrupts until there is a reply."""
    for _ in range(20):
        if stage.replied(msg_id, 1.2):
            return
        stage.interrupt()


def lookup(stage, kind, content):
    """Asks, and waits for the answer."""
    sent = stage.ask(kind, content)
    until_replied(stage, sent)
    stage.recorder.until_idle(sent)


def lay(stage, case):
    for cell in case.cells:
        assert stage.run(cell).ename == "ok"


def completed(stage, case):
    lay(stage, case)
    lookup(stage, "complete_request", {"code": "t.", "cursor_pos": 2})
    return stage.run("6 * 7")


def inspected(stage, case):
    lay(stage, case)
    lookup(stage, "inspect_request", {"code": "t", "cursor_pos": 1, "detail_level": 1})
    return stage.run("6 * 7")


def strange_lookups(stage, case):
    for code in STRANGE:
        for kind in ("complete_request", "inspect_request", "is_complete_request"):
            lookup(stage, kind, {"code": code, "cursor_pos": len(code), "detail_level": 0})
    for position in (-1, -(10**18), 10**18):
        for kind in ("complete_request", "inspect_request"):
            lookup(stage, kind, {"code": "pri", "cursor_pos": position, "detail_level": 0})
    return stage.run("6 * 7")


def user_expression(stage, case):
    lay(stage, case)
    sent = stage.execute("1", user_expressions={"a": "t", "b": "1 / 0"})
    until_replied(stage, sent)
    return stage.answer(sent)


OPEN = """
from comm import create_comm
c = create_comm(target_name="t", comm_id="hostile")
c.on_msg(handle)
"""


def comm_message(stage, case):
    """What a message to a handler shows is taken for the next cell's."""
    lay(stage, case)
    assert stage.run(OPEN).ename == "ok"
    sent = stage.ask("comm_msg", {"comm_id": "hostile", "data": {}})
    done = stage.execute("6 * 7")
    until_replied(stage, done)
    answer = stage.answer(done)
    shown = [m for m in stage.recorder.until_idle(sent) if m["msg_type"] != "status"]
    answer.published[1:1] = shown
    return answer


def strange_comms(stage, case):
    assert stage.run(f"def handle(message): pass\n{OPEN}").ename == "ok"
    values = (None, True, -1, "x" * 1000, [], [[]], {}, {"a": None}, {"\ud800": "\ud800"})
    for kind in ("comm_open", "comm_msg", "comm_close"):
        for value in values:
            for key in ("comm_id", "target_name", "data", "target_module"):
                content = {"comm_id": "other", "target_name": "t", "data": {}} | {key: value}
                stage.recorder.until_idle(stage.ask(kind, content, [b"x"] * 3))
    deep = {}
    for _ in range(500):
        deep = {"a": deep}
    stage.recorder.until_idle(stage.ask("comm_msg", {"comm_id": "hostile", "data": deep}))
    return stage.run("6 * 7")


def silent_cell(stage, case):
    lay(stage, case)
    answer = stage.run("os._exit(3)", silent=True, store_history=False)
    assert (answer.ename, answer.kinds) == ("GuestExited", ["busy", "idle"])
    return stage.run("6 * 7")


def giant_cell(stage, case):
    return stage.run("x = '" + "x" * (10 << 20) + "'\n" + "1\n" * 1000 + "del x")


def strange_cells(stage, case):
    others = ("x = 1\r\ry = 2", "\ufeffx = 1", "\u2028x", "%%x\0")
    for code in (*STRANGE, *map(chr, range(32)), *others):
        stage.run(code, stop_on_error=False)
    return stage.run("6 * 7")


def giant_answer(stage, case):
    sent = stage.execute("len(input())", allow_stdin=True)
    stage.client.get_stdin_msg(timeout=30)
    stage.client.input("x" * (10 << 20))
    answer = stage.answer(sent)
    assert answer.result == str(10 << 20)
    return answer


def giant_results(stage, case):
    for _ in range(3):
        answer = stage.run("'x' * (5 << 20)")
    return answer


_ACTS = (
    completed, inspected, strange_lookups, user_expression, comm_message, strange_comms,
    silent_cell, giant_cell, strange_cells, giant_answer, giant_results,
)  # fmt: skip
ACTS = {act.__name__: act for act in _ACTS}


def test_case(hostile, case):
    hostile.check(case, ACTS)
