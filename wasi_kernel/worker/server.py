"""The server: serves one session's requests with one guest.

Runs on the guest's thread. A guest that dies ends the worker: after a trap the instance is of no
use, and one way out of every death (a new worker, which takes up the last checkpoint) is simpler
than two. Going back on request is no death: the same worker makes a fresh instance.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
import zlib
from typing import TYPE_CHECKING, Any

from wasi_kernel import __version__, frames
from wasi_kernel.errors import GuestLost, InstallationError, WasiKernelError
from wasi_kernel.frames import Frame
from wasi_kernel.policy import LIMIT_OPTIONS, raising
from wasi_kernel.worker import granted, prepare, travel
from wasi_kernel.worker import usage as usages
from wasi_kernel.worker.anatomy import Anatomy
from wasi_kernel.worker.guest import MEMORY_NEARLY
from wasi_kernel.worker.interrupts import CalibrationError, Finder
from wasi_kernel.worker.keeper import Keeper, Parts
from wasi_kernel.worker.link import LinkClosedError
from wasi_kernel.worker.looks import Looks
from wasi_kernel.worker.memorymap import MemoryMap
from wasi_kernel.worker.modules import Modules
from wasi_kernel.worker.profiler import Profiler
from wasi_kernel.worker.running import FIRST_OWN, Running
from wasi_kernel.worker.tracer import Tracer

if TYPE_CHECKING:
    from wasi_kernel.worker.confine import Confinement
    from wasi_kernel.worker.door import Door
    from wasi_kernel.worker.interrupts import Interrupter
    from wasi_kernel.worker.link import Link


COMM_IDLE_S = 0.2
"""After so long without a request, what widgets changed is kept, too."""

PROBE = {"code": "None", "silent": True, "store_history": False, "execution_count": 0}
"""A cell that any guest answers; one that does not has taken up a state that is of no use."""

BETWEEN = ("comm_open", "comm_msg", "comm_close", "idle_request")
"""Requests between cells that change variables; many come in a row."""


class Server:
    """One session's guest and the loop that serves its requests."""

    def __init__(
        self, link: Link, door: Door, parts: Parts, boot: Frame, confined: Confinement
    ) -> None:
        self._confined = confined
        self._link, self._door, self._parts, self._boot = link, door, parts, boot
        self._policy = parts.policy
        self._keeper = Keeper(parts, door, boot.content.get("session") or {})
        self.running = Running(link, lambda: self._keeper.interrupter, parts.policy.limits.grace_s)
        self._closing = False
        self._held: Frame | None = None
        self._asks: dict[str, Any] | None = None
        self._own_turn = self._began_full = self._nothing_ran = False
        self._widgets: Frame | None = None
        self._began_s = time.monotonic(), time.process_time()
        door.info = self._info
        door.again = self.running.interrupt_again
        door.holds = self._replied
        door.checkpoint = self._keeper.travel.answer
        self._modules = Modules(parts.policy.limits.memory_bytes)
        self._profiler = Profiler(lambda: self._keeper.guest.memory)
        self._tracer = Tracer(lambda: self._keeper.guest)
        looks = {  # each kind of look is a room of its own
            "grants": granted.look(parts.preopens, parts.usage, lambda: self._keeper.guest.missing),
            **MemoryMap(self._keeper, parts.runtime.wasm).ops,
            **self._modules.ops(),
            **Anatomy(parts.runtime.wasm).ops,
            "profile_begin": self._profiler.begin,
            "profile_end": self._profiler.end,
            "trace_begin": self._tracer.begin,
            "trace_end": self._tracer.end,
        }
        door.look = Looks(looks).answer

    @property
    def _interrupter(self) -> Interrupter | None:
        return self._keeper.interrupter

    # -- any thread --------------------------------------------------------------------------

    def drain(self) -> None:
        """Sends what the guest has printed so far."""
        with contextlib.suppress(LinkClosedError):
            self._door.drain()

    # -- the guest's thread ------------------------------------------------------------------

    def serve(self) -> None:
        """Boots the guest and serves until the kernel ends the session.

        Raises:
            GuestLost: The guest died.
            LinkClosedError: The kernel process is gone.
        """
        try:
            if self._parts.reactor:
                self._serve_reactor()
            else:
                self._serve_command()
        except GuestLost:
            self._tell_trace(self._door.request)
            raise
        finally:
            self._profiler.stop()
            self._tracer.stop()
            self.running.end()
            with contextlib.suppress(LinkClosedError):
                self._door.end()
            self._keeper.close()

    def _serve_reactor(self) -> None:
        kept = self._keeper.wake()
        said = self._greet(kept)
        if kept is None and (missing := self._missing()):
            raise InstallationError(f"a granted folder is not there: {'; '.join(missing)}")
        if kept is not None:
            kept["closed_files"] = [*said.get("closed_files", []), *self._missing()]
            if said.get("status") != "ok":
                raise GuestLost("GuestDesynchronized", f"its return failed: {said.get('evalue')}")
        said["session"], said["damage"] = kept, self._keeper.damage
        said["starts"] = not self._keeper.head and self._keeper.checkpoints is not None
        said["problem"] = self._keeper.failure
        self._link.send_frame(Frame("boot_reply", said, self._boot.request))
        if not self._keeper.head:
            self._commit(self._boot)
        while (frame := self._next()) is not None:
            if frame.type == "checkpoint_request":
                self._manage(frame)
            else:
                self._turn(frame)

    def _greet(self, kept: dict[str, Any] | None) -> dict[str, Any]:
        """Tells the guest what session it is in; what it says to that.

        Nothing is told to a guest that knows it all from before its checkpoint.
        """
        keeper = self._keeper
        frame = self._session_boot(self._boot.request, "session" if kept is None else "resume")
        known = {k: v for k, v in frame.content.items() if k not in ("phase", "fds")}
        told = f"{zlib.crc32(json.dumps(known, sort_keys=True).encode()):08x}"
        before = keeper.about
        if kept is not None and not keeper.stale_fds and before.get("told") == told:
            said: dict[str, Any] = {"status": "ok", "version": before.get("version", "")}
        else:
            said = self._own(frame)
        keeper.about = {"told": told, "version": str(said.get("version", ""))}
        if kept is not None and self._boot.content["session"].get("probe"):
            self._own(Frame("execute_request", PROBE, FIRST_OWN))
        return said

    def _next(self) -> Frame | None:
        """The next request; None when the session is to end."""
        if self._widgets is not None and not self._link.comes(COMM_IDLE_S):
            self._keep_widgets()
        frame = self._link.receive()
        while frame is not None and frame.type in frames.QUESTIONS.values():  # of one that is over
            frame = self._link.receive()
        return None if frame is None or frame.type == "shutdown_request" else frame

    def _session_boot(self, request: int, phase: str) -> Frame:
        limit = self._policy.limits.message_bytes
        content = {
            "phase": phase,
            "env": {**prepare.ENV, **self._policy.env},
            "message_bytes": limit,
            "facts": self._boot.content["facts"],
            "fds": self._keeper.stale_fds,
        }
        return Frame("boot_request", content, request)

    def _turn(self, frame: Frame) -> None:
        """One request, and the checkpoint after it."""
        self._held, self._asks = None, None
        if frame.type == "execute_request":
            self._keep_widgets()
            self._asks = travel.asked_in(str(frame.content.get("code", "")))
        self._keeper.travel.reset()
        self._begin(frame)
        status = self._run(frame)
        answered = self._door.answered
        self.running.end()
        self._modules.rest()
        self._door.end()
        if self._keeper.travel.target is None and (self._held is not None or not answered):
            self._stand_in(frame)
        if self._keeper.travel.target is not None:
            self._go_back(frame)
        elif not answered:
            raise self._silence(f"no answer to {frame.type} (status {status})")
        elif frame.type == "execute_request":
            self._commit(frame)
            if self._held is not None:
                self._finish(frame, self._held)
        elif frame.type in BETWEEN and not self._nothing_ran:
            self._widgets = frame

    def _run(self, frame: Frame) -> int:
        """The guest's turn; a cell that goes to another state ends it with its own end.

        One that does nothing else goes there even if the guest dies before it can ask.
        """
        travel = self._keeper.travel
        try:
            return self._keeper.guest.turn(prepare.TURN)
        except GuestLost as e:
            if travel.target is None:
                self._tell_trace(frame.request)
                self._stand_in(frame)
            if travel.target is None or (e.ename != "GuestExited" and self._asks is None):
                raise
            return 0
        finally:
            self._profiler.stop()
            self._tracer.stop()

    def _tell_trace(self, request: int) -> None:
        """The guest that would show the trace of its cell is gone: its last calls, as text."""
        words = self._tracer.last_words()
        if words is not None:
            with contextlib.suppress(LinkClosedError):
                self._say(words, request)

    def _own(self, frame: Frame) -> dict[str, Any]:
        """A turn of our own, whose reply does not go to the kernel; its content."""
        self._own_turn, self._held = True, None
        try:
            self._begin(frame)
            status = self._keeper.guest.turn(prepare.TURN)
            self.running.end()
            self._door.end()
        finally:
            self._own_turn = False
        held: Frame | None = self._held
        self._held = None
        if held is None:
            raise self._silence(f"no answer to {frame.type} (status {status})")
        return held.content

    def _silence(self, detail: str) -> GuestLost:
        """Why a guest has not answered: it had no memory left to, or it cannot any more."""
        if self._is_full() and not self._began_full:
            return GuestLost("MemoryError", f"{detail}; {raising('memory_bytes')}")
        return GuestLost("GuestDesynchronized", detail)

    def _is_full(self) -> bool:
        limit = self._policy.limits.memory_bytes
        return self._keeper.guest.memory.size() > MEMORY_NEARLY * limit

    def _replied(self, kind: str, content: dict[str, Any]) -> bool:
        """The guest gives its reply: is it to wait?"""
        self.running.replied()
        self._nothing_ran = kind == "idle_reply" and content.get("ran") is False
        return self._holds(kind, content)

    def _holds(self, kind: str, content: dict[str, Any]) -> bool:
        """Is this reply to wait? Called when the guest gives it, within its turn."""
        asked, head = self._keeper.travel, self._keeper.head
        if kind == "execute_reply" and content.get("status") == "error" and head:
            full = content.get("ename") == "MemoryError" and self._is_full()
            if content.get("undo") is True or full:
                asked.target = head
        elif kind == "execute_reply" and content.get("undo") is True:
            self._say(
                "this cell leaves its trace: there is no checkpoint to go back to",
                self.running.request,
            )
        wanted = self._own_turn or asked.target is not None or asked.save or asked.fork
        if not wanted and not self._is_failed_travel(kind, content):
            return False
        self._held = Frame(kind, content, self.running.request)
        return True

    def _is_failed_travel(self, kind: str, content: dict[str, Any]) -> bool:
        """Is it an error of a cell that only goes somewhere, and of which nothing reached us?"""
        failed = kind == "execute_reply" and content.get("status") == "error"
        return failed and self._asks is not None and content.get("ename") != "UsageError"

    def _stand_in(self, frame: Frame) -> None:
        """Does for a guest that cannot ask any more what its cell wants."""
        if self._asks is None or self._keeper.travel.save or self._keeper.travel.fork:
            return
        said = self._keeper.travel.answer(self._asks)
        if said.get("status") == "ok":
            self._held = None
            self._say(f"Now after cell [{said.get('cell')}]", frame.request, "stdout")

    def _begin(self, frame: Frame) -> None:
        self._door.begin(frame)
        self._parts.usage.begin()
        self._began_s = time.monotonic(), time.process_time()
        self._began_full = self._is_full()
        self.running.begin(frame.request)

    # -- checkpoints -------------------------------------------------------------------------

    def _commit(self, frame: Frame) -> None:
        said = self._keeper.commit(frame)
        if said is not None:
            self._link.send_frame(Frame("checkpoint", said, frame.request))

    def _keep_widgets(self) -> None:
        frame, self._widgets = self._widgets, None
        if frame is not None:
            self._commit(frame)

    def _go_back(self, frame: Frame) -> None:
        """Puts a fresh guest at the travel's target and answers `frame`."""
        held = self._held
        closed = self._rewind(frame.request)
        if held is None:
            content: dict[str, Any] = {
                "status": "ok", "execution_count": frame.content.get("execution_count"),
                "user_expressions": {}, "payload": [],
            }  # fmt: skip
            held = Frame("execute_reply", content, frame.request)
        elif held.content.get("undo") is True:
            self._say(
                "this cell failed and leaves no trace (%undo --on-error is on)", frame.request
            )
        elif held.content.get("ename") == "MemoryError":
            self._say(
                "the memory limit was reached: variables are as they were before this cell; "
                + raising("memory_bytes"), frame.request,
            )  # fmt: skip
        if closed:
            self._say(f"no longer open: {', '.join(closed)}", frame.request)
        held.content["due"] = 0.0  # the target's tasks: the next idle turn says when
        self._link.send_frame(held)

    def _rewind(self, request: int) -> list[str]:
        """Puts a fresh guest at the travel's target; the files that are not open any more."""
        self._widgets = None
        self._modules.forget()
        known = self._missing()
        self._link.send_frame(Frame("checkpoint", self._keeper.go_back(request), request))
        missing = [each for each in self._missing() if each not in known]
        if not self._keeper.stale_fds:
            return missing
        said = self._own(self._session_boot(FIRST_OWN, "resume"))
        return [*(str(name) for name in said.get("closed_files", [])), *missing]

    def _missing(self) -> list[str]:
        """The granted folders that the present guest has not, for the user."""
        return [
            f"{path} (its folder was moved or replaced: it is empty until the kernel is restarted)"
            for path in self._keeper.guest.missing
        ]

    def _finish(self, frame: Frame, reply: Frame) -> None:
        """Does what the cell asked for after its end; its reply was held for that."""
        asked = self._keeper.travel
        if asked.fork is not None:
            self._link.send_frame(Frame("checkpoint", {"fork": asked.fork}, frame.request))
        if asked.save is not None:
            self._save(frame.request, asked.save)
        self._link.send_frame(reply)

    def _save(self, request: int, guest_path: str) -> None:
        """Has the guest itself write the session file: it reaches what the cell may reach."""
        try:
            with self._keeper.saved() as data:
                self._door.outgoing = data
                said = self._own(
                    Frame("boot_request", {"phase": "save", "path": guest_path}, request)
                )
        except (WasiKernelError, OSError) as e:
            if isinstance(e, GuestLost):
                raise
            said = {"status": "error", "evalue": e.strerror if isinstance(e, OSError) else str(e)}
        finally:
            self._door.outgoing = None
        if said.get("status") == "ok":
            self._say(
                f"Saved: {guest_path}, {said.get('saved', 0) / (1 << 20):.1f} MiB",
                request,
                "stdout",
            )
        else:
            self._say(f"the session was not saved: {said.get('evalue')}", request)

    def _say(self, text: str, request: int, name: str = "stderr") -> None:
        text = f"[wasi-kernel] {text}\n" if name == "stderr" else f"{text}\n"
        content = {"name": name, "text": text}
        self._link.send_frame(Frame("stream", content, request))

    def _manage(self, frame: Frame) -> None:
        """A checkpoint_request of the kernel process, between cells."""
        self._keep_widgets()
        asked = self._keeper.travel
        asked.reset()
        said = asked.answer(frame.content)
        if asked.target is not None:
            said["closed_files"] = self._rewind(frame.request)
        for name in asked.names:
            self._keeper.name_head(name)
        self._link.send_frame(Frame("checkpoint_reply", said, frame.request))

    # -- command builds ----------------------------------------------------------------------

    def _serve_command(self) -> None:
        """A command build runs its own loop; it asks for requests by reading the door."""
        finder = Finder()
        door = self._door
        door.calibration = finder
        preload = list(self._policy.preload)
        boot = {"phase": "image", "preload": preload, "calibrate": True}
        pending = [
            Frame("boot_request", boot, 0xFFFFFFFE),
            Frame("boot_request", {"phase": "spin"}, 0xFFFFFFFD),
            self._session_boot(self._boot.request, "session"),
        ]

        def next_request() -> Frame | None:
            self._profiler.stop()
            self._tracer.stop()
            door.end()
            self.running.end()
            if len(pending) == 2:
                door.calibration = None
                with contextlib.suppress(CalibrationError):
                    self._keeper.make_interruptible(finder.found(), finder.is_tripped)
                if self._interrupter is None:
                    pending.pop(0)
            frame = pending.pop(0) if pending else self._next()
            if frame is None:
                self._closing = True
                return None
            self._begin(frame)
            if frame.content.get("phase") == "spin" and self._interrupter is not None:
                self._spin(self._interrupter)
            return frame

        door.next_request = next_request
        status = self._keeper.guest.run_command()
        if not self._closing:
            raise GuestLost("GuestExited", f"exit status {status}")

    def _spin(self, interrupter: Interrupter) -> None:
        threading.Timer(
            0.05, lambda: (interrupter.trip(), interrupter.watch(5, lambda: True))
        ).start()

    def _info(self) -> dict[str, Any]:
        """What `%wasi` shows of this side."""
        life = self._boot.content["life"]
        return {
            "memory_bytes": self._keeper.guest.memory.size(),
            "interrupts": self._interrupter is not None,
            "checkpoints": self._keeper.info(),
            "limits": self._limits(),
            "confinement": self._confined.to_dict(),
            "wasi_kernel": __version__,
            "age_s": round(time.monotonic() - life["began_s"], 1),
            "deaths": life["deaths"],
            **self._parts.info(),
        }

    def _limits(self) -> list[dict[str, Any]]:
        """Of each limit: its key, what is used and allowed of it, and the option that sets it.

        What is used is None where nobody can know; `refused` says how often this request was
        refused more.
        """
        usage, limits = self._parts.usage, self._policy.limits
        usage.measure()
        began_s, began_cpu_s = self._began_s
        used: dict[str, Any] = {
            "memory_bytes": self._keeper.guest.memory.size(),
            "output_bytes": self._door.sent_bytes,
            "message_bytes": self._door.largest_bytes,
            "cell_s": round(time.monotonic() - began_s, 3),
            "cell_cpu_s": round(time.process_time() - began_cpu_s, 3),
            **usage.counts(),
            "open_files": self._keeper.guest.open_files,
        }
        allowed = {"open_files": usage.open_files}
        return [
            {
                "limit": name, "used": used.get(name), "option": option,
                "allowed": allowed.get(name, getattr(limits, name)),
                "refused": usage.refused(name) if name in usages.NAMES else 0,
            }
            for name, option in LIMIT_OPTIONS.items()
        ]  # fmt: skip
