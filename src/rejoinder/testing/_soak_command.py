"""``python -m rejoinder.testing.soak``: runs soaks of each kind, on a chosen loop, in several processes."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import random
import signal
import sys
import tempfile
import time
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from importlib import import_module
from typing import Any, Final, Literal, TypeAlias

from rejoinder.errors import ConfigurationError
from rejoinder.llm.chat_context import ChatContext
from rejoinder.llm.fallback_adapter import BreakerOptions, FallbackAdapter, Hedge, TurnBudget
from rejoinder.llm.llm import LLM
from rejoinder.testing.faults import Fault
from rejoinder.testing.leaks import Holdings, LeakError, settled
from rejoinder.testing.soak import Make, SoakReport, SoakServer, Turns, soak
from rejoinder.types import APIConnectOptions

__all__ = ["main", "soak_processes"]

LoopName: TypeAlias = Literal["asyncio", "uvloop"]

_QUICK: Final = APIConnectOptions(max_retry=1, retry_interval=0.01, timeout=0.3)


def _openai(url: str) -> LLM[Any]:
    from rejoinder.providers import openai

    return openai.LLM(model="m", api_key="k", base_url=f"{url}/v1")


def _responses(url: str) -> LLM[Any]:
    from rejoinder.providers import openai

    return openai.LLM(model="m", api_key="k", base_url=f"{url}/v1", api="responses")


def _anthropic(url: str) -> LLM[Any]:
    from rejoinder.providers import anthropic

    return anthropic.LLM(model="claude-sonnet-4-5", api_key="k", base_url=url)


def _google(url: str) -> LLM[Any]:
    from rejoinder.providers import google

    return google.LLM(model="m", api_key="k", base_url=url)


def _mistral(url: str) -> LLM[Any]:
    from rejoinder.providers import mistralai

    return mistralai.LLM(model="m", api_key="k", base_url=f"{url}/v1")


def _aws(url: str) -> LLM[Any]:
    from rejoinder.providers import aws

    return aws.LLM(model="m", api_key="k", api_secret="s", base_url=url)  # noqa: S106  no secret


_KINDS: Final[Sequence[Callable[[str], LLM[Any]]]] = (
    _openai,
    _anthropic,
    _google,
    _responses,
    _mistral,
    _aws,
)


def _fallback(urls: Sequence[str], *, shared_state: str | None = None) -> LLM[Any]:
    return FallbackAdapter(
        [_KINDS[index % len(_KINDS)](url) for index, url in enumerate(urls)],
        attempt_timeout=0.3,
        budget=TurnBudget(next_token_within=0.3),
        hedge=Hedge(delay=0.15, max_share=0.3),
        on_cut="resume",
        breaker=BreakerOptions(cooldown=0.2, max_cooldown=2.0, probe_timeout=0.5),
        shared_state=shared_state,
    )


def _only(kind: Callable[[str], LLM[Any]], urls: Sequence[str]) -> LLM[Any]:
    return kind(urls[0])


# -- several processes ----------------------------------------------------------------------------

_AT_ONCE: Final = 8
"""Number of concurrent turns in a process."""


class _FarServer:
    """A `SoakServer` in another process."""

    def __init__(self, url: str) -> None:
        self._llm = _openai(url)

    async def count(self, number: int) -> tuple[int, int]:
        context = ChatContext.empty()
        context.add_message(role="user", content=f"count-the-requests-of-{number}")
        options = APIConnectOptions(max_retry=5, timeout=30)
        reply = await self._llm.chat(chat_ctx=context, conn_options=options).collect()
        asked, empty = map(int, reply.text.split())
        return asked, empty

    async def aclose(self) -> None:
        await self._llm.aclose()


async def _work(job: dict[str, Any]) -> None:
    """Run the turns of one process. Prints its report after each turn, as a line of JSON."""
    report = SoakReport()

    def tell() -> None:
        sys.stdout.write(json.dumps(vars(report)) + "\n")
        sys.stdout.flush()

    before = Holdings.now()
    servers = [_FarServer(url) for url in job["urls"]]
    async with _fallback(job["urls"], shared_state=job["shared_state"]) as llm:
        turns = Turns(llm, servers, report, False, True, None, tell)
        await turns.all(range(job["first"], job["last"]), _AT_ONCE, job["seed"])
        for model in llm.llms if isinstance(llm, FallbackAdapter) else ():
            await model.aclose()
    for server in servers:
        await server.aclose()
    try:
        await settled(before)
    except LeakError as error:
        report.leaks = str(error).splitlines()[1:]
    tell()


async def soak_processes(
    *,
    processes: int = 4,
    turns: int = 1000,
    kills: int = 8,
    seed: int = 0,
    loop: LoopName = "asyncio",
    eager: bool = False,
) -> SoakReport:
    """Soak a `FallbackAdapter` in several processes that share the state of the models in a file. Kill
    some of them (SIGKILL) while they work; each is replaced by another.

    Args:
        processes: number of concurrent processes.
        turns: number of turns of all processes. Unfinished turns of a killed process do not count.
        kills: number of processes to kill.
        seed: the same seed makes the same faults and consumers, if not the same timing.
        loop, eager: options of the processes; see ``--help``.
    """
    report = SoakReport()
    dice = random.Random(seed)  # noqa: S311
    began = time.perf_counter()
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        servers = [
            await stack.enter_async_context(
                SoakServer(random.Random(f"{seed} {index}"), tuple(Fault), 0.35)  # noqa: S311
            )
            for index in range(3)
        ]
        for server in servers:
            server.serve_elsewhere()
        job = {
            "urls": [server.url for server in servers],
            "shared_state": os.path.join(folder, "health"),
            "seed": seed,
            "loop": loop,
            "eager": eager,
        }
        crew = _Crew(job, report, turns)
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(processes):
                    group.create_task(crew.member())
                for number in range(kills):
                    # Spread over the first nine tenths, so that a process to kill still exists.
                    await crew.until((number + dice.random()) * turns * 0.9 / max(1, kills))
                    await crew.kill_one(dice)
        finally:
            crew.kill_all()
    report.seconds = time.perf_counter() - began
    return report


class _Crew:
    """The processes, and their reports."""

    def __init__(self, job: dict[str, Any], report: SoakReport, turns: int) -> None:
        self._job = job
        self._report = report
        self._wanted = turns
        self._given = 0
        self._running: dict[Process, SoakReport] = {}
        self._changed = asyncio.Event()

    @property
    def _made(self) -> int:
        return self._report.turns + sum(found.turns for found in self._running.values())

    async def until(self, turns: float) -> None:
        """Wait until this many turns are done."""
        while self._made < turns:
            self._changed.clear()
            await self._changed.wait()

    async def kill_one(self, dice: random.Random) -> None:
        while not self._running:
            self._changed.clear()
            await self._changed.wait()
        process = dice.choice(list(self._running))
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGKILL)
            self._report.killed += 1

    def kill_all(self) -> None:
        for process in self._running:
            with contextlib.suppress(ProcessLookupError):
                process.kill()

    async def member(self) -> None:
        """Run one process after another while turns remain."""
        while (missing := self._wanted - self._given) > 0:
            size = min(missing, max(_AT_ONCE, self._wanted // 16))
            self._given += size
            # New numbers: those of a killed process are not reused.
            first = self._given * 1000
            made = await self._run({**self._job, "first": first, "last": first + size})
            self._given -= size - made

    async def _run(self, job: dict[str, Any]) -> int:
        """Run one process. Returns the number of its turns."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "rejoinder.testing._soak_command", json.dumps(job)), stdout=PIPE
        )
        found = SoakReport()
        self._running[process] = found
        try:
            if process.stdout is None:
                raise ConfigurationError("the process has no output")
            async for line in process.stdout:
                if line.endswith(b"\n"):  # the last one of a killed process may be half a line
                    found = self._running[process] = _report_from(json.loads(line))
                    self._changed.set()
            code = await process.wait()
        finally:
            del self._running[process]
        self._report.add(found)
        self._changed.set()
        if code not in (0, -signal.SIGKILL):
            raise RuntimeError(f"a process ended with code {code}; see its output above")
        return found.turns


def _report_from(data: dict[str, Any]) -> SoakReport:
    report = SoakReport()
    vars(report).update(data)
    report.failed, report.untyped = Counter(report.failed), Counter(report.untyped)
    return report


# -- loops ----------------------------------------------------------------------------------------


def _loop_factory(loop: LoopName, eager: bool) -> Callable[[], asyncio.AbstractEventLoop]:
    """Makes the loops of `loop`.

    Raises:
        ConfigurationError: this Python does not have it.
    """
    if loop == "uvloop":
        try:
            new_loop: Callable[[], asyncio.AbstractEventLoop] = import_module(
                "uvloop"
            ).new_event_loop
        except ImportError as error:
            raise ConfigurationError(
                "uvloop is not installed: pip install 'rejoinder[fast]'"
            ) from error
    else:
        new_loop = asyncio.new_event_loop
    if not eager:
        return new_loop
    if sys.version_info < (3, 12):
        raise ConfigurationError("eager tasks need Python 3.12 or newer")

    def eagerly(
        loop: asyncio.AbstractEventLoop, coro: Any, *, eager_start: bool = True, **options: Any
    ) -> asyncio.Task[Any]:
        # uvloop passes `eager_start` to every factory; Python before 3.13.3 does not know it.
        return asyncio.eager_task_factory(loop, coro, **options)

    def eager_loop() -> asyncio.AbstractEventLoop:
        made = new_loop()
        made.set_task_factory(eagerly)  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownArgumentType]  newer than the oldest Python
        return made

    return eager_loop


# -- the command ----------------------------------------------------------------------------------

_FULL: Final = {"plain": 20_000, "fallback": 12_000, "tools": 6_000, "processes": 4_000}
"""Number of turns of each kind before a release."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the soaks, print their findings, and return 1 if there were any."""
    parser = argparse.ArgumentParser(
        prog="python -m rejoinder.testing.soak", description="Random faults and consumers."
    )
    parser.add_argument("--turns", type=int, help="turns of each kind (default: 1000)")
    parser.add_argument(
        "--full",
        action="store_true",
        help="as before a release: "
        + ", ".join(f"{count} {kind}" for kind, count in _FULL.items()),
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument(
        "--kind", choices=("plain", "fallback", "tools", "processes", "all"), default="all"
    )
    parser.add_argument(
        "--processes", type=int, default=4, help="concurrent processes, for `processes`"
    )
    parser.add_argument("--kills", type=int, default=8, help="processes to kill, by SIGKILL")
    parser.add_argument("--loop", choices=("asyncio", "uvloop"), default="asyncio")
    parser.add_argument("--eager", action="store_true", help="eager tasks, from Python 3.12 on")
    options = parser.parse_args(arguments)
    try:
        factory = _loop_factory(options.loop, options.eager)
    except ConfigurationError as error:
        parser.error(str(error))
    logging.getLogger("rejoinder").setLevel(logging.CRITICAL)
    runs: list[tuple[str, Make, dict[str, Any]]] = []
    counts = {
        kind: options.turns or (full if options.full else 1000) for kind, full in _FULL.items()
    }
    if options.kind in ("plain", "all"):
        turns = -(-counts["plain"] // len(_KINDS))
        runs += [
            (
                f"plain {kind.__name__[1:]}",
                partial(_only, kind),
                {"turns": turns, "conn_options": _QUICK},
            )
            for kind in _KINDS
        ]
    if options.kind in ("fallback", "all"):
        how = {"servers": 3, "every_server": True, "turns": counts["fallback"]}
        runs.append(("fallback", _fallback, how))
    if options.kind in ("tools", "all"):
        how = {"servers": 3, "tools": True, "turns": counts["tools"]}
        runs.append(("tools", _fallback, how))
    clean = True
    with asyncio.Runner(loop_factory=factory) as runner:
        for name, make, how in runs:
            common = {name: getattr(options, name) for name in ("concurrency", "seed")}
            clean = _show(name, runner.run(soak(make, **common | how))) and clean
    if options.kind in ("processes", "all"):
        names = ("processes", "kills", "seed", "loop", "eager")
        how = {name: getattr(options, name) for name in names}
        how["turns"] = counts["processes"]
        clean = _show("processes", asyncio.run(soak_processes(**how))) and clean
    return 0 if clean else 1


def _show(name: str, report: SoakReport) -> bool:
    sys.stdout.write(f"-- {name}\n{report}\n")
    sys.stdout.flush()
    return report.clean


if __name__ == "__main__":
    _job = json.loads(sys.argv[1])
    logging.getLogger("rejoinder").setLevel(logging.CRITICAL)
    with asyncio.Runner(loop_factory=_loop_factory(_job["loop"], _job["eager"])) as _runner:
        _runner.run(_work(_job))
