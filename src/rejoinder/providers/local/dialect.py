"""The dialect of the embedded engine: chat completions, text only. Pure."""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from rejoinder._core.dialects import Dialect
from rejoinder._core.rules import State
from rejoinder.providers.completions.dialect import RULES, tool_spec
from rejoinder.providers.completions.usage import usage_from_openai
from rejoinder.providers.local.format import to_chat_ctx

__all__ = ["DIALECT"]

DIALECT: Final = Dialect(
    "local",
    to_chat_ctx=to_chat_ctx,
    rules=replace(RULES, state=State("openai")),
    tool_spec=tool_spec,
    read_usage=usage_from_openai,
    llm="rejoinder.providers.local:LLM",
)
