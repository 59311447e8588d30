"""Calls of the user's functions from outside, with arguments and results in JSON."""

from __future__ import annotations

import json
import sys
from typing import Any

MIME = "application/json"


class Result:
    """A value as the host gets it."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __repr__(self) -> str:
        return "the result of a call"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        del include, exclude
        return {MIME: {"value": self._value}}


def call(name: str, arguments: str) -> Result:
    """Calls the function `name` (of `__main__`; dots for attributes) with the JSON `arguments`.

    Raises:
        TypeError: The result cannot be said in JSON.
        ValueError: It holds NaN or an infinity.
    """
    first, *rest = name.split(".")
    function = getattr(sys.modules["__main__"], first)
    for attribute in rest:
        function = getattr(function, attribute)
    value = function(*json.loads(arguments))
    try:
        return Result(json.loads(json.dumps(value, allow_nan=False)))
    except TypeError as e:
        text = f"{name} gave what JSON cannot say: {e}; return lists, dicts, numbers and text"
        raise TypeError(text) from None


def reseed() -> Result:
    """Gives this fork random numbers of its own."""
    from wasi_agent import agent

    agent.reseed()
    return Result(None)
