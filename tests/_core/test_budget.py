"""What the settings of a fallback, and the options of a call, mean for the turn."""

from __future__ import annotations

import math
from typing import Any

import pytest

from rejoinder._core.budget import Policy, TurnBudget
from rejoinder.types import APIConnectOptions

CALL = APIConnectOptions(max_retry=0)


@pytest.mark.parametrize(
    ("policy", "call", "expected"),
    [
        ({}, {}, {"attempt": 5, "next_token": 5, "first_token_by": math.inf}),
        ({"attempt_timeout": 0}, {}, {"attempt": math.inf, "next_token": math.inf}),
        # The stricter one counts; 0 has never meant "at once".
        ({"budget": TurnBudget(first_token_by=3)}, {"first_output": 2}, {"first_token_by": 2}),
        ({"budget": TurnBudget(first_token_by=3)}, {"first_output": 4}, {"first_token_by": 3}),
        ({"budget": TurnBudget(first_token_by=3)}, {"first_output": 0}, {"first_token_by": 3}),
        ({}, {"between_outputs": 2}, {"next_token": 2}),
        ({"budget": TurnBudget(next_token_within=1)}, {"between_outputs": 2}, {"next_token": 1}),
        ({"budget": TurnBudget(next_token_within=0)}, {}, {"next_token": math.inf}),
        ({"budget": TurnBudget(max_extra_tokens=7)}, {}, {"max_extra_tokens": 7}),
        ({}, {}, {"max_extra_tokens": math.inf}),
        # With retries of its own a model has that much longer, pauses included.
        ({"attempt_timeout": 2, "max_retry_per_llm": 1}, {}, {"attempt": 4.125}),
        (
            {"attempt_timeout": 2, "max_retry_per_llm": 3, "retry_interval": 1},
            {},
            {"attempt": 8 + 1.25 * 2.1},
        ),
    ],
)
def test_limits(policy: dict[str, Any], call: dict[str, Any], expected: dict[str, float]) -> None:
    settings = Policy(**policy).settings(APIConnectOptions(0, **call))
    assert {name: getattr(settings.limits, name) for name in expected} == pytest.approx(expected)


def test_each_model_gets_the_options_of_the_adapter() -> None:
    policy = Policy(attempt_timeout=3, max_retry_per_llm=2, retry_interval=0.1)
    call = APIConnectOptions(5, timeout=9, connect=1, first_output=4, total=20)
    child = policy.settings(call).child
    assert (child.max_retry, child.timeout, child.retry_interval) == (2, 3, 0.1)
    assert (child.connect, child.first_output, child.total) == (1, None, None)


@pytest.mark.parametrize(
    ("done_by", "total", "expected"), [(None, None, None), (9, None, 9), (None, 8, 8), (9, 8, 8)]
)
def test_the_end_of_the_turn(
    done_by: float | None, total: float | None, expected: float | None
) -> None:
    policy = Policy(budget=TurnBudget(done_by=done_by))
    own = policy.settings(APIConnectOptions(3, total=total)).own
    assert (own.total, own.max_retry) == (expected, 3)
    assert own.first_output_timeout == own.between_outputs_timeout == math.inf


def test_what_follows_a_cut() -> None:
    assert Policy().when_cut == "stop"
    assert Policy(retry_on_chunk_sent=True).when_cut == "append"
    assert Policy(retry_on_chunk_sent=True, on_cut="resume").when_cut == "resume"
