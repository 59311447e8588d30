"""What a guest may ask about itself as it is seen from outside; the guest's side is `door.look`.

Each kind of question (`op`) is one function. What a question says comes from the guest, so it is
hostile: a function takes nothing from it unchecked (`number`, `text`), and what it refuses is a
Refusal, whose words the guest is told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from wasi_kernel.frames import Frame
from wasi_kernel.worker.memory import OutOfBoundsError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Refusal(Exception):  # noqa: N818 - of a question, not a fault
    """The question asks for something that is not there or may not be; says what."""


class Sight(NamedTuple):
    """What is seen: the answer's content beside its status, and bytes."""

    content: dict[str, Any]
    buffers: tuple[bytes, ...] = ()


class Looks:
    """The kinds of questions, by name."""

    def __init__(self, ops: Mapping[str, Callable[[dict[str, Any]], Sight]]) -> None:
        """Takes {op: function of the question's content}."""
        self._ops = dict(ops)

    def answer(self, question: Frame) -> Frame:
        """The look_reply to a look_request; never raises for what the question says."""
        op = question.content.get("op")
        look = self._ops.get(op) if isinstance(op, str) else None
        if look is None:
            look = self._unknown
        try:
            content, buffers = look(question.content)
        except Refusal as e:
            return Frame("look_reply", {"status": "error", "evalue": str(e)}, question.request)
        except OutOfBoundsError:
            content = {"status": "error", "evalue": "that is outside of the guest's memory"}
            return Frame("look_reply", content, question.request)
        return Frame("look_reply", {"status": "ok", **content}, question.request, {}, buffers)

    def _unknown(self, content: dict[str, Any]) -> Sight:
        op = str(content.get("op"))[:80]
        raise Refusal(
            f"there is no look {op!r}; there are {', '.join(sorted(self._ops)) or 'none'}"
        )


NONE = Looks({})


def number(
    content: dict[str, Any], key: str, *, least: int = 0, most: int, default: int | None = None
) -> int:
    """An integer of a question, from `least` to `most`.

    Raises:
        Refusal: It is none, or out of range.
    """
    value = content.get(key, default)
    if type(value) is not int or not least <= value <= most:
        raise Refusal(f"{key} is {value!r}, not a number from {least} to {most}")
    return value


def text(content: dict[str, Any], key: str, *, most: int, default: str | None = None) -> str:
    """A text of a question, of at most `most` characters.

    Raises:
        Refusal: It is none, or too long.
    """
    value = content.get(key, default)
    if not isinstance(value, str):
        raise Refusal(f"{key} is no text")
    if len(value) > most:
        raise Refusal(f"{key} has {len(value):,} characters, at most {most:,}")
    return value
