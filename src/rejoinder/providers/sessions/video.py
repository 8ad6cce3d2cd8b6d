"""Frames of the user's video on their way to a service."""

from __future__ import annotations

import base64
from typing import Any

from rejoinder.errors import ConfigurationError
from rejoinder.llm.chat_context import ImageContent
from rejoinder.llm.utils import serialize_image

__all__ = ["frame_url"]


def frame_url(frame: Any) -> str:
    """A frame as a ``data:`` URL.

    Raises:
        ConfigurationError: the frame cannot be encoded.
    """
    encoded = serialize_image(ImageContent(image=frame))
    if encoded.data_bytes is None:
        raise ConfigurationError("push_video: the frame could not be encoded")
    data = base64.b64encode(encoded.data_bytes).decode()
    return f"data:{encoded.mime_type};base64,{data}"
