"""Shows that nothing of the corpus in tests/payloads acts in what a front end would be sent.

Each payload is data: a message of a guest (`type`, `content`, `metadata`, `buffers` in hex), the
messages `before` it, and strings that must be `gone` from the page. What hostile code would do is
`top.canary()` or a request to canary.invalid, so that a browser can watch for both.

The oracle here shares nothing with the filters, but what they put around every frame: it reads HTML
with the standard library's parser, renders Markdown with mistune as nbconvert does, puts math back
as JupyterLab does, and lists what would act. It is shown to see the raw payloads.
"""

from __future__ import annotations

import json
import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import mistune
import pytest

from wasi_kernel.filters import enclosure
from wasi_kernel.frames import Frame
from wasi_kernel.frontend import Frontend

FOLDER = Path(__file__).parent / "payloads"
CORPUS: dict[str, dict[str, Any]] = {
    f"{path.stem}/{payload['name']}": payload
    for path in sorted(FOLDER.glob("*.json"))
    for payload in json.loads(path.read_text(encoding="utf-8"))
}

# -- the oracle ----------------------------------------------------------------------------------

LIVE = frozenset((
    "script", "iframe", "frame", "frameset", "object", "embed", "applet", "form", "button",
    "select", "textarea", "link", "meta", "base", "svg", "math", "template", "noscript", "portal",
    "fencedframe", "marquee", "dialog", "area", "map", "animate", "set", "foreignobject",
    "handler", "xmp", "noembed", "noframes", "plaintext",
))  # fmt: skip
"""Elements that act, or that other parsers read as text."""
ADDRESSED = frozenset((
    "src", "srcset", "href", "xlink:href", "action", "formaction", "data", "poster", "background",
    "ping", "cite", "lowsrc", "dynsrc", "code", "archive", "longdesc", "usemap", "manifest",
))  # fmt: skip
HARMLESS_LINK = re.compile(
    r"(https?://(?!localhost|127\.|0x|\d+[:/]|%|/|[^/]*@)|mailto:|#wasi-|(?!.*\.\.)[\w][\w./ -]*$)"
)
HARMLESS_DATA = re.compile(r"data:(image|audio|video)/")
VOID = frozenset(("br", "col", "hr", "img", "input", "source", "wbr", "link", "meta", "base"))
MOVES = re.compile(r"position|translate|transform|outline|margin|inset|box-shadow|zoom|scale")
TEX = re.compile(r"\\href\s*\{\s*javascript|\\require|\\(?:bbox|color)[^}]*[;:]")
SHEET_RULE = re.compile(r"\s*(#wasi-[\w-]+[ {]|@media|@supports|@container|@layer|\}|$)")


def style_acts(text: str) -> list[str]:
    plain = re.sub(r"/\*.*?\*/", "", text).lower()
    found = [
        w for w in ("expression", "@import", "binding", "behavior", "fixed", "\\") if w in plain
    ]
    addresses = re.findall(r"url\(\s*['\"]?([^)]*)|(?:image-set|src|image)\(([^)]*)", plain)
    return found + [
        a or b for a, b in addresses if not (a or b).startswith(("data:image/", "#wasi-"))
    ]


class Page(HTMLParser):
    """What would act in the page, by element and attribute."""

    def __init__(self, *, own_ids: bool) -> None:
        super().__init__()
        self.acts: list[str] = []
        self.out_of_order: list[str] = []  # tags that end or dress what stands around
        self._own_ids = own_ids
        self._in_style = False
        self._boxed = False
        self._text: list[str] = []
        self._open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in reversed(attrs)}
        self._in_style = tag == "style"
        self._text.append("" if tag == "wbr" else "\0")  # MathJax reads over it
        self._boxed = self._boxed or given.get("style") == "contain:content;overflow:auto"
        if tag not in VOID:
            self._open.append(tag)
        if tag == "iframe" and encloses(given):
            return
        if tag in LIVE or (tag == "input" and given.get("type") != "checkbox"):
            self.acts.append(f"<{tag}>")
        for name, value in given.items():
            self._attribute(tag, name, value)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if self._open and tag not in VOID:
            self._open.pop()

    def _attribute(self, tag: str, name: str, value: str) -> None:
        plain = re.sub(r"[\x00-\x20\u00a0]", "", value).lower()
        if name.startswith(("on", "data-")) or name in ("name", "is", "slot", "popover", "srcdoc"):
            self.acts.append(f"{tag} {name}")
        elif name in ADDRESSED:
            link = name.endswith("href") and HARMLESS_LINK.match(plain)
            link = link and (tag == "a" or plain.startswith("#"))
            data = tag not in ("a", "use") and HARMLESS_DATA.match(plain)
            data = data and not (tag == "image" and "svg" in plain[:20])
            if not link and not data:
                self.acts.append(f"{tag} {name}={value[:60]}")
        elif name == "style":
            self.acts += [f"style: {what}" for what in style_acts(value)]
            if MOVES.search(plain) and not self._boxed:
                self.acts.append("style: out of its place")
        elif name == "target" and value != "_blank":
            self.acts.append(f"target {value}")
        elif name == "class" and re.search(r"(^|\s)(jp-|lm-)", value):
            self.acts.append(f"class {value}")
        elif name == "id" and self._own_ids and not value.startswith("wasi-"):
            self.acts.append(f"id {value}")

    def handle_data(self, data: str) -> None:
        if self._in_style:
            self.acts += [f"sheet: {what}" for what in style_acts(data)]
            self.acts += [
                f"rule: {line}" for line in data.split("\n") if not SHEET_RULE.match(line)
            ]
        else:
            self._text.append(data)

    def handle_endtag(self, tag: str) -> None:
        self._in_style = False
        self._text.append("\0")
        if self._open and self._open[-1] == tag:
            self._open.pop()
        elif tag not in VOID:
            self.out_of_order.append(tag)

    def close(self) -> None:
        super().close()
        self.out_of_order += self._open
        text = "".join(self._text)
        if TEX.search(text):
            self.acts.append(f"TeX {text[:40]}")


INNER_FRAME = re.compile(r"<iframe (.*?)srcdoc=([\"'])(.*?)\2></iframe>", re.DOTALL)


def around(document: str) -> str:
    """What is in an outer document beside its frame."""
    return INNER_FRAME.sub("", document, count=1)


def outer(html: str) -> str:
    """The outer document of a frame."""
    found = re.search(r"srcdoc=([\"'])(.*)\1", enclosure.enclosed(html), re.DOTALL)
    return unescape(found[2])


AROUND = {around(outer("plain")), around(outer("<script>active</script>"))}
"""No payload changes what is around it."""


def encloses(attributes: dict[str, str], depth: int = 2) -> bool:
    """Is this a frame that keeps what is in it, and in it the next one, in which no script runs?"""
    document = attributes.get("srcdoc", "")
    scripts = {2: "allow-scripts", 1: ""}[depth]
    if attributes.get("sandbox") != scripts or not set(attributes) <= {
        "sandbox", "srcdoc", "style",
    }:  # fmt: skip
        return False
    policy = re.match(r'<!DOCTYPE html><html><head><meta http-equiv="Content-Security-Policy" '
                      r'content="([^"]*)">', document)  # fmt: skip
    if policy is None or not {
        "default-src 'none'", "frame-src 'none'", "form-action 'none'", "base-uri 'none'",
        "connect-src 'none'", "require-trusted-types-for 'script'",
    } <= set(policy[1].split("; ")):  # fmt: skip
        return False
    if depth == 1:
        return re.search(r"<(iframe|frame|object|embed|link)", document, re.IGNORECASE) is None
    inner = INNER_FRAME.search(document)
    if inner is None or around(document) not in AROUND:
        return False
    return inner[1] == 'sandbox="" ' and encloses(
        {"sandbox": "", "srcdoc": unescape(inner[3])}, depth - 1
    )


def html_acts(html: str, *, own_ids: bool = True, in_order: bool = False) -> list[str]:
    # as browsers read comments, and the standard library's parser does not
    html = re.sub(r"<!--(-?>)", r"<!-- -->", html).replace("--!>", "-->")
    page = Page(own_ids=own_ids)
    page.feed(html.replace("<![CDATA[", "<!x "))
    page.close()
    return page.acts + (page.out_of_order if in_order else [])


RENDER = mistune.create_markdown(escape=False, plugins=["table", "strikethrough", "url"])


def markdown_acts(text: str) -> list[str]:
    """What acts in the page of JupyterLab or nbconvert; see filters/markdown.py for math."""
    math: list[str] = []

    def hidden(match: re.Match[str]) -> str:
        math.append(match[0].replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"))
        return f"@@{len(math) - 1}@@"

    without = re.sub(
        r"\$(?:[^$\n]|\n(?!\n))+?\$|\\\\\(.+?\\\\\)|\\begin\{(\w+)\}.+?\\end\{\1\}|@@\d+@@",
        hidden, text,
    )  # fmt: skip
    html = str(RENDER(without))
    html = re.sub(r"@@(\d+)@@", lambda m: math[int(m[1])] if int(m[1]) < len(math) else m[0], html)
    fences = re.findall(r"^[ >*+-]*(?:`{3,}|~{3,})(.*)$", text.replace("\r", "\n"), re.MULTILINE)
    raw = [f"language {f}" for f in fences if '"' in f or "mermaid" in f]
    refused = ["link"] if "#harmful-link" in html else []  # mistune's own filter, which others lack
    return (
        html_acts(html, in_order=True)
        + html_acts(str(RENDER(text)), in_order=True)
        + html_acts(text)  # as in a block of HTML
        + raw
        + refused
    )


def svg_acts(text: str) -> list[str]:
    found = html_acts(text.replace("<svg", "<g").replace("</svg", "</g"), own_ids=True)
    found = [f for f in found if not f.startswith("style:")]
    if "<!" in text or "<?" in text:
        found.append("declaration")
    try:
        root = ET.fromstring(text)  # noqa: S314 - what the filter wrote, or a payload
    except ET.ParseError:
        return [*found, "not XML"]
    if MOVES.search(root.get("style", "")):
        found.append("style: out of its place")
    for element in root.iter():
        space, _, tag = str(element.tag).rpartition("}")
        if space != "{http://www.w3.org/2000/svg" or (tag.lower() in LIVE and tag != "svg"):
            found.append(str(element.tag))
        for full_name, value in element.attrib.items():
            name = full_name.rpartition("}")[2]
            if name.startswith("on") or (name.endswith("base") and ":" in value):
                found.append(name)
            if "url(" in value and not re.search(r"url\(#wasi-", value):
                found.append(value)
    return found


ORACLES = {
    "text/html": html_acts,
    "text/markdown": markdown_acts,
    "image/svg+xml": svg_acts,
    "application/javascript": lambda source: [source[:20]],
    "text/javascript": lambda source: [source[:20]],
}


def acts(content: Any) -> list[str]:
    """What would act in the page, anywhere in a message."""
    found: list[str] = []
    if isinstance(content, dict):
        for key, value in content.items():
            text = "".join(value) if isinstance(value, list) and key in ORACLES else value
            if key in ORACLES and isinstance(text, str):
                found += ORACLES[key](text)
            elif key == "state" and str(value.get("_model_name", "")).startswith("HTML"):
                found += html_acts(str(value.get("value", "")))
            else:
                found += acts(value)
    elif isinstance(content, list):
        for value in content:
            found += acts(value)
    return found


# -- the corpus ----------------------------------------------------------------------------------


def send(frontend: Frontend, message: dict[str, Any]) -> Any:
    """What is sent on for a message of a guest."""
    kind, content = message["type"], message["content"]
    buffers = tuple(bytes.fromhex(b) for b in message.get("buffers", ()))
    if kind == "input_request":
        return {"prompt": frontend.prompt(content["prompt"])}
    if kind == "history_reply":
        return {"history": [frontend.history_row(tuple(row)) for row in content["history"]]}
    if kind == "execute_reply":
        return frontend.execute_reply(content, 1)
    if kind == "complete_reply":
        return frontend.complete_reply(content, 9)
    if kind.endswith("_reply"):
        return getattr(frontend, kind)(content)
    frame = Frame(kind, content, metadata=message.get("metadata", {}), buffers=buffers)
    shown = frontend.output(frame, 1)
    return None if shown is None else {**shown, "header metadata": frontend.metadata(frame)}


def sent(frontend: Frontend, payload: dict[str, Any]) -> Any:
    for message in payload.get("before", ()):
        send(frontend, message)
    return send(frontend, payload)


def strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [s for pair in value.items() for part in pair for s in strings(part)]
    if isinstance(value, (list, tuple)):
        return [s for part in value for s in strings(part)]
    return []


def in_the_page(shown: Any) -> str:
    """All texts of a message, and itself as JSON, without what is inside of frames."""
    frames = re.compile(r"srcdoc=([\"'])(?:(?!\1).)*\1", re.DOTALL)
    texts = [frames.sub("srcdoc=", text) for text in strings(shown)]
    flat = re.sub(r'srcdoc=(\\"|\').*?\1>Inter', "srcdoc=", json.dumps(shown, ensure_ascii=False))
    return "\n\n".join([*texts, flat])


def test_the_corpus_is_large_and_whole():
    assert len(CORPUS) >= 150
    for payload in CORPUS.values():
        assert set(payload) <= {
            "name", "type", "content", "metadata", "buffers", "before", "gone",
        }  # fmt: skip


@pytest.mark.parametrize("name", CORPUS)
def test_nothing_of_it_acts(name: str):
    payload = CORPUS[name]
    shown = sent(Frontend(), payload)
    assert acts(shown) == []
    page = in_the_page(shown)
    assert [gone for gone in payload["gone"] if gone in page] == []


@pytest.mark.parametrize("name", CORPUS)
def test_as_text_nothing_but_text_is_left(name: str):
    shown = sent(Frontend("text"), CORPUS[name])
    assert acts(shown) == []
    if isinstance(shown, dict) and "data" in shown:
        assert all(m == "text/plain" or m.startswith("image/") for m in shown["data"])
        assert "image/svg+xml" not in shown["data"]


@pytest.mark.parametrize("name", CORPUS)
def test_twice_is_once(name: str):
    payload = CORPUS[name]
    shown = sent(Frontend(), payload)
    if shown is None:
        return
    again = Frontend()
    for message in payload.get("before", ()):
        send(again, message)
    passed = {k: v for k, v in shown.items() if k != "header metadata"}
    repeated = send(again, {**payload, "content": passed, "metadata": shown.get("header metadata")})
    if payload["type"] == "stream" and payload.get("before"):
        return  # the first half of a torn sequence is not in the second piece
    assert repeated == shown


@pytest.mark.parametrize("name", CORPUS)
def test_the_same_is_shown_the_same(name: str):
    assert sent(Frontend(), CORPUS[name]) == sent(Frontend(), CORPUS[name])


def test_the_oracle_sees_what_acts():
    """Of the payloads in HTML, Markdown and SVG it finds nearly all as they are."""
    blind = {
        name.partition("/")[2]
        for name, payload in CORPUS.items()
        if name.startswith(("markdown/markdown-", "svg/svg-", "html/svg-"))
        or "text/html" in payload["content"].get("data", {})
        if not acts(payload["content"])
    }
    assert blind == set(BLIND)


BLIND = {
    "script-null-byte": "no browser drops the null byte",
    "script-nested-tag": "acts if a filter takes the inner tag away",
    "img-unclosed": "acts if more text follows",
    "svg-onload-slashes": "acts if more text follows",
    "mxss-title-attribute": "acts if the attribute is written without escapes",
    "box-borrowed-id": "dresses another output, whose id it takes",
    "style-bracket-crossed": "takes what follows with it",
    "svg-root-overflow": "acts where the drawing is put into the page",
    "svg-root-overflow-style": "acts where the drawing is put into the page",
    "svg-root-transform": "acts where the drawing is put into the page",
    "xml-stylesheet": "acts in XML alone",
    "xss-conditional-comment": "acts in old browsers alone",
    "html-not-text": "is no text",
    "html-isolated": "acts by its metadata",
    "markdown-link-javascript-control": "renderers escape the control character today",
    "markdown-image-alt-breakout": "renderers escape the quotes today",
    "markdown-html-cdata": "a browser reads a comment up to the first >",
    "markdown-html-pi": "a browser reads a comment up to the first >",
    "markdown-html-close-in-title": "acts where a title may span lines",
    "markdown-html-leak-heading": "acts where nbconvert writes headings as XML",
    "markdown-html-unclosed": "acts if more text follows",
    "markdown-math-in-tag": "acts if only the first tag is changed",
    "markdown-math-placeholder": "JupyterLab hides such placeholders today",
    "markdown-math-placeholder-made": "JupyterLab hides such placeholders today",
    "svg-title-html": "acts if the title is written without escapes",
    "svg-deep": "takes time and memory",
}
"""What the oracle does not see as it is, and why it is in the corpus all the same."""
