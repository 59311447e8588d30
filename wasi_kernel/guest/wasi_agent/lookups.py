"""What a front end asks about code that is not run: completion, inspection, is it complete?"""

from __future__ import annotations

import contextlib
import gc
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wasi_agent.shell import ZMQInteractiveShell

EXPERIMENTAL = "_jupyter_types_experimental"


def complete(shell: ZMQInteractiveShell, content: dict[str, Any]) -> dict[str, Any]:
    """complete_reply's content; positions count characters of the cell."""
    from IPython.core.completer import provisionalcompleter, rectify_completions

    code, position = content["code"], content["cursor_pos"]
    with provisionalcompleter(), _no_collection():
        found = list(rectify_completions(code, shell.Completer.completions(code, position)))
    typed = [
        {
            "start": c.start,
            "end": c.end,
            "text": c.text,
            "type": c.type,
            "signature": c.signature,
        }
        for c in found
    ]
    return {
        "status": "ok",
        "matches": [c.text for c in found],
        "cursor_start": found[0].start if found else position,
        "cursor_end": found[0].end if found else position,
        "metadata": {EXPERIMENTAL: typed},
    }


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Leaves jedi's garbage for later: a twentieth of the time of a completion."""
    if not gc.isenabled():
        yield
        return
    try:  # an interrupt may come at any moment
        gc.disable()
        yield
    finally:
        gc.enable()


def inspect(shell: ZMQInteractiveShell, content: dict[str, Any]) -> dict[str, Any]:
    """inspect_reply's content."""
    from IPython.utils.tokenutil import token_at_cursor

    from wasi_agent.shell import encode_bytes

    name = token_at_cursor(content["code"], content["cursor_pos"])
    reply: dict[str, Any] = {"status": "ok", "found": False, "data": {}, "metadata": {}}
    try:
        bundle = shell.object_inspect_mime(
            name,
            detail_level=content.get("detail_level", 0),
            omit_sections=content.get("omit_sections", ()),
        )
    except KeyError:
        return reply
    if not shell.enable_html_pager:
        bundle.pop("text/html", None)
    reply["data"], reply["found"] = encode_bytes(bundle), True
    return reply


def is_complete(shell: ZMQInteractiveShell, content: dict[str, Any]) -> dict[str, Any]:
    """is_complete_reply's content."""
    status, spaces = shell.input_transformer_manager.check_complete(content["code"])
    reply: dict[str, Any] = {"status": status}
    if status == "incomplete":
        reply["indent"] = " " * (spaces or 0)
    return reply
