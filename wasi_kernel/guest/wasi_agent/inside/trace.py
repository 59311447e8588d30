"""`%%wasi trace`: what a cell asks of the world outside, call by call, seen from outside."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError
from IPython.display import display

from wasi_agent.inside import Arguments
from wasi_agent.inside.cells import compiled
from wasi_agent.traces import Trace

if TYPE_CHECKING:
    from types import CodeType

    from wasi_agent.inside import WasiMagics

MOST = 5000


def run(magics: WasiMagics, line: str, cell: str | None) -> Trace | None:
    """Show each WASI call of a cell: everything that it asks of the world outside.

    As strace does for a process: the call with its arguments, the result or the error, how long it
    took, and the Python line that caused it. A folder or file that an fd stands for is in <>; one
    that was opened before the cell has only its number. It is on for that cell only.

        %%wasi trace [--filter NAME,...] [--summary] [--most N]
        %wasi trace [--summary]

    --filter   only these calls (path_open) or groups of them (path, fd, clock, random, sock)
    --summary  by call: how often, how often in vain, how long
    --most N   so many calls are kept, 1 to 20000 (5000); more are counted

    Without a cell: the last one again. The value `t`: t.calls (a list of dicts), t.summary(),
    t.to_dict(), str(t). Times contain the way to the tracer, some microseconds for each call. Of a
    cell that ends the guest (os._exit) the last calls are shown, as text.
    """
    __tracebackhide__ = True  # an error's traceback shows the cell's own lines
    arguments = Arguments("trace")
    arguments.add_argument("--filter", default="")
    arguments.add_argument("--summary", action="store_true")
    arguments.add_argument("--most", type=int, default=MOST)
    options = arguments.of(line)
    if cell is None:
        if options.filter or options.most != MOST:
            arguments.error("--filter and --most belong above a cell: %%wasi trace --filter path")
        last: Trace | None = magics.last_trace
        if last is None:
            arguments.error("there is none yet; write %%wasi trace above a cell")
        return last.shown(by_call=options.summary)
    return _trace(magics, "\n" + cell, options)  # lines as they are in the whole cell


def _trace(magics: WasiMagics, source: str, options: Any) -> Trace:
    __tracebackhide__ = True
    body, last = compiled(magics, source, "trace")
    try:
        value = _run(magics, body, last, options)
    except UsageError:
        raise
    except BaseException:
        if magics.last_trace is not None:
            with contextlib.suppress(Exception):  # what the cell raised is what counts
                display(magics.last_trace.shown(by_call=options.summary))
        raise
    if value is not None:
        display(value)
    trace: Trace = magics.last_trace
    return trace.shown(by_call=options.summary)


def _run(magics: WasiMagics, body: CodeType, last: CodeType | None, options: Any) -> Any:
    """The last expression's value; whatever happens, the trace ends and is kept."""
    __tracebackhide__ = True
    shell, namespace = magics.shell, magics.shell.user_ns
    door = shell.door
    words = [word for word in options.filter.replace(" ", "").split(",") if word]
    try:
        door.look("trace_begin", filter=words, most=options.most, file=body.co_filename)
    except ValueError as e:
        raise UsageError(f"%wasi trace: {e}") from None
    magics.last_trace = None
    try:
        exec(body, namespace)  # noqa: S102 - the user's own code
        return None if last is None else eval(last, namespace)  # noqa: S307 - as well
    finally:
        seen = door.look("trace_end").content
        magics.last_trace = Trace(seen, shell.compile.format_code_name, body.co_filename)
