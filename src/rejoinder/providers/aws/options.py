"""The options of a request to ConverseStream. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Options"]


@dataclass(frozen=True, slots=True)
class Options:
    """One request, apart from the conversation and the tools. ``None`` omits the field."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    additional_request_fields: Mapping[str, Any] | None = None
    cache_system: bool = False
    cache_tools: bool = False
    response_name: str = ""
    response_schema: Mapping[str, Any] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Further members of the body, in the API's own names."""
