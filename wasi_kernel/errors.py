"""The project's exceptions, one tree, each named for whose fault it is.

An exception that a cell raises is not among them: it is data in a reply. Nobody matches on
message text; what a program may want to know is a field.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable


class WasiKernelError(Exception):
    """Any error of wasi-kernel itself."""


class PolicyError(WasiKernelError):
    """The policy asks for something that cannot be granted.

    Attributes:
        key: Which key of the policy, such as `grants[0].host_path`.
        value: What it says.
        allowed: What it may say.
        others: What else is wrong with the same policy.
        source: The file that says so; "policy" for one that is in no file.
    """

    def __init__(
        self, key: str, value: object, allowed: str, others: tuple[PolicyError, ...] = (), *,
        source: str = "policy",
    ) -> None:  # fmt: skip
        lines = [f"{source}: {e.key} = {e.value!r}: {e.allowed}" for e in others]
        super().__init__("\n".join([f"{source}: {key} = {value!r}: {allowed}", *lines]))
        self.source = source
        self.key: str = key
        self.value: object = value
        self.allowed: str = allowed
        self.others = others

    @property
    def all(self) -> tuple[PolicyError, ...]:
        """Each problem by itself, this one first."""
        return (PolicyError(self.key, self.value, self.allowed), *self.others)

    @classmethod
    def raise_all(cls, problems: Iterable[PolicyError], source: str = "policy") -> None:
        """Raises them as one, if there are any."""
        found = [one for problem in problems for one in problem.all]
        if found:
            first, *others = found
            raise cls(first.key, first.value, first.allowed, tuple(others), source=source)


class PolicyFileError(WasiKernelError):
    """A policy file cannot be read as TOML.

    Attributes:
        host_path: The file.
    """

    def __init__(self, host_path: str, detail: str) -> None:
        super().__init__(f"{host_path}: {detail}")
        self.host_path = host_path


class InstallationError(WasiKernelError):
    """Something this installation needs is missing, damaged or not usable."""


class ConfinementError(InstallationError):
    """The worker process cannot be confined as the policy demands.

    Attributes:
        missing: What is missing or does not work, one line each.
    """

    def __init__(self, missing: tuple[str, ...]) -> None:
        super().__init__(
            f"the worker process cannot be confined: {'; '.join(missing)} (see: wasi-kernel "
            "doctor). confine = 'auto' in the policy starts it with what there is"
        )
        self.missing = missing


class RuntimeNotFoundError(InstallationError):
    """There is no usable CPython WASI build where one was named.

    Attributes:
        where: The path or name that was looked at.
    """

    def __init__(self, where: str, advice: str) -> None:
        super().__init__(f"no CPython WASI build at {where}: {advice}")
        self.where = where


class UnknownRuntimeError(RuntimeNotFoundError):
    """No runtime has this name, and there is no such path.

    Attributes:
        known: The names that there are.
    """

    def __init__(self, name: str, known: tuple[str, ...]) -> None:
        InstallationError.__init__(
            self,
            f"no runtime is called {name!r}, and there is no such file or folder; "
            f"there are: {', '.join(known)} (see: wasi-kernel runtime list)",
        )
        self.where, self.known = name, known


class AgentMissingError(InstallationError):
    """The IPython that is installed here, or something it needs, does not suit the guest's Python.

    Attributes:
        python: The guest's Python, "3.12".
        reasons: What does not suit, in a few words each.
    """

    def __init__(self, python: str, reasons: tuple[str, ...]) -> None:
        super().__init__(
            f"the guest's Python is {python}, and {'; '.join(reasons)}. "
            "To get versions that suit it, run: wasi-kernel prepare (NAME, for a kernelspec; "
            "--runtime NAME, for a runtime)"
        )
        self.python, self.reasons = python, reasons


class RuntimeStoreError(WasiKernelError):
    """A runtime cannot be added, chosen or removed.

    Attributes:
        what: Its name, or what it was to be made of.
        reason: Why not.
    """

    def __init__(self, what: str, reason: str) -> None:
        super().__init__(f"runtime {what!r}: {reason}")
        self.what, self.reason = what, reason


class PageLogError(WasiKernelError):
    """A session's checkpoints cannot be used.

    Attributes:
        where: The file's or folder's name, without its path: the text may stand in a notebook.
    """

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(f"the checkpoints at {where} cannot be used: {reason}")
        self.where = where


class KernelspecError(WasiKernelError):
    """A kernelspec cannot be written.

    Attributes:
        name: The kernelspec's.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"kernelspec {name!r}: {reason}")
        self.name = name


class SessionFileError(WasiKernelError):
    """A session cannot be saved, or a saved one not be used.

    Attributes:
        where: The file or folder.
    """

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(f"the session {where} cannot be used: {reason}")
        self.where = where


class CallError(WasiKernelError):
    """A function that was called in a guest raised an exception.

    Attributes:
        ename: The exception's class name.
        evalue: Its text.
    """

    def __init__(self, what: str, ename: str, evalue: str) -> None:
        super().__init__(f"{what}: {ename}: {evalue}")
        self.ename, self.evalue = ename, evalue


class UnknownCheckpointError(WasiKernelError):
    """There is no such checkpoint to go to; the text says which there are."""


class ProtocolError(WasiKernelError):
    """The other side of a socket of ours said something that the protocol does not allow."""


class Kept(NamedTuple):
    """What is left after the loss of a guest: the state of a checkpoint, in a new guest.

    Attributes:
        cell: Execution count of the checkpoint's cell, 0 for the state before the first.
        lost_cells: Execution counts of cells that had ended and whose effects are lost as well.
        closed_files: Files that were open at the checkpoint, and are not any more.
        lost_widgets: Is lost as well what widgets did since that cell?
        damage: What was found damaged on the way, a sentence; empty if nothing.
    """

    cell: int = 0
    lost_cells: tuple[int, ...] = ()
    closed_files: tuple[str, ...] = ()
    damage: str = ""
    lost_widgets: bool = False


class GuestLost(WasiKernelError):  # noqa: N818 - an event, nobody's error
    """The guest, or the worker that ran it, is gone.

    Attributes:
        ename: A stable name of what happened, one of `LOSSES`, as it stands in a cell's error.
        detail: What was seen, in one line.
        kept: What the session goes on with; None if all variables are lost.
        in_cell: Was a cell running?
    """

    def __init__(self, ename: str, detail: str) -> None:
        super().__init__(f"{ename}: {detail}")
        self.ename, self.detail = ename, detail
        self.kept: Kept | None = None
        self.in_cell = True

    @property
    def explanation(self) -> str:
        """What happened, what is lost and what is not, for the user."""
        what = LOSSES.get(self.ename, "the sandbox was lost")
        return f"{what} ({self.detail}). {self.consequences}"

    @property
    def consequences(self) -> str:
        """What is lost and what is not."""
        kept = self.kept
        if kept is None:
            return (
                "All variables are lost; files that cells wrote stay. "
                "A new sandbox is started: run the cells above again"
            )
        before = "before this cell; files that it wrote stay" if self.in_cell else "before"
        text = f"Variables are as they were {before}"
        if kept.lost_cells or kept.lost_widgets or kept.damage:
            state = f"after cell [{kept.cell}]" if kept.cell else "before the first cell"
            text = f"Variables are as they were {state}; files that cells wrote stay"
        gone = [f"[{n}]" for n in kept.lost_cells] + ["widgets"] * kept.lost_widgets
        if gone:
            text += f". LOST as well: what {', '.join(gone)} did since"
        if kept.damage:
            text += f". {kept.damage}"
        if kept.closed_files:
            text += f". No longer open: {', '.join(kept.closed_files)}"
        return text


LOSSES = {
    "StackExhausted": "the cell used up the call stack",
    "MemoryError": "the cell reached the memory limit",
    "GuestExited": "the cell ended the interpreter",
    "GuestAborted": "the interpreter aborted",
    "GuestTrapped": "the WebAssembly code trapped",
    "GuestDesynchronized": "the interpreter stopped without an answer",
    "KeyboardInterrupt": "the cell did not react to the interrupt and was stopped from outside",
    "DeadlineExceeded": "the cell did not end within its deadline and was stopped from outside",
    "TimeLimitExceeded": "the cell passed a limit of time and did not react to the interrupt",
    "WorkerKilled": "the worker process was killed from outside",
    "WorkerFailed": "the worker process failed",
}
"""Each way to lose a guest (the `ename` that a cell's error carries) and what it means.

Two are named as Python names them: the same cell has the same name either way. It depends on
which allocation fails whether CPython can still raise MemoryError, or dies of it, and on the code
that runs whether an interrupt can raise KeyboardInterrupt."""


class PackageError(WasiKernelError):
    """Packages cannot be had for a guest; nothing of them was installed."""


class PackagesMissingError(PackageError):
    """The packages of a policy were not installed yet; a kernel's start installs nothing.

    Attributes:
        packages: The requirements.
    """

    def __init__(self, packages: tuple[str, ...]) -> None:
        super().__init__(
            f"the packages {', '.join(packages)} are not installed yet; run: wasi-kernel prepare "
            "NAME, with the kernelspec's name (or wasi-kernel run, with the same policy)"
        )
        self.packages = packages


class RequirementError(PackageError):
    """A requirement is not one that can be asked for.

    Attributes:
        text: The requirement as it was given.
        where: The file and line that it stands in, "" if it was given by itself.
        reason: What is wrong with it.
    """

    def __init__(self, text: str, reason: str, where: str = "") -> None:
        shown = text if len(text) <= 200 else text[:200] + "..."
        super().__init__(f"{where + ': ' if where else ''}requirement {shown!r}: {reason}")
        self.text, self.where, self.reason = text, where, reason


class UnsatisfiableError(PackageError):
    """No set of versions fits the requirements and what the runtime has built in.

    Attributes:
        requirements: What was asked for.
        explanation: Why not, in the resolver's words.
    """

    def __init__(self, requirements: tuple[str, ...], explanation: str) -> None:
        what = "cannot be had together" if len(requirements) > 1 else "cannot be had"
        super().__init__(f"{', '.join(requirements)} {what}: {explanation}")
        self.requirements, self.explanation = requirements, explanation


class NativePackageError(PackageError):
    """A package consists of native code, which a guest cannot load.

    Attributes:
        name: The package's.
        version: Its version that would be needed.
        chain: What asks for it: from a requirement down to the package itself.
        instead: What the runtime has that does similar things, "" if nothing is known.
        versions: Requirements that, added to the others, do without native code, with other (most
            often older) versions; there may be none.
        names: All native packages that these requirements lead to.
    """

    def __init__(
        self,
        chain: tuple[str, ...],
        version: str,
        *,
        instead: str = "",
        versions: tuple[str, ...] = (),
        names: tuple[str, ...] = (),
    ) -> None:
        name = chain[-1]
        text = f"{name} {version} consists of native code, which the guest cannot load"
        if len(chain) > 1:
            text += f"; it is required so: {' -> '.join(chain)}"
        others = [other for other in names if other != name]
        if others:
            text += f"; the same holds for {', '.join(others)}"
        if instead:
            text += f". The runtime has {instead}"
        if versions:
            text += f". Other versions do without: add {', '.join(versions)}"
        super().__init__(text)
        self.name, self.version, self.chain = name, version, chain
        self.instead, self.versions, self.names = instead, versions, names or (name,)


class DownloadError(PackageError):
    """An index or a file of it could not be read.

    Attributes:
        explanation: What happened, in the downloader's words.
    """

    def __init__(self, what: str, explanation: str) -> None:
        super().__init__(f"{what}: {explanation}")
        self.explanation = explanation


class WheelError(PackageError):
    """A wheel is damaged, or not what it says it is, or has something in it that is refused.

    Attributes:
        wheel: Its file name.
        reason: What is wrong with it.
    """

    def __init__(self, wheel: str, reason: str) -> None:
        super().__init__(f"the wheel {wheel} is refused: {reason}")
        self.wheel, self.reason = wheel, reason


class HashMismatchError(WheelError):
    """A wheel is another file than the one that was resolved or asked for.

    Attributes:
        expected: SHA-256 that it should have, hex.
        found: SHA-256 that it has.
    """

    def __init__(self, wheel: str, expected: str, found: str) -> None:
        super().__init__(wheel, f"its SHA-256 is {found}, not {expected}")
        self.expected, self.found = expected, found
