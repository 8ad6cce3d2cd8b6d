"""Who rests, for how long, and when a probe may go out, as tables."""

from __future__ import annotations

import math
from typing import Any

import pytest

from rejoinder._core.breaker import (
    HEALTHY,
    BreakerOptions,
    Health,
    Verdict,
    after_failure,
    after_success,
    judge,
    may_probe,
    preference,
    probe_given_up,
    probing,
)
from rejoinder.errors import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    ConfigurationError,
    EmptyResponseError,
    RefusalError,
    WireError,
)


def status(code: int, rest: float | None = None) -> APIStatusError:
    error = APIStatusError("x", status_code=code)
    error.retry_after = rest
    return error


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (status(400), Verdict(trips=False)),
        (status(413), Verdict(trips=False)),
        (status(422), Verdict(trips=False)),
        (ConfigurationError("x"), Verdict(trips=False)),
        (RefusalError("x"), Verdict(trips=False, final=True)),
        (RefusalError("x", status_code=400), Verdict(trips=False, final=True)),
        (EmptyResponseError("x"), Verdict(trips=False, empty=True)),
        (status(401), Verdict(trips=True)),
        (status(404), Verdict(trips=True)),
        (status(429), Verdict(trips=True)),
        (status(429, 30.0), Verdict(trips=True, rest=30.0)),
        (status(503), Verdict(trips=True)),
        (APITimeoutError(), Verdict(trips=True)),
        (APIConnectionError(), Verdict(trips=True)),
        (WireError("x"), Verdict(trips=True)),
        (KeyError("x"), Verdict(trips=True)),
    ],
)
def test_whose_fault_it_is(error: Exception, verdict: Verdict) -> None:
    assert judge(error) == verdict


OPTIONS = BreakerOptions(cooldown=1, factor=2, max_cooldown=10, jitter=0.5, probe_timeout=7)


def opened(until: float, failures: int) -> Health:
    return Health("open", until, failures, "r", 100)


@pytest.mark.parametrize(
    ("health", "verdict", "jitter", "after"),
    [
        (HEALTHY, Verdict(trips=False), 0.0, HEALTHY),
        (HEALTHY, Verdict(trips=True), 0.0, opened(101, 1)),
        (HEALTHY, Verdict(trips=True), 0.5, opened(101.25, 1)),
        (HEALTHY, Verdict(trips=True, rest=30), 0.0, opened(130, 1)),
        # "Try again after 0 s" must not make every turn a probe.
        (HEALTHY, Verdict(trips=True, rest=0.0), 0.0, opened(101, 1)),
        (Health("open", 90, 1, "", 89), Verdict(trips=True), 0.0, opened(102, 2)),
        (Health("half_open", 105, 3, "", 98), Verdict(trips=True), 0.0, opened(108, 4)),
        (Health("half_open", 105, 99, "", 98), Verdict(trips=True), 0.0, opened(110, 100)),
        (Health("half_open", 105, 5000, "", 98), Verdict(trips=True), 0.0, opened(110, 5001)),
        # One outage counts once, however many turns notice it.
        (
            Health("open", 101, 1, "old", 99),
            Verdict(trips=True),
            0.0,
            Health("open", 101, 1, "old", 99),
        ),
        # But a provider that says how long it takes is believed.
        (
            Health("open", 101, 1, "old", 99),
            Verdict(trips=True, rest=30),
            0.0,
            Health("open", 130, 1, "r", 99),
        ),
        (
            Health("open", 140, 1, "old", 99),
            Verdict(trips=True, rest=30),
            0.0,
            Health("open", 140, 1, "old", 99),
        ),
        # The clock was set back by an hour: what is written no longer means anything.
        (Health("open", 3702, 1, "", 3700), Verdict(trips=True), 0.0, opened(102, 2)),
    ],
)
def test_rest_after_a_failure(
    health: Health, verdict: Verdict, jitter: float, after: Health
) -> None:
    assert (
        after_failure(health, verdict, reason="r", now=100, jitter=jitter, options=OPTIONS) == after
    )


def test_news_from_before_the_model_came_back_are_no_news() -> None:
    back = Health("closed", since=100)

    def fails(health: Health, started: float) -> Health:
        return after_failure(
            health,
            Verdict(trips=True),
            reason="r",
            now=103,
            jitter=0,
            options=OPTIONS,
            started=started,
        )

    assert fails(back, started=98) == back  # asked while it was down, timed out just now
    assert fails(back, started=101).state == "open"
    assert fails(HEALTHY, started=98).state == "open"
    ahead = Health("closed", since=9000)  # the clock was set back since then
    assert fails(ahead, started=98).state == "open"


@pytest.mark.parametrize(
    ("health", "started", "probe", "after"),
    [
        (HEALTHY, 90, False, HEALTHY),
        (Health("open", 101, 2, "r", 95), 96, False, Health("closed", since=100)),
        # A long reply that began before the outage proves nothing.
        (Health("open", 101, 2, "r", 95), 94, False, Health("open", 101, 2, "r", 95)),
        (Health("half_open", 101, 2, "r", 95), 94, False, Health("half_open", 101, 2, "r", 95)),
        # A probe closes the breaker; only a true answer makes the failures forgotten.
        (Health("half_open", 101, 2, "r", 95), 99, True, Health("closed", 0, 2, "", 100)),
        (Health("closed", 0, 2, "", 95), 99, True, Health("closed", 0, 2, "", 95)),
        (Health("closed", 0, 2, "", 95), 99, False, Health("closed", 0, 0, "", 95)),
        # The call was made before the clock was set back: it may be older than the outage.
        (Health("open", 101, 2, "r", 99), 5000, False, Health("open", 101, 2, "r", 99)),
        # The clock was set back.
        (Health("open", 9001, 2, "r", 9000), 99, False, Health("closed", since=100)),
    ],
)
def test_after_an_answer(health: Health, started: float, probe: bool, after: Health) -> None:
    assert after_success(health, started=started, now=100, probe=probe) == after


def test_a_model_that_only_answers_probes_rests_longer_each_time() -> None:
    health, now, rests = HEALTHY, 0.0, []
    for _ in range(6):
        health = after_failure(
            health, Verdict(trips=True), reason="r", now=now, jitter=0, options=OPTIONS, started=now
        )
        rests.append(health.until - now)
        now = health.until
        health = probing(health, now, OPTIONS)
        health = after_success(health, started=now, now=now, probe=True)
        assert health.available
    assert rests == [1, 2, 4, 8, 10, 10]


@pytest.mark.parametrize(
    ("health", "may"),
    [
        (HEALTHY, False),
        (Health("open", 101), False),
        (Health("open", 100), True),
        (Health("half_open", 101), False),
        (Health("half_open", 100), True),  # whoever held the probe is gone
        (Health("open", 9000, since=8999), True),  # the clock was set back
        (Health("closed", since=8999), False),
    ],
)
def test_when_a_probe_may_go_out(health: Health, may: bool) -> None:
    assert may_probe(health, 100) is may
    held = probing(health, 100, OPTIONS)
    assert (held.state, held.until) == ("half_open", 107)
    assert not may_probe(held, 106.9)


def test_available_models_come_first_then_those_that_failed_less() -> None:
    healths = [Health("open", 5, 3), HEALTHY, Health("half_open", 5, 1), Health("closed", 0, 2)]
    assert sorted(range(4), key=lambda i: preference(healths[i])) == [1, 3, 2, 0]


def test_a_probe_that_is_given_up_leaves_the_place_to_another() -> None:
    held = Health("half_open", 107, 1, "r", 95)
    assert may_probe(probe_given_up(held, 100), 100)
    for other in (HEALTHY, Health("open", 107, 1, "r", 95)):
        assert probe_given_up(other, 100) == other


@pytest.mark.parametrize(
    ("error", "lapse", "trips"),
    [
        (APIConnectionError("reset"), 0.0, True),
        (APIConnectionError("reset"), 0.9, True),
        (APIConnectionError("reset"), 3.0, False),
        (APITimeoutError("late"), 3.0, False),
        (APIStatusError("x", status_code=503), 3.0, True),
        (KeyError("x"), 3.0, True),
    ],
)
def test_what_happens_to_a_connection_while_the_process_stands_still_is_no_fault_of_the_model(
    error: Exception, lapse: float, trips: bool
) -> None:
    assert judge(error, lapse=lapse).trips is trips


@pytest.mark.parametrize("rest", [math.inf, math.nan, -1.0, "soon", True])
def test_a_pause_that_is_none_is_ignored(rest: Any) -> None:
    verdict = judge(status(429, rest))
    assert verdict.trips
    assert verdict.rest in (None, 1)


def test_no_model_rests_for_ever_whatever_it_is_asked_for() -> None:
    for rest in (1e9, 1e300):
        health = after_failure(
            HEALTHY,
            Verdict(trips=True, rest=rest),
            reason="r",
            now=100,
            jitter=0.5,
            options=OPTIONS,
        )
        assert health.until - 100 <= 3600 * 1.5
    many = Health("open", 90, 10**9, "", 89)
    health = after_failure(
        many, Verdict(trips=True), reason="r", now=100, jitter=0, options=OPTIONS
    )
    assert health.failures <= 10**6


GOOD = {"state": "open", "until": 105.0, "failures": 2, "reason": "x", "since": 100.0}


def test_what_another_process_wrote_is_read_and_fields_of_later_versions_are_ignored() -> None:
    assert Health.of(GOOD) == Health("open", 105, 2, "x", 100)
    assert Health.of({**GOOD, "colour": "red", "weights": [1]}) == Health("open", 105, 2, "x", 100)


@pytest.mark.parametrize(
    "wrong",
    [
        {"state": "melted"},
        {"state": None},
        {"until": "soon"},
        {"until": math.nan},
        {"until": math.inf},
        {"since": -math.inf},
        {"failures": -1},
        {"failures": 1.5},
        {"reason": None},
        {"reason": ["x"]},
    ],
    ids=str,
)
def test_what_no_version_writes_is_refused(wrong: dict[str, Any]) -> None:
    assert Health.of({**GOOD, **wrong}) is None
    assert Health.of({key: value for key, value in GOOD.items() if key not in wrong}) is None


def test_numbers_and_texts_from_others_are_bounded() -> None:
    health = Health.of({**GOOD, "until": 1e18, "failures": 10**20, "reason": "a\x1b[2J\n" * 99})
    assert health is not None
    assert health.until <= 100 + 2 * 3600
    assert health.failures <= 10**6
    assert len(health.reason) <= 80
    assert health.reason.isprintable()
    ahead = Health.of({**GOOD, "since": 1e18, "until": 1e18 + 5})
    assert ahead is not None
    assert may_probe(ahead, 100)


@pytest.mark.parametrize("name", ["cooldown", "max_cooldown", "jitter", "probe_timeout", "factor"])
def test_bad_breaker_options_are_refused_by_name(name: str) -> None:
    for bad, error in (
        (-1, ValueError),
        (math.nan, ValueError),
        ("1", TypeError),
        (True, TypeError),
    ):
        with pytest.raises(error, match=f"^BreakerOptions.{name}: expected "):
            BreakerOptions(**{name: bad})  # type: ignore[arg-type]
