"""Every recorded Chat Completions and Responses exchange, of every host, through `openai.LLM`."""

from __future__ import annotations

from typing import Any

import pytest

from recorded.corpus import groups, required_root
from recorded.harness import check_group, survive_group
from recorded.reading_openai import chat_completion, response
from rejoinder.providers import openai

CHAT = ("chat-completions",)
RESPONSES = ("responses",)


def chat(url: str) -> Any:
    return openai.LLM(model="recorded", api_key="recorded", base_url=f"{url}/v1")


def responses(url: str) -> Any:
    return openai.LLM(model="recorded", api_key="recorded", base_url=f"{url}/v1", api="responses")


def test_recordings_are_there() -> None:
    """Says in the report that the recordings are absent, if they are."""
    required_root()
    assert len(groups(CHAT)) >= 20
    assert len(groups(RESPONSES)) >= 7


@pytest.mark.parametrize("group", groups(CHAT))
async def test_chat_completions(group: str) -> None:
    await check_group(group, chat, chat_completion)


@pytest.mark.parametrize("group", groups(RESPONSES))
async def test_responses(group: str) -> None:
    await check_group(group, responses, response)


@pytest.mark.parametrize("group", groups(CHAT, "synthetic"))
async def test_hand_written_chat_completions(group: str) -> None:
    await survive_group(group, chat)


@pytest.mark.parametrize("group", groups(RESPONSES, "synthetic"))
async def test_hand_written_responses(group: str) -> None:
    await survive_group(group, responses)
