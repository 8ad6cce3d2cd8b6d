"""One decoder, whatever the framing and the reader: its states, and what it owns for all of them."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest

from rejoinder._core.chunks import CompletionUsage
from rejoinder.errors import APIConnectionError, APIError, APIStatusError, WireError
from rejoinder.providers.answering.chunks import Reply, Step
from rejoinder.providers.answering.decoder import (
    TRANSITIONS,
    ReplyDecoder,
    State,
    transition_table,
)
from rejoinder.wire.sse import SSEDecoder

ROOT = Path(__file__).parents[3]


class Words:
    """A dialect of words: each event is a text, ``ok`` answers, ``end`` ends, ``no`` fails."""

    expected = "a stream of words"

    def event(self, name: str | None, payload: bytes, reply: Reply) -> None:
        if payload == b"ok":
            reply.answered()
        elif payload == b"end":
            reply.end()
        elif payload == b"no":
            reply.fail(APIStatusError("no", status_code=500))
        elif payload == b"?":
            reply.tolerant(b"{")
        else:
            reply.text(payload.decode())

    def whole(self, body: bytes, reply: Reply) -> None:
        if b"error" in body:
            reply.fail(APIStatusError("told", status_code=400))
        else:
            reply.fail(WireError("no words"))

    def ended(self, reply: Reply) -> None:
        reply.fail(APIConnectionError("cut"))

    def usage(self) -> CompletionUsage | None:
        return None


def decoder() -> ReplyDecoder:
    return ReplyDecoder(SSEDecoder(), Words(), prefix="w_")


def texts(chunks: list[object]) -> list[str]:
    return [chunk.delta.content for chunk in chunks]  # type: ignore[attr-defined]


def test_the_table_in_the_docs_is_the_table() -> None:
    assert transition_table() in (ROOT / "docs" / "design.md").read_text()


def test_every_state_is_in_the_table_and_final_states_stay() -> None:
    assert set(TRANSITIONS) == set(State)
    assert not TRANSITIONS[State.ENDED]
    assert not TRANSITIONS[State.BROKEN]
    reached = {state for row in TRANSITIONS.values() for state in row.values()}
    assert reached == set(State) - {State.OPENING}
    used = {step for row in TRANSITIONS.values() for step in row}
    assert used == set(Step)


def test_a_reply_passes_its_states() -> None:
    made = decoder()
    assert made.state is State.OPENING
    assert made.feed(b"\n") == []
    assert made.state is State.OPENING
    assert texts(made.feed(b"data: a\n\n")) == ["a"]
    assert made.state is State.STREAM
    made.feed(b"data: ok\n\n")
    assert made.state is State.ANSWERED
    assert texts(made.feed(b"data: b\n\ndata: end\n\ndata: c\n\n")) == ["b"]
    assert made.state is State.ENDED
    assert made.feed(b"data: d\n\n") == []
    assert made.close() == []


def test_chunks_before_a_failure_are_returned_and_it_is_raised_next() -> None:
    made = decoder()
    assert texts(made.feed(b"data: a\n\ndata: no\n\ndata: b\n\n")) == ["a"]
    assert made.state is State.BROKEN
    for call in (lambda: made.feed(b""), made.close):
        with pytest.raises(APIStatusError):
            call()


@pytest.mark.parametrize(
    ("body", "state", "kind", "words"),
    [
        (b"", State.OPENING, APIConnectionError, "without a single event"),
        (b"\xef\xbb", State.OPENING, APIConnectionError, "without a single event"),
        (b"<html>Sorry</html>", State.PAGE, WireError, "Sorry"),
        (b'{"a": 1}', State.BROKEN, WireError, "no words"),
        (b'{"error": 1}', State.BROKEN, APIStatusError, "told"),
        (b'{"a": ', State.WHOLE, WireError, "a stream of words, got"),
        (b"Sorry", State.STREAM, WireError, "a stream of words, got: Sorry"),
        (b"data: a\n\n", State.STREAM, APIConnectionError, "cut"),
        (b'data: a\n\n{"error": 1}\n', State.STREAM, APIStatusError, "told"),
        (b"data: a\n\ndata: ?", State.STREAM, APIConnectionError, "cut"),
        (b"data: a\n\ndata: ?\n\n", State.BROKEN, WireError, "not JSON"),
    ],
    ids=repr,
)
def test_bodies_that_are_no_whole_stream(
    body: bytes, state: State, kind: type[Exception], words: str
) -> None:
    made = decoder()
    made.feed(body)
    assert made.state is state
    if made.failure is None:
        with suppress(APIError):  # raised at once, or after the chunks that came first
            made.close()
    assert made.state is State.BROKEN
    with pytest.raises(kind, match=words):
        made.close()


def test_a_page_without_end_is_not_kept() -> None:
    made = decoder()
    made.feed(b"<html>" + b"x" * 5000)
    assert isinstance(made.failure, WireError)


def test_leaked_marks_in_names_are_known_by_the_tools() -> None:
    reply = Reply("r_")
    reply.tool_names = lambda: ["look", "functions.odd"]
    for name, clean in (
        ("look<|channel|>commentary", "look"),
        ("functions.look", "look"),
        ("default_api.look", "look"),
        ("default_api:look", "look"),
        ("default_api.other", "default_api.other"),
        ("functions.look<|constrain|>json", "look"),
        ("functions.odd", "functions.odd"),
        ("functions.other", "functions.other"),
        ("look", "look"),
    ):
        assert reply.call("c", name, "{}").name == clean
