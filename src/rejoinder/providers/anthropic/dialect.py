"""The dialect of the Messages API. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from msgspec.structs import replace

from rejoinder._core.dialects import Dialect
from rejoinder._core.rules import BLOCKS, State
from rejoinder.providers.anthropic.format import to_chat_ctx
from rejoinder.providers.anthropic.state import STATE, is_state, stands_alone
from rejoinder.providers.anthropic.usage import usage_from_anthropic

if TYPE_CHECKING:
    from rejoinder._core.tool_forms import ToolForm

__all__ = ["DIALECT", "tool_spec"]


def tool_spec(tool: ToolForm, *, strict: bool = True) -> dict[str, Any]:
    """A tool in the form of the Messages API."""
    out: dict[str, Any] = {"name": tool.name, "description": tool.description}
    held_to = tool.strict("anthropic", exact=True) if strict else None
    if held_to is not None:
        return {**out, "input_schema": held_to, "strict": True}
    return {**out, "input_schema": tool.plain("anthropic")}


DIALECT: Final = Dialect(
    "anthropic",
    to_chat_ctx=to_chat_ctx,
    from_messages="rejoinder.providers.anthropic.inverse:from_messages",
    rules=replace(
        BLOCKS,
        # "At least one of the image dimensions exceed max allowed size: 8000 pixels", and 2000 in a
        # request of more than 20; "image exceeds 5 MB maximum" (anthropics/claude-code #4778).
        image_side=8_000,
        image_bytes=5 * 1024 * 1024,
        crowd=(20, 2_000),
        result_addresses=True,
        image_schemes=("https://",),  # "Only HTTPS URLs are supported" (BrokkAi/brokk-app #2269)
        state=State(
            "anthropic",
            part=STATE,
            is_whole=is_state,
            entries=True,
            stands_alone=stands_alone,
            unread="anthropic",
        ),
    ),
    tool_spec=tool_spec,
    read_usage=usage_from_anthropic,
    llm="rejoinder.providers.anthropic:LLM",
)
