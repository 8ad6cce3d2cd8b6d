"""A conversation as LangChain messages, and LangChain messages as a conversation.

Pure: no loop, no network. ``langchain_core`` is imported inside the functions. A graph keeps its own
record of tools, so calls and outputs are omitted for it (`with_tools=False`); a chat model gets them.
Opaque provider state is kept in ``additional_kwargs["rejoinder"]``. Pictures, sound and documents are
converted or refused, never dropped silently.
"""

from __future__ import annotations

import base64
import io
import json
import wave
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from rejoinder._core.images import serialize_image
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
from rejoinder._foreign import read
from rejoinder.media import AudioFrame, audio_bytes

__all__ = ["STATE_KEY", "from_messages", "text_of", "thinking_of", "to_chat_ctx"]

STATE_KEY = "rejoinder"
"""Key of opaque provider state in the ``additional_kwargs`` of an AI message."""


def to_chat_ctx(
    items: Sequence[ChatItem],
    *,
    inject_dummy_user_message: bool = True,
    with_tools: bool = False,
) -> tuple[list[Any], None]:
    """LangChain messages for `items`. `inject_dummy_user_message` has no effect."""
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
    """Text as one string; with pictures, sound or documents, blocks in their order."""
    blocks: list[dict[str, Any]] = []
    for part in parts:
        if isinstance(part, str):
            blocks.append({"type": "text", "text": part})
        elif isinstance(part, AudioContent):
            if part.transcript or not images:
                blocks.append({"type": "text", "text": part.transcript or ""})
            elif part.frame:
                blocks.append(_sound_block(part))
        elif images:
            blocks.append(_picture_block(part))
    if all(block["type"] == "text" for block in blocks):
        return "\n".join(block["text"] for block in blocks if block["text"])
    return [block for block in blocks if block.get("text") != ""]


def _picture_block(image: ImageContent) -> dict[str, Any]:
    url = image.image
    if not isinstance(url, str):  # a frame, encoded beforehand by `images.prepare`
        read = serialize_image(image)
        data = base64.b64encode(read.data_bytes or b"").decode()
        return {"type": "image_url", "image_url": {"url": f"data:{read.mime_type};base64,{data}"}}
    mime_type = image.mime_type
    if url.startswith("data:"):
        mime_type = url[5:].partition(";")[0].partition(",")[0]
    if mime_type is None or mime_type.startswith("image/"):
        return {"type": "image_url", "image_url": {"url": url}}
    if url.startswith("data:"):
        data = url.partition(",")[2]
        return {"type": "file", "base64": data, "mime_type": mime_type}
    return {"type": "file", "url": url, "mime_type": mime_type}


def _sound_block(audio: AudioContent) -> dict[str, Any]:
    first = audio.frame[0]
    held = io.BytesIO()
    with wave.open(held, "wb") as file:
        file.setnchannels(first.num_channels)
        file.setsampwidth(2)
        file.setframerate(first.sample_rate)
        for frame in audio.frame:
            file.writeframes(audio_bytes(frame))
    data = base64.b64encode(held.getvalue()).decode("ascii")
    return {"type": "audio", "base64": data, "mime_type": "audio/wav"}


def from_messages(messages: Iterable[Any]) -> list[ChatItem]:
    """The items of a conversation given as LangChain messages.

    Raises:
        ValueError: a message or a content block has no counterpart.
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
            parts = _parts(message.content, said_by_user=True)
            items.append(
                FunctionCallOutput(
                    name=message.name or names.get(call_id, ""),
                    call_id=call_id,
                    output="\n".join(p for p in parts if isinstance(p, str)),
                    is_error=read(message, "status") == "error",
                )
            )
            pictures: list[Any] = [part for part in parts if not isinstance(part, str)]
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
    content = _parts(message.content, said_by_user=role != "assistant")
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


_NOT_CONTENT = frozenset(
    {
        "thinking", "redacted_thinking", "reasoning", "reasoning_content", "tool_use", "tool_call",
        "tool_call_chunk", "invalid_tool_call", "function_call", "server_tool_use",
        "server_tool_call", "server_tool_call_chunk", "server_tool_result", "input_json_delta",
        "non_standard", "citations", "cachePoint", "cache_point", "compaction",
    }
)  # fmt: skip
"""Blocks that are not content of a message, such as marks and what models write beside their text."""


def _parts(content: Any, *, said_by_user: bool = False) -> list[ChatContent]:
    """The contents of a message.

    Args:
        said_by_user: a user, not a model, wrote the blocks.

    Raises:
        ValueError: a block has no counterpart, e.g. a video; it must not be lost silently.
    """
    if isinstance(content, str):
        return [content] if content else []
    parts: list[ChatContent] = []
    for block in cast("list[Any]", content):
        if isinstance(block, str):
            parts.append(block)
            continue
        if not isinstance(block, Mapping):
            raise ValueError(f"expected a content block of LangChain, got {type(block).__name__}")
        known = cast("Mapping[str, Any]", block)
        wrapped: Any = known.get("value") if known.get("type") == "non_standard" else None
        if said_by_user and isinstance(wrapped, Mapping):  # a block of a provider
            known = cast("Mapping[str, Any]", wrapped)
        kind = known.get("type")
        if isinstance(known.get("text"), str) and kind in (
            None,
            "text",
            "text-plain",
            "output_text",
        ):
            parts.append(known["text"])
        elif kind not in _NOT_CONTENT and not known.keys().isdisjoint(_CARRIERS):
            parts.append(_attachment(known))
        elif kind not in _NOT_CONTENT:
            raise ValueError(f"a content block of type {kind!r} cannot be sent")
    return parts


_CARRIERS = frozenset(
    {"image_url", "input_audio", "file", "source", "url", "base64", "data", "file_id", "media"}
)
_DEFAULT_TYPES = {"image": "image/png", "audio": "audio/wav", "file": "application/pdf"}


def _attachment(block: Mapping[str, Any]) -> ChatContent:
    """A picture, a sound or a document: LangChain's own blocks, and those of OpenAI and Anthropic."""
    kind = str(block.get("type"))
    held: Mapping[str, Any] = block
    for name in ("source", "image_url", "input_audio", "file"):
        inner = block.get(name)
        if isinstance(inner, Mapping):
            held = cast("Mapping[str, Any]", inner)
        elif isinstance(inner, str) and name == "image_url":
            held = {"url": inner}
    data = held.get("base64") or held.get("data") or held.get("file_data")
    if isinstance(data, bytes):
        data = base64.b64encode(data).decode()
    family = {"image_url": "image", "input_audio": "audio", "document": "file"}.get(kind, kind)
    mime_type: Any = held.get("mime_type") or held.get("media_type") or block.get("mime_type")
    if mime_type is None and isinstance(held.get("format"), str):
        mime_type = f"audio/{held['format']}"
    if isinstance(data, str) and data.startswith("data:"):
        mime_type, data = data[5:].partition(";")[0], data.partition(",")[2]
    mime_type = mime_type or _DEFAULT_TYPES.get(family)
    url: Any = held.get("url")
    if isinstance(data, str) and str(mime_type).startswith("audio/"):
        return _sound(data, str(mime_type))
    if isinstance(data, str) and held.get("type") == "text":  # a document of Anthropic
        return data
    if isinstance(data, str) and family in ("image", "file", "media"):
        return ImageContent(image=f"data:{mime_type};base64,{data}", mime_type=mime_type)
    if isinstance(url, str) and family == "image":
        return ImageContent(image=url, mime_type=held.get("mime_type"))
    if isinstance(url, str) and family == "file":
        return ImageContent(image=url, mime_type=mime_type)
    raise ValueError(
        f"a content block of type {kind!r} cannot be sent: expected a picture or a document as "
        "base64 or url, or sound as base64 of a WAV file"
    )


def _sound(data: str, mime_type: str) -> AudioContent:
    try:
        with wave.open(io.BytesIO(base64.b64decode(data)), "rb") as file:
            if file.getsampwidth() != 2:
                raise ValueError(f"its samples have {8 * file.getsampwidth()} bits, not 16")
            frame = AudioFrame(
                data=file.readframes(file.getnframes()),
                sample_rate=file.getframerate(),
                num_channels=file.getnchannels(),
                samples_per_channel=file.getnframes(),
            )
    except (wave.Error, EOFError, ValueError) as error:
        raise ValueError(
            f"sound of type {mime_type} cannot be sent: expected a WAV file with 16 bits ({error})"
        ) from error
    return AudioContent(frame=[frame])


def text_of(message: Any) -> str:
    """The text of a message or chunk of any version of ``langchain_core``, or of a similar object."""
    text = read(message, "text")
    if isinstance(text, str):  # also the property of 1.x, which may be called as well
        return str(text)
    if callable(text):
        return str(text())
    content = read(message, "content")
    if isinstance(content, str):
        return content
    texts: list[str] = []
    for block in cast("list[Any]", content) if isinstance(content, list) else ():
        text = cast("Mapping[str, Any]", block).get("text") if isinstance(block, Mapping) else block
        if isinstance(text, str):
            texts.append(text)
    return "".join(texts)


def thinking_of(message: Any) -> str:
    """The visible reasoning in a message or chunk."""
    found: list[str] = []
    content = read(message, "content")
    if isinstance(content, list):
        for block in cast("list[Any]", content):
            if isinstance(block, Mapping):
                known = cast("Mapping[str, Any]", block)
                kind = known.get("type")
                if kind in {"thinking", "reasoning"} and isinstance(known.get(kind), str):
                    found.append(known[kind])
    more = read(message, "additional_kwargs")
    if isinstance(more, Mapping):
        reasoning = cast("Mapping[str, Any]", more).get("reasoning_content")
        if isinstance(reasoning, str):
            found.append(reasoning)
    return "".join(found)
