"""The dialect of generateContent. Pure."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final

from rejoinder._core.dialects import Dialect
from rejoinder._core.rules import BLOCKS, State, is_base64
from rejoinder.providers.google.format import to_chat_ctx
from rejoinder.providers.google.usage import usage_from_google

__all__ = ["DIALECT"]

DIALECT: Final = Dialect(
    "google",
    to_chat_ctx=to_chat_ctx,
    rules=replace(
        BLOCKS,
        call_id=re.compile(r"[^\s\x00-\x1f\ud800-\udfff]{1,64}"),
        name=re.compile(r"[a-zA-Z_][a-zA-Z0-9_.-]{0,63}"),
        first_user=".",
        lone_user=".",
        assistant_images=True,
        image_schemes=("https://", "http://", "gs://"),
        image_types=frozenset(
            {"image/heic", "image/heif", "image/jpeg", "image/png", "image/webp"}
        ),
        output_names=True,
        blank_errors=True,
        state=State("google", part="thought_signature", is_whole=is_base64),
        no_signature="c2tpcF90aG91Z2h0X3NpZ25hdHVyZV92YWxpZGF0b3I=",
    ),
    tool_spec="rejoinder.llm._tool_specs:google",
    read_usage=usage_from_google,
    llm="rejoinder.providers.google:LLM",
)
