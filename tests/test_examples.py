"""Shows that the programs of docs/examples do what their page says, in a small size."""

from __future__ import annotations

import importlib.util
import re
import sys
from typing import TYPE_CHECKING, Any

import pytest
from reading import DOCS

from wasi_kernel import Sandbox

if TYPE_CHECKING:
    from pathlib import Path


def example(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, DOCS / "examples" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # a dataclass looks its module up
    spec.loader.exec_module(module)
    return module


@pytest.mark.timeout(200)
def test_an_agents_turns_fail_without_traces_and_give_plots():
    with example("agent_tool").PythonTool(deadline_s=2) as tool:
        assert tool("x = [1]\nx").text == "[1]"
        failed = tool("x.append(2)\nx[9]")
        assert failed.failed
        assert failed.text.startswith("IndexError: ")
        assert tool("x").text == "[1]"
        assert tool("x.append(3)\nwhile True: pass").failed
        assert tool("x").text == "[1]"
        plotted = tool("import matplotlib.pyplot as plt\nplt.plot(x)\nplt.show()")
        assert not plotted.failed
        (png,) = plotted.plots
        assert png.startswith(b"\x89PNG\r\n\x1a\n")
        long = tool("print('a' * 5000)").text
        assert long.endswith("[1000 characters left out]")


@pytest.mark.timeout(200)
def test_parked_sessions_come_back_each_with_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    options = ["parked_sessions", "--sessions", "3", "--requests", "5"]
    monkeypatch.setattr(sys, "argv", options)
    example("parked_sessions").main()
    said = capsys.readouterr().out
    assert "3 sessions, 5 requests, wrong answers: 0\n" in said
    for what in ("unpark", "park"):
        shown = rf"^{what}: median \d+ ms, 95th percentile \d+ ms$"
        assert re.search(shown, said, re.MULTILINE), said


def test_a_session_that_failed_is_parked_as_well(tmp_path: Path):
    with Sandbox() as base:
        parked = example("parked_sessions").Parked(tmp_path, base)
        assert parked.run("a", "x = 1\n1 / 0")["error"] == "ZeroDivisionError: division by zero"
        assert parked.run("a", "x")["text"] == "1"
        parked.remove()
        assert list(tmp_path.iterdir()) == []
