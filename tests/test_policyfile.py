"""Shows how a policy file is read on a host, and that all that is wrong with it is said at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from wasi_kernel import policyfile
from wasi_kernel.errors import PolicyError, PolicyFileError
from wasi_kernel.policy import MIB, WORK, Grant, Policy

ENVIRON = {"DATA": "/srv/data", "EMPTY": ""}
NOTEBOOKS = Path("/home/ada/notebooks")


def resolved(**data: Any) -> dict[str, Any]:
    found, problems = policyfile.resolve(data, work=NOTEBOOKS, environ=ENVIRON)
    assert problems == []
    return found


def wrong(**data: Any) -> list[str]:
    """The keys that are wrong on this host."""
    _, problems = policyfile.resolve(data, work=NOTEBOOKS, environ=ENVIRON)
    return [problem.key for problem in problems]


@pytest.mark.parametrize(
    ("written", "host", "guest", "writable"),
    [
        ("/data:/data", "/data", "/data", False),
        ("/data:/data:ro", "/data", "/data", False),
        ("/data:/data:rw", "/data", "/data", True),
        ("data:/d", "/home/ada/notebooks/data", "/d", False),
        ("./data/:/d", "/home/ada/notebooks/data", "/d", False),
        ("../data:/d", "/home/ada/data", "/d", False),
        (".:/work:rw", "/home/ada/notebooks", "/work", True),
        ("${DATA}/x:/d", "/srv/data/x", "/d", False),
        ("${EMPTY}x:/d", "/home/ada/notebooks/x", "/d", False),
        ("/a:b c:/d", "/a:b c", "/d", False),
    ],
)
def test_a_grant_in_one_string(written: str, host: str, guest: str, writable: bool):
    (grant,) = resolved(grants=[written])["grants"]
    assert grant == {"host_path": host, "guest_path": guest, "writable": writable}


@pytest.mark.parametrize(
    "written", ["", "/data", "/data:", "/data:d", ":/d", "/a:/d:x", "/a:/d:RO:"]
)
def test_a_string_that_is_no_grant(written: str):
    assert wrong(grants=["/ok:/ok", written]) == ["grants[1]"]


def test_a_grant_as_a_table():
    given = {"host_path": "~/data", "guest_path": "/data", "writable": True}
    (grant,) = resolved(grants=[given])["grants"]
    assert grant == {**given, "host_path": str(Path("~/data").expanduser())}


def test_a_variable_that_is_not_set_and_a_home_that_is_not_there():
    paths = ["${NOT_SET}/x:/a", "~nobody-of-that-name/x:/b"]
    assert wrong(grants=paths, runtime="${NEITHER}") == [
        "grants[0].host_path", "grants[1].host_path", "runtime",
    ]  # fmt: skip


def test_a_runtime_lies_in_the_notebooks_folder_too():
    assert resolved(runtime="python.wasm")["runtime"] == "/home/ada/notebooks/python.wasm"


@pytest.mark.parametrize(
    ("written", "value"),
    [("1024", 1024), ("512 MiB", 512 * MIB), ("1.5GiB", 1536 * MIB), ("2 gb", 2_000_000_000),
     ("7kB", 7000), (" 3 KiB ", 3072), (5, 5)],
)  # fmt: skip
def test_sizes_may_have_a_unit(written: object, value: int):
    found = resolved(limits={"memory_bytes": written, "grace_s": 2}, checkpoints={"bytes": written})
    assert found["limits"] == {"memory_bytes": value, "grace_s": 2}
    assert found["checkpoints"] == {"bytes": value}


@pytest.mark.parametrize("written", ["", "much", "1 TB", "-1 MiB", "1e9", "GiB", "1 MiB x"])
def test_a_size_that_is_none(written: str):
    assert wrong(limits={"output_bytes": written}) == ["limits.output_bytes"]


def test_variables_of_the_host_are_passed_if_they_are_set_and_not_said():
    found = resolved(pass_env=["DATA", "NOT_SET"], env={"MODE": "x"})
    assert found["env"] == {"DATA": "/srv/data", "MODE": "x"}
    assert resolved(pass_env=["DATA"], env={"DATA": "mine"})["env"] == {"DATA": "mine"}
    assert "pass_env" not in found
    for value in ("DATA", [1], None):
        assert wrong(pass_env=value) == ["pass_env"]


def test_what_is_written_is_read_back(tmp_path: Path):
    data = {
        "frontend": "text", "grants": [".:/work:rw", "~/x:/x"], "env": {"A": "b\n\"'\\"},
        "limits": {"memory_bytes": "1 GiB"},
    }  # fmt: skip
    path = tmp_path / "policy.toml"
    path.write_text(policyfile.text(data))
    assert policyfile.read(path) == data


def test_a_file_that_cannot_be_read(tmp_path: Path):
    path = tmp_path / "policy.toml"
    with pytest.raises(PolicyFileError, match=r"policy\.toml: cannot be read: No such file"):
        policyfile.read(path)
    for data in (b"a = ", b"\xff", b"a = 1\na = 2"):
        path.write_bytes(data)
        with pytest.raises(PolicyFileError, match=r"policy\.toml: is not TOML") as caught:
            policyfile.read(path)
        assert caught.value.host_path == str(path)


# -- Policy.load ---------------------------------------------------------------------------------


def test_a_policy_is_loaded(tmp_path: Path):
    path = tmp_path / "policy.toml"
    path.write_text(
        'frontend = "text"\ngrants = ["data:/data"]\n[limits]\nmemory_bytes = "1 GiB"\n'
        "[checkpoints]\ncells = 5\n"
    )
    policy = Policy.load(path, work="/nb")
    assert policy.frontend == "text"
    assert policy.grants == (Grant("/nb/data", "/data"),)
    assert policy.limits.memory_bytes == 1024 * MIB
    assert policy.checkpoints.cells == 5
    path.write_text("")
    assert Policy.load(path) == Policy()


def test_all_that_is_wrong_with_a_file_is_said_at_once(tmp_path: Path):
    path = tmp_path / "policy.toml"
    path.write_text(
        'grants = ["/etc"]\nfrontend = "open"\nworc = true\n[limits]\nmemory_bytes = "much"\n'
        "stack_bytes = 1\n"
    )
    with pytest.raises(PolicyError) as caught:
        Policy.load(path)
    assert sorted(e.key for e in caught.value.all) == [
        "frontend", "grants[0]", "limits.memory_bytes", "limits.stack_bytes", "worc",
    ]  # fmt: skip
    assert all(line.startswith(f"{path}: ") for line in str(caught.value).splitlines())


def test_a_grant_of_work_takes_the_place_of_the_notebooks_folder():
    own, other = Grant("/a", WORK, writable=True), Grant("/b", "/b")
    policy = Policy(grants=(other, own))
    assert policy.work_grant == own
    assert policy.other_grants == (other,)
    assert Policy().work_grant is None
    with pytest.raises(PolicyError, match="which is taken"):
        Policy(grants=(own, Grant("/c", WORK)))
    with pytest.raises(PolicyError, match="which is taken"):
        Policy(grants=(own, Grant("/c", f"{WORK}/data")))
