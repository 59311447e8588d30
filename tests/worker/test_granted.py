"""Shows what a look at the granted folders tells, and what it does not.

Real folders and counts; whatever a guest may put into its question is answered or refused.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from wasi_kernel.frames import Frame
from wasi_kernel.policy import Limits
from wasi_kernel.worker import granted
from wasi_kernel.worker.looks import Looks
from wasi_kernel.worker.preopens import Preopen
from wasi_kernel.worker.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def usage(tmp_path: Path) -> Iterator[Usage]:
    for name in ("mine", "gone", "given", "root"):
        (tmp_path / name).mkdir()
    writable = [str(tmp_path / "mine"), str(tmp_path / "gone")]
    found = Usage(Limits(), writable, tmp_path / "usage")
    yield found
    found.close()


@pytest.fixture
def looks(tmp_path: Path, usage: Usage) -> Looks:
    preopens = (
        Preopen(str(tmp_path / "given"), "/given", writable=False),
        Preopen(str(tmp_path / "mine"), "/mine", writable=True),
        Preopen(str(tmp_path / "gone"), "/gone", writable=True),
        Preopen(str(tmp_path / "root"), "/", writable=False),
    )
    return Looks({"grants": granted.look(preopens, usage, lambda: ("/gone",))})


def asked(looks: Looks, **question: object) -> dict[str, object]:
    return looks.answer(Frame("look_request", {"op": "grants", **question}, 1)).content


def test_each_folder_but_the_root_has_a_row(looks):
    assert asked(looks) == {
        "status": "ok",
        "folders": [
            {"guest_path": "/given", "there": True, "writable": False},
            {"guest_path": "/mine", "there": True, "writable": True},
            {"guest_path": "/gone", "there": False, "writable": False},
        ],
    }


def test_what_changed_is_counted_where_it_was(looks, tmp_path):
    (tmp_path / "mine" / "deep").mkdir()
    (tmp_path / "mine" / "deep" / "file").write_bytes(bytes(100))
    (tmp_path / "mine" / "link").symlink_to(tmp_path)
    (tmp_path / "gone" / "file").write_bytes(bytes(50))
    rows = {row["guest_path"]: row for row in asked(looks, measure=True)["folders"]}
    assert (rows["/mine"]["bytes"], rows["/mine"]["entries"]) == (100, 3)
    for path in ("/given", "/gone"):
        assert rows[path]["bytes"] is rows[path]["entries"] is None


def test_a_folder_that_cannot_be_measured_is_not_known(looks, tmp_path):
    (tmp_path / "mine").rmdir()
    (tmp_path / "mine").write_text("a file")
    rows = {row["guest_path"]: row for row in asked(looks, measure=True)["folders"]}
    assert rows["/mine"]["bytes"] is None


@pytest.mark.parametrize("measure", [1, "yes", None, [], {}])
def test_a_question_of_another_form_is_refused(looks, measure):
    said = asked(looks, measure=measure)
    assert said == {"status": "error", "evalue": "measure is neither true nor false"}


def test_no_host_path_is_told(looks, tmp_path):
    (tmp_path / "mine" / "secret-name").write_text("")
    assert str(tmp_path) not in json.dumps(asked(looks, measure=True))
    assert "secret-name" not in json.dumps(asked(looks, measure=True))
