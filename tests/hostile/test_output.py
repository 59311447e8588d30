"""Whatever a cell shows, the kernel stays at hand and sends only what front ends can read."""

from __future__ import annotations

GROUPS = ("output",)


def interrupted_when_full(stage, case):
    sent = stage.execute(case.cells[0])
    stage.recorder.until_text(sent, "output limit reached")
    stage.interrupt()
    return stage.answer(sent)


def test_case(hostile, case):
    hostile.check(case, {"interrupted_when_full": interrupted_when_full})
