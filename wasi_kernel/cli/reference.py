"""Reference: every key of a policy file as Markdown, for docs/policy-reference.md.

Nothing is said here about any single key: a key's meaning is in the docstring of its class in
policy.py, its default is the field's, its form comes from its type, what is allowed is what the
policy's own check answers to a value that nothing allows, and its option is the one of policies.py
that sets it. A new field that is documented there is in the reference.
"""

from __future__ import annotations

import inspect
import re
import typing
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any

import click

from wasi_kernel import policyfile
from wasi_kernel.cli import policies
from wasi_kernel.errors import PolicyError
from wasi_kernel.policy import Grant, Policy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from dataclasses import Field

FORMS = {
    bool: "`true` or `false`", int: "whole number", float: "number", str: "text", type(None): "",
}  # fmt: skip
SIZE = 'whole number of bytes, or text with a unit: `"512 MiB"`, `"2GB"`'

HEAD = """\
# Policy reference

Every key of a policy file (TOML). This page is generated from the code:
`wasi-kernel policy-reference > docs/policy-reference.md`. What policies are, and three that are
worked out, is in [policies.md](policies.md).

A key that is not set has its default. The options are those of `wasi-kernel install`, `run` and
`session resume`; any key can also be set with `--set KEY=VALUE`, and a whole file be taken with
`--policy FILE`. From Python, `Policy.load(FILE)` reads a file, and `Policy(...)`, `Limits(...)` and
their like take the same names.

What is wrong with a file is said all at once, each line with the key, its value and what is
allowed; a kernel says it in its cells.
"""


@dataclass(frozen=True)
class Key:
    """One key.

    Attributes:
        name: With the tables that it is in: `limits.cell_s`.
        form: How its value is written.
        default: What holds if it is not set, as TOML; empty if it must be set.
        allowed: Which values may stand there; empty if the form says it all.
        effect: What it does.
        option: The command line's; empty if it has none.
    """

    name: str
    form: str
    default: str
    allowed: str
    effect: str
    option: str


def page() -> str:
    """The whole page.

    Raises:
        ValueError: A field is not documented, or nothing checks its value.
    """
    parts = [HEAD]
    keys = list(_keys(Policy, ""))
    keys += [Key(name, *about, _option(name)) for name, about in policyfile.FILE_ONLY.items()]
    for table in dict.fromkeys(key.name.rpartition(".")[0] for key in keys):
        title = f"`[{table}]`" if table else "Keys outside of tables"
        inside = [_entry(key) for key in keys if key.name.rpartition(".")[0] == table]
        parts.append("\n".join([f"## {title}\n", *inside]))
    grants = [_entry(key) for key in _keys(Grant, "grants[].")]
    parts.append("\n".join(["## Each of `grants`\n", policyfile.GRANT_FORM, *grants]))
    return "\n".join(parts)


def _entry(key: Key) -> str:
    """A key's paragraph."""
    rows = {
        "Type": key.form, "Default": key.default or "none: it must be set",
        "Allowed": key.allowed, "Option": key.option and f"`{key.option}`",
    }  # fmt: skip
    effect = re.sub(r"\bNone\b", "not set", key.effect.replace("None:", "Not set:"))
    lines = [f"- {name}: {text}" for name, text in rows.items() if text]
    return "\n".join([f"### `{key.name}`\n", f"{effect}\n", *lines, ""])


def _keys(kind: type[Any], prefix: str) -> Iterator[Key]:
    """The keys of a class of policy.py, and those of the classes in it."""
    docs, types = _attributes(kind), typing.get_type_hints(kind)
    for each in fields(kind):
        name, annotated = f"{prefix}{each.name}", types[each.name]
        if is_dataclass(annotated):
            yield from _keys(typing.cast("type[Any]", annotated), f"{name}.")
            continue
        size = each.name in (*policyfile.SIZES, "bytes")
        yield Key(
            name, SIZE if size else _form(annotated), _default(each, size=size),
            _allowed(kind, name, annotated, size=size), docs[each.name], _option(name),
        )  # fmt: skip


def _attributes(kind: type[Any]) -> dict[str, str]:
    """{field: what its class's docstring says of it}."""
    section = (inspect.getdoc(kind) or "").partition("Attributes:\n")[2].partition("\n\n")[0]
    found: dict[str, str] = {}
    for line in section.splitlines():
        match = re.fullmatch(r"    (\w+): (.*)", line)
        if match is not None:
            found[match[1]] = match[2]
        elif found:
            found[list(found)[-1]] += f" {line.strip()}"
    missing = [each.name for each in fields(kind) if each.name not in found]
    if missing:
        raise ValueError(f"the docstring of {kind.__name__} says nothing of {', '.join(missing)}")
    return found


def _form(annotated: Any) -> str:
    """How a value of this type is written in TOML."""
    if annotated in FORMS:
        return FORMS[annotated]
    origin, inner = typing.get_origin(annotated), typing.get_args(annotated)
    if origin is tuple:
        return f"list of {FORMS[inner[0]]}" if inner[0] in FORMS else "list"
    if origin is dict:
        return f"table of {FORMS[inner[1]]}"
    return ", or ".join(filter(None, map(_form, inner)))  # a union


def _default(each: Field[Any], *, size: bool) -> str:
    """A field's default, as it would be written; empty if there is none."""
    value = each.default_factory() if callable(each.default_factory) else each.default
    if value is MISSING:
        return ""
    if value is None:
        return "not set"
    if size:
        return f'`"{_readable(value)}"`'
    plain = list(value) if isinstance(value, tuple) else value
    written = policyfile.toml({"x": plain}).strip().removeprefix("x = ") if plain != {} else "{}"
    if isinstance(plain, list):  # tomli_w writes an item in a line
        written = ", ".join(line.strip().rstrip(",") for line in written.splitlines()[1:-1])
        written = f"[{written}]"
    return f"`{written}`"


def _allowed(kind: type[Any], name: str, annotated: Any, *, size: bool) -> str:
    """What the policy's own check says of a value that nothing allows, and of one inside it."""
    if annotated is bool:
        return ""
    last = name.rpartition(".")[2]
    found = ""
    for wrong in (object(), (object(),), {"A": object()}):
        try:
            if kind is Grant:
                given: dict[str, Any] = {"host_path": "/a", "guest_path": "/a", last: wrong}
                Policy(grants=(Grant(**given),))
            else:
                kind(**{last: wrong})
        except PolicyError as e:
            if "[" in e.key.removeprefix("grants[0]") or e.key.startswith("env."):
                return f"each: {_in_words(e.allowed, size=size)}"
            found = found or e.allowed
    if not found:
        raise ValueError(f"nothing checks {name}")
    return _in_words(found, size=size)


def _in_words(allowed: str, *, size: bool) -> str:
    """The same with sizes as people write them."""
    if not size:
        return re.sub(r"\bNone\b", "not set", re.sub(r"(\d)\.0\b", r"\1", allowed))
    found = re.sub(r"\d{4,}", lambda match: _readable(int(match[0])), allowed)
    return found.replace("a whole number from", "from")


def _readable(size: int) -> str:
    for unit, name in ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if size >= unit and size % unit == 0:
            return f"{size // unit} {name}"
    return f"{size} bytes"


def _option(key: str) -> str:
    """The option that sets a key, with what follows it; `--set` if it has none of its own."""
    if key.startswith("grants[]"):
        return ""
    wanted = policies.OPTION_OF.get(key, key.rpartition(".")[2]).split()
    found = []
    for option in policies.options():
        if option.name in wanted:
            names = " / ".join([*option.opts, *option.secondary_opts])
            value = "" if option.is_flag else f" {option.make_metavar(click.Context(_none))}"
            found.append(f"{names}{value}")
    return "`, `".join(found) or f"--set {key}=VALUE"


_none = click.Command("none")


@click.command("policy-reference", hidden=True)
def policy_reference() -> None:
    """Print the reference of policy files as Markdown."""
    click.echo(page(), nl=False)
