"""Shows what is read from the outputs of a run, without one."""

from __future__ import annotations

from wasi_kernel.errors import GuestLost, Kept, ProtocolError
from wasi_kernel.results import Error, Result, failure, line


def test_outputs_by_what_they_are():
    found = Result(outputs=[
        {"type": "stream", "name": "stdout", "text": "a"},
        {"type": "display_data", "data": {"image/png": "iVBO"}},
        line("a note"),
        {"type": "stream", "name": "stdout", "text": "b"},
        {"type": "execute_result", "data": {"text/plain": "1"}},
    ])  # fmt: skip
    assert (found.stdout, found.stderr) == ("ab", "[wasi-kernel] a note\n")
    assert found.displays == [{"image/png": "iVBO"}]
    assert (found.data, found.text) == ({"text/plain": "1"}, "1")


def test_a_run_without_a_value():
    assert (Result().ok, Result().data, Result().text) == (True, {}, None)
    assert not Result(status="error").ok


def test_a_loss_is_said_with_what_is_left():
    loss = GuestLost("GuestExited", "exit status 1")
    loss.kept, loss.in_cell = Kept(3), True
    assert failure(loss) == Error("GuestExited", loss.explanation, [], lost=True)
    assert failure(ProtocolError("too large")) == Error("ProtocolError", "too large")
