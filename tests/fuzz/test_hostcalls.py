"""Shows that no WASI call, however hostile, ends the worker or writes where it may not.

hostcalls.py makes the calls, in a process of its own: were it to crash, hang or find something, the
seed and the call stand in the failure. 10^5 calls; $WASI_KERNEL_FUZZ_CALLS asks for another number
(10^6 in the nightly run), $WASI_KERNEL_FUZZ_SEED for other ones.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from wasi_kernel.worker.door import Door

if TYPE_CHECKING:
    from collections.abc import Callable

SCRIPT = Path(__file__).parent / "hostcalls.py"
CALLS = int(os.environ.get("WASI_KERNEL_FUZZ_CALLS", "100000"))
FIRST_SEED = int(os.environ.get("WASI_KERNEL_FUZZ_SEED", "1"))
CALLS_OF_A_PROCESS = 25_000
SEEDS = range(FIRST_SEED, FIRST_SEED + max(1, CALLS // CALLS_OF_A_PROCESS))
PEAK_MIB = 512
"""More memory than any of it should take: 50 MiB were seen."""


@pytest.mark.parametrize(
    "seed", range(FIRST_SEED, FIRST_SEED + max(1, CALLS // CALLS_OF_A_PROCESS))
)
def test_hostile_calls(seed: int):
    calls = min(CALLS, CALLS_OF_A_PROCESS)
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(seed), str(calls)], capture_output=True, text=True,
        check=False, timeout=110,
    )  # fmt: skip
    assert done.returncode == 0, f"status {done.returncode}\n{done.stdout}\n{done.stderr}"
    print(done.stdout)
    assert "outcomes" in done.stdout
    assert int(done.stdout.split()[-4]) < PEAK_MIB


# -- the harness sees what it is there to see ----------------------------------------------------


@pytest.fixture
def fuzz(tmp_path: Path) -> Any:
    """A run in this process."""
    spec = importlib.util.spec_from_file_location("hostcalls", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Fuzz(1, 3000, tmp_path)


def one_byte_more(self: Door, fd: int, out: int) -> int:
    memory = self._memory
    assert memory is not None
    if out + 65 <= memory.size():
        memory.write(out + 64, bytes([memory.read(out + 64, 1)[0] ^ 1]))
    return 0


def raises(self: Door, fd: int, out: int) -> int:
    raise ValueError(out)


def no_errno(self: Door, fd: int, out: int) -> int:
    return 1000


@pytest.mark.parametrize("fault", [one_byte_more, raises, no_errno])
def test_a_fault_is_found(fuzz: Any, monkeypatch: pytest.MonkeyPatch, fault: Callable[..., int]):
    monkeypatch.setattr(Door, "filestat_get", fault)
    with pytest.raises(AssertionError, match=r"call \d+, \('fd_filestat_get', "):
        fuzz.run()
    fuzz.guest.close()


def test_a_file_that_has_changed_is_found(fuzz: Any):
    fuzz.calls = 1
    opened = fuzz.open

    def meddle() -> None:
        opened()
        (fuzz.folder / "canary").write_bytes(b"other")

    fuzz.open = meddle
    with pytest.raises(AssertionError, match="files outside"):
        fuzz.run()


def test_the_same_seed_makes_the_same_calls(fuzz: Any, tmp_path: Path):
    other = type(fuzz)(1, 300, tmp_path / "other")
    fuzz.calls = 300
    for each in (fuzz, other):
        each.run()
    assert fuzz.done == other.done
    assert fuzz.last == other.last
