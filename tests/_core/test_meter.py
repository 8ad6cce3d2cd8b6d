"""What a reply has said and cost so far."""

from __future__ import annotations

from typing import Any

import pytest

from rejoinder._core.chunks import ChatChunk, ChoiceDelta, CompletionUsage, FunctionToolCall
from rejoinder._core.items import (
    AgentHandoff,
    ChatMessage,
    FunctionCall,
    FunctionCallOutput,
    ImageContent,
)
from rejoinder._core.meter import Meter
from rejoinder.metrics import Metadata


def chunk(**delta: Any) -> ChatChunk:
    return ChatChunk(id="r", delta=ChoiceDelta(**delta))


@pytest.mark.parametrize(
    ("chunk", "committed", "progress"),
    [
        (chunk(content="a"), True, True),
        (chunk(content=""), False, False),
        (chunk(role="assistant"), False, False),
        (chunk(thinking="a"), False, True),
        (chunk(extra={"x": 1}), False, False),
        (chunk(tool_calls=[FunctionToolCall(name="f", arguments="", call_id="c")]), True, True),
        (ChatChunk(id="r"), False, False),
        (
            ChatChunk(
                id="r",
                usage=CompletionUsage(completion_tokens=1, prompt_tokens=1, total_tokens=2),
            ),
            False,
            False,
        ),
    ],
)
def test_what_counts_as_said_and_as_progress(
    chunk: ChatChunk, committed: bool, progress: bool
) -> None:
    meter = Meter()
    meter.feed(chunk, 5.0)
    assert meter.committed is committed
    assert meter.progress_at == (5.0 if progress else None)
    assert meter.first_token_at == (5.0 if committed else None)


def test_estimates_only_where_a_reply_was_cut() -> None:
    def report(meter: Meter, **how: bool) -> Any:
        outcome = {"cancelled": False, "failed": False} | how
        return meter.report(
            label="l",
            metadata=Metadata(),
            timestamp=1.0,
            started_at=0.0,
            now=2.0,
            prompt=[ChatMessage(role="user", content=["x" * 40])],
            **outcome,
        )

    meter = Meter()
    meter.feed(chunk(content="y"), 1.0)
    whole = report(meter)
    assert (whole.estimated, whole.total_tokens) == (False, 0)
    for how in ("cancelled", "failed"):
        cut = report(meter, **{how: True})
        assert (cut.estimated, cut.prompt_tokens, cut.completion_tokens) == (True, 14, 1)
    meter.feed(
        ChatChunk(
            id="r", usage=CompletionUsage(completion_tokens=3, prompt_tokens=4, total_tokens=7)
        ),
        1.5,
    )
    told = report(meter, cancelled=True)
    assert (told.estimated, told.total_tokens, told.tokens_per_second) == (False, 7, 1.5)
    # Some count again and again on the way.
    meter.feed(chunk(content="y" * 19), 1.6)
    more = report(meter, cancelled=True)
    assert (more.estimated, more.prompt_tokens, more.completion_tokens) == (True, 4, 5)
    assert more.total_tokens == 9
    assert not report(meter).estimated


def test_estimates_follow_the_script_and_the_kind() -> None:
    meter = Meter()
    meter.feed(chunk(content="漢" * 8), 1.0)
    meter.feed(chunk(thinking="x" * 8), 1.0)
    call = FunctionToolCall(name="ab", arguments="{}", call_id="c")
    meter.feed(chunk(tool_calls=[call]), 1.0)
    metrics = meter.report(
        label="l",
        metadata=Metadata(),
        timestamp=1.0,
        started_at=0.0,
        now=2.0,
        cancelled=True,
        failed=False,
        prompt=[
            ChatMessage(role="user", content=["x" * 8, ImageContent(image="https://x/y.png")]),
            FunctionCall(call_id="c", name="ab", arguments="{}"),
            FunctionCallOutput(call_id="c", output="x" * 3, is_error=False),
            AgentHandoff(new_agent_id="b"),
        ],
    )
    assert metrics.completion_tokens == (24 + 8 + 4) // 4
    assert metrics.prompt_tokens == (4 + 2 + 1000) + (4 + 1 + 1) + (4 + 1)
