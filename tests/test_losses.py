"""Shows which cells a session names as lost, from what the next guest says it has."""

from __future__ import annotations

import pytest

from wasi_kernel.errors import GuestLost, Kept
from wasi_kernel.losses import Losses

BOOT = 1


@pytest.fixture
def losses() -> Losses:
    """Of a session with two cells that are kept (requests 2 and 3) and one that is not (4)."""
    found = Losses(BOOT)
    found.ended(BOOT, 0)
    for request in (2, 3):
        found.ended(request, request - 1)
        found.kept(request, moved=False)
    found.ended(4, 3)
    return found


def woken(request: int, cell: int, **more: object) -> dict[str, object]:
    return {"session": {"request": request, "cell": cell}, **more}


def test_what_has_no_checkpoint_is_lost(losses: Losses):
    assert not losses.all_kept
    assert losses.left(woken(3, 2)) == Kept(2, (3,))


def test_a_checkpoint_that_is_gone_is_missed(losses: Losses):
    assert losses.left(woken(2, 1)) == Kept(1, (2, 3))
    assert losses.left(woken(BOOT, 0)) == Kept(0, (1, 2, 3))


def test_what_was_left_behind_on_purpose_is_no_loss(losses: Losses):
    losses.kept(4, moved=True)
    assert losses.all_kept
    assert losses.left(woken(2, 1)) == Kept(1)


def test_a_lost_request_that_is_no_cell_is_a_widgets(losses: Losses):
    losses.ended(5, 0)
    assert losses.left(woken(4, 3)) == Kept(3, lost_widgets=True)


def test_closed_files_and_damage_are_passed_on(losses: Losses):
    losses.kept(4, moved=False)
    said = woken(4, 3, closed_files=["a.txt"], damage="pages are damaged")
    assert losses.left(said) == Kept(3, (), ("a.txt",), "pages are damaged")


@pytest.mark.parametrize(
    "said",
    [{}, {"session": None}, {"session": {"request": "3", "cell": 2}}, {"session": {"request": 3}}],
)
def test_a_guest_that_says_no_such_thing_has_nothing(losses: Losses, said: dict[str, object]):
    assert losses.left(said) is None


def test_the_first_loss_is_told_and_only_once(losses: Losses):
    first = GuestLost("GuestExited", "the first")
    losses.happened(first)
    losses.happened(GuestLost("WorkerFailed", "on the way"))
    assert losses.settle(woken(3, 2), in_cell=True) is first
    assert first.kept == Kept(2, (3,))
    assert first.in_cell
    assert losses.take_unreported() is None
    assert losses.settle(woken(3, 2), in_cell=True) is None


def test_a_loss_between_cells_waits_for_the_next_one(losses: Losses):
    loss = GuestLost("WorkerKilled", "killed")
    losses.happened(loss)
    losses.settle(woken(3, 2), in_cell=False)
    with pytest.raises(GuestLost) as raised:
        losses.raise_unreported()
    assert raised.value is loss
    losses.raise_unreported()
    assert losses.take_unreported() is None


def test_a_loss_of_nothing_is_told_but_not_raised(losses: Losses):
    loss = GuestLost("WorkerKilled", "killed")
    losses.kept(4, moved=False)
    losses.happened(loss)
    losses.settle(woken(4, 3), in_cell=False)
    losses.raise_unreported()
    assert losses.take_unreported() is loss


def test_a_loss_that_nobody_is_to_know_is_forgotten(losses: Losses):
    losses.happened(GuestLost("WorkerKilled", "killed"))
    losses.replace(None)
    assert losses.settle(woken(3, 2), in_cell=False) is None
    assert losses.take_unreported() is None
