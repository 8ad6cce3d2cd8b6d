"""OpenAI chat completions: the history as messages, and the body of a request.

Law: pure; no loop, no clock, no socket. What goes in is not changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rejoinder._core.items import ChatItem
from rejoinder.providers._completions_format import to_messages

__all__ = ["to_chat_ctx"]


def to_chat_ctx(
    items: Sequence[ChatItem], *, inject_dummy_user_message: bool = True
) -> tuple[list[dict[str, Any]], None]:
    """`items` as chat completions messages; system texts stay among them, so there is no data.

    Args:
        items: a history; what cannot be paired is left out with a warning.
        inject_dummy_user_message: accepted by every format; this one never needs it.

    Raises:
        ValueError: an image cannot be read.
    """
    return to_messages(items), None
