"""Shows packages from the policy to the guest: installed once, found by kernels, never at a start.

With wheels made here; tests/test_packages.py has the index.
"""

from __future__ import annotations

import subprocess
import sys
import zipfile
from hashlib import sha256
from typing import TYPE_CHECKING

import pytest

from wasi_kernel import Policy, Sandbox, caches, chosen, launch, packages
from wasi_kernel.errors import PackagesMissingError, PolicyError

if TYPE_CHECKING:
    from pathlib import Path


def make_wheel(folder: Path, name: str, source: str, requires: str = "") -> Path:
    """A wheel with one module."""
    info = f"{name}-1.0.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
    files = {
        f"{name}.py": source,
        f"{info}/METADATA": metadata + (f"Requires-Dist: {requires}\n" if requires else ""),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(
        f"{path},sha256={_digest(text)},{len(text.encode())}\n" for path, text in files.items()
    )
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for inside, text in files.items():
            wheel.writestr(inside, text)
        wheel.writestr(f"{info}/RECORD", f"{record}{info}/RECORD,,\n")
    return path


def _digest(text: str) -> str:
    from base64 import urlsafe_b64encode

    return urlsafe_b64encode(sha256(text.encode()).digest()).decode().rstrip("=")


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Policy:
    """A policy with a package of our own, which is installed."""
    folder = tmp_path_factory.mktemp("wheels")
    wheel = make_wheel(folder, "our_words", "import wasi_words\nword = wasi_words.word * 2")
    other = make_wheel(folder, "wasi_words", "word = 'ab'")
    policy = Policy(packages=(f"our-words @ {wheel.as_uri()}", f"wasi-words @ {other.as_uri()}"))
    packages.choose(caches.Cache(caches.default_path()), policy, "3.15")
    return policy


def test_a_guest_imports_them_and_can_undo(policy: Policy):
    with Sandbox(policy) as box:
        assert box.run("import our_words; our_words.word").text == "'abab'"
        assert box.run("our_words.__file__").text == "'/opt/packages/our_words.py'"
        cached = "__import__('os').path.exists(our_words.__spec__.cached)"
        assert box.run(cached).text == "True"  # compiled when the set was prepared
        assert box.run("open(our_words.__file__, 'a')").error is not None
        box.run("our_words.word = 1")
        box.undo()
        assert box.run("our_words.word").text == "'abab'"
        assert "our-words @" in box.run("%wasi").text


def test_they_can_be_preloaded(policy: Policy):
    from dataclasses import replace

    with Sandbox(replace(policy, preload=("our_words",))) as box:
        assert box.run("import sys; 'our_words' in sys.modules").text == "True"


def test_they_are_part_of_forks(policy: Policy):
    with Sandbox(policy) as box:
        box.run("import our_words")
        with box.fork() as other:
            assert other.run("import wasi_words; our_words.word, wasi_words.word").text == (
                "('abab', 'ab')"
            )


def test_what_was_not_installed_is_said(tmp_path: Path):
    wheel = make_wheel(tmp_path, "not_there_yet", "")
    policy = Policy(packages=(f"not-there-yet @ {wheel.as_uri()}",))
    with pytest.raises(PackagesMissingError, match="wasi-kernel prepare") as caught:
        launch.settings(policy, None)
    assert caught.value.packages == policy.packages


def test_a_note_that_is_damaged_is_as_none(policy: Policy, tmp_path: Path):
    assert chosen.read(caches.default_path(), policy) is not None
    (tmp_path / chosen.FOLDER).mkdir()
    path = chosen.note_path(tmp_path, policy)
    for text in (
        "", "[]", "{}", '{"folder": 3}', '{"folder": "none"}', '{"folder": "/etc"}',
        '{"folder": ".."}',
    ):  # fmt: skip
        path.write_text(text)
        assert chosen.read(tmp_path, policy) is None


@pytest.mark.parametrize("text", ["", "-r x", "--index-url=http://x", "a b", "a==", "../x"])
def test_a_requirement_that_is_none_is_named(text: str):
    with pytest.raises(PolicyError) as caught:
        Policy(packages=("attrs", text))
    assert (caught.value.key, caught.value.value) == ("packages[1]", text)


def test_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "jupyter"))
    make_wheel(tmp_path, "line_words", "word = 'cd'")
    (tmp_path / "wanted.txt").write_text("# ours\n./line_words-1.0-py3-none-any.whl\n")

    def run(*argv: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-P", "-m", "wasi_kernel", *argv], capture_output=True, text=True,
            check=False, cwd=tmp_path, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    done = run("install", "--name", "words", "--requirements", "wanted.txt")
    assert done.returncode == 0, done.stderr
    assert "line-words 1.0" in done.stderr
    code = "import line_words; print(line_words.word)"
    assert run("run", "--kernel", "words", "-c", code).stdout == "cd\n"
    wheel = "./line_words-1.0-py3-none-any.whl"
    assert run("run", "--package", wheel, "-c", code).stdout == "cd\n"
    done = run("install", "--name", "bad", "--package", "--index-url=http://x")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "jupyter" / "kernels" / "bad").exists()
