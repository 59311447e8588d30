"""Comms of the guest: the `comm` package's port, with frames for messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import comm
from comm.base_comm import BaseComm, CommManager

if TYPE_CHECKING:
    from wasi_agent.door import Door
    from wasi_agent.frames import Frame


def install(door: Door) -> CommManager:
    """Makes comms travel through `door`; returns their manager."""

    class GuestComm(BaseComm):
        """A comm whose messages are frames."""

        def publish_msg(
            self,
            msg_type: str,
            data: Any = None,
            metadata: Any = None,
            buffers: Any = None,
            **keys: Any,
        ) -> None:
            content = {"comm_id": self.comm_id, "data": {} if data is None else data, **keys}
            door.send(msg_type, content, metadata or {}, tuple(buffers or ()))

    manager = CommManager()
    comm.create_comm = GuestComm
    comm.get_comm_manager = lambda: manager
    return manager


def handle(manager: CommManager, frame: Frame) -> None:
    """Delivers a comm message from the front end."""
    message = {
        "header": {"msg_type": frame.type},
        "content": frame.content,
        "metadata": frame.metadata,
        "buffers": list(frame.buffers),
    }
    getattr(manager, frame.type)(None, None, message)


def info(manager: CommManager, target_name: str | None) -> dict[str, Any]:
    """The open comms, as comm_info_reply lists them."""
    return {
        comm_id: {"target_name": c.target_name}
        for comm_id, c in manager.comms.items()
        if target_name is None or c.target_name == target_name
    }
