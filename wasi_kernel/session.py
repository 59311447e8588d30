"""Session: an async handle on a worker, valid across the worker's deaths.

One request at a time; what the guest shows arrives, in order, at the request's `on_output` before
its reply. A worker that dies is replaced at once; the new one takes up the last checkpoint, and
then the request in progress ends with `GuestLost`, which says what is left. What can be decided
by itself has its own module (starts, losses, the ladder, questions). This one is long because the
rest is one state machine (`STATES`): whatever a worker says or does ends up here.

Never imports wasmtime or anything of Jupyter.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from wasi_kernel import frames, idling, launch
from wasi_kernel.errors import (
    AgentMissingError,
    GuestLost,
    InstallationError,
    ProtocolError,
    WasiKernelError,
)
from wasi_kernel.frames import Frame
from wasi_kernel.idling import Idling
from wasi_kernel.ladder import Ladder
from wasi_kernel.link import Link
from wasi_kernel.losses import Losses
from wasi_kernel.pip import Pip
from wasi_kernel.questions import Questions
from wasi_kernel.starts import Starts, Status
from wasi_kernel.timelimits import Watch

if TYPE_CHECKING:
    from collections.abc import Callable

    from wasi_kernel.launch import Settings
    from wasi_kernel.spawn import Worker

    OnOutput = Callable[[Frame], None]

CHANGING = ("execute_request", "comm_open", "comm_msg", "comm_close", idling.KIND)
"""Requests that change variables, after which a checkpoint is written."""

STATES: dict[str, frozenset[str]] = {
    "starting": frozenset({"ready", "preparing", "broken", "starting", "closed"}),
    "preparing": frozenset({"starting", "preparing", "broken", "closed"}),
    "ready": frozenset({"starting", "closed"}),
    "broken": frozenset({"starting", "closed"}),
    "closed": frozenset(),
}
"""What a session may become from each state. broken: the installation must be repaired first."""


@dataclass
class _Request:
    kind: str
    number: int
    on_output: OnOutput
    reply: asyncio.Future[Frame]
    ladder: Ladder = field(default_factory=Ladder)
    failure: Exception | None = None  # what the caller's on_output raised first
    loss: GuestLost | None = None  # why we ourselves stopped the worker
    cell: int = 0  # its execution count
    watch: Watch | None = None  # of its limits of time, from when it is sent
    changes: bool = False  # must its effects be kept, and are they not yet?


class Session:
    """One guest, its worker, and the workers that follow it.

    Attributes:
        facts: What the guest said at its boot: its Python version and version.
        status: What is going on while the session is not ready.
        generation: How many guests there have been before this one.
        problem: What has gone wrong with the checkpoints; empty if nothing.
        closed_files: Files that were open in the state that the session began with.
        questions: Answers what the guest asks.
        idling: Gives the guest turns for what its cells have left running.
        fork_wanted: The name of a fork that a cell has asked for, or None.
        passed: Which limit of time the last request has passed, also if it caught the interrupt.
    """

    def __init__(self, settings: Settings, worker: Worker | None = None) -> None:
        """Takes over `worker`, which was started with the same settings, or starts one.

        With settings that are a refusal, the session is broken and stays so.

        Must be called where an event loop runs.
        """
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._state = "starting"
        self._changed = asyncio.Condition()
        self._turn = asyncio.Lock()
        self._number = launch.BOOT
        self._current: _Request | None = None
        self._broken: WasiKernelError | None = settings.refusal
        self._tasks: set[asyncio.Task[Any]] = set()
        self._starts = Starts(keeps=settings.checkpoints is not None, resumed=settings.resumed)
        self._life = launch.Life()
        self._unanswered = 0  # cells in a row that the guest has not answered: is its state sound?
        self._waits: set[asyncio.Future[None]] = set()
        self._interrupted_early = False
        self._moved_at = time.monotonic()  # when a step was begun, or went on
        self._losses = Losses(launch.BOOT)
        self.questions = Questions(
            Pip(settings.policy, settings.cache, settings.installed),
            in_progress=lambda: self.current_request,
            python=lambda: str(self.facts.get("version", "")),
            send=self._send,
            show=self._received,
        )
        self.idling = Idling(
            settings.policy.limits,
            cpu_s=self._cpu_s,
            request=self.request,
            free=lambda: self._state == "ready" and not self._turn.locked(),
        )
        self.problem = ""
        self.closed_files: tuple[str, ...] = ()
        self.fork_wanted: str | None = None
        self.passed: GuestLost | None = None
        self._handlers: dict[str, Callable[[Frame], None]] = {
            "progress": self._progressed,
            "unprepared": lambda _frame: self._replace("preparing", "prepare"),
            "boot_reply": self._booted,
            "lost": self._said_lost,
            "interrupt_reply": self._interrupt_replied,
            "checkpoint": self._checkpointed,
        }
        self.facts: dict[str, Any] = {}
        self.status = Status("starting the sandbox")
        self.on_status: Callable[[Status], None] = lambda _status: None
        self.generation = 0
        self._link = self._linked(worker if worker is not None else launch.start(settings))
        if self._broken is not None:
            self._state = "broken"
        else:
            self._listen()

    # -- for users ---------------------------------------------------------------------------

    @property
    def state(self) -> str:
        """One of `STATES`."""
        return self._state

    @property
    def current_request(self) -> int:
        """Number of the request in progress, 0 if there is none."""
        return 0 if self._current is None else self._current.number

    @property
    def worker_pid(self) -> int:
        """Process number of the present worker."""
        return self._link.worker.pid

    async def ready(self, patience_s: float = 10 * 365 * 24 * 3600.0) -> None:
        """Waits until the guest can work.

        Args:
            patience_s: How long one step of its start may go on without a word.

        Raises:
            InstallationError: It never will, or is too slow; says why. `retry` tries again.
            KeyboardInterrupt: `interrupt` was called meanwhile.
        """
        left_s = self._moved_at + patience_s - time.monotonic()
        while not self._interrupted_early and not await self.settled(left_s, for_cell=True):
            left_s = self._moved_at + patience_s - time.monotonic()
            if left_s <= 0:
                said = f" after: {self.status.what}" if self.status.what else ""
                raise InstallationError(f"it hangs: nothing has happened in {patience_s:g} s{said}")
        if self._interrupted_early:
            self._interrupted_early = False
            raise KeyboardInterrupt("interrupted while the sandbox was being made ready")
        if self._state == "closed":
            raise GuestLost("WorkerKilled", "the session is closed")
        if self._state == "broken":
            assert self._broken is not None  # noqa: S101 - set with the state
            raise self._broken

    def take_unreported(self) -> GuestLost | None:
        """A loss that nobody was told of, since no request was in progress; given once."""
        return self._losses.take_unreported()

    def leave_unreported(self, loss: GuestLost) -> None:
        """Whoever was told of this loss has nobody to tell: it is as if nobody was."""
        self._losses.leave_unreported(loss)

    def raise_loss(self) -> None:
        """For those who ask about the state without running anything: was something lost of it?

        Raises:
            GuestLost: Yes, and nobody was told; told once.
        """
        self._losses.raise_unreported()

    def retry(self) -> None:
        """A new cell: tries a broken session anew, and forgets an interrupt of the last one."""
        self._interrupted_early = False
        if self._state == "broken" and self._settings.refusal is None:
            self._become("starting")
            self._restart("serve")

    async def settled(self, timeout_s: float, *, for_cell: bool = False) -> bool:
        """Waits that long for the session to be ready, broken or closed.

        With `for_cell`, an interrupt ends the wait as well, and the request that follows.
        """
        if self._state in ("ready", "broken", "closed"):
            return True
        wait: asyncio.Future[None] = self._loop.create_future()
        if for_cell:
            self._waits.add(wait)
        over = asyncio.ensure_future(self._over())
        try:
            done, _ = await asyncio.wait(
                {over, wait}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED
            )
            self._interrupted_early = self._interrupted_early or wait.done()
            return bool(done)
        finally:
            over.cancel()
            self._waits.discard(wait)

    async def _over(self) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self._state in ("ready", "broken", "closed"))

    async def request(
        self,
        kind: str,
        content: dict[str, Any],
        *,
        on_output: OnOutput,
        metadata: dict[str, Any] | None = None,
        buffers: tuple[Any, ...] = (),
    ) -> Frame:
        """Sends one request to the guest and waits for its reply.

        Args:
            kind: A request type of `frames.TYPES`.
            content: Its content.
            on_output: Called with each frame that the guest shows meanwhile, in order.
            metadata: Its metadata.
            buffers: Its binary attachments.

        Returns:
            The reply.

        Raises:
            GuestLost: The guest died; a new one is being started.
            InstallationError: There is no guest and there will be none; says why.
            KeyboardInterrupt: Interrupted while the guest was not ready yet.
            ProtocolError: The request is too large to be sent; nothing was.
            Exception: What `on_output` raised, after the reply; it missed nothing else.
        """
        async with self._turn:
            if self._state != "ready" or self._interrupted_early:
                await self.ready()
            self._number += 1
            future: asyncio.Future[Frame] = self._loop.create_future()
            frame = Frame(kind, content, self._number, metadata or {}, buffers)
            try:
                data = frames.encode(frame)
            except frames.FrameError as e:
                raise ProtocolError(f"this cannot be sent to the sandbox: {e}") from None
            current = self._current = _Request(kind, self._number, on_output, future)
            current.cell = content.get("execution_count", 0) if kind == "execute_request" else 0
            current.changes = kind in CHANGING
            current.watch = Watch(
                self._settings.policy.limits, self._link.worker.cpu_s, self.interrupt, self.stop
            )
            rest = self._link.send_some(data)
            sending = self._spawn(self._send(rest)) if rest else None
            try:
                reply = await future
            finally:
                if sending is not None:
                    sending.cancel()
                self.questions.end_installing()
                self._current = None
                current.watch.cancel()
                self.passed = current.watch.passed
            self.idling.heard(kind, frame.request, reply.content)
            if current.failure is not None:
                raise current.failure
            return reply

    def interrupt(self) -> None:
        """Interrupts the request in progress: softly first, then by stopping the guest."""
        self.questions.end_installing()
        for wait in self._waits:
            if not wait.done():
                wait.set_result(None)
        current = self._current
        if self._state != "ready":
            return
        if current is None or current.kind == idling.KIND:
            self.idling.cancel("interrupted")
        if current is None:
            return
        if (why := current.ladder.climb(time.monotonic())) is not None:
            self.stop(GuestLost("KeyboardInterrupt", why))
            return
        self._link.send_control(frames.encode(Frame("interrupt_request", {}, current.number)))

    def stop(self, loss: GuestLost) -> None:
        """Stops the guest from outside; the request in progress ends with `loss`."""
        if self._state != "ready":
            return
        if self._current is not None:
            watch = self._current.watch
            self._current.loss = loss = (watch and watch.passed) or loss
        self._lost(loss)

    async def restart(self) -> None:
        """Gives the session a new guest, which knows nothing of the old one."""
        if self._state in ("ready", "starting"):
            self._losses.replace(GuestLost("WorkerKilled", "restarted"))
            self._starts.forgive()
            self._life = launch.Life()
            self.generation += 1
            self._replace("starting", "serve", clean=True)
        await self.ready()
        self._losses.take_unreported()

    async def forked(self, name: str) -> str:
        """The folder of a new session that begins where this one is; see `forking.fork`."""
        self.fork_wanted = None
        await self.kept()
        from wasi_kernel import forking  # few sessions are

        return await asyncio.to_thread(forking.fork, self._settings, name)

    async def kept(self) -> None:
        """Waits until the last request's checkpoint is written, or cannot be."""
        self.idling.hold(1)
        try:
            async with self._changed:
                await self._changed.wait_for(
                    lambda: self._losses.all_kept or self.problem or self._state == "closed"
                )
        finally:
            self.idling.hold(-1)

    async def close(self, *, restart: bool = False) -> None:
        """Ends the guest and removes the session's private folders.

        Args:
            restart: The next process with the same connection file may go on where this one is,
                if the policy says so; then what has to stay stays.
        """
        if self._state == "closed":
            return
        self._become("closed")
        self.idling.close()
        self._link.silence()
        self._link.worker.end()
        self._fail(GuestLost("WorkerKilled", "the session was closed"))
        await self.questions.close()
        for task in self._tasks:
            task.cancel()
        self._settings.release(restart=restart)
        async with self._changed:
            self._changed.notify_all()

    # -- the worker --------------------------------------------------------------------------

    def _become(self, state: str) -> None:
        if state not in STATES[self._state]:
            raise ProtocolError(f"a session cannot become {state} from {self._state}")
        self._state = state
        self._spawn(self._notify())

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def _spawn(self, coroutine: Any) -> asyncio.Task[Any]:
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _restart(self, task: str) -> None:
        try:
            worker = launch.start(
                self._settings, task, skip=self._starts.skip, probe=self._unanswered > 0,
                life=self._life,
            )  # fmt: skip
        except OSError as e:
            self._broken = InstallationError(f"no worker process can be started: {e}")
            self._become("broken")
            return
        self._link = self._linked(worker)
        self._listen()

    def _cpu_s(self) -> float:
        return self._link.worker.cpu_s()

    def _linked(self, worker: Worker) -> Link:
        return Link(worker, self._received, self._ended, self._failed)

    def _listen(self) -> None:
        self._moved_at = time.monotonic()
        self._link.listen()

    async def _send(self, data: bytes) -> None:
        await self._link.send(data)

    def _received(self, frame: Frame) -> None:
        current = self._current
        handle = self._handlers.get(frame.type)
        if self._state != "ready" and frame.type == "stream":
            self._starts.heard(str(frame.content.get("text", "")))
        if handle is not None:
            handle(frame)
        elif current is None or frame.request != current.number:
            return  # of a request that is over
        elif frame.type.endswith("_reply"):
            frame = frame if current.watch is None else current.watch.named(frame)
            if not current.reply.done():
                self._unanswered = 0
                if current.changes:
                    self._losses.ended(current.number, current.cell)
                current.reply.set_result(frame)
        else:
            if current.watch is not None and frame.type == "error":
                frame = current.watch.named(frame)
            try:
                current.on_output(frame)
            except Exception as e:  # noqa: BLE001 - the caller's own; raised after the reply
                current.failure = current.failure or e

    def _progressed(self, frame: Frame) -> None:
        said = frame.content
        self._moved_at = time.monotonic()
        self.status = Status(str(said.get("what")), said.get("fraction"), said.get("left_s"))
        self.on_status(self.status)

    def _booted(self, frame: Frame) -> None:
        failed = frame.content.get("status") != "ok"
        if frame.request != launch.BOOT and not failed:
            return  # a command build's steps before its session
        if failed:
            why = ": ".join(str(frame.content.get(k) or "-") for k in ("ename", "evalue"))
            self._break(InstallationError(f"the guest does not start: {why}"))
        elif (
            self._state == "preparing" and frame.content.get("again") and not self._starts.compiled
        ):
            self._starts.compiled = True
            self._replace("preparing", "prepare")
        elif self._state == "preparing":
            self._starts.prepared = True
            self._replace("starting", "serve")
        else:
            self.facts = frame.content
            self.status = Status()
            self.problem = str(frame.content.get("problem", ""))
            if self._starts.prepared:  # the cache has grown
                from wasi_kernel import upkeep

                upkeep.sweep_beside(self._settings.cache)
            first = not self._starts.was_ready
            self._starts.end(ready=True)
            self._become("ready")
            self._tell(frame.content)
            if frame.content.get("starts"):  # its first checkpoint is on the way
                self._losses.ended(launch.BOOT, 0)
            if first:
                kept = self._losses.left(frame.content)
                self.closed_files = () if kept is None else kept.closed_files

    def _tell(self, said: dict[str, Any]) -> None:
        """Ends the request that lost its guest, now that it is known what is left."""
        loss = self._losses.settle(said, in_cell=self._current is not None)
        if loss is not None:
            self._fail(loss)

    def _checkpointed(self, frame: Frame) -> None:
        """A checkpoint was written, or could not be; or memory went back to one."""
        if (fork := frame.content.get("fork")) is not None:
            self.fork_wanted = str(fork)
            return
        self.problem = str(frame.content.get("problem", ""))
        if not self.problem:
            self.problem = str(frame.content.get("warning", ""))
            self._losses.kept(frame.request, moved=bool(frame.content.get("moved")))
            if self._current is not None and frame.request == self._current.number:
                self._current.changes = False
        self._spawn(self._notify())

    def _interrupt_replied(self, frame: Frame) -> None:
        current = self._current
        if current is None or frame.request != current.number:
            return
        if frame.content.get("seen"):
            current.ladder.seen += 1
        elif frame.content.get("seen") is False:
            grace = self._settings.policy.limits.grace_s
            self.stop(
                GuestLost("KeyboardInterrupt", f"no reaction to the interrupt in {grace:g} s")
            )

    def _said_lost(self, frame: Frame) -> None:
        said = frame.content
        ename, detail = str(said.get("ename")), str(said.get("detail"))
        if said.get("fatal") and ename == AgentMissingError.__name__:
            self._break(AgentMissingError(str(said.get("python")), tuple(said.get("reasons", ()))))
        elif said.get("fatal"):
            self._break(InstallationError(detail))
        else:
            self._lost(GuestLost(ename, detail))

    def _ended(self) -> None:
        """The worker closed its socket without a word."""
        how = self._link.worker.end(wait_s=0.5)
        ename = "WorkerKilled" if how == "killed by signal 9" else "WorkerFailed"
        self._lost(GuestLost(ename, f"the worker process: {how}"))

    def _failed(self, detail: str) -> None:
        self._lost(GuestLost("WorkerFailed", f"the worker spoke no protocol: {detail}"))

    def _lost(self, loss: GuestLost, *, clean: bool = False) -> None:
        """The guest is gone: start the next one; who waits is told when that one is there.

        `clean`: its checkpoints are not to be used.
        """
        if self._state == "closed":
            return
        if self._state != "ready":
            if (why := self._starts.failed(loss)) is not None:
                self._break(InstallationError(why))
                return
            clean = clean or self._starts.anew
        self.idling.lost()
        self._life.deaths += self._state == "ready"
        current = self._current
        self._losses.happened(loss if current is None else current.loss or loss)
        self._unanswered += loss.ename == "GuestDesynchronized"
        self.generation += 1
        self.status = Status("starting a new sandbox")
        self._replace("starting", "serve", clean=clean)

    def _replace(self, state: str, task: str, *, clean: bool = False) -> None:
        if task == "prepare" and self._starts.prepared:
            self._break(
                InstallationError("what was prepared cannot be loaded; try: wasi-kernel prepare")
            )
            return
        self._link.silence()
        self._link.worker.end()
        if clean and self._settings.checkpoints is not None:
            self._settings.checkpoints.clear(spare=launch.SPARED)
        self._become(state)
        self._restart(task)

    def _break(self, error: InstallationError) -> None:
        self._link.silence()
        self._link.worker.end()
        self._broken = error
        self._starts.end(ready=False)
        if self._state == "ready":
            self._become("starting")
        self._become("broken")
        self._losses.replace(None)
        self._fail(GuestLost("WorkerFailed", str(error)))

    def _fail(self, loss: GuestLost) -> None:
        current = self._current
        if current is not None and not current.reply.done():
            current.reply.set_exception(current.loss or loss)
