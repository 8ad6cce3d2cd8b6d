"""The options that `LLM` and the constructors of other servers take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict, cast

from rejoinder._core.reasoning import Option as ReasoningOption
from rejoinder._foreign import dump, has
from rejoinder.errors import ConfigurationError
from rejoinder.llm.tool_context import ToolChoice
from rejoinder.transport.http import HttpTransport
from rejoinder.types import (
    DEFAULT_API_CONNECT_OPTIONS,
    APIConnectOptions,
    NotGiven,
    NotGivenOr,
    is_given,
)

if TYPE_CHECKING:
    from rejoinder.transport._aiohttp import ClientSession

__all__ = ["MoreOptions", "ReasoningEffort", "Verbosity", "conn_options_of", "plugin_fields"]

ReasoningEffort: TypeAlias = str
"""``"none"``, ``"minimal"``, ``"low"``, ``"medium"``, ``"high"``, ``"xhigh"``; each model accepts
some of them."""
Verbosity: TypeAlias = str
"""``"low"``, ``"medium"`` or ``"high"``."""


class MoreOptions(TypedDict, total=False):
    """Options that the constructors of other servers share with `LLM`."""

    client: Any
    user: NotGivenOr[str]
    safety_identifier: NotGivenOr[str]
    prompt_cache_key: NotGivenOr[str]
    prompt_cache_retention: NotGivenOr[str]
    temperature: NotGivenOr[float]
    top_p: NotGivenOr[float]
    parallel_tool_calls: NotGivenOr[bool]
    tool_choice: NotGivenOr[ToolChoice]
    store: NotGivenOr[bool]
    metadata: NotGivenOr[dict[str, str]]
    max_completion_tokens: NotGivenOr[int]
    timeout: Any
    max_retries: NotGivenOr[int]
    service_tier: NotGivenOr[str]
    reasoning_effort: NotGivenOr[ReasoningEffort]
    verbosity: NotGivenOr[Verbosity]
    extra_body: NotGivenOr[dict[str, Any]]
    extra_headers: NotGivenOr[dict[str, str]]
    extra_query: NotGivenOr[dict[str, str]]
    http_session: ClientSession | None
    transport: HttpTransport | None
    api: Literal["chat", "responses"]
    trust_done: bool
    audio_input: NotGivenOr[bool]
    reasoning: NotGivenOr[ReasoningOption]
    family: NotGivenOr[str]
    _provider_fmt: NotGivenOr[str]
    _strict_tool_schema: bool


def conn_options_of(timeout: Any, max_retries: NotGivenOr[int]) -> APIConnectOptions:
    """The options of calls without their own: those of the constructor, else the defaults."""
    changes: dict[str, Any] = {}
    if is_given(max_retries):
        found: object = max_retries
        if not isinstance(found, int) or isinstance(found, bool) or found < 0:
            raise ConfigurationError(f"max_retries: expected a number of retries, got {found!r}")
        changes["max_retry"] = found
    if isinstance(timeout, (int, float)):
        changes["timeout"] = float(timeout)
    elif timeout is not None and not isinstance(timeout, NotGiven):
        if not has(timeout, "connect", "read"):
            raise ConfigurationError(
                "timeout: expected seconds, or an object with `connect` and `read` such as "
                f"httpx.Timeout, got {timeout!r}"
            )
        if timeout.connect is not None:
            changes["connect"] = float(timeout.connect)
        if timeout.read is not None:
            changes["first_output"] = changes["between_outputs"] = float(timeout.read)
    return APIConnectOptions(**changes) if changes else DEFAULT_API_CONNECT_OPTIONS


def plugin_fields(plugin: Any) -> dict[str, Any]:
    found: Mapping[str, Any] | None = (
        cast("Mapping[str, Any]", plugin) if isinstance(plugin, Mapping) else dump(plugin)
    )
    if found is None:
        found = vars(plugin)
    return {name: value for name, value in found.items() if value is not None}
