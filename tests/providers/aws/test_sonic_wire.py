"""The protocol of Nova Sonic without a stream: what it writes is legal, what it reads means one thing."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples import examples
from rejoinder._core.realtime import messages as m
from rejoinder.errors import ConfigurationError
from rejoinder.llm import (
    AudioContent,
    ChatMessage,
    FunctionCall,
    FunctionCallOutput,
    ImageContent,
)
from rejoinder.providers.aws.realtime_format import (
    History,
    history_of,
    result_text,
    tool_choice,
    whole_arguments,
)
from rejoinder.providers.aws.realtime_models import MODELS, facts_of
from rejoinder.providers.aws.realtime_wire import NovaSonicProtocol
from rejoinder.testing.sonic_grammar import IllegalEventError, SonicGrammar, SonicState

FOLDER = os.environ.get("REJOINDER_RECORDINGS")
CAPTURED = (
    Path(FOLDER).parent / "reference/captured_requests/era.nova_sonic_client_events.json"
    if FOLDER
    else None
)
SONIC_1, SONIC_2 = facts_of("amazon.nova-sonic-v1:0"), facts_of("amazon.nova-2-sonic-v1:0")
WEATHER = {
    "toolSpec": {
        "name": "get_weather",
        "description": "d",
        "inputSchema": {
            "json": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    }
}
OPTIONS: dict[str, Any] = {
    "voice": "tiffany",
    "temperature": 0.7,
    "top_p": 0.9,
    "max_tokens": 1024,
    "turn_detection": None,
    "tool_choice": "auto",
}
SOUND = bytes(3200)


def message(role: Any, text: str, item_id: str | None = None) -> ChatMessage:
    made = ChatMessage(role=role, content=[text])
    if item_id is not None:
        made.id = item_id
    return made


class Client:
    """A protocol, and the checker of what it writes."""

    def __init__(self, model: str = "amazon.nova-2-sonic-v1:0", **settings: Any) -> None:
        self.protocol = NovaSonicProtocol(model, facts_of(model), "s1", takes_text=True)
        self.grammar = SonicGrammar(typed=facts_of(model).text_input)
        settings = {"instructions": "Be brief.", "options": OPTIONS, **settings}
        self.sent: list[Any] = []
        self.check(self.protocol.open(m.UpdateSession("open", **settings)))

    def check(self, frames: Any) -> list[Any]:
        found = [json.loads(frame) for frame in frames]
        for event in found:
            self.grammar.check(event)
        self.sent += found
        return found

    def send(self, command: m.Command) -> list[Any]:
        return self.check(self.protocol.send(command))

    def give(self, *items: Any) -> None:
        previous = None
        for item in items:
            self.send(m.CreateItem("c", item, previous))
            previous = item.id

    def hear(self, kind: str, **fields: Any) -> list[m.Event]:
        return list(self.protocol.receive(json.dumps({"event": {kind: fields}})))

    def block(
        self, kind: str, role: str, stage: str | None, *pieces: str, stop: str
    ) -> list[m.Event]:
        name = f"b{len(self.sent)}{id(pieces)}"
        extra = (
            {} if stage is None else {"additionalModelFields": f'{{"generationStage":"{stage}"}}'}
        )
        events = self.hear("contentStart", contentId=name, type=kind, role=role, **extra)
        for piece in pieces:
            output = "textOutput" if kind == "TEXT" else "audioOutput"
            events += self.hear(output, contentId=name, role=role, content=piece)
        return events + self.hear("contentEnd", contentId=name, type=kind, stopReason=stop)

    def plan(self, text: str) -> list[m.Event]:
        return self.block("TEXT", "ASSISTANT", "SPECULATIVE", text, stop="PARTIAL_TURN")

    def sound(self, stop: str = "END_TURN") -> list[m.Event]:
        return self.block("AUDIO", "ASSISTANT", None, "AAAA", stop=stop)

    def truth(self, *pieces: str, stop: str = "END_TURN") -> list[m.Event]:
        return self.block("TEXT", "ASSISTANT", "FINAL", *pieces, stop=stop)

    def user(self, *pieces: str) -> list[m.Event]:
        return self.block("TEXT", "USER", "FINAL", *pieces, stop="PARTIAL_TURN")

    def call(self, content: Any = '{"city":"Paris"}', call_id: str = "t1") -> list[m.Event]:
        events = self.hear("contentStart", contentId=call_id, type="TOOL", role="TOOL")
        events += self.hear(
            "toolUse", contentId=call_id, toolUseId=call_id, toolName="get_weather", content=content
        )
        self.grammar.calls.add(call_id)
        return events + self.hear(
            "contentEnd", contentId=call_id, type="TOOL", stopReason="TOOL_USE"
        )


def kinds(events: list[m.Event]) -> list[str]:
    return [type(event).__name__ for event in events]


def only(events: list[m.Event], kind: type[Any]) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


# -- what is sent --------------------------------------------------------------------------------


@pytest.mark.skipif(CAPTURED is None, reason="REJOINDER_RECORDINGS names no folder of vectors")
def test_what_is_sent_equals_what_livekit_sends() -> None:
    assert CAPTURED is not None
    client = Client("amazon.nova-sonic-v1:0", instructions="SYS", tools=[WEATHER])
    client.give(message("user", "hey"), message("assistant", "yo"))
    client.send(m.AppendAudio(bytes(1024)))
    client.call(call_id="tool-1")
    client.send(
        m.CreateItem(
            "c",
            FunctionCallOutput(call_id="tool-1", output='{"a":1}', is_error=False),
            None,
        )
    )
    client.check(client.protocol.farewell())

    def named(events: list[Any]) -> list[Any]:
        names: dict[str, str] = {}
        found = json.loads(json.dumps(events))
        for event in found:
            ((kind, fields),) = event["event"].items()
            for key in ("promptName", "contentName"):
                if key in fields:
                    fields[key] = names.setdefault(fields[key], f"name{len(names)}")
            if kind == "audioInput":
                fields["content"] = ""
        return found

    assert named(client.sent) == named(json.loads(CAPTURED.read_text()))


def test_nothing_but_the_session_is_begun_before_the_first_sound() -> None:
    client = Client()
    client.give(message("user", "hey"), message("assistant", "yo"))
    assert client.grammar.state is SonicState.SESSION
    client.send(m.UpdateSession("u", instructions="Be kind."))
    client.send(m.AppendAudio(SOUND))
    assert client.grammar.state is SonicState.TALKING
    assert client.grammar.system == "Be kind."
    assert client.grammar.history == [("USER", "hey"), ("ASSISTANT", "yo")]
    assert bytes(client.grammar.audio) == SOUND


def test_afterwards_nothing_of_it_can_be_changed() -> None:
    client = Client()
    client.send(m.AppendAudio(SOUND))
    takes = client.protocol.takes
    assert not takes(m.UpdateSession("u", instructions="Be kind."))
    assert not takes(m.DeleteItem("d", "x"))
    assert not takes(m.CreateItem("c", message("user", "hi"), None))
    assert takes(m.AppendAudio(SOUND))
    assert takes(m.CreateReply("r"))


def test_tools_that_come_after_the_session_was_begun_need_another_one() -> None:
    """They change the sampling, which the first event says."""
    unset = {**OPTIONS, "temperature": None, "top_p": None}
    client = Client(options=unset)
    sampling = client.grammar.session["inferenceConfiguration"]
    assert (sampling["temperature"], sampling["topP"]) == (0.7, 0.9)
    assert not client.protocol.takes(m.UpdateSession("u", tools=[WEATHER]))
    assert client.protocol.takes(m.UpdateSession("u", instructions="x"))
    assert Client().protocol.takes(m.UpdateSession("u", tools=[WEATHER]))
    greedy = Client(options=unset, tools=[WEATHER]).grammar.session["inferenceConfiguration"]
    assert (greedy["temperature"], greedy["topP"]) == (1.0, 1.0)


@pytest.mark.parametrize("model", MODELS)
def test_turn_detection_is_sent_to_the_models_that_take_it(model: str) -> None:
    client = Client(model, options={**OPTIONS, "turn_detection": "LOW"})
    found = client.grammar.session.get("turnDetectionConfiguration")
    assert found == ({"endpointingSensitivity": "LOW"} if facts_of(model).turn_detection else None)


def test_a_reply_is_asked_for_in_text_that_is_answered() -> None:
    client = Client()
    client.send(m.CreateReply("r1", instructions="Greet."))
    assert client.grammar.typed_texts == ["Greet."]
    assert client.grammar.audio  # text needs sound that runs
    (begun,) = only(client.plan("Hello."), m.ReplyStarted)
    assert begun.ref == "r1"


def test_what_waits_for_an_answer_is_said_and_no_history() -> None:
    client = Client()
    client.give(message("user", "a"), message("assistant", "b"), message("user", "c"))
    client.send(m.CreateReply("r1"))
    assert client.grammar.history == [("USER", "a"), ("ASSISTANT", "b")]
    assert client.grammar.typed_texts == ["c"]


def test_what_was_written_meanwhile_goes_with_the_next_request() -> None:
    client = Client()
    client.send(m.AppendAudio(SOUND))
    client.send(m.CreateReply("r1", instructions="Be quick.", context=[message("user", "c")]))
    assert client.grammar.typed_texts == ["c\nBe quick."]


def test_the_first_model_cannot_be_asked() -> None:
    client = Client("amazon.nova-sonic-v1:0")
    with pytest.raises(ConfigurationError, match="answers only speech"):
        client.send(m.CreateReply("r1"))


@pytest.mark.parametrize(
    ("output", "is_error", "sent"),
    [
        ('{"a": 1}', False, {"a": 1}),
        ("sunny", False, {"result": "sunny"}),
        ("", False, {"result": ""}),
        ("null", False, {"result": None}),
        ("[1, 2]", False, {"result": [1, 2]}),
        ("7", False, {"result": 7}),
        ("no such city", True, {"error": "no such city"}),
        ("{'a': 1}", False, {"result": "{'a': 1}"}),
    ],
)
def test_results_are_objects(output: str, is_error: bool, sent: Any) -> None:
    client = Client(tools=[WEATHER])
    client.send(m.AppendAudio(SOUND))
    client.call()
    item = FunctionCallOutput(call_id="t1", output=output, is_error=is_error)
    assert client.protocol.takes(m.CreateItem("c", item, None))
    client.send(m.CreateItem("c", item, None))
    assert json.loads(client.grammar.results["t1"]) == sent


@pytest.mark.parametrize(
    "output",
    [
        "data:application/pdf;base64,JVBERi0xLjQ=",
        "data:image/tiff;base64,AAAA",
        "%PDF-1.4 ...",
        "JVBERi0xLjQKJ",
    ],
)
def test_a_document_or_picture_as_a_result_is_refused(output: str) -> None:
    client = Client(tools=[WEATHER])
    client.send(m.AppendAudio(SOUND))
    client.call()
    item = FunctionCallOutput(call_id="t1", name="scan", output=output, is_error=False)
    with pytest.raises(ConfigurationError, match=r"'scan' is .* return a description"):
        client.send(m.CreateItem("c", item, None))


def test_a_result_for_a_call_of_an_earlier_stream_is_told_in_words() -> None:
    client = Client(tools=[WEATHER])
    call = FunctionCall(call_id="old", name="get_weather", arguments='{"city":"Rome"}')
    client.give(message("user", "Weather in Rome?"), call)
    client.send(m.AppendAudio(SOUND))
    item = FunctionCallOutput(call_id="old", output="sunny", is_error=False)
    assert client.protocol.takes(m.CreateItem("c", item, None))
    client.send(m.CreateItem("c", item, None))
    (text,) = client.grammar.typed_texts
    assert "get_weather" in text
    assert "sunny" in text
    first = Client("amazon.nova-sonic-v1:0", tools=[WEATHER])
    first.give(message("user", "Weather in Rome?"), call)
    first.send(m.AppendAudio(SOUND))
    assert not first.protocol.takes(m.CreateItem("c", item, None))


def test_long_sound_and_long_text_are_cut_into_pieces() -> None:
    client = Client()
    client.give(message("user", "ä" * 1500 + " b " * 700), message("assistant", "ok"))
    client.send(m.AppendAudio(memoryview(bytes(200_000)).cast("h")))
    assert len(client.grammar.audio) == 200_000
    assert client.grammar.history[0][1] == "ä" * 1500 + " b " * 700
    sizes = [len(base64.b64decode(e["event"]["audioInput"]["content"])) for e in client.sent[-40:]]
    assert max(sizes) <= 4096


def test_the_end_closes_what_is_open() -> None:
    begun = Client()
    begun.send(m.AppendAudio(SOUND))
    begun.check(begun.protocol.farewell())
    begun.grammar.close()
    fresh = Client()
    fresh.check(fresh.protocol.farewell())
    fresh.grammar.close()


# -- history -------------------------------------------------------------------------------------


def sizes(history: History) -> list[int]:
    return [len(text.encode()) for _, text in history.messages]


def test_a_history_begins_with_the_user_and_alternates() -> None:
    history = history_of(
        [
            message("system", "Speak French."),
            message("assistant", "Welcome!"),
            message("user", "a"),
            message("user", "b"),
            message("assistant", ""),
            message("assistant", "c"),
        ],
        SONIC_2,
    )
    assert history.messages == [("USER", "a\nb"), ("ASSISTANT", "c")]
    assert history.instructions[0] == "Speak French."
    assert "Welcome!" in history.instructions[1]


def test_calls_are_told_with_their_results() -> None:
    history = history_of(
        [
            message("user", "Weather?"),
            FunctionCall(call_id="1", name="weather", arguments='{"city":"Oslo"}'),
            FunctionCallOutput(call_id="1", output="rain", is_error=False),
            FunctionCall(call_id="2", name="weather", arguments="{}"),
            message("assistant", "It rains."),
        ],
        SONIC_2,
    )
    assert [role for role, _ in history.messages] == ["USER", "ASSISTANT"]
    assert "weather" in history.messages[1][1]
    assert "rain" in history.messages[1][1]
    assert history.messages[1][1].endswith("It rains.")
    assert list(history.unanswered) == ["2"]


def test_pictures_are_left_out_and_transcripts_are_not() -> None:
    sound = AudioContent(frame=[], transcript="spoken")
    picture = ImageContent(image="data:image/png;base64,AAAA")
    found = history_of([ChatMessage(role="user", content=["look", picture, sound])], SONIC_2)
    assert found.messages == [("USER", "look\nspoken")]


def test_the_first_model_takes_40_messages_of_1000_bytes() -> None:
    items = [message(("user", "assistant")[i % 2], f"{i} " + "é" * 900) for i in range(101)]
    history = history_of(items, SONIC_1)
    assert len(history.messages) <= 40
    assert max(sizes(history)) <= 1000
    assert history.messages[0][0] == "USER"
    assert history.messages[-1][1].startswith("100 ")


def test_the_second_model_takes_200_kb() -> None:
    items = [message(("user", "assistant")[i % 2], f"{i} " + "x" * 30_000) for i in range(20)]
    history = history_of([*items, message("user", "y" * 80_000)], SONIC_2)
    assert sum(sizes(history)) <= 200_000
    assert sum(sizes(history)) > 120_000
    assert max(sizes(history)) <= 50_000
    assert history.messages[0][0] == "USER"


ITEMS = st.lists(
    st.one_of(
        st.builds(
            message,
            st.sampled_from(["user", "assistant", "system", "developer"]),
            st.text(max_size=40),
        ),
        st.builds(
            FunctionCall, call_id=st.sampled_from("abc"), name=st.just("f"), arguments=st.just("{}")
        ),
        st.builds(
            FunctionCallOutput,
            call_id=st.sampled_from("abcd"),
            output=st.text(max_size=20),
            is_error=st.booleans(),
        ),
    ),
    max_size=12,
)


@examples(150)
@given(ITEMS, st.sampled_from([SONIC_1, SONIC_2]))
def test_every_history_is_legal(items: list[Any], facts: Any) -> None:
    history = history_of(items, facts)
    roles = [role for role, _ in history.messages]
    assert roles == [("USER", "ASSISTANT")[i % 2] for i in range(len(roles))]
    for text in [*history.instructions, *(text for _, text in history.messages)]:
        assert text.strip()
        text.encode()


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("audio"), st.integers(2, 6000)),
        st.tuples(st.just("item"), ITEMS),
        st.tuples(st.just("reply"), st.text(max_size=1500)),
        st.tuples(st.just("call"), st.sampled_from("xyz")),
        st.tuples(st.just("result"), st.sampled_from("xyz")),
        st.tuples(st.just("update"), st.text(max_size=10)),
        st.tuples(st.just("other"), st.just("")),
    ),
    max_size=14,
)


@examples(200)
@given(STEPS, st.sampled_from(["amazon.nova-sonic-v1:0", "amazon.nova-2-sonic-v1:0"]))
def test_whatever_is_asked_for_what_is_sent_is_legal(steps: list[Any], model: str) -> None:
    client = Client(model, tools=[WEATHER])
    called: set[str] = set()
    for step, value in steps:
        match step:
            case "audio":
                client.send(m.AppendAudio(bytes(value)))
            case "item":
                for item in value:
                    command = m.CreateItem("c", item, None)
                    if client.protocol.takes(command):
                        client.send(command)
            case "reply":
                if facts_of(model).text_input:
                    client.send(m.CreateReply("r", instructions=value))
            case "call" if client.grammar.state is SonicState.TALKING and value not in called:
                called.add(value)
                client.call(call_id=value)
            case "result":
                item = FunctionCallOutput(call_id=value, output="ok", is_error=False)
                command = m.CreateItem("c", item, None)
                if client.protocol.takes(command):
                    client.send(command)
            case "update":
                command = m.UpdateSession("u", instructions=value)
                if client.protocol.takes(command):
                    client.send(command)
            case _:
                for command in (
                    m.CommitAudio("c"),
                    m.ClearAudio("c"),
                    m.CancelReply("c", "r"),
                    m.TruncateItem("t", "i", 5),
                    m.SendImage("i", "data:image/png;base64,AAAA"),
                ):
                    assert client.send(command) == []
    client.check(client.protocol.farewell())
    client.grammar.close()


# -- the checker itself --------------------------------------------------------------------------


def test_the_checker_refuses_what_the_service_refuses() -> None:
    client = Client()
    client.give(message("user", "a"), message("assistant", "b"))
    client.send(m.AppendAudio(SOUND))
    events = [*client.sent, *(json.loads(frame) for frame in client.protocol.farewell())]

    def legal(changed: list[Any]) -> bool:
        grammar = SonicGrammar()
        try:
            for event in changed:
                grammar.check(event)
            grammar.close()
        except IllegalEventError:
            return False
        return True

    assert legal(events)
    refused = 0
    for place in range(len(events)):
        without = events[:place] + events[place + 1 :]
        refused += not legal(without)
        assert legal(without) == ("audioInput" in events[place]["event"]), events[place]
        if place:
            swapped = [*events]
            swapped[place - 1], swapped[place] = swapped[place], swapped[place - 1]
            kinds = {next(iter(e["event"])) for e in swapped[place - 1 : place + 1]}
            assert legal(swapped) == (kinds == {"audioInput"})
    assert refused > 10


# -- what is read --------------------------------------------------------------------------------


def test_a_turn_and_its_answer() -> None:
    client = Client()
    client.send(m.AppendAudio(SOUND))
    heard = client.user("hello", "how are you")
    assert kinds(heard) == ["SpeechStarted", "Transcript", "Transcript"]
    assert heard[-1] == m.Transcript("s1_user1", "hello how are you", final=False)
    events = client.plan("I am well.")
    assert kinds(events) == [
        "SpeechStopped",
        "AudioCommitted",
        "Transcript",
        "ReplyStarted",
        "ItemAdded",
        "MessageStarted",
        "TextDelta",
    ]
    assert events[2] == m.Transcript("s1_user1", "hello how are you", final=True)
    assert events[4].previous_id == "s1_user1"  # type: ignore[union-attr]
    assert kinds(client.sound("PARTIAL_TURN")) == ["AudioDelta"]
    (text,) = only(client.plan("And you?"), m.TextDelta)
    assert text.text == " And you?"
    assert kinds(client.sound()) == ["AudioDelta", "MessageEnded", "ReplyEnded"]
    assert not client.protocol.settled
    assert client.truth("I am well.", stop="PARTIAL_TURN") == []
    (told,) = client.truth("And ", "you?")
    assert told == m.MessageHeard("s1_item3", "I am well. And you?", False)
    assert client.protocol.settled


@pytest.mark.parametrize("during", [True, False])
@pytest.mark.parametrize("sound_ends", ["INTERRUPTED", "END_TURN", None])
def test_an_interruption_in_all_its_forms(during: bool, sound_ends: str | None) -> None:
    client = Client()
    client.send(m.AppendAudio(SOUND))
    client.plan("One.")
    client.sound("PARTIAL_TURN")
    client.plan("Two.")
    events = client.truth("One.", stop="PARTIAL_TURN") if not during else []
    if sound_ends is not None:
        events += client.sound(sound_ends)
    events += client.truth('{ "interrupted" : true }', stop="INTERRUPTED")
    if during:
        events += client.truth("One.", stop="INTERRUPTED")
    ends = only(events, m.ReplyEnded)
    assert [end.status for end in ends] == [
        "completed" if sound_ends == "END_TURN" else "cancelled"
    ]
    assert len(only(events, m.SpeechStarted)) == 1
    heard = only(events, m.MessageHeard)
    assert heard[-1] == m.MessageHeard("s1_item2", "One.", True)
    assert not [e for e in only(events, m.TextDelta) if "interrupted" in e.text]
    assert client.protocol.settled
    assert client.user("stop")[-1] == m.Transcript("s1_user3", "stop", final=False)
    later = client.plan("Okay.")
    assert [e.final for e in only(later, m.Transcript)] == [True]
    assert only(later, m.ReplyStarted)


def test_late_sound_of_an_interrupted_reply_is_nobodys() -> None:
    client = Client()
    client.send(m.AppendAudio(SOUND))
    client.plan("One.")
    client.truth('{"interrupted":true}', stop="INTERRUPTED")
    assert client.sound() == []


def test_a_lone_call_is_a_reply_of_its_own() -> None:
    client = Client()
    client.send(m.AppendAudio(SOUND))
    client.user("weather in paris")
    events = client.call()
    assert kinds(events)[-4:] == ["ReplyStarted", "ItemAdded", "ToolCalled", "ReplyEnded"]
    (called,) = only(events, m.ToolCalled)
    assert (called.call.call_id, called.call.arguments) == ("t1", '{"city":"Paris"}')


def test_calls_within_a_chain_leave_it_open() -> None:
    client = Client()
    client.send(m.AppendAudio(SOUND))
    client.plan("Let me look.")
    client.sound("PARTIAL_TURN")
    events = client.call(call_id="t1") + client.call(call_id="t2")
    assert len(only(events, m.ToolCalled)) == 2
    assert not only(events, m.ReplyEnded)
    client.plan("One moment.")
    assert [e.status for e in only(client.sound(), m.ReplyEnded)] == ["completed"]


@pytest.mark.parametrize(
    ("content", "arguments"),
    [
        ('{"a":1}', '{"a":1}'),
        ('"{\\"a\\":1}"', '{"a":1}'),
        (json.dumps(json.dumps(json.dumps({"a": 1}))), '{"a": 1}'),
        ({"a": 1}, '{"a":1}'),
        ("", "{}"),
        (None, "{}"),
        ("{broken", "{broken"),
    ],
)
def test_arguments_that_are_encoded_twice_are_not(content: Any, arguments: str) -> None:
    assert whole_arguments(content) == arguments


def test_tokens_are_differences() -> None:
    client = Client()
    client.send(m.AppendAudio(SOUND))

    def tokens(speech: int, text: int, *, total: int = 0) -> list[m.Event]:
        one = {"speechTokens": speech, "textTokens": text}
        whole = {"input": {"speechTokens": total, "textTokens": 0}}
        return client.hear("usageEvent", details={"delta": {"input": one}, "total": whole})

    (outside,) = tokens(150, 0, total=150)
    assert isinstance(outside, m.UsageReported)
    assert outside.usage.input_details.audio_tokens == 150
    client.plan("Hello.")
    assert tokens(10, 2, total=160) == []
    assert tokens(0, 3, total=160) == []
    (end,) = only(client.sound(), m.ReplyEnded)
    assert end.usage.input_tokens == 15
    assert tokens(0, 0, total=160) == []
    (behind,) = tokens(0, 7, total=160)
    assert isinstance(behind, m.UsageReported)
    assert (behind.reply_id, behind.usage.input_tokens) == (end.reply_id, 22)
    (listening,) = tokens(9, 0, total=169)
    assert isinstance(listening, m.UsageReported)
    assert (listening.reply_id, listening.usage.input_tokens) == ("", 9)


def test_tokens_without_a_difference_are_one() -> None:
    client = Client()
    found: list[int] = []
    for total in (10, 10, 25):
        whole = {"input": {"speechTokens": total, "textTokens": 0}}
        found += [
            event.usage.input_tokens  # type: ignore[union-attr]
            for event in client.hear("usageEvent", details={"total": whole})
        ]
    assert found == [10, 15]


def test_what_was_typed_is_not_heard() -> None:
    client = Client()
    client.send(m.CreateReply("r1", instructions="Greet."))
    assert client.user("Greet.") == []
    assert only(client.user("Greet."), m.SpeechStarted)


def test_ends() -> None:
    client = Client()
    closed = client.protocol.closed
    assert closed(None, "broke") is None
    assert closed(1000, "ended") is None
    assert closed(408, "ModelTimeoutException: 8 minutes") is None
    assert closed(429, "ThrottlingException") is None
    assert closed(400, "Timed out waiting for input events") is None
    assert closed(400, "InternalErrorCode=531::RST_STREAM closed stream. NO_ERROR") is None
    for code in (400, 401, 403, 404):
        verdict = closed(code, "AccessDeniedException: no")
        assert verdict is not None
        assert verdict.fatal
        assert "AccessDeniedException: no" in verdict.error.message
        assert "check" in verdict.error.message


def test_tool_choice() -> None:
    assert tool_choice("auto") == {"auto": {}}
    assert tool_choice("required") == {"any": {}}
    assert tool_choice({"type": "function", "function": {"name": "f"}}) == {"tool": {"name": "f"}}
    with pytest.raises(ConfigurationError, match="tool_choice"):
        tool_choice("always")
    client = Client(tools=[WEATHER], options={**OPTIONS, "tool_choice": "none"})
    client.send(m.AppendAudio(SOUND))
    assert "toolConfiguration" not in client.grammar.prompt


def told(kind: str, fields: Any) -> dict[str, Any]:
    return {"event": {kind: fields}}


VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=8)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
FIELDS = st.dictionaries(
    st.sampled_from(
        [
            "contentId",
            "type",
            "role",
            "content",
            "stopReason",
            "additionalModelFields",
            "toolUseId",
            "toolName",
            "details",
            "completionId",
        ]
    ),
    st.one_of(
        st.sampled_from(
            [
                "TEXT",
                "AUDIO",
                "TOOL",
                "USER",
                "ASSISTANT",
                "a",
                "b",
                "AAAA",
                "END_TURN",
                "INTERRUPTED",
                '{"generationStage":"FINAL"}',
                '{"generationStage":"SPECULATIVE"}',
            ]
        ),
        VALUES,
    ),
)
EVENTS = st.one_of(
    VALUES,
    st.builds(
        told,
        st.sampled_from(
            [
                "contentStart",
                "textOutput",
                "audioOutput",
                "toolUse",
                "contentEnd",
                "usageEvent",
                "completionStart",
                "completionEnd",
                "news",
            ]
        ),
        st.one_of(FIELDS, VALUES),
    ),
)


@examples(300)
@given(st.lists(EVENTS, max_size=15), st.text(max_size=20))
def test_nothing_that_comes_raises(events: list[Any], noise: str) -> None:
    client = Client()
    client.send(m.AppendAudio(SOUND))
    started: set[str] = set()
    for event in events:
        for found in client.protocol.receive(json.dumps(event)):
            if isinstance(found, m.ReplyStarted):
                assert found.reply_id not in started
                started.add(found.reply_id)
            elif isinstance(found, m.TextDelta | m.AudioDelta | m.ReplyEnded):
                assert found.reply_id in started
    client.protocol.receive(noise)
    client.protocol.receive(b"\xff")


def test_a_result_is_written_for_people_who_read_errors() -> None:
    output = FunctionCallOutput(call_id="c9", output="data:image/bmp;base64,AA", is_error=False)
    with pytest.raises(ConfigurationError, match=r"'c9' is a picture \(image/bmp\)"):
        result_text(output)


def test_the_table_of_the_docs_is_that_of_the_models() -> None:
    page = (Path(__file__).parents[3] / "docs/realtime.md").read_text()
    facts = list(MODELS.values())

    def row(name: str, cells: list[str]) -> str:
        return f"| {' | '.join([name, *cells])} |".replace("|  |", "| |").replace("|  |", "| |")

    def yes(answers: list[bool]) -> list[str]:
        return ["yes" if answer else "no" for answer in answers]

    for wanted in (
        row("", [f.name for f in facts]).replace("|  |", "| |"),
        row("`generate_reply`, typed turns", yes([f.text_input for f in facts])),
        row("`turn_detection`", yes([f.turn_detection for f in facts])),
        row("speaks while tools run", yes([f.async_tools for f in facts])),
        row("history: messages", [str(f.history_messages or "any number") for f in facts]),
        row(
            "history: bytes of a message, of all",
            [f"{f.message_bytes:,}, {f.history_bytes:,}" for f in facts],
        ),
        row("voices", [str(len(f.voices)) for f in facts]),
        row("regions", [", ".join(sorted(f.regions or ())) or "not known" for f in facts]),
        row("switched off", [f.shut_down or "" for f in facts]),
    ):
        assert wanted in page, wanted
