"""The shape of every message that a guest asks to have shown.

Pure. The guest is hostile, so its frames are checked as input from a stranger: what is not of the
message's shape is put right or dropped. What a display *contains* passes as it is (see frontend.py
for that), but for what no encoder takes: lone surrogates, and nesting without end; and for the
key `__proto__`, which is nobody's data and has polluted the prototypes of more than one library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wasi_kernel.frames import Frame

PAYLOADS: dict[str, dict[str, type]] = {
    "page": {"data": dict, "start": int},
    "set_next_input": {"text": str, "replace": bool},
    "ask_exit": {"keepkernel": bool},
}
"""Payload sources that are passed on, their fields and what these hold."""

DEPTH = 200
"""Levels of nesting that pass (as many as `frames.jsonable` writes); no front end shows as many."""

PROTO = "__proto__"
_PLAIN = frozenset({int, float, bool, type(None)})


def text(value: Any) -> str:
    """`value` as text that any encoder takes: no lone surrogates."""
    string = value if isinstance(value, str) else str(clean(value))
    if string.isascii():  # at once, and without a copy: megabytes of base64
        return string
    try:
        string.encode()
    except UnicodeEncodeError:
        return string.encode("utf-8", "replace").decode()
    return string


def clean(value: Any, depth: int = DEPTH) -> Any:
    """`value`, from JSON, with all its texts and keys as `text` gives them, and an end in depth.

    What nests deeper than `depth` levels is written as an ellipsis; keys `__proto__` are left out.
    """
    if isinstance(value, str):
        return text(value)
    if not isinstance(value, (dict, list)):
        return value
    if depth == 0:
        return "{...}" if isinstance(value, dict) else "[...]"
    if isinstance(value, dict):
        return {text(k): clean(v, depth - 1) for k, v in value.items() if k != PROTO}
    return [v if type(v) in _PLAIN else clean(v, depth - 1) for v in value]


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _clean_dict(value: Any) -> dict[str, Any]:
    return clean(value) if isinstance(value, dict) else {}


def _lines(value: Any) -> list[str]:
    return [text(line) for line in value] if isinstance(value, list) else []


def _bundle(content: dict[str, Any]) -> dict[str, Any]:
    return {
        "data": _clean_dict(content.get("data")),
        "metadata": _clean_dict(content.get("metadata")),
    }


def _stream(content: dict[str, Any], count: int) -> dict[str, Any]:
    del count
    name = "stderr" if content.get("name") == "stderr" else "stdout"
    return {"name": name, "text": text(content.get("text", ""))}


def _display(content: dict[str, Any], count: int) -> dict[str, Any]:
    del count
    return {**_bundle(content), "transient": _clean_dict(content.get("transient"))}


def _result(content: dict[str, Any], count: int) -> dict[str, Any]:
    return {**_bundle(content), "execution_count": count}


def error(content: dict[str, Any]) -> dict[str, Any]:
    """The three fields of an error."""
    return {
        "ename": text(content.get("ename", "")),
        "evalue": text(content.get("evalue", "")),
        "traceback": _lines(content.get("traceback")),
    }


def _comm(content: dict[str, Any], count: int) -> dict[str, Any]:
    del count
    comm = {"comm_id": text(content.get("comm_id", "")), "data": _clean_dict(content.get("data"))}
    for key in ("target_name", "target_module"):
        if isinstance(content.get(key), str):
            comm[key] = text(content[key])
    return comm


_SHAPES = {
    "stream": _stream,
    "display_data": _display,
    "update_display_data": _display,
    "execute_result": _result,
    "error": lambda content, count: error(content),  # noqa: ARG005
    "clear_output": lambda content, count: {"wait": bool(content.get("wait"))},  # noqa: ARG005
    "comm_open": _comm,
    "comm_msg": _comm,
    "comm_close": _comm,
}


def output(frame: Frame, execution_count: int) -> dict[str, Any] | None:
    """The content to publish for a frame that shows something; None if it is to be dropped."""
    shape = _SHAPES.get(frame.type)
    return None if shape is None else shape(frame.content, execution_count)


def plain_text(content: dict[str, Any]) -> str | None:
    """The text/plain of an execute_result's content, None if it has none."""
    plain = _dict(content.get("data")).get("text/plain")
    return plain if isinstance(plain, str) else None


MAX_PAYLOADS = 1000
"""A front end acts on each; a cell has one or two."""


def payloads(value: Any) -> list[dict[str, Any]]:
    """The payloads of an execute_reply that a front end may act on."""
    found = []
    for payload in value[:MAX_PAYLOADS] if isinstance(value, list) else []:
        source = _dict(payload).get("source")
        if isinstance(source, str) and source in PAYLOADS:
            fields = {
                k: clean(payload.get(k))
                for k, t in PAYLOADS[source].items()
                if type(payload.get(k)) is t
            }
            found.append({"source": source, **fields})
    return found


def execute_reply(content: dict[str, Any], execution_count: int) -> dict[str, Any]:
    """An execute_reply's content, of the right shape whatever the guest said."""
    reply: dict[str, Any] = {
        "status": "ok" if content.get("status") == "ok" else "error",
        "execution_count": execution_count,
        "user_expressions": _clean_dict(content.get("user_expressions")),
        "payload": payloads(content.get("payload")),
    }
    if reply["status"] == "error":
        reply |= error(content)
    return reply


def complete_reply(content: dict[str, Any], length: int) -> dict[str, Any]:
    """A complete_reply's content; positions inside a cell of `length` characters."""

    def position(key: str) -> int:
        value = content.get(key)
        return max(0, min(value, length)) if type(value) is int else length  # a bool is none

    end = position("cursor_end")
    return {
        "status": "ok" if content.get("status") == "ok" else "error",
        "matches": _lines(content.get("matches")),
        "cursor_start": min(position("cursor_start"), end),
        "cursor_end": end,
        "metadata": _clean_dict(content.get("metadata")),
    } | ({} if content.get("status") == "ok" else error(content))


def inspect_reply(content: dict[str, Any]) -> dict[str, Any]:
    """An inspect_reply's content."""
    reply = {
        "status": "ok" if content.get("status") == "ok" else "error",
        "found": bool(content.get("found")),
        **_bundle(content),
    }
    return reply if reply["status"] == "ok" else reply | error(content)


def is_complete_reply(content: dict[str, Any]) -> dict[str, Any]:
    """An is_complete_reply's content."""
    status = content.get("status")
    if status not in ("complete", "incomplete", "invalid"):
        return {"status": "unknown"}
    if status == "incomplete":
        return {"status": status, "indent": text(content.get("indent", ""))}
    return {"status": status}


def comm_info_reply(content: dict[str, Any]) -> dict[str, Any]:
    """A comm_info_reply's content."""
    comms = {
        text(comm_id): {"target_name": text(_dict(info).get("target_name", ""))}
        for comm_id, info in _dict(content.get("comms")).items()
        if comm_id != PROTO
    }
    return {"status": "ok", "comms": comms}
