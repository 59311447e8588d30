"""Frames read from outside: exact for real programs, bounded and never wrong for hostile memory.

Real programs run in a sandbox, which tells its own stack at the very line at which it is looked at;
hostile memory is made here, of the same structures.
"""

from __future__ import annotations

import argparse
import inspect
import random
import struct
import types
from typing import TYPE_CHECKING

import pytest

from wasi_kernel import Sandbox
from wasi_kernel.worker import pyframes
from wasi_kernel.worker.memory import OutOfBoundsError
from wasi_kernel.worker.pyframes import FrameReader, Place, TornError, UnreadableError, lines

if TYPE_CHECKING:
    from collections.abc import Iterator

# -- real programs -----------------------------------------------------------------------------

PROGRAM = """
import sys, time
def told():
    frame, found = sys._getframe(1), []
    while frame:
        found.append([frame.f_code.co_filename, frame.f_code.co_qualname, frame.f_lineno])
        frame = frame.f_back
    return found
def look():
    global mine; mine = told(); time.sleep(0.1)
def deepest(seen):
    k = max(range(len(seen["nodes"])), key=lambda k: seen["nodes"][k][3])
    found = []
    while k >= 0:
        k, function, line, *_ = seen["nodes"][k]
        file, name, _ = seen["functions"][function]
        found.append([file, name, line])
    return found
class Thing:
    def __lt__(self, other):
        look()
        return False
    @property
    def value(self):
        return [look() for _ in "x"]
def numbers():
    try:
        yield 1
    finally:
        (yield
            look())
def through():
    yield from numbers()
async def waits():
    class Inner:
        def __await__(self):
            look()
            return iter(())
    await Inner()
def down(n):
    return (
        down(n - 1) if n else look()
    )
"""

CASES = {
    "function": "look()",
    "method called by C": "sorted([Thing(), Thing()])",
    "property, comprehension": "Thing().value",
    "generator": "list(through())",
    "lambda in map, inside a generator": "list(map(lambda x:\n  look(), (n for n in 'a')))",
    "coroutine": "c = waits()\ntry: c.send(None)\nexcept StopIteration: pass",
    "900 levels": "down(900)",
    "exec": "exec('\\n\\nlook()')",
    "unicode": "def käse_\U0001d4d0():\n    look()\nkäse_\U0001d4d0()",
    "many lines": "[\n" + "id,\n" * 700 + "look()]",
}


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    with Sandbox() as box:
        assert box.run(PROGRAM).ok
        yield box


@pytest.mark.parametrize("code", CASES.values(), ids=CASES)
def test_a_stack_is_what_the_guest_itself_says(box: Sandbox, code: str):
    door = "get_ipython().door"
    result = box.run(
        f"{door}.look('profile_begin', hz=1000) and None\n{code}\n"
        f"seen = deepest({door}.look('profile_end').content)\n"
        "assert seen[0][1] == 'look' and len(seen) > 20\n"
        "print(seen == mine, len(seen) - len(mine), [p for p in zip(seen, mine) if p[0] != p[1]])"
    )
    assert result.stdout == "True 0 []\n", result.stdout


# -- tables of lines ---------------------------------------------------------------------------


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for value in code.co_consts:
        if isinstance(value, types.CodeType):
            yield from _codes(value)


@pytest.mark.parametrize("module", [argparse, inspect, random])
def test_lines_are_those_that_cpython_says(module: types.ModuleType):
    for code in _codes(compile(inspect.getsource(module), "m", "exec")):
        expected = [line or 0 for line, *_ in code.co_positions()]
        assert list(lines(code.co_linetable, code.co_firstlineno)) == expected


@pytest.mark.parametrize("table", [b"", b"\xff", b"\xf0", b"\xe8\x7f\x7f", b"\x00" * 9, b"\x80"])
def test_a_table_that_ends_too_early_is_read_as_far_as_it_goes(table: bytes):
    assert len(lines(table, 1)) <= 8 * len(table)


def test_a_number_without_an_end_is_torn():
    with pytest.raises(TornError, match="too large"):
        lines(b"\xe8" + b"\x7f" * 100, 1)


# -- made memory -------------------------------------------------------------------------------


class Memory:
    """A linear memory that is only bytes."""

    def __init__(self, size: int) -> None:
        self.data = bytearray(size)

    def size(self) -> int:
        return len(self.data)

    def read(self, at: int, length: int) -> bytes:
        if at < 0 or length < 0 or at + length > len(self.data):
            raise OutOfBoundsError
        return bytes(self.data[at : at + length])

    def words(self, at: int, *values: int) -> None:
        struct.pack_into(f"<{len(values)}I", self.data, at, *values)


RUNTIME, INTERPRETER, THREAD, CHUNK, TYPES = 0x1000, 0x2000, 0x3000, 0x4000, 0x6000
TEXTS, CODE, FRAME = 0x7000, 0x8000, CHUNK + 12
INSTRUCTIONS = 8
OFFSETS = {
    "runtime": {"size": 64, "interpreters_head": 16},
    "interpreter": {"size": 512, "next": 4, "id": 8, "threads_head": 16,
                    "code_object_generation": 24},
    "thread": {"size": 256, "current_frame": 8, "datastack_chunk": 12},
    "more": {},
    "frame": {"size": 44, "executable": 0, "previous": 4, "instr_ptr": 28, "owner": 38},
    "code": {"size": 132, "firstlineno": 44, "filename": 80, "name": 84, "qualname": 88,
             "linetable": 92, "co_code_adaptive": 128},
}  # fmt: skip


def guest(version: tuple[int, int] = (3, 15), frames: int = 3) -> Memory:
    """Memory in which `f` of m.py has called itself; line 7 is where each of the frames is."""
    memory = Memory(1 << 16)
    head = b"xdebugpy" + struct.pack("<QQ", version[0] << 24 | version[1] << 16 | 0xF0, 0)
    for name, fields in pyframes._LAYOUTS[version].items():
        for field in fields.split():
            head += struct.pack("<Q", OFFSETS[name].get(field, 0))
    memory.data[RUNTIME : RUNTIME + len(head)] = head
    memory.words(RUNTIME + 16, 0)  # interpreters_head lies in the table itself: see below
    at = TYPES
    kinds = {}
    for k, name in enumerate((b"str", b"bytes", b"code")):
        kinds[name] = at + 64 * k
        memory.words(kinds[name] + 12, kinds[name] + 32)
        memory.data[kinds[name] + 32 : kinds[name] + 32 + len(name)] = name
    for k, text in enumerate((b"m.py", b"f")):
        memory.words(TEXTS + 64 * k, 1, kinds[b"str"], len(text), 0, 1 << 2 | 1 << 5 | 1 << 6)
        memory.data[TEXTS + 64 * k + 20 : TEXTS + 64 * k + 20 + len(text)] = text
    table = bytes((0x80 | 11 << 3 | 7, 0, 0))  # one line further, 8 instructions
    memory.words(TEXTS + 128, 1, kinds[b"bytes"], len(table), 0)
    memory.data[TEXTS + 144 : TEXTS + 144 + len(table)] = table
    memory.words(CODE, 1, kinds[b"code"])
    memory.words(CODE + 44, 6)
    memory.words(CODE + 80, TEXTS, TEXTS + 64, TEXTS + 64, TEXTS + 128)
    for k in range(frames):
        at = FRAME + 44 * k
        memory.words(at, CODE | 1, at + 44 if k < frames - 1 else 0)
        memory.words(at + 28, CODE + 128 + 4)
    memory.words(CHUNK, 0, 4096, 0)
    memory.words(INTERPRETER + 16, THREAD)
    memory.words(THREAD + 8, FRAME, CHUNK)
    _head(memory, INTERPRETER)
    return memory


def _head(memory: Memory, interpreter: int) -> None:
    """`interpreters_head` is put behind the table, where its structure is."""
    at = RUNTIME + 24 + 16
    struct.pack_into("<Q", memory.data, RUNTIME + 24, 4096)
    struct.pack_into("<Q", memory.data, at, 2048)
    memory.words(RUNTIME + 2048, interpreter)


@pytest.mark.parametrize("version", [(3, 13), (3, 14), (3, 15)])
def test_the_table_of_each_version_is_read(version: tuple[int, int]):
    reader = FrameReader(guest(version))
    assert (reader.version, reader.runtime) == (version, RUNTIME)
    assert reader.stack() == [Place("m.py", "f", 7, 6)] * 3
    assert reader.stack(most=2) == [Place("m.py", "f", 7, 6)] * 2


def test_where_it_was_found_once_is_looked_at_before_it_is_believed():
    assert FrameReader(guest(), RUNTIME).runtime == RUNTIME
    assert FrameReader(guest(), 77).runtime == RUNTIME
    assert FrameReader(guest(), 1 << 40).runtime == RUNTIME


@pytest.mark.parametrize(
    ("at", "data", "words"),
    [
        (RUNTIME, b"other", "CPython 3.13, 3.14, 3.15 do"),
        (RUNTIME + 8, bytes((0xF0, 0, 12, 3)), "CPython 3.13, 3.14, 3.15 do"),
        (RUNTIME + 16, b"\1", "free-threaded"),
        (RUNTIME + 24, b"\0" * 8, "not as its version has it"),
        (RUNTIME + 40, b"\xff" * 8, "not as its version has it"),
    ],
)
def test_a_build_that_cannot_be_read_is_said(at: int, data: bytes, words: str):
    memory = guest()
    memory.data[at : at + len(data)] = data
    with pytest.raises(UnreadableError, match=words):
        FrameReader(memory)


def test_a_table_at_the_end_of_memory_is_said():
    memory = Memory(4096)
    memory.data[4064:4088] = guest().read(RUNTIME, 24)
    with pytest.raises(UnreadableError, match="ends too early"):
        FrameReader(memory)


HOSTILE = {
    "a circle of frames": (FRAME + 44 + 4, FRAME, "frames, or a circle"),
    "a frame outside": (FRAME + 4, 0xFFFFFFF0, "leads nowhere"),
    "code outside": (FRAME, 0xFFFFFFF0, "leads nowhere"),
    "code that is none": (FRAME, TEXTS, "no code where one should be"),
    "an owner that is none": (FRAME + 36, 99 << 16, "owner 99"),
    "an instruction before": (FRAME + 28, CODE, "not of its function"),
    "an instruction after": (FRAME + 28, CODE + 128 + 2 * INSTRUCTIONS, "not of its function"),
    "a name outside": (CODE + 88, 0xFFFFFFF0, "leads nowhere"),
    "a name that is none": (CODE + 88, CODE, "no str where one should be"),
    "a name of no kind": (TEXTS + 64 + 16, 7 << 2, "no kind"),
    "a long name that is not there": (TEXTS + 64 + 8, 0xFFFFFFFF, None),
    "a table of lines without end": (TEXTS + 128 + 8, 0x7FFFFFFF, "too long"),
    "a table of lines that is none": (CODE + 92, TEXTS, "no bytes where one should be"),
    "a type outside": (CODE + 4, 0xFFFFFFF0, "leads nowhere"),
    "a type's name outside": (TYPES + 128 + 12, 0xFFFFFFF0, "leads nowhere"),
    "a circle of chunks": (CHUNK, CHUNK, "too large, or a circle"),
    "a chunk of all memory": (CHUNK + 4, 0xFFFFFFFF, "too large, or a circle"),
    "a chunk that is too long": (CHUNK + 4, 0xFFFF, "leads nowhere"),
    "a circle of interpreters": (INTERPRETER + 4, INTERPRETER, None),
    "no interpreter": (RUNTIME + 2048, 0, "no interpreter"),
    "an interpreter outside": (RUNTIME + 2048, 0xFFFFFFF0, "leads nowhere"),
    "no thread": (INTERPRETER + 16, 0, "no thread"),
}
"""Where a word is put, and what is said of it; None: the stack is still whole."""


@pytest.mark.parametrize(("at", "word", "words"), HOSTILE.values(), ids=HOSTILE)
def test_what_does_not_hold_together_is_torn(at: int, word: int, words: str | None):
    memory = guest()
    memory.words(at, word)
    reader = FrameReader(memory)
    if words is None:
        assert [place[2] for place in reader.stack()] == [7] * 3
    else:
        with pytest.raises(TornError, match=words):
            reader.stack()


def test_interpreters_in_a_circle_end():
    memory = guest()
    memory.words(INTERPRETER + 8, 5)  # not the main one
    memory.words(INTERPRETER + 4, INTERPRETER)
    with pytest.raises(TornError, match="too many interpreters"):
        FrameReader(memory).stack()


def test_the_main_interpreter_is_behind_others():
    memory = guest()
    other = 0xA000
    memory.words(other + 4, INTERPRETER, 3)
    _head(memory, other)
    assert len(FrameReader(memory).stack()) == 3


def test_a_name_is_cut():
    memory = guest()
    memory.words(TEXTS + 64 + 8, 2000)
    (place, *_) = FrameReader(memory).stack()
    assert len(place.function) == pyframes.MAX_NAME


@pytest.mark.parametrize("version", [(3, 13), (3, 15)])
def test_code_in_the_place_of_other_code_is_not_mistaken_for_it(version: tuple[int, int]):
    memory = guest(version)
    reader = FrameReader(memory)
    assert reader.stack()[0].function == "f"
    memory.data[TEXTS + 64 + 20] = ord("g")
    memory.words(INTERPRETER + 24, 1)  # code was freed; 3.13 does not say so
    assert reader.stack()[0].function == "g"


def test_random_damage_gives_a_stack_or_is_torn():
    rng = random.Random(7)  # noqa: S311 - damage that is the same each time
    whole = guest(frames=30)
    for _ in range(3000):
        memory = Memory(0)
        memory.data = bytearray(whole.data)
        for _ in range(rng.randint(1, 8)):
            start = rng.choice((RUNTIME + 2048, INTERPRETER, THREAD, CHUNK, TYPES, TEXTS, CODE))
            memory.data[start + rng.randrange(200)] = rng.randrange(256)
        reader = FrameReader(memory, RUNTIME)
        try:
            places = reader.stack()
        except TornError:
            continue
        assert len(places) <= pyframes.MAX_FRAMES
        assert all(len(p.file) <= pyframes.MAX_NAME for p in places)
