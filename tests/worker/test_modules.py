"""Modules of cells: what is asked out of turn is refused, and what a turn leaves is ended."""

from __future__ import annotations

from typing import Any

import pytest

from wasi_kernel.worker.looks import Refusal
from wasi_kernel.worker.modules import LIVE, Modules

TEXT = """(module
  (import "python" "f" (func $f (result i32)))
  (memory (export "m") 1)
  (func (export "call") (result i32) (call $f))
  (func (export "forever") (loop (br 0))))"""


class Asking:
    """Asks as a guest does, until something is said."""

    def __init__(self) -> None:
        self.modules = Modules(LIVE << 20)
        self.ident = self.make(TEXT)

    def make(self, text: str) -> str:
        ident: str = self.modules.ops()["wat_make"]({"text": text}).content["ident"]
        assert self.until(ident, "wait")["event"] == "compiled"
        return ident

    def until(self, ident: str, command: str, **content: Any) -> dict[str, Any]:
        said = self.do(ident, command, **content)
        while said["event"] == "running":
            said = self.do(ident, "wait")
        return said

    def do(self, ident: str, command: str, **content: Any) -> dict[str, Any]:
        return self.modules.ops()["wat_do"]({"ident": ident, "command": command, **content}).content


@pytest.fixture
def asking():
    asking = Asking()
    assert asking.until(asking.ident, "instantiate")["event"] == "done"
    yield asking
    asking.modules.forget()


@pytest.mark.parametrize("command", ["wait", "answer", "fail", "end", "", "_main"])
def test_what_is_out_of_turn_is_refused(asking, command):
    with pytest.raises(Refusal):
        asking.do(asking.ident, command)


@pytest.mark.parametrize(
    ("command", "content"),
    [
        ("instantiate", {}), ("call", {}), ("call", {"export": "m"}), ("call", {"export": 7}),
        ("call", {"export": "call", "args": [1]}), ("call", {"export": "call", "args": "x"}),
        ("read", {"export": "m", "at": 1 << 16, "length": 1}),
        ("read", {"export": "m", "at": -1, "length": 1}),
        ("write", {"export": "m", "at": 65535, "data": "YWJj"}),
        ("write", {"export": "m", "at": 0, "data": "\N{SNOWMAN}"}),
        ("grow", {"export": "m", "pages": 60000}), ("get", {"export": "m"}),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_and_the_module_lives(asking, command, content):
    assert asking.until(asking.ident, command, **content)["event"] == "refused"
    assert asking.until(asking.ident, "size", export="m")["values"] == [65536]


@pytest.mark.parametrize("values", [None, [], [1, 2], ["x"], [1 << 40], [1.5], [True]])
def test_an_answer_that_is_no_number_ends_the_call(asking, values):
    said = asking.until(asking.ident, "call", export="call", args=[])
    assert said["event"] == "callback"
    said = asking.until(asking.ident, "answer", values=values)
    assert said["event"] in ("raised", "refused")
    assert asking.until(asking.ident, "size", export="m")["event"] == "done"


def test_a_stop_reaches_a_call_at_any_time(asking):
    for _ in range(20):
        said = asking.do(asking.ident, "call", export="forever", args=[])
        assert said["event"] == "running"
        asking.do(asking.ident, "stop")
        assert asking.until(asking.ident, "wait")["event"] == "stopped"
        assert asking.until(asking.ident, "size", export="m")["event"] == "done"


def test_what_is_at_work_at_the_end_of_a_turn_is_ended(asking):
    kept = asking.make("(module)")
    assert asking.do(asking.ident, "call", export="forever", args=[])["event"] == "running"
    with pytest.raises(Refusal, match="at work"):
        asking.do(asking.ident, "size", export="m")
    asking.modules.rest()
    assert asking.do(asking.ident, "size", export="m")["event"] == "gone"
    assert asking.until(kept, "instantiate")["event"] == "done"


def test_a_waiting_callback_is_ended_too(asking):
    assert asking.until(asking.ident, "call", export="call", args=[])["event"] == "callback"
    assert asking.until(asking.ident, "size", export="m")["values"] == [65536]
    asking.modules.rest()
    assert asking.do(asking.ident, "size", export="m")["event"] == "gone"


def test_other_names_and_states_mean_no_module(asking):
    assert asking.do("0" * 32, "size", export="m")["event"] == "gone"
    asking.modules.forget()
    assert asking.do(asking.ident, "size", export="m")["event"] == "gone"


def test_it_is_known_whether_a_module_lives(asking):
    live = asking.modules.ops()["wat_live"]
    assert live({"ident": asking.ident}).content == {"live": True}
    asking.modules.ops()["wat_drop"]({"ident": asking.ident})
    assert live({"ident": asking.ident}).content == {"live": False}
    for ident in (None, 7, "x" * 65):
        with pytest.raises(Refusal):
            live({"ident": ident})
