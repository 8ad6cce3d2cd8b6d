"""Runs inside the OpenAI Agents SDK."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import agents
import pytest
from contexts import contexts, known
from hypothesis import given, settings
from page import run_program
from pydantic import BaseModel

from rejoinder.integrations.openai_agents import Model, ModelProvider
from rejoinder.llm import ChatContext, FallbackAdapter, FunctionToolCall
from rejoinder.providers import openai
from rejoinder.testing import Fault, FaultServer, ScriptedLLM

agents.set_tracing_disabled(True)


class City(BaseModel):
    name: str
    people: int


def call(name: str, arguments: str = "{}", call_id: str = "c1", **more: Any) -> FunctionToolCall:
    return FunctionToolCall(name=name, arguments=arguments, call_id=call_id, **more)


@agents.function_tool
def weather(city: str) -> str:
    """Tell the weather."""
    return f"rain in {city}"


async def test_a_tool_is_run_and_its_state_returns() -> None:
    extra = {"google": {"thought_signature": "x"}}
    llm = ScriptedLLM([call("weather", '{"city": "Oslo"}', extra=extra)], "It rains.")
    agent = agents.Agent(name="a", instructions="Be brief.", model=Model(llm), tools=[weather])
    result = await agents.Runner.run(agent, "Weather?")
    assert result.final_output == "It rains."
    system, user, made, output = llm.calls[-1].chat_ctx.items
    assert (system.role, system.text_content) == ("system", "Be brief.")
    assert user.text_content == "Weather?"
    assert made.extra == extra
    assert output.output == "rain in Oslo"


async def test_a_streamed_run_tells_words_and_calls() -> None:
    llm = ScriptedLLM([call("weather", '{"city": "Oslo"}')], "It rains in Oslo.")
    agent = agents.Agent(name="a", model=Model(llm), tools=[weather])
    result = agents.Runner.run_streamed(agent, "Weather?")
    words = ""
    items: list[str] = []
    async for event in result.stream_events():
        if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
            words += event.data.delta
        elif event.type == "run_item_stream_event":
            items.append(event.name)
    assert words == result.final_output == "It rains in Oslo."
    assert items == ["tool_called", "tool_output", "message_output_created"]


async def test_another_agent_takes_over() -> None:
    other = agents.Agent(name="Other", model=Model(ScriptedLLM("Other speaking.")))
    first = ScriptedLLM([call("transfer_to_other")])
    agent = agents.Agent(name="First", model=Model(first), handoffs=[other])
    result = await agents.Runner.run(agent, "Hand over.")
    assert result.final_output == "Other speaking."
    assert result.last_agent is other


async def test_structured_output() -> None:
    llm = ScriptedLLM('{"name": "Oslo", "people": 5}')
    agent = agents.Agent(name="a", model=Model(llm), output_type=City)
    result = await agents.Runner.run(agent, "x")
    assert result.final_output == City(name="Oslo", people=5)


async def test_a_model_that_says_nothing_is_replaced() -> None:
    async with FaultServer() as server:
        server.always(Fault.STALL_BEFORE_OUTPUT)
        silent = openai.LLM(model="a", api_key="k", base_url=f"{server.url}/v1")
        llm = FallbackAdapter([silent, ScriptedLLM("Here I am.")], attempt_timeout=0.3)
        agent = agents.Agent(name="a", model=Model(llm))
        result = await asyncio.wait_for(agents.Runner.run(agent, "x"), 10)
        assert result.final_output == "Here I am."
        await llm.aclose()


async def test_usage_is_counted() -> None:
    async with FaultServer() as server:
        llm = openai.LLM(model="a", api_key="k", base_url=f"{server.url}/v1")
        result = await agents.Runner.run(agents.Agent(name="a", model=Model(llm)), "x")
        assert result.context_wrapper.usage.total_tokens > 0
        await llm.aclose()


async def test_models_are_found_by_name() -> None:
    provider = ModelProvider(lambda name: ScriptedLLM(f"I am {name}."), default="b")
    config = agents.RunConfig(model_provider=provider)
    result = await agents.Runner.run(agents.Agent(name="a"), "x", run_config=config)
    assert result.final_output.startswith("I am ")
    assert provider.get_model("c") is provider.get_model("c")
    with pytest.raises(agents.UserError, match="names no model"):
        ModelProvider().get_model(None)


async def test_what_cannot_be_passed_on_is_told() -> None:
    with pytest.raises(TypeError, match="expected a rejoinder LLM"):
        Model("gpt")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="conn_options: expected "):
        Model(ScriptedLLM("x"), conn_options=5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="make: expected a function"):
        ModelProvider("gpt")  # type: ignore[arg-type]
    agent = agents.Agent(name="a", model=Model(ScriptedLLM("x")), tools=[agents.WebSearchTool()])
    with pytest.raises(agents.UserError, match="WebSearchTool"):
        await agents.Runner.run(agent, "x")
    agent = agents.Agent(name="a", model=Model(ScriptedLLM("x")))
    with pytest.raises(agents.UserError, match="previous_response_id"):
        await agents.Runner.run(agent, "x", previous_response_id="resp_1")


@settings(max_examples=100, deadline=None)
@given(contexts("system", "developer"))
def test_a_context_comes_back_as_it_was(chat_ctx: ChatContext) -> None:
    llm = ScriptedLLM("Yes.")
    items, _ = chat_ctx.to_provider_format("openai.responses")
    asyncio.run(agents.Runner.run(agents.Agent(name="a", model=Model(llm)), cast("Any", items)))
    assert known(llm.calls[0].chat_ctx, errors=False) == known(chat_ctx, errors=False)


async def test_the_program_of_the_documentation_runs(tmp_path: Path) -> None:
    assert "Hello from here." in await run_program("OpenAI Agents SDK", tmp_path)
