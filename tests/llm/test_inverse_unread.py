"""What a provider's messages hold and we do not know comes back to it, and goes to no other."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from examples import examples
from providers.conversation import sent
from rejoinder._core.dialects import find
from rejoinder._core.repair import repair
from rejoinder.llm.chat_context import ChatContext, ChatItem, ChatMessage, FunctionCall
from rejoinder.providers import openai

CHAT = ["openai", "inference", "mistralai"]
OTHERS = ["anthropic", "google", "aws"]

texts = st.text(st.characters(exclude_categories=["Cs", "Cc", "Z"]), min_size=1, max_size=6)
AUDIO = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
PDF = "data:application/pdf;base64,JVBERi0xLjQK"
unknown_parts = st.sampled_from(
    [
        AUDIO,
        {"type": "file", "file": {"file_id": "file-1"}},
        {"type": "file", "file": {"file_data": PDF, "filename": "a.pdf"}},
        {"type": "hologram", "of": ["x", {"y": None}]},
        {"type": "text", "text": "kept", "cache_control": {"type": "ephemeral"}},
        {"type": "image_url", "image_url": {"url": "https://e.x/a.png", "detail": "original"}},
    ]
)
known_images = st.just(
    {"type": "image_url", "image_url": {"url": "https://e.x/b.png", "detail": "low"}}
)
known_texts = texts.map(lambda text: {"type": "text", "text": text})
fields = st.fixed_dictionaries(
    {}, optional={"name": texts, "hint": st.lists(st.integers(), max_size=2)}
)


def parts(known: st.SearchStrategy[Any], unknown: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """A list with at least one part that we do not know: others may be written as one text."""
    around = st.lists(known | unknown, max_size=2)
    return st.tuples(around, unknown, around).map(lambda found: [*found[0], found[1], *found[2]])


@st.composite
def chat_messages(draw: st.DrawFn) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    for number in range(draw(st.integers(1, 3))):
        content = draw(texts | parts(known_texts | known_images, unknown_parts))
        role = draw(st.sampled_from(["user", "user", "system"]))
        messages.append({"role": role, "content": content, **draw(fields)})
        said = draw(texts | parts(known_texts, st.just({"type": "refusal", "refusal": "No."})))
        reply: dict[str, Any] = {"role": "assistant", "content": said, **draw(fields)}
        if draw(st.booleans()):
            reply["reasoning_content"] = draw(texts)
        if draw(st.booleans()):
            reply["audio"] = {"id": "audio_1"}
        if isinstance(said, str) and draw(st.booleans()):
            reply["refusal"] = draw(texts)
        if draw(st.booleans()):
            calls = [
                {"id": f"a{number}", "type": "custom", "custom": {"name": "g", "input": "x"}},
                {
                    "id": f"b{number}",
                    "type": "function",
                    "function": {"name": "f", "arguments": "{}", "why": draw(texts)},
                    "index": 1,
                    "extra_content": {"google": {"thought_signature": "s"}, "acme": {"z": 1}},
                },
            ]
            reply["tool_calls"] = calls
            messages.append(reply)
            messages += [
                {
                    "role": "tool",
                    "tool_call_id": call["id"],
                    "content": draw(texts | parts(known_texts, unknown_parts)),
                    **draw(fields),
                }
                for call in calls
            ]
        else:
            messages.append(reply)
    return [*messages, {"role": "user", "content": draw(texts)}]


@pytest.mark.parametrize("format", CHAT)
@examples(40)
@given(messages=chat_messages())
def test_chat_messages_come_back_equal(format: str, messages: list[dict[str, Any]]) -> None:
    before = deepcopy(messages)
    read = ChatContext.from_provider_format(format, messages)
    assert read.to_provider_format(format)[0] == before
    assert messages == before
    stored = ChatContext.from_dict(json.loads(json.dumps(read.to_dict(exclude_image=False))))
    assert stored.to_provider_format(format)[0] == before
    for other in [*OTHERS, "openai.responses"]:
        mended, _ = repair(with_plain_outputs(read), other)
        sent = repr(ChatContext(list(mended)).to_provider_format(other))
        assert not any(
            word in sent for word in ("hologram", "input_audio", "cache_control", "acme")
        )


def with_plain_outputs(context: ChatContext) -> list[ChatItem]:
    """Its items; outputs are texts, and to others they are what is read of the parts, as JSON."""
    return [
        item.model_copy(update={"output": "r"}) if item.type == "function_call_output" else item
        for item in context.items
    ]


response_parts = st.sampled_from(
    [
        AUDIO,
        {"type": "input_file", "file_id": "file-1"},
        {"type": "input_file", "file_data": PDF, "filename": "a.pdf"},
        {"type": "input_image", "file_id": "file-2", "detail": "low"},
        {"type": "hologram", "of": ["x"]},
    ]
)
unknown_items = st.sampled_from(
    [
        {"type": "web_search_call", "id": "ws_1", "status": "completed"},
        {"type": "item_reference", "id": "msg_9"},
        {"type": "mcp_call", "id": "m_1", "name": "n", "arguments": "{}", "output": None},
    ]
)
input_texts = texts.map(lambda text: {"type": "input_text", "text": text})
output_texts = texts.map(lambda text: {"type": "output_text", "text": text})
refusals = st.just({"type": "refusal", "refusal": "No."})
REASONING = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "e"}


@st.composite
def input_items(draw: st.DrawFn) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = []
    for number in range(draw(st.integers(1, 3))):
        content = draw(texts | parts(input_texts, response_parts))
        entries.append({"role": "user", "content": content, **draw(fields)})
        if draw(st.booleans()):
            entries.append(REASONING)
            entries.append(draw(unknown_items))
        entries += draw(st.lists(unknown_items, max_size=2))
        if draw(st.booleans()):
            calls = [
                {"type": "custom_tool_call", "call_id": f"a{number}", "name": "g", "input": "x"},
                {
                    "type": "function_call",
                    "call_id": f"b{number}",
                    "name": "f",
                    "arguments": "{}",
                    "namespace": draw(texts),
                },
            ]
            for call in calls:
                output = draw(texts | parts(input_texts, response_parts))
                kind = f"{call['type']}_output"
                entries.append(call)
                entries.append({"type": kind, "call_id": call["call_id"], "output": output})
        said = draw(texts | parts(output_texts, refusals))
        entries.append({"role": "assistant", "content": said, **draw(fields)})
    return entries


@given(messages=input_items())
def test_input_items_come_back_equal(messages: list[dict[str, Any]]) -> None:
    before = deepcopy(messages)
    read = ChatContext.from_provider_format("openai.responses", messages)
    assert read.to_provider_format("openai.responses")[0] == before
    assert messages == before
    stored = ChatContext.from_dict(json.loads(json.dumps(read.to_dict(exclude_image=False))))
    assert stored.to_provider_format("openai.responses")[0] == before
    for other in [*OTHERS, *CHAT]:
        mended, _ = repair(with_plain_outputs(read), other)
        sent = repr(ChatContext(list(mended)).to_provider_format(other))
        assert not any(word in sent for word in ("hologram", "web_search", "file-2", "namespace"))


@pytest.mark.parametrize("format", [*CHAT, "openai.responses"])
def test_a_message_that_holds_only_what_we_do_not_know_is_sent(format: str) -> None:
    """What `chat()` mends before it sends leaves it alone."""
    messages = [{"role": "user", "content": [AUDIO]}]
    read = ChatContext.from_provider_format(format, messages)
    name = "openai" if format == "inference" else format
    mended, changes = repair([*read.items, ChatMessage(role="user", content=[" "])], name)
    assert [change.kind for change in changes] == ["dropped"]
    assert ChatContext(mended).to_provider_format(format)[0] == messages
    mended, changes = repair(read.items, name)
    assert changes == []


def test_an_item_that_we_do_not_know_is_sent_by_chat() -> None:
    search = {"type": "web_search_call", "id": "ws_1", "status": "completed"}
    messages = [{"role": "user", "content": "q"}, search, {"role": "user", "content": "r"}]
    read = ChatContext.from_provider_format("openai.responses", messages)
    mended, _ = repair([*read.items, ChatMessage(role="user", content=[" "])], "openai.responses")
    assert ChatContext(mended).to_provider_format("openai.responses")[0] == messages


def test_what_was_changed_since_has_the_say() -> None:
    marked = {"type": "text", "text": "old", "cache_control": {}}
    custom = {"id": "c", "type": "custom", "custom": {"name": "g", "input": "x"}}
    read = ChatContext.from_provider_format(
        "openai",
        [
            {"role": "user", "content": [marked, AUDIO]},
            {"role": "assistant", "content": "a", "refusal": "No.", "tool_calls": [custom]},
            {"role": "tool", "tool_call_id": "c", "content": [marked]},
        ],
    )
    asked, refused, call, output = read.items
    assert isinstance(asked, ChatMessage)
    assert isinstance(refused, ChatMessage)
    assert isinstance(call, FunctionCall)
    asked.content = ["new"]
    refused.content = ["a"]
    call.arguments = '{"input": "y"}'
    output.output = "other"  # type: ignore[union-attr]
    sent, _ = read.to_provider_format("openai")
    function = {"name": "g", "arguments": '{"input": "y"}'}
    assert sent == [
        {"role": "user", "content": [{"type": "text", "text": "new"}, AUDIO]},
        {
            "role": "assistant",
            "content": "a",
            "tool_calls": [{"id": "c", "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": "c", "content": "other"},
    ]


def test_reasoning_goes_back_as_the_model_wants_it_where_that_is_known() -> None:
    messages = [{"role": "assistant", "content": "a", "reasoning_content": "hm", "name": "n"}]
    read = ChatContext.from_provider_format("openai", messages)
    assert read.to_provider_format("openai")[0] == messages
    (sent,), _ = read.to_provider_format("openai", reasoning_back="never")
    assert sent == {"role": "assistant", "content": "a", "name": "n"}


@pytest.mark.parametrize(
    ("message", "path"),
    [
        ({"role": "assistant", "content": "", "refusal": ["No."]}, r"messages\[0\]\.refusal"),
        ({"role": "assistant", "function_call": "f"}, r"messages\[0\]\.function_call"),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": 3}}]},
            r"messages\[0\]\.content\[0\]",
        ),
        ({"role": "user", "content": [{"text": "no type"}]}, r"messages\[0\]\.content\[0\]"),
    ],
)
def test_what_cannot_be_kept_is_refused_with_its_path(message: dict[str, Any], path: str) -> None:
    with pytest.raises(ValueError, match=path):
        ChatContext.from_provider_format("openai", [message])


@pytest.mark.parametrize("unread", [3, {}, {"of": "openai", "content": 3, "fields": []},
                                    {"of": "openai", "content": [3, {"at": "x"}], "call": "x"}])  # fmt: skip
def test_a_damaged_state_is_left_out(unread: Any) -> None:
    items = ChatContext(
        [ChatMessage(role="user", content=["a"], extra={"openai": {"unread": unread}})]
    )
    (sent,), _ = items.to_provider_format("openai")
    assert sent["content"] in ("a", [{"type": "text", "text": "a"}])


FILE = {"type": "file", "file": {"file_data": PDF, "filename": "a.pdf"}}


@pytest.mark.parametrize(
    ("api", "messages"),
    [
        (
            "chat",
            [
                {"role": "user", "content": [{"type": "text", "text": "q"}, AUDIO], "name": "n"},
                {"role": "assistant", "content": "", "refusal": "No."},
                {"role": "user", "content": [AUDIO]},
            ],
        ),
        (
            "responses",
            [
                {"role": "user", "content": [{"type": "input_file", "file_id": "file-1"}]},
                {"type": "web_search_call", "id": "ws_1", "status": "completed"},
                {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
                {"role": "user", "content": "r"},
            ],
        ),
    ],
)
async def test_chat_sends_it_back(api: Any, messages: list[dict[str, Any]]) -> None:
    form, member = ("openai", "messages") if api == "chat" else ("openai.responses", "input")
    context = ChatContext.from_provider_format(form, messages)
    request = await sent(
        lambda url: openai.LLM(model="gpt-5", api_key="k", base_url=f"{url}/v1", api=api), context
    )
    assert request.json()[member] == messages


@pytest.mark.parametrize("beside", [[], [AUDIO]])
async def test_a_document_is_sent_once(beside: list[dict[str, Any]]) -> None:
    said = [{"type": "text", "text": "see"}, FILE, *beside]
    context = ChatContext.from_provider_format("openai", [{"role": "user", "content": said}])
    request = await sent(
        lambda url: openai.LLM(model="gpt-5", api_key="k", base_url=f"{url}/v1"), context
    )
    (message,) = request.json()["messages"]
    kinds = [part["type"] for part in message["content"]]
    # Documents go in front of the text, as all that `chat()` attaches.
    assert kinds == ["file", "text", *("input_audio" for _ in beside)]
    assert message["content"][0]["file"]["file_data"] == PDF


def test_messages_that_are_joined_keep_what_both_hold() -> None:
    dialect = find("openai")
    assert dialect.rules is not None
    strict = replace(dialect, rules=replace(dialect.rules, alternates=True))
    hologram = {"type": "hologram", "of": "x"}
    text = {"type": "text", "text": "t"}
    read = ChatContext.from_provider_format(
        "openai",
        [
            {"role": "user", "content": [text, AUDIO], "hint": 1},
            {"role": "user", "content": [hologram, text], "name": "n"},
            {"role": "user", "content": [AUDIO]},
        ],
    )
    mended, _ = repair(read.items, strict)  # type: ignore[arg-type]
    (sent,), _ = ChatContext(mended).to_provider_format("openai")
    content = [text, AUDIO, hologram, text, AUDIO]
    assert sent == {"role": "user", "content": content, "hint": 1, "name": "n"}
