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

_MACRO = re.compile(
    r"\\(?=(?:href|url)(?![A-Za-z])(?!\s*\{\s*https?://[^\s{}\\\"'<>`$]*\s*\})"
    r"|(?:require|class|cssId|style|data|html(?:Class|Data|Id|Style)|includegraphics|mmlToken"
    r"|csname|special|input|include|openin|write|catcode|texttip|mathtip)(?![A-Za-z])"
    r"|(?:color|textcolor|pagecolor|colorbox|fcolorbox|bbox|rowcolor|cellcolor)"
    r"\s*(?:\[[^\];:(]*+[;:(]|\{[^{};:(]*+[;:(]))"
)
"""MathJax: html, action, require, color and bbox packages; KaTeX: the commands that its `trust`
option is about. Colours with a `;`, `:` or `(` are style sheets."""

_LOADS = re.compile(r"\burl(?=\()", re.IGNORECASE)


def disarmed(text: str) -> str:
    """`text` with the macros disarmed that link, style or load; the same object if it has none."""
    if "\\" not in text:
        return text
    return _LOADS.sub("url ", _MACRO.sub(r"\\ ", text))
