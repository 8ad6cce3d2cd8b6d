"""kill -9 of a real process, at random moments, many times: the conversation goes on, and nothing is
done twice."""

from __future__ import annotations

import ast
import asyncio
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from rejoinder.conversation import Conversation
from rejoinder.llm._tool_runs import CUT_OFF
from rejoinder.llm.chat_context import ChatItem, FunctionCallOutput
from rejoinder.store import ConflictError, SqliteStore

HERE = Path(__file__).parent
pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


def test_whenever_it_is_killed_the_conversation_goes_on_and_nothing_is_paid_twice(
    tmp_path: Path,
) -> None:
    ran = subprocess.run(
        [sys.executable, HERE / "victim.py", tmp_path, "60", "50"],
        capture_output=True,
        text=True,
        timeout=170,
        check=True,
    )
    ends = ast.literal_eval(ran.stdout)  # a text behind it is a problem that a process had
    assert ends.pop("exit 0") == 1
    assert ends.pop("killed") >= 20
    assert not ends
    paid = Counter((tmp_path / "effects").read_text().split())
    assert max(paid.values()) == 1

    async def load() -> list[ChatItem]:
        store = SqliteStore(tmp_path / "log.sqlite")
        try:
            return (await Conversation(store, "victim").load()).items
        finally:
            await store.aclose()

    items = asyncio.run(load())
    done = sum(isinstance(item, FunctionCallOutput) and item.output == "paid" for item in items)
    unsure = sum(isinstance(item, FunctionCallOutput) and item.output == CUT_OFF for item in items)
    # Each payment was made and reported, or may have been made when the process was killed.
    assert done <= len(paid) <= done + unsure
    assert done + unsure >= 50


HOLDER = """
import asyncio, sys
from rejoinder import Conversation, function_tool, run_turn
from rejoinder.llm.llm import FunctionToolCall
from rejoinder.store import SqliteStore
from rejoinder.testing import ScriptedLLM

@function_tool
async def wait() -> str:
    print("waiting", flush=True)
    await asyncio.sleep(1000)

async def main():
    conversation = Conversation(SqliteStore(sys.argv[1]), "one")
    chat_ctx = await conversation.load()
    chat_ctx.add_message(role="user", content="Wait")
    llm = ScriptedLLM([FunctionToolCall(name="wait", arguments="{}", call_id="c1")])
    await run_turn(llm, chat_ctx, tools=[wait], journal=conversation).collect()

asyncio.run(main())
"""


@pytest.mark.may_block  # reads a pipe
async def test_one_process_wins_and_the_other_is_told(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "log.sqlite")
    before = Conversation(store, "one")
    await before.load()
    other = subprocess.Popen(
        [sys.executable, "-c", HOLDER, tmp_path / "log.sqlite"], stdout=subprocess.PIPE
    )
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == b"waiting\n"
        before.chat_ctx.add_message(role="user", content="Me too")
        with pytest.raises(ConflictError, match="continued elsewhere"):
            await before.sync()
        during = Conversation(store, "one")
        await during.load()
        during.chat_ctx.add_message(role="user", content="Me too")
        with pytest.raises(ConflictError, match=f"process {other.pid}"):
            await during.sync()
    finally:
        other.kill()
        other.wait()
        if other.stdout is not None:
            other.stdout.close()
    assert not Path(f"/proc/{other.pid}").exists() or os.name != "posix"
    await during.load()
    during.chat_ctx.add_message(role="user", content="Me too")
    await during.sync()  # a process that is gone holds nothing
    outputs = [i.output for i in during.chat_ctx.items if isinstance(i, FunctionCallOutput)]
    assert outputs == [CUT_OFF]
    await store.aclose()
