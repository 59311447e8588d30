"""Shows what is tried after a start that failed, and when no other one is; a status's line."""

from __future__ import annotations

import pytest

from wasi_kernel.errors import GuestLost
from wasi_kernel.starts import GIVEN_UP, KILLED, Starts, Status

FAILED = GuestLost("WorkerFailed", "it failed")
KILL = GuestLost("WorkerKilled", "killed")


def test_each_start_goes_twice_as_far_back_and_the_last_but_one_begins_anew():
    starts = Starts(keeps=True, resumed=False)
    assert (starts.skip, starts.anew) == (0, False)
    tried = []
    while starts.failed(FAILED) is None:
        tried.append((starts.skip, starts.anew))
    assert [skip for skip, _ in tried] == [1 << k for k in range(GIVEN_UP)]
    assert [anew for _, anew in tried] == [False] * (GIVEN_UP - 1) + [True]


def test_without_checkpoints_there_is_one_more_start():
    starts = Starts(keeps=False, resumed=False)
    assert starts.failed(FAILED) is None
    assert "does not start" in str(starts.failed(FAILED))


def test_the_last_words_are_in_the_reason():
    starts = Starts(keeps=False, resumed=False)
    starts.heard("one\n")
    starts.heard("MemoryError: " + "x" * 1000 + "\n")
    starts.failed(FAILED)
    why = str(starts.failed(FAILED))
    assert "its last words: MemoryError: xxx" in why
    assert len(why) < 500


def test_starts_that_are_killed_say_nothing_against_the_state():
    starts = Starts(keeps=True, resumed=True)
    for _ in range(KILLED):
        assert starts.failed(KILL) is None
        assert (starts.skip, starts.anew) == (0, False)
    assert starts.failed(KILL) is not None


def test_a_saved_session_is_not_begun_from_another_state():
    starts = Starts(keeps=True, resumed=True)
    assert starts.failed(FAILED) is None
    assert "the saved session" in str(starts.failed(FAILED))


def test_a_saved_session_that_was_there_is_like_any_other():
    starts = Starts(keeps=True, resumed=True)
    starts.end(ready=True)
    assert [starts.failed(FAILED) for _ in range(GIVEN_UP)] == [None] * GIVEN_UP


def test_a_guest_that_is_ready_makes_good_what_failed():
    starts = Starts(keeps=True, resumed=False)
    starts.failed(FAILED)
    starts.failed(KILL)
    starts.prepared = starts.compiled = True
    starts.end(ready=True)
    assert (starts.skip, starts.prepared, starts.compiled) == (0, False, False)
    assert starts.was_ready
    starts.end(ready=False)
    assert starts.was_ready


def test_a_wish_to_begin_anew_forgives_what_failed():
    starts = Starts(keeps=True, resumed=False)
    starts.failed(FAILED)
    starts.forgive()
    assert starts.skip == 0


@pytest.mark.parametrize(
    ("status", "line"),
    [
        (Status("compiling"), "Compiling ..."),
        (Status("compiling", 0.5, 20.4), "Compiling, 50 % done, about 20 s left ..."),
        (Status("compiling", 0.5, 0.2), "Compiling, 50 % done, about 1 s left ..."),
        (Status("compiling", 0.99), "Compiling, 99 % done, longer than estimated ..."),
    ],
)
def test_a_status_is_one_line(status: Status, line: str):
    assert status.line == line
