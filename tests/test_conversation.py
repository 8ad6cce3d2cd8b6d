"""A conversation in a store: what is written when, and what is loaded after a crash at any record."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder import _stamps, prices
from rejoinder.conversation import UNSURE, Conversation
from rejoinder.errors import APIConnectionError, ConfigurationError
from rejoinder.llm._tool_runs import CUT_OFF, NOT_STARTED
from rejoinder.llm.chat_context import (
    ChatContext,
    ChatMessage,
    FunctionCall,
    FunctionCallOutput,
    ImageContent,
)
from rejoinder.llm.llm import CompletionUsage, FunctionToolCall
from rejoinder.llm.tool_context import RunContext, ToolError, function_tool
from rejoinder.media import AudioFrame
from rejoinder.store import ConflictError, Record, SqliteStore, Store, StoreError
from rejoinder.testing import ScriptedLLM
from rejoinder.turn import Done, Text, ToolStarted, pending_approvals, run_turn
from store.memory import MemoryStore
from test_turn import check_every_provider


def call(name: str, arguments: str = "{}", id: str = "call_1") -> FunctionToolCall:
    return FunctionToolCall(name=name, arguments=arguments, call_id=id)


def said(context: ChatContext) -> list[str]:
    return [
        item.text_content or "" if isinstance(item, ChatMessage) else f"{item.type}: {item.output}"
        for item in context.items
        if isinstance(item, ChatMessage | FunctionCallOutput)
    ]


async def loaded(store: Store, id: str = "anna") -> Conversation:
    conversation = Conversation(store, id)
    await conversation.load()
    return conversation


async def talk(conversation: Conversation, llm: ScriptedLLM, *texts: str, **options: Any) -> Any:
    done: Any = None
    for text in texts:
        conversation.chat_ctx.add_message(role="user", content=text)
        done = await run_turn(llm, conversation.chat_ctx, journal=conversation, **options).collect()
    return done


@function_tool
async def pay(amount: int, context: RunContext) -> str:
    """Pay."""
    return f"paid {amount} with {context.idempotency_key}"


@function_tool(effects=False)
async def look() -> str:
    """Look."""
    return "seen"


# -- written as it happens -----------------------------------------------------------------------


async def test_a_conversation_is_what_it_was(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "log.sqlite")
    conversation = await loaded(store)
    conversation.chat_ctx.add_message(role="system", content="Be brief")
    llm = ScriptedLLM([call("pay", '{"amount": 5}')], "Paid.", "Bye.")
    await talk(conversation, llm, "Pay 5", "Thanks", tools=[pay])
    another = SqliteStore(tmp_path / "log.sqlite")
    again = await loaded(another)
    assert again.chat_ctx.items == conversation.chat_ctx.items
    log = await store.read("anna")
    assert [record.kind for record in log] == [
        "item", "item", "turn", "item", "item", "start", "change", "item", "end",
        "item", "turn", "item", "end",
    ]  # fmt: skip
    (start,) = (record for record in log if record.kind == "start")
    assert start.key is not None
    assert f"with {start.key}" in said(again.chat_ctx)[2]
    await again.sync()  # nothing to write
    assert len(await store.read("anna")) == len(log)
    await another.aclose()
    await store.aclose()


async def test_nothing_is_asked_before_the_question_is_written() -> None:
    store = MemoryStore()
    conversation = await loaded(store)
    seen: list[list[str]] = []

    def reply(_: Any) -> Any:
        seen.append([record.kind for record in store.logs["anna"]])
        return "Yes."

    await talk(conversation, ScriptedLLM(reply), "Is it written?")
    assert seen == [["item", "turn"]]


async def test_a_tool_runs_only_when_its_start_is_written_unless_it_has_no_effects() -> None:
    store = MemoryStore()
    conversation = await loaded(store)
    kinds: list[tuple[str, str]] = []

    @function_tool
    async def effect() -> None:
        kinds.append(("effect", store.logs["anna"][-1].kind))

    @function_tool(effects=False)
    async def none() -> None:
        kinds.append(("none", store.logs["anna"][-1].kind))

    llm = ScriptedLLM([call("effect")], [call("none")], "Done.")
    await talk(conversation, llm, "Go", tools=[effect, none])
    assert kinds[0] == ("effect", "start")
    assert sum(record.kind == "start" for record in store.logs["anna"]) == 1


async def test_usage_and_cost_are_noted() -> None:
    store = MemoryStore()
    conversation = Conversation(
        store, "anna", price=lambda model, usage: usage.total_tokens / 100 if model else None
    )
    await conversation.load()
    usage = CompletionUsage(prompt_tokens=10, completion_tokens=5, total_tokens=15)
    await talk(conversation, ScriptedLLM(["Hi", usage], model="m"), "Hello")
    (record,) = (record for record in store.logs["anna"] if record.kind == "usage")
    assert record.cost == 0.15
    assert record.usage == {
        "model": "m", "prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15,
    }  # fmt: skip


@pytest.mark.parametrize("seed", range(25))
async def test_damage_anywhere_in_the_file_is_told_or_mended(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    file = tmp_path / "damaged.sqlite"
    store = SqliteStore(file)
    conversation = await loaded(store)
    picture = ImageContent(image="data:image/png;base64," + "A" * 9000)
    for number in range(3):
        conversation.chat_ctx.add_message(role="user", content=[f"Pay {number}", picture])
        await run_turn(
            ScriptedLLM([call("pay", '{"amount": 5}', f"c{number}")], "It is paid."),
            conversation.chat_ctx, tools=[pay], journal=conversation,
        ).collect()  # fmt: skip
    await store.aclose()
    data = bytearray(file.read_bytes())
    for _ in range(chance.randint(1, 30)):
        at = chance.randrange(len(data))
        data[at : at + chance.choice((1, 1, 1, 100))] = bytes(chance.randbytes(1))
    file.write_bytes(data[: chance.choice((len(data), chance.randrange(len(data))))])

    store = SqliteStore(file)
    for work in (loaded(store), store.search("paid"), store.conversations()):
        with contextlib.suppress(StoreError):
            await work
    await store.aclose()


async def test_the_cost_is_that_of_the_model_by_default() -> None:
    store = MemoryStore()
    usage = CompletionUsage(prompt_tokens=1_000_000, completion_tokens=5, total_tokens=1_000_005)
    prices.set_prices({"priced": prices.Price(input=2.0, output=8.0)})
    try:
        for model in ("priced", "nobody-knows"):
            llm = ScriptedLLM([call("look"), usage], ["Hi", usage], model=model)
            done = await talk(await loaded(store), llm, "Hello", tools=[look])
            assert done.cost == (pytest.approx(2 * 2.00004) if model == "priced" else None)
    finally:
        prices.set_prices({})
    costs = [record.cost for record in store.logs["anna"] if record.kind == "usage"]
    assert costs == [pytest.approx(2.00004)] * 2 + [None, None]


async def test_a_reply_that_is_cut_and_a_tool_that_goes_on() -> None:
    store = MemoryStore()
    conversation = await loaded(store)
    proceed = asyncio.Event()

    @function_tool(interruptible=False)
    async def book() -> str:
        await proceed.wait()
        return "booked"

    conversation.chat_ctx.add_message(role="user", content="Book")
    llm = ScriptedLLM(["One moment.", call("book")])
    turn = run_turn(llm, conversation.chat_ctx, tools=[book], journal=conversation)
    async with turn:
        async for event in turn:
            if isinstance(event, ToolStarted):
                turn.interrupt()
    assert said((await loaded(store)).chat_ctx)[-1] == f"function_call_output: {CUT_OFF}"
    proceed.set()
    await turn.settled()
    await conversation.flush()
    assert said((await loaded(store)).chat_ctx)[-1] == "function_call_output: booked"


def undecided(_: FunctionCall) -> None:
    pass


async def test_an_open_approval_survives_and_is_asked_once() -> None:
    store = MemoryStore()
    conversation = await loaded(store)
    llm = ScriptedLLM([call("pay", '{"amount": 5}')], "Paid.")
    done = await talk(conversation, llm, "Pay", tools=[pay], approve=undecided)
    assert done.reason == "paused"
    again = await loaded(store)
    assert [c.name for c in pending_approvals(again.chat_ctx)] == ["pay"]
    turn = run_turn(llm, again.chat_ctx, tools=[pay], journal=again, approve=lambda _: True)
    assert (await turn.collect()).text == "Paid."
    # As if it had been killed while the approved tool ran: the approval is used up.
    log = store.logs["anna"]
    start = next(i for i, record in enumerate(log) if record.kind == "start")
    store.logs["anna"] = log[: start + 1]
    cut = await loaded(store)
    assert pending_approvals(cut.chat_ctx) == []
    assert said(cut.chat_ctx)[-1] == f"function_call_output: {CUT_OFF}"


# -- after a crash -------------------------------------------------------------------------------


async def after_each_write(store: MemoryStore) -> None:
    """Load what each write has left: a crash may come behind any."""
    log = store.logs["anna"]
    for length in store.cuts:
        conversation = await loaded(MemoryStore({"anna": log[:length]}))
        items = conversation.chat_ctx.items
        calls = [item.call_id for item in items if isinstance(item, FunctionCall)]
        outputs = [item for item in items if isinstance(item, FunctionCallOutput)]
        assert sorted(calls) == sorted(output.call_id for output in outputs)
        assert not any("Still running" in output.output for output in outputs)
        if items:
            check_every_provider(conversation.chat_ctx, but=("text", "arguments"))
        await conversation.sync()
        again = await loaded(conversation.store)
        assert again.chat_ctx.to_dict() == conversation.chat_ctx.to_dict()


TOOL_REPLIES = st.lists(st.sampled_from(["pay", "fail", "look", "missing"]), min_size=1, max_size=3)


@given(st.lists(st.lists(TOOL_REPLIES, max_size=2), min_size=1, max_size=3), st.data())
def test_whatever_happened_the_log_loads_legal_after_every_write(
    turns: list[list[list[str]]], data: st.DataObject
) -> None:
    @function_tool
    async def fail() -> None:
        raise ToolError("no")

    async def main() -> None:
        store = MemoryStore()
        conversation = await loaded(store)
        number = 0
        for replies in turns:
            script: list[Any] = []
            for names in replies:
                number += 1
                calls = [
                    call(name, '{"amount": 1}' if name == "pay" else "{}", f"c{number}_{place}")
                    for place, name in enumerate(names)
                ]
                script.append(["Well. ", *calls])
            script.append(
                data.draw(
                    st.sampled_from(["Good bye.", APIConnectionError("gone", retryable=False)])
                )
            )
            try:
                await talk(conversation, ScriptedLLM(*script), "Go", tools=[pay, fail, look])
            except APIConnectionError:
                pass
            if data.draw(st.booleans()):
                await conversation.load()
        await after_each_write(store)

    asyncio.run(main())


@pytest.mark.looptime
async def test_what_was_said_before_a_crash_is_an_interrupted_message() -> None:
    """Also where the reply has stalled since."""
    store = MemoryStore()
    conversation = await loaded(store)
    conversation.chat_ctx.add_message(role="user", content="A story")
    llm = ScriptedLLM(["Once ", "upon ", 0.2, "a ", 2.0, "time"])
    turn = run_turn(llm, conversation.chat_ctx, journal=conversation)
    at: list[list[str]] = []
    async with turn:
        async for event in turn:
            if isinstance(event, Text) and event.text in ("upon ", "a ", "time"):
                at.append(said((await loaded(MemoryStore(dict(store.logs)))).chat_ctx))
    assert at == [["A story"], ["A story"], ["A story", "Once upon a "]]
    crashed = await loaded(MemoryStore({"anna": store.logs["anna"][:3]}))
    last = crashed.chat_ctx.items[-1]
    assert isinstance(last, ChatMessage)
    assert last.interrupted
    assert sum(record.kind == "text" for record in store.logs["anna"]) == 1


async def test_the_same_call_is_not_made_again_in_the_turn_that_crashed() -> None:
    store = MemoryStore()
    conversation = await loaded(store)
    llm = ScriptedLLM([call("pay", '{"amount": 5}')], "Paid.")
    await talk(conversation, llm, "Pay 5", tools=[pay])
    log = store.logs["anna"]
    start = next(i for i, record in enumerate(log) if record.kind == "start")

    async def go_on(*more: str) -> list[str]:
        crashed = await loaded(MemoryStore({"anna": log[: start + 1]}))
        assert said(crashed.chat_ctx)[-1] == f"function_call_output: {CUT_OFF}"
        for text in more:
            crashed.chat_ctx.add_message(role="user", content=text)
        # The first attempt fails, and the turn is run again.
        llm = ScriptedLLM(APIConnectionError("gone", retryable=False), [call("pay", '{ "amount":5}', "call_2"), call("pay", '{"amount":6}', "call_3")], "Done.")  # fmt: skip
        with pytest.raises(APIConnectionError):
            await run_turn(llm, crashed.chat_ctx, tools=[pay], journal=crashed).collect()
        await crashed.load()
        await run_turn(llm, crashed.chat_ctx, tools=[pay], journal=crashed).collect()
        return said(crashed.chat_ctx)[-3:-1]

    same, other = await go_on()
    assert UNSURE in same
    assert "paid 6" in other
    same, other = await go_on("Then pay it again")  # the user knows better
    assert "paid 5" in same


async def test_a_call_that_did_not_start_says_so_and_may_be_made() -> None:
    store = MemoryStore()
    conversation = await loaded(store)
    llm = ScriptedLLM([call("pay", '{"amount": 5}')], "Paid.")
    await talk(conversation, llm, "Pay 5", tools=[pay])
    log = store.logs["anna"]
    start = next(i for i, record in enumerate(log) if record.kind == "start")
    crashed = await loaded(MemoryStore({"anna": log[:start]}))
    assert said(crashed.chat_ctx)[-1] == f"function_call_output: {NOT_STARTED}"
    llm = ScriptedLLM([call("pay", '{"amount": 5}', "call_2")], "Paid.")
    await run_turn(llm, crashed.chat_ctx, tools=[pay], journal=crashed).collect()
    assert "paid 5" in said(crashed.chat_ctx)[-2]


async def test_an_output_that_the_application_found_out_is_kept() -> None:
    store = MemoryStore()
    conversation = await loaded(store)
    llm = ScriptedLLM([call("pay", '{"amount": 5}')], "Paid.")
    await talk(conversation, llm, "Pay 5", tools=[pay])
    log = store.logs["anna"]
    start = next(i for i, record in enumerate(log) if record.kind == "start")
    crashed = await loaded(MemoryStore({"anna": log[: start + 1]}))
    output = crashed.chat_ctx.items[-1]
    assert isinstance(output, FunctionCallOutput)
    output.output, output.is_error = "paid, as the bank tells", False
    await crashed.sync()
    assert said((await loaded(crashed.store)).chat_ctx)[-1] == (
        "function_call_output: paid, as the bank tells"
    )


# -- a store that fails --------------------------------------------------------------------------


class Full(MemoryStore):
    full = False

    async def append(self, *args: Any, **kwargs: Any) -> None:
        if self.full:
            raise StoreError("no room left on the disk")
        await super().append(*args, **kwargs)


async def test_a_full_disk_ends_the_turn_before_anything_is_done_and_is_tried_again() -> None:
    store = Full()
    conversation = await loaded(store)
    store.full = True
    llm = ScriptedLLM("Never", "Hello.")
    with pytest.raises(StoreError, match="no room"):
        await talk(conversation, llm, "Hi")
    assert llm.attempts == 0
    store.full = False
    done = await run_turn(
        ScriptedLLM("Hello."), conversation.chat_ctx, journal=conversation
    ).collect()
    assert done.text == "Hello."
    assert said((await loaded(store)).chat_ctx) == ["Hi", "Hello."]


async def test_a_tool_does_not_run_when_its_start_cannot_be_written() -> None:
    store = Full()
    conversation = await loaded(store)
    ran = False

    @function_tool
    async def effect() -> None:
        nonlocal ran
        ran = True

    def reply(_: Any) -> Any:
        store.full = True
        return [call("effect")]

    with pytest.raises(StoreError, match="no room"):
        await talk(conversation, ScriptedLLM(reply, "Well."), "Go", tools=[effect])
    assert not ran
    assert "could not be recorded" in said(conversation.chat_ctx)[-1]
    check_every_provider(conversation.chat_ctx)


async def test_two_objects_on_one_conversation() -> None:
    store = MemoryStore()
    a, b = await loaded(store), await loaded(store)
    await talk(a, ScriptedLLM("Hello."), "Hi")
    llm = ScriptedLLM("Hello.")
    with pytest.raises(ConflictError, match="expected 0"):
        await talk(b, llm, "Hi too")
    assert llm.attempts == 0
    await b.load()
    await talk(b, llm, "Hi too")
    with pytest.raises(RuntimeError, match="not loaded"):
        _ = Conversation(store, "anna").chat_ctx
    with pytest.raises(ValueError, match="load"):
        await run_turn(ScriptedLLM("x"), "Hi", journal=Conversation(store, "anna")).collect()


async def test_while_a_turn_runs_another_one_is_refused() -> None:
    store = MemoryStore()
    conversation = await loaded(store)
    conversation.chat_ctx.add_message(role="user", content="Hi")
    turn = run_turn(ScriptedLLM("Hello there"), conversation.chat_ctx, journal=conversation)
    async with turn:
        await anext(turn)
        other = await loaded(store)
        with pytest.raises(ConflictError, match="in the middle of a turn"):
            await other.append(ChatMessage(role="user", content=["Me"]))
        with pytest.raises(RuntimeError, match="is running"):
            await run_turn(ScriptedLLM("x"), conversation.chat_ctx, journal=conversation).collect()
        with pytest.raises(RuntimeError, match="is running"):
            await conversation.load()
        await other.load(take_over=True)
        await other.append(ChatMessage(role="user", content=["Me"]))
        with pytest.raises(ConflictError):
            async for _ in turn:
                pass
    assert said((await loaded(store)).chat_ctx)[-1] == "Me"


@pytest.mark.parametrize(
    ("passed", "counts"), [(0, True), (299, True), (301, False), (-86_400, False)]
)
async def test_a_turn_of_another_host_counts_as_running_for_minutes(
    passed: float, counts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = MemoryStore()
    conversation = await loaded(store)
    conversation.chat_ctx.add_message(role="user", content="Hi")
    turn = run_turn(ScriptedLLM("Hello there"), conversation.chat_ctx, journal=conversation)
    async with turn:
        await anext(turn)
        monkeypatch.setattr(socket, "gethostname", lambda: "another")
        other = await loaded(store)
        now = time.time() + passed  # a clock that is set back locks nothing for a day
        monkeypatch.setattr(_stamps, "wall_now", lambda: now)
        message = ChatMessage(role="user", content=["Me"])
        if counts:
            with pytest.raises(ConflictError, match="in the middle of a turn"):
                await other.append(message)
        else:
            await other.append(message)
            with pytest.raises(ConflictError):
                async for _ in turn:
                    pass


# -- branches ------------------------------------------------------------------------------------


async def test_going_back_keeps_both_branches() -> None:
    store = MemoryStore()
    conversation = await loaded(store)
    llm = ScriptedLLM("One.", "Two.", "Three.")
    await talk(conversation, llm, "a", "b")
    first = conversation.chat_ctx.items[1]
    tip = conversation.chat_ctx.items[-1].id
    await conversation.rewind(first)
    await talk(conversation, llm, "c")
    assert said((await loaded(store)).chat_ctx) == ["a", "One.", "c", "Three."]
    assert tip in await conversation.tips()
    await conversation.rewind(tip)
    assert said((await loaded(store)).chat_ctx) == ["a", "One.", "b", "Two."]
    await conversation.rewind(None)
    assert said((await loaded(store)).chat_ctx) == []
    with pytest.raises(ValueError, match="no item"):
        await conversation.rewind("nowhere")


async def test_a_branch_is_a_conversation_of_its_own() -> None:
    store = MemoryStore()
    conversation = await loaded(store)
    llm = ScriptedLLM([call("look")], "One.", "Two.", "Three.")
    await talk(conversation, llm, "a", "b", tools=[look])
    other = await conversation.branch(conversation.chat_ctx.items[3], id="berta")
    await talk(other, llm, "c")
    assert said((await loaded(store, "berta")).chat_ctx)[-3:] == ["One.", "c", "Three."]
    assert said((await loaded(store)).chat_ctx)[-3:] == ["One.", "b", "Two."]
    with pytest.raises(ValueError, match="already"):
        await conversation.branch(id="berta")
    with pytest.raises(ValueError, match="between a call and its output"):
        await conversation.branch(conversation.chat_ctx.items[1])


async def test_a_context_that_was_changed_by_hand_is_written_as_it_is() -> None:
    store = MemoryStore()
    conversation = await loaded(store)
    await talk(conversation, ScriptedLLM("One.", "Two.", "Three."), "a", "b", "c")
    items = conversation.chat_ctx.items
    summary = ChatMessage(role="system", content=["We spoke of a"])
    conversation.chat_ctx.items = [summary, *items[2:]]  # replaced at the beginning
    await conversation.sync()
    assert said((await loaded(store)).chat_ctx) == ["We spoke of a", "b", "Two.", "c", "Three."]
    conversation.chat_ctx.items = [items[4], items[2], items[2]]  # in another order, and twice
    await conversation.sync()
    assert said((await loaded(store)).chat_ctx) == ["c", "b"]
    conversation.chat_ctx.items = [items[4]]
    conversation.chat_ctx.truncate(max_items=1)
    items[4].content = ["C"]  # type: ignore[union-attr]
    await conversation.sync()
    assert said((await loaded(store)).chat_ctx) == ["C"]


async def test_a_window_on_the_context_loses_nothing() -> None:
    store = MemoryStore()
    conversation = await loaded(store)
    conversation.chat_ctx.add_message(role="system", content="Be brief")
    await talk(conversation, ScriptedLLM("One.", "Two."), "a", "b")
    conversation.chat_ctx.truncate(max_items=2)
    await talk(conversation, ScriptedLLM("Three."), "c")
    assert len(conversation.chat_ctx.items) == 5
    assert said((await loaded(store)).chat_ctx) == [
        "Be brief", "a", "One.", "b", "Two.", "c", "Three.",
    ]  # fmt: skip


async def test_what_was_heard() -> None:
    store = MemoryStore()
    conversation = await loaded(store)
    await talk(conversation, ScriptedLLM("A long answer", "Yes."), "a")
    message = conversation.chat_ctx.items[-1]
    await conversation.heard(message, "A long")
    again = await loaded(store)
    last = again.chat_ctx.items[-1]
    assert isinstance(last, ChatMessage)
    assert (last.text_content, last.interrupted) == ("A long", True)
    await talk(again, ScriptedLLM("Yes."), "b")
    assert not any(record.kind == "change" for record in store.logs["anna"])
    with pytest.raises(ValueError, match="no message of the assistant"):
        await again.heard("nowhere", "x")


async def test_pictures_and_sounds_are_kept_once_and_come_back(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "log.sqlite")
    conversation = await loaded(store)
    picture = ImageContent(image="data:image/png;base64," + "QUJD" * 10_000)
    frames = [AudioFrame(bytes(320), 16_000, 1, 160) for _ in range(50)]
    for text in ("Look", "Look again"):
        conversation.chat_ctx.add_message(role="user", content=[text, picture])
    from rejoinder.llm.chat_context import AudioContent

    conversation.chat_ctx.add_message(role="user", content=[AudioContent(frame=frames)])
    await conversation.sync()
    log = await store.read("anna")
    assert all(len(str(record.data)) < 1000 for record in log)
    names: set[str] = set(re.findall(r"'kept_as': '(\w+)'", str(log)))
    assert len(names) == 2
    assert (await loaded(store)).chat_ctx.items == conversation.chat_ctx.items
    other = await conversation.branch(id="berta")
    assert await store.remove("anna")
    assert (await loaded(store, "berta")).chat_ctx.items == other.chat_ctx.items
    assert await store.remove("berta")
    assert await store.media(names) == {}
    await store.aclose()


async def test_facts_and_search(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "log.sqlite")
    conversation = await loaded(store)
    await talk(conversation, ScriptedLLM("The Eiffel Tower."), "What is tall?")
    await conversation.describe(title="Towers", mood="good")
    (found,) = await conversation.search("eiff")
    assert found.excerpt == "The Eiffel Tower."
    again = await loaded(store)
    assert again.about == {"title": "Towers", "mood": "good"}
    assert repr(again).startswith("Conversation(SqliteStore(")
    await store.aclose()


@pytest.mark.parametrize("id", ["", "x" * 201, "a\nb"])
def test_ids(id: str) -> None:
    with pytest.raises(ConfigurationError, match="id: expected 1 to 200 printable"):
        Conversation(MemoryStore(), id)


async def test_a_log_that_this_version_does_not_understand() -> None:
    record = Record("item", item="x", data={"type": "hologram", "id": "x"})
    with pytest.raises(StoreError, match="does not understand"):
        await loaded(MemoryStore({"anna": [record]}))


def test_a_wrong_journal() -> None:
    with pytest.raises(ConfigurationError, match="journal: expected a Journal"):
        run_turn(ScriptedLLM("x"), "Hi", journal=5)  # type: ignore[arg-type]


async def test_a_turn_without_a_journal_ends_as_before() -> None:
    done = await run_turn(ScriptedLLM("Hello."), "Hi").collect()
    assert isinstance(done, Done)
