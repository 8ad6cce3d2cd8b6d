"""Messages of providers as items: what both sides know comes back the same."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples import examples
from rejoinder.llm.chat_context import (
    ChatContext,
    ChatItem,
    ChatMessage,
    FunctionCall,
    FunctionCallOutput,
    ImageContent,
)
from rejoinder.llm.formats import repair

FORMATS = ["openai", "openai.responses", "anthropic", "google", "aws", "mistralai"]
PNG = b64encode(b"\x89PNG\r\n\x1a\nrest").decode()
DATA = f"data:image/png;base64,{PNG}"

# -- round trips ------------------------------------------------------------------------------

texts = st.text(st.characters(exclude_categories=["Cs", "Cc", "Z"]), min_size=1, max_size=6)
arguments = st.dictionaries(texts, st.integers() | texts | st.none(), max_size=2).map(json.dumps)
images = st.just(ImageContent(image=DATA))


@st.composite
def histories(draw: st.DrawFn) -> list[ChatItem]:
    """A legal conversation: instructions, questions, answers, calls with their outputs."""
    items: list[ChatItem] = []
    if draw(st.booleans()):
        items.append(ChatMessage(role="system", content=[draw(texts)]))
    number = 0
    for _ in range(draw(st.integers(1, 3))):
        content = draw(st.lists(texts | images, min_size=1, max_size=3))
        items.append(ChatMessage(role="user", content=content))
        for _ in range(draw(st.integers(0, 2))):
            turn = ChatMessage(role="assistant", content=[draw(texts)])
            if draw(st.booleans()):
                items.append(turn)
            calls: list[FunctionCall] = []
            for _ in range(draw(st.integers(1, 2))):
                number += 1
                calls.append(
                    FunctionCall(
                        call_id=f"call{number:05}",
                        name=draw(st.sampled_from(["look", "book"])),
                        arguments=draw(arguments),
                        group_id=turn.id,
                    )
                )
            items += calls
            items += [
                FunctionCallOutput(
                    call_id=call.call_id,
                    name=call.name,
                    output=draw(texts),
                    is_error=draw(st.booleans()),
                    images=draw(st.lists(images, max_size=2)),
                )
                for call in calls
            ]
        items.append(ChatMessage(role="assistant", content=[draw(texts)]))
        if draw(st.booleans()):
            items.append(ChatMessage(role="system", content=[draw(texts)]))
    items.append(ChatMessage(role="user", content=[draw(texts)]))
    return items


@pytest.mark.parametrize("format", FORMATS)
@given(items=histories())
def test_messages_come_back_the_same(format: str, items: list[ChatItem]) -> None:
    """Sent, read and sent again, a conversation is the same; and its items say the same."""
    messages, beside = ChatContext(items).to_provider_format(format)
    before = repr(messages)
    read = ChatContext.from_provider_format(format, messages, system=beside)
    assert repr(messages) == before
    again, beside_again = read.to_provider_format(format)
    assert again == messages
    assert beside_again == beside
    assert payload(read, format) == payload(ChatContext(items), format)


def payload(context: ChatContext, format: str) -> list[Any]:
    """What the format can say of each item; neighbours of one role are one there."""
    found: list[Any] = []
    items = list(context.items)
    if format in ("anthropic", "google", "aws"):
        # Instructions that come late stand at the top there.
        first = next((i for i in items if isinstance(i, ChatMessage) and i.role == "system"), None)
        items.sort(key=lambda item: item is not first)
    for item in items:
        match item:
            case ChatMessage(role=role):
                merged = format in ("anthropic", "google", "aws")
                # A text between texts is one with them in the formats of OpenAI.
                parts = [p if isinstance(p, str) else p.image for p in item.content]
                if found and merged and found[-1][0] == role:
                    found[-1][1].extend(parts)
                else:
                    found.append([role, parts])
            case FunctionCall():
                found.append([item.call_id, item.name, json.loads(item.arguments)])
            case FunctionCallOutput():
                tells = format in ("anthropic", "google", "aws")
                failed = item.is_error if tells else None
                shown = tells or format == "openai.responses"
                pictures = [picture.image for picture in item.images] if shown else []
                found.append([item.call_id, item.name, item.output, failed, pictures])
            case _:
                pass
    for entry in found:
        if len(entry) == 2 and format not in ("anthropic", "google", "aws"):
            entry[1] = [part for run in joined(entry[1]) for part in run]
    return found


def joined(parts: list[str]) -> list[list[str]]:
    runs: list[list[str]] = []
    for part in parts:
        if part.startswith("data:") or not runs or runs[-1][0].startswith("data:"):
            runs.append([part])
        else:
            runs[-1] = [f"{runs[-1][0]}\n{part}"]
    return runs


@pytest.mark.parametrize("format", FORMATS)
@examples(30)
@given(items=histories())
def test_what_was_read_can_be_sent_to_every_provider(format: str, items: list[ChatItem]) -> None:
    messages, beside = ChatContext(items).to_provider_format(format)
    read = ChatContext.from_provider_format(format, messages, system=beside)
    for other in FORMATS:
        mended, _ = repair(read.items, other)
        assert ChatContext(list(mended)).to_provider_format(other)[0]
    assert ChatContext.from_dict(read.to_dict(exclude_image=False)).is_equivalent(read)


# -- what each API sends ----------------------------------------------------------------------


def read(format: str, messages: Any, system: Any = None) -> list[ChatItem]:
    return ChatContext.from_provider_format(format, messages, system=system).items


def test_openai() -> None:
    items = read(
        "openai",
        [
            {"role": "developer", "content": "D"},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "look"},
                    {"type": "image_url", "image_url": {"url": "https://e.x/a.png", "detail": "low"}},
                    {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
                ],
            },
            {
                "role": "assistant",
                "content": None,
                "reasoning_content": "hm",
                "tool_calls": [
                    {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'},
                     "extra_content": {"google": {"thought_signature": "s"}}},
                    {"id": "c2", "type": "custom", "custom": {"name": "g", "input": "x"}},
                ],
            },
            {"role": "tool", "tool_call_id": "c1", "content": "1"},
            {"role": "tool", "tool_call_id": "c2", "content": [{"type": "text", "text": "2"}]},
            {"role": "assistant", "content": "", "refusal": "No."},
        ],
    )  # fmt: skip
    assert [item.type for item in items] == [
        "message", "message", "message", "function_call", "function_call",
        "function_call_output", "function_call_output", "message",
    ]  # fmt: skip
    developer, user, thought, one, two, first, second, refused = items
    assert isinstance(developer, ChatMessage)
    assert isinstance(user, ChatMessage)
    assert isinstance(thought, ChatMessage)
    assert isinstance(one, FunctionCall)
    assert isinstance(two, FunctionCall)
    assert isinstance(first, FunctionCallOutput)
    assert isinstance(second, FunctionCallOutput)
    assert isinstance(refused, ChatMessage)
    assert developer.role == "developer"
    assert isinstance(user.content[1], ImageContent)
    assert user.content[1].inference_detail == "low"
    (audio,) = user.extra["openai"]["unread"]["content"]
    assert (audio["at"], audio["part"]["type"]) == (2, "input_audio")
    assert thought.extra["openai"]["reasoning_content"] == "hm"
    assert one.group_id == two.group_id == thought.id
    assert one.extra["google"] == {"thought_signature": "s"}
    assert json.loads(two.arguments) == {"input": "x"}
    assert (first.name, first.output, second.output) == ("f", "1", "2")
    assert "No." in refused.content


def test_responses() -> None:
    reasoning = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "e"}
    said = {
        "type": "message",
        "id": "msg_1",
        "role": "assistant",
        "phase": "final_answer",
        "content": [{"type": "output_text", "text": "hi", "annotations": []}],
    }
    call = {"type": "function_call", "id": "fc_1", "call_id": "c", "name": "f", "arguments": "{}"}
    output = {"type": "function_call_output", "call_id": "c", "output": "r"}
    search = {"type": "web_search_call", "id": "ws_1", "status": "completed"}
    messages = ["q", reasoning, call, output, search, reasoning, said]
    items = read("openai.responses", [{"role": "user", "content": "q"}, *messages[1:]], "S")
    kinds = [item.type for item in items]
    assert kinds == ["message"] * 2 + ["function_call", "function_call_output"] + ["message"] * 2
    assert items[2].extra["openai"] == {"reasoning_items": [reasoning], "item_id": "fc_1"}  # type: ignore[union-attr]
    assert items[-1].extra["openai"]["phase"] == "final_answer"  # type: ignore[union-attr]
    sent, _ = ChatContext(items[1:]).to_provider_format("openai.responses")
    assert reasoning in sent
    assert {**call, "id": "fc_1"} in sent
    assert read("openai.responses", "hello")[0].content == ["hello"]  # type: ignore[union-attr]


def test_anthropic() -> None:
    thinking = {"type": "thinking", "thinking": "hm", "signature": "s"}
    use = {"type": "tool_use", "id": "c1", "name": "f", "input": {"a": 1}}
    result = {
        "type": "tool_result",
        "tool_use_id": "c1",
        "content": [
            {"type": "text", "text": "the page"},
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
        ],
        "is_error": True,
    }
    document = {
        "type": "document",
        "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERg=="},
    }
    messages = [
        {"role": "user", "content": "u"},
        {
            "role": "assistant",
            "content": [thinking, {"type": "text", "text": "wait"}, thinking, use],
        },
        {"role": "user", "content": [result, {"type": "text", "text": "v"}, document]},
        {"role": "assistant", "content": [{"type": "server_tool_use", "id": "s", "name": "n"}]},
    ]
    system = [{"type": "text", "text": "S", "cache_control": {"type": "ephemeral"}}]
    items = read("anthropic", messages, system)
    instructions, _, said, call, output, user, server = items
    assert isinstance(instructions, ChatMessage)
    assert isinstance(said, ChatMessage)
    assert isinstance(call, FunctionCall)
    assert isinstance(output, FunctionCallOutput)
    assert isinstance(user, ChatMessage)
    assert isinstance(server, ChatMessage)
    assert instructions.content == ["S"]
    assert said.extra["anthropic"]["thinking"] == [thinking]
    assert call.extra["anthropic"]["thinking"] == [thinking]
    assert (output.output, output.is_error) == ("the page", True)
    assert "v" in user.content
    assert [shown.image for shown in output.images] == [DATA]
    (pdf,) = [part for part in user.content if isinstance(part, ImageContent)]
    assert pdf.image == "data:application/pdf;base64,JVBERg=="
    (kept,) = server.extra["anthropic"]["unread"]["content"]
    assert kept == {"at": 0, "part": messages[3]["content"][0]}
    sent, _ = ChatContext(items[:5]).to_provider_format("anthropic")
    assert sent[1]["content"] == messages[1]["content"]


@pytest.mark.parametrize("camel", [True, False])
def test_google(camel: bool) -> None:
    call, response = (
        ("functionCall", "functionResponse") if camel else ("function_call", "function_response")
    )
    signature, inline = (
        ("thoughtSignature", "inlineData") if camel else ("thought_signature", "inline_data")
    )
    mime = "mimeType" if camel else "mime_type"
    contents = [
        {"role": "user", "parts": [{"text": "u"}, {inline: {mime: "image/png", "data": PNG}}]},
        {
            "role": "model",
            "parts": [
                {"text": "thinking", "thought": True},
                {"text": "wait"},
                {call: {"name": "f", "args": {"a": 1}}, signature: "c2ln"},
                {call: {"name": "f", "args": {"a": 2}}},
                {"executableCode": {"code": "1"}},
            ],
        },
        {
            "role": "user",
            "parts": [
                {response: {"name": "f", "response": {"output": "1"}}},
                {response: {"name": "f", "response": {"temperature": 2}}},
            ],
        },
    ]  # fmt: skip
    items = read("google", contents, {"parts": [{"text": "S"}]})
    calls = [item for item in items if isinstance(item, FunctionCall)]
    outputs = [item for item in items if isinstance(item, FunctionCallOutput)]
    assert [call.call_id for call in calls] == [output.call_id for output in outputs]
    assert calls[0].call_id != calls[1].call_id
    assert calls[0].extra == {"google": {"thought_signature": "c2ln"}}
    assert [output.output for output in outputs] == ["1", '{"temperature": 2}']
    said = [item for item in items if isinstance(item, ChatMessage)]
    assert [message.text_content for message in said] == ["S", "u", "wait"]
    parts = [{"text": "wait"}, {"functionCall": {}}, {"executableCode": {"code": "1"}}]
    assert said[2].extra == {"google": {"parts": parts}}
    sent, _ = ChatContext(items[1:]).to_provider_format("google")
    first, *_, last = sent[1]["parts"]
    assert (first, last) == ({"text": "wait"}, {"executable_code": {"code": "1"}})
    assert len(sent[1]["parts"]) == 4


def test_bedrock() -> None:
    raw = b"\x89PNG\r\n\x1a\nrest"
    reasoning = {"reasoningContent": {"redactedContent": b"\x00\xff"}}
    messages = [
        {"role": "user", "content": [{"text": "u"}, {"image": {"format": "png", "source": {"bytes": raw}}}]},
        {"role": "assistant", "content": [reasoning, {"toolUse": {"toolUseId": "c", "name": "f", "input": {}}}]},
        {"role": "user", "content": [
            {"toolResult": {"toolUseId": "c", "content": [{"json": {"a": 1}}], "status": "success"}},
            {"cachePoint": {"type": "default"}},
            {"guardContent": {"text": {"text": "x"}}},
        ]},
    ]  # fmt: skip
    items = read("aws", messages, [{"text": "S"}, {"cachePoint": {"type": "default"}}])
    _, user, call, output, guard = items
    assert isinstance(user, ChatMessage)
    assert isinstance(call, FunctionCall)
    assert isinstance(output, FunctionCallOutput)
    assert isinstance(guard, ChatMessage)
    assert user.content[1].image == DATA  # type: ignore[union-attr]
    assert output.output == '{"a": 1}'
    sent, _ = ChatContext(items[1:]).to_provider_format("aws")
    assert sent[1]["content"][0] == reasoning
    assert sent[2]["content"][1:] == [{"guardContent": {"text": {"text": "x"}}}]


@pytest.mark.parametrize(
    ("format", "messages", "told"),
    [
        ("openai", "hello", r"messages: expected a list, got str"),
        ("openai", [5], r"messages\[0\]: expected an object, got int"),
        ("openai", [{"role": "bot"}], r"messages\[0\]\.role"),
        ("openai", [{"role": "user", "content": 5}], r"messages\[0\]\.content: expected a text or a list"),
        ("openai", [{"role": "user", "content": [{"text": "x"}]}], r"messages\[0\]\.content\[0\]"),
        ("openai", [{"role": "assistant", "tool_calls": [{"id": "c"}]}], r"messages\[0\]\.tool_calls\[0\]"),
        ("openai.responses", [{}], r"input\[0\]"),
        ("anthropic", [{"role": "system", "content": "x"}], r"messages\[0\]\.role"),
        ("google", [{"role": "bot", "parts": []}], r"contents\[0\]\.role"),
        ("google", [{"role": "user", "parts": [{"inlineData": {"data": 5}}]}], r"contents\[0\]\.parts\[0\]"),
        ("aws", [{"role": "user", "content": [{}]}], r"messages\[0\]\.content\[0\]"),
        ("nothing", [], "unknown provider format"),
        ("mistralai.conversations", [], "cannot be converted back"),
    ],
)  # fmt: skip
def test_what_is_not_of_this_format_is_told_with_its_place(
    format: str, messages: Any, told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        read(format, messages)


def test_objects_of_the_vendors_packages() -> None:
    types = pytest.importorskip("openai.types.chat")
    message = types.ChatCompletionMessage.model_validate(
        {
            "role": "assistant",
            "content": "hi",
            "tool_calls": [
                {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
            ],
        }
    )
    said, call = read("openai", [message])
    assert isinstance(said, ChatMessage)
    assert isinstance(call, FunctionCall)
    assert (said.content, call.name) == (["hi"], "f")


PDF = "data:application/pdf;base64,JVBERi0xLjQK"


@pytest.mark.parametrize(
    ("format", "part", "url", "mime_type"),
    [
        ("openai", {"type": "file", "file": {"filename": "a.pdf", "file_data": PDF}}, PDF, None),
        ("openai.responses", {"type": "input_file", "file_data": PDF}, PDF, None),
        (
            "openai.responses",
            {"type": "input_file", "file_url": "https://example.com/a.pdf"},
            "https://example.com/a.pdf",
            "application/pdf",
        ),
    ],
)
def test_documents_of_openai_are_read(
    format: str, part: dict[str, Any], url: str, mime_type: str | None
) -> None:
    context = ChatContext.from_provider_format(
        format, [{"role": "user", "content": ["See:", part]}]
    )
    (message,) = context.items
    assert message.type == "message"
    text, document = message.content
    assert text == "See:"
    assert isinstance(document, ImageContent)
    assert (document.image, document.mime_type) == (url, mime_type)


@pytest.mark.parametrize("part", [{"file_id": "file-1"}, {"file": "x"}])
def test_a_document_that_lies_with_openai_stays_as_it_is(part: dict[str, Any]) -> None:
    part = {"type": "input_file", **part}
    context = ChatContext.from_provider_format(
        "openai.responses", [{"role": "user", "content": [part]}]
    )
    (message,) = context.items
    assert message.type == "message"
    kept = {"of": "openai.responses", "content": [{"at": 0, "part": part}]}
    assert message.extra == {"openai": {"unread": kept}}
    sent, _ = context.to_provider_format("openai.responses")
    assert sent == [{"role": "user", "content": [part]}]
