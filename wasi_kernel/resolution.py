"""Resolutions: which wheels fulfil a guest's requirements.

A resolution is made by uv (resolver.py) for the guest's Python, with what the runtime has built in
fixed at its versions. Versions are the ones that anyone would get: where the newest needs native
code, that is said, with the older versions that would do without, and not decided silently.

Never imports wasmtime or anything of Jupyter; nothing of a package runs on the host.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tomllib
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from wasi_kernel import requirements as asked
from wasi_kernel import resolver, wheels
from wasi_kernel.alternatives import INSTEAD
from wasi_kernel.environments import GUEST_MARKERS
from wasi_kernel.errors import (
    DownloadError,
    HashMismatchError,
    NativePackageError,
    UnsatisfiableError,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from wasi_kernel.caches import Cache
    from wasi_kernel.requirements import Wanted
    from wasi_kernel.runtimes import Runtime

FORMAT = "1"
"""Another one when what is unpacked of a wheel changes: older sets are made again."""

WORK = "fetches"
"""Name of the cache's folder in which a resolver works, and wheels are while they are fetched."""

OLDEST = "3.11"
"""A Python for which native packages still publish wheels, when the guest's is too new for them."""


@dataclass(frozen=True)
class Distribution:
    """One distribution to install.

    Attributes:
        name: Normalized.
        version: Normalized.
        file: The wheel's file name.
        url: Where it is: https, http, or file for one on this machine.
        sha256: Of the wheel, hex.
        direct: Did the requirement give this URL, and not an index?
    """

    name: str
    version: str
    file: str
    url: str
    sha256: str
    direct: bool = False

    @property
    def host_path(self) -> Path | None:
        """The wheel's file, if it is on this machine."""
        parts = urlsplit(self.url)
        return Path(unquote(parts.path)) if parts.scheme == "file" else None


@dataclass(frozen=True)
class Resolution:
    """What fulfils some requirements.

    Attributes:
        python: The guest's Python, "3.15".
        distributions: What to install, sorted by name.
        builtins: What the runtime has already of what is required, {name: version}.
        notes: What the user should know, in sentences.
    """

    python: str
    distributions: tuple[Distribution, ...]
    builtins: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """The name of the folder that has these distributions for this Python."""
        facts = [[d.name, d.version, d.sha256] for d in self.distributions]
        text = json.dumps([FORMAT, self.python, facts])
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def to_dict(self) -> dict[str, Any]:
        """The resolution as JSON-able data; `from_dict` reads it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Resolution:
        """The resolution that `to_dict` gave."""
        return cls(
            data["python"],
            tuple(Distribution(**each) for each in data["distributions"]),
            tuple((name, version) for name, version in data["builtins"]),
            tuple(data["notes"]),
        )


def markers(python: str) -> dict[str, str]:
    """What markers of requirements are compared with, in a guest with Python `python` ("3.15")."""
    versions = {"python_version": python, "python_full_version": f"{python}.0",
                "implementation_version": f"{python}.0"}  # fmt: skip
    return {**GUEST_MARKERS, "platform_release": "0.0.0", "platform_version": "0.0.0", **versions}


def builtins(runtime: Runtime) -> dict[str, str]:
    """{name: version} of the distributions in a runtime's library; it must be unpacked.

    Not `Runtime.packages`: this names C libraries too, and what was needed for building.
    """
    import zipfile

    from packaging.utils import canonicalize_name

    found: dict[str, str] = {}
    for archive in runtime.files:
        if archive.suffix == ".zip":
            with zipfile.ZipFile(archive) as library:
                tops = {name.partition("/")[0] for name in library.namelist()}
            for top in tops:
                name, _, version = top.removesuffix(".dist-info").rpartition("-")
                if top.endswith(".dist-info") and name:
                    found[canonicalize_name(name)] = version
    return found


def resolve(
    cache: Cache,
    requirements: Iterable[str | Wanted],
    python: str = "3.15",
    builtins: Mapping[str, str] | None = None,
    constraints: Iterable[str] = (),
    owners: Mapping[str, str] | None = None,
) -> Resolution:
    """The wheels that fulfil `requirements` in a guest.

    Args:
        cache: Where the resolver works.
        requirements: As text (see requirements.parse), or parsed.
        python: The guest's Python, "3.15".
        builtins: {name: version} of what the guest has already, and which cannot be changed.
            What these require in turn is taken to be there.
        constraints: Names with versions that are to fit, where one of them is wanted.
        owners: {name: what a built-in is part of}, where that is not the runtime.

    Raises:
        RequirementError: One of them is no requirement.
        UnsatisfiableError: They conflict, with each other or with a built-in, or are not found.
        NativePackageError: They lead to a package that is native code.
        HashMismatchError: An index has another file than a requirement's hash says.
        DownloadError: An index cannot be read.
        InstallationError: uv is not installed.
    """
    from packaging.utils import canonicalize_name

    wanted = [asked.parse(r) if isinstance(r, str) else r for r in requirements]
    wanted = [w for w in wanted if w.applies(markers(python))]
    if not wanted:
        return Resolution(python, ())
    with TemporaryDirectory(dir=cache.folder(WORK)) as folder:
        stubs = {
            str(canonicalize_name(name)): (version, _stub(cache, canonicalize_name(name), version))
            for name, version in (builtins or {}).items()
        }
        resolving = _Resolving(Path(folder), wanted, python, stubs, constraints, owners or {})
        return resolving.run()


class _Resolving:
    """One resolution on its way."""

    def __init__(
        self,
        folder: Path,
        wanted: list[Wanted],
        python: str,
        stubs: Mapping[str, tuple[str, Path]],
        constraints: Iterable[str],
        owners: Mapping[str, str],
    ) -> None:
        self._folder, self._wanted, self._python = folder, wanted, python
        self._why, self._used = "", set[str]()
        self._builtins = {name: version for name, (version, _) in stubs.items()}
        self._lines = [str(w) for w in wanted]
        self._constraints = [f"{name} @ {stub.as_uri()}" for name, (_, stub) in stubs.items()]
        self._constraints += constraints
        self._owners = owners

    def run(self) -> Resolution:
        """The resolution; see `resolve`."""
        found = self._lock(self._python)
        if found is None:
            explanation = self._explained(self._why)
            found = self._pure()  # perhaps it is only other platforms that have no solution
            if found is None:
                self._look_for_native()
                raise UnsatisfiableError(tuple(self._lines), explanation)
        chosen = {name: _choice(package, self._python) for name, package in found.items()}
        native = sorted(name for name, choice in chosen.items() if choice is None)
        if native:
            raise self._native(native, found, self._python)
        distributions = sorted((c for c in chosen.values() if c is not None), key=lambda c: c.name)
        return Resolution(
            self._python,
            tuple(self._check_hash(each) for each in distributions),
            tuple(sorted((n, self._builtins[n]) for n in self._used)),
            tuple(self._notes()),
        )

    def _lock(self, python: str, environment: str = "") -> dict[str, dict[str, Any]] | None:
        """{name: its entry in the lock} of what the guest needs and has not; None: no solution."""
        from packaging.markers import Marker

        answer = resolver.lock(self._folder, self._lines, self._constraints, python, environment)
        if not answer.solved:
            self._why = answer.text
            return None
        found: dict[str, dict[str, Any]] = {}
        used = set()
        for package in tomllib.loads(answer.text).get("packages", ()):
            marker = package.get("marker")
            if marker and not Marker(marker).evaluate({**markers(self._python)}):
                continue
            if package["name"] in self._builtins:
                used.add(package["name"])
            else:
                found[package["name"]] = package
        self._used = used
        return found

    def _pure(self) -> dict[str, dict[str, Any]] | None:
        """The lock if only versions with pure Python wheels count, or None: there is none."""
        facts = {**GUEST_MARKERS, "python_version": self._python}
        environment = " and ".join(f"{name} == '{value}'" for name, value in facts.items() if value)
        found = self._lock(self._python, environment)
        if found is None or not all(_choice(p, self._python) for p in found.values()):
            return None
        return found

    def _explained(self, explanation: str) -> str:
        """The resolver's explanation, with what the runtime has to do with it."""
        words = set(re.findall(r"[a-z0-9][a-z0-9._-]*[a-z0-9]", explanation.lower()))
        for name in sorted(words & self._builtins.keys()):
            owner = self._owners.get(name, "the runtime")
            explanation += f" ({name} {self._builtins[name]} is part of {owner}.)"
        return explanation

    def _look_for_native(self) -> None:
        """Raises NativePackageError if all would be well but for wheels for this Python."""
        found = self._lock(OLDEST) or {}
        native = sorted(n for n, package in found.items() if _choice(package, self._python) is None)
        if native:
            raise self._native(native, found, OLDEST)

    def _native(
        self, native: list[str], found: dict[str, dict[str, Any]], python: str
    ) -> NativePackageError:
        """The error that names native packages of a lock that was made for Python `python`."""
        reasons = resolver.reasons(self._folder, self._lines, self._constraints, python)
        chains = sorted((_chain(name, reasons) for name in native), key=lambda c: (len(c), c))
        pure = self._pure() or {}
        versions = [
            f"{name}=={package['version']}"
            for name, package in sorted(pure.items())
            if name in found and package.get("version") != found[name].get("version")
        ]
        name = chains[0][-1]
        return NativePackageError(
            chains[0],
            found[name].get("version", ""),
            instead=INSTEAD.get(name, ""),
            versions=tuple(versions),
            names=tuple(native),
        )

    def _check_hash(self, distribution: Distribution) -> Distribution:
        for wanted in self._wanted:
            allowed = wanted.hashes
            if wanted.name == distribution.name and allowed and distribution.sha256 not in allowed:
                expected = " or ".join(sorted(allowed))
                raise HashMismatchError(distribution.file, expected, distribution.sha256)
        return distribution

    def _notes(self) -> list[str]:
        return [
            f"{w.name} is part of {self._owners.get(w.name, 'the runtime')}; what its extras "
            f"{', '.join(w.extras)} need is not looked up: name it as well"
            for w in self._wanted
            if w.extras and w.name in self._builtins
        ]


def _stub(cache: Cache, name: str, version: str) -> Path:
    """A wheel that says that it is a built-in and has nothing in it.

    It stays where it is: uv keeps a copy of every other one in its own cache.
    """
    import zipfile

    stem = f"{name.replace('-', '_')}-{version}"
    path = cache.folder("builtins") / f"{stem}-py3-none-any.whl"
    if path.exists():
        return path
    new = path.with_name(f".new-{os.getpid()}-{path.name}")
    with zipfile.ZipFile(new, "w") as stub:
        for file, text in (
            ("METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"),
            ("WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"),
            ("RECORD", ""),
        ):
            stub.writestr(f"{stem}.dist-info/{file}", text)
    new.replace(path)
    return path


def _choice(package: dict[str, Any], python: str) -> Distribution | None:
    """The wheel to take of a package in a lock; None: none of them is pure Python."""
    direct = "archive" in package
    for wheel in [package["archive"]] if direct else package.get("wheels", ()):
        url = wheel.get("url") or Path(wheel["path"]).absolute().as_uri()
        file = wheel.get("name") or unquote(urlsplit(url).path).rpartition("/")[2]
        if wheels.tags_fit(file, python):
            name, version = package["name"], _version(package, file)
            found = Distribution(name, version, file, url, _sha256(wheel), direct=direct)
            path = found.host_path
            if path is not None and not found.sha256:
                found = replace(found, sha256=wheels.digest(path))
            if not found.sha256:
                raise DownloadError(file, "its index gives no SHA-256 of it")
            return found
    return None


def _sha256(wheel: dict[str, Any]) -> str:
    return str(wheel.get("hashes", {}).get("sha256", ""))


def _version(package: dict[str, Any], file: str) -> str:
    """The version in a lock, which need not name that of a wheel given by its URL."""
    from packaging.utils import parse_wheel_filename
    from packaging.version import Version

    said = package.get("version")
    return str(Version(said) if said else parse_wheel_filename(file)[1])


def _chain(name: str, reasons: dict[str, list[str]]) -> tuple[str, ...]:
    """The shortest way from a requirement of the user to `name`."""
    ways: list[tuple[str, ...]] = [(name,)]
    seen = {name}
    for way in ways:  # grows while it is walked: the nearest first
        above = reasons.get(way[0], [""])
        if "" in above:
            return way
        for each in above:
            if each not in seen:
                seen.add(each)
                ways.append((each, *way))
    return (name,)
