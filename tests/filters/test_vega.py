"""Shows that a chart of vega computes with its own data and loads, runs and styles nothing else.

What honest charts have is Altair's output, written down; that JupyterLab draws them is shown in
tests/browser.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wasi_kernel.filters import vega
from wasi_kernel.filters.vega import MAX_EXPRESSION, OF_NAMES, OUTSIDE, PURE, chart, harmless

QUICK = settings(max_examples=100, deadline=None)

ROWS = [{"a": "A (x)", "b": 1, "c": 'it\'s "q"', "d": "2012-01-01"}]


def refused(spec: Any) -> str:
    """Why a chart is refused, "" if it passes as it is."""
    held: list[str] = []
    shown = chart(spec, held.append)
    if shown is None:
        assert len(held) == 1
        return held[0]
    assert shown == spec
    assert held == []
    return ""


def lite(**parts: Any) -> dict[str, Any]:
    return {"data": {"values": ROWS}, "mark": "bar", **parts}


# -- expressions ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "expression",
    [
        "", "datum.b * 2 + 'x'", "datum['a b'] > 2 && datum.a == \"A (x)\"", "-1.5e3 % 2",
        "datum.label[0]", "isValid(datum.b) ? round(datum.b) : 0", "[1, 2, datum.b][0]",
        "scale('x', datum.b)", 'domain("x")[0]', "data('t')", "event.shiftKey", "!event.altKey",
        "toDate(datum['d'])", "if(a < b, 1, 2) / 3", "a / b / c", "(a) / b",
        "format(datum.b, '.2f')",
        "indexof(['a', 'b'], datum.a) >= 0", "x !== y || z != w", "datum.a . b",
    ],
)  # fmt: skip
def test_sums_are_harmless(expression: str):
    assert harmless(expression)


@pytest.mark.parametrize(
    "expression",
    [
        "evil()", "datum.a()", "a.format(1)", "(a)(b)", "a[0](b)", "'a'(b)", "1(2)", "x ['a'](1)",
        "event.view", "event", "xevent.view", "event.shiftKey.constructor", "window.top",
        "datum['constructor']", 'datum[ "__proto__" ]', "datum[a]", "datum['a' + 'b']",
        "a[0 ? 1 : 2]", "{a: 1}", "{'image': 'http://x'}", "`x`", "'\\x61'", "'a\n'", "/x/",
        "a = 1", "a; b", "/* */ 1", "1 // x", "/x/.test(a)", "a /* x */", "test('a')",
        "replace('a', 'b', 'c')", "merge(a, b)", "scale(datum.f, 1)", "scale('x' && datum.f, 1)",
        "scale('x' ? a : b, 1)", "scale ( 'x' + f , 1)", "data(1)", "modify('a')", "warn('a')",
        "pathShape('M0,0')", "\\u0061()", "a.toString", "a.valueOf", "'", '"', "#", "@",
        "x" * (MAX_EXPRESSION + 1), "scale\n(f)", "if\n(1).constructor",
    ],
)  # fmt: skip
def test_whatever_may_reach_outside_is_not(expression: str):
    assert not harmless(expression)


@pytest.mark.parametrize("name", sorted(OUTSIDE))
def test_no_name_that_leads_outside_is_read(name: str):
    for way in ("{}", "datum.{}", "datum['{}']", 'datum["{}"]', "datum.a.{}.b", "-{}", "{}.a"):
        assert not harmless(way.format(name))


def test_functions_of_the_list_are_called_and_of_names_with_names_alone():
    assert all(harmless(f"{name}(datum.b, 1)") for name in PURE)
    assert all(harmless(f"{name}('x')") and harmless(f"{name}('x', 1)") for name in OF_NAMES)
    assert not any(harmless(f"{name}(datum.b)") for name in OF_NAMES)
    assert not any(harmless(f"a.{name}(1)") for name in PURE | OF_NAMES)


@QUICK
@given(st.text(st.sampled_from("abdtum.'\"[]()\\/{}`=+-,?:<>!&| \n0"), max_size=30))
def test_a_harmless_expression_calls_and_makes_nothing_else(expression: str):
    if harmless(expression):
        rest = re.sub("\"[^\"]*\"|'[^']*'", "0", expression)
        assert not set("\\`{};#@") & set(rest)
        assert "datum(" not in re.sub(r"\s", "", rest)


# -- honest charts -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "parts",
    [
        {"title": 'A "quoted" title (2020)', "description": "it's {a} [chart] \\ of `x`"},
        {"mark": {"type": "text", "text": 'He said "hi" (x)', "cursor": "pointer"}},
        {"mark": {"type": "circle", "color": "rgba(1, 2, 3, 0.5)", "tooltip": True}},
        {"encoding": {
            "x": {"field": "IMDB (max)", "type": "nominal", "title": "Weight (lbs)"},
            "y": {"aggregate": "mean", "field": "col\\.name", "format": "($,.2f", "stack": "zero"},
            "color": {"field": "it's", "legend": {"title": 'L "x" (y)', "values": ["A (x)"]}},
            "tooltip": [{"field": "a", "title": "B's (x)"}, {"field": "b", "format": ".1%"}],
            "order": {"field": "b", "sort": "descending"}, "detail": "a (b)",
        }},
        {"encoding": {
            "x": {"timeUnit": "yearmonth", "field": "d", "axis": {
                "format": "%b %Y", "labelExpr": "datum.label[0]+'x'", "titleFont": '"Lato", serif',
            }},
            "y": {"datum": 'A "(x)"'},
            "color": {"condition": {"test": "datum.b > 2", "value": "red"}},
            "fill": {"value": "hsl(1,2%,3%)"},
            "text": {"value": "a (b)"}, "size": {"scale": {"domain": ["A (x)"], "range": [1, 2]}},
        }},
        {"transform": [
            {"filter": "datum.b > 2 && isValid(datum.a)"},
            {"calculate": "datum.b*2", "as": "e (f)"},
            {"filter": {"field": "a", "oneOf": ['A "(x)"', "b"]}}, {"fold": ["b", "b (c)"]},
            {"filter": {"field": "d", "equal": {"year": 2012, "month": "jan"}}},
            {"timeUnit": "yearmonth", "field": "d", "as": "ym"}, {"pivot": "a", "value": "b"},
            {"impute": "b", "key": "a (b)", "value": 0, "groupby": ["a (b)"]},
        ]},
        {"params": [
            {"name": "p", "value": 3, "bind": {
                "input": "range", "min": 0, "max": 9, "name": "Q's (x)"}},
            {"name": "b", "select": {"type": "interval", "encodings": ["x"]}, "bind": "scales"},
            {"name": "l", "select": {"type": "point", "fields": ["a"]}, "bind": "legend"},
            {"name": "d", "select": {"type": "point", "on": "pointerover[!event.shiftKey]",
             "toggle": "event.shiftKey", "clear": "dblclick"},
             "bind": {"a": {
                 "input": "select", "options": [None, "A (x)"], "labels": ["-", "<a>"]}}},
            {"name": "e", "expr": "p * 2"}, {"name": "n", "bind": None},
        ]},
        {"repeat": {"column": ["b (c)", "b"]}, "spec": {"mark": "point", "encoding": {
            "x": {"field": {"repeat": "column"}, "type": "quantitative", "bin": True}}}},
        {"data": {"values": "a,b\nA (x),1\n", "format": {"type": "csv", "parse": {"b": "number"}}}},
        {"data": {"values": {"x": [{"b": 1}]}, "format": {"property": "x"}}},
        {"data": {"name": "t"}, "datasets": {"t": ROWS}},
        {"encoding": {"y": {"field": "b", "impute": {"value": 0}, "type": "quantitative"}}},
        {"$schema": "https://vega.github.io/schema/vega-lite/v5.20.1.json", "config": {
            "view": {"continuousWidth": 300}, "axis": {"labelFont": "Helvetica Neue"}}},
    ],
)  # fmt: skip
def test_honest_charts_pass_as_they_are(parts: dict[str, Any]):
    assert refused(lite(**parts)) == ""


def test_a_chart_of_vega_passes_as_it_is():
    assert refused({
        "width": 100, "padding": 5, "signals": [{"name": "s", "value": 1, "on": [
            {"events": "rect:pointerover, @bars:click", "update": "datum"},
            {"events": {"type": "click", "markname": "bars"}, "update": "s + 1"}]}],
        "data": [{"name": "t", "values": ROWS, "transform": [
            {"type": "formula", "as": "e (f)", "expr": "datum.b * 2"},
            {"type": "aggregate", "groupby": ["a (b)"], "ops": ["sum"], "fields": ["b"]}]}],
        "scales": [{"name": "x", "type": "band", "domain": {"data": "t", "field": "a"},
                    "range": "width"}],
        "axes": [{"scale": "x", "orient": "bottom", "title": "W (lbs)"}],
        "legends": [{"fill": "x", "encode": {"symbols": {"update": {"size": {"value": 9}}}}}],
        "marks": [{"name": "bars", "type": "rect", "from": {"data": "t"}, "encode": {"update": {
            "x": {"scale": "x", "field": "a", "offset": 5}, "fill": {"value": "steelblue"},
            "cursor": {"value": "pointer"}, "tooltip": {"signal": "datum.a"}}}}],
    }) == ""  # fmt: skip


# -- what it may not have ------------------------------------------------------------------------


@pytest.mark.parametrize("spec", [None, [], "text", 1])
def test_what_is_no_chart_is_none(spec: Any):
    assert refused(spec) == "is not a chart"


def test_options_of_the_embedder_and_other_schemas_are_left_out():
    held: list[str] = []
    spec = lite(usermeta={"embedOptions": {"actions": False}}, **{"$schema": "http://x/schema"})
    assert chart(spec, held.append) == lite()
    assert chart(lite(**{"$schema": ["x"]}), held.append) == lite()
    assert held == []


ADDRESS = "http://canary.invalid/x"
QUOTED = 'x": evil, "y'


@pytest.mark.parametrize(
    "parts",
    [
        {"data": {"url": ADDRESS}},
        {"data": {"url": "/api/contents"}},
        {"data": {"url": "data:text/csv,image%0A" + ADDRESS}},
        {"data": {"url": {"signal": "'x'"}}},
        {"encoding": {"href": {"field": "a"}}},
        {"encoding": {"url": {"field": "a"}}},
        {"mark": "image"},
        {"mark": {"type": "bar", "href": ADDRESS}},
        {"transform": [{"calculate": "1", "as": "image"}]},
        {"transform": [{"calculate": "1", "as": ["x", "cursor"]}]},
        {"marks": [{"transform": [{"type": "formula", "as": "href", "expr": "1"}]}]},
        {"mark": {"type": "bar", "cursor": f"url({ADDRESS}), auto"}},
        {"mark": {"type": "bar", "cursor": {"signal": "datum.a"}}},
        {"mark": {"type": "bar", "cursor": {"value": f"url({ADDRESS})"}}},
        {"marks": [{"encode": {"update": {"cursor": {"field": "a"}}}}]},
        {"params": [{"name": "cursor", "value": f"url({ADDRESS}), auto"}]},
        {"signals": [{"name": "cursor", "value": f"url({ADDRESS}), auto"}]},
        {"selection": {"cursor": {"type": "single"}}},
    ],
)  # fmt: skip
def test_nothing_is_loaded_and_nothing_leads_away(parts: dict[str, Any]):
    assert refused(lite(**parts))


@pytest.mark.parametrize(
    "rows",
    [
        [{"b": 1, "image": ADDRESS}],
        [{"b": 1}, {"b": {"image": ADDRESS}}],
        [[{"image": ADDRESS}]],
        {"image": ADDRESS},
        {"x": [{"image": ADDRESS}]},
        f"image,b\n{ADDRESS},1",
        '[{"im\\u0061ge": "x"}]',
        {"signal": "[{image: 'x'}]"},
    ],
)
def test_data_have_no_column_of_images(rows: Any):
    assert refused(lite(data={"values": rows}))
    assert refused(lite(datasets={"t": rows}))
    assert refused({"data": [{"name": "t", "values": rows}], "marks": []})


def test_no_column_of_images_is_made_of_values():
    rows = [{"k": "image", "v": ADDRESS}]
    assert refused(lite(data={"values": rows})) == ""
    for transform in ({"pivot": "k", "value": "v"}, {"type": "pivot", "field": "k"}):
        assert refused(lite(data={"values": rows}, transform=[transform]))


@pytest.mark.parametrize(
    "bind",
    [
        {"input": "text", "onfocus": "top.canary()", "autofocus": True},
        {"input": "text", "style": "position:fixed"},
        {"input": "image", "min": 0},
        {"input": "file"},
        {"input": "hidden"},
        {"input": ["text"]},
        {"onclick": "x"},
        {"element": "#jp-main"},
        {"input": "text", "element": "body"},
        {"a": {"input": "text", "onfocus": "x"}},
        {"a": {"input": "text"}, "onfocus": "x"},
        {"input": "text", "placeholder": {"toString": "x"}},
        {"input": "select", "options": [{"a": 1}]},
        {"legend": "click[evil()]"},
        "body",
        ["scales"],
        1,
    ],
)
def test_inputs_have_no_attributes_of_their_own(bind: Any):
    assert refused(lite(params=[{"name": "p", "value": 0, "bind": bind}]))
    assert refused({"signals": [{"name": "p", "value": 0, "bind": bind}]})


@pytest.mark.parametrize(
    "parts",
    [
        {"transform": [{"calculate": "evil()", "as": "x"}]},
        {"transform": [{"filter": {"and": ["evil()", "true"]}}]},
        {"params": [{"name": "p", "expr": "evil()"}]},
        {"title": {"text": {"signal": "evil()"}}},
        {"params": [{"name": "p", "select": {"type": "point", "toggle": "evil()"}}]},
        {"params": [{"name": "p", "select": {"type": "point", "on": "click[evil()]"}}]},
        {"params": [{"name": "p", "select": {"type": "point", "on": {"filter": ["evil()"]}}}]},
        {"signals": [{"name": "s", "on": [{"events": "click", "update": "evil()"}]}]},
        {"signals": [{"name": "s", "on": [
            {"events": {"type": "click", "markname": "x'||evil()||'"}, "update": "1"}]}]},
        {"signals": [{"on": [{"events": {"type": "x", "marktype": "x'||y||'"}, "update": "1"}]}]},
        {"data": [{"name": 't",evil(),"', "values": ROWS}]},
        {"data": [{"name": "t", "on": [{"trigger": "s", "values": "evil()"}]}]},
        {"data": [{"name": "t", "on": [{"trigger": "s", "values": ["evil()"]}]}]},
        {"marks": [{"encode": {"enter": {"x": {"value": 1, "mult": "evil()"}}}}]},
        {"marks": [{"encode": {"enter": {"x": {"value": 1, "offset": "{a: 1}"}}}}]},
        {"marks": [{"encode": {"enter": {"x": {"scale": "x", "band": "evil()"}}}}]},
        {"legends": [{"encode": {"symbols": {"update": {"size": {"value": "evil()"}}}}}]},
        {"legends": [{"size": 'x"),evil("', "type": "symbol"}]},
        {"axes": [{"scale": "x", "labelFlushOffset": "evil()"}]},
        {"encoding": {"latitude": {"datum": "evil()"}}},
        {"encoding": {"longitude": {"value": ["evil()"]}}},
        {"encoding": {"x": {"field": "b", "format": '"), evil("'}}},
        {"encoding": {"x": {"field": "b", "format": "'), evil('"}}},
        {"config": {"numberFormat": '"), evil("', "timeFormat": "%Y"}},
        {"encoding": {"x": {"field": "b", "formatType": "evil"}}},
        {"config": {"customFormatTypes": True, "numberFormatType": "warn"}},
        {"encoding": {"x": {"field": "b", "timeUnit": "year(evil)"}}},
        {"encoding": {"x": {"field": "b", "title": QUOTED}}},
        {"encoding": {"x": {"aggregate": "count", "title": ["x", "y\\"]}}},
        {"encoding": {"x": {"field": "a\\"}}},
        {"encoding": {"x": {"field": QUOTED}}},
        {"encoding": {"x": {"field": "a[evil()]", "impute": {"value": 0, "frame": [0, 1]}}}},
        {"encoding": {"x": {"field": "b", "aggregate": {"argmax": QUOTED}}}},
        {"repeat": {"column": [QUOTED]}},
        {"transform": [{"impute": "a[evil()]", "key": "b"}]},
        {"transform": [{"impute": "a", "key": "b", "keyvals": {"start": "evil()", "stop": 1}}]},
        {"transform": [{"filter": {"field": "d", "equal": {"year": "evil()"}}}]},
        {"encoding": {"x": {"field": "b", "bandPosition": "evil()"}}},
        {"encoding": {"x": {"field": "b", "bin": {"step": "evil()"}}}},
        {"encoding": {"x": {"field": "b", "scale": {"exponent": "evil()"}}}},
        {"data": {"values": ROWS, "format": {"parse": {"b": "date:'%Y')||evil('"}}}},
        {"some": {"thing": {"new": "evil()"}}},
        {"config": {"axis": {"labelFont": "evil()"}}},
    ],
)  # fmt: skip
def test_nothing_is_pasted_into_an_expression(parts: dict[str, Any]):
    assert refused(lite(**parts))


@QUICK
@given(st.text(st.sampled_from("ab'\"`\\({[]}).,"), max_size=8))
def test_under_an_unknown_name_code_is_harmless_code(text: str):
    if not refused(lite(new=text)):
        assert harmless(text) or not set("('\"`{[") & set(text)


def test_deep_charts_are_walked_to_their_end():
    """As deep as shapes.py lets them be."""
    spec: Any = {"signal": "evil()"}
    rows: Any = {"image": "x"}
    for _ in range(200):
        spec, rows = {"layer": [spec]}, [rows]
    assert refused(spec)
    assert refused({"data": {"values": rows}})


def test_the_type_is_of_any_version():
    for mime in ("vega.v5", "vegalite.v6", "vegalite.v10"):
        assert vega.MIME.fullmatch(f"application/vnd.{mime}+json")
    for mime in ("vega", "vega.v", "vega.v5+json;x", "vegaembed.v5"):
        assert not vega.MIME.fullmatch(f"application/vnd.{mime}+json")
