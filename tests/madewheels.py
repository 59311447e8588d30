"""Wheels that tests make: small, valid, and of whatever they are to be."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def make(
    folder: Path,
    name: str,
    version: str = "1.0",
    requires: tuple[str, ...] = (),
    *,
    tag: str = "py3-none-any",
    headers: str = "",
    said: str = "",
    files: Mapping[str, str] | None = None,
) -> Path:
    """A wheel in `folder`, with one module where `files` does not say otherwise.

    Args:
        folder: Where it is put.
        name: Its distribution's name, in its file's name.
        version: Its version.
        requires: What it requires.
        tag: What it fits.
        headers: More lines of its metadata.
        said: The name that its metadata say, if another one.
        files: {name: text} of its files.
    """
    stem = f"{name}-{version}"
    metadata = f"Metadata-Version: 2.1\nName: {said or name}\nVersion: {version}\n{headers}"
    metadata += "".join(f"Requires-Dist: {each}\n" for each in requires)
    purelib = str(tag.endswith("none-any")).lower()
    contents = {
        **(files or {f"{name}.py": f"version = {version!r}\n"}),
        f"{stem}.dist-info/METADATA": metadata,
        f"{stem}.dist-info/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: {purelib}\nTag: {tag}\n",
    }
    rows = f"{stem}.dist-info/RECORD,,\n"
    for file, text in contents.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest())
        rows += f"{file},sha256={digest.rstrip(b'=').decode()},{len(text.encode())}\n"
    path = folder / f"{stem}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in {**contents, f"{stem}.dist-info/RECORD": rows}.items():
            archive.writestr(zipfile.ZipInfo(file), text)
    return path
