"""Shows that a style sheet dresses its own output, loads nothing, and is read as it is written."""

from __future__ import annotations

import pytest

from wasi_kernel.filters import css

PIXEL = "url(data:image/png;base64,AAAA)"


@pytest.mark.parametrize(
    "value",
    [
        "red", "#ff0000", "1px solid rgba(0, 0, 0, .5)", "calc(1% - (2px + 1em))", "var(--x, 1px)",
        "linear-gradient(90deg, #d65f5f 10%, transparent 0) !important", '"Fira Code", serif',
        "'\\25bc'", "[a] 1fr [b] minmax(0, 1fr)", PIXEL, 'url("data:image/svg+xml,x")', "a/b",
    ],
)  # fmt: skip
def test_a_value_that_loads_nothing_stays(value: str):
    assert css.value(value) == value


@pytest.mark.parametrize(
    "value",
    [
        "url(http://e.org)", "url(x)", "url(//e.org)", "url(data:text/html,x)", "URL( 'http://e' )",
        "url(#a)", "u\\72l(http://e)", "\\75rl(x)", "image-set('http://e' 1x)", "src('x')",
        "-webkit-image-set(url(x) 1x)", "expression(1)", "attr(x)", "paint(x)", "element(#x)",
        "env(x)", "image(x)", "cross-fade(a, b)", "a;b", "a:b", "a{b}", "a}", "a<b", "@x", "(", ")",
        ")(", "[", "]", "([)]", "[(])", '"', "'", '"a', '"</style>"',
        'url("data:image/png;base64,A" , x)',
    ],
)  # fmt: skip
def test_a_value_that_loads_or_breaks_out_is_refused(value: str):
    assert css.value(value) is None


def test_drawings_may_refer_to_their_own_ids():
    assert css.value("url(#a)", fragments=True) == "url(#wasi-a)"
    assert css.value('url("#wasi-a") red', fragments=True) == "url(#wasi-a) red"
    assert css.value("url(a#b)", fragments=True) is None


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("color:red; POSITION: fixed; Width : 1px", "color:red;width:1px"),
        ("position:relative", "position:relative"),
        ("behavior:url(x);-moz-binding:url(x);src:x;view-transition-name:x", ""),
        ("--x: 1px;--X:2px", "--x:1px;--X:2px"),
        ("a/**/:b;c:/*;*/d;/*e:f", "a:b;c:d"),
        ("a:\\;b:c", ""),
        ("a:';';b:c", "a:';';b:c"),
        ("1a:b;a b:c;:d;e", ""),
    ],
)
def test_declarations_that_are_harmless_are_kept(text: str, kept: str):
    assert css.declarations(text) == kept


def test_declarations_may_be_limited_to_some_properties():
    text = "color:red;margin:1px;--x:1"
    assert css.declarations(text, among=frozenset(("color",))) == "color:red;--x:1"


@pytest.mark.parametrize(
    ("selector", "scoped"),
    [
        ("td", "#wasi-s td"),
        ("#T_1 .a:hover > b::before", "#wasi-s #wasi-T_1 .a:hover > b::before"),
        ("a, b:is(c, d)", "#wasi-s a,#wasi-s b:is(c, d)"),
        ('[x="a,b" i]', '#wasi-s [x="a,b" i]'),
        ("#wasi-s td", "#wasi-s td"),
        ("é", "#wasi-s é"),
    ],
)
def test_every_selector_stands_below_the_output(selector: str, scoped: str):
    assert css.sheet(f"{selector}{{color:red}}", "wasi-s") == f"{scoped}{{color:red}}\n"


@pytest.mark.parametrize(
    "selector",
    [
        "> a", "+ a", "~ a", ",", "", "a)", "a:is(b", "a:is(b)) c", ":host-context(a)", "@x",
        "::slotted(a)", "::part(a)", ":unknown(a)", "a|b", "&", "a&", "\\61", "[a='", "[a", "a{",
    ],
)  # fmt: skip
def test_a_selector_that_is_not_known_or_steps_out_is_dropped(selector: str):
    assert css.sheet(f"{selector}{{color:red}}b{{color:red}}", "wasi-s") in (
        "#wasi-s b{color:red}\n",
        "",
    )


def test_the_root_is_the_output_and_gets_custom_properties_alone():
    text = ":root, html, b { --x: red; display: none }"
    assert css.sheet(text, "wasi-s") == (
        "#wasi-s{--x:red}\n#wasi-s b{--x:red;display:none}\n"
    )  # fmt: skip


@pytest.mark.parametrize(
    "rule",
    [
        "@import url(http://e.org);", "@import 'x';", "@font-face{font-family:x;src:url(http://e)}",
        "@keyframes x{from{color:red}}", "@property --x{syntax:'*'}", "@namespace x url(y);",
        "@charset 'x';", "@page{margin:0}", "@\\69mport 'x';", "@view-transition{navigation:auto}",
    ],
)  # fmt: skip
def test_what_a_page_shares_is_not_defined(rule: str):
    assert css.sheet(f"{rule}b{{color:red}}", "wasi-s") == "#wasi-s b{color:red}\n"


def test_conditions_hold_what_they_held():
    text = "@media (min-width: 1px) { b { color: red } @import 'x'; }"
    held = "@media (min-width: 1px){\n#wasi-s b{color:red}\n}\n"
    assert css.sheet(text, "wasi-s") == held
    assert css.sheet(held, "wasi-s") == held
    assert css.sheet("@media (a{b{color:red}}", "wasi-s") == ""


def test_conditions_nest_as_deep_as_is_allowed():
    def nested(depth: int) -> str:
        return css.sheet("@media print{" * depth + "b{color:red}" + "}" * depth, "wasi-s")

    assert "red" in nested(css.DEPTH)
    assert nested(css.DEPTH + 1) == ""


def test_an_open_bracket_does_not_take_the_rules_that_follow():
    text = "b{grid-area:[}i{color:red]}u{color:blue}"
    assert css.sheet(text, "wasi-s") == "#wasi-s u{color:blue}\n"


def test_a_sheet_cannot_end_its_element():
    text = "b{content:'</style><script>'}</style><i{color:red}<!--u{color:red}-->"
    assert "<" not in css.sheet(text, "wasi-s")


def test_a_sheet_that_is_too_long_has_no_rules():
    rule = "b{color:red}"
    longest = rule + " " * (css.MAX_CHARACTERS - len(rule))
    assert css.sheet(longest, "wasi-s") != ""
    assert css.sheet(longest + " ", "wasi-s") == ""


@pytest.mark.parametrize(
    ("html", "rest", "sheets"),
    [
        ("a<style>b</style>c", "ac", ["b"]),
        ("<STYLE type='x'>a</Style ><style>b</style>", "", ["a", "b"]),
        ("İ<STYLE>a</STYLE>İ", "İİ", ["a"]),  # whose lower case is longer
        ("<style>a", "<style>a", []),
        ("<style", "<style", []),
        ("<style>a</style", "<style>a</style", []),
    ],
)
def test_sheets_are_taken_out_of_html(html: str, rest: str, sheets: list[str]):
    assert css.split_sheets(html) == (rest, sheets)


def test_classes_of_the_page_are_left_out():
    assert css.classes("a jp-Dialog lm-Menu b cm-x") == "a b"
    assert css.classes("ajp- b") == "ajp- b"


def test_a_prefix_is_written_once():
    assert css.prefixed(css.prefixed("a")) == "wasi-a"
