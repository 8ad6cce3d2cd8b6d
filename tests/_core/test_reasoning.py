"""The portable option of reasoning, in the words of each API."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from rejoinder._core.families import FAMILIES, UNKNOWN, find_family
from rejoinder._core.hosts import HOSTS
from rejoinder._core.reasoning import (
    LEVELS,
    Option,
    check_reasoning,
    nearest_effort,
    read_reasoning,
    reasoning_fields,
    resolve_reasoning,
)
from rejoinder.errors import ConfigurationError

_LEVELS: tuple[Option, ...] = ("off", "minimal", "low", "medium", "high", "xhigh", "max")
_OPTIONS: tuple[Option, ...] = (*_LEVELS, 0, 1, 1500, 10_000, 100_000)


@pytest.mark.parametrize(
    ("model", "host", "api", "option", "fields"),
    [
        ("gpt-5", "openai", "chat", "low", {"reasoning_effort": "low"}),
        ("gpt-5.1", "openai", "chat", "off", {"reasoning_effort": "none"}),
        ("gpt-5", "openai", "chat", "off", {"reasoning_effort": "minimal"}),
        ("gpt-5-pro", "openai", "responses", "low", {"reasoning_effort": "high"}),
        ("gpt-5", "openai", "responses", 5_000, {"reasoning_effort": "medium"}),
        ("gpt-5", "openai", "chat", "minimal", {"reasoning_effort": "minimal"}),
        ("gpt-5.2", "openai", "responses", "xhigh", {"reasoning_effort": "xhigh"}),
        ("gpt-5", "openai", "chat", "max", {"reasoning_effort": "high"}),
        ("gpt-4.1", "openai", "chat", "off", {}),
        ("gpt-4.1", "openai", "chat", "high", {}),
        ("o3", "openai", "chat", "off", {"reasoning_effort": "low"}),
        ("openai/gpt-5.6", "openrouter", "chat", "off", {"reasoning": {"enabled": False}}),
        ("anthropic/claude-sonnet-4.5", "openrouter", "chat", 3_000, {"reasoning": {"max_tokens": 3_000}}),
        ("anthropic/claude-opus-4.7", "openrouter", "chat", "high", {"reasoning": {"effort": "high"}}),
        ("deepseek-v4-flash", "deepseek", "chat", "off", {"thinking": {"type": "disabled"}}),
        (
            "deepseek-v4-flash", "deepseek", "chat", "medium",
            {"thinking": {"type": "enabled"}, "reasoning_effort": "high"},
        ),
        ("kimi-k2.6", "moonshot", "chat", "off", {"thinking": {"type": "disabled"}}),
        ("kimi-k3", "moonshot", "chat", "off", {"reasoning_effort": "low"}),
        ("qwen3-8b", "dashscope", "chat", 500, {"enable_thinking": True, "thinking_budget": 500}),
        (
            "Qwen/Qwen3-8B", "compatible", "chat", "off",
            {"chat_template_kwargs": {"enable_thinking": False}},
        ),
        ("qwen/qwen3-32b", "groq", "chat", "off", {"reasoning_effort": "none"}),
        ("qwen/qwen3-32b", "groq", "chat", "low", {"reasoning_effort": "default"}),
        ("qwen/qwen3-32b", "groq", "chat", 2_000, {"reasoning_effort": "default"}),
        ("openai/gpt-oss-120b", "groq", "chat", "low", {"reasoning_effort": "low"}),
        ("grok-4.3", "x_ai", "chat", "off", {"reasoning_effort": "none"}),
        ("grok-4-0709", "x_ai", "chat", "low", {}),
        ("gemini-2.5-flash", "gemini", "gemini", "off", {"thinkingConfig": {"thinkingBudget": 0}}),
        ("gemini-2.5-pro", "gemini", "gemini", "off", {"thinkingConfig": {"thinkingBudget": 128}}),
        ("gemini-3-pro-preview", "gemini", "gemini", "medium", {"thinkingConfig": {"thinkingLevel": "high"}}),
        ("gemini-3-flash-preview", "vertex", "gemini", "off", {"thinkingConfig": {"thinkingLevel": "minimal"}}),
        ("gemini-2.5-flash", "gemini", "chat", "off", {"reasoning_effort": "none"}),
        (
            "claude-sonnet-4-5", "anthropic", "messages", "medium",
            {"thinking": {"type": "enabled", "budget_tokens": 8_192}},
        ),
        ("claude-sonnet-4-5", "anthropic", "messages", "off", {}),
        (
            "claude-opus-4-7", "anthropic", "messages", "medium",
            {"thinking": {"type": "adaptive"}, "output_config": {"effort": "medium"}},
        ),
        ("claude-fable-5", "anthropic", "messages", "off", {"output_config": {"effort": "low"}}),
        (
            "us.anthropic.claude-sonnet-4-5-20250929-v1:0", "bedrock", "converse", "low",
            {"thinking": {"type": "enabled", "budget_tokens": 2_048}},
        ),
        (
            "us.amazon.nova-2-lite-v1:0", "bedrock", "converse", "low",
            {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": "low"}},
        ),
        ("mistral-small-latest", "mistral", "mistral", "low", {"reasoning_effort": "high"}),
        ("magistral-medium-latest", "mistral", "mistral", "low", {}),
        ("some-model", "compatible", "chat", "low", {"reasoning_effort": "low"}),
        ("some-model", "compatible", "chat", "off", {"reasoning_effort": "none"}),
    ],
)  # fmt: skip
def test_the_option_in_the_words_of_the_api(
    model: str, host: str, api: Any, option: Option, fields: dict[str, Any]
) -> None:
    family = find_family(model)
    wanted, _ = resolve_reasoning(option, family)
    assert reasoning_fields(wanted, family, HOSTS[host], api)[0] == fields


@pytest.mark.parametrize("family", [UNKNOWN, *FAMILIES], ids=lambda family: family.name)
def test_every_family_at_every_host_has_an_answer(family: Any) -> None:
    for option, host in product(_OPTIONS, HOSTS.values()):
        wanted, told = resolve_reasoning(option, family)
        if wanted.effort:
            assert wanted.effort in LEVELS
        if family.efforts and wanted.effort:
            assert wanted.effort in family.efforts or family is UNKNOWN
        if family.thinks == "always" and family.name != "unknown":
            assert wanted.on is not False
            assert told or option not in ("off", 0)
        for api in host.apis:
            fields, more = reasoning_fields(wanted, family, host, api)
            if option in ("low", "medium", "high") and not fields:
                assert told or more, f"{option} is silently ignored in {api}"
            said = read_reasoning(fields)
            if said.on is not None:
                # What is written is read back with the same meaning.
                assert said.on is wanted.on


def test_more_is_never_less() -> None:
    for family in FAMILIES:
        if family.efforts:
            order = [
                family.efforts.index(wanted.effort)
                for wanted, _ in (
                    resolve_reasoning(o, family) for o in ("off", "low", "medium", "high")
                )
                if wanted.effort in family.efforts
            ]
            assert order == sorted(order), family.name


def test_the_nearest_effort_is_the_next_higher_one() -> None:
    assert nearest_effort("medium", ("low", "high", "max")) == "high"
    assert nearest_effort("max", ("low", "high")) == "high"
    assert nearest_effort("low", ("medium",)) == "medium"
    assert nearest_effort("default", ("low",)) == "default"
    assert nearest_effort("low", ()) == "low"


@pytest.mark.parametrize("option", ["none", "", "LOW", True, -1, 1.5, None, "auto"])
def test_a_value_that_means_nothing_is_refused(option: object) -> None:
    with pytest.raises(ConfigurationError, match=r"reasoning: expected .*'off', 'minimal', 'low'"):
        check_reasoning(option)


def test_every_value_that_means_something_is_accepted() -> None:
    for option in _OPTIONS:
        check_reasoning(option)
