"""Speech: pieces from every kind of stream, and what of them was heard."""

from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from rejoinder.errors import APIConnectionError, ConfigurationError
from rejoinder.llm import ChatChunk, ChatContext, ChoiceDelta, FunctionToolCall, function_tool
from rejoinder.media import AudioFrame
from rejoinder.providers.openai.realtime import RealtimeModel
from rejoinder.speech import (
    Piece,
    Speech,
    addresses_as_hosts,
    numbers_as_words,
    speakable,
    without_emoji,
)
from rejoinder.testing import RealtimeServer, ScriptedLLM
from rejoinder.turn import Restarted, Text, run_turn

ANSWER = "Of course, I can. It is **very** easy to do 😀. See `docs`."
NUMBERS = numbers_as_words("en")  # reads a file, which no coroutine should
PIECES = ["Of course,", "I can. It is very easy to do.", "See docs."]


async def stream(*items: Any) -> AsyncIterator[Any]:
    for item in items:
        if isinstance(item, BaseException):
            raise item
        yield item


async def texts(speech: Speech) -> list[str]:
    return [piece.text async for piece in speech]


def question() -> ChatContext:
    context = ChatContext.empty()
    context.add_message(role="user", content="How?")
    return context


async def test_an_llm_stream() -> None:
    async with speakable(ScriptedLLM(ANSWER).chat(chat_ctx=question())) as speech:
        pieces = [piece async for piece in speech]
    assert [piece.text for piece in pieces] == PIECES
    assert [piece.number for piece in pieces] == [0, 1, 2]
    assert "".join(piece.source for piece in pieces) + speech.rest == ANSWER


async def test_a_turn_speaks_what_came_before_a_tool_when_the_tool_starts() -> None:
    asked = asyncio.Event()
    spoken: list[str] = []

    @function_tool
    async def look() -> str:
        """Looks."""
        await asked.wait()
        return "rain"

    call = FunctionToolCall(name="look", arguments="{}", call_id="c")
    llm = ScriptedLLM(["Let me see", call], "It rains, I think, and much.")
    async with speakable(run_turn(llm, question(), tools=[look])) as speech:
        async for piece in speech:
            spoken.append(piece.text)
            asked.set()  # the tool ends only when its announcement was handed out
    assert spoken == ["Let me see", "It rains,", "I think, and much."]


async def test_the_text_of_a_realtime_reply() -> None:
    async with RealtimeServer() as server:
        server.say("Of course, I can. It is very easy to do.")
        model = RealtimeModel(base_url=server.url, api_key="any")
        reply = await model.session().generate_reply()
        async for message in reply.message_stream:
            assert await texts(speakable(message.text_stream)) == PIECES[:2]
        await model.aclose()


async def test_thinking_is_not_spoken() -> None:
    chunks = [
        ChatChunk(id="x", delta=ChoiceDelta(thinking="Hm, let me think about it.")),
        ChatChunk(id="x", delta=ChoiceDelta(content="Yes, it is so.")),
        ChatChunk(id="x"),
    ]
    assert await texts(speakable(stream(*chunks))) == ["Yes, it is so."]


async def test_a_call_in_a_stream_flushes() -> None:
    call = FunctionToolCall(name="look", arguments="{}", call_id="c")
    chunks = [
        ChatChunk(id="x", delta=ChoiceDelta(content="Wait")),
        ChatChunk(id="x", delta=ChoiceDelta(tool_calls=[call])),
        RuntimeError("never read before the text is out"),
    ]
    speech = speakable(stream(*chunks))
    assert (await anext(speech)).text == "Wait"


async def test_an_answer_that_begins_again() -> None:
    items = [
        Text("One two three four, five. Six"),
        Restarted("One"),
        Text("Seven eight nine, ten."),
    ]
    speech = speakable(stream(*items))
    pieces = [piece async for piece in speech]
    assert [(piece.text, piece.restart) for piece in pieces] == [
        ("One two three four,", False),
        ("Seven eight nine,", True),
        ("ten.", False),
    ]
    speech.add_audio(pieces[1], 900)
    speech.end_audio(pieces[1])
    assert speech.heard(900) == "Seven eight nine,"
    with pytest.raises(ConfigurationError, match="since its last restart"):
        speech.add_audio(pieces[0], 100)


async def test_an_error_comes_behind_the_text_before_it() -> None:
    speech = speakable(stream("Half of a", APIConnectionError("gone")))
    assert (await anext(speech)).text == "Half of a"
    with pytest.raises(APIConnectionError):
        await anext(speech)
    with pytest.raises(StopAsyncIteration):
        await anext(speech)


async def test_closing_closes_the_stream() -> None:
    closed = False

    async def words() -> AsyncIterator[str]:
        nonlocal closed
        try:
            while True:
                yield "One two three four, "
        finally:
            closed = True

    async with speakable(words()) as speech:
        await anext(speech)
    assert closed
    assert await texts(speech) == []


async def test_engines_that_cut_themselves_get_text_as_it_comes() -> None:
    chunks = ["**He", "llo** ", "wor", "ld.\n", "```\nx\n```"]
    speech = speakable(stream(*chunks), cut="none", transforms=[])
    pieces = [piece async for piece in speech]
    assert [piece.text for piece in pieces] == ["He", "llo ", "wor", "ld.\n"]
    assert "".join(piece.source for piece in pieces) + speech.rest == "".join(chunks)


async def test_transforms_see_whole_words_there() -> None:
    speech = speakable(stream("It is 1", "2 o", "'clock"), cut="none", transforms=[NUMBERS])
    assert "".join(await texts(speech)) == "It is twelve o'clock"


async def test_what_has_nothing_to_say_is_no_piece() -> None:
    speech = speakable(stream("```py\nx = 1\n```\n", "👍 ", "..."))
    assert await texts(speech) == []
    assert speech.rest == "```py\nx = 1\n```\n👍 ..."


@pytest.mark.parametrize("space", ["\xa0", "\u202f", "\u2009", "\u3000", "\u2028"])
async def test_a_wide_space_behind_an_initial(space: str) -> None:
    text = f"This is vitamin A{space}. There is more."
    speech = speakable(stream(*text))
    pieces = [piece async for piece in speech]
    assert "".join(piece.source for piece in pieces) == text
    assert pieces[-1].text == "There is more."


async def test_half_a_character_harms_nothing() -> None:
    text = "One two \ud83d three. Four five six seven \udc00. Eight."
    speech = speakable(stream(text))
    pieces = [piece async for piece in speech]
    assert len(pieces) > 1
    assert "".join(piece.source for piece in pieces) == text


async def test_code_can_be_announced() -> None:
    speech = speakable(stream("Run this now:\n```\nx\n```\n"), code="I show you the code.")
    assert await texts(speech) == ["Run this now:", "I show you the code."]


async def test_own_sentences_need_no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentencex", None)
    speech = speakable(
        stream("One two three four! Five six seven eight."), segment=lambda text: [text]
    )
    assert await texts(speech) == ["One two three four! Five six seven eight."]


async def test_heard_by_frames_and_by_words() -> None:
    speech = speakable(stream("Of course, I can do that for you now."))
    first, second = [piece async for piece in speech]
    for _ in range(10):
        speech.add_audio(first, AudioFrame(bytes(4800), 24000, 1, 2400))
    speech.add_audio(second, 2000)
    speech.add_words(second, [("I", 0.0), ("can", 0.2), ("do", 1.5)])
    speech.end_audio(second)
    assert speech.heard(0) == ""
    assert speech.heard(1000) == "Of course,"
    assert speech.heard(2400) == "Of course, I can"
    assert speech.heard(3000) == "Of course, I can do that for you now."


def test_emoji() -> None:
    assert without_emoji("Hi 👍🏽! 👨‍👩‍👧 1️⃣ ok ☀️") == "Hi! 1 ok"
    assert without_emoji("naïve – Ünïcode") == "naïve – Ünïcode"


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("12 cats, 1,234 dogs", "twelve cats, one thousand two hundred thirty-four dogs"),
        ("3.5 % of 21st", "three point five percent of twenty-first"),
        ("-5 or 0301234567", "minus five or zero three zero one two three four five six seven"),
        ("2026-01-02 10:30 v1.2 A4 $3.50 3€", "2026-01-02 10:30 v1.2 A4 $3.50 3€"),
        ("1.234,5", "1.234,5"),
        ("Is it 7?", "Is it seven?"),
    ],
)
def test_numbers(text: str, spoken: str) -> None:
    assert NUMBERS(text) == spoken


def test_numbers_of_another_language() -> None:
    spoken = numbers_as_words("de")("3,5 und 1.200").replace("\u00ad", "")  # where it may be parted
    assert spoken == "drei Komma fünf und eintausendzweihundert"
    with pytest.raises(ConfigurationError, match="got 'xx'"):
        numbers_as_words("xx")


def test_addresses() -> None:
    told = "Visit https://www.example.com/a?b=c. Or http://u:p@x.org/, ok (www.foo.de/bar)."
    assert addresses_as_hosts(told) == "Visit example.com. Or x.org, ok (foo.de)."


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"stream": "text"}, "stream"),
        ({"max_length": 5}, "max_length"),
        ({"first_length": -1}, "first_length"),
        ({"transforms": ["x"]}, "transforms"),
        ({"cut": "words"}, "cut"),
    ],
)
def test_wrong_options_are_refused_by_name(options: dict[str, Any], name: str) -> None:
    given: dict[str, Any] = {"stream": stream(), **options}
    with pytest.raises(ConfigurationError, match=name):
        speakable(**given)


async def test_sound_of_a_foreign_piece_is_refused() -> None:
    speech = speakable(stream("Hello."))
    [piece] = [piece async for piece in speech]
    with pytest.raises(ConfigurationError, match="expected a piece of this stream"):
        speech.end_audio(Piece(0, "Hello.", "Hello."))
    with pytest.raises(ConfigurationError, match="at least 0"):
        speech.add_audio(piece, -1.0)


async def test_a_slow_model_is_not_hurried() -> None:
    """Cancelling a wait for a piece loses no text."""
    gate = asyncio.Event()

    class Words:
        def __init__(self) -> None:
            self._left = ["One two ", "three four, "]

        def __aiter__(self) -> Words:
            return self

        async def __anext__(self) -> str:
            if not self._left:
                raise StopAsyncIteration
            if len(self._left) == 1:
                await gate.wait()
            return self._left.pop(0)

    speech = speakable(Words())
    waiting = asyncio.ensure_future(anext(speech))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    gate.set()
    assert await texts(speech) == ["One two three four,"]


async def test_a_moment_may_lie_outside_of_what_was_played() -> None:
    chat_ctx = ChatContext.empty()
    chat_ctx.add_message(role="assistant", content="One two. Three four.")
    async with speakable(stream("One two. ", "Three four.")) as speech:
        async for piece in speech:
            speech.add_audio(piece, 1000)
            with pytest.raises(ConfigurationError, match="milliseconds"):
                speech.add_audio(piece, math.inf)
    assert speech.heard(math.inf) == "One two. Three four."
    assert speech.heard(-math.inf) == ""
    assert chat_ctx.copy().commit_heard(math.inf, sound=2000) == "One two. Three four."
    with pytest.raises(ConfigurationError, match="milliseconds"):
        speech.heard(math.nan)
    with pytest.raises(ConfigurationError, match="milliseconds"):
        chat_ctx.commit_heard(math.nan, sound=2000)
