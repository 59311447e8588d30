"""A kernel that is not ready yet answers, says what it is doing, and says what is wrong.

Nothing here compiles the default runtime, which takes 40 s: a kernel is kept waiting by holding the
lock that it needs, or begins with a cache that holds the compiled module and nothing else.
"""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import psutil
import pytest

from wasi_kernel import caches
from wasi_kernel.caches import Cache


def _progress(answer):
    """The texts of the line that a cell shows while the sandbox is made ready."""
    shown = [
        m for m in answer.published if m["msg_type"] in ("display_data", "update_display_data")
    ]
    if shown:
        assert [m["msg_type"] for m in shown].count("display_data") == 1
        assert shown[0]["msg_type"] == "display_data"
        assert len({m["content"]["transient"]["display_id"] for m in shown}) == 1
    return [m["content"]["data"]["text/plain"] for m in shown]


def _is_display(message):
    return message["msg_type"] == "display_data"


# -- not ready yet ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def waiting_kernel(start_module_kernel, tmp_path_factory):
    """A kernel whose sandbox is not made ready as long as these tests run."""
    folder = tmp_path_factory.mktemp("empty-cache")
    with Cache(folder).lock("prepare"):
        yield start_module_kernel(env={caches.ENV: str(folder)}, ready=False)


def test_kernel_info_is_answered_at_once(waiting_kernel):
    said = waiting_kernel.ask("kernel_info_request")
    assert (said["status"], said["language_info"]["name"]) == ("ok", "python")


def test_first_cell_shows_what_is_going_on(waiting_kernel):
    cell = waiting_kernel.execute("1")
    shown = waiting_kernel.until(cell, _is_display)
    assert "another process" in shown["content"]["data"]["text/plain"]
    waiting_kernel.until(cell, lambda m: m["msg_type"] == "update_display_data")
    waiting_kernel.interrupt()
    answer = waiting_kernel.answer(cell)
    assert answer.content["ename"] == "KeyboardInterrupt"
    assert [e["ename"] for e in answer.of("error")] == ["KeyboardInterrupt"]
    assert len(set(_progress(answer))) >= 1


def test_other_requests_do_not_wait_for_it(waiting_kernel):
    said = waiting_kernel.ask("complete_request", {"code": "x = zi", "cursor_pos": 6})
    assert (said["status"], said["matches"]) == ("ok", [])
    assert (said["cursor_start"], said["cursor_end"]) == (6, 6)
    said = waiting_kernel.ask(
        "history_request", {"hist_access_type": "tail", "output": False, "raw": True, "n": 1}
    )
    assert said["status"] == "ok"


def test_it_can_be_shut_down(waiting_kernel):
    """The last test that uses this kernel."""
    processes = [psutil.Process(waiting_kernel.pid), *waiting_kernel.workers()]
    assert len(processes) == 2
    cell = waiting_kernel.execute("1")
    waiting_kernel.until(cell, _is_display)
    asked = waiting_kernel.send("shutdown_request", {"restart": False}, channel="control")
    assert waiting_kernel.reply(asked, "control")["content"]["status"] == "ok"
    assert psutil.wait_procs(processes, 30)[1] == []


# -- two kernels, one cache ------------------------------------------------------------------


@pytest.fixture(scope="module")
def first_start(start_module_kernel, tmp_path_factory):
    """Two kernels that were started at once on a cache with nothing but the compiled module.

    The copies are verified by hash: their identity is not the sealed one.
    """
    modules = caches.default_path() / "modules"
    assert list(modules.glob("*.seal")), "first run: wasi-kernel prepare"
    cache = tmp_path_factory.mktemp("cache")
    shutil.copytree(modules, cache / "modules")
    kernels = [start_module_kernel(env={caches.ENV: str(cache)}, ready=False) for _ in range(2)]
    images = list(cache.glob("images/*"))
    cells = [kernel.execute("'ready'") for kernel in kernels]
    answers = [k.answer(c) for k, c in zip(kernels, cells, strict=True)]
    yield SimpleNamespace(
        cache=cache, kernels=kernels, answers=answers, images=images,
        start=lambda: start_module_kernel(env={caches.ENV: str(cache)}, ready=False),
    )  # fmt: skip
    shutil.rmtree(cache)


def test_both_answered_before_anything_was_made(first_start):
    assert first_start.images == []


def test_both_become_ready(first_start):
    assert [a.result for a in first_start.answers] == ["'ready'", "'ready'"]


def test_what_went_on_is_cleared_before_the_cell_s_own_output(first_start):
    for answer in first_start.answers:
        texts = _progress(answer)
        assert texts
        assert all(text.endswith("...") for text in texts)
        kinds = ["display_data", *["update_display_data"] * (len(texts) - 1), "clear_output"]
        assert answer.kinds == ["busy", "execute_input", *kinds, "execute_result", "idle"]


def test_one_of_them_waited_for_the_other(first_start):
    waited = ["another process" in " ".join(_progress(a)) for a in first_start.answers]
    assert sorted(waited) == [False, True]


def test_what_they_made_is_there_once(first_start):
    made = {
        name: [p.name for p in (first_start.cache / name).iterdir() if p.suffix != ".seal"]
        for name in ("images", "bundles", "runtimes", "plans")
    }
    assert {name: len(found) for name, found in made.items()} == dict.fromkeys(made, 1)
    for path in first_start.cache.rglob("*"):
        assert not path.name.startswith(".new-")
    for folder in (first_start.cache, *first_start.cache.glob("*/")):
        assert folder.stat().st_mode & 0o077 == 0


def test_next_start_has_nothing_to_make(first_start):
    (image,) = first_start.cache.glob("images/*.image")
    before = image.stat()
    answer = first_start.start().run("'ready'")
    assert (answer.result, _progress(answer)) == ("'ready'", [])
    assert image.stat() == before


def test_kernels_on_one_image_differ_in_what_must_differ(first_start):
    code = (
        "import os, random, uuid\nimport numpy as np\n"
        "print(random.random(), np.random.rand(), uuid.uuid4(), os.urandom(8).hex())"
    )
    said = [kernel.run(code).text().split() for kernel in first_start.kernels]
    assert all(one != other for one, other in zip(*said, strict=True))


def test_damaged_image_is_made_again(first_start):
    """Last: the image changes under the kernels above, which have mapped it."""
    (image,) = first_start.cache.glob("images/*.image")
    before = image.stat()
    with image.open("r+b") as f:
        f.seek(before.st_size // 2)
        f.write(b"damaged")
    kernel = first_start.start()
    assert kernel.run("'ready'").result == "'ready'"
    (image,) = first_start.cache.glob("images/*.image")
    assert image.stat().st_ino != before.st_ino


# -- what cannot be repaired by waiting ------------------------------------------------------


@pytest.fixture
def bad_runtime(request, tmp_path):
    """A path that names no CPython build, of the kind that the test asks for."""
    path = tmp_path / "runtime"
    if request.param == "text":
        path.write_text("no WebAssembly")
    elif request.param == "empty folder":
        path.mkdir()
    elif request.param == "module":
        path.write_bytes(b"\0asm\1\0\0\0")
    return path


@pytest.mark.parametrize(
    "bad_runtime", ["nothing", "text", "empty folder", "module"], indirect=True
)
def test_bad_runtime_is_one_clear_error_in_each_cell(start_kernel, tmp_path, bad_runtime):
    cache = tmp_path / "cache"
    env = {"WASI_KERNEL_RUNTIME": str(bad_runtime), caches.ENV: str(cache)}
    kernel = start_kernel(env=env, ready=False)
    pid = kernel.pid
    for k in range(1, 3):
        answer = kernel.run("1 + 1")
        assert answer.content["status"] == "error"
        assert answer.content["ename"] == "InstallationError"
        assert answer.content["execution_count"] == k
        (error,) = answer.of("error")
        assert bad_runtime.name in error["evalue"]
        assert "Traceback" not in error["evalue"]
        assert answer.kinds[-1] == "idle"
    said = kernel.ask("complete_request", {"code": "zi", "cursor_pos": 2})
    assert (said["status"], said["matches"]) == ("ok", [])
    said = kernel.ask("inspect_request", {"code": "zip", "cursor_pos": 3, "detail_level": 0})
    assert (said["status"], said["found"]) == ("ok", False)
    assert kernel.ask("is_complete_request", {"code": "1"}) == {"status": "unknown"}
    assert kernel.ask("comm_info_request") == {"status": "ok", "comms": {}}
    assert kernel.ask("kernel_info_request")["status"] == "ok"
    assert kernel.pid == pid
    assert kernel.manager.is_alive()


def test_bad_cache_folder_is_one_clear_error(start_kernel, tmp_path):
    file = tmp_path / "no-folder"
    file.write_text("")
    kernel = start_kernel(env={caches.ENV: str(file)}, ready=False)
    answer = kernel.run("1")
    assert answer.content["ename"] == "InstallationError"
    assert caches.ENV in answer.content["evalue"]
    assert kernel.manager.is_alive()
