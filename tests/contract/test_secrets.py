"""Keys of providers are in nothing that is shown of a failure: errors, the local variables of their
frames, logs, recordings, spans, pickles.

Each model gets keys in every place that takes one. Then the server fails, in each way it can, and
quotes them; what can be reached from the failure is searched (`canaries`).
"""

from __future__ import annotations

import asyncio
import base64
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from canaries import Records, all_records, leaks
from contract.rows import KEY, ROWS, Row
from rejoinder.catalog import create
from rejoinder.errors import ConfigurationError
from rejoinder.llm import ChatContext, mcp
from rejoinder.providers import anthropic, aws, google, inference, mistralai, openai
from rejoinder.providers.openai.realtime import RealtimeModel
from rejoinder.testing import record
from rejoinder.testing.faults import Answer, Fault, FaultServer
from rejoinder.transport import AiohttpTransport
from rejoinder.types import APIConnectOptions

pytestmark = [
    pytest.mark.looptime,
    pytest.mark.may_block,
]  # the first model of a kind imports what it needs

OPTIONS = APIConnectOptions(max_retry=1, retry_interval=0.01, timeout=0.1)
ONCE = APIConnectOptions(max_retry=0, timeout=0.1)
PATIENT = APIConnectOptions(max_retry=1, retry_interval=0.01, timeout=30)
"""For errors that come by themselves, however busy the machine is."""
WAYS = [
    Fault.NONE,
    Fault.STATUS_401,
    Fault.STATUS_502_HTML,
    Fault.CLOSE_BEFORE_HEADERS,
    Fault.RESET_BEFORE_HEADERS,
    Fault.RESET_MID_STREAM,
    Fault.NOT_HTTP,
    Fault.STALL_BEFORE_HEADERS,
    Fault.JSON_ERROR_200,
    Fault.ERROR_EVENT_MID_STREAM,
    Fault.GZIP,
    Fault.REDIRECT_AWAY,
]
"""Ways to fail that have a path through the code of their own, where all faults take too long."""
EXTRA = {
    "extra_headers": {"X-Tenant-Token": f"{KEY}-header"},
    "extra_query": {"sig": f"{KEY}-query"},
}
SAYS = f"Incorrect API key provided: {KEY}, {KEY}-header, {KEY}-query"

every_row = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)


@pytest.fixture
def records() -> Iterator[Records]:
    with all_records(KEY) as found:
        yield found


def chat_ctx() -> ChatContext:
    context = ChatContext.empty()
    context.add_message(role="user", content="Hello")
    return context


async def failure(llm: Any, *, cancelled: bool = False, **options: Any) -> BaseException | None:
    """What the one who asks gets to see, if that is an error."""
    call: dict[str, Any] = {"conn_options": OPTIONS, "extra_kwargs": EXTRA} | options
    try:
        stream = llm.chat(chat_ctx=chat_ctx(), **call)
        reply = asyncio.ensure_future(stream.collect())
        if cancelled:
            await asyncio.sleep(0.05)
            reply.cancel()
        await reply
    except BaseException as error:
        return error
    return None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# what a server does --------------------------------------------------------------------------


@every_row
async def test_no_failure_of_a_server_shows_a_key(row: Row, records: Records) -> None:
    found: dict[str, list[str]] = {}
    failures = 0
    async with FaultServer() as server, row.make(server.url) as llm:
        for fault in Fault:
            server.always(Answer(fault=fault, message=SAYS))
            error = await failure(llm, conn_options=ONCE)
            failures += error is not None
            found[fault.value] = leaks(error, [KEY])
            assert KEY in repr([dict(r.headers) for r in server.requests]) or row.name in (
                "aws",  # these keys only sign
                "inference",
            )
    assert {fault: places for fault, places in found.items() if places} == {}
    assert records.leaks == set()
    assert failures > 30


@every_row
async def test_no_refused_connection_shows_a_key(row: Row, records: Records) -> None:
    async with row.make(f"http://127.0.0.1:{free_port()}") as llm:
        error = await failure(llm)
    assert error is not None
    assert leaks(error, [KEY]) == []
    assert records.leaks == set()


@every_row
@pytest.mark.parametrize("fault", [Fault.STALL_BEFORE_HEADERS, Fault.STALL_MID_STREAM])
async def test_no_cancelled_call_shows_a_key(row: Row, fault: Fault, records: Records) -> None:
    async with FaultServer(default=Answer(fault=fault)) as server, row.make(server.url) as llm:
        error = await failure(llm, cancelled=True)
    assert isinstance(error, asyncio.CancelledError)
    assert leaks(error, [KEY]) == []
    assert records.leaks == set()


# proxies -------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["http://example.org", "https://example.org"])
@pytest.mark.parametrize("named_by", ["option", "environment"])
async def test_no_failure_of_a_proxy_shows_a_key(
    target: str, named_by: str, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    found: dict[str, list[str]] = {}
    failures = 0
    async with FaultServer() as server:
        address = server.url.replace("http://", f"http://user:{KEY}@")
        if named_by == "environment":
            monkeypatch.setenv("http_proxy", address)
            monkeypatch.setenv("https_proxy", address)
        for fault in WAYS:
            server.always(Answer(fault=fault, message=SAYS))
            transport = AiohttpTransport(proxy=address if named_by == "option" else None)
            async with openai.LLM(
                model="m", api_key=KEY, base_url=target, transport=transport
            ) as llm:
                error = await failure(llm)
            await transport.aclose()
            failures += error is not None
            found[fault.value] = leaks(error, [KEY, base64.b64encode(KEY.encode()).decode()[4:-4]])
        if target.startswith("http:"):
            assert any("proxy-authorization" in request.headers for request in server.requests)
    assert {fault: places for fault, places in found.items() if places} == {}
    assert records.leaks == set()
    assert failures > 5


# where keys come from ------------------------------------------------------------------------


async def slow() -> str:
    secret = f"{KEY}-slow"
    await asyncio.sleep(9)
    return secret


def broken() -> str:
    raise LookupError("no key here")


@pytest.mark.parametrize("source", [slow, broken, lambda: 3, lambda: f"{KEY}\n{KEY}"])
@pytest.mark.parametrize("cancelled", [False, True])
async def test_no_failure_of_a_function_that_gives_a_key_shows_one(
    source: Any, cancelled: bool, records: Records
) -> None:
    async with openai.LLM(
        model="m", api_key=source, base_url="http://127.0.0.1:9", extra_headers={"X": KEY}
    ) as llm:
        error = await failure(llm, cancelled=cancelled)
    assert error is not None
    assert leaks(error, [KEY]) == []
    assert records.leaks == set()


VARIABLES: list[dict[str, str]] = [
    {
        "AWS_ACCESS_KEY_ID": f"AKID{KEY}",
        "AWS_SECRET_ACCESS_KEY": KEY,
        "AWS_SESSION_TOKEN": f"{KEY}-session",
    },
    {"AWS_BEARER_TOKEN_BEDROCK": KEY},
]


@pytest.mark.parametrize("variables", VARIABLES, ids=["signed", "bearer"])
@pytest.mark.parametrize(
    "make", [lambda **o: aws.LLM(**o), lambda **o: anthropic.LLM.with_bedrock(**o)]
)
async def test_no_failure_shows_a_key_of_the_environment(
    make: Any, variables: dict[str, str], records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found: dict[str, list[str]] = {}
    async with (
        FaultServer() as server,
        make(model="m", region="eu-west-1", base_url=server.url) as llm,
    ):
        for fault in WAYS:
            server.always(Answer(fault=fault, message=SAYS))
            found[fault.value] = leaks(await failure(llm), [KEY])
    assert {fault: places for fault, places in found.items() if places} == {}
    assert records.leaks == set()


class Session:
    """A session of botocore whose credentials cannot be had."""

    region_name = "eu-west-1"

    def get_credentials(self) -> Any:
        raise RuntimeError("the metadata service is away")


class AsyncSession:
    """One of aiobotocore."""

    region_name = "eu-west-1"

    async def get_credentials(self) -> Any:
        raise RuntimeError("the metadata service is away")


class AsyncSource(AsyncSession):
    """One whose credentials are found and cannot be read."""

    async def get_credentials(self) -> Any:
        return self

    async def get_frozen_credentials(self) -> Any:
        raise RuntimeError("the metadata service is away")


@pytest.mark.parametrize("session", [Session, AsyncSession, AsyncSource])
@pytest.mark.parametrize(
    "make", [lambda **o: aws.LLM(**o), lambda **o: anthropic.LLM.with_bedrock(**o)]
)
async def test_no_failure_of_a_session_of_aws_shows_a_key(
    make: Any, session: type[Any], records: Records
) -> None:
    async with make(model="m", session=session(), region="eu-west-1") as llm:
        llm.prewarm()
        error = await failure(llm, conn_options=PATIENT)
    assert isinstance(error, ConfigurationError)
    assert "the metadata service is away" in str(error)
    assert leaks(error, [KEY]) == []
    assert records.leaks == set()


async def test_no_failure_of_an_account_of_google_shows_a_key(records: Records) -> None:

    import google.auth.exceptions

    class Account:
        token, expiry, quota_project_id, project_id = KEY, None, None, "p"

        def refresh(self, request: Any) -> None:
            private_key, assertion = KEY, {"assertion": KEY}
            raise google.auth.exceptions.RefreshError("invalid_grant", (private_key, assertion)[:0])

    async with google_llm(vertexai=True, project="p", location="us", credentials=Account()) as llm:
        llm.prewarm()
        error = await failure(llm, conn_options=PATIENT)
    assert "invalid_grant" in str(error)
    assert leaks(error, [KEY]) == []
    assert records.leaks == set()


def google_llm(**options: Any) -> Any:
    return google.LLM(model="m", **options)


# options that are wrong ----------------------------------------------------------------------


def constructors() -> Iterator[tuple[str, Callable[..., Any], dict[str, Any]]]:
    """Everything public that is given a credential, and a call of it that is right."""
    key = {"api_key": KEY}
    yield "openai", openai.LLM, {"model": "m", **key}
    special = {
        "with_azure": {"azure_endpoint": "https://x.example", "api_version": "v"},
        "with_letta": {"agent_id": "a", **key},
        "with_ollama": {"base_url": f"http://user:{KEY}@host/v1"},
        "with_host": {"host": "groq", "model": "m", **key},
    }
    for name in sorted(name for name in dir(openai.LLM) if name.startswith("with_")):
        yield f"openai.{name}", getattr(openai.LLM, name), special.get(name, {"model": "m", **key})
    yield "anthropic", anthropic.LLM, {"model": "m", **key}
    yield "anthropic.with_azure", anthropic.LLM.with_azure, {"model": "m", "resource": "r", **key}
    signs = {"api_key": f"AKID{KEY}", "api_secret": KEY, "region": "eu-west-1"}
    yield "anthropic.with_bedrock", anthropic.LLM.with_bedrock, {"model": "m", **signs}
    vertex = {"model": "m", "project": "p", "access_token": KEY}
    yield "anthropic.with_vertex", anthropic.LLM.with_vertex, vertex
    yield "google", google.LLM, {"model": "m", **key}
    yield "aws", aws.LLM, {"model": "m", **signs}
    yield "mistralai", mistralai.LLM, {"model": "m", **key}
    yield "inference", inference.LLM, {"model": "openai/m", "api_secret": KEY, **key}
    yield "openai.realtime", RealtimeModel, key
    yield "create", create, {"name": "openai/m", **key}
    yield "AiohttpTransport", AiohttpTransport, {"proxy": f"http://user:{KEY}@host:1"}
    url = f"https://user:{KEY}@host/mcp?key={KEY}"
    yield "MCPServerHTTP", mcp.MCPServerHTTP, {"url": url, "headers": {"X": KEY}}
    command = {"command": "x", "args": ["--key", KEY], "env": {"KEY": KEY}}
    yield "MCPServerStdio", mcp.MCPServerStdio, command
    yield "server_from_spec", mcp.server_from_spec, {"spec": f"npx --key {KEY}"}


WRONG: list[dict[str, Any]] = [
    {"temperature": "hot"},
    {"base_url": f"ftp://user:{KEY}@host"},
    {"base_url": f"http://user:{KEY}@host:port/"},
    {"base_url": [f"http://user:{KEY}@host/"]},
    {"extra_headers": [KEY]},
    {"headers": [KEY]},
    {"url": f"ftp://user:{KEY}@host"},
    {"no_such_option": 1},
    {"timeout": "long"},
    {"keep_alive": -1},
    {"api_key": [KEY]},
    {"api_secret": None},
    {"region": "nowhere"},
    {"location": "nowhere"},
    {"proxy": f"ftp://user:{KEY}@host"},
    {"http_session": 3},
    {"env": [KEY]},
    {"args": KEY},
    {"spec": ""},
    {"startup_timeout": "long"},
    {"azure_endpoint": f"ftp://{KEY}@host"},
    {"model": None},
    {"model": ""},
    {"credentials": {"private_key": KEY}},
    {"vertexai": True, "credentials": {"private_key": KEY}},
]


@pytest.mark.parametrize(
    ("make", "right"), [row[1:] for row in constructors()], ids=[row[0] for row in constructors()]
)
def test_no_refused_option_shows_a_key(make: Callable[..., Any], right: dict[str, Any]) -> None:
    errors: list[tuple[Any, BaseException]] = []
    for wrong in WRONG:
        try:
            made = make(**right | wrong)
            assert KEY not in repr(made)
        except (TypeError, ValueError) as error:
            errors.append((wrong, error))
    assert [wrong for wrong, error in errors if leaks(error, [KEY])] == []
    assert len(errors) > 3


CALLS: list[Mapping[str, Any]] = [
    {"extra_kwargs": {"extra_headers": {"X": KEY}, "temperature": object()}},
    {"extra_kwargs": {"extra_headers": KEY}},
    {"extra_kwargs": {"extra_headers": {"X": KEY}}, "tool_choice": "x"},
    {"extra_kwargs": {"extra_headers": {"X": KEY}}, "response_format": 3},
    {"extra_kwargs": {"extra_headers": {"X": f"{KEY}\n"}}},
    {"extra_kwargs": {"extra_headers": {"a b": KEY}, "extra_query": {"X": KEY}}},
]


@every_row
async def test_no_refused_call_shows_a_key(row: Row, records: Records) -> None:
    for wrong in CALLS:
        async with row.make("http://127.0.0.1:9") as llm:
            error = await failure(llm, **wrong)
        assert error is not None
        assert leaks(error, [KEY]) == [], wrong
    assert records.leaks == set()


# realtime ------------------------------------------------------------------------------------


@pytest.mark.looptime
async def test_no_failure_of_a_realtime_session_shows_a_key(records: Records) -> None:
    found: dict[str, list[str]] = {}
    events = 0
    async with FaultServer() as server:
        for fault in (
            Fault.NONE,
            Fault.STATUS_401,
            Fault.CLOSE_BEFORE_HEADERS,
            Fault.RESET_BEFORE_HEADERS,
            Fault.NOT_HTTP,
            Fault.STALL_BEFORE_HEADERS,
        ):
            server.always(Answer(fault=fault, message=SAYS))
            address = server.url.replace("http://", f"ws://user:{KEY}@")
            for url in (f"{server.url}/v1?sig={KEY}", f"{address}/v1"):
                model = RealtimeModel(api_key=KEY, base_url=url, conn_options=PATIENT)
                session = model.session()
                errors: list[Any] = []
                session.on("error", errors.append)
                try:
                    async with asyncio.timeout(600):
                        await session.generate_reply()
                except Exception as error:
                    errors.append(error)
                await session.aclose()
                await model.aclose()
                events += len(errors)
                for error in errors:
                    found[fault.value] = leaks(getattr(error, "error", error), [KEY])
    assert {fault: places for fault, places in found.items() if places} == {}
    assert records.leaks == set()
    assert events >= 12  # one at least for each fault and address


# recordings ----------------------------------------------------------------------------------


@every_row
async def test_no_recording_holds_a_key(row: Row, tmp_path: Path) -> None:
    async with FaultServer() as server:
        plain = row.make(server.url)
        async with record(tmp_path) as transport, plain as llm:
            await llm._transport.aclose()
            llm._transport = transport
            for fault in WAYS:
                server.always(Answer(fault=fault, message=SAYS))
                await failure(llm)
    files = sorted(tmp_path.glob("*.json"))
    assert len(files) > len(WAYS)
    assert [path.name for path in files if KEY in path.read_text("utf-8")] == []
