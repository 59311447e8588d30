"""No cell can kill the session, reach what was not granted, or leave the host changed.

The cases are data; what each of them must leave as it was is in conftest.py.
"""

from __future__ import annotations

GROUPS = ("exits", "recursion", "memory")


def test_case(hostile, case):
    hostile.check(case)
