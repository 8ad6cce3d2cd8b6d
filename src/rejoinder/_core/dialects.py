"""The one table of providers: a name, and where the `Dialect` of its API is, as text.

Law: `_core` knows no provider. A dialect is named here as ``"module:NAME"`` and imported when it is
first asked for. Third parties add theirs by `register` or by an entry point in the group
``rejoinder.dialects``; ``rejoinder.formats`` (a function that converts) and ``rejoinder.providers``
(what makes an LLM) add one part of a dialect. What is registered wins over a built-in dialect of
the same name, field by field.
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
"""``(messages, system) -> items``: what `Format` does, the other way round."""
ToolSpec: TypeAlias = Callable[..., dict[str, Any]]
"""``(tool, **options) -> spec``: a function tool as the API describes it."""
UsageReader: TypeAlias = Callable[[Any], CompletionUsage | None]
"""The provider's own object that counts tokens, to our figures."""


class Dialect(msgspec.Struct, frozen=True):
    """How one API wants conversations and tools written, and how its figures are read.

    Values and pure functions. A function may be given as ``"module:name"``; then it is imported
    when it is first used. ``None``: this dialect has no such thing.
    """

    name: str
    """The name of the format, e.g. ``"openai.responses"``."""
    to_chat_ctx: str | Format | None = None
    """A history to messages, and what goes beside them (system texts)."""
    rules: Rules | None = None
    """What a history must be like, so that it can be mended; ``None``: it is sent as it is."""
    tool_spec: str | ToolSpec | None = None
    read_usage: str | UsageReader | None = None
    llm: str | Callable[..., Any] | None = None
    """What makes the LLM in ``rejoinder.create("name/model")``; takes the model and the options of
    the provider by keyword."""
    model_option: str = "model"
    """The keyword that takes the model."""
    from_messages: str | Inverse | None = None
    """Messages, and what stands beside them, to a history."""
    realtime: str | Callable[..., Any] | None = None
    """What makes the speech-to-speech model in ``catalog.create_realtime("name/model")``; takes
    ``model`` and the options of the provider by keyword."""

    def convert(self, items: Sequence[ChatItem], **options: Any) -> tuple[Any, Any]:
        """`items` as messages, and what goes beside them.

        Raises:
            ValueError: this dialect converts nothing.
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
"""A new provider is one folder, and one line here."""

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
                "or a name given to register_format() or to the entry-point group "
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
    """The dialect that installed packages announce under this name."""
    target = _entry_points(_GROUP).get(name)
    if target is not None:
        return load(target, f"dialect {name!r}")
    convert = _entry_points(_FORMATS).get(name)
    maker = _entry_points(_PROVIDERS).get(name)
    if convert is None and maker is None:
        return None
    return Dialect(name, to_chat_ctx=convert, llm=maker)


def names() -> list[str]:
    """The names that `find` knows, sorted; nothing is imported for it."""
    announced = {name for group in (_GROUP, _FORMATS, _PROVIDERS) for name in _entry_points(group)}
    return sorted({*BUILT_IN, *_registered, *announced})


def register(name: str, dialect: Dialect | str) -> None:
    """Make `name` known. What the dialect leaves out stays as it was; a later registration of the
    same part replaces an earlier one.

    Args:
        name: what callers pass as ``format``, or before the slash in ``"name/model"``.
        dialect: a `Dialect`, or ``"module:NAME"``, which is imported now.

    Raises:
        ValueError: `name` is empty, or a text has no colon.
        ImportError: the target cannot be imported.
    """
    if not name:
        raise ValueError("register: expected a name, got an empty text")
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
    check_target("register_format", name, target)
    register(name, Dialect(name, to_chat_ctx=target))


def check_target(function: str, name: str, target: object) -> None:
    """Refuse what cannot be a target of the table.

    Raises:
        ValueError: a text without a colon.
        TypeError: neither a text nor a function.
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
    """Whether what makes the LLM of this name was registered."""
    return name in _registered and _registered[name].llm is not None


def maker_names() -> set[str]:
    """The names whose dialect may have an LLM; nothing is imported for it."""
    announced = {name for group in (_GROUP, _PROVIDERS) for name in _entry_points(group)}
    return {*BUILT_IN, *filter(has_own_maker, _registered), *announced}


def format_names() -> list[str]:
    """The names that `to_provider_format` takes, sorted."""
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
    dialect = find(format)
    try:
        return dialect.convert(items, inject_dummy_user_message=inject_dummy_user_message, **kwargs)
    except (AttributeError, TypeError):
        from rejoinder._core.groups import reject_non_items

        reject_non_items(items)
        raise


def from_provider_format(format: str, messages: Any, system: Any = None) -> list[ChatItem]:
    """The items that the messages of one provider hold; see `ChatContext.from_provider_format`.

    Raises:
        ValueError: no format has this name, or it cannot be read; or the messages are not of it.
    """
    dialect = find(format)
    read = dialect.from_messages
    if read is None:
        raise ValueError(f"format {format!r}: messages of this one cannot be read")
    if isinstance(read, str):
        read = cast("Inverse", load(read, f"format {format!r}"))
    return read(messages, system)


def load(target: str, what: str) -> Any:
    """The object at ``"module:name"``, with dots in the name for what belongs to a class.

    Raises:
        ImportError: it is not there; names `what`.
    """
    module, _, path = target.partition(":")
    try:
        return reduce(getattr, path.split("."), import_module(module))
    except (ImportError, AttributeError) as error:
        raise ImportError(f"{what}: {target!r} cannot be imported: {error}") from error


def _entry_points(group: str) -> dict[str, str]:
    # Imported late: reading the metadata of what is installed is slow, and only needed for names
    # that are not in the table.
    from importlib.metadata import entry_points

    return {point.name: point.value for point in entry_points(group=group)}
