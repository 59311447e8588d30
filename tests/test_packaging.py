"""Packaging: what the wheel and the sdist hold, and that a wheel is all that a new machine needs.

Each Python found here that is supported, the oldest and the newest of them, gets an environment of
its own; the compiled runtime is this run's.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
import uv

ROOT = Path(__file__).parents[1]
OLDEST = (3, 11)
SHARED = "share/jupyter/kernels/python-wasi"

RUN_A_CELL = """
import sys
from jupyter_client.manager import start_new_kernel
manager, client = start_new_kernel(kernel_name="python-wasi")
try:
    shown = []
    reply = client.execute_interactive(
        "import sys, numpy as np; print(sys.platform, np.arange(4).sum())",
        timeout=100, output_hook=lambda m: shown.append(m["content"].get("text", "")),
    )
    print(reply["content"]["status"], "".join(shown).strip())
finally:
    client.stop_channels()
    manager.shutdown_kernel(now=True)
"""

TYPED = """
from wasi_kernel import Policy, Sandbox

def answer(policy: Policy) -> int:
    with Sandbox(policy) as box:
        return box.run("1").execution_count

wrong: str = answer(Policy())
"""


def uv_says(*words: object, cwd: Path = ROOT) -> str:
    """What uv prints; the build's tools come from the index."""
    done = subprocess.run(
        [uv.find_uv_bin(), *map(str, words)], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@dataclass(frozen=True)
class Built:
    """What a release is made of: the wheel is made from the sdist."""

    wheel: Path
    sdist: Path


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("built")
    uv_says("build", "--quiet", "--no-python-downloads", "--out-dir", folder, ROOT)
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return Built(wheel, sdist)


def content(wheel: Path) -> dict[str, bytes]:
    """The files of a wheel by name."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def sources(folder: Path) -> set[str]:
    """What of a folder belongs to the project."""
    kept = re.compile(r"(^|/)(__pycache__|\.mypy_cache)(/|$)")
    names = (p.relative_to(ROOT).as_posix() for p in folder.rglob("*") if p.is_file())
    return {name for name in names if not kept.search(name)}


def test_the_wheel_holds_all_of_the_package_and_the_kernelspec(built: Built):
    names = set(content(built.wheel))
    assert {n for n in names if n.startswith("wasi_kernel/")} == sources(ROOT / "wasi_kernel")
    assert "wasi_kernel/py.typed" in names
    (data,) = {n.split("/")[0] for n in names if ".data/" in n}
    spec = {Path(n).name for n in sources(ROOT / "kernelspec")}
    assert {n for n in names if n.startswith(data)} == {f"{data}/data/{SHARED}/{n}" for n in spec}
    assert spec >= {"kernel.json", "logo-64x64.png", "logo-svg.svg"}
    others = {n for n in names if not n.startswith(("wasi_kernel/", data))}
    assert all(".dist-info/" in n for n in others)


def test_the_sdist_builds_the_same_wheel_as_the_checkout(built: Built, tmp_path: Path):
    uv_says("build", "--quiet", "--wheel", "--no-python-downloads", "--out-dir", tmp_path, ROOT)
    (wheel,) = tmp_path.glob("*.whl")
    assert content(wheel) == content(built.wheel)


def test_the_sdist_holds_what_its_tests_need(built: Built):
    with tarfile.open(built.sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert names >= {"README.md", "LICENSE", "pyproject.toml", "tests/conftest.py"}
    assert names >= sources(ROOT / "notebooks")
    assert not [name for name in names if name.startswith(".ci")]


def pythons() -> list[str]:
    """The oldest and the newest Python of this machine that can run wasi-kernel."""
    said = json.loads(
        uv_says("python", "list", "--only-installed", "--output-format", "json", "--all-versions")
    )
    found = {tuple(sys.version_info[:2]): sys._base_executable}
    for one in said:
        version = (one["version_parts"]["major"], one["version_parts"]["minor"])
        usual = one["implementation"] == "cpython" and one.get("variant") in (None, "default")
        final = one["version"].replace(".", "").isdigit()
        if usual and final and version >= OLDEST:
            found.setdefault(version, one["path"])
    return [found[version] for version in sorted({min(found), max(found)})]


@dataclass(frozen=True)
class Environment:
    """A virtual environment with the wheel in it, and nothing of this one."""

    folder: Path
    wheel: Path

    @property
    def bin(self) -> Path:
        return self.folder / "bin"

    def run(self, *words: object) -> str:
        """What a command of it prints."""
        names = ("PYTHONPATH", "VIRTUAL_ENV", "JUPYTER_PATH")
        env = {k: v for k, v in os.environ.items() if k not in names}
        done = subprocess.run(
            [self.bin / str(words[0]), *map(str, words[1:])], cwd=self.folder, text=True,
            capture_output=True, check=False, env=env,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def files(self) -> set[str]:
        """All of it but bytecode."""
        found = (
            p.relative_to(self.folder).as_posix() for p in self.folder.rglob("*") if p.is_file()
        )
        return {name for name in found if "__pycache__" not in name}


@pytest.fixture(scope="module", params=pythons(), ids=lambda path: Path(path).name)
def environment(
    request: pytest.FixtureRequest, built: Built, tmp_path_factory: pytest.TempPathFactory
) -> Environment:
    folder = tmp_path_factory.mktemp("environment")
    uv_says("venv", "--quiet", "--python", request.param, folder / "env")
    made = Environment(folder / "env", built.wheel)
    uv_says("pip", "install", "--quiet", "--python", made.bin / "python", built.wheel)
    return made


@pytest.mark.timeout(600)
def test_a_wheel_alone_gives_a_kernel(environment: Environment):
    assert environment.run("wasi-kernel", "prepare") is not None
    assert environment.run("python", "-c", RUN_A_CELL) == "ok wasi 6"
    assert environment.run("wasi-kernel", "run", "-c", "print(6 * 7)") == "42"
    listed = json.loads(environment.run("wasi-kernel", "list", "--json"))
    assert "python-wasi" in json.dumps(listed)


def test_uninstalling_leaves_nothing_behind(environment: Environment):
    python = environment.bin / "python"
    environment.run("python", "-c", "import wasi_kernel")
    uv_says("pip", "uninstall", "--quiet", "--python", python, "wasi-kernel")
    without = environment.files()
    assert not [name for name in without if "wasi_kernel" in name or "wasi-kernel" in name]
    assert not [name for name in without if "python-wasi" in name]
    uv_says(
        "pip", "install", "--quiet", "--no-deps", "--offline", "--python", python, environment.wheel
    )
    assert environment.files() > without


def test_programs_that_use_it_are_checked_with_its_types(environment: Environment, tmp_path: Path):
    program = tmp_path / "program.py"
    program.write_text(TYPED)
    mypy = Path(sysconfig.get_path("scripts")) / "mypy"
    done = subprocess.run(
        [
            mypy, "--strict", "--python-executable", environment.bin / "python",
            "--cache-dir", tmp_path / "cache", program,
        ],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    (error,) = [line for line in done.stdout.splitlines() if ": error:" in line]
    assert 'expression has type "int", variable has type "str"' in error
