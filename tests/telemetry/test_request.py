"""The options of a request are on its span, in the words of the conventions."""

from __future__ import annotations

from typing import Any

import pytest

from contract.rows import KEY
from rejoinder import telemetry
from rejoinder._core import jsontext
from rejoinder.llm import ChatContext
from rejoinder.providers import anthropic, aws, google, mistralai, openai
from rejoinder.telemetry._request import request_attributes
from rejoinder.testing.faults import FaultServer
from telemetry.recorded import Recorded

PREFIX = "gen_ai.request."
COMMON: Any = {"temperature": 0.5}


def options_of(body: object) -> dict[str, Any]:
    found = request_attributes(jsontext.encode(body))
    return {name.removeprefix(PREFIX): value for name, value in found.items()}


@pytest.mark.parametrize(
    ("body", "options"),
    [
        (
            {"temperature": 0, "max_tokens": 7, "n": 2, "stop": "END", "seed": 3, "messages": [{}]},
            {
                "temperature": 0.0,
                "max_tokens": 7,
                "choice.count": 2,
                "stop_sequences": ["END"],
                "seed": 3,
            },
        ),
        ({"n": 1, "temperature": None}, {}),
        (
            {"max_output_tokens": 9, "reasoning": {"effort": "low", "summary": "auto"}},
            {"max_tokens": 9, "reasoning.level": "low"},
        ),
        (
            {"generationConfig": {"topK": 4.0, "thinkingConfig": {"thinkingLevel": "LOW"}}},
            {"top_k": 4, "reasoning.level": "low"},
        ),
        (
            {"inferenceConfig": {"maxTokens": 5, "stopSequences": ["a", 1]}},
            {"max_tokens": 5, "stop_sequences": ["a"]},
        ),
        ({"additionalModelRequestFields": {"top_k": 3}}, {"top_k": 3}),
        ({"max_tokens": 4, "output_config": {"effort": "high"}}, {"max_tokens": 4, "reasoning.level": "high"}),
        ({"temperature": "hot", "seed": True, "max_tokens": 1.5, "stop": {}, "reasoning": "yes"}, {}),
        ({"seed": 1 << 63, "top_k": 1e30}, {}),
        (["temperature"], {}),
    ],
)  # fmt: skip
def test_what_an_api_writes_becomes_the_name_of_the_conventions(
    body: object, options: dict[str, Any]
) -> None:
    assert options_of(body) == options


@pytest.mark.parametrize("body", [None, b"", b"{", b"\xff", b"[" * 100_000, b'"a"'])
def test_a_body_of_another_kind_has_none(body: bytes | None) -> None:
    assert request_attributes(body) == {}


MAKERS = {
    "openai": lambda url: openai.LLM(
        model="any", api_key=KEY, base_url=url + "/v1", max_completion_tokens=11, **COMMON
    ),
    "responses": lambda url: openai.LLM(
        model="any", api_key=KEY, base_url=url + "/v1", api="responses",
        max_completion_tokens=11, **COMMON,
    ),
    "anthropic": lambda url: anthropic.LLM(
        model="any", api_key=KEY, base_url=url, max_tokens=11, **COMMON
    ),
    "google": lambda url: google.LLM(
        model="any", api_key=KEY, base_url=url, max_output_tokens=11, **COMMON
    ),
    "aws": lambda url: aws.LLM(
        model="any", api_key="k", api_secret=KEY, region="us-east-1", base_url=url,
        max_output_tokens=11, **COMMON,
    ),
    "mistralai": lambda url: mistralai.LLM(
        model="any", api_key=KEY, base_url=url, max_completion_tokens=11, **COMMON
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MAKERS)
async def test_each_provider_tells_what_it_sends(name: str, recorded: Recorded) -> None:
    chat_ctx = ChatContext.empty()
    chat_ctx.add_message(role="user", content="Hello")
    async with FaultServer() as server, MAKERS[name](server.url) as llm:
        await llm.chat(chat_ctx=chat_ctx).collect()
    (span,) = recorded.named("llm_request")
    found = {key.removeprefix(PREFIX): value for key, value in (span.attributes or {}).items()}
    assert (found["temperature"], found["max_tokens"]) == (0.5, 11)
    (attempt,) = recorded.named("llm_request_run")
    assert not any(key.startswith(PREFIX + "temp") for key in attempt.attributes or {})


async def test_the_redaction_sees_stop_sequences(recorded: Recorded) -> None:
    telemetry.redact_content(lambda text: text.replace("SECRET", "-"))
    chat_ctx = ChatContext.empty()
    chat_ctx.add_message(role="user", content="Hello")
    async with FaultServer() as server, MAKERS["openai"](server.url) as llm:
        await llm.chat(chat_ctx=chat_ctx, extra_kwargs={"stop": ["SECRET."]}).collect()
    (span,) = recorded.named("llm_request")
    assert (span.attributes or {})[PREFIX + "stop_sequences"] == ("-.",)
