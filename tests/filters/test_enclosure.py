"""Shows that a frame holds what it is given as it was given, and that nothing else passes for one.

What the frame keeps in is watched in a browser: tests/browser/test_payloads.py.
"""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from wasi_kernel.filters import enclosure


class Attributes(HTMLParser):
    """The attributes of the first frame in a document, as a parser of HTML reads them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: dict[str, str | None] = {}
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "iframe" and not self.found:
            self.found = dict(attrs)


def innermost(frame: str) -> str:
    document = frame
    for _ in range(2):
        document = Attributes(document).found["srcdoc"] or ""
    return document


def shown(html: str) -> str:
    """What stands in the innermost document behind what is always there."""
    return innermost(enclosure.enclosed(html)).partition("{font-family:sans-serif}</style>")[2]


@pytest.mark.parametrize(
    "html",
    [
        "<b>x</b>",
        "\"'&quot;&amp;quot;&#39;&amp;</body></html>",
        "'" * 9,
        '"' * 9,
        "<script>if (a < b && c) { d = '</x>' + \"'\" }</script>",
        "\r\n\t &nbsp \ufffe é",
    ],
)
def test_what_is_enclosed_arrives_as_it_was(html: str):
    assert shown(html) == f"<body>{html}"


@pytest.mark.parametrize(
    "html", ["<!DOCTYPE html><p>x", " <!-- x --> <html>", "<head>", "<BODY class=x>y"]
)
def test_a_document_stays_one(html: str):
    assert shown(html) == html


@pytest.mark.parametrize("name", enclosure.BARRED)
@pytest.mark.parametrize("tag", ["<{}>", "</{}>", "<{} src=x>", "<{}\0>", "<{}set>"])
def test_elements_with_windows_of_their_own_are_others(name: str, tag: str):
    for spelled in (name, name.upper()):
        html = tag.format(spelled)
        assert shown(html) == "<body>" + html.replace(spelled, f"x-{spelled}")


def test_both_frames_have_an_origin_of_their_own_and_the_policy_first():
    frame = enclosure.enclosed("<b>x</b>")
    outer = Attributes(frame).found
    inner = Attributes(outer["srcdoc"] or "").found
    assert (outer["sandbox"], inner["sandbox"]) == ("allow-scripts", "")
    for attributes in (outer, inner):
        assert (attributes["srcdoc"] or "").startswith(
            '<!DOCTYPE html><html><head><meta http-equiv="Content-Security-Policy" '
            f'content="{enclosure.POLICY}">'
        )


@pytest.mark.parametrize(
    ("html", "height"),
    [
        ("x", enclosure.MIN_HEIGHT),
        ("<p>x" * 10, 40 + 26 * 10),
        ("<p>x" * 100, enclosure.DEFAULT_HEIGHT),
        ("<canvas>", enclosure.DEFAULT_HEIGHT),
        ("<script>x</script>", enclosure.DEFAULT_HEIGHT),
        ('<div style="height: 300.5px">', 340),
        ('<script>{"height":700}</script>', 740),
        ('<div style="height:1200px">', enclosure.MAX_HEIGHT),
        ('<div style="height:1201px">', enclosure.MIN_HEIGHT + 6),
        ("<script>" + "height=999;" * (enclosure.LIBRARY // 11 + 1) + "</script>", 450),
        ('<div style="line-height:999px">', enclosure.MIN_HEIGHT + 6),
    ],
)
def test_the_height_is_guessed_from_what_the_content_says(html: str, height: int):
    assert f'<div style="height:{height}px;' in enclosure.enclosed(html, runs=True)


def test_a_height_that_is_given_stays_within_bounds():
    assert '"height:500px;' in enclosure.enclosed("x", height=500)
    assert f'"height:{enclosure.MIN_HEIGHT}px;' in enclosure.enclosed("x", height=1)
    assert f'"height:{enclosure.MAX_HEIGHT}px;' in enclosure.enclosed("x", height=10**9)


ACTIVE = ["<script>x</script>", "<b onclick=x>", "<a href=javascript:x>", "<SCRIPT src=data:,x>"]


@pytest.mark.parametrize("html", ACTIVE)
def test_what_acts_waits_below_a_bar_of_its_own_height(html: str):
    asks, runs = (enclosure.enclosed(html, height=100, runs=runs) for runs in (False, True))
    assert f'<div style="height:{100 + enclosure.BAR}px;' in asks
    assert '<div style="height:100px;' in runs
    outer = Attributes(asks).found["srcdoc"] or ""
    assert Attributes(outer).found["sandbox"] == ""
    assert outer.count("<button") == 1
    assert "<button" not in (Attributes(runs).found["srcdoc"] or "")


@pytest.mark.parametrize("html", ["<canvas>", "<form>x</form>", "<p>only text"])
def test_what_does_not_act_has_no_bar_and_no_scripts(html: str):
    outer = Attributes(enclosure.enclosed(html)).found["srcdoc"] or ""
    assert "<button" not in outer
    assert Attributes(outer).found["sandbox"] == ""


@pytest.mark.parametrize("runs", [True, False])
@pytest.mark.parametrize("html", [*ACTIVE, "<b>x", ""])
def test_a_frame_is_read_as_it_was_written(html: str, runs: bool):
    frame = enclosure.read(enclosure.enclosed(html, height=99, runs=runs))
    assert frame == enclosure.Frame(f"<body>{html}", 99, runs)


def test_a_note_is_text_and_stands_first():
    frame = enclosure.enclosed("<b>x</b>", note="<script>&")
    assert innermost(frame).endswith(
        "</style><p>[wasi-kernel] &lt;script&gt;&amp;</p><body><b>x</b>"
    )


def test_a_script_cannot_end_its_element():
    source = "a = '</script><SCRIPT><!--'"
    assert shown_of_script(source).endswith(r"a = '\x3c/script><SCRIPT>\x3c!--'</script>")


def shown_of_script(source: str) -> str:
    return innermost(enclosure.script(source))


FRAME = enclosure.enclosed("<b>x</b>")
ASKS, RUNS = (enclosure.enclosed("<script>x</script>", runs=runs) for runs in (False, True))


@pytest.mark.parametrize(
    "altered",
    [
        FRAME + " ",
        " " + FRAME,
        FRAME.replace('sandbox="allow-scripts"', 'sandbox="allow-scripts allow-same-origin"', 1),
        FRAME.replace("allow-scripts", "allow-scripts allow-top-navigation"),
        FRAME.replace("frame-src", "x-src", 1),
        FRAME.replace("connect-src", "x-src"),
        FRAME.replace("height:86px", "height:99999px").replace("height:60px", "height:99999px"),
        FRAME.replace("height:60px", "height:" + "9" * 5000 + "px"),
        FRAME.replace("height:60px", "height:\u0666\u0660px"),
        FRAME.replace("background:#fff", "background:#fff;position:fixed"),
        FRAME.replace("<iframe sandbox", "<iframe onload=x sandbox", 1),
        FRAME.replace("srcdoc=", "src=x srcdoc=", 1),
        FRAME.replace(enclosure.FALLBACK, enclosure.FALLBACK + "<script>x</script>"),
        FRAME.replace("<b>x", "<iframe>x"),
        FRAME.replace("<b>x", "<LINK>x"),
        FRAME.replace("<body><b>", "<body><b>&#" + "9" * 5000 + ";"),
        FRAME.replace("const T=", "const U="),
        FRAME.replace("<b>x", "'\"><script>x</script><b>x"),
        FRAME.replace("</iframe></div>", "</iframe><b></b></div>"),
        FRAME + FRAME,
        ASKS.replace("button.onclick=", "self.y="),
        ASKS.replace("disabled title", "title"),
        ASKS.replace('sandbox=""', 'sandbox="allow-scripts"', 1),
        RUNS.replace("<script>x</script>", "<b>x</b>").replace("allow-scripts", "", 1),
        ASKS.replace("<script>x</script>", "<b>x</b>"),
        FRAME.replace("<b>x", "<script>y</script><b>x"),
        "",
    ],
)
def test_nothing_but_a_frame_of_ours_passes_for_one(altered: str):
    assert altered not in (FRAME, ASKS, RUNS)
    assert not enclosure.read(altered)


def test_a_frame_of_ours_passes():
    assert enclosure.read(FRAME)
    assert enclosure.read(enclosure.script("'\"</script>&amp;"))


def test_a_script_that_shows_nothing_takes_little_room():
    def height(source: str) -> int:
        found = re.match(r'<div style="height:(\d+)px', enclosure.script(source, runs=True))
        assert found is not None
        return int(found[1])

    assert height("window.answer = 42") == enclosure.MIN_HEIGHT
    assert height("element.append('x')") == enclosure.DEFAULT_HEIGHT
    assert enclosure.read(enclosure.script("window.answer = 42"))
