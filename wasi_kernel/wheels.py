"""Wheels: one of them, looked at and unpacked into a folder; nothing of it ever runs here.

A wheel comes as the file itself, or as the folder that uv made of it. Either is taken to be
hostile: every name, size and kind is looked at before the first byte is written, every byte is
compared with the wheel's own list (RECORD) while it is, and what is written are plain files at
names that stay below the folder. What does not belong into a guest's site-packages is left out:
scripts, headers and data, .pth files (which run at every start of an interpreter), caches of
bytecode, what installers note. Native libraries are refused: a wheel with one lied in its name.

The format: packaging.python.org, "Binary distribution format" and "Recording installed projects".

Never imports anything of Jupyter; reads nothing but the wheel, writes nothing but into the folder.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import os
import re
import unicodedata
import zipfile
import zlib
from typing import TYPE_CHECKING

from wasi_kernel.contents import TreeContents, ZipContents, check_directory, shown
from wasi_kernel.errors import HashMismatchError, WheelError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from wasi_kernel.contents import Contents

WHEEL_BYTES = 256 << 20
"""The largest wheel."""

UNPACKED_BYTES = 1 << 30
"""What all files of a wheel may have together."""

METADATA_BYTES = 8 << 20
"""How large RECORD, WHEEL and METADATA may be, each."""

_NATIVE = re.compile(r"\.(so|pyd|dylib|dll|node|wasm)(\.[0-9]+)*$", re.IGNORECASE)
_NOTED = frozenset({"INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json",
                    "uv_build.json", "RECORD", "RECORD.jws", "RECORD.p7s"})  # fmt: skip
_HASHES = ("sha256", "sha384", "sha512")
_CHUNK = 1 << 20


def tags_fit(filename: str, python: str) -> bool:
    """Can a guest with Python `python` ("3.15") use a wheel of this name: is it pure Python?"""
    from packaging.utils import InvalidWheelFilename, parse_wheel_filename

    try:
        tags = parse_wheel_filename(filename)[3]
    except InvalidWheelFilename:
        return False
    minor = int(python.split(".")[1])
    fit = {"py3", f"cp3{minor}", *(f"py3{k}" for k in range(minor + 1))}
    return any(t.abi == "none" and t.platform == "any" and t.interpreter in fit for t in tags)


def digest(wheel: Path) -> str:
    """SHA-256 of a file, hex."""
    with wheel.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def unpack(wheel: Path, folder: Path, name: str, version: str, sha256: str) -> list[str]:
    """Unpacks the file of a wheel; gives the names of what is in `folder` of it now.

    A file that is in `folder` already, of another wheel, stays as it is.

    Args:
        wheel: The file.
        folder: Where to; nobody else writes there.
        name: The distribution's, normalized.
        version: Its version, normalized.
        sha256: Of the file, hex.

    Raises:
        WheelError: It is refused; says why.
        HashMismatchError: It is another file.
    """
    try:
        with wheel.open("rb") as f:
            size = os.fstat(f.fileno()).st_size
            if size > WHEEL_BYTES:
                raise WheelError(wheel.name, f"it is larger than {WHEEL_BYTES} bytes")
            found = hashlib.file_digest(f, "sha256").hexdigest()
            if found != sha256:
                raise HashMismatchError(wheel.name, sha256, found)
            check_directory(f, wheel.name)
            with zipfile.ZipFile(f) as archive:
                contents = ZipContents(archive, wheel.name, size)
                return _Unpacking(contents, wheel.name, name, version).into(folder)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError) as e:
        raise WheelError(wheel.name, f"it is damaged: {e}") from e
    except OSError as e:
        raise WheelError(wheel.name, f"it cannot be unpacked: {e.strerror or e}") from e


def adopt(prefix: Path, folder: Path, filename: str, name: str, version: str) -> list[str]:
    """The same for a wheel that uv has installed, alone, below `prefix`.

    Raises:
        WheelError: It is refused; says why.
    """
    try:
        contents = TreeContents(prefix, filename)
        return _Unpacking(contents, filename, name, version).into(folder)
    except ValueError as e:
        raise WheelError(filename, f"it is damaged: {e}") from e
    except OSError as e:
        raise WheelError(filename, f"it cannot be read: {e.strerror or e}") from e


class _Unpacking:
    """One wheel on its way into a folder."""

    def __init__(self, contents: Contents, filename: str, name: str, version: str) -> None:
        self._contents, self._filename = contents, filename
        self._sizes = contents.sizes()
        if sum(self._sizes.values()) > UNPACKED_BYTES:
            raise WheelError(filename, f"its files have more than {UNPACKED_BYTES} bytes")
        self._check_file_name(name, version)
        self._info = self._dist_info(name, version)
        self._check_wheel()
        self._check_metadata(name, version)
        self._record = self._read_record()
        self._targets = self._check_targets(dict(self._plan()))

    def into(self, folder: Path) -> list[str]:
        """Writes the files, and a RECORD of what was written."""
        rows = []
        for name, target in self._targets.items():
            path = folder / target
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists():
                continue
            rows.append((target, *self._copy(name, path)))
        info = folder / self._info
        (info / "INSTALLER").write_text("wasi-kernel\n", encoding="utf-8")
        with (info / "RECORD").open("x", encoding="utf-8", newline="") as f:
            csv.writer(f, lineterminator="\n").writerows(
                [*rows, (f"{self._info}/INSTALLER", "", ""), (f"{self._info}/RECORD", "", "")]
            )
        return [target for target, *_ in rows]

    def _refuse(self, reason: str) -> WheelError:
        return WheelError(self._filename, reason)

    def _check_file_name(self, name: str, version: str) -> None:
        from packaging.utils import InvalidWheelFilename, parse_wheel_filename

        try:
            said_name, said_version, _, _ = parse_wheel_filename(self._filename)
        except InvalidWheelFilename as e:
            raise self._refuse(f"this is not how a wheel is named: {e}") from None
        if (said_name, str(said_version)) != (name, version):
            raise self._refuse(f"its name says {said_name} {said_version}, not {name} {version}")

    def _dist_info(self, name: str, version: str) -> str:
        tops = {n.split("/", 1)[0] for n in self._sizes if "/" in n}
        found = sorted(top for top in tops if top.endswith(".dist-info"))
        if len(found) != 1:
            raise self._refuse(f"it has {len(found)} folders .dist-info, not one")
        said = found[0].removesuffix(".dist-info")
        said_name, _, said_version = said.rpartition("-")
        if not _same(said_name, said_version, name, version):
            raise self._refuse(f"inside it is {shown(said)}, not {name} {version}")
        return found[0]

    def _text(self, name: str) -> str:
        full = f"{self._info}/{name}"
        if self._sizes.get(full, METADATA_BYTES + 1) > METADATA_BYTES:
            raise self._refuse(f"{name} is not there, or too large")
        with self._contents.open(full) as f:
            return f.read().decode("utf-8")

    def _headers(self, name: str) -> dict[str, list[str]]:
        from email.parser import HeaderParser

        found: dict[str, list[str]] = {}
        for key, value in HeaderParser().parsestr(self._text(name)).items():
            found.setdefault(key.lower(), []).append(str(value).strip())
        return found

    def _check_wheel(self) -> None:
        headers = self._headers("WHEEL")
        if not re.fullmatch(r"1\.[0-9]+", "".join(headers.get("wheel-version", []))):
            raise self._refuse("its format is not 1.x")
        if [v.lower() for v in headers.get("root-is-purelib", [])] != ["true"]:
            raise self._refuse("it says that it is not pure Python")
        for tag in headers.get("tag", []):
            if not tag.endswith("-none-any"):
                raise self._refuse(f"its name says pure Python, but inside it says {shown(tag)}")

    def _check_metadata(self, name: str, version: str) -> None:
        headers = self._headers("METADATA")
        said = headers.get("name", []), headers.get("version", [])
        if [len(values) for values in said] != [1, 1]:
            raise self._refuse("METADATA does not say its name and version")
        if not _same(said[0][0], said[1][0], name, version):
            raise self._refuse(f"it says that it is {shown(' '.join((*said[0], *said[1])))}, "
                               f"not {name} {version}")  # fmt: skip

    def _read_record(self) -> dict[str, tuple[str, str]]:
        """{name: (hash, size)} that the wheel lists, for all of its files."""
        listed: dict[str, tuple[str, str]] = {}
        try:
            rows = list(csv.reader(self._text("RECORD").splitlines(), strict=True))
        except csv.Error as e:
            raise self._refuse(f"RECORD is damaged: {e}") from None
        for row in filter(None, rows):
            if len(row) != 3:
                raise self._refuse("RECORD is damaged: a line has not three parts")
            name = row[0]
            if listed.setdefault(name, (row[1], row[2])) != (row[1], row[2]):
                raise self._refuse(f"RECORD lists {shown(name)} twice")
            inside = not name.startswith(("/", "../"))  # what an installer put elsewhere
            if inside and name not in self._sizes:
                raise self._refuse(f"{shown(name)} is missing")
        return listed

    def _plan(self) -> Iterator[tuple[str, str]]:
        """(name in the wheel, name in the folder) of all that is not left out."""
        data = self._info.removesuffix(".dist-info") + ".data"
        for name in self._sizes:
            top, _, rest = name.partition("/")
            if top == self._info:
                if rest not in _NOTED:
                    yield name, name
                continue
            if name not in self._record:
                raise self._refuse(f"RECORD does not list {shown(name)}")
            target = name
            if top == data:
                scheme, _, target = rest.partition("/")
                if scheme not in ("purelib", "platlib") or not target:
                    continue
                if target.split("/", 1)[0].endswith(".dist-info"):
                    raise self._refuse(f"{shown(name)} would replace what it says of itself")
            if _NATIVE.search(target):
                raise self._refuse(f"it has the native library {shown(name)}")
            if target.endswith(".pth") or "__pycache__" in target.split("/"):
                continue
            yield name, target

    def _check_targets(self, targets: dict[str, str]) -> dict[str, str]:
        """Checks that no two files meet at one name, on any file system."""
        taken: dict[str, str] = {}
        for target in targets.values():
            folded = unicodedata.normalize("NFC", target).casefold()
            if folded in taken:
                raise self._refuse(f"{shown(target)} and {shown(taken[folded])} "
                                   "are one name to some file systems")  # fmt: skip
            taken[folded] = target
        for folded, target in taken.items():
            parts = folded.split("/")
            if any("/".join(parts[:k]) in taken for k in range(1, len(parts))):
                raise self._refuse(f"{shown(target)} is in a folder that is a file")
        return targets

    def _copy(self, name: str, path: Path) -> tuple[str, int]:
        """Writes one file while comparing it with what RECORD says of it; gives hash and size."""
        algorithm, _, expected = self._record.get(name, ("", ""))[0].partition("=")
        if algorithm not in _HASHES:
            raise self._refuse(f"RECORD has no usable hash of {shown(name)}")
        theirs, ours = hashlib.new(algorithm), hashlib.sha256()
        left = self._sizes[name]
        with self._contents.open(name) as source, path.open("xb") as new:
            while chunk := source.read(_CHUNK):
                left -= len(chunk)
                if left < 0:
                    raise self._refuse(f"{shown(name)} is larger than it says")
                theirs.update(chunk)
                ours.update(chunk)
                new.write(chunk)
        size = self._sizes[name]
        if left or _encoded(theirs.digest()) != expected or self._record[name][1] not in (
            "", str(size)
        ):  # fmt: skip
            raise self._refuse(f"{shown(name)} is not what RECORD says")
        return f"sha256={_encoded(ours.digest())}", size


def _encoded(digested: bytes) -> str:
    return base64.urlsafe_b64encode(digested).rstrip(b"=").decode()


def _same(name: str, version: str, expected_name: str, expected_version: str) -> bool:
    from packaging.utils import canonicalize_name
    from packaging.version import InvalidVersion, Version

    try:
        return (canonicalize_name(name), Version(version)) == (
            expected_name, Version(expected_version),
        )  # fmt: skip
    except InvalidVersion:
        return False
