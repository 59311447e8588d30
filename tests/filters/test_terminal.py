"""Shows that text can colour itself and do nothing else."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from wasi_kernel.filters import terminal
from wasi_kernel.filters.terminal import Streams, line, show, trace

QUICK = settings(max_examples=100, deadline=None)

TEXTS = st.text(
    st.one_of(
        st.sampled_from("\x1b\x9b\x9d\x07[]m;:01358 \n\r\b\t\u202e\u200d\u200b\ufe0f\U000e0041é❤"),
        st.characters(exclude_categories=["Cs"]),
    ),
    max_size=60,
)

SGR = re.compile("\x1b\\[[0-9;:]*m")


def acting(text: str) -> list[str]:
    """The characters of `text` that a terminal would act upon, after its colours are gone."""
    rest = SGR.sub("", text)
    return [c for c in rest if c < " " and c not in "\n\r\b\t"] + [
        c for c in rest if "\x7f" <= c <= "\x9f"
    ]


@pytest.mark.parametrize(
    "text",
    [
        "", "plain\ttext\n", "50%|█████     | 5/10\r", "spin|\b/\b-", "é\u2028\u2029",
        "\x1b[31mred\x1b[0m", "\x1b[1;38;5;208mx\x1b[m", "\x1b[38;2;8;8;8mx\x1b[39m",
        "\x1b[38:2::8:8:8mx", "\x1b[38;5;8mgrey\x1b[0m", "\x1b[4:3mcurly",
        "👩\u200d🔬", "❤\ufe0f", "1\ufe0f\u20e3", "\u0646\u0645\u06cc\u200c\u062e\u0648",
        "\u05d0\u200f!", "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
        "\u845b\U000e0100", "\u0e01\u0e33",
    ],
)  # fmt: skip
def test_what_is_meant_to_be_seen_is_not_touched(text: str):
    assert show(text) == text


def test_a_text_without_anything_of_that_kind_is_not_copied():
    for text in ("plain\n" * 100, "é" * 100):
        assert show(text) is text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;title\x07", "␛]0;title␇"),
        ("\x1b]52;c;cm0gLXJm\x1b\\", "␛]52;c;cm0gLXJm␛\\"),
        ("\x1b]8;;http://x\x1b\\a", "␛]8;;http://x␛\\a"),
        ("\x1b[2J\x1b[1;1H", "␛[2J␛[1;1H"),
        ("\x1b[A\x1b[K", "␛[A␛[K"),
        ("\x1b[?1049h", "␛[?1049h"),
        ("\x1b[6n", "␛[6n"),
        ("\x1b[>4;1m", "␛[>4;1m"),
        ("\x1bP+q\x1b\\", "␛P+q␛\\"),
        ("\x1bc", "␛c"),
        ("\x9b31m\x9d0;t\x9c", "\\x9b31m\\x9d0;t\\x9c"),
        ("\x00\x0c\x0b\x7f\x07", "␀␌␋␡␇"),
        ("\x1b[8mhidden", "␛[8mhidden"),
        ("\x1b[1;8mhidden", "␛[1;8mhidden"),
        ("\x1b[38;5;1;8mhidden", "␛[38;5;1;8mhidden"),
        ("\x1b[008mhidden", "␛[008mhidden"),
        ("\x1b[" + "1;" * 40 + "m", "␛[" + "1;" * 40 + "m"),
        ("a\u202eb\u2066c\u200f", "a\\u202eb\\u2066c\\u200f"),
        ("\u05d0\u202e", "\u05d0\\u202e"),
        ("x\u200by\u2060z\ufeff\u00ad", "x\\u200by\\u2060z\\ufeff\\xad"),
        ("a\u200db", "a\\u200db"),
        ("x\ufe0f", "x\\ufe0f"),
        ("❤\ufe0f\ufe0e", "❤\ufe0f\\ufe0e"),
        ("é\u200d\u200d", "é\u200d\\u200d"),
        ("a\U000e0068\U000e0069", "a\\U000e0068\\U000e0069"),
        ("x\U000e0101", "x\\U000e0101"),
        ("\ufff9a\ufffab\ufffb", "\\ufff9a\\ufffab\\ufffb"),
    ],
)
def test_what_acts_or_hides_is_shown(text: str, shown: str):
    assert show(text) == shown


def test_without_colours_not_even_these():
    assert show("\x1b[31mx", colours=False) == "␛[31mx"
    assert line("a\nb\r\bc\x1b[0m\t") == "a␊b␍␈c␛[0m\t"


@QUICK
@given(TEXTS)
def test_nothing_acts_and_twice_is_once(text: str):
    shown = show(text)
    assert acting(shown) == []
    assert show(shown) == shown
    assert acting(line(text)) == []
    assert "\n" not in line(text)


def test_a_mark_of_direction_is_looked_at_once():
    """The whole text says whether it may stand; asked for each mark, this would take an hour."""
    assert show("\u200e" * 200_000) == "\\u200e" * 200_000
    assert show("\u05d0" + "\u200e" * 200_000) == "\u05d0" + "\u200e" * 200_000


# -- tracebacks ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\x1b[31mE\x1b[0m: got <class 'int'>, not <b> or <abbr>",
        "File <string>:1, in <module>",
        "File ~/x.py:3, in f(x)\n      1 s = '<b>'\n----> 3 a < b",
        "\x1b[36mCell\x1b[39m\x1b[36m \x1b[39m\x1b[32mIn[1]\x1b[39m\x1b[32m, line 1\x1b[39m",
        "Input \x1b[32mIn [1]\x1b[0m, in <cell line: 1>()",
    ],
)
def test_a_traceback_is_not_touched(text: str):
    assert trace(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<a href='x'><img></a>", "< a href='x'><img></a>"),
        ("<A\thref='x'>", "< A\thref='x'>"),
        ("x <a", "x < a"),
        ("<a\nhref='x'>", "< a\nhref='x'>"),
        ("<\x1b[41ma href='x'>", "< \x1b[41ma href='x'>"),
        ("<a\x1b[41m href='x'>", "< a\x1b[41m href='x'>"),
        ("File x'><img>:1", "File x'>< img>:1"),
        ("F\x1b[41mile x'><\x1b[41mimg>:1", "F\x1b[41mile x'>< \x1b[41mimg>:1"),
        ("x'><b>Cell In[1], line 1", "x'>< b>Cell In[1], line 1"),
        ("x'></b>Input \x1b[0mIn [1]", "x'>< /b>Input \x1b[0mIn [1]"),
        ("<audio src=x>Cell In[1], line 1", "< audio src=x>Cell In[1], line 1"),
        ("ok <b>\nFile x'<b>:1\nok <b>", "ok <b>\nFile x'< b>:1\nok <b>"),
        ("\x1b]0;<a \x07", "␛]0;< a ␇"),
    ],
)
def test_what_a_front_end_would_take_for_html_is_shown(text: str, shown: str):
    """VS Code makes links of places, and writes whatever looks like a link as HTML."""
    assert trace(text) == shown


@QUICK
@given(TEXTS, st.lists(st.sampled_from(["<", "a", " ", "'", "File ", "Cell", "\x1b[41m", "\n"])))
def test_a_traceback_twice_is_once(text: str, more: list[str]):
    shown = trace(text + "".join(more))
    assert trace(shown) == shown
    assert acting(shown) == []


# -- streams -------------------------------------------------------------------------------------


def test_a_colour_torn_between_two_pieces_is_whole_again():
    streams = Streams()
    assert streams.show("stdout", "a\x1b", 1) == "a"
    assert streams.show("stdout", "[3", 1) == ""
    assert streams.show("stdout", "1mred", 1) == "\x1b[31mred"


def test_an_escape_torn_between_two_pieces_does_not_slip_through():
    streams = Streams()
    for piece in ("\x1b", "]52;c;", "eA==\x07"):
        assert acting(streams.show("stdout", piece, 1)) == []
    assert streams.show("stdout", "\x1b", 1) + streams.show("stdout", "]0;t", 1) == "␛]0;t"


def test_streams_and_cells_are_apart():
    streams = Streams()
    assert streams.show("stdout", "\x1b[", 1) == ""
    assert streams.show("stderr", "31m", 1) == "31m"
    assert streams.show("stdout", "31m", 2) == "31m"


def test_a_joiner_may_follow_in_the_next_piece():
    streams = Streams()
    assert streams.show("stdout", "👩", 1) == "👩"
    assert streams.show("stdout", "\u200d🔬", 1) == "\u200d🔬"
    assert streams.show("stdout", "a", 1) == "a"
    assert streams.show("stdout", "\u200d", 1) == "\\u200d"


@QUICK
@given(st.lists(TEXTS, max_size=6))
def test_pieces_act_as_little_as_the_whole(pieces: list[str]):
    streams = Streams()
    shown = "".join(streams.show("stdout", piece, 1) for piece in pieces)
    assert acting(shown) == []
    again = Streams()
    assert "".join(again.show("stdout", piece, 1) for piece in [shown]) == shown


@QUICK
@given(TEXTS, st.lists(st.integers(0, 60), max_size=5))
def test_pieces_give_what_the_whole_gives(text: str, cuts: list[int]):
    """But for marks of direction, which a text may have that has a right-to-left letter."""
    assume(not re.search("[\u200e\u200f\u061c]", text))
    at = [0, *sorted(cuts), len(text)]
    streams = Streams()
    pieces = (text[a:b] for a, b in pairwise(at))
    shown = "".join(streams.show("stdout", piece, 1) for piece in pieces)
    assert show(text).startswith(shown)
    assert re.fullmatch("␛(\\[[0-9;:]*)?|", show(text)[len(shown) :]), "what may still go on"


def test_every_character_of_the_table_of_invisible_ones_is_shown_alone():
    hidden = [chr(c) for c in range(0x110000) if terminal._HIDDEN.match(chr(c))]
    assert len(hidden) > 100
    assert all(show(c).startswith("\\") for c in hidden)
