"""The course of one turn, as tables: (event, now) -> decisions."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder._core.breaker import HEALTHY, Health
from rejoinder._core.hedge import Gate, Hedge, Pace
from rejoinder._core.race import Action, Cancel, Conclude, Limits, Probe, Race, Start, Tell, Win
from rejoinder.errors import (
    APIConnectionError,
    APIError,
    APIStatusError,
    APITimeoutError,
    EmptyResponseError,
    RefusalError,
)

WALL = 1000.0
"""Wall time at loop time 0."""


def resting(until: float = 9999.0, failures: int = 1, reason: str = "") -> Health:
    """A model that has rested since loop time -2."""
    return Health("open", WALL + until, failures, reason, WALL - 2)


def back(since: float, failures: int = 1) -> Health:
    return Health("closed", 0.0, failures, "", WALL + since)


def race(models: int = 3, *, limits: Limits | None = None, **more: Any) -> Race:
    turn = Race(
        models,
        limits or Limits(attempt=5.0),
        started_at=0.0,
        paces=[Pace(10) for _ in range(models)],
        **more,
    )
    assert plan(turn, 0, [HEALTHY] * models) == []
    return turn


def plan(turn: Race, now: float, healths: Sequence[Health]) -> list[Action]:
    return turn.plan(now, healths, WALL + now)


def gate(delay: float = 1.0) -> Gate:
    return Gate(Hedge(delay=delay, max_share=1.0))


def kinds(actions: list[Action]) -> list[str]:
    return [type(action).__name__ for action in actions]


DOWN = APIConnectionError("down")


# -- one after the other -------------------------------------------------------------------------


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
    assert turn.ended(1, second, 2) == [Conclude(why="all failed")]
    assert [failure.error for failure in turn.failures] == [first, second]


def test_silence_is_a_failure() -> None:
    turn = race(2)
    turn.begin(0)
    assert turn.tick(4.9) == []
    cancel, start = turn.tick(5.0)
    assert isinstance(cancel, Cancel)
    assert not cancel.lost
    assert cancel.blame
    assert isinstance(cancel.error, APITimeoutError)
    assert start == Start(1, 1)
    assert turn.ended(0, None, 5.1) == []  # the cancelled one has ended: nothing new
    assert turn.due() == 10


@pytest.mark.parametrize("counts", [True, False])
def test_thinking_counts_unless_told_otherwise(counts: bool) -> None:
    turn = race(1, limits=Limits(attempt=5, thinking_is_progress=counts))
    turn.begin(0)
    turn.progressed(0, 4)
    assert turn.due() == (9 if counts else 5)
    turn.progressed(0, -math.inf)  # it was blank text, as was found out later
    assert turn.due() == 5


def test_a_loop_that_stood_still_extends_all_patience_but_that_with_the_turn() -> None:
    turn = race(2, limits=Limits(attempt=5, first_token_by=7), gate=gate(3.0))
    turn.begin(0)
    assert turn.due() == 3
    turn.stood_still(4.0)
    assert turn.due() == 7
    assert turn.lapse(0) == 4.0
    plan(turn, 4.5, [HEALTHY, resting()])  # no hedge any more
    assert turn.due() == 7
    turn = race(1, limits=Limits(attempt=5, next_token=2))
    turn.begin(0)
    turn.useful(0, 1)
    turn.stood_still(4.0)
    assert turn.due() == 7


def test_empty_answers() -> None:
    turn = race(2)
    turn.begin(0)
    assert turn.ended(0, None, 1) == [Start(1, 1)]
    assert turn.ended(1, EmptyResponseError("x"), 2) == [Conclude()]
    mixed = race(2)
    mixed.begin(0)
    mixed.ended(0, None, 1)
    assert mixed.ended(1, DOWN, 2) == [Conclude(why="all failed")]


@pytest.mark.parametrize(
    ("ends", "end"),
    [
        ([None, None, None], Conclude(silent=0)),
        ([None, EmptyResponseError("x"), DOWN], Conclude(silent=0)),
        ([DOWN, None, None], Conclude(silent=1)),
        ([DOWN, DOWN, EmptyResponseError("x")], Conclude(silent=2)),
        ([DOWN, DOWN, DOWN], Conclude(why="all failed")),
    ],
)
def test_where_a_model_may_be_silent_all_are_asked_first(
    ends: list[Exception | None], end: Conclude
) -> None:
    turn = race(3, empty_is_fine=True)
    turn.begin(0)
    for attempt, error in enumerate(ends):
        actions = turn.ended(attempt, error, 1)
        assert actions == ([end] if attempt == 2 else [Start(attempt + 1, attempt + 1)])


def test_a_model_may_be_silent_also_where_the_time_ends_while_the_last_one_is_asked() -> None:
    limits = Limits(attempt=5, first_token_by=2)
    turn = race(2, limits=limits, empty_is_fine=True)
    turn.begin(0)
    turn.ended(0, None, 1)
    assert turn.tick(2)[1:] == [Conclude(silent=0)]
    # Where a model is left, not all were asked.
    turn = race(3, limits=limits, empty_is_fine=True)
    turn.begin(0)
    turn.ended(0, None, 1)
    assert turn.tick(2)[1:] == [Conclude(why="no first token")]


def test_a_refusal_ends_the_turn() -> None:
    turn = race(3, gate=gate())
    turn.begin(0)
    turn.tick(1.0)
    refusal = RefusalError("no")
    assert turn.ended(0, refusal, 2) == [Cancel(1, lost=True), Conclude(refusal)]


# -- who is asked: decided when it is needed -----------------------------------------------------

R = resting
F = resting(failures=3)


@pytest.mark.parametrize(
    ("healths", "order"),
    [
        ([HEALTHY, HEALTHY, HEALTHY], [0, 1, 2]),
        # Those that rest stand last; among them those with fewer failures first.
        ([R(), HEALTHY, HEALTHY], [1, 2, 0]),
        ([F, R(), HEALTHY], [2, 1, 0]),
        ([F, R(), F], [1, 0, 2]),
        ([Health("half_open", WALL + 9, 1, "", WALL), HEALTHY, R()], [1, 0, 2]),
    ],
)
def test_every_model_is_asked_the_available_ones_first(
    healths: list[Health], order: list[int]
) -> None:
    for error in (DOWN, APIStatusError("x", status_code=400), None):
        turn = race(3)
        plan(turn, 0, healths)
        asked = [a.candidate for a in turn.begin(0) if isinstance(a, Start)]
        for attempt in range(3):
            more = turn.ended(attempt, error, 1)
            asked += [a.candidate for a in more if isinstance(a, Start)]
        assert asked == order
        # Silence only when all were asked and all were empty.
        assert more[-1] == (Conclude() if error is None else Conclude(why="all failed"))


@pytest.mark.parametrize(
    ("healths", "then"),
    [
        # 0 rests when the turn begins and 1 is asked; what is known when 1 fails decides.
        ([HEALTHY, R(), HEALTHY], 0),
        ([back(1), R(), HEALTHY], 0),
        ([R(), R(), HEALTHY], 2),
        ([F, R(), R()], 2),
        ([R(), R(), F], 0),
        ([back(1), R(), F], 0),
    ],
)
def test_the_order_is_revised_when_the_next_one_is_needed(healths: list[Health], then: int) -> None:
    turn = race(3)
    plan(turn, 0, [R(), HEALTHY, HEALTHY])
    assert turn.begin(0) == [Start(0, 1)]
    plan(turn, 2, healths)
    start = turn.ended(0, DOWN, 2)[0]
    assert start == Start(1, then)


def test_a_model_that_failed_and_came_back_is_asked_once_more_before_the_turn_fails() -> None:
    turn = race(2)
    turn.begin(0)
    turn.ended(0, DOWN, 1)
    assert plan(turn, 3, [back(2.5), HEALTHY]) == []
    assert turn.ended(1, DOWN, 4) == [Start(2, 0)]
    plan(turn, 6, [back(5.5), R()])
    assert turn.ended(2, DOWN, 7) == [Conclude(why="all failed")]  # once, not for ever


@pytest.mark.parametrize(
    ("error", "health"),
    [
        (DOWN, HEALTHY),  # it never rested: nothing has changed since it failed
        (DOWN, back(0.5)),  # it came back before it failed
        (DOWN, R()),
        (APIStatusError("bad request", status_code=400), back(2)),
        (EmptyResponseError("x"), back(2)),
    ],
)
def test_a_failure_is_not_forgotten_without_news(error: APIError, health: Health) -> None:
    turn = race(2)
    turn.begin(0)
    turn.ended(0, error, 1)
    plan(turn, 3, [health, HEALTHY])
    assert turn.ended(1, DOWN, 4) == [Conclude(why="all failed")]


# -- probes --------------------------------------------------------------------------------------


def test_a_probe_goes_out_when_the_rest_is_over_also_in_mid_turn() -> None:
    turn = race(2)
    healths = [resting(until=3.0), HEALTHY]
    assert plan(turn, 0, healths) == []
    turn.begin(0)
    assert turn.due() == 3.0
    assert plan(turn, 3.0, healths) == [Probe(0)]
    assert plan(turn, 3.1, healths) == []  # once, whether or not it could be claimed
    held = Health("half_open", WALL + 13, 1, "", WALL - 2)
    assert plan(turn, 3.1, [held, HEALTHY]) == []
    assert turn.due() == 5
    assert plan(turn, 13.0, [held, HEALTHY]) == [Probe(0)]  # the one who held it is gone


@pytest.mark.parametrize(
    ("healths", "probes"),
    [
        ([resting(until=-1), HEALTHY, HEALTHY], [Probe(0)]),
        ([resting(until=-1), HEALTHY, resting(until=-1)], [Probe(0), Probe(2)]),
        (
            [Health("open", WALL + 5000, 1, "", WALL + 4000), HEALTHY, HEALTHY],
            [Probe(0)],
        ),  # set back
        ([resting(until=1), HEALTHY, HEALTHY], []),
        # Where all rest they are asked, and asking is the probe.
        ([resting(until=-1), resting(until=-1), resting(until=-1)], []),
    ],
)
def test_who_is_probed_at_the_start(healths: list[Health], probes: list[Action]) -> None:
    turn = race(3)
    assert plan(turn, 0, healths) == probes


def test_no_probes_of_models_that_failed_in_this_turn_nor_while_one_speaks() -> None:
    turn = race(3)
    turn.begin(0)
    turn.ended(0, DOWN, 1)
    healths = [resting(until=2), HEALTHY, resting(until=4)]
    assert plan(turn, 1, healths) == []
    assert turn.due() == 4
    turn.useful(1, 1.5)
    assert turn.due() == math.inf
    assert plan(turn, 4, healths) == []


# -- hedges --------------------------------------------------------------------------------------


def test_a_hedge_runs_beside_the_first() -> None:
    turn = race(3, gate=gate())
    turn.begin(0)
    assert turn.due() == 1
    assert turn.tick(1.0) == [Start(1, 1, hedge=True)]
    assert turn.hedged
    assert turn.due() == 5
    assert turn.useful(1, 2) == [Win(1), Cancel(0, lost=True)]
    assert turn.useful(0, 2) == []


def test_a_hedge_for_which_others_spent_the_credit() -> None:
    shared = gate()
    turn = race(3, gate=shared)
    turn.begin(0)
    while shared.take():
        pass
    assert turn.tick(1.0) == []
    assert not turn.hedged
    assert turn.due() == 5


@pytest.mark.parametrize(
    ("before", "after", "at", "due"),
    [
        # (known at 0, known at `at`, ..., when the hedge is due)
        ([HEALTHY, HEALTHY, HEALTHY], [HEALTHY, R(), HEALTHY], 0.5, 5.0),  # a model is down: none
        ([R(), HEALTHY, HEALTHY], [back(0.5), HEALTHY, HEALTHY], 0.5, 1.0),
        (
            [R(), HEALTHY, HEALTHY],
            [back(2), HEALTHY, HEALTHY],
            2.0,
            1.0,
        ),  # the time is over: at once
        ([R(), HEALTHY, HEALTHY], [R(), HEALTHY, HEALTHY], 0.5, 5.0),
    ],
)
def test_the_hedge_is_revised_when_models_go_and_come_back(
    before: list[Health], after: list[Health], at: float, due: float
) -> None:
    turn = race(3, gate=gate())
    plan(turn, 0, before)
    turn.begin(0)
    plan(turn, at, after)
    assert turn.due() == due


def test_a_model_that_comes_back_is_the_hedge() -> None:
    turn = race(2, gate=gate())
    plan(turn, 0, [R(), HEALTHY])
    assert turn.begin(0) == [Start(0, 1)]
    assert turn.due() == 5
    plan(turn, 2, [back(2), HEALTHY])
    assert turn.tick(2) == [Start(1, 0, hedge=True)]


def test_the_hedge_goes_by_the_pace_of_the_one_that_is_asked() -> None:
    slow = Pace(100)
    for _ in range(50):
        slow.add(2.0)
    turn = race(3, gate=Gate(Hedge(max_share=1.0)))
    turn.paces = [Pace(100), slow, slow]
    turn.begin(0)
    assert turn.due() == 5  # nothing is known of the first
    turn.ended(0, APIStatusError("x", status_code=400), 1)
    assert turn.due() == pytest.approx(1 + 2.5)


def test_no_hedge_beyond_the_tokens() -> None:
    turn = race(2, limits=Limits(attempt=5, max_extra_tokens=99), gate=gate(), price=lambda: 100)
    turn.begin(0)
    assert turn.due() == 5


def test_when_the_first_fails_the_hedge_goes_on_alone() -> None:
    turn = race(3, gate=gate())
    turn.begin(0)
    turn.tick(1.0)
    assert turn.ended(0, APIError("x"), 2) == []
    assert turn.ended(1, APIError("y"), 3) == [Start(2, 2)]


def test_no_hedge_with_nobody_left() -> None:
    alone = race(1, gate=gate())
    alone.begin(0)
    assert alone.due() == 5
    assert alone.tick(1.0) == []
    assert not alone.hedged


# -- the time of the whole turn ------------------------------------------------------------------


def test_the_first_token_of_the_whole_turn_has_a_limit() -> None:
    turn = race(3, limits=Limits(attempt=5, first_token_by=7))
    turn.begin(0)
    turn.tick(5)
    assert turn.due() == 7
    cancel, end = turn.tick(7)
    assert isinstance(cancel, Cancel)
    assert not cancel.blame  # it had 2 seconds where others have 5
    assert end == Conclude(why="no first token")
    assert turn.over
    assert turn.tick(8) == []


def test_a_model_that_had_all_the_time_of_the_turn_is_to_blame() -> None:
    turn = race(1, limits=Limits(attempt=5, first_token_by=3))
    turn.begin(0)
    cancel, _ = turn.tick(3)
    assert isinstance(cancel, Cancel)
    assert cancel.blame


def test_the_reasons_name_every_model() -> None:
    turn = race(4, limits=Limits(attempt=5, first_token_by=7))
    plan(turn, 0, [HEALTHY, R(reason="APIStatusError 503"), R(), HEALTHY])
    turn.begin(0)
    turn.ended(0, APIError("boom"), 1)
    turn.ended(1, APIError("bang"), 2)
    assert turn.reasons("ABCD", 3) == (
        "A: boom; D: bang; B: asked 1.00 s ago, not ended yet; "
        "C: not asked, it has rested for 5.0 s"
    )
    turn.ended(2, APIError("dead"), 3)
    assert turn.reasons("ABCD", 3.5) == (
        "A: boom; D: bang; "
        "B: dead (asked although it had rested for 4.0 s after APIStatusError 503); "
        "C: asked 0.50 s ago, not ended yet"
    )


# -- a reply that breaks off ---------------------------------------------------------------------


def speaking(when_cut: str, models: int = 3, **more: Any) -> Race:
    """A turn in which model 0 has said something."""
    turn = race(models, when_cut=when_cut, **more)
    turn.begin(0)
    turn.useful(0, 1)
    turn.said.append("12345678")
    return turn


CUT = APIConnectionError("cut")
REFUSED = RefusalError("no")


@pytest.mark.parametrize(
    ("when_cut", "error", "called", "actions"),
    [
        ("stop", CUT, False, [Conclude(CUT)]),
        ("append", CUT, False, [Start(1, 1)]),
        ("resume", CUT, False, [Start(1, 1)]),
        ("restart", CUT, False, [Tell("restart", CUT, "12345678", 0), Start(1, 1)]),
        # A call cannot be taken back, nor made twice.
        ("stop", CUT, True, [Conclude(CUT)]),
        ("append", CUT, True, [Conclude(CUT)]),
        ("restart", CUT, True, [Conclude(CUT)]),
        ("resume", CUT, True, [Tell("cut_after_tool_call", CUT), Conclude()]),
        # Nobody is asked until one gives in.
        ("append", REFUSED, False, [Conclude(REFUSED)]),
        ("restart", REFUSED, False, [Conclude(REFUSED)]),
        ("resume", REFUSED, False, [Conclude(REFUSED)]),
        ("resume", REFUSED, True, [Conclude(REFUSED)]),
    ],
)
def test_what_follows_a_cut(
    when_cut: str, error: APIError, called: bool, actions: list[Action]
) -> None:
    turn = speaking(when_cut)
    turn.called = called
    assert turn.ended(0, error, 2) == actions
    assert turn.said == ([] if actions[0] == Tell("restart", CUT, "12345678", 0) else ["12345678"])
    assert turn.resuming is (when_cut == "resume" and actions == [Start(1, 1)])
    # The same for a silence in mid-reply.
    turn = speaking(when_cut, limits=Limits(attempt=5, next_token=3))
    turn.called = called
    if error is CUT:
        cancel, *rest = turn.tick(4)
        assert isinstance(cancel, Cancel)
        assert kinds(rest) == kinds(actions)


@pytest.mark.parametrize("when_cut", ["append", "restart", "resume"])
def test_after_a_cut_resting_models_are_asked_too_and_then_all_are_named(when_cut: str) -> None:
    turn = speaking(when_cut, models=2)
    plan(turn, 1, [HEALTHY, R()])
    assert turn.ended(0, CUT, 2)[-1] == Start(1, 1)
    turn.useful(1, 3)
    assert turn.ended(1, CUT, 4) == [Conclude(why="all failed")]
    assert "asked although it had rested" in turn.reasons("AB", 4)


def test_a_model_that_was_cut_and_came_back_resumes() -> None:
    turn = speaking("resume", models=2)
    turn.ended(0, CUT, 2)
    turn.useful(1, 3)
    plan(turn, 6, [back(5), HEALTHY])
    assert turn.ended(1, CUT, 7) == [Start(2, 0)]


@pytest.mark.parametrize("when_cut", ["restart", "resume"])
def test_a_cut_beyond_the_tokens_says_why_it_is_not_continued(when_cut: str) -> None:
    limits = Limits(attempt=5, max_extra_tokens=250)
    turn = speaking(when_cut, limits=limits, price=lambda: 100)
    turn.ended(0, CUT, 2)
    assert turn.spent == (102 if when_cut == "restart" else 100)
    turn.useful(1, 2)
    turn.ended(1, CUT, 3)
    turn.useful(2, 3)
    turn = speaking(when_cut, limits=Limits(attempt=5, max_extra_tokens=99), price=lambda: 100)
    (end,) = turn.ended(0, CUT, 2)
    assert isinstance(end, Conclude)
    assert end.error is CUT
    assert "max_extra_tokens (99)" in end.note


def test_nothing_to_add_only_after_all_were_asked() -> None:
    turn = speaking("resume")
    plan(turn, 1, [HEALTHY, HEALTHY, R()])
    turn.ended(0, CUT, 2)
    assert turn.ended(1, None, 3) == [Start(2, 2)]
    assert turn.ended(2, DOWN, 4) == [Tell("nothing_to_add", CUT), Conclude()]
    failed = speaking("resume")
    failed.ended(0, CUT, 2)
    failed.ended(1, DOWN, 3)
    assert failed.ended(2, DOWN, 4) == [Conclude(why="all failed")]


def test_who_lost_a_race_can_be_asked_again_when_the_winner_is_cut() -> None:
    turn = race(3, gate=gate(), when_cut="append")
    turn.begin(0)
    turn.tick(1.0)
    assert turn.useful(0, 2) == [Win(0), Cancel(1, lost=True)]
    assert turn.ended(0, CUT, 3) == [Start(2, 1)]
    assert turn.ended(1, None, 3) == []
    assert turn.ended(2, DOWN, 4) == [Start(3, 2)]


def test_the_winner_may_not_be_silent_for_ever() -> None:
    turn = race(2, limits=Limits(attempt=5, next_token=3), when_cut="append")
    turn.begin(0)
    turn.useful(0, 2)
    assert turn.due() == 5
    turn.progressed(0, 4)
    assert turn.tick(5) == []
    assert turn.due() == 7
    cancel, start = turn.tick(7)
    assert isinstance(cancel, Cancel)
    assert isinstance(cancel.error, APITimeoutError)
    assert start == Start(1, 1)
    assert turn.ended(0, None, 8) == []


def test_after_a_cut_neither_a_hedge_nor_the_limit_on_the_first_token_counts() -> None:
    turn = race(3, limits=Limits(attempt=5, first_token_by=7), gate=gate(), when_cut="append")
    turn.begin(0)
    turn.useful(0, 0)
    assert turn.ended(0, CUT, 20) == [Start(1, 1)]
    assert turn.due() == 25
    assert turn.useful(1, 21) == [Win(1)]


# -- any course ----------------------------------------------------------------------------------


@given(st.integers(0, 2**32), st.integers(1, 4), st.booleans())
def test_any_course_of_events_ends_and_asks_every_model_before_it_fails(
    seed: int, models: int, hedged: bool
) -> None:
    dice = random.Random(seed)
    when_cut = dice.choice(["stop", "append", "restart", "resume"])
    turn = race(models, gate=gate() if hedged else None, when_cut=when_cut)
    running: set[int] = set()
    asked: list[int] = []
    wins = cuts = 0
    end: Conclude | None = None
    now = 0.0

    def do(actions: list[Action]) -> None:
        nonlocal wins, end
        for action in actions:
            match action:
                case Start(attempt=attempt, candidate=candidate):
                    running.add(attempt)
                    asked.append(candidate)
                case Cancel(attempt=attempt):
                    running.discard(attempt)
                case Win():
                    wins += 1
                case Conclude():
                    assert end is None
                    end = action
                case _:
                    pass

    def healths() -> list[Health]:
        return [
            dice.choice([HEALTHY, HEALTHY, R(), resting(until=now - 1), back(now)])
            for _ in range(models)
        ]

    do(plan(turn, now, healths()))
    do(turn.begin(now))
    for _ in range(300):
        if end is not None:
            break
        now += dice.random() * 3
        event = dice.choice(["tick", "useful", "ended", "thought", "news", "still"])
        attempt = dice.choice(sorted(running)) if running else 0
        if event == "news":
            do(plan(turn, now, healths()))
        elif event == "still":
            turn.stood_still(dice.random())
        elif event == "useful":
            do(turn.useful(attempt, now))
        elif event == "thought":
            turn.progressed(attempt, now)
        elif event == "ended" and attempt in running:
            running.discard(attempt)
            cuts += attempt == turn.winner
            do(turn.ended(attempt, dice.choice([None, DOWN, DOWN, RefusalError("x")]), now))
        else:
            do(turn.tick(now))
        assert len(running) <= 2
        assert end is not None or running or turn.winner is not None
    assert wins <= 1 + cuts
    assert all(asked.count(model) <= 2 + wins for model in range(models))
    if end is not None and (end.why == "all failed" or (end.error is None and not wins)):
        assert set(asked) == set(range(models)) or not turn.failures


@pytest.mark.parametrize(("more", "end"), [("", "nothing_to_add"), ("more", "all failed")])
def test_one_that_is_cut_again_without_adding_anything_does_not_undo_what_others_said(
    more: str, end: str
) -> None:
    turn = speaking("resume", models=2)
    turn.said.append("All of it.")
    rested = resting(until=2.5)
    plan(turn, 2, [rested, HEALTHY])
    turn.ended(0, CUT, 2)
    assert turn.ended(1, None, 3) == [Start(2, 0)]
    turn.useful(2, 3)
    turn.said.append(more)
    actions = turn.ended(2, CUT, 4)
    if more:
        assert actions == [Conclude(why="all failed")]
    else:
        assert actions == [Tell("nothing_to_add", CUT), Conclude()]
