"""The LLM layer for real-time voice and chat agents.

The public API lives in `rejoinder.llm`, whole turns in `rejoinder.turn`, providers in
`rejoinder.providers`. The names below are the common ones, for short programs. Importing this module
imports nothing else.
"""

from __future__ import annotations

from rejoinder.__about__ import __version__

TYPE_CHECKING = False  # spares the import of `typing`
if TYPE_CHECKING:
    from typing import Any

    from rejoinder import llm
    from rejoinder.catalog import create
    from rejoinder.conversation import Conversation
    from rejoinder.errors import (
        APIConnectionError,
        APIError,
        APIStatusError,
        APITimeoutError,
        create_api_error_from_http,
    )
    from rejoinder.llm import (
        LLM,
        AudioContent,
        ChatContent,
        ChatContext,
        ChatItem,
        ChatMessage,
        ChatRole,
        FallbackAdapter,
        FunctionCall,
        FunctionCallOutput,
        FunctionTool,
        ImageContent,
        RunContext,
        StopResponse,
        ToolError,
        function_tool,
    )
    from rejoinder.turn import run_turn
    from rejoinder.types import (
        DEFAULT_API_CONNECT_OPTIONS,
        NOT_GIVEN,
        APIConnectOptions,
        NotGiven,
        NotGivenOr,
    )

__all__ = [
    "DEFAULT_API_CONNECT_OPTIONS",
    "LLM",
    "NOT_GIVEN",
    "APIConnectOptions",
    "APIConnectionError",
    "APIError",
    "APIStatusError",
    "APITimeoutError",
    "AudioContent",
    "ChatContent",
    "ChatContext",
    "ChatItem",
    "ChatMessage",
    "ChatRole",
    "Conversation",
    "FallbackAdapter",
    "FunctionCall",
    "FunctionCallOutput",
    "FunctionTool",
    "ImageContent",
    "NotGiven",
    "NotGivenOr",
    "RunContext",
    "StopResponse",
    "ToolError",
    "__version__",
    "create",
    "create_api_error_from_http",
    "function_tool",
    "llm",
    "run_turn",
]

_HOMES = {
    "DEFAULT_API_CONNECT_OPTIONS": "types",
    "LLM": "llm",
    "NOT_GIVEN": "types",
    "APIConnectOptions": "types",
    "APIConnectionError": "errors",
    "APIError": "errors",
    "APIStatusError": "errors",
    "APITimeoutError": "errors",
    "AudioContent": "llm",
    "ChatContent": "llm",
    "ChatContext": "llm",
    "ChatItem": "llm",
    "ChatMessage": "llm",
    "ChatRole": "llm",
    "Conversation": "conversation",
    "FallbackAdapter": "llm",
    "FunctionCall": "llm",
    "FunctionCallOutput": "llm",
    "FunctionTool": "llm",
    "ImageContent": "llm",
    "NotGiven": "types",
    "NotGivenOr": "types",
    "RunContext": "llm",
    "StopResponse": "llm",
    "ToolError": "llm",
    "create": "catalog",
    "create_api_error_from_http": "errors",
    "function_tool": "llm",
    "run_turn": "turn",
}


def __getattr__(name: str) -> Any:
    import importlib

    if name == "llm":
        return importlib.import_module("rejoinder.llm")
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'rejoinder' has no attribute {name!r}")
    return getattr(importlib.import_module(f"rejoinder.{home}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
