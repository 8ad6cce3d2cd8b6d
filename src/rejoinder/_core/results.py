"""Tool results that are pictures or documents: ``data:`` URLs, or the bytes of a PDF.

A `FunctionCallOutput` holds only text, so tools return media in this form. A model that does not
accept media would read the base64 as words. Pure.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode
from collections.abc import Collection
from typing import Final

import msgspec

from rejoinder._core.items import FunctionCallOutput, ImageContent

__all__ = [
    "Media",
    "TextWithPictures",
    "described",
    "media_of",
    "refusal",
    "shown_in",
    "told_instead",
    "without_pictures",
]

_DATA_URL: Final = re.compile(r"data:([\w.+-]+/[\w.+-]+)(?:;[\w.+-]+=[^;,]*)*;base64,")
_EMBEDDED: Final = re.compile(
    r"data:(image/[\w.+-]+)(?:;[\w.+-]+=[^;,\s\"]*)*;base64,[A-Za-z0-9+/=_-]*"
)
_BARE: Final = re.compile(
    r"(?<![A-Za-z0-9+/=])(iVBORw0KGgo|/9j/4|R0lGOD[dl]h|UklGR)[A-Za-z0-9+/]{200,}={0,2}"
)
_STARTS: Final = {
    "iVBORw0KGgo": "image/png",
    "/9j/4": "image/jpeg",
    "R0lGODdh": "image/gif",
    "R0lGODlh": "image/gif",
}
"""How the base64 of a picture begins; ``UklGR`` may also begin a sound."""
_PDF: Final = "application/pdf"


class TextWithPictures(str):
    """The text of a result, and pictures that belong to it."""

    __slots__ = ()

    @property
    def images(self) -> list[ImageContent]:
        """The pictures, in order."""
        return []


class Media(msgspec.Struct, frozen=True):
    """A result that is a picture or a document."""

    mime_type: str
    data: str
    """In base64; empty where the bytes are not encoded."""

    @property
    def name(self) -> str:
        """A noun for error messages, such as "a picture"."""
        kind = self.mime_type.partition("/")[0]
        what = {"image": "a picture", "audio": "a sound", "video": "a video"}.get(
            kind, "a document"
        )
        return f"{what} ({self.mime_type})"


def media_of(output: str) -> Media | None:
    """The picture or document that a result is; ``None`` for text."""
    found = _DATA_URL.match(output)
    if found is not None:
        return Media(found.group(1).lower(), output[found.end() :].strip())
    if output.startswith("%PDF-"):
        return Media(_PDF, "")
    if output.startswith("JVBERi0"):
        return Media(_PDF, output)
    return None


def described(output: str) -> str:
    """The result as text, for an API that accepts only text."""
    media = media_of(output)
    return output if media is None else _description(media.mime_type)


def picture_of(output: FunctionCallOutput) -> ImageContent | None:
    """The picture that a result is, for an API that takes one; ``None`` for anything else.

    The result of a failed tool is not: Claude takes only text there.
    """
    text = output.output
    if output.is_error or not text.startswith("data:image/"):
        return None
    media = media_of(text)
    try:
        whole = media is not None and bool(b64decode(media.data, validate=True))
    except (binascii.Error, ValueError):
        return None
    return ImageContent(image=text) if whole else None


def shown_in(output: FunctionCallOutput) -> tuple[str, list[ImageContent]]:
    """Text and pictures of a result, for an API that takes both."""
    whole = picture_of(output)
    return (output.output, output.images) if whole is None else ("", [whole, *output.images])


def told_instead(picture: ImageContent) -> str:
    """A description that replaces a picture of a result."""
    source = picture.image
    if isinstance(source, str) and not source.startswith("data:"):
        return f"(a picture: {source[:500]})"
    media = media_of(source) if isinstance(source, str) else None
    return _description(picture.mime_type or (media.mime_type if media else "image"))


def without_pictures(text: str) -> str:
    """Replace each base64 picture in `text` by a description. A model would read the base64 as words,
    at a cost of thousands of tokens."""
    if ";base64," in text:
        if not text.startswith("data:image/"):
            text = described(text)
        text = _EMBEDDED.sub(lambda found: _description(found[1]), text)
    if "iVBORw0KGgo" in text or "/9j/4" in text or "R0lGOD" in text or "UklGR" in text:
        text = _BARE.sub(lambda found: _description(_STARTS.get(found[1], "image/webp")), text)
    return text


def _description(mime_type: str) -> str:
    return f"({Media(mime_type, '').name} that cannot be shown here)"


def refusal(output: FunctionCallOutput, takes: Collection[str]) -> str | None:
    """Why a model cannot take a result, and what to return instead; ``None`` if it can.

    Args:
        output: the result.
        takes: types of the pictures and documents that the model takes.
    """
    media = media_of(output.output)
    if media is None or (media.mime_type in takes and media.data):
        return None
    more = f", and {', '.join(sorted(takes))}," if takes else ""
    return (
        f"the result of {output.name or output.call_id!r} is {media.name}; this model takes text and "
        f"JSON{more} as results: return a description, or text that was read from it"
    )
