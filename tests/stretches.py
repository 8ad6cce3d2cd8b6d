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

import hpack
from pydantic import BaseModel

from contract.hostile import sending
from contract.rows import ROWS, Row
from mcp_memory import Memory
from raw_frames import (
    BINARY,
    CONTINUED,
    PING,
    PONG,
    TEXT,
    http2_frame,
    http2_sending,
    ws_frame,
    ws_sending,
)
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
from rejoinder.providers.aws.realtime import RealtimeModel as NovaSonic
from rejoinder.providers.google.realtime import RealtimeModel as GeminiLive
from rejoinder.providers.openai.live import GPTLiveModel
from rejoinder.providers.openai.realtime import RealtimeModel
from rejoinder.testing import Call, FaultServer, ScriptedLLM, Usage
from rejoinder.testing._dialects import DIALECTS
from rejoinder.turn import run_turn
from rejoinder.types import APIConnectOptions
from rejoinder.wire.eventstream import encode_message

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
    row = ROWS[0]
    calling, done = answered(row, calls=(call,)), answered(row, text=("done",))

    async def work() -> None:
        with sending(row, calling, done) as url:
            async with row.make(url) as llm:
                await run_turn(llm, "hi", tools=[count], conn_options=OPTIONS).collect()

    return work


def answered(row: Row, *, text: tuple[str, ...] = (), calls: tuple[Call, ...] = ()) -> bytes:
    """The body of an answer, made beforehand: the work of the server is not measured."""
    made = DIALECTS[row.format].render(text, calls, "", Usage())
    return b"".join([*made.opening, *made.outputs, *made.closing])


# realtime ------------------------------------------------------------------------------------


def event(start: str, unit: str, size: int, end: str) -> list[bytes]:
    """Frames of 3 MB at most."""
    most = 3_000_000
    sizes = [most] * (size // most) + [size % most]
    return [ws_frame(TEXT, (start + repeated(unit, n) + end).encode()) for n in sizes]


def few(size: int) -> int:
    """So many frames that each takes part in it, and not minutes."""
    return min(size, 400_000)


FRAMES: Final[dict[str, Callable[[int], list[bytes]]]] = {
    "empty lists": lambda n: event('{"type":"x","x":[', "[],", n, "1]}"),
    "numbers": lambda n: event('{"type":"x","x":[', "1,", n, "1]}"),
    "lists in lists": lambda n: event(
        '{"type":"x","x":[', "[" * 400 + "]" * 400 + ",", max(n, 801), "1]}"
    ),
    "names": lambda n: [
        ws_frame(TEXT, json.dumps({f"k{i}": 1 for i in range(min(n, 3_000_000) // 12)}).encode())
    ],
    "open brackets": lambda n: event("", "[", n, ""),
    "open objects": lambda n: event('{"type":"response.done","response":', '{"a":', n, ""),
    "escapes": lambda n: event('{"type":"x","x":"', '\\"', n, '"}'),
    "halves of pairs": lambda n: event('{"type":"x","x":"', "\\ud800", n, '"}'),
    "digits": lambda n: event('{"type":"x","x":', "9", n, "}"),
    "sound": lambda n: event('{"type":"session.output_audio.delta","delta":"', "kAkA", n, '"}'),
    "words": lambda n: event('{"type":"session.output_transcript.delta","delta":"', "a ", n, '"}'),
    "table in a text": lambda n: event('{"type":"x","x":"', "1,[2],", n, '"}'),
    "small frames": lambda n: [ws_frame(TEXT, b"{}") * (few(n) // 4)],
    "empty frames": lambda n: [ws_frame(BINARY) * (few(n) // 2)],
    "pings": lambda n: [ws_frame(PING) * (few(n) // 2)],
    "pongs": lambda n: [ws_frame(PONG) * (few(n) // 2)],
    "single bytes": lambda n: [
        ws_frame(TEXT, b'"', last=False)
        + ws_frame(CONTINUED, b"a", last=False) * (few(n) // 3)
        + ws_frame(CONTINUED, b'"')
    ],
    "frames without bytes": lambda n: [
        ws_frame(TEXT, b'"', last=False) + ws_frame(CONTINUED, last=False) * (few(n) // 2)
    ],
}
BEGUN: Final = {
    RealtimeModel: ws_frame(TEXT, b'{"type":"session.updated","session":{}}'),
    GPTLiveModel: ws_frame(TEXT, b'{"type":"session.started","session":{"id":"s"}}'),
    GeminiLive: ws_frame(TEXT, b'{"setupComplete":{}}'),
}


def session(make: Any, frames: Callable[[int], list[bytes]], size: int) -> Work:
    body = frames(size)

    async def work() -> None:
        async with ws_sending(lambda: [BEGUN[make], *body]) as url:
            model = make(base_url=url, api_key="any", conn_options=OPTIONS)
            ended = asyncio.Event()
            model.session().on("error", lambda told: told.recoverable or ended.set())
            await ended.wait()
            await model.aclose()

    return work


HTTP2: Final[dict[str, bytes]] = {
    "pings": http2_frame(6, 0, 0, bytes(8)),
    "settings": http2_frame(4, 0, 0),
    "windows": http2_frame(8, 0, 1, b"\0\0\0\1"),
    "resets": http2_frame(3, 0, 3, bytes(4)),
    "unknown frames": http2_frame(77, 0, 1),
    "heads": http2_frame(1, 4, 1, hpack.Encoder().encode([(":status", "103"), ("a", "b")])),
    "empty data": http2_frame(0, 0, 1),
    "small messages": http2_frame(0, 0, 1, encode_message({}, b"") * 1000),
    "small chunks": http2_frame(
        0, 0, 1, encode_message({":message-type": "event", ":event-type": "chunk"}, b"{}") * 200
    ),
    "messages of empty lists": http2_frame(
        0,
        0,
        1,
        encode_message({":message-type": "event", ":event-type": "chunk"}, b"[" + b"[]," * 5000)[
            :16_384
        ],
    ),
}


def sonic(frame: bytes, size: int) -> Work:
    body = frame * max(1, size // len(frame))

    async def work() -> None:
        async with http2_sending(lambda: [body]) as url:
            model = NovaSonic(
                base_url=url,
                api_key="any",
                api_secret="any",
                region="eu-north-1",
                conn_options=OPTIONS,
            )
            ended = asyncio.Event()
            model.session().on("error", lambda told: told.recoverable or ended.set())
            await ended.wait()
            await model.aclose()

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
    for name, make_frames in FRAMES.items():
        model: Any = GPTLiveModel if name in ("sound", "words") else RealtimeModel
        yield f"realtime: {name}", lambda n, m=model, f=make_frames: session(m, f, n)
    yield "realtime, Gemini: numbers", lambda n: session(GeminiLive, FRAMES["numbers"], n)
    for name, frame in HTTP2.items():
        yield f"HTTP/2: {name}", lambda n, frame=frame: sonic(frame, n)


SCENARIOS: Final[dict[str, Callable[[int], Work]]] = dict(_table())
