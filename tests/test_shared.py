"""Shows what is taken from a folder that an administrator has prepared, and what is not.

Which is everything that another user could have written: a compiled module is native code. That a
kernel starts with a shared module instead of compiling is shown with the real one.
"""

from __future__ import annotations

import os
import shutil
import stat
from typing import TYPE_CHECKING

import pytest

from wasi_kernel import Policy, Sandbox, caches, grants, shared
from wasi_kernel.caches import SEAL, Cache
from wasi_kernel.errors import PolicyError
from wasi_kernel.policy import Grant

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NAME = "x.cwasm"
SOMEONE = 12345
"""A user who is neither root nor this one."""


def _store(path: Path) -> Callable[[Path], dict[str, str]]:
    def write(new: Path) -> dict[str, str]:
        new.write_bytes(b"code")
        return {"wasm": str(path)}

    return write


@pytest.fixture
def common(tmp_path: Path) -> Path:
    """A folder as the deployment page says to make it, with one module."""
    made = Cache(tmp_path / "admin")
    made.store(made.folder("modules") / NAME, _store(tmp_path))
    home = tmp_path / "common"
    (home / "modules").mkdir(parents=True)
    for path in (made.path / "modules").iterdir():
        shutil.copyfile(path, home / "modules" / path.name)
        (home / "modules" / path.name).chmod(0o444)
    for path in (home, home / "modules"):
        path.chmod(0o755)
    return home


@pytest.fixture
def cache(common: Path, tmp_path: Path) -> Cache:
    return Cache(tmp_path / "own", shared=common)


def test_what_root_or_this_user_has_made_is_taken(cache: Cache, tmp_path: Path):
    path = cache.folder("modules") / NAME
    assert shared.take(cache, path)
    assert cache.load(path) == {"wasm": str(tmp_path)}
    assert path.read_bytes() == b"code"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.stat().st_nlink == 1  # a copy, which nobody else has


def test_nothing_else_is_taken(cache: Cache, tmp_path: Path):
    assert not shared.take(cache, cache.folder("modules") / "y.cwasm")
    assert not shared.take(cache, cache.folder("images") / NAME)
    assert not shared.take(Cache(tmp_path / "own"), cache.folder("modules") / NAME)


@pytest.mark.parametrize("what", ["modules", ".", f"modules/{NAME}", f"modules/{NAME}{SEAL}"])
@pytest.mark.parametrize("bits", [0o020, 0o002])
def test_what_others_can_write_is_not_taken(cache: Cache, common: Path, what: str, bits: int):
    place = common / what
    place.chmod(place.stat().st_mode | bits)
    path = cache.folder("modules") / NAME
    assert not shared.take(cache, path)
    assert not path.exists()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("what", ["modules", ".", f"modules/{NAME}", f"modules/{NAME}{SEAL}"])
def test_what_belongs_to_another_user_is_not_taken(cache: Cache, common: Path, what: str):
    os.chown(common / what, SOMEONE, -1)
    assert not shared.take(cache, cache.folder("modules") / NAME)


def test_the_real_way_counts_and_not_a_link_to_it(common: Path, tmp_path: Path):
    open_place = tmp_path / "open"
    open_place.mkdir()
    shutil.move(common, open_place / "common")
    common.symlink_to(open_place / "common")
    assert shared.refusal(common / "modules" / NAME) is None
    open_place.chmod(0o777)
    assert "written by others" in str(shared.refusal(common / "modules" / NAME))
    open_place.chmod(0o1777)  # as /tmp: nobody can rename what lies there
    assert shared.refusal(common / "modules" / NAME) is None
    common.unlink()
    assert "cannot be reached" in str(shared.refusal(common))


def test_damage_is_not_taken(cache: Cache, common: Path):
    place, path = common / "modules" / NAME, cache.folder("modules") / NAME
    place.chmod(0o644)
    place.write_bytes(b"c0de")
    assert not shared.take(cache, path)
    assert not list(path.parent.iterdir())
    place.write_bytes(b"code")
    assert shared.take(cache, path)


def test_a_seal_of_another_file_does_not_serve(cache: Cache, common: Path):
    for end in ("", SEAL):
        (common / "modules" / (NAME + end)).rename(common / "modules" / ("y.cwasm" + end))
    assert not shared.take(cache, cache.folder("modules") / "y.cwasm")


@pytest.mark.parametrize("text", ["", "{}", "[]", "[" * 100_000, '{"name": "modules/x.cwasm"}'])
def test_a_seal_that_is_none_does_not_serve(cache: Cache, common: Path, text: str):
    seal = common / "modules" / (NAME + SEAL)
    seal.chmod(0o644)
    seal.write_text(text)
    assert not shared.take(cache, cache.folder("modules") / NAME)


def test_it_is_never_granted(monkeypatch: pytest.MonkeyPatch, common: Path, tmp_path: Path):
    monkeypatch.setenv(shared.ENV, str(common))
    policy = Policy(grants=(Grant(str(common.parent), "/data"),))
    with pytest.raises(PolicyError, match="all users share"):
        grants.check(policy, tmp_path / "own")


def test_a_new_users_first_start_compiles_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """The common folder has this run's own compiled runtime; the new user's cache is empty."""
    with Sandbox() as sandbox:
        sandbox.run("1")
    common = tmp_path / "common" / "modules"
    common.mkdir(parents=True)
    for path in (caches.default_path() / "modules").iterdir():
        (common / path.name).symlink_to(path)  # each belongs to this user alone
    monkeypatch.setenv(shared.ENV, str(common.parent))
    monkeypatch.setenv(caches.ENV, str(tmp_path / "own"))
    said: list[str] = []
    with Sandbox(on_status=said.append) as sandbox:
        assert sandbox.run("6 * 7").outputs[0]["data"]["text/plain"] == "42"
    assert said
    assert not [text for text in said if "compiling the runtime" in text]
