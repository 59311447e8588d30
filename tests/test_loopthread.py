"""Shows an event loop that other threads use: what it runs, and its end."""

from __future__ import annotations

import asyncio
import threading

import pytest

from wasi_kernel.loopthread import LoopThread


async def thread_of() -> int:
    return threading.get_ident()


async def failing() -> None:
    raise ValueError("its own")


def test_results_and_errors_come_back_from_one_other_thread():
    loop = LoopThread()
    try:
        first, second = loop.run(thread_of()), loop.run(thread_of())
        assert first == second != threading.get_ident()
        with pytest.raises(ValueError, match="its own"):
            loop.run(failing())
    finally:
        loop.end()


def test_what_is_called_soon_is_called_in_order():
    loop = LoopThread()
    try:
        done: list[int] = []
        for k in range(3):
            loop.soon(lambda k=k: done.append(k))
        loop.run(asyncio.sleep(0))
        assert done == [0, 1, 2]
    finally:
        loop.end()


def test_its_thread_is_gone_at_the_end():
    before = threading.active_count()
    loop = LoopThread()
    assert threading.active_count() == before + 1
    loop.end()
    assert threading.active_count() == before
