"""The constructors for other hosts take what those of LiveKit Agents 1.2.17 take."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from rejoinder import catalog
from rejoinder._core.hosts import HOSTS
from rejoinder.errors import ConfigurationError
from rejoinder.providers.openai import LLM
from rejoinder.types import NOT_GIVEN

# Address, variable of the key, model and choice of tool, recorded from the package itself. Models
# that their hosts no longer serve have a successor here.
PRESETS: dict[str, tuple[str, str | None, str, Any]] = {
    "cerebras": ("https://api.cerebras.ai/v1", "CEREBRAS_API_KEY", "gpt-oss-120b", NOT_GIVEN),
    "fireworks": (
        "https://api.fireworks.ai/inference/v1",
        "FIREWORKS_API_KEY",
        "accounts/fireworks/models/llama-v3p3-70b-instruct",
        "auto",
    ),
    "x_ai": ("https://api.x.ai/v1", "XAI_API_KEY", "grok-4.3", "auto"),
    "deepseek": ("https://api.deepseek.com/v1", "DEEPSEEK_API_KEY", "deepseek-v4-flash", "auto"),
    "cometapi": (
        "https://api.cometapi.com/v1/",
        "COMETAPI_API_KEY",
        "gpt-5-chat-latest",
        "auto",
    ),
    "octo": ("https://text.octoai.run/v1", "OCTOAI_TOKEN", "llama-2-13b-chat", "auto"),
    "ollama": ("http://localhost:11434/v1", None, "llama3.1", "auto"),
    "perplexity": ("https://api.perplexity.ai", "PERPLEXITY_API_KEY", "sonar", "auto"),
    "together": (
        "https://api.together.xyz/v1",
        "TOGETHER_API_KEY",
        "meta-llama/Meta-Llama-3.1-8B-Instruct-Turbo",
        "auto",
    ),
    "telnyx": (
        "https://api.telnyx.com/v2/ai",
        "TELNYX_API_KEY",
        "meta-llama/Meta-Llama-3.1-70B-Instruct",
        "auto",
    ),
    "nebius": (
        "https://api.studio.nebius.com/v1/",
        "NEBIUS_API_KEY",
        "meta-llama/Meta-Llama-3.1-70B-Instruct",
        "auto",
    ),
    "sambanova": (
        "https://api.sambanova.ai/v1",
        "SAMBANOVA_API_KEY",
        "DeepSeek-R1-0528",
        NOT_GIVEN,
    ),
    "ovhcloud": (
        "https://oai.endpoints.kepler.ai.cloud.ovh.net/v1",
        "OVHCLOUD_API_KEY",
        "gpt-oss-120b",
        "auto",
    ),
}
COMMON = {
    "client",
    "user",
    "temperature",
    "parallel_tool_calls",
    "tool_choice",
    "reasoning_effort",
    "safety_identifier",
    "prompt_cache_key",
    "top_p",
}
every_preset = pytest.mark.parametrize("name", PRESETS)


@every_preset
def test_signatures(name: str) -> None:
    base_url, key_env, model, choice = PRESETS[name]
    parameters = inspect.signature(getattr(LLM, f"with_{name}")).parameters
    assert parameters.keys() >= COMMON | {"model", "base_url"}
    assert ("api_key" in parameters) == (key_env is not None)
    assert parameters["model"].default == model
    assert parameters["base_url"].default == base_url
    assert parameters["tool_choice"].default == choice
    assert {p.kind for p in parameters.values()} == {inspect.Parameter.KEYWORD_ONLY}


@pytest.mark.may_block  # the first LLM imports what it needs
@every_preset
async def test_the_catalog_makes_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    base_url, key_env, model, _ = PRESETS[name]
    if key_env is not None:
        monkeypatch.delenv(key_env, raising=False)
        with pytest.raises(ConfigurationError, match=key_env):
            getattr(LLM, f"with_{name}")()
        monkeypatch.setenv(key_env, "k")
    made = getattr(LLM, f"with_{name}")
    assert made.__doc__
    async with made() as one:
        assert one.model == model
        if name == "octo":
            return  # the service has ended: it has no name in the catalog
        async with catalog.create(f"{name}/{model}") as other:
            assert (other._url, other._host) == (one._url, one._host)
            assert one._url.startswith(base_url.rstrip("/"))
            assert one._fields == other._fields


def test_a_host_of_the_table_needs_no_constructor() -> None:
    llm = LLM.with_host("groq", model="llama", base_url="https://api.groq.com/openai/v1")
    assert llm._host is HOSTS["groq"]


def test_a_host_without_an_address_demands_one() -> None:
    with pytest.raises(ConfigurationError, match=r"with_host\('groq'\).*pass base_url="):
        LLM.with_host("groq", model="llama", api_key="k")
