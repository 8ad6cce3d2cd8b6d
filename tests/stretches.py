"""Work that others decide, and the longest stretch of it between two turns of the event loop.

`SCENARIOS` is a table: a name, and what makes work of about so many bytes. `bench/hostile.py` measures
its stretches in time, `tests/test_stretches.py` counts what is called in them.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final

from pydantic import BaseModel

from contract.rows import ROWS, Row
from mcp_memory import Memory
from rejoinder.errors import APIError
from rejoinder.llm import (
    ChatContext,
    FunctionCall,
    FunctionCallOutput,
    ToolContext,
    execute_function_call,
    function_tool,
    mcp,
)
from rejoinder.llm.tool_context import ToolError
from rejoinder.testing import Answer, Call, FaultServer, ScriptedLLM
from rejoinder.turn import run_turn
from rejoinder.types import APIConnectOptions

__all__ = ["SCENARIOS", "Stretches", "measured"]

Work = Callable[[], Awaitable[object]]
OPTIONS = APIConnectOptions(max_retry=0, timeout=60)


class Stretches:
    """The longest stretch that the running loop has worked, by a clock."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.longest = 0.0

    @contextlib.contextmanager
    def watched(self) -> Iterator[Stretches]:
        original = asyncio.events.Handle._run
        clock = self.clock

        def run(handle: Any) -> Any:
            began = clock()
            try:
                return original(handle)
            finally:
                self.longest = max(self.longest, clock() - began)

        asyncio.events.Handle._run = run  # type: ignore[method-assign]
        try:
            yield self
        finally:
            asyncio.events.Handle._run = original  # type: ignore[method-assign]


async def measured(work: Work, clock: Callable[[], float]) -> float:
    """The longest stretch of `work`."""
    gc.collect()
    gc.disable()  # a collection costs as much as the whole process holds, whatever arrives
    try:
        with Stretches(clock).watched() as stretches:
            await asyncio.sleep(0)
            with contextlib.suppress(APIError, ToolError):
                await asyncio.create_task(_awaited(work))
            return stretches.longest
    finally:
        gc.enable()


async def _awaited(work: Work) -> object:
    return await work()


def repeated(unit: str, size: int) -> str:
    return unit * max(1, size // len(unit))


# arguments -----------------------------------------------------------------------------------


@function_tool
async def count(names: list[int], table: dict[str, int] | None = None) -> str:
    return str(len(names))


ARGUMENTS: Final[dict[str, Callable[[int], str]]] = {
    "all wrong": lambda n: '{"names":[' + repeated('"x",', n) + '"x"]}',
    "all null": lambda n: '{"names":[' + repeated("null,", n) + "null]}",
    "in a text": lambda n: json.dumps({"names": json.dumps(list(range(n // 7)))}),
    "single quotes": lambda n: "{'names':[" + repeated("'7',", n) + "'7']}",
    "a comma too many": lambda n: '{"names":[' + repeated("7,", n) + "]}",
    "cut": lambda n: '{"names":[' + repeated("7,", n),
    "open": lambda n: "{" * n,
    "backslashes": lambda n: '{"names":"' + "\\" * (n | 1) + '"}',
    "Python": lambda n: '{"names":[' + repeated("None,True,", n) + "1]}",
    "a fence": lambda n: "```json\n" + '{"names":[' + repeated("7,", n) + "7]}\n```",
    "an object many times": lambda n: repeated('{"names":[1]}', n),
    "names without quotes": lambda n: "{" + repeated("a:1,", n) + "names:[1]}",
    "digits": lambda n: '{"names":[' + "9" * n + "]}",
    "many names": lambda n: "{" + "".join(f'"k{i}":1,' for i in range(n // 9)) + '"names":[2]}',
}


def arguments(make: Callable[[int], str], size: int) -> Work:
    call = FunctionCall(call_id="c", name="count", arguments=make(size))
    return lambda: execute_function_call(call, ToolContext([count]))


# outputs of tools ----------------------------------------------------------------------------


class Item(BaseModel):
    a: int = 1


OUTPUTS: Final[dict[str, Callable[[int], Any]]] = {
    "small objects": lambda n: [{"a": i, "b": [i]} for i in range(n // 40)],
    "numbers": lambda n: list(range(n // 8)),
    "a dict": lambda n: {str(i): i for i in range(n // 16)},
    "a set": lambda n: set(range(n // 8)),
    "models": lambda n: [Item() for _ in range(n // 40)],
    "a text": lambda n: "x" * n,
}


def output(make: Callable[[int], Any], size: int) -> Work:
    value = make(size)

    async def tool() -> Any:
        return value

    made = function_tool(tool, name="tool", description="Returns much.")
    call = FunctionCall(call_id="c", name="tool", arguments="{}")
    return lambda: execute_function_call(call, ToolContext([made]))


# results of MCP servers ----------------------------------------------------------------------

RESULTS: Final[dict[str, Callable[[int], dict[str, Any]]]] = {
    "parts": lambda n: {"content": [{"type": "text", "text": "x"}] * (n // 50)},
    "unknown parts": lambda n: {"content": [{"type": "nonsense"}] * (n // 30)},
    "numbers": lambda n: {"content": [1] * (n // 4)},
    "images": lambda n: {
        "content": [{"type": "image", "data": "QUJD", "mimeType": "image/png"}] * (n // 60)
    },
    "an error": lambda n: {"content": [{"type": "text", "text": "x"}] * (n // 50), "isError": True},
    "structured": lambda n: {
        "content": [],
        "structuredContent": {"a": [{"b": i} for i in range(n // 12)]},
    },
    "structured and told": lambda n: {
        "content": [{"type": "text", "text": json.dumps([{"b": i} for i in range(n // 24)])}],
        "structuredContent": {"result": [{"b": i} for i in range(n // 24)]},
    },
    "a text": lambda n: {"content": [{"type": "text", "text": "x" * n}]},
    "an image": lambda n: {
        "content": [{"type": "image", "data": "QUJD" * (n // 4), "mimeType": "image/png"}]
    },
}


def result(make: Callable[[int], dict[str, Any]], size: int) -> Work:
    answer = make(size)

    async def work() -> None:
        async def reply(message: dict[str, Any], send: Any) -> None:
            await send(id=message["id"], result=answer)

        async with mcp.MCPToolset(id="m", mcp_server=Memory(reply)) as tools:
            call = FunctionCall(call_id="c", name="t", arguments="{}")
            await execute_function_call(call, ToolContext([tools]))

    return work


LISTS: Final[dict[str, Callable[[int], list[dict[str, Any]]]]] = {
    "many tools": lambda n: [
        {
            "name": f"t{i}",
            "inputSchema": {"type": "object", "properties": {"a": {"type": "string"}}},
        }
        for i in range(n // 80)
    ],
    "one wide schema": lambda n: [
        {
            "name": "t",
            "inputSchema": {
                "type": "object",
                "properties": {f"p{i}": {"type": "string"} for i in range(n // 30)},
            },
        }
    ],
    "wide schemas": lambda n: [
        {
            "name": f"t{i}",
            "inputSchema": {
                "type": "object",
                "properties": {f"p{j}": {"type": "string"} for j in range(1000)},
            },
        }
        for i in range(max(1, n // 30_000))
    ],
    "choices": lambda n: [
        {
            "name": "t",
            "inputSchema": {
                "type": "object",
                "properties": {"a": {"anyOf": [{"const": i} for i in range(n // 14)]}},
            },
        }
    ],
    "a description": lambda n: [
        {"name": "t", "description": "x" * n, "inputSchema": {"type": "object"}}
    ],
}


def listing(make: Callable[[int], list[dict[str, Any]]], size: int) -> Work:
    tools = make(size)

    class Server(Memory):
        async def answer(self, message: dict[str, Any], send: Any) -> None:
            if message["method"] == "tools/list":
                await send(id=message["id"], result={"tools": tools})
            else:
                await super().answer(message, send)

    async def work() -> None:
        async with (
            FaultServer() as server,
            ROWS[0].make(server.url) as llm,
            mcp.MCPToolset(id="m", mcp_server=Server()) as toolset,
        ):
            await llm.chat(chat_ctx=history(4), tools=toolset.tools, conn_options=OPTIONS).collect()

    return work


# histories -----------------------------------------------------------------------------------


def history(
    items: int, *, text: str = "x", arguments: str = "{}", paired: bool = True
) -> ChatContext:
    context = ChatContext.empty()
    for number in range(items // 4):
        context.add_message(role="user", content=text)
        context.add_message(role="assistant", content=text)
        call_id = f"c{number}"
        context.items.append(FunctionCall(call_id=call_id, name="t", arguments=arguments))
        if paired or number % 2:
            context.items.append(
                FunctionCallOutput(call_id=call_id, name="t", output=text, is_error=False)
            )
    context.add_message(role="user", content=text)
    return context


HISTORIES: Final[dict[str, Callable[[int], ChatContext]]] = {
    "items": lambda n: history(n // 600),
    "items that do not pair": lambda n: history(n // 600, paired=False),
    "long texts": lambda n: history(40, text="x" * (n // 40)),
    "texts of Unicode": lambda n: history(40, text="\U0001f600\u00e9" * (n // 240)),
    "broken arguments": lambda n: history(40, arguments="{'a': " * (n // 60)),
}


def asked(row: Row, make: Callable[[int], ChatContext], size: int) -> Work:
    context = make(size)

    async def work() -> None:
        async with FaultServer() as server, row.make(server.url) as llm:
            await llm.chat(chat_ctx=context, conn_options=OPTIONS).collect()

    return work


# whole turns ---------------------------------------------------------------------------------


class Shape(BaseModel):
    names: list[int]


class Speaker(ScriptedLLM):
    """Says the pieces it was made with."""

    def __init__(self, pieces: tuple[str, ...]) -> None:
        super().__init__()
        self.pieces = pieces

    def _next(self, call: Any) -> Any:
        return self.pieces


def answer(piece: int, size: int) -> Work:
    body = '{"names":[' + repeated("7,", size) + "7]}"
    llm = Speaker(tuple(body[i : i + piece] for i in range(0, len(body), piece)))

    async def work() -> None:
        async with run_turn(llm, "hi", response_format=Shape, conn_options=OPTIONS) as turn:
            async for _ in turn:
                pass

    return work


def called(make: Callable[[int], str], size: int) -> Work:
    call = Call("count", make(size))

    async def work() -> None:
        async with FaultServer() as server, ROWS[0].make(server.url) as llm:
            server.script(Answer(calls=[call]), Answer(text="done"))
            async with run_turn(llm, "hi", tools=[count], conn_options=OPTIONS) as turn:
                async for _ in turn:
                    pass

    return work


def _table() -> Iterator[tuple[str, Callable[[int], Work]]]:
    for name, make in ARGUMENTS.items():
        yield f"arguments: {name}", lambda n, make=make: arguments(make, n)
    for name, make_output in OUTPUTS.items():
        yield f"output: {name}", lambda n, make=make_output: output(make, n)
    for name, make_result in RESULTS.items():
        yield f"MCP result: {name}", lambda n, make=make_result: result(make, n)
    for name, make_list in LISTS.items():
        yield f"MCP list: {name}", lambda n, make=make_list: listing(make, n)
    for row in {row.format: row for row in reversed(ROWS)}.values():
        for name, make_history in HISTORIES.items():
            yield (
                f"history: {name}, {row.name}",
                lambda n, make=make_history, row=row: asked(row, make, n),
            )
    for piece in (1, 20, 1000):
        yield (
            f"typed answer in pieces of {piece}",
            lambda n, piece=piece: answer(piece, min(n, 20_000 * piece)),
        )
    for name in ("all wrong", "a comma too many", "cut"):
        yield f"turn, arguments: {name}", lambda n, make=ARGUMENTS[name]: called(make, n)


SCENARIOS: Final[dict[str, Callable[[int], Work]]] = dict(_table())
