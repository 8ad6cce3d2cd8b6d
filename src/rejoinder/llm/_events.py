"""The payloads of an LLM's events that are not metrics."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["LLMError"]


class LLMError(BaseModel):
    """Payload of the event ``"error"``."""

    model_config = ConfigDict(arbitrary_types_allowed=True, defer_build=True)

    type: Literal["llm_error"] = "llm_error"
    timestamp: float
    label: str
    error: Exception = Field(..., exclude=True)
    recoverable: bool
    """True while another attempt follows."""
