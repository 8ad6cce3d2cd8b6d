"""Random conversations, for the properties of all adapters."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from rejoinder.llm import ChatContext
from rejoinder.llm.chat_context import (
    ChatItem,
    ChatMessage,
    FunctionCall,
    FunctionCallOutput,
    ImageContent,
)

words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
names = st.text("abcdef0123", min_size=1, max_size=8)
arguments = st.dictionaries(words, st.integers() | words | st.lists(words, max_size=2), max_size=2)
images = st.builds(
    ImageContent,
    image=st.sampled_from(
        ["https://example.com/a.png", "data:image/png;base64,AAAA", "data:image/jpeg;base64,/9g="]
    ),
    inference_detail=st.sampled_from(["auto", "high", "low"]),
)


def message(*roles: Any, content: st.SearchStrategy[list[Any]]) -> st.SearchStrategy[ChatMessage]:
    return st.builds(ChatMessage, role=st.sampled_from(roles), content=content)


@st.composite
def calls_with_outputs(draw: st.DrawFn, *, shuffled: bool) -> list[ChatItem]:
    ids = draw(st.lists(st.uuids().map(str), min_size=1, max_size=3, unique=True))
    called = [
        FunctionCall(
            call_id=call_id,
            name=draw(names),
            arguments=json.dumps(draw(arguments)),
            group_id=ids[0],
        )
        for call_id in ids
    ]
    returned = draw(st.permutations(called)) if shuffled else called
    return [
        *called,
        *(
            FunctionCallOutput(
                call_id=call.call_id,
                name=call.name,
                output=draw(words),
                is_error=draw(st.booleans()),
            )
            for call in returned
        ),
    ]


_one = st.lists(words, min_size=1, max_size=1)


def contexts(*instructions: Any, shuffled: bool = True) -> st.SearchStrategy[ChatContext]:
    """Contexts that every provider would take.

    Args:
        instructions: the roles of instructions.
        shuffled: whether outputs stand in any order, not only in that of their calls.
    """
    turn = st.one_of(
        message(*instructions, content=_one).map(_alone),
        message("user", content=st.lists(words | images, min_size=1, max_size=4)).map(_alone),
        message("assistant", content=_one).map(_alone),
        calls_with_outputs(shuffled=shuffled),
    )
    return st.lists(turn, max_size=6).map(_joined)


def _alone(item: ChatItem) -> list[ChatItem]:
    return [item]


def _joined(turns: list[list[ChatItem]]) -> ChatContext:
    end = ChatMessage(role="user", content=["Go on."])
    return ChatContext([*(item for turn in turns for item in turn), end])


def known(chat_ctx: ChatContext, *, errors: bool = True) -> list[Any]:
    """What both sides know of a context.

    Args:
        errors: whether the other side knows that an output is an error.
    """
    found: list[Any] = []
    for item in chat_ctx.items:
        if isinstance(item, ChatMessage):
            found.append((item.role, _joined_texts(item.content)))
        elif isinstance(item, FunctionCall):
            found.append((item.call_id, item.name, json.loads(item.arguments)))
        elif isinstance(item, FunctionCallOutput):
            failed = item.is_error if errors else None
            found.append((item.call_id, item.name, item.output, failed))
    return found


def _joined_texts(content: list[Any]) -> list[Any]:
    """The parts, with texts side by side as one, as formats write them."""
    found: list[Any] = []
    for part in content:
        if isinstance(part, ImageContent):
            found.append((part.image, part.inference_detail))
        elif found and isinstance(found[-1], str):
            found[-1] += f"\n{part}"
        else:
            found.append(part)
    return found
