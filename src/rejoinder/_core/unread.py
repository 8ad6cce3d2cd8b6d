"""What a provider's messages hold and we have no item for, kept to be sent back. Pure.

It lies in the `extra` of its message or call, under the key of the provider:
``extra["openai"]["unread"] = {"of": "openai", ...}``, with these members beside ``of``, the format:

* ``content``: parts of the message, each ``{"at": place, "part": part}``. Where we can tell a part as
  text or image (``"read": True``), that is in the content too; it has the say if it was changed since.
* ``fields``: members of the message.
* ``refusal``: the last text of the content, which stood in that member.
* ``item``: a whole item, of a message without content.
* ``call``: a call as it was written.
* ``output``: the same for the output of a call, because outputs have no `extra`.

Another format leaves all of it out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

if TYPE_CHECKING:
    from rejoinder._core.items import ChatMessage

__all__ = [
    "UNREAD",
    "Unread",
    "is_sent_alone",
    "joined_unread",
    "unread_in",
    "with_unread",
    "without_kept",
]

UNREAD = "unread"
_OWN_FORMAT_ONLY: Final = frozenset({UNREAD, "parts"})
"""Members of the state of a provider that its own format alone can read."""


class Unread(NamedTuple):
    """A part of a message that is to be kept.

    Attributes:
        part: as the provider writes it.
        known: what we read of it, as plain data of ours; ``None``: nothing.
    """

    part: dict[str, Any]
    known: Any = None


def without_kept(state: Any) -> Any:
    """State of a provider as its clones take it."""
    if not isinstance(state, dict):
        return state
    held = cast("dict[str, Any]", state)
    return {name: value for name, value in held.items() if name not in _OWN_FORMAT_ONLY}


def unread_in(extra: Mapping[str, Any], key: str, form: str) -> Mapping[str, Any]:
    """What `extra` keeps for a format; empty if there is nothing.

    Args:
        extra: of a message or a call.
        key: the key of the provider.
        form: the name of the format.
    """
    state: Any = extra.get(key)
    if not isinstance(state, Mapping):
        return {}
    kept: Any = cast("Mapping[str, Any]", state).get(UNREAD)
    if not isinstance(kept, Mapping):
        return {}
    found = cast("Mapping[str, Any]", kept)
    return found if found.get("of") == form else {}


def with_unread(
    extra: Mapping[str, Any], key: str, form: str, kept: Mapping[str, Any]
) -> dict[str, Any]:
    """`extra` that keeps the members of `kept` which are not empty."""
    kept = {name: value for name, value in kept.items() if value}
    if not kept:
        return dict(extra)
    before = unread_in(extra, key, form)
    return {
        **extra,
        key: {**(extra.get(key) or {}), UNREAD: {"of": form, **before, **kept}},
    }


def is_sent_alone(extra: Mapping[str, Any], key: str, form: str) -> bool:
    """Whether a message is worth sending for this alone."""
    kept = unread_in(extra, key, form)
    return bool(kept.get("content") or kept.get("item"))


def joined_unread(first: ChatMessage, second: ChatMessage, key: str, form: str) -> dict[str, Any]:
    """The `extra` of two messages that become one: that of the first, with what both keep.

    Args:
        first: the message whose content begins the joined one.
        second: the message whose content follows.
        key: the key of the provider.
        form: the name of the format.
    """
    kept = unread_in(second.extra, key, form)
    if not kept:
        return first.extra
    mine = unread_in(first.extra, key, form)
    before = _entries(mine)
    # Places count all parts; those that are read are in the content too.
    offset = len(first.content) + sum(not entry.get("read") for entry in before)
    moved = [{**entry, "at": entry["at"] + offset} for entry in _entries(kept)]
    fields: dict[str, Any] = {**(kept.get("fields") or {}), **(mine.get("fields") or {})}
    return with_unread(first.extra, key, form, {"content": [*before, *moved], "fields": fields})


def _entries(kept: Mapping[str, Any]) -> list[dict[str, Any]]:
    found: Any = kept.get("content")
    entries = cast("list[Any]", found) if isinstance(found, list) else []
    return [
        cast("dict[str, Any]", entry)
        for entry in entries
        if isinstance(entry, dict) and isinstance(cast("dict[str, Any]", entry).get("at"), int)
    ]
