"""Messages of Mistral's chat completions as items. Pure."""

from __future__ import annotations

from typing import Any

from rejoinder._core.items import ChatItem
from rejoinder.providers.completions import inverse

__all__ = ["from_messages"]


def from_messages(messages: object, system: Any = None) -> list[ChatItem]:
    """Convert messages of Mistral to items; see `rejoinder.providers.completions.inverse`.

    Raises:
        ValueError: an entry is not a message of this API; the message names the place.
    """
    return inverse.from_messages(messages, system, key="mistralai", form="mistralai")
