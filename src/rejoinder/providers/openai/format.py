"""OpenAI chat completions: the history as messages, and the body of a request.

Pure: no loop, no clock, no socket; the items are not changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rejoinder._core.families import ReasoningBack
from rejoinder._core.items import ChatItem
from rejoinder.providers.completions import request
from rejoinder.providers.completions.format import to_messages

__all__ = ["request_body", "to_chat_ctx"]


def to_chat_ctx(
    items: Sequence[ChatItem],
    *,
    inject_dummy_user_message: bool = True,
    reasoning_back: ReasoningBack | None = None,
    reasoning_details: bool = False,
    host: str = "",
) -> tuple[list[dict[str, Any]], None]:
    """`items` as chat completions messages; system texts stay among them, so there is no data.

    Args:
        items: a history; calls and outputs without their counterpart are omitted with a warning.
        inject_dummy_user_message: ignored; accepted because every format accepts it.
        reasoning_back: the messages whose reasoning is sent back, see
            `rejoinder.providers.completions.format.to_messages`.
        reasoning_details: send ``reasoning_details`` back (OpenRouter).
        host: the server, to which its own unknown fields are sent back.

    Raises:
        ValueError: an image cannot be read.
    """
    messages = to_messages(
        items,
        reasoning_back=reasoning_back,
        reasoning_details=reasoning_details,
        host=host,
    )
    return messages, None


def request_body(
    messages: Sequence[dict[str, Any]],
    data: object,
    tools: Sequence[dict[str, Any]],
    tool_choice: object,
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """The body of a request; see `rejoinder.providers.completions.request.request_body`."""
    return request.request_body(messages, data, tools, tool_choice, options)
