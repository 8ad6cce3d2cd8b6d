"""A finished text repeats what the deltas said and is not said again, however a server counts."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rejoinder.providers.openai.responses_wire import make_decoder

Event = dict[str, Any]


def delta(text: str, output: int = 0, part: int = 0) -> Event:
    return {
        "type": "response.output_text.delta",
        "delta": text,
        "output_index": output,
        "content_index": part,
    }


def done(text: str, output: int = 0, part: int = 0) -> Event:
    return {
        "type": "response.output_text.done",
        "text": text,
        "output_index": output,
        "content_index": part,
    }


def part_done(text: str, output: int = 0, part: int = 0) -> Event:
    held = {"type": "output_text", "text": text}
    return {
        "type": "response.content_part.done",
        "output_index": output,
        "content_index": part,
        "part": held,
    }


def message(*texts: str, name: str | None = "msg_1") -> Event:
    parts = [{"type": "output_text", "text": text, "annotations": []} for text in texts]
    item: Event = {"type": "message", "role": "assistant", "content": parts}
    return item if name is None else {**item, "id": name}


def item(held: Event, output: int = 0) -> Event:
    return {"type": "response.output_item.done", "output_index": output, "item": held}


def end(*items: Event) -> Event:
    return {
        "type": "response.completed",
        "response": {"id": "resp_1", "status": "completed", "output": list(items)},
    }


def uncounted(event: Event) -> Event:
    return {name: value for name, value in event.items() if not name.endswith("_index")}


HI = message("Hi you")
A, B = message("Yes.", name="msg_a"), message("Yes.", name="msg_b")
REASONING: Event = {"type": "reasoning", "id": "rs_1", "summary": []}

ORDERS: dict[str, tuple[list[Event], str]] = {
    "as OpenAI": (
        [delta("Hi "), delta("you"), done("Hi you"), part_done("Hi you"), item(HI), end(HI)],
        "Hi you",
    ),
    "deltas in another part": (
        [delta("Hi you", 0, 1), done("Hi you"), item(HI), end(HI)],
        "Hi you",
    ),
    "each event elsewhere": (
        [delta("Hi you"), done("Hi you", 0, 1), part_done("Hi you", 1, 2), item(HI, 3), end(HI)],
        "Hi you",
    ),
    "an item before it in the response": (
        [delta("Hi you", 1), done("Hi you", 2), item(HI), end(REASONING, HI)],
        "Hi you",
    ),
    "no index at all": (
        [*map(uncounted, [delta("Hi you"), done("Hi you"), item(HI)]), end(HI)],
        "Hi you",
    ),
    "no deltas": ([done("Hi you"), item(HI), end(HI)], "Hi you"),
    "the item alone": ([item(HI, 1), end(HI)], "Hi you"),
    "the response alone": ([end(HI)], "Hi you"),
    "half in deltas": ([delta("Hi"), done("Hi you", 0, 1), end(HI)], "Hi you"),
    "half in deltas, rest in the item": ([delta("Hi"), item(HI, 5), end(HI)], "Hi you"),
    "two parts": (
        [delta("Hi"), delta(" you", 0, 1), done("Hi", 0, 1), done(" you", 0, 2), end(HI)],
        "Hi you",
    ),
    "two parts that are one in the item": (
        [delta("Hi"), delta(" you", 0, 1), item(HI), end(message("Hi", " you"))],
        "Hi you",
    ),
    "items under other ids": (
        [delta("Hi you"), item(message("Hi you", name="x")), end(message("Hi you", name="y"))],
        "Hi you",
    ),
    "items without ids": ([delta("Hi you"), end(message("Hi you", name=None))], "Hi you"),
    "the same words in two messages": (
        [delta("Yes."), item(A), delta("Yes.", 1), item(B, 1), end(A, B)],
        "Yes.Yes.",
    ),
    "the same words twice, without deltas": (
        [done("Yes."), item(A), done("Yes.", 1), item(B, 1), end(A, B)],
        "Yes.Yes.",
    ),
    "the second message in the response alone": (
        [delta("Yes."), done("Yes."), item(A), end(A, message("No.", name="msg_b"))],
        "Yes.No.",
    ),
}


@pytest.mark.parametrize("order", ORDERS)
def test_each_text_is_said_once(order: str) -> None:
    events, text = ORDERS[order]
    decoder = make_decoder()
    chunks = [
        chunk
        for event in events
        for chunk in decoder.feed(b"data: " + json.dumps(event).encode() + b"\n\n")
    ]
    chunks += decoder.close()
    assert "".join(chunk.delta.content or "" for chunk in chunks if chunk.delta) == text
