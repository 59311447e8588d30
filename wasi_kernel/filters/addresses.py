"""Addresses that an output may have: those that a click leads to, and data to show or play.

Pure; standard library only. Nothing is asked for by itself: images, sounds and films are data. A
link leads to the web, to a file below the notebook's folder (IPython's FileLink) or to a place in
the output; never to a path of the server (`/terminals/new` opened a terminal in the classic
notebook), nor to `javascript:`, `data:`, VS Code's `command:` and the like.
"""

from __future__ import annotations

import re

from wasi_kernel.filters import css

WEB = re.compile(r"(?:https?://|mailto:)[^\s\"'<>`\\]+", re.IGNORECASE)
_FILE = re.compile(r"(?!(?:[^/]*/)*\.\.)[\w%+~ -][\w.%+~ -]*(?:/[\w.%+~ -]+)*/?")

_IMAGE = re.compile(
    r"data:image/(?:png|jpe?g|gif|webp|bmp|avif|apng|svg\+xml|x-icon|vnd\.microsoft\.icon)"
    r"(?:;charset=utf-?8|;utf8)?(?:;base64)?,[^\s\"'<>\\][^\"'<>\\]*+",
    re.IGNORECASE,
)
"""An SVG among them runs no script and loads nothing (SVG Integration, "secure static mode")."""

_SOUND = re.compile(
    r"data:(?:audio|video)/[\w.+-]+(?:;codecs=[\w.,-]+)?;base64,[\w+/=\s-]*+", re.IGNORECASE
)


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
