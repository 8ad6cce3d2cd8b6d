"""The options of a request to the Messages API, and its hosts. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

__all__ = ["DEFAULT_MAX_TOKENS", "Options", "Platform"]

Platform: TypeAlias = Literal["anthropic", "azure", "bedrock", "vertex"]
"""The host of the model. It determines the URL, the credentials and three members of the body."""

DEFAULT_MAX_TOKENS: Final = 1024


@dataclass(frozen=True, slots=True)
class Options:
    """One request, apart from the conversation and the tools. ``None`` omits the field."""

    model: str
    platform: Platform = "anthropic"
    max_tokens: int | None = None
    temperature: float | None = None
    top_k: int | None = None
    user: str | None = None
    caching: str | Mapping[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    response_schema: Mapping[str, Any] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Further members of the body, in the API's own names."""
