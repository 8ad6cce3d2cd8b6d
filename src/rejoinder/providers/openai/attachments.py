"""Sound and documents as parts of a message, in the form of the two APIs.

Pure. `rejoinder.providers.asking.attachments` finds them and puts them in their place.
"""

from __future__ import annotations

from typing import Any, Final

from rejoinder.providers.asking.attachments import Attachment

__all__ = ["FILES", "chat_part", "responses_part"]

FILES: Final = "file-"
"""Prefix of the names of files that OpenAI stores."""

_SOUNDS: Final = {"audio/wav": "wav", "audio/mpeg": "mp3", "audio/mp3": "mp3"}


def chat_part(attachment: Attachment) -> dict[str, Any] | None:
    """The part for Chat Completions; ``None`` if the format sends it as a picture's URL."""
    if (sound := _sound(attachment)) is not None:
        return sound
    if not attachment.url:
        return {"type": "file", "file": _data(attachment)}
    if attachment.url.startswith(FILES) and not attachment.mime_type.startswith("image/"):
        return {"type": "file", "file": {"file_id": attachment.url}}
    return None


def responses_part(attachment: Attachment) -> dict[str, Any]:
    """The part for the Responses API."""
    if (sound := _sound(attachment)) is not None:
        return sound
    if not attachment.url:
        return {"type": "input_file", **_data(attachment)}
    if not attachment.url.startswith(FILES):
        return {"type": "input_file", "file_url": attachment.url}
    picture = attachment.mime_type.startswith("image/")
    return {"type": "input_image" if picture else "input_file", "file_id": attachment.url}


def _sound(attachment: Attachment) -> dict[str, Any] | None:
    name = None if attachment.url else _SOUNDS.get(attachment.mime_type)
    if name is None:
        return None
    return {"type": "input_audio", "input_audio": {"data": attachment.data, "format": name}}


def _data(attachment: Attachment) -> dict[str, str]:
    kind = attachment.mime_type
    return {
        "filename": f"{attachment.id}.{kind.rpartition('/')[2] or 'bin'}",
        "file_data": f"data:{kind};base64,{attachment.data}",
    }
