"""One conversation, another provider at every turn: what is sent stays legal for each."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import Any

import pytest

from providers.conversation import IMAGE, ONCE, TOOLS
from rejoinder.llm import ImageContent
from rejoinder.llm.chat_context import ChatContext, FunctionCall, FunctionCallOutput
from rejoinder.providers import anthropic, aws, google, inference, mistralai, openai
from rejoinder.testing.faults import Answer, Call, FaultServer
from rejoinder.testing.history import check_history

Make = Callable[[str], Any]

PROVIDERS: dict[str, tuple[str, Make, dict[str, Any]]] = {
    "openai": (
        "openai",
        lambda url: openai.LLM(model="gpt-4.1", api_key="k", base_url=f"{url}/v1"),
        {},
    ),
    "responses": (
        "openai.responses",
        lambda url: openai.LLM(model="gpt-5", api_key="k", base_url=f"{url}/v1", api="responses"),
        {},
    ),
    "anthropic": (
        "anthropic",
        lambda url: anthropic.LLM(model="claude-sonnet-4-6", api_key="k", base_url=url),
        {},
    ),
    "thinking": (
        "anthropic",
        lambda url: anthropic.LLM(model="claude-sonnet-4-5", api_key="k", base_url=url),
        {"extra_kwargs": {"thinking": {"type": "enabled", "budget_tokens": 1024}}},
    ),
    "google": (
        "google",
        lambda url: google.LLM(model="gemini-3-pro-preview", api_key="k", base_url=url),
        {},
    ),
    "aws": (
        "aws",
        lambda url: aws.LLM(api_key="a", api_secret="b", base_url=url),
        {},
    ),
    "mistralai": (
        "mistralai",
        lambda url: mistralai.LLM(api_key="k", base_url=f"{url}/v1"),
        {},
    ),
    "inference": (
        "openai",
        lambda url: inference.LLM("x/y", api_key="k", api_secret="s", base_url=f"{url}/v1"),
        {},
    ),
}


def legal(name: str, body: dict[str, Any]) -> list[str]:
    return check_history(
        PROVIDERS[name][0],
        body,
        thinking="thinking" in body,
        signatures=name == "google",
    )


async def turn(name: str, context: ChatContext, server: FaultServer, answer: Answer) -> list[str]:
    """Let `name` go on with `context`; returns what is wrong with what it sent."""
    _, make, options = PROVIDERS[name]
    server.script(answer)
    async with make(server.url) as llm:
        stream = llm.chat(chat_ctx=context, tools=TOOLS, conn_options=ONCE, **options)
        reply = await stream.collect()
    problems = legal(name, server.requests[-1].json())
    extra = dict(reply.extra)
    if reply.text:
        context.add_message(role="assistant", content=reply.text, extra=extra)
        extra = {}
    for number, call in enumerate(reply.tool_calls):
        context.insert(
            FunctionCall(
                call_id=call.call_id,
                name=call.name,
                arguments=call.arguments,
                # State without text stays with the first call.
                extra={**(extra if number == 0 else {}), **(call.extra or {})},
            )
        )
    for call in reply.tool_calls:
        context.insert(
            FunctionCallOutput(call_id=call.call_id, name=call.name, output="21", is_error=False)
        )
    return [f"{name}: {problem}" for problem in problems]


CALLS = Answer(
    text=(),
    thinking="Which city?",
    calls=(
        Call(name="get_weather", arguments='{"city":"Köln"}', call_id="call_a"),
        Call(name="raw_tool", arguments="{}", call_id="call_b"),
    ),
)
SPEAKS = Answer(text="Hello", thinking="Easy.")
BOTH = Answer(
    text=("Let me look.",),
    calls=(Call(name="get_weather", arguments='{"city":"Rome"}', call_id="call_c"),),
)


async def talk(order: list[str], dice: random.Random) -> list[str]:
    context = ChatContext.empty()
    context.add_message(role="system", content="You are S.")
    problems: list[str] = []
    async with FaultServer() as server:
        for number, name in enumerate(order):
            last = context.items[-1]
            if last.type != "function_call_output" or dice.random() < 0.3:
                content: list[Any] = [f"question {number}"]
                if dice.random() < 0.5:
                    content.append(ImageContent(image=IMAGE))
                context.add_message(role="user", content=content)
            if dice.random() < 0.2:
                context.add_message(role="developer", content="Be brief.")
            problems += await turn(name, context, server, dice.choice([CALLS, SPEAKS, BOTH]))
    return problems


@pytest.mark.parametrize("first", PROVIDERS)
async def test_any_provider_goes_on_with_what_any_other_began(first: str) -> None:
    for second in PROVIDERS:
        problems = await talk([first, second, first, second], random.Random(f"{first}{second}"))
        assert not problems, (first, second, problems)


@pytest.mark.parametrize("seed", range(4))
async def test_a_long_talk_with_everybody(seed: int) -> None:
    dice = random.Random(seed)
    order = [dice.choice(list(PROVIDERS)) for _ in range(24)]
    problems = await talk(order, dice)
    assert not problems, (order, problems)


async def test_every_order_of_three_in_the_middle_of_tools() -> None:
    for order in itertools.permutations(["thinking", "google", "aws"]):
        context = ChatContext.empty()
        context.add_message(role="user", content="go")
        async with FaultServer() as server:
            for name in order:
                problems = await turn(name, context, server, CALLS)
                assert not problems, (order, problems)
