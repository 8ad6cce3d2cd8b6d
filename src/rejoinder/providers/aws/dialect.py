"""The dialect of Bedrock's Converse. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from msgspec.structs import replace

from rejoinder._core.dialects import Dialect
from rejoinder._core.rules import BLOCKS, State, is_base64, is_text
from rejoinder.providers.asking.in_order import is_text_entry
from rejoinder.providers.aws.format import to_chat_ctx
from rejoinder.providers.aws.usage import usage_from_bedrock

if TYPE_CHECKING:
    from rejoinder._core.tool_forms import ToolForm

__all__ = ["DIALECT", "tool_spec"]


def _is_reasoning(entry: object) -> bool:
    if not isinstance(entry, dict):
        return False
    held = cast("dict[str, Any]", entry)
    held = held.get("reasoningContent", held)
    if not isinstance(held, dict):
        return False
    block = cast("dict[str, Any]", held)
    if is_text_entry(block):
        return isinstance(block["text"], str)
    if "redactedContent" in block:
        return is_base64(block["redactedContent"])
    if "reasoningText" not in block:  # an unknown block
        return held is entry and len(block) == 1 and isinstance(next(iter(block.values())), dict)
    text = block["reasoningText"]
    return (
        isinstance(text, dict)
        and isinstance(cast("dict[str, Any]", text).get("text"), str)
        and is_text(cast("dict[str, Any]", text).get("signature"))
    )


def tool_spec(tool: ToolForm) -> dict[str, Any]:
    """The description of a tool for Converse, which refuses an empty description text."""
    out: dict[str, Any] = {"name": tool.name}
    if tool.description:
        out["description"] = tool.description
    return {"toolSpec": {**out, "inputSchema": {"json": tool.plain("bedrock")}}}


DIALECT: Final = Dialect(
    "aws",
    to_chat_ctx=to_chat_ctx,
    from_messages="rejoinder.providers.aws.inverse:from_messages",
    rules=replace(
        BLOCKS,
        image_schemes=(),
        blank_outputs=False,
        state=State("aws", part="reasoning", is_whole=_is_reasoning, entries=True, unread="aws"),
    ),
    tool_spec=tool_spec,
    read_usage=usage_from_bedrock,
    llm="rejoinder.providers.aws:LLM",
    realtime="rejoinder.providers.aws.realtime:RealtimeModel",
)
