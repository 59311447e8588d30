r"""TeX that front ends typeset, without what would make it a link, a style or a script.

Pure; standard library only. It stands in text/latex, and between dollars in HTML, Markdown and
labels. Three engines read it: MathJax 3 with its Safe extension (JupyterLab 4.6's
mathjax-extension: all packages and `\require`), MathJax 2.7 with Safe (nbconvert 7.17's template),
MathJax 3 without it and KaTeX (VS Code). What is unsafe in any of them is unsafe here.

A macro is disarmed by a space behind its backslash: every engine then reads a control space and
letters, and a reader sees the name. `\href` and `\url` pass if their address is plainly the web's.
"""

from __future__ import annotations

import re

_SPACE = r"\s{0,9}+"
_COLOUR = rf"{_SPACE}\{{[\w .,!#-]{{0,99}}+\}}"
_MODEL = rf"(?:{_SPACE}\[[\w .,-]{{0,40}}+\])?+"

_MACRO = re.compile(
    r"\\(?=(?:"
    rf"(?:href|url)(?![A-Za-z])(?!{_SPACE}\{{{_SPACE}https?://[^\s{{}}\\\"'<>`$]{{1,2000}}+\}})"
    r"|(?:require|class|cssId|style|data|html(?:Class|Data|Id|Style)|includegraphics|mmlToken"
    r"|csname|special|input|include|openin|write|catcode|texttip|mathtip|mathtoolsset|setOptions)"
    r"(?![A-Za-z])"
    rf"|(?:color|textcolor|pagecolor|colorbox|(?:row|column|cell)color)(?![A-Za-z])"
    rf"(?!{_MODEL}{_COLOUR})"
    rf"|(?:fcolorbox|definecolor)(?![A-Za-z])(?!{_MODEL}{_COLOUR}{_COLOUR})"
    rf"|definecolor(?!{_COLOUR}{_COLOUR}{_COLOUR})"
    rf"|(?:bbox|unicode)(?![A-Za-z])(?={_SPACE}\[)(?!{_MODEL}{_SPACE}\{{)))"
)
"""MathJax: html, action, require, color, bbox, unicode, mathtools and setoptions packages; KaTeX:
the commands that its `trust` option is about. What colours, boxes and fonts are told is plain words
and numbers: MathJax puts some of it into a style. The bounds keep the time linear."""

_LOADS = re.compile(r"\burl(?=\()", re.IGNORECASE)


def disarmed(text: str) -> str:
    """`text` with the macros disarmed that link, style or load; the same object if it has none."""
    if "\\" not in text:
        return text
    changed = _MACRO.sub(r"\\ ", text)
    return text if changed == text else _LOADS.sub("url ", changed)
