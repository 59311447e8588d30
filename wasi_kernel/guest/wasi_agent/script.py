"""Programs that are run as `python` runs them: a `__main__` of their own, bytes in and out.

Called from outside, through user_expressions (see cli/run.py on the host).
"""

from __future__ import annotations

import builtins
import io
import json
import sys
import types
from typing import TYPE_CHECKING, Any

from wasi_agent.calls import Result
from wasi_agent.explain import explanation, limit_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from wasi_agent.door import Door

PIECE_BYTES = 1 << 16


class RawOutput(io.RawIOBase):
    """Bytes to the host's stdout or stderr."""

    def __init__(self, door: Door, name: str, *, tty: bool) -> None:
        self._door, self._name, self._tty = door, name, tty

    def write(self, data: Any) -> int:  # noqa: D102 - as in io
        view = memoryview(data).cast("B")
        self._door.put(self._name, bytes(view))
        return len(view)

    def writable(self) -> bool:  # noqa: D102 - as in io
        return True

    def isatty(self) -> bool:  # noqa: D102 - as in io
        return self._tty

    def fileno(self) -> int:
        """The descriptor of the same stream for C code."""
        return 1 if self._name == "stdout" else 2


class RawInput(io.RawIOBase):
    """Bytes of the host's stdin, asked for as they are wanted."""

    def __init__(self, door: Door, *, tty: bool) -> None:
        self._door, self._tty = door, tty

    def readinto(self, buffer: Any) -> int:  # noqa: D102 - as in io
        count = min(len(buffer), PIECE_BYTES)
        content = {"prompt": "", "password": False, "bytes": count}
        frame = self._door.ask("input_request", content)
        data = bytes(frame.buffers[0])[:count] if frame.buffers else b""
        buffer[: len(data)] = data
        return len(data)

    def readable(self) -> bool:  # noqa: D102 - as in io
        return True

    def isatty(self) -> bool:  # noqa: D102 - as in io
        return self._tty

    def fileno(self) -> int:
        """There is none behind which the same bytes would be found."""
        raise io.UnsupportedOperation("fileno")


def ask(prompt: object = "", /) -> str:
    """Read a line from standard input; the prompt goes to standard output."""
    sys.stdout.write(str(prompt))
    sys.stdout.flush()
    line = sys.stdin.readline()
    if not line:
        raise EOFError("EOF when reading a line")
    return line.removesuffix("\n")


def streams(door: Door, ttys: list[bool]) -> tuple[Any, Any, Any]:
    """sys.stdin, stdout and stderr of a program."""
    raw_in = RawInput(door, tty=ttys[0])
    raw_out = RawOutput(door, "stdout", tty=ttys[1])
    raw_err = RawOutput(door, "stderr", tty=ttys[2])
    buffered: Any = io.BufferedWriter(raw_out)
    unbuffered: Any = raw_err
    return (
        io.TextIOWrapper(io.BufferedReader(raw_in), "utf-8", "surrogateescape"),
        io.TextIOWrapper(buffered, "utf-8", "surrogateescape", line_buffering=ttys[1]),
        io.TextIOWrapper(unbuffered, "utf-8", "backslashreplace", write_through=True),
    )


def run(said: str) -> Result:
    """Runs a program; the exit status that it ends with.

    `said` is JSON: {"kind": "file", "code" or "module", "argv": sys.argv, "path": sys.path[0],
    "source": its text (not of a module), "ttys": [stdin, stdout, stderr]}.
    """
    from wasi_agent import agent

    about = json.loads(said)
    door = agent._door  # noqa: SLF001 - of the same package
    before = sys.stdin, sys.stdout, sys.stderr, builtins.input, sys.argv, sys.modules["__main__"]
    sys.stdin, sys.stdout, sys.stderr = streams(door, about["ttys"])
    builtins.input, sys.argv = ask, about["argv"]
    sys.path.insert(0, about["path"])
    try:
        return Result(_ended(lambda: _run(about), door))
    finally:
        sys.path.remove(about["path"])
        sys.stdin, sys.stdout, sys.stderr, builtins.input, sys.argv, main = before
        sys.modules["__main__"] = main


def _run(about: dict[str, Any]) -> None:
    if about["kind"] == "module":
        import importlib.util
        import runpy

        if about["argv"][0] == "pip" and importlib.util.find_spec("pip") is None:
            _pip(about["argv"][1:])
            return
        runpy.run_module(about["argv"][0], run_name="__main__", alter_sys=True)
        return
    name = about["argv"][0] if about["kind"] == "file" else "<string>"
    main = types.ModuleType("__main__")
    main.__dict__["__builtins__"] = builtins
    if about["kind"] == "file":
        main.__file__ = name
    sys.modules["__main__"] = main
    import linecache

    linecache.cache[name] = (
        len(about["source"]), None, about["source"].splitlines(keepends=True), name,
    )  # fmt: skip
    code = compile(about["source"], name, "exec", dont_inherit=True)
    exec(code, main.__dict__)  # noqa: S102 - a program is what this runs


def _pip(words: list[str]) -> None:
    """What `python -m pip` does: it tells what is there. A program has what it is started with."""
    import shlex

    from IPython.core.error import UsageError

    from wasi_agent import pip

    if words[:1] == ["install"]:
        wanted = " ".join(f"--package {shlex.quote(w)}" for w in words[1:] if w[0] != "-")
        sys.exit(f"pip: a program gets its packages when it is started: wasi-kernel run {wanted}")
    try:
        pip.Pip(dict).pip(shlex.join(words))
    except UsageError as e:
        sys.exit(str(e).replace("%pip", "pip"))


def _ended(program: Callable[[], None], door: Door) -> int:
    """Runs it as `python` does at the top: what it raises, and which status that means."""
    status = 0
    try:
        program()
    except SystemExit as e:
        status = _status(e.code)
    except KeyboardInterrupt as e:
        _print(e)
        status = 130
    except BaseException as e:  # noqa: BLE001 - the program's own
        _print(e)
        said = explanation(e, limit_of(e, door.limits))
        if said is not None:
            print(said, file=sys.stderr)
        status = 1
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None and not stream.closed:
                stream.flush()
        except (OSError, ValueError):
            status = status or 120
    return status


def _status(code: object) -> int:
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    print(code, file=sys.stderr)
    return 1


def _print(error: BaseException) -> None:
    """The traceback, from the program's first frame on."""
    import traceback

    from wasi_agent.shell import cut_own_frames

    tb = error.__traceback__
    while tb is not None and tb.tb_frame.f_globals.get("__name__") in (__name__, "runpy"):
        tb = tb.tb_next
    cut_own_frames(tb)
    sys.stdout.flush()
    traceback.print_exception(type(error), error, tb)
