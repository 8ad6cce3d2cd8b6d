"""The events of a run and their times, as plain data for a page. Pure, except for the given clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from rejoinder.errors import APIError, APIStatusError, ConfigurationError
from rejoinder.metrics import LLMMetrics
from rejoinder.store import StoreError
from rejoinder.testing.recording import Exchange
from rejoinder.web.agui import InputError

__all__ = ["Timeline", "reason_of"]

_MOST: Final = 20_000
"""Maximum number of events kept for one run."""
_JOINED: Final = 0.1
"""Seconds within which pieces of text count as one event."""


@dataclass(slots=True)
class Timeline:
    """The events of one run.

    Attributes:
        now: returns seconds of a monotonic clock.
        took: called with each event.
        events: ``{"t": seconds since the start, "part": number, "kind": ..., facts}``.
        exchanges: the traffic with providers, without secrets.
        metrics: the metrics of each request.
        invented: a server of this page answered a request that would otherwise have a price. So the
            cost of the request, and that of the turn, is unknown.
    """

    now: Callable[[], float]
    took: Callable[[dict[str, Any]], None] = lambda event: None
    events: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    exchanges: list[Exchange] = field(default_factory=list[Exchange])
    metrics: list[LLMMetrics] = field(default_factory=list[LLMMetrics])
    started: float = 0.0
    invented: bool = False
    _latest: dict[int, int] = field(default_factory=dict[int, int])
    """The last part that has begun inside another one."""
    _answered_here: set[int] = field(default_factory=set[int])

    def __post_init__(self) -> None:
        self.started = self.now()

    def watch(self, part: int, kind: str, facts: Mapping[str, Any]) -> None:
        """A `rejoinder._watch.Watcher`."""
        if kind == "exchange":
            self.exchanges.append(facts["exchange"])
            return
        if kind == "invented":
            self._answered_here.add(part)
            return
        if kind == "begin":
            self._latest[facts["inside"]] = part
        if kind == "metrics":
            metrics: LLMMetrics = facts["metrics"]
            if metrics.cost is not None and self._latest.get(part) in self._answered_here:
                metrics = metrics.model_copy(update={"cost": None})
                self.invented = True
            self.metrics.append(metrics)
            facts = _numbers(metrics)
        self.add(part, kind, **{name: _plain(value) for name, value in facts.items()})

    def text(self, kind: str, size: int) -> float:
        """Count a piece of text that arrives now. Does not call `took`. Returns its time."""
        t = round(self.now() - self.started, 4)
        last = self.events[-1] if self.events else None
        if last is not None and last["kind"] == kind and t - last["t"] < _JOINED:
            last["size"] += size
            last["until"] = t
        elif len(self.events) < _MOST:
            self.events.append({"t": t, "part": 0, "kind": kind, "size": size, "until": t})
        return t

    def add(self, part: int, kind: str, **facts: Any) -> None:
        """Add an event that happens now."""
        if len(self.events) >= _MOST:
            return
        event = {"t": round(self.now() - self.started, 4), "part": part, "kind": kind, **facts}
        self.events.append(event)
        self.took(event)


def _numbers(metrics: LLMMetrics) -> dict[str, Any]:
    names = metrics.metadata
    return {
        "model": None if names is None else names.model_name,
        "ttft": metrics.ttft,
        "duration": metrics.duration,
        "prompt": metrics.prompt_tokens,
        "cached": metrics.prompt_cached_tokens,
        "completion": metrics.completion_tokens,
        "reasoning": metrics.reasoning_tokens,
        "speed": metrics.tokens_per_second,
        "estimated": metrics.estimated,
        "cost": metrics.cost,
        "purpose": metrics.purpose,
        "cancelled": metrics.cancelled,
    }


def _plain(value: Any) -> Any:
    if isinstance(value, BaseException):
        return reason_of(value)
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def reason_of(error: BaseException) -> str:
    """An error as one sentence for a page."""
    if isinstance(error, APIStatusError) and error.status_code > 0:
        return f"{error.status_code}: {error.message}"
    if isinstance(error, APIError):
        return error.message
    if isinstance(error, ConfigurationError | StoreError | InputError):
        return str(error)
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
