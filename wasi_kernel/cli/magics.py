"""Reference of magics as Markdown, for docs/magics.md.

Nothing is said here about any single magic: a guest is asked for all that its agent has
registered, and for the subcommands of %wasi, with their docstrings. A new one is in the reference.
"""

from __future__ import annotations

import json
from itertools import groupby
from typing import Any

import click

HEAD = """\
# Magics

Every magic that this kernel adds to IPython's, changes or refuses. This page is generated from the
code: `wasi-kernel magics-reference > docs/magics.md`. `NAME?` shows the same in a notebook, and
IPython's other magics are as its own documentation says.
"""

ASK = """
def _all_magics():
    import inspect, json
    from wasi_agent import inside
    shell = get_ipython()
    found = {}
    for kind, magics in shell.magics_manager.magics.items():
        for name, magic in magics.items():
            if (getattr(magic, "__module__", None) or "").startswith("wasi_agent"):
                doc = inspect.getdoc(magic) or ""
                found.setdefault(name, {"doc": doc, "kinds": []})["kinds"].append(kind)
    subcommands = []
    for name, each in inside.SUBCOMMANDS.items():
        module = shell.magics_manager.registry["WasiMagics"]._module(each)
        doc = inspect.getdoc(module.run) or ""
        subcommands.append({"name": name, "cell": each.cell, "summary": each.summary, "doc": doc})
    return json.dumps({"magics": found, "subcommands": subcommands})
print(_all_magics())
"""

REFUSAL = "Not in the sandbox: "
"""How the docstring of a refusal begins; see the guest's magics.py."""


def page() -> str:
    """The whole page; starts a guest.

    Raises:
        WasiKernelError: No guest can be started.
        ValueError: A magic is not documented.
    """
    from wasi_kernel.sandbox import Sandbox  # of this module's users, few want the page

    with Sandbox() as box:
        said = json.loads(box.run(ASK).stdout)
    return written(said["magics"], said["subcommands"])


def written(magics: dict[str, dict[str, Any]], subcommands: list[dict[str, Any]]) -> str:
    """The page of these magics.

    Args:
        magics: {name: its `doc` and `kinds` ("line", "cell")}.
        subcommands: Those of %wasi: `name`, `summary`, `doc`, and does it take a `cell`?

    Raises:
        ValueError: One is not documented.
    """
    missing = [name for name, each in magics.items() if not each["doc"]]
    missing += [f"wasi {each['name']}" for each in subcommands if not each["doc"]]
    if missing:
        raise ValueError(f"nothing is said of %{', %'.join(sorted(missing))}")
    refused = {n: m["doc"] for n, m in magics.items() if m["doc"].startswith(REFUSAL)}
    works = {n: m for n, m in magics.items() if n not in refused and n != "wasi"}
    parts = [HEAD, "## `%wasi`\n", f"{_text(magics['wasi']['doc'])}\n" if "wasi" in magics else ""]
    for each in subcommands:
        parts.append(f"### `{'%' * (1 + each['cell'])}wasi {each['name']}`\n")
        parts.append(f"In short: {each['summary']}.\n\n{_text(each['doc'])}\n")
    parts.append("## Other magics\n")
    by_doc = groupby(sorted(works, key=lambda n: (works[n]["doc"], n)), lambda n: works[n]["doc"])
    alike = sorted(((list(names), doc) for doc, names in by_doc), key=lambda pair: pair[0])
    for names, doc in alike:
        titles = [_title(name, works[name]["kinds"]) for name in names]
        parts.append(f"### {', '.join(titles)}\n\n{_text(doc)}\n")
    parts.append("## Not in the sandbox\n")
    parts.append("They need what a sandbox does not have, and say so.\n")
    parts.append("| magic | what it says |\n|---|---|")
    for name, doc in sorted(refused.items()):
        said = doc.removeprefix(REFUSAL).replace("|", "\\|")
        parts.append(f"| {_title(name, magics[name]['kinds'])} | {said} |")
    return "\n".join([*parts, ""])


def _title(name: str, kinds: list[str]) -> str:
    marks = [mark for kind, mark in (("line", "%"), ("cell", "%%")) if kind in kinds]
    return " ".join(f"`{mark}{name}`" for mark in marks)


def _text(doc: str) -> str:
    """A docstring as Markdown."""
    return doc.replace("``", "`")


@click.command("magics-reference", hidden=True)
def magics_reference() -> None:
    """Print the reference of magics as Markdown."""
    click.echo(page(), nl=False)
