"""Travel: what a cell, or the kernel process, asks about a session's checkpoints.

Looking is answered at once. Going somewhere, naming and saving are only noted here: they are done
when the cell is over and the guest at rest (server.py). What the guest asks is checked like all
that it says.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from wasi_kernel import timeline
from wasi_kernel.errors import UnknownCheckpointError, WasiKernelError

if TYPE_CHECKING:
    from collections.abc import Callable

    from wasi_kernel.pagelog import PageLog

MAX_TEXT = 4096
_MAGIC = re.compile(r"%(undo|redo|restore)(?:\s+(\S.*))?")


def asked_in(code: str) -> dict[str, Any] | None:
    """What a cell asks that is nothing but one of the magics that go somewhere; None: no such cell.

    So it can be done without the guest, if that cannot ask any more.
    """
    match = _MAGIC.fullmatch(code.strip())
    if match is None:
        return None
    operation, argument = match[1], match[2] or ""
    if operation == "restore":
        return {"op": "restore", "to": argument}
    count = argument.strip() or "1"
    return {"op": operation, "cells": int(count)} if count.isdecimal() else None


class Travel:
    """The questions about one log, and what is to be done after the present cell.

    Attributes:
        target: The checkpoint to go to, or None.
        names: Names for the state after this cell.
        save: A guest path to save the session to, or None.
        fork: The name of a fork to begin after this cell, or None.
        problem: Why there are no checkpoints to go to; empty if there are.
    """

    def __init__(
        self, log: PageLog | None, look: Callable[[int], dict[str, Any]], problem: str = "", *,
        may_fork: bool = False,
    ) -> None:  # fmt: skip
        """Takes `look`, which describes the variables at a checkpoint."""
        self._log, self._look, self.problem = log, look, problem
        self._may_fork = may_fork
        self._operations = {
            "list": self._list,
            "undo": self._undo,
            "redo": self._redo,
            "restore": self._restore,
            "name": self._name,
            "unname": self._unname,
            "look": self._look_at,
            "save": self._save,
            "fork": self._fork,
        }
        self.target: int | None = None
        self.names: list[str] = []
        self.save: str | None = None
        self.fork: str | None = None

    def reset(self) -> None:
        """A new request begins."""
        self.target = self.save = self.fork = None
        self.names = []

    def answer(self, content: dict[str, Any]) -> dict[str, Any]:
        """The reply to a checkpoint_request: `status`, and what was asked for or `evalue`."""
        operation = content.get("op")
        try:
            if self._log is None or self.problem:
                raise UnknownCheckpointError(self.problem or "there are no checkpoints here")
            if not isinstance(operation, str) or operation not in self._operations:
                raise UnknownCheckpointError(f"no such request: {str(operation)[:100]!r}")
            found = self._operations[operation](self._log, content)
        except WasiKernelError as e:
            return {"status": "error", "evalue": str(e)}
        return {"status": "ok", **found}

    def _list(self, log: PageLog, content: dict[str, Any]) -> dict[str, Any]:
        del content
        return {"rows": timeline.rows(log), "bytes": log.size}

    def _undo(self, log: PageLog, content: dict[str, Any]) -> dict[str, Any]:
        return self._go(log, timeline.undo(log, _cells(content)))

    def _redo(self, log: PageLog, content: dict[str, Any]) -> dict[str, Any]:
        return self._go(log, timeline.redo(log, _cells(content)))

    def _restore(self, log: PageLog, content: dict[str, Any]) -> dict[str, Any]:
        return self._go(log, timeline.find(log, _text(content, "to")))

    def _name(self, log: PageLog, content: dict[str, Any]) -> dict[str, Any]:
        name = _text(content, "name")
        if name not in self.names:
            timeline.check_name(log, name, more=len(self.names))
            self.names.append(name)
        return {}

    def _look_at(self, log: PageLog, content: dict[str, Any]) -> dict[str, Any]:
        wanted = _text(content, "to")
        target = timeline.find(log, wanted) if wanted else log.head
        if not target:
            raise UnknownCheckpointError("there is no checkpoint yet")
        return {**timeline.describe(log, target), **self._look(target)}

    def _save(self, log: PageLog, content: dict[str, Any]) -> dict[str, Any]:
        del log
        self.save = _text(content, "path")
        return {}

    def _fork(self, log: PageLog, content: dict[str, Any]) -> dict[str, Any]:
        if not self._may_fork:
            raise UnknownCheckpointError(
                "this session cannot be forked from within: it is no kernel, or a fork itself"
            )
        name = _text(content, "name")
        timeline.check_name(log, name)
        self.fork = name
        return {}

    def _go(self, log: PageLog, target: int) -> dict[str, Any]:
        if log.verify(target):
            raise UnknownCheckpointError(f"that state cannot be used: {log.damage[-1]}")
        self.target = target
        cells = [c for c in log.chain(log.head) if timeline.is_cell(c)]
        back = {c.id for c in log.chain(target)}
        undone = [timeline.cell_of(c) for c in cells if c.id not in back]
        return {**timeline.describe(log, target), "undone": undone[::-1]}

    def _unname(self, log: PageLog, content: dict[str, Any]) -> dict[str, Any]:
        name = _text(content, "name")
        if name not in log.names:
            names = ", ".join(sorted(log.names)) or "none"
            raise UnknownCheckpointError(f"no checkpoint is named {name[:100]!r}; names: {names}")
        log.name(name, 0)
        return {}


def _cells(content: dict[str, Any]) -> int:
    count = content.get("cells", 1)
    if type(count) is not int or count < 1:
        raise UnknownCheckpointError(f"{str(count)[:100]!r} is no number of cells")
    return count


def _text(content: dict[str, Any], key: str) -> str:
    value = content.get(key)
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        raise UnknownCheckpointError(f"{key}: a text of at most {MAX_TEXT} characters is wanted")
    return value
