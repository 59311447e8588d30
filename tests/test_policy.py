"""Shows that a policy refuses what cannot be granted, and that the refusal says what may be."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from wasi_kernel.errors import PolicyError
from wasi_kernel.policy import (
    CONFINES,
    FRONTENDS,
    HOME,
    MIB,
    PRELOAD,
    RESERVED,
    TMP,
    WORK,
    Grant,
    Limits,
    Policy,
)


def refused(**data: Any) -> PolicyError:
    """The refusal of a policy read from data, as a worker or a file gives it."""
    with pytest.raises(PolicyError) as caught:
        Policy.from_dict(data)
    error = caught.value
    assert error.key
    assert error.allowed
    assert error.key in str(error)
    assert error.allowed in str(error)
    return error


def test_the_default_grants_nothing_but_the_documented():
    policy = Policy()
    assert (policy.runtime, policy.work, policy.grants, policy.env) == (None, True, (), {})
    assert policy.preload == PRELOAD == ("numpy", "pandas", "matplotlib.pyplot")
    assert policy.limits == Limits()
    assert Limits().memory_bytes == 2048 * MIB


def test_a_policy_is_read_back_as_it_was():
    policy = Policy(
        runtime="/r", work=False, grants=(Grant("/h", "/data"), Grant("/i", "/more/in", True)),
        env={"A": "b", "É": "=é"}, preload=("json", "a.b"),
        limits=Limits(memory_bytes=256 * MIB, grace_s=1.5),
    )  # fmt: skip
    assert Policy.from_dict(json.loads(json.dumps(policy.to_dict()))) == policy
    assert Policy.from_dict({}) == Policy()


@pytest.mark.parametrize(
    "path",
    [
        "", "data", "./data", "/", "//", "//data", "/data/", "/a//b", "/a/./b", "/a/../b", "/..",
        "/a\0b",
    ],
)  # fmt: skip
def test_a_guest_path_must_be_absolute_and_plain(path: str):
    error = refused(grants=[{"host_path": "/h", "guest_path": path}])
    assert (error.key, error.value) == ("grants[0].guest_path", path)


@pytest.mark.parametrize("taken", [*RESERVED, WORK])
def test_a_guest_path_apart_from_what_a_session_provides(taken: str):
    above = taken.rpartition("/")[0] or taken + "/below"
    others = {each for each in RESERVED if each.startswith(above + "/")}  # that lie there as well
    for path in (above, taken + "/below", *([taken] if taken != WORK else [])):
        error = refused(grants=[{"host_path": "/h", "guest_path": path}])
        assert (error.key, error.value) == ("grants[0].guest_path", path)
        assert any(f"apart from {each}," in error.allowed for each in others | {taken})
    Policy(grants=(Grant("/h", taken + "-beside"),))


def test_what_a_session_provides_is_reserved():
    assert {TMP, HOME} < set(RESERVED)


@pytest.mark.parametrize(("first", "second"), [("/a", "/a"), ("/a", "/a/b"), ("/a/b", "/a")])
def test_grants_do_not_lie_in_each_other(first: str, second: str):
    error = refused(grants=[
        {"host_path": "/h", "guest_path": "/other"}, {"host_path": "/h", "guest_path": first},
        {"host_path": "/h", "guest_path": second},
    ])  # fmt: skip
    assert (error.key, error.value) == ("grants[2].guest_path", second)
    assert first in error.allowed


def test_a_host_path_has_no_nul():
    assert refused(grants=[{"host_path": "/h\0", "guest_path": "/a"}]).key.startswith("grants[0].")


@pytest.mark.parametrize("path", ["", "data", "./data", "~/data"])
def test_a_host_path_must_be_absolute(path: str):
    error = refused(grants=[{"host_path": path, "guest_path": "/a"}])
    assert (error.key, error.value) == ("grants[0].host_path", path)


@pytest.mark.parametrize(
    ("name", "value"), [("", "x"), ("A=B", "x"), ("A\0", "x"), ("A", "x\0"), ("=", "")]
)
def test_an_environment_variable_has_a_name_and_no_nul(name: str, value: str):
    error = refused(env={name: value})
    assert (error.key, error.value) == (f"env.{name}", value)


@pytest.mark.parametrize("module", ["", "a b", "a.", ".a", "a..b", "1a", "a;b", "a-b", "a\n"])
def test_a_preloaded_module_has_a_dotted_name(module: str):
    error = refused(preload=["json", module])
    assert (error.key, error.value) == ("preload[1]", module)


def test_the_front_end_is_isolated_unless_said_otherwise():
    assert Policy().frontend == "isolated"
    assert Policy().frontend_mimes == ()
    given = Policy(frontend="text", frontend_mimes=("application/vnd.x.v1+json",))
    assert Policy.from_dict(given.to_dict()) == given


@pytest.mark.parametrize("value", ["", "Auto", "on", None, True, ["off"]])
def test_there_are_three_ways_to_confine(value: object):
    assert Policy().confine == "auto"
    assert Policy.from_dict(Policy(confine="require").to_dict()).confine == "require"
    error = refused(confine=value)
    assert (error.key, error.value) == ("confine", value)
    assert all(name in error.allowed for name in CONFINES)


@pytest.mark.parametrize("value", ["", "Isolated", "open", None, True, ["text"]])
def test_there_are_three_kinds_of_front_end(value: object):
    error = refused(frontend=value)
    assert (error.key, error.value) == ("frontend", value)
    assert all(name in error.allowed for name in FRONTENDS)


@pytest.mark.parametrize(
    "mime",
    ["", "text", "text/", "Text/X", "text/x y", "text/x\n", "text/html", "image/svg+xml",
     "application/javascript", "text/javascript"],
)  # fmt: skip
def test_further_types_are_types_and_run_nothing(mime: str):
    error = refused(frontend_mimes=["application/x-ok", mime])
    assert (error.key, error.value) == ("frontend_mimes[1]", mime)


@pytest.mark.parametrize("value", ["application/x-ok", None, [1]])
def test_further_types_are_a_list_of_texts(value: object):
    assert refused(frontend_mimes=value).key.startswith("frontend_mimes")


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("memory_bytes", 128 * MIB, 4096 * MIB),
        ("stack_bytes", MIB, 512 * MIB),
        ("output_bytes", 1024, 4096 * MIB),
        ("message_bytes", 1024, 256 * MIB),
        ("grace_s", 0.05, 3600),
    ],
)
def test_a_limit_lies_within_its_bounds(name: str, low: float, high: float):
    for value in (low, high):
        assert getattr(Policy.from_dict({"limits": {name: value}}).limits, name) == value
    for value in (low - 0.01, high + 1, 0, -1, -low, math.nan, math.inf, -math.inf):
        error = refused(limits={name: value})
        assert error.key == f"limits.{name}"
        assert error.value is value
        assert str(low) in error.allowed


@pytest.mark.parametrize("data", [None, [], "text", 1])
def test_a_policy_is_read_from_an_object(data: Any):
    with pytest.raises(PolicyError) as caught:
        Policy.from_dict(data)
    assert caught.value.value is data


@pytest.mark.parametrize(
    ("wrong", "key"),
    [
        ({"grants": ({"host_path": "/h", "guest_path": "/a"},)}, "grants[0]"),
        ({"grants": (Grant("/h", "/a"), Grant("h", "/b"))}, "grants[1].host_path"),
        ({"limits": {"grace_s": 1}}, "limits"),
        ({"preload": "json"}, "preload"),
        ({"env": {1: "a"}}, "env.1"),
    ],
)
def test_a_policy_made_without_from_dict_is_checked_too(wrong: dict[str, Any], key: str):
    with pytest.raises(PolicyError) as caught:
        Policy(**wrong)
    assert caught.value.key == key


@pytest.mark.parametrize("name", ["memory_bytes", "stack_bytes", "output_bytes", "message_bytes"])
@pytest.mark.parametrize("value", ["1 GiB", None, [], True, 200 * MIB + 0.5])
def test_a_size_is_a_whole_number(name: str, value: object):
    error = refused(limits={name: value})
    assert (error.key, error.value) == (f"limits.{name}", value)


@pytest.mark.parametrize("value", ["1", None, True])
def test_the_grace_time_is_a_number(value: object):
    assert refused(limits={"grace_s": value}).key == "limits.grace_s"


@pytest.mark.parametrize(
    ("data", "key"),
    [
        ({"network": True}, "network"),
        ({"Grants": []}, "Grants"),
        ({"limits": {"cpu_s": 1}}, "limits.cpu_s"),
        ({"grants": [{"host_path": "/h", "guest_path": "/a", "write": True}]}, "grants[0].write"),
    ],
)
def test_an_unknown_key_is_refused_by_its_name(data: dict[str, Any], key: str):
    assert refused(**data).key == key


@pytest.mark.parametrize(
    ("data", "key"),
    [
        ({"grants": [{"host_path": "/h"}]}, "grants[0].guest_path"),
        ({"grants": [{"guest_path": "/a"}]}, "grants[0].host_path"),
        ({"grants": [{"host_path": 1, "guest_path": "/a"}]}, "grants[0].host_path"),
        ({"grants": [{"host_path": "/h", "guest_path": 1}]}, "grants[0].guest_path"),
        (
            {"grants": [{"host_path": "/h", "guest_path": "/a", "writable": "no"}]},
            "grants[0].writable",
        ),
        ({"grants": ["/h"]}, "grants[0]"),
        ({"grants": "/h"}, "grants"),
        ({"env": {"A": 1}}, "env.A"),
        ({"env": ["A"]}, "env"),
        ({"preload": "json"}, "preload"),
        ({"preload": [1]}, "preload[0]"),
        ({"limits": [1]}, "limits"),
        ({"runtime": 1}, "runtime"),
        ({"work": "no"}, "work"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_by_its_name(data: dict[str, Any], key: str):
    assert refused(**data).key == key


def test_all_that_is_wrong_is_said_at_once():
    error = refused(
        runtime=3, worc=True, grants=[{"host_path": "x", "guest_path": "/tmp"}],  # noqa: S108
        env={"A=": 1}, preload=["a b"], limits={"memory_bytes": 1, "memory": 2}, frontend="x",
        checkpoints={"cells": 0},
    )  # fmt: skip
    keys = [e.key for e in error.all]
    assert sorted(keys) == sorted([
        "worc", "limits.memory", "limits.memory_bytes", "checkpoints.cells", "runtime",
        "grants[0].host_path", "grants[0].guest_path", "env.A=", "env.A=", "preload[0]", "frontend",
    ])  # fmt: skip
    lines = str(error).splitlines()
    assert len(lines) == len(keys)
    assert all(f"policy: {key} = " in line for key, line in zip(keys, lines, strict=True))


def test_a_policy_made_in_python_says_all_of_it_too():
    with pytest.raises(PolicyError) as caught:
        Policy(
            work=1, frontend="x", grants=(Grant("a", "/b"), Grant("/c", "/b"), Grant("/d", "/b"))
        )
    assert [e.key for e in caught.value.all] == [
        "work", "grants[0].host_path", "grants[2].guest_path", "frontend",
    ]  # fmt: skip
