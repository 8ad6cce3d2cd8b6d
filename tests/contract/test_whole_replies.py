"""The memory of a whole reply, from the socket to `collect`: at most 64 MiB, whatever is sent."""

from __future__ import annotations

import pytest

from contract.hostile import GENERATORS, LARGE, sending
from contract.rows import ROWS, Row
from rejoinder.errors import APIError
from rejoinder.llm import ChatContext
from rejoinder.testing.leaks import measure_memory
from rejoinder.types import APIConnectOptions

pytestmark = [pytest.mark.slow, pytest.mark.may_block]

MOST = 64 << 20


async def collected(row: Row, body: bytes, *, packed: bool = False) -> int:
    """Bytes that a reply takes at most."""
    chat_ctx = ChatContext.empty()
    chat_ctx.add_message(role="user", content="hi")
    with sending(row, body, packed=packed) as url:
        async with row.make(url) as llm:
            with measure_memory() as memory:
                try:
                    await llm.chat(
                        chat_ctx=chat_ctx, conn_options=APIConnectOptions(max_retry=0, timeout=60)
                    ).collect()
                except APIError:
                    pass
    return memory.peak


@pytest.mark.parametrize(
    "row", {row.format: row for row in reversed(ROWS)}.values(), ids=lambda row: row.name
)
@pytest.mark.parametrize("packed", [False, True])
async def test_memory_is_bounded(row: Row, packed: bool) -> None:
    peaks: dict[str, int] = {}
    await collected(row, GENERATORS["long texts"](row, 1_000))  # imports, caches
    for name in [*LARGE, "long texts"]:
        size = 40_000_000 if name == "long texts" else 8_300_000  # just below the limit of an event
        peaks[name] = await collected(row, GENERATORS[name](row, size), packed=packed)
    assert {name: peak for name, peak in peaks.items() if peak > MOST} == {}
