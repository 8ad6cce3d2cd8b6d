"""The table of providers: the name of each, and the location of its `Dialect`, as text.

Law: `_core` knows no provider. A dialect has a location ``"module:NAME"`` and is imported on first
use. Third parties add a dialect by `register` or by an entry point in the group
``rejoinder.dialects``. The groups ``rejoinder.formats`` (a function that converts histories) and
``rejoinder.providers`` (a function that makes an LLM) add one field of a dialect. A registered field
replaces that of a built-in dialect of the same name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from importlib import import_module
from typing import Any, Final, TypeAlias, cast

import msgspec
from msgspec.structs import asdict, replace

from rejoinder._core.chunks import CompletionUsage
from rejoinder._core.items import ChatItem
from rejoinder._core.rules import Rules

__all__ = [
    "BUILT_IN",
    "Dialect",
    "Format",
    "Inverse",
    "ToolSpec",
    "UsageReader",
    "find",
    "from_provider_format",
    "check_target",
    "format_names",
    "has_own_maker",
    "load",
    "maker_names",
    "names",
    "register",
    "register_format",
    "to_provider_format",
]

Format: TypeAlias = Callable[..., tuple[Any, Any]]
"""``(items, *, inject_dummy_user_message, **kwargs) -> (messages, data)``."""
Inverse: TypeAlias = Callable[[Any, Any], list[ChatItem]]
"""``(messages, system) -> items``: the inverse of `Format`."""
ToolSpec: TypeAlias = Callable[..., dict[str, Any]]
"""``(tool, **options) -> spec``: the API's description of a function tool."""
UsageReader: TypeAlias = Callable[[Any], CompletionUsage | None]
"""Converts a provider's usage object to our token counts."""


class Dialect(msgspec.Struct, frozen=True):
    """How to write conversations and tools for one API, and how to read its token counts.

    Holds values and pure functions. A function may be given as ``"module:name"``, which is imported on
    first use. ``None`` means that the dialect does not have this function.
    """

    name: str
    """The name of the format, e.g. ``"openai.responses"``."""
    to_chat_ctx: str | Format | None = None
    """Converts a history to messages, and the data beside them (system texts)."""
    rules: Rules | None = None
    """The API's rules for histories, by which they are repaired; ``None`` sends histories unchanged."""
    tool_spec: str | ToolSpec | None = None
    read_usage: str | UsageReader | None = None
    llm: str | Callable[..., Any] | None = None
    """Makes the LLM for ``rejoinder.create("name/model")``; takes the model and the provider's options
    by keyword."""
    model_option: str = "model"
    """The name of the keyword for the model."""
    from_messages: str | Inverse | None = None
    """Converts messages, and the data beside them, to a history."""
    realtime: str | Callable[..., Any] | None = None
    """Makes the speech-to-speech model for ``catalog.create_realtime("name/model")``; takes ``model``
    and the provider's options by keyword."""

    def convert(self, items: Sequence[ChatItem], **options: Any) -> tuple[Any, Any]:
        """Convert `items` to messages, and the data beside them.

        Raises:
            ValueError: this dialect has no format.
        """
        convert = self.to_chat_ctx
        if isinstance(convert, str):
            convert = cast("Format", load(convert, f"provider format {self.name!r}"))
        elif convert is None:
            raise ValueError(
                f"unknown provider format {self.name!r}: expected one of {format_names()}"
            )
        return convert(items, **options)


BUILT_IN: Final[dict[str, str]] = {
    "anthropic": "rejoinder.providers.anthropic.dialect:DIALECT",
    "aws": "rejoinder.providers.aws.dialect:DIALECT",
    "google": "rejoinder.providers.google.dialect:DIALECT",
    "inference": "rejoinder.providers.inference.dialect:DIALECT",
    "local": "rejoinder.providers.local.dialect:DIALECT",
    "mistralai": "rejoinder.providers.mistralai.dialect:DIALECT",
    "mistralai.conversations": "rejoinder.providers.mistralai.dialect:CONVERSATIONS",
    "openai": "rejoinder.providers.openai.dialect:DIALECT",
    "openai.responses": "rejoinder.providers.openai.dialect:RESPONSES",
}
"""The built-in dialects. A new provider needs one folder, and one line here."""

_GROUP: Final = "rejoinder.dialects"
_FORMATS: Final = "rejoinder.formats"
_PROVIDERS: Final = "rejoinder.providers"

_registered: dict[str, Dialect] = {}
_found: dict[str, Dialect] = {}


def find(name: str) -> Dialect:
    """The dialect of this name.

    Raises:
        ValueError: no dialect has this name.
        ImportError: its module cannot be imported.
    """
    dialect = _found.get(name)
    if dialect is None:
        dialect = _found[name] = _find(name)
    return dialect


def _find(name: str) -> Dialect:
    own = _registered.get(name)
    target = BUILT_IN.get(name)
    if target is not None:
        dialect: Dialect | None = load(target, f"dialect {name!r}")
    elif own is None:
        dialect = _announced(name)
    else:
        dialect = None
    if own is None:
        if dialect is None:
            raise ValueError(
                f"unknown provider format {name!r}: expected one of {', '.join(names())}, "
                "or a name registered by register_format() or in the entry-point group "
                f"{_FORMATS!r} or {_GROUP!r}"
            )
        return dialect
    if dialect is None:
        return own
    given = asdict(own)
    if own.llm is None:
        given.pop("model_option")
    return replace(dialect, **{name: value for name, value in given.items() if value is not None})


def _announced(name: str) -> Dialect | None:
    """The dialect that an installed package registers under this name."""
    target = _entry_points(_GROUP).get(name)
    if target is not None:
        return load(target, f"dialect {name!r}")
    convert = _entry_points(_FORMATS).get(name)
    maker = _entry_points(_PROVIDERS).get(name)
    if convert is None and maker is None:
        return None
    return Dialect(name, to_chat_ctx=convert, llm=maker)


def names() -> list[str]:
    """The names that `find` knows, sorted. Imports no dialect."""
    announced = {name for group in (_GROUP, _FORMATS, _PROVIDERS) for name in _entry_points(group)}
    return sorted({*BUILT_IN, *_registered, *announced})


def register(name: str, dialect: Dialect | str) -> None:
    """Register a dialect under `name`. It replaces earlier registrations field by field; fields that
    are ``None`` change nothing.

    Args:
        name: what callers pass as ``format``, or before the slash in ``"name/model"``.
        dialect: a `Dialect`, or ``"module:NAME"``, which is imported now.

    Raises:
        ValueError: `name` is empty, or a text has no colon.
        ImportError: the target cannot be imported.
    """
    if not name:
        raise ValueError("register: expected a name, got an empty string")
    if isinstance(dialect, str):
        check_target("register", name, dialect)
        dialect = cast("Dialect", load(dialect, f"dialect {name!r}"))
    before = _registered.get(name, Dialect(name))
    given = asdict(dialect)
    if dialect.llm is None:
        given.pop("model_option")
    _registered[name] = replace(
        before, **{key: value for key, value in given.items() if value is not None}
    )
    _found.pop(name, None)


def register_format(name: str, target: str | Format) -> None:
    """Register a format for `to_provider_format`; a later registration replaces an earlier one.

    Args:
        name: what callers pass as ``format``.
        target: ``"module:function"``, imported when first used, or the function itself, called as
            ``target(items, inject_dummy_user_message=..., **kwargs)`` and returning
            ``(messages, data)``.

    Raises:
        ValueError: `name` is empty, or a string `target` has no colon.
        TypeError: `name` is not a string, or `target` is neither a string nor a function.
    """
    if not isinstance(cast("object", name), str):
        raise TypeError(f"register_format: expected a name, got {name!r}")
    if not name:
        raise ValueError("register_format: expected a name, got an empty string")
    check_target("register_format", name, target)
    register(name, Dialect(name, to_chat_ctx=target))


def check_target(function: str, name: str, target: object) -> None:
    """Check that `target` can be used as a function of a dialect.

    Raises:
        ValueError: it is a string without a colon.
        TypeError: it is neither a string nor a function.
    """
    if isinstance(target, str):
        if not all(target.partition(":")):
            raise ValueError(
                f"{function}({name!r}): expected 'module:function' or a function, got {target!r}"
            )
    elif not callable(target):
        raise TypeError(
            f"{function}({name!r}): expected 'module:function' or a function, got {target!r}"
        )


def has_own_maker(name: str) -> bool:
    """Whether a function that makes the LLM was registered under this name."""
    return name in _registered and _registered[name].llm is not None


def maker_names() -> set[str]:
    """The names whose dialect may make an LLM. Imports no dialect."""
    announced = {name for group in (_GROUP, _PROVIDERS) for name in _entry_points(group)}
    return {*BUILT_IN, *filter(has_own_maker, _registered), *announced}


def format_names() -> list[str]:
    """The names that `to_provider_format` accepts, sorted."""
    known = {name for name, own in _registered.items() if own.to_chat_ctx is not None}
    announced = {name for group in (_GROUP, _FORMATS) for name in _entry_points(group)}
    return sorted({*BUILT_IN, *known, *announced})


def to_provider_format(
    format: str,
    items: Sequence[ChatItem],
    *,
    inject_dummy_user_message: bool = True,
    **kwargs: Any,
) -> tuple[Any, Any]:
    """Convert `items` to messages of one provider, and the data beside them (system texts).

    The items are not changed. Half a pair, such as a call without its output, is omitted with a
    warning. `rejoinder._core.repair.repair` makes any history legal first.

    Args:
        format: one of `format_names()`.
        items: a history.
        inject_dummy_user_message: add an empty user message at the beginning or end if the provider
            demands one there and the history has none.
        kwargs: further options of the chosen format.

    Raises:
        ValueError: no format has this name.
        ImportError: the registered location of a third party's format is wrong.
        TypeError: the format does not have an option of `kwargs`, or an element of `items` is not an
            item.
    """
    dialect = find(format)
    try:
        return dialect.convert(items, inject_dummy_user_message=inject_dummy_user_message, **kwargs)
    except (AttributeError, TypeError):
        from rejoinder._core.groups import reject_non_items

        reject_non_items(items)
        raise


def from_provider_format(format: str, messages: Any, system: Any = None) -> list[ChatItem]:
    """Convert messages of one provider to items; see `ChatContext.from_provider_format`.

    Raises:
        ValueError: no format has this name, the format cannot be read, or the messages have another
            format.
    """
    dialect = find(format)
    read = dialect.from_messages
    if read is None:
        raise ValueError(f"format {format!r}: messages of this format cannot be converted back")
    if isinstance(read, str):
        read = cast("Inverse", load(read, f"format {format!r}"))
    return read(messages, system)


def load(target: str, what: str) -> Any:
    """Import the object at ``"module:name"``. The name may have dots, for attributes of a class.

    Raises:
        ImportError: it does not exist; the message names `what`.
    """
    module, _, path = target.partition(":")
    try:
        return reduce(getattr, path.split("."), import_module(module))
    except (ImportError, AttributeError) as error:
        raise ImportError(f"{what}: {target!r} cannot be imported: {error}") from error


def _entry_points(group: str) -> dict[str, str]:
    # Imported late: reading the metadata of installed packages is slow, and only needed for names
    # that are not in the table.
    from importlib.metadata import entry_points

    return {point.name: point.value for point in entry_points(group=group)}
