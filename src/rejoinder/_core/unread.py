"""Keeps parts of a provider's messages that our items cannot express, to send them back. Pure.

They are in the `extra` of the message or call, under the key of the provider:
``extra["openai"]["unread"] = {"of": "openai", ...}``. ``of`` is the format; the other members are:

* ``content``: parts of the message, each ``{"at": place, "part": part}``. If a part can also be read as
  text or image (``"read": True``), the item's content holds it too, and wins if it has changed since.
* ``fields``: members of the message.
* ``refusal``: the last text of the content, which came from this member.
* ``item``: a whole item, in a message without content.
* ``call``: an unchanged call.
* ``output``: the output of a call, kept with the call because outputs have no `extra`: its ``content``
  without the pictures that were read, the ``text`` that was read from it, and for each of its
  ``pictures`` the place (``at``) and, if it has unknown members, the original (``part``).

Other formats omit all of this.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias, cast

if TYPE_CHECKING:
    from rejoinder._core.items import ChatContent, ChatMessage, FunctionCallOutput, ImageContent

__all__ = [
    "UNREAD",
    "Record",
    "Unread",
    "is_output_as_read",
    "is_sent_alone",
    "joined_unread",
    "kept_list",
    "kept_of",
    "output_as_read",
    "place_kept",
    "unread_in",
    "with_unread",
    "without_kept",
]

Record: TypeAlias = dict[str, Any]

UNREAD = "unread"
_OWN_FORMAT_ONLY: Final = frozenset({UNREAD, "parts"})
"""Members of a provider's state that only its own format can read."""


class Unread(NamedTuple):
    """A part of a message that must be kept.

    Attributes:
        part: the part in the provider's form.
        known: the part in our form, as plain data; ``None`` if we cannot read it.
    """

    part: dict[str, Any]
    known: Any = None


def without_kept(state: Any) -> Any:
    """State of a provider in the form that its clones accept."""
    if not isinstance(state, dict):
        return state
    held = cast("dict[str, Any]", state)
    return {name: value for name, value in held.items() if name not in _OWN_FORMAT_ONLY}


def unread_in(extra: Mapping[str, Any], key: str, form: str) -> Mapping[str, Any]:
    """The data that `extra` keeps for a format; empty without data.

    Args:
        extra: `extra` of a message or call.
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
    """`extra` with the non-empty members of `kept`."""
    kept = {name: value for name, value in kept.items() if value}
    if not kept:
        return dict(extra)
    before = unread_in(extra, key, form)
    return {
        **extra,
        key: {**(extra.get(key) or {}), UNREAD: {"of": form, **before, **kept}},
    }


def is_sent_alone(extra: Mapping[str, Any], key: str, form: str) -> bool:
    """Whether a message is sent even if it holds nothing else."""
    kept = unread_in(extra, key, form)
    return bool(kept.get("content") or kept.get("item"))


def joined_unread(first: ChatMessage, second: ChatMessage, key: str, form: str) -> dict[str, Any]:
    """The `extra` of two merged messages: that of the first, with the kept parts of both.

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


# -- back again


def kept_list(kept: Mapping[str, Any], name: str) -> list[Record]:
    """The entries of a member of what was kept."""
    found: Any = kept.get(name)
    entries = cast("list[Any]", found) if isinstance(found, list) else []
    return [cast("Record", entry) for entry in entries if isinstance(entry, dict)]


def kept_of(kept: Mapping[str, Any], name: str) -> Record:
    """A member of what was kept, a copy that the caller may change."""
    found: Any = kept.get(name)
    return deepcopy(cast("Record", found)) if isinstance(found, dict) else {}


def is_output_as_read(kept: Mapping[str, Any], output: FunctionCallOutput) -> bool:
    """Whether the content of an output is sent unchanged, see `output_as_read`."""
    record: Any = kept.get("output")
    if not isinstance(record, Mapping):
        return False
    held = cast("Mapping[str, Any]", record)
    return (
        isinstance(held.get("content"), list)
        and held.get("text") == output.output
        and len(kept_list(held, "pictures")) == len(output.images)
    )


def output_as_read(
    kept: Mapping[str, Any],
    output: FunctionCallOutput,
    write: Callable[[ImageContent], Record],
    read: Callable[[Record], Any],
) -> list[Any] | None:
    """The original content of an output; ``None`` if it has changed since.

    Args:
        kept: see `rejoinder._core.unread`.
        output: the current output; its pictures are sent.
        write: writes a picture.
        read: reads a part of the provider as one of ours; ``None`` for one that we do not know.
    """
    if not is_output_as_read(kept, output):
        return None
    record = kept_of(kept, "output")
    content = cast("list[Any]", record["content"])
    for entry, picture in zip(kept_list(record, "pictures"), output.images, strict=True):
        raw: Any = entry.get("part")
        known = read(cast("Record", raw)) if isinstance(raw, dict) else None
        same = known is not None and _says(picture, known)
        content.insert(entry["at"], raw if same else write(picture))
    return content


def place_kept(
    content: Sequence[ChatContent],
    kept: Sequence[Record],
    write: Callable[[ChatContent], Record | None],
    read: Callable[[Record], Any],
) -> list[Record]:
    """The parts of `content`, with the kept parts in their places.

    Args:
        content: the current content of the message.
        kept: see `rejoinder._core.unread`.
        write: writes a part of ours; ``None`` for one that has no place in the format.
        read: reads a part of the provider as one of ours; ``None`` for one that we do not know.
    """
    rest = list(content)
    parts: list[Record] = []

    def write_next() -> None:
        part = write(rest.pop(0))
        if part is not None:
            parts.append(part)

    for entry in kept:
        part, at = entry.get("part"), entry.get("at")
        if not isinstance(part, dict) or not isinstance(at, int):
            continue
        raw = cast("Record", part)
        while rest and len(parts) < at:
            write_next()
        known = read(raw)
        if known is None:
            parts.append(deepcopy(raw))
        elif rest and _says(rest[0], known):
            rest.pop(0)
            parts.append(deepcopy(raw))
        # Otherwise its text or image was changed or removed, and the change is sent.
    while rest:
        write_next()
    return parts


def _says(part: ChatContent, known: Any) -> bool:
    if isinstance(part, str) or isinstance(known, str):
        return part == known
    return part.type == "image_content" and part.image == known["image"]
