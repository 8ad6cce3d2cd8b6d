"""A conversation as LangChain messages, and LangChain messages as a conversation.

The law of this file: pure; no loop, no network. ``langchain_core`` is imported inside of the
functions. A graph keeps its own record of tools, so calls and outputs are left out for it
(`with_tools=False`); a chat model gets them. Opaque provider state travels in
``additional_kwargs["rejoinder"]`` and back.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from rejoinder._core.items import (
    AudioContent,
    ChatContent,
    ChatItem,
    ChatMessage,
    FunctionCall,
    FunctionCallOutput,
    ImageContent,
    parts_of,
)

__all__ = ["STATE_KEY", "from_messages", "text_of", "thinking_of", "to_chat_ctx"]

STATE_KEY = "rejoinder"
"""Where opaque provider state lies in the ``additional_kwargs`` of an AI message."""


def to_chat_ctx(
    items: Sequence[ChatItem],
    *,
    inject_dummy_user_message: bool = True,
    with_tools: bool = False,
) -> tuple[list[Any], None]:
    """LangChain messages for `items`; nothing is invented, so `inject_dummy_user_message` has no
    effect here."""
    from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage

    messages: list[Any] = []
    answered = {item.call_id for item in items if isinstance(item, FunctionCallOutput)}
    called: set[str] = set()
    for item in items:
        if isinstance(item, ChatMessage):
            content: Any = _content(parts_of(item), images=item.role == "user")
            if not content:
                continue
            if item.role == "assistant":
                extra = {STATE_KEY: {"extra": item.extra}} if with_tools and item.extra else {}
                messages.append(AIMessage(content, id=item.id, additional_kwargs=extra))
            elif item.role == "user":
                messages.append(HumanMessage(content, id=item.id))
            else:
                messages.append(SystemMessage(content, id=item.id))
        elif isinstance(item, FunctionCall) and with_tools:
            # Chat models refuse a call without an output, and an output without a call.
            if item.call_id in answered:
                called.add(item.call_id)
                _add_call(messages, item)
        elif isinstance(item, FunctionCallOutput) and with_tools and item.call_id in called:
            messages.append(
                ToolMessage(
                    item.output,
                    tool_call_id=item.call_id,
                    name=item.name or None,
                    status="error" if item.is_error else "success",
                )
            )
    return messages, None


def _add_call(messages: list[Any], call: FunctionCall) -> None:
    from langchain_core.messages import AIMessage

    try:
        arguments: Any = json.loads(call.arguments or "{}")
    except ValueError:
        arguments = {}
    made: Any = {
        "name": call.name,
        "args": cast("dict[str, Any]", arguments) if isinstance(arguments, dict) else {},
        "id": call.call_id,
        "type": "tool_call",
    }
    if not messages or not isinstance(messages[-1], AIMessage):
        messages.append(AIMessage("", id=call.id))
    last = messages[-1]
    last.tool_calls = [*last.tool_calls, made]
    if call.extra:
        state = last.additional_kwargs.setdefault(STATE_KEY, {})
        state.setdefault("calls", {})[call.call_id] = call.extra


def _content(parts: Iterable[ChatContent], *, images: bool) -> str | list[dict[str, Any]]:
    texts: list[str] = []
    pictures: list[dict[str, Any]] = []
    for part in parts:
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, AudioContent) and part.transcript:
            texts.append(part.transcript)
        elif images and isinstance(part, ImageContent) and isinstance(part.image, str):
            pictures.append({"type": "image_url", "image_url": {"url": part.image}})
    text = "\n".join(texts)
    if not pictures:
        return text
    return [*([{"type": "text", "text": text}] if text else []), *pictures]


def from_messages(messages: Iterable[Any]) -> list[ChatItem]:
    """The items of a conversation given as LangChain messages.

    Raises:
        ValueError: a message of a kind that has no counterpart.
    """
    items: list[ChatItem] = []
    names: dict[str, str] = {}
    for message in messages:
        kind = str(message.type).removesuffix("MessageChunk").lower()
        if kind in {"system", "developer"}:
            _add_message(items, "system", message)
        elif kind in {"human", "user"}:
            _add_message(items, "user", message)
        elif kind in {"ai", "assistant"}:
            _add_reply(items, message, names)
        elif kind == "tool":
            call_id = str(message.tool_call_id)
            items.append(
                FunctionCallOutput(
                    name=message.name or names.get(call_id, ""),
                    call_id=call_id,
                    output=_readable(message.content),
                    is_error=getattr(message, "status", "success") == "error",
                )
            )
            pictures: list[Any] = [
                part for part in _parts(message.content) if not isinstance(part, str)
            ]
            if pictures:
                items.append(ChatMessage(role="user", content=pictures))
        elif kind == "chat":
            role = {"assistant": "assistant", "system": "system"}.get(message.role, "user")
            _add_message(items, role, message)
        elif kind != "remove":
            raise ValueError(
                f"expected a system, human, AI, tool or chat message, got {type(message).__name__}"
            )
    return items


def _add_message(items: list[ChatItem], role: Any, message: Any) -> None:
    content = _parts(message.content)
    if content:
        more = {"id": message.id} if message.id else {}
        items.append(ChatMessage(role=role, content=content, **more))


def _add_reply(items: list[ChatItem], message: Any, names: dict[str, str]) -> None:
    state: dict[str, Any] = message.additional_kwargs.get(STATE_KEY) or {}
    extra: dict[str, Any] = state.get("extra") or {}
    calls: dict[str, Any] = state.get("calls") or {}
    text = text_of(message)
    if text or (extra and not message.tool_calls):
        items.append(ChatMessage(role="assistant", content=[text] if text else [], extra=extra))
        extra = {}
    group = f"group_{message.id}" if message.id else None
    for call in message.tool_calls:
        names[str(call["id"])] = call["name"]
        more: dict[str, Any] = calls.get(call["id"]) or {}
        items.append(
            FunctionCall(
                call_id=str(call["id"]),
                name=call["name"],
                arguments=json.dumps(call["args"], ensure_ascii=False),
                # State of a reply without text goes with its first call.
                extra={**extra, **more},
                group_id=group,
            )
        )
        extra = {}


def _parts(content: Any) -> list[ChatContent]:
    if isinstance(content, str):
        return [content] if content else []
    parts: list[ChatContent] = []
    for block in cast("list[Any]", content):
        if isinstance(block, str):
            parts.append(block)
            continue
        if not isinstance(block, Mapping):
            continue
        known = cast("Mapping[str, Any]", block)
        if isinstance(known.get("text"), str):
            parts.append(known["text"])
            continue
        image = _image(known)
        if image is not None:
            parts.append(ImageContent(image=image, mime_type=known.get("mime_type")))
    return parts


def _image(block: Mapping[str, Any]) -> str | None:
    kind = block.get("type")
    if kind == "image_url":
        url: Any = block.get("image_url")
        if isinstance(url, Mapping):
            url = cast("Mapping[str, Any]", url).get("url")
        return url if isinstance(url, str) else None
    if kind != "image":
        return None
    if isinstance(block.get("url"), str):
        return str(block["url"])
    data = block.get("base64") or block.get("data")
    if isinstance(data, bytes):
        data = base64.b64encode(data).decode()
    if isinstance(data, str):
        return f"data:{block.get('mime_type') or 'image/png'};base64,{data}"
    source = block.get("source")
    if isinstance(source, Mapping):  # Anthropic's own form
        held = cast("Mapping[str, Any]", source)
        if isinstance(held.get("data"), str):
            return f"data:{held.get('media_type') or 'image/png'};base64,{held['data']}"
    return None


def _readable(content: Any) -> str:
    if isinstance(content, str):
        return content
    texts = [part for part in _parts(content) if isinstance(part, str)]
    return "\n".join(texts) if texts else ""


def text_of(message: Any) -> str:
    """The text of a message or chunk, of any version of ``langchain_core``, or of anything shaped
    like one."""
    text = getattr(message, "text", None)
    if isinstance(text, str):  # also the property of 1.x, which may be called as well
        return str(text)
    if callable(text):
        return str(text())
    content = getattr(message, "content", None)
    return "".join(part for part in _parts(content or "") if isinstance(part, str))


def thinking_of(message: Any) -> str:
    """The visible reasoning in a message or chunk."""
    found: list[str] = []
    content = getattr(message, "content", None)
    if isinstance(content, list):
        for block in cast("list[Any]", content):
            if isinstance(block, Mapping):
                known = cast("Mapping[str, Any]", block)
                kind = known.get("type")
                if kind in {"thinking", "reasoning"} and isinstance(known.get(kind), str):
                    found.append(known[kind])
    more: Any = getattr(message, "additional_kwargs", None)
    if isinstance(more, Mapping):
        reasoning = cast("Mapping[str, Any]", more).get("reasoning_content")
        if isinstance(reasoning, str):
            found.append(reasoning)
    return "".join(found)
