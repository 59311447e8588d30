"""Calls: functions of the guest's that are called from outside, as requests and their answers.

Pure. Arguments and results are JSON-able; what a guest answers is checked before it is taken.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from wasi_kernel.errors import CallError, ProtocolError

if TYPE_CHECKING:
    from collections.abc import Sequence

_CALLS = "__import__('wasi_agent.calls').calls."
RESEED = f"{_CALLS}reseed()"
"""Gives a fork random numbers of its own."""


def call(function: str, arguments: Sequence[Any]) -> str:
    """The expression that calls a function of the guest's `__main__`."""
    return f"{_CALLS}call({function!r}, {json.dumps(arguments)!r})"


def install(wanted: Sequence[str], *, upgrade: bool) -> str:
    """The expression that asks for packages, as `%pip install` does."""
    return f"__import__('wasi_agent.pip').pip.asked({json.dumps(wanted)!r}, {upgrade})"


def request(expression: str, count: int) -> dict[str, Any]:
    """The content of an execute_request that shows nothing, is no cell, and gives one value."""
    return {
        "code": "", "silent": True, "store_history": False, "allow_stdin": False,
        "execution_count": count, "user_expressions": {"value": expression},
    }  # fmt: skip


def answer(reply: dict[str, Any], what: str) -> Any:
    """The value in the reply to `request`.

    Args:
        reply: The reply's content.
        what: What was called, for errors.

    Raises:
        CallError: It raised an exception, or its result cannot be said in JSON.
        ProtocolError: The guest answered something else.
    """
    try:
        found = reply.get("user_expressions", {}).get("value", reply)
        if found.get("status") != "ok":
            raise CallError(what, str(found.get("ename")), str(found.get("evalue")))
        return found["data"]["application/json"]["value"]
    except (KeyError, TypeError, AttributeError, IndexError):
        raise ProtocolError(f"{what}: the guest's answer is no result of a call") from None
