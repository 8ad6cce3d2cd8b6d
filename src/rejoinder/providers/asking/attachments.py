"""Sound and documents in user messages. The formats themselves handle only text and pictures.

Pure. Before the history is repaired and formatted, a mark replaces each attachment; afterwards, the
attachment replaces its mark. So it moves with the text beside it, and is sent exactly once. A document
is an `ImageContent` whose type is not that of a picture: a ``data:`` URL, or a URL with such a
`mime_type`. A document that was read from messages of the same format is sent back unchanged, with its
title and other members for which we have no field.
"""

from __future__ import annotations

import io
import re
import wave
from base64 import b64encode
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any, Final, TypeAlias, cast
from urllib.parse import unquote_to_bytes

import msgspec

from rejoinder import _stamps
from rejoinder._core.items import AudioContent, ChatContent, ChatItem, ChatMessage, ImageContent
from rejoinder._core.rules import State
from rejoinder._core.unread import kept_list, unread_in
from rejoinder.errors import ConfigurationError
from rejoinder.media import audio_bytes

__all__ = ["Attachment", "attach", "attach_joined", "detach"]

_MARK: Final = "[[attachment {}]]"
_MARKS: Final = re.compile(r"\n?\[\[attachment (att_[0-9a-f]+)\]\]\n?")


class Attachment(msgspec.Struct, frozen=True):
    """Sound or a document, in a form that suits every provider."""

    id: str
    mime_type: str
    data: str = ""
    """Base64; empty if `url` is set."""
    url: str = ""
    """A URL, or the name of a file that the provider stores."""

    def text(self) -> str:
        """A text document as text."""
        import base64

        return base64.b64decode(self.data).decode("utf-8", "replace")


_NO_STATE: Final = State()
Convert: TypeAlias = Callable[[Attachment], dict[str, Any] | None]
"""Converts an attachment to a part of a message; ``None`` if the format itself handles it. Raises
`ConfigurationError` if it cannot be sent."""


def detach(
    items: Sequence[ChatItem],
    convert: Convert,
    *,
    hears: bool,
    files: str | None = None,
    state: State = _NO_STATE,
) -> tuple[Sequence[ChatItem], dict[str, dict[str, Any]]]:
    """`items` with attachments replaced by marks, and the converted attachments by mark.

    Args:
        items: a history; it is not changed.
        hears: the model takes sound. Otherwise sound with a transcript becomes the transcript.
        files: the beginning of the names of files that the provider stores. Pictures with such a
            name, and those of unknown type, also go to `convert`.
        state: the format's state in messages.

    Raises:
        ConfigurationError: a ``data:`` URL cannot be read, or `convert` refuses.
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
            put: str | None = None
            if isinstance(part, AudioContent):
                if hears and part.frame:
                    put = _noted(found, convert(_sound(part)))
                elif part.transcript:
                    put = part.transcript
            elif (document := _document(part, files)) is not None:
                written = convert(document)
                if written is not None and item.extra:
                    written = _as_read(item, document, state) or written
                put = _noted(found, written)
            if put is not None:
                content = list(item.content) if content is None else content
                content[place] = put
        if content is not None:
            changed = list(items) if changed is None else changed
            changed[index] = item.model_copy(update={"content": content})
    return (items if changed is None else changed), found


def attach(
    messages: Sequence[dict[str, Any]], found: dict[str, dict[str, Any]], *, key: str
) -> None:
    """Put the attachments back, for formats in which every text is a separate part. Changes `messages`.

    Args:
        key: the member with the parts of a message: ``"content"`` or ``"parts"``.
    """
    if not found:
        return
    for message in messages:
        parts: Any = message.get(key)
        if not isinstance(parts, list):
            continue
        for place, part in enumerate(cast("list[dict[str, Any]]", parts)):
            text = part.get("text")
            match = _MARKS.fullmatch(text) if isinstance(text, str) else None
            if match is not None and match[1] in found:
                parts[place] = found[match[1]]


def attach_joined(
    messages: Sequence[dict[str, Any]],
    found: dict[str, dict[str, Any]],
    *,
    text_type: str = "text",
) -> None:
    """Like `attach`, for formats that join the texts of a message: attachments precede the text.

    Args:
        text_type: the type of a text part.
    """
    if not found:
        return
    for message in messages:
        content: Any = message.get("content")
        if isinstance(content, str):
            content = [{"type": text_type, "text": content}]
        if not isinstance(content, list):
            continue
        placed: list[dict[str, Any]] = []
        kept: list[dict[str, Any]] = []
        for part in cast("list[dict[str, Any]]", content):
            text = part.get("text")
            marks = [
                mark
                for mark in (_MARKS.findall(text) if isinstance(text, str) else [])
                if mark in found
            ]
            if not marks:
                kept.append(part)
                continue
            placed += [found[mark] for mark in marks]
            rest = _MARKS.sub("\n", cast("str", text)).strip("\n")
            if rest:
                kept.append({**part, "text": rest})
        if placed:
            message["content"] = placed + kept


def _noted(found: dict[str, dict[str, Any]], part: dict[str, Any] | None) -> str | None:
    if part is None:
        return None
    mark = _stamps.new_id("att_")
    found[mark] = part
    return _MARK.format(mark)


def _as_read(message: ChatMessage, document: Attachment, state: State) -> dict[str, Any] | None:
    """The part from which a document was read, if the message keeps it for this format."""
    kept = unread_in(message.extra, state.key, state.unread)
    for entry in kept_list(kept, "content") if kept else ():
        part = entry.get("part")
        if isinstance(part, dict) and _holds(cast("object", part), document):
            return deepcopy(cast("dict[str, Any]", part))
    return None


def _holds(value: object, document: Attachment) -> bool:
    """Whether a part holds a document: its bytes, as base64 or as a ``data:`` URL, or its URL."""
    if isinstance(value, str):
        wanted = document.url or document.data
        return bool(wanted) and (value == wanted or value.rpartition(";base64,")[2] == wanted)
    if isinstance(value, dict):
        return any(_holds(entry, document) for entry in cast("dict[str, Any]", value).values())
    return False


def _sound(audio: AudioContent) -> Attachment:
    first = audio.frame[0]
    data = io.BytesIO()
    with wave.open(data, "wb") as file:
        file.setnchannels(first.num_channels)
        file.setsampwidth(2)
        file.setframerate(first.sample_rate)
        for frame in audio.frame:
            file.writeframes(audio_bytes(frame))
    return Attachment("sound", "audio/wav", b64encode(data.getvalue()).decode("ascii"))


def _document(image: ImageContent, files: str | None) -> Attachment | None:
    source = image.image
    if not isinstance(source, str):
        return None
    kind = (image.mime_type or "").lower()
    if source.startswith("data:"):
        head, comma, rest = source[5:].partition(",")
        kind, *options = head.lower().split(";")
        if not kind or kind.startswith("image/"):
            return None
        if not comma:
            raise ConfigurationError(f"document {image.id!r}: a data: URL without a comma")
        if "base64" not in options:
            rest = b64encode(unquote_to_bytes(rest)).decode("ascii")
        return Attachment(image.id, kind, "".join(rest.split()))
    if (kind and not kind.startswith("image/")) or (files and source.startswith(files)):
        return Attachment(image.id, kind, url=source)
    return None
