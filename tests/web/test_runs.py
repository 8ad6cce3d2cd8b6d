"""Runs of the page's server, as a client of AG-UI sees them."""

from __future__ import annotations

from rejoinder.testing import Answer, FaultServer, ScriptedLLM
from web.laboratory import provider, serving, spoken, timeline, user


async def test_a_run_streams_an_answer() -> None:
    async with serving([ScriptedLLM("Hello there")]) as page:
        events = await page.run([user("Hi")])
    kinds = [event["type"] for event in events if event["type"] != "CUSTOM"]
    assert kinds[:2] == ["RUN_STARTED", "TEXT_MESSAGE_START"]
    assert kinds[-2:] == ["TEXT_MESSAGE_END", "RUN_FINISHED"]
    assert set(kinds[2:-2]) == {"TEXT_MESSAGE_CONTENT"}
    assert spoken(events) == "Hello there"
    assert events[0]["protocolVersion"] == "1.0"
    assert events[-1]["outcome"] == {"type": "success"}


async def test_a_run_shows_its_way_to_the_provider() -> None:
    async with FaultServer() as server:
        server.always(Answer(text="Hello"))
        async with serving([provider(server)]) as page:
            events = await page.run([user("Hi")])
            kinds = [event["kind"] for event in timeline(events)]
            recording = await page.client.get("/api/conversations/t/recording")
    for kind in (
        "send",
        "connect",
        "connected",
        "sent",
        "head",
        "bytes",
        "useful",
        "text",
        "metrics",
        "done",
    ):
        assert kind in kinds, kind
    assert recording.status_code == 200
    assert b"sk-canary" not in recording.content
