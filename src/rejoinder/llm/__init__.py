"""The public API: the names of ``livekit.agents.llm``, where its users look for them."""

from __future__ import annotations

from rejoinder.llm.chat_context import ChatContext
from rejoinder.llm.llm import (
    LLM,
    ChatChunk,
    ChoiceDelta,
    CollectedResponse,
    CompletionUsage,
    FunctionToolCall,
    LLMError,
    LLMStream,
)

__all__ = [
    "LLM",
    "ChatChunk",
    "ChatContext",
    "ChoiceDelta",
    "CollectedResponse",
    "CompletionUsage",
    "FunctionToolCall",
    "LLMError",
    "LLMStream",
]
