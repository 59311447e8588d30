"""Shows that the soak finds nothing wrong in its smallest size, and that it would find it.

The nightly size is a command: see docs/soak.md.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import driven
import leftovers
import psutil
import pytest
import slopes

from wasi_kernel import caches
from wasi_kernel.folders import OwnFolder

SOAK = Path(__file__).parent


@pytest.mark.parametrize("part", ["cells", "worker", "kernels", "kills", "filling"])
def test_the_smallest_size(tmp_path: Path, part: str) -> None:
    path = tmp_path / "report.json"
    done = subprocess.run(
        [sys.executable, str(SOAK), part, "--size", "ci", "--json", str(path)],
        capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    (report,) = json.loads(path.read_text(encoding="utf-8"))
    assert report["wrong"] == []
    assert report["facts"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["cell"], "no part cell; there are cells, worker, kernels, kills, filling"),
        (["cells", "--size", "big"], "no size big; there are nightly, ci, and numbers"),
    ],
)
def test_a_mistake_is_named(given: list[str], said: str) -> None:
    done = subprocess.run(
        [sys.executable, str(SOAK), *given], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 2
    assert said in done.stderr


# -- slopes ----------------------------------------------------------------------------------------


def _sawtooth(n: int, per_1000: float) -> float:
    """A disk's way: it rises by 60 in 37 cells, again and again."""
    return 50 + 60 * (n % 37) / 37 + per_1000 * n / 1000


def test_a_line_is_its_own_slope() -> None:
    found = slopes.slope([(n, 3 + n / 500) for n in range(0, 4000, 20)])
    assert found is not None
    assert found.per_1000 == pytest.approx(2)
    assert found.error == pytest.approx(0, abs=1e-9)
    assert found.exceeds(1.9)
    assert not found.exceeds(2.1)


def test_what_rises_and_falls_does_not_grow() -> None:
    found = slopes.slope([(n, _sawtooth(n, 0)) for n in range(0, 10_000, 20)])
    assert found is not None
    assert not found.exceeds(1)


def test_growth_is_seen_under_what_rises_and_falls() -> None:
    found = slopes.slope([(n, _sawtooth(n, 5)) for n in range(0, 10_000, 20)])
    assert found is not None
    assert found.exceeds(1)


def test_the_first_half_does_not_count() -> None:
    found = slopes.slope([(n, min(n, 2000)) for n in range(0, 4000, 20)])
    assert found is not None
    assert found.per_1000 == pytest.approx(0)


def test_few_samples_have_no_slope() -> None:
    assert slopes.slope([(n, n) for n in range(2 * slopes.BATCHES - 2)]) is None
    assert slopes.slope([]) is None


# -- what is left ----------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(caches.ENV, str(tmp_path / "cache"))
    return caches.Cache(tmp_path / "cache").path


def test_folders_of_a_process_are_those_that_it_has_locked(cache: Path) -> None:
    base = caches.Cache(cache)
    made = [OwnFolder(base.folder(name)) for name in leftovers.OWN]
    other = base.folder("sessions", "another")
    (other / "lock").touch()
    found = leftovers.own_folders(psutil.Process())
    assert found == {folder.path for folder in made}
    assert leftovers.still_there(found) == sorted(
        str(folder.path.relative_to(cache)) for folder in made
    )
    for folder in made:
        folder.release()
    assert leftovers.still_there(found) == []


def test_a_lock_that_outlives_its_process_is_stale(cache: Path) -> None:
    """As a child would have it that the dead process has left its descriptors to."""
    path = caches.Cache(cache).folder("locks") / "left.lock"
    path.touch()
    code = (
        "import fcntl, os, sys\n"
        "fd = os.open(sys.argv[1], os.O_RDWR)\n"
        "fcntl.flock(fd, fcntl.LOCK_EX)\n"
        "if os.fork() == 0:\n    sys.stdin.read()\n"
    )
    there, here = os.pipe()
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdin=there, pass_fds=[]) as p:
        os.close(there)
        p.wait()
        assert leftovers.stale_locks() == ["locks/left.lock"]
        os.close(here)
    with path.open() as f:
        fcntl.flock(f, fcntl.LOCK_EX)  # until the child has ended
    assert leftovers.stale_locks() == []


def test_what_changes_in_the_cache_is_seen(cache: Path) -> None:
    def write(path: Path) -> dict[str, str]:
        path.write_text("what was made")
        return {}

    base = caches.Cache(cache)
    path = base.folder("plans") / "one"
    base.store(path, write)
    before = leftovers.seals()
    assert leftovers.changed(before) == leftovers.not_whole() == leftovers.half_made() == []
    path.write_text("something else")
    path.with_name(f"{caches.NEW}x").touch()
    assert leftovers.changed(before) == leftovers.not_whole() == ["plans/one"]
    assert leftovers.half_made() == [f"plans/{caches.NEW}x"]


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_mapped_files_that_are_gone_are_counted(tmp_path: Path) -> None:
    import mmap

    path = tmp_path / "file"
    path.write_bytes(bytes(mmap.PAGESIZE))
    with path.open("rb") as f, mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ):
        before = leftovers.mapped(os.getpid())
        path.unlink()
        after = leftovers.mapped(os.getpid())
    assert before is not None
    assert after is not None
    assert after[1] == before[1] + 1


def test_what_a_kernel_leaves_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driven, "ENDED_S", 1.0)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as late:
        one = driven.Kernel(tmp_path)
        try:
            one.seen.add(psutil.Process(late.pid))
            found = one.measure()
            (tmp_path / "tmp" / "forgotten").touch()
            (tmp_path / "core").touch()
        finally:
            left = one.close()
        late.communicate(b"\n")
    assert found["worker descriptors"] > 3
    assert found["disk"] > 0
    assert left == [
        f"process {late.pid} is left", "core is left", "forgotten is left in TMPDIR",
    ]  # fmt: skip
