"""Publisher: what a kernel sends to all of its front ends, in a cell's name.

What the guest shows passes the front end's filter; lines of the kernel's own begin with its name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from wasi_kernel.frames import Frame
    from wasi_kernel.frontend import Frontend


class Publisher:
    """One kernel's way to iopub. Messages go out in the order of the calls.

    Args:
        wire: Signs a message and sends it to the socket: its type, its content, and by name
            `parent`, `ident` (the topic), `metadata`, `buffers`.
        frontend: The filter.
        topic: The topic of a message of a type.
        ident: The kernel's identity, part of the identities of what it displays.
    """

    def __init__(
        self, wire: Callable[..., Any], frontend: Frontend, topic: Callable[[str], bytes],
        ident: str,
    ) -> None:  # fmt: skip
        self._wire, self._frontend = wire, frontend
        self._topic, self._ident = topic, ident
        self._display_id = 0

    def send(self, kind: str, content: dict[str, Any], parent: dict[str, Any], **more: Any) -> None:
        """Sends a message as it is.

        Args:
            kind: Its type.
            content: Its content.
            parent: The request in whose name it is sent.
            more: Its metadata and buffers.

        Raises:
            ValueError, TypeError, RecursionError: It cannot be serialized.
        """
        self._wire(kind, content, parent=parent, ident=self._topic(kind), **more)

    def publish(self, frame: Frame, count: int, parent: dict[str, Any]) -> None:
        """Sends what the guest shows, as far as it may be shown.

        Args:
            frame: An output.
            count: The cell's number.
            parent: The cell's request.
        """
        try:
            content = self._frontend.output(frame, count)
            self.tell_notes(parent)
            if content is None:
                return
            self.send(
                frame.type, content, parent,
                metadata=self._frontend.metadata(frame), buffers=list(frame.buffers),
            )  # fmt: skip
        except (ValueError, TypeError, RecursionError) as e:
            text = f"[wasi-kernel] a {frame.type} was dropped: it cannot be sent ({e})\n"
            self.send("stream", {"name": "stderr", "text": text}, parent)

    def note(self, text: str, parent: dict[str, Any]) -> None:
        """A line of this kernel's own, in the cell's standard error."""
        content = {"name": "stderr", "text": f"[wasi-kernel] {self._frontend.note(text)}.\n"}
        self.send("stream", content, parent)

    def tell_notes(self, parent: dict[str, Any]) -> None:
        """Says what was refused of what shows nothing by itself."""
        for note in self._frontend.take_notes():
            self.note(note, parent)

    def failure(
        self, ename: str, evalue: str, parent: dict[str, Any], count: int, *, silent: bool
    ) -> dict[str, Any]:
        """The error of a cell that the guest could not answer for; the content of its reply."""
        evalue = self._frontend.note(evalue)
        traceback = [f"\x1b[31m{ename}\x1b[39m: {evalue}"]
        error = {"ename": ename, "evalue": evalue, "traceback": traceback}
        if not silent:
            self.send("error", error, parent)
        return {
            "status": "error", **error, "execution_count": count, "user_expressions": {},
            "payload": [],
        }  # fmt: skip

    def show_line(self, text: str, parent: dict[str, Any], *, again: bool) -> None:
        """Displays a line; `again`: in the place of the last one."""
        self._display_id += not again
        content = {
            "data": {"text/plain": text},
            "metadata": {},
            "transient": {"display_id": f"wasi-kernel-{self._ident}-{self._display_id}"},
        }
        self.send("update_display_data" if again else "display_data", content, parent)
