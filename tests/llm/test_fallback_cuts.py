"""Replies of real providers, cut anywhere: what is heard is whole, and nothing of it twice.

The recorded bytes go through the real decoders and the real adapter; only the socket is replaced,
by a transport that breaks off after so many bytes.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any, Self

import pytest
from hypothesis import settings

from recorded.corpus import Exchange, exchanges, groups, required_root
from rejoinder.errors import APIConnectionError, APIError, RefusalError
from rejoinder.llm import LLM, ChatChunk, ChatContext, ChoiceDelta, FallbackAdapter, LLMStream
from rejoinder.llm.llm import FunctionToolCall
from rejoinder.providers import anthropic, aws, google, mistralai, openai
from rejoinder.transport.http import Request
from rejoinder.types import DEFAULT_API_CONNECT_OPTIONS, APIConnectOptions

pytestmark = [
    pytest.mark.slow,
    pytest.mark.looptime,  # no deadline passes while a busy machine decodes
]

URL = "http://127.0.0.1:9"
APIS: dict[str, Callable[..., LLM[Any]]] = {
    "openai/chat-completions": partial(openai.LLM, api_key="k", base_url=f"{URL}/v1"),
    "openai/responses": partial(openai.LLM, api_key="k", base_url=f"{URL}/v1", api="responses"),
    "anthropic/messages": partial(anthropic.LLM, api_key="k", base_url=URL),
    "google/generate-content": partial(google.LLM, api_key="k", base_url=URL),
    "bedrock/converse": partial(aws.LLM, api_key="k", api_secret="s", base_url=URL),
    "mistral/chat-completions": partial(mistralai.LLM, api_key="k", base_url=f"{URL}/v1"),
}


class CutTransport:
    """Answers with the first `cut` bytes of a recorded body, then the connection is gone."""

    def __init__(self, exchange: Exchange, cut: int) -> None:
        self._exchange = exchange
        self._cut = cut

    async def send(self, request: Request) -> CutResponse:
        return CutResponse(self._exchange, self._cut)

    async def prewarm(self, url: str, *, timeout: float = 10.0) -> None: ...

    async def aclose(self) -> None: ...


class CutResponse:
    def __init__(self, exchange: Exchange, cut: int) -> None:
        self.status = exchange.status
        self.headers: Mapping[str, str] = exchange.headers
        self._whole = cut >= len(exchange.body)
        self._left = exchange.body[:cut]

    async def read_some(self) -> bytes:
        data, self._left = self._left[:997], self._left[997:]
        if not data and not self._whole:
            raise APIConnectionError("the connection closed before the body was complete")
        return data

    async def read_all(self, limit: int = 1 << 20) -> bytes:
        return self._left[:limit]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None: ...


class Continuing(LLM[Any]):
    """Knows the whole reply, and continues it right after what it finds said already."""

    def __init__(self, text: str, calls: list[FunctionToolCall]) -> None:
        super().__init__()
        self.text = text
        self.calls = calls

    @property
    def continues_prefill(self) -> bool:
        return True

    def chat(
        self,
        *,
        chat_ctx: ChatContext,
        tools: list[Any] | None = None,
        conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS,
        **_: Any,
    ) -> LLMStream:
        return ContinuingStream(
            self, chat_ctx=chat_ctx, tools=tools or [], conn_options=conn_options
        )


class ContinuingStream(LLMStream):
    async def _run(self) -> None:
        llm = self._llm
        assert isinstance(llm, Continuing)
        last = self._chat_ctx.items[-1]
        assert last.type == "message"
        said = (last.text_content or "") if last.role == "assistant" else ""
        assert llm.text.startswith(said)
        rest = llm.text[len(said) :]
        for start in range(0, len(rest), 5):
            self.say(content=rest[start : start + 5])
        for call in llm.calls:
            self.say(tool_calls=[call])

    def say(self, **delta: Any) -> None:
        chunk = ChatChunk(id="second", delta=ChoiceDelta(role="assistant", **delta))
        self._event_ch.send_nowait(chunk)


class Heard:
    def __init__(self) -> None:
        self.text = ""
        self.calls: list[FunctionToolCall] = []
        self.events: list[dict[str, Any]] = []
        self.error: Exception | None = None

    def names(self) -> list[tuple[str, str]]:
        return [(call.name, call.arguments) for call in self.calls]


async def hear(llm: LLM[Any]) -> Heard:
    heard = Heard()
    context = ChatContext.empty()
    context.add_message(role="user", content="hello")
    options = APIConnectOptions(max_retry=0)
    try:
        async with llm.chat(chat_ctx=context, conn_options=options) as stream:
            async for chunk in stream:
                delta = chunk.delta
                if delta is None:
                    continue
                event = (delta.extra or {}).get("rejoinder")
                if event:
                    heard.events.append(event)
                    if event["event"] == "restart":
                        assert event["discard"] == heard.text
                        heard.text = ""
                heard.text += delta.content or ""
                heard.calls.extend(delta.tool_calls)
    except APIError as error:
        heard.error = error
    return heard


def cut_model(api: str, exchange: Exchange, cut: int) -> LLM[Any]:
    return APIS[api](model="m", transport=CutTransport(exchange, cut))


@cache
def streams(api: str) -> tuple[Exchange, ...]:
    """All recorded streams of an API that end well and say something, small ones first."""
    if api not in groups((api.split("/")[1],)):
        required_root()
    found = [e for e in exchanges(api) if e.kind == "stream" and e.status == 200]
    return tuple(sorted(found, key=lambda exchange: len(exchange.body)))


async def with_words(api: str) -> list[tuple[Exchange, Heard]]:
    found: list[tuple[Exchange, Heard]] = []
    for exchange in streams(api):
        whole = await hear(cut_model(api, exchange, len(exchange.body)))
        if whole.error is None and (whole.text or whole.calls):
            found.append((exchange, whole))
    return found


async def check(api: str, exchange: Exchange, whole: Heard, cut: int, policy: Any) -> None:
    second = Continuing(whole.text, whole.calls)
    adapter = FallbackAdapter([cut_model(api, exchange, cut), second], on_cut=policy)
    heard = await hear(adapter)
    where = f"{exchange.id} cut at {cut} of {len(exchange.body)}, {policy}"
    ran = heard.names()
    if isinstance(heard.error, RefusalError):
        # A guardrail stepped in, and what would have told that it only masked words is cut off.
        assert exchange.body.find(b"guardrail_intervened") in range(cut), where
        assert whole.text == heard.text, where
        return
    if policy == "resume":
        assert heard.error is None, where
        if any(event["event"] == "cut_after_tool_call" for event in heard.events):
            # The reply ends with its calls; a text that would have followed them is not missed.
            assert whole.text.startswith(heard.text), where
            assert ran == whole.names()[: len(ran)], where
        else:
            assert heard.text == whole.text, where
            assert ran == whole.names(), where
    elif policy == "restart":
        if heard.error is None:
            assert heard.text == whole.text, where
            assert ran == whole.names(), where
        else:
            assert heard.calls, where  # a call cannot be taken back
    else:
        assert whole.text.startswith(heard.text), where
        assert ran == whole.names()[: len(ran)], where
        if heard.error is None:
            assert (heard.text, ran) == (whole.text, whole.names()), where


def telling_cuts(body: bytes) -> list[int]:
    """Every byte near the end of a line, where an event is complete or not, and each seventh within
    one, of which a reader only keeps what it has; `thorough` cuts at every byte. What has no lines is
    cut at every byte too."""
    ends = [at for at, byte in enumerate(body) if byte == 10]
    step = 7 if ends and settings.default.max_examples < 1000 else 1
    near = {cut for end in ends for cut in range(end - 3, end + 5)}
    return sorted({*range(0, len(body) + 1, step), *near} & {*range(len(body) + 1)})


@pytest.mark.timeout(900)
@pytest.mark.parametrize("api", APIS)
async def test_two_small_streams_cut_everywhere(api: str) -> None:
    candidates = await with_words(api)
    with_calls = [pair for pair in candidates if pair[1].calls]
    chosen = [pair for pair in candidates if pair[1].text][:1] + with_calls[:1]
    assert len(chosen) >= 2
    for exchange, whole in chosen:
        for cut in telling_cuts(exchange.body):
            await check(api, exchange, whole, cut, "resume")


@pytest.mark.timeout(900)
@pytest.mark.parametrize("api", APIS)
async def test_the_other_streams_cut_at_random(api: str) -> None:
    policies = ("restart", "stop")
    cuts = max(8, settings.default.max_examples // 10)
    for exchange, whole in await with_words(api):
        if len(exchange.body) > 60_000:
            continue  # `long` ones take seconds each and say nothing new
        dice = random.Random(exchange.id)
        for i in range(cuts):
            cut = dice.randrange(len(exchange.body))
            await check(api, exchange, whole, cut, policies[i // 4 % 2] if i % 4 == 3 else "resume")
