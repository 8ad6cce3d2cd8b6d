"""A document that was read from a provider's messages goes back with all that was written beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from providers.conversation import sent
from rejoinder.llm.chat_context import ChatContext, ImageContent
from rejoinder.providers import anthropic, aws, google, openai

PDF = "JVBERi0xLjQK"
DATA = f"data:application/pdf;base64,{PDF}"
FORMS: dict[str, tuple[Callable[[str], Any], str, str, dict[str, Any], list[dict[str, Any]]]] = {
    "anthropic": (
        lambda url: anthropic.LLM(api_key="k", base_url=url),
        "messages",
        "content",
        {"type": "text", "text": "read it"},
        [
            {
                "type": "document",
                "source": {"type": "base64", "media_type": "application/pdf", "data": PDF},
                "title": "The report",
                "context": "from the archive",
                "citations": {"enabled": True},
            },
            {
                "type": "document",
                "source": {"type": "url", "url": "https://example.com/a.pdf"},
                "title": "Another",
                "citations": {"enabled": True},
            },
        ],
    ),
    "google": (
        lambda url: google.LLM(api_key="k", base_url=url),
        "contents",
        "parts",
        {"text": "read it"},
        [
            {"inlineData": {"mimeType": "application/pdf", "data": PDF, "displayName": "report"}},
            {"fileData": {"mimeType": "video/mp4", "fileUri": "gs://b/x.mp4"}, "videoMetadata": {"fps": 2}},
        ],
    ),
    "aws": (
        lambda url: aws.LLM(api_key="k", api_secret="s", base_url=url),
        "messages",
        "content",
        {"text": "read it"},
        [
            {
                "document": {
                    "format": "pdf",
                    "name": "The report",
                    "source": {"bytes": PDF},
                    "context": "from the archive",
                    "citations": {"enabled": True},
                }
            }
        ],
    ),
    "openai": (
        lambda url: openai.LLM(model="gpt-5", api_key="k", base_url=f"{url}/v1"),
        "messages",
        "content",
        {"type": "text", "text": "read it"},
        [{"type": "file", "file": {"filename": "report.pdf", "file_data": DATA}}],
    ),
    "openai.responses": (
        lambda url: openai.LLM(model="gpt-5", api_key="k", base_url=f"{url}/v1", api="responses"),
        "input",
        "content",
        {"type": "input_text", "text": "read it"},
        [
            {"type": "input_file", "filename": "report.pdf", "file_data": DATA, "detail": "low"},
            {"type": "input_file", "file_url": "https://example.com/a.pdf", "detail": "high"},
        ],
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
async def test_chat_sends_a_document_back_as_it_was_written(form: str) -> None:
    make, member, content, text, documents = FORMS[form]
    messages = [{"role": "user", content: [*documents, text]}]
    context = ChatContext.from_provider_format(form, messages)
    assert (await sent(make, context)).json()[member] == messages


async def test_a_document_that_was_replaced_is_sent_as_it_is_now() -> None:
    make, member, content, text, documents = FORMS["anthropic"]
    messages = [{"role": "user", content: [documents[0], text]}]
    context = ChatContext.from_provider_format("anthropic", messages)
    said: Any = context.items[0]
    said.content[0] = ImageContent(image="data:application/pdf;base64,JVBERi0xLjUK")
    (turn,) = (await sent(make, context)).json()[member]
    assert turn[content][0]["source"]["data"] == "JVBERi0xLjUK"
    assert "title" not in turn[content][0]


async def test_what_one_format_keeps_goes_to_no_other() -> None:
    messages = [{"role": "user", "content": [*FORMS["anthropic"][4][:1], FORMS["anthropic"][3]]}]
    context = ChatContext.from_provider_format("anthropic", messages)
    make, member, content, *_ = FORMS["aws"]
    (turn,) = (await sent(make, context)).json()[member]
    (document,) = [block["document"] for block in turn[content] if "document" in block]
    assert document.keys() == {"format", "name", "source"}
