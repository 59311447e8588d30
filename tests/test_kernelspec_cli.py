"""Shows `wasi-kernel install`, `list`, `show`, `remove`, and that Jupyter's kernels obey them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, NamedTuple

import pytest
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import start_new_kernel

from wasi_kernel import policyfile
from wasi_kernel.policy import MIB, Policy

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TIMEOUT_S = 110


class Done(NamedTuple):
    """A command that has ended."""

    status: int
    out: str
    err: str


@pytest.fixture
def jupyter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This user's data folder of Jupyter, for this test; no other kernelspecs are found."""
    folder = tmp_path / "jupyter"
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(folder))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "path"))
    return folder


@pytest.fixture
def run(jupyter: Path, tmp_path: Path) -> Callable[..., Done]:
    """`wasi-kernel` with these arguments, in a folder of notebooks."""
    work = tmp_path / "notebooks"
    work.mkdir()

    def run(*argv: object, stdin: str = "") -> Done:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "wasi_kernel", *map(str, argv)], capture_output=True,
            text=True, check=False, input=stdin, cwd=work,
        )  # fmt: skip
        assert "Traceback" not in done.stderr
        return Done(done.returncode, done.stdout, done.stderr)

    return run


def policy_of(jupyter: Path, name: str) -> dict:
    return policyfile.read(jupyter / "kernels" / name / "policy.toml")


def test_a_kernelspec_says_what_its_kernels_may_reach(run: Callable[..., Done], jupyter: Path):
    done = run(
        "install", "--name", "data", "--display-name", "Data", "--grant", "./sets:/sets",
        "--grant", ".:/work:rw", "--env", "A=b=c", "--env", "LANG", "--memory", "1GiB",
        "--output", "1 MiB", "--frontend", "text", "--confine", "require", "--preload", "json",
        "--preload", "numpy",
    )  # fmt: skip
    assert (done.status, done.err) == (0, "")
    assert str(jupyter / "kernels" / "data") in done.out
    assert "grants .:/work:rw" in done.out
    assert policy_of(jupyter, "data") == {
        "grants": ["./sets:/sets", ".:/work:rw"], "env": {"A": "b=c"}, "pass_env": ["LANG"],
        "limits": {"memory_bytes": "1GiB", "output_bytes": "1 MiB"}, "frontend": "text",
        "confine": "require", "preload": ["json", "numpy"],
    }  # fmt: skip
    spec = KernelSpecManager().get_kernel_spec("data")
    assert spec.display_name == "Data"
    assert spec.interrupt_mode == "message"
    assert sorted(p.name for p in (jupyter / "kernels" / "data").iterdir()) == [
        "kernel.json", "logo-32x32.png", "logo-64x64.png", "logo-svg.svg", "policy.toml",
    ]  # fmt: skip


def test_a_kernel_obeys_it(run: Callable[..., Done], tmp_path: Path):
    work = tmp_path / "notebooks"
    (work / "sets").mkdir()
    (work / "sets" / "a.txt").write_text("here")
    run("install", "--name", "data", "--grant", "./sets:/sets", "--env", "A=b", "--no-work")
    manager, client = start_new_kernel(kernel_name="data", startup_timeout=TIMEOUT_S, cwd=str(work))
    try:
        code = "import os; print(open('/sets/a.txt').read(), os.environ['A'], os.listdir('/work'))"
        shown: list[dict] = []
        client.execute_interactive(code, timeout=TIMEOUT_S, output_hook=shown.append)
        assert "here b []\n" in [m["content"].get("text") for m in shown]
    finally:
        client.stop_channels()
        manager.shutdown_kernel()


def test_list_show_replace_and_remove(run: Callable[..., Done], jupyter: Path):
    run("install", "--name", "one", "--grant", "./x:/x:rw")
    listed = run("list").out
    assert "one  Python (WASI) one" in listed
    assert "grants ./x:/x:rw" in listed
    assert "python-wasi" in listed  # that of the installation
    said = run("show", "one").out
    assert 'host_path = "' in said
    assert f"memory_bytes = {2048 * MIB}" in said
    assert run("install", "--name", "one").status == 2
    assert policy_of(jupyter, "one") == {"grants": ["./x:/x:rw"]}
    assert run("install", "--name", "one", "--replace", "--frontend", "text").status == 0
    assert policy_of(jupyter, "one") == {"frontend": "text"}
    assert run("remove", "one", stdin="n\n").status == 130
    assert (jupyter / "kernels" / "one").exists()
    assert run("remove", "one", stdin="y\n").status == 0
    assert not (jupyter / "kernels" / "one").exists()
    done = run("remove", "one", "--yes")
    assert done.status == 2
    assert "there are: python-wasi" in done.err
    assert list((jupyter / "kernels").iterdir()) == []


def test_for_programs(run: Callable[..., Done], jupyter: Path):
    run("install", "--name", "two", "--frontend", "text")
    rows = {row["name"]: row for row in json.loads(run("list", "--json").out)}
    assert rows["two"]["policy"] == {"frontend": "text"}
    assert rows["two"]["folder"] == str(jupyter / "kernels" / "two")
    assert rows["two"]["problem"] == ""
    said = json.loads(run("show", "two", "--json").out)
    assert Policy.from_dict(said["policy"]) == Policy(frontend="text")


def test_a_policy_file_to_start_from(run: Callable[..., Done], jupyter: Path, tmp_path: Path):
    path = tmp_path / "class.toml"
    path.write_text('frontend = "text"\ngrants = ["./a:/a"]\n[limits]\nstack_bytes = "32 MiB"\n')
    done = run("install", "--name", "c", "--policy", path, "--grant", "./b:/b", "--memory", "1GiB")
    assert done.status == 0
    assert policy_of(jupyter, "c") == {
        "frontend": "text", "grants": ["./a:/a", "./b:/b"],
        "limits": {"stack_bytes": "32 MiB", "memory_bytes": "1GiB"},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("--stack", "32MiB"), {"limits": {"stack_bytes": "32MiB"}}),
        (("--message", "1MiB"), {"limits": {"message_bytes": "1MiB"}}),
        (("--grace-seconds", "2"), {"limits": {"grace_s": 2.0}}),
        (("--cell-cpu-seconds", "2"), {"limits": {"cell_cpu_s": 2.0}}),
        (("--no-checkpoints",), {"checkpoints": {"enabled": False}}),
        (("--checkpoint-cells", "5"), {"checkpoints": {"cells": 5}}),
        (("--checkpoint-space", "1GiB"), {"checkpoints": {"bytes": "1GiB"}}),
        (("--checkpoint-compare",), {"checkpoints": {"compare": True}}),
        (("--restart-keeps-state",), {"restart_keeps_state": True}),
        (("--frontend-mime", "text/x", "--frontend-mime", "text/y"), {
            "frontend_mimes": ["text/x", "text/y"],
        }),
        (("--preload", ""), {"preload": []}),
        (("--no-work",), {"work": False}),
        (("--set", "limits.cell_s=3", "--set", "limits.memory_bytes=1 GiB"), {
            "limits": {"cell_s": 3, "memory_bytes": "1 GiB"},
        }),
        (("--set", 'env={A="b"}', "--set", "frontend=text", "--env", "X=y"), {
            "env": {"A": "b"}, "frontend": "text",
        }),
    ],
)  # fmt: skip
def test_an_option_for_every_key(
    run: Callable[..., Done], jupyter: Path, argv: tuple[str, ...], said: dict
):
    assert run("install", "--name", "o", *argv).status == 0
    assert policy_of(jupyter, "o") == said


def test_options_take_back_what_a_file_says(
    run: Callable[..., Done], jupyter: Path, tmp_path: Path
):
    path = tmp_path / "a.toml"
    path.write_text("work = false\nrestart_keeps_state = true\n[checkpoints]\nenabled = false\n")
    done = run(
        "install", "--name", "o", "--policy", path, "--work", "--no-restart-keeps-state",
        "--checkpoints",
    )  # fmt: skip
    assert done.status == 0
    assert policy_of(jupyter, "o") == {
        "work": True, "restart_keeps_state": False, "checkpoints": {"enabled": True},
    }  # fmt: skip


@pytest.mark.parametrize(
    "argv",
    [
        ("--grant", "./a:/a"), ("--env", "A=1"), ("--env", "A"), ("--memory", "1GiB"),
        ("--package", "attrs"), ("--frontend-mime", "text/x"), ("--checkpoint-cells", "3"),
        ("--set", "limits.cell_s=3"), ("--set", "grants.x=1"), (),
    ],
)  # fmt: skip
def test_a_file_of_the_wrong_kinds_is_one_line_for_each(
    run: Callable[..., Done], tmp_path: Path, argv: tuple[str, ...]
):
    path = tmp_path / "kinds.toml"
    keys = ("grants", "env", "pass_env", "limits", "packages", "frontend_mimes", "checkpoints")
    path.write_text("".join(f"{key} = 3\n" for key in keys))
    done = run("install", "--name", "o", "--policy", path, *argv)
    assert done.status == 2
    assert all(" = 3: " in line for line in done.err.splitlines())
    assert len(done.err.splitlines()) == (1 if argv else len(keys))


@pytest.mark.parametrize("text", [
    b"\xff\xfe", b"a = ", b"a = " + b"[" * 3000 + b"]" * 3000, b"a = " + b"9" * 5000,
    b'limits.memory_bytes = "' + b"9" * 400 + b' GiB"',
], ids=["no UTF-8", "no TOML", "deep", "long number", "huge size"])  # fmt: skip
def test_a_file_that_is_no_policy(run: Callable[..., Done], jupyter: Path, tmp_path: Path, text):
    path = tmp_path / "no.toml"
    path.write_bytes(text)
    done = run("install", "--name", "o", "--policy", path)
    assert done.status == 2
    assert len(done.err.splitlines()) == 1
    place = jupyter / "kernels" / "o"  # one that was installed, and damaged afterwards
    run("install", "--name", "o")
    (place / "policy.toml").write_bytes(text)
    assert "NOT USABLE" in run("list").out
    assert json.loads(run("list", "--json").out)


def test_a_damaged_kernelspec_is_listed_or_passed_over(run: Callable[..., Done], jupyter: Path):
    run("install", "--name", "one")
    for damage in ("grants = 3\nenv = 4\npass_env = 5", "[limits]\nmemory_bytes = 2024-01-01"):
        (jupyter / "kernels/one/policy.toml").write_text(damage)
        assert "NOT USABLE" in run("list").out
        assert json.loads(run("list", "--json").out)
    for damage in ("[]", '{"argv": 3}', "[" * 100_000):
        (jupyter / "kernels/one/kernel.json").write_text(damage)
        assert "one  " not in run("list").out


def test_a_name_that_acts_on_a_terminal_is_shown_as_text(run: Callable[..., Done]):
    run("install", "--name", "one", "--display-name", "a\x1b[2Jb")
    assert "a\\x1b[2Jb" in run("list").out


@pytest.mark.parametrize("argv", [
    ("--env", os.fsdecode(b"A=\xff")), ("--grant", os.fsdecode(b"\xff:/x")), ("--set", "x"),
    ("--set", "a b=1"),
])  # fmt: skip
def test_an_option_that_is_no_text_is_named(run: Callable[..., Done], argv: tuple[str, str]):
    done = run("install", "--name", "o", *argv)
    assert done.status == 2
    assert "Error: " in done.err


def test_where_it_is_installed(
    run: Callable[..., Done], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    done = run("install", "--name", "p", "--prefix", tmp_path / "env")
    assert done.status == 0
    assert (tmp_path / "env/share/jupyter/kernels/p/policy.toml").exists()
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "env/share/jupyter"))
    assert "p  Python (WASI) p" in run("list").out
    done = run("install", "--name", "p")  # the user's would hide it
    assert done.status == 2
    assert "is there already" in done.err


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (("--grant", "data"), "grants[0] = 'data'"),
        (("--grant", "/proc:/p", "--grant", "/:/r"), "grants[1].host_path = '/'"),
        (("--grant", "/nowhere/at/all:/p"), "it does not exist"),
        (("--grant", "./a:/tmp"), "which is taken"),
        (("--env", "=x"), "env."),
        (("--memory", "much"), "limits.memory_bytes = 'much'"),
        (("--memory", "1MiB"), "limits.memory_bytes = 1048576"),
        (("--frontend", "open"), "open"),
        (("--preload", "a b"), "preload[0] = 'a b'"),
        (("--policy", "none.toml"), "none.toml"),
        (("--name", "Not Good"), "Not Good"),
    ],
)
def test_a_mistake_is_named_and_nothing_is_written(
    run: Callable[..., Done], jupyter: Path, argv: tuple[str, ...], named: str
):
    done = run("install", "--name", "x", *argv)
    assert done.status == 2
    assert named in done.err
    assert not jupyter.exists()


def test_folders_with_keys_are_granted_by_force_alone(
    run: Callable[..., Done], jupyter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    home = tmp_path / "home"
    (home / ".config" / "tool").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    done = run("install", "--name", "x", "--grant", "~/.config/tool:/tool")
    assert done.status == 2
    assert "it lies in keys (~/.config)" in done.err
    done = run("install", "--name", "x", "--grant", "~/.config/tool:/tool", "--force")
    assert done.status == 0
    assert policy_of(jupyter, "x")["grants"] == [
        {"host_path": "~/.config/tool", "guest_path": "/tool", "writable": False, "forced": True}
    ]
    for folder in ("/proc", "~", "/"):
        argv = ("install", "--name", "y", "--grant", f"{folder}:/tool", "--force")
        assert "this one is refused" in run(*argv).err


def test_other_kernels_are_not_touched(run: Callable[..., Done], jupyter: Path):
    folder = jupyter / "kernels" / "other"
    folder.mkdir(parents=True)
    (folder / "kernel.json").write_text('{"argv": ["python", "-m", "ipykernel"]}')
    assert "other" not in run("list").out
    assert "another kernel" in run("install", "--name", "other", "--replace").err
    assert run("remove", "other", "--yes").status == 2
    assert (folder / "kernel.json").exists()


def test_a_policy_that_was_damaged_is_listed_as_such(run: Callable[..., Done], jupyter: Path):
    run("install", "--name", "one")
    (jupyter / "kernels/one/policy.toml").write_text("frontend = 'open'\n")
    assert "NOT USABLE: policy: frontend = 'open'" in run("list").out
    done = run("show", "one")
    assert done.status == 2
    assert "policy.toml: frontend = 'open'" in done.err


def test_prepare_for_a_kernelspec(run: Callable[..., Done]):
    run("install", "--name", "one", "--preload", "json")
    assert run("prepare", "one").status == 0
    assert run("prepare", "nonsense").status == 2
