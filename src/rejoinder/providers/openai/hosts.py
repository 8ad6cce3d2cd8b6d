"""Servers that speak OpenAI's dialect, as data: where they are and what is different there. Pure.

The law of this file: one line a host, read by `LLM.with_<name>`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

__all__ = ["HOSTS", "Host"]


@dataclass(frozen=True, slots=True)
class Host:
    """One server."""

    name: str
    """For people, in messages."""
    base_url: str
    model: str
    """The default model."""
    key_env: str | None = None
    """Environment variable of the key; ``None``: the server asks for none."""
    strict_tools: bool = True
    """It takes strict tool schemas."""
    tool_choice: Literal["auto"] | None = "auto"
    """What is sent when the caller says nothing."""
    keep_reasoning: bool = False
    """It wants the reasoning that led to tool calls back with them."""
    limits_by_max_tokens: bool = False
    """It knows the limit of generated tokens by its old name only, ``max_tokens``."""


HOSTS: Final[dict[str, Host]] = {
    "openai": Host(
        "OpenAI", "https://api.openai.com/v1", "gpt-4.1", "OPENAI_API_KEY", tool_choice=None
    ),
    "cerebras": Host(
        "Cerebras",
        "https://api.cerebras.ai/v1",
        "llama-4-scout-17b-16e-instruct",
        "CEREBRAS_API_KEY",
        strict_tools=False,
        tool_choice=None,
    ),
    "fireworks": Host(
        "Fireworks",
        "https://api.fireworks.ai/inference/v1",
        "accounts/fireworks/models/llama-v3p3-70b-instruct",
        "FIREWORKS_API_KEY",
        limits_by_max_tokens=True,
    ),
    "x_ai": Host("xAI", "https://api.x.ai/v1", "grok-3-fast", "XAI_API_KEY"),
    "openrouter": Host("OpenRouter", "https://openrouter.ai/api/v1", "auto", "OPENROUTER_API_KEY"),
    "deepseek": Host(
        "DeepSeek",
        "https://api.deepseek.com/v1",
        "deepseek-chat",
        "DEEPSEEK_API_KEY",
        keep_reasoning=True,
        limits_by_max_tokens=True,
    ),
    "cometapi": Host(
        "CometAPI", "https://api.cometapi.com/v1/", "gpt-5-chat-latest", "COMETAPI_API_KEY"
    ),
    "octo": Host(
        "OctoAI",
        "https://text.octoai.run/v1",
        "llama-2-13b-chat",
        "OCTOAI_TOKEN",
        limits_by_max_tokens=True,
    ),
    "ollama": Host(
        "Ollama", "http://localhost:11434/v1", "llama3.1", None, limits_by_max_tokens=True
    ),
    "perplexity": Host(
        "Perplexity",
        "https://api.perplexity.ai",
        "llama-3.1-sonar-small-128k-chat",
        "PERPLEXITY_API_KEY",
        limits_by_max_tokens=True,
    ),
    "together": Host(
        "Together",
        "https://api.together.xyz/v1",
        "meta-llama/Meta-Llama-3.1-8B-Instruct-Turbo",
        "TOGETHER_API_KEY",
        limits_by_max_tokens=True,
    ),
    "telnyx": Host(
        "Telnyx",
        "https://api.telnyx.com/v2/ai",
        "meta-llama/Meta-Llama-3.1-70B-Instruct",
        "TELNYX_API_KEY",
        limits_by_max_tokens=True,
    ),
    "nebius": Host(
        "Nebius",
        "https://api.studio.nebius.com/v1/",
        "meta-llama/Meta-Llama-3.1-70B-Instruct",
        "NEBIUS_API_KEY",
        limits_by_max_tokens=True,
    ),
    "letta": Host(
        "Letta",
        "https://api.letta.com/v1/voice-beta",
        "letta-fast",
        "LETTA_API_KEY",
        tool_choice=None,
    ),
    "sambanova": Host(
        "SambaNova",
        "https://api.sambanova.ai/v1",
        "DeepSeek-R1-0528",
        "SAMBANOVA_API_KEY",
        strict_tools=False,
        tool_choice=None,
    ),
    "ovhcloud": Host(
        "OVHcloud",
        "https://oai.endpoints.kepler.ai.cloud.ovh.net/v1",
        "gpt-oss-120b",
        "OVHCLOUD_API_KEY",
    ),
}
