"""The providers that have to keep the contract: one row each.

A row says how to make an `LLM` that talks to a `FaultServer`, and how to make its decoder. To hold
another provider to everything in this folder, add a row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from rejoinder.providers import anthropic, aws, google, inference, mistralai, openai
from rejoinder.providers.anthropic.wire import make_decoder as make_anthropic
from rejoinder.providers.aws.wire import make_decoder as make_bedrock
from rejoinder.providers.google.wire import make_decoder as make_google
from rejoinder.providers.mistralai.wire import make_decoder as make_mistral
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
        wire.make_decoder,
    ),
    Row(
        "openai-responses",
        "responses",
        lambda url: openai.LLM(model="any", api_key=KEY, base_url=f"{url}/v1", api="responses"),
        responses_wire.make_decoder,
    ),
    Row(
        "azure",
        "openai",
        lambda url: openai.LLM.with_azure(
            model="any", api_key=KEY, azure_endpoint=url, api_version="2024-10-21"
        ),
        wire.make_decoder,
    ),
    Row(
        "anthropic",
        "anthropic",
        lambda url: anthropic.LLM(model="any", api_key=KEY, base_url=url),
        make_anthropic,
    ),
    Row(
        "google",
        "google",
        lambda url: google.LLM(model="any", api_key=KEY, base_url=url),
        make_google,
    ),
    Row(
        "aws",
        "bedrock",
        lambda url: aws.LLM(model="any", api_key="AKIDEXAMPLE", api_secret=KEY, base_url=url),
        make_bedrock,
    ),
    Row(
        "mistralai",
        "mistral",
        lambda url: mistralai.LLM("any", KEY, base_url=f"{url}/v1"),
        make_mistral,
    ),
    Row(
        "inference",
        "openai",
        lambda url: inference.LLM(
            "openai/any", api_key="APIkey", api_secret=KEY, base_url=f"{url}/v1"
        ),
        wire.make_decoder,
    ),
    Row(
        "anthropic-bedrock",
        "bedrock-anthropic",
        lambda url: anthropic.LLM.with_bedrock(model="any", bearer_token=KEY, base_url=url),
        lambda **options: make_anthropic(framing="eventstream", **options),
    ),
    Row(
        "anthropic-vertex",
        "anthropic",
        lambda url: anthropic.LLM.with_vertex(
            model="any", project="p", access_token=KEY, base_url=url
        ),
        make_anthropic,
    ),
]
