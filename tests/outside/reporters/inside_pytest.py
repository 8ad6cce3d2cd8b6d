"""Tests that have to fail, for ``pytest -l``."""

from __future__ import annotations

import asyncio

import pytest
from inside_failures import DIES, ask, key, models, realtime, use

from rejoinder.llm import mcp

NOWHERE = "http://127.0.0.1:9"


@pytest.mark.parametrize("number", range(11))
def test_model(number: int) -> None:
    asyncio.run(ask(list(models(NOWHERE))[number]))


def test_tools_over_http() -> None:
    asyncio.run(use(mcp.MCPServerHTTP(f"{NOWHERE}/mcp?api_key={key()}", {"X-Key": key()})))


def test_tools_of_a_process() -> None:
    asyncio.run(use(mcp.MCPServerStdio("python3", ["-c", DIES, "start", "--api-key", key()])))


@pytest.mark.parametrize("number", range(5))
def test_session(number: int) -> None:
    async def talk() -> None:
        await list(realtime(NOWHERE))[number].session().generate_reply()

    asyncio.run(talk())
