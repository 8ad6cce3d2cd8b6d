"""Reasoning of the Responses API goes back before the very item that it led to, also in a reply of
several messages."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder._core.collecting import Collector
from rejoinder.llm import ChatContext
from rejoinder.llm.chat_context import FunctionCall, FunctionCallOutput
from rejoinder.llm.formats import repair
from rejoinder.providers.openai.responses_format import to_chat_ctx
from rejoinder.providers.openai.responses_wire import make_decoder

Item = dict[str, Any]


def thought(number: int) -> Item:
    return {"type": "reasoning", "id": f"rs_{number}", "summary": [], "encrypted_content": "e"}


def message(number: int, text: str, phase: str | None) -> Item:
    part = {"type": "output_text", "text": text, "annotations": []}
    item: Item = {"type": "message", "id": f"msg_{number}", "role": "assistant", "content": [part]}
    return {**item, **({"phase": phase} if phase else {}), "status": "completed"}


def call(number: int) -> Item:
    return {
        "type": "function_call",
        "id": f"fc_{number}",
        "call_id": f"c{number}",
        "name": "f",
        "arguments": "{}",
        "status": "completed",
    }


def reply(items: list[Item], *, only_at_the_end: bool) -> bytes:
    events: list[dict[str, Any]] = []
    for place, item in enumerate(items):
        if item["type"] == "message":
            for letter in item["content"][0]["text"]:
                kind = "response.output_text.delta"
                events.append({"type": kind, "output_index": place, "delta": letter})
        if not only_at_the_end:
            events.append(
                {"type": "response.output_item.done", "output_index": place, "item": item}
            )
    whole = {"id": "resp_1", "status": "completed", "output": items}
    events.append({"type": "response.completed", "response": whole})
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)


def taken_back(data: bytes, heard: str | None = None) -> list[Item]:
    """The assistant's items in the next request. `heard`: what is left of the text."""
    decoder = make_decoder(allow_empty=True)
    collector = Collector()
    for chunk in [*decoder.feed(data), *decoder.close()]:
        collector.feed(chunk)
    told = collector.whole()
    context = ChatContext.empty()
    context.add_message(role="user", content="?")
    text = told.text if heard is None else heard
    said = context.add_message(
        role="assistant", content=text, extra=told.extra, interrupted=heard is not None
    )
    for made in told.tool_calls:
        item = FunctionCall(
            call_id=made.call_id,
            name=made.name,
            arguments=made.arguments,
            extra=made.extra or {},
            group_id=said.id,
        )
        result = FunctionCallOutput(call_id=made.call_id, name="f", output="1", is_error=False)
        context.items += [item, result]
    stored = ChatContext.from_dict(json.loads(json.dumps(context.to_dict())))
    items, _ = repair(stored.items, "openai.responses")
    return [
        item
        for item in to_chat_ctx(items)[0]
        if item.get("role") != "user" and item.get("type") != "function_call_output"
    ]


def short(item: Item) -> tuple[Any, ...]:
    """What of an item has to come back."""
    if item.get("type") == "reasoning":
        return ("reasoning", item["id"])
    if item.get("type") == "function_call":
        return ("call", item["call_id"], item.get("id"))
    content = item["content"]
    text = content if isinstance(content, str) else content[0]["text"]
    return ("message", text, item.get("id"), item.get("phase"))


words = st.tuples(
    st.booleans(),
    st.text("abc", min_size=1, max_size=3),
    st.sampled_from(["commentary", "final_answer"]),
)


@given(
    st.lists(words, max_size=4), st.lists(st.booleans(), max_size=3), st.booleans(), st.booleans()
)
def test_what_was_read_is_what_goes_back(
    told: list[tuple[bool, str, str]], calls: list[bool], phases: bool, only_at_the_end: bool
) -> None:
    """From the bytes of a reply through the items of a turn to the next request."""
    items: list[Item] = []
    wanted: list[tuple[Any, ...]] = []
    plain = ""  # messages to which no reasoning led need no id, and may be one
    for number, (thinks, text, named) in enumerate(told):
        phase = named if thinks and phases else None
        if thinks:
            items.append(thought(number))
        items.append(message(number, text, phase))
        if not thinks:
            plain += text
            continue
        if plain:
            wanted.append(("message", plain, None, None))
        plain = ""
        wanted += [short(thought(number)), ("message", text, f"msg_{number}", phase)]
    if plain:
        wanted.append(("message", plain, None, None))
    for number, thinks in enumerate(calls, 10):
        items += [*([thought(number)] if thinks else []), call(number)]
        if thinks:
            wanted.append(short(thought(number)))
        wanted.append(("call", f"c{number}", f"fc_{number}" if thinks else None))
    back = [short(item) for item in taken_back(reply(items, only_at_the_end=only_at_the_end))]
    assert joined(back) == joined(wanted)


def joined(items: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Texts that follow one another, without what reasoning led to, are one."""
    out: list[tuple[Any, ...]] = []
    for item in items:
        if item[0] == "message" and not item[1]:
            continue
        if item[0] == "message" and item[2] is None and out and out[-1][0] == "message":
            out[-1] = (*out[-1][:1], out[-1][1] + item[1], *out[-1][2:])
        else:
            out.append(item)
    return out


R0, R1 = ("reasoning", "rs_0"), ("reasoning", "rs_1")


@pytest.mark.parametrize(
    ("heard", "wanted"),
    [
        (
            "One. Tw",
            [R0, ("message", "One.", "msg_0", None), R1, ("message", " Tw", "msg_1", None)],
        ),
        ("One.", [R0, ("message", "One.", "msg_0", None)]),
        ("On", [R0, ("message", "On", "msg_0", None)]),
        ("Other.", [R1, ("message", "Other.", "msg_1", None)]),
    ],
)
def test_a_text_that_was_cut_or_changed_has_the_say(
    heard: str, wanted: list[tuple[Any, ...]]
) -> None:
    items = [thought(0), message(0, "One.", None), thought(1), message(1, " Two.", None)]
    data = reply(items, only_at_the_end=False)
    assert [short(item) for item in taken_back(data, heard)] == wanted
