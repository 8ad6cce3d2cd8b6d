"""What tests measure instead of time, which a busy machine makes meaningless."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


@contextmanager
def stopped_clock() -> Iterator[None]:
    """Stop the clock of the running loop: no timer fires that is not due already.

    What ends inside of the block needed no pause, timeout or deadline. What needs one hangs, until the
    time that each test has is up.
    """
    loop: Any = asyncio.get_running_loop()
    now = loop.time()
    loop.time = lambda: now
    try:
        yield
    finally:
        del loop.time


def steps(work: Callable[[], object]) -> int:
    """The number of bytecode instructions that `work()` takes.

    What happens inside of one call of a C function is not seen.
    """
    count = 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal count
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


def calls(work: Callable[[], object]) -> Counter[str]:
    """How often `work()` calls what: names of functions, also of those written in C."""
    count: Counter[str] = Counter()

    def note(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            count[frame.f_code.co_name] += 1
        elif event == "c_call":
            count[argument.__name__] += 1

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count
