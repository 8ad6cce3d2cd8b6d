"""Emits the metrics of each reply once its token counts are known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel

from rejoinder import _stamps
from rejoinder._core.realtime.messages import ReplyStatus, Usage, UsageReported
from rejoinder.llm.realtime import RealtimeModel
from rejoinder.metrics import Metadata, RealtimeModelMetrics, STTMetrics
from rejoinder.providers.sessions.costs import cost_of_reply
from rejoinder.providers.sessions.streams import Reply, connection_metrics, usage_metrics

__all__ = ["Bills", "added", "with_usage"]

T = TypeVar("T", bound=BaseModel)


def with_usage(metrics: RealtimeModelMetrics, usage: Usage) -> RealtimeModelMetrics:
    """`metrics` with these tokens."""
    duration = metrics.duration
    update: dict[str, Any] = {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        "tokens_per_second": usage.output_tokens / duration if duration > 0 else 0.0,
        "input_token_details": usage.input_details,
        "output_token_details": usage.output_details,
        "cost": cost_of_reply(metrics.metadata, usage, metrics.timestamp),
    }
    return metrics.model_copy(update=update)


def added(one: Usage, other: Usage) -> Usage:
    """The tokens of both."""
    given, made = RealtimeModelMetrics.InputTokenDetails, RealtimeModelMetrics.OutputTokenDetails
    return Usage(
        input_tokens=one.input_tokens + other.input_tokens,
        output_tokens=one.output_tokens + other.output_tokens,
        total_tokens=one.total_tokens + other.total_tokens,
        input_details=_sum(given, one.input_details, other.input_details),
        output_details=_sum(made, one.output_details, other.output_details),
        seconds=one.seconds + other.seconds,
    )


def _sum(kind: type[T], one: T, other: T) -> T:
    counts = {
        name: value + getattr(other, name)
        for name, value in one.model_dump().items()
        if isinstance(value, int)
    }
    return kind.model_validate(counts)


class Bills:
    """Holds the metrics of a reply until its tokens arrive: some services report them after its
    end.

    Args:
        model: the model of the session.
        emit: called with each metrics object.
    """

    def __init__(
        self, model: RealtimeModel, emit: Callable[[RealtimeModelMetrics | STTMetrics], None]
    ) -> None:
        self._model = model
        self._label = model.label
        self._emit = emit
        self._last: RealtimeModelMetrics | None = None
        self._waits = False

    def names(self) -> Metadata:
        """The names of the model and its provider, which may change with its options."""
        return Metadata(model_name=self._model.model, model_provider=self._model.provider)

    def ended(self, reply: Reply, status: ReplyStatus, *, usage_follows: bool) -> None:
        """A reply is over. `usage_follows`: its tokens are not known yet."""
        self.flush()
        metrics = reply.metrics(self._label, self.names(), status)
        self._last = metrics
        self._waits = usage_follows
        if not usage_follows:
            self._emit(metrics)

    def reported(self, event: UsageReported) -> None:
        """Tokens were reported, either for the last reply, if it waits for them, or for others."""
        last = self._last
        if last is not None and self._waits and last.request_id == event.reply_id:
            self._waits = False
            self._emit(with_usage(last, event.usage))
        else:
            self._emit(usage_metrics(self._label, self.names(), event))

    def connected(self, acquire_time: float) -> None:
        """A connection was opened, which took `acquire_time` seconds and costs no tokens."""
        self._emit(connection_metrics(self._label, self.names(), acquire_time))

    def transcribed(self, item_id: str, usage: Mapping[str, Any]) -> None:
        """Emit the metrics of a transcription, which is billed separately, in tokens or in seconds
        of sound."""
        self._emit(
            STTMetrics(
                label=self._label,
                request_id=item_id,
                timestamp=_stamps.wall_now(),
                audio_duration=_number(usage, "seconds"),
                input_tokens=int(_number(usage, "input_tokens")),
                output_tokens=int(_number(usage, "output_tokens")),
                streamed=True,
                metadata=self.names(),
            )
        )

    def flush(self) -> None:
        """No more tokens will be reported: emit the waiting metrics without them."""
        if self._waits and self._last is not None:
            self._emit(self._last)
        self._waits = False


def _number(usage: Mapping[str, Any], name: str) -> float:
    value = usage.get(name)
    return value if isinstance(value, int | float) and value > 0 else 0
