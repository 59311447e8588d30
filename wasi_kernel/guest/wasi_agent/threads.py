"""Threads of a front end's own cells, which run where they are started: there are no others.

VS Code asks for completions, for what is known of a name, and for its view of all variables by
cells that leave no trace in the history. Each starts a daemon thread, whose last act is to update a
display; that answer, and nothing else, is waited for (vscode-jupyter,
src/standalone/api/kernels/backgroundExecution.ts). So in such cells a daemon thread is run in its
`start()`. In a user's own cell it would be wrong to do so: there a thread is meant to run beside
what follows, and `start()` says that there are none.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def run_in_place() -> Iterator[None]:
    """Daemon threads that are started meanwhile run, to their end, in `start()`."""
    beside = threading.Thread.start
    threads: Any = threading.Thread
    threads.start = lambda thread: _run(thread) if thread.daemon else beside(thread)
    try:
        yield
    finally:
        threads.start = beside


def _run(thread: Any) -> None:
    if "_ran" in vars(thread):
        raise RuntimeError("threads can only be started once")
    thread._ran = True  # noqa: SLF001 - our own mark
    thread.join = lambda timeout=None: None  # noqa: ARG005 - Thread's own signature
    thread.is_alive = lambda: False
    try:
        thread.run()
    except SystemExit:
        pass  # ends a thread in silence
    except Exception:  # noqa: BLE001 - shown as that of any thread
        threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), thread)))
