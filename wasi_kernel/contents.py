"""Contents of wheels: which files there are, looked at before any of them is read.

Two sources are alike here: the zip that a wheel is, and the folder that an installer made of it.
Names that lead elsewhere, or mean something else on another system, are refused, and everything
that is not a plain file or folder; so is a zip that says two things, or says that it is enormous.

Never imports anything of Jupyter; writes nothing.
"""

from __future__ import annotations

import os
import stat
import zipfile
from pathlib import Path
from typing import IO, Protocol

from wasi_kernel.errors import WheelError

FILES = 60_000
"""How many files a wheel may have; a zip with more than 65534 has another format."""

RATIO = 200
"""How many times larger than the wheel its files may be, beyond the first `FREE_BYTES`."""

FREE_BYTES = 16 << 20

NAME_BYTES = 1024


class Contents(Protocol):
    """What a wheel holds."""

    def sizes(self) -> dict[str, int]:
        """{name: bytes} of its files, names with / and checked to lead nowhere else."""

    def open(self, name: str) -> IO[bytes]:
        """The content of one of them."""


def check_directory(f: IO[bytes], filename: str) -> None:
    """Looks at how many entries a zip says it has, before all of them are read."""
    size = f.seek(0, os.SEEK_END)
    f.seek(max(0, size - 65_577))  # a locator, the end record, the longest comment after it
    tail = f.read()
    at = tail.rfind(b"PK\5\6")
    record = tail[at : at + 22]
    if at < 0 or len(record) < 22:
        raise WheelError(filename, "it is no zip file")
    if tail[max(0, at - 20) : at].startswith(b"PK\6\7"):
        raise WheelError(filename, "it is a zip64 file, which only enormous ones need to be")
    count = int.from_bytes(record[10:12], "little")
    directory_bytes = int.from_bytes(record[12:16], "little")
    if count > FILES or directory_bytes > FILES * 256:
        raise WheelError(filename, f"it has more than {FILES} files")
    f.seek(0)


class ZipContents:
    """The contents of a wheel's file."""

    def __init__(self, archive: zipfile.ZipFile, filename: str, size: int) -> None:
        self._archive, self._infos = archive, dict[str, zipfile.ZipInfo]()
        entries = archive.infolist()
        if len(entries) > FILES:
            raise WheelError(filename, f"it has more than {FILES} files")
        for info in entries:
            raw = info.orig_filename
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFDIR if raw.endswith("/") else stat.S_IFREG):
                raise WheelError(filename, f"{shown(raw)} is a link or a special file")
            if info.flag_bits & 1:
                raise WheelError(filename, f"{shown(raw)} is encrypted")
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise WheelError(filename, f"{shown(raw)} is compressed in an unusual way")
            check_name(raw.removesuffix("/"), filename)
            if raw.endswith("/"):
                continue
            if raw in self._infos:
                raise WheelError(filename, f"{shown(raw)} is in it twice")
            self._infos[raw] = info
        total = sum(info.file_size for info in self._infos.values())
        if total > FREE_BYTES + RATIO * size:
            raise WheelError(filename, f"its files are more than {RATIO} times larger than it is")

    def sizes(self) -> dict[str, int]:
        """See `Contents`."""
        return {name: info.file_size for name, info in self._infos.items()}

    def open(self, name: str) -> IO[bytes]:
        """See `Contents`."""
        return self._archive.open(self._infos[name])


class TreeContents:
    """The contents of a folder that an installer made of one wheel."""

    def __init__(self, prefix: Path, filename: str) -> None:
        found = sorted(prefix.glob("*/python*/*-packages/*.dist-info"))
        found += sorted(prefix.glob("*/*/python*/*-packages/*.dist-info"))  # Debian's `local`
        if len(found) != 1:
            raise WheelError(filename, "it has not one folder .dist-info, but another number")
        self._site, self._sizes = found[0].parent, dict[str, int]()
        for folder, names, files in os.walk(self._site):
            for each in (*names, *files):
                path = Path(folder, each)
                name = path.relative_to(self._site).as_posix()
                state = path.lstat()
                kind = stat.S_IFMT(state.st_mode)
                if kind != (stat.S_IFDIR if each in names else stat.S_IFREG):
                    raise WheelError(filename, f"{shown(name)} is a link or a special file")
                check_name(name, filename)
                if each in files:
                    self._sizes[name] = state.st_size
                if len(self._sizes) > FILES:
                    raise WheelError(filename, f"it has more than {FILES} files")

    def sizes(self) -> dict[str, int]:
        """See `Contents`."""
        return self._sizes

    def open(self, name: str) -> IO[bytes]:
        """See `Contents`."""
        return (self._site / name).open("rb")


def check_name(name: str, filename: str) -> None:
    """Checks that a name inside an archive is below where it is put, on any system.

    Raises:
        WheelError: It is not, or is no plain name.
    """
    parts = name.split("/")
    try:
        long = len(name.encode()) > NAME_BYTES or any(len(p.encode()) > 255 for p in parts)
    except UnicodeEncodeError:
        long = True
    if long or not name.isprintable() or "\\" in name or ":" in name:
        raise WheelError(filename, f"{shown(name)} is no plain name of a file")
    if any(part in ("", ".", "..") for part in parts):
        raise WheelError(filename, f"{shown(name)} leads elsewhere")


def shown(name: str) -> str:
    """A name from a wheel, as it can be shown."""
    return ascii(name if len(name) <= 100 else name[:100] + "...")
