"""Parked sessions: nothing of them runs, and they go on as they were."""

from __future__ import annotations

import os
import subprocess
import sys

import psutil
import pytest
from waiting import eventually

from wasi_kernel import Policy, Sandbox, caches, launch
from wasi_kernel.errors import SessionFileError
from wasi_kernel.policy import CheckpointLimits, Limits


@pytest.fixture(scope="module")
def base():
    with Sandbox() as box:
        yield box


def parked(base: Sandbox, code: str) -> str:
    """The name of a session that has run `code`."""
    box = base.fork()
    assert box.run(code).ok
    return box.park()


def folders() -> set[str]:
    return set(os.listdir(launch.sessions_folder(caches.default_path())))


def test_it_goes_on_with_variables_files_and_its_past(base: Sandbox):
    name = parked(base, "x = [1]\nopen('/tmp/note', 'w').write('kept')")
    with base.unpark(name) as box:
        assert box.run("x.append(2); x, open('/tmp/note').read()").text == "([1, 2], 'kept')"
        box.undo()
        assert box.run("x").text == "[1]"
        box.undo(2)
        assert box.run("'x' in globals()").text == "False"


def test_it_can_be_parked_again_and_again(base: Sandbox):
    name = parked(base, "count = 0")
    for k in range(3):
        box = base.unpark(name)
        assert box.run("count += 1; count").text == str(k + 1)
        assert box.park() == name
    base.unpark(name).close()


def test_closed_it_is_gone(base: Sandbox):
    before = folders()
    name = parked(base, "x = 1")
    assert folders() - before == {name}
    base.unpark(name).close()
    assert folders() == before
    with pytest.raises(SessionFileError, match="there is no such parked session"):
        base.unpark(name)


def test_nothing_of_it_runs(base: Sandbox):
    box = base.fork()
    pid = box._session._link.worker.pid
    box.run("x = 1")
    name = box.park()
    eventually(lambda: not psutil.pid_exists(pid))
    with pytest.raises(RuntimeError, match="it is closed"):
        box.park()
    base.unpark(name).close()


def test_one_at_a_time_has_it(base: Sandbox):
    name = parked(base, "x = 1")
    with base.unpark(name), pytest.raises(SessionFileError, match="it is in use"):
        base.unpark(name)


@pytest.mark.parametrize("name", ["", "../../etc", "0123456789abcdef/..", "x" * 10_000, "\0"])
def test_what_is_no_name_is_refused(base: Sandbox, name: str):
    with pytest.raises(SessionFileError, match="no name of a parked session"):
        base.unpark(name)


def test_a_session_that_is_not_parked_is_nobody_s_to_take(base: Sandbox):
    with base.fork() as other:
        name = other._settings.checkpoints.path.name
        with pytest.raises(SessionFileError, match="in use"):
            base.unpark(name)
    fork = launch.OwnFolder(launch.sessions_folder(caches.default_path()))
    fork.keep("fork of mine")
    fork.release()
    with pytest.raises(SessionFileError, match="it is no parked session"):
        base.unpark(fork.path.name)
    assert fork.path.exists()
    launch.OwnFolder(fork.path.parent, name=fork.path.name).unkeep()


def test_under_another_configuration_it_stays_parked(base: Sandbox):
    name = parked(base, "x = 1\nopen('/tmp/note', 'w').write('kept')")
    with (
        Sandbox(Policy(preload=())) as other,
        pytest.raises(SessionFileError, match=r"needs what it was parked with: .*preload"),
    ):
        other.unpark(name)
    with base.unpark(name) as box:
        assert box.run("x, open('/tmp/note').read()").text == "(1, 'kept')"


def test_more_memory_than_the_policy_allows_stays_parked(base: Sandbox):
    name = parked(base, "x = bytearray(200 << 20)")
    small = Policy(limits=Limits(memory_bytes=256 << 20))
    with Sandbox(small) as other, pytest.raises(Exception, match="memory"):
        other.unpark(name)
    with base.unpark(name) as box:
        assert box.run("len(x) >> 20").text == "200"


def test_without_checkpoints_there_is_nothing_to_park():
    with Sandbox(Policy(checkpoints=CheckpointLimits(enabled=False))) as box:
        box.run("x = 1")
        with pytest.raises(SessionFileError, match=r"checkpoints\.enabled"):
            box.park()
        assert box.run("x").text == "1"


def test_another_process_can_have_it(base: Sandbox):
    name = parked(base, "x = 7")
    code = "from wasi_kernel import Sandbox\nwith Sandbox() as base, base.unpark(NAME) as box:\n"
    code = code.replace("NAME", repr(name)) + "    print(box.run('x').text)"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("7\n", "")


def test_a_process_that_is_killed_meanwhile_loses_only_own_files(base: Sandbox):
    name = parked(base, "x = 1")
    code = f"""
import os, signal
from wasi_kernel import Sandbox
base = Sandbox()
box = base.unpark({name!r})
assert box.run("x = 2").ok
box.checkpoints()  # is answered when that is written
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-P", "-c", code], check=False)
    assert done.returncode == -9
    with base.unpark(name) as box:
        assert box.run("x").text == "2"
