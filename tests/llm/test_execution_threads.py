"""Where the work on long arguments is done: nothing of it is left for the thread of the event loop."""

from __future__ import annotations

import gc
import json
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Annotated, Any

import pytest
from pydantic import BeforeValidator

from rejoinder.llm import FunctionCall, ToolContext, execute_function_call, function_tool

MANY = 2_000

made: Counter[int] = Counter()
freed: Counter[int] = Counter()
"""Values, by the thread that has made or freed them."""


class Value:
    """What an argument was read into; its errors hold it, as they hold every input."""

    def __init__(self) -> None:
        made[threading.get_ident()] += 1

    def __del__(self) -> None:
        freed[threading.get_ident()] += 1


def read(_: Any) -> Value:
    return Value()


def refuse(value: Value) -> int:
    raise ValueError("not a number", value)


@function_tool
async def count(names: list[Annotated[int, BeforeValidator(refuse), BeforeValidator(read)]]) -> str:
    return str(len(names))


@pytest.fixture(autouse=True)
def counted() -> Iterator[None]:
    made.clear()
    freed.clear()
    gc.collect()
    gc.disable()  # what only it would free is freed by any thread, at any time
    yield
    gc.enable()


async def test_values_of_failed_long_arguments_are_freed_in_their_thread() -> None:
    call = FunctionCall(
        call_id="c", name="count", arguments=json.dumps({"names": ["x" * 8] * MANY})
    )
    result = await execute_function_call(call, ToolContext([count]))
    assert result.fnc_call_out.is_error
    assert "not a number" in result.fnc_call_out.output
    assert made.total() >= MANY
    assert threading.get_ident() not in made
    assert freed == made
