"""A small agent of your own: two tools, and a second model for when the first one fails.

    python examples/tested_agent/agent.py "Do I need an umbrella in Oslo?"     # with OPENAI_API_KEY

`test_agent.py` tests it without a key.
"""

import argparse
import asyncio

from rejoinder import LLM, ChatContext, FallbackAdapter, ToolError, create, function_tool, run_turn

INSTRUCTIONS = "You plan walks. Answer in one sentence."
FORECAST = {"Oslo": "rain, 9 degrees", "Rome": "sun, 24 degrees"}


@function_tool
async def forecast(city: str) -> str:
    """Tell today's weather.

    Args:
        city: its English name
    """
    if city not in FORECAST:
        # The model reads this, and can ask the user. Any other exception is logged, and the model
        # learns only that the tool failed.
        raise ToolError(f"No forecast for {city}; known are {', '.join(FORECAST)}.")
    return FORECAST[city]


@function_tool
async def sunset(city: str) -> str:
    """Tell when the sun sets today.

    Args:
        city: its English name
    """
    return "20:10"


# Takes the model as an argument, so that a test can pass its own.
async def answer(llm: LLM, question: str) -> str:
    chat_ctx = ChatContext.empty()
    chat_ctx.add_message(role="system", content=INSTRUCTIONS)
    chat_ctx.add_message(role="user", content=question)
    return (await run_turn(llm, chat_ctx, tools=[forecast, sunset]).collect()).text


def team(first: LLM, second: LLM) -> FallbackAdapter:
    return FallbackAdapter([first, second], attempt_timeout=2.0, on_cut="restart")


async def main() -> None:
    parser = argparse.ArgumentParser(description="An agent that plans walks.")
    parser.add_argument("question")
    parser.add_argument("--model", default="openai/gpt-4.1", help="provider/model")
    parser.add_argument("--second", default="openai/gpt-4.1-mini", help="provider/model")
    options = parser.parse_args()
    # The team leaves its models open, because others may use them as well.
    async with create(options.model) as first, create(options.second) as second:
        print(await answer(team(first, second), options.question))


if __name__ == "__main__":
    asyncio.run(main())
