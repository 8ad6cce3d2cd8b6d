"""The decorator that makes tools of functions."""

from __future__ import annotations

import functools
import inspect
import sys
import types
from collections.abc import Callable, Mapping
from typing import Any, Protocol, cast, overload

from typing_extensions import ParamSpec, TypeVar

from rejoinder._core.tools import (
    FunctionToolInfo,
    RawFunctionDescription,
    RawFunctionToolInfo,
    ToolFlag,
    ToolOptions,
)
from rejoinder._options import FLAG, SECONDS, STRING, check, instance, mapping
from rejoinder.llm._plans import RAW_CONTEXTS, is_method, local_names, prepare_plan
from rejoinder.llm._tools import INFO, OPTIONS, RAW_INFO, FunctionTool, RawFunctionTool

__all__ = ["function_tool"]

Q = ParamSpec("Q")
R = TypeVar("R", covariant=True, default=Any)

_RAW_SCHEMA = mapping("a dict with `name` and `parameters`").optional
_FLAGS = instance(ToolFlag)


@overload
def function_tool(
    f: Callable[Q, R],
    *,
    raw_schema: RawFunctionDescription | dict[str, Any],
    flags: ToolFlag = ...,
    timeout: float | None = ...,
    interruptible: bool = ...,
    threaded: bool = ...,
    effects: bool = ...,
    on_duplicate: str | None = ...,
    duplicate_scope: str | None = ...,
) -> RawFunctionTool[Q, R]: ...
@overload
def function_tool(
    f: None = None,
    *,
    raw_schema: RawFunctionDescription | dict[str, Any],
    flags: ToolFlag = ...,
    timeout: float | None = ...,
    interruptible: bool = ...,
    threaded: bool = ...,
    effects: bool = ...,
    on_duplicate: str | None = ...,
    duplicate_scope: str | None = ...,
) -> _RawDecorator: ...
@overload
def function_tool(
    f: Callable[Q, R],
    *,
    name: str | None = None,
    description: str | None = None,
    flags: ToolFlag = ...,
    timeout: float | None = ...,
    interruptible: bool = ...,
    threaded: bool = ...,
    effects: bool = ...,
    on_duplicate: str | None = ...,
    duplicate_scope: str | None = ...,
) -> FunctionTool[Q, R]: ...
@overload
def function_tool(
    f: None = None,
    *,
    name: str | None = None,
    description: str | None = None,
    flags: ToolFlag = ...,
    timeout: float | None = ...,
    interruptible: bool = ...,
    threaded: bool = ...,
    effects: bool = ...,
    on_duplicate: str | None = ...,
    duplicate_scope: str | None = ...,
) -> _Decorator: ...
def function_tool(
    f: Callable[..., Any] | None = None,
    *,
    name: str | None = None,
    description: str | None = None,
    raw_schema: RawFunctionDescription | dict[str, Any] | None = None,
    flags: ToolFlag = ToolFlag.NONE,
    timeout: float | None = None,
    interruptible: bool = True,
    threaded: bool = False,
    effects: bool = True,
    on_duplicate: str | None = None,
    duplicate_scope: str | None = None,
) -> Any:
    """Make a function callable by a model. Use it with or without parentheses.

    The schema comes from the signature: types, defaults, ``Annotated[..., Field(...)]``, and the
    docstring in Google, NumPy, reST or Epydoc style. A parameter of type `RunContext` is filled
    when the tool runs and is not shown to the model.

    Args:
        f: the function; may be ``async`` or not.
        name: the name the model sees; default the function's own.
        description: the description for the model; default that of the docstring.
        raw_schema: the whole description, written by hand (``name``, ``description``,
            ``parameters``). The function then takes one parameter ``raw_arguments``, the object that
            the model wrote.
        flags: kept for a session layer, without effect here.
        timeout: seconds a run may take.
        interruptible: whether an interruption may cancel a run; otherwise it finishes in the
            background, and its result still enters the conversation. Pass False for side effects.
        threaded: run a plain function in a worker thread, so that it may block.
        effects: False for a tool that only reads: ``run_turn(approve=...)`` does not ask about it.
        on_duplicate: kept for a session layer, without effect here.
        duplicate_scope: kept for a session layer, without effect here.

    Raises:
        AttributeError: `name` was not passed, and `f` has no ``__name__``.
        TypeError: a parameter that no schema can describe; the message names it. Or an argument of
            the wrong type.
        ValueError: `raw_schema` lacks ``name`` or ``parameters``; a `timeout` that is not positive.
    """
    check(
        "function_tool",
        name=(name, STRING.optional),
        description=(description, STRING.optional),
        raw_schema=(raw_schema, _RAW_SCHEMA),
        flags=(flags, _FLAGS),
        timeout=(timeout, SECONDS.optional),
        interruptible=(interruptible, FLAG),
        threaded=(threaded, FLAG),
        effects=(effects, FLAG),
        on_duplicate=(on_duplicate, STRING.optional),
        duplicate_scope=(duplicate_scope, STRING.optional),
    )
    options = ToolOptions(
        timeout=timeout, interruptible=interruptible, threaded=threaded, effects=effects
    )
    # Annotations may refer to names in the scope where the decorator is used.
    frame = sys._getframe(1) if f is not None else None

    def decorate(function: Callable[..., Any], scope: types.FrameType | None = frame) -> Any:
        scope = scope or sys._getframe(1)
        if raw_schema is not None:
            return _as_raw_tool(function, cast("dict[str, Any]", raw_schema), options, flags, scope)
        return _as_tool(function, name, description, options, flags, scope)

    return decorate if f is None else decorate(f)


class _Decorator(Protocol):
    def __call__(self, function: Callable[Q, R], /) -> FunctionTool[Q, R]: ...


class _RawDecorator(Protocol):
    def __call__(self, function: Callable[Q, R], /) -> RawFunctionTool[Q, R]: ...


def _as_tool(
    function: Callable[..., Any],
    name: str | None,
    description: str | None,
    options: ToolOptions,
    flags: ToolFlag,
    scope: types.FrameType,
) -> Any:
    from rejoinder._core.schema import describe

    tool_name = name or _own_name(function)
    tool = _taggable(function)
    info = FunctionToolInfo(tool_name, description or describe(function)[0])
    # Build the schema now, so that an invalid one is refused here and no request has to wait for it.
    prepare_plan(tool, scope)
    _attach(tool, INFO, info, options, flags)
    return tool


def _as_raw_tool(
    function: Callable[..., Any],
    raw_schema: dict[str, Any],
    options: ToolOptions,
    flags: ToolFlag,
    scope: types.FrameType,
) -> Any:
    name = raw_schema.get("name")
    if not name or not isinstance(name, str):
        raise ValueError("function_tool: raw_schema needs the key `name`, a non-empty string")
    if "parameters" not in raw_schema:
        raise ValueError(f"function_tool: raw_schema of `{name}` needs the key `parameters`")
    parameters = raw_schema["parameters"]
    if parameters is not None and not isinstance(parameters, Mapping):
        raise ValueError(
            f"function_tool: raw_schema of `{name}`: expected a JSON schema under `parameters`, "
            f"got {parameters!r}"
        )
    _refuse_uncallable(function)
    contexts = None
    if not hasattr(function, INFO):
        contexts = _check_raw_signature(function, name, scope)
    tool = _taggable(function, RAW_INFO)
    if contexts is not None:
        setattr(tool, RAW_CONTEXTS, (tool, contexts))
    _attach(tool, RAW_INFO, RawFunctionToolInfo(name, dict(raw_schema)), options, flags)
    return tool


def _check_raw_signature(
    function: Callable[..., Any], name: str, scope: types.FrameType
) -> dict[str, type[Any]] | None:
    """The context parameters; ``None`` while an annotation cannot be resolved."""
    from rejoinder._core.schema import UnresolvedName, raw_context_parameters

    parameters = inspect.signature(function).parameters
    kinds = {parameter.kind for parameter in parameters.values()}
    if "raw_arguments" not in parameters and inspect.Parameter.VAR_KEYWORD not in kinds:
        raise TypeError(
            f"raw tool `{name}`: expected a parameter `raw_arguments` for the object that the model "
            f"writes, got {function!r} with ({', '.join(parameters)})"
        )
    try:
        contexts = raw_context_parameters(function, local_names(scope))
    except UnresolvedName:
        return None
    bound = next(iter(parameters)) if is_method(function) else None
    for parameter in parameters.values():
        if (
            parameter.name not in ("raw_arguments", bound, *contexts)
            and parameter.default is parameter.empty
            and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        ):
            raise TypeError(
                f"raw tool `{name}`, parameter `{parameter.name}`: expected a default or a "
                "RunContext, because the model's arguments all go to `raw_arguments`"
            )
    return contexts


def _refuse_uncallable(function: object) -> None:
    if not callable(function):
        hint = "; put @classmethod above it" if isinstance(function, classmethod) else ""
        raise AttributeError(f"function_tool: expected a function, got {function!r}{hint}")


def _own_name(function: Callable[..., Any]) -> str:
    _refuse_uncallable(function)
    try:
        return function.__name__
    except AttributeError:
        raise AttributeError(f"function_tool: {function!r} has no name; pass `name=`") from None


def _taggable(function: Callable[..., Any], tag: str = INFO) -> Callable[..., Any]:
    """The function itself, or a stand-in if it cannot have attributes, or if an earlier decoration has
    already made it a tool."""
    _refuse_uncallable(function)
    if isinstance(function, types.FunctionType):
        return _copy_of(function) if tag in function.__dict__ else function
    if not inspect.ismethod(function) and tag not in getattr(function, "__dict__", {tag: None}):
        return function
    return functools.update_wrapper(_stand_in(function), function, updated=())


def _stand_in(function: Callable[..., Any]) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(function):

        async def call_async(*args: Any, **kwargs: Any) -> Any:
            return await function(*args, **kwargs)

        return call_async

    def call(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return call


def _copy_of(function: types.FunctionType) -> types.FunctionType:
    copied = types.FunctionType(
        function.__code__,
        function.__globals__,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    functools.update_wrapper(copied, function)
    copied.__kwdefaults__ = function.__kwdefaults__
    del copied.__dict__["__wrapped__"]
    return copied


def _attach(
    tool: Callable[..., Any], tag: str, info: Any, options: ToolOptions, flags: ToolFlag
) -> None:
    # A function that is a tool both ways keeps both tags; `id` and `info` follow the later one.
    for attribute, value in (
        (tag, info),
        (OPTIONS, options),
        ("flags", flags),
        ("id", info.name),
        ("info", info),
    ):
        setattr(tool, attribute, value)
