"""People's own models: subclasses that do what subclasses do, and some that misbehave."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from consumer import read
from rejoinder.errors import APIConnectionError, APIError, APITimeoutError
from rejoinder.llm import LLM, ChatChunk, ChatContext, ChoiceDelta, LLMError, LLMStream
from rejoinder.llm import llm as module
from rejoinder.metrics import LLMMetrics
from rejoinder.types import APIConnectOptions

ONCE = APIConnectOptions(max_retry=0, timeout=10)
SEVERAL = APIConnectOptions(max_retry=3, timeout=10, retry_interval=0.01)


class Model(LLM[Any]):
    """Answers with streams of the given class."""

    def __init__(self, stream: Callable[..., LLMStream]) -> None:
        super().__init__()
        self.stream = stream
        self.metrics: list[LLMMetrics] = []
        self.errors: list[LLMError] = []
        self.on("metrics_collected", self.metrics.append)
        self.on("error", self.errors.append)

    def chat(
        self,
        *,
        chat_ctx: ChatContext | None = None,
        tools: list[Any] | None = None,
        conn_options: APIConnectOptions = ONCE,
        **_: Any,
    ) -> LLMStream:
        context = chat_ctx if chat_ctx is not None else ChatContext.empty()
        return self.stream(self, chat_ctx=context, tools=tools or [], conn_options=conn_options)


def text(content: str) -> ChatChunk:
    return ChatChunk(id="r", delta=ChoiceDelta(role="assistant", content=content))


def running(attempt: Callable[[LLMStream], Awaitable[None]]) -> Callable[..., LLMStream]:
    """A stream class whose `_run` is `attempt`."""

    class Stream(LLMStream):
        async def _run(self) -> None:
            await attempt(self)

    return Stream


class Says(LLMStream):
    async def _run(self) -> None:
        for letter in "abc":
            self._event_ch.send_nowait(text(letter))
            await asyncio.sleep(0)


# -- overriding ----------------------------------------------------------------------------------


class PreparesFirst(Says):
    def __init__(self, llm: LLM[Any], **arguments: Any) -> None:
        self.before = "b"
        super().__init__(llm, **arguments)
        self.after = "a"

    async def _run(self) -> None:
        self._event_ch.send_nowait(text(self.before + self.after))
        await super()._run()


class ReadsAsTheReferenceDoes(Says):
    """With an `__anext__` of its own, made of what is documented."""

    async def __anext__(self) -> ChatChunk:
        try:
            return await self._event_aiter.__anext__()
        except StopAsyncIteration:
            assert self._task is not None
            if not self._task.cancelled() and (error := self._task.exception()):
                raise error from None
            raise


class ReadsThroughAGenerator(Says):
    def __aiter__(self) -> Any:
        async def chunks() -> Any:
            async for chunk in self._event_aiter:
                yield chunk

        return chunks()


class ClosesMore(Says):
    closed = 0

    async def aclose(self) -> None:
        await super().aclose()
        await self._metrics_task
        self.closed += 1


class ClosesItsChannel(Says):
    async def _run(self) -> None:
        await super()._run()
        await self._event_ch.send(text("d"))
        self._event_ch.close()


OVERRIDING = [
    (PreparesFirst, "baabc"),
    (ReadsAsTheReferenceDoes, "abc"),
    (ReadsThroughAGenerator, "abc"),
    (ClosesMore, "abc"),
    (ClosesItsChannel, "abcd"),
]


@pytest.mark.parametrize(("stream", "expected"), OVERRIDING)
async def test_what_subclasses_override(stream: type[LLMStream], expected: str) -> None:
    llm = Model(stream)
    assert await read(llm.chat()) == (expected, None)
    assert len(llm.metrics) == 1


@pytest.mark.parametrize(("stream", "expected"), OVERRIDING)
def test_what_subclasses_override_without_a_loop(stream: type[LLMStream], expected: str) -> None:
    reply = Model(stream).chat()
    assert asyncio.run(read(reply)) == (expected, None)
    unentered = Model(stream).chat()

    async def texts() -> list[str]:
        return [c.delta.content async for c in unentered if c.delta and c.delta.content]

    assert "".join(asyncio.run(texts())) == expected


@pytest.mark.parametrize(("stream", "expected"), OVERRIDING)
@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
async def test_what_subclasses_override_on_a_loop_with_eager_tasks(
    stream: type[LLMStream], expected: str
) -> None:
    loop = asyncio.get_running_loop()
    loop.set_task_factory(asyncio.eager_task_factory)
    try:
        llm = Model(stream)
        assert await read(llm.chat()) == (expected, None)
        silent = llm.chat()
        await silent.aclose()
    finally:
        loop.set_task_factory(None)
    assert len(llm.metrics) == 1


async def test_closing_calls_the_overridden_method_once_per_call() -> None:
    stream = Model(ClosesMore).chat()
    assert isinstance(stream, ClosesMore)
    await read(stream)
    assert stream.closed == 1


async def test_chunks_from_a_thread() -> None:
    async def attempt(stream: LLMStream) -> None:
        loop = asyncio.get_running_loop()
        done = asyncio.Event()

        def work() -> None:
            for letter in "abc":
                loop.call_soon_threadsafe(stream._event_ch.send_nowait, text(letter))
            loop.call_soon_threadsafe(done.set)

        thread = threading.Thread(target=work)
        thread.start()
        await done.wait()

    assert await read(Model(running(attempt)).chat()) == ("abc", None)


async def test_a_model_in_front_of_a_model() -> None:
    inner = Model(Says)

    async def attempt(stream: LLMStream) -> None:
        async with inner.chat(chat_ctx=stream._chat_ctx, conn_options=ONCE) as reply:
            async for chunk in reply:
                stream._event_ch.send_nowait(chunk)

    outer = Model(running(attempt))
    assert await read(outer.chat()) == ("abc", None)
    assert (len(inner.metrics), len(outer.metrics)) == (1, 1)


async def test_made_in_one_task_and_read_in_another() -> None:
    async def make() -> LLMStream:
        return Model(Says).chat()

    stream = await asyncio.create_task(make())
    assert await asyncio.create_task(read(stream)) == ("abc", None)


# -- catching what should have gone through ------------------------------------------------------


async def says_goodbye(stream: LLMStream) -> None:
    try:
        await asyncio.sleep(1000)
    except asyncio.CancelledError:
        stream._event_ch.send_nowait(text("bye"))


async def calls_it_a_failure(stream: LLMStream) -> None:
    try:
        await asyncio.sleep(1000)
    except asyncio.CancelledError:
        raise APIConnectionError("lost") from None


async def takes_no_notice(stream: LLMStream) -> None:
    while not stream._event_ch.closed:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            continue


@pytest.mark.looptime
@pytest.mark.parametrize("attempt", [says_goodbye, calls_it_a_failure, takes_no_notice])
async def test_a_deadline_that_the_attempt_swallows_is_still_a_deadline(
    attempt: Callable[[LLMStream], Awaitable[None]],
) -> None:
    loop = asyncio.get_running_loop()
    started = loop.time()
    llm = Model(running(attempt))
    _, error = await read(llm.chat())
    assert isinstance(error, APITimeoutError)
    assert "no output within 10 s" in str(error)
    assert loop.time() - started <= 12.1
    await asyncio.sleep(2)
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.looptime
async def test_an_attempt_that_swallows_a_deadline_once_is_replaced(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tries: list[int] = []

    async def attempt(stream: LLMStream) -> None:
        tries.append(1)
        if len(tries) == 2:
            stream._event_ch.send_nowait(text("ok"))
            return
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            await asyncio.sleep(1000)

    llm = Model(running(attempt))
    assert await read(llm.chat(conn_options=SEVERAL)) == ("ok", None)
    assert [event.recoverable for event in llm.errors] == [True]
    assert "left behind" not in caplog.text
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.looptime
@pytest.mark.parametrize("attempt", [says_goodbye, calls_it_a_failure])
async def test_closing_is_not_mistaken_for_a_failure_or_a_whole_reply(
    attempt: Callable[[LLMStream], Awaitable[None]], caplog: pytest.LogCaptureFixture
) -> None:
    llm = Model(running(attempt))
    stream = llm.chat(conn_options=SEVERAL)
    await asyncio.sleep(0.1)
    with caplog.at_level(logging.WARNING):
        await stream.aclose()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert llm.errors == []
    assert all(metrics.cancelled for metrics in llm.metrics)
    assert caplog.text == ""


@pytest.mark.looptime
async def test_a_task_that_was_cancelled_from_outside_makes_no_further_attempt() -> None:
    llm = Model(running(calls_it_a_failure))
    stream = llm.chat(conn_options=SEVERAL)
    await asyncio.sleep(0.1)
    assert stream._task is not None
    stream._task.cancel()
    assert isinstance((await read(stream))[1], APIConnectionError)
    assert [event.recoverable for event in llm.errors] == [False]


@pytest.mark.looptime
async def test_something_cancelled_within_an_attempt_is_not_the_end_of_a_reply() -> None:
    tries: list[int] = []

    async def attempt(stream: LLMStream) -> None:
        tries.append(1)
        if len(tries) == 1:
            inner = asyncio.ensure_future(asyncio.sleep(1000))
            asyncio.get_running_loop().call_later(0.1, inner.cancel)
            await inner
        stream._event_ch.send_nowait(text("ok"))

    assert await read(Model(running(attempt)).chat(conn_options=SEVERAL)) == ("ok", None)
    tries.clear()
    _, error = await read(Model(running(attempt)).chat())
    assert isinstance(error, APIConnectionError)
    assert "was cancelled" in str(error)


async def test_a_stray_end_of_iteration_is_not_the_end_of_a_reply() -> None:
    async def attempt(stream: LLMStream) -> None:
        stream._event_ch.send_nowait(text("a"))
        raise StopAsyncIteration

    got, error = await read(Model(running(attempt)).chat(conn_options=SEVERAL))
    assert got == "a"
    assert isinstance(error, RuntimeError)


@pytest.mark.looptime
async def test_a_closed_channel_needs_no_further_attempt() -> None:
    async def attempt(stream: LLMStream) -> None:
        stream._event_ch.close()
        raise APIError("after the end")

    llm = Model(running(attempt))
    _, error = await read(llm.chat(conn_options=SEVERAL))
    assert str(error) == "after the end"
    assert len(llm.errors) == 1


async def test_names_that_cannot_be_told_do_not_lose_a_reply(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Nameless(Model):
        @property
        def metrics_metadata(self) -> dict[str, str]:
            raise KeyError("name")

    llm = Nameless(Says)
    assert await read(llm.chat()) == ("abc", None)
    assert llm.metrics == []
    assert "cannot compute the cost of a reply" in caplog.text


# -- readers that stay away ----------------------------------------------------------------------


async def talks_without_end(stream: LLMStream) -> None:
    while True:
        stream._event_ch.send_nowait(text("x"))
        if stream._event_ch.full:
            await stream._wait_for_consumer()


@pytest.mark.looptime
async def test_a_stream_that_was_dropped_ends_by_itself() -> None:
    llm = Model(running(talks_without_end))
    async for _ in llm.chat():
        break
    await asyncio.sleep(2 * module._FORGOTTEN + 1)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    (event,) = llm.errors
    assert "was not read for" in str(event.error)


@pytest.mark.looptime
async def test_a_reader_may_be_slow_as_long_as_it_reads() -> None:
    """A chunk every five minutes, and nobody loses patience."""
    stream = Model(running(talks_without_end)).chat()
    for _ in range(20):
        await anext(stream)
        await asyncio.sleep(module._FORGOTTEN / 2)
    assert stream._task is not None
    assert not stream._task.done()
    await stream.aclose()


async def test_output_that_waited_while_the_loop_was_busy_was_in_time() -> None:
    """What counts is when output arrived. While something else keeps the loop busy, nobody can
    take it; when the loop goes on, the limit has passed and the output is there."""
    go = threading.Event()
    reader, writer = await asyncio.open_connection(*echo(go))

    async def attempt(stream: LLMStream) -> None:
        writer.write(b"x")
        await reader.readexactly(1)
        stream._event_ch.send_nowait(text("a"))
        writer.write(b"x")
        await reader.readexactly(1)
        stream._event_ch.send_nowait(text("b"))

    options = APIConnectOptions(max_retry=0, timeout=0.2)
    stream = Model(running(attempt)).chat(conn_options=options)
    first = await anext(stream)
    assert first.delta is not None
    go.set()
    threading.Event().wait(0.5)  # the whole loop stands still
    assert await read(stream) == ("b", None)
    writer.close()
    await writer.wait_closed()


def echo(go: threading.Event) -> tuple[str, int]:
    """The address of a server, in a thread of its own, that sends back two bytes, the second one
    only after `go`."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with listener, listener.accept()[0] as peer:
            peer.sendall(peer.recv(1))
            byte = peer.recv(1)
            go.wait(10)
            peer.sendall(byte)
            peer.recv(1)

    threading.Thread(target=serve, daemon=True).start()
    host, port = listener.getsockname()
    return host, port
