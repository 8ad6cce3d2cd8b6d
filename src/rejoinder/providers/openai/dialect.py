"""The dialects of OpenAI: Chat Completions and the Responses API. Pure."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any, Final, cast

from rejoinder._core.dialects import Dialect
from rejoinder._core.rules import State, is_text
from rejoinder.providers.completions.dialect import RULES
from rejoinder.providers.completions.usage import usage_from_openai
from rejoinder.providers.openai import format as chat_format
from rejoinder.providers.openai import responses_format
from rejoinder.providers.openai.usage import usage_from_responses

__all__ = ["DIALECT", "RESPONSES"]


def _is_reasoning_item(entry: object) -> bool:
    if not isinstance(entry, dict):
        return False
    held = cast("dict[str, Any]", entry)
    return (
        held.get("type") == "reasoning"
        and isinstance(held.get("summary"), list)
        and is_text(held.get("id", held.get("encrypted_content")))
    )


DIALECT: Final = Dialect(
    "openai",
    to_chat_ctx=chat_format.to_chat_ctx,
    rules=RULES,
    tool_spec="rejoinder.llm._tool_specs:openai",
    read_usage=usage_from_openai,
    llm="rejoinder.providers.openai:LLM",
)

RESPONSES: Final = Dialect(
    "openai.responses",
    to_chat_ctx=responses_format.to_chat_ctx,
    rules=replace(
        RULES,
        call_id=re.compile(r"[^\s\x00-\x1f\ud800-\udfff]{1,64}"),
        state=State(
            "openai",
            part="reasoning_items",
            is_whole=_is_reasoning_item,
            entries=True,
            linked=True,
        ),
    ),
    tool_spec="rejoinder.llm._tool_specs:responses",
    read_usage=usage_from_responses,
)
