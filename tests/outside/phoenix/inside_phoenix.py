"""Sends the spans of one turn, with a fallback and a tool call, to the address of an OTLP receiver."""

from __future__ import annotations

import asyncio
import sys

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from rejoinder import FallbackAdapter, function_tool, run_turn, telemetry
from rejoinder.errors import APIStatusError
from rejoinder.llm import ChatContext, CompletionUsage, FunctionToolCall
from rejoinder.testing import ScriptedLLM


@function_tool
async def order_status(order_id: str) -> str:
    """Where an order is."""
    return "shipped"


def usage(prompt: int, completion: int, cached: int = 0) -> CompletionUsage:
    return CompletionUsage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=prompt + completion,
        prompt_cached_tokens=cached,
        cache_read_tokens=cached,
    )


async def turn() -> None:
    call = FunctionToolCall(name="order_status", arguments='{"order_id": "A17"}', call_id="call_1")
    down = APIStatusError("overloaded", status_code=503)
    first = ScriptedLLM(
        [call, usage(120, 9, 100)], down, model="gpt-4.1", provider="api.openai.com"
    )
    second = ScriptedLLM(
        ["Your order ", "is on its way.", usage(150, 12)],
        model="claude-sonnet-4-5",
        provider="api.anthropic.com",
    )
    chat_ctx = ChatContext.empty()
    chat_ctx.add_message(role="system", content="Be brief.")
    chat_ctx.add_message(role="user", content="Where is A17?")
    await run_turn(FallbackAdapter([first, second]), chat_ctx, tools=[order_status]).collect()


def main() -> None:
    resource = Resource.create({"openinference.project.name": "turns"})
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(endpoint=sys.argv[1])))
    telemetry.set_tracer_provider(provider)
    telemetry.capture_content("SPAN_ONLY")
    asyncio.run(turn())
    provider.shutdown()


main()
