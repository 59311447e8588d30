"""Shows that whatever is asked about checkpoints gets an answer, and leaves nothing undue behind.

The guest asks through its door, so its requests come here the same way: as a frame's bytes.
"""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wasi_kernel import frames
from wasi_kernel.errors import InstallationError, UnknownCheckpointError
from wasi_kernel.pagelog import PageLog
from wasi_kernel.worker.travel import Travel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from wasi_kernel.frames import Frame

OPERATIONS = ("list", "undo", "redo", "restore", "name", "unname", "look", "save", "fork")
VARIABLES = {"variables": {"x": {"type": "int"}}}


def seven(folder: Path) -> PageLog:
    """1 start, cells [1] to [4] as 2 to 5, of which the last was undone; cell [1] has a name."""
    log = PageLog(folder, "77" * 32)
    log.append(9, [], {"kind": "start", "cell": 0})
    for cell in (1, 2, 3, 4):
        log.append(9, [], {"kind": "cell", "cell": cell, "line": f"x = {cell}"})
    log.name("one", 2)
    log.move(4)
    return log


class Asked:
    """A Travel with a log of a few cells.

    Attributes:
        looked: The checkpoints that were looked at.
    """

    def __init__(self, log: PageLog | None, problem: str = "") -> None:
        self.log = log
        self.looked: list[int] = []
        self.travel = Travel(log, self._look, problem, may_fork=True)

    def _look(self, ident: int) -> dict[str, Any]:
        self.looked.append(ident)
        return VARIABLES

    def noted(self) -> tuple[Any, ...]:
        travel = self.travel
        return travel.target, (travel.names or [None])[-1], travel.save, travel.fork

    def ask(self, op: Any, **content: Any) -> dict[str, Any]:
        """The answer, which is what any answer must be."""
        said = self.travel.answer({"op": op, **content})
        assert said["status"] in ("ok", "error")
        if said["status"] == "error":
            assert isinstance(said["evalue"], str)
            assert said.keys() == {"status", "evalue"}
        assert json.loads(json.dumps(said)) == said
        return said

    def refused(self, op: Any, **content: Any) -> str:
        """The error; nothing is noted for the end of the cell, and the log is as it was."""
        self.travel.reset()
        assert self.log is not None
        before = self.log.head, dict(self.log.names), self.log.size
        said = self.ask(op, **content)
        assert said["status"] == "error"
        assert self.noted() == (None, None, None, None)
        assert (self.log.head, dict(self.log.names), self.log.size) == before
        return said["evalue"]


@pytest.fixture
def asked(tmp_path: Path) -> Iterator[Asked]:
    log = seven(tmp_path)
    yield Asked(log)
    log.close()


NOTHING = (None, None, None, None)


# -- what may be asked ---------------------------------------------------------------------------


def test_looking_is_answered_at_once_and_notes_nothing(asked: Asked):
    said = asked.ask("list")
    assert [row["id"] for row in said["rows"]] == [1, 2, 3, 4, 5]
    assert said["bytes"] == asked.log.size
    for wanted, ident in (("", 4), ("one", 2), ("4", 5), ("[2]", 3)):
        said = asked.ask("look", to=wanted)
        assert said["id"] == asked.looked.pop() == ident
        assert said["variables"] == VARIABLES["variables"]
    assert asked.noted() == NOTHING
    assert asked.log.head == 4


@pytest.mark.parametrize(
    ("op", "content", "target", "undone"),
    [
        ("undo", {}, 3, [3]),
        ("undo", {"cells": 1}, 3, [3]),
        ("undo", {"cells": 3}, 1, [1, 2, 3]),
        ("redo", {}, 5, []),
        ("redo", {"cells": 1}, 5, []),
        ("restore", {"to": "one"}, 2, [2, 3]),
        ("restore", {"to": "4"}, 5, []),
        ("restore", {"to": "3"}, 4, []),
    ],
)
def test_going_somewhere_is_noted_and_done_later(
    asked: Asked, op: str, content: dict, target: int, undone: list[int]
):
    said = asked.ask(op, **content)
    assert (said["status"], said["id"], said["undone"]) == ("ok", target, undone)
    assert asked.noted() == (target, None, None, None)
    assert asked.log.head == 4


def test_names_and_paths_are_noted(asked: Asked):
    assert asked.ask("name", name="a b") == {"status": "ok"}
    assert asked.ask("save", path="/work/é.session") == {"status": "ok"}
    assert asked.ask("fork", name="other") == {"status": "ok"}
    assert asked.noted() == (None, "a b", "/work/é.session", "other")
    assert asked.log.names == {"one": 2}
    asked.travel.reset()
    assert asked.noted() == NOTHING


def test_a_name_is_taken_away_at_once(asked: Asked):
    assert asked.ask("unname", name="one") == {"status": "ok"}
    assert asked.log.names == {}
    assert "no checkpoint is named 'one'" in asked.refused("unname", name="one")


def test_the_last_place_that_was_asked_for_counts(asked: Asked):
    asked.ask("undo", cells=2)
    asked.ask("restore", to="one")
    assert asked.noted() == (2, None, None, None)


# -- what may not --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "cells",
    [0, -1, -(10**4000), True, False, None, "1", 1.0, 1.5, float("nan"), [], [1], {}, "9" * 5000,
     [[["x" * 1000]]]],
    ids=lambda value: repr(value)[:20],
)  # fmt: skip
@pytest.mark.parametrize("op", ["undo", "redo"])
def test_what_is_no_number_of_cells(asked: Asked, op: str, cells: Any):
    assert "is no number of cells" in asked.refused(op, cells=cells)


@pytest.mark.parametrize("cells", [4, 5, 2**31, 2**64, 10**4000])
@pytest.mark.parametrize("op", ["undo", "redo"])
def test_more_cells_than_there_are(asked: Asked, op: str, cells: int):
    assert "only" in asked.refused(op, cells=cells)


BAD_TEXTS = [
    None, 1, True, 1.5, [], ["one"], {}, {"one": 1}, "x" * 5000, "x" * 10**6, "9" * 5000,
    [[[["one"]]]],
]  # fmt: skip


@pytest.mark.parametrize("text", BAD_TEXTS, ids=lambda value: repr(value)[:20])
@pytest.mark.parametrize(
    ("op", "key"),
    [("restore", "to"), ("look", "to"), ("name", "name"), ("unname", "name"), ("fork", "name"),
     ("save", "path")],
)  # fmt: skip
def test_what_is_no_text(asked: Asked, op: str, key: str, text: Any):
    assert len(asked.refused(op, **{key: text})) < 1000
    assert asked.looked == []


@pytest.mark.parametrize("op", ["restore", "name", "unname", "fork", "save"])
def test_what_lacks_its_argument(asked: Asked, op: str):
    asked.refused(op)


@pytest.mark.parametrize("op", ["restore", "unname"])
@pytest.mark.parametrize("text", ["", "none", "9", "9" * 4096, "\0", "\ud800", "x" * 4096, "²"],
                         ids=ascii)  # fmt: skip
def test_what_is_not_there(asked: Asked, op: str, text: str):
    asked.refused(op, **{"to" if op == "restore" else "name": text})


@pytest.mark.parametrize("name", ["", "7", "-x", "[1]", "a\nb", "\ud800", "\x1b[0m", "x" * 101])
@pytest.mark.parametrize("op", ["name", "fork"])
def test_what_is_no_name_is_not_noted(asked: Asked, op: str, name: str):
    asked.refused(op, name=name)


@pytest.mark.parametrize(
    "op",
    ["", "take", "lists", "LIST", "_go", "answer", "reset", "__class__", None, 0, True, [], {},
     ["list"], {"list": 1}, "x" * 10**6, "\ud800", 1.5, [[["list"]]]],
    ids=lambda value: repr(value)[:20],
)  # fmt: skip
def test_what_is_no_request(asked: Asked, op: Any):
    assert len(asked.refused(op)) < 1000


def test_a_request_that_says_nothing(asked: Asked):
    assert asked.travel.answer({})["status"] == "error"
    assert asked.noted() == NOTHING


def test_what_was_noted_before_a_refusal_stays(asked: Asked):
    asked.ask("undo")
    assert asked.ask("undo", cells=100)["status"] == "error"
    assert asked.noted() == (3, None, None, None)


# -- where there is nothing ----------------------------------------------------------------------


@pytest.mark.parametrize("op", OPERATIONS)
def test_without_checkpoints_everything_is_refused(op: str):
    asked = Asked(None)
    said = asked.ask(op, cells=1, to="one", name="a", path="/x")
    assert said == {"status": "error", "evalue": "there are no checkpoints here"}
    assert asked.noted() == NOTHING


@pytest.mark.parametrize("op", OPERATIONS)
def test_with_a_problem_everything_is_refused_with_it(tmp_path: Path, op: str):
    asked = Asked(seven(tmp_path), "the disk is full")
    assert asked.refused(op, cells=1, to="one", name="a", path="/x") == "the disk is full"
    asked.travel.problem = ""
    assert asked.ask("list")["status"] == "ok"
    asked.log.close()


@pytest.mark.parametrize("op", OPERATIONS)
@pytest.mark.parametrize("to", ["", "one"])
def test_an_empty_log_is_answered_for(tmp_path: Path, op: str, to: str):
    log = PageLog(tmp_path, "77" * 32)
    asked = Asked(log)
    said = asked.ask(op, to=to, name="a", path="/x")
    assert said["status"] == ("ok" if op in ("list", "name", "save", "fork") else "error")
    assert asked.travel.target is None
    log.close()


@pytest.mark.parametrize("error", [UnknownCheckpointError, InstallationError])
def test_a_state_that_cannot_be_looked_at(tmp_path: Path, error: type[Exception]):
    log = seven(tmp_path)

    def look(_ident: int) -> dict[str, Any]:
        raise error("it is gone")

    travel = Travel(log, look)
    assert travel.answer({"op": "look", "to": ""}) == {"status": "error", "evalue": "it is gone"}
    log.close()


@pytest.mark.parametrize("may_fork", [False, True])
def test_forks_are_for_sessions_that_may_have_them(tmp_path: Path, may_fork: bool):
    log = seven(tmp_path)
    travel = Travel(log, lambda _: {}, may_fork=may_fork)
    said = travel.answer({"op": "fork", "name": "other"})
    assert (said["status"] == "ok", travel.fork == "other") == (may_fork, may_fork)
    log.close()


# -- anything ------------------------------------------------------------------------------------

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text() | st.sampled_from(["one", "1", "4", "", "a"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
KEYS = st.sampled_from(["cells", "to", "name", "path", "x"])


@given(op=st.sampled_from(OPERATIONS) | VALUES, content=st.dictionaries(KEYS, VALUES, max_size=4))
@settings(max_examples=300, deadline=None)
def test_any_question_has_an_answer(tmp_path_factory: Any, op: Any, content: dict[str, Any]):
    log = seven(tmp_path_factory.mktemp("log"))
    asked = Asked(log)
    said = asked.ask(op, **content)
    target, name, save, fork = asked.noted()
    if said["status"] == "error":
        assert (target, name, save, fork) == NOTHING
    assert target is None or target in log
    assert log.head == 4
    assert {type(x) for x in (name, save, fork)} <= {str, type(None)}
    log.close()


# -- through the door ----------------------------------------------------------------------------


class Door:
    """A guest whose door leads to a Travel."""

    def __init__(self, probe: Any, asked: Asked) -> None:
        self.probe, self.asked = probe, asked
        probe.door.checkpoint = asked.travel.answer

    def ask(self, content: str) -> dict[str, Any] | int:
        """The reply to a request with this content, in JSON; the errno if it is refused."""
        text = f'{{"content":{content},"metadata":{{}}}}'.encode()
        head = struct.pack(
            "<IHHII", 12 + len(text), frames.INDEX["checkpoint_request"], 0, 7, len(text)
        )
        errno = self.probe.write(0, head + text)
        if errno:
            return errno
        errno, data = self.probe.read(0, 1 << 17)
        assert errno == 0
        frame: Frame = frames.decode(data)
        assert (frame.type, frame.request) == ("checkpoint_reply", 7)
        return frame.content


@pytest.fixture
def door(open_guest: Callable, wat: Callable, asked: Asked) -> Door:
    return Door(open_guest(wat(pages=32)), asked)


@pytest.mark.parametrize(
    "content",
    [
        '{"op":"undo","cells":1e999}', '{"op":"undo","cells":NaN}', '{"op":"undo","cells":-0}',
        '{"op":"undo","cells":' + "9" * 4300 + "}", '{"op":"undo","cells":-' + "9" * 4300 + "}",
        '{"op":"restore","to":"\\ud800"}', '{"op":"restore","to":"\\u0000"}',
        '{"op":"unname","name":"\\udfff\\ud800"}', '{"op":"fork","name":"\\ud83d"}',
        '{"op":"\\ud800"}', '{"op":' + "9" * 4301 + "}", '{"op":{"op":"list"}}', "{}",
        '{"op":"list","op":"nothing"}', '{"op":"look","to":"' + "x" * 100_000 + '"}',
    ],
    ids=lambda content: content[:30],
)  # fmt: skip
def test_odd_requests_are_answered_with_an_error(door: Door, content: str):
    said = door.ask(content)
    assert isinstance(said, dict)
    assert said["status"] == "error"
    assert door.asked.noted() == NOTHING


@pytest.mark.parametrize("content", ["[]", "7", '"list"', "null", ""])
def test_what_is_no_request_at_all_is_refused(door: Door, content: str):
    assert isinstance(door.ask(content), int)
    assert door.asked.noted() == NOTHING


@pytest.mark.parametrize(
    "before",
    ['"op":', '"op":"undo","cells":', '"op":"restore","to":', '"op":"name","name":',
     '"op":"save","path":'],
)  # fmt: skip
def test_nothing_is_nested_too_deeply(door: Door, before: str):
    """Refused or answered with an error: at no depth does anything but that happen."""
    answered = refused = 0
    for depth in (*range(1, 100, 20), *range(700, 1100), 20_000):
        said = door.ask(f"{{{before}{'[' * depth}{']' * depth}}}")
        if isinstance(said, dict):
            answered += 1
            assert said["status"] == "error"
        else:
            refused += 1
        assert door.asked.noted() == NOTHING
    assert answered > 5
    assert refused > 0


def test_a_session_goes_on_after_all_that(door: Door):
    door.ask('{"op":"undo","cells":[[]]}')
    assert door.ask('{"op":"undo"}')["id"] == 3
    assert door.asked.noted() == (3, None, None, None)
