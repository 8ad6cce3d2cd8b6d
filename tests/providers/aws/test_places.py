"""Reasoning of Bedrock goes back where it stood, also between two texts of one reply."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder._core.collecting import Collector
from rejoinder._core.items import ChatItem
from rejoinder.llm import ChatContext
from rejoinder.llm.chat_context import FunctionCall, FunctionCallOutput
from rejoinder.llm.formats import repair
from rejoinder.providers.aws.format import to_chat_ctx
from rejoinder.providers.aws.inverse import from_messages
from rejoinder.providers.aws.wire import make_decoder
from rejoinder.wire.eventstream import encode_message

Block = dict[str, Any]


def said(text: str) -> Block:
    return {"text": text}


def thought(text: str = "hm") -> Block:
    return {"reasoningContent": {"reasoningText": {"text": text, "signature": "c2ln"}}}


SEALED: Block = {"reasoningContent": {"redactedContent": b"sealed"}}


def use(number: int) -> Block:
    return {"toolUse": {"toolUseId": f"t{number}", "name": "f", "input": {"a": number}}}


def event(name: str, **members: Any) -> bytes:
    head = {":event-type": name, ":content-type": "application/json", ":message-type": "event"}
    return encode_message(head, json.dumps(members).encode())


def reply(*blocks: Block) -> bytes:
    """The events of a reply that holds `blocks`."""
    events = [event("messageStart", role="assistant")]
    for index, block in enumerate(blocks):
        if "text" in block:
            deltas: list[Block] = [{"text": letter} for letter in block["text"]]
        elif "toolUse" in block:
            start = {name: block["toolUse"][name] for name in ("toolUseId", "name")}
            events.append(
                event("contentBlockStart", contentBlockIndex=index, start={"toolUse": start})
            )
            deltas = [{"toolUse": {"input": json.dumps(block["toolUse"]["input"])}}]
        elif block == SEALED:
            deltas = [{"reasoningContent": {"redactedContent": "c2VhbGVk"}}]
        else:
            inner = block["reasoningContent"]["reasoningText"]
            deltas = [{"reasoningContent": {name: inner[name]}} for name in ("text", "signature")]
        events += [event("contentBlockDelta", contentBlockIndex=index, delta=d) for d in deltas]
        events.append(event("contentBlockStop", contentBlockIndex=index))
    events.append(event("messageStop", stopReason="tool_use"))
    events.append(event("metadata", usage={"inputTokens": 1, "outputTokens": 1, "totalTokens": 2}))
    return b"".join(events)


def together(blocks: list[Block]) -> list[Block]:
    """Texts that follow one another are one."""
    out: list[Block] = []
    for block in blocks:
        if out and "text" in out[-1] and "text" in block:
            out[-1] = said(out[-1]["text"] + block["text"])
        else:
            out.append(block)
    return out


def assistants(items: list[ChatItem]) -> list[Block]:
    return [
        block
        for message in to_chat_ctx(items)[0]
        if message["role"] == "assistant"
        for block in message["content"]
    ]


thoughts = st.text("abc", min_size=1, max_size=3).map(thought) | st.just(SEALED)
texts = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=4).map(said)


@given(st.lists(thoughts | texts, max_size=8), st.lists(thoughts | st.integers(0, 99), max_size=4))
def test_what_was_read_is_what_goes_back(told: list[Block], then: list[Block | int]) -> None:
    """From the bytes of a reply through the items of a turn to the next request."""
    blocks = [*told]
    for number, entry in enumerate(then):
        blocks.append(use(number) if isinstance(entry, int) else entry)
    blocks.append(use(100))
    decoder = make_decoder(allow_empty=True)
    collector = Collector()
    for chunk in [*decoder.feed(reply(*blocks)), *decoder.close()]:
        collector.feed(chunk)
    heard = collector.whole()
    context = ChatContext.empty()
    context.add_message(role="user", content="?")
    message = context.add_message(role="assistant", content=heard.text, extra=heard.extra)
    for call in heard.tool_calls:
        made = FunctionCall(
            call_id=call.call_id,
            name=call.name,
            arguments=call.arguments,
            extra=call.extra or {},
            group_id=message.id,
        )
        result = FunctionCallOutput(call_id=call.call_id, name="f", output="1", is_error=False)
        context.items += [made, result]
    stored = ChatContext.from_dict(json.loads(json.dumps(context.to_dict())))
    items, _ = repair(stored.items, "aws")
    assert together(assistants([*items])) == together(blocks)


@given(st.lists(thoughts | texts, max_size=8))
def test_messages_that_were_taken_over_go_back_as_they_came(blocks: list[Block]) -> None:
    blocks = [*blocks, said("end")]
    messages = [
        {"role": "user", "content": [said("?")]},
        {"role": "assistant", "content": blocks},
    ]
    assert together(assistants(from_messages(messages))) == together(blocks)


@pytest.mark.parametrize(
    ("heard", "content"),
    [
        ("One. Two. Three.", [said("One."), thought(), said(" Two. Three.")]),
        ("One. Tw", [said("One."), thought(), said(" Tw")]),
        ("One.", [said("One.")]),  # nothing follows the thought, and no turn may end with it
        ("On", [said("On")]),
        ("Other words.", [thought(), said("Other words.")]),
    ],
)
def test_a_text_that_was_cut_or_changed_has_the_say(heard: str, content: list[Block]) -> None:
    context = ChatContext.empty()
    context.add_message(role="user", content="?")
    reasoning = [said("One."), thought()["reasoningContent"]]
    context.add_message(role="assistant", content=heard, extra={"aws": {"reasoning": reasoning}})
    items, _ = repair(context.items, "aws")
    assert assistants([*items]) == content
