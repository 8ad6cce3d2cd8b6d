"""What a reply is, the same on every provider: retries, commitment, closing, snapshots, usage."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from contract.rows import ROWS, Row
from contract.test_faults import ask, conversation, settled
from listening import listening
from rejoinder._core.usage import Buckets
from rejoinder.errors import APIConnectionError, APIError, APITimeoutError
from rejoinder.llm.chat_context import ChatContext, FunctionCall, FunctionCallOutput
from rejoinder.llm.tool_context import function_tool
from rejoinder.metrics import LLMMetrics
from rejoinder.testing.faults import GREETING, Answer, Call, Fault, FaultServer, Usage
from rejoinder.testing.leaks import Holdings
from rejoinder.types import APIConnectOptions
from work import stopped_clock

every_row = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)

# The pause before a first retry is 0.1 s and no option; everything else is quick.
QUICK = APIConnectOptions(max_retry=2, retry_interval=0.0, timeout=10.0)


@function_tool
async def look_up(city: str, days: int = 1) -> str:
    """Look up the weather.

    Args:
        city: where
        days: how many days ahead
    """
    return "sunny"


@every_row
async def test_text_thinking_and_usage_arrive(row: Row) -> None:
    async with FaultServer() as server, row.make(server.url) as llm:
        server.script(Answer(text=("Grüß", " dich", " 👋"), usage=Usage(prompt=31, completion=5)))
        metrics: list[LLMMetrics] = []
        llm.on("metrics_collected", metrics.append)
        reply = await llm.chat(chat_ctx=conversation()).collect()
    assert reply.text == "Grüß dich 👋"
    assert reply.usage is not None
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (31, 5)
    assert reply.usage.total_tokens == 36
    assert Buckets.of(reply.usage).total == 36
    assert len(metrics) == 1
    assert (metrics[0].prompt_tokens, metrics[0].completion_tokens) == (31, 5)
    assert 0 <= metrics[0].ttft <= metrics[0].duration
    assert not metrics[0].cancelled


@every_row
async def test_calls_arrive_whole_and_in_order(row: Row) -> None:
    calls = (
        Call("look_up", '{"city": "Köln", "days": 3}', "call_1"),
        Call("look_up", "{}", "call_2"),
    )
    async with FaultServer() as server, row.make(server.url) as llm:
        server.script(Answer(text=("Let me see.",), calls=calls))
        reply = await llm.chat(chat_ctx=conversation(), tools=[look_up]).collect()
    assert reply.text == "Let me see."
    assert [call.name for call in reply.tool_calls] == ["look_up", "look_up"]
    assert [call.arguments.replace(" ", "") for call in reply.tool_calls] == [
        '{"city":"Köln","days":3}',
        "{}",
    ]
    assert len({call.call_id for call in reply.tool_calls}) == 2


@every_row
async def test_a_failure_before_any_output_is_tried_again(row: Row) -> None:
    async with FaultServer() as server, row.make(server.url) as llm:
        server.script(Fault.STATUS_503, Fault.RESET_BEFORE_OUTPUT, Answer(text=("fine",)))
        text, error = await ask(llm, conn_options=QUICK)
        assert error is None
        assert text == "fine"
        assert len(server.requests) == 3
        bodies = {request.body for request in server.requests}
        assert len(bodies) == 1, "each attempt sends the same"


@every_row
async def test_attempts_end(row: Row) -> None:
    async with FaultServer() as server, row.make(server.url) as llm:
        server.always(Fault.STATUS_500)
        errors: list[Any] = []
        llm.on("error", errors.append)
        _, error = await ask(llm, conn_options=QUICK)
        assert isinstance(error, APIConnectionError)
        assert isinstance(error.__cause__, APIError)
        assert len(server.requests) == 3
        assert [event.recoverable for event in errors] == [True, True, False]


@every_row
async def test_what_cannot_get_better_is_not_tried_again(row: Row) -> None:
    async with FaultServer() as server, row.make(server.url) as llm:
        server.always(Fault.STATUS_400)
        _, error = await ask(llm, conn_options=QUICK)
        assert error is not None
        assert not error.retryable
        assert len(server.requests) == 1


@every_row
@pytest.mark.parametrize(
    "fault",
    [
        Fault.RESET_MID_STREAM,
        Fault.CLOSE_MID_STREAM,
        Fault.ERROR_EVENT_MID_STREAM,
        Fault.INVALID_JSON,
        Fault.CUT_CHUNKED_BODY,
    ],
    ids=str,
)
async def test_nothing_is_said_twice(row: Row, fault: Fault) -> None:
    """Once text has reached the consumer nothing is retried behind its back."""
    async with FaultServer() as server, row.make(server.url) as llm:
        server.script(Answer(text=("One", " two", " three"), fault=fault, after=2))
        text, error = await ask(llm, conn_options=QUICK)
        assert text == "One two"
        assert error is not None
        assert not error.retryable
        assert len(server.requests) == 1
        assert server.unused == 0


@every_row
@pytest.mark.parametrize(
    "fault",
    [Fault.STALL_BEFORE_HEADERS, Fault.STALL_BEFORE_OUTPUT, Fault.STALL_MID_STREAM],
    ids=str,
)
async def test_closing_is_quick_in_every_state(row: Row, fault: Fault) -> None:
    async with FaultServer() as server:
        before = Holdings.now()
        async with row.make(server.url) as llm:
            server.script(fault)
            stream = llm.chat(chat_ctx=conversation())
            if fault is Fault.STALL_MID_STREAM:
                await anext(stream)
            else:
                while not server.requests:
                    await asyncio.sleep(0.001)
            with stopped_clock():
                await stream.aclose()
            rest = [chunk async for chunk in stream]
            assert len(rest) <= 3  # what lay unread
            async with asyncio.timeout(60):
                await server.all_closed()  # the server has noticed
        await settled(before)


@every_row
async def test_closing_the_llm_ends_its_replies(row: Row) -> None:
    async with FaultServer() as server:
        before = Holdings.now()
        llm = row.make(server.url)
        server.always(Fault.STALL_MID_STREAM)
        streams = [llm.chat(chat_ctx=conversation()) for _ in range(4)]
        for stream in streams:
            await anext(stream)
        async with asyncio.timeout(60):
            await llm.aclose()
            await server.all_closed()
        await llm.aclose()
        await settled(before)


@every_row
async def test_a_reply_that_nobody_reads_can_be_dropped(row: Row) -> None:
    async with FaultServer() as server, row.make(server.url) as llm:
        stream = llm.chat(chat_ctx=conversation())
        await stream.aclose()
        text, error = await ask(llm)
        assert error is None
        assert text


@pytest.mark.looptime
@every_row
async def test_the_whole_reply_has_a_deadline(row: Row) -> None:
    async with FaultServer() as server, row.make(server.url) as llm:
        server.always(Fault.KEEP_ALIVES_FOR_EVER)
        options = APIConnectOptions(max_retry=5, timeout=0.15, retry_interval=0.0, total=0.4)
        _, error = await ask(llm, conn_options=options)
        assert isinstance(error, (APITimeoutError, APIConnectionError))
        # An attempt takes 0.15 s at least: there is no time for a fourth.
        assert len(server.requests) <= 3


@every_row
async def test_a_cancelled_consumer_can_go_on(row: Row) -> None:
    async with FaultServer() as server, row.make(server.url) as llm:
        server.script(Answer(text=("One", " two"), fault=Fault.STALL_MID_STREAM, after=1))
        stream = llm.chat(chat_ctx=conversation())
        first = await anext(stream)
        assert first.delta is not None
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await anext(stream)
        await stream.aclose()


@every_row
async def test_the_request_is_a_snapshot(row: Row) -> None:
    context = conversation()
    tools = [look_up]
    async with FaultServer() as server, row.make(server.url) as llm:
        server.script(Fault.STATUS_503, Fault.NONE)
        stream = llm.chat(chat_ctx=context, tools=tools, conn_options=QUICK)
        message = context.items[0]
        message.content[0] = "changed in place"
        message.content.append("and more")
        message.role = "system"
        context.add_message(role="user", content="added later")
        tools.clear()
        await stream.collect()
        for request in server.requests:
            body = request.body.decode()
            assert "hello" in body
            assert "changed" not in body
            assert "more" not in body
            assert "later" not in body
            assert "look_up" in body


class _Unreadable(Exception):
    """As many exceptions, it can be pickled, and nothing can be made of it."""

    def __init__(self, a: str, b: str) -> None:
        super().__init__(a + b)


@every_row
async def test_the_request_of_a_long_conversation_is_a_snapshot(row: Row) -> None:
    """It is turned into bytes in a thread, when the caller may have changed everything."""
    context = ChatContext.empty()
    for turn in range(150):
        context.add_message(role="user", content=f"question {turn}")
        thinking = {"type": "thinking", "thinking": f"thought {turn}", "signature": "c2ln"}
        call = FunctionCall(
            call_id=f"call_{turn}",
            name="look_up",
            arguments=f'{{"city": "city {turn}"}}',
            extra={"anthropic": {"thinking": [thinking]}},
        )
        output = FunctionCallOutput(
            call_id=call.call_id, name="look_up", output=f"output {turn}", is_error=False
        )
        context.items.extend([call, output])
        # What the application keeps for itself need not be of a kind that can be copied.
        mine = {"mine": threading.Lock(), "also mine": _Unreadable("a", "b")}
        context.add_message(role="assistant", content=f"answer {turn}", extra=mine)
        context.add_message(role="assistant", content="And?", extra={"openai": mine})
    context.add_message(role="user", content="the last question")
    async with FaultServer() as server, row.make(server.url) as llm:
        stream = llm.chat(chat_ctx=context, tools=[look_up], conn_options=QUICK)
        for item in context.items:
            if item.type == "message":
                item.content[0] = "changed"
            elif item.type == "function_call":
                item.extra["anthropic"]["thinking"][0]["thinking"] = "changed"
                item.arguments = '{"city": "changed"}'
            elif item.type == "function_call_output":
                item.output = "changed"
        context.items.clear()
        await stream.collect()
        body = server.requests[0].body.decode()
    assert "changed" not in body
    for said in ("question", "city", "output", "answer"):
        assert all(f"{said} {turn}" in body for turn in range(150))
    assert "the last question" in body


@every_row
async def test_a_long_conversation_does_not_wait_for_tools_that_block(row: Row) -> None:
    """The loop's own pool is small: six threads on two cores."""
    context = ChatContext.empty()
    for turn in range(150):
        context.add_message(role="user", content=f"question {turn}")
        context.add_message(role="assistant", content=f"answer {turn}")
    context.add_message(role="user", content="and now?")
    free = threading.Event()
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(1))
    blocked = loop.run_in_executor(None, free.wait, 30.0)
    try:
        async with FaultServer() as server, row.make(server.url) as llm:
            reply = await llm.chat(chat_ctx=context, conn_options=QUICK).collect()
            assert reply.text
            assert not blocked.done()
    finally:
        free.set()
        await blocked


@every_row
async def test_an_empty_reply_after_a_tool_is_legal(row: Row) -> None:
    context = conversation()
    context.insert(FunctionCall(call_id="call_1", name="look_up", arguments='{"city": "Rome"}'))
    context.insert(
        FunctionCallOutput(call_id="call_1", name="look_up", output="sunny", is_error=False)
    )
    async with FaultServer() as server, row.make(server.url) as llm:
        server.script(Fault.EMPTY_REPLY)
        reply = await llm.chat(
            chat_ctx=context, tools=[look_up], conn_options=APIConnectOptions(max_retry=0)
        ).collect()
    assert reply.text == ""
    assert reply.tool_calls == []


@every_row
async def test_many_replies_at_once(row: Row) -> None:
    async with FaultServer() as server, row.make(server.url) as llm:
        replies = await asyncio.gather(
            *(llm.chat(chat_ctx=conversation()).collect() for _ in range(20))
        )
        assert {reply.text for reply in replies} == {"".join(GREETING)}
        again = server.connections
        await llm.chat(chat_ctx=conversation()).collect()
        assert server.connections == again, "a connection was left over and is used"


@every_row
def test_one_llm_serves_several_loops(row: Row) -> None:
    llm: Any = None

    async def once() -> str:
        nonlocal llm
        async with FaultServer() as server:
            if llm is None:
                llm = row.make(server.url)
                text, error = await ask(llm, conn_options=APIConnectOptions(max_retry=0))
                assert error is None
                return text
            text, error = await ask(llm, conn_options=APIConnectOptions(max_retry=0))
            assert isinstance(error, APIConnectionError)  # the first server is gone
            await llm.aclose()
            return text

    assert asyncio.run(once())
    assert asyncio.run(once()) == ""


@every_row
def test_a_reply_can_be_asked_for_without_a_loop(row: Row) -> None:
    async def collect(stream: Any, server: FaultServer) -> str:
        return (await stream.collect()).text

    async def main() -> tuple[FaultServer, Any]:
        server = FaultServer()
        await server.start()
        return server, row.make(server.url)

    with asyncio.Runner() as runner:
        server, llm = runner.run(main())
        stream = llm.chat(chat_ctx=conversation())
        assert runner.run(collect(stream, server)) == "".join(GREETING)
        runner.run(llm.aclose())
        runner.run(server.aclose())


@every_row
async def test_prewarming_opens_the_connection_that_is_used(row: Row) -> None:
    async with FaultServer() as server, row.make(server.url) as llm:
        llm.prewarm()
        async with asyncio.timeout(60):
            while not server.warmups:
                await asyncio.sleep(0.001)
            await llm._prewarming[asyncio.get_running_loop()]
        await ask(llm)
        assert server.connections == 1


@every_row
async def test_bad_choices_are_refused_before_anything_is_sent(row: Row) -> None:
    async with FaultServer() as server, row.make(server.url) as llm:
        refused = False
        try:
            stream = llm.chat(
                chat_ctx=conversation(), tools=[look_up], tool_choice={"type": "nonsense"}
            )
            await stream.collect()
        except (ValueError, TypeError):
            refused = True
        assert refused
        assert not server.requests


@every_row
async def test_an_empty_conversation_does_not_crash(row: Row) -> None:
    async with FaultServer() as server, row.make(server.url) as llm:
        try:
            await llm.chat(chat_ctx=ChatContext.empty()).collect()
        except (APIError, ValueError):
            pass


@pytest.mark.looptime
async def test_a_server_that_talks_on_after_its_finish_reason_is_heard_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Some name a reason in every chunk: pauses between those must not end the reply."""
    from rejoinder.providers import openai
    from rejoinder.providers.answering import stream

    monkeypatch.setattr(stream, "_GRACE", 0.1)
    pause = 0.4  # longer than the usage of a whole answer is waited for

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
        for text in ("a", "b", "c"):
            writer.write(
                b'data: {"choices":[{"delta":{"content":"%b"},"finish_reason":"stop"}]}\n\n'
                % text.encode()
            )
            await writer.drain()
            if text == "b":
                await asyncio.sleep(pause)
            else:
                await asyncio.sleep(0.01)
        writer.close()

    async with listening(serve) as url, openai.LLM(model="any", base_url=url) as llm:
        reply = await llm.chat(chat_ctx=conversation()).collect()
    assert reply.text == "abc"
