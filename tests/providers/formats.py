"""Items and their conversion, for the tests of the formats."""

from __future__ import annotations

from typing import Any

from rejoinder.llm.chat_context import (
    ChatContext,
    ChatItem,
    ChatMessage,
    FunctionCall,
    FunctionCallOutput,
    ImageContent,
)

URL = "https://e.x/a.png"
DATA = "data:image/png;base64,iVBOR2RhdGE="


def said(role: Any, *content: Any, **fields: Any) -> ChatMessage:
    return ChatMessage(role=role, content=list(content), **fields)


def image(source: str, **fields: Any) -> ImageContent:
    return ImageContent(image=source, **fields)


def call(call_id: str = "c1", **fields: Any) -> FunctionCall:
    return FunctionCall(**({"call_id": call_id, "name": "t", "arguments": "{}"} | fields))


def output(call_id: str = "c1", text: str = "r", **fields: Any) -> FunctionCallOutput:
    return FunctionCallOutput(
        **({"call_id": call_id, "output": text, "is_error": False, "name": "t"} | fields)
    )


def formatted(name: str, *items: ChatItem, **options: Any) -> tuple[Any, Any]:
    return ChatContext(list(items)).to_provider_format(name, **options)


def messages(name: str, *items: ChatItem, **options: Any) -> Any:
    return formatted(name, *items, **options)[0]
