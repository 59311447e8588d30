"""Shows that progress is told while something runs, and no longer."""

from __future__ import annotations

import queue
import threading

import pytest

from wasi_kernel.worker import progress

WAIT_S = 20


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "EVERY_S", 0.001)


def test_it_is_told_from_the_beginning_and_again():
    told: queue.Queue[tuple[str, float | None, float | None]] = queue.Queue()
    with progress.report_while(lambda *said: told.put(said), "compiling", 1000.0):
        what, fraction, left_s = told.get(timeout=WAIT_S)
        assert (what, fraction) == ("compiling", 0.0)
        assert left_s is not None
        assert 0 < left_s <= 1000.0
        what, fraction, _ = told.get(timeout=WAIT_S)
        assert fraction is not None
        assert 0 <= fraction < 1


def test_what_takes_longer_than_estimated_is_never_done():
    told: queue.Queue[tuple[str, float | None, float | None]] = queue.Queue()
    with progress.report_while(lambda *said: told.put(said), "compiling", 1e-9):
        told.get(timeout=WAIT_S)
        assert told.get(timeout=WAIT_S)[1:] == (0.99, None)


def test_its_thread_ends_with_the_body_also_when_that_fails():
    before = threading.active_count()
    with (
        pytest.raises(ValueError, match="no room"),
        progress.report_while(lambda *_: None, "compiling", 1.0),
    ):
        raise ValueError("no room")
    assert threading.active_count() == before
