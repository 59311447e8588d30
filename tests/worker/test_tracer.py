"""The tracer on small guests: what it notes of a call, what fds stand for, and its bounds."""

from __future__ import annotations

import struct

import pytest

from wasi_kernel.errors import GuestLost
from wasi_kernel.worker.looks import Refusal
from wasi_kernel.worker.tracer import LAST, MAX_BYTES, MAX_CALLS, Tracer

READ, LINKED = 1 << 1, 1


@pytest.fixture
def probe(open_guest, tmp_path):
    (tmp_path / "a.txt").write_bytes(b"hello")
    (tmp_path / "b.txt").touch()
    return open_guest(preopens=((tmp_path, "/data", False),))


@pytest.fixture
def tracer(probe):
    tracer = Tracer(lambda: probe.guest)
    yield tracer
    tracer.stop()


def seen(tracer):
    return tracer.end({}).content


def ask(probe, name=b"a.txt"):
    """path_filestat_get of a path below the folder."""
    probe.memory.write(512, name)
    return probe.call("path_filestat_get", 3, LINKED, 512, len(name), 4096)


def test_a_file_is_followed_by_its_fd(probe, tracer):
    assert tracer.begin({"file": "x"}).content["calls"] > 20
    fd = probe.open_file(b"a.txt")
    assert probe.read(fd, 99) == (0, b"hello")
    assert probe.call("fd_filestat_get", fd, 4096) == 0
    other = probe.open_file(b"b.txt")
    assert probe.call("fd_renumber", fd, other) == 0
    assert probe.call("fd_close", other) == 0
    assert probe.call("fd_close", other) != 0
    said = seen(tracer)
    assert [c["call"] for c in said["calls"]] == [
        "path_open", "fd_read", "fd_filestat_get", "path_open", "fd_renumber", "fd_close",
        "fd_close",
    ]  # fmt: skip
    opened, read, stat, _, moved, closed, again = said["calls"]
    assert opened["args"]["rights"] == "fd_read|fd_seek|fd_tell"
    assert opened["result"] == {"opened": fd}
    assert opened["text"].startswith("3</data>, ")
    assert (read["text"], read["result"]) == (f"{fd}</data/a.txt>, iovs=[1 buffer, 99 bytes]",
                                              {"read": 5})  # fmt: skip
    assert (stat["result"]["filetype"], stat["result"]["size"]) == ("regular_file", 5)
    assert moved["text"] == f"{fd}</data/a.txt>, to={other}</data/b.txt>"
    assert closed["text"] == f"{other}</data/a.txt>"
    assert (again["error"], again["text"]) == ("EBADF", str(other))
    assert said["totals"]["fd_close"][:2] == [2, 1]
    assert not said["lines"]  # it has no Python


def test_nothing_is_noted_before_and_after(probe, tracer):
    ask(probe)
    tracer.begin({"file": "x"})
    ask(probe)
    assert len(seen(tracer)["calls"]) == 1
    ask(probe)
    tracer.begin({"file": "x"})
    tracer.stop()
    ask(probe)
    with pytest.raises(Refusal, match="nothing is being traced"):
        tracer.end({})
    tracer.begin({"file": "x"})
    assert seen(tracer)["calls"] == []


def test_a_filter_hides_calls_and_fds_are_followed_all_the_same(probe, tracer):
    tracer.begin({"file": "x", "filter": ["fd_read"]})
    fd = probe.open_file(b"a.txt")
    probe.read(fd, 1)
    said = seen(tracer)
    assert [c["text"].partition(",")[0] for c in said["calls"]] == [f"{fd}</data/a.txt>"]
    assert set(said["totals"]) == {"fd_read"}


@pytest.mark.parametrize(
    "question",
    [
        {}, {"file": 7}, {"file": "x" * 501}, {"file": "x", "most": 0},
        {"file": "x", "most": MAX_CALLS + 1}, {"file": "x", "most": True},
        {"file": "x", "filter": "path"}, {"file": "x", "filter": [7]},
        {"file": "x", "filter": ["path"] * 51}, {"file": "x", "filter": ["p" * 41]},
        {"file": "x", "filter": ["pat"]}, {"file": "x", "filter": {"path": 1}},
    ],
)  # fmt: skip
def test_what_is_no_question_is_refused(tracer, question):
    with pytest.raises(Refusal):
        tracer.begin(question)
    with pytest.raises(Refusal, match="nothing is being traced"):
        tracer.end({})


def test_one_trace_at_a_time(tracer):
    tracer.begin({"file": "x"})
    with pytest.raises(Refusal, match="already"):
        tracer.begin({"file": "x"})


def test_calls_beyond_the_most_are_counted(probe, tracer):
    tracer.begin({"file": "x", "most": 3})
    for _ in range(10):
        ask(probe)
    said = seen(tracer)
    assert (len(said["calls"]), said["dropped"]) == (3, 7)
    assert said["totals"]["path_filestat_get"][0] == 10


def test_what_is_kept_has_a_size(probe, tracer):
    """Long paths: the calls that may be kept would be much more than MAX_BYTES."""
    tracer.begin({"file": "x", "most": MAX_CALLS})
    for _ in range(MAX_CALLS):
        ask(probe, b"n" * 1000)
    said = seen(tracer)
    size = sum(len(c["text"]) + len(str(c["args"]["path"])) for c in said["calls"])
    assert MAX_BYTES / 2 < size < MAX_BYTES + 4096
    assert said["dropped"] == MAX_CALLS - len(said["calls"]) > 0


def test_of_a_guest_that_ends_the_last_calls_are_told(probe, tracer):
    assert tracer.last_words() is None
    tracer.begin({"file": "x"})
    assert tracer.last_words() is None
    for _ in range(LAST + 5):
        ask(probe)
    with pytest.raises(GuestLost):
        probe.call("proc_exit", 3)
    head, *lines = (tracer.last_words() or "").splitlines()
    assert f"after {LAST + 6} calls; the last:" in head
    assert len(lines) == LAST
    assert lines[0] == "path_filestat_get(3</data>, flags=symlink_follow, path='a.txt') = ok"
    assert lines[-1] == "proc_exit(status=3) = ?"


def test_of_a_guest_that_made_many_calls_the_last_that_were_kept_are_told(probe, tracer):
    tracer.begin({"file": "x", "most": 2})
    for _ in range(5):
        ask(probe)
    with pytest.raises(GuestLost):
        probe.call("proc_exit", 3)
    head, *lines = (tracer.last_words() or "").splitlines()
    assert head.endswith("after 6 calls; the last of the first 2:")
    assert len(lines) == 2


def test_a_poll_says_for_what_it_waits(probe, tracer):
    clock = struct.pack("<QB7xI4xQQH6x", 1, 0, 1, 2_000_000, 0, 0)
    probe.memory.write(1024, clock)
    tracer.begin({"file": "x"})
    assert probe.call("poll_oneoff", 1024, 4096, 1, 900) == 0
    (call,) = seen(tracer)["calls"]
    assert call["text"] == "subscriptions=[clock monotonic in 2000000 ns], count=1"
    assert call["args"]["subscriptions"] == [
        {"kind": "clock", "clock": "monotonic", "ns": 2_000_000, "absolute": False}
    ]
    assert call["result"] == {"happened": 1, "events": ["clock"]}
