"""Archives: zip and tar files of CPython builds, unpacked as suspiciously as they deserve.

Every name, kind and size is looked at before it is written; what is written are plain files below
one folder. Links are refused, and whatever else is no file or folder, two files of one name, and
more than a build can have: files, bytes, or bytes for its size.

Never imports anything of Jupyter; nothing of an archive runs on the host.
"""

from __future__ import annotations

import os
import tarfile
import zipfile
import zlib
from typing import IO, TYPE_CHECKING

from wasi_kernel.contents import FILES, FREE_BYTES, RATIO, ZipContents, check_directory, check_name
from wasi_kernel.errors import RuntimeStoreError, WheelError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ARCHIVE_BYTES = 1 << 30
"""The largest archive."""

UNPACKED_BYTES = 2 << 30
"""What all files of an archive may have together."""

XZ_MEMORY_BYTES = 256 << 20
"""What unpacking may need (`xz -9` needs 65 MiB)."""

ENTRIES = FILES + 20_000
"""How many entries a tar file may have, folders included."""

HEADER_BYTES = 1 << 20
"""How large one read of a tar file's header may be (long names); files are read in such pieces."""

_MAGIC = {b"PK\3\4": "zip", b"PK\5\6": "zip", b"\x1f\x8b": "gz", b"BZh": "bz2", b"\xfd7zXZ": "xz"}
_USTAR_AT = 257
_ZSTD = b"\x28\xb5\x2f\xfd"


def kind(path: Path) -> str | None:
    """How a file is packed: "zip", "tar", "gz", "bz2" or "xz"; None: it is no archive.

    Raises:
        RuntimeStoreError: It is one that cannot be read here.
        OSError: It cannot be read.
    """
    with path.open("rb") as f:
        head = f.read(_USTAR_AT + 5)
    if head.startswith(_ZSTD):
        raise RuntimeStoreError(path.name, "it is packed with zstd; unpack it, and add the folder")
    if head[_USTAR_AT:] == b"ustar":
        return "tar"
    return next((name for magic, name in _MAGIC.items() if head.startswith(magic)), None)


def unpack(path: Path, folder: Path) -> None:
    """Unpacks an archive into `folder`, which is empty and nobody else's.

    Raises:
        RuntimeStoreError: It is refused, or damaged; says why.
        OSError: There is no room, or it cannot be read.
    """
    packed = kind(path)
    size = path.stat().st_size
    if size > ARCHIVE_BYTES:
        raise RuntimeStoreError(path.name, f"it is larger than {ARCHIVE_BYTES} bytes")
    try:
        if packed == "zip":
            _unpack_zip(path, folder, size)
        elif packed == "tar":
            _unpack_tar(path, folder, path.name)
        else:
            plain = folder / ".tar"
            _decompress(path, packed or "", plain, size)
            _unpack_tar(plain, folder, path.name)
            plain.unlink()
    except WheelError as e:  # contents.py speaks of wheels
        raise RuntimeStoreError(path.name, e.reason) from None
    except (
        zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, NotImplementedError, ValueError,
    ) as e:  # fmt: skip
        raise RuntimeStoreError(path.name, f"the archive is damaged: {e}") from e


def _unpack_zip(path: Path, folder: Path, size: int) -> None:
    with path.open("rb") as f:
        check_directory(f, path.name)
        with zipfile.ZipFile(f) as archive:
            contents = ZipContents(archive, path.name, size)
            sizes = contents.sizes()
            _check_total(path.name, sum(sizes.values()))
            for name, expected in sizes.items():
                with contents.open(name) as source:
                    _write(path.name, folder, name, source, expected)


def _check_total(filename: str, total: int) -> None:
    if total > UNPACKED_BYTES:
        raise RuntimeStoreError(filename, f"its files have more than {UNPACKED_BYTES} bytes")


def _decompress(path: Path, packed: str, plain: Path, size: int) -> None:
    """Writes the tar file that is packed in `path` to `plain`."""
    left = min(UNPACKED_BYTES, FREE_BYTES + RATIO * size)
    with plain.open("xb") as new:
        for chunk in _chunks(path, packed):
            left -= len(chunk)
            if left < 0:
                raise RuntimeStoreError(path.name, "it is far larger unpacked than a build can be")
            new.write(chunk)
    if kind(plain) != "tar":
        raise RuntimeStoreError(path.name, "what is packed in it is no tar file")


def _chunks(path: Path, packed: str) -> Iterator[bytes]:
    import bz2
    import gzip
    import lzma

    with path.open("rb") as f:
        if packed in ("gz", "bz2"):
            opened = gzip.GzipFile(fileobj=f) if packed == "gz" else bz2.BZ2File(f)
            with opened:
                try:
                    while chunk := opened.read(HEADER_BYTES):
                        yield chunk
                except OSError as e:
                    if e.errno is None:  # gzip's own, of its content
                        raise ValueError(str(e)) from e
                    raise
            return
        unpacker = lzma.LZMADecompressor(lzma.FORMAT_XZ, XZ_MEMORY_BYTES)
        try:
            while not unpacker.eof:
                data = f.read(HEADER_BYTES) if unpacker.needs_input else b""
                if unpacker.needs_input and not data:
                    raise EOFError("it ends too early")
                yield unpacker.decompress(data, HEADER_BYTES)
        except lzma.LZMAError as e:
            raise ValueError(str(e)) from e


class _Bounded:
    """A file whose reads are bounded: tarfile reads a header's extension at the size it claims."""

    def __init__(self, f: IO[bytes]) -> None:
        self._f = f
        self.seek, self.tell = f.seek, f.tell

    def read(self, count: int) -> bytes:
        if count > HEADER_BYTES:
            raise ValueError("it has an enormous header")
        return self._f.read(count)


def _unpack_tar(path: Path, folder: Path, filename: str) -> None:
    entries, total, taken = 0, 0, set[str]()
    with path.open("rb") as f, tarfile.open(fileobj=_Bounded(f), mode="r:") as archive:  # type: ignore[call-overload]  # what it needs of a file
        for member in archive:
            entries += 1
            archive.members = []  # tarfile keeps them all: not needed, and unbounded
            name = member.name.removeprefix("./")
            if entries > ENTRIES:
                raise RuntimeStoreError(filename, f"it has more than {ENTRIES} entries")
            if member.isdir():
                continue
            if not member.isreg() or member.sparse is not None:
                what = "a link" if member.issym() or member.islnk() else "a special file"
                raise RuntimeStoreError(filename, f"{name[:100]!a} is {what}")
            check_name(name, filename)
            if name in taken:
                raise RuntimeStoreError(filename, f"{name[:100]!a} is in it twice")
            taken.add(name)
            total += member.size
            _check_total(filename, total)
            source = archive.extractfile(member)
            assert source is not None  # noqa: S101 - a plain file
            _write(filename, folder, name, source, member.size)


def _write(filename: str, folder: Path, name: str, source: IO[bytes], expected: int) -> None:
    """Writes one file, of just the size that it was announced with."""
    target, left = folder / name, expected
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        new = target.open("xb")
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        raise RuntimeStoreError(filename, f"{name[:100]!a} is in it twice") from None
    with new:
        while chunk := source.read(HEADER_BYTES):
            left -= len(chunk)
            if left < 0:
                break
            new.write(chunk)
    if left:
        raise RuntimeStoreError(filename, f"{name[:100]!a} has not the size that it says")
    os.chmod(target, 0o600)
