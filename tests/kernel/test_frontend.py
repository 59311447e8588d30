"""What reaches the front end, by policy, from a real kernel: each kind of message; %wasi frontend.

What the filters do to each kind of content is shown in tests/filters and tests/test_frontend.py;
here it is that no message goes past them.
"""

from __future__ import annotations

import re

import pytest

SCRIPT = "<script>top.canary()</script>"
ESCAPE = "\x1b]0;title\x07"
SEEN = "\u241b]0;title\u2407"

BUNDLE = {"text/html": SCRIPT, "text/plain": ESCAPE, "application/x-odd": "1"}
RICH = f"class Rich:\n    def _repr_mimebundle_(self, **options): return {BUNDLE!r}\n"


def is_safe(data):
    assert set(data) == {"text/html", "text/plain"}
    assert data["text/plain"] == SEEN
    assert data["text/html"].startswith('<div style="height:')
    assert '<iframe sandbox="allow-scripts"' in data["text/html"]
    assert "<script>" not in re.sub(r"srcdoc=\"[^\"]*\"|srcdoc='[^']*'", "", data["text/html"])
    return True


def test_displays(kernel):
    kernel.run(RICH)
    answer = kernel.run("h = display(Rich(), display_id=True); h.update(Rich()); Rich()")
    for kind in ("display_data", "update_display_data", "execute_result"):
        (shown,) = answer.of(kind)
        assert is_safe(shown["data"])


def test_streams_and_errors(kernel):
    answer = kernel.run(f"import sys; print({ESCAPE!r}); print({ESCAPE!r}, file=sys.stderr)")
    assert (answer.text(), answer.text("stderr")) == (SEEN + "\n", SEEN + "\n")
    answer = kernel.run(f"raise ValueError({ESCAPE!r})")
    (error,) = answer.of("error")
    assert error["evalue"] == answer.content["evalue"] == SEEN
    assert "\x1b]" not in "".join(error["traceback"] + answer.content["traceback"])
    assert "\x1b[31m" in "".join(error["traceback"])


def test_replies(kernel):
    kernel.run(RICH + f"x = Rich()\nx.__doc__ = {ESCAPE!r}\nd = {{{ESCAPE!r}: 1, 'ok': 2}}")
    said = kernel.run("1", user_expressions={"a": "x"}).content["user_expressions"]["a"]
    assert is_safe(said["data"])
    found = kernel.ask("inspect_request", {"code": "x", "cursor_pos": 1, "detail_level": 0})
    assert "\x1b]" not in found["data"]["text/plain"]
    assert SEEN in found["data"]["text/plain"]
    kernel.run("class Names:\n    def __dir__(self): return ['fine', 'hid\u200bden']\nn = Names()")
    code = "[n."  # a completion is put into the cell as it is: one that hides something is none
    matches = kernel.ask("complete_request", {"code": code, "cursor_pos": 3})["matches"]
    assert matches == ["fine"]


def test_a_pager_and_the_next_cell(kernel):
    (page,) = kernel.run(f"get_ipython().payload_manager.write_payload({{'source': 'page', "
                         f"'data': {BUNDLE!r}, 'start': 0}})").content["payload"]  # fmt: skip
    assert is_safe(page["data"])
    (cell,) = kernel.run(f"get_ipython().set_next_input({ESCAPE!r})").content["payload"]
    assert cell["text"].startswith("# From the sandbox")
    assert cell["text"].endswith(SEEN)


def test_a_question(kernel):
    cell = kernel.execute(f"input({ESCAPE!r})", allow_stdin=True)
    assert kernel.question()["content"]["prompt"] == SEEN
    kernel.client.input("")
    assert kernel.answer(cell).content["status"] == "ok"


def test_history(kernel):
    kernel.run(f"# {ESCAPE}")
    kernel.run(f"class Odd:\n    def __repr__(self): return {ESCAPE!r}\nOdd()")
    said = kernel.ask(
        "history_request", {"hist_access_type": "tail", "n": 2, "output": True, "raw": True}
    )
    typed, shown = said["history"][0][2][0], said["history"][1][2][1]
    assert typed == f"# {SEEN}"
    assert shown == SEEN


def test_a_comm_of_unknown_kind_is_refused_with_one_line(start_kernel):
    kernel = start_kernel()
    code = "import comm\nc = comm.create_comm(target_name='evil', data={'a': 1})\nc.send({'b': 2})"
    answer = kernel.run(code)
    assert not answer.of("comm_open")
    assert not answer.of("comm_msg")
    (line,) = answer.text("stderr").splitlines()
    assert line.startswith("[wasi-kernel] a comm with the target 'evil': refused")
    assert kernel.ask("comm_info_request")["comms"] == {}


def test_wasi_frontend_says_what_was_held_back_and_why(start_kernel):
    kernel = start_kernel()
    assert "nothing" in kernel.run("%wasi frontend").result
    kernel.run(RICH + "for k in range(3): display(Rich())")
    table = kernel.run("%wasi frontend").of("execute_result")[0]["data"]
    assert re.search(r"^2 +text/html +active HTML.* +3$", table["text/plain"], re.MULTILINE)
    assert re.search(r"\n2 +application/x-odd +is not a type.* +3", table["text/plain"])
    assert "<table" in table["text/html"]
    held = kernel.run("w = %wasi frontend\nw.to_dict()['held'][0][:2]").result
    assert held == "[2, 'text/html']"
    answer = kernel.run("%wasi frontends")
    assert "no subcommand" in answer.text("stderr")


def test_it_can_be_asked_where_no_cell_runs(start_kernel):
    """In a widget's callback, and in a silent cell."""
    kernel = start_kernel()
    kernel.run(
        "import comm\nseen = []\n"
        "def ask(*_): seen.append(get_ipython().run_line_magic('wasi', 'frontend').to_dict())\n"
        "comm.get_comm_manager().register_target('t', ask)"
    )
    kernel.published(kernel.send("comm_open", {"comm_id": "x", "target_name": "t", "data": {}}))
    kernel.run("ask()", silent=True)
    assert kernel.run("[s['mode'] for s in seen]").result == "['isolated', 'isolated']"


def test_widening_frames_stay_within_the_cells_limit(start_kernel):
    """32 MiB are a cell's, and a frame is longer than what it encloses."""
    kernel = start_kernel()
    answer = kernel.run(
        "for k in range(60):\n"
        "    display({'text/html': '<script>' + '&' * 100_000 + '</script>'}, raw=True)\n'end'"
    )
    shown = answer.of("display_data")
    assert 30 < len(shown) < 60
    assert sum(len(s["data"]["text/html"]) for s in shown) <= 32 << 20
    notice = answer.text("stderr")
    assert notice.count("[wasi-kernel]") == 1
    assert "limits.output_bytes" in notice
    assert answer.content["status"] == "ok"
    assert kernel.run("'next'").result == "'next'"


def test_text_is_text_alone(start_kernel):
    kernel = start_kernel(options=["--frontend", "text"])
    kernel.run(RICH)
    answer = kernel.run("Rich()")
    assert answer.of("execute_result")[0]["data"] == {"text/plain": SEEN}
    answer = kernel.run("import ipywidgets; ipywidgets.IntSlider(3)")
    assert set(answer.of("execute_result")[0]["data"]) == {"text/plain"}
    assert not answer.of("comm_open")


def test_trusted_is_as_it_is(start_kernel):
    kernel = start_kernel(options=["--frontend=trusted"])
    kernel.run(RICH)
    assert kernel.run("Rich()").of("execute_result")[0]["data"] == BUNDLE
    assert kernel.run(f"print({ESCAPE!r})").text() == ESCAPE + "\n"


def test_further_types(start_kernel):
    kernel = start_kernel(options=["--frontend-mimes", "application/x-odd,text/x-more"])
    kernel.run(RICH)
    data = kernel.run("Rich()").of("execute_result")[0]["data"]
    assert data.pop("application/x-odd") == "1"
    assert is_safe(data)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--frontend", "open"], "frontend = 'open'"),
        (["--frontend-mimes", "text/html"], "frontend_mimes[0] = 'text/html'"),
        (["--frontend-mimes", "a/b,Not A Type"], "frontend_mimes[1] = 'Not A Type'"),
    ],
)
def test_a_wrong_option_is_named_in_each_cell(start_kernel, options, named):
    kernel = start_kernel(options=options, ready=False)
    for _ in range(2):
        said = kernel.run("1").content
        assert (said["status"], said["ename"]) == ("error", "PolicyError")
        assert named in said["evalue"]
    assert kernel.ask("complete_request", {"code": "pri", "cursor_pos": 3})["matches"] == []
