"""What the benchmarks compare with and do not bring: fetched once, kept in a folder of the user's
cache, never in the checkout.

From PyPI: the programs of pyperformance (MIT), and numpy and pandas for the native side. From npm:
Pyodide. Nothing here is imported into this process.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from kernels import KernelFailedError

PYPERFORMANCE = "1.14.0"
PYODIDE = "314.0.7"
"""Versions that were tried, so that two runs compare the same programs."""

FETCH_S = 600.0
PROGRAMS = "pyperformance/data-files/benchmarks/"


def folder() -> Path:
    """Where all of it is kept: `wasi-kernel-benchmarks` in the user's cache."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    path = Path(base) / "wasi-kernel-benchmarks"
    path.mkdir(parents=True, exist_ok=True)
    return path


def programs() -> Path:
    """The folder with pyperformance's `bm_*` folders.

    Raises:
        KernelFailedError: They cannot be had; says why.
    """
    kept = folder() / f"pyperformance-{PYPERFORMANCE}"
    if not kept.exists():
        new = _fresh(kept)
        _call(
            [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(new),
             f"pyperformance=={PYPERFORMANCE}"],
        )  # fmt: skip
        (wheel,) = new.glob("*.whl")
        with zipfile.ZipFile(wheel) as file:
            file.extractall(
                new, [name for name in file.namelist() if name.startswith((PROGRAMS, "pyperf"))]
            )
        wheel.unlink()
        new.rename(kept)
    return kept / PROGRAMS


def pyodide() -> Path:
    """The folder in which Node finds the module `pyodide`.

    Raises:
        KernelFailedError: It cannot be had, or there is no Node; says why.
    """
    for tool in ("node", "npm"):
        if shutil.which(tool) is None:
            raise KernelFailedError(f"the comparison with Pyodide needs {tool} on the PATH")
    kept = folder() / f"pyodide-{PYODIDE}"
    if not kept.exists():
        new = _fresh(kept)
        _call(
            ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(new),
             f"pyodide@{PYODIDE}"],
        )  # fmt: skip
        new.rename(kept)
    return kept


def with_arrays(python: str) -> str:
    """That Python's executable, in an environment of its own with numpy and pandas.

    Raises:
        KernelFailedError: They cannot be had; says why.
    """
    said = subprocess.run(
        [python, "-I", "-c", "import sys; print(*sys.version_info[:3], sep='.')"],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    kept = folder() / f"native-{said}-{Path(python).resolve().as_posix().replace('/', '_')}"
    executable = kept / "bin/python"
    if not executable.exists():
        shutil.rmtree(kept, ignore_errors=True)
        _call(["uv", "venv", "--quiet", "--python", python, str(kept)])
        _call(["uv", "pip", "install", "--quiet", "--python", str(executable), "numpy", "pandas"])
    return str(executable)


def _fresh(kept: Path) -> Path:
    new = kept.with_name(f"{kept.name}.{os.getpid()}.new")
    new.mkdir()
    return new


def _call(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_S, check=False)
    if done.returncode != 0:
        last = (done.stderr or done.stdout).strip().rpartition("\n")[2]
        raise KernelFailedError(f"{' '.join(command[:4])} failed: {last}")
