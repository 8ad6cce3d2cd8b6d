"""Keys of realtime models are in nothing that is shown of a failure, over WebSockets and HTTP/2."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from canaries import Records, all_records, inside, leaks
from contract.rows import KEY
from listening import listening
from rejoinder.providers.aws.realtime import RealtimeModel as NovaSonic
from rejoinder.providers.google.realtime import RealtimeModel as GeminiLive
from rejoinder.providers.openai.realtime import RealtimeModel as OpenAIRealtime
from rejoinder.testing import GeminiConnection, RealtimeConnection, RealtimeServer
from rejoinder.testing.faults import Answer, Fault, FaultServer
from rejoinder.testing.sonic_server import SonicConnection, SonicServer
from rejoinder.types import APIConnectOptions

pytestmark = pytest.mark.may_block

OPTIONS = APIConnectOptions(max_retry=1, retry_interval=0.01, timeout=1)
SAYS = f"The key {KEY} is not valid."


@dataclass(frozen=True)
class Vendor:
    """One kind of realtime model. `make`: the root of a server's address to a model."""

    name: str
    make: Callable[[str], Any]


VENDORS = [
    Vendor(
        "openai",
        lambda url: OpenAIRealtime(
            api_key=KEY, base_url=f"{url}/v1?sig={KEY}", conn_options=OPTIONS
        ),
    ),
    Vendor(
        "google",
        lambda url: GeminiLive(api_key=KEY, base_url=f"{url}?sig={KEY}", conn_options=OPTIONS),
    ),
    Vendor(
        "aws",
        lambda url: NovaSonic(
            api_key="AKIDEXAMPLE", api_secret=KEY, base_url=url, conn_options=OPTIONS
        ),
    ),
]
# A client over HTTP/2 loads certificates in a thread, for which a loop whose time jumps does not wait.
every_vendor = pytest.mark.parametrize(
    "vendor",
    [
        pytest.param(
            vendor, id=vendor.name, marks=[pytest.mark.looptime] if vendor.name != "aws" else []
        )
        for vendor in VENDORS
    ],
)


@pytest.fixture
def records() -> Iterator[Records]:
    with all_records(KEY) as found:
        yield found


async def failures(
    vendor: Vendor, url: str, *, cancelled: bool = False, wait: float = 3
) -> list[BaseException]:
    """All errors of a session that is asked for a reply."""
    model = vendor.make(url)
    session = model.session()
    errors: list[BaseException] = []
    session.on("error", lambda event: errors.append(event.error))
    shown = [*inside(model), *inside(session), *inside(model.capabilities)]
    asking = asyncio.ensure_future(session.generate_reply())
    try:
        if cancelled:
            await asyncio.sleep(0.05)
            asking.cancel()
        async with asyncio.timeout(wait):
            await asking
    except BaseException as error:
        errors.append(error)
    shown += [*inside(model), *inside(session)]
    await session.aclose()
    await model.aclose()
    assert not [text for text in shown if KEY in text]
    return errors


def places(errors: list[BaseException]) -> list[str]:
    return sorted({place for error in errors for place in leaks(error, [KEY])})


@every_vendor
@pytest.mark.parametrize(
    "fault",
    [
        Fault.NONE,
        Fault.STATUS_401,
        Fault.CLOSE_BEFORE_HEADERS,
        Fault.RESET_BEFORE_HEADERS,
        Fault.NOT_HTTP,
        Fault.STALL_BEFORE_HEADERS,
        Fault.REDIRECT_AWAY,
    ],
)
async def test_no_refused_session_shows_a_key(
    vendor: Vendor, fault: Fault, records: Records
) -> None:
    async with FaultServer(default=Answer(fault=fault, message=SAYS)) as server:
        errors = await failures(vendor, server.url)
    assert errors
    assert places(errors) == []
    assert records.leaks == set()


@every_vendor
async def test_no_port_that_refuses_shows_a_key(vendor: Vendor, records: Records) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    errors = await failures(vendor, f"http://127.0.0.1:{port}")
    assert errors
    assert places(errors) == []
    assert records.leaks == set()


@every_vendor
async def test_no_cancelled_session_shows_a_key(vendor: Vendor, records: Records) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with listening(silent) as url:
        errors = await failures(vendor, url, cancelled=True)
    assert any(isinstance(error, asyncio.CancelledError) for error in errors)
    assert places(errors) == []
    assert records.leaks == set()


async def reported(connection: Any) -> None:
    if isinstance(connection, GeminiConnection):
        await connection.send_message(error={"code": 400, "message": SAYS})
    elif isinstance(connection, SonicConnection):
        await connection.fail("validationException", SAYS)
    else:
        await connection.error(SAYS, code="invalid_api_key")


async def closed(connection: Any) -> None:
    if isinstance(connection, SonicConnection):
        connection.stream.goaway(1, debug=SAYS.encode())
    else:
        await connection.close(1008, SAYS)


async def garbled(connection: Any) -> None:
    if isinstance(connection, SonicConnection):
        connection.stream.write_raw(SAYS.encode())
    else:
        await connection.send_raw(SAYS)


async def dropped(connection: Any) -> None:
    (connection.stream if isinstance(connection, SonicConnection) else connection).drop()


@every_vendor
@pytest.mark.parametrize("act", [reported, closed, garbled, dropped])
@pytest.mark.parametrize("late", [False, True], ids=["at once", "in the reply"])
async def test_no_session_that_breaks_shows_a_key(
    vendor: Vendor, act: Callable[[Any], Awaitable[None]], late: bool, records: Records
) -> None:
    async def connect(connection: Any) -> None:
        await act(connection)

    async def hear(connection: Any, event: dict[str, Any]) -> bool:
        await act(connection)
        return False

    hooks: dict[str, Any] = {"on_event": hear} if late else {"on_connect": connect}
    async with AsyncExitStack() as stack:
        if vendor.name == "aws":
            server: Any = await stack.enter_async_context(SonicServer(**hooks))
        else:
            kind = GeminiConnection if vendor.name == "google" else RealtimeConnection
            made = RealtimeServer(connection=kind, **hooks)
            server = await stack.enter_async_context(made)
        errors = await failures(vendor, server.url.removesuffix("/v1"))
        assert server.connections
    assert errors or act is garbled  # what is no event is skipped
    assert places(errors) == []
    assert records.leaks == set()


@pytest.mark.parametrize("status", [400, 401, 403, 429, 500])
async def test_no_refusal_over_http_2_shows_a_key(status: int, records: Records) -> None:
    def refuse(number: int) -> tuple[int, str, str]:
        return status, "AccessDeniedException", SAYS

    async with SonicServer(refuse=refuse) as server:
        errors = await failures(VENDORS[2], server.url)
    assert errors
    assert places(errors) == []
    assert records.leaks == set()
