"""Shows which types of a display pass, and that each goes through its own filter.

What the filters do is shown in their own tests; here each type has one value that acts and one
that does not.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wasi_kernel.filters import bundles
from wasi_kernel.filters.bundles import HTML, PLAIN, RASTER, SCRIPTS, WIDGET_VIEW, Bundles, metadata

QUICK = settings(max_examples=100, deadline=None)

PNG = "iVBORw0KGgo="
PLOTLY = "application/vnd.plotly.v1+json"
VEGA = "application/vnd.vegalite.v5+json"


def shown(
    data: dict[str, Any], *, inert: frozenset[str] = frozenset(), text_only: bool = False
) -> tuple[dict[str, Any], list[str]]:
    """(what is shown of a bundle, the types of which something was held back)."""
    held: list[str] = []
    made = Bundles(
        inert=inert, text_only=text_only, runs=False, refused=lambda i: "why" if i == "no" else ""
    )
    found = made.data(data, lambda mime, reason: held.append(mime) if reason else None)
    again = made.data(found, lambda mime, reason: held.append(f"again {mime}: {reason}"))
    assert again == found
    assert not any(h.startswith("again") and "frame" not in h for h in held)
    return found, [h for h in held if not h.startswith("again")]


FINE: dict[str, Any] = {
    PLAIN: "x\x1b[31m",
    HTML: "<b>x</b>",
    "text/markdown": "**x**",
    "text/latex": "$\\frac12$",
    "image/svg+xml": (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">'
        '<rect width="1" height="1"/></svg>'
    ),
    **dict.fromkeys(sorted(RASTER), PNG),
    "application/json": {"a": ["<script>"]},
    "application/geo+json": {"type": "Point", "coordinates": [1, 2]},
    PLOTLY: {"data": [], "layout": {}},
    VEGA: {"mark": "bar"},
    "application/vnd.vega.v6+json": {"marks": []},
    WIDGET_VIEW: {"model_id": "a", "version_major": 2, "version_minor": 0},
}


@pytest.mark.parametrize("mime", FINE)
def test_a_known_type_passes(mime: str):
    data = {PLAIN: "x", mime: FINE[mime]}
    assert shown(data) == (data, [])


def test_a_whole_bundle_passes_in_its_order():
    assert list(shown(FINE)[0]) == list(FINE)


ACTING: dict[str, Any] = {
    "text/markdown": "<script>top.canary()</script>",
    "text/latex": "$\\href{javascript:top.canary()}{x}$",
    "image/svg+xml": "<svg><script>top.canary()</script></svg>",
    "image/png": 'x" onerror="top.canary()',
    PLOTLY: {"data": [], "layout": {"images": [{"source": "javascript:top.canary()"}]}},
    "application/geo+json": {"a": "<img src=x onerror=top.canary()>"},
    VEGA: {"mark": {"type": "bar", "tooltip": {"signal": "top.canary()"}}},
    WIDGET_VIEW: {"model_id": "<b onclick=top.canary()>"},
}


@pytest.mark.parametrize("mime", ACTING)
def test_a_known_type_is_filtered(mime: str):
    found, held = shown({mime: ACTING[mime], PLAIN: "x"})
    assert found.get(mime) != ACTING[mime]
    assert held == [mime] or mime in ("application/geo+json", "text/markdown")
    assert found[PLAIN] == "x"


@pytest.mark.parametrize(
    "mime",
    [
        "text/vnd.mermaid", "application/pdf", "TEXT/HTML", "text/html;x", " text/html",
        "application/vnd.vega.v5+json;x", "application/vnd.jupyter.error", "application/xhtml+xml",
        "image/svg", "__proto__", "",
    ],
)  # fmt: skip
def test_another_type_does_not(mime: str):
    assert shown({mime: "x", PLAIN: "p"}) == ({PLAIN: "p"}, [mime])


def test_the_policy_may_add_a_type():
    value = {"any": "<script>"}
    assert shown({"a/b": value}, inert=frozenset(["a/b"])) == ({"a/b": value}, [])
    html = {HTML: "<script>top.canary()</script>"}
    found, _ = shown(html, inert=frozenset([HTML]))
    assert found != html, "a type that is filtered stays so"


@pytest.mark.parametrize("mime", [PLAIN, HTML, "image/png", "text/markdown"])
def test_a_text_may_be_a_list_of_lines(mime: str):
    parts = [FINE[mime][:1], FINE[mime][1:]]
    assert shown({mime: parts})[0][mime] == FINE[mime]


@pytest.mark.parametrize("value", [None, 1, {"a": 1}, [1], ["a", 1], True])
def test_what_is_no_text_is_none(value: Any):
    for mime in (PLAIN, HTML, "image/png", "image/svg+xml"):
        found, held = shown({mime: value, "application/json": 1})
        assert (list(found), held) == (["application/json"], [mime])


def test_if_nothing_is_left_a_line_says_so():
    found, _ = shown({"application/pdf": "x"})
    assert list(found) == [PLAIN]
    assert "application/pdf is not a type" in found[PLAIN]
    assert bundles.MORE in found[PLAIN]
    found, _ = shown({"application/\x1b]0;x\n": "x"})
    assert "\x1b" not in found[PLAIN]
    assert "\n" not in found[PLAIN]
    for text in ("<a.B object at 0x7f>", "<IPython.core.display.Javascript object>"):
        assert "application/pdf" in shown({"application/pdf": "x", PLAIN: text})[0][PLAIN]
    assert shown({"application/pdf": "x", PLAIN: "<3"})[0] == {PLAIN: "<3"}
    assert shown({})[0] == {}


def test_javascript_runs_in_a_frame():
    for mime in SCRIPTS:
        found, held = shown({mime: "top.canary()", PLAIN: "<a.B object>"})
        assert held == [SCRIPTS[0]]
        assert set(found) == {PLAIN, HTML}
        assert "<iframe sandbox=" in found[HTML]
        assert "<script" not in found[HTML].split("<iframe")[0]


@pytest.mark.parametrize(
    "data",
    [
        {SCRIPTS[0]: "x()", HTML: "<b>x</b>"},
        {SCRIPTS[0]: ["x()"]},
        {SCRIPTS[0]: {"a": 1}, PLAIN: "x"},
        {SCRIPTS[0]: None},
        {SCRIPTS[0]: "x" * (1 << 25)},
    ],
)
def test_javascript_does_not_run_beside_html_nor_if_it_is_too_long(data: dict[str, Any]):
    found, held = shown(data)
    assert SCRIPTS[0] in held
    assert found.get(HTML) == data.get(HTML)
    assert found


def test_as_text_there_are_texts_and_images():
    found, _ = shown(FINE, text_only=True)
    assert set(found) == {PLAIN, *RASTER}
    for mime in (HTML, *SCRIPTS):
        found, held = shown({mime: "x"}, text_only=True)
        assert "not shown" in found[PLAIN]
        assert held == [mime]


def test_a_widget_that_was_refused_is_not_viewed():
    found, held = shown({WIDGET_VIEW: {"model_id": "no"}, PLAIN: "<a.B object>"})
    assert "why" in found[PLAIN]
    assert held == [WIDGET_VIEW]


@pytest.mark.parametrize(
    "value", [None, "a", {}, {"model_id": 1}, {"model_id": ""}, {"model_id": "a b"}]
)
def test_a_view_names_its_model(value: Any):
    assert WIDGET_VIEW not in shown({WIDGET_VIEW: value})[0]


def test_a_view_says_its_version_and_no_more():
    value = {"model_id": "a", "version_major": "2", "version_minor": True, "more": "x"}
    assert shown({WIDGET_VIEW: value})[0] == {WIDGET_VIEW: {"model_id": "a"}}


# -- metadata ------------------------------------------------------------------------------------


def test_sizes_pass_as_numbers():
    sizes = {"width": 3, "height": 2.5, "needs_background": "dark", "unconfined": True}
    given = {**sizes, "image/png": sizes, "application/json": {"expanded": True}}
    assert metadata(given) == given


@pytest.mark.parametrize(
    "given",
    [
        {"isolated": True},
        {"width": "3 onload=top.canary()", "height": True},
        {"needs_background": "x", "unconfined": 1},
        {"text/html": {"isolated": True}},
        {"image/png": "x", "image/gif": {"width": [1]}},
        {"application/json": {"expanded": "x", "root": "<b>"}},
        {VEGA: {"embed_options": {"loader": {}}}},
        {"application/geo+json": {"url_template": "http://canary.invalid/{z}"}},
        {"tags": ["x"], "editable": False},
    ],
)
def test_other_metadata_do_not(given: dict[str, Any]):
    assert metadata(given) == {}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=9,
)  # fmt: skip


@QUICK
@given(st.dictionaries(st.sampled_from([*FINE, *SCRIPTS, "a/b", "isolated"]), JSON, max_size=4))
def test_whatever_a_bundle_holds_twice_is_once(data: dict[str, Any]):
    found, _ = shown(data)
    assert not set(SCRIPTS) & set(found)
    assert found or not data
    assert metadata(metadata(data)) == metadata(data)


def test_long_markdown_is_not_shown():
    """To read it would keep the kernel process from its interrupts."""
    found, notes = shown({"text/markdown": "*a* " * (1 << 18) + "!", PLAIN: "p"})
    assert "text/markdown" not in found
    assert found["text/plain"] == "p"
    assert notes == ["text/markdown"]


def test_long_html_is_framed_unless_it_is_a_plain_table():
    long = "<b>x</b>" * (1 << 18)
    assert "<iframe" in shown({HTML: long})[0][HTML]
    short = "<b>x</b>" * 10
    assert shown({HTML: short})[0][HTML] == short
    row = "<tr><td>1</td></tr>"
    table = f"<table><tbody>{row * (1 << 16)}</tbody></table>"
    assert "<iframe" not in shown({HTML: table})[0][HTML]


@pytest.mark.parametrize("end", ["0", "12.result", "12.error"])
def test_what_vs_code_answers_itself_passes(end: str):
    data = {f"application/vnd.vscode.bg.execution.{end}": {"matches": ["<script>"]}}
    assert shown(data) == (data, [])
    assert PLAIN in shown(data, text_only=True)[0]


@pytest.mark.parametrize("end", ["", "x", "1.results", "1.result+json", "1234567890", "1\n"])
def test_what_only_looks_like_it_does_not(end: str):
    mime = f"application/vnd.vscode.bg.execution.{end}"
    assert mime not in shown({mime: "x"})[0]
