"""Tools: functions that a model may call, and the set of tools that is offered to it."""

from __future__ import annotations

import inspect
import types
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast

from rejoinder._core.names import meant_name
from rejoinder._core.tools import (
    Function,
    NamedToolChoice,
    RawFunctionDescription,
    RunContext,
    StopResponse,
    ToolChoice,
    ToolError,
    ToolFlag,
)
from rejoinder._options import checked
from rejoinder._sections import explained
from rejoinder.llm._decorating import function_tool
from rejoinder.llm._tools import (
    TOOLS,
    FunctionTool,
    ProviderTool,
    RawFunctionTool,
    Tool,
    Toolset,
    find_function_tools,
    get_function_info,
    get_raw_function_info,
    get_tool_name,
    get_tool_options,
    info_of,
    is_function_tool,
    is_raw_function_tool,
    own_tools,
)

if TYPE_CHECKING:
    from typing import Self

    from rejoinder._core.dialects import Dialect

# Names of the reference API that annotations of other packages import.
F = TypeVar("F", bound=Callable[..., Awaitable[Any]])
Raw_F = TypeVar("Raw_F", bound=Callable[..., Awaitable[Any]])

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
    FunctionTool,
    NamedToolChoice,
    ProviderTool,
    RawFunctionDescription,
    RawFunctionTool,
    RunContext,
    StopResponse,
    ToolError,
    ToolFlag,
    Toolset,
    find_function_tools,
    function_tool,
    get_function_info,
    get_raw_function_info,
    get_tool_name,
    get_tool_options,
    is_function_tool,
    is_raw_function_tool,
):
    _public.__module__ = __name__


class _Flat(list["FunctionTool | RawFunctionTool | ProviderTool"]):
    """The result of `ToolContext.flatten`."""

    __slots__ = ("context",)
    context: ToolContext


class ToolContext:
    """Tools by name.

    Decorated methods of a subclass belong to it, after the given tools.

    Args:
        tools: function tools, provider tools and toolsets.

    Raises:
        ValueError: two tools share a name, or an element is not a tool.
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
        """The tool of this name, or the tool that is sent under it because a provider does not
        accept the tool's own name; ``None`` if unknown."""
        tool = self._tools_map.get(name)
        if tool is None:
            meant = meant_name(name, self._tools_map)
            tool = None if meant is None else self._tools_map[meant]
        return tool

    def flatten(self) -> list[FunctionTool | RawFunctionTool | ProviderTool]:
        """All tools in one list: function tools first, then provider tools.

        The list remembers this context, so a request with the list does not read the tools again.
        """
        flat = _Flat((*self._tools_map.values(), *self._provider_tools))
        flat.context = self
        return flat

    @classmethod
    def of(cls, tools: ToolContext | Sequence[Tool]) -> ToolContext:
        """The context of `tools`: the one whose unchanged `flatten()` they are, or a new one.

        Raises:
            ValueError: two tools of one name, or an element that is not a tool.
        """
        if isinstance(tools, ToolContext):
            return tools
        if type(tools) is _Flat:
            context = tools.context
            if tools == [*context._tools_map.values(), *context._provider_tools]:
                return context
        return ToolContext(tools)

    def update_tools(self, tools: Iterable[Tool]) -> None:
        """Replace all tools by `tools`. If it fails, nothing changes.

        Raises:
            ValueError: two tools of one name, or an element that is not a tool.
        """
        if not isinstance(tools, list):
            TOOLS.check("ToolContext.tools", tools)
        given = list(tools)
        by_name: dict[str, FunctionTool | RawFunctionTool] = {}
        provider_tools: list[ProviderTool] = []
        toolsets: list[Toolset] = []

        waiting: deque[object] = deque(given)
        if type(self) is not ToolContext:
            waiting += own_tools(self)
        while waiting:
            tool = waiting.popleft()
            if isinstance(tool, ProviderTool):
                if not any(tool is other for other in provider_tools):
                    provider_tools.append(tool)
            elif isinstance(tool, Toolset):
                if not any(tool is other for other in toolsets):
                    toolsets.append(tool)
                    waiting.extendleft(reversed([*tool.tools]))
            else:
                name = info_of(tool).name
                other = by_name.setdefault(name, cast("Any", tool))
                # Each access creates a new bound method, so compare by equality.
                if other is not tool and other != tool:
                    raise ValueError(
                        explained(
                            f"two tools are named `{name}`: {_where(other)} and {_where(tool)}; rename "
                            'one with @function_tool(name="...")',
                            "tool names",
                        )
                    )
        self._tools, self._tools_map = given, by_name
        self._provider_tools, self._toolsets = provider_tools, toolsets

    def copy(self) -> ToolContext:
        """A plain `ToolContext` with the same tools."""
        return ToolContext([*self._tools, *(t for t in own_tools(self) if t not in self._tools)])

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
        """The output for a model that called a tool which does not exist."""
        import difflib

        names = list(self._tools_map)
        close = difflib.get_close_matches(name[:64], names, n=1, cutoff=0.7)
        text = f"There is no tool `{name}`."
        if close:
            text += f" Did you mean `{close[0]}`?"
        if names:
            return f"{text} Available tools: {', '.join(f'`{n}`' for n in names)}"
        return f"{text} No tools are available"

    def parse_function_tools(self, format: str | Dialect, **kwargs: Any) -> list[dict[str, Any]]:
        """The tools as a provider's API wants them; a fresh copy at each call.

        Provider tools are included if they belong to that provider.

        Args:
            format: ``"openai"``, ``"openai.responses"``, ``"anthropic"``, ``"google"``, ``"aws"``
                or ``"mistralai"``; or a dialect itself.
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

        return tool_specs(self._tools_map, self._provider_tools, format, **kwargs)


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
