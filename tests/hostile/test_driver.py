"""The driver sees what it is there to see: each of its checks fails where something is wrong."""

from __future__ import annotations

import pytest


def make(hostile, **table):
    base = {"name": "one", "why": "the driver's own", "cells": ["1"]}
    return hostile.case("driver", base | table)


@pytest.mark.parametrize(
    "table",
    [
        {"code": "1 / 0"},  # another ename
        {"ename": "ZeroDivisionError"},  # no error
        {"code": "sentinel = 0"},  # the sentinel is gone
        {"code": "open = None"},  # and so is the way to the file
        {"shows": "never shown"},
        {"code": "print('shown')", "hides": "shown"},
        {"code": "import os; os._exit(1)", "ename": "GuestExited", "restored": False},
        {"restored": True},
        {"code": "print('/lib/site-packages/x.py')"},  # as a host's path would
        {"cells": ["1 / 0", "1"]},  # what must succeed first does not
    ],
)  # fmt: skip
def test_it_sees_what_a_cell_did(hostile, table):
    with pytest.raises(AssertionError):
        hostile.check(make(hostile, **table))
    hostile.check(make(hostile))


@pytest.mark.parametrize("folder", ["work", "data", "outside", "home"])
def test_it_sees_what_has_changed_outside(hostile, folder):
    path = getattr(hostile.world, folder) / "new.txt"
    path.write_text("new")
    try:
        with pytest.raises(AssertionError):
            hostile.check(make(hostile))
    finally:
        path.unlink()
        hostile.world.look_again()


def test_a_key_that_no_case_has_is_named(hostile):
    with pytest.raises(ValueError, match="enam"):
        make(hostile, enam="ok")


def test_the_corpus_is_large(hostile):
    named = [
        c for group in ("memory", "recursion", "exits", "interrupts", "output", "files", "requests")
        for c in hostile.cases(group)
    ]  # fmt: skip
    assert len(named) >= 270
    assert all(len(c.why) >= 10 for c in named)
