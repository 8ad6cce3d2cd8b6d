"""Runs inside Pydantic AI."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from page import run_program
from pydantic import BaseModel
from pydantic_ai import Agent, BinaryContent, NativeOutput
from pydantic_ai.exceptions import ModelAPIError, ModelHTTPError, UserError
from pydantic_ai.messages import ThinkingPart, ToolCallPart
from pydantic_ai.models.fallback import FallbackModel

from rejoinder.integrations.pydantic_ai import Model
from rejoinder.llm import FallbackAdapter, FunctionToolCall
from rejoinder.llm.llm import ChatChunk, ChoiceDelta, CompletionUsage
from rejoinder.providers import openai
from rejoinder.testing import Fault, FaultServer, ScriptedLLM
from rejoinder.types import APIConnectOptions

PNG = (
    b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x02\x00\x00\x00\x90wS\xde"
    b"\x00\x00\x00\x0cIDATx\x9cc\xf8\xcf\xc0\x00\x00\x03\x01\x01\x00\xc9\xfe\x92\xef"
    b"\x00\x00\x00\x00IEND\xaeB`\x82"
)


class City(BaseModel):
    name: str
    people: int


def call(name: str, arguments: str, call_id: str = "c1", **more: Any) -> FunctionToolCall:
    return FunctionToolCall(name=name, arguments=arguments, call_id=call_id, **more)


async def test_a_tool_is_run_and_its_state_returns() -> None:
    extra = {"google": {"thought_signature": "x"}}
    llm = ScriptedLLM([call("weather", '{"city": "Oslo"}', extra=extra)], "It rains.")
    agent = Agent(Model(llm), instructions="Be brief.")

    @agent.tool_plain
    def weather(city: str) -> str:
        """Tell the weather."""
        return f"rain in {city}"

    result = await agent.run("Weather?")
    assert result.output == "It rains."
    system, user, made, output = llm.calls[-1].chat_ctx.items
    assert (system.role, system.text_content) == ("system", "Be brief.")
    assert user.text_content == "Weather?"
    assert made.extra == extra
    assert output.output == "rain in Oslo"


async def test_structured_output_in_both_modes() -> None:
    by_tool = ScriptedLLM([call("final_result", '{"name": "Oslo", "people": 5}')])
    result = await Agent(Model(by_tool), output_type=City).run("x")
    assert result.output == City(name="Oslo", people=5)
    native = ScriptedLLM('{"name": "Oslo", "people": 7}')
    result = await Agent(Model(native), output_type=NativeOutput(City)).run("x")
    assert result.output == City(name="Oslo", people=7)


async def test_text_thinking_and_usage_are_streamed() -> None:
    llm = ScriptedLLM(
        [
            ChatChunk(id="1", delta=ChoiceDelta(thinking="Hm.")),
            ChatChunk(id="1", delta=ChoiceDelta(content="Hello ")),
            ChatChunk(id="1", delta=ChoiceDelta(content="there.")),
            ChatChunk(
                id="1",
                usage=CompletionUsage(
                    completion_tokens=3, prompt_tokens=7, total_tokens=10, reasoning_tokens=1
                ),
            ),
        ]
    )
    async with Agent(Model(llm)).run_stream("x") as stream:
        pieces = [piece async for piece in stream.stream_text(delta=True, debounce_by=None)]
    assert "".join(pieces) == "Hello there."
    assert stream.usage.input_tokens == 7
    assert stream.usage.output_tokens == 3
    parts = stream.all_messages()[-1].parts
    assert [part.content for part in parts if isinstance(part, ThinkingPart)] == ["Hm."]


async def test_pictures_are_passed_on() -> None:
    llm = ScriptedLLM("A dot.")
    await Agent(Model(llm)).run(["What is it?", BinaryContent(PNG, media_type="image/png")])
    (user,) = llm.calls[0].chat_ctx.items
    assert user.content[0] == "What is it?"
    assert user.content[1].image.startswith("data:image/png;base64,")


async def test_errors_are_theirs() -> None:
    async with FaultServer() as server:
        server.always(Fault.STATUS_401)
        model = Model(openai.LLM(model="a", api_key="k", base_url=f"{server.url}/v1"))
        with pytest.raises(ModelHTTPError) as caught:
            await Agent(model).run("x")
        assert caught.value.status_code == 401
    quick = APIConnectOptions(max_retry=0)
    dead = openai.LLM(model="a", api_key="k", base_url="http://127.0.0.1:9/v1")
    with pytest.raises(ModelAPIError):
        await Agent(Model(dead, conn_options=quick)).run("x")
    dead = openai.LLM(model="a", api_key="k", base_url="http://127.0.0.1:9/v1")
    model = FallbackModel(Model(dead, conn_options=quick), Model(ScriptedLLM("Here.", "Here.")))
    assert (await Agent(model).run("x")).output == "Here."


async def test_a_model_that_says_nothing_is_replaced() -> None:
    async with FaultServer() as server:
        server.always(Fault.STALL_BEFORE_OUTPUT)
        silent = openai.LLM(model="a", api_key="k", base_url=f"{server.url}/v1")
        llm = FallbackAdapter([silent, ScriptedLLM("Here I am.")], attempt_timeout=0.3)
        result = await asyncio.wait_for(Agent(Model(llm)).run("x"), 10)
        assert result.output == "Here I am."
        await llm.aclose()


async def test_a_history_goes_on() -> None:
    llm = ScriptedLLM([call("weather", "{}")], "Rain.", "Yes.")
    agent = Agent(Model(llm))

    @agent.tool_plain
    def weather() -> str:
        return "rain"

    first = await agent.run("Weather?")
    second = await agent.run("Sure?", message_history=first.all_messages())
    assert second.output == "Yes."
    kinds = [item.type for item in llm.calls[-1].chat_ctx.items]
    assert kinds == ["message", "function_call", "function_call_output", "message", "message"]
    assert any(isinstance(p, ToolCallPart) for m in first.all_messages() for p in m.parts)


async def test_what_cannot_be_passed_on_is_told() -> None:
    with pytest.raises(TypeError, match="expected a rejoinder LLM"):
        Model("gpt")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="video/mp4"):
        await Agent(Model(ScriptedLLM("x"))).run([BinaryContent(b"x", media_type="video/mp4")])


async def test_the_program_of_the_documentation_runs(tmp_path: Path) -> None:
    assert "Hello from here." in await run_program("Pydantic AI", tmp_path)
