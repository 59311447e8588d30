"""Shows that an image is a guest's memory, to the byte, also where files cannot be mapped."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest

from wasi_kernel.policy import MIB, Limits
from wasi_kernel.worker import images
from wasi_kernel.worker.memory import WASM_PAGE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

GROW = """(func (export "grow") (param i32) (result i32) (memory.grow (local.get 0)))
  (func (export "peek") (param i32) (result i32) (i32.load8_u (local.get 0)))
  (func (export "poke") (param i32 i32) (i32.store8 (local.get 0) (local.get 1)))"""


@pytest.fixture(params=["mapped", "copied"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to put an image back; the second is what other systems do."""
    if request.param == "copied":
        monkeypatch.setattr(images, "can_map", lambda: False)
    else:
        assert images.can_map()
    return request.param


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image"
    path.touch()
    return path


def scatter(memory: Any, seed: int) -> None:
    """Random bytes at random places; most pages stay zero, the first and the last do not."""
    rng = random.Random(seed)  # noqa: S311 - a seed, not a secret
    size = memory.size()
    for at in (0, size - 100, *(rng.randrange(size - 5000) for _ in range(10))):
        memory.write(at, rng.randbytes(min(rng.randrange(1, 5000), size - at)))


@pytest.mark.parametrize("pages", [1, 4, 17, 100])
def test_an_image_is_put_back_to_the_byte(
    open_guest: Callable, wat: Callable, image: Path, way: str, pages: int
):
    first, second = open_guest(wat(GROW, pages=pages)), open_guest(wat(GROW, pages=1))
    scatter(first.memory, pages)
    size = images.save(first.memory, image)
    assert size == pages * WASM_PAGE == image.stat().st_size
    images.restore(second.memory, image, size)
    assert second.memory.size() == size
    assert second.memory.read(0, size) == first.memory.read(0, size) == image.read_bytes()


def test_zeros_are_holes(open_guest: Callable, wat: Callable, image: Path):
    probe = open_guest(wat(pages=512))
    probe.memory.write(20 * WASM_PAGE, b"x")
    images.save(probe.memory, image)
    assert image.stat().st_size == 32 * MIB
    assert image.stat().st_blocks * 512 <= MIB


def test_what_a_restored_guest_writes_stays_its_own(
    open_guest: Callable, wat: Callable, image: Path, way: str
):
    text = wat(GROW)
    guests = [open_guest(text) for _ in range(3)]
    scatter(guests[0].memory, 3)
    size = images.save(guests[0].memory, image)
    kept = image.read_bytes()
    for probe in guests[1:]:
        images.restore(probe.memory, image, size)
    guests[1].call("poke", 100_000, 0x77)
    guests[1].memory.write(0, b"host")
    assert image.read_bytes() == kept
    assert guests[2].memory.read(0, size) == kept
    assert guests[1].call("peek", 100_000) == 0x77
    assert guests[1].memory.read(0, 4) == b"host"


def test_a_restored_guest_overwrites_what_it_had(
    open_guest: Callable, wat: Callable, image: Path, way: str
):
    first, second = open_guest(wat(GROW)), open_guest(wat(GROW))
    size = images.save(first.memory, image)
    scatter(second.memory, 4)
    images.restore(second.memory, image, size)
    assert second.memory.read(0, size) == bytes(size)


def test_a_restored_guest_can_grow(open_guest: Callable, wat: Callable, image: Path, way: str):
    first, second = open_guest(wat(GROW)), open_guest(wat(GROW))
    scatter(first.memory, 5)
    size = images.save(first.memory, image)
    images.restore(second.memory, image, size)
    assert second.call("grow", 30) == size // WASM_PAGE
    assert second.call("peek", size + 29 * WASM_PAGE) == 0
    second.call("poke", size + 29 * WASM_PAGE, 5)
    assert second.memory.read(size + 29 * WASM_PAGE, 1) == b"\5"
    assert second.memory.read(0, size) == image.read_bytes()


def test_a_guest_with_an_image_can_be_imaged(
    open_guest: Callable, wat: Callable, image: Path, tmp_path: Path, way: str
):
    first, second, third = (open_guest(wat(GROW)) for _ in range(3))
    scatter(first.memory, 6)
    size = images.save(first.memory, image)
    images.restore(second.memory, image, size)
    second.call("grow", 3)
    second.call("poke", size + 5, 9)
    again = tmp_path / "again"
    again.touch()
    size = images.save(second.memory, again)
    images.restore(third.memory, again, size)
    assert third.memory.read(0, size) == second.memory.read(0, size)


def test_a_memory_that_is_larger_is_refused_and_untouched(
    open_guest: Callable, wat: Callable, image: Path, way: str
):
    small, large = open_guest(wat(pages=2)), open_guest(wat(pages=3))
    size = images.save(small.memory, image)
    large.memory.write(10, b"mine")
    with pytest.raises(ValueError, match="image of"):
        images.restore(large.memory, image, size)
    assert large.memory.read(10, 4) == b"mine"


def test_an_image_that_is_cut_off_is_refused(open_guest: Callable, image: Path, way: str):
    """Mapped, its missing pages would kill the process at the first look at them."""
    probe = open_guest()
    size = images.save(probe.memory, image)
    with image.open("r+b") as f:
        f.truncate(size - 1)
    with pytest.raises(OSError, match="shorter"):
        images.restore(probe.memory, image, size)


def test_an_image_that_is_not_there_is_an_os_error(open_guest: Callable, tmp_path: Path, way: str):
    with pytest.raises(FileNotFoundError):
        images.restore(open_guest().memory, tmp_path / "nothing", 4 * WASM_PAGE)


def test_an_image_above_the_memory_limit_is_refused(
    open_guest: Callable, wat: Callable, image: Path, way: str
):
    from wasmtime import WasmtimeError

    limit = 128 * MIB
    large = open_guest(wat(pages=limit // WASM_PAGE + 1))
    size = images.save(large.memory, image)
    small = open_guest(wat(pages=1), limits=Limits(memory_bytes=limit))
    with pytest.raises(WasmtimeError):
        images.restore(small.memory, image, size)
