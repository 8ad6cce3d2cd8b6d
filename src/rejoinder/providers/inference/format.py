"""The gateway's requests: chat completions. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rejoinder._core.families import ReasoningBack
from rejoinder._core.items import ChatItem
from rejoinder._secrets import redacted_url
from rejoinder.errors import ConfigurationError
from rejoinder.providers.asking.attachments import Attachment
from rejoinder.providers.completions.format import to_messages
from rejoinder.providers.completions.request import request_body

__all__ = ["attachment_part", "request_body", "to_chat_ctx"]


def to_chat_ctx(
    items: Sequence[ChatItem],
    *,
    inject_dummy_user_message: bool = True,
    reasoning_back: ReasoningBack | None = None,
) -> tuple[list[dict[str, Any]], None]:
    """`items` as chat completions messages; there is no data beside them.

    Args:
        items: a history; calls and outputs without their counterpart are omitted with a warning.
        inject_dummy_user_message: ignored; accepted because every format accepts it.
        reasoning_back: the messages whose reasoning is sent back, see `to_messages`.

    Raises:
        ValueError: an image cannot be read.
    """
    return to_messages(items, reasoning_back=reasoning_back), None


def attachment_part(attachment: Attachment) -> dict[str, Any]:
    """Sound or a document as a part of a message.

    Raises:
        ConfigurationError: it is a URL; the API takes only inline documents.
    """
    kind = attachment.mime_type
    if attachment.url:
        raise ConfigurationError(
            f"document {attachment.id!r}: the gateway takes only inline documents, got the URL "
            f"{redacted_url(attachment.url)[:200]!r}; pass a data: URL"
        )
    if kind.startswith("audio/"):
        sound = {"data": attachment.data, "format": kind.rpartition("/")[2]}
        return {"type": "input_audio", "input_audio": sound}
    file = {
        "filename": f"{attachment.id}.{kind.rpartition('/')[2]}",
        "file_data": f"data:{kind};base64,{attachment.data}",
    }
    return {"type": "file", "file": file}
