"""Input items of the Responses API."""

from __future__ import annotations

from providers.formats import DATA, URL, call, formatted, image, messages, output, said

REASONING = {"type": "reasoning", "id": "rs_1", "summary": []}


def test_the_recorded_example() -> None:
    assert formatted(
        "openai.responses",
        said("system", "S"),
        said("user", "q", image("http://u")),
        call("c", name="n"),
        output("c", "r"),
        said("assistant", "z", extra={"openai": {"phase": "final_answer"}}),
    ) == (
        [
            {"role": "system", "content": "S"},
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "q"},
                    {"type": "input_image", "image_url": "http://u", "detail": "auto"},
                ],
            },
            {"type": "function_call", "call_id": "c", "name": "n", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": "r"},
            {"role": "assistant", "content": "z", "phase": "final_answer"},
        ],
        None,
    )


def test_images() -> None:
    sent = messages("openai.responses", said("user", image(DATA), image(URL)))
    assert [part["image_url"] for part in sent[0]["content"]] == [DATA, URL]


def test_calls_of_one_turn_come_before_their_outputs() -> None:
    sent = messages(
        "openai.responses", call("a", id="g/1"), output("a"), call("b", id="g/2"), output("b")
    )
    assert [(entry["type"], entry["call_id"]) for entry in sent] == [
        ("function_call", "a"),
        ("function_call", "b"),
        ("function_call_output", "a"),
        ("function_call_output", "b"),
    ]


def test_reasoning_goes_before_what_it_led_to() -> None:
    state = {"reasoning_items": [REASONING], "item_id": "fc_1", "message_id": "msg_1"}
    sent = messages("openai.responses", said("user", "u"), call(extra={"openai": state}), output())
    assert [entry.get("type") for entry in sent] == [
        None,
        "reasoning",
        "function_call",
        "function_call_output",
    ]
    assert sent[1] == REASONING
    assert sent[2]["id"] == "fc_1"
    sent = messages("openai.responses", said("assistant", "a", extra={"openai": state}))
    assert sent[0] == REASONING
    assert sent[1]["id"] == "msg_1"


def test_a_message_that_only_carries_state() -> None:
    state = {"openai": {"reasoning_items": [REASONING]}}
    sent = messages(
        "openai.responses", said("assistant", id="g", extra=state), call(id="g/1"), output()
    )
    assert [entry.get("type") for entry in sent] == [
        "reasoning",
        "function_call",
        "function_call_output",
    ]
