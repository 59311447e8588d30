"""Shows that compiled modules are kept, found again, and never loaded when they are not what they
were."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from wasmtime import Store, Trap

from wasi_kernel.caches import Cache
from wasi_kernel.errors import InstallationError
from wasi_kernel.policy import MIB
from wasi_kernel.worker import engine as engines

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from wasmtime import Engine, Module

ANSWER = '(module (func (export "answer") (result i32) (i32.const 42)))'


@pytest.fixture
def own(tmp_path: Path) -> Cache:
    """A cache with nothing in it."""
    return Cache(tmp_path / "own")


def answer(engine: Engine, module: Module) -> int:
    from wasmtime import Instance

    store = Store(engine)
    return Instance(store, module, []).exports(store)["answer"](store)


def files(cache: Cache) -> dict[str, int]:
    """The modules in a cache, with their inodes."""
    return {p.name: p.stat().st_ino for p in cache.folder("modules").iterdir()}


def test_a_file_is_compiled_and_loaded(engine: Engine, own: Cache, wasm: Callable[[str], Path]):
    path = engines.module_path(own, own.digest(wasm(ANSWER)))
    assert engines.load(engine, own, path) is None
    engines.compile_file(engine, own, wasm(ANSWER), path)
    module = engines.load(engine, own, path)
    assert module is not None
    assert answer(engine, module) == 42
    assert path.stat().st_mode & 0o777 == 0o600
    notes: Any = own.load(path)
    assert notes["wasm"] == str(wasm(ANSWER))


def damaged(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def foreign(path: Path) -> None:
    path.chmod(0o644)


@pytest.mark.parametrize("change", [damaged, truncated, foreign])
def test_a_module_that_was_changed_is_never_loaded(
    engine: Engine, own: Cache, wasm: Callable[[str], Path], change: Callable[[Path], None]
):
    path = engines.module_path(own, "digest")
    engines.compile_file(engine, own, wasm(ANSWER), path)
    change(path)
    assert engines.load(engine, own, path) is None
    assert files(own) == {}
    engines.compile_file(engine, own, wasm(ANSWER), path)
    assert engines.load(engine, own, path) is not None


@pytest.mark.parametrize("content", [b"", b"garbage", b"\0asm\1\0\0\0", b"\x7fELF" + b"\0" * 100])
def test_a_sealed_file_that_is_no_module_is_removed(engine: Engine, own: Cache, content: bytes):
    """It would be this project's own mistake: still nothing worse than compiling again."""
    path = engines.module_path(own, "digest")
    own.store(path, lambda new: (new.write_bytes(content), {})[1])
    assert engines.load(engine, own, path) is None
    assert files(own) == {}


def test_a_module_of_another_configuration_is_not_loaded(
    engine: Engine, own: Cache, wasm: Callable[[str], Path]
):
    from wasmtime import Config
    from wasmtime import Engine as OtherEngine

    config = Config()
    config.epoch_interruption = True
    path = engines.module_path(own, "digest")
    engines.compile_file(OtherEngine(config), own, wasm(ANSWER), path)
    assert engines.load(engine, own, path) is None
    assert files(own) == {}


@pytest.mark.parametrize(
    "content", [b"", b"text", b"\0asm\1\0\0\0\xff\xff\xff", b"\0asm\x09\0\0\0"]
)
def test_a_file_that_does_not_compile_is_an_installation_error(
    engine: Engine, own: Cache, tmp_path: Path, content: bytes
):
    (tmp_path / "python.wasm").write_bytes(content)
    path = engines.module_path(own, "digest")
    with pytest.raises(InstallationError) as caught:
        engines.compile_file(engine, own, tmp_path / "python.wasm", path)
    assert "python.wasm" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert files(own) == {}


def test_a_small_module_is_compiled_once(engine: Engine, own: Cache):
    assert answer(engine, engines.small_module(engine, own, ANSWER)) == 42
    kept = files(own)
    assert len(kept) == 2  # the module and its seal
    assert answer(engine, engines.small_module(engine, own, ANSWER)) == 42
    assert files(own) == kept
    engines.small_module(engine, own, "(module)")
    assert len(files(own)) == 4


def test_the_stack_may_be_exchanged_without_compiling_again(
    engine: Engine, own: Cache, wasm: Callable[[str], Path]
):
    """A policy with another stack limit uses the same compiled module."""
    path = engines.module_path(own, "digest")
    engines.compile_file(engine, own, wasm(ANSWER), path)
    other = engines.make_engine(16 * MIB)
    module = engines.load(other, own, path)
    assert module is not None
    assert answer(other, module) == 42


def test_keys_depend_on_every_part_and_its_borders():
    keys = [
        engines.key("module", "a"), engines.key("module", "b"), engines.key("plan", "a"),
        engines.key("modulea"), engines.key("module", "a", ""), engines.key(),
    ]  # fmt: skip
    assert len(set(keys)) == len(keys)
    assert keys[0] == engines.key("module", "a")
    assert all(len(k) == 32 for k in keys)


def test_a_module_is_kept_under_its_digest(own: Cache):
    first, second = (engines.module_path(own, d) for d in ("a" * 64, "b" * 64))
    assert first != second
    assert first.parent == second.parent == own.path / "modules"
    assert first.suffix == ".cwasm"


def test_memory_does_not_move(engine: Engine):
    """Addresses are kept by others: growing must not change the base."""
    from wasmtime import Limits, Memory, MemoryType

    store = Store(engine)
    memory = Memory(store, MemoryType(Limits(1, None)))
    before = memory.data_ptr(store).contents
    memory.grow(store, 2000)
    import ctypes

    assert ctypes.addressof(memory.data_ptr(store).contents) == ctypes.addressof(before)


def test_modules_with_exceptions_are_taken(engine: Engine, own: Cache):
    """CPython 3.15's builds use the exception handling instructions."""
    text = """(module (tag $t) (func (export "answer") (result i32)
      (block $h (try_table (catch_all $h) (throw $t))) (i32.const 42)))"""
    assert answer(engine, engines.small_module(engine, own, text)) == 42


def test_nothing_counts_instructions(engine: Engine):
    """Fuel and epochs cost a third of all speed: a store without either runs."""
    from wasmtime import Instance, Module

    store = Store(engine)
    loop = """(module (func (export "run") (local i32) (loop $l
      (local.set 0 (i32.add (local.get 0) (i32.const 1)))
      (br_if $l (i32.lt_u (local.get 0) (i32.const 100000)))) unreachable))"""
    with pytest.raises(Trap, match="unreachable"):
        Instance(store, Module(engine, loop), []).exports(store)["run"](store)


def test_the_estimate_grows_with_the_module():
    assert engines.compile_cpu_s(0) == 0
    assert engines.compile_cpu_s(100 * MIB) == pytest.approx(100 * engines.COMPILE_CPU_S_PER_MIB)
    assert engines.cores() >= 1


def test_the_version_is_the_installed_one():
    from importlib import metadata

    assert engines.wasmtime_version() == metadata.version("wasmtime")
