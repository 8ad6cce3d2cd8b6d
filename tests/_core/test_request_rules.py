"""Requests that cannot work are mended where the meaning stays, else refused before sending."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from rejoinder._core.families import FAMILIES, UNKNOWN, find_family
from rejoinder._core.hosts import HOSTS
from rejoinder._core.request_rules import concerns, fit_request
from rejoinder.errors import ConfigurationError

TOOL = {"type": "function", "function": {"name": "get", "parameters": {"type": "object"}}}
OTHER = {"type": "function", "function": {"name": "put", "parameters": {"type": "object"}}}
NAMED = {"type": "function", "function": {"name": "get"}}
CLAUDE_TOOL = {"name": "get", "input_schema": {"type": "object"}}


def fitted(
    model: str, host: str, api: Any, body: dict[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    body = dict(body)
    changes = fit_request(api, body, find_family(model), HOSTS[host])
    assert all(change.item_id == "" and change.detail for change in changes)
    again = copy.deepcopy(body)
    assert fit_request(api, again, find_family(model), HOSTS[host]) == [], (
        "what was mended is mended again"
    )
    assert again == body
    return body, [change.kind for change in changes]


@pytest.mark.parametrize(
    ("model", "given", "left"),
    [
        ("gpt-5", {"temperature": 0.3, "stop": ["x"]}, {"reasoning_effort": "minimal"}),
        ("gpt-5.1", {"temperature": 0.3}, {"temperature": 0.3, "reasoning_effort": "none"}),
        ("gpt-5.1", {"temperature": 0.3, "reasoning_effort": "low"}, {"reasoning_effort": "low"}),
        ("gpt-5", {"reasoning_effort": "none"}, {"reasoning_effort": "minimal"}),
        ("gpt-5-chat-latest", {"reasoning_effort": "low"}, {}),
        ("gpt-5.1", {"reasoning_effort": "minimal"}, {"reasoning_effort": "low"}),
        ("gpt-5.6", {}, {}),
        ("o3", {"parallel_tool_calls": False, "top_p": 1}, {}),
        ("gpt-4.1", {"temperature": 0.3, "stop": ["x"]}, {"temperature": 0.3, "stop": ["x"]}),
        ("anything", {"temperature": 3, "reasoning_effort": "odd"}, {"temperature": 3, "reasoning_effort": "odd"}),
    ],
)  # fmt: skip
def test_parameters_at_openai(model: str, given: dict[str, Any], left: dict[str, Any]) -> None:
    body, kinds = fitted(model, "openai", "chat", {"model": model, **given})
    assert body == {"model": model, **left}
    assert len(kinds) >= len(given.keys() - left.keys())


@pytest.mark.parametrize(
    ("model", "effort"),
    [
        ("gpt-5.6", "none"),
        ("gpt-5.5", "none"),
        ("gpt-6-luna", "none"),
        # They do not reason unless asked, and refuse the field itself.
        ("gpt-5.4", None),
        ("gpt-5.2", None),
    ],
)
def test_tools_in_chat_completions_leave_the_model_idle(model: str, effort: str | None) -> None:
    body, kinds = fitted(model, "compatible", "chat", {"model": model, "tools": [TOOL]})
    assert body.get("reasoning_effort") == effort
    assert kinds == []
    body, kinds = fitted(
        model, "openai", "chat", {"model": model, "tools": [TOOL], "reasoning_effort": "high"}
    )
    assert body.get("reasoning_effort") == effort
    assert kinds == ["reasoning"]
    body, _ = fitted(
        model, "openai", "responses", {"tools": [TOOL], "reasoning": {"effort": "high"}}
    )
    assert body["reasoning"] == {"effort": "high"}


def test_what_needs_the_responses_api_says_so() -> None:
    with pytest.raises(ConfigurationError, match="api='responses'"):
        fitted("gpt-6-astra", "openai", "chat", {"tools": [TOOL]})
    with pytest.raises(ConfigurationError, match="api='responses'"):
        fitted("gpt-5-pro", "openai", "chat", {})
    # A gateway may serve it by another API.
    fitted("openai/gpt-5-pro", "openrouter", "chat", {})


@pytest.mark.parametrize("choice", ["required", NAMED])
@pytest.mark.parametrize(
    ("model", "host", "off"),
    [
        ("deepseek-v4-flash", "deepseek", {"thinking": {"type": "disabled"}}),
        ("kimi-k2.6", "moonshot", {"thinking": {"type": "disabled"}}),
        ("qwen3.5-plus", "dashscope", {"enable_thinking": False}),
        ("Qwen/Qwen3-8B", "compatible", {"chat_template_kwargs": {"enable_thinking": False}}),
        ("deepseek/deepseek-v4-pro", "openrouter", {"reasoning": {"enabled": False}}),
        ("qwen/qwen3-32b", "groq", {"reasoning_effort": "none"}),
    ],
)
def test_a_forced_tool_turns_thinking_off(
    model: str, host: str, off: dict[str, Any], choice: Any
) -> None:
    given = {"tools": [TOOL], "tool_choice": choice}
    body, kinds = fitted(model, host, "chat", given)
    assert body == {**given, **off}
    assert kinds == ["reasoning"]
    # Off already: nothing to tell.
    body, kinds = fitted(model, host, "chat", {**given, **off})
    assert body == {**given, **off}
    assert kinds == []


@pytest.mark.parametrize(
    "model", ["kimi-k3", "kimi-k2-thinking", "Qwen/Qwen3-30B-A3B-Thinking-2507"]
)
def test_a_forced_tool_is_refused_where_thinking_cannot_stop(model: str) -> None:
    with pytest.raises(ConfigurationError, match="omit tool_choice"):
        fitted(model, "compatible", "chat", {"tools": [TOOL], "tool_choice": "required"})
    fitted(model, "compatible", "chat", {"tools": [TOOL], "tool_choice": "auto"})


def test_a_choice_that_may_not_name_offers_the_one_tool() -> None:
    body, kinds = fitted(
        "mai-ds-r1", "azure", "chat", {"tools": [TOOL, OTHER], "tool_choice": NAMED}
    )
    assert body == {"tools": [TOOL], "tool_choice": "required"}
    assert kinds == ["choice"]


def test_hosts_that_know_one_choice() -> None:
    with pytest.raises(ConfigurationError, match=r"Z\.ai cannot force a tool"):
        fitted("glm-5", "zai", "chat", {"tools": [TOOL], "tool_choice": "required"})
    body, kinds = fitted("glm-5", "zai", "chat", {"tools": [TOOL], "tool_choice": "none"})
    assert body == {}
    assert kinds == ["option", "choice"]
    with pytest.raises(ConfigurationError, match="Amazon Bedrock cannot force a tool"):
        fitted(
            "us.meta.llama4-scout-17b-instruct-v1:0", "bedrock", "converse",
            {"toolConfig": {"tools": [{}], "toolChoice": {"any": {}}}},
        )  # fmt: skip
    # An inference profile that says nothing is believed.
    fitted(
        "arn:aws:bedrock:us-east-1:1:application-inference-profile/abc", "bedrock", "converse",
        {"toolConfig": {"tools": [{}], "toolChoice": {"any": {}}}},
    )  # fmt: skip


def test_models_that_take_no_tools() -> None:
    for model in ("o1-mini", "gemini-2.5-flash-image"):
        with pytest.raises(ConfigurationError, match="takes no tools"):
            fitted(model, "compatible", "chat", {"tools": [TOOL]})


@pytest.mark.parametrize(
    ("model", "given", "left"),
    [
        # A forced tool and thinking with a budget exclude each other.
        (
            "claude-sonnet-4-5",
            {"thinking": {"type": "enabled", "budget_tokens": 2_000}, "max_tokens": 4_000,
             "tools": [CLAUDE_TOOL], "tool_choice": {"type": "any"}},
            {"max_tokens": 4_000, "tools": [CLAUDE_TOOL], "tool_choice": {"type": "any"}},
        ),
        # Adaptive thinking takes it.
        (
            "claude-opus-4-7",
            {"thinking": {"type": "adaptive"}, "tools": [CLAUDE_TOOL], "tool_choice": {"type": "any"}},
            {"thinking": {"type": "adaptive"}, "tools": [CLAUDE_TOOL], "tool_choice": {"type": "any"}},
        ),
        (
            "claude-sonnet-5-5",
            {"thinking": {"type": "adaptive"}, "tools": [CLAUDE_TOOL], "tool_choice": {"type": "tool", "name": "get"}},
            {"tools": [CLAUDE_TOOL], "tool_choice": {"type": "tool", "name": "get"}},
        ),
        # The limit counts the thoughts.
        (
            "claude-sonnet-4-5",
            {"thinking": {"type": "enabled", "budget_tokens": 2_000}, "max_tokens": 500, "temperature": 0.3},
            {"thinking": {"type": "enabled", "budget_tokens": 2_000}, "max_tokens": 2_500},
        ),
        (
            "claude-sonnet-4-5",
            {"thinking": {"type": "enabled", "budget_tokens": 10}, "max_tokens": 5_000, "top_k": 3},
            {"thinking": {"type": "enabled", "budget_tokens": 1_024}, "max_tokens": 5_000},
        ),
        ("claude-sonnet-4-5", {"temperature": 0.3, "top_p": 0.9}, {"temperature": 0.3}),
        ("claude-3-5-sonnet-20241022", {"temperature": 0.3, "top_p": 0.9}, {"temperature": 0.3, "top_p": 0.9}),
        ("claude-opus-4-7", {"temperature": 0.3, "top_p": 0.9, "top_k": 3}, {}),
        (
            "claude-opus-4-7",
            {"thinking": {"type": "enabled", "budget_tokens": 5_000}, "max_tokens": 100},
            {"thinking": {"type": "adaptive"}, "output_config": {"effort": "medium"}, "max_tokens": 100},
        ),
        (
            "claude-sonnet-4-5",
            {"thinking": {"type": "adaptive"}, "max_tokens": 20_000},
            {"thinking": {"type": "enabled", "budget_tokens": 8_192}, "max_tokens": 20_000},
        ),
        ("claude-fable-5", {"thinking": {"type": "disabled"}}, {}),
        ("claude-3-5-haiku-latest", {"thinking": {"type": "enabled", "budget_tokens": 2_000}}, {}),
    ],
)  # fmt: skip
def test_claude(model: str, given: dict[str, Any], left: dict[str, Any]) -> None:
    body, kinds = fitted(model, "anthropic", "messages", given)
    assert body == left
    assert bool(kinds) == (given != left)


def test_a_forced_tool_where_claude_never_takes_one() -> None:
    with pytest.raises(ConfigurationError, match="refuses a forced tool"):
        fitted(
            "claude-fable-5-1", "anthropic", "messages",
            {"tools": [CLAUDE_TOOL], "tool_choice": {"type": "any"}},
        )  # fmt: skip


def test_claude_on_bedrock() -> None:
    model = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
    thinking = {"type": "enabled", "budget_tokens": 2_000}
    tools = {"tools": [{}], "toolChoice": {"any": {}}}
    body, kinds = fitted(
        model, "bedrock", "converse",
        {"inferenceConfig": {"temperature": 0.3}, "toolConfig": tools,
         "additionalModelRequestFields": {"thinking": thinking, "top_k": 4}},
    )  # fmt: skip
    assert body == {
        "inferenceConfig": {"temperature": 0.3},
        "toolConfig": tools,
        "additionalModelRequestFields": {"top_k": 4},
    }
    assert kinds == ["reasoning"]
    body, kinds = fitted(
        model, "bedrock", "converse",
        {"inferenceConfig": {"temperature": 0.3, "maxTokens": 100},
         "additionalModelRequestFields": {"thinking": thinking}},
    )  # fmt: skip
    assert body["inferenceConfig"] == {"maxTokens": 2_100}
    assert sorted(kinds) == ["limit", "option"]
    body, _ = fitted(
        "us.anthropic.claude-opus-4-7-v1:0", "bedrock", "converse",
        {"inferenceConfig": {"temperature": 0.3}},
    )  # fmt: skip
    assert body == {"inferenceConfig": {}}


def test_nova_takes_its_highest_effort_alone() -> None:
    high = {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": "high"}}
    body, _ = fitted(
        "us.amazon.nova-2-lite-v1:0", "bedrock", "converse",
        {"inferenceConfig": {"temperature": 0.3, "maxTokens": 9}, "additionalModelRequestFields": high},
    )  # fmt: skip
    assert body == {"inferenceConfig": {}, "additionalModelRequestFields": high}


@pytest.mark.parametrize(
    ("model", "given", "left"),
    [
        ("gemini-2.5-flash", {"presencePenalty": 1, "temperature": 1}, {"temperature": 1}),
        ("gemini-2.0-flash", {"presencePenalty": 1}, {"presencePenalty": 1}),
        (
            "gemini-3-flash-preview",
            {"thinkingConfig": {"thinkingBudget": 0, "includeThoughts": True}},
            {"thinkingConfig": {"thinkingLevel": "minimal", "includeThoughts": True}},
        ),
        (
            "gemini-3-pro-preview",
            {"thinkingConfig": {"thinkingBudget": 2_000, "thinkingLevel": "low"}},
            {"thinkingConfig": {"thinkingLevel": "low"}},
        ),
        (
            "gemini-2.5-flash",
            {"thinkingConfig": {"thinkingLevel": "low"}},
            {"thinkingConfig": {"thinkingBudget": 2_048}},
        ),
        ("gemini-2.5-pro", {"thinkingConfig": {"thinkingBudget": 0}}, {"thinkingConfig": {"thinkingBudget": 128}}),
        ("gemini-2.5-pro", {"thinkingConfig": {"thinkingBudget": -1}}, {"thinkingConfig": {"thinkingBudget": -1}}),
        ("gemini-3-flash-preview", {"thinkingConfig": {"includeThoughts": True}}, {"thinkingConfig": {"includeThoughts": True}}),
        ("gemini-2.0-flash", {"thinkingConfig": {"thinkingBudget": 100}}, {}),
    ],
)  # fmt: skip
def test_gemini(model: str, given: dict[str, Any], left: dict[str, Any]) -> None:
    body, kinds = fitted(model, "gemini", "gemini", {"generationConfig": given})
    assert body == {"generationConfig": left}
    assert bool(kinds) == (given != left)


def test_gemini_before_3_takes_no_schema_beside_tools() -> None:
    body: dict[str, Any] = {
        "tools": [{"functionDeclarations": [{}]}],
        "generationConfig": {"responseSchema": {}},
    }
    with pytest.raises(ConfigurationError, match="no response format together with function tools"):
        fitted("gemini-2.5-flash", "gemini", "gemini", body)
    fitted("gemini-3-flash-preview", "gemini", "gemini", body)
    fitted("gemini-2.5-flash", "gemini", "gemini", {**body, "tools": [{"googleSearch": {}}]})


def test_fields_that_a_host_refuses_are_left_out() -> None:
    body, kinds = fitted("m", "databricks", "chat", {"stream_options": {"include_usage": True}})
    assert body == {}
    assert kinds == []
    with pytest.raises(ConfigurationError, match="takes no JSON schema"):
        fitted(
            "deepseek-v4-flash", "deepseek", "chat", {"response_format": {"type": "json_schema"}}
        )


def test_the_mappings_of_the_caller_stay_as_they_are() -> None:
    thinking = {"type": "enabled", "budget_tokens": 10}
    fields = {"thinking": thinking, "top_k": 5}
    config = {"temperature": 0.3, "maxTokens": 5}
    body = {"inferenceConfig": config, "additionalModelRequestFields": fields}
    before = copy.deepcopy(body)
    sent = dict(body)
    family = find_family("anthropic.claude-sonnet-4-5-20250929-v1:0")
    assert fit_request("converse", sent, family, HOSTS["bedrock"])
    assert body == before
    assert thinking == {"type": "enabled", "budget_tokens": 10}


def test_nothing_is_done_to_what_is_not_known() -> None:
    body: dict[str, Any] = {
        "tools": [TOOL], "tool_choice": "required", "temperature": 5, "reasoning_effort": "x",
        "thinking": {"type": "enabled"}, "response_format": {"type": "json_schema"},
    }  # fmt: skip
    sent = dict(body)
    assert fit_request("chat", sent, UNKNOWN, HOSTS["compatible"]) == []
    assert sent == body


EVERYWHERE: dict[str, Any] = {
    "stop": "END", "seed": 3, "top_k": 4, "presence_penalty": 0.1, "frequency_penalty": 0.2,
    "logit_bias": {"1": 1},
}  # fmt: skip
PENALTIES = {"presence_penalty": 0.1, "frequency_penalty": 0.2}


@pytest.mark.parametrize(
    ("model", "host", "api", "left"),
    [
        ("gpt-4.1", "openai", "chat", EVERYWHERE),
        ("gpt-4.1", "openai", "responses", {}),
        ("anything", "compatible", "responses", EVERYWHERE),
        ("claude-haiku-4-5", "anthropic", "messages", {"stop_sequences": ["END"], "top_k": 4}),
        ("mistral-small-latest", "mistral", "mistral", {"stop": "END", "random_seed": 3, **PENALTIES}),
    ],
)  # fmt: skip
def test_parameters_of_chat_completions_under_the_names_of_other_apis(
    model: str, host: str, api: Any, left: dict[str, Any]
) -> None:
    body, _ = fitted(model, host, api, {"model": model, **EVERYWHERE})
    expected = {"model": model, **left}
    if host == "openai":
        expected.pop("top_k", None)
    assert body == expected


@pytest.mark.parametrize(
    ("model", "host", "api", "left"),
    [
        ("gpt-5", "openai", "chat", {"verbosity"}),
        ("openai/gpt-5", "openrouter", "chat", {"verbosity"}),
        ("anything", "compatible", "chat", {"verbosity", "truncation"}),
        ("llama-3.3-70b", "groq", "chat", set()),
        ("gpt-5", "openai", "responses", {"verbosity", "truncation"}),
        ("claude-haiku-4-5", "anthropic", "messages", set()),
        ("gemini-2.5-flash", "gemini", "gemini", set()),
        ("mistral-small-latest", "mistral", "mistral", set()),
    ],
)
def test_parameters_of_openai_stay_where_they_are_known(
    model: str, host: str, api: Any, left: set[str]
) -> None:
    given = {"verbosity": "low", "truncation": "auto"}
    body, changes = fitted(model, host, api, {"model": model, **given})
    assert body.keys() & given.keys() == left
    assert changes.count("option") == 2 - len(left)


def test_the_callers_own_word_wins_over_the_common_one() -> None:
    given = {"stop_sequences": ["A"], "stop": ["B"]}
    body, _ = fitted("claude-haiku-4-5", "anthropic", "messages", given)
    assert body == {"stop_sequences": ["A"]}


@pytest.mark.parametrize(
    ("model", "host", "name"),
    [
        ("gpt-5-mini", "openai", "max_completion_tokens"),
        ("o3", "azure", "max_completion_tokens"),
        ("gpt-4.1", "openai", "max_tokens"),
        ("gpt-5-mini", "compatible", "max_tokens"),
    ],
)
def test_the_limit_of_models_that_reason_has_another_name(model: str, host: str, name: str) -> None:
    body, _ = fitted(model, host, "chat", {"model": model, "max_tokens": 50})
    assert body[name] == 50
    assert len(body.keys() & {"max_tokens", "max_completion_tokens"}) == 1


HARMLESS: dict[str, Any] = {
    # What bodies hold beside what a rule may be about, and much that some rule is about.
    "model": "m",
    "messages": [{"role": "user", "content": "Hi"}],
    "stream": True,
    "stream_options": {"include_usage": True},
    "inferenceConfig": {"maxTokens": 5, "temperature": 0.5, "topP": 0.5, "stopSequences": ["x"]},
    "tools": [TOOL],
    "toolConfig": {"tools": [{"toolSpec": {}}]},
    "parallel_tool_calls": True,
    "temperature": 0.3,
    "top_p": 0.5,
    "top_k": 5,
    "n": 1,
    "logprobs": True,
    "top_logprobs": 2,
    "logit_bias": {},
    "seed": 1,
    "stop": ["x"],
    "stop_sequences": ["x"],
    "max_tokens": 5,
    "max_completion_tokens": 5,
    "max_output_tokens": 5,
    "presence_penalty": 1,
    "frequency_penalty": 1,
    "verbosity": "low",
    "truncation": "auto",
    "user": "u",
}
HELD = {
    "inferenceConfig": {"maxTokens", "stopSequences", "temperature", "topP"},
    "additionalModelRequestFields": {"top_k", "reasoning_effort", "thinking", "anthropic_beta"},
    "generationConfig": {
        *("maxOutputTokens", "stopSequences", "temperature", "topP", "topK", "seed"),
        *("presencePenalty", "frequencyPenalty", "thinkingConfig", "responseSchema"),
    },
    "toolConfig": {"tools", "toolChoice", "functionCallingConfig", "retrievalConfig"},
}


@pytest.mark.parametrize("api", ["chat", "mistral", "responses", "messages", "converse", "gemini"])
def test_what_concerns_no_rule_needs_no_look(api: Any) -> None:
    looked = 0
    for host in HOSTS.values():
        for family in (UNKNOWN, *FAMILIES):
            watched = concerns(api, family, host)
            if watched is None:
                looked += 1
                continue
            body: dict[str, Any] = {
                name: value for name, value in HARMLESS.items() if name not in watched
            }
            for holder, names in HELD.items():
                inner = watched.get(holder, frozenset())
                if inner is not None:
                    body[holder] = dict.fromkeys(names - inner, 1)
            after = copy.deepcopy(body)
            assert fit_request(api, after, family, host) == [], (host.name, family.name)
            assert after == body
    assert looked < len(HOSTS) * len(FAMILIES) / 2
