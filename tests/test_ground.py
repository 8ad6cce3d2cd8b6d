"""types, errors, the emitter and the channel: the ground everything stands on."""

from __future__ import annotations

import asyncio
import copy
import math
import pickle

import pytest

from rejoinder import errors
from rejoinder._aio import Chan, ChanClosed, cancel_and_wait
from rejoinder._emitter import EventEmitter
from rejoinder.errors import (
    APIConnectionError,
    APIError,
    APIStatusError,
    APITimeoutError,
    EmptyResponseError,
    RefusalError,
    WireError,
    create_api_error_from_http,
)
from rejoinder.types import (
    DEFAULT_API_CONNECT_OPTIONS,
    NOT_GIVEN,
    APIConnectOptions,
    NotGiven,
    is_given,
)

# -- types ---------------------------------------------------------------------------------------


def test_not_given() -> None:
    assert not NOT_GIVEN
    assert repr(NOT_GIVEN) == "NOT_GIVEN"
    assert not is_given(NOT_GIVEN)
    assert not is_given(NotGiven())
    assert is_given(None)
    for other in (
        copy.copy(NOT_GIVEN),
        copy.deepcopy(NOT_GIVEN),
        pickle.loads(pickle.dumps(NOT_GIVEN)),
    ):
        assert not is_given(other)


def test_connect_options() -> None:
    options = DEFAULT_API_CONNECT_OPTIONS
    assert (options.max_retry, options.retry_interval, options.timeout) == (3, 2.0, 10.0)
    assert (options.connect_timeout, options.first_output_timeout) == (10.0, 10.0)
    assert (options.between_outputs_timeout, options.total) == (10.0, None)
    assert [options._interval_for_retry(n) for n in (0, 1, 2, -1)] == [0.1, 2.0, 2.0, 2.0]
    own = APIConnectOptions(3, 2.0, 5.0, connect=1.0, first_output=2.0, between_outputs=0.0)
    assert (own.connect_timeout, own.first_output_timeout) == (1.0, 2.0)
    assert len({options, APIConnectOptions(), own}) == 2


@pytest.mark.parametrize("none", [0, 0.0, math.inf])
def test_no_limit(none: float) -> None:
    for options in (
        APIConnectOptions(timeout=none),
        APIConnectOptions(connect=none, first_output=none, between_outputs=none),
    ):
        assert options.connect_timeout is None
        assert options.first_output_timeout == math.inf
        assert options.between_outputs_timeout == math.inf


def test_later_options_are_given_by_name() -> None:
    with pytest.raises(TypeError):
        APIConnectOptions(3, 2.0, 10.0, 1.0)  # pyright: ignore[reportCallIssue]
    with pytest.raises(ValueError, match="got nan"):
        APIConnectOptions(timeout=math.nan)


def test_a_pause_without_end_is_refused() -> None:
    with pytest.raises(ValueError, match=r"retry_interval: expected a finite number.*max_retry=0"):
        APIConnectOptions(retry_interval=math.inf)


@pytest.mark.parametrize(
    "name", ["max_retry", "retry_interval", "timeout", "connect", "first_output", "total"]
)
def test_negative_options_are_refused_by_name(name: str) -> None:
    with pytest.raises(ValueError, match=f"APIConnectOptions.{name}: .*at least 0, got -1"):
        APIConnectOptions(**{name: -1})


# -- errors --------------------------------------------------------------------------------------


def test_the_tree() -> None:
    assert issubclass(APITimeoutError, APIConnectionError)
    for cls in (APIStatusError, APIConnectionError, WireError, EmptyResponseError):
        assert issubclass(cls, APIError)
    assert issubclass(RefusalError, APIStatusError)
    assert issubclass(errors.ConfigurationError, ValueError)


def test_defaults() -> None:
    assert APIError("x").retryable
    assert not APIError.retryable
    assert APIError("x").args == ("x",)
    assert APIConnectionError().message == "Connection error."
    assert APITimeoutError().message == "Request timed out."
    assert APIConnectionError("x").body is None
    status = APIStatusError("x")
    assert (status.status_code, status.request_id, status.retryable) == (-1, None, True)
    assert not RefusalError("no").retryable


@pytest.mark.parametrize(
    ("status", "said", "retryable"),
    [
        (400, None, False),
        (400, True, False),
        (404, True, False),
        (408, None, True),
        (409, None, True),
        (424, None, True),
        (425, None, True),
        (429, None, True),
        (429, False, False),
        (499, None, True),
        (500, None, True),
        (500, False, False),
        (529, None, True),
        (302, None, False),
        (304, True, False),
        (-1, None, True),
    ],
)
def test_whether_a_status_can_get_better(status: int, said: bool | None, retryable: bool) -> None:
    assert APIStatusError("x", status_code=status, retryable=said).retryable is retryable


def test_texts() -> None:
    assert str(APIError("what", body={"a": 1})) == "what"
    assert "body={'a': 1}" in repr(APIError("what", body={"a": 1}))
    status = APIStatusError("what", status_code=429, request_id="req_1")
    place = "docs/troubleshooting.md#status-429"
    assert str(status) == f"what (status_code=429, request_id=req_1). More: {place}"
    assert "req_1" in repr(status)
    outer = APIConnectionError("no reply after 3 attempts")
    inner = APIConnectionError("broken")
    inner.__cause__ = ConnectionResetError("peer went away")
    outer.__cause__ = inner
    assert str(outer) == "no reply after 3 attempts [ConnectionResetError: peer went away]"


def test_causes_in_a_circle_end() -> None:
    a, b = APIConnectionError("a"), APIConnectionError("b")
    a.__cause__, b.__cause__ = b, a
    assert str(a)


@pytest.mark.parametrize(
    "error",
    [
        APIError("x", body={"k": [1]}, retryable=False),
        APIStatusError("x", status_code=429, request_id="r", body="b"),
        RefusalError("x", reason="SAFETY", status_code=200),
        APIConnectionError("x", retryable=False),
        APITimeoutError(),
        WireError("x"),
        EmptyResponseError("x"),
    ],
)
def test_errors_survive_pickle_and_copy(error: APIError) -> None:
    error.retry_after = 2.5
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(other) is type(error)
        assert other.__dict__ == error.__dict__
        assert other.args == error.args


def test_error_from_http() -> None:
    error = create_api_error_from_http("no such model", status=404, request_id="r", body={"a": 1})
    assert error.message == "Not Found: no such model"
    assert (error.status_code, error.request_id, error.body) == (404, "r", {"a": 1})
    assert create_api_error_from_http("", status=529).message == "HTTP status 529"


# -- emitter -------------------------------------------------------------------------------------


def test_handlers_are_called_in_order_and_once_each() -> None:
    emitter: EventEmitter[str] = EventEmitter()
    seen: list[str] = []
    a = emitter.on("e", lambda: seen.append("a"))

    @emitter.on("e")
    def b(x: int = 0, *rest: int) -> None:
        seen.append(f"b{x}{rest}")

    assert emitter.on("e", a) is a
    emitter.emit("e", 1, 2, 3)
    assert seen == ["a", "b1(2, 3)"]
    emitter.off("e", a)
    emitter.off("e", a)
    emitter.off("unknown", a)
    emitter.emit("e")
    assert seen[2:] == ["b0()"]
    emitter.emit("unknown", 1)


def test_once() -> None:
    emitter: EventEmitter[str] = EventEmitter()
    seen: list[int] = []
    registered = emitter.once("e", lambda x: seen.append(x))

    @emitter.once("f")
    def g(x: int) -> None:
        seen.append(x)

    assert registered is not None
    for _ in range(2):
        emitter.emit("e", 1, "surplus")
        emitter.emit("f", 2)
    assert seen == [1, 2]
    emitter.once("e", g)
    emitter.off("e", g)
    emitter.emit("e", 3)
    assert seen == [1, 2]


def test_one_callback_for_once_and_for_good() -> None:
    emitter: EventEmitter[str] = EventEmitter()
    seen: list[int] = []
    emitter.on("e", seen.append)
    emitter.once("e", seen.append)
    for value in (1, 2):
        emitter.emit("e", value)
    assert seen == [1, 1, 2]
    emitter.once("e", seen.append)
    emitter.off("e", seen.append)
    emitter.emit("e", 3)
    assert seen == [1, 1, 2]


def test_followers_learn_where_an_event_comes_from_and_others_see_no_difference() -> None:
    emitter: EventEmitter[str] = EventEmitter()
    seen: list[object] = []
    follower = lambda origin, *args: seen.append((origin, *args))  # noqa: E731
    emitter._follow("e", follower)
    emitter.on("e", lambda *args: seen.append(args))
    emitter._emit_from("here", "e", 1)
    emitter.emit("e", 2)
    emitter.off("e", follower)
    emitter._emit_from("there", "e", 3)
    assert seen == [("here", 1), (1,), (None, 2), (2,), (3,)]


def test_once_is_once_also_when_a_handler_emits_the_same_event() -> None:
    emitter: EventEmitter[str] = EventEmitter()
    seen: list[int] = []

    def again(depth: int) -> None:
        if depth < 2:
            emitter.emit("e", depth + 1)

    emitter.on("e", again)
    emitter.once("e", seen.append)
    emitter.emit("e", 0)
    assert seen == [2]


async def test_a_handler_that_looks_at_a_cancelled_task_harms_nothing() -> None:
    emitter: EventEmitter[str] = EventEmitter()
    seen: list[str] = []
    task = asyncio.ensure_future(asyncio.sleep(1000))
    task.cancel()
    await asyncio.wait([task])
    emitter.on("e", lambda: task.result())
    emitter.on("e", lambda: seen.append("next"))
    emitter.emit("e")
    assert seen == ["next"]


def test_changes_during_an_emit_count_from_the_next() -> None:
    emitter: EventEmitter[str] = EventEmitter()
    seen: list[str] = []

    def late() -> None:
        seen.append("late")

    def first() -> None:
        seen.append("first")
        emitter.on("e", late)
        emitter.off("e", second)

    def second() -> None:
        seen.append("second")

    emitter.on("e", first)
    emitter.on("e", second)
    emitter.emit("e")
    emitter.emit("e")
    assert seen == ["first", "second", "first", "late"]


def test_coroutine_functions_are_refused() -> None:
    emitter: EventEmitter[str] = EventEmitter()

    async def handler() -> None: ...

    class Callable:
        async def __call__(self) -> None: ...

    for register in (emitter.on, emitter.once):
        for bad in (handler, Callable()):
            with pytest.raises(ValueError, match="coroutine function"):
                register("e", bad)
    with pytest.raises(ValueError, match="coroutine function"):
        emitter.once("e")(handler)


# -- channel -------------------------------------------------------------------------------------


async def test_channel_ends_after_what_was_sent() -> None:
    channel: Chan[int] = Chan()
    channel.send_nowait(1)
    await channel.send(2)
    assert channel.recv_nowait() == 1
    channel.close()
    assert channel.closed
    with pytest.raises(ChanClosed):
        channel.send_nowait(3)
    assert [value async for value in channel] == [2]
    with pytest.raises(ChanClosed):
        channel.recv_nowait()
    with pytest.raises(ChanClosed):
        await channel.recv()


async def test_channel_recv_waits() -> None:
    channel: Chan[int] = Chan()
    with pytest.raises(asyncio.QueueEmpty):
        channel.recv_nowait()
    receiver = asyncio.ensure_future(channel.recv())
    await asyncio.sleep(0)
    channel.send_nowait(7)
    assert await receiver == 7


async def test_channel_tells_a_patient_sender_when_there_is_room() -> None:
    channel: Chan[int] = Chan(high=4)
    for value in range(4):
        channel.send_nowait(value)
    assert channel.full
    sender = asyncio.ensure_future(channel.drained())
    await asyncio.sleep(0)
    assert channel.recv_nowait() == 0
    await asyncio.sleep(0)
    assert not sender.done()
    assert await anext(channel) == 1
    await asyncio.sleep(0)
    assert sender.done()
    again = asyncio.ensure_future(Chan.drained(channel))
    channel.close()
    await again


async def test_cancel_and_wait_swallows_what_the_cancelled_raise() -> None:
    async def fails_when_cancelled() -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            raise ValueError("while closing")

    tasks = [
        asyncio.ensure_future(fails_when_cancelled()),
        asyncio.ensure_future(asyncio.sleep(99)),
    ]
    await asyncio.sleep(0)
    assert await cancel_and_wait(*tasks)
    assert all(task.done() for task in tasks)
    assert await cancel_and_wait(*tasks)
