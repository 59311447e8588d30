"""Shows what of a guest's messages a front end gets, in each mode, and what is said of the rest.

What the filters do with a text, a type or a widget is shown in tests/filters; here it is shown that
every message goes through them.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wasi_kernel.filters import bundles, enclosure
from wasi_kernel.frames import Frame
from wasi_kernel.frontend import MARK, MAX_HELD, OWN_DISPLAYS, Frontend, Held
from wasi_kernel.policy import FRONTENDS

QUICK = settings(max_examples=100, deadline=None)

SCRIPT = "<script>top.canary()</script>"
IMAGE = "<img src=x onerror=top.canary()>"
TITLE = "\x1b]0;title\x07"
ERROR = {"ename": f"E\n{TITLE}", "evalue": f"v{TITLE}", "traceback": [f"\x1b[31mt\x1b[0m{TITLE}"]}
SHOWN_ERROR = {
    "ename": "E␊␛]0;title␇",
    "evalue": "v␛]0;title␇",
    "traceback": ["\x1b[31mt\x1b[0m␛]0;title␇"],
}


def frame(kind: str, **content: Any) -> Frame:
    return Frame(kind, content)


def output(kind: str, *, mode: str = "isolated", **content: Any) -> Any:
    """What is published for a message in the first cell of a session."""
    return Frontend(mode).output(frame(kind, **content), 1)


def widget(name: str, **traits: Any) -> dict[str, Any]:
    """A comm_open's content, as ipywidgets sends it."""
    controls = "@jupyter-widgets/controls"
    module = "@jupyter-widgets/output" if name == "Output" else controls
    version = "1.0.0" if name == "Output" else "2.0.0"
    state = {
        "_model_module": module, "_model_module_version": version, "_model_name": f"{name}Model",
        "_view_module": module, "_view_module_version": version, "_view_name": f"{name}View",
        **traits,
    }  # fmt: skip
    data = {"state": state, "buffer_paths": []}
    return {"comm_id": "a", "target_name": "jupyter.widget", "data": data}


# -- modes ---------------------------------------------------------------------------------------


def frame_of(frontend: Frontend, html: str) -> enclosure.Frame:
    shown = frontend.output(frame("display_data", data={"text/html": html}), 1)
    assert shown is not None
    found = enclosure.read(shown["data"]["text/html"])
    assert found is not None
    return found


def test_scripts_in_frames_wait_for_a_click_but_if_the_policy_lets_them_run():
    script = "<script>x</script>"
    asking, running = Frontend(), Frontend("interactive")
    assert not frame_of(asking, script).runs
    assert frame_of(running, script).runs
    # one that was saved with the other policy
    assert not frame_of(asking, enclosure.framed(frame_of(running, script))).runs
    assert frame_of(running, enclosure.framed(frame_of(asking, script))).runs
    source = {"application/javascript": "x"}
    for frontend in (asking, running):
        shown = frontend.output(frame("display_data", data=source), 1)
        assert shown is not None
        found = enclosure.read(shown["data"]["text/html"])
        assert found is not None
        assert found.runs is (frontend is running)


def test_another_mode_is_refused():
    with pytest.raises(ValueError, match="isolated, interactive, text, trusted"):
        Frontend("open")
    assert [Frontend(mode).trusted for mode in FRONTENDS] == [
        mode == "trusted" for mode in FRONTENDS
    ]


ACTING: list[tuple[str, dict[str, Any]]] = [
    ("stream", {"name": "stdout", "text": TITLE}),
    (
        "display_data",
        {"data": {"text/html": SCRIPT}, "metadata": {"isolated": True}, "transient": {}},
    ),
    ("update_display_data", {"data": {"a/b": SCRIPT}, "metadata": {}, "transient": {"x": 1}}),
    ("execute_result", {"data": {"text/plain": TITLE}, "metadata": {}, "execution_count": 1}),
    ("error", ERROR),
    ("comm_open", {"comm_id": "c", "target_name": "evil", "data": {"x": SCRIPT}}),
    ("comm_msg", {"comm_id": "c", "data": {"method": "evil"}}),
]


@pytest.mark.parametrize(("kind", "content"), ACTING)
def test_what_acts_passes_only_if_it_is_trusted(kind: str, content: dict[str, Any]):
    assert output(kind, mode="trusted", **content) == content
    for mode in ("isolated", "text"):
        assert output(kind, mode=mode, **content) != content


def test_trusted_messages_have_the_shape_of_their_kind_nevertheless():
    trusted = Frontend("trusted")
    assert trusted.output(frame("status", execution_state="idle"), 1) is None
    assert trusted.output(frame("stream", name="evil", text="\ud800"), 1) == {
        "name": "stdout", "text": "?",
    }  # fmt: skip
    assert trusted.metadata(Frame("comm_open", {}, metadata={"any": 1})) == {"any": 1}
    assert trusted.held == []


def test_as_text_there_are_neither_pictures_of_code_nor_widgets():
    text = Frontend("text")
    data = {"text/html": "<b>x</b>", "text/plain": "x", "image/png": "iVBORw0KGgo="}
    shown = text.output(frame("display_data", data=data, metadata={}), 1)
    assert shown["data"] == {"text/plain": "x", "image/png": "iVBORw0KGgo="}
    assert text.output(frame("comm_open", **widget("Text")), 1) is None
    comms = {"a": {"target_name": "jupyter.widget"}}
    assert text.comm_info_reply({"comms": comms})["comms"] == {}
    assert {held.kind for held in text.held} == {"text/html", "comm_open"}


def test_the_policy_may_add_a_type():
    data = {"a/b": {"any": SCRIPT}, "text/plain": "x"}
    shown = Frontend("isolated", ["a/b"]).output(frame("display_data", data=data), 1)
    assert shown["data"] == data


# -- what a cell shows ---------------------------------------------------------------------------


def test_streams_are_texts_of_their_cell():
    frontend = Frontend()

    def say(text: str, cell: int = 1) -> Any:
        return frontend.output(frame("stream", name="stdout", text=text), cell)

    assert say("a\x1b") == {"name": "stdout", "text": "a"}
    assert say("[3") is None, "nothing to show yet"
    assert say("1mred")["text"] == "\x1b[31mred"
    assert say("\x1b[") is None
    assert say("31m", 2)["text"] == "31m", "another cell does not go on with it"
    assert say("") == {"name": "stdout", "text": ""}


def test_a_display_has_an_id_but_none_of_the_kernels_own():
    for kind in ("display_data", "update_display_data"):
        for given_id, shown in (("d", "d"), ("x" * 300, "x" * 256)):
            transient = {"display_id": given_id, "more": 1}
            about = output(kind, data={}, transient=transient)
            assert about["transient"] == {"display_id": shown}
        for given_id in (f"{OWN_DISPLAYS}1", None, ["d"], 1):
            assert output(kind, data={}, transient={"display_id": given_id})["transient"] == {}
    assert "transient" not in output("execute_result", data={"text/plain": "x"})


def test_an_error_colours_its_text_and_does_nothing_else():
    assert output("error", **ERROR) == SHOWN_ERROR
    assert Frontend().error(ERROR) == SHOWN_ERROR
    assert Frontend("trusted").error(ERROR) == ERROR


def test_a_traceback_is_no_html_wherever_it_stands():
    """VS Code would take it for such."""
    link = f"<a href='x'>{IMAGE}</a>"
    error = {"ename": "E", "evalue": "v", "traceback": [link]}
    old = {"output_type": "error", **error}
    frontend = Frontend()
    opened = frontend.output(frame("comm_open", **widget("Output", outputs=[old])), 1)
    for shown in (
        output("error", **error),
        frontend.error(error),
        frontend.execute_reply({"status": "error", **error}, 1),
        frontend.execute_reply({"status": "ok", "user_expressions": {"a": error}}, 1),
        frontend.inspect_reply({"status": "error", **error}),
        frontend.complete_reply({"status": "error", **error}, 1),
        opened,
    ):
        assert "onerror" in json.dumps(shown)
        assert "<a href" not in json.dumps(shown)


def test_a_clear_output_passes():
    assert output("clear_output", wait=True) == {"wait": True}


def test_the_text_of_a_result():
    result = {"data": {"text/plain": f"x{TITLE}"}}
    assert Frontend().plain_text(result) == "x␛]0;title␇"
    assert Frontend("trusted").plain_text(result) == f"x{TITLE}"
    assert Frontend().plain_text({"data": {"text/html": "x"}}) is None
    assert Frontend().plain_text({}) is None


def test_only_so_much_of_one_requests_output_passes():
    frontend = Frontend(output_characters=100)

    def say(request: int, length: int) -> Any:
        content = {"name": "stdout", "text": "x" * length}
        return frontend.output(Frame("stream", content, request), 1)

    assert say(1, 50) is not None
    assert say(1, 30) is not None
    assert frontend.take_notes() == []
    assert say(1, 30) is None
    assert len(frontend.take_notes()) == 1
    assert say(1, 1) is None
    assert frontend.take_notes() == [], "once is enough"
    assert say(2, 90) is not None
    assert [held.count for held in frontend.held] == [2]


def test_what_becomes_longer_counts_as_it_is_shown():
    html = "<script>1</script>"
    wide = Frontend().output(frame("display_data", data={"text/html": html}), 1)
    length = len(wide["data"]["text/html"])
    for characters, passes in ((length, True), (length - 1, False)):
        frontend = Frontend(output_characters=characters)
        shown = frontend.output(frame("display_data", data={"text/html": html}), 1)
        assert (shown is not None) is passes


# -- what was held back --------------------------------------------------------------------------


def test_what_was_held_back_is_counted_by_cell_and_reason():
    frontend = Frontend()
    for cell in (1, 1, 2):
        frontend.output(frame("display_data", data={"a/b": 1, "text/plain": "x"}), cell)
    reason = "is not a type that is known to be harmless"
    assert frontend.held == [Held(1, "a/b", reason, 2), Held(2, "a/b", reason, 1)]
    assert frontend.report() == {
        "mode": "isolated", "mimes": [],
        "held": [[1, "a/b", reason, 2], [2, "a/b", reason, 1]],
    }  # fmt: skip


def test_so_many_rows_are_kept_the_newest():
    frontend = Frontend()
    for cell in range(MAX_HELD + 5):
        frontend.output(frame("display_data", data={"a/b": 1}), cell)
    assert len(frontend.held) == MAX_HELD
    assert frontend.held[0].cell == 5


def test_what_is_said_of_it_does_not_act_either():
    frontend = Frontend()
    frontend.output(frame("display_data", data={f"{TITLE}\n{'x' * 999}": 1}), 1)
    target = f"{TITLE}\n" + "x" * 999
    frontend.output(frame("comm_open", comm_id="c", target_name=target, data={}), 1)
    texts = [text for held in frontend.held for text in (held.kind, held.reason)]
    for text in (*texts, *frontend.take_notes()):
        assert "\x1b" not in text
        assert "\n" not in text
        assert len(text) < 400


def test_a_note_is_given_once():
    frontend = Frontend()
    for comm_id in ("a", "b"):
        content = {"comm_id": comm_id, "target_name": "evil", "data": {}}
        assert frontend.output(frame("comm_open", **content), 1) is None
    notes = frontend.take_notes()
    assert len(notes) == 1
    assert "evil" in notes[0]
    assert frontend.take_notes() == []
    assert frontend.held[0].count == 2


def test_a_hostile_guest_cannot_make_notes_without_end():
    frontend = Frontend()
    for n in range(MAX_HELD + 50):
        content = {"comm_id": "a", "target_name": f"evil {n}", "data": {}}
        frontend.output(frame("comm_open", **content), 1)
    assert len(frontend.take_notes()) <= MAX_HELD
    assert len(frontend.held) == MAX_HELD


# -- widgets -------------------------------------------------------------------------------------


def test_a_widgets_html_and_outputs_are_filtered_as_displays_are():
    frontend = Frontend()
    shown = frontend.output(frame("comm_open", **widget("HTML", value=f"<b>x</b>{IMAGE}")), 1)
    assert "onerror" not in shown["data"]["state"]["value"].split("srcdoc")[0]
    assert frontend.held[0].kind == "widget HTML"

    outputs = [
        {"output_type": "stream", "name": "evil", "text": ["a", TITLE]},
        {"output_type": "error", **ERROR},
        {"output_type": "display_data", "data": {"text/html": IMAGE}, "metadata": {"isolated": 1}},
        {"output_type": "execute_result", "data": {"text/plain": "x"}, "execution_count": "evil"},
        {"output_type": "evil", "data": {"text/html": SCRIPT}},
        {"data": {"text/html": SCRIPT}},
        "text",
    ]
    opened = Frontend().output(frame("comm_open", **widget("Output", outputs=outputs)), 1)
    stream, error, display, result = opened["data"]["state"]["outputs"]
    assert stream == {"output_type": "stream", "name": "stdout", "text": "a␛]0;title␇"}
    assert error == {"output_type": "error", **SHOWN_ERROR}
    assert "onerror" not in json.dumps(display["data"]).split("srcdoc")[0]
    assert display["metadata"] == {}
    assert result["data"] == {"text/plain": "x"}
    assert result["execution_count"] is None


def test_a_widget_lives_from_its_opening_to_its_close():
    frontend = Frontend()
    update = frame("comm_msg", comm_id="a", data={"method": "update", "state": {"value": "x"}})
    assert frontend.output(update, 1) is None
    frontend.output(frame("comm_open", **widget("Text")), 1)
    shown = frontend.output(update, 2)
    assert shown["data"]["state"] == {"value": "x"}
    assert frontend.output(frame("comm_close", comm_id="a", data={"x": 1}), 2) == {
        "comm_id": "a", "data": {},
    }  # fmt: skip
    assert frontend.output(update, 3) is None


def test_a_view_of_a_refused_widget_says_why():
    frontend = Frontend()
    content = widget("Text")
    content["data"]["state"]["_model_module"] = "anywidget"
    assert frontend.output(frame("comm_open", **content), 1) is None
    view = {
        "application/vnd.jupyter.widget-view+json": {"model_id": "a"},
        "text/plain": "<a.B object>",
    }
    shown = frontend.output(frame("display_data", data=view), 1)
    assert list(shown["data"]) == ["text/plain"]
    assert "anywidget" in shown["data"]["text/plain"]
    comms = {c: {"target_name": t} for c, t in (("a", "jupyter.widget"), ("b", "jupyter.widget"),
                                                ("c", "evil"))}  # fmt: skip
    comms |= {TITLE: {"target_name": "jupyter.widget"}}
    assert frontend.comm_info_reply({"comms": comms})["comms"].keys() == {"b"}


@pytest.mark.parametrize("version", ["2.0.0", "2.1.0", "2"])
def test_a_widgets_protocol_is_said(version: str):
    metadata = {"version": version, "more": 1}
    opened = Frame("comm_open", widget("Text"), metadata=metadata)
    assert Frontend().metadata(opened) == {"version": version}
    assert Frontend().metadata(Frame("comm_msg", {}, metadata=metadata)) == {}
    assert Frontend().metadata(Frame("display_data", {}, metadata=metadata)) == {}


@pytest.mark.parametrize("version", ["1.0", "3.0.0", "", "2.x", None, ["2"], "2.0.0\n", "20"])
def test_a_widget_that_passes_is_one_that_the_front_end_makes(version: Any):
    """A page would refuse it for another version, keep what it had of this id, and believe of that
    what is said of this one."""
    opened = Frame("comm_open", widget("Text"), metadata={"version": version})
    assert Frontend().metadata(opened)["version"].split(".")[0] == "2"


# -- replies -------------------------------------------------------------------------------------


def test_an_execute_reply_is_filtered_in_all_its_parts():
    said = {
        "status": "ok",
        "user_expressions": {
            f"a{TITLE}": {
                "status": "ok",
                "data": {"text/plain": TITLE},
                "metadata": {"isolated": 1},
            },
            "b": {"status": "error", **ERROR},
            "c": "text",
            "d": {"data": {"text/html": SCRIPT}},
        },
        "payload": [
            {"source": "page", "data": {"text/plain": TITLE, "a/b": 1}, "start": 0},
            {"source": "set_next_input", "text": f"x{TITLE}", "replace": True},
            {"source": "evil"},
            {"source": "page"},
        ],
    }
    assert Frontend().execute_reply(said, 3) == {
        "status": "ok",
        "execution_count": 3,
        "user_expressions": {
            "a␛]0;title␇": {"status": "ok", "data": {"text/plain": "␛]0;title␇"}, "metadata": {}},
            "b": {"status": "error", **SHOWN_ERROR},
            "d": {"status": "error", "ename": "", "evalue": "", "traceback": []},
        },
        "payload": [
            {"source": "page", "data": {"text/plain": "␛]0;title␇"}, "start": 0},
            {"source": "set_next_input", "text": f"{MARK}x␛]0;title␇", "replace": True},
            {"source": "page"},
        ],
    }
    error = Frontend().execute_reply({"status": "error", **ERROR}, 3)
    assert {k: error[k] for k in SHOWN_ERROR} == SHOWN_ERROR


def test_a_cell_that_the_guest_has_written_is_marked_once():
    payload = [{"source": "set_next_input", "text": f"{MARK}x"}]
    reply = Frontend().execute_reply({"status": "ok", "payload": payload}, 1)
    assert reply["payload"] == payload
    trusted = [{"source": "set_next_input", "text": "x"}]
    reply = Frontend("trusted").execute_reply({"status": "ok", "payload": trusted}, 1)
    assert reply["payload"] == trusted


def test_a_completion_is_a_line_of_text():
    kinds = [
        {
            "start": 0,
            "end": 1,
            "text": "ab",
            "type": f"f{TITLE}",
            "signature": "()",
            "icon": SCRIPT,
        },
        {"start": "0", "end": True, "text": "ac"},
        {"text": "a\n"},
        {"text": TITLE},
        {"start": 0},
        "text",
    ]
    said = {
        "status": "ok", "matches": ["ab", "a\nb", TITLE, "ac"], "cursor_start": 0, "cursor_end": 1,
        "metadata": {"_jupyter_types_experimental": kinds, "evil": 1},
    }  # fmt: skip
    reply = Frontend().complete_reply(said, 1)
    assert reply["matches"] == ["ab", "ac"]
    assert reply["metadata"] == {
        "_jupyter_types_experimental": [
            {"start": 0, "end": 1, "text": "ab", "type": "f␛]0;title␇", "signature": "()"},
            {"text": "ac"},
        ]
    }
    assert Frontend().complete_reply({"status": "ok", "metadata": {"x": 1}}, 1)["metadata"] == {}
    assert Frontend("trusted").complete_reply(said, 1)["metadata"] == said["metadata"]


def test_an_inspection_is_a_display():
    said = {"status": "ok", "found": True, "data": {"text/plain": TITLE, "text/html": IMAGE},
            "metadata": {"isolated": True}}  # fmt: skip
    reply = Frontend().inspect_reply(said)
    assert reply["data"]["text/plain"] == "␛]0;title␇"
    assert "onerror" not in reply["data"].get("text/html", "").split("srcdoc")[0]
    assert reply["metadata"] == {}
    assert Frontend("trusted").inspect_reply(said) == said


def test_an_indent_is_so_many_spaces():
    for indent, shown in (("    ", 4), (TITLE, len(TITLE)), ("x" * 999, 200), ("\n\n", 2)):
        reply = Frontend().is_complete_reply({"status": "incomplete", "indent": indent})
        assert reply == {"status": "incomplete", "indent": " " * shown}
    trusted = {"status": "incomplete", "indent": "\t"}
    assert Frontend("trusted").is_complete_reply(trusted) == trusted


def test_questions_and_history_are_texts():
    assert Frontend().prompt(f"\x1b[31mname\x1b[0m{TITLE}") == "\x1b[31mname\x1b[0m␛]0;title␇"
    assert Frontend("trusted").prompt(TITLE) == TITLE
    assert Frontend().prompt({"a": "\ud800"}) == "{'a': '?'}"
    row = (1, 2, f"x{TITLE}\x1b[31m\b\n")
    assert Frontend().history_row(row) == (1, 2, "x␛]0;title␇␛[31m␈\n")
    assert Frontend().history_row((1, 2, (TITLE, None))) == (1, 2, ("␛]0;title␇", None))
    assert Frontend("trusted").history_row(row) == row
    assert Frontend.text("\ud800x") == "?x"
    assert Frontend.note(f"a\x1b[31m{TITLE}") == "a␛[31m␛]0;title␇"


# -- whatever it is ------------------------------------------------------------------------------

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=9)
    | st.sampled_from([TITLE, IMAGE]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from([
            "data", "metadata", "transient", "display_id", "text/plain", "a/b", "state",
            "method", "comm_id", "target_name", "source", "payload", "text", "status", "traceback",
            "__proto__",
        ]),
        inner, max_size=4,
    ),
    max_leaves=10,
)  # fmt: skip
CONTENTS = st.dictionaries(
    st.sampled_from([
        "data", "metadata", "transient", "name", "text", "comm_id", "target_name", "status",
        "payload", "user_expressions", "matches", "indent", "traceback", "ename", "comms", "found",
    ]),
    JSON, max_size=6,
)  # fmt: skip


@pytest.mark.parametrize("mode", FRONTENDS)
@QUICK
@given(content=CONTENTS)
def test_whatever_is_said_can_be_sent(mode: str, content: dict[str, Any]):
    frontend = Frontend(mode)
    kinds = [kind for kind, _ in ACTING] + ["comm_close", "clear_output", "evil"]
    shown = [frontend.output(frame(kind, **content), 1) for kind in kinds]
    shown += [
        frontend.execute_reply(content, 1), frontend.complete_reply(content, 1),
        frontend.inspect_reply(content), frontend.is_complete_reply(content),
        frontend.comm_info_reply(content), frontend.report(), frontend.prompt(content),
    ]  # fmt: skip
    text = json.dumps(shown, allow_nan=False, ensure_ascii=False)
    text.encode()
    assert "__proto__" not in text or '"__proto__":' not in text
    if mode != "trusted":  # of what is shown: the id of a display is not
        seen = [{**part, "transient": 0} if isinstance(part, dict) else part for part in shown]
        assert "\\u001b]" not in json.dumps(seen)
    assert not any("could not be filtered" in held.reason for held in frontend.held)


@pytest.mark.parametrize("mode", ["isolated", "interactive", "text"])
@QUICK
@given(content=CONTENTS)
def test_twice_is_once(mode: str, content: dict[str, Any]):
    for kind in ("stream", "display_data", "execute_result", "error"):
        once = Frontend(mode).output(frame(kind, **content), 1)
        if once is not None:
            assert Frontend(mode).output(frame(kind, **once), 1) == once
    for reply in ("execute_reply", "complete_reply"):
        once = getattr(Frontend(mode), reply)(content, 1)
        assert getattr(Frontend(mode), reply)(once, 1) == once


@pytest.mark.parametrize("mode", FRONTENDS)
def test_nesting_is_no_way_out(mode: str):
    deep: Any = "x"
    for _ in range(900):
        deep = {"data": deep} if len(str(type(deep))) % 2 else [deep]
    mimes = ["text/html", "application/json", "application/vnd.plotly.v1+json",
             "application/vnd.vegalite.v5+json", "application/geo+json"]  # fmt: skip
    frontend = Frontend(mode)
    data: dict[str, Any] = {mime: {"data": [deep], "layout": {"a": deep}} for mime in mimes}
    frontend.output(frame("display_data", data=data, metadata=data), 1)
    frontend.output(frame("comm_open", **widget("Output", outputs=[deep], layout=deep)), 1)
    frontend.execute_reply({"status": "ok", "user_expressions": {"a": {"data": data}}}, 1)
    frontend.inspect_reply({"status": "ok", "data": data})
    assert not any("could not be filtered" in held.reason for held in frontend.held)


def test_a_filter_that_fails_lets_nothing_pass(monkeypatch: pytest.MonkeyPatch):
    """By a fault of its own, which is made here; the other types of the bundle are shown."""

    def fails(value: object, hold: object) -> str:
        raise RuntimeError(f"{value}{hold}")

    monkeypatch.setitem(bundles.TEXTS, "text/markdown", fails)
    frontend = Frontend()
    shown = frontend.output(
        frame("display_data", data={"text/markdown": "b", "text/plain": "x"}), 1
    )
    assert shown is not None
    assert shown["data"] == {"text/plain": "x"}
    said = {"status": "ok", "found": True, "data": {"text/markdown": "b"}}
    (only,) = frontend.inspect_reply(said)["data"].values()
    assert only.startswith("[wasi-kernel] not shown: text/markdown could not be filtered")
    assert frontend.held[0].reason.startswith("could not be filtered")


def test_a_comm_that_the_front_end_has_opened_may_be_answered():
    content = widget("Controller")
    state = content["data"]["state"]
    update = {"comm_id": content["comm_id"], "data": {"method": "update", "state": {"value": 1}}}
    silent = Frontend()
    assert silent.output(frame("comm_msg", **update), 1) is None
    frontend = Frontend()
    frontend.comm_opened(content)
    assert frontend.output(frame("comm_msg", **update), 1) is not None
    for wrong in ({}, {"comm_id": 1}, {**content, "target_name": "evil"}, {**content, "data": 3}):
        other = Frontend()
        other.comm_opened(wrong)
        assert other.output(frame("comm_msg", **update), 1) is None
    assert state["_model_name"] == "ControllerModel"


def test_an_update_of_what_the_page_has_not_is_left_out_in_silence():
    """As after an undo of the cell that closed it."""
    frontend = Frontend()
    content = widget("Text")
    frontend.output(frame("comm_open", **content), 1)
    frontend.output(frame("comm_close", comm_id=content["comm_id"], data={}), 1)
    update = {"comm_id": content["comm_id"], "data": {"method": "update", "state": {"value": "x"}}}
    assert frontend.output(frame("comm_msg", **update), 1) is None
    assert frontend.take_notes() == []
    assert "page has not" in frontend.held[-1].reason
