"""The metrics of a finished model call.

The names and the order of the fields follow LiveKit Agents 1.2.17, so that dashboards and stored records
keep working. Newer fields have defaults.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict

__all__ = [
    "AgentMetrics",
    "LLMMetrics",
    "Metadata",
    "RealtimeModelMetrics",
    "STTMetrics",
    "UsageCollector",
    "UsageSummary",
    "log_metrics",
]


Purpose: TypeAlias = Literal["reply", "hedge", "probe", "restart"]
"""The purpose of a call. ``hedge``: another model was faster, so this reply was not used. ``probe``: the
call only tested whether a failed model works again. ``restart``: the reply broke off and was discarded,
and another model started again."""


class Metadata(BaseModel):
    """Which model served a call."""

    model_config = ConfigDict(defer_build=True, protected_namespaces=())

    model_name: str | None = None
    model_provider: str | None = None


class LLMMetrics(BaseModel):
    """One streamed reply. Times in seconds, counts in tokens."""

    model_config = ConfigDict(defer_build=True)

    type: Literal["llm_metrics"] = "llm_metrics"
    label: str
    request_id: str
    timestamp: float
    duration: float
    ttft: float
    """Time to the first text or tool call; -1 if the reply has neither."""
    cancelled: bool
    completion_tokens: int
    prompt_tokens: int
    prompt_cached_tokens: int
    total_tokens: int
    tokens_per_second: float
    speech_id: str | None = None
    metadata: Metadata | None = None
    cache_creation_tokens: int = 0
    cache_read_tokens: int = 0
    reasoning_tokens: int = 0
    estimated: bool = False
    """The reply was cut before the provider sent its token counts. The missing counts (all, or only the
    completion's) are estimated from the length of the texts."""
    purpose: Purpose = "reply"
    cost: float | None = None
    """US dollars; ``None`` if the price is not known. See `rejoinder.prices`."""


class RealtimeModelMetrics(BaseModel):
    """One response of a speech-to-speech model, or one connection to it.

    Times in seconds, counts in tokens.
    """

    model_config = ConfigDict(defer_build=True)

    class CachedTokenDetails(BaseModel):
        """Tokens read from the provider's cache, by kind."""

        model_config = ConfigDict(defer_build=True)

        audio_tokens: int = 0
        text_tokens: int = 0
        image_tokens: int = 0

    class InputTokenDetails(BaseModel):
        """Tokens read, by kind, cached ones included."""

        model_config = ConfigDict(defer_build=True)

        audio_tokens: int = 0
        text_tokens: int = 0
        image_tokens: int = 0
        cached_tokens: int = 0
        cached_tokens_details: RealtimeModelMetrics.CachedTokenDetails | None = None

    class OutputTokenDetails(BaseModel):
        """Tokens generated, by kind."""

        model_config = ConfigDict(defer_build=True)

        text_tokens: int = 0
        audio_tokens: int = 0
        image_tokens: int = 0

    type: Literal["realtime_model_metrics"] = "realtime_model_metrics"
    label: str = ""
    request_id: str
    timestamp: float
    """Seconds since the epoch."""
    duration: float = 0.0
    ttft: float = -1.0
    """Time to the first audio; -1 without audio."""
    cancelled: bool = False
    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    tokens_per_second: float = 0.0
    input_token_details: InputTokenDetails
    output_token_details: OutputTokenDetails
    metadata: Metadata | None = None
    session_duration: float = 0.0
    """Seconds since the last report, for services that bill by time."""
    acquire_time: float = 0.0
    """Seconds until the connection was available."""
    connection_reused: bool = False
    """An existing connection was used."""
    cost: float | None = None
    """US dollars for the reply; ``None`` if the price is not known."""


class STTMetrics(BaseModel):
    """The transcription of the user's speech, which is billed separately from the reply.

    Times in seconds, counts in tokens. A provider reports seconds of sound or tokens.
    """

    model_config = ConfigDict(defer_build=True)

    type: Literal["stt_metrics"] = "stt_metrics"
    label: str
    request_id: str
    """Id of the user's message."""
    timestamp: float
    """Seconds since the epoch."""
    duration: float = 0.0
    audio_duration: float = 0.0
    input_tokens: int = 0
    output_tokens: int = 0
    streamed: bool = True
    metadata: Metadata | None = None


AgentMetrics: TypeAlias = LLMMetrics | RealtimeModelMetrics | STTMetrics


def log_metrics(metrics: AgentMetrics, *, logger: logging.Logger | None = None) -> None:
    """Log one line at level INFO, with the numbers in the text and as attributes of the record.

        llm.on("metrics_collected", log_metrics)

    Metrics of any other kind are ignored.

    Args:
        metrics: the metrics of one reply.
        logger: by default the logger ``"rejoinder"``.
    """
    names = getattr(metrics, "metadata", None) or Metadata()
    numbers: dict[str, Any]
    match metrics:
        case LLMMetrics():
            title = "LLM metrics"
            numbers = {
                "ttft": round(metrics.ttft, 3),
                "prompt_tokens": metrics.prompt_tokens,
                "prompt_cached_tokens": metrics.prompt_cached_tokens,
                "completion_tokens": metrics.completion_tokens,
                "tokens_per_second": round(metrics.tokens_per_second, 2),
            }
        case RealtimeModelMetrics():
            title = "RealtimeModel metrics"
            numbers = {
                "ttft": round(metrics.ttft, 3),
                "input_tokens": metrics.input_tokens,
                "cached_input_tokens": metrics.input_token_details.cached_tokens,
                "input_text_tokens": metrics.input_token_details.text_tokens,
                "input_audio_tokens": metrics.input_token_details.audio_tokens,
                "output_tokens": metrics.output_tokens,
                "output_text_tokens": metrics.output_token_details.text_tokens,
                "output_audio_tokens": metrics.output_token_details.audio_tokens,
                "total_tokens": metrics.total_tokens,
                "tokens_per_second": round(metrics.tokens_per_second, 2),
            }
        case STTMetrics():
            title = "STT metrics"
            numbers = {
                "audio_duration": round(metrics.audio_duration, 3),
                "input_tokens": metrics.input_tokens,
                "output_tokens": metrics.output_tokens,
            }
        case _:
            return
    model = {"model_name": names.model_name, "model_provider": names.model_provider}
    extra = {key: value for key, value in model.items() if value is not None} | numbers
    if not isinstance(metrics, STTMetrics) and metrics.cost is not None:
        extra["cost"] = round(metrics.cost, 6)
    if isinstance(metrics, LLMMetrics):
        marks = {"cancelled": metrics.cancelled, "estimated": metrics.estimated}
        extra |= {mark: True for mark, holds in marks.items() if holds}
    shown = " ".join(f"{key}={value}" for key, value in extra.items())
    (logger or _logger).info("%s: %s", title, shown, extra=extra)


_logger = logging.getLogger("rejoinder")


@dataclass
class UsageSummary:
    """The total tokens of many replies. Prompt tokens include cached ones."""

    llm_prompt_tokens: int = 0
    llm_prompt_cached_tokens: int = 0
    llm_input_audio_tokens: int = 0
    llm_completion_tokens: int = 0
    llm_output_audio_tokens: int = 0
    llm_cache_creation_tokens: int = 0
    llm_reasoning_tokens: int = 0
    llm_requests: int = 0
    stt_audio_duration: float = 0.0
    """Seconds of the user's sound that were transcribed."""
    stt_input_tokens: int = 0
    stt_output_tokens: int = 0
    estimated: bool = False
    """Some counts are estimates, because a reply was cut before its usage arrived."""
    cost: float | None = None
    """US dollars of the requests whose price is known; ``None`` if there are no such requests."""
    unpriced: int = 0
    """Requests whose price is not known. `cost` does not include them."""


class UsageCollector:
    """Adds up the tokens and US dollars of many replies: in total, by model, and by purpose.

        usage = UsageCollector()
        llm.on("metrics_collected", usage.collect)

    Unused replies (of a losing hedge, of a probe) are counted too, because they are billed.
    """

    def __init__(self) -> None:
        self._all = UsageSummary()
        self._models: dict[tuple[str | None, str | None], UsageSummary] = {}
        self._purposes: dict[Purpose, UsageSummary] = {}

    def collect(self, metrics: AgentMetrics) -> None:
        """Count one reply. Metrics of any other kind are ignored, so that one handler can receive
        everything that an agent reports."""
        if not isinstance(metrics, LLMMetrics | RealtimeModelMetrics | STTMetrics):
            return
        names = metrics.metadata or Metadata()
        model = self._models.setdefault((names.model_provider, names.model_name), UsageSummary())
        purpose: Purpose = metrics.purpose if isinstance(metrics, LLMMetrics) else "reply"
        for summary in (self._all, model, self._purposes.setdefault(purpose, UsageSummary())):
            _add(summary, metrics)

    def get_summary(self) -> UsageSummary:
        """The total, as a copy."""
        return replace(self._all)

    def by_model(self) -> dict[tuple[str | None, str | None], UsageSummary]:
        """The total of each ``(provider, model)``, as copies."""
        return {names: replace(summary) for names, summary in self._models.items()}

    def by_purpose(self) -> dict[Purpose, UsageSummary]:
        """The total of each `LLMMetrics.purpose`, as copies."""
        return {purpose: replace(summary) for purpose, summary in self._purposes.items()}


def _add(summary: UsageSummary, metrics: AgentMetrics) -> None:
    if isinstance(metrics, STTMetrics):
        summary.stt_audio_duration += metrics.audio_duration
        summary.stt_input_tokens += metrics.input_tokens
        summary.stt_output_tokens += metrics.output_tokens
        return
    if isinstance(metrics, LLMMetrics):
        summary.llm_prompt_tokens += metrics.prompt_tokens
        summary.llm_prompt_cached_tokens += metrics.prompt_cached_tokens
        summary.llm_completion_tokens += metrics.completion_tokens
        summary.llm_cache_creation_tokens += metrics.cache_creation_tokens
        summary.llm_reasoning_tokens += metrics.reasoning_tokens
        summary.estimated = summary.estimated or metrics.estimated
    else:
        summary.llm_prompt_tokens += metrics.input_tokens
        summary.llm_prompt_cached_tokens += metrics.input_token_details.cached_tokens
        summary.llm_input_audio_tokens += metrics.input_token_details.audio_tokens
        summary.llm_completion_tokens += metrics.output_tokens
        summary.llm_output_audio_tokens += metrics.output_token_details.audio_tokens
    summary.llm_requests += 1
    if metrics.cost is not None:
        summary.cost = (summary.cost or 0.0) + metrics.cost
    elif metrics.total_tokens:
        summary.unpriced += 1
