"""The descriptions of tools in a request.

Apart from `fields`, which the formats of chat contexts use without an LLM.
"""

from __future__ import annotations

from typing import Any, cast

from rejoinder._core.dialects import Dialect
from rejoinder.errors import ConfigurationError
from rejoinder.llm.tool_context import ToolContext

__all__ = ["tool_specs"]


def tool_specs(tools: object, dialect: Dialect, **options: Any) -> list[dict[str, Any]]:
    """The descriptions of `tools` as they are sent.

    Args:
        dialect: dialect of the API.
        options: see `rejoinder.llm.ToolContext.parse_function_tools`.

    Raises:
        ConfigurationError: `tools` is not a list.
        ValueError: an element is not a tool, or two share a name.
    """
    if not tools:
        return []
    if not isinstance(tools, (list, tuple)):
        raise ConfigurationError(
            "tools: expected a list of functions decorated with @function_tool, got "
            f"{type(tools).__name__}"
        )
    return ToolContext.of(cast("list[Any]", tools)).parse_function_tools(dialect, **options)
