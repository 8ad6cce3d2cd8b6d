from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rejoinder.errors import APIConnectionError, APIStatusError, APITimeoutError
from rejoinder.llm import ChatContext
from rejoinder.llm.llm import ChatChunk, ChoiceDelta, CompletionUsage, FunctionToolCall
from rejoinder.testing import ScriptedLLM, ScriptExhaustedError
from rejoinder.types import NOT_GIVEN, APIConnectOptions


def conversation(text: str = "hi") -> ChatContext:
    chat_ctx = ChatContext.empty()
    chat_ctx.add_message(role="user", content=text)
    return chat_ctx


CALL = FunctionToolCall(name="weather", arguments='{"city": "Oslo"}', call_id="call_1")


async def test_text_comes_word_by_word() -> None:
    llm = ScriptedLLM("It is  raining. ")
    async with llm.chat(chat_ctx=conversation()) as stream:
        words = [chunk.delta.content async for chunk in stream if chunk.delta]
    assert words == ["It", " is", " ", " raining.", " "]
    llm.assert_used_up()


async def test_steps() -> None:
    usage = CompletionUsage(prompt_tokens=3, completion_tokens=2, total_tokens=5)
    own = ChatChunk(id="mine", delta=ChoiceDelta(role="assistant", content="!"))
    llm = ScriptedLLM(["Let me see", CALL, ChoiceDelta(thinking="hm"), own, usage])
    seen: list[Any] = []
    llm.on("metrics_collected", seen.append)
    reply = await llm.chat(chat_ctx=conversation()).collect()
    assert reply.text == "Let me see!"
    assert reply.tool_calls == [CALL]
    assert reply.thinking == "hm"
    assert reply.usage == usage
    assert [metrics.completion_tokens for metrics in seen] == [2]


async def test_what_it_was_asked_is_kept_as_it_was() -> None:
    llm = ScriptedLLM("one", lambda call: f"{len(call.chat_ctx.items)} items")
    chat_ctx = conversation()
    stream = llm.chat(chat_ctx=chat_ctx, tool_choice="required", extra_kwargs={"a": 1})
    chat_ctx.add_message(role="assistant", content="later")
    await stream.collect()
    assert (await llm.chat(chat_ctx=chat_ctx).collect()).text == "2 items"
    first, second = llm.calls
    assert len(first.chat_ctx.items) == 1
    assert (first.tool_choice, first.extra_kwargs, first.tools) == ("required", {"a": 1}, [])
    assert second.tool_choice is NOT_GIVEN


async def test_errors_are_retried_as_with_a_real_model() -> None:
    failure = APIStatusError("busy", status_code=503)
    llm = ScriptedLLM(failure, ["all ", "well"])
    errors: list[bool] = []
    llm.on("error", lambda error: errors.append(error.recoverable))
    options = APIConnectOptions(max_retry=1)
    reply = await llm.chat(chat_ctx=conversation(), conn_options=options).collect()
    assert reply.text == "all well"
    assert (llm.attempts, len(llm.calls), errors) == (2, 1, [True])


async def test_an_error_after_text_is_final() -> None:
    llm = ScriptedLLM(["some", APIConnectionError("gone")], "never heard")
    with pytest.raises(APIConnectionError, match="gone"):
        await llm.chat(chat_ctx=conversation()).collect()
    assert llm.unused == 1
    with pytest.raises(AssertionError, match=r"1 scripted replies .* \(of 2\).*'never heard'"):
        llm.assert_used_up()


@pytest.mark.looptime
async def test_pauses_pass_on_the_clock_of_the_loop() -> None:
    llm = ScriptedLLM([30.0, "late"])
    options = APIConnectOptions(max_retry=0, timeout=10)
    loop = asyncio.get_running_loop()
    started = loop.time()
    with pytest.raises(APITimeoutError):
        await llm.chat(chat_ctx=conversation(), conn_options=options).collect()
    assert loop.time() - started == pytest.approx(10)


async def test_it_complains_when_asked_too_often() -> None:
    llm = ScriptedLLM("only one")
    await llm.chat(chat_ctx=conversation()).collect()
    with pytest.raises(ScriptExhaustedError, match="asked for reply 2; its script has 1"):
        await llm.chat(chat_ctx=conversation()).collect()
    llm.then("another")
    assert (await llm.chat(chat_ctx=conversation()).collect()).text == "another"


async def test_names_and_prewarming() -> None:
    warm: list[int] = []
    llm = ScriptedLLM(model="m", provider="p", prewarm=lambda: warm.append(1))
    assert (llm.model, llm.provider) == ("m", "p")
    llm.prewarm()
    await asyncio.sleep(0)
    await llm.aclose()
    assert warm == [1]
