"""The dialects of OpenAI: Chat Completions and the Responses API. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, cast

from msgspec.structs import replace

from rejoinder._core.dialects import Dialect
from rejoinder._core.rules import State, is_text
from rejoinder.providers.asking.in_order import is_text_entry
from rejoinder.providers.completions.dialect import RULES, function, tool_spec
from rejoinder.providers.completions.usage import usage_from_openai
from rejoinder.providers.openai import format as chat_format
from rejoinder.providers.openai import responses_format
from rejoinder.providers.openai.usage import usage_from_responses

if TYPE_CHECKING:
    from rejoinder._core.tool_forms import ToolForm

__all__ = ["DIALECT", "RESPONSES"]


def _is_reasoning_item(entry: object) -> bool:
    if not isinstance(entry, dict):
        return False
    held = cast("dict[str, Any]", entry)
    if is_text_entry(held):
        return isinstance(held["text"], str)
    return (
        held.get("type") == "reasoning"
        and isinstance(held.get("summary"), list)
        and is_text(held.get("id", held.get("encrypted_content")))
    )


def responses_tool_spec(
    tool: ToolForm, *, strict: bool = False, schema: str = "openai"
) -> dict[str, Any]:
    """A tool of the Responses API: flat."""
    return {**function(tool, strict=strict, schema=schema), "type": "function"}


DIALECT: Final = Dialect(
    "openai",
    to_chat_ctx=chat_format.to_chat_ctx,
    from_messages="rejoinder.providers.completions.inverse:from_messages",
    rules=RULES,
    tool_spec=tool_spec,
    read_usage=usage_from_openai,
    llm="rejoinder.providers.openai:LLM",
    realtime="rejoinder.providers.openai.realtime:RealtimeModel",
)

RESPONSES: Final = Dialect(
    "openai.responses",
    to_chat_ctx=responses_format.to_chat_ctx,
    from_messages="rejoinder.providers.openai.inverse:from_input",
    rules=replace(
        RULES,
        result_addresses=True,
        call_id=re.compile(r"[^\s\x00-\x1f\ud800-\udfff]{1,64}"),
        state=State(
            "openai",
            part="reasoning_items",
            is_whole=_is_reasoning_item,
            entries=True,
            linked=True,
            stands_alone=responses_format.stands_alone,
            unread="openai.responses",
        ),
    ),
    tool_spec=responses_tool_spec,
    read_usage=usage_from_responses,
)
