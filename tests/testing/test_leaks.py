"""The leak meter must be able to fail."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest

from rejoinder.testing import LeakError, measure_memory, no_leaks


async def test_nothing_left_is_fine() -> None:
    async with no_leaks(max_memory=1 << 20):
        left, right = socket.socketpair()
        left.close()
        right.close()
        await asyncio.create_task(asyncio.sleep(0))


async def test_what_is_about_to_end_may_do_so() -> None:
    async with no_leaks():
        task = asyncio.create_task(asyncio.sleep(0.05))
    assert task.done()


async def test_a_task_that_is_left() -> None:
    task: asyncio.Task[None] | None = None
    with pytest.raises(LeakError, match=r"task .*name='forgotten'"):
        async with no_leaks():
            task = asyncio.create_task(asyncio.sleep(60), name="forgotten")
    assert task is not None
    task.cancel()


async def test_a_socket_that_is_left() -> None:
    left, right = socket.socketpair()
    right.close()
    left.close()
    with pytest.raises(LeakError, match="socket fd"):
        async with no_leaks():
            left, right = socket.socketpair()
    left.close()
    right.close()


async def test_a_file_that_is_left(tmp_path: Path) -> None:
    handle: Any = None
    with pytest.raises(LeakError, match="file fd"):
        async with no_leaks():
            handle = (tmp_path / "x").open("w")
    handle.close()


async def test_too_much_memory() -> None:
    with pytest.raises(LeakError, match=r"memory grew by \d+ bytes; at most 1000000"):
        async with no_leaks(max_memory=1_000_000):
            bytearray(3_000_000)


async def test_an_error_inside_is_the_error_that_is_seen() -> None:
    async def fail() -> None:
        async with no_leaks(max_memory=0):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()


def test_memory_is_measured_at_its_worst_moment() -> None:
    with measure_memory() as use:
        block = bytearray(5_000_000)
        del block
        with measure_memory() as inner:
            bytearray(1_000_000)
    assert 5_000_000 <= use.peak < 6_000_000
    assert 1_000_000 <= inner.peak < 2_000_000
