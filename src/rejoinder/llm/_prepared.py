"""Loads what every reply uses, before the first reply needs it."""

from __future__ import annotations

import importlib
from typing import Final

from pydantic import BaseModel

from rejoinder._core.chunks import (
    ChatChunk,
    ChoiceDelta,
    CollectedResponse,
    CompletionUsage,
    FunctionToolCall,
)
from rejoinder._core.items import ChatMessage, FunctionCall, FunctionCallOutput
from rejoinder.metrics import LLMMetrics, Metadata

__all__ = ["prepare"]

_MODULES: Final = (
    "rejoinder.telemetry",
    "rejoinder._core.prices",
    "rejoinder.llm._tool_specs",
    "concurrent.futures.thread",  # used by asyncio.to_thread and by asyncio's name resolution
)
_MODELS: Final[tuple[type[BaseModel], ...]] = (
    ChatMessage,
    FunctionCall,
    FunctionCallOutput,
    ChatChunk,
    ChoiceDelta,
    FunctionToolCall,
    CompletionUsage,
    CollectedResponse,
    LLMMetrics,
    Metadata,
)


def prepare(*models: type[BaseModel]) -> None:
    """Import the modules and build the pydantic models that every reply uses, and `models` too."""
    for module in _MODULES:
        importlib.import_module(module)
    for model in (*_MODELS, *models):
        model.model_rebuild()  # does nothing once the model is built
