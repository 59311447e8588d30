"""Sandbox: the kernel's guest for scripts, without Jupyter.

    with Sandbox() as box:
        r = box.run("import numpy as np; np.arange(3).sum()")
        r.text, r.stdout, r.data["text/plain"], r.error

Never imports wasmtime or anything of Jupyter.
"""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self, TypeVar

from wasi_kernel import launch
from wasi_kernel.errors import LOSSES, GuestLost, ProtocolError
from wasi_kernel.policy import Policy
from wasi_kernel.session import Session

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Coroutine
    from types import TracebackType

    from wasi_kernel.frames import Frame

T = TypeVar("T")
MAX_DEADLINE_S = 10 * 365 * 24 * 3600.0


@dataclass(frozen=True)
class Error:
    """An exception that the code raised, or the loss of its guest.

    Attributes:
        ename: The exception's class name.
        evalue: Its text.
        traceback: Lines, coloured as in a terminal.
        lost: Is the guest gone, and its variables with it?
    """

    ename: str
    evalue: str
    traceback: list[str] = field(default_factory=list)
    lost: bool = False


@dataclass
class Result:
    """What one run gave.

    Attributes:
        status: "ok" or "error".
        outputs: Everything shown, in order: {"type": ..., **content}, as in Jupyter's messages.
        error: What went wrong, or None.
        execution_count: The run's number.
    """

    status: str = "ok"
    outputs: list[dict[str, Any]] = field(default_factory=list)
    error: Error | None = None
    execution_count: int = 0

    @property
    def ok(self) -> bool:
        """Did it end without an error?"""
        return self.status == "ok"

    def _text_of(self, name: str) -> str:
        return "".join(
            o["text"] for o in self.outputs if o["type"] == "stream" and o["name"] == name
        )

    @property
    def stdout(self) -> str:
        """What was printed."""
        return self._text_of("stdout")

    @property
    def stderr(self) -> str:
        """What was printed to standard error."""
        return self._text_of("stderr")

    @property
    def data(self) -> dict[str, Any]:
        """The last expression's value by mime type; binary types in base64. Empty if None."""
        for output in reversed(self.outputs):
            if output["type"] == "execute_result":
                return dict(output["data"])
        return {}

    @property
    def text(self) -> str | None:
        """The last expression's value as plain text, None if there was none."""
        return self.data.get("text/plain")

    @property
    def displays(self) -> list[dict[str, Any]]:
        """The mime bundles that were displayed, plots among them."""
        return [o["data"] for o in self.outputs if o["type"] == "display_data"]


class Sandbox:
    """One guest that keeps its variables between runs. Use it in a `with` statement.

    All methods may be called from any thread; runs are done one at a time.

    Args:
        policy: What the guest may reach; the default grants no host folder.
        work: A host folder to show, read-only, as `/work`.
        on_output: Called with each output as it happens (see `Result.outputs`), on a thread of
            the sandbox's own.
        on_status: Called with a text while the sandbox is being prepared (the first time only).

    Raises:
        PolicyError: The policy asks for what cannot be granted.
        InstallationError: On entering: the sandbox cannot start; says why.
    """

    def __init__(
        self,
        policy: Policy | None = None,
        *,
        work: str | os.PathLike[str] | None = None,
        on_output: Callable[[dict[str, Any]], None] | None = None,
        on_status: Callable[[str], None] | None = None,
    ) -> None:
        from pathlib import Path

        self._policy = policy if policy is not None else Policy()
        self._work = None if work is None else Path(work)
        self._on_output, self._on_status = on_output, on_status
        self._count = 0
        self._closed = False
        self._failure: Exception | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        try:
            self._session = self._wait(self._open())
        except BaseException:  # raised again: no thread is left behind
            self._end_loop()
            raise

    async def _open(self) -> Session:
        session = Session(launch.settings(self._policy, self._work))
        report = self._on_status
        if report is not None:
            session.on_status = lambda status: report(status.what)
        try:
            await session.ready()
        except BaseException:  # raised again: no worker is left behind
            await session.close()
            raise
        return session

    def _wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except KeyboardInterrupt:  # the caller's own Ctrl-C goes to the guest, then on
            if hasattr(self, "_session"):
                self.interrupt()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()

    @property
    def python(self) -> str:
        """The guest's Python version, "3.15.0"."""
        return str(self._session.facts.get("version", ""))

    def run(
        self,
        code: str,
        *,
        deadline_s: float | None = None,
        input: Callable[[str, bool], str] | None = None,  # noqa: A002 - the builtin's own name
    ) -> Result:
        """Runs code as a cell; an exception in it is data in the result.

        Args:
            code: Python as in a notebook: magics, top-level await, a value as last expression.
            deadline_s: Seconds after which it is interrupted, and stopped if it does not react.
            input: Answers input() and getpass(): gets the prompt, and whether it is a password.

        Raises:
            InstallationError: There is no guest and there will be none; says why.
            Exception: What `input` or `on_output` raised, after the run has ended.
        """
        self._count += 1
        return self._wait(self._run(code, self._count, deadline_s, input))

    async def _run(
        self,
        code: str,
        count: int,
        deadline_s: float | None,
        ask: Callable[[str, bool], str] | None,
    ) -> Result:
        result = Result(execution_count=count)

        def on_output(frame: Frame) -> None:
            if frame.type == "input_request":
                self._loop.create_task(self._answer(frame, ask))
                return
            output = {"type": frame.type, **frame.content}
            if frame.buffers:
                output["buffers"] = list(frame.buffers)
            result.outputs.append(output)
            if self._on_output is not None:
                self._on_output(output)

        content = {
            "code": code, "silent": False, "store_history": True, "execution_count": count,
            "allow_stdin": ask is not None, "user_expressions": {},
        }  # fmt: skip
        self._session.retry()

        async def request() -> Frame:
            await self._session.settled(MAX_DEADLINE_S, for_cell=True)
            if (loss := self._session.take_unreported()) is not None:
                text = f"[wasi-kernel] between runs: {loss.explanation}\n"
                result.outputs.append({"type": "stream", "name": "stderr", "text": text})
            return await self._session.request("execute_request", content, on_output=on_output)

        try:
            reply = await self._within(deadline_s, request())
        except (ProtocolError, GuestLost) as e:
            result.status, result.error = "error", _error(e)
            return result
        finally:
            failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
        said = reply.content
        result.status = str(said.get("status"))
        if result.status != "ok":
            lines = list(said.get("traceback", []))
            result.error = Error(str(said.get("ename")), str(said.get("evalue")), lines)
        return result

    async def _within(self, deadline_s: float | None, request: Coroutine[Any, Any, T]) -> T:
        timers: list[asyncio.TimerHandle] = []
        if deadline_s is not None:
            timers.append(self._loop.call_later(deadline_s, self._deadline, timers))
        try:
            return await request
        finally:
            for timer in timers:
                timer.cancel()

    def _deadline(self, timers: list[asyncio.TimerHandle]) -> None:
        self._session.interrupt()
        grace_s = self._policy.limits.grace_s
        loss = GuestLost("DeadlineExceeded", f"and did not react to the interrupt in {grace_s:g} s")
        timers.append(self._loop.call_later(grace_s, self._session.stop, loss))

    async def _answer(self, frame: Frame, ask: Callable[[str, bool], str] | None) -> None:
        value = "\x04"
        if ask is not None:
            prompt, hidden = str(frame.content.get("prompt")), bool(frame.content.get("password"))
            try:
                value = await asyncio.to_thread(ask, prompt, hidden)
            except EOFError:
                value = "\x04"
            except Exception as e:  # noqa: BLE001 - the caller's own; raised after the run
                self._failure = e
        await self._session.answer_input(frame.request, value)

    def interrupt(self) -> None:
        """Interrupts the run in progress, from any thread: KeyboardInterrupt in the guest.

        Without a run in progress, and after `close`, nothing happens.
        """
        if not self._closed:
            self._loop.call_soon_threadsafe(self._session.interrupt)

    def restart(self) -> None:
        """Begins again with a fresh guest."""
        self._count = 0
        self._wait(self._session.restart())

    def close(self) -> None:
        """Ends the guest; what it wrote to /tmp and its home is gone."""
        if not self._closed:
            self._closed = True
            self._wait(self._session.close())
            self._end_loop()

    def _end_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def _error(error: ProtocolError | GuestLost) -> Error:
    if isinstance(error, GuestLost):
        evalue = f"{LOSSES.get(error.ename, '')} ({error.detail})"
        return Error(error.ename, evalue, [], lost=True)
    return Error(type(error).__name__, str(error))
