"""Sessions of native Python, kept with dill: each in a process of its own."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from kernels import TIMEOUT_S, KernelFailedError

if TYPE_CHECKING:
    from pathlib import Path

SAVE = """\
{code}
import dill, time
start = time.perf_counter()
dill.dump_session({path!r})
print(time.perf_counter() - start)
"""
RESUME = """\
import dill
dill.load_session({path!r})
print(bool({check}))
"""


def check_dill() -> None:
    """Is dill there?

    Raises:
        KernelFailedError: No; says what to do.
    """
    if importlib.util.find_spec("dill") is None:
        raise KernelFailedError("the comparison of saved sessions needs dill: pip install dill")


def saved_s(folder: Path, code: str, path: Path) -> float:
    """Seconds that saving a session takes in which `code` has run.

    Raises:
        KernelFailedError: It cannot be saved.
    """
    return float(_run(folder, SAVE.format(code=code, path=str(path))))


def resumed_s(folder: Path, check: str, path: Path) -> float:
    """Seconds from a process's start until it has the session's variables, and its end.

    Raises:
        KernelFailedError: They are not there.
    """
    start = time.perf_counter()
    if _run(folder, RESUME.format(check=check, path=str(path))) != "True":
        raise KernelFailedError(f"not {check}")
    return time.perf_counter() - start


def keeps(folder: Path, code: str, check: str) -> bool:
    """Is what `code` made there when it was saved and loaded?"""
    path = folder / "dill.session"
    try:
        saved_s(folder, code, path)
        return _run(folder, RESUME.format(check=check, path=str(path))) == "True"
    except KernelFailedError:
        return False


def _run(folder: Path, code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder, capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise KernelFailedError(done.stderr.strip().rpartition("\n")[2])
    return done.stdout.strip()
