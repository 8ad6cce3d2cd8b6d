"""The header fields that a caller passes win over all others, whatever their case, everywhere."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from contract.rows import KEY, ROWS, Row
from rejoinder.errors import APIConnectionError, APIError, ConfigurationError
from rejoinder.llm import ChatContext
from rejoinder.providers import anthropic, google, mistralai, openai
from rejoinder.transport.http import HttpResponse, Request
from rejoinder.types import APIConnectOptions

NO_RETRY = APIConnectOptions(max_retry=0, timeout=2.0)


class Sink:
    """A transport that keeps requests and answers none."""

    def __init__(self) -> None:
        self.requests: list[Request] = []

    async def send(self, request: Request) -> HttpResponse:
        self.requests.append(request)
        raise APIConnectionError("nobody answers", retryable=False)

    async def prewarm(self, url: str, *, timeout: float = 10.0) -> None: ...

    async def aclose(self) -> None: ...


async def sent(row: Row, headers: dict[str, str]) -> Request:
    async with row.make("http://127.0.0.1:1") as llm:
        await llm._transport.aclose()
        llm._transport = sink = Sink()
        chat_ctx = ChatContext.empty()
        chat_ctx.add_message(role="user", content="Hello")
        extra: dict[str, Any] = {"extra_headers": headers}
        with pytest.raises(APIError):
            await llm.chat(chat_ctx=chat_ctx, extra_kwargs=extra, conn_options=NO_RETRY).collect()
    (request,) = sink.requests
    return request


every_row = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)


@every_row
@pytest.mark.parametrize("spelled", [str.lower, str.upper, str.title])
async def test_a_field_of_the_caller_replaces_ours(row: Row, spelled: Any) -> None:
    plain = await sent(row, {})
    for name in [*plain.headers, "Authorization"]:
        if name.lower().startswith("x-amz-"):
            continue  # belongs to a signature, which an Authorization of the caller's replaces
        found = (await sent(row, {spelled(name): "the caller's"})).headers
        assert found[spelled(name)] == "the caller's", name
        assert max(Counter(map(str.lower, found)).values()) == 1, name


@every_row
async def test_an_authorization_of_the_caller_is_the_only_one(row: Row) -> None:
    found = (await sent(row, {"authorization": "Token mine"})).headers
    assert {k: v for k, v in found.items() if k.lower() == "authorization"} == {
        "authorization": "Token mine"
    }
    assert not any(name.lower().startswith("x-amz-date") for name in found)


@every_row
async def test_other_fields_are_added(row: Row) -> None:
    plain, more = await sent(row, {}), await sent(row, {"X-Mine": "1"})
    assert more.headers["X-Mine"] == "1"
    assert {name.lower() for name in more.headers} == {
        "x-mine",
        *(name.lower() for name in plain.headers),
    }
    assert KEY not in repr(more)


@pytest.mark.parametrize(
    "headers", [{"a b": "x"}, {"": "x"}, {"X": "a\r\nb"}, {"X": "\u00e9"}, {"X": b"x"}], ids=repr
)
def test_header_fields_that_cannot_be_sent_are_refused_where_they_are_given(headers: Any) -> None:
    for make in (
        lambda: openai.LLM(model="m", api_key="any", extra_headers=headers),
        lambda: anthropic.LLM(model="m", api_key="any", extra_headers=headers),
        lambda: google.LLM(model="m", api_key="any", extra_headers=headers),
        lambda: mistralai.LLM("m", "any", extra_headers=headers),
    ):
        with pytest.raises(ConfigurationError, match="header"):
            make()
