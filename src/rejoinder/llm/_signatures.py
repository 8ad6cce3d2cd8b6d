"""Schemas and arguments of tools, and the schemas of structured replies."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from pydantic import BaseModel
from typing_extensions import TypeVar

from rejoinder._core.tools import ToolError
from rejoinder._options import checked
from rejoinder._sections import explained
from rejoinder.llm._plans import plan_of, raw_contexts_of
from rejoinder.llm._tools import (
    FunctionTool,
    RawFunctionTool,
    get_raw_function_info,
    get_tool_name,
    is_function_tool,
    is_raw_function_tool,
)

if TYPE_CHECKING:
    from pydantic import TypeAdapter

    from rejoinder._core.fitting import Fitter

__all__ = [
    "ResponseFormatT",
    "build_legacy_openai_schema",
    "build_strict_openai_schema",
    "function_arguments_to_pydantic_model",
    "is_context_type",
    "is_typed_dict",
    "parse_function_arguments",
    "prepare_function_arguments",
    "to_openai_response_format",
    "to_response_format_param",
    "validated_arguments",
]

ResponseFormatT = TypeVar("ResponseFormatT", default=Any)


def is_context_type(ty: object, *, allow_subclasses: bool = False) -> bool:
    """Whether `ty` is the run context class, plain or subscripted; with `allow_subclasses` also a
    subclass of it."""
    from rejoinder._core import schema

    return schema.is_context_type(ty, allow_subclasses=allow_subclasses)


@checked()
def function_arguments_to_pydantic_model(func: Callable[..., Any]) -> type[BaseModel]:
    """A model with one field per parameter of `func`, without context parameters.

    Raises:
        TypeError: no schema can describe a parameter.
        NameError: an annotation refers to an unknown name.
    """
    return plan_of(func).model


@checked()
def build_legacy_openai_schema(
    function_tool: FunctionTool | RawFunctionTool, *, internally_tagged: bool = False
) -> dict[str, Any]:
    """The tool in OpenAI's envelope, with pydantic's plain schema. A fresh object.

    Args:
        function_tool: the tool.
        internally_tagged: flat, with ``"type": "function"`` inside (the Responses API).

    Raises:
        AttributeError: `function_tool` is not a tool.
    """
    from rejoinder.llm._tool_specs import legacy_openai

    return legacy_openai(function_tool, internally_tagged=internally_tagged)


@checked()
def build_strict_openai_schema(function_tool: FunctionTool | RawFunctionTool) -> dict[str, Any]:
    """The tool in OpenAI's envelope, with the strict schema. A fresh object.

    Raises:
        AttributeError: `function_tool` is not a tool.
    """
    from rejoinder.llm._tool_specs import strict_openai

    return strict_openai(function_tool)


@checked()
def parse_function_arguments(json_arguments: str | bytes) -> dict[str, Any]:
    """The JSON object that a model wrote, mended if its meaning is unambiguous.

    Raises:
        ValueError: it is not a JSON object.
    """
    from rejoinder._core.arguments import parse_arguments

    try:
        return parse_arguments(json_arguments)
    except ToolError as error:
        raise ValueError(error.message) from error


@checked()
def prepare_function_arguments(
    *,
    fnc: FunctionTool | RawFunctionTool,
    json_arguments: str | bytes,
    call_ctx: object | None = None,
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments to call `fnc` with.

    Args:
        fnc: the tool; a method must be bound.
        json_arguments: the JSON text that the model wrote.
        call_ctx: the value of context parameters.

    Raises:
        ToolError: the arguments do not fit; the text explains the errors to the model.
        TypeError: a context parameter has no default, and `call_ctx` was not passed.
        ValueError: `fnc` is not a tool.
    """
    from rejoinder._core import arguments

    if is_function_tool(fnc):
        return arguments.bind_arguments(
            plan_of(fnc), json_arguments, call_ctx=call_ctx, tool=fnc.info.name
        )
    if is_raw_function_tool(fnc):
        return arguments.bind_raw_arguments(
            fnc,
            json_arguments,
            contexts=raw_contexts_of(fnc),
            fitter=_fitter_of(fnc),
            call_ctx=call_ctx,
            tool=get_tool_name(fnc),
        )
    raise ValueError(
        explained(
            f"fnc: expected a tool (a function decorated with @function_tool), got {fnc!r}", "tool"
        )
    )


def _fitter_of(fnc: RawFunctionTool) -> Fitter:
    """The `Fitter` for the schema of a raw tool; cached with the tool."""
    from rejoinder._core.fitting import Fitter
    from rejoinder._core.json_schema import Changes, tidy

    info = get_raw_function_info(fnc)
    schema = info.raw_schema.get("parameters")
    if info.fitter is None or info.fitter[0] is not schema:
        info.fitter = (schema, Fitter(tidy(schema or {}, Changes()), scalars=True))
    return info.fitter[1]


@checked()
def validated_arguments(
    fnc: FunctionTool | RawFunctionTool, json_arguments: str | bytes
) -> dict[str, Any]:
    """The arguments by parameter name, validated and with defaults, without context parameters.

    Raises:
        ToolError: the arguments do not fit.
    """
    from rejoinder._core import arguments

    if is_raw_function_tool(fnc):
        given = arguments.parse_arguments(json_arguments, tool=get_tool_name(fnc))
        return _fitter_of(fnc).fit(given)[0]
    return arguments.validate_arguments(plan_of(fnc), json_arguments, tool=get_tool_name(fnc))


# ---------------------------------------------------------------------------------------------
# response formats


def is_typed_dict(cls: object) -> bool:
    """Whether `cls` is a TypedDict, or another subclass of dict with annotations."""
    return (
        isinstance(cls, type)
        and issubclass(cls, dict)
        and bool(inspect.get_annotations(cast("type[Any]", cls)))
    )


def to_response_format_param(
    response_format: type[Any],
) -> tuple[str, type[BaseModel] | TypeAdapter[Any]]:
    """Name and validator of the type of a structured reply.

    Args:
        response_format: a pydantic model, a TypedDict, or a dataclass (pydantic's or not).

    Raises:
        TypeError: it is something else.
    """
    if isinstance(response_format, type):
        if issubclass(response_format, BaseModel):
            return response_format.__name__, response_format
        if dataclasses.is_dataclass(response_format):
            from pydantic import TypeAdapter

            return response_format.__name__, TypeAdapter(response_format)
        if is_typed_dict(response_format):
            return response_format.__name__, _model_of_typed_dict(response_format)
    raise TypeError(
        "response_format: expected a pydantic model, a TypedDict or a dataclass, got "
        f"{response_format!r}"
    )


def _model_of_typed_dict(typed_dict: type[Any]) -> type[BaseModel]:
    from rejoinder._core.schema import model_of_typed_dict

    return model_of_typed_dict(typed_dict)


def to_openai_response_format(response_format: type[Any]) -> dict[str, Any]:
    """`response_format` as OpenAI's ``response_format`` parameter: a strict JSON schema.

    Raises:
        TypeError: see `to_response_format_param`.
    """
    from rejoinder.llm._strict import to_strict_json_schema

    name, model = to_response_format_param(response_format)
    return {
        "type": "json_schema",
        "json_schema": {
            "schema": to_strict_json_schema(model, null_for_default=False),
            "name": name,
            "strict": True,
        },
    }
