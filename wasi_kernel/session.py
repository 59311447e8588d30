"""Session: an async handle on a worker, valid across the worker's deaths.

One request at a time; what the guest shows arrives, in order, at the request's `on_output` before
its reply. A worker that dies is replaced at once; the new one takes up the last checkpoint, and
then the request in progress ends with `GuestLost`, which says what is left. The module is long
because all of this is one state machine (`STATES`): whatever a worker says or does ends up here.

Never imports wasmtime or anything of Jupyter.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from wasi_kernel import frames, launch
from wasi_kernel.errors import (
    AgentMissingError,
    GuestLost,
    InstallationError,
    Kept,
    ProtocolError,
    WasiKernelError,
)
from wasi_kernel.frames import Frame
from wasi_kernel.pip import Pip
from wasi_kernel.timelimits import Watch

if TYPE_CHECKING:
    from collections.abc import Callable

    from wasi_kernel.frontend import Frontend
    from wasi_kernel.launch import Settings
    from wasi_kernel.spawn import Worker

    OnOutput = Callable[[Frame], None]

SECOND_INTERRUPT_S = 1.0
"""An interrupt this long after another one that brought nothing means that it is meant."""

HEEDLESS = 3
"""So many interrupts, each seen by the cell and each ignored, and the next one stops it."""

GIVEN_UP = 9
"""So many starts that failed one after another, each from twice as far back as the one before, and
the next one begins anew; and the one after that is the last."""

CHANGING = ("execute_request", "comm_open", "comm_msg", "comm_close")
"""Requests that change variables, after which a checkpoint is written."""

KILLED = 10
"""So many starts that were killed from outside (SIGKILL), one after the other, are too many. That
says nothing against the state that was to be taken up."""

STATES: dict[str, frozenset[str]] = {
    "starting": frozenset({"ready", "preparing", "broken", "starting", "closed"}),
    "preparing": frozenset({"starting", "preparing", "broken", "closed"}),
    "ready": frozenset({"starting", "closed"}),
    "broken": frozenset({"starting", "closed"}),
    "closed": frozenset(),
}
"""What a session may become from each state. broken: the installation must be repaired first."""


@dataclass
class Status:
    """What a session that is not ready yet is doing.

    Attributes:
        what: In a few words; empty if nothing worth saying.
        fraction: How much of it is done, from 0 to 1, if known.
        left_s: About how many seconds are left, if known.
    """

    what: str = ""
    fraction: float | None = None
    left_s: float | None = None

    @property
    def line(self) -> str:
        """All of it in one line, for the user."""
        text = self.what[:1].upper() + self.what[1:]
        if self.fraction is not None:
            text += f", {100 * self.fraction:.0f} % done"
        if self.left_s is not None:
            text += f", about {max(1, round(self.left_s))} s left"
        elif self.fraction is not None and self.fraction >= 0.99:
            text += ", longer than estimated"
        return text + " ..."


@dataclass
class _Request:
    number: int
    on_output: OnOutput
    reply: asyncio.Future[Frame]
    interrupts: list[float] = field(default_factory=list)
    seen: int = 0
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
        self._decoders: tuple[frames.Decoder, frames.Decoder] = (frames.Decoder(), frames.Decoder())
        self._tasks: set[asyncio.Task[Any]] = set()
        self._last_words = ""  # of guests that did not get ready
        self._failed_boots = self._killed_boots = 0
        self._unanswered = 0  # cells in a row that the guest has not answered: is its state sound?
        self._waits: set[asyncio.Future[None]] = set()
        self._interrupted_early = False
        self._prepared = self._compiled = self._was_ready = False
        self._moved_at = time.monotonic()  # when a step was begun, or went on
        self._unreported: GuestLost | None = None
        self._loss: GuestLost | None = None  # what happened, until it is known what is left
        self._kept_cells: deque[tuple[int, int]] = deque(maxlen=1000)  # (request, cell)
        self._unkept: dict[int, int] = {}  # {request: cell} that ended and have no checkpoint yet
        self._pip = Pip(settings.policy, settings.cache, settings.installed)
        self._installing: asyncio.Task[None] | None = None
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
        self._worker = worker if worker is not None else launch.start(settings)
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
        return self._worker.pid

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
        loss, self._unreported = self._unreported, None
        return loss

    def raise_loss(self) -> None:
        """For those who ask about the state without running anything: was something lost of it?

        Raises:
            GuestLost: Yes, and nobody was told; told once.
        """
        loss = self._unreported
        if loss is not None and (
            loss.kept is None or loss.kept.lost_cells or loss.kept.lost_widgets or loss.kept.damage
        ):
            self._unreported = None
            raise loss

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
            current = self._current = _Request(self._number, on_output, future)
            current.cell = content.get("execution_count", 0) if kind == "execute_request" else 0
            current.changes = kind in CHANGING
            current.watch = Watch(
                self._settings.policy.limits, self._worker.cpu_s, self.interrupt, self.stop
            )
            sending = self._spawn(self._send(data))
            try:
                reply = await future
            finally:
                sending.cancel()
                self._end_installing()
                self._current = None
                current.watch.cancel()
                self.passed = current.watch.passed
            if current.failure is not None:
                raise current.failure
            return reply

    async def answer_input(self, request: int, value: str) -> None:
        """Answers the input_request of that request, if it is still the one in progress."""
        try:
            await self._answer(Frame("input_reply", {"value": value}, request))
        except frames.FrameError:  # no line that anyone typed: end of file
            await self._answer(Frame("input_reply", {"value": "\x04"}, request))

    async def answer_bytes(self, request: int, data: bytes) -> None:
        """Answers an input_request for bytes; none at all mean the end of the input."""
        await self._answer(Frame("input_reply", {"value": ""}, request, {}, (data,)))

    async def _answer(self, frame: Frame) -> None:
        if self.current_request == frame.request:
            await self._send(frames.encode(frame))

    def answer_unasked(self, frame: Frame, frontend: Frontend) -> bool:
        """Answers a question that is for no user; False if `frame` is no question."""
        if frame.type == "frontend_request":
            self._spawn(self._answer(Frame("frontend_reply", frontend.report(), frame.request)))
        elif frame.type == "input_request":  # nobody is there to be asked: end of file
            self._spawn(self.answer_input(frame.request, "\x04"))
        elif frame.type == "pip_request":
            self._end_installing()
            self._installing = self._spawn(self._install(frame))
        return frame.type in frames.QUESTIONS

    async def _install(self, frame: Frame) -> None:
        """Answers a pip_request; what it says on its way is output of the request in progress."""

        def say(name: str, text: str) -> None:
            if self.current_request == frame.request:
                content = {"name": name, "text": text}
                self._received(Frame("stream", content, frame.request))

        version = str(self.facts.get("version", ""))
        said = await self._pip.answer(frame.content, version, say)
        await self._answer(Frame("pip_reply", said, frame.request))

    def _end_installing(self) -> None:
        """Nobody waits any more for what is being installed: nothing of it will be."""
        if self._installing is not None and not self._installing.cancelling():
            self._installing.cancel()

    def interrupt(self) -> None:
        """Interrupts the request in progress: softly first, then by stopping the guest."""
        self._end_installing()
        for wait in self._waits:
            if not wait.done():
                wait.set_result(None)
        current = self._current
        if current is None or self._state != "ready":
            return
        now = time.monotonic()
        earlier = [at for at in current.interrupts if now - at >= SECOND_INTERRUPT_S]
        if earlier and current.seen == 0:
            self.stop(
                GuestLost("KeyboardInterrupt", "a second interrupt, and no reaction to the first")
            )
            return
        if len(current.interrupts) >= HEEDLESS and earlier:
            self.stop(GuestLost("KeyboardInterrupt", "it caught every interrupt and went on"))
            return
        if not current.interrupts or now - current.interrupts[-1] >= SECOND_INTERRUPT_S:
            current.interrupts.append(now)
        data = frames.encode(Frame("interrupt_request", {}, current.number))
        with contextlib.suppress(OSError):
            self._worker.control.send(data)

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
            self._loss = GuestLost("WorkerKilled", "restarted")
            self._failed_boots = 0
            self.generation += 1
            self._replace("starting", "serve", clean=True)
        await self.ready()
        self._unreported = None

    async def forked(self, name: str) -> str:
        """The folder of a new session that begins where this one is; see `launch.fork`."""
        self.fork_wanted = None
        await self.kept()
        return await asyncio.to_thread(launch.fork, self._settings, name)

    async def kept(self) -> None:
        """Waits until the last request's checkpoint is written, or cannot be."""
        async with self._changed:
            await self._changed.wait_for(
                lambda: not self._unkept or self.problem or self._state == "closed"
            )

    async def close(self, *, restart: bool = False) -> None:
        """Ends the guest and removes the session's private folders.

        Args:
            restart: The next process with the same connection file may go on where this one is,
                if the policy says so; then what has to stay stays.
        """
        if self._state == "closed":
            return
        self._become("closed")
        self._silence()
        self._worker.end()
        self._fail(GuestLost("WorkerKilled", "the session was closed"))
        self._end_installing()
        if self._installing is not None:
            await asyncio.wait({self._installing})
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
            skip = 1 << self._failed_boots - 1 if self._failed_boots else 0
            self._worker = launch.start(self._settings, task, skip=skip, probe=self._unanswered > 0)
        except OSError as e:
            self._broken = InstallationError(f"no worker process can be started: {e}")
            self._become("broken")
            return
        self._decoders = (frames.Decoder(), frames.Decoder())
        self._listen()

    def _listen(self) -> None:
        worker = self._worker
        self._moved_at = time.monotonic()
        for k, sock in enumerate((worker.requests, worker.control)):
            sock.setblocking(False)
            self._loop.add_reader(sock.fileno(), self._readable, worker, k)

    def _silence(self) -> None:
        for sock in (self._worker.requests, self._worker.control):
            if sock.fileno() >= 0:
                self._loop.remove_reader(sock.fileno())
                self._loop.remove_writer(sock.fileno())  # of a send that is still under way

    async def _send(self, data: bytes) -> None:
        try:
            await self._loop.sock_sendall(self._worker.requests, data)
        except (OSError, ValueError):
            return  # the worker is gone: its end of stream tells the rest

    def _readable(self, worker: Worker, channel: int) -> None:
        if worker is not self._worker:
            return
        sock = (worker.requests, worker.control)[channel]
        try:
            data = sock.recv(1 << 20)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._ended()
            return
        try:
            for frame in self._decoders[channel].feed(data):
                self._received(frame)
                if worker is not self._worker or self._state == "closed":
                    return
        except frames.FrameError as e:
            self._lost(GuestLost("WorkerFailed", f"the worker spoke no protocol: {e}"))

    def _received(self, frame: Frame) -> None:
        current = self._current
        handle = self._handlers.get(frame.type)
        if self._state != "ready" and frame.type == "stream":
            self._last_words = (self._last_words + str(frame.content.get("text", "")))[-2000:]
        if handle is not None:
            handle(frame)
        elif current is None or frame.request != current.number:
            return  # of a request that is over
        elif frame.type.endswith("_reply"):
            frame = frame if current.watch is None else current.watch.named(frame)
            if not current.reply.done():
                self._unanswered = 0
                if current.changes:
                    self._unkept[current.number] = current.cell
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
            evalue = frame.content.get("evalue")
            self._break(InstallationError(f"the guest does not start: {evalue}"))
        elif self._state == "preparing" and frame.content.get("again") and not self._compiled:
            self._compiled = True
            self._replace("preparing", "prepare")
        elif self._state == "preparing":
            self._prepared = True
            self._replace("starting", "serve")
        else:
            self.facts = frame.content
            self.status = Status()
            self.problem = str(frame.content.get("problem", ""))
            if self._prepared:  # the cache has grown
                from wasi_kernel import upkeep

                upkeep.sweep_beside(self._settings.cache)
            self._failed_boots, self._killed_boots = 0, 0
            self._prepared = self._compiled = False
            self._become("ready")
            self._tell(frame.content)
            if frame.content.get("starts"):  # its first checkpoint is on the way
                self._unkept[launch.BOOT] = 0
            if not self._was_ready:
                kept = self._kept_by(frame.content)
                self.closed_files = () if kept is None else kept.closed_files
            self._was_ready = True

    def _tell(self, said: dict[str, Any]) -> None:
        """Ends the request that lost its guest, now that it is known what is left."""
        kept = self._kept_by(said)
        self._unkept.clear()
        self._kept_cells.clear()
        loss, self._loss = self._loss, None
        if loss is None:
            return
        loss.kept, loss.in_cell = kept, self._current is not None
        if self._current is None:
            self._unreported = loss
        self._fail(loss)

    def _remember(self, frame: Frame) -> None:
        """Takes note of what is kept from here on: it is missed if it is gone one day."""
        if frame.content.get("moved"):
            self._kept_cells.clear()
        else:
            done = [(n, c) for n, c in self._unkept.items() if n <= frame.request]
            self._kept_cells.extend(done)
        self._unkept = {n: c for n, c in self._unkept.items() if n > frame.request}

    def _kept_by(self, said: dict[str, Any]) -> Kept | None:
        """What the new guest has of the old one; None if nothing."""
        resumed, closed = said.get("session"), said.get("closed_files")
        if not isinstance(resumed, dict):  # a command build's guest answers by itself: anything
            return None
        request, cell = resumed.get("request"), resumed.get("cell")
        if not isinstance(request, int) or not isinstance(cell, int):
            return None
        known = (*self._kept_cells, *self._unkept.items())
        later = {c for n, c in known if n > request and n != launch.BOOT}
        lost = tuple(sorted(later - {0}))
        names = tuple(map(str, closed)) if isinstance(closed, list) else ()
        return Kept(cell, lost, names, str(said.get("damage", "")), lost_widgets=0 in later)

    def _checkpointed(self, frame: Frame) -> None:
        """A checkpoint was written, or could not be; or memory went back to one."""
        if (fork := frame.content.get("fork")) is not None:
            self.fork_wanted = str(fork)
            return
        self.problem = str(frame.content.get("problem", ""))
        if not self.problem:
            self.problem = str(frame.content.get("warning", ""))
            self._remember(frame)
            if self._current is not None and frame.request == self._current.number:
                self._current.changes = False
        self._spawn(self._notify())

    def _interrupt_replied(self, frame: Frame) -> None:
        current = self._current
        if current is None or frame.request != current.number:
            return
        if frame.content.get("seen"):
            current.seen += 1
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
        self._silence()
        how = self._worker.end(wait_s=0.5)
        ename = "WorkerKilled" if how == "killed by signal 9" else "WorkerFailed"
        self._lost(GuestLost(ename, f"the worker process: {how}"))

    def _lost(self, loss: GuestLost, *, clean: bool = False) -> None:
        """The guest is gone: start the next one; who waits is told when that one is there.

        `clean`: its checkpoints are not to be used.
        """
        if self._state == "closed":
            return
        if self._state != "ready":
            self._failed_boots += loss.ename != "WorkerKilled"
            self._killed_boots += loss.ename == "WorkerKilled"
            most = GIVEN_UP if self._settings.checkpoints is not None else 1
            if self._failed_boots > most or self._killed_boots > KILLED:
                lines = self._last_words.strip().splitlines()
                said = f"; its last words: {lines[-1][:300]}" if lines else ""
                self._break(InstallationError(f"the sandbox does not start: {loss}{said}"))
                return
            if self._settings.resumed and not self._was_ready and self._failed_boots > 1:
                self._break(InstallationError(f"the saved session does not start: {loss}"))
                return
            clean = clean or self._failed_boots == most
        if self._loss is None:
            self._loss = loss if self._current is None else self._current.loss or loss
        self._unanswered += loss.ename == "GuestDesynchronized"
        self.generation += 1
        self.status = Status("starting a new sandbox")
        self._replace("starting", "serve", clean=clean)

    def _replace(self, state: str, task: str, *, clean: bool = False) -> None:
        if task == "prepare" and self._prepared:
            self._break(
                InstallationError("what was prepared cannot be loaded; try: wasi-kernel prepare")
            )
            return
        self._silence()
        self._worker.end()
        if clean and self._settings.checkpoints is not None:
            self._settings.checkpoints.clear(spare=launch.SPARED)
        self._become(state)
        self._restart(task)

    def _break(self, error: InstallationError) -> None:
        self._silence()
        self._worker.end()
        self._broken, self._failed_boots, self._killed_boots = error, 0, 0
        self._prepared = self._compiled = False
        if self._state == "ready":
            self._become("starting")
        self._become("broken")
        self._loss = None
        self._fail(GuestLost("WorkerFailed", str(error)))

    def _fail(self, loss: GuestLost) -> None:
        current = self._current
        if current is not None and not current.reply.done():
            current.reply.set_exception(current.loss or loss)
