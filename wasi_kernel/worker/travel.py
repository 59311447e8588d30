"""Travel: what a cell, or the kernel process, asks about a session's checkpoints.

Looking is answered at once. Going somewhere, naming and saving are only noted here: they are done
when the cell is over and the guest at rest (server.py). What the guest asks is checked like all
that it says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wasi_kernel import timeline
from wasi_kernel.errors import UnknownCheckpointError, WasiKernelError

if TYPE_CHECKING:
    from collections.abc import Callable

    from wasi_kernel.pagelog import PageLog

MAX_PATH = 4096


class Travel:
    """The questions about one log, and what is to be done after the present cell.

    Attributes:
        target: The checkpoint to go to, or None.
        name: A name for the state after this cell, or None.
        save: A guest path to save the session to, or None.
        fork: The name of a fork to begin after this cell, or None.
        problem: Why there are no checkpoints to go to; empty if there are.
    """

    def __init__(
        self, log: PageLog | None, look: Callable[[int], dict[str, Any]], problem: str = ""
    ) -> None:
        """Takes `look`, which describes the variables at a checkpoint."""
        self._log, self._look, self.problem = log, look, problem
        self.target: int | None = None
        self.name: str | None = None
        self.save: str | None = None
        self.fork: str | None = None

    def reset(self) -> None:
        """A new request begins."""
        self.target = self.name = self.save = self.fork = None

    def answer(self, content: dict[str, Any]) -> dict[str, Any]:
        """The reply to a checkpoint_request: `status`, and what was asked for or `evalue`."""
        operation = str(content.get("op"))
        try:
            if self._log is None or self.problem:
                raise UnknownCheckpointError(self.problem or "there are no checkpoints here")
            found = self._operate(self._log, operation, content)
        except WasiKernelError as e:
            return {"status": "error", "evalue": str(e)}
        return {"status": "ok", **found}

    def _operate(self, log: PageLog, operation: str, content: dict[str, Any]) -> dict[str, Any]:
        if operation == "list":
            return {"rows": timeline.rows(log), "bytes": log.size}
        if operation in ("undo", "redo"):
            count = content.get("cells", 1)
            if type(count) is not int or count < 1:
                raise UnknownCheckpointError(f"{count!r} is no number of cells")
            move = timeline.undo if operation == "undo" else timeline.redo
            return self._go(log, move(log, count))
        if operation == "restore":
            return self._go(log, timeline.find(log, str(content.get("to"))))
        if operation == "name":
            self.name = str(content.get("name"))
            timeline.check_name(log, self.name)
            return {}
        if operation == "unname":
            return self._unname(log, str(content.get("name")))
        if operation == "look":
            target = timeline.find(log, str(content["to"])) if content.get("to") else log.head
            return {**timeline.describe(log, target), **self._look(target)}
        if operation == "save":
            self.save = str(content.get("path"))[:MAX_PATH]
            return {}
        if operation == "fork":
            self.fork = str(content.get("name"))
            timeline.check_name(log, self.fork)
            return {}
        raise UnknownCheckpointError(f"no such request: {operation[:100]!r}")

    def _go(self, log: PageLog, target: int) -> dict[str, Any]:
        self.target = target
        cells = [c for c in log.chain(log.head) if timeline.is_cell(c)]
        back = {c.id for c in log.chain(target)}
        undone = [timeline.cell_of(c) for c in cells if c.id not in back]
        return {**timeline.describe(log, target), "undone": undone[::-1]}

    def _unname(self, log: PageLog, name: str) -> dict[str, Any]:
        if name not in log.names:
            names = ", ".join(sorted(log.names)) or "none"
            raise UnknownCheckpointError(f"no checkpoint is named {name[:100]!r}; names: {names}")
        log.name(name, 0)
        return {}
