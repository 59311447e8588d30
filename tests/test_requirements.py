"""Shows what may be asked for, and that nothing in a requirement can steer a resolver."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from wasi_kernel.errors import RequirementError
from wasi_kernel.requirements import FILE_BYTES, Wanted, parse, parse_file

if TYPE_CHECKING:
    from pathlib import Path

SHA = "0123456789abcdef" * 4


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    path = tmp_path / "made_up-1.0-py3-none-any.whl"
    path.touch()
    return path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("attrs", Wanted("attrs")),
        ("  attrs\t", Wanted("attrs")),
        ("attrs\t>=23", Wanted("attrs", specifier=">=23")),
        ("Foo.Bar_baz >= 1, <2", Wanted("foo-bar-baz", specifier="<2,>=1")),
        ("a[Y, x]==1.*", Wanted("a", ("Y", "x"), "==1.*")),
        ("a; sys_platform == 'wasi'", Wanted("a", marker='sys_platform == "wasi"')),
        (f"a==1 --hash=sha256:{SHA}", Wanted("a", specifier="==1", hashes=frozenset({SHA}))),
        (
            "a @ https://example.org/a-1-py3-none-any.whl",
            Wanted("a", url="https://example.org/a-1-py3-none-any.whl"),
        ),
    ],
)
def test_a_requirement(text: str, expected: Wanted):
    assert parse(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-",
        "--index-url=https://example.org",
        "--index-url https://example.org",
        "-r other.txt",
        "-e .",
        "-iattrs",
        "attrs --index-url=https://example.org",
        "attrs\n--index-url=https://example.org",
        "attrs\r--pre",
        "attrs\N{LINE SEPARATOR}--pre",
        "attrs\0",
        "attrs -r other.txt",
        "_attrs",
        "attrs,pygls",
        "attrs pygls",
        "attrs==",
        ".",
        "./folder",
        "/etc/passwd",
        "file:///tmp/x.tar.gz",
        "git+https://example.org/a",
        "a @ git+https://example.org/a",
        "a @ git+https://example.org/a.whl",
        "a @ https://example.org/a-1.tar.gz",
        "a @ https://example.org/${HOME}/a-1-py3-none-any.whl",
        "a @ https://example.org/$HOME/a-1-py3-none-any.whl",
        "a @ https://example.org/a-1-py3-none-any.whl#subdirectory=x",
        "a @ https://example.org/\N{RIGHT-TO-LEFT OVERRIDE}a-1-py3-none-any.whl",
        "a @ ./a-1-py3-none-any.whl",
        "a @ file:///nowhere/a-1-py3-none-any.whl",
        "a @ file://elsewhere/a-1-py3-none-any.whl",
        "/nowhere/a-1-py3-none-any.whl",
        "not-a-name.whl",
        "a --hash=md5:00",
        f"a --hash=sha256:{SHA.upper()}",
        "${HOME}",
        "a==${HOME}",
        "a===${HOME}",
        "a===1",
    ],
)
def test_what_is_refused(text: str):
    with pytest.raises(RequirementError) as e:
        parse(text)
    assert e.value.text == text
    assert e.value.where == ""


def test_a_wheel_is_named_by_its_path(wheel: Path, monkeypatch: pytest.MonkeyPatch):
    expected = Wanted("made-up", url=wheel.as_uri())
    assert parse(str(wheel)) == expected
    assert parse(wheel.name, folder=wheel.parent) == expected
    monkeypatch.chdir(wheel.parent)
    assert parse(f"./{wheel.name}") == expected
    marked = parse(f"{wheel.name} ; os_name == 'nt' --hash=sha256:{SHA}")
    assert marked == Wanted(
        "made-up", url=wheel.as_uri(), marker='os_name == "nt"', hashes=frozenset({SHA})
    )


def test_a_wheel_in_a_folder_with_special_characters(tmp_path: Path):
    folder = tmp_path / "a ${HOME} #1"
    folder.mkdir()
    wheel = folder / "made-1.0-py3-none-any.whl"
    wheel.touch()
    url = parse(wheel.name, folder=folder).url
    assert not set(url) & set("$# ")
    assert parse(str(Wanted("made", url=url))).url == url


@pytest.mark.parametrize(
    "wanted", [Wanted("a", ("x", "y"), ">=1"), Wanted("a", ("x",), url="https://h/a.whl")]
)
def test_as_text_it_is_the_same_requirement(wanted: Wanted):
    assert parse(str(wanted)) == wanted


def test_markers_decide_where_it_applies():
    assert parse("a").applies({})
    assert parse("a; sys_platform == 'wasi'").applies({"sys_platform": "wasi"})
    assert not parse("a; sys_platform == 'win32'").applies({"sys_platform": "wasi"})


def test_a_file(tmp_path: Path, wheel: Path):
    file = tmp_path / "requirements.txt"
    file.write_bytes(
        b"\xef\xbb\xbf# what we need\r\n\r\nattrs>=23  # classes\r\n"
        + f"pygls \\\n  >=2 \\\n  --hash=sha256:{SHA}\n".encode()
        + b"# a comment \\\nrich; python_version > '3'\n"
        + wheel.name.encode()
    )
    found = parse_file(file)
    assert [(w.name, w.specifier, w.where) for w in found] == [
        ("attrs", ">=23", f"{file}, line 3"),
        ("pygls", ">=2", f"{file}, line 4"),
        ("rich", "", f"{file}, line 8"),
        ("made-up", "", f"{file}, line 9"),
    ]
    assert found[1].hashes == {SHA}
    assert found[3].url == wheel.as_uri()


@pytest.mark.parametrize(
    "line", ["-r more.txt", "-c pins.txt", "--pre", "-e .", "a b", "--hash=sha256:" + SHA, "a=1"]
)
def test_a_file_s_error_names_the_line(tmp_path: Path, line: str):
    file = tmp_path / "requirements.txt"
    file.write_text(f"attrs\n\n{line}\n")
    with pytest.raises(RequirementError) as e:
        parse_file(file)
    assert e.value.where == f"{file}, line 3"
    assert e.value.text == line
    assert str(e.value).startswith(f"{file}, line 3: ")


@pytest.mark.parametrize("content", [b"\xff\xfe", b"#" * (FILE_BYTES + 1), None])
def test_a_file_that_is_none(tmp_path: Path, content: bytes | None):
    file = tmp_path / "requirements.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(RequirementError) as e:
        parse_file(file)
    assert e.value.text == str(file)
