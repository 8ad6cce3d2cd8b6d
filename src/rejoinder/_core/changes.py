"""Changes to a history or a request before it was sent, as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

__all__ = ["Change", "ChangeKind"]

ChangeKind: TypeAlias = Literal[
    # In a history.
    "added",  # an item was put in: a missing output, a user message at an edge
    "arguments",  # the arguments of a call were not a JSON object
    "dropped",  # an item or a part without anything to send was left out
    "id",  # a call id (with its output's) or a group's id was replaced
    "image",  # an image was moved to a user message, given its real type or replaced by text
    "merged",  # a text was joined to that of another item
    "moved",  # an item was moved across a message
    "name",  # the name of a tool was replaced or filled in
    "role",  # a message changed its role
    "state",  # state of another provider, or damaged state, was left out
    "text",  # characters were replaced, or blank text was
    "to_text",  # an item without a legal place became a user message
    # In a request.
    "choice",  # the tool choice was expressed differently
    "limit",  # the limit on generated tokens was raised
    "option",  # a parameter was omitted
    "reasoning",  # reasoning was turned off, or its amount was expressed differently
]


@dataclass(frozen=True, slots=True)
class Change:
    """One change that makes a request acceptable to the provider."""

    kind: ChangeKind
    item_id: str
    """The changed item, or the item after which something was added; empty for a request."""
    detail: str
    """A description of the fault and the change, for people."""
