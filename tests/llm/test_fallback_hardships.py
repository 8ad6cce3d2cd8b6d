"""FallbackAdapter with models that were not made for it: they ignore what they are told, change what
they are given, die twice, never stop thinking, close slowly, and are asked by many at once."""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
import threading
import time
from typing import Any, Self

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from llm.fallback_models import (
    DOWN,
    FOREVER,
    ROLE,
    THINKING,
    USAGE,
    Model,
    Step,
    Stream,
    call,
    listen,
    question,
    said,
    text,
    wall_clock,
)
from rejoinder import _stamps, telemetry
from rejoinder._core.budget import Policy
from rejoinder.errors import (
    APIConnectionError,
    APIError,
    APIStatusError,
    APITimeoutError,
    EmptyResponseError,
    RefusalError,
)
from rejoinder.llm import LLM, ChatChunk, ChatContext, LLMStream, function_tool
from rejoinder.llm.fallback_adapter import (
    BreakerOptions,
    FallbackAdapter,
    FallbackLLMStream,
    Hedge,
    TurnBudget,
)
from rejoinder.testing import no_leaks
from rejoinder.turn import Restarted, Text, run_turn
from rejoinder.types import NOT_GIVEN, APIConnectOptions


def now() -> float:
    return asyncio.get_running_loop().time()


# -- what counts as an answer --------------------------------------------------------------------


@pytest.mark.looptime
@pytest.mark.parametrize(
    ("blank", "waits"),
    [([" \n", FOREVER], 2.0), ([0.5, " "] * 100, 2.0), (["\n", USAGE], 0.0)],
    ids=["blank, then silence", "blank for ever", "blank, then the end"],
)
async def test_white_space_is_no_word(blank: list[Step], waits: float) -> None:
    adapter = FallbackAdapter([Model("A", blank), Model("B", [" b"])], attempt_timeout=2.0)
    start = now()
    assert await said(adapter) == ([" b"], None)
    assert now() - start == pytest.approx(waits, abs=0.02)


@pytest.mark.looptime
async def test_white_space_before_the_first_word_is_kept() -> None:
    adapter = FallbackAdapter([Model("A", ["\n", 1.0, "a"]), Model("B", ["b"])])
    assert await said(adapter) == (["\n", "a"], None)


class Working(Model):
    """Sends the arguments of a tool call, part by part, before the call is whole."""

    def chat(self, **given: Any) -> LLMStream:
        super().chat(**given)
        return WorkingStream(
            self,
            self.calls[0],
            chat_ctx=given["chat_ctx"],
            tools=[],
            conn_options=given["conn_options"],
        )


class WorkingStream(Stream):
    async def _run(self) -> None:
        for _ in range(10):
            await asyncio.sleep(1.5)
            self._progressed()
        await super()._run()


@pytest.mark.looptime
async def test_a_long_tool_call_is_not_taken_for_silence() -> None:
    a, b = Working("A", [call("book")]), Model("B", ["b"])
    adapter = FallbackAdapter([a, b], attempt_timeout=2.0)
    async with adapter.chat(chat_ctx=question()) as stream:
        assert len((await stream.collect()).tool_calls) == 1
    assert b.asked == []
    nested = FallbackAdapter([FallbackAdapter([a]), b], attempt_timeout=2.0)
    async with nested.chat(chat_ctx=question()) as stream:
        assert len((await stream.collect()).tool_calls) == 1
    assert b.asked == []


@pytest.mark.looptime
@pytest.mark.parametrize("policy", ["stop", "restart", "resume", "append"])
async def test_a_refusal_in_mid_reply_is_not_hammered_on(policy: Any) -> None:
    a = Model("A", ["I would ", RefusalError("content filter")])
    b = Model("B", ["help."], prefill=True)
    adapter = FallbackAdapter(
        [a, b],
        on_cut="stop" if policy == "append" else policy,
        retry_on_chunk_sent=policy == "append",
    )
    got, error = await said(adapter)
    assert (got, type(error)) == (["I would "], RefusalError)
    assert b.asked == []
    assert adapter.availability() == [True, True]


# -- silence -------------------------------------------------------------------------------------


class Deaf(Model):
    """Ignores the options it is given."""

    def chat(self, **given: Any) -> LLMStream:
        given["conn_options"] = APIConnectOptions(timeout=0)
        return super().chat(**given)


@pytest.mark.looptime
async def test_a_model_that_ignores_its_limits_is_held_to_them() -> None:
    a, b = Deaf("A", [1.0, "a ", FOREVER]), Model("B", ["b"], prefill=True)
    adapter = FallbackAdapter(
        [a, b], attempt_timeout=2.0, budget=TurnBudget(next_token_within=1.0), on_cut="resume"
    )
    events, _ = listen(adapter)
    start = now()
    assert await said(adapter) == (["a ", "b"], None)
    assert now() - start == pytest.approx(2.0, abs=0.02)
    assert events == [("A", False)]
    start = now()
    assert await said(FallbackAdapter([Deaf("A", [FOREVER]), b], attempt_timeout=2.0)) == (
        ["b"],
        None,
    )
    assert now() - start == pytest.approx(2.0, abs=0.02)


async def test_a_word_that_lay_waiting_while_the_loop_was_busy_is_in_time() -> None:
    """Somebody blocks the loop for longer than anybody may be silent. That is not the model's fault."""
    ours, theirs = socket.socketpair()

    class Reading(Stream):
        async def _run(self) -> None:
            reader, writer = await asyncio.open_connection(sock=ours)
            for _ in range(2):
                self._event_ch.send_nowait(text((await reader.readexactly(1)).decode()))
            writer.close()
            await writer.wait_closed()

    class Remote(Model):
        def chat(self, **given: Any) -> LLMStream:
            return Reading(
                self, [], chat_ctx=given["chat_ctx"], tools=[], conn_options=given["conn_options"]
            )

    adapter = FallbackAdapter([Remote("A", []), Model("B", ["b"])], attempt_timeout=0.1)
    task = asyncio.ensure_future(said(adapter))
    for _ in range(2):
        await asyncio.sleep(0.02)
        theirs.send(b"a")
        time.sleep(0.15)
    assert await task == (["a", "a"], None)
    theirs.close()


@pytest.mark.looptime
async def test_the_callers_own_limits_count_too() -> None:
    adapter = FallbackAdapter([Model("A", ["a", FOREVER])], attempt_timeout=9.0)
    start = now()
    got, error = await said(adapter, conn_options=APIConnectOptions(0, between_outputs=1.0))
    assert (got, type(error)) == (["a"], APITimeoutError)
    assert now() - start == pytest.approx(1.0, abs=0.02)
    # 0 has never meant "at once".
    adapter = FallbackAdapter([Model("A", [20.0, "a"])], attempt_timeout=0)
    options = APIConnectOptions(0, first_output=0.0, between_outputs=0.0)
    assert await said(adapter, conn_options=options) == (["a"], None)


@pytest.mark.looptime
async def test_own_retries_of_a_model_do_not_stretch_the_whole_turn() -> None:
    a, b = Model("A", [FOREVER]), Model("B", ["b"])
    adapter = FallbackAdapter([a, b], attempt_timeout=1.0, max_retry_per_llm=1)
    start = now()
    assert await said(adapter) == (["b"], None)
    assert now() - start == pytest.approx(2.1, abs=0.06)
    flaky = Model("A", [DOWN], ["a"])
    heard: list[tuple[str, bool]] = []
    flaky.on("error", lambda event: heard.append((type(event.error).__name__, event.recoverable)))

    class Retrying(Model):
        def chat(self, **given: Any) -> LLMStream:
            assert given["conn_options"].max_retry == 1
            return super().chat(**given)

    adapter = FallbackAdapter([Retrying("A", ["a"]), b], max_retry_per_llm=1)
    assert await said(adapter) == (["a"], None)
    adapter = FallbackAdapter(
        [a, b],
        attempt_timeout=3.0,
        max_retry_per_llm=5,
        budget=TurnBudget(first_token_by=4.0),
    )
    start = now()
    _, error = await said(adapter)
    assert isinstance(error, APITimeoutError)
    assert now() - start == pytest.approx(4.0, abs=0.02)


@pytest.mark.looptime
async def test_the_end_of_the_whole_turn_counts_across_a_resume() -> None:
    models: list[LLM[Any]] = [
        Model("A", ["one ", 2.0, DOWN]),
        Model("B", ["two ", *[1.0, "and "] * 60], prefill=True),
    ]
    adapter = FallbackAdapter(models, on_cut="resume", budget=TurnBudget(done_by=5.5))
    start = now()
    got, error = await said(adapter)
    assert isinstance(error, APITimeoutError)
    assert now() - start == pytest.approx(5.5, abs=0.02)
    assert "".join(got) == "one two and and and "


# -- closing -------------------------------------------------------------------------------------


class Clinging(Model):
    """Its streams take long to close, or never do."""

    def __init__(self, name: str, *calls: list[Step], closing: float) -> None:
        super().__init__(name, *calls)
        self.closing = closing

    def chat(self, **given: Any) -> LLMStream:
        super().chat(**given)
        return ClingingStream(
            self,
            self.calls[0],
            chat_ctx=given["chat_ctx"],
            tools=[],
            conn_options=given["conn_options"],
        )


class ClingingStream(Stream):
    async def aclose(self) -> None:
        await super().aclose()
        assert isinstance(self._llm, Clinging)
        await asyncio.sleep(self._llm.closing)


@pytest.mark.looptime
@pytest.mark.parametrize("closing", [0.5, FOREVER])
async def test_nobody_waits_for_a_model_that_does_not_let_go(closing: float) -> None:
    slow = Clinging("A", [FOREVER], closing=closing)
    for hedge in (None, Hedge(delay=0.5)):
        adapter = FallbackAdapter([slow, Model("B", ["b"])], attempt_timeout=1.0, hedge=hedge)
        _, metrics = listen(adapter)
        start = now()
        assert await said(adapter) == (["b"], None)
        assert now() - start == pytest.approx(0.5 if hedge else 1.0, abs=0.05)
        start = now()
        await adapter.aclose()
        assert now() - start <= 1.001
        assert [m.label for m in metrics if m.purpose == "reply"] == ["B"]
        if hedge and closing < 1:
            assert [m.label for m in metrics if m.purpose == "hedge"] == ["A"]
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()


@pytest.mark.looptime
async def test_closing_an_adapter_in_any_state_takes_a_second_at_most() -> None:
    class Stubborn(Stream):
        async def _run(self) -> None:
            while True:
                try:
                    await asyncio.sleep(0.7)
                except asyncio.CancelledError:
                    if stop:
                        raise

    class Deaf(Model):
        def chat(self, **given: Any) -> LLMStream:
            super().chat(**given)
            return Stubborn(
                self,
                [],
                chat_ctx=given["chat_ctx"],
                tools=[],
                conn_options=given["conn_options"],
            )

    stop = False
    broken = Model("B", [DOWN], [FOREVER])
    adapter = FallbackAdapter([broken, Deaf("A", [])], breaker=BreakerOptions(cooldown=0, jitter=0))
    streams = [adapter.chat(chat_ctx=question()) for _ in range(3)]
    await asyncio.sleep(0.1)
    streams.append(adapter.chat(chat_ctx=question()))
    await asyncio.sleep(0.1)
    start = now()
    await adapter.aclose()
    assert now() - start <= 1.001
    stop = True
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    await asyncio.sleep(2)
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.looptime
async def test_a_model_whose_stream_raises_when_it_is_closed() -> None:
    class Raising(Stream):
        async def aclose(self) -> None:
            await super().aclose()
            raise OSError("closed badly")

    class Bad(Model):
        def chat(self, **given: Any) -> LLMStream:
            steps = self.calls[0]
            return Raising(
                self,
                steps,
                chat_ctx=given["chat_ctx"],
                tools=[],
                conn_options=given["conn_options"],
            )

    b = Model("B", ["b"])
    assert await said(FallbackAdapter([Bad("A", [DOWN]), b])) == (["b"], None)
    assert await said(FallbackAdapter([Bad("A", []), b])) == (["b"], None)
    # What it said was whole.
    assert await said(FallbackAdapter([Bad("A", ["a", "c"]), b])) == (["a", "c"], None)


@pytest.mark.looptime
async def test_an_adapter_can_be_used_after_it_was_closed() -> None:
    a, b = Model("A", [DOWN]), Model("B", ["b"])
    adapter = FallbackAdapter([a, b], breaker=BreakerOptions(cooldown=0, jitter=0))
    _, metrics = listen(adapter)
    await adapter.aclose()
    await adapter.aclose()
    assert await said(adapter) == (["b"], None)
    assert await said(adapter) == (["b"], None)
    assert metrics == []
    await adapter.aclose()
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.looptime
async def test_a_reply_that_is_cancelled_leaves_nothing_to_complain_about(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for steps in range(30):
        adapter = FallbackAdapter([Model("A", [0, "a", DOWN])])
        stream = adapter.chat(chat_ctx=question())
        for _ in range(steps):
            await asyncio.sleep(0)
        await stream.aclose()
        await adapter.aclose()
        del adapter, stream
    gc.collect()
    await asyncio.sleep(0)
    assert [r.getMessage() for r in caplog.records if r.name == "asyncio"] == []


# -- models that are cancelled by others ---------------------------------------------------------


@pytest.mark.looptime
async def test_a_model_that_somebody_closes_in_mid_reply_is_a_failure_and_no_end() -> None:
    a, b = Model("A", ["one ", 1.0, "never said"]), Model("B", ["two"], prefill=True)
    for policy, heard in (("resume", "one two"), ("stop", "one ")):
        adapter = FallbackAdapter([a, b], on_cut=policy)  # type: ignore[arg-type]
        task = asyncio.ensure_future(said(adapter))
        await asyncio.sleep(0.5)
        await a.aclose()
        got, error = await task
        assert "".join(got) == heard
        assert (error is None) is (policy == "resume")


@pytest.mark.looptime
async def test_a_stream_that_raises_a_cancellation_of_its_own() -> None:
    class Odd(Stream):
        async def __anext__(self) -> ChatChunk:
            raise asyncio.CancelledError

    class Foreign(Model):
        def chat(self, **given: Any) -> LLMStream:
            return Odd(
                self, [], chat_ctx=given["chat_ctx"], tools=[], conn_options=given["conn_options"]
            )

    start = now()
    adapter = FallbackAdapter([Foreign("A", []), Model("B", ["b"])], attempt_timeout=0)
    async with asyncio.timeout(60):
        assert await said(adapter) == (["b"], None)
    assert now() == start


@pytest.mark.looptime
async def test_a_foreign_stream_that_is_only_an_iterator() -> None:
    class Wrapper(LLMStream):
        """Wraps another stream, as people do to change what it says."""

        def __init__(self, inner: LLMStream) -> None:
            self.inner = inner

        async def _run(self) -> None: ...

        async def __anext__(self) -> ChatChunk:
            chunk = await self.inner.__anext__()
            if chunk.delta is not None and chunk.delta.content:
                return text(chunk.delta.content.upper())
            return chunk

        async def __aenter__(self) -> Self:
            return self

        async def aclose(self) -> None:
            await self.inner.aclose()

        @property
        def chat_ctx(self) -> ChatContext:
            return self.inner.chat_ctx

        @property
        def tools(self) -> list[Any]:
            return self.inner.tools

    class Upper(Model):
        def chat(self, **given: Any) -> LLMStream:
            return Wrapper(super().chat(**given))

    b = Model("B", ["b"])
    adapter = FallbackAdapter([Upper("A", [1.0, "a", 1.0, "c", USAGE]), b], attempt_timeout=2.0)
    assert await said(adapter) == (["A", "C"], None)
    adapter = FallbackAdapter([Upper("A", [FOREVER]), b], attempt_timeout=2.0)
    start = now()
    assert await said(adapter) == (["b"], None)
    assert now() - start == pytest.approx(2.0, abs=0.02)
    adapter = FallbackAdapter([Upper("A", ["a", FOREVER]), b], attempt_timeout=2.0)
    got, error = await said(adapter)
    assert (got, type(error)) == (["A"], APITimeoutError)


# -- what models are given -----------------------------------------------------------------------


@pytest.mark.looptime
async def test_what_one_model_does_to_its_arguments_the_next_one_does_not_see() -> None:
    given: list[tuple[list[str | None], list[Any], dict[str, Any]]] = []

    class Greedy(Model):
        def chat(
            self, *, chat_ctx: ChatContext, tools: Any, extra_kwargs: Any, **more: Any
        ) -> LLMStream:
            texts = [item.text_content for item in chat_ctx.items if item.type == "message"]
            given.append((texts, list(tools), dict(extra_kwargs)))
            chat_ctx.add_message(role="system", content="documents that were looked up")
            tools.clear()
            extra_kwargs.pop("k")
            return super().chat(chat_ctx=chat_ctx, tools=tools, **more)

    adapter = FallbackAdapter([Greedy("A", [1.0, DOWN]), Greedy("B", ["b"])])

    @function_tool
    async def look_up(word: str) -> str:
        return word

    context, tools, extra = question(), [look_up], {"k": 1}
    async with adapter.chat(chat_ctx=context, tools=tools, extra_kwargs=extra) as stream:
        await asyncio.sleep(0.5)
        context.add_message(role="user", content="said later")
        tools.append(look_up)
        extra["l"] = 2
        assert stream.chat_ctx is context
        assert stream.tools is tools
        await stream.collect()
    assert given == [(["Hello?"], [look_up], {"k": 1})] * 2
    assert len(context.items) == 2


@pytest.mark.looptime
async def test_everything_of_the_call_reaches_the_models() -> None:
    given: list[dict[str, Any]] = []

    class Noting(Model):
        def chat(self, **more: Any) -> LLMStream:
            given.append(more)
            return super().chat(**more)

    adapter = FallbackAdapter([Noting("A", ["a"])], attempt_timeout=7, max_retry_per_llm=2)
    await said(adapter, parallel_tool_calls=True, tool_choice="auto", extra_kwargs={"k": 1})
    await said(adapter)
    first, second = given
    assert (first["parallel_tool_calls"], first["tool_choice"]) == (True, "auto")
    assert first["extra_kwargs"] == {"k": 1}
    assert first["tools"] == []
    options = first["conn_options"]
    assert (options.max_retry, options.timeout, options.retry_interval) == (2, 7, 0.5)
    assert second["extra_kwargs"] is NOT_GIVEN
    assert second["tool_choice"] is NOT_GIVEN


# -- memory and speed ----------------------------------------------------------------------------


@pytest.mark.looptime
async def test_what_is_held_back_does_not_fill_the_memory() -> None:
    """A model that announces itself, or thinks, without end."""

    class Flood(Stream):
        async def _run(self) -> None:
            for number in range(40_000):
                self._event_ch.send_nowait(ROLE if number % 2 else THINKING)
                if number % 100 == 0:
                    await asyncio.sleep(0.001)
            self._event_ch.send_nowait(USAGE)
            self._event_ch.send_nowait(text("a"))

    class Chatty(Model):
        def chat(self, **given: Any) -> LLMStream:
            return Flood(
                self, [], chat_ctx=given["chat_ctx"], tools=[], conn_options=given["conn_options"]
            )

    adapter = FallbackAdapter([Chatty("A", [])])
    chunks: list[ChatChunk] = []
    async with adapter.chat(chat_ctx=question()) as stream:
        assert isinstance(stream, FallbackLLMStream)
        async for chunk in stream:
            chunks.append(chunk)
    assert len(chunks) < 1000
    assert "".join(c.delta.thinking or "" for c in chunks if c.delta) == "hm" * 20_000
    assert chunks.count(USAGE) == 1
    assert "a" in [c.delta.content for c in chunks if c.delta]


async def test_a_slow_consumer_gets_all_and_holds_up_nobody_else() -> None:
    class Fast(Stream):
        async def _run(self) -> None:
            for number in range(6000):
                self._event_ch.send_nowait(text(f"{number} "))
                if self._event_ch.full:
                    await self._wait_for_consumer()
                if number % 16 == 0:
                    await asyncio.sleep(0)

    class Long(Model):
        def chat(self, **given: Any) -> LLMStream:
            return Fast(
                self, [], chat_ctx=given["chat_ctx"], tools=[], conn_options=given["conn_options"]
            )

    adapter = FallbackAdapter([Long("A", [])], attempt_timeout=0.05)
    got: list[str] = []
    async with adapter.chat(chat_ctx=question()) as stream:
        async for chunk in stream:
            assert chunk.delta is not None
            got.append(chunk.delta.content or "")
            if len(got) in (1, 100, 2000):
                await asyncio.sleep(0.15)  # three times as long as anybody may be silent
                assert len(stream._event_ch) <= 1024 + 16
    assert got == [f"{number} " for number in range(6000)]


# -- many at once --------------------------------------------------------------------------------


@pytest.mark.looptime
async def test_fifty_turns_meet_one_outage() -> None:
    a, b = Model("A", [0.1, DOWN]), Model("B", [0.1, "b"])
    adapter = FallbackAdapter([a, b], breaker=BreakerOptions(cooldown=1.0, jitter=0.0))
    events, metrics = listen(adapter)
    with wall_clock():
        for turns in (50, 50):
            assert (
                await asyncio.gather(*(said(adapter) for _ in range(turns)))
                == [(["b"], None)] * turns
            )
        assert len(a.asked) == 50  # those of the first round could not know
        assert events == [("A", False)]
        await asyncio.sleep(1.0)
        a.calls = ([0.1, "a"],)
        await asyncio.gather(*(said(adapter) for _ in range(50)))
        assert len(a.asked) == 51  # one probe for all
        await asyncio.sleep(0.2)
        await asyncio.gather(*(said(adapter) for _ in range(50)))
    assert events == [("A", False), ("A", True)]
    assert len(a.asked) == 101
    assert [m.purpose for m in metrics].count("probe") == 1
    assert len(metrics) == 201


@pytest.mark.looptime
async def test_many_turns_at_once_do_not_hedge_beyond_the_cap() -> None:
    a, b = Model("A", [3.0, "a"]), Model("B", [0.1, "b"])
    adapter = FallbackAdapter([a, b], hedge=Hedge(delay=0.5, max_share=0.08, window=200))
    await asyncio.gather(*(said(adapter) for _ in range(100)))
    assert len(b.asked) <= 8


@pytest.mark.looptime
async def test_no_hedge_once_another_turn_has_found_a_model_down() -> None:
    a, b = Model("A", [0.3, DOWN], [2.0, "a"]), Model("B", ["b"])
    adapter = FallbackAdapter([a, b], hedge=Hedge(delay=0.5, max_share=1.0))
    first = asyncio.ensure_future(said(adapter))
    await asyncio.sleep(0.1)
    second = asyncio.ensure_future(said(adapter))
    assert await first == (["b"], None)
    assert await second == (["a"], None)


@pytest.mark.looptime
async def test_a_long_reply_from_before_an_outage_does_not_end_it() -> None:
    a = Model("A", ["a", 4.0, "end"], [DOWN], [DOWN])
    adapter = FallbackAdapter([a, Model("B", ["b"])], breaker=BreakerOptions(cooldown=60))
    events, _ = listen(adapter)
    with wall_clock():
        long = asyncio.ensure_future(said(adapter))
        await asyncio.sleep(1.0)
        assert await said(adapter) == (["b"], None)
        assert await long == (["a", "end"], None)
        assert adapter.availability() == [False, True]
    assert events == [("A", False)]


@pytest.mark.looptime
async def test_a_silence_from_before_the_recovery_does_not_undo_it() -> None:
    a = Model("A", [FOREVER], [2.0, FOREVER], ["ok"], ["a"])
    adapter = FallbackAdapter(
        [a, Model("B", ["b"])],
        attempt_timeout=3.0,
        breaker=BreakerOptions(cooldown=0.5, jitter=0),
    )
    events, _ = listen(adapter)
    with wall_clock():
        turns = [asyncio.ensure_future(said(adapter))]
        await asyncio.sleep(2.5)
        turns.append(asyncio.ensure_future(said(adapter)))  # will time out at 5.5
        await asyncio.sleep(1.1)  # 3.6: noticed at 3.0, the rest was over at 3.5
        turns.append(asyncio.ensure_future(said(adapter)))  # probes
        await asyncio.gather(*turns)
        assert now() >= 5.5
        assert await said(adapter) == (["a"], None)
    assert events == [("A", False), ("A", True)]


@pytest.mark.looptime
async def test_a_model_that_answers_probes_and_nothing_else_is_left_alone_longer_each_time() -> (
    None
):
    class TwoFaced(Model):
        def chat(self, *, chat_ctx: ChatContext, **more: Any) -> LLMStream:
            probe = chat_ctx.items[-1].text_content == "Say: ok"
            self.calls = (["ok"],) if probe else ([DOWN],)
            return super().chat(chat_ctx=chat_ctx, **more)

    a = TwoFaced("A", [])
    adapter = FallbackAdapter([a, Model("B", ["b"])], breaker=BreakerOptions(jitter=0))
    with wall_clock():
        for _ in range(600):
            await said(adapter)
            await asyncio.sleep(0.1)
    # A minute. Rests of 1, 2, 4, 8, 16, 32 s: each ends with a probe and a turn that fails.
    assert len(a.asked) <= 13


async def test_one_adapter_in_two_event_loops(tmp_path: Any) -> None:
    models = [Model("A", ["a", 0.0, DOWN]), Model("B", [0.0, "b"], prefill=True)]
    adapter = FallbackAdapter(
        models,  # type: ignore[arg-type]
        hedge=Hedge(delay=0.0, max_share=1.0),
        on_cut="resume",
        breaker=BreakerOptions(cooldown=0, jitter=0),
    )
    answers: list[tuple[list[str], Exception | None]] = []

    async def talk() -> None:
        for _ in range(40):
            answers.append(await said(adapter))

    def thread() -> None:
        asyncio.run(talk())

    threads = [threading.Thread(target=thread) for _ in range(2)]
    for each in threads:
        each.start()
    await talk()
    for each in threads:
        await asyncio.to_thread(each.join)
    assert len(answers) == 120
    assert {error for _, error in answers} == {None}
    assert {"".join(got) for got, _ in answers} <= {"ab", "b"}
    await adapter.aclose()


# -- accounts ------------------------------------------------------------------------------------


@pytest.mark.looptime
async def test_a_turn_that_is_left_before_its_first_word_is_paid_for() -> None:
    adapter = FallbackAdapter([Model("A", [THINKING, FOREVER])])
    _, metrics = listen(adapter)
    stream = adapter.chat(chat_ctx=question())
    await asyncio.sleep(0.1)
    await stream.aclose()
    assert [(m.label, m.purpose, m.cancelled, m.estimated) for m in metrics] == [
        ("A", "reply", True, True)
    ]


@pytest.mark.looptime
async def test_closing_the_adapter_does_not_lose_the_cost_of_what_it_cuts() -> None:
    adapter = FallbackAdapter([Model("A", ["a", FOREVER])])
    _, metrics = listen(adapter)
    stream = adapter.chat(chat_ctx=question())
    await asyncio.sleep(0.1)
    await adapter.aclose()
    assert [(m.label, m.cancelled) for m in metrics] == [("A", True)]
    await stream.aclose()


@pytest.mark.looptime
@pytest.mark.parametrize("loser", [[FOREVER], [THINKING, FOREVER], [0.6, "late", FOREVER]])
async def test_the_cost_of_a_lost_hedge_is_reported_once_through_nested_adapters(
    loser: list[Step],
) -> None:
    inner = FallbackAdapter([Model("A", loser), Model("C", ["c"])])
    adapter = FallbackAdapter([inner, Model("B", ["b"])], hedge=Hedge(delay=0.5))
    _, metrics = listen(adapter)
    assert await said(adapter) == (["b"], None)
    await adapter.aclose()
    await inner.aclose()
    assert sorted(m.purpose for m in metrics) == ["hedge", "reply"]
    assert [m.label for m in metrics if m.purpose == "reply"] == ["B"]


@pytest.mark.looptime
async def test_nested_adapters_report_every_model_they_asked() -> None:
    inner = FallbackAdapter([Model("A", [THINKING, "a", DOWN]), Model("C", ["c", USAGE])])
    inner._team.policy = Policy(on_cut="restart")
    adapter = FallbackAdapter([inner, Model("B", ["b"])])
    _, metrics = listen(adapter)
    assert await said(adapter) == (["a", "c"], None)
    assert [(m.label, m.purpose) for m in metrics] == [("A", "restart"), ("C", "reply")]
    assert metrics[1].total_tokens == 12


@pytest.mark.looptime
async def test_a_probe_of_a_nested_adapter_stays_a_probe() -> None:
    inner = FallbackAdapter(
        [Model("A", [DOWN], ["ok"]), Model("C", ["c"])],
        breaker=BreakerOptions(cooldown=0, jitter=0),
    )
    adapter = FallbackAdapter([inner])
    _, metrics = listen(adapter)
    assert await said(adapter) == (["c"], None)
    assert await said(adapter) == (["c"], None)
    await asyncio.sleep(0.1)
    assert sorted((m.label, m.purpose) for m in metrics) == [
        ("A", "probe"),
        ("C", "reply"),
        ("C", "reply"),
    ]


@pytest.mark.looptime
async def test_handlers_that_raise_harm_nobody(caplog: pytest.LogCaptureFixture) -> None:
    adapter = FallbackAdapter([Model("A", [DOWN]), Model("B", ["b"])])

    def bad(_: Any) -> None:
        raise ZeroDivisionError

    for event in ("metrics_collected", "llm_availability_changed", "error"):
        adapter.on(event, bad)  # type: ignore[arg-type]
    assert await said(adapter) == (["b"], None)
    assert caplog.text.count("ZeroDivisionError") >= 2


@pytest.mark.looptime
async def test_error_events_are_those_of_the_adapter_as_in_the_reference() -> None:
    heard: list[tuple[str, bool, str]] = []
    a, b = Model("A", [DOWN]), Model("B", [DOWN])
    adapter = FallbackAdapter([a, b])
    label = "rejoinder.llm.fallback_adapter.FallbackAdapter"
    adapter.on("error", lambda e: heard.append((type(e.error).__name__, e.recoverable, e.label)))
    await said(adapter)
    assert heard == [("APIConnectionError", False, label)]
    heard.clear()
    _, error = await said(adapter, conn_options=APIConnectOptions(1, 0))
    assert heard == [("APIConnectionError", True, label), ("APIConnectionError", False, label)]
    assert isinstance(error, APIConnectionError)
    assert isinstance(error.__cause__, APIConnectionError)
    assert isinstance(error.__cause__.__cause__, ExceptionGroup)
    assert (len(a.asked), len(b.asked)) == (3, 3)


# -- going on after a cut ------------------------------------------------------------------------


@pytest.mark.looptime
async def test_only_thinking_before_the_cut_is_no_beginning() -> None:
    a, b = Model("A", [THINKING, THINKING, DOWN]), Model("B", ["b"], prefill=True)
    adapter = FallbackAdapter([a, b], on_cut="resume")
    assert await said(adapter) == (["b"], None)
    assert [item.text_content for item in b.asked[0].items] == ["Hello?"]


@pytest.mark.looptime
async def test_restarting_twice_discards_what_was_said_since() -> None:
    models: list[LLM[Any]] = [
        Model("A", ["wrong ", "way ", DOWN]),
        Model("B", ["also ", DOWN]),
        Model("C", ["right"]),
    ]
    discards: list[str] = []
    async with FallbackAdapter(models, on_cut="restart").chat(chat_ctx=question()) as stream:
        async for chunk in stream:
            event = ((chunk.delta and chunk.delta.extra) or {}).get("rejoinder")
            if event:
                assert event["event"] == "restart"
                assert event["reason"] == "down"
                discards.append(event["discard"])
    assert discards == ["wrong way ", "also "]


@pytest.mark.looptime
@pytest.mark.parametrize("nothing", [[], [USAGE], [THINKING, EmptyResponseError("nothing")]])
async def test_an_empty_continuation_is_not_taken_for_the_end_while_others_are_left(
    nothing: list[Step],
) -> None:
    models: list[LLM[Any]] = [
        Model("A", ["Once upon", DOWN]),
        Model("B", nothing, prefill=True),
        Model("C", [" a time."], prefill=True),
    ]
    assert await said(FallbackAdapter(models, on_cut="resume")) == (["Once upon", " a time."], None)
    async with FallbackAdapter(models[:2], on_cut="resume").chat(chat_ctx=question()) as stream:
        whole = await stream.collect()
    assert whole.text == "Once upon"
    assert whole.extra == {"rejoinder": {"event": "nothing_to_add", "reason": "down"}}
    models[2] = Model("C", [DOWN])
    assert await said(FallbackAdapter(models, on_cut="resume")) == (["Once upon"], None)


@pytest.mark.looptime
async def test_white_space_that_ends_a_reply_is_not_lost() -> None:
    a, b = Model("A", ["4242", DOWN]), Model("B", ["\n", USAGE], prefill=True)
    assert await said(FallbackAdapter([a, b], on_cut="resume")) == (["4242", "\n"], None)


@pytest.mark.looptime
async def test_a_word_that_may_be_a_repetition_comes_before_the_call_that_follows_it() -> None:
    a = Model("A", ["The capital of France", DOWN])
    b = Model("B", ["the c", call("look")])
    async with FallbackAdapter([a, b], on_cut="resume").chat(chat_ctx=question()) as stream:
        deltas = [chunk.delta async for chunk in stream if chunk.delta]
    assert [d.content or [c.name for c in d.tool_calls] for d in deltas if d.content != ""] == [
        "The capital of France",
        "the c",
        ["look"],
    ]


@pytest.mark.looptime
async def test_what_was_discarded_is_in_no_result() -> None:
    def adapter() -> FallbackAdapter:
        return FallbackAdapter(
            [Model("A", [THINKING, "wrong", DOWN]), Model("B", ["right"])], on_cut="restart"
        )

    async with adapter().chat(chat_ctx=question()) as stream:
        whole = await stream.collect()
    assert (whole.text, whole.thinking) == ("right", "")
    context = question()
    async with run_turn(adapter(), context) as turn:
        events = [event async for event in turn]
    assert [event for event in events if isinstance(event, Text | Restarted)] == [
        Text("wrong"),
        Restarted("wrong"),
        Text("right"),
    ]
    assert [m.text_content for m in context.messages()] == ["Hello?", "right"]
    assert context.items[-1].extra == {}


@pytest.mark.looptime
async def test_a_turn_with_tools_goes_on_after_a_cut_and_runs_the_tool_once() -> None:
    ran: list[str] = []

    @function_tool
    async def pay() -> str:
        """Pay."""
        ran.append("pay")
        return "paid"

    models: list[LLM[Any]] = [
        Model("A", ["One ", call("pay"), DOWN], ["Paid."]),
        Model("B", ["Paid."]),
    ]
    adapter = FallbackAdapter(models, on_cut="resume", retry_on_chunk_sent=True)
    context = question()
    async with run_turn(adapter, context, tools=[pay]) as turn:
        events = [event async for event in turn]
    assert ran == ["pay"]
    assert [e.text for e in events if isinstance(e, Text)] == ["One ", "Paid."]
    assert [item.type for item in context.items] == [
        "message",
        "message",
        "function_call",
        "function_call_output",
        "message",
    ]


@pytest.mark.looptime
@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("The capital is ", " Paris."),
        ("The capital is ", "Paris."),
        ("One.\n\n", "\n\nTwo."),
        ("One.\n\n", "Two."),
        ("Good\u00a0", "\u00a0morning"),
        ("👩\u200d", "👩\u200d👧 wave"),
        ("cafe", "\u0301 noir"),
        ("नमस", "्ते"),
        ("12", "345"),
        ("日本", "語"),
        ("a\r\n", "b"),
    ],
)
async def test_the_seam_of_a_prefill(first: str, second: str) -> None:
    """A model that continues right after what it is shown, at any boundary."""
    stripped = first.rstrip()
    whole = stripped + second if second[:1].isspace() else first + second
    a, b = Model("A", [first, DOWN]), Model("B", list(second), prefill=True)
    got, error = await said(FallbackAdapter([a, b], on_cut="resume"))
    assert ("".join(got), error) == (whole, None)
    shown = b.asked[0].items[-1]
    assert shown.text_content == stripped  # white space at the end is refused by some


@pytest.mark.looptime
async def test_a_second_speaker_that_is_cut_while_it_repeats_leaves_no_stutter() -> None:
    models: list[LLM[Any]] = [
        Model("A", ["The capital of France", DOWN]),
        Model("B", ["of Fra", DOWN]),
        Model("C", ["capital of France is Paris."]),
    ]
    got, error = await said(FallbackAdapter(models, on_cut="resume"))
    assert ("".join(got), error) == ("The capital of France is Paris.", None)


@pytest.mark.looptime
async def test_a_model_without_prefill_is_told_the_last_words() -> None:
    a = Model("A", ["It will be sunny in the north and rai", DOWN])
    b = Model("B", ["the north and rainy in the south."])
    got, error = await said(FallbackAdapter([a, b], on_cut="resume"))
    assert ("".join(got), error) == (
        "It will be sunny in the north and rainy in the south.",
        None,
    )
    instruction = b.asked[0].items[-1].text_content
    assert instruction.endswith(": sunny in the north and rai")


@pytest.mark.looptime
async def test_a_nested_adapter_continues_only_if_all_its_models_do() -> None:
    yes, no = Model("Y", ["s."], prefill=True), Model("N", ["N"])
    assert FallbackAdapter([yes, yes]).continues_prefill
    assert not FallbackAdapter([yes, no]).continues_prefill
    adapter = FallbackAdapter([Model("A", ["Paris i", DOWN]), FallbackAdapter([yes])])
    adapter._team.policy = Policy(on_cut="resume")
    got, _ = await said(adapter)
    assert "".join(got) == "Paris is."


@pytest.mark.looptime
async def test_thinking_and_calls_after_a_resume_are_heard() -> None:
    a = Model("A", ["Let me see. ", DOWN])
    b = Model("B", [THINKING, call("look"), USAGE], prefill=True)
    async with FallbackAdapter([a, b], on_cut="resume").chat(chat_ctx=question()) as stream:
        whole = await stream.collect()
    assert (whole.text, whole.thinking) == ("Let me see.", "hm")
    assert [c.name for c in whole.tool_calls] == ["look"]
    assert whole.usage is not None


# -- clocks and secrets --------------------------------------------------------------------------


@pytest.mark.looptime
async def test_a_clock_that_is_set_back_keeps_nobody_resting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    a = Model("A", [DOWN], ["ok"], ["a"])
    adapter = FallbackAdapter([a, Model("B", ["b"])])
    monkeypatch.setattr(_stamps, "wall_now", lambda: 1e9)
    assert await said(adapter) == (["b"], None)
    monkeypatch.setattr(_stamps, "wall_now", lambda: 1e9 - 86400)
    assert await said(adapter) == (["b"], None)
    await asyncio.sleep(0.1)
    assert await said(adapter) == (["a"], None)


@pytest.mark.looptime
async def test_neither_keys_nor_texts_of_errors_are_shared() -> None:
    shared: dict[str, str] = {}

    class Store:
        def read(self, keys: Any) -> list[str | None]:
            return [shared.get(key) for key in keys]

        def update(self, key: str, change: Any) -> None:
            value = change(shared.get(key))
            if value is not None:
                shared[key] = value

    class Private(Model):
        @property
        def provider(self) -> str:
            return "me:hunter2@example.org"

    error = APIStatusError("the user's card is 4111", status_code=503)
    adapter = FallbackAdapter([Private("A", [error]), Model("B", ["b"])], shared_state=Store())
    await said(adapter)
    everything = repr(shared)
    assert "APIStatusError 503" in everything
    assert "hunter2" not in everything
    assert "4111" not in everything


@pytest.mark.looptime
async def test_spans_of_a_fallback() -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    telemetry.set_tracer_provider(provider)
    try:
        adapter = FallbackAdapter([Model("A", [DOWN]), Model("B", ["b"])])
        assert await said(adapter) == (["b"], None)
    finally:
        telemetry.set_tracer_provider(None)
    spans = exporter.get_finished_spans()
    names = {span.context.span_id: span.name for span in spans if span.context}
    tree = [(s.name, names.get(s.parent.span_id) if s.parent else None) for s in spans]
    attempt = ("llm_request_run", "llm_request")
    inside = ("llm_request", "llm_request_run")
    assert tree == [
        *(attempt, inside) * 2,
        ("llm_request_run", "llm_fallback_adapter"),
        ("llm_fallback_adapter", None),
    ]
    outer = spans[-1]
    assert outer.attributes is not None
    assert outer.attributes["gen_ai.request.model"] == "FallbackAdapter"


# -- budgets -------------------------------------------------------------------------------------


def test_numbers_that_cannot_be_are_refused() -> None:
    for bad in (-1, float("nan")):
        with pytest.raises(ValueError, match="attempt_timeout"):
            FallbackAdapter([Model("A", [])], attempt_timeout=bad)
        with pytest.raises(ValueError, match="done_by"):
            TurnBudget(done_by=bad)
    with pytest.raises(ValueError, match="max_retry_per_llm"):
        FallbackAdapter([Model("A", [])], max_retry_per_llm=-1)
    with pytest.raises(ValueError, match="retry_interval"):
        FallbackAdapter([Model("A", [])], retry_interval=-1)


async def test_outages_of_all_kinds_leave_nothing_behind() -> None:
    async with no_leaks():
        adapter = FallbackAdapter(
            [
                Model("A", [0.001, DOWN], [0.001, "a ", DOWN]),
                Model("B", [THINKING, 0.001, "b ", APIError("x")]),
                Model("C", [0.001, "c"]),
            ],
            on_cut="resume",
            hedge=Hedge(delay=0.001, max_share=1.0),
            breaker=BreakerOptions(cooldown=0.001),
        )
        logging.getLogger("rejoinder").setLevel(logging.CRITICAL)
        await asyncio.gather(*(said(adapter) for _ in range(30)))
        logging.getLogger("rejoinder").setLevel(logging.NOTSET)
        await adapter.aclose()
