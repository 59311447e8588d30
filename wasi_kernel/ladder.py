"""The interrupt ladder: softly first, then by stopping the guest.

Pure: it reads no clock and sends nothing.
"""

from __future__ import annotations

SECOND_INTERRUPT_S = 1.0
"""An interrupt this long after another one that brought nothing means that it is meant."""

HEEDLESS = 3
"""So many interrupts, each seen by the cell and each ignored, and the next one stops it."""


class Ladder:
    """The interrupts of one request.

    Attributes:
        seen: How many of them the guest has seen.
    """

    def __init__(self) -> None:
        self._at_s: list[float] = []
        self.seen = 0

    def climb(self, now_s: float) -> str | None:
        """One more interrupt: why the guest is to be stopped for it, None if it is to be told.

        Args:
            now_s: The time, by a clock that never goes back.
        """
        earlier = [at for at in self._at_s if now_s - at >= SECOND_INTERRUPT_S]
        if earlier and self.seen == 0:
            return "a second interrupt, and no reaction to the first"
        if len(self._at_s) >= HEEDLESS and earlier:
            return "it caught every interrupt and went on"
        if not self._at_s or now_s - self._at_s[-1] >= SECOND_INTERRUPT_S:
            self._at_s.append(now_s)
        return None
