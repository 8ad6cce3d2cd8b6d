"""What is mended, how it is told, and that a legal history is left alone."""

from __future__ import annotations

import base64
import types
from typing import Any, cast

import pytest

from rejoinder._core.dialects import to_provider_format
from rejoinder._core.names import portable_name
from rejoinder._core.repair import Change, repair
from rejoinder._core.rules import TOOL_NAME
from rejoinder.llm.chat_context import (
    AudioContent,
    ChatContext,
    ChatItem,
    ChatMessage,
    FunctionCall,
    FunctionCallOutput,
    ImageContent,
)
from rejoinder.media import AudioFrame
from rejoinder.testing.history import PROVIDERS, assert_legal
from work import steps

PNG = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGNgYGAAAAAE"
    "AAH2FzhVAAAAAElFTkSuQmCC"
)
THINKING = {"type": "thinking", "thinking": "hm", "signature": "sealed"}
DEEP = '{"a":' * 65 + "1" + "}" * 65
REASONING = {"type": "reasoning", "id": "rs_1", "summary": []}


def said(role: Any, *content: Any, **fields: Any) -> ChatMessage:
    return ChatMessage(role=role, content=list(content), **fields)


def call(call_id: str = "abcdefgh1", **fields: Any) -> FunctionCall:
    return FunctionCall(**({"call_id": call_id, "name": "t", "arguments": "{}"} | fields))


def output(call_id: str = "abcdefgh1", text: str = "r", **fields: Any) -> FunctionCallOutput:
    return FunctionCallOutput(
        **({"call_id": call_id, "output": text, "is_error": False, "name": "t"} | fields)
    )


def legal() -> list[ChatItem]:
    """Legal for everybody, even for Mistral."""
    return [
        said("system", "Be brief."),
        said("user", "Hello"),
        said("assistant", "Hi!"),
        said("user", "Weather?", ImageContent(image=PNG)),
        said("assistant", "Let me look.", id="g"),
        call("abcdefgh1", id="g/1"),
        call("abcdefgh2", id="g/2", arguments='{"city": "Lyon"}'),
        output("abcdefgh2", "rain"),
        output("abcdefgh1", "sun"),
        said("assistant", "Sun and rain."),
        said("user", "Thanks 🌍"),
    ]


def mended(
    provider: str, items: list[ChatItem], **options: Any
) -> tuple[Any, list[Change], list[ChatItem]]:
    """The messages that are sent, the changes, and the items; always checked."""
    found, changes = repair(items, provider, **options)
    messages, data = to_provider_format(provider, found)
    options.pop("state", None)
    assert_legal(provider, messages, system=getattr(data, "system_messages", None), **options)
    return messages, changes, found


def kinds(changes: list[Change]) -> list[str]:
    return [change.kind for change in changes]


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_legal_history_is_the_very_same(provider: str) -> None:
    items = legal()
    found, changes = repair(items, provider)
    assert found is items
    assert changes == []
    assert repair(tuple(items), provider)[0] == items


def test_an_unknown_provider() -> None:
    with pytest.raises(
        ValueError, match="unknown provider format 'openay': expected one of anthropic"
    ):
        repair([], "openay")


def test_what_is_no_item() -> None:
    with pytest.raises(TypeError, match="got dict with type None"):
        repair([{"role": "user"}], "openai")  # type: ignore[list-item]


def changed(item: Any, **fields: Any) -> Any:
    """Assignments to an item are not checked."""
    for name, value in fields.items():
        setattr(item, name, value)
    return item


@pytest.mark.parametrize("convert", [repair, lambda items, name: to_provider_format(name, items)])
@pytest.mark.parametrize(
    ("broken", "told"),
    [
        (changed(said("user"), content=None), r"items\[1\]\.content: expected a list.* NoneType"),
        (changed(said("user"), content=["a", 5]), r"items\[1\]\.content\[1\]: .* got int"),
        (
            changed(said("user"), content=[{"type": "text"}]),
            r"items\[1\]\.content\[0\]: .* got dict",
        ),
        (changed(call(), arguments={"a": 1}), r"items\[1\]\.arguments: expected JSON .* got dict"),
        (changed(output(), output=None), r"items\[1\]\.output: expected a text, got NoneType"),
        ({"type": "message"}, "got dict with type None"),
    ],
)
def test_what_no_item_may_hold_is_told_with_its_place(convert: Any, broken: Any, told: str) -> None:
    beside = {"function_call": output(), "function_call_output": call()}
    items = [said("user", "u"), broken, beside.get(getattr(broken, "type", ""), said("user", "v"))]
    with pytest.raises(TypeError, match=told):
        convert(items, "anthropic")


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_role_that_is_none(provider: str) -> None:
    with pytest.raises(TypeError, match=r"items\[0\]\.role: expected one of .*, got 'tool'"):
        repair([changed(said("user", "u"), role="tool")], provider)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_content_that_is_one_text(provider: str) -> None:
    item = changed(said("user", "u"), content="Hello")
    messages, changes, _ = mended(provider, [item])
    assert "Hello" in str(messages)
    assert kinds(changes) == ["text"]
    assert item.content == "Hello"


# -- calls and outputs


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_call_without_output_gets_one(provider: str) -> None:
    items: list[ChatItem] = [said("user", "u"), call(id="fc")]
    _, changes, found = mended(provider, items)
    added = found[2]
    assert isinstance(added, FunctionCallOutput)
    assert added.is_error
    assert "No result" in added.output
    assert changes == [Change("added", "fc", "there was no output for it")]


@pytest.mark.parametrize("provider", PROVIDERS)
def test_an_output_without_call_becomes_a_message(provider: str) -> None:
    items: list[ChatItem] = [said("user", "u"), output("lost", "42", id="fo", name="sum")]
    messages, changes, _ = mended(provider, items)
    assert kinds(changes) == ["to_text"]
    assert changes[0].item_id == "fo"
    assert "Result of tool sum: 42" in str(messages)


def test_an_output_moves_to_its_call_and_it_is_told() -> None:
    items: list[ChatItem] = [said("user", "u"), call(), said("user", "v"), output(id="fo")]
    messages, changes, _ = mended("openai", items)
    assert [message["role"] for message in messages] == ["user", "assistant", "tool", "user"]
    assert changes == [Change("moved", "fo", "behind its call")]


def test_an_output_before_its_call() -> None:
    messages, changes, _ = mended("openai", [said("user", "u"), output(), call()])
    assert [message["role"] for message in messages] == ["user", "assistant", "tool"]
    assert kinds(changes) == ["moved"]


def test_a_second_output_is_joined_and_an_equal_one_dropped() -> None:
    items: list[ChatItem] = [said("user", "u"), call()]
    items += [output(text="one"), output(text="two"), output(text="one")]
    messages, changes, _ = mended("anthropic", items)
    assert messages[-1]["content"][0]["content"] == "one\n\ntwo"
    assert kinds(changes) == ["merged", "dropped"]


def test_one_id_for_two_calls() -> None:
    items: list[ChatItem] = [
        said("user", "u"),
        call("same"),
        output("same", "1"),
        said("assistant", "a"),
        said("user", "v"),
        call("same"),
        output("same", "2"),
    ]
    messages, changes, found = mended("anthropic", items)
    results = [
        (block["tool_use_id"], block["content"])
        for message in messages
        for block in message["content"]
        if block["type"] == "tool_result"
    ]
    assert [text for _, text in results] == ["1", "2"]
    assert results[0][0] == "same"
    assert results[1][0] != "same"
    assert kinds(changes) == ["id"]
    # A longer history gives its beginning the same ids, so that prompts stay cacheable.
    longer, _ = repair([*items, said("user", "w")], "anthropic")
    assert [getattr(item, "call_id", None) for item in longer[:-1]] == [
        getattr(item, "call_id", None) for item in found
    ]


def test_of_calls_with_one_id_the_newest_is_meant() -> None:
    items: list[ChatItem] = [
        said("user", "u"),
        call("same", name="old"),
        said("user", "never mind; again"),
        call("same", name="new"),
        output("same", "done"),
    ]
    messages, changes, _ = mended("openai", items)
    by_id = {m["tool_call_id"]: m["content"] for m in messages if m["role"] == "tool"}
    names = {
        spec["id"]: spec["function"]["name"]
        for message in messages
        for spec in message.get("tool_calls", ())
    }
    assert {names[call_id]: text for call_id, text in by_id.items()} == {
        "old": "No result was recorded for this call.",
        "new": "done",
    }
    assert sorted(kinds(changes)) == ["added", "id"]


@pytest.mark.parametrize(
    ("provider", "call_id", "fits"),
    [
        ("mistralai", "call_1", False),
        ("mistralai", "abcDEF123", True),
        ("mistralai.conversations", "call_1", False),
        ("openai", "x" * 40, True),
        ("openai", "x" * 41, False),
        ("openai.responses", "x" * 64, True),
        ("openai.responses", "x" * 65, False),
        ("anthropic", "toolu_01", True),
        ("anthropic", "functions.t:0", False),
        ("aws", "tooluse_x-1", True),
        ("aws", "é", False),
        ("google", "functions.t:0", True),
        ("google", "", False),
    ],
)
def test_call_ids_as_each_provider_wants_them(provider: str, call_id: str, fits: bool) -> None:
    items: list[ChatItem] = [said("user", "u"), call(call_id), output(call_id)]
    _, changes, found = mended(provider, items)
    assert kinds(changes) == ([] if fits else ["id"])
    used = [item.call_id for item in found if not isinstance(item, ChatMessage)]
    assert used[0] == used[1]
    assert (used[0] == call_id) is fits


@pytest.mark.parametrize(
    ("provider", "name", "sent"),
    [
        ("openai", "get weather!", "get_weather_"),
        ("openai", "", "unnamed_tool"),
        ("anthropic", "n" * 80, portable_name("n" * 80, TOOL_NAME)),
        ("google", "9lives", "_9lives"),
        ("google", "a.b", "a.b"),
        ("aws", "a.b", "a_b"),
    ],
)
def test_names_of_tools(provider: str, name: str, sent: str) -> None:
    messages, changes, _ = mended(provider, [said("user", "u"), call(name=name), output(name=name)])
    assert repr(sent) in repr(messages)
    assert ("name" in kinds(changes)) is (name != sent)


def test_google_wants_the_name_with_the_output() -> None:
    messages, changes, _ = mended("google", [said("user", "u"), call(), output(name="", id="fo")])
    assert messages[-1]["parts"][0]["function_response"]["name"] == "t"
    assert changes == [Change("name", "fo", "'' is not the name of its call")]


@pytest.mark.parametrize(
    ("arguments", "sent"),
    [
        ("", {}),
        ("null", {}),
        ("[1]", {"value": [1]}),
        ("3", {"value": 3}),
        ('"{\\"a\\": 1}"', {"a": 1}),
        ('"text"', {"value": "text"}),
        ('{"a": 1', {"invalid_json": '{"a": 1'}),
        ('{"a": NaN}', {"a": None}),
        (DEEP, {"invalid_json": DEEP}),
        ('{"a": "\\ud83d"}', {"a": "\ufffd"}),
        ('{"a": "\ud83d"}', {"a": "\ufffd"}),
    ],
)
@pytest.mark.parametrize("provider", ["anthropic", "openai"])
def test_arguments_become_an_object(provider: str, arguments: str, sent: Any) -> None:
    items: list[ChatItem] = [said("user", "u"), call(arguments=arguments, id="fc"), output()]
    _, changes, found = mended(provider, items)
    assert kinds(changes) == ["arguments"]
    context = ChatContext(found)
    messages, _ = context.to_provider_format("anthropic")
    assert messages[1]["content"][0]["input"] == sent


def test_arguments_may_be_nested_as_deep_as_anybody_reads() -> None:
    deepest = '{"a":' * 64 + "1" + "}" * 64
    wide = '{"a": [' + ", ".join(["{}"] * 200) + "]}"
    for arguments in (deepest, wide):
        items: list[ChatItem] = [said("user", "u"), call(arguments=arguments), output()]
        assert repair(items, "google")[1] == []


# -- texts and roles


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("blank", ["", " ", "\n\u2003"])
def test_blank_messages_are_dropped(provider: str, blank: str) -> None:
    items: list[ChatItem] = [
        said("user", "u"),
        said("assistant", blank, id="a"),
        said("system", blank, id="s"),
        said("user", "v"),
    ]
    messages, changes, _ = mended(provider, items)
    assert {change.item_id for change in changes if change.kind == "dropped"} == {"a", "s"}
    assert set(kinds(changes)) <= {"dropped", "text"}
    assert str(messages).count("'u'") == 1


def test_blank_blocks_are_left_out_where_they_would_be_blocks() -> None:
    items: list[ChatItem] = [said("user", "u", " ", "v", id="m")]
    messages, changes, _ = mended("anthropic", items)
    assert [block["text"] for block in messages[0]["content"]] == ["u", "v"]
    assert kinds(changes) == ["text"]
    assert repair(items, "openai")[1] == []


@pytest.mark.parametrize("provider", PROVIDERS)
def test_half_a_surrogate_pair(provider: str) -> None:
    items: list[ChatItem] = [said("user", "a\ud83db"), call(), output(text="c\udc00")]
    messages, changes, _ = mended(provider, items)
    assert "a\ufffdb" in str(messages)
    assert "c\ufffd" in str(messages)
    assert kinds(changes) == ["text", "text"]


@pytest.mark.parametrize(
    ("provider", "first"),
    [("anthropic", "(empty)"), ("aws", "(empty)"), ("google", "."), ("openai", None)],
)
def test_the_first_speaker(provider: str, first: str | None) -> None:
    items: list[ChatItem] = [said("system", "s"), said("assistant", "a"), said("user", "u")]
    _, changes, found = mended(provider, items)
    assert kinds(changes) == ([] if first is None else ["added"])
    if first is not None:
        assert [getattr(item, "content", None) for item in found[:2]] == [["s"], [first]]


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("items", [[], [said("system", "s")], [said("assistant", " ")]])
def test_nothing_to_say(provider: str, items: list[ChatItem]) -> None:
    messages, _, _ = mended(provider, items)
    assert messages


def test_the_last_speaker_unless_the_model_shall_go_on() -> None:
    items: list[ChatItem] = [said("user", "u"), said("assistant", "It is ", id="a")]
    messages, changes, _ = mended("anthropic", items)
    assert messages[-1] == {"role": "user", "content": [{"text": ".", "type": "text"}]}
    assert kinds(changes) == ["added"]
    messages, changes, _ = mended("anthropic", items, prefill=True)
    assert messages[-1]["content"] == [{"text": "It is", "type": "text"}]
    assert changes == [Change("text", "a", "white space at the end was left out")]
    assert items[1].content == ["It is "]  # type: ignore[union-attr]


def test_mistral_answers_after_tools_and_has_no_developer() -> None:
    items: list[ChatItem] = [
        said("developer", "d"),
        said("user", "u"),
        call(),
        output(),
        said("user", "v"),
        said("assistant", "a"),
        said("system", "s", id="late"),
    ]
    messages, changes, _ = mended("mistralai", items)
    assert [message["role"] for message in messages] == [
        "system",
        "user",
        "assistant",
        "tool",
        "assistant",
        "user",
        "assistant",
        "user",
    ]
    assert messages[-1]["content"] == "<instructions>\ns\n</instructions>"
    assert kinds(changes) == ["role", "role", "added"]


def test_conversations_have_one_text_of_instructions() -> None:
    items: list[ChatItem] = [said("system", "one"), said("user", "u"), said("developer", "two")]
    found, changes = repair(items, "mistralai.conversations")
    messages, data = to_provider_format("mistralai.conversations", found)
    assert data.instructions == "one\n\ntwo"
    assert len(messages) == 1
    assert kinds(changes) == ["merged"]


@pytest.mark.parametrize("provider", PROVIDERS)
def test_turns_with_one_key_are_kept_apart(provider: str) -> None:
    items: list[ChatItem] = [
        said("user", "u"),
        said("assistant", "one", id="g"),
        call("abcdefgh1", id="g/1"),
        output("abcdefgh1"),
        said("assistant", "two", id="g"),
        call("abcdefgh2", id="g/2"),
        output("abcdefgh2"),
    ]
    messages, changes, found = mended(provider, items)
    text = str(messages)
    assert text.index("one") < text.index("abcdefgh1") < text.index("two")
    assert text.index("two") < text.index("abcdefgh2")
    assert kinds(changes) == ["id"]
    assert repair(found, provider) == (found, [])


# -- images and sound


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("role", ["system", "developer", "assistant"])
def test_images_are_shown_by_the_user(provider: str, role: str) -> None:
    items: list[ChatItem] = [said("user", "u"), said(role, "look", ImageContent(image=PNG))]
    messages, changes, found = mended(provider, items)
    assert str(messages).count("iVBOR") + str(messages).count("PNG") == 1
    if not (provider == "google" and role == "assistant"):
        assert "image" in kinds(changes) or "role" in kinds(changes)
        shown = [item for item in found if isinstance(item, ChatMessage) and len(item.content)]
        assert all(
            item.role == "user"
            for item in shown
            if any(isinstance(part, ImageContent) for part in item.content)
        )


@pytest.mark.parametrize(
    ("provider", "image", "told"),
    [
        ("aws", "https://example.com/a.png", "[image: https://example.com/a.png]"),
        ("openai", "gs://bucket/a.png", "[image: gs://bucket/a.png]"),
        ("google", "gs://bucket/a.png", None),
        ("google", "data:image/gif;base64,R0lGODlhAQABAAAAACw=", "type image/gif is not accepted"),
        ("anthropic", "data:image/png;base64,A", "it cannot be read"),
        ("anthropic", "data:image/png;base64,", "it holds no bytes"),
        ("openai", f"{PNG[:60]}!{PNG[60:]}", "its base64 is damaged"),
        ("openai", f"{PNG[:60]}%0D%0A{PNG[60:]}", None),
        ("mistralai", "data:image/tiff;base64,AAAA", "it cannot be read"),
    ],
)
def test_images_that_cannot_be_sent(provider: str, image: str, told: str | None) -> None:
    items: list[ChatItem] = [said("user", "look", ImageContent(image=image))]
    messages, changes, _ = mended(provider, items)
    assert kinds(changes) == ([] if told is None else ["image"])
    if told is not None:
        assert told in str(messages)


@pytest.mark.parametrize("provider", ["anthropic", "aws", "google", "openai"])
@pytest.mark.parametrize("said_to_be", ["image/jpeg", "image/jpg", "image/bmp", ""])
def test_an_image_is_what_its_bytes_show(provider: str, said_to_be: str) -> None:
    image = ImageContent(image=PNG.replace("image/png", said_to_be), id="i")
    items: list[ChatItem] = [said("user", "look", image)]
    messages, changes, found = mended(provider, items)
    assert kinds(changes) == ["image"]
    assert "image/png" in changes[0].detail
    assert str(messages).count("png") == 1
    assert "jp" not in str(messages)
    # It is the same image otherwise, and what was read of the original is still known.
    sent = cast("ChatMessage", found[0]).content[1]
    assert isinstance(sent, ImageContent)
    assert sent.id == "i"
    assert image.image == PNG.replace("image/png", said_to_be)
    assert image._cache.keys() <= {"serialized_image"}
    assert sent._cache is not image._cache


def test_a_frame_without_a_picture() -> None:
    gone = types.SimpleNamespace(width=2, height=2, type=0, data=b"")
    items: list[ChatItem] = [said("user", "look", ImageContent(image=cast("Any", gone)))]
    messages, changes, _ = mended("openai", items)
    assert kinds(changes) == ["image"]
    assert "its frame holds no picture" in str(messages)


def test_an_image_that_claims_another_type_by_itself() -> None:
    image = ImageContent(image=PNG, mime_type="image/webp")
    _, changes, found = mended("anthropic", [said("user", image)])
    assert kinds(changes) == ["image"]
    assert cast("ChatMessage", found[0]).content[0].mime_type == "image/png"  # type: ignore[union-attr]


def test_speech_is_sent_as_its_transcript() -> None:
    sound = AudioContent(frame=[AudioFrame(b"\0\0", 24000, 1, 1)], transcript="turn left")
    messages, changes, _ = mended("openai", [said("user", sound)])
    assert messages == [{"role": "user", "content": "turn left"}]
    assert kinds(changes) == ["to_text"]
    # With a text beside it, that is what was said.
    assert repair([said("user", "Turn left.", sound)], "openai")[1] == []


# -- state


@pytest.mark.parametrize("provider", PROVIDERS)
def test_state_stays_for_its_own_provider(provider: str) -> None:
    extra = {
        "anthropic": {"thinking": [THINKING]},
        "google": {"thought_signature": base64.b64encode(b"sealed by google").decode()},
        "openai": {"reasoning_items": [REASONING], "item_id": "fc_1"},
        "aws": {"reasoning": [{"reasoningText": {"text": "hm", "signature": "bedrock"}}]},
        "mine": {"anything": 1},
    }
    items: list[ChatItem] = [said("user", "u"), call(extra=extra), output()]
    messages, changes, found = mended(provider, items)
    own = {"openai.responses": "openai"}.get(provider, provider.partition(".")[0])
    kept = found[1].extra  # type: ignore[union-attr]
    assert set(kept) == {own, "mine"} & set(extra)
    assert set(kinds(changes)) == {"state"}
    seals = {"anthropic": "sealed'", "aws": "bedrock", "google": "sealed by google"}
    for name, seal in seals.items():
        assert (seal in str(messages)) is (name == provider)
    assert ("rs_1" in str(messages)) is (provider == "openai.responses")


def test_state_of_clones_is_sent_when_asked_for() -> None:
    extra = {"google": {"thought_signature": "c2ln"}, "xai": {"a": 1}}
    items: list[ChatItem] = [said("user", "u"), call(extra=extra), output()]
    messages, changes, _ = mended("openai", items, state=["google"])
    assert messages[1]["tool_calls"][0]["extra_content"] == {"google": extra["google"]}
    assert [change.detail for change in changes] == ["state of xai is not for openai"]
    assert "extra_content" not in str(mended("openai", items)[0])


@pytest.mark.parametrize(
    ("provider", "state"),
    [
        ("anthropic", {"thinking": [{"type": "thinking", "thinking": "hm"}]}),
        ("anthropic", {"thinking": [{"type": "redacted_thinking"}]}),
        ("anthropic", {"thinking": ["hm"]}),
        ("anthropic", {"thinking": "hm"}),
        ("anthropic", None),
        ("aws", {"reasoning": [{"reasoningText": {"text": "hm"}}]}),
        ("aws", {"reasoning": [{"redactedContent": "not base64"}]}),
        ("google", {"thought_signature": "not base64"}),
        ("google", {"thought_signature": 1}),
        ("openai.responses", {"reasoning_items": [{"type": "reasoning"}]}),
    ],
)
def test_damaged_state_is_left_out(provider: str, state: Any) -> None:
    key = provider.partition(".")[0]
    items: list[ChatItem] = [said("user", "u"), call(extra={key: state}, id="fc"), output()]
    _, changes, found = mended(provider, items)
    assert found[1].extra == {}  # type: ignore[union-attr]
    assert changes == [Change("state", "fc", f"state of {key} is damaged")]
    # What is whole stays.
    if isinstance(state, dict) and isinstance(next(iter(state.values())), list):
        part = next(iter(state))
        sealed = {"type": "reasoning", "summary": [], "encrypted_content": "sealed"}
        whole = {"thinking": THINKING, "reasoning_items": sealed}.get(
            part, {"reasoningText": {"text": "hm", "signature": "s"}}
        )
        items = [said("user", "u"), call(extra={key: {part: [whole, *state[part]]}}), output()]
        _, _, found = mended(provider, items)
        assert found[1].extra == {key: {part: [whole]}}  # type: ignore[union-attr]


def test_reasoning_is_sent_once_and_with_the_item_that_it_led_to() -> None:
    state = {"openai": {"reasoning_items": [REASONING], "message_id": "msg_1"}}
    items: list[ChatItem] = [
        said("user", "u"),
        said("assistant", "", extra=state),
        said("user", "v"),
        said("assistant", "a", extra=state),
        said("user", "w"),
        said("assistant", "b", extra=state, id="again"),
        said("user", "x"),
    ]
    messages, changes, _ = mended("openai.responses", items)
    at = [entry.get("type") for entry in messages].index("reasoning")
    assert messages[at + 1]["id"] == "msg_1"
    assert str(messages).count("rs_1") == 1
    assert changes[-1] == Change("state", "again", "state of openai is damaged")


def test_reasoning_that_led_nowhere_known() -> None:
    sealed = REASONING | {"encrypted_content": "sealed"}
    state = {"openai": {"reasoning_items": [sealed, REASONING]}}
    items: list[ChatItem] = [said("user", "u"), call(extra=state), output()]
    messages, changes, _ = mended("openai.responses", items)
    assert messages[1] == {"type": "reasoning", "summary": [], "encrypted_content": "sealed"}
    assert str(messages).count("reasoning") == 1
    assert kinds(changes) == ["state"]


def test_thinking_without_text_stays_with_the_calls() -> None:
    items: list[ChatItem] = [
        said("user", "u"),
        said("assistant", id="g", extra={"anthropic": {"thinking": [THINKING]}}),
        call(id="g/1"),
        output(),
    ]
    messages, changes, _ = mended("anthropic", items)
    assert messages[1]["content"][0] == THINKING
    assert changes == []


def test_gemini_3_wants_signatures_of_the_last_turn() -> None:
    signed = {"google": {"thought_signature": "c2ln"}}
    items: list[ChatItem] = [
        said("user", "old"),
        call("c1"),
        output("c1"),
        said("assistant", "a"),
        said("user", "new"),
        call("c2", extra=signed),
        output("c2"),
        call("c3", id="fc3"),
        output("c3"),
    ]
    assert repair(items, "google")[1] == []
    messages, changes, _ = mended("google", items, signatures=True)
    assert [change.item_id for change in changes] == ["fc3"]
    parts = [part for turn in messages for part in turn["parts"] if "function_call" in part]
    assert [part.get("thought_signature") for part in parts] == [
        None,
        b"sig",
        b"skip_thought_signature_validator",
    ]


def test_parallel_calls_share_the_signature_of_the_first() -> None:
    """They came in one turn, though nothing but their neighbourhood says so."""
    items: list[ChatItem] = [
        said("user", "u"),
        call("c1", extra={"google": {"thought_signature": "c2ln"}}),
        call("c2", id="second"),
        output("c1", "1"),
        output("c2", "2"),
    ]
    messages, changes, _ = mended("google", items, signatures=True)
    assert [len(turn["parts"]) for turn in messages] == [1, 2, 2]
    assert changes == [Change("id", "second", "grouped with the calls before it")]


# -- time


@pytest.mark.parametrize("provider", PROVIDERS)
def test_time_grows_with_length(provider: str) -> None:
    """Everything that could be searched again and again: one id, one key, no outputs, no calls."""

    def build(count: int) -> list[ChatItem]:
        items: list[ChatItem] = []
        for _ in range(count):
            items += [
                call("same", id="g/1"),
                call("same", extra={provider: {}}),
                output("same"),
                output("none"),
                output("same", id="x"),
                said("assistant", "a", id="g"),
                said("system", "s", id="x"),
                output("late"),
            ]
        return [*items, call("late")]

    few, many = build(20), build(200)
    assert steps(lambda: repair(many, provider)) < 12 * steps(lambda: repair(few, provider))
