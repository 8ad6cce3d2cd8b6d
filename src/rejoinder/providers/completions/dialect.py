"""The rules of chat completions, for the dialects of all its providers. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from rejoinder._core.rules import Rules, State

if TYPE_CHECKING:
    from rejoinder._core.tool_forms import ToolForm

__all__ = ["RULES", "function", "plain_tool_spec", "tool_spec"]

RULES: Final = Rules(
    call_id=re.compile(r"[^\s\x00-\x1f\ud800-\udfff]{1,40}"),
    lone_user="(empty)",
    state=State("openai", unread="openai"),
)


def tool_spec(tool: ToolForm, *, strict: bool = True, schema: str = "openai") -> dict[str, Any]:
    """A tool in OpenAI's envelope.

    Args:
        strict: enforce the schema, if this does not change what the tool accepts.
        schema: the model's dialect of JSON schema, see `rejoinder._core.schema_rules`.
    """
    return {"type": "function", "function": function(tool, strict=strict, schema=schema)}


def plain_tool_spec(tool: ToolForm, *, schema: str = "openai") -> dict[str, Any]:
    """Like `tool_spec`, without enforcing the schema."""
    return tool_spec(tool, strict=False, schema=schema)


def function(tool: ToolForm, *, strict: bool, schema: str) -> dict[str, Any]:
    """The content of the envelope."""
    out: dict[str, Any] = {"name": tool.name}
    held_to = tool.strict(schema) if strict else None
    if held_to is not None:
        out["strict"] = True
    if tool.description or tool.plan is not None:
        out["description"] = tool.description
    return {
        **out,
        "parameters": tool.plain(schema) if held_to is None else held_to,
        **tool.more,
    }
