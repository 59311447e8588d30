"""The keeper: one session's guest through all its states, and the checkpoints of them.

Runs on the guest's thread. It makes fresh instances, wakes them at the base image or at a
checkpoint, and commits the state of one that is at rest. Without a folder for checkpoints, or for
a command build, it only makes the one guest.
"""

from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from wasi_kernel import __version__, sessionfile, timeline
from wasi_kernel.errors import (
    GuestLost,
    InstallationError,
    PageLogError,
    SessionFileError,
    UnknownCheckpointError,
)
from wasi_kernel.frames import Frame
from wasi_kernel.segments import ORIGIN, SUFFIX
from wasi_kernel.sessionfile import Base
from wasi_kernel.worker import THREAD_STACK_EXTRA, binary, dirty, prepare
from wasi_kernel.worker import engine as engines
from wasi_kernel.worker.capture import Capture
from wasi_kernel.worker.checkpoints import Checkpoints
from wasi_kernel.worker.confine import Reach
from wasi_kernel.worker.door import Door
from wasi_kernel.worker.guest import Guest, is_reactor
from wasi_kernel.worker.preopens import for_policy
from wasi_kernel.worker.switchboard import is_wired, wiring
from wasi_kernel.worker.travel import Travel
from wasi_kernel.worker.usage import FILE as USAGE_FILE
from wasi_kernel.worker.usage import Usage, own_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from wasmtime import Engine, Module

    from wasi_kernel.caches import Cache
    from wasi_kernel.policy import Policy
    from wasi_kernel.runtimes import Runtime
    from wasi_kernel.worker.interrupts import Interrupter
    from wasi_kernel.worker.memory import LinearMemory
    from wasi_kernel.worker.preopens import Preopen
    from wasi_kernel.worker.prepare import Plan

LINE_CHARS = 120
NO_IMAGES = "this runtime is a command build, whose memory cannot be kept: there are no checkpoints"
NOT_WRITTEN = "the last checkpoint could not be written"
AT_RISK = "a cell that ends the sandbox takes what is not kept with it"
LOOK_S = 60.0


class Parts(NamedTuple):
    """What guests of one session are made of.

    Attributes:
        base: The base image and what it works with; None for a command build.
        usage: What the session has used of its limits on files.
    """

    engine: Engine
    cache: Cache
    module: Module
    policy: Policy
    runtime: Runtime
    plan: Plan
    preopens: tuple[Preopen, ...]
    base: Base | None
    usage: Usage

    @classmethod
    def load(
        cls, cache: Cache, policy: Policy, runtime: Runtime, plan: Plan, work: str | None,
        scratch: Path, packages: Path | None = None, installed: Path | None = None,
        identities: Mapping[str, Sequence[int]] | None = None,
    ) -> Parts | None:  # fmt: skip
        """What the plan names, or None if something of it must be prepared first.

        All of it is held from now on: a guest that is made anew needs it again, hours later.
        `identities`: (device, inode) of the granted folders, by host path.
        """
        named = (plan.module, plan.bundle, plan.image, packages)
        if not all(cache.hold(path) for path in named if path is not None):
            return None
        engine = engines.make_engine(policy.limits.stack_bytes)
        module = engines.load(engine, cache, plan.module)
        notes = None if plan.image is None else cache.load(plan.image)
        if module is None or (plan.image is not None and notes is None):
            return None
        if not is_wired(cache, module):
            return None
        wiring(engine, cache, module)
        binary.opened(runtime.wasm)
        with contextlib.suppress(OSError):  # where there is none, memory is compared
            dirty.pagemap()
            own_files()
        preopens = tuple(
            for_policy(runtime, plan.bundle, policy, work, scratch, packages, installed, identities)
        )
        made_of = {
            "python": plan.python, "runtime": plan.runtime, "agent": plan.bundle.name,
            "wasmtime": engines.wasmtime_version(),
            "guest_paths": [p.guest_path for p in preopens], "preload": list(policy.preload),
        }  # fmt: skip
        base = None
        if plan.image is not None and notes is not None:
            digest = cache.sealed_digest(plan.image)
            base = Base(str(plan.image), digest, notes["bytes"], notes, made_of)
        writable = [p.host_path for p in preopens if p.writable]
        usage = Usage(policy.limits, writable, scratch / USAGE_FILE)
        return cls(engine, cache, module, policy, runtime, plan, preopens, base, usage)

    def reach(self, session: str | None) -> Reach:
        """What a session with these parts needs of the host, and its folder for checkpoints."""
        own = [] if session is None else [session]
        image = [] if self.base is None else [self.base.image]
        meant = [p for p in self.preopens if p.is_there()]
        read = [p.host_path for p in meant if not p.writable]
        read += {p.instead: "" for p in self.preopens if p.instead}
        change = [p.host_path for p in meant if p.writable]
        return Reach((*read, *image), tuple(change), tuple(own))

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
            usage=self.usage,
        )  # fmt: skip

    def info(self) -> dict[str, Any]:
        """What `%wasi` shows of them."""
        return {
            "images": self.reactor,
            "python": self.plan.python,
            "runtime": self.runtime.name,
            "runtime_version": self.runtime.version,
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
        about: What the present guest knows of its session ("told") and is ("version").
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
        self.about: dict[str, str] = {}
        self.stale_fds: list[int] = []
        self._damage = ""
        self._unkept: Frame | None = None  # a request whose checkpoint could not be written
        self._base = parts.base
        if parts.base is not None:
            self._open(parts.base)
        log = None if self.checkpoints is None else self.checkpoints.log
        may_fork = bool(session.get("may_fork"))
        self.travel = Travel(log, self._look, self.problem, may_fork=may_fork)

    def _open(self, base: Base) -> None:
        named = self._session.get("folder")
        if named is None:
            self.problem = "checkpoints are switched off (checkpoints.enabled in the policy)"
            return
        folder = Path(named)
        self._base = _own_base(folder, base)
        try:
            try:
                self.checkpoints = self._begin(folder, self._base)
            except PageLogError as e:  # of an image that is gone: of no use any more
                if self._session.get("parked"):
                    raise _unlike(folder, base) from e
                self._damage = f"Checkpoints were dropped: {e}"
                for path in (folder / ORIGIN, *folder.glob(f"*{SUFFIX}")):
                    path.unlink(missing_ok=True)
                self.checkpoints = self._begin(folder, self._base)
            self._base.store(folder)
        except OSError as e:
            self.problem = f"checkpoints cannot be written: {e.strerror}"
            self.failure = f"{self.problem}; {AT_RISK}"

    def _begin(self, folder: Path, base: Base) -> Checkpoints:
        limits = self._parts.policy.checkpoints
        return Checkpoints(folder, base.path(folder), base.digest, base.bytes, limits)

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

    @property
    def has_image(self) -> bool:
        """Is the guest's memory mapped from a base image?"""
        return self._base is not None

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
        if log.damage:
            self._damage = f"Checkpoints were damaged: {'; '.join(log.damage)}"
        elif target != began:
            self._damage = (
                f"No cell could run in the state after cell [{timeline.cell_of(log[began])}], "
                "so it was left"
            )
        self._wake(target)
        if target:
            request = log.head_notes.get("request", 0)
            return {"request": request, "cell": timeline.cell_of(log[target])}
        if self._base is not None and self._base.own:
            return {"request": 0, "cell": self._base.notes["cell"]}
        return None

    @property
    def damage(self) -> str:
        """What was found damaged when this worker began; empty if nothing."""
        return self._damage

    def _wake(self, target: int) -> None:
        """Makes the present, fresh instance the guest at that checkpoint, 0: the base image."""
        base, checkpoints = self._base, self.checkpoints
        if base is None:
            raise InstallationError("this runtime's plan has no base image")
        notes = base.notes
        if checkpoints is None:
            self.guest.wake(_from_image(Path(base.image), base.bytes), notes)
        else:
            state = {**notes, **(checkpoints.log[target].notes if target else {})}
            self.guest.wake(lambda memory: checkpoints.fill(memory, target), state)
            gone = set(state.get("gone", ()))  # of an earlier restore, and told then
            self.stale_fds = [fd for fd in state["fds"] if fd not in gone]
            self.about = {key: str(state.get(key, "")) for key in ("told", "version")}
            self._parts.usage.adopt(state.get("usage"))
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
        log, base = checkpoints.log, self._base
        before = timeline.cell_of(log[log.head]) if log.head else 0
        if not log.head and base is not None and base.own:
            before = base.notes["cell"]
        notes = {
            **_about(frame, before), **self.guest.notes(), **self.about,
            "usage": self._parts.usage.notes(),
        }  # fmt: skip
        if self._unkept is not None:  # what changed is more than this request's doing
            notes["kind"] = "cell"
        try:
            with self._still():
                found = checkpoints.commit(self.guest.memory, notes)
            self._unkept = None
            for name in self.travel.names:
                checkpoints.log.name(name, found.id)
        except OSError as e:
            self._unkept = self._unkept or frame
            self.travel.problem = f"{NOT_WRITTEN}: {e.strerror}"
            return {"problem": f"{NOT_WRITTEN}: {e.strerror}; {AT_RISK}"}
        self.travel.problem = ""
        return {
            "warning": self._tidy(checkpoints), "id": found.id, "cell": notes["cell"],
            "pages": found.written,
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

    @contextlib.contextmanager
    def saved(self) -> Iterator[BinaryIO]:
        """The present state as an open session file, which is gone afterwards.

        Raises:
            SessionFileError: There is no state to save.
            OSError: There is no room for it.
        """
        folder = self._session.get("folder")
        if folder is None or self._unkept is not None:
            raise SessionFileError("here", self.problem or "its state could not be kept")
        path = Path(folder) / "saving"
        try:
            sessionfile.save(Path(folder), path, __version__)
            with path.open("rb") as f:
                yield f
        finally:
            path.unlink(missing_ok=True)

    def _tidy(self, checkpoints: Checkpoints) -> str:
        """Keeps the log within its limits; what has gone wrong with that, empty if nothing."""
        try:
            with self._still():
                checkpoints.tidy(self.guest.memory)
        except (OSError, PageLogError) as e:
            why = e.strerror if isinstance(e, OSError) else str(e)  # no host path in a message
            return f"old checkpoints could not be dropped: {why}"
        return ""

    def name_head(self, name: str) -> None:
        """Names the present state."""
        if self.checkpoints is not None:
            self.checkpoints.log.name(name, self.checkpoints.log.head)

    def info(self) -> dict[str, Any]:
        """What `%wasi` shows of the checkpoints: their number and bytes, or why there are none."""
        if self.checkpoints is None:
            return {"problem": self.problem}
        log = self.checkpoints.log
        return {"problem": self.travel.problem, "count": len(log), "bytes": log.size}

    # -- looking -----------------------------------------------------------------------------

    def _look(self, ident: int) -> dict[str, Any]:
        """The variables at a checkpoint, as a second guest that is woken there describes them."""
        checkpoints = self.checkpoints
        found: dict[str, Any] = {}
        base = self._base
        if checkpoints is None or base is None:
            return found

        def show(memory: LinearMemory) -> None:
            checkpoints.show(memory, ident)

        def look() -> None:
            capture = Capture()
            limits = self._parts.policy.limits
            door = Door(
                capture, output_bytes=limits.output_bytes, message_bytes=limits.message_bytes
            )
            guest = self._parts.guest(door)
            try:
                notes = {**base.notes, **checkpoints.log[ident].notes, "fds": []}
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


def _unlike(folder: Path, usual: Base) -> InstallationError:
    """Why the session in `folder` cannot go on here: what it was made with is not what is there."""
    differing = sessionfile.differences(Base.load(folder).made_of, usual.made_of)
    what = "; ".join(differing) or "the image that it began with"
    return InstallationError(f"it needs what it was parked with: {what}")


def _own_base(folder: Path, usual: Base) -> Base:
    """What the session in `folder` lies over: an image of its own, if it came from a file.

    Raises:
        InstallationError: It was made with something else than is there.
    """
    try:
        own = Base.load(folder)
    except SessionFileError:
        return usual
    if not own.own:
        return usual
    differing = sessionfile.differences(own.made_of, usual.made_of)
    if differing:
        raise InstallationError(
            f"the saved session needs what it was saved with: {'; '.join(differing)}"
        )
    return own


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
