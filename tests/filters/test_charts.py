"""Shows that figures and GeoJSON are drawn without anything that would be loaded or obeyed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wasi_kernel.filters.charts import geojson, plotly

QUICK = settings(max_examples=100, deadline=None)

ADDRESS = "http://canary.invalid/x.png"
PICTURE = "data:image/png;base64,iVBORw0KGgo="


def drawn(**figure: Any) -> tuple[Any, list[str]]:
    """(what is drawn of a figure, what was held back)."""
    held: list[str] = []
    shown = plotly({"data": [], "layout": {}, **figure}, held.append)
    assert shown is None or plotly(shown, [].append) == shown, "twice is once"
    return shown, held


def layout(**parts: Any) -> Any:
    return drawn(layout=parts)[0]["layout"]


def button(*args: Any) -> Any:
    """What is left of what a button sets."""
    menus = [{"type": "buttons", "buttons": [{"method": "relayout", "args": list(args)}]}]
    return layout(updatemenus=menus)["updatemenus"][0]["buttons"][0]["args"]


# -- plotly --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "figure",
    [
        {},
        {"data": [{"type": "scatter", "x": [1, None, 2.5], "y": ["<5 years", "a & b", "1<2"],
                   "hovertemplate": "<b>%{x}</b><br>%{y:<.2f}<extra>n</extra>"}]},
        {"data": [{"type": "sankey", "link": {"source": [0], "target": [1], "value": [2]}}]},
        {"layout": {"title": {"text": "a <a href='https://x.org/a?b#c' target='_blank'>web</a> "
                    "<span style='color: red; font-size:9px'>s</span> x<sup>2</sup>"}}},
        {"layout": {"images": [{"source": PICTURE}], "template": {"data": {
            "scattergeo": [{"type": "scattergeo"}], "scattermap": [{"type": "scattermap"}]}}}},
        {"layout": {"updatemenus": [{"buttons": [
            {"method": "animate", "args": [None, {"frame": {"duration": 5}}]},
            {"method": "restyle", "args": [{"visible": [True, False]}, [0]]},
            {"method": "relayout", "args": ["title.text", "Hi <b>x</b>"]}]}],
            "sliders": [{"steps": [{"method": "animate", "args": [["f"], {"mode": "next"}]}]}]},
         "frames": [{"name": "f", "data": [{"type": "bar", "y": [2]}]}]},
        {"config": {"responsive": True, "displaylogo": False, "scrollZoom": True}},
    ],
)  # fmt: skip
def test_honest_figures_pass_as_they_are(figure: dict[str, Any]):
    whole = {"data": [], "layout": {}, **figure}
    assert drawn(**figure) == (whole, [])


@pytest.mark.parametrize("figure", [None, [], "text", 1, {"data": {}}, {"data": "x"}])
def test_what_is_no_figure_is_none(figure: Any):
    held: list[str] = []
    assert plotly(figure, held.append) is None
    assert held == ["is not a figure"]


def test_parts_that_are_none_are_put_right():
    assert plotly({"layout": []}, [].append) == {"layout": {}}
    shown, _ = drawn(data=[1, None, {"type": ["scattergeo"]}], frames=[1, {"data": 2}], config=[])
    assert shown["data"] == [1, None, {"type": ["scattergeo"]}]
    assert "config" not in shown


@pytest.mark.parametrize(
    "address",
    [
        ADDRESS, "//canary.invalid/x", "/logout", "../logout", "x.png", "javascript:x", " ",
        "data:text/html,x", "data:image/svg+xml;base64,PHN2Zz4=",
        'data:image/png;base64,x" onerror="',
    ],
)  # fmt: skip
def test_addresses_are_left_out(address: str):
    assert layout(images=[{"source": address}]) == {"images": [{"source": ""}]}
    for name in ("source", "url", "tiles", "glyphs", "sprite", "href", "src"):
        shown, held = drawn(data=[0, {"a": [{name: [address]}]}])
        assert shown["data"] == [0, {"a": [{name: [""]}]}]
        assert "address" in held[0]
    assert layout(**{"images[0].source": address}) == {"images[0].source": ""}


def test_a_button_sets_no_address():
    assert button("images[0].source", "/logout") == ["images[0].source", ""]
    assert button("images[0]", {"source": ADDRESS}) == ["images[0]", {"source": ""}]
    assert button({"images[0].source": ADDRESS}) == [{"images[0].source": ""}]
    nothing = {"type": "FeatureCollection", "features": []}
    assert button("geojson", [ADDRESS]) == ["geojson", [nothing]]
    assert button("images[0].source", PICTURE) == ["images[0].source", PICTURE]
    steps = [{"args2": ["images['0'].source", "/x"]}]
    assert layout(sliders=[{"steps": steps}])["sliders"][0]["steps"] == [
        {"args2": ["images['0'].source", ""]}
    ]


@pytest.mark.parametrize("kind", ["scattergeo", "choropleth"])
def test_maps_of_the_world_are_refused(kind: str):
    assert drawn(data=[{"type": kind}])[0] is None
    assert drawn(frames=[{"data": [{"type": kind}]}])[0] is None
    assert button({"type": kind}) == [{"type": ""}]
    assert button("type", [kind]) == ["type", [""]]
    assert button({"data": [{"type": kind}]}) == [{"data": [{"type": ""}]}]


@pytest.mark.parametrize("style", ["open-street-map", "white-bg", {"sources": {"a": 1}}, [1], None])
def test_maps_upon_tiles_have_a_paper_that_loads_nothing(style: Any):
    """Also where the figure names no map, or one that plotly takes for the first."""
    paper = layout(map={"style": style, "zoom": 3})["map"]["style"]
    assert paper["sources"] == {}
    assert "glyphs" not in paper
    for part in (
        {"mapbox2": {"style": style}},
        {"template": {"layout": {"map": {"style": style}}}},
    ):
        assert json.dumps(paper) in json.dumps(layout(**part))
    assert layout(**{"map.style": style}) == {"map.style": paper} or not isinstance(style, str)
    if isinstance(style, str):
        assert button("map.style", style) == ["map.style", paper]
    assert button({"map": {"style": style}}) == [{"map": {"style": paper}}]


@pytest.mark.parametrize("kind", ["scattermap", "choroplethmap", "densitymap"])
@pytest.mark.parametrize("box", ["", "box"])
def test_every_trace_upon_tiles_has_one(kind: str, box: str):
    first = f"map{box}"
    for subplot in (None, first, "zz", f"{first}1", f"{first}2", 5, ["map"]):
        shown, _ = drawn(
            data=[{"type": kind + box, "subplot": subplot}], layout={first: {"zoom": 3}}
        )
        assert shown["layout"][first]["zoom"] == 3
        assert shown["layout"][first]["style"]["sources"] == {}
        if subplot == f"{first}2":
            assert shown["layout"][subplot]["style"]["sources"] == {}
    shown, _ = drawn(frames=[{"data": [{"type": kind + box}]}], layout={first: "x"})
    assert shown["layout"][first]["style"]["sources"] == {}
    assert button({"type": kind + box}) == [{"type": ""}]


@pytest.mark.parametrize(
    "name",
    [
        "__proto__", "constructor", "a.__proto__.b", "a['constructor'].b", 'a["prototype"]',
        "a[__proto__]",
    ],
)  # fmt: skip
def test_no_attribute_reaches_a_prototype(name: str):
    assert layout(a={name: {"polluted": 1}}, **{name: 1}) == {"a": {}}
    assert button(name, 1) == ["", 1]
    assert layout(constructors={"prototypes": 1}) == {"constructors": {"prototypes": 1}}


def test_settings_are_from_a_list():
    config = {"plotlyServerURL": ADDRESS, "topojsonURL": ADDRESS, "mapboxAccessToken": "x",
              "locales": {}, "showSendToCloud": True, "responsive": True}  # fmt: skip
    assert drawn(config=config)[0]["config"] == {"responsive": True}
    assert "more" not in drawn(more={"config": config})[0]


@pytest.mark.parametrize(
    "label",
    [
        "<a href='/terminals/new'>x</a>", "<a href='javascript:x'>", "<A HREF='/x'>",
        "<a href='https://x' target='_self'>", "<a href='https://x' target='_top'>", '<a href="/x"',
        "<a href='https://x/%{meta}'>", "<a", "<%{meta}", "<", "a<", "<script>", "<b onclick='x'>",
        "<span style='a\\b'>", "<a\nhref='/x'>", "<<a href='/x'>", "<b><a href='/x'>",
    ],
)  # fmt: skip
def test_labels_lead_nowhere_within_the_page(label: str):
    shown = layout(title={"text": label})["title"]["text"]
    assert shown != label
    assert shown.replace("< ", "<") == label
    assert "<a" not in shown.lower()
    assert not shown.endswith("<")
    assert "<%" not in shown


@QUICK
@given(st.text(st.sampled_from("<>a/ bhref='\"%{}:x"), max_size=30))
def test_a_label_twice_is_once(label: str):
    once = layout(title=label)["title"]
    assert layout(title=once)["title"] == once


# -- GeoJSON -------------------------------------------------------------------------------------


def test_geojson_without_html_passes_as_it_is():
    value = {"type": "Feature", "geometry": {"type": "Point", "coordinates": [1, 2.5]},
             "properties": {"name": "a < b & c", "list": ["x", 1, None], "5<6": "<5"}}  # fmt: skip
    assert geojson(value, [].append) == value


@pytest.mark.parametrize("value", [None, [], "<b>", 1])
def test_what_is_no_geojson_is_none(value: Any):
    held: list[str] = []
    assert geojson(value, held.append) is None
    assert held == ["is not GeoJSON"]


@pytest.mark.parametrize("tag", ["<img src=x onerror=y>", "</td>", "<!--", "<?x", "<<b>", "a<SVG"])
def test_texts_of_geojson_are_no_html(tag: str):
    """A popup is made of the names and values of properties (jupyterlab-geojson)."""
    shown = json.dumps(geojson({"properties": {tag: tag, "list": [1, tag, [tag]]}}, [].append))
    assert shown.count("< ") == 4
    assert not any(f"<{c}" in shown for c in "abcisSVG/!?")


def test_deep_values_are_walked_to_their_end():
    """As deep as shapes.py lets them be."""
    deep: Any = {"source": "/x", "text": "<b"}
    for _ in range(198):
        deep = [deep]
    assert '"/x"' not in json.dumps(layout(a=deep))
    assert "<b" not in json.dumps(geojson({"a": deep}, [].append))


@pytest.mark.parametrize("address", ["http://canary.invalid/x.json", "x.json", ""])
def test_shapes_that_would_be_fetched_are_none(address: str):
    """Of an empty address plotly.js would fetch the page that it stands in."""
    held: list[str] = []
    figure = {"data": [{"type": "choroplethmap", "geojson": address}], "layout": {}}
    shown = plotly(figure, held.append)
    assert shown["data"][0]["geojson"] == {"type": "FeatureCollection", "features": []}
    assert held
    assert plotly(shown, held.append) == shown
