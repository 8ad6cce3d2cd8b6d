"""Mistral. Names are imported on first access, so that importing the pure modules stays cheap."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rejoinder._late import late_names

if TYPE_CHECKING:
    from rejoinder.providers.mistralai.llm import LLM, LLMStream

__all__ = ["LLM", "LLMStream"]

__getattr__, __dir__ = late_names(__name__, {"LLM": "llm", "LLMStream": "llm"})
