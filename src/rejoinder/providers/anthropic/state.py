"""The blocks of a reply that must be sent back unchanged, and their places among its texts. Pure.

Thinking, calls and results of Anthropic's own tools, compactions, and unknown blocks are kept in
``extra["anthropic"]["thinking"]`` of the message or call that follows them. If texts stand between them,
or cite results, the list also holds these texts, because the content of a message is one text. If the
text has changed or was cut since (only its beginning was heard), it wins: blocks after the cut are
dropped.

State of Claude is valid at every host of Claude. Other models behind this API have their own state;
``extra["anthropic"]["host"]`` names the only server to which it is sent back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any, Final, cast

from rejoinder._core.items import ChatItem, with_fields
from rejoinder._core.rules import is_text
from rejoinder.providers.asking import in_order as places
from rejoinder.providers.asking.alternating import Block

__all__ = [
    "CONTAINER",
    "FIELDS",
    "HOST",
    "OWN_FIELDS",
    "SERVER_CALLS",
    "STATE",
    "THINKING",
    "accepted",
    "carry_state",
    "container_of",
    "in_order",
    "is_result",
    "is_state",
    "of_host",
    "stands_alone",
]

STATE: Final = "thinking"
"""The member of ``extra["anthropic"]`` that holds the blocks."""
FIELDS: Final = "fields"
"""The member that holds the further fields of a call, such as its ``caller``."""
CONTAINER: Final = "container"
"""The member for the id of the container of Anthropic's tools. It holds files, which a later request can
use again (Anthropic's guide to code execution; pydantic/pydantic-ai #3637)."""
HOST: Final = "host"
"""The member that names the server of the state; missing if it is Claude's, or unknown."""
OWN_FIELDS: Final = frozenset({"type", "id", "name", "input", "cache_control"})
"""Fields of a call that the format writes itself, and `cache_control`, which applies to one request."""
THINKING: Final = frozenset({"thinking", "redacted_thinking"})
SERVER_CALLS: Final = frozenset({"server_tool_use", "mcp_tool_use"})
"""Blocks by which the model calls a tool that runs at Anthropic."""


def is_result(kind: str) -> bool:
    """Whether blocks of this type hold the result of a tool that runs at Anthropic."""
    return kind.endswith("_tool_result")


def is_state(block: object) -> bool:
    """Whether `block` may be sent back."""
    if not isinstance(block, dict):
        return False
    held = cast("dict[str, Any]", block)
    kind = held.get("type")
    if not is_text(kind):
        return False
    match kind:
        case "thinking":
            return isinstance(held.get("thinking"), str) and is_text(held.get("signature"))
        case "redacted_thinking":
            return is_text(held.get("data"))
        case "text":
            return isinstance(held.get("text"), str)
        case "server_tool_use" | "mcp_tool_use":
            return is_text(held.get("id")) and isinstance(held.get("input"), dict)
        case _:
            return not is_result(str(kind)) or is_text(held.get("tool_use_id"))


def stands_alone(state: Mapping[str, Any]) -> bool:
    """Whether a message may hold only `state`: a compaction, or calls and results of Anthropic's own
    tools. The API refuses thinking alone."""
    blocks: Any = state.get(STATE)
    return isinstance(blocks, list) and any(
        is_state(block) and block["type"] not in (*THINKING, "text")
        for block in cast("list[Any]", blocks)
    )


def in_order(blocks: list[Block], entries: Sequence[Block]) -> list[Block]:
    """`entries`, with the texts of `blocks` in their places.

    Args:
        blocks: the content of the message, or a call.
        entries: state, and the texts between it.
    """
    return places.in_order(blocks, entries, lambda text: {"type": "text", "text": text})


def of_host(items: Sequence[ChatItem], host: str, *, unmarked: bool) -> Sequence[ChatItem]:
    """`items` without the state that a server cannot read.

    Args:
        host: its mark; empty for a host of Claude.
        unmarked: whether state without a mark may be sent to it.
    """
    marked = None if unmarked else ""
    kept = list(items)
    for place, item in enumerate(items):
        if (
            (item.type == "message" or item.type == "function_call")
            and item.extra
            and _is_elsewheres(item.extra, host, marked)
        ):
            kept[place] = _without_state(item)
    return kept


def _is_elsewheres(extra: Mapping[str, Any], host: str, marked: str | None) -> bool:
    state = extra.get("anthropic")
    if not isinstance(state, dict):
        return False
    mark = cast("dict[str, Any]", state).get(HOST, marked)
    return mark is not None and mark != host


def _without_state(item: ChatItem) -> ChatItem:
    """A copy of a message or a call without the state of this API."""
    if item.type != "message" and item.type != "function_call":
        return item
    kept = {key: value for key, value in item.extra.items() if key != "anthropic"}
    return with_fields(item, extra=kept)


def container_of(items: Sequence[ChatItem]) -> str:
    """The container of the last reply that had one; empty if none had."""
    for item in reversed(items):
        if item.type != "message" and item.type != "function_call":
            continue
        state: Any = item.extra.get("anthropic") if item.extra else None
        if isinstance(state, dict):
            container: Any = cast("dict[str, Any]", state).get(CONTAINER)
            if is_text(container):
                return str(container)
    return ""


def carry_state(items: Sequence[ChatItem]) -> bool:
    """Whether any of `items` may hold state."""
    for item in items:
        if (item.type == "message" or item.type == "function_call") and item.extra:
            return True
    return False


def accepted(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """`messages` without state that the API refuses in its place: thinking at the end of a turn, calls
    of Anthropic's tools without a result, and results without a call. A call whose result still
    follows, because it waits for one of our tools, stays."""
    for index, message in enumerate(messages):
        if message["role"] == "assistant" and message["content"][-1].get("type") in THINKING:
            content = message["content"]
            while content and content[-1].get("type") in THINKING:
                content = content[:-1]
            messages[index] = {**message, "content": content}
    messages = _only_pairs(messages)
    if all(map(itemgetter("content"), messages)):
        return messages
    out: list[dict[str, Any]] = []
    for message in messages:
        if out and out[-1]["role"] == message["role"]:
            out[-1] = {**out[-1], "content": [*out[-1]["content"], *message["content"]]}
        elif message["content"]:
            out.append(message)
    return out


def _only_pairs(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    called: set[object] = set()
    found: set[object] = set()
    for message in messages:
        if message["role"] == "assistant":
            for block in message["content"]:
                if _is_server_block(block):
                    (called if block["type"] in SERVER_CALLS else found).add(_id_of(block))
    if called == found:
        return messages
    out: list[dict[str, Any]] = []
    for message in messages:
        content = message["content"]
        if message["role"] == "assistant":
            waits = {
                _id_of(block)
                for place, block in enumerate(content)
                if block.get("type") in SERVER_CALLS
                and any(later.get("type") == "tool_use" for later in content[place + 1 :])
            }
            content = [
                block
                for block in content
                if not _is_server_block(block)
                or _id_of(block) in (found | waits if block["type"] in SERVER_CALLS else called)
            ]
        out.append({**message, "content": content})
    return out


def _is_server_block(block: object) -> bool:
    if not isinstance(block, Mapping):  # anything may be stored as state
        return False
    kind = str(cast("Mapping[str, Any]", block).get("type"))
    return kind in SERVER_CALLS or is_result(kind)


def _id_of(block: Mapping[str, Any]) -> object:
    return block.get("id") if block.get("type") in SERVER_CALLS else block.get("tool_use_id")
