"""`run_turn(response_format=...)`: the answer as a value of the type, asked for again if it does not
fit, and shown while it grows."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from rejoinder.errors import ConfigurationError, OutputMismatchError
from rejoinder.llm.chat_context import ChatContext, ChatMessage
from rejoinder.llm.llm import LLM, LLMStream
from rejoinder.providers import anthropic, google, openai
from rejoinder.testing import Answer, FaultServer
from rejoinder.turn import Done, Partial, Restarted, Text, run_turn
from test_turn import (
    NO_RETRY,
    ScriptedLLM,
    ScriptedStream,
    add,
    calls,
    check_every_provider,
    check_history,
    events_of,
    kinds,
    question,
    stop,
    text,
    usage,
)


class Ticket(BaseModel):
    title: str
    urgent: bool
    level: int = Field(default=1, ge=1, le=5)


class Spot(TypedDict):
    x: int


@dataclasses.dataclass
class Pair:
    a: int
    b: list[str]


GOOD = '{"title": "Fire", "urgent": true}'


@pytest.mark.parametrize(
    ("response_format", "said", "output"),
    [
        (Ticket, GOOD, Ticket(title="Fire", urgent=True)),
        (Ticket, f"```json\n{GOOD}\n```", Ticket(title="Fire", urgent=True)),
        (Spot, '{"x": 3}', {"x": 3}),
        (Pair, '{"a": 1, "b": ["c"]}', Pair(1, ["c"])),
        (list[int], "[1, 2]", [1, 2]),
        (dict[str, int], '{"a": 1}', {"a": 1}),
        (int | str, '"x"', "x"),
        (Literal["a", "b"], '{"value": "a"}', "a"),
        (Ticket | None, "null", None),
        ({"type": "object", "properties": {"x": {"type": "integer"}}}, '{"x": 1}', {"x": 1}),
        ({"type": "json_object"}, '{"any": 1}', {"any": 1}),
        ({"type": "text"}, "not JSON", None),
        (None, "not JSON", None),
    ],
)
async def test_the_answer_as_a_value(response_format: Any, said: str, output: Any) -> None:
    llm = ScriptedLLM([text(said)])
    done = await run_turn(llm, question(), response_format=response_format).collect()
    assert done.output == output
    assert type(done.output) is type(output)
    assert done.text == said
    assert llm.requests[0].get("response_format") == response_format


async def test_tools_first() -> None:
    llm = ScriptedLLM([calls("add:{'a': 1}")], [text(GOOD)])
    done = await run_turn(llm, question(), tools=[add], response_format=Ticket).collect()
    assert done.output == Ticket(title="Fire", urgent=True)
    assert [request["response_format"] for request in llm.requests] == [Ticket, Ticket]


async def test_asked_again_with_the_errors() -> None:
    context = question()
    llm = ScriptedLLM(
        [text('{"title": "Fire", "urgent": "perhaps"}'), usage(3)],
        [text("Sorry."), usage(3)],
        [text(GOOD), usage(3)],
    )
    events = await events_of(run_turn(llm, context, tools=[add], response_format=Ticket))
    done = events[-1]
    assert done.output == Ticket(title="Fire", urgent=True)
    assert (done.steps, done.usage.completion_tokens) == (3, 9)
    assert kinds(context.items) == ["user:go", f"assistant:{GOOD}"], "no trace of the wrong ones"
    discarded = [e.discard for e in events if isinstance(e, Restarted)]
    assert discarded == ['{"title": "Fire", "urgent": "perhaps"}', "Sorry."]

    second, third = llm.requests[1]["items"], llm.requests[2]["items"]
    assert [item.role for item in second] == ["user", "assistant", "user"]
    assert "urgent" in second[-1].text_content
    assert "perhaps" in second[-1].text_content
    assert [item.role for item in third] == ["user", "assistant", "user", "assistant", "user"]
    assert "not valid JSON" in third[-1].text_content
    assert [r["tool_choice"] for r in llm.requests[1:]] == ["none", "none"]
    for request in llm.requests:
        check_every_provider(ChatContext(request["items"]), but=("order", "text"))


async def test_a_limit_that_no_schema_says() -> None:
    llm = ScriptedLLM([text('{"title": "a", "urgent": false, "level": 9}')], [text(GOOD)])
    done = await run_turn(llm, question(), response_format=Ticket).collect()
    assert done.output is not None
    assert "level" in llm.requests[1]["items"][-1].text_content


@pytest.mark.parametrize("retries", [0, 1, 2])
async def test_so_many_times_and_no_more(retries: int) -> None:
    context = question()
    llm = ScriptedLLM(*[[text(f"no {i}")] for i in range(retries + 1)])
    turn = run_turn(llm, context, response_format=Ticket, max_output_retries=retries)
    with pytest.raises(OutputMismatchError, match="not valid JSON") as caught:
        await turn.collect()
    assert caught.value.body == f"no {retries}"
    assert not caught.value.retryable
    assert llm.scripts == []
    assert kinds(context.items) == ["user:go", f"assistant:no {retries}"]
    assert turn.done
    check_history(context.items)


async def test_an_empty_answer() -> None:
    context = question()
    llm = ScriptedLLM([text(" ")], [text(GOOD)])
    await run_turn(llm, context, response_format=Ticket).collect()
    assert [item.role for item in llm.requests[1]["items"]] == ["user", "user"]


async def test_calls_instead_of_a_correction_are_not_run() -> None:
    context = question()
    llm = ScriptedLLM([text("no")], [text(GOOD), calls("add:{'a': 1}")])
    done = await run_turn(llm, context, tools=[add], response_format=Ticket).collect()
    assert done.output is not None
    assert kinds(context.items) == ["user:go", f"assistant:{GOOD}"]


async def test_the_last_step_is_read_too() -> None:
    llm = ScriptedLLM([calls("add:{'a': 1}")], [text("no")], [text(GOOD)])
    done = await run_turn(
        llm, question(), tools=[add], response_format=Ticket, max_steps=1
    ).collect()
    assert done.reason == "max_steps"
    assert done.output == Ticket(title="Fire", urgent=True)


async def test_a_turn_without_an_answer_has_no_output() -> None:
    llm = ScriptedLLM([calls("stop")])
    done = await run_turn(llm, question(), tools=[stop], response_format=Ticket).collect()
    assert (done.reason, done.output) == ("stop_response", None)


async def test_interrupted_while_it_answers() -> None:
    context = question()
    llm = ScriptedLLM([text("no")], [text('{"title": '), text('"x"'), text("}")])
    async with run_turn(llm, context, response_format=Ticket) as turn:
        async for event in turn:
            if event == Text('{"title": '):
                turn.interrupt()
            if isinstance(event, Done):
                assert (event.reason, event.output) == ("interrupted", None)
    assert kinds(context.items) == ["user:go", 'assistant:{"title": ']


async def test_partial_objects() -> None:
    pieces = ['{"ti', 'tle": "Fi', 're", "urg', 'ent": tr', "ue}"]
    events = await events_of(
        run_turn(ScriptedLLM([text(p) for p in pieces]), question(), response_format=Ticket)
    )
    values = [e.value for e in events if isinstance(e, Partial)]
    assert {"title": "Fi"} in values
    assert values[-1] == {"title": "Fire", "urgent": True}
    assert "".join(e.text for e in events if isinstance(e, Text)) == "".join(pieces)


async def test_partial_objects_begin_anew_with_each_attempt() -> None:
    llm = ScriptedLLM([text('{"title": 1}')], [text('{"urgent"'), text(": true}")], [text(GOOD)])
    events = await events_of(run_turn(llm, question(), response_format=Ticket))
    values = [e.value for e in events if isinstance(e, Partial)]
    assert {"urgent": True} in values


class Plain(LLM[Any]):
    """Takes what the base class takes."""

    def chat(  # type: ignore[override]
        self, *, chat_ctx: ChatContext, tools: Any = None, conn_options: Any = NO_RETRY,
        parallel_tool_calls: Any = None, tool_choice: Any = None, extra_kwargs: Any = None,
    ) -> LLMStream:  # fmt: skip
        return ScriptedStream(
            self, [text("ok")], chat_ctx=chat_ctx, tools=[], conn_options=conn_options
        )


def test_a_model_that_cannot_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(TypeError, match=r"Plain.chat has no parameter 'response_format'"):
        run_turn(Plain(), question(), response_format=Ticket)
    with pytest.raises(TypeError, match=r"'gemini_tool'.*it has chat_ctx, tools"):
        run_turn(Plain(), question(), gemini_tool=[])


@pytest.mark.parametrize("wrong", [5, "Ticket", Ticket(title="x", urgent=True), {"type": "ticket"}])
def test_what_is_no_type_is_refused_at_once(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="response_format"):
        run_turn(ScriptedLLM(), question(), response_format=wrong)


@pytest.mark.parametrize("provider", [openai, anthropic, google])
async def test_over_the_wire(provider: Any) -> None:
    async with FaultServer(
        default=Answer(text=('{"title": "Fi', 're", "urgent": true}'))
    ) as server:
        base = server.url + ("/v1" if provider is openai else "")
        async with provider.LLM(api_key="x", base_url=base) as llm:
            done = await run_turn(llm, "open a ticket", response_format=Ticket).collect()
        assert done.output == Ticket(title="Fire", urgent=True)
        assert "urgent" in json.dumps(server.requests[0].json()), "the schema was sent"


async def test_text_instead_of_a_context() -> None:
    turn = run_turn(ScriptedLLM([text("hello")]), "hi")
    done = await turn.collect()
    assert done.text == "hello"
    assert kinds(turn.chat_ctx.items) == ["user:hi", "assistant:hello"]
    assert isinstance(turn.chat_ctx.items[0], ChatMessage)
