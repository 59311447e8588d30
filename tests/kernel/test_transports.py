"""The kernel is reached over TCP (everywhere else), over IPC, and encrypted with CurveZMQ."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
import zmq
from zmq.utils.monitor import recv_monitor_message

CHANNELS = {
    "shell": zmq.DEALER, "control": zmq.DEALER, "stdin": zmq.DEALER, "iopub": zmq.SUB,
    "hb": zmq.REQ,
}  # fmt: skip
"""Each channel, and the kind of socket that a client has for it."""


@pytest.fixture
def short_folder():
    """A folder whose name is short: a Unix socket's may have at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="k") as name:
        yield Path(name)


def _assert_serves(kernel):
    cell = kernel.execute("print('seen')\ninput('?') + '!'", allow_stdin=True)
    assert kernel.question()["content"]["prompt"] == "?"
    kernel.client.input("yes")
    answer = kernel.answer(cell)
    assert (answer.text(), answer.result) == ("seen\n", "'yes!'")
    cell = kernel.execute("print('begun')\nwhile True: pass")
    kernel.until_text(cell, "begun")
    kernel.interrupt()
    assert kernel.answer(cell).content["ename"] == "KeyboardInterrupt"
    assert kernel.client.is_alive()


def test_ipc(start_kernel, short_folder):
    file = short_folder / "c.json"
    kernel = start_kernel(transport="ipc", connection_file=str(file))
    assert json.loads(file.read_text())["transport"] == "ipc"
    sockets = [path for path in short_folder.iterdir() if path.is_socket()]
    assert len(sockets) == 5
    _assert_serves(kernel)
    kernel.restart()
    _assert_serves(kernel)
    kernel.close()
    assert list(short_folder.iterdir()) == []


def test_curve(start_kernel):
    kernel = start_kernel(transport_encryption="required")
    file = Path(kernel.manager.connection_file)
    assert len(json.loads(file.read_text())["curve_publickey"]) == 40
    _assert_serves(kernel)
    kernel.restart()
    _assert_serves(kernel)


def test_curve_over_ipc(start_kernel, short_folder):
    kernel = start_kernel(
        transport="ipc", connection_file=str(short_folder / "c.json"),
        transport_encryption="required",
    )  # fmt: skip
    _assert_serves(kernel)


def test_curve_lets_nobody_in_without_the_key(start_kernel):
    kernel = start_kernel(transport_encryption="required")
    info = kernel.manager.get_connection_info()
    for channel, kind in CHANNELS.items():
        events = _knock(kind, f"tcp://{info['ip']}:{info[channel + '_port']}")
        assert zmq.EVENT_CONNECTED in events, channel
        assert zmq.EVENT_HANDSHAKE_SUCCEEDED not in events, channel


def _knock(kind, address):
    """What happens to a socket without keys, up to its being thrown out."""
    context = zmq.Context()
    try:
        sock = context.socket(kind)
        monitor = sock.get_monitor_socket()
        sock.connect(address)
        events = []
        while zmq.EVENT_DISCONNECTED not in events:
            assert monitor.poll(20_000), address
            events.append(recv_monitor_message(monitor)["event"])
        sock.disable_monitor()
    finally:
        context.destroy(linger=0)
    return events
