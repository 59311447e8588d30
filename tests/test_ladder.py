"""Shows when an interrupt is passed on, and when it stops the guest."""

from __future__ import annotations

from wasi_kernel.ladder import HEEDLESS, SECOND_INTERRUPT_S, Ladder

SOON_S = SECOND_INTERRUPT_S / 10


def test_interrupts_in_quick_succession_are_all_passed_on():
    ladder = Ladder()
    assert [ladder.climb(k * SOON_S) for k in range(10)] == [None] * 10


def test_a_second_one_stops_a_guest_that_has_not_seen_the_first():
    ladder = Ladder()
    assert ladder.climb(5.0) is None
    assert "no reaction" in str(ladder.climb(5.0 + SECOND_INTERRUPT_S))


def test_a_guest_that_sees_and_ignores_them_is_stopped_in_the_end():
    ladder = Ladder()
    for k in range(HEEDLESS):
        assert ladder.climb(k * SECOND_INTERRUPT_S) is None
        ladder.seen += 1
    assert "caught every interrupt" in str(ladder.climb(HEEDLESS * SECOND_INTERRUPT_S))


def test_those_in_quick_succession_count_as_one():
    ladder = Ladder()
    ladder.climb(0.0)
    ladder.seen += 1
    for k in range(5 * HEEDLESS):
        assert ladder.climb(SECOND_INTERRUPT_S + k * SOON_S / HEEDLESS) is None
