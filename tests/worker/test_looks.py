"""Questions of a guest about itself: answered by their kind, refused in words, never a crash."""

from __future__ import annotations

from typing import Any

import pytest

from wasi_kernel.frames import Frame
from wasi_kernel.worker import looks
from wasi_kernel.worker.looks import Looks, Refusal, Sight
from wasi_kernel.worker.memory import OutOfBoundsError


def ask(content: dict[str, Any], **ops: Any) -> Frame:
    return Looks(ops).answer(Frame("look_request", content, 7))


def test_an_answer_has_the_content_and_the_bytes():
    said = ask({"op": "twice", "n": 4}, twice=lambda c: Sight({"m": 2 * c["n"]}, (b"ab",)))
    assert said == Frame("look_reply", {"status": "ok", "m": 8}, 7, {}, (b"ab",))


@pytest.mark.parametrize("op", [None, 3, "", "other", ["twice"], {"twice": 1}, "x" * 10_000])
def test_another_question_is_refused(op: Any):
    said = ask({"op": op}, twice=lambda _content: Sight({}))
    assert said.content["status"] == "error"
    assert said.content["evalue"].startswith("there is no look ")
    assert said.content["evalue"].endswith("; there are twice")
    assert len(said.content["evalue"]) < 200


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (Refusal("not that"), "not that"),
        (OutOfBoundsError(), "that is outside of the guest's memory"),
    ],
)
def test_what_is_refused_is_said(error: Exception, words: str):
    def look(content: dict[str, Any]) -> Sight:
        raise error

    assert ask({"op": "look"}, look=look).content == {"status": "error", "evalue": words}


@pytest.mark.parametrize("value", [-1, 11, 1.0, True, None, "3", [3], 1 << 80])
def test_numbers_are_checked(value: Any):
    with pytest.raises(Refusal, match="not a number from 0 to 10"):
        looks.number({"n": value}, "n", most=10)
    assert looks.number({"n": 10}, "n", most=10) == 10
    assert looks.number({}, "n", most=10, default=3) == 3


@pytest.mark.parametrize("value", [None, 3, b"a", ["a"], "a" * 11])
def test_texts_are_checked(value: Any):
    with pytest.raises(Refusal):
        looks.text({"t": value}, "t", most=10)
    assert looks.text({"t": "a" * 10}, "t", most=10) == "a" * 10
