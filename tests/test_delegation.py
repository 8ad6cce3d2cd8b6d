"""A text model does the tasks that a speech model delegates: once each, in time, whatever happens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import pytest

from providers.openai.duplex import connection, live_service, told, until
from rejoinder import FallbackAdapter
from rejoinder.delegation import FAILED, WAITING, Delegate
from rejoinder.errors import APIConnectionError, ConfigurationError
from rejoinder.llm import (
    LLM,
    FunctionToolCall,
    Hedge,
    RealtimeError,
    StopResponse,
    TurnBudget,
    function_tool,
)
from rejoinder.providers.openai.live import GPTLiveModel, GPTLiveSession
from rejoinder.testing import (
    LiveConnection,
    RealtimeService,
    ScriptedLLM,
    ServerReply,
    assert_legal,
)
from rejoinder.types import APIConnectOptions

pytestmark = pytest.mark.looptime


@asynccontextmanager
async def delegating(
    llm: LLM, **options: Any
) -> AsyncIterator[tuple[GPTLiveSession, LiveConnection, RealtimeService]]:
    service = live_service()
    delegate = Delegate(llm, **options)
    transport = service.transport()
    model = GPTLiveModel(
        delegation=delegate,
        transport=transport,
        api_key="any",
        conn_options=APIConnectOptions(max_retry=100, retry_interval=0.1),
    )
    session = model.session()
    try:
        await session.connected()
        yield session, connection(service), service
    finally:
        await model.aclose()
        await transport.aclose()
        await service.aclose()
        names = {task.get_name() for task in asyncio.all_tasks()}
        assert not any(name.startswith("delegated task") for name in names)


@function_tool(effects=False)
async def weather(city: str) -> str:
    """The weather in a city."""
    await asyncio.sleep(3)
    return f"rain in {city}"


CALL = FunctionToolCall(name="weather", arguments='{"city": "Oslo"}', call_id="call_1")


def answers(live: LiveConnection) -> list[str]:
    """What the model was told to say about tasks."""
    return [text for how, task, text in live.told if how == "commentary" and task]


def assert_whole(session: GPTLiveSession) -> None:
    """Each call stands in the conversation with one output behind it."""
    items = session.chat_ctx.items
    calls = [
        (place, item.call_id) for place, item in enumerate(items) if item.type == "function_call"
    ]
    outputs = [item.call_id for item in items if item.type == "function_call_output"]
    assert [call_id for _, call_id in calls] == outputs
    assert all(items[place + 1].type == "function_call_output" for place, _ in calls)
    chat_ctx = session.chat_ctx
    chat_ctx.add_message(role="user", content="Go on.")
    assert_legal("openai", chat_ctx.to_provider_format("openai")[0])


async def test_a_task_is_done_and_answered() -> None:
    llm = ScriptedLLM("It rains in Oslo. Take an umbrella with you. It will be dry tomorrow.")
    async with delegating(llm) as (session, live, _):
        await live.words_of_user("How is the weather in Oslo?")
        task = await live.delegate()
        await until(lambda: len(answers(live)) == 2)
        assert answers(live) == [
            "It rains in Oslo.",
            "Take an umbrella with you. It will be dry tomorrow.",
        ]
        assert {told_task for _, told_task, _ in live.told} == {task}
        (call,) = llm.calls
        assert call.chat_ctx.items[-1].text_content == "How is the weather in Oslo? "
        await until(lambda: any(item.role == "assistant" for item in session.chat_ctx.messages()))


async def test_words_that_come_late_are_part_of_the_task() -> None:
    llm = ScriptedLLM("Done.")
    async with delegating(llm) as (_, live, _):
        await live.delegate()
        for words in ("How is", "the weather", "in Oslo?"):
            await asyncio.sleep(0.15)
            await live.words_of_user(words)
        await until(lambda: answers(live))
        assert llm.calls[0].chat_ctx.items[-1].text_content == "How is the weather in Oslo? "


async def test_tools_run_while_the_model_is_told_silently_and_the_user_in_time() -> None:
    llm = ScriptedLLM([CALL], "It rains.")
    async with delegating(llm, tools=[weather]) as (session, live, _):
        began = asyncio.get_running_loop().time()
        await live.words_of_user("How is the weather in Oslo?")
        await live.delegate()
        await until(lambda: WAITING in answers(live))
        assert asyncio.get_running_loop().time() - began == pytest.approx(2.0, abs=0.1)
        await until(lambda: "It rains." in answers(live))
        assert answers(live) == [WAITING, "It rains."]
        assert told(live, "thinking") == ["Working on the task with the tool weather."]
        await until(lambda: len(session.chat_ctx.items) >= 3)
        kinds = [item.type for item in session.chat_ctx.items if item.type != "message"]
        assert kinds == ["function_call", "function_call_output"]
        assert_whole(session)


async def test_the_user_hears_again_and_again_that_it_takes_a_while() -> None:
    llm = ScriptedLLM([25.0, "At last."])
    patient = APIConnectOptions(timeout=100.0)
    async with delegating(llm, conn_options=patient) as (_, live, _):
        await live.words_of_user("Go.")
        await live.delegate()
        await until(lambda: "At last." in answers(live))
        assert answers(live) == [WAITING, WAITING, WAITING, "At last."]


async def test_a_long_tool_after_the_first_words_is_no_silence() -> None:
    @function_tool(effects=False)
    async def weather(city: str) -> str:
        """The weather in a city, slowly."""
        await asyncio.sleep(15)
        return city

    llm = ScriptedLLM(["I will look it up.", CALL], "It rains.")
    async with delegating(llm, tools=[weather]) as (_, live, _):
        await live.words_of_user("How is the weather?")
        await live.delegate()
        await until(lambda: "It rains." in answers(live))
        assert answers(live) == ["I will look it up.", WAITING, "It rains."]


async def test_a_quick_answer_needs_no_apology() -> None:
    async with delegating(ScriptedLLM("Yes.")) as (_, live, _):
        await live.words_of_user("Ready?")
        await live.delegate()
        await asyncio.sleep(30)
        assert answers(live) == ["Yes."]


async def test_a_task_that_is_told_twice_is_done_once() -> None:
    llm = ScriptedLLM("Yes.", "Yes, again.")
    async with delegating(llm) as (_, live, _):
        await live.words_of_user("Ready?")
        task = await live.delegate()
        await live.delegate(delegation_id=task)
        await asyncio.sleep(5)
        await live.delegate(delegation_id=task)
        await asyncio.sleep(5)
        assert answers(live) == ["Yes."]


async def test_two_tasks_at_once_are_answered_each() -> None:
    llm = ScriptedLLM([1.0, "One."], [0.5, "Two."])
    async with delegating(llm) as (_, live, _):
        await live.words_of_user("Do two things.")
        first = await live.delegate()
        second = await live.delegate()
        await until(lambda: len(answers(live)) == 2)
        assert {(task, text) for how, task, text in live.told if how == "commentary"} == {
            (first, "One."),
            (second, "Two."),
        }


async def test_a_model_that_is_silent_is_replaced() -> None:
    silent, other = ScriptedLLM([100.0, "Never."]), ScriptedLLM("The other one answers.")
    llm = FallbackAdapter([silent, other], attempt_timeout=1.0)
    async with delegating(llm) as (_, live, _):
        await live.words_of_user("Go.")
        await live.delegate()
        await until(lambda: "The other one answers." in answers(live))
        assert FAILED not in answers(live)


async def test_a_model_that_is_cut_is_replaced_and_the_speech_model_hears_about_it() -> None:
    cut = ScriptedLLM(["It will rain all day. And then", APIConnectionError("gone")])
    other = ScriptedLLM("It will be sunny.")
    llm = FallbackAdapter([cut, other], on_cut="restart")
    async with delegating(llm) as (_, live, _):
        await live.words_of_user("How will the weather be?")
        await live.delegate()
        await until(lambda: "It will be sunny." in answers(live))
        told_in_order = [(how, text) for how, _, text in live.told]
        assert [how for how, _ in told_in_order] == ["commentary", "thinking", "commentary"]
        assert told_in_order[1][1].startswith("Disregard")


@pytest.mark.parametrize(
    "script", [[APIConnectionError("gone")] * 4, [["Half a sen", APIConnectionError("gone")]] * 4]
)
async def test_the_user_hears_of_a_failure(script: list[Any]) -> None:
    llm = FallbackAdapter([ScriptedLLM(*script), ScriptedLLM(*script)])
    async with delegating(llm) as (session, live, _):
        await live.words_of_user("Go.")
        await live.delegate()
        await until(lambda: FAILED in answers(live))
        assert answers(live).count(FAILED) == 1
        assert_whole(session)


@pytest.mark.parametrize(
    ("budget", "script"),
    [
        (TurnBudget(first_token_by=1.0, done_by=5.0), [100.0, "Never."]),
        (TurnBudget(first_token_by=1.0, next_token_within=4.0), [100.0, "Never."]),
        (TurnBudget(first_token_by=1.0, done_by=5.0), [CALL]),
    ],
)
async def test_a_budget_that_is_used_up(budget: TurnBudget, script: list[Any]) -> None:
    @function_tool(effects=False)
    async def weather(city: str) -> str:
        """Takes for ever."""
        await asyncio.sleep(1000)
        return city

    async with delegating(ScriptedLLM(script), tools=[weather], budget=budget) as (
        session,
        live,
        _,
    ):
        began = asyncio.get_running_loop().time()
        await live.words_of_user("Go.")
        await live.delegate()
        await until(lambda: FAILED in answers(live))
        assert asyncio.get_running_loop().time() - began < 6.5
        await asyncio.sleep(1)
        assert_whole(session)


@pytest.mark.parametrize("after", [0.0, 0.1, 0.5, 2.5, 3.5])
async def test_a_cancelled_task_is_never_answered_and_leaves_a_legal_history(after: float) -> None:
    llm = ScriptedLLM([0.3, CALL], [0.5, "Too late."])
    async with delegating(llm, tools=[weather]) as (session, live, _):
        await live.words_of_user("How is the weather?")
        task = await live.delegate()
        await asyncio.sleep(after)
        session.cancel_delegation(task)
        before = list(answers(live))
        await asyncio.sleep(20)
        assert answers(live) == before
        assert "Too late." not in before
        assert told(live, "thinking")[-1].startswith("The task was cancelled")
        assert_whole(session)


async def test_a_task_outlives_its_connection() -> None:
    llm = ScriptedLLM([2.0, "It rains."])
    async with delegating(llm) as (session, live, service):
        await live.words_of_user("How is the weather?")
        await live.delegate()
        await asyncio.sleep(1)
        live.drop()
        await until(lambda: len(service.connections) == 2 and len(connection(service).told) == 2)
        assert connection(service).told == [
            ("commentary", None, WAITING),
            ("commentary", None, "It rains."),
        ]
        assert len(llm.calls) == 1
        assert session.chat_ctx.items


async def test_a_swap_waits_for_the_end_of_a_task() -> None:
    llm = ScriptedLLM([5.0, "It rains."])
    async with delegating(llm) as (session, live, service):
        await live.speech("How is the weather?")
        task = await live.delegate()
        await asyncio.sleep(1)
        await session.update_instructions("Be brief.")  # needs a new session
        await until(lambda: "It rains." in answers(live))
        assert live.told[-1] == ("commentary", task, "It rains.")
        await until(lambda: session.session_id == "live_2")
        assert connection(service).start["instructions"] == "Be brief."


async def test_an_answer_with_nothing_to_say_is_told_too() -> None:
    @function_tool
    async def hang_up() -> None:
        """Ends the call."""
        raise StopResponse

    call = FunctionToolCall(name="hang_up", arguments="{}", call_id="call_1")
    async with delegating(ScriptedLLM([call]), tools=[hang_up]) as (_, live, _):
        await live.words_of_user("Bye.")
        await live.delegate()
        await until(lambda: len(told(live, "thinking")) == 2)
        assert told(live, "thinking")[-1].startswith("The task is done")
        await asyncio.sleep(30)
        assert answers(live) == []


async def test_the_tools_of_the_session_are_used_and_their_work_is_known_to_the_next_task() -> None:
    llm = ScriptedLLM([CALL], "It rains.", "As I said.")
    async with delegating(llm) as (session, live, service):
        await session.update_tools([weather])
        await live.words_of_user("How is the weather?")
        await live.delegate()
        await until(lambda: "It rains." in answers(live))
        await live.speech("Really?")
        await live.delegate()
        await until(lambda: "As I said." in answers(live))
        types = [item.type for item in llm.calls[-1].chat_ctx.items]
        assert types.index("function_call") + 1 == types.index("function_call_output")
        live.drop()
        await until(lambda: len(service.connections) == 2 and connection(service).said)
        said = [text for _, text in connection(service).said]
        assert "The tool weather returned: rain in Oslo" in said
        assert len(service.connections) == 2


async def test_closing_stops_all_tasks() -> None:
    llm = ScriptedLLM([100.0, "Never."], [100.0, "Never."])
    async with delegating(llm) as (session, live, _):
        await live.delegate()
        await live.delegate()
        await asyncio.sleep(2)
        async with asyncio.timeout(2):
            await session.aclose()
        assert not any(task.get_name().startswith("delegated task") for task in asyncio.all_tasks())


async def test_an_answer_is_passed_on_in_pieces_that_fit() -> None:
    text = "A long story about a king. " * 200
    async with delegating(ScriptedLLM(text.strip())) as (_, live, _):
        await live.words_of_user("Tell me a story.")
        await live.delegate()
        await until(lambda: " ".join(answers(live)) == text.strip())
        assert answers(live)[0] == "A long story about a king."
        assert len(answers(live)) > 5


def test_wrong_options() -> None:
    with pytest.raises(ConfigurationError, match=r"Delegate.llm: expected an LLM"):
        Delegate("gpt-5")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="'responses', 'client' or a Delegate"):
        GPTLiveModel(delegation="decisions", api_key="any")  # type: ignore[arg-type]


async def test_a_fatal_error_stops_all_tasks() -> None:
    llm = ScriptedLLM([100.0, "Never."])
    async with delegating(llm) as (session, live, _):
        await live.delegate()
        await asyncio.sleep(3)
        await live.error("No.", code="insufficient_quota")
        await asyncio.sleep(1)
        assert not any(task.get_name().startswith("delegated task") for task in asyncio.all_tasks())
        with pytest.raises(RealtimeError):
            await session.generate_reply()


async def test_a_slow_model_is_hedged() -> None:
    llm = FallbackAdapter(
        [ScriptedLLM([4.0, "The slow one."]), ScriptedLLM("The quick one.")],
        hedge=Hedge(delay=0.5, max_share=1.0),
    )
    async with delegating(llm) as (_, live, _):
        await live.words_of_user("Go.")
        await live.delegate()
        await asyncio.sleep(20)
        assert answers(live) == ["The quick one."]


async def test_a_call_of_a_model_that_is_cut_runs_at_most_once() -> None:
    ran: list[str] = []

    @function_tool
    async def weather(city: str) -> str:
        """The weather in a city, noted."""
        ran.append(city)
        return "rain"

    script = [[CALL, APIConnectionError("gone")], [CALL], "It rains."]
    llm = FallbackAdapter([ScriptedLLM(*script), ScriptedLLM(*script)], on_cut="restart")
    async with delegating(llm, tools=[weather]) as (session, live, _):
        await live.words_of_user("How is the weather?")
        await live.delegate()
        await until(lambda: answers(live))
        await asyncio.sleep(20)
        assert len(ran) <= 1
        assert_whole(session)


class Watched(ScriptedLLM):
    """Answers every request, after a while, with or without a tool."""

    def __init__(self, random: Random) -> None:
        super().__init__()
        self.random = random
        self.count = 0

    def chat(self, **options: Any) -> Any:
        self.count += 1
        steps: list[Any] = [self.random.choice([0.0, 0.3, 3.0])]
        if self.random.random() < 0.4 and self.count < 40:
            steps.append(
                FunctionToolCall(
                    name="weather", arguments='{"city": "Oslo"}', call_id=f"call_{self.count}"
                )
            )
        elif self.random.random() < 0.15:
            steps += ["Half", APIConnectionError("gone")]
        else:
            steps.append(f"Answer {self.count}.")
        self.then(steps)
        return super().chat(**options)


@pytest.mark.parametrize("seed", range(25))
async def test_whatever_happens_each_task_ends_once_and_the_history_is_whole(seed: int) -> None:
    random = Random(seed)
    llm = Watched(random)
    async with delegating(llm, tools=[weather], conn_options=APIConnectOptions(max_retry=0)) as (
        session,
        _,
        service,
    ):
        tasks: dict[str, bool] = {}
        session.on("delegation_created", lambda event: tasks.setdefault(event.id, False))
        for _ in range(25):
            live = connection(service)
            if not live.start:
                await session.connected()
                continue
            match random.choice(
                ["say", "task", "task", "cancel", "drop", "end", "wait", "interrupt"]
            ):
                case "say":
                    await live.speech("And then?")
                case "task":
                    await live.words_of_user("Do it.")
                    await live.delegate()
                case "cancel" if tasks:
                    task = random.choice(list(tasks))
                    tasks[task] = True
                    session.cancel_delegation(task)
                case "drop":
                    live.drop()
                case "end":
                    await live.end_session("expired")
                case "interrupt":
                    session.interrupt()
                case _:
                    pass
            await asyncio.sleep(random.choice([0.0, 0.2, 2.0, 6.0]))
            assert_whole(session)
        await asyncio.sleep(90)
        assert_whole(session)
        told_all = [
            text
            for made in service.connections
            if isinstance(made, LiveConnection)
            for how, _, text in made.told
            if how == "commentary"
        ]
        answered = {text for text in told_all if text.startswith("Answer")}
        failures = told_all.count(FAILED)
        assert len(answered) <= len(tasks)
        assert len(answered) + failures >= sum(not cancelled for cancelled in tasks.values())


async def test_a_request_waits_for_a_slow_task_also_without_company() -> None:
    @function_tool(effects=False)
    async def search() -> str:
        """Looks it up."""
        await asyncio.sleep(40)
        return "42"

    call = FunctionToolCall(name="search", arguments="{}", call_id="call_1")
    llm = ScriptedLLM([call], "It is 42.")
    patience = TurnBudget(done_by=100.0)  # and nothing is said until then
    async with delegating(llm, tools=[search], budget=patience) as (session, live, service):
        service.reply(ServerReply([]))
        future = session.generate_reply()
        await live.delegate()
        reply = await future
        async for message in reply.message_stream:
            assert "".join([text async for text in message.text_stream]) == "It is 42."
