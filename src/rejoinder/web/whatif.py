"""Replays recorded runs under other policies, by `rejoinder.testing.simulate_policy`."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from rejoinder._core.budget import TurnBudget
from rejoinder._core.hedge import Hedge
from rejoinder.testing import SimulatedModel, simulate_policy
from rejoinder.web.team import PolicyChoice

__all__ = ["Seen", "compare", "seen_in"]

_TIMES: Final = 100


@dataclass(slots=True)
class Seen:
    """The attempts with one model.

    Attributes:
        latencies: seconds to the first output of the attempts with output.
        silent: number of attempts without output until they were stopped.
        failed: number of attempts that failed before the first output.
        cut: number of attempts that failed after it.
    """

    latencies: list[float] = field(default_factory=list[float])
    silent: int = 0
    failed: int = 0
    cut: int = 0

    @property
    def attempts(self) -> int:
        """The number of all attempts."""
        return len(self.latencies) + self.silent + self.failed

    def model(self) -> SimulatedModel:
        """A simulated model that behaves like these attempts."""
        total = self.attempts
        answered = total - self.failed
        return SimulatedModel(
            latency=self.latencies or [math.inf],
            errors=self.failed / total,
            stalls=0.0 if not answered else self.silent / answered,
            cuts=0.0 if not self.latencies else self.cut / len(self.latencies),
        )


def seen_in(timelines: Iterable[Sequence[Mapping[str, Any]]]) -> dict[str, Seen]:
    """The attempts in `timelines`, by the name of the model."""
    found: dict[str, Seen] = {}
    for events in timelines:
        for number, begin in _attempts(events).items():
            own = [event for event in events if event["part"] == number]
            useful = next((event["t"] for event in own if event["kind"] == "useful"), None)
            end = next((event for event in own if event["kind"] == "end"), None)
            failed = end is not None and end["outcome"] == "failed"
            seen = found.setdefault(begin["model"], Seen())
            if useful is not None:
                seen.latencies.append(max(useful - begin["t"], 0.001))
                seen.cut += failed
            elif failed and not _timed_out(end):
                seen.failed += 1
            else:
                seen.silent += 1
    return found


def _attempts(events: Sequence[Mapping[str, Any]]) -> dict[int, Mapping[str, Any]]:
    return {
        event["part"]: event
        for event in events
        if event["kind"] == "begin" and event["what"] == "attempt"
    }


def _timed_out(end: Mapping[str, Any] | None) -> bool:
    return end is not None and "within" in str(end.get("error"))


def compare(
    names: Sequence[str],
    one: Mapping[str, Seen],
    rest: Mapping[str, Seen],
    policies: Sequence[PolicyChoice],
    *,
    assumed: float = 1.0,
) -> dict[str, Any]:
    """The time that a turn would have taken under each policy.

    Args:
        names: the models' names in the timelines, in the order of the team.
        one: the attempts of this turn.
        rest: the attempts of all turns, for models that this turn did not ask.
        policies: the policies to compare.
        assumed: seconds to the first output of a model that was never asked.
    """
    models: list[SimulatedModel] = []
    found: list[dict[str, Any]] = []
    for name in names:
        seen, source = one.get(name), "this turn"
        if seen is None or not seen.attempts:
            seen, source = rest.get(name), "other turns"
        if seen is None or not seen.attempts:
            seen, source = Seen([assumed]), "assumed"
        models.append(seen.model())
        middle = statistics.median(seen.latencies) if seen.latencies else None
        found.append({"model": name, "source": source, "median": middle, "silent": seen.silent,
                     "failed": seen.failed, "cut": seen.cut})  # fmt: skip
    return {"models": found, "policies": [_result(models, policy) for policy in policies]}


def _result(models: list[SimulatedModel], policy: PolicyChoice) -> dict[str, Any]:
    """The turn under one policy, repeated; the models have no history at the beginning of each."""
    reports = [
        simulate_policy(
            models,
            turns=1,
            attempt_timeout=policy.attempt_timeout,
            hedge=None if policy.hedge is None else Hedge(delay=policy.hedge, max_share=1.0),
            budget=TurnBudget(first_token_by=policy.first_token_by),
            on_cut=policy.on_cut,
            seed=seed,
        )
        for seed in range(_TIMES)
    ]
    waits = sorted(report.ttft_p50 for report in reports if not report.unanswered)
    longest = max(report.longest for report in reports)
    return {
        "policy": asdict(policy),
        "first_word": statistics.median(waits) if waits else None,
        "longest": longest if math.isfinite(longest) else None,
        "unanswered": sum(report.unanswered for report in reports) / _TIMES,
        "requests": statistics.mean(report.requests for report in reports),
    }
