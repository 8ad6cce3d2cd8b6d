"""An answer as a Python object: a guest's message becomes a `Ticket`.

    pip install '.[local]'
    python examples/structured_output.py
    python examples/structured_output.py --model openai/gpt-4.1-mini "The heating in 204 hums all night."

Without a key, a small model on this machine answers: in the right form, but often wrongly.
"""

import argparse
import asyncio
from typing import Literal

from pydantic import BaseModel, Field

from rejoinder import ChatContext, create, run_turn
from rejoinder.errors import OutputMismatchError
from rejoinder.turn import Done, Partial

MESSAGE = "Hi, this is room 12. The shower is cold since yesterday, and we leave tomorrow at noon!"


# Names, types and descriptions are the prompt: the model sees them as a JSON schema.
class Ticket(BaseModel):
    room: int
    title: str = Field(description="the problem in at most six words", max_length=80)
    department: Literal["plumbing", "heating", "electricity", "cleaning", "other"]
    urgent: bool = Field(description="whether it has to be solved today")


async def main() -> None:
    parser = argparse.ArgumentParser(description="A message becomes a ticket.")
    parser.add_argument("message", nargs="?", default=MESSAGE)
    parser.add_argument("--model", default="local/qwen", help="provider/model")
    options = parser.parse_args()

    chat_ctx = ChatContext.empty()
    chat_ctx.add_message(role="system", content="Turn the guest's message into a ticket.")
    chat_ctx.add_message(role="user", content=options.message)
    async with create(options.model) as llm:
        try:
            async with run_turn(llm, chat_ctx, response_format=Ticket) as turn:
                shown = None
                async for event in turn:
                    match event:
                        case Partial(value) if value != shown:
                            # The value so far, for a form that fills while the model writes. It is
                            # not validated: the last text may continue, and fields may be missing.
                            print(f"so far: {value}")
                            shown = value
                        case Done(output=ticket):
                            # Validated: a `Ticket`. If an answer does not fit, the model receives the
                            # reason and is asked again, at most twice.
                            print(repr(ticket))
        except OutputMismatchError as error:
            raise SystemExit(f"no ticket could be made: {error}") from error


if __name__ == "__main__":
    asyncio.run(main())
