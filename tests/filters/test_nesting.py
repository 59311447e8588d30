"""Shows which HTML is cleaned and which goes into a frame, because it acts or would cost too much.

The costly inputs were seconds to minutes of nh3 at some kilobytes, before they were refused.
"""

from __future__ import annotations

import pytest

from wasi_kernel.filters import nesting


@pytest.mark.parametrize(
    "html",
    [
        "x < y & z", "<p>a<p>b<ul><li>c<li>d</ul>", "<dl><dt>a<dd>b<dt>c</dl>", "<b><i>x</i></b>",
        "<table><tr><td>a<td>b<tr><th>c</table>", "<table><tr><td>a</td></tr></tbody></table>",
        "<table><caption>x</caption><colgroup><col><col></colgroup><thead><tr><th>a</thead></table>",
        "<table><tbody> <tr> <td><table><tr><td>x</table> </tbody></table></td>y</tr>",
        "<!DOCTYPE html><html><head><meta charset=utf-8><title>x</title></head><body>y</html>",
        "<!-- <script> - -- --><br/><img src='data:,'><hr>", "<?xml version='1.0'?><b>x</b>",
        "x</div></p>", "<b title='</b>' class=\"<p>\" id=x/>y</b>", "<x-y>z</x-y>",
        "<input type=checkbox><INPUT TYPE='radio'>", "<b>= javascript: onclick=x</b>", "<p once=1>",
        "<ruby>a<rp>(<rt>b<rp>)</ruby>", "<a href=#x>y</a><a href=#z>y</a>",
    ],
)  # fmt: skip
def test_what_shows_something_and_nests_plainly_is_calm(html: str):
    assert nesting.is_calm(html)


@pytest.mark.parametrize(
    "html",
    [
        "<script>", "<SCRIPT/x>", "<iframe>", "<svg>", "<math>", "<form>", "<button>", "<canvas>",
        "<style>", "<xmp>", "<plaintext>", "<noscript>", "<textarea>", "<select>", "<template>",
        "<b onclick=x>", "<b/onclick=x>", "<b\fONCLICK\n=\nx>", "<b title=''onclick=x>",
        "<a href=javascript:x>", "<a href='  java\nscript:x'>", "<a href='&#106;avascript:x'>",
        "<a href='&#" + "0" * 5000 + "106;avascript:x'>", "<a href=vbscript:x>", "<b srcdoc=x>",
        "<meta http-equiv=refresh>", "<input>", "<input type=text type=checkbox>",
    ],
)  # fmt: skip
def test_what_acts_is_not_calm(html: str):
    assert not nesting.is_calm(html)


@pytest.mark.parametrize(
    "html",
    [
        "<b", "<b x='>", "<b x=\"'>", "</b x=", "<!-->", "<!--->", "<!--x--!>", "<!--x", "<!x>",
        "<![CDATA[x]]>", "<b x=`y`>", "<b x==y>", "<b 'x'>", "<b<i>",
    ],
)  # fmt: skip
def test_tags_that_parsers_may_read_otherwise_are_not_calm(html: str):
    assert not nesting.is_calm(html)


@pytest.mark.parametrize(
    "html",
    [
        "<b><i></b></i>", "<p><b>x</p>", "<b><p>x</b>", "<td>x", "<tr><td>x", "<table>x<tr><td>y",
        "<table><tr>x</tr></table>", "<table><b></b></table>", "<table><caption><td>x",
        "<table><tr><td></b></td>x", "<a>x<a>y", "<nobr>x<nobr>y", "<title><b>x</b></title>",
        "<html a=1><html b=1>", "<div><span></div>", "<table></p></table>", "<col>", "<table>x",
    ],
)  # fmt: skip
def test_what_a_parser_would_have_to_put_in_order_is_not_calm(html: str):
    assert not nesting.is_calm(html)


def test_it_nests_as_deep_as_is_allowed():
    assert nesting.is_calm("<div>" * nesting.DEPTH)
    assert not nesting.is_calm("<div>" * (nesting.DEPTH + 1))
    assert nesting.is_calm("<p>" * 2 * nesting.DEPTH)  # one ends the other


def test_as_much_formatting_is_open_as_is_allowed():
    assert nesting.is_calm("<b>" * nesting.REOPENED)
    assert not nesting.is_calm("<b>" * (nesting.REOPENED + 1))
    assert nesting.is_calm("<b></b>" * 2 * nesting.REOPENED)


def test_a_tag_has_as_many_attributes_as_is_allowed():
    def with_attributes(count: int) -> str:
        return f"<b {' '.join(f'a{k}=1' for k in range(count))}>"

    assert nesting.is_calm(with_attributes(64))
    assert not nesting.is_calm(with_attributes(65))


@pytest.mark.parametrize("join", ["", "</x>", "<!-- -->", "<html>"])
def test_a_text_has_as_many_references_as_its_length_allows(join: str):
    count = int(2 * (nesting.COPIED // (1 + len(join))) ** 0.5)
    once = join != "<html>"
    assert nesting.is_calm("<p>x &amp; y</p>" * 2000)
    assert not nesting.is_calm(f"&{join}" * count)
    assert nesting.is_calm(f"<p>&{join * once}</p>" * (count // 100))


@pytest.mark.parametrize(
    "html",
    [
        "<p>" + "".join(f"<font size={k}>" for k in range(1500)) + "</p>" + "<p>x</p>" * 2000,
        "<table>" + "<b></b>" * 100_000,
        "<br>" * 9000 + "<table>" + "x<tr>" * 9000,
        "<b " + " ".join(f"a{k}" for k in range(100_000)) + ">x</b>",
        "<font><table><tr><td></font></td></tr></table>" * 20_000,
        "".join(f'<b title="</b>" id={k}>' for k in range(50_000)),
        "".join(f"<html a{k}=1>" for k in range(50_000)),
        "<b>" + "&" * 1_000_000,
        '<b title="' + "&" * 1_000_000 + '">',
    ],
    ids=lambda html: html[:24],
)
def test_what_would_cost_the_square_of_its_length_is_not_calm(html: str):
    assert not nesting.is_calm(html)
