"""Runs of the page's server, as a client of AG-UI sees them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rejoinder import function_tool
from rejoinder.errors import APIStatusError
from rejoinder.llm import FunctionToolCall
from rejoinder.testing import Answer, Fault, FaultServer, ScriptedLLM
from rejoinder.web.memory import MemoryStore
from web.laboratory import Page, provider, serving, spoken, timeline, user

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
TOLD = "TEXT_MESSAGE_CONTENT"


def kinds(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"] for event in events if event["type"] != "CUSTOM"]


def of_kind(events: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [event for event in events if event["type"] == kind]


async def shown(page: Page, thread: str = "t") -> dict[str, Any]:
    response = await page.client.get(f"/api/conversations/{thread}")
    return response.json()


def replies(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The messages of a run, as a client builds them."""
    messages: list[dict[str, Any]] = []
    for event in events:
        match event["type"]:
            case "TEXT_MESSAGE_START":
                messages.append({"id": event["messageId"], "role": "assistant", "content": ""})
            case "TEXT_MESSAGE_CONTENT":
                messages[-1]["content"] += event["delta"]
            case "TOOL_CALL_START":
                id = event["parentMessageId"]
                if not messages or messages[-1]["id"] != id:
                    messages.append({"id": id, "role": "assistant"})
                function = {"name": event["toolCallName"], "arguments": ""}
                call = {"id": event["toolCallId"], "type": "function", "function": function}
                messages[-1].setdefault("toolCalls", []).append(call)
            case "TOOL_CALL_ARGS":
                messages[-1]["toolCalls"][-1]["function"]["arguments"] += event["delta"]
            case "TOOL_CALL_RESULT":
                fields = {"id": event["messageId"], "toolCallId": event["toolCallId"]}
                messages.append({**fields, "role": "tool", "content": event["content"]})
            case _:
                pass
    return messages


@function_tool
async def weather(city: str) -> str:
    """The weather in a city."""
    if city == "Nowhere":
        raise ValueError("secret detail")
    return f"sunny in {city}"


def calls(*cities: str) -> list[FunctionToolCall]:
    return [
        FunctionToolCall(name="weather", arguments=f'{{"city": "{city}"}}', call_id=f"call_{city}")
        for city in cities
    ]


async def test_a_run_streams_an_answer() -> None:
    async with serving([ScriptedLLM("Hello there")]) as page:
        events = await page.run([user("Hi")])
    told = kinds(events)
    assert told[:2] == ["RUN_STARTED", "TEXT_MESSAGE_START"]
    assert told[-2:] == ["TEXT_MESSAGE_END", "RUN_FINISHED"]
    assert set(told[2:-2]) == {TOLD}
    assert spoken(events) == "Hello there"
    assert events[0]["protocolVersion"] == "1.0"
    assert events[-1]["outcome"] == {"type": "success"}


async def test_a_run_shows_its_way_to_the_provider() -> None:
    async with FaultServer() as server:
        server.always(Answer(text="Hello"))
        async with serving([provider(server)]) as page:
            events = await page.run([user("Hi")])
    told = [event["kind"] for event in timeline(events)]
    way = ["send", "connect", "connected", "sent", "head", "bytes", "useful"]
    assert [kind for kind in told if kind in way] == way
    assert {"text", "metrics"} <= set(told)
    assert told[-1] == "done"
    times = [e["value"]["t"] for e in events if e["type"] == "CUSTOM"]
    assert times == sorted(times)
    (usage,) = events[-1]["usage"]
    assert usage["model"] == "m"
    assert usage["inputTokens"] > 0


async def test_tools_of_one_reply_run_side_by_side() -> None:
    llm = ScriptedLLM(calls("Paris", "Rome"), "Sunny in both")
    async with serving([llm], tools=[weather]) as page:
        events = await page.run([user("Weather?")])
        known = await shown(page)
    parents = {event["parentMessageId"] for event in of_kind(events, "TOOL_CALL_START")}
    assert len(parents) == 1
    results = {e["toolCallId"]: e["content"] for e in of_kind(events, "TOOL_CALL_RESULT")}
    assert results == {"call_Paris": "sunny in Paris", "call_Rome": "sunny in Rome"}
    lanes = [event["kind"] for event in timeline(events) if event["kind"].startswith("tool")]
    assert lanes == ["tool", "tool", "tool_end", "tool_end"]
    assert [m["role"] for m in known["messages"]] == [
        "user", "assistant", "tool", "tool", "assistant",
    ]  # fmt: skip


async def test_a_tool_that_fails_keeps_its_secret() -> None:
    llm = ScriptedLLM(calls("Nowhere"), "I do not know")
    async with serving([llm], tools=[weather]) as page:
        events = await page.run([user("Weather?")])
    (result,) = of_kind(events, "TOOL_CALL_RESULT")
    assert result["error"]
    assert "secret detail" not in str(events)


async def test_thinking_is_not_part_of_the_answer() -> None:
    async with FaultServer() as server:
        server.always(Answer(text="42", thinking="Let me see"))
        async with serving([provider(server)]) as page:
            events = await page.run([user("What?")])
    order = kinds(events)
    assert order[1:6] == [
        "REASONING_START", "REASONING_MESSAGE_START", "REASONING_MESSAGE_CONTENT",
        "REASONING_MESSAGE_END", "REASONING_END",
    ]  # fmt: skip
    assert spoken(events) == "42"


@pytest.mark.looptime
async def test_a_run_can_be_stopped() -> None:
    async with FaultServer() as server:
        server.always(Answer(text=["One ", "two ", "three"], fault=Fault.STALL_MID_STREAM, after=2))
        async with serving([provider(server)]) as page:
            events: list[dict[str, Any]] = []
            async for event in page.events([user("Count")]):
                events.append(event)
                if spoken(events) == "One two ":
                    await page.client.post("/api/stop", json={"runId": "r"})
            known = await shown(page)
    assert events[-1]["type"] == "RUN_FINISHED"
    assert events[-1]["outcome"] == {"type": "cancelled"}
    last = known["messages"][-1]
    assert last["content"] == "One two "
    assert last["metadata"] == {"rejoinder": {"interrupted": True}}


@pytest.mark.looptime
async def test_a_client_that_leaves_stops_its_run() -> None:
    async with FaultServer() as server:
        server.script(Answer(text=["One ", "two "], fault=Fault.STALL_MID_STREAM, after=1))
        server.always(Answer(text="Three"))
        async with serving([provider(server)]) as page:
            async for event in page.events([user("Count")]):
                if event["type"] == TOLD:
                    break
            await server.all_closed()
            known = await shown(page)
            again = await page.run([*known["messages"], user("Go on", "u2")], run="again")
    assert known["messages"][-1]["content"] == "One "
    assert spoken(again) == "Three"  # the conversation is free


class Watched(MemoryStore):
    """Sets `listed` when the conversations are listed."""

    def __init__(self) -> None:
        super().__init__()
        self.listed = asyncio.Event()

    async def conversations(self, **options: Any) -> Any:
        self.listed.set()
        return await super().conversations(**options)


async def test_a_reload_sees_what_the_run_has_said() -> None:
    """The page asks again before the server sees that the client of the run has left."""
    store = Watched()
    async with FaultServer() as server:
        server.always(Answer(text=["One ", "two "], fault=Fault.STALL_MID_STREAM, after=1))
        async with serving([provider(server)], store=store) as page:
            run = page.events([user("Count")])
            async for event in run:
                if event["type"] == TOLD:
                    break
            asked = asyncio.create_task(page.client.get("/api/overview", params={"thread": "t"}))
            await store.listed.wait()
            await run.aclose()  # type: ignore[attr-defined]
            found = (await asked).json()
    assert [each["content"] for each in found["thread"]["messages"]] == ["Count", "One "]


@pytest.mark.looptime
async def test_a_thread_has_one_run_at_a_time() -> None:
    async with FaultServer() as server:
        server.script(Fault.STALL_BEFORE_OUTPUT)
        async with serving([provider(server)]) as page:
            first = asyncio.create_task(page.run([user("Hi")], run="one"))
            while not server.requests:
                await asyncio.sleep(0.1)
            second = await page.run([user("Hi")], run="two")
            await page.client.post("/api/stop", json={"runId": "one"})
            await first
            third = await page.run([user("Hi")], run="three")
    assert second[-1]["type"] == "RUN_ERROR"
    assert second[-1]["code"] == "busy"
    assert third[-1]["type"] == "RUN_FINISHED"


async def test_a_failure_is_one_sentence_without_the_key() -> None:
    async with FaultServer() as server:
        server.always(Answer(status=401, message="wrong key sk-canary-key"))
        async with serving([provider(server)]) as page:
            events = await page.run([user("Hi")])
    assert kinds(events) == ["RUN_STARTED", "RUN_ERROR"]
    assert events[-1]["code"] == "model"
    assert "401" in events[-1]["message"]
    assert "sk-canary" not in str(events)
    assert timeline(events)[-1]["kind"] == "error"


async def test_the_next_turn_keeps_what_the_client_does_not_see() -> None:
    llm = ScriptedLLM(calls("Paris"), "Sunny", "You are welcome")
    async with serving([llm], tools=[weather]) as page:
        first = [user("Weather?")]
        first += replies(await page.run(first))
        before = await shown(page)
        second = [*first, user("Thanks", "u2")]
        await page.run(second, run="r2")
        after = await shown(page)
    ids = [m["id"] for m in before["messages"]]
    assert [m["id"] for m in after["messages"]][: len(ids)] == ids
    assert after["tips"] == [after["tip"]]
    history = llm.calls[-1].chat_ctx.items
    assert [item.type for item in history] == [
        "message", "function_call", "function_call_output", "message", "message",
    ]  # fmt: skip


async def test_an_edited_message_makes_a_branch() -> None:
    llm = ScriptedLLM("Hello Anna", "Hello Bert", "Again Bert")
    async with serving([llm]) as page:
        first = [user("I am Anna", "u1")]
        first += replies(await page.run(first))
        edited = [user("I am Bert", "u2")]
        edited += replies(await page.run(edited, run="r2"))
        known = await shown(page)
        assert [m["content"] for m in known["messages"]] == ["I am Bert", "Hello Bert"]
        assert len(known["tips"]) == 2
        (other,) = (tip for tip in known["tips"] if tip != known["tip"])
        response = await page.client.post("/api/conversations/t/rewind", json={"item": other})
        assert [m["content"] for m in response.json()["messages"]] == ["I am Anna", "Hello Anna"]
        # The same id with another text is an edit too.
        changed = [edited[0] | {"content": "I am Bertha"}]
        await page.run(changed, run="r3")
        assert (await shown(page))["messages"][0]["content"] == "I am Bertha"


async def test_an_answer_can_be_asked_for_again() -> None:
    async with serving([ScriptedLLM("One", "Two")]) as page:
        asked = [user("A number?")]
        await page.run(asked)
        await page.run(asked, run="r2")
        known = await shown(page)
    assert [m["content"] for m in known["messages"]] == ["A number?", "Two"]
    assert len(known["tips"]) == 2


async def test_a_copy_begins_as_the_conversation_does() -> None:
    async with serving([ScriptedLLM("One", "Two")]) as page:
        messages = [user("A number?")]
        messages += replies(await page.run(messages))
        copy = await page.client.post(
            "/api/conversations/t/copy", json={"item": messages[-1]["id"]}
        )
        copied = copy.json()
        assert copied["threadId"] != "t"
        assert [m["content"] for m in copied["messages"]] == ["A number?", "One"]
        again = [*copied["messages"], user("Another one", "u2")]
        await page.run(again, thread=copied["threadId"], run="r2")
        assert len((await shown(page))["messages"]) == 2
        refused = await page.client.post("/api/conversations/t/copy", json={"item": "nothing"})
        assert refused.status_code == 400
        assert "nothing" in refused.json()["error"]


async def test_a_tool_of_the_client_waits_for_its_result() -> None:
    locate = {"name": "locate", "description": "", "parameters": {"type": "object"}}
    called = FunctionToolCall(name="locate", arguments="{}", call_id="call_1")
    llm = ScriptedLLM([called], "You live in Rome")
    async with serving([llm]) as page:
        messages = [user("Where do I live?")]
        events = await page.run(messages, tools=[locate])
        assert events[-1]["outcome"] == {"type": "success", "pendingToolCallIds": ["call_1"]}
        assert not of_kind(events, "TOOL_CALL_RESULT")
        messages += replies(events)
        result = {"id": "t1", "role": "tool", "toolCallId": "call_1", "content": "Rome"}
        events = await page.run([*messages, result], run="r2", tools=[locate])
    assert spoken(events) == "You live in Rome"
    assert llm.calls[-1].chat_ctx.items[-1].output == "Rome"


@pytest.mark.looptime
async def test_a_restart_replaces_the_messages() -> None:
    async with FaultServer() as first, FaultServer() as second:
        first.always(Answer(text=["Half ", "an ", "answer"], fault=Fault.RESET_MID_STREAM, after=2))
        second.always(Answer(text="A whole one"))
        async with serving([provider(first), provider(second)]) as page:
            page.team.change({"policy": {"on_cut": "restart"}})
            events = await page.run([user("Hi")])
    (snapshot,) = of_kind(events, "MESSAGES_SNAPSHOT")
    assert [m["content"] for m in snapshot["messages"]] == ["Hi"]
    assert kinds(events)[kinds(events).index("MESSAGES_SNAPSHOT") - 1] == "TEXT_MESSAGE_END"
    assert events[-1]["type"] == "RUN_FINISHED"


async def test_a_picture_reaches_the_model() -> None:
    source = {"type": "data", "value": PIXEL, "mimeType": "image/png"}
    content = [{"type": "text", "text": "What is it?"}, {"type": "image", "source": source}]
    async with FaultServer() as server:
        server.always(Answer(text="A pixel"))
        async with serving([provider(server)]) as page:
            await page.run([{"id": "u1", "role": "user", "content": content}])
            known = await shown(page)
        assert PIXEL in server.requests[0].body.decode()
    assert known["messages"][0]["content"] == content


async def test_instructions_come_first_unless_the_client_has_some() -> None:
    llm = ScriptedLLM("One", "Two", "Three")
    async with serving([llm], system="Be brief") as page:
        messages = [user("Hi")]
        messages += replies(await page.run(messages))
        await page.run([*messages, user("And?", "u2")], run="r2")
        system = {"id": "s1", "role": "system", "content": "Be long"}
        await page.run([system, user("Hi", "u3")], run="r3", thread="other")
    told = [[item.text_content for item in r.chat_ctx.messages()] for r in llm.calls]
    assert told == [["Be brief", "Hi"], ["Be brief", "Hi", "One", "And?"], ["Be long", "Hi"]]


async def test_a_model_that_breaks_ends_its_run() -> None:
    llm = ScriptedLLM(APIStatusError("broken", status_code=500, retryable=False), KeyError("x"))
    async with serving([llm]) as page:
        for run in ("one", "two"):
            events = await page.run([user("Hi")], run=run)
            assert events[-1]["type"] == "RUN_ERROR"


@pytest.mark.parametrize(
    ("tools", "told"),
    [
        ([{"name": "f", "parameters": "x"}], "the parameters of the tool 'f': expected an object"),
        ([{"name": "f", "description": 1}], "the description of the tool 'f': expected a string"),
        ([{"name": "f"}, {"name": "f"}], "two tools are named 'f'"),
        ([{"name": "weather"}], "the server has a tool named 'weather', too"),
    ],
)
async def test_tools_that_cannot_be_offered_are_refused(tools: list[Any], told: str) -> None:
    async with serving([ScriptedLLM("Hi")], tools=[weather]) as page:
        body = {"threadId": "t", "runId": "r", "messages": [user("Hello")], "tools": tools}
        response = await page.client.post("/api/run", json=body)
    assert response.status_code == 400
    assert response.json()["error"].startswith(told)


async def test_an_error_in_the_input_is_told_without_its_class() -> None:
    async with serving([ScriptedLLM("Hi")]) as page:
        events = await page.run([{"id": "u", "role": "robot", "content": "x"}])
    assert events[-1]["message"] == (
        "expected a message with a role that AG-UI knows, got 'robot'."
    )
