"""Our models as LangChain's: messages, tools, streaming, state and errors."""

from __future__ import annotations

import base64
import subprocess
import sys
from typing import Any, TypedDict

import pytest
from langchain_core.callbacks import AsyncCallbackHandler
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.tools import tool
from langgraph.graph.message import add_messages
from pydantic import BaseModel

from rejoinder._core.items import AudioContent, ImageContent
from rejoinder.errors import APIStatusError
from rejoinder.llm import FallbackAdapter
from rejoinder.llm.chat_context import ChatContext
from rejoinder.llm.llm import ChatChunk, ChoiceDelta, CompletionUsage, FunctionToolCall
from rejoinder.llm.tool_context import ToolContext
from rejoinder.media import AudioFrame, VideoBufferType, VideoFrame
from rejoinder.providers import anthropic, aws, google, mistralai, openai
from rejoinder.providers.langchain import as_langchain
from rejoinder.providers.langchain.format import from_messages, to_chat_ctx
from rejoinder.testing.faults import Answer, FaultServer
from rejoinder.testing.scripted import ScriptedLLM

USAGE = CompletionUsage(
    completion_tokens=5,
    prompt_tokens=7,
    total_tokens=12,
    prompt_cached_tokens=3,
    cache_read_tokens=3,
    reasoning_tokens=2,
)
CALL = FunctionToolCall(name="weather", arguments='{"city": "Oslo"}', call_id="c1")


@tool
def weather(city: str) -> str:
    """The weather in a city."""
    return f"rain in {city}"


async def test_text_streams_and_tokens_are_counted() -> None:
    model = as_langchain(ScriptedLLM(["Hello", " you", USAGE]))
    chunks = [chunk async for chunk in model.astream("hi")]
    assert [chunk.text for chunk in chunks if chunk.text] == ["Hello", " you"]
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole = whole + chunk
    assert isinstance(whole, AIMessageChunk)
    assert whole.text == "Hello you"
    assert whole.usage_metadata == {
        "input_tokens": 7,
        "output_tokens": 5,
        "total_tokens": 12,
        "input_token_details": {"cache_read": 3},
        "output_token_details": {"reasoning": 2},
    }
    assert whole.response_metadata["model_provider"] == "testing"


def test_the_plain_methods_work_without_a_loop() -> None:
    model = as_langchain(
        ScriptedLLM("one two", "three four", APIStatusError("no", status_code=400))
    )
    assert model.invoke("hi").text == "one two"
    assert [chunk.text for chunk in model.stream("hi") if chunk.text] == ["three", " four"]
    with pytest.raises(APIStatusError, match="no"):
        model.invoke("hi")


async def test_tools_are_offered_forced_and_called() -> None:
    llm = ScriptedLLM([CALL], "It rains.")
    model = as_langchain(llm).bind_tools([weather], tool_choice="any", parallel_tool_calls=False)
    reply = await model.ainvoke("weather?")
    assert reply.tool_calls == [
        {"name": "weather", "args": {"city": "Oslo"}, "id": "c1", "type": "tool_call"}
    ]
    asked = llm.calls[0]
    assert asked.tool_choice == "required"
    assert asked.parallel_tool_calls is False
    (spec,) = ToolContext(asked.tools).parse_function_tools("openai", strict=False)
    assert spec["function"]["name"] == "weather"
    assert spec["function"]["parameters"]["properties"]["city"]["type"] == "string"
    await model.ainvoke([HumanMessage("weather?"), reply, ToolMessage("rain", tool_call_id="c1")])
    items = llm.calls[1].chat_ctx.items
    assert [item.type for item in items] == ["message", "function_call", "function_call_output"]
    assert items[2].name == "weather"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("auto", "auto"),
        ("none", "none"),
        ("required", "required"),
        (True, "required"),
        ("weather", {"type": "function", "function": {"name": "weather"}}),
    ],
)
async def test_tool_choice_in_all_its_spellings(choice: Any, expected: Any) -> None:
    llm = ScriptedLLM("x")
    await as_langchain(llm).bind_tools([weather], tool_choice=choice).ainvoke("hi")
    assert llm.calls[0].tool_choice == expected


async def test_structured_output() -> None:
    class City(BaseModel):
        name: str
        people: int

    call = FunctionToolCall(name="City", arguments='{"name": "Oslo", "people": 7}', call_id="c")
    model = as_langchain(ScriptedLLM([call])).with_structured_output(City)
    assert await model.ainvoke("a city") == City(name="Oslo", people=7)


class _Town(TypedDict):
    name: str


_SCHEMA = {
    "title": "Town",
    "type": "object",
    "properties": {"name": {"type": "string"}},
    "required": ["name"],
}


@pytest.mark.parametrize("method", ["json_schema", "json_mode"])
@pytest.mark.parametrize("schema", [_Town, _SCHEMA])
async def test_structured_output_by_the_response_format(method: str, schema: Any) -> None:
    llm = ScriptedLLM('{"name": "Oslo"}', "no JSON")
    model = as_langchain(llm).with_structured_output(schema, method=method, include_raw=True)
    told = await model.ainvoke("a town")
    assert told["parsed"] == {"name": "Oslo"}
    assert told["raw"].content == '{"name": "Oslo"}'
    assert llm.calls[0].response_format == schema
    failed = await model.ainvoke("a town")
    assert failed["parsed"] is None
    assert failed["parsing_error"] is not None


async def test_structured_output_is_of_the_type() -> None:
    class City(BaseModel):
        name: str

    llm = ScriptedLLM('{"name": "Oslo"}')
    model = as_langchain(llm).with_structured_output(City, method="json_schema")
    assert await model.ainvoke("a city") == City(name="Oslo")
    for wrong in ({"method": "magic"}, {"method": "json_schema", "more": 1}):
        with pytest.raises(ValueError, match="expected method 'function_calling'"):
            as_langchain(llm).with_structured_output(City, **wrong)


async def test_blocks_of_a_provider_that_langchain_has_wrapped() -> None:
    def block(value: Any) -> HumanMessage:
        return HumanMessage(content=[{"type": "non_standard", "value": value}])

    llm = ScriptedLLM("ok")
    document = {"type": "document", "source": {"type": "text", "data": "hello"}}
    await as_langchain(llm).ainvoke([block(document)])
    assert llm.calls[0].chat_ctx.items[0].content == ["hello"]  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="'hologram' cannot be sent"):
        await as_langchain(llm).ainvoke([block({"type": "hologram"})])


async def test_opaque_state_travels_out_and_back() -> None:
    call = CALL.model_copy(update={"extra": {"google": {"thought_signature": "c2ln"}}})
    state = {"anthropic": {"thinking": [{"type": "thinking", "signature": "abc"}]}}
    llm = ScriptedLLM(
        [ChoiceDelta(extra=state), ChoiceDelta(thinking="hm"), "Let me see.", call], "done"
    )
    model = as_langchain(llm)
    reply = await model.ainvoke("hi")
    assert reply.additional_kwargs["reasoning_content"] == "hm"
    await model.ainvoke([HumanMessage("hi"), reply, ToolMessage("r", tool_call_id="c1")])
    _, message, made, _ = llm.calls[1].chat_ctx.items
    assert message.extra == state  # type: ignore[union-attr]
    assert made.extra == {"google": {"thought_signature": "c2ln"}}  # type: ignore[union-attr]


async def test_options_reach_the_model() -> None:
    llm = ScriptedLLM("a b STOP c")
    model = as_langchain(
        llm, temperature=0.5, max_tokens=9, timeout=3, max_retries=1, stop=["STOP"]
    )
    assert (await model.ainvoke("hi")).text == "a b "
    assert llm.calls[0].extra_kwargs == {"temperature": 0.5, "max_tokens": 9}
    assert llm.calls[0].conn_options.timeout == 3
    assert llm.calls[0].conn_options.max_retry == 1


async def test_options_of_the_models_chat_are_not_parameters_of_the_api() -> None:
    """What an agent binds for a structured answer reaches the model, through a fallback too."""

    class City(BaseModel):
        name: str

    schema = {
        "type": "json_schema",
        "json_schema": {"name": "City", "schema": City.model_json_schema()},
    }
    async with FaultServer(default=Answer('{"name": "Oslo"}')) as server:
        models: list[Any] = [
            openai.LLM(model="gpt-4.1", api_key="k", base_url=f"{server.url}/v1"),
            anthropic.LLM(model="claude-sonnet-4-5", api_key="k", base_url=server.url),
            google.LLM(api_key="k", base_url=server.url),
        ]
        for asked in (City, schema):
            for model in [*models, FallbackAdapter(models[:2])]:
                bound = as_langchain(model, max_retries=0).bind(
                    response_format=asked, extra_kwargs={"top_p": 1.0}
                )
                assert (await bound.ainvoke("hi")).text == '{"name": "Oslo"}'
                sent = server.requests[-1].body.decode()
                assert '"name":{"' in sent.replace(" ", ""), (model.label, sent)
                assert "extra_kwargs" not in sent
        for model in models:
            await model.aclose()


def test_messages_become_items() -> None:
    items = from_messages(
        [
            SystemMessage("be brief"),
            HumanMessage(
                [
                    {"type": "text", "text": "what is this?"},
                    {"type": "image_url", "image_url": {"url": "https://x/y.png"}},
                    {"type": "image", "base64": "AAAA", "mime_type": "image/png"},
                ]
            ),
            AIMessage("let me see", tool_calls=[{"name": "t", "args": {"a": 1}, "id": "c1"}]),
            ToolMessage("bad", tool_call_id="c1", status="error"),
        ]
    )
    assert [item.type for item in items] == [
        "message", "message", "message", "function_call", "function_call_output",
    ]  # fmt: skip
    assert items[0].role == "system"  # type: ignore[union-attr]
    first, second, third = items[1].content  # type: ignore[union-attr]
    assert first == "what is this?"
    assert second.image == "https://x/y.png"
    assert third.image == "data:image/png;base64,AAAA"
    assert items[3].arguments == '{"a": 1}'  # type: ignore[union-attr]
    assert items[4].is_error  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="expected a system"):
        from_messages([AIMessage("x").model_copy(update={"type": "strange"})])


def test_items_survive_the_round_trip() -> None:
    items = from_messages(
        [
            HumanMessage("q", id="h"),
            AIMessage("a", id="r", tool_calls=[{"name": "t", "args": {"x": [1]}, "id": "c1"}]),
            ToolMessage("out", tool_call_id="c1"),
            AIMessage("done", id="d"),
        ]
    )
    messages, _ = to_chat_ctx(items, with_tools=True)
    again = from_messages(messages)
    assert [
        (i.type, getattr(i, "content", None) or getattr(i, "arguments", None)) for i in again
    ] == [(i.type, getattr(i, "content", None) or getattr(i, "arguments", None)) for i in items]


# what used to be lost ------------------------------------------------------------------------

FORKED = """
import os
from rejoinder.providers.langchain import as_langchain
from rejoinder.testing import ScriptedLLM
chat = as_langchain(ScriptedLLM("one", "two", "three"))
print(chat.invoke("hi").content, flush=True)
child = os.fork()
if child == 0:
    print(chat.invoke("hi").content, [c.content for c in chat.stream("hi") if c.content], flush=True)
    os._exit(0)
_, status = os.waitpid(child, 0)
print(status, chat.invoke("hi").content)
"""


def test_a_forked_child_can_ask_too() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKED], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.splitlines() == ["one", "two ['three']", "0 two"], done.stderr


async def test_replies_of_a_server_that_repeats_its_ids_have_ids_of_their_own() -> None:
    def numbered(*deltas: ChoiceDelta) -> list[Any]:
        return [ChatChunk(id="chatcmpl-126", delta=delta) for delta in deltas]

    llm = ScriptedLLM(
        numbered(ChoiceDelta(role="assistant", tool_calls=[CALL])),
        numbered(ChoiceDelta(role="assistant", content="It "), ChoiceDelta(content="rains.")),
    )
    model = as_langchain(llm).bind_tools([weather])
    messages: list[Any] = add_messages([], [HumanMessage("Oslo?")])  # type: ignore[assignment, arg-type]
    for _ in range(2):
        reply = await model.ainvoke(messages)
        assert reply.response_metadata["id"] == "chatcmpl-126"
        messages = add_messages(messages, [reply])  # type: ignore[assignment]
    assert [message.type for message in messages] == ["human", "ai", "ai"]
    assert messages[1].tool_calls
    assert messages[2].text == "It rains."
    assert messages[1].id != messages[2].id


async def test_what_structured_output_is_wanted_reaches_the_callbacks() -> None:
    class City(BaseModel):
        """A city."""

        name: str

    class Watching(AsyncCallbackHandler):
        def __init__(self) -> None:
            self.options: dict[str, Any] = {}

        async def on_chat_model_start(self, serialized: Any, messages: Any, **more: Any) -> None:
            self.options = more["options"]

    watching = Watching()
    call = FunctionToolCall(name="City", arguments='{"name": "Oslo"}', call_id="c")
    llm = ScriptedLLM([call])
    model = as_langchain(llm).with_structured_output(City)
    await model.ainvoke("a city", config={"callbacks": [watching]})
    wanted = watching.options["ls_structured_output_format"]
    assert wanted["kwargs"]["method"] == "function_calling"
    assert wanted["schema"]["title"] == "City"
    assert not llm.calls[0].extra_kwargs  # and not the model


WAV = base64.b64encode(
    b"RIFF\x28\x00\x00\x00WAVEfmt \x10\x00\x00\x00\x01\x00\x01\x00\x40\x1f\x00\x00\x80\x3e\x00\x00"
    b"\x02\x00\x10\x00data\x04\x00\x00\x00\x01\x00\x02\x00"
).decode()
PDF = "JVBERi0="


@pytest.mark.parametrize(
    "block",
    [
        {"type": "file", "base64": PDF, "mime_type": "application/pdf"},
        {"type": "file", "source_type": "base64", "data": PDF, "mime_type": "application/pdf"},
        {"type": "file", "file": {"file_data": f"data:application/pdf;base64,{PDF}", "filename": "a"}},
        {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": PDF}},
        {"type": "media", "data": PDF, "mime_type": "application/pdf"},
    ],
)  # fmt: skip
def test_documents_become_attachments(block: Any) -> None:
    (item,) = from_messages([HumanMessage([{"type": "text", "text": "read it"}, block])])
    text, document = item.content  # type: ignore[union-attr]
    assert text == "read it"
    assert document.image == f"data:application/pdf;base64,{PDF}"
    assert document.mime_type == "application/pdf"


@pytest.mark.parametrize(
    "block",
    [
        {"type": "audio", "base64": WAV, "mime_type": "audio/wav"},
        {"type": "input_audio", "input_audio": {"data": WAV, "format": "wav"}},
    ],
)
def test_sound_becomes_sound(block: Any) -> None:
    (item,) = from_messages([HumanMessage([block])])
    (sound,) = item.content  # type: ignore[union-attr]
    (frame,) = sound.frame
    assert (frame.sample_rate, frame.num_channels, bytes(frame.data.cast("b"))) == (
        8000, 1, b"\x01\x00\x02\x00",
    )  # fmt: skip


@pytest.mark.parametrize(
    "block",
    [
        {"type": "video", "base64": "AAAA", "mime_type": "video/mp4"},
        {"type": "audio", "base64": "AAAA", "mime_type": "audio/mp3"},
        {"type": "audio", "url": "https://host/a.wav"},
        {"type": "file", "file_id": "file-1"},
        {"type": "shape", "corners": 3},
        {"type": "image"},
    ],
)
def test_what_cannot_be_sent_is_refused(block: Any) -> None:
    with pytest.raises(ValueError, match="cannot be sent"):
        from_messages([HumanMessage([{"type": "text", "text": "look"}, block])])


def test_what_models_write_beside_their_text_is_no_content() -> None:
    blocks: list[Any] = [
        {"type": "thinking", "thinking": "hm"},
        {"type": "reasoning", "reasoning": "hm"},
        {"type": "text", "text": "well"},
        {"type": "tool_use", "id": "c", "name": "t", "input": {}},
    ]
    (item,) = from_messages([AIMessage(blocks)])
    assert item.content == ["well"]  # type: ignore[union-attr]


def test_frames_sound_and_documents_become_blocks_in_their_order() -> None:
    frame = VideoFrame(2, 1, VideoBufferType.RGB24, b"\x00" * 6)
    sound = AudioFrame(b"\x01\x00\x02\x00", 8000, 1, 2)
    ctx = ChatContext.empty()
    ctx.add_message(
        role="user",
        content=[
            "look",
            ImageContent(image=frame),
            "and hear",
            AudioContent(frame=[sound]),
            ImageContent(image=f"data:application/pdf;base64,{PDF}"),
            ImageContent(image="https://host/a.png"),
        ],
    )
    (message,), _ = to_chat_ctx(ctx.items)
    kinds = [block["type"] for block in message.content]
    assert kinds == ["text", "image_url", "text", "audio", "file", "image_url"]
    assert message.content[1]["image_url"]["url"].startswith("data:image/jpeg;base64,/9j/")
    assert message.content[4] == {"type": "file", "base64": PDF, "mime_type": "application/pdf"}
    # And back.
    (item,) = from_messages([message])
    assert [type(part) for part in item.content] == [  # type: ignore[union-attr]
        str, ImageContent, str, AudioContent, ImageContent, ImageContent,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (
            lambda url: google.LLM(api_key="k", base_url=url),
            ["generationConfig", "maxOutputTokens"],
        ),
        (
            lambda url: aws.LLM(api_key="k", api_secret="s", region="us-east-1", base_url=url),
            ["inferenceConfig", "maxTokens"],
        ),
        (lambda url: anthropic.LLM(api_key="k", base_url=url), ["max_tokens"]),
        (lambda url: mistralai.LLM(api_key="k", base_url=f"{url}/v1"), ["max_tokens"]),
        (
            lambda url: openai.LLM(model="gpt-4.1", api_key="k", base_url=f"{url}/v1"),
            ["max_tokens"],
        ),
    ],
    ids=["google", "aws", "anthropic", "mistralai", "openai"],
)
async def test_limits_have_their_right_names(make: Any, found: list[str]) -> None:
    async with FaultServer(default=Answer("ok")) as server:
        model = make(server.url)
        await as_langchain(model, max_tokens=50, max_retries=0).ainvoke("hi")
        await model.aclose()
        body = server.requests[-1].json()
    beside = [name for name in body if "max" in name.lower()]
    assert beside == (found if len(found) == 1 else [])
    for member in found:
        body = body[member]
    assert body == 50
