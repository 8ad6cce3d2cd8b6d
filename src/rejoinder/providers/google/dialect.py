"""The dialect of generateContent. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from msgspec.structs import replace

from rejoinder._core.dialects import Dialect
from rejoinder._core.rules import BLOCKS, State, is_base64
from rejoinder.providers.google.format import TOOL_NAME, to_chat_ctx
from rejoinder.providers.google.schema import gemini_schema
from rejoinder.providers.google.state import SIGNATURE
from rejoinder.providers.google.usage import usage_from_google

if TYPE_CHECKING:
    from rejoinder._core.tool_forms import ToolForm

__all__ = ["DIALECT", "tool_spec"]


def tool_spec(tool: ToolForm, *, json_schema: bool = True) -> dict[str, Any]:
    """The declaration of a function: in Google's own schema dialect if that can express it, else as
    JSON schema, which the Live API does not accept."""
    out: dict[str, Any] = {"name": tool.name, "description": tool.description}
    if not tool.source:
        return out
    if tool.plan is None and json_schema:
        return {**out, "parameters_json_schema": tool.plain("gemini")}
    try:
        parameters = gemini_schema(tool.source if tool.plan else tool.plain("gemini.schema"))
    except ValueError:
        if json_schema:
            return {**out, "parameters_json_schema": tool.plain("gemini")}
        parameters = gemini_schema(tool.plain("gemini.schema"))
    return out if parameters is None else {**out, "parameters": parameters}


DIALECT: Final = Dialect(
    "google",
    to_chat_ctx=to_chat_ctx,
    from_messages="rejoinder.providers.google.inverse:from_contents",
    rules=replace(
        BLOCKS,
        call_id=re.compile(r"[^\s\x00-\x1f\ud800-\udfff]{1,64}"),
        name=TOOL_NAME,
        first_user=".",
        lone_user=".",
        assistant_images=True,
        image_schemes=("https://", "http://", "gs://"),
        image_types=frozenset(
            {"image/heic", "image/heif", "image/jpeg", "image/png", "image/webp"}
        ),
        output_names=True,
        blank_errors=True,
        state=State("google", part=SIGNATURE, is_whole=is_base64, unread="google"),
        no_signature="c2tpcF90aG91Z2h0X3NpZ25hdHVyZV92YWxpZGF0b3I=",
    ),
    tool_spec=tool_spec,
    read_usage=usage_from_google,
    llm="rejoinder.providers.google:LLM",
    realtime="rejoinder.providers.google.realtime:RealtimeModel",
)
