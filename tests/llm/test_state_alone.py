"""A turn of the assistant that holds nothing but state goes back to its own provider, if that takes it."""

from __future__ import annotations

from typing import Any

import pytest

from rejoinder.llm import ChatContext
from rejoinder.llm.formats import repair
from rejoinder.testing.history import assert_legal

COMPACTION = {"type": "compaction", "content": "So far."}
THOUGHT = {"type": "thinking", "thinking": "hm", "signature": "c2ln"}
ASKED = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}}
FOUND = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []}
OPENAI = {"type": "compaction", "id": "cmp_1", "encrypted_content": "e"}
REASONING = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "e"}


def sent(provider: str, extra: dict[str, Any], content: list[str]) -> list[Any]:
    """What stands between the user's first message and the second one."""
    context = ChatContext.empty()
    context.add_message(role="user", content="q")
    context.add_message(role="assistant", content=[*content], extra=extra)
    context.add_message(role="user", content="z")
    stored = ChatContext.from_dict(context.to_dict())
    items, _ = repair(stored.items, provider)
    messages, _ = ChatContext([*items]).to_provider_format(provider)
    assert_legal(provider, messages)
    return messages[1:-1]


@pytest.mark.parametrize("content", [[], [""]], ids=repr)
@pytest.mark.parametrize(
    ("provider", "extra", "goes"),
    [
        ("anthropic", {"anthropic": {"thinking": [COMPACTION]}}, [COMPACTION]),
        ("anthropic", {"anthropic": {"thinking": [ASKED, FOUND]}}, [ASKED, FOUND]),
        ("anthropic", {"anthropic": {"thinking": [COMPACTION, THOUGHT]}}, [COMPACTION]),
        ("anthropic", {"anthropic": {"thinking": [THOUGHT]}}, []),  # refused at the end of a turn
        ("anthropic", {"openai": {"output_items": [OPENAI]}}, []),
        ("openai.responses", {"openai": {"output_items": [OPENAI]}}, [OPENAI]),
        ("openai.responses", {"openai": {"reasoning_items": [REASONING]}}, []),  # led to nothing
        ("openai.responses", {"anthropic": {"thinking": [COMPACTION]}}, []),
        ("openai", {"openai": {"output_items": [OPENAI]}}, []),
        ("google", {"google": {"thought_signature": "c2ln"}}, []),
    ],
)
def test_state_alone_goes_where_it_is_taken(
    provider: str, extra: dict[str, Any], goes: list[Any], content: list[str]
) -> None:
    between = sent(provider, extra, content)
    if provider == "anthropic":
        assert between == ([{"role": "assistant", "content": goes}] if goes else [])
    else:
        assert between == goes


def test_a_compaction_that_was_taken_over_goes_back() -> None:
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "q"}]},
        {"role": "assistant", "content": [COMPACTION]},
        {"role": "user", "content": [{"type": "text", "text": "z"}]},
    ]
    context = ChatContext.from_provider_format("anthropic", messages)
    items, changes = repair(context.items, "anthropic")
    assert ChatContext([*items]).to_provider_format("anthropic")[0] == messages
    assert changes == []
