"""A worker that says how long each fresh instance took to make; else the usual one.

    python -I -S timedworker.py PATH SOCKET

PATH is sys.path, SOCKET the number of an inherited socket. -S as in the usual one: what was
prepared is found by facts of the process, sys.prefix among them.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

if __name__ == "__main__":
    sys.path[:] = sys.argv[1].split(os.pathsep)

from wasi_kernel import runtimes
from wasi_kernel.caches import Cache
from wasi_kernel.frames import Frame
from wasi_kernel.policy import Policy
from wasi_kernel.worker import THREAD_STACK_EXTRA, prepare
from wasi_kernel.worker.confine import confine
from wasi_kernel.worker.door import Door
from wasi_kernel.worker.keeper import Parts
from wasi_kernel.worker.link import Link, LinkClosedError
from wasi_kernel.worker.server import Server

if TYPE_CHECKING:
    from collections.abc import Callable

    from wasi_kernel.worker.guest import Guest


class TimedParts(Parts):
    """Parts whose guests are timed."""

    link: ClassVar[Link]

    def guest(self, door: Door) -> Guest:
        """A fresh instance; how long it took is said in a frame."""
        start = time.perf_counter()
        guest = super().guest(door)
        took_s = time.perf_counter() - start
        said = {"what": "fresh instance", "fraction": None, "left_s": took_s}
        self.link.send_frame(Frame("progress", said))
        return guest


def _load(link: Link, boot: Frame) -> Callable[[], None] | None:
    content = boot.content
    cache, policy = Cache(Path(content["cache"])), Policy.from_dict(content["policy"])
    runtime = runtimes.find(policy.runtime, cache, content["artifacts"])
    plan = prepare.find_plan(cache, runtime, policy)
    TimedParts.link = link
    parts = None
    if plan is not None:
        scratch = Path(content["scratch"])
        parts = TimedParts.load(cache, policy, runtime, plan, content["work"], scratch)
    if parts is None:
        link.send_frame(Frame("unprepared", {}))
        return None
    confined = confine(policy.confine, parts.reach(content["session"]["folder"]))
    limits = policy.limits
    door = Door(link, output_bytes=limits.output_bytes, message_bytes=limits.message_bytes)
    return lambda: Server(link, door, parts, boot, confined).serve()


def _serve(serve: Callable[[], None]) -> None:
    with contextlib.suppress(LinkClosedError):
        serve()


def main() -> None:
    """Serves until the other side closes the socket."""
    link = Link(socket.socket(fileno=int(sys.argv[2])))
    boot = link.receive()
    assert boot is not None
    threading.stack_size(boot.content["policy"]["limits"]["stack_bytes"] + THREAD_STACK_EXTRA)
    serve = _load(link, boot)
    if serve is not None:
        thread = threading.Thread(target=_serve, args=(serve,))
        thread.start()
        thread.join()
    os._exit(0)


if __name__ == "__main__":
    main()
