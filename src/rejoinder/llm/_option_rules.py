"""Rules for the options that all methods of asking a model share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, cast

from rejoinder._foreign import read
from rejoinder._options import Rule
from rejoinder.llm.chat_context import ChatContext
from rejoinder.llm.tool_context import ToolContext

__all__ = ["CHAT_CTX", "TOOLS", "TOOL_CHOICE"]


def _is_context(value: Any) -> bool:
    return read(value, "items", list) is not None


def _is_tools(value: Any) -> bool:
    if isinstance(value, ToolContext):
        return True
    return isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping)


def _is_choice(value: Any) -> bool:
    return isinstance(value, str | Mapping)


def _is_known_choice(value: Any) -> bool:
    if isinstance(value, str):
        return value in ("auto", "required", "none")
    choice = cast("Mapping[str, Any]", value)
    function = choice.get("function")
    if choice.get("type") != "function" or not isinstance(function, Mapping):
        return False
    name = cast("Mapping[str, Any]", function).get("name")
    return isinstance(name, str) and bool(name)


CHAT_CTX: Final = Rule(
    "a ChatContext (ChatContext.empty() makes one, add_message(role='user', content=...) fills it)",
    _is_context,
    kinds=(ChatContext,),
)
TOOLS: Final = Rule(
    "a list of tools (functions decorated with @function_tool)",
    _is_tools,
    kinds=(list, ToolContext),
)
TOOL_CHOICE: Final = Rule(
    "'auto', 'required', 'none' or {'type': 'function', 'function': {'name': ...}}",
    _is_choice,
    _is_known_choice,
)
