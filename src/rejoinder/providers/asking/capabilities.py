"""The kinds of content that each provider's API accepts, and the check of the last user turn.

Pure. The table is about the API, not about single models: for those, the provider itself answers.
`docs/capabilities.md` shows the same table.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Final, Never

from rejoinder._core.groups import reject_non_items
from rejoinder._core.items import ChatItem, ImageContent
from rejoinder._secrets import redacted_url
from rejoinder._sections import explained
from rejoinder.errors import ConfigurationError

__all__ = ["CAPABILITIES", "Capabilities", "refuse", "refuse_unsupported", "render_table"]

_ADDRESS: Final = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://[^/\s]|file[-_]|files/")
"""A URL, or the name of a file that the provider stores."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The kinds of content and options that an API accepts."""

    image_bytes: bool
    """Inline images: ``data:`` URLs or frames."""
    image_urls: bool
    """Images by URL."""
    http_images: bool
    """Images by an unencrypted URL (``http://``)."""
    audio: bool
    """Sound in user messages, for models that accept it; otherwise its transcript is sent."""
    documents: bool
    """Documents such as PDF, as an `ImageContent` with the type of the document."""
    response_format: bool
    """A schema that the answer must follow."""
    tool_choice_none: bool
    """``tool_choice="none"`` with visible tools. Other APIs get no tools, and the calls in the history
    as text."""
    parallel_tool_calls: bool
    """An option that allows several calls in one reply."""
    built_in_tools: bool
    """Tools that run at the provider."""
    thinking: bool
    """Visible reasoning, which is kept and sent back if the model needs it."""
    prompt_caching: bool
    """Marks for the provider's prompt cache."""
    system_in_place: bool
    """System messages keep their place; otherwise later ones become user text in
    ``<instructions>``."""


_COMPLETIONS: Final = Capabilities(
    image_bytes=True,
    image_urls=True,
    http_images=True,
    audio=True,
    documents=True,
    response_format=True,
    tool_choice_none=True,
    parallel_tool_calls=True,
    built_in_tools=False,
    thinking=True,
    prompt_caching=True,
    system_in_place=True,
)

CAPABILITIES: Final[dict[str, Capabilities]] = {
    "anthropic": Capabilities(
        image_bytes=True,
        image_urls=True,
        http_images=False,
        audio=False,
        documents=True,
        response_format=True,
        tool_choice_none=True,
        parallel_tool_calls=True,
        built_in_tools=True,
        thinking=True,
        prompt_caching=True,
        system_in_place=False,
    ),
    "aws": Capabilities(
        image_bytes=True,
        image_urls=False,
        http_images=False,
        audio=False,
        documents=True,
        response_format=True,
        tool_choice_none=False,
        parallel_tool_calls=False,
        built_in_tools=False,
        thinking=True,
        prompt_caching=True,
        system_in_place=False,
    ),
    "google": Capabilities(
        image_bytes=True,
        image_urls=True,
        http_images=True,
        audio=True,
        documents=True,
        response_format=True,
        tool_choice_none=True,
        parallel_tool_calls=False,
        built_in_tools=True,
        thinking=True,
        prompt_caching=True,
        system_in_place=False,
    ),
    "inference": _COMPLETIONS,
    "mistralai": Capabilities(
        image_bytes=True,
        image_urls=True,
        http_images=True,
        audio=True,
        documents=True,
        response_format=True,
        tool_choice_none=True,
        parallel_tool_calls=True,
        built_in_tools=False,
        thinking=True,
        prompt_caching=False,
        system_in_place=True,
    ),
    "openai": _COMPLETIONS,
}
"""The capabilities of each provider, by the name of its package."""


def refuse_unsupported(
    provider: str,
    items: Sequence[ChatItem],
    *,
    hears: bool | None = None,
    sees: bool | None = None,
) -> None:
    """Refuse the last user turn if `provider` cannot carry it.

    Older turns are not checked: a conversation may have begun with another provider, and content that
    cannot be sent is described in words.

    Args:
        hears: whether the model accepts sound; ``None``: whatever the API accepts.
        sees: whether the model accepts images; ``None`` if unknown: the provider itself answers.

    Raises:
        ConfigurationError: an image or sound of the last turn cannot be sent, or an element of
            `items` is not an item.
    """
    able = CAPABILITIES.get(provider)
    if able is None:
        return
    try:
        _refuse_last_turn(
            provider, able, items, able.audio if hears is None else hears, sees is not False
        )
    except (AttributeError, TypeError) as error:
        refuse(items, error)


def _refuse_last_turn(
    provider: str, able: Capabilities, items: Sequence[ChatItem], hears: bool, sees: bool
) -> None:
    for item in reversed(items):
        if item.type == "function_call" or (item.type == "message" and item.role == "assistant"):
            return
        if item.type != "message" or item.role != "user":
            continue
        for part in item.content:
            if isinstance(part, str):
                continue
            if part.type == "audio_content":
                if not hears and not part.transcript:
                    raise ConfigurationError(
                        f"message {item.id!r}: this model of {provider} takes no sound; "
                        "transcribe it first"
                    )
            elif not sees and _is_picture(part):
                raise ConfigurationError(
                    explained(
                        f"image {part.id!r}: this model takes no images; describe it in words, or ask "
                        "a model that takes them (`family=` sets which model this is)",
                        "pictures",
                    )
                )
            elif isinstance(part.image, str) and not part.image.startswith("data:"):
                if not _ADDRESS.match(part.image):
                    raise ConfigurationError(
                        f"image {part.id!r}: expected a URL like 'https://host/a.png', a data: "
                        f"URL or a frame, got {redacted_url(part.image)[:200]!r}; for a file, pass "
                        "'data:image/png;base64,' and its bytes in Base64"
                    )
                if not able.http_images and part.image.startswith("http://"):
                    raise ConfigurationError(
                        f"image {part.id!r}: {provider} takes only URLs that begin with https://, "
                        f"got {redacted_url(part.image)[:200]!r}; pass such a URL, or a data: URL"
                    )
                if not able.image_urls and (part.mime_type or "image/").startswith("image/"):
                    raise ConfigurationError(
                        f"image {part.id!r}: {provider} takes only inline images, got the URL "
                        f"{redacted_url(part.image)[:200]!r}; pass a data: URL or a frame"
                    )


def _is_picture(part: ImageContent) -> bool:
    """Whether a part is a picture, and not a document."""
    kind = part.mime_type
    if kind is None and isinstance(part.image, str) and part.image.startswith("data:"):
        kind = part.image[len("data:") :]
    return (kind or "image/").startswith("image/")


def refuse(items: Sequence[ChatItem], error: Exception) -> Never:
    """Explain why reading `items` raised `error`.

    Raises:
        ConfigurationError: an element is not an item, or has a field of a wrong type.
        Exception: `error` itself, if the items are valid.
    """
    try:
        reject_non_items(items)
    except TypeError as found:
        raise ConfigurationError(f"the request cannot be made: {found}") from error
    raise error


def render_table() -> str:
    """The table of `docs/capabilities.md`, in Markdown."""
    names = sorted(CAPABILITIES)
    lines = [
        "| | " + " | ".join(names) + " |",
        "| --- |" + " --- |" * len(names),
    ]
    for entry in fields(Capabilities):
        cells = ["yes" if getattr(CAPABILITIES[name], entry.name) else "no" for name in names]
        lines.append(f"| {entry.name.replace('_', ' ')} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
