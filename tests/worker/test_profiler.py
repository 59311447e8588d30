"""The profiler's counts: a tree of calls, bounded whatever the guest does."""

from __future__ import annotations

import pytest

from wasi_kernel.worker import profiler
from wasi_kernel.worker.looks import Refusal
from wasi_kernel.worker.memory import OutOfBoundsError
from wasi_kernel.worker.profiler import Profiler, Samples
from wasi_kernel.worker.pyframes import Place

MAIN, CALLED = Place("m.py", "main", 3, 1), Place("m.py", "called", 9, 8)


def test_stacks_are_counted_where_they_end():
    samples = Samples()
    samples.add([CALLED, MAIN], waiting=False)
    samples.add([CALLED, MAIN], waiting=True)
    samples.add([MAIN], waiting=False)
    samples.add([CALLED._replace(line=10), MAIN], waiting=False)
    assert samples.to_dict() == {
        "functions": [["m.py", "main", 1], ["m.py", "called", 8]],
        "nodes": [[-1, 0, 3, 1, 0], [0, 1, 9, 2, 1], [0, 1, 10, 1, 0]],
        "samples": 4,
        "unkept": 0,
    }


def test_a_stack_of_nothing_is_counted_and_no_more():
    samples = Samples()
    samples.add([], waiting=False)
    assert samples.to_dict() == {"functions": [], "nodes": [], "samples": 1, "unkept": 0}


def test_the_tree_has_an_end(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(profiler, "MAX_NODES", 50)
    samples = Samples()
    for k in range(100):
        samples.add([Place("m.py", f"f{k}", k, k), MAIN], waiting=False)
    said = samples.to_dict()
    assert (len(said["nodes"]), len(said["functions"])) == (50, 50)
    assert (said["samples"], said["unkept"]) == (100, 51)


class Empty:
    """A memory of nothing."""

    def size(self) -> int:
        return 0

    def read(self, at: int, length: int) -> bytes:
        raise OutOfBoundsError


def test_a_build_without_offsets_is_refused_in_words():
    with pytest.raises(Refusal, match="does not say where its frames are"):
        Profiler(Empty).begin({"hz": 100})


@pytest.mark.parametrize("hz", [0, 1001, -5, 1.5, "100", None, True, [1]])
def test_only_a_number_of_looks_is_taken(hz: object):
    with pytest.raises(Refusal, match=r"hz is .* not a number from 1 to 1000"):
        Profiler(Empty).begin({"hz": hz})


def test_an_end_without_a_beginning_is_refused():
    held = Profiler(Empty)
    held.stop()
    with pytest.raises(Refusal, match="nothing is being profiled"):
        held.end({})
