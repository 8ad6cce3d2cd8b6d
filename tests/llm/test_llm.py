"""LLM and LLMStream: attempts, deadlines, closing, metrics, errors, for any kind of subclass."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import subprocess
import sys
import weakref
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import pytest

from rejoinder._core.meter import Pulse
from rejoinder.errors import (
    APIConnectionError,
    APIError,
    APIStatusError,
    APITimeoutError,
)
from rejoinder.llm import ChatContext
from rejoinder.llm.llm import (
    LLM,
    ChatChunk,
    ChoiceDelta,
    CompletionUsage,
    FunctionToolCall,
    LLMError,
    LLMStream,
)
from rejoinder.metrics import LLMMetrics
from rejoinder.types import DEFAULT_API_CONNECT_OPTIONS, APIConnectOptions
from stalls import Stalls

Script = Callable[[LLMStream, int], Awaitable[None]]


class Scripted(LLM[Any]):
    """A model whose attempts are written down: `script(stream, number of the attempt)`."""

    def __init__(self, script: Script) -> None:
        super().__init__()
        self.script = script
        self.attempts = 0
        self.metrics: list[LLMMetrics] = []
        self.errors: list[LLMError] = []
        self.on("metrics_collected", self.metrics.append)
        self.on("error", self.errors.append)

    def chat(
        self,
        *,
        chat_ctx: ChatContext | None = None,
        tools: list[Any] | None = None,
        conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS,
        **_: Any,
    ) -> LLMStream:
        return ScriptedStream(
            self,
            chat_ctx=chat_ctx or ChatContext.empty(),
            tools=tools or [],
            conn_options=conn_options,
        )


class ScriptedStream(LLMStream):
    async def _run(self) -> None:
        assert isinstance(self._llm, Scripted)
        number = self._llm.attempts
        self._llm.attempts += 1
        await self._llm.script(self, number)


def text(content: str, id: str = "r") -> ChatChunk:
    return ChatChunk(id=id, delta=ChoiceDelta(role="assistant", content=content))


def says(*texts: str) -> Script:
    async def script(stream: LLMStream, number: int) -> None:
        for content in texts:
            stream._event_ch.send_nowait(text(content))

    return script


def attempts(*scripts: Exception | Script) -> Script:
    """One script, or one exception to raise, per attempt; the last one repeats."""

    async def script(stream: LLMStream, number: int) -> None:
        step = scripts[min(number, len(scripts) - 1)]
        if isinstance(step, Exception):
            raise step
        await step(stream, number)

    return script


def says_then_fails(content: str, error: Exception) -> Script:
    async def script(stream: LLMStream, number: int) -> None:
        stream._event_ch.send_nowait(text(content))
        raise error

    return script


async def read(stream: LLMStream) -> tuple[list[str], BaseException | None]:
    got: list[str] = []
    try:
        async with stream:
            async for chunk in stream:
                if chunk.delta is not None and chunk.delta.content is not None:
                    got.append(chunk.delta.content)
    except Exception as error:
        return got, error
    return got, None


def error_events(llm: Scripted) -> list[tuple[str, bool]]:
    return [(type(event.error).__name__, event.recoverable) for event in llm.errors]


QUICK = APIConnectOptions(max_retry=3, retry_interval=0.01)


# -- attempts ------------------------------------------------------------------------------------


@pytest.mark.looptime
@pytest.mark.parametrize(
    ("script", "options", "texts", "raised", "events"),
    [
        (
            attempts(APIError("x"), says("ok")),
            APIConnectOptions(),
            ["ok"],
            None,
            [("APIError", True)],
        ),
        (
            attempts(APIError("x")),
            APIConnectOptions(max_retry=2),
            [],
            APIConnectionError,
            [("APIError", True), ("APIError", True), ("APIError", False)],
        ),
        (
            attempts(APITimeoutError()),
            APIConnectOptions(max_retry=1),
            [],
            APIConnectionError,
            [("APITimeoutError", True), ("APITimeoutError", False)],
        ),
        (
            attempts(APIError("x")),
            APIConnectOptions(max_retry=0),
            [],
            APIError,
            [("APIError", False)],
        ),
        (
            attempts(APIStatusError("x", status_code=400)),
            APIConnectOptions(),
            [],
            APIStatusError,
            [("APIStatusError", False)],
        ),
        (
            attempts(APIError("x"), APIStatusError("y", status_code=400)),
            APIConnectOptions(max_retry=1),
            [],
            APIStatusError,
            [("APIError", True), ("APIStatusError", False)],
        ),
        (
            attempts(ValueError("x")),
            APIConnectOptions(),
            [],
            ValueError,
            [("ValueError", False)],
        ),
        (
            attempts(says_then_fails("a", ValueError("x"))),
            APIConnectOptions(),
            ["a"],
            ValueError,
            [("ValueError", False)],
        ),
        # Never twice: what the consumer has heard is not said again by another attempt.
        (
            attempts(says_then_fails("a", APIError("cut")), says("a", "b")),
            APIConnectOptions(),
            ["a"],
            APIError,
            [("APIError", False)],
        ),
    ],
)
async def test_attempts(
    script: Script,
    options: APIConnectOptions,
    texts: list[str],
    raised: type[Exception] | None,
    events: list[tuple[str, bool]],
) -> None:
    llm = Scripted(script)
    got, error = await read(llm.chat(conn_options=options))
    assert got == texts
    assert type(error) is (raised or type(None))
    assert error_events(llm) == events


@pytest.mark.looptime
async def test_the_last_error_is_the_cause_of_giving_up() -> None:
    first, last = APIError("one"), APIError("two")
    llm = Scripted(attempts(first, last))
    _, error = await read(llm.chat(conn_options=APIConnectOptions(max_retry=1)))
    assert isinstance(error, APIConnectionError)
    assert error.__cause__ is last
    assert "2 attempts" in str(error)
    assert "two" in str(error)


@pytest.mark.looptime
@pytest.mark.parametrize("status", [408, 409, 424, 425, 429, 499, 500, 502, 503, 529])
async def test_statuses_that_can_get_better_are_tried_again(status: int) -> None:
    llm = Scripted(attempts(APIStatusError("busy", status_code=status), says("ok")))
    assert await read(llm.chat(conn_options=QUICK)) == (["ok"], None)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
async def test_statuses_that_cannot_get_better_are_not(status: int) -> None:
    llm = Scripted(attempts(APIStatusError("no", status_code=status, retryable=True)))
    _, error = await read(llm.chat(conn_options=QUICK))
    assert isinstance(error, APIStatusError)
    assert llm.attempts == 1


@pytest.mark.looptime
async def test_pauses_follow_the_options_and_are_only_ever_longer(
    looptime: Any,
) -> None:
    llm = Scripted(attempts(APIError("x")))
    options = APIConnectOptions(max_retry=2, retry_interval=0.3)
    start = asyncio.get_running_loop().time()
    await read(llm.chat(conn_options=options))
    took = asyncio.get_running_loop().time() - start
    assert 0.4 <= took <= 0.4 * 1.25


@pytest.mark.looptime
async def test_retry_after_is_honoured() -> None:
    error = APIStatusError("slow down", status_code=429)
    error.retry_after = 3.0
    llm = Scripted(attempts(error, says("ok")))
    start = asyncio.get_running_loop().time()
    assert await read(llm.chat(conn_options=QUICK)) == (["ok"], None)
    assert 3.0 <= asyncio.get_running_loop().time() - start <= 3.3


@pytest.mark.looptime
@pytest.mark.parametrize(
    "options", [APIConnectOptions(timeout=10), APIConnectOptions(timeout=100, total=15)]
)
async def test_retry_after_longer_than_the_time_left_fails_at_once(
    options: APIConnectOptions,
) -> None:
    error = APIStatusError("come back in a minute", status_code=429)
    error.retry_after = 60.0
    llm = Scripted(attempts(error, says("ok")))
    start = asyncio.get_running_loop().time()
    _, raised = await read(llm.chat(conn_options=options))
    assert raised is error
    assert asyncio.get_running_loop().time() == pytest.approx(start, abs=0.01)


@pytest.mark.looptime
async def test_usage_and_role_only_chunks_do_not_forbid_another_attempt() -> None:
    async def empty_then_fails(stream: LLMStream, number: int) -> None:
        stream._event_ch.send_nowait(ChatChunk(id="r", delta=ChoiceDelta(role="assistant")))
        usage = CompletionUsage(completion_tokens=0, prompt_tokens=1, total_tokens=1)
        stream._event_ch.send_nowait(ChatChunk(id="r", usage=usage))
        raise APIConnectionError("reset")

    llm = Scripted(attempts(empty_then_fails, says("ok")))
    assert await read(llm.chat(conn_options=QUICK)) == (["ok"], None)


async def test_a_tool_call_counts_as_said() -> None:
    async def calls_then_fails(stream: LLMStream, number: int) -> None:
        call = FunctionToolCall(name="pay", arguments="{}", call_id="c")
        stream._event_ch.send_nowait(
            ChatChunk(id="r", delta=ChoiceDelta(role="assistant", tool_calls=[call]))
        )
        raise APIConnectionError("reset")

    llm = Scripted(calls_then_fails)
    _, error = await read(llm.chat(conn_options=QUICK))
    assert isinstance(error, APIConnectionError)
    assert not error.retryable
    assert llm.attempts == 1


# -- deadlines -----------------------------------------------------------------------------------


def every(seconds: float, *chunks: ChatChunk | None, forever: bool = False) -> Script:
    async def script(stream: LLMStream, number: int) -> None:
        while True:
            for chunk in chunks:
                await asyncio.sleep(seconds)
                if chunk is not None:
                    stream._event_ch.send_nowait(chunk)
            if not forever:
                return

    return script


ROLE_ONLY = ChatChunk(id="r", delta=ChoiceDelta(role="assistant", content=""))
USAGE_ONLY = ChatChunk(
    id="r", usage=CompletionUsage(completion_tokens=0, prompt_tokens=0, total_tokens=0)
)
THINKING = ChatChunk(id="r", delta=ChoiceDelta(role="assistant", thinking="hm"))
ONCE = APIConnectOptions(max_retry=0, timeout=10)


@pytest.mark.looptime
@pytest.mark.parametrize("chunk", [None, ROLE_ONLY, USAGE_ONLY], ids=["nothing", "role", "usage"])
async def test_what_is_no_output_does_not_keep_a_silent_model_alive(
    chunk: ChatChunk | None,
) -> None:
    llm = Scripted(every(0.5, chunk, forever=True))
    start = asyncio.get_running_loop().time()
    _, error = await read(llm.chat(conn_options=ONCE))
    assert isinstance(error, APITimeoutError)
    assert "no output within 10 s" in str(error)
    assert asyncio.get_running_loop().time() - start == pytest.approx(10, abs=0.01)


@pytest.mark.looptime
async def test_thinking_is_output() -> None:
    llm = Scripted(every(6, THINKING, THINKING, THINKING, text("done")))
    assert await read(llm.chat(conn_options=ONCE)) == (["done"], None)


@pytest.mark.looptime
async def test_each_limit_can_be_set_by_itself() -> None:
    async def run(script: Script, **limits: Any) -> tuple[str, float]:
        start = asyncio.get_running_loop().time()
        options = APIConnectOptions(max_retry=0, **limits)
        _, error = await read(Scripted(script).chat(conn_options=options))
        return str(error), asyncio.get_running_loop().time() - start

    stalls = every(1, text("a"), text("b"), None, None, None, None, None, text("c"))
    message, took = await run(stalls, between_outputs=3)
    assert "no further output within 3 s" in message
    assert took == pytest.approx(5, abs=0.01)
    message, took = await run(stalls, first_output=0.5, between_outputs=3)
    assert "no output within 0.5 s" in message
    assert took == pytest.approx(0.5, abs=0.01)
    message, took = await run(every(1, text("a"), forever=True), total=7)
    assert "not complete within 7 s" in message
    assert took == pytest.approx(7, abs=0.01)


@pytest.mark.looptime
async def test_a_silent_attempt_is_replaced_by_the_next() -> None:
    llm = Scripted(attempts(every(100, None), says("ok")))
    start = asyncio.get_running_loop().time()
    assert await read(llm.chat(conn_options=APIConnectOptions(timeout=2))) == (["ok"], None)
    assert asyncio.get_running_loop().time() - start < 2.2
    assert error_events(llm) == [("APITimeoutError", True)]


@pytest.mark.looptime
@pytest.mark.parametrize("when", [0, 1])
async def test_a_loop_that_stood_still_is_no_silence_of_the_model(when: int) -> None:
    stalls = Stalls()

    async def script(stream: LLMStream, number: int) -> None:
        for i in range(2):
            await asyncio.sleep(0.3)
            if i == when:
                stalls.stand_still(3.0)
            await asyncio.sleep(1.5)  # the model could not answer meanwhile
            stream._event_ch.send_nowait(text("a"))

    llm = Scripted(script)
    assert await read(llm.chat(conn_options=APIConnectOptions(0, timeout=2))) == (["a", "a"], None)
    # The caller's patience with the whole reply is another matter.
    _, error = await read(llm.chat(conn_options=APIConnectOptions(0, timeout=2, total=4)))
    assert isinstance(error, APITimeoutError)


@pytest.mark.looptime
async def test_the_pulse_of_a_reply() -> None:
    async def script(stream: LLMStream, number: int) -> None:
        await asyncio.sleep(1)
        stream._event_ch.send_nowait(text("a"))
        await asyncio.sleep(1)
        stream._progressed()
        usage = CompletionUsage(completion_tokens=1, prompt_tokens=2, total_tokens=3)
        stream._event_ch.send_nowait(ChatChunk(id="r", usage=usage))
        await asyncio.sleep(1)

    start = asyncio.get_running_loop().time()
    stream = Scripted(script).chat()
    assert stream.pulse == Pulse()
    await asyncio.sleep(1.5)
    assert stream.pulse.progress_at == pytest.approx(start + 1)
    await asyncio.sleep(1)
    assert stream.pulse.progress_at == pytest.approx(start + 2)
    assert stream.pulse.usage is not None
    assert not stream.pulse.paused
    await stream.aclose()


@pytest.mark.looptime
async def test_the_limit_on_the_whole_reply_covers_all_attempts() -> None:
    llm = Scripted(attempts(every(100, None)))
    start = asyncio.get_running_loop().time()
    options = APIConnectOptions(max_retry=10, timeout=2, total=5)
    _, error = await read(llm.chat(conn_options=options))
    assert isinstance(error, APITimeoutError)
    assert asyncio.get_running_loop().time() - start <= 5.01


@pytest.mark.looptime
async def test_progress_without_chunks_counts() -> None:
    async def long_tool_call(stream: LLMStream, number: int) -> None:
        for _ in range(8):
            await asyncio.sleep(6)
            stream._progressed()
        stream._event_ch.send_nowait(text("done"))

    assert await read(Scripted(long_tool_call).chat(conn_options=ONCE)) == (["done"], None)


@pytest.mark.looptime
async def test_deadlines_measure_arrival_not_consumption() -> None:
    async def script(stream: LLMStream, number: int) -> None:
        for i in range(1500):
            stream._event_ch.send_nowait(text(str(i)))
            if stream._event_ch.full:
                await stream._wait_for_consumer()

    stream = Scripted(script).chat(conn_options=ONCE)
    await asyncio.sleep(100)  # nobody reads, far beyond the limits
    assert len(stream._event_ch) == 1024
    got, error = await read(stream)
    assert error is None
    assert got == [str(i) for i in range(1500)]


@pytest.mark.looptime
async def test_silence_after_a_slow_consumer_is_still_noticed() -> None:
    async def script(stream: LLMStream, number: int) -> None:
        for _ in range(1024):
            stream._event_ch.send_nowait(text("x"))
        await stream._wait_for_consumer()
        await asyncio.sleep(1000)

    stream = Scripted(script).chat(conn_options=ONCE)
    await asyncio.sleep(50)
    start = asyncio.get_running_loop().time()
    got, error = await read(stream)
    assert len(got) == 1024
    assert isinstance(error, APITimeoutError)
    assert asyncio.get_running_loop().time() - start <= 20


@pytest.mark.looptime
async def test_zero_and_infinite_limits_never_fire() -> None:
    for timeout in (0.0, float("inf")):
        options = APIConnectOptions(max_retry=0, timeout=timeout)
        got = await read(Scripted(every(1000, text("late"))).chat(conn_options=options))
        assert got == (["late"], None)


@pytest.mark.looptime
async def test_a_caller_s_own_cancellation_is_not_mistaken_for_a_deadline() -> None:
    llm = Scripted(every(1000, text("late")))

    async def caller() -> None:
        async with asyncio.timeout(10):  # the same moment as the deadline
            await llm.chat(conn_options=ONCE).collect()

    with pytest.raises((TimeoutError, APITimeoutError)):
        await caller()


# -- iteration and closing -----------------------------------------------------------------------


async def test_a_cancelled_read_loses_nothing() -> None:
    go = asyncio.Event()

    async def script(stream: LLMStream, number: int) -> None:
        await go.wait()
        for content in "abc":
            stream._event_ch.send_nowait(text(content))

    stream = Scripted(script).chat()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(stream), 0.01)
    go.set()
    assert await read(stream) == (["a", "b", "c"], None)


async def test_two_readers_at_once_are_told() -> None:
    stream = Scripted(every(1000, text("x"))).chat()
    first = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="another task"):
        await anext(stream)
    first.cancel()
    await stream.aclose()


async def test_the_end_and_an_error_are_said_again_at_every_further_read() -> None:
    ended = Scripted(says("a")).chat()
    assert await read(ended) == (["a"], None)
    assert [chunk async for chunk in ended] == []
    failed = Scripted(attempts(ValueError("x"))).chat()
    for _ in range(3):
        with pytest.raises(ValueError, match="x"):
            await anext(failed)


async def test_closing_early_keeps_what_lies_unread_and_counts_as_cancelled() -> None:
    async def script(stream: LLMStream, number: int) -> None:
        for content in "abc":
            stream._event_ch.send_nowait(text(content))
        await asyncio.sleep(1000)

    llm = Scripted(script)
    stream = llm.chat()
    await anext(stream)
    await stream.aclose()
    await stream.aclose()
    assert [chunk.delta.content async for chunk in stream if chunk.delta] == ["b", "c"]
    (metrics,) = llm.metrics
    assert metrics.cancelled
    assert metrics.estimated
    assert llm.errors == []


async def test_closing_ends_a_loop_in_another_task() -> None:
    stream = Scripted(every(1000, text("x"))).chat()

    async def consume() -> list[ChatChunk]:
        return [chunk async for chunk in stream]

    consumer = asyncio.ensure_future(consume())
    await asyncio.sleep(0)
    await stream.aclose()
    assert await consumer == []


async def test_closing_before_the_first_step_runs_nothing() -> None:
    llm = Scripted(says("a"))
    stream = llm.chat()
    await stream.aclose()
    assert [chunk async for chunk in stream] == []
    assert llm.attempts == 0
    assert llm.metrics == []


@pytest.mark.looptime
@pytest.mark.parametrize("when", ["before", "meanwhile"])
async def test_what_was_cut_is_not_collected_as_if_it_were_whole(when: str) -> None:
    llm = Scripted(every(1, text("Half"), text(" of it")))
    stream = llm.chat()
    if when == "before":
        await llm.aclose()
    else:
        asyncio.get_running_loop().call_later(1.5, stream._task.cancel)
    with pytest.raises(APIConnectionError, match="closed before its end"):
        await stream.collect()


@pytest.mark.looptime
async def test_what_was_whole_when_it_was_closed_can_be_collected() -> None:
    stream = Scripted(says("All of it")).chat()
    await asyncio.sleep(1)
    await stream.aclose()
    assert (await stream.collect()).text == "All of it"


@pytest.mark.looptime
async def test_closing_is_bounded_even_if_an_attempt_will_not_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    release = asyncio.Event()

    async def stubborn(stream: LLMStream, number: int) -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    stream = Scripted(stubborn).chat()
    await asyncio.sleep(0)
    start = asyncio.get_running_loop().time()
    with caplog.at_level(logging.ERROR, "rejoinder"):
        await stream.aclose()
    assert asyncio.get_running_loop().time() - start <= 1.01
    assert "ScriptedStream did not end" in caplog.text
    assert [chunk async for chunk in stream] == []
    release.set()
    await asyncio.sleep(0.01)


@pytest.mark.looptime
@pytest.mark.parametrize("closers", [1, 2])
async def test_an_attempt_that_takes_no_notice_of_its_end_is_told_again(closers: int) -> None:
    async def swallows(stream: LLMStream, number: int) -> None:
        stream._event_ch.send_nowait(text("a"))
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            pass
        await asyncio.sleep(1000)

    async def cleans_up_without_end(stream: LLMStream, number: int) -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            await asyncio.Event().wait()

    for script in (swallows, cleans_up_without_end):
        llm = Scripted(script)
        stream = llm.chat()
        await asyncio.sleep(1)
        start = asyncio.get_running_loop().time()
        await asyncio.gather(*(stream.aclose() for _ in range(closers)))
        assert asyncio.get_running_loop().time() - start < 1
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert [metrics.cancelled for metrics in llm.metrics] == [True] * (script is swallows)


@pytest.mark.looptime
async def test_a_second_close_does_not_break_into_the_clean_up() -> None:
    cleaned: list[bool] = []

    async def cleans_up(stream: LLMStream, number: int) -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            await asyncio.sleep(0.4)
            cleaned.append(True)

    llm = Scripted(cleans_up)
    stream = llm.chat()
    await asyncio.sleep(1)
    closing = asyncio.ensure_future(stream.aclose())
    await asyncio.sleep(0.1)
    closing.cancel()  # whoever closed it first has no time to wait
    await asyncio.gather(stream.aclose(), llm.aclose())
    assert cleaned == [True]
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_closing_the_model_closes_its_other_streams_if_one_raises() -> None:
    class Breaks(ScriptedStream):
        async def aclose(self) -> None:
            await super().aclose()
            raise OSError("the disk is full")

    llm = Scripted(every(1000, text("x")))
    Breaks(llm, chat_ctx=ChatContext.empty(), tools=[], conn_options=QUICK)
    for _ in range(3):
        llm.chat()
    await asyncio.sleep(0)
    with pytest.raises(OSError, match="disk"):
        await llm.aclose()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_closing_the_model_closes_its_streams() -> None:
    llm = Scripted(every(1000, text("x")))
    streams = [llm.chat() for _ in range(5)]
    await asyncio.sleep(0)
    await llm.aclose()
    for stream in streams:
        assert [chunk async for chunk in stream] == []
    assert len(asyncio.all_tasks()) == 1


async def test_cancelling_the_consumer_at_every_step_leaves_no_task() -> None:
    async def turn(llm: Scripted) -> None:
        async with llm.chat(conn_options=QUICK) as stream:
            async for _ in stream:
                await asyncio.sleep(0)

    for steps in range(30):
        llm = Scripted(attempts(APIError("x"), every(0, text("a"), text("b"), text("c"))))
        task = asyncio.ensure_future(turn(llm))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_stream_that_has_ended_is_freed_at_once() -> None:
    llm = Scripted(says("a", "b"))
    gc.collect()
    gc.disable()
    try:
        stream = llm.chat()
        freed = weakref.ref(stream)
        await stream.collect()
        await asyncio.sleep(0)
        del stream
        assert freed() is None
    finally:
        gc.enable()


async def test_an_abandoned_failure_is_not_reported_as_lost(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stream = Scripted(attempts(ValueError("nobody reads this"))).chat()
    await asyncio.sleep(0.01)
    del stream
    gc.collect()
    assert "never retrieved" not in caplog.text


# -- loops and processes -------------------------------------------------------------------------


def test_a_stream_made_without_a_loop_starts_when_it_is_awaited() -> None:
    llm = Scripted(says("a", "b"))
    stream = llm.chat()
    assert llm.attempts == 0
    assert asyncio.run(read(stream)) == (["a", "b"], None)
    assert asyncio.run(llm.chat().collect()).text == "ab"


def test_one_model_serves_two_loops_one_after_the_other() -> None:
    llm = Scripted(says("a"))
    for _ in range(2):
        assert asyncio.run(read(llm.chat())) == (["a"], None)


def test_a_stream_on_another_loop_says_so() -> None:
    llm = Scripted(every(1000, text("x")))

    async def start() -> LLMStream:
        stream = llm.chat()
        await asyncio.sleep(0)
        return stream

    loop = asyncio.new_event_loop()
    stream = loop.run_until_complete(start())
    try:
        with pytest.raises(RuntimeError, match="another event loop"):
            asyncio.run(stream.aclose())
        with pytest.raises(RuntimeError, match="another event loop"):
            asyncio.run(read_one(stream))
    finally:
        loop.run_until_complete(stream.aclose())
        loop.close()


async def read_one(stream: LLMStream) -> ChatChunk:
    return await anext(stream)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_model_works_after_a_fork() -> None:
    llm = Scripted(says("a"))
    asyncio.run(read(llm.chat()))
    child = os.fork()
    if child == 0:
        good = False
        try:
            signal.alarm(20)
            good = asyncio.run(read(llm.chat())) == (["a"], None)
        finally:
            os._exit(0 if good else 1)
    assert os.waitpid(child, 0)[1] == 0


# -- metrics and events --------------------------------------------------------------------------


@pytest.mark.looptime
async def test_metrics_of_a_complete_reply() -> None:
    usage = CompletionUsage(
        completion_tokens=10,
        prompt_tokens=100,
        prompt_cached_tokens=60,
        cache_creation_tokens=5,
        cache_read_tokens=60,
        reasoning_tokens=3,
        total_tokens=110,
    )
    llm = Scripted(
        every(1, ROLE_ONLY, THINKING, text("a", "id1"), ChatChunk(id="id2", usage=usage))
    )
    await read(llm.chat())
    (metrics,) = llm.metrics
    assert metrics.request_id == "id2"
    assert metrics.ttft == pytest.approx(3, abs=0.01)
    assert metrics.duration == pytest.approx(4, abs=0.01)
    assert metrics.tokens_per_second == pytest.approx(2.5, abs=0.01)
    assert (metrics.completion_tokens, metrics.prompt_tokens, metrics.total_tokens) == (
        10,
        100,
        110,
    )
    assert (metrics.prompt_cached_tokens, metrics.cache_creation_tokens) == (60, 5)
    assert (metrics.cache_read_tokens, metrics.reasoning_tokens) == (60, 3)
    assert not metrics.cancelled
    assert not metrics.estimated
    assert metrics.label.endswith(".Scripted")
    assert metrics.metadata is not None
    assert metrics.metadata.model_name == "unknown"


async def test_a_reply_of_usage_alone_has_metrics_and_no_first_token() -> None:
    usage = CompletionUsage(completion_tokens=0, prompt_tokens=7, total_tokens=7)
    llm = Scripted(every(0, ChatChunk(id="r", usage=usage)))
    await read(llm.chat())
    (metrics,) = llm.metrics
    assert metrics.ttft == -1
    assert metrics.prompt_tokens == 7


async def test_no_chunks_no_metrics() -> None:
    llm = Scripted(says())
    await read(llm.chat())
    assert llm.metrics == []


async def test_a_cut_reply_is_estimated_and_says_so() -> None:
    context = ChatContext.empty()
    context.add_message(role="user", content="x" * 400)
    llm = Scripted(says_then_fails("y" * 80, APIConnectionError("reset")))
    await read(llm.chat(chat_ctx=context))
    (metrics,) = llm.metrics
    assert metrics.estimated
    assert metrics.prompt_tokens == 104, "a message costs a little beside its text"
    assert metrics.completion_tokens == 20
    assert metrics.total_tokens == 124


async def test_a_handler_that_raises_harms_nothing(caplog: pytest.LogCaptureFixture) -> None:
    llm = Scripted(attempts(APIError("x"), says("ok")))
    for event in ("metrics_collected", "error"):
        llm.on(event, lambda _: 1 / 0)
        llm.on(event, lambda a, *, needed: None)
    options = APIConnectOptions(retry_interval=0)
    assert await read(llm.chat(conn_options=options)) == (["ok"], None)
    assert len(llm.metrics) == 1
    assert "ZeroDivisionError" in caplog.text


async def test_collect_and_texts() -> None:
    call = FunctionToolCall(name="f", arguments="{}", call_id="c")
    usage = CompletionUsage(completion_tokens=1, prompt_tokens=1, total_tokens=2)
    chunks = (
        THINKING,
        text(" Hello"),
        ChatChunk(
            id="r",
            delta=ChoiceDelta(tool_calls=[call], extra={"p": {"list": [1], "a": 1}}),
        ),
        ChatChunk(id="r", delta=ChoiceDelta(content=" you \n", extra={"p": {"list": [2]}})),
        ChatChunk(id="r", usage=usage),
    )
    llm = Scripted(every(0, *chunks))
    whole = await llm.chat().collect()
    assert whole.text == "Hello you"
    assert whole.thinking == "hm"
    assert whole.tool_calls == [call]
    assert whole.usage == usage
    assert whole.extra == {"p": {"list": [1, 2], "a": 1}}
    assert [piece async for piece in llm.chat().to_str_iterable()] == [" Hello", " you \n"]
    assert chunks[2].has_response()
    assert chunks[3].has_response()
    assert not chunks[0].has_response()
    assert not chunks[4].has_response()


async def test_errors_reach_collect_and_texts() -> None:
    llm = Scripted(attempts(ValueError("x")))
    with pytest.raises(ValueError):
        await llm.chat().collect()
    with pytest.raises(ValueError):
        [piece async for piece in llm.chat().to_str_iterable()]


async def test_prewarm_works_once_swallows_errors_and_is_cancelled_by_closing() -> None:
    class Warm(Scripted):
        warmed = 0

        async def _prewarm_impl(self) -> None:
            self.warmed += 1
            await asyncio.sleep(1000)

    llm = Warm(says("a"))
    llm.prewarm()
    llm.prewarm()
    await asyncio.sleep(0)
    assert llm.warmed == 1
    await llm.aclose()
    assert asyncio.all_tasks() == {asyncio.current_task()}

    class Cold(Scripted):
        async def _prewarm_impl(self) -> None:
            raise OSError("no network")

    cold = Cold(says("a"))
    cold.prewarm()
    await asyncio.sleep(0)
    assert await read(cold.chat()) == (["a"], None)


def test_no_reply_waits_for_its_models() -> None:
    code = """
from rejoinder.llm import LLM, _prepared, llm
from rejoinder.metrics import LLMMetrics
class Mine(LLM):
    def chat(self, **kwargs): ...
assert not LLMMetrics.__pydantic_complete__
Mine()
assert all(model.__pydantic_complete__ for model in (*_prepared._MODELS, llm.LLMError))
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_prewarm_works_once_for_each_loop() -> None:
    class Warm(Scripted):
        warmed = 0

        async def _prewarm_impl(self) -> None:
            self.warmed += 1

    llm = Warm(says("a"))

    async def prewarm() -> None:
        llm.prewarm()
        await asyncio.sleep(0.01)

    loops = [asyncio.new_event_loop() for _ in range(2)]
    for loop in loops * 2:
        loop.run_until_complete(prewarm())
    assert llm.warmed == 2
    for loop in loops:
        loop.close()
    asyncio.run(prewarm())
    assert llm.warmed == 3
    assert len(llm._prewarming) == 1, "loops that are gone are forgotten"


def test_prewarm_without_a_loop_does_nothing() -> None:
    Scripted(says("a")).prewarm()


async def test_names_and_generic_events() -> None:
    llm = Scripted(says("a"))
    assert llm.label == f"{Scripted.__module__}.Scripted"
    assert (llm.model, llm.provider) == ("unknown", "unknown")
    assert llm.metrics_metadata == {"model_name": "unknown", "model_provider": "unknown"}
    assert LLM[Literal["my_event"]] is not None
    async with llm as same:
        assert same is llm


# -- people's own models -------------------------------------------------------------------------


class Parrot(LLM):
    """As one would write it from the documentation of the reference alone."""

    def chat(
        self,
        *,
        chat_ctx,
        tools=None,
        conn_options=APIConnectOptions(),  # noqa: B008
        parallel_tool_calls=None,
        tool_choice=None,
        extra_kwargs=None,
    ):
        return ParrotStream(self, chat_ctx=chat_ctx, tools=tools or [], conn_options=conn_options)


class ParrotStream(LLMStream):
    async def _run(self) -> None:
        last = self._chat_ctx.items[-1].text_content or ""
        for word in last.split():
            self._event_ch.send_nowait(
                ChatChunk(id="parrot", delta=ChoiceDelta(role="assistant", content=word + " "))
            )
            await asyncio.sleep(0)
        self._event_ch.send_nowait(
            ChatChunk(
                id="parrot",
                usage=CompletionUsage(completion_tokens=1, prompt_tokens=1, total_tokens=2),
            )
        )


async def test_a_subclass_written_from_the_documentation_works() -> None:
    context = ChatContext.empty()
    context.add_message(role="user", content="polly wants a cracker")
    async with Parrot() as llm, llm.chat(chat_ctx=context) as stream:
        assert stream.chat_ctx is context
        assert stream.tools == []
        words = [chunk.delta.content async for chunk in stream if chunk.delta]
    assert "".join(words) == "polly wants a cracker "
