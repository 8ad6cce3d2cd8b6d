"""Who is refused, and what an answer forbids a browser."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from rejoinder.testing import ScriptedLLM
from rejoinder.web.guard import LARGEST_BODY
from web.laboratory import Page, serving

PATH = "/api/settings"


async def answer(page: Page, path: str, **fields: str) -> httpx.Response:
    headers = {name.replace("_", "-"): value for name, value in fields.items()}
    return await page.client.get(path, headers=headers)


async def test_the_right_token_is_let_in() -> None:
    async with serving([ScriptedLLM("Hi")]) as page:
        assert (await answer(page, PATH)).status_code == 200
        assert (await answer(page, PATH, origin=page.origin)).status_code == 200
        assert (await answer(page, PATH, host=f"localhost:{page.address.port}")).status_code == 200


async def test_a_wrong_token_is_refused() -> None:
    async with serving([ScriptedLLM("Hi")]) as page:
        for token in (
            "",
            "Bearer",
            "Bearer wrong",
            f"Bearer {page.address.token}x",
            "Bearer \u00e9",
        ):
            response = await page.client.get(
                PATH, headers={"authorization": token.encode("latin-1")}
            )
            assert response.status_code == 401, token
            assert "rejoinder web" in response.json()["error"]


async def test_another_origin_is_refused() -> None:
    async with serving([ScriptedLLM("Hi")]) as page:
        for origin in (
            "http://evil.example",
            "null",
            "https://127.0.0.1",
            f"{page.origin}.evil.example",
        ):
            assert (await answer(page, PATH, origin=origin)).status_code == 403, origin
        assert (await answer(page, PATH, sec_fetch_site="cross-site")).status_code == 403
        visit = {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate"}
        assert (await answer(page, "/", **visit)).status_code == 200


async def test_another_name_of_this_machine_is_refused() -> None:
    # DNS rebinding: the page of another site reaches this server by a name of its own.
    async with serving([ScriptedLLM("Hi")]) as page:
        for host in (
            "evil.example",
            f"evil.example:{page.address.port}",
            "127.0.0.1",
            "",
            "127.0.0.1:1",
        ):
            response = await answer(page, PATH, host=host)
            assert response.status_code in (400, 421), host


@pytest.mark.parametrize("told", [True, False])
async def test_a_paste_of_50_mb_is_refused(told: bool) -> None:
    async def body() -> AsyncIterator[bytes]:
        for _ in range(50):
            yield bytes(1 << 20)

    async with serving([ScriptedLLM("Hi")]) as page:
        headers = {"content-length": str(50 << 20)} if told else {}
        response = await page.client.post("/api/run", content=body(), headers=headers)
        assert response.status_code == 413
        assert f"{LARGEST_BODY >> 20} MB" in response.json()["error"]


async def test_every_answer_forbids_foreign_content() -> None:
    async with serving([ScriptedLLM("Hi")]) as page:
        for place in ("/", "/nothing", PATH, "/api/nothing"):
            headers = (await answer(page, place)).headers
            policy = headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert "http" not in policy
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["referrer-policy"] == "no-referrer"
            assert headers["cache-control"] == "no-store"
            assert "server" not in headers


async def test_the_page_names_no_host() -> None:
    async with serving([ScriptedLLM("Hi")]) as page:
        texts = [(await answer(page, place)).text for place in ("/",)]
        size = sum(len(text.encode()) for text in texts)
    allowed = ("http://www.w3.org/2000/svg",)
    for text in texts:
        for word in allowed:
            text = text.replace(word, "")
        assert "http://" not in text
        assert "https://" not in text
        assert page.address.token not in text
    assert size < 100_000


async def test_what_a_request_may_not_be() -> None:
    async with serving([ScriptedLLM("Hi")]) as page:
        cases: list[tuple[Any, str]] = [
            (b"not JSON", "JSON"),
            (b"[1]", "object"),
            (b'{"threadId": "t", "runId": "r"}', "messages"),
            (b'{"threadId": "", "runId": "r", "messages": []}', "threadId"),
            (b'{"threadId": "t", "runId": "r", "messages": [3]}', "a message"),
            (b"[" * 100_000, "JSON"),
        ]
        for body, word in cases:
            response = await page.client.post("/api/run", content=body)
            assert response.status_code == 400, body[:40]
            assert word in response.json()["error"]
