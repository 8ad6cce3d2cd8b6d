"""Tools: functions that a model may call.

A decorated function stays the same function: it can be called, pickled, inspected and bound as a
method as before. What the decorator learned is attached to it, and `FunctionTool` describes a
function with such an attachment, to ``isinstance`` as to type checkers.
"""

from __future__ import annotations

import functools
import inspect
import re
import sys
import types
import weakref
from abc import ABCMeta
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Final,
    Protocol,
    TypeAlias,
    cast,
    overload,
    runtime_checkable,
)

from typing_extensions import ParamSpec, TypeIs, TypeVar

from rejoinder._core.names import meant_name
from rejoinder._core.tools import (
    Function,
    FunctionToolInfo,
    NamedToolChoice,
    RawFunctionDescription,
    RawFunctionToolInfo,
    RunContext,
    StopResponse,
    ToolChoice,
    ToolError,
    ToolFlag,
    ToolOptions,
)
from rejoinder._options import (
    FLAG,
    SECONDS,
    STRING,
    Rule,
    WrongTypeError,
    check,
    checked,
    instance,
    mapping,
)

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from rejoinder._core.schema import Plan

__all__ = [
    "Function",
    "FunctionTool",
    "NamedToolChoice",
    "ProviderTool",
    "RawFunctionDescription",
    "RawFunctionTool",
    "RunContext",
    "StopResponse",
    "Tool",
    "ToolChoice",
    "ToolContext",
    "ToolError",
    "ToolFlag",
    "Toolset",
    "find_function_tools",
    "function_tool",
    "get_function_info",
    "get_raw_function_info",
    "get_tool_name",
    "get_tool_options",
    "is_function_tool",
    "is_raw_function_tool",
]

for _public in (
    Function,
    NamedToolChoice,
    RawFunctionDescription,
    RunContext,
    StopResponse,
    ToolError,
    ToolFlag,
):
    _public.__module__ = __name__

_INFO: Final = "__livekit_tool_info"
_RAW_INFO: Final = "__livekit_raw_tool_info"
_OPTIONS: Final = "__rejoinder_tool_options"
_PLANS: Final = "__rejoinder_tool_plans"
_RAW_CONTEXTS: Final = "__rejoinder_raw_contexts"
_LOCAL_NAMES: Final = "__rejoinder_local_names"

P = ParamSpec("P", default=...)
Q = ParamSpec("Q")
R = TypeVar("R", covariant=True, default=Any)
S = TypeVar("S")
F = TypeVar("F", bound=Callable[..., Awaitable[Any]])
Raw_F = TypeVar("Raw_F", bound=Callable[..., Awaitable[Any]])

if TYPE_CHECKING:
    _ProtocolMeta = ABCMeta
else:
    _ProtocolMeta = type(Protocol)


class _FunctionToolMeta(_ProtocolMeta):
    # By the attachment alone: the members of a protocol cannot be seen on a bound method.
    def __instancecheck__(cls, instance: object) -> bool:  # noqa: N805  a metaclass
        return hasattr(instance, _INFO)


class _RawFunctionToolMeta(_ProtocolMeta):
    def __instancecheck__(cls, instance: object) -> bool:  # noqa: N805  a metaclass
        return hasattr(instance, _RAW_INFO)


@runtime_checkable
class FunctionTool(Protocol[P, R], metaclass=_FunctionToolMeta):
    """A function decorated with `function_tool`: its schema comes from its signature."""

    __name__: str

    @property
    def id(self) -> str:
        """The tool's name."""
        ...

    @property
    def info(self) -> FunctionToolInfo:
        """Name and description, as the model sees them."""
        ...

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R: ...

    @overload
    def __get__(self, instance: None, owner: type | None = None, /) -> FunctionTool[P, R]: ...
    @overload
    def __get__(
        self: FunctionTool[Concatenate[S, Q], R], instance: S, owner: type | None = None, /
    ) -> FunctionTool[Q, R]: ...
    def __get__(self, instance: Any, owner: type | None = None, /) -> Any: ...


@runtime_checkable
class RawFunctionTool(Protocol[P, R], metaclass=_RawFunctionToolMeta):
    """A function decorated with `function_tool(raw_schema=...)`: its schema was written by hand,
    and it gets the model's arguments as they are, in the parameter ``raw_arguments``."""

    __name__: str

    @property
    def id(self) -> str:
        """The tool's name."""
        ...

    @property
    def info(self) -> RawFunctionToolInfo:
        """Name and schema, as the model sees them."""
        ...

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R: ...

    @overload
    def __get__(self, instance: None, owner: type | None = None, /) -> RawFunctionTool[P, R]: ...
    @overload
    def __get__(
        self: RawFunctionTool[Concatenate[S, Q], R], instance: S, owner: type | None = None, /
    ) -> RawFunctionTool[Q, R]: ...
    def __get__(self, instance: Any, owner: type | None = None, /) -> Any: ...


_RAW_SCHEMA = mapping("a dict with `name` and `parameters`").optional
_FLAGS = instance(ToolFlag)
_TOOLS = Rule(
    "a list of tools",
    lambda value: isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping),
)


class ProviderTool:
    """A tool that runs at the provider: web search, code execution.

    Args:
        id: names it among the tools of a conversation.
        provider: whose tool it is, e.g. ``"openai"``; requests to others leave it out. ``None``:
            it is for every provider.
        spec: what the provider's API wants to see in its list of tools.
    """

    @checked()
    def __init__(
        self, *, id: str, provider: str | None = None, spec: Mapping[str, Any] | None = None
    ) -> None:
        self._id = id
        self._provider = provider
        self._spec = dict(spec or {})

    @property
    def id(self) -> str:
        return self._id

    @property
    def provider(self) -> str | None:
        return self._provider

    def to_dict(self) -> dict[str, Any]:
        """The entry in the provider's list of tools; a fresh copy."""
        from rejoinder._core.frozen import Frozen

        return Frozen(self._spec).copy()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(id={self._id!r}, provider={self._provider!r})"


class Toolset:
    """Tools that belong together, with a common start and end.

    Decorated methods of a subclass are part of it. Toolsets may contain toolsets.

    Args:
        id: names it.
        tools: what it holds besides its own methods.
    """

    @checked()
    def __init__(self, *, id: str, tools: Sequence[Tool] | None = None) -> None:
        self._id = id
        self._tools: list[Tool] = list(tools or ())

    @property
    def id(self) -> str:
        return self._id

    @property
    def tools(self) -> list[Tool]:
        """What it holds now; a new list each time."""
        return [*self._tools, *_own_tools(self)]

    async def setup(self) -> Self:
        """Get ready: connect, list. Called before the tools are used; subclasses extend it."""
        for tool in self._tools:
            if isinstance(tool, Toolset):
                await tool.setup()
        return self

    async def aclose(self) -> None:
        """Free what `setup` acquired; subclasses extend it."""
        for tool in self._tools:
            if isinstance(tool, Toolset):
                await tool.aclose()

    async def __aenter__(self) -> Self:
        return await self.setup()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        await self.aclose()


Tool: TypeAlias = FunctionTool | RawFunctionTool | ProviderTool | Toolset

# ---------------------------------------------------------------------------------------------
# the decorator


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
        description: what the model reads about it; default the docstring's description.
        raw_schema: the whole description by hand (``name``, ``description``, ``parameters``); the
            function then takes one parameter ``raw_arguments``, the object the model wrote.
        flags: kept for a session layer, without effect here.
        timeout: seconds a run may take.
        interruptible: whether an interruption may cancel a run; otherwise it is finished in the
            background, and its result still enters the conversation. Say False for side effects.
        threaded: run a plain function in a worker thread, so that it may block.
        effects: False for a tool that only reads: ``run_turn(approve=...)`` does not ask about it.
        on_duplicate: kept for a session layer, without effect here.
        duplicate_scope: kept for a session layer, without effect here.

    Raises:
        AttributeError: there is no name, neither given nor in ``f.__name__``.
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
    # The scope in which a decorator is used may hold the names that annotations speak of.
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
    # Now, so that a schema that cannot work is refused here, and no request has to wait for it.
    _prepare(tool, scope)
    _attach(tool, _INFO, info, options, flags)
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
        raise ValueError("function_tool: raw_schema needs the key `name`, a text that is not empty")
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
    if not hasattr(function, _INFO):
        contexts = _check_raw_signature(function, name, scope)
    tool = _taggable(function, _RAW_INFO)
    if contexts is not None:
        setattr(tool, _RAW_CONTEXTS, (tool, contexts))
    _attach(tool, _RAW_INFO, RawFunctionToolInfo(name, dict(raw_schema)), options, flags)
    return tool


def _check_raw_signature(
    function: Callable[..., Any], name: str, scope: types.FrameType
) -> dict[str, type[Any]] | None:
    """The context parameters; ``None`` while an annotation has no meaning yet."""
    from rejoinder._core.schema import UnresolvedName, raw_context_parameters

    parameters = inspect.signature(function).parameters
    kinds = {parameter.kind for parameter in parameters.values()}
    if "raw_arguments" not in parameters and inspect.Parameter.VAR_KEYWORD not in kinds:
        raise TypeError(
            f"raw tool `{name}`: expected a parameter `raw_arguments` for the object that the model "
            f"writes, got {function!r} with ({', '.join(parameters)})"
        )
    try:
        contexts = raw_context_parameters(function, _local_names(scope))
    except UnresolvedName:
        return None
    bound = next(iter(parameters)) if _is_method(function) else None
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
        raise AttributeError(
            f"function_tool: {function!r} has no name of its own; pass `name=`"
        ) from None


def _taggable(function: Callable[..., Any], tag: str = _INFO) -> Callable[..., Any]:
    """The function itself; a stand-in where it cannot carry the attachment, or carries one that
    belongs to an earlier decoration, which is somebody else's tool."""
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
        (_OPTIONS, options),
        ("flags", flags),
        ("id", info.name),
        ("info", info),
    ):
        setattr(tool, attribute, value)


# ---------------------------------------------------------------------------------------------
# what is known about a tool


def is_function_tool(f: object) -> TypeIs[FunctionTool]:
    """Whether `f` was decorated with `function_tool` (without a raw schema)."""
    return hasattr(f, _INFO)


def is_raw_function_tool(f: object) -> TypeIs[RawFunctionTool]:
    """Whether `f` was decorated with `function_tool(raw_schema=...)`."""
    return hasattr(f, _RAW_INFO)


class _NoToolError(WrongTypeError, AttributeError):
    """Something that is not a tool; LiveKit Agents 1.2.17 raises an `AttributeError`."""


def get_function_info(f: object) -> FunctionToolInfo:
    """Name and description of a function tool.

    Raises:
        AttributeError: `f` is no function tool.
    """
    try:
        return getattr(f, _INFO)
    except AttributeError:
        raise _NoToolError(f"f: expected a function tool, got {type(f).__name__}") from None


def get_raw_function_info(f: object) -> RawFunctionToolInfo:
    """Name and schema of a raw function tool.

    Raises:
        AttributeError: `f` is no raw function tool.
    """
    try:
        return getattr(f, _RAW_INFO)
    except AttributeError:
        raise _NoToolError(f"f: expected a raw function tool, got {type(f).__name__}") from None


def get_tool_name(tool: object) -> str:
    """The name by which the model calls `tool`.

    Raises:
        ValueError: `tool` is neither a function tool nor a raw function tool.
    """
    info = getattr(tool, _RAW_INFO, None) or getattr(tool, _INFO, None)
    if info is None:
        raise ValueError(
            f"tools: expected a tool (a function decorated with @function_tool), got {tool!r}"
        )
    return info.name


def get_tool_options(tool: object) -> ToolOptions:
    """How `tool` wants to be run; the defaults if it was made elsewhere."""
    return getattr(tool, _OPTIONS, None) or ToolOptions()


def find_function_tools(cls_or_obj: object) -> list[FunctionTool | RawFunctionTool]:
    """The tools among the members of an object, a class or a module, in order of their names."""
    return [
        member
        for _, member in inspect.getmembers(cls_or_obj)
        if is_function_tool(member) or is_raw_function_tool(member)
    ]


def _own_tools(obj: object) -> list[FunctionTool | RawFunctionTool]:
    """As `find_function_tools`, looking only at what the classes of `obj` define: properties are
    not evaluated."""
    return [getattr(obj, name) for name in _own_tool_names(type(obj))]


_tool_names_of_class: weakref.WeakKeyDictionary[type, tuple[str, ...]] = weakref.WeakKeyDictionary()


def _own_tool_names(cls: type) -> tuple[str, ...]:
    names = _tool_names_of_class.get(cls)
    if names is None:
        found: list[str] = []
        for name in sorted({name for base in cls.__mro__ for name in base.__dict__}):
            member = inspect.getattr_static(cls, name, None)
            if isinstance(member, staticmethod | classmethod):
                member = cast("Any", member).__func__
            if hasattr(member, _INFO) or hasattr(member, _RAW_INFO):
                found.append(name)
        names = _tool_names_of_class[cls] = tuple(found)
    return names


# ---------------------------------------------------------------------------------------------
# plans: built at decoration, kept on the function


def plan_of(tool: Callable[..., Any]) -> Plan:
    """What is known about the arguments of `tool`; built once.

    Raises:
        NameError: an annotation still names something that does not exist.
        TypeError: no schema can describe a parameter.
    """
    bound = inspect.ismethod(tool)
    owner: Any = tool.__func__ if bound else tool
    plans: dict[bool, Plan] | None = getattr(owner, "__dict__", {}).get(_PLANS)
    if plans is not None:
        plan = plans.get(bound)
        # functools.wraps copies attributes: what belongs to another function is not ours.
        if plan is not None and plan.function is owner:
            return plan
    return _build_plan(owner, bound, getattr(owner, _LOCAL_NAMES, None))


def raw_contexts_of(tool: Callable[..., Any]) -> Mapping[str, type[Any]]:
    """The context parameters of a raw tool, by name.

    Raises:
        NameError: an annotation still names something that does not exist.
    """
    owner: Any = getattr(tool, "__func__", tool)
    kept = getattr(owner, "__dict__", {}).get(_RAW_CONTEXTS)
    if kept is not None and kept[0] is owner:  # and not copied by functools.wraps
        return kept[1]
    from rejoinder._core.schema import raw_context_parameters

    return raw_context_parameters(owner)


def _build_plan(owner: Any, bound: bool, localns: Mapping[str, Any] | None) -> Plan:
    from rejoinder._core.schema import build_plan

    unbound = not bound and _is_method(owner)
    plan = build_plan(owner, skip_first=bound or unbound, unbound=unbound, localns=localns)
    attributes = getattr(owner, "__dict__", None)
    if attributes is not None:
        plans = attributes.get(_PLANS)
        if plans is None or any(other.function is not owner for other in plans.values()):
            plans = {}
            setattr(owner, _PLANS, plans)
        plans[bound] = plan
        if unbound:
            # The same signature, once it is bound; so the first use builds nothing.
            plans[True] = plan.as_bound()
    return plan


def _is_method(function: Any) -> bool:
    """Whether `function` is defined in a class body and takes its instance (or class) first."""
    if not isinstance(function, types.FunctionType):
        return False
    outer = function.__qualname__.rpartition(".")[0]
    if not outer or outer.endswith("<locals>"):
        return False
    first = next(iter(inspect.signature(function).parameters.values()), None)
    return (
        first is not None
        and first.kind in (first.POSITIONAL_ONLY, first.POSITIONAL_OR_KEYWORD)
        and first.default is first.empty
        and first.name in ("self", "cls")
    )


def _prepare(tool: Callable[..., Any], scope: types.FrameType) -> None:
    from rejoinder._core.schema import UnresolvedName

    bound = inspect.ismethod(tool)
    owner: Any = tool.__func__ if bound else tool
    names = _local_names(scope)
    try:
        _build_plan(owner, bound, names)
    except UnresolvedName:
        # A forward reference: it is resolved, or reported, at the first use. By then the scope is
        # gone; what its annotations speak of is kept.
        annotations = " ".join(map(str, getattr(owner, "__annotations__", {}).values()))
        spoken_of = set(re.findall(r"\w+", annotations))
        setattr(owner, _LOCAL_NAMES, {name: names[name] for name in names.keys() & spoken_of})


def _local_names(scope: types.FrameType | None) -> dict[str, Any]:
    """What can be seen from `scope`, the inner names first; module level is seen anyway."""
    names: dict[str, Any] = {}
    while scope is not None and scope.f_code.co_name != "<module>":
        names = {**scope.f_locals, **names}
        # A class body inside a function: the function's names count too.
        if scope.f_code.co_flags & inspect.CO_OPTIMIZED:
            break
        scope = scope.f_back
    return names


# ---------------------------------------------------------------------------------------------
# a set of tools


class _Flat(list["FunctionTool | RawFunctionTool | ProviderTool"]):
    """What `ToolContext.flatten` returns."""

    __slots__ = ("context",)
    context: ToolContext


class ToolContext:
    """Tools by name.

    Decorated methods of a subclass belong to it, behind the tools it is given.

    Args:
        tools: function tools, provider tools and toolsets.

    Raises:
        ValueError: two tools of one name, or something that is no tool.
    """

    def __init__(self, tools: Sequence[Tool]) -> None:
        self._tools: list[Tool] = []
        self._tools_map: dict[str, FunctionTool | RawFunctionTool] = {}
        self._provider_tools: list[ProviderTool] = []
        self._toolsets: list[Toolset] = []
        self.update_tools(tools)

    @classmethod
    def empty(cls) -> Self:
        """Without any tool."""
        return cls([])

    @property
    def function_tools(self) -> dict[str, FunctionTool | RawFunctionTool]:
        """The function tools by name, those of toolsets included; a copy."""
        return dict(self._tools_map)

    @property
    def provider_tools(self) -> list[ProviderTool]:
        """The tools that run at the provider; a copy."""
        return list(self._provider_tools)

    @property
    def toolsets(self) -> list[Toolset]:
        """The toolsets, nested ones behind their parents; a copy."""
        return list(self._toolsets)

    @checked()
    def get_function_tool(self, name: str) -> FunctionTool | RawFunctionTool | None:
        """The tool of this name, or that is sent under it because a provider takes no such name as
        its own; or ``None``."""
        tool = self._tools_map.get(name)
        if tool is None:
            meant = meant_name(name, self._tools_map)
            tool = None if meant is None else self._tools_map[meant]
        return tool

    def flatten(self) -> list[FunctionTool | RawFunctionTool | ProviderTool]:
        """Every tool by itself: function tools first, then provider tools.

        The list remembers this context, so that a model which is asked with it need not read the
        tools again.
        """
        flat = _Flat((*self._tools_map.values(), *self._provider_tools))
        flat.context = self
        return flat

    @classmethod
    def of(cls, tools: ToolContext | Sequence[Tool]) -> ToolContext:
        """The context of `tools`: the one whose unchanged `flatten()` they are, or a new one.

        Raises:
            ValueError: two tools of one name, or something that is no tool.
        """
        if isinstance(tools, ToolContext):
            return tools
        if type(tools) is _Flat:
            context = tools.context
            if tools == [*context._tools_map.values(), *context._provider_tools]:
                return context
        return ToolContext(tools)

    def update_tools(self, tools: Iterable[Tool]) -> None:
        """Take `tools` instead of the present ones. When it fails, nothing has changed.

        Raises:
            ValueError: two tools of one name, or something that is no tool.
        """
        _TOOLS.check("ToolContext.tools", tools)
        given = list(tools)
        by_name: dict[str, FunctionTool | RawFunctionTool] = {}
        provider_tools: list[ProviderTool] = []
        toolsets: list[Toolset] = []

        def add(tool: object) -> None:
            if isinstance(tool, ProviderTool):
                if not any(tool is other for other in provider_tools):
                    provider_tools.append(tool)
            elif isinstance(tool, Toolset):
                if not any(tool is other for other in toolsets):
                    toolsets.append(tool)
                    for member in tool.tools:
                        add(member)
            else:
                name = get_tool_name(tool)
                other = by_name.setdefault(name, cast("Any", tool))
                # Bound methods are made anew at each look, so equality is what counts.
                if other is not tool and other != tool:
                    raise ValueError(
                        f"two tools are named `{name}`: {_where(other)} and {_where(tool)}; rename "
                        'one with @function_tool(name="...")'
                    )

        for tool in (*given, *_own_tools(self)):
            add(tool)
        self._tools, self._tools_map = given, by_name
        self._provider_tools, self._toolsets = provider_tools, toolsets

    def copy(self) -> ToolContext:
        """A plain `ToolContext` with the same tools."""
        return ToolContext([*self._tools, *(t for t in _own_tools(self) if t not in self._tools)])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ToolContext):
            return NotImplemented
        return (
            self._tools_map == other._tools_map
            and self._provider_tools == other._provider_tools
            and self._toolsets == other._toolsets
        )

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __repr__(self) -> str:
        return f"ToolContext({', '.join(t.id for t in self.flatten())})"

    @checked()
    def unknown_tool(self, name: str) -> str:
        """What to tell a model that called a tool which does not exist."""
        import difflib

        names = list(self._tools_map)
        close = difflib.get_close_matches(name, names, n=1, cutoff=0.7)
        text = f"There is no tool `{name}`."
        if close:
            text += f" Did you mean `{close[0]}`?"
        if names:
            return f"{text} Available tools: {', '.join(f'`{n}`' for n in names)}"
        return f"{text} No tools are available"

    @checked()
    def parse_function_tools(self, format: str, **kwargs: Any) -> list[dict[str, Any]]:
        """The tools as a provider's API wants them; a fresh copy at each call.

        Provider tools are included where they belong to that provider.

        Args:
            format: ``"openai"``, ``"openai.responses"``, ``"anthropic"``, ``"google"``, ``"aws"``
                or ``"mistralai"``.
            kwargs: ``strict: bool`` for ``openai`` (default True), ``openai.responses`` (default
                False) and ``anthropic`` (default True): a tool whose schema no strict form can
                express is sent in plain form. ``json_schema: bool`` for ``google`` (default True):
                a tool that Gemini's own dialect cannot express is sent as JSON schema; when False,
                it is an error. ``provider_tool_type: type`` takes the provider tools of that class
                instead of those that belong to the provider.

        Raises:
            ValueError: the format is not known, or cannot express a tool or its name.
            TypeError: the format does not know an option.
        """
        from rejoinder.llm._tool_specs import tool_specs

        return tool_specs(self, format, **kwargs)


def _where(tool: object) -> str:
    origin: str | None = getattr(tool, "__rejoinder_origin", None)
    if origin is not None:
        return f"{origin} (give its server another `tool_prefix`)"
    function: Any = inspect.unwrap(cast("Any", getattr(tool, "__func__", tool)))
    code: types.CodeType | None = getattr(function, "__code__", None)
    name = getattr(function, "__qualname__", None) or repr(tool)
    module = getattr(function, "__module__", None)
    place = f" (line {code.co_firstlineno} of {code.co_filename})" if code else ""
    return f"{module}.{name}{place}"
