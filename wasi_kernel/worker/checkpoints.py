"""Checkpoints: a resting guest's memory into the page log, and back into a fresh instance.

Runs on the guest's thread, while the guest is at rest and nothing else writes to its memory.
"""

from __future__ import annotations

import contextlib
import itertools
from typing import TYPE_CHECKING, Any

from wasi_kernel import timeline
from wasi_kernel.pagelog import PageLog
from wasi_kernel.records import PAGE, Run
from wasi_kernel.worker import dirty, images

if TYPE_CHECKING:
    from pathlib import Path

    from wasi_kernel.policy import CheckpointLimits
    from wasi_kernel.records import Checkpoint
    from wasi_kernel.worker.dirty import Span
    from wasi_kernel.worker.memory import LinearMemory

MANY = 2000
"""Into about so many pieces memory is put together."""

MANY_MAPPINGS = 16_000
"""So many pieces of memory, and it is put together anew. Linux allows a process 65,530 mappings
(vm.max_map_count)."""


class Checkpoints:
    """One session's checkpoints: the log in its folder, over one base image.

    Attributes:
        log: The page log.
    """

    def __init__(
        self, folder: Path, image: Path, digest: str, image_bytes: int, limits: CheckpointLimits,
    ) -> None:  # fmt: skip
        """Opens the log in `folder`, or begins one there.

        Args:
            folder: The session's own, owner-only.
            image: The base image.
            digest: Of the base image.
            image_bytes: Its size.
            limits: How much is kept, and how changed pages are found.

        Raises:
            PageLogError: What is in the folder cannot be used.
            OSError: The folder cannot be used.
        """
        self.log = PageLog(folder, digest)
        self._image, self._image_bytes, self._limits = image, image_bytes, limits
        self._tracker = dirty.tracker(image, image_bytes, compare=limits.compare)
        self._mappings = 0

    def close(self) -> None:
        """Closes the log."""
        self.log.close()

    def fill(self, memory: LinearMemory, ident: int) -> None:
        """Makes the memory of a fresh instance what it was at that checkpoint; 0: the base image.

        Raises:
            OSError: The image or the log cannot be read or mapped.
            ValueError: The instance has more memory than the checkpoint had.
        """
        self._tracker.begin()
        runs = self.show(memory, ident)
        self._mappings = 2 * len(runs)

    def show(self, memory: LinearMemory, ident: int) -> list[Run]:
        """`fill`, for an instance of which no checkpoints will be made."""
        images.restore(memory, self._image, self._image_bytes)
        if ident:
            memory.grow_to(self.log[ident].pages * PAGE)
        return self._map(memory, self.log.state(ident))

    def _map(self, memory: LinearMemory, runs: list[Run]) -> list[Run]:
        for run in runs:
            self._tracker.put(memory, run, *self.log.fileno(run.place))
        return runs

    def commit(self, memory: LinearMemory, notes: dict[str, Any]) -> Checkpoint:
        """Writes what has changed since the head; that is the head from here on.

        Raises:
            OSError: It could not be written: the head is the one before, and a later commit
                writes all that has changed since that one.
        """
        log = self.log
        spans = dirty.spans(self._tracker.changed(memory, log))
        self._mappings += 2 * len(spans)
        anew = self._mappings > MANY_MAPPINGS
        if anew:
            spans = _fewer([*spans, *((r.page, r.count) for r in log.state(log.head))])
        view = memory.view()
        changed = ((page, view[page * PAGE : (page + count) * PAGE]) for page, count in spans)
        found = log.append(memory.size() // PAGE, changed, notes)
        if anew:
            self._refresh(memory, list(found.runs))
        self._tracker.settle(memory, log)
        return found

    def since(self, memory: LinearMemory) -> bytearray:
        """A mark for each page that may differ from the head; the guest may be in a turn."""
        return self._tracker.glance(memory, self.log)

    def tidy(self, memory: LinearMemory) -> bool:
        """Keeps the log within its limits; memory must be at the head. Was anything dropped?

        Raises:
            OSError: The disk is full.
        """
        limits = self._limits
        if not self.log.compact(limits.cells, limits.bytes, timeline.is_cell):
            return False
        self._refresh(memory, self.log.state(self.log.head))  # lets go of the dropped files
        return True

    def _refresh(self, memory: LinearMemory, runs: list[Run]) -> None:
        """Maps pages that are what the log has; one that cannot be mapped just stays."""
        for run in runs:
            with contextlib.suppress(OSError):
                self._tracker.put(memory, run, *self.log.fileno(run.place))
        self._mappings = 2 * len(runs)


def _fewer(spans: list[Span]) -> list[Span]:
    """About MANY spans, or fewer, that cover these, with the smallest gaps filled."""
    merged: list[Span] = []
    for page, count in sorted(spans):
        if merged and page <= sum(merged[-1]):
            merged[-1] = (merged[-1][0], max(sum(merged[-1]), page + count) - merged[-1][0])
        else:
            merged.append((page, count))
    gaps = sorted(b[0] - sum(a) for a, b in itertools.pairwise(merged))
    few = len(gaps) - MANY
    widest = gaps[few] if few > 0 else 0
    found: list[Span] = []
    for page, count in merged:
        if found and page - sum(found[-1]) <= widest:
            found[-1] = (found[-1][0], page + count - found[-1][0])
        else:
            found.append((page, count))
    return found
