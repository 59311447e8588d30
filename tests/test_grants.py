"""Shows that no name, link or detour gives a guest a folder that is protected."""

from __future__ import annotations

from pathlib import Path

import pytest

from wasi_kernel import launch
from wasi_kernel.errors import PolicyError
from wasi_kernel.grants import KEYS, SYSTEM, check, refusal
from wasi_kernel.policy import Grant, Policy


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder with everything in it that is protected, and a folder of notebooks."""
    home = tmp_path / "homes" / "user"
    for name in (*KEYS, "notebooks/deep"):
        (home / name).mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("JUPYTER_RUNTIME_DIR", raising=False)
    return home


@pytest.fixture
def cache(tmp_path: Path, home: Path) -> Path:
    path = tmp_path / "caches" / "wasi-kernel"
    (path / "modules").mkdir(parents=True)
    return path


def link(at: Path, to: Path) -> Path:
    """A symlink."""
    at.symlink_to(to)
    return at


def test_an_ordinary_folder_may_be_granted(home: Path, cache: Path):
    assert refusal(home / "notebooks", cache) is None
    assert refusal(home / "notebooks" / "deep", cache) is None


def test_a_folder_that_is_not_there_is_refused(home: Path, cache: Path):
    assert refusal(home / "nowhere", cache) == "it does not exist"
    assert refusal(link(home / "dangling", home / "nowhere"), cache) == "it does not exist"


def test_a_file_is_refused(home: Path, cache: Path):
    (home / "notebooks" / "file").touch()
    assert refusal(home / "notebooks" / "file", cache) == "it is no folder"


def test_the_root_is_refused(home: Path, cache: Path):
    for root in ("/", "//", "/proc/self/root", "/tmp/.."):  # noqa: S108 - no file is made
        assert refusal(Path(root), cache) == "it is the root of the file system"
    assert refusal(link(home / "slash", Path("/")), cache) == "it is the root of the file system"


@pytest.mark.parametrize("folder", SYSTEM)
def test_a_system_folder_is_refused(home: Path, cache: Path, folder: str):
    for path in (Path(folder), link(home / "notebooks" / "system", Path(folder))):
        assert refusal(path, cache) == f"it is a system folder ({folder})"


@pytest.mark.parametrize("folder", ["/proc/self", "/proc/1", "/proc/sys/kernel", "/dev/fd"])
def test_what_lies_in_a_system_folder_is_refused(home: Path, cache: Path, folder: str):
    assert refusal(Path(folder), cache) is not None
    assert "a system folder" in str(refusal(Path(folder), cache))


def test_a_link_into_a_folder_through_proc_is_that_folder(home: Path, cache: Path):
    """/proc/self/cwd and its like are judged by where they lead, not by where they lie."""
    assert "~/.ssh" in str(refusal(Path("/proc/self/root") / str(home)[1:] / ".ssh", cache))


@pytest.mark.parametrize("name", KEYS)
def test_keys_are_refused_with_what_lies_in_and_above_them(home: Path, cache: Path, name: str):
    assert refusal(home / name, cache) in {
        f"it is keys (~/{name})", "it lies in keys (~/.config)",
    }  # fmt: skip
    inside = home / name / "inside"
    inside.mkdir()
    assert refusal(inside, cache) == f"it lies in keys (~/{name})"
    for above in (home, home.parent):
        assert str(refusal(above, cache)).startswith("it contains keys")


def test_a_folder_above_one_key_only_is_refused(home: Path, cache: Path):
    assert refusal(home / ".local", cache) == "it contains keys (~/.local/share/jupyter)"
    assert refusal(home / ".local" / "share", cache) == "it contains keys (~/.local/share/jupyter)"


@pytest.mark.parametrize("name", KEYS)
def test_a_link_to_keys_is_refused(home: Path, cache: Path, name: str):
    found = link(home / "notebooks" / "link", home / name)
    assert str(refusal(found, cache)).startswith("it is keys")


def test_a_way_through_a_linked_folder_is_refused(home: Path, cache: Path):
    (home / ".ssh" / "inside").mkdir()
    link(home / "notebooks" / "link", home)
    assert refusal(home / "notebooks" / "link" / ".ssh" / "inside", cache) == (
        "it lies in keys (~/.ssh)"
    )
    assert refusal(home / "notebooks" / ".." / ".ssh", cache) == "it is keys (~/.ssh)"


def test_keys_that_are_a_link_are_refused_where_they_lead(home: Path, cache: Path):
    real = home / "notebooks" / "dotfiles" / "ssh"
    real.mkdir(parents=True)
    (home / ".ssh").rmdir()
    link(home / ".ssh", real)
    assert refusal(real, cache) == "it is keys (~/.ssh)"
    assert refusal(real.parent, cache) == "it contains keys (~/.ssh)"


def test_the_home_folder_is_refused_even_without_keys(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    bare = tmp_path / "bare" / "user"
    bare.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(bare))
    assert refusal(bare, cache) == "it is the home folder"
    assert refusal(link(tmp_path / "alias", bare), cache) == "it is the home folder"
    assert refusal(bare.parent, cache) is not None


def test_the_cache_is_refused_with_what_lies_in_and_above_it(tmp_path: Path, cache: Path):
    assert refusal(cache, cache) == "it is this project's cache"
    assert refusal(cache / "modules", cache) == "it lies in this project's cache"
    assert refusal(cache.parent, cache) == "it contains this project's cache"
    alias = link(tmp_path / "alias", cache.parent)
    assert refusal(alias, cache) == "it contains this project's cache"
    assert refusal(cache.parent, alias / cache.name) == "it contains this project's cache"


def test_a_folder_in_which_the_cache_is_going_to_be_made_is_refused(home: Path):
    """The check comes before the first start makes the cache."""
    folder = home / "notebooks"
    later = Path("later") / "cache"
    for above in (folder, folder / "deep"):
        assert refusal(above, folder / "deep" / later) == "it is to contain this project's cache"
    alias = link(home / "alias", folder)
    assert refusal(alias, folder / later) == refusal(folder, alias / later) is not None
    assert refusal(folder / "deep", folder / later) is None


def test_a_folder_in_which_keys_are_going_to_be_made_is_refused(home: Path, cache: Path):
    (home / ".local" / "share" / "jupyter").rmdir()
    for above in (home / ".local", home / ".local" / "share"):
        assert refusal(above, cache) == "it is to contain keys (~/.local/share/jupyter)"


def test_the_runtime_folder_of_jupyter_is_refused(
    tmp_path: Path, home: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    runtime = tmp_path / "jupyter" / "runtime"
    runtime.mkdir(parents=True)
    assert refusal(runtime, cache) is None
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(runtime))
    assert refusal(runtime, cache) == "it is Jupyter's runtime folder"
    assert refusal(runtime.parent, cache) == "it contains Jupyter's runtime folder"


def test_the_first_grant_that_is_refused_is_named(home: Path, cache: Path):
    good, bad = Grant(str(home / "notebooks"), "/a"), Grant(str(home / ".ssh"), "/b")
    check(Policy(grants=(good,)), cache)
    with pytest.raises(PolicyError) as caught:
        check(Policy(grants=(good, bad)), cache)
    assert (caught.value.key, caught.value.value) == ("grants[1].host_path", bad.host_path)
    assert "it is keys (~/.ssh)" in caught.value.allowed


@pytest.mark.parametrize("folder", ["/", "/proc", "~/.ssh", "~", "~/nowhere"])
def test_a_policy_that_grants_a_protected_folder_starts_no_session(home: Path, folder: str):
    path = str(Path(folder).expanduser())
    with pytest.raises(PolicyError) as caught:
        launch.settings(Policy(grants=(Grant(path, "/data"),)), None).release()
    assert (caught.value.key, caught.value.value) == ("grants[0].host_path", path)


def test_a_working_folder_that_is_protected_is_left_out_with_a_notice(home: Path):
    given = launch.settings(Policy(), home / ".ssh")
    try:
        assert given.work is None
        assert "keys (~/.ssh)" in given.notices[0]
    finally:
        given.release()
    given = launch.settings(Policy(), home / "notebooks")
    try:
        assert (given.work, given.notices) == (str(home / "notebooks"), ())
    finally:
        given.release()


# -- folders in one another ----------------------------------------------------------------------


@pytest.fixture
def project(tmp_path: Path, home: Path) -> Path:
    """A folder to be granted writable, with one in it, beside one that is nobody's."""
    for name in ("project/data/deep", "private/deep"):
        (tmp_path / name).mkdir(parents=True)
    return tmp_path / "project"


def nested(project: Path, inner: str = "data") -> Policy:
    return Policy(grants=(Grant(str(project), "/p", True), Grant(str(project / inner), "/d")))


@pytest.mark.parametrize("inner", ["data", "data/deep", "data/../data", "here", "data/here"])
def test_a_folder_in_a_writable_one_may_be_granted(project: Path, cache: Path, inner: str):
    link(project / "here", Path("data"))
    link(project / "data" / "here", Path("../data/deep"))
    check(nested(project, inner), cache)


@pytest.mark.parametrize(
    ("at", "to", "inner"),
    [
        ("data", "../private", "data"),
        ("data", "../private", "data/deep"),
        ("data/deep", "../../private", "data/deep"),
        ("data", "next", "data"),
        ("data", "{}/private", "data"),
        ("data", "/etc", "data"),
        ("data", ".././project/./../private/.", "data/deep"),
    ],
)
def test_a_link_out_of_a_writable_folder_is_not_followed(
    project: Path, cache: Path, at: str, to: str, inner: str
):
    """A guest may have put it there, for the next session: once this was a way out."""
    link(project / "next", Path("../private"))
    (project / at).rename(project / "old")
    link(project / at, Path(to.format(project.parent)))
    if to == "/etc":
        (project.parent / "private" / "deep").rmdir()
    with pytest.raises(PolicyError) as caught:
        check(nested(project, inner), cache)
    assert caught.value.key == "grants[1].host_path"
    assert "a link leads out of" in caught.value.allowed


def test_a_link_elsewhere_is_the_users_own(project: Path, cache: Path, tmp_path: Path):
    """Beside a writable folder, or in one that is not writable, no guest can have put it."""
    link(tmp_path / "to-private", Path("private"))
    out, grant = str(tmp_path / "to-private"), Grant(str(project), "/p", True)
    check(Policy(grants=(grant, Grant(out, "/d"))), cache)
    link(project / "out", Path("../private"))
    fixed = Grant(str(project), "/p"), Grant(str(project / "out"), "/d")
    check(Policy(grants=fixed), cache)
