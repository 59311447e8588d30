"""Shows what a sweep of the cache removes, and what never: what runs, is installed, or is kept.

Most caches here are made of small files that are called like the real ones. The last tests use the
real cache and take nothing from it but what they have put there.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from wasi_kernel import Policy, Sandbox, caches, kernelspecs, launch, upkeep
from wasi_kernel.caches import Cache
from wasi_kernel.policy import CheckpointLimits
from wasi_kernel.sessionfile import Base

if TYPE_CHECKING:
    from collections.abc import Iterator

NOW = time.time()
DAY_S = 24 * 3600
SET = "0123456789abcdef" * 2


@pytest.fixture
def jupyter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This user's kernelspecs, for this test; no others are found."""
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "jupyter"))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "path"))
    return tmp_path / "jupyter" / "kernels"


class Made:
    """A cache that a test fills."""

    def __init__(self, folder: Path) -> None:
        self.cache = Cache(folder / "cache")
        self.prefix = folder / "env"
        self.prefix.mkdir()

    def file(
        self, kind: str, name: str, notes: dict[str, Any] | None = None, size: int = 10
    ) -> Path:
        path = self.cache.folder(kind) / name

        def write(new: Path) -> dict[str, Any]:
            new.write_bytes(b"x" * size)
            return notes or {}

        self.cache.store(path, write)
        return path

    def folder(self, kind: str, name: str) -> Path:
        path = self.cache.folder(kind) / name
        self.cache.make_folder(path, lambda new: (new / "file").write_text("content") and None)
        return path

    def plan(self, name: str, policy: Policy, *, days: float, **members: Path) -> Path:
        """A plan for `policy` that was used so many days ago; so were its members."""
        notes: dict[str, Any] = {key: str(path) for key, path in members.items()}
        notes["made_for"] = {**policy.image_facts, "prefix": str(self.prefix)}
        path = self.file("plans", name, notes)
        for each in (path, *members.values()):
            age(each, days)
        return path

    def whole(self, name: str, policy: Policy, *, days: float = 100) -> dict[str, Path]:
        """A plan and all that it names, of its own."""
        found = {
            "module": self.file("modules", f"{name}.cwasm"),
            "bundle": self.folder("bundles", name),
            "image": self.file("images", f"{name}.image"),
        }
        return {"plan": self.plan(name, policy, days=days, **found), **found}

    def swept(self) -> set[str]:
        """Names of what a sweep at this moment takes, as kind/name."""
        done = upkeep.remove(self.cache, lambda entries: upkeep.idle(entries, NOW))
        for entry in done.removed:
            assert not os.path.lexists(entry.path)
        return {f"{entry.kind}/{entry.path.name}" for entry in done.removed}


def age(path: Path, days: float) -> None:
    then = NOW - days * DAY_S
    for each in (path, path.with_name(f"{path.name}.seal")):
        if each.exists():
            os.utime(each, (then, then))


@pytest.fixture
def made(tmp_path: Path, jupyter: Path) -> Made:
    return Made(tmp_path)


OTHER = Policy(preload=("json",))


# -- what goes and what stays --------------------------------------------------------------------


def test_what_nobody_needs_goes_when_it_was_not_used_lately(made: Made):
    old, young = made.whole("old", OTHER, days=15), made.whole("young", OTHER, days=13)
    assert made.swept() == {f"{p.parent.name}/{p.name}" for p in old.values()}
    assert all(path.exists() for path in young.values())
    assert made.swept() == set()


def test_what_the_default_policy_starts_with_stays_for_ever(made: Made):
    whole = made.whole("default", Policy(), days=1000)
    assert made.swept() == set()
    assert all(path.exists() for path in whole.values())


def test_an_older_plan_for_the_same_policy_is_not_needed(made: Made):
    made.whole("now", Policy(), days=20)
    before = made.whole("before", Policy(), days=40)
    assert made.swept() == {f"{p.parent.name}/{p.name}" for p in before.values()}


def test_what_a_kernelspec_starts_with_stays(made: Made, jupyter: Path):
    policy = {"preload": ["json"], "grants": ["${NOT_SET_HERE}/data:/data"]}
    kernelspecs.install("one", "One", place=jupyter, policy=policy)
    meant = Policy.from_dict({
        "preload": ["json"], "grants": [{"host_path": "/data", "guest_path": "/data"}],
    })  # fmt: skip
    whole = made.whole("one", meant)
    entries = {e.path: e.needed_by for e in upkeep.survey(made.cache)}
    assert set(entries) == set(whole.values())
    assert set(entries.values()) == {("kernelspec one",)}
    assert made.swept() == set()
    kernelspecs.remove(kernelspecs.find("one"))
    assert len(made.swept()) == len(whole)


def test_kernelspecs_of_other_environments_are_looked_for_where_plans_were_made(made: Made):
    place = kernelspecs.prefix_place(made.prefix)
    kernelspecs.install("there", "There", place=place, policy={"preload": ["json"]})
    made.whole("there", OTHER)
    assert made.swept() == set()


def test_a_plan_of_an_environment_that_is_gone_is_not_needed(made: Made):
    whole = made.whole("default", Policy())
    made.prefix.rmdir()
    assert len(made.swept()) == len(whole)


def test_a_module_that_a_plan_in_use_names_was_used_with_it(made: Made):
    module, bundle = made.file("modules", "m.cwasm"), made.folder("bundles", "b")
    made.plan("p", OTHER, days=1, module=module, bundle=bundle)
    age(module, 100)
    age(bundle, 100)
    assert made.swept() == set()


def test_packages_stay_with_the_kernelspec_that_wants_them(made: Made, jupyter: Path):
    folder = made.cache.folder("packages")
    note = folder / "note.json"
    for name, wanted in ((SET, ["attrs>=23", "rich"]), ("f" * 32, ["attrs"])):
        (folder / name).mkdir()
        (folder / f"{name}.compiled").touch()
        (folder / f"{name[:4]}.json").write_text(
            json.dumps({"folder": name, "requirements": wanted})
        )
    (folder / f"{SET[:4]}.json").rename(note)
    for path in folder.iterdir():
        age(path, 100)
    kernelspecs.install("p", "P", place=jupyter, policy={"packages": ["rich", "attrs>=23"]})
    assert made.swept() == {f"packages/{'f' * 32}{end}" for end in ("", ".compiled")} | {
        "packages/ffff.json"
    }
    assert {p.name for p in folder.iterdir()} == {SET, f"{SET}.compiled", "note.json"}


def test_the_image_of_a_session_that_is_kept_stays(made: Made):
    image = made.file("images", "kept.image")
    age(image, 100)
    session = made.cache.folder("sessions", "abc")
    Base(str(image), "0" * 64, 10, {}, {}).store(session)
    assert made.swept() == set()
    (entry,) = upkeep.survey(made.cache)
    assert entry.needed_by == ("session abc",)


def test_what_nobody_needs_is_bounded_in_size_and_the_oldest_goes_first():
    def entry(name: str, days: float, **given: Any) -> upkeep.Entry:
        half = upkeep.SPARE_BYTES // 2
        return upkeep.Entry("images", Path(name), half, NOW - days * DAY_S, **given)

    entries = [entry("a", 1), entry("b", 3), entry("c", 2), entry("d", 9, needed_by=("x",))]
    assert [e.path.name for e in upkeep.idle(entries, NOW)] == ["b"]
    just_now = [entry("e", 0), entry("f", 0), entry("g", 0)]  # it is being put to use
    assert upkeep.idle(just_now, NOW) == []


def test_plans_go_before_what_they_name(made: Made):
    made.whole("old", OTHER)
    found = upkeep.idle(upkeep.survey(made.cache), NOW)
    assert [e.kind for e in found] == ["plans", "images", "bundles", "modules"]


def test_what_is_held_stays_as_long_as_its_process(made: Made):
    whole = made.whole("old", OTHER)
    code = (
        "import sys; from pathlib import Path; from wasi_kernel.caches import Cache\n"
        "cache = Cache(Path(sys.argv[1]))\n"
        "print(all(cache.hold(Path(p)) for p in sys.argv[2:]), flush=True); sys.stdin.read()"
    )
    argv = [sys.executable, "-c", code, str(made.cache.path), whole["image"], whole["bundle"]]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"True\n"
        done = upkeep.remove(made.cache, lambda entries: entries)  # whatever is to go
        assert {e.path for e, why in done.spared if why == upkeep.RUNNING} == {
            whole["image"], whole["bundle"],
        }  # fmt: skip
        assert (whole["bundle"] / "file").read_text() == "content"
        entries = {e.path: e for e in upkeep.survey(made.cache)}
        assert upkeep.RUNNING in entries[whole["image"]].needed_by
        holder.kill()
    assert len(made.swept()) == 2


def test_nothing_goes_while_another_process_makes_something(made: Made):
    whole = made.whole("old", OTHER)
    with made.cache.lock("prepare"):
        thread = upkeep.sweep_beside(made.cache.path)
        thread.join()
    assert all(path.exists() for path in whole.values())
    upkeep.sweep_beside(made.cache.path).join()
    assert not any(path.exists() for path in whole.values())


def test_a_sweep_of_a_cache_that_cannot_be_used_raises_nothing(tmp_path: Path):
    (tmp_path / "file").touch()
    upkeep.sweep(tmp_path / "file")
    upkeep.sweep(tmp_path / "file" / "below")


# -- damage --------------------------------------------------------------------------------------


def test_damaged_entries_go_and_do_not_stop_it(made: Made, tmp_path: Path):
    good = made.whole("good", Policy())
    changed = made.file("images", "changed.image")
    changed.write_bytes(b"something else")
    (made.cache.folder("images") / "unsealed.image").write_bytes(b"x")
    (made.cache.folder("images") / "alone.seal").write_bytes(b"{}")
    (made.cache.folder("images") / "folder.image").mkdir()
    (made.cache.folder("modules") / "link").symlink_to("/etc/hostname")
    os.mkfifo(made.cache.folder("plans") / "pipe")
    plan = made.file("plans", "nonsense", {"made_for": {"preload": 3}, "module": ["x"]})
    odd = {**Policy().image_facts, "prefix": "\0"}
    odd_plan = made.file("plans", "odd", {"made_for": odd, "packages": [], "bundle": "\0"})
    session = made.cache.folder("sessions", "odd")
    Base(3, "", 0, {}, {}).store(session)  # type: ignore[arg-type]
    (made.cache.folder("packages") / "note.json").write_text("no JSON")
    (made.cache.folder("packages") / "stray").mkdir()
    (made.cache.folder("bundles") / "file").touch()
    (made.cache.folder("sessions") / "file").touch()
    entries = upkeep.survey(made.cache)
    damaged = {e.path.name for e in entries if e.damaged}
    assert damaged == {
        "changed.image", "unsealed.image", "alone.seal", "folder.image", "link", "pipe",
        "note.json", "stray", "file",
    }  # fmt: skip
    done = upkeep.remove(made.cache, upkeep.useless)
    assert {e.path.name for e in done.removed} == damaged | {plan.name, odd_plan.name}
    assert done.spared == ()
    assert all(path.exists() for path in good.values())
    assert Path("/etc/hostname").exists()


def test_what_stands_in_a_folders_place_is_named(tmp_path: Path):
    cache = Cache(tmp_path / "cache")
    (cache.path / "images").write_text("a file")
    (cache.path / "modules").symlink_to(tmp_path)
    cache.folder("bundles")
    assert {p.name for p in upkeep.misplaced(cache.path)} == {"images", "modules"}


def test_a_removal_that_is_killed_leaves_no_half_folder(made: Made):
    """The folder has its name, and all that is in it, or it has no name any more."""
    bundle = made.cache.folder("bundles") / "b"

    def fill(new: Path) -> None:
        for k in range(50):
            (new / str(k)).touch()

    made.cache.make_folder(bundle, fill)
    code = (
        "import os, shutil, sys; from pathlib import Path; from wasi_kernel.caches import Cache\n"
        "unlink = os.unlink\n"
        "def dies(*args, **more):\n    unlink(*args, **more); os._exit(9)\n"
        "os.unlink = shutil.os.unlink = dies\n"
        "Cache(Path(sys.argv[1])).discard(Path(sys.argv[2]))"
    )
    argv = [sys.executable, "-c", code, str(made.cache.path), str(bundle)]
    assert subprocess.run(argv, check=False).returncode == 9
    assert not bundle.exists()
    (half,) = bundle.parent.iterdir()
    assert half.name.startswith(caches.NEW)
    assert len(list(half.iterdir())) == 49
    age(half, 1)
    made.swept()
    assert not half.exists()


def test_a_session_sweeps_what_killed_processes_left_half_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Else it would stay until something is prepared again, which may be never."""
    monkeypatch.setenv(caches.ENV, str(tmp_path / "cache"))
    cache = Cache()
    left, begun = (cache.folder("images") / f"{caches.NEW}{name}" for name in "ab")
    folder = cache.folder("bundles") / f"{caches.NEW}c"
    folder.mkdir()
    (folder / "agent.py").touch()
    for path in (left, begun):
        path.touch()
    for path in (left, folder):
        age(path, 1)
    session = launch.settings(Policy(), None)
    try:
        session.sweep()
        assert session.scratch.path.exists()
    finally:
        session.release()
    assert begun.exists()
    assert not left.exists()
    assert not folder.exists()


# -- with the real thing -------------------------------------------------------------------------


PRELOAD = ("colorsys", f"none_{secrets.token_hex(8)}")
"""What no other run preloads either: the cache may have images of other versions. A module that is
not there is passed over."""


@pytest.fixture(scope="module")
def idle_box() -> Iterator[tuple[Sandbox, Path]]:
    """A sandbox without a log, and its image, which no other test uses."""
    policy = Policy(preload=PRELOAD, checkpoints=CheckpointLimits(enabled=False))
    with Sandbox(policy) as box:
        box.run("x = 1")
        cache = Cache()
        plans = [e for e in upkeep.survey(cache) if e.kind == "plans"]
        notes = [cache.sealed_notes(e.path) or {} for e in plans]
        made_for = [(n["image"], n.get("made_for") or {}) for n in notes if "image" in n]
        (image,) = {image for image, facts in made_for if facts.get("preload") == [*PRELOAD]}
        yield box, Path(image)


def test_the_image_of_a_kernel_that_is_idle_for_hours_is_not_swept(
    idle_box: tuple[Sandbox, Path],
):
    box, image = idle_box
    cache = Cache()
    age(image, 100)

    done = upkeep.remove(cache, lambda entries: [e for e in entries if e.path == image])
    assert [(e.path, why) for e, why in done.spared] == [(image, upkeep.RUNNING)]
    assert box.run("x").text == "1"
    with Sandbox(Policy(preload=PRELOAD)) as other:  # it starts from that image
        assert other.run("1 + 1").text == "2"


def test_it_is_removed_when_nobody_uses_it_and_made_again(idle_box: tuple[Sandbox, Path]):
    box, image = idle_box
    box.close()
    cache = Cache()
    done = upkeep.remove(cache, lambda entries: [e for e in entries if e.path == image])
    assert [e.path for e in done.removed] == [image]
    with Sandbox(Policy(preload=PRELOAD)) as other:
        assert other.run("2 + 2").text == "4"
    assert image.exists()
    cache.discard(image)
