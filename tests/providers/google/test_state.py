"""Signed parts of a reply go back unchanged and in their place."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples import examples
from providers.google.test_wire import answer, said, sse, stop
from rejoinder._core.collecting import merge_extra
from rejoinder._core.repair import repair
from rejoinder.llm import ChatContext, FunctionCall, FunctionCallOutput
from rejoinder.providers.google.format import to_contents


def signature(number: int) -> str:
    return b64encode(f"signature {number}".encode()).decode()


def sent_back(found: Any, heard: str | None = None, model: str = "google") -> list[dict[str, Any]]:
    """The parts of the assistant's turn that is made of a reply, without ids."""
    context = ChatContext.empty()
    context.add_message(role="user", content="q")
    extra: dict[str, Any] = {"google": {}}
    for state in found.state:
        for name, value in state["google"].items():
            held = extra["google"].get(name)
            extra["google"][name] = held + value if isinstance(held, list) else value
    text = found.text.strip() if heard is None else heard
    group = "g"
    if text:
        context.add_message(role="assistant", content=text, extra=extra, id=group)
    elif found.calls:  # as a turn keeps what came without a message
        found.calls[0].extra = first = found.calls[0].extra or {}
        merge_extra(first, extra)
    for call in found.calls:
        context.insert(
            FunctionCall(
                call_id=call.call_id,
                name=call.name,
                arguments=call.arguments,
                extra=call.extra or {},
                group_id=group,
            )
        )
    for call in found.calls:
        context.insert(
            FunctionCallOutput(call_id=call.call_id, name=call.name, output="r", is_error=False)
        )
    context.add_message(role="user", content="z")
    items, changes = repair(context.items, model)
    assert changes == []
    turns, _ = to_contents(items)
    (turn,) = [turn for turn in turns if turn["role"] == "model"]
    parts: list[dict[str, Any]] = []
    for part in turn["parts"]:
        if "thoughtSignature" in part:
            part["thoughtSignature"] = b64encode(part["thoughtSignature"]).decode()
        if "functionCall" in part:
            part["functionCall"].pop("id")
        parts.append(part)
    return parts


words = st.text("abc é漢", min_size=1, max_size=6).filter(str.strip)


@st.composite
def replies(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Parts of a reply, as they come in one event or in several."""
    kinds = draw(st.lists(st.sampled_from(["text", "empty", "code", "thought"]), max_size=5))
    parts: list[dict[str, Any]] = []
    for number, kind in enumerate([*kinds, draw(st.sampled_from(["text", "call"]))]):
        part: dict[str, Any]
        if kind == "text":
            part = {"text": draw(words)}
        elif kind == "empty":
            part = {"text": ""}
        elif kind == "code":
            part = {"executableCode": {"code": "1", "language": "PYTHON"}}
        elif kind == "thought":
            part = {"text": draw(words), "thought": True}
        else:
            part = {"functionCall": {"name": "f", "args": {"a": number}}}
        if kind in ("empty", "thought") or draw(st.booleans()):
            part["thoughtSignature"] = signature(number)
        parts.append(part)
    if "functionCall" in parts[-1]:
        for number in range(draw(st.integers(0, 2))):
            parts += draw(behind(10 * number))
            parts.append({"functionCall": {"name": "f", "args": {"b": number}}})
        parts += draw(behind(90))
    return parts


def behind(number: int) -> st.SearchStrategy[list[dict[str, Any]]]:
    """Parts that come behind a call: they hold no text of the message."""
    empty = st.just({"text": "", "thoughtSignature": signature(number)})
    code = st.just({"executableCode": {"code": "2", "language": "PYTHON"}})
    return st.lists(empty | code, max_size=2)


def joined(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Texts without a signature that follow each other were one text, which a stream cuts."""
    out: list[dict[str, Any]] = []
    for part in parts:
        if out and part.keys() == {"text"} == out[-1].keys():
            out[-1] = {"text": out[-1]["text"] + part["text"]}
        else:
            out.append(dict(part))
    return out


@examples(150)
@given(parts=replies(), apart=st.booleans())
def test_all_parts_come_back_in_their_order(parts: list[dict[str, Any]], apart: bool) -> None:
    events = [answer(part) for part in parts] if apart else [answer(*parts)]
    got = sent_back(said(sse(*events, stop())))
    wanted = joined(parts)

    def told(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
        # The text of a message has no white space around it.
        return [
            {**entry, "text": entry["text"].strip()} if entry.keys() == {"text"} else entry
            for entry in entries
        ]

    assert told(got) == told(wanted)


def test_a_streamed_reply_gets_its_empty_part_back() -> None:
    end = {"text": "", "thoughtSignature": signature(1)}
    found = said(sse(answer({"text": "Hel"}), answer({"text": "lo."}), stop("STOP", end)))
    assert sent_back(found) == [{"text": "Hello."}, end]
    # What was not heard took its signature along.
    assert sent_back(found, heard="Hel") == [{"text": "Hel"}]


@pytest.mark.parametrize("first", [[], [{"text": "I look."}]])
def test_parts_behind_a_call_go_back_behind_it(first: list[dict[str, Any]]) -> None:
    call = {"functionCall": {"name": "f", "args": {"a": 1}}, "thoughtSignature": signature(1)}
    end = {"text": "", "thoughtSignature": signature(2)}
    assert sent_back(said(sse(answer(*first, call), stop("STOP", end)))) == [*first, call, end]
    later = {"text": "One moment.", "thoughtSignature": signature(3)}
    parts = [*first, call, later]
    assert sent_back(said(sse(answer(*parts), stop()))) == parts
    if first:  # an edited text stays before the call
        edited = sent_back(said(sse(answer(*first, call, end), stop())), heard="Hm.")
        assert edited == [{"text": "Hm."}, call, end]


@given(parts=replies())
def test_turns_that_were_read_go_back_as_they_were(parts: list[dict[str, Any]]) -> None:
    ids = iter(range(99))
    model = [
        {**part, "functionCall": {"id": f"c{next(ids)}", **part["functionCall"]}}
        if "functionCall" in part
        else part
        for part in parts
    ]
    results = [
        {"functionResponse": {"id": part["functionCall"]["id"], "name": "f", "response": {"output": "r"}}}
        for part in model
        if "functionCall" in part
    ]  # fmt: skip
    turns: list[dict[str, Any]] = [
        {"role": "user", "parts": [{"text": "q"}]},
        {"role": "model", "parts": model},
        {"role": "user", "parts": [*results, {"text": "z"}]},
    ]
    context = ChatContext.from_provider_format("google", turns)
    items, _ = repair(context.items, "google")
    (back,) = [turn for turn in to_contents(items)[0] if turn["role"] == "model"]
    got = [
        {**part, "thoughtSignature": b64encode(part["thoughtSignature"]).decode()}
        if "thoughtSignature" in part
        else part
        for part in back["parts"]
    ]
    # Thoughts without a signature are no part of a conversation; texts side by side are one.
    assert joined(got) == joined(model)


def test_signatures_of_text_and_of_calls_do_not_mix() -> None:
    parts = [
        {"text": "I look.", "thoughtSignature": signature(1)},
        {"functionCall": {"name": "f", "args": {"a": 1}}, "thoughtSignature": signature(2)},
        {"functionCall": {"name": "f", "args": {"a": 2}}},
    ]
    assert sent_back(said(sse(answer(*parts), stop()))) == parts


@pytest.mark.parametrize("entries", [3, [3], [{"text": "x", "thoughtSignature": "no base64!"}],
                                     [{"thoughtSignature": 4}], [{}]])  # fmt: skip
def test_damaged_parts_are_left_out(entries: Any) -> None:
    context = ChatContext.empty()
    context.add_message(role="user", content="q")
    context.add_message(role="assistant", content="x", extra={"google": {"parts": entries}})
    turns, _ = to_contents(context.items)
    assert turns[1]["parts"] == [{"text": "x"}]


def test_parts_go_to_no_clone_of_another_api() -> None:
    context = ChatContext.empty()
    state = {"parts": [{"text": "", "thoughtSignature": signature(1)}]}
    context.add_message(role="assistant", content="x", extra={"google": state})
    assert context.to_provider_format("openai")[0] == [{"role": "assistant", "content": "x"}]
