"""Shows that of a guest's comms only ipywidgets' core widgets pass, and nothing of them acts.

Here HTML and outputs are cleaned by stand-ins that say so; what the real ones do is shown in
test_markup.py and test_frontend.py.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wasi_kernel.filters.widgets import (
    BASE,
    CONTROLS,
    MAX_REFUSED,
    MODELS,
    OUTPUT,
    TARGET,
    VERSIONS,
    Widgets,
)

QUICK = settings(max_examples=100, deadline=None)

SCRIPT = "<img src=x onerror=top.canary()>"


class Session:
    """The widgets of a session, and what was held back in it."""

    def __init__(self, **limits: int) -> None:
        self.held: list[str] = []
        self.widgets = Widgets(
            lambda value: f"cleaned {len(value)}" if "<" in value else value,
            lambda output: {"cleaned": len(output)} if "output_type" in output else None,
            self.held.append,
            **limits,
        )

    def open(self, name: str = "Text", comm_id: str = "a", **traits: Any) -> dict[str, Any] | None:
        """The state that a front end gets of a new widget, None if it gets none."""
        return self.send_open(state(name, **traits), comm_id=comm_id)

    def send_open(
        self,
        given: Any,
        *,
        comm_id: str = "a",
        target: Any = TARGET,
        paths: Any = (),
        buffers: int = 0,
    ) -> dict[str, Any] | None:
        data = {"state": given, "buffer_paths": list(paths)}
        content = {"comm_id": comm_id, "target_name": target, "data": data}
        shown = self.widgets.open(content, buffers)
        if shown is None:
            return None
        assert shown["comm_id"] == comm_id
        assert shown["target_name"] == TARGET
        return shown["data"]["state"]

    def update(
        self, comm_id: str = "a", *, method: str = "update", buffers: int = 0, **traits: Any
    ) -> dict[str, Any] | None:
        return self.say(comm_id, buffers, method=method, state=traits)

    def say(self, comm_id: str, buffers: int = 0, **data: Any) -> dict[str, Any] | None:
        shown = self.widgets.message({"comm_id": comm_id, "data": data}, buffers)
        return None if shown is None else shown["data"]

    def states(self, **states: dict[str, Any]) -> dict[str, Any] | None:
        """What a front end gets that has asked for all states."""
        about = {comm_id: {"state": given} for comm_id, given in states.items()}
        shown = self.say("control", method="update_states", states=about, buffer_paths=[])
        return None if shown is None else shown["states"]


def state(name: str, **traits: Any) -> dict[str, Any]:
    """A widget's whole state, as ipywidgets sends it."""
    module = next(m for m, model in MODELS if model == f"{name}Model")
    view_module, view = MODELS[module, f"{name}Model"]
    return {
        "_model_module": module, "_model_module_version": VERSIONS[module],
        "_model_name": f"{name}Model", "_view_module": view_module,
        "_view_module_version": VERSIONS[view_module], "_view_name": view, **traits,
    }  # fmt: skip


def clean(name: str, **traits: Any) -> dict[str, Any]:
    """The given traits as a front end gets them."""
    shown = Session().open(name, **traits)
    assert shown is not None
    return {key: shown[key] for key in traits if key in shown}


# -- which comms are widgets ---------------------------------------------------------------------


@pytest.mark.parametrize(("module", "model"), MODELS)
def test_every_core_widget_opens_and_can_be_updated(module: str, model: str):
    session = Session()
    name = model.removesuffix("Model")
    assert session.open(name) == state(name)
    assert session.update(tabbable=None) == {
        "method": "update", "state": {"tabbable": None}, "buffer_paths": [],
    }  # fmt: skip
    assert session.held == []


def test_another_target_is_none():
    session = Session()
    for target in ("evil", "jupyter.widget.control", None, [], 1):
        assert session.send_open(state("Text"), target=target) is None
    assert len(session.held) == 5
    assert "target" in session.widgets.refusal("a")


@pytest.mark.parametrize(
    "changed",
    [
        {"_model_module": "anywidget", "_view_module": "anywidget"},
        {"_model_module": "https://canary.invalid/x.js"},
        {"_model_name": "DOMWidgetModel"},
        {"_model_name": "constructor"},
        {"_model_name": ["TextModel"]},
        {"_model_name": None},
        {"_view_name": "HTMLView"},
        {"_view_name": SCRIPT},
        {"_view_module": "anywidget"},
        {"_view_module": [CONTROLS]},
        {"_view_module": None},
        {"_model_module_version": "1.5.0"},
        {"_model_module_version": "*"},
        {"_model_module_version": []},
        {"_model_module_version": {}},
        {"_view_module_version": None},
        {"_view_module_version": "2.0.0 || 9"},
    ],
)
def test_another_model_view_or_version_is_none(changed: dict[str, Any]):
    session = Session()
    assert session.send_open({**state("Text"), **changed}) is None
    assert session.widgets.refusal("a").endswith("refused")
    assert session.states(a={**state("Text"), **changed}) == {}
    assert session.say("a", method="update", state={**state("Text"), **changed}) is None


def test_a_state_that_is_none_is_refused():
    for wrong in (None, [], "text", {}):
        assert Session().send_open(wrong) is None
    assert Session().widgets.message({"comm_id": "a", "data": {}}, 0) is None


def test_an_id_that_is_taken_or_none_is_refused():
    session = Session()
    assert session.open("Text", "a") is not None
    assert session.open("HTML", "a", value="x") is None
    for comm_id in ("", "a b", "x" * 129, "__proto__", "constructor", "prototype", "<b>"):
        assert session.open("Text", comm_id) is None
        assert session.states(**{comm_id: state("Text")}) == {}
        assert session.say(comm_id, method="update", state=state("Text")) is None
        assert session.say(comm_id, method="update_states", states={}, buffer_paths=[]) is None
        assert session.widgets.close({"comm_id": comm_id, "data": {}}) is None
        assert session.widgets.refusal(comm_id)


def test_an_id_is_free_again_when_its_comm_is_closed():
    session = Session()
    session.open("Text")
    assert session.widgets.close({"comm_id": "a", "data": {"evil": 1}}) == {
        "comm_id": "a", "data": {},
    }  # fmt: skip
    assert session.update(value=SCRIPT) is None
    assert session.open("HTML", value=SCRIPT)["value"] == "cleaned 32"


def test_what_was_refused_may_be_said_better():
    session = Session()
    session.send_open({})
    assert session.widgets.refusal("a")
    assert session.open("Text") is not None
    assert session.widgets.refusal("a") == ""


def test_a_session_has_so_many_models():
    session = Session(most=3)
    opened = [session.open("Text", f"{n}") is not None for n in range(5)]
    assert opened == [True, True, True, False, False]
    assert session.states(new=state("Text")) == {}
    assert session.say("new", method="update", state=state("Text")) is None
    assert session.update("0", value="x") is not None
    session.widgets.close({"comm_id": "0"})
    assert session.open("Text", "new") is not None


def test_of_so_many_it_is_known_why_they_were_refused():
    session = Session()
    for n in range(MAX_REFUSED + 3):
        session.send_open({}, comm_id=f"r{n}")
    unknown = [n for n in range(MAX_REFUSED + 3) if not session.widgets.refusal(f"r{n}")]
    assert unknown == [0, 1, 2]


# -- traits --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["HTML", "HTMLMath"])
def test_html_is_cleaned_however_it_is_set(name: str):
    session = Session()
    assert session.open(name, value=SCRIPT)["value"] == "cleaned 32"
    for method in ("update", "echo_update"):
        assert session.update(value=SCRIPT, method=method)["state"] == {"value": "cleaned 32"}
    assert session.states(a=state(name, value=SCRIPT))["a"]["state"]["value"] == "cleaned 32"
    for value in ([SCRIPT], {"toString": SCRIPT}, 1):
        assert session.update(value=value)["state"] == {}
    assert session.update(value=None)["state"] == {"value": None}
    assert session.say("a", 1, method="update", state={}, buffer_paths=[["value"]]) is None


def test_descriptions_and_labels_are_typeset_without_macros_that_act():
    tex = "$\\href{javascript:top.canary()}{x}$ $\\frac12$"
    assert "\\href" not in clean("Label", value=tex)["value"]
    shown = clean("IntSlider", description=tex, description_allow_html=True)
    assert "\\href" not in shown["description"]
    assert "\\frac12" in shown["description"]
    assert shown["description_allow_html"] is False
    assert clean("Label", value=["$x$"]) == {}
    assert clean("IntSlider", description=["x"]) == {}


@pytest.mark.parametrize(
    "written", ["d", ".2f", ",.1%", "+.3e", "$,.2f", "_>10,.2f", "b", "", "~s", "^-9"]
)
def test_numbers_may_be_written_so(written: str):
    assert clean("FloatSlider", readout_format=written) == {"readout_format": written}
    assert clean("FloatsInput", format=written) == {"format": written}


@pytest.mark.parametrize("written", [SCRIPT, "<b>", "<<d", "url", ".999999f", ["d"], "d\n"])
def test_numbers_may_not_be_written_so(written: Any):
    """d3-format says of such what it was, and ErrorWidgetView writes that as HTML."""
    assert clean("FloatSlider", readout_format=written) == {}
    assert clean("FloatsInput", format=written) == {}


def test_classes_are_words_and_none_of_the_page():
    assert clean("Text", _dom_classes=["mine", "w-1/2", "md:flex"]) == {
        "_dom_classes": ["mine", "w-1/2", "md:flex"],
    }  # fmt: skip
    dressed = clean("Text", _dom_classes=["jp-Dialog", "a b", "", "<img/src=x>", "ok"])
    assert dressed == {"_dom_classes": ["a", "b", "ok"]}
    upon_the_page = ["Toastify__toast-container", "maplibregl-pseudo-fullscreen", "xterm-helpers"]
    assert clean("Text", _dom_classes=upon_the_page) == {"_dom_classes": []}
    for classes in ("jp-Dialog", [1], [["jp-Dialog"]], {"a": 1}):
        assert clean("Text", _dom_classes=classes) == {}


def test_icons_are_words_and_keep_their_places():
    assert clean("Button", icon="spin cog") == {"icon": "spin cog"}
    assert clean("FileUpload", icon="x\t<img\tsrc=x\tonerror=y>") == {"icon": "x"}
    assert clean("Button", icon=["x"]) == {}
    icons = ["plus", "", "<b>", "jp-Dialog", "minus"]
    assert clean("ToggleButtons", icons=icons) == {"icons": ["plus", "", "", "", "minus"]}


def test_styles_load_nothing():
    wide = {"width": "60%", "border_top": "1px solid red", "order": 1, "flex": None}
    assert clean("Layout", **wide) == wide
    for value in ("url(http://canary.invalid/)", "image-set('//x')", ["1px"], {"a": 1}):
        assert clean("Layout", width=value) == {}
        assert clean("HTMLStyle", background=value) == {}
        assert clean("Text", background=value) == {}, "a model that was one of a style"


@pytest.mark.parametrize("name", ["Image", "Audio", "Video"])
def test_media_are_data_that_no_tab_would_run(name: str):
    for written in ("png", "jpeg", "mp4", "ogg", "x-flv"):
        assert clean(name, format=written) == {"format": written}
    for written in ("url", "URL", "svg+xml", "x+xml", "png;text/html", "", ["url"]):
        assert clean(name, format=written) == {}
    session = Session()
    paths = [["value"]]
    assert session.send_open(state(name), paths=paths, buffers=1) is not None
    assert session.say("a", 1, method="update", state={}, buffer_paths=paths) is not None


def test_outputs_are_cleaned_one_by_one():
    outputs = [{"output_type": "stream"}, {"evil": 1}, "text"]
    assert clean("Output", outputs=outputs) == {"outputs": [{"cleaned": 1}]}
    assert clean("Output", outputs={"0": outputs[0]}) == {}
    assert clean("Text", outputs=outputs) == {"outputs": [{"cleaned": 1}]}
    assert clean("Output", msg_id="x-1") == {"msg_id": "x-1"}


def test_what_does_not_act_is_not_touched():
    traits = {
        "value": "a <b> \\href{x}{y}", "placeholder": '"q"', "tooltip": "<t>", "options": ["<o>"],
        "_options_labels": ["<o>"], "titles": ["<t>"], "layout": "IPY_MODEL_b", "children": [],
        "_view_count": None, "accept": ".txt, image/*", "continuous_update": True,
    }  # fmt: skip
    session = Session()
    assert session.open("Text", **traits) == state("Text", **traits)
    assert session.update(**traits)["state"] == traits
    assert session.held == []


# -- links in the browser ------------------------------------------------------------------------


def linked(source: Any, target: Any, *, kind: str = "Link") -> tuple[bool, bool]:
    """Do the ends pass of a link between these? There are a text, a slider and one of each kind."""
    session = Session()
    for name in ("Text", "IntSlider", "HTML", "Image", "Output", "ButtonStyle", "Layout"):
        session.open(name, name.lower())
    shown = session.open(kind, "link", source=source, target=target)
    assert shown is not None
    again = session.update("link", source=source, target=target)
    assert {k: v for k, v in shown.items() if not k.startswith("_")} == again["state"]
    return "source" in shown, "target" in shown


@pytest.mark.parametrize("kind", ["Link", "DirectionalLink"])
def test_values_may_be_linked(kind: str):
    ends = [["IPY_MODEL_text", "value"], ["IPY_MODEL_intslider", "max"]]
    assert linked(*ends, kind=kind) == (True, True)
    assert linked(ends[0], ["IPY_MODEL_buttonstyle", "button_color"]) == (True, True)


@pytest.mark.parametrize(
    "end",
    [
        ["IPY_MODEL_html", "value"],
        ["IPY_MODEL_image", "value"],
        ["IPY_MODEL_output", "outputs"],
        ["IPY_MODEL_text", "_dom_classes"],
        ["IPY_MODEL_text", "readout_format"],
        ["IPY_MODEL_text", "_view_name"],
        ["IPY_MODEL_text", "__proto__"],
        ["IPY_MODEL_layout", "width"],
        ["IPY_MODEL_link", "source"],
        ["IPY_MODEL_none", "value"],
        [["IPY_MODEL_text"], "value"],
        ["IPY_MODEL_text", ["value"]],
        ["IPY_MODEL_text"],
        "IPY_MODEL_text",
        {"0": "IPY_MODEL_text", "1": "value"},
    ],
)
def test_what_is_cleaned_may_not_be_linked(end: Any):
    fine = ["IPY_MODEL_text", "value"]
    assert linked(fine, end) == (True, False)
    assert linked(end, fine) == (False, True)


# -- messages ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "traits",
    [
        {"_view_name": "HTMLView"},
        {"_view_module": "anywidget"},
        {"_model_name": "HTMLModel"},
        {"_view_module_version": "9"},
        state("HTML", value=SCRIPT),
    ],
)
def test_a_model_stays_what_it_is(traits: dict[str, Any]):
    session = Session()
    session.open("Text")
    assert session.update(**traits) is None
    assert session.states(a=state("HTML")) == {}
    assert session.update(value=SCRIPT)["state"] == {"value": SCRIPT}


def test_of_custom_messages_only_the_focus_passes():
    session = Session()
    session.open("Text")
    for does in ("focus", "blur"):
        said = session.say("a", method="custom", content={"do": does, "more": 1})
        assert said == {"method": "custom", "content": {"do": does}}
    for content in ({"do": "eval"}, {}, "focus", None, ["do"]):
        assert session.say("a", method="custom", content=content) is None
    assert session.say("b", method="custom", content={"do": "focus"}) is None
    assert session.say("a", 1, method="custom", content={"do": "focus"}) is None


def test_other_methods_are_none():
    session = Session()
    session.open("Text")
    for method in ("evil", None, [], {}, "request_state"):
        assert session.say("a", method=method, state={}) is None
    assert len(session.held) == 5


def test_what_is_said_on_a_refused_comm_is_not_told_again():
    session = Session()
    session.send_open({})
    told = len(session.held)
    assert session.update(value=1) is None
    assert len(session.held) == told


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ({}, ["_view_module"]),
        ({}, ["_dom_classes"]),
        ({}, ["description"]),
        ({}, ["icon"]),
        ({}, ["format"]),
        ({}, ["outputs"]),
        ({"x": {}}, ["x", "__proto__"]),
        ({"x": {}}, ["x", "constructor"]),
        ({"x": {}}, ["x", "constructor", "prototype", "y"]),
        ({"x": "text"}, ["x", "y"]),
        ({"x": []}, ["x", 1]),
        ({"x": []}, ["x", -1]),
        ({"x": []}, ["x", "length"]),
        ({"x": [[]]}, ["x", True, 0]),
        ({}, ["x", "y"]),
        ({}, []),
        ({}, "value"),
        ({}, None),
        ({}, [1]),
        ({}, [["value"]]),
    ],
)
def test_buffers_have_their_place(given: dict[str, Any], path: Any):
    session = Session()
    whole = state("Text", **given)
    assert session.send_open(whole, paths=[path], buffers=1) is None
    assert session.open("Text") is not None
    assert session.say("a", 1, method="update", state=given, buffer_paths=[path]) is None
    moved = [["a", "state", *path]] if isinstance(path, list) else [path]
    about = {"a": {"state": whole}}
    said = session.say("c", 1, method="update_states", states=about, buffer_paths=moved)
    assert said is None or said["states"] == {}


def test_buffers_pass_where_widgets_have_them():
    session = Session()
    given = state("FileUpload", value=[{"name": "a.txt"}])
    paths = [["value", 0, "content"]]
    assert session.send_open(given, paths=paths, buffers=1) == given
    for count in (0, 2):
        assert session.send_open(given, comm_id="b", paths=paths, buffers=count) is None


# -- after a reload ------------------------------------------------------------------------------


def test_all_states_come_back_as_they_were():
    """Also links whose ends follow them, in a session that has just been taken up again."""
    for session in (Session(), opened := Session()):
        given = {
            "link": state("Link", source=["IPY_MODEL_t", "value"], target=["IPY_MODEL_s", "max"]),
            "t": state("Text", value="a < b"),
            "s": state("IntSlider", value=3),
        }
        if session is opened:
            for comm_id in ("t", "s", "link"):
                session.send_open(given[comm_id], comm_id=comm_id)
        shown = session.states(**given)
        assert {comm_id: about["state"] for comm_id, about in shown.items()} == given
        assert shown["t"]["model_name"] == "TextModel"
        assert shown["t"]["model_module"] == CONTROLS
        assert shown["t"]["model_module_version"] == "2.0.0"
        assert session.held == []


def test_one_state_comes_back_as_it_was():
    session = Session()
    given = state("Text", value=SCRIPT)
    said = session.say("a", method="update", state=given, buffer_paths=[])
    assert said == {"method": "update", "state": given, "buffer_paths": []}
    assert session.update(value="x")["state"] == {"value": "x"}


def test_a_page_that_has_another_model_of_this_id_gets_nothing_that_acts_there():
    """The page may have kept an HTML model of a guest before, and sets the state on that."""
    session = Session()
    shown = session.states(a=state("Text", value=SCRIPT), b=state("HTML"))
    assert "value" not in shown["a"]["state"]
    assert shown["b"]["state"]["value"] == "", "it may have kept a text that is no HTML"
    session.open("Text", "c")
    assert session.states(c=state("Text", value=SCRIPT))["c"]["state"]["value"] == SCRIPT


def test_buffers_of_states_that_are_refused_keep_their_number():
    session = Session()
    about = {"a": {"state": state("HTML")}, "b": {"state": state("Image")}}
    paths = [["a", "state", "value"], ["b", "state", "value"]]
    said = session.say("c", 2, method="update_states", states=about, buffer_paths=paths)
    assert list(said["states"]) == ["b"]
    assert said["buffer_paths"] == [["-"], ["b", "state", "value"]]
    astray = [["b", "model_name"], ["b", "state", "value"]]
    assert session.say("c", 2, method="update_states", states=about, buffer_paths=astray) == {
        "method": "update_states", "buffer_paths": [["-"], ["-"]],
        "states": {"a": {
            "model_name": "HTMLModel", "model_module": CONTROLS, "model_module_version": "2.0.0",
            "state": {**state("HTML"), "value": ""},
        }},
    }  # fmt: skip


def test_states_are_none_that_are_not_a_dictionary():
    session = Session()
    for states in (None, [], "x"):
        assert session.say("c", method="update_states", states=states) is None
    assert session.states(a=None) == {}  # type: ignore[arg-type]
    session.open("Text")
    assert session.say("a", method="update_states", states={}) is None, "on a widget's own comm"


def test_what_the_front_end_opens_may_be_answered():
    """A Controller's view makes the models of its buttons and axes."""
    session = Session()
    assert session.update(value=1.0) is None
    about = {"comm_id": "a", "target_name": TARGET, "data": {"state": state("ControllerAxis")}}
    session.widgets.opened(about)
    assert session.update(value=1.0) is not None
    session.widgets.opened({**about, "data": {"state": state("HTML")}})
    assert session.update(value=SCRIPT)["state"] == {"value": SCRIPT}, "it stays what it is"
    for wrong in ({}, {"comm_id": []}, {**about, "comm_id": "b", "target_name": "evil"}):
        session.widgets.opened(wrong)
    assert session.update("b", value=1.0) is None


# -- whatever it is ------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from([SCRIPT]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from([
            "state", "states", "value", "method", "buffer_paths", "a", "_model_name",
            "_model_module", "_view_name", "source", "icons", "outputs", "content", "do",
        ]),
        inner, max_size=5,
    ),
    max_leaves=12,
)  # fmt: skip


@QUICK
@given(st.dictionaries(st.sampled_from(["method", "state", "states", "buffer_paths"]), JSON))
def test_whatever_is_said_is_answered_or_refused(data: dict[str, Any]):
    session = Session()
    session.open("HTML", value="x")
    for method in (data.get("method"), "update", "update_states", "custom"):
        for comm_id in ("a", "b"):
            said = {**data, "method": method}
            shown = session.widgets.message({"comm_id": comm_id, "data": said}, 0)
            if shown is not None and method == "update":
                assert SCRIPT not in str(shown["data"]["state"].get("value"))
    session.widgets.open({"comm_id": "c", "target_name": TARGET, "data": data}, 0)


@QUICK
@given(JSON)
def test_whatever_a_trait_is_set_to_twice_is_once(value: Any):
    for name in ("HTML", "Output", "Layout", "Link", "ToggleButtons", "Image"):
        for trait in ("value", "icon", "icons", "_dom_classes", "width", "outputs", "source"):
            session = Session()
            once = session.open(name, **{trait: value})
            again = Session().send_open(once)
            if trait != "outputs" and not (trait == "value" and name == "HTML"):
                assert again == once


def test_the_table_of_versions_is_that_of_the_modules():
    assert VERSIONS.keys() == {BASE, CONTROLS, OUTPUT} == {module for module, _ in MODELS}
