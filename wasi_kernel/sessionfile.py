"""Session files: the whole state of a session in one portable file, and what it was made with.

    magic, u32 bytes of manifest, manifest (JSON), pages (zlib), SHA-256 of all before it

The pages are a stream of (u32 first page, u32 pages, data), little-endian, without those that are
zero; it ends with (0xFFFFFFFF, 0). The file holds all of linear memory, so it does not need the
base image of the machine that it was saved on; but what runs on it must be the very same: the
manifest says what that was, and another configuration is refused.

Such a file comes from anywhere: sizes are checked before anything is unpacked, and nothing of it is
used before its checksum was found right. Standard library only.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import struct
import time
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from wasi_kernel import installed, plainfiles
from wasi_kernel.errors import SessionFileError
from wasi_kernel.pagelog import PageLog
from wasi_kernel.policy import raising
from wasi_kernel.records import PAGE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

MAGIC = b"wasi-kernel session 1\n"
MAX_MANIFEST = 1 << 20
MAX_PAGES = 1 << 20  # 4 GiB, all that 32-bit WebAssembly can address
CHUNK = 1 << 20
END = 0xFFFFFFFF
LEVEL = 1  # of zlib: the others take longer than they are worth
DIGEST_BYTES = 32

BASE, IMAGE = "base.json", "image"
"""Files in a session's folder: what its states lie over, and the image if that is its own."""

IMAGE_SUFFIX = ".image"
"""How the names of base images in the cache end."""

_U32, _SPAN = struct.Struct("<I"), struct.Struct("<II")
_MADE_OF = {
    "python": "Python", "runtime": "the runtime's SHA-256", "agent": "the agent and IPython",
    "wasmtime": "wasmtime", "guest_paths": "the folders that the guest sees",
    "preload": "preloaded modules",
}  # fmt: skip
TRAY_BYTES = 32  # of its head, see worker/door.py


class Base(NamedTuple):
    """The image that a session's states lie over.

    Attributes:
        image: The file.
        digest: What its page logs know it by.
        bytes: Its size.
        notes: What has to be known to wake a guest there.
        made_of: What it only works with: `python`, `runtime`, `agent`, `wasmtime`, `guest_paths`,
            `preload`.
        own: Is it the session's own, in its folder?
    """

    image: str
    digest: str
    bytes: int
    notes: dict[str, Any]
    made_of: dict[str, Any]
    own: bool = False

    def store(self, folder: Path) -> None:
        """Writes it into a session's folder."""
        new = folder / f"{BASE}.new"
        new.write_text(json.dumps(self._asdict()))
        new.replace(folder / BASE)

    @classmethod
    def load(cls, folder: Path) -> Base:
        """What a session's folder says.

        Raises:
            SessionFileError: There is nothing that can be read, or it names something else than
                an image: a worker writes it, which may read less than who saves its session.
        """
        try:
            found = cls(**json.loads(plainfiles.read(folder / BASE)))
            found._check()
            if not found.own and Path(found.image).suffix != IMAGE_SUFFIX:
                raise ValueError("no image")  # noqa: TRY301 - below
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as e:
            raise SessionFileError(
                folder.name, f"it has no state that was kept ({type(e).__name__})"
            ) from None
        return found

    def _check(self) -> None:
        """Checks what was read.

        Raises:
            ValueError: It cannot have been written by `store`.
        """
        if not all(isinstance(text, str) for text in (self.image, self.digest)):
            raise ValueError("image or digest")
        if type(self.own) is not bool or not isinstance(self.made_of, dict):
            raise ValueError("own or made_of")
        if type(self.bytes) is not int or not 0 < self.bytes <= MAX_PAGES * PAGE:
            raise ValueError("bytes")
        if self.own:
            _check_notes(self.notes, self.bytes)
        elif not isinstance(self.notes, dict):
            raise ValueError("notes")

    def path(self, folder: Path) -> Path:
        """Where the image is, for the session in `folder`."""
        return folder / IMAGE if self.own else Path(self.image)


class Manifest(NamedTuple):
    """What a session file says of itself.

    Attributes:
        made_of: See `Base`.
        pages: Pages of linear memory.
        notes: What has to be known to wake a guest there.
        saved_s: When it was saved, in seconds since 1970.
        kernel: The version of wasi-kernel that saved it.
        cells: (execution count, first line) of its last cells.
        installed: What its cells had installed; see installed.py.
    """

    made_of: dict[str, Any]
    pages: int
    notes: dict[str, Any]
    saved_s: float
    kernel: str
    cells: list[list[Any]]
    installed: dict[str, dict[str, Any]] = {}  # noqa: RUF012 - never changed


def save(folder: Path, path: Path, version: str) -> Manifest:
    """Saves the state that the session in `folder` is at to the file at `path`.

    The session may be running: only what it has committed is read.

    Raises:
        SessionFileError: The session has no state yet, or it is damaged.
        OSError: `path` cannot be written; what was there stays.
    """
    base = Base.load(folder)
    log = PageLog(folder, base.digest, read_only=True)
    try:
        if not log.head or log.verify(log.head):
            raise SessionFileError(folder.name, "; ".join(log.damage) or "it has no state yet")
        head = log[log.head]
        cells = [
            [c.notes["cell"], c.notes.get("line", "")]
            for c in log.chain(log.head)
            if c.notes.get("kind") == "cell"
        ]
        notes = {**base.notes, **head.notes}
        now = round(time.time(), 3)
        manifest = Manifest(
            base.made_of, head.pages, notes, now, version, cells[:20][::-1],
            installed.load(folder),
        )  # fmt: skip
        _write(path, manifest, _memory(log, base, folder))
    finally:
        log.close()
    return manifest


def _memory(log: PageLog, base: Base, folder: Path) -> Iterator[tuple[int, bytes]]:
    """(first page, data) of all pages of the log's head that are not zero."""
    pages, step, zero = log[log.head].pages, CHUNK // PAGE, bytes(PAGE)
    with open(base.path(folder), "rb", opener=_no_link) as image:
        if os.fstat(image.fileno()).st_size < base.bytes:
            raise SessionFileError(folder.name, "its base image is cut short")
        for page in range(0, pages, step):
            upto = min(pages, page + step)
            data = bytearray(os.pread(image.fileno(), (upto - page) * PAGE, page * PAGE))
            data.extend(bytes((upto - page) * PAGE - len(data)))
            for run in log.between(page, upto):
                at = (run.page - page) * PAGE
                data[at : at + run.count * PAGE] = log.read(run)
            start = page
            while start < upto:
                end = start
                while end < upto and data[(end - page) * PAGE : (end - page + 1) * PAGE] != zero:
                    end += 1
                if end > start:
                    yield start, bytes(data[(start - page) * PAGE : (end - page) * PAGE])
                start = end + 1


def _no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW)


def _write(path: Path, manifest: Manifest, memory: Iterator[tuple[int, bytes]]) -> None:
    # Not tempfile: it imports random, whose machine code a confined worker cannot load any more.
    name = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as f:
            text = json.dumps(manifest._asdict()).encode()
            head = MAGIC + _U32.pack(len(text)) + text
            digest, packer = hashlib.sha256(head), zlib.compressobj(LEVEL)
            f.write(head)
            for page, data in memory:
                piece = packer.compress(_SPAN.pack(page, len(data) // PAGE)) + packer.compress(data)
                digest.update(piece)
                f.write(piece)
            piece = packer.compress(_SPAN.pack(END, 0)) + packer.flush()
            digest.update(piece)
            f.write(piece + digest.digest())
            f.flush()
            os.fsync(f.fileno())
        name.replace(path)
    except BaseException:  # raised again: nothing half written is left behind
        with contextlib.suppress(OSError):
            name.unlink()
        raise


def read_manifest(path: Path) -> Manifest:
    """What the session file at `path` says of itself; its pages are not looked at.

    Raises:
        SessionFileError: It is no session file, or damaged.
    """
    try:
        with plainfiles.opened(path) as f:
            return _manifest(path, f)[0]
    except OSError as e:
        raise SessionFileError(str(path), e.strerror or str(e)) from None


def _manifest(path: Path, f: BinaryIO) -> tuple[Manifest, bytes]:
    """The manifest, and the bytes up to its end."""
    head = f.read(len(MAGIC) + _U32.size)
    if len(head) < len(MAGIC) + _U32.size or not head.startswith(MAGIC):
        raise SessionFileError(str(path), "it is no session file of this version")
    (length,) = _U32.unpack(head[len(MAGIC) :])
    text = f.read(length) if length <= MAX_MANIFEST else b""
    try:
        found = Manifest(**json.loads(text))
        _check(found)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as e:
        raise SessionFileError(str(path), f"its manifest is damaged ({e})") from None
    return found, head + text


def _check(found: Manifest) -> None:
    """Checks what will be used of a manifest.

    Raises:
        ValueError: It cannot have been written by `save`.
    """
    if type(found.pages) is not int or not 0 < found.pages <= MAX_PAGES or found.pages % 16:
        raise ValueError(f"{found.pages!r} pages")
    _check_notes(found.notes, found.pages * PAGE)
    if not isinstance(found.made_of, dict) or not isinstance(found.kernel, str):
        raise ValueError("made_of or kernel")  # noqa: TRY004 - one error for all
    if type(found.saved_s) not in (int, float) or not 0 <= found.saved_s < 1 << 40:
        raise ValueError("saved_s is no time")
    if not all(type(n) is int and isinstance(line, str) for n, line in found.cells):
        raise ValueError("cells")
    installed.check(found.installed)


def _check_notes(notes: dict[str, Any], size: int) -> None:
    """Checks what will be used to wake a guest in `size` bytes of memory.

    Raises:
        ValueError: It cannot have been written here.
    """
    for name, most in (("tray", size - TRAY_BYTES), ("clock_ns", 1 << 62), ("cell", 1 << 31)):
        if type(notes[name]) is not int or not 0 <= notes[name] <= most:
            raise ValueError(f"{name} = {notes[name]!r}")
    fds = [*notes["fds"], *notes.get("gone", ())]
    if not all(type(fd) is int and 0 <= fd < 1 << 16 for fd in fds):
        raise ValueError("fds are no file descriptors")
    if notes["stream"] not in ("stdout", "stderr"):
        raise ValueError("stream")
    _check_interrupts(notes, size)


def _check_interrupts(notes: dict[str, Any], size: int) -> None:
    """Checks where CPython's signal flags are said to be: the host writes there."""
    words = notes["words"]
    if type(notes["interrupts"]) is not bool or type(notes["is_tripped"]) is not int:
        raise ValueError("interrupts or is_tripped")
    for at, bits in words.items():
        if not at.isdecimal() or int(at) > size - 4 or type(bits) is not int or not 0 < bits < 4:
            raise ValueError("words are no flags")
    if notes["interrupts"] and str(notes["is_tripped"]) not in words:
        raise ValueError("is_tripped is none of the words")


def unpack(path: Path, folder: Path, memory_bytes: int) -> Manifest:
    """Makes the empty `folder` of a new session one that begins with the file's state.

    Args:
        path: The session file.
        folder: The session's folder.
        memory_bytes: How much memory the session may have.

    Raises:
        SessionFileError: The file is damaged, or its memory larger than that.
        OSError: The folder cannot be written.
    """
    image = folder / IMAGE
    try:
        f = plainfiles.opened(path)
    except OSError as e:
        raise SessionFileError(str(path), e.strerror or str(e)) from None
    try:
        with f, image.open("xb") as out:
            manifest, head = _manifest(path, f)
            _check_size(path, manifest, memory_bytes, os.fstat(f.fileno()).st_size)
            out.truncate(manifest.pages * PAGE)
            digest = hashlib.sha256(head)
            _unpack(path, f, out, manifest.pages, digest)
        notes = {**manifest.notes, "request": 0}
        size = manifest.pages * PAGE
        Base("", digest.hexdigest(), size, notes, manifest.made_of, own=True).store(folder)
        if manifest.installed:
            installed.store(folder, manifest.installed)
    except BaseException:  # raised again: no state that was not checked is left behind
        image.unlink(missing_ok=True)
        raise
    return manifest


def _check_size(path: Path, manifest: Manifest, memory_bytes: int, file_bytes: int) -> None:
    if file_bytes > _most_bytes(manifest):
        raise SessionFileError(str(path), "it is damaged: it is longer than its memory takes")
    if manifest.pages * PAGE > memory_bytes:
        raise SessionFileError(
            str(path),
            f"it has {manifest.pages * PAGE >> 20} MiB of memory, the policy allows "
            f"{memory_bytes >> 20} MiB; {raising('memory_bytes')}",
        )


def _most_bytes(manifest: Manifest) -> int:
    """The largest that a file with this much memory can be.

    Deflate adds 5 bytes to 16 KiB (RFC 1951, stored blocks); there are fewer spans than pages.
    """
    return manifest.pages * (PAGE + PAGE // 64) + MAX_MANIFEST + CHUNK


def _unpack(path: Path, f: BinaryIO, out: BinaryIO, pages: int, digest: Any) -> None:
    """Writes the pages to `out`, and compares the checksum at the end."""
    reader = _Reader(path, f, digest)
    seen = 0
    while (span := _SPAN.unpack(reader.take(_SPAN.size))) != (END, 0):
        page, count = span
        seen += count
        if page + count > pages or seen > pages or count == 0:
            raise SessionFileError(str(path), "it is damaged: pages outside its memory")
        for at in range(page, page + count, CHUNK // PAGE):
            some = min(CHUNK // PAGE, page + count - at)
            os.pwrite(out.fileno(), reader.take(some * PAGE), at * PAGE)
    reader.end()


class _Reader:
    """Decompressed bytes, as many at once as are asked for."""

    def __init__(self, path: Path, f: BinaryIO, digest: Any) -> None:
        self._path, self._f, self._digest = path, f, digest
        self._left = os.fstat(f.fileno()).st_size - f.tell() - DIGEST_BYTES
        self._unpacker = zlib.decompressobj()
        self._data = bytearray()
        self._more = False  # may the unpacker have more without more input?

    def _packed(self) -> bytes:
        piece = self._f.read(min(CHUNK, max(0, self._left)))
        self._left -= len(piece)
        self._digest.update(piece)
        return piece

    def take(self, count: int) -> bytes:
        while len(self._data) < count:
            piece = self._unpacker.unconsumed_tail or (b"" if self._more else self._packed())
            if self._unpacker.eof or not (piece or self._more):
                raise SessionFileError(str(self._path), "it is damaged: it ends too early")
            try:
                data = self._unpacker.decompress(piece, CHUNK)
            except zlib.error as e:
                raise SessionFileError(str(self._path), f"it is damaged: {e}") from None
            self._more = len(data) == CHUNK
            self._data += data
        found = bytes(self._data[:count])
        del self._data[:count]
        return found

    def end(self) -> None:
        """Reads to the end of the file.

        Raises:
            SessionFileError: The checksum differs, or there is more.
        """
        while self._left > 0:
            self._packed()
        if self._data or self._f.read() != self._digest.digest():
            raise SessionFileError(str(self._path), "it is damaged: its checksum is wrong")


def differences(theirs: dict[str, Any], ours: dict[str, Any]) -> list[str]:
    """What a saved state was made with, and is not there now; one line each."""
    found = []
    for key, what in _MADE_OF.items():
        if theirs.get(key) != ours.get(key):
            found.append(f"{what}: {_short(theirs.get(key))} there, {_short(ours.get(key))} here")
    return found


def _short(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 200 else text[:199] + "…"
