"""What APIs refuse, written down a second time: from recorded answers, guides and reports.

The tables of the package are not read here. Each rule looks at a whole body as it is sent and at
the names of model and host, and says in the API's own words what would come back.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

__all__ = ["refusals"]

_SAMPLING = ("temperature", "top_p", "presence_penalty", "frequency_penalty", "logprobs", "n")

Body = Mapping[str, Any]


def _is(model: str, pattern: str) -> bool:
    return re.search(rf"(?<![a-z0-9]){pattern}", model.lower()) is not None


def _get(body: Any, *path: str) -> Any:
    for key in path:
        body = body.get(key) if isinstance(body, Mapping) else None
    return body


def _effort(body: Body) -> Any:
    return body.get("reasoning_effort") or _get(body, "reasoning", "effort")


def _is_forced(body: Body) -> bool:
    choice = body.get("tool_choice")
    kind = choice.get("type") if isinstance(choice, Mapping) else choice
    return bool(body.get("tools")) and kind in ("required", "any", "function", "tool")


def _is_off(body: Body) -> bool:
    """Whether a body of chat completions turns reasoning off, in any of the known words."""
    return (
        _effort(body) == "none"
        or _get(body, "thinking", "type") == "disabled"
        or body.get("enable_thinking") is False
        or _get(body, "chat_template_kwargs", "enable_thinking") is False
        or _get(body, "reasoning", "enabled") is False
    )


def _openai(model: str, host: str, api: str, body: Body) -> Iterator[str]:
    """OpenAI's models by Chat Completions or Responses."""
    effort = _effort(body)
    tools = bool(body.get("tools"))
    chat = api == "chat"
    always = _is(model, r"(o1|o3|o4)(-|$)") or (
        _is(model, r"gpt-5(-mini|-nano|-pro|-codex|-20|$)") and not _is(model, "gpt-5-chat")
    )
    switched = _is(model, r"gpt-(5\.[1-9]|6)") and not _is(model, r"gpt-5\.\d-(chat|pro)")
    off = effort == "none" or (effort is None and _is(model, r"gpt-5\.[1-4]"))
    for name in _SAMPLING:
        if name in body and (always or (switched and not off)):
            yield f"Unsupported parameter: '{name}' is not supported with this model"
    if always or switched:
        if "stop" in body:
            yield "Unsupported parameter: 'stop' is not supported with this model"
        if "max_tokens" in body and chat and host in ("openai", "azure"):
            yield "Unsupported parameter: 'max_tokens' is not supported with this model"
    if "parallel_tool_calls" in body and _is(model, r"(o1|o3|o4)(-|$)"):
        yield "Unsupported parameter: 'parallel_tool_calls'"
    if effort is not None:
        if _is(model, r"gpt-5-chat|gpt-4|gpt-audio"):
            yield "Unsupported parameter: 'reasoning.effort' is not supported with this model"
        if effort == "none" and always:
            yield "Unsupported value: 'none'"
        if effort == "minimal" and (switched or _is(model, r"(o1|o3|o4)(-|$)")):
            yield "Unsupported value: 'minimal'"
        if effort == "xhigh" and _is(model, r"(o1|o3|o4)(-|$)|gpt-5(-|$)|gpt-5\.1"):
            yield "Unsupported value: 'xhigh'"
    pro = _is(model, r"gpt-5(\.\d)?-(pro|chat)")
    if chat and tools and not pro and _is(model, r"(gpt-5\.(2|4|5|6)|gpt-6)(-|$)"):
        if effort is None and not _is_off(body) and _is(model, r"gpt-5\.[56]|gpt-6"):
            yield "Function tools with reasoning_effort are not supported"
        if effort is not None and (effort != "none" or _is(model, r"gpt-5\.[24]")):
            yield "Function tools with reasoning_effort are not supported"
    if chat and host in ("openai", "azure") and _is(model, r"gpt-5(\.\d)?-pro|o[13]-pro"):
        yield "This model is only supported in v1/responses"
    schema = body.get("response_format") or _get(body, "text", "format")
    if _get(schema, "type") == "json_schema" and _is(model, r"gpt-4(-turbo|-0|-1|-3|$)|gpt-3"):
        yield "'response_format' of type 'json_schema' is not supported with this model"
    if _is(model, "o1-mini"):
        if tools:
            yield "'tools' is not supported with this model"
        for message in body.get("messages", ()):
            if message["role"] in ("system", "developer"):
                yield f"'messages[0].role' does not support {message['role']!r} with this model"


def _claude(model: str, thinking: Any, fields: Mapping[str, Any], *, forced: bool) -> Iterator[str]:
    """Claude, in the words of its own API.

    Args:
        thinking: the member of this name.
        fields: ``temperature``, ``top_p``, ``top_k``, ``max_tokens`` as far as they are given.
        forced: a call is demanded.
    """
    kind = _get(thinking, "type")
    budget = _get(thinking, "budget_tokens")
    adaptive_only = _is(
        model, r"claude-(opus|sonnet|haiku)-(4-[78]|5)|claude-(fable|mythos)|claude-new"
    )
    adaptive = adaptive_only or _is(model, r"claude-(opus|sonnet)-4-6")
    plain = _is(model, r"claude-(3-haiku|3-5|3-opus)")
    if adaptive_only and {"temperature", "top_p", "top_k"} & fields.keys():
        yield "`temperature` is deprecated for this model"
    if (
        {"temperature", "top_p"} <= fields.keys()
        and not plain
        and not _is(model, "claude-3-7|claude-(sonnet|opus)-4-(0|20)")
    ):
        yield "`temperature` and `top_p` cannot both be specified for this model"
    if kind == "enabled" and adaptive_only:
        yield '"thinking.type.enabled" is not supported for this model'
    if kind == "adaptive" and not adaptive:
        yield "adaptive thinking is not supported on this model"
    if kind == "disabled" and _is(model, "claude-(fable|mythos)"):
        yield "thinking.type.disabled is not supported"
    if kind in ("enabled", "adaptive") and plain:
        yield "does not support thinking"
    if kind == "enabled":
        if not isinstance(budget, int) or budget < 1_024:
            yield "thinking.enabled.budget_tokens: Input should be greater than or equal to 1024"
        elif "max_tokens" in fields and fields["max_tokens"] <= budget:
            yield "`max_tokens` must be greater than `thinking.budget_tokens`"
        if forced:
            yield "Thinking may not be enabled when tool_choice forces tool use"
    if kind in ("enabled", "adaptive"):
        if fields.get("temperature", 1) != 1:
            yield "`temperature` may only be set to 1 when thinking is enabled"
        if "top_k" in fields:
            yield "`top_k` must be unset when thinking is enabled"
    if forced and _is(model, r"claude-(fable|mythos)-5-1"):
        yield "tool_choice forces tool use is not compatible with this model"
    if forced and kind == "adaptive" and _is(model, r"claude-(opus|sonnet|haiku)-5-5"):
        yield "Thinking may not be enabled when tool_choice forces tool use"
    old = _is(model, r"claude-(3|(opus|sonnet|haiku)-4(-0|@|-\d{8}|-v\d|$))")
    if old and (fields.get("schema") or fields.get("strict")):
        yield "does not support output format"


def _messages(model: str, host: str, api: str, body: Body) -> Iterator[str]:
    yield from _claude(
        model,
        body.get("thinking"),
        {
            name: body[name]
            for name in ("temperature", "top_p", "top_k", "max_tokens")
            if name in body
        }
        | {
            "schema": _get(body, "output_config", "format"),
            "strict": any("strict" in tool for tool in body.get("tools", ())),
        },
        forced=_is_forced(body),
    )
    newer = not _is(model, r"claude-(3|(opus|sonnet|haiku)-4(-[015](?!\d))?(@|-\d{8}|-v\d|$))")
    last = body["messages"][-1]["role"]
    if last == "assistant" and (newer or body.get("thinking")):
        yield "does not support assistant message prefill"
    if last == "assistant" and _get(body, "output_config", "format"):
        yield "prefill is not supported with output_config.format"
    for block in (b for m in body["messages"] for b in m["content"] if b["type"] == "image"):
        if str(_get(block, "source", "url") or "https://").startswith("http://"):
            yield "Only HTTPS URLs are supported"


def _converse(model: str, host: str, api: str, body: Body) -> Iterator[str]:
    more = body.get("additionalModelRequestFields") or {}
    names = {"temperature": "temperature", "topP": "top_p", "maxTokens": "max_tokens"}
    fields = {ours: _get(body, "inferenceConfig", theirs) for theirs, ours in names.items()}
    fields = {name: value for name, value in fields.items() if value is not None}
    choice = _get(body, "toolConfig", "toolChoice") or {}
    forced = "any" in choice or "tool" in choice
    if _is(model, "claude"):
        if "top_k" in more:
            fields["top_k"] = more["top_k"]
        fields["schema"] = _get(body, "outputConfig", "textFormat")
        yield from _claude(model, more.get("thinking"), fields, forced=forced)
    elif (
        forced
        and "some-model" not in model
        and not _is(model, "nova|amazon|mistral|ministral|magistral|voxtral|pixtral")
    ):
        yield "This model doesn't support the toolConfig.toolChoice.any field"
    if _get(more, "reasoningConfig", "maxReasoningEffort") == "high" and fields:
        yield "maxReasoningEffort high: temperature, topP and maxTokens must be unset"
    if body["messages"][-1]["role"] != "user":
        yield "A conversation must end with a user message"
    for message in body["messages"]:
        kinds = {key for block in message["content"] for key in block}
        if "document" in kinds and "text" not in kinds:
            yield "A text block must be included when using documents"


def _gemini(model: str, host: str, api: str, body: Body) -> Iterator[str]:
    config = body.get("generationConfig") or {}
    thinking = config.get("thinkingConfig") or {}
    three = _is(model, "gemini-([3-9]|flash-latest)")
    if {"presencePenalty", "frequencyPenalty"} & config.keys() and not _is(model, "gemini-(1|2.0)"):
        yield "Penalty is not enabled for this model"
    if "thinkingBudget" in thinking and "thinkingLevel" in thinking:
        yield "You can only set one of thinking budget and thinking level"
    gemma = _is(model, "gemma-4")
    if _is(model, "gemma-[23]"):
        if "systemInstruction" in body:
            yield "Developer instruction is not enabled for this model"
        if body.get("tools"):
            yield "Function calling is not enabled for this model"
        if "responseSchema" in config or "responseJsonSchema" in config:
            yield "JSON mode is not enabled for this model"
        if thinking:
            yield "Thinking is not enabled for this model"
    if gemma and (
        "thinkingBudget" in thinking
        or thinking.get("thinkingLevel") not in (None, "minimal", "high")
    ):
        yield "Thinking budget is not supported for this model"
    if "thinkingLevel" in thinking and not three and not gemma:
        yield "Thinking level is not supported for this model"
    if thinking.get("thinkingLevel") == "minimal" and _is(model, "gemini-3[^ ]*pro"):
        yield "Thinking level MINIMAL is not supported for this model"
    if thinking.get("thinkingLevel") == "medium" and _is(model, "gemini-3-pro"):
        yield "Thinking level MEDIUM is not supported for this model"
    if thinking and _is(model, "gemini-(1|2.0)|gemini-2.5-flash-image"):
        yield "Thinking is not enabled for this model"
    if thinking.get("thinkingBudget") == 0 and _is(model, "gemini-2.5-pro"):
        yield "Budget 0 is invalid. This model only works in thinking mode"
    functions = any("functionDeclarations" in tool for tool in body.get("tools", ()))
    if (
        functions
        and ("responseSchema" in config or "responseJsonSchema" in config)
        and not (three or gemma)
    ):
        yield "Function calling with a response mime type: 'application/json' is unsupported"
    if functions and _is(model, "gemini-2.5-flash-image"):
        yield "Function calling is not enabled for this model"
    if host == "vertex":
        for part in (part for content in body["contents"] for part in content["parts"]):
            for name in ("functionCall", "functionResponse"):
                if "id" in part.get(name, {}):
                    yield f'Unknown name "id" at {name}'
    if body["contents"][-1]["role"] != "user":
        yield "Please ensure that the last turn is the user's"


def _completions(model: str, host: str, api: str, body: Body) -> Iterator[str]:
    """Every server that speaks chat completions."""
    messages = body["messages"]
    roles = [message["role"] for message in messages]
    if (
        host not in ("openai", "azure")
        and "developer" in roles
        and not _is(model, "gpt-|o[134]|codex|chatgpt")
    ):
        yield "unknown variant `developer`, expected one of `system`, `user`, `assistant`, `tool`"
    for message in messages:
        if "content" not in message:
            yield "required key [content] not found"
    for call_id in (call["id"] for message in messages for call in message.get("tool_calls", ())):
        if host in ("openai", "azure") and len(call_id) > 40:
            yield "string too long. Expected a string with maximum length 40"
        if _is(model, r"claude|anthropic") and not re.fullmatch(r"[a-zA-Z0-9_-]+", call_id):
            yield "tool_use.id: String should match pattern '^[a-zA-Z0-9_-]+$'"
        if _is(
            model, r"(open-)?mi(ni)?stral|mixtral|magistral|voxtral|codestral|devstral|pixtral"
        ) and not re.fullmatch(r"[a-zA-Z0-9]{9}", call_id):
            yield "Tool call IDs should be alphanumeric strings with length 9!"
        if _is(model, "kimi") and not re.fullmatch(r"functions\.\w+:\d+", call_id):
            yield "an id that Kimi does not know: the turn ends with nothing"
    spoken = [role for role in roles if role not in ("system", "developer")]
    if (
        _is(model, r"claude-(opus|sonnet|haiku)-(4[-.][678]|5)|claude-(fable|mythos|new)")
        and spoken[-1] == "assistant"
    ):
        yield "The conversation must end with a user message"
    if body.get("tools") and _is(model, "sonar"):
        yield "Tool calling is not supported for this model"
    if host == "perplexity" or _is(model, "gemma-?[23]"):
        turns = ["user" if role == "tool" else role for role in spoken]
        if (
            turns[0] != "user"
            or turns[-1] != "user"
            or any(a == b for a, b in itertools.pairwise(turns))
        ):
            yield "After the (optional) system message(s), user and assistant should alternate"
        if "system" in roles[roles.index(spoken[0]) :]:
            yield "a system message after the conversation has begun"
    thinks = _is(
        model, "deepseek-(v4|flash|new)|kimi-k2[.p][5-7]|qwen3[^ ]*|qwen-3|glm"
    ) and not _is(model, "qwen3[^ ]*(instruct|coder|omni|max)|qwen-(plus|max|turbo)")
    if _is_forced(body) and (
        _is(
            model,
            "kimi-k3|kimi-k2-thinking|kimi-thinking|qwen3[^ ]*thinking|qwq|deepseek-r1(?!-distill)",
        )
        or (thinks and not _is(model, "glm") and not _is_off(body))
    ):
        yield "Thinking mode does not support this tool_choice"
    if host == "groq" and _is(model, "qwen") and _effort(body) not in (None, "none", "default"):
        yield "`reasoning_effort` must be one of `none` or `default`"
    if host == "zai" and body.get("tool_choice") not in (None, "auto"):
        yield "tool_choice: only 'auto' is supported"
    if host in ("deepseek", "zai") and _get(body, "response_format", "type") == "json_schema":
        yield "This response_format type is unavailable now"
    if host in ("mistral", "databricks") and "stream_options" in body:
        yield "stream_options: Extra inputs are not permitted"
    if _is(model, "kimi-k(2[.p][5-7]|3|2-thinking)") and {*_SAMPLING} & body.keys():
        yield "invalid temperature: only 1 is allowed for this model"
    wants_thoughts = _is(model, "deepseek-(v4|flash|new)|kimi-k(2[.p][5-7]|3|2-thinking)")
    for message in messages:
        if wants_thoughts and message.get("tool_calls") and not message.get("reasoning_content"):
            yield "reasoning_content is missing in assistant tool call message"
    if _is(model, "grok-(4|code|build|3-mini)") and not _is(model, "non-reasoning"):
        for name in ("presence_penalty", "frequency_penalty", "stop"):
            if name in body:
                yield f"Model does not support parameter {name}"
    if _effort(body) is not None and _is(
        model, r"grok-(3(?!-mini)|4(-|$)|4\.1|4\.20(?!-multi)|4-|code|build)"
    ):
        yield "Model does not support parameter reasoningEffort"
    if isinstance(body.get("tool_choice"), Mapping) and _is(model, "mai-ds-r1"):
        yield "Input should be a valid string"
    for part in (
        part
        for message in messages
        if isinstance(message.get("content"), list)
        for part in message["content"]
    ):
        if part["type"] == "image_url" and _is(
            model, "deepseek-(v|new|r1|flash|pro)(?!l)|gpt-oss|kimi-k2-thinking|o1-mini"
        ):
            yield "unknown variant `image_url`, expected `text`"


_RULES: dict[str, tuple[Callable[[str, str, str, Body], Iterator[str]], ...]] = {
    "chat": (_openai, _completions),
    "mistral": (_completions,),
    "responses": (_openai,),
    "messages": (_messages,),
    "converse": (_converse,),
    "gemini": (_gemini,),
}


def refusals(model: str, host: str, api: str, body: Body) -> list[str]:
    """What would come back for `body`, with status 400; empty where nothing is known against it."""
    return [text for rule in _RULES[api] for text in rule(model, host, api, body)]
