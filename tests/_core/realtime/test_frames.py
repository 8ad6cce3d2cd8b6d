"""One reader for the frames of all realtime protocols, and halves of surrogate pairs in them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from rejoinder._core.realtime import messages as m
from rejoinder._core.realtime.frames import TOLERATED, read_frame
from rejoinder.llm.realtime import RealtimeModel
from rejoinder.providers.aws.realtime import RealtimeModel as NovaSonic
from rejoinder.providers.google.realtime import RealtimeModel as GeminiLive
from rejoinder.providers.openai.live import GPTLiveModel
from rejoinder.providers.openai.realtime import RealtimeModel as OpenAIRealtime


def test_a_whole_text_holds_no_half() -> None:
    frame = r'{"text": "a\ud83d", "\ude00": ["\ud83d\ude00", {"x": "\ude00b"}]}'
    assert read_frame(frame) == {"text": "a\ufffd", "\ufffd": ["😀", {"x": "\ufffdb"}]}
    assert read_frame(frame.encode()) == read_frame(frame)


def test_a_piece_of_a_text_keeps_its_half() -> None:
    frame = r'{"delta": "a\ud83d", "text": "\ud83d"}'
    assert read_frame(frame, pieces=("delta",)) == {"delta": "a\ud83d", "text": "\ufffd"}


@pytest.mark.parametrize(
    "frame", ["", "null", "[1]", "{", '"a"', b"\xff\x00", "[" * 100_000], ids=repr
)
def test_anything_but_an_object_is_no_event(frame: Any) -> None:
    assert read_frame(frame) is None


def test_a_large_frame_is_not_read_the_slow_way() -> None:
    assert read_frame(json.dumps({"a": "b" * TOLERATED})) is not None
    assert read_frame('{"a": "' + "b" * TOLERATED + r'\ud83d"}') is None


def openai(text: str) -> str:
    return (
        '{"type": "response.output_text.delta", "response_id": "r", "item_id": "m", '
        f'"delta": "{text}"}}'
    )


def live(text: str) -> str:
    return f'{{"type": "session.input_transcript.delta", "delta": "{text}"}}'


def gemini(text: str) -> str:
    return f'{{"serverContent": {{"inputTranscription": {{"text": "{text}"}}}}}}'


def nova(text: str) -> str:
    return (
        '{"event": {"contentStart": {"contentId": "c", "type": "TEXT", "role": "USER"}}}\n'
        f'{{"event": {{"textOutput": {{"contentId": "c", "role": "USER", "content": "{text}"}}}}}}'
    )


CASES: dict[str, tuple[Callable[[], RealtimeModel], Callable[[str], str]]] = {
    "openai": (lambda: OpenAIRealtime(api_key="k"), openai),
    "live": (lambda: GPTLiveModel(api_key="k"), live),
    "gemini": (lambda: GeminiLive(api_key="k"), gemini),
    "nova": (lambda: NovaSonic(api_key="k", api_secret="s", region="us-east-1"), nova),
}


@pytest.mark.parametrize("kind", CASES)
async def test_every_protocol_reads_a_frame_with_half_a_pair(kind: str) -> None:
    make, frames = CASES[kind]
    model = make()
    session: Any = model.session()
    try:
        protocol = session._connections._make_protocol()
        events: list[m.Event] = []
        for frame in frames(r"It rains \ud83d").splitlines():
            events += protocol.receive(frame)
        assert protocol.skipped == 0
        told = [e.text for e in events if isinstance(e, m.TextDelta | m.Transcript)]
        assert any(text.startswith("It rains ") for text in told)
    finally:
        await model.aclose()
