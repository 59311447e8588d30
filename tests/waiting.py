"""Waiting for what another process does, and nobody says."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

TIMEOUT_S = 60


def eventually(found: Callable[[], Any]) -> Any:
    """What `found` gives as soon as it is something; fails after TIMEOUT_S."""
    end = time.monotonic() + TIMEOUT_S
    while not (value := found()):
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)
    return value
