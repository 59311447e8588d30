"""The resolver: uv as a subprocess; the only module that knows how it is called.

uv does everything that touches an index, so that indexes, proxies, certificates, credentials and
its cache, with which it can work offline, are those that its own configuration names. pip's
configuration is followed where uv has none. The folder that it runs in is a fresh one: a
pyproject.toml or uv.toml beside a notebook steers nothing.

uv is asked for wheels only, and never to build one: no code of a package runs. What it unpacks is
not taken over as it is; wheels.py looks at it.

Measured with uv 0.13.9:
- A universal resolution knows no platform: it takes versions whose wheels are all native. Of an
  index, but not of a folder, it takes none that has no wheel for this Python.
- With `tool.uv.environments` it takes only versions that have a wheel for these: jsonschema 4.17
  instead of 4.26, whose rpds-py is native.
- Constraints by URL fix a version: the index is not asked for such a package, and other versions
  conflict.
- It has no command that downloads a wheel; `uv pip install` unpacks what it downloads as it
  arrives, in its cache, checks its hash, leaves out names that lead elsewhere, makes no symlinks,
  and bounds nothing.
- It exits with 1 if there is no solution, with 2 if something else is wrong.

Never imports anything of Jupyter, nor of the packages that it fetches.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from wasi_kernel.errors import DownloadError, InstallationError, PackageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

DEADLINE_S = 900.0
"""How long one run of uv may take; it has shorter ones of its own for each request."""

FILE_BYTES = 512 << 20
"""The largest file that uv may write."""

WRITE_BYTES = 4 << 30
"""How much one run of uv may write in all: no wheel has a way to fill the disk."""

PREFIX = "prefix"
"""Name of the folder that a wheel is fetched into."""

_ANSWER_BYTES = 64 << 20

_DROPPED = frozenset({
    "VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONPATH", "PYTHONHOME", "RUST_LOG", "UV_PYTHON",
    "UV_SYSTEM_PYTHON", "UV_BREAK_SYSTEM_PACKAGES", "UV_PROJECT", "UV_NO_PROJECT",
    "UV_WORKING_DIR", "UV_WORKING_DIRECTORY", "UV_PREVIEW", "UV_PREVIEW_FEATURES",
    "UV_COMPILE_BYTECODE", "UV_NO_BINARY", "UV_NO_BINARY_PACKAGE", "UV_NO_BUILD_ISOLATION",
    "UV_BUILD_CONSTRAINT", "UV_REQUIRE_HASHES", "UV_NO_VERIFY_HASHES", "UV_LINK_MODE",
    "UV_SKIP_WHEEL_FILENAME_CHECK", "UV_INSECURE_NO_ZIP_VALIDATION", "UV_CUSTOM_COMPILE_COMMAND",
    "UV_NO_INSTALLER_METADATA", "UV_TORCH_BACKEND", "UV_LOCKED", "UV_FROZEN",
})  # fmt: skip
"""Variables that say where and how uv works, which is decided here; others are the user's."""

_UV_INDEXES = ("UV_INDEX", "UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL",
               "UV_FIND_LINKS", "UV_CONFIG_FILE")  # fmt: skip
_PATHS = {"UV_CACHE_DIR": "", "UV_CONFIG_FILE": "", "UV_FIND_LINKS": ",", "UV_INDEX": " ",
          "UV_DEFAULT_INDEX": "", "SSL_CERT_FILE": ""}  # fmt: skip
"""Variables that may hold paths, relative to where the user is, and what stands between several."""

_OFFLINE = "the network was disabled"
_HINT = re.compile(r"^hint: While the active Python version is .*$", re.MULTILINE)
_SPLIT = re.compile(r" for split \(markers: [^)]*\)")


def executable() -> str:
    """The path of uv.

    Raises:
        InstallationError: It is not installed.
    """
    beside = Path(sys.executable).with_name("uv")
    if beside.is_file():
        return str(beside)
    try:
        import uv

        return uv.find_uv_bin()
    except (ImportError, FileNotFoundError):
        raise InstallationError(
            "uv, which finds and fetches packages, is not installed; run: pip install uv"
        ) from None


@dataclass(frozen=True)
class Answer:
    """What uv says.

    Attributes:
        solved: Is there a solution?
        text: The solution, or why there is none.
    """

    solved: bool
    text: str


def lock(
    folder: Path, requirements: Iterable[str], constraints: Iterable[str], python: str,
    environment: str = "",
) -> Answer:  # fmt: skip
    """The resolution as a pylock.toml, for all platforms.

    Args:
        folder: An empty folder to work in.
        requirements: Checked, each as PEP 508 writes it.
        constraints: Likewise.
        python: The guest's Python, "3.15".
        environment: A marker; if given, versions that have no wheel for it do not count.

    Raises:
        DownloadError: An index cannot be read.
    """
    _write(folder, requirements, constraints, environment)
    return _run(folder, [*_compile(python), "--format=pylock.toml"])


def reasons(
    folder: Path, requirements: Iterable[str], constraints: Iterable[str], python: str
) -> dict[str, list[str]]:
    """{name: names that require it} of the same resolution, solved; "" stands for the user.

    Raises:
        DownloadError: An index cannot be read.
    """
    _write(folder, requirements, constraints, "")
    text = _run(folder, [*_compile(python), "--format=requirements.txt", "--annotate",
                         "--annotation-style=split"]).text  # fmt: skip
    found: dict[str, list[str]] = {}
    name = ""
    for line in text.splitlines():
        if line and not line.startswith(("#", " ")):
            name = re.split(r"[=\[ ;@]", line, maxsplit=1)[0]
            found[name] = []
        elif name and line.startswith("    # "):
            via = line.removeprefix("    # ").removeprefix("via").strip()
            if via.startswith("-r "):
                found[name].append("")
            elif via and not via.startswith("-"):
                found[name].append(re.split(r"[\[ ]", via, maxsplit=1)[0])
    # A requirement of the user alone has no annotation where the file is the only source.
    return {name: via or [""] for name, via in found.items()}


def fetch(folder: Path, requirement: str, sha256: str, python: str) -> Answer:
    """Downloads one wheel and unpacks it below `folder / PREFIX`.

    Args:
        folder: An empty folder to work in.
        requirement: `name==version`, or `name @ URL`.
        sha256: Of the wheel, hex.
        python: The guest's Python, "3.15".

    Returns:
        Not solved, if the index no longer has this file, or has another one in its place.

    Raises:
        DownloadError: It cannot be read, or is too large.
    """
    (folder / "pyproject.toml").write_text("[tool.uv]\n", encoding="utf-8")
    listed = folder / "wheel.txt"
    listed.write_text(f"{requirement} --hash=sha256:{sha256}\n", encoding="utf-8")
    return _run(folder, [
        "pip", "install", f"--prefix={PREFIX}", f"--python={sys.executable}",
        f"--python-version={python}", "--no-deps", "--no-build", "--require-hashes",
        "--no-compile-bytecode", "--link-mode=hardlink", "--requirements", listed.name,
    ])  # fmt: skip


def _compile(python: str) -> list[str]:
    return [
        "pip", "compile", "requirements.in", "--constraints=constraints.txt", "--universal",
        f"--python={sys.executable}", f"--python-version={python}", "--no-build", "--no-header",
        "--no-strip-markers",
    ]  # fmt: skip


def _write(
    folder: Path, requirements: Iterable[str], constraints: Iterable[str], environment: str
) -> None:
    import json

    table = "[tool.uv]\n" + (f"environments = [{json.dumps(environment)}]\n" * bool(environment))
    (folder / "pyproject.toml").write_text(table, encoding="utf-8")
    for name, lines in (("requirements.in", requirements), ("constraints.txt", constraints)):
        (folder / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _run(folder: Path, arguments: Sequence[str]) -> Answer:
    """What uv says to these arguments, in this folder."""
    env, options = _settings(os.environ)
    command = [executable(), *arguments, *options, "--color=never", "--no-progress",
               "--no-python-downloads"]  # fmt: skip
    out, err = folder / "out", folder / "err"
    with out.open("wb") as stdout, err.open("wb") as stderr:
        process = subprocess.Popen(
            command, cwd=folder, env=env, stdin=subprocess.DEVNULL,
            stdout=stdout, stderr=stderr,
        )  # fmt: skip
        try:
            _watch(process)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
    said = _said(err)
    if process.returncode == 0:
        if out.stat().st_size > _ANSWER_BYTES:
            raise PackageError("uv's answer is too large")
        return Answer(solved=True, text=out.read_text(encoding="utf-8"))
    if process.returncode == 1 and _OFFLINE not in said:
        return Answer(solved=False, text=said)
    if process.returncode < 0:
        said = f"uv was ended by signal {-process.returncode}; is a file of them too large? {said}"
    raise DownloadError("the packages cannot be fetched", said)


def _watch(process: subprocess.Popen[bytes]) -> None:
    """Waits for the end of a run, within its bounds."""
    import contextlib
    import resource

    with contextlib.suppress(OSError, AttributeError):  # AttributeError: only Linux has it
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (FILE_BYTES, FILE_BYTES))
    ends = time.monotonic() + DEADLINE_S
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.05)
            return
        if _written_bytes(process.pid) > WRITE_BYTES:
            raise DownloadError("the packages are too large", f"more than {WRITE_BYTES} bytes")
        if time.monotonic() > ends:
            raise DownloadError("the packages cannot be fetched", f"no end within {DEADLINE_S} s")


def _written_bytes(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/io", encoding="ascii") as f:
            return next(int(line.split()[1]) for line in f if line.startswith("wchar:"))
    except (OSError, StopIteration):
        return 0  # it has ended; or this is not Linux, where the limit of one file holds alone


def _said(err: Path) -> str:
    """What uv says is wrong, without what only concerns its own settings."""
    with err.open("rb") as f:
        text = f.read(1 << 20).decode("utf-8", "replace")
    text = _SPLIT.sub("", _HINT.sub("", text))
    lines = [line.strip() for line in text.splitlines() if not line.startswith("warning:")]
    text = " ".join(line for line in lines if line)
    for prefix in ("error: ", "No solution found when resolving dependencies cause: "):
        text = text.removeprefix(prefix)
    return text if len(text) <= 2000 else text[:2000] + " ..."


def _settings(given: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Environment and options of uv: the user's, with pip's settings where uv has none."""
    env = {name: value for name, value in given.items() if name not in _DROPPED}
    for name in _PATHS.keys() & env.keys():
        parts = env[name].split(_PATHS[name]) if _PATHS[name] else [env[name]]
        absolute = [os.path.abspath(p) if p and os.path.exists(p) else p for p in parts]
        env[name] = _PATHS[name].join(absolute)
    if any(name in env for name in _UV_INDEXES) or _uv_names_indexes(env):
        return env, []
    settings = pip_settings(env)
    for option, variable in (
        ("index-url", "UV_DEFAULT_INDEX"), ("extra-index-url", "UV_INDEX"),
        ("find-links", "UV_FIND_LINKS"), ("cert", "SSL_CERT_FILE"), ("proxy", "ALL_PROXY"),
    ):  # fmt: skip
        if settings.get(option):
            joint = "," if option == "find-links" else " "
            env.setdefault(variable, joint.join(settings[option].split()))
    return env, ["--no-index"] * ("no-index" in settings)


def _uv_names_indexes(env: Mapping[str, str]) -> bool:
    """Does a uv.toml of the user or the machine say where packages come from?"""
    import tomllib

    home = env.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    for path in (Path(home, "uv", "uv.toml"), Path("/etc/uv/uv.toml")):
        try:
            table = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue  # none, or uv will say what is wrong with it
        pip = table.get("pip")
        for each in (table, pip if isinstance(pip, dict) else {}):
            if {"index", "index-url", "extra-index-url", "find-links", "no-index"} & each.keys():
                return True
    return False


def pip_settings(env: Mapping[str, str]) -> dict[str, str]:
    """What pip is set to in commands `install` and `download`, by files and variables.

    Later ones go before earlier ones: machine, user, environment, `PIP_CONFIG_FILE`, variables
    (pip's documentation, "Configuration").
    """
    import configparser

    named = env.get("PIP_CONFIG_FILE", "")
    paths = [Path("/etc/pip.conf")]
    for base in env.get("XDG_CONFIG_DIRS", "/etc/xdg").split(":"):
        paths.insert(0, Path(base, "pip", "pip.conf"))
    home = env.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    paths += [Path("~/.pip/pip.conf").expanduser(), Path(home, "pip", "pip.conf")]
    paths += [Path(sys.prefix, "pip.conf"), *([Path(named)] if named else [])]
    found: dict[str, str] = {}
    if named != os.devnull:  # which says: no files at all
        parser = configparser.RawConfigParser(strict=False)
        try:
            parser.read(paths, encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError):
            parser.clear()  # pip itself would say what is wrong with it
        for section in ("global", "install", "download"):
            if parser.has_section(section):
                found |= {k.replace("_", "-"): v for k, v in parser.items(section)}
    for name, value in env.items():
        if name.startswith("PIP_") and value:
            found[name.removeprefix("PIP_").lower().replace("_", "-")] = value
    if found.get("no-index", "").lower() in ("0", "false", "no", "off"):
        del found["no-index"]
    return found
