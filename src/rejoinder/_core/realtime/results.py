"""Results of tools that are no text: pictures and documents, as ``data:`` URLs or as a PDF's bytes.

A `FunctionCallOutput` holds text alone, so this is how a tool returns them. A model that cannot take
one would read its base64 as words. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from rejoinder._core.items import FunctionCallOutput

__all__ = ["Media", "described", "media_of", "refusal"]

_DATA_URL: Final = re.compile(r"data:([\w.+-]+/[\w.+-]+)(?:;[\w.+-]+=[^;,]*)*;base64,")
_PDF: Final = "application/pdf"


@dataclass(frozen=True, slots=True)
class Media:
    """A result that is a picture or a document."""

    mime_type: str
    data: str
    """In base64; empty where the bytes are not encoded."""

    @property
    def name(self) -> str:
        """What it is, for a sentence."""
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
    """The text of a result, for a place where only text is taken."""
    media = media_of(output)
    return output if media is None else f"({media.name} that cannot be shown here)"


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
