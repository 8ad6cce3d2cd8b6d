"""What really leaves: the body that each provider's LLM sends for a history as bad as they come."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from fuzz.histories import random_history
from rejoinder.errors import APIConnectionError, ConfigurationError
from rejoinder.llm.chat_context import ChatContext
from rejoinder.providers import anthropic, aws, google, inference, mistralai, openai
from rejoinder.testing.history import check_history
from rejoinder.transport.http import Request
from rejoinder.types import APIConnectOptions

pytestmark = pytest.mark.slow

MAKERS: dict[str, tuple[str, Callable[..., Any], dict[str, Any]]] = {
    "openai": ("openai", partial(openai.LLM, api_key="k"), {}),
    "openai responses": (
        "openai.responses",
        partial(openai.LLM, api_key="k", api="responses"),
        {},
    ),
    "anthropic": ("anthropic", partial(anthropic.LLM, model="claude-sonnet-4-6", api_key="k"), {}),
    "anthropic, prefill": (
        "anthropic",
        partial(anthropic.LLM, model="claude-3-5-sonnet-20241022", api_key="k"),
        {"prefill": True},
    ),
    "google": ("google", partial(google.LLM, model="gemini-2.5-flash", api_key="k"), {}),
    "google, signatures": (
        "google",
        partial(google.LLM, model="gemini-3-pro-preview", api_key="k"),
        {"signatures": True},
    ),
    "aws": ("aws", partial(aws.LLM, bearer_token="k"), {}),
    "mistralai": ("mistralai", partial(mistralai.LLM, api_key="k"), {}),
    "inference": ("openai", partial(inference.LLM, "x/y", api_key="k", api_secret="s"), {}),
}
ONCE = APIConnectOptions(max_retry=0)


class Catcher:
    """A transport that keeps what it is given and never reaches anybody."""

    def __init__(self) -> None:
        self.requests: list[Request] = []

    async def send(self, request: Request) -> Any:
        self.requests.append(request)
        raise APIConnectionError("caught")

    async def prewarm(self, url: str, *, timeout: float = 10.0) -> None:
        pass

    async def aclose(self) -> None:
        pass


@pytest.mark.parametrize("name", MAKERS)
async def test_every_body_is_legal(name: str) -> None:
    logging.disable(logging.WARNING)
    provider, make, options = MAKERS[name]
    catcher = Catcher()
    refused = 0
    llm = make(transport=catcher)
    try:
        for seed in range(150):
            history = random_history(seed)
            try:
                with pytest.raises(APIConnectionError):
                    await llm.chat(chat_ctx=ChatContext(history.items), conn_options=ONCE).collect()
            except ConfigurationError:
                refused += 1  # what the user shows now, and this model cannot see, is refused
                continue
            text = (catcher.requests[-1].body or b"").decode()
            body = json.loads(text)
            assert check_history(provider, body, **options) == [], seed
            assert [token for token in history.tokens if text.count(token) != 1] == [], seed
    finally:
        logging.disable(logging.NOTSET)
        await llm.aclose()
    assert refused < 50
    assert len(catcher.requests) == 150 - refused
