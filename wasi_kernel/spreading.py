"""Forks at work: one function's calls, spread over several of them.

How a fork is made is the caller's business; here they are only used, and closed.
"""

from __future__ import annotations

import contextlib
import queue
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager


class Fork(Protocol):
    """What is asked of a fork."""

    def call(self, function: str, *arguments: Any) -> Any:
        """Calls a function of the guest's."""


def spread(
    make: Callable[[], AbstractContextManager[Fork]],
    function: str,
    items: Sequence[Any],
    count: int,
) -> list[Any]:
    """The function's result for each item, in their order, from `count` forks at work at once.

    Args:
        make: Makes a fork, from any thread; all are left at the end.
        function: The name of the function, which takes one argument.
        items: The arguments.
        count: How many forks; none are made where there are no items.

    Raises:
        Exception: The first of what `make` raised; else, in the order of the items, of the calls.
    """
    from concurrent.futures import ThreadPoolExecutor

    if not items:
        return []
    idle: queue.SimpleQueue[Fork] = queue.SimpleQueue()

    def one(item: Any) -> Any:
        fork = idle.get()
        try:
            return fork.call(function, item)
        finally:
            idle.put(fork)

    with ThreadPoolExecutor(count) as pool, contextlib.ExitStack() as open_forks:
        starting = [pool.submit(make) for _ in range(count)]
        failures = []
        for start in starting:
            if (failure := start.exception()) is None:
                idle.put(open_forks.enter_context(start.result()))
            else:
                failures.append(failure)
        if failures:
            raise failures[0]
        futures = [pool.submit(one, item) for item in items]
        try:
            return [future.result() for future in futures]
        finally:
            for future in futures:
                future.cancel()
