"""sys.stdout, sys.stderr and sys.stdin of the guest, and input() and getpass()."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from wasi_agent.door import Door


class Output(io.TextIOBase):
    """A text stream that the front end shows."""

    def __init__(self, door: Door, name: str) -> None:
        self._put = door.put
        self._name = name
        self.buffer = OutputBytes(self)

    @property
    def name(self) -> str:  # noqa: D102 - as in io
        return f"<{self._name}>"

    @property
    def encoding(self) -> str:  # type: ignore[override]  # noqa: D102 - as in io
        return "UTF-8"

    @property
    def errors(self) -> str:  # type: ignore[override]  # noqa: D102 - as in io
        return "backslashreplace"

    mode = "w"
    line_buffering = False
    write_through = True

    def write(self, text: str) -> int:  # noqa: D102 - as in io
        try:
            data = text.encode()
        except UnicodeEncodeError:
            data = text.encode("utf-8", "backslashreplace")
        except AttributeError:
            kind = type(text).__name__
            raise TypeError(f"write() argument must be str, not {kind}") from None
        self._put(self._name, data)
        return len(text)

    def write_bytes(self, data: bytes) -> None:
        """Shows UTF-8 text."""
        self._put(self._name, data)

    def flush(self) -> None:
        """Nothing waits on this side."""

    def writable(self) -> bool:  # noqa: D102 - as in io
        return True

    def fileno(self) -> int:
        """The descriptor of the same stream for C code."""
        return 1 if self._name == "stdout" else 2

    def isatty(self) -> bool:  # noqa: D102 - as in io
        return False

    def reconfigure(self, **options: Any) -> None:
        """Accepted for the sake of programs that set an encoding; nothing changes."""


class OutputBytes(io.RawIOBase):
    """The binary side of an `Output`."""

    def __init__(self, text: Output) -> None:
        self._text = text

    def write(self, data: Any) -> int:  # noqa: D102 - as in io
        view = memoryview(data).cast("B")
        self._text.write_bytes(bytes(view))
        return len(view)

    def writable(self) -> bool:  # noqa: D102 - as in io
        return True

    def fileno(self) -> int:  # noqa: D102 - as in io
        return self._text.fileno()


class Input(io.TextIOBase):
    """sys.stdin: each line is asked of the front end."""

    encoding = "UTF-8"
    mode = "r"

    def __init__(self, ask: Callable[[str], str]) -> None:
        self._ask = ask

    def readable(self) -> bool:  # noqa: D102 - as in io
        return True

    def readline(self, size: int = -1) -> str:  # type: ignore[override]  # noqa: D102 - as in io
        try:
            line = self._ask("") + "\n"
        except EOFError:
            return ""
        return line if size < 0 else line[:size]

    def read(self, size: int | None = -1) -> str:  # noqa: D102 - as in io
        lines = []
        while line := self.readline():
            lines.append(line)
            if size is not None and size >= 0 and sum(map(len, lines)) >= size:
                break
        return "".join(lines)


class Inputs:
    """input() and getpass(), as the kernel's front end answers them."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self.allowed = False

    def input(self, prompt: object = "", /) -> str:
        """Read a line from the front end. The prompt is shown beside the field.

        End of file (an answer of Ctrl-D alone) raises EOFError.
        """
        return self._request(str(prompt), password=False)

    def getpass(
        self, prompt: str = "Password: ", stream: Any = None, *, echo_char: Any = None
    ) -> str:
        """Read a line from the front end that does not show it."""
        del stream, echo_char
        return self._request(prompt, password=True)

    def _request(self, prompt: str, *, password: bool) -> str:
        if not self.allowed:
            from IPython.core.error import StdinNotImplementedError

            what = "getpass" if password else "raw_input"
            raise StdinNotImplementedError(
                f"{what} was called, but this frontend does not support input requests."
            )
        frame = self._door.ask("input_request", {"prompt": prompt, "password": password})
        value = str(frame.content.get("value", ""))
        if value == "\x04":
            raise EOFError
        return value
