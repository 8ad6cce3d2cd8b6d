"""The soak: clean over what is good, and sharp enough to find what is not."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable
from typing import Any

import pytest

from rejoinder.errors import APIConnectionError
from rejoinder.llm import LLM, ChatChunk, ChatContext, ChoiceDelta, FallbackAdapter, LLMStream
from rejoinder.llm._fallback_stream import name_in_errors
from rejoinder.providers import openai
from rejoinder.testing._soak_command import main, soak_processes
from rejoinder.testing.faults import Answer, Fault, FaultServer
from rejoinder.testing.soak import SoakReport, soak
from rejoinder.types import APIConnectOptions

# The first model of a process is made in a coroutine here, and imports what replies need.
pytestmark = [pytest.mark.may_block, pytest.mark.looptime]

QUICK = APIConnectOptions(max_retry=1, retry_interval=0.01, timeout=0.3)


def client(urls: Any) -> LLM[Any]:
    return openai.LLM(model="m", api_key="k", base_url=f"{urls[0]}/v1")


async def test_a_client_is_clean_under_every_fault() -> None:
    report = await soak(client, turns=150, share=0.6, conn_options=QUICK)
    assert report.clean, str(report)
    assert report.turns == 150
    assert report.whole > 30
    assert report.left > 10
    assert sum(report.failed.values()) > 20


@pytest.mark.parametrize("tools", [False, True])
async def test_a_fallback_is_clean_under_every_fault(tools: bool) -> None:
    def fallback(urls: Any) -> LLM[Any]:
        models = [openai.LLM(model="m", api_key="k", base_url=f"{url}/v1") for url in urls]
        return FallbackAdapter(models, attempt_timeout=0.3, on_cut="resume")  # type: ignore[arg-type]

    report = await soak(
        fallback, servers=2, turns=80, tools=tools, every_server=not tools, conn_options=QUICK
    )
    assert report.clean, str(report)
    assert report.whole > 30


class Spoiling(LLM[Any]):
    """A client that does to its replies what a bug might do."""

    def __init__(self, inner: LLM[Any], spoil: Callable[[list[str]], list[str]]) -> None:
        super().__init__()
        self.inner = inner
        self.spoil = spoil

    def chat(self, *, chat_ctx: ChatContext, conn_options: Any = QUICK, **rest: Any) -> LLMStream:
        return SpoilingStream(
            self, chat_ctx=chat_ctx, tools=[], conn_options=APIConnectOptions(max_retry=0)
        )

    async def aclose(self) -> None:
        await super().aclose()
        await self.inner.aclose()


class SpoilingStream(LLMStream):
    async def _run(self) -> None:
        llm = self._llm
        assert isinstance(llm, Spoiling)
        reply = await llm.inner.chat(chat_ctx=self._chat_ctx, conn_options=QUICK).collect()
        for word in llm.spoil(reply.text.split()):
            delta = ChoiceDelta(role="assistant", content=word + " ")
            self._event_ch.send_nowait(ChatChunk(id="r", delta=delta))


def raises(words: list[str]) -> list[str]:
    raise LookupError(words)


kept: list[str] = ["t5w0"]


def mixes(words: list[str]) -> list[str]:
    foreign, kept[0] = kept[0], words[0]
    return [foreign, *words]


@pytest.mark.parametrize(
    ("spoil", "finds"),
    [
        (lambda words: words, None),
        (lambda words: words[:-1] or ["x"], "lost"),
        (lambda words: words[1:] or ["x"], "lost"),
        (lambda words: [*words[:1], *words], "doubled"),
        (lambda words: [words[-1], *words[:-1]], "doubled"),
        (mixes, "foreign"),
        (raises, "untyped"),
    ],
    ids=["good", "end lost", "start lost", "doubled", "order", "foreign", "untyped"],
)
async def test_what_is_wrong_is_found(
    spoil: Callable[[list[str]], list[str]], finds: str | None
) -> None:
    report = await soak(lambda urls: Spoiling(client(urls), spoil), turns=40, share=0)
    assert report.clean is (finds is None), str(report)
    if finds is not None:
        assert getattr(report, finds), str(report)
        assert report.examples


async def test_what_is_left_behind_is_found() -> None:
    left: list[asyncio.Task[None]] = []

    def leaky(words: list[str]) -> list[str]:
        if not left:
            left.append(asyncio.create_task(asyncio.sleep(1000), name="forgotten"))
        return words

    report = await soak(lambda urls: Spoiling(client(urls), leaky), turns=10, share=0)
    assert not report.clean
    assert "forgotten" in report.leaks[0]
    left[0].cancel()


async def test_a_turn_that_fails_before_all_were_asked_is_found() -> None:
    report = await soak(
        client, servers=2, turns=30, share=1.0, faults=[Fault.STATUS_503], every_server=True,
        conn_options=QUICK,
    )  # fmt: skip
    assert report.unasked > 0
    assert "requests [" in report.examples[0]


@pytest.mark.parametrize(
    ("told", "unasked"),
    [
        ("all LLMs failed ({a}: cannot connect; {b}: cannot connect)", False),
        ("all LLMs failed ({a}: cannot connect; {b}: not asked, it has rested)", True),
        ("all LLMs failed ({a}: cannot connect)", True),
        ("the request is too long", True),
    ],
)
async def test_a_model_counts_as_asked_if_the_error_tells_how_it_failed(
    told: str, unasked: bool
) -> None:
    class Failing(FallbackAdapter):
        def chat(self, **how: Any) -> LLMStream:
            a, b = map(name_in_errors, self.llms)
            raise APIConnectionError(told.format(a=a, b=b))

    def fallback(urls: Any) -> LLM[Any]:
        urls = [f"{url}/v1" for url in urls]
        return Failing(
            [openai.LLM(model=n, api_key="k", base_url=u) for n, u in zip("ab", urls, strict=True)]
        )

    report = await soak(fallback, servers=2, turns=1, every_server=True)
    assert (report.unasked, report.unheard) == ((1, 0) if unasked else (0, 1))


def test_the_command_runs_all_kinds(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("rejoinder")
    try:
        assert main(["--turns", "12", "--seed", "3", "--processes", "2", "--kills", "1"]) == 0
    finally:
        logger.setLevel(logging.NOTSET)
    printed = capsys.readouterr().out
    for kind in ("plain openai", "plain aws", "fallback", "tools", "processes"):
        assert f"-- {kind}\n" in printed


def test_it_runs_on_another_loop(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("uvloop", reason="the extra `fast` is not installed")
    logger = logging.getLogger("rejoinder")
    how = ["--turns", "40", "--kind", "fallback", "--loop", "uvloop"]
    if sys.version_info >= (3, 12):
        how.append("--eager")
    try:
        assert main(how) == 0
    finally:
        logger.setLevel(logging.NOTSET)


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="this Python has eager tasks")
def test_an_old_python_has_no_eager_tasks(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--eager"])
    assert "Python 3.12 or newer" in capsys.readouterr().err


@pytest.mark.slow
async def test_processes_that_are_killed_lose_nothing_of_the_others() -> None:
    report = await soak_processes(processes=2, turns=60, kills=2)
    assert report.clean, str(report)
    assert report.turns >= 60
    assert report.killed == 2
    assert "processes killed: 2" in str(report)


def test_a_report_tells_all() -> None:
    report = SoakReport(turns=5, lost=2)
    report.found("turn 1: got [0, 2]")
    assert "lost 2" in str(report)
    assert "turn 1: got [0, 2]" in str(report)


async def test_a_server_lets_a_function_choose_the_answer() -> None:
    def choose(request: Any) -> Answer:
        return Answer(text=request.json()["messages"][-1]["content"].upper())

    async with FaultServer(default=choose) as server:
        llm = client([server.url])
        context = ChatContext.empty()
        context.add_message(role="user", content="hello")
        assert (await llm.chat(chat_ctx=context).collect()).text == "HELLO"
        server.script(Answer(text="first"))
        assert (await llm.chat(chat_ctx=context).collect()).text == "first"
        server.always(lambda request: Answer(text="always"))
        assert (await llm.chat(chat_ctx=context).collect()).text == "always"
        await llm.aclose()
