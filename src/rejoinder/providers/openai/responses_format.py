"""OpenAI Responses: the history as a flat list of input items, and the body of a request.

Law: pure; no loop, no clock, no socket. What goes in is not changed. Reasoning items that a
message or a call carries in ``extra["openai"]["reasoning_items"]`` go back before it, because the
API wants each followed by the item it led to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from rejoinder._core.groups import Group, group_tool_calls
from rejoinder._core.items import ChatItem, ChatMessage
from rejoinder.providers._completions_format import image_url, read_image, split_content
from rejoinder.providers._completions_request import named_choice

__all__ = ["request_body", "to_chat_ctx"]


def to_chat_ctx(
    items: Sequence[ChatItem], *, inject_dummy_user_message: bool = True
) -> tuple[list[dict[str, Any]], None]:
    """`items` as input items of the Responses API; there is no data beside them.

    Args:
        items: a history; what cannot be paired is left out with a warning.
        inject_dummy_user_message: accepted by every format; this one never needs it.

    Raises:
        ValueError: an image cannot be read.
    """
    entries: list[dict[str, Any]] = []
    append = entries.append
    for turn in group_tool_calls(items):
        if not isinstance(turn, Group):
            if turn.extra and turn.role == "assistant":
                entries.extend(_reasoning(turn.extra))
            append(_message(turn))
            continue
        message = turn.message
        if message is not None:
            if message.extra:
                entries.extend(_reasoning(message.extra))
            # A message that holds nothing but state is only the carrier of what precedes a call.
            if not turn.calls or any(message.content):
                append(_message(message))
        for call in turn.calls:
            if call.extra:
                entries.extend(_reasoning(call.extra))
            append(
                {
                    "type": "function_call",
                    "call_id": call.call_id,
                    "name": call.name,
                    "arguments": call.arguments,
                }
            )
        for output in turn.outputs:
            append(
                {
                    "type": "function_call_output",
                    "call_id": output.call_id,
                    "output": output.output,
                }
            )
    return entries, None


def _message(message: ChatMessage) -> dict[str, Any]:
    text, images = split_content(message)
    entry: dict[str, Any]
    if images:
        parts: list[dict[str, Any]] = [
            {
                "type": "input_image",
                "image_url": image_url(image),
                "detail": image.inference_detail,
            }
            for image in map(read_image, images)
        ]
        if text:
            parts.append({"type": "input_text", "text": text})
        entry = {"role": message.role, "content": parts}
    else:
        entry = {"role": message.role, "content": text}
    if message.extra and message.role == "assistant":
        state = message.extra.get("openai")
        if isinstance(state, dict):
            phase = cast("dict[str, Any]", state).get("phase")
            if phase is not None:
                entry["phase"] = phase
    return entry


def _reasoning(extra: dict[str, Any]) -> list[dict[str, Any]]:
    state = extra.get("openai")
    if not isinstance(state, dict):
        return []
    reasoning = cast("dict[str, Any]", state).get("reasoning_items")
    return cast("list[dict[str, Any]]", reasoning) if isinstance(reasoning, list) else []


def request_body(
    messages: Sequence[dict[str, Any]],
    data: object,
    tools: Sequence[dict[str, Any]],
    tool_choice: object,
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """The body of a streaming request.

    Args:
        messages: input items, as `to_chat_ctx` makes them.
        data: nothing in this format.
        tools: flat specs.
        tool_choice: ``"auto"``, ``"required"``, ``"none"``, one function by name, or ``None``.
        options: the other fields in the words of chat completions; they are put where this API
            wants them. ``extra_body`` is laid over all at the end.
    """
    body: dict[str, Any] = {"input": messages, "stream": True}
    reasoning: dict[str, Any] = {}
    text: dict[str, Any] = {}
    extra: Mapping[str, Any] = {}
    for name, value in options.items():
        match name:
            case "extra_body":
                extra = value or {}
            case "max_completion_tokens" | "max_tokens":
                body["max_output_tokens"] = value
            case "reasoning_effort":
                reasoning["effort"] = value
            case "reasoning":
                reasoning.update(value)
            case "verbosity":
                text["verbosity"] = value
            case "response_format":
                text["format"] = _text_format(value)
            case "text":
                text.update(value)
            case "parallel_tool_calls":
                if tools:
                    body[name] = value
            case _:
                body[name] = value
    if reasoning:
        body["reasoning"] = reasoning
    if text:
        body["text"] = text
    if tools:
        body["tools"] = tools
        choice = named_choice(tool_choice, flat=True)
        if choice is not None:
            body["tool_choice"] = choice
    body.update(extra)
    return body


def _text_format(response_format: Mapping[str, Any]) -> dict[str, Any]:
    """The flat form in which this API wants a response format."""
    inner = response_format.get("json_schema")
    if isinstance(inner, Mapping):
        return {"type": "json_schema", **cast("Mapping[str, Any]", inner)}
    return dict(response_format)
