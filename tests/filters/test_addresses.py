"""Shows which addresses an output may have, and that no way of writing one leads elsewhere."""

from __future__ import annotations

import pytest

from wasi_kernel.filters import addresses

PIXEL = "data:image/gif;base64,R0lGODlhAQABAAAAACw="


@pytest.mark.parametrize(
    "address",
    [
        "https://example.org",
        "HTTP://Example.org:8080/a?b=c&d#e",
        "https://10.0.0.1/",
        "https://localhost.example.org/",
        "https://e.org/@someone",
        "mailto:a@example.org?subject=x",
        "report.html",
        "data/a b.csv",
        "data/a..b.csv",
        "data/100%25.csv".replace("%25", "%20"),
        "folder/",
    ],
)
def test_a_link_to_the_web_or_a_file_stays(address: str):
    assert addresses.link(address) == address


@pytest.mark.parametrize(
    "address",
    [
        "javascript:x",
        "java\tscript:x",
        "data:text/html,x",
        "command:x",
        "file:///etc/passwd",
        "//example.org",
        "\\\\example.org",
        "/terminals/new",
        "../terminals/new",
        "a/../../terminals/new",
        "a/%2e%2e/%2E%2e/terminals/new",
        "a/.%2e/terminals/new",
        "a%2f..%2fb",
        "%252e%252e/b",
        "a%5c..%5cb",
        "?token=x",
        "",
        "#",
        "https://",
        "https:///example.org",
        "https://e.org/'\"",
        "https://a@e.org/",
    ],
)
def test_any_other_link_is_refused(address: str):
    assert addresses.link(address) is None


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST.",
        "a.localhost",
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f.1",
        "0177.0.0.1",
        "0",
        "[::1]",
        "%6cocalhost",
        "\uff4c\uff4fcalhost",
        "127\u30020.0.1",
        "e.org@localhost",
    ],
)
@pytest.mark.parametrize("rest", ["", ":8888/terminals/new", "?a", "#a"])
def test_a_link_to_the_reader_s_own_machine_is_refused(host: str, rest: str):
    assert addresses.link(f"http://{host}{rest}") is None


def test_a_link_to_a_place_gets_the_prefix_once():
    assert addresses.link("#top") == "#wasi-top"
    assert addresses.link("#wasi-top") == "#wasi-top"


@pytest.mark.parametrize(
    ("tag", "name", "address"),
    [
        ("img", "src", PIXEL),
        ("img", "src", "data:image/svg+xml;charset=utf-8,%3Csvg/%3E"),
        ("video", "poster", PIXEL),
        ("audio", "src", "data:audio/wav;base64,UklGRg=="),
        ("source", "src", "data:video/webm;codecs=vp8,opus;base64,GkXf"),
    ],
)
def test_data_to_show_or_play_stays(tag: str, name: str, address: str):
    assert addresses.media(tag, name, address) == address


@pytest.mark.parametrize(
    ("tag", "address"),
    [
        ("img", "https://example.org/x.png"),
        ("img", "x.png"),
        ("img", "data:text/html,x"),
        ("img", "data:image/png;base64,A\"'>"),
        ("audio", PIXEL),
        ("video", "data:video/mp4,x"),
    ],
)
def test_anything_else_is_neither_shown_nor_played(tag: str, address: str):
    assert addresses.media(tag, "src", address) is None


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("&amp;&lt;&#106;&#x6a;&#0000106", "&<jjj"),
        ("&#" + "0" * 5000 + "106;", "j"),
        ("&#" + "9" * 5000 + ";", "\ufffd"),
        ("&#;&#x;&#", "&#;&#x;&#"),
        ("&#0;", "\ufffd"),
    ],
)
def test_character_references_are_read_however_long_they_are(text: str, read: str):
    assert addresses.unescaped(text) == read
