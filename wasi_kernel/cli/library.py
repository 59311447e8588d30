"""Reference of the library as Markdown, for docs/library.md.

What is there is what `wasi_kernel` exports and its exceptions, with the signatures and docstrings
that the code has. Nothing is said here about any of them.
"""

from __future__ import annotations

import inspect
import re
from textwrap import dedent
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Iterator

HEAD = """\
# Library reference

What `import wasi_kernel` offers to programs. This page is generated from the code:
`wasi-kernel library-reference > docs/library.md`. Programs to begin from are in
[embedding.md](embedding.md); the fields of a policy are explained in
[policy-reference.md](policy-reference.md) as well.
"""

SECTION = re.compile(r"^(Args|Attributes|Raises|Returns):$", re.MULTILINE)
CLASSES = ("Sandbox", "Result", "Policy", "Grant", "Limits", "CheckpointLimits")


def page() -> str:
    """The whole page."""
    import wasi_kernel
    from wasi_kernel import errors

    parts = [HEAD]
    for name in CLASSES:
        parts += _of_class(getattr(wasi_kernel, name))
    parts.append("## Errors\n\nAll are in `wasi_kernel.errors`; each is a `WasiKernelError`.\n")
    for one in vars(errors).values():
        if inspect.isclass(one) and issubclass(one, errors.WasiKernelError):
            parts.append(f"### {one.__name__}\n\n{_text(one)}")
    return "\n".join(parts)


def _of_class(one: type) -> Iterator[str]:
    yield f"## {one.__name__}\n\n```text\n{_signature(one.__name__, one)}\n```\n\n{_text(one)}"
    for name, member in vars(one).items():
        if name.startswith("_"):
            continue
        if isinstance(member, property):
            yield f"### {one.__name__}.{name}\n\n{_text(member)}"
        elif isinstance(member, classmethod) or inspect.isfunction(member):
            bound = getattr(one, name)
            shown = _signature(f"{one.__name__}.{name}", bound)
            yield f"### {one.__name__}.{name}\n\n```text\n{shown}\n```\n\n{_text(bound)}"


def _signature(name: str, one: object) -> str:
    """How it is called, without what only this project's own code passes."""
    found = inspect.signature(one)  # type: ignore[arg-type]
    given = [
        p.replace(annotation=inspect.Parameter.empty)
        for p in found.parameters.values()
        if p.name != "self" and not p.name.startswith("_")
    ]
    return f"{name}{found.replace(parameters=given, return_annotation=inspect.Signature.empty)}"


def _text(one: object) -> str:
    """Its docstring as Markdown."""
    doc = inspect.getdoc(one) or ""
    head, *sections = SECTION.split(doc)
    parts = [head.strip()]
    for title, body in zip(sections[::2], sections[1::2], strict=True):
        lines = dedent(body.strip("\n")).splitlines()
        shown = [re.sub(r"^(\w[\w.]*):", r"- `\1`:", line) for line in lines]
        parts.append(f"{title}:\n\n" + "\n".join(shown).strip())
    return "\n\n".join(parts) + "\n"


@click.command("library-reference", hidden=True)
def library_reference() -> None:
    """Print the reference of the library as Markdown."""
    click.echo(page(), nl=False)
