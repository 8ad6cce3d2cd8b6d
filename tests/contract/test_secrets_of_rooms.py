"""Keys are in nothing that the rooms around the models keep, export or show of a failure: the web
page and its exports, spans and metrics, conversations in a store, delegated tasks, fallbacks.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import zipfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from canaries import Records, all_records, inside, leaks
from contract.rows import KEY
from rejoinder import FallbackAdapter, telemetry
from rejoinder.conversation import Conversation
from rejoinder.delegation import Delegate
from rejoinder.llm import RealtimeModelFallbackAdapter, function_tool
from rejoinder.providers import openai
from rejoinder.providers.openai.live import GPTLiveModel
from rejoinder.providers.openai.realtime import RealtimeModel
from rejoinder.store import SqliteStore
from rejoinder.testing import LiveConnection, RealtimeConnection, RealtimeServer
from rejoinder.testing.faults import Answer, Fault, FaultServer
from rejoinder.turn import run_turn
from rejoinder.types import APIConnectOptions
from telemetry.recorded import recording
from web.laboratory import serving, user

pytestmark = pytest.mark.may_block

OPTIONS = APIConnectOptions(max_retry=1, retry_interval=0.01, timeout=0.3)
SAYS = f"Incorrect API key provided: {KEY}, {KEY}-header, {KEY}-query"
EXTRA = {
    "extra_headers": {"X-Tenant-Token": f"{KEY}-header"},
    "extra_query": {"sig": f"{KEY}-query"},
}
FAULTS = [
    Fault.STATUS_401,
    Fault.STATUS_502_HTML,
    Fault.RESET_BEFORE_HEADERS,
    Fault.RESET_MID_STREAM,
    Fault.STALL_BEFORE_HEADERS,
    Fault.ERROR_EVENT_MID_STREAM,
    Fault.REDIRECT_AWAY,
]
every_fault = pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.value)
answered = pytest.mark.parametrize(
    "fault",
    [Fault.STATUS_401, Fault.RESET_MID_STREAM, Fault.ERROR_EVENT_MID_STREAM],
    ids=lambda fault: fault.value,
)


@pytest.fixture
def records() -> Iterator[Records]:
    with all_records(KEY) as found:
        yield found


@asynccontextmanager
async def failing(fault: Fault, **options: Any) -> AsyncIterator[openai.LLM]:
    """A model whose server fails, and quotes all keys that it has."""
    async with (
        FaultServer(default=Answer(fault=fault, message=SAYS)) as server,
        openai.LLM(
            model="m",
            api_key=KEY,
            base_url=f"{server.url}/v1?key={KEY}",
            **EXTRA,
            **options,
        ) as llm,
    ):
        yield llm


@function_tool
async def look() -> str:
    """Look out."""
    return "rain"


async def error_of(work: Any) -> BaseException | None:
    try:
        await work
    except BaseException as error:
        return error
    return None


@every_fault
async def test_turns_spans_and_conversations(
    fault: Fault, tmp_path: Path, records: Records
) -> None:
    path = tmp_path / "talk.sqlite"
    with recording() as recorded:
        telemetry.capture_content(True)
        async with failing(fault) as one, failing(fault, api="responses") as two:
            store = SqliteStore(path)
            conversation = Conversation(store)
            await conversation.load()
            conversation.chat_ctx.add_message(role="user", content="Hi")
            turn = run_turn(
                FallbackAdapter([one, two], attempt_timeout=0.3),
                conversation.chat_ctx,
                tools=[look],
                journal=conversation,
                conn_options=OPTIONS,
            )
            error = await error_of(turn.collect())
            await store.aclose()
        shown = [*inside(turn), *inside(conversation), recorded.everything()]
    assert error is not None or fault is Fault.REDIRECT_AWAY
    assert leaks(error, [KEY]) == []
    assert [text for text in shown if KEY in text] == []
    assert [file.name for file in tmp_path.iterdir() if KEY.encode() in file.read_bytes()] == []
    assert records.leaks == set()


@answered
async def test_the_page_and_its_exports(fault: Fault, records: Records) -> None:
    async with FaultServer(default=Answer(fault=fault, message=SAYS)) as server:

        def make(transport: Any) -> Any:
            base_url = f"{server.url}/v1?key={KEY}"
            return openai.LLM(
                model="m", api_key=KEY, base_url=base_url, transport=transport, **EXTRA
            )

        async with serving([make, make], conn_options=OPTIONS) as page:
            told = [json.dumps(await page.run([user("Hi")], thread="t"))]
            for at in ("overview", "settings", "conversations", "conversations/t"):
                told.append((await page.client.get(f"/api/{at}")).text)
            told.append((await page.client.get("/api/conversations/t/export")).text)
            recorded = await page.client.get("/api/conversations/t/recording")
            assert recorded.status_code == 200
            with zipfile.ZipFile(io.BytesIO(recorded.content)) as files:
                told += [files.read(name).decode() for name in files.namelist()]
    assert len(server.requests) > 1
    assert [text for text in told if KEY in text] == []
    assert records.leaks == set()


async def reported(connection: Any) -> None:
    await connection.error(SAYS, code="invalid_api_key")


async def closed(connection: Any) -> None:
    await connection.close(1008, SAYS)


async def dropped(connection: Any) -> None:
    connection.drop()


@pytest.mark.looptime
@pytest.mark.parametrize("act", [reported, closed, dropped])
@pytest.mark.parametrize("late", [False, True], ids=["at once", "in the reply"])
@pytest.mark.parametrize("kind", ["live", "fallback"])
async def test_sessions(act: Any, late: bool, kind: str, records: Records) -> None:
    async def connect(connection: Any) -> None:
        await act(connection)

    async def hear(connection: Any, event: dict[str, Any]) -> bool:
        await act(connection)
        return False

    hooks: dict[str, Any] = {"on_event": hear} if late else {"on_connect": connect}
    made = LiveConnection if kind == "live" else RealtimeConnection
    errors: list[Any] = []
    async with RealtimeServer(connection=made, **hooks) as server:
        options: dict[str, Any] = {
            "api_key": KEY,
            "base_url": f"{server.url}?sig={KEY}",
            "conn_options": OPTIONS,
        }
        models: list[Any]
        if kind == "live":
            models = [GPTLiveModel(**options)]
            model: Any = models[0]
        else:
            models = [RealtimeModel(**options), RealtimeModel(**options)]
            model = RealtimeModelFallbackAdapter(models, attempt_timeout=10)
        session = model.session()
        session.on("error", lambda event: errors.append(event.error))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(60):
                errors.append(await error_of(session.connected()))
                if kind == "fallback":
                    errors.append(await error_of(session.generate_reply()))
                else:
                    await asyncio.sleep(30)
        shown = [*inside(session), *inside(model)]
        await session.aclose()
        await model.aclose()
        for each in models:
            await each.aclose()
        assert server.connections
    assert len(errors) > 1
    assert [text for text in shown if KEY in text] == []
    assert sorted({place for error in errors for place in leaks(error, [KEY])}) == []
    assert records.leaks == set()


@answered
async def test_a_delegated_task(fault: Fault, records: Records) -> None:
    async with (
        failing(fault) as llm,
        RealtimeServer(connection=LiveConnection) as server,
    ):
        model = GPTLiveModel(
            api_key="any", base_url=server.url, delegation=Delegate(llm), conn_options=OPTIONS
        )
        session = model.session()
        await session.connected()
        (live,) = server.connections
        assert isinstance(live, LiveConnection)
        await live.words_of_user("How is the weather?")
        await live.delegate()
        async with asyncio.timeout(20):
            while not [text for how, task, text in live.told if how == "commentary" and task]:
                await asyncio.sleep(0.01)
        told = repr(live.told)
        await session.aclose()
        await model.aclose()
    assert KEY not in told
    assert records.leaks == set()
