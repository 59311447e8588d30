"""What holds for any content: a filter raises nothing, gives the same again, and for its own too.

The contents are made of pieces that matter to parsers, in any order, so that they are torn and
nested in ways that nobody writes.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wasi_kernel.filters import addresses, css, enclosure, latex, markdown, markup, svg, terminal
from wasi_kernel.frames import Frame
from wasi_kernel.frontend import Frontend

if TYPE_CHECKING:
    from collections.abc import Callable

TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=8)

MARKUP = (
    "<b>", "</b>", "<div>", "</div>", "<p>", "</p>", "<table>", "<tr>", "<td>", "</td>", "</table>",
    "<tbody>", "<caption>", "<li>", "<ul>", "</ul>", "<a href='https://e.org'>", "</a>", "<br>",
    "<pre>", "</pre>", "\n", "<!--", "-->", "--!>", "<![CDATA[", "]]>", "<?x", "<", ">", "/", '"',
    "'", "=", "&", "&lt;", "&quot;", "&#92;", "&#39", "&nbsp;", "\0", "\r", "\t", "\xa0", "x", "0",
    "<script>", "</script>", "<style>", "</style>", "<svg>", "</svg>", "<math>", "<title>",
    "<template>", "<iframe srcdoc='x'>", "</iframe>", "<textarea>", "<img src=x onerror=y>",
    '<i class="jp-x y" id="z" style="color:red;position:fixed" title="<p>">', "</i>", "<wbr>", "$",
    "\\href", "\\color{red;x}", "<style>b{color:red}#z:hover{x:url(y)}</style>", "<body>", "<html>",
    "<input type=checkbox>", "<font size=1>", "</font>", "<dl><dt>", "<form>", "= javascript:",
    '<div id="wasi-0123456789abcdef" style="contain:content;overflow:auto">',
    enclosure.enclosed("<b>x"), "<svg xmlns='http://www.w3.org/2000/svg'><path d='M0'/></svg>",
)  # fmt: skip
MARKDOWN = (
    "<b>", "</b>", "<div>", "</div>", "<https://e.org>", "<br>", "[", "]", "(", ")", "![", "](",
    "]:", "javascript:", "data:image/png;base64,AAAA", "https://e.org/", "`", "```", "~~~", "\n",
    "\n\n", "    ", "> ", "- ", "1. ", "# ", "$", "$$", "\\\\(", "\\\\)", "\\begin{x}", "\\end{x}",
    "@@0@@", '"', "'", "\\", "&", "&colon;", "&#58;", "\r", "\0", "mermaid", "| a |", "|-|", "x",
    "<", ">", '<p style="color:red">', "</p>", '<a href="https://e.org">', "</a>",
    "\\href{javascript:x}{y}",
)  # fmt: skip
SHEETS = (
    "a", ".b", "#c", "{", "}", ";", ":", "(", ")", "[", "]", '"', "'", "\\", "/*", "*/", "<", ">",
    "@media print", "@import ", "@font-face", "url(", "data:image/png;base64,AA", "color", "red",
    "position:fixed", ",", " ", "\n", "+", "~", "*", ":is(", ":root", "--x", "var(--x)", "#wasi-s ",
    "a{color:red}", "@supports (x:y){", "é", "\xa0",
)  # fmt: skip
DRAWING = (
    "<g>", "</g>", "<path d='M0'/>", "<style>", "a{fill:red}", "</style>",
    "<a href='https://e.org'>", "</a>", "<title>", "</title>", "<use href='#x'/>",
    "<g id='x' style='fill:url(#y)'>", "x", "&lt;", "<script/>",
    "<image href='data:image/png;base64,AA'/>", "<rect onload='x' fill='url(http://e)'/>",
)  # fmt: skip
TEX = (
    "\\", "\\href", "\\url", "{", "}", "https://e.org", "javascript:x", "\\color", "[", "]", "red",
    "\\bbox", ";", "url(", ")", " ", "\n", "$", "\\require", "\\unicode", "&", "#1", "\\def\\x",
)  # fmt: skip
TERMINAL = (
    "\x1b[", "31m", "\x1b]8;;http://e\x07", "\x1b", "\x9b", "\r", "\b", "\n", "\u202e", "x", "2J",
    "\x07", "\x1b\\", "\0", ";", "1",
)  # fmt: skip


def made_of(pieces: tuple[str, ...], *, around: str = "{}") -> st.SearchStrategy[str]:
    parts = st.lists(st.sampled_from(pieces) | TEXT, max_size=24).map("".join)
    return parts.map(lambda text: around.replace("{}", text))


def ignored(reason: str) -> None:
    assert reason


FILTERS: dict[str, tuple[Callable[[str], str | None], st.SearchStrategy[str]]] = {
    "html": (partial(markup.sanitized, hold=ignored), made_of(MARKUP)),
    "svg": (
        partial(svg.sanitized, hold=ignored),
        made_of(DRAWING, around="<svg xmlns='http://www.w3.org/2000/svg'>{}</svg>"),
    ),
    "markdown": (partial(markdown.disarmed, hold=ignored), made_of(MARKDOWN)),
    "latex": (latex.disarmed, made_of(TEX)),
    "sheet": (lambda text: css.sheet(text, "wasi-s"), made_of(SHEETS)),
    "declarations": (css.declarations, made_of(SHEETS)),
    "value": (css.value, made_of(SHEETS)),
    "link": (addresses.link, made_of((*MARKDOWN, "#", "..", "%2e", "/", "localhost"))),
    "text": (terminal.show, made_of(TERMINAL)),
}


@pytest.mark.parametrize("name", FILTERS)
@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_filter_gives_the_same_again_and_for_its_own(name: str, data: st.DataObject):
    filtered, contents = FILTERS[name]
    content = data.draw(contents)
    shown = filtered(content)
    assert filtered(content) == shown
    if shown is not None:
        assert filtered(shown) == shown


@settings(max_examples=300, deadline=None)
@given(html=made_of(MARKUP), note=TEXT, height=st.integers(-9, 9999))
def test_what_is_enclosed_is_known_as_that(html: str, note: str, height: int):
    assert enclosure.read(enclosure.enclosed(html, note=note, height=height))


@settings(max_examples=300, deadline=None)
@given(html=made_of((*MARKUP, "srcdoc=", "&amp;", "&amp;quot;")), at=st.integers(0, 10**6))
def test_only_what_is_enclosed_is_known_as_that(html: str, at: int):
    whole = enclosure.enclosed("<b>x</b>")
    at %= len(whole)
    torn = whole[:at] + html + whole[at:]
    if enclosure.read(torn):  # in its innermost document, where anything may stand
        assert torn == enclosure.enclosed(inside(torn), height=height(torn))


def inside(frame: str) -> str:
    """What `enclosed` was given, found by two plain readings of its attribute."""
    for _ in range(2):
        start = frame.index("srcdoc=") + len("srcdoc=")
        quote = frame[start]
        frame = frame[start + 1 : frame.rindex(quote)]
        frame = frame.replace("&quot;", '"').replace("&#39;", "'").replace("&amp;", "&")
    return frame.partition("<style>body{font-family:sans-serif}</style>")[2]


def height(frame: str) -> int:
    return int(frame.partition("height:")[2].partition("px")[0])


TYPES = {
    "text/html": made_of(MARKUP), "text/markdown": made_of(MARKDOWN), "text/latex": made_of(TEX),
    "text/plain": made_of(TERMINAL), "image/svg+xml": FILTERS["svg"][1], "image/png": TEXT,
    "application/javascript": made_of(MARKUP), "application/json": TEXT, "application/x-y": TEXT,
}  # fmt: skip


@pytest.mark.parametrize("mode", ["isolated", "text", "trusted"])
@settings(max_examples=150, deadline=None)
@given(data=st.fixed_dictionaries({}, optional=TYPES))
def test_a_bundle_gives_the_same_again_and_for_its_own(mode: str, data: dict[str, Any]):
    shown = display(mode, data)
    assert display(mode, data) == shown
    assert display(mode, shown) == shown


def display(mode: str, data: dict[str, Any]) -> dict[str, Any]:
    content = {"data": data, "metadata": {}, "transient": {}}
    sent = Frontend(mode).output(Frame("display_data", content), 1)
    assert sent is not None
    return sent["data"]
