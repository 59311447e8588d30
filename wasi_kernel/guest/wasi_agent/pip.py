"""%pip: what is installed; and installing, which the host does if the policy lets cells ask for it.

What is asked for comes as a set in a folder of its own below `ROOT`; here it is put on `sys.path`,
behind what the interpreter and the policy bring. So the sets in use are a matter of memory: `%undo`
takes an installation back like anything else.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import shlex
import sys
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from importlib.metadata import Distribution

    from wasi_agent.calls import Result

ROOT = "/opt/installed"
ADVICE = (
    "packages are chosen in the policy; on the host: "
    "wasi-kernel install --name NAME --package {}, and use that kernel. "
    "With pip = true in the policy (--pip) cells may install packages themselves"
)
USAGE = "%pip install, %pip list, %pip show NAME or %pip freeze"

FLAGS = {
    "-U": "upgrade", "--upgrade": "upgrade", "-q": "quiet", "--quiet": "quiet", "-qq": "quiet",
    "-v": "", "--verbose": "", "--user": "", "--no-cache-dir": "", "--no-input": "",
    "--disable-pip-version-check": "", "--prefer-binary": "", "--only-binary=:all:": "",
    "--no-warn-script-location": "", "--no-color": "", "--progress-bar=off": "",
}  # fmt: skip
"""Options of `install`: what they switch on; "" for those that change nothing here."""

FILES = ("-r", "--requirement")
MAX_FILE_CHARACTERS = 1 << 20
_COMMENT = re.compile(r"(^|\s)#.*$")


class Pip:
    """The magic; `facts` gives what the host says of this session."""

    def __init__(self, facts: Callable[[], dict[str, Any]]) -> None:
        self._facts = facts

    def pip(self, line: str) -> None:
        """Show what is installed, or install more where the policy allows it.

        ``%pip list``, ``%pip show NAME``, ``%pip freeze``; ``%pip freeze --to-policy`` prints
        what the policy has to say for a kernel that has these packages from its start.

        ``%pip install [-U] [-q] [-r FILE] REQUIREMENT ...`` installs pure-Python packages of the
        host's index, with what they need, for this session; variables stay.
        """
        try:
            command, *words = shlex.split(line, comments=True) or [""]
        except ValueError as e:
            raise UsageError(f"%pip {line}: {e}") from None
        if command == "install":
            self._install(words)
        elif command == "uninstall":
            raise UsageError(_uninstalling(words))
        elif command in ("download", "wheel"):
            raise UsageError(f"%pip {command}: nothing can be done with wheels here; {USAGE}")
        elif command == "list":
            rows = [(_name(d), d.version) for d in _installed().values()]
            width = max((len(name) for name, _ in rows), default=7)
            print("\n".join(f"{name:<{width}}  {version}" for name, version in rows))
        elif command == "freeze" and words == ["--to-policy"]:
            print(self._for_policy())
        elif command == "freeze" and not words:
            print("\n".join(f"{_name(d)}=={d.version}" for d in _installed().values()))
        elif command == "show" and words:
            _show(words)
        else:
            raise UsageError(USAGE)

    def _install(self, words: list[str]) -> None:
        wanted, switched = _arguments(words)
        if not self._facts().get("pip"):
            raise UsageError(ADVICE.format(" --package ".join(map(shlex.quote, wanted))))
        said = install(wanted, upgrade="upgrade" in switched, quiet="quiet" in switched)
        if "quiet" not in switched:
            for name, version, where in said["there"]:
                print(f"Requirement already satisfied: {name} {version} ({where})")
            if said["packages"]:
                names = " ".join(f"{name}-{version}" for name, version in said["packages"])
                print(f"Successfully installed {names}")
        loaded = [f"{name} {version}" for name, version in said["replaced"] if _is_loaded(name)]
        if loaded:
            print(
                f"Imported already: {', '.join(loaded)}. What is loaded stays as it is; a kernel "
                "that is restarted, and installs first, uses the new version", file=sys.stderr,
            )  # fmt: skip

    def _for_policy(self) -> str:
        """The lines of a policy, and the command that makes a kernel with it."""
        facts = self._facts()
        own = [f"{_plain(_name(d))}=={d.version}" for d in _installed().values() if _is_ours(d)]
        names = {text.partition("==")[0] for text in own}
        before = [text for text in facts.get("packages", []) if _named(text) not in names]
        name = facts.get("kernelspec") or ""
        command = ["wasi-kernel", "install"]
        command += ["--replace", "--name", name, "--like", name] if name else ["--name", "NAME"]
        command += [word for text in own for word in ("--package", text)]
        listed = "".join(f"    {json.dumps(text)},\n" for text in (*before, *own))
        return (
            "# in the kernel's policy.toml:\n"
            f"packages = [\n{listed}]\n"
            f"# or, on the host:\n# {shlex.join(command)}"
        )


def install(wanted: list[str], *, upgrade: bool = False, quiet: bool = False) -> dict[str, Any]:
    """Has the host install packages, and puts them on `sys.path`.

    Returns:
        What the host says: `packages` that are new, `replaced`, `there`.

    Raises:
        UsageError: They cannot be had; the user has been told why.
    """
    from wasi_agent import agent

    door = agent._door  # noqa: SLF001 - of the same package
    sets = [os.path.basename(path) for path in sys.path if os.path.dirname(path) == ROOT]
    content = {"requirements": wanted, "upgrade": upgrade, "quiet": quiet, "sets": sets}
    said = door.ask("pip_request", content).content
    if said.get("status") != "ok":
        raise UsageError(f"nothing was installed ({said.get('ename', 'no answer')})")
    path = said["path"]
    if path:
        if path in sys.path:
            sys.path.remove(path)
        first = next((k for k, p in enumerate(sys.path) if os.path.dirname(p) == ROOT), None)
        sys.path.insert(len(sys.path) if first is None else first, path)
        importlib.invalidate_caches()
    return said


def asked(wanted: str, upgrade: bool) -> Result:
    """Installs what a list in JSON names, for who has this session; what is new."""
    from wasi_agent.calls import Result

    said = install(json.loads(wanted), upgrade=upgrade, quiet=True)
    return Result([f"{name}=={version}" for name, version in said["packages"]])


def _arguments(words: list[str]) -> tuple[list[str], set[str]]:
    """(requirements, what is switched on) of `%pip install`."""
    wanted: list[str] = []
    switched = set()
    rest = iter(words)
    for word in rest:
        option, equals, value = word.partition("=")
        if word in FLAGS:
            switched.add(FLAGS[word])
        elif option in FILES:
            wanted += _lines(value if equals else next(rest, ""))
        elif word.startswith("-r") and word[2:]:
            wanted += _lines(word[2:])
        elif word.startswith("-"):
            raise UsageError(
                f"%pip install {option}: not an option here; -U, -q and -r FILE are. Indexes and "
                "the like are set on the host, in uv's or pip's configuration"
            )
        else:
            wanted.append(word)
    if not wanted:
        raise UsageError("%pip install: name a package")
    return wanted, switched


def _lines(path: str) -> list[str]:
    """The requirements in a file of the guest's."""
    try:
        with open(path, encoding="utf-8") as f:
            text = f.read(MAX_FILE_CHARACTERS).replace("\\\n", " ")
    except (OSError, ValueError) as e:
        raise UsageError(f"%pip install -r {path}: {e}") from None
    lines = [_COMMENT.sub("", line).strip() for line in text.splitlines()]
    return [line for line in lines if line]


def _uninstalling(words: list[str]) -> str:
    known = _installed()
    ours = [n for n in words if not n.startswith("-") and _plain(n) in known]
    if ours and all(_is_ours(known[_plain(name)]) for name in ours):
        return (
            f"{', '.join(ours)} stays until the kernel is restarted; %undo, after the cell that "
            "installed it, takes that back"
        )
    return "%pip uninstall: the packages are chosen in the policy, or part of the runtime"


def _name(distribution: Distribution) -> str:
    return str(distribution.metadata["Name"])


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _named(requirement: str) -> str:
    """The name that a requirement begins with."""
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    return _plain(found[0]) if found else ""


def _is_ours(distribution: Distribution) -> bool:
    """Has a cell installed it?"""
    return str(distribution.locate_file("")).startswith(f"{ROOT}/")


def _is_loaded(name: str) -> bool:
    """Has a module of this distribution been imported?"""
    found = _installed().get(_plain(name))
    files = (found.files or ()) if found is not None else ()
    tops = {file.parts[0].removesuffix(".py") for file in files}
    return any(top in sys.modules for top in tops)


def _installed() -> dict[str, Distribution]:
    """{normalized name: distribution}, sorted; of two with one name, that which is imported."""
    from importlib.metadata import distributions

    found: dict[str, Distribution] = {}
    for each in distributions():
        if each.metadata["Name"]:
            found.setdefault(_plain(each.metadata["Name"]), each)
    return dict(sorted(found.items()))


def _show(names: list[str]) -> None:
    known = _installed()
    missing = [name for name in names if _plain(name) not in known]
    if missing:
        raise UsageError(f"not installed: {', '.join(missing)}; %pip list shows what is")
    for k, name in enumerate(names):
        each = known[_plain(name)]
        if k:
            print("---")
        print(f"Name: {_name(each)}\nVersion: {each.version}")
        print(f"Summary: {each.metadata['Summary'] or ''}")
        print(f"Location: {each.locate_file('')}")
        wanted = [r.split(";")[0].strip() for r in each.requires or () if "extra ==" not in r]
        print(f"Requires: {', '.join(wanted)}")
