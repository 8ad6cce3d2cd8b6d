"""What can fail with a key in hand: models, proxies, credentials, MCP servers, realtime sessions.

The keys come from the environment, so that no frame of this file holds one for longer than it takes to
make what fails. Run by the interpreter that has the error reporters.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from google.oauth2.credentials import Credentials

from rejoinder.errors import ConfigurationError
from rejoinder.llm import ChatContext, FunctionCall, ToolContext, execute_function_call, mcp
from rejoinder.providers import anthropic, aws, google, inference, mistralai, openai
from rejoinder.providers.aws.realtime import RealtimeModel as NovaSonic
from rejoinder.providers.google.realtime import RealtimeModel as GeminiLive
from rejoinder.providers.openai.live import GPTLiveModel
from rejoinder.providers.openai.realtime import RealtimeModel
from rejoinder.testing import (
    Answer,
    Fault,
    FaultServer,
    record,
    record_sessions,
)
from rejoinder.transport import AiohttpTransport
from rejoinder.types import APIConnectOptions

__all__ = [
    "accounts",
    "calls",
    "files",
    "processes",
    "proxies",
    "sessions",
    "tools",
    "wrong_options",
]

OPTIONS = APIConnectOptions(max_retry=1, retry_interval=0.01, timeout=0.2)
FAULTS = (
    Fault.CLOSE_BEFORE_HEADERS,
    Fault.RESET_BEFORE_HEADERS,
    Fault.NOT_HTTP,
    Fault.STATUS_401,
    Fault.STALL_BEFORE_HEADERS,
    Fault.REDIRECT_AWAY,
    Fault.RESET_MID_STREAM,
    Fault.JSON_ERROR_200,
)
Errors = list[BaseException]


def key() -> str:
    return os.environ["CANARY"]


def named(url: str) -> str:
    """`url` with a user and a password."""
    return url.replace("://", f"://user:{key()}@")


@contextlib.asynccontextmanager
async def failing(message: str = "") -> AsyncIterator[Callable[[], Iterator[tuple[str, bool]]]]:
    """Addresses that fail, one way after the other, and whether to cancel what waits there.

    Args:
        message: of a server that answers with an error.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        refused = f"http://127.0.0.1:{probe.getsockname()[1]}"
    async with FaultServer() as server:

        def ways() -> Iterator[tuple[str, bool]]:
            yield refused, False
            for fault in FAULTS:
                server.always(Answer(fault=fault, message=message or f"the key {key()} is wrong"))
                yield server.url, False
            server.always(Fault.STALL_BEFORE_HEADERS)
            yield server.url, True

        yield ways


async def error_of(work: Awaitable[Any], *, cancelled: bool = False, within: float = 20) -> Errors:
    """What the one who waits gets to see."""
    task = asyncio.ensure_future(work)
    if cancelled:
        await asyncio.sleep(0.05)
        task.cancel()
    try:
        async with asyncio.timeout(within):
            await task
    except (Exception, asyncio.CancelledError) as error:
        return [error]
    return []


async def ask(llm: Any, *, more: bool = False) -> None:
    """Ask for a reply, with `extra` options where `more`: no frame of ours keeps them."""
    context = ChatContext.empty()
    context.add_message(role="user", content="Hello")
    stream = llm.chat(chat_ctx=context, conn_options=OPTIONS, **(extra() if more else {}))
    await stream.collect()


# models ------------------------------------------------------------------------------------------


def models(url: str) -> Iterator[Any]:
    yield openai.LLM(model="m", base_url=f"{url}/v1?sig={key()}")
    yield openai.LLM(model="m", base_url=f"{url}/v1", api="responses")
    yield openai.LLM.with_ollama(model="m", base_url=f"{named(url)}/v1?key={key()}")
    yield openai.LLM.with_azure(model="m", azure_endpoint=url, api_version="v", api_key=key())
    yield anthropic.LLM(model="m", base_url=url)
    yield anthropic.LLM.with_vertex(model="m", project="p", access_token=key(), base_url=url)
    yield anthropic.LLM.with_bedrock(model="m", bearer_token=key(), base_url=url)
    yield google.LLM(model="m", base_url=f"{url}?key={key()}")
    yield aws.LLM(model="m", region="eu-west-1", base_url=url)
    yield mistralai.LLM("m", key(), base_url=f"{url}/v1")
    yield inference.LLM("openai/m", api_key=key(), api_secret=key(), base_url=f"{url}/v1")


def extra() -> dict[str, Any]:
    return {
        "extra_kwargs": {
            "extra_headers": {"X-Tenant-Token": f"{key()}-header"},
            "extra_query": {"sig": f"{key()}-query"},
        }
    }


async def calls(folder: Path) -> Errors:
    found: Errors = []
    async with failing() as ways:
        for url, cancelled in ways():
            for llm in models(url):
                found += await error_of(ask(llm, more=True), cancelled=cancelled)
                await llm.aclose()
        async with record(folder / "recordings") as transport:
            for url, cancelled in ways():
                base_url = f"{url}/v1?sig={key()}"
                llm = openai.LLM(model="m", base_url=base_url, transport=transport)
                found += await error_of(ask(llm, more=True), cancelled=cancelled)
                await llm.aclose()
    return found


async def proxies(folder: Path) -> Errors:
    found: Errors = []
    async with failing() as ways:
        for url, cancelled in ways():
            for target in ("http://example.org", "https://example.org"):
                for option in (True, False):
                    for name in ("http_proxy", "https_proxy"):
                        os.environ.pop(name, None)
                        if not option:
                            os.environ[name] = named(url)
                    transport = AiohttpTransport(proxy=named(url) if option else None)
                    base_url = f"{target}/v1?sig={key()}"
                    llm = openai.LLM(model="m", base_url=base_url, transport=transport)
                    found += await error_of(ask(llm), cancelled=cancelled)
                    await llm.aclose()
                    await transport.aclose()
    for name in ("http_proxy", "https_proxy"):
        os.environ.pop(name, None)
    return found


async def wrong_options(folder: Path) -> Errors:
    found: Errors = []
    for wrong in (
        lambda: openai.LLM(model="m", api_key=key(), temperature="hot"),  # type: ignore[arg-type]
        lambda: openai.LLM(model="m", base_url=f"ftp://u:{key()}@h"),
        lambda: openai.LLM(model="m", api_key=[key()]),  # type: ignore[arg-type]
        lambda: AiohttpTransport(proxy=f"ftp://u:{key()}@h"),
        lambda: mcp.MCPServerHTTP(f"ftp://u:{key()}@h/?key={key()}"),
        lambda: mcp.MCPServerStdio("x", key()),  # type: ignore[arg-type]
        lambda: google.LLM(model="m", vertexai=True, credentials={"private_key": key()}),
        lambda: aws.LLM(model="m", api_key=key(), api_secret=key(), region="nowhere"),
        lambda: RealtimeModel(api_key=key(), base_url=f"ftp://u:{key()}@h"),
    ):
        try:
            wrong()
        except ConfigurationError as error:
            found.append(error)
    return found


# where keys come from ----------------------------------------------------------------------------


async def files(folder: Path) -> Errors:
    """Keys in the files and processes of AWS."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        os.environ.pop(name, None)
    os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
    secret = folder / "credentials"
    secret.write_text(
        f"[good]\naws_access_key_id = AKID{key()}\naws_secret_access_key = {key()}\n"
        f"aws_session_token = {key()}\n[half]\naws_access_key_id = AKID{key()}\n"
        f"[role]\nrole_arn = arn:aws:iam::1:role/r\nsource_profile = good\n"
        f"[process]\ncredential_process = {sys.executable} -c exit(3) --key {key()}\n"
        f"[talks]\ncredential_process = /bin/echo {key()}\n"
    )
    os.environ["AWS_SHARED_CREDENTIALS_FILE"] = str(secret)
    os.environ["AWS_CONFIG_FILE"] = str(secret)
    found: Errors = []
    async with failing() as ways:
        for url, cancelled in ways():
            os.environ["AWS_ENDPOINT_URL_STS"] = url
            for profile in ("good", "half", "role", "process", "talks", "missing"):
                os.environ["AWS_PROFILE"] = profile
                for make in (aws.LLM, anthropic.LLM.with_bedrock):
                    try:
                        llm = make(model="m", region="eu-west-1", base_url=url)
                    except ConfigurationError as error:
                        found.append(error)
                        continue
                    found += await error_of(ask(llm), cancelled=cancelled)
                    await llm.aclose()
    secret.write_text(f"[good]\naws_secret_access_key {key()}\n")  # no file of this kind
    os.environ["AWS_PROFILE"] = "good"
    found += await error_of(ask(aws.LLM(model="m", region="eu-west-1")))
    os.environ.pop("AWS_PROFILE")
    return found


async def accounts(folder: Path) -> Errors:
    """Users of Google, and service accounts from a file.

    The server quotes the key of a user. That of a service account it never gets.
    """
    path = folder / "account.json"
    os.environ["GOOGLE_APPLICATION_CREDENTIALS"] = str(path)
    account = {
        "type": "service_account",
        "project_id": "p",
        "private_key_id": "1",
        "private_key": os.environ["CANARY_PEM"],
        "client_email": "a@p.iam.gserviceaccount.com",
    }
    found: Errors = []

    def user(url: str) -> Credentials:
        return Credentials(
            None, refresh_token=key(), client_id="c", client_secret=key(), token_uri=f"{url}/token"
        )

    async def sign_in(given: str | Credentials, cancelled: bool) -> None:
        path.write_text(given if isinstance(given, str) else "")
        credentials = None if isinstance(given, str) else given
        where = {"project": "p", "location": "us", "credentials": credentials}
        llm = google.LLM(model="m", vertexai=True, **where)
        found.extend(await error_of(ask(llm), cancelled=cancelled))
        await llm.aclose()

    async with failing() as ways:
        for url, cancelled in ways():
            await sign_in(user(url), cancelled)
    async with failing("the assertion is wrong") as ways:
        for url, cancelled in ways():
            asked = {**account, "token_uri": f"{url}/token"}
            await sign_in(json.dumps(asked), cancelled)
            await sign_in(json.dumps({**asked, "private_key": f"no key {key()}"}), cancelled)
            await sign_in(f'{{"private_key": "{key()}', cancelled)
    return found


# MCP ---------------------------------------------------------------------------------------------


async def use(server: mcp.MCPServer) -> None:
    """Start the server and call a tool; raise what the call has raised."""
    async with mcp.MCPToolset(id="m", mcp_server=server) as toolset:
        call = FunctionCall(call_id="c", name="t", arguments="{}")
        result = await execute_function_call(call, ToolContext([toolset]))
        print(result.fnc_call_out.output, file=sys.stderr)
        if result.raw_exception is not None:
            raise result.raw_exception


async def tools(folder: Path) -> Errors:
    """Over HTTP: both transports."""
    found: Errors = []
    async with failing() as ways:
        for url, cancelled in ways():
            for path in ("mcp", "sse"):
                server = mcp.MCPServerHTTP(
                    f"{named(url)}/{path}?api_key={key()}#{key()}",
                    {"X-Custom": key(), "Cookie": f"a={key()}"},
                    timeout=0.3,
                    startup_timeout=0.5,
                    client_session_timeout_seconds=0.5,
                    on_event=lambda event: print(event, file=sys.stderr),
                )
                print(server, file=sys.stderr)
                found += await error_of(server.initialize(), cancelled=cancelled)
                found += await error_of(server.call_tool("t"), cancelled=cancelled)
                await server.aclose()
                found += await error_of(use(server), cancelled=cancelled)
    return found


DIES = r"""
import json, os, sys, time
step = sys.argv[1]
def end():
    print("cannot use", sys.argv[2:], dict(os.environ), file=sys.stderr, flush=True)
    time.sleep(60) if step.endswith("?") else os._exit(3)
if step == "start":
    end()
for line in sys.stdin:
    message = json.loads(line)
    if message.get("id") is None:
        continue
    if message["method"] == step.rstrip("?"):
        print("cannot connect with", *sys.argv, *os.environ.values(), flush=True)
        end()
    result = {"tools": [{"name": "t", "inputSchema": {"type": "object"}}]}
    if message["method"] == "initialize":
        result = {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": {"name": "d", "version": "1"}}
    print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)
"""


async def processes(folder: Path) -> Errors:
    found: Errors = []
    steps = ["start", "initialize", "initialize?", "tools/list", "tools/call", "tools/call?"]
    for step in [*steps, "no command", "no folder", "cancelled"]:
        server = mcp.MCPServerStdio(
            "no-such-program" if step == "no command" else sys.executable,
            [
                *("-c", DIES, "tools/call?" if step == "cancelled" else step),
                *("--api-key", key(), f"--token={key()}", "--header", f"X-Key: {key()}"),
                f"https://u:{key()}@h/?key={key()}",
            ],
            env={"SOME_API_KEY": key(), "HARMLESS": f"{key()}-2"},
            cwd=folder / "missing" if step == "no folder" else None,
            startup_timeout=0.5 if step == "initialize?" else 20,
            client_session_timeout_seconds=20 if step == "cancelled" else 1,
            on_event=lambda event: print(event, file=sys.stderr),
        )
        print(server, file=sys.stderr)
        found += await error_of(server.initialize())
        found += await error_of(server.call_tool("t"), cancelled=step == "cancelled")
        await server.aclose()
        found += await error_of(use(server))
    return found


# realtime ----------------------------------------------------------------------------------------


def realtime(url: str, **options: Any) -> Iterator[Any]:
    options["conn_options"] = OPTIONS
    yield RealtimeModel(base_url=f"{url}/v1?sig={key()}", **options)
    yield GeminiLive(base_url=f"{url}?sig={key()}", **options)
    yield GPTLiveModel(base_url=f"{url}?sig={key()}", **options)
    if "transport" not in options:
        yield RealtimeModel(base_url=f"{named(url).replace('http', 'ws')}/v1", **options)
        yield NovaSonic(
            api_key=f"AKID{key()}", api_secret=key(), region="eu-north-1", base_url=url, **options
        )


async def sessions(folder: Path) -> Errors:
    found: Errors = []

    async def talk(model: Any, cancelled: bool) -> None:
        session = model.session()
        session.on("error", lambda event: found.append(event.error))
        asking = session.generate_reply()
        found.extend(await error_of(asking, cancelled=cancelled, within=1.5))
        print(model, session, file=sys.stderr)
        await session.aclose()
        await model.aclose()

    async with failing() as ways:
        for url, cancelled in ways():
            for model in realtime(url):
                await talk(model, cancelled)
        async with record_sessions(folder / "sessions") as transport:
            for url, cancelled in ways():
                for model in realtime(url, transport=transport):
                    await talk(model, cancelled)
    return found
