"""The providers that have to keep the contract: one row each.

A row says how to make an `LLM` that talks to a `FaultServer`, and how to make its decoder. To hold
another provider to everything in this folder, add a row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from rejoinder.providers import anthropic, aws, google, inference, mistralai, openai
from rejoinder.providers.anthropic.wire import StreamDecoder as AnthropicDecoder
from rejoinder.providers.aws.wire import StreamDecoder as BedrockDecoder
from rejoinder.providers.google.wire import StreamDecoder as GoogleDecoder
from rejoinder.providers.mistralai.wire import StreamDecoder as MistralDecoder
from rejoinder.providers.openai import responses_wire, wire
from rejoinder.testing._dialects import Format
from rejoinder.testing.faults import Fault

KEY = "canary-5f2c9a7e41d84b06"
"""The secret of every LLM here. It may appear in a header of a request and nowhere else."""


@dataclass(frozen=True)
class Row:
    """One provider."""

    name: str
    format: Format
    make: Callable[[str], Any]
    """The address of a server to an LLM that uses `KEY`."""
    decoder: Callable[[], Any]
    differs: dict[Fault, str] = field(default_factory=dict)
    """Faults that cannot happen here or mean something else, each with the reason."""


ROWS: list[Row] = [
    Row(
        "openai",
        "openai",
        lambda url: openai.LLM(model="any", api_key=KEY, base_url=f"{url}/v1"),
        wire.StreamDecoder,
    ),
    Row(
        "openai-responses",
        "responses",
        lambda url: openai.LLM(model="any", api_key=KEY, base_url=f"{url}/v1", api="responses"),
        responses_wire.StreamDecoder,
    ),
    Row(
        "azure",
        "openai",
        lambda url: openai.LLM.with_azure(
            model="any", api_key=KEY, azure_endpoint=url, api_version="2024-10-21"
        ),
        wire.StreamDecoder,
    ),
    Row(
        "anthropic",
        "anthropic",
        lambda url: anthropic.LLM(model="any", api_key=KEY, base_url=url),
        AnthropicDecoder,
    ),
    Row(
        "google",
        "google",
        lambda url: google.LLM(model="any", api_key=KEY, base_url=url),
        GoogleDecoder,
    ),
    Row(
        "aws",
        "bedrock",
        lambda url: aws.LLM(model="any", api_key="AKIDEXAMPLE", api_secret=KEY, base_url=url),
        BedrockDecoder,
    ),
    Row(
        "mistralai",
        "mistral",
        lambda url: mistralai.LLM("any", KEY, base_url=f"{url}/v1"),
        MistralDecoder,
    ),
    Row(
        "inference",
        "openai",
        lambda url: inference.LLM(
            "openai/any", api_key="APIkey", api_secret=KEY, base_url=f"{url}/v1"
        ),
        wire.StreamDecoder,
    ),
    Row(
        "anthropic-bedrock",
        "bedrock-anthropic",
        lambda url: anthropic.LLM.with_bedrock(model="any", bearer_token=KEY, base_url=url),
        lambda **options: AnthropicDecoder(framing="eventstream", **options),
    ),
    Row(
        "anthropic-vertex",
        "anthropic",
        lambda url: anthropic.LLM.with_vertex(
            model="any", project="p", access_token=KEY, base_url=url
        ),
        AnthropicDecoder,
    ),
]
