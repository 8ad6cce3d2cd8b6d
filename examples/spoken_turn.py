"""One spoken turn: a question from a WAV file goes to a realtime model, the answer into another file.

    python examples/spoken_turn.py                              # a scripted service, without a key
    python examples/spoken_turn.py question.wav answer.wav --model openai/gpt-realtime-2.1

The question must have 16 bits a sample; soxr (`pip install '.[audio]'`) converts other rates and channels
than the service's. The command `rejoinder talk` does more, and also uses a microphone.
"""

import argparse
import asyncio
import math
import wave
from array import array
from collections.abc import Iterator

from rejoinder.catalog import create_realtime
from rejoinder.llm import RealtimeModel
from rejoinder.media import AudioFrame
from rejoinder.testing import ScriptedRealtimeModel, ServerReply

FRAMES_A_SECOND = 10


def read(path: str | None) -> Iterator[AudioFrame]:
    """The question in pieces of a tenth of a second; without a file, a tone stands in for it."""
    if path is None:
        rate, channels = 24_000, 1
        tone = (int(9000 * math.sin(n / 9)) for n in range(rate))
        sound = array("h", tone).tobytes()
    else:
        with wave.open(path) as file:
            if file.getsampwidth() != 2:
                raise SystemExit(
                    f"{path}: expected 16 bits a sample, got {8 * file.getsampwidth()}"
                )
            rate, channels = file.getframerate(), file.getnchannels()
            sound = file.readframes(file.getnframes())
    step = rate // FRAMES_A_SECOND * channels * 2
    for start in range(0, len(sound), step):
        piece = sound[start : start + step]
        yield AudioFrame(piece, rate, channels, len(piece) // (2 * channels))


async def ask(model: RealtimeModel, question: str | None, answer: str) -> None:
    # The end of the turn is known, so the service does not have to detect it. Only then may the sound
    # be sent faster than it is spoken.
    session = model.session(turn_detection_disabled=True)
    session.on(
        "input_audio_transcription_completed", lambda event: print("you:  ", event.transcript)
    )
    try:
        await session.update_instructions("Answer in one short sentence.")
        for frame in read(question):
            session.push_audio(frame)
        session.commit_audio()
        # Raises a RealtimeError if the service refuses, is silent for too long or breaks down; if
        # only its connection ends, the session opens another one and continues there.
        reply = await session.generate_reply()
        async for message in reply.message_stream:
            # Text and sound of a message arrive side by side, so they are read side by side.
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(show(message))
                tasks.create_task(save(message, answer))
        print("ended:", await reply.outcome)
    finally:
        await session.aclose()


async def show(message) -> None:
    text = "".join([piece async for piece in message.text_stream])
    print("model:", text)


async def save(message, path: str) -> None:
    frames = [frame async for frame in message.audio_stream]
    if not frames:
        return
    with wave.open(path, "wb") as file:
        file.setnchannels(frames[0].num_channels)
        file.setsampwidth(2)
        file.setframerate(frames[0].sample_rate)
        file.writeframes(b"".join(bytes(frame.data) for frame in frames))
    print(f"       {sum(frame.duration for frame in frames):.1f} s of sound in {path}")


async def main() -> None:
    parser = argparse.ArgumentParser(description="One spoken turn.")
    parser.add_argument("question", nargs="?", help="a WAV file")
    parser.add_argument("answer", nargs="?", default="answer.wav", help="where the answer goes")
    parser.add_argument("--model", help="provider/model, such as openai/gpt-realtime-2.1")
    options = parser.parse_args()
    if options.model is None:
        # A real session with a service that plays a script, and whose sound is silence.
        model = ScriptedRealtimeModel(ServerReply(["It ", "is ", "sunny ", "in ", "Oslo."], ms=200))
    else:
        model = create_realtime(options.model)
    async with model:
        await ask(model, options.question, options.answer)


if __name__ == "__main__":
    asyncio.run(main())
