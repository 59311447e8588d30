"""Addresses that an output may have: those that a click leads to, and data to show or play.

Pure; standard library only. Nothing is asked for by itself: images, sounds and films are data. A
link leads to the web, to a file below the notebook's folder (IPython's FileLink) or to a place in
the output; never to a path of the server (`/terminals/new` opened a terminal in the classic
notebook) or to the machine that the browser runs on, where the server often is, nor to
`javascript:`, `data:`, VS Code's `command:` and the like.
"""

from __future__ import annotations

import re
from html import unescape

from wasi_kernel.filters import css

_HOST = (
    r"(?!(?:[a-z0-9_-]+\.)*localhost\.?(?![\w.-]))"
    r"(?:(?:[a-z0-9_-]+\.)*[a-z][a-z0-9_-]*\.?|(?!0|127\.)\d{1,3}(?:\.\d{1,3}){3})(?::\d*)?(?![^/?#])"
)
"""Written plainly: a browser also reads `0x7f.1`, `%6cocalhost` and full-width letters as the
loopback address, and what stands before an `@` as a name (WHATWG URL, host parsing)."""

WEB = re.compile(rf"(?:https?://(?={_HOST})|mailto:)[^\s\"'<>`\\]+", re.IGNORECASE | re.ASCII)

UPWARDS = r"(?!(?:[^/]*/)*\.\.)(?!(?s:.*)%(?:2[ef]|5c|25))"
"""No `..`, which a browser also reads in `%2e%2e` (WHATWG URL, "double-dot path segment")."""

_FILE = re.compile(rf"{UPWARDS}[\w%+~ -][\w.%+~ -]*(?:/[\w.%+~ -]+)*/?", re.IGNORECASE)

_IMAGE = re.compile(
    r"data:image/(?:png|jpe?g|gif|webp|bmp|avif|apng|svg\+xml|x-icon|vnd\.microsoft\.icon)"
    r"(?:;charset=utf-?8|;utf8)?(?:;base64)?,[^\s\"'<>\\][^\"'<>\\]*+",
    re.IGNORECASE,
)
"""An SVG among them runs no script and loads nothing (SVG Integration, "secure static mode")."""

_SOUND = re.compile(
    r"data:(?:audio|video)/[\w.+-]+(?:;codecs=[\w.,-]+)?;base64,[\w+/=\s-]*+", re.IGNORECASE
)

_NUMBER = re.compile(r"&#0*+([0-9]*+)")


def unescaped(text: str) -> str:
    """`text` with its character references read, whatever number they have."""
    if "&#" in text:  # int() refuses more than 4300 digits
        text = _NUMBER.sub(lambda m: "&#" + (m[1][:8] or "0" * (len(m[0]) > 2)), text)
    return unescape(text)


def link(address: str) -> str | None:
    """The address if a click may lead there, with an id's prefix if it is a place; else None."""
    address = address.strip()
    if WEB.fullmatch(address) or _FILE.fullmatch(address):
        return address
    if address.startswith("#") and len(address) > 1:
        return "#" + css.prefixed(address[1:])
    return None


def media(tag: str, name: str, address: str) -> str | None:
    """The address if it is data that this attribute of an element may show or play; else None."""
    address = address.strip()
    pattern = _IMAGE if tag == "img" or name == "poster" else _SOUND
    return address if pattern.fullmatch(address) else None
