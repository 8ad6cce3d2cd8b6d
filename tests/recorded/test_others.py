"""Every recorded exchange of Anthropic (with its hosts), Gemini, Vertex AI, Bedrock and Mistral."""

from __future__ import annotations

from typing import Any

import pytest

from recorded.corpus import groups, required_root
from recorded.harness import check_group, survive_group
from recorded.reading_anthropic import messages
from recorded.reading_bedrock import converse
from recorded.reading_google import generate_content
from recorded.reading_openai import chat_completion
from rejoinder.providers import anthropic, aws, google, mistralai


def claude(url: str) -> Any:
    return anthropic.LLM(model="recorded", api_key="recorded", base_url=url)


def claude_on_azure(url: str) -> Any:
    return anthropic.LLM.with_azure(model="recorded", api_key="recorded", base_url=url)


def claude_on_vertex(url: str) -> Any:
    return anthropic.LLM.with_vertex(
        model="recorded", project="recorded", access_token="recorded", base_url=url
    )


HOSTS = {
    "azure-anthropic/messages": claude_on_azure,
    "vertex-anthropic/messages": claude_on_vertex,
}


def claude_on_bedrock(url: str) -> Any:
    return anthropic.LLM.with_bedrock(
        model="recorded", api_key="recorded", api_secret="recorded", base_url=url
    )


def gemini(url: str) -> Any:
    return google.LLM(model="recorded", api_key="recorded", base_url=url)


def vertex(url: str) -> Any:
    return google.LLM(model="recorded", api_key="recorded", vertexai=True, base_url=url)


def bedrock(url: str) -> Any:
    return aws.LLM(model="recorded", api_key="recorded", api_secret="recorded", base_url=url)


def mistral(url: str) -> Any:
    return mistralai.LLM(model="recorded", api_key="recorded", base_url=f"{url}/v1")


def test_recordings_are_there() -> None:
    """Says in the report that the recordings are absent, if they are."""
    required_root()
    assert len(groups(("messages", "generate-content", "converse"))) >= 7


@pytest.mark.parametrize("group", groups(("messages",), but="bedrock"))
async def test_messages(group: str) -> None:
    await check_group(group, HOSTS.get(group, claude), messages, binary=True)


async def test_messages_on_bedrock() -> None:
    await check_group(
        "bedrock-anthropic/messages",
        claude_on_bedrock,
        messages,
        binary=True,
        only=lambda exchange: exchange.content_type != "text/event-stream",
    )
    # Some of them were kept as events, without the frames they came in.
    await check_group(
        "bedrock-anthropic/messages",
        claude,
        messages,
        binary=True,
        only=lambda exchange: exchange.content_type == "text/event-stream",
    )


@pytest.mark.parametrize("group", groups(("generate-content",)))
async def test_generate_content(group: str) -> None:
    await check_group(group, vertex if group.startswith("vertex") else gemini, generate_content)


async def test_converse() -> None:
    await check_group("bedrock/converse", bedrock, converse, binary=True)


async def test_mistral() -> None:
    await check_group("mistral/chat-completions", mistral, chat_completion)


@pytest.mark.parametrize("group", groups(("messages",), "synthetic"))
async def test_hand_written_messages(group: str) -> None:
    await survive_group(group, claude)


@pytest.mark.parametrize("group", groups(("generate-content",), "synthetic"))
async def test_hand_written_generate_content(group: str) -> None:
    await survive_group(group, gemini)


@pytest.mark.parametrize("group", groups(("converse",), "synthetic"))
async def test_hand_written_converse(group: str) -> None:
    await survive_group(group, bedrock)
