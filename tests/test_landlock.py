"""Shows what each version of Landlock's ABI restricts, with the real calls, and what it leaves.

A newer kernel restricts as little as an older one if it is asked for no more, so every version up
to this kernel's own is tried here.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from wasi_kernel import landlock

if TYPE_CHECKING:
    from pathlib import Path

VERSION = landlock.abi()
here = pytest.mark.skipif(not VERSION, reason="this machine's kernel has no Landlock")

TRY = """
import errno, json, os, socket, sys
from wasi_kernel import landlock
folder, version = sys.argv[1], int(sys.argv[2])
server = socket.create_server(("127.0.0.1", 0))
landlock.no_new_privileges()
rules = [(f"{folder}/ro", landlock.READ), (f"{folder}/rw", landlock.CHANGE),
         (f"{folder}/none", landlock.CHANGE)]
landlock.restrict(rules, version)
def read(path): return os.close(os.open(f"{folder}/{path}", os.O_RDONLY))
attempts = {
    "read": lambda: read("ro/file"),
    "read outside": lambda: read("file"),
    "write": lambda: os.close(os.open(f"{folder}/rw/file", os.O_RDWR | os.O_TRUNC)),
    "write read-only": lambda: os.close(os.open(f"{folder}/ro/file", os.O_RDWR)),
    "move within": lambda: os.rename(f"{folder}/rw/file", f"{folder}/rw/sub/file"),
    "cut read-only": lambda: os.truncate(f"{folder}/ro/file", 0),
    "connect": lambda: socket.socket().connect(server.getsockname()),
    "signal": lambda: os.kill(os.getppid(), 0),
}
found = {}
for name, attempt in attempts.items():
    try:
        found[name] = attempt()
    except OSError as e:
        found[name] = errno.errorcode[e.errno]
print(json.dumps(found))
"""

ALWAYS = {"read": None, "read outside": "EACCES", "write": None, "write read-only": "EACCES"}
SINCE: dict[str, tuple[int, str | None, str | None]] = {
    "move within": (2, "EXDEV", None),
    "cut read-only": (3, None, "EACCES"),
    "connect": (4, None, "EACCES"),
    "signal": (6, None, "EPERM"),
}
"""{attempt: (version, what it comes to before that version, and since)}."""


@here
@pytest.mark.parametrize("version", range(1, 8))
def test_what_a_version_restricts(tmp_path: Path, version: int):
    if version > VERSION:
        pytest.skip(f"this machine's kernel has version {VERSION}")
    for name in ("ro", "rw", "rw/sub"):
        (tmp_path / name).mkdir()
    for name in ("file", "ro/file", "rw/file"):
        (tmp_path / name).write_text("text")
    done = subprocess.run(
        [sys.executable, "-P", "-c", TRY, str(tmp_path), str(version)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    expected = ALWAYS | {
        name: (since if version >= first else before)
        for name, (first, before, since) in SINCE.items()
    }
    assert json.loads(done.stdout) == expected


@pytest.mark.parametrize(
    ("version", "files", "length"),
    [(1, 0x1FFF, 8), (2, 0x3FFF, 8), (3, 0x7FFF, 8), (4, 0x7FFF, 16), (5, 0xFFFF, 16),
     (6, 0xFFFF, 24), (7, 0xFFFF, 24), (9, 0xFFFF, 24)],
)  # fmt: skip
def test_what_a_version_is_told(version: int, files: int, length: int):
    """Sizes and rights as in include/uapi/linux/landlock.h of the versions' kernels."""
    given = landlock.attributes(version)
    assert len(given) == length
    assert int.from_bytes(given[:8], sys.byteorder) == files
    assert landlock.handled(version)[0] == files


def test_a_kernel_without_it_is_recognized(lacking: Any):
    found = []
    lacking((landlock.CREATE,), lambda: found.append(landlock.abi()))
    assert found == [0]


def test_what_cannot_be_done_is_an_error(lacking: Any):
    def restrict() -> None:
        with pytest.raises(OSError, match="Landlock"):
            landlock.restrict([], 1)

    lacking((landlock.RESTRICT,), restrict)
