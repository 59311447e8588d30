"""What a cell shows reaches the front end whole, in order, and in every form that Jupyter knows."""

from __future__ import annotations

import base64
import json
import re
import struct

import pytest

PNG = b"\x89PNG\r\n\x1a\n"
FORMS = {
    "text/plain": "plain",
    "text/html": "<b>html</b>",
    "text/markdown": "*markdown*",
    "text/latex": r"$\alpha$",
    "image/svg+xml": '<svg xmlns="http://www.w3.org/2000/svg"/>',
    "application/javascript": "1 + 1",
    "application/json": {"a": [1, 2.5, None, True, "\N{SNOWMAN}"]},
    "application/vnd.example.v1+json": {"mark": "bar"},
}
BINARY = {"image/png": PNG, "image/jpeg": b"\xff\xd8\xff\x00", "application/pdf": b"%PDF\xff"}


# -- streams ---------------------------------------------------------------------------------


def test_streams_and_displays_keep_their_order(kernel):
    code = (
        "import sys\n"
        "for k in range(50):\n"
        "    print('out', k)\n"
        "    print('err', k, file=sys.stderr)\n"
        "    print('more', k, end='')\n"
        "    display(k)\n"
        "'end'"
    )
    wanted = []
    for k in range(50):
        wanted += [
            ("stdout", f"out {k}\n"), ("stderr", f"err {k}\n"), ("stdout", f"more {k}"),
            ("display_data", str(k)),
        ]  # fmt: skip
    assert kernel.run(code).flow == [*wanted, ("execute_result", "'end'")]


def test_output_appears_while_the_cell_runs(kernel):
    cell = kernel.execute("print('seen', end='')\nwhile True: pass")
    kernel.until_text(cell, "seen")
    kernel.interrupt()
    answer = kernel.answer(cell)
    assert answer.content["ename"] == "KeyboardInterrupt"
    assert answer.text() == "seen"


def test_large_text_arrives_whole(kernel):
    text = "1 \N{GREEK SMALL LETTER PI} \N{EURO SIGN} \N{GRINNING FACE} "
    answer = kernel.run(f"print({text!r} * 300_000, end='')")
    assert answer.text() == text * 300_000


def test_many_lines_arrive_whole(kernel):
    answer = kernel.run("for k in range(200_000): print(k)")
    assert answer.text() == "".join(f"{k}\n" for k in range(200_000))
    assert len(answer.published) < 5_000


def test_text_that_is_no_utf8(kernel):
    answer = kernel.run("import sys\nprint('a\\ud800b')\nsys.stdout.buffer.write(b'\\xff\\n');")
    assert answer.text() == "a\\ud800b\n\N{REPLACEMENT CHARACTER}\n"


def test_text_of_c_code_keeps_its_place(kernel):
    answer = kernel.run(
        "import os\nprint('a')\nos.write(1, b'b\\n'); os.write(2, b'c\\n');\nprint('d')"
    )
    assert answer.flow == [("stdout", "a\nb\n"), ("stderr", "c\n"), ("stdout", "d\n")]


def test_endless_output_ends_in_one_notice(kernel):
    answer = kernel.run("for k in range(400_000): print('x' * 99)")
    assert answer.content["status"] == "ok"
    assert 16 << 20 < len(answer.text()) <= 32 << 20
    assert answer.text("stderr").count("output limit") == 1
    after = kernel.run("print('next')")
    assert after.flow == [("stdout", "next\n")]


def test_large_display_and_result(kernel):
    answer = kernel.run("display({'text/plain': 'x' * 5_000_000}, raw=True)\n'y' * 5_000_000")
    (shown,) = answer.of("display_data")
    assert shown["data"]["text/plain"] == "x" * 5_000_000
    assert answer.result == repr("y" * 5_000_000)


# -- displays --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trusting(start_module_kernel):
    return start_module_kernel(options=["--frontend", "trusted"])


def test_every_form(trusting):
    answer = trusting.run(
        f"display({FORMS | BINARY!r}, raw=True, metadata={{'image/png': {{'w': 1}}}})"
    )
    (shown,) = answer.of("display_data")
    wanted = FORMS | {mime: base64.b64encode(data).decode() for mime, data in BINARY.items()}
    assert shown["data"] == wanted
    assert shown["metadata"] == {"image/png": {"w": 1}}


def test_result_in_every_form(trusting):
    trusting.run(
        f"class Rich:\n    def _repr_mimebundle_(self, **options):\n"
        f"        return {FORMS | BINARY!r}, {{'text/html': {{'isolated': True}}}}"
    )
    (result,) = trusting.run("Rich()").of("execute_result")
    assert {k: result["data"][k] for k in FORMS} == FORMS
    assert base64.b64decode(result["data"]["image/png"]) == PNG
    assert result["metadata"] == {"text/html": {"isolated": True}}


def test_rich_methods(kernel):
    kernel.run(
        "class Rich:\n"
        "    def __repr__(self): return 'plain'\n"
        "    def _repr_html_(self): return '<i>html</i>'\n"
        "    def _repr_png_(self): return b'\\x89PNG', {'width': 3}\n"
        "    def _repr_json_(self): return {'k': [1]}"
    )
    (result,) = kernel.run("Rich()").of("execute_result")
    assert result["data"] == {
        "text/plain": "plain", "text/html": "<i>html</i>", "image/png": "iVBORw==",
        "application/json": {"k": [1]},
    }  # fmt: skip
    assert result["metadata"] == {"image/png": {"width": 3}}


def test_numbers_that_json_does_not_know(kernel):
    answer = kernel.run("display({'application/json': {'x': float('nan')}}, raw=True)\n'after'")
    assert answer.result == "'after'"
    assert answer.content["status"] == "ok"


def test_failing_repr_is_the_cell_s_error(kernel):
    kernel.run("class Bad:\n    def __repr__(self): raise ValueError('no repr')")
    answer = kernel.run("Bad()")
    assert answer.content["status"] == "error"
    assert (answer.content["ename"], answer.content["evalue"]) == ("ValueError", "no repr")
    assert len(answer.of("error")) == 1


def test_display_is_updated_by_its_id(kernel):
    answer = kernel.run(
        "shown = display('one', display_id='fixed')\nshown.update('two')\n"
        "from IPython.display import update_display\nupdate_display('three', display_id='fixed')"
    )
    assert answer.flow == [
        ("display_data", "'one'"), ("update_display_data", "'two'"),
        ("update_display_data", "'three'"),
    ]  # fmt: skip
    contents = answer.of("display_data") + answer.of("update_display_data")
    assert [c["transient"] for c in contents] == [{"display_id": "fixed"}] * 3
    later = kernel.run("shown.update('four')")
    (update,) = later.of("update_display_data")
    assert update["transient"] == {"display_id": "fixed"}


def test_display_gets_an_id_of_its_own(kernel):
    answer = kernel.run("a = display(1, display_id=True)\nb = display(2, display_id=True)")
    ids = [c["transient"]["display_id"] for c in answer.of("display_data")]
    assert len(set(ids)) == 2
    assert kernel.run("a.display_id").result == repr(ids[0])


@pytest.mark.parametrize("wait", [True, False])
def test_clear_output(kernel, wait):
    answer = kernel.run(
        "from IPython.display import clear_output\n"
        f"print('before')\nclear_output(wait={wait})\nprint('after')"
    )
    assert answer.of("clear_output") == [{"wait": wait}]
    order = [k for k in answer.kinds if k in ("stream", "clear_output")]
    assert order == ["stream", "clear_output", "stream"]


def test_what_has_nothing_to_clear_is_not_sent(kernel):
    """Each letter of `clears` is a clear_output, L of one that waits; the rest shows something."""
    shows = {
        "p": "print('p')", "e": "sys.stderr.write('e')", "d": "display(1)",
        "c": "os.write(1, b'c')", "P": "print('P' * 3_000_000)",
    }  # fmt: skip
    clears, wanted = "LLLNNLpLLdNNcNNcLePLPNL", "LNpLdNcNcLePLPN"
    code = ["import os, sys", "from IPython.display import clear_output"]
    code += [shows.get(c, f"clear_output(wait={c == 'L'})") for c in clears]
    answer = kernel.run("\n".join([*code, "None"]))
    assert answer.content["status"] == "ok"
    flow = [
        "NL"[m["content"]["wait"]] if m["msg_type"] == "clear_output"
        else "d" if m["msg_type"] == "display_data" else m["content"]["text"].strip()[:1]
        for m in answer.published if m["msg_type"] in ("stream", "display_data", "clear_output")
    ]  # fmt: skip
    assert re.sub(r"P+", "P", "".join(flow)) == wanted
    assert kernel.run("clear_output()").of("clear_output") == [{"wait": False}]


# -- figures and tables ----------------------------------------------------------------------


PLOT = (
    "import matplotlib.pyplot as plt\n"
    "fig, ax = plt.subplots(figsize=(2, 1), dpi=100)\n"
    "ax.plot([1, 2]);"
)


@pytest.fixture
def figure_format(kernel):
    """Sets the format of inline figures; afterwards it is what it was."""
    yield lambda name: kernel.run(f"%config InlineBackend.figure_formats = [{name!r}]")
    kernel.run("%config InlineBackend.figure_formats = ['png']")


def _png_size(data):
    """Width and height from a PNG's header (https://www.w3.org/TR/png-3/#11IHDR)."""
    assert data[:8] == PNG
    return struct.unpack(">II", data[16:24])


def test_figure_is_shown_as_png(kernel):
    (shown,) = kernel.run(PLOT).of("display_data")
    width, height = _png_size(base64.b64decode(shown["data"]["image/png"]))
    assert width > height > 50
    assert shown["data"]["text/plain"].startswith("<Figure size 200x100")


def test_retina_figure_has_twice_the_pixels(kernel, figure_format):
    figure_format("retina")
    (shown,) = kernel.run(PLOT).of("display_data")
    width, height = _png_size(base64.b64decode(shown["data"]["image/png"]))
    said = shown["metadata"]["image/png"]
    assert (said["width"], said["height"]) == (width // 2, height // 2)


def test_svg_figure(kernel, figure_format):
    figure_format("svg")
    (shown,) = kernel.run(PLOT).of("display_data")
    assert "<svg" in shown["data"]["image/svg+xml"]
    assert "image/png" not in shown["data"]


def test_figure_is_shown_once_and_at_its_place(kernel):
    answer = kernel.run("print('before')\n" + PLOT + "\nplt.show()\nprint('after')")
    assert [kind for kind, _ in answer.flow] == ["stdout", "display_data", "stdout"]


def test_table(kernel):
    answer = kernel.run("import pandas as pd\npd.read_csv('numbers.csv')")
    (result,) = answer.of("execute_result")
    assert "<table" in result["data"]["text/html"]
    assert "   a  b\n0  1  2\n1  3  4" in result["data"]["text/plain"]


def test_messages_are_plain_json(kernel):
    """Nothing that only a Python client could read."""
    for message in kernel.run("display(1)\n2").published:
        assert json.loads(json.dumps(message["content"])) == message["content"]
