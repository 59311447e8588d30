"""Shows that the pages in docs/ are true: their examples are run, their reference is the code's.

The blocks of policies.md are run one after the other, as a reader would, in a home folder of their
own: files are written, commands go to a shell, cells to a real kernel of the kernelspec that the
block names. What the page says that they print is compared; `...` stands for anything.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import pytest
from reading import DOCS, Block, Reader, agrees, blocks, commands

import wasi_kernel
from wasi_kernel.cli import library, magics, policies, reference
from wasi_kernel.policy import FRONTENDS, CheckpointLimits, Grant, Limits, Policy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    found = Reader(tmp_path / "home")
    yield found
    found.close()


@pytest.mark.timeout(300)
def test_the_examples_do_what_the_page_says(reader: Reader):
    found = blocks((DOCS / "policies.md").read_text())
    assert [b.language for b in found].count("toml") == 3
    shown = 0
    for k, block in enumerate(found):
        where = f"docs/policies.md:{block.line}"
        if block.language == "console":
            for command, printed in commands(block.text):
                said = reader.shell(command)
                assert agrees(printed, said), f"{where}: $ {command}\n{said}"
        elif block.about.startswith("kernel="):
            said = reader.cell(block.about.removeprefix("kernel="), block.text)
            told = found[k + 1] if found[k + 1 : k + 2] else None
            expected = told.text if told is not None and told.language == "text" else ""
            assert agrees(expected, said), f"{where}:\n{block.text}\n{said}"
            shown += 1
        elif block.language in ("toml", "python"):
            (reader.cwd / block.about).write_text(block.text)
        else:
            assert block.language == "text", where
    assert shown >= 10


def test_a_page_that_is_wrong_is_seen():
    assert agrees("a ...\nc\n", "a b\nb\nc")
    assert not agrees("a ...\nc\n", "a b\nb\nc\nd")
    assert not agrees("", "something")
    assert list(commands("$ x y\n1\n2\n$ z\n")) == [("x y", "1\n2\n"), ("z", "")]
    (block,) = blocks("text\n```python a.py\nx = 1\n```\n")
    assert block == Block("python", "a.py", "x = 1\n", 2)


def _anchors(text: str) -> set[str]:
    heads = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def test_links_between_the_pages_lead_somewhere():
    wrong = []
    for path in [*DOCS.rglob("*.md"), *DOCS.parent.glob("*.md")]:
        for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
            if re.match(r"[a-z]+:", target):
                continue  # elsewhere: what is there is not for a test to say
            page, _, anchor = target.partition("#")
            to = path.parent / page if page else path
            if not to.exists() or (anchor and anchor not in _anchors(to.read_text())):
                wrong.append(f"{path.name}: {target}")
    assert not wrong


def test_the_index_has_every_page():
    index = (DOCS / "README.md").read_text()
    pages = [*DOCS.glob("*.md"), *DOCS.glob("*/README.md")]
    assert [p for p in pages if f"]({p.relative_to(DOCS)})" not in index] == [DOCS / "README.md"]


# -- the reference -------------------------------------------------------------------------------


def test_the_reference_is_what_the_generator_makes():
    """If it is not: wasi-kernel policy-reference > docs/policy-reference.md"""
    assert (DOCS / "policy-reference.md").read_text() == reference.page()


def test_the_magics_are_those_that_a_guest_has():
    """If they are not: wasi-kernel magics-reference > docs/magics.md"""
    assert (DOCS / "magics.md").read_text() == magics.page()


def test_a_magic_without_a_docstring_is_named():
    found = {"quiet": {"doc": "", "kinds": ["line"]}}
    with pytest.raises(ValueError, match="%quiet, %wasi dark"):
        magics.written(found, [{"name": "dark", "summary": "", "doc": "", "cell": False}])


def test_every_magic_and_subcommand_has_its_place():
    found = {
        "both": {"doc": "Does it.\n\n``%both`` shows.", "kinds": ["line", "cell"]},
        "alias": {"doc": "Does it.\n\n``%both`` shows.", "kinds": ["line"]},
        "never": {"doc": "Not in the sandbox: no a|b.", "kinds": ["cell"]},
        "wasi": {"doc": "All.", "kinds": ["line", "cell"]},
    }
    page = magics.written(
        found, [{"name": "new", "summary": "what is new", "doc": "Shows.", "cell": True}]
    )
    assert "## `%wasi`\n\nAll.\n" in page
    assert "### `%%wasi new`\n\nIn short: what is new.\n\nShows.\n" in page
    assert "### `%alias`, `%both` `%%both`\n\nDoes it.\n\n`%both` shows.\n" in page
    assert "| `%%never` | no a\\|b. |" in page


def test_the_library_reference_is_what_the_generator_makes():
    """If it is not: wasi-kernel library-reference > docs/library.md"""
    assert (DOCS / "library.md").read_text() == library.page()


def test_the_library_reference_explains_all_that_is_exported():
    page = library.page()
    assert set(library.CLASSES) == {n for n in wasi_kernel.__all__ if n != "__version__"}
    assert not re.findall(r"^##.*\n\n+(?=##)", page, re.MULTILINE)  # each has a text
    assert "_worker" not in page


def test_the_reference_has_every_field():
    page = reference.page()
    for prefix, kind in (("", Policy), ("limits.", Limits), ("checkpoints.", CheckpointLimits),
                         ("grants[].", Grant)):  # fmt: skip
        for each in fields(kind):
            if each.name not in ("limits", "checkpoints"):
                assert f"\n### `{prefix}{each.name}`\n" in page


def test_every_option_of_a_policy_is_in_the_reference():
    page = reference.page()
    others = {"start", "pairs", "force", "requirements"}
    for option in policies.options():
        if option.name not in others:
            assert f"`{option.opts[0]}" in page


def test_what_is_allowed_is_what_the_policys_check_says():
    page = reference.page()
    assert "- Allowed: from 128 MiB to 4 GiB\n- Option: `--memory SIZE`" in page
    assert f"- Allowed: one of {', '.join(FRONTENDS)}" in page
    assert '- Default: `"2 GiB"`' in page


@dataclass(frozen=True)
class Undocumented:
    """Has a field.

    Attributes:
        other: Not the one that it has.
    """

    field: int = 0


@dataclass(frozen=True)
class Unchecked:
    """Has a field.

    Attributes:
        field: Which nothing checks.
    """

    field: int = 0


@pytest.mark.parametrize("kind", [Undocumented, Unchecked])
def test_a_field_without_words_or_check_is_an_error(kind: type):
    with pytest.raises(ValueError, match="field"):
        list(reference._keys(kind, ""))
