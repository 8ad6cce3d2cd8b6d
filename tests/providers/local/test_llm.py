"""The embedded model end to end: the real engine and a real, small model."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from rejoinder.errors import APIConnectionError, APIError, APIStatusError, ConfigurationError
from rejoinder.llm import ChatContext
from rejoinder.llm.tool_context import function_tool
from rejoinder.providers.local import LLM
from rejoinder.providers.local.models import ModelError
from rejoinder.providers.local.wire import ContextOverflowError
from rejoinder.turn import Done, ToolFinished, run_turn
from rejoinder.types import APIConnectOptions
from work import stopped_clock

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(240),  # a busy machine may need minutes for what takes seconds
    pytest.mark.may_block,
]


@function_tool
async def get_weather(city: str) -> str:
    """Get the current weather in a city.

    Args:
        city: name of the city
    """
    return f"Sunny in {city}."


def asked(text: str) -> ChatContext:
    ctx = ChatContext()
    ctx.add_message(role="user", content=text)
    return ctx


@pytest.fixture(scope="module")
def loaded(smol: Path) -> Iterator[dict[str, Any]]:
    """The options of a model whose engine is loaded once for all tests: loading takes a second. It
    lives as long as somebody holds it, here this fixture."""
    options = {"model": smol, "context": 2048}
    holder = LLM(**options)
    asyncio.run(holder.load())
    yield options
    asyncio.run(holder.aclose())


@pytest.fixture
async def llm(loaded: dict[str, Any]) -> AsyncIterator[LLM]:
    async with LLM(**loaded, temperature=0.0, max_completion_tokens=24) as made:
        await made.load()
        yield made


def engine_of(llm: LLM) -> Any:
    assert llm._lease is not None
    return llm._lease.engine


def cpu_of(pid: int) -> float:
    """Seconds of processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def test_a_reply_streams_and_is_counted(llm: LLM) -> None:
    metrics: list[Any] = []
    llm.on("metrics_collected", metrics.append)
    chunks = [chunk async for chunk in llm.chat(chat_ctx=asked("Say hello."))]
    texts = [chunk.delta.content for chunk in chunks if chunk.delta and chunk.delta.content]
    assert len(texts) > 1
    usage = chunks[-1].usage
    assert usage is not None
    assert usage.completion_tokens <= 24
    assert usage.prompt_tokens > 5
    (measured,) = metrics
    assert measured.ttft > 0
    assert not measured.estimated
    assert measured.metadata.model_provider == "local"


def test_this_process_neither_loads_nor_speaks(smol: Path) -> None:
    """Loading in here would hold the interpreter, and with it every event loop, until it is done."""
    script = (
        "import asyncio, sys\n"
        "from rejoinder.llm import ChatContext\n"
        "from rejoinder.providers.local import LLM\n"
        "async def main():\n"
        "    ctx = ChatContext.empty()\n"
        "    ctx.add_message(role='user', content='Say hello.')\n"
        "    async with LLM(model=sys.argv[1], context=512, max_completion_tokens=8) as llm:\n"
        "        assert (await llm.chat(chat_ctx=ctx).collect()).text\n"
        "asyncio.run(main())\n"
        "print([name for name in sys.modules if name.startswith('xllamacpp')])\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script, str(smol)], capture_output=True, text=True, check=False
    )
    assert ran.stdout == "[]\n", ran.stderr


async def test_the_beginning_of_a_conversation_is_read_once(llm: LLM) -> None:
    ctx = asked("Tell me one word about the sea, the sky, the hills and the long river.")
    await llm.chat(chat_ctx=ctx).collect()
    again = await llm.chat(chat_ctx=ctx).collect()
    assert again.usage is not None
    assert again.usage.prompt_cached_tokens > 0.8 * again.usage.prompt_tokens
    # Another conversation in between does not push it out; the next turn reads only what is new.
    await llm.chat(chat_ctx=asked("What is a mountain?")).collect()
    ctx.add_message(role="assistant", content=again.text)
    ctx.add_message(role="user", content="And one more?")
    later = await llm.chat(chat_ctx=ctx).collect()
    assert later.usage is not None
    assert later.usage.prompt_cached_tokens > again.usage.prompt_tokens - 8


@pytest.mark.parametrize(
    "choice", ["required", {"type": "function", "function": {"name": "get_weather"}}]
)
async def test_a_forced_call_fits_its_schema(llm: LLM, choice: Any) -> None:
    reply = await llm.chat(
        chat_ctx=asked("What is the weather in Paris?"), tools=[get_weather], tool_choice=choice
    ).collect()
    assert reply.text == ""
    (call,) = reply.tool_calls
    assert call.name == "get_weather"
    assert list(json.loads(call.arguments)) == ["city"]


async def test_a_turn_with_a_tool(llm: LLM) -> None:
    ctx = asked("What is the weather in Paris?")
    events = [
        event async for event in run_turn(llm, ctx, tools=[get_weather], tool_choice="required")
    ]
    assert sum(isinstance(event, ToolFinished) for event in events) == 1
    done = events[-1]
    assert isinstance(done, Done)
    assert done.text
    assert "{" not in done.text


async def test_an_answer_in_words_has_no_call(llm: LLM) -> None:
    stream = llm.chat(chat_ctx=asked('Repeat this: {"name": "f", "arguments": [1, `x`]}'))
    asking = stream._question.next_attempt
    asking.wording = dataclasses.replace(asking.wording, mode="words")
    text = (await stream.collect()).text
    assert text
    assert not set("{}[]`<>") & set(text)


async def test_the_answer_takes_the_form_that_was_asked_for(llm: LLM) -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
        "required": ["name", "age"],
    }
    reply = await llm.chat(
        chat_ctx=asked("Invent a person."),
        response_format=schema,
        extra_kwargs={"max_tokens": 100},
    ).collect()
    assert set(json.loads(reply.text)) == {"name", "age"}


async def test_a_conversation_that_does_not_fit(llm: LLM) -> None:
    with pytest.raises(ContextOverflowError, match="2048") as caught:
        await llm.chat(chat_ctx=asked("hi " * 3000)).collect()
    assert caught.value.prompt_tokens > 2048
    assert not caught.value.retryable


async def test_a_bad_request_is_a_clear_error(llm: LLM) -> None:
    with pytest.raises(APIStatusError, match="temperature"):
        await llm.chat(chat_ctx=asked("hi"), extra_kwargs={"temperature": "warm"}).collect()


async def test_tools_that_are_not_there(llm: LLM) -> None:
    with pytest.raises(ConfigurationError, match="none were passed"):
        llm.chat(chat_ctx=asked("hi"), tool_choice="required")
    with pytest.raises(ConfigurationError, match="expected one of get_weather, got 'x'"):
        llm.chat(
            chat_ctx=asked("hi"),
            tools=[get_weather],
            tool_choice={"type": "function", "function": {"name": "x"}},
        )


async def test_several_at_once(llm: LLM) -> None:
    replies = await asyncio.gather(
        *(llm.chat(chat_ctx=asked(f"Say the number {number}.")).collect() for number in range(5))
    )
    assert all(reply.text for reply in replies)


@pytest.mark.skipif(sys.platform != "linux", reason="reads processor times from /proc")
@pytest.mark.parametrize("stage", ["prompt", "reply"])
async def test_a_reply_that_nobody_wants_frees_the_processor(smol: Path, stage: str) -> None:
    async with LLM(model=smol, max_completion_tokens=4000) as llm:
        await llm.load()
        pid = engine_of(llm)._process.pid
        if stage == "prompt":
            words = " ".join(str(number * 7919 % 10007) for number in range(1500))
            stream = llm.chat(chat_ctx=asked(words))
            started = cpu_of(pid)
            while cpu_of(pid) < started + 0.2:  # it is reading
                await asyncio.sleep(0.02)
        else:
            stream = llm.chat(
                chat_ctx=asked("Count to a million."), extra_kwargs={"ignore_eos": True}
            )
            async for chunk in stream:
                if chunk.has_response():
                    break
        with stopped_clock():
            await stream.aclose()
        # What is still being computed may finish; then nothing more is.
        used = cpu_of(pid)
        quiet = 0
        while quiet < 5:
            await asyncio.sleep(0.1)
            now = cpu_of(pid)
            quiet = quiet + 1 if now - used <= 0.01 else 0
            used = now
        # Processor time, not wall time: others may hold the cores.
        if stage == "prompt":
            assert cpu_of(pid) - started < 0.2 + 2.0


async def test_an_engine_that_died_is_replaced(smol: Path) -> None:
    async with LLM(model=smol, context=512, max_completion_tokens=200) as llm:
        await llm.load()
        first = engine_of(llm)
        first._process.kill()
        first._process.wait()
        reply = await llm.chat(chat_ctx=asked("Say hello.")).collect()
        assert reply.text
        assert engine_of(llm) is not first
        # In the middle of a reply it is an error that is not repeated: text is out already.
        stream = llm.chat(chat_ctx=asked("Count."), extra_kwargs={"ignore_eos": True})
        async for chunk in stream:
            if chunk.has_response():
                break
        second = engine_of(llm)
        second._process.kill()
        with pytest.raises(APIConnectionError, match="engine died") as caught:
            await stream.collect()
        assert not caught.value.retryable  # within this reply
        assert (await llm.chat(chat_ctx=asked("Say hello.")).collect()).text
        assert engine_of(llm) is not second


async def test_users_of_one_file_share_an_engine(smol: Path) -> None:
    one, two = LLM(model=smol, context=512), LLM(model=str(smol), context=512)
    await asyncio.gather(one.load(), two.load())
    engine = engine_of(one)
    assert engine_of(two) is engine
    await one.aclose()
    assert engine.alive
    await two.aclose()
    await asyncio.to_thread(engine._process.wait, 10)
    assert not engine.alive


def test_two_event_loops(smol: Path) -> None:
    llm = LLM(model=smol, context=512, max_completion_tokens=4)

    async def ask() -> str:
        return (await llm.chat(chat_ctx=asked("Say hello.")).collect()).text

    assert asyncio.run(ask())
    assert asyncio.run(ask())
    asyncio.run(llm.aclose())


FORKS = """
import asyncio, os, sys, time
from rejoinder.llm import ChatContext
from rejoinder.providers.local import LLM
llm = LLM(model=sys.argv[1], context=512, max_completion_tokens=4)
ctx = ChatContext()
ctx.add_message(role="user", content="Say hello.")
async def ask(who):
    reply = await llm.chat(chat_ctx=ctx).collect()
    print(who, bool(reply.text), llm._lease.engine._process.pid, flush=True)
def child(who, *, close):
    asyncio.run(ask(who))
    if close:
        asyncio.run(llm.aclose())
    sys.exit()
asyncio.run(ask("parent"))
if not (pid := os.fork()):
    child("child", close=True)
os.waitpid(pid, 0)
asyncio.run(ask("parent"))
dead = llm._lease.engine._process
dead.kill()
dead.wait()
if not (pid := os.fork()):
    child("orphan", close=True)
os.waitpid(pid, 0)
asyncio.run(llm.aclose())
"""


def test_a_fork_uses_its_parents_engine_or_starts_its_own(smol: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORKS, str(smol)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    told = [line.split() for line in done.stdout.splitlines()]
    assert [(who, spoke) for who, spoke, _ in told] == [
        ("parent", "True"),
        ("child", "True"),
        ("parent", "True"),
        ("orphan", "True"),
    ]
    engines = [engine for *_, engine in told]
    assert engines[0] == engines[1] == engines[2]
    assert engines[3] != engines[0]


async def test_a_closed_one_says_so_and_loads_nothing(smol: Path) -> None:
    llm = LLM(model=smol, context=512, max_completion_tokens=4)
    await llm.aclose()
    with pytest.raises(APIConnectionError, match="closed") as caught:
        await llm.chat(chat_ctx=asked("hi")).collect()
    assert not caught.value.retryable
    assert llm._lease is None
    # Also when it is closed while it loads.
    llm = LLM(model=smol, context=512)
    loading = asyncio.create_task(llm.load())
    await asyncio.sleep(0)
    await llm.aclose()
    with pytest.raises(APIConnectionError, match="closed"):
        await loading
    assert llm._lease is None


async def test_nobody_else_may_use_the_engine(llm: LLM) -> None:
    engine = engine_of(llm)
    proxy_free = {key: value for key, value in os.environ.items() if "proxy" not in key.lower()}
    script = (
        "import sys, urllib.request as u, urllib.error\n"
        "try: print(u.urlopen(sys.argv[1]).status)\n"
        "except urllib.error.HTTPError as error: print(error.code)"
    )
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", script, f"{engine.address}/v1/models"],
        capture_output=True,
        text=True,
        env=proxy_free,
        check=False,
    )
    assert done.stdout.strip() == "401"
    assert engine.address.startswith("http://127.0.0.1:")


def test_the_engine_goes_with_a_program_that_is_killed(smol: Path) -> None:
    script = (
        "import asyncio, sys, time\n"
        "from rejoinder.providers.local import LLM\n"
        "async def main():\n"
        "    llm = LLM(model=sys.argv[1], context=512)\n"
        "    await llm.load()\n"
        "    print(llm._lease.engine._process.pid, flush=True)\n"
        "    await asyncio.sleep(100)\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(smol)], stdout=subprocess.PIPE, text=True
    ) as program:
        assert program.stdout is not None
        engine = int(program.stdout.readline())
        os.kill(engine, 0)
        program.kill()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            state = Path(f"/proc/{engine}/stat").read_text().rpartition(")")[2].split()[0]
            if state == "Z":
                break
            time.sleep(0.1)
            continue
        break
    else:
        pytest.fail("the engine's process outlived the program")


def test_the_first_reply_imports_nothing(smol: Path) -> None:
    asking = (
        "import asyncio, sys\n"
        "from rejoinder.llm import ChatContext\n"
        "from rejoinder.providers.local import LLM\n"
        "async def main():\n"
        f"    llm = LLM(model={str(smol)!r}, context=512, max_completion_tokens=4)\n"
        "    ctx = ChatContext.empty()\n"
        "    ctx.add_message(role='user', content='Say hello.')\n"
        "    before = set(sys.modules)\n"
        "    reply = await llm.chat(chat_ctx=ctx).collect()\n"
        "    print(bool(reply.text), *sorted(set(sys.modules) - before))\n"
        "    await llm.aclose()\n"
        "asyncio.run(main())\n"
    )
    printed = subprocess.check_output([sys.executable, "-c", asking], text=True)
    assert printed == "True\n"


async def test_loading_can_be_given_up(smol: Path) -> None:
    llm = LLM(model=smol, context=512)
    task = asyncio.create_task(llm.load())
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await llm.aclose()
    async with LLM(model=smol, context=512, max_completion_tokens=4) as other:
        assert (await other.chat(chat_ctx=asked("Hi")).collect()).text


async def test_inside_this_process(smol: Path) -> None:
    async with LLM(model=smol, context=512, max_completion_tokens=8, in_process=True) as llm:
        assert (await llm.chat(chat_ctx=asked("Say hello.")).collect()).text
        assert engine_of(llm)._process is None


@pytest.mark.parametrize(
    "damage", ["cut", "cut after the header", "cut after the mark", "empty", "text", "flipped"]
)
@pytest.mark.parametrize("in_process", [False, True])
async def test_a_damaged_file(smol: Path, tmp_path: Path, damage: str, in_process: bool) -> None:
    with smol.open("rb") as whole:
        content = bytearray(whole.read(4 << 20))
    match damage:
        case "cut after the header":
            del content[100_000:]
        case "cut after the mark":
            del content[4:]
        case "empty":
            content.clear()
        case "text":
            content = bytearray(b"hello world")
        case "flipped":
            content[8:24] = b"\xff" * 16
        case _:
            pass
    file = tmp_path / "damaged.gguf"
    file.write_bytes(content)
    async with LLM(model=file, in_process=in_process) as llm:
        with pytest.raises(ModelError, match=r"damaged\.gguf") as caught:
            await llm.chat(chat_ctx=asked("hi")).collect()
    assert caught.value.reason == "damaged"
    assert not caught.value.retryable


async def test_no_deadline_for_the_first_output_but_the_callers_own(smol: Path) -> None:
    async with LLM(model=smol, context=2048, max_completion_tokens=4) as llm:
        stream = llm.chat(chat_ctx=asked("hi"))
        assert stream._conn_options.first_output == float("inf")
        await stream.aclose()
        with pytest.raises(APIError):
            await llm.chat(
                chat_ctx=asked("word " * 1500),
                conn_options=APIConnectOptions(timeout=0.05, max_retry=0),
            ).collect()


def test_options_are_checked_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no such local model"):
        LLM(model="nosuch")
    with pytest.raises(ConfigurationError, match="slots"):
        LLM(slots=0)
    with pytest.raises(ConfigurationError, match="does not exist"):
        LLM(model=tmp_path / "no.gguf")
