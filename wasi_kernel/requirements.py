"""Requirements: what a user may ask for, as text and in files, checked before anything sees it.

A requirement is a name with versions, extras and markers (PEP 508), or one wheel by its path or
URL. Options, other archives and version control are not among them: what is given here ends up in
a resolver's input, and must not be able to steer it.

Never imports anything of Jupyter; reads no file but the one it is asked to.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from wasi_kernel.errors import RequirementError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from packaging.requirements import Requirement

FILE_BYTES = 1 << 20
"""How large a requirements file may be."""

TEXT_CHARACTERS = 4000
"""How long a requirement may be that comes out of a guest, hashes included."""

_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]*[a-z0-9])?", re.IGNORECASE)  # PEP 508
_HASH = re.compile(r"\s--hash[ =](\S+)")
_SHA256 = re.compile(r"sha256:([0-9a-f]{64})")
_ADDRESS = "a cell names packages of the host's index; addresses and paths are the policy's to name"
_ODD = "it cannot be understood; write it like 'name>=1.2'"
_COMMENT = re.compile(r"(^|\s)#.*$")


@dataclass(frozen=True)
class Wanted:
    """One requirement, checked.

    Attributes:
        name: The distribution's, normalized.
        extras: Sorted.
        specifier: Of its versions, such as ">=2,<3"; "" for any, and with a URL.
        url: Of the one wheel to use, "" if an index is to be asked.
        marker: Where it applies, "" if everywhere.
        hashes: SHA-256 of the wheels that may be used, hex; empty if any.
        where: The file and line that it stands in, "" if it was given by itself.
    """

    name: str
    extras: tuple[str, ...] = ()
    specifier: str = ""
    url: str = ""
    marker: str = ""
    hashes: frozenset[str] = frozenset()
    where: str = ""

    def __str__(self) -> str:
        """As PEP 508 writes it, without marker and hashes."""
        extras = f"[{','.join(self.extras)}]" if self.extras else ""
        return (
            f"{self.name}{extras} @ {self.url}"
            if self.url
            else (f"{self.name}{extras}{self.specifier}")
        )

    @property
    def line(self) -> str:
        """As `parse` reads it back, with marker and hashes."""
        marker = f" ; {self.marker}" if self.marker else ""
        return f"{self}{marker}" + "".join(f" --hash=sha256:{h}" for h in sorted(self.hashes))

    def applies(self, environment: dict[str, str]) -> bool:
        """Does it apply where markers have these values?"""
        from packaging.markers import Marker

        return not self.marker or Marker(self.marker).evaluate({**environment})


def parse(text: str, where: str = "", folder: Path | None = None) -> Wanted:
    """The requirement that `text` says.

    Args:
        text: As on a line of a requirements file, `--hash=sha256:...` at its end included.
        where: Its file and line, for errors.
        folder: What a wheel's path is relative to; None: the current folder.

    Raises:
        RequirementError: It is none that can be asked for.
    """
    from packaging.requirements import InvalidRequirement, Requirement

    bare, hashes = _split_hashes(text.replace("\t", " "), where)
    if bare.startswith("-"):
        raise RequirementError(text, _option_advice(bare), where)
    if not bare.isprintable():
        raise RequirementError(text, "it has invisible characters", where)
    path, semicolon, marker = bare.partition(";")
    if path.strip().endswith(".whl") and " @ " not in path and "://" not in path:
        bare = f"{_named(path.strip(), text, where, folder)} {semicolon}{marker}".strip()
    try:
        requirement = Requirement(bare)
    except InvalidRequirement as e:
        reason = str(e).splitlines()[0]
        raise RequirementError(text, f"{reason}; write it like 'name>=1.2'", where) from None
    return _wanted(requirement, text, hashes, where)


def is_name(text: str) -> bool:
    """Is `text` the name of a distribution, and nothing else?"""
    return len(text) <= TEXT_CHARACTERS and _NAME.fullmatch(text) is not None


def parse_foreign(text: str) -> Wanted:
    """The requirement that `text` says, which a guest has made up: a name, to be found in an index.

    Looks at no disk: whether a file is there is nothing that a guest may learn here.

    Raises:
        RequirementError: It is none, or is an option, a path or an address.
    """
    from packaging.requirements import InvalidRequirement, Requirement

    if len(text) > TEXT_CHARACTERS or not text.isprintable():
        reason = f"at most {TEXT_CHARACTERS} characters, and none that cannot be seen"
        raise RequirementError(text, reason)
    if text.startswith("-"):
        raise RequirementError(text, "options are no requirements")
    bare, hashes = _split_hashes(text, "")
    if bare.endswith(".whl") and "://" not in bare:
        reason = "a wheel's file is not installed from a cell; sys.path.append(its path) finds it"
        raise RequirementError(text, reason)
    try:
        requirement = Requirement(bare)
        if requirement.url is None and requirement.marker is not None:
            requirement.marker.evaluate()
    except (ValueError, KeyError, RecursionError) as e:  # what packaging raises
        address = re.search(r"[/\\@]", text) is not None
        reason = _ADDRESS if address else f"{str(e).splitlines()[0]}; write it like 'name>=1.2'"
        raise RequirementError(
            text, reason if isinstance(e, InvalidRequirement) else _ODD
        ) from None
    if requirement.url is not None:
        raise RequirementError(text, _ADDRESS)
    return _wanted(requirement, text, hashes, "")


def parse_file(path: Path) -> list[Wanted]:
    """The requirements in the file at `path`: one a line, with comments and continued lines.

    Raises:
        RequirementError: The file cannot be read, or a line of it is none; it names the line.
    """
    try:
        with path.open("rb") as f:
            data = f.read(FILE_BYTES + 1)
        if len(data) > FILE_BYTES:
            raise RequirementError(str(path), f"the file is larger than {FILE_BYTES} bytes")
        text = data.decode("utf-8-sig")
    except OSError as e:
        raise RequirementError(str(path), f"the file cannot be read: {e.strerror}") from e
    except UnicodeDecodeError as e:
        raise RequirementError(str(path), "the file is no UTF-8 text") from e
    return [
        parse(line, f"{path}, line {number}", path.absolute().parent)
        for number, line in _lines(text)
    ]


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """(number of its first line, logical line) without comments and empty lines."""
    begun, parts = 0, list[str]()
    for number, line in enumerate([*text.split("\n"), ""], 1):
        line = line.rstrip("\r")  # noqa: PLW2901 - the same line, as Windows ends it
        begun = begun or number
        if line.endswith("\\") and not line.lstrip().startswith("#"):
            parts.append(line[:-1])
            continue
        parts.append(_COMMENT.sub("", line))
        whole = "".join(parts).strip()
        if whole:
            yield begun, whole
        begun, parts = 0, []


def _split_hashes(text: str, where: str) -> tuple[str, frozenset[str]]:
    """`text` without its hashes, and these."""
    found = set()
    for value in _HASH.findall(text):
        match = _SHA256.fullmatch(value)
        if match is None:
            raise RequirementError(text, "a hash is written --hash=sha256:<64 hex digits>", where)
        found.add(match[1])
    return _HASH.sub("", text).strip(), frozenset(found)


def _option_advice(text: str) -> str:
    option = re.split(r"[\s=]", text, maxsplit=1)[0]
    if option in ("-r", "--requirement", "-c", "--constraint"):
        return "other files are not read; name them one by one, or put their lines here"
    if option in ("-e", "--editable"):
        return "a package is not installed from its source; build a wheel and name its file"
    return "options do not stand among requirements; indexes are set in uv's or pip's configuration"


def _named(path: str, text: str, where: str, folder: Path | None) -> str:
    """`name @ file:...` for the path of a wheel."""
    from packaging.utils import InvalidWheelFilename, parse_wheel_filename

    wheel = (folder or Path.cwd()) / Path(path).expanduser()
    try:
        name = parse_wheel_filename(wheel.name)[0]
    except InvalidWheelFilename as e:
        raise RequirementError(text, f"this is not how a wheel is named: {e}", where) from None
    if not wheel.is_file():
        raise RequirementError(text, f"there is no file {wheel}", where)
    return f"{name} @ {wheel.resolve().as_uri()}"


def _wanted(requirement: Requirement, text: str, hashes: frozenset[str], where: str) -> Wanted:
    from packaging.utils import canonicalize_name

    url = requirement.url or ""
    if "===" in str(requirement.specifier):  # it takes any text, which a resolver might expand
        raise RequirementError(text, "write '==' for a version", where)
    if url:
        _check_url(url, text, where)
    return Wanted(
        canonicalize_name(requirement.name),
        tuple(sorted(requirement.extras)),
        str(requirement.specifier),
        url,
        str(requirement.marker or ""),
        hashes,
        where,
    )


def _check_url(url: str, text: str, where: str) -> None:
    """Checks that `url` names a wheel and nothing that a resolver would fill in or run."""
    if "$" in url:  # resolvers replace ${NAME} by the host's environment
        raise RequirementError(text, "its URL has a '$'; write %24", where)
    parts = urlsplit(url)
    if parts.fragment:
        raise RequirementError(text, "write a hash as --hash=sha256:<64 hex digits>", where)
    if not parts.path.endswith(".whl") or parts.scheme not in ("https", "http", "file"):
        allowed = "a URL must name a .whl file, by https, http or file; nothing is built here"
        raise RequirementError(text, allowed, where)
    if parts.scheme == "file":
        path = Path(unquote(parts.path))
        if parts.netloc not in ("", "localhost") or not path.is_absolute() or not path.is_file():
            raise RequirementError(text, f"there is no file {path}", where)
