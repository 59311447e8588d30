"""Shows that a session file gives back every byte, and that no other file is taken for one.

No guest is needed: a session is a page log over an image, both made here. What is refused leaves no
image, and costs no more memory and disk than the file may have.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import os
import random
import stat
import struct
import time
import tracemalloc
import zlib
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fulldisk import files_of_at_most
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wasi_kernel import sessionfile
from wasi_kernel.errors import SessionFileError, WasiKernelError
from wasi_kernel.pagelog import PageLog
from wasi_kernel.records import PAGE
from wasi_kernel.sessionfile import BASE, DIGEST_BYTES, END, IMAGE, MAGIC, MAX_MANIFEST, Base

if TYPE_CHECKING:
    from collections.abc import Callable

WASM_PAGES = 16
"""Pages of the unit in which memory grows."""

MIB = 1 << 20
ENOUGH = 1 << 32
VERSION = "1.2.3"
DIGEST = "5e" * 32
MADE_OF: dict[str, Any] = {
    "python": "3.15", "runtime": "ab" * 32, "agent": "cd" * 16, "wasmtime": "49.0.0",
    "guest_paths": ["/tmp", "/work"], "preload": ["numpy"],  # noqa: S108 - guest paths
}  # fmt: skip
BASE_NOTES: dict[str, Any] = {
    "bytes": 0, "tray": 4096, "stream": "stdout", "clock_ns": 7, "fds": [], "interrupts": True,
    "words": {"8192": 1, "8196": 2}, "is_tripped": 8192,
}  # fmt: skip
CELL_NOTES: dict[str, Any] = {
    "tray": 8192, "stream": "stderr", "clock_ns": 99, "fds": [9], "kind": "cell", "cell": 1,
    "line": "x = 1", "time_s": 1.5, "request": 3,
}  # fmt: skip


def cell(number: int, line: str = "x = 1", **notes: Any) -> dict[str, Any]:
    """The notes of a cell's checkpoint."""
    return {**CELL_NOTES, "cell": number, "line": line, **notes}


def page(tag: int) -> bytes:
    """A page of memory; 0 is the one that is all zero."""
    return random.Random(tag).randbytes(PAGE) if tag else bytes(PAGE)  # noqa: S311 - no secret


@dataclass
class Session:
    """A session's folder, as a worker leaves it, and what its memory is.

    Attributes:
        memory: Of the state that the log's head is.
    """

    folder: Path
    digest: str = DIGEST
    own: bool = False
    memory: bytearray = field(default_factory=bytearray)

    @classmethod
    def begin(cls, folder: Path, tags: list[int]) -> Session:
        """A session over an image with these pages; nothing has run."""
        folder.mkdir()
        image = folder.parent / f"{folder.name}.image"
        found = cls(folder, memory=bytearray(b"".join(map(page, tags))))
        image.write_bytes(found.memory)
        Base(str(image), DIGEST, len(found.memory), BASE_NOTES, MADE_OF).store(folder)
        return found

    @classmethod
    def unpacked(cls, path: Path, folder: Path) -> Session:
        """The session that begins with what the file at `path` holds."""
        folder.mkdir()
        sessionfile.unpack(path, folder, ENOUGH)
        base = Base.load(folder)
        return cls(folder, base.digest, own=True, memory=bytearray((folder / IMAGE).read_bytes()))

    def commit(
        self, spans: list[tuple[int, list[int]]], grow: int = 0, **notes: Any
    ) -> dict[str, Any]:
        """One more checkpoint, with (first page, tags) changed; its notes."""
        self.memory.extend(bytes(grow * PAGE))
        for first, tags in spans:
            self.memory[first * PAGE : (first + len(tags)) * PAGE] = b"".join(map(page, tags))
        pages = len(self.memory) // PAGE
        with closing(PageLog(self.folder, self.digest)) as log:
            kept = {**CELL_NOTES, "cell": len(log) + 1, **notes}
            log.append(pages, [(n, b"".join(map(page, tags))) for n, tags in spans], kept)
        return kept

    def save(self, path: Path) -> sessionfile.Manifest:
        return sessionfile.save(self.folder, path, VERSION)


@pytest.fixture
def session(tmp_path: Path) -> Session:
    """A small session after two cells."""
    found = Session.begin(tmp_path / "session", [1, 2, *[0] * 12, 3, 0])
    found.commit([(3, [4, 5])], cell=1, line="a = 1")
    found.commit([(1, [6]), (17, [7])], grow=WASM_PAGES, cell=2, line="b = 2")
    return found


@pytest.fixture
def saved(session: Session, tmp_path: Path) -> Path:
    """The file that it was saved to."""
    path = tmp_path / "saved.session"
    session.save(path)
    return path


def refused(path: Path, *, memory_bytes: int = ENOUGH) -> str:
    """Why the file at `path` is refused; nothing of it is left in the folder."""
    folder = path.parent / f"for-{path.name}"
    folder.mkdir(exist_ok=True)
    with pytest.raises(SessionFileError) as caught:
        sessionfile.unpack(path, folder, memory_bytes)
    assert list(folder.iterdir()) == []
    assert caught.value.where == str(path)
    return str(caught.value)


# -- making files by hand ------------------------------------------------------------------------


@dataclass
class Parts:
    """A session file, taken apart: its manifest, and its stream of pages, unpacked."""

    manifest: Any
    stream: bytes

    @classmethod
    def of(cls, path: Path) -> Parts:
        data = path.read_bytes()
        start = len(MAGIC) + 4
        end = start + int.from_bytes(data[len(MAGIC) : start], "little")
        return cls(json.loads(data[start:end]), zlib.decompress(data[end:-DIGEST_BYTES]))

    def write(self, path: Path, *, packed: bytes | None = None) -> Path:
        """Writes it, with a checksum that is right."""
        text = json.dumps(self.manifest).encode()
        body = zlib.compress(self.stream, 9) if packed is None else packed
        return sealed(path, MAGIC + struct.pack("<I", len(text)) + text + body)


def sealed(path: Path, data: bytes) -> Path:
    path.write_bytes(data + hashlib.sha256(data).digest())
    return path


def span(first: int, count: int) -> bytes:
    return struct.pack("<II", first, count)


THE_END = span(END, 0)


# -- there and back ------------------------------------------------------------------------------


def test_it_gives_back_memory_and_what_is_known_of_it(session: Session, saved: Path):
    before = time.time()
    found = Session.unpacked(saved, saved.parent / "other")
    assert found.memory == session.memory
    base = Base.load(found.folder)
    notes = cell(2, "b = 2")
    assert base.notes == {**BASE_NOTES, **notes, "request": 0}
    assert (base.made_of, base.own) == (MADE_OF, True)
    assert base.bytes == len(session.memory) == (found.folder / IMAGE).stat().st_size
    manifest = sessionfile.read_manifest(saved)
    assert manifest.pages == 2 * WASM_PAGES
    assert manifest.cells == [[1, "a = 1"], [2, "b = 2"]]
    assert manifest.kernel == VERSION
    assert abs(manifest.saved_s - before) < 60
    assert sorted(p.name for p in found.folder.iterdir()) == [BASE, IMAGE]


def test_saving_says_what_the_file_says(session: Session, tmp_path: Path):
    path = tmp_path / "a.session"
    assert session.save(path) == sessionfile.read_manifest(path)


def test_it_does_not_need_the_image_any_more(session: Session, saved: Path, tmp_path: Path):
    (tmp_path / "session.image").unlink()
    assert Session.unpacked(saved, tmp_path / "other").memory == session.memory


def test_what_was_undone_is_not_in_it(session: Session, tmp_path: Path):
    before = bytes(session.memory)
    session.commit([(5, [9])], cell=3, line="undone()")
    with closing(PageLog(session.folder, DIGEST)) as log:
        log.move(log[log.head].parent)
    manifest = session.save(tmp_path / "a.session")
    assert manifest.cells == [[1, "a = 1"], [2, "b = 2"]]
    assert Session.unpacked(tmp_path / "a.session", tmp_path / "other").memory == before


def test_only_cells_are_listed_the_last_twenty(session: Session, tmp_path: Path):
    for n in range(3, 50):
        session.commit([], cell=n, line=f"line {n}", kind="cell" if n % 2 else "aside")
    cells = session.save(tmp_path / "a.session").cells
    assert cells == [[n, f"line {n}"] for n in range(11, 50, 2)]


def test_each_file_is_a_base_of_its_own(session: Session, saved: Path, tmp_path: Path):
    """Checkpoints over one are not taken for checkpoints over another."""
    session.commit([(0, [9])])
    session.save(tmp_path / "later.session")
    digests = {
        Session.unpacked(path, tmp_path / str(k)).digest
        for k, path in enumerate([saved, saved, tmp_path / "later.session"])
    }
    assert len(digests) == 2
    assert DIGEST not in digests


tags = st.lists(st.integers(0, 5), min_size=1, max_size=40)


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[int], list[tuple[int, list[tuple[int, list[int]]]]]]:
    """(the image's tags, [(pages to grow, spans)])."""
    size = WASM_PAGES * draw(st.integers(1, 6))
    image = (draw(tags) * size)[:size]
    commits = []
    for _ in range(draw(st.integers(1, 4))):
        grow = WASM_PAGES * draw(st.integers(0, 3))
        size += grow
        starts = sorted(draw(st.lists(st.integers(0, size - 1), max_size=5, unique=True)))
        spans = []
        for start, end in pairwise([*starts, size]):
            spans.append((start, draw(tags)[: end - start]))
        commits.append((grow, spans))
    return image, commits


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(histories(), histories())
def test_any_history_comes_back_byte_for_byte(tmp_path_factory, first, second):
    """And once more from what was unpacked, with more checkpoints over it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sessionfile, "CHUNK", 8 * PAGE)  # pieces that runs and zeros lie across
        folder = tmp_path_factory.mktemp("history")
        session = Session.begin(folder / "session", first[0])
        for grow, spans in first[1]:
            session.commit(spans, grow)
        session.save(folder / "a.session")
        again = Session.unpacked(folder / "a.session", folder / "again")
        assert again.memory == session.memory
        for grow, spans in second[1]:
            most = len(again.memory) // PAGE + grow
            fitting = [(n, t) for n, t in spans if n + len(t) <= most]
            again.commit(fitting, grow)
        again.save(folder / "b.session")
        assert Session.unpacked(folder / "b.session", folder / "third").memory == again.memory


def test_more_than_one_piece_comes_back(tmp_path: Path):
    """With the pieces' real size: 1 MiB."""
    random_tags = random.Random(3).choices(range(4), k=40 * WASM_PAGES)  # noqa: S311 - no secret
    session = Session.begin(tmp_path / "session", random_tags)
    session.commit([(250, [1] * 20), (300, [0] * 300)], grow=WASM_PAGES)
    session.save(tmp_path / "a.session")
    assert Session.unpacked(tmp_path / "a.session", tmp_path / "other").memory == session.memory


# -- saving --------------------------------------------------------------------------------------


def test_the_file_is_its_owner_s_only(session: Session, tmp_path: Path):
    path = tmp_path / "a.session"
    path.touch(mode=0o644)
    before = os.umask(0)
    try:
        session.save(path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_saving_changes_nothing_in_the_session(session: Session, tmp_path: Path):
    before = {p.name: p.read_bytes() for p in session.folder.iterdir()}
    session.save(tmp_path / "a.session")
    assert {p.name: p.read_bytes() for p in session.folder.iterdir()} == before


def test_a_full_disk_leaves_the_file_that_was_there(session: Session, tmp_path: Path):
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "a.session").write_text("old")
    for size in (0, 10, 1000, 20_000):
        with files_of_at_most(size), pytest.raises(OSError, match="too large"):
            session.save(folder / "a.session")
        assert [(p.name, p.read_bytes()) for p in folder.iterdir()] == [("a.session", b"old")]


def test_a_place_that_takes_no_file(session: Session, tmp_path: Path):
    (tmp_path / "files" / "a.session").mkdir(parents=True)
    with pytest.raises(IsADirectoryError):
        session.save(tmp_path / "files" / "a.session")
    with pytest.raises(FileNotFoundError):
        session.save(tmp_path / "nowhere" / "a.session")
    with pytest.raises(NotADirectoryError):
        session.save(tmp_path / "session.image" / "a.session")
    assert [p.name for p in (tmp_path / "files").iterdir()] == ["a.session"]


def test_a_link_is_replaced_and_not_followed(session: Session, tmp_path: Path):
    (tmp_path / "other").write_text("precious")
    (tmp_path / "a.session").symlink_to(tmp_path / "other")
    session.save(tmp_path / "a.session")
    assert (tmp_path / "other").read_text() == "precious"
    assert not (tmp_path / "a.session").is_symlink()
    assert sessionfile.read_manifest(tmp_path / "a.session").cells[-1] == [2, "b = 2"]


def test_a_session_without_a_state_is_not_saved(tmp_path: Path):
    session = Session.begin(tmp_path / "session", [1] * WASM_PAGES)
    (tmp_path / "a.session").write_text("old")
    with pytest.raises(SessionFileError, match="no state"):
        session.save(tmp_path / "a.session")
    assert (tmp_path / "a.session").read_text() == "old"


@pytest.mark.parametrize("what", ["nothing", "", "null", "[]", "{}", '{"image": 1}', "\0", "{"])
def test_a_folder_that_is_no_session_is_not_saved(tmp_path: Path, what: str):
    (tmp_path / "session").mkdir()
    if what != "nothing":
        (tmp_path / "session" / BASE).write_text(what)
    with pytest.raises(SessionFileError) as caught:
        sessionfile.save(tmp_path / "session", tmp_path / "a.session", VERSION)
    assert "session" in caught.value.where
    assert not (tmp_path / "a.session").exists()


def test_damaged_pages_are_not_saved(session: Session, tmp_path: Path):
    (segment,) = session.folder.glob("*.pages")
    data = bytearray(segment.read_bytes())
    at = data.index(page(4))
    data[at + 100] ^= 1
    segment.write_bytes(data)
    with pytest.raises(SessionFileError, match="damaged"):
        session.save(tmp_path / "a.session")
    assert not (tmp_path / "a.session").exists()


def test_a_session_whose_image_is_gone_is_not_saved(session: Session, tmp_path: Path):
    (tmp_path / "session.image").unlink()
    with pytest.raises((SessionFileError, OSError)):
        session.save(tmp_path / "a.session")
    assert not [p for p in tmp_path.iterdir() if "a.session" in p.name]


@pytest.mark.parametrize("by", ["name", "link"])
def test_nothing_else_is_saved_as_an_image(session: Session, tmp_path: Path, by: str):
    """A worker says what its session lies over; one that was broken into gains nothing by it."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret" * PAGE)
    if by == "name":
        base = Base.load(session.folder)._replace(image=str(secret))
    else:
        base = Base.load(session.folder)
        Path(base.image).unlink()
        Path(base.image).symlink_to(secret)
    base.store(session.folder)
    with pytest.raises((SessionFileError, OSError)):
        session.save(tmp_path / "a.session")
    assert not (tmp_path / "a.session").exists()


def test_an_image_that_is_cut_short_is_not_saved(session: Session, tmp_path: Path):
    """What is missing would be taken for zeros, and get a checksum that is right."""
    os.truncate(tmp_path / "session.image", 3 * PAGE)
    with pytest.raises((SessionFileError, OSError)):
        session.save(tmp_path / "a.session")
    assert not (tmp_path / "a.session").exists()


# -- damage --------------------------------------------------------------------------------------


def test_every_cut_is_refused(saved: Path, tmp_path: Path):
    """At each byte of the head and of the end, and at many between."""
    data = saved.read_bytes()
    head = len(MAGIC) + 4 + int.from_bytes(data[len(MAGIC) : len(MAGIC) + 4], "little")
    cut = tmp_path / "cut"
    lengths = [
        *range(head + 20),
        *range(head + 20, len(data), 311),
        *range(len(data) - 40, len(data)),
    ]
    for length in lengths:
        cut.write_bytes(data[:length])
        refused(cut)


def test_more_after_the_end_is_refused(saved: Path, tmp_path: Path):
    data = saved.read_bytes()
    for more in (b"\0", b"more", data):
        (tmp_path / "longer").write_bytes(data + more)
        assert "damaged" in refused(tmp_path / "longer")


@settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_changed_bytes_are_refused(saved: Path, data):
    content = bytearray(saved.read_bytes())
    end = data.draw(st.sampled_from([30, 1000, len(content)]))  # the manifest is a small part
    places = data.draw(st.lists(st.integers(0, end - 1), min_size=1, max_size=4, unique=True))
    for at in places:
        content[at] ^= data.draw(st.integers(1, 255))
    changed = saved.with_name("changed")
    changed.write_bytes(content)
    refused(changed)


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_pieces_in_another_order_are_refused(saved: Path, data):
    content = saved.read_bytes()
    a, b, c = sorted(data.draw(st.lists(st.integers(0, len(content)), min_size=3, max_size=3)))
    moved = content[:a] + content[b:c] + content[a:b] + content[c:]
    if moved == content:
        moved = content[:a] + content[b:] if a != b else content + b"\0"
    path = saved.with_name("moved")
    path.write_bytes(moved)
    refused(path)


@pytest.mark.parametrize("size", [0, 1, 26, 60, 5000])
def test_what_is_no_session_file_is_refused(tmp_path: Path, size: int):
    (tmp_path / "noise").write_bytes(random.Random(size).randbytes(size))  # noqa: S311
    assert "no session file" in refused(tmp_path / "noise")
    with pytest.raises(SessionFileError, match="no session file"):
        sessionfile.read_manifest(tmp_path / "noise")


def test_a_file_of_another_version_is_refused(saved: Path, tmp_path: Path):
    data = saved.read_bytes().replace(b"session 1\n", b"session 2\n", 1)
    sealed(tmp_path / "newer", data[:-DIGEST_BYTES])
    assert "of this version" in refused(tmp_path / "newer")


def test_no_file_and_a_folder_are_named(tmp_path: Path):
    (tmp_path / "folder").mkdir()
    for name in ("nowhere", "folder", "folder/nowhere"):
        with pytest.raises(SessionFileError, match=name):
            sessionfile.read_manifest(tmp_path / name)


def test_a_folder_is_refused_like_any_file(tmp_path: Path):
    (tmp_path / "a.session").mkdir()
    assert "a.session" in refused(tmp_path / "a.session")


def test_what_is_in_the_place_of_the_image_is_not_written_to(saved: Path, tmp_path: Path):
    """A session's folder is new and empty; if it is not, what it holds is left alone."""
    (tmp_path / "precious").write_text("precious")
    folder = tmp_path / "other"
    folder.mkdir()
    (folder / IMAGE).symlink_to(tmp_path / "precious")
    with pytest.raises(FileExistsError):
        sessionfile.unpack(saved, folder, ENOUGH)
    assert (tmp_path / "precious").read_text() == "precious"


# -- hostile pages -------------------------------------------------------------------------------


@pytest.fixture
def parts(saved: Path) -> Parts:
    return Parts.of(saved)


def test_a_file_made_by_hand_is_taken(session: Session, parts: Parts, tmp_path: Path):
    """What the tests below change is else a good file."""
    found = Session.unpacked(parts.write(tmp_path / "same"), tmp_path / "other")
    assert found.memory == session.memory


@pytest.mark.parametrize(
    "stream",
    [
        span(0, 33) + bytes(33 * PAGE) + THE_END,
        span(32, 1) + page(1) + THE_END,
        span(31, 2) + 2 * page(1) + THE_END,
        span(END, 1) + page(1) + THE_END,
        span(1, END) + page(1) + THE_END,
        span(1 << 31, 1 << 31) + page(1) + THE_END,
        span(0, 0) + THE_END,
        33 * (span(0, 1) + page(1)) + THE_END,
        3 * (span(0, 16) + 16 * page(1)) + THE_END,
        span(0, 1) + page(1),
        span(0, 1) + page(1)[:-1] + THE_END,
        span(0, 2) + page(1),
        THE_END[:-1],
        b"",
        THE_END + page(1),
    ],
    ids=[
        "too many", "behind the end", "across the end", "at the mark of the end", "all there are",
        "sum overflows", "none", "again and again", "more than there are", "no end",
        "a byte is missing", "a page is missing", "half an end", "nothing", "more after the end",
    ],
)  # fmt: skip
def test_pages_that_are_none_are_refused(parts: Parts, tmp_path: Path, stream: bytes):
    with files_of_at_most(2 * WASM_PAGES * PAGE):
        assert "damaged" in refused(replace(parts, stream=stream).write(tmp_path / "hostile"))


@pytest.mark.parametrize(
    "packed",
    [b"", b"\0", zlib.compress(b"")[:-1], b"\x78\x01" + bytes(100), os.urandom(100)],
    ids=["nothing", "zero", "cut", "no blocks", "noise"],
)
def test_what_does_not_unpack_is_refused(parts: Parts, tmp_path: Path, packed: bytes):
    assert "damaged" in refused(parts.write(tmp_path / "hostile", packed=packed))


@pytest.mark.parametrize("begins", ["with a span", "with zeros", "after the end"])
def test_a_bomb_costs_no_memory_and_no_disk(parts: Parts, tmp_path: Path, begins: str):
    packer = zlib.compressobj(9)
    first = {"with a span": span(0, 32), "with zeros": b"", "after the end": THE_END}[begins]
    packed = packer.compress(first) + b"".join(packer.compress(bytes(MIB)) for _ in range(256))
    path = parts.write(tmp_path / "bomb", packed=packed + packer.flush())
    assert path.stat().st_size < MIB
    memory = peak(lambda: refused(path))
    assert memory < 16 * MIB


def peak(function: Callable[[], Any]) -> int:
    """The most memory that was in use at once while it ran, and files no larger than it may."""
    tracemalloc.start()
    try:
        with files_of_at_most(2 * WASM_PAGES * PAGE):
            function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# -- hostile manifests ---------------------------------------------------------------------------

NAN, INFINITY = math.nan, math.inf
GONE = object()
"""In the place of a value: the key is not there."""


def put(*keys: Any) -> Callable[[Any], None]:
    """Puts the last of `keys` where the others lead; a key is a path into the manifest."""
    *way, last, value = keys

    def change(manifest: Any) -> None:
        at = manifest
        for key in way:
            at = at[key]
        if value is GONE:
            del at[last]
        else:
            at[last] = value

    return change


NO_COUNTS = [-1, "1", 1.5, True, None, NAN, [], {}, GONE]
FAR = 2 * WASM_PAGES * PAGE
"""The first address behind memory."""

HOSTILE = {
    **{f"pages {v!r}": put("pages", v) for v in (
        0, -16, 1, 17, (1 << 20) + 16, 1 << 64, "16", 16.0, True, None, NAN, INFINITY, [], GONE
    )},
    **{f"{key} {v!r}": put(key, v) for key in ("notes", "made_of", "cells") for v in (
        None, 5, "text", True, GONE
    )},
    **{f"notes {key} {v!r}": put("notes", key, v) for v in NO_COUNTS for key in (
        "tray", "clock_ns", "is_tripped", "cell"
    )},
    **{f"fds {v!r}": put("notes", "fds", v) for v in (
        None, 5, "9", [-1], [1 << 16], ["9"], [9.0], [True], [None], [[9]], [NAN], GONE
    )},
    **{f"stream {v!r}": put("notes", "stream", v) for v in ("stdin", "", None, 1, [], GONE)},
    **{f"interrupts {v!r}": put("notes", "interrupts", v) for v in (0, 1, "yes", None, GONE)},
    **{f"words {v!r}": put("notes", "words", v) for v in (
        None, 5, [], [8192], "8192", {"x": 1}, {"-8192": 1}, {"8192": "1"}, {"8192": 1.5},
        {"8192": None}, {"8192": True}, {"": 1}, {"1.5": 1}, GONE
    )},
    **{f"saved_s {v!r}": put("saved_s", v) for v in ("now", None, [], {}, GONE)},
    **{f"cells {v!r}": put("cells", v) for v in (
        [5], [[1]], [["1", "x"]], [[1, 2]], [[1, "x", 3]], [[True, "x"]], [[1.5, "x"]], {"ab": 1}
    )},
    "one key too many": put("more", 1),
    "no kernel": put("kernel", GONE),
}  # fmt: skip


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_manifest_that_save_does_not_write_is_refused(parts: Parts, tmp_path: Path, change):
    change(parts.manifest)
    path = parts.write(tmp_path / "hostile")
    assert "manifest is damaged" in refused(path)
    with pytest.raises(SessionFileError, match="manifest is damaged"):
        sessionfile.read_manifest(path)


UNUSABLE = {
    "tray behind memory": put("notes", "tray", FAR),
    "tray across the end": put("notes", "tray", FAR - 8),
    "tray far away": put("notes", "tray", 1 << 40),
    "is_tripped behind memory": put("notes", "is_tripped", FAR),
    "is_tripped is none of the words": put("notes", "is_tripped", 12),
    "word behind memory": put("notes", "words", {"8192": 1, str(FAR): 1}),
    "word across the end": put("notes", "words", {"8192": 1, str(FAR - 2): 1}),
    "bits of no word": put("notes", "words", {"8192": 1 << 32}),
    "negative bits": put("notes", "words", {"8192": -1}),
    "clock beyond 64 bits": put("notes", "clock_ns", 1 << 63),
    "cell beyond all counting": put("notes", "cell", 1 << 40),
    "saved_s is no number": put("saved_s", NAN),
    "saved_s is infinite": put("saved_s", INFINITY),
    "saved_s is no time": put("saved_s", 1e300),
    "kernel is no text": put("kernel", {"a": 1}),
}
"""Values of the right type which a guest cannot be woken with, or which cannot be shown."""


@pytest.mark.parametrize("change", UNUSABLE.values(), ids=UNUSABLE.keys())
def test_a_manifest_that_cannot_be_used_is_refused(parts: Parts, tmp_path: Path, change):
    """Before it meets a worker: what fails there fails each time, in the middle of a session."""
    change(parts.manifest)
    assert "manifest is damaged" in refused(parts.write(tmp_path / "hostile"))


@pytest.mark.parametrize(
    "text",
    [
        b"", b"null", b"[]", b"5", b"text", b"{", b"\xff\xfe", b"{}" + bytes(10), b"[" * 200_000,
        b'{"a":' * 100_000, b"1" * 100_000, b'{"pages": ' + b"9" * 100_000 + b"}", b'"' + b"a" * 10,
    ],
    ids=[
        "nothing", "null", "list", "number", "no JSON", "open", "no UTF-8", "more", "deep lists",
        "deep objects", "long number", "long pages", "open text",
    ],
)  # fmt: skip
def test_a_manifest_that_is_no_object_is_refused(tmp_path: Path, text: bytes):
    path = sealed(tmp_path / "hostile", MAGIC + struct.pack("<I", len(text)) + text)
    assert "manifest is damaged" in refused(path)


@pytest.mark.parametrize("length", [MAX_MANIFEST + 1, 1 << 31, END])
def test_a_manifest_that_is_too_long_is_not_read(saved: Path, tmp_path: Path, length: int):
    data = saved.read_bytes()
    path = sealed(tmp_path / "hostile", MAGIC + struct.pack("<I", length) + bytes(1 << 23) + data)
    assert peak(lambda: refused(path)) < 3 * MAX_MANIFEST


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_no_manifest_brings_another_error(saved: Path, data):
    """Whatever stands in it: it is taken, or it is refused; and if it is taken it can be shown."""
    parts = Parts.of(saved)
    manifest = copy.deepcopy(parts.manifest)
    for _ in range(data.draw(st.integers(1, 3))):
        where = data.draw(st.sampled_from(["top", "notes", "made_of"]))
        at = manifest if where == "top" else manifest[where]
        if not isinstance(at, dict):
            continue
        key = data.draw(st.sampled_from(sorted(at)) if at else st.text(max_size=8))
        if where == "top" and key == "pages":
            continue
        at[key] = data.draw(json_values)
        if not isinstance(manifest.get("notes"), dict):
            break
        if not isinstance(manifest.get("made_of"), dict):
            break
    path = replace(parts, manifest=manifest).write(saved.with_name("hostile"))
    try:
        found = sessionfile.read_manifest(path)
    except SessionFileError:
        refused(path)
        return
    sessionfile.differences(found.made_of, MADE_OF)
    json.dumps(found.cells)
    folder = saved.parent / "taken"
    folder.mkdir(exist_ok=True)
    sessionfile.unpack(path, folder, ENOUGH)
    for each in folder.iterdir():
        each.unlink()


# -- how much memory -----------------------------------------------------------------------------


def test_more_memory_than_allowed_is_refused_before_unpacking(saved: Path, tmp_path: Path):
    size = 2 * WASM_PAGES * PAGE
    with files_of_at_most(0):
        text = refused(saved, memory_bytes=size - 1)
    assert "limits.memory_bytes" in text
    folder = tmp_path / "other"
    folder.mkdir()
    assert sessionfile.unpack(saved, folder, size).pages * PAGE == size


def test_a_claim_of_all_memory_is_refused_before_anything_is_made(parts: Parts, tmp_path: Path):
    parts.manifest["pages"] = 1 << 20
    path = parts.write(tmp_path / "large")
    with files_of_at_most(0):
        assert "4096 MiB" in refused(path, memory_bytes=2048 * MIB)


def test_a_full_disk_leaves_no_image(saved: Path, tmp_path: Path):
    folder = tmp_path / "other"
    folder.mkdir()
    for size in (0, WASM_PAGES * PAGE):
        with files_of_at_most(size), pytest.raises(OSError, match="too large"):
            sessionfile.unpack(saved, folder, ENOUGH)
        assert list(folder.iterdir()) == []


# -- other configurations ------------------------------------------------------------------------


def test_nothing_differs_from_itself():
    assert sessionfile.differences(MADE_OF, copy.deepcopy(MADE_OF)) == []


@pytest.mark.parametrize(
    ("key", "there", "named"),
    [
        ("python", "3.16", "Python: 3.16 there, 3.15 here"),
        ("runtime", "12" * 32, "12" * 32),
        ("agent", "34" * 16, "34" * 16),
        ("wasmtime", "50.0.0", "wasmtime: 50.0.0 there, 49.0.0 here"),
        ("guest_paths", ["/tmp", "/data"], "/tmp, /data there, /tmp, /work here"),  # noqa: S108
        ("preload", [], "there, numpy here"),
    ],
)
def test_each_difference_is_named(key: str, there: object, named: str):
    (line,) = sessionfile.differences({**MADE_OF, key: there}, MADE_OF)
    assert named in line


def test_all_differences_are_named_and_none_is_long():
    for theirs in ({}, dict.fromkeys(MADE_OF, "x" * 10_000), dict.fromkeys(MADE_OF, [["y"]] * 500)):
        lines = sessionfile.differences(theirs, MADE_OF)
        assert len(lines) == len(MADE_OF)
        assert max(map(len, lines)) < 1000


def test_the_errors_are_ours():
    assert issubclass(SessionFileError, WasiKernelError)
