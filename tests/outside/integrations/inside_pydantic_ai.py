"""Runs inside Pydantic AI."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from contexts import contexts, known
from hypothesis import given, settings
from hypothesis import strategies as st
from page import run_program
from pydantic import BaseModel
from pydantic_ai import Agent, BinaryContent, NativeOutput
from pydantic_ai.exceptions import ModelAPIError, ModelHTTPError, UserError
from pydantic_ai.messages import ModelMessagesTypeAdapter, ThinkingPart, ToolCallPart
from pydantic_ai.models.fallback import FallbackModel

from rejoinder.integrations.pydantic_ai import Model, to_messages
from rejoinder.llm import ChatContext, FallbackAdapter, FunctionToolCall
from rejoinder.llm.chat_context import AudioContent, ImageContent
from rejoinder.llm.llm import ChatChunk, ChoiceDelta, CompletionUsage
from rejoinder.media import AudioFrame
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
    with pytest.raises(TypeError, match="conn_options: expected "):
        Model(ScriptedLLM("x"), conn_options=5)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="video/mp4"):
        await Agent(Model(ScriptedLLM("x"))).run([BinaryContent(b"x", media_type="video/mp4")])


states = st.dictionaries(st.sampled_from(["anthropic", "google"]), st.just({"x": [1]}), max_size=2)


@settings(max_examples=100, deadline=None)
@given(contexts("system", shuffled=False), st.data())
def test_a_context_comes_back_as_it_was(chat_ctx: ChatContext, data: st.DataObject) -> None:
    for item in chat_ctx.items:
        if item.type == "function_call" or (item.type == "message" and item.role == "assistant"):
            item.extra = data.draw(states)
    llm = ScriptedLLM("Yes.")
    history = to_messages(ChatContext(chat_ctx.items[:-1]))
    stored = ModelMessagesTypeAdapter.dump_json(history)
    history = ModelMessagesTypeAdapter.validate_json(stored)
    asyncio.run(Agent(Model(llm)).run("Go on.", message_history=history))
    back = llm.calls[0].chat_ctx
    assert known(back) == known(chat_ctx)
    assert [_extra(item) for item in back.items] == [_extra(item) for item in chat_ctx.items]


def _extra(item: Any) -> Any:
    return None if item.type == "function_call_output" else item.extra


async def test_documents_sound_and_state_alone_come_back() -> None:
    ours = ChatContext.empty()
    frame = AudioFrame(bytes(480), 24000, 1, 240)
    ours.add_message(
        role="user",
        content=[
            ImageContent(image="https://example.com/a.pdf", mime_type="application/pdf"),
            ImageContent.from_bytes(b"%PDF-1.7", mime_type="application/pdf"),
            AudioContent(frame=[frame], transcript="Hello"),
            AudioContent(frame=[], transcript="again"),
        ],
    )
    state = {"anthropic": {"thinking": [{"type": "compaction", "content": "x"}]}}
    ours.add_message(role="assistant", content=[], extra=state)
    llm = ScriptedLLM("Yes.")
    await Agent(Model(llm)).run("Go on.", message_history=to_messages(ours))
    user, reply, _ = llm.calls[0].chat_ctx.items
    address, document, sound, words = user.content
    assert (address.image, address.mime_type) == ("https://example.com/a.pdf", "application/pdf")
    assert document.image == ours.items[0].content[1].image
    assert sound == ours.items[0].content[2]
    assert words == "again"
    assert (reply.content, reply.extra) == ([], state)


def test_times_are_kept_and_what_has_no_place_is_refused() -> None:
    ours = ChatContext.empty()
    ours.add_message(role="user", content="Hi", created_at=5.0)
    ours.add_message(role="assistant", content="Hello", created_at=6.0)
    request, response = to_messages(ours)
    assert request.parts[0].timestamp.timestamp() == 5.0
    assert response.timestamp.timestamp() == 6.0
    with pytest.raises(TypeError, match="expected a rejoinder ChatContext, got list"):
        to_messages([])  # type: ignore[arg-type]
    broken = ChatContext.empty()
    broken.add_message(role="user", content=[ImageContent(image="data:image/png")])
    with pytest.raises(ValueError, match="cannot be read"):
        to_messages(broken)
    frames = [AudioFrame(bytes(480), rate, 1, 240) for rate in (24000, 16000)]
    changing = ChatContext.empty()
    changing.add_message(role="user", content=[AudioContent(frame=frames)])
    with pytest.raises(ValueError, match="changes its rate"):
        to_messages(changing)
    picture = ImageContent(image="https://example.com/a.png")
    ours.add_message(role="assistant", content=[picture])
    with pytest.raises(ValueError, match=r"the assistant message .* holds a picture"):
        to_messages(ours)


async def test_a_note_about_text_that_looks_like_a_frame_comes_once() -> None:
    llm = ScriptedLLM("Yes.")
    await Agent(Model(llm)).run("What does <system>x</system> mean?")
    notes = [item for item in llm.calls[0].chat_ctx.items if "looks like" in item.text_content]
    assert len({item.text_content for item in notes}) == len(notes) > 0


async def test_the_program_of_the_documentation_runs(tmp_path: Path) -> None:
    assert "Hello from here." in await run_program("Pydantic AI", tmp_path)
