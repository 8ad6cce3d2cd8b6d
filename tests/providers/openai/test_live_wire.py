"""The protocol of the Live API, without a session: frames in and out."""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples import examples
from providers.openai.live_checks import check_sent
from rejoinder._core.items import ChatMessage, FunctionCall, FunctionCallOutput, ImageContent
from rejoinder._core.realtime import messages as m
from rejoinder._core.realtime.gate import SilenceGate
from rejoinder.errors import ConfigurationError
from rejoinder.providers.openai.live_format import append_pieces, history, most_tokens
from rejoinder.providers.openai.live_wire import OpenAILiveProtocol

LOUD = b"\x00\x10" * 2400
SILENT = bytes(4800)
SETTINGS = m.UpdateSession("open", options={"responses": {"model": "gpt-5.6-luna"}})


def new_protocol(delegation: str = "responses") -> OpenAILiveProtocol:
    count = itertools.count(1)
    return OpenAILiveProtocol(
        "gpt-live-1", delegation, new_id=lambda prefix: f"{prefix}{next(count)}", now=lambda: 0.0
    )


def begun(delegation: str = "responses") -> OpenAILiveProtocol:
    protocol = new_protocol(delegation)
    for frame in protocol.open(SETTINGS):
        check_sent(json.loads(frame))
    assert list(protocol.receive(event("session.started", session={"id": "live_1"})))
    return protocol


def event(kind: str, **fields: Any) -> str:
    return json.dumps({"type": kind, **fields})


def sound(data: bytes) -> str:
    return event("session.output_audio.delta", delta=base64.b64encode(data).decode())


def receive(protocol: OpenAILiveProtocol, frames: Sequence[str]) -> list[m.Event]:
    return [found for frame in frames for found in protocol.receive(frame)]


def spoken(events: list[m.Event]) -> list[tuple[str, Any]]:
    """What is left when pieces are joined: the kinds of events, and the sound of each reply."""
    found: list[tuple[str, Any]] = []
    for each in events:
        match each:
            case m.SoundMade():
                continue
            case m.AudioDelta(_, _, data) if found and found[-1][0] == "AudioDelta":
                found[-1] = ("AudioDelta", found[-1][1] + data)
            case m.AudioDelta(_, _, data):
                found.append(("AudioDelta", data))
            case _:
                found.append((type(each).__name__, None))
    return found


@examples(30)
@given(st.lists(st.integers(301, 9000), min_size=1, max_size=40))
def test_replies_do_not_depend_on_the_pieces_of_sound(sizes: list[int]) -> None:
    stream = SILENT * 3 + LOUD * 2 + SILENT * 12 + LOUD * 3 + SILENT * 10
    whole = spoken(receive(begun(), [sound(stream)]))
    pieces: list[str] = []
    at = 0
    for size in itertools.cycle(sizes):
        pieces.append(sound(stream[at : at + size]))
        at += size
        if at >= len(stream):
            break
    assert spoken(receive(begun(), pieces)) == whole
    assert [kind for kind, _ in whole].count("ReplyEnded") == 2


def test_a_pause_in_a_sentence_is_played_and_ends_nothing() -> None:
    events = receive(begun(), [sound(LOUD + SILENT * 5 + LOUD)])
    assert [kind for kind, _ in spoken(events)].count("ReplyStarted") == 1
    assert spoken(events)[-1] == ("AudioDelta", LOUD + SILENT * 5 + LOUD)


def test_the_quiet_beginning_of_a_word_is_played() -> None:
    gate = SilenceGate(24000)
    quiet = b"\x14\x00" * 480
    assert gate.feed(quiet) == b""
    assert gate.feed(LOUD[:960]) == quiet + LOUD[:960]


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["type", "delta", "start_ms", "end_ms", "session", "delegation", "id", "target",
                 "event", "item", "response", "usage", "seconds", "error", "code", "call_id"]
            ),
            inner | st.sampled_from(
                ["session.started", "session.closed", "response.event", "client", "error",
                 "session.delegation.created", "session.output_audio.delta", "response.completed",
                 "session.usage.updated", "session.input_transcript.delta", "function_call"]
            ),
            max_size=5,
        ),
        max_leaves=12,
    )
)  # fmt: skip
def test_no_frame_raises(value: Any) -> None:
    protocol = begun()
    protocol.receive(json.dumps(value))
    kinds = (
        "session.started", "session.closed", "response.event", "error", "session.updated",
        "session.delegation.created", "session.output_audio.delta", "session.usage.updated",
        "session.output_transcript.delta", "session.input_transcript.delta", "new.event",
    )  # fmt: skip
    for kind in kinds:
        fields = value if isinstance(value, dict) else {"event": value, "session": value}
        protocol.receive(json.dumps({**fields, "type": kind}))
    for event_kind in ("response.created", "response.output_item.done", "response.completed",
                       "response.failed", "response.incomplete", "error"):  # fmt: skip
        inner = value if isinstance(value, dict) else {"item": value, "response": value}
        protocol.receive(event("response.event", event={**inner, "type": event_kind}))


@given(st.binary(max_size=64) | st.text(max_size=64))
def test_garbage_is_counted(frame: bytes | str) -> None:
    protocol = begun()
    assert list(protocol.receive(frame)) == []
    assert protocol.skipped == 1


@given(st.text(max_size=4000))
def test_pieces_are_the_text_and_each_fits(text: str) -> None:
    pieces = append_pieces(text)
    assert "".join(pieces) == text
    assert all(0 < most_tokens(piece) <= 500 for piece in pieces)


@pytest.mark.parametrize(
    "text",
    ["word " * 5000, "x" * 5000, "漢字" * 3000, "😀" * 2000, "1234567890" * 500, "A. " * 3000],
)
def test_long_texts_of_any_script_are_cut(text: str) -> None:
    pieces = append_pieces(text)
    assert "".join(pieces) == text
    assert len(pieces) > 1
    assert all(most_tokens(piece) <= 500 for piece in pieces)


def test_pieces_end_with_a_sentence_if_one_is_near() -> None:
    pieces = append_pieces("All work and no play makes Jack a dull boy. " * 100)
    assert all(piece.endswith("boy. ") for piece in pieces)


def test_the_newest_history_fits() -> None:
    items = [
        ChatMessage(
            role="user" if number % 2 else "assistant", content=[f"{number} " + "a b " * 40]
        )
        for number in range(300)
    ]
    given_items = history(items)
    assert len(given_items) <= 128
    assert given_items[-1]["content"][0]["text"].startswith("299 ")
    cost = sum(most_tokens(message["content"][0]["text"]) for message in given_items)
    assert 6000 < cost <= 8192


def test_one_message_that_is_too_long_is_cut() -> None:
    (only,) = history([ChatMessage(role="user", content=["word " * 20000])])
    assert 7000 < most_tokens(only["content"][0]["text"]) <= 8192


def test_all_kinds_of_items_are_told() -> None:
    items: list[Any] = [
        ChatMessage(role="system", content=["Be kind."]),
        ChatMessage(role="user", content=[ImageContent(image="https://example.com/a.png")]),
        ChatMessage(role="assistant", content=["A cat."], interrupted=True),
        FunctionCall(call_id="c", name="weather", arguments="{}"),
        FunctionCallOutput(call_id="c", output="no such city", is_error=True),
    ]
    protocol = new_protocol()
    (frame,) = protocol.open(msgspec.structs.replace(SETTINGS, items=items))
    check_sent(json.loads(frame))
    assert [part["content"][0]["text"] for part in json.loads(frame)["session"]["input"]] == [
        "Be kind.",
        "(a picture)",
        "A cat.",
        "The tool weather was called with {}.",
        "The tool weather failed: no such city",
    ]
    protocol.receive(event("session.started", session={}))
    for item in items:
        for later in protocol.send(m.CreateItem("ref", item, None)):
            check_sent(json.loads(later))


def test_every_command_is_known() -> None:
    protocol = begun()
    commands: list[m.Command] = [
        m.UpdateSession("r", tools=[{"type": "function", "name": "x", "parameters": {}}]),
        m.UpdateSession(
            "r", options={"tool_choice": {"type": "function", "function": {"name": "x"}}}
        ),
        m.GiveHistory("r", [ChatMessage(role="user", content=["x"])]),
        m.AppendAudio(b"\x00\x00"),
        m.CommitAudio("r"),
        m.ClearAudio("r"),
        m.StartActivity("r"),
        m.SoundPaused("r"),
        m.SendImage("r", "data:image/png;base64,"),
        m.CreateReply("r"),
        m.CreateReply("r", instructions="Sing."),
        m.CancelReply("r", "GL_1"),
        m.DeleteItem("r", "x"),
        m.TruncateItem("r", "x", 1),
    ]
    for command in commands:
        for frame in protocol.send(command):
            check_sent(json.loads(frame))
    for frame in [*protocol.probe(), *protocol.mute(muted=True), *protocol.farewell()]:
        check_sent(json.loads(frame))
    with pytest.raises(ConfigurationError, match="no tools and no tool_choice for one reply"):
        protocol.send(m.CreateReply("r", tool_choice="required"))


def test_a_repeated_event_is_read_once() -> None:
    protocol = begun("client")
    told = event(
        "session.delegation.created",
        event_id="e1",
        delegation={"id": "d", "target": "client", "type": "delegation"},
    )
    again = json.loads(told) | {"event_id": "e2"}
    assert receive(protocol, [told, told, json.dumps(again)]) == [m.Delegated("d", "")]


def test_tasks_of_the_backend_are_not_for_the_application() -> None:
    protocol = begun()
    delegation = {"id": "d", "target": "responses", "type": "delegation"}
    assert receive(protocol, [event("session.delegation.created", delegation=delegation)]) == []
