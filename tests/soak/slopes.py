"""Slopes: by how much something grows, and how sure that is. Pure."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

BATCHES = 10
SURE = 2.3
"""So many standard errors: one-sided 97.5 % of Student's t with BATCHES - 2 degrees of freedom."""


@dataclass(frozen=True)
class Slope:
    """What 1000 cells add.

    Attributes:
        first: Mean of the first batch of the samples that count.
        last: That of the last one.
        per_1000: Growth in 1000 cells.
        error: Its standard error.
    """

    first: float
    last: float
    per_1000: float
    error: float

    def exceeds(self, limit: float) -> bool:
        """Does it surely grow by more than that?"""
        return self.per_1000 - SURE * self.error > limit

    def __str__(self) -> str:
        return (
            f"{self.first:.1f} -> {self.last:.1f}, {self.per_1000:+.2f} (error {self.error:.2f}) "
            "per 1000 cells"
        )


def slope(samples: Sequence[tuple[int, float]]) -> Slope | None:
    """The slope of the second half of the samples, (cell, value) each; None: they are too few.

    Least squares over the means of batches. The disk rises until old checkpoints are dropped, and
    memory until a guest dies, so that one sample says much about the next: the residuals of
    single samples would promise more than is known.
    """
    late = samples[len(samples) // 2 :]
    size = len(late) // BATCHES
    if not size:
        return None
    late = late[len(late) % BATCHES :]
    batches = [late[k : k + size] for k in range(0, len(late), size)]
    at = [statistics.fmean(n for n, _ in batch) for batch in batches]
    values = [statistics.fmean(value for _, value in batch) for batch in batches]
    fit = statistics.linear_regression(at, values)
    residual = sum(
        (value - fit.slope * n - fit.intercept) ** 2 for n, value in zip(at, values, strict=True)
    )
    spread = sum((n - statistics.fmean(at)) ** 2 for n in at)
    error = (residual / (BATCHES - 2) / spread) ** 0.5
    return Slope(values[0], values[-1], 1000 * fit.slope, 1000 * error)
