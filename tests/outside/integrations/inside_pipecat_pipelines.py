"""Runs inside Pipecat: whole pipelines."""

from __future__ import annotations

from typing import Any

import pytest
from inside_pipecat import context, words
from pipecat.adapters.llm.schemas.tools_schema import AdapterType, ToolsSchema
from pipecat.frames.frames import (
    ErrorFrame,
    FunctionCallResultFrame,
    InterruptionFrame,
    LLMContextFrame,
    LLMFullResponseEndFrame,
    LLMRunFrame,
    LLMTextFrame,
    LLMThoughtEndFrame,
    LLMThoughtStartFrame,
    LLMThoughtTextFrame,
    LLMUpdateSettingsFrame,
    MetricsFrame,
)
from pipecat.metrics.metrics import LLMUsageMetricsData, TTFBMetricsData
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import LLMContextAggregatorPair
from pipecat.services.llm_service import FunctionCallParams
from pipecat.services.settings import LLMSettings
from pipecat.tests.utils import SleepFrame, run_test
from pipecat.utils.errors import ErrorCategory
from running import running

from rejoinder.integrations.pipecat import LLMService
from rejoinder.llm import FallbackAdapter, FunctionToolCall
from rejoinder.llm.llm import ChoiceDelta, CompletionUsage
from rejoinder.providers import openai
from rejoinder.testing import Answer, Fault, FaultServer, ScriptedLLM, no_leaks
from rejoinder.types import APIConnectOptions

PDF = "data:application/pdf;base64,JVBERi0xLjQK"


def at(server: FaultServer, **options: Any) -> openai.LLM:
    return openai.LLM(model="a", api_key="k", base_url=f"{server.url}/v1", **options)


def call(name: str, arguments: str = "{}") -> FunctionToolCall:
    return FunctionToolCall(name=name, arguments=arguments, call_id="c1")


def errors_of(frames: Any) -> list[ErrorFrame]:
    return [frame for frame in frames if isinstance(frame, ErrorFrame)]


async def get_weather(params: FunctionCallParams, city: str) -> None:
    """Tell the weather.

    Args:
        city: Where.
    """
    await params.result_callback({"weather": f"rain in {city}"})


async def test_an_interruption_closes_the_reply_at_once() -> None:
    model = ScriptedLLM(["One", " two", 0.05, *([" more", 0.05] * 400)])
    counts: list[int] = []

    class Look(SleepFrame):
        """Counts the replies that run when the test comes to it."""

        @property
        def sleep(self) -> float:  # type: ignore[override]
            counts.append(running())
            return 0.0

        @sleep.setter
        def sleep(self, value: float) -> None: ...

    async with no_leaks():
        down, _ = await run_test(
            LLMService(model),
            frames_to_send=[
                LLMContextFrame(context()),
                SleepFrame(sleep=0.3),
                Look(),
                InterruptionFrame(),
                SleepFrame(sleep=0.2),
                Look(),
                SleepFrame(sleep=0.1),
            ],
        )
    assert counts == [1, 0]
    said = words(down)
    assert said.startswith("One two")
    assert len(said) < 200


async def test_aggregators_and_direct_functions_work_unchanged() -> None:
    model = ScriptedLLM([call("get_weather", '{"city": "Oslo"}')], "It rains in Oslo.")
    held = LLMContext(
        [{"role": "user", "content": "Weather?"}],
        tools=ToolsSchema(standard_tools=[get_weather]),
    )
    pair = LLMContextAggregatorPair(held)
    service = LLMService(model, settings=LLMSettings(system_instruction="Be brief."))
    async with no_leaks():
        await run_test(
            Pipeline([pair.user(), service, pair.assistant()]),
            frames_to_send=[LLMRunFrame(), SleepFrame(sleep=1.0)],
        )
    kinds = [item.type for item in model.calls[-1].chat_ctx.items]
    assert kinds == ["message", "message", "function_call", "function_call_output"]
    system = model.calls[-1].chat_ctx.items[0]
    assert system.type == "message"
    assert system.text_content == "Be brief."
    (tool,) = model.calls[0].tools
    assert tool.info.raw_schema["parameters"]["properties"]["city"]["description"] == "Where."
    messages: list[Any] = held.messages
    assert messages[-1] == {"role": "assistant", "content": "It rains in Oslo."}
    assert [message["role"] for message in messages] == ["user", "assistant", "tool", "assistant"]


async def test_time_to_first_byte_and_usage_are_measured() -> None:
    usage = CompletionUsage(
        completion_tokens=3,
        prompt_tokens=7,
        total_tokens=10,
        reasoning_tokens=1,
        cache_read_tokens=4,
        cache_creation_tokens=2,
    )
    model = ScriptedLLM(["Hello", usage])
    down, _ = await run_test(
        LLMService(model),
        frames_to_send=[LLMContextFrame(context()), SleepFrame(sleep=0.3)],
        pipeline_params=PipelineParams(enable_metrics=True, enable_usage_metrics=True),
    )
    data = [entry for frame in down if isinstance(frame, MetricsFrame) for entry in frame.data]
    first = [entry for entry in data if isinstance(entry, TTFBMetricsData) and entry.value > 0]
    assert len(first) == 1
    assert first[0].model == "scripted"
    (counted,) = [entry.value for entry in data if isinstance(entry, LLMUsageMetricsData)]
    assert (counted.prompt_tokens, counted.completion_tokens, counted.total_tokens) == (7, 3, 10)
    assert (counted.cache_read_input_tokens, counted.cache_creation_input_tokens) == (4, 2)
    assert counted.reasoning_tokens == 1


async def test_thinking_is_no_text() -> None:
    model = ScriptedLLM([ChoiceDelta(thinking="Hm."), ChoiceDelta(thinking=" Well."), "Hello."])
    down, _ = await run_test(
        LLMService(model), frames_to_send=[LLMContextFrame(context()), SleepFrame(sleep=0.2)]
    )
    assert words(down) == "Hello."
    kinds = [type(frame) for frame in down]
    thought = kinds.index(LLMThoughtStartFrame)
    assert kinds[thought : thought + 4] == [
        LLMThoughtStartFrame,
        LLMThoughtTextFrame,
        LLMThoughtTextFrame,
        LLMThoughtEndFrame,
    ]


async def test_nothing_is_said_twice_and_nothing_is_left() -> None:
    async with FaultServer() as silent, FaultServer() as second:
        silent.always(Fault.KEEP_ALIVES_FOR_EVER)
        second.always(Answer(text=("Here ", "I ", "am.")))
        async with no_leaks(), at(silent) as a, at(second) as b:
            model = FallbackAdapter([a, b], attempt_timeout=0.3)
            down, _ = await run_test(
                LLMService(model),
                frames_to_send=[LLMContextFrame(context()), SleepFrame(sleep=1.0)],
            )
            await model.aclose()
        assert words(down) == "Here I am."
        assert len([f for f in down if isinstance(f, LLMFullResponseEndFrame)]) == 1


@pytest.mark.parametrize(
    ("on_cut", "heard"), [("restart", "Hello\nBye."), ("resume", "Hello Bye.")]
)
async def test_a_reply_that_breaks_off_is_kept_as_it_was_heard(on_cut: Any, heard: str) -> None:
    second = "Bye." if on_cut == "restart" else " Bye."
    async with FaultServer() as server:
        server.script(Answer(text=("Hello", " my"), fault=Fault.RESET_MID_STREAM))
        async with at(server) as first:
            model = FallbackAdapter([first, ScriptedLLM(second)], on_cut=on_cut)
            down, _ = await run_test(
                LLMService(model),
                frames_to_send=[LLMContextFrame(context()), SleepFrame(sleep=0.5)],
            )
            assert words(down) == heard


async def test_one_model_serves_pipelines_that_end() -> None:
    model = ScriptedLLM("One.", "Two.")
    for text in ("One.", "Two."):
        down, _ = await run_test(
            LLMService(model), frames_to_send=[LLMContextFrame(context()), SleepFrame(sleep=0.2)]
        )
        assert words(down) == text


async def test_settings_reach_the_model_and_can_be_changed() -> None:
    model = ScriptedLLM("x", "y")
    service = LLMService(model, settings=LLMSettings(temperature=0.1, max_tokens=5))
    await run_test(
        service,
        frames_to_send=[
            LLMContextFrame(context()),
            SleepFrame(sleep=0.2),
            LLMUpdateSettingsFrame(delta=LLMSettings(temperature=0.9)),
            LLMContextFrame(context()),
            SleepFrame(sleep=0.2),
        ],
    )
    first, second = (dict(call.extra_kwargs) for call in model.calls)  # type: ignore[arg-type]
    assert first == {"temperature": 0.1, "max_tokens": 5}
    assert second == {"temperature": 0.9, "max_tokens": 5}


async def test_the_name_of_another_model_is_refused() -> None:
    with pytest.raises(ValueError, match=r"settings\.model is 'other'.*is 'scripted'"):
        LLMService(ScriptedLLM("x"), settings=LLMSettings(model="other"))
    model = ScriptedLLM("Hello.")
    service = LLMService(model, settings=LLMSettings(model="scripted"))
    change = LLMSettings(model="other", temperature=0.9)
    down, up = await run_test(
        service,
        frames_to_send=[
            LLMUpdateSettingsFrame(delta=change),
            SleepFrame(sleep=0.1),
            LLMContextFrame(context()),
            SleepFrame(sleep=0.3),
        ],
    )
    (error,) = errors_of(up)
    assert "settings.model is 'other'" in error.error
    assert words(down) == "Hello."
    assert model.calls[0].extra_kwargs == {"temperature": 0.9}
    assert service.settings.model == "scripted"


async def test_pictures_and_documents_reach_the_model() -> None:
    model = ScriptedLLM("I see.")
    content: Any = [
        {"type": "text", "text": "See:"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": PDF}},
    ]
    await run_test(
        LLMService(model),
        frames_to_send=[
            LLMContextFrame(LLMContext([{"role": "user", "content": content}])),
            SleepFrame(sleep=0.2),
        ],
    )
    (message,) = model.calls[0].chat_ctx.items
    assert message.type == "message"
    _, picture, document = message.content
    assert picture.image == "data:image/png;base64,AAAA"  # type: ignore[union-attr]
    assert document.image == PDF  # type: ignore[union-attr]


async def refused(service: LLMService, held: LLMContext) -> ErrorFrame:
    down, up = await run_test(
        service, frames_to_send=[LLMContextFrame(held), SleepFrame(sleep=0.3)]
    )
    assert not any(isinstance(frame, LLMTextFrame) for frame in down)
    (error,) = errors_of(up)
    return error


async def test_what_cannot_be_passed_on_is_one_clear_error() -> None:
    odd: Any = {AdapterType.OPENAI: [{"type": "web_search"}]}
    tools = ToolsSchema(standard_tools=[], custom_tools=odd)
    held = LLMContext([{"role": "user", "content": "x"}], tools=tools)
    error = await refused(LLMService(ScriptedLLM("x")), held)
    assert "a tool of the type 'web_search' cannot be passed on" in error.error
    assert error.category is ErrorCategory.APPLICATION
    content: Any = [{"type": "input_video", "url": "u"}]
    held = LLMContext([{"role": "user", "content": content}])
    error = await refused(LLMService(ScriptedLLM("x")), held)
    assert "content of the type 'input_video'" in error.error
    assert error.category is ErrorCategory.APPLICATION


async def test_a_model_that_cannot_do_what_was_asked_says_so_once() -> None:
    async with FaultServer() as server:
        server.always(Answer(status=400, message="no tools here"))
        async with at(server) as model:
            error = await refused(LLMService(model), context())
    assert "no tools here" in error.error
    assert error.category is ErrorCategory.INVALID_REQUEST


async def test_a_refused_picture_is_taken_out_and_the_service_stays_usable() -> None:
    async with FaultServer() as server:
        server.always(Answer(status=400, message="bad picture"))
        url = {"url": "data:image/png;base64,AAAA"}
        content: Any = [{"type": "image_url", "image_url": url}]
        held = LLMContext([{"role": "user", "content": content}])
        async with at(server) as model:
            service = LLMService(model)
            error = await refused(service, held)
    assert error.category is ErrorCategory.APPLICATION
    assert service.is_usable
    assert held.messages == []


async def test_a_busy_provider_is_told_by_its_status() -> None:
    async with FaultServer() as server:
        server.always(Fault.STATUS_429)
        async with at(server) as model:
            quick = APIConnectOptions(max_retry=1, retry_interval=0.01)
            error = await refused(LLMService(model, conn_options=quick), context())
    assert error.category is ErrorCategory.RATE_LIMIT


async def test_a_timeout_is_told_by_pipecats_event() -> None:
    async with FaultServer() as server:
        server.always(Fault.STALL_BEFORE_OUTPUT)
        async with at(server) as model:
            service = LLMService(model, conn_options=APIConnectOptions(max_retry=0, timeout=0.2))
            late: list[Any] = []

            @service.event_handler("on_completion_timeout")
            async def on_completion_timeout(service: Any) -> None:
                late.append(service)

            _, up = await run_test(
                service, frames_to_send=[LLMContextFrame(context()), SleepFrame(sleep=0.8)]
            )
    assert len(errors_of(up)) == 1
    assert late == [service]


async def test_broken_arguments_are_mended_or_not_run() -> None:
    ran: list[Any] = []

    async def weather(params: FunctionCallParams) -> None:
        ran.append(dict(params.arguments))
        await params.result_callback("rain")

    model = ScriptedLLM([call("weather", "{'city': 'Oslo'}")], [call("weather", "[what")])
    service = LLMService(model)
    service.register_function("weather", weather)
    down, up = await run_test(
        service,
        frames_to_send=[
            LLMContextFrame(context()),
            SleepFrame(sleep=0.3),
            LLMContextFrame(context()),
            SleepFrame(sleep=0.3),
        ],
    )
    assert ran == [{"city": "Oslo"}]
    assert len([frame for frame in down if isinstance(frame, FunctionCallResultFrame)]) == 1
    (error,) = errors_of(up)
    assert "The arguments of `weather`" in error.error
