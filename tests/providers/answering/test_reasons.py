"""Why replies end, in portable words."""

from __future__ import annotations

import pytest

from rejoinder.providers.answering.reasons import FinishReason, portable_reason


@pytest.mark.parametrize(
    ("words", "portable"),
    [
        ("stop STOP end_turn stop_sequence completed eos some_new_word", "stop"),
        (
            "length max_tokens MAX_TOKENS incomplete model_length max_length not_finished time_limit",
            "length",
        ),
        ("content_filter SAFETY PROHIBITED_CONTENT refusal guardrail_intervened", "content_filter"),
        ("error failed abort MALFORMED_FUNCTION_CALL malformed_tool_use", "error"),
        ("UNEXPECTED_TOOL_CALL MISSING_THOUGHT_SIGNATURE", "error"),
    ],
)
@pytest.mark.parametrize("called", [False, True])
def test_the_words_of_providers(words: str, portable: FinishReason, called: bool) -> None:
    expected = "tool_call" if called and portable == "stop" else portable
    for word in words.split():
        assert portable_reason(word, called=called) == expected, word


def test_a_reply_without_a_word() -> None:
    assert portable_reason(None, called=False) == "stop"
    assert portable_reason(None, called=True) == portable_reason("tool_use", called=True)
    assert portable_reason("tool_calls", called=True) == "tool_call"
