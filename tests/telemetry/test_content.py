"""What is said, in spans: only when asked for, only after the redaction."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rejoinder import telemetry
from rejoinder._core.hosts import HOSTS
from rejoinder._core.items import FunctionCall, FunctionCallOutput
from rejoinder.llm import (
    ChatContext,
    ChoiceDelta,
    FunctionToolCall,
    ImageContent,
    function_tool,
)
from rejoinder.providers import anthropic, aws, google, mistralai, openai
from rejoinder.telemetry._content import WITHHELD
from rejoinder.testing import FaultServer, ScriptedLLM
from rejoinder.turn import run_turn
from telemetry.recorded import Recorded

VARIABLE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
INPUT, OUTPUT = "gen_ai.input.messages", "gen_ai.output.messages"


@pytest.mark.parametrize(
    ("value", "attributes", "events"),
    [
        ("", False, False),
        ("no_content", False, False),
        ("false", False, False),
        ("SPAN_ONLY", True, False),
        ("event_only", False, True),
        ("SPAN_AND_EVENT", True, True),
        ("true", True, True),
        ("nonsense", False, False),
    ],
)
async def test_the_standard_variable(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch, value: str, attributes: bool, events: bool
) -> None:
    monkeypatch.setenv(VARIABLE, value)
    context = ChatContext.empty()
    context.add_message(role="user", content="SECRET")
    await ScriptedLLM("SECRET too").chat(chat_ctx=context).collect()
    span = recorded.named("llm_request")[0]
    found = span.attributes or {}
    assert ({INPUT, OUTPUT} <= found.keys()) is attributes
    assert bool(span.events) is events
    assert ("SECRET" in recorded.everything()) is (attributes or events)
    assert telemetry.content_captured() is (attributes or events)


def test_a_wrong_value_is_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(VARIABLE, "perhaps")
    for _ in range(3):
        assert not telemetry.content_captured()
    assert caplog.text.count("SPAN_AND_EVENT") == 1


async def test_messages_in_the_form_of_the_conventions(recorded: Recorded) -> None:
    telemetry.capture_content("SPAN_ONLY")
    context = ChatContext.empty()
    context.add_message(role="developer", content="Be brief.")
    picture = ImageContent(image="https://example.org/a.png?signature=abc")
    context.add_message(role="user", content=["What is this?", picture])
    context.add_message(role="assistant", content="I look.")
    context.insert(
        [
            FunctionCall(call_id="c1", name="f", arguments='{"x": 1}'),
            FunctionCall(call_id="c2", name="f", arguments="{broken"),
            FunctionCallOutput(call_id="c1", name="f", output="one", is_error=False),
        ]
    )
    call = FunctionToolCall(name="g", arguments="{}", call_id="c3")
    thought = ChoiceDelta(role="assistant", thinking="hm")
    await (
        ScriptedLLM([thought, "A cat, ", "half an emoji \ud83d", call])
        .chat(chat_ctx=context)
        .collect()
    )
    found = recorded.named("llm_request")[0].attributes or {}
    assert json.loads(str(found[INPUT])) == [
        {"role": "system", "parts": [{"type": "text", "content": "Be brief."}]},
        {
            "role": "user",
            "parts": [
                {"type": "text", "content": "What is this?"},
                {"type": "uri", "modality": "image", "uri": "https://example.org/a.png"},
            ],
        },
        {
            "role": "assistant",
            "parts": [
                {"type": "text", "content": "I look."},
                {"type": "tool_call", "id": "c1", "name": "f", "arguments": {"x": 1}},
                {"type": "tool_call", "id": "c2", "name": "f", "arguments": "{broken"},
            ],
        },
        {"role": "tool", "parts": [{"type": "tool_call_response", "id": "c1", "response": "one"}]},
    ]
    (message,) = json.loads(str(found[OUTPUT]))
    assert message["role"] == "assistant"
    assert [part["type"] for part in message["parts"]] == ["reasoning", "text", "tool_call"]
    assert message["parts"][1]["content"] == "A cat, half an emoji �"
    str(found[OUTPUT]).encode()


@function_tool
async def pay(card: str) -> str:
    """Pay."""
    return f"paid with {card}"


async def test_the_redaction_sees_every_text(recorded: Recorded) -> None:
    telemetry.capture_content(True)
    telemetry.redact_content(lambda text: text.replace("tulips", "<card>"))
    call = FunctionToolCall(name="pay", arguments='{"card": "tulips"}', call_id="c")
    thought = ChoiceDelta(role="assistant", thinking="tulips?")
    llm = ScriptedLLM([thought, "tulips ", call], "Paid with tulips.")
    await run_turn(llm, "My card is tulips.", tools=[pay]).collect()
    with pytest.raises(ValueError, match="tulips"):
        await ScriptedLLM(ValueError("card tulips")).chat(chat_ctx=ChatContext.empty()).collect()
    told = recorded.everything()
    assert "tulips" not in told
    assert told.count("<card>") > 8


async def test_a_redaction_that_fails_withholds_the_text(
    recorded: Recorded, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(text: str) -> str:
        raise RuntimeError(text)

    telemetry.capture_content(True)
    telemetry.redact_content(broken)
    reply = await ScriptedLLM("SECRET").chat(chat_ctx=ChatContext.empty()).collect()
    assert reply.text == "SECRET"
    assert WITHHELD in recorded.everything()
    assert "SECRET" not in recorded.everything() + caplog.text


def test_hosts_have_the_conventions_names() -> None:
    from opentelemetry.semconv._incubating.attributes import gen_ai_attributes

    known = {value.value for value in gen_ai_attributes.GenAiProviderNameValues}
    names = {host.telemetry or key for key, host in HOSTS.items()}
    assert known - names == {"gcp.gen_ai", "cohere", "azure.ai.inference", "ibm.watsonx.ai"}


def test_providers_have_the_conventions_names() -> None:
    keys = {"api_key": "k" * 20}
    models: list[tuple[Any, str]] = [
        (openai.LLM(**keys), "openai"),
        (openai.LLM(**keys, base_url="http://10.0.0.1:8000/v1"), "openai"),
        (openai.LLM.with_x_ai(**keys), "x_ai"),
        (openai.LLM.with_deepseek(**keys), "deepseek"),
        (
            openai.LLM.with_azure(
                model="m", azure_endpoint="https://x.openai.azure.com", api_version="v", **keys
            ),
            "azure.ai.openai",
        ),
        (anthropic.LLM(**keys), "anthropic"),
        (anthropic.LLM(**keys, base_url="https://gateway.example/v1"), "anthropic"),
        (google.LLM(**keys), "gcp.gemini"),
        (aws.LLM(model="m", api_key="k", api_secret="s", region="us-east-1"), "aws.bedrock"),
        (mistralai.LLM(**keys), "mistral_ai"),
    ]
    for model, name in models:
        assert telemetry.provider_name(model.provider, model._speaks) == name


async def test_the_trace_is_sent_where_it_was_asked_for(recorded: Recorded) -> None:
    async with FaultServer() as server:
        for hosts in ((), ("gateway.example",), ("127.0.0.1",)):
            telemetry.propagate(http=hosts)
            async with openai.LLM(api_key="k" * 20, base_url=f"{server.url}/v1") as llm:
                await llm.chat(chat_ctx=ChatContext.empty()).collect()
        sent = [request.headers.get("traceparent") for request in server.requests]
    assert sent[:2] == [None, None]
    attempt = recorded.named("llm_request_run")[-1]
    trace, span = f"{attempt.context.trace_id:032x}", f"{attempt.context.span_id:016x}"
    assert (sent[2] or "").split("-")[1:3] == [trace, span]
    request = recorded.named("llm_request")[-1]
    assert request.kind.name == "CLIENT"
    assert (request.attributes or {})["server.address"] == "127.0.0.1"
