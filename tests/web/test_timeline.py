"""The timeline of a run, and what it makes of errors."""

from __future__ import annotations

import pytest

from rejoinder.errors import APIConnectionError, APIStatusError, ConfigurationError
from rejoinder.web.timeline import Timeline, reason_of


def test_pieces_of_text_that_come_together_are_one_event() -> None:
    clock = [10.0]
    told: list[str] = []
    timeline = Timeline(lambda: clock[0], lambda event: told.append(event["kind"]))
    for clock[0] in (10.0, 10.05, 10.09, 10.2, 11.0):
        timeline.text("text", 3)
    timeline.add(0, "tool", call="c", name="f")
    timeline.text("text", 3)
    texts = [(e["t"], e["until"], e["size"]) for e in timeline.events if e["kind"] == "text"]
    assert texts == [(0.0, 0.09, 9), (0.2, 0.2, 3), (1.0, 1.0, 3), (1.0, 1.0, 3)]
    assert told == ["tool"]


def test_a_timeline_has_an_end() -> None:
    timeline = Timeline(lambda: 0.0)
    for _ in range(20_050):
        timeline.add(0, "mark")
    timeline.text("text", 1)
    assert len(timeline.events) == 20_000


def test_what_a_watcher_is_told_becomes_plain_data() -> None:
    timeline = Timeline(lambda: 0.0)
    timeline.watch(3, "end", {"outcome": "failed", "error": APIConnectionError("gone"), "odd": {1}})
    assert timeline.events == [
        {"t": 0.0, "part": 3, "kind": "end", "outcome": "failed", "error": "gone", "odd": "{1}"}
    ]


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (APIStatusError("too many", status_code=429), "429: too many"),
        (APIConnectionError("gone"), "gone"),
        (ConfigurationError("wrong"), "wrong"),
        (KeyError("x"), "KeyError: 'x'"),
        (RuntimeError(), "RuntimeError"),
    ],
)
def test_an_error_is_one_sentence(error: Exception, told: str) -> None:
    assert reason_of(error) == told
