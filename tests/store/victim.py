"""A program that is killed again and again: it goes through a conversation in which each message of
the user asks for one payment, with a model that calls the tool until it reads that it was paid.

Prints what went wrong, if anything did, and how often it was killed where.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from rejoinder._core.repair import repair
from rejoinder.conversation import UNSURE, Conversation
from rejoinder.llm.chat_context import ChatContext, FunctionCall, FunctionCallOutput
from rejoinder.llm.llm import FunctionToolCall
from rejoinder.llm.tool_context import function_tool
from rejoinder.store import SqliteStore
from rejoinder.testing import ScriptedLLM
from rejoinder.testing.history import assert_legal
from rejoinder.testing.scripted import ScriptedCall
from rejoinder.turn import run_turn


def check(chat_ctx: ChatContext) -> None:
    calls = [item.call_id for item in chat_ctx.items if isinstance(item, FunctionCall)]
    outputs = [item for item in chat_ctx.items if isinstance(item, FunctionCallOutput)]
    assert sorted(calls) == sorted(item.call_id for item in outputs), "a call without one output"
    assert not any("Still running" in item.output for item in outputs), "a call that runs for ever"
    context = chat_ctx.copy()
    context.add_message(role="user", content="Go on")
    for provider in ("openai", "openai.responses", "anthropic", "google", "aws"):
        items, changes = repair(context.items, provider)
        assert not changes, f"{provider}: {changes}"
        messages, data = ChatContext(items).to_provider_format(provider)  # type: ignore[call-overload]
        assert_legal(provider, messages, system=getattr(data, "system_messages", None) or None)


def _since_user(chat_ctx: ChatContext) -> list[Any]:
    items = chat_ctx.items
    last = max(i for i, item in enumerate(items) if item.type == "message" and item.role == "user")
    return items[last:]


def model(rng: random.Random, ids: str) -> ScriptedLLM:
    count = 0

    def reply(call: ScriptedCall) -> Any:
        nonlocal count
        items = _since_user(call.chat_ctx)
        outputs = [item for item in items if item.type == "function_call_output"]
        number = items[0].text_content.split()[-1]
        paid = any(item.name == "pay" and not item.is_error for item in outputs)
        refused = any(UNSURE in item.output for item in outputs)
        if paid or refused:
            return [x for word in ("It", " is", " done", ".") for x in (word, rng.random() * 0.02)]
        count += 1
        return [
            *(["Let me see."] if rng.random() < 0.5 else []),
            FunctionToolCall(name="pay", arguments=f'{{"number": {number}}}', call_id=f"{ids}{count}"),
            FunctionToolCall(name="look", arguments="{}", call_id=f"{ids}{count}l"),
        ]  # fmt: skip

    return ScriptedLLM(*[reply] * 1000)


async def live(folder: Path, seed: int, messages: int) -> None:
    rng = random.Random(seed)
    effects = os.open(folder / "effects", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    @function_tool
    async def pay(number: int) -> str:
        """Pay."""
        await asyncio.sleep(rng.random() * 0.01)
        os.write(effects, f"{number}\n".encode())
        await asyncio.sleep(rng.random() * 0.01)
        return "paid"

    @function_tool(effects=False)
    async def look() -> str:
        """Look."""
        await asyncio.sleep(rng.random() * 0.01)
        return "nothing"

    conversation = Conversation(SqliteStore(folder / "log.sqlite"), "victim")
    chat_ctx = await conversation.load()
    check(chat_ctx)
    llm = model(rng, f"c{seed}_")
    while True:
        asked = sum(item.type == "message" and item.role == "user" for item in chat_ctx.items)
        last = chat_ctx.items[-1] if chat_ctx.items else None
        answered = last is None or (
            last.type == "message" and last.role == "assistant" and not last.interrupted
            and "done" in (last.text_content or "")
        )  # fmt: skip
        if answered:
            if asked == messages:
                return
            chat_ctx.add_message(role="user", content=f"Pay number {asked + 1}")
        await run_turn(
            llm, chat_ctx, tools=[pay, look], journal=conversation, max_steps=6
        ).collect()
        check(chat_ctx)


def main(folder: Path, kills: int, messages: int) -> None:
    with tempfile.TemporaryDirectory() as warm:  # what is imported late is imported now
        asyncio.run(live(Path(warm), 0, 1))
    rng = random.Random()
    ends = Counter[str]()
    for seed in range(kills * 10):
        pid = os.fork()
        if pid == 0:
            try:
                asyncio.run(live(folder, seed, messages))
            except BaseException as error:
                (folder / f"problem{seed}").write_text(f"{type(error).__name__}: {error}")
                os._exit(3)
            os._exit(0)
        time.sleep(rng.random() * 0.2)
        if ends["killed"] < kills:
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        ends["killed" if code == -signal.SIGKILL else f"exit {code}"] += 1
        if code == 0:
            break
    print(dict(ends), *(file.read_text() for file in folder.glob("problem*")))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
