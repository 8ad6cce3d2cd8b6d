"""Every way in which a provider can be silent, over real sockets, through the real clients: the second
model's first word comes when it should, and the first one is let go."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from contract.rows import ROWS, Row
from listening import listening
from llm.fallback_models import DOWN, Model, listen, question
from rejoinder.errors import APIError
from rejoinder.llm import LLM, FallbackAdapter
from rejoinder.llm.fallback_adapter import TurnBudget
from rejoinder.providers import anthropic, openai
from rejoinder.testing import no_leaks
from rejoinder.testing.faults import Answer, Fault, FaultServer
from rejoinder.types import APIConnectOptions
from work import stopped_clock

pytestmark = pytest.mark.looptime

WAIT = 0.3
"""Seconds that the first model is given where there is something to wait for."""

TO_WAIT_FOR = [
    Fault.STALL_BEFORE_HEADERS,
    Fault.STALL_BEFORE_OUTPUT,
    Fault.KEEP_ALIVES_FOR_EVER,
    Fault.ROLE_ONLY_FOR_EVER,
    Fault.USAGE_ONLY_FOR_EVER,
]
NOTHING_TO_WAIT_FOR = [
    Fault.EMPTY_BODY,
    Fault.EMPTY_REPLY,
    Fault.HTML_200,
    Fault.JSON_ERROR_200,
    Fault.GARBAGE,
    Fault.NOT_HTTP,
    Fault.ERROR_EVENT,
    Fault.STATUS_400,
    Fault.STATUS_401,
    Fault.STATUS_429,
    Fault.STATUS_503,
    Fault.STATUS_502_HTML,
    Fault.STATUS_504_EMPTY,
    Fault.RETRY_AFTER_SECONDS,
    Fault.CLOSE_BEFORE_HEADERS,
    Fault.RESET_BEFORE_HEADERS,
    Fault.RESET_BEFORE_OUTPUT,
    Fault.CLOSE_BEFORE_OUTPUT,
]
MID_REPLY = [
    Fault.STALL_MID_STREAM,
    Fault.KEEP_ALIVES_MID_STREAM,
    Fault.RESET_MID_STREAM,
    Fault.CLOSE_MID_STREAM,
    Fault.CUT_CHUNKED_BODY,
    Fault.TRUNCATED_JSON,
    Fault.INVALID_JSON,
    Fault.ERROR_EVENT_MID_STREAM,
]


def rows(faults: list[Fault]) -> list[Any]:
    return [
        pytest.param(row, fault, id=f"{row.name}-{fault}")
        for row in ROWS
        for fault in faults
        if fault not in row.differs
    ]


@asynccontextmanager
async def two(row: Row) -> AsyncIterator[tuple[FaultServer, LLM[Any], LLM[Any]]]:
    """A server that is told what to do, the model behind it, and a good second model."""
    async with no_leaks(), FaultServer() as bad, FaultServer() as good:
        good.always(Answer(text=("second",)))
        first = row.make(bad.url)
        second = openai.LLM(model="any", api_key="any", base_url=f"{good.url}/v1")
        try:
            yield bad, first, second
        finally:
            await first.aclose()
            await second.aclose()


PATIENT = APIConnectOptions(max_retry=0, timeout=1000.0)
"""Only what the adapter is told limits its models; anything else would outlast the test."""


async def first_word(adapter: FallbackAdapter) -> str:
    async with adapter.chat(chat_ctx=question(), conn_options=PATIENT) as stream:
        async for chunk in stream:
            if chunk.delta is not None and chunk.delta.content:
                return chunk.delta.content
    return ""


@pytest.mark.parametrize(("row", "fault"), rows(TO_WAIT_FOR))
async def test_the_second_models_first_word_comes_in_time(row: Row, fault: Fault) -> None:
    async with two(row) as (bad, first, second):
        bad.always(fault)
        adapter = FallbackAdapter([first, second], attempt_timeout=WAIT)
        started = asyncio.get_running_loop().time()
        assert await first_word(adapter) == "second"
        assert asyncio.get_running_loop().time() - started >= WAIT - 0.005
        assert adapter.availability() == [False, True]
        await adapter.aclose()
        await asyncio.wait_for(bad.all_closed(), 5)


@pytest.mark.parametrize(("row", "fault"), rows(NOTHING_TO_WAIT_FOR))
async def test_where_there_is_nothing_to_wait_for_it_comes_at_once(row: Row, fault: Fault) -> None:
    async with two(row) as (bad, first, second):
        bad.always(fault)
        adapter = FallbackAdapter([first, second], attempt_timeout=1000.0)
        assert await first_word(adapter) == "second"
        rests = fault not in (Fault.STATUS_400, Fault.EMPTY_REPLY)
        assert rests or adapter.availability() == [True, True]
        await adapter.aclose()
        assert len(bad.requests) <= 1  # nobody asked twice


USAGE_FOR_EVER = {
    "openai": b'data: {"id":"r","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":0,'
    b'"total_tokens":1}}\n\n',
    "anthropic": b'event: message_delta\ndata: {"type":"message_delta","delta":{},'
    b'"usage":{"output_tokens":1}}\n\n',
    "google": b'data: {"usageMetadata":{"promptTokenCount":1,"totalTokenCount":1}}\n\n',
}


@pytest.mark.parametrize("name", USAGE_FOR_EVER)
async def test_usage_only_for_ever(name: str) -> None:
    row = next(row for row in ROWS if row.name == name)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            await reader.readexactly(int(head.split(b"content-length:")[1].split(b"\r\n")[0]))
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
            if name == "anthropic":
                writer.write(
                    b'event: message_start\ndata: {"type":"message_start","message":{"id":"r",'
                    b'"role":"assistant","content":[],"usage":{"input_tokens":1}}}\n\n'
                )
            while not reader.at_eof():
                writer.write(USAGE_FOR_EVER[name])
                await writer.drain()
                await asyncio.sleep(0.005)
        except ConnectionError:
            pass
        finally:
            writer.close()

    async with listening(serve) as url, two(row) as (_, _, second):
        first = row.make(url)
        started = asyncio.get_running_loop().time()
        word = await first_word(FallbackAdapter([first, second], attempt_timeout=WAIT))
        assert word == "second"
        assert asyncio.get_running_loop().time() - started >= WAIT - 0.005
        await first.aclose()


async def test_the_stop_reason_is_that_of_the_model_that_spoke() -> None:
    async with FaultServer() as server:
        server.script(Fault.STATUS_401, Answer(text="Hi."))
        first = openai.LLM(model="a", api_key="k", base_url=f"{server.url}/v1")
        second = anthropic.LLM(model="claude-haiku-4-5", api_key="k", base_url=server.url)
        async with first, second, FallbackAdapter([first, second]) as team:
            stream = team.chat(chat_ctx=question())
            assert stream.finish_reason is None
            await stream.collect()
            assert stream.finish_reason == "end_turn"


async def test_nobody_listens_at_the_address() -> None:
    async with two(ROWS[0]) as (_, _, second):
        first = openai.LLM(model="any", api_key="any", base_url="http://127.0.0.1:9/v1")
        adapter = FallbackAdapter([first, second], attempt_timeout=1000.0)
        assert await first_word(adapter) == "second"
        await first.aclose()


@pytest.mark.parametrize(("row", "fault"), rows(MID_REPLY))
async def test_a_reply_that_breaks_off_is_continued_by_claude(row: Row, fault: Fault) -> None:
    """The second model is a real client of one that continues a prefill."""
    async with two(row) as (bad, first, _), FaultServer() as good:
        bad.always(Answer(text=("Good mor", "ning, how are you?"), fault=fault))
        good.always(Answer(text=("ning", " to you.")))
        second = anthropic.LLM(model="claude-sonnet-4-5", api_key="k", base_url=good.url)
        adapter = FallbackAdapter(
            [first, second],
            attempt_timeout=1000.0,
            budget=TurnBudget(next_token_within=0.5),
            on_cut="resume",
        )
        async with adapter.chat(chat_ctx=question(), conn_options=PATIENT) as stream:
            text = (await stream.collect()).text
        assert text == "Good morning to you."
        body = good.requests[-1].json()
        assert body["messages"][-1]["role"] == "assistant"
        last = body["messages"][-1]["content"]
        assert (last if isinstance(last, str) else last[-1]["text"]) == "Good mor"
        await adapter.aclose()
        await second.aclose()


@pytest.mark.parametrize(
    ("model", "extra", "continues"),
    [
        ("claude-3-5-haiku-20241022", {}, True),
        ("claude-sonnet-4-5", {}, True),
        ("claude-sonnet-4-5@20250929", {}, True),
        ("claude-sonnet-4-5", {"thinking": {"type": "disabled"}}, True),
        ("claude-sonnet-4-5", {"thinking": {"type": "enabled", "budget_tokens": 1024}}, False),
        ("claude-opus-4-6", {}, False),
        ("claude-sonnet-4-6", {}, False),
        ("some-new-model", {}, False),
    ],
)
async def test_claude_is_shown_the_beginning_where_it_goes_on_and_asked_otherwise(
    model: str, extra: dict[str, Any], continues: bool
) -> None:
    async with FaultServer() as good:
        good.always(Answer(text=("Good day", " to you.") if not continues else (" to you.",)))
        second = anthropic.LLM(model=model, api_key="k", base_url=good.url)
        adapter = FallbackAdapter([Model("A", ["Good day \n", DOWN]), second], on_cut="resume")
        stream = adapter.chat(chat_ctx=question(), extra_kwargs=extra)
        text = "".join([text async for text in stream.to_str_iterable()])
        assert " ".join(text.split()) == "Good day to you."
        messages = good.requests[-1].json()["messages"]
        assert messages[-1]["role"] == ("assistant" if continues else "user")
        last = messages[-1]["content"]
        last_text = last if isinstance(last, str) else last[-1]["text"]
        if continues:
            assert last_text == "Good day"  # without white space at the end, which is refused
        else:
            assert last_text.endswith(": Good day")
        await second.aclose()


@pytest.mark.parametrize("row", [pytest.param(row, id=row.name) for row in ROWS])
async def test_a_model_that_does_not_continue_is_asked_in_words(row: Row) -> None:
    async with two(row) as (server, second, _):
        server.always(Answer(text=("morning, ", "how are you?")))
        adapter = FallbackAdapter([Model("A", ["Good morn", DOWN]), second], on_cut="resume")
        _, metrics = listen(adapter)
        async with adapter.chat(chat_ctx=question()) as stream:
            assert (await stream.collect()).text == "Good morning, how are you?"
        assert b"Good morn" in server.requests[-1].body
        assert b"Continue it" in server.requests[-1].body
        assert len(metrics) == 2
        await adapter.aclose()


@pytest.mark.parametrize("fault", [Fault.STALL_BEFORE_OUTPUT, Fault.RESET_MID_STREAM])
async def test_left_at_any_moment_nothing_stays_open(fault: Fault) -> None:
    """The consumer goes away after 0, 1, 2, ... turns of the loop, while connections are made, dropped
    and replaced."""
    async with two(ROWS[0]) as (bad, first, second):
        bad.always(Answer(text=("first ", "half"), fault=fault))
        adapter = FallbackAdapter([first, second], attempt_timeout=0.01, on_cut="restart")
        for turns in range(0, 120, 3):
            stream = adapter.chat(chat_ctx=question())
            for _ in range(turns):
                await asyncio.sleep(0)
            with stopped_clock():
                await stream.aclose()
        await adapter.aclose()
        await first.aclose()
        await asyncio.wait_for(bad.all_closed(), 5)


async def test_all_providers_down_each_says_why() -> None:
    async with FaultServer(default=Fault.STATUS_503) as server:
        models = [row.make(server.url) for row in ROWS]
        adapter = FallbackAdapter(models)
        with pytest.raises(APIError) as failure:
            async with adapter.chat(chat_ctx=question()) as stream:
                await stream.collect()
        assert isinstance(failure.value.__cause__, ExceptionGroup)
        assert len(failure.value.__cause__.exceptions) == len(ROWS)
        assert str(failure.value).count("503") >= len(ROWS)
        for model in models:
            await model.aclose()
