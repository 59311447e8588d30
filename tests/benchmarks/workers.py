"""A worker as its session sees it: a process, a socket with frames on it, and a clock.

Beside what a kernel shows, it says what each checkpoint cost, and how long a return took.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from socket import socketpair
from typing import TYPE_CHECKING, Any

import psutil
from kernels import TIMEOUT_S, KernelFailedError

from wasi_kernel import frames, launch, spawn
from wasi_kernel.frames import Frame
from wasi_kernel.policy import Policy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wasi_kernel.launch import Settings

WARM = 10
"""Cells until the pages that every cell writes are known."""

TIMED = str(Path(__file__).with_name("timedworker.py"))


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        seconds: From sending it until its reply was here.
        checkpoint_ms: What writing the checkpoint after it took.
        pages: How many pages that wrote.
    """

    seconds: float
    checkpoint_ms: float
    pages: int


@dataclass(frozen=True)
class Undone:
    """One undo.

    Attributes:
        seconds: From asking for it until its answer was here.
        fresh_s: How much of it making the fresh instance took.
    """

    seconds: float
    fresh_s: float


class Worker:
    """A worker whose guest is ready; use `started`."""

    def __init__(self, settings: Settings, process: spawn.Worker) -> None:
        self._settings, self._process = settings, process
        self._decoder, self._received = frames.Decoder(), list[Frame]()
        self._number, self._count = launch.BOOT, 0
        self._process.requests.settimeout(TIMEOUT_S)
        self._until("boot_reply")
        if settings.checkpoints is not None:
            self._until("checkpoint")

    def _next(self) -> Frame:
        while not self._received:
            data = self._process.requests.recv(1 << 20)
            if not data:
                raise KernelFailedError("the worker has ended")
            self._received += self._decoder.feed(data)
        return self._received.pop(0)

    def _until(self, kind: str) -> dict[str, Any]:
        """The content of the next frame of that type.

        Raises:
            KernelFailedError: It says that something went wrong, or the worker does.
        """
        while True:
            frame = self._next()
            if frame.type in ("lost", "unprepared"):
                raise KernelFailedError(f"{frame}; is the cache warm? (wasi-kernel prepare)")
            if frame.content.get("status") == "error" or frame.content.get("problem"):
                raise KernelFailedError(f"{frame}")
            if frame.type == kind:
                return frame.content

    def _send(self, kind: str, content: dict[str, Any]) -> None:
        self._number += 1
        self._process.requests.sendall(frames.encode(Frame(kind, content, self._number)))

    def run(self, code: str) -> Cell:
        """Runs a cell and waits for the checkpoint after it.

        Raises:
            KernelFailedError: It failed.
        """
        self._count += 1
        content = {
            "code": code, "silent": False, "store_history": True, "user_expressions": {},
            "execution_count": self._count, "allow_stdin": False,
        }  # fmt: skip
        start = time.perf_counter()
        self._send("execute_request", content)
        self._until("execute_reply")
        seconds = time.perf_counter() - start
        if self._settings.checkpoints is None:
            return Cell(seconds, 0.0, 0)
        said = self._until("checkpoint")
        return Cell(seconds, said["ms"], said["pages"])

    def undo(self) -> Undone:
        """Undoes the last cell; `timed` workers only."""
        start = time.perf_counter()
        self._send("checkpoint_request", {"op": "undo", "cells": 1})
        fresh_s = self._until("progress")["left_s"]
        self._until("checkpoint_reply")
        return Undone(time.perf_counter() - start, fresh_s)

    def settle(self, code: str) -> None:
        """Runs a cell, and further ones until the pages that every cell writes are known."""
        self.run(code)
        for _ in range(WARM):
            self.run("x = 1")

    def rolled_back(self, code: str) -> tuple[Cell, float]:
        """Runs a cell and undoes it; says what it cost, and the seconds of the undo."""
        cell = self.run(code)
        start = time.perf_counter()
        self._send("checkpoint_request", {"op": "undo", "cells": 1})
        self._until("checkpoint_reply")
        return cell, time.perf_counter() - start

    def rollback(self, code: str) -> tuple[Cell, Undone]:
        """Runs a cell and undoes it."""
        return self.run(code), self.undo()

    @property
    def memory(self) -> Any:
        """psutil's memory_full_info of the process."""
        return psutil.Process(self._process.pid).memory_full_info()

    @property
    def disk_bytes(self) -> int:
        """What the checkpoints take on disk."""
        if self._settings.checkpoints is None:
            return 0
        return sum(p.stat().st_size for p in self._settings.checkpoints.path.glob("*.pages"))


@contextlib.contextmanager
def started(policy: Policy | None = None, *, timed: bool = False) -> Iterator[Worker]:
    """A new worker with that policy, which ends with the block.

    Args:
        policy: Default: the default one.
        timed: Does it say how long its fresh instances took? (timedworker.py)
    """
    settings = launch.settings(policy if policy is not None else Policy(), None)
    try:
        process = launch.start(settings, worker=_spawn_timed() if timed else None)
        try:
            yield Worker(settings, process)
        finally:
            process.end()
    finally:
        settings.release()


def _spawn_timed() -> spawn.Worker:
    requests, theirs = socketpair()
    control, unused = socketpair()
    with theirs, unused:
        path = os.pathsep.join([str(Path(spawn.__file__).parent.parent), *filter(None, sys.path)])
        theirs.set_inheritable(True)
        command = [sys.executable, "-I", "-S", TIMED, path, str(theirs.fileno())]
        pid = os.posix_spawn(sys.executable, command, {})
    return spawn.Worker(pid, requests, control)
