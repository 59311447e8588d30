"""%wasi memory: the map of linear memory agrees with what the guest and the sandbox know.

Regions cover memory; malloc's blocks add up and hold exactly the objects that a cell has made; the
pages that cells wrote are those that they wrote to; growth is the past of the state that holds,
also after %undo; the drawing passes the default policy unchanged.
"""

from __future__ import annotations

import ast
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from wasi_kernel import Policy, Sandbox
from wasi_kernel.policy import CheckpointLimits

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SMALL = Policy(preload=())
"""Without numpy and pandas in it the heap is read in a third of the time."""

MIB = 1 << 20
PAGE = 4096
DRAW = "from wasi_agent.inside import memorysvg\nmap_ = %wasi memory\nprint(memorysvg.draw(map_))"


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    """A sandbox with little in its heap."""
    with Sandbox(SMALL) as sandbox:
        yield sandbox


def ok(box: Sandbox, code: str) -> str:
    """What code prints that has to work."""
    result = box.run(code)
    assert result.error is None, (code, result.error)
    return result.stdout


def memory(box: Sandbox, options: str = "") -> dict[str, Any]:
    """What `%wasi memory` gives a program."""
    found: dict[str, Any] = ast.literal_eval(
        ok(box, f"map_ = %wasi memory {options}\nprint(map_.to_dict())")
    )
    return found


def made(said: dict[str, Any], name: str) -> tuple[int, int]:
    """(objects, bytes) of the types of that name."""
    rows = [row for row in said["heap"]["types"] if row["name"] == name]
    return sum(row["count"] for row in rows), sum(row["bytes"] for row in rows)


def test_regions_follow_one_another_and_are_all_of_memory(box):
    said = memory(box)
    at = 0
    for region in said["regions"]:
        assert region["start"] == at
        assert region["bytes"] > 0
        at += region["bytes"]
    assert at == said["bytes"] == said["pages"]["all"] * PAGE
    assert [r["name"] for r in said["regions"]][:3] == ["stack", "static", "heap"]
    info = box.run("i = %wasi\ni.to_dict()['memory_bytes']")
    assert int(info.text) >= said["bytes"]


def test_where_python_says_things_are_is_where_they_are(box):
    said = memory(box)
    start = {r["name"]: (r["start"], r["start"] + r["bytes"]) for r in said["regions"]}
    for code, region in (("int", "static"), ("object()", "heap"), ("None", "static")):
        at = int(ok(box, f"print(id({code}))"))
        assert start[region][0] <= at < start[region][1], code


def test_the_blocks_are_all_of_the_heap(box):
    heap = memory(box)["heap"]
    parts = [heap[key]["bytes"] for key in ("objects", "blocks", "free")]
    assert heap["known_to"] == heap["top"]
    assert sum(parts) == heap["top"] - heap["base"]


@pytest.mark.parametrize(
    "body", ["__slots__ = ()", "__slots__ = ('a',)", "pass"], ids=["bare", "collected", "with_dict"]
)
def test_objects_are_counted_exactly(box, body):
    ok(box, f"class Counted1:\n    {body}\nkept = [Counted1() for _ in range(1234)]")
    count, size = made(memory(box, "--types 1000"), "Counted1")
    assert count == 1234
    least = int(ok(box, "print(Counted1.__basicsize__)"))
    assert size >= 1234 * least
    ok(box, "del kept[1000:]")
    assert made(memory(box, "--types 1000"), "Counted1")[0] == 1000
    ok(box, "kept = None\ndel Counted1")


def test_the_instances_of_a_metaclass_are_types(box):
    ok(box, "class Meta1(type): pass\nclass Of1(metaclass=Meta1): __slots__ = ()\no = [Of1()] ")
    said = memory(box, "--types 1000")
    assert made(said, "Meta1")[0] == 1
    assert made(said, "Of1")[0] == 1


def test_data_that_looks_like_pointers_to_nowhere_is_no_object(box):
    before = memory(box)["heap"]
    ok(box, "import os\nnoise = [bytearray(os.urandom(4000)) for _ in range(500)]")
    after = memory(box)["heap"]
    assert after["all_types"] - before["all_types"] <= 5
    ok(box, "del noise")


def test_memory_that_is_given_back_is_free_again(box):
    ok(box, "big = bytearray(8 << 20)\nbig[:] = b'x' * (8 << 20)\nlast = object()")
    used = memory(box)["heap"]
    ok(box, "del big")
    heap = memory(box)["heap"]
    gone = sum(used[k]["bytes"] - heap[k]["bytes"] for k in ("objects", "blocks"))
    assert gone > 7 * MIB


def test_pages_are_those_that_the_last_cell_wrote(box):
    ok(box, "data = b'x' * (4 << 20)")
    said = memory(box, "--pieces 16384")
    pages, last = said["pages"], said["growth"][-2]
    assert (last["cell"], last["line"]) == (pages["cell"], "data = b'x' * (4 << 20)")
    assert 1024 <= pages["last"] == last["pages"]
    at = int(ok(box, "print(id(data))"))
    step = said["pages_per_piece"] * PAGE
    inside = said["since"][at // step + 1 : (at + (4 << 20)) // step]
    assert len(inside) > 100
    assert set(inside) == {"last"}
    ok(box, "del data")


def test_what_no_cell_wrote_is_as_in_the_image(box):
    said = memory(box, "--pieces 16384")
    step = said["pages_per_piece"] * PAGE
    names = [r for r in said["regions"] if r["name"] == "stack"]
    deep = said["since"][1 : names[0]["bytes"] // 2 // step]
    assert set(deep) == {"image"}
    assert said["pages"]["differ"] < said["pages"]["all"] // 2


def test_looking_again_does_not_hide_the_last_cell(box):
    cell = box.run("y = 1").execution_count
    for _ in range(2):
        shown = box.run("%wasi memory")
        assert f"written by the last cell, [{cell}]" in shown.data["text/plain"]


def test_the_stack_is_as_deep_as_it_ever_was():
    with Sandbox(SMALL) as box:
        before = memory(box)
        # a sort keeps what it merges on the C stack, so sorts in sorts go deep
        ok(box, "def f(n): return n and sorted([1], key=lambda _: f(n - 1))\n_ = f(40)")
        after = memory(box)
        assert after["stack_reached"] < before["stack_reached"]
        assert before["stack_reached"] - after["stack_reached"] > 40 * 1024
        assert after["regions"][0]["start"] < after["stack_reached"]
        box.run("%undo 2")
        assert memory(box)["stack_reached"] > after["stack_reached"]


def test_growth_is_the_past_of_the_state_that_holds():
    with Sandbox(SMALL) as box:
        ok(box, "a = 1")
        ok(box, "big = b'x' * (24 << 20)")
        said = memory(box)["growth"]
        assert [row["cell"] for row in said] == [0, 1, 2, None]
        assert [row["line"] for row in said] == ["", "a = 1", "big = b'x' * (24 << 20)", ""]
        assert said[2]["bytes"] - said[1]["bytes"] > 20 * MIB
        assert said[2]["heap"] - said[1]["heap"] > 20 * MIB
        assert said[2]["pages"] > 20 * MIB // PAGE
        box.run("%undo 2")
        undone = memory(box)
        assert [row["cell"] for row in undone["growth"]] == [0, 1, None]
        assert undone["growth"][1] == said[1]
        assert undone["bytes"] < said[2]["bytes"]
        assert made(memory(box, "--types 1000"), "bytes")[1] < 24 * MIB + said[1]["bytes"]
        assert len(memory(box, "--cells 1")["growth"]) == 2
        assert len(memory(box, "--cells 0")["growth"]) == 1


def test_after_a_death_and_in_a_fork():
    with Sandbox(SMALL) as box:
        ok(box, "class Kept1: __slots__ = ()\nkept = [Kept1() for _ in range(77)]")
        assert box.run("import os\nos._exit(3)").error is not None
        assert made(memory(box, "--types 1000"), "Kept1")[0] == 77
        with box.fork() as fork:
            ok(fork, "del kept[70:]")
            assert made(memory(fork, "--types 1000"), "Kept1")[0] == 70
        assert made(memory(box, "--types 1000"), "Kept1")[0] == 77


@pytest.mark.parametrize(
    "limits", [CheckpointLimits(enabled=False), CheckpointLimits(compare=True)]
)
def test_other_ways_to_know_what_was_written(limits):
    with Sandbox(replace(SMALL, checkpoints=limits)) as box:
        ok(box, "data = bytearray(b'x') * (4 << 20)")
        said = memory(box)
        pages = said["pages"]
        assert 1024 <= pages["differ"] < pages["all"]
        if limits.enabled:
            assert pages["cell"] == 1
            assert 1024 <= pages["last"] <= pages["differ"]
        else:
            assert pages["last"] is pages["now"] is None
            assert "switched off" in pages["problem"]
            assert [row["cell"] for row in said["growth"]] == [None]
            assert "switched off" in box.run("%wasi memory").data["text/plain"]


def test_a_plain_build(plain_build: Path):
    with Sandbox(Policy(runtime=str(plain_build), preload=())) as box:
        ok(box, "class Plain1: pass\nkept = [Plain1() for _ in range(99)]")
        said = memory(box, "--types 1000")
        assert made(said, "Plain1")[0] == 99
        assert said["pages"]["differ"] is None
        assert said["heap"]["known_to"] == said["heap"]["top"]
        assert any("names no __stack_pointer" in note for note in said["notes"])
        shown = box.run("%wasi memory")
        assert "which pages were written is not known" in shown.data["text/plain"].lower()
        assert "Pages that were written" not in ok(box, "print(map_.text())")


# -- how it is shown -----------------------------------------------------------------------------


def test_the_drawing_passes_the_default_policy_unchanged(box):
    drawn = ok(box, DRAW).rstrip("\n")
    assert drawn.startswith("<svg ")
    shown = box.run("map_")
    assert shown.data["image/svg+xml"] == drawn
    assert "<style" not in drawn


def test_the_text_says_the_same_as_the_data(box):
    said = memory(box, "--pieces 200 --types 3 --cells 2")
    text = box.run("print(map_)").stdout
    assert f"{said['pages']['all']:,} pages of 4.0 KiB" in text.splitlines()[0]
    for name in ("C stack", "static data", "Python objects", "free blocks", "objects of type"):
        assert name in text
    assert f"{said['heap']['objects']['count']:,} blocks" in text
    letters = {"stack": "s", "static": "d", "objects": "O", "blocks": "b", "free": "-",
               "unused": ".", "unknown": "?"}  # fmt: skip
    lines = ok(box, "print(map_.text())").splitlines()
    drawn = "".join(line[12:] for line in lines[2 : lines.index("")])
    assert drawn == "".join(letters[kind] for kind in said["map"])
    assert len(drawn) <= 200


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--pieces 0", "--pieces is a number from 1 to 16,384"),
        ("--cells -1", "--cells is a number from 0 to 1,000"),
        ("--types 9999", "--types is a number from 0 to 1,000"),
        ("--types many", "invalid int value: 'many'"),
        ("everything", "unrecognized arguments: everything"),
        ("--cells '", "No closing quotation"),
    ],
)
def test_wrong_use_is_said(box, options, words):
    error = box.run(f"%wasi memory {options}").error
    assert error.ename == "UsageError"
    assert words in error.evalue


HOSTILE = (
    "{'pieces': 0}", "{'pieces': 10**9}", "{'cells': -1}", "{'types': 10**6}", "{'type': 2**40}",
    "{'type': 'int'}", "{'pieces': True}",
)  # fmt: skip


@pytest.mark.parametrize("asked", HOSTILE)
def test_the_host_checks_what_is_asked(box, asked):
    error = box.run(f"get_ipython().door.look('memory', **{asked})").error
    assert error.ename == "ValueError"
    assert "not a number from" in error.evalue


def test_wrong_types_make_a_wrong_map_and_nothing_else(box):
    for at in (1, 64, 2**32 - 4):
        ok(box, f"_ = get_ipython().door.look('memory', type={at}, pieces=1)")
    ok(box, "_ = get_ipython().door.look('place', at=id(_), type=2**32 - 4, block=True)")
