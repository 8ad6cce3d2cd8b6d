"""The constructors take what those of LiveKit Agents 1.2.17 take, with the same defaults."""

from __future__ import annotations

import inspect

import pytest

from rejoinder.providers import anthropic, aws, google, inference, mistralai

REQUIRED = "<required>"
MODULES = {
    "anthropic": anthropic,
    "aws": aws,
    "google": google,
    "inference": inference,
    "mistralai": mistralai,
}
# Default models that their makers no longer serve have a successor here; docs/compat.md lists them.
SUCCESSORS = {
    "'claude-3-5-sonnet-20241022'": "'claude-sonnet-4-6'",
    "'anthropic.claude-3-5-sonnet-20240620-v1:0'": "'global.anthropic.claude-sonnet-4-6'",
    "'gemini-2.0-flash-001'": "'gemini-3.5-flash'",
    "'ministral-8b-2410'": "'ministral-8b-latest'",
}
# What each parameter's default is shown as; recorded from the package itself.
CONSTRUCTORS: dict[str, dict[str, str]] = {
    "anthropic": {
        "model": "'claude-3-5-sonnet-20241022'",
        "api_key": "NOT_GIVEN",
        "base_url": "NOT_GIVEN",
        "user": "NOT_GIVEN",
        "client": "None",
        "top_k": "NOT_GIVEN",
        "max_tokens": "NOT_GIVEN",
        "temperature": "NOT_GIVEN",
        "parallel_tool_calls": "NOT_GIVEN",
        "tool_choice": "NOT_GIVEN",
        "caching": "NOT_GIVEN",
    },
    "aws": {
        "model": "'anthropic.claude-3-5-sonnet-20240620-v1:0'",
        "api_key": "NOT_GIVEN",
        "api_secret": "NOT_GIVEN",
        "region": "'us-east-1'",
        "temperature": "NOT_GIVEN",
        "max_output_tokens": "NOT_GIVEN",
        "top_p": "NOT_GIVEN",
        "tool_choice": "NOT_GIVEN",
        "additional_request_fields": "NOT_GIVEN",
        "cache_system": "False",
        "cache_tools": "False",
        "session": "None",
    },
    "google": {
        "model": "'gemini-2.0-flash-001'",
        "api_key": "NOT_GIVEN",
        "vertexai": "NOT_GIVEN",
        "project": "NOT_GIVEN",
        "location": "NOT_GIVEN",
        "temperature": "NOT_GIVEN",
        "max_output_tokens": "NOT_GIVEN",
        "top_p": "NOT_GIVEN",
        "top_k": "NOT_GIVEN",
        "presence_penalty": "NOT_GIVEN",
        "frequency_penalty": "NOT_GIVEN",
        "tool_choice": "NOT_GIVEN",
        "thinking_config": "NOT_GIVEN",
        "automatic_function_calling_config": "NOT_GIVEN",
        "gemini_tools": "NOT_GIVEN",
        "http_options": "NOT_GIVEN",
        "seed": "NOT_GIVEN",
    },
    "inference": {
        "model": REQUIRED,
        "provider": "None",
        "base_url": "None",
        "api_key": "None",
        "api_secret": "None",
        "extra_kwargs": "None",
    },
    "mistralai": {
        "model": "'ministral-8b-2410'",
        "api_key": "None",
        "client": "None",
        "temperature": "NOT_GIVEN",
        "max_completion_tokens": "NOT_GIVEN",
        "timeout": "None",
    },
}
CHAT = ("chat_ctx", "tools", "conn_options", "parallel_tool_calls", "tool_choice", "extra_kwargs")
MORE = {
    "anthropic": (),
    "aws": ("temperature",),
    "google": ("response_format", "gemini_tools"),
    "inference": ("response_format",),
    "mistralai": ("response_format",),
}


@pytest.mark.parametrize("provider", CONSTRUCTORS)
def test_constructors(provider: str) -> None:
    expected = {
        name: SUCCESSORS.get(default, default) for name, default in CONSTRUCTORS[provider].items()
    }
    found = inspect.signature(MODULES[provider].LLM).parameters
    shown = {
        name: REQUIRED if parameter.default is parameter.empty else repr(parameter.default)
        for name, parameter in found.items()
        if name in expected
    }
    assert list(shown.items()) == list(expected.items())
    assert {"base_url", "http_session"} <= set(found)
    positional = [p.name for p in found.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert positional == {"inference": ["model"], "mistralai": list(expected)}.get(provider, [])


@pytest.mark.parametrize("provider", MORE)
def test_chat(provider: str) -> None:
    found = inspect.signature(MODULES[provider].LLM.chat).parameters
    assert {*CHAT, *MORE[provider]} <= set(found)
    assert all(p.kind is p.KEYWORD_ONLY for name, p in found.items() if name != "self")
