"""State of a provider and the texts it stands between, each in its place. Pure.

The content of a message is one text. Where a reply had state between its texts, the list of the state
holds these texts too. A text that was changed or cut since (only its beginning was heard) has the say:
what stood behind the cut stays behind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from rejoinder.providers.asking.alternating import Block

__all__ = ["in_order", "is_text_entry"]


def is_text_entry(entry: object) -> bool:
    """Whether `entry` is a text that stands between state, or a block of text."""
    if not isinstance(entry, Mapping):  # anything may be stored as state
        return False
    held = cast("Mapping[str, Any]", entry)
    return isinstance(held.get("text"), str) and held.get("type", "text") == "text"


def in_order(
    blocks: list[Block],
    entries: Sequence[Block],
    text_block: Callable[[str], Block],
    is_said: Callable[[object], bool] = is_text_entry,
) -> list[Block]:
    """`entries`, with the texts of `blocks` in their places.

    Args:
        blocks: the content of the message, or a call.
        entries: state, and the texts between it.
        text_block: writes a text as a block.
        is_said: whether an entry is one of these texts.
    """
    state = [entry for entry in entries if not is_said(entry)]
    if len(state) == len(entries) or not all(is_text_entry(block) for block in blocks):
        return [*state, *blocks]
    rest = "".join(block["text"] for block in blocks)
    out: list[Block] = []
    for entry in entries:
        if not is_said(entry):
            out.append(entry)
            continue
        wanted = entry["text"].strip()
        if not wanted:
            continue
        rest = rest.lstrip()
        if rest.startswith(wanted):
            rest = rest[len(wanted) :]
            out.append(entry)
        elif wanted.startswith(rest.rstrip()):
            if rest:  # cut here: what follows was not heard
                out.append(text_block(rest.rstrip()))
            return out
        else:  # the message says something else now
            return [*state, *blocks]
    if rest.strip():
        out.append(text_block(rest))
    return out
