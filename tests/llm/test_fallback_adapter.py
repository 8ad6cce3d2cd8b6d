"""FallbackAdapter: what the consumer sees, who is asked, and what is left behind."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rejoinder.errors import (
    APIConnectionError,
    APIError,
    APIStatusError,
    APITimeoutError,
    EmptyResponseError,
    RefusalError,
)
from rejoinder.llm import LLM, ChatChunk, ChatContext, ChoiceDelta, CompletionUsage, LLMStream
from rejoinder.llm.fallback_adapter import (
    AvailabilityChangedEvent,
    BreakerOptions,
    FallbackAdapter,
    Hedge,
    TurnBudget,
)
from rejoinder.llm.llm import FunctionToolCall
from rejoinder.metrics import LLMMetrics
from rejoinder.types import DEFAULT_API_CONNECT_OPTIONS, APIConnectOptions

Step = ChatChunk | Exception | float | str


class Model(LLM[Any]):
    """Plays one list of steps per call; the last list repeats. A number is a pause in seconds."""

    def __init__(self, name: str, *calls: list[Step], prefill: bool = False) -> None:
        super().__init__()
        self._label = name
        self.calls = calls
        self.asked: list[ChatContext] = []
        self.prefill = prefill

    @property
    def continues_prefill(self) -> bool:
        return self.prefill

    def chat(
        self,
        *,
        chat_ctx: ChatContext,
        tools: list[Any] | None = None,
        conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS,
        **_: Any,
    ) -> LLMStream:
        steps = self.calls[min(len(self.asked), len(self.calls) - 1)]
        self.asked.append(chat_ctx)
        return Stream(self, steps, chat_ctx=chat_ctx, tools=tools or [], conn_options=conn_options)


class Stream(LLMStream):
    def __init__(self, llm: Model, steps: list[Step], **rest: Any) -> None:
        self._steps = steps
        super().__init__(llm, **rest)

    async def _run(self) -> None:
        for step in self._steps:
            if isinstance(step, Exception):
                raise step
            if isinstance(step, float | int):
                await asyncio.sleep(step)
                continue
            chunk = step if isinstance(step, ChatChunk) else text(step)
            self._event_ch.send_nowait(chunk)


def text(content: str) -> ChatChunk:
    return ChatChunk(id="r", delta=ChoiceDelta(role="assistant", content=content))


def call(name: str) -> ChatChunk:
    tool_call = FunctionToolCall(name=name, arguments="{}", call_id="c")
    return ChatChunk(id="r", delta=ChoiceDelta(role="assistant", tool_calls=[tool_call]))


ROLE = ChatChunk(id="r", delta=ChoiceDelta(role="assistant", content=""))
USAGE = ChatChunk(
    id="r", usage=CompletionUsage(completion_tokens=2, prompt_tokens=10, total_tokens=12)
)
THINKING = ChatChunk(id="r", delta=ChoiceDelta(role="assistant", thinking="hm"))
DOWN = APIConnectionError("down")
FOREVER = 1e6


def question() -> ChatContext:
    context = ChatContext.empty()
    context.add_message(role="user", content="Hello?")
    return context


async def said(adapter: FallbackAdapter, **how: Any) -> tuple[list[str], Exception | None]:
    got: list[str] = []
    try:
        async with adapter.chat(chat_ctx=question(), **how) as stream:
            async for chunk in stream:
                if chunk.delta is not None and chunk.delta.content is not None:
                    got.append(chunk.delta.content)
    except Exception as error:
        return got, error
    return got, None


def listen(adapter: FallbackAdapter) -> tuple[list[tuple[str, bool]], list[LLMMetrics]]:
    events: list[tuple[str, bool]] = []
    metrics: list[LLMMetrics] = []

    @adapter.on("llm_availability_changed")
    def _(event: AvailabilityChangedEvent) -> None:
        events.append((event.llm.label, event.available))

    adapter.on("metrics_collected", metrics.append)
    return events, metrics


# -- as the reference ----------------------------------------------------------------------------


@pytest.mark.looptime
@pytest.mark.parametrize(
    ("first", "second", "options", "texts", "raised", "events", "asked"),
    [
        ([["a"]], [["b"]], {}, ["a"], None, [], (1, 0)),
        ([[DOWN]], [["b"]], {}, ["b"], None, [("A", False)], (1, 1)),
        (
            [[DOWN]],
            [[DOWN]],
            {},
            [],
            APIConnectionError,
            [("A", False), ("B", False)],
            (1, 1),
        ),
        ([["a", DOWN]], [["b"]], {}, ["a"], APIConnectionError, [("A", False)], (1, 0)),
        (
            [["a", DOWN]],
            [["b"]],
            {"retry_on_chunk_sent": True},
            ["a", "b"],
            None,
            [("A", False)],
            (1, 1),
        ),
        ([[ValueError("x")]], [["b"]], {}, ["b"], None, [("A", False)], (1, 1)),
        # What is different, and better.
        ([[]], [["b"]], {}, ["b"], None, [], (1, 1)),
        ([[]], [[]], {}, [], None, [], (1, 1)),
        ([[ROLE, USAGE, DOWN]], [["b"]], {}, ["b"], None, [("A", False)], (1, 1)),
        (
            [[APIStatusError("too long", status_code=400)]],
            [["b"]],
            {},
            ["b"],
            None,
            [],
            (1, 1),
        ),
        ([[RefusalError("no")]], [["b"]], {}, [], RefusalError, [], (1, 0)),
        (
            [[call("f"), DOWN]],
            [["b"]],
            {"retry_on_chunk_sent": True},
            [],
            APIConnectionError,
            [("A", False)],
            (1, 0),
        ),  # fmt: skip
    ],
)
async def test_one_turn(
    first: list[list[Step]],
    second: list[list[Step]],
    options: dict[str, Any],
    texts: list[str],
    raised: type[Exception] | None,
    events: list[tuple[str, bool]],
    asked: tuple[int, int],
) -> None:
    a, b = Model("A", *first), Model("B", *second)
    adapter = FallbackAdapter([a, b], **options)
    heard, _ = listen(adapter)
    got, error = await said(adapter)
    assert got == texts
    assert type(error) is (raised or type(None))
    assert heard == events
    assert (len(a.asked), len(b.asked)) == asked
    await adapter.aclose()
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.looptime
@pytest.mark.parametrize(
    "silence", [[FOREVER], [0.5, ROLE] * 100, [0.5, USAGE] * 100], ids=["nothing", "role", "usage"]
)
async def test_a_silent_model_is_replaced_in_time(silence: list[Step]) -> None:
    adapter = FallbackAdapter([Model("A", silence), Model("B", ["b"])], attempt_timeout=2.0)
    start = asyncio.get_running_loop().time()
    assert await said(adapter) == (["b"], None)
    assert asyncio.get_running_loop().time() - start == pytest.approx(2.0, abs=0.02)


@pytest.mark.looptime
async def test_all_reasons_are_in_the_final_error() -> None:
    adapter = FallbackAdapter(
        [
            Model("A", [FOREVER]),
            Model("B", [APIStatusError("overloaded", status_code=529)]),
            Model("C", []),
        ],
        attempt_timeout=1.0,
    )
    _, error = await said(adapter)
    assert isinstance(error, APIConnectionError)
    assert error.retryable
    for part in ("A: nothing was said within 1 s", "B: overloaded", "C: the model ended"):
        assert part in str(error)
    assert isinstance(error.__cause__, ExceptionGroup)
    assert [type(e) for e in error.__cause__.exceptions] == [
        APITimeoutError,
        APIStatusError,
        EmptyResponseError,
    ]


@pytest.mark.looptime
async def test_hedge_the_faster_one_is_heard_and_the_other_accounted_for() -> None:
    a, b = Model("A", [3.0, "late"]), Model("B", [0.2, "b", USAGE])
    adapter = FallbackAdapter([a, b], hedge=Hedge(delay=0.5))
    events, metrics = listen(adapter)
    start = asyncio.get_running_loop().time()
    assert await said(adapter) == (["b"], None)
    assert asyncio.get_running_loop().time() - start == pytest.approx(0.7, abs=0.02)
    assert events == []
    by_label = {m.label: m for m in metrics}
    assert by_label["B"].purpose == "reply"
    assert by_label["A"].purpose == "hedge"
    assert by_label["A"].estimated
    assert by_label["A"].prompt_tokens > 0


@pytest.mark.looptime
async def test_resume_continues_the_sentence() -> None:
    a = Model("A", ["The capital of ", "France is ", DOWN])
    b = Model("B", ["Par", "is."], prefill=True)
    adapter = FallbackAdapter([a, b], on_cut="resume")
    got, error = await said(adapter)
    assert error is None
    assert "".join(got) == "The capital of France is Paris."
    assert b.asked[0].items[-1].text_content == "The capital of France is"


@pytest.mark.looptime
async def test_restart_says_so() -> None:
    a, b = Model("A", ["wrong ", DOWN]), Model("B", ["right"])
    adapter = FallbackAdapter([a, b], on_cut="restart")
    events = []
    async with adapter.chat(chat_ctx=question()) as stream:
        got = ""
        async for chunk in stream:
            if chunk.delta is None:
                continue
            extra = (chunk.delta.extra or {}).get("rejoinder")
            if extra:
                events.append(extra["event"])
                assert extra["discard"] == got
                got = ""
            got += chunk.delta.content or ""
    assert got == "right"
    assert events == ["restart"]


@pytest.mark.looptime
async def test_a_model_that_rested_is_probed_and_comes_back() -> None:
    a, b = Model("A", [DOWN], ["ok"], ["a"]), Model("B", ["b"])
    adapter = FallbackAdapter([a, b], breaker=BreakerOptions(cooldown=0.0, jitter=0.0))
    events, metrics = listen(adapter)
    assert await said(adapter) == (["b"], None)
    assert await said(adapter) == (["b"], None)
    await asyncio.sleep(0.1)
    assert events == [("A", False), ("A", True)]
    assert await said(adapter) == (["a"], None)
    assert [m.purpose for m in metrics if m.label == "A"] == ["probe", "reply"]


def test_no_models() -> None:
    with pytest.raises(ValueError, match="at least one LLM"):
        FallbackAdapter([])
    with pytest.raises(ValueError, match="cannot be met"):
        TurnBudget(first_token_by=5, done_by=2)


@pytest.mark.looptime
async def test_adapter_retries_whole_rounds_when_asked() -> None:
    a = Model("A", [APIError("x")], ["a"])
    adapter = FallbackAdapter([a])
    options = APIConnectOptions(max_retry=1, retry_interval=0)
    assert await said(adapter, conn_options=options) == (["a"], None)
