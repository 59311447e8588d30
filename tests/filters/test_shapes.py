"""Shows that whatever a guest says, what reaches a front end has the shape of its message.

Everything that comes out must be what any encoder takes (`sendable`): a message that cannot be sent
is a reply that never comes.
"""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from wasi_kernel import frames
from wasi_kernel.filters import shapes
from wasi_kernel.frames import Frame

WRONG: list[Any] = [
    None, True, 0, -1, 2**70, 1.5, "", "text", "\ud800", [], [1], ["a", "\udfff"], [[]], {},
    {"a": 1}, {"\ud800": "\udc00"}, [{"source": "page"}], {"data": {"text/plain": 1}},
]  # fmt: skip
"""Values of every JSON type, for places where each but one is wrong."""

OUTPUTS = (
    "stream", "display_data", "update_display_data", "execute_result", "error", "clear_output",
    "comm_open", "comm_msg", "comm_close",
)  # fmt: skip


def sendable(content: Any) -> Any:
    """`content`, encoded as strictly as a front end's encoder does it."""
    json.dumps(content, ensure_ascii=False, allow_nan=False).encode()
    return content


def show(kind: str, **content: Any) -> dict[str, Any]:
    """What is published for a frame."""
    shown = shapes.output(Frame(kind, content), 7)
    assert shown is not None
    return sendable(shown)


# -- messages as a well-meaning guest sends them -------------------------------------------------


def test_each_output_as_it_should_be():
    bundle = {"data": {"text/plain": "1", "application/json": {"a": [1]}}, "metadata": {"m": 1}}
    assert show("stream", name="stderr", text="é") == {"name": "stderr", "text": "é"}
    assert show("display_data", **bundle, transient={"display_id": "d"}) == {
        **bundle, "transient": {"display_id": "d"},
    }  # fmt: skip
    assert show("update_display_data", **bundle) == {**bundle, "transient": {}}
    assert show("execute_result", **bundle, execution_count=99) == {**bundle, "execution_count": 7}
    error = {"ename": "E", "evalue": "v", "traceback": ["a", "b"]}
    assert show("error", **error) == shapes.error(error) == error
    assert show("clear_output", wait=True) == {"wait": True}
    assert show("comm_open", comm_id="c", data={"a": 1}, target_name="t", target_module="m") == {
        "comm_id": "c", "data": {"a": 1}, "target_name": "t", "target_module": "m",
    }  # fmt: skip
    assert show("comm_msg", comm_id="c", data={}) == {"comm_id": "c", "data": {}}
    assert show("comm_close", comm_id="c", data={}) == {"comm_id": "c", "data": {}}


def test_what_is_no_output_is_dropped():
    for kind in set(frames.TYPES) - set(OUTPUTS):
        assert shapes.output(Frame(kind, {"text": "x"}), 1) is None


def test_the_number_of_a_cell_is_the_kernels():
    assert show("execute_result", execution_count="\ud800")["execution_count"] == 7
    reply = shapes.execute_reply({"status": "ok", "execution_count": 1000}, 7)
    assert reply["execution_count"] == 7


def test_an_execute_reply_as_it_should_be():
    payload = [{"source": "set_next_input", "text": "x", "replace": False}]
    said = {"status": "ok", "user_expressions": {"a": {"status": "ok"}}, "payload": payload}
    assert shapes.execute_reply(said, 3) == {**said, "execution_count": 3}
    error = {"ename": "E", "evalue": "v", "traceback": ["t"]}
    assert shapes.execute_reply({"status": "error", **error}, 3) == {
        "status": "error", "execution_count": 3, "user_expressions": {}, "payload": [], **error,
    }  # fmt: skip


def test_a_reply_that_is_not_ok_is_an_error():
    for status in ("aborted", "\ud800", None, 1, ["ok"], {}):
        reply = shapes.execute_reply({"status": status}, 1)
        assert (reply["status"], reply["ename"], reply["traceback"]) == ("error", "", [])
    assert shapes.execute_reply({}, 1)["status"] == "error"


def test_only_known_payloads_pass_and_only_their_fields():
    given = [
        {"source": "page", "data": {"text/plain": "x"}, "start": 1, "more": 2},
        {"source": "ask_exit", "keepkernel": True},
        {"source": "edit_magic", "filename": "/etc/passwd", "line_number": 0},
        {"source": "set_next_input"},
    ]
    assert shapes.payloads(given) == [
        {"source": "page", "data": {"text/plain": "x"}, "start": 1},
        {"source": "ask_exit", "keepkernel": True},
        {"source": "set_next_input"},
    ]


def test_a_field_of_a_payload_that_holds_something_else_is_left_out():
    given = [
        {"source": "page", "data": "text", "start": True},
        {"source": "set_next_input", "text": ["x"], "replace": False},
    ]
    assert shapes.payloads(given) == [
        {"source": "page"}, {"source": "set_next_input", "replace": False},
    ]  # fmt: skip


def test_a_complete_reply_as_it_should_be():
    types = {"_jupyter_types_experimental": [{"start": 0, "end": 2, "text": "aa", "type": "x"}]}
    said = {
        "status": "ok", "matches": ["aa", "ab"], "cursor_start": 0, "cursor_end": 2,
        "metadata": types,
    }  # fmt: skip
    assert shapes.complete_reply(said, 5) == said


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (0, 5, (0, 5)), (-3, 99, (0, 5)), (2**70, 2**70, (5, 5)), (None, "1", (5, 5)),
        (True, False, (5, 5)), (1.5, [2], (5, 5)), (4, 2, (2, 2)),
    ],
)  # fmt: skip
def test_completion_positions_lie_in_the_cell_and_in_order(
    start: Any, end: Any, expected: tuple[int, int]
):
    reply = sendable(
        shapes.complete_reply({"status": "ok", "cursor_start": start, "cursor_end": end}, 5)
    )
    assert type(reply["cursor_start"]) is type(reply["cursor_end"]) is int
    assert 0 <= reply["cursor_start"] <= reply["cursor_end"] <= 5
    if expected != (2, 2):  # which of two contradicting positions counts is nobody's promise
        assert (reply["cursor_start"], reply["cursor_end"]) == expected


def test_an_inspect_reply_as_it_should_be():
    said = {"status": "ok", "found": True, "data": {"text/plain": "doc"}, "metadata": {}}
    assert shapes.inspect_reply(said) == said
    assert shapes.inspect_reply({"status": "ok"}) == {
        "status": "ok", "found": False, "data": {}, "metadata": {},
    }  # fmt: skip
    assert shapes.inspect_reply({"ename": "E"})["ename"] == "E"


def test_an_is_complete_reply_as_it_should_be():
    for status in ("complete", "invalid"):
        said = {"status": status, "indent": "x"}
        assert shapes.is_complete_reply(said) == {"status": status}
    said = {"status": "incomplete", "indent": "    "}
    assert shapes.is_complete_reply(said) == said
    for status in ("unknown", "ok", None, ["complete"], {}, "\ud800"):
        assert shapes.is_complete_reply({"status": status}) == {"status": "unknown"}


def test_a_comm_info_reply_as_it_should_be():
    comms = {"c1": {"target_name": "t"}}
    assert shapes.comm_info_reply({"status": "ok", "comms": comms}) == {
        "status": "ok", "comms": comms,
    }  # fmt: skip
    assert shapes.comm_info_reply({"comms": {"c": None}})["comms"] == {"c": {"target_name": ""}}
    assert shapes.comm_info_reply({"comms": [1]}) == {"status": "ok", "comms": {}}
    assert shapes.comm_info_reply({"comms": {"__proto__": {}, "c": {}}})["comms"].keys() == {"c"}


def test_text_has_no_lone_surrogates():
    assert shapes.text("aé\U0001f600") == "aé\U0001f600"
    assert shapes.text("a\ud800b") == "a?b"
    assert shapes.text(None) == "None"
    assert shapes.text(["\udfff"]).isprintable()


def test_texts_are_put_right_wherever_they_lie_and_good_ones_are_not_copied():
    good, high = "iVBORw0KGgo=" * 1000, "\U0001f600" * 1000
    given = {"\ud800": [{"a\udfff": "\ud800"}], "image/png": good, "text": high}
    cleaned = shapes.clean(given)
    assert cleaned == {"?": [{"a?": "?"}], "image/png": good, "text": high}
    assert cleaned["image/png"] is good
    assert cleaned["text"] is high


def test_no_key_reaches_a_prototype():
    assert shapes.clean({"__proto__": 1, "a": [{"__proto__": {"b": 1}, "c": 2}]}) == {
        "a": [{"c": 2}],
    }  # fmt: skip


def test_nesting_has_an_end():
    value: Any = "x"
    for _ in range(shapes.DEPTH):
        value = [value]
    assert shapes.clean(value) == value
    cut: Any = shapes.clean([value])
    for _ in range(shapes.DEPTH):
        (cut,) = cut
    assert cut == "[...]"
    assert shapes.clean({"a": {}}, depth=1) == {"a": "{...}"}


# -- messages of a hostile guest -----------------------------------------------------------------

SHAPES: dict[str, dict[str, type]] = {
    "stream": {"name": str, "text": str},
    "display_data": {"data": dict, "metadata": dict, "transient": dict},
    "update_display_data": {"data": dict, "metadata": dict, "transient": dict},
    "execute_result": {"data": dict, "metadata": dict, "execution_count": int},
    "error": {"ename": str, "evalue": str, "traceback": list},
    "clear_output": {"wait": bool},
    "comm_open": {"comm_id": str, "data": dict},
    "comm_msg": {"comm_id": str, "data": dict},
    "comm_close": {"comm_id": str, "data": dict},
}


def has_shape(content: dict[str, Any], shape: dict[str, type]) -> None:
    assert set(shape) <= set(content)
    for key, t in shape.items():
        assert type(content[key]) is t, key


@pytest.mark.parametrize("kind", OUTPUTS)
def test_outputs_of_wrong_shapes(kind: str):
    has_shape(show(kind), SHAPES[kind])
    for key in (*SHAPES[kind], "target_name", "target_module"):
        for value in WRONG:
            shown = show(kind, **{key: value})
            has_shape(shown, SHAPES[kind])
            assert set(shown) <= {*SHAPES[kind], "target_name", "target_module"}


def test_streams_have_one_of_two_names():
    for value in WRONG:
        assert show("stream", name=value, text="x")["name"] in ("stdout", "stderr")


@pytest.mark.parametrize("value", WRONG)
def test_bundles_of_wrong_shapes_inside(value: Any):
    for kind in ("display_data", "update_display_data", "execute_result"):
        show(kind, data={"text/plain": value, "\ud800": value}, metadata={"text/plain": value})
        show(kind, data={"application/json": {"deep": [value]}}, transient={"display_id": value})
    show("comm_open", comm_id="c", data={"state": value})
    sendable(shapes.inspect_reply({"status": "ok", "data": {"text/plain": value}}))


@pytest.mark.parametrize("value", WRONG)
def test_replies_of_wrong_shapes(value: Any):
    for key in ("status", "user_expressions", "payload", "ename", "evalue", "traceback"):
        for status in ("ok", "error"):
            has_shape(
                sendable(shapes.execute_reply({"status": status, key: value}, 1)),
                {"status": str, "execution_count": int, "user_expressions": dict, "payload": list},
            )
    for key in ("status", "matches", "cursor_start", "cursor_end", "metadata", "ename"):
        has_shape(
            sendable(shapes.complete_reply({"status": "ok", key: value}, 3)),
            {"matches": list, "cursor_start": int, "cursor_end": int, "metadata": dict},
        )
    for key in ("status", "found", "data", "metadata"):
        has_shape(
            sendable(shapes.inspect_reply({"status": "ok", key: value})),
            {"status": str, "found": bool, "data": dict, "metadata": dict},
        )
    for key in ("status", "indent"):
        sendable(shapes.is_complete_reply({"status": "incomplete", key: value}))
    for comms in (value, {"c": value}, {"\ud800": {"target_name": value}}):
        sendable(shapes.comm_info_reply({"comms": comms}))


@pytest.mark.parametrize("value", WRONG)
def test_values_inside_a_reply_can_be_sent(value: Any):
    expressions = {"a": {"status": "ok", "data": {"text/plain": value}}, "b": value}
    sendable(shapes.execute_reply({"status": "ok", "user_expressions": expressions}, 1))
    sendable(
        shapes.complete_reply({"status": "ok", "matches": [value], "metadata": {"m": value}}, 1)
    )


@pytest.mark.parametrize("value", WRONG)
def test_payloads_of_wrong_shapes(value: Any):
    for payload in (
        value, [value], {"source": value}, {"source": "page", "data": value, "start": value},
        {"source": "page", "data": {"text/plain": value}},
        {"source": "ask_exit", "keepkernel": value},
        {"source": "set_next_input", "text": value, "replace": value},
    ):  # fmt: skip
        found = sendable(shapes.payloads(payload if isinstance(payload, list) else [payload]))
        assert all(p["source"] in shapes.PAYLOADS for p in found)


def test_a_value_as_deep_as_a_frame_may_be():
    """What the decoder let in at some depth of nesting must not overrun the stack further on."""
    accepted = 0
    for depth in (10, 100, 500, 800, 900, *range(905, 1000, 3)):
        nested = "[" * depth + "]" * depth
        body = f'{{"content":{{"text":{nested},"data":{{"a":{nested}}}}},"metadata":{{}}}}'
        data = frames.encode(Frame("stream", {}))
        head = bytearray(data[: frames.HEAD_BYTES])
        head[0:4] = (frames.HEAD_BYTES - 4 + len(body)).to_bytes(4, "little")
        head[12:16] = len(body).to_bytes(4, "little")
        try:
            frame = frames.decode(bytes(head) + body.encode())
        except frames.FrameError:
            continue
        accepted += 1
        for kind in ("stream", "display_data"):
            assert shapes.output(frame._replace(type=kind), 1) is not None
    assert accepted > 0


def test_random_nonsense():
    rng = random.Random(7)  # noqa: S311 - a seed, not a secret
    keys = [
        "status", "data", "metadata", "text", "name", "payload", "traceback", "comms", "matches",
        "user_expressions", "transient", "comm_id", "wait", "source",
    ]  # fmt: skip

    def value(depth: int) -> Any:
        if depth == 0 or rng.random() < 0.5:
            return rng.choice(WRONG)
        if rng.random() < 0.5:
            return [value(depth - 1) for _ in range(rng.randrange(3))]
        return {rng.choice(keys): value(depth - 1) for _ in range(rng.randrange(4))}

    for _ in range(1000):
        content = {rng.choice(keys): value(3) for _ in range(rng.randrange(6))}
        for kind in OUTPUTS:
            has_shape(show(kind, **content), SHAPES[kind])
        sendable(shapes.execute_reply(content, 1))
        sendable(shapes.complete_reply(content, 4))
        sendable(shapes.inspect_reply(content))
        sendable(shapes.is_complete_reply(content))
        sendable(shapes.comm_info_reply(content))
