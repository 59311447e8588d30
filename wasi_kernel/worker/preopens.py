"""Preopens: the folders that a guest has from its start, opened as the very ones that are meant.

A session makes several guests, and between two of them a guest may have changed what a path leads
to: with one folder granted in another, writable one, it can put a link in its place. So a granted
folder is opened first, compared with what it was when the session began (device and inode), and
handed on by its descriptor, never by its path again. One that is gone, or another one now, is
replaced by an empty folder: the session goes on and says so.
"""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from wasi_kernel.environments import BUNDLE
from wasi_kernel.policy import HOME, INSTALLED, PACKAGES, TMP, WORK, Grant

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from wasi_kernel.policy import Policy
    from wasi_kernel.runtimes import Runtime

_DESCRIPTORS = "/proc/self/fd"
_FOLDER = os.O_DIRECTORY | os.O_CLOEXEC | getattr(os, "O_PATH", os.O_RDONLY)


class Preopen(NamedTuple):
    """A folder that the guest has open from its start, in the order of the guest's fds.

    Attributes:
        host_path: Where it is.
        guest_path: Where the guest sees it.
        writable: May the guest change what is in it?
        identity: (device, inode) of the folder that is meant; None: whatever is there.
        instead: An empty folder that is shown if that one is not there.
    """

    host_path: str
    guest_path: str
    writable: bool
    identity: tuple[int, int] | None = None
    instead: str = ""

    def is_there(self) -> bool:
        """Is the folder that is meant there now?"""
        try:
            state = os.stat(self.host_path)
        except OSError:
            return False
        return self.identity in (None, (state.st_dev, state.st_ino))


@contextlib.contextmanager
def opened(
    preopens: Iterable[Preopen],
) -> Iterator[tuple[list[tuple[str, Preopen]], tuple[str, ...]]]:
    """((path that leads to the folder while the body runs, what to show there), what is missing).

    What is missing are guest paths; an empty folder stands there.

    Raises:
        OSError: No descriptor is left, or a folder without an identity is not there.
    """
    with contextlib.ExitStack() as stack:
        found, missing = [], []
        for each in preopens:
            path = _path(each, stack)
            if path is None:
                missing.append(each.guest_path)
                each = Preopen(each.instead, each.guest_path, writable=False)  # noqa: PLW2901
            found.append((path or each.host_path, each))
        yield found, tuple(missing)


def _path(each: Preopen, stack: contextlib.ExitStack) -> str | None:
    """A path to the very folder that is meant; None if that one is not there."""
    if each.identity is None:
        return each.host_path
    try:
        fd = os.open(each.host_path, _FOLDER)
    except OSError as e:
        if e.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
            raise
        return None  # gone, a file, a loop of links, or out of reach
    stack.callback(os.close, fd)
    state = os.fstat(fd)
    if (state.st_dev, state.st_ino) != each.identity:
        return None
    by_number = f"{_DESCRIPTORS}/{fd}"
    # Without /proc (macOS) it is opened by its path once more, right after it was compared.
    return by_number if os.path.isdir(by_number) else each.host_path


def for_policy(
    runtime: Runtime, bundle: Path, policy: Policy, work: str | None, scratch: Path,
    packages: Path | None = None, installed: Path | None = None,
    identities: Mapping[str, Sequence[int]] | None = None,
) -> list[Preopen]:  # fmt: skip
    """The guest's folders in the order that images depend on.

    `identities`: (device, inode) of the granted folders, by host path, where they are known.
    """
    known = identities or {}
    empty = scratch / "empty"
    found = [Preopen(str(host), guest, writable=False) for host, guest in runtime.folders]
    found.append(Preopen(str(bundle), BUNDLE, writable=False))
    if packages is not None:
        found.append(Preopen(str(packages), PACKAGES, writable=False))
    if policy.pip:
        found.append(Preopen(str(installed or empty), INSTALLED, writable=False))
    for name, guest in (("tmp", TMP), ("home", HOME)):
        found.append(Preopen(str(scratch / name), guest, writable=True))
    own = policy.work_grant or Grant(work or str(empty), WORK)
    given = (own, *policy.other_grants)
    for g in given:
        of = known.get(g.host_path)
        identity = None if of is None else (int(of[0]), int(of[1]))
        found.append(Preopen(g.host_path, g.guest_path, g.writable, identity, str(empty)))
    empty.mkdir(mode=0o700, exist_ok=True)
    for p in found:
        if p.host_path.startswith(str(scratch)):
            Path(p.host_path).mkdir(mode=0o700, exist_ok=True)
    root = scratch / "root"  # so that the guest can list where it is: a tree of empty folders
    for p in found:
        (root / p.guest_path.lstrip("/")).mkdir(mode=0o700, parents=True, exist_ok=True)
    return [*found, Preopen(str(root), "/", writable=False)]
