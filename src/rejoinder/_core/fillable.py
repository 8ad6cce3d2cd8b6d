"""Converts types to a form that JSON values can fill, and finds types that no JSON value fits.

Pure: it reads types and pydantic's core schemas, and neither calls nor changes anything. In doubt, a
type counts as fillable; it is unfillable only if every JSON value would be refused.
"""

from __future__ import annotations

import collections.abc
import enum
import sys
import threading
import typing
import weakref
from collections.abc import Mapping
from types import UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,
    Required,
    TypeAlias,
    Union,
    cast,
    get_args,
    get_origin,
)

import typing_extensions
from pydantic import BaseModel, BeforeValidator
from typing_extensions import ReadOnly

__all__ = ["fields_of_typed_dict", "fillable", "why_never_filled"]

CoreSchema: TypeAlias = Mapping[str, Any]


def fillable(hint: Any, localns: Mapping[str, Any] | None = None) -> Any:
    """`hint` in a form that JSON can fill, with the same JSON schema.

    An enum member inside ``Literal`` is accepted by its value. An ``Iterable`` becomes a list, so that
    its elements are checked before the function is called. Before Python 3.12, a TypedDict of `typing`
    becomes one of `typing_extensions`, the only kind that pydantic supports there.

    Raises:
        NameError: a TypedDict refers to a name that does not exist (yet).
    """
    if _is_refused_typed_dict(hint):
        with _accepted_forms_lock:
            return _accepted_typed_dict(hint, localns)
    origin = get_origin(hint)
    arguments = get_args(hint)
    if origin is Literal:
        return _by_value(hint)
    if collections.abc.Iterable in (hint, origin):
        return list[fillable(arguments[0], localns)] if arguments else list  # type: ignore[misc]
    if origin is Annotated:
        inner = fillable(arguments[0], localns)
        return hint if inner is arguments[0] else Annotated[inner, *arguments[1:]]
    container: Any = Union if origin is UnionType else origin
    if container in _CONTAINERS:
        new = tuple(fillable(argument, localns) for argument in arguments)
        if any(after is not before for after, before in zip(new, arguments, strict=True)):
            return container[new]
    return hint


_CONTAINERS: frozenset[Any] = frozenset(
    {
        *(Union, list, set, frozenset, tuple, dict),
        *(collections.abc.Sequence, collections.abc.MutableSequence, collections.abc.Set),
        *(collections.abc.Mapping, collections.abc.MutableMapping),
    }
)


def fields_of_typed_dict(
    typed_dict: type[Any], localns: Mapping[str, Any] | None = None
) -> dict[str, tuple[Any, bool]]:
    """The type of each field, and whether it may be absent.

    Raises:
        NameError: a field refers to a name that does not exist (yet).
    """
    fields: dict[str, tuple[Any, bool]] = {}
    hints = typing.get_type_hints(typed_dict, localns=dict(localns or {}), include_extras=True)
    for name, hint in hints.items():
        optional = name in getattr(typed_dict, "__optional_keys__", ())
        while get_origin(hint) in (Required, NotRequired, ReadOnly):
            optional = get_origin(hint) is NotRequired or (
                optional and get_origin(hint) is not Required
            )
            (hint,) = get_args(hint)
        fields[name] = (hint, optional)
    return fields


def _is_refused_typed_dict(hint: object) -> bool:
    return (
        sys.version_info < (3, 12)
        and typing.is_typeddict(hint)
        and type(hint).__module__ == "typing"
    )


# Each TypedDict is converted once: two of the same name in one schema would both be renamed.
_accepted_forms: weakref.WeakKeyDictionary[type, Any] = weakref.WeakKeyDictionary()
_accepted_forms_lock = threading.RLock()


def _accepted_typed_dict(typed_dict: Any, localns: Mapping[str, Any] | None) -> Any:
    known = _accepted_forms.get(typed_dict)
    if known is not None:
        return known
    fields = fields_of_typed_dict(typed_dict, localns)
    make: Any = typing_extensions.TypedDict
    form = make(
        typed_dict.__name__,
        {
            name: NotRequired[Any] if absent else Required[Any]
            for name, (_, absent) in fields.items()
        },
    )
    for name in ("__doc__", "__module__", "__qualname__", "__pydantic_config__"):
        if hasattr(typed_dict, name):
            setattr(form, name, getattr(typed_dict, name))
    # Register it before its fields, because they may refer to it.
    _accepted_forms[typed_dict] = form
    try:
        for name, (hint, _) in fields.items():
            form.__annotations__[name] = fillable(hint, localns)
    except BaseException:
        del _accepted_forms[typed_dict]
        raise
    return form


def _by_value(hint: Any) -> Any:
    members = {arg.value: arg for arg in get_args(hint) if _is_pure_member(arg)}
    if not members:
        return hint

    def find(value: Any) -> Any:
        return members.get(value, value) if isinstance(value, str | int | float) else value

    return Annotated[hint, BeforeValidator(find)]


def _is_pure_member(value: object) -> bool:
    """Whether pydantic does not find the enum's members by value, as it does for str and int."""
    return isinstance(value, enum.Enum) and not isinstance(value, str | int)


def why_never_filled(model: type[BaseModel]) -> tuple[str, str] | None:
    """The first field of `model` that no JSON value fits, and why; ``None`` if every field has one."""
    schema = cast("CoreSchema", model.__pydantic_core_schema__)
    definitions = {entry["ref"]: entry for entry in schema.get("definitions", ())}
    inside: frozenset[str] = frozenset()
    while schema["type"] != "model-fields":
        if schema["type"] == "definition-ref":
            inside |= {schema["schema_ref"]}
            schema = definitions[schema["schema_ref"]]
        else:
            schema = schema["schema"]
    for name, field in schema["fields"].items():
        reason = _why_never(field["schema"], definitions, inside)
        if reason:
            return name, reason
    return None


def _why_never(
    schema: CoreSchema, definitions: Mapping[str, CoreSchema], inside: frozenset[str]
) -> str:
    def first(parts: collections.abc.Iterable[CoreSchema]) -> str:
        return next(filter(None, (_why_never(part, definitions, inside) for part in parts)), "")

    match schema["type"]:
        case "is-instance" | "is-subclass":
            return f"no JSON value is an instance of {schema['cls'].__name__!r}"
        case "literal" if all(map(_is_pure_member, schema["expected"])):
            return (
                "members of this enum cannot be passed by value here; derive it from str or int, "
                "too, or name the whole enum"
            )
        case "model" if schema["cls"] is BaseModel:
            return "it has no fields; use a subclass of it"
        case "definition-ref":
            ref = schema["schema_ref"]
            if ref in inside:
                return "it must contain another value of its own type, without end"
            return _why_never(definitions[ref], definitions, inside | {ref})
        case "union":
            # A choice may come with its label.
            choices = cast("list[CoreSchema | tuple[CoreSchema, str]]", schema["choices"])
            reasons = [first([c[0] if isinstance(c, tuple) else c]) for c in choices]
            return reasons[0] if all(reasons) else ""
        case "json-or-python":
            return first([schema["json_schema"]])
        case "lax-or-strict":
            return first([schema["lax_schema"]])
        case "model" | "dataclass" | "definitions" | "function-after":
            return first([schema["schema"]])
        case "model-fields" | "typed-dict":
            fields = cast("Mapping[str, CoreSchema]", schema["fields"]).values()
            return first(field["schema"] for field in fields if field.get("required", True))
        case "dataclass-args":
            return first(field["schema"] for field in schema["fields"])
        case _:
            return ""
