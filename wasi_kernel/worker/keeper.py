"""The keeper: one session's guest through all its states, and the checkpoints of them.

Runs on the guest's thread. It makes fresh instances, wakes them at the base image or at a
checkpoint, and commits the state of one that is at rest. Without a folder for checkpoints, or for
a command build, it only makes the one guest.
"""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wasi_kernel import timeline
from wasi_kernel.errors import GuestLost, InstallationError, PageLogError, UnknownCheckpointError
from wasi_kernel.frames import Frame
from wasi_kernel.pagelog import SUFFIX
from wasi_kernel.worker import THREAD_STACK_EXTRA, prepare
from wasi_kernel.worker import engine as engines
from wasi_kernel.worker.checkpoints import Checkpoints
from wasi_kernel.worker.door import Door
from wasi_kernel.worker.guest import Guest, is_reactor
from wasi_kernel.worker.travel import Travel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from wasmtime import Engine, Module

    from wasi_kernel.caches import Cache
    from wasi_kernel.policy import Policy
    from wasi_kernel.runtimes import Runtime
    from wasi_kernel.worker.guest import Preopen
    from wasi_kernel.worker.interrupts import Interrupter
    from wasi_kernel.worker.memory import LinearMemory
    from wasi_kernel.worker.prepare import Plan

LINE_CHARS = 120
NO_IMAGES = "this runtime is a command build, whose memory cannot be kept: there are no checkpoints"
LOOK_S = 60.0


@dataclass(frozen=True)
class Parts:
    """What guests of one session are made of.

    Attributes:
        image: The base image, None for a command build.
        digest: Of the base image.
        notes: What was kept with it.
    """

    engine: Engine
    cache: Cache
    module: Module
    policy: Policy
    runtime: Runtime
    plan: Plan
    preopens: tuple[Preopen, ...]
    image: Path | None
    digest: str
    notes: dict[str, Any]

    @classmethod
    def load(
        cls, cache: Cache, policy: Policy, runtime: Runtime, plan: Plan, work: str | None,
        scratch: Path,
    ) -> Parts | None:  # fmt: skip
        """What the plan names, or None if something of it must be prepared first."""
        engine = engines.make_engine(policy.limits.stack_bytes)
        module = engines.load(engine, cache, plan.module)
        notes = None if plan.image is None else cache.load(plan.image)
        if module is None or (plan.image is not None and notes is None):
            return None
        digest = "" if plan.image is None else cache.sealed_digest(plan.image)
        preopens = prepare.preopens(runtime, plan.bundle, policy, work, scratch)
        return cls(
            engine, cache, module, policy, runtime, plan, tuple(preopens), plan.image, digest,
            notes or {},
        )  # fmt: skip

    @property
    def reactor(self) -> bool:
        """Can guests be imaged?"""
        return is_reactor(self.module)

    def guest(self, door: Door) -> Guest:
        """A fresh instance behind `door`."""
        return Guest(
            self.engine, self.cache, self.module, door, preopens=self.preopens,
            env={**prepare.ENV, **self.policy.env},
            argv=[prepare.ARGV0, "-c", prepare.SERVE], limits=self.policy.limits,
        )  # fmt: skip

    def info(self) -> dict[str, Any]:
        """What `%wasi` shows of them."""
        return {
            "images": self.reactor,
            "python": self.plan.python,
            "runtime": self.runtime.name,
            "wasmtime": engines.wasmtime_version(),
        }


class Keeper:
    """The present guest, and what it was before.

    Attributes:
        guest: The present guest.
        interrupter: Its interrupter, None if it cannot be interrupted softly.
        checkpoints: Where its states are kept; None if they are not.
        travel: What the present cell asks of them.
        problem: Why there are no checkpoints; empty if there are.
        failure: What has gone wrong with them, for the user; empty if nothing.
        stale_fds: fds that the guest takes for open files, and that are not.
    """

    def __init__(self, parts: Parts, door: Door, session: dict[str, Any]) -> None:
        """Makes the guest; `session` names the folder for checkpoints, and how to begin."""
        self._parts, self._door, self._session = parts, door, session
        self.guest = parts.guest(door)
        self.interrupter: Interrupter | None = None
        self.checkpoints: Checkpoints | None = None
        self.problem = NO_IMAGES if not parts.reactor else ""
        self.failure = ""
        self.stale_fds: list[int] = []
        self._damage = ""
        self._unkept: Frame | None = None  # a request whose checkpoint could not be written
        if parts.reactor:
            self._open(parts.image)
        log = None if self.checkpoints is None else self.checkpoints.log
        self.travel = Travel(log, self._look, self.problem)

    def _open(self, image: Path | None) -> None:
        folder = self._session.get("folder")
        if folder is None or image is None:
            self.problem = "checkpoints are switched off (checkpoints.enabled in the policy)"
            return
        try:
            try:
                self.checkpoints = self._begin(Path(folder), image)
            except PageLogError as e:  # of an image that is gone: of no use any more
                self._damage = str(e)
                for path in Path(folder).glob(f"*{SUFFIX}"):
                    path.unlink()
                self.checkpoints = self._begin(Path(folder), image)
        except OSError as e:
            self.problem = self.failure = f"checkpoints cannot be written: {e}"

    def _begin(self, folder: Path, image: Path) -> Checkpoints:
        parts = self._parts
        limits = parts.policy.checkpoints
        return Checkpoints(folder, image, parts.digest, parts.notes["bytes"], limits)

    def close(self) -> None:
        """Frees the guest and closes the log."""
        self.guest.close()
        if self.checkpoints is not None:
            self.checkpoints.close()

    @property
    def head(self) -> int:
        """The checkpoint that stands for the state before the present cell; 0: there is none."""
        if self.checkpoints is None or self._unkept is not None:
            return 0
        return self.checkpoints.log.head

    def make_interruptible(self, words: dict[int, int], is_tripped: int) -> None:
        """From now on the guest can be interrupted from other threads."""
        self.interrupter = self.guest.make_interruptible(words, is_tripped)

    # -- waking ------------------------------------------------------------------------------

    def wake(self) -> dict[str, Any] | None:
        """Wakes the guest where the session is; what was found there, None for its beginning."""
        checkpoints = self.checkpoints
        if checkpoints is None:
            self._wake(0)
            return None
        log = checkpoints.log
        began, target = log.head, log.newest_sound()
        for _ in range(int(self._session.get("skip") or 0)):
            target = log[target].parent if target else 0
        if target != began:
            log.move(target, log[target].notes if target else {})
            self._damage = "; ".join(log.damage) or "the newest could not be used"
        self._wake(target)
        if not target:
            return None
        return {
            "request": log.head_notes.get("request", 0),
            "cell": timeline.cell_of(log[target]),
            "damage": self._damage,
        }

    @property
    def damage(self) -> str:
        """What was found damaged when this worker began; empty if nothing."""
        return self._damage

    def _wake(self, target: int) -> None:
        """Makes the present, fresh instance the guest at that checkpoint, 0: the base image."""
        notes = self._parts.notes
        image, checkpoints = self._parts.image, self.checkpoints
        if image is None:
            raise InstallationError("this runtime's plan has no base image")
        if checkpoints is None:
            self.guest.wake(_from_image(image, notes["bytes"]), notes)
        else:
            state = {**notes, **(checkpoints.log[target].notes if target else {})}
            self.guest.wake(lambda memory: checkpoints.fill(memory, target), state)
            self.stale_fds = list(state["fds"])
        if notes["interrupts"]:
            self.make_interruptible(prepare.words_of(notes), notes["is_tripped"])

    def go_back(self, request: int) -> dict[str, Any]:
        """Replaces the guest by a fresh instance at the travel's target.

        Returns:
            What to tell the kernel process: it has nothing to fear for this request.
        """
        checkpoints, target = self.checkpoints, self.travel.target
        if checkpoints is None or target is None:
            raise GuestLost("WorkerFailed", "nowhere to go back to")
        self.interrupter = None
        self.guest.close()
        self.guest = self._parts.guest(self._door)
        self._wake(target)
        notes = {"request": request, "cell": timeline.cell_of(checkpoints.log[target])}
        checkpoints.log.move(target, notes)
        return {"id": target, "cell": notes["cell"], "moved": True}

    # -- committing --------------------------------------------------------------------------

    def commit(self, frame: Frame) -> dict[str, Any] | None:
        """Writes the checkpoint after `frame`'s turn; what to tell the kernel process."""
        checkpoints = self.checkpoints
        if checkpoints is None:
            return None
        started = time.monotonic()
        if self.interrupter is not None:
            self.interrupter.withdraw()
        log = checkpoints.log
        before = timeline.cell_of(log[log.head]) if log.head else 0
        notes = {**_about(frame, before), **self.guest.notes()}
        if self._unkept is not None:  # what changed is more than this request's doing
            notes["kind"] = "cell"
        try:
            with self._still():
                found = checkpoints.commit(self.guest.memory, notes)
            self._unkept = None
            if self.travel.name is not None:
                checkpoints.log.name(self.travel.name, found.id)
            with self._still():
                checkpoints.tidy(self.guest.memory)
        except OSError as e:
            self._unkept = self._unkept or frame
            self.travel.problem = f"the last one could not be written: {e.strerror}"
            return {"problem": f"the checkpoint could not be written: {e.strerror}"}
        self.travel.problem = ""
        return {
            "id": found.id, "cell": notes["cell"], "pages": found.written,
            "ms": round(1e3 * (time.monotonic() - started), 2),
        }  # fmt: skip

    @contextlib.contextmanager
    def _still(self) -> Iterator[None]:
        """While its body runs, no other thread writes to the guest's memory."""
        with self._door.still():
            if self.interrupter is None:
                yield
            else:
                with self.interrupter.still():
                    yield

    def name_head(self, name: str) -> None:
        """Names the present state."""
        if self.checkpoints is not None:
            self.checkpoints.log.name(name, self.checkpoints.log.head)

    # -- looking -----------------------------------------------------------------------------

    def _look(self, ident: int) -> dict[str, Any]:
        """The variables at a checkpoint, as a second guest that is woken there describes them."""
        checkpoints = self.checkpoints
        found: dict[str, Any] = {}
        if checkpoints is None:
            return found

        def show(memory: LinearMemory) -> None:
            checkpoints.show(memory, ident)

        def look() -> None:
            capture = prepare.Capture()
            limits = self._parts.policy.limits
            door = Door(
                capture, output_bytes=limits.output_bytes, message_bytes=limits.message_bytes
            )
            guest = self._parts.guest(door)
            try:
                notes = {**self._parts.notes, **checkpoints.log[ident].notes, "fds": []}
                guest.wake(show, notes)
                door.begin(Frame("boot_request", {"phase": "look"}, 1))
                guest.turn(prepare.TURN)
                door.end()
                found.update(capture.reply())
            finally:
                guest.close()

        # a thread of its own: this one's stack is the present guest's
        size = threading.stack_size(self._parts.policy.limits.stack_bytes + THREAD_STACK_EXTRA)
        thread = threading.Thread(target=look, daemon=True)
        thread.start()
        threading.stack_size(size)
        thread.join(LOOK_S)
        if not found:
            raise UnknownCheckpointError("that state cannot be looked at")
        return found


def _from_image(image: Path, size: int) -> Callable[[Any], None]:
    from wasi_kernel.worker import images

    return lambda memory: images.restore(memory, image, size)


def _about(frame: Frame, cell: int) -> dict[str, Any]:
    """The notes of a checkpoint that come from the request before it; `cell`: the last one."""
    content = frame.content
    if frame.type == "boot_request":
        kind = "start"
    elif frame.type != "execute_request":
        kind = "comm"
    else:
        stored = content.get("store_history") and not content.get("silent")
        kind = "cell" if stored and not _only_looks(content) else "aside"
        cell = content["execution_count"] if stored else cell
    lines = [line for line in str(content.get("code", "")).splitlines() if line.strip()]
    return {
        "kind": kind,
        "cell": cell,
        "line": lines[0][:LINE_CHARS] if lines else "",
        "time_s": round(time.time(), 3),
        "request": frame.request,
    }


LOOKING = ("%checkpoints", "%checkpoint", "%diff", "%wasi", "%save_session", "%fork")
"""A cell of nothing but these is no step to undo."""


def _only_looks(content: dict[str, Any]) -> bool:
    lines = [line.split() for line in str(content.get("code", "")).splitlines() if line.strip()]
    return all(line[0] in LOOKING for line in lines)
