"""One conversation that every provider is asked to go on with, and a look at what is sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from rejoinder.errors import APIError
from rejoinder.llm.chat_context import ChatContext
from rejoinder.llm.tool_context import function_tool
from rejoinder.testing.faults import Answer, FaultServer, ReceivedRequest
from rejoinder.types import APIConnectOptions

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
IMAGE = f"data:image/png;base64,{PNG}"
ONCE = APIConnectOptions(max_retry=0, timeout=20.0)


@function_tool
async def get_weather(
    city: str, unit: Literal["c", "f"] = "c", days: int | None = None
) -> str:  # pragma: no cover - only its schema is used
    """Look up the weather.

    Args:
        city: The city name
        unit: Temperature unit
    """
    return "sunny"


@function_tool(
    raw_schema={
        "name": "raw_tool",
        "description": "raw",
        "parameters": {
            "type": "object",
            "properties": {"x": {"type": "integer", "title": "X"}},
            "required": [],
            "additionalProperties": True,
        },
    }
)
async def raw_tool(raw_arguments: dict[str, Any]) -> str:  # pragma: no cover
    return "raw"


TOOLS = [get_weather, raw_tool]

# What the schemas of these two are in plain form.
WEATHER_SCHEMA: dict[str, Any] = {
    "properties": {
        "city": {"description": "The city name", "title": "City", "type": "string"},
        "unit": {
            "default": "c",
            "description": "Temperature unit",
            "enum": ["c", "f"],
            "title": "Unit",
            "type": "string",
        },
        "days": {
            "anyOf": [{"type": "integer"}, {"type": "null"}],
            "default": None,
            "title": "Days",
        },
    },
    "required": ["city"],
    "title": "GetWeatherArgs",
    "type": "object",
}
RAW_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"x": {"type": "integer", "title": "X"}},
    "required": [],
    "additionalProperties": True,
}


def conversation(*, image: bool = True, url: bool = False) -> ChatContext:
    """Instructions, a picture, two calls at once (one failed), and a question."""
    from rejoinder.llm import ImageContent
    from rejoinder.llm.chat_context import FunctionCall, FunctionCallOutput

    context = ChatContext.empty()
    context.add_message(role="system", content="You are S.")
    content: list[Any] = ["look"]
    if image:
        content.append(ImageContent(image=IMAGE))
    if url:
        content.append(ImageContent(image="https://example.com/a.jpg", inference_detail="low"))
    context.add_message(role="user", content=content)
    context.add_message(role="assistant", content="Checking.", id="g/0")
    context.insert(
        [
            FunctionCall(
                id="g/1", call_id="call_1", name="get_weather", arguments='{"city":"Rome"}'
            ),
            FunctionCall(id="g/2", call_id="call_2", name="raw_tool", arguments=""),
            FunctionCallOutput(
                call_id="call_1", name="get_weather", output="sunny", is_error=False
            ),
            FunctionCallOutput(call_id="call_2", name="raw_tool", output="boom", is_error=True),
        ]
    )
    context.add_message(role="user", content="and now?")
    return context


async def sent(
    make: Callable[[str], Any],
    context: ChatContext | None = None,
    *,
    answer: Answer | None = None,
    **options: Any,
) -> ReceivedRequest:
    """The request that the LLM of `make` sends to continue `context`."""
    async with FaultServer() as server, make(server.url) as llm:
        if answer is not None:
            server.script(answer)
        options.setdefault("conn_options", ONCE)
        try:
            await llm.chat(chat_ctx=context or conversation(), **options).collect()
        except APIError:
            if answer is None:
                raise
        assert len(server.requests) == 1
        return server.requests[0]
