"""What type checkers make of tools. Checked by pyright with the sources; never run."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, assert_type

from pydantic import BaseModel

from rejoinder import turn
from rejoinder.llm.chat_context import ChatContext
from rejoinder.llm.llm import LLM
from rejoinder.llm.tool_context import (
    FunctionTool,
    ProviderTool,
    RawFunctionTool,
    RunContext,
    Tool,
    ToolChoice,
    ToolContext,
    Toolset,
    find_function_tools,
    function_tool,
    is_function_tool,
    is_raw_function_tool,
)
from rejoinder.llm.utils import execute_function_call, prepare_function_arguments


@function_tool
async def plain(city: str, days: int = 3) -> str:
    return f"{city} {days}"


@function_tool(name="named", timeout=3, interruptible=False)
async def named(city: str) -> int:
    return len(city)


@function_tool
def sync(a: int) -> float:
    return a / 2


@function_tool(raw_schema={"name": "raw", "description": "d", "parameters": {}})
async def raw(raw_arguments: dict[str, object]) -> None: ...


class Holder:
    @function_tool
    async def method(self, city: str, ctx: RunContext[int]) -> str:
        assert_type(ctx.userdata, int)
        return city

    @function_tool(name="other")
    async def other(self) -> None: ...

    @function_tool(raw_schema={"name": "raw", "parameters": {}})
    async def raw(self, raw_arguments: dict[str, object]) -> int:
        return 1


async def calls() -> None:
    assert_type(await plain("Oslo", days=2), str)
    assert_type(await named("Oslo"), int)
    assert_type(sync(3), float)
    assert_type(await raw({}), None)
    holder = Holder()
    assert_type(await holder.method("Oslo", RunContext[int](userdata=1)), str)
    assert_type(await holder.other(), None)
    assert_type(await holder.raw({}), int)
    assert_type(plain.info.name, str)
    assert_type(raw.info.raw_schema, dict[str, Any])
    await plain(3)  # pyright: ignore[reportArgumentType]
    await holder.method()  # pyright: ignore[reportCallIssue]


def shapes(holder: Holder) -> None:
    typed: FunctionTool[[str], Coroutine[Any, Any, int]] = named
    tools: list[FunctionTool | RawFunctionTool] = [plain, named, sync, raw, holder.method, typed]
    more: list[Tool] = [*tools, ProviderTool(id="web"), Toolset(id="set", tools=[plain])]
    context = ToolContext(more)
    assert_type(context.function_tools, dict[str, FunctionTool | RawFunctionTool])
    assert_type(find_function_tools(holder), list[FunctionTool | RawFunctionTool])
    ToolContext([plain, holder.other])
    ToolContext([len])  # pyright: ignore[reportArgumentType]


def narrowing(thing: object) -> None:
    if is_function_tool(thing):
        prepare_function_arguments(fnc=thing, json_arguments="{}")
    if is_raw_function_tool(thing):
        assert_type(thing.info.raw_schema, dict[str, Any])


def narrowing_by_class(thing: object) -> None:
    if isinstance(thing, FunctionTool):
        assert_type(thing.info.description, str | None)


def choices() -> list[ToolChoice]:
    return ["auto", "required", "none", {"type": "function", "function": {"name": "plain"}}]


class Ticket(BaseModel):
    title: str


async def turns(llm: LLM[Any], context: ChatContext) -> None:
    async with turn.run_turn(llm, context, tools=[plain, Holder().method]) as running:
        async for event in running:
            match event:
                case turn.Text(text) | turn.Thinking(text):
                    assert_type(text, str)
                case turn.Partial(value):
                    assert_type(value, Any)
                case turn.Restarted(discard):
                    assert_type(discard, str)
                case turn.ToolStarted(call):
                    assert_type(call.name, str)
                case turn.ToolFinished(_, output):
                    assert_type(output.is_error, bool)
                case turn.ToolPaused(call):
                    assert_type(call.call_id, str)
                case turn.Usage(usage):
                    assert_type(usage.total_tokens, int)
                case turn.Done():
                    assert_type(event.text, str)
    typed = await turn.run_turn(llm, "a ticket, please", response_format=Ticket).collect()
    assert_type(typed.output, Ticket | None)
    untyped = await turn.run_turn(llm, context, response_format={"type": "object"}).collect()
    assert_type(untyped.output, Any | None)
    result = await execute_function_call(_call(), ToolContext([plain]))
    assert_type(result.fnc_call_out.output, str)


def _call() -> Any: ...
