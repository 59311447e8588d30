"""The server: loads what the plan names and serves one session's requests with one guest.

Runs on the guest's thread. A guest that dies ends the worker: after a trap the instance is of no
use, and one way out of every death (a new worker) is simpler than two.
"""

from __future__ import annotations

import contextlib
import gc
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from wasi_kernel import runtimes
from wasi_kernel.caches import Cache
from wasi_kernel.errors import GuestLost, InstallationError, WasiKernelError
from wasi_kernel.frames import Frame
from wasi_kernel.policy import Policy
from wasi_kernel.worker import engine as engines
from wasi_kernel.worker import prepare
from wasi_kernel.worker.door import Door
from wasi_kernel.worker.guest import Guest, is_reactor
from wasi_kernel.worker.interrupts import CalibrationError, Finder, Interrupter
from wasi_kernel.worker.link import LinkClosedError

if TYPE_CHECKING:
    from wasmtime import Module

    from wasi_kernel.runtimes import Runtime
    from wasi_kernel.worker.link import Link
    from wasi_kernel.worker.prepare import Plan


AGAIN_S = 0.001

FIRST_OWN = 0xFFFFFFF0
"""Request numbers from here on are the server's own."""


class ControlPort(Protocol):
    """What the server needs of the main thread."""

    server: Server | None

    def arm(self, due_s: float) -> None: ...  # noqa: D102


def run(link: Link, control: ControlPort, boot: Frame) -> None:
    """Does what `boot` asks: prepares, or serves until the kernel or the guest ends.

    An error of the installation or the policy becomes a `lost` frame with `fatal` set: a new
    worker would meet it again.
    """
    content = boot.content
    try:
        cache = Cache(Path(content["cache"]))
        policy = Policy.from_dict(content["policy"])
        runtime = runtimes.find(policy.runtime, cache, content["artifacts"])
        if content["task"] == "prepare":

            def progress(what: str, fraction: float | None, left_s: float | None) -> None:
                said = {"what": what, "fraction": fraction, "left_s": left_s}
                link.send_frame(Frame("progress", said))

            scratch = Path(content["scratch"])
            prepare.Preparation(cache, runtime, policy, scratch, progress).run()
            link.send_frame(Frame("boot_reply", {"status": "ok"}, boot.request))
            return
        server = _server(link, control, cache, policy, runtime, boot)
        if server is None:
            link.send_frame(Frame("unprepared", {}))
            return
        control.server = server
        gc.enable()
        server.serve()
    except GuestLost as e:
        link.send_frame(Frame("lost", {"ename": e.ename, "detail": e.detail}))
    except LinkClosedError:
        raise
    except WasiKernelError as e:
        said = {"ename": type(e).__name__, "detail": str(e), "fatal": True}
        link.send_frame(Frame("lost", said))
    except BaseException as e:  # noqa: BLE001 - the thread's edge: forwarded, and logged in full
        import traceback

        traceback.print_exc()
        said = {"ename": "WorkerFailed", "detail": repr(e)[:500]}
        with contextlib.suppress(LinkClosedError):
            link.send_frame(Frame("lost", said))


def _server(
    link: Link, control: ControlPort, cache: Cache, policy: Policy, runtime: Runtime, boot: Frame
) -> Server | None:
    """A server with its guest booted, or None if something must be prepared first."""
    plan = prepare.find_plan(cache, runtime, policy)
    if plan is None:
        return None
    engine = engines.make_engine(policy.limits.stack_bytes)
    module = engines.load(engine, cache, plan.module)
    notes = None if plan.image is None else cache.load(plan.image)
    if module is None or (plan.image is not None and notes is None):
        return None
    limits = policy.limits
    door = Door(link, output_bytes=limits.output_bytes, message_bytes=limits.message_bytes)
    door.arm = control.arm
    content = boot.content
    guest = Guest(
        engine, cache, module, door,
        preopens=prepare.preopens(
            runtime, plan.bundle, policy, content["work"], Path(content["scratch"])
        ),
        env={**prepare.ENV, **policy.env}, argv=[prepare.ARGV0, "-c", prepare.SERVE],
        limits=limits,
    )  # fmt: skip
    return Server(link, guest, module, policy, runtime, plan, boot, notes)


class Server:
    """One session's guest and the loop that serves its requests."""

    def __init__(
        self,
        link: Link,
        guest: Guest,
        module: Module,
        policy: Policy,
        runtime: Runtime,
        plan: Plan,
        boot: Frame,
        notes: dict[str, Any] | None,
    ) -> None:
        self._link, self._guest, self._policy, self._runtime = link, guest, policy, runtime
        self._plan, self._boot, self._notes = plan, boot, notes
        self._reactor = is_reactor(module)
        self._interrupter: Interrupter | None = None
        self._request = self._begun = 0
        self._changed = threading.Condition()
        self._closing = False
        guest.door.info = self._info
        guest.door.again = self._interrupt_again

    # -- any thread --------------------------------------------------------------------------

    def drain(self) -> None:
        """Sends what the guest has printed so far."""
        with contextlib.suppress(LinkClosedError):
            self._guest.door.drain()

    def interrupt(self, request: int) -> bool | None:
        """Interrupts the guest if it works on `request`; has it taken notice in time?

        Waits for a request that has been sent but has not begun. None: it is over already.
        """
        grace_s = self._policy.limits.grace_s
        with self._changed:
            self._changed.wait_for(lambda: self._begun >= request, grace_s)
        if request != self._request or request == 0:
            return None
        if self._interrupter is None:
            self._link.wake()
            return False
        self._interrupter.trip()
        self._link.wake()
        return self._interrupter.watch(grace_s, lambda: request == self._request)

    def _interrupt_again(self) -> None:
        """Repeats an interrupt that the guest could not take at that moment."""
        request = self._request

        def trip() -> None:
            if self._interrupter is not None and request == self._request != 0:
                self._interrupter.trip()

        timer = threading.Timer(AGAIN_S, trip)
        timer.daemon = True
        timer.start()

    # -- the guest's thread ------------------------------------------------------------------

    def serve(self) -> None:
        """Boots the guest and serves until the kernel ends the session.

        Raises:
            GuestLost: The guest died.
            LinkClosedError: The kernel process is gone.
        """
        try:
            if self._reactor:
                self._serve_reactor()
            else:
                self._serve_command()
        finally:
            self._request = 0
            with contextlib.suppress(LinkClosedError):
                self._guest.door.end()
            self._guest.close()

    def _serve_reactor(self) -> None:
        image, notes = self._plan.image, self._notes
        if image is None or notes is None:
            raise InstallationError("this runtime's plan has no base image")
        self._guest.restore_image(image, notes)
        if notes["interrupts"]:
            words = prepare.words_of(notes)
            self._interrupter = self._guest.make_interruptible(words, notes["is_tripped"])
        self._turn(self._session_boot(self._boot.request))
        while (frame := self._next()) is not None:
            self._turn(frame)

    def _next(self) -> Frame | None:
        """The next request; None when the session is to end."""
        frame = self._link.receive()
        while frame is not None and frame.type == "input_reply":  # to a question that is over
            frame = self._link.receive()
        return None if frame is None or frame.type == "shutdown_request" else frame

    def _session_boot(self, request: int) -> Frame:
        limit = self._policy.limits.message_bytes
        content = {
            "phase": "session",
            "env": {**prepare.ENV, **self._policy.env},
            "message_bytes": limit,
            "facts": self._boot.content["facts"],
        }
        return Frame("boot_request", content, request)

    def _turn(self, frame: Frame) -> None:
        self._begin(frame)
        status = self._guest.turn(prepare.TURN)
        answered = self._guest.door.answered
        self._request = 0
        self._guest.door.end()
        if not answered:
            raise GuestLost("GuestDesynchronized", f"no answer to {frame.type} (status {status})")

    def _begin(self, frame: Frame) -> None:
        if self._interrupter is not None:
            self._link.unseen = self._interrupter.unseen
        self._link.rest()
        if self._interrupter is not None:
            self._interrupter.withdraw()
        self._guest.door.begin(frame)
        with self._changed:
            self._request = frame.request
            if frame.request < FIRST_OWN:
                self._begun = frame.request
            self._changed.notify_all()

    def _serve_command(self) -> None:
        """A command build runs its own loop; it asks for requests by reading the door."""
        finder = Finder()
        door = self._guest.door
        door.calibration = finder
        preload = list(self._policy.preload)
        boot = {"phase": "image", "preload": preload, "calibrate": True}
        pending = [
            Frame("boot_request", boot, 0xFFFFFFFE),
            Frame("boot_request", {"phase": "spin"}, 0xFFFFFFFD),
            self._session_boot(self._boot.request),
        ]

        def next_request() -> Frame | None:
            door.end()
            self._request = 0
            if len(pending) == 2:
                door.calibration = None
                with contextlib.suppress(CalibrationError):
                    words = finder.found()
                    self._interrupter = self._guest.make_interruptible(words, finder.is_tripped)
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
        status = self._guest.run_command()
        if not self._closing:
            raise GuestLost("GuestExited", f"exit status {status}")

    def _spin(self, interrupter: Interrupter) -> None:
        threading.Timer(
            0.05, lambda: (interrupter.trip(), interrupter.watch(5, lambda: True))
        ).start()

    def _info(self) -> dict[str, Any]:
        """What `%wasi` shows of this side."""
        return {
            "memory_bytes": self._guest.memory.size(),
            "interrupts": self._interrupter is not None,
            "images": self._reactor,
            "python": self._plan.python,
            "runtime": self._runtime.name,
            "wasmtime": engines.wasmtime_version(),
        }
