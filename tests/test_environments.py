"""Shows what the agent's bundle is made of, and that it is made whole or not at all."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from wasi_kernel import environments
from wasi_kernel.caches import Cache

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return Cache(tmp_path_factory.mktemp("environments") / "cache")


@pytest.fixture(scope="module")
def compiled() -> list[Path]:
    """The folders that were given to the compile function of `bundle`."""
    return []


@pytest.fixture(scope="module")
def bundle(cache: Cache, compiled: list[Path]) -> Path:
    """A bundle whose compile function does nothing."""
    return environments.bundle(cache, "3.15", environments.closure("3.15"), compiled.append)


def test_the_closure_is_what_a_guest_imports():
    found = environments.closure("3.15")
    assert {"ipython", "traitlets", "matplotlib-inline", "comm", "jedi", "parso"} <= set(found)
    assert not set(found) & environments.HOST_ONLY
    assert "psutil" not in found
    assert all(name == found[name].metadata["Name"].lower().replace("_", "-") for name in found)


def test_the_closure_follows_the_guests_markers_not_the_hosts():
    """IPython wants typing_extensions below Python 3.12 only."""
    old, new = environments.closure("3.11"), environments.closure("3.15")
    assert "typing-extensions" in old
    assert "typing-extensions" not in new


def test_the_bundle_holds_the_agent_and_ipython(bundle: Path):
    for name in (
        "wasi_agent/__init__.py", "wasi_agent/agent.py", "wasi_agent/door.py",
        "wasi_agent/frames.py", "IPython/__init__.py", "IPython/core/interactiveshell.py",
        "traitlets/__init__.py", "comm/__init__.py", "matplotlib_inline/backend_inline.py",
        "ipywidgets/__init__.py", "tqdm/notebook.py",
    ):  # fmt: skip
        assert (bundle / name).is_file(), name


def test_frames_is_the_one_file_that_both_sides_share(bundle: Path):
    for name, path in environments.agent_files().items():
        assert (bundle / "wasi_agent" / name).read_bytes() == path.read_bytes()
    shared = bundle / "wasi_agent" / "frames.py"
    assert shared.read_bytes() == (environments.PACKAGE / "frames.py").read_bytes()


def test_the_bundle_holds_nothing_that_a_guest_cannot_use(bundle: Path):
    files = [p.relative_to(bundle) for p in bundle.rglob("*") if not p.is_dir()]
    assert len(files) > 200
    assert [p for p in files if p.suffix in {".pth", ".so", ".pyd", ".dylib", ".pyc"}] == []
    assert [p for p in files if {"tests", "__pycache__"} & set(p.parts)] == []
    assert not {p.name for p in bundle.iterdir()} & {"bin", "share", "psutil", "pexpect"}
    assert [p for p in bundle.rglob("*") if p.is_symlink()] == []


def test_the_bundle_is_compiled_once_and_before_it_appears(
    cache: Cache, bundle: Path, compiled: list[Path]
):
    dists = environments.closure("3.15")
    assert environments.bundle(cache, "3.15", dists, compiled.append) == bundle
    (folder,) = compiled
    assert folder.parent == bundle.parent
    assert folder != bundle
    assert not folder.exists()
    assert [p.name for p in bundle.parent.iterdir()] == [bundle.name]


def test_another_python_has_another_bundle(cache: Cache, bundle: Path, tmp_path: Path):
    class StopError(Exception):
        pass

    def stop(folder: Path) -> None:
        assert (folder / "wasi_agent" / "frames.py").is_file()
        raise StopError

    before = set(bundle.parent.iterdir())
    with pytest.raises(StopError):
        environments.bundle(cache, "3.14", environments.closure("3.14"), stop)
    assert set(bundle.parent.iterdir()) == before  # whole or not at all


def test_the_records_of_distributions_are_there_and_name_their_versions():
    dists = environments.closure("3.15")
    records = environments.records(dists)
    assert len(set(records)) == len(dists)
    for record, dist in zip(records, dists.values(), strict=True):
        assert os.path.isfile(os.path.join(record, "METADATA"))
        assert dist.version in os.path.basename(record)


def test_every_file_of_the_agent_is_in_the_bundle():
    folder = environments.AGENT
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*.py")}
    assert {"agent.py", "inside/__init__.py", "inside/info.py"} < names
    assert names | set(environments.SHARED) == set(environments.agent_files())
