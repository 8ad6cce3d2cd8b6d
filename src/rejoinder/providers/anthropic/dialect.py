"""The dialect of the Messages API. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final, cast

from rejoinder._core.dialects import Dialect
from rejoinder._core.rules import BLOCKS, State, is_text
from rejoinder.providers.anthropic.format import to_chat_ctx
from rejoinder.providers.anthropic.usage import usage_from_anthropic

__all__ = ["DIALECT"]


def _is_thinking(block: object) -> bool:
    if not isinstance(block, dict):
        return False
    held = cast("dict[str, Any]", block)
    if held.get("type") == "redacted_thinking":
        return is_text(held.get("data"))
    return (
        held.get("type") == "thinking"
        and isinstance(held.get("thinking"), str)
        and is_text(held.get("signature"))
    )


DIALECT: Final = Dialect(
    "anthropic",
    to_chat_ctx=to_chat_ctx,
    rules=replace(
        BLOCKS,
        state=State("anthropic", part="thinking", is_whole=_is_thinking, entries=True),
    ),
    tool_spec="rejoinder.llm._tool_specs:anthropic",
    read_usage=usage_from_anthropic,
    llm="rejoinder.providers.anthropic:LLM",
)
