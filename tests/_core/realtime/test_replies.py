"""The state machine of replies: a table of what happens, and random orders of everything."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder._core.realtime.messages import CreateReply
from rejoinder._core.realtime.replies import (
    TRANSITIONS,
    Announce,
    Cancel,
    Effect,
    Fail,
    Finish,
    Replies,
    RequestState,
    Send,
)
from rejoinder.errors import APIStatusError

A, B = CreateReply("a"), CreateReply("b")
ERROR = APIStatusError("no")


def connected() -> Replies:
    replies = Replies(timeout=10, silence=20)
    replies.connected(0)
    return replies


def test_every_state_is_in_the_table() -> None:
    assert set(TRANSITIONS) == set(RequestState)
    assert all(TRANSITIONS[state] == {} for state in (RequestState.STARTED, RequestState.FAILED))


def test_a_request_waits_for_the_connection() -> None:
    replies = Replies()
    assert replies.request(A, 0) == []
    assert replies.connected(1) == [Send(A)]
    assert replies.started("r", "a", 2) == [Announce("r", ("a",))]
    assert replies.ended("r", "completed", "a", 3) == [Finish("r", "completed")]
    assert replies.idle


def test_a_request_waits_for_the_running_reply() -> None:
    replies = connected()
    replies.started("own", None, 0)
    assert replies.request(A, 1) == []
    assert replies.deadline() == 20  # the silence of the running one
    assert replies.ended("own", "completed", None, 15) == [Finish("own", "completed"), Send(A)]
    assert replies.deadline() == 25


def test_a_request_waits_for_the_turn_that_is_on_its_way() -> None:
    replies = connected()
    replies.hold(5)
    assert replies.request(A, 1) == []
    assert replies.deadline() == 5
    assert replies.release(2) == [Send(A)]

    replies = connected()
    replies.hold(5)
    assert replies.request(A, 1) == []
    assert replies.tick(5) == [Send(A)]

    replies = connected()
    replies.hold(5)
    replies.started("own", None, 1)
    assert replies.request(A, 1) == []
    assert replies.tick(5) == []
    assert replies.deadline() == 21
    assert replies.ended("own", "completed", None, 6) == [Finish("own", "completed"), Send(A)]


def test_busy_is_not_refused() -> None:
    replies = connected()
    replies.request(A, 0)
    assert replies.refused("a", ERROR, 1, busy=True) == []
    assert replies.started("own", None, 1) == [Announce("own", ())]
    assert replies.ended("own", "completed", None, 2) == [Finish("own", "completed"), Send(A)]


def test_busy_without_a_reply_is_asked_again() -> None:
    replies = connected()
    replies.request(A, 0)
    replies.refused("a", ERROR, 1, busy=True)
    assert replies.tick(6) == [Send(A)]


def test_a_late_reply_is_cancelled_and_not_announced() -> None:
    replies = connected()
    replies.request(A, 0)
    (failure,) = replies.tick(10)
    assert isinstance(failure, Fail)
    assert failure.code == "timeout"
    assert replies.started("late", "a", 11) == [Cancel("late")]
    assert not replies.progressed("late", 12)
    assert replies.request(B, 12) == []
    assert replies.ended("late", "cancelled", "a", 13) == [Send(B)]


def test_a_reply_that_began_while_its_caller_gave_up_is_stopped() -> None:
    replies = connected()
    replies.request(A, 0)
    assert replies.started("r", "a", 1) == [Announce("r", ("a",))]
    assert replies.give_up("a", 1) == [Cancel("r"), Finish("r", "interrupted")]
    assert replies.give_up("a", 1) == []
    assert not replies.progressed("r", 2)
    assert replies.request(B, 2) == []
    assert replies.ended("r", "cancelled", "a", 3) == [Send(B)]


def test_an_unwanted_reply_that_made_the_service_busy_frees_it_by_its_end() -> None:
    replies = connected()
    replies.request(A, 0)
    replies.give_up("a", 0)
    replies.request(B, 0)
    assert replies.refused("b", ERROR, 1, busy=True) == []
    assert replies.started("r", "a", 1) == [Cancel("r")]
    assert replies.ended("r", "cancelled", "a", 2) == [Send(B)]


def test_nothing_is_interrupted_where_nothing_runs() -> None:
    assert connected().interrupt(0) == []


def test_what_comes_after_an_interrupt_is_not_heard() -> None:
    replies = connected()
    replies.started("r", None, 0)
    assert replies.interrupt(1) == [Cancel("r"), Finish("r", "interrupted")]
    assert replies.interrupt(2) == []
    assert not replies.progressed("r", 2)
    assert replies.request(A, 2) == []
    assert replies.tick(6) == [Send(A)]  # its end never came


def test_a_reply_that_stands_still_has_failed() -> None:
    replies = connected()
    replies.started("r", None, 0)
    assert replies.progressed("r", 5)
    assert replies.tick(24) == []
    assert replies.tick(25) == [Cancel("r"), Finish("r", "failed")]


def test_results_of_one_batch_are_answered_together() -> None:
    replies = connected()
    replies.started("r", None, 0)
    replies.called("c1")
    replies.called("c2")
    replies.ended("r", "completed", None, 1)
    assert replies.answered("c1", 2) == []
    assert replies.request(A, 2) == []
    assert replies.request(B, 3) == []
    assert replies.answered("c2", 4) == [Send(A)]
    assert replies.started("r2", "a", 5) == [Announce("r2", ("a", "b"))]


def test_a_result_that_takes_long_does_not_hold_the_reply_for_ever() -> None:
    replies = connected()
    replies.started("r", None, 0)
    replies.called("c1")
    replies.called("c2")
    replies.ended("r", "completed", None, 1)
    replies.answered("c1", 2)
    replies.request(A, 2)
    assert replies.deadline() == 12
    assert replies.tick(12) == [Send(A)]


def test_the_deadline_does_not_run_while_the_service_waits_for_a_result() -> None:
    replies = connected()
    replies.request(A, 0)
    replies.started("call", None, 1)
    replies.called("c1", waits=True)
    replies.called("c2", waits=True)
    replies.ended("call", "completed", None, 1)
    assert replies.deadline() == math.inf
    replies.answered("c1", 100)
    assert replies.deadline() == math.inf
    replies.answered("c2", 200)
    assert replies.deadline() == 210
    assert replies.started("r", "a", 205) == [Announce("r", ("a",))]


def test_the_deadline_runs_where_the_service_waits_for_nothing() -> None:
    replies = connected()
    replies.started("call", None, 0)
    replies.called("c1")
    replies.ended("call", "completed", None, 1)
    replies.request(A, 2)
    assert replies.deadline() == 12


def test_a_connection_takes_what_it_waits_for_with_it() -> None:
    replies = connected()
    replies.request(A, 0)
    replies.blocked("task")
    assert replies.deadline() == math.inf
    replies.lost(50)
    assert replies.tick(55) == []
    assert replies.deadline() == 60
    assert replies.connected(56) == [Send(A)]
    assert replies.deadline() == 66


def test_a_request_that_waits_for_a_connection_becomes_pressing() -> None:
    replies = connected()
    replies.pause()
    replies.request(A, 0)
    assert replies.deadline() == 5
    assert not replies.pressing
    assert replies.tick(5) == []
    assert replies.pressing
    assert replies.deadline() == 10
    assert replies.connected(6) == [Send(A)]
    assert not replies.pressing


def test_a_running_reply_is_not_cut_for_a_request() -> None:
    replies = connected()
    replies.started("r", None, 0)
    replies.pause()
    replies.request(A, 0)
    replies.progressed("r", 9)
    assert replies.tick(9) == []
    assert not replies.pressing
    assert replies.ended("r", "completed", None, 12) == [Finish("r", "completed")]
    assert replies.deadline() == 17


def test_a_reply_that_pauses_for_a_tool_does_not_stand_still() -> None:
    replies = connected()
    replies.started("r", None, 0)
    replies.called("c1")
    assert replies.deadline() == math.inf
    replies.answered("c1", 100)
    assert replies.deadline() == 120
    assert replies.tick(120) == [Cancel("r"), Finish("r", "failed")]


def test_words_while_a_tool_runs_are_not_held() -> None:
    replies = connected()
    replies.started("r", None, 0)
    replies.called("c1")
    replies.ended("r", "completed", None, 1)
    assert replies.request(A, 2) == [Send(A)]


def test_a_lost_connection_ends_what_runs_and_keeps_what_was_asked_for() -> None:
    replies = connected()
    replies.started("r", None, 0)
    replies.request(A, 1)
    assert replies.lost(2) == [Finish("r", "failed")]
    assert replies.connected(3) == [Send(A)]


def test_a_reply_that_never_began_fails_its_request() -> None:
    replies = connected()
    replies.request(A, 0)
    (failure,) = replies.ended("r", "failed", "a", 1, message="quota", code="q")
    assert failure == Fail(("a",), "quota", "q")


EVENTS = st.one_of(
    st.tuples(st.just("request"), st.integers(0, 5)),
    st.tuples(st.just("started"), st.integers(0, 5), st.none() | st.integers(0, 5)),
    st.tuples(st.just("progressed"), st.integers(0, 5)),
    st.tuples(
        st.just("ended"),
        st.integers(0, 5),
        st.sampled_from(["completed", "cancelled", "failed"]),
        st.none() | st.integers(0, 5),
    ),
    st.tuples(st.just("refused"), st.integers(0, 5), st.booleans()),
    st.tuples(st.just("give_up"), st.integers(0, 5)),
    st.tuples(st.just("interrupt")),
    st.tuples(st.just("called"), st.integers(0, 3), st.booleans()),
    st.tuples(st.just("works")),
    st.tuples(st.just("blocked"), st.integers(0, 3)),
    st.tuples(st.just("answered"), st.integers(0, 3)),
    st.tuples(st.just("lost")),
    st.tuples(st.just("connected")),
    st.tuples(st.just("tick")),
    st.tuples(st.just("hold")),
    st.tuples(st.just("release")),
    st.tuples(st.just("pause")),
    st.tuples(st.just("forgive")),
)


@given(st.lists(EVENTS, max_size=60))
def test_every_request_ends_once_and_nothing_is_heard_after_its_end(
    events: list[tuple[object, ...]],
) -> None:
    replies = Replies(timeout=10, silence=20)
    waiting: set[str] = set()
    given_up: set[str] = set()
    ended: set[str] = set()
    number = 0
    now = 0.0

    def look(effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Announce | Fail):
                for ref in effect.refs:
                    assert ref in waiting or ref in given_up
                    waiting.discard(ref)
                    given_up.discard(ref)
            elif isinstance(effect, Finish):
                assert effect.reply_id not in ended
                ended.add(effect.reply_id)

    for kind, *given_ in events:
        now += 1.5
        match kind, given_:
            case "request", [_]:
                number += 1
                waiting.add(f"q{number}")
                look(replies.request(CreateReply(f"q{number}"), now))
            case "started", [reply, ref]:
                reply_id = f"r{reply}"
                if reply_id not in ended:
                    look(replies.started(reply_id, None if ref is None else f"q{ref}", now))
            case "progressed", [reply]:
                assert not (replies.progressed(f"r{reply}", now) and f"r{reply}" in ended)
            case "ended", [reply, status, ref]:
                name = None if ref is None else f"q{ref}"
                look(replies.ended(f"r{reply}", status, name, now))  # type: ignore[arg-type]
                ended.add(f"r{reply}")
            case "refused", [ref, busy]:
                look(replies.refused(f"q{ref}", ERROR, now, busy=bool(busy)))
            case "give_up", [ref]:
                if f"q{ref}" in waiting:
                    waiting.discard(f"q{ref}")
                    given_up.add(f"q{ref}")
                    look(replies.give_up(f"q{ref}", now))
            case "called", [call, waits]:
                replies.called(f"c{call}", waits=waits)
            case "works", []:
                replies.works(now)
            case "blocked", [task]:
                replies.blocked(f"c{task}")
            case "answered", [call]:
                look(replies.answered(f"c{call}", now))
            case "interrupt", _:
                look(replies.interrupt(now))
            case "lost", _:
                look(replies.lost(now))
            case "connected", _:
                look(replies.connected(now))
            case "pause", _:
                replies.pause()
            case "forgive", _:
                replies.forgive()
            case "hold", _:
                replies.hold(now + 5)
            case "release", _:
                look(replies.release(now))
            case _:
                look(replies.tick(now))
                assert replies.deadline() > now, "the timer would ring for ever"
    for call in range(4):
        look(replies.answered(f"c{call}", now))  # what the service waits for has no deadline
    for _ in range(400):
        due = replies.deadline()
        if due == math.inf:
            break
        now = max(now, due)
        look(replies.tick(now))
    assert not waiting, "a request has no deadline"
    look(replies.fail_all("over"))
    assert replies.idle


@pytest.mark.parametrize("order", [("tick", "started"), ("started", "tick")])
def test_a_deadline_and_a_beginning_at_the_same_moment(order: tuple[str, str]) -> None:
    replies = connected()
    replies.request(A, 0)
    effects: list[Effect] = []
    for kind in order:
        effects += replies.tick(10) if kind == "tick" else replies.started("r", "a", 10)
    assert len([e for e in effects if isinstance(e, Announce | Fail)]) == 1


def test_a_paused_request_waits_for_the_next_connection_and_for_no_reply_that_runs() -> None:
    replies = connected()
    replies.started("own", None, 0)
    replies.pause()
    assert replies.request(A, 1) == []
    assert replies.deadline() == 20  # the silence of the running one, not the time of the request
    assert replies.ended("own", "completed", None, 15) == [Finish("own", "completed")]
    assert replies.tick(20) == []
    assert replies.deadline() == 25
    assert replies.connected(21) == [Send(A)]


def test_a_debt_can_be_forgiven() -> None:
    replies = connected()
    replies.request(A, 0)
    replies.tick(10)
    replies.forgive()
    assert replies.started("r", "a", 11) == [Announce("r", ())]
