"""The page's server on a loopback socket, in the process of the test."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from rejoinder.cli.web import explain
from rejoinder.providers import openai
from rejoinder.testing import FaultServer
from rejoinder.types import APIConnectOptions
from rejoinder.web.app import make_app
from rejoinder.web.memory import MemoryStore
from rejoinder.web.serve import Address, bind, serve
from rejoinder.web.team import Choice, Team


@dataclass
class Page:
    """A running server and a client with its token."""

    address: Address
    client: httpx.AsyncClient
    team: Team

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.address.port}"

    async def run(
        self, messages: Sequence[dict[str, Any]], *, thread: str = "t", run: str = "r", **more: Any
    ) -> list[dict[str, Any]]:
        """The events of a run."""
        return [event async for event in self.events(messages, thread=thread, run=run, **more)]

    async def events(
        self, messages: Sequence[dict[str, Any]], *, thread: str = "t", run: str = "r", **more: Any
    ) -> AsyncIterator[dict[str, Any]]:
        body = {
            "threadId": thread, "runId": run, "messages": list(messages), "tools": [],
            "context": [], "state": {}, "forwardedProps": {}, **more,
        }  # fmt: skip
        async with self.client.stream("POST", "/api/run", json=body) as response:
            if response.status_code != 200:
                await response.aread()
                raise AssertionError(f"{response.status_code}: {response.text}")
            assert response.headers["content-type"].startswith("text/event-stream")
            async for line in response.aiter_lines():
                if line.startswith("data: "):
                    yield json.loads(line.removeprefix("data: "))


def user(text: str, id: str = "u1") -> dict[str, Any]:
    """A message of the user."""
    return {"id": id, "role": "user", "content": text}


def spoken(events: Sequence[dict[str, Any]]) -> str:
    """The text of the answer."""
    return "".join(e["delta"] for e in events if e["type"] == "TEXT_MESSAGE_CONTENT")


def timeline(events: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The events of the timeline; the time of a text is in the event of the text."""
    told: list[dict[str, Any]] = []
    for event in events:
        if event.get("name") == "rejoinder.timeline":
            told.append(event["value"])
        elif event["type"] == "TEXT_MESSAGE_CONTENT":
            told.append({"kind": "text", "part": 0, **event["metadata"]["rejoinder"]})
    return told


Serve = Callable[..., Any]


@asynccontextmanager
async def serving(
    llms: Sequence[Any],
    *,
    local: bool = False,
    names: Sequence[str] = (),
    port: int = 0,
    **options: Any,
) -> AsyncGenerator[Page]:
    """A server for `llms`: models, or functions of a transport."""
    choices = [
        Choice(
            names[number] if names else f"model-{number}",
            llm if callable(llm) else (lambda _, llm=llm: llm),
            local=local or not callable(llm),
        )
        for number, llm in enumerate(llms)
    ]
    team = Team(choices)
    address = bind("127.0.0.1", port)
    options.setdefault("store", MemoryStore())
    options.setdefault("explain", explain)
    options.setdefault("conn_options", APIConnectOptions(max_retry=1, timeout=20))
    app = make_app(team, token=address.token, hosts=address.hosts, **options)
    server = asyncio.create_task(serve(app, address))
    headers = {"Authorization": f"Bearer {address.token}"}
    try:
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{address.port}",
            headers=headers,
            timeout=60,
            trust_env=False,
        ) as client:
            yield Page(address, client, team)
    finally:
        server.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await server


def provider(server: FaultServer, name: str = "m") -> Callable[[Any], Any]:
    """Makes a model that asks `server`, with a transport."""

    def make(transport: Any) -> Any:
        return openai.LLM(
            model=name, api_key="sk-canary-key", base_url=server.url + "/v1", transport=transport
        )

    return make


@pytest.fixture
def serve_page() -> Serve:
    return serving
