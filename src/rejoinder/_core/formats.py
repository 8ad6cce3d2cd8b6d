"""The table of provider formats: a name, and the function that makes it, as text.

Law: `_core` knows no provider. A format is named here as ``"module:function"`` and imported when
it is first asked for; third parties add theirs by `register_format` or by an entry point in the
group ``rejoinder.formats``. A name that is registered wins over the built-in one of that name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from operator import attrgetter
from typing import Any, TypeAlias, cast

from rejoinder._core.items import ChatItem

__all__ = ["ENTRY_POINT_GROUP", "Format", "format_names", "register_format", "to_provider_format"]

Format: TypeAlias = Callable[..., tuple[Any, Any]]
"""``(items, *, inject_dummy_user_message, **kwargs) -> (messages, data)``."""

ENTRY_POINT_GROUP = "rejoinder.formats"

_BUILT_IN = {
    "anthropic": "rejoinder.providers.anthropic.format:to_chat_ctx",
    "aws": "rejoinder.providers.aws.format:to_chat_ctx",
    "google": "rejoinder.providers.google.format:to_chat_ctx",
    "mistralai": "rejoinder.providers.mistralai.format:to_chat_ctx",
    "mistralai.conversations": "rejoinder.providers.mistralai.format:to_conversation",
    "openai": "rejoinder.providers.openai.format:to_chat_ctx",
    "openai.responses": "rejoinder.providers.openai.responses_format:to_chat_ctx",
}
_registered: dict[str, str | Format] = {}
_loaded: dict[str, Format] = {}


def register_format(name: str, target: str | Format) -> None:
    """Make `name` known to `to_provider_format`; a later registration replaces an earlier one.

    Args:
        name: what callers pass as ``format``.
        target: ``"module:function"``, imported when first used, or the function itself, called as
            ``target(items, inject_dummy_user_message=..., **kwargs)`` and returning
            ``(messages, data)``.

    Raises:
        ValueError: `name` is empty or a text target lacks its colon.
        TypeError: `name` is no text, or `target` neither a text nor a function.
    """
    if not isinstance(cast("object", name), str):
        raise TypeError(f"register_format: expected a name, got {name!r}")
    if not name:
        raise ValueError("register_format: expected a name, got an empty text")
    if isinstance(target, str) and not all(target.partition(":")):
        raise ValueError(
            f"register_format({name!r}): expected 'module:function' or a function, got {target!r}"
        )
    if not isinstance(target, str) and not callable(target):
        raise TypeError(
            f"register_format({name!r}): expected 'module:function' or a function, got {target!r}"
        )
    _registered[name] = target
    _loaded.pop(name, None)


def format_names() -> list[str]:
    """The names that `to_provider_format` takes, sorted."""
    return sorted({*_BUILT_IN, *_registered, *_entry_points()})


def to_provider_format(
    format: str,
    items: Sequence[ChatItem],
    *,
    inject_dummy_user_message: bool = True,
    **kwargs: Any,
) -> tuple[Any, Any]:
    """`items` as the messages of one provider, and what goes beside them (system texts).

    The items are not changed; what a provider could not take half of (a call without its output)
    is left out with a warning. `rejoinder._core.repair.repair` makes any history legal first.

    Args:
        format: one of `format_names()`.
        items: a history.
        inject_dummy_user_message: where the provider demands a user message at an edge of the
            history and there is none, add an empty one.
        kwargs: what the chosen format takes besides.

    Raises:
        ValueError: no format has this name.
        ImportError: that of a third party is not where it was said to be.
        TypeError: the format does not take one of `kwargs`, or an element of `items` is no item.
    """
    convert = _loaded.get(format)
    if convert is None:
        convert = _loaded[format] = _load(format)
    try:
        return convert(items, inject_dummy_user_message=inject_dummy_user_message, **kwargs)
    except (AttributeError, TypeError):
        from rejoinder._core.groups import reject_non_items

        reject_non_items(items)
        raise


def _load(name: str) -> Format:
    target = _registered.get(name) or _BUILT_IN.get(name) or _entry_points().get(name)
    if target is None:
        raise ValueError(
            f"unknown provider format {name!r}: expected one of {', '.join(format_names())}, "
            "or a name given to register_format() or to the entry-point group "
            f"{ENTRY_POINT_GROUP!r}"
        )
    if not isinstance(target, str):
        return target
    module, _, function = target.partition(":")
    try:
        return attrgetter(function)(import_module(module))
    except (ImportError, AttributeError) as error:
        raise ImportError(
            f"provider format {name!r}: {target!r} cannot be imported: {error}"
        ) from error


def _entry_points() -> dict[str, str]:
    # Imported late: reading the metadata of what is installed is slow, and only needed for names
    # that nobody here knows.
    from importlib.metadata import entry_points

    return {point.name: point.value for point in entry_points(group=ENTRY_POINT_GROUP)}
