"""Replies that pause while Anthropic's own tools work, and what of them goes back, and where."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from listening import listening
from rejoinder._core.collecting import Collector
from rejoinder.errors import APIConnectionError, EmptyResponseError
from rejoinder.llm import ChatContext
from rejoinder.llm.chat_context import FunctionCall, FunctionCallOutput
from rejoinder.llm.formats import repair
from rejoinder.llm.tool_context import ProviderTool
from rejoinder.metrics import LLMMetrics
from rejoinder.providers import anthropic
from rejoinder.providers.anthropic.format import to_chat_ctx
from rejoinder.providers.anthropic.inverse import from_messages
from rejoinder.providers.anthropic.state import in_order, is_state
from rejoinder.providers.anthropic.wire import make_decoder
from rejoinder.testing.history import assert_legal
from rejoinder.turn import Done, run_turn
from rejoinder.types import APIConnectOptions

ONCE = APIConnectOptions(max_retry=0)
ASKED: dict[str, Any] = {
    "type": "server_tool_use",
    "id": "srvtoolu_1",
    "name": "web_search",
    "input": {"query": "x"},
}
FOUND: dict[str, Any] = {
    "type": "web_search_tool_result",
    "tool_use_id": "srvtoolu_1",
    "content": [{"url": "u"}],
}
THOUGHT: dict[str, Any] = {"type": "thinking", "thinking": "hm", "signature": "c2ln"}


def said(text: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": text, **more}


def reply(reason: str, *blocks: dict[str, Any], **message: Any) -> bytes:
    """The events of a reply that holds `blocks`."""
    events: list[dict[str, Any]] = [
        {
            "type": "message_start",
            "message": {"id": "msg", "usage": {"input_tokens": 10}, **message},
        }
    ]
    for index, block in enumerate(blocks):
        events.append({"type": "content_block_start", "index": index, "content_block": block})
        events.append({"type": "content_block_stop", "index": index})
    events.append(
        {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": {"output_tokens": 4}}
    )
    events.append({"type": "message_stop"})
    return b"".join(
        f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events
    )


class Served:
    """A server that answers with what it is given, one after another; the last one again and again."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)
        self.bodies: list[dict[str, Any]] = []
        self.url = ""

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            int(line.split(b":")[1])
            for line in head.lower().split(b"\r\n")
            if line.startswith(b"content-length")
        )
        self.bodies.append(json.loads(await reader.readexactly(length)))
        body = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
            + body
        )
        writer.close()


@asynccontextmanager
async def serving(*answers: bytes) -> AsyncGenerator[tuple[Served, anthropic.LLM]]:
    served = Served(*answers)
    async with (
        listening(served.answer) as url,
        anthropic.LLM(model="claude-sonnet-4-5", api_key="k", base_url=url) as llm,
    ):
        yield served, llm


def question() -> ChatContext:
    context = ChatContext.empty()
    context.add_message(role="user", content="What is new?")
    return context


async def test_a_paused_reply_goes_on_in_the_same_stream() -> None:
    metrics: list[LLMMetrics] = []
    begun = [THOUGHT, said("Let me look."), ASKED]
    async with serving(
        reply("pause_turn", *begun),
        reply("end_turn", FOUND, said(" It rains.")),
    ) as (server, llm):
        llm.on("metrics_collected", metrics.append)
        context = question()
        stream = llm.chat(chat_ctx=context, conn_options=ONCE)
        answer = await stream.collect()
        assert stream.finish_reason == "end_turn"
        context.add_message(role="assistant", content=answer.text, extra=answer.extra)
        context.add_message(role="user", content="And now?")
        await llm.chat(chat_ctx=context, conn_options=ONCE).collect()
    assert answer.text == "Let me look. It rains."
    first, second, third = server.bodies
    assert second["messages"] == [*first["messages"], {"role": "assistant", "content": begun}]
    assert {**second, "messages": 0} == {**first, "messages": 0}
    assert third["messages"][1]["content"] == [
        THOUGHT, said("Let me look."), ASKED, FOUND, said(" It rains."),
    ]  # fmt: skip
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (20, 8)
    assert [told.total_tokens for told in metrics] == [28, 14]


async def test_a_reply_that_stops_to_compact_goes_on() -> None:
    """As ``pause_after_compaction`` asks for it; nobody is there to add anything."""
    compaction = {"type": "compaction", "content": "So far."}
    async with serving(reply("compaction", compaction), reply("end_turn", said("Hi"))) as (
        server,
        llm,
    ):
        answer = await llm.chat(chat_ctx=question(), conn_options=ONCE).collect()
    assert answer.text == "Hi"
    assert server.bodies[1]["messages"][-1] == {"role": "assistant", "content": [compaction]}
    assert answer.extra["anthropic"]["thinking"] == [compaction]


async def test_a_reply_may_pause_before_it_says_anything() -> None:
    async with serving(
        reply("pause_turn", ASKED, container={"id": "container_1", "expires_at": "later"}),
        reply("pause_turn", FOUND, {**ASKED, "id": "srvtoolu_2"}),
        reply("end_turn", {**FOUND, "tool_use_id": "srvtoolu_2"}, said("Rain.")),
    ) as (server, llm):
        events = [event async for event in run_turn(llm, question())]
    assert [type(event).__name__ for event in events][:2] == ["Text", "Usage"]
    done = events[-1]
    assert isinstance(done, Done)
    assert done.text == "Rain."
    assert server.bodies[2]["messages"][1]["content"] == [
        ASKED,
        FOUND,
        {**ASKED, "id": "srvtoolu_2"},
    ]
    assert [body.get("container") for body in server.bodies] == [None, "container_1", "container_1"]
    for body in server.bodies:
        assert_legal("anthropic", body)


CODE = ProviderTool(
    id="code", provider="anthropic", spec={"type": "code_execution_20250825", "name": "code"}
)


async def test_the_container_of_anthropics_tools_goes_on_to_later_turns() -> None:
    context = question()
    box = {"id": "container_1", "expires_at": "2026-01-01T00:00:00Z"}
    async with serving(
        reply("end_turn", ASKED, FOUND, said("Done."), container=box),
        reply("end_turn", said("Hi")),
    ) as (server, llm):
        await run_turn(llm, context, tools=[CODE]).collect()
        context = ChatContext.from_dict(context.to_dict())
        context.add_message(role="user", content="And now?")
        await run_turn(llm, context, tools=[CODE]).collect()
        skills = {"container": {"skills": [{"skill_id": "pptx"}]}}
        for options in (skills, {"container": "mine"}):
            await llm.chat(chat_ctx=context, tools=[CODE], extra_kwargs=options).collect()
        # Without one of these tools there is nothing that works in it.
        await run_turn(llm, context).collect()
    assert [body.get("container") for body in server.bodies] == [
        None,
        "container_1",
        {"id": "container_1", "skills": [{"skill_id": "pptx"}]},
        "mine",
        None,
    ]


async def test_a_container_that_is_gone_is_not_asked_for_again() -> None:
    context = question()
    message = "container: Container container_1 has expired"
    refused = {"type": "error", "error": {"type": "invalid_request_error", "message": message}}
    event = f"event: error\ndata: {json.dumps(refused)}\n\n".encode()
    async with serving(
        reply("end_turn", ASKED, FOUND, said("Done."), container={"id": "container_1"}),
        event,
        reply("end_turn", said("Hi")),
    ) as (server, llm):
        await run_turn(llm, context, tools=[CODE]).collect()
        context.add_message(role="user", content="And now?")
        assert (await run_turn(llm, context, tools=[CODE]).collect()).text == "Hi"
    assert [body.get("container") for body in server.bodies] == [None, "container_1", None]


async def test_a_reply_does_not_pause_for_ever() -> None:
    async with serving(reply("pause_turn", said("a"))) as (server, llm):
        answer = await llm.chat(chat_ctx=question(), conn_options=ONCE).collect()
    assert answer.text == "a" * 9
    assert len(server.bodies) == 9
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 90
    async with serving(reply("pause_turn", ASKED)) as (server, llm):
        with pytest.raises(EmptyResponseError, match="pause_turn"):
            await llm.chat(chat_ctx=question(), conn_options=ONCE).collect()


async def test_a_pause_that_ends_badly_is_tried_again_where_it_stood() -> None:
    """Nothing was said yet: the next attempt goes on, and pays the begun reply once."""
    async with serving(
        reply("pause_turn", ASKED), b"", reply("end_turn", FOUND, said("Rain."))
    ) as (server, llm):
        twice = APIConnectOptions(max_retry=1, retry_interval=0)
        answer = await llm.chat(chat_ctx=question(), conn_options=twice).collect()
    assert answer.text == "Rain."
    assert server.bodies[1] == server.bodies[2]
    assert server.bodies[1]["messages"][-1]["content"] == [ASKED]
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 20
    async with serving(reply("pause_turn", said("Let me look."), ASKED), b"") as (server, llm):
        with pytest.raises(APIConnectionError):
            await llm.chat(chat_ctx=question(), conn_options=twice).collect()
    assert len(server.bodies) == 2


async def test_a_call_ends_a_reply_that_pauses() -> None:
    """Its result has to be sent first."""
    call: dict[str, Any] = {"type": "tool_use", "id": "toolu_1", "name": "look_up", "input": {}}
    async with serving(reply("pause_turn", ASKED, call)) as (server, llm):
        answer = await llm.chat(chat_ctx=question(), conn_options=ONCE).collect()
    assert [made.call_id for made in answer.tool_calls] == ["toolu_1"]
    assert len(server.bodies) == 1


@pytest.mark.parametrize(
    ("model", "before", "goes"),
    [
        ("claude-sonnet-4-5", {}, True),
        ("claude-sonnet-4-5", {"host": "other.example"}, False),
        ("kimi-k2-thinking", {}, False),
        ("kimi-k2-thinking", {"host": "other.example"}, False),
        ("kimi-k2-thinking", {"host": "{here}"}, True),
    ],
)
async def test_state_goes_back_to_those_who_can_read_it(
    model: str, before: dict[str, str], goes: bool
) -> None:
    server = Served(reply("end_turn", THOUGHT, said("Hi")))
    async with listening(server.answer) as url:
        here = url.removeprefix("http://")
        mark = {name: value.format(here=here) for name, value in before.items()}
        context = question()
        extra = {"anthropic": {"thinking": [THOUGHT], **mark}, "mine": 1}
        context.add_message(role="assistant", content="Hello", extra=extra)
        context.add_message(role="user", content="?")
        async with anthropic.LLM(model=model, api_key="k", base_url=url) as llm:
            answer = await llm.chat(chat_ctx=context, conn_options=ONCE).collect()
    assert (THOUGHT in server.bodies[0]["messages"][1]["content"]) is goes
    told = answer.extra["anthropic"]
    assert told == {"thinking": [THOUGHT], **({} if model.startswith("claude") else {"host": here})}


# -- what goes back, and where ------------------------------------------------------------------


def sent(*messages: dict[str, Any]) -> list[dict[str, Any]]:
    """Messages of the API as they are sent again."""
    return to_chat_ctx(from_messages([{"role": "user", "content": "?"}, *messages]))[0][1:]


def assistant(*blocks: dict[str, Any]) -> dict[str, Any]:
    return {"role": "assistant", "content": list(blocks)}


KEPT: list[dict[str, Any]] = [
    THOUGHT,
    {"type": "redacted_thinking", "data": "cmVk"},
    {"type": "compaction", "content": "So far."},
    {"type": "fallback", "from": {"model": "a"}, "to": {"model": "b"}},
    {"type": "something_new", "value": [1]},
]
texts = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=4).map(said)


def pair(number: int) -> tuple[dict[str, Any], ...]:
    return {**ASKED, "id": f"s{number}"}, {**FOUND, "tool_use_id": f"s{number}"}


def alone(block: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    return (block,)


groups = texts.map(alone) | st.integers(0, 10**9).map(pair) | st.sampled_from(KEPT).map(alone)


@given(st.lists(groups))
def test_every_block_comes_back_in_its_place(groups: list[tuple[dict[str, Any], ...]]) -> None:
    blocks = [block for group in groups for block in group]
    if not blocks or blocks[-1]["type"] in ("thinking", "redacted_thinking"):
        blocks.append(said("a"))  # the API refuses thinking at the end
    again = sent(assistant(*blocks))
    assert together(again[0]["content"]) == together(blocks)


@given(st.lists(groups), st.lists(st.sampled_from(KEPT[:2]) | st.integers(0, 10**9), max_size=4))
def test_what_was_read_is_what_goes_back(
    told: list[tuple[dict[str, Any], ...]], then: list[dict[str, Any] | int]
) -> None:
    """From the bytes of a reply through the items of a turn to the next request."""
    blocks = [block for group in told for block in group]
    for number, entry in enumerate(then):
        call = {"type": "tool_use", "id": f"toolu_{number}", "name": "f", "input": {"a": number}}
        blocks.append(call if isinstance(entry, int) else entry)
    spoken = any(block["type"] in ("text", "tool_use") for block in blocks)
    if not spoken or blocks[-1]["type"] in ("thinking", "redacted_thinking"):
        blocks.append({"type": "tool_use", "id": "toolu_last", "name": "f", "input": {}})
    decoder = make_decoder(allow_empty=True)
    collector = Collector()
    for chunk in [*decoder.feed(reply("tool_use", *blocks)), *decoder.close()]:
        collector.feed(chunk)
    heard = collector.whole()
    context = question()
    message = context.add_message(role="assistant", content=heard.text, extra=heard.extra)
    for call in heard.tool_calls:
        made = FunctionCall(
            call_id=call.call_id,
            name=call.name,
            arguments=call.arguments,
            extra=call.extra or {},
            group_id=message.id,
        )
        context.items += [
            made,
            FunctionCallOutput(call_id=call.call_id, name="f", output="1", is_error=False),
        ]
    items, _ = repair(context.items, "anthropic")
    again = [
        block
        for sent_message in to_chat_ctx(items)[0]
        if sent_message["role"] == "assistant"
        for block in sent_message["content"]
    ]
    assert together(again) == together(blocks)


def together(blocks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Texts that follow one another are one."""
    out: list[dict[str, Any]] = []
    for block in blocks:
        if out and out[-1]["type"] == block["type"] == "text":
            out[-1] = said(out[-1]["text"] + block["text"])
        else:
            out.append(block)
    return out


def test_a_text_keeps_what_it_quotes() -> None:
    quoted = said("It rains.", citations=[{"type": "web_search_result_location", "url": "u"}])
    blocks = [said("Look: "), ASKED, FOUND, quoted, said(" Bye.")]
    assert sent(assistant(*blocks)) == [assistant(*blocks)]


@pytest.mark.parametrize(
    ("heard", "content"),
    [
        ("One. Two. Three.", [said("One."), ASKED, FOUND, said(" Two."), THOUGHT, said(" Three.")]),
        ("One. Two. Th", [said("One."), ASKED, FOUND, said(" Two."), THOUGHT, said(" Th")]),
        ("One. Tw", [said("One."), ASKED, FOUND, said("Tw")]),
        ("One.", [said("One.")]),  # what stood right behind the cut goes with it
        ("On", [said("On")]),
        ("Other words.", [ASKED, FOUND, THOUGHT, said("Other words.")]),
    ],
)
def test_a_text_that_was_cut_or_changed_has_the_say(heard: str, content: list[Any]) -> None:
    entries = [said("One."), ASKED, FOUND, said(" Two."), THOUGHT]
    assert in_order([said(heard)], entries) == content


def test_a_call_of_a_server_tool_goes_back_with_its_result_alone() -> None:
    call: dict[str, Any] = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}}
    result: dict[str, Any] = {
        "type": "tool_result",
        "tool_use_id": "toolu_1",
        "content": "1",
        "is_error": False,
    }
    assert sent(assistant(said("a"), ASKED)) == [assistant(said("a"))]
    assert sent(assistant(FOUND, said("a"))) == [assistant(said("a"))]
    assert sent(assistant(ASKED), {"role": "user", "content": "b"}) == []
    waits = [assistant(ASKED, call), {"role": "user", "content": [result]}]
    assert sent(*waits) == waits  # the result comes when ours is known
    done = [*waits, assistant(FOUND, said("a"))]
    assert sent(*done) == done


def test_a_call_keeps_the_fields_that_are_not_known() -> None:
    call: dict[str, Any] = {
        "caller": {"type": "code_execution_20250825", "tool_id": "srvtoolu_1"},
        "type": "tool_use",
        "id": "toolu_1",
        "name": "f",
        "input": {},
    }
    result: dict[str, Any] = {
        "type": "tool_result",
        "tool_use_id": "toolu_1",
        "content": "1",
        "is_error": False,
    }
    messages = [assistant(ASKED, call), {"role": "user", "content": [result]}]
    assert sent(*messages) == messages


@pytest.mark.parametrize(
    ("block", "whole"),
    [
        *((block, True) for block in (*KEPT, ASKED, FOUND)),
        ({**THOUGHT, "signature": ""}, False),
        ({"type": "redacted_thinking"}, False),
        ({**ASKED, "id": ""}, False),
        ({**FOUND, "tool_use_id": None}, False),
        ({"type": ""}, False),
        ("text", False),
    ],
)
def test_what_may_go_back(block: Any, whole: bool) -> None:
    assert is_state(block) is whole
