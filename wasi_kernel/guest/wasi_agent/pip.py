"""%pip: what is installed. Installing is the policy's, on the host."""

from __future__ import annotations

from typing import TYPE_CHECKING

from IPython.core.error import UsageError

if TYPE_CHECKING:
    from importlib.metadata import Distribution

INSTALLING = frozenset(("install", "uninstall", "download", "wheel"))
ADVICE = (
    "packages are chosen in the policy; on the host: "
    "wasi-kernel install --name NAME --package {}, and use that kernel"
)


def pip(line: str) -> None:
    """Show what is installed: ``%pip list``, ``%pip show NAME``, ``%pip freeze``.

    Packages are chosen in the policy of the kernel; a cell can install none.
    """
    command, *names = line.split() or [""]
    if command in INSTALLING:
        wanted = [name for name in names if not name.startswith("-")]
        raise UsageError(ADVICE.format(" --package ".join(wanted) or "REQUIREMENT"))
    if command == "list":
        rows = [(_name(d), d.version) for d in _installed().values()]
        width = max((len(name) for name, _ in rows), default=7)
        print("\n".join(f"{name:<{width}}  {version}" for name, version in rows))
    elif command == "freeze":
        print("\n".join(f"{_name(d)}=={d.version}" for d in _installed().values()))
    elif command == "show" and names:
        _show(names)
    else:
        raise UsageError("%pip list, %pip show NAME or %pip freeze")


def _name(distribution: Distribution) -> str:
    return str(distribution.metadata["Name"])


def _plain(name: str) -> str:
    import re

    return re.sub(r"[-_.]+", "-", name).lower()


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
