"""Shows what the command line says and with which status it ends: one line, never a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from wasi_kernel import __version__

if TYPE_CHECKING:
    from pathlib import Path


def run(*argv: str, cache: Path | None = None) -> subprocess.CompletedProcess[str]:
    """`wasi-kernel` with these arguments."""
    env = dict(os.environ)
    if cache is not None:
        env["WASI_KERNEL_CACHE"] = str(cache)
    return subprocess.run(
        [sys.executable, "-m", "wasi_kernel", *argv],
        capture_output=True, text=True, env=env, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def test_the_version():
    done = run("--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"wasi-kernel, version {__version__}\n"


@pytest.mark.parametrize("argv", [("--help",), ("-h",)])
def test_help_names_the_commands(argv: tuple[str, ...]):
    done = run(*argv)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Usage: wasi-kernel" in done.stdout
    assert "prepare" in done.stdout


def test_help_of_prepare_names_its_options():
    done = run("prepare", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "Usage: wasi-kernel prepare" in done.stdout
    assert "--runtime NAME|PATH" in done.stdout
    assert "--quiet" in done.stdout


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (("prepare", "--nonsense"), "--nonsense"),
        (("--nonsense",), "--nonsense"),
        (("nonsense",), "nonsense"),
        (("prepare", "nonsense"), "nonsense"),
        (("prepare", "--runtime"), "--runtime"),
    ],
)
def test_a_users_mistake_ends_with_2_and_its_name(argv: tuple[str, ...], named: str):
    done = run(*argv)
    assert (done.returncode, done.stdout) == (2, "")
    assert named in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def broken(tmp_path: Path) -> dict[str, str]:
    """Paths that name no build, by what is wrong."""
    (tmp_path / "text.wasm").write_text("not a module")
    (tmp_path / "empty").mkdir()
    (tmp_path / "garbage.wasm").write_bytes(b"\0asm\1\0\0\0" + b"\xff" * 20)
    (tmp_path / "module.wasm").write_bytes(b"\0asm\1\0\0\0")  # valid, and nothing in it
    return {
        "missing": str(tmp_path / "nowhere"), "text": str(tmp_path / "text.wasm"),
        "folder": str(tmp_path / "empty"), "garbage": str(tmp_path / "garbage.wasm"),
        "no python": str(tmp_path / "module.wasm"),
    }  # fmt: skip


@pytest.mark.parametrize("what", ["missing", "text", "folder", "garbage", "no python"])
def test_a_runtime_that_is_none_ends_with_1_and_one_line(tmp_path: Path, what: str):
    path = broken(tmp_path)[what]
    done = run("prepare", "--quiet", "--runtime", path, cache=tmp_path / "cache")
    assert (done.returncode, done.stdout) == (1, "")
    assert "Traceback" not in done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("wasi-kernel: ")
    assert os.path.basename(path) in line


def test_a_cache_that_cannot_be_made_ends_with_1_and_one_line(tmp_path: Path):
    (tmp_path / "file").touch()
    done = run("prepare", "--quiet", cache=tmp_path / "file")
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("wasi-kernel: ")
    assert str(tmp_path / "file") in line


def test_preparing_for_a_policy_file(tmp_path: Path):
    (tmp_path / "a.toml").write_text("frontend = 'open'")
    done = run("prepare", "--policy", str(tmp_path / "a.toml"))
    assert done.returncode == 2
    assert "a.toml: frontend = 'open'" in done.stderr
    assert run("prepare", "python-wasi", "--policy", str(tmp_path / "a.toml")).returncode == 2


SHOWING = [("list",), ("--help",), ("doctor", "--no-start"), ("install", "--help")]


@pytest.mark.parametrize("argv", SHOWING)
def test_nobody_reads_on(argv: tuple[str, ...]):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "wasi_kernel", *argv], stdout=writer, stderr=subprocess.PIPE,
        check=False,
    )  # fmt: skip
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.parametrize("argv", SHOWING)
def test_output_is_closed(argv: tuple[str, ...]):
    script = 'exec "$@" >&-'
    done = subprocess.run(
        ["sh", "-c", script, "sh", sys.executable, "-m", "wasi_kernel", *argv],
        stderr=subprocess.PIPE, check=False,
    )  # fmt: skip
    assert done.stderr == b""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device that Linux has")
def test_a_full_disk_is_said_and_is_no_success():
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "wasi_kernel", "list"], stdout=full, stderr=subprocess.PIPE,
            check=False, env={k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"},
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, b"wasi-kernel: No space left on device\n")


@pytest.mark.parametrize(
    ("argv", "where", "blocks"),
    [(("prepare",), "cache", 100), (("install", "--name", "q", "--prefix", "place"), "place", 0)],
)
def test_files_that_cannot_be_written(
    tmp_path: Path, argv: tuple[str, ...], where: str, blocks: int
):
    """As on a full disk: no file may have more than so many blocks; one line names the place."""
    done = subprocess.run(
        ["sh", "-c", f'ulimit -f {blocks}; exec "$@"', "sh", sys.executable, "-m", "wasi_kernel",
         *argv],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False, cwd=tmp_path,
        env={**os.environ, "WASI_KERNEL_CACHE": str(tmp_path / "cache")},
    )  # fmt: skip
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert str(tmp_path / where) in done.stderr.splitlines()[-1]
    assert "File too large" in done.stderr


@pytest.mark.parametrize("argv", [("list",), ("install", "--name", "q"), ("run", "-c", "1")])
def test_a_folder_that_is_gone(tmp_path: Path, argv: tuple[str, ...]):
    gone = tmp_path / "gone"
    gone.mkdir()
    script = 'cd "$0" && rmdir "$0" && exec "$@"'
    done = subprocess.run(
        ["sh", "-c", script, str(gone), sys.executable, "-P", "-m", "wasi_kernel", *argv],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "Error: this folder is gone; change to another one\n"


def test_a_session_s_own_files_need_no_place_for_temporary_files(
    box: object, monkeypatch: pytest.MonkeyPatch
):
    """They lie in the cache. `box` is here for its effect: all is prepared."""
    monkeypatch.setenv("TMPDIR", "/nowhere/at/all")
    done = run("run", "-c", "print(open('/tmp/a', 'w').write('text'))")
    assert (done.returncode, done.stdout) == (0, "4\n")


def test_preparing_what_is_prepared_says_so(box: object):
    """`box` is here for its effect: the cache has everything once a sandbox has started."""
    done = run("prepare")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Ready (")
    assert run("prepare", "--quiet").stdout == ""
