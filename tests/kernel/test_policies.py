"""Kernels that are started with a policy file: what it grants, and what they say of a wrong one."""

from __future__ import annotations

import re
import sys

import pytest
from jupyter_client.kernelspec import KernelSpecManager

from wasi_kernel import seccomp


@pytest.fixture
def start_with(start_kernel, tmp_path):
    """Starts a kernel with a policy file of this text; its notebook's folder is tmp_path."""

    def start(text, **options):
        path = tmp_path / "policy.toml"
        path.write_text(text)
        return start_kernel(options=["--policy", str(path)], **options)

    return start


def test_grants_environment_and_limits(start_with, tmp_path, monkeypatch):
    monkeypatch.setenv("FROM_THE_HOST", "yes")
    monkeypatch.setenv("DATASETS", str(tmp_path / "sets"))
    for name in ("data", "sets"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.txt").write_text(name)
    kernel = start_with(
        'grants = ["./data:/data", "${DATASETS}:/sets:rw"]\n'
        'pass_env = ["FROM_THE_HOST", "NOT_SET_ANYWHERE"]\n'
        '[env]\nMODE = "test"\n[limits]\nmemory_bytes = "1 GiB"\n'
    )
    assert kernel.run("open('/data/a.txt').read()").result == "'data'"
    assert kernel.run("open('/data/b.txt', 'w')").content["ename"] == "PermissionError"
    kernel.run("open('/sets/b.txt', 'w').write('new')")
    assert (tmp_path / "sets" / "b.txt").read_text() == "new"
    found = kernel.run("import os; {k: os.environ.get(k) for k in "
                       "('MODE', 'FROM_THE_HOST', 'NOT_SET_ANYWHERE', 'PATH')}").result  # fmt: skip
    assert found is not None
    assert eval(found) == {  # noqa: S307 - a dict of ours, as text
        "MODE": "test", "FROM_THE_HOST": "yes", "NOT_SET_ANYWHERE": None, "PATH": None,
    }  # fmt: skip
    assert "of 1.0 GiB" in kernel.run("%wasi").result


def test_the_notebooks_folder_can_be_made_writable(start_with, tmp_path):
    kernel = start_with('grants = [".:/work:rw"]')
    kernel.run("open('made.txt', 'w').write('here')")
    assert (tmp_path / "made.txt").read_text() == "here"
    assert re.search("/work +read and write +granted", kernel.run("%wasi").result)


def test_the_frontend_is_the_files_unless_an_option_says_otherwise(start_kernel, tmp_path):
    path = tmp_path / "policy.toml"
    path.write_text('frontend = "text"')
    code = "w = %wasi frontend\nw.to_dict()['mode']"
    assert start_kernel(options=["--policy", str(path)]).run(code).result == "'text'"
    options = ["--policy", str(path), "--frontend", "isolated"]
    assert start_kernel(options=options).run(code).result == "'isolated'"


@pytest.mark.parametrize(
    ("text", "ename", "named"),
    [
        ("frontend = 'open'\nworc = 1", "PolicyError", ["worc = 1", "frontend = 'open'"]),
        ("confine = 'always'", "PolicyError", ["confine = 'always'", "auto, require, off"]),
        ("grants = ['/etc']", "PolicyError", ["grants[0] = '/etc'", "HOST:GUEST"]),
        ("grants = ['/proc:/p', '/:/r']", "PolicyError", ["grants[0].host_path", "system folder",
                                                           "grants[1].host_path", "root"]),
        ("grants = ['./nowhere:/x']", "PolicyError", ["does not exist"]),
        ("grants = ['${NOT_SET_ANYWHERE}/x:/x']", "PolicyError", ["NOT_SET_ANYWHERE"]),
        ("packages = ['surely-not-installed==1']", "PackagesMissingError",
         ["surely-not-installed==1", "wasi-kernel prepare"]),
        ("grants = [", "PolicyFileError", ["policy.toml", "is not TOML"]),
    ],
)  # fmt: skip
def test_a_wrong_policy_is_explained_in_the_cell(start_with, text, ename, named):
    kernel = start_with(text, ready=False)
    said = kernel.run("1").content
    assert said["ename"] == ename
    for part in named:
        assert part in said["evalue"]


WITHOUT_LANDLOCK = """
import os, sys
from wasi_kernel import landlock, seccomp
landlock.no_new_privileges()
seccomp.install([  # load the number; landlock_create_ruleset? then ENOSYS
    seccomp.Instruction(0x20, 0, 0, 0), seccomp.Instruction(0x15, 0, 1, landlock.CREATE),
    seccomp.Instruction(6, 0, 0, seccomp.ERRNO | 38), seccomp.Instruction(6, 0, 0, seccomp.ALLOW),
])
os.execvp(sys.argv[1], sys.argv[1:])
"""


class OldKernel(KernelSpecManager):
    """Kernels are started as on a Linux that has no Landlock."""

    def get_kernel_spec(self, kernel_name):
        spec = super().get_kernel_spec(kernel_name)
        spec.argv = [sys.executable, "-P", "-c", WITHOUT_LANDLOCK, *spec.argv]
        return spec


@pytest.mark.skipif(not seccomp.available(), reason="this machine's kernel has no filters")
def test_a_confinement_that_cannot_be_had_is_explained_in_the_cell(start_with):
    old = OldKernel()
    kernel = start_with("confine = 'require'", ready=False, kernel_spec_manager=old)
    said = kernel.run("1").content
    assert said["ename"] == "ConfinementError"
    for part in ("no Landlock", "wasi-kernel doctor", "confine = 'auto'"):
        assert part in said["evalue"]
    kernel = start_with("confine = 'auto'", kernel_spec_manager=old)
    shown = kernel.run("%wasi").result
    assert re.search("confinement +seccomp; this Linux kernel has no Landlock", shown)


def test_a_policy_that_is_not_there(start_kernel, tmp_path):
    kernel = start_kernel(options=["--policy", str(tmp_path / "none.toml")], ready=False)
    said = kernel.run("1").content
    assert said["ename"] == "PolicyFileError"
    assert "none.toml: cannot be read: No such file" in said["evalue"]
    kernel.restart()
    assert kernel.run("1").content["ename"] == "PolicyFileError"
