"""What a watcher is told of a turn."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from rejoinder import _watch, run_turn
from rejoinder.llm.fallback_adapter import FallbackAdapter, Hedge
from rejoinder.providers import openai
from rejoinder.testing import Answer, Fault, FaultServer
from rejoinder.types import APIConnectOptions


class Told:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[tuple[int, str, Mapping[str, Any]]] = []

    def __call__(self, part: int, kind: str, facts: Mapping[str, Any]) -> None:
        self.events.append((part, kind, facts))

    def kinds(self, part: int) -> list[str]:
        return [kind for number, kind, _ in self.events if number == part]

    def parts(self, what: str) -> dict[int, Mapping[str, Any]]:
        return {
            number: facts
            for number, kind, facts in self.events
            if kind == "begin" and facts["what"] == what
        }


def model(server: FaultServer, name: str = "m") -> openai.LLM:
    return openai.LLM(model=name, api_key="k", base_url=server.url + "/v1")


async def ask(llm: Any, **options: Any) -> Told:
    told = Told()
    with _watch.watching(told):
        await run_turn(llm, "Hello", **options).collect()
    await llm.aclose()
    return told


async def test_an_attempt_tells_its_way() -> None:
    async with FaultServer() as server:
        server.always(Answer(text="Hi"))
        host = server.url.removeprefix("http://")
        told = await ask(model(server))
    (number,) = told.parts("attempt")
    assert told.kinds(number) == [
        "begin", "send", "connect", "name", "connected", "sent", "head", "bytes", "useful", "end",
    ]  # fmt: skip
    facts = {kind: facts for _, kind, facts in told.events}
    assert facts["head"]["status"] == 200
    assert facts["connected"]["reused"] is False
    assert facts["send"]["host"] == host
    assert facts["end"]["outcome"] == "done"


@pytest.mark.looptime
async def test_a_retry_is_told_between_its_attempts() -> None:
    async with FaultServer() as server:
        server.script(Fault.STATUS_429, Answer(text="Hi"))
        told = await ask(model(server), conn_options=APIConnectOptions(max_retry=1))
    first, second = told.parts("attempt").values()
    assert (first["number"], second["number"]) == (0, 1)
    assert "retry" in told.kinds(0)
    assert [facts["status"] for _, kind, facts in told.events if kind == "head"] == [429, 200]
    ends = [facts["outcome"] for _, kind, facts in told.events if kind == "end"]
    assert ends == ["failed", "done"]


@pytest.mark.looptime
async def test_a_hedge_is_told_with_its_winner_and_its_loser() -> None:
    async with FaultServer() as slow, FaultServer() as fast:
        slow.always(Fault.STALL_BEFORE_OUTPUT)
        fast.always(Answer(text="Hi"))
        llm = FallbackAdapter(
            [model(slow, "slow"), model(fast, "fast")], hedge=Hedge(delay=0.5, max_share=1)
        )
        told = await ask(llm)
    asked = {facts["model"]: (number, facts["why"]) for number, facts in told.parts("ask").items()}
    assert {name: why for name, (_, why) in asked.items()} == {"slow": "first", "fast": "hedge"}
    assert "heard" in told.kinds(asked["fast"][0])
    assert "lost" in told.kinds(asked["slow"][0])
    inner = {facts["model"]: facts["inside"] for facts in told.parts("attempt").values()}
    assert inner["slow"] == asked["slow"][0]
    assert inner["fast"] == asked["fast"][0]


@pytest.mark.looptime
async def test_a_fallback_and_a_resume_are_told() -> None:
    async with FaultServer() as first, FaultServer() as second:
        first.script(
            Fault.STATUS_503,
            Answer(text=["Hello ", "there ", "you"], fault=Fault.RESET_MID_STREAM, after=2),
        )
        second.always(Answer(text="there you are"))
        for why in ("fallback", "resume"):
            llm = FallbackAdapter([model(first, "a"), model(second, "b")], on_cut="resume")
            told = await ask(llm)
            asked = [(facts["model"], facts["why"]) for facts in told.parts("ask").values()]
            assert asked == [("a", "first"), ("b", why)]
            (failed,) = (facts for _, kind, facts in told.events if kind == "failed")
            assert failed["error"] is not None


async def test_without_a_watcher_there_is_no_part() -> None:
    with _watch.part("attempt") as part:
        assert part is None
        _watch.note("useful")


async def test_a_task_of_a_watched_context_is_watched() -> None:
    told = Told()

    async def work() -> None:
        with _watch.part("attempt"):
            await asyncio.sleep(0)

    with _watch.watching(told):
        task = asyncio.create_task(work())
    _watch.note("useful")
    await task
    assert [kind for _, kind, _ in told.events] == ["begin", "end"]
