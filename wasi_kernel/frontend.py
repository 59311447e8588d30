"""What may reach the front end: every message that a guest asks to have sent, by policy.

Pure, and not to be imported by the worker. A front end trusts what a running kernel says, so what
comes out of here acts neither in its page nor in a terminal. Four modes: `isolated`, all that is
below; `interactive`, the same, and scripts in frames run without being asked to; `text`, plain text
and raster images alone; `trusted`, what the guest says, in the shape of its message. An object
holds for one session: it knows which comms are widgets, which escape sequence a stream's last piece
broke off, and what was held back.

The parts: shapes.py (the shape of a message), terminal.py (text), bundles.py (displays, by type),
widgets.py (comms). In every mode a message passes twice as it passes once.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from wasi_kernel.filters import bundles, shapes, terminal
from wasi_kernel.policy import FRONTENDS, raising

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from wasi_kernel.filters.widgets import Widgets
    from wasi_kernel.frames import Frame

T = TypeVar("T")

MARK = "# From the sandbox: read it before you run it.\n"
"""First line of a cell that the guest has written."""

OWN_DISPLAYS = "wasi-kernel-"
"""How the ids of the kernel's own displays begin: no guest may write over them."""

MAX_HELD = 1000
_REASON_CHARACTERS = 200
_COMMS = frozenset(("comm_open", "comm_msg", "comm_close"))
_DISPLAYS = frozenset(("display_data", "update_display_data", "execute_result"))
_VERSION = re.compile(r"2(?:\.\d{1,4}){0,2}")
WIDGET_PROTOCOL = "2.1.0"
"""Of ipywidgets 8; a page refuses a comm_open that names none, or another major one."""

_NUMBERS = frozenset((int, float, bool, type(None)))
_COMPLETION = {"start": int, "end": int, "text": str, "type": str, "signature": str}
"""What JupyterLab reads of a completion's metadata (completer's default/kernelprovider.ts)."""


@dataclass(frozen=True)
class Held:
    """What was held back or changed.

    Attributes:
        cell: The number of the cell.
        kind: Of the message, or the mime type of its part.
        reason: What was done to it, and why.
        count: How often.
    """

    cell: int
    kind: str
    reason: str
    count: int


class Frontend:
    """What one session's front end may be sent.

    Args:
        mode: One of `policy.FRONTENDS`.
        mimes: Further mime types that pass as they are, for renderers that trust nothing.
        output_characters: How much of one request's output passes: a frame is longer than what it
            encloses, so what the worker lets through may have become too much.

    Raises:
        ValueError: There is no such mode.
    """

    def __init__(
        self, mode: str = "isolated", mimes: Iterable[str] = (), *,
        output_characters: int = 1 << 25,
    ) -> None:  # fmt: skip
        if mode not in FRONTENDS:
            raise ValueError(f"frontend = {mode!r}: one of {', '.join(FRONTENDS)}")
        self._mode, self._mimes = mode, tuple(mimes)
        self._output_characters = output_characters
        self._request = self._sent = 0
        self._cell = 0
        self._held: dict[tuple[int, str, str], int] = {}
        self._notes: list[str] = []
        self._told: set[str] = set()
        self._streams = terminal.Streams()
        self._made: Widgets | None = None
        self._bundles = bundles.Bundles(
            inert=frozenset(self._mimes),
            text_only=mode == "text",
            runs=mode == "interactive",
            refused=lambda model_id: self._made.refusal(model_id) if self._made else "",
        )

    @property
    def trusted(self) -> bool:
        """Does everything pass as it is?"""
        return self._mode == "trusted"

    @property
    def held(self) -> list[Held]:
        """What was held back or changed in this session, oldest first; at most `MAX_HELD` rows."""
        return [Held(*key, count) for key, count in self._held.items()]

    def report(self) -> dict[str, Any]:
        """What the guest is told when it asks: the mode, further types, and what was held back."""
        held = [[row.cell, row.kind, row.reason, row.count] for row in self.held]
        return {"mode": self._mode, "mimes": list(self._mimes), "held": held}

    def take_notes(self) -> list[str]:
        """Lines that the user should see once: refusals of what shows nothing by itself."""
        notes, self._notes = self._notes, []
        return notes

    def _hold(self, kind: str, reason: str) -> None:
        reason = terminal.line(reason[:_REASON_CHARACTERS])
        key = (self._cell, terminal.line(kind[:80]), reason)
        if key not in self._held and len(self._held) >= MAX_HELD:
            del self._held[next(iter(self._held))]
        self._held[key] = self._held.get(key, 0) + 1

    # -- what a cell shows -------------------------------------------------------------------

    def output(self, frame: Frame, count: int) -> dict[str, Any] | None:
        """The content to publish for a frame that shows something; None if it is to be dropped."""
        shaped = shapes.output(frame, count)
        if shaped is None or self.trusted:
            return shaped
        self._cell = count
        shown = self._safely(frame.type, lambda: self._shown(frame, shaped), None)
        return shown if shown is None or self._fits(frame, shown) else None

    def _safely(self, kind: str, make: Callable[[], T], instead: T) -> T:
        """What `make` gives, or what is safe `instead`, if a filter fails by its own fault."""
        try:
            return make()
        except Exception:  # a filter's own fault: logged, and nothing passes
            logging.getLogger(__name__).exception("a %s could not be filtered", kind)
            self._hold(kind, "could not be filtered; please report what it was")
            self._notes.append(f"a {kind} was left out: it could not be filtered")
            return instead

    def _shown(self, frame: Frame, shaped: dict[str, Any]) -> dict[str, Any] | None:
        if frame.type == "stream":
            text = self._streams.show(shaped["name"], shaped["text"], self._cell)
            return {"name": shaped["name"], "text": text} if text or not shaped["text"] else None
        if frame.type in _DISPLAYS:
            return self._display(shaped)
        if frame.type in _COMMS:
            return self._comm(frame, shaped)
        return self._error(shaped) if frame.type == "error" else shaped

    def _fits(self, frame: Frame, shown: dict[str, Any]) -> bool:
        """Is there room for this in what the present request may still show?"""
        if frame.request != self._request:
            self._request, self._sent = frame.request, 0
        before, self._sent = self._sent, self._sent + _characters(shown)
        if self._sent <= self._output_characters:
            return True
        self._hold(frame.type, f"more than {self._output_characters} characters in one cell")
        if before <= self._output_characters:
            self._notes.append(
                f"the rest of the output is left out: more than {self._output_characters >> 20} "
                f"million characters as it is shown; {raising('output_bytes')}"
            )
        return False

    def metadata(self, frame: Frame) -> dict[str, Any]:
        """The metadata to publish with it: a widget's version of the protocol, and nothing else."""
        cleaned = shapes.clean(frame.metadata)
        if self.trusted:
            return dict(cleaned)
        if frame.type != "comm_open":
            return {}
        version = cleaned.get("version")
        known = isinstance(version, str) and _VERSION.fullmatch(version)
        return {"version": version if known else WIDGET_PROTOCOL}

    def _bundle(self, shaped: dict[str, Any]) -> dict[str, Any]:
        return {
            "data": self._bundles.data(shaped["data"], self._hold),
            "metadata": bundles.metadata(shaped["metadata"]),
        }

    def _display(self, shaped: dict[str, Any]) -> dict[str, Any]:
        shown = shaped | self._bundle(shaped)
        if "transient" in shaped:
            display_id = shaped["transient"].get("display_id")
            own = isinstance(display_id, str) and not display_id.startswith(OWN_DISPLAYS)
            shown["transient"] = {"display_id": terminal.line(display_id[:256])} if own else {}
        return shown

    @staticmethod
    def _error(shaped: dict[str, Any]) -> dict[str, Any]:
        return {
            "ename": terminal.line(shaped["ename"]),
            "evalue": terminal.trace(shaped["evalue"]),
            "traceback": [terminal.trace(line) for line in shaped["traceback"]],
        }

    def error(self, content: dict[str, Any]) -> dict[str, Any]:
        """The three fields of an error."""
        shaped = shapes.error(content)
        return shaped if self.trusted else self._error(shaped)

    def plain_text(self, content: dict[str, Any]) -> str | None:
        """The text/plain of an execute_result's content, None if it has none."""
        plain = shapes.plain_text(content)
        return plain if plain is None or self.trusted else terminal.show(shapes.text(plain))

    # -- comms -------------------------------------------------------------------------------

    def _comm(self, frame: Frame, shaped: dict[str, Any]) -> dict[str, Any] | None:
        if self._mode == "text":
            self._hold(frame.type, "widgets are not shown, by policy")
            return None
        widgets, buffers = self._widgets, len(frame.buffers)
        if frame.type == "comm_open":
            return widgets.open(shaped, buffers)
        if frame.type == "comm_msg":
            return widgets.message(shaped, buffers)
        return widgets.close(shaped)

    @property
    def _widgets(self) -> Widgets:
        if self._made is None:
            from wasi_kernel.filters.widgets import Widgets

            self._made = Widgets(self._html, self._old_output, self._hold_comm)
        return self._made

    def _hold_comm(self, reason: str) -> None:
        self._hold("comm", reason)
        if reason.endswith("refused") and reason not in self._told and len(self._told) < MAX_HELD:
            self._told.add(reason)
            self._notes.append(terminal.line(f"{reason[:_REASON_CHARACTERS]} ({bundles.MORE})"))

    def _html(self, value: str) -> str | None:
        from wasi_kernel.filters import markup

        return markup.sanitized(
            value, lambda reason: self._hold("widget HTML", reason),
            runs=self._mode == "interactive",
        )  # fmt: skip

    def _old_output(self, value: dict[str, Any]) -> dict[str, Any] | None:
        """An output as a notebook's file has it, in an Output widget's trait."""
        kind = value.get("output_type")
        if kind == "stream":
            text = value.get("text")
            if isinstance(text, list):
                text = "".join(str(line) for line in text)
            name = "stderr" if value.get("name") == "stderr" else "stdout"
            return {"output_type": kind, "name": name, "text": terminal.show(shapes.text(text))}
        if kind == "error":
            return {"output_type": kind, **self._error(shapes.error(value))}
        if kind not in ("display_data", "execute_result"):
            return None
        data, about = (
            part if isinstance(part := value.get(key), dict) else {} for key in ("data", "metadata")
        )
        shown = {"output_type": kind, **self._bundle({"data": data, "metadata": about})}
        if kind == "execute_result":
            count = value.get("execution_count")
            shown["execution_count"] = count if type(count) is int else None
        return shown

    def comm_opened(self, content: dict[str, Any]) -> None:
        """The front end has opened a comm: what is said on it may pass, if it is a known widget."""
        if self._mode in ("isolated", "interactive"):
            self._widgets.opened(content)

    def comm_info_reply(self, content: dict[str, Any]) -> dict[str, Any]:
        """A comm_info_reply's content."""
        shaped = shapes.comm_info_reply(content)
        if not self.trusted:
            shown = {} if self._mode == "text" else shaped["comms"]
            shaped["comms"] = {
                comm_id: about
                for comm_id, about in shown.items()
                if about["target_name"] == "jupyter.widget" and not self._widgets.refusal(comm_id)
            }
        return shaped

    # -- replies -----------------------------------------------------------------------------

    def execute_reply(self, content: dict[str, Any], execution_count: int) -> dict[str, Any]:
        """An execute_reply's content, of the right shape whatever the guest said."""
        reply = shapes.execute_reply(content, execution_count)
        if self.trusted:
            return reply
        self._cell = execution_count
        reply["user_expressions"] = {
            terminal.line(name): self._expression(value)
            for name, value in reply["user_expressions"].items()
            if isinstance(value, dict)
        }
        reply["payload"] = [self._payload(payload) for payload in reply["payload"]]
        return self._with_error(reply)

    def _with_error(self, reply: dict[str, Any]) -> dict[str, Any]:
        return reply | self._error(reply) if "traceback" in reply else reply

    def _expression(self, value: dict[str, Any]) -> dict[str, Any]:
        if value.get("status") != "ok":
            return {"status": "error", **self._error(shapes.error(value))}
        data, about = (
            part if isinstance(part := value.get(key), dict) else {} for key in ("data", "metadata")
        )
        return {"status": "ok", **self._bundle({"data": data, "metadata": about})}

    def _payload(self, payload: dict[str, Any]) -> dict[str, Any]:
        if payload["source"] == "page" and "data" in payload:
            return {**payload, "data": self._bundles.data(payload["data"], self._hold)}
        if payload["source"] == "set_next_input" and "text" in payload:
            shown = _code(payload["text"])
            return {**payload, "text": shown if shown.startswith(MARK) else MARK + shown}
        return payload

    def complete_reply(self, content: dict[str, Any], length: int) -> dict[str, Any]:
        """A complete_reply's content; positions inside a cell of `length` characters."""
        reply = shapes.complete_reply(content, length)
        if self.trusted:
            return reply
        reply["matches"] = [m for m in reply["matches"] if m == terminal.line(m)]
        kinds = reply["metadata"].get("_jupyter_types_experimental")
        known = [_completion(k) for k in kinds] if isinstance(kinds, list) else []
        known = [k for k in known if "text" in k and k["text"] == terminal.line(k["text"])]
        reply["metadata"] = {"_jupyter_types_experimental": known} if known else {}
        return self._with_error(reply)

    def inspect_reply(self, content: dict[str, Any]) -> dict[str, Any]:
        """An inspect_reply's content."""
        reply = shapes.inspect_reply(content)
        if self.trusted:
            return reply
        return self._with_error(reply | self._bundle(reply))

    def is_complete_reply(self, content: dict[str, Any]) -> dict[str, Any]:
        """An is_complete_reply's content."""
        reply = shapes.is_complete_reply(content)
        if "indent" in reply and not self.trusted:
            reply["indent"] = " " * min(len(reply["indent"]), 200)
        return reply

    # -- texts -------------------------------------------------------------------------------

    @staticmethod
    def text(value: Any) -> str:
        """`value` as text that any encoder takes, for the way to the guest."""
        return shapes.text(value)

    def prompt(self, value: Any) -> str:
        """A question of `input()`, for the way to the user."""
        asked = shapes.text(value)
        return asked if self.trusted else terminal.show(asked)

    @staticmethod
    def note(value: str) -> str:
        """A text of the kernel's own that may quote the guest."""
        return terminal.show(shapes.text(value), colours=False)

    def history_row(self, row: tuple[Any, ...]) -> tuple[Any, ...]:
        """A row of a history_reply: (session, line, input) or (session, line, (input, output))."""
        if self.trusted:
            return row
        session, line, what = row
        if isinstance(what, (tuple, list)):
            return session, line, tuple(_code(part) for part in what)
        return session, line, _code(what)


def _characters(value: Any) -> int:
    """How much text there is in a message, at whatever depth; numbers do not count."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(map(_characters, value.values()))
    if isinstance(value, list) and not _NUMBERS.issuperset(map(type, value)):
        return sum(map(_characters, value))
    return 0


def _code(text: Any) -> Any:
    """Text for an editor: nothing in it acts, lines stay lines."""
    if not isinstance(text, str):
        return text
    return terminal.show(text, colours=False).replace("\b", "\u2408")


def _completion(kind: Any) -> dict[str, Any]:
    if not isinstance(kind, dict):
        return {}
    found = {key: kind[key] for key, t in _COMPLETION.items() if type(kind.get(key)) is t}
    return {k: terminal.line(v) if k in ("type", "signature") else v for k, v in found.items()}
