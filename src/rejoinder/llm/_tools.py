"""The kinds of tools: decorated functions, tools that run at a provider, and sets of tools.

A decorated function stays the same function: it can be called, pickled, inspected and bound as a
method as before. The decorator attaches its information to the function. `FunctionTool` describes
such a function, for ``isinstance`` and for type checkers. The public names are in
`rejoinder.llm.tool_context`.
"""

from __future__ import annotations

import inspect
import weakref
from abc import ABCMeta
from collections.abc import Iterable, Mapping, Sequence
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

from rejoinder._core.tools import FunctionToolInfo, RawFunctionToolInfo, ToolOptions
from rejoinder._options import Rule, WrongTypeError, checked
from rejoinder._sections import explained

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

__all__ = [
    "INFO",
    "OPTIONS",
    "RAW_INFO",
    "TOOLS",
    "FunctionTool",
    "ProviderTool",
    "RawFunctionTool",
    "Tool",
    "Toolset",
    "find_function_tools",
    "get_function_info",
    "get_raw_function_info",
    "get_tool_name",
    "get_tool_options",
    "info_of",
    "is_function_tool",
    "is_raw_function_tool",
    "own_tools",
]

INFO: Final = "__livekit_tool_info"
RAW_INFO: Final = "__livekit_raw_tool_info"
OPTIONS: Final = "__rejoinder_tool_options"

P = ParamSpec("P", default=...)
Q = ParamSpec("Q")
R = TypeVar("R", covariant=True, default=Any)
S = TypeVar("S")

TOOLS: Final = Rule(
    "a list of tools",
    lambda value: isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping),
)

if TYPE_CHECKING:
    _ProtocolMeta = ABCMeta
else:
    _ProtocolMeta = type(Protocol)


class _FunctionToolMeta(_ProtocolMeta):
    # Check only the attachment: a bound method does not have the members of the protocol.
    def __instancecheck__(cls, instance: object) -> bool:  # noqa: N805  a metaclass
        return hasattr(instance, INFO)


class _RawFunctionToolMeta(_ProtocolMeta):
    def __instancecheck__(cls, instance: object) -> bool:  # noqa: N805  a metaclass
        return hasattr(instance, RAW_INFO)


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
        """Name and description for the model."""
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
    """A function decorated with `function_tool(raw_schema=...)`. Its schema is handwritten, and it
    gets the model's unchanged arguments in the parameter ``raw_arguments``."""

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


class ProviderTool:
    """A tool that runs at the provider: web search, code execution.

    Args:
        id: its id among the tools of a conversation.
        provider: the provider, e.g. ``"openai"``; requests to others omit the tool. ``None`` sends
            it to every provider.
        spec: the entry in the API's list of tools.
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
    """Tools that are set up and closed together.

    Decorated methods of a subclass are part of it. Toolsets may contain toolsets.

    Args:
        id: its id.
        tools: tools in addition to its own methods.
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
        """The current tools, as a new list."""
        return [*self._tools, *own_tools(self)]

    async def setup(self) -> Self:
        """Prepare the tools, e.g. connect. Called before the tools are used; subclasses extend it."""
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


def is_function_tool(f: object) -> TypeIs[FunctionTool]:
    """Whether `f` was decorated with `function_tool` (without a raw schema)."""
    return hasattr(f, INFO)


def is_raw_function_tool(f: object) -> TypeIs[RawFunctionTool]:
    """Whether `f` was decorated with `function_tool(raw_schema=...)`."""
    return hasattr(f, RAW_INFO)


class _NoToolError(WrongTypeError, AttributeError):
    """The object is not a tool. LiveKit Agents 1.2.17 raises an `AttributeError`."""


def get_function_info(f: object) -> FunctionToolInfo:
    """Name and description of a function tool.

    Raises:
        AttributeError: `f` is not a function tool.
    """
    try:
        return getattr(f, INFO)
    except AttributeError:
        raise _NoToolError(f"f: expected a function tool, got {type(f).__name__}") from None


def get_raw_function_info(f: object) -> RawFunctionToolInfo:
    """Name and schema of a raw function tool.

    Raises:
        AttributeError: `f` is not a raw function tool.
    """
    try:
        return getattr(f, RAW_INFO)
    except AttributeError:
        raise _NoToolError(f"f: expected a raw function tool, got {type(f).__name__}") from None


def get_tool_name(tool: object) -> str:
    """The name by which the model calls `tool`.

    Raises:
        ValueError: `tool` is neither a function tool nor a raw function tool.
    """
    return info_of(tool).name


def info_of(tool: object) -> FunctionToolInfo | RawFunctionToolInfo:
    """The information that the decorator attached to `tool`.

    Raises:
        ValueError: `tool` is neither a function tool nor a raw function tool.
    """
    info = getattr(tool, RAW_INFO, None) or getattr(tool, INFO, None)
    if info is None:
        raise ValueError(
            explained(
                f"tools: expected a tool (a function decorated with @function_tool), got {tool!r}",
                "tool",
            )
        )
    return info


def get_tool_options(tool: object) -> ToolOptions:
    """The run options of `tool`; the defaults if the decorator did not make it."""
    return getattr(tool, OPTIONS, None) or ToolOptions()


def find_function_tools(cls_or_obj: object) -> list[FunctionTool | RawFunctionTool]:
    """The tools among the members of an object, a class or a module, in order of their names."""
    return [
        member
        for _, member in inspect.getmembers(cls_or_obj)
        if is_function_tool(member) or is_raw_function_tool(member)
    ]


def own_tools(obj: object) -> list[FunctionTool | RawFunctionTool]:
    """Like `find_function_tools`, but only among the attributes of the classes of `obj`, so that no
    property is evaluated."""
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
            if hasattr(member, INFO) or hasattr(member, RAW_INFO):
                found.append(name)
        names = _tool_names_of_class[cls] = tuple(found)
    return names
