"""Encodes the session object, the history and texts for the Live API. Pure.

The history of a session is only text: at most 128 messages with about 8,192 tokens in total; calls,
results and pictures are described in words. Every later text is appended in pieces of at most 500
tokens (the types of the ``openai`` package, version 3.57).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rejoinder._core import results
from rejoinder._core.items import ChatItem, ChatMessage, FunctionCall, FunctionCallOutput
from rejoinder._core.realtime.messages import UpdateSession
from rejoinder._core.realtime.speech import spoken_text
from rejoinder.providers.completions.request import named_choice

__all__ = [
    "SAMPLE_RATE",
    "LiveFacts",
    "LIVE_MODELS",
    "Described",
    "append_pieces",
    "backend",
    "described",
    "history",
    "most_tokens",
    "session_object",
]

SAMPLE_RATE: Final = 24000


@dataclass(frozen=True)
class LiveFacts:
    """The facts about a model of the Live API.

    Attributes:
        voices: the known names of its voices; the service accepts others, too.
        context_tokens: tokens of its context.
    """

    voices: tuple[str, ...] = (
        "alloy", "ash", "ballad", "beacon", "bossa", "cedar", "cinder", "coral", "delta", "echo",
        "gleam", "marin", "meridian", "quartz", "ripple", "sage", "shida", "shimmer", "stone",
        "tempo", "verse", "vesper", "willow",
    )  # fmt: skip
    context_tokens: int = 128_000


# Source: the types of the `openai` package, version 3.57. The longest prefix counts.
LIVE_MODELS: Final[Mapping[str, LiveFacts]] = {"gpt-live-1": LiveFacts()}

_MOST_MESSAGES: Final = 128
_MOST_HISTORY: Final = 8000.0
"""Tokens of the history; the limit of the service is 8,192, with its own overhead."""
_MESSAGE_OVERHEAD: Final = 6
_MOST_APPENDED: Final = 480.0
"""Tokens of one append; the limit of the service is 500."""
_WORD: Final = re.compile(r"[A-Za-z]+|\s+|.", re.DOTALL)
_SENTENCE: Final = re.compile(r"[.!?。！？\n]+[\s\"'”’)]*")
_BACKEND: Final = (
    "model",
    "instructions",
    "parallel_tool_calls",
    "reasoning",
    "text",
    "service_tier",
    "max_output_tokens",
)


# -- tokens --------------------------------------------------------------------------------------


def most_tokens(text: str) -> float:
    """An upper limit of the tokens of `text`, without a tokenizer: words, digits, marks and other
    scripts each count with their worst case."""
    return sum(map(_cost, _WORD.findall(text)))


def _cost(word: str) -> float:
    if word.isspace():
        return 0.1 * len(word)
    if not word.isascii():
        return 0.75 * len(word.encode("utf-8", "surrogatepass"))
    # A usual word is one or two tokens; a long run of letters may be a key or an address.
    return max(1.0, len(word) * (0.4 if len(word) <= 16 else 0.7))


def append_pieces(text: str, limit: float = _MOST_APPENDED) -> list[str]:
    """`text` in pieces for appends, cut after a sentence, else after a word. Joined, they equal the
    text."""
    pieces: list[str] = []
    while text:
        end = _fitting(text, limit)
        pieces.append(text[:end])
        text = text[end:]
    return pieces


def _fitting(text: str, limit: float) -> int:
    """The number of characters of `text` that fit."""
    total, at = 0.0, 0
    for found in _WORD.finditer(text):
        total += _cost(found[0])
        if total > limit:
            break
        at = found.end()
    if at == len(text):
        return at
    ends = (found.end() for found in _SENTENCE.finditer(text, at // 2))
    sentence = max(itertools.takewhile(lambda end: end <= at, ends), default=0)
    if sentence:
        return sentence
    # A word that is longer than the limit is cut inside.
    return at or max(1, int(limit / 0.75) // 4)


# -- the history ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Described:
    """An item in words: its author and its text."""

    role: str
    text: str


def described(item: ChatItem, names: Mapping[str, str] | None = None) -> Described | None:
    """An item as a message of text; ``None`` if it has no text form.

    Args:
        item: an item of the conversation.
        names: names of tools by the id of their call, for results without a name.
    """
    match item:
        case ChatMessage():
            text = spoken_text(item) or ("(a picture)" if item.content else "")
            role = item.role if item.role in ("user", "assistant") else "developer"
            return Described(role, text) if text.strip() else None
        case FunctionCall():
            return Described("developer", f"The tool {item.name} was called with {item.arguments}.")
        case FunctionCallOutput():
            name = item.name or (names or {}).get(item.call_id) or item.call_id
            verb = "failed" if item.is_error else "returned"
            return Described(
                "developer", f"The tool {name} {verb}: {results.described(item.output)}"
            )
        case _:
            return None


def history(items: Sequence[ChatItem]) -> list[dict[str, Any]]:
    """The newest items that a session accepts at its beginning, in their order."""
    names = {item.call_id: item.name for item in items if isinstance(item, FunctionCall)}
    found: list[dict[str, Any]] = []
    left = _MOST_HISTORY
    for item in reversed(items):
        said = described(item, names)
        if said is None:
            continue
        text = said.text
        cost = most_tokens(text) + _MESSAGE_OVERHEAD
        if cost > left and not found:
            text = append_pieces(text, left - _MESSAGE_OVERHEAD)[0]
        elif cost > left or len(found) == _MOST_MESSAGES:
            break
        left -= cost
        kind = "output_text" if said.role == "assistant" else "input_text"
        found.append({
            "type": "message", "role": said.role, "content": [{"type": kind, "text": text}],
        })  # fmt: skip
    return found[::-1]


# -- the session ---------------------------------------------------------------------------------


def session_object(model: str, delegation: str, settings: UpdateSession) -> dict[str, Any]:
    """The session object of the first frame, with only the set fields."""
    options = settings.options or {}
    session: dict[str, Any] = {
        "model": model,
        "audio": {
            "format": {"type": "audio/pcm", "rate": SAMPLE_RATE},
            "output": {"voice": options.get("voice", "marin")},
        },
    }
    if settings.instructions:
        session["instructions"] = settings.instructions
    given = history(settings.items)
    if given:
        session["input"] = given
    for name in ("store", "safety_identifier"):
        if name in options:
            session[name] = options[name]
    owner: dict[str, Any] = {"type": delegation}
    if "acknowledgement_delay" in options:
        owner["acknowledgement_delay_ms"] = round(options["acknowledgement_delay"] * 1000)
    if delegation == "responses":
        owner["responses"] = backend(options, settings.tools)
    session["delegation"] = owner
    return session


def backend(
    options: Mapping[str, Any], tools: Sequence[Mapping[str, Any]] | None
) -> dict[str, Any]:
    """The given settings of the backend model."""
    responses: Mapping[str, Any] = options.get("responses") or {}
    found = {name: responses[name] for name in _BACKEND if responses.get(name) is not None}
    choice = options.get("tool_choice", responses.get("tool_choice"))
    if "tool_choice" in options or choice is not None:
        found["tool_choice"] = named_choice(choice, flat=True) or "auto"
    if tools is not None:
        found["tools"] = list(tools)
    return found
