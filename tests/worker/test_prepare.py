"""Shows that what a start needs is made once, kept, and made again when it is not to be trusted.

The interpreters here are a few lines of WebAssembly that say what CPython would say.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import struct
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from wasmtime import wat2wasm

from wasi_kernel import environments, frames
from wasi_kernel.caches import Cache
from wasi_kernel.errors import InstallationError
from wasi_kernel.frames import Frame
from wasi_kernel.policy import MIB, Grant, Limits, Policy
from wasi_kernel.runtimes import Runtime
from wasi_kernel.worker import prepare
from wasi_kernel.worker.prepare import Preparation

if TYPE_CHECKING:
    from collections.abc import Callable

LIMITS = Limits(stack_bytes=MIB)  # tests run on the main thread, with its usual stack
POLICY = Policy(limits=LIMITS)
TRAY_AT, CAPACITY = 131_072, 1 << 20


def escaped(data: bytes) -> str:
    return "".join(f"\\{b:02x}" for b in data)


def say(data: bytes, fd: int, at: int) -> tuple[str, str]:
    """(data segments, code) that write `data` from address `at`."""
    iov = struct.pack("<II", at + 16, len(data))
    return (
        f'(data (i32.const {at}) "{escaped(iov)}") (data (i32.const {at + 16}) "{escaped(data)}")',
        f"(drop (call $fd_write (i32.const {fd}) (i32.const {at}) (i32.const 1) (i32.const 8)))",
    )


def command(text: bytes = b"python 3.15\n", status: int = 0) -> str:
    """A command build that prints `text` and exits, whatever it is told to run."""
    data, code = say(text, 1, 4096)
    return f"""{data} (func (export "_start") {code} (call $proc_exit (i32.const {status})))"""


def reactor(reply: dict[str, Any] | None = None) -> str:
    """A reactor that prints its version, and answers its boot after naming a tray.

    Told apart by the letter after "import " in the source.
    """
    version, print_version = say(b"python 3.15\n", 1, 4096)
    answer = frames.encode(Frame("boot_reply", {"status": "ok"} if reply is None else reply, 1))
    booted, print_answer = say(answer, 0, 5120)
    tray = struct.pack("<III", 0, 1, CAPACITY)
    iov = struct.pack("<II", TRAY_AT, 32 + CAPACITY)
    return f"""{version} {booted}
      (data (i32.const {TRAY_AT}) "{escaped(tray)}") (data (i32.const 16) "{escaped(iov)}")
      (func (export "host_alloc") (param i32) (result i32) (i32.const 65536))
      (func (export "shutdown"))
      (func (export "turn") (param i32 i32) (result i32)
        (if (i32.eq (i32.load8_u offset=7 (local.get 0)) (i32.const {ord("o")}))
          (then {print_version}))
        (if (i32.eq (i32.load8_u offset=7 (local.get 0)) (i32.const {ord("s")}))
          (then (drop (call $fd_write (i32.const 0) (i32.const 16) (i32.const 1) (i32.const 8)))
            {print_answer}))
        (i32.const 0))"""


@pytest.fixture
def own(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "own")


@pytest.fixture(autouse=True)
def small_bundle(monkeypatch: pytest.MonkeyPatch) -> None:
    """The agent alone: what else is in a bundle is the business of test_environments.py."""
    monkeypatch.setattr(environments, "ROOTS", ("comm",))


@pytest.fixture
def runtime(tmp_path: Path, wat: Callable) -> Callable[[str], Runtime]:
    """A runtime whose module is WebAssembly text."""

    def make(text: str, name: str = "small") -> Runtime:
        path = tmp_path / f"{name}.wasm"
        path.write_bytes(wat2wasm(wat(text, pages=20)))
        return Runtime(name, path, ())

    return make


class Steps:
    """A progress function: notes what was done."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def __call__(self, what: str, fraction: float | None, left_s: float | None) -> None:
        assert fraction is None or 0 <= fraction <= 1
        assert left_s is None or left_s > 0
        if what not in self.done:
            self.done.append(what)


COMPILING, ASKING, AGENT, IMAGE = (
    "compiling the runtime (once)", "asking the runtime for its version",
    "compiling the agent's Python files",
    "starting Python once, for the base image",
)  # fmt: skip


def preparation(cache: Cache, runtime: Runtime, policy: Policy, steps: Steps) -> Preparation:
    """A preparation with a session's folder of its own."""
    scratch = tempfile.mkdtemp(dir=cache.path.parent)
    return Preparation(cache, runtime, policy, Path(scratch), steps)


def made(cache: Cache, runtime: Runtime, policy: Policy = POLICY) -> tuple[prepare.Plan, list[str]]:
    """(plan, steps that were needed for it)."""
    steps = Steps()
    plan = preparation(cache, runtime, policy, steps).run()
    assert prepare.find_plan(cache, runtime, policy) == plan
    return plan, steps.done


# -- plans ---------------------------------------------------------------------------------------


def test_a_command_build_is_prepared_once(own: Cache, runtime: Callable):
    build = runtime(command())
    assert prepare.find_plan(own, build, POLICY) is None
    plan, steps = made(own, build)
    assert steps == [COMPILING, ASKING, AGENT]
    assert (plan.image, plan.python) == (None, "3.15")
    assert own.load(plan.module) is not None
    assert (plan.bundle / "wasi_agent" / "agent.py").is_file()
    assert made(own, build) == (plan, [])


def test_a_reactor_has_an_image_too(own: Cache, runtime: Callable):
    build = runtime(reactor())
    plan, steps = made(own, build)
    assert steps == [COMPILING, ASKING, AGENT, IMAGE]
    assert plan.image is not None
    notes = own.load(plan.image)
    assert notes is not None
    assert notes["bytes"] == plan.image.stat().st_size == 20 * 65536
    assert notes["tray"] == TRAY_AT
    assert (notes["interrupts"], prepare.words_of(notes)) == (False, {})
    assert made(own, build) == (plan, [])


@pytest.mark.parametrize("part", ["module", "image", "bundle"])
def test_what_is_gone_is_made_again(own: Cache, runtime: Callable, part: str):
    build = runtime(reactor())
    plan, _ = made(own, build)
    own.remove(getattr(plan, part))
    again, steps = made(own, build)
    assert again == plan
    assert {"module": COMPILING, "image": IMAGE, "bundle": AGENT}[part] in steps


@pytest.mark.parametrize("part", ["module", "image"])
def test_what_is_damaged_is_made_again(own: Cache, runtime: Callable, part: str):
    build = runtime(reactor())
    plan, _ = made(own, build)
    path = getattr(plan, part)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    again, steps = made(own, build)
    assert again == plan
    assert {"module": COMPILING, "image": IMAGE}[part] in steps
    assert own.load(path) is not None


def bundled(own: Cache, runtime: Callable) -> tuple[Runtime, Path]:
    """(a build that is prepared, its bundle)."""
    build = runtime(reactor())
    return build, made(own, build)[0].bundle


@pytest.mark.parametrize("damage", ["gone", "changed", "more", "cut", "listed"])
def test_a_bundle_that_is_damaged_is_made_again_when_it_is_asked_for(
    own: Cache, runtime: Callable, damage: str
):
    """As when a tidy program has removed what was not read for long."""
    build, bundle = bundled(own, runtime)
    path = bundle / "wasi_agent" / "agent.py"
    before = path.read_bytes()
    if damage == "gone":
        path.unlink()
    elif damage == "changed":
        path.write_bytes(before[::-1])
    elif damage == "cut":
        path.write_bytes(before[:100])
    elif damage == "more":
        (bundle / "sitecustomize.py").touch()
    else:
        (bundle / environments.CONTENTS).write_text("[" * 100_000)
    _, steps = made(own, build)
    assert AGENT in steps
    assert path.read_bytes() == before
    assert not (bundle / "sitecustomize.py").exists()
    assert made(own, build)[1] == []


def test_a_bundle_that_is_a_link_is_not_shown(own: Cache, runtime: Callable, tmp_path: Path):
    """A guest would see what it leads to."""
    build, bundle = bundled(own, runtime)
    bundle.rename(tmp_path / "elsewhere")
    bundle.symlink_to(tmp_path / "elsewhere")
    assert prepare.find_plan(own, build, POLICY) is None
    plan, steps = made(own, build)
    assert AGENT in steps
    assert (plan.bundle, plan.bundle.is_symlink()) == (bundle, False)
    assert (tmp_path / "elsewhere" / "wasi_agent").is_dir()


def test_the_plan_of_a_copied_cache_names_nothing_of_the_other(
    own: Cache, runtime: Callable, tmp_path: Path
):
    """Whoever may write to the cache that was copied must not give this one its native code."""
    build = runtime(reactor())
    plan, _ = made(own, build)
    shutil.copytree(own.path, tmp_path / "copy")
    copy = Cache(tmp_path / "copy")
    assert prepare.find_plan(copy, build, POLICY) is None
    again, steps = made(copy, build)
    assert steps == [ASKING]  # all was there but the plan
    assert again.module == copy.path / "modules" / plan.module.name
    for part in (again.module, again.bundle, again.image):
        assert part is not None
        assert part.is_relative_to(copy.path)


def test_modules_that_are_swapped_are_compiled_again(own: Cache, runtime: Callable):
    """Both are sealed and valid, each another program than its name says."""
    builds = runtime(command(), "a"), runtime(command(b"python 3.14\n"), "b")
    plans = [made(own, build)[0] for build in builds]
    one, other, spare = plans[0].module, plans[1].module, own.path / "spare"
    for suffix in ("", ".seal"):
        a, b = (p.with_name(p.name + suffix) for p in (one, other))
        a.rename(spare)
        b.rename(a)
        spare.rename(b)
    for build, plan in zip(builds, plans, strict=True):
        again, steps = made(own, build)
        assert (again, steps) == (plan, [COMPILING, ASKING])


def test_a_plan_that_is_damaged_is_made_again_of_what_is_there(own: Cache, runtime: Callable):
    build = runtime(reactor())
    plan, _ = made(own, build)
    (path,) = (p for p in (own.path / "plans").iterdir() if p.suffix != ".seal")
    path.write_text("other")
    assert prepare.find_plan(own, build, POLICY) is None
    assert made(own, build) == (plan, [ASKING])


@pytest.mark.parametrize("part", ["module", "bundle", "image"])
def test_a_plan_names_only_what_is_kept_for_it(own: Cache, runtime: Callable, part: str):
    """A confined worker writes plans, and must not choose what the next one loads unconfined."""
    built = runtime(reactor())
    plan, _ = made(own, built)
    path = prepare._plan_path(own, built, POLICY)
    notes = own.load(path)
    assert notes is not None
    real = Path(notes[part])
    other = own.folder("plans") / real.name
    if real.is_dir():
        shutil.copytree(real, other)
    else:
        own.store(other, lambda new: (new.write_bytes(real.read_bytes()), own.load(real))[1])
    own.store(path, lambda _new: {**notes, part: str(other)})
    assert prepare.find_plan(own, built, POLICY) is None
    own.store(path, lambda _new: notes)
    assert prepare.find_plan(own, built, POLICY) == plan


def test_another_build_has_another_plan(own: Cache, runtime: Callable):
    first, second = runtime(reactor(), "a"), runtime(command(b"python 3.14\n"), "b")
    plan, _ = made(own, first)
    assert prepare.find_plan(own, second, POLICY) is None
    other, _ = made(own, second)
    assert (plan.python, other.python) == ("3.15", "3.14")
    assert plan.module != other.module
    assert made(own, first) == (plan, [])


def test_a_build_that_was_replaced_is_compiled_again(own: Cache, runtime: Callable):
    plan, _ = made(own, runtime(command()))
    other, steps = made(own, runtime(command(b"python 3.14\n")))
    assert COMPILING in steps
    assert (other.python, other.module != plan.module) == ("3.14", True)


@pytest.mark.parametrize(
    "policy",
    [
        Policy(limits=LIMITS, preload=("json",)),
        Policy(limits=LIMITS, grants=(Grant("/h", "/data"),)),
    ],
)
def test_what_an_image_depends_on_makes_another_image(
    own: Cache, runtime: Callable, policy: Policy
):
    build = runtime(reactor())
    plan, _ = made(own, build)
    other, steps = made(own, build, policy)
    assert steps == [ASKING, IMAGE]
    assert other.image != plan.image
    assert (other.module, other.bundle) == (plan.module, plan.bundle)


@pytest.mark.parametrize(
    "policy",
    [
        Policy(limits=LIMITS, env={"A": "b"}),
        Policy(limits=LIMITS, work=False),
        Policy(limits=Limits(stack_bytes=2 * MIB, message_bytes=1024, output_bytes=1024)),
    ],
)
def test_what_an_image_does_not_depend_on_uses_the_same(
    own: Cache, runtime: Callable, policy: Policy
):
    build = runtime(reactor())
    plan, _ = made(own, build)
    assert made(own, build, policy) == (plan, [])


def test_a_granted_host_folder_is_no_part_of_an_image(
    own: Cache, runtime: Callable, tmp_path: Path
):
    """Its guest path is; what is on the host is not looked at, and need not be there."""
    build = runtime(reactor())
    first = Policy(limits=LIMITS, grants=(Grant(str(tmp_path / "nowhere"), "/data", True),))
    second = Policy(limits=LIMITS, grants=(Grant(str(tmp_path), "/data"),))
    plan, _ = made(own, build, first)
    assert made(own, build, second) == (plan, [])


def test_the_limits_of_who_prepares_are_no_part_of_an_image(own: Cache, runtime: Callable):
    """Every session on this machine starts from it: it must have its tray whoever made it."""
    small = Policy(limits=Limits(stack_bytes=MIB, message_bytes=1024, output_bytes=1024))
    plan, _ = made(own, runtime(reactor()), small)
    assert plan.image is not None
    assert own.load(plan.image)["tray"] == TRAY_AT  # type: ignore[index]


def test_two_that_prepare_at_once_make_it_once(own: Cache, runtime: Callable):
    build = runtime(reactor())
    results: list[tuple[prepare.Plan, list[str]]] = []

    def job() -> None:
        steps = Steps()
        plan = preparation(Cache(own.path), build, POLICY, steps).run()
        results.append((plan, steps.done))

    threads = [threading.Thread(target=job) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    plans, steps = zip(*results, strict=True)
    assert plans[0] == plans[1] == plans[2]
    assert sum(COMPILING in s for s in steps) == sum(IMAGE in s for s in steps) == 1
    waiting = "waiting for another process that prepares the same"
    all_of_them = [COMPILING, ASKING, AGENT, IMAGE]
    assert all(s in (all_of_them, [waiting], []) or waiting in s for s in steps)


def test_preparing_while_the_cache_is_damaged_ends_and_leaves_nothing_wrong(
    own: Cache, runtime: Callable
):
    """Files vanish and change all the time; once that ends, all is made whole."""
    build = runtime(reactor())
    plan, _ = made(own, build)
    ended, failures = threading.Event(), list[BaseException]()

    def vandal() -> None:
        dice = random.Random(7)  # noqa: S311 - no secret
        while not ended.is_set():
            with contextlib.suppress(OSError, IndexError):
                files = [p for p in own.path.rglob("*") if p.is_file() and p.parent.name != "locks"]
                path = dice.choice(files)
                if dice.random() < 0.5:
                    path.unlink()
                else:  # not in its place: a file that is cut while it is mapped kills its worker
                    new = own.path / "spare"
                    new.write_bytes(path.read_bytes()[: dice.randrange(100)])
                    new.chmod(0o600)
                    new.replace(path)

    def job() -> None:
        for _ in range(8):
            try:
                preparation(Cache(own.path), build, POLICY, Steps()).run()
            except (InstallationError, OSError, ValueError):
                continue
            except BaseException as e:  # noqa: BLE001 - what must not come
                failures.append(e)

    threads = [threading.Thread(target=job) for _ in range(2)]
    other = threading.Thread(target=vandal)
    for thread in (*threads, other):
        thread.start()
    for thread in threads:
        thread.join()
    ended.set()
    other.join()
    assert failures == []
    assert made(own, build)[0] == plan
    assert environments.is_whole(plan.bundle)
    assert plan.image is not None
    assert own.load(plan.module) is not None
    assert own.load(plan.image) is not None


# -- what cannot be used -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (command(b"hello\n"), "no CPython"),
        (command(b""), "no CPython"),
        (command(b"python\n"), "no CPython"),
        (command(b"python 3.15 and more\n"), "no CPython"),
        (command(b"Traceback: oh\n", status=1), "oh"),
        ('(func (export "_start") unreachable)', "GuestAborted"),
        ("", "small"),
        (reactor({"status": "error", "evalue": "no agent"}), "no agent"),
        (reactor({}), "the agent does not start"),
    ],
)
def test_a_build_that_is_no_python_is_an_installation_error(
    own: Cache, runtime: Callable, text: str, reason: str
):
    with pytest.raises(InstallationError, match=reason):
        preparation(own, runtime(text), POLICY, Steps()).run()
    assert prepare.find_plan(own, runtime(text), POLICY) is None
    for name in ("images", "bundles"):
        assert [p for p in own.folder(name).iterdir() if p.name.startswith(".new-")] == []


def test_a_file_that_does_not_compile_is_an_installation_error(own: Cache, tmp_path: Path):
    (tmp_path / "bad.wasm").write_bytes(b"\0asm\1\0\0\0\xff")
    build = Runtime("bad", tmp_path / "bad.wasm", ())
    with pytest.raises(InstallationError, match=r"bad\.wasm"):
        preparation(own, build, POLICY, Steps()).run()


def test_a_runtime_whose_files_are_gone_has_no_plan(own: Cache, runtime: Callable, tmp_path: Path):
    build = runtime(command())
    needed = tmp_path / "needed"
    needed.touch()
    whole = Runtime(build.name, build.wasm, (), (needed,))
    plan, _ = made(own, whole)
    assert prepare.find_plan(own, whole, POLICY) == plan
    needed.unlink()
    assert prepare.find_plan(own, whole, POLICY) is None
