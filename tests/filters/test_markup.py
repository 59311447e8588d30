"""Shows which HTML is shown as it is, cleaned in a box, or in a frame, and that each way is safe.

What acts is in the corpus of test_payloads.py; these are the parts of the filter, and its limits.
"""

from __future__ import annotations

import re

import pytest

from wasi_kernel.filters import enclosure, markup

BOX = re.compile(
    r'<div id="(wasi-[0-9a-f]{16})" style="contain:content;overflow:auto">(.*)</div>', re.DOTALL
)
PIXEL = "data:image/gif;base64,R0lGODlhAQABAAAAACw="


def sanitized(html: str) -> str:
    shown = markup.sanitized(html, ignored)
    assert shown is not None
    assert markup.sanitized(shown, ignored) == shown
    return shown


def ignored(reason: str) -> None:
    assert reason


def boxed(html: str) -> str:
    """What stands in the box, with the box's id as #."""
    box = BOX.fullmatch(sanitized(html))
    assert box is not None, sanitized(html)
    return box[2].replace(box[1], "#")


def framed(html: str) -> str:
    """What is enclosed, without what enclosure.py puts before it."""
    frame = enclosure.read(sanitized(html))
    assert frame is not None
    return frame.inner


@pytest.mark.parametrize(
    "html",
    [
        "text, and = \"marks\" of 'any' kind",
        "<b>x</b> &amp; y",
        "<pre>\n\nx</pre>",
        "<p>a=b</p>",
        "<table><tbody><tr><td>1</td></tr></tbody></table>",
    ],
)
def test_what_has_no_attributes_stays_as_it_is(html: str):
    assert sanitized(html) == html


@pytest.mark.parametrize(
    ("html", "inside"),
    [
        ('<b class="a jp-Dialog">x</b>', '<b class="a">x</b>'),
        ('<b id="x" title="<p>">x</b>', '<b id="wasi-x" title="&lt;p&gt;">x</b>'),
        ('<label for="x">y</label>', '<label for="wasi-x">y</label>'),
        ('<b style="color:red;position:fixed">x</b>', '<b style="color:red">x</b>'),
        ('<td-x data-command="a" class="b"></td-x><i dir="ltr">', '<i dir="ltr"></i>'),
        (f'<img src="{PIXEL}" alt="x" loading="lazy">', f'<img src="{PIXEL}" alt="x">'),
        ('<img src="https://e.org/x.png" alt="x">', '<img alt="x">'),
        ('<video src="x.mp4" controls></video>', '<video controls=""></video>'),
        ("<input type='checkbox' checked name=x>", '<input type="checkbox" checked="">'),
        (
            "<a href='https://e.org' target=_top ping=x>y</a>",
            '<a href="https://e.org" target="_blank" rel="noopener noreferrer">y</a>',
        ),
        ("<a href='data/x.csv' target='_blank'>y</a>", '<a href="data/x.csv" target="_blank"'),
        ("<a href='/lab' title=x>y</a>", '<a title="x" rel="noopener noreferrer">y</a>'),
        ("<style>#x td{color:red}</style>y", "<style>## #wasi-x td{color:red}\n</style>y"),
        ("<STYLE>b{}</STYLE><style>i{a:b}</style>", "<style>## i{a:b}\n</style>"),
    ],
)
def test_what_has_attributes_or_sheets_stands_in_a_box(html: str, inside: str):
    shown = boxed(html)
    assert shown == inside or (inside[-1] == '"' and shown.startswith(inside))


@pytest.mark.parametrize(
    "html",
    [
        "<script>x</script>",
        "<b onclick=x>y</b>",
        "<button>x</button>",
        "<form><input></form>",
        "<canvas></canvas>",
        "<b><i></b></i>",
        "<b x='",
    ],
)
def test_what_acts_or_is_out_of_order_is_shown_whole_in_a_frame(html: str):
    assert framed(html) == f"<body>{html}"


def test_a_frame_alone_is_replaced_by_what_is_in_it():
    assert framed('<iframe srcdoc="<b>x</b>" height="300"></iframe>') == "<body><b>x</b>"
    assert framed("<p>hint</p><iframe src='data:text/html;base64,PGI+'></iframe>") == "<body><b>"
    assert framed("<iframe src='data:text/html,%3Cb%3E'></iframe>") == "<body><b>"
    note = framed("<iframe src='https://e.org/x'></iframe>")
    assert "an output has no network: https://e.org/x" in note
    long = "x" * (markup.BESIDE + 1)
    assert framed(f'{long}<iframe srcdoc="y"></iframe>').startswith(f"<body>{long}<x-iframe")


def test_the_number_of_a_character_may_be_long():
    assert framed('<iframe srcdoc="&#' + "0" * 5000 + '106;"></iframe>') == "<body>j"


def test_scripts_that_are_not_loaded_are_named():
    assert "no network: https://e.org/x.js" in framed("<script src='https://e.org/x.js'></script>")


def test_drawings_become_images_but_for_those_that_refer_to_each_other():
    drawing = '<svg xmlns="http://www.w3.org/2000/svg"><path d="M0 0"/></svg>'
    assert boxed(drawing).startswith('<img alt="" src="data:image/svg+xml;base64,')
    assert drawing in framed(f"{drawing}<svg><use href='#x'/></svg>")
    assert framed("<svg><b></svg>") == "<body><svg><b></svg>"


@pytest.mark.parametrize(
    "entity", ["&amp;", "&lt;", "&quot;", "&nbsp;", "&#39;", "&#34;", "&#x27;"]
)
def test_a_plain_table_is_not_parsed(entity: str):
    table = '<div>\n<table border="1" class="dataframe"><thead>\n<tr style="text-align: right;">'
    table += f"<th></th></tr></thead><tbody><tr><th>{entity}</th><td>x > y</td></tr></tbody>"
    table += "\n</table>\n<p>1 rows \u00d7 1 columns</p>\n</div>"
    assert boxed(table) == table


@pytest.mark.parametrize(
    ("cell", "shown"),
    [
        ("&#92;href{javascript:x}{y}", "\\ href{javascript:x}{y}"),
        ("\\href{javascript:x}{y}", "\\ href{javascript:x}{y}"),
        ("&#60;b>", "&lt;b&gt;"),
        ("&x", "&amp;x"),
        ("<b>y</b>", "<b>y</b>"),
    ],
)
def test_a_table_with_anything_else_is_parsed(cell: str, shown: str):
    table = "<table><tbody><tr><td>{}</td></tr></tbody></table>"
    assert sanitized(table.format(cell)) == table.format(shown)


@pytest.mark.parametrize(
    "dress",
    [
        "onclick=x", 'onclick="x"', 'class="jp-Dialog"', 'class="a"onclick="x"',
        'style="color:red;width:url(y)"',
        'style="position:fixed"', 'style="color:red;\\"', 'id="x" name="y"', "class='a'",
        'style="background-color:\u0000x"', 'ID="x"', 'headers="x"',
    ],
)  # fmt: skip
def test_a_dress_that_is_not_listed_is_parsed(dress: str):
    shown = sanitized(f"<table><tbody><tr><td {dress}>x</td></tr></tbody></table>")
    assert dress not in shown or enclosure.read(shown)


def test_ids_of_a_plain_table_get_the_prefix_and_texts_do_not():
    table = '<table id="{}"><tbody><tr><td id="wasi-b">{}</td></tr></tbody></table>'
    assert boxed(table.format("a", ' id="c"')) == table.format("wasi-a", ' id="c"')


@pytest.mark.parametrize(
    "html",
    [
        "$&#92;href{javascript:x}{y}$",
        "$&bsol;href{javascript:x}{y}$",
        "$\\&#104;ref{javascript:x}{y}$",
        "<p>$\\hr<wbr>ef{javascript:x}{y}$</p>",
        "<p>$\\hr<!-- -->ef{javascript:x}{y}$</p>",
        "<p>$\\color<br>{red;x}y$</p>",
    ],
)
def test_tex_is_disarmed_as_it_is_read(html: str):
    assert re.search(r"\\ (?:href|hr<wbr>ef|color)", sanitized(html))


def test_a_box_has_the_digest_of_what_it_holds():
    shown = sanitized("<style>b{color:red}</style><b class=x>y</b>")
    other = shown.replace("color:red", "color:blue")
    assert BOX.fullmatch(sanitized(other))[1] != BOX.fullmatch(shown)[1]
    foreign = re.sub(r"wasi-[0-9a-f]{16}", "wasi-0123456789abcdef", shown)
    assert sanitized(foreign) == shown


def test_what_a_box_holds_is_cleaned_as_well():
    box = '<div id="wasi-0123456789abcdef" style="contain:content;overflow:auto">{}</div>'
    assert boxed(box.format('<b class="x">y</b></div><i dir="ltr">')) == (
        '<b class="x">y</b><i dir="ltr"></i>'
    )
    assert enclosure.read(sanitized(box.format("<script>x</script>")))


def test_html_is_as_long_as_is_allowed():
    assert markup.sanitized("x" * markup.MAX_CHARACTERS, ignored) is not None
    assert markup.sanitized("x" * (markup.MAX_CHARACTERS + 1), ignored) is None
    quotes = "<script>" + "&" * (markup.MAX_FRAMED // 8)
    assert markup.sanitized(quotes, ignored) is None


def test_spaces_before_the_address_of_a_script_take_no_time():
    html = "<script>x</script><script src=" + " " * 1_000_000
    assert enclosure.read(sanitized(html))
