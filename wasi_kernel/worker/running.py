"""Running: which request the guest works on, and interrupts of it, which come from other threads.

An interrupt names its request. It reaches the guest only between the moment at which the guest has
the request and the moment at which it gives its reply: one that comes later would hit the next.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from wasi_kernel.worker.interrupts import Interrupter
    from wasi_kernel.worker.link import Link

AGAIN_S = 0.001

FIRST_OWN = 0xFFFFFFF0
"""Request numbers from here on are the server's own."""


class Running:
    """The request in progress.

    Args:
        link: What the guest waits at.
        interrupter: Gives the present guest's, None while it cannot be interrupted softly.
        grace_s: How long a guest may take to notice.

    Attributes:
        request: Its number, 0 at rest.
    """

    def __init__(
        self, link: Link, interrupter: Callable[[], Interrupter | None], grace_s: float
    ) -> None:
        self._link, self._interrupter, self._grace_s = link, interrupter, grace_s
        self._changed = threading.Condition()
        self._begun = 0  # the last number of the kernel's
        self._over = False
        self.request = 0

    def begin(self, request: int) -> None:
        """The guest has this request from now on; older interrupts are forgotten."""
        interrupter = self._interrupter()
        if interrupter is not None:
            self._link.unseen = interrupter.unseen
        self._link.rest()
        if interrupter is not None:
            interrupter.withdraw()
        with self._changed:
            self.request, self._over = request, False
            if request < FIRST_OWN:
                self._begun = request
            self._changed.notify_all()

    def replied(self) -> None:
        """The guest gives its reply: interrupts of after that would hit the next request."""
        with self._changed:
            self._over = True
            if (interrupter := self._interrupter()) is not None:
                interrupter.withdraw()

    def end(self) -> None:
        """The turn is over."""
        self.request = 0

    def interrupt(self, request: int) -> bool | None:
        """Interrupts the guest if it works on `request`; has it taken notice in time?

        Waits for a request that has been sent but has not begun. None: it is over already.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._begun >= request, self._grace_s)
            if not self._is(request):
                return None
            if (interrupter := self._interrupter()) is not None:
                interrupter.trip()
        self._link.wake()
        if interrupter is None:
            return False
        return interrupter.watch(self._grace_s, lambda: self._is(request))

    def interrupt_again(self) -> None:
        """Repeats an interrupt that the guest could not take at that moment."""
        request = self.request

        def trip() -> None:
            with self._changed:
                interrupter = self._interrupter()
                if interrupter is None or not self._is(request):
                    return
                interrupter.trip()
            self._link.wake()  # by now it may wait for an answer

        timer = threading.Timer(AGAIN_S, trip)
        timer.daemon = True
        timer.start()

    def _is(self, request: int) -> bool:
        return request == self.request != 0 and not self._over
