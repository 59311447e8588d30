"""An event loop on a thread of its own, for callers that have none."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")


class LoopThread:
    """The loop, which runs until `end`. Its methods may be called from any other thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """What the coroutine returns. It goes on if the caller is interrupted meanwhile.

        Raises:
            RuntimeError: The loop has ended.
        """
        if self._loop.is_closed():
            coroutine.close()
            raise RuntimeError("it is closed")
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def soon(self, function: Callable[[], object]) -> None:
        """Calls the function on the loop's thread, a moment later."""
        self._loop.call_soon_threadsafe(function)

    def end(self) -> None:
        """Stops the loop; what is still to be done in it is not."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
