"""OpenTelemetry is imported once something may be recorded, and not before."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

CONVERSATION = """
import asyncio, sys
from rejoinder.llm import ChatContext
from rejoinder.testing import ScriptedLLM, ScriptedRealtimeModel, ServerReply
from rejoinder.turn import run_turn

async def talk():
    context = ChatContext.empty()
    context.add_message(role="user", content="hi")
    async with run_turn(ScriptedLLM("text"), context) as turn:
        async for _ in turn:
            pass
    model = ScriptedRealtimeModel(ServerReply(["sound"]))
    session = model.session()
    reply = await session.generate_reply()
    async for message in reply.message_stream:
        async for _ in message.audio_stream:
            pass
    await model.aclose()

asyncio.run(talk())
print("opentelemetry" in sys.modules)
"""
THEN = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

provider, spans = TracerProvider(), InMemorySpanExporter()
provider.add_span_processor(SimpleSpanProcessor(spans))
trace.set_tracer_provider(provider)
asyncio.run(talk())
print(*sorted({span.name for span in spans.get_finished_spans()}))
"""


def said(code: str, **variables: str) -> list[str]:
    """The lines that a fresh interpreter prints."""
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
        | variables,
    )
    return result.stdout.splitlines()


def test_a_conversation_that_is_not_recorded_imports_nothing_of_it() -> None:
    assert said(CONVERSATION) == ["False"]


def test_a_provider_set_later_is_found() -> None:
    assert said(CONVERSATION + THEN) == [
        "False",
        "agent_turn llm_request llm_request_run realtime_reply",
    ]


@pytest.mark.parametrize("signal", ["TRACER", "METER"])
def test_a_provider_that_the_environment_names_is_found(signal: str) -> None:
    asked = (
        "\nfrom rejoinder.telemetry import _configured"
        f"\nprint(type(_configured.{signal.lower()}_provider()).__module__)"
    )
    variable = {f"OTEL_PYTHON_{signal}_PROVIDER": f"sdk_{signal.lower()}_provider"}
    home = {"TRACER": "opentelemetry.sdk.trace", "METER": "opentelemetry.sdk.metrics._internal"}
    assert said(CONVERSATION + asked, **variable) == ["True", home[signal]]
