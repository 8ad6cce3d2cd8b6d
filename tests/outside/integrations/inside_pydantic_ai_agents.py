"""Runs inside Pydantic AI: agents as its own documentation writes them."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from inside_pydantic_ai import PNG, City, call
from pydantic_ai import (
    Agent,
    BinaryContent,
    DocumentUrl,
    ImageUrl,
    ModelRetry,
    NativeOutput,
    PromptedOutput,
    RunContext,
    ToolOutput,
    ToolReturn,
    capture_run_messages,
)
from pydantic_ai.direct import model_request, model_request_stream
from pydantic_ai.exceptions import (
    ContentFilterError,
    FallbackExceptionGroup,
    ModelAPIError,
    ModelHTTPError,
    UserError,
)
from pydantic_ai.messages import (
    FinalResultEvent,
    ModelMessagesTypeAdapter,
    ModelRequest,
    PartDeltaEvent,
    PartStartEvent,
    TextPartDelta,
    ThinkingPartDelta,
)
from pydantic_ai.models.fallback import FallbackModel
from pydantic_ai.models.instrumented import InstrumentedModel
from pydantic_ai.native_tools import WebSearchTool
from running import running, serving

from rejoinder.errors import APIConnectionError, RefusalError
from rejoinder.integrations.pydantic_ai import Model
from rejoinder.llm import FallbackAdapter
from rejoinder.llm.llm import ChoiceDelta, CompletionUsage
from rejoinder.providers import anthropic, openai
from rejoinder.testing import Answer, Fault, FaultServer, ScriptedLLM, no_leaks
from rejoinder.types import APIConnectOptions

PDF = b"%PDF-1.4\n"
OSLO = '{"name": "Oslo", "people": 5}'


def at(server: FaultServer, **options: Any) -> openai.LLM:
    return openai.LLM(model="a", api_key="k", base_url=f"{server.url}/v1", **options)


# -- output ----------------------------------------------------------------------------------------


async def test_every_output_mode_gives_the_value() -> None:
    by_tool = ScriptedLLM([call("city", OSLO)])
    result = await Agent(Model(by_tool), output_type=ToolOutput(City, name="city")).run("x")
    assert result.output == City(name="Oslo", people=5)
    (asked,) = by_tool.calls
    assert [tool.info.name for tool in asked.tools] == ["city"]
    assert asked.tool_choice == "required"
    native = ScriptedLLM(OSLO)
    await Agent(Model(native), output_type=NativeOutput(City, name="City")).run("x")
    asked_for: Any = native.calls[0].response_format
    assert asked_for["json_schema"]["name"] == "City"
    assert asked_for["json_schema"]["schema"]["required"] == ["name", "people"]
    prompted = ScriptedLLM(OSLO)
    result = await Agent(Model(prompted), output_type=PromptedOutput(City)).run("x")
    assert result.output == City(name="Oslo", people=5)
    assert "people" in str(prompted.calls[0].chat_ctx.items[0])


async def test_a_wrong_answer_is_asked_again() -> None:
    model = ScriptedLLM([call("final_result", '{"name": "Oslo"}')], [call("final_result", OSLO)])
    result = await Agent(Model(model), output_type=City).run("x")
    assert result.output == City(name="Oslo", people=5)
    outputs = [i for i in model.calls[-1].chat_ctx.items if i.type == "function_call_output"]
    assert outputs[0].is_error
    assert "people" in outputs[0].output


async def test_a_tool_that_asks_for_another_try() -> None:
    model = ScriptedLLM([call("pick", "{'n': 1}")], [call("pick", '{"n": 2}', "c2")], "Two.")
    agent = Agent(Model(model), deps_type=str)

    @agent.tool
    async def pick(ctx: RunContext[str], n: int) -> str:
        if n == 1:
            raise ModelRetry("not one")
        return f"{ctx.deps} {n}"

    result = await agent.run("Pick.", deps="picked")
    assert result.output == "Two."
    first, second = (i for i in model.calls[-1].chat_ctx.items if i.type == "function_call_output")
    assert first.is_error
    assert "not one" in first.output
    assert (second.output, second.is_error) == ("picked 2", False)


async def test_structured_output_is_streamed_while_it_grows() -> None:
    pieces = ['{"name": "Os', 'lo", "people"', ": 5}"]
    model = ScriptedLLM([ChoiceDelta(content=piece) for piece in pieces])
    async with Agent(Model(model), output_type=NativeOutput(City)).run_stream("x") as stream:
        shown = [value async for value in stream.stream_output(debounce_by=None)]
    assert shown[-1] == City(name="Oslo", people=5)


async def test_the_events_of_a_stream() -> None:
    model = ScriptedLLM([ChoiceDelta(thinking="H"), ChoiceDelta(thinking="m"), "Hello", " there."])
    agent = Agent(Model(model))
    starts: list[str] = []
    text = ""
    thought = ""
    finals = 0
    async with agent.iter("x") as run:
        async for node in run:
            if not Agent.is_model_request_node(node):
                continue
            async with node.stream(run.ctx) as stream:
                async for event in stream:
                    if isinstance(event, PartStartEvent):
                        starts.append(event.part.part_kind)
                    elif isinstance(event, FinalResultEvent):
                        finals += 1
                    elif isinstance(event, PartDeltaEvent):
                        if isinstance(event.delta, TextPartDelta):
                            text += event.delta.content_delta
                        elif isinstance(event.delta, ThinkingPartDelta):
                            thought += event.delta.content_delta or ""
    assert starts == ["thinking", "text"]
    assert (text, thought, finals) == (" there.", "m", 1)
    assert run.result is not None
    assert run.result.output == "Hello there."


# -- usage, settings -------------------------------------------------------------------------------


async def test_usage_has_its_details() -> None:
    usage = CompletionUsage(
        completion_tokens=30,
        prompt_tokens=70,
        total_tokens=100,
        reasoning_tokens=10,
        cache_read_tokens=40,
        cache_creation_tokens=20,
        prompt_audio_tokens=5,
        completion_audio_tokens=6,
    )
    result = await Agent(Model(ScriptedLLM(["Hi.", usage]))).run("x")
    found = result.usage
    assert (found.requests, found.input_tokens, found.output_tokens) == (1, 70, 30)
    assert (found.cache_read_tokens, found.cache_write_tokens) == (40, 20)
    assert found.details["reasoning_tokens"] == 10
    assert found.details["input_audio_tokens"] == 5
    assert found.details["output_audio_tokens"] == 6


async def test_settings_are_mapped() -> None:
    model = ScriptedLLM("x")
    settings: Any = {
        "temperature": 0.1,
        "max_tokens": 5,
        "top_p": 0.9,
        "seed": 7,
        "thinking": "xhigh",
        "max_retries": 1,
        "stop_sequences": ["END"],
        "parallel_tool_calls": False,
        "timeout": 3.0,
        "extra_headers": {"x-a": "b"},
        "extra_body": {"user": "u"},
    }
    await Agent(Model(model, settings={"top_k": 3}), model_settings=settings).run("x")
    (asked,) = model.calls
    assert asked.extra_kwargs == {
        "temperature": 0.1,
        "max_tokens": 5,
        "top_p": 0.9,
        "top_k": 3,
        "seed": 7,
        "stop": ["END"],
        "reasoning": "xhigh",
        "extra_headers": {"x-a": "b"},
        "user": "u",
    }
    assert asked.parallel_tool_calls is False
    assert asked.conn_options.timeout == 3.0
    assert asked.conn_options.max_retry == 1


@pytest.mark.parametrize(("thinking", "option"), [(True, "medium"), (False, "off"), ("low", "low")])
async def test_thinking_is_the_portable_option(thinking: Any, option: str) -> None:
    model = ScriptedLLM("x")
    await Agent(Model(model), model_settings={"thinking": thinking}).run("x")
    assert model.calls[0].extra_kwargs == {"reasoning": option}


async def test_thinking_reaches_each_provider_in_its_own_words() -> None:
    async with FaultServer() as server:
        claude = anthropic.LLM(model="claude-opus-4-7", api_key="k", base_url=server.url)
        async with (
            claude,
            openai.LLM(
                model="gpt-5", api_key="k", base_url=f"{server.url}/v1", api="responses"
            ) as gpt,
        ):
            server.script(Answer(status=503), Answer(text="Hi."))
            team = FallbackAdapter([gpt, claude], max_retry_per_llm=0)
            agent = Agent(Model(team), model_settings={"thinking": "high"})
            assert (await agent.run("x")).output == "Hi."
            first, second = (request.json() for request in server.requests)
            assert first["reasoning"] == {"effort": "high"}
            assert second["output_config"] == {"effort": "high"}
            await team.aclose()


async def test_settings_without_a_counterpart_are_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings: Any = {"service_tier": "flex", "openai_user": "u"}
    agent = Agent(Model(ScriptedLLM("x", "y")), model_settings=settings)
    for _ in range(2):
        await agent.run("x")
    (line,) = (record.message for record in caplog.records if record.name == "rejoinder")
    assert "not passed on: openai_user, service_tier;" in line


@pytest.mark.parametrize(
    ("reason", "found"), [("length", "length"), ("stop", "stop"), ("end_turn", "stop")]
)
async def test_why_a_reply_ended(reason: str, found: str) -> None:
    head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
    choice = {"index": 0, "delta": {"content": "Hello"}, "finish_reason": reason}
    body = f"data: {json.dumps({'id': 'a', 'choices': [choice]})}\n\ndata: [DONE]\n\n"

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write((head + body).encode())
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with openai.LLM(
            model="a", api_key="k", base_url=f"http://127.0.0.1:{port}/v1"
        ) as llm:
            for model in (llm, FallbackAdapter([llm])):
                result = await Agent(Model(model)).run("x")
                assert result.response.finish_reason == found


async def test_a_call_an_error_and_a_refusal_as_reasons() -> None:
    llm = ScriptedLLM([call("weather", "{}")], "Rain.")
    agent = Agent(Model(llm))

    @agent.tool_plain
    def weather() -> str:
        return "rain"

    messages = (await agent.run("x")).all_messages()
    found = [message.finish_reason for message in messages if message.kind == "response"]
    assert found == ["tool_call", "stop"]
    for failure, reason in (
        (RefusalError("no"), "content_filter"),
        (APIConnectionError("gone", retryable=False), "error"),
    ):
        model = Model(ScriptedLLM(["Hello", failure]))
        request: Any = [ModelRequest.user_text_prompt("x")]
        async with model_request_stream(model, request) as stream:
            with pytest.raises((ContentFilterError, ModelAPIError)):
                async for _ in stream:
                    pass
            assert stream.get().finish_reason == reason


async def test_instrumentation_keeps_working() -> None:
    spans: list[tuple[str, dict[str, Any]]] = []

    from opentelemetry.trace import NonRecordingSpan, Tracer, TracerProvider

    class Span(NonRecordingSpan):
        def __init__(self, name: str) -> None:
            super().__init__(NonRecordingSpan(None).get_span_context())  # type: ignore[arg-type]
            self.attributes: dict[str, Any] = {}
            spans.append((name, self.attributes))

        def is_recording(self) -> bool:
            return True

        def set_attribute(self, key: str, value: Any) -> None:
            self.attributes[key] = value

        def set_attributes(self, attributes: Any) -> None:
            self.attributes.update(attributes)

    class Recorder(Tracer):
        def start_span(self, name: str, *_: Any, attributes: Any = None, **__: Any) -> Any:
            span = Span(name)
            span.set_attributes(attributes or {})
            return span

        def start_as_current_span(self, name: str, *_: Any, **options: Any) -> Any:
            from contextlib import nullcontext

            return nullcontext(self.start_span(name, attributes=options.get("attributes")))

    class Provider(TracerProvider):
        def get_tracer(self, *_: Any, **__: Any) -> Any:
            return Recorder()

    from pydantic_ai.models.instrumented import InstrumentationSettings

    usage = CompletionUsage(completion_tokens=3, prompt_tokens=7, total_tokens=10)
    model = InstrumentedModel(
        Model(ScriptedLLM(["Hi.", usage], model="m", provider="p")),
        InstrumentationSettings(tracer_provider=Provider()),
    )
    await Agent(model).run("x")
    (name, attributes) = next(entry for entry in spans if entry[0].startswith("chat"))
    assert name == "chat m"
    assert attributes["gen_ai.usage.input_tokens"] == 7
    assert attributes["gen_ai.response.model"] == "m"


# -- content ---------------------------------------------------------------------------------------


async def test_documents_and_addresses_are_passed_on() -> None:
    model = ScriptedLLM("I see.")
    await Agent(Model(model)).run(
        [
            "See:",
            BinaryContent(PDF, media_type="application/pdf"),
            DocumentUrl("https://example.com/a.pdf"),
            ImageUrl("https://example.com/a.png", vendor_metadata={"detail": "low"}),
            BinaryContent(b"a,b", media_type="text/csv"),
        ]
    )
    (message,) = model.calls[0].chat_ctx.items
    assert message.type == "message"
    _, inside, address, picture, text = message.content
    assert inside.image.startswith("data:application/pdf;base64,")  # type: ignore[union-attr]
    assert address.mime_type == "application/pdf"  # type: ignore[union-attr]
    assert picture.inference_detail == "low"  # type: ignore[union-attr]
    assert text == "a,b"


async def test_a_document_reaches_the_provider() -> None:
    async with FaultServer() as server:
        server.always(Answer(text=("Read.",)))
        async with at(server) as model:
            await Agent(Model(model)).run([BinaryContent(PDF, media_type="application/pdf")])
        (part,) = server.requests[0].json()["messages"][0]["content"]
    assert part["type"] == "file"
    assert part["file"]["file_data"].startswith("data:application/pdf;base64,")


async def test_what_tools_return_beside_text_follows_the_outputs() -> None:
    model = ScriptedLLM([call("look", "{}"), call("count", "{}", "c2")], "A dot.")
    agent = Agent(Model(model))

    @agent.tool_plain
    def look() -> ToolReturn:
        return ToolReturn("a picture", content=[BinaryContent(PNG, media_type="image/png")])

    @agent.tool_plain
    def count() -> BinaryContent:
        return BinaryContent(PNG, media_type="image/png")

    assert (await agent.run("x")).output == "A dot."
    items = model.calls[-1].chat_ctx.items
    kinds = [item.type for item in items]
    assert kinds[:5] == ["message", *["function_call"] * 2, *["function_call_output"] * 2]
    shown = [part for item in items[5:] if item.type == "message" for part in item.content]
    assert sum(not isinstance(part, str) for part in shown) == 2


async def test_a_history_can_be_stored_and_continued() -> None:
    extra = {"google": {"thought_signature": "x"}}
    model = ScriptedLLM([call("weather", "{}", extra=extra)], "Rain.", "Yes.")
    agent = Agent(Model(model), instructions="Be brief.")

    @agent.tool_plain
    def weather() -> str:
        return "rain"

    with capture_run_messages() as messages:
        first = await agent.run("Weather?")
    assert messages == first.all_messages()
    stored = ModelMessagesTypeAdapter.dump_json(first.all_messages())
    loaded = ModelMessagesTypeAdapter.validate_json(stored)
    other = Agent(Model(model), instructions="Be brief.")  # keeps nothing of the first
    assert (await other.run("Sure?", message_history=loaded)).output == "Yes."
    (made,) = [i for i in model.calls[-1].chat_ctx.items if i.type == "function_call"]
    assert made.extra == extra
    assert [i.type for i in model.calls[-1].chat_ctx.items].count("message") == 4


# -- failures --------------------------------------------------------------------------------------


async def test_their_fallback_takes_ours_and_tells_all_errors() -> None:
    async with FaultServer() as server:
        server.always(Fault.STATUS_401)
        async with at(server) as a:
            good = FallbackModel(Model(a), Model(ScriptedLLM("Here.", "Here too.")))
            assert (await Agent(good).run("x")).output == "Here."
            async with Agent(good).run_stream("x") as stream:
                assert await stream.get_output() == "Here too."
            bad = FallbackModel(Model(a), Model(a))
            with pytest.raises(FallbackExceptionGroup) as caught:
                await Agent(bad).run("x")
            assert all(isinstance(error, ModelHTTPError) for error in caught.value.exceptions)


async def test_the_status_of_the_last_attempt_is_told() -> None:
    async with FaultServer() as server:
        server.always(Fault.STATUS_503)
        quick = APIConnectOptions(max_retry=1, retry_interval=0.01)
        async with at(server) as llm:
            with pytest.raises(ModelHTTPError) as caught:
                await Agent(Model(llm, conn_options=quick)).run("x")
        assert caught.value.status_code == 503
        assert len(server.requests) == 2


async def test_a_refusal_is_a_filter_error() -> None:
    with pytest.raises(ContentFilterError, match="no such thing"):
        await Agent(Model(ScriptedLLM(RefusalError("no such thing")))).run("x")


async def test_what_cannot_be_done_is_one_clear_error() -> None:
    agent = Agent(Model(ScriptedLLM("x")), capabilities=[])
    request = [ModelRequest.user_text_prompt("x")]
    from pydantic_ai.models import ModelRequestParameters

    with pytest.raises(UserError, match="WebSearchTool"):
        await model_request(
            Model(ScriptedLLM("x")),
            request,
            model_request_parameters=ModelRequestParameters(native_tools=[WebSearchTool()]),
        )
    async with FaultServer() as server:
        server.always(Answer(status=400, message="no tools here"))
        async with at(server) as model:
            with pytest.raises(ModelHTTPError, match="no tools here"):
                await Agent(Model(model)).run("x")
    with pytest.raises(UserError, match=r"expected sound as WAV"):
        await agent.run([BinaryContent(b"x", media_type="audio/mpeg")])


async def test_nothing_is_said_twice_and_nothing_is_left() -> None:
    async with FaultServer() as silent, FaultServer() as second:
        silent.always(Fault.KEEP_ALIVES_FOR_EVER)
        second.always(Answer(text=("Here ", "I ", "am.")))
        async with no_leaks(), at(silent) as a, at(second) as b:
            model = FallbackAdapter([a, b], attempt_timeout=0.3)
            async with Agent(Model(model)).run_stream("x") as stream:
                pieces = [p async for p in stream.stream_text(delta=True, debounce_by=None)]
            assert "".join(pieces) == "Here I am."
            assert (await Agent(Model(model)).run("x")).output == "Here I am."
            await model.aclose()


@pytest.mark.parametrize(
    ("on_cut", "heard"), [("restart", "Hello\nBye."), ("resume", "Hello Bye.")]
)
async def test_a_reply_that_breaks_off_is_kept_as_it_was_heard(on_cut: Any, heard: str) -> None:
    second = "Bye." if on_cut == "restart" else " Bye."
    async with FaultServer() as server:
        server.script(Answer(text=("Hello", " my"), fault=Fault.RESET_MID_STREAM))
        async with at(server) as first:
            model = FallbackAdapter([first, ScriptedLLM(second)], on_cut=on_cut)
            assert (await Agent(Model(model)).run("x")).output == heard


async def test_a_stream_that_is_left_or_cancelled_is_closed() -> None:
    endless: list[Any] = ["One", *([" more", 0.02] * 400)]
    async with no_leaks():
        async with Agent(Model(ScriptedLLM(endless))).run_stream("x") as stream:
            async for _ in stream.stream_text(delta=True, debounce_by=None):
                break
        assert running() == 0
        async with Agent(Model(ScriptedLLM(endless))).run_stream("x") as stream:
            async for _ in stream.stream_text(delta=True, debounce_by=None):
                await stream.cancel()
                break
            assert running() == 0
        task = asyncio.create_task(Agent(Model(ScriptedLLM(endless))).run("x"))
        await asyncio.sleep(0.1)
        assert running() == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert running() == 0


def test_one_model_serves_runs_on_several_loops() -> None:
    with serving(Answer(text=("Hi.",))) as url:
        model = Model(openai.LLM(model="a", api_key="k", base_url=f"{url}/v1"))
        agent = Agent(model)
        assert agent.run_sync("x").output == "Hi."
        for _ in range(2):
            assert asyncio.run(agent.run("x")).output == "Hi."
