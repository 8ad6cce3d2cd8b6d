"""The parts of a reply that must be sent back unchanged, and their places among its texts. Pure.

Gemini signs parts of any kind: text, calls, and parts without content, such as the empty text at the
end of a streamed reply. A signature is valid on its own part only, so parts are neither joined nor
reordered (Google's guide to thought signatures). The signature of a call is in
``extra["google"]["thought_signature"]`` of the call. Signed parts of a message, and parts that are
neither text nor call (code that ran at Google and its result, calls of Google's tools), are kept in
``extra["google"]["parts"]`` with the texts between them, in the form of the API. Parts between two calls
are kept with the second call; parts before the first call of a reply without text, with that call.
`BEHIND` precedes the parts that came after the last call.
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, cast

from rejoinder.providers.asking.alternating import CALLS, Block
from rejoinder.providers.asking.in_order import in_order, is_text_entry

__all__ = [
    "BEHIND",
    "MEDIA",
    "PARTS",
    "SIGNATURE",
    "is_said",
    "parts_before_call",
    "placed_parts",
    "signature_bytes",
    "sound_parts",
]

SIGNATURE: Final = "thought_signature"
"""The member of ``extra["google"]`` for the signature of a call, or of the last text."""
PARTS: Final = "parts"
"""The member that holds the parts."""
BEHIND: Final[Block] = {"functionCall": {}}
"""The entry of `PARTS` that marks the place of the calls: the entries after it came after the calls."""
MEDIA: Final = frozenset({"inlineData", "fileData"})
"""Kinds of parts that are too large to be kept."""


def is_said(entry: object) -> bool:
    """Whether `entry` is a text of the message: not a thought, and not blank."""
    if not is_text_entry(entry):
        return False
    part = cast("Mapping[str, Any]", entry)
    return part.get("thought") is not True and bool(part["text"].strip())


def signature_bytes(signature: object) -> bytes | None:
    """A signature as bytes; ``None`` if it is missing or damaged."""
    if isinstance(signature, bytes):
        return signature or None
    if not isinstance(signature, str) or not signature:
        return None
    try:
        return b64decode(signature.replace("-", "+").replace("_", "/"), validate=True)
    except (binascii.Error, ValueError):
        return None


def sound_parts(entries: object) -> list[Block]:
    """The parts that may be sent, and `BEHIND`. Texts without a valid signature stay, to mark the place."""
    found: list[Block] = []
    for entry in cast("list[Any]", entries) if isinstance(entries, list) else []:
        if not isinstance(entry, dict):
            continue
        part = cast("Block", entry)
        if part == BEHIND:
            found.append(CALLS)
            continue
        if "thoughtSignature" in part:
            signature = signature_bytes(part["thoughtSignature"])
            if signature is not None:
                found.append({**part, "thoughtSignature": signature})
                continue
            part = {key: value for key, value in part.items() if key != "thoughtSignature"}
        if is_said(part) or not (not part or "text" in part or "functionCall" in part):
            found.append(part)
    return found


def placed_parts(
    blocks: list[Block], entries: Sequence[Block], text_block: Callable[[str], Block]
) -> list[Block]:
    """The parts of a message or of a call, and its text, in their places.

    Args:
        blocks: the content of the message, or the call.
        entries: from `sound_parts`.
        text_block: writes a text as a part.
    """
    if CALLS not in entries:
        return in_order(blocks, entries, text_block, is_said)
    place = entries.index(CALLS)
    told = any(is_said(entry) for entry in entries[place:])
    if told and all(is_text_entry(block) for block in blocks):
        return in_order(blocks, entries, text_block, is_said)
    # The calls are not known to precede any text.
    behind = [entry for entry in entries[place:] if not is_said(entry)]
    return [*in_order(blocks, entries[:place], text_block, is_said), *behind]


def parts_before_call(parts: Sequence[Block]) -> list[Block] | None:
    """The parts between the last call and the next one, if they can be kept with the next. ``None`` if
    there are no such parts, or if they include texts, which belong to the message."""
    if BEHIND not in parts:
        return None
    between = [*parts[parts.index(BEHIND) + 1 :]]
    return None if not between or any(is_said(part) for part in between) else between
