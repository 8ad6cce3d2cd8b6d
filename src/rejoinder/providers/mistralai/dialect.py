"""The dialects of Mistral: chat completions and the Conversations API. Pure."""

from __future__ import annotations

import re
from typing import Final

from msgspec.structs import replace

from rejoinder._core.dialects import Dialect
from rejoinder._core.rules import Rules, State, digest
from rejoinder.providers.completions.dialect import plain_tool_spec
from rejoinder.providers.completions.usage import usage_from_openai
from rejoinder.providers.mistralai.format import to_chat_ctx, to_conversation

__all__ = ["CONVERSATIONS", "DIALECT"]


def _nine(seed: str) -> str:
    return digest(seed)[:9]


_RULES: Final = Rules(
    call_id=re.compile(r"[a-zA-Z0-9]{9}"),
    new_call_id=_nine,
    calls_first=False,
    last_user=".",
    lone_user=".",
    developer=False,
    instructions="beside_user",
    reply_after_tools=True,
    state=State("mistralai", unread="mistralai"),
)

DIALECT: Final = Dialect(
    "mistralai",
    to_chat_ctx=to_chat_ctx,
    from_messages="rejoinder.providers.mistralai.inverse:from_messages",
    rules=_RULES,
    tool_spec=plain_tool_spec,
    read_usage=usage_from_openai,
    llm="rejoinder.providers.mistralai:LLM",
)

CONVERSATIONS: Final = Dialect(
    "mistralai.conversations",
    to_chat_ctx=to_conversation,
    rules=replace(_RULES, reply_after_tools=False, one_instruction=True, state=State("mistralai")),
)
