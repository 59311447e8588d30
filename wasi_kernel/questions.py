"""Questions of the guest's, and the answers that a session gives to them.

`input()` is for the user, whom the caller asks. Others are for the kernel process, and are
answered without one: what the front end's filter has held back, and `%pip install`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from wasi_kernel import frames
from wasi_kernel.frames import Frame

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from wasi_kernel.frontend import Frontend
    from wasi_kernel.pip import Pip

END_OF_FILE = "\x04"


class Questions:
    """Answers the questions of the request in progress.

    Args:
        pip: Judges and does what cells want installed.
        in_progress: The number of the request in progress, 0 if there is none.
        python: The guest's Python version.
        send: Sends a frame's bytes to the guest.
        show: Shows a frame as output of the request in progress.
    """

    def __init__(
        self,
        pip: Pip,
        *,
        in_progress: Callable[[], int],
        python: Callable[[], str],
        send: Callable[[bytes], Coroutine[Any, Any, None]],
        show: Callable[[Frame], None],
    ) -> None:
        self._pip, self._in_progress, self._python = pip, in_progress, python
        self._send, self._show = send, show
        self._tasks: set[asyncio.Task[None]] = set()
        self._installing: asyncio.Task[None] | None = None

    async def answer_input(self, request: int, value: str) -> None:
        """Answers the input_request of that request, if it is still the one in progress."""
        try:
            await self._answer(Frame("input_reply", {"value": value}, request))
        except frames.FrameError:  # no line that anyone typed: end of file
            await self._answer(Frame("input_reply", {"value": END_OF_FILE}, request))

    async def answer_bytes(self, request: int, data: bytes) -> None:
        """Answers an input_request for bytes; none at all mean the end of the input."""
        await self._answer(Frame("input_reply", {"value": ""}, request, {}, (data,)))

    def answer_unasked(self, frame: Frame, frontend: Frontend) -> bool:
        """Answers a question that is for no user; False if `frame` is no question."""
        if frame.type == "frontend_request":
            self._spawn(self._answer(Frame("frontend_reply", frontend.report(), frame.request)))
        elif frame.type == "input_request":  # nobody is there to be asked
            self._spawn(self.answer_input(frame.request, END_OF_FILE))
        elif frame.type == "pip_request":
            self.end_installing()
            self._installing = self._spawn(self._install(frame))
        return frame.type in frames.QUESTIONS

    def end_installing(self) -> None:
        """Nobody waits any more for what is being installed: nothing of it will be."""
        if self._installing is not None and not self._installing.cancelling():
            self._installing.cancel()

    async def close(self) -> None:
        """Answers nothing more; waits until nothing is being installed."""
        self.end_installing()
        if self._installing is not None:
            await asyncio.wait({self._installing})
        for task in self._tasks:
            task.cancel()

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _answer(self, frame: Frame) -> None:
        if self._in_progress() == frame.request:
            await self._send(frames.encode(frame))

    async def _install(self, frame: Frame) -> None:
        """Answers a pip_request; what it says on its way is output of the request in progress."""

        def say(name: str, text: str) -> None:
            if self._in_progress() == frame.request:
                self._show(Frame("stream", {"name": name, "text": text}, frame.request))

        said = await self._pip.answer(frame.content, self._python(), say)
        await self._answer(Frame("pip_reply", said, frame.request))
