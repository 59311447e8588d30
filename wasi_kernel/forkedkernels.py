"""Kernels that a cell has begun with `%fork`: processes like this one, which end with it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from jupyter_core.paths import jupyter_runtime_dir

from wasi_kernel.errors import SessionFileError

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_FORKS = 4
"""Each is two processes; a cell can ask for them."""


class ForkedKernels:
    """The forks of one kernel.

    Args:
        options: The kernel's options that its policy was made of: theirs as well.
    """

    def __init__(self, options: Sequence[str]) -> None:
        self._options = options
        self._running: list[asyncio.subprocess.Process] = []

    def make_room(self, name: str) -> None:
        """Looks whether there may be one more.

        Raises:
            SessionFileError: There are too many.
        """
        self._running = [fork for fork in self._running if fork.returncode is None]
        if len(self._running) >= MAX_FORKS:
            raise SessionFileError(name, f"a kernel has at most {MAX_FORKS} forks")

    async def start(self, folder: str, name: str) -> str:
        """Starts a kernel that takes up that session's folder; the name of its connection file."""
        path = Path(jupyter_runtime_dir()) / f"kernel-fork-{folder[:8]}.json"
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "wasi_kernel", "kernel", "-f", str(path),
            "--take-up", folder, "--name", name, *self._options,
            env={**os.environ, "JPY_PARENT_PID": str(os.getpid())},
            stdin=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        self._running.append(process)
        return path.name

    def end(self) -> None:
        """Tells them to end."""
        for fork in self._running:
            with contextlib.suppress(ProcessLookupError):
                fork.terminate()
