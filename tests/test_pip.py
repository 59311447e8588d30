"""Shows what cells can install, what a policy allows them to, and what becomes of it afterwards.

The wheels are made here, and all that there is: no network is needed. See tests/kernel/test_pip.py
for what needs a kernel: interrupts, deaths, other requests meanwhile.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from wasi_kernel import Policy, Sandbox, caches, chosen, installed, kernelspecs, pip, policyfile
from wasi_kernel.cli import policies
from wasi_kernel.errors import PackageError, PolicyError, RequirementError, SessionFileError
from wasi_kernel.pip import Pip
from wasi_kernel.requirements import TEXT_CHARACTERS, parse_foreign

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

KEY = "0123456789abcdef" * 2


@pytest.fixture
def free(shelf: Path) -> Iterator[Sandbox]:
    """A sandbox whose cells may install anything."""
    del shelf
    with Sandbox(Policy(pip=True)) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def untouched(shelf: Path) -> Iterator[Sandbox]:
    """A sandbox that tests share which install nothing in it."""
    del shelf
    with Sandbox(Policy(pip=True)) as sandbox:
        yield sandbox


# -- in a session --------------------------------------------------------------------------------


def test_a_package_is_usable_at_once_and_variables_stay(free: Sandbox):
    assert free.run("x = [1]\ntry:\n    import app\nexcept ImportError: x.append(2)").ok
    said = free.run("%pip install app")
    assert said.ok
    assert said.stdout.splitlines() == [
        "Looking for app ...", "Fetching app 1.0, lib 1.0 ...",
        "Successfully installed app-1.0 lib-1.0",
    ]  # fmt: skip
    found = free.run("import app, lib\napp.version, lib.version, x, app.__file__.split('/')[:3]")
    assert found.text == "('1.0', '1.0', [1, 2], ['', 'opt', 'installed'])"
    again = free.run("%pip install app lib").stdout
    assert "already satisfied: app 1.0" in again
    assert "already satisfied: lib 1.0" in again
    assert "Successfully" not in again
    assert "Version: 1.0\nSummary: made\nLocation: /opt/installed/" in free.run(
        "%pip show app"
    ).stdout  # fmt: skip
    assert "app==1.0" in free.run("%pip freeze").stdout.splitlines()
    assert re.search("/opt/installed +read only .* pip = true", free.run("%wasi").text)
    assert free.run("open('/opt/installed/x', 'w')").error.ename in ("OSError", "PermissionError")


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("pip install -q pack", ""), ("!pip install --quiet pack", ""),
        ("!python -m pip install pack", "Successfully installed pack-1.0"),
        ("%pip install -U --no-cache-dir pack # why", "Successfully installed pack-1.0"),
        ("x = !pip install pack\nprint(x[-1])", "Successfully installed pack-1.0"),
    ],
)  # fmt: skip
def test_as_it_is_typed(free: Sandbox, line: str, shown: str):
    said = free.run(line)
    assert said.ok
    assert said.stdout.rstrip().endswith(shown)
    assert bool(said.stdout) == bool(shown)
    assert free.run("import pack.later; pack.later.value").text == "7"


def test_a_file_of_requirements_is_the_guests(free: Sandbox, tmp_path: Path):
    lines = (
        "# what we need\napp == \\\n 1.0\n\npack>=1 ; python_version > '3'\nwin; os_name == 'nt'"
    )
    free.run(f"open('/tmp/r.txt', 'w').write({lines!r})")
    assert "installed app-1.0 lib-1.0 pack-1.0" in free.run("%pip install -r /tmp/r.txt").stdout
    secret = tmp_path / "secret.txt"
    secret.write_text("pack")
    said = free.run(f"%pip install -r {secret}")
    assert "No such file" in said.error.evalue


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("nowhere", "nowhere was not found"),
        ("numpy<2", "is part of the runtime"),
        ("app lib>1", "lib>1"),
        ("./app-1.0-py3-none-any.whl", "sys.path.append"),
        ("git+https://example.org/x", "addresses and paths are the policy's"),
        ("'app @ file:///etc/passwd'", "addresses and paths are the policy's"),
        ("../app", "addresses and paths are the policy's"),
        ("--index-url http://example.org/simple app", "not an option here"),
        ("--pre app", "not an option here"), ("-e .", "not an option here"),
        ("-r /etc/passwd", "No such file"), ("", "name a package"),
        ("'app", "No closing quotation"),
    ],
)  # fmt: skip
def test_one_clear_error_and_nothing_installed(untouched: Sandbox, line: str, words: str):
    said = untouched.run(f"%pip install {line}")
    assert said.error is not None
    assert said.error.ename == "UsageError"
    assert words in said.stderr
    assert untouched.run("import os; os.listdir('/opt/installed')").text == "[]"


def test_the_guest_learns_nothing_of_the_hosts_paths(untouched: Sandbox, shelf: Path):
    said = untouched.run(
        "from wasi_agent import pip\ntry:\n    pip.install(['lib>7'])\n"
        "except BaseException as e:\n    text = str(e)\ntext"
    )
    assert said.text == "'nothing was installed (UnsatisfiableError)'"
    assert "lib>7" in said.stderr


def test_a_hostile_wheel_is_refused(
    untouched: Sandbox, shelf: Path, make_wheel: Callable[..., Path]
):
    wheel = make_wheel(shelf, "evil", "1.0", (), **{"evil.py": "", "evil.so": "native"})
    try:
        said = untouched.run("%pip install evil")
    finally:
        wheel.unlink()
    assert "evil-1.0-py3-none-any.whl is refused" in said.stderr
    assert said.error.evalue == "nothing was installed (WheelError)"
    assert untouched.run("import os; os.listdir('/opt/installed')").text == "[]"


def test_another_version(free: Sandbox, shelf: Path, make_wheel: Callable[..., Path]):
    free.run("%pip install app\nimport lib")
    wheels = [make_wheel(shelf, "lib", "2.0", ())]
    try:
        assert "Successfully" not in free.run("%pip install lib").stdout
        said = free.run("%pip install -U lib")
        assert "Successfully installed lib-2.0" in said.stdout
        assert "Imported already: lib 1.0" in said.stderr
        assert free.run("lib.version, __import__('importlib').reload(lib).version").text == (
            "('1.0', '2.0')"
        )
        assert "lib==2.0" in free.run("%pip freeze").stdout
        back = free.run("%pip install 'lib<2'").stdout
        assert "Successfully installed lib-1.0" in back
        assert free.run("__import__('importlib').reload(lib).version").text == "'1.0'"
        wheels.append(make_wheel(shelf, "picky", "1.0", ("lib<2",)))
        free.run("%pip install picky")
        assert free.run("%pip install lib>=2").error is not None  # picky could not bear it
        assert "Successfully" not in free.run("%pip install -U lib").stdout
    finally:
        for wheel in wheels:
            wheel.unlink()


def test_undo_takes_an_installation_back(free: Sandbox):
    free.run("%pip install -q app")
    free.undo()
    assert free.run("import app").error.ename == "ModuleNotFoundError"
    assert "app-1.0 lib-1.0" in free.run("%pip install app").stdout
    assert free.run("import app; app.version").text == "'1.0'"
    free.undo(1)
    free.redo(1)
    assert free.run("app.version").text == "'1.0'"


def test_a_fork_has_them_and_goes_its_own_way(free: Sandbox):
    free.run("%pip install -q pack\nimport pack")
    with free.fork() as other:
        assert other.run("import pack.later; pack.later.value").text == "7"
        other.run("%pip install -q app\nimport app")
        assert other.run("app.version").text == "'1.0'"
    assert free.run("import app").error.ename == "ModuleNotFoundError"
    assert free.run("import pack.later; pack.later.value").text == "7"


def test_a_restart_begins_without(free: Sandbox):
    free.run("%pip install -q app")
    free.restart()
    assert free.run("import app").error.ename == "ModuleNotFoundError"
    assert free.run("%pip install -q app\nimport app").ok


def test_a_saved_session_finds_them(free: Sandbox, tmp_path: Path):
    free.run("%pip install -q pack\nimport pack")
    free.save(tmp_path / "s")
    shown = wasi_kernel("session", "show", str(tmp_path / "s"), cwd=tmp_path).stdout
    assert "\ninstalled   pack 1.0 (%pip)\n" in shown
    with Sandbox(Policy(pip=["pack"]), resume=tmp_path / "s") as again:
        assert again.run("import pack.later; pack.later.value").text == "7"
        assert "already satisfied: pack 1.0" in again.run("%pip install pack").stdout
    with pytest.raises(Exception, match="/opt/installed"):
        Sandbox(resume=tmp_path / "s").close()


def test_a_saved_session_says_what_is_missing(
    free: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    free.run("%pip install -q app\nimport app")
    free.save(tmp_path / "s")
    monkeypatch.setattr(installed, "show", _no_room)
    with Sandbox(Policy(pip=True), resume=tmp_path / "s") as again:
        (notice,) = again._settings.notices
        assert notice.endswith("not here any more; run %pip install app==1.0 lib==1.0")
        monkeypatch.undo()
        assert again.run("import lib").error.ename == "ModuleNotFoundError"
        again.run("%pip install -q app==1.0 lib==1.0")
        assert again.run("import lib; lib.version").text == "'1.0'"


def _no_room(*_: object) -> None:
    raise OSError("no room")


def test_what_a_policy_would_have_to_say(free: Sandbox):
    free.run("%pip install -q app")
    lines = free.run("%pip freeze --to-policy").stdout
    assert 'packages = [\n    "app==1.0",\n    "lib==1.0",\n]\n' in lines
    assert "# wasi-kernel install --name NAME --package app==1.0 --package lib==1.0" in lines


def test_uninstalling_says_what_to_do(free: Sandbox):
    free.run("%pip install -q app")
    assert "%undo" in free.run("%pip uninstall -y app").error.evalue
    assert "chosen in the policy" in free.run("%pip uninstall -y numpy").error.evalue


# -- what a policy allows ------------------------------------------------------------------------


def test_off_by_default(box: Sandbox):
    said = box.run("%pip install app 'lib>1'")
    assert "--package app --package 'lib>1'" in said.error.evalue
    assert "pip = true in the policy" in said.error.evalue
    assert box.run("import os; os.path.exists('/opt/installed')").text == "False"
    assert "no (pip in the policy)" in box.run("%wasi").text
    raw = box.run("from wasi_agent import pip\npip.install(['app'])")
    assert "allows cells to install nothing" in raw.stderr


def test_a_list_of_names(shelf: Path):
    with Sandbox(Policy(pip=("App", "other_one"))) as sandbox:
        said = sandbox.run("%pip install lib")
        assert "only App, other_one" in said.stderr
        assert sandbox.run("%pip install app lib").error is not None
        assert "app-1.0 lib-1.0" in sandbox.run("%pip install app").stdout


@pytest.mark.parametrize(
    ("value", "key"),
    [("yes", "pip"), (1, "pip"), (["attrs>=2"], "pip[0]"), (["a", 3], "pip[1]"), ([""], "pip[0]")],
)
def test_a_wrong_policy(value: Any, key: str):
    with pytest.raises(PolicyError) as e:
        Policy.from_dict({"pip": value})
    assert e.value.key == key


def test_a_policy_as_data():
    policy = Policy.from_dict({"pip": ["attrs", "rich"]})
    assert policy.pip == ("attrs", "rich")
    assert Policy.from_dict(json.loads(json.dumps(policy.to_dict()))) == policy
    assert Policy().pip is False
    with pytest.raises(PolicyError):
        Policy.from_dict({"grants": [{"host_path": "/x", "guest_path": "/opt/installed"}]})


# -- what a guest asks for -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "-r x", "--index-url=x", "./x.whl", "x.whl", "/etc/passwd", "a @ file:///x.whl",
        "a @ https://example.org/x.whl", "git+https://example.org/x", "a===1", "a\nb", "a\x00",
        "a --hash=md5:" + "0" * 64, "a --pre", "${HOME}", "a; (" + "(" * 400,
        "a; python_version ~= 'x'", "a; nothing == 'x'", "a" * (TEXT_CHARACTERS + 1),
        "a>=1 # c", "a b",
        "\N{CYRILLIC SMALL LETTER A}ttrs",
    ],
)  # fmt: skip
def test_what_is_no_requirement_of_a_guests(text: str):
    with pytest.raises(RequirementError):
        parse_foreign(text)


def test_hashes_are_understood_and_checked(untouched: Sandbox):
    assert parse_foreign("a>=1 --hash=sha256:" + "0" * 64).hashes == {"0" * 64}
    lines = f"pack \\\n    --hash=sha256:{'0' * 64}\n"
    untouched.run(f"open('/tmp/h.txt', 'w').write({lines!r})")
    said = untouched.run("%pip install -r /tmp/h.txt")
    assert said.error.evalue == "nothing was installed (HashMismatchError)"


def test_no_file_is_looked_for(tmp_path: Path):
    """Whether a file is there makes no difference."""
    (tmp_path / "a-1.0-py3-none-any.whl").write_bytes(b"")
    said = []
    for name in ("a-1.0-py3-none-any.whl", "b-1.0-py3-none-any.whl"):
        with pytest.raises(RequirementError) as e:
            parse_foreign(str(tmp_path / name))
        said.append(e.value.reason)
    assert said[0] == said[1]


class _Asked:
    """A session's installer whose other process is never started."""

    def __init__(self, base: Path, allowed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tasks: list[dict[str, Any]] = []
        self.shown = ""
        self._pip = Pip(Policy(pip=allowed), base, base)

        async def run(task: dict[str, Any], say: object) -> dict[str, Any]:
            del say
            self.tasks.append(task)
            return {"status": "ok", "key": "", "bytes": 0, "packages": [], "notes": []}

        monkeypatch.setattr(pip, "_run", run)

    def ask(self, version: str = "3.15.0", **asked: Any) -> dict[str, Any]:
        return asyncio.run(self._pip.answer(asked, version, self._show))

    def _show(self, name: str, text: str) -> None:
        self.shown += f"{name}: {text}"


@pytest.mark.parametrize(
    "wanted",
    [None, [], "app", [1], ["app", None], ["app"] * (pip.REQUIREMENTS + 1), [["app"]], ["-r x"]],
)
def test_a_request_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: Any):
    asked = _Asked(tmp_path, True, monkeypatch)
    assert asked.ask(requirements=wanted)["status"] == "error"
    assert asked.tasks == []
    assert asked.shown.startswith("stderr: [wasi-kernel] ")


def test_requests_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked = _Asked(tmp_path, True, monkeypatch)
    monkeypatch.setattr(pip, "REQUESTS", 2)
    said = [asked.ask(requirements=["app"])["status"] for _ in range(3)]
    assert said == ["ok", "ok", "error"]
    assert len(asked.tasks) == 2


@pytest.mark.parametrize(("name", "most"), [("SETS", 1), ("BYTES", 10)])
def test_what_is_installed_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, most: int
):
    asked = _Asked(tmp_path, True, monkeypatch)
    installed.store(tmp_path, {KEY: {"bytes": 10, "packages": []}})
    monkeypatch.setattr(installed, name, most)
    assert asked.ask(requirements=["app"])["status"] == "error"
    assert asked.tasks == []


def test_a_set_that_is_too_large(free: Sandbox, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(installed, "BYTES", 100)
    said = free.run("%pip install pack")
    assert said.error.evalue == "nothing was installed (PackageError)"
    assert "left for them" in said.stderr


def test_what_a_guest_says_of_itself_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked = _Asked(tmp_path, True, monkeypatch)
    installed.store(tmp_path, {KEY: {"bytes": 10, "packages": []}})
    for version in ("", "3.15.0\n", "4.0.0", "3.15", "3.15.0 --x"):
        assert asked.ask(version, requirements=["app"])["status"] == "error"
    asked.ask(requirements=["app"], sets=["../..", KEY, 3, "f" * 32], upgrade="yes")
    (task,) = asked.tasks
    assert (task["sets"], task["upgrade"], task["python"]) == ([KEY], False, "3.15")
    asked.ask(requirements=["app"], sets={"a": 1})
    assert asked.tasks[-1]["sets"] == []


# -- the process that installs -------------------------------------------------------------------


def test_it_ends_when_its_input_ends():
    with subprocess.Popen(
        [sys.executable, "-P", "-m", pip.MODULE], stdin=subprocess.PIPE, start_new_session=True
    ) as process:
        process.stdin.write(b"{")
        process.stdin.close()
        assert process.wait(20) != 0


# -- the note of what is installed ---------------------------------------------------------------


@pytest.mark.parametrize(
    "note",
    [
        [], {"../x": {}}, {KEY: []}, {KEY: {"bytes": -1, "packages": []}},
        {KEY: {"bytes": True, "packages": []}}, {KEY: {"bytes": 1 << 60, "packages": []}},
        {KEY: {"bytes": 1}}, {KEY: {"bytes": 1, "packages": [["a"]]}},
        {KEY: {"bytes": 1, "packages": [["a", "1\x1b[2J"]]}},
        {KEY: {"bytes": 1, "packages": [["a --index-url", "1"]]}},
        {KEY: {"bytes": 1, "packages": [["a", 1]]}},
        {f"{k:032x}": {"bytes": 1, "packages": []} for k in range(installed.SETS + 1)},
    ],
)  # fmt: skip
def test_a_note_that_nobody_wrote(tmp_path: Path, note: Any):
    with pytest.raises(ValueError, match="what was installed"):
        installed.check(note)
    (tmp_path / installed.NOTE).write_text(json.dumps(note))
    assert installed.load(tmp_path) == {}


def test_sets_are_linked_where_that_works(tmp_path: Path):
    source, base = tmp_path / "set", tmp_path / "session"
    (source / "p").mkdir(parents=True)
    (source / "p" / "a.py").write_text("x")
    base.mkdir()
    installed.show(source, base, KEY)
    shown = base / installed.FOLDER / KEY / "p" / "a.py"
    assert os.path.samefile(shown, source / "p" / "a.py")
    assert installed.size(source) == 1
    installed.show(source, base, KEY)  # it is there already
    assert sorted(os.listdir(base)) == [installed.FOLDER]
    other = tmp_path / "fork"
    other.mkdir()
    installed.store(base, {KEY: {"bytes": 1, "packages": [["p", "1.0"]]}})
    installed.fork(base, other)
    assert installed.load(other) == installed.load(base)
    assert installed.has(other, KEY)


def test_a_session_file_cannot_claim_anything(tmp_path: Path, free: Sandbox):
    """What it says was installed is checked like the rest of its manifest."""
    free.run("1")
    free.save(tmp_path / "s")
    data = (tmp_path / "s").read_bytes()
    assert b'"installed": {}' in data
    bad = data.replace(b'"installed": {}', b'"installed": 77', 1)
    (tmp_path / "bad").write_bytes(bad)
    with pytest.raises(SessionFileError, match="manifest is damaged"):
        Sandbox(Policy(pip=True), resume=tmp_path / "bad").close()


# -- from Python, and from the command line ------------------------------------------------------


def test_a_sandbox_installs(shelf: Path):
    with Sandbox(Policy(pip=("app", "nowhere", "pack"))) as sandbox:
        assert sandbox.install("app") == ["app==1.0", "lib==1.0"]
        assert sandbox.install("app", "pack") == ["pack==1.0"]
        assert sandbox.run("import app; app.version").text == "'1.0'"
        with pytest.raises(PackageError, match="nowhere was not found"):
            sandbox.install("pack", "nowhere")
        with pytest.raises(PackageError, match="only app, nowhere, pack"):
            sandbox.install("lib", upgrade=True)


def test_a_sandbox_installs_nothing_by_default(box: Sandbox):
    with pytest.raises(PackageError, match="the policy allows cells to install nothing"):
        box.install("app")


def test_a_sandbox_gets_its_policys_packages(shelf: Path):
    steps: list[str] = []
    wanted = f"app!=7.{secrets.randbelow(1 << 60)}"  # that nobody has asked for before
    policy = Policy(packages=(wanted,), pip=True)
    with Sandbox(policy, on_status=steps.append) as sandbox:
        assert sandbox.run("import app; app.__file__").text == "'/opt/packages/app.py'"
        assert "already satisfied: lib 1.0 (the policy's packages)" in sandbox.run(
            "%pip install lib"
        ).stdout  # fmt: skip
        refused = sandbox.run("%pip install 'app>1'")
        assert "(app 1.0 is part of the policy's packages.)" in refused.stderr
        lines = sandbox.run("%pip install -q pack\n%pip freeze --to-policy").stdout
        assert f'packages = [\n    "{wanted}",\n    "pack==1.0",\n]\n' in lines
    chosen.note_path(caches.default_path(), policy).unlink()
    assert f"getting the packages {wanted}" in steps
    with pytest.raises(PackageError, match="nowhere was not found"):
        Sandbox(Policy(packages=("nowhere",))).close()


def wasi_kernel(*argv: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "wasi_kernel", *argv], capture_output=True, text=True,
        check=False, cwd=cwd,
    )  # fmt: skip


def test_a_program_is_told_where_its_packages_come_from(tmp_path: Path):
    done = wasi_kernel("run", "-m", "pip", "install", "-q", "app>1", cwd=tmp_path)
    assert done.returncode == 1
    assert "wasi-kernel run --package 'app>1'" in done.stderr
    listed = wasi_kernel("python", "-m", "pip", "freeze", cwd=tmp_path)
    assert "\nnumpy==" in listed.stdout
    assert wasi_kernel("run", "-m", "pip", "cache", cwd=tmp_path).returncode == 1


def test_a_kernelspec_with_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "jupyter"))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "path"))

    def policy() -> dict[str, Any]:
        return policyfile.read(tmp_path / "jupyter" / "kernels" / "p" / "policy.toml")

    options = ["--name", "p", "--display-name", "Shown", "--env", "A=b"]
    assert wasi_kernel("install", *options, "--pip-allow", "rich", cwd=tmp_path).returncode == 0
    assert policy() == {"env": {"A": "b"}, "pip": ["rich"]}
    again = ["install", "--replace", "--name", "p", "--like", "p"]
    assert wasi_kernel(*again, "--pip-allow", "attrs", cwd=tmp_path).returncode == 0
    assert policy() == {"env": {"A": "b"}, "pip": ["rich", "attrs"]}
    assert "pip = ['rich', 'attrs']" in wasi_kernel("list", cwd=tmp_path).stdout
    assert wasi_kernel(*again, "--pip", cwd=tmp_path).returncode == 0
    assert policy()["pip"] is True
    assert kernelspecs.find("p").display_name == "Shown"
    refused = wasi_kernel(*again, "--pip-allow", "x>1", "--policy", "p", cwd=tmp_path)
    assert refused.returncode == 2
    assert wasi_kernel("install", "--name", "q", "--like", "none", cwd=tmp_path).returncode != 0


def test_the_packages_of_a_policy_are_renewed_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    found: dict[str, Any] = {"packages": ["attrs>=23", "rich", 7]}
    policies._add_packages(found, ("Attrs==26.1.0",), ())
    assert found["packages"] == ["rich", 7, "attrs==26.1.0"]
    wrong: dict[str, Any] = {"packages": "attrs"}
    with pytest.raises(PolicyError, match="packages = 'attrs'"):
        policies._add_packages(wrong, ("rich",), ())
