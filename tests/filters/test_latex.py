"""Shows which TeX macros stay, and that those that link, load or style do nothing more."""

from __future__ import annotations

import pytest

from wasi_kernel.filters import latex


@pytest.mark.parametrize(
    "text",
    [
        r"$\displaystyle \int_{0}^{\infty} e^{- x}\, dx$",
        r"\begin{bmatrix}1 & 2\\3 & 4\end{bmatrix}",
        r"\href{https://example.org/a?b=c#d}{x} \url{https://example.org}",
        r"\color{red}x \textcolor[rgb]{1,0,0}{y} \colorbox{#ffcc00}{z} \color {blue!50}",
        r"\fcolorbox{red}{blue}{x} \definecolor{a}{HTML}{AABBCC} \rowcolor[gray]{0.9}",
        r"\bbox[5px, yellow]{x} \bbox{y} \unicode{x41} \unicode[12,3,arial]{65}",
        r"\classical \datatype \colorless \inputs \hrefs \urls",
        "no macros, C:/x",
    ],
)
def test_what_only_typesets_stays(text: str):
    assert latex.disarmed(text) is text


@pytest.mark.parametrize(
    "macro",
    [
        r"\href{javascript:x}{y}", r"\href {data:text/html,x}{y}", r"\href#1{y}", r"\href",
        r"\href{https://e.org\"onclick}{y}", r"\url{file:///etc/passwd}", r"\require{html}",
        r"\class{jp-Dialog}{x}", r"\cssId{x}{y}", r"\style{position:fixed}{x}", r"\data{a=b}{c}",
        r"\htmlClass{a}{b}", r"\htmlData{a=b}{c}", r"\htmlId{a}{b}", r"\htmlStyle{a:b}{c}",
        r"\includegraphics{https://e.org/x.png}", r"\mmlToken{mi}[href='javascript:x']{y}",
        r"\csname href\endcsname{javascript:x}", r"\special{x}", r"\input{x}", r"\include{x}",
        r"\openin1", r"\write18{x}", r"\catcode`\@=0", r"\texttip{a}{b}", r"\mathtip{a}{b}",
        r"\color{red;background:url(x)}", r"\color{{red;x}}", r"\color red", r"\color{\x}",
        r"\color[rgb;x]{1}", r"\textcolor{a:b}{x}", r"\pagecolor{a(b)}", r"\colorbox{a;b}{x}",
        r"\fcolorbox{red}{a;b}{x}", r"\definecolor{a}{named}{b;c}", r"\rowcolor{a;}",
        r"\cellcolor{a;}", r"\bbox[border:1px solid]{x}", r"\unicode[a;b:c]{65}",
        r"\mathtoolsset{x=y}", r"\setOptions{x=y}",
    ],
)  # fmt: skip
def test_a_macro_that_acts_is_a_space_and_its_name(macro: str):
    assert latex.disarmed(f"a{macro}").startswith("a\\ " + macro[1:5])


def test_what_a_disarmed_macro_would_load_is_no_address_any_more():
    assert "url(" not in latex.disarmed(r"\style{background:url(https://e.org)}{x}")
    assert latex.disarmed("url(x) of text") == "url(x) of text"


def test_arguments_longer_than_is_looked_at_are_refused():
    assert latex.disarmed(r"\href{https://e.org/" + "a" * 1900 + "}").startswith(r"\href")
    assert latex.disarmed(r"\href{https://e.org/" + "a" * 2100 + "}").startswith(r"\ href")
    assert latex.disarmed(r"\color{" + "a" * 99 + "}").startswith(r"\color")
    assert latex.disarmed(r"\color{" + "a" * 100 + "}").startswith(r"\ color")
