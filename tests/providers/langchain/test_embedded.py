"""A LangGraph agent with a forced tool, on the embedded model."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode

from rejoinder.llm.chat_context import ChatContext
from rejoinder.providers.langchain import LLMAdapter, as_langchain

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def smol() -> Path:
    pytest.importorskip("xllamacpp", reason="the extra `local` is not installed")
    from rejoinder.providers.local.fetch import fetch
    from rejoinder.providers.local.models import ModelError, find_model

    model = find_model("smol")
    if isinstance(model, Path):
        return model
    try:
        return asyncio.run(fetch(model))
    except ModelError as error:
        pytest.skip(f"the small model cannot be fetched here: {error}")


async def test_an_agent_with_a_forced_tool(smol: Path) -> None:
    from rejoinder.providers.local import LLM

    runs: list[str] = []

    @tool
    def weather(city: str) -> str:
        """Get the weather of a city."""
        runs.append(city)
        return "It rains."

    async with LLM(model="smol", temperature=0.0, max_completion_tokens=24) as llm:
        model = as_langchain(llm)
        forced = model.bind_tools([weather], tool_choice="weather")

        async def agent(state: Any) -> dict[str, Any]:
            answered = isinstance(state["messages"][-1], ToolMessage)
            asked = model if answered else forced
            return {"messages": [await asked.ainvoke(state["messages"])]}

        builder = StateGraph(MessagesState)
        builder.add_node("agent", agent)
        builder.add_node("tools", ToolNode([weather]))
        builder.add_edge(START, "agent")
        builder.add_conditional_edges(
            "agent", lambda s: "tools" if s["messages"][-1].tool_calls else END, ["tools", END]
        )
        builder.add_edge("tools", "agent")
        graph = builder.compile()

        done = await graph.ainvoke({"messages": [HumanMessage("What is the weather in Oslo?")]})
        call, output, answer = done["messages"][1:]
        assert call.tool_calls[0]["name"] == "weather"
        assert call.usage_metadata["output_tokens"] > 0
        assert (output.content, len(runs)) == ("It rains.", 1)
        assert answer.text

        ctx = ChatContext.empty()
        ctx.add_message(role="user", content="What is the weather in Oslo?")
        async with LLMAdapter(graph).chat(chat_ctx=ctx) as stream:
            reply = await stream.collect()
        assert reply.text
        assert reply.usage is not None
        assert len(runs) == 2
