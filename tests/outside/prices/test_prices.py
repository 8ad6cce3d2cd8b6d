"""What recorded replies cost, by our tables and by genai-prices itself."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from outside import environment
from recorded.corpus import exchanges, required_root
from recorded.harness import hear, replay
from rejoinder._core.chunks import CompletionUsage
from rejoinder._core.hosts import known_host
from rejoinder._core.prices import cost_of, find_prices
from rejoinder._core.usage import Buckets
from rejoinder.providers import anthropic, aws, google, mistralai, openai

ROOT = Path(__file__).resolve().parents[3]
KEY = {"model": "recorded", "api_key": "recorded"}


def chat(url: str) -> Any:
    return openai.LLM(**KEY, base_url=f"{url}/v1")


def responses(url: str) -> Any:
    return openai.LLM(**KEY, base_url=f"{url}/v1", api="responses")


def claude(url: str) -> Any:
    return anthropic.LLM(**KEY, base_url=url)


def gemini(url: str) -> Any:
    return google.LLM(**KEY, base_url=url)


def converse(url: str) -> Any:
    return aws.LLM(**KEY, api_secret="recorded", base_url=url)


def mistral(url: str) -> Any:
    return mistralai.LLM(**KEY, base_url=f"{url}/v1")


# How a group of recordings is read, and what its models name as their provider.
GROUPS: dict[str, tuple[Callable[[str], Any], str]] = {
    "openai/chat-completions": (chat, "api.openai.com"),
    "openai/responses": (responses, "api.openai.com"),
    "azure/chat-completions": (chat, "x.openai.azure.com"),
    "azure/responses": (responses, "x.openai.azure.com"),
    "groq/chat-completions": (chat, "api.groq.com"),
    "cerebras/chat-completions": (chat, "api.cerebras.ai"),
    "openrouter/chat-completions": (chat, "openrouter.ai"),
    "openrouter/responses": (responses, "openrouter.ai"),
    "deepseek/chat-completions": (chat, "api.deepseek.com"),
    "perplexity/chat-completions": (chat, "api.perplexity.ai"),
    "together/chat-completions": (chat, "api.together.xyz"),
    "xai/chat-completions": (chat, "api.x.ai"),
    "xai/responses": (responses, "api.x.ai"),
    "zai/chat-completions": (chat, "api.z.ai"),
    "anthropic/messages": (claude, "api.anthropic.com"),
    "vertex-anthropic/messages": (claude, "Vertex AI"),
    "google/generate-content": (gemini, "Gemini"),
    "vertex/generate-content": (gemini, "Vertex AI"),
    "bedrock/converse": (converse, "AWS Bedrock"),
    "mistral/chat-completions": (mistral, "MistralAI"),
}


async def usages() -> list[tuple[str, str, CompletionUsage]]:
    """Provider, model and usage of every recorded reply that tells them."""
    found: list[tuple[str, str, CompletionUsage]] = []
    for group, (make, provider) in GROUPS.items():
        async with replay() as server, make(server.url) as llm:
            for exchange in exchanges(group):
                if exchange.kind == "error" or not exchange.model:
                    continue
                server.exchange = exchange
                heard = await hear(llm)
                if heard.usage is not None:
                    found.append((provider, exchange.model, heard.usage))
    return found


def theirs(cases: list[dict[str, Any]]) -> list[str | None]:
    done = subprocess.run(
        [str(environment.python("prices")), str(Path(__file__).with_name("inside_prices.py"))],
        input=json.dumps(cases),
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def case_of(provider: str, model: str, usage: CompletionUsage, at: float) -> dict[str, Any]:
    host = known_host(provider)
    assert host is not None
    buckets = Buckets.of(usage)
    counts = {
        "input_tokens": buckets.prompt,
        "output_tokens": buckets.completion,
        "cache_read_tokens": buckets.cache_read,
        "cache_write_tokens": buckets.cache_write,
        "input_audio_tokens": buckets.input_audio,
        "cache_audio_read_tokens": 0,
        "output_audio_tokens": buckets.output_audio,
        "output_reasoning_tokens": buckets.reasoning,
    }
    return {
        "provider": host.prices,
        "model": model,
        "usage": counts,
        "tier": usage.service_tier,
        "at": at,
    }


@pytest.mark.timeout(600)
async def test_recorded_usages_cost_the_same() -> None:
    required_root()
    found = await usages()
    moments = [
        datetime.fromisoformat(day).timestamp()
        for day in ("2026-12-01T10:00Z", "2027-03-01T20:00Z")
    ]
    cases = [(*entry, at) for entry in found for at in moments]
    # The same again with what few recordings have: long prompts, caches, sound, tiers.
    for scale, tier in ((300, None), (7, "priority"), (50, "flex")):
        for provider, model, usage in found[::3]:
            prompt, completion = usage.prompt_tokens * scale, usage.completion_tokens * scale
            grown = CompletionUsage(
                prompt_tokens=prompt,
                completion_tokens=completion,
                total_tokens=prompt + completion,
                cache_read_tokens=prompt // 3,
                prompt_cached_tokens=prompt // 3,
                cache_creation_tokens=prompt // 5,
                reasoning_tokens=completion // 4,
                service_tier=tier,
            )
            cases.append((provider, model, grown, moments[0]))
    assert len(found) >= 900
    expected = theirs([case_of(*case) for case in cases])
    wrong: list[str] = []
    priced = 0
    for (provider, model, usage, at), price in zip(cases, expected, strict=True):
        ours = cost_of(usage, provider=provider, model=model, at=at)
        if ours is None:
            # Unknown here: unknown there too, or not paid by the token (free, and sold in pages).
            if price is not None and float(price) > 0 and find_prices(provider, model) is not None:
                wrong.append(f"{provider} {model}: ours unknown, theirs {price}")
            continue
        priced += 1
        if price is None:
            if known_host(provider) is not known_host("azure"):  # names of deployments are read
                wrong.append(f"{provider} {model}: ours {ours}, theirs unknown")
        elif abs(ours - float(price)) > 1e-9 * max(ours, 1e-6):
            wrong.append(f"{provider} {model} {usage!r}: ours {ours}, theirs {price}")
    assert not wrong, f"{len(wrong)} of {len(cases)}:\n" + "\n".join(wrong[:20])
    assert priced > len(cases) * 0.8


def test_the_tables_are_what_the_package_says() -> None:
    subprocess.run([sys.executable, str(ROOT / "scripts/prices.py"), "--check"], check=True)
