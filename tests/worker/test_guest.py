"""Shows how a guest runs and how each of its ends is named; nothing of wasmtime's gets further."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from wasi_kernel.errors import LOSSES, GuestLost, InstallationError
from wasi_kernel.policy import MIB, Limits
from wasi_kernel.worker import THREAD_STACK_EXTRA, images
from wasi_kernel.worker import engine as engines
from wasi_kernel.worker.guest import CLOCK_MARGIN_NS, is_reactor
from wasi_kernel.worker.memory import WASM_PAGE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from wasmtime import Engine

    from wasi_kernel.caches import Cache

MONOTONIC = 1
ALLOC_AT = 4096


def reactor(body: str, *, alloc: str = f"(i32.const {ALLOC_AT})", more: str = "") -> str:
    """The exports of a reactor whose `turn` is `body`, with the source's address and length."""
    return f"""(func (export "host_alloc") (param i32) (result i32) {alloc})
      (func $turn (export "turn") (param i32 i32) (result i32) {body})
      (func (export "shutdown")) {more}"""


def image(path: Path, notes: dict[str, Any]) -> Callable[[Any], None]:
    """What fills a guest's memory from an image."""
    return lambda memory: images.restore(memory, path, notes["bytes"])


def lost(probe: Any, source: str = "x") -> GuestLost:
    """The loss that a turn ends with."""
    with pytest.raises(GuestLost) as caught:
        probe.guest.turn(source)
    assert caught.value.ename in LOSSES
    assert "\n" not in caught.value.detail
    return caught.value


# -- turns ---------------------------------------------------------------------------------------


def test_a_turn_runs_its_source(open_guest: Callable, wat: Callable):
    """This guest writes its source to stdout and returns its length."""
    body = """(i32.store (i32.const 2048) (local.get 0)) (i32.store (i32.const 2052) (local.get 1))
      (drop (call $fd_write (i32.const 1) (i32.const 2048) (i32.const 1) (i32.const 2040)))
      (local.get 1)"""
    probe = open_guest(wat(reactor(body)))
    for source in ("1+1", "é", "x" * 1000):
        assert probe.guest.turn(source) == len(source.encode())
    assert probe.kernel.text() == "1+1é" + "x" * 1000


def test_a_source_is_put_where_the_guest_says_at_any_address(open_guest: Callable, wat: Callable):
    """Addresses of 2 GiB and more come back negative."""
    pages = (2 << 30) // WASM_PAGE + 1
    at = f"(drop (memory.grow (i32.const {pages}))) (i32.const {(2 << 30) - 2**32 + 16})"
    probe = open_guest(
        wat(reactor("(i32.load8_u (local.get 0))", alloc=at)), limits=Limits(memory_bytes=3 << 30)
    )
    assert probe.guest.turn("A") == ord("A")


@pytest.mark.parametrize("at", [4 * WASM_PAGE, -16, -1, 0])
def test_a_place_for_the_source_that_is_none_is_a_lost_guest(
    open_guest: Callable, wat: Callable, at: int
):
    """0 is what malloc gives when there is no memory left."""
    probe = open_guest(wat(reactor("(i32.const 0)", alloc=f"(i32.const {at})")))
    before = probe.memory.read(0, 64)
    lost(probe)
    assert probe.memory.read(0, 64) == before


def test_a_turn_that_is_not_taken_is_a_lost_guest(open_guest: Callable, wat: Callable):
    loss = lost(open_guest(wat(reactor("(i32.const -1)"))))
    assert loss.ename == "GuestDesynchronized"


# -- ends ----------------------------------------------------------------------------------------


STATUS_AT = 512


def test_any_exit_status(open_guest: Callable, wat: Callable):
    """wasmtime's own ExitTrap knows statuses below 126 only."""
    text = wat(reactor(f"(call $proc_exit (i32.load (i32.const {STATUS_AT}))) (i32.const 0)"))
    for status in (*range(0, 256, 5), *range(124, 131), 255, 256, 2**31 - 1, 2**31, 2**32 - 1):
        probe = open_guest(text)
        probe.memory.u32(STATUS_AT).value = status
        loss = lost(probe)
        assert (loss.ename, loss.detail) == ("GuestExited", f"exit status {status}")
        probe.guest.close()


def test_unreachable_code_is_an_abort(open_guest: Callable, wat: Callable):
    assert lost(open_guest(wat(reactor("unreachable")))).ename == "GuestAborted"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("(i32.load (i32.const -1))", "out of bounds"),
        ("(i32.div_u (i32.const 1) (i32.const 0))", "divide by zero"),
        ("(i32.trunc_f32_u (f32.const nan))", "invalid conversion"),
        ("(call_indirect (result i32) (i32.const 0))", "uninitialized"),
    ],
)
def test_other_traps_keep_their_reason(open_guest: Callable, wat: Callable, body: str, reason: str):
    loss = lost(open_guest(wat(reactor(body, more="(table 1 funcref)"))))
    assert loss.ename == "GuestTrapped"
    assert reason in loss.detail


RECURSE = "(i32.add (i32.const 1) (call $turn (local.get 0) (local.get 1)))"


def in_thread(stack_bytes: int, job: Callable[[], Any]) -> Any:
    """What `job` gives or raises on a thread as the worker makes it for its guest."""
    results: list[Any] = []

    def run() -> None:
        try:
            results.append(job())
        except BaseException as e:  # noqa: BLE001 - forwarded below
            results.append(e)

    threading.stack_size(stack_bytes + THREAD_STACK_EXTRA)
    try:
        thread = threading.Thread(target=run)
        thread.start()
    finally:
        threading.stack_size(0)
    thread.join()
    if isinstance(results[0], BaseException):
        raise results[0]
    return results[0]


@pytest.mark.parametrize("stack_bytes", [MIB, Limits().stack_bytes])
def test_deep_recursion_is_a_lost_guest_and_not_a_dead_process(
    open_guest: Callable, wat: Callable, stack_bytes: int
):
    engine = engines.make_engine(stack_bytes)

    def job() -> tuple[str, str]:
        probe = open_guest(wat(reactor(RECURSE)), on=engine, limits=Limits(stack_bytes=stack_bytes))
        loss = lost(probe)
        probe.guest.close()
        return loss.ename, loss.detail

    for _ in range(2):  # and again, in the same process
        ename, detail = in_thread(stack_bytes, job)
        assert ename == "StackExhausted"
        assert str(stack_bytes >> 20) in detail


def test_a_host_call_at_the_bottom_of_the_stack_has_room(open_guest: Callable, wat: Callable):
    """Python code of ours runs below the deepest frame: the thread's stack must have some left."""
    body = """(drop (call $fd_write (i32.const 1) (i32.const 2048) (i32.const 1) (i32.const 2040)))
      (i32.add (i32.const 1) (call $turn (local.get 0) (local.get 1)))"""
    engine = engines.make_engine(MIB)

    def job() -> str:
        probe = open_guest(wat(reactor(body)), on=engine, limits=Limits(stack_bytes=MIB))
        probe.iovecs((probe.DATA, 1))
        probe.memory.write(probe.DATA, b".")
        return lost(probe).ename

    assert in_thread(MIB, job) == "StackExhausted"


LIMIT = 128 * MIB
GROW_ALL = """(block $full (loop $more
    (br_if $full (i32.eq (memory.grow (i32.const 16)) (i32.const -1))) (br $more)))"""


def test_memory_has_a_cap_that_allocation_reaches(open_guest: Callable, wat: Callable):
    probe = open_guest(wat(reactor(f"{GROW_ALL} (memory.size)")), limits=Limits(memory_bytes=LIMIT))
    pages = probe.guest.turn("x")
    assert LIMIT - 17 * WASM_PAGE < pages * WASM_PAGE <= LIMIT
    assert probe.memory.size() == pages * WASM_PAGE


@pytest.mark.parametrize("end", ["unreachable", "(i32.load (i32.const -1))"])
def test_a_death_at_the_memory_cap_is_named_after_it(open_guest: Callable, wat: Callable, end: str):
    probe = open_guest(wat(reactor(f"{GROW_ALL} {end}")), limits=Limits(memory_bytes=LIMIT))
    loss = lost(probe)
    assert loss.ename == "MemoryError"
    assert "of 128 MiB" in loss.detail


def test_an_exit_at_the_memory_cap_is_an_exit(open_guest: Callable, wat: Callable):
    body = f"{GROW_ALL} (call $proc_exit (i32.const 3)) (i32.const 0)"
    probe = open_guest(wat(reactor(body)), limits=Limits(memory_bytes=LIMIT))
    assert lost(probe).ename == "GuestExited"


# -- host functions that fail --------------------------------------------------------------------

SLEEP = """(drop (call $fd_write (i32.const 1) (i32.const 2048) (i32.const 1) (i32.const 2040)))
  (i32.const 0)"""


class Broken:
    """A link that is broken in some way."""

    interrupted = False

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def send(self, data: bytes) -> None:
        raise self.error

    def receive(self, *, interruptible: bool = False) -> None:
        raise self.error

    def wait(self, duration_s: float) -> bool:
        raise self.error


@pytest.mark.parametrize(
    "error",
    [ValueError("a\nb"), KeyboardInterrupt(), SystemExit(3), MemoryError(), BaseException()],
)
@pytest.mark.parametrize("end", ["(i32.const 0)", "unreachable"])
def test_a_host_function_that_fails_is_a_lost_guest(
    open_guest: Callable,
    wat: Callable,
    engine: Engine,
    cache: Cache,
    error: BaseException,
    end: str,
):
    probe = open_guest(wat(reactor(SLEEP.replace("(i32.const 0)", "") + end)))
    probe.door._link = Broken(error)
    probe.iovecs((probe.DATA, 1))
    probe.memory.write(probe.DATA, b".")
    loss = lost(probe)
    assert loss.ename == "WorkerFailed"
    assert repr(error) in loss.detail
    probe.guest.close()


# -- command builds ------------------------------------------------------------------------------


def start(body: str) -> str:
    return f'(func (export "_start") {body})'


def test_a_command_that_returns_has_status_0(open_guest: Callable, wat: Callable):
    assert open_guest(wat(start(""))).guest.run_command() == 0


@pytest.mark.parametrize("status", [0, 1, 120, 126, 255, 2**31])
def test_a_command_that_exits_has_its_status(open_guest: Callable, wat: Callable, status: int):
    probe = open_guest(wat(start(f"(call $proc_exit (i32.const {status}))")))
    assert probe.guest.run_command() == status


def test_a_command_that_aborts_is_a_lost_guest(open_guest: Callable, wat: Callable):
    with pytest.raises(GuestLost) as caught:
        open_guest(wat(start("unreachable"))).guest.run_command()
    assert caught.value.ename == "GuestAborted"


def test_reactors_are_told_by_their_exports(engine: Engine, cache: Cache, wat: Callable):
    def kind(text: str) -> bool:
        return is_reactor(engines.small_module(engine, cache, text))

    assert kind(wat(reactor("(i32.const 0)")))
    assert kind(wat(reactor("(i32.const 0)", more=start(""))))
    assert not kind(wat(start("")))
    assert not kind(wat())


# -- starting ------------------------------------------------------------------------------------


def test_a_folder_that_is_not_there_is_an_installation_error(open_guest: Callable, tmp_path: Path):
    for path in (tmp_path / "nothing", tmp_path / "file"):
        (tmp_path / "file").touch()
        with pytest.raises(InstallationError) as caught:
            open_guest(preopens=[(path, "/d", False)])
        assert "\n" not in str(caught.value)


def test_a_folder_whose_name_is_no_text_is_no_failure_of_ours(open_guest: Callable, tmp_path: Path):
    """A file system takes any bytes as a name; to Python they are lone surrogates."""
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/\xff")
    os.mkdir(folder)
    with contextlib.suppress(InstallationError):  # refusing it is an answer too
        open_guest(preopens=[(folder, "/d", False)])


def test_a_module_that_does_not_fit_the_memory_limit(open_guest: Callable, wat: Callable):
    with pytest.raises(InstallationError, match="memory"):
        open_guest(wat(pages=LIMIT // WASM_PAGE + 1), limits=Limits(memory_bytes=LIMIT))


@pytest.mark.parametrize(
    "text",
    [
        "(module)",
        '(module (memory (export "memory") 1))',
        '(module (memory (export "memory") 0))',
        '(module (import "other" "memory" (memory 1)))',
        '(module (import "wasi_snapshot_preview1" "nothing" (func)) (memory (export "memory") 1))',
    ],
)
def test_a_module_that_is_no_wasi_program_is_an_installation_error(open_guest: Callable, text: str):
    with pytest.raises(InstallationError):
        open_guest(text)


@pytest.mark.parametrize(
    "body", ["unreachable", "(drop (call $fd_write {}))", "(call $proc_exit (i32.const 0))"]
)
def test_a_module_that_acts_before_it_is_wired_is_an_installation_error(
    open_guest: Callable, wat: Callable, body: str
):
    """Its start function: no WASI call leads anywhere yet."""
    body = body.format("(i32.const 1) (i32.const 0) (i32.const 1) (i32.const 0)")
    with pytest.raises(InstallationError, match="cannot start"):
        open_guest(wat(f"(func $begin {body}) (start $begin)"))


def test_a_guest_can_be_closed_twice(open_guest: Callable):
    probe = open_guest()
    probe.guest.close()
    probe.guest.close()


# -- clocks and images ---------------------------------------------------------------------------


def clock(probe: Any) -> int:
    assert probe.call("clock_time_get", MONOTONIC, 1, 8192) == 0
    return int.from_bytes(probe.memory.read(8192, 8), "little")


def test_the_host_knows_the_guests_monotonic_clock(open_guest: Callable):
    probe = open_guest()
    before = probe.guest.monotonic_ns()
    seen = clock(probe)
    after = probe.guest.monotonic_ns()
    slack_ns = 5_000_000  # two clocks that were compared once, with a call between
    assert before - slack_ns <= seen <= after + slack_ns


def test_finding_the_clock_leaves_memory_as_it_was(open_guest: Callable, wat: Callable):
    data = '(data (i32.const 0) "' + "abcdefgh" * 300 + '")'
    assert open_guest(wat(data)).memory.read(0, 2400) == b"abcdefgh" * 300


@pytest.mark.parametrize("mapped", [True, False])
def test_the_monotonic_clock_goes_on_over_an_image(
    open_guest: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mapped: bool
):
    if not mapped:
        monkeypatch.setattr(images, "can_map", lambda: False)
    path, hour_ns = tmp_path / "image", 3600 * 10**9
    path.touch()
    first = open_guest()
    first.memory.write(70_000, b"state")
    first.door.tray = 65_536
    before = clock(first)  # first: between the image and this anything may take its time
    notes = first.guest.save_image(path)
    assert -CLOCK_MARGIN_NS < notes["clock_ns"] - before < 60 * 10**9
    notes["clock_ns"] += hour_ns  # as if the image had been made by a guest an hour old
    second = open_guest()
    second.guest.wake(image(path, notes), notes)
    after = clock(second)
    assert hour_ns <= after - before < hour_ns + 60 * 10**9
    assert abs(second.guest.monotonic_ns() - after) < 10**9
    assert clock(second) >= after
    assert second.memory.read(70_000, 5) == b"state"
    assert second.door.tray == 65_536


def test_the_guests_clock_is_known_however_its_readings_are_delayed(
    open_guest: Callable, monkeypatch: pytest.MonkeyPatch
):
    """As on a busy machine: it was 6 ms off, and could then go back over an image."""
    real, delays = time.monotonic_ns, [0, 5 * 10**7, 0, 3 * 10**7, 0, 0]
    passed = 0

    def late() -> int:
        nonlocal passed
        passed += delays.pop(0) if delays else 0
        return real() + passed

    monkeypatch.setattr(time, "monotonic_ns", late)
    probe = open_guest()
    assert not delays
    early = probe.guest.monotonic_ns()
    assert early - 10**7 < clock(probe) < probe.guest.monotonic_ns() + 10**7


def test_the_wall_clock_does_not_move_with_an_image(open_guest: Callable, tmp_path: Path):
    path = tmp_path / "image"
    path.touch()
    notes = open_guest().guest.save_image(path)
    second = open_guest()
    second.guest.wake(image(path, notes), {**notes, "clock_ns": 10**18})
    assert second.call("clock_time_get", 0, 1, 8192) == 0
    seen = int.from_bytes(second.memory.read(8192, 8), "little")
    assert abs(seen - time.time_ns()) < 60 * 10**9


def test_an_image_that_does_not_fit_is_an_installation_error(
    open_guest: Callable, wat: Callable, tmp_path: Path
):
    path = tmp_path / "image"
    path.touch()
    notes = open_guest().guest.save_image(path)
    with pytest.raises(InstallationError, match="image"):
        open_guest(wat(pages=5)).guest.wake(image(path, notes), notes)
    with pytest.raises(InstallationError, match="image"):
        open_guest().guest.wake(image(tmp_path / "nothing", notes), notes)
    os.truncate(path, 100)
    with pytest.raises(InstallationError, match="image"):
        open_guest().guest.wake(image(path, notes), notes)


def test_what_was_printed_before_an_image_is_not_printed_again(
    open_guest: Callable, tmp_path: Path
):
    path = tmp_path / "image"
    path.touch()
    first, second = open_guest(), open_guest()
    first.memory.write(65_536, b"".join(n.to_bytes(4, "little") for n in (0, 1, 100, 0, 0)))
    first.door.adopt(65_536, "stdout")
    first.memory.write(65_536 + 32, b"hello")
    first.memory.u32(65_536 + 12).value = 5
    notes = first.guest.save_image(path)
    assert first.kernel.text() == "hello"
    second.guest.wake(image(path, notes), notes)
    second.door.drain()
    assert second.kernel.text() == "hello"  # one kernel serves both: nothing was added
