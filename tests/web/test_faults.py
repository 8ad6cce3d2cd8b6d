"""Faults that are switched on, the policy, and what another policy would have done."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest

from rejoinder.errors import APIConnectionError
from rejoinder.prices import Price, set_prices
from rejoinder.testing import Answer, FaultServer, ScriptedLLM
from rejoinder.types import APIConnectOptions
from rejoinder.web.memory import MemoryStore
from rejoinder.web.team import PolicyChoice
from rejoinder.web.whatif import Seen, compare, seen_in
from web.laboratory import Page, provider, serving, spoken, timeline, user

pytestmark = pytest.mark.looptime
QUICK = APIConnectOptions(max_retry=0, timeout=5)


async def switch(page: Page, fault: str | None, *, model: int = 0, once: bool = False) -> None:
    body = {"faults": [{"model": model, "fault": fault, "once": once}]}
    response = await page.client.put("/api/settings", json=body)
    assert response.json()["models"][model]["fault"] == fault


@pytest.mark.parametrize(
    ("fault", "told"),
    [("stall", "5 s"), ("cut", "the connection"), ("429", "429")],
)
@pytest.mark.parametrize("local", [False, True])
async def test_a_fault_fails_the_run(fault: str, told: str, local: bool) -> None:
    async with FaultServer() as server:
        server.always(Answer(text="Real"))
        llm: Any = ScriptedLLM("Real") if local else provider(server)
        async with serving([llm], conn_options=QUICK) as page:
            await switch(page, fault)
            events = await page.run([user("Hi")])
            assert events[-1]["type"] == "RUN_ERROR"
            assert told in events[-1]["message"]
            assert [e["fault"] for e in timeline(events) if e["kind"] == "fault"] == [fault]
            assert server.requests == []
            await switch(page, None)
            assert spoken(await page.run([user("Hi")], run="r2")) == "Real"


async def test_loading_a_model_is_part_of_the_timeline() -> None:
    async def load(_: Any) -> None:
        await asyncio.sleep(2)

    async with serving([ScriptedLLM("Hi", "Hi")]) as page:
        member = page.team._members[0]
        member.choice = dataclasses.replace(member.choice, load=load)
        first = timeline(await page.run([user("Hi")]))
        again = timeline(await page.run([user("Hi")], run="r2"))
    assert (first[0]["kind"], first[0]["took"]) == ("loaded", pytest.approx(2, abs=0.1))
    assert "loaded" not in [event["kind"] for event in again]


async def test_a_fault_can_end_with_one_request() -> None:
    async with FaultServer() as server:
        server.always(Answer(text="Real"))
        async with serving([provider(server)]) as page:
            await switch(page, "429", once=True)
            events = await page.run([user("Hi")])
            settings = (await page.client.get("/api/settings")).json()
    assert spoken(events) == "Real"
    told = [event["kind"] for event in timeline(events)]
    assert told.count("retry") == 1
    assert settings["models"][0] == {
        "name": "model-0",
        "local": False,
        "fault": None,
        "once": False,
    }


@pytest.mark.parametrize("local", [False, True])
async def test_a_slow_answer_comes_late_and_whole(local: bool) -> None:
    async with FaultServer() as server:
        server.always(Answer(text="Real"))
        llm: Any = ScriptedLLM("Real") if local else provider(server)
        async with serving([llm]) as page:
            await switch(page, "slow")
            events = await page.run([user("Hi")])
    first = next(event["t"] for event in timeline(events) if event["kind"] == "text")
    assert first > 3
    assert events[-1]["type"] == "RUN_FINISHED"
    assert spoken(events) == ("Real" if not local else spoken(events))
    assert spoken(events)


@pytest.fixture
def priced() -> Iterator[None]:
    set_prices({"m": Price(input=2.0, output=8.0)})
    yield
    set_prices({})


@pytest.mark.parametrize(
    ("fault", "once", "models", "costs", "total"),
    [
        ("cut", False, 1, [None], None),
        ("cut", True, 2, [None, 1], None),  # another model answers in truth
        ("429", True, 1, [1], 1),  # the second attempt is a real one
        ("slow", False, 1, [1], 1),  # the real answer, only late
        (None, False, 1, [1], 1),
    ],
)
@pytest.mark.usefixtures("priced")
async def test_only_real_answers_have_a_cost(
    fault: str | None, once: bool, models: int, costs: list[Any], total: Any
) -> None:
    async with FaultServer() as server:
        server.always(Answer(text="Real"))
        store = MemoryStore()
        options = APIConnectOptions(max_retry=1, timeout=5)
        members = [provider(server)] * models
        async with serving(members, conn_options=options, store=store) as page:
            await switch(page, fault, once=once)
            events = await page.run([user("Hi")])
            logged = [each.cost for each in await store.read("t") if each.kind == "usage"]
    told = timeline(events)
    assert [e["cost"] and 1 for e in told if e["kind"] == "metrics"] == costs
    if fault != "cut" or models > 1:
        (done,) = [e["cost"] for e in told if e["kind"] == "done"]
        assert (done and 1) == total
        assert events[-1]["result"]["cost"] == done
        assert logged == [done]


async def test_a_fault_server_gets_no_key() -> None:
    async with FaultServer() as server, serving([provider(server)], conn_options=QUICK) as page:
        await switch(page, "429")
        await page.run([user("Hi")])
        member = page.team._members[0]
        assert member.switch._server is not None
        (request,) = member.switch._server.requests
    assert "sk-canary-key" not in str(dict(request.headers))


async def test_a_hedge_and_its_loser_are_in_the_timeline() -> None:
    async with FaultServer() as server:
        server.always(Answer(text="Real"))
        async with serving([provider(server, "slow"), provider(server, "fast")]) as page:
            await page.client.put("/api/settings", json={"policy": {"hedge": 0.5}})
            await switch(page, "stall")
            events = await page.run([user("Hi")])
    told = timeline(events)
    asks = {e["model"]: e for e in told if e["kind"] == "begin" and e["what"] == "ask"}
    assert (asks["slow"]["why"], asks["fast"]["why"]) == ("first", "hedge")
    assert asks["fast"]["t"] == pytest.approx(0.5, abs=0.2)
    ends = {e["part"]: e for e in told if e["kind"] in ("heard", "lost")}
    assert ends[asks["fast"]["part"]]["kind"] == "heard"
    assert ends[asks["slow"]["part"]]["kind"] == "lost"
    assert spoken(events) == "Real"


async def test_a_reply_that_breaks_off_is_resumed() -> None:
    async with FaultServer() as server:
        server.always(Answer(text="fails on command."))
        async with serving([provider(server, "one"), provider(server, "two")]) as page:
            await switch(page, "cut")
            events = await page.run([user("Hi")])
    asks = [e["why"] for e in timeline(events) if e["kind"] == "begin" and e["what"] == "ask"]
    assert asks == ["first", "resume"]
    assert events[-1]["type"] == "RUN_FINISHED"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"volume": 3}, "volume"),
        ({"policy": 3}, "policy"),
        ({"policy": {"speed": 1}}, "speed"),
        ({"policy": {"attempt_timeout": "1"}}, "attempt_timeout"),
        ({"policy": {"attempt_timeout": -1}}, "attempt_timeout"),
        ({"policy": {"attempt_timeout": True}}, "attempt_timeout"),
        ({"policy": {"hedge": 1e9}}, "hedge"),
        ({"policy": {"on_cut": "sing"}}, "on_cut"),
        ({"faults": {}}, "faults"),
        ({"faults": [3]}, "faults"),
        ({"faults": [{"model": 7, "fault": "stall"}]}, "faults"),
        ({"faults": [{"model": -1, "fault": "stall"}]}, "faults"),
        ({"faults": [{"model": 0, "fault": "fire"}]}, "fire"),
    ],
)
async def test_a_wrong_setting_changes_nothing(change: dict[str, Any], told: str) -> None:
    async with serving([ScriptedLLM("Hi")]) as page:
        before = (await page.client.get("/api/settings")).json()
        both = {"policy": {"hedge": 1}, **change} if "policy" not in change else change
        response = await page.client.put("/api/settings", json=both)
        assert response.status_code == 400
        assert told in response.json()["error"]
        assert (await page.client.get("/api/settings")).json() == before


async def test_another_policy_is_simulated_on_the_recorded_turn() -> None:
    async with FaultServer() as server:
        server.always(Answer(text="Real"))
        async with serving([provider(server, "one"), provider(server, "two")]) as page:
            await page.run([user("Hi")], run="other")
            await page.client.put("/api/settings", json={"policy": {"attempt_timeout": 8}})
            await switch(page, "stall")
            await page.run([user("Hi")], run="r2")
            body = {"runId": "r2", "policies": [{"hedge": 0.5}, {"attempt_timeout": 2}]}
            result = (await page.client.post("/api/whatif", json=body)).json()
            missing = await page.client.post("/api/whatif", json={"runId": "none"})
    now, hedged, short = (policy["first_word"] for policy in result["policies"])
    assert now == pytest.approx(8, abs=0.1)
    assert hedged == pytest.approx(0.5, abs=0.1)
    assert short == pytest.approx(2, abs=0.1)
    assert [(m["model"], m["source"]) for m in result["models"]] == [
        ("one", "this turn"), ("two", "this turn"),
    ]  # fmt: skip
    assert missing.status_code == 404


def test_what_is_seen_of_a_model() -> None:
    def attempt(part: int, *events: tuple[float, str, dict[str, Any]]) -> list[dict[str, Any]]:
        begin = {
            "t": 1.0,
            "part": part,
            "kind": "begin",
            "what": "attempt",
            "inside": 0,
            "model": "m",
        }
        return [begin, *({"t": t, "part": part, "kind": k, **facts} for t, k, facts in events)]

    done, failed = {"outcome": "done"}, {"outcome": "failed", "error": "reset"}
    seen = seen_in(
        [
            [
                *attempt(1, (1.5, "useful", {}), (2.0, "end", done)),
                *attempt(2, (1.2, "useful", {}), (2.0, "end", failed)),
                *attempt(3, (2.0, "end", failed)),
                *attempt(4, (2.0, "end", {"outcome": "cancelled"})),
            ]
        ]
    )["m"]
    assert [round(each, 3) for each in seen.latencies] == [0.5, 0.2]
    assert (seen.silent, seen.failed, seen.cut, seen.attempts) == (1, 1, 1, 4)


def test_a_model_that_was_never_asked_is_assumed() -> None:
    result = compare(["a", "b"], {"a": Seen(silent=1)}, {}, [PolicyChoice(attempt_timeout=3)])
    assert [m["source"] for m in result["models"]] == ["this turn", "assumed"]
    assert result["policies"][0]["first_word"] == pytest.approx(4)


@pytest.mark.parametrize("number", [0, 1])
async def test_a_model_that_is_not_loaded_leaves_the_answer_to_the_others(number: int) -> None:
    async def fail(_: Any) -> None:
        if number == 1:
            await asyncio.Event().wait()  # it is being fetched
        raise APIConnectionError("the model is not here")

    async with serving([ScriptedLLM("Hi"), ScriptedLLM()]) as page:
        member = page.team._members[number]
        member.choice = dataclasses.replace(member.choice, load=fail)
        assert spoken(await page.run([user("Hi")])) == "Hi"


async def test_the_only_model_has_to_be_loaded() -> None:
    async def fail(_: Any) -> None:
        raise APIConnectionError("the model is not here")

    async with serving([ScriptedLLM("Hi")]) as page:
        member = page.team._members[0]
        member.choice = dataclasses.replace(member.choice, load=fail)
        body = {"threadId": "t", "runId": "r", "messages": [user("Hi")]}
        response = await page.client.post("/api/run", json=body)
    assert response.status_code == 503
    assert "the model is not here" in response.json()["error"]


async def test_a_run_is_stopped_while_its_model_is_fetched() -> None:
    loading = asyncio.Event()

    async def load(_: Any) -> None:
        loading.set()
        await asyncio.Event().wait()

    async with serving([ScriptedLLM()]) as page:
        member = page.team._members[0]
        member.choice = dataclasses.replace(member.choice, load=load)
        asked = asyncio.create_task(page.run([user("Hi")]))
        await loading.wait()
        await page.client.post("/api/stop", json={"runId": "r"})
        assert (await asked)[-1]["outcome"] == {"type": "cancelled"}
