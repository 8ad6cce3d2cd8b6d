"""The dialect of LiveKit's gateway: chat completions. Pure."""

from __future__ import annotations

from typing import Final

from rejoinder._core.dialects import Dialect
from rejoinder.providers.completions.dialect import RULES, tool_spec
from rejoinder.providers.completions.usage import usage_from_openai
from rejoinder.providers.inference.format import to_chat_ctx

__all__ = ["DIALECT"]

DIALECT: Final = Dialect(
    "openai",  # the name of its API
    to_chat_ctx=to_chat_ctx,
    from_messages="rejoinder.providers.completions.inverse:from_messages",
    rules=RULES,
    tool_spec=tool_spec,
    read_usage=usage_from_openai,
    llm="rejoinder.providers.inference:LLM",
)
