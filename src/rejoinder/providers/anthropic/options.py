"""What a request to the Messages API is made with, and what families of models differ in. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

__all__ = ["DEFAULT_MAX_TOKENS", "Options", "Platform", "takes_prefill"]

Platform: TypeAlias = Literal["anthropic", "azure", "bedrock", "vertex"]
"""Who hosts the model. It decides the address, the credentials and three members of the body."""

DEFAULT_MAX_TOKENS: Final = 1024

# Models whose reply may be begun for them; newer ones refuse a history that ends with the assistant.
_PREFILL: Final = re.compile(
    r"claude-(instant|v?[12]|3|(opus|sonnet|haiku)-4(-[015](?!\d))?(@|-v\d|-\d{8}|-latest|$))"
)


@dataclass(frozen=True, slots=True)
class Options:
    """One request, apart from the conversation and the tools. ``None``: not said."""

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


def takes_prefill(model: str) -> bool:
    """Whether the model goes on with a reply that the history ends with.

    Known for the older models that do; every other name is taken for a newer one.
    """
    name = model.lower().rpartition("/")[2]
    found = re.search(r"claude-", name)
    return found is not None and _PREFILL.match(name, found.start()) is not None
