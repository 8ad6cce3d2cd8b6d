"""Conversations for the embedded engine: chat completions in a form that any chat template accepts.

Pure. The engine's template may not support tools, the system role or pictures; these are then written
as text (`rejoinder.providers.local.tools`). If no call is wanted, the prompt has no tools, because a
small model that reads about tools writes calls.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from rejoinder._core.items import ChatContent, ChatItem, ChatMessage
from rejoinder.providers.completions.format import to_messages
from rejoinder.providers.local.marks import Marks
from rejoinder.providers.local.tools import (
    Call,
    call_schema,
    fold_tools,
    plain_schema,
    specs_of,
    tell_calls,
    tell_past,
)

__all__ = ["Mode", "answered_calls", "request_body", "to_chat_ctx"]

logger = logging.getLogger("rejoinder")

Mode = Literal["plain", "auto", "forced", "words"]

_WORDS: Final = "root ::= [^{}`<>\\[\\]]+"
"""The grammar of an answer in which no call can be written."""

_UNSEEN = "(a picture, which this model cannot see)"


def to_chat_ctx(
    items: Sequence[ChatItem], *, inject_dummy_user_message: bool = True
) -> tuple[list[dict[str, Any]], None]:
    """`items` as messages with text only.

    Args:
        items: a history; calls and outputs without their counterpart are omitted with a warning.
        inject_dummy_user_message: add a user message if the history has none, because the engine
            needs one.
    """
    messages: list[dict[str, Any]] = []
    for message in to_messages([_without_pictures(item) for item in items], form=""):
        if message["role"] == "developer":
            message = {**message, "role": "system"}
        message.pop("extra_content", None)
        messages.append(message)
    if inject_dummy_user_message and not any(
        message["role"] in ("user", "tool") for message in messages
    ):
        messages.append({"role": "user", "content": "."})
    return messages, None


def _without_pictures(item: ChatItem) -> ChatItem:
    if not isinstance(item, ChatMessage) or all(isinstance(part, str) for part in item.content):
        return item
    content: list[ChatContent] = []
    for part in item.content:
        if isinstance(part, str):
            content.append(part)
        elif part.type == "image_content":
            logger.warning("the embedded model cannot see pictures; it gets a note instead")
            content.append(_UNSEEN)
        elif part.transcript:
            content.append(part.transcript)
    return item.model_copy(update={"content": content})


def answered_calls(items: Sequence[ChatItem]) -> frozenset[Call]:
    """The calls since the last user message that have results. A small model often repeats a call
    instead of reading its result."""
    calls: dict[str, Call] = {}
    answered: set[Call] = set()
    for item in reversed(items):
        if item.type == "message" and item.role == "user":
            break
        if item.type == "function_call_output" and not item.is_error:
            calls[item.call_id] = Call(item.name, "")
        elif item.type == "function_call" and item.call_id in calls:
            answered.add(Call(item.name, item.arguments))
    return frozenset(answered)


def request_body(
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]],
    options: Mapping[str, Any],
    *,
    mode: Mode = "plain",
    forced: str | None = None,
    response_schema: Mapping[str, Any] | None = None,
    tell: bool = False,
    knows_tools: bool = True,
    knows_system: bool = True,
    marks: Marks | None = None,
) -> dict[str, Any]:
    """The body of a request.

    Args:
        messages: from `to_chat_ctx`.
        tools: declarations in the chat completions dialect.
        options: further members.
        mode: ``"auto"``: tools are offered. ``"forced"``: the reply is one call, by schema.
            ``"plain"``: no tools. ``"words"``: also nothing that looks like a call.
        forced: the only tool that may be called.
        response_schema: the schema of the answer.
        tell: describe earlier calls in plain words and, if a call is allowed, the whole past
            conversation.
        knows_tools: the model's template supports tools.
        knows_system: it supports system messages.
        marks: the model's marks, which are disarmed in messages and tools.
    """
    if marks is not None:
        messages = marks.in_messages(messages)
        tools = marks.in_value(list(tools))
    specs = specs_of(tools)
    offers = mode in ("auto", "forced")
    if tell:
        messages = tell_past(messages) if offers else tell_calls(messages)
    if not knows_tools:
        messages = fold_tools(messages, specs if offers else [])
    if not knows_system:
        messages = _fold_system(messages)
    body: dict[str, Any] = {
        **options,
        "messages": list(messages),
        "stream": True,
        "stream_options": {"include_usage": True},
        # The engine sends a sign of life for each batch of the prompt. Writing one is the soonest
        # that it can notice a closed connection and stop.
        "return_progress": True,
    }
    if mode == "words":
        body["grammar"] = _WORDS
    if offers and tools and knows_tools:
        body["tools"] = list(tools)
        body["tool_choice"] = "auto" if mode == "auto" and response_schema is None else "none"
    schema: dict[str, Any] | None = None
    if mode == "forced":
        schema = call_schema([spec for spec in specs if forced in (None, spec.name)])
    elif response_schema is not None:
        schema = plain_schema(response_schema)
        if mode == "auto" and specs:
            schema = _either(schema, call_schema(specs))
    if schema is not None:
        body["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": "reply", "schema": schema},
        }
    return body


def _either(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    definitions: dict[str, Any] = {}
    options: list[dict[str, Any]] = []
    for schema in (first, second):
        definitions.update(schema.get("$defs") or {})
        options.append({key: value for key, value in schema.items() if key != "$defs"})
    return {"anyOf": options, "$defs": definitions} if definitions else {"anyOf": options}


def _fold_system(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Merge system messages into the beginning of the next user message."""
    out: list[dict[str, Any]] = []
    waiting: list[str] = []
    for message in messages:
        if message["role"] == "system":
            waiting.append(message["content"])
            continue
        if waiting and message["role"] == "user":
            message = {**message, "content": "\n\n".join([*waiting, message["content"]])}
            waiting.clear()
        out.append(dict(message))
    if waiting:
        out.append({"role": "user", "content": "\n\n".join(waiting)})
    return out
