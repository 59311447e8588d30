"""Shows that Markdown stays what it is but for what acts, and for tags that reach beyond it."""

from __future__ import annotations

import pytest

from wasi_kernel.filters import markdown


def disarmed(text: str) -> str:
    reasons: list[str] = []
    changed = markdown.disarmed(text, reasons.append)
    assert bool(reasons) == (changed != text.replace("\r\n", "\n"))
    return changed


HONEST = """\
# Report

Some *text* with `code`, a [link](https://example.org/a_(b) "title"), a [file](data/x.csv),
<https://example.org>, <someone@example.org>, [ref][r], a < b, x <- 3 and $\\alpha_1 < \\beta$.

[r]: https://example.org/r

- item one
- item two: see [x](y): z

```python
print("x", a["b"])
```

| a | b |
|---|---|
| 1<br>2 | <b>3</b> |

![plot](data:image/png;base64,AAAA)

$$
\\int_0^1 x dx
$$
"""


@pytest.mark.parametrize(
    "text",
    [
        HONEST,
        'a <b>bold</b> <font color="red">red</font> x<sub>1</sub> <br> <i style="color:red">y</i>',
        "<b>`code` and [x](https://e.org)</b>, <kbd>Ctrl</kbd>",
        '<div style="text-align:center">\n  <p>x</p>\n</div>\n\ntext',
        '<table border="1">\n    <tr>\n        <td>1</td>\n    </tr>\n</table>',
        "x\n\n<details>\n<summary>y</summary>\n\n- a\n- b\n\n```python\nx\n```\n\n</details>\n\nz",
        "<div>\n\nx\n\n</div>\n<div>\n\ny\n\n</div>",
        '<img src="data:image/png;base64,AAAA" width="9">',
        "<center>\n\nx\n\n</center>",
        "[top](#top) [up](a/b.ipynb)",
    ],
)
def test_honest_markdown_stays(text: str):
    assert disarmed(text) is text


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("<script>x</script>", "< script>x< /script>"),
        ("<b onclick=x>y</b>", "< b onclick=x>y< /b>"),
        ('<b onclick="x">y</b>', '< b onclick="x">y< /b>'),
        ("<b\nx>", "< b\nx>"),
        ("<!-- x -->", "< !-- x -->"),
        ("<?x?>", "< ?x?>"),
        ("<javascript:x>", "< javascript:x>"),
        ("<https://e.org/a=b>", "< https://e.org/a=b>"),
        ("<unknown>", "< unknown>"),
        ("<", "<"),
        ("<\u00e9>", "<\u00e9>"),
        ('<a href="javascript:x">y</a>', '< a href="javascript:x">y< /a>'),
        ('<p id="x">y</p>', '< p id="x">y< /p>'),
        ('<b title="&quot;">y</b>', '< b title="&quot;">y< /b>'),
        ('<img src="http://e.org/x.png">', '< img src="http://e.org/x.png">'),
    ],
)
def test_a_tag_that_is_not_plainly_harmless_is_text(text: str, left: str):
    assert disarmed(text) == left


@pytest.mark.parametrize(
    "style",
    [
        "position:fixed", "POSITION:fixed", "margin:-9px", "transform:none", "translate:9px",
        "inset:0", "outline:9px", "box-shadow:0 0 9px", "zoom:9", "color:red;top:0",
        "background:url(http://e.org)", "color:u\u0072l(x)", "--x:1", "x", "animation:x",
    ],
)  # fmt: skip
def test_a_style_that_leaves_its_place_is_refused(style: str):
    assert disarmed(f'<p style="{style}">x</p>') == f'< p style="{style}">x< /p>'


@pytest.mark.parametrize(
    "text",
    [
        "</div>",
        "<div>",
        "`<div>` </div>",
        "```\n<div>\n```\n\n</div>",
        "```\n\n<div>\n\n```\n\n</div>",
        "~~~\n\n<div>\n\n~~~\n\n</div>",
        "````\n\n```\n\n<div>\n\n````\n\n</div>",
        "- ```\n\n  <div>\n\n</div>",
        "- <div>\n\n</div>",
        "- x\n<div>\n\n</div>",
        "> <div>\n\n</div>",
        "    <div>\n\n</div>",
        " <div>\n\n</div>",
        "x\n<div>\n\n</div>",
        "<div>\n\n    </div>",
        "<div>\n\n- </div>",
        "<div> `</div>`",
        "<div>\n\n`x\n</div>",
        "$$\n\n<div>\n\n$$\n\n</div>",
        "\\begin{x}\n\n<div>\n\n\\end{x}\n\n</div>",
        "\\<div> </div>",
        '[x](https://e.org "\n<div>") </div>',
        "<b>`</b>`",
        "<b>\\</b>",
        "<b>$</b>$",
        '<b>[x](https://e.org "</b>")',
        "<b>[x]: y</b>",
        "<b>\n\n</b>",
        "<b>\n- </b>",
        "<b>\n    </b>",
        "# x <b></b>",
        "<b><i>x</b></i>",
    ],
)
def test_a_tag_that_may_stand_alone_for_some_renderer_is_text(text: str):
    assert "</div>" not in disarmed(text)
    assert "<b>" not in disarmed(text) or "<i>" in text


@pytest.mark.parametrize(
    "address",
    [
        "javascript:x", "<javascript:x>", "< javascript:x>", "<java\tscript:x>", "\n javascript:x",
        "&#106;avascript:x", "javascript&colon;x", "javascript\\:x", "\x01javascript:x",
        "data:text/html,x", "command:x", "/lab", "//e.org", "\\\\e.org", "../x", "a/../../x",
        "%2e%2e/x", "a(b)/../../x", "a((b)/../x", "<x", "<x\n>", "http://localhost:8888/lab",
        "https://e.org@127.0.0.1/",
        "&#" + "0" * 5000 + "106;avascript:x", "a]b:c", 'x"y', "a:b",
    ],
)  # fmt: skip
def test_a_link_elsewhere_is_no_link(address: str):
    assert disarmed(f"[x]({address})").replace("< ", "<").startswith("[x] (")
    assert disarmed(f"[x]: {address}").replace("< ", "<").startswith("[x] :")


def test_images_are_data_or_links():
    assert disarmed("![x](https://e.org/x.png)") == "! [x](https://e.org/x.png)"
    assert disarmed("![x][y]\n\n[y]: https://e.org/x.png") == "! [x][y]\n\n[y]: https://e.org/x.png"
    assert disarmed("![x](data:image/svg+xml,x)") == "! [x] (data:image/svg+xml,x)"
    assert disarmed('![x"](data:image/png;base64,AAAA)').startswith("! [")


@pytest.mark.parametrize(
    ("fence", "left"),
    [
        ('```x" onclick="y\n```', "```x onclick=y\n```"),
        ("> ~~~ x><b\n~~~", "> ~~~ xb\n~~~"),
        ("- [x] ```a$b\n", "- [x] ```ab\n"),
        ("```mermaid\n```", "```text\n```"),
        ("```{.mermaid}\n```", "```text\n```"),
        ("a\r```x'\r```", "a\n```x\n```"),
    ],
)
def test_languages_are_words(fence: str, left: str):
    assert disarmed(fence) == left


def test_quotes_inside_of_math_are_typographic():
    assert disarmed('"a" $"b"$ "c" $x$\n\n"d" $y') == '"a" $”b”$ ”c” $x$\n\n"d" $y'
    assert disarmed('\\\\("\\\\)') == "\\\\(”\\\\)"
    assert disarmed('@@0@@ " $x$') == "@@0@@ ” $x$"


def test_tex_is_disarmed():
    assert disarmed("$\\href{javascript:x}{y}$") == "$\\ href{javascript:x}{y}$"


def test_what_renderers_begin_with_is_done():
    reasons: list[str] = []
    assert markdown.disarmed("a\r\nb\rc\0", reasons.append) == "a\nb\nc\ufffd"
    assert reasons == []
