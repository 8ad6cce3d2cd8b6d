"""Runs inside the OpenAI Agents SDK: runs as its own documentation writes them."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from typing import Any

import agents
import pytest
from agents import ModelRetrySettings, retry_policies, testing
from inside_openai_agents import City, call, weather
from openai.types import responses
from openai.types.responses import ResponseReasoningItem
from running import running, serving

from rejoinder.errors import APIConnectionError, APIStatusError
from rejoinder.integrations.openai_agents import Model, ModelProvider
from rejoinder.llm import FallbackAdapter
from rejoinder.llm.llm import ChoiceDelta, CompletionUsage
from rejoinder.providers import anthropic, openai
from rejoinder.testing import Answer, Fault, FaultServer, ScriptedLLM, no_leaks
from rejoinder.types import APIConnectOptions

PNG = "data:image/png;base64,AAAA"
PDF = "data:application/pdf;base64,JVBERi0xLjQK"


def at(server: FaultServer, **options: Any) -> openai.LLM:
    return openai.LLM(model="a", api_key="k", base_url=f"{server.url}/v1", **options)


def agent_of(model: Any, **options: Any) -> agents.Agent[Any]:
    return agents.Agent(name="a", model=model, **options)


async def raw_events(model: Any, tools: list[Any]) -> list[Any]:
    result = agents.Runner.run_streamed(agent_of(model, tools=tools), "Weather?")
    return [
        event.data async for event in result.stream_events() if event.type == "raw_response_event"
    ]


# -- events ----------------------------------------------------------------------------------------


def shape(events: list[Any]) -> list[tuple[Any, ...]]:
    """What identifies an event: its type, place and number; several deltas count once."""
    found: list[tuple[Any, ...]] = []
    for event in events:
        item = getattr(event, "item", None)
        place = (event.type, getattr(event, "output_index", None), getattr(item, "type", None))
        if not (found and found[-1] == place and event.type.endswith(".delta")):
            found.append(place)
    return found


async def test_events_have_the_shape_of_the_sdks_own_test_model() -> None:
    summary = {"type": "summary_text", "text": "Hm."}
    thought = ResponseReasoningItem.model_validate(
        {"id": "rs_1", "type": "reasoning", "summary": [summary]}
    )
    theirs = testing.ScriptedModel(
        [
            [
                thought,
                testing.assistant_message("Let me see."),
                testing.function_call("weather", '{"city":"Oslo"}', call_id="c1"),
            ],
            [testing.assistant_message("It rains.")],
        ]
    )
    ours = ScriptedLLM(
        [
            ChoiceDelta(thinking="H"),
            ChoiceDelta(thinking="m."),
            "Let",
            " me see.",
            call("weather", '{"city":"Oslo"}'),
        ],
        ["It", " rains."],
    )
    expected = await raw_events(theirs, [weather])
    found = await raw_events(Model(ours), [weather])
    assert shape(found) == shape(expected)
    numbers = [event.sequence_number for event in found]
    second = numbers.index(0, 1)
    assert numbers == [*range(second), *range(len(numbers) - second)]
    done = [event for event in found if event.type == "response.completed"]
    assert [item.type for item in done[0].response.output] == [
        "reasoning",
        "message",
        "function_call",
    ]
    assert done[0].response.output[1].content[0].text == "Let me see."
    assert done[0].response.output[0].summary[0].text == "Hm."


async def test_thinking_is_shown_and_its_item_is_not_sent_back() -> None:
    state = {"openai": {"reasoning_items": [{"id": "rs_real", "type": "reasoning", "summary": []}]}}
    model = ScriptedLLM(
        [
            ChoiceDelta(thinking="Hm."),
            ChoiceDelta(extra=state),
            call("weather", '{"city": "Oslo"}'),
        ],
        "Rain.",
        "Yes.",
    )
    agent = agent_of(Model(model), tools=[weather])
    first = await agents.Runner.run(agent, "Weather?")
    assert first.new_items[0].type == "reasoning_item"
    await agents.Runner.run(agent, [*first.to_input_list(), {"role": "user", "content": "Sure?"}])
    for asked in model.calls[1:]:
        (made,) = [item for item in asked.chat_ctx.items if item.type == "function_call"]
        ids = [item["id"] for item in made.extra["openai"]["reasoning_items"]]
        assert ids == ["rs_real"]
        assert "rs_rejoinder" not in json.dumps(asked.chat_ctx.to_dict())


# -- runs ------------------------------------------------------------------------------------------


async def test_a_handoff_while_it_is_streamed() -> None:
    other = agents.Agent(
        name="Other", instructions="Other.", model=Model(ScriptedLLM("Other here."))
    )
    first = ScriptedLLM([call("transfer_to_other")])
    agent = agent_of(Model(first), handoffs=[agents.handoff(other)])
    result = agents.Runner.run_streamed(agent, "Hand over.")
    names = [
        event.name
        async for event in result.stream_events()
        if event.type == "run_item_stream_event"
    ]
    assert names == ["handoff_requested", "handoff_occured", "message_output_created"]
    assert result.final_output == "Other here."
    (tool,) = first.calls[0].tools
    assert tool.info.name == "transfer_to_other"


async def test_a_session_of_the_sdk_keeps_the_conversation() -> None:
    model = ScriptedLLM("Hello Ann.", "You are Ann.")
    session = agents.SQLiteSession("s")
    agent = agent_of(Model(model))
    await agents.Runner.run(agent, "I am Ann.", session=session)
    await agents.Runner.run(agent, "Who am I?", session=session)
    said = [item.text_content for item in model.calls[-1].chat_ctx.items]  # type: ignore[union-attr]
    assert said == ["I am Ann.", "Hello Ann.", "Who am I?"]
    session.close()


async def test_settings_reach_the_model() -> None:
    model = ScriptedLLM('{"name": "Oslo", "people": 5}')
    settings = agents.ModelSettings(
        temperature=0.1,
        max_tokens=5,
        top_p=0.9,
        parallel_tool_calls=False,
        tool_choice="weather",
        timeout=3.0,
        reasoning={"effort": "none"},
        verbosity="low",
        truncation="auto",
        extra_query={"q": "1"},
        extra_headers={"x-a": "b"},
        extra_body={"user": "u"},
        extra_args={"seed": 7},
    )
    agent = agent_of(Model(model), tools=[weather], output_type=City, model_settings=settings)
    assert (await agents.Runner.run(agent, "x")).final_output == City(name="Oslo", people=5)
    (asked,) = model.calls
    assert asked.extra_kwargs == {
        "temperature": 0.1,
        "max_tokens": 5,
        "top_p": 0.9,
        "reasoning": "off",
        "verbosity": "low",
        "truncation": "auto",
        "extra_query": {"q": "1"},
        "extra_headers": {"x-a": "b"},
        "user": "u",
        "seed": 7,
    }
    assert asked.parallel_tool_calls is False
    assert asked.tool_choice == {"type": "function", "function": {"name": "weather"}}
    assert asked.conn_options.timeout == 3.0
    form: Any = asked.response_format
    assert form["json_schema"]["strict"] is True
    assert form["json_schema"]["schema"]["required"] == ["name", "people"]


async def test_settings_of_openai_reach_the_providers_that_have_them() -> None:
    settings = agents.ModelSettings(
        reasoning={"effort": "high"}, verbosity="low", truncation="auto"
    )
    async with FaultServer() as server:
        server.always(Answer(text="Hi."))
        chat = at(server)
        responses = at(server, api="responses")
        claude = anthropic.LLM(model="claude-opus-4-7", api_key="k", base_url=server.url)
        for llm in (chat, responses, claude):
            async with llm:
                await agents.Runner.run(agent_of(Model(llm), model_settings=settings), "x")
        of_chat, of_responses, of_claude = (request.json() for request in server.requests)
    assert (of_chat["reasoning_effort"], of_chat["verbosity"]) == ("high", "low")
    assert of_responses["reasoning"] == {"effort": "high"}
    assert of_responses["text"] == {"verbosity": "low"}
    assert of_responses["truncation"] == "auto"
    assert of_claude["output_config"] == {"effort": "high"}
    assert not {"verbosity", "truncation"} & of_claude.keys()


async def test_settings_without_a_counterpart_are_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings = agents.ModelSettings(
        reasoning={"summary": "auto"}, store=False, top_logprobs=2, include_usage=True
    )
    agent = agent_of(Model(ScriptedLLM("x", "y")), model_settings=settings)
    for _ in range(2):
        await agents.Runner.run(agent, "x")
    (line,) = (record.message for record in caplog.records if record.name == "rejoinder")
    assert "not passed on: reasoning.summary, store, top_logprobs" in line


def test_the_first_turn_finds_everything_made() -> None:
    """What is built or imported late would make the first turn of a process late."""
    Model(ScriptedLLM("x"))
    late = (
        responses.ResponseCreatedEvent,
        responses.ResponseOutputItemAddedEvent,
        responses.ResponseTextDeltaEvent,
        responses.ResponseReasoningSummaryTextDeltaEvent,
        responses.ResponseFunctionCallArgumentsDoneEvent,
        responses.ResponseCompletedEvent,
    )
    program = (
        "import sys; from openai.types import responses as r;"
        "from rejoinder.integrations.openai_agents import Model;"
        "from rejoinder.testing import ScriptedLLM; Model(ScriptedLLM('x'));"
        f"print(all(getattr(r, n).__pydantic_complete__ for n in {[c.__name__ for c in late]}),"
        "'rejoinder.providers.openai.inverse' in sys.modules)"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert told.stdout.split() == ["True", "True"], told.stderr


async def test_usage_has_its_details() -> None:
    usage = CompletionUsage(
        completion_tokens=30,
        prompt_tokens=70,
        total_tokens=100,
        reasoning_tokens=10,
        cache_read_tokens=40,
    )
    result = await agents.Runner.run(agent_of(Model(ScriptedLLM(["Hi.", usage]))), "x")
    found = result.context_wrapper.usage
    assert (found.requests, found.input_tokens, found.output_tokens) == (1, 70, 30)
    assert found.input_tokens_details.cached_tokens == 40
    assert found.output_tokens_details.reasoning_tokens == 10


async def test_pictures_and_documents_are_passed_on() -> None:
    model = ScriptedLLM("I see.")
    content: Any = [
        {"type": "input_text", "text": "See:"},
        {"type": "input_image", "image_url": PNG, "detail": "low"},
        {"type": "input_file", "filename": "a.pdf", "file_data": PDF},
    ]
    await agents.Runner.run(agent_of(Model(model)), [{"role": "user", "content": content}])
    (message,) = model.calls[0].chat_ctx.items
    assert message.type == "message"
    _, picture, document = message.content
    assert (picture.image, picture.inference_detail) == (PNG, "low")  # type: ignore[union-attr]
    assert document.image == PDF  # type: ignore[union-attr]


async def test_what_tools_return_beside_text_follows_the_outputs() -> None:
    @agents.function_tool
    def look() -> Any:
        return [
            agents.ToolOutputText(text="a picture"),
            agents.ToolOutputImage(image_url=PNG),
        ]

    model = ScriptedLLM([call("look"), call("weather", '{"city": "Oslo"}', "c2")], "A dot.")
    await agents.Runner.run(agent_of(Model(model), tools=[look, weather]), "x")
    items = model.calls[-1].chat_ctx.items
    kinds = [item.type for item in items]
    assert kinds[1:] == [*["function_call"] * 2, *["function_call_output"] * 2, "message"]
    assert items[3].output == "a picture"  # type: ignore[union-attr]
    assert items[-1].content[0].image == PNG  # type: ignore[union-attr]


async def test_traces_of_the_sdk_need_no_platform() -> None:
    spans: list[Any] = []

    class Collector(agents.TracingProcessor):
        def on_trace_start(self, trace: Any) -> None: ...
        def on_trace_end(self, trace: Any) -> None: ...
        def on_span_start(self, span: Any) -> None: ...
        def on_span_end(self, span: Any) -> None:
            spans.append(span)

        def shutdown(self) -> None: ...
        def force_flush(self) -> None: ...

    agents.set_trace_processors([Collector()])
    agents.set_tracing_disabled(False)
    try:
        usage = CompletionUsage(completion_tokens=3, prompt_tokens=7, total_tokens=10)
        model = Model(ScriptedLLM(["Hi.", usage], ["Hi.", usage], model="m"))
        await agents.Runner.run(agent_of(model), "x")
        result = agents.Runner.run_streamed(agent_of(model), "x")
        async for _ in result.stream_events():
            pass
        dead = Model(ScriptedLLM(APIStatusError("no", status_code=401)))
        with pytest.raises(APIStatusError):
            await agents.Runner.run(agent_of(dead), "x")
    finally:
        agents.set_tracing_disabled(True)
        agents.set_trace_processors([])
    made = [span for span in spans if span.span_data.type == "generation"]
    assert [span.span_data.model for span in made] == ["m", "m", "scripted"]
    assert made[0].span_data.usage == {"input_tokens": 7, "output_tokens": 3}
    assert [span.error is None for span in made] == [True, True, False]


# -- failures --------------------------------------------------------------------------------------


async def test_broken_arguments_are_mended() -> None:
    model = ScriptedLLM([call("weather", "{'city': 'Oslo'}")], "Rain.")
    result = await agents.Runner.run(agent_of(Model(model), tools=[weather]), "x")
    assert result.final_output == "Rain."
    (output,) = [i for i in model.calls[-1].chat_ctx.items if i.type == "function_call_output"]
    assert output.output == "rain in Oslo"


async def test_an_error_is_not_retried_twice() -> None:
    async with FaultServer() as server:
        server.always(Fault.STATUS_500)
        async with at(server) as llm:
            model = Model(llm, conn_options=APIConnectOptions(max_retry=1, retry_interval=0.01))
            retry = ModelRetrySettings(max_retries=3, policy=retry_policies.provider_suggested())
            settings = agents.ModelSettings(retry=retry)
            with pytest.raises(APIConnectionError, match="no reply after 2 attempts"):
                await agents.Runner.run(agent_of(model, model_settings=settings), "x")
        assert len(server.requests) == 2


async def test_what_cannot_be_passed_on_is_one_clear_error() -> None:
    given: Any = [{"role": "user", "content": [{"type": "input_file", "file_id": "file-1"}]}]
    with pytest.raises(agents.UserError, match="content of the type 'input_file'"):
        await agents.Runner.run(agent_of(Model(ScriptedLLM("x"))), given)
    async with FaultServer() as server:
        server.always(Answer(status=400, message="no tools here"))
        async with at(server) as model:
            with pytest.raises(APIStatusError, match="no tools here"):
                await agents.Runner.run(agent_of(Model(model), tools=[weather]), "x")
    with pytest.raises(ValueError, match="no provider is called 'nobody'"):
        ModelProvider().get_model("nobody/nothing")


async def test_nothing_is_said_twice_and_nothing_is_left() -> None:
    async with FaultServer() as silent, FaultServer() as second:
        silent.always(Fault.KEEP_ALIVES_FOR_EVER)
        second.always(Answer(text=("Here ", "I ", "am.")))
        async with no_leaks(), at(silent) as a, at(second) as b:
            model = FallbackAdapter([a, b], attempt_timeout=0.3)
            words = [
                event.delta
                for event in await raw_events(Model(model), [])
                if event.type == "response.output_text.delta"
            ]
            assert "".join(words) == "Here I am."
            result = await agents.Runner.run(agent_of(Model(model)), "x")
            assert result.final_output == "Here I am."
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
            result = await agents.Runner.run(agent_of(Model(model)), "x")
            assert result.final_output == heard


async def test_a_run_that_is_left_or_cancelled_is_closed() -> None:
    endless: list[Any] = ["One", *([" more", 0.02] * 400)]
    async with no_leaks():
        result = agents.Runner.run_streamed(agent_of(Model(ScriptedLLM(endless))), "x")
        async for _ in result.stream_events():
            if running():
                result.cancel()
        assert running() == 0
        task = asyncio.create_task(agents.Runner.run(agent_of(Model(ScriptedLLM(endless))), "x"))
        await asyncio.sleep(0.1)
        assert running() == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert running() == 0


def test_one_model_serves_runs_on_several_loops() -> None:
    with serving(Answer(text=("Hi.",))) as url:
        agent = agent_of(Model(openai.LLM(model="a", api_key="k", base_url=f"{url}/v1")))
        for _ in range(2):
            assert agents.Runner.run_sync(agent, "x").final_output == "Hi."
            assert asyncio.run(agents.Runner.run(agent, "x")).final_output == "Hi."
