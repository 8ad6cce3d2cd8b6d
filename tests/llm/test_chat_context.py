"""The conversation: adding, copying, cutting, merging, saving and loading."""

from __future__ import annotations

import copy
import json
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from rejoinder.errors import APIConnectionError, EmptyResponseError
from rejoinder.llm import chat_context
from rejoinder.llm.chat_context import (
    AgentConfigUpdate,
    AgentHandoff,
    AudioContent,
    ChatContext,
    ChatItem,
    ChatMessage,
    FunctionCall,
    FunctionCallOutput,
    ImageContent,
    _ReadOnlyChatContext,
    estimate_tokens,
)
from rejoinder.llm.llm import LLM, ChatChunk, ChoiceDelta, LLMStream
from rejoinder.media import AudioFrame, VideoFrame
from rejoinder.types import DEFAULT_API_CONNECT_OPTIONS

HISTORIES = Path(__file__).parents[1] / "reference" / "histories"
EVERYTHING = {"exclude_image": False, "exclude_audio": False, "exclude_timestamp": False}


def message(
    item_id: str, role: Any = "user", text: str | None = "t", at: float = 1.0
) -> ChatMessage:
    content: list[Any] = [] if text is None else [text]
    return ChatMessage(id=item_id, role=role, content=content, created_at=at)


def call(item_id: str, call_id: str, name: str = "weather", at: float = 1.0) -> FunctionCall:
    return FunctionCall(id=item_id, call_id=call_id, name=name, arguments="{}", created_at=at)


def output(item_id: str, call_id: str, name: str = "", at: float = 1.0) -> FunctionCallOutput:
    return FunctionCallOutput(
        id=item_id, call_id=call_id, name=name, output="ok", is_error=False, created_at=at
    )


def ten() -> ChatContext:
    return ChatContext(
        [
            message("sys", "system"),
            message("dev", "developer"),
            message("u"),
            message("empty", "assistant", None),
            message("emptystr", "assistant", ""),
            call("fc1", "c1"),
            output("fo1", "c1", "weather"),
            call("fc2", "c2", "rawt"),
            output("fo2", "c2"),
            message("a", "assistant"),
        ]
    )


def ids(context: ChatContext) -> list[str]:
    return [item.id for item in context.items]


# --- the items ---


class TestItems:
    def test_the_models_live_where_users_look(self) -> None:
        for name in ("ChatMessage", "FunctionCall", "ImageContent", "AgentHandoff"):
            assert getattr(chat_context, name).__module__ == "rejoinder.llm.chat_context"

    def test_ids(self) -> None:
        made = message("x").model_copy()
        assert made.id == "x"
        fresh = [ChatMessage(role="user", content=[]).id for _ in range(2)]
        assert fresh[0] != fresh[1]
        assert all(item_id.startswith("item_") and len(item_id) == 17 for item_id in fresh)
        image_id = ImageContent(image="http://x").id
        assert image_id.startswith("img_")
        assert len(image_id) == 16

    @pytest.mark.parametrize(
        ("content", "text"),
        [
            ([], None),
            (["a"], "a"),
            (["a", "b"], "a\nb"),
            (["a", "", "b"], "a\n\nb"),
            ([""], ""),
            ([{"image": "http://x"}], None),
            (["a", {"image": "http://x"}, "b"], "a\nb"),
        ],
    )
    def test_text_content(self, content: list[Any], text: str | None) -> None:
        item = ChatMessage(role="user", content=content)
        assert item.text_content == item.raw_text_content == text

    @pytest.mark.parametrize(
        ("part", "kind"),
        [
            ({"image": "http://x"}, ImageContent),
            ({"type": "image_content", "image": "http://x"}, ImageContent),
            ({"frame": []}, AudioContent),
            ({"frame": [], "type": "audio_content"}, AudioContent),
            ("text", str),
        ],
    )
    def test_parts_are_told_apart(self, part: Any, kind: type) -> None:
        assert type(ChatMessage(role="user", content=[part]).content[0]) is kind

    @pytest.mark.parametrize(
        ("fields", "path"),
        [
            ({"role": "user", "content": "text"}, "content"),
            ({"role": "nobody", "content": []}, "role"),
            ({"role": "user", "content": [1]}, "content.0"),
            ({"role": "user", "content": [{"type": "video", "image": "x"}]}, "content.0"),
            ({"role": "user", "content": [{"x": 1}]}, "content.0"),
            ({"role": "user", "content": [], "id": None}, "id"),
        ],
    )
    def test_bad_messages_are_refused_with_their_path(
        self, fields: dict[str, Any], path: str
    ) -> None:
        with pytest.raises(ValidationError) as caught:
            ChatMessage(**fields)
        assert all(
            ".".join(map(str, error["loc"])).startswith(path) for error in caught.value.errors()
        )

    def test_a_part_that_stands_alone_is_refused_with_the_remedy(self) -> None:
        alone: Any = ImageContent(image="http://x")
        with pytest.raises(
            ValidationError, match=r"content=\[\.\.\.\] around the ImageContent"
        ) as caught:
            ChatContext().add_message(role="user", content=alone)
        assert [error["loc"] for error in caught.value.errors()] == [("content",)]

    def test_required_fields(self) -> None:
        with pytest.raises(ValidationError):
            FunctionCallOutput(call_id="c", output="o")  # type: ignore[call-arg]
        with pytest.raises(ValidationError):
            FunctionCall(call_id="c", arguments="{}")  # type: ignore[call-arg]
        with pytest.raises(ValidationError):
            FunctionCall(call_id="c", name="n", arguments={})  # type: ignore[arg-type]

    def test_mutable_unhashable_and_tolerant(self) -> None:
        item = ChatMessage(role="user", content=["x"], surplus=1)  # type: ignore[call-arg]
        item.role = "assistant"
        assert not hasattr(item, "surplus")
        with pytest.raises(TypeError):
            hash(item)

    def test_the_list_is_copied_and_dicts_are_not_shared(self) -> None:
        content: list[Any] = ["x"]
        one, other = (ChatMessage(role="user", content=content) for _ in range(2))
        assert one.content is not content
        one.extra["a"] = 1
        one.metrics["b"] = 1
        assert other.extra == other.metrics == {}

    def test_schema_for_tools_that_want_one(self) -> None:
        schema = TypeAdapter(ChatItem).json_schema()
        assert {"ChatMessage", "FunctionCall", "AgentHandoff"} <= set(schema["$defs"])


# --- adding and finding ---


class TestAdding:
    def test_the_list_is_kept_not_copied(self) -> None:
        items: list[ChatItem] = []
        context = ChatContext(items)
        assert context.items is items
        other: list[ChatItem] = [message("x")]
        context.items = other
        assert context.items is other
        assert ChatContext().items == ChatContext.empty().items == []

    def test_empty_keeps_the_class(self) -> None:
        class Sub(ChatContext):
            pass

        assert type(Sub.empty()) is Sub
        assert type(Sub.from_dict({"items": []})) is Sub
        assert type(Sub().copy()) is ChatContext

    def test_add_message_appends_whatever_the_times(self) -> None:
        context = ChatContext([message("m0", at=9e12)])
        added = context.add_message(role="user", content="hi", interrupted=True, id="n")
        assert ids(context) == ["m0", "n"]
        assert added.content == ["hi"]
        assert added.interrupted

    def test_add_message_with_everything(self) -> None:
        context = ChatContext()
        added = context.add_message(
            role="user", content="", metrics={"a": 1}, extra={"p": {}}, created_at=3.0
        )
        assert (added.content, added.metrics, added.extra, added.created_at) == (
            [""],
            {"a": 1},
            {"p": {}},
            3.0,
        )
        with pytest.raises(ValidationError):
            context.add_message(role="x", content="")  # type: ignore[arg-type]
        assert len(context.items) == 1

    @pytest.mark.parametrize(
        ("at", "expected"),
        [(2.0, ["m0", "m1", "new", "m2"]), (0.0, ["new", "m0", "m1", "m2"]), (9.0, None)],
    )
    def test_add_message_by_time(self, at: float, expected: list[str] | None) -> None:
        context = ChatContext([message("m0", at=1), message("m1", at=2), message("m2", at=3)])
        context.add_message(role="user", content="x", id="new", created_at=at)
        assert ids(context) == (expected or ["m0", "m1", "m2", "new"])

    def test_insert(self) -> None:
        context = ChatContext([message("m0", at=1), message("m1", at=3)])
        context.insert((message("a", at=1), message("b", at=1), message("c", at=2)))
        assert ids(context) == ["m0", "a", "b", "c", "m1"]
        context.insert(message("d", at=3))
        assert ids(context)[-1] == "d"
        context.insert([])
        before = ids(context)
        for wrong, says in (
            (None, "insert, item: .*got NoneType"),
            ((message(str(i)) for i in range(2)), "insert, item: .*got generator"),
            ([message("x"), 3], "insert, item 1 of the sequence: .*got int"),
            ("text", "insert, item 0 of the sequence: .*got str"),
        ):
            with pytest.raises(AttributeError, match=says):
                context.insert(wrong)  # type: ignore[arg-type]
        assert ids(context) == before

    def test_unsorted_lists_are_searched_from_the_end(self) -> None:
        context = ChatContext([message(str(t), at=t) for t in (5, 1, 9, 2)])
        assert context.find_insertion_index(created_at=3) == 4
        assert context.find_insertion_index(created_at=1.5) == 2
        assert context.find_insertion_index(created_at=math.nan) == 0
        assert ChatContext().find_insertion_index(created_at=1) == 0

    def test_find_and_remove(self) -> None:
        context = ten()
        assert context.get_by_id("u") is context.items[2]
        assert context.index_by_id("u") == 2
        assert context.get_by_id("no") is context.index_by_id("no") is None
        context.remove("u")
        context.remove(context.items[0])
        assert ids(context)[:2] == ["dev", "empty"]
        with pytest.raises(ValueError, match="'u'"):
            context.remove("u")

    def test_messages(self) -> None:
        assert [m.id for m in ten().messages()] == ["sys", "dev", "u", "empty", "emptystr", "a"]

    def test_repr_does_not_spill_the_conversation(self) -> None:
        assert repr(ten()) == "<ChatContext: 10 items>"
        assert repr(ChatContext(None)) == "<ChatContext: 0 items>"  # type: ignore[arg-type]


# --- copying and merging ---


class Tool:
    """Shaped as a function tool."""

    def __init__(self, name: str) -> None:
        self.info = type("Info", (), {"name": name})()


class Toolset:
    def __init__(self, *tools: Any) -> None:
        self.tools = list(tools)


ALL = ["sys", "dev", "u", "empty", "emptystr", "fc1", "fo1", "fc2", "fo2", "a"]
NO_CALLS = ["sys", "dev", "u", "empty", "emptystr", "a"]


class TestCopying:
    @pytest.mark.parametrize(
        ("arguments", "expected"),
        [
            ({}, ALL),
            ({"exclude_function_call": True}, NO_CALLS),
            ({"exclude_instructions": True}, ALL[2:]),
            ({"exclude_empty_message": True}, [i for i in ALL if i != "empty"]),
            ({"tools": []}, NO_CALLS),
            ({"tools": None}, NO_CALLS),
            ({"tools": ["weather"]}, [*ALL[:5], "fc1", "fo1", "a"]),
            ({"tools": [Tool("weather")]}, [*ALL[:5], "fc1", "fo1", "a"]),
            ({"tools": [Toolset(Toolset(Tool("rawt")))]}, [*ALL[:5], "fc2", "a"]),
            ({"tools": ["weather", "rawt", ""]}, ALL),
            ({"tools": [object(), 3]}, NO_CALLS),
        ],
    )
    def test_copy(self, arguments: dict[str, Any], expected: list[str]) -> None:
        context = ten()
        copied = context.copy(**arguments)
        assert ids(copied) == expected
        assert copied.items is not context.items
        assert copied.items[0] is context.get_by_id(expected[0])
        assert ids(context) == ALL

    def test_later_kinds(self) -> None:
        context = ChatContext(
            [
                AgentHandoff(id="h", new_agent_id="x", created_at=1.0),
                AgentConfigUpdate(id="c", created_at=1.0),
                message("m"),
            ]
        )
        assert ids(context.copy(exclude_handoff=True)) == ["c", "m"]
        assert ids(context.copy(exclude_config_update=True)) == ["h", "m"]
        assert ids(ChatContext().merge(context, exclude_config_update=True)) == ["h", "m"]
        dumped = context.to_dict(exclude_config_update=True)["items"]
        assert [item["id"] for item in dumped] == ["h", "m"]

    def test_merge(self) -> None:
        context = ChatContext([message("m0", at=1), message("m1", at=2)])
        other = ChatContext([message("m1", at=0), message("x", at=2), message("x", at=0)])
        assert context.merge(other) is context
        assert ids(context) == ["m0", "m1", "x"]
        assert context.items[2] is other.items[1]
        assert ids(context.merge(context)) == ["m0", "m1", "x"]
        assert ids(ChatContext().merge(ten(), exclude_function_call=True)) == NO_CALLS
        assert ids(ChatContext().merge(ten(), exclude_instructions=True)) == ALL[2:]

    @given(
        st.lists(st.floats(0, 9) | st.just(math.nan), max_size=12),
        st.lists(st.floats(0, 9) | st.just(math.nan), max_size=12),
    )
    def test_merging_at_once_is_merging_one_by_one(
        self, mine: list[float], theirs: list[float]
    ) -> None:
        at_once = ChatContext([message(f"m{i}", at=t) for i, t in enumerate(mine)])
        one_by_one = at_once.copy()
        new = [message(f"x{i}", at=t) for i, t in enumerate(theirs)]
        at_once.merge(ChatContext(list(new)))
        for item in new:
            index = one_by_one.find_insertion_index(created_at=item.created_at)
            one_by_one.items.insert(index, item)
        assert ids(at_once) == ids(one_by_one)


# --- cutting ---


class TestTruncate:
    @pytest.mark.parametrize(
        ("max_items", "expected"),
        [
            (0, ["sys"]),
            *[(n, ["sys", "a"]) for n in (1, 2, 3, 4, 5)],
            (6, ["sys", "emptystr", "fc1", "fo1", "fc2", "fo2", "a"]),
            (9, ["sys", *ALL[1:]]),
            (10, ALL),
            (11, ALL),
        ],
    )
    def test_by_items(self, max_items: int, expected: list[str]) -> None:
        context = ten()
        items = context.items
        assert context.truncate(max_items=max_items) is context
        assert context.items is items
        assert ids(context) == expected

    def test_instructions_of_either_role_are_kept_once(self) -> None:
        context = ChatContext([message("dev", "developer"), message("u"), message("v")])
        assert ids(context.truncate(max_items=1)) == ["dev", "v"]
        context = ChatContext([message("u"), message("s", "system"), message("v")])
        assert ids(context.truncate(max_items=2)) == ["s", "v"]
        assert ids(ChatContext([call("c", "1"), message("s", "system")]).truncate(max_items=1)) == [
            "s"
        ]

    def test_a_call_is_not_parted_from_its_output(self) -> None:
        context = ChatContext(
            [call("fc", "c"), message("u"), output("fo", "c"), message("v"), output("orphan", "o")]
        )
        assert ids(context.truncate(max_items=4)) == ["u", "v", "orphan"]

    def test_call_ids_may_be_used_again(self) -> None:
        context = ChatContext(
            [call("fc", "c"), message("u"), output("fo", "c"), call("fc2", "c"), output("fo2", "c")]
        )
        assert ids(context.truncate(max_items=4)) == ["u", "fc2", "fo2"]

    def test_an_output_ahead_of_its_call(self) -> None:
        context = ChatContext([output("fo", "c"), message("u"), call("fc", "c"), message("v")])
        assert ids(context.copy().truncate(max_items=3)) == ["u", "v"]
        context.items.append(output("fo2", "c"))
        assert ids(context.truncate(max_items=4)) == ["u", "fc", "v", "fo2"]

    def test_instructions_in_the_window_are_counted_once(self) -> None:
        context = ChatContext([message("t"), message("u"), message("s", "system"), message("v")])
        context.truncate(max_tokens=3, count=lambda item: 1)
        assert ids(context) == ["u", "s", "v"]

    def test_bad_limits(self) -> None:
        for arguments in (
            {"max_items": -1},
            {"max_tokens": -1},
            {},
            {"max_items": 1, "max_tokens": 1},
        ):
            with pytest.raises(ValueError, match="truncate"):
                ten().truncate(**arguments)  # type: ignore[arg-type]
        for wrong in ("2", 1.5, None):
            with pytest.raises(TypeError, match=r"truncate\.max_items: expected a whole number"):
                ten().truncate(max_items=wrong)  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("max_tokens", "expected"),
        [
            (0, ["sys"]),
            (1, ["sys"]),
            (2, ["sys", "a"]),
            (6, ["sys", "a"]),
            (7, ["sys", "emptystr", "fc1", "fo1", "fc2", "fo2", "a"]),
            (9, ["sys", *ALL[2:]]),
            (10, ALL),
            (99, ALL),
        ],
    )
    def test_by_tokens(self, max_tokens: int, expected: list[str]) -> None:
        context = ten().truncate(max_tokens=max_tokens, count=lambda item: 1)
        assert ids(context) == expected

    def test_by_estimate(self) -> None:
        context = ChatContext(
            [message("s", "system", "x" * 40)]
            + [message(str(n), "user", "x" * 400, at=n) for n in range(10)]
        )
        context.truncate(max_tokens=330)
        assert ids(context) == ["s", "7", "8", "9"]
        assert sum(map(estimate_tokens, context.items)) <= 330

    @given(st.data())
    def test_laws(self, data: st.DataObject) -> None:
        kinds = st.sampled_from("suacoh")
        items: list[ChatItem] = []
        for index, kind in enumerate(data.draw(st.lists(kinds, max_size=20))):
            call_id = data.draw(st.sampled_from("123"))
            items.append(
                {
                    "s": lambda i: message(i, "system"),
                    "u": lambda i: message(i, "user"),
                    "a": lambda i: message(i, "assistant"),
                    "c": lambda i, c=call_id: call(i, c),
                    "o": lambda i, c=call_id: output(i, c),
                    "h": lambda i: AgentHandoff(id=i, new_agent_id="x"),
                }[kind](str(index))
            )
        instructions = [i for i in items if i.type == "message" and i.role == "system"]
        limit = data.draw(st.integers(0, 22))
        by_tokens = data.draw(st.booleans())
        context = ChatContext(list(items))
        if by_tokens:
            context.truncate(max_tokens=limit, count=lambda item: 1)
            kept = len(context.items)
            assert kept <= max(limit, len(instructions[:1]))
        else:
            context.truncate(max_items=limit)
            assert len(context.items) <= limit + 1
        known = {item.id: index for index, item in enumerate(items)}
        order = [known[item_id] for item_id in ids(context)]
        assert order == sorted(set(order))
        if len(context.items) < len(items):
            calls = {i.call_id for i in context.items if i.type == "function_call"}
            all_calls = {i.call_id for i in items if i.type == "function_call"}
            for item in context.items:
                if item.type == "function_call_output" and item.call_id in all_calls:
                    assert item.call_id in calls
            rest = [i for i in context.items if i not in instructions[:1]]
            if rest and rest[0].type in ("function_call", "function_call_output"):
                # Only where the window begins with the instructions, and what stood between was
                # parted from its other half.
                before = items[known[instructions[0].id] + 1 : known[rest[0].id]]
                assert all(
                    item.type in ("function_call", "function_call_output") for item in before
                )
        assert not instructions or instructions[0] in context.items


# --- saving and loading ---


def rich() -> ChatContext:
    """One of everything, with values that are easily lost."""
    return ChatContext(
        [
            ChatMessage(
                id="m",
                role="user",
                content=[
                    "héllo 🌍\x00",
                    ImageContent(
                        id="i", image="http://x", inference_width=3, mime_type="image/png"
                    ),
                    ImageContent(id="j", image=VideoFrame(1, 1, "RGBA", b"\x00\x01\x02\xff")),
                    AudioContent(
                        frame=[AudioFrame(b"\x01\x00\x02\x00", 8000, 2, 1)], transcript="t"
                    ),
                ],
                interrupted=True,
                transcript_confidence=0.5,
                hash=b"\xff\x00",
                extra={"anthropic": {"thinking": [{"signature": "s", "n": None}]}},
                metrics={"llm_node_ttft": 0.1},
                created_at=3.25,
            ),
            FunctionCall(
                id="f",
                call_id="c",
                name="n",
                arguments='{"a": ',
                extra={"google": {"thought_signature": "QQ=="}},
                group_id="g",
                created_at=4.0,
            ),
            FunctionCallOutput(
                id="o", call_id="c", output="", is_error=True, reply_required=False, created_at=5.0
            ),
            AgentHandoff(id="h", old_agent_id="a", new_agent_id="b", created_at=6.0),
            AgentConfigUpdate(id="u", instructions="x", tools_added=["t"], created_at=7.0),
        ]
    )


# Half a surrogate pair, control characters, NaN: whatever a model or a program may have said.
ANY_TEXT = st.text(st.characters(codec=None), max_size=12)
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_TEXT, inner, max_size=3),
    max_leaves=5,
)
ANY_EXTRA = st.dictionaries(ANY_TEXT, ANY_JSON, max_size=2)
ANY_FRAME = st.builds(
    lambda width, height: VideoFrame(width, height, "RGB24", bytes(3 * width * height)),
    st.integers(1, 3),
    st.integers(1, 3),
)
ANY_PART = (
    ANY_TEXT
    | st.builds(
        ImageContent,
        id=ANY_TEXT,
        image=ANY_TEXT | ANY_FRAME,
        inference_width=st.none() | st.integers(),
        inference_detail=st.sampled_from(["auto", "high", "low"]),
        mime_type=st.none() | ANY_TEXT,
    )
    | st.builds(
        AudioContent,
        frame=st.lists(
            st.builds(lambda n: AudioFrame(bytes(2 * n), 24000, 1, n), st.integers(0, 4)),
            max_size=2,
        ),
        transcript=st.none() | ANY_TEXT,
    )
)
COMMON: dict[str, Any] = {"id": ANY_TEXT, "created_at": st.floats()}
ANY_ITEM = st.one_of(
    st.builds(
        ChatMessage,
        **COMMON,
        role=st.sampled_from(["user", "assistant", "system", "developer"]),
        content=st.lists(ANY_PART, max_size=3),
        interrupted=st.booleans(),
        transcript_confidence=st.none() | st.floats(),
        hash=st.none() | st.binary(max_size=9),
        extra=ANY_EXTRA,
        metrics=ANY_EXTRA,
    ),
    st.builds(
        FunctionCall,
        **COMMON,
        call_id=ANY_TEXT,
        arguments=ANY_TEXT,
        name=ANY_TEXT,
        extra=ANY_EXTRA,
        group_id=st.none() | ANY_TEXT,
    ),
    st.builds(
        FunctionCallOutput,
        **COMMON,
        name=ANY_TEXT,
        call_id=ANY_TEXT,
        output=ANY_TEXT,
        is_error=st.booleans(),
        reply_required=st.booleans(),
    ),
    st.builds(AgentHandoff, **COMMON, old_agent_id=st.none() | ANY_TEXT, new_agent_id=ANY_TEXT),
    st.builds(
        AgentConfigUpdate,
        **COMMON,
        instructions=st.none() | ANY_TEXT,
        tools_added=st.none() | st.lists(ANY_TEXT, max_size=2),
    ),
)


def through_dict(context: ChatContext) -> ChatContext:
    return ChatContext.from_dict(context.to_dict(**EVERYTHING))


def through_json(context: ChatContext) -> ChatContext:
    return ChatContext.from_dict(json.loads(json.dumps(context.to_dict(**EVERYTHING))))


def through_pydantic_json(context: ChatContext) -> ChatContext:
    items = TypeAdapter(list[ChatItem])
    return ChatContext(items.validate_json(items.dump_json(context.items)))


def through_pydantic_python(context: ChatContext) -> ChatContext:
    items = TypeAdapter(list[ChatItem])
    return ChatContext(items.validate_python(items.dump_python(context.items)))


def through_pickle(context: ChatContext) -> ChatContext:
    return pickle.loads(pickle.dumps(context))


class TestSaving:
    @pytest.mark.parametrize(
        "through",
        [
            through_dict,
            through_json,
            through_pydantic_json,
            through_pydantic_python,
            through_pickle,
            copy.deepcopy,
        ],
    )
    def test_nothing_is_lost(self, through: Callable[[ChatContext], ChatContext]) -> None:
        context = rich()
        back = through(context)
        assert back.items == context.items
        assert all(a is not b for a, b in zip(back.items, context.items, strict=True))
        assert back.is_equivalent(context)
        assert back.to_dict(**EVERYTHING) == context.to_dict(**EVERYTHING)

    @given(st.lists(ANY_ITEM, max_size=3))
    def test_nothing_of_any_history_is_lost(self, items: list[ChatItem]) -> None:
        context = ChatContext(items)
        for through in (through_dict, through_json, through_pickle, copy.deepcopy):
            back = through(context)
            # By their texts, because NaN does not even equal itself.
            assert repr(back.items) == repr(items)
            saved = json.dumps(context.to_dict(**EVERYTHING))
            assert json.dumps(back.to_dict(**EVERYTHING)) == saved

    def test_keys_that_pydantic_cannot_write(self) -> None:
        extra: dict[str, Any] = {"\ud800": ({"a": b"abc"},), "b": [1]}
        context = ChatContext([ChatMessage(id="m", role="user", content=[], extra=extra)])
        context.items[0].extra = extra  # type: ignore[union-attr]  # not the copy of it
        assert context.to_dict()["items"][0]["extra"] == {"\ud800": [{"a": "YWJj"}], "b": [1]}
        extra["b"].append(extra)
        with pytest.raises(ValueError, match="item 'm', extra: expected JSON values"):
            context.to_dict()

    def test_default_form(self) -> None:
        assert rich().to_dict() == {
            "items": [
                {
                    "id": "m",
                    "type": "message",
                    "role": "user",
                    "content": ["héllo 🌍\x00"],
                    "interrupted": True,
                    "transcript_confidence": 0.5,
                    "hash": "base64:/wA=",
                    "extra": {"anthropic": {"thinking": [{"signature": "s", "n": None}]}},
                    "metrics": {"llm_node_ttft": 0.1},
                },
                {
                    "id": "f",
                    "type": "function_call",
                    "call_id": "c",
                    "arguments": '{"a": ',
                    "name": "n",
                    "extra": {"google": {"thought_signature": "QQ=="}},
                    "group_id": "g",
                },
                {
                    "id": "o",
                    "type": "function_call_output",
                    "name": "",
                    "call_id": "c",
                    "output": "",
                    "is_error": True,
                    "reply_required": False,
                },
                {"id": "h", "type": "agent_handoff", "old_agent_id": "a", "new_agent_id": "b"},
                {
                    "id": "u",
                    "type": "agent_config_update",
                    "instructions": "x",
                    "tools_added": ["t"],
                },
            ]
        }
        assert rich().to_dict(exclude_metrics=True)["items"][0].keys() == {
            "id",
            "type",
            "role",
            "content",
            "interrupted",
            "transcript_confidence",
            "hash",
            "extra",
        }
        kinds = [i["type"] for i in rich().to_dict(exclude_function_call=True)["items"]]
        assert kinds == ["message", "agent_handoff", "agent_config_update"]

    def test_saving_does_not_change_or_share(self) -> None:
        context = rich()
        before = copy.deepcopy(context.items)
        dumped = context.to_dict()
        dumped["items"][0]["extra"]["anthropic"]["thinking"].clear()
        dumped["items"][0]["content"].clear()
        assert context.items == before

    @given(st.binary(max_size=12) | st.text(max_size=5).map(lambda t: b"base64:" + t.encode()))
    def test_every_hash_comes_back(self, value: bytes) -> None:
        context = ChatContext([ChatMessage(role="user", content=[], hash=value)])
        assert through_json(context).items[0].hash == value  # type: ignore[union-attr]
        assert through_pydantic_json(context).items[0].hash == value  # type: ignore[union-attr]

    def test_hash_is_text_where_it_can_be(self) -> None:
        context = ChatContext([ChatMessage(role="user", content=[], hash=b"ab")])
        assert context.to_dict()["items"][0]["hash"] == "ab"
        old = {"items": [{"type": "message", "role": "user", "content": [], "hash": "base64:%%"}]}
        assert ChatContext.from_dict(old).items[0].hash == b"base64:%%"  # type: ignore[union-attr]

    def test_bytes_in_extra_are_written(self) -> None:
        item = FunctionCall(call_id="c", name="n", arguments="", extra={"google": {"s": b"\xff"}})
        assert ChatContext([item]).to_dict()["items"][0]["extra"] == {"google": {"s": "_w=="}}
        assert json.loads(item.model_dump_json())["extra"] == {"google": {"s": "_w=="}}

    def test_subclasses_keep_their_fields(self) -> None:
        class Mine(ChatMessage):
            mood: str = "good"

        item = Mine(id="x", role="user", content=["a", ImageContent(image="http://x")])
        assert ChatContext([item]).to_dict()["items"][0] == {
            "id": "x",
            "type": "message",
            "role": "user",
            "interrupted": False,
            "mood": "good",
            "content": ["a"],
        }

    def test_subclasses_leave_newer_defaults_out_too(self) -> None:
        class Mine(FunctionCallOutput):
            note: str = "n"

        item = Mine(id="x", call_id="c", output="o", is_error=False)
        dumped = ChatContext([item]).to_dict()["items"][0]
        assert "reply_required" not in dumped
        assert dumped["note"] == "n"
        item.reply_required = False
        assert ChatContext([item]).to_dict()["items"][0]["reply_required"] is False

    @pytest.mark.parametrize("version", ["1.2.17", "1.7.0"])
    def test_histories_of_livekit_load_and_round_trip(self, version: str) -> None:
        recorded = json.loads((HISTORIES / f"livekit-{version}.json").read_text())
        context = ChatContext.from_dict({"items": recorded["items"]})
        assert context.to_dict(**EVERYTHING)["items"] == list(map(plain, recorded["items"]))
        assert context.to_dict()["items"] == list(map(plain, recorded["default"]))
        picture = context.get_by_id("item_u1").content[2]  # type: ignore[union-attr]
        assert picture.image == VideoFrame(2, 2, "RGBA", bytes(range(16)))  # type: ignore[union-attr]
        if version == "1.7.0":
            kinds = {item.type for item in context.items}
            assert {"agent_handoff", "agent_config_update"} <= kinds
            assert context.get_by_id("item_b").group_id == "g1"  # type: ignore[union-attr]
        assert through_json(context).items == context.items

    def test_loading_makes_what_is_missing(self) -> None:
        data = {"items": [{"type": "message", "role": "user", "content": ["x"]}], "other": 1}
        one, other = (ChatContext.from_dict(data).items[0] for _ in range(2))
        assert one.id != other.id
        assert one.created_at > 1e9
        existing = message("x")
        assert ChatContext.from_dict({"items": [existing]}).items[0] is existing
        coerced = {"type": "message", "role": "user", "content": [], "created_at": "3"}
        assert ChatContext.from_dict({"items": [coerced]}).items[0].created_at == 3.0

    @pytest.mark.parametrize(
        ("entry", "path"),
        [
            ({"role": "user", "content": []}, (1,)),
            ({"type": "nothing"}, (1,)),
            ({"type": "message", "role": "user"}, (1, "message", "content")),
            ({"type": "message", "role": "user", "content": "x"}, (1, "message", "content")),
            (
                {"type": "message", "role": "user", "content": ["a", {"frame": 1}]},
                (1, "message", "content", 1),
            ),
            (
                {"type": "function_call", "call_id": "c", "name": "n"},
                (1, "function_call", "arguments"),
            ),
            (
                {
                    "type": "message",
                    "role": "user",
                    "content": [{"frame": [{"data": "!", "sample_rate": 1, "num_channels": 1}]}],
                },
                (1, "message", "content", 0, "AudioContent", "frame", 0),
            ),
        ],
    )
    def test_bad_entries_are_refused_with_their_path(
        self, entry: Any, path: tuple[Any, ...]
    ) -> None:
        good = message("x").model_dump(mode="json")
        with pytest.raises(ValidationError) as caught:
            ChatContext.from_dict({"items": [good, entry]})
        assert any(error["loc"][: len(path)] == path for error in caught.value.errors())
        assert str(caught.value)

    def test_not_a_history(self) -> None:
        with pytest.raises(KeyError, match="items"):
            ChatContext.from_dict({"messages": []})
        with pytest.raises(TypeError, match=r"from_dict\.data: expected a dict"):
            ChatContext.from_dict([])  # type: ignore[arg-type]
        with pytest.raises(ValidationError):
            ChatContext.from_dict({"items": 3})

    def test_what_is_no_frame_is_told_with_its_place(self) -> None:
        good = message("x").model_dump(mode="json")
        for part in ({"image": 5}, {"frame": [5]}):
            bad = {"type": "message", "role": "user", "content": [part]}
            with pytest.raises(TypeError, match=r"items\[2\]: expected an? (audio|video) frame"):
                ChatContext.from_dict({"items": [good, good, bad]})

    def test_times_that_are_no_numbers_survive(self) -> None:
        for at in (math.nan, math.inf, -math.inf):
            for item in (
                message("x", at=at),
                call("x", "c", at=at),
                output("x", "c", at=at),
                AgentHandoff(new_agent_id="a", created_at=at),
                AgentConfigUpdate(created_at=at),
            ):
                loaded = type(item).model_validate_json(item.model_dump_json())
                for through in (through_json, through_pickle):
                    (back,) = through(ChatContext([item])).items
                    assert repr(back.created_at) == repr(loaded.created_at) == repr(at)

    @pytest.mark.parametrize("name", ["extra", "metrics"])
    def test_what_json_cannot_say_is_told_with_its_place(self, name: str) -> None:
        endless: dict[str, Any] = {}
        endless["a"] = endless
        for value in ({"a": object()}, endless):
            context = ChatContext([message("m1"), message("m2")])
            setattr(context.items[1], name, value)
            with pytest.raises(ValueError, match=f"item 'm2', {name}: expected JSON values"):
                context.to_dict()

    def test_plain_data_among_the_items(self) -> None:
        context = ChatContext([message("m1"), {"type": "message"}])  # type: ignore[list-item]
        with pytest.raises(TypeError, match=r"got dict among them; .*from_dict"):
            context.to_dict()


def plain(item: dict[str, Any]) -> dict[str, Any]:
    """Without the newer fields that hold their default."""
    kept = {k: v for k, v in item.items() if not (k in ("extra", "metrics") and not v)}
    if kept.get("reply_required") is True:
        del kept["reply_required"]
    return kept


# --- comparing ---


def changed(**fields: Any) -> tuple[ChatItem, ChatItem]:
    item = message("m")
    return item, item.model_copy(update=fields)


class TestEquivalence:
    @pytest.mark.parametrize(
        ("fields", "same"),
        [
            ({}, True),
            ({"created_at": 9.0}, True),
            ({"hash": b"x"}, True),
            ({"transcript_confidence": 0.1}, True),
            ({"extra": {"a": 1}}, True),
            ({"metrics": {"a": 1}}, True),
            ({"content": ["x"]}, False),
            ({"role": "assistant"}, False),
            ({"interrupted": True}, False),
            ({"id": "n"}, False),
        ],
    )
    def test_messages(self, fields: dict[str, Any], same: bool) -> None:
        one, other = changed(**fields)
        assert ChatContext([one]).is_equivalent(ChatContext([other])) is same

    @pytest.mark.parametrize("field", ["name", "call_id", "arguments"])
    def test_calls(self, field: str) -> None:
        one = call("f", "c")
        assert not ChatContext([one]).is_equivalent(
            ChatContext([one.model_copy(update={field: "other"})])
        )

    @pytest.mark.parametrize("field", ["name", "call_id", "output", "is_error"])
    def test_outputs(self, field: str) -> None:
        one = output("f", "c")
        assert not ChatContext([one]).is_equivalent(
            ChatContext([one.model_copy(update={field: "other"})])
        )

    def test_other_kinds(self) -> None:
        handoff = AgentHandoff(id="x", new_agent_id="a")
        update = AgentConfigUpdate(id="x", instructions="a")
        pairs: list[tuple[ChatItem, ChatItem]] = [
            (handoff, handoff.model_copy(update={"new_agent_id": "b"})),
            (update, update.model_copy(update={"tools_added": ["b"]})),
            (handoff, update),
            (message("x"), call("x", "c")),
        ]
        for one, other in pairs:
            assert not ChatContext([one]).is_equivalent(ChatContext([other]))
            assert ChatContext([one]).is_equivalent(ChatContext([one.model_copy()]))
        assert not ChatContext([handoff]).is_equivalent(ChatContext())

    def test_not_a_context(self) -> None:
        with pytest.raises(
            AttributeError, match=r"is_equivalent\.other: expected a chat context, got list"
        ):
            ChatContext().is_equivalent([])  # type: ignore[arg-type]
        with pytest.raises(AttributeError, match=r"merge\.other_chat_ctx: expected a chat context"):
            ChatContext().merge({})  # type: ignore[arg-type]


# --- read-only ---


class TestReadOnly:
    @pytest.mark.parametrize(
        "change",
        [
            lambda c, i: c.items.append(i),
            lambda c, i: c.items.extend([i]),
            lambda c, i: c.items.insert(0, i),
            lambda c, i: c.items.pop(),
            lambda c, i: c.items.remove(c.items[0]),
            lambda c, i: c.items.clear(),
            lambda c, i: c.items.sort(key=id),
            lambda c, i: c.items.reverse(),
            lambda c, i: c.items.__setitem__(0, i),
            lambda c, i: c.items.__setitem__(slice(None), []),
            lambda c, i: c.items.__delitem__(0),
            lambda c, i: c.items.__iadd__([i]),
            lambda c, i: c.items.__imul__(2),
            lambda c, i: c.items.__init__([i]),
            lambda c, i: setattr(c, "items", []),
            lambda c, i: setattr(c, "_items", []),
            lambda c, i: setattr(c, "other", []),
            lambda c, i: delattr(c, "_items"),
            lambda c, i: c.__init__([i]),
            lambda c, i: c.add_message(role="user", content="x"),
            lambda c, i: c.add_message(role="user", content="x", created_at=1.0),
            lambda c, i: c.insert(i),
            lambda c, i: c.insert([i, i]),
            lambda c, i: c.merge(ChatContext([i])),
            lambda c, i: c.merge(ChatContext([i, message("y")])),
            lambda c, i: c.remove("m0"),
            lambda c, i: c.truncate(max_items=1),
            lambda c, i: c.truncate(max_tokens=1),
        ],
    )
    def test_every_change_is_refused(self, change: Callable[[Any, Any], object]) -> None:
        context = _ReadOnlyChatContext([message("m0"), message("m1")])
        before = list(context.items)
        with pytest.raises(RuntimeError, match="read-only"):
            change(context, message("x"))
        assert context.items == before

    async def test_summarize_is_refused_before_the_model_is_asked(self) -> None:
        context = _ReadOnlyChatContext([message(str(n)) for n in range(9)])
        model = Model("never")
        with pytest.raises(RuntimeError, match="read-only"):
            await context.summarize(model, keep_last_turns=0)
        assert model.asked == []

    def test_what_does_not_change_anything_works(self) -> None:
        source = [message("m0")]
        context = _ReadOnlyChatContext(source)
        source.append(message("m1"))
        assert ids(context) == ["m0"]
        assert context.readonly
        assert not ChatContext().readonly
        assert type(context.items.copy()) is type(context.items[:]) is list
        assert ids(context.truncate(max_items=5)) == ["m0"]
        assert context.error_msg
        copied = context.copy()
        assert type(copied) is ChatContext
        copied.add_message(role="user", content="x")
        assert type(_ReadOnlyChatContext.empty()) is _ReadOnlyChatContext
        loaded = _ReadOnlyChatContext.from_dict(context.to_dict())
        assert loaded.readonly
        assert ids(loaded) == ["m0"]

    @pytest.mark.parametrize("through", [copy.copy, copy.deepcopy, through_pickle])
    def test_copies_are_read_only_too(self, through: Callable[[Any], Any]) -> None:
        context = through(_ReadOnlyChatContext([message("m0")]))
        assert ids(context) == ["m0"]
        with pytest.raises(RuntimeError):
            context.items.append(message("x"))
        with pytest.raises(RuntimeError):
            context.items = []


# --- summaries ---


class Model(LLM[Any]):
    """Answers with a fixed text, or fails, and remembers what it was asked."""

    def __init__(
        self, answer: str | Exception, meanwhile: Callable[[], object] | None = None
    ) -> None:
        super().__init__()
        self.answer = answer
        self.meanwhile = meanwhile
        self.asked: list[ChatContext] = []

    def chat(self, *, chat_ctx: ChatContext, **kwargs: Any) -> LLMStream:
        self.asked.append(chat_ctx)
        options = kwargs.get("conn_options", DEFAULT_API_CONNECT_OPTIONS)
        return Reply(self, chat_ctx=chat_ctx, tools=[], conn_options=options)


class Reply(LLMStream):
    async def _run(self) -> None:
        model = self._llm
        assert isinstance(model, Model)
        if model.meanwhile is not None:
            model.meanwhile()
        if isinstance(model.answer, Exception):
            raise model.answer
        self._event_ch.send_nowait(ChatChunk(id="r", delta=ChoiceDelta(content=model.answer)))


def long_talk() -> ChatContext:
    return ChatContext(
        [
            message("sys", "system", "Be brief."),
            message("u1", "user", 'My name is "Ada".'),
            call("fc1", "c1"),
            output("fo1", "c1", "weather"),
            message("a1", "assistant", "Hello."),
            AgentHandoff(id="h", new_agent_id="x"),
            call("pending", "c9"),
            message("dev", "developer", "Speak French."),
            message("u2", "user", "q2"),
            call("fc2", "c2"),
            message("a2", "assistant", "wait"),
            message("u3", "user", "q3"),
            output("fo2", "c2"),
            message("a3", "assistant", "a3"),
        ]
    )


class TestSummarize:
    async def test_old_turns_become_one_message(self) -> None:
        context = long_talk()
        items = context.items
        model = Model("  Ada said hello. ")
        assert await context.summarize(model, keep_last_turns=2) is context
        assert context.items is items
        summary = context.items[1]
        assert ids(context) == [
            "sys", summary.id, "h", "pending", "dev", "u2", "fc2", "a2", "u3", "fo2", "a3",
        ]  # fmt: skip
        assert isinstance(summary, ChatMessage)
        assert (summary.role, summary.content, summary.extra) == (
            "assistant",
            ["Ada said hello."],
            {"is_summary": True},
        )

    async def test_what_the_model_is_shown(self) -> None:
        model = Model("s")
        await long_talk().summarize(model, keep_last_turns=2)
        (asked,) = model.asked
        system, user = asked.messages()
        assert system.role == "system"
        lines = [json.loads(line) for line in (user.text_content or "").splitlines()]
        assert lines == [
            {"user": 'My name is "Ada".'},
            {"tool call": "weather", "arguments": "{}"},
            {"tool output": "ok", "tool": "weather"},
            {"assistant": "Hello."},
        ]

    async def test_a_call_whose_output_stays_stays(self) -> None:
        context = long_talk()
        await context.summarize(Model("s"), keep_last_turns=1)
        kept = ids(context)
        assert "fc2" in kept
        assert "fo2" in kept
        assert "a2" not in kept
        assert kept[-3:] == ["u3", "fo2", "a3"]

    async def test_call_ids_may_be_used_again(self) -> None:
        context = ChatContext(
            [
                message("u1"),
                call("fc1", "c"),
                output("fo1", "c"),
                message("u2"),
                call("fc2", "c"),
                message("u3"),
                output("fo2", "c"),
                output("again", "c"),
            ]
        )
        await context.summarize(Model("s"), keep_last_turns=1)
        assert ids(context)[1:] == ["fc2", "u3", "fo2", "again"]

    async def test_an_earlier_summary_is_taken_up(self) -> None:
        context = long_talk()
        await context.summarize(Model("first"), keep_last_turns=2)
        model = Model("second")
        await context.summarize(model, keep_last_turns=1)
        assert '"earlier summary": "first"' in (model.asked[0].messages()[1].text_content or "")
        summaries = [m.content for m in context.messages() if m.extra.get("is_summary")]
        assert summaries == [["second"]]

    async def test_nothing_to_do_asks_nobody(self) -> None:
        for context, turns in [
            (ChatContext(), 2),
            (ChatContext([message("s", "system")]), 0),
            (ChatContext([message("u"), message("a", "assistant")]), 1),
            (ChatContext([message("u"), message("a", "assistant")]), 2),
        ]:
            before = ids(context)
            model = Model("s")
            await context.summarize(model, keep_last_turns=turns)
            assert ids(context) == before
            assert model.asked == []
        summarized = long_talk()
        await summarized.summarize(Model("s"), keep_last_turns=2)
        model = Model("s")
        await summarized.summarize(model, keep_last_turns=2)
        assert model.asked == []

    async def test_what_is_added_meanwhile_is_kept(self) -> None:
        context = long_talk()
        model = Model(
            "s", meanwhile=lambda: context.add_message(role="user", content="x", id="new")
        )
        await context.summarize(model, keep_last_turns=0)
        assert ids(context)[-1] == "new"
        assert "u3" not in ids(context)

    @pytest.mark.parametrize("answer", [APIConnectionError("down", retryable=False), "  "])
    async def test_a_failing_model_changes_nothing(self, answer: Any) -> None:
        context = long_talk()
        before = ids(context)
        with pytest.raises(APIConnectionError if answer != "  " else EmptyResponseError):
            await context.summarize(Model(answer), keep_last_turns=0)
        assert ids(context) == before

    async def test_negative(self) -> None:
        with pytest.raises(ValueError, match="keep_last_turns"):
            await long_talk().summarize(Model("s"), keep_last_turns=-1)

    async def test_pictures_and_sound_are_only_mentioned(self) -> None:
        context = ChatContext(
            [
                ChatMessage(
                    role="user",
                    content=[
                        "see",
                        ImageContent(image="http://x"),
                        AudioContent(frame=[], transcript="t"),
                    ],
                    interrupted=True,
                )
            ]
        )
        model = Model("s")
        await context.summarize(model, keep_last_turns=0)
        text = model.asked[0].messages()[1].text_content or ""
        assert json.loads(text) == {"user": "see\n[image]\nt", "interrupted": True}
