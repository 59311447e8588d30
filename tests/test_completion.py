"""Shows that shells complete commands, options and values, each by the script that it is given.

bash is asked itself: it runs the script's function as it does when the key is pressed. The other
shells' scripts ask by the same mechanism, which is driven here with the words that they pass.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from wasi_kernel import kernelspecs
from wasi_kernel.caches import Cache

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ASK = """
source <(wasi-kernel completion bash)
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
_wasi_kernel_completion wasi-kernel
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """An environment with the command, and with one kernelspec beside the default one."""
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    command = bin_folder / "wasi-kernel"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -P -m wasi_kernel "$@"\n')
    command.chmod(0o755)
    place = tmp_path / "jupyter" / "kernels"
    kernelspecs.install("exam-2", "Exam", place=place, policy={})
    return {
        **os.environ, "PATH": f"{bin_folder}:{os.environ['PATH']}",
        "JUPYTER_DATA_DIR": str(tmp_path / "jupyter"), "JUPYTER_PATH": str(tmp_path / "path"),
    }  # fmt: skip


@pytest.fixture
def bash(env: dict[str, str], tmp_path: Path) -> Callable[..., list[str]]:
    """What bash offers after these words, the last of which is being typed."""

    def ask(*words: str, **more: str) -> list[str]:
        done = subprocess.run(
            ["bash", "--norc", "-c", ASK, "bash", "wasi-kernel", *words], capture_output=True,
            text=True, check=True, cwd=tmp_path, env={**env, **more},
        )  # fmt: skip
        assert done.stderr == ""
        return done.stdout.split()

    return ask


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("ses",), ["session"]),
        (("session", "re"), ["resume"]),
        (("run", "--check"), [
            "--checkpoints", "--checkpoint-cells", "--checkpoint-space", "--checkpoint-compare",
        ]),
        (("show", "ex"), ["exam-2"]),
        (("remove", "ex"), ["exam-2"]),
        (("prepare", "ex"), ["exam-2"]),
        (("run", "--kernel", "ex"), ["exam-2"]),
        (("install", "--frontend", "tr"), ["trusted"]),
        (("run", "--memory", "1"), ["1GiB"]),
        (("run", "--cell-seconds", "6"), ["60", "600"]),
        (("run", "--env", "SOME_V"), ["SOME_VARIABLE"]),
        (("completion", ""), ["bash", "zsh", "fish"]),
        (("run", "--grant", "data:"), ["data:/data"]),
    ],
)  # fmt: skip
def test_bash(bash: Callable[..., list[str]], words: tuple[str, ...], offered: list[str]):
    assert bash(*words, SOME_VARIABLE="") == offered


def test_sessions_are_offered_and_a_cache_that_cannot_be_read_offers_none(
    bash: Callable[..., list[str]], tmp_path: Path
):
    assert bash("session", "save", "", WASI_KERNEL_CACHE=str(Cache(tmp_path / "c").path)) == []
    (tmp_path / "file").touch()
    assert bash("session", "save", "", WASI_KERNEL_CACHE=str(tmp_path / "file")) == []


@pytest.mark.parametrize(
    ("shell", "passed", "answer"),
    [
        ("zsh", {"COMP_WORDS": "wasi-kernel show ex", "COMP_CWORD": "2"}, "plain\nexam-2\nExam\n"),
        ("fish", {"COMP_WORDS": "wasi-kernel show ex", "COMP_CWORD": "ex"}, None),
    ],
)
def test_the_other_shells_scripts(
    env: dict[str, str], shell: str, passed: dict[str, str], answer: str | None
):
    command = shutil.which("wasi-kernel", path=env["PATH"])
    assert command is not None
    script = subprocess.run(
        [command, "completion", shell], capture_output=True, text=True, check=True, env=env
    )
    assert f"_WASI_KERNEL_COMPLETE={shell}_complete" in script.stdout
    assert "wasi-kernel" in script.stdout
    env |= {**passed, "_WASI_KERNEL_COMPLETE": f"{shell}_complete"}
    said = subprocess.run([command], capture_output=True, text=True, check=True, env=env).stdout
    assert "exam-2" in said
    assert "Exam" in said
    if answer is not None:
        assert said == answer


def test_a_shell_that_is_none(env: dict[str, str]):
    argv = [sys.executable, "-P", "-m", "wasi_kernel", "completion", "tcsh"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 2
    assert "'tcsh' is not one of" in done.stderr
