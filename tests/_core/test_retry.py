"""After a failure: again, when, or not at all; and ``Retry-After`` in all its forms."""

from __future__ import annotations

import email.utils
import math
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder._core.retry import Decision, GiveUp, Wait, after, retry_after_seconds
from rejoinder.errors import APIError, APIStatusError
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
        # The clock here is a day behind, or ahead: the server's own time counts.
        (
            {
                "retry-after": email.utils.formatdate(NOW + 86_407, usegmt=True),
                "date": email.utils.formatdate(NOW + 86_400, usegmt=True),
            },
            7,
        ),
        (
            {
                "retry-after": email.utils.formatdate(NOW - 86_393, usegmt=True),
                "date": email.utils.formatdate(NOW - 86_400, usegmt=True),
            },
            7,
        ),
        (
            {
                "retry-after": email.utils.formatdate(NOW + 30, usegmt=True),
                "date": "today",
            },
            30,
        ),
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
