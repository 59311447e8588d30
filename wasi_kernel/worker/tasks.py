"""Tasks: what a boot frame wants of this worker process: prepare, or serve a session.

All that is needed is loaded first; then the process confines itself; only then guest code runs.
"""

from __future__ import annotations

import contextlib
import gc
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from wasi_kernel import runtimes
from wasi_kernel.caches import Cache
from wasi_kernel.errors import AgentMissingError, GuestLost, WasiKernelError
from wasi_kernel.frames import Frame
from wasi_kernel.policy import Policy
from wasi_kernel.worker import prepare
from wasi_kernel.worker.confine import confine
from wasi_kernel.worker.door import Door
from wasi_kernel.worker.keeper import Parts
from wasi_kernel.worker.link import LinkClosedError
from wasi_kernel.worker.server import Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from wasi_kernel.runtimes import Runtime
    from wasi_kernel.worker.link import Link


class ControlPort(Protocol):
    """What the server needs of the main thread."""

    server: Server | None

    def arm(self, due_s: float) -> None: ...  # noqa: D102


def begin(link: Link, boot: Frame) -> Callable[[ControlPort], None] | None:
    """Loads what `boot` needs, then confines this process; what is to be done there.

    Runs no guest code. Must be called while the process has one thread.

    Returns:
        What prepares, or serves until the kernel or the guest ends; None: there is nothing to be
        done, and the kernel process was told why.
    """
    task: Callable[[ControlPort], None] | None = None
    with _told(link):
        content = boot.content
        shared = content.get("shared")
        cache = Cache(Path(content["cache"]), shared=None if shared is None else Path(shared))
        policy = Policy.from_dict(content["policy"])
        runtime = runtimes.find(policy.runtime, cache, content["artifacts"])
        if content["task"] == "prepare":
            task = _preparing(link, cache, policy, runtime, boot)
        else:
            task = _serving(link, cache, policy, runtime, boot)
        if task is None:
            link.send_frame(Frame("unprepared", {}))
    return task


def _preparing(
    link: Link, cache: Cache, policy: Policy, runtime: Runtime, boot: Frame
) -> Callable[[ControlPort], None]:
    """Compiling takes threads, which cannot be confined later: that is a task of its own."""

    def progress(what: str, fraction: float | None, left_s: float | None) -> None:
        said = {"what": what, "fraction": fraction, "left_s": left_s}
        link.send_frame(Frame("progress", said))

    scratch, packages = Path(boot.content["scratch"]), _packages(boot)
    preparation = prepare.Preparation(cache, runtime, policy, scratch, progress, packages)
    compiled = preparation.compiled()
    if compiled:
        confine(policy.confine, preparation.reach())

    def run(_: ControlPort) -> None:
        with _told(link):
            if compiled:
                preparation.run()
            else:
                preparation.compile()
            said = {"status": "ok", "again": not compiled}
            link.send_frame(Frame("boot_reply", said, boot.request))

    return run


def _serving(
    link: Link, cache: Cache, policy: Policy, runtime: Runtime, boot: Frame
) -> Callable[[ControlPort], None] | None:
    """None: something must be prepared first."""
    packages = _packages(boot)
    plan = prepare.find_plan(cache, runtime, policy, packages)
    if plan is None:
        return None
    content = boot.content
    parts = Parts.load(
        cache, policy, runtime, plan, content["work"], Path(content["scratch"]), packages,
        Path(content["installed"]), content.get("identities") or {},
    )  # fmt: skip
    if parts is None:
        return None
    confined = confine(policy.confine, parts.reach(content["session"]["folder"]))

    def run(control: ControlPort) -> None:
        with _told(link):
            limits = policy.limits
            door = Door(link, output_bytes=limits.output_bytes, message_bytes=limits.message_bytes)
            door.arm = control.arm
            server = control.server = Server(link, door, parts, boot, confined)
            gc.enable()
            server.serve()

    return run


@contextlib.contextmanager
def _told(link: Link) -> Iterator[None]:
    """Whatever ends its body is told to the kernel process, but that process's own end.

    An error of the installation or the policy becomes a `lost` frame with `fatal` set: a new
    worker would meet it again.
    """
    try:
        yield
    except GuestLost as e:
        link.send_frame(Frame("lost", {"ename": e.ename, "detail": e.detail}))
    except LinkClosedError:
        raise
    except WasiKernelError as e:
        said = {"ename": type(e).__name__, "detail": str(e), "fatal": True}
        if isinstance(e, AgentMissingError):
            said |= {"python": e.python, "reasons": list(e.reasons)}
        link.send_frame(Frame("lost", said))
    except BaseException as e:  # noqa: BLE001 - the thread's edge: forwarded, and logged in full
        import traceback

        traceback.print_exc()
        said = {"ename": "WorkerFailed", "detail": repr(e)[:500]}
        with contextlib.suppress(LinkClosedError):
            link.send_frame(Frame("lost", said))


def _packages(boot: Frame) -> Path | None:
    given = boot.content.get("packages")
    return None if given is None else Path(given)
