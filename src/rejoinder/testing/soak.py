"""Long random use of an LLM, with random faults and random consumers, that checks every word.

The words of each reply are numbered, so that words that are lost, doubled or from another reply are
found::

    report = await soak(lambda urls: openai.LLM(model="m", api_key="k", base_url=urls[0] + "/v1"))
    assert report.clean, report

``python -m rejoinder.testing.soak --help`` runs it for each provider, for a `FallbackAdapter` over
several, for turns with tools, and for several processes some of which are killed. The servers behind
it are `FaultServer`s that know every `Fault`.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol, TypeAlias

from rejoinder._options import COUNT, SHARE, WHOLE, checked
from rejoinder.errors import APIError, ConfigurationError
from rejoinder.llm._fallback_stream import name_in_errors
from rejoinder.llm.chat_context import ChatContext
from rejoinder.llm.fallback_adapter import FallbackAdapter
from rejoinder.llm.llm import LLM, ChatChunk, LLMStream
from rejoinder.llm.tool_context import function_tool
from rejoinder.testing.faults import Answer, Call, Fault, FaultServer, ReceivedRequest
from rejoinder.testing.leaks import Holdings, LeakError, settled
from rejoinder.types import APIConnectOptions

__all__ = ["SoakReport", "SoakServer", "soak"]

Make: TypeAlias = Callable[[Sequence[str]], LLM[Any]]
Habit: TypeAlias = Literal["collect", "read", "slow", "text", "leave", "cancel", "close"]
HABITS: Final[tuple[Habit, ...]] = ("collect", "read", "slow", "text", "leave", "cancel", "close")
"""The behaviours of consumers; the last three leave before the end."""

_MARK: Final = re.compile(rb"turn-(\d+)-words-(\d+)(-pay)?")
_COUNTED: Final = re.compile(rb"count-the-requests-of-(\d+)")
"""The path of a request with which another process reads a server's counts."""
_WORD: Final = re.compile(r"t(\d+)w(\d+)")
_CONTINUE: Final = b"Continue it from exactly where it stops"
"""The text with which a `FallbackAdapter` requests the rest of a reply; its last words follow."""
_PATIENCE: Final = 60.0
"""Seconds after which a turn counts as hung."""
_SHOWN: Final = 10


@dataclass
class SoakReport:
    """The findings of a soak.

    Attributes:
        turns: number of turns.
        whole: turns whose reply was complete.
        silent: complete turns that were empty because every server sent an empty answer.
        failed: turns that raised an error, by the name of its class.
        left: turns that the consumer left before the end.
        ended_early: replies that ended by ``"nothing_to_add"``, by ``"cut_after_tool_call"``, or, in
            turns with tools, by an empty answer.
        lost, doubled, foreign: words that are missing in a complete reply, that came twice or out
            of order, that belong to another reply.
        repeated_effects: tools that ran more than once for one call of one turn.
        missing_effects: complete turns whose tool did not run.
        untyped: errors that are neither an `APIError` nor a `ConfigurationError`.
        hung: turns that did not end within a minute.
        unasked: turns that failed without any output, and without a request to every server.
        unheard: turns that failed like this, although the error of the `FallbackAdapter` names a
            failure of each model: a connection broke, or the time was up, before the server had
            read the request.
        leaks: tasks, sockets and files that were left behind.
        memory_slope: growth of resident memory in bytes per turn, over the second half. Short runs
            warm up, and faults that send without end make it jump.
        objects_slope: growth of the number of objects that Python holds per turn, over the second
            half. It is steady: objects that are kept for each turn show as 1 or more.
        killed: number of killed processes, if several ran.
        examples: the first findings, in words.
    """

    turns: int = 0
    whole: int = 0
    silent: int = 0
    failed: Counter[str] = field(default_factory=Counter[str])
    left: int = 0
    ended_early: int = 0
    lost: int = 0
    doubled: int = 0
    foreign: int = 0
    repeated_effects: int = 0
    missing_effects: int = 0
    untyped: Counter[str] = field(default_factory=Counter[str])
    hung: int = 0
    unasked: int = 0
    unheard: int = 0
    leaks: list[str] = field(default_factory=list[str])
    memory_slope: float = 0.0
    objects_slope: float = 0.0
    killed: int = 0
    seconds: float = 0.0
    examples: list[str] = field(default_factory=list[str])

    @property
    def clean(self) -> bool:
        """Whether nothing was wrong. The slopes do not count, because short runs warm up."""
        return not (
            self.lost
            or self.doubled
            or self.foreign
            or self.repeated_effects
            or self.missing_effects
            or self.untyped
            or self.hung
            or self.unasked
            or self.leaks
        )

    def found(self, what: str) -> None:
        if len(self.examples) < _SHOWN:
            self.examples.append(what)

    def add(self, other: SoakReport) -> None:
        """Add the findings of another report of the same time."""
        for name, value in vars(other).items():
            if name == "examples":
                self.examples = (self.examples + value)[:_SHOWN]
            elif name == "seconds" or name.endswith("_slope"):
                setattr(self, name, max(getattr(self, name), value))
            else:
                setattr(self, name, getattr(self, name) + value)

    def __str__(self) -> str:
        failed = ", ".join(f"{name} {count}" for name, count in self.failed.most_common())
        text = (
            f"{self.turns} turns in {self.seconds:.1f} s: {self.whole} whole ({self.silent} of them "
            f"empty), {self.left} left by the consumer, {self.ended_early} ended early, failed: "
            f"{failed or 'none'}\n"
            f"words: lost {self.lost}, doubled {self.doubled}, foreign {self.foreign}\n"
            f"tools: run twice {self.repeated_effects}, not run {self.missing_effects}\n"
            f"turns: hung {self.hung}, failed before all were asked {self.unasked} (asked, but not "
            f"heard: {self.unheard}), untyped errors {dict(self.untyped) or 0}\n"
            f"left behind: {len(self.leaks)}, memory {self.memory_slope:+.0f} bytes and "
            f"{self.objects_slope:+.2f} objects a turn"
            + (f", processes killed: {self.killed}" if self.killed else "")
        )
        return "\n".join([text, *(f"  {example}" for example in self.examples)])


class SoakServer(FaultServer):
    """Answers each turn with its numbered words, and misbehaves now and then.

    It behaves like a good model: it continues a cut reply on request, and after the output of a tool
    it continues with the next word.

    Args:
        dice: decides which requests fail, and how.
        faults: the possible faults.
        share: share of the requests that fail.
    """

    def __init__(self, dice: random.Random, faults: Sequence[Fault], share: float) -> None:
        super().__init__(default=self._answer)
        self.asked: Counter[int] = Counter()
        """Requests for each turn."""
        self.empty: Counter[int] = Counter()
        """Requests with an empty answer, for each turn."""
        self._dice = dice
        self._faults = faults
        self._share = share

    def serve_elsewhere(self) -> None:
        """Let the target of redirects answer like this server, without faults."""
        self.elsewhere.always(lambda request: self._reply(request, Fault.NONE))

    def count(self, number: int) -> tuple[int, int]:
        """The number of requests for a turn, and of those with an empty answer. Read only once."""
        return self.asked.pop(number, 0), self.empty.pop(number, 0)

    def _answer(self, request: ReceivedRequest) -> Answer:
        self.requests.clear()  # they are not read, and there are many
        if _COUNTED.search(request.body):
            return self._reply(request, Fault.NONE)
        faulty = self._faults and self._dice.random() < self._share
        return self._reply(request, self._dice.choice(self._faults) if faulty else Fault.NONE)

    def _reply(self, request: ReceivedRequest, fault: Fault) -> Answer:
        marks = _MARK.findall(request.body)
        if not marks:
            counted = _COUNTED.search(request.body)
            if counted is not None:
                return Answer(text="{} {}".format(*self.count(int(counted[1]))))
            return Answer(text=("ok",), fault=fault)  # a probe
        number, count, pays = int(marks[-1][0]), int(marks[-1][1]), bool(marks[-1][2])
        self.asked[number] += 1
        said = [int(i) for i in re.findall(rb"t%dw(\d+)" % number, request.body)]
        start = new = max(said) + 1 if said else 0
        _, instruction, last_words = request.body.rpartition(_CONTINUE)
        if instruction:  # begin with the last words, as instructed
            last = [int(i) for i in re.findall(rb"t%dw(\d+)" % number, last_words)]
            start = max([start - 2, *last[:1]])
        words = [f"t{number}w{i} " for i in range(start, count)]
        if fault is Fault.EMPTY_REPLY or not words:
            self.empty[number] += 1
        calls: tuple[Call, ...] = ()
        if pays and b"receipt-%d" % number not in request.body:
            # Cut in the new part: a reply cut within the repetition would have no new words.
            words = words[: new - start + max(1, (count - new) // 2)]
            calls = (Call("pay", f'{{"number": {number}}}', f"call-{number}"),)
        return Answer(
            text=tuple(words), calls=calls, fault=fault, after=self._dice.randint(1, len(words) + 1)
        )


@dataclass
class _Heard:
    """The output of one turn, as its consumer received it."""

    words: list[str] = field(default_factory=list[str])
    over: bool = False
    early: bool = False

    def text(self, text: str) -> None:
        self.words.append(text)

    def chunk(self, chunk: ChatChunk) -> None:
        delta = chunk.delta
        if delta is None:
            return
        event = (delta.extra or {}).get("rejoinder", {}).get("event")
        if event == "restart":
            self.words.clear()
        elif event in ("nothing_to_add", "cut_after_tool_call"):
            self.early = True
        if delta.content:
            self.words.append(delta.content)

    def numbers(self) -> list[tuple[int, int]]:
        text = "".join(self.words)
        return [(int(turn), int(word)) for turn, word in _WORD.findall(text)]


@checked(servers=COUNT, turns=WHOLE, concurrency=COUNT, share=SHARE)
async def soak(
    make: Make,
    *,
    servers: int = 1,
    turns: int = 500,
    concurrency: int = 16,
    faults: Sequence[Fault] = tuple(Fault),
    share: float = 0.35,
    tools: bool = False,
    every_server: bool = False,
    conn_options: APIConnectOptions | None = None,
    seed: int = 0,
) -> SoakReport:
    """Make many random turns and account for every word.

    Args:
        make: makes the LLM from the URLs of the servers. Give it short time limits, because many
            faults are silences.
        servers: how many `SoakServer`s there are.
        turns: how many turns to make.
        concurrency: how many of them at a time.
        faults: the possible faults.
        share: share of the requests that fail.
        tools: let turns run a tool, by `run_turn`.
        every_server: a turn that fails without output must have asked every server.
        conn_options: for each call; by default the LLM's own.
        seed: the same seed makes the same faults and consumers, if not the same timing.
    """
    report = SoakReport()
    started = time.perf_counter()
    before = Holdings.now()
    async with AsyncExitStack() as stack:
        behind = [
            await stack.enter_async_context(
                SoakServer(random.Random(f"{seed} {index}"), faults, share)  # noqa: S311
            )
            for index in range(servers)
        ]
        for server in behind:
            server.serve_elsewhere()
        llm = make([server.url for server in behind])
        stack.push_async_callback(llm.aclose)
        run = Turns(llm, behind, report, tools, every_server, conn_options)
        await run.all(range(turns), concurrency, seed)
        for model in llm.llms if isinstance(llm, FallbackAdapter) else ():
            stack.push_async_callback(model.aclose)
    try:
        await settled(before)
    except LeakError as error:
        report.leaks = str(error).splitlines()[1:]
        report.found(report.leaks[0])
    report.seconds = time.perf_counter() - started
    return report


class CountsRequests(Protocol):
    """A server, here or in another process."""

    def count(self, number: int) -> tuple[int, int] | Awaitable[tuple[int, int]]:
        """See `SoakServer.count`."""
        ...


class Turns:
    """The turns of one soak; for the arguments see `soak`.

    Args:
        told: called after each turn.
    """

    def __init__(
        self,
        llm: LLM[Any],
        servers: Sequence[CountsRequests],
        report: SoakReport,
        tools: bool,
        every_server: bool,
        conn_options: APIConnectOptions | None,
        told: Callable[[], object] = lambda: None,
    ) -> None:
        self.llm = llm
        self.servers = servers
        self.report = report
        self.tools = tools
        self.every_server = every_server
        self.told = told
        self.how: dict[str, Any] = {} if conn_options is None else {"conn_options": conn_options}

    async def all(self, turns: range, concurrency: int, seed: int) -> None:
        """Make `turns`, and measure what they leave."""
        numbers = iter(turns)
        held: list[tuple[int, int, int]] = []
        every = max(50, len(turns) // 40)

        async def work() -> None:
            for number in numbers:
                await self.turn(number, random.Random(f"{seed} turn {number}"))  # noqa: S311
                self.told()
                if number % every == 0:
                    gc.collect()
                    held.append((number, _resident(), sys.getallocatedblocks()))

        await asyncio.gather(*(work() for _ in range(concurrency)))
        later = held[len(held) // 2 :]
        self.report.memory_slope = _slope([(number, size) for number, size, _ in later])
        self.report.objects_slope = _slope([(number, blocks) for number, _, blocks in later])

    async def turn(self, number: int, dice: random.Random) -> None:
        report = self.report
        count = dice.randint(1, 24)
        habit = dice.choice(HABITS)
        heard = _Heard()
        effects: Counter[str] = Counter()
        context = ChatContext.empty()
        context.add_message(
            role="user", content=f"turn-{number}-words-{count}{'-pay' if self.tools else ''}"
        )
        consume = (
            self._tool_turn(context, heard, effects, dice, habit)
            if self.tools
            else (self._plain_turn(context, heard, dice, habit))
        )
        error: BaseException | None = None
        try:
            async with asyncio.timeout(_PATIENCE):
                await _cancelled_at_random(consume, dice) if habit == "cancel" else await consume
        except (APIError, ConfigurationError) as caught:
            error = caught
            report.failed[type(caught).__name__] += 1
        except TimeoutError as caught:
            error = caught
            report.hung += 1
            report.found(f"turn {number} ({habit}) hung")
        except Exception as caught:
            error = caught
            report.untyped[type(caught).__name__] += 1
            report.found(f"turn {number} ({habit}): {type(caught).__name__}: {caught}")
        report.turns += 1
        counts: list[tuple[int, int]] = []
        for server in self.servers:
            found = server.count(number)
            counts.append(found if isinstance(found, tuple) else await found)
        self._judge(number, count, habit, heard, effects, error, counts)

    def _judge(
        self,
        number: int,
        count: int,
        habit: Habit,
        heard: _Heard,
        effects: Counter[str],
        error: BaseException | None,
        counts: Sequence[tuple[int, int]],
    ) -> None:
        report = self.report
        words = heard.numbers()
        own = [word for turn, word in words if turn == number]
        where = f"turn {number} ({habit}), {count} words"
        if len(own) != len(words):
            report.foreign += len(words) - len(own)
            report.found(f"{where}: foreign words {[w for w in words if w[0] != number][:5]}")
        twice = sum(later <= earlier for earlier, later in itertools.pairwise(own))
        if twice:
            report.doubled += twice
            report.found(f"{where}: in this order {own}")
        missing = sum(
            max(0, later - earlier - 1) for earlier, later in itertools.pairwise([-1, *own])
        )
        whole = heard.over and error is None
        asked = [asked for asked, _ in counts]
        empty = [empty for _, empty in counts]
        if whole and self.tools and any(empty):
            # After a tool output, and after a cut, an empty answer can be the end of the reply.
            heard.early = True
        if whole and not own and asked == empty:
            report.silent += 1
        elif whole and not heard.early:
            missing += count - 1 - (own[-1] if own else -1)
        if missing:
            report.lost += missing
            report.found(f"{where}: got {own}, {'whole' if whole else error!r}")
        report.whole += whole
        report.ended_early += heard.early
        report.left += not heard.over and error is None
        if any(runs > 1 for runs in effects.values()):
            report.repeated_effects += 1
            report.found(f"{where}: the tool ran {effects}")
        if self.tools and whole and not effects and not heard.early:
            report.missing_effects += 1
            report.found(f"{where}: the tool did not run")
        if self.every_server and isinstance(error, APIError) and not own and not all(asked):
            silent = [index for index, requests in enumerate(asked) if not requests]
            if all(self._tells_how_it_failed(error, index) for index in silent):
                # A connection can break, or time can be up, before a request is read.
                report.unheard += 1
            else:
                report.unasked += 1
                report.found(f"{where}: requests {asked}: {error}")

    def _tells_how_it_failed(self, error: APIError, index: int) -> bool:
        """Whether the error accounts for a request to the model of that server. One that it does
        not name counts as not asked."""
        if not isinstance(self.llm, FallbackAdapter):
            return False
        name = name_in_errors(self.llm.llms[index])
        message = str(error)
        return f"{name}: " in message and f"{name}: not asked" not in message

    async def _plain_turn(
        self, context: ChatContext, heard: _Heard, dice: random.Random, habit: Habit
    ) -> None:
        stream = self.llm.chat(chat_ctx=context, **self.how)
        await _consume(stream, heard, dice, habit)

    async def _tool_turn(
        self,
        context: ChatContext,
        heard: _Heard,
        effects: Counter[str],
        dice: random.Random,
        habit: Habit,
    ) -> None:
        from rejoinder.turn import Restarted, Text, run_turn

        @function_tool
        async def pay(number: int) -> str:
            """Pay."""
            effects[f"pay {number}"] += 1
            await asyncio.sleep(0)
            return f"receipt-{number}"

        async with run_turn(self.llm, context, tools=[pay], **self.how) as turn:
            async for event in turn:
                if isinstance(event, Text):
                    heard.text(event.text)
                elif isinstance(event, Restarted):
                    del heard.words[:]
                if habit in ("leave", "close") and dice.random() < 0.1:
                    return
                if habit == "slow":
                    await asyncio.sleep(dice.random() * 0.005)
        heard.over = True


async def _consume(stream: LLMStream, heard: _Heard, dice: random.Random, habit: Habit) -> None:
    match habit:
        case "collect":
            reply = await stream.collect()
            heard.text(reply.text)
            event = reply.extra.get("rejoinder", {}).get("event")
            heard.early = event in ("nothing_to_add", "cut_after_tool_call")
        case "text":
            async with stream:
                async for chunk in stream:
                    heard.chunk(chunk)
        case _:
            async with stream:
                async for chunk in stream:
                    heard.chunk(chunk)
                    if habit in ("leave", "close") and dice.random() < 0.1:
                        if habit == "close":
                            await stream.aclose()
                        return
                    if habit == "slow":
                        await asyncio.sleep(dice.random() * 0.005)
    heard.over = True


async def _cancelled_at_random(consume: Awaitable[None], dice: random.Random) -> None:
    """Cancel the consumer after a random number of turns of the loop, or a random time."""
    task = asyncio.ensure_future(consume)
    if dice.random() < 0.5:
        for _ in range(dice.randint(0, 60)):
            await asyncio.sleep(0)
    else:
        await asyncio.wait([task], timeout=dice.random() * 0.3)
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()


def _resident() -> int:
    """Bytes of resident memory; 0 if the system does not report it."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 0


def _slope(points: Sequence[tuple[int, int]]) -> float:
    """The slope of a line, by least squares."""
    if len(points) < 2:
        return 0.0
    x = sum(a for a, _ in points) / len(points)
    y = sum(b for _, b in points) / len(points)
    spread = sum((a - x) ** 2 for a, _ in points)
    return sum((a - x) * (b - y) for a, b in points) / spread if spread else 0.0


if __name__ == "__main__":
    from rejoinder.testing._soak_command import main

    sys.exit(main())
