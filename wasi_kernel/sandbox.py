"""Sandbox: the kernel's guest for scripts, without Jupyter.

    with Sandbox() as box:
        r = box.run("import numpy as np; np.arange(3).sum()")
        r.text, r.stdout, r.data["text/plain"], r.error

One class, and long for its docstrings: they are what users read of it.

Never imports wasmtime or anything of Jupyter.
"""

from __future__ import annotations

import asyncio
import os
import re
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self, TypeVar

from wasi_kernel import caches, calls, chosen, launch, spawn, spreading
from wasi_kernel.errors import (
    CallError,
    GuestLost,
    InstallationError,
    ProtocolError,
    SessionFileError,
    UnknownCheckpointError,
)
from wasi_kernel.frontend import Frontend
from wasi_kernel.loopthread import LoopThread
from wasi_kernel.policy import Policy
from wasi_kernel.results import Error, Result, failure, line
from wasi_kernel.session import Session
from wasi_kernel.timelimits import within

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable
    from types import TracebackType

    from wasi_kernel.frames import Frame
    from wasi_kernel.spawn import Worker

T = TypeVar("T")
PARKED_NAME = re.compile("[0-9a-f]{16}")
MAX_DEADLINE_S = 10 * 365 * 24 * 3600.0


class Sandbox:
    """One guest that keeps its variables between runs. Use it in a `with` statement.

    All methods may be called from any thread; runs are done one at a time. The policy's packages
    are fetched when they were not yet, which asks an index.

    Args:
        policy: What the guest may reach; the default grants no host folder.
        work: A host folder to show, read-only, as `/work`.
        on_output: Called with each output as it happens (see `Result.outputs`), on a thread of
            the sandbox's own; also with those of tasks that a run has left running.
        on_status: Called with a text while the sandbox is being prepared (the first time only).
        resume: A session file to go on from, with all its variables; see `save`.

    Raises:
        PolicyError: The policy asks for what cannot be granted.
        PackageError: The policy's packages cannot be had; says why.
        SessionFileError: The session file cannot be used; says why.
        InstallationError: On entering: the sandbox cannot start; says why.
    """

    def __init__(
        self,
        policy: Policy | None = None,
        *,
        work: str | os.PathLike[str] | None = None,
        on_output: Callable[[dict[str, Any]], None] | None = None,
        on_status: Callable[[str], None] | None = None,
        resume: str | os.PathLike[str] | None = None,
        _begin: launch.Start = launch.FRESH,
        _worker: Worker | None = None,
        _patience_s: float = MAX_DEADLINE_S,
    ) -> None:
        from pathlib import Path

        begin = _begin if resume is None else launch.Start(file=Path(resume).absolute())
        self._policy = policy if policy is not None else Policy()
        self._work = None if work is None else Path(work)
        self._on_output, self._on_status = on_output, on_status
        self._closed, self._parked = False, begin.parked
        self._failure: Exception | None = None
        self._answers: set[asyncio.Future[None]] = set()
        self._nursery: spawn.Nursery | None = None
        self._forking = threading.Lock()
        self._closed_files: list[str] = []  # that nobody was told of
        _get_packages(self._policy, on_status)
        self._settings = launch.settings(self._policy, self._work, begin)
        self._count = self._settings.cells
        self._frontend = Frontend(
            self._policy.frontend, self._policy.frontend_mimes,
            output_characters=self._policy.limits.output_bytes,
        )  # fmt: skip
        self._loop = LoopThread()
        try:
            self._session = self._wait(self._open(_worker, _patience_s))
            self._closed_files += self._session.closed_files
        except BaseException:  # raised again: no thread is left behind
            self._loop.end()
            raise

    async def _open(self, waiting: Worker | None, patience_s: float) -> Session:
        worker = None if waiting is None else launch.start(self._settings, worker=waiting)
        session = Session(self._settings, worker)
        report = self._on_status
        if report is not None:
            session.on_status = lambda status: report(status.what)
        try:
            await session.ready(patience_s)
        except BaseException:  # raised again: no worker is left behind
            await session.close(restart=self._parked)
            raise
        return session

    def _wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        try:
            return self._loop.run(coroutine)
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
        on_output = self._shower(result, ask)
        self._session.idling.on_output = self._shower(Result(execution_count=count), None)
        content = {
            "code": code, "silent": False, "store_history": True, "execution_count": count,
            "allow_stdin": ask is not None, "user_expressions": {},
        }  # fmt: skip
        self._session.retry()

        async def request() -> Frame:
            await self._session.settled(MAX_DEADLINE_S, for_cell=True)
            self._tell(result)
            return await self._session.request("execute_request", content, on_output=on_output)

        try:
            reply = await within(deadline_s, request(), self._session, self._policy.limits.grace_s)
        except (ProtocolError, GuestLost) as e:
            result.status, result.error = "error", failure(e)
            return result
        finally:
            raised, self._failure = self._failure, None
        if raised is not None:
            raise raised
        said = self._frontend.execute_reply(reply.content, count)
        result.status = said["status"]
        if result.status != "ok":
            result.error = Error(said["ename"], said["evalue"], said["traceback"])
        return result

    def _shower(
        self, result: Result, ask: Callable[[str, bool], str] | None
    ) -> Callable[[Frame], None]:
        """What puts a run's output into its result."""

        def show(output: dict[str, Any]) -> None:
            result.outputs.append(output)
            if self._on_output is not None:
                self._on_output(output)

        def on_output(frame: Frame) -> None:
            if frame.type == "input_request" and ask is not None:
                self._answers.add(task := asyncio.ensure_future(self._answer(frame, ask)))
                task.add_done_callback(self._answers.discard)
                return
            if self._session.questions.answer_unasked(frame, self._frontend):
                return
            content = self._frontend.output(frame, result.execution_count)
            if content is not None:
                buffers = {"buffers": list(frame.buffers)} if frame.buffers else {}
                show({**content, "type": frame.type, **buffers})
            for note in self._frontend.take_notes():
                show(line(note))

        return on_output

    def _tell(self, result: Result) -> None:
        """Says in a run's standard error what has happened since the last one."""
        said = []
        if (loss := self._session.take_unreported()) is not None:
            said.append(f"between runs: {loss.explanation}")
        if self._closed_files:
            said.append(f"no longer open: {', '.join(self._closed_files)}")
            self._closed_files = []
        result.outputs += [line(self._frontend.note(text)) for text in said]

    async def _answer(self, frame: Frame, ask: Callable[[str, bool], str]) -> None:
        value = "\x04"
        prompt = self._frontend.prompt(frame.content.get("prompt", ""))
        try:
            value = await asyncio.to_thread(ask, prompt, bool(frame.content.get("password")))
        except EOFError:
            value = "\x04"
        except Exception as e:  # noqa: BLE001 - the caller's own; raised after the run
            self._failure = e
        await self._session.questions.answer_input(frame.request, value)

    def install(self, *wanted: str, upgrade: bool = False) -> list[str]:
        """Installs packages, which the code can import from now on, as `%pip install` does.

        Args:
            wanted: Such as "attrs" or "rich>=13"; what they need comes along.
            upgrade: Are newer versions wanted of those that were installed so before?

        Returns:
            What is new, as "name==version".

        Raises:
            PackageError: They cannot be had, or the policy (`pip`) does not allow them; says why.
            GuestLost: The guest died, or something of its state was lost before.
        """
        from wasi_kernel.errors import PackageError

        said: list[str] = []

        def hear(frame: Frame) -> None:
            if (
                self._session.questions.answer_unasked(frame, self._frontend)
                or frame.type != "stream"
            ):
                return
            content = self._frontend.output(frame, self._count)
            if content is not None and content["name"] == "stderr":
                said.append(content["text"])

        try:
            found = self._wait(
                self._evaluate(calls.install(wanted, upgrade=upgrade), "install", hear)
            )
        except CallError as e:
            why = "".join(said).strip().removeprefix("[wasi-kernel] ")
            raise PackageError(why or e.evalue) from None
        if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
            raise ProtocolError("install: the guest's answer is no result")
        return found

    def complete(self, code: str, position: int | None = None) -> dict[str, Any]:
        """What could stand at a position of `code` (in characters; default: its end).

        Returns:
            {"matches": texts, "cursor_start": where they begin, "cursor_end": what they replace}.
        """
        position = len(code) if position is None else position
        content = {"code": code, "cursor_pos": position}
        reply = self._wait(self._look("complete_request", content))
        return self._frontend.complete_reply(reply.content, len(code))

    def is_complete(self, code: str) -> dict[str, Any]:
        """Would this code run? {"status": "complete", "incomplete" (with "indent"), ...}."""
        reply = self._wait(self._look("is_complete_request", {"code": code}))
        return self._frontend.is_complete_reply(reply.content)

    async def _look(self, kind: str, content: dict[str, Any]) -> Frame:
        await self._session.settled(MAX_DEADLINE_S)
        return await self._session.request(kind, content, on_output=self._unheard)

    # -- time travel -------------------------------------------------------------------------

    def undo(self, runs: int = 1) -> None:
        """Makes everything in memory what it was before the last `runs` runs.

        Raises:
            UnknownCheckpointError: There are not so many, or no checkpoints; says why.
        """
        self._wait(self._manage(op="undo", cells=runs))

    def redo(self, runs: int = 1) -> None:
        """Takes back an undo, until something new has run.

        Raises:
            UnknownCheckpointError: There is nothing to redo.
        """
        self._wait(self._manage(op="redo", cells=runs))

    def checkpoint(self, name: str) -> None:
        """Gives the present state a name, by which `restore` finds it.

        Raises:
            UnknownCheckpointError: It cannot be called that; says why.
        """
        self._wait(self._manage(op="name", name=name))

    def restore(self, checkpoint: str | int) -> None:
        """Goes to a named state, or to that after the run with that number.

        Raises:
            UnknownCheckpointError: There is none; says which there are.
        """
        self._wait(self._manage(op="restore", to=str(checkpoint)))

    def checkpoints(self) -> list[dict[str, Any]]:
        """The states that can be gone to, oldest first; see `timeline.rows`."""
        return list(self._wait(self._manage(op="list"))["rows"])

    async def _manage(self, **content: Any) -> dict[str, Any]:
        await self._sound()
        reply = await self._session.request("checkpoint_request", content, on_output=self._unheard)
        if reply.content.get("status") != "ok":
            raise UnknownCheckpointError(str(reply.content.get("evalue")))
        self._closed_files += map(str, reply.content.get("closed_files", []))
        return reply.content

    def _unheard(self, frame: Frame) -> None:
        """Output of what shows nothing; a question would wait for ever."""
        self._session.questions.answer_unasked(frame, self._frontend)

    async def _sound(self) -> None:
        """Waits until the guest is there.

        Raises:
            GuestLost: Something of its state was lost, and nobody was told.
        """
        await self._session.settled(MAX_DEADLINE_S)
        self._session.raise_loss()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Saves the session to a file, from which `Sandbox(resume=path)` goes on.

        What is in the session's own /tmp and home is not saved, nor are open files.

        Raises:
            SessionFileError: There is no state to save; says why.
            OSError: The file cannot be written; what was there stays.
        """
        from pathlib import Path

        from wasi_kernel import __version__, sessionfile

        self._wait(self._kept())
        folder = self._settings.checkpoints
        assert folder is not None  # noqa: S101 - _kept looked
        sessionfile.save(folder.path, Path(path).absolute(), __version__)

    async def _kept(self) -> None:
        """Waits until the present state is on disk."""
        if self._settings.checkpoints is None:
            raise SessionFileError("here", "checkpoints are switched off (checkpoints.enabled)")
        await self._sound()
        await self._session.kept()
        if self._session.problem:
            raise SessionFileError("here", self._session.problem)

    def fork(self) -> Sandbox:
        """A second sandbox with this one's variables; from here on they go separate ways.

        Memory is shared until it is written, what is in the session's own /tmp and home is copied.
        Random numbers go on alike in both. Close it like any other.

        Raises:
            SessionFileError: There are no checkpoints, or the session's files are too many.
        """
        self._wait(self._kept())
        from wasi_kernel import forking

        folder = forking.fork(self._settings, "sandbox")
        try:
            return self._second(launch.Start(folder=folder))
        except BaseException:  # raised again: no folder is left behind
            forking.forget(self._settings, folder)
            raise

    def _second(self, begin: launch.Start) -> Sandbox:
        """Another sandbox with this one's settings, whose worker comes from this one's nursery."""
        with self._forking:
            if self._nursery is None:
                self._nursery = spawn.Nursery()
        worker = self._nursery.spawn()
        try:
            return Sandbox(
                self._policy, work=self._work, on_output=self._on_output,
                on_status=self._on_status, _begin=begin, _worker=worker,
            )  # fmt: skip
        except BaseException:  # raised again: no worker is left behind
            worker.end()
            raise

    def park(self) -> str:
        """Ends the guest and leaves its session on disk, for `unpark`; returns the session's name.

        On disk is what differs from the state that all sessions begin with, usually some
        megabytes, and what is in its /tmp and home; not the files that were open. It stays for a
        week, in the cache of this user, until it is unparked and closed.

        Raises:
            SessionFileError: There are no checkpoints; the sandbox goes on.
        """
        self._wait(self._kept())
        folder = self._settings.checkpoints
        assert folder is not None  # noqa: S101 - _kept looked
        folder.keep(launch.PARKED)
        self._end(restart=True)
        return folder.path.name

    def unpark(self, name: str) -> Sandbox:
        """The parked session of that name goes on, with this sandbox's policy and folders.

        Its worker comes from a process that waits beside this sandbox, so this takes about as long
        as `fork`. Close it like any other, or `park` it again. When this process is killed
        meanwhile, the session can be unparked as it was after its last run, without /tmp and home.

        Raises:
            SessionFileError: There is none, it is in use, or it was parked under another
                configuration; says which. It stays parked.
        """
        if not PARKED_NAME.fullmatch(name):
            raise SessionFileError(name[:100], "that is no name of a parked session")
        try:
            return self._second(launch.Start(folder=name, parked=True))
        except BlockingIOError:
            raise SessionFileError(name, "it is in use") from None
        except FileNotFoundError:
            raise SessionFileError(name, "there is no such parked session here") from None
        except InstallationError as e:
            raise SessionFileError(name, str(e)) from e

    def call(self, function: str, *arguments: Any) -> Any:
        """Calls a function of the guest's `__main__`; arguments and result are JSON-able.

        Nothing is pickled: what a guest has pickled must not be unpickled outside of it.

        Raises:
            CallError: It raised an exception, or its result cannot be said in JSON.
            GuestLost: The guest died of it, or something of its state was lost before.
            ProtocolError: The guest answered something else.
        """
        return self._wait(self._evaluate(calls.call(function, arguments), function))

    async def _evaluate(
        self, expression: str, what: str, on_output: Callable[[Frame], None] | None = None
    ) -> Any:
        await self._sound()
        reply = await self._session.request(
            "execute_request", calls.request(expression, self._count + 1),
            on_output=on_output or self._unheard,
        )  # fmt: skip
        return calls.answer(reply.content, what)

    def map(self, function: str, items: Iterable[Any], *, workers: int | None = None) -> list[Any]:
        """The function's result for each item, computed in forks of this sandbox, in parallel.

        Args:
            function: Name of a function of the guest's `__main__` that takes one argument.
            items: JSON-able arguments.
            workers: How many forks, each a process; default: as many as there are processors.

        Returns:
            The results, JSON-able, in the order of the items. What the calls change in a fork's
            memory is lost with it.

        Raises:
            CallError: A call raised an exception: the first of them, in the order of the items.
            GuestLost: A fork died.
            ValueError: `workers` is less than 1.
        """
        if workers is not None and workers < 1:
            raise ValueError(f"workers = {workers}: at least 1")
        todo = list(items)
        count = min(workers if workers is not None else os.cpu_count() or 1, len(todo))
        return spreading.spread(self._own_fork, function, todo, count)

    def _own_fork(self) -> Sandbox:
        """A fork with random numbers of its own."""
        fork = self.fork()
        try:
            fork._wait(fork._evaluate(calls.RESEED, "reseed"))  # noqa: SLF001 - of the same class
        except BaseException:  # raised again: no fork is left behind
            fork.close()
            raise
        return fork

    # -- the end -----------------------------------------------------------------------------

    def interrupt(self) -> None:
        """Interrupts the run in progress, from any thread: KeyboardInterrupt in the guest.

        Without a run in progress, and after `close`, nothing happens.
        """
        if not self._closed:
            self._loop.soon(self._session.interrupt)

    def restart(self) -> None:
        """Begins again with a fresh guest."""
        self._count = 0
        self._wait(self._session.restart())

    def close(self) -> None:
        """Ends the guest; what it wrote to /tmp and its home is gone."""
        self._end(restart=False)

    def _end(self, *, restart: bool) -> None:
        if not self._closed:
            self._closed = True
            self._wait(self._session.close(restart=restart))
            self._loop.end()
            if self._nursery is not None:
                self._nursery.close()


def _get_packages(policy: Policy, on_status: Callable[[str], None] | None) -> None:
    """Installs the policy's packages if they were not yet, for the Python that its guests have."""
    cache = caches.default_path()
    if not policy.packages or chosen.read(cache, policy) is not None:
        return
    from wasi_kernel import packages

    bare = replace(
        policy, packages=(), grants=(), checkpoints=replace(policy.checkpoints, enabled=False)
    )
    with Sandbox(bare, on_status=on_status) as box:
        python = ".".join(box.python.split(".")[:2])
    if on_status is not None:
        on_status(f"getting the packages {', '.join(policy.packages)}")
    packages.choose(caches.Cache(cache), policy, python)
