"""Recording real exchanges, without secrets, and playing them back."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from rejoinder.errors import (
    APIConnectionError,
    APIError,
    APIStatusError,
    APITimeoutError,
    ConfigurationError,
    WireError,
)
from rejoinder.llm import ChatContext
from rejoinder.llm.llm import LLM
from rejoinder.providers import openai
from rejoinder.testing import (
    Answer,
    Exchange,
    Fault,
    FaultServer,
    RecordingTransport,
    ReplayMismatchError,
    ReplayTransport,
    byte_by_byte,
    load_exchange,
    load_exchanges,
    record,
    replay,
    save_exchange,
)
from rejoinder.testing.recording import RecordedError
from rejoinder.transport._aiohttp import AiohttpTransport
from rejoinder.transport.http import Request
from rejoinder.types import APIConnectOptions

CANARY = "canary4f1d8a7e9b2c0d6e"
ONCE = APIConnectOptions(max_retry=0, timeout=1.0)
PATH = "/v1/chat/completions"


def openai_chat(url: str, **options: Any) -> LLM[Any]:
    from rejoinder.providers.openai import LLM

    return LLM(model="gpt-4.1", api_key=CANARY, base_url=url + "/v1", **options)


def openai_query(url: str, **options: Any) -> LLM[Any]:
    from rejoinder.providers.openai import LLM

    return LLM(
        model="gpt-4.1",
        api_key="other",
        base_url=url + "/v1",
        extra_query={"key": CANARY},
        **options,
    )


def azure(url: str, **options: Any) -> LLM[Any]:
    from rejoinder.providers.openai import LLM

    return LLM.with_azure(
        model="gpt-4.1",
        azure_endpoint=url,
        api_version="2024-10-21",
        api_key=CANARY,
        **options,
    )


def anthropic(url: str, **options: Any) -> LLM[Any]:
    from rejoinder.providers.anthropic import LLM

    return LLM(api_key=CANARY, base_url=url, **options)


def google(url: str, **options: Any) -> LLM[Any]:
    from rejoinder.providers.google import LLM

    return LLM(api_key=CANARY, base_url=url, **options)


def aws(url: str, **options: Any) -> LLM[Any]:
    from rejoinder.providers.aws import LLM

    return LLM(
        api_key="AKIACANARY4F1D8A7E9B",
        api_secret="never-sent",
        session_token=CANARY,
        base_url=url,
        **options,
    )


def aws_bearer(url: str, **options: Any) -> LLM[Any]:
    from rejoinder.providers.aws import LLM

    return LLM(bearer_token=CANARY, base_url=url, **options)


def mistral(url: str, **options: Any) -> LLM[Any]:
    from rejoinder.providers.mistralai import LLM

    return LLM(api_key=CANARY, base_url=url, **options)


def inference(url: str, **options: Any) -> LLM[Any]:
    from rejoinder.providers.inference import LLM

    return LLM(
        "openai/gpt-4.1", api_key="other", api_secret=CANARY, base_url=url + "/v1", **options
    )


SENDERS = [openai_chat, openai_query, azure, anthropic, google, aws, aws_bearer, mistral]
"""Those that send the canary; the secret of `inference` only signs."""
MAKERS = [*SENDERS, inference]
Make = Callable[..., LLM[Any]]


def conversation(text: str = "Hello?") -> ChatContext:
    chat_ctx = ChatContext.empty()
    chat_ctx.add_message(role="user", content=text)
    return chat_ctx


async def say(llm: LLM[Any], text: str = "Hello?") -> str:
    return (await llm.chat(chat_ctx=conversation(text), conn_options=ONCE).collect()).text


def everything_in(folder: Path) -> str:
    return "".join(path.read_text("utf-8") for path in sorted(folder.rglob("*")) if path.is_file())


# -- secrets -------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", SENDERS, ids=lambda make: make.__name__)
async def test_a_key_is_nowhere(
    make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In no log line, repr, exception, span or recording: also when the server repeats it."""
    caplog.set_level(logging.DEBUG)
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    monkeypatch.setattr("rejoinder.telemetry._configured.tracer_provider.given", provider)
    shown: list[str] = []
    async with FaultServer() as server:
        async with record(tmp_path) as recording, make(server.url, transport=recording) as llm:
            llm.on("error", lambda error: shown.append(f"{error!r} {error.error!r}"))
            llm.on("metrics_collected", lambda metrics: shown.append(repr(metrics)))
            shown += [repr(llm), repr(recording)]
            echo = Answer(
                text=(f"Your key is {CANARY}.",),
                headers={"x-echo": CANARY, "x-request-id": f"r-{CANARY}", "set-cookie": CANARY},
            )
            server.script(
                echo,
                Answer(status=401, message=f"Incorrect API key provided: {CANARY}"),
                Fault.RESET_MID_STREAM,
                Fault.NOT_HTTP,
                Fault.STALL_BEFORE_HEADERS,
                Fault.ERROR_EVENT,
            )
            stream = llm.chat(chat_ctx=conversation(), conn_options=ONCE)
            shown.append(repr(stream))
            await stream.collect()
            for _ in range(5):
                with pytest.raises(APIError) as caught:
                    await say(llm)
                error: BaseException | None = caught.value
                while error is not None:
                    shown += [repr(error), str(error), repr(vars(error))]
                    error = error.__cause__
        assert server.unused == 0
        # The key did go over the wire, in every request: otherwise nothing is proved here.
        secret = "AKIACANARY4F1D8A7E9B" if make is aws else CANARY
        for request in server.requests:
            assert secret in request.path + str(dict(request.headers))
    written = everything_in(tmp_path)
    assert "Your key is XXXX" in written or make in (aws, aws_bearer)
    shown += [written, caplog.text]
    assert len(spans.get_finished_spans()) >= 6
    shown += [span.to_json() for span in spans.get_finished_spans()]
    for text in shown:
        assert CANARY not in text
        assert "AKIACANARY4F1D8A7E9B" not in text


CARRIERS: list[dict[str, Any]] = [
    {"api_key": CANARY},
    {"extra_headers": {"Ocp-Apim-Subscription-Key": CANARY}},
    {"extra_headers": {"CF-Access-Client-Secret": CANARY}},
    {"extra_headers": {"Cookie": f"session={CANARY}; a=b"}},
    {"extra_query": {"subscription-key": CANARY}},
    {"extra_query": {"sig": CANARY}},
]


@pytest.mark.parametrize("carrier", CARRIERS, ids=lambda carrier: str(*carrier.values()))
async def test_errors_hide_whatever_carried_the_key(
    carrier: dict[str, Any], tmp_path: Path
) -> None:
    """In the message, the body, the names of its members, the id, and half of it where a page was
    cut; also in the recording."""
    error = {"message": f"No: {CANARY}", CANARY: [CANARY], "param": {"key": f"<{CANARY}>"}}
    pages = [
        f"<html>{'x' * 290}{CANARY}</html>",
        f"<html>{'<i>' * 6661}{'x' * 2}{CANARY}</html>",  # a cut that only the bytes show
    ]
    answers = [
        Exchange(status=status, headers={"x-request-id": f"r-{CANARY}"}, body=text.encode())
        for status in (400, 403)  # one of them comes with advice behind the server's own words
        for text in (json.dumps({"error": error}), *pages)
    ]
    options = {"model": "m", "api_key": "another", "base_url": "https://host.test/v1", **carrier}
    async with (
        record(tmp_path, inner=ReplayTransport(answers)) as recording,
        openai.LLM(**options, transport=recording) as llm,
    ):
        for _ in answers:
            with pytest.raises(APIStatusError) as caught:
                await say(llm)
            shown = f"{caught.value} {caught.value!r} {vars(caught.value)}"
            assert CANARY[:8] not in shown
            assert "***" in shown
    written = everything_in(tmp_path)
    assert CANARY not in written
    assert "No: XXXX" in written


def make_exchange(tmp_path: Path, request: Request, answer: Exchange, **more: Any) -> str:
    async def run() -> None:
        transport = RecordingTransport(ReplayTransport([answer]), tmp_path, **more)
        async with await transport.send(request) as response:
            await response.read_all()
        await transport.aclose()

    asyncio.run(run())
    return everything_in(tmp_path)


@pytest.mark.may_block
@pytest.mark.parametrize(
    ("headers", "secret"),
    [
        ({"Authorization": f"Bearer {CANARY}"}, CANARY),
        ({"authorization": CANARY}, CANARY),
        ({"X-Api-Key": CANARY}, CANARY),
        ({"api-key": CANARY}, CANARY),
        ({"x-goog-api-key": CANARY}, CANARY),
        ({"Cookie": f"session={CANARY}; a=b"}, CANARY),
        ({"x-amz-security-token": CANARY}, CANARY),
        ({"Proxy-Authorization": "Basic " + base64.b64encode(b"me:pass-phrase").decode()},
         "pass-phrase"),
        ({"X-My-Credential": f"{CANARY}/20250101"}, CANARY),
        ({"X-Anything": CANARY}, CANARY),
    ],
)  # fmt: skip
def test_credentials_in_headers(tmp_path: Path, headers: dict[str, str], secret: str) -> None:
    echo = "" if "X-Anything" in headers else secret  # known to be secret only by its name
    answer = Exchange(headers={"x-request-id": echo, "x-other": secret}, body=echo.encode())
    request = Request("POST", "http://host/v1", headers, json.dumps({"echo": echo}).encode())
    assert secret not in make_exchange(tmp_path, request, answer)


@pytest.mark.may_block
def test_credentials_in_the_url(tmp_path: Path) -> None:
    url = f"http://me:hunter22@host/v1/x?alt=sse&key={CANARY}&api-version=2&empty="
    written = make_exchange(
        tmp_path, Request("POST", url), Exchange(body=b"hunter22 " + url.encode())
    )
    (exchange,) = load_exchanges(tmp_path)
    assert exchange.url == ("http://host/v1/x?alt=sse&key=[removed]&api-version=2&empty=[removed]")
    assert CANARY not in written
    assert "hunter22" not in written


@pytest.mark.may_block
@pytest.mark.parametrize(
    "secret",
    [
        "sk-proj-abcDEF123456_-7890abcdef", "sk-ant-api03-AAAAbbbbCCCCdddd1234", "gsk_abcdEFGH1234567890ab",
        "xai-abcdEFGH1234567890ab", "hf_abcdEFGH1234567890ab", "AIzaSyA1234567890abcdefghijklmnopqrstuv",
        "AKIAIOSFODNN7EXAMPLE", "ya29.a0AfH6SMBxyz-1234567890",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmN", "Bearer abcdefgh12345678ijkl",
    ],
)  # fmt: skip
def test_known_keys_in_bodies(tmp_path: Path, secret: str) -> None:
    request = Request(
        "POST", "http://host/v1", {}, json.dumps({"text": f"my key: {secret}"}).encode()
    )
    written = make_exchange(tmp_path, request, Exchange(body=f"a {secret} b".encode()))
    assert secret not in written
    (exchange,) = load_exchanges(tmp_path)
    assert exchange.body == b"a " + b"X" * len(secret) + b" b"


@pytest.mark.may_block
def test_credentials_in_errors(tmp_path: Path) -> None:
    error = RecordedError("APIConnectionError", f"cannot reach {CANARY}", 0.0)
    request = Request("POST", "http://host/", {"Authorization": f"Bearer {CANARY}"})
    with pytest.raises(APIConnectionError):
        make_exchange(tmp_path, request, Exchange(status=None, error=error))
    with pytest.raises(APIConnectionError):
        make_exchange(tmp_path, request, Exchange(body=b"x", error=error))
    assert CANARY not in everything_in(tmp_path)
    assert [e.error is not None for e in load_exchanges(tmp_path)] == [True]


@pytest.mark.may_block
def test_further_secrets(tmp_path: Path) -> None:
    request = Request("POST", "http://host/v1", {}, b'{"name": "Ada \\"Countess\\" Lovelace"}')
    answer = Exchange(body=b"Hello, Ada%20%22Countess%22%20Lovelace")
    written = make_exchange(tmp_path, request, answer, secrets=['Ada "Countess" Lovelace'])
    assert "Lovelace" not in written


@pytest.mark.may_block
def test_checksums_of_frames_hold_after_a_secret_was_removed(tmp_path: Path) -> None:
    from botocore.eventstream import EventStreamBuffer

    from rejoinder.wire.eventstream import encode_message

    body = b"".join(
        encode_message({":event-type": "e"}, f'{{"text": "{text}"}}'.encode())
        for text in ("before", CANARY, "after")
    )
    request = Request("POST", "http://host/v1", {"Authorization": CANARY})
    for number, cut in enumerate((len(body), len(body) - 7)):
        folder = tmp_path / str(number)
        make_exchange(folder, request, Exchange(body=body[:cut]))
        (exchange,) = load_exchanges(folder)
        buffer = EventStreamBuffer()
        buffer.add_data(exchange.body)
        payloads = [message.payload for message in buffer]
        assert payloads[:2] == [b'{"text": "before"}', b'{"text": "' + b"X" * len(CANARY) + b'"}']
        assert len(exchange.body) == cut


@pytest.mark.may_block
def test_what_is_no_secret_is_kept(tmp_path: Path) -> None:
    body = {"model": "gpt-4.1", "messages": [{"role": "user", "content": "risk-free sk-etch? é👋"}]}
    request = Request(
        "POST",
        "http://host/v1/x?api-version=1",
        {"content-type": "application/json", "anthropic-version": "2023-06-01"},
        json.dumps(body).encode(),
    )
    headers = {
        "content-type": "text/event-stream",
        "x-ratelimit-remaining-tokens": "12",
        "x-y": "1",
    }
    make_exchange(tmp_path, request, Exchange(headers=headers, body="data: é👋\n\n".encode()))
    (exchange,) = load_exchanges(tmp_path)
    assert exchange.request_body == body
    assert exchange.url == request.url
    assert dict(exchange.request_headers) == dict(request.headers)
    assert dict(exchange.headers) == {**headers, "x-y": "[removed]"}
    assert exchange.body == "data: é👋\n\n".encode()


# -- round trips ---------------------------------------------------------------------------------


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
async def test_what_was_recorded_is_played_back(make: Make, tmp_path: Path) -> None:
    async with (
        FaultServer() as server,
        record(tmp_path) as recording,
        make(server.url, transport=recording) as llm,
    ):
        server.script(
            Answer(text=("one ", "two 👋")),
            Answer(status=429, message="slow down", headers={"Retry-After": "7"}),
            Fault.CLOSE_BEFORE_HEADERS,
            Fault.RESET_MID_STREAM,
            Fault.NOT_HTTP,
        )
        heard = [await outcome(llm) for _ in range(5)]
        url = server.url
    played = replay(tmp_path)
    async with make(url, transport=played) as llm:  # where nobody listens any more
        assert [await outcome(llm) for _ in range(5)] == heard
        played.assert_used_up()
    assert heard[0] == ("one two 👋", None, None, None)
    assert heard[1][1:] == (APIStatusError, True, 7.0)
    assert heard[2][1] is APIConnectionError
    assert heard[3] == ("Hello", APIConnectionError, False, None)
    assert heard[4][1] is WireError


async def outcome(llm: LLM[Any]) -> tuple[str, type | None, bool | None, float | None]:
    text = ""
    try:
        async with llm.chat(chat_ctx=conversation(), conn_options=ONCE) as stream:
            async for chunk in stream:
                if chunk.delta is not None and chunk.delta.content:
                    text += chunk.delta.content
    except APIError as error:
        return text, type(error), error.retryable, error.retry_after
    return text, None, None, None


async def test_a_compressed_answer_is_kept_as_it_was_read(tmp_path: Path) -> None:
    async with (
        FaultServer() as server,
        record(tmp_path) as recording,
        openai_chat(server.url, transport=recording) as llm,
    ):
        server.script(Answer(fault=Fault.GZIP, text=("packed",)))
        assert await say(llm) == "packed"
        assert await say(openai_chat(server.url, transport=replay(tmp_path))) == "packed"


async def test_timing_is_kept(tmp_path: Path) -> None:
    now = 100.0
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds
        waited.append(seconds)

    source = Exchange(
        body=b"abc", chunk_sizes=(1, 2), head_at=0.5, chunk_times=(0.75, 2.0), method="POST"
    )
    transport = RecordingTransport(
        ReplayTransport([source], speed=1.0, sleep=sleep), tmp_path, clock=lambda: now
    )
    async with await transport.send(Request("POST", "http://host/")) as response:
        assert await response.read_some() == b"a"
        assert await response.read_some() == b"bc"
        assert await response.read_some() == b""
    assert waited == [0.5, 0.25, 1.25]
    (exchange,) = load_exchanges(tmp_path)
    assert (exchange.head_at, exchange.chunk_sizes, exchange.chunk_times) == (
        0.5,
        (1, 2),
        (0.75, 2.0),
    )
    waited.clear()
    twice = ReplayTransport([exchange], speed=2.0, sleep=sleep)
    async with await twice.send(Request("POST", "http://host/")) as response:
        assert await response.read_all() == b"abc"
    assert waited == [0.25, 0.125, 0.625]
    waited.clear()
    at_once = ReplayTransport([exchange], sleep=sleep)
    async with await at_once.send(Request("POST", "http://host/")) as response:
        assert await response.read_all() == b"abc"
    assert waited == []


async def test_an_answer_that_was_left_is_recorded_as_far_as_it_was_read(tmp_path: Path) -> None:
    async with FaultServer() as server:
        transport = RecordingTransport(AiohttpTransport(), tmp_path)
        server.script(Fault.STALL_MID_STREAM)

        async def read() -> None:
            async with await transport.send(
                Request("POST", server.url + PATH, {}, b"{}")
            ) as answer:
                while await answer.read_some():
                    started.set()

        started = asyncio.Event()
        task = asyncio.create_task(read())
        await started.wait()
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await transport.aclose()
    (exchange,) = load_exchanges(tmp_path)
    assert b"Hello" in exchange.body
    assert len(exchange.chunk_sizes) == len(exchange.chunk_times) > 0


@pytest.mark.parametrize("name", ["folder", "file.zip"])
async def test_exchanges_at_once_get_files_of_their_own(tmp_path: Path, name: str) -> None:
    async with (
        FaultServer() as server,
        record(tmp_path / name) as recording,
        openai_chat(server.url, transport=recording) as llm,
    ):
        await asyncio.gather(*(say(llm, f"number {n}") for n in range(20)))
    assert [file.name for file in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).is_file() == name.endswith(".zip")
    exchanges = load_exchanges(tmp_path / name)
    assert len(exchanges) == 20
    asked = {e.request_body["messages"][0]["content"] for e in exchanges}
    assert asked == {f"number {n}" for n in range(20)}


def test_files_come_back_as_they_were(tmp_path: Path) -> None:
    exchange = Exchange(
        id="x",
        provider="p",
        api="a",
        model="m",
        kind="stream",
        tags=("t",),
        url="http://host/",
        request_body={"a": ["é", None]},
        status=None,
        headers={"a": "b"},
        body=b"\xff\x00binary",
        head_at=0.25,
        chunk_sizes=(1, 8),
        chunk_times=(0.5, 0.75),
        error=RecordedError("APITimeoutError", "late", 1.5),
    )
    save_exchange(exchange, tmp_path / "deep" / "x.json")
    assert load_exchange(tmp_path / "deep" / "x.json") == exchange


@pytest.mark.parametrize(
    "text", ["{}", "[]", '{"response": 1}', '{"response": {"headers": 3}}', "x"]
)
def test_files_that_are_no_recordings(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"recording|Expecting"):
        load_exchange(path)


# -- replaying -----------------------------------------------------------------------------------


async def test_requests_find_their_exchange_by_method_and_path() -> None:
    transport = ReplayTransport(
        [
            Exchange(id="a", url="http://one/a?x=1", body=b"a1"),
            Exchange(id="b", url="http://one/b", body=b"b1"),
            Exchange(id="c", url="http://one/a", body=b"a2"),
            Exchange(id="d", url=None, body=b"any"),
        ]
    )

    async def get(url: str) -> bytes:
        async with await transport.send(Request("POST", url)) as response:
            return await response.read_all()

    assert await get("http://two/b") == b"b1"
    assert await get("http://two/a?y=2") == b"a1"
    assert await get("http://two/a") == b"a2"
    with pytest.raises(AssertionError, match=r"1 recorded exchanges were not used: d"):
        transport.assert_used_up()
    assert await get("http://two/a") == b"any"
    transport.assert_used_up()
    with pytest.raises(ReplayMismatchError, match="no recording for POST /a; left: nothing"):
        await get("http://two/a")
    assert transport.requests[0].url == "http://two/b"


async def test_recordings_found_by_what_was_asked(tmp_path: Path) -> None:
    async with FaultServer() as server:
        server.script(Answer(text="sunny"), Answer(text="rainy"))
        async with (
            record(tmp_path) as recording,
            openai_chat(server.url, transport=recording) as llm,
        ):
            assert await say(llm, "Oslo?") == "sunny"
            assert await say(llm, "Bergen?") == "rainy"

    played = replay(tmp_path, match="body")
    async with openai_chat("http://other.example", transport=played) as llm:
        assert await say(llm, "Bergen?") == "rainy"
        with pytest.raises(ReplayMismatchError) as caught:
            await say(llm, "Oslo, please?")
        assert str(caught.value) == (
            "no recording for POST /v1/chat/completions; 0001 (POST /v1/chat/completions) differs at "
            '$.messages[0].content: recorded "Oslo?", got "Oslo, please?"'
        )
        assert await say(llm, "Oslo?") == "sunny"
    played.assert_used_up()


def calls(first: str, second: str, *outputs: str) -> Any:
    made = [{"id": call_id, "function": {"name": "look"}} for call_id in (first, second)]
    return {"messages": [{"tool_calls": made}, *({"tool_call_id": o} for o in outputs)]}


@pytest.mark.parametrize(
    ("recorded", "sent", "place"),
    [
        ({"a": 1}, b'{"a": 2}', "$.a: recorded 1, got 2"),
        ({"a": 1}, b"{}", "$.a: recorded 1, got nothing"),
        ({}, b'{"b": null}', "$.b: recorded nothing, got null"),
        ({"a": [1, 2]}, b'{"a": [1]}', "$.a[1]: recorded 2, got nothing"),
        ({"a": 1}, b'{"a": true}', "$.a: recorded 1, got true"),
        ({"a": 1}, b"text", '$: recorded {"a": 1}, got "text"'),
        ({"a": 1}, None, '$: recorded {"a": 1}, got null'),
        ({"a": {"b": 1}}, b'{"a":  {"b": 1}}', None),
        (None, b"whatever", None),
        ("text", b"text", None),
        # one number, written in two ways
        ({"a": 1}, b'{"a": 1.0}', None),
        ({"a": 1.5}, b'{"a": 1}', "$.a: recorded 1.5, got 1"),
        # ids of calls may differ if they stand in the same places
        (calls("x", "y", "x", "y"), calls("p", "q", "p", "q"), None),
        (calls("x", "y", "x", "y"), calls("p", "q", "q", "p"), '.tool_call_id: recorded "x", got "q"'),
        (calls("x", "y", "x", "y"), calls("p", "p", "p", "p"), '[1].id: recorded "y", got "p"'),
        ({"call_id": "x"}, b'{"call_id": 1}', '$.call_id: recorded "x", got 1'),
        ({"prompt": {"id": "x"}}, b'{"prompt": {"id": "y"}}', '$.prompt.id: recorded "x", got "y"'),
    ],
)  # fmt: skip
async def test_bodies_are_compared(recorded: Any, sent: Any, place: str | None) -> None:
    if isinstance(sent, dict):
        sent = json.dumps(sent).encode()
    transport = replay([Exchange(request_body=recorded)], match="body")
    if place is None:
        await transport.send(Request("POST", "http://host/", body=sent))
    else:
        with pytest.raises(ReplayMismatchError) as caught:
            await transport.send(Request("POST", "http://host/", body=sent))
        assert place in str(caught.value)


async def test_recordings_found_by_a_function() -> None:
    transport = replay(
        [Exchange(id="a", body=b"1"), Exchange(id="b", body=b"2")],
        match=lambda request, exchange: request.url.endswith(exchange.id),
    )
    async with await transport.send(Request("POST", "http://host/b")) as response:
        assert await response.read_all() == b"2"
    with pytest.raises(ReplayMismatchError, match="left: a"):
        await transport.send(Request("POST", "http://host/b"))


@pytest.mark.parametrize(
    "options", [{"match": "bodies"}, {"match": 3}, {"speed": 0}, {"speed": "fast"}, {"repeat": 1}]
)
def test_wrong_options_of_a_replay(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=rf"replay\.{next(iter(options))}: expected "):
        replay([], **options)


async def test_a_mismatch_is_not_retried() -> None:
    recording = replay([Exchange(url="http://host/other")])
    llm = openai_chat("http://127.0.0.1:1", transport=recording)
    with pytest.raises(ReplayMismatchError):
        await llm.chat(chat_ctx=conversation()).collect()
    assert len(recording.requests) == 1


async def test_exchanges_can_be_used_again() -> None:
    transport = ReplayTransport([Exchange(body=b"x")], repeat=True)
    for _ in range(3):
        async with await transport.send(Request("POST", "http://host/")) as response:
            assert await response.read_all() == b"x"
    transport.assert_used_up()


async def test_bodies_can_be_cut_anew() -> None:
    transport = ReplayTransport([Exchange(body=b"abc", chunk_sizes=(3,))], cut=byte_by_byte)
    async with await transport.send(Request("POST", "http://host/")) as response:
        assert [await response.read_some() for _ in range(4)] == [b"a", b"b", b"c", b""]


async def test_recorded_timeouts_are_timeouts() -> None:
    error = RecordedError("APITimeoutError", "late", 0.0)
    transport = ReplayTransport([Exchange(status=None, error=error)])
    with pytest.raises(APITimeoutError, match="late"):
        await transport.send(Request("POST", "http://host/"))


class NotedTransport(ReplayTransport):
    """Remembers whether it was closed."""

    closed = False

    async def aclose(self) -> None:
        self.closed = True


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
async def test_a_given_transport_outlives_the_llm(make: Make) -> None:
    transport = NotedTransport([])
    async with make("http://127.0.0.1:1", transport=transport) as llm:
        with pytest.raises(ReplayMismatchError):
            await say(llm)
    assert not transport.closed
    with pytest.raises(
        APIConnectionError, match=r"^closed: .* make a new LLM\. More: \S+$"
    ) as caught:
        await say(llm)
    assert not caught.value.retryable
    assert len(transport.requests) == 1


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
async def test_a_closed_llm_says_so(make: Make) -> None:
    llm = make("http://127.0.0.1:1")
    await llm.aclose()
    await llm.aclose()
    with pytest.raises(
        APIConnectionError, match=r"^closed: .* make a new LLM\. More: \S+$"
    ) as caught:
        await say(llm)
    assert not caught.value.retryable


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
async def test_what_is_no_transport_is_refused(make: Make) -> None:
    with pytest.raises(
        ConfigurationError, match=r"\btransport: expected a HttpTransport, got 'https"
    ):
        make("http://127.0.0.1:1", transport="https://proxy")
    with pytest.raises(ConfigurationError, match=r"\bhttp_session: expected .* str"):
        make("http://127.0.0.1:1", http_session="session")
    async with aiohttp.ClientSession() as session:
        with pytest.raises(ConfigurationError, match=r"one of them, not both"):
            make("http://127.0.0.1:1", http_session=session, transport=ReplayTransport([]))


def test_the_corpus_of_recorded_traffic_can_be_read(recordings: Path) -> None:
    count = 0
    for path in sorted(recordings.glob("recorded/*/*/*.json")):
        data = json.loads(path.read_text("utf-8"))
        if data["kind"] == "realtime":
            continue
        exchange = load_exchange(path)
        response = data["response"]
        if response.get("body_b64"):
            assert exchange.body == base64.b64decode(response["body_b64"])
        else:
            assert exchange.body.decode("utf-8", "surrogatepass") == (response["body"] or "")
        assert exchange.id == data["id"]
        assert exchange.status == response["status"]
        assert exchange.request_body == (data.get("request") or {}).get("body")
        assert b"".join(exchange.pieces) == exchange.body
        count += 1
    assert count > 1000
