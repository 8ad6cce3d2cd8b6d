"""Runs inside Pipecat."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest
from contexts import contexts, known
from hypothesis import given, settings
from page import run_program
from pipecat.adapters.llm.schemas.function_schema import FunctionSchema
from pipecat.adapters.llm.schemas.tools_schema import ToolsSchema
from pipecat.frames.frames import (
    ErrorFrame,
    FunctionCallResultFrame,
    FunctionCallsStartedFrame,
    LLMContextFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMTextFrame,
)
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.tests.utils import SleepFrame, run_test

from rejoinder.integrations.pipecat import LLMService
from rejoinder.llm import ChatContext, FallbackAdapter, FunctionToolCall
from rejoinder.providers import openai
from rejoinder.testing import Fault, FaultServer, ScriptedLLM
from rejoinder.types import APIConnectOptions


def context(*tools: FunctionSchema) -> LLMContext:
    messages: list[Any] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello?"},
    ]
    if tools:
        return LLMContext(messages, tools=ToolsSchema(standard_tools=list(tools)))
    return LLMContext(messages)


def words(frames: Any) -> str:
    return "".join(frame.text for frame in frames if isinstance(frame, LLMTextFrame))


async def test_a_context_becomes_text() -> None:
    llm = ScriptedLLM("Hello there.")
    down, _ = await run_test(LLMService(llm), frames_to_send=[LLMContextFrame(context())])
    assert words(down) == "Hello there."
    kinds = [type(frame) for frame in down]
    assert kinds.index(LLMFullResponseStartFrame) < kinds.index(LLMTextFrame)
    assert kinds[-1] is LLMFullResponseEndFrame or LLMFullResponseEndFrame in kinds
    system, user = llm.calls[0].chat_ctx.items
    assert (system.text_content, user.text_content) == ("Be brief.", "Hello?")


async def test_a_function_is_called() -> None:
    llm = ScriptedLLM(
        [FunctionToolCall(name="weather", arguments='{"city": "Oslo"}', call_id="c1")]
    )
    service = LLMService(llm)
    asked: list[Any] = []

    async def weather(params: Any) -> None:
        asked.append(dict(params.arguments))
        await params.result_callback({"weather": "rain"})

    service.register_function("weather", weather)
    schema = FunctionSchema(
        name="weather",
        description="Tell the weather.",
        properties={"city": {"type": "string"}},
        required=["city"],
    )
    down, _ = await run_test(
        service, frames_to_send=[LLMContextFrame(context(schema)), SleepFrame(sleep=0.3)]
    )
    assert asked == [{"city": "Oslo"}]
    kinds = [type(frame) for frame in down]
    assert FunctionCallsStartedFrame in kinds
    assert FunctionCallResultFrame in kinds


async def test_a_model_that_says_nothing_is_replaced() -> None:
    async with FaultServer() as server:
        server.always(Fault.STALL_BEFORE_OUTPUT)
        silent = openai.LLM(model="a", api_key="k", base_url=f"{server.url}/v1")
        llm = FallbackAdapter([silent, ScriptedLLM("Here I am.")], attempt_timeout=0.3)
        down, _ = await asyncio.wait_for(
            run_test(
                LLMService(llm),
                frames_to_send=[LLMContextFrame(context()), SleepFrame(sleep=0.8)],
            ),
            15,
        )
        assert words(down) == "Here I am."


async def test_a_failure_is_one_error_frame() -> None:
    dead = openai.LLM(model="a", api_key="k", base_url="http://127.0.0.1:9/v1")
    service = LLMService(dead, conn_options=APIConnectOptions(max_retry=0))
    _, up = await run_test(
        service, frames_to_send=[LLMContextFrame(context()), SleepFrame(sleep=0.3)]
    )
    assert len([frame for frame in up if isinstance(frame, ErrorFrame)]) == 1


async def test_one_reply_outside_the_pipeline() -> None:
    service = LLMService(ScriptedLLM("A summary."))
    assert await service.run_inference(context()) == "A summary."


def test_what_is_no_model_is_told() -> None:
    with pytest.raises(TypeError, match="expected a rejoinder LLM"):
        LLMService("gpt")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="conn_options: expected "):
        LLMService(ScriptedLLM("x"), conn_options=5)  # type: ignore[arg-type]


@settings(max_examples=100, deadline=None)
@given(contexts("system", "developer"))
def test_a_context_comes_back_as_it_was(chat_ctx: ChatContext) -> None:
    llm = ScriptedLLM("Yes.")
    messages, _ = chat_ctx.to_provider_format("openai")
    asyncio.run(LLMService(llm).run_inference(LLMContext(cast("Any", messages))))
    assert known(llm.calls[0].chat_ctx, errors=False) == known(chat_ctx, errors=False)


async def test_the_program_of_the_documentation_runs(tmp_path: Path) -> None:
    assert "Hello from here." in await run_program("Pipecat", tmp_path)
