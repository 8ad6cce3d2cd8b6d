"""Four ways to test an agent, none of which needs a key or a network.

    pip install pytest
    pytest examples/tested_agent
    OPENAI_API_KEY=... pytest examples/tested_agent --record       # record the conversation anew

The recording in this folder was made with a scripted server.
"""

import asyncio
from pathlib import Path

import pytest
from agent import answer, team

from rejoinder.llm import FunctionToolCall
from rejoinder.providers import openai
from rejoinder.testing import Answer, Fault, FaultServer, ScriptedLLM, record, replay

RECORDINGS = Path(__file__).parent / "recordings"
MODEL = "gpt-4.1"
QUESTION = "Do I need an umbrella in Oslo?"


def call(name: str, arguments: str) -> list[FunctionToolCall]:
    return [FunctionToolCall(name=name, arguments=arguments, call_id="call_1")]


def test_it_looks_up_the_weather() -> None:
    """A scripted model plays a fixed reply, because this tests our code, not a model."""
    llm = ScriptedLLM(call("forecast", '{"city": "Oslo"}'), "Yes, it rains.")
    assert asyncio.run(answer(llm, QUESTION)) == "Yes, it rains."
    assert llm.calls[1].chat_ctx.items[-1].output == "rain, 9 degrees"
    llm.assert_used_up()


def test_the_model_learns_which_cities_are_known() -> None:
    llm = ScriptedLLM(call("forecast", '{"city": "Atlantis"}'), "I know Oslo and Rome only.")
    asyncio.run(answer(llm, "And in Atlantis?"))
    output = llm.calls[1].chat_ctx.items[-1]
    assert output.is_error
    assert "Oslo, Rome" in output.output


def test_a_second_model_answers_when_the_first_breaks_off() -> None:
    """A server that breaks the connection in the middle of an answer."""

    async def scenario() -> str:
        async with FaultServer() as broken, FaultServer() as well:
            broken.script(Fault.RESET_MID_STREAM)
            well.script(Answer(text="Yes, it rains."))
            async with (
                openai.LLM(model="any", api_key="any", base_url=f"{broken.url}/v1") as first,
                openai.LLM(model="any", api_key="any", base_url=f"{well.url}/v1") as second,
            ):
                return await answer(team(first, second), QUESTION)

    # Not "Hello ... Yes, it rains.": the first model's text was discarded.
    assert asyncio.run(scenario()) == "Yes, it rains."


def test_a_recorded_conversation(request: pytest.FixtureRequest) -> None:
    """A recorded response of a real provider, byte by byte. `match="body"` compares the requests with
    the recorded ones, so the test notices a changed prompt or tool. Record again after a change."""
    anew = request.config.getoption("--record")

    async def scenario() -> str:
        if anew:
            for old in RECORDINGS.glob("*.json"):
                old.unlink()
            # Keys are not written. Prompts and answers are: look at a recording before you publish it.
            async with (
                record(RECORDINGS) as transport,
                openai.LLM(model=MODEL, transport=transport) as llm,
            ):
                return await answer(llm, QUESTION)
        played = replay(RECORDINGS, match="body")
        async with openai.LLM(model=MODEL, api_key="any", transport=played) as llm:
            said = await answer(llm, QUESTION)
        played.assert_used_up()
        return said

    assert "umbrella" in asyncio.run(scenario())
