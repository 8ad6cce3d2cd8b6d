"""A turn, from the first question to the last answer, and cut at every moment in between."""

from __future__ import annotations

import asyncio
import gc
import json
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from rejoinder._core.repair import repair
from rejoinder.errors import APIError, ConfigurationError
from rejoinder.llm._tool_runs import CUT_OFF, NOT_STARTED, OUR_FAILURE, STILL_RUNNING
from rejoinder.llm.chat_context import (
    ChatContext,
    ChatItem,
    ChatMessage,
    FunctionCall,
    FunctionCallOutput,
)
from rejoinder.llm.llm import (
    LLM,
    ChatChunk,
    ChoiceDelta,
    CompletionUsage,
    FunctionToolCall,
    LLMStream,
)
from rejoinder.llm.tool_context import (
    RunContext,
    StopResponse,
    ToolContext,
    ToolError,
    Toolset,
    function_tool,
)
from rejoinder.testing import history
from rejoinder.turn import (
    Done,
    Text,
    Thinking,
    ToolFinished,
    ToolStarted,
    Turn,
    Usage,
    run_turn,
)
from rejoinder.types import NOT_GIVEN, APIConnectOptions

Step = ChatChunk | Exception | Callable[[], Awaitable[None]]
Script = Sequence[Step]


class ScriptedStream(LLMStream):
    def __init__(self, llm: LLM[Any], script: Script, **kwargs: Any) -> None:
        self._script = script
        super().__init__(llm, **kwargs)

    async def _run(self) -> None:
        for step in self._script:
            await asyncio.sleep(0)
            if isinstance(step, Exception):
                raise step
            if isinstance(step, ChatChunk):
                self._event_ch.send_nowait(step)
            else:
                await step()


NO_RETRY = APIConnectOptions(max_retry=0)


class ScriptedLLM(LLM[Any]):
    """Plays one script per request; complains about a request too many."""

    def __init__(self, *scripts: Script) -> None:
        super().__init__()
        self.scripts = list(scripts)
        self.requests: list[dict[str, Any]] = []

    def chat(
        self,
        *,
        chat_ctx: ChatContext,
        tools: list[Any] | None = None,
        conn_options: APIConnectOptions = NO_RETRY,
        **kwargs: Any,
    ) -> LLMStream:
        if not self.scripts:
            raise AssertionError("a request too many")
        check_history(chat_ctx.items)
        items = [item.model_copy(deep=True) for item in chat_ctx.items]
        self.requests.append({"items": items, "tools": tools, **kwargs})
        return ScriptedStream(
            self,
            self.scripts.pop(0),
            chat_ctx=chat_ctx,
            tools=tools or [],
            conn_options=conn_options,
        )


def delta(**fields: Any) -> ChatChunk:
    return ChatChunk(id="r", delta=ChoiceDelta(role="assistant", **fields))


def text(content: str) -> ChatChunk:
    return delta(content=content)


def calls(*names: str, **fields: Any) -> ChatChunk:
    """Calls by name; ``name:{json}`` for one with arguments."""
    made: list[FunctionToolCall] = []
    for i, name in enumerate(names):
        name, _, arguments = name.partition(":")
        made.append(
            FunctionToolCall(name=name, arguments=arguments or "{}", call_id=f"c{i}-{name}")
        )
    return delta(tool_calls=made, **fields)


def usage(tokens: int) -> ChatChunk:
    return ChatChunk(
        id="r",
        usage=CompletionUsage(completion_tokens=tokens, prompt_tokens=1, total_tokens=tokens + 1),
    )


def question() -> ChatContext:
    context = ChatContext()
    context.add_message(role="user", content="go")
    return context


def check_history(items: Sequence[ChatItem]) -> None:
    """Every call has exactly one output, and nothing stands between a call and its output but
    calls and outputs."""
    made = [item.call_id for item in items if isinstance(item, FunctionCall)]
    answered = [item.call_id for item in items if isinstance(item, FunctionCallOutput)]
    assert len(set(made)) == len(made), "two calls share an id"
    assert Counter(made) == Counter(answered)
    open_calls: set[str] = set()
    for item in items:
        match item:
            case FunctionCall():
                open_calls.add(item.call_id)
            case FunctionCallOutput():
                open_calls.remove(item.call_id)
            case ChatMessage():
                assert not open_calls, "a message between a call and its output"
                assert item.text_content
            case _:
                pass
    assert not open_calls
    groups = [item.group_id for item in items if isinstance(item, FunctionCall)]
    assert None not in groups


def check_every_provider(context: ChatContext, *, but: Sequence[str] = ()) -> None:
    """What each provider would get now, if the user went on, is what it accepts; and as it is,
    without any repair (`but` of these kinds), where ids of calls may look as they like."""
    context = context.copy()
    context.add_message(role="user", content="go on")
    for provider in ("openai", "openai.responses", "anthropic", "google", "aws", "mistralai"):
        items, changes = repair(context.items, provider)
        if provider != "mistralai":
            assert [change for change in changes if change.kind not in but] == []
        messages, data = ChatContext(items).to_provider_format(provider)
        system = getattr(data, "system_messages", None)
        history.assert_legal(provider, messages, system=system or None)


def kinds(items: Sequence[ChatItem]) -> list[str]:
    return [
        f"{item.role}:{item.text_content}"
        if isinstance(item, ChatMessage)
        else f"{item.type}:{item.name}"
        for item in items
        if isinstance(item, ChatMessage | FunctionCall | FunctionCallOutput)
    ]


def outputs(context: ChatContext) -> list[str]:
    return [item.output for item in context.items if isinstance(item, FunctionCallOutput)]


async def events_of(turn: Turn) -> list[Any]:
    async with turn:
        return [event async for event in turn]


@function_tool
async def add(a: int, b: int = 2) -> int:
    return a + b


@function_tool
async def fail() -> None:
    raise ValueError("secret")


@function_tool
async def stop() -> None:
    raise StopResponse


# -- the way through ------------------------------------------------------------------------


async def test_answer_without_tools() -> None:
    context = question()
    llm = ScriptedLLM([delta(thinking="hm"), text("Hel"), text("lo"), usage(3)])
    events = await events_of(run_turn(llm, context))
    message = context.items[-1]
    assert isinstance(message, ChatMessage)
    assert events == [
        Thinking("hm"),
        Text("Hel"),
        Text("lo"),
        Usage(usage(3).usage),  # type: ignore[arg-type]  # it has one
        Done("complete", message, 1, usage(3).usage),
    ]
    assert events[-1].text == "Hello"
    assert (message.role, message.interrupted) == ("assistant", False)
    assert llm.requests[0]["tools"] is None
    assert llm.requests[0]["tool_choice"] is NOT_GIVEN


async def test_the_last_count_of_a_request_counts() -> None:
    """Some providers count again in every chunk."""
    llm = ScriptedLLM(
        [text("a"), usage(1), text("b"), usage(2), calls("wait"), usage(3)],
        [text("c"), usage(4), text("d"), usage(5)],
    )

    @function_tool
    async def wait() -> None: ...

    events = [event async for event in run_turn(llm, question(), tools=[wait])]
    assert [e.usage.completion_tokens for e in events if isinstance(e, Usage)] == [3, 5]
    assert isinstance(events[-1], Done)
    assert events[-1].usage is not None
    assert events[-1].usage.completion_tokens == 8


async def test_usage_of_a_request_that_was_cut() -> None:
    async def hang() -> None:
        await asyncio.sleep(1000)

    turn = run_turn(ScriptedLLM([text("a"), usage(7), hang]), question())
    async with turn:
        assert await anext(turn) == Text("a")
        for _ in range(3):
            await asyncio.sleep(0)
        waiting = asyncio.ensure_future(anext(turn))
        await asyncio.sleep(0.01)
        turn.interrupt()
        rest = [await waiting, *[event async for event in turn]]
    assert [type(event) for event in rest] == [Usage, Done]
    assert isinstance(rest[-1], Done)
    assert rest[-1].usage == usage(7).usage


async def test_a_reply_that_others_closed_is_not_the_answer() -> None:
    """Half of its calls may be missing: none is run."""
    ran: list[str] = []

    @function_tool
    async def pay() -> None:
        ran.append("pay")

    async def hang() -> None:
        await asyncio.sleep(1000)

    context = question()
    llm = ScriptedLLM([text("I will"), calls("pay"), hang])
    turn = run_turn(llm, context, tools=[pay])
    async with turn:
        assert await anext(turn) == Text("I will")
        for _ in range(3):
            await asyncio.sleep(0)
        await llm.aclose()
        (done,) = [event async for event in turn]
    assert isinstance(done, Done)
    assert done.reason == "interrupted"
    assert kinds(context.items)[-1] == "assistant:I will"
    assert done.message is not None
    assert done.message.interrupted
    assert ran == []


async def test_tools_then_answer() -> None:
    context = question()
    llm = ScriptedLLM(
        [text("Let me see."), calls('add:{"a":1}', "fail", "nope"), usage(1)],
        [text("3"), usage(2)],
    )
    events = await events_of(run_turn(llm, context, tools=[add, fail]))
    assert kinds(context.items) == [
        "user:go",
        "assistant:Let me see.",
        "function_call:add",
        "function_call:fail",
        "function_call:nope",
        "function_call_output:add",
        "function_call_output:fail",
        "function_call_output:nope",
        "assistant:3",
    ]
    assert outputs(context)[0] == "3"
    assert "secret" not in outputs(context)[1]
    assert "`add`, `fail`" in outputs(context)[2]
    message, first, *_ = context.items[1:]
    assert isinstance(first, FunctionCall)
    assert first.group_id == message.id
    assert [type(event).__name__ for event in events if not isinstance(event, Text)] == [
        "Usage",
        *["ToolStarted", "ToolFinished"] * 3,
        "Usage",
        "Done",
    ]
    finished = {e.call.name: e for e in events if isinstance(e, ToolFinished)}
    assert isinstance(finished["fail"].exception, ValueError)
    assert (events[-1].steps, events[-1].usage.total_tokens) == (2, 5)
    assert [request["tools"] for request in llm.requests] == [[add, fail]] * 2


async def test_calls_run_side_by_side_and_keep_their_order() -> None:
    order: list[str] = []
    gates = {name: asyncio.Event() for name in ("x", "y")}

    @function_tool
    async def wait_for(name: str) -> str:
        order.append(f"start {name}")
        await gates[name].wait()
        order.append(f"end {name}")
        if name == "y":
            gates["x"].set()
        return name

    context = question()
    llm = ScriptedLLM(
        [calls('wait_for:{"name":"x"}'), calls('wait_for:{"name":"y"}')], [text("ok")]
    )
    gates["y"].set()
    await events_of(run_turn(llm, context, tools=[wait_for]))
    assert order == ["start x", "start y", "end y", "end x"]
    assert outputs(context) == ["x", "y"]
    check_history(context.items)


async def test_only_so_many_run_at_once() -> None:
    running = peak = 0

    @function_tool
    async def work(n: int) -> int:
        nonlocal running, peak
        running += 1
        peak = max(peak, running)
        for _ in range(5):
            await asyncio.sleep(0)
        running -= 1
        return n

    context = question()
    script = [calls(*(f'work:{{"n":{n}}}' for n in range(7)))]
    llm = ScriptedLLM(script, [text("ok")])
    await events_of(run_turn(llm, context, tools=[work], max_concurrency=2))
    assert peak == 2
    assert outputs(context) == [str(n) for n in range(7)]


async def test_stop_response_ends_the_turn() -> None:
    context = question()
    llm = ScriptedLLM([calls("stop", 'add:{"a":1}')])
    events = await events_of(run_turn(llm, context, tools=[add, stop]))
    assert events[-1].reason == "stop_response"
    assert outputs(context) == ["", "3"]
    output = context.items[-2]
    assert isinstance(output, FunctionCallOutput)
    assert not output.reply_required
    check_history(context.items)


async def test_last_step_may_not_call() -> None:
    context = question()
    llm = ScriptedLLM(
        [calls('add:{"a":1}')], [calls('add:{"a":2}')], [text("enough"), calls('add:{"a":3}')]
    )
    events = await events_of(run_turn(llm, context, tools=[add], max_steps=2))
    assert (events[-1].reason, events[-1].text, events[-1].steps) == ("max_steps", "enough", 3)
    assert [request["tool_choice"] for request in llm.requests] == [NOT_GIVEN, NOT_GIVEN, "none"]
    assert outputs(context) == ["3", "4"], "the call of the last step is not run"
    check_history(context.items)


async def test_a_forced_choice_is_made_once() -> None:
    named = {"type": "function", "function": {"name": "add"}}
    for choice, later in (("required", NOT_GIVEN), (named, NOT_GIVEN), ("auto", "auto")):
        llm = ScriptedLLM([calls('add:{"a":1}')], [text("ok")])
        await events_of(run_turn(llm, question(), tools=[add], tool_choice=choice))  # type: ignore[arg-type]
        assert [request["tool_choice"] for request in llm.requests] == [choice, later]


async def test_repetition_is_refused_and_then_ended() -> None:
    ran = 0

    @function_tool
    async def look(what: str, where: str = "") -> str:
        nonlocal ran
        ran += 1
        return "nothing"

    same = [
        calls('look:{"what":"x","where":"y"}'),
        calls('look:{"where": "y", "what": "x"}'),
    ]
    llm = ScriptedLLM([same[0]], [same[1]], [same[0]], [text("I give up")])
    context = question()
    events = await events_of(run_turn(llm, context, tools=[look], max_repeats=2))
    assert ran == 2
    assert "was not run again" in outputs(context)[2]
    assert "nothing" in outputs(context)[2]
    assert events[-1].reason == "max_steps"
    assert llm.requests[-1]["tool_choice"] == "none"
    check_history(context.items)


async def test_polling_is_no_repetition() -> None:
    told = ["wait", "wait", "half", "wait", "wait", "done"]
    answers = iter(told)

    @function_tool
    async def poll() -> str:
        return next(answers)

    llm = ScriptedLLM(*[[calls("poll")]] * 6, [text("ok")])
    context = question()
    await events_of(run_turn(llm, context, tools=[poll], max_repeats=3))
    assert outputs(context) == told


async def test_state_of_the_provider_goes_back() -> None:
    thinking = {"anthropic": {"thinking": [{"type": "thinking", "signature": "a"}]}}
    more = {"anthropic": {"thinking": [{"type": "thinking", "signature": "b"}]}, "rejoinder": 1}
    merged = {"anthropic": {"thinking": [{"type": "thinking", "signature": s} for s in "ab"]}}
    signed = FunctionToolCall(
        name="add", arguments='{"a":1}', call_id="c", extra={"google": {"thought_signature": "s"}}
    )
    for words in ("words", "", " \n"):
        context = question()
        llm = ScriptedLLM(
            [
                delta(thinking="t", extra=thinking),
                delta(content=words or None, extra=more),
                delta(tool_calls=[signed]),
            ],
            [text("ok")],
        )
        await events_of(run_turn(llm, context, tools=[add]))
        call = next(item for item in context.items if isinstance(item, FunctionCall))
        if words == "words":
            assert isinstance(message := context.items[1], ChatMessage)
            assert message.extra == merged
            assert call.extra == {"google": {"thought_signature": "s"}}
        else:
            assert call.extra == {"google": {"thought_signature": "s"}, **merged}
        json.dumps(call.extra)


async def test_ids_of_calls_are_made_unique() -> None:
    context = question()
    llm = ScriptedLLM(
        [calls('add:{"a":1}')],
        [calls('add:{"a":2}')],
        [delta(tool_calls=[FunctionToolCall(name="add", arguments="", call_id="")])],
        [text("ok")],
    )
    await events_of(run_turn(llm, context, tools=[add]))
    check_history(context.items)
    assert len({i.call_id for i in context.items if isinstance(i, FunctionCall)}) == 3


async def test_broken_arguments_are_answered_and_rewritten() -> None:
    context = question()
    llm = ScriptedLLM([calls("add:{'a': 1,}", 'add:{"b": 1}')], [text("ok")])
    await events_of(run_turn(llm, context, tools=[add]))
    call = context.items[1]
    assert isinstance(call, FunctionCall)
    assert call.arguments == '{"a": 1}'
    assert outputs(context)[0] == "3"
    assert "$.a" in outputs(context)[1]


async def test_tools_get_their_context() -> None:
    seen: list[RunContext[Any]] = []

    @function_tool
    async def look(ctx: RunContext[dict[str, int]]) -> str:
        seen.append(ctx)
        return str(ctx.userdata["n"])

    context = question()
    llm = ScriptedLLM([calls("look", "look")], [text("ok")])
    await events_of(run_turn(llm, context, tools=[look], userdata={"n": 7}))
    assert outputs(context) == ["7", "7"]
    assert [ctx.function_call for ctx in seen] == context.items[1:3]
    keys = [ctx.idempotency_key for ctx in seen]
    assert len(set(keys)) == 2
    copied = ChatContext.from_dict(context.to_dict())
    again = [RunContext(i).idempotency_key for i in copied.items if isinstance(i, FunctionCall)]
    assert again == keys, "the same call has the same key, also in another process"


async def test_own_contexts() -> None:
    @function_tool
    async def look(ctx: RunContext) -> str:
        return type(ctx).__name__

    class Mine(RunContext[Any]):
        pass

    context = question()
    llm = ScriptedLLM([calls("look")], [text("ok")])
    await events_of(run_turn(llm, context, tools=[look], make_context=Mine))
    assert outputs(context) == ["Mine"]


async def test_a_toolset_may_change_between_steps() -> None:
    class Growing(Toolset):
        @function_tool
        async def grow(self) -> str:
            self._tools.append(add)
            return "grown"

    tools = Growing(id="g")
    llm = ScriptedLLM([calls("grow")], [calls('add:{"a":1}')], [text("ok")])
    context = question()
    await events_of(run_turn(llm, context, tools=[tools]))
    assert outputs(context) == ["grown", "3"]


async def test_tool_context_as_it_is() -> None:
    llm = ScriptedLLM([calls('add:{"a":1}')], [text("ok")])
    context = question()
    await events_of(run_turn(llm, context, tools=ToolContext([add])))
    assert outputs(context) == ["3"]


async def test_collect() -> None:
    llm = ScriptedLLM([calls('add:{"a":1}')], [text("ok")])
    done = await run_turn(llm, question(), tools=[add]).collect()
    assert (done.text, done.reason) == ("ok", "complete")


async def test_events_end() -> None:
    turn = run_turn(ScriptedLLM([text("ok")]), question())
    assert [type(event) async for event in turn] == [Text, Done]
    assert [event async for event in turn] == []
    assert turn.done


async def test_one_consumer_at_a_time() -> None:
    gate = asyncio.Event()
    async with run_turn(ScriptedLLM([gate.wait, text("ok")]), question()) as turn:
        first = asyncio.ensure_future(anext(turn))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="already waiting"):
            await anext(turn)
        gate.set()
        assert await first == Text("ok")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"max_steps": 0}, "max_steps"),
        ({"max_repeats": 0}, "max_repeats"),
        ({"max_concurrency": 0}, "max_concurrency"),
        ({"tools": [add, function_tool(name="add")(fail)]}, "two tools are named `add`"),
        ({"tools": [len]}, "function_tool"),
    ],
)
def test_refused_at_once(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        run_turn(ScriptedLLM(), question(), **options)


# -- failures -------------------------------------------------------------------------------


async def test_a_request_that_fails_leaves_a_whole_history() -> None:
    error = APIError("boom", retryable=False)
    context = question()
    llm = ScriptedLLM([calls('add:{"a":1}')], [text("par"), text("tial"), error])
    turn = run_turn(llm, context, tools=[add])
    with pytest.raises(APIError, match="boom"):
        await events_of(turn)
    last = context.items[-1]
    assert isinstance(last, ChatMessage)
    assert (last.text_content, last.interrupted) == ("partial", True)
    check_history(context.items)
    assert [event async for event in turn] == []


async def test_what_cannot_be_asked_is_raised_and_changes_nothing() -> None:
    class Refusing(ScriptedLLM):
        def chat(self, **kwargs: Any) -> LLMStream:
            raise ConfigurationError("no key")

    context = question()
    with pytest.raises(ConfigurationError, match="no key"):
        await events_of(run_turn(Refusing(), context))
    assert kinds(context.items) == ["user:go"]


async def test_a_failure_around_a_tool_is_an_answer_too(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whatever breaks, the turn does not wait for ever."""

    class Forgets(ToolContext):
        asked = 0

        def get_function_tool(self, name: str) -> Any:
            self.asked += 1
            if self.asked > 1:
                raise RuntimeError("nothing is where it was")
            return super().get_function_tool(name)

    context = question()
    llm = ScriptedLLM([calls("stop")], [text("ok")])
    await events_of(run_turn(llm, context, tools=Forgets([stop])))
    assert outputs(context) == [OUR_FAILURE]
    assert "nothing is where it was" in caplog.text


@pytest.mark.parametrize("kind", ["async", "sync", "thread"])
@pytest.mark.parametrize(
    "error",
    [StopIteration, StopAsyncIteration, GeneratorExit, SystemExit, asyncio.CancelledError],
)
async def test_whatever_a_tool_raises_is_an_answer(kind: str, error: type[BaseException]) -> None:
    """Some of these mean something to generators, futures or tasks on their way up."""

    def raises() -> None:
        raise error

    async def raises_later() -> None:
        await asyncio.sleep(0)
        raise error

    tool = function_tool(
        raises_later if kind == "async" else raises, name="raises", threaded=kind == "thread"
    )
    context = question()
    llm = ScriptedLLM([calls("raises")], [text("sorry")])
    async with asyncio.timeout(10):
        done = await run_turn(llm, context, tools=[tool]).collect()
    assert done.text == "sorry"
    assert "internal error" in outputs(context)[0]


async def test_a_thread_may_hand_over_something_to_wait_for() -> None:
    async def later() -> str:
        return "now"

    tool = function_tool(lambda: later(), name="ask", threaded=True)
    context = question()
    await run_turn(ScriptedLLM([calls("ask")], [text("ok")]), context, tools=[tool]).collect()
    assert outputs(context) == ["now"]


async def test_arguments_of_absurd_depth() -> None:
    context = question()
    deep = '{"a": ' + "[" * 50_000 + "]" * 50_000 + "}"
    llm = ScriptedLLM([calls(f"add:{deep}")], [text("ok")])
    await events_of(run_turn(llm, context, tools=[add]))
    assert "not valid JSON" in outputs(context)[0]
    repaired, changes = repair(context.items, "openai")
    assert len(changes) == 1
    assert isinstance(call := repaired[1], FunctionCall)
    assert len(call.arguments) < 200_000


@pytest.mark.looptime
async def test_time_is_up() -> None:
    stopped = asyncio.Event()

    @function_tool(timeout=2)
    async def slow() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            stopped.set()

    @function_tool
    async def slower() -> None:
        await asyncio.sleep(60)

    @function_tool(timeout=1)
    async def deaf() -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                pass

    release = asyncio.Event()
    context = question()
    llm = ScriptedLLM([calls("slow", "slower", "deaf")], [text("ok")])
    loop = asyncio.get_running_loop()
    began = loop.time()
    await events_of(run_turn(llm, context, tools=[slow, slower, deaf], tool_timeout=5))
    assert loop.time() - began == pytest.approx(5)
    assert stopped.is_set()
    for output, seconds in zip(outputs(context), ("2 s", "5 s", "1 s"), strict=True):
        assert f"did not finish within {seconds}" in output
        assert "may have had an effect" in output
    release.set()
    await asyncio.sleep(0)


@pytest.mark.looptime
async def test_a_result_that_comes_while_stopping_counts() -> None:
    @function_tool(timeout=1)
    async def stubborn() -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            pass
        return "saved"

    context = question()
    llm = ScriptedLLM([calls("stubborn")], [text("ok")])
    await events_of(run_turn(llm, context, tools=[stubborn]))
    assert outputs(context) == ["saved"]


async def test_what_a_tool_cancels_inside_itself_is_its_own_failure() -> None:
    @function_tool
    async def inner() -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    context = question()
    llm = ScriptedLLM([calls("inner")], [text("ok")])
    events = await events_of(run_turn(llm, context, tools=[inner]))
    assert events[-1].reason == "complete"
    assert "internal error" in outputs(context)[0]


# -- interruption ---------------------------------------------------------------------------


@pytest.mark.looptime
async def test_interrupted_while_it_speaks() -> None:
    context = question()
    hang = asyncio.Event()
    state = {"openai": {"reasoning_items": [1]}}
    llm = ScriptedLLM([delta(content="Once", extra=state), text(" upon"), hang.wait, text(" no")])
    async with run_turn(llm, context) as turn:
        events = [await anext(turn), await anext(turn)]
        turn.interrupt()
        events += [event async for event in turn]
    assert [type(event) for event in events] == [Text, Text, Done]
    message = context.items[-1]
    assert isinstance(message, ChatMessage)
    assert (message.text_content, message.interrupted) == ("Once upon", True)
    assert message.extra == {}, "state of a reply that was cut fits nothing that follows"
    assert events[-1] == Done("interrupted", message, 1, None)


@pytest.mark.looptime
async def test_a_reply_that_cannot_be_closed_does_not_disturb_the_cut(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Breaks(ScriptedStream):
        async def aclose(self) -> None:
            await super().aclose()
            raise OSError("the disk is full")

    class BreakingLLM(ScriptedLLM):
        def chat(self, *, chat_ctx: ChatContext, **_: Any) -> LLMStream:
            script = self.scripts.pop(0)
            return Breaks(self, script, chat_ctx=chat_ctx, tools=[], conn_options=NO_RETRY)

    async def hang() -> None:
        await asyncio.sleep(1000)

    async with run_turn(BreakingLLM([text("Hel"), hang]), question()) as turn:
        assert await anext(turn) == Text("Hel")
        turn.interrupt()
        assert [type(event) for event in [event async for event in turn]] == [Done]
    gc.collect()
    assert "never retrieved" not in caplog.text
    assert "Breaks could not be closed" in caplog.text
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_interrupted_before_a_word() -> None:
    context = question()
    hang = asyncio.Event()
    async with run_turn(ScriptedLLM([hang.wait]), context) as turn:
        waiting = asyncio.ensure_future(anext(turn))
        await asyncio.sleep(1)
        turn.interrupt()
        event = await waiting
    assert event == Done("interrupted", None, 1, None)
    assert kinds(context.items) == ["user:go"]


@pytest.mark.looptime
async def test_the_fence() -> None:
    """A tool that must not be interrupted finishes; its result enters the conversation."""
    effects: list[str] = []

    @function_tool
    async def slow() -> str:
        await asyncio.sleep(10)
        return "never"

    @function_tool(interruptible=False)
    async def pay() -> str:
        await asyncio.sleep(10)
        effects.append("paid")
        return "paid"

    @function_tool
    async def commits(ctx: RunContext) -> str:
        await asyncio.sleep(1)
        ctx.disallow_interruptions()
        await asyncio.sleep(10)
        effects.append("committed")
        return "committed"

    context = question()
    llm = ScriptedLLM([calls("slow", "pay", "commits")])
    turn = run_turn(llm, context, tools=[slow, pay, commits])
    for _ in range(3):
        assert isinstance(await anext(turn), ToolStarted)
    await asyncio.sleep(2)
    await turn.aclose()
    assert outputs(context) == [CUT_OFF, STILL_RUNNING, STILL_RUNNING]
    assert [call.name for call in turn.running] == ["pay", "commits"]
    events = [event async for event in turn]
    assert [type(event) for event in events] == [ToolFinished, Done]
    assert events[0].call.name == "slow"
    assert events[0].duration == pytest.approx(2)
    check_history(context.items)
    context.add_message(role="user", content="what now?")
    await turn.settled()
    assert [event async for event in turn] == [], "nothing comes after the last event"
    assert turn.running == []
    assert outputs(context) == [CUT_OFF, "paid", "committed"]
    assert sorted(effects) == ["committed", "paid"]
    check_history(context.items)


EAGER = pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")


@pytest.mark.parametrize("eager", [False, pytest.param(True, marks=EAGER)])
async def test_a_tool_may_end_the_turn(eager: bool) -> None:
    """The calls behind it are not run, also where tasks start as soon as they are made."""
    if eager:
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
    ran: list[str] = []

    @function_tool
    async def hang_up() -> str:
        turn.interrupt()
        ran.append("hang_up")
        return "bye"

    @function_tool(interruptible=False)
    async def pay() -> None:
        await asyncio.sleep(0)
        ran.append("pay")

    context = question()
    turn = run_turn(ScriptedLLM([calls("hang_up", "pay")]), context, tools=[hang_up, pay])
    events = await events_of(turn)
    await turn.settled()
    assert isinstance(events[-1], Done)
    assert events[-1].reason == "interrupted"
    assert outputs(context) == ["bye", NOT_STARTED]
    assert ran == ["hang_up"]
    assert asyncio.all_tasks() == {asyncio.current_task()}
    check_history(context.items)


@pytest.mark.looptime
async def test_a_thread_cannot_be_stopped_so_its_result_is_kept() -> None:
    import threading

    release = threading.Event()

    @function_tool(threaded=True)
    def blocking() -> str:
        release.wait(5)
        return "finished"

    context = question()
    turn = run_turn(ScriptedLLM([calls("blocking")]), context, tools=[blocking])
    assert isinstance(await anext(turn), ToolStarted)
    await asyncio.sleep(0)
    await turn.aclose()
    assert outputs(context) == [STILL_RUNNING]
    release.set()
    await turn.settled()
    assert outputs(context) == ["finished"]


async def test_waiting_for_a_slot_when_interrupted() -> None:
    started: list[int] = []

    @function_tool(interruptible=False)
    async def pay(n: int) -> str:
        started.append(n)
        for _ in range(20):
            await asyncio.sleep(0)
        return f"paid {n}"

    context = question()
    llm = ScriptedLLM([calls('pay:{"n":1}', 'pay:{"n":2}')])
    turn = run_turn(llm, context, tools=[pay], max_concurrency=1)
    assert isinstance(await anext(turn), ToolStarted)
    await turn.aclose()
    await turn.settled()
    assert started == [1]
    assert outputs(context) == ["paid 1", NOT_STARTED]


@pytest.mark.looptime
async def test_closing_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    release = asyncio.Event()

    @function_tool
    async def deaf() -> str:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                pass
        return "late"

    context = question()
    turn = run_turn(ScriptedLLM([calls("deaf")]), context, tools=[deaf])
    await anext(turn)
    loop = asyncio.get_running_loop()
    await asyncio.sleep(0)
    began = loop.time()
    await turn.aclose()
    assert loop.time() - began <= 1.1
    assert "left behind" in caplog.text
    assert outputs(context) == [CUT_OFF]
    release.set()
    await turn.settled()
    assert outputs(context) == ["late"], "what was done in spite of all is told"


async def test_breaking_out_stops_the_reply() -> None:
    context = question()
    hang = asyncio.Event()
    llm = ScriptedLLM([text("Once"), hang.wait])

    async def consume() -> None:
        async for _ in run_turn(llm, context):
            break

    await consume()
    gc.collect()
    for _ in range(10):
        await asyncio.sleep(0)
    assert kinds(context.items) == ["user:go", "assistant:Once"]
    assert not llm._streams


async def test_what_users_add_meanwhile_stays_behind_the_outputs() -> None:
    gate = asyncio.Event()

    @function_tool
    async def wait() -> str:
        await gate.wait()
        return "done"

    context = question()
    llm = ScriptedLLM([calls("wait")], [text("ok")])
    async with run_turn(llm, context, tools=[wait]) as turn:
        await anext(turn)
        check_history(context.items)
        context.add_message(role="user", content="still there?")
        gate.set()
        assert [type(event) async for event in turn] == [ToolFinished, Text, Done]
    assert kinds(context.items) == [
        "user:go",
        "function_call:wait",
        "function_call_output:wait",
        "user:still there?",
        "assistant:ok",
    ]
    check_history(llm.requests[1]["items"])


# -- cut at every moment --------------------------------------------------------------------


class Scene:
    """A turn with a slow tool, a failing one and one with a side effect, whose every step is one
    pass of the event loop."""

    def __init__(self, max_concurrency: int | None) -> None:
        self.effects: list[str] = []
        self.slow_done = 0
        self.context = question()
        self.llm = ScriptedLLM(
            [text("Let me"), text(" see."), calls("slow", "failing"), calls("pay"), usage(1)],
            [text("All"), text(" done."), usage(1)],
        )

        @function_tool
        async def slow() -> str:
            for _ in range(8):
                await asyncio.sleep(0)
            self.slow_done += 1
            return "slow is done"

        @function_tool
        async def failing() -> str:
            await asyncio.sleep(0)
            raise ToolError("failed on purpose")

        @function_tool(interruptible=False)
        async def pay(ctx: RunContext) -> str:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            self.effects.append(ctx.idempotency_key)
            await asyncio.sleep(0)
            return "paid"

        self.turn = run_turn(
            self.llm,
            self.context,
            tools=[slow, failing, pay],
            max_concurrency=max_concurrency,
        )

    async def consume(self) -> None:
        async with self.turn:
            async for _ in self.turn:
                check_history(self.context.items)

    async def check(self, finished: bool) -> None:
        check_history(self.context.items)
        check_every_provider(self.context)
        await self.turn.settled()
        for _ in range(20):
            await asyncio.sleep(0)
        check_history(self.context.items)
        check_every_provider(self.context)
        made = [item for item in self.context.items if isinstance(item, FunctionCall)]
        assert [item.name for item in made] in ([], ["slow", "failing", "pay"])
        if not made:
            assert not self.effects
            return
        slow, failing, pay = outputs(self.context)
        assert slow in ("slow is done", CUT_OFF, NOT_STARTED)
        assert failing in ("failed on purpose", CUT_OFF, NOT_STARTED)
        assert STILL_RUNNING not in (slow, failing, pay)
        if pay == NOT_STARTED:
            assert not self.effects
        else:
            assert pay == "paid"
            assert len(self.effects) == 1, "the side effect happened exactly once"
        for item in self.context.items:
            if isinstance(item, ChatMessage) and item.interrupted:
                assert not finished
                whole = "Let me see." if item is self.context.items[1] else "All done."
                assert whole.startswith(item.text_content or "")
        if finished:
            assert kinds(self.context.items)[-1] == "assistant:All done."


async def cancel_consumer(scene: Scene, task: asyncio.Task[None]) -> None:
    task.cancel()


async def interrupt(scene: Scene, task: asyncio.Task[None]) -> None:
    scene.turn.interrupt()
    check_history(scene.context.items)


async def close(scene: Scene, task: asyncio.Task[None]) -> None:
    await scene.turn.aclose()
    check_history(scene.context.items)


async def cancel_twice(scene: Scene, task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()


@pytest.mark.parametrize("cut", [cancel_consumer, interrupt, close, cancel_twice])
@pytest.mark.parametrize("max_concurrency", [None, 1, 2])
async def test_cut_at_every_moment(
    cut: Callable[[Scene, asyncio.Task[None]], Awaitable[None]], max_concurrency: int | None
) -> None:
    moments = 0
    fenced = 0
    while True:
        scene = Scene(max_concurrency)
        task = asyncio.create_task(scene.consume())
        for _ in range(moments):
            await asyncio.sleep(0)
        finished = task.done()
        await cut(scene, task)
        await asyncio.wait((task,))
        if not task.cancelled():
            task.result()
        await scene.check(finished)
        fenced += bool(scene.effects) and not finished
        if finished:
            break
        moments += 1
    assert moments > 20, "there was something to cut"
    assert fenced > 3, "the fence was tried"
    left = asyncio.all_tasks() - {asyncio.current_task()}
    assert not left


async def test_after_any_cut_the_conversation_goes_on() -> None:
    """The context of a turn that was cut takes another turn."""
    for moments in range(0, 40, 3):
        scene = Scene(None)
        task = asyncio.create_task(scene.consume())
        for _ in range(moments):
            await asyncio.sleep(0)
        scene.turn.interrupt()
        await asyncio.wait((task,))
        scene.context.add_message(role="user", content="again")
        llm = ScriptedLLM([text("yes")])
        assert (await run_turn(llm, scene.context).collect()).text == "yes"
        await scene.turn.settled()
        check_history(scene.context.items)
