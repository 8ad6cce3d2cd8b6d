"""The parts of a reply that go back as they came, and where they stand among its texts. Pure.

Gemini signs parts of any kind: text, calls, and parts without content, such as the empty text at the
end of a streamed reply. A signature is valid on its own part only, so parts are neither joined nor
reordered (Google's guide to thought signatures). The signature of a call stands in
``extra["google"]["thought_signature"]`` of the call. The parts of a message that are signed, or that
are neither text nor call (code that ran on Google's side and its result, calls of Google's tools), are
kept in ``extra["google"]["parts"]`` with the texts between them, in the words of the API. Those that
come before the first call of a reply without text are kept with that call.
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Mapping
from typing import Any, Final, cast

from rejoinder.providers.asking.alternating import Block
from rejoinder.providers.asking.in_order import is_text_entry

__all__ = ["MEDIA", "PARTS", "SIGNATURE", "is_said", "signature_bytes", "sound_parts"]

SIGNATURE: Final = "thought_signature"
"""The member of ``extra["google"]`` for the signature of a call, or of the last text."""
PARTS: Final = "parts"
"""The member that holds the parts."""
MEDIA: Final = frozenset({"inlineData", "fileData"})
"""Kinds of parts that are too large to be kept."""


def is_said(entry: object) -> bool:
    """Whether `entry` is a text of the message: no thought, and not blank."""
    if not is_text_entry(entry):
        return False
    part = cast("Mapping[str, Any]", entry)
    return part.get("thought") is not True and bool(part["text"].strip())


def signature_bytes(signature: object) -> bytes | None:
    """A signature as bytes; ``None`` if there is none, or if it is damaged."""
    if isinstance(signature, bytes):
        return signature or None
    if not isinstance(signature, str) or not signature:
        return None
    try:
        return b64decode(signature.replace("-", "+").replace("_", "/"), validate=True)
    except (binascii.Error, ValueError):
        return None


def sound_parts(entries: object) -> list[Block]:
    """The parts that may be sent; texts without a sound signature stay, for their place."""
    found: list[Block] = []
    for entry in cast("list[Any]", entries) if isinstance(entries, list) else []:
        if not isinstance(entry, dict):
            continue
        part = cast("Block", entry)
        if "thoughtSignature" in part:
            signature = signature_bytes(part["thoughtSignature"])
            if signature is not None:
                found.append({**part, "thoughtSignature": signature})
                continue
            part = {key: value for key, value in part.items() if key != "thoughtSignature"}
        if is_said(part) or not (not part or "text" in part or "functionCall" in part):
            found.append(part)
    return found
