"""Shows that each limit has its effect and its name, and lets be what keeps to it.

What counts as written is shown in worker/test_usage.py; here are the guest's errors, and that no
way out of a guest is a way out of its limits.
"""

from __future__ import annotations

import os
import signal
import tomllib
from dataclasses import fields, replace
from typing import Any

import click
import pytest
from click.testing import CliRunner

from wasi_kernel import Grant, Limits, Policy, Sandbox, policyfile
from wasi_kernel.cli import policies
from wasi_kernel.errors import CallError
from wasi_kernel.policy import LIMIT_OPTIONS, MIB

WALL = Limits(cell_s=0.5)
CPU = Limits(cell_cpu_s=0.5)
GRACE_S = 1.0
"""Of cells that do not react. Others have the usual 10 s: at a load of 10 it was seen to take 3."""
RAISES = "limits.{} in the policy, or {}, raises it"


@pytest.fixture(scope="module")
def wall():
    with Sandbox(Policy(limits=WALL)) as box:
        yield box


@pytest.fixture(scope="module")
def cpu():
    with Sandbox(Policy(limits=CPU)) as box:
        yield box


@pytest.mark.parametrize("code", ["while True: pass", "import time; time.sleep(60)"])
def test_a_cell_that_takes_too_long_is_interrupted(wall, code):
    wall.run("x = 1")
    result = wall.run(code)
    assert result.error is not None
    assert result.error.ename == "TimeLimitExceeded"
    assert result.error.evalue == "more than 0.5 s; " + RAISES.format("cell_s", "--cell-seconds")
    assert "TimeLimitExceeded" in result.error.traceback[-1]
    assert not result.error.lost
    assert [o["ename"] for o in result.outputs if o["type"] == "error"] == ["TimeLimitExceeded"]
    assert wall.run("x").text == "1"


@pytest.mark.parametrize("limits", [WALL, CPU])
def test_a_cell_that_does_not_react_is_stopped(limits):
    code = (
        "x = 2\nwhile True:\n    try:\n        while True: pass\n    except KeyboardInterrupt: pass"
    )
    with Sandbox(Policy(limits=replace(limits, grace_s=GRACE_S))) as box:
        box.run("x = 1")
        result = box.run(code)
        assert result.error is not None
        assert result.error.ename == "TimeLimitExceeded"
        assert result.error.lost
        assert "limits.cell_" in result.error.evalue
        assert "Variables are as they were before this cell" in result.error.evalue
        assert box.run("x").text == "1"


def test_processor_time_is_not_the_clocks(cpu):
    """Sleeping costs nothing, and each cell has its own."""
    assert cpu.run("import time; time.sleep(0.8)").ok
    for _ in range(4):
        assert cpu.run("end = time.process_time() + 0.2\nwhile time.process_time() < end: pass").ok
    result = cpu.run("while True: pass")
    assert result.error is not None
    assert result.error.ename == "TimeLimitExceeded"
    raises = RAISES.format("cell_cpu_s", "--cell-cpu-seconds")
    assert result.error.evalue == f"more than 0.5 s of processor time; {raises}"


def test_an_interrupt_that_is_the_users_stays_one():
    def stop(output):
        if output["type"] == "stream":
            box.interrupt()

    with Sandbox(Policy(limits=Limits(cell_s=60, cell_cpu_s=60)), on_output=stop) as box:
        result = box.run("print('started')\nwhile True: pass")
        assert result.error is not None
        assert result.error.ename == "KeyboardInterrupt"


def test_calls_are_limited_too(wall):
    wall.run("def forever():\n    while True: pass")
    with pytest.raises(CallError, match="TimeLimitExceeded: more than"):
        wall.call("forever")
    assert wall.run("1").text == "1"


# -- what a session writes and has open ----------------------------------------------------------

FILES = Limits(written_bytes=MIB, created_files=10, open_files=20)


@pytest.fixture
def box():
    with Sandbox(Policy(limits=FILES)) as box:
        box.run("import os, errno")
        yield box


def reached(box: Sandbox, code: str) -> tuple[str, str]:
    """(errno by its name, the line under the traceback) of the OSError that `code` ends with."""
    result = box.run(code)
    assert result.error is not None
    assert result.error.ename == "OSError"
    number = int(result.error.evalue.split("]")[0].removeprefix("[Errno "))
    return box.run(f"errno.errorcode[{number}]").text or "", result.error.traceback[-1]


def test_files_may_grow_so_far(box):
    assert box.run(f"with open('/tmp/a', 'wb') as f: print(f.write(bytes({MIB})))").ok
    name, line = reached(box, "open('/home/wasi/b', 'wb', buffering=0).write(b'x')")
    assert name == "'ENOSPC'"
    assert RAISES.format("written_bytes", "--written") in line
    assert "delete some" in line
    assert "(now 1,048,576)" in line
    assert box.run("os.remove('/tmp/a'); open('/tmp/b', 'wb').write(b'x')").text == "1"


def test_so_many_files_may_be_made(box):
    name, line = reached(box, "for k in range(20): os.mkdir(f'/tmp/{k}')")
    assert name == "'ENOSPC'"
    assert RAISES.format("created_files", "--created-files") in line
    assert box.run("len(os.listdir('/tmp'))").text == "10"
    assert box.run("os.rmdir('/tmp/3'); os.mkdir('/tmp/new'); 1").text == "1"


def test_so_many_files_may_be_open(box):
    name, line = reached(box, "files = [open('/tmp/a', 'a') for _ in range(30)]")
    assert name == "'EMFILE'"
    assert RAISES.format("open_files", "--open-files") in line


def test_a_flood_of_descriptors_leaves_the_worker_its_own():
    """Its checkpoint is written, and its successor has the same files to stand in for."""
    code = (
        "files = []\n"
        "try:\n"
        "    while True: files.append(open('/tmp/a', 'a'))\n"
        "except OSError as e: print(len(files), e.errno)"
    )
    with Sandbox() as box:
        count, number = box.run(code).stdout.split()
        assert 16 <= int(count) <= Limits().open_files
        assert number == "33"  # EMFILE, WASI preview 1
        error = box.run("import os; os._exit(1)").error
        assert error is not None
        assert "Variables are as they were before this cell" in error.evalue
        assert box.run("len(files)").text == count
        assert box.run("open('/tmp/b', 'w').write('more')").text == "4"


def test_user_code_may_handle_it(box):
    code = (
        "made = []\n"
        "try:\n"
        "    while True:\n"
        "        made.append(open('/tmp/a', 'a'))\n"
        "except OSError as e:\n"
        "    print(errno.errorcode[e.errno])\n"
        "for f in made:\n"
        "    f.close()"
    )
    result = box.run(code)
    assert result.ok
    assert result.stdout == "EMFILE\n"


def test_an_error_with_another_cause_is_not_laid_to_a_limit(box):
    box.run("try:\n    for k in range(20): os.mkdir(f'/tmp/{k}')\nexcept OSError: pass")
    result = box.run("raise OSError(errno.ENOSPC, 'of my own')")
    assert result.error is not None
    assert "limits." not in "".join(result.error.traceback)


def used(box: Sandbox) -> dict[str, int]:
    rows = box.run("%wasi limits").text
    assert rows is not None
    found = {"growth of files": 0, "files created": 0}
    for line in rows.splitlines():
        for name in found:
            if line.startswith(name):
                found[name] = int(float(line.removeprefix(name).split()[0]))
    return found


FILL = "f = open('/tmp/a', 'wb', buffering=0); f.write(bytes(600 * 1024)); f.close()"
MORE = "open('/tmp/b', 'wb', buffering=0).write(bytes(600 * 1024))"

DEATHS = {
    "undo": lambda box: box.undo(),
    "exit": lambda box: box.run("os._exit(1)"),
    "trap": lambda box: box.run("import os; os.abort()"),
    "kill": lambda box: (os.kill(box._session.worker_pid, signal.SIGKILL), box.run("1")),
    "stop": lambda box: box.run("while True:\n    try:\n        while True: pass\n"
                                "    except BaseException: pass", deadline_s=0.2),
    "restart": lambda box: box.restart(),
}  # fmt: skip


@pytest.mark.parametrize("end", DEATHS)
def test_no_end_of_a_guest_ends_its_counting(end):
    limits = replace(FILES, grace_s=0.2)
    with Sandbox(Policy(limits=limits)) as box:
        assert box.run(FILL).ok
        DEATHS[end](box)
        result = box.run(MORE)
        assert result.error is not None
        assert result.error.ename == "OSError", result.error
        assert used(box) == {"growth of files": 600, "files created": 2}


def test_what_is_written_by_the_cell_that_ends_the_guest_counts(box):
    box.run(FILL + "\nos._exit(1)")
    assert used(box) == {"growth of files": 600, "files created": 1}


def test_a_fork_begins_with_its_parents_counts(box):
    assert box.run(FILL).ok
    with box.fork() as fork:
        error = fork.run(MORE).error
        assert error is not None
        assert error.ename == "OSError"
        assert fork.run("os.remove('/tmp/a'); " + MORE).ok
    assert used(box) == {"growth of files": 600, "files created": 1}


def test_a_saved_session_goes_on_with_its_counts(tmp_path):
    """With those of what is still there: its own /tmp is not saved."""
    (tmp_path / "data").mkdir()
    grant = Grant(str(tmp_path / "data"), "/data", writable=True)
    policy = Policy(limits=FILES, grants=(grant,))
    with Sandbox(policy) as box:
        assert box.run(FILL).ok
        assert box.run(f"open('/data/a', 'wb').write(bytes({300 * 1024}))").ok
        box.save(tmp_path / "saved")
    with Sandbox(policy, resume=tmp_path / "saved") as again:
        assert not again.run(f"open('/data/b', 'wb', 0).write(bytes({MIB}))").ok
        assert used(again)["growth of files"] == 300
        assert again.run(f"open('/data/b', 'wb', 0).write(bytes({MIB - 300 * 1024}))").ok


def test_a_writable_grant_counts_too_and_what_was_there_does_not(tmp_path):
    (tmp_path / "large").write_bytes(bytes(5 * MIB))
    grant = Grant(str(tmp_path), "/data", writable=True)
    with Sandbox(Policy(limits=FILES, grants=(grant,))) as box:
        assert box.run("open('/data/large', 'r+b').write(b'new')").ok
        assert not box.run(f"open('/data/new', 'wb', buffering=0).write(bytes({MIB}))").ok
        assert box.run(f"open('/data/new', 'wb', buffering=0).write(bytes({MIB // 2}))").ok
        (tmp_path / "new").unlink()  # by its user, between two cells
        (tmp_path / "large").unlink()
        assert box.run(f"open('/data/b', 'wb', buffering=0).write(bytes({MIB * 3 // 4}))").ok


def test_nothing_of_a_sessions_own_files_stays():
    """However deep: a path has at most 4096 characters, and a stack its limits, too."""
    limits = Limits(created_files=5000)
    with Sandbox(Policy(limits=limits)) as box:
        scratch = box._settings.scratch.path
        code = (
            "import os\n"
            "at = os.open('/tmp', os.O_RDONLY)\n"
            "for _ in range(1500):\n"
            "    os.mkdir('d' * 100, dir_fd=at)\n"
            "    open(os.open('file', os.O_CREAT | os.O_WRONLY, dir_fd=at), 'w').write('x')\n"
            "    at, above = os.open('d' * 100, os.O_RDONLY, dir_fd=at), at\n"
            "    os.close(above)\n"
        )
        result = box.run(code)
        assert result.ok, result.error
        assert scratch.is_dir()
    assert not scratch.exists()


# -- all of them ---------------------------------------------------------------------------------

RECURSE = "import sys\nsys.setrecursionlimit(10**9)\ndef f(): return f()\nf()"
"""Uses up the stack of the WebAssembly code, whatever its size."""

REACH: dict[str, tuple[dict[str, Any], str]] = {
    "memory_bytes": ({"memory_bytes": 256 * MIB}, "x = bytearray(300 << 20)"),
    "stack_bytes": ({"stack_bytes": 4 * MIB}, RECURSE),
    "output_bytes": ({"output_bytes": 2000}, "print('x' * 5000)"),
    "message_bytes": (
        {"message_bytes": 5000}, "from IPython.display import Markdown\nMarkdown('x' * 9000)",
    ),
    "cell_s": ({"cell_s": 0.3}, "while True: pass"),
    "cell_cpu_s": ({"cell_cpu_s": 0.3}, "while True: pass"),
    "written_bytes": ({"written_bytes": 0}, "open('/tmp/a', 'w', 1).write('x\\n')"),
    "created_files": ({"created_files": 0}, "open('/tmp/a', 'w')"),
    "open_files": ({"open_files": 16}, "[open('/tmp/a', 'a') for _ in range(20)]"),
    "grace_s": (
        {"cell_s": 0.3, "grace_s": 0.2},
        "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
    ),
}  # fmt: skip
"""Each limit, small, and what reaches it."""


def test_every_limit_is_here():
    assert set(REACH) == set(LIMIT_OPTIONS) == {f.name for f in fields(Limits)}


def test_each_has_its_option_and_its_key_in_a_file():
    @click.command()
    @policies.policy_options
    def show(**given: Any) -> None:
        click.echo(policyfile.toml(policies.data(given)))

    argv = []
    for limit, option in LIMIT_OPTIONS.items():
        argv += [option, "200 MiB" if limit.endswith("_bytes") else "600"]
    said = CliRunner().invoke(show, argv).output
    limits = Policy.from_file_data(tomllib.loads(said)).limits
    for limit in LIMIT_OPTIONS:
        assert getattr(limits, limit) == (200 * MIB if limit.endswith("_bytes") else 600)


@pytest.mark.parametrize("limit", REACH)
def test_what_reaches_a_limit_is_told_its_name_and_what_raises_it(limit):
    small, code = REACH[limit]
    with Sandbox(Policy(limits=Limits(**small))) as box:
        result = box.run(code)
        said = result.stderr
        if result.error is not None:
            said += "".join([*result.error.traceback, result.error.evalue])
        key = "cell_s" if limit == "grace_s" else limit
        assert RAISES.format(key, LIMIT_OPTIONS[key]) in said
        assert box.run("1").text == "1"


def test_wasi_limits_shows_what_is_used_and_allowed_of_each():
    with Sandbox(Policy(limits=FILES)) as box:
        box.run(FILL)
        box.run("f = open('/tmp/a')")
        result = box.run("w = %wasi limits\nprint('shown'); w.to_dict()")
        data = eval(result.text or "")  # noqa: S307 - our own test's
        assert list(data) == list(LIMIT_OPTIONS)
        for limit, row in data.items():
            assert row["allowed"] == getattr(FILES, limit)
            assert row["option"] == LIMIT_OPTIONS[limit]
        assert data["written_bytes"]["used"] == 600 * 1024
        assert data["created_files"]["used"] == data["open_files"]["used"] == 1
        assert 50 * MIB < data["memory_bytes"]["used"] < FILES.memory_bytes
        assert 0 < data["cell_s"]["used"] < 60
        shown = box.run("%wasi limits").data
        for limit, option in LIMIT_OPTIONS.items():
            for kind in ("text/plain", "text/html"):
                assert f"limits.{limit}, {option}" in shown[kind]
        assert "600.0 KiB  1.0 MiB" in shown["text/plain"]
