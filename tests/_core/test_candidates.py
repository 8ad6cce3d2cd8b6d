"""Who is tried and who rests, as tables: breaker, turn, hedge, overlap."""

from __future__ import annotations

import math
import random

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder._core.candidates import (
    HEALTHY,
    Action,
    BreakerOptions,
    Cancel,
    Conclude,
    Health,
    Limits,
    Race,
    Start,
    Verdict,
    Win,
    after_failure,
    after_success,
    judge,
    may_probe,
    order,
    probing,
)
from rejoinder._core.hedge import Gate, Hedge, Pace
from rejoinder._core.overlap import Overlap, last_words, whitespace_tail
from rejoinder.errors import (
    APIConnectionError,
    APIError,
    APIStatusError,
    APITimeoutError,
    ConfigurationError,
    EmptyResponseError,
    RefusalError,
    WireError,
)

# -- breaker -------------------------------------------------------------------------------------


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


def test_order() -> None:
    down = Health("open", 5)
    assert order([HEALTHY, down, HEALTHY]) == ([0, 2], False)
    assert order([down, down]) == ([0, 1], True)
    assert order([Health("open", 5, 3), Health("open", 5, 1)]) == ([1, 0], True)


@pytest.mark.parametrize("name", ["cooldown", "max_cooldown", "jitter", "probe_timeout", "factor"])
def test_bad_breaker_options_are_refused_by_name(name: str) -> None:
    with pytest.raises(ValueError, match=f"BreakerOptions.{name}"):
        BreakerOptions(**{name: -1})


# -- one turn ------------------------------------------------------------------------------------


def race(candidates: int = 3, **more: object) -> Race:
    return Race(range(candidates), Limits(attempt=5.0), started_at=0.0, **more)  # type: ignore[arg-type]


def kinds(actions: list[Action]) -> list[str]:
    return [type(action).__name__ for action in actions]


def test_a_good_turn() -> None:
    turn = race()
    assert turn.begin(0) == [Start(0, 0)]
    assert turn.due() == 5
    assert turn.useful(0, 0) == [Win(0)]
    assert turn.due() == math.inf
    assert turn.useful(0, 0) == []
    assert turn.ended(0, None, 3) == [Conclude()]
    assert turn.over


def test_failures_go_through_all_and_then_end() -> None:
    turn = race(2)
    turn.begin(0)
    first, second = APIError("a"), APIError("b")
    assert turn.ended(0, first, 1) == [Start(1, 1)]
    assert turn.ended(1, second, 2) == [Conclude(exhausted=True)]
    assert [failure.error for failure in turn.failures] == [first, second]
    assert not turn.only_empty()


def test_silence_is_a_failure() -> None:
    turn = race(2)
    turn.begin(0)
    assert turn.tick(4.9) == []
    cancel, start = turn.tick(5.0)
    assert isinstance(cancel, Cancel)
    assert not cancel.lost
    assert isinstance(cancel.error, APITimeoutError)
    assert start == Start(1, 1)
    assert turn.ended(0, None, 5.1) == []  # the cancelled one has ended: nothing new
    assert turn.due() == 10


@pytest.mark.parametrize("counts", [True, False])
def test_thinking_counts_unless_told_otherwise(counts: bool) -> None:
    turn = Race(range(1), Limits(attempt=5, thinking_is_progress=counts), started_at=0)
    turn.begin(0)
    turn.progressed(0, 4)
    assert turn.due() == (9 if counts else 5)


def test_a_hedge_runs_beside_the_first() -> None:
    turn = race(3, hedge_delay=1.0)
    turn.begin(0)
    assert turn.due() == 1
    assert turn.tick(1.0) == [Start(1, 1, hedge=True)]
    assert turn.hedged
    assert turn.due() == 5
    assert turn.useful(1, 0) == [Win(1), Cancel(0, lost=True)]
    assert turn.useful(0, 0) == []


def test_a_hedge_that_is_not_allowed_when_its_time_has_come() -> None:
    turn = race(3, hedge_delay=1.0, may_hedge=lambda: False)
    turn.begin(0)
    assert turn.tick(1.0) == []
    assert not turn.hedged
    assert turn.due() == 5


def test_who_lost_a_race_can_be_asked_again_when_the_winner_is_cut() -> None:
    turn = race(3, hedge_delay=1.0)
    turn.begin(0)
    turn.tick(1.0)
    assert turn.useful(0, 2) == [Win(0), Cancel(1, lost=True)]
    assert turn.left == 2
    turn.ended(0, APIConnectionError("cut"), 3)
    assert turn.begin(3) == [Start(2, 1)]
    assert turn.ended(1, None, 3) == []
    assert turn.left == 1


def test_the_winner_may_not_be_silent_for_ever() -> None:
    turn = Race(range(2), Limits(attempt=5, next_token=3), started_at=0)
    turn.begin(0)
    turn.useful(0, 2)
    assert turn.due() == 5
    turn.progressed(0, 4)
    assert turn.tick(5) == []
    assert turn.due() == 7
    cancel, end = turn.tick(7)
    assert isinstance(cancel, Cancel)
    assert isinstance(end, Conclude)
    assert isinstance(end.error, APITimeoutError)
    assert turn.ended(0, None, 8) == []
    assert turn.begin(8) == [Start(1, 1)]


def test_when_the_first_fails_the_hedge_goes_on_alone() -> None:
    turn = race(3, hedge_delay=1.0)
    turn.begin(0)
    turn.tick(1.0)
    assert turn.ended(0, APIError("x"), 2) == []
    assert turn.ended(1, APIError("y"), 3) == [Start(2, 2)]


def test_no_hedge_with_nobody_left_and_none_after_a_failure_took_its_place() -> None:
    alone = race(1, hedge_delay=1.0)
    alone.begin(0)
    assert alone.tick(1.0) == []
    assert not alone.hedged


def test_empty_answers() -> None:
    turn = race(2)
    turn.begin(0)
    assert turn.ended(0, None, 1) == [Start(1, 1)]
    assert turn.ended(1, EmptyResponseError("x"), 2) == [Conclude(exhausted=True)]
    assert turn.only_empty()
    fine = race(2, empty_is_fine=True)
    fine.begin(0)
    assert fine.ended(0, None, 1) == [Conclude()]


def test_a_refusal_ends_the_turn() -> None:
    turn = race(3, hedge_delay=1.0)
    turn.begin(0)
    turn.tick(1.0)
    refusal = RefusalError("no")
    assert turn.ended(0, refusal, 2) == [Cancel(1, lost=True), Conclude(refusal)]


def test_the_first_token_of_the_whole_turn_has_a_limit() -> None:
    turn = Race(range(3), Limits(attempt=5, first_token_by=7), started_at=0)
    turn.begin(0)
    turn.tick(5)
    assert turn.due() == 7
    actions = turn.tick(7)
    assert kinds(actions) == ["Cancel", "Conclude"]
    assert turn.over
    assert turn.tick(8) == []


def test_a_winner_that_is_cut_can_be_followed_by_the_rest() -> None:
    turn = Race(range(3), Limits(attempt=5, first_token_by=7), started_at=0, hedge_delay=1.0)
    turn.begin(0)
    turn.useful(0, 0)
    cut = APIConnectionError("cut")
    assert turn.ended(0, cut, 20) == [Conclude(cut)]
    assert turn.left == 2
    assert turn.begin(20) == [Start(1, 1)]
    assert turn.due() == 25  # neither the hedge nor the limit on the first token counts any more
    assert turn.useful(1, 0) == [Win(1)]


@given(st.integers(0, 2**32), st.integers(1, 4), st.booleans())
def test_any_course_of_events_ends_and_wins_at_most_once(
    seed: int, candidates: int, hedged: bool
) -> None:
    dice = random.Random(seed)
    turn = race(candidates, hedge_delay=1.0 if hedged else None)
    running: set[int] = set()
    started: list[int] = []
    wins = concluded = 0
    now = 0.0

    def do(actions: list[Action]) -> None:
        nonlocal wins, concluded
        for action in actions:
            match action:
                case Start(attempt=attempt, candidate=candidate):
                    running.add(attempt)
                    started.append(candidate)
                case Cancel(attempt=attempt):
                    running.discard(attempt)
                case Win():
                    wins += 1
                case Conclude():
                    concluded += 1

    do(turn.begin(now))
    for _ in range(100):
        if concluded:
            break
        now += dice.random() * 3
        event = dice.choice(["tick", "useful", "ended", "thought"])
        attempt = dice.choice(sorted(running)) if running else 0
        if event == "useful":
            do(turn.useful(attempt, now))
        elif event == "thought":
            turn.progressed(attempt, now)
        elif event == "ended" and attempt in running:
            running.discard(attempt)
            do(turn.ended(attempt, dice.choice([None, APIError("x"), RefusalError("x")]), now))
        else:
            do(turn.tick(now))
        assert len(running) <= 2
    assert concluded == 1 or turn.winner is not None or turn.due() > now
    assert wins <= 1
    assert started == list(range(len(started)))


# -- hedge ---------------------------------------------------------------------------------------


def paced(times: list[float]) -> Pace:
    pace = Pace(window=200)
    for seconds in times:
        pace.add(seconds)
    return pace


def test_the_percentile_is_that_of_ordinary_turns_not_of_stalls() -> None:
    dice = random.Random(1)
    ordinary = [dice.lognormvariate(math.log(0.5), 0.4) for _ in range(200)]
    expected = 0.5 * math.exp(0.4 * 2.054)
    assert paced(ordinary).percentile(0.98) == pytest.approx(expected, rel=0.25)
    stalled = ordinary[:190] + [30.0] * 10
    assert paced(stalled).percentile(0.98) == pytest.approx(expected, rel=0.35)


def test_times_that_do_not_vary_leave_some_room() -> None:
    assert paced([0.4] * 50).percentile(0.98) == pytest.approx(0.5)


def test_when_there_is_a_hedge() -> None:
    quick = paced([0.2] * 50)
    gate = Gate(Hedge(delay=None, min_samples=20))
    assert gate.delay(quick, all_available=True) == pytest.approx(0.25)
    assert gate.delay(quick, all_available=False) is None
    assert gate.delay(paced([0.2] * 19), all_available=True) is None
    assert Gate(Hedge(delay=0.7)).delay(paced([]), all_available=True) == 0.7
    assert Gate(Hedge(delay=0.7, max_share=0)).delay(quick, all_available=True) is None


def test_many_turns_at_once_share_the_cap() -> None:
    gate = Gate(Hedge(delay=1.0, max_share=0.08, window=200))
    for _ in range(1000):
        gate.turned()
    assert sum(gate.take() for _ in range(50)) == 8


@given(st.lists(st.booleans(), min_size=200, max_size=600), st.sampled_from([0.02, 0.08, 0.5]))
def test_the_share_of_hedges_stays_below_the_cap(wanted: list[bool], share: float) -> None:
    gate = Gate(Hedge(delay=1.0, max_share=share))
    hedged = 0
    for wants in wanted:
        hedges = wants and gate.delay(Pace(10), all_available=True) is not None
        hedges = hedges and gate.take()
        gate.turned()
        hedged += hedges
    assert hedged <= share * len(wanted) + 1


@pytest.mark.parametrize(
    "bad", [{"delay": -1}, {"percentile": 1.0}, {"max_share": 2}, {"min_samples": 1}, {"window": 3}]
)
def test_bad_hedges_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="Hedge"):
        Hedge(**bad)  # type: ignore[arg-type]


# -- overlap -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "then", "rest"),
    [
        ("The capital of France", " is Paris.", " is Paris."),
        ("The capital of France", "France is Paris.", " is Paris."),
        ("The capital of France ", "of France is Paris.", "is Paris."),
        ("The capital of France", "The capital of France is Paris.", " is Paris."),
        ("The capital of Fra", "Fra" + "nce is", "nce is"),
        ("one two", "three", "three"),
        ("one two", "", ""),
        ("ab", "abc", "c"),
        ("he ab", "abc", "abc"),  # too short to be more than chance
        ("I", "I think so.", " think so."),
        ("the capital of France", "The capital of France is Paris.", " is Paris."),
        ("The capital of France", "\u201cof France is Paris.", " is Paris."),
        ("法国的首都是", "首都是巴黎。", "巴黎。"),
        ("ฝรั่งเศสมีเมืองหลวงคือ", "เมืองหลวงคือปารีส", "ปารีส"),
        ("Well (as they say)", "they say) it is", " it is"),
        ("I like 👩‍👩‍👧", "like 👩‍👩‍👧 very much", " very much"),
        ("yes yes yes", "yes yes yes yes", " yes"),
        ("Hello there", "... there you are", " you are"),
        ("", "all of it", "all of it"),
    ],
)
def test_repetitions_are_dropped_for_any_cut(said: str, then: str, rest: str) -> None:
    for cut in range(len(then) + 1):
        overlap = Overlap(said)
        got = overlap.feed(then[:cut]) + overlap.feed(then[cut:]) + overlap.close()
        assert got == rest


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("", ""),
        ("  ", ""),
        ("one two three four five six seven ei", "three four five six seven ei"),
        ("a" * 2000, "a" * 600),
        ("我" * 40, "我" * 16),
    ],
)
def test_the_last_words(said: str, words: str) -> None:
    assert last_words(said) == words


@given(st.text("abc 我是.", max_size=300), st.text("xyz 他", max_size=30))
def test_who_begins_with_the_last_words_is_understood_wherever_the_cut_was(
    said: str, then: str
) -> None:
    said = " ".join(said.split())
    words = last_words(said)
    hypothesis.assume(len(words) >= 3 and words[0].isalnum() and not then[:1].isspace())
    overlap = Overlap(said)
    got = "".join(overlap.feed(c) for c in words + then) + overlap.close()
    assert got == then


@given(st.text(max_size=40), st.text(max_size=40), st.integers(0, 40))
def test_a_true_continuation_loses_and_repeats_nothing(said: str, then: str, cut: int) -> None:
    text, tail = whitespace_tail(said)
    assert text + tail == said
    # A model that continues right after `text` says the white space itself, or leaves it out.
    for reply in (tail + then, then if tail and not then[:1].isspace() else tail + then):
        overlap = Overlap(said, exact=True, tail=tail)
        got = overlap.feed(reply[:cut]) + overlap.feed(reply[cut:]) + overlap.close()
        assert said + got == said + then


@given(st.text(max_size=700), st.lists(st.text(max_size=30), max_size=30))
def test_nothing_is_ever_invented_or_held_for_ever(said: str, pieces: list[str]) -> None:
    overlap = Overlap(said)
    got = "".join(overlap.feed(piece) for piece in pieces) + overlap.close()
    assert "".join(pieces).endswith(got)
