"""Converts a function's signature to the JSON schema of its arguments.

Reads signatures, never calls the function. A `Plan` is built once per function and does not change;
callers get copies. `docstring_parser` is imported when the first docstring is read. Raises a TypeError
for a parameter that no schema can describe, and `UnresolvedName` while a forward reference cannot be
resolved.
"""

from __future__ import annotations

import copy
import functools
import inspect
import json
import sys
import typing
import warnings
from collections.abc import Callable, Iterable, Mapping
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Final,
    NoReturn,
    Union,
    cast,
    get_args,
    get_origin,
)

import msgspec
from pydantic import BaseModel, ConfigDict, Field, create_model
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import PydanticSerializationError
from typing_extensions import Doc, Unpack

from rejoinder._core.fillable import fields_of_typed_dict, fillable, why_never_filled
from rejoinder._core.fitting import Fitter
from rejoinder._core.frozen import Frozen
from rejoinder._core.names import KEY
from rejoinder._core.strict import strict_schema, why_not_strict
from rejoinder._core.tools import Descriptions, RunContext
from rejoinder._sections import explained

__all__ = [
    "Parameter",
    "Plan",
    "UnresolvedName",
    "build_plan",
    "describe",
    "is_context_type",
    "is_optional_type",
    "model_of_typed_dict",
    "raw_context_parameters",
    "unwrapped",
]

_EMPTY: Final = inspect.Parameter.empty
_POSITIONAL: Final = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
)


class UnresolvedName(NameError):
    """An annotation refers to a name that does not exist (yet)."""


class Parameter(msgspec.Struct, frozen=True):
    """One parameter of a tool.

    Attributes:
        key: its name in the model's JSON.
        field: its name in the pydantic model; empty for a context parameter.
    """

    name: str
    key: str
    field: str
    kind: inspect._ParameterKind
    default: Any
    context: type[Any] | None = None


class Plan:
    """All facts about a function's arguments that do not depend on a call."""

    def __init__(
        self,
        function: Callable[..., Any],
        name: str,
        parameters: tuple[Parameter, ...],
        model: type[BaseModel],
        *,
        unbound: bool,
    ) -> None:
        self.function = function
        self.name = name
        self.parameters = parameters
        self.model = model
        self.unbound = unbound
        """A method that was looked up on its class: it has a schema and cannot be called."""
        schema = model.model_json_schema(schema_generator=_QuietSchema)
        self.schema: Mapping[str, Any] = schema
        """The plain JSON schema. Shared: not to be changed."""
        self.legacy = Frozen(schema)
        # At once, and not when a request waits for it.
        self.strict = Frozen(strict_schema(_with_unwritten_defaults(schema, parameters)))
        self.why_not_strict = why_not_strict(schema)
        """Why providers would refuse the strict form; ``None`` if they accept it."""
        self.fitter: Fitter | None = None
        """Cache of `rejoinder._core.arguments`."""
        self.renames = not all(map(KEY.fullmatch, _property_names(schema)))
        """Whether some arguments are sent under other names."""
        self.descriptions: Descriptions = {}

    def as_bound(self) -> Plan:
        """The same plan for the method taken from an instance."""
        bound = copy.copy(self)
        bound.unbound = False
        bound.descriptions = {}
        return bound


def _property_names(schema: Mapping[str, Any]) -> Iterable[str]:
    """The names of all properties; pydantic puts nested objects into ``$defs``."""
    for node in (schema, *schema.get("$defs", {}).values()):
        yield from node.get("properties", ())


def _with_unwritten_defaults(
    schema: Mapping[str, Any], parameters: Iterable[Parameter]
) -> Mapping[str, Any]:
    """`schema` with a placeholder for defaults that JSON cannot express, because they, too, apply if the
    model sends null."""
    properties = cast("Mapping[str, Any]", schema.get("properties", {}))
    unwritten = {
        parameter.key: {**properties[parameter.key], "default": None}
        for parameter in parameters
        if parameter.default is not _EMPTY
        and not isinstance(parameter.default, FieldInfo)
        and parameter.kind not in (parameter.kind.VAR_POSITIONAL, parameter.kind.VAR_KEYWORD)
        and parameter.key in properties
        and "default" not in properties[parameter.key]
        and parameter.key not in schema.get("required", ())
    }
    if not unwritten:
        return schema
    return {**schema, "properties": {**properties, **unwritten}}


class _QuietSchema(GenerateJsonSchema):
    # A default that JSON cannot express is not in the schema, but is still used for the call.
    ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012  as in the base class

    def encode_default(self, dft: Any) -> Any:
        written = super().encode_default(dft)
        try:
            json.dumps(written, allow_nan=False)
        except ValueError as error:
            raise PydanticSerializationError(str(error)) from error
        return written


def unwrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    """The innermost function, below methods, partials and ``functools.wraps``."""
    while True:
        if isinstance(function, functools.partial):
            function = cast("functools.partial[Any]", function).func
        elif inspect.ismethod(function):
            function = function.__func__
        elif callable(inner := getattr(function, "__wrapped__", None)):
            function = inner
        elif not inspect.isroutine(function) and not inspect.isclass(function):
            call = getattr(type(function), "__call__", None)  # noqa: B004  the method itself is wanted
            return call if inspect.isfunction(call) else function
        else:
            return function


def is_context_type(ty: object, *, allow_subclasses: bool = False) -> bool:
    """Whether `ty` is the run context class, plain or subscripted.

    Args:
        ty: an annotation.
        allow_subclasses: let subclasses count too, and contexts of a LiveKit session.
    """
    origin = get_origin(ty) or ty
    if origin is RunContext:
        return True
    return (
        allow_subclasses
        and isinstance(origin, type)
        and any(
            base is RunContext
            or (base.__name__ == "RunContext" and base.__module__.startswith("livekit."))
            for base in origin.__mro__
        )
    )


def is_optional_type(hint: object) -> bool:
    """Whether `hint` is a union with ``None``, looking through ``Annotated``."""
    if get_origin(hint) is Annotated:
        return is_optional_type(get_args(hint)[0])
    return get_origin(hint) in (Union, UnionType) and NoneType in get_args(hint)


def _context_class(hint: object) -> type[Any] | None:
    """The context class in `hint`, inside ``Annotated`` and ``Optional``."""
    if get_origin(hint) is Annotated:
        return _context_class(get_args(hint)[0])
    if is_optional_type(hint):
        others = [arg for arg in get_args(hint) if arg is not NoneType]
        return _context_class(others[0]) if len(others) == 1 else None
    if is_context_type(hint, allow_subclasses=True):
        return cast("type[Any]", get_origin(hint) or hint)
    return None


def describe(function: Callable[..., Any]) -> tuple[str | None, dict[str, str]]:
    """Description and parameter descriptions from a docstring of any common style."""
    if not getattr(unwrapped(function), "__doc__", None):
        return None, {}
    from docstring_parser import parse_from_object

    doc = parse_from_object(unwrapped(function))
    # ``*names`` and ``**options`` are described with their stars, or without.
    parameters = {p.arg_name.lstrip("*\\"): p.description for p in doc.params if p.description}
    return doc.description, parameters


def _signature(function: Callable[..., Any]) -> inspect.Signature:
    if sys.version_info >= (3, 14):  # annotations are evaluated late; let the unknown ones be named
        import annotationlib

        return inspect.signature(
            function, annotation_format=annotationlib.Format.FORWARDREF
        )  # pragma: no cover  older interpreters cannot run this
    return inspect.signature(function)


def build_plan(
    function: Callable[..., Any],
    *,
    skip_first: bool = False,
    unbound: bool = False,
    localns: Mapping[str, Any] | None = None,
) -> Plan:
    """Read the signature of `function`.

    Args:
        function: anything callable that has a signature.
        skip_first: omit the first parameter, because binding fills it.
        unbound: record that it is a method without an instance.
        localns: names of the scope in which `function` is defined.

    Raises:
        TypeError: no JSON schema can describe a parameter; the message names it.
        UnresolvedName: an annotation cannot be resolved (yet); the message names the parameter.
    """
    base = unwrapped(function)
    label = str(getattr(base, "__name__", None) or type(function).__name__)
    try:
        signature = _signature(function)
    except ValueError:
        raise TypeError(
            f"tool `{label}`: expected a function with a signature, got {function!r}"
        ) from None
    _, descriptions = describe(function)
    globalns = getattr(base, "__globals__", {})

    parameters: list[Parameter] = []
    fields: dict[str, Any] = {}
    for index, parameter in enumerate(signature.parameters.values()):
        if index == 0 and skip_first:
            continue
        name = parameter.name
        hint = _hint(parameter, label, globalns, localns)
        context = _context_class(hint)
        if context is not None:
            parameters.append(Parameter(name, name, "", parameter.kind, parameter.default, context))
            continue
        default: Any = parameter.default
        description = _annotated_text(hint) or descriptions.get(name)
        try:
            if parameter.kind is parameter.VAR_POSITIONAL:
                hint, default = _several(hint, list, localns)
            elif parameter.kind is parameter.VAR_KEYWORD:
                hint, default = _several(hint, dict, localns)
            hint = fillable(hint, localns)
        except NameError as error:
            raise _unresolved(label, name, hint, error) from None
        key = _alias(_annotated_field(hint)) or _alias(default) or name
        field = name if _usable_as_field(name) else f"parameter_{index}"
        fields[field] = _definition(hint, default, description, key if field != name else None)
        parameters.append(Parameter(name, key, field, parameter.kind, default))

    try:
        model = _model(_model_name(label), fields, localns)
        plan = Plan(function, label, tuple(parameters), model, unbound=unbound)
    except Exception as error:
        _blame(label, parameters, fields, localns, error)
    for parameter in parameters:
        if parameter.field and parameter.field not in model.model_fields:
            raise TypeError(
                f"tool `{label}`, parameter `{parameter.name}`: expected a type, got "
                f"{fields[parameter.field][0]!r}, which describes class attributes"
            )
    hopeless = why_never_filled(model)
    if hopeless is not None:
        _refuse(label, parameters, hopeless[0], fields[hopeless[0]][0], hopeless[1])
    return plan


def raw_context_parameters(
    function: Callable[..., Any], localns: Mapping[str, Any] | None = None
) -> dict[str, type[Any]]:
    """The context parameters of a raw tool.

    Raises:
        UnresolvedName: an annotation cannot be resolved (yet); the message names the parameter.
    """
    label = str(getattr(unwrapped(function), "__name__", function))
    globalns = getattr(unwrapped(function), "__globals__", {})
    found: dict[str, type[Any]] = {}
    for name, parameter in _signature(function).parameters.items():
        if name == "raw_arguments":
            continue
        context = _context_class(_hint(parameter, label, globalns, localns))
        if context is not None:
            found[name] = context
    return found


def _hint(
    parameter: inspect.Parameter,
    label: str,
    globalns: Mapping[str, Any],
    localns: Mapping[str, Any] | None,
) -> Any:
    annotation = parameter.annotation
    if annotation is _EMPTY:
        return Any
    holder = type("_Holder", (), {"__annotations__": {parameter.name: annotation}})
    try:
        # dict(): typing insists on a real one
        hints = typing.get_type_hints(
            holder, dict(globalns), dict(localns or {}), include_extras=True
        )
    except NameError as error:
        raise _unresolved(label, parameter.name, annotation, error) from None
    except Exception as error:
        raise TypeError(
            f"tool `{label}`, parameter `{parameter.name}`: expected a type, got the annotation "
            f"{annotation!r} ({error})"
        ) from error
    return hints[parameter.name]


def _unresolved(label: str, name: str, annotation: object, error: NameError) -> UnresolvedName:
    return UnresolvedName(
        f"tool `{label}`, parameter `{name}`: the annotation {annotation!r} names "
        f"{error.name!r}, which does not exist; define or import it before the tool is used "
        "(an import under TYPE_CHECKING is not enough)",
        name=error.name,
    )


def _several(hint: Any, container: type[Any], localns: Mapping[str, Any] | None) -> tuple[Any, Any]:
    """Type and default of ``*args: hint`` and ``**options: hint``."""
    if get_origin(hint) in (Unpack, typing.Unpack):
        (packed,) = get_args(hint)
        needed = container is list or not all(
            absent for _, absent in fields_of_typed_dict(packed, localns).values()
        )
        return packed, _EMPTY if needed else Field(default_factory=container)
    several = list[hint] if container is list else dict[str, hint]
    return several, Field(default_factory=container)


def _annotated_field(hint: object) -> FieldInfo | None:
    if get_origin(hint) is not Annotated:
        return None
    return next((extra for extra in get_args(hint)[1:] if isinstance(extra, FieldInfo)), None)


def _annotated_text(hint: object) -> str | None:
    """The description in ``Annotated[T, "text"]`` or ``Annotated[T, Doc("text")]``."""
    if get_origin(hint) is not Annotated:
        return None
    for extra in get_args(hint)[1:]:
        if isinstance(extra, str):
            return extra
        if isinstance(extra, Doc):
            return extra.documentation
    return None


def _alias(field: object) -> str | None:
    if not isinstance(field, FieldInfo):
        return None
    alias = field.validation_alias or field.alias
    return alias if isinstance(alias, str) else None


def _definition(
    hint: Any, default: Any, description: str | None, alias: str | None
) -> tuple[Any, Any]:
    """The definition of one field for ``create_model``.

    It is made of new objects: the one inside an ``Annotated`` alias is shared by all its users, and
    pydantic 2.12 ignores changes to it.
    """
    inner = _annotated_field(hint)
    if isinstance(default, FieldInfo):
        # The parameter's default is itself a description of the field: it has the last word.
        if description:
            hint = Annotated[hint, Field(description=description)]
        return (Annotated[hint, Field(alias=alias)] if alias else hint), default
    if description and not (inner is not None and inner.description):
        hint = Annotated[hint, Field(description=description)]
    if alias:
        hint = Annotated[hint, Field(alias=alias)]
    if inner is not None and not inner.is_required():
        return hint, Field()  # a default inside the annotation wins over the parameter's
    return hint, ... if default is _EMPTY else default


_RESERVED: Final = frozenset(dir(BaseModel))


def _usable_as_field(name: str) -> bool:
    # Names with an underscore in front are private to pydantic, others hide its own attributes.
    return not name.startswith(("_", "model_")) and name not in _RESERVED


def _model_name(label: str) -> str:
    return "".join(part.capitalize() for part in label.split("_")) + "Args"


def _model(
    name: str, fields: Mapping[str, Any], localns: Mapping[str, Any] | None = None
) -> type[BaseModel]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = create_model(name, __config__=ConfigDict(protected_namespaces=()), **fields)
        if localns and not model.__pydantic_complete__:
            # The annotations of a dataclass may be strings, with names as local as the dataclass.
            model.model_rebuild(raise_errors=False, _types_namespace=dict(localns))
        return model


_UNRESOLVED: Final = frozenset({"class-not-fully-defined", "undefined-annotation"})


def _blame(
    label: str,
    parameters: Iterable[Parameter],
    fields: Mapping[str, Any],
    localns: Mapping[str, Any] | None,
    error: Exception,
) -> NoReturn:
    """Raise an error that names the parameter which pydantic cannot describe."""
    for field, definition in fields.items():
        try:
            probe = _model("Probe", {field: definition}, localns)
            probe.model_json_schema(schema_generator=_QuietSchema)
        except Exception as reason:
            why = str(reason).split("\n", 1)[0].split(". ", 1)[0]
            if getattr(reason, "code", None) in _UNRESOLVED:
                raise UnresolvedName(
                    f"tool `{label}`, parameter `{_named(parameters, field)}`: {definition[0]!r} "
                    f"names something that does not exist ({why.partition(', then call')[0]}); "
                    "define or import it before the tool is used"
                ) from reason
            _refuse(label, parameters, field, definition[0], why, reason)
    raise error


def _refuse(
    label: str,
    parameters: Iterable[Parameter],
    field: str,
    hint: object,
    why: str,
    cause: Exception | None = None,
) -> NoReturn:
    raise TypeError(
        explained(
            f"tool `{label}`, parameter `{_named(parameters, field)}`: no JSON schema can describe "
            f"{hint!r} ({why}); use a plain type, a pydantic model, a TypedDict, a dataclass or an "
            "enum, or take it from the run context",
            "tool parameter",
        )
    ) from cause


def _named(parameters: Iterable[Parameter], field: str) -> str:
    return next((p.name for p in parameters if p.field == field), field)


def model_of_typed_dict(typed_dict: type[Any]) -> type[BaseModel]:
    """A model with the fields of a TypedDict. An optional field may also be null, because the strict
    form requires every field."""
    fields = {
        name: (fillable(hint) | None, None) if optional else (fillable(hint), ...)
        for name, (hint, optional) in fields_of_typed_dict(typed_dict).items()
    }
    return _model(typed_dict.__name__, fields)
