"""The decisions of one call as tables: retry, deadlines, meter."""

from __future__ import annotations

import email.utils
import math
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder._core.chunks import ChatChunk, ChoiceDelta, CompletionUsage, FunctionToolCall
from rejoinder._core.deadlines import Deadlines
from rejoinder._core.items import (
    AgentHandoff,
    ChatMessage,
    FunctionCall,
    FunctionCallOutput,
    ImageContent,
)
from rejoinder._core.meter import Meter
from rejoinder._core.retry import Decision, GiveUp, Wait, after, retry_after_seconds
from rejoinder.errors import APIError, APIStatusError
from rejoinder.metrics import Metadata
from rejoinder.types import APIConnectOptions


def asking(seconds: float) -> APIError:
    error = APIStatusError("busy", status_code=429)
    error.retry_after = seconds
    return error


@pytest.mark.parametrize(
    ("attempt", "error", "more", "decision"),
    [
        (0, APIError("x"), {}, Wait(0.1)),
        (1, APIError("x"), {}, Wait(2.0)),
        (2, APIError("x"), {}, Wait(2.0)),
        (3, APIError("x"), {}, GiveUp("no attempts left")),
        (0, APIError("x", retryable=False), {}, GiveUp("not retryable")),
        (0, APIStatusError("x", status_code=400), {}, GiveUp("not retryable")),
        (0, APIError("x"), {"committed": True}, GiveUp("committed")),
        (0, APIError("x"), {"deadline": 100.05}, GiveUp("no time left")),
        (0, APIError("x"), {"deadline": 100.2}, Wait(0.1)),
        (0, asking(5), {}, Wait(5)),
        (0, asking(0), {}, Wait(0)),
        (0, asking(10), {}, Wait(10)),
        (0, asking(10.1), {}, GiveUp("no time left")),
        (0, asking(5), {"deadline": 104.0}, GiveUp("no time left")),
        (3, asking(1), {}, GiveUp("no attempts left")),
        (1, APIError("x"), {"jitter": 0.5}, Wait(2.25)),
        (0, asking(4), {"jitter": 0.4}, Wait(4.1)),
    ],
)
def test_after_a_failure(
    attempt: int, error: APIError, more: dict[str, Any], decision: Decision
) -> None:
    given_ = {"committed": False, "now": 100.0, "deadline": None, "jitter": 0.0} | more
    assert after(attempt, error, options=APIConnectOptions(), **given_) == decision


NOW = 1_700_000_000.0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7),
        ({"retry-after": " 0.25 "}, 0.25),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after-ms": "1500", "retry-after": "60"}, 1.5),
        ({"retry-after-ms": "soon", "retry-after": "60"}, 60),
        ({"retry-after": email.utils.formatdate(NOW + 30, usegmt=True)}, 30),
        ({"retry-after": email.utils.formatdate(NOW - 30, usegmt=True)}, 0),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "a while"}, None),
        ({"retry-after": ""}, None),
    ],
)
def test_retry_after_in_all_forms(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_seconds(headers, NOW) == seconds


@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo"])
@pytest.mark.parametrize(
    "form", ["%a, %d %b %Y %H:%M:%S -0000", "%a %b %d %H:%M:%S %Y", "%A, %d-%b-%y %H:%M:%S GMT"]
)
def test_old_forms_of_a_date_are_utc_wherever_we_are(
    form: str, zone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = time.strftime(form, time.gmtime(NOW + 30))
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        assert retry_after_seconds({"retry-after": text}, NOW) == 30
    finally:
        monkeypatch.undo()
        time.tzset()


@given(st.text())
def test_retry_after_never_fails(value: str) -> None:
    seconds = retry_after_seconds({"retry-after": value, "retry-after-ms": value}, NOW)
    assert seconds is None or 0 <= seconds < math.inf


LIMITS = Deadlines(first_output=10, between_outputs=4, total=30)


@pytest.mark.parametrize(
    ("progress", "attempt", "paused", "at", "limit"),
    [
        (None, 0, False, 10, "first output"),
        (None, 25, False, 30, "whole reply"),
        (5.0, 0, False, 9, "next output"),
        (29.0, 0, False, 30, "whole reply"),
        (5.0, 0, True, 30, "whole reply"),
    ],
)
def test_the_limit_that_comes_first(
    progress: float | None, attempt: float, paused: bool, at: float, limit: str
) -> None:
    due = LIMITS.due(started_at=0, attempt_at=attempt, progress_at=progress, paused=paused)
    assert (due.at, due.limit) == (at, limit)
    assert f"{due.seconds:g} s" in str(due)


def test_limits_come_from_the_options() -> None:
    assert Deadlines.of(APIConnectOptions(timeout=7)) == Deadlines(7, 7, math.inf)
    assert Deadlines.of(APIConnectOptions(timeout=0, total=9)) == Deadlines(math.inf, math.inf, 9)


def chunk(**delta: Any) -> ChatChunk:
    return ChatChunk(id="r", delta=ChoiceDelta(**delta))


@pytest.mark.parametrize(
    ("chunk", "committed", "progress"),
    [
        (chunk(content="a"), True, True),
        (chunk(content=""), False, False),
        (chunk(role="assistant"), False, False),
        (chunk(thinking="a"), False, True),
        (chunk(extra={"x": 1}), False, False),
        (chunk(tool_calls=[FunctionToolCall(name="f", arguments="", call_id="c")]), True, True),
        (ChatChunk(id="r"), False, False),
        (
            ChatChunk(
                id="r",
                usage=CompletionUsage(completion_tokens=1, prompt_tokens=1, total_tokens=2),
            ),
            False,
            False,
        ),
    ],
)
def test_what_counts_as_said_and_as_progress(
    chunk: ChatChunk, committed: bool, progress: bool
) -> None:
    meter = Meter()
    meter.feed(chunk, 5.0)
    assert meter.committed is committed
    assert meter.progress_at == (5.0 if progress else None)
    assert meter.first_token_at == (5.0 if committed else None)


def test_estimates_only_where_a_reply_was_cut() -> None:
    def report(meter: Meter, **how: bool) -> Any:
        outcome = {"cancelled": False, "failed": False} | how
        return meter.report(
            label="l",
            metadata=Metadata(),
            timestamp=1.0,
            started_at=0.0,
            now=2.0,
            prompt=[ChatMessage(role="user", content=["x" * 40])],
            **outcome,
        )

    meter = Meter()
    meter.feed(chunk(content="y"), 1.0)
    whole = report(meter)
    assert (whole.estimated, whole.total_tokens) == (False, 0)
    for how in ("cancelled", "failed"):
        cut = report(meter, **{how: True})
        assert (cut.estimated, cut.prompt_tokens, cut.completion_tokens) == (True, 14, 1)
    meter.feed(
        ChatChunk(
            id="r", usage=CompletionUsage(completion_tokens=3, prompt_tokens=4, total_tokens=7)
        ),
        1.5,
    )
    told = report(meter, cancelled=True)
    assert (told.estimated, told.total_tokens, told.tokens_per_second) == (False, 7, 1.5)
    # Some count again and again on the way.
    meter.feed(chunk(content="y" * 19), 1.6)
    more = report(meter, cancelled=True)
    assert (more.estimated, more.prompt_tokens, more.completion_tokens) == (True, 4, 5)
    assert more.total_tokens == 9
    assert not report(meter).estimated


def test_estimates_follow_the_script_and_the_kind() -> None:
    meter = Meter()
    meter.feed(chunk(content="漢" * 8), 1.0)
    meter.feed(chunk(thinking="x" * 8), 1.0)
    call = FunctionToolCall(name="ab", arguments="{}", call_id="c")
    meter.feed(chunk(tool_calls=[call]), 1.0)
    metrics = meter.report(
        label="l",
        metadata=Metadata(),
        timestamp=1.0,
        started_at=0.0,
        now=2.0,
        cancelled=True,
        failed=False,
        prompt=[
            ChatMessage(role="user", content=["x" * 8, ImageContent(image="https://x/y.png")]),
            FunctionCall(call_id="c", name="ab", arguments="{}"),
            FunctionCallOutput(call_id="c", output="x" * 3, is_error=False),
            AgentHandoff(new_agent_id="b"),
        ],
    )
    assert metrics.completion_tokens == (24 + 8 + 4) // 4
    assert metrics.prompt_tokens == (4 + 2 + 1000) + (4 + 1 + 1) + (4 + 1)
