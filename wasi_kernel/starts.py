"""Starts: what a session is doing until its guest is ready, and how often that may fail.

Pure: it counts and decides; starting is the session's business.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wasi_kernel.errors import GuestLost

GIVEN_UP = 9
"""So many starts that failed one after another, each from twice as far back as the one before, and
the next one begins anew; and the one after that is the last."""

KILLED = 10
"""So many starts that were killed from outside (SIGKILL), one after the other, are too many. That
says nothing against the state that was to be taken up."""

WORDS = 2000
"""So many characters of what guests print that do not get ready are remembered."""


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


class Starts:
    """The starts of a session's guests since one was ready.

    Args:
        keeps: Are there checkpoints, from which a start can be tried?
        resumed: Does the session begin with a state that was kept?

    Attributes:
        was_ready: Was any guest of this session ready?
        prepared: Has what takes long been made just now?
        compiled: Was its machine code, which takes a worker of its own?
    """

    def __init__(self, *, keeps: bool, resumed: bool) -> None:
        self._most = GIVEN_UP if keeps else 1
        self._resumed = resumed
        self._failed = self._killed = 0
        self._last_words = ""
        self.was_ready = self.prepared = self.compiled = False

    def heard(self, text: str) -> None:
        """A guest that is not ready yet has printed something."""
        self._last_words = (self._last_words + text)[-WORDS:]

    def failed(self, loss: GuestLost) -> str | None:
        """A start has ended with `loss`; why there is to be no other one, None if there is."""
        self._failed += loss.ename != "WorkerKilled"
        self._killed += loss.ename == "WorkerKilled"
        if self._failed > self._most or self._killed > KILLED:
            lines = self._last_words.strip().splitlines()
            said = f"; its last words: {lines[-1][:300]}" if lines else ""
            return f"the sandbox does not start: {loss}{said}"
        if self._resumed and not self.was_ready and self._failed > 1:
            return f"the saved session does not start: {loss}"
        return None

    @property
    def skip(self) -> int:
        """So many of the newest checkpoints are left out by the next start."""
        return 1 << self._failed - 1 if self._failed else 0

    @property
    def anew(self) -> bool:
        """Is the next start to use no checkpoint at all?"""
        return self._failed == self._most

    def forgive(self) -> None:
        """The next start begins anew, by the user's wish: what failed says nothing about it."""
        self._failed = 0

    def end(self, *, ready: bool) -> None:
        """A guest is ready, or there will be none until somebody tries again."""
        self._failed = self._killed = 0
        self.prepared = self.compiled = False
        self.was_ready = self.was_ready or ready
