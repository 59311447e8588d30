"""Losses: what a guest takes along when it dies, known by what the next one has.

A request that has ended is not kept until its checkpoint is written. So which cells are lost is
what was asked for after the checkpoint that the new guest says it woke at. Pure.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from wasi_kernel.errors import Kept

if TYPE_CHECKING:
    from wasi_kernel.errors import GuestLost

REMEMBERED = 1000
"""So many requests whose checkpoints were written are remembered."""


class Losses:
    """What of one session's requests is kept, and who is still to be told of a loss.

    Args:
        boot: The number of the request that guests are started with, which is no cell.
    """

    def __init__(self, boot: int) -> None:
        self._boot = boot
        self._unkept: dict[int, int] = {}  # {request: cell} that ended and have no checkpoint yet
        self._kept: deque[tuple[int, int]] = deque(maxlen=REMEMBERED)  # (request, cell)
        self._present: GuestLost | None = None  # what happened, until it is known what is left
        self._unreported: GuestLost | None = None

    @property
    def all_kept(self) -> bool:
        """Is everything that has ended in a checkpoint?"""
        return not self._unkept

    def ended(self, request: int, cell: int) -> None:
        """A request that changes variables has ended; `cell` is its number, 0 if it is none."""
        self._unkept[request] = cell

    def kept(self, request: int, *, moved: bool) -> None:
        """A checkpoint was written after that request: it is missed if it is gone one day.

        Args:
            request: Its number.
            moved: Memory went back to an older state: what came after that is no loss.
        """
        if moved:
            self._kept.clear()
        else:
            self._kept.extend((n, c) for n, c in self._unkept.items() if n <= request)
        self._unkept = {n: c for n, c in self._unkept.items() if n > request}

    def happened(self, loss: GuestLost) -> None:
        """The guest is lost. While it is not known what is left, the first loss counts."""
        if self._present is None:
            self._present = loss

    def replace(self, loss: GuestLost | None) -> None:
        """Makes that the present loss, whatever has happened before; None: nobody is to know."""
        self._present = loss

    def settle(self, said: dict[str, Any], *, in_cell: bool) -> GuestLost | None:
        """A new guest is there: the loss of the one before, with what is left; None if none was.

        Args:
            said: What the new guest has said at its boot.
            in_cell: Is there a request in progress, which can be told?
        """
        left = self.left(said)
        self._unkept.clear()
        self._kept.clear()
        loss, self._present = self._present, None
        if loss is not None:
            loss.kept, loss.in_cell = left, in_cell
            if not in_cell:
                self._unreported = loss
        return loss

    def left(self, said: dict[str, Any]) -> Kept | None:
        """What the new guest has of the old one; None if nothing."""
        resumed, closed = said.get("session"), said.get("closed_files")
        if not isinstance(resumed, dict):  # a command build's guest answers by itself: anything
            return None
        request, cell = resumed.get("request"), resumed.get("cell")
        if not isinstance(request, int) or not isinstance(cell, int):
            return None
        known = (*self._kept, *self._unkept.items())
        later = {c for n, c in known if n > request and n != self._boot}
        lost = tuple(sorted(later - {0}))
        names = tuple(map(str, closed)) if isinstance(closed, list) else ()
        return Kept(cell, lost, names, str(said.get("damage", "")), lost_widgets=0 in later)

    def take_unreported(self) -> GuestLost | None:
        """A loss that nobody was told of, since no request was in progress; given once."""
        loss, self._unreported = self._unreported, None
        return loss

    def leave_unreported(self, loss: GuestLost) -> None:
        """Nobody was told of this loss after all."""
        loss.in_cell = False
        self._unreported = loss

    def raise_unreported(self) -> None:
        """Raises a loss that nobody was told of, if something of the state was lost; once.

        Raises:
            GuestLost: Something was.
        """
        loss = self._unreported
        if loss is not None and (
            loss.kept is None or loss.kept.lost_cells or loss.kept.lost_widgets or loss.kept.damage
        ):
            self._unreported = None
            raise loss
