"""Shows that a wheel is unpacked as it says, and that one that lies or attacks leaves nothing.

The wheels are made here, most of them hostile in one way.
"""

from __future__ import annotations

import base64
import hashlib
import stat
import zipfile
from typing import TYPE_CHECKING, Any

import pytest

from wasi_kernel import contents, wheels
from wasi_kernel.errors import HashMismatchError, WheelError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

INFO = "made-1.0.dist-info"
DATA = "made-1.0.data"
FILE = "made-1.0-py3-none-any.whl"
METADATA = b"Metadata-Version: 2.1\nName: made\nVersion: 1.0\n"
WHEEL = b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def row(name: str, content: bytes, algorithm: str = "sha256") -> str:
    digest = base64.urlsafe_b64encode(hashlib.new(algorithm, content).digest())
    return f"{name},{algorithm}={digest.rstrip(b'=').decode()},{len(content)}\n"


def files_of(
    files: dict[str, bytes] | None = None,
    *,
    metadata: bytes = METADATA,
    wheel: bytes = WHEEL,
    info: str = INFO,
    record: Callable[[str], str] = str,
) -> dict[str, bytes]:
    """All files of a wheel, RECORD last, which `record` may change."""
    content = {**(files or {"made/__init__.py": b"x = 1\n"})}
    content |= {f"{info}/METADATA": metadata, f"{info}/WHEEL": wheel}
    rows = "".join(row(*each) for each in content.items()) + f"{info}/RECORD,,\n"
    return {**content, f"{info}/RECORD": record(rows).encode()}


def pack(folder: Path, files: dict[str, bytes], name: str = FILE, **kind: Any) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for each, content in files.items():
            info = zipfile.ZipInfo(each)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = kind.get("modes", {}).get(each, 0o100644) << 16
            archive.writestr(info, content)
    return path


def unpack(wheel: Path, folder: Path) -> list[str]:
    folder.mkdir(exist_ok=True)
    return wheels.unpack(wheel, folder, "made", "1.0", wheels.digest(wheel))


def tree(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return tmp_path / "outer" / "site"


@pytest.fixture(autouse=True)
def outer(site: Path) -> None:
    site.parent.mkdir()


# -- good wheels ---------------------------------------------------------------------------------


def test_a_wheel_is_unpacked(tmp_path: Path, site: Path):
    wheel = pack(tmp_path / "w", files_of({"made/__init__.py": b"x = 1\n", "made/a b.txt": b""}))
    unpack(wheel, site)
    assert (site / "made/__init__.py").read_bytes() == b"x = 1\n"
    own = {f"{INFO}/{n}" for n in ("METADATA", "WHEEL", "RECORD", "INSTALLER")}
    assert tree(site) == {"made/__init__.py", "made/a b.txt", *own}
    assert (site / INFO / "INSTALLER").read_text() == "wasi-kernel\n"
    listed = {line.split(",")[0] for line in (site / INFO / "RECORD").read_text().splitlines()}
    assert listed == tree(site)


def test_modes_are_plain(tmp_path: Path, site: Path):
    modes = {"made/__init__.py": 0o104777}
    unpack(pack(tmp_path / "w", files_of(), modes=modes), site)
    assert stat.S_IMODE((site / "made/__init__.py").stat().st_mode) & 0o7111 == 0


def test_what_does_not_belong_there_is_left_out(tmp_path: Path, site: Path):
    wheel = pack(
        tmp_path / "w",
        files_of(
            {
                "made.py": b"",
                "made.pth": b"import os",
                "sub/made.pth": b"import os",
                "__pycache__/made.cpython-315.pyc": b"\0",
                f"{DATA}/scripts/made": b"#!python\n",
                f"{DATA}/headers/made.h": b"",
                f"{DATA}/data/share/made": b"",
                f"{DATA}/data/lib/evil.so": b"",
                f"{DATA}/purelib/pure.py": b"1",
                f"{DATA}/purelib/x.pth": b"1",
                f"{DATA}/platlib/sub/plat.py": b"2",
                f"{INFO}/INSTALLER": b"x",
                f"{INFO}/direct_url.json": b"{}",
                f"{INFO}/licenses/LICENSE": b"free",
            }
        ),
    )
    unpack(wheel, site)
    assert tree(site) == {
        "made.py", "pure.py", "sub/plat.py", f"{INFO}/licenses/LICENSE",
        *(f"{INFO}/{n}" for n in ("METADATA", "WHEEL", "RECORD", "INSTALLER")),
    }  # fmt: skip
    assert (site / INFO / "INSTALLER").read_text() == "wasi-kernel\n"


def test_folders_names_and_strong_hashes_are_taken_as_they_come(tmp_path: Path, site: Path):
    def strong(rows: str) -> str:
        return rows.replace(row("made.py", b"1"), row("made.py", b"1", "sha512"))

    files = {"sub/": b"", **files_of({"made.py": b"1"}, record=strong)}
    unpack(pack(tmp_path / "w", files, modes={"sub/": 0o040755}), site)
    assert (site / "made.py").is_file()
    other = files_of(
        info="Made.Up-1.0.0.dist-info", metadata=METADATA.replace(b"Name: made", b"Name: MADE-up")
    )
    wheel = pack(tmp_path / "w", other, "made_up-1.0-py2.py3-none-any.whl")
    assert wheels.unpack(wheel, site, "made-up", "1.0", wheels.digest(wheel))


def test_a_file_of_another_wheel_stays(tmp_path: Path, site: Path):
    (site / "made").mkdir(parents=True)
    (site / "made/__init__.py").write_text("first")
    assert "made/__init__.py" not in unpack(pack(tmp_path / "w", files_of()), site)
    assert (site / "made/__init__.py").read_text() == "first"
    assert "made/__init__.py" not in (site / INFO / "RECORD").read_text()


@pytest.mark.parametrize(
    ("name", "fits"),
    [
        ("a-1-py3-none-any.whl", True),
        ("a-1-py2.py3-none-any.whl", True),
        ("a-1-py315-none-any.whl", True),
        ("a-1-py311-none-any.whl", True),
        ("a-1-cp315-none-any.whl", True),
        ("a-1-7-py3-none-any.whl", True),
        ("a-1-py316-none-any.whl", False),
        ("a-1-py2-none-any.whl", False),
        ("a-1-cp314-none-any.whl", False),
        ("a-1-py3-abi3-any.whl", False),
        ("a-1-py3-none-manylinux_2_28_x86_64.whl", False),
        ("a-1-cp315-cp315-wasi_0_0_0_wasm32.whl", False),
        ("a-1.tar.gz", False),
        ("a.whl", False),
    ],
)
def test_which_wheels_are_pure(name: str, *, fits: bool):
    assert wheels.tags_fit(name, "3.15") is fits


# -- liars ---------------------------------------------------------------------------------------

FILES = {"made/__init__.py": b"x = 1\n"}
LIARS: dict[str, tuple[dict[str, bytes], str]] = {
    "another name inside": (
        files_of(metadata=METADATA.replace(b"made", b"other")),
        "it says that it is 'other 1.0', not made 1.0",
    ),
    "another version inside": (
        files_of(metadata=METADATA.replace(b"1.0", b"1.1")),
        "it says that it is 'made 1.1', not made 1.0",
    ),
    "two names": (files_of(metadata=METADATA + b"Name: made\n"), "METADATA does not say"),
    "no version": (files_of(metadata=b"Name: made\n"), "METADATA does not say"),
    "an invalid version": (
        files_of(metadata=METADATA.replace(b"1.0", b"x")),
        "it says that it is 'made x'",
    ),
    "another folder": (files_of(info="other-1.0.dist-info"), "inside it is 'other-1.0'"),
    "another folder's version": (files_of(info="made-2.dist-info"), "inside it is 'made-2'"),
    "two folders": ({**files_of(), "b-1.dist-info/METADATA": b""}, "2 folders .dist-info"),
    "no folder": ({"made.py": b""}, "0 folders .dist-info"),
    "format 2": (files_of(wheel=WHEEL.replace(b"1.0", b"2.0")), "its format is not 1.x"),
    "no format": (files_of(wheel=b"Root-Is-Purelib: true\n"), "its format is not 1.x"),
    "not pure": (files_of(wheel=WHEEL.replace(b"true", b"false")), "it is not pure Python"),
    "not said": (files_of(wheel=b"Wheel-Version: 1.0\n"), "it is not pure Python"),
    "native tag": (files_of(wheel=WHEEL + b"Tag: cp315-cp315-linux_x86_64\n"), "inside it says"),
    "no METADATA": (
        {k: v for k, v in files_of(record=lambda r: r.replace(row(f"{INFO}/METADATA", METADATA),
                                                              "")).items()
         if not k.endswith("METADATA")},
        "METADATA is not there",
    ),
    "no RECORD": (
        {k: v for k, v in files_of().items() if not k.endswith("RECORD")},
        "RECORD is not there",
    ),
    "unlisted file": ({"evil.py": b"", **files_of()}, "RECORD does not list 'evil.py'"),
    "missing file": (files_of(record=lambda r: r + row("gone.py", b"")), "'gone.py' is missing"),
    "changed file": ({**files_of(), "made/__init__.py": b"x = 2\n"}, "is not what RECORD says"),
    "wrong size": (
        files_of(record=lambda r: r.replace(",6\n", ",7\n")),
        "'made/__init__.py' is not what RECORD says",
    ),
    "no hash": (
        files_of(record=lambda r: r.replace(row(*next(iter(FILES.items()))),
                                            "made/__init__.py,,\n")),
        "no usable hash",
    ),
    "weak hash": (
        files_of(record=lambda r: r.replace(row("made/__init__.py", b"x = 1\n"),
                                            row("made/__init__.py", b"x = 1\n", "md5"))),
        "no usable hash",
    ),
    "listed twice": (
        files_of(record=lambda r: r + row("made/__init__.py", b"y")),
        "lists 'made/__init__.py' twice",
    ),
    "no table": (files_of(record=lambda r: r + "x\n"), "not three parts"),
    "a quote without end": (files_of(record=lambda r: r + '"x\n'), "RECORD is damaged"),
    "no text": ({**files_of(), f"{INFO}/RECORD": b"\xff"}, "it is damaged"),
    "replaces its own folder": (
        files_of({f"{DATA}/purelib/{INFO}/METADATA": b""}),
        "would replace what it says of itself",
    ),
    "native library": (files_of({"made/_fast.so": b""}), "native library 'made/_fast.so'"),
    "versioned library": (files_of({"made.libs/libx.so.1.2": b""}), "native library"),
    "library in data": (files_of({f"{DATA}/platlib/x.PYD": b""}), "native library"),
    "other libraries": (files_of({"x.dylib": b""}), "native library 'x.dylib'"),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIARS)
def test_a_liar_is_refused(tmp_path: Path, site: Path, lie: str):
    files, reason = LIARS[lie]
    with pytest.raises(WheelError) as e:
        unpack(pack(tmp_path / "w", files), site)
    assert reason in str(e.value)
    assert e.value.wheel == FILE


@pytest.mark.parametrize("name", ["other-1.0-py3-none-any.whl", "made-1.1-py3-none-any.whl"])
def test_a_file_name_that_says_something_else(tmp_path: Path, site: Path, name: str):
    with pytest.raises(WheelError, match=r"its name says .*, not made 1\.0"):
        unpack(pack(tmp_path / "w", files_of(), name), site)
    assert tree(site) == set()


def test_another_file_than_was_resolved(tmp_path: Path, site: Path):
    wheel = pack(tmp_path / "w", files_of())
    found = wheels.digest(wheel)
    with pytest.raises(HashMismatchError) as e:
        wheels.unpack(wheel, site, "made", "1.0", "0" * 64)
    assert (e.value.expected, e.value.found, e.value.wheel) == ("0" * 64, found, FILE)
    assert not site.exists()


# -- attacks -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "../evil.py", "made/../../evil.py", "/evil.py", "//evil.py", "made//evil.py",
        "./evil.py", "made/./evil.py", "C:/evil.py", "C:evil.py", "made\\evil.py", "..\\evil.py",
        "evil\n.py", "evil\N{RIGHT-TO-LEFT OVERRIDE}.py", "a" * 300, "a/" * 600 + "a",
        "evil.py:stream", "..",
    ],
)  # fmt: skip
def test_a_name_that_leads_elsewhere(tmp_path: Path, site: Path, name: str):
    with pytest.raises(WheelError, match=r"leads elsewhere|no plain name"):
        unpack(pack(tmp_path / "w", files_of({name: b"evil"})), site)
    assert tree(site.parent) == set()


def test_a_name_with_an_end_inside(tmp_path: Path, site: Path):
    wheel = pack(tmp_path / "w", files_of({"evilX.py": b""}))
    wheel.write_bytes(wheel.read_bytes().replace(b"evilX.py", b"evil\0.py"))
    with pytest.raises(WheelError, match="no plain name"):
        unpack(wheel, site)


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFDIR])
def test_links_and_special_files(tmp_path: Path, site: Path, kind: int):
    files = files_of({"made/link": b"/etc/passwd"})
    wheel = pack(tmp_path / "w", files, modes={"made/link": kind | 0o777})
    with pytest.raises(WheelError, match="'made/link' is a link or a special file"):
        unpack(wheel, site)
    assert tree(site) == set()


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_is_there_twice(tmp_path: Path, site: Path):
    wheel = pack(tmp_path / "w", files_of())
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("made/__init__.py", b"evil")
    with pytest.raises(WheelError, match="is in it twice"):
        unpack(wheel, site)


@pytest.mark.parametrize(
    "names",
    [
        ("made/A.py", "made/a.py"),
        ("made/stra\u00dfe.py", "made/STRASSE.py"),
        ("made/\u00e9.py", "made/e\u0301.py"),
        ("made", "made/a.py"),
        ("Made", "made/a.py"),
        ("made/a.py", f"{DATA}/purelib/made/A.py"),
    ],
)
def test_names_that_are_one_to_some_file_systems(tmp_path: Path, site: Path, names: tuple[str]):
    with pytest.raises(WheelError, match=r"one name to some|a folder that is a file"):
        unpack(pack(tmp_path / "w", files_of(dict.fromkeys(names, b""))), site)
    assert tree(site) == set()


def test_a_bomb(tmp_path: Path, site: Path):
    size = contents.FREE_BYTES + (8 << 20)
    wheel = pack(tmp_path / "w", files_of({"made/zeros": bytes(size)}))
    assert wheel.stat().st_size * contents.RATIO < size
    with pytest.raises(WheelError, match="200 times larger"):
        unpack(wheel, site)
    assert tree(site) == set()


def test_a_file_larger_than_it_says(tmp_path: Path, site: Path):
    wheel = pack(tmp_path / "w", files_of({"made/long": b"a" * 1000}))
    data = bytearray(wheel.read_bytes())
    for mark, at in ((b"PK\3\4", 22), (b"PK\1\2", 24)):
        start = data.index(mark)
        assert data[start + at : start + at + 4] == (1000).to_bytes(4, "little")
        data[start + at : start + at + 4] = (10).to_bytes(4, "little")
    wheel.write_bytes(data)
    with pytest.raises(WheelError, match="damaged"):
        unpack(wheel, site)


@pytest.mark.parametrize(("name", "limit"), [("UNPACKED_BYTES", 5), ("WHEEL_BYTES", 100)])
def test_what_is_too_large(
    tmp_path: Path, site: Path, monkeypatch: pytest.MonkeyPatch, name: str, limit: int
):
    monkeypatch.setattr(wheels, name, limit)
    with pytest.raises(WheelError, match=f"more than {limit}|larger than {limit}"):
        unpack(pack(tmp_path / "w", files_of()), site)


def test_too_many_files(tmp_path: Path, site: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(contents, "FILES", 3)
    with pytest.raises(WheelError, match="more than 3 files"):
        unpack(pack(tmp_path / "w", files_of()), site)


def test_a_directory_that_is_larger_than_the_zip_says(tmp_path: Path, site: Path):
    wheel = pack(tmp_path / "w", files_of())
    data = bytearray(wheel.read_bytes())
    data[-22:-22] = b"PK\6\7" + bytes(16)  # where to find a second directory, of another format
    wheel.write_bytes(data)
    with pytest.raises(WheelError, match="zip64"):
        unpack(wheel, site)


@pytest.mark.parametrize("data", [b"", b"PK\5\6", b"no zip at all", b"PK\5\6" + bytes(18)])
def test_no_zip(tmp_path: Path, site: Path, data: bytes):
    wheel = tmp_path / FILE
    wheel.write_bytes(data)
    with pytest.raises(WheelError):
        unpack(wheel, site)


@pytest.mark.parametrize(("flag", "reason"), [(1, "encrypted"), (0, "unusual way")])
def test_unusual_zips(tmp_path: Path, site: Path, flag: int, reason: str):
    wheel = pack(tmp_path / "w", files_of())
    data = bytearray(wheel.read_bytes())
    start = data.index(b"PK\1\2")
    data[start + 8] |= flag
    data[start + 10] = 8 if flag else 14
    wheel.write_bytes(data)
    with pytest.raises(WheelError, match=reason):
        unpack(wheel, site)


def test_every_damaged_byte_is_refused_or_harmless(tmp_path: Path, site: Path):
    wheel = pack(tmp_path / "w", files_of())
    whole = wheel.read_bytes()
    for at in range(0, len(whole), 7):
        wheel.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        target = site.parent / str(at)
        try:
            unpack(wheel, target)
        except WheelError:
            continue
        assert (target / "made/__init__.py").read_bytes() == b"x = 1\n"
    assert {p.name for p in tmp_path.iterdir()} == {"w", "outer"}


# -- what an installer made of a wheel -----------------------------------------------------------


def install(prefix: Path, files: dict[str, bytes]) -> Path:
    site = prefix / "lib/python3.15/site-packages"
    for name, content in files.items():
        path = site / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return site


def test_an_installed_wheel_is_adopted(tmp_path: Path, site: Path):
    files = files_of(record=lambda r: r + "../../../bin/made,sha256=x,3\n" + row("x.py", b""))
    install(tmp_path / "p", {**files, "x.py": b"", f"{INFO}/REQUESTED": b""})
    wheels.adopt(tmp_path / "p", site, FILE, "made", "1.0")
    own = {f"{INFO}/{n}" for n in ("METADATA", "WHEEL", "RECORD", "INSTALLER")}
    assert tree(site) == {"made/__init__.py", "x.py", *own}


def test_an_adopted_wheel_is_looked_at_as_well(tmp_path: Path, site: Path):
    for k, (lie, (files, reason)) in enumerate(LIARS.items()):
        if f"{DATA}/" in "".join(files):
            continue  # an installer resolves them
        install(tmp_path / str(k), files)
        with pytest.raises(WheelError) as e:
            wheels.adopt(tmp_path / str(k), site.parent / str(k), FILE, "made", "1.0")
        assert reason in str(e.value) or "not one folder" in str(e.value), lie


def test_a_link_in_an_installed_wheel(tmp_path: Path, site: Path):
    made = install(tmp_path / "p", files_of(record=lambda r: r + row("link.py", b"secret")))
    (tmp_path / "secret").write_bytes(b"secret")
    (made / "link.py").symlink_to(tmp_path / "secret")
    with pytest.raises(WheelError, match=r"'link.py' is a link"):
        wheels.adopt(tmp_path / "p", site, FILE, "made", "1.0")
    (made / "link.py").unlink()
    (made / "linked").symlink_to(tmp_path)
    with pytest.raises(WheelError, match="'linked' is a link"):
        wheels.adopt(tmp_path / "p", site, FILE, "made", "1.0")
    assert tree(site.parent) == set()


def test_nothing_installed(tmp_path: Path, site: Path):
    with pytest.raises(WheelError, match="not one folder"):
        wheels.adopt(tmp_path, site, FILE, "made", "1.0")
