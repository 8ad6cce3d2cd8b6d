"""Any attempt, read in any way: what `LLMStream` promises holds for all of them."""

from __future__ import annotations

import asyncio
from typing import Any

import looptime
from hypothesis import event, given
from hypothesis import strategies as st

from rejoinder.errors import APIConnectionError, APIError, APIStatusError, APITimeoutError
from rejoinder.llm import LLM, ChatChunk, ChatContext, ChoiceDelta, LLMError, LLMStream
from rejoinder.llm.llm import CompletionUsage, FunctionToolCall
from rejoinder.metrics import LLMMetrics
from rejoinder.types import APIConnectOptions

TIMEOUT = 5.0
STUBBORN = 1.0
"""Seconds that an attempt may take to end after its limit, or after it was closed."""

Step = tuple[Any, ...]

moments = st.sampled_from([0.0, 0.001, 1.0, 3.0, 4.999, 5.0, 5.001, 8.0])
said = st.sampled_from([("text",), ("text",), ("call",)])
unsaid = st.sampled_from([("thinking",), ("progress",), ("role",), ("usage",), ("blank",)])
endings = st.one_of(
    st.sampled_from(
        [
            ("end",),
            ("end",),
            ("hang",),
            ("swallow",),
            ("dress up",),
            ("raise", lambda: APIConnectionError("reset")),
            ("raise", lambda: ValueError("a bug")),
            ("close channel",),
        ]
    ),
    st.builds(
        lambda status, pause: ("raise", lambda: status_error(status, pause)),
        st.sampled_from([400, 429, 503]),
        st.sampled_from([None, 0.0, 2.0, 60.0]),
    ),
)
attempts = st.builds(
    lambda steps, ending: [*steps, ending],
    st.lists(st.one_of(st.tuples(st.just("wait"), moments), unsaid, said), max_size=6),
    endings,
)
readings = st.lists(
    st.one_of(
        st.just(("read",)),
        st.tuples(st.just("read for"), moments),
        st.tuples(st.just("pause"), moments),
        st.just(("close",)),
        st.just(("cancel a closing",)),
    ),
    max_size=5,
)


def status_error(status: int, pause: float | None) -> APIError:
    error = APIStatusError("no", status_code=status)
    error.retry_after = pause
    return error


class Model(LLM[Any]):
    def __init__(self, scripts: list[list[Step]]) -> None:
        super().__init__()
        self.scripts = scripts
        self.runs: list[Run] = []
        self.metrics: list[LLMMetrics] = []
        self.errors: list[LLMError] = []
        self.on("metrics_collected", self.metrics.append)
        self.on("error", self.errors.append)

    def chat(
        self, *, chat_ctx: ChatContext, conn_options: APIConnectOptions, **_: Any
    ) -> LLMStream:
        return Stream(self, chat_ctx=chat_ctx, tools=[], conn_options=conn_options)


class Run:
    """What an attempt has done."""

    def __init__(self, number: int, now: float) -> None:
        self.number = number
        self.sent: list[str] = []
        self.chunks = 0
        self.progress = now
        self.longest = 0.0
        self.ended = now

    def progressed(self, now: float) -> None:
        self.longest = max(self.longest, now - self.progress)
        self.progress = now


class Stream(LLMStream):
    async def _run(self) -> None:
        model = self._llm
        assert isinstance(model, Model)
        loop = asyncio.get_running_loop()
        run = Run(len(model.runs), loop.time())
        script = model.scripts[min(run.number, len(model.scripts) - 1)]
        model.runs.append(run)
        try:
            for step in script:
                await self.step(run, step)
        finally:
            run.ended = loop.time()

    async def step(self, run: Run, step: Step) -> None:
        loop = asyncio.get_running_loop()
        name = f"{run.number}.{len(run.sent)}"
        match step:
            case ("wait", seconds):
                await asyncio.sleep(seconds)
            case ("text",):
                self.send(run, ChoiceDelta(content=name), name)
            case ("call",):
                call = FunctionToolCall(name="pay", arguments="{}", call_id=name)
                self.send(run, ChoiceDelta(tool_calls=[call]), name)
            case ("thinking",):
                self.send(run, ChoiceDelta(thinking="hm"))
                run.progressed(loop.time())
            case ("progress",):
                self._progressed()
                run.progressed(loop.time())
            case ("role",):
                self.send(run, ChoiceDelta(role="assistant"))
            case ("blank",):
                self.send(run, ChoiceDelta(content=""))
            case ("usage",):
                usage = CompletionUsage(completion_tokens=1, prompt_tokens=1, total_tokens=2)
                self.send(run, None, usage=usage)
            case ("hang",):
                await asyncio.sleep(1e6)
            case ("swallow",):
                try:
                    await asyncio.sleep(1e6)
                except asyncio.CancelledError:
                    await asyncio.sleep(1e6)
            case ("dress up",):
                try:
                    await asyncio.sleep(1e6)
                except asyncio.CancelledError:
                    raise APIConnectionError("lost") from None
            case ("raise", make):
                raise make()
            case ("close channel",):
                self._event_ch.close()
            case _:
                pass

    def send(self, run: Run, delta: ChoiceDelta | None, name: str = "", **fields: Any) -> None:
        self._event_ch.send_nowait(ChatChunk(id=f"run{run.number}", delta=delta, **fields))
        run.chunks += 1
        if name:
            run.sent.append(name)
            run.progressed(asyncio.get_running_loop().time())


@given(
    scripts=st.lists(attempts, min_size=1, max_size=3),
    reading=readings,
    max_retry=st.integers(0, 2),
    total=st.sampled_from([None, None, 0.0, 7.0]),
)
def test_any_course_of_a_reply(
    scripts: list[list[Step]], reading: list[Step], max_retry: int, total: float | None
) -> None:
    options = APIConnectOptions(max_retry=max_retry, timeout=TIMEOUT, total=total)
    loop = looptime.new_event_loop()
    try:
        loop.run_until_complete(course(scripts, reading, options))
    finally:
        loop.close()


async def course(
    scripts: list[list[Step]], reading: list[Step], options: APIConnectOptions
) -> None:
    loop = asyncio.get_running_loop()
    started = loop.time()
    model = Model(scripts)
    stream = model.chat(chat_ctx=ChatContext.empty(), conn_options=options)
    heard: list[str] = []
    error: Exception | None = None
    closed = False
    idle = 0.0

    async def read() -> None:
        delta = (await anext(stream)).delta
        if delta is not None:
            heard.extend([delta.content] if delta.content else [])
            heard.extend(call.call_id for call in delta.tool_calls)

    try:
        for step in reading:
            match step:
                case ("read",):
                    await read()
                case ("read for", seconds):
                    try:
                        await asyncio.wait_for(read(), seconds)
                    except TimeoutError:
                        idle += seconds
                case ("pause", seconds):
                    idle += seconds
                    await asyncio.sleep(seconds)
                case ("close",):
                    await timed(stream.aclose())
                    closed = True
                case _:
                    closing = asyncio.ensure_future(stream.aclose())
                    await asyncio.sleep(0)
                    closing.cancel()
                    closed = True
        while True:
            await read()
    except StopAsyncIteration:
        pass
    except Exception as caught:
        error = caught
    took = loop.time() - started
    await timed(stream.aclose())
    assert asyncio.all_tasks() == {asyncio.current_task()}

    runs = model.runs
    event(f"attempts: {len(runs)}, closed: {closed}, raised: {type(error).__name__}")
    sent = runs[-1].sent if runs else []
    assert len(runs) <= options.max_retry + 1
    assert all(not run.sent for run in runs[:-1]), "tried again after something was said"
    assert heard == sent, "nothing is lost and nothing said twice"

    assert all(event.recoverable for event in model.errors[:-1])
    if error is not None:
        assert not model.errors[-1].recoverable
    elif not closed:
        assert all(event.recoverable for event in model.errors)
        assert len(model.errors) == len(runs) - 1

    assert len(model.metrics) <= 1
    if sent:
        (metrics,) = model.metrics
        assert metrics.request_id == f"run{runs[-1].number}"
        if error is not None or not closed:
            assert not metrics.cancelled
        assert metrics.ttft >= 0

    for run in runs:
        run.progressed(run.ended)
        assert run.longest <= TIMEOUT + STUBBORN + 0.1, "it may not be silent for longer"
    if isinstance(error, APITimeoutError) and "output" in str(error):
        assert runs[-1].longest >= TIMEOUT
    if options.total is not None:
        assert took <= options.total + idle + STUBBORN + 0.1


async def timed(closing: Any) -> None:
    loop = asyncio.get_running_loop()
    started = loop.time()
    await closing
    assert loop.time() - started <= 1.01
