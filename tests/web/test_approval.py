"""Tools that wait for a person: a run ends with interrupts, and the next one brings the answers."""

from __future__ import annotations

from typing import Any

import pytest

from rejoinder import function_tool
from rejoinder.llm import FunctionToolCall
from rejoinder.testing import ScriptedLLM
from web.laboratory import Page, serving, spoken, timeline, user

done: list[str] = []


@pytest.fixture(autouse=True)
def nothing_done() -> None:
    done.clear()


@function_tool
async def pay(amount: int) -> str:
    """Pay."""
    done.append(f"pay {amount}")
    return "paid"


@function_tool(effects=False)
async def look() -> str:
    """Look."""
    done.append("look")
    return "seen"


def call(name: str, arguments: str = "{}", id: str = "c1") -> FunctionToolCall:
    return FunctionToolCall(name=name, arguments=arguments, call_id=id)


def asked(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The conversation as a client has it after a run: what was asked, and the call."""
    (start,) = (event for event in events if event["type"] == "TOOL_CALL_START")
    (arguments,) = (event["delta"] for event in events if event["type"] == "TOOL_CALL_ARGS")
    function = {"name": start["toolCallName"], "arguments": arguments}
    made = {"id": start["toolCallId"], "type": "function", "function": function}
    message = {"id": start["parentMessageId"], "role": "assistant", "toolCalls": [made]}
    return [user("Pay 5"), message]


async def waiting(page: Page) -> list[str]:
    return (await page.client.get("/api/conversations/t")).json()["waiting"]


def answer(**payload: Any) -> dict[str, Any]:
    return {"resume": [{"interruptId": "c1", "status": "resolved", "payload": payload}]}


async def test_a_tool_runs_when_it_was_allowed() -> None:
    llm = ScriptedLLM([call("pay", '{"amount": 5}')], "It is paid.")
    async with serving([llm], tools=[pay, look], approve=True) as page:
        first = await page.run([user("Pay 5")], run="r1")
        outcome = first[-1]["outcome"]
        assert outcome["type"] == "interrupt"
        (interrupt,) = outcome["interrupts"]
        assert (interrupt["toolCallId"], interrupt["reason"]) == ("c1", "tool_approval")
        assert done == []
        assert "paused" in [event["kind"] for event in timeline(first)]
        assert await waiting(page) == ["c1"]
        roles = [
            m["role"] for m in (await page.client.get("/api/conversations/t")).json()["messages"]
        ]
        assert roles == ["user", "assistant"]  # there is no result to show

        second = await page.run(asked(first), run="r2", **answer(approved=True))
        assert done == ["pay 5"]
        assert spoken(second) == "It is paid."
        kinds = [event["type"] for event in second]
        assert "TOOL_CALL_START" not in kinds  # the client has it
        assert "TOOL_CALL_RESULT" in kinds
        assert await waiting(page) == []


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (answer(approved=False), "the user refused it"),
        (answer(approved="yes"), "the user refused it"),
        ({"resume": [{"interruptId": "c1", "status": "cancelled"}]}, "the user refused it"),
        ({}, "the user wrote something else"),
    ],
)
async def test_a_tool_does_not_run_otherwise(more: dict[str, Any], reason: str) -> None:
    llm = ScriptedLLM([call("pay", '{"amount": 5}')], "As you like.")
    async with serving([llm], tools=[pay], approve=True) as page:
        first = await page.run([user("Pay 5")], run="r1")
        messages = asked(first) if more else [*asked(first), user("No, wait", "u2")]
        second = await page.run(messages, run="r2", **more)
        (result,) = (event for event in second if event["type"] == "TOOL_CALL_RESULT")
        assert reason in result["content"]
        assert spoken(second) == "As you like."
    assert done == []


async def test_always_holds_for_the_conversation() -> None:
    again = [call("pay", '{"amount": 6}', "c2")]
    llm = ScriptedLLM([call("pay", '{"amount": 5}')], again, "Twice.", again, "Later.")
    async with serving([llm], tools=[pay], approve=True) as page:
        first = await page.run([user("Pay 5")], run="r1")
        second = await page.run(asked(first), run="r2", **answer(approved=True, always=True))
        assert spoken(second) == "Twice."
        assert done == ["pay 5", "pay 6"]
        other = await page.run([user("Pay")], thread="other", run="r3")
        assert other[-1]["outcome"]["type"] == "interrupt"


async def test_tools_without_effects_are_not_asked_about() -> None:
    async with serving([ScriptedLLM([call("look")], "Seen.")], tools=[look], approve=True) as page:
        assert spoken(await page.run([user("Look")])) == "Seen."


async def test_an_answer_outlives_the_server(tmp_path: Any) -> None:
    from rejoinder.store import SqliteStore

    path = tmp_path / "kept.sqlite"
    llm = ScriptedLLM([call("pay", '{"amount": 5}')], "It is paid.")
    async with serving([llm], tools=[pay], approve=True, store=SqliteStore(path)) as page:
        first = await page.run([user("Pay 5")], run="r1")
    async with serving([llm], tools=[pay], approve=True, store=SqliteStore(path)) as page:
        assert await waiting(page) == ["c1"]
        second = await page.run(asked(first), run="r2", **answer(approved=True))
        assert spoken(second) == "It is paid."
    assert done == ["pay 5"]


@pytest.mark.parametrize("resume", [{}, [1], [{"status": "resolved"}]])
async def test_wrong_answers_are_told(resume: Any) -> None:
    async with serving([ScriptedLLM("x")]) as page:
        body = {
            "threadId": "t",
            "runId": "r",
            "messages": [user("x")],
            "resume": resume or {"a": 1},
        }
        response = await page.client.post("/api/run", json=body)
    assert response.status_code == 400
    assert "expected" in response.json()["error"]
