"""The tables of model families: what a name is found to be, and that the rows hold together."""

from __future__ import annotations

import pytest

from rejoinder._core.families import (
    FAMILIES,
    RETIRED,
    SAMPLING,
    UNKNOWN,
    choose_family,
    find_family,
    retirement,
)
from rejoinder.errors import ConfigurationError

OPEN = {
    "ai21",
    "alibaba",
    "cohere",
    "deepseek",
    "ibm",
    "meta",
    "minimax",
    "mistral",
    "moonshot",
    "zai",
}
"""Makers whose models others serve: their templates can leak."""


def test_models_that_others_serve_have_the_marks_of_their_templates() -> None:
    for family in FAMILIES:
        if family.maker in OPEN or family.name.startswith(("gemma", "gpt-oss", "phi")):
            assert family.marks, family.name
        assert len(set(family.marks)) == len(family.marks), family.name


@pytest.mark.parametrize(
    ("name", "family"),
    [
        # Plain names, dated ones, fine-tuned ones.
        ("gpt-5", "gpt-5"),
        ("gpt-5-nano-2025-08-07", "gpt-5"),
        ("gpt-5.2-2025-12-11", "gpt-5.2"),
        ("gpt-5-chat-latest", "gpt-5-chat"),
        ("gpt-5.1-chat-latest", "gpt-5.x-chat"),
        ("gpt-5-search-api", "gpt-4o-search"),
        ("gpt-5.6-terra", "gpt-5.6"),
        ("gpt-6-luna", "gpt-6"),
        ("gpt-6-astra", "gpt-6-astra"),
        ("o1", "o-series"),
        ("o1-mini", "o1-mini"),
        ("o4-mini-2025-04-16", "o-series"),
        ("ft:gpt-4o-mini-2024-07-18:org::id", "gpt-4o"),
        ("claude-3-5-sonnet-20241022", "claude-3.5"),
        ("claude-3-haiku-20240307", "claude-3"),
        ("claude-sonnet-4-20250514", "claude-4"),
        ("claude-opus-4-0", "claude-4"),
        ("claude-opus-4-1-20250805", "claude-opus-4.1"),
        ("claude-opus-4-5", "claude-opus-4.5"),
        ("claude-haiku-4-5", "claude-4.5"),
        ("claude-opus-4-8", "claude-4.7"),
        ("claude-opus-5", "claude-5"),
        ("claude-sonnet-5-5", "claude-5.5"),
        ("claude-fable-5-1", "claude-fable-5.1"),
        ("claude-fable-5", "claude-fable-5"),
        ("claude-something-9", "claude"),
        ("gemini-2.0-flash-001", "gemini-2.0"),
        ("gemini-2.5-flash-lite", "gemini-2.5-flash-lite"),
        ("gemini-2.5-flash-image", "gemini-image"),
        ("gemini-3-pro-preview", "gemini-3-pro"),
        ("gemini-3.1-pro-preview", "gemini-3.x-pro"),
        ("gemini-3.8-flash", "gemini-3"),
        ("gemini-4-ultra", "gemini"),
        ("grok-4-fast-non-reasoning", "grok-non-reasoning"),
        ("grok-4.20-0309-reasoning", "grok-4.20"),
        ("grok-4.20-multi-agent-0309", "grok-4.20-multi-agent"),
        ("grok-4.3", "grok-4.x"),
        ("mistral-small-2501", "mistral"),
        ("mistral-medium-latest", "mistral-reasoning"),
        ("llama-3.1-sonar-small-128k-chat", "sonar"),
        ("cohere.command-a-reasoning-08-2025", "command-a-reasoning"),
        ("CohereLabs/c4ai-command-a-reasoning-08-2025", "command-a-reasoning"),
        ("command-a-03-2025", "command"),
        # Behind gateways.
        ("openai/gpt-5.6-sol", "gpt-5.6"),
        ("anthropic/claude-sonnet-4.6", "claude-4.6"),
        ("anthropic/claude-4.7-opus", "claude-4.7"),
        ("google/gemini-2.0-flash-exp:free", "gemini-2.0"),
        ("vertex_ai/gemini-3.7-flash", "gemini-3"),
        ("x-ai/grok-3", "grok-3"),
        ("databricks-claude-sonnet-4-6", "claude-4.6"),
        # Bedrock's ids, profiles and ARNs.
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", "claude-4.5"),
        (
            "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.anthropic.claude-opus-4-7-v1:0",
            "claude-4.7",
        ),
        ("openai.gpt-oss-120b-1:0", "gpt-oss"),
        ("us.amazon.nova-2-lite-v1:0", "nova-2"),
        ("amazon.nova-micro-v1:0", "nova-micro"),
        ("deepseek.r1-v1:0", "deepseek-r1"),
        ("us.meta.llama4-scout-17b-instruct-v1:0", "llama-4"),
        # Vertex AI.
        ("claude-sonnet-4-5@20250929", "claude-4.5"),
        ("publishers/anthropic/models/claude-opus-4-7", "claude-4.7"),
        # Paths of weights, tags of Ollama, Fireworks' spelling.
        ("Qwen/Qwen3-8B", "qwen3"),
        ("qwen3:8b", "qwen3"),
        ("Qwen/Qwen3-235B-A22B-Thinking-2507", "qwen-thinking"),
        ("Qwen/Qwen3-235B-A22B-Instruct-2507", "qwen-instruct"),
        ("QwQ-32B", "qwen-thinking"),
        ("qwen3.5-plus", "qwen3.5"),
        ("qwen3-omni-flash", "qwen-omni"),
        ("accounts/fireworks/models/kimi-k2p5", "kimi-k2.5"),
        ("moonshotai/Kimi-K2-Thinking", "kimi-k2-thinking"),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-32B", "r1-distill"),
        ("DeepSeek-V3.2", "deepseek-v3"),
        ("deepseek-v4-flash", "deepseek-v4"),
        ("meta-llama/Meta-Llama-3.1-8B-Instruct-Turbo", "llama"),
        ("google/gemma-3-27b-it", "gemma-3"),
        ("zai-org/GLM-5", "glm"),
        ("MiniMaxAI/MiniMax-M2", "minimax-m"),
        ("gpt-oss:20b", "gpt-oss"),
        ("gpt-4o-audio-preview", "gpt-audio"),
        # Names that say nothing.
        ("deepseek/deepseek-chat-v3.1:free", "deepseek-v3"),
        ("deepseek.v3-v1:0", "deepseek-v3"),
        ("gemini-pro-latest", "gemini-3.x-pro"),
        ("openai/codex-mini", "gpt-5-codex"),
        ("mistral-small-2603", "mistral-reasoning"),
        # As people name deployments.
        ("prod-gpt4o", "gpt-4o"),
        ("gpt4omini", "gpt-4o"),
        ("gpt-41-nano", "gpt-4.1"),
        ("gpt41", "gpt-4.1"),
        ("gpt5mini-eu", "gpt-5"),
        ("gpt51", "gpt-5.1"),
        ("gpt-35-turbo-16k", "gpt-4"),
        ("chat-o3mini", "o-series"),
        ("claude-sonnet-45", "claude-4.5"),
        ("opus-4-6-prod", "claude-4.6"),
        ("phi4:14b", "phi"),
        ("gpt-4-0613", "gpt-4"),
        ("gpt-4-1106-preview", "gpt-4"),
        ("opus-mt-en-de", "unknown"),
        ("my-deployment", "unknown"),
        ("auto", "unknown"),
        ("", "unknown"),
        ("LongCat-Flash-Chat", "unknown"),
    ],
)
def test_a_name_is_found_however_its_host_writes_it(name: str, family: str) -> None:
    assert find_family(name).name == family


def test_a_hint_tells_where_the_name_does_not() -> None:
    assert find_family("prod-chat", "gpt-5").name == "gpt-5"
    assert find_family("gpt-4.1", "gpt-5").name == "gpt-4.1"
    assert find_family("prod-chat", "blue", "claude-opus-4-7").name == "claude-4.7"
    assert find_family("prod-chat", "blue") is UNKNOWN


def test_the_option_names_a_row_or_a_model_and_wins() -> None:
    assert choose_family("claude-4.6", "gpt-5").name == "claude-4.6"
    assert choose_family("gpt-5-mini", "prod-chat").name == "gpt-5"
    assert choose_family("unknown", "gpt-5") is UNKNOWN
    assert choose_family(None, "prod-chat", "gpt-5").name == "gpt-5"
    with pytest.raises(ConfigurationError, match="family: expected the name of a model or one of"):
        choose_family("prod-chat", "gpt-5")


def test_every_row_can_be_found_by_what_it_matches() -> None:
    for family in FAMILIES:
        found = {find_family(pattern.replace("*", "")).name for pattern in family.match}
        assert family.name in found, f"rows before {family.name} take all its names: {found}"


def test_names_of_rows_are_unique() -> None:
    names = [family.name for family in FAMILIES]
    assert len(set(names)) == len(names)
    assert UNKNOWN.name not in names


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_the_fields_of_a_row_agree(family: object) -> None:
    from rejoinder._core.families import Family

    assert isinstance(family, Family)
    assert family.maker
    assert family.match
    if family.thinks == "never":
        assert not (family.efforts)
        assert not (family.budget)
        assert not (family.words)
        assert family.forced in ("always", "never")
    if family.words in ("effort", "adaptive", "thinking_level", "nova"):
        assert family.efforts
    if family.words in ("budget", "thinking_budget"):
        assert family.budget is not None
    if family.default_effort:
        assert family.default_effort in family.efforts
    if "none" in family.efforts:
        assert family.thinks != "always"
    if family.idle_tools and family.thinks != "always":
        assert "none" in family.efforts
    if family.budget is not None:
        assert 0 <= family.budget[0] < family.budget[1]
    assert not (family.prefill and family.ends_with_user)
    if family.context is not None and family.output is not None:
        assert family.output <= family.context


def test_what_is_refused_always_is_not_refused_while_thinking_again() -> None:
    for family in FAMILIES:
        assert not family.refuses & family.refuses_thinking, family.name


def test_successors_of_retired_models_are_known_and_not_retired() -> None:
    for name, retired in RETIRED.items():
        assert retired.successor not in RETIRED, name
        assert find_family(retired.successor) is not UNKNOWN, name
        assert len(retired.ended) in (7, 10)


def test_a_retired_model_is_known_behind_a_gateway_too() -> None:
    found = retirement("deepseek/deepseek-chat")
    assert found is not None
    assert found.successor == "deepseek-v4-flash"
    assert retirement("gpt-4.1") is None


def test_sampling_holds_the_names_of_chat_completions() -> None:
    assert {"temperature", "top_p", "n", "logprobs"} <= SAMPLING
