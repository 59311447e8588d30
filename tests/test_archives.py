"""Shows that archives are unpacked as they are, or refused whole: names that lead elsewhere, links,
devices, bombs, damage."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from typing import TYPE_CHECKING

import pytest

from wasi_kernel import archives
from wasi_kernel.errors import RuntimeStoreError

if TYPE_CHECKING:
    from pathlib import Path

FILES = {"python.wasm": b"\0asm\1\0\0\0", "lib/python3.12/os.py": b"import sys\n" * 1000}


def as_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as z:
        for name, data in files.items():
            z.writestr(name, data)
    return path


def as_tar(path: Path, *members: tarfile.TarInfo | tuple[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as t:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                t.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                t.addfile(info, io.BytesIO(member[1]))
    return path


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def unpacked(path: Path, tmp_path: Path) -> dict[str, bytes]:
    (folder := tmp_path / "out").mkdir()
    archives.unpack(path, folder)
    found = [p for p in folder.rglob("*") if p.is_file()]
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in found}


def refused(path: Path, tmp_path: Path) -> str:
    (folder := tmp_path / "box" / "out").mkdir(parents=True)
    with pytest.raises(RuntimeStoreError) as caught:
        archives.unpack(path, folder)
    assert [p.name for p in (tmp_path / "box").iterdir()] == ["out"]
    assert not any(p.is_symlink() for p in folder.rglob("*"))
    return caught.value.reason


@pytest.mark.parametrize("mode", ["zip", "w", "w:gz", "w:bz2", "w:xz"])
def test_all_kinds_are_unpacked(tmp_path: Path, mode: str):
    path = tmp_path / "build"  # what it is, is told by its content
    if mode == "zip":
        as_zip(path, FILES)
    else:
        as_tar(path, special("lib", tarfile.DIRTYPE), *FILES.items(), mode=mode)
    assert unpacked(path, tmp_path) == FILES


def test_a_tar_file_whose_names_begin_with_a_dot(tmp_path: Path):
    path = as_tar(tmp_path / "a.tar", ("./python.wasm", b"x"))
    assert unpacked(path, tmp_path) == {"python.wasm": b"x"}


HOSTILE_NAMES = ("../out.py", "lib/../../out.py", "/opt/out.py", "a\\..\\b", "C:/x", "a//b", "\n")


@pytest.mark.parametrize("name", HOSTILE_NAMES)
@pytest.mark.parametrize("pack", ["zip", "tar"])
def test_names_that_lead_elsewhere(tmp_path: Path, pack: str, name: str):
    path = tmp_path / "a"
    if pack == "zip":
        as_zip(path, {"python.wasm": b"", name: b"x"})
    else:
        as_tar(path, ("python.wasm", b""), (name, b"x"))
    assert "elsewhere" in (said := refused(path, tmp_path)) or "no plain name" in said


@pytest.mark.parametrize(
    ("member", "what"),
    [
        (special("lib", tarfile.SYMTYPE, "/etc"), "a link"),
        (special("os.py", tarfile.LNKTYPE, "../../etc/passwd"), "a link"),
        (special("fifo", tarfile.FIFOTYPE), "a special file"),
        (special("null", tarfile.CHRTYPE), "a special file"),
    ],
)
def test_links_and_devices_in_a_tar_file(tmp_path: Path, member: tarfile.TarInfo, what: str):
    path = as_tar(tmp_path / "a.tar", ("python.wasm", b""), member, (f"{member.name}/x", b"y"))
    assert what in refused(path, tmp_path)


def test_a_link_in_a_zip_file(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as z:
        info = zipfile.ZipInfo("lib")
        info.external_attr = 0o120777 << 16
        z.writestr(info, "/etc")
    assert "is a link" in refused(tmp_path / "a.zip", tmp_path)


@pytest.mark.parametrize("second", ["python.wasm", "python.wasm/x"])
def test_two_files_at_one_place(tmp_path: Path, second: str):
    path = as_tar(tmp_path / "a.tar", ("python.wasm", b"1"), (second, b"2"))
    assert "twice" in refused(path, tmp_path)


def test_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    as_zip(tmp_path / "a.zip", {"python.wasm": bytes(100 << 20)})
    assert "times larger" in refused(tmp_path / "a.zip", tmp_path / "1")
    with gzip.open(tmp_path / "a.tar.gz", "wb") as f:
        f.write(bytes(100 << 20))
    assert "far larger" in refused(tmp_path / "a.tar.gz", tmp_path / "2")
    monkeypatch.setattr(archives, "UNPACKED_BYTES", 1000)
    path = as_tar(tmp_path / "b.tar", ("a", bytes(600)), ("b", bytes(600)))
    assert "more than 1000 bytes" in refused(path, tmp_path / "3")
    monkeypatch.setattr(archives, "ENTRIES", 3)
    path = as_tar(tmp_path / "c.tar", *((f"{k}", b"") for k in range(5)))
    assert "more than 3 entries" in refused(path, tmp_path / "4")
    monkeypatch.setattr(archives, "ARCHIVE_BYTES", 1000)
    assert "larger than 1000" in refused(tmp_path / "b.tar", tmp_path / "5")


def test_a_tar_file_that_claims_more_than_it_has(tmp_path: Path):
    info = tarfile.TarInfo("python.wasm")
    info.size = 1 << 30
    (tmp_path / "a.tar").write_bytes(info.tobuf() + bytes(2048))
    assert refused(tmp_path / "a.tar", tmp_path)


def test_a_header_that_claims_to_be_enormous(tmp_path: Path):
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 1 << 30
    (tmp_path / "a.tar").write_bytes(info.tobuf(tarfile.USTAR_FORMAT) + bytes(2048))
    assert "enormous header" in refused(tmp_path / "a.tar", tmp_path)


@pytest.mark.parametrize("mode", ["zip", "w:gz", "w:bz2", "w:xz", "w"])
@pytest.mark.parametrize("how", ["cut", "changed"])
def test_damaged_ones(tmp_path: Path, mode: str, how: str):
    path = tmp_path / "a"
    if mode == "zip":
        as_zip(path, FILES)
    else:
        as_tar(path, *FILES.items(), mode=mode)
    data = bytearray(path.read_bytes())
    if how == "cut":
        del data[len(data) // 2 :]
    else:
        data[60:100] = bytes(40) if mode != "w" else b"\xff" * 40
    path.write_bytes(data)
    assert refused(path, tmp_path)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", None), (b"\0asm\1\0\0\0", None), (b"PK\3\4", "zip"), (b"\x1f\x8b\x08", "gz"),
        (b"BZh9", "bz2"), (b"\xfd7zXZ\0", "xz"), (bytes(257) + b"ustar\0", "tar"),
    ],
)  # fmt: skip
def test_kinds_are_told_by_content(tmp_path: Path, data: bytes, kind: str | None):
    (tmp_path / "a").write_bytes(data)
    assert archives.kind(tmp_path / "a") == kind


def test_zstd_is_named(tmp_path: Path):
    (tmp_path / "a.tar.zst").write_bytes(b"\x28\xb5\x2f\xfd" + bytes(300))
    assert "zstd" in refused(tmp_path / "a.tar.zst", tmp_path)
