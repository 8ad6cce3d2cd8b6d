"""Blocks of the providers that we do not know come back to them in their place, and go to no other."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.conversation import sent
from rejoinder._core.repair import repair
from rejoinder.llm.chat_context import ChatContext, ChatMessage
from rejoinder.providers import anthropic, aws, google

texts = st.text(st.characters(exclude_categories=["Cs", "Cc", "Z"]), min_size=1, max_size=6)
FORMATS = ["anthropic", "google", "aws"]
OTHERS = ["openai", "openai.responses", "mistralai"]


def strange(*blocks: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.sampled_from(blocks).map(deepcopy)


ANTHROPIC = strange(
    {"type": "hologram", "of": [1, {"y": None}]},
    {"type": "search_result", "source": "s", "title": "hologram", "content": []},
    {"type": "container_upload", "file_id": "file_hologram"},
)
THINKING = {"type": "thinking", "thinking": "hm", "signature": "hologram"}
AWS = strange(
    {"guardContent": {"text": {"text": "hologram"}}},
    {"video": {"format": "mp4", "source": {"bytes": b"hologram"}}},
    {"searchResult": {"source": "hologram", "title": "t", "content": [{"text": "x"}]}},
)
REASONING = {"reasoningContent": {"reasoningText": {"text": "hm", "signature": "hologram"}}}
GOOGLE = strange({"hologram": {"of": [1]}}, {"executable_code": {"code": "hologram"}})
SIGNED = st.sampled_from(
    [
        {"text": "", "thought_signature": b"hologram-1"},
        {"text": "hm", "thought": True, "thought_signature": b"hologram-2"},
        {"text": "signed", "thought_signature": b"hologram-3"},
        {"tool_call": {"id": "t", "hologram": 1}, "thought_signature": b"hologram-4"},
    ]
).map(deepcopy)


def apart(blocks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without texts next to each other: of those in a message with state one text may be made."""
    out: list[dict[str, Any]] = []
    for block in blocks:
        if out and out[-1].keys() == block.keys() and is_text(out[-1]) and is_text(block):
            continue
        out.append(block)
    return out


def is_text(block: dict[str, Any]) -> bool:
    return bool(block.get("text")) and block.get("type", "text") == "text"


@st.composite
def conversations(draw: st.DrawFn, form: str) -> list[dict[str, Any]]:
    assistant, content = ("model", "parts") if form == "google" else ("assistant", "content")

    def text() -> dict[str, Any]:
        said = {"text": draw(texts)}
        return {"type": "text", **said} if form == "anthropic" else said

    def blocks(unknown: st.SearchStrategy[Any]) -> list[dict[str, Any]]:
        flags = draw(st.lists(st.booleans(), max_size=3))
        return apart([text(), *(draw(unknown) if flag else text() for flag in flags)])

    unknown: Any = {"anthropic": ANTHROPIC, "google": GOOGLE, "aws": AWS}[form]
    state: Any = {
        "anthropic": ANTHROPIC | st.just(THINKING),
        "google": GOOGLE | SIGNED,
        "aws": AWS | st.just(REASONING),
    }[form]
    messages: list[dict[str, Any]] = []
    for number in range(draw(st.integers(1, 3))):
        messages.append({"role": "user", content: blocks(unknown)})
        reply = [*blocks(state), text()]
        if draw(st.booleans()):
            use, result = called(
                form, f"c{number}", draw(texts), draw(unknown), draw(st.booleans())
            )
            messages.append({"role": assistant, content: [*apart(reply), use]})
            messages.append({"role": "user", content: [result]})
            messages.append({"role": assistant, content: [text()]})
        else:
            messages.append({"role": assistant, content: apart(reply)})
    return [*messages, {"role": "user", content: [text()]}]


def called(form: str, name: str, text: str, unknown: Any, kept: bool) -> tuple[Any, Any]:
    """A call, and its result, with something that we do not know if `kept`."""
    if form == "anthropic":
        content: Any = [{"type": "text", "text": text}, unknown] if kept else text
        return (
            {"id": name, "type": "tool_use", "name": "f", "input": {}},
            {"tool_use_id": name, "type": "tool_result", "content": content, "is_error": False},
        )
    if form == "aws":
        content = [{"text": text}, *([unknown] if kept else [])]
        return (
            {"toolUse": {"toolUseId": name, "name": "f", "input": {}}},
            {"toolResult": {"toolUseId": name, "content": content, "status": "success"}},
        )
    held = {"id": name, "name": "f", "response": {"output": text}}
    further = {"parts": [{"inlineData": {"data": "hologram"}}]} if kept else {}
    signature = {"thought_signature": b"hologram"} if kept else {}
    return (
        {"function_call": {"id": name, "name": "f", "args": {}}, **signature},
        {"function_response": {**further, **held}},
    )


@pytest.mark.parametrize("form", FORMATS)
@given(data=st.data())
def test_blocks_come_back_equal(form: str, data: st.DataObject) -> None:
    messages = data.draw(conversations(form))
    before = deepcopy(messages)
    read = ChatContext.from_provider_format(form, messages)
    assert read.to_provider_format(form)[0] == before
    assert messages == before
    stored = ChatContext.from_dict(json.loads(json.dumps(read.to_dict(exclude_image=False))))
    mended, changes = repair(stored.items, form)
    assert changes == []
    assert ChatContext(list(mended)).to_provider_format(form)[0] == before
    for other in [*OTHERS, *FORMATS]:
        if other == form:
            continue
        mended, _ = repair([plain(item) for item in read.items], other)
        assert "hologram" not in repr(ChatContext(list(mended)).to_provider_format(other))


def plain(item: Any) -> Any:
    """Outputs are texts, and to others they are what is read of the parts, as JSON."""
    if item.type == "function_call_output":
        return item.model_copy(update={"output": "r"})
    return item


@pytest.mark.parametrize(
    ("form", "block"),
    [
        ("anthropic", {"type": "container_upload", "file_id": "file_1"}),
        ("aws", {"guardContent": {"text": {"text": "x"}}}),
        ("google", {"hologram": {}}),
    ],
)
def test_a_message_that_holds_only_what_we_do_not_know_is_sent(form: str, block: Any) -> None:
    content = "parts" if form == "google" else "content"
    messages = [{"role": "user", content: [block]}]
    read = ChatContext.from_provider_format(form, messages)
    mended, changes = repair([*read.items, ChatMessage(role="user", content=[" "])], form)
    assert [change.kind for change in changes] == ["text", "dropped"]
    assert ChatContext(list(mended)).to_provider_format(form)[0] == messages


def model(form: str, url: str) -> Any:
    options: dict[str, Any] = {
        "anthropic": {"api_key": "k", "model": "claude-sonnet-4-5"},
        "google": {"api_key": "k", "model": "gemini-3-pro-preview"},
        "aws": {"api_key": "a", "api_secret": "s", "model": "anthropic.claude-sonnet-4-5"},
    }[form]
    kinds: Any = {"anthropic": anthropic.LLM, "google": google.LLM, "aws": aws.LLM}
    return kinds[form](**options, base_url=url)


@pytest.mark.parametrize(
    ("form", "messages"),
    [
        (
            "anthropic",
            [
                {
                    "role": "user",
                    "content": [
                        {"type": "container_upload", "file_id": "file_1"},
                        {"type": "text", "text": "q"},
                    ],
                },
                {"role": "assistant", "content": [{"type": "hologram", "of": 1}]},
                {"role": "user", "content": [{"type": "text", "text": "r"}]},
            ],
        ),
        (
            "google",
            [
                {"role": "user", "parts": [{"text": "q"}, {"hologram": {"of": 1}}]},
                {
                    "role": "model",
                    "parts": [
                        {"text": "a", "thoughtSignature": "QUFB"},
                        {"text": "b"},
                        {"text": "", "thoughtSignature": "QkJC"},
                    ],
                },
                {"role": "user", "parts": [{"text": "r"}]},
            ],
        ),
        (
            "aws",
            [
                {"role": "user", "content": [{"text": "q"}, {"guardContent": {"text": {"text": "x"}}}]},
                {"role": "assistant", "content": [{"text": "a"}, {"hologram": {"of": 1}}]},
                {"role": "user", "content": [{"text": "r"}]},
            ],
        ),
    ],
)  # fmt: skip
async def test_chat_sends_it_back(form: str, messages: list[dict[str, Any]]) -> None:
    read = ChatContext.from_provider_format(form, messages)
    body = (await sent(lambda url: model(form, url), read)).json()
    assert body["contents" if form == "google" else "messages"] == messages


PDF = "JVBERi0xLjQK"
DOCUMENTS: list[tuple[str, dict[str, Any]]] = [
    (
        "anthropic",
        {
            "type": "document",
            "source": {"type": "base64", "media_type": "application/pdf", "data": PDF},
            "title": "t",
            "citations": {"enabled": True},
        },
    ),
    ("google", {"inline_data": {"mime_type": "application/pdf", "data": PDF}}),
    ("aws", {"document": {"format": "md", "name": "n", "source": {"bytes": b"# hi"}}}),
]


@pytest.mark.parametrize(("form", "document"), DOCUMENTS)
def test_documents_come_back_equal(form: str, document: dict[str, Any]) -> None:
    text = {"type": "text", "text": "a"} if form == "anthropic" else {"text": "a"}
    content = "parts" if form == "google" else "content"
    messages = [{"role": "user", content: [text, document, text]}]
    read = ChatContext.from_provider_format(form, deepcopy(messages))
    stored = ChatContext.from_dict(json.loads(json.dumps(read.to_dict(exclude_image=False))))
    for context in (read, stored):
        assert context.to_provider_format(form)[0] == messages


@pytest.mark.parametrize(("form", "document"), DOCUMENTS)
async def test_a_document_is_sent_once(form: str, document: dict[str, Any]) -> None:
    text = {"type": "text", "text": "a"} if form == "anthropic" else {"text": "a"}
    content = "parts" if form == "google" else "content"
    read = ChatContext.from_provider_format(form, [{"role": "user", content: [text, document]}])
    body = (await sent(lambda url: model(form, url), read)).json()
    (message,) = body["contents" if form == "google" else "messages"]
    assert len(message[content]) == 2
    assert str(message).count(PDF if form != "aws" else "IyBoaQ==") == 1
