"""Rough token counts, without a tokenizer.

They serve the metrics of replies that were cut, budgets and trimming. Each place that reports a
count also reports that it is an estimate.
"""

from __future__ import annotations

from collections.abc import Iterable

from rejoinder._core.items import ChatItem, parts_of

__all__ = ["estimate_history", "estimate_tokens", "text_size", "tokens_of"]

# What one item costs beside its text: role, separators, ids.
_OVERHEAD = 4
_BYTES_PER_TOKEN = 4
# A picture of 1024 x 1024 costs 258 to 1400 tokens, by provider; sound 10 to 32 a second.
_TOKENS_PER_IMAGE = 1000
_TOKENS_PER_SECOND = 32


def estimate_tokens(item: ChatItem) -> int:
    """Estimate the tokens of an item, without a tokenizer.

    Four bytes of UTF-8 make a token, an image costs about 1000, sound without a transcript 32 a
    second. Expect errors of a third in either direction, more for unusual scripts and code.
    """
    match item.type:
        case "message":
            tokens = 0
            for part in parts_of(item):
                if isinstance(part, str):
                    tokens += _tokens_of_text(part)
                elif part.type == "audio_content":
                    if part.transcript is not None:
                        tokens += _tokens_of_text(part.transcript)
                    else:
                        seconds = sum(
                            f.samples_per_channel / (f.sample_rate or 1) for f in part.frame
                        )
                        tokens += int(seconds * _TOKENS_PER_SECOND)
                else:
                    tokens += _TOKENS_PER_IMAGE
            return _OVERHEAD + tokens
        case "function_call":
            return _OVERHEAD + _tokens_of_text(item.name) + _tokens_of_text(item.arguments)
        case "function_call_output":
            pictures = len(item.images)
            if item.output.startswith("data:image/"):
                return _OVERHEAD + (1 + pictures) * _TOKENS_PER_IMAGE
            return _OVERHEAD + _tokens_of_text(item.output) + pictures * _TOKENS_PER_IMAGE
        case "agent_handoff" | "agent_config_update":
            return 0  # never sent


def estimate_history(items: Iterable[ChatItem]) -> int:
    """Estimate the tokens of a conversation."""
    return sum(map(estimate_tokens, items))


def text_size(text: str) -> int:
    """Bytes of UTF-8. In scripts other than Latin, they predict tokens better than characters do."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def tokens_of(size: int) -> int:
    """Estimate the tokens of a text of `size` bytes."""
    return -(-size // _BYTES_PER_TOKEN)


def _tokens_of_text(text: str) -> int:
    return tokens_of(text_size(text))
