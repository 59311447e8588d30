"""Shows calls of a guest's functions as requests, and that only a right answer is taken."""

from __future__ import annotations

import ast
import json

import pytest

from wasi_kernel import calls
from wasi_kernel.errors import CallError, ProtocolError

HOSTILE = "f\"); import os #\n'\\\u2028\ud800"


def arguments_of(expression: str) -> list[object]:
    """The constants that the outer call of an expression is given."""
    tree = ast.parse(expression, mode="eval").body
    assert isinstance(tree, ast.Call)
    return [ast.literal_eval(each) for each in tree.args]


@pytest.mark.parametrize("text", ["f", HOSTILE, "", "x" * 10_000])
def test_names_and_arguments_are_data_whatever_is_in_them(text: str):
    name, given = arguments_of(calls.call(text, (text, {"a": [text, 1.5, None]})))
    assert name == text
    assert json.loads(str(given)) == [text, {"a": [text, 1.5, None]}]
    wanted, upgrade = arguments_of(calls.install((text,), upgrade=True))
    assert (json.loads(str(wanted)), upgrade) == ([text], True)


def test_a_request_runs_no_code_and_is_no_cell():
    request = calls.request("1 + 1", 7)
    assert (request["code"], request["silent"], request["store_history"]) == ("", True, False)
    assert request["user_expressions"] == {"value": "1 + 1"}


def test_the_value_is_taken_from_the_answer():
    said = {"status": "ok", "data": {"application/json": {"value": [1, None]}}}
    assert calls.answer({"user_expressions": {"value": said}}, "f") == [1, None]


@pytest.mark.parametrize("whole", [False, True], ids=["of the expression", "of the request"])
def test_an_error_is_named(whole: bool):
    error = {"status": "error", "ename": "ValueError", "evalue": "no"}
    with pytest.raises(CallError) as raised:
        calls.answer(error if whole else {"user_expressions": {"value": error}}, "f")
    assert (raised.value.ename, raised.value.evalue) == ("ValueError", "no")


@pytest.mark.parametrize(
    "said",
    [
        [],
        "ok",
        {"status": "ok"},
        {"status": "ok", "data": {}},
        {"status": "ok", "data": {"application/json": 1}},
        {"status": "ok", "data": {"application/json": {}}},
        {"status": "ok", "data": {"application/json": []}},
    ],
)
def test_another_answer_is_no_result(said: object):
    with pytest.raises(ProtocolError, match="f: the guest's answer is no result"):
        calls.answer({"user_expressions": {"value": said}}, "f")


def test_expressions_of_another_kind_are_no_result():
    with pytest.raises(ProtocolError):
        calls.answer({"user_expressions": []}, "f")
