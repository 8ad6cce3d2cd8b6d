"""Every public constructor and call, every parameter, wrong values: refused at once, by name.

A value is wrong if it does not fit the annotation. The call has to raise, and the error has to name
the parameter: an `AttributeError` from inside names none, and an option that is accepted fails later.
Values that fit may be refused too (a blank name, a negative time), by name as well.
"""

from __future__ import annotations

import ast
import asyncio
import collections.abc
import contextlib
import enum
import functools
import importlib
import inspect
import math
import re
import sys
import types
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pydantic
import pytest
import typing_extensions
from pydantic_core import SchemaError

from rejoinder import llm as llm_api
from rejoinder import media, telemetry, testing
from rejoinder.conversation import Conversation
from rejoinder.errors import APIError
from rejoinder.llm import CompletionUsage, mcp
from rejoinder.llm.chat_context import ChatContext
from rejoinder.llm.llm import LLMStream
from rejoinder.llm.tool_context import ToolContext, function_tool
from rejoinder.store import SqliteStore
from rejoinder.testing import ScriptedLLM
from rejoinder.types import NotGiven

ROOMS = [
    "rejoinder",
    "rejoinder.llm",
    "rejoinder.llm.chat_context",
    "rejoinder.llm.fallback_adapter",
    "rejoinder.llm.formats",
    "rejoinder.llm.mcp",
    "rejoinder.llm.remote_chat_context",
    "rejoinder.llm.tool_context",
    "rejoinder.llm.utils",
    "rejoinder.catalog",
    "rejoinder.conversation",
    "rejoinder.delegation",
    "rejoinder.errors",
    "rejoinder.media",
    "rejoinder.metrics",
    "rejoinder.speech",
    "rejoinder.store",
    "rejoinder.prices",
    "rejoinder.telemetry",
    "rejoinder.testing",
    "rejoinder.testing.h2_server",
    "rejoinder.testing.soak",
    "rejoinder.testing.sonic_server",
    "rejoinder.transport",
    "rejoinder.turn",
    "rejoinder.types",
    *(
        f"rejoinder.providers.{name}"
        for name in (
            "openai", "anthropic", "google", "aws", "mistralai", "inference", "langchain", "local",
            "openai.realtime", "openai.live", "google.realtime", "aws.realtime",
        )
    ),
]  # fmt: skip

OTHER_ROOMS = {
    # Why a module that the documentation imports is left out.
    "rejoinder.integrations": "tested beside the frameworks (tests/outside/integrations)",
    "rejoinder.llm.llm": "has its names in rejoinder.llm",
    "rejoinder.providers.openai.wire": "for tests of decoders",
    "rejoinder.transport._h2": "for tests of sessions",
    "rejoinder.transport.ws": "protocols of transports, and what is handed to them",
    "rejoinder.wire.sse": "for tests of decoders",
}


def test_every_module_of_the_documentation_is_here() -> None:
    home = Path(__file__).parents[2]
    pages = {*home.glob("docs/*.md"), home / "README.md", *home.glob("examples/**/*.py")}
    pages.remove(home / "docs" / "adding-a-provider.md")  # shows the inside
    named = {
        found
        for page in pages
        for found in re.findall(r"(?:from|import) (rejoinder[\w.]*)", page.read_text("utf-8"))
    }
    assert len(named) > 15
    listed = {*ROOMS, *OTHER_ROOMS}
    assert {one for one in named if one not in listed and one.rpartition(".")[0] not in OTHER_ROOMS
            and one != "rejoinder.providers"} == set()  # fmt: skip


def public() -> Iterator[tuple[str, Any]]:
    """Every public class and function, once, under the first name it is found by."""
    seen: set[int] = set()
    for room in ROOMS:
        module = importlib.import_module(room)
        for name in module.__all__:
            thing = getattr(module, name)
            called = inspect.isfunction(inspect.unwrap(thing))  # a cache may be around it
            if id(thing) in seen or not (inspect.isclass(thing) or called):
                continue
            seen.add(id(thing))
            yield f"{room}.{name}".removeprefix("rejoinder."), thing


# -- what is called, and how ----------------------------------------------------------------------


@function_tool
async def tool(a: int) -> int:
    return a


def chat_ctx() -> ChatContext:
    context = ChatContext.empty()
    context.add_message(role="user", content="hi", id="known")
    return context


@function_tool(raw_schema={"name": "raw", "parameters": {}})
async def raw_tool(raw_arguments: dict[str, object]) -> None: ...


class Graph:
    async def astream(self, *_: Any) -> Any:
        yield None


class Shape(pydantic.BaseModel):
    a: int


FRAME = media.AudioFrame(b"\0\0", 8000, 1, 1)
PICTURE = media.VideoFrame(1, 1, media.VideoBufferType.RGBA, b"\0\0\0\0")


async def nothing() -> Any:
    return
    yield


def filled() -> Any:
    remote = importlib.import_module("rejoinder.llm.remote_chat_context").RemoteChatContext()
    remote.insert(None, chat_ctx().items[0])
    return remote


def call_item() -> llm_api.FunctionCall:
    return llm_api.FunctionCall(name="tool", call_id="c", arguments='{"a": 1}')


class Model(ScriptedLLM):
    def _next(self, call: Any) -> Any:
        return ("hello",)


class Spoken(llm_api.RealtimeModel):
    def __init__(self) -> None:
        super().__init__(
            capabilities=llm_api.RealtimeCapabilities(True, True, True, False, True, True)
        )

    def session(self, *, turn_detection_disabled: bool = False) -> Any:
        raise AssertionError(turn_detection_disabled)

    async def aclose(self) -> None: ...


@functools.cache
def openai() -> Any:
    return importlib.import_module("rejoinder.providers.openai")


def a_second(_: Any) -> float:
    return 1.0


KEY = {"api_key": "k" * 20}
AT = {"base_url": "http://127.0.0.1:9"}
AWS = {"api_key": "a" * 20, "api_secret": "s" * 20, "region": "eu-west-1"}

BASE: dict[str, dict[str, Any]] = {
    # Arguments of a call that is right, where some are required or the environment decides.
    "create": {"name": "openai/gpt-4.1", **KEY},
    "create_api_error_from_http": {"message": "m", "status": 500},
    **{
        name: {"message": "m"}
        for name in (
            "APIError", "APIStatusError", "errors.EmptyResponseError", "errors.OutputMismatchError",
            "errors.RefusalError", "errors.WireError",
        )
    },
    "errors.is_retryable_status": {"status_code": 500},
    "ChatContext.add_message": {"role": "user", "content": "hi"},
    "ChatContext.commit_heard": {"until": "hi"},
    "ChatContext.find_insertion_index": {"created_at": 1.0},
    "ChatContext.from_dict": {"data": {"items": []}},
    "ChatContext.from_provider_format": {"format": "openai", "messages": []},
    "ChatContext.get_by_id": {"item_id": "x"},
    "ChatContext.index_by_id": {"item_id": "x"},
    "ChatContext.insert": {"item": call_item()},
    "ChatContext.is_equivalent": {"other": ChatContext.empty()},
    "ChatContext.merge": {"other_chat_ctx": ChatContext.empty()},
    "ChatContext.remove": {"item": "known"},
    "ChatContext.summarize": {"llm": Model()},
    "ChatContext.to_provider_format": {"format": "openai"},
    "ChatContext.truncate": {"max_items": 3},
    "FallbackAdapter": {"llm": [Model(), Model()]},
    "FallbackAdapter.chat": {"chat_ctx": chat_ctx()},
    "llm.RealtimeModelFallbackAdapter": {"models": [Spoken(), Spoken()]},
    "run_turn": {"llm": Model(), "chat_ctx": "hi"},
    "llm.ProviderTool": {"id": "x"},
    "llm.Toolset": {"id": "x"},
    "llm.ToolContext": {"tools": []},
    "llm.ToolContext.get_function_tool": {"name": "x"},
    "llm.ToolContext.parse_function_tools": {"format": "openai"},
    "llm.ToolContext.unknown_tool": {"name": "x"},
    "llm.ToolContext.update_tools": {"tools": []},
    "llm.execute_function_call": {"tool_call": call_item(), "tool_ctx": ToolContext([tool])},
    "llm.mcp.MCPServerHTTP": {"url": "http://127.0.0.1:9/mcp"},
    "llm.mcp.MCPServerStdio": {"command": "true", "args": []},
    "llm.mcp.MCPServerHTTP.call_tool": {"name": "x", "arguments": {}},
    "llm.mcp.MCPServerHTTP.get_prompt": {"name": "x"},
    "llm.mcp.MCPServerHTTP.read_resource": {"uri": "x://y"},
    "llm.mcp.MCPServerStdio.call_tool": {"name": "x", "arguments": {}},
    "llm.mcp.MCPServerStdio.get_prompt": {"name": "x"},
    "llm.mcp.MCPServerStdio.read_resource": {"uri": "x://y"},
    "llm.mcp.MCPToolset": {"id": "x", "mcp_server": mcp.MCPServerHTTP("http://127.0.0.1:9/mcp")},
    "llm.mcp.ElicitationAnswer": {"action": "cancel"},
    "llm.mcp.server_from_spec": {"spec": "http://127.0.0.1:9/mcp"},
    "llm.remote_chat_context.RemoteChatContext.delete": {"item_id": "known"},
    "llm.remote_chat_context.RemoteChatContext.get": {"item_id": "x"},
    "llm.remote_chat_context.RemoteChatContext.insert": {
        "previous_item_id": None,
        "message": call_item(),
    },
    "llm.formats.register_format": {"name": "x-format", "target": "json:dumps"},
    "llm.formats.repair": {"items": [], "provider": "openai"},
    "llm.formats.to_provider_format": {"format": "openai", "items": []},
    "llm.tool_context.get_function_info": {"f": tool},
    "llm.tool_context.get_raw_function_info": {"f": raw_tool},
    "llm.tool_context.get_tool_name": {"tool": tool},
    "llm.tool_context.get_tool_options": {"tool": tool},
    "llm.utils.build_legacy_openai_schema": {"function_tool": tool},
    "llm.utils.build_strict_openai_schema": {"function_tool": tool},
    "llm.utils.function_arguments_to_pydantic_model": {"func": tool},
    "llm.utils.parse_function_arguments": {"json_arguments": "{}"},
    "llm.utils.prepare_function_arguments": {"fnc": tool, "json_arguments": '{"a": 1}'},
    "llm.utils.serialize_image": {"image": llm_api.ImageContent(image="https://x.example/y.png")},
    "llm.utils.strip_thinking_tokens": {"content": "x", "thinking": asyncio.Event()},
    "llm.utils.to_openai_response_format": {"response_format": Shape},
    "llm.utils.to_response_format_param": {"response_format": Shape},
    "llm.utils.validated_arguments": {"fnc": tool, "json_arguments": '{"a": 1}'},
    "llm.utils.ThinkingTokenFilter.feed": {"text": "x"},
    "catalog.check_provider": {"provider": "openai"},
    "catalog.create_realtime": {"name": "openai/x", "base_url": "http://127.0.0.1:9/v1"},
    "media.audio_bytes": {"frame": FRAME},
    "media.to_audio_frame": {"value": FRAME},
    "media.to_video_frame": {"value": PICTURE},
    "speech.addresses_as_hosts": {"text": "x"},
    "speech.speakable": {"stream": nothing()},
    "speech.without_emoji": {"text": "x"},
    "telemetry.set_tracer_provider": {"provider": None},
    "telemetry.set_meter_provider": {"provider": None},
    "telemetry.redact_content": {"hook": None},
    "prices.Price": {"input": 1.0, "output": 2.0},
    "prices.set_prices": {"prices": {}},
    "prices.find_prices": {"provider": "p", "model": "m"},
    "prices.cost_of": {
        "usage": CompletionUsage(completion_tokens=1, prompt_tokens=1, total_tokens=2),
        "provider": "p",
        "model": "m",
    },
    "telemetry.propagate": {"http": ["gateway.example"], "mcp": False},
    "testing.assert_legal": {"provider": "openai", "history": []},
    "testing.byte_by_byte": {"data": b"abc"},
    "testing.every_cut": {"data": b"abc"},
    "testing.outcome_of": {"fault": testing.Fault.GZIP, "format": "openai"},
    "testing.outcome": {"make": lambda: None, "pieces": []},
    "llm.utils.compute_chat_ctx_diff": {"old_ctx": ChatContext.empty(), "new_ctx": chat_ctx()},
    "llm.utils.make_function_call_output": {
        "fnc_call": call_item(),
        "output": "x",
        "exception": None,
    },
    "catalog.register": {"provider": "x-provider", "target": "json:dumps"},
    "media.AudioFrame": {
        "data": b"\0\0",
        "sample_rate": 8000,
        "num_channels": 1,
        "samples_per_channel": 1,
    },
    "media.AudioFrame.create": {"sample_rate": 8000, "num_channels": 1, "samples_per_channel": 1},
    "media.VideoFrame": {"width": 1, "height": 1, "type": 4, "data": b"\0\0\0\0"},
    "testing.Call": {"name": "x"},
    "testing.FaultServer.always": {"answer": testing.Answer()},
    "testing.RecordingSocketTransport": {
        "inner": testing.replay_sessions([]),
        "path": "/tmp/never",
    },
    "testing.ReplaySocketTransport": {"source": []},
    "testing.RealtimeServer.fault": {},
    "testing.RealtimeServer.play": {"recording": testing.SessionRecording()},
    "testing.RealtimeServer.reply": {},
    "testing.RealtimeServer.say": {"text": "x"},
    "testing.sonic_server.SonicServer.until": {"condition": lambda: True},
    "testing.RealtimeServer.until": {"condition": lambda: True},
    "testing.ServerCall": {"name": "x"},
    "testing.check_realtime": {"make": testing.ScriptedRealtimeModel},
    "testing.record_sessions": {"path": "/tmp/never"},
    "testing.replay_sessions": {"source": []},
    "testing.RecordingTransport": {
        "inner": testing.replay([]),
        "path": "/tmp/never",
    },
    "testing.ReplayTransport": {"source": []},
    "testing.replay": {"source": []},
    "testing.record": {"path": "/tmp/never"},
    "testing.SimulatedModel": {"latency": a_second},
    "testing.check_history": {"provider": "openai", "history": []},
    "testing.check_llm": {"make": Model},
    "testing.check_decoder": {"make": lambda: None, "bodies": []},
    "testing.log_normal": {"median": 1.0},
    "testing.h2_server.H2Server": {"handler": lambda _: None},
    "testing.soak.soak": {"make": lambda _: Model(), "turns": 0},
    "testing.random_cuts": {"data": b"abc", "seed": 1},
    "testing.sized_cuts": {"data": b"abc", "sizes": [1]},
    "testing.simulate_policy": {
        "models": [testing.SimulatedModel(lambda _: 1.0)],
        "turns": 1,
    },
    "testing.ScriptedLLM.chat": {"chat_ctx": chat_ctx()},
    "telemetry.capture_content": {"on": False},
    "transport.AiohttpTransport.prewarm": {"url": "http://127.0.0.1:9"},
    "transport.Request": {"method": "POST", "url": "http://127.0.0.1:9"},
    "turn.pending_approvals": {"chat_ctx": ChatContext.empty()},
    "Conversation": {"store": SqliteStore("never.sqlite")},
    "Conversation.branch": {"item": "x"},
    "Conversation.heard": {"item": "x", "text": "x"},
    "Conversation.rewind": {"item": "x"},
    "Conversation.search": {"text": "x"},
    "store.SqliteStore": {"path": "never.sqlite"},
    "store.SqliteStore.append": {"conversation": "x", "records": [], "after": 0},
    "store.SqliteStore.media": {"names": []},
    "store.SqliteStore.read": {"conversation": "x"},
    "store.SqliteStore.remove": {"conversation": "x"},
    "store.SqliteStore.search": {"text": "x"},
    "providers.openai.LLM": {**KEY, **AT},
    "providers.openai.realtime.RealtimeModel": {**KEY, **AT},
    "providers.openai.realtime.RealtimeModelBeta": {**KEY, **AT},
    **{
        f"providers.openai.realtime.{name}.with_azure": {
            "azure_deployment": "d", "azure_endpoint": "https://x.example", "api_version": "v", **KEY,
        }
        for name in ("RealtimeModel", "RealtimeModelBeta")
    },
    "delegation.Delegate": {"llm": Model()},
    "providers.openai.live.DuplexModel": {**KEY, **AT},
    "providers.openai.live.DuplexModel.with_azure": {
        "azure_deployment": "d", "azure_endpoint": "https://x.example",
        "responses_options": {"model": "m"}, **KEY,
    },
    "providers.google.realtime.RealtimeModel": {**KEY, **AT},
    "providers.aws.realtime.RealtimeModel": {**AWS, **AT},
    "providers.openai.LLM.with_azure": {"azure_endpoint": "https://x.example", "api_version": "v", "model": "m", **KEY},
    "providers.openai.LLM.with_letta": {"agent_id": "a", **KEY},
    "providers.openai.LLM.with_ollama": {"model": "m"},
    "providers.anthropic.LLM": {**KEY, **AT},
    "providers.anthropic.LLM.with_azure": {"model": "m", "resource": "r", **KEY},
    "providers.anthropic.LLM.with_bedrock": {"model": "m", **AWS},
    "providers.anthropic.LLM.with_vertex": {"model": "m", "project": "p", "location": "l", "access_token": "t"},
    "providers.google.LLM": {**KEY, **AT},
    "providers.aws.LLM": {**AWS, **AT},
    "providers.mistralai.LLM": {**KEY, **AT},
    "providers.inference.LLM": {
        "model": "openai/gpt-4.1", "api_key": "k" * 20, "api_secret": "s" * 20, **AT,
    },
    "providers.inference.LLM.from_model_string": {"model": "openai/gpt-4.1"},
    "providers.openai.LLM.with_host": {"host": "groq", "model": "m", **KEY},
    "providers.langchain.LLMAdapter": {"graph": Graph()},
    "providers.langchain.as_langchain": {"llm": Model()},
}  # fmt: skip

PRESETS = (
    "cerebras", "cometapi", "deepseek", "fireworks", "nebius", "octo", "openrouter", "ovhcloud",
    "perplexity", "sambanova", "telnyx", "together", "x_ai",
)  # fmt: skip
for preset in PRESETS:
    BASE[f"providers.openai.LLM.with_{preset}"] = {"model": "m", **KEY}

SPOKEN = {
    **{
        f"providers.{n}.realtime.RealtimeModel": "RealtimeSession"
        for n in ("openai", "google", "aws")
    },
    "providers.openai.live.DuplexModel": "DuplexSession",
}
"""The realtime models of providers, and their sessions."""


@functools.cache
def instances() -> dict[str, Callable[[], Any]]:
    """Makes the objects whose methods are called."""
    providers = {
        name: importlib.import_module(f"rejoinder.providers.{name}").LLM
        for name in ("openai", "anthropic", "google", "aws", "mistralai", "inference", "local")
    }
    makers: dict[str, Callable[[], Any]] = {
        f"providers.{name}.LLM": functools.partial(made, cls, f"providers.{name}.LLM")
        for name, cls in providers.items()
    }
    transport = importlib.import_module("rejoinder.transport")
    spoken = {
        name: getattr(
            importlib.import_module(f"rejoinder.{name.rpartition('.')[0]}"),
            name.rpartition(".")[2],
        )
        for name in SPOKEN
    }
    return makers | {
        "ChatContext": chat_ctx,
        "delegation.Delegate": lambda: importlib.import_module("rejoinder.delegation").Delegate(
            Model()
        ),
        "Conversation": lambda: Conversation(SqliteStore("never.sqlite")),
        "FallbackAdapter": lambda: llm_api.FallbackAdapter([Model(), Model()]),
        "llm.RealtimeModelFallbackAdapter": lambda: llm_api.RealtimeModelFallbackAdapter(
            [Spoken()]
        ),
        "llm.ToolContext": lambda: ToolContext([tool]),
        "llm.mcp.MCPServerHTTP": lambda: mcp.MCPServerHTTP("http://127.0.0.1:9/mcp"),
        "llm.remote_chat_context.RemoteChatContext": filled,
        **{name: functools.partial(made, cls, name) for name, cls in spoken.items()},
        "store.SqliteStore": lambda: SqliteStore("never.sqlite"),
        "testing.ScriptedLLM": Model,
        "testing.FaultServer": testing.FaultServer,
        "testing.RealtimeServer": testing.RealtimeServer,
        "testing.sonic_server.SonicServer": importlib.import_module(
            "rejoinder.testing.sonic_server"
        ).SonicServer,
        "testing.ScriptedRealtimeModel": testing.ScriptedRealtimeModel,
        "transport.AiohttpTransport": transport.AiohttpTransport,
    }


def made(cls: Any, name: str) -> Any:
    return cls(**BASE.get(name, {}))


REGISTER = {"llm.formats.register_format", "catalog.register"}
HANDED_OUT = "made by this package and handed out"
ANYTHING = "takes anything, and tells what it is"

NOT_CALLED: dict[str, str] = {
    # Why a public name, or one of its parameters, is left out.
    **dict.fromkeys(
        (
            "NotGiven", "llm.AvailabilityChangedEvent", "llm.FunctionCallResult",
            "llm.DuplexAudioFrame", "llm.DuplexCapabilities", "llm.DuplexOutputTranscriptDelta",
            "llm.GenerationCreatedEvent", "llm.InputSpeechStartedEvent",
            "providers.openai.live.GPTLiveDelegation",
            "llm.InputSpeechStoppedEvent", "llm.InputTranscriptionCompleted",
            "llm.MessageGeneration", "llm.RealtimeAvailabilityChangedEvent",
            "llm.RealtimeCapabilities",
            "llm.RealtimeSessionReconnectedEvent", "llm.RemoteItemAddedEvent",
            "llm.formats.Change", "llm.mcp.Elicitation", "llm.mcp.MCPEvent",
            "llm.mcp.MCPToolOutput", "llm.mcp.MCPToolResultContext", "llm.mcp.Prompt",
            "llm.mcp.Prompt.from_wire", "llm.mcp.Resource", "llm.mcp.Resource.from_wire",
            "llm.mcp.ResourceTemplate", "llm.mcp.ResourceTemplate.from_wire",
            "llm.mcp.ServerInfo", "llm.mcp.ToolsChange", "llm.utils.DiffOps",
            "llm.utils.SerializedImage", "metrics.UsageSummary", "telemetry.AttemptSpan",
            "telemetry.McpSpan", "telemetry.RequestSpan", "telemetry.Span", "telemetry.ToolSpan",
            "telemetry.TurnSpan", "prices.ModelPrices", "testing.Exchange",
            "testing.GeminiConnection", "testing.LiveConnection", "testing.Outcome",
            "testing.h2_server.H2ServerStream", "testing.soak.SoakReport", "testing.soak.SoakServer", "testing.sonic_server.SonicConnection",
            "testing.RealtimeOutcome", "testing.RealtimeConnection", "testing.ScriptedRequest", "testing.SessionEvent",
            "testing.SessionEvent.from_json", "testing.SessionPlayer", "testing.SessionRecording",
            "testing.SessionRecording.from_json",
            "store.Found", "store.Record",
            "store.Summary", "testing.PolicyReport", "turn.Done", "turn.Partial", "turn.Restarted", "turn.Text",
            "turn.Thinking", "turn.ToolFinished", "turn.ToolPaused", "turn.ToolStarted",
            "turn.Turn", "turn.Usage", "providers.local.ModelFile",
            "speech.Piece", "speech.Speech",
        ),
        HANDED_OUT,
    ),
    **dict.fromkeys(
        (
            "llm.find_function_tools", "llm.is_function_tool", "llm.is_raw_function_tool",
            "llm.chat_context.estimate_tokens", "llm.mcp.tool_origin", "llm.mcp.name_collisions",
            "llm.utils.is_context_type", "llm.utils.is_typed_dict", "media.picture_fault",
            "media.same_frame", "metrics.log_metrics", "metrics.UsageCollector.collect",
            "types.is_given", "testing.load_exchange", "testing.load_exchanges",
            "testing.load_session", "testing.load_sessions", "testing.save_session",
            "testing.save_exchange", "llm.remote_chat_context.RemoteChatContext.get",
        ),
        ANYTHING,
    ),
    **dict.fromkeys(
        ("transport.Request", "transport.AiohttpTransport.prewarm",
         "transport.AiohttpTransport.send", "transport.AiohttpTransport.borrow", "testing.ReplayTransport.prewarm"),
        "made and called by providers",
    ),
    **dict.fromkeys(
        ("Conversation.begin", "Conversation.end", "Conversation.said", "Conversation.start",
         "Conversation.used", "Conversation.write"),
        "called by turns",
    ),
    **dict.fromkeys(
        ("testing.RealtimeServer.asked", "testing.RealtimeServer.end",
         "testing.RealtimeServer.keep", "testing.RealtimeServer.next_fault",
         "testing.RealtimeServer.open", "testing.RealtimeServer.receive"),
        "called by connections",
    ),
    **dict.fromkeys(
        ("delegation.Delegate.attach", "delegation.Delegate.context", "delegation.Delegate.run"),
        "called by sessions",
    ),
    "Conversation.append": "appends to the context, which takes any item",
    "Conversation.describe": ANYTHING,
    "telemetry.tracer": "takes nothing",
    "prices.prices_date": "takes nothing",
    "prices.ModelPrices.at": "made by find_prices",
    "telemetry.start_anew": "takes nothing",
    "telemetry.reaches_mcp": "takes nothing",
    "telemetry.provider_name": "called by spans",
    "telemetry.trace_headers": "called by requests",
    "llm.mcp.MCPServerHTTP.make_tool": "takes what a server has listed",
    "ChatContext.insert.item": "an empty string is an empty sequence",
    "ChatContext.items": "kept, and not validated",
    "testing.outcome": "runs a decoder of the caller's",
    "testing.check_llm.make": "runs what the caller makes",
    "testing.soak.soak.make": "runs what the caller makes",
    "testing.check_realtime.make": "runs what the caller makes",
    "testing.ScriptedRealtimeModel.with_azure": "inherited: a scripted model has no server",
    "testing.check_decoder.make": "runs what the caller makes",
    "testing.assert_legal": "see check_history",
    **dict.fromkeys(
        ("ChatContext.add_message.id", "ChatContext.add_message.interrupted",
         "ChatContext.add_message.created_at"),
        "converted by pydantic",
    ),
    **dict.fromkeys(
        ("media.to_audio_frame", "media.to_video_frame", "media.VideoFrame.type"),
        "lists in its error what it takes",
    ),
}  # fmt: skip


@dataclass
class Subject:
    name: str
    function: Callable[..., Any]
    base: dict[str, Any] = field(default_factory=dict[str, Any])


def checks_itself(error: type[BaseException]) -> bool:
    return error.__module__ == "rejoinder.errors" and issubclass(error, APIError)


def why_not(name: str, thing: Any) -> str | None:
    if inspect.isclass(thing):
        if issubclass(thing, BaseException) and not checks_itself(thing):
            return "an error that takes any words, or is made by this package"
        if issubclass(thing, pydantic.BaseModel):
            return "validated by pydantic"
        if issubclass(thing, enum.Enum):
            return "an enum"
        if typing_extensions.is_typeddict(thing):
            return "a TypedDict"
        if getattr(thing, "_is_protocol", False):
            return "a protocol"
        if issubclass(thing, LLMStream):
            return "made by `chat`"
        if issubclass(thing, llm_api.RealtimeSession):
            return "made by `session`, see `session_subjects`"
        if inspect.isabstract(thing):
            return "abstract"
    return NOT_CALLED.get(name)


def subjects() -> Iterator[Subject]:
    for name, thing in public():
        if why_not(name, thing) is not None:
            continue
        yield Subject(name, thing, BASE.get(name, {}))
        if not inspect.isclass(thing):
            continue
        for method, function in inspect.getmembers(thing, inspect.isroutine):
            if method.startswith("_") or not str(getattr(function, "__module__", "")).startswith(
                "rejoinder."
            ):
                continue
            full = f"{name}.{method}"
            if full in NOT_CALLED or not list(inspect.signature(function).parameters)[1:]:
                continue
            if inspect.ismethod(function):  # a class method
                yield Subject(full, function, BASE.get(full, {}))
            elif name in instances():
                base = BASE.get(full, {"chat_ctx": chat_ctx()} if method == "chat" else {})
                if method not in ("emit", "on", "off", "once"):  # events of any kind
                    yield Subject(full, getattr(instances()[name](), method), base)


NOT_IN_SESSIONS = {
    **dict.fromkeys(
        (
            "failed",
            "give_history",
            "with_history",
            "installed",
            "lost",
            "received",
            "report",
            "saw",
        ),
        "called by connections",
    ),
    "push_video": "lists in its error what it takes",
    "say": "no model of a provider speaks a given text",
}
SESSION_BASE: dict[str, dict[str, Any]] = {
    "truncate": {"message_id": "x", "modalities": ["audio"], "audio_end_ms": 0},
    "append_commentary": {"text": "x"},
    "cancel_delegation": {"delegation_id": "x"},
    "delegation_over": {"delegation_id": "x"},
    "append_instructions": {"text": "x"},
    "append_thinking": {"text": "x"},
}


def session_subjects() -> Iterator[Subject]:
    """The calls of sessions. A session needs a running loop, so each call makes its own."""
    for name, session_name in SPOKEN.items():
        module, _, kind = name.rpartition(".")
        model = getattr(importlib.import_module(f"rejoinder.{module}"), kind)
        session = getattr(importlib.import_module(f"rejoinder.{module}"), session_name)
        for method, function in inspect.getmembers(session, inspect.isfunction):
            if method.startswith("_") or method in ("emit", "on", "off", "once"):
                continue
            if method in NOT_IN_SESSIONS or len(inspect.signature(function).parameters) < 2:
                continue
            full = f"{name}.session().{method}"
            yield Subject(full, in_session(model, name, function), SESSION_BASE.get(method, {}))


def in_session(model: Any, name: str, function: Any) -> Callable[..., Any]:
    @functools.wraps(function)
    async def call(**arguments: Any) -> Any:
        async with made(model, name) as speaker, contextlib.aclosing(speaker.session()) as session:
            result = function(session, **arguments)
            if inspect.iscoroutine(result):
                await result

    signature = inspect.signature(function)
    call.__dict__["__signature__"] = signature.replace(
        parameters=list(signature.parameters.values())[1:]
    )
    return call


# -- what is wrong ----------------------------------------------------------------------------------


def pool() -> list[Any]:
    class Strange:  # anew each time: a decorator leaves its marks on a class
        def __repr__(self) -> str:
            return "<strange>"

    def some_function() -> None: ...

    return [
    Strange(), "text", "", b"bytes", 7, -1, 0, 1.5, -0.5, math.nan, math.inf, True, None, [],
    [Strange()], {}, {1: Strange()}, some_function, Strange,
    ]  # fmt: skip


@functools.cache
def names_for_checkers(module: str) -> dict[str, Any]:
    """What a module imports under ``if TYPE_CHECKING``."""
    tree = ast.parse(Path(str(sys.modules[module].__file__)).read_text(encoding="utf-8"))
    names: dict[str, Any] = {}
    for node in tree.body:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            body = [n for n in node.body if isinstance(n, ast.Import | ast.ImportFrom)]
            for statement in body:
                try:
                    exec(compile(ast.Module([statement], []), module, "exec"), names)
                except ImportError:
                    pass
    return names


def hints_of(function: Any) -> dict[str, Any]:
    inner = inspect.unwrap(function.__init__ if inspect.isclass(function) else function)
    inner = getattr(inner, "__func__", inner)
    module = function.__module__ if inspect.isclass(function) else inner.__module__
    known = {**vars(typing), **vars(collections.abc), **names_for_checkers(module)}
    hints: dict[str, Any] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        annotation = parameter.annotation
        if isinstance(annotation, str):
            space = {**vars(sys.modules[module]), **getattr(inner, "__globals__", {}), **{
                key: value for key, value in known.items()
                if key not in vars(sys.modules[module])
            }}  # fmt: skip
            try:
                annotation = eval(annotation, space)
            except NameError:
                annotation = Any
        hints[name] = Any if annotation is parameter.empty else annotation
    return hints


@functools.lru_cache(maxsize=64)
def adapter_of(hint: Any) -> pydantic.TypeAdapter[Any] | None:
    """What checks values against `hint`; it takes longer to make than all values to check."""
    config = pydantic.ConfigDict(arbitrary_types_allowed=True, strict=True)
    try:
        return pydantic.TypeAdapter(hint, config=config)
    except (pydantic.PydanticUserError, SchemaError):
        try:
            return pydantic.TypeAdapter(hint)
        except (pydantic.PydanticUserError, SchemaError):
            return None


def fits(hint: Any, value: Any) -> bool | None:
    """Whether `value` fits; ``None`` if nothing can tell."""
    if hint is NotGiven:
        return value is None or isinstance(value, NotGiven)  # both mean: nothing was said
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        answers = {fits(member, value) for member in typing.get_args(hint)}
        return True if True in answers else None if None in answers else False
    if inspect.isclass(hint) and getattr(hint, "_is_protocol", False):
        try:
            return isinstance(value, hint)
        except TypeError:
            members = [name for name in vars(hint) if not name.startswith("_")]
            return all(hasattr(value, name) for name in members)
    adapter = adapter_of(hint)
    if adapter is None:
        return None
    try:
        adapter.validate_python(value)
    except pydantic.ValidationError:
        return False
    except Exception:
        return None
    return True


BARE = (AttributeError, KeyError, IndexError, RecursionError, NameError, AssertionError)


async def attempt(subject: Subject, name: str, value: Any) -> BaseException | None:
    """Make the call with one argument replaced. Returns what it raises."""
    arguments = {**subject.base, name: value}
    result: Any = None
    try:
        result = subject.function(**arguments)
        if inspect.isawaitable(result):
            async with asyncio.timeout(2):
                result = await result
    except (Exception, asyncio.CancelledError) as error:
        return error
    finally:
        close: Any = getattr(result, "aclose", None)
        if close is not None:
            with contextlib.suppress(Exception):
                await close()
    return None


async def faults(subject: Subject) -> list[str]:
    found: list[str] = []
    for name, hint in hints_of(subject.function).items():
        parameter = inspect.signature(subject.function).parameters[name]
        if name.startswith("_") or parameter.kind in (
            parameter.VAR_KEYWORD,
            parameter.VAR_POSITIONAL,
        ):
            continue
        if f"{subject.name}.{name}" in NOT_CALLED:
            continue
        for value in pool():
            right = fits(hint, value)
            if right and subject.name in REGISTER:
                continue  # it would be known to the tests that follow
            error = await attempt(subject, name, value)
            if error is None:
                if right is False:
                    found.append(f"{name}={value!r}: accepted, but is not {hint}")
            elif isinstance(error, APIError):
                if right is False:
                    found.append(f"{name}={value!r}: {type(error).__name__}: {error}")
            elif name in str(error) and (
                isinstance(error, TypeError | ValueError) or "expected" in str(error)
            ):
                continue
            elif right is False or isinstance(error, BARE) or type(error) is TypeError:
                found.append(f"{name}={value!r}: {type(error).__name__}: {str(error)[:150]}")
    return found


ALL = [*subjects(), *session_subjects()]


def test_every_public_name_is_called_or_has_a_reason() -> None:
    names = {name for name, _ in public()}
    unknown = {
        name for name in NOT_CALLED
        if name not in names and name.rpartition(".")[0] not in names
        and name.rpartition(".")[0].rpartition(".")[0] not in names
    }  # fmt: skip
    assert unknown == set(), "no longer there"


@pytest.fixture
def telemetry_as_it_was() -> Iterator[None]:
    """Values that are taken hold for the whole process, and so for the tests that follow."""
    yield
    telemetry.capture_content(None)
    telemetry.redact_content(None)
    telemetry.propagate()
    telemetry.set_tracer_provider(None)
    telemetry.set_meter_provider(None)


@pytest.mark.usefixtures("telemetry_as_it_was")
@pytest.mark.parametrize("subject", ALL, ids=[subject.name for subject in ALL])
async def test_wrong_options_are_refused_at_once(
    subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert await faults(subject) == []
