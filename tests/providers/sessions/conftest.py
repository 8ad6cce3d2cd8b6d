from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from rejoinder.testing import RealtimeServer


@pytest.fixture
async def server() -> AsyncIterator[RealtimeServer]:
    async with RealtimeServer() as server:
        yield server
