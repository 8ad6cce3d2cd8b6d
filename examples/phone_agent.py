"""An agent on the phone: it speaks in sentences, runs tools, and stops when the caller interrupts.

    pip install '.[speech]'
    python examples/phone_agent.py                              # a scripted call, without a key
    python examples/phone_agent.py --model openai/gpt-4.1       # you are the caller: type, then Enter

Text replaces sound, so that this file shows only the loop: a typed line is the output of your speech
recognizer, and `SpeechEngine` stands for your speech engine.
"""

import argparse
import asyncio
import sys
import threading

from rejoinder import LLM, APIError, ChatContext, create, function_tool, run_turn
from rejoinder.llm import FunctionToolCall
from rejoinder.speech import Speech, speakable
from rejoinder.testing import ScriptedLLM

INSTRUCTIONS = "You are on the phone for a parcel service. Answer in one or two short sentences."
FRAME_MS = 100

# The caller's turn, as a recognizer would report it; `None`: the caller hung up.
Caller = asyncio.Queue[str | None]


@function_tool
async def find_parcel(number: str) -> str:
    """Find out where a parcel is.

    Args:
        number: of the parcel, such as A17
    """
    return f"Parcel {number} arrives on Wednesday between nine and twelve."


# The caller may interrupt while this runs. It still finishes, because half a change would be worse.
@function_tool(interruptible=False)
async def move_delivery(number: str, day: str) -> str:
    """Deliver a parcel on another day.

    Args:
        number: of the parcel
        day: a day of the week
    """
    await asyncio.sleep(0.2)
    return f"Parcel {number} now arrives on {day}."


class SpeechEngine:
    """Speaks to the caller. A real one converts the text to sound and sends it to the phone."""

    def __init__(self) -> None:
        self.played = 0.0  # milliseconds of this answer that the caller has heard

    async def speak(self, speech: Speech) -> None:
        async for piece in speech:
            print(f"agent:  {piece.text}")
            for _ in range(0, len(piece.text) * 15, FRAME_MS):
                # Each frame has the length of its sound, so `heard` knows what the caller heard.
                speech.add_audio(piece, FRAME_MS)
                await asyncio.sleep(FRAME_MS / 1000)
                self.played += FRAME_MS
            speech.end_audio(piece)


async def answer(llm: LLM, chat_ctx: ChatContext, caller: Caller) -> str | None:
    """Speak one answer. Returns what the caller said next, perhaps in the middle of it."""
    listening = asyncio.create_task(caller.get())
    turn = run_turn(llm, chat_ctx, tools=[find_parcel, move_delivery])
    engine = SpeechEngine()
    async with turn, speakable(turn) as speech:
        speaking = asyncio.create_task(engine.speak(speech))
        await asyncio.wait({speaking, listening}, return_when=asyncio.FIRST_COMPLETED)
        if not speaking.done():
            speaking.cancel()
            # The model wrote more than the caller heard. If the rest stayed in the conversation, the
            # next answer would build on words that were never said.
            heard = turn.commit_heard(speech.heard(engine.played))
            print(f"        [interrupted; the caller heard: {heard!r}]")
            await asyncio.wait({speaking})
        elif isinstance(speaking.exception(), APIError):
            # Every model has failed. Anything is better than a silent line; the next turn may work.
            print("agent:  I am sorry, could you say that again?")
        else:
            speaking.result()
    return await listening


async def hold_call(llm: LLM, caller: Caller) -> ChatContext:
    """Talk until the caller hangs up."""
    chat_ctx = ChatContext.empty()
    chat_ctx.add_message(role="system", content=INSTRUCTIONS)
    said = await caller.get()
    while said is not None:
        print(f"caller: {said}")
        chat_ctx.add_message(role="user", content=said)
        said = await answer(llm, chat_ctx, caller)
    return chat_ctx


async def scripted_call(caller: Caller) -> None:
    """A caller who does not let the agent finish."""
    for seconds, words in [
        (0, "Hello, where is my parcel A17?"),
        (1.5, "On Wednesday I am away. Can it come on Friday?"),
        (2, "Thank you, goodbye."),
        (1, None),
    ]:
        await asyncio.sleep(seconds)
        caller.put_nowait(words)


SCRIPT = (
    [FunctionToolCall(name="find_parcel", arguments='{"number": "A17"}', call_id="call_1")],
    (
        "Good news: A17 is on its way to you. It arrives on Wednesday, between nine and twelve, and the "
        "driver rings twice. If nobody is at home, it goes to the shop at the corner."
    ),
    [
        FunctionToolCall(
            name="move_delivery", arguments='{"number": "A17", "day": "Friday"}', call_id="call_2"
        )
    ],
    "Done. Your parcel comes on Friday.",
    "Goodbye!",
)


def read_lines(caller: Caller) -> None:
    """Use typed lines as the caller's words. In a thread, because reading a terminal cannot be awaited."""
    loop = asyncio.get_running_loop()

    def read() -> None:
        for line in sys.stdin:
            loop.call_soon_threadsafe(caller.put_nowait, line.strip())
        loop.call_soon_threadsafe(caller.put_nowait, None)

    threading.Thread(target=read, daemon=True).start()


async def main() -> None:
    parser = argparse.ArgumentParser(description="An agent on the phone.")
    parser.add_argument("--model", help="provider/model, such as openai/gpt-4.1")
    model = parser.parse_args().model
    caller = Caller()
    if model is None:
        async with ScriptedLLM(*SCRIPT) as llm, asyncio.TaskGroup() as tasks:
            tasks.create_task(scripted_call(caller))
            await hold_call(llm, caller)
    else:
        async with create(model) as llm:
            llm.prewarm()  # connects while the caller speaks the first sentence
            read_lines(caller)
            await hold_call(llm, caller)


if __name__ == "__main__":
    asyncio.run(main())
