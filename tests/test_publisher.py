"""Shows what a kernel sends to its front ends, and that what cannot be sent is said instead.

Real messages, by Jupyter's own serialization; where the socket would be is a list.
"""

from __future__ import annotations

from typing import Any

import pytest
from jupyter_client.session import Session

from wasi_kernel.frames import Frame
from wasi_kernel.frontend import Frontend
from wasi_kernel.publisher import Publisher

PARENT = {"header": {"msg_id": "cell"}}


class Wire:
    """Keeps what is sent, as it would go out."""

    def __init__(self) -> None:
        self._session = Session()
        self.sent: list[tuple[str, dict[str, Any]]] = []

    def __call__(
        self, kind: str, content: dict[str, Any], *, parent: dict[str, Any], ident: bytes,
        **more: Any,
    ) -> None:  # fmt: skip
        message = self._session.msg(kind, content, parent=parent, metadata=more.get("metadata"))
        self._session.serialize(message, ident)
        assert message["parent_header"] == PARENT["header"]
        assert ident == f"topic.{kind}".encode()
        self.sent.append((kind, content))


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
def publisher(wire: Wire) -> Publisher:
    return Publisher(
        wire, Frontend(), lambda kind: f"topic.{kind}".encode(),
        "me",
    )  # fmt: skip


def test_output_goes_out_in_order(wire: Wire, publisher: Publisher):
    for text in ("a", "b"):
        publisher.publish(Frame("stream", {"name": "stdout", "text": text}, 2), 1, PARENT)
    assert [content["text"] for _, content in wire.sent] == ["a", "b"]


def test_a_note_is_a_line_of_standard_error_without_escapes(wire: Wire, publisher: Publisher):
    publisher.note("it is\x1b[2J so", PARENT)
    ((kind, content),) = wire.sent
    assert (kind, content["name"]) == ("stream", "stderr")
    assert content["text"].startswith("[wasi-kernel] it is")
    assert "\x1b" not in content["text"]


def test_a_failure_is_shown_and_replied_unless_the_cell_is_silent(wire: Wire, publisher: Publisher):
    reply = publisher.failure("GuestExited", "exit status 1", PARENT, 3, silent=False)
    assert (reply["status"], reply["execution_count"]) == ("error", 3)
    ((kind, content),) = wire.sent
    assert kind == "error"
    assert content == {name: reply[name] for name in ("ename", "evalue", "traceback")}
    assert publisher.failure("GuestExited", "exit status 1", PARENT, 3, silent=True) == reply
    assert len(wire.sent) == 1


def test_a_line_takes_the_place_of_the_last_one(wire: Wire, publisher: Publisher):
    for text, again in (("one", False), ("two", True), ("three", False)):
        publisher.show_line(text, PARENT, again=again)
    kinds = [kind for kind, _ in wire.sent]
    idents = [content["transient"]["display_id"] for _, content in wire.sent]
    assert kinds == ["display_data", "update_display_data", "display_data"]
    assert idents[0] == idents[1] != idents[2]
