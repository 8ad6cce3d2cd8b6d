"""Every family of models, in every combination of features, by every way of serving it.

Each body passes the strict checker of its history and the refusals that are written down in
`refusals.py`; or the request is refused before it is sent, with a way out. Whatever was asked for
is in the body or told as a change: nothing is lost in silence.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from msgspec.structs import fields

from contract.refusals import refusals
from rejoinder._core.families import FAMILIES, UNKNOWN, Family, find_family
from rejoinder._core.hosts import API, HOSTS, Host
from rejoinder.errors import APIConnectionError, ConfigurationError
from rejoinder.llm.chat_context import (
    ChatContext,
    ChatMessage,
    FunctionCall,
    FunctionCallOutput,
    ImageContent,
)
from rejoinder.llm.tool_context import function_tool
from rejoinder.providers import anthropic, aws, google, inference, mistralai, openai
from rejoinder.testing.history import check_history
from rejoinder.transport.http import HttpResponse, Request
from rejoinder.types import APIConnectOptions

ONCE = APIConnectOptions(max_retry=0, timeout=5)
PNG = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGNgYGAAAAAE"
    "AAH2FzhVAAAAAElFTkSuQmCC"
)
SCHEMA = {"title": "Answer", "type": "object", "properties": {"text": {"type": "string"}}}

# A name for each family, as its maker writes it; names that follow from the pattern are made of it.
NAMES = {
    "unknown": "some-model",
    "claude": "claude-new-9",
    "deepseek": "deepseek-new",
    "qwen-thinking": "qwen3-30b-a3b-thinking-2507",
    "qwen-instruct": "qwen3-30b-a3b-instruct-2507",
    "qwen-omni": "qwen3-omni-flash",
    "grok-non-reasoning": "grok-4-1-fast-non-reasoning",
    "gemini-image": "gemini-2.5-flash-image",
    "gemini": "gemini-4-ultra",
    "gemini-3.x-pro": "gemini-3.1-pro-preview",
    "gemini-3": "gemini-3-flash-preview",
    "claude-3": "claude-3-haiku-20240307",
    "claude-3.5": "claude-3-5-sonnet-20241022",
    "claude-3.7": "claude-3-7-sonnet-20250219",
    "claude-4": "claude-sonnet-4-20250514",
    "gemma": "gemma-4-27b-it",
    "gpt-5-codex": "gpt-5-codex",
}


@function_tool
async def get(city: str) -> str:
    """Get."""
    return city


@function_tool
async def put(city: str) -> str:
    """Put."""
    return city


class Captured(Exception):
    pass


class Capture:
    """A transport that keeps what it is given, and sends nothing."""

    def __init__(self) -> None:
        self.body: dict[str, Any] | None = None

    async def send(self, request: Request) -> HttpResponse:
        self.body = json.loads(request.body or b"{}")
        raise APIConnectionError("captured", retryable=False)

    async def prewarm(self, url: str, *, timeout: float = 10.0) -> None: ...

    async def aclose(self) -> None: ...


def name_of(family: Family) -> str:
    name = NAMES.get(family.name) or family.match[0].replace("*", "")
    assert find_family(name) is family, (name, family.name, find_family(name).name)
    return name


def traits(host: Host) -> tuple[Any, ...]:
    """What hosts may differ in; two that agree in all of it are one way of serving."""
    beside = ("name", "base_url", "model", "key_env", "key", "at", "makers")
    return tuple(
        getattr(host, field.name)
        if field.name not in beside
        else (None if host.makers is None else tuple(host.makers))
        if field.name == "makers"
        else 0
        for field in fields(host)
    )


def ways(family: Family) -> Iterator[tuple[Host, API]]:
    seen: set[tuple[Any, ...]] = set()
    for host in HOSTS.values():
        if host.makers is not None and family.maker not in host.makers:
            continue
        # By Converse, Messages and generateContent a host serves what it is known to serve.
        for api in host.apis:
            if api == "gemini" and not family.name.startswith(
                "gemini" if host.key == "vertex" else ("gemini", "gemma")
            ):
                continue
            if api == "messages" and family.maker != "anthropic":
                continue
            key = (api, *traits(host))
            if key not in seen:
                seen.add(key)
                yield host, api


def made(family: Family, host: Host, api: API, transport: Any, **options: Any) -> Any:
    """The LLM that asks `family` at `host`."""
    model = name_of(family)
    address = host.at[0] if host.at else "localhost:8000"
    if address.startswith("."):
        address = f"x{address}"
    options |= {"transport": transport}
    match api:
        case "messages":
            if host.key == "bedrock":
                return anthropic.LLM.with_bedrock(
                    model=f"us.anthropic.{model}-v1:0",
                    bearer_token="k",
                    region="us-east-1",
                    **options,
                )
            if host.key == "vertex":
                return anthropic.LLM.with_vertex(
                    model=model, project="p", access_token="k", location="global", **options
                )
            return anthropic.LLM(model=model, api_key="k", **options)
        case "converse":
            limit = options.pop("max_tokens", None)
            if limit is not None:
                options["max_output_tokens"] = limit
            thinking = options.pop("thinking", None)
            if thinking is not None:
                options["additional_request_fields"] = {"thinking": thinking}
            return aws.LLM(model=f"us.maker.{model}-v1:0", bearer_token="k", **options)
        case "gemini":
            return google.LLM(model=model, api_key="k", vertexai=host.key == "vertex", **options)
        case "mistral":
            return mistralai.LLM(model, "k", **options)
        case "chat" if host.key == "inference":
            if "temperature" in options:
                options["extra_kwargs"] = {"temperature": options.pop("temperature")}
            return inference.LLM(model, api_key="k", api_secret="s", **options)
        case _:
            return openai.LLM(
                model=model, api_key="k", base_url=f"https://{address}/v1", api=api, **options
            )


def talk(*more: Any) -> ChatContext:
    context = ChatContext.empty()
    context.add_message(role="system", content="S.")
    context.add_message(role="user", content="Hello")
    context.items.extend(more)
    return context


def said(role: Any, *content: Any, **extra: Any) -> ChatMessage:
    return ChatMessage(role=role, content=list(content), **extra)


def foreign() -> ChatContext:
    """What another family left behind: thinking, calls under ids of every kind, state."""
    states: tuple[dict[str, Any], ...] = (
        {"anthropic": {"thinking": [{"type": "thinking", "thinking": "t", "signature": "s"}]}},
        {"openai": {"reasoning_items": [{"type": "reasoning", "id": "rs_1", "summary": []}],
                    "item_id": "fc_1", "host": "elsewhere"}},
        {"google": {"thought_signature": "QUJD"}},
        {"openai": {"reasoning_content": "hm"}},
    )  # fmt: skip
    items: list[Any] = []
    for at, extra in enumerate(states):
        call_id = ("toolu_01A", "call_" + "x" * 50, "functions.get:0", "abc:d e")[at]
        items += [
            FunctionCall(call_id=call_id, name="get", arguments='{"city": "A"}', extra=extra),
            FunctionCallOutput(call_id=call_id, name="get", output="A", is_error=False),
        ]
    return talk(
        *items, said("assistant", "A it is."), said("developer", "late"), said("user", "And?")
    )


def cases(family: Family) -> Iterator[tuple[str, ChatContext, dict[str, Any], dict[str, Any]]]:
    """A name, the conversation, the options of the LLM, and those of the call."""
    named = {"type": "function", "function": {"name": "get"}}
    tools = {"tools": [get, put]}
    yield "plain", talk(), {}, {}
    yield "tools", talk(), {}, tools
    yield "forced", talk(), {}, {**tools, "tool_choice": "required"}
    yield "named", talk(), {}, {**tools, "tool_choice": named}
    yield "parallel", talk(), {}, {**tools, "parallel_tool_calls": False}
    yield "thinking", talk(), {"reasoning": "high"}, {}
    yield "thinking tools", talk(), {"reasoning": "low"}, tools
    yield "thinking forced", talk(), {"reasoning": 4_000}, {**tools, "tool_choice": "required"}
    yield "idle", talk(), {"reasoning": "off"}, {}
    yield "idle tools", talk(), {"reasoning": "off"}, tools
    yield "schema", talk(), {}, {"response_format": SCHEMA}
    yield "schema tools", talk(), {}, {**tools, "response_format": SCHEMA}
    yield "temperature", talk(), {"temperature": 0.3}, {}
    yield "temperature thinking", talk(), {"temperature": 0.3, "reasoning": "medium"}, {}
    yield "image", talk(said("user", "Look", ImageContent(image=PNG))), {}, {}
    yield (
        "late system",
        talk(said("assistant", "Hi"), said("system", "late"), said("user", "b")),
        {},
        {},
    )
    yield "prefill", talk(said("assistant", "Once upon")), {}, {}
    yield "prefill thinking", talk(said("assistant", "Once upon")), {"reasoning": "high"}, {}
    yield "foreign", foreign(), {}, tools
    yield "foreign thinking", foreign(), {"reasoning": "high"}, tools
    yield "foreign without tools", foreign(), {}, {}


CHECKERS = {
    "messages": "anthropic", "converse": "aws", "gemini": "google", "mistral": "mistralai",
    "chat": "openai", "responses": "openai.responses",
}  # fmt: skip


def history_problems(family: Family, api: API, host: Host, body: dict[str, Any]) -> list[str]:
    options: dict[str, Any] = {}
    if api == "messages":
        thinking = body.get("thinking")
        options["prefill"] = not thinking
        options["thinking"] = isinstance(thinking, dict) and thinking.get("type") == "enabled"
    if api == "gemini":
        options["signatures"] = "gemini-3" in name_of(family)
    if api == "chat" and host.key not in ("openai", "azure"):
        options["long_ids"] = True
    return check_history(CHECKERS[api], body, **options)


def lost(case: str, api: API, body: dict[str, Any], told: set[str]) -> list[str]:
    """What was asked for, and is neither in the body nor told."""
    text = json.dumps(body)
    found: list[str] = []
    if "temperature" in case and '"temperature"' not in text and "option" not in told:
        found.append("temperature")
    if (
        "tools" in case.replace("without tools", "") or "forced" in case or "named" in case
    ) and '"get"' not in text:
        found.append("tools")
    if "forced" in case and not any(
        word in text for word in ('"required"', '"any"', '"ANY"', '"tool"')
    ):
        found.append("the forced choice")
    if "schema" in case and '"Answer"' not in text and "text" not in text:
        found.append("the schema")
    if "thinking" in case and "idle" not in case:
        words = ("reason", "think", "effort")
        if not any(word in text.lower() for word in words) and "reasoning" not in told:
            found.append("reasoning")
    if "image" in case and not any(word in text for word in ("image", "inlineData")):
        found.append("the image")
    if "late system" in case and "late" not in text:
        found.append("the late system message")
    return found


@pytest.mark.parametrize("family", [UNKNOWN, *FAMILIES], ids=lambda family: family.name)
async def test_no_pair_is_silent(
    family: Family, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("GOOGLE_API_KEY", "k")
    sent = refused = 0
    wrong: list[str] = []
    for host, api in ways(family):
        for case, context, options, call in cases(family):
            capture = Capture()
            if (
                api == "responses"
                and family.maker not in ("openai", "xai")
                and host.key != "compatible"
            ):
                continue
            where = f"{name_of(family)} at {host.key} by {api}, {case}"
            try:
                llm = made(family, host, api, capture, **options)
                stream = llm.chat(chat_ctx=context, conn_options=ONCE, **call)
            except ConfigurationError as error:
                refused += 1
                if "; " not in str(error):
                    wrong.append(f"{where}: no way out in {error}")
                continue
            try:
                await stream.collect()
            except ConfigurationError as error:
                refused += 1
                if "; " not in str(error):
                    wrong.append(f"{where}: no way out in {error}")
                continue
            except APIConnectionError:
                pass
            finally:
                await stream.aclose()
            body = capture.body
            assert body is not None
            sent += 1
            told = {change.kind for change in stream.changes}
            name = body.get("model") or llm.model
            wrong += [f"{where}: {text}" for text in history_problems(family, api, host, body)]
            wrong += [f"{where}: {text}" for text in refusals(name, host.key, api, body)]
            wrong += [f"{where}: lost in silence: {text}" for text in lost(case, api, body, told)]
    assert not wrong, f"{len(wrong)} of {sent + refused}:\n" + "\n".join(wrong[:40])
    assert sent
