"""One spoken conversation: sends questions, receives answers, and measures their times."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
from collections.abc import AsyncGenerator, Sequence
from typing import Any, Final, Protocol

from rejoinder.cli.outcome import CommandError, Exit
from rejoinder.cli.render import render_call, render_result
from rejoinder.cli.screen import Screen
from rejoinder.errors import APIError
from rejoinder.llm.realtime import (
    GenerationCreatedEvent,
    InputTranscriptionCompleted,
    MessageGeneration,
    RealtimeError,
    RealtimeModel,
    RealtimeModelError,
    RealtimeSession,
)
from rejoinder.media import AudioFrame

__all__ = ["JsonTold", "Out", "Spoken", "TextTold", "Told", "pieces"]

PIECE: Final = 0.1
"""Seconds of sound that are sent at a time."""
_TELLING: Final = 3.0
"""Seconds within which a model must begin to report the result of a task."""
_LOOK: Final = 0.1
"""Seconds between two checks whether a task is running."""


class Out(Protocol):
    """The destination of the model's sound."""

    def play(self, message_id: str, frame: AudioFrame) -> None:
        """Sound of a message, behind what came before."""
        ...

    def cut(self) -> list[tuple[str, int]]:
        """Stop. Return the messages that were cut, with the milliseconds that were heard."""
        ...

    async def drained(self) -> None:
        """Wait until all sound was played."""
        ...


class Told(Protocol):
    """Shows what happens."""

    def heard(self, text: str) -> None: ...
    def text(self, text: str) -> None: ...
    def note(self, text: str) -> None: ...
    def called(self, name: str, arguments: str) -> None: ...
    def answered(self, name: str, output: str, *, is_error: bool, seconds: float) -> None: ...
    def done(self, figures: dict[str, Any]) -> None: ...


class TextTold:
    """The transcript of the model on standard output, everything else on standard error."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen

    def heard(self, text: str) -> None:
        self._screen.note(f"you: {text}")

    def text(self, text: str) -> None:
        self._screen.reply(text)

    def note(self, text: str) -> None:
        self._screen.note(text)

    def called(self, name: str, arguments: str) -> None:
        self._screen.end_line()
        self._screen.note(f"-> {render_call(name, arguments)}")

    def answered(self, name: str, output: str, *, is_error: bool, seconds: float) -> None:
        self._screen.note(f"<- {render_result(output, is_error=is_error, seconds=seconds)}")

    def done(self, figures: dict[str, Any]) -> None:
        self._screen.end_line()
        notes = [] if figures["outcome"] == "completed" else [figures["outcome"]]
        if figures["first_sound"] is not None:
            notes.append(f"first sound {figures['first_sound']:.2f} s")
        if figures["end"] is not None:
            notes.append(f"end of reply {figures['end']:.2f} s")
        notes.append(f"{figures['sound']:.1f} s of sound")
        self._screen.note(f"[{', '.join(notes)}]")


class JsonTold:
    """One JSON object per line on standard output."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen

    def heard(self, text: str) -> None:
        self._data("heard", text=text)

    def text(self, text: str) -> None:
        self._data("text", text=text)

    def note(self, text: str) -> None:
        self._data("note", text=text)

    def called(self, name: str, arguments: str) -> None:
        self._data("tool_started", name=name, arguments=arguments)

    def answered(self, name: str, output: str, *, is_error: bool, seconds: float) -> None:
        self._data(
            "tool_finished", name=name, output=output, is_error=is_error, duration=round(seconds, 4)
        )

    def done(self, figures: dict[str, Any]) -> None:
        self._data("done", **figures)

    def _data(self, event: str, **fields: Any) -> None:
        self._screen.data(json.dumps({"event": event, **fields}))


class Spoken:
    """A session, and the handling of its events.

    Args:
        session: a new session; its handlers are attached here.
        tools: run when the model calls them.
        out: receives the model's sound.
        told: shows transcripts and times.
        timeout: seconds that a reply may take to begin.
    """

    def __init__(
        self,
        session: RealtimeSession[Any],
        *,
        tools: Sequence[Any],
        out: Out,
        told: Told,
        timeout: float,
    ) -> None:
        self._session = session
        self._tools = list(tools)
        self._out = out
        self._told = told
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[GenerationCreatedEvent | Exception] = asyncio.Queue()
        self._since: float | None = None
        self._trouble: Exception | None = None
        session.on("generation_created", self._events.put_nowait)
        session.on("input_audio_transcription_completed", self._heard)
        session.on("input_speech_started", self._speech_started)
        session.on("input_speech_stopped", self._speech_stopped)
        session.on("session_reconnected", self._reconnected)
        session.on("error", self._failed)

    @classmethod
    @contextlib.asynccontextmanager
    async def begin(
        cls, model: RealtimeModel, *, system: str | None, one_turn: bool, **options: Any
    ) -> AsyncGenerator[Spoken]:
        """Begin a conversation, and end it afterwards. `one_turn`: the caller decides when the turn
        ends, if the model permits that.

        Raises:
            APIError, RealtimeError: the service refused the session.
        """
        manual = one_turn and model.capabilities.can_disable_turn_detection
        session = model.session(turn_detection_disabled=manual)
        try:
            spoken = cls(session, **options)
            if system:
                await spoken._within(session.update_instructions(system))
            if spoken._tools:
                await spoken._within(session.update_tools(spoken._tools))
            await spoken._within(session.connected())
            yield spoken
        finally:
            await session.aclose()

    # -- one question ------------------------------------------------------------------------------

    async def ask(self, question: AudioFrame) -> None:
        """Speak the question and wait for its answer, including replies after tool calls.

        Raises:
            APIError, RealtimeError: the service failed.
            CommandError: the model did not answer.
        """
        if self._session.capabilities.turn_detection:
            await self._speak_in_time(question)
        else:
            for piece in pieces(question):
                self._session.push_audio(piece)
            self._since = self._loop.time()
            self._session.commit_audio()
            self._ask()
        event: GenerationCreatedEvent | None = await self._next()
        while event is not None:
            work = self._session.working
            calls = await self._answer(event)
            event = await (self._next() if calls else self._rest(work))
        await self._out.drained()

    async def _speak_in_time(self, question: AudioFrame) -> None:
        """Send the question in real time, then silence until the answer begins: the service detects
        the end of the turn itself."""
        due = self._loop.time()
        for piece in pieces(question):
            self._session.push_audio(piece)
            due += piece.duration
            await asyncio.sleep(due - self._loop.time())
        self._since = self._loop.time()
        silence = AudioFrame.create(
            question.sample_rate, question.num_channels, round(question.sample_rate * PIECE)
        )
        while self._events.empty() and self._loop.time() - self._since < self._timeout:
            self._session.push_audio(silence)
            due += PIECE
            await asyncio.sleep(due - self._loop.time())

    # -- a conversation ----------------------------------------------------------------------------

    def push(self, frame: AudioFrame) -> None:
        """Sound of the microphone."""
        self._session.push_audio(frame)

    async def converse(self, until: asyncio.Event) -> None:
        """Answer until the event is set.

        Raises:
            APIError, RealtimeError: the service failed.
        """
        ending = asyncio.ensure_future(until.wait())
        try:
            while not until.is_set():
                turn = asyncio.ensure_future(self._turn())
                done, _ = await asyncio.wait({turn, ending}, return_when=asyncio.FIRST_COMPLETED)
                if turn not in done:
                    turn.cancel()
                    await asyncio.wait({turn})
                else:
                    turn.result()
        finally:
            ending.cancel()

    async def _turn(self) -> None:
        event = await self._events.get()
        if isinstance(event, Exception):
            raise event
        await self._answer(event)

    # -- replies -----------------------------------------------------------------------------------

    async def _next(self) -> GenerationCreatedEvent:
        now = self._loop.time()
        since = now if self._since is None else self._since
        try:
            # Take a reply that has already begun, even if no time is left.
            async with asyncio.timeout(max(0.0, since + self._timeout - now)):
                event = await self._events.get()
        except TimeoutError:
            raise CommandError(
                f"the model did not answer within {self._timeout:g} s", Exit.FAILED
            ) from None
        if isinstance(event, Exception):
            raise event
        return event

    async def _rest(self, work: bool) -> GenerationCreatedEvent | None:
        """The next reply of a turn in which a backend or the application runs a task; ``None`` if the
        turn is over. `work`: a task was running when the last reply began."""
        ended = self._loop.time()
        worked = ended if work else -math.inf
        while True:
            now = self._loop.time()
            if self._session.working:
                worked = now
            elif now - worked >= _TELLING:
                return None
            if now - ended >= self._timeout:
                raise CommandError(
                    f"the model did not finish its turn within {self._timeout:g} s of its last reply",
                    Exit.FAILED,
                )
            try:
                async with asyncio.timeout(_LOOK):
                    event = await self._events.get()
            except TimeoutError:
                continue
            if isinstance(event, Exception):
                raise event
            return event

    def _ask(self) -> None:
        def begun(reply: asyncio.Future[GenerationCreatedEvent]) -> None:
            if not reply.cancelled() and (error := reply.exception()) is not None:
                self._events.put_nowait(
                    error if isinstance(error, Exception) else RealtimeError(str(error))
                )

        self._session.generate_reply().add_done_callback(begun)

    async def _answer(self, event: GenerationCreatedEvent) -> bool:
        """Pass a reply on, and run its tools. Return whether another reply will follow."""
        times = _Times(self._loop, self._since)
        self._since = None
        calls, _ = await asyncio.gather(self._run_tools(event), self._pass_on(event, times))
        outcome = "completed" if event.outcome is None else await event.outcome
        if outcome == "interrupted":
            self._cut()
        self._told.done({"outcome": outcome, **times.figures()})
        if outcome in ("failed", "incomplete") and not calls:
            await asyncio.sleep(0)  # the error that explains it is emitted next
            if isinstance(self._trouble, APIError):
                raise self._trouble
            raise CommandError(f"the reply ended as {outcome}", Exit.FAILED)
        self._trouble = None
        if calls:
            self._since = self._loop.time()
            if not self._session.capabilities.auto_tool_reply_generation:
                self._ask()
        return calls > 0

    async def _pass_on(self, event: GenerationCreatedEvent, times: _Times) -> None:
        async for message in event.message_stream:
            await asyncio.gather(self._text(message), self._sound(message, times))

    async def _text(self, message: MessageGeneration) -> None:
        async for text in message.text_stream:
            self._told.text(text)

    async def _sound(self, message: MessageGeneration, times: _Times) -> None:
        async for frame in message.audio_stream:
            times.sounded(frame.duration)
            self._out.play(message.message_id, frame)

    async def _run_tools(self, event: GenerationCreatedEvent) -> int:
        from rejoinder.llm.utils import execute_function_call

        count = 0
        async for call in event.function_stream:
            count += 1
            self._told.called(call.name, call.arguments)
            began = self._loop.time()
            result = await execute_function_call(call, self._session.tools)
            output = result.fnc_call_out
            if output is None:
                continue
            took = self._loop.time() - began
            self._told.answered(call.name, output.output, is_error=output.is_error, seconds=took)
            chat_ctx = self._session.chat_ctx
            chat_ctx.items.append(output)
            await self._session.update_chat_ctx(chat_ctx)
        return count

    # -- events ------------------------------------------------------------------------------------

    def _heard(self, event: InputTranscriptionCompleted) -> None:
        if event.is_final and event.transcript.strip():
            self._told.heard(event.transcript.strip())

    def _reconnected(self, _: Any) -> None:
        self._told.note("[a new connection]")

    def _speech_started(self, _: Any) -> None:
        self._cut()

    def _speech_stopped(self, _: Any) -> None:
        self._since = self._loop.time()

    def _cut(self) -> None:
        """The user interrupts: stop playing, and report to the model what was heard."""
        heard = self._out.cut()
        if heard:
            self._session.interrupt()
        for message_id, ms in heard:
            self._session.truncate(message_id=message_id, modalities=["audio"], audio_end_ms=ms)

    def _failed(self, event: RealtimeModelError) -> None:
        self._trouble = event.error
        if event.recoverable:
            self._told.note(f"[{event.error}]")
        else:
            self._events.put_nowait(event.error)

    async def _within(self, work: Any) -> None:
        """Wait for the service; if it refuses the session, its own error is raised."""
        try:
            await work
        except RealtimeError:
            with contextlib.suppress(asyncio.QueueEmpty):
                error = self._events.get_nowait()
                if isinstance(error, APIError):
                    raise error from None
            raise


class _Times:
    """When a reply began to sound and when it ended, since the end of the user's turn."""

    def __init__(self, loop: asyncio.AbstractEventLoop, since: float | None) -> None:
        self._loop = loop
        self._since = since
        self._first: float | None = None
        self._seconds = 0.0

    def sounded(self, seconds: float) -> None:
        if self._first is None:
            self._first = self._loop.time()
        self._seconds += seconds

    def figures(self) -> dict[str, float | None]:
        return {
            "first_sound": self._after(self._first),
            "end": self._after(self._loop.time()),
            "sound": round(self._seconds, 3),
        }

    def _after(self, moment: float | None) -> float | None:
        return None if moment is None or self._since is None else round(moment - self._since, 3)


def pieces(frame: AudioFrame) -> list[AudioFrame]:
    """The frame in pieces of `PIECE` seconds."""
    size = frame.num_channels * 2
    length = math.ceil(frame.sample_rate * PIECE) * size
    data = frame.data.cast("B")[: frame.samples_per_channel * size]
    return [
        AudioFrame(
            data[at : at + length],
            frame.sample_rate,
            frame.num_channels,
            len(data[at : at + length]) // size,
        )
        for at in range(0, len(data), length)
    ]
