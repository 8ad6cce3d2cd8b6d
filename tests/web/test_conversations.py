"""Conversations: listed, searched, exported, recorded, removed; and the store that keeps no file."""

from __future__ import annotations

import json
import zipfile
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from rejoinder.conversation import Conversation
from rejoinder.llm import ChatContext
from rejoinder.llm.chat_context import ImageContent
from rejoinder.providers import openai
from rejoinder.store import ConflictError, Record, SqliteStore, Store
from rejoinder.testing import Answer, FaultServer, ScriptedLLM, replay
from rejoinder.web.memory import MemoryStore
from web.laboratory import provider, serving, user


async def test_conversations_are_listed_searched_and_removed() -> None:
    async with serving([ScriptedLLM("In Paris", "Four")]) as page:
        await page.run([user("Where is the tower?")], thread="towers")
        await page.run([user("Two and two?")], thread="numbers", run="r2")
        get = page.client.get
        assert [c["title"] for c in (await get("/api/conversations")).json()] == [
            "Two and two?", "Where is the tower?",
        ]  # fmt: skip
        found = (await get("/api/conversations?search=PARIS")).json()
        assert [(c["id"], c["excerpt"]) for c in found] == [("towers", "In Paris")]
        assert (await page.client.delete("/api/conversations/towers")).status_code == 200
        assert [c["id"] for c in (await get("/api/conversations")).json()] == ["numbers"]
        assert (await page.client.delete("/api/conversations/towers")).status_code == 404


async def test_an_export_loads_again() -> None:
    async with serving([ScriptedLLM("In Paris")]) as page:
        await page.run([user("Where is the tower?")])
        response = await page.client.get("/api/conversations/t/export")
    data = json.loads(response.content)
    loaded = ChatContext.from_dict(data)
    assert [m.text_content for m in loaded.messages()] == ["Where is the tower?", "In Paris"]
    (run,) = data["runs"]
    assert run["events"][-1]["kind"] == "done"


async def test_a_recording_plays_back(tmp_path: Path) -> None:
    async with FaultServer() as server:
        server.always(Answer(text=["In ", "Paris"]))
        async with serving([provider(server)]) as page:
            await page.run([user("Where is the tower?")])
            data = (await page.client.get("/api/conversations/t/recording")).content
    assert b"sk-canary-key" not in data
    (packed := tmp_path / "recording.zip").write_bytes(data)
    zipfile.ZipFile(packed).extractall(folder := tmp_path / "recording")
    for place in (packed, folder):
        llm = openai.LLM(model="m", api_key="any", transport=replay(place))
        chat_ctx = ChatContext.empty()
        chat_ctx.add_message(role="user", content="Where is the tower?")
        assert (await llm.chat(chat_ctx=chat_ctx).collect()).text == "In Paris"
        await llm.aclose()
    packed.write_bytes(data[:60] + bytes(20) + data[80:])
    with pytest.raises(ValueError, match="a ZIP that cannot be read"):
        replay(packed)


async def test_a_model_on_this_machine_has_no_recording() -> None:
    async with serving([ScriptedLLM("Hi")]) as page:
        await page.run([user("Hi")])
        response = await page.client.get("/api/conversations/t/recording")
    assert response.status_code == 404
    assert "nothing was recorded" in response.json()["error"]


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Any]:
    made = MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "c.sqlite")
    yield made
    await made.aclose()


async def test_the_store_in_memory_does_as_the_one_on_disk(store: Store) -> None:
    picture = ImageContent(image="data:image/png;base64," + "A" * 20_000)
    one = Conversation(store, "one")
    (await one.load()).add_message(role="user", content=["Where is the Eiffel Tower?", picture])
    await one.sync()
    two = await one.branch(id="two")
    await two.describe(title="Towers")
    found = await store.conversations()
    assert [(s.id, s.title, s.items) for s in found] == [
        ("two", "Towers", 1), ("one", "Where is the Eiffel Tower?", 1),
    ]  # fmt: skip
    assert len(await store.conversations(limit=1)) == 1
    hits = await store.search("eiff TOWER", conversation="one")
    assert [hit.conversation for hit in hits] == ["one"]
    assert "Eiffel Tower" in hits[0].excerpt
    assert not await store.search("eiffel bridge")
    with pytest.raises(ConflictError):
        await store.append("one", [Record("about", data={})], after=0)
    assert await store.remove("one")
    assert not await store.remove("one")
    (message,) = (await Conversation(store, "two").load()).messages()
    assert message.content[1].image == picture.image
    assert await store.remove("two")
    assert not await store.conversations()
    await store.aclose()


async def test_a_conversation_that_cannot_be_read_leaves_the_others() -> None:
    store = MemoryStore()
    async with serving([ScriptedLLM("Hi")], store=store) as page:
        await page.run([user("Hello")])
        store._logs["broken"] = [Record("item", item="i", data={"type": "nonsense"})]
        for id in ("broken", "x" * 300):
            told = (await page.client.get("/api/overview", params={"thread": id})).json()
            assert told["problem"]
            assert "thread" not in told
            assert "t" in [each["id"] for each in told["conversations"]]
        told = (await page.client.get("/api/overview", params={"thread": "t"})).json()
        assert told["thread"]["messages"][0]["content"] == "Hello"
        assert "problem" not in told


async def test_half_a_surrogate_pair_is_only_a_character(tmp_path: Path) -> None:
    """A text cut in the middle of an emoji. UTF-8 cannot hold it, and JSON can."""
    for store in (MemoryStore(), SqliteStore(tmp_path / "kept.sqlite")):
        async with serving([ScriptedLLM("Hi")], store=store) as page:
            asked = {"threadId": "t", "runId": "r", "messages": [user("half \ud83d")]}
            await page.client.post("/api/run", content=json.dumps(asked))
            for path in ("conversations/t", "conversations/t/export", "overview?thread=t"):
                assert (await page.client.get(f"/api/{path}")).status_code == 200, path
            (listed,) = (await page.client.get("/api/conversations")).json()
            assert listed["title"].startswith("half ")


async def test_an_id_may_hold_a_slash() -> None:
    async with serving([ScriptedLLM("Hi")]) as page:
        await page.run([user("Hello")], thread="anna/7")
        at = "/api/conversations/anna%2F7"
        shown = (await page.client.get(at)).json()
        assert (shown["threadId"], len(shown["messages"])) == ("anna/7", 2)
        assert (await page.client.get(f"{at}/export")).json()["items"]
        place = {"item": shown["messages"][0]["id"]}
        assert (await page.client.post(f"{at}/copy", json=place)).status_code == 200
        assert (await page.client.post(f"{at}/rewind", json=place)).status_code == 200
        assert (await page.client.delete(at)).json() == {"removed": "anna/7"}


async def test_every_refusal_is_json() -> None:
    class Broken(MemoryStore):
        async def conversations(self, *, limit: int | None = None) -> Any:
            raise LookupError("a bug")

    async with serving([ScriptedLLM("Hi")], store=Broken()) as page:
        for path, status, told in (
            ("/api/nowhere", 404, "GET /api/nowhere: not found"),
            ("/api/run", 405, "GET /api/run: not found"),
            ("/api/conversations", 500, "a fault in rejoinder: LookupError: a bug"),
        ):
            response = await page.client.get(path)
            assert (response.status_code, response.json()) == (status, {"error": told})
