"""%wasi profile: finds where the time goes, whatever ends the cell; what it shows, as it is shown.

Shares are those of real runs on a machine that does other things as well: within wide margins.
"""

from __future__ import annotations

import ast
import re

import pytest

from wasi_kernel import Sandbox
from wasi_kernel.frames import Frame
from wasi_kernel.frontend import Frontend
from wasi_kernel.policy import Limits, Policy

BOX = 'style="contain:content;overflow:auto">'
"""The end of the tag of the box in which HTML with attributes stands (filters/markup.py)."""

PROGRAM = """
import time
def hot(n):
    total = 0
    for i in range(n):
        total += i * i
    return total
def cold(n):
    return hot(n // 20)
def both(n):
    cold(n)
    return hot(n)
def down(n):
    return hot(300_000) if n == 0 else down(n - 1)
"""


@pytest.fixture(scope="module")
def box():
    with Sandbox() as box:
        assert box.run(PROGRAM).ok
        yield box


def value(box, code):
    return ast.literal_eval(box.run(f"print(repr({code}))").stdout)


def by_name(box, name="p"):
    return {row["function"]: row for row in value(box, f"{name}.functions()")}


def test_the_hot_function_of_a_program_is_found(box):
    assert box.run("p = %wasi profile --hz 500 both(3_000_000)").error is None
    rows = by_name(box)
    said = value(box, "p.to_dict()")
    assert said["samples"] > 10
    assert rows["hot"]["share"] > 0.8
    assert next(iter(rows)) == "hot"
    whole = said["samples"]
    assert rows["both"]["total"] / whole > 0.9
    assert rows["both"]["self"] / whole < 0.1
    assert rows["cold"]["total"] / whole < 0.4
    assert (rows["hot"]["file"], rows["hot"]["line"]) == ("In[1]", 2)
    assert set(rows) <= {"<module>", "both", "cold", "hot"}
    lines = {row["line"] for row in said["lines"] if row["function"] == "hot" and row["self"]}
    assert lines <= {3, 4, 5, 6}


def test_sleep_is_waiting_at_the_line_that_sleeps(box):
    box.run("%%wasi profile\nx = 1\ntime.sleep(0.4)")
    (row,) = value(box, "get_ipython().find_line_magic('wasi')('profile --last').lines()")
    assert (row["function"], row["line"], row["share"]) == ("<module>", 3, 1.0)
    assert row["waiting"] > 0.8 * row["self"] > 0


def test_time_in_c_is_that_of_the_line_that_calls(box):
    box.run("def slow():\n    x = 1\n    return sum(range(6_000_000))\np = %wasi profile slow()")
    (row,) = (row for row in value(box, "p.lines()") if row["function"] == "slow")
    assert row["line"] == 3
    assert row["share"] > 0.8


def test_a_function_that_calls_itself_counts_once_for_a_look(box):
    box.run("p = %wasi profile --hz 300 down(900)")
    rows, whole = by_name(box), value(box, "p.to_dict()['samples']")
    assert whole >= rows["down"]["total"] > 0
    assert rows["hot"]["total"] > 0
    assert "down (In[1]);down (In[1])" in box.run("print(p.collapsed()[:500])").stdout


def test_stacks_collapse_to_the_same_counts(box):
    box.run("p = %wasi profile both(500_000)")
    stacks = box.run("print(p.collapsed(), end='')").stdout.splitlines()
    counts = [int(line.rpartition(" ")[2]) for line in stacks]
    assert sum(counts) == value(box, "p.to_dict()['samples']") > 0
    assert all(line.startswith("<module> (In[") for line in stacks)


def test_what_stands_below_is_shown_when_asked_for(box):
    box.run("p = %wasi profile --all both(500_000)")
    functions = by_name(box)
    assert {"hot", "both", "Agent.run"} <= set(functions)
    assert functions["Agent.run"]["total"] == value(box, "p.to_dict()['samples']")


# -- values ------------------------------------------------------------------------------------


def test_the_cell_runs_as_it_would_alone(box):
    result = box.run("%%wasi profile\ny = {3}\nprint('said')\n%who_ls set\nlen(y)")
    assert result.error is None
    assert result.stdout == "said\n"
    assert result.outputs[1]["data"]["text/plain"] == "1"
    assert value(box, "y") == {3}
    assert box.run("%wasi profile len({1, 2})").outputs[0]["data"]["text/plain"] == "2"
    shown = box.run("%%wasi profile\n41 + 1;").outputs
    assert "42" not in [o["data"]["text/plain"] for o in shown]


def test_the_cell_is_named_by_its_number(box):
    result = box.run("%%wasi profile\nhot(800_000)\nNone")
    number = result.execution_count
    rows = value(box, "get_ipython().magics_manager.registry['WasiMagics'].last_profile.lines()")
    assert {row["file"] for row in rows if row["function"] == "<module>"} == {f"In[{number}]"}


def test_lines_of_an_error_are_those_of_the_cell(box):
    error = box.run("%%wasi profile\nhot(200_000)\n\n1 / 0").error
    assert error.ename == "ZeroDivisionError"
    plain = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(error.traceback))
    assert "----> 4 1 / 0" in plain
    assert "wasi_agent" not in plain


# -- whatever ends the cell --------------------------------------------------------------------


def is_off(box):
    return (
        "nothing is being profiled"
        in box.run(
            "try: get_ipython().door.look('profile_end')\nexcept ValueError as e: print(e)"
        ).stdout
    )


def test_what_failed_is_shown_too(box):
    result = box.run("%%wasi profile\nhot(500_000)\n1 / 0")
    assert result.error.ename == "ZeroDivisionError"
    assert any("Profile: " in o["data"]["text/plain"] for o in result.outputs if "data" in o)
    assert is_off(box)


def test_it_ends_with_a_death_and_with_what_forgets_its_end():
    with Sandbox() as box:
        box.run(PROGRAM)
        assert box.run("%%wasi profile\nimport os\nos._exit(3)").error.lost
        assert is_off(box)
        assert box.run("p = %wasi profile hot(300_000)").error is None
        box.run("get_ipython().door.look('profile_begin'); z = 1")
        assert is_off(box)
        box.run("get_ipython().door.look('profile_begin')\n%undo")
        assert is_off(box)
        assert box.run("p = %wasi profile hot(300_000)").error is None
        assert by_name(box)["hot"]["share"] > 0.5


def test_it_ends_with_the_time_limit():
    with Sandbox(Policy(limits=Limits(cell_s=1.0))) as box:
        box.run(PROGRAM)
        result = box.run("%%wasi profile\nwhile True: hot(10_000)")
        assert result.error.ename == "TimeLimitExceeded"
        assert any("hot" in o["data"]["text/plain"] for o in result.outputs if "data" in o)
        assert is_off(box)


# -- shown -------------------------------------------------------------------------------------


def test_it_is_shown_as_a_drawing_and_a_table(box):
    result = box.run("%wasi profile both(800_000)")
    drawing, table = (o["data"] for o in result.outputs[-2:])
    assert drawing["image/svg+xml"].count("<rect") > 2
    assert "hot" in drawing["image/svg+xml"]
    assert BOX + "<table><caption>Profile: " in table["text/html"]
    lines = table["text/plain"].splitlines()
    assert re.fullmatch(
        r"Profile: [\d,]+ looks in [\d.]+ s \([\d.]+ s on a processor\); "
        r"looking took [\d.]+ s of another one \([\d.]+%\)(; \d+ dropped)?",
        lines[0],
    )
    assert lines[2].split() == ["self", "total", "waiting", "function", "defined"]


def test_what_is_shown_passes_the_default_policy_unchanged(box):
    box.run("p = %wasi profile both(800_000)")
    shown = {
        "image/svg+xml": value(box, "p.flame()._repr_svg_()"),
        "text/html": value(box, "p._repr_html_()"),
        "text/plain": value(box, "repr(p)"),
    }
    for mime, text in shown.items():
        frame = Frame("display_data", {"data": {mime: text}, "metadata": {}, "transient": {}}, 1)
        passed = Frontend().output(frame, 1)
        shown_html = passed["data"][mime].partition(BOX)[2].removesuffix("</div>")
        assert (shown_html if mime == "text/html" else passed["data"][mime]) == text


# -- wrong use ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("%wasi profile", "what? Code follows, or write %%wasi profile above a cell"),
        ("%wasi profile --hz 0 1", "hz is 0, not a number from 1 to 1000"),
        ("%wasi profile --hz x 1", "argument --hz: invalid int value: 'x'; usage: %wasi profile"),
        ("%wasi profile --deep 1", "unrecognized arguments: --deep"),
        ("%wasi profile --last 1 + 1", "--last takes no code"),
        ("%%wasi profile x\n1", "'x' stands beside the cell"),
        ("%%wasi profile\n%wasi profile 1", "this cell is being profiled already"),
        ("%%wasi profile\nimport asyncio\nawait asyncio.sleep(0)", "takes no `await` outside"),
    ],
)
def test_wrong_use_is_said(box, code, words):
    error = box.run(code).error
    assert error.ename == "UsageError"
    assert words in error.evalue
    assert "\x1b" not in error.evalue


def test_there_is_no_last_one_at_first():
    with Sandbox() as box:
        assert "there is none yet" in box.run("%wasi profile --last").error.evalue


def test_wrong_code_is_pythons_own_error(box):
    assert box.run("%%wasi profile\nx = (").error.ename == "SyntaxError"
    assert is_off(box)


def test_a_cell_that_is_over_at_once_is_said(box):
    shown = box.run("%wasi profile --hz 1 None").outputs[-1]["data"]["text/plain"]
    assert "it was over before the first look: give it more to do" in shown


# -- other states --------------------------------------------------------------------------------


def test_ctrl_c_ends_the_cell_and_shows_what_was_seen(box):
    def interrupting(prompt, hidden):
        box.interrupt()
        return ""

    code = "%%wasi profile\nhot(800_000)\ninput()\nwhile True: hot(10_000)"
    result = box.run(code, input=interrupting)
    assert (result.error.ename, result.error.lost) == ("KeyboardInterrupt", False)
    (shown,) = [o["data"]["text/plain"] for o in result.outputs if "text/html" in o.get("data", {})]
    assert "hot" in shown
    assert is_off(box)
    box.run("p = %wasi profile both(500_000)")
    assert by_name(box)["hot"]["share"] > 0.5


def test_a_fork_profiles_for_itself():
    with Sandbox() as box:
        box.run(PROGRAM)
        box.run("p = %wasi profile hot(500_000)")
        before = value(box, "p.to_dict()")
        with box.fork() as fork:
            assert value(fork, "p.to_dict()") == before
            assert fork.run("q = %wasi profile both(800_000)").error is None
            rows = by_name(fork, "q")
            assert rows["hot"]["share"] > 0.5
            assert rows["both"]["file"] == "In[1]"
            assert is_off(fork)
        assert box.run("p = %wasi profile hot(500_000)").error is None
        assert set(by_name(box)) <= {"<module>", "hot"}


def test_a_session_from_a_file_has_its_profile_and_makes_others(tmp_path):
    with Sandbox() as box:
        box.run(PROGRAM)
        box.run("p = %wasi profile hot(500_000)")
        before = value(box, "p.to_dict()")
        box.save(tmp_path / "s.session")
    with Sandbox(resume=tmp_path / "s.session") as box:
        assert value(box, "p.to_dict()") == before
        assert "Profile: " in repr(box.run("%wasi profile --last").outputs)
        assert box.run("q = %wasi profile both(800_000)").error is None
        rows = by_name(box, "q")
        assert rows["hot"]["share"] > 0.5
        assert (rows["both"]["file"], rows["both"]["line"]) == ("In[1]", 9)
