"""%wasi: its subcommands, their help and completion, and what is said of wrong use."""

from __future__ import annotations

import pytest

from wasi_kernel import Sandbox


@pytest.fixture(scope="module")
def box():
    with Sandbox() as box:
        box.run("from wasi_agent.inside import SUBCOMMANDS")
        yield box


def test_help_lists_all_subcommands(box):
    result = box.run("%wasi help")
    names = box.run("print(*SUBCOMMANDS)").stdout.split()
    assert {"info", "limits", "frontend"} <= set(names)
    for name in names:
        assert f"%wasi {name}" in result.text


def test_each_subcommand_has_help(box):
    for name in box.run("print(*SUBCOMMANDS)").stdout.split():
        said = box.run(f"%wasi help {name}").stdout
        assert said.startswith(f"%wasi {name}: ")
        assert len(said.splitlines()[0]) > 30


@pytest.mark.parametrize("code", ["%wasi nonsense", "%wasi help nonsense"])
def test_what_there_is_not_is_said(box, code):
    error = box.run(code).error
    assert error.ename == "UsageError"
    assert "%wasi has no subcommand 'nonsense'; there are info, " in error.evalue


def test_a_cell_that_is_not_wanted_is_refused(box):
    result = box.run("%%wasi info\nx = 1")
    assert result.error.evalue == "%wasi info takes no cell: write it with one %"


def test_subcommands_are_completed(box):
    found = box.complete("%wasi li", len("%wasi li"))
    assert "limits" in found["matches"]
    assert "info" in box.complete("%%wasi ", len("%%wasi "))["matches"]
    assert "limits" in box.complete("%wasi help li", len("%wasi help li"))["matches"]


def test_info_is_what_is_shown_without_a_name(box):
    assert box.run("(%wasi).to_dict().keys() == (%wasi info).to_dict().keys()").error is not None
    box.run("a = %wasi\nb = %wasi info")
    assert box.run("a.to_dict().keys() == b.to_dict().keys()").text == "True"
