"""What was heard of an answer is what the history keeps of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder import Conversation, run_turn
from rejoinder._core.realtime.heard import spread
from rejoinder.errors import ConfigurationError
from rejoinder.llm import ChatContext, FunctionToolCall, function_tool
from rejoinder.store import SqliteStore
from rejoinder.testing import ScriptedLLM


def answered(*texts: str) -> ChatContext:
    chat_ctx = ChatContext.empty()
    chat_ctx.add_message(role="assistant", content="Hello.")
    chat_ctx.add_message(role="user", content="Go on.")
    for text in texts:
        chat_ctx.add_message(role="assistant", content=text, extra={"openai": {"id": "x"}})
    return chat_ctx


def said(chat_ctx: ChatContext) -> list[str]:
    return [message.text_content or "" for message in chat_ctx.messages()]


class Sound:
    def heard(self, ms: float) -> str:
        return "One two"[: int(ms)]


def test_by_the_text_that_was_heard() -> None:
    chat_ctx = answered("One two three.")
    assert chat_ctx.commit_heard("One  two") == "One two"
    assert said(chat_ctx) == ["Hello.", "Go on.", "One two"]
    message = chat_ctx.messages()[-1]
    assert message.interrupted
    assert message.extra == {}, "the provider's state belongs to the whole message"


def test_by_milliseconds() -> None:
    for sound, until, left in (
        (1000, 500, "One two"),
        (Sound(), 3, "One"),
        (1000, 2000, "One two three."),
    ):
        chat_ctx = answered("One two three.")
        assert chat_ctx.commit_heard(until, sound=sound) == left
        assert said(chat_ctx)[-1] == left
    with pytest.raises(ValueError, match="pass `sound`"):
        answered("One").commit_heard(100)


def test_what_was_heard_whole_stays_as_it_is() -> None:
    chat_ctx = answered("One.")
    chat_ctx.commit_heard("One.")
    assert not chat_ctx.messages()[-1].interrupted
    assert chat_ctx.messages()[-1].extra


def test_of_several_messages_each_keeps_its_part() -> None:
    chat_ctx = answered("One two.", "Three four.", "Five.")
    assert chat_ctx.commit_heard("One two. Three") == "One two.Three"
    assert said(chat_ctx) == ["Hello.", "Go on.", "One two.", "Three"]


def test_nothing_heard_is_no_message() -> None:
    for until in (0, -5, "", " "):
        chat_ctx = answered("One.")
        chat_ctx.commit_heard(until, sound=100)
        assert said(chat_ctx) == ["Hello.", "Go on."]


def test_one_message_by_its_id() -> None:
    chat_ctx = answered("One two.")
    chat_ctx.commit_heard("Hel", message_id=chat_ctx.items[0].id)
    assert said(chat_ctx) == ["Hel", "Go on.", "One two."]
    with pytest.raises(ValueError, match="unknown message id 'nothing'"):
        chat_ctx.commit_heard("x", message_id="nothing")
    with pytest.raises(ConfigurationError, match="sound"):
        chat_ctx.commit_heard(1, sound=0)


@function_tool
async def look() -> str:
    return "rain"


async def test_a_turn_keeps_what_was_heard_and_the_next_model_sees_it() -> None:
    llm = ScriptedLLM(
        ["Let me look. ", FunctionToolCall(name="look", arguments="{}", call_id="c1")],
        ["It rains ", "in Oslo."],
        "Sorry.",
    )
    chat_ctx = ChatContext.empty()
    chat_ctx.add_message(role="user", content="Weather?")
    async with run_turn(llm, chat_ctx, tools=[look]) as turn:
        async for _ in turn:
            pass
    assert turn.commit_heard("Let me look. It rains") == "Let me look. It rains"
    kinds = [item.type for item in chat_ctx.items]
    assert kinds == ["message", "message", "function_call", "function_call_output", "message"]
    assert said(chat_ctx) == ["Weather?", "Let me look. ", "It rains"]
    assert turn.commit_heard("Let me") == "Let me"
    assert said(chat_ctx) == ["Weather?", "Let me"]
    chat_ctx.add_message(role="user", content="What?")
    await run_turn(llm, chat_ctx).collect()
    assert said(llm.calls[-1].chat_ctx) == ["Weather?", "Let me", "What?"]
    assert [m["content"] for m in chat_ctx.to_dict()["items"] if m.get("role") == "assistant"] == [
        ["Let me"],
        ["Sorry."],
    ]


async def test_a_turn_that_runs_is_cut() -> None:
    llm = ScriptedLLM(["One ", "two ", 60.0, "three."])
    async with run_turn(llm, "Go on.") as turn:
        async for event in turn:
            if getattr(event, "text", "") == "two ":
                turn.commit_heard("One")
        assert turn.done
    assert said(turn.chat_ctx) == ["Go on.", "One"]


WORDS = st.lists(st.text(alphabet="abc.", min_size=1, max_size=4), max_size=4).map(" ".join)


def bare(text: str) -> str:
    return re.sub(r"\s", "", text)


@given(st.lists(WORDS, min_size=1, max_size=4), st.data())
def test_what_is_left_of_all_is_what_was_heard(texts: list[str], data: st.DataObject) -> None:
    whole = "".join(texts)
    told = whole[: data.draw(st.integers(0, len(whole)))]
    left = spread(texts, told)
    assert bare("".join(left)) == bare(told)
    assert all(bare(text).startswith(bare(part)) for text, part in zip(texts, left, strict=True))


async def test_a_store_keeps_what_was_heard(tmp_path: Path) -> None:
    llm = ScriptedLLM("One two three.")
    store = SqliteStore(tmp_path / "talk.db")
    try:
        conversation = Conversation(store, "c")
        chat_ctx = await conversation.load()
        chat_ctx.add_message(role="user", content="Go on.")
        async with run_turn(llm, chat_ctx, journal=conversation) as turn:
            async for _ in turn:
                pass
            turn.commit_heard("One two")
        assert said(await Conversation(store, "c").load()) == ["Go on.", "One two"]
    finally:
        await store.aclose()
