"""Shows that a drawing draws and does nothing else, wherever a front end puts it."""

from __future__ import annotations

import re

import pytest

from wasi_kernel.filters import svg

NS = 'xmlns="http://www.w3.org/2000/svg"'
ROOT = f'<svg {NS} xmlns:xlink="http://www.w3.org/1999/xlink"'


def drawn(inside: str, attributes: str = "") -> tuple[str | None, list[str]]:
    """(what is drawn inside of the root element, the reasons for what is not)."""
    reasons: list[str] = []
    text = svg.sanitized(f"{ROOT}{attributes}>{inside}</svg>", reasons.append)
    if text is None:
        return None, reasons
    inner = re.fullmatch(r"<svg[^>]*>(.*)</svg>", text, re.DOTALL)
    return "" if inner is None else inner[1], reasons


@pytest.mark.parametrize(
    "inside",
    [
        '<path d="M0 0 L1 1" style="fill:none;stroke:#000"/>',
        '<g id="wasi-a" transform="translate(1 2) rotate(-45)"><use xlink:href="#wasi-b"/></g>',
        '<clipPath id="wasi-c"><rect clip-path="url(#wasi-c)"/></clipPath>',
        '<image xlink:href="data:image/png;base64,AAAA"/>',
        '<a xlink:href="https://example.org"><text>x &amp; &lt;y&gt;</text></a>',
        "<title>&lt;b&gt;</title>",
    ],
)
def test_what_draws_is_written_again(inside: str):
    assert drawn(inside) == (inside, [])


@pytest.mark.parametrize(
    ("inside", "left"),
    [
        ("<script>x</script>", ""),
        ('<script xmlns="http://www.w3.org/1999/xhtml"/>', ""),
        (f'<x:script xmlns:x="{svg.SVG}">y</x:script>', ""),
        ("<foreignObject><b/></foreignObject><g/>", "<g/>"),
        ('<animate attributeName="href"/><set/><discard/><handler/>', ""),
        ('<g onclick="x" onload="y"/>', "<g/>"),
        (f'<g x:onclick="y" xmlns:x="{svg.SVG}"/>', "<g/>"),
        ('<use href="http://e.org#x"/>', "<use/>"),
        ('<use href="data:image/svg+xml,x#y"/>', "<use/>"),
        ('<image href="http://e.org"/><image href="x.png"/>', "<image/><image/>"),
        ('<image href="data:image/svg+xml,x"/>', "<image/>"),
        ('<a href="javascript:x" target="_top"/>', "<a/>"),
        ('<a href="/lab"/>', "<a/>"),
        ('<g fill="url(http://e.org)"/>', "<g/>"),
        ('<g fill="u\\72l(http://e.org)"/>', "<g/>"),
        ('<g style="fill:url(http://e.org);color:red"/>', '<g style="color:red"/>'),
        ('<g xml:base="http://e.org"/>', "<g/>"),
        ("<title><b/>x</title><desc><g/></desc>", "<title>x</title><desc/>"),
        ("<!-- x --><?y z?><g/>", "<g/>"),
        ('<g class="jp-Dialog a"/>', '<g class="a"/>'),
        ('<g id="a" fill="url(#b)"/>', '<g id="wasi-a" fill="url(#wasi-b)"/>'),
    ],
)
def test_what_does_anything_else_is_left_out(inside: str, left: str):
    assert drawn(inside)[0] == left


@pytest.mark.parametrize(
    "attributes",
    [
        ' style="position:absolute;margin:-9px;top:0;float:left;z-index:9;inset:0;zoom:9"',
        ' style="overflow:visible;transform:none;translate:9px;filter:blur(9px);outline:9px"',
        ' overflow="visible"',
        ' transform="scale(9)" transform-origin="9 9"',
        ' filter="url(#a)"',
    ],
)
def test_the_root_stays_in_its_place_and_within_its_edges(attributes: str):
    text = svg.sanitized(f"{ROOT}{attributes}/>", list[str]().append)
    assert text is not None
    assert text.replace(' style=""', "") == f"{ROOT}/>"


def test_the_root_keeps_its_size_and_colours():
    attributes = ' width="9pt" viewBox="0 0 9 9" style="max-width:100%;background-color:red;--x:1"'
    text = f"{ROOT}{attributes}/>"
    assert svg.sanitized(text, list[str]().append) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "<svg",
        f"<svg {NS}>",
        f"<svg {NS}><g></svg>",
        "<html/>",
        '<svg xmlns="http://www.w3.org/1999/xhtml"/>',
        f'<!DOCTYPE svg [<!ENTITY x "y">]><svg {NS}>&x;</svg>',
        f"<!DOCTYPE svg [ ]><svg {NS}/>",
        f"<svg {NS}>&nbsp;</svg>",
        f"<svg {NS}>\0</svg>",
        f"<svg {NS}>\ud800</svg>",
    ],
)
def test_what_is_no_drawing_is_refused(text: str):
    reasons: list[str] = []
    assert svg.sanitized(text, reasons.append) is None
    assert len(reasons) == 1


def test_what_programs_write_before_a_drawing_is_read_over():
    text = f'<?xml version="1.0" encoding="utf-16"?>\n<!DOCTYPE svg PUBLIC "x" "http://e">{ROOT}/>'
    assert svg.sanitized(text, list[str]().append) == f"{ROOT}/>"


def test_a_fragment_of_html_gets_its_namespaces():
    text = svg.sanitized('<svg><use xlink:href="#a"/></svg>', list[str]().append)
    assert text == f'{ROOT}><use xlink:href="#wasi-a"/></svg>'


def test_sheets_dress_their_own_drawing():
    text = svg.sanitized(
        f'<svg {NS} id="a"><style>td{{x:y}} .b&gt;c{{fill:url(#d)}}</style></svg>',
        list[str]().append,
    )
    assert text is not None
    scope = re.search(r' id="(wasi-[0-9a-f]{16})"', text)
    assert scope is not None
    sheet = f"#{scope[1]} td{{x:y}}\n#{scope[1]} .b&gt;c{{fill:url(#wasi-d)}}\n"
    assert f"<style>{sheet}</style>" in text


def test_a_drawing_takes_no_other_s_id():
    text = f'<svg {NS} id="wasi-0123456789abcdef"><style>b{{color:red}}</style></svg>'
    shown = svg.sanitized(text, list[str]().append)
    assert shown is not None
    assert "wasi-0123456789abcdef" not in shown
    assert svg.sanitized(shown, list[str]().append) == shown


def test_it_nests_as_deep_as_is_allowed():
    def nested(depth: int) -> str | None:
        return drawn("<g>" * (depth - 1) + "</g>" * (depth - 1))[0]

    assert nested(svg.DEPTH) is not None
    assert nested(svg.DEPTH + 1) is None


def test_it_is_as_long_as_is_allowed():
    def long(characters: int) -> str | None:
        return svg.sanitized(f"<svg {NS}/>".ljust(characters), list[str]().append)

    assert long(svg.MAX_CHARACTERS) is not None
    assert long(svg.MAX_CHARACTERS + 1) is None


def test_what_is_left_out_is_named():
    assert drawn('<script/><g onload="x"/><metadata/>')[1] == ["had g onload, script: left out"]
