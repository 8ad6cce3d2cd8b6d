"""What a conversation costs: CPU time beside LiveKit Agents 1.2.17, in the same run.

    python bench/context.py                 all rows; the peer's environment is made by itself
    python bench/context.py --only copy,to_dict

A conversation of 2000 items: instructions, then user message, tool call, output and answer, over
and over. Ends with status 1 when a row misses its limit.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Annotated, Any, Optional

from pydantic import Field

from side_by_side import Case, main

ITEMS = 2000


def conversation(llm: Any, count: int = ITEMS) -> Any:
    items: list[Any] = [
        llm.chat_context.ChatMessage(
            id="system", role="system", content=["Be brief."], created_at=0.0
        )
    ]
    turn = 0
    while len(items) < count:
        turn += 1
        now = float(4 * turn)
        call_id = f"call_{turn}"
        items += [
            llm.chat_context.ChatMessage(
                id=f"user_{turn}",
                role="user",
                content=[f"What is the weather in city number {turn}, and tomorrow?"],
                created_at=now,
            ),
            llm.chat_context.FunctionCall(
                id=f"fc_{turn}",
                call_id=call_id,
                name="get_weather",
                arguments=f'{{"city": "number {turn}", "days": 2}}',
                created_at=now + 1,
            ),
            llm.chat_context.FunctionCallOutput(
                id=f"fo_{turn}",
                call_id=call_id,
                name="get_weather",
                output='{"temperature": 21, "sky": "clear"}',
                is_error=False,
                created_at=now + 2,
            ),
            llm.chat_context.ChatMessage(
                id=f"assistant_{turn}",
                role="assistant",
                content=["It is clear, 21 degrees, and stays so tomorrow."],
                created_at=now + 3,
            ),
        ]
    return llm.chat_context.ChatContext(items[:count])


def copy(llm: Any) -> Callable[[], object]:
    return conversation(llm).copy


def copy_filtered(llm: Any) -> Callable[[], object]:
    context = conversation(llm)
    return lambda: context.copy(exclude_function_call=True, exclude_instructions=True)


def to_dict(llm: Any) -> Callable[[], object]:
    return conversation(llm).to_dict


def from_dict(llm: Any) -> Callable[[], object]:
    context = conversation(llm)
    return lambda: llm.chat_context.ChatContext.from_dict(context.to_dict())


def from_dict_alone(llm: Any) -> Callable[[], object]:
    data = conversation(llm).to_dict(exclude_timestamp=False)
    return lambda: llm.chat_context.ChatContext.from_dict(data)


def from_dict_of_parts(llm: Any) -> Callable[[], object]:
    context = conversation(llm)
    for item in context.items:
        if item.type == "message":
            item.content = [*item.content, "And one more thing.", "That is all."]
    data = context.to_dict(exclude_timestamp=False)
    return lambda: llm.chat_context.ChatContext.from_dict(data)


def is_equivalent(llm: Any) -> Callable[[], object]:
    one, other = conversation(llm), conversation(llm)
    return lambda: one.is_equivalent(other)


def diff(
    llm: Any, change: Callable[[list[Any]], list[Any]], *, shared: bool = False
) -> Callable[[], object]:
    """Shared items are what `copy()` gives; equal ones are what loading gives."""
    old = conversation(llm)
    others = old if shared else conversation(llm)
    new = llm.chat_context.ChatContext(change(list(others.items)))
    compute = llm.utils.compute_chat_ctx_diff
    return lambda: compute(old, new)


def one_new(llm: Any, shared: bool = True) -> Callable[[], object]:
    added = llm.chat_context.ChatMessage(role="user", content=["And on Sunday?"])
    return diff(llm, lambda items: [*items, added], shared=shared)


def one_new_loaded(llm: Any) -> Callable[[], object]:
    return one_new(llm, shared=False)


def one_moved(llm: Any) -> Callable[[], object]:
    return diff(llm, lambda items: [*items[1:], items[0]])


def reversed_items(llm: Any) -> Callable[[], object]:
    return diff(llm, lambda items: items[::-1])


def add_message(llm: Any) -> Callable[[], object]:
    def hundred() -> None:
        context = llm.chat_context.ChatContext()
        for _ in range(100):
            context.add_message(role="user", content="What is the weather?")

    return hundred


def ordered_appends(llm: Any) -> Callable[[], object]:
    def appends() -> None:
        context = llm.chat_context.ChatContext()
        for index in range(5000):
            context.add_message(role="user", content="Hello", created_at=float(index))

    return appends


def ordered_inserts(llm: Any) -> Callable[[], object]:
    messages = [
        llm.chat_context.ChatMessage(role="user", content=["Hello"], created_at=float(index))
        for index in range(5000)
    ]

    def inserts() -> None:
        context = llm.chat_context.ChatContext()
        for message in messages:
            context.insert(message)

    return inserts


def merge(llm: Any) -> Callable[[], object]:
    older, newer = conversation(llm), conversation(llm)
    for index, item in enumerate(older.items):
        item.id = f"other_{index}"

    def merged() -> None:
        newer.copy().merge(older)

    return merged


def formatted(name: str) -> Callable[[Any], Callable[[], object]]:
    def prepare(llm: Any) -> Callable[[], object]:
        context = conversation(llm)
        return lambda: context.to_provider_format(name)

    return prepare


def mended(name: str) -> Callable[[Any], Callable[[], object]]:
    """What `LLM.chat` does with a history: make sure that it is legal, then convert it."""

    def prepare(llm: Any) -> Callable[[], object]:
        from rejoinder._core.repair import repair

        context = conversation(llm)

        def both() -> object:
            items, _ = repair(context.items, name)
            return llm.chat_context.ChatContext(items).to_provider_format(name)

        return both

    return prepare


class Unit(Enum):
    C = "celsius"
    F = "fahrenheit"


def tools(llm: Any, count: int = 30) -> list[Any]:
    def made(number: int) -> Any:
        async def get_weather(
            city: str,
            days: int = 3,
            unit: Unit = Unit.C,
            detail: Annotated[float, Field(ge=0, le=9, description="how much to tell")] = 1.0,
            tags: Optional[list[str]] = None,  # noqa: UP045  as the peer knows it
        ) -> str:
            """Get the weather.

            Args:
                city: the city to look at
                days: how many days
                unit: which unit
            """
            return ""

        return llm.tool_context.function_tool(get_weather, name=f"tool_{number}")

    return [made(number) for number in range(count)]


def strict_schemas(llm: Any) -> Callable[[], object]:
    given = tools(llm)
    build = llm.utils.build_strict_openai_schema
    return lambda: [build(tool) for tool in given]


def tools_of_a_request(llm: Any) -> Callable[[], object]:
    """What `LLM.chat` does with its tools."""
    given = tools(llm)
    return lambda: llm.tool_context.ToolContext(given).parse_function_tools("openai")


def arguments(text: str) -> Callable[[Any], Callable[[], object]]:
    def prepare(llm: Any) -> Callable[[], object]:
        (tool,) = tools(llm, 1)
        bind = llm.utils.prepare_function_arguments
        return lambda: bind(fnc=tool, json_arguments=text)

    return prepare


CASES = [
    Case("copy", copy, limit=1.0),
    Case("copy filtered", copy_filtered, limit=1.0),
    Case("to_dict", to_dict, limit=0.5),
    Case("from_dict of to_dict", from_dict, limit=0.5),
    # Making a model object is pydantic's own work on both sides, and most of this row.
    Case("from_dict alone", from_dict_alone, limit=0.8),
    Case("from_dict alone of three parts", from_dict_of_parts, limit=0.6),
    Case("is_equivalent", is_equivalent, limit=1.0),
    Case("diff one new", one_new, limit=1 / 500, peer_calls=1),
    Case("diff one new and all loaded", one_new_loaded, limit=1 / 300, peer_calls=1),
    Case("diff one moved", one_moved, limit=1 / 250, peer_calls=1),
    Case("diff reversed", reversed_items, limit=1 / 250, peer_calls=1),
    Case("add_message", add_message, limit=0.75, each=100),
    Case("5000 ordered appends", ordered_appends, limit=0.75),
    Case("5000 ordered inserts", ordered_inserts, limit=0.75),
    Case("merge interleaved", merge, limit=1.0),
    Case("format openai", formatted("openai"), limit=0.65),
    Case("format mistralai", formatted("mistralai"), limit=0.65),
    Case("format anthropic", formatted("anthropic"), limit=0.5),
    Case("format google", formatted("google"), limit=0.5),
    Case("format aws", formatted("aws"), limit=0.5),
    # The peer does not repair: this row says that safety is not paid with time.
    Case("repair and format openai", mended("openai"), limit=1.0, peer=formatted("openai")),
    Case(
        "repair and format anthropic", mended("anthropic"), limit=1.0, peer=formatted("anthropic")
    ),
    Case("repair and format google", mended("google"), limit=1.0, peer=formatted("google")),
    Case("repair and format aws", mended("aws"), limit=1.0, peer=formatted("aws")),
    Case("strict schemas of 30 tools", strict_schemas, limit=1 / 200, peer_calls=1),
    Case(
        "30 tools of a request",
        tools_of_a_request,
        limit=1 / 200,
        peer=strict_schemas,
        peer_calls=1,
    ),
    Case("arguments", arguments('{"city": "Oslo", "days": 2}'), limit=1 / 20),
    Case("arguments with null", arguments('{"city": "Oslo", "days": null}'), limit=1 / 20),
]

if __name__ == "__main__":
    main(CASES)
