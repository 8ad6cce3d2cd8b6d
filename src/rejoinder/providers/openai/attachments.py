"""Sound and documents in a message: what the formats, which know text and pictures, do not carry.

The law of this file: pure. `detach` puts a mark in the place of each attachment before the history
is mended and formatted, `attach` puts the attachment in the place of its mark afterwards. So an
attachment goes wherever the text beside it goes, and is sent exactly once.
"""

from __future__ import annotations

import io
import re
import wave
from base64 import b64encode
from collections.abc import Sequence
from typing import Any, Final, cast

from rejoinder import _stamps
from rejoinder._core.items import AudioContent, ChatContent, ChatItem, ImageContent
from rejoinder.media import audio_bytes

__all__ = ["attach", "detach"]

_MARK: Final = "[[attachment {}]]"
_MARKS: Final = re.compile(r"\n?\[\[attachment (att_[0-9a-f]+)\]\]\n?")


def detach(
    items: Sequence[ChatItem], *, hears: bool, responses: bool
) -> tuple[Sequence[ChatItem], dict[str, dict[str, Any]]]:
    """`items` with marks in the place of attachments, and the attachments by mark.

    Args:
        items: a history; it is not changed.
        hears: the model takes sound. Otherwise sound stays where it is, and becomes its transcript.
        responses: write the parts for the Responses API.
    """
    found: dict[str, dict[str, Any]] = {}
    changed: list[ChatItem] | None = None
    for index, item in enumerate(items):
        if item.type != "message" or item.role != "user":
            continue
        content: list[ChatContent] | None = None
        for place, part in enumerate(item.content):
            if isinstance(part, str):
                continue
            if isinstance(part, AudioContent):
                made = _sound(part) if hears and part.frame else None
            else:
                made = _document(part, responses)
            if made is not None:
                mark = _stamps.new_id("att_")
                found[mark] = made
                content = list(item.content) if content is None else content
                content[place] = _MARK.format(mark)
        if content is not None:
            changed = list(items) if changed is None else changed
            changed[index] = item.model_copy(update={"content": content})
    return (items if changed is None else changed), found


def attach(
    messages: Sequence[dict[str, Any]], attachments: dict[str, dict[str, Any]], *, responses: bool
) -> None:
    """Put `attachments` into `messages` (they are changed), in front of the text beside them."""
    if not attachments:
        return
    text_type = "input_text" if responses else "text"
    for message in messages:
        content: Any = message.get("content")
        if isinstance(content, str):
            content = [{"type": text_type, "text": content}]
        if not isinstance(content, list):
            continue
        parts = cast("list[dict[str, Any]]", content)
        placed: list[dict[str, Any]] = []
        kept: list[dict[str, Any]] = []
        for part in parts:
            text = part.get("text")
            marks = _MARKS.findall(text) if isinstance(text, str) else []
            if not any(mark in attachments for mark in marks):
                kept.append(part)
                continue
            placed += [attachments[mark] for mark in marks if mark in attachments]
            rest = _MARKS.sub("\n", cast("str", text)).strip("\n")
            if rest:
                kept.append({**part, "text": rest})
        if placed:
            message["content"] = placed + kept


def _sound(audio: AudioContent) -> dict[str, Any] | None:
    first = audio.frame[0]
    data = io.BytesIO()
    with wave.open(data, "wb") as file:
        file.setnchannels(first.num_channels)
        file.setsampwidth(2)
        file.setframerate(first.sample_rate)
        for frame in audio.frame:
            file.writeframes(audio_bytes(frame))
    return {
        "type": "input_audio",
        "input_audio": {"data": b64encode(data.getvalue()).decode("ascii"), "format": "wav"},
    }


def _document(image: ImageContent, responses: bool) -> dict[str, Any] | None:
    """The part for an "image" that is a document: a ``data:`` URL of another type than a picture, a
    file the provider keeps (``file-...``), or an address with such a type."""
    source = image.image
    if not isinstance(source, str):
        return None
    kind = (image.mime_type or "").lower()
    if source.startswith("data:"):
        found = source[5:].partition(",")[0].partition(";")[0].lower()
        if not found or found.startswith("image/"):
            return None
        name = f"{image.id}.{found.rpartition('/')[2] or 'bin'}"
        data = {"filename": name, "file_data": source}
    elif source.startswith("file-"):
        if kind.startswith("image/"):
            return {"type": "input_image", "file_id": source} if responses else None
        data = {"file_id": source}
    elif kind and not kind.startswith("image/") and responses:
        data = {"file_url": source}
    else:
        return None
    return {"type": "input_file", **data} if responses else {"type": "file", "file": data}
